//! What comes from anybody in the network to programs beside the router, or in files: the broker's protocols, WireGuard,
//! datagrams of `udp` ports, captures.

use super::Input;
use router_cli::strangers;
use router_io::port::pcap_file::{Reader, Writer};
use router_io::port::wireguard::rehearsal::Rehearsal;

/// The tunnel set-up protocol, HTTP headers and bodies: the first byte says which.
pub(super) fn broker(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    match first & 3 {
        // Pieces end at 0xff, which no text has.
        0 => strangers::tsp(rest.split(|b| *b == 0xff)),
        1 => strangers::tsp_datagram(rest),
        2 => strangers::credentials(rest),
        _ => strangers::http(rest),
    }
}

/// Two ends of WireGuard: packets, datagrams that arrive, are lost, come again or are spoilt, and some of the input's.
pub(super) fn wireguard(data: &[u8]) {
    let mut input = Input(data);
    let mut r = Rehearsal::default();
    // A session, so that data messages are not out of the question.
    if input.byte().is_some_and(|b| b & 1 == 1) {
        r.packet(0, &packet(0, b""));
        (0..4).for_each(|n| r.deliver(n ^ 1));
    }
    while let Some(head) = input.byte() {
        let end = usize::from(head >> 3 & 1);
        match head & 7 {
            0 | 1 => {
                let len = usize::from(input.byte().unwrap_or(0));
                let bytes = input.piece(len);
                let whole = head & 1 == 1;
                r.packet(end, &if whole { packet(end, bytes) } else { bytes.to_vec() });
            }
            2 => {
                let len = usize::from(input.byte().unwrap_or(0));
                r.datagram(end, head & 16 == 16, input.piece(len));
            }
            3 | 4 => r.deliver(end),
            5 | 6 => {
                let (which, at) = (input.byte().unwrap_or(0), input.byte().unwrap_or(0));
                let with = if head & 32 == 32 { input.byte().unwrap_or(0) } else { 0 };
                r.again(end, which.into(), at.into(), with);
            }
            _ => r.pass(u64::from(head >> 3) * 500),
        }
    }
}

/// An IPv4 packet from behind an end to behind the other.
fn packet(end: usize, payload: &[u8]) -> Vec<u8> {
    let n = end as u8;
    let (src, dst) = ([10, 0, n, 2].into(), [10, 0, n ^ 1, 2].into());
    crate::sim::packets::ip(src, dst, 253, 64, false, payload)
}

/// Outer headers as a `udp` port reads and writes them.
pub(super) fn udp(data: &[u8]) {
    router_io::port::udp::rehearse(data);
}

/// A capture file: what was read of it means the same when it is written and read again.
pub(super) fn pcap(data: &[u8]) {
    let Ok(mut reader) = Reader::new(data) else { return };
    let medium = reader.medium();
    let mut packets = Vec::new();
    let mut packet = Vec::new();
    while let Ok(Some(at)) = reader.next(&mut packet) {
        packets.push((at, packet.clone()));
    }
    let mut bytes = Vec::new();
    {
        let mut writer = Writer::new(&mut bytes, medium).expect("memory takes it");
        for (at, packet) in &packets {
            writer.write(*at, packet).expect("memory takes it");
        }
        writer.flush().expect("memory takes it");
    }
    let mut again = Reader::new(&bytes[..]).expect("what was written can be read");
    assert_eq!(again.medium(), medium);
    for (at, expected) in packets {
        let got = again.next(&mut packet).expect("what was written can be read");
        assert_eq!((got.is_some(), &packet), (true, &expected), "at {at:?}");
    }
}
