//! Echo requests, their replies and the ICMP errors they cause.

use super::icmp::{IcmpError, IcmpSocket, Message, checksum};
use super::{PmtuDisc, pattern, raw_addr, set_pmtu_disc};
use router_core::addr::Family;
use serde::Serialize;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

pub(super) const HEADER: usize = 8;

/// What to ping and how. Make one with [`Ping::new`] and change what differs.
#[derive(Clone, Debug)]
pub struct Ping {
    /// The destination, of either family.
    pub dst: IpAddr,
    /// Source address; None lets the kernel choose.
    pub src: Option<IpAddr>,
    /// Interface index for a link-local destination, else 0.
    pub scope: u32,
    /// Payload bytes after the ICMP header, as `ping -s`.
    pub size: usize,
    /// Number of requests; each waits for the answer to the one before.
    pub count: u16,
    /// TTL or hop limit; None for the kernel's default.
    pub ttl: Option<u8>,
    /// Path MTU policy.
    pub pmtu_disc: PmtuDisc,
    /// How long to wait for each answer.
    pub timeout: Duration,
    /// Least time between two requests.
    pub interval: Duration,
}

impl Ping {
    /// One request of 56 bytes, two seconds to wait.
    pub fn new(dst: IpAddr) -> Self {
        Ping {
            dst,
            src: None,
            scope: 0,
            size: 56,
            count: 1,
            ttl: None,
            pmtu_disc: PmtuDisc::Want,
            timeout: Duration::from_secs(2),
            interval: Duration::ZERO,
        }
    }

    /// With another payload size.
    pub fn size(mut self, size: usize) -> Self {
        self.size = size;
        self
    }

    /// With another number of requests.
    pub fn count(mut self, count: u16) -> Self {
        self.count = count;
        self
    }

    /// With a TTL or hop limit.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// With another path MTU policy.
    pub fn pmtu_disc(mut self, policy: PmtuDisc) -> Self {
        self.pmtu_disc = policy;
        self
    }

    /// With another time to wait for each answer.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// With a certain source address.
    pub fn from(mut self, src: IpAddr) -> Self {
        self.src = Some(src);
        self
    }

    /// Pings from the calling thread's namespace.
    ///
    /// # Errors
    /// Only if there is no raw socket or it breaks; unreachable destinations are results.
    pub fn run(&self) -> io::Result<PingReport> {
        let family = Family::of(&self.dst);
        let icmp = IcmpSocket::open(family)?;
        set_pmtu_disc(&icmp.socket, family, self.pmtu_disc)?;
        // 64 KiB datagrams must fit whatever the default is.
        icmp.socket.set_send_buffer_size(1 << 20)?;
        if let Some(ttl) = self.ttl {
            match family {
                Family::Inet => icmp.socket.set_ttl_v4(ttl.into())?,
                Family::Inet6 => icmp.socket.set_unicast_hops_v6(ttl.into())?,
            }
        }
        if let Some(src) = self.src {
            icmp.socket.bind(&raw_addr(src, self.scope))?;
        }
        let mut run = Run::new(self, icmp);
        for seq in 0..self.count {
            let next = Instant::now() + self.interval;
            run.exchange(seq)?;
            if seq + 1 < self.count {
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        }
        Ok(run.finish())
    }
}

/// Round-trip times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rtt {
    /// The shortest.
    pub min: u64,
    /// The mean.
    pub avg: u64,
    /// The longest.
    pub max: u64,
}

/// What became of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PingReport {
    /// The destination.
    pub dst: IpAddr,
    /// Payload bytes of each request.
    pub size: usize,
    /// Requests that left.
    pub sent: u16,
    /// Requests answered by the right payload.
    pub received: u16,
    /// Replies beyond the first to one request.
    pub duplicates: u16,
    /// Replies whose payload differs from the request's.
    pub corrupt: u16,
    /// Round-trip times, if there were any.
    pub rtt: Option<Rtt>,
    /// TTL or hop limit of the last reply.
    pub reply_ttl: Option<u8>,
    /// Who answered last: differs from `dst` for multicast.
    pub reply_from: Option<IpAddr>,
    /// ICMP errors that came back.
    pub errors: Vec<IcmpError>,
    /// Requests that the own kernel refused because they exceed the known path MTU (EMSGSIZE).
    pub too_long: u16,
    /// Other refusals of the own kernel.
    pub refused: Vec<String>,
}

impl PingReport {
    /// Whether every request was answered, once, with its own bytes, and nothing else came back.
    pub fn all_answered(&self) -> bool {
        self.sent > 0
            && self.received == self.sent
            && self.corrupt == 0
            && self.duplicates == 0
            && self.too_long == 0
            && self.errors.is_empty()
            && self.refused.is_empty()
    }
}

/// One run: the socket, what was sent, what came.
struct Run<'a> {
    ping: &'a Ping,
    icmp: IcmpSocket,
    id: u16,
    times: Vec<u64>,
    sent_at: Vec<Option<Instant>>,
    answered: Vec<bool>,
    report: PingReport,
}

impl<'a> Run<'a> {
    fn new(ping: &'a Ping, icmp: IcmpSocket) -> Self {
        let id = new_id();
        let report = PingReport {
            dst: ping.dst,
            size: ping.size,
            sent: 0,
            received: 0,
            duplicates: 0,
            corrupt: 0,
            rtt: None,
            reply_ttl: None,
            reply_from: None,
            errors: Vec::new(),
            too_long: 0,
            refused: Vec::new(),
        };
        let n = usize::from(ping.count);
        Run { ping, icmp, id, times: Vec::new(), sent_at: vec![None; n], answered: vec![false; n], report }
    }

    fn request(&self, seq: u16) -> Vec<u8> {
        echo_request(self.icmp.family, self.id, seq, self.seed(seq), self.ping.size)
    }

    fn seed(&self, seq: u16) -> u64 {
        u64::from(self.id) << 16 | u64::from(seq)
    }

    /// Sends one request and waits for its reply or error, or the timeout. Takes in what else arrives.
    fn exchange(&mut self, seq: u16) -> io::Result<()> {
        let request = self.request(seq);
        let now = Instant::now();
        match self.icmp.socket.send_to(&request, &raw_addr(self.ping.dst, self.ping.scope)) {
            Ok(_) => {
                self.report.sent += 1;
                self.sent_at[usize::from(seq)] = Some(now);
            }
            Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE) => {
                self.report.too_long += 1;
                return Ok(());
            }
            Err(e) => {
                self.report.refused.push(e.to_string());
                return Ok(());
            }
        }
        let deadline = now + self.ping.timeout;
        while let Some(message) = self.icmp.receive(deadline)? {
            if self.take(&message) == Some(seq) {
                break;
            }
        }
        Ok(())
    }

    /// Takes in a message; gives the sequence number of the request that it settles.
    fn take(&mut self, message: &Message) -> Option<u16> {
        let reply = match self.icmp.family {
            Family::Inet => 0,
            Family::Inet6 => 129,
        };
        if *message.bytes.first()? == reply {
            let seq = self.own_seq(&message.bytes)?;
            self.replied(seq, message);
            return Some(seq);
        }
        let quote = message.quote()?;
        let icmp = match self.icmp.family {
            Family::Inet => libc::IPPROTO_ICMP,
            Family::Inet6 => libc::IPPROTO_ICMPV6,
        };
        if quote.dst != self.ping.dst || i32::from(quote.protocol) != icmp {
            return None;
        }
        let seq = self.own_seq(quote.transport)?;
        self.report.errors.push(message.error(seq));
        Some(seq)
    }

    /// The sequence number in an echo header with our id.
    fn own_seq(&self, echo: &[u8]) -> Option<u16> {
        let id = u16::from_be_bytes([*echo.get(4)?, *echo.get(5)?]);
        let seq = u16::from_be_bytes([*echo.get(6)?, *echo.get(7)?]);
        (id == self.id && seq < self.ping.count).then_some(seq)
    }

    fn replied(&mut self, seq: u16, message: &Message) {
        let i = usize::from(seq);
        let payload = message.bytes.get(HEADER..).unwrap_or_default();
        let right = payload.len() == self.ping.size && pattern::mismatch(self.seed(seq), 0, payload).is_none();
        self.report.reply_ttl = message.hop_limit;
        self.report.reply_from = Some(message.from);
        if !right {
            self.report.corrupt += 1;
        } else if std::mem::replace(&mut self.answered[i], true) {
            self.report.duplicates += 1;
        } else {
            self.report.received += 1;
            self.times.extend(self.sent_at[i].map(|t| t.elapsed().as_micros() as u64));
        }
    }

    fn finish(mut self) -> PingReport {
        let sum: u64 = self.times.iter().sum();
        if let (Some(min), Some(max)) = (self.times.iter().min(), self.times.iter().max()) {
            self.report.rtt = Some(Rtt { min: *min, avg: sum / self.times.len() as u64, max: *max });
        }
        self.report
    }
}

/// An echo identifier. Raw sockets see the replies to everybody: ours are told by an id that no other run of this
/// process has.
pub(super) fn new_id() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed) ^ (std::process::id() as u16).rotate_left(8)
}

/// An echo request with `size` bytes of the sequence that belongs to `seed`.
pub(super) fn echo_request(family: Family, id: u16, seq: u16, seed: u64, size: usize) -> Vec<u8> {
    let mut p = vec![0; HEADER + size];
    p[0] = match family {
        Family::Inet => 8,
        Family::Inet6 => 128,
    };
    p[4..6].copy_from_slice(&id.to_be_bytes());
    p[6..8].copy_from_slice(&seq.to_be_bytes());
    pattern::fill(seed, 0, &mut p[HEADER..]);
    if family == Family::Inet {
        let sum = checksum(&p);
        p[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    p
}
