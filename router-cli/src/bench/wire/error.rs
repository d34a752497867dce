//! What can go wrong in a measurement on wires.

use crate::demo::instance::InstanceError;
use crate::grammar::{Failure, exit};
use router_io::lab::LabError;
use router_io::traffic::SinkError;
use std::io;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// The lab refused.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A router refused.
    #[error(transparent)]
    Router(#[from] InstanceError),
    /// The sink refused.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The operating system refused something else.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// Nothing, or not everything, comes through the device under test.
    #[error("{dut}, {path}: of {sent} test frames {received} came through in {seconds} s{log}")]
    NoPath { dut: &'static str, path: &'static str, sent: u64, received: u64, seconds: u64, log: String },
    /// The generator's thread ended.
    #[error("the generator has ended")]
    GeneratorGone,
}

impl WireError {
    pub fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> WireError {
        let what = what.into();
        move |source| WireError::System { what, source }
    }

    fn permission(&self) -> bool {
        let denied = |e: &io::Error| e.kind() == io::ErrorKind::PermissionDenied;
        match self {
            WireError::Sink(SinkError::Program(e) | SinkError::Attach(e)) => denied(e),
            WireError::System { source, .. } => denied(source),
            _ => false,
        }
    }
}

impl From<WireError> for Failure {
    fn from(e: WireError) -> Failure {
        let line = e.to_string();
        match &e {
            WireError::Sink(_) if e.permission() => Failure::with_hint(
                exit::REFUSED,
                line,
                "the sink needs CAP_BPF and CAP_NET_ADMIN (before Linux 5.8 CAP_SYS_ADMIN) outside of any user namespace: \
                 run as root; \"duet bench forward\" measures in memory, without privileges",
            ),
            _ if e.permission() => Failure::with_hint(
                exit::REFUSED,
                line,
                "run as root; \"duet bench forward\" measures in memory, without privileges",
            ),
            WireError::NoPath { .. } => Failure::with_hint(
                exit::REFUSED,
                line,
                "the device under test must forward every flow before it is measured",
            ),
            _ => Failure::new(exit::REFUSED, line),
        }
    }
}
