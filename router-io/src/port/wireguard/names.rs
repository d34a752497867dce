//! Endpoints that are names: asked from the host's resolver, which may take its time, by a thread of their own.

use super::spec::{Endpoint, Key};
use crate::sys::wake::Wake;
use crossbeam_channel::{Receiver, Sender};
use std::net::{SocketAddr, ToSocketAddrs};

/// Answers questions until nobody asks any more.
pub(super) fn answer(
    questions: &Receiver<(Key, Endpoint)>,
    answers: &Sender<(Key, Endpoint, SocketAddr)>,
    wake: &Wake,
) {
    for (key, name) in questions {
        match (name.host.as_str(), name.port).to_socket_addrs().map(|mut list| list.next()) {
            Ok(Some(addr)) => {
                if answers.send((key, name, addr)).is_err() {
                    return;
                }
                wake.ring();
            }
            Ok(None) => tracing::warn!(peer = %key, %name, "the name has no address"),
            Err(error) => tracing::warn!(peer = %key, %name, %error, "the name cannot be resolved; it is asked again"),
        }
    }
}
