//! NAT64 against a slow model: every packet is put to both, the model searches lists and knows no table, index or mark.

use super::*;
use crate::time::Instant;
use crate::translate::spec::{Filtering, Timeouts, TranslateMode, TranslatorSpec};
use crate::translate::{Clock, Look};
use proptest::prelude::*;
use std::collections::BTreeSet;
use tcp::{Side, Timer};

/// Lifetimes that never end at a multiple of ten seconds, when packets come: marks have whole seconds only.
const TIMES: Timeouts =
    Timeouts { udp: 303, tcp_established: 7443, tcp_transitory: 243, tcp_incoming_syn: 6, icmp: 63 };

fn spec(filtering: Filtering, ports: &str) -> TranslatorSpec {
    let mut s = TranslatorSpec::new("n", TranslateMode::Nat64);
    s.prefix = Some("2001:db8:64::/96".parse().unwrap());
    s.pool = vec![format!("192.0.2.1-192.0.2.2 ports {ports}").parse().unwrap()];
    s.filtering = filtering;
    s.timeouts = TIMES;
    s.max_sessions = 64;
    s.max_sessions_per_host = 24;
    s.check(false).unwrap();
    s
}

fn host(n: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, u16::from(n) + 1)
}

fn peer(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, n + 1)
}

fn at(seconds: u64) -> Instant {
    Instant::from_millis(seconds * 1000)
}

fn look(now: Instant, flags: u8) -> Look {
    Look { clock: Clock { now, marks: true }, deciding: true, tcp_flags: flags, hairpin: false }
}

/// What a worker does with a packet from the IPv6 side, and the control side where it asks.
fn out(nat: &mut Nat64, now: Instant, e: &Ends6, flags: u8) -> Result<Ends4, DropReason> {
    let mut l = look(now, flags);
    match nat.map().to_v4(e, l) {
        Ok(new) => Ok(new),
        Err(Refusal::Drop(reason)) => Err(reason),
        Err(Refusal::Consult) => {
            nat.outbound(now, e, flags)?;
            l.deciding = false;
            nat.map().to_v4(e, l).map_err(|why| panic!("{why:?} after yes"))
        }
    }
}

fn inn(nat: &mut Nat64, now: Instant, e: &Ends4, flags: u8) -> Result<Ends6, DropReason> {
    let mut l = look(now, flags);
    match nat.map().to_v6(e, l) {
        Ok(new) => Ok(new),
        Err(Refusal::Drop(reason)) => Err(reason),
        Err(Refusal::Consult) => {
            nat.inbound(now, e, flags)?;
            l.deciding = false;
            nat.map().to_v6(e, l).map_err(|why| panic!("{why:?} after yes"))
        }
    }
}

#[derive(Clone, Debug)]
struct ModelSession {
    proto: u8,
    host: (Ipv6Addr, u16),
    mapped: (Ipv4Addr, u16),
    peer: (Ipv4Addr, u16),
    tcp: Option<TcpState>,
    until: u64,
}

#[derive(Default)]
struct Model {
    sessions: Vec<ModelSession>,
    address_dependent: bool,
    probes: usize,
}

fn lifetime(proto: u8, tcp: Option<TcpState>) -> u64 {
    u64::from(match (proto, tcp) {
        (17, _) => TIMES.udp,
        (1, _) => TIMES.icmp,
        (_, Some(TcpState::V4Init)) => TIMES.tcp_incoming_syn,
        (_, Some(TcpState::Established | TcpState::V4Fin | TcpState::V6Fin)) => TIMES.tcp_established,
        _ => TIMES.tcp_transitory,
    })
}

impl Model {
    fn expire(&mut self, now: u64) {
        for s in &mut self.sessions {
            if s.until <= now && s.tcp == Some(TcpState::Established) {
                s.tcp = Some(TcpState::Trans);
                s.until = now + u64::from(TIMES.tcp_transitory);
                self.probes += 1;
            }
        }
        self.sessions.retain(|s| s.until > now);
    }

    fn go_on(s: &mut ModelSession, now: u64, side: Side, flags: u8) {
        match s.tcp {
            None => s.until = now + lifetime(s.proto, None),
            Some(state) => {
                let (next, timer) = state.after(side, flags);
                s.tcp = Some(next);
                match timer {
                    Timer::Keep => {}
                    Timer::Transitory => s.until = now + u64::from(TIMES.tcp_transitory),
                    Timer::Established => s.until = now + u64::from(TIMES.tcp_established),
                }
            }
        }
    }

    fn mapped(&self, proto: u8, host: (Ipv6Addr, u16)) -> Option<(Ipv4Addr, u16)> {
        self.sessions.iter().find(|s| s.proto == proto && s.host == host).map(|s| s.mapped)
    }

    fn full(&self, host: Ipv6Addr) -> bool {
        self.sessions.len() >= 64 || self.sessions.iter().filter(|s| s.host.0 == host).count() >= 24
    }

    /// Whether the packet gets through; `mapped` is what the real one has chosen, believed where a binding is new.
    fn out(&mut self, now: u64, e: &Ends6Out, flags: u8, mapped: Option<(Ipv4Addr, u16)>) -> Result<(), DropReason> {
        let host = (e.host, e.port);
        let peer = (e.peer, e.key().peer_port);
        if let Some(s) = self.sessions.iter_mut().find(|s| s.proto == e.proto && s.host == host && s.peer == peer) {
            Self::go_on(s, now, Side::V6, flags);
            return Ok(());
        }
        let known = self.mapped(e.proto, host);
        let tcp = match e.proto {
            6 if flags & 2 != 0 => Some(TcpState::V6Init),
            6 if known.is_some() => Some(TcpState::Trans),
            6 => return Err(DropReason::TranslateNoSession),
            _ => None,
        };
        if self.full(e.host) {
            return Err(DropReason::TranslateTableFull);
        }
        let Some(mapped) = known.or(mapped) else { return Err(DropReason::TranslatePoolEmpty) };
        let until = now + lifetime(e.proto, tcp);
        self.sessions.push(ModelSession { proto: e.proto, host, mapped, peer, tcp, until });
        Ok(())
    }

    fn inn(&mut self, now: u64, e: &Ends4, flags: u8) -> Result<(Ipv6Addr, u16), DropReason> {
        let mapped = (e.dst, e.dport);
        let peer = (e.src, if e.proto == 1 { 0 } else { e.sport });
        if let Some(s) = self.sessions.iter_mut().find(|s| s.proto == e.proto && s.mapped == mapped && s.peer == peer) {
            Self::go_on(s, now, Side::V4, flags);
            return Ok(s.host);
        }
        let bound = self.sessions.iter().find(|s| s.proto == e.proto && s.mapped == mapped);
        let Some(host) = bound.map(|s| s.host) else { return Err(DropReason::TranslateNoSession) };
        let known = self.sessions.iter().any(|s| s.proto == e.proto && s.mapped == mapped && s.peer.0 == e.src);
        if self.address_dependent && !known {
            return Err(DropReason::TranslateFiltered);
        }
        if self.full(host.0) {
            return Err(DropReason::TranslateTableFull);
        }
        let tcp = match e.proto {
            6 if flags & 2 != 0 => Some(TcpState::V4Init),
            6 => Some(TcpState::Trans),
            _ => None,
        };
        let until = now + lifetime(e.proto, tcp);
        self.sessions.push(ModelSession { proto: e.proto, host, mapped, peer, tcp, until });
        Ok(host)
    }
}

#[derive(Clone, Debug)]
enum Event {
    Out {
        proto: u8,
        host: u8,
        port: u16,
        peer: u8,
        peer_port: u16,
        flags: u8,
    },
    /// To the mapping of the n-th session, or to a port that nobody may have.
    In {
        proto: u8,
        nth: usize,
        peer: u8,
        peer_port: u16,
        flags: u8,
    },
    Wait(u64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let proto = || prop::sample::select(vec![6u8, 17, 1]);
    let flags = || prop::sample::select(vec![0u8, 0x02, 0x12, 0x10, 0x10, 0x11, 0x04]);
    let event = prop_oneof![
        5 => (proto(), 0u8..4, 0u16..4, 0u8..3, 80u16..83, flags())
            .prop_map(|(proto, host, port, peer, peer_port, flags)| Event::Out { proto, host, port: 4000 + port, peer, peer_port, flags }),
        4 => (proto(), 0usize..40, 0u8..4, 80u16..83, flags())
            .prop_map(|(proto, nth, peer, peer_port, flags)| Event::In { proto, nth, peer, peer_port, flags }),
        1 => prop::sample::select(vec![10u64, 60, 70, 240, 250, 300, 310, 7440, 7450]).prop_map(Event::Wait),
    ];
    prop::collection::vec(event, 1..200)
}

proptest! {
    #[test]
    fn behaves_as_the_model(events in events(), dependent in any::<bool>(), seed in any::<u64>(), few in any::<bool>()) {
        let filtering = if dependent { Filtering::AddressDependent } else { Filtering::EndpointIndependent };
        let mut nat = Nat64::new(&spec(filtering, if few { "5000-5002" } else { "1024-65535" }), seed).unwrap();
        let mut model = Model { address_dependent: dependent, ..Model::default() };
        let prefix: Prefix = "2001:db8:64::/96".parse().unwrap();
        let (mut now, mut probes) = (10, Vec::new());
        for event in events {
            match event {
                Event::Wait(seconds) => {
                    now += seconds;
                    while nat.poll_at().is_some_and(|t| t <= at(now)) {
                        nat.poll(at(now), &mut probes);
                    }
                    model.expire(now);
                    prop_assert_eq!(probes.len(), model.probes);
                }
                Event::Out { proto, host: h, port, peer: p, peer_port, flags } => {
                    let flags = if proto == 6 { flags } else { 0 };
                    let peer_port = if proto == 1 { port } else { peer_port };
                    let e = Ends6 { src: host(h), dst: prefix.embed(peer(p)), sport: port, dport: peer_port, proto };
                    let new = out(&mut nat, at(now), &e, flags);
                    let key = Ends6Out { host: e.src, port, peer: peer(p), peer_port, proto };
                    let want = model.out(now, &key, flags, new.ok().map(|n| (n.src, n.sport)));
                    prop_assert_eq!(new.map(|_| ()), want);
                    if let Ok(n) = new {
                        // Endpoint-independent: one mapping for all peers (RFC 4787 REQ-1).
                        prop_assert_eq!(Some((n.src, n.sport)), model.mapped(proto, (e.src, port)));
                        prop_assert_eq!((n.dst, n.dport), (peer(p), if proto == 1 { n.sport } else { peer_port }));
                    }
                }
                Event::In { proto, nth, peer: p, peer_port, flags } => {
                    let flags = if proto == 6 { flags } else { 0 };
                    let some = model.sessions.iter().filter(|s| s.proto == proto).nth(nth % 8);
                    let (dst, dport) = some.map_or(("192.0.2.1".parse().unwrap(), 999), |s| s.mapped);
                    let e = Ends4 { src: peer(p), dst, sport: if proto == 1 { dport } else { peer_port }, dport, proto };
                    let new = inn(&mut nat, at(now), &e, flags);
                    let want = model.inn(now, &e, flags);
                    prop_assert_eq!(new.map(|n| (n.dst, n.dport)), want);
                    if let Ok(n) = new {
                        prop_assert_eq!(n.src, prefix.embed(e.src));
                    }
                }
            }
            // No two bindings share a mapping; counts agree.
            let bindings: BTreeSet<_> = model.sessions.iter().map(|s| (s.proto, s.host, s.mapped)).collect();
            let mapped: BTreeSet<_> = bindings.iter().map(|(p, _, m)| (*p, *m)).collect();
            prop_assert_eq!(bindings.len(), mapped.len());
            let stats = nat.stats();
            prop_assert_eq!((stats.sessions, stats.bindings), (model.sessions.len() as u64, bindings.len() as u64));
            prop_assert_eq!(stats.ports_in_use.iter().sum::<u32>() as usize, mapped.len());
            let mut have: Vec<_> = nat.sessions(at(now), 1000).into_iter().map(|s| (s.proto, s.host, s.host_port, s.mapped, s.mapped_port, s.peer, s.peer_port, s.state.map(|t| t.to_string()))).collect();
            let mut want: Vec<_> = model.sessions.iter().map(|s| (s.proto, s.host.0, s.host.1, s.mapped.0, s.mapped.1, s.peer.0, s.peer.1, s.tcp.map(|t| t.to_string()))).collect();
            have.sort();
            want.sort();
            prop_assert_eq!(have, want);
        }
    }
}

/// Proves rfc6146-3.5-none.
#[test]
fn rfc6146_3_5_what_never_gets_a_session() {
    let mut nat = Nat64::new(&spec(Filtering::EndpointIndependent, "1024-65535"), 1).unwrap();
    let prefix: Prefix = "2001:db8:64::/96".parse().unwrap();
    let good = Ends6 { src: host(0), dst: prefix.embed(peer(0)), sport: 4000, dport: 80, proto: 17 };
    let rows = [
        ("a source inside the prefix", Ends6 { src: prefix.embed(peer(1)), ..good }, DropReason::TranslateSource),
        ("a destination outside the prefix", Ends6 { dst: host(1), ..good }, DropReason::TranslateDestination),
        ("a protocol without ports", Ends6 { proto: 47, ..good }, DropReason::TranslateProtocol),
        ("TCP that does not begin", Ends6 { proto: 6, ..good }, DropReason::TranslateNoSession),
    ];
    for (what, e, reason) in rows {
        assert_eq!(out(&mut nat, at(10), &e, 0x10), Err(reason), "{what}");
    }
    let back = Ends4 { src: peer(0), dst: "192.0.2.1".parse().unwrap(), sport: 80, dport: 4000, proto: 17 };
    assert_eq!(inn(&mut nat, at(10), &back, 0), Err(DropReason::TranslateNoSession));
    let foreign = Ends4 { dst: "192.0.2.9".parse().unwrap(), ..back };
    assert_eq!(inn(&mut nat, at(10), &foreign, 0), Err(DropReason::TranslateDestination));
    assert_eq!(nat.stats().sessions, 0);
}

#[test]
fn rfc6146_3_6_1_errors_find_their_session_and_keep_none_alive() {
    let mut nat = Nat64::new(&spec(Filtering::EndpointIndependent, "1024-65535"), 1).unwrap();
    let prefix: Prefix = "2001:db8:64::/96".parse().unwrap();
    let e = Ends6 { src: host(0), dst: prefix.embed(peer(0)), sport: 4000, dport: 80, proto: 17 };
    let sent = out(&mut nat, at(10), &e, 0).unwrap();
    // From a router on the IPv4 side about the packet that was sent.
    let outer = Ends4 { src: "198.51.100.1".parse().unwrap(), dst: sent.src, sport: 0, dport: 0, proto: 1 };
    let (new, inner) = nat.map().error_to_v6(&outer, &sent).unwrap();
    assert_eq!((new.src, new.dst), (prefix.embed(outer.src), host(0)));
    assert_eq!(inner, e);
    // From a router on the IPv6 side about an answer: it leaves from the mapped address.
    let answer = e.reversed();
    let outer = Ends6 { src: "2001:db8:9::1".parse().unwrap(), dst: answer.src, sport: 0, dport: 0, proto: 1 };
    let (new, inner) = nat.map().error_to_v4(&outer, &answer).unwrap();
    assert_eq!((new.src, new.dst), (sent.src, peer(0)));
    assert_eq!(inner, sent.reversed());
    // About a packet that was never sent.
    let never = Ends4 { sport: sent.sport ^ 1, ..sent };
    let outer = Ends4 { src: peer(0), dst: sent.src, sport: 0, dport: 0, proto: 1 };
    assert!(nat.map().error_to_v6(&outer, &never).is_err());
    let mut probes = Vec::new();
    for s in [200, 314] {
        let _ = nat.map().error_to_v6(&outer, &sent);
        nat.poll(at(s), &mut probes);
    }
    assert_eq!(nat.stats().sessions, 0);
}

#[test]
fn hairpin_both_hosts_behind_it() {
    let mut nat = Nat64::new(&spec(Filtering::EndpointIndependent, "1024-65535"), 1).unwrap();
    let prefix: Prefix = "2001:db8:64::/96".parse().unwrap();
    let b = Ends6 { src: host(1), dst: prefix.embed(peer(0)), sport: 53, dport: 9, proto: 17 };
    let b4 = out(&mut nat, at(10), &b, 0).unwrap();
    // RFC 6146 3.8: A sends to B's mapped address; B sees A's mapped address behind the prefix.
    let a = Ends6 { src: host(0), dst: prefix.embed(b4.src), sport: 4000, dport: b4.sport, proto: 17 };
    let a4 = out(&mut nat, at(10), &a, 0).unwrap();
    let seen = inn(&mut nat, at(10), &a4, 0).unwrap();
    assert_eq!((seen.src, seen.dst, seen.dport), (prefix.embed(a4.src), host(1), 53));
    let answer = out(&mut nat, at(10), &seen.reversed(), 0).unwrap();
    let back = inn(&mut nat, at(10), &answer, 0).unwrap();
    assert_eq!((back.src, back.dst, back.dport), (a.dst, host(0), 4000));
}

#[test]
fn readers_beside_a_busy_writer_never_see_a_mixture() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let table = Arc::new(SessionTable::new(64, 3));
    let row = |n: u16| table::Row {
        out: Ends6Out {
            host: Ipv6Addr::from([n as u8; 16]),
            port: n,
            peer: Ipv4Addr::from([n as u8; 4]),
            peer_port: n,
            proto: 17,
        },
        addr: Ipv4Addr::from([n as u8; 4]),
        port: n,
        open: true,
        kept_by_traffic: true,
    };
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                let mut found = 0u64;
                while !stop.load(Ordering::Relaxed) || found == 0 {
                    for n in 1..100u16 {
                        if let Some(f) = table.find6(&row(n).out) {
                            assert_eq!((f.host.1, f.mapped), (n, (Ipv4Addr::from([n as u8; 4]), n)));
                            found += 1;
                        }
                    }
                }
            });
        }
        for round in 0..20_000u32 {
            let n = (round % 99 + 1) as u16;
            assert!(table.insert(7, &row(n), at(1)));
            if round % 3 != 0 {
                std::thread::yield_now();
            }
            table.remove(7, &row(n));
        }
        assert!(table.insert(9, &row(50), at(1)));
        stop.store(true, Ordering::Relaxed);
    });
    assert!(table.find6(&row(50).out).is_some());
}
