//! Datagrams on a tunnel's UDP port that are not a tunnel's: messages of the tunnel set-up protocol, whose first four bits are
//! all ones (RFC 5572), so that they are told from IPv6 and IPv4 packets. Who speaks that
//! protocol claims them here and answers through the same socket, because a NAT lets nothing else through.

use super::header::Rebuilt;
use socket2::{SockAddr, Socket};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A message.
#[derive(Debug)]
pub struct Signal {
    /// Who sent it.
    pub from: SocketAddr,
    /// Its bytes.
    pub bytes: Vec<u8>,
    socket: Weak<Socket>,
}

impl Signal {
    /// Answers it, through the socket by which it came.
    ///
    /// # Errors
    /// The kernel's; [`io::ErrorKind::NotConnected`] when the port has been closed meanwhile.
    pub fn answer(&self, bytes: &[u8]) -> io::Result<()> {
        let socket = self.socket.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        socket.send_to(bytes, &SockAddr::from(self.from)).map(|_| ())
    }
}

type Deliver = Box<dyn Fn(Signal) + Send + Sync>;

struct Claim {
    at: SocketAddr,
    deliver: Deliver,
}

/// The signals of one port: lasts as long as its queues.
pub struct Signals {
    local: Option<IpAddr>,
    listen: Vec<u16>,
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").field("local", &self.local).field("listen", &self.listen).finish()
    }
}

/// What is claimed, and which ports are open in this process.
static CLAIMS: Mutex<Vec<Weak<Claim>>> = Mutex::new(Vec::new());
static OPEN: Mutex<Vec<Weak<Signals>>> = Mutex::new(Vec::new());

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Holds a claim; dropped, it ends.
pub struct Claimed(Arc<Claim>);

impl fmt::Debug for Claimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claimed({})", self.0.at)
    }
}

/// From now on `deliver` gets the messages to `at` (an unspecified address: to any) that `udp` ports receive. It is called
/// by a worker and must not wait.
pub fn claim(at: SocketAddr, deliver: impl Fn(Signal) + Send + Sync + 'static) -> Claimed {
    let claim = Arc::new(Claim { at, deliver: Box::new(deliver) });
    let mut claims = lock(&CLAIMS);
    claims.retain(|c| c.strong_count() > 0);
    claims.push(Arc::downgrade(&claim));
    Claimed(claim)
}

/// Whether a `udp` port of this process has this address and port.
pub fn has_port(at: SocketAddr) -> bool {
    lock(&OPEN).iter().filter_map(Weak::upgrade).any(|s| {
        let local = s.local.is_none_or(|l| l == at.ip() || at.ip().is_unspecified());
        local && s.listen.contains(&at.port())
    })
}

impl Signals {
    pub(super) fn of(local: Option<IpAddr>, listen: &[u16]) -> Arc<Signals> {
        let signals = Arc::new(Signals { local, listen: listen.to_vec() });
        let mut open = lock(&OPEN);
        open.retain(|s| s.strong_count() > 0);
        open.push(Arc::downgrade(&signals));
        signals
    }

    /// Whether this is a message.
    #[inline]
    pub(super) fn wants(&self, payload: &[u8]) -> bool {
        payload.first().is_some_and(|b| b >> 4 == 0xf)
    }

    /// Hands it to whoever claims it; false when nobody does.
    pub(super) fn deliver(&self, socket: &Arc<Socket>, came: &Rebuilt, payload: &[u8]) -> bool {
        let claim = lock(&CLAIMS)
            .iter()
            .filter_map(Weak::upgrade)
            .find(|c| c.at.port() == came.to.port() && (c.at.ip().is_unspecified() || c.at.ip() == came.to.ip()));
        let Some(claim) = claim else { return false };
        (claim.deliver)(Signal { from: came.from, bytes: payload.to_vec(), socket: Arc::downgrade(socket) });
        true
    }
}
