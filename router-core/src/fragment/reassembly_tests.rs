//! Shuffled fragments give the original; bad, overlapping and late ones leave nothing behind.

use super::*;
use crate::checksum::verify_ipv4_header;
use crate::fragment::fragment_ipv4;
use crate::frame::FramePool;
use etherparse::{IpNumber, PacketBuilder};
use proptest::prelude::*;

const T0: Instant = Instant::from_millis(1000);

fn v4_fragments(payload: &[u8], mtu: u32) -> (Vec<u8>, Vec<Frame>) {
    let mut bytes = Vec::new();
    let b = PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64).udp(7, 8);
    b.write(&mut bytes, payload).unwrap();
    bytes[4..6].copy_from_slice(&[0xbe, 0xef]);
    bytes[6..8].fill(0);
    fill_ipv4_header(&mut bytes);
    let mut out = Vec::new();
    fragment_ipv4(Frame::from_slice(&bytes), mtu, &mut FramePool::new(200, 2000), &mut out).unwrap();
    (bytes, out)
}

/// An IPv6 fragment behind a destination options header.
fn v6_fragment(id: u32, offset: usize, more: bool, payload: &[u8]) -> Frame {
    let mut inner = vec![44, 0, 1, 4, 0, 0, 0, 0];
    inner.extend_from_slice(&[17, 0]);
    inner.extend_from_slice(&((offset as u16) | u16::from(more)).to_be_bytes());
    inner.extend_from_slice(&id.to_be_bytes());
    inner.extend_from_slice(payload);
    let mut bytes = Vec::new();
    PacketBuilder::ipv6([1; 16], [2; 16], 64).write(&mut bytes, IpNumber(60), &inner).unwrap();
    Frame::from_slice(&bytes)
}

fn reassembler() -> Reassembler {
    Reassembler::new(Limits::default(), 1)
}

#[track_caller]
fn dropped(p: Pushed) -> (DropReason, usize, Option<u32>) {
    match p {
        Pushed::Dropped { reason, also, pointer } => (reason, also, pointer),
        other => panic!("{other:?}"),
    }
}

/// Proves rfc791-3.2-key, rfc8200-4.5-key: pieces that fit in every way, but for one field of the four, are never put together; nor are those
/// of different tables.
#[test]
fn four_fields_tell_datagrams_apart() {
    let piece = |first: bool, change: fn(&mut [u8])| {
        let mut v = vec![0u8; 36];
        v[..10].copy_from_slice(&[
            0x45,
            0,
            0,
            36,
            0xbe,
            0xef,
            if first { 0x20 } else { 0 },
            if first { 0 } else { 2 },
            64,
            17,
        ]);
        v[12..20].copy_from_slice(&[192, 0, 2, 1, 198, 51, 100, 1]);
        v[20..].fill(if first { 1 } else { 2 });
        change(&mut v);
        fill_ipv4_header(&mut v);
        Frame::from_slice(&v)
    };
    let others: [fn(&mut [u8]); 7] =
        [|v| v[4] ^= 1, |v| v[5] ^= 1, |v| v[9] = 1, |v| v[12] ^= 1, |v| v[15] ^= 1, |v| v[16] ^= 1, |v| v[19] ^= 1];
    for other in others {
        for turned in [false, true] {
            let mut r = reassembler();
            assert!(matches!(r.push(T0, &piece(turned, |_| {})), Pushed::Held));
            assert!(matches!(r.push(T0, &piece(!turned, other)), Pushed::Held));
            // The right one still makes it whole, and the stranger stays.
            let Pushed::Complete { frame, merged: 1 } = r.push(T0, &piece(!turned, |_| {})) else {
                panic!("not whole")
            };
            assert_eq!((frame.data()[20..36].to_vec(), frame.data()[36..].to_vec()), (vec![1; 16], vec![2; 16]));
            assert_eq!(r.held(), 1);
        }
    }
    // IPv6: three fields, the protocol is not among them.
    let six = |first: bool, at: Option<usize>| {
        let mut f = v6_fragment(1, if first { 0 } else { 16 }, first, &[if first { 1 } else { 2 }; 16]);
        if let Some(at) = at {
            f.data_mut()[at] ^= 1;
        }
        f
    };
    // First and last byte of the source, of the destination, and of the identification.
    for at in [8, 23, 24, 39, 52, 55] {
        let mut r = reassembler();
        assert!(matches!(r.push(T0, &six(true, None)), Pushed::Held));
        assert!(matches!(r.push(T0, &six(false, Some(at))), Pushed::Held), "byte {at}");
        assert!(matches!(r.push(T0, &six(false, None)), Pushed::Complete { merged: 1, .. }), "byte {at}");
        assert_eq!(r.held(), 1);
    }
    let mut r = reassembler();
    assert!(matches!(r.push_in(T0, TableId(7), &piece(true, |_| {})), Pushed::Held));
    assert!(matches!(r.push_in(T0, TableId(8), &piece(false, |_| {})), Pushed::Held));
    assert!(matches!(r.push_in(T0, TableId(7), &piece(false, |_| {})), Pushed::Complete { .. }));
}

/// Proves rfc5722-4-overlap, rfc5722-4-silent, rfc815-3-overlap, rfc8200-4.5-overlap, rfc8504-5.2-recursion.
#[test]
fn overlaps_discard_the_datagram_for_good() {
    // RFC 5722 4: what is here, what comes, and what still will come.
    let mut r = reassembler();
    assert!(matches!(r.push(T0, &v6_fragment(1, 0, true, &[1; 16])), Pushed::Held));
    assert!(matches!(r.push(T0, &v6_fragment(1, 24, true, &[1; 16])), Pushed::Held));
    assert_eq!(r.held(), 2);
    let overlap = v6_fragment(1, 8, true, &[1; 16]);
    assert_eq!(dropped(r.push(T0, &overlap)), (DropReason::LocalFragment, 2, None));
    assert_eq!((r.held(), r.bytes()), (0, 0));
    let rest = v6_fragment(1, 40, false, &[1; 16]);
    assert_eq!(dropped(r.push(T0, &rest)), (DropReason::LocalFragment, 0, None));
    let mut out = Vec::new();
    r.poll(T0 + Duration::from_secs(60), &mut out);
    assert!(out.is_empty() && r.poll_at().is_none());
}

/// Proves rfc815-3-last.
#[test]
fn contradicting_ends_count_as_overlap() {
    for bad in
        [v6_fragment(1, 8, false, &[1; 8]), v6_fragment(1, 40, true, &[1; 8]), v6_fragment(1, 32, false, &[1; 8])]
    {
        let mut r = reassembler();
        assert!(matches!(r.push(T0, &v6_fragment(1, 16, false, &[1; 8])), Pushed::Held));
        assert_eq!(dropped(r.push(T0, &bad)).1, 1);
    }
    let mut r = reassembler();
    assert!(matches!(r.push(T0, &v6_fragment(1, 16, true, &[1; 8])), Pushed::Held));
    assert_eq!(dropped(r.push(T0, &v6_fragment(1, 8, false, &[1; 8]))).1, 1);
}

/// Proves rfc5722-4-duplicate, rfc815-3-any-order.
#[test]
fn exact_duplicates_are_ignored() {
    let mut r = reassembler();
    let f = v6_fragment(1, 0, true, &[1; 16]);
    assert!(matches!(r.push(T0, &f), Pushed::Held));
    assert_eq!(dropped(r.push(T0, &f)), (DropReason::LocalFragment, 0, None));
    let done = r.push(T0, &v6_fragment(1, 16, false, &[2; 3]));
    let Pushed::Complete { frame, merged } = done else { panic!("{done:?}") };
    assert_eq!((merged, r.held()), (1, 0));
    assert_eq!(frame.data()[40], 17, "the fragment header is gone");
    assert_eq!(usize::from(frame.data()[5]), frame.len() - 40);
}

/// Proves rfc4443-3.4-code-0, rfc8200-4.5-multiple, rfc8200-4.5-65535.
#[test]
fn rfc_8200_section_4_5_refusals_point_at_the_field() {
    let mut r = reassembler();
    assert_eq!(dropped(r.push(T0, &v6_fragment(1, 0, true, &[1; 15]))).2, Some(4));
    assert_eq!(dropped(r.push(T0, &v6_fragment(1, 0xfff8, true, &[1; 16]))).2, Some(50));
    assert_eq!(dropped(r.push(T0, &v6_fragment(1, 8, true, &[]))).2, None);
    assert_eq!((r.held(), r.poll_at()), (0, None));
}

/// Proves rfc8200-4.5-first, rfc8200-4.5-key: of what differs between fragments, the first one's counts; other addresses,
/// another datagram.
#[test]
fn the_first_fragment_says_what_it_is() {
    let mut r = reassembler();
    let mut later = v6_fragment(1, 16, false, &[2; 3]);
    (later.data_mut()[7], later.data_mut()[48]) = (9, 99);
    let mut strange = v6_fragment(1, 0, true, &[7; 16]);
    strange.data_mut()[23] ^= 1;
    for f in [&later, &strange] {
        assert!(matches!(r.push(T0, f), Pushed::Held));
    }
    let done = r.push(T0, &v6_fragment(1, 0, true, &[1; 16]));
    let Pushed::Complete { frame, merged } = done else { panic!("{done:?}") };
    assert_eq!((merged, r.held(), frame.data()[7], frame.data()[40]), (1, 1, 64, 17));
    assert_eq!(frame.data()[48..], [&[1; 16][..], &[2; 3]].concat());
}

/// Proves rfc6946-4-atomic, rfc8200-4.5-atomic, rfc8504-5.2-recursion.
#[test]
fn atomic_fragments_stand_alone() {
    // RFC 6946 4.
    let mut r = reassembler();
    assert!(matches!(r.push(T0, &v6_fragment(1, 0, true, &[1; 16])), Pushed::Held));
    let done = r.push(T0, &v6_fragment(1, 0, false, &[9; 5]));
    assert!(matches!(done, Pushed::Complete { merged: 0, .. }));
    assert_eq!(r.held(), 1);
}

/// Proves rfc1122-3.3.2-time, rfc4443-3.3-reassembly, rfc792-time, rfc815-7-timer, rfc8200-4.5-60.
#[test]
fn late_datagrams_expire_with_their_first_fragment() {
    let mut r = reassembler();
    let (_, f) = v4_fragments(&[3; 300], 100);
    assert!(matches!(r.push(T0, &f[1]), Pushed::Held));
    assert!(matches!(r.push(T0 + Duration::from_secs(20), &f[0]), Pushed::Held));
    let second = T0 + Duration::from_secs(1);
    assert!(matches!(r.push(second, &v6_fragment(1, 8, true, &[1; 16])), Pushed::Held));
    let mut out = Vec::new();
    assert_eq!(r.poll_at(), Some(T0 + Duration::from_secs(60)));
    r.poll(T0 + Duration::from_secs(59), &mut out);
    assert!(out.is_empty());
    r.poll(T0 + Duration::from_secs(60), &mut out);
    assert_eq!((out.len(), out[0].fragments), (1, 2));
    assert_eq!(out[0].first.as_ref().unwrap().data(), f[0].data());
    r.poll(T0 + Duration::from_secs(61), &mut out);
    assert!(out.len() == 2 && out[1].first.is_none());
    assert_eq!((r.held(), r.bytes()), (0, 0));
}

#[test]
fn limits_hold_and_the_oldest_makes_room() {
    let limits = Limits { datagrams: 2, fragments: 3, bytes: 500, ..Limits::default() };
    let mut r = Reassembler::new(limits, 1);
    let at = |s| T0 + Duration::from_secs(s);
    let held = |r: &mut Reassembler, s, id, offset, len: usize| {
        assert!(matches!(r.push(at(s), &v6_fragment(id, offset, true, &vec![1; len])), Pushed::Held), "{id} {offset}");
        r.take_evicted()
    };
    assert_eq!(held(&mut r, 0, 1, 8, 16) + held(&mut r, 0, 1, 24, 16) + held(&mut r, 1, 2, 8, 16), 0);
    // One datagram too many: the oldest goes with all it has.
    assert_eq!((held(&mut r, 2, 3, 8, 16), r.held()), (2, 2));
    // One's own limits are nobody else's fault.
    assert_eq!(held(&mut r, 3, 2, 24, 16) + held(&mut r, 3, 2, 40, 16), 0);
    assert_eq!(dropped(r.push(at(3), &v6_fragment(2, 56, true, &[1; 16]))).0, DropReason::HeldLimit);
    assert_eq!(dropped(r.push(at(3), &v6_fragment(3, 56, true, &[1; 480]))).0, DropReason::HeldLimit);
    assert_eq!((r.take_evicted(), r.held()), (0, 4));
    // Too many bytes in all.
    assert_eq!((held(&mut r, 4, 3, 56, 240), r.held()), (3, 2));
    assert!(r.bytes() <= 500);
}

#[test]
fn a_flood_does_not_shut_others_out() {
    // Ten thousand first fragments that nothing follows, and an honest datagram in between.
    let mut r = reassembler();
    let mut evicted = 0;
    for id in 0..10_000 {
        assert!(matches!(r.push(T0, &v6_fragment(id, 0, true, &[1; 16])), Pushed::Held));
        evicted += r.take_evicted();
    }
    assert_eq!((r.held(), evicted), (256, 10_000 - 256));
    let (whole, fragments) = v4_fragments(&[3; 3000], 1500);
    let mut done = None;
    for f in &fragments {
        if let Pushed::Complete { frame, .. } = r.push(T0 + Duration::from_secs(1), f) {
            done = Some(frame);
        }
    }
    assert_eq!(done.unwrap().data(), &whole[..]);
}

/// Proves rfc3168-5.3-reassembly.
#[test]
fn congestion_marks_survive_or_kill() {
    // RFC 3168 5.3.
    for (a, b, want) in [(2u8, 3u8, Some(3u8)), (3, 3, Some(3)), (2, 2, Some(2)), (0, 3, None)] {
        let (_, mut f) = v4_fragments(&[3; 100], 100);
        f[0].data_mut()[1] = a;
        f[1].data_mut()[1] = b;
        let mut r = reassembler();
        r.push(T0, &f[0]);
        match r.push(T0, &f[1]) {
            Pushed::Complete { frame, .. } => assert_eq!(Some(frame.data()[1]), want),
            other => assert_eq!((dropped(other).1, want), (1, None)),
        }
        assert_eq!(r.held(), 0);
    }
}

proptest! {
    /// Proves rfc791-3.2-reassembly, rfc815-3-any-order.
    #[test]
    fn shuffled_fragments_give_the_original(
        (payload, mtu, order) in (proptest::collection::vec(any::<u8>(), 1..5000), 68u32..1500).prop_flat_map(|(p, mtu)| {
            let n = v4_fragments(&p, mtu).1.len();
            (Just(p), Just(mtu), Just((0..n).collect::<Vec<_>>()).prop_shuffle())
        }),
    ) {
        let (whole, fragments) = v4_fragments(&payload, mtu);
        let limits = Limits { fragments: 1000, ..Limits::default() };
        let mut r = Reassembler::new(limits, 1);
        let mut result = None;
        for (n, i) in order.iter().enumerate() {
            match r.push(T0, &fragments[*i]) {
                Pushed::Held => prop_assert_eq!(r.held(), n + 1),
                Pushed::Whole => result = Some(fragments[*i].clone()),
                Pushed::Complete { frame, merged } => {
                    prop_assert_eq!(merged, n);
                    result = Some(frame);
                }
                Pushed::Dropped { reason, .. } => prop_assert!(false, "{reason}"),
            }
        }
        let frame = result.unwrap();
        prop_assert_eq!(frame.data(), &whole[..]);
        prop_assert!(verify_ipv4_header(frame.data()));
        prop_assert_eq!((r.held(), r.bytes(), r.poll_at()), (0, 0, None));
    }

    #[test]
    fn random_fragments_are_all_accounted_for(
        pushes in proptest::collection::vec((0u32..3, 0usize..12, 0usize..40, any::<bool>(), any::<bool>(), any::<(u8, u8)>()), 0..60),
    ) {
        let mut r = Reassembler::new(Limits { datagrams: 2, fragments: 4, bytes: 1000, ..Limits::default() }, 1);
        let (mut entered, mut ended) = (0, 0);
        let mut now = T0;
        for (id, at, len, more, mutate, (place, value)) in pushes {
            let mut f = v6_fragment(id, at * 8, more, &vec![7; len]);
            if mutate {
                let place = usize::from(place) % f.len();
                f.data_mut()[place] = value;
            }
            now = now + Duration::from_secs(5);
            entered += 1;
            match r.push(now, &f) {
                Pushed::Held => {}
                Pushed::Whole => ended += 1,
                Pushed::Complete { merged, .. } => ended += merged + 1,
                Pushed::Dropped { also, .. } => ended += also + 1,
            }
            ended += r.take_evicted();
            let mut out = Vec::new();
            r.poll(now, &mut out);
            ended += out.iter().map(|e| e.fragments).sum::<usize>();
            prop_assert_eq!(entered, ended + r.held());
            prop_assert!(r.bytes() <= 1000 && r.datagrams.len() <= 2);
        }
    }
}
