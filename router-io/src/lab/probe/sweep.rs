//! Echo requests of every size, many under way at once.

use super::icmp::{IcmpSocket, Message};
use super::ping::{HEADER, echo_request, new_id};
use super::{PmtuDisc, pattern, raw_addr, set_pmtu_disc};
use router_core::addr::Family;
use serde::Serialize;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// One echo request for every payload size of a range. Make one with [`PingSweep::new`] and change what differs.
#[derive(Clone, Debug)]
pub struct PingSweep {
    /// The destination, of either family.
    pub dst: IpAddr,
    /// Payload sizes in bytes; none above 65,000.
    pub sizes: RangeInclusive<u16>,
    /// Requests under way at once.
    pub window: usize,
    /// Path MTU policy.
    pub pmtu_disc: PmtuDisc,
    /// How long to wait without any answer before what is under way counts as lost.
    pub timeout: Duration,
}

impl PingSweep {
    /// Twelve requests under way at once, two seconds to wait.
    pub fn new(dst: IpAddr, sizes: RangeInclusive<u16>) -> Self {
        PingSweep { dst, sizes, window: 12, pmtu_disc: PmtuDisc::Want, timeout: Duration::from_secs(2) }
    }

    /// Pings from the calling thread's namespace.
    ///
    /// # Errors
    /// Only if there is no raw socket or it breaks; unreachable destinations are results.
    pub fn run(&self) -> io::Result<SweepReport> {
        let family = Family::of(&self.dst);
        let icmp = IcmpSocket::open(family)?;
        set_pmtu_disc(&icmp.socket, family, self.pmtu_disc)?;
        icmp.socket.set_send_buffer_size(4 << 20)?;
        icmp.socket.set_recv_buffer_size(4 << 20)?;
        let id = new_id();
        let mut report =
            SweepReport { dst: self.dst, sent: 0, received: 0, corrupt: 0, missing: Vec::new(), errors: 0 };
        let mut waiting = BTreeSet::new();
        let mut sizes = self.sizes.clone();
        let mut deadline = Instant::now() + self.timeout;
        loop {
            while waiting.len() < self.window.max(1) {
                let Some(size) = sizes.next() else { break };
                let request = echo_request(family, id, size, u64::from(size), usize::from(size));
                match icmp.socket.send_to(&request, &raw_addr(self.dst, 0)) {
                    Ok(_) => {
                        report.sent += 1;
                        waiting.insert(size);
                    }
                    Err(_) => report.missing.push(size),
                }
                deadline = Instant::now() + self.timeout;
            }
            if waiting.is_empty() {
                return Ok(report);
            }
            match icmp.receive(deadline)? {
                Some(message) => {
                    if let Some(size) = report.take(family, id, &message)
                        && waiting.remove(&size)
                    {
                        deadline = Instant::now() + self.timeout;
                    }
                }
                None => report.missing.extend(std::mem::take(&mut waiting)),
            }
        }
    }
}

/// What became of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SweepReport {
    /// The destination.
    pub dst: IpAddr,
    /// Requests that left.
    pub sent: u32,
    /// Requests answered by the right payload.
    pub received: u32,
    /// Replies with wrong bytes.
    pub corrupt: u32,
    /// Sizes that were not answered.
    pub missing: Vec<u16>,
    /// ICMP errors that came back.
    pub errors: u32,
}

impl SweepReport {
    /// Whether every size was sent and answered with its own bytes, and nothing else came back.
    pub fn all_answered(&self) -> bool {
        self.sent > 0 && self.received == self.sent && self.missing.is_empty() && self.corrupt == 0 && self.errors == 0
    }

    /// Takes in a message; gives the size of the request that it answers.
    fn take(&mut self, family: Family, id: u16, message: &Message) -> Option<u16> {
        let reply = match family {
            Family::Inet => 0,
            Family::Inet6 => 129,
        };
        let own = |echo: &[u8]| {
            let word = |at: usize| echo.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
            (word(4)? == id).then(|| word(6)).flatten()
        };
        if *message.bytes.first()? != reply {
            if message.quote().is_some_and(|q| q.dst == self.dst && own(q.transport).is_some()) {
                self.errors += 1;
            }
            return None;
        }
        let size = own(&message.bytes)?;
        let payload = message.bytes.get(HEADER..).unwrap_or_default();
        if payload.len() == usize::from(size) && pattern::mismatch(u64::from(size), 0, payload).is_none() {
            self.received += 1;
        } else {
            self.corrupt += 1;
        }
        Some(size)
    }
}
