//! What keeps state about other stations: neighbours and reassembly. Both must stay within their limits.

use super::Input;
use router_core::addr::{Family, MacAddr};
use router_core::fragment::{Limits, Pushed, Reassembler};
use router_core::frame::Frame;
use router_core::neighbor::{ArpReceived, NdpReceived, NeighborEvent, NeighborTable};
use router_core::packet::Packet;
use router_core::port::{Medium, PortCaps, PortId, PortInfo, PortKind, TableId};
use router_core::settings::{NeighborSettings, Proxy};
use router_core::time::{Duration, Instant};

/// Gateways may have so many places more than the limits say.
const RESERVE: usize = 256;

/// ARP, neighbour discovery and packets that wait, with time going by.
pub(super) fn neighbor(data: &[u8]) {
    let mut input = Input(data);
    let settings = NeighborSettings {
        max_entries: 8,
        max_incomplete: 4,
        max_pending: 2,
        max_pending_total: 4,
        proxy: vec![Proxy { port: "eth".into(), net: "192.0.2.128/25".parse().expect("a prefix") }],
        ..NeighborSettings::default()
    };
    let port = PortInfo {
        id: PortId(1),
        name: "eth".into(),
        ifindex: 1,
        kind: PortKind::Packet,
        medium: Medium::Ethernet,
        mac: Some(MacAddr([2, 0, 0, 0, 0, 1])),
        mtu: 1500,
        vlan: None,
        table: TableId::MAIN,
        up: true,
        admin_up: true,
        caps: PortCaps::default(),
        addrs: ["192.0.2.1/24", "2001:db8::1/64", "fe80::1/64"].map(|a| a.parse().expect("an address")).to_vec(),
    };
    let mut table = NeighborTable::new(1);
    let mut now = Instant::from_millis(1);
    let mut events: Vec<NeighborEvent> = Vec::new();
    while let Some(what) = input.byte() {
        match what & 3 {
            0 => {
                let len = usize::from(input.byte().unwrap_or(0));
                let mut answer = Frame::with_capacity(256);
                let _ = table.arp_input(
                    now,
                    &settings,
                    &port,
                    ArpReceived::new(input.piece(len)),
                    &mut answer,
                    &mut events,
                );
            }
            1 => {
                let len = usize::from(input.byte().unwrap_or(0));
                let bytes = input.piece(len);
                let Ok(packet) = Packet::parse(Family::Inet6, bytes) else { continue };
                let from = (what & 4 == 4).then_some(MacAddr([2, 0, 0, 0, 0, what]));
                let received = NdpReceived { packet: &packet, data: bytes, from, tentative: None };
                let mut answer = Frame::with_capacity(256);
                let _ = table.ndp_input(now, &settings, &port, &received, &mut answer, &mut events);
            }
            2 => {
                let addr = match what & 4 {
                    0 => [192, 0, 2, what].into(),
                    _ => std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(what)).into(),
                };
                let frame = Some(Frame::from_slice(&[0x45; 40]));
                let _ = match what & 8 {
                    0 => table.resolve(now, &settings, port.id, addr, frame, &mut events),
                    _ => table.resolve_gateway(now, &settings, port.id, addr, frame, &mut events),
                };
            }
            _ => {
                now = now + Duration::from_millis(u64::from(what) * 20);
                table.poll(now, &settings, &mut events);
            }
        }
        assert!(table.len() <= settings.max_entries + RESERVE, "{} neighbours", table.len());
        assert!(table.held() <= settings.max_pending_total + RESERVE, "{} packets wait", table.held());
        events.clear();
    }
    for _ in 0..100 {
        now = now + Duration::from_secs(1);
        table.poll(now, &settings, &mut events);
    }
    assert_eq!(table.held(), 0, "packets wait for ever");
}

/// Fragments of both families in any order, with time going by.
pub(super) fn reassembly(data: &[u8]) {
    let mut input = Input(data);
    let limits = Limits::default();
    let mut joiner = Reassembler::new(limits, 1);
    let mut now = Instant::from_millis(1);
    let mut expired = Vec::new();
    while let Some(what) = input.byte() {
        if what & 7 == 7 {
            now = now + Duration::from_millis(u64::from(what) * 100);
            joiner.poll(now, &mut expired);
            continue;
        }
        let Some(len) = input.word() else { break };
        let mut frame = Frame::from_slice(input.piece(usize::from(len) & 0x7ff));
        let Ok(packet) = Packet::sniff(frame.data()).and_then(|f| Packet::parse(f, frame.data())) else { continue };
        frame.truncate(packet.len as usize);
        if let Pushed::Complete { frame: whole, .. } = joiner.push(now, &frame) {
            let joined = Packet::sniff(whole.data()).and_then(|f| Packet::parse(f, whole.data()));
            // What is inside may still be broken; the headers that reassembly wrote are not.
            if let Ok(joined) = joined {
                assert_eq!((joined.family, joined.src, joined.dst), (packet.family, packet.src, packet.dst));
                assert_eq!(joined.len as usize, whole.len());
            }
        }
        joiner.take_evicted();
    }
    now = now + Duration::from_secs(3600);
    joiner.poll(now, &mut expired);
    assert_eq!((joiner.held(), joiner.bytes()), (0, 0), "fragments wait for ever");
}
