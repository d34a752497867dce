//! TCP transfers whose every byte is compared.

use super::{left, pattern, socket_addr};
use crate::lab::Host;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CHUNK: usize = 64 << 10;

/// What to transfer. Make one with [`TcpTransfer::new`] and change what differs.
#[derive(Clone, Debug)]
pub struct TcpTransfer {
    /// The server's address.
    pub addr: IpAddr,
    /// The server's own address where the client knows it by another one (translation); None: the same.
    pub listen: Option<IpAddr>,
    /// Bytes from client to server.
    pub up: u64,
    /// Bytes from server to client, after the others.
    pub down: u64,
    /// Seed of the pseudo-random bytes.
    pub seed: u64,
    /// Time for everything.
    pub limit: Duration,
}

impl TcpTransfer {
    /// `bytes` in each direction, thirty seconds for all.
    pub fn new(addr: IpAddr, bytes: u64) -> Self {
        TcpTransfer { addr, listen: None, up: bytes, down: bytes, seed: 0x6475_6574, limit: Duration::from_secs(30) }
    }
}

/// One direction of a transfer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StreamReport {
    /// Bytes that should have arrived.
    pub expected: u64,
    /// Bytes that arrived.
    pub received: u64,
    /// Position of the first wrong byte.
    pub mismatch_at: Option<u64>,
    /// From the first to the last byte, in microseconds.
    pub micros: u64,
}

impl StreamReport {
    /// Throughput in megabits per second.
    pub fn mbit_per_s(&self) -> f64 {
        if self.micros == 0 { 0.0 } else { self.received as f64 * 8.0 / self.micros as f64 }
    }

    fn right(&self) -> bool {
        self.received == self.expected && self.mismatch_at.is_none()
    }
}

/// What arrived.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TcpReport {
    /// Client to server.
    pub up: StreamReport,
    /// Server to client.
    pub down: StreamReport,
    /// Time to connect, in microseconds.
    pub connect: Option<u64>,
    /// What broke the transfer.
    pub error: Option<String>,
}

impl TcpReport {
    /// Whether every byte arrived in both directions, and no other.
    pub fn all_right(&self) -> bool {
        self.error.is_none() && self.up.right() && self.down.right()
    }
}

/// Runs a transfer: a server thread in one host, the client in the other.
pub(super) fn run(client: &Host, server: &Host, transfer: &TcpTransfer) -> io::Result<TcpReport> {
    let deadline = Instant::now() + transfer.limit;
    let listener = server.run(|| TcpListener::bind(socket_addr(transfer.listen.unwrap_or(transfer.addr), 0, 0)))?;
    let target = socket_addr(transfer.addr, listener.local_addr()?.port(), 0);
    let mut report = TcpReport {
        up: StreamReport { expected: transfer.up, ..Default::default() },
        down: StreamReport { expected: transfer.down, ..Default::default() },
        connect: None,
        error: None,
    };
    let given_up = AtomicBool::new(false);
    // Sockets stay in the namespace they were made in, so plain threads will do from here on.
    std::thread::scope(|scope| {
        let (up, down, connect) = (&mut report.up, &mut report.down, &mut report.connect);
        let given_up = &given_up;
        let serving = scope.spawn(move || serve(&listener, transfer, up, deadline, given_up));
        let client_result = client.run(|| ask(target, transfer, down, connect, deadline));
        given_up.store(true, Ordering::Relaxed);
        let server_result = serving.join().unwrap_or_else(|_| Err(io::Error::other("the server panicked")));
        report.error = match (client_result, server_result) {
            (Ok(()), Ok(())) => None,
            (Err(e), Ok(())) => Some(format!("client: {e}")),
            (Ok(()), Err(e)) => Some(format!("server: {e}")),
            (Err(c), Err(s)) => Some(format!("client: {c}; server: {s}")),
        };
    });
    Ok(report)
}

fn serve(
    listener: &TcpListener,
    t: &TcpTransfer,
    up: &mut StreamReport,
    deadline: Instant,
    given_up: &AtomicBool,
) -> io::Result<()> {
    let tick = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let fd = listener.as_fd();
    while poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&tick))? == 0 {
        if given_up.load(Ordering::Relaxed) || Instant::now() >= deadline {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody connected"));
        }
    }
    let (mut stream, _) = listener.accept()?;
    receive(&mut stream, t.seed, up, deadline)?;
    send(&mut stream, !t.seed, t.down, deadline)?;
    linger(&mut stream, deadline)
}

fn ask(
    target: SocketAddr,
    t: &TcpTransfer,
    down: &mut StreamReport,
    connect: &mut Option<u64>,
    deadline: Instant,
) -> io::Result<()> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&target, left(deadline))?;
    *connect = Some(start.elapsed().as_micros() as u64);
    send(&mut stream, t.seed, t.up, deadline)?;
    receive(&mut stream, !t.seed, down, deadline)
}

fn send(stream: &mut TcpStream, seed: u64, bytes: u64, deadline: Instant) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut at = 0;
    while at < bytes {
        let n = CHUNK.min(usize::try_from(bytes - at).unwrap_or(CHUNK));
        pattern::fill(seed, at, &mut chunk[..n]);
        stream.set_write_timeout(Some(in_time(deadline)?))?;
        stream.write_all(&chunk[..n])?;
        at += n as u64;
    }
    stream.shutdown(Shutdown::Write)
}

fn receive(stream: &mut TcpStream, seed: u64, report: &mut StreamReport, deadline: Instant) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut start = None;
    loop {
        stream.set_read_timeout(Some(in_time(deadline)?))?;
        let n = stream.read(&mut chunk)?;
        let start = start.get_or_insert_with(Instant::now);
        report.micros = start.elapsed().as_micros() as u64;
        if n == 0 {
            return Ok(());
        }
        if report.mismatch_at.is_none() {
            report.mismatch_at = pattern::mismatch(seed, report.received, &chunk[..n]);
        }
        report.received += n as u64;
    }
}

/// Waits for the other side's end, so that nothing sent is lost to a reset.
fn linger(stream: &mut TcpStream, deadline: Instant) -> io::Result<()> {
    stream.set_read_timeout(Some(in_time(deadline)?))?;
    stream.read(&mut [0; 1]).map(drop)
}

fn in_time(deadline: Instant) -> io::Result<Duration> {
    if Instant::now() >= deadline {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "not finished in time"));
    }
    Ok(left(deadline))
}
