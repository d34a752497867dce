//! Segments are joined again and compared with what was cut; etherparse checks every checksum.

use super::*;
use crate::addr::Family;
use crate::frame::{Gso, PartialChecksum};
use crate::packet::Fragment;
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use proptest::prelude::*;

const NO_CAPS: PortCaps = PortCaps { partial_checksum: false, tso: false, uso: false, tunnels: false };
const ALL_CAPS: PortCaps = PortCaps { partial_checksum: true, tso: true, uso: true, tunnels: false };

fn super_frame(kind: GsoKind, payload: &[u8], size: u16) -> Frame {
    let mut bytes = Vec::new();
    let ip = match kind {
        GsoKind::TcpV6 => PacketBuilder::ipv6([1; 16], [2; 16], 9),
        _ => PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9),
    };
    match kind {
        GsoKind::UdpL4 => ip.udp(1000, 2000).write(&mut bytes, payload).unwrap(),
        _ => {
            let tcp = ip.tcp(1000, 2000, u32::MAX - 100, 500).ack(7).psh().fin().cwr();
            let tcp = tcp.options_raw(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]).unwrap();
            tcp.write(&mut bytes, payload).unwrap();
        }
    }
    let mut f = Frame::from_slice(&bytes);
    f.meta.gso = Some(Gso { kind, size, ecn: true });
    f.meta.vlan_tci = Some(7);
    make_partial(&mut f).unwrap();
    f
}

fn segment_all(f: Frame, caps: &PortCaps) -> Vec<Frame> {
    let mut pool = FramePool::new(256, 2000);
    let mut out = vec![Frame::default()];
    let n = prepare(f, caps, &mut pool, &mut out).unwrap();
    assert_eq!(out.len(), n + 1);
    out.split_off(1)
}

fn check(kind: GsoKind, payload: &[u8], size: u16, caps: &PortCaps) {
    let whole = super_frame(kind, payload, size);
    let segments = segment_all(whole, caps);
    assert_eq!(segments.len(), payload.len().div_ceil(usize::from(size)).max(1));
    let mut joined = Vec::new();
    let count = segments.len();
    for (i, mut f) in segments.into_iter().enumerate() {
        assert_eq!((f.meta.gso, f.meta.vlan_tci), (None, Some(7)));
        assert_eq!(f.meta.csum.is_some(), caps.partial_checksum);
        complete_checksum(&mut f).unwrap();
        let ip = f.data();
        let p = SlicedPacket::from_ip(ip).unwrap();
        let (first, last) = (i == 0, i + 1 == count);
        let net = p.net.unwrap();
        if let NetSlice::Ipv4(v4) = &net {
            let h = v4.header().to_header();
            assert_eq!(h.calc_header_checksum(), h.header_checksum);
            assert_eq!(h.identification, i as u16);
            assert_eq!(usize::from(h.total_len), ip.len());
        }
        match p.transport.unwrap() {
            TransportSlice::Tcp(tcp) => {
                let h = tcp.to_header();
                let good = match &net {
                    NetSlice::Ipv4(v4) => h.calc_checksum_ipv4(&v4.header().to_header(), tcp.payload()),
                    NetSlice::Ipv6(v6) => h.calc_checksum_ipv6(&v6.header().to_header(), tcp.payload()),
                    _ => unreachable!("only IP here"),
                };
                // All ones and zero mean the same to TCP.
                assert_eq!(good.unwrap() % 0xffff, h.checksum % 0xffff);
                assert_eq!((h.psh, h.fin, h.cwr, h.ack), (last, last, first, true));
                let want = (u32::MAX - 100).wrapping_add((i * usize::from(size)) as u32);
                assert_eq!(h.sequence_number, want);
                assert_eq!(h.options.len(), 12);
                joined.extend_from_slice(tcp.payload());
            }
            TransportSlice::Udp(udp) => {
                let h = udp.to_header();
                let NetSlice::Ipv4(v4) = &net else { unreachable!("UDP over IPv4 here") };
                assert_eq!(
                    h.calc_checksum_ipv4(&v4.header().to_header(), udp.payload()).unwrap() % 0xffff,
                    h.checksum % 0xffff
                );
                assert_ne!(h.checksum, 0);
                joined.extend_from_slice(udp.payload());
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(joined, payload);
}

#[test]
fn what_the_port_takes_passes_untouched() {
    for kind in [GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::UdpL4] {
        let f = super_frame(kind, &[5; 5000], 1000);
        let (data, meta) = (f.data().to_vec(), f.meta);
        let out = segment_all(f, &ALL_CAPS);
        assert_eq!((out.len(), out[0].data(), out[0].meta), (1, &data[..], meta));
    }
}

#[test]
fn a_finished_super_frame_gets_its_pending_checksum_back() {
    let pending = super_frame(GsoKind::TcpV4, &[5; 5000], 1000);
    let mut finished = pending.clone();
    complete_checksum(&mut finished).unwrap();
    let out = segment_all(finished, &ALL_CAPS);
    assert_eq!((out[0].data(), out[0].meta), (pending.data(), pending.meta));
}

/// `inner` behind an outer header of either family, as a tunnel puts it there; a pending checksum moves along.
fn in_tunnel(mut inner: Frame, inner_v6: bool, outer_v6: bool) -> Frame {
    let (len, proto) = (inner.len(), if inner_v6 { 41 } else { 4 });
    if outer_v6 {
        let room = inner.push_front(40).unwrap();
        room[..40].fill(0);
        room[0] = 0x60;
        room[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        (room[6], room[7], room[8], room[24]) = (proto, 64, 0xfd, 0xfd);
    } else {
        let room = inner.push_front(20).unwrap();
        room[..20].copy_from_slice(&[0x45, 0, 0, 0, 1, 0, 0, 0, 64, proto, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        room[2..4].copy_from_slice(&(len as u16 + 20).to_be_bytes());
        crate::checksum::fill_ipv4_header(room);
    }
    inner
}

#[test]
fn cutting_behind_a_tunnel_is_the_same_as_before_it() {
    for kind in [GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::UdpL4] {
        for outer in [&[false][..], &[true], &[false, true], &[true, false]] {
            let payload: Vec<u8> = (0..5001u32).map(|i| (i * i / 7) as u8).collect();
            let wrap = |mut f: Frame| {
                let mut v6 = kind == GsoKind::TcpV6;
                for outer_v6 in outer {
                    f = in_tunnel(f, v6, *outer_v6);
                    v6 = *outer_v6;
                }
                f
            };
            let want: Vec<Frame> =
                segment_all(super_frame(kind, &payload, 1000), &NO_CAPS).into_iter().map(wrap).collect();
            // Even for a port that takes super-frames: not in tunnels.
            let mut got = segment_all(wrap(super_frame(kind, &payload, 1000)), &ALL_CAPS);
            assert_eq!(got.len(), want.len());
            for (i, (got, want)) in got.iter_mut().zip(&want).enumerate() {
                complete_checksum(got).unwrap();
                let (got, mut want) = (got.data().to_vec(), want.data().to_vec());
                // The outer identification counts on with the segments.
                let mut at = 0;
                for outer_v6 in outer.iter().rev() {
                    let ip = &mut want[at..];
                    if !outer_v6 {
                        ip[5] = i as u8;
                        crate::checksum::fill_ipv4_header(ip);
                    }
                    at += if *outer_v6 { 40 } else { 20 };
                }
                assert_eq!(got, want, "{kind:?} {outer:?} segment {i}");
            }
        }
    }
}

/// The segments of several flows, each a super-frame's, in Ethernet; told apart by the source port.
fn flows(kinds: &[(GsoKind, u16, usize)]) -> Vec<Vec<Frame>> {
    let cut = |(n, (kind, size, len)): (usize, &(GsoKind, u16, usize))| {
        let payload: Vec<u8> = (0..*len).map(|i| (i * 31 / 7 + n) as u8).collect();
        let mut whole = super_frame(*kind, &payload, *size);
        let l4 = usize::from(whole.meta.csum.unwrap().start);
        whole.data_mut()[l4 + 1] = n as u8;
        whole.data_mut()[l4 + 13] = 0x10;
        whole.meta.gso = whole.meta.gso.map(|g| Gso { ecn: false, ..g });
        let mut all = segment_all(whole, &NO_CAPS);
        for f in &mut all {
            let ethertype = if f.data()[0] >> 4 == 4 { 0x0800u16 } else { 0x86dd };
            let link = f.push_front(14).unwrap();
            link[..12].fill(7);
            link[12..14].copy_from_slice(&ethertype.to_be_bytes());
        }
        all
    };
    kinds.iter().enumerate().map(cut).collect()
}

/// What a port's frames look like on a wire.
fn on_wire(frames: Vec<Frame>) -> Vec<Vec<u8>> {
    let mut wire = Vec::new();
    for mut f in frames {
        let link = f.data()[..14].to_vec();
        f.pull_front(14);
        wire.extend(segment_all(f, &NO_CAPS).iter().map(|s| [&link, s.data()].concat()));
    }
    wire
}

/// The frames of one flow, by the low byte of the source port.
fn flow_of(wire: &[Vec<u8>], n: u8) -> Vec<&Vec<u8>> {
    let l4 = |f: &[u8]| if f[14] >> 4 == 4 { 34 } else { 54 };
    wire.iter().filter(|f| f[l4(f) + 1] == n).collect()
}

proptest! {
    #[test]
    fn joined_segments_are_cut_into_what_they_were(
        kinds in proptest::collection::vec(
            (prop_oneof![Just(GsoKind::TcpV4), Just(GsoKind::TcpV6)], 256u16..1460, 1usize..60_000), 1..5),
        picks in proptest::collection::vec(any::<u8>(), 0..200),
        harm in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..5), 0..6),
    ) {
        let mut flows = flows(&kinds);
        // Interleaved, each flow in its own order.
        let mut frames = Vec::new();
        for pick in picks {
            let n = usize::from(pick) % flows.len();
            if !flows[n].is_empty() {
                frames.push(flows[n].remove(0));
            }
        }
        // What must not be joined: broken checksums, other flags, pure acknowledgements, losses, other windows.
        for (at, what) in harm {
            if frames.is_empty() {
                break;
            }
            let i = at.index(frames.len());
            let f = &mut frames[i];
            let l4 = if f.data()[14] >> 4 == 4 { 34 } else { 54 };
            match what {
                0 => f.data_mut()[l4 + 17] ^= 1,
                1 => f.data_mut()[l4 + 13] |= 0x01,
                2 => f.truncate(l4 + 32),
                3 => { frames.remove(i); }
                _ => f.data_mut()[l4 + 15] ^= 1,
            }
        }
        let want: Vec<Vec<u8>> = frames.iter().map(|f| f.data().to_vec()).collect();
        let mut pool = FramePool::new(64, crate::frame::MAX_FRAME);
        let before = frames.len();
        merge(&mut frames, 14, &mut pool);
        prop_assert!(frames.len() <= before);
        let got = on_wire(frames);
        prop_assert_eq!(got.len(), want.len());
        for n in 0..5 {
            prop_assert_eq!(flow_of(&got, n), flow_of(&want, n));
        }
    }
}

#[test]
fn a_flow_in_order_becomes_few_super_frames() {
    let mut frames: Vec<Frame> = flows(&[(GsoKind::TcpV6, 1400, 60_000), (GsoKind::TcpV4, 1448, 50_000)]).concat();
    let (count, wire) = (frames.len(), frames.iter().map(|f| f.data().to_vec()).collect::<Vec<_>>());
    let mut pool = FramePool::new(8, crate::frame::MAX_FRAME);
    merge(&mut frames, 14, &mut pool);
    assert_eq!((count, frames.len()), (43 + 35, 2));
    assert_eq!(on_wire(frames), wire);
}

#[test]
fn metadata_that_does_not_fit_is_refused_and_the_frame_comes_back() {
    let mut pool = FramePool::new(2, 2000);
    let mut out = Vec::new();
    let mut refuse = |change: &dyn Fn(&mut Frame), want: DropReason| {
        let mut f = pool.take().unwrap();
        let model = super_frame(GsoKind::TcpV4, &[5; 1900], 1000);
        f.set_data(model.data());
        f.meta = model.meta;
        change(&mut f);
        let (frame, reason) = prepare(f, &NO_CAPS, &mut pool, &mut out).unwrap_err();
        pool.put(frame);
        assert_eq!((reason, pool.available(), out.len()), (want, 2, 0));
    };
    let gso = |kind, size| Some(Gso { kind, size, ecn: false });
    refuse(&|f| f.meta.gso = gso(GsoKind::TcpV4, 0), DropReason::OffloadMalformed);
    refuse(&|f| f.meta.gso = gso(GsoKind::TcpV6, 1000), DropReason::OffloadMalformed);
    refuse(&|f| f.meta.gso = gso(GsoKind::UdpL4, 1000), DropReason::OffloadMalformed);
    refuse(&|f| f.truncate(30), DropReason::OffloadMalformed);
    refuse(&|f| f.data_mut()[6] = 0x20, DropReason::OffloadMalformed);
    refuse(&|f| f.meta.gso = gso(GsoKind::TcpV4, 100), DropReason::NoFrame);
    let beyond = Some(PartialChecksum { start: 1950, offset: 6 });
    refuse(&|f| (f.meta.gso, f.meta.csum) = (None, beyond), DropReason::OffloadMalformed);
}

#[test]
fn the_largest_segment_counts_headers() {
    let packet = |len: usize, l4: u16| Packet {
        family: Family::Inet,
        src: "10.0.0.1".parse().unwrap(),
        dst: "10.0.0.2".parse().unwrap(),
        len: len as u32,
        wire_len: len as u32,
        l4,
        proto: 6,
        ttl: 9,
        tclass: 0,
        flow: 0,
        fragment: Fragment::None,
        df: true,
        link_group: false,
        router_alert: false,
    };
    let mut f = super_frame(GsoKind::TcpV4, &[5; 5000], 1000);
    assert_eq!(largest_segment(&f, &packet(f.len(), 20)), 20 + 32 + 1000);
    f.meta.gso = None;
    assert_eq!(largest_segment(&f, &packet(f.len(), 20)), 5052);
    let f = super_frame(GsoKind::UdpL4, &[5; 300], 1000);
    assert_eq!(largest_segment(&f, &packet(f.len(), 20)), 328);
}

proptest! {
    #[test]
    fn joined_segments_are_the_original(
        payload in proptest::collection::vec(any::<u8>(), 1..9000), size in 100u16..1500,
        kind in prop_oneof![Just(GsoKind::TcpV4), Just(GsoKind::TcpV6), Just(GsoKind::UdpL4)],
        partial in any::<bool>(),
    ) {
        check(kind, &payload, size, &PortCaps { partial_checksum: partial, tso: false, uso: false, tunnels: false });
    }

    #[test]
    fn random_bytes_and_metadata_never_panic(
        data in proptest::collection::vec(any::<u8>(), 0..200), first in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
        proto in prop_oneof![Just(6u8), Just(17), any::<u8>()], size in 0u16..300,
        start in any::<u16>(), offset in any::<u16>(), has in any::<(bool, bool, bool, bool)>(),
        kind in prop_oneof![Just(GsoKind::TcpV4), Just(GsoKind::TcpV6), Just(GsoKind::UdpL4)],
    ) {
        let mut data = data;
        for (at, v) in [(0, first), (9, proto), (6, if first == 0x60 { proto } else { 0 })] {
            if let Some(b) = data.get_mut(at) { *b = v; }
        }
        let mut f = Frame::from_slice(&data);
        f.meta.csum = has.0.then_some(PartialChecksum { start: start % 256, offset: offset % 256 });
        f.meta.gso = has.1.then_some(Gso { kind, size, ecn: false });
        let caps = PortCaps { partial_checksum: has.2, tso: has.3, uso: has.3, tunnels: false };
        let mut pool = FramePool::new(8, 100);
        let mut out = Vec::new();
        match prepare(f, &caps, &mut pool, &mut out) {
            Ok(n) => prop_assert_eq!(out.len(), n),
            Err(_) => { prop_assert!(out.is_empty()); prop_assert_eq!(pool.available(), 8); }
        }
    }
}
