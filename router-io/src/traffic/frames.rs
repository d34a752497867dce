//! Test frames: UDP over IPv4 or IPv6 in Ethernet (RFC 2544 C.2.6), as they are or inside 6in4.

use router_core::addr::MacAddr;
use router_core::checksum;
use std::net::{IpAddr, Ipv4Addr};

const ETHERNET: usize = 14;
const UDP: usize = 8;
const PROTO_UDP: u8 = 17;
const PROTO_IPV6: u8 = 41;

/// Frames one behind the other in one piece of memory.
#[derive(Clone, Debug, Default)]
pub struct FrameSet {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl FrameSet {
    /// Adds a frame.
    pub fn push(&mut self, frame: &[u8]) {
        self.bytes.extend_from_slice(frame);
        self.ends.push(self.bytes.len());
    }

    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Frame number `i`; empty beyond the last.
    pub fn get(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends.get(i - 1).copied().unwrap_or(self.bytes.len()) };
        let end = self.ends.get(i).copied().unwrap_or(start);
        self.bytes.get(start..end).unwrap_or_default()
    }

    /// All frames in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// Bytes of all frames together, without check sequences.
    pub fn total_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The longest frame's length.
    pub fn longest(&self) -> usize {
        self.iter().map(<[u8]>::len).max().unwrap_or(0)
    }
}

/// A UDP packet in Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Destination in the link header.
    pub dst_mac: MacAddr,
    /// Source in the link header.
    pub src_mac: MacAddr,
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// TTL or hop limit.
    pub ttl: u8,
}

/// What is put around the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encapsulation {
    /// Outer source.
    pub src: Ipv4Addr,
    /// Outer destination.
    pub dst: Ipv4Addr,
}

impl Udp {
    /// The shortest frame (without check sequence) that this packet fits with `payload` bytes of data.
    pub fn shortest(&self, payload: usize, outer: bool) -> usize {
        let ip = if self.dst.is_ipv4() { 20 } else { 40 };
        let outer = if outer { 20 } else { 0 };
        ETHERNET + outer + ip + UDP + payload
    }

    /// Where the UDP payload begins.
    pub fn payload_at(&self, outer: bool) -> usize {
        self.shortest(0, outer)
    }

    /// The frame, `len` bytes long without check sequence, or as long as its headers and `payload` need. The rest of the
    /// payload is zero. UDP checksum and IPv4 header checksum are right; IPv4 has DF set.
    pub fn frame(&self, len: usize, payload: &[u8], outer: Option<Encapsulation>) -> Vec<u8> {
        let len = len.max(self.shortest(payload.len(), outer.is_some()));
        let mut f = Vec::with_capacity(len);
        f.extend(self.dst_mac.0);
        f.extend(self.src_mac.0);
        let v4_on_wire = outer.is_some() || self.dst.is_ipv4();
        f.extend(if v4_on_wire { [0x08, 0x00] } else { [0x86, 0xdd] });
        if let Some(e) = outer {
            ipv4(&mut f, len - ETHERNET, 64, PROTO_IPV6, e.src, e.dst);
        }
        let ip = f.len();
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => ipv4(&mut f, len - ip, self.ttl, PROTO_UDP, src, dst),
            (src, dst) => {
                let v6 = |a| match a {
                    IpAddr::V4(a) => Ipv4Addr::to_ipv6_mapped(&a),
                    IpAddr::V6(a) => a,
                };
                f.extend([0x60, 0, 0, 0]);
                f.extend(((len - ip - 40) as u16).to_be_bytes());
                f.extend([PROTO_UDP, self.ttl]);
                f.extend(v6(src).octets());
                f.extend(v6(dst).octets());
            }
        }
        let udp = f.len();
        let udp_len = (len - udp) as u16;
        for word in [self.sport, self.dport, udp_len, 0] {
            f.extend(word.to_be_bytes());
        }
        f.extend_from_slice(payload);
        f.resize(len, 0);
        if let Some(pseudo) = checksum::pseudo(self.src, self.dst, PROTO_UDP, u32::from(udp_len)) {
            let sum = pseudo.bytes(&f[udp..]).finish_udp();
            f[udp + 6..udp + 8].copy_from_slice(&sum.to_be_bytes());
        }
        f
    }
}

fn ipv4(f: &mut Vec<u8>, len: usize, ttl: u8, proto: u8, src: Ipv4Addr, dst: Ipv4Addr) {
    let at = f.len();
    f.extend([0x45, 0]);
    f.extend((len as u16).to_be_bytes());
    f.extend([0, 0, 0x40, 0, ttl, proto, 0, 0]);
    f.extend(src.octets());
    f.extend(dst.octets());
    checksum::fill_ipv4_header(&mut f[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use router_core::headers::{ipv4, ipv6};

    fn udp(src: &str, dst: &str) -> Udp {
        Udp {
            dst_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            src_mac: MacAddr([2, 0, 0, 0, 0, 2]),
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            sport: 1000,
            dport: 9,
            ttl: 64,
        }
    }

    fn sum_is_right(u: &Udp, segment: &[u8]) -> bool {
        let pseudo = checksum::pseudo(u.src, u.dst, 17, segment.len() as u32).unwrap();
        checksum::verify_with(pseudo, segment)
    }

    #[test]
    fn frames_are_what_the_router_parses() {
        let v4 = udp("198.18.0.2", "198.19.0.2");
        for len in [60, 124, 1514] {
            let f = v4.frame(len, b"probe", None);
            assert_eq!(f.len(), len);
            let p = ipv4::parse(&f[14..]).unwrap();
            assert_eq!((p.src, p.dst), (v4.src, v4.dst));
            assert!(checksum::verify_ipv4_header(&f[14..34]) && sum_is_right(&v4, &f[34..]));
            assert_eq!(&f[v4.payload_at(false)..][..5], b"probe");
        }
        let v6 = udp("2001:2::2", "2001:2:0:1::2");
        // IPv6 and UDP headers alone are 62 bytes: the frame grows.
        let f = v6.frame(60, &[], None);
        assert_eq!(f.len(), 62);
        let p = ipv6::parse(&f[14..]).unwrap();
        assert_eq!((p.src, p.dst), (v6.src, v6.dst));
        assert!(sum_is_right(&v6, &f[54..]));
        let outer = Encapsulation { src: Ipv4Addr::new(198, 19, 0, 2), dst: Ipv4Addr::new(198, 18, 0, 1) };
        let f = v6.frame(100, &[], Some(outer));
        assert!(checksum::verify_ipv4_header(&f[14..34]) && f[23] == 41 && f[12..14] == [8, 0]);
        assert!(ipv6::parse(&f[34..]).is_ok() && sum_is_right(&v6, &f[74..]));
        assert_eq!(u16::from_be_bytes([f[16], f[17]]), 86);
    }

    #[test]
    fn a_set_gives_back_its_frames() {
        let mut set = FrameSet::default();
        assert!(set.is_empty() && set.get(0).is_empty());
        for f in [&b"one"[..], b"three", b""] {
            set.push(f);
        }
        assert_eq!((set.get(0), set.get(1), set.get(2), set.get(3)), (&b"one"[..], &b"three"[..], &b""[..], &b""[..]));
        assert_eq!((set.len(), set.longest(), set.total_bytes()), (3, 5, 8));
    }
}
