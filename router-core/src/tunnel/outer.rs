//! Ready-made outer headers: everything that does not differ from packet to packet is worked out when the tunnel is set.

use super::derived::Derived;
use super::ecn::outer_tos;
use super::gate::TunnelState;
use super::mode::{Between, Peer, Shape};
use super::spec::{FlowLabel, GreOptions, UdpOptions};
use super::{gre, limit, udp};
use crate::addr::Family;
use crate::headers::protocol;
use crate::routing::EncapFacts;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

/// The flag in the fourth word of an IPv4 header.
const DF: u16 = 0x4000;

const V4: usize = super::IPV4_HEADER as usize;
const V6: usize = super::IPV6_HEADER as usize;

/// What an outer header takes from the packet inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inner {
    pub(super) family: Family,
    pub(super) tclass: u8,
    pub(super) hop_limit: u8,
    pub(super) proto: u8,
    /// DF, as it stands in the header.
    pub(super) df: u16,
}

impl Inner {
    /// Its number as an outer protocol.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.proto
    }

    /// The same behind the router, which takes one from the hop limit.
    #[inline(always)]
    pub(crate) fn aged(self) -> Inner {
        Inner { hop_limit: self.hop_limit.saturating_sub(1), ..self }
    }

    /// Of the packet at the start of `packet`, as it is to be inside. None without a whole header.
    #[inline]
    pub fn of(family: Family, packet: &[u8]) -> Option<Inner> {
        let h = packet.first_chunk::<20>()?;
        Some(match family {
            Family::Inet => {
                let df = u16::from_be_bytes([h[6], 0]) & DF;
                Inner { family, tclass: h[1], hop_limit: h[8], proto: protocol::IPV4, df }
            }
            Family::Inet6 => {
                let tclass = (h[0] << 4) | (h[1] >> 4);
                Inner { family, tclass, hop_limit: h[7], proto: protocol::IPV6, df: 0 }
            }
        })
    }
}

/// A hash of the flow of a packet inside, for the outer flow label (RFC 6438 3) and the UDP source port (RFC 8085 5.1.1):
/// addresses, protocol, and ports where every packet of the flow has them; an IPv6 flow label stands for the ports.
#[inline(always)]
pub fn entropy(family: Family, packet: &[u8]) -> u32 {
    let h = match family {
        Family::Inet => {
            let Some(p) = packet.first_chunk::<20>() else { return 0 };
            let ends = u64::from_be_bytes([p[12], p[13], p[14], p[15], p[16], p[17], p[18], p[19]]);
            let fragment = [p[6] & 0x3f, p[7]] != [0, 0];
            let l4 = if fragment { &[] } else { packet.get(usize::from(p[0] & 15) * 4..).unwrap_or_default() };
            mix(ends, ports(p[9], l4))
        }
        Family::Inet6 => {
            let Some((p, l4)) = packet.split_first_chunk::<40>() else { return 0 };
            let word = |at: usize| p.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
            let label = u32::from_be_bytes([0, p[1] & 15, p[2], p[3]]);
            let flow = if label == 0 { ports(p[6], l4) } else { u64::from(p[6]) << 32 | u64::from(label) };
            mix(mix(word(8), word(16)) ^ word(24), word(32) ^ flow.rotate_left(24))
        }
    };
    (h ^ (h >> 32)) as u32
}

/// Protocol and ports in one word.
#[inline(always)]
fn ports(proto: u8, l4: &[u8]) -> u64 {
    let ports = match l4.first_chunk::<4>() {
        Some(ports) if HAS_PORTS[usize::from(proto)] => u32::from_be_bytes(*ports),
        _ => 0,
    };
    u64::from(proto) << 32 | u64::from(ports)
}

static HAS_PORTS: [bool; 256] = {
    let mut t = [false; 256];
    t[protocol::TCP as usize] = true;
    t[protocol::UDP as usize] = true;
    t[protocol::SCTP as usize] = true;
    t[protocol::UDPLITE as usize] = true;
    t
};

/// Both words, neither of them as it is, multiplied and folded.
#[inline(always)]
fn mix(a: u64, b: u64) -> u64 {
    let m = u128::from(a ^ 0x9e37_79b9_7f4a_7c15) * u128::from(b ^ 0xd6e8_feb8_6659_fd93);
    (m >> 64) as u64 ^ m as u64
}

/// What stands in front of a packet in a tunnel.
#[derive(Clone, Debug)]
pub enum Outer {
    /// A bare IPv4 header.
    V4(OuterV4),
    /// A bare IPv6 header, with an encapsulation limit if one is configured. Not in place: with it, no forwarding object would
    /// fit into a cache line.
    V6(Arc<OuterV6>),
    /// With something between, or a peer that the packet inside names.
    Long(Arc<Long>),
}

impl Outer {
    /// From a tunnel's parameters. None unless both ends are known and of the mode's family.
    pub fn of(facts: &EncapFacts) -> Option<Outer> {
        let shape = facts.mode.shape();
        let open = shape.peer == Peer::Configured && facts.remote.is_unspecified();
        // A port that is not known yet.
        let nowhere = facts.options.udp.is_some_and(|u| u.dport == 0);
        if open || nowhere || facts.local.is_unspecified() {
            return None;
        }
        let base = match shape.peer {
            // The peer is written into it packet by packet.
            Peer::Derived => Base::of(&EncapFacts { remote: Ipv4Addr::UNSPECIFIED.into(), ..facts.clone() })?,
            Peer::Configured => Base::of(facts)?,
        };
        let options = &facts.options;
        let plain = shape.between == Between::Nothing && shape.peer == Peer::Configured && options.udp.is_none();
        Some(match base {
            Base::V4(v4) if plain => Outer::V4(v4),
            Base::V6(v6) if plain => Outer::V6(Arc::new(v6)),
            base => {
                let long = Long {
                    base,
                    shape,
                    gre: (shape.between == Between::Gre).then_some(options.gre),
                    udp: options.udp,
                    derived: options.sixrd.as_ref().map(Derived::new),
                    state: Arc::clone(&facts.state),
                    plain: None,
                };
                // Where packets have to be fragmented, the general path does it.
                let ready = facts.path.is_none() && fits(facts);
                Outer::Long(Arc::new(if ready { long.ready() } else { long }))
            }
        })
    }

    /// Family of the outer header.
    #[inline]
    pub fn family(&self) -> Family {
        match self {
            Outer::V4(_) => Family::Inet,
            Outer::V6(_) => Family::Inet6,
            Outer::Long(l) => l.shape.outer,
        }
    }

    /// Writes the header in front of a packet that brings no encapsulation limit: `to` is the room for it, with the packet
    /// behind. None when that is too long, or nothing here says who the peer is.
    pub fn write(&self, to: &mut [u8], inner: &Inner, ident: u16) -> Option<()> {
        match self {
            Outer::V4(o) => {
                let total = u16::try_from(to.len()).ok()?;
                o.write(to.first_chunk_mut()?, inner, total, ident);
                Some(())
            }
            Outer::V6(o) => {
                let label = o.label(inner.family, to.get(o.added()..)?);
                o.write_with(to, inner, label, o.limit())
            }
            Outer::Long(l) => {
                l.plain()?;
                l.write(to, inner, Written { ident, limit: l.limit(), peer: None, rehearsal: false })
            }
        }
    }

    /// Bytes added.
    #[inline]
    pub fn added(&self) -> usize {
        match self {
            Outer::V4(_) => V4,
            Outer::V6(o) => o.added(),
            Outer::Long(l) => l.added(),
        }
    }
}

/// Whether DF makes no packet that may enter too long.
fn fits(facts: &EncapFacts) -> bool {
    facts.df_mtu.is_none_or(|most| most >= facts.mtu)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    V4(OuterV4),
    V6(OuterV6),
}

impl Base {
    fn of(facts: &EncapFacts) -> Option<Base> {
        match facts.mode.shape().outer {
            Family::Inet => OuterV4::new(facts).map(Base::V4),
            Family::Inet6 => OuterV6::new(facts).map(Base::V6),
        }
    }
}

/// A byte of an outer header that has bits of the packet inside, and others of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    inherited: u8,
    fixed: u8,
}

impl Field {
    /// A TTL: this one, or the inner one.
    fn ttl(ttl: Option<u8>) -> Field {
        ttl.map_or(Field { inherited: 0xff, fixed: 0 }, |fixed| Field { inherited: 0, fixed })
    }

    /// A traffic class: see [`outer_tos`].
    fn tos(tos: Option<u8>) -> Field {
        let none = outer_tos(0, tos);
        Field { inherited: outer_tos(0xff, tos) ^ none, fixed: none }
    }

    #[inline(always)]
    fn of(self, inner: u8) -> u8 {
        inner & self.inherited | self.fixed
    }
}

/// An outer IPv4 header, ready made but for what differs from packet to packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterV4 {
    /// Both addresses as they stand in the header.
    ends: u64,
    /// Sum of the 16-bit words that never differ.
    sum: u32,
    ttl: Field,
    tos: Field,
    /// DF: which bits of the inner packet's count, and what is set in any case.
    df: (u16, u16),
    /// See [`OuterV4::fits`].
    fits: bool,
}

impl OuterV4 {
    /// From a tunnel's parameters. None unless both ends are IPv4.
    pub fn new(facts: &EncapFacts) -> Option<Self> {
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (facts.local, facts.remote) else { return None };
        let halves = |a: Ipv4Addr| (a.to_bits() >> 16) + (a.to_bits() & 0xffff);
        Some(OuterV4 {
            ends: u64::from(src.to_bits()) << 32 | u64::from(dst.to_bits()),
            sum: 0x4500 + halves(src) + halves(dst),
            ttl: Field::ttl(facts.ttl),
            tos: Field::tos(facts.tos),
            df: (if facts.df_mtu.is_some() { DF } else { 0 }, if facts.df { DF } else { 0 }),
            fits: fits(facts),
        })
    }

    /// Whether the inner packets' DF makes none of them too long: what it does to a single one is decided on the general path.
    #[inline]
    pub fn fits(&self) -> bool {
        self.fits
    }

    /// The same header to somebody else. Its own destination must be unspecified.
    fn towards(&self, dst: Ipv4Addr) -> Self {
        let bits = dst.to_bits();
        OuterV4 { ends: self.ends | u64::from(bits), sum: self.sum + (bits >> 16) + (bits & 0xffff), ..*self }
    }

    /// Writes the header. `total_len` is the outer packet's, `ident` counts only when the packet may be fragmented
    /// (RFC 6864 4).
    #[inline]
    pub fn write(&self, to: &mut [u8; V4], inner: &Inner, total_len: u16, ident: u16) {
        let tos = u32::from(self.tos.of(inner.tclass));
        let flags = u32::from(inner.df & self.df.0 | self.df.1);
        let ident = if flags == 0 { u32::from(ident) } else { 0 };
        let ttl_proto = u32::from(self.ttl.of(inner.hop_limit)) << 8 | u32::from(inner.proto);
        let sum = self.sum + tos + u32::from(total_len) + (ident | flags) + ttl_proto;
        let sum = (sum & 0xffff) + (sum >> 16);
        let check = !(sum + (sum >> 16)) as u16;
        let first = (0x4500 | tos) << 16 | u32::from(total_len);
        to[..4].copy_from_slice(&first.to_be_bytes());
        to[4..8].copy_from_slice(&(ident << 16 | flags).to_be_bytes());
        to[8..12].copy_from_slice(&(ttl_proto << 16 | u32::from(check)).to_be_bytes());
        to[12..].copy_from_slice(&self.ends.to_be_bytes());
    }
}

/// An outer IPv6 header, ready made but for what differs from packet to packet (RFC 2473 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OuterV6 {
    /// Both addresses as they stand in the header.
    ends: [u8; 32],
    hop: Field,
    tclass: Field,
    label: FlowLabel,
    limit: Option<u8>,
    /// No packet that may enter has to be fragmented behind it.
    fits: bool,
}

impl OuterV6 {
    /// From a tunnel's parameters. None unless both ends are IPv6.
    pub fn new(facts: &EncapFacts) -> Option<Self> {
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (facts.local, facts.remote) else { return None };
        let mut ends = [0; 32];
        ends[..16].copy_from_slice(&src.octets());
        ends[16..].copy_from_slice(&dst.octets());
        let options = &facts.options;
        let limit = options.encaplimit.filter(|_| options.has_limit(Family::Inet6));
        let (hop, tclass) = (Field::ttl(facts.ttl), Field::tos(facts.tos));
        Some(OuterV6 { ends, hop, tclass, label: options.flowlabel, limit, fits: facts.path.is_none() })
    }

    /// Bytes added.
    #[inline]
    pub fn added(&self) -> usize {
        if self.limit.is_some() { V6 + limit::LEN as usize } else { V6 }
    }

    /// Whether outer packets need not be fragmented for the way to the peer.
    #[inline]
    pub fn fits(&self) -> bool {
        self.fits
    }

    /// Whether nothing stands behind the fixed header.
    #[inline]
    pub fn is_bare(&self) -> bool {
        self.limit.is_none()
    }

    /// The configured encapsulation limit.
    pub fn limit(&self) -> Option<u8> {
        self.limit
    }

    /// The flow label for `packet`, the packet inside.
    #[inline(always)]
    pub fn label(&self, family: Family, packet: &[u8]) -> u32 {
        match self.label {
            FlowLabel::Auto => entropy(family, packet) & 0xf_ffff,
            FlowLabel::Inherit if family == Family::Inet6 => match packet.first_chunk::<4>() {
                Some(h) => u32::from_be_bytes(*h) & 0xf_ffff,
                None => 0,
            },
            FlowLabel::Inherit => 0,
            FlowLabel::Fixed(label) => label & 0xf_ffff,
        }
    }

    /// Writes the fixed header. `next` is what follows, `payload_len` its length.
    #[inline(always)]
    pub fn write(&self, to: &mut [u8; V6], inner: &Inner, label: u32, next: u8, payload_len: u16) {
        let tclass = u32::from(self.tclass.of(inner.tclass));
        let first = 6 << 28 | tclass << 20 | label;
        let hop = self.hop.of(inner.hop_limit);
        let second = u32::from(payload_len) << 16 | u32::from(next) << 8 | u32::from(hop);
        to[..8].copy_from_slice(&(u64::from(first) << 32 | u64::from(second)).to_be_bytes());
        to[8..].copy_from_slice(&self.ends);
    }

    /// Writes the header and, if there is a `limit`, its option (RFC 2473 5). `to` is the room for them with everything
    /// behind.
    pub(super) fn write_with(&self, to: &mut [u8], inner: &Inner, label: u32, limit: Option<u8>) -> Option<()> {
        let payload_len = u16::try_from(to.len().checked_sub(V6)?).ok()?;
        let (head, rest) = to.split_first_chunk_mut::<V6>()?;
        match limit {
            None => self.write(head, inner, label, inner.proto, payload_len),
            Some(limit) => {
                *rest.first_chunk_mut()? = limit::header(inner.proto, limit);
                self.write(head, inner, label, protocol::DEST_OPTIONS, payload_len);
            }
        }
        Some(())
    }
}

/// See [`Outer::Long`].
#[derive(Debug)]
pub struct Long {
    base: Base,
    shape: &'static Shape,
    gre: Option<GreOptions>,
    udp: Option<UdpOptions>,
    pub(super) derived: Option<Derived>,
    state: Arc<TunnelState>,
    /// See [`Long::plain`].
    plain: Option<u32>,
}

impl Long {
    /// With what follows from the rest.
    fn ready(self) -> Self {
        Long { plain: self.derived.is_none().then_some(self.added() as u32), ..self }
    }

    /// Bytes added, where the packet inside does not name the peer.
    #[inline]
    pub fn plain(&self) -> Option<u32> {
        self.plain
    }

    /// Whether headers are numbered: they must be written in the order in which packets are sent.
    #[inline]
    pub fn is_numbered(&self) -> bool {
        self.gre.is_some_and(|g| g.oseq)
    }

    /// Bytes added.
    pub fn added(&self) -> usize {
        let base = match self.base {
            Base::V4(_) => V4,
            Base::V6(o) => o.added(),
        };
        base + self.gre.map_or(0, |g| g.sent_len() as usize) + self.udp.map_or(0, |u| u.kind.added() as usize)
    }

    /// The encapsulation limit that is configured.
    pub(super) fn limit(&self) -> Option<u8> {
        match self.base {
            Base::V4(_) => None,
            Base::V6(o) => o.limit,
        }
    }

    /// Writes everything in front of the packet inside: `to` is the room for it, with the packet behind. None when the
    /// packet is too long. `peer` is the destination that the packet inside names.
    pub(super) fn write(&self, to: &mut [u8], inner: &Inner, at: Written) -> Option<()> {
        let total = to.len();
        let ip = match self.base {
            Base::V4(_) => V4,
            Base::V6(_) if at.limit.is_some() => V6 + limit::LEN as usize,
            Base::V6(_) => V6,
        };
        let payload = to.get_mut(ip..)?;
        let carried = self.shape.protocol(inner.family);
        let udp_len = self.udp.map_or(0, |u| u.kind.added() as usize);
        let packet = payload.get(udp_len + self.gre.map_or(0, |g| g.sent_len() as usize)..)?;
        let flow = if self.udp.is_some_and(|u| u.sport == 0) { entropy(inner.family, packet) } else { 0 };
        let label = match &self.base {
            Base::V4(_) => 0,
            Base::V6(o) => o.label(inner.family, packet),
        };
        if let Some(options) = &self.gre {
            let seq = if at.rehearsal { 0 } else { self.state.next_seq(options.oseq) };
            gre::write(payload.get_mut(udp_len..)?, options, inner.family, seq)?;
        }
        let mut next = carried;
        if let Some(options) = &self.udp {
            udp::write(payload, options, carried, flow)?;
            next = protocol::UDP;
        }
        let inner = Inner { proto: next, ..*inner };
        match &self.base {
            Base::V4(o) => {
                let o = if let Some(peer) = at.peer { o.towards(peer) } else { *o };
                o.write(to.first_chunk_mut()?, &inner, u16::try_from(total).ok()?, at.ident);
            }
            Base::V6(o) => o.write_with(to, &inner, label, at.limit)?,
        }
        if let Some(options) = &self.udp
            && options.csum.unwrap_or(self.shape.outer == Family::Inet6)
        {
            udp::fill_checksum(to, ip, self.shape.outer);
        }
        Some(())
    }
}

/// What differs from packet to packet beside the packet inside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) ident: u16,
    pub(super) limit: Option<u8>,
    pub(super) peer: Option<Ipv4Addr>,
    pub(super) rehearsal: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum;
    use crate::headers::ipv4;
    use crate::tunnel::spec::TunnelMode;

    #[test]
    fn the_ready_made_header_is_the_one_made_from_its_fields() {
        for i in 0..=u16::MAX {
            let (src, dst) =
                (u32::from(i).wrapping_mul(0x9e37_79b9).into(), u32::from(i).wrapping_mul(0x85eb_ca6b).into());
            let (df, hop_limit, tclass) = (i & 1 == 1, (i >> 8) as u8, (i >> 3) as u8);
            let ttl = (i & 2 == 0).then_some((i >> 4) as u8);
            let tos = (i & 4 == 0).then_some((i >> 5) as u8);
            let (local, remote) = (IpAddr::V4(src), IpAddr::V4(dst));
            let facts = EncapFacts { ttl, tos, df, ..EncapFacts::new(TunnelMode::SixInFour, local, remote) };
            let (mut one, mut other, mut third) = ([0xaa; 20], [0x55; 20], [1; 20]);
            let (copied, inner_df) = (i & 0x200 != 0, i & 0x400 != 0);
            let facts = EncapFacts { df_mtu: copied.then_some(68), ..facts };
            let inner = Inner {
                family: Family::Inet,
                tclass,
                hop_limit,
                proto: protocol::IPV6,
                df: if inner_df { DF } else { 0 },
            };
            let df = df || copied && inner_df;
            OuterV4::new(&facts).unwrap().write(&mut one, &inner, i.rotate_left(5), !i);
            ipv4::Header {
                tos: outer_tos(tclass, tos),
                total_len: i.rotate_left(5),
                ident: if df { 0 } else { !i },
                df,
                ttl: ttl.unwrap_or(hop_limit),
                proto: protocol::IPV6,
                src,
                dst,
            }
            .write(&mut other);
            assert_eq!(one, other, "{facts:?}");
            assert!(checksum::verify(&one));
            let nobody = EncapFacts { remote: Ipv4Addr::UNSPECIFIED.into(), ..facts };
            OuterV4::new(&nobody).unwrap().towards(dst).write(&mut third, &inner, i.rotate_left(5), !i);
            assert_eq!(one, third);
        }
    }

    /// RFC 6438 3: one flow, one label; many flows, many labels; later fragments share one.
    #[test]
    fn entropy_follows_flows() {
        let v4 = |sport: u16, fragment: u8| {
            let mut p = vec![0x45, 0, 0, 28, 0, 0, 0, fragment, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1];
            p.extend(sport.to_be_bytes());
            p.extend([0, 53, 0, 8, 0, 0]);
            p
        };
        let v6 = |sport: u16, label: u8| {
            let mut p = vec![0x60, 0, 0, label, 0, 8, 17, 64];
            p.extend([0x20; 32]);
            p.extend(sport.to_be_bytes());
            p.extend([0, 53, 0, 8, 0, 0]);
            p
        };
        let count = |list: Vec<u32>| {
            let set: std::collections::BTreeSet<u32> = list.into_iter().map(|h| h & 0xf_ffff).collect();
            set.len()
        };
        assert!(count((0..1000).map(|p| entropy(Family::Inet, &v4(p, 0))).collect()) > 990);
        assert!(count((0..1000).map(|p| entropy(Family::Inet6, &v6(p, 0))).collect()) > 990);
        assert_eq!(count((0..1000).map(|p| entropy(Family::Inet, &v4(p, 9))).collect()), 1);
        assert_eq!(count((0..1000).map(|p| entropy(Family::Inet6, &v6(p, 7))).collect()), 1);
        assert_eq!(count((0..100).map(|l| entropy(Family::Inet6, &v6(1, l))).collect()), 100);
        assert_eq!(entropy(Family::Inet6, &[0; 39]), 0);
    }
}
