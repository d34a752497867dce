//! Multicast listener discovery: queries of any kind and version; ports that come, go and change; time.

use super::Input;
use super::stage::packet;
use router_core::addr::{Family, MacAddr};
use router_core::frame::Frame;
use router_core::neighbor::mld::{Listener, QUERY, Query, Report, write_report};
use router_core::packet::Packet;
use router_core::port::{Medium, PortId, PortKind};
use router_core::settings::NeighborSettings;
use router_core::tables::PortTable;
use router_core::time::{Duration, Instant};
use std::net::IpAddr;
use std::sync::Arc;

/// See the module.
pub(super) fn multicast(data: &[u8]) {
    let mut input = Input(data);
    let mut info = super::forward::port("eth", PortKind::Packet, Medium::Ethernet, None, 1500, &["2001:db8::1/64"]);
    (info.id, info.mac) = (PortId(1), Some(MacAddr([2, 0, 0, 0, 0, 1])));
    let mut ports = PortTable::default();
    ports.set(Arc::new(info.clone()));
    let mut listener = Listener::new(7);
    let mut now = Instant::from_millis(1);
    let mut settings = NeighborSettings::default();
    listener.follow(now, &settings, &ports);
    while let Some(what) = input.byte() {
        match what & 3 {
            0 => now = now + Duration::from_millis(u64::from(what >> 2) * 100),
            1 => {
                // A query as it must come, around bytes of the input; or wholly of the input.
                let len = usize::from(input.byte().unwrap_or(0));
                let body = input.piece(len);
                let bytes = if what & 4 == 0 { query(body, what) } else { body.to_vec() };
                let Ok(p) = Packet::parse(Family::Inet6, &bytes) else { continue };
                if let Some(query) = Query::parse(&p, &bytes) {
                    assert!(query.within <= Duration::from_secs(8388 + 1), "{query:?}");
                    listener.query(now, info.id, &query);
                }
            }
            2 => {
                info.up = what & 4 == 0;
                let n = what >> 3 & 7;
                info.addrs = (0..n).map(|n| format!("2001:db8:{n}::{what}/64").parse().expect("an address")).collect();
                ports.set(Arc::new(info.clone()));
                settings.mld = what & 0x80 == 0;
                listener.follow(now, &settings, &ports);
            }
            _ => listener.forget(PortId(u32::from(what >> 7))),
        }
        for (port, report) in listener.poll(now) {
            assert_eq!(port, info.id);
            let mut frame = Frame::with_capacity(1600);
            let src = (what & 8 == 0).then(|| "fe80::1".parse().expect("an address"));
            write_report(&mut frame, &info, src, &report).expect("a report fits");
            let p = Packet::parse(Family::Inet6, &frame.data()[14..]).expect("a report is a packet");
            assert!(p.router_alert && p.ttl == 1 && frame.len() <= 14 + 1280, "{report:?}");
            assert!(!matches!(report, Report::V2(ref records) if records.is_empty()));
        }
        assert!(listener.poll_at().is_none_or(|at| at > now), "due, and not told");
    }
}

/// A query of a link-local router, with a router alert and a right checksum.
fn query(body: &[u8], what: u8) -> Vec<u8> {
    let (src, dst): (IpAddr, IpAddr) =
        ("fe80::77".parse().expect("an address"), "ff02::1".parse().expect("an address"));
    let message = [&[QUERY, 0, 0, 0], body].concat();
    let whole = packet(src, dst, 58, 1, &message);
    let options = if what & 8 == 0 { [58, 0, 5, 2, 0, 0, 1, 0] } else { [58, 0, 1, 4, 0, 0, 0, 0] };
    let mut p = [&whole[..40], &options, &whole[40..]].concat();
    let len = (p.len() - 40) as u16;
    p[4..6].copy_from_slice(&len.to_be_bytes());
    p[6] = 0;
    p
}
