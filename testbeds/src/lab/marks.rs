//! ECN and DSCP: what of a packet's traffic class arrives.

use super::Result;
use super::check::Pair;
use router_core::addr::Family;
use router_core::frame::{FramePool, MAX_FRAME};
use router_io::lab::Host;
use router_io::port::packet::{self, PacketQueue};
use router_io::port::{Receive, RecvReport};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// To which port the marked datagrams go. Nobody listens; the answer, an ICMP error, does not matter.
const PORT: u16 = 40_404;
const PATIENCE: Duration = Duration::from_secs(10);

/// Listens to a device of a host beside its kernel.
#[derive(Debug)]
pub struct Tap {
    queue: PacketQueue,
    pool: FramePool,
}

impl Tap {
    /// On this device.
    pub fn new(host: &Host, device: &str) -> Result<Self> {
        let (mut queues, _) = host.run(|| packet::open("tap", device, Default::default(), 1))?;
        let queue = queues.pop().ok_or("no queue")?;
        Ok(Tap { queue, pool: FramePool::new(512, MAX_FRAME) })
    }

    /// Waits for a frame of which `wanted` finds something. Frames begin with their Ethernet header.
    pub fn wait<T>(&mut self, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> Result<T> {
        let end = Instant::now() + PATIENCE;
        let mut batch = Vec::new();
        while Instant::now() < end {
            self.queue.recv_batch(64, &mut self.pool, &mut batch, &mut RecvReport::default());
            let mut found = None;
            let idle = batch.is_empty();
            for frame in batch.drain(..) {
                found = found.or_else(|| wanted(frame.data()));
                self.pool.put(frame);
            }
            if let Some(found) = found {
                return Ok(found);
            }
            if idle {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Err("nothing like it came".into())
    }
}

/// The traffic class of an IP packet behind an Ethernet header, if it is one.
pub fn traffic_class(frame: &[u8]) -> Option<u8> {
    let ip = frame.get(14..)?;
    match ip.first()? >> 4 {
        4 => ip.get(1).copied(),
        6 => Some(ip[0] << 4 | ip.get(1)? >> 4),
        _ => None,
    }
}

/// The traffic class with which a UDP datagram for [`PORT`] with this payload arrived.
fn arrived(frame: &[u8], payload: &[u8]) -> Option<u8> {
    let udp = match frame.get(14)? >> 4 {
        4 => frame.get(34..)?,
        _ => frame.get(54..)?,
    };
    (udp.get(2..4)? == PORT.to_be_bytes() && udp.get(8..)?.starts_with(payload)).then(|| traffic_class(frame))?
}

/// Sends a datagram with each of these traffic classes from `pair.a`, and says with which each arrives at `eth0` of
/// `pair.b`. With `on_the_way`, which sees the frame on a device between, also what the frame there has outside.
pub fn sent_and_arrived(pair: Pair<'_>, classes: &[u8], mut on_the_way: Option<&mut Tap>) -> Result<Vec<Seen>> {
    let mut tap = Tap::new(pair.b, "eth0")?;
    let socket = pair.a.run(|| UdpSocket::bind((pair.addr_a, 0)))?;
    let mut seen = Vec::new();
    for class in classes {
        let payload = format!("traffic class {class:3}, once and no more");
        match Family::of(&pair.addr_a) {
            Family::Inet => rustix::net::sockopt::set_ip_tos(&socket, *class)?,
            Family::Inet6 => rustix::net::sockopt::set_ipv6_tclass(&socket, u32::from(*class))?,
        }
        // The error that answered the one before is taken here.
        while socket.send_to(payload.as_bytes(), (pair.addr_b, PORT)).is_err() {}
        let outside = match &mut on_the_way {
            None => None,
            Some(tap) => Some(tap.wait(|f| {
                let there = f.windows(payload.len()).any(|w| w == payload.as_bytes());
                there.then(|| traffic_class(f)).flatten()
            })?),
        };
        let inside = tap.wait(|f| arrived(f, payload.as_bytes()))?;
        seen.push(Seen { sent: *class, outside, arrived: inside });
    }
    Ok(seen)
}

/// One packet's traffic class at three places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// As sent.
    pub sent: u8,
    /// Of the outermost header on the way, where that was looked at.
    pub outside: Option<u8>,
    /// As it arrived.
    pub arrived: u8,
}
