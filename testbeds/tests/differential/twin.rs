//! Proof for rules that say "Linux minds something in this packet, Duet does not": the same packet without that thing, its
//! twin. Duet must treat both alike, and Linux must treat the twin as Duet does.

use crate::Sent;
use crate::fields::option_starts;
use crate::rules::{Facts, only_error, source};
use crate::stream::{Given, fill};

/// An option of IPv6 that nobody knows and that is to be skipped, and one of IPv4 that nobody knows.
const SKIPPED6: u8 = 0x1e;
const UNKNOWN4: u8 = 0x9e;

/// The packet without what this rule is about. None where the rule itself says all of both verdicts.
pub fn twin(rule: &str, given: &Given) -> Option<Given> {
    let f = Facts::of(&given.packet);
    let mut p = given.packet.clone();
    match rule {
        "cipso" => {
            let options = option_starts(&p).into_iter().filter(|at| p[*at] == 134).collect::<Vec<_>>();
            options.into_iter().for_each(|at| p[at] = UNKNOWN4);
            fill(&mut p);
        }
        "padding-not-zero" => {
            for (at, len) in options6(&f).into_iter().filter(|(at, _)| f.bytes[*at] == 1) {
                p[at + 2..at + len].fill(0);
            }
        }
        "hop-by-hop-budget" => {
            // As many bytes in as few options as hold them.
            let (_, at, size) = f.headers().into_iter().find(|h| h.0 == 0)?;
            for start in (at + 2..at + size).step_by(256) {
                let end = (start + 256).min(at + size);
                p[start..end].fill(0);
                (p[start], p[start + 1]) = (SKIPPED6, (end - start - 2) as u8);
            }
        }
        "padding-long" => {
            for (at, len) in long_padding(&f) {
                p[at..at + len].fill(0);
                (p[at], p[at + 1]) = (SKIPPED6, (len - 2) as u8);
            }
        }
        "router-alert-length" => {
            for (at, _) in options6(&f).into_iter().filter(|(at, len)| f.bytes[*at] == 5 && *len != 4) {
                p[at] = SKIPPED6;
            }
        }
        "hop-by-hop-spoken" => {
            for (at, _) in options6(&f).into_iter().filter(|(at, _)| matches!(f.bytes[*at], 7 | 0x31)) {
                p[at] = SKIPPED6;
            }
        }
        // A routing header that is used up, as destination options that say nothing.
        "group-routing" => {
            for (n, (_, at, size)) in f.headers().into_iter().enumerate().filter(|(_, h)| h.0 == 43) {
                p[f.named(n)] = 60;
                p[at + 2..at + size].fill(0);
                if size == 8 {
                    (p[at + 2], p[at + 3]) = (1, 4);
                } else {
                    (2..size - 1)
                        .step_by(8)
                        .for_each(|i| (p[at + i], p[at + i + 1]) = (SKIPPED6, 6.min(size - i - 2) as u8));
                }
            }
        }
        // The atomic fragment header in front is not there.
        "nested-fragments" => {
            let (n, (_, at, _)) = f.headers().into_iter().enumerate().find(|(_, h)| h.0 == 44)?;
            if f.bytes[at + 2..at + 4].iter().zip([0xff, 0xf9]).any(|(b, m)| b & m != 0) {
                return None;
            }
            p[f.named(n)] = p[at];
            p.drain(at..at + 8);
            let len = (u16::from_be_bytes([p[4], p[5]]) - 8).to_be_bytes();
            p[4..6].copy_from_slice(&len);
        }
        _ => return None,
    }
    (p != given.packet).then(|| Given { packet: p, ..given.clone() })
}

/// Whether rules of this name need a twin.
pub fn needs_twin(rule: &str) -> bool {
    let rules = [
        "cipso",
        "padding-not-zero",
        "hop-by-hop-budget",
        "padding-long",
        "router-alert-length",
        "hop-by-hop-spoken",
        "group-routing",
        "nested-fragments",
    ];
    rules.contains(&rule)
}

/// Whether the same was done about a packet and its twin: as many packets by the same ports from the same sources, the same
/// errors, and all else as long.
pub fn alike(given: (&Given, &Given), ours: (&Sent, &Sent)) -> bool {
    let shorter = given.0.packet.len() - given.1.packet.len();
    let one = |sent: &(usize, Vec<u8>)| only_error(&vec![sent.clone()]).map(|(kind, code, _)| (kind, code));
    ours.0.len() == ours.1.len()
        && ours.0.iter().zip(ours.1).all(|(a, b)| {
            let lengths = a.1.len() == b.1.len() || a.1.len() == b.1.len() + shorter;
            (a.0, source(&a.1), one(a)) == (b.0, source(&b.1), one(b)) && (lengths || one(a).is_some())
        })
}

/// Where options of hop-by-hop and destination options headers begin, and how long they are.
fn options6(f: &Facts<'_>) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (_, start, size) in f.headers().into_iter().filter(|h| matches!(h.0, 0 | 60)) {
        let end = (start + size).min(f.bytes.len());
        let mut at = start + 2;
        while at < end {
            let len = if f.bytes[at] == 0 { 1 } else { 2 + f.bytes.get(at + 1).map_or(0, |l| usize::from(*l)) };
            if at + len > end {
                break;
            }
            found.push((at, len));
            at += len;
        }
    }
    found
}

/// Stretches of padding of more than seven bytes: each becomes an option of as many bytes.
fn long_padding(f: &Facts<'_>) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (at, len) in options6(f).into_iter().filter(|(at, _)| f.bytes[*at] < 2) {
        match runs.last_mut() {
            Some((start, size)) if *start + *size == at && *size + len <= 257 => *size += len,
            _ => runs.push((at, len)),
        }
    }
    runs.retain(|(_, size)| *size > 7);
    runs
}
