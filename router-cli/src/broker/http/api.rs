//! The JSON API, under `/api/v1`, with basic authentication: for programs, `duet tunnel add NAME broker` among them.

use super::Web;
use super::commands::{Recipe, recipes};
use super::steps::{Asked, Load, call};
use crate::broker::model::{Account, Mode, Tunnel};
use crate::broker::service::{BrokerError, Moved, Origin, Service};
use crate::broker::store::StoreError;
use crate::control::LeaseInfo;
use axum::extract::Path;
use axum::extract::rejection::JsonRejection;
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

fn reply<T: Serialize>(result: Result<T, BrokerError>) -> Response {
    match result {
        Ok(value) => Json(value).into_response(),
        Err(e) => refusal(&e),
    }
}

async fn list(asked: Asked) -> Response {
    reply(call(&asked, Load::Light, |s, account, _| Ok(s.infos(&s.store.tunnels_of(&account.name)?))).await)
}

async fn one(asked: Asked, Path(which): Path<String>) -> Response {
    let seen_from = asked.1.0.0;
    let result = call(&asked, Load::Light, move |s, account, _| {
        Ok(Given { tunnel: s.info(&s.own(&account.name, &which)?), seen_from, update_key: None, moved: false })
    });
    reply(result.await)
}

/// Moves the end of a tunnel to where the client says, or to where it speaks from.
fn moved(s: &Service, account: &Account, origin: Origin, t: &Tunnel, to: Option<IpAddr>) -> Result<Given, BrokerError> {
    let end = s.claimed(origin, to, t.mode)?;
    let moved = matches!(s.update(origin, t.id, end, None)?, Moved::Good(_));
    let tunnel = s.info(&s.own(&account.name, &t.id.to_string())?);
    Ok(Given { tunnel, seen_from: origin.from.unwrap_or(end), update_key: None, moved })
}

/// Makes the tunnel of this name, or moves it: saying it again changes nothing.
async fn put(asked: Asked, Path(which): Path<String>, wish: Result<Json<Wish>, JsonRejection>) -> Response {
    let wish = wish.map(|Json(wish)| wish).map_err(|e| BrokerError::Invalid(e.body_text()));
    let name = which.clone();
    // What is there already needs no new key, and so no hash.
    let found = call(&asked, Load::Light, move |s, account, origin| {
        let wish = wish?;
        let mode = match &wish.mode {
            Some(name) => Mode::parse(name).ok_or_else(|| BrokerError::Mode(name.chars().take(16).collect()))?,
            None => Mode::SixInFour,
        };
        match s.own(&account.name, &name) {
            Ok(t) => moved(s, &account, origin, &t, wish.endpoint).map(Ok),
            Err(BrokerError::NoTunnel) => Ok(Err((mode, wish))),
            Err(e) => Err(e),
        }
    });
    let result = match found.await {
        Ok(Ok(given)) => Ok(given),
        Ok(Err((mode, wish))) => {
            call(&asked, Load::Heavy, move |s, account, origin| {
                let to = s.claimed(origin, wish.endpoint, mode)?;
                let lengths: Vec<u8> = wish.prefix.into_iter().filter(|l| *l != 0).collect();
                let (t, key) = s.create(origin, Some(&account), &which, mode, Some((to, None)), &lengths)?;
                let seen_from = origin.from.unwrap_or(to);
                Ok(Given { tunnel: s.info(&t), seen_from, update_key: Some(key), moved: true })
            })
            .await
        }
        Err(e) => Err(e),
    };
    reply(result)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    #[serde(default)]
    endpoint: Option<IpAddr>,
}

async fn endpoint(asked: Asked, Path(which): Path<String>, end: Result<Json<End>, JsonRejection>) -> Response {
    let end = end.map(|Json(end)| end).map_err(|e| BrokerError::Invalid(e.body_text()));
    let result = call(&asked, Load::Light, move |s, account, origin| {
        let t = s.own(&account.name, &which)?;
        moved(s, &account, origin, &t, end?.endpoint)
    });
    reply(result.await)
}

async fn key(asked: Asked, Path(which): Path<String>) -> Response {
    let result = call(&asked, Load::Heavy, move |s, account, origin| {
        let id = s.own(&account.name, &which)?.id;
        Ok(json!({ "update_key": s.new_key(origin, id)? }))
    });
    reply(result.await)
}

async fn remove(asked: Asked, Path(which): Path<String>) -> Response {
    let result =
        call(&asked, Load::Light, move |s, account, origin| s.delete(origin, s.own(&account.name, &which)?.id));
    match result.await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(e) => refusal(&e),
    }
}

async fn commands(asked: Asked, Path(which): Path<String>) -> Response {
    let url = own_url(&asked.0, &asked.2);
    let result = call(&asked, Load::Light, move |s, account, _| {
        let list = recipes(&s.info(&s.own(&account.name, &which)?), &url);
        let json = |r: Recipe| json!({ "system": r.system, "note": r.note, "text": r.text });
        Ok(list.into_iter().map(json).collect::<Vec<_>>())
    });
    reply(result.await)
}

/// The broker's address as the client wrote it.
pub(super) fn own_url(web: &Web, headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("BROKER");
    // It goes into commands that people copy: nothing but a host and a port.
    let clean = host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c)) && host.len() <= 255;
    format!("{}://{}", if web.tls { "https" } else { "http" }, if clean { host } else { "BROKER" })
}
