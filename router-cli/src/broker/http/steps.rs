//! What every page and every call of the API does, once: who is it; is what it asks its own to ask; the work, where it may wait;
//! what came of it, or why nothing did. A handler says only what is different.

use super::session::{Session, same_site};
use super::{Peer, Web, api, basic, pages};
use crate::broker::model::{Account, Tunnel};
use crate::broker::service::{BrokerError, Origin, Service, Spoken};
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use std::sync::Arc;

/// What every handler is given.
pub type Asked = (State<Arc<Web>>, Extension<Peer>, HeaderMap);

/// How much work it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// The database or the router.
    Light,
    /// Hashes, too.
    Heavy,
}

/// Who asks for a page.
#[derive(Clone, Debug)]
pub struct Visitor {
    /// The account.
    pub account: String,
    /// From where.
    pub origin: Origin,
}

impl Visitor {
    /// A tunnel of theirs.
    pub fn tunnel(&self, s: &Service, which: &str) -> Result<Tunnel, BrokerError> {
        s.own(&self.account, which)
    }
}

/// What a page is made with.
pub struct Shown<'a> {
    /// The broker.
    pub web: &'a Web,
    /// Whose page it is.
    pub session: &'a Session,
    /// The broker's address as the visitor wrote it.
    pub url: String,
}

impl Web {
    /// The work, where it may wait.
    pub async fn work<T: Send + 'static>(
        &self,
        load: Load,
        f: impl FnOnce(&Service) -> Result<T, BrokerError> + Send + 'static,
    ) -> Result<T, BrokerError> {
        match load {
            Load::Light => self.light(f).await,
            Load::Heavy => self.heavy(f).await,
        }
    }
}

/// A page behind the login. `token`: what a form carries; None: nothing is changed.
pub async fn visit<T: Send + 'static>(
    (State(web), Extension(Peer(from)), headers): Asked,
    token: Option<&str>,
    load: Load,
    work: impl FnOnce(&Service, &Visitor) -> Result<T, BrokerError> + Send + 'static,
    show: impl FnOnce(&Shown<'_>, T) -> Response,
) -> Response {
    let Some(session) = web.sessions.of(&headers) else { return pages::to_login() };
    if token.is_some_and(|token| !same_site(&headers) || !session.owns(token)) {
        let note = Some((true, "That form is too old, or of another site. Nothing was changed.".to_owned()));
        let body = "<p><a href=\"/\">Back</a></p>\n";
        return pages::say(&web, Some(&session), StatusCode::FORBIDDEN, "Not done", note, body);
    }
    let who = Visitor { account: session.account.clone(), origin: Origin { from: Some(from), via: "web" } };
    match web.work(load, move |s| work(s, &who)).await {
        Ok(done) => show(&Shown { web: &web, session: &session, url: api::own_url(&web, &headers) }, done),
        Err(e) => pages::sorry(&web, Some(&session), &e),
    }
}

/// A call of the API: its account, then the work.
pub async fn call<T: Send + 'static>(
    (State(web), Extension(Peer(from)), headers): &Asked,
    load: Load,
    work: impl FnOnce(&Service, Account, Origin) -> Result<T, BrokerError> + Send + 'static,
) -> Result<T, BrokerError> {
    let origin = Origin { from: Some(*from), via: "api" };
    let (user, password) = basic(headers).ok_or(BrokerError::BadAuth)?;
    let account = web.login(origin, user, password, Spoken::Plain, None).await?;
    web.work(load, move |s| work(s, account, origin)).await
}
