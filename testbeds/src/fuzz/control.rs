//! Texts that people and programs send: configuration, control protocol, capture filters, command lines.

use router_cli::control::{Reply, Request};
use router_core::port::PortId;
use router_core::trace::{Filter, Subject};

/// A configuration file: a plan, or problems that each stand somewhere in the text.
pub(super) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(problems) = router_cli::config::read(text) {
        assert!(!problems.is_empty(), "refused without a reason");
        for p in problems {
            assert!(!p.to_string().is_empty());
        }
    }
}

/// A line of a client or of a router: what was understood means the same when it is written and read again.
pub(super) fn protocol(data: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(data) {
        let line = serde_json::to_string(&request).expect("a request can be written");
        let again: Request = serde_json::from_str(&line).expect("what we write we can read");
        assert_eq!(again, request, "{line}");
    }
    if let Ok(reply) = serde_json::from_slice::<Reply>(data) {
        let line = serde_json::to_string(&reply).expect("a reply can be written");
        assert!(serde_json::from_str::<Reply>(&line).is_ok(), "{line}");
    }
}

/// A capture filter's text, an empty byte, and a frame to match.
pub(super) fn capture_filter(data: &[u8]) {
    let end = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    let (text, frame) = data.split_at(end);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let port = |name: &str| (name == "lan0").then_some(PortId(1));
    match Filter::parse(text, &port) {
        Ok(filter) => {
            for ethernet in [false, true] {
                let subject = Subject::new(PortId(1), frame.get(1..).unwrap_or(&[]), ethernet, None);
                let _ = filter.matches(&subject);
            }
        }
        Err(e) => {
            assert!(e.at <= text.len(), "{e} at {} of {}", e.at, text.len());
            let _ = e.picture(text);
        }
    }
}

/// A command line in iproute2's words.
pub(super) fn words(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let words: Vec<&str> = text.split_whitespace().collect();
    if let Ok((options, rest)) = router_cli::grammar::parse_options(&words) {
        let _ = router_cli::grammar::parse_command(rest, options.family);
    }
    let _ = router_cli::grammar::parse_route_line(&words, None);
    let _ = router_cli::grammar::parse_neigh_line(&words);
    let _ = router_cli::grammar::parse_nexthop_line(&words);
}
