//! The lines: a request from the client, replies from the router.

use super::{Answer, Op};
use crate::grammar::{Failure, exit};
use router_core::addr::Family;
use serde::{Deserialize, Serialize};

/// Version of the protocol that this program speaks.
pub const VERSION: u32 = 1;

/// `{"v":1,"id":7,"op":{...}}`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Protocol version.
    pub v: u32,
    /// Chosen by the client, repeated in the replies.
    #[serde(default)]
    pub id: u64,
    /// What to do.
    pub op: Op,
}

/// `{"id":7,"ok":...}`, `{"id":7,"page":...}` with more to come, or `{"id":7,"error":{...}}`: exactly one of the three.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request's; 0 when it could not be read.
    #[serde(default)]
    pub id: u64,
    /// The last or only answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ok: Option<Answer>,
    /// One page; more follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<Answer>,
    /// Refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<WireError>,
}

/// What a [`Reply`] holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// The last or only answer.
    Ok(Answer),
    /// One page; more follow.
    Page(Answer),
    /// Refused.
    Error(WireError),
}

impl Reply {
    /// A reply to request `id`.
    pub fn new(id: u64, body: Body) -> Self {
        let mut r = Reply { id, ok: None, page: None, error: None };
        match body {
            Body::Ok(a) => r.ok = Some(a),
            Body::Page(a) => r.page = Some(a),
            Body::Error(e) => r.error = Some(e),
        }
        r
    }

    /// What it holds; None if it breaks the protocol.
    pub fn body(self) -> Option<Body> {
        match (self.ok, self.page, self.error) {
            (Some(a), None, None) => Some(Body::Ok(a)),
            (None, Some(a), None) => Some(Body::Page(a)),
            (None, None, Some(e)) => Some(Body::Error(e)),
            _ => None,
        }
    }
}

/// A refusal: iproute2's familiar line, cause and remedy, and a stable code for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{line}")]
pub struct WireError {
    /// `exists`, `not_found`, `no_device`, `invalid`, `unreachable`, `denied`, `busy`, `idle`, `protocol`, `failed`.
    pub code: String,
    /// The familiar line.
    pub line: String,
    /// Cause and remedy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl WireError {
    /// A refusal.
    pub fn new(code: &str, line: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = Some(hint.into()).filter(|h: &String| !h.is_empty());
        WireError { code: code.into(), line: line.into(), hint }
    }

    /// `RTNETLINK answers: File exists`.
    pub fn exists(hint: impl Into<String>) -> Self {
        WireError::new("exists", "RTNETLINK answers: File exists", hint)
    }

    /// `RTNETLINK answers: No such process`: a route that is not there.
    pub fn no_route(hint: impl Into<String>) -> Self {
        WireError::new("not_found", "RTNETLINK answers: No such process", hint)
    }

    /// `RTNETLINK answers: No such file or directory`: anything else that is not there.
    pub fn not_found(hint: impl Into<String>) -> Self {
        WireError::new("not_found", "RTNETLINK answers: No such file or directory", hint)
    }

    /// An address that is there already, as Linux says it.
    pub fn addr_exists(family: Family) -> Self {
        let line = match family {
            Family::Inet => "Error: ipv4: Address already assigned.",
            Family::Inet6 => "Error: ipv6: address already assigned.",
        };
        WireError::new("exists", line, "\"duet addr\" lists the addresses")
    }

    /// An address that is not there, as Linux says it.
    pub fn addr_missing(family: Family) -> Self {
        let line = match family {
            Family::Inet => "Error: ipv4: Address not found.",
            Family::Inet6 => "Error: ipv6: address not found.",
        };
        WireError::new("not_found", line, "\"duet addr\" lists the addresses")
    }

    /// `Cannot find device "x"`.
    pub fn no_device(name: &str) -> Self {
        let f = Failure::no_device(name);
        WireError { code: "no_device".into(), line: f.line, hint: f.hint }
    }

    /// A request that makes no sense.
    pub fn protocol(line: impl Into<String>) -> Self {
        WireError::new("protocol", line, "docs/control-protocol.md describes the requests")
    }
}

impl From<WireError> for Failure {
    fn from(e: WireError) -> Failure {
        let code = if e.code == "no_device" { exit::USAGE } else { exit::REFUSED };
        Failure { hint: e.hint, ..Failure::new(code, e.line) }
    }
}
