//! The pages: log in, see, make, change and remove tunnels, copy commands.

use super::commands::recipes;
use super::html::{Frame, STYLE, bytes, esc, hidden, moment, page};
use super::session::{COOKIE, Session, same_site};
use super::steps::{Asked, Load, Shown, Visitor, visit};
use super::{Peer, Web, api, nic};
use crate::broker::model::Mode;
use crate::broker::service::{BrokerError, Moved, Origin, Service, Spoken};
use crate::control::LeaseInfo;
use axum::Router;
use axum::extract::{Extension, Form, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

pub(super) fn routes() -> Router<Arc<Web>> {
    Router::new()
        .route("/", get(home))
        .route("/style.css", get(style))
        .route("/login", post(login))
        .route("/logout", post(logout))
        .route("/account", get(account).post(password))
        .route("/tunnels", post(create))
        .route("/tunnels/{id}", get(tunnel))
        .route("/tunnels/{id}/endpoint", post(endpoint))
        .route("/tunnels/{id}/key", post(key))
        .route("/tunnels/{id}/delete", get(ask_delete).post(delete))
        .fallback(nothing)
}

async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "max-age=3600")];
    (headers, STYLE).into_response()
}

async fn nothing((State(web), _, headers): Asked) -> Response {
    let session = web.sessions.of(&headers);
    say(
        &web,
        session.as_ref(),
        StatusCode::NOT_FOUND,
        "Not found",
        None,
        "<p>There is no such page. <a href=\"/\">To the tunnels</a></p>\n",
    )
}

pub(super) fn say(
    web: &Web,
    session: Option<&Session>,
    code: StatusCode,
    title: &str,
    note: Option<(bool, String)>,
    body: &str,
) -> Response {
    let session = session.map(|s| (s.account.as_str(), s.token.as_str()));
    page(code, &Frame { broker: &web.service.plan.name, title, session, note }, body)
}

/// What went wrong, on a page of its own.
pub(super) fn sorry(web: &Web, session: Option<&Session>, e: &BrokerError) -> Response {
    let code = api::refusal(e).status();
    let text = match code {
        StatusCode::INTERNAL_SERVER_ERROR => "Something went wrong here. The operator's log says what.".to_owned(),
        _ => sentence(&e.to_string()),
    };
    // A browser asks for a password by itself on 401: not wanted here.
    let code = if code == StatusCode::UNAUTHORIZED { StatusCode::FORBIDDEN } else { code };
    say(web, session, code, "That did not work", Some((true, text)), "<p><a href=\"/\">Back</a></p>\n")
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).chain(['.']).collect())
}

pub(super) fn to_login() -> Response {
    Redirect::to("/").into_response()
}

fn login_page(web: &Web, code: StatusCode, note: Option<(bool, String)>) -> Response {
    let body = "<form method=\"post\" action=\"/login\">\n\
        <label for=\"user\">Account</label><input id=\"user\" name=\"user\" autocomplete=\"username\" autocapitalize=\"none\" required maxlength=\"32\" autofocus>\n\
        <label for=\"password\">Password</label><input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"current-password\" required maxlength=\"256\">\n\
        <p><button>Log in</button></p>\n</form>\n\
        <p class=\"dim\">Accounts are made by the operator of this server.</p>\n";
    say(web, None, code, "Log in", note, body)
}

async fn home((State(web), Extension(peer), headers): Asked) -> Response {
    // Update clients ask the front page of a host of this name for their address.
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    if host.starts_with("checkip.") {
        return nic::checkip(Extension(peer)).await;
    }
    if web.sessions.of(&headers).is_none() {
        return login_page(&web, StatusCode::OK, None);
    }
    let asked = (State(web), Extension(peer), headers);
    let work = |s: &Service, v: &Visitor| {
        let tunnels: Vec<LeaseInfo> = s.infos(&s.store.tunnels_of(&v.account)?);
        let most = s.store.account(&v.account)?.and_then(|a| a.max_tunnels).unwrap_or(s.plan.max_tunnels_per_account);
        Ok((tunnels, most, s.plumb.modes()))
    };
    visit(asked, None, Load::Light, work, |f, (tunnels, most, modes)| overview(f, peer.0, &tunnels, most, &modes)).await
}

/// The account's tunnels, and a form for another one.
fn overview(f: &Shown<'_>, from: IpAddr, tunnels: &[LeaseInfo], most: u32, modes: &[Mode]) -> Response {
    let mut body = String::new();
    if tunnels.is_empty() {
        body.push_str("<p>You have no tunnels yet.</p>\n");
    } else {
        body.push_str(
            "<div class=\"wide\"><table><thead><tr><th scope=\"col\">Tunnel</th><th scope=\"col\">State</th>\
             <th scope=\"col\">Your end</th><th scope=\"col\">Prefixes</th><th scope=\"col\" class=\"n\">From you</th>\
             <th scope=\"col\" class=\"n\">To you</th></tr></thead><tbody>\n",
        );
        for t in tunnels {
            let prefixes: Vec<String> = t.prefixes.iter().map(esc).collect();
            let _ = writeln!(
                body,
                "<tr><td><a href=\"/tunnels/{}\">{}</a></td><td>{}</td><td class=\"mono\">{}</td><td class=\"mono\">{}</td>\
                 <td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                t.id,
                esc(&t.name),
                state(t),
                end(t),
                prefixes.join("<br>"),
                bytes(t.totals.rx_bytes),
                bytes(t.totals.tx_bytes)
            );
        }
        body.push_str("</tbody></table></div>\n");
    }
    if tunnels.len() < most as usize {
        body.push_str(&new_form(f.web, f.session, from, modes));
    } else {
        let _ = writeln!(body, "<p class=\"dim\">Your account may have {most} tunnels.</p>");
    }
    f.say("Your tunnels", None, &body)
}

impl Shown<'_> {
    /// A page that says that all went well.
    fn say(&self, title: &str, note: Option<String>, body: &str) -> Response {
        say(self.web, Some(self.session), StatusCode::OK, title, note.map(|text| (false, text)), body)
    }
}

fn new_form(web: &Web, session: &Session, from: IpAddr, modes: &[Mode]) -> String {
    let mut form =
        format!("<h2>New tunnel</h2>\n<form method=\"post\" action=\"/tunnels\">{}\n", hidden(&session.token));
    form.push_str(
        "<label for=\"name\">Name</label><input id=\"name\" name=\"name\" required maxlength=\"32\" pattern=\"[A-Za-z0-9._\\-]+\" aria-describedby=\"name-help\">\
         <div id=\"name-help\" class=\"dim\">Letters, digits, dot, hyphen</div>\n<label for=\"mode\">Kind</label><select id=\"mode\" name=\"mode\">",
    );
    for m in modes {
        let text = match m {
            Mode::SixInFour => "IPv6 in IPv4 (6in4)",
            Mode::SixInUdp => "IPv6 in UDP, through a NAT",
            Mode::FourInSix => "IPv4 in IPv6",
        };
        let _ = write!(form, "<option value=\"{}\">{text}</option>", m.name());
    }
    let shown = if from.is_ipv4() { from.to_string() } else { String::new() };
    let _ = write!(
        form,
        "</select>\n<label for=\"endpoint\">Your address</label><input id=\"endpoint\" name=\"endpoint\" value=\"{}\" maxlength=\"45\" aria-describedby=\"end-help\">\
         <div id=\"end-help\" class=\"dim\">Where your end is; empty: a client will say so later</div>\n\
         <label for=\"prefix\">Prefix</label><select id=\"prefix\" name=\"prefix\">",
        esc(shown)
    );
    for (length, there) in
        [(48, !web.service.plan.prefixes.is_empty()), (64, !web.service.plan.subnets.is_empty()), (0, true)]
    {
        if there {
            let text = if length == 0 { "none".to_owned() } else { format!("/{length}") };
            let _ = write!(form, "<option value=\"{length}\">{text}</option>");
        }
    }
    form.push_str("</select>\n<p><button>Make the tunnel</button></p>\n</form>\n");
    form
}

/// In words, not in colour alone.
fn state(t: &LeaseInfo) -> &'static str {
    match (&t.dev, t.totals.rx_packets) {
        (None, _) => "<span class=\"down\">waiting for your end</span>",
        (Some(_), 0) => "<span class=\"dim\">ready, nothing heard yet</span>",
        (Some(_), _) => "<span class=\"up\">up</span>",
    }
}

fn end(t: &LeaseInfo) -> String {
    match (t.endpoint, t.endpoint_port) {
        (Some(a), Some(p)) => esc(format!("{a} port {p}")),
        (Some(a), None) => esc(a),
        (None, _) => "-".into(),
    }
}

#[derive(Deserialize)]
struct Login {
    user: String,
    password: String,
}

async fn login((State(web), Extension(Peer(from)), headers): Asked, Form(form): Form<Login>) -> Response {
    if !same_site(&headers) {
        return login_page(&web, StatusCode::FORBIDDEN, Some((true, "That form was not of this site.".into())));
    }
    let origin = Origin { from: Some(from), via: "web" };
    match web.login(origin, form.user, form.password, Spoken::Plain, None).await {
        Ok(account) => {
            let name = account.name.clone();
            let _ = web
                .light(move |s| {
                    s.audit(origin, &name, "logged in");
                    Ok(())
                })
                .await;
            let id = web.sessions.open(&account.name);
            // Whoever had a session before has it no more: no session is fixed by somebody else.
            web.sessions.close(&headers);
            let secure = if web.tls { "; Secure" } else { "" };
            let cookie = format!("{COOKIE}={id}; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200{secure}");
            ([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response()
        }
        Err(e @ (BrokerError::BadAuth | BrokerError::Locked(_) | BrokerError::Blocked | BrokerError::Busy)) => {
            let code =
                if matches!(e, BrokerError::BadAuth) { StatusCode::FORBIDDEN } else { api::refusal(&e).status() };
            login_page(&web, code, Some((true, sentence(&e.to_string()))))
        }
        Err(e) => sorry(&web, None, &e),
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields {
    token: String,
    name: String,
    mode: String,
    endpoint: String,
    prefix: u8,
    old: String,
    new: String,
}

async fn logout(asked: Asked, Form(form): Form<Fields>) -> Response {
    let headers = asked.2.clone();
    visit(
        asked,
        Some(&form.token),
        Load::Light,
        |_, _| Ok(()),
        |f, ()| {
            f.web.sessions.close(&headers);
            let gone = format!("{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0");
            ([(header::SET_COOKIE, gone)], Redirect::to("/")).into_response()
        },
    )
    .await
}

async fn create(asked: Asked, Form(form): Form<Fields>) -> Response {
    let token = form.token.clone();
    let work = move |s: &Service, v: &Visitor| {
        let account = s.store.account(&v.account)?.filter(|a| a.enabled).ok_or(BrokerError::Blocked)?;
        let mode = Mode::parse(&form.mode).ok_or_else(|| BrokerError::Mode("?".into()))?;
        let end = wanted(s, v.origin, &form.endpoint, mode)?;
        let lengths: Vec<u8> = Some(form.prefix).into_iter().filter(|l| *l != 0).collect();
        let (t, key) = s.create(v.origin, Some(&account), &form.name, mode, end.map(|a| (a, None)), &lengths)?;
        Ok((s.info(&t), key))
    };
    visit(asked, Some(&token), Load::Heavy, work, |f, (t, key)| {
        let body = format!(
            "<p>Update key of this tunnel, for clients that keep the endpoint up to date. It is shown this once:</p>\n<pre>{}</pre>\n{}",
            esc(&key),
            // Ready to be copied, this once.
            details(&t, f).replace("UPDATE_KEY", &esc(&key))
        );
        f.say(&t.name, Some("The tunnel is made.".into()), &body)
    })
    .await
}

/// The address in a form; empty: none.
fn wanted(s: &Service, origin: Origin, text: &str, mode: Mode) -> Result<Option<IpAddr>, BrokerError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let said = router_core::addr::parse_addr(text)
        .map_err(|_| BrokerError::Endpoint(format!("\"{}\" is not an address", text.escape_debug())))?;
    s.claimed(origin, Some(said), mode).map(Some)
}

async fn tunnel(asked: Asked, Path(id): Path<String>) -> Response {
    let work = move |s: &Service, v: &Visitor| Ok(s.info(&v.tunnel(s, &id)?));
    visit(asked, None, Load::Light, work, |f, t| f.say(&t.name, None, &details(&t, f))).await
}

fn details(t: &LeaseInfo, f: &Shown<'_>) -> String {
    let mut body = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(body, "<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>");
    };
    let mono = |v: String| format!("<span class=\"mono\">{v}</span>");
    let prefixes: Vec<String> = t.prefixes.iter().map(esc).collect();
    let traffic = |p: u64, b: u64| format!("{p} packets, {}", bytes(b));
    row("State", state(t).into());
    row("Number", t.id.to_string());
    row("Kind", esc(&t.mode));
    row("Our end", mono(esc(t.server)));
    row("Your end", mono(end(t)));
    row("Our address inside", mono(esc(t.server_inner)));
    row("Your address inside", mono(esc(t.client_inner)));
    row("Your prefixes", if prefixes.is_empty() { "none".into() } else { mono(prefixes.join("<br>")) });
    row("MTU", t.mtu.to_string());
    row("From you", traffic(t.totals.rx_packets, t.totals.rx_bytes));
    row("To you", traffic(t.totals.tx_packets, t.totals.tx_bytes));
    row("Endpoint changed", moment(t.changed));
    row("Last heard", moment(t.seen));
    if t.until.is_some() {
        row("Ends unless used", moment(t.until));
    }
    let mut html = format!("<div class=\"wide\"><table><tbody>\n{body}</tbody></table></div>\n");
    let current = t.endpoint.map(|a| a.to_string()).unwrap_or_default();
    let _ = write!(
        html,
        "<h2>Change</h2>\n<form method=\"post\" action=\"/tunnels/{0}/endpoint\">{1}\
         <label for=\"endpoint\">Your address</label><input id=\"endpoint\" name=\"endpoint\" value=\"{2}\" maxlength=\"45\" required> <button>Move</button></form>\n\
         <form method=\"post\" action=\"/tunnels/{0}/key\">{1}<p><button>Make a new update key</button></p></form>\n\
         <p><a href=\"/tunnels/{0}/delete\">Remove this tunnel</a></p>\n<h2>Commands for your end</h2>\n",
        t.id,
        hidden(&f.session.token),
        esc(current)
    );
    for r in recipes(t, &f.url) {
        let _ = write!(
            html,
            "<h3>{}</h3>\n<p class=\"dim\">{}</p>\n<pre>{}</pre>\n",
            esc(r.system),
            esc(r.note),
            esc(r.text)
        );
    }
    html
}

async fn endpoint(asked: Asked, Path(id): Path<String>, Form(form): Form<Fields>) -> Response {
    let token = form.token.clone();
    let work = move |s: &Service, v: &Visitor| {
        let t = v.tunnel(s, &id)?;
        let to = wanted(s, v.origin, &form.endpoint, t.mode)?;
        let to = to.ok_or_else(|| BrokerError::Endpoint("say which address".into()))?;
        let moved = s.update(v.origin, t.id, to, None)?;
        Ok((s.info(&v.tunnel(s, &id)?), moved))
    };
    visit(asked, Some(&token), Load::Light, work, |f, (t, moved)| {
        let note = match moved {
            Moved::Good(a) => format!("Your end is now {a}."),
            Moved::Same(a) => format!("Your end was {a} already."),
        };
        f.say(&t.name, Some(note), &details(&t, f))
    })
    .await
}

async fn key(asked: Asked, Path(id): Path<String>, Form(form): Form<Fields>) -> Response {
    let work = move |s: &Service, v: &Visitor| {
        let t = v.tunnel(s, &id)?;
        let key = s.new_key(v.origin, t.id)?;
        Ok((t, key))
    };
    visit(asked, Some(&form.token), Load::Heavy, work, |f, (t, key)| {
        let body = format!(
            "<p>It is shown this once; the old one does not work any more:</p>\n<pre>{}</pre>\n<p><a href=\"/tunnels/{}\">Back to the tunnel</a></p>\n",
            esc(key),
            t.id
        );
        f.say("New update key", None, &body)
    })
    .await
}

async fn ask_delete(asked: Asked, Path(id): Path<String>) -> Response {
    visit(asked, None, Load::Light, move |s, v| v.tunnel(s, &id), |f, t| {
        let body = format!(
            "<p>Its prefixes return to their pools: you may not get the same ones again.</p>\n\
             <form method=\"post\" action=\"/tunnels/{}/delete\">{}<p><button class=\"bad\">Remove {}</button> &nbsp; <a href=\"/tunnels/{}\">Keep it</a></p></form>\n",
            t.id,
            hidden(&f.session.token),
            esc(&t.name),
            t.id
        );
        f.say(&format!("Remove {}?", t.name), None, &body)
    })
    .await
}

async fn delete(asked: Asked, Path(id): Path<String>, Form(form): Form<Fields>) -> Response {
    let work = move |s: &Service, v: &Visitor| s.delete(v.origin, v.tunnel(s, &id)?.id);
    visit(asked, Some(&form.token), Load::Light, work, |_, ()| to_login()).await
}

async fn account(asked: Asked) -> Response {
    visit(asked, None, Load::Light, |_, _| Ok(()), |f, ()| account_page(f.web, f.session, StatusCode::OK, None)).await
}

fn account_page(web: &Web, session: &Session, code: StatusCode, note: Option<(bool, String)>) -> Response {
    let body = format!(
        "<h2>New password</h2>\n<form method=\"post\" action=\"/account\">{}\n\
         <label for=\"old\">Old password</label><input id=\"old\" name=\"old\" type=\"password\" autocomplete=\"current-password\" required maxlength=\"256\">\n\
         <label for=\"new\">New password</label><input id=\"new\" name=\"new\" type=\"password\" autocomplete=\"new-password\" required minlength=\"8\" maxlength=\"256\">\n\
         <p><button>Change</button></p></form>\n",
        hidden(&session.token)
    );
    say(web, Some(session), code, "Account", note, &body)
}

async fn password(asked: Asked, Form(form): Form<Fields>) -> Response {
    let token = form.token.clone();
    // What the visitor can mend is said beside the form.
    let work = move |s: &Service, v: &Visitor| {
        let login = s.login(v.origin, &v.account, &form.old, Spoken::Plain);
        match login.and_then(|_| s.set_password(v.origin, &v.account, Some(form.new))) {
            Ok(_) => Ok(Ok(())),
            Err(e @ (BrokerError::BadAuth | BrokerError::Invalid(_) | BrokerError::Locked(_))) => {
                Ok(Err(e.to_string()))
            }
            Err(e) => Err(e),
        }
    };
    visit(asked, Some(&token), Load::Heavy, work, |f, done| match done {
        Ok(()) => {
            f.web.sessions.close_all(&f.session.account);
            login_page(f.web, StatusCode::OK, Some((false, "The password is changed. Log in with the new one.".into())))
        }
        Err(why) => account_page(f.web, f.session, StatusCode::BAD_REQUEST, Some((true, sentence(&why)))),
    })
    .await
}
