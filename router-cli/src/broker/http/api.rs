//! The JSON API, under `/api/v1`, with basic authentication: for programs, `duet tunnel add NAME broker` among them.

use super::commands::recipes;
use super::{Peer, Web, basic};
use crate::broker::model::{Account, Mode};
use crate::broker::service::{BrokerError, Moved, Origin, Spoken};
use crate::broker::store::StoreError;
use crate::control::LeaseInfo;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route("/api/v1/tunnels", get(list))
        .route("/api/v1/tunnels/{which}", get(one).put(put).delete(remove))
        .route("/api/v1/tunnels/{which}/endpoint", post(endpoint))
        .route("/api/v1/tunnels/{which}/key", post(key))
        .route("/api/v1/tunnels/{which}/commands", get(commands))
}

/// What a client wants of the tunnel that it names: made if it is not there.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wish {
    /// `6in4`, `6inudp4`, `4in6`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Length of the prefix to delegate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<u8>,
    /// Its outer address; None: where the request comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<IpAddr>,
}

/// A tunnel as the API gives it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Given {
    /// The tunnel.
    pub tunnel: LeaseInfo,
    /// Where the request came from: not the client's own address if there is a NAT.
    pub seen_from: IpAddr,
    /// The update key, told once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_key: Option<String>,
    /// Whether the endpoint is another one now.
    #[serde(default)]
    pub moved: bool,
}

/// The code and a JSON body that says why.
pub(super) fn refusal(e: &BrokerError) -> Response {
    let code = match e {
        BrokerError::BadAuth => StatusCode::UNAUTHORIZED,
        BrokerError::Locked(_) | BrokerError::TooOften => StatusCode::TOO_MANY_REQUESTS,
        BrokerError::Blocked | BrokerError::Foreign(_) => StatusCode::FORBIDDEN,
        BrokerError::NoTunnel | BrokerError::Store(StoreError::Missing(_)) => StatusCode::NOT_FOUND,
        BrokerError::Taken(_) | BrokerError::Store(StoreError::Full(_) | StoreError::Exists(_)) => StatusCode::CONFLICT,
        BrokerError::Endpoint(_) | BrokerError::Mode(_) | BrokerError::Invalid(_) | BrokerError::Length(_) => {
            StatusCode::BAD_REQUEST
        }
        BrokerError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        BrokerError::Store(_) | BrokerError::Router(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    // What went wrong inside is for the log, not for strangers.
    let text = if code == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!("broker: {e}");
        "something went wrong here; the operator's log says what".to_owned()
    } else {
        e.to_string()
    };
    let body = Json(json!({ "error": text }));
    match e {
        BrokerError::BadAuth => {
            (code, [(header::WWW_AUTHENTICATE, "Basic realm=\"duet\", charset=\"UTF-8\"")], body).into_response()
        }
        _ => (code, body).into_response(),
    }
}

async fn who(web: &Web, from: IpAddr, headers: &HeaderMap) -> Result<(Account, Origin), BrokerError> {
    let origin = Origin { from: Some(from), via: "api" };
    let (user, password) = basic(headers).ok_or(BrokerError::BadAuth)?;
    Ok((web.login(origin, user, password, Spoken::Plain, None).await?, origin))
}

fn reply<T: Serialize>(result: Result<T, BrokerError>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(e) => refusal(&e),
    }
}

type Asked = (State<Arc<Web>>, Extension<Peer>, HeaderMap);

async fn list((State(web), Extension(Peer(from)), headers): Asked) -> Response {
    let result = async {
        let (account, _) = who(&web, from, &headers).await?;
        web.light(move |s| Ok(s.infos(&s.store.tunnels_of(&account.name)?))).await
    };
    reply(result.await)
}

async fn one((State(web), Extension(Peer(from)), headers): Asked, Path(which): Path<String>) -> Response {
    let result = async {
        let (account, _) = who(&web, from, &headers).await?;
        web.light(move |s| {
            let tunnel = s.info(&s.own(&account.name, &which)?);
            Ok(Given { tunnel, seen_from: from, update_key: None, moved: false })
        })
        .await
    };
    reply(result.await)
}

/// Makes the tunnel of this name, or moves it: saying it again changes nothing.
async fn put(
    (State(web), Extension(Peer(from)), headers): Asked,
    Path(which): Path<String>,
    wish: Result<Json<Wish>, JsonRejection>,
) -> Response {
    let result = async {
        let (account, origin) = who(&web, from, &headers).await?;
        let Json(wish) = wish.map_err(|e| BrokerError::Invalid(e.body_text()))?;
        let mode = match &wish.mode {
            Some(name) => Mode::parse(name).ok_or_else(|| BrokerError::Mode(name.chars().take(16).collect()))?,
            None => Mode::SixInFour,
        };
        let (owner, name) = (account.name.clone(), which.clone());
        let found = web.light(move |s| match s.own(&owner, &name) {
            Err(BrokerError::NoTunnel) => Ok(None),
            other => other.map(Some),
        });
        match found.await? {
            Some(t) => {
                web.light(move |s| {
                    let to = s.claimed(origin, wish.endpoint, t.mode)?;
                    let moved = matches!(s.update(origin, t.id, to, None)?, Moved::Good(_));
                    let tunnel = s.info(&s.own(&account.name, &which)?);
                    Ok(Given { tunnel, seen_from: from, update_key: None, moved })
                })
                .await
            }
            None => {
                web.heavy(move |s| {
                    let to = s.claimed(origin, wish.endpoint, mode)?;
                    let lengths: Vec<u8> = wish.prefix.into_iter().filter(|l| *l != 0).collect();
                    let (t, key) = s.create(origin, Some(&account), &which, mode, Some((to, None)), &lengths)?;
                    Ok(Given { tunnel: s.info(&t), seen_from: from, update_key: Some(key), moved: true })
                })
                .await
            }
        }
    };
    reply(result.await)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    #[serde(default)]
    endpoint: Option<IpAddr>,
}

async fn endpoint(
    (State(web), Extension(Peer(from)), headers): Asked,
    Path(which): Path<String>,
    end: Result<Json<End>, JsonRejection>,
) -> Response {
    let result = async {
        let (account, origin) = who(&web, from, &headers).await?;
        let Json(end) = end.map_err(|e| BrokerError::Invalid(e.body_text()))?;
        web.light(move |s| {
            let t = s.own(&account.name, &which)?;
            let to = s.claimed(origin, end.endpoint, t.mode)?;
            let moved = matches!(s.update(origin, t.id, to, None)?, Moved::Good(_));
            let tunnel = s.info(&s.own(&account.name, &which)?);
            Ok(Given { tunnel, seen_from: from, update_key: None, moved })
        })
        .await
    };
    reply(result.await)
}

async fn key((State(web), Extension(Peer(from)), headers): Asked, Path(which): Path<String>) -> Response {
    let result = async {
        let (account, origin) = who(&web, from, &headers).await?;
        web.heavy(move |s| {
            let id = s.own(&account.name, &which)?.id;
            Ok(json!({ "update_key": s.new_key(origin, id)? }))
        })
        .await
    };
    reply(result.await)
}

async fn remove((State(web), Extension(Peer(from)), headers): Asked, Path(which): Path<String>) -> Response {
    let result = async {
        let (account, origin) = who(&web, from, &headers).await?;
        web.light(move |s| s.delete(origin, s.own(&account.name, &which)?.id)).await
    };
    match result.await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(e) => refusal(&e),
    }
}

async fn commands((State(web), Extension(Peer(from)), headers): Asked, Path(which): Path<String>) -> Response {
    let url = own_url(&web, &headers);
    let result = async {
        let (account, _) = who(&web, from, &headers).await?;
        web.light(move |s| {
            let list = recipes(&s.info(&s.own(&account.name, &which)?), &url);
            Ok(list
                .into_iter()
                .map(|r| json!({ "system": r.system, "note": r.note, "text": r.text }))
                .collect::<Vec<_>>())
        })
        .await
    };
    reply(result.await)
}

/// The broker's address as the client wrote it.
pub(super) fn own_url(web: &Web, headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("BROKER");
    // It goes into commands that people copy: nothing but a host and a port.
    let clean = host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c)) && host.len() <= 255;
    format!("{}://{}", if web.tls { "https" } else { "http" }, if clean { host } else { "BROKER" })
}
