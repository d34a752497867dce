//! The command's end of the control socket.

use super::lines::{LineError, LineReader, write_all};
use super::{Answer, Body, Op, Reply, Request, VERSION, WireError};
use crate::grammar::{Failure, exit};
use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How long a router may take for one reply line. Generous: a reload may open ports.
const PATIENCE: Duration = Duration::from_secs(120);

/// Longest reply line: a page of routes, each with hundreds of next hops.
const LONGEST: usize = 256 << 20;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The router refused.
    #[error(transparent)]
    Refused(#[from] WireError),
    /// Nobody listens.
    #[error("Cannot reach the router on {}: {}", path.display(), plain(source))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The user had enough.
    #[error("Interrupted.")]
    Cancelled,
    /// The connection broke.
    #[error("The router's answer ended early: {0}")]
    Broken(String),
}

/// The operating system's words without the number.
pub(crate) fn plain(e: &io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

impl From<ClientError> for Failure {
    fn from(e: ClientError) -> Failure {
        match e {
            ClientError::Refused(w) => w.into(),
            ClientError::Connect { ref source, .. } => {
                let hint = match source.kind() {
                    io::ErrorKind::NotFound => {
                        "start it with \"duet run FILE\", or say which one with -n NAME or --socket PATH"
                    }
                    io::ErrorKind::ConnectionRefused => {
                        "it was killed or is just starting; start it with \"duet run FILE\""
                    }
                    io::ErrorKind::PermissionDenied => {
                        "the socket's owner and mode are in its configuration; try as root"
                    }
                    _ => "say which one with -n NAME or --socket PATH",
                };
                Failure::with_hint(exit::REFUSED, e.to_string(), hint)
            }
            ClientError::Cancelled => Failure::new(exit::INTERRUPTED, "Interrupted."),
            ClientError::Broken(_) => Failure::with_hint(
                exit::REFUSED,
                e.to_string(),
                "the router stopped or was restarted; its log says why",
            ),
        }
    }
}

/// A connection. Requests may be sent ahead; replies come in order.
pub struct Client {
    stream: UnixStream,
    lines: LineReader,
    next_id: u64,
    pending: VecDeque<u64>,
    patience: Duration,
}

impl Client {
    /// Connects.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connect { path: path.to_owned(), source };
        let stream = UnixStream::connect(path).map_err(failed)?;
        let lines = LineReader::new(stream.try_clone().map_err(failed)?, LONGEST);
        Ok(Client { stream, lines, next_id: 1, pending: VecDeque::new(), patience: PATIENCE })
    }

    /// Waits only so long for each reply line, instead of two minutes.
    pub fn patience(mut self, time: Duration) -> Self {
        self.patience = time;
        self
    }

    /// Gives up waiting as soon as this is set.
    pub fn cancelled_by(mut self, flag: Arc<AtomicBool>) -> Self {
        self.lines.cancelled_by(flag);
        self
    }

    /// The connection, to wait for.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends a request without waiting for its reply.
    pub fn send(&mut self, op: Op) -> Result<(), ClientError> {
        let id = self.next_id;
        self.next_id += 1;
        let mut line =
            serde_json::to_vec(&Request { v: VERSION, id, op }).map_err(|e| ClientError::Broken(e.to_string()))?;
        line.push(b'\n');
        if let Err(e) = write_all(&self.stream, &line, self.patience) {
            // The router may have said why it hung up.
            return Err(match self.read_reply() {
                Ok(Reply { error: Some(error), .. }) => ClientError::Refused(error),
                _ => ClientError::Broken(plain(&e)),
            });
        }
        self.pending.push_back(id);
        Ok(())
    }

    /// Requests whose replies are still to come.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// The next reply to the oldest request: pages come one by one.
    pub fn receive(&mut self) -> Result<Body, ClientError> {
        let Some(id) = self.pending.front().copied() else {
            return Err(ClientError::Broken("no request is open".into()));
        };
        let reply = self.read_reply()?;
        let from = reply.id;
        match reply.body() {
            Some(Body::Error(error)) => {
                self.pending.pop_front();
                Err(error.into())
            }
            Some(_) if from != id => Err(ClientError::Broken(format!("reply {from} to request {id}"))),
            Some(body) => {
                if !matches!(body, Body::Page(_)) {
                    self.pending.pop_front();
                }
                Ok(body)
            }
            None => Err(ClientError::Broken("a reply is one of ok, page, error".into())),
        }
    }

    /// Another handle of the connection, to shut it down from elsewhere.
    pub fn handle(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    /// One request, one answer.
    pub fn call(&mut self, op: Op) -> Result<Answer, ClientError> {
        self.send(op)?;
        match self.receive()? {
            Body::Ok(a) => Ok(a),
            Body::Page(_) => Err(ClientError::Broken("unexpected page".into())),
            Body::Error(e) => Err(e.into()),
        }
    }

    /// One request whose answer comes in pages.
    pub fn pages<E: From<ClientError>>(
        &mut self,
        op: Op,
        mut each: impl FnMut(Answer) -> Result<(), E>,
    ) -> Result<(), E> {
        self.send(op)?;
        loop {
            match self.receive()? {
                Body::Page(a) => each(a)?,
                Body::Ok(a) => return each(a),
                Body::Error(e) => return Err(ClientError::from(e).into()),
            }
        }
    }

    fn read_reply(&mut self) -> Result<Reply, ClientError> {
        match self.lines.next(self.patience, self.patience) {
            Ok(Some(line)) => {
                serde_json::from_slice(line).map_err(|e| ClientError::Broken(format!("malformed reply: {e}")))
            }
            Ok(None) => Err(ClientError::Broken("connection closed".into())),
            Err(LineError::Cancelled) => Err(ClientError::Cancelled),
            Err(LineError::Io(e)) => Err(ClientError::Broken(plain(&e))),
            Err(e) => Err(ClientError::Broken(e.to_string())),
        }
    }
}
