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
    /// Only what this peer sends; those who ask for one come before those who take anybody's.
    peer: Option<SocketAddr>,
    deliver: Deliver,
}

/// The signals of one port: lasts as long as its queues.
pub struct Signals {
    name: String,
    local: Option<IpAddr>,
    listen: Vec<u16>,
    /// The sockets of its queues, by family and UDP port: who begins a conversation sends through one of them.
    sockets: Mutex<Vec<(bool, u16, Weak<Socket>)>>,
}

/// A port that is open, for those who begin a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// The port's name.
    pub name: String,
    /// The address of the host to which it is bound, if to one.
    pub local: Option<IpAddr>,
    /// Its UDP ports.
    pub listen: Vec<u16>,
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals")
            .field("name", &self.name)
            .field("local", &self.local)
            .field("listen", &self.listen)
            .finish()
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
    enter(Claim { at, peer: None, deliver: Box::new(deliver) })
}

/// The same for what one peer sends, before anybody who takes all.
pub fn claim_from(at: SocketAddr, peer: SocketAddr, deliver: impl Fn(Signal) + Send + Sync + 'static) -> Claimed {
    enter(Claim { at, peer: Some(peer), deliver: Box::new(deliver) })
}

fn enter(claim: Claim) -> Claimed {
    let claim = Arc::new(claim);
    let mut claims = lock(&CLAIMS);
    claims.retain(|c| c.strong_count() > 0);
    claims.push(Arc::downgrade(&claim));
    Claimed(claim)
}

/// The `udp` ports of this process.
pub fn speakers() -> Vec<Speaker> {
    let speaker = |s: Arc<Signals>| Speaker { name: s.name.clone(), local: s.local, listen: s.listen.clone() };
    lock(&OPEN).iter().filter_map(Weak::upgrade).map(speaker).collect()
}

/// Sends a message from UDP port `number` of the port called `name`: so that the tunnel behind it has the same binding of a
/// NAT as the conversation.
///
/// # Errors
/// The kernel's; [`io::ErrorKind::NotConnected`] when there is no such port, or none of that family.
pub fn send(name: &str, number: u16, to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    let port = lock(&OPEN).iter().filter_map(Weak::upgrade).find(|s| s.name == name);
    let socket = port.and_then(|p| {
        let sockets = lock(&p.sockets);
        sockets.iter().filter(|(v6, n, _)| *v6 == to.is_ipv6() && *n == number).find_map(|(.., s)| s.upgrade())
    });
    socket.ok_or(io::ErrorKind::NotConnected)?.send_to(bytes, &SockAddr::from(to)).map(|_| ())
}

/// Whether a `udp` port of this process has this address and port.
pub fn has_port(at: SocketAddr) -> bool {
    lock(&OPEN).iter().filter_map(Weak::upgrade).any(|s| {
        let local = s.local.is_none_or(|l| l == at.ip() || at.ip().is_unspecified());
        local && s.listen.contains(&at.port())
    })
}

impl Signals {
    pub(super) fn of(name: &str, local: Option<IpAddr>, listen: &[u16]) -> Arc<Signals> {
        let sockets = Mutex::default();
        let signals = Arc::new(Signals { name: name.to_owned(), local, listen: listen.to_vec(), sockets });
        let mut open = lock(&OPEN);
        open.retain(|s| s.strong_count() > 0);
        open.push(Arc::downgrade(&signals));
        signals
    }

    /// A socket of one of its queues.
    pub(super) fn add(&self, v6: bool, port: u16, socket: &Arc<Socket>) {
        lock(&self.sockets).push((v6, port, Arc::downgrade(socket)));
    }

    /// Whether this is a message.
    #[inline]
    pub(super) fn wants(&self, payload: &[u8]) -> bool {
        payload.first().is_some_and(|b| b >> 4 == 0xf)
    }

    /// Hands it to whoever claims it; false when nobody does.
    pub(super) fn deliver(&self, socket: &Arc<Socket>, came: &Rebuilt, payload: &[u8]) -> bool {
        let to = came.to;
        let mine = |c: &Arc<Claim>| {
            let here = c.at.port() == to.port() && (c.at.ip().is_unspecified() || c.at.ip() == to.ip());
            here && c.peer.is_none_or(|p| p == came.from)
        };
        let claim = lock(&CLAIMS).iter().filter_map(Weak::upgrade).filter(mine).max_by_key(|c| c.peer.is_some());
        let Some(claim) = claim else { return false };
        (claim.deliver)(Signal { from: came.from, bytes: payload.to_vec(), socket: Arc::downgrade(socket) });
        true
    }
}
