//! What can go wrong when building a laboratory.

use crate::netlink::{NetlinkError, RouteParseError};
use router_core::addr::AddrError;
use std::io;

/// A laboratory could not be built or asked.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The kernel refused a change of links, addresses or routes.
    #[error("host {host}: {source}")]
    Netlink {
        /// The host.
        host: String,
        /// The refusal.
        #[source]
        source: NetlinkError,
    },
    /// The operating system refused something else.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// No host of this name.
    #[error("the lab has no host \"{0}\"")]
    NoHost(String),
    /// A route is not understood.
    #[error("host {host}: {source}")]
    Route {
        /// The host.
        host: String,
        /// What is wrong.
        #[source]
        source: RouteParseError,
    },
    /// An address is not understood.
    #[error(transparent)]
    Addr(#[from] AddrError),
    /// The links did not become usable in time.
    #[error("not ready after {seconds} s: {what}")]
    NotReady {
        /// What was still missing.
        what: String,
        /// How long was waited.
        seconds: u64,
    },
}

impl LabError {
    pub(super) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
        let what = what.into();
        move |source| LabError::System { what, source }
    }
}
