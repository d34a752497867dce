//! What `explain` tells is what the data plane does: random packets over random tables with all forwarders.

mod bench;

use bench::{Bench, DESTINATIONS, Rng, SESSION_PORT, SOURCES, ip};
use router_core::addr::MacAddr;
use router_core::counters::Totals;
use router_core::explain::{Bytes, End, Explanation, Pass, Question, Role, Step};
use router_core::frame::Frame;
use router_core::object::ObjectId;
use router_core::packet::Packet;
use router_core::port::{Medium, PortId};
use router_core::router::Router;
use router_core::spec::NudState;
use std::sync::atomic::Ordering;
use testbeds::sim::packets;

const TABLES: u64 = 100;
const PACKETS: usize = 1000;
const SEED: u64 = 0x5eed;

#[derive(Debug, PartialEq)]
struct Outcome {
    sent: Vec<(String, Bytes)>,
    drops: Vec<(String, u64)>,
    /// Given to the control side; not compared where that refused some.
    kept: Option<usize>,
    answered: u64,
}

impl Outcome {
    fn told(e: &Explanation) -> Outcome {
        let mut o = Outcome { sent: Vec::new(), drops: Vec::new(), kept: Some(0), answered: 0 };
        for (i, p) in e.passes.iter().enumerate() {
            let later = e.children(i).any(|(_, c)| c.role == Role::Later);
            match &p.end {
                End::Transmit { dev, frame, .. } => o.sent.push((dev.clone(), frame.clone())),
                End::Drop { reason, .. } => match o.drops.iter_mut().find(|(r, _)| r == reason) {
                    Some((_, n)) => *n += 1,
                    None => o.drops.push((reason.clone(), 1)),
                },
                End::Held { .. } | End::Consumed { .. } if !later => o.kept = o.kept.map(|n| n + 1),
                End::Answered { .. } => o.answered += 1,
                End::Held { .. } | End::Consumed { .. } | End::GoesOn => {}
            }
        }
        if refusals(e) {
            o.kept = None;
            o.sent.retain(|(_, f)| !is_question(&f.0));
            o.sent.iter_mut().for_each(|(_, f)| forget_numbers(&mut f.0));
        }
        o.sent.sort_by(|a, b| (&a.0, &a.1.0).cmp(&(&b.0, &b.1.0)));
        o.drops.sort();
        o
    }
}

/// Whether a neighbour was silent.
fn refusals(e: &Explanation) -> bool {
    e.passes.iter().any(|p| p.role == Role::Later)
}

/// Clears identifications, of outer headers and fragments, and the header checksums over them.
fn forget_numbers(f: &mut [u8]) {
    let mut at = if f.get(12..14) == Some(&[0x81, 0]) { 18 } else { 14 };
    if f.first().is_some_and(|b| b >> 4 == 4 || b >> 4 == 6)
        && Packet::sniff(f).is_ok_and(|x| Packet::parse(x, f).is_ok())
    {
        at = 0;
    }
    while let Some(first) = f.get(at) {
        match (first >> 4, f.len() - at) {
            (4, 20..) => {
                f[at + 4..at + 6].fill(0);
                f[at + 10..at + 12].fill(0);
                if !matches!(f[at + 9], 4 | 41) {
                    return;
                }
                at += 20;
            }
            (6, 48..) if f[at + 6] == 44 => return f[at + 44..at + 48].fill(0),
            _ => return,
        }
    }
}

/// ARP requests and neighbour solicitations, in their frames.
fn is_question(f: &[u8]) -> bool {
    let at = if f.get(12..14) == Some(&[0x81, 0]) { 16 } else { 12 };
    match f.get(at..at + 2) {
        Some([8, 6]) => true,
        Some([0x86, 0xdd]) => f.get(at + 8) == Some(&58) && matches!(f.get(at + 42), Some(135 | 136)),
        _ => false,
    }
}

/// An IP packet as it comes from a port.
fn framed(router: &Router, id: PortId, packet: &[u8]) -> Vec<u8> {
    let port = router.ports().get(id).expect("port");
    match port.mac {
        Some(mac) if port.vlan.is_some() => {
            let mut f = packets::ethernet(mac, MacAddr([2, 0, 0, 0, 9, 9]), packet);
            f.splice(12..12, [0x81, 0x00, 0, 7]);
            f
        }
        Some(mac) => packets::ethernet(mac, MacAddr([2, 0, 0, 0, 9, 9]), packet),
        None => packet.to_vec(),
    }
}

/// A packet between addresses of one family.
fn random_packet(rng: &mut Rng, depth: u8) -> Vec<u8> {
    let dst = ip(rng.pick(DESTINATIONS));
    let mut src = ip(rng.pick(SOURCES));
    while src.is_ipv4() != dst.is_ipv4() {
        src = ip(rng.pick(SOURCES));
    }
    let ttl = rng.pick(&[0, 1, 2, 64, 64, 64, 255]);
    let df = rng.one_in(2);
    let size =
        rng.pick(&[0, 1, 2, 3, 30, 500, 900, 1200, 1252, 1253, 1270, 1372, 1373, 1400, 1452, 1453, 1472, 1473, 2500]);
    let payload = vec![0x5a; size];
    let mut p = match rng.below(9) {
        0 | 1 => {
            let sport = if rng.one_in(2) { SESSION_PORT } else { rng.next() as u16 };
            let ports = if rng.one_in(4) { (53, sport) } else { (sport, 53) };
            packets::udp(src, dst, ports, ttl, df, &payload)
        }
        2 | 3 => packets::echo(src, dst, 1, ttl, df, &payload),
        4 => {
            let mut s = vec![0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, rng.pick(&[2, 16, 4]), 1, 0, 0, 0, 0, 0];
            s.extend(&payload);
            packets::ip(src, dst, 6, ttl, df, &packets::transport(src, dst, 6, s, 16))
        }
        5 => {
            let (proto, kind) = if dst.is_ipv4() {
                (1, rng.pick(&[0, 3, 5, 8, 11, 13]))
            } else {
                (58, rng.pick(&[1, 2, 3, 128, 129, 135, 137]))
            };
            let s = packets::transport(src, dst, proto, [vec![kind, 0, 0, 0, 0, 0, 0, 0], payload].concat(), 2);
            packets::ip(src, dst, proto, ttl, df, &s)
        }
        6 if depth < 3 && dst.is_ipv4() => {
            // Out of a tunnel, or so it says.
            let (src, dst) = (ip(rng.pick(&["203.0.113.5", "203.0.113.6"])), ip("198.51.100.7"));
            let inner = random_packet(rng, depth + 1);
            let proto = if rng.one_in(8) {
                4
            } else if inner[0] >> 4 == 6 {
                41
            } else {
                4
            };
            packets::ip(src, dst, proto, ttl, df, &inner)
        }
        7 if !dst.is_ipv4() => {
            // Extension headers: destination options, hop-by-hop, routing, a fragment.
            let (next, header): (u8, Vec<u8>) = match rng.below(4) {
                0 => (60, vec![17, 0, 1, 4, 0, 0, 0, 0]),
                1 => (0, vec![17, 0, rng.pick(&[1, 5, 0x45, 0x85, 0xc5]), 4, 0, 0, 0, 0]),
                2 => (43, vec![17, 0, rng.below(2) as u8, rng.below(2) as u8, 0, 0, 0, 0]),
                _ => (44, vec![17, 0, 0, rng.pick(&[0, 1, 8, 9]), 0, 0, 0, 7]),
            };
            packets::ip(src, dst, next, ttl, df, &[header, vec![0, 1, 0, 2, 0, 8, 0, 0], payload].concat())
        }
        _ => packets::ip(src, dst, rng.pick(&[17, 47, 50, 59, 132, 200]), ttl, df, &payload),
    };
    if dst.is_ipv4() && rng.one_in(12) {
        // A fragment.
        let word: u16 = rng.pick(&[0x2000, 0x2001, 0x0001, 0x6000]);
        p[6..8].copy_from_slice(&word.to_be_bytes());
        repair(&mut p);
    }
    if dst.is_ipv4() && rng.one_in(20) {
        // An option: no operation, record route, source route, router alert, or broken.
        let option: &[u8] =
            rng.pick::<&[u8]>(&[&[1, 1, 1, 0], &[7, 3, 4, 0], &[131, 3, 4, 0], &[148, 4, 0, 0], &[7, 9, 4, 0]]);
        p.splice(20..20, option.to_vec());
        p[0] = 0x46;
        let len = (p.len() as u16).to_be_bytes();
        p[2..4].copy_from_slice(&len);
        repair(&mut p);
    }
    match rng.below(25) {
        0 => {
            let at = rng.below(p.len());
            p[at] ^= 1 << rng.below(8);
        }
        1 => p.truncate(1 + rng.below(p.len())),
        2 => p.extend([0; 9]),
        _ => {}
    }
    p
}

/// Writes the checksum of an IPv4 header.
fn repair(p: &mut [u8]) {
    let n = usize::from(p[0] & 15) * 4;
    p[10..12].fill(0);
    let sum = packets::sum16(&[&p[..n]]).to_be_bytes();
    p[10..12].copy_from_slice(&sum);
}

#[test]
fn a_hundred_thousand_packets_end_as_explained() {
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for table in 0..TABLES {
        let rng = &mut Rng(table);
        let mut bench = Bench::new(rng);
        let ids: Vec<PortId> = bench.router.ports().iter().map(|p| p.id).collect();
        for number in 0..PACKETS {
            let id = rng.pick(&ids);
            let packet = random_packet(rng, 0);
            let mut frame = framed(&bench.router, id, &packet);
            let port = bench.router.ports().get(id).expect("port").clone();
            if port.mac.is_some() && rng.one_in(15) {
                // For others, for all, too short, ARP, another VLAN.
                match rng.below(6) {
                    0 => frame[..6].fill(0xff),
                    1 => frame[5] ^= 0x55,
                    2 => frame.truncate(rng.below(16)),
                    3 => frame[12..14].copy_from_slice(&[8, 6]),
                    4 => frame[12..14].copy_from_slice(&[0x86, 0xdd]),
                    _ => drop(frame.splice(12..12, [0x81, 0, 0, rng.below(9) as u8])),
                }
            }
            let gso = rng.one_in(20).then(|| rng.pick(&[100u16, 500, 1400]));
            let question = Question {
                iif: Some(port.name.clone()),
                bytes: Some(Bytes(frame.clone())),
                ethernet: Some(port.medium == Medium::Ethernet),
                gso,
                ..Question::default()
            };
            let neighbors = bench.router.neighbors();
            let (control, used) = (Totals::sum([&*bench.control]), marks(&bench));
            let plugin = bench.plugin.0.load(Ordering::Relaxed);
            let sessions = bench.sessions();
            let told = match bench.router.explain(bench.now, &question) {
                Ok(told) => told,
                // Only segmentable packets can be super-frames.
                Err(router_core::explain::ExplainError::SuperFrame) => continue,
                Err(e) => {
                    assert!(
                        packet.len() < 20 || packet[0] >> 4 != 4 && packet[0] >> 4 != 6 || frame.len() < 14,
                        "{e}: {question:?}"
                    );
                    continue;
                }
            };
            // Nothing has changed.
            assert_eq!(bench.router.neighbors(), neighbors);
            assert_eq!((Totals::sum([&*bench.control]), marks(&bench)), (control, used));
            assert_eq!(bench.plugin.0.load(Ordering::Relaxed), plugin);
            assert_eq!(bench.sessions(), sessions);

            let mut real = Frame::from_slice(&frame);
            real.meta.gso = gso_meta(&frame, port.medium, gso);
            let really = bench.really(id, real, refusals(&told));
            for (i, p) in told.passes.iter().enumerate() {
                if let End::Held { neighbor, dev } = &p.end {
                    let dev = bench.router.ports().by_name(dev).expect("port").id;
                    let silent =
                        neighbors.iter().any(|n| n.port == dev && n.addr == *neighbor && n.state == NudState::Failed);
                    let refused = told.children(i).any(|(_, c)| c.role == Role::Later);
                    assert_eq!(refused, silent, "{told:#?}");
                }
            }
            let told_outcome = Outcome::told(&told);
            let story = || {
                let text = format!("{told:?}");
                text.get(..6000).unwrap_or(&text).to_owned()
            };
            let start = &frame[..frame.len().min(64)];
            assert_eq!(
                told_outcome,
                really,
                "table {table} packet {number} on {}: {start:02x?}\n{}",
                port.name,
                story()
            );
            for (what, n) in &really.drops {
                *seen.entry(what.clone()).or_default() += *n as usize;
            }
            *seen.entry("sent".into()).or_default() += really.sent.len();
            for p in &told.passes {
                if let End::Transmit { forwarder, .. } = &p.end {
                    *seen.entry(format!("by {forwarder}")).or_default() += 1;
                }
                let translator = |p: &Pass| {
                    p.steps.iter().rev().find_map(|s| match s {
                        Step::Forwarder { name, .. } if ["siit", "nat64", "clat"].contains(&name.as_str()) => {
                            Some(name.clone())
                        }
                        _ => None,
                    })
                };
                if let (End::Transmit { .. }, Some(from)) = (&p.end, p.parent.and_then(|i| told.passes.get(i)))
                    && let Some(name) = translator(from)
                {
                    *seen.entry(format!("sent translated by {name}")).or_default() += 1;
                }
                if matches!(&p.end, End::Consumed { what } if what.contains("translator")) {
                    *seen.entry("consulted".into()).or_default() += 1;
                }
                for s in &p.steps {
                    if let Step::Forwarder { name, .. } = s {
                        *seen.entry(format!("step Forwarder {name}")).or_default() += 1;
                    }
                    let name = format!("{s:?}");
                    let name = name.split([' ', '{']).next().unwrap_or_default();
                    *seen.entry(format!("step {name}")).or_default() += 1;
                }
            }
        }
    }
    println!("{seen:#?}");
    // The test is worth something only if all ways were taken.
    for what in [
        "sent",
        "by native",
        "by via-inet6",
        "step Encap",
        "step Decap",
        "step Group",
        "step Cut",
        "step Reply",
        "step Forwarder",
        "ttl_expired",
        "no_route",
        "blackhole",
        "unreachable",
        "prohibited",
        "too_big",
        "neighbor_failed",
        "plugin_drop",
        "next_hop_unusable",
        "tunnel_unknown_peer",
        "martian_source",
        "ipv4_checksum",
        "step Forwarder siit",
        "step Forwarder nat64",
        "step Forwarder clat",
        "sent translated by siit",
        "sent translated by nat64",
        "sent translated by clat",
        "consulted",
    ] {
        assert!(seen.get(what).is_some_and(|n| *n >= 20), "{what} hardly ever happened");
    }
}

/// The marks by which the neighbour cache learns that an adjacency is used.
fn marks(bench: &Bench) -> Vec<bool> {
    let tables = bench.router.tables();
    let objects = (0..200).filter_map(|i| match tables.routing.objects.get(ObjectId(i)) {
        Some(router_core::object::Object::Forward(f)) => Some(f.used.load(Ordering::Relaxed)),
        _ => None,
    });
    objects.collect()
}

fn gso_meta(frame: &[u8], medium: Medium, size: Option<u16>) -> Option<router_core::frame::Gso> {
    use router_core::frame::{Gso, GsoKind};
    let size = size?;
    let ip = if medium == Medium::Ethernet { &frame[14..] } else { frame };
    let (v4, proto) = if ip[0] >> 4 == 4 {
        (true, ip[9])
    } else {
        (false, Packet::parse(router_core::addr::Family::Inet6, ip).ok()?.proto)
    };
    let kind = match (proto, v4) {
        (6, true) => GsoKind::TcpV4,
        (6, false) => GsoKind::TcpV6,
        _ => GsoKind::UdpL4,
    };
    Some(Gso { kind, size, ecn: false })
}

/// The transcripts of docs/inspect.md: every `$ duet ...` line of a `console` block is run in docs/, and what it prints
/// must be what is written below it. With `DUET_WRITE_TRANSCRIPTS=1` it is written instead of compared.
#[test]
fn transcripts_in_the_documentation_are_true() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let page = docs.join("inspect.md");
    let text = std::fs::read_to_string(&page).expect("docs/inspect.md");
    let mut made = String::new();
    let (mut inside, mut commands) = (false, 0);
    for line in text.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        }
        if inside && !line.starts_with("```") {
            let Some(words) = line.strip_prefix("$ duet ") else { continue };
            commands += 1;
            let out = std::process::Command::new(env!("CARGO_BIN_EXE_duet-under-test"))
                .args(words.split_whitespace())
                .current_dir(&docs)
                .env_remove("DUET_SOCKET")
                .output()
                .expect("the program");
            made.push_str(line);
            made.push('\n');
            made.push_str(&String::from_utf8_lossy(&out.stdout));
            made.push_str(&String::from_utf8_lossy(&out.stderr));
        } else {
            made.push_str(line);
            made.push('\n');
        }
    }
    assert!(commands >= 5, "{commands} transcripts in {}", page.display());
    if std::env::var_os("DUET_WRITE_TRANSCRIPTS").is_some() {
        std::fs::write(&page, made).expect("docs/inspect.md");
        return;
    }
    for (n, (is, should)) in text.lines().zip(made.lines()).enumerate() {
        assert_eq!(is, should, "docs/inspect.md:{}; DUET_WRITE_TRANSCRIPTS=1 writes it anew", n + 1);
    }
    assert_eq!(text.lines().count(), made.lines().count());
}
