//! Logged-in browsers. A session is a random number in a cookie; each form carries a token that only a page of this
//! session can have.

use axum::http::{HeaderMap, header};
use data_encoding::HEXLOWER;
use rand::RngExt;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

/// Name of the cookie.
pub const COOKIE: &str = "duet_session";
/// Sessions at once; the one that is idle longest makes room.
const SESSIONS: usize = 4096;
/// How long one may be idle.
const IDLE: Duration = Duration::from_secs(1800);
/// How long one may last.
const LAST: Duration = Duration::from_secs(12 * 3600);

/// A session.
#[derive(Clone, Debug)]
pub struct Session {
    /// Whose.
    pub account: String,
    /// The token of its forms.
    pub token: String,
    made: Instant,
    used: Instant,
}

/// All sessions, by the digest of their number: the table itself opens no session.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<[u8; 32], Session>>);

impl Sessions {
    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new session; gives the cookie's value.
    pub fn open(&self, account: &str) -> String {
        let number: [u8; 32] = rand::rng().random();
        let token: [u8; 20] = rand::rng().random();
        let (id, now) = (HEXLOWER.encode(&number), Instant::now());
        let mut table = self.table();
        if table.len() >= SESSIONS {
            table.retain(|_, s| s.alive(now));
            let oldest = table.iter().min_by_key(|(_, s)| s.used).map(|(k, _)| *k);
            if let Some(k) = oldest.filter(|_| table.len() >= SESSIONS) {
                table.remove(&k);
            }
        }
        let session = Session { account: account.to_owned(), token: HEXLOWER.encode(&token), made: now, used: now };
        table.insert(Sha256::digest(id.as_bytes()).into(), session);
        id
    }

    /// The session of a request.
    pub fn of(&self, headers: &HeaderMap) -> Option<Session> {
        let key = key(headers)?;
        let now = Instant::now();
        let mut table = self.table();
        let session = table.get_mut(&key)?;
        if !session.alive(now) {
            table.remove(&key);
            return None;
        }
        session.used = now;
        Some(session.clone())
    }

    /// Ends the session of a request.
    pub fn close(&self, headers: &HeaderMap) {
        if let Some(key) = key(headers) {
            self.table().remove(&key);
        }
    }

    /// Ends all sessions of an account.
    pub fn close_all(&self, account: &str) {
        self.table().retain(|_, s| s.account != account);
    }
}

impl Session {
    fn alive(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) < IDLE && now.saturating_duration_since(self.made) < LAST
    }

    /// Whether a form is of this session.
    pub fn owns(&self, token: &str) -> bool {
        self.token.as_bytes().ct_eq(token.as_bytes()).into()
    }
}

fn key(headers: &HeaderMap) -> Option<[u8; 32]> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut pairs = all.flat_map(|v| v.split(';')).filter_map(|p| p.trim().split_once('='));
    let (_, value) = pairs.find(|(name, _)| *name == COOKIE)?;
    (value.len() == 64).then(|| Sha256::digest(value.as_bytes()).into())
}

/// Whether a form was sent by a page of ours, as far as the browser says (Fetch Metadata, Origin).
pub fn same_site(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let fetched = text("sec-fetch-site").is_none_or(|s| s == "same-origin" || s == "none");
    let host = text("host").unwrap_or_default();
    let from = text("origin").is_none_or(|o| o.split_once("://").is_some_and(|(_, h)| h == host));
    fetched && from
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (header::HeaderName::from_static(n), v.parse().unwrap())).collect()
    }

    #[test]
    fn sessions_open_and_close() {
        let s = Sessions::default();
        let id = s.open("joe");
        let h = with(&[("cookie", &format!("a=b; {COOKIE}={id}"))]);
        let session = s.of(&h).unwrap();
        assert_eq!(session.account, "joe");
        assert!(session.owns(&session.token.clone()) && !session.owns("") && !session.owns(&"0".repeat(40)));
        assert!(s.of(&with(&[("cookie", &format!("{COOKIE}={}", "0".repeat(64)))])).is_none());
        s.close(&h);
        assert!(s.of(&h).is_none());
        for _ in 0..SESSIONS + 10 {
            s.open("joe");
        }
        assert!(s.table().len() <= SESSIONS);
        s.close_all("joe");
        assert!(s.table().is_empty());
    }

    #[test]
    fn other_sites_forms() {
        let host = ("host", "b.example:8080");
        assert!(same_site(&with(&[host])));
        assert!(same_site(&with(&[host, ("origin", "http://b.example:8080"), ("sec-fetch-site", "same-origin")])));
        assert!(!same_site(&with(&[host, ("origin", "http://evil.example")])));
        assert!(!same_site(&with(&[host, ("origin", "null")])));
        assert!(!same_site(&with(&[host, ("sec-fetch-site", "cross-site")])));
        assert!(!same_site(&with(&[host, ("sec-fetch-site", "same-site")])));
    }
}
