//! Headers: what the parse says must hold for the bytes that it was given.

use router_core::addr::{Family, MacAddr};
use router_core::explain::PacketView;
use router_core::flow;
use router_core::forward::local;
use router_core::frame::Frame;
use router_core::headers::{ethernet, ipv6_arrival};
use router_core::packet::{Fragment, Packet};
use router_core::port::{Medium, PortCaps, PortId, PortInfo, PortKind, TableId};

/// Ethernet, IPv4, IPv6 with extension headers, and what looks at parsed packets without state.
pub(super) fn packets(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    if first & 1 == 1 {
        let mut frame = Frame::from_slice(data);
        frame.meta.vlan_tci = (first & 2 == 2).then_some(u16::from(*first));
        let port = port((first & 4 == 4).then_some(10));
        if ethernet::receive(&mut frame, &port).is_ok() {
            packet(frame.data());
        }
    } else {
        packet(data);
    }
    let _ = PacketView::of_head(data);
}

fn packet(data: &[u8]) {
    let Ok(family) = Packet::sniff(data) else { return };
    let Ok(p) = Packet::parse(family, data) else { return };
    assert_eq!(p.family, family);
    assert!(p.len as usize <= data.len(), "longer than the bytes: {p:?}");
    assert!(u32::from(p.l4) <= p.len, "the transport header lies outside: {p:?}");
    assert_eq!(Family::of(&p.src), family);
    assert_eq!(Family::of(&p.dst), family);
    let own = &data[..p.len as usize];
    // Padding behind the packet changes nothing.
    assert_eq!(Packet::parse(family, own), Ok(p));
    assert_eq!(flow::hash(&p, own, 7), flow::hash(&p, data, 7));
    if family == Family::Inet6 {
        let _ = ipv6_arrival::check(own);
    }
    let _ = local::classify(&p, own);
    if p.fragment == Fragment::None {
        let _ = local::checksum_ok(&p, own);
        let mut out = Frame::with_capacity(128);
        if local::tcp_reset(&p, own, true, &mut out) {
            let reset = Packet::parse(family, out.data()).expect("a reset is a packet");
            assert_eq!((reset.src, reset.dst), (p.dst, p.src));
        }
    }
}

fn port(vlan: Option<u16>) -> PortInfo {
    PortInfo {
        id: PortId(1),
        name: "eth".into(),
        ifindex: 1,
        kind: PortKind::Packet,
        medium: Medium::Ethernet,
        mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
        mtu: 1500,
        vlan,
        table: TableId::MAIN,
        up: true,
        admin_up: true,
        caps: PortCaps::default(),
        addrs: Vec::new(),
    }
}
