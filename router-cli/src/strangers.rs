//! What strangers send to a broker and brokers send to clients, given to whatever reads it first, without a socket and without
//! a broker: for fuzz targets.

use crate::broker::client::http::{self, Url};
use crate::broker::http::{Given, Wish, basic};
use crate::broker::tsp::auth::{Challenge, plain};
use crate::broker::tsp::wire::{DOCUMENT, HEADER, Input, LINE, split};
use crate::broker::tsp::xml::read;
use axum::http::{HeaderMap, HeaderValue, header};
use data_encoding::BASE64;

/// A conversation of the tunnel set-up protocol, in pieces as they arrive: lines and documents as long as any are whole.
///
/// # Panics
/// When a limit does not hold.
pub fn tsp<'a>(pieces: impl Iterator<Item = &'a [u8]>) {
    let mut input = Input::default();
    for (n, piece) in pieces.enumerate() {
        if input.push(piece).is_err() {
            return;
        }
        loop {
            // A conversation begins with lines.
            let text = if n < 3 {
                match input.line() {
                    Ok(Some(line)) => {
                        assert!(line.len() <= LINE);
                        credentials(&line);
                        continue;
                    }
                    Ok(None) => break,
                    Err(_) => return,
                }
            } else {
                match input.document() {
                    Ok(Some(text)) => text,
                    Ok(None) => break,
                    Err(_) => return,
                }
            };
            assert!(text.len() <= DOCUMENT);
            if let Ok(wanted) = read(&text) {
                assert!(wanted.kind.len() <= 64, "{wanted:?}");
            }
        }
    }
}

/// One datagram of the same protocol over UDP.
pub fn tsp_datagram(data: &[u8]) {
    if let Some((header, rest)) = split(data) {
        assert_eq!((header.len(), header.len() + rest.len()), (HEADER, data.len()));
        let _ = std::str::from_utf8(rest).map(read);
    }
}

/// A line that says who the client is.
pub fn credentials(line: &[u8]) {
    if let Some((user, password)) = plain(line) {
        assert!(!user.is_empty() && user.len() + password.len() <= line.len());
    }
    let challenge = Challenge::new("broker.example.net");
    for line in [line.to_vec(), BASE64.encode(line).into_bytes()] {
        if let Some(answer) = challenge.read(&line) {
            let _ = answer.check("0123456789abcdef0123456789abcdef");
        }
    }
}

/// Header and bodies of requests, and what a broker answers to a client.
pub fn http(data: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(data) {
        let _ = basic(&HeaderMap::from_iter([(header::AUTHORIZATION, value)]));
    }
    let _ = serde_json::from_slice::<Wish>(data);
    if let Ok(given) = serde_json::from_slice::<Given>(data) {
        let text = serde_json::to_string(&given).expect("what was read can be written");
        assert!(serde_json::from_str::<Given>(&text).is_ok(), "{text}");
    }
    if let Some((_, body)) = http::parse(data) {
        assert!(body.len() < data.len());
    }
    let _ = std::str::from_utf8(data).map(Url::parse);
}
