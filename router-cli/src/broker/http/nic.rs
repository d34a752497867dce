//! The update call that dynamic DNS clients speak (`/nic/update`, protocol dyndns2), the older one of tunnel brokers
//! (`/ipv4_end.php`), and the document that tells a client about its tunnel.

use super::{Peer, Web, basic};
use crate::broker::model::{Account, Tunnel};
use crate::broker::service::{BrokerError, Moved, Origin, Spoken};
use axum::Router;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::collections::HashMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

/// Names in one request, as dyndns2 has it.
const NAMES: usize = 20;

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route("/nic/update", get(update))
        .route("/v3/update", get(update))
        .route("/ipv4_end.php", get(old_update))
        .route("/nic/checkip", get(checkip))
        .route("/checkip", get(checkip))
        .route("/tunnelInfo.php", get(info))
        .route("/nic/info", get(info))
}

type Words = Query<HashMap<String, String>>;

/// The address that the request came from, in words that clients look for.
pub(super) async fn checkip(Extension(Peer(from)): Extension<Peer>) -> Response {
    let page = format!("<html><body>Your IP address is : {from}</body></html>\n");
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response()
}

/// One of the words of dyndns2. What only a human can mend is a word that makes clients stop.
fn word(e: &BrokerError) -> &'static str {
    match e {
        BrokerError::BadAuth => "badauth",
        BrokerError::NoTunnel => "nohost",
        BrokerError::Locked(_) | BrokerError::Blocked | BrokerError::TooOften | BrokerError::Foreign(_) => "abuse",
        BrokerError::Invalid(_) | BrokerError::Length(_) | BrokerError::Mode(_) => "notfqdn",
        BrokerError::Endpoint(_) | BrokerError::Taken(_) => "dnserr",
        BrokerError::Busy | BrokerError::Store(_) | BrokerError::Router(_) => "911",
    }
}

fn answer(text: impl Into<String>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text.into()).into_response()
}

fn challenge(name: &str, text: &'static str) -> Response {
    let realm = format!("Basic realm=\"{}\", charset=\"UTF-8\"", name.replace(['"', '\\'], ""));
    (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, realm)], text).into_response()
}

/// The credentials of the header, or of the query.
fn credentials(headers: &HeaderMap, q: &HashMap<String, String>) -> Option<(String, String)> {
    let said = |keys: &[&str]| keys.iter().find_map(|k| q.get(*k)).cloned();
    basic(headers).or_else(|| Some((said(&["username", "user"])?, said(&["password", "pass"])?)))
}

/// An address as a client writes it.
fn address(text: &str) -> Result<IpAddr, BrokerError> {
    let bad = || BrokerError::Endpoint(format!("\"{}\" is not an address", text.escape_debug()));
    router_core::addr::parse_addr(text.trim()).map_err(|_| bad())
}

async fn update(
    State(web): State<Arc<Web>>,
    Extension(Peer(from)): Extension<Peer>,
    headers: HeaderMap,
    Query(q): Words,
) -> Response {
    let origin = Origin { from: Some(from), via: "update" };
    if headers.get(header::USER_AGENT).is_none_or(|a| a.is_empty()) {
        return answer("badagent\n");
    }
    let Some((user, password)) = credentials(&headers, &q) else {
        return challenge(&web.service.plan.name, "badauth\n");
    };
    let hosts = q.get("hostname").or_else(|| q.get("host")).map_or("", String::as_str);
    let names: Vec<String> = hosts.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::to_owned).collect();
    // The key of one tunnel opens that one only.
    let keyed = names.first().filter(|_| names.len() == 1).and_then(|n| n.parse().ok());
    let account = match web.login(origin, user, password, Spoken::Plain, keyed).await {
        Ok(account) => account,
        Err(BrokerError::BadAuth) => return challenge(&web.service.plan.name, "badauth\n"),
        Err(e) => return answer(format!("{}\n", word(&e))),
    };
    if names.is_empty() {
        return answer("notfqdn\n");
    }
    if names.len() > NAMES {
        return answer("numhost\n");
    }
    let said = match q.get("myip").or_else(|| q.get("ip")).filter(|t| !t.trim().is_empty()).map(|t| address(t)) {
        None => None,
        Some(Ok(a)) => Some(a),
        Some(Err(e)) => return answer(format!("{}\n", word(&e))),
    };
    let mut text = String::new();
    for name in names {
        let line = match move_one(&web, origin, account.clone(), name, said).await {
            Ok(Moved::Good(a)) => format!("good {a}"),
            Ok(Moved::Same(a)) => format!("nochg {a}"),
            Err(e) => {
                tracing::debug!(%from, "broker: update refused: {e}");
                word(&e).to_owned()
            }
        };
        let _ = writeln!(text, "{line}");
    }
    answer(text)
}

async fn move_one(
    web: &Web,
    origin: Origin,
    account: Account,
    name: String,
    said: Option<IpAddr>,
) -> Result<Moved, BrokerError> {
    web.light(move |s| {
        let t = s.own(&account.name, &name)?;
        let to = s.claimed(origin, said, t.mode)?;
        s.update(origin, t.id, to, None)
    })
    .await
}

/// `GET /ipv4_end.php?ip=A&apikey=USER&pass=MD5&tid=N`: the password as its MD5; `ip=AUTO` means the peer.
async fn old_update(State(web): State<Arc<Web>>, Extension(Peer(from)): Extension<Peer>, Query(q): Words) -> Response {
    let origin = Origin { from: Some(from), via: "update" };
    let get = |k: &str| q.get(k).cloned().unwrap_or_default();
    let result = async {
        let md5 = get("pass").to_ascii_lowercase();
        let user = if q.contains_key("apikey") { get("apikey") } else { get("user_id") };
        let account = web.login(origin, user, md5, Spoken::Md5, None).await?;
        let said = match get("ip").as_str() {
            "" | "AUTO" | "auto" => None,
            text => Some(address(text)?),
        };
        move_one(&web, origin, account, get("tid"), said).await
    };
    match result.await {
        Ok(Moved::Good(a)) => answer(format!("+OK: Tunnel endpoint updated to: {a}\n")),
        Ok(Moved::Same(a)) => answer(format!("+OK: Your tunnel endpoint is {a} already. Your IP address is : {a}\n")),
        Err(e @ BrokerError::BadAuth) => (StatusCode::UNAUTHORIZED, format!("-ERROR: {e}\n")).into_response(),
        Err(e @ BrokerError::Busy) => (StatusCode::SERVICE_UNAVAILABLE, format!("-ERROR: {e}\n")).into_response(),
        Err(e) => (StatusCode::BAD_REQUEST, format!("-ERROR: {e}\n")).into_response(),
    }
}

/// The tunnels of the account, or one of them, as an XML document.
async fn info(
    State(web): State<Arc<Web>>,
    Extension(Peer(from)): Extension<Peer>,
    headers: HeaderMap,
    Query(q): Words,
) -> Response {
    let origin = Origin { from: Some(from), via: "update" };
    let Some((user, password)) = credentials(&headers, &q) else {
        return challenge(&web.service.plan.name, "badauth\n");
    };
    let which = q.get("tid").or_else(|| q.get("hostname")).cloned();
    let keyed = which.as_deref().and_then(|w| w.parse().ok());
    let account = match web.login(origin, user, password, Spoken::Plain, keyed).await {
        Ok(account) => account,
        Err(BrokerError::BadAuth) => return challenge(&web.service.plan.name, "badauth\n"),
        Err(e) => return (StatusCode::SERVICE_UNAVAILABLE, format!("{e}\n")).into_response(),
    };
    let document = web.light(move |s| {
        let list = match which {
            Some(which) => vec![s.own(&account.name, &which)?],
            None => s.store.tunnels_of(&account.name)?,
        };
        let dns: Vec<String> = s.plan.dns.iter().map(IpAddr::to_string).collect();
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<tunnels>\n");
        list.iter().for_each(|t| entry(&mut xml, t, s.plumb.server(t.mode), &dns));
        xml.push_str("</tunnels>\n");
        Ok(xml)
    });
    match document.await {
        Ok(xml) => ([(header::CONTENT_TYPE, "application/xml; charset=utf-8")], xml).into_response(),
        Err(BrokerError::NoTunnel) => (StatusCode::NOT_FOUND, "nohost\n").into_response(),
        Err(e) => (StatusCode::SERVICE_UNAVAILABLE, format!("{e}\n")).into_response(),
    }
}

/// One tunnel of the document. Every text in it is an address or a name without markup.
fn entry(xml: &mut String, t: &Tunnel, server: Option<IpAddr>, dns: &[String]) {
    let text = |a: Option<IpAddr>| a.map(|a| a.to_string()).unwrap_or_default();
    let routed = |length: u8| {
        let found = t.prefixes.iter().find(|p| p.prefix_len() == length);
        found.map(|p| p.to_string()).unwrap_or_default()
    };
    let _ = writeln!(xml, " <tunnel id=\"{}\">", t.id);
    let mut tag = |name: &str, value: String| {
        let _ = writeln!(xml, "  <{name}>{value}</{name}>");
    };
    tag("description", t.name.clone());
    tag("mode", t.mode.name().into());
    // Of each end the outer and the inner address, one of either family.
    for (end, outer, inner) in [("server", server, t.server_inner()), ("client", t.endpoint, t.client_inner())] {
        let of = |four: bool| [outer, Some(inner)].into_iter().flatten().find(|a| a.is_ipv4() == four);
        tag(&format!("{end}v4"), text(of(true)));
        tag(&format!("{end}v6"), text(of(false)));
    }
    tag("routed64", routed(64));
    tag("routed48", routed(48));
    for (i, server) in dns.iter().take(5).enumerate() {
        tag(&format!("rdns{}", i + 1), server.clone());
    }
    xml.push_str(" </tunnel>\n");
}
