//! Outer IP and UDP headers: written for what a UDP socket gave, and read of what is to be sent through one.

use crate::sys::gso::{Control, Message};
use crate::sys::mmsg::{self, Name, Received};
use router_core::checksum::fill_ipv4_header;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const UDP: usize = 8;
const V4: usize = 20;
const V6: usize = 40;

/// Bytes of both headers.
pub(super) fn len(v6: bool) -> usize {
    UDP + if v6 { V6 } else { V4 }
}

/// What the kernel said of a received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rebuilt {
    /// The sender.
    pub from: SocketAddr,
    /// To which address of ours.
    pub to: SocketAddr,
    ttl: u8,
    tclass: u8,
    /// Bytes of each datagram, if several were merged.
    pub size: Option<usize>,
}

impl Rebuilt {
    /// From address and control messages. None when something is missing.
    pub fn of(came: &Received<'_>, v6: bool, port: u16) -> Option<Rebuilt> {
        let n = came.name;
        let sport = u16::from_be_bytes([n[2], n[3]]);
        let src: IpAddr = match v6 {
            true => Ipv6Addr::from(<[u8; 16]>::try_from(&n[8..24]).ok()?).into(),
            false => Ipv4Addr::new(n[4], n[5], n[6], n[7]).into(),
        };
        let (mut dst, mut ttl, mut tclass, mut size) = (None, 64, 0, None);
        for (level, kind, data) in mmsg::control_messages(came.control) {
            let int = || data.get(..4).and_then(|d| d.try_into().ok()).map(i32::from_ne_bytes);
            let byte = || int().and_then(|n| u8::try_from(n).ok());
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let a: Option<[u8; 4]> = data.get(8..12).and_then(|d| d.try_into().ok());
                    dst = a.map(|a| IpAddr::V4(a.into()));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let a: Option<[u8; 16]> = data.get(..16).and_then(|d| d.try_into().ok());
                    dst = a.map(|a| IpAddr::V6(a.into()));
                }
                (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    ttl = byte().unwrap_or(ttl);
                }
                // One byte for IPv4.
                (libc::IPPROTO_IP, libc::IP_TOS) => tclass = data.first().copied().unwrap_or(0),
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => tclass = byte().unwrap_or(0),
                (libc::SOL_UDP, libc::UDP_GRO) => size = int().and_then(|n| usize::try_from(n).ok()),
                _ => {}
            }
        }
        let to = SocketAddr::new(dst?, port);
        Some(Rebuilt { from: SocketAddr::new(src, sport), to, ttl, tclass, size })
    }

    /// Writes both headers at the start of `packet`, as those of a datagram with `payload` bytes. The checksum is left out:
    /// the kernel has looked at it. False when there is no room, or too much to say.
    pub fn write(&self, packet: &mut [u8], payload: usize) -> bool {
        let Ok(udp_len) = u16::try_from(UDP + payload) else { return false };
        let at = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let (Some(h), Ok(total)) = (packet.first_chunk_mut::<V4>(), u16::try_from(V4 + UDP + payload)) else {
                    return false;
                };
                *h = [0; V4];
                (h[0], h[1]) = (0x45, self.tclass);
                h[2..4].copy_from_slice(&total.to_be_bytes());
                (h[6], h[8], h[9]) = (0x40, self.ttl, libc::IPPROTO_UDP as u8);
                h[12..16].copy_from_slice(&src.octets());
                h[16..20].copy_from_slice(&dst.octets());
                fill_ipv4_header(h);
                V4
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let Some(h) = packet.first_chunk_mut::<V6>() else { return false };
                *h = [0; V6];
                (h[0], h[1]) = (0x60 | self.tclass >> 4, self.tclass << 4);
                h[4..6].copy_from_slice(&udp_len.to_be_bytes());
                (h[6], h[7]) = (libc::IPPROTO_UDP as u8, self.ttl);
                h[8..24].copy_from_slice(&src.octets());
                h[24..40].copy_from_slice(&dst.octets());
                V6
            }
            _ => return false,
        };
        let Some(udp) = packet.get_mut(at..at + UDP) else { return false };
        udp[..2].copy_from_slice(&self.from.port().to_be_bytes());
        udp[2..4].copy_from_slice(&self.to.port().to_be_bytes());
        udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
        udp[6..].fill(0);
        true
    }
}

/// Corrects the lengths in the headers of a packet that is as long as `packet`.
pub(super) fn set_lengths(packet: &mut [u8]) {
    let total = packet.len();
    let v6 = packet.first().is_some_and(|b| b >> 4 == 6);
    let at = len(v6) - UDP;
    let udp_len = ((total - at.min(total)) as u16).to_be_bytes();
    if let Some(field) = packet.get_mut(at + 4..at + 6) {
        field.copy_from_slice(&udp_len);
    }
    match v6 {
        true => packet[4..6].copy_from_slice(&udp_len),
        false => {
            packet[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            if let Some(h) = packet.first_chunk_mut::<V4>() {
                fill_ipv4_header(h);
            }
        }
    }
}

/// What is asked of the kernel for an outer packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    src: IpAddr,
    pub dst: IpAddr,
    pub sport: u16,
    dport: u16,
    ttl: u8,
    tclass: u8,
    /// It may not be fragmented.
    pub df: bool,
    /// Bytes behind the UDP header.
    pub payload: usize,
}

impl Outgoing {
    /// Of a whole packet. None when it is no unfragmented datagram with plain headers.
    pub fn of(packet: &[u8]) -> Option<Outgoing> {
        let v6 = packet.first()? >> 4 == 6;
        let at = len(v6) - UDP;
        let (proto, src, dst, ttl, tclass, df): (u8, IpAddr, IpAddr, u8, u8, bool) = match v6 {
            true => {
                let h = packet.first_chunk::<V6>()?;
                let (src, dst) = (h[8..24].first_chunk::<16>()?, h[24..40].first_chunk::<16>()?);
                let tclass = h[0] << 4 | h[1] >> 4;
                (h[6], Ipv6Addr::from(*src).into(), Ipv6Addr::from(*dst).into(), h[7], tclass, true)
            }
            false => {
                let h = packet.first_chunk::<V4>()?;
                let fragment = u16::from_be_bytes([h[6], h[7]]) & 0x3fff;
                if h[0] != 0x45 || fragment != 0 {
                    return None;
                }
                let (src, dst) = (Ipv4Addr::new(h[12], h[13], h[14], h[15]), Ipv4Addr::new(h[16], h[17], h[18], h[19]));
                (h[9], src.into(), dst.into(), h[8], h[1], h[6] & 0x40 != 0)
            }
        };
        let udp = packet.get(at..)?.first_chunk::<UDP>()?;
        let ports = (u16::from_be_bytes([udp[0], udp[1]]), u16::from_be_bytes([udp[2], udp[3]]));
        let payload = packet.len() - at - UDP;
        let plain = i32::from(proto) == libc::IPPROTO_UDP && payload > 0 && ports.1 != 0;
        plain.then_some(Outgoing { src, dst, sport: ports.0, dport: ports.1, ttl, tclass, df, payload })
    }

    pub fn v6(&self) -> bool {
        self.dst.is_ipv6()
    }

    /// Whether another datagram can go in the same message, behind this one and others as long as it.
    pub fn joins(&self, other: &Outgoing) -> bool {
        *self == Outgoing { payload: self.payload, ..*other } && other.payload <= self.payload
    }

    /// As a message of one datagram.
    pub fn message(&self) -> Message {
        let mut name = [0u8; 28];
        let mut control = Control::default();
        name[2..4].copy_from_slice(&self.dport.to_be_bytes());
        let length = match (self.src, self.dst) {
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                name[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
                name[8..24].copy_from_slice(&dst.octets());
                let mut info = [0; 20];
                info[..16].copy_from_slice(&src.octets());
                control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
                control.push(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &i32::from(self.ttl).to_ne_bytes());
                control.push(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &i32::from(self.tclass).to_ne_bytes());
                28
            }
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                name[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
                name[4..8].copy_from_slice(&dst.octets());
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&src.octets());
                control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
                control.push(libc::IPPROTO_IP, libc::IP_TTL, &i32::from(self.ttl.max(1)).to_ne_bytes());
                control.push(libc::IPPROTO_IP, libc::IP_TOS, &i32::from(self.tclass).to_ne_bytes());
                16
            }
            _ => 0,
        };
        Message { count: 1, skip: len(self.v6()), name: (Name(name), length), control }
    }
}
/// Reads a packet as the port does that is to send it, and writes the headers of an answer to it: for fuzz targets.
///
/// # Panics
/// When what was written is not what was read.
pub fn rehearse(packet: &[u8]) {
    let Some(out) = Outgoing::of(packet) else { return };
    let _ = out.message();
    assert!(out.joins(&out) && out.payload < packet.len(), "{out:?}");
    // The answer comes from where the packet went, to where it came from.
    let (from, to) = (SocketAddr::new(out.dst, out.dport), SocketAddr::new(out.src, out.sport));
    let came = Rebuilt { from, to, ttl: out.ttl, tclass: out.tclass, size: None };
    let mut answer = vec![0; len(out.v6()) + out.payload];
    if to.port() == 0 || !came.write(&mut answer, out.payload) {
        return;
    }
    let mirrored = Outgoing { src: out.dst, dst: out.src, sport: out.dport, dport: out.sport, df: true, ..out };
    assert_eq!(Outgoing::of(&answer), Some(mirrored));
    let before = answer.clone();
    set_lengths(&mut answer);
    assert_eq!(answer, before, "lengths that were right");
}
