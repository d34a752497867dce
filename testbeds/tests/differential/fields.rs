//! Differences in single fields.

use crate::Sent;
use crate::rules::{Facts, OWN4, is_error};
use crate::stream::Given;

/// Each is blanked on both sides, and what is left must be the same.
pub fn fields(given: &Given, theirs: &Sent, ours: &Sent) -> Option<Vec<&'static str>> {
    type Mask = fn(&Facts<'_>, &mut Sent);
    const MASKS: &[(&str, Mask)] = &[
        // The congestion bit of RFC 1349's TOS.
        ("icmp-ecn", |_, sent| {
            sent.iter_mut().filter(|(_, p)| p[0] >> 4 == 4 && is_error(p)).for_each(|(_, p)| p[1] &= !3);
        }),
        // From the length back to the type.
        ("option-pointer", |f, sent| {
            for (_, p) in sent.iter_mut().filter(|(_, p)| f.v4 && p[0] >> 4 == 4 && is_error(p)) {
                let at = usize::from(p[0] & 15) * 4;
                if p[at] != 12 {
                    continue;
                }
                let (starts, pointer) = (option_starts(f.bytes), usize::from(p[at + 4]));
                if !starts.contains(&pointer) && starts.contains(&pointer.saturating_sub(1)) {
                    p[at + 4] -= 1;
                }
                p[at + 2..at + 4].fill(0);
            }
        }),
        ("anycast-source", |f, sent| {
            for (_, p) in sent.iter_mut().filter(|(_, p)| f.to_anycast() && p[0] >> 4 == 6 && is_error(p)) {
                p[8..24].fill(0);
                p[42..44].fill(0);
            }
        }),
        ("source-tie", |_, sent| {
            const TIED: [&str; 2] = ["2001:db8:f:2::1", "2001:db8:f:3::1"];
            let tied = TIED.map(|a| a.parse::<std::net::Ipv6Addr>().expect("address").octets());
            for (_, p) in sent.iter_mut().filter(|(_, p)| p[0] >> 4 == 6 && p[6] == 58) {
                if tied.iter().any(|a| p[8..24] == a[..]) {
                    p[8..24].fill(0);
                    p[42..44].fill(0);
                }
            }
        }),
        ("after-end-of-options", |f, sent| {
            let as_it_came = |p: &[u8]| p[0] == f.bytes[0] && (!is_error(p) || p[12..20] == f.bytes[12..20]);
            for (_, p) in sent.iter_mut().filter(|(_, p)| f.has_options() && as_it_came(p)) {
                let end = usize::from(p[0] & 15) * 4;
                let mut at = 20;
                while at < end && p[at] != 0 {
                    at += if p[at] == 1 { 1 } else { usize::from(p[at + 1]).max(2) };
                }
                p[10..12].fill(0);
                p[at.min(end)..end].fill(0);
            }
        }),
        // Options that a reset repeats.
        ("error-options", |f, sent| {
            for (_, p) in sent.iter_mut().filter(|(_, p)| f.has_options() && p[0] >> 4 == 4 && p[9] == 6) {
                if OWN4.contains(&&p[12..16]) {
                    let at = usize::from(p[0] & 15) * 4;
                    p.drain(20..at);
                    (p[0], p[3]) = (0x45, 40);
                }
            }
        }),
        ("reset-class", |_, sent| {
            for (_, p) in sent.iter_mut() {
                match p[0] >> 4 {
                    4 if p[9] == 6 && OWN4.contains(&&p[12..16]) && p.len() == 40 => p[1] = 0,
                    6 if p[6] == 6 && p.len() == 60 => p[..4].copy_from_slice(&[0x60, 0, 0, 0]),
                    _ => {}
                }
            }
        }),
        // The error itself, whatever options its header has and its quote has been given.
        ("error-options", |f, sent| {
            for (port, p) in sent.iter_mut().filter(|(_, p)| f.has_options() && p[0] >> 4 == 4 && is_error(p)) {
                let at = usize::from(p[0] & 15) * 4;
                // A source route that is repeated has the sender as its end, and another way to it.
                if f.options4().iter().any(|o| matches!(o, 131 | 137)) {
                    *port = 0;
                    let route = option_starts(p).into_iter().find(|at| matches!(p[*at], 131 | 137));
                    if let Some(end) = route.map(|at| at + usize::from(p[at + 1])).filter(|end| (24..=at).contains(end))
                    {
                        p.copy_within(end - 4..end, 16);
                    }
                }
                // Of the quote: the header without checksum and options, and as much behind it as both have room for.
                let Some(quote) = p.get(at + 8..).filter(|q| q.len() >= 20) else { continue };
                let behind = (usize::from(quote[0] & 15) * 4).min(quote.len());
                let rest = &quote[behind..quote.len().min(behind + 400)];
                let head = [0x45, p[1], 0, 0, 0, 0, p[6], p[7], p[8], p[9], 0, 0];
                // The next stop of the route may already be written into it.
                let to = if f.is_stop(&quote[16..20]) { f.dst } else { &quote[16..20] };
                *p = [&head, &p[12..20], &p[at..at + 2], &p[at + 4..at + 8], &quote[..10], &quote[12..16], to, rest]
                    .concat();
            }
        }),
        // Only what was written here: in front of the pointer that the option left with, behind that it came with.
        ("timestamp-address", |f, sent| {
            for (_, p) in sent.iter_mut().filter(|(_, p)| f.v4 && p[0] == f.bytes[0]) {
                for at in option_starts(p).into_iter().filter(|at| f.bytes.get(*at) == Some(&68)).collect::<Vec<_>>() {
                    let (Some(before), Some([68, _, after, flags])) = (f.bytes.get(at + 2), p.get(at..at + 4)) else {
                        continue;
                    };
                    let (from, to) = (at + usize::from(*before) - 1, at + usize::from(*after) - 1);
                    if flags & 15 == 1 && to == from + 8 && to <= p.len() {
                        p[10..12].fill(0);
                        p[from..from + 4].fill(0);
                    }
                }
            }
        }),
        // The pointer goes back over what was written, and that is gone.
        ("timestamp-group", |f, sent| {
            let group = |a: &[u8]| matches!(a[0], 0 | 224..=239) || *a == [255; 4];
            for (_, p) in sent.iter_mut().filter(|(_, p)| f.v4 && p[0] == f.bytes[0]) {
                for at in option_starts(p) {
                    let Some([68, _, before, flags]) = f.bytes.get(at..at + 4) else { continue };
                    let from = at + usize::from(*before) - 1;
                    let asked = f.bytes.get(from..from + 4).is_some_and(group);
                    if flags & 15 == 3 && asked && p[at] == 68 && p[at + 2] == before + 8 && from + 8 <= p.len() {
                        p[at + 2] = *before;
                        p[from + 4..from + 8].copy_from_slice(&f.bytes[from + 4..from + 8]);
                    }
                    p[10..12].fill(0);
                }
            }
        }),
        ("timestamp-clock", |f, sent| {
            for (_, p) in sent.iter_mut().filter(|(_, p)| p[0] >> 4 == 4 && f.v4 && f.options4().contains(&68)) {
                p[10..12].fill(0);
                for at in option_starts(p) {
                    if p[at] != 68 || p.len() <= at + 3 {
                        continue;
                    }
                    let end = (at + usize::from(p[at + 1])).min(p.len());
                    // Flag 0: times only; 1 and 3: each behind an address.
                    let (first, step) = if p[at + 3] & 15 == 0 { (at + 4, 4) } else { (at + 8, 8) };
                    for time in (first..end).step_by(step) {
                        p[time..(time + 4).min(end)].fill(0);
                    }
                }
            }
        }),
        ("timestamp-overflow", |f, sent| {
            for (_, p) in sent.iter_mut().filter(|(_, p)| p[0] >> 4 == 4 && f.v4) {
                p[10..12].fill(0);
                if p.len() > 23 && p[0] & 15 > 5 && p[20] == 68 {
                    p[23] &= 15;
                }
            }
        }),
        ("recorded-dummy", |f, sent| {
            for (_, p) in sent.iter_mut().filter(|(_, p)| p[0] >> 4 == 4 && f.v4 && f.options4().contains(&7)) {
                let at = (usize::from(p[0] & 15) * 4).min(p.len());
                p[10..12].fill(0);
                for word in p[..at]
                    .windows(4)
                    .enumerate()
                    .filter(|(_, w)| *w == [192, 0, 0, 8])
                    .map(|(i, _)| i)
                    .collect::<Vec<_>>()
                {
                    p[word..word + 4].fill(0);
                }
            }
        }),
        ("fragment-reserved", |_, sent| {
            for (_, p) in sent.iter_mut().filter(|(_, p)| p[0] >> 4 == 4 && p[6] & 0x3f | p[7] != 0) {
                p[6] &= 0x7f;
                p[10..12].fill(0);
            }
        }),
        ("fragment-options", |f, sent| {
            if sent.len() < 2 || !f.has_options() {
                return;
            }
            for (_, p) in sent.iter_mut().filter(|(_, p)| p[6] & 0x1f != 0 || p[7] != 0) {
                let at = usize::from(p[0] & 15) * 4;
                p.drain(20..at);
                (p[0], p[2], p[3]) = (0x45, 0, 0);
                p[10..12].fill(0);
            }
        }),
    ];
    let facts = Facts::of(&given.packet);
    let (mut a, mut b) = (theirs.clone(), ours.clone());
    let mut used = Vec::new();
    for (rule, mask) in MASKS {
        let (before_a, before_b) = (a.clone(), b.clone());
        mask(&facts, &mut a);
        mask(&facts, &mut b);
        if (before_a != a || before_b != b) && before_a != before_b {
            used.push(*rule);
        }
        if a == b {
            // Only those whose fields did differ.
            let needed = |rule: &&&str| {
                let (mut x, mut y) = (theirs.clone(), ours.clone());
                for (other, mask) in MASKS.iter().filter(|(other, _)| used.contains(other) && other != *rule) {
                    let _ = other;
                    mask(&facts, &mut x);
                    mask(&facts, &mut y);
                }
                x != y
            };
            let needed: Vec<&'static str> = used.iter().filter(needed).copied().collect();
            return Some(if needed.is_empty() { vec![*rule] } else { needed });
        }
    }
    None
}

/// Where the options of an IPv4 packet begin.
pub fn option_starts(p: &[u8]) -> Vec<usize> {
    let (mut found, mut at) = (Vec::new(), 20);
    let end = (usize::from(p[0] & 15) * 4).min(p.len());
    while at < end && p[at] != 0 {
        found.push(at);
        at += if p[at] == 1 { 1 } else { usize::from(p.get(at + 1).copied().unwrap_or(2)).max(2) };
    }
    found
}
