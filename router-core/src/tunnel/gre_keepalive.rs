//! GRE keepalives, as Cisco's routers have them: a question carries its own answer.
//!
//! The prober sends through the tunnel a packet that is addressed back to itself: an IP header from the peer to the prober, and a GRE
//! header whose protocol type is zero and which nothing follows. The peer takes the outer headers off and forwards what is inside like any packet; it needs
//! to know nothing, but must not mind a packet from its own address that came in. What arrives at the prober is GRE from the peer with protocol type
//! zero: the answer. Here the IPv4 identification, or the IPv6 flow label, carries the number of the question.

use super::gate::{Gate, TunnelState};
use super::gre;
use super::spec::GreOptions;
use crate::addr::Family;
use crate::drop_reason::DropReason;
use crate::headers::{be16, ipv4, protocol};
use crate::packet::Packet;
use crate::time::Instant;
use std::net::IpAddr;

/// Traffic class of questions: network control (RFC 2474 4.2.2.2).
const TCLASS: u8 = 0xc0;
/// The answer may have a long way.
const TTL: u8 = 255;

/// The question with number `seq`, without the outer header: what the peer is to send back. None for ends of two families.
pub fn question(local: IpAddr, remote: IpAddr, options: &GreOptions, seq: u16) -> Option<Vec<u8>> {
    let gre = gre::nothing(options.ikey);
    let mut packet = match (local, remote) {
        (IpAddr::V4(us), IpAddr::V4(peer)) => {
            let mut header = vec![0; 20];
            let total_len = (20 + gre.len()) as u16;
            ipv4::Header {
                tos: TCLASS,
                total_len,
                ident: seq,
                df: true,
                ttl: TTL,
                proto: protocol::GRE,
                src: peer,
                dst: us,
            }
            .write(&mut header);
            header
        }
        (IpAddr::V6(us), IpAddr::V6(peer)) => {
            let mut header = vec![0x60 | TCLASS >> 4, TCLASS << 4, 0, 0, 0, gre.len() as u8, protocol::GRE, TTL];
            header[2..4].copy_from_slice(&seq.to_be_bytes());
            header.extend(peer.octets());
            header.extend(us.octets());
            header
        }
        _ => return None,
    };
    packet.extend(gre);
    Some(packet)
}

/// Whether a packet from a tunnel's peer answers a question of ours; `outer` is whole.
pub fn is_answer(gate: &Gate, outer: &Packet, data: &[u8]) -> bool {
    let asks = gate.gre.filter(|_| gate.gre_asks);
    asks.is_some_and(|o| gre::is_nothing(outer.transport(data), o.ikey))
}

/// Which question is answered.
pub fn number(outer: &Packet, data: &[u8]) -> u16 {
    match outer.family {
        Family::Inet => be16(data, 4),
        Family::Inet6 => be16(data, 2),
    }
}

/// Whether what is inside is as short as a question, and GRE: hardly any packet is.
pub fn may_be_question(family: Family, inner: &[u8]) -> bool {
    let proto = if family == Family::Inet { 9 } else { 6 };
    inner.len() <= 64 && inner.get(proto) == Some(&protocol::GRE)
}

/// Where in a packet from a tunnel's peer its question begins, which is to be sent back as it is: a packet from our end to the peer's,
/// GRE with nothing inside. None: it is no question.
///
/// # Errors
/// [`DropReason::OwnSource`] where questions are not answered, and what else may be wrong with the packet around it.
pub fn find_question(
    gate: &Gate,
    outer: &Packet,
    data: &[u8],
    now: Instant,
    state: &TunnelState,
) -> Option<Result<usize, DropReason>> {
    let options = gate.gre?;
    let body = outer.transport(data);
    let (family, at) = gre::peek(body, &options)?;
    let inner = body.get(at..)?;
    if !may_be_question(family, inner) || family != outer.family {
        return None;
    }
    let p = Packet::parse(family, inner).ok()?;
    let ours = p.src == outer.dst && p.dst == outer.src && p.proto == protocol::GRE;
    if !ours || !gre::is_nothing(p.transport(inner), options.okey) {
        return None;
    }
    if !options.answer {
        return Some(Err(DropReason::OwnSource));
    }
    // Everything else that is agreed upon holds for questions, too.
    Some(match gre::read(body, &options, state) {
        Ok(_) if gate.is_within_rate(now, state) => Ok(usize::from(outer.l4) + at),
        Ok(_) => Err(DropReason::TunnelRate),
        Err(reason) => Err(reason),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::spec::{Keepalive, TunnelMode, TunnelSpec};
    use std::sync::Arc;

    fn gate(local: &str, remote: &str, options: GreOptions, asks: bool) -> Gate {
        let (local, remote): (IpAddr, IpAddr) = (local.parse().unwrap(), remote.parse().unwrap());
        let mode = if local.is_ipv4() { TunnelMode::Gre } else { TunnelMode::GreSix };
        let mut spec = TunnelSpec::new("g", mode, local, remote);
        spec.options.gre = options;
        spec.options.keepalive = asks.then_some(Keepalive {
            target: remote,
            interval: 1000,
            retries: 3,
            hold: 3,
            gre: true,
            probe_mtu: false,
        });
        Gate::new(&spec, Arc::default(), None, asks)
    }

    /// The question with an outer header around it, as the prober's tunnel makes it.
    fn wrapped(local: &str, remote: &str, o: &GreOptions, seq: u16) -> Vec<u8> {
        let (local, remote): (IpAddr, IpAddr) = (local.parse().unwrap(), remote.parse().unwrap());
        let inner = question(local, remote, o, seq).unwrap();
        let mut gre = vec![0; o.sent_len() as usize];
        gre.extend(&inner);
        crate::tunnel::gre::write(&mut gre, o, Family::of(&local), 0).unwrap();
        // Outer: the question's own header, the other way round.
        let mut v = question(remote, local, &GreOptions::default(), 0).unwrap();
        v.truncate(v.len() - 4);
        let header = v.len();
        v.extend(&gre);
        if local.is_ipv4() {
            let total = (v.len() as u16).to_be_bytes();
            v[2..4].copy_from_slice(&total);
            v[10..12].fill(0);
            let sum = crate::checksum::checksum(&v[..20]).to_be_bytes();
            v[10..12].copy_from_slice(&sum);
        } else {
            let len = ((v.len() - header) as u16).to_be_bytes();
            v[4..6].copy_from_slice(&len);
        }
        v
    }

    fn parse(v: &[u8]) -> Packet {
        Packet::parse(Packet::sniff(v).unwrap(), v).unwrap()
    }

    #[test]
    fn a_question_is_found_and_what_is_inside_is_the_answer() {
        for (us, peer) in [("192.0.2.1", "198.51.100.2"), ("2001:db8::1", "2001:db8::2")] {
            for key in [None, Some(7)] {
                let o = GreOptions { ikey: key, okey: key, answer: true, ..GreOptions::default() };
                let (prober, responder) = (gate(us, peer, o, true), gate(peer, us, o, false));
                let v = wrapped(us, peer, &o, 4711);
                let p = parse(&v);
                let state = TunnelState::default();
                let at = find_question(&responder, &p, &v, Instant::ZERO, &state).unwrap().unwrap();
                let answer = &v[at..];
                let a = parse(answer);
                assert_eq!((a.src.to_string(), a.dst.to_string()), (peer.to_owned(), us.to_owned()));
                assert!(is_answer(&prober, &a, answer) && number(&a, answer) == 4711);
                // Who does not ask hears no answers, who does not answer finds no questions.
                assert!(!is_answer(&responder, &a, answer));
                let quiet = gate(peer, us, GreOptions { answer: false, ..o }, false);
                assert_eq!(find_question(&quiet, &p, &v, Instant::ZERO, &state), Some(Err(DropReason::OwnSource)));
            }
        }
    }

    #[test]
    fn other_packets_are_no_questions() {
        let o = GreOptions { answer: true, ..GreOptions::default() };
        let responder = gate("198.51.100.2", "192.0.2.1", o, false);
        let state = TunnelState::default();
        let find = |v: &[u8]| find_question(&responder, &parse(v), v, Instant::ZERO, &state);
        let good = wrapped("192.0.2.1", "198.51.100.2", &o, 1);
        assert_eq!(find(&good), Some(Ok(24)));
        // Back to a third party, from another source, something inside, another key, another protocol.
        for (at, what) in [(24 + 19, 9u8), (24 + 15, 9), (24 + 22, 8), (24 + 20, 0x20), (24 + 9, 17)] {
            let mut v = good.clone();
            v[at] = what;
            v[24 + 10..24 + 12].fill(0);
            let sum = crate::checksum::checksum(&v[24..44]).to_be_bytes();
            v[24 + 10..24 + 12].copy_from_slice(&sum);
            assert_eq!(find(&v), None, "{at}");
        }
        let keyed = wrapped("192.0.2.1", "198.51.100.2", &GreOptions { ikey: Some(1), okey: Some(1), ..o }, 1);
        assert_eq!(find(&keyed), None);
    }
}
