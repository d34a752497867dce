//! Datagrams both ways, each compared and counted.

use super::{PmtuDisc, left, pattern, set_pmtu_disc, socket_addr};
use crate::lab::Host;
use router_core::addr::Family;
use serde::Serialize;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Least payload: a sequence number of four bytes and one that tells the direction.
const LEAST: usize = 5;
/// How often the server looks whether it is no longer needed.
const TICK: Duration = Duration::from_millis(20);

/// What to exchange. Make one with [`UdpExchange::new`] and change what differs.
#[derive(Clone, Debug)]
pub struct UdpExchange {
    /// The server's address.
    pub addr: IpAddr,
    /// Payload bytes of each datagram; at least 5 are sent.
    pub size: usize,
    /// Number of datagrams in each direction.
    pub count: u32,
    /// Datagrams under way before an answer must come.
    pub window: u32,
    /// Path MTU policy of both ends.
    pub pmtu_disc: PmtuDisc,
    /// How long to wait for an answer before all that is under way counts as lost.
    pub timeout: Duration,
}

impl UdpExchange {
    /// `count` datagrams of `size` bytes, eight under way at once, a second to wait.
    pub fn new(addr: IpAddr, size: usize, count: u32) -> Self {
        let timeout = Duration::from_secs(1);
        UdpExchange { addr, size, count, window: 8, pmtu_disc: PmtuDisc::Want, timeout }
    }
}

/// What arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UdpReport {
    /// Datagrams the client sent.
    pub sent: u32,
    /// Of these, right ones that the server got; it answered each.
    pub server_received: u32,
    /// Right answers that the client got.
    pub received: u32,
    /// Datagrams with wrong bytes, at either end.
    pub corrupt: u32,
    /// Datagrams that the own kernel refused (EMSGSIZE and others), at either end.
    pub refused: u32,
}

impl UdpReport {
    /// Whether every datagram and every answer arrived with its own bytes.
    pub fn all_right(&self, exchange: &UdpExchange) -> bool {
        self.sent == exchange.count
            && self.server_received == self.sent
            && self.received == self.sent
            && self.corrupt == 0
            && self.refused == 0
    }
}

/// Payload: sequence number, direction, then bytes that both ends can make.
fn payload(seq: u32, answer: bool, size: usize) -> Vec<u8> {
    let mut p = vec![0; size.max(LEAST)];
    p[..4].copy_from_slice(&seq.to_be_bytes());
    p[4] = u8::from(answer);
    pattern::fill(u64::from(seq) << 1 | u64::from(answer), 0, &mut p[LEAST..]);
    p
}

/// The sequence number of a payload, if all its bytes are right.
fn right(bytes: &[u8], answer: bool, size: usize) -> Option<u32> {
    let seq = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    (bytes == payload(seq, answer, size)).then_some(seq)
}

fn open(host: &Host, addr: IpAddr, policy: PmtuDisc) -> io::Result<UdpSocket> {
    let socket = host.run(|| UdpSocket::bind(socket_addr(addr, 0, 0)))?;
    set_pmtu_disc(&socket, Family::of(&addr), policy)?;
    Ok(socket)
}

/// Runs an exchange: a server thread in one host, the client in the other.
pub(super) fn run(client: &Host, server: &Host, exchange: &UdpExchange) -> io::Result<UdpReport> {
    let any = match exchange.addr {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    };
    let listening = open(server, exchange.addr, exchange.pmtu_disc)?;
    let target = listening.local_addr()?;
    let asking = open(client, any, exchange.pmtu_disc)?;
    asking.connect(target)?;
    let done = AtomicBool::new(false);
    let mut report = UdpReport::default();
    let served = std::thread::scope(|scope| {
        let serving = scope.spawn(|| serve(&listening, exchange, &done));
        let asked = ask(&asking, exchange, &mut report);
        done.store(true, Ordering::Relaxed);
        let served = serving.join().unwrap_or_else(|_| Err(io::Error::other("the server panicked")));
        asked.and(served)
    })?;
    report.server_received = served.server_received;
    report.corrupt += served.corrupt;
    report.refused += served.refused;
    Ok(report)
}

fn serve(socket: &UdpSocket, exchange: &UdpExchange, done: &AtomicBool) -> io::Result<UdpReport> {
    let mut report = UdpReport::default();
    let mut buffer = vec![0; 1 << 16];
    socket.set_read_timeout(Some(TICK))?;
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((len, from)) => match right(&buffer[..len], false, exchange.size) {
                Some(seq) => {
                    report.server_received += 1;
                    if socket.send_to(&payload(seq, true, exchange.size), from).is_err() {
                        report.refused += 1;
                    }
                }
                None => report.corrupt += 1,
            },
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if done.load(Ordering::Relaxed) {
                    return Ok(report);
                }
            }
            Err(e) if passing(&e) => {}
            Err(e) => return Err(e),
        }
    }
}

fn ask(socket: &UdpSocket, exchange: &UdpExchange, report: &mut UdpReport) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    let mut seen = vec![false; exchange.count as usize];
    let mut next = 0;
    let mut under_way = 0;
    let mut deadline = Instant::now() + exchange.timeout;
    while next < exchange.count || under_way > 0 {
        if next < exchange.count && under_way < exchange.window.max(1) {
            let datagram = payload(next, false, exchange.size);
            // The first error may be one that an ICMP message reported about an earlier datagram.
            let sent = socket.send(&datagram).or_else(|e| if passing(&e) { socket.send(&datagram) } else { Err(e) });
            if sent.is_ok() {
                report.sent += 1;
                under_way += 1;
                deadline = Instant::now() + exchange.timeout;
            } else {
                report.refused += 1;
            }
            next += 1;
            continue;
        }
        if Instant::now() >= deadline {
            under_way = 0;
            continue;
        }
        socket.set_read_timeout(Some(left(deadline)))?;
        match socket.recv(&mut buffer) {
            Ok(len) => match right(&buffer[..len], true, exchange.size) {
                Some(seq) if seen.get(seq as usize) == Some(&false) => {
                    seen[seq as usize] = true;
                    report.received += 1;
                    under_way = under_way.saturating_sub(1);
                    deadline = Instant::now() + exchange.timeout;
                }
                _ => report.corrupt += 1,
            },
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) || passing(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Errors that ICMP messages caused: news about earlier datagrams, not about the socket.
fn passing(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::EPROTO | libc::EACCES | libc::EINTR)
    )
}
