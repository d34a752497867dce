//! What can go wrong when talking rtnetlink, each with the operation and the object it was about.

use std::io;

/// A failed netlink operation.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket itself failed.
    #[error("netlink socket: cannot {op}: {source}")]
    Socket {
        /// What was being done.
        op: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The kernel refused the request.
    #[error("{what}: {source}{}", detail.as_deref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Kernel {
        /// The request in words.
        what: String,
        /// The errno that the kernel answered with.
        source: io::Error,
        /// The kernel's own explanation (extended acknowledgement), if it gave one.
        detail: Option<String>,
    },
    /// The kernel's answer does not have the form of an answer to this request.
    #[error("{what}: unexpected netlink answer: {why}")]
    Answer {
        /// The request in words.
        what: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// No link of this name.
    #[error("Cannot find device \"{0}\"")]
    NoSuchLink(String),
    /// The name cannot be one of an interface.
    #[error("\"{0}\" is not an interface name: 1 to 15 bytes without '/' or white space")]
    BadName(String),
    /// A kernel setting could not be read or written.
    #[error("sysctl {name}: {source}")]
    Sysctl {
        /// The setting.
        name: String,
        /// The operating system's reason.
        source: io::Error,
    },
}

impl NetlinkError {
    /// The errno behind this error, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Socket { source, .. }
            | NetlinkError::Kernel { source, .. }
            | NetlinkError::Sysctl { source, .. } => source.raw_os_error(),
            NetlinkError::NoSuchLink(_) => Some(libc::ENODEV),
            NetlinkError::Answer { .. } | NetlinkError::BadName(_) => None,
        }
    }

    /// Whether the object exists already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// Whether the object does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self.errno(), Some(libc::ENODEV | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL))
    }

    /// Whether privilege is missing.
    pub fn is_permission(&self) -> bool {
        matches!(self.errno(), Some(libc::EPERM | libc::EACCES))
    }
}
