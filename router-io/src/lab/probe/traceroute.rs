//! The routers on the way, by UDP datagrams of growing TTL or hop limit.

use super::icmp::{IcmpSocket, Message, MessageBytes, icmp_name};
use super::{PmtuDisc, set_pmtu_disc, socket_addr};
use router_core::addr::Family;
use serde::Serialize;
use socket2::{Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// What to trace and how. Make one with [`Traceroute::new`] and change what differs.
#[derive(Clone, Debug)]
pub struct Traceroute {
    /// The destination, of either family.
    pub dst: IpAddr,
    /// Source address; None lets the kernel choose.
    pub src: Option<IpAddr>,
    /// Largest TTL or hop limit.
    pub max_hops: u8,
    /// Datagrams for each hop until one is answered.
    pub tries: u8,
    /// How long to wait for each answer.
    pub timeout: Duration,
    /// Payload bytes of the datagrams.
    pub size: usize,
    /// Destination port of the first datagram; each further one has the next.
    pub port: u16,
}

impl Traceroute {
    /// Up to 30 hops, two tries of a second each, as traceroute(8)'s ports.
    pub fn new(dst: IpAddr) -> Self {
        Traceroute { dst, src: None, max_hops: 30, tries: 2, timeout: Duration::from_secs(1), size: 32, port: 33434 }
    }

    /// With another largest hop count.
    pub fn max_hops(mut self, hops: u8) -> Self {
        self.max_hops = hops;
        self
    }

    /// With another time to wait for each answer.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Traces from the calling thread's namespace.
    ///
    /// # Errors
    /// Only if there are no sockets or they break; unreachable destinations are results.
    pub fn run(&self) -> io::Result<TracerouteReport> {
        let family = Family::of(&self.dst);
        let icmp = IcmpSocket::open(family)?;
        let udp = Socket::new(super::domain(family), Type::DGRAM, Some(Protocol::UDP))?;
        set_pmtu_disc(&udp, family, PmtuDisc::Want)?;
        let any = match family {
            Family::Inet => IpAddr::from([0; 4]),
            Family::Inet6 => IpAddr::from([0; 16]),
        };
        udp.bind(&SockAddr::from(socket_addr(self.src.unwrap_or(any), 0, 0)))?;
        let own_port = udp.local_addr()?.as_socket().map_or(0, |a| a.port());
        let mut report = TracerouteReport { dst: self.dst, hops: Vec::new(), reached: false };
        let mut port = self.port;
        for ttl in 1..=self.max_hops {
            match family {
                Family::Inet => udp.set_ttl_v4(ttl.into())?,
                Family::Inet6 => udp.set_unicast_hops_v6(ttl.into())?,
            }
            let mut hop = Hop {
                ttl,
                from: None,
                rtt: None,
                kind: None,
                code: None,
                name: None,
                refused: None,
                message: MessageBytes::default(),
            };
            for _ in 0..self.tries {
                let start = Instant::now();
                if let Err(e) = udp.send_to(&vec![0x40; self.size], &SockAddr::from(socket_addr(self.dst, port, 0))) {
                    hop.refused = Some(e.to_string());
                    break;
                }
                let ports = (own_port, port);
                port = port.checked_add(1).unwrap_or(self.port);
                if let Some(message) = self.answer(&icmp, ports, start + self.timeout)? {
                    hop.take(message, start, family);
                    break;
                }
            }
            // Anything but "time exceeded" ends the journey: arrived, or refused on the way.
            let ended = hop.refused.is_some() || hop.name.is_some_and(|n| n != "time exceeded");
            report.reached |= ended && hop.from == Some(self.dst);
            report.hops.push(hop);
            if ended {
                break;
            }
        }
        Ok(report)
    }

    fn answer(&self, icmp: &IcmpSocket, ports: (u16, u16), deadline: Instant) -> io::Result<Option<Message>> {
        while let Some(message) = icmp.receive(deadline)? {
            let ours = message.quote().is_some_and(|q| {
                let port = |i: usize| q.transport.get(i..i + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
                q.dst == self.dst
                    && i32::from(q.protocol) == libc::IPPROTO_UDP
                    && (port(0), port(2)) == (Some(ports.0), Some(ports.1))
            });
            if ours {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }
}

/// One router on the way, or the destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// TTL or hop limit of the datagram.
    pub ttl: u8,
    /// Who answered; None if nobody did.
    pub from: Option<IpAddr>,
    /// Round-trip time in microseconds.
    pub rtt: Option<u64>,
    /// ICMP type of the answer.
    #[serde(rename = "type")]
    pub kind: Option<u8>,
    /// ICMP code of the answer.
    pub code: Option<u8>,
    /// What type and code mean.
    pub name: Option<&'static str>,
    /// Why the own kernel did not send the datagram.
    pub refused: Option<String>,
    /// The whole ICMP message from its type on, for a look at extensions (RFC 4884).
    #[serde(skip)]
    pub message: MessageBytes,
}

impl Hop {
    fn take(&mut self, message: Message, start: Instant, family: Family) {
        let at = |i: usize| message.bytes.get(i).copied().unwrap_or(0);
        self.from = Some(message.from);
        self.rtt = Some(start.elapsed().as_micros() as u64);
        self.kind = Some(at(0));
        self.code = Some(at(1));
        self.name = Some(icmp_name(family, at(0), at(1)));
        self.message = MessageBytes(message.bytes);
    }
}

/// The way to a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TracerouteReport {
    /// The destination.
    pub dst: IpAddr,
    /// One entry for each TTL or hop limit from 1 on.
    pub hops: Vec<Hop>,
    /// Whether the destination itself answered.
    pub reached: bool,
}

impl TracerouteReport {
    /// The addresses on the way, None for silent hops.
    pub fn path(&self) -> Vec<Option<IpAddr>> {
        self.hops.iter().map(|h| h.from).collect()
    }
}
