//! Differences in what is done at all: for each, exactly which packets, and what either side does with them.

use crate::rules::{Facts, OWN4, is_echo_reply, only_error, source, source6};
use crate::stream::Given;
use crate::{Sent, Topology};
use router_core::addr::MacAddr;

/// The rule that explains what the kernel (`theirs`) and Duet (`ours`) did.
pub fn verdict(topology: &Topology, given: &Given, theirs: &Sent, ours: &Sent) -> Option<&'static str> {
    let f = Facts::of(&given.packet);
    if f.v4 { verdict4(topology, &f, given, theirs, ours) } else { verdict6(&f, given, theirs, ours) }
}

fn verdict4(topology: &Topology, f: &Facts<'_>, given: &Given, theirs: &Sent, ours: &Sent) -> Option<&'static str> {
    let (a, b) = (only_error(theirs), only_error(ours));
    let (nothing, silent) = (theirs.is_empty(), ours.is_empty() && !theirs.is_empty());
    let broadcast = [255; 4];
    let class_e = |x: &[u8]| x.first().is_some_and(|b| *b >= 240) && x != broadcast;
    let header = usize::from(f.bytes[0] & 15) * 4;
    let icmp_type = f.bytes.get(header).copied().filter(|_| f.bytes.get(9) == Some(&1));
    let proto = f.bytes.get(9).copied().unwrap_or_default();
    let offset = f.bytes.get(6..8).map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]]) & 0x1fff) * 8);
    let (passed, answered) = (f.passed_on(theirs), a.is_some());
    // Where source routes are followed, what is sent to such a source goes to the last stop of the route first.
    let led = topology.source_routes && f.options4().iter().any(|o| matches!(o, 131 | 137));
    Some(match () {
        () if silent && passed && offset > 0 && offset + f.bytes.len() - header > 65_535 => "fragment-beyond",
        () if silent && f.to_own() && matches!((proto, a), (4 | 41 | 47, Some((3, 2, _)))) => "tunnel-unknown-peer",
        () if nothing && f.to_own() && matches!((proto, b), (2 | 103 | 136, Some((3, 2, _)))) => "protocols-spoken",
        () if f.options4().contains(&134) && (nothing || matches!(a, Some((12, 0, _)))) => "cipso",
        () if silent && given.to == MacAddr::BROADCAST && f.to_own() && !passed => "unicast-in-link-broadcast",
        () if silent && topology.broadcasts.contains(&f.src) && !passed => "broadcast-source",
        () if silent && f.either(class_e) && (passed || answered || led) => "class-e",
        () if silent && f.either(|x| x.first() == Some(&0)) && (passed || answered || led) => "net-zero",
        () if silent && f.either(|x| x.starts_with(&[169, 254])) && (passed || led) => "link-local-4",
        () if silent && f.to_own() && icmp_type == Some(13) && is_timestamp_reply(theirs) => "icmp-timestamp",
        () if nothing && icmp_type == Some(42) && b.is_some() => "icmp-extended-echo",
        () if f.options4().iter().any(|o| matches!(o, 131 | 137))
            && (nothing || matches!(a, Some((12, 0, _))))
            && matches!(b, Some((3, 5, _))) =>
        {
            "source-route-told"
        }
        // Linux first asks whether there is a route at all, and is silent as with `route-errors-limited`.
        () if f.options4().contains(&137)
            && !f.to_own()
            && (nothing || matches!(a, Some((3, 0 | 1 | 13, _))))
            && b == Some((12, 0, 16 << 24)) =>
        {
            "strict-route-astray"
        }
        () if f.options4().contains(&137) && f.to_own() && matches!((a, b), (Some((11, 0, _)), Some((3, 5, _)))) => {
            "strict-route-before-ttl"
        }
        () if f.options4().contains(&137)
            && (a, b) == (Some((3, 5, 0)), Some((3, 5, 0)))
            && ours[0].1.get(12..16) == Some(f.dst)
            && theirs[0].1.get(12..16) != Some(f.dst) =>
        {
            "strict-route-source"
        }
        () if nothing && route_error(f, b) => "route-errors-limited",
        () if nothing && OWN4.contains(&f.src) && (f.passed_on(ours) || led) => "own-source",
        () => return None,
    })
}

/// The errors that Linux limits by the route, each about destinations of its kind.
fn route_error(f: &Facts<'_>, error: Option<(u8, u8, u32)>) -> bool {
    match (error, f.dst) {
        (Some((3, 1, _)), [203, 0, 115, _]) | (Some((3, 13, _)), [203, 0, 116, _]) => true,
        (Some((3, 0, _)), [203, 0, 113..=116, _]) => false,
        (Some((3, 0, _)), _) => !f.to_own(),
        _ => false,
    }
}

fn is_timestamp_reply(sent: &Sent) -> bool {
    let reply = |p: &[u8]| p[0] >> 4 == 4 && p[9] == 1 && p.get(usize::from(p[0] & 15) * 4) == Some(&14);
    matches!(&sent[..], [(_, p)] if reply(p))
}

/// Whether it is one TCP reset.
fn is_reset(sent: &Sent) -> bool {
    matches!(&sent[..], [(_, p)] if p.len() == 60 && p[6] == 6 && p[53] & 4 != 0)
}

/// How many hop-by-hop options Linux takes, padding not counted (`net.ipv6.max_hbh_opts_number`).
const LINUX_OPTIONS: usize = 8;

fn verdict6(f: &Facts<'_>, given: &Given, theirs: &Sent, ours: &Sent) -> Option<&'static str> {
    let (a, b) = (only_error(theirs), only_error(ours));
    let (nothing, silent) = (theirs.is_empty(), ours.is_empty() && !theirs.is_empty());
    let link_local = |x: &[u8]| x.starts_with(&[0xfe, 0x80]);
    let last_hop = f.bytes.get(7).is_some_and(|n| *n < 2);
    let group = f.dst.first() == Some(&0xff);
    let hop_by_hop = f.bytes.get(6) == Some(&0);
    let special =
        |x: &[u8]| x.len() == 16 && (x[..12] == [0; 12] || x[..12] == [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    let chain = f.chain();
    let to_us = f.to_own() || f.to_anycast() || group;
    let fragments = chain.iter().filter(|h| **h == 44).count();
    Some(match (a, b) {
        _ if silent && f.either(special) && (f.passed_on(theirs) || a.is_some()) => "martian-6",
        (Some((3, 0, _)), None) if silent && last_hop && link_local(f.dst) => "link-local-destination",
        (Some((3, 0, _)), Some((1, 2, _))) if last_hop && link_local(f.src) => "scope-before-hop-limit",
        _ if hop_by_hop && f.bytes[4..6] == [0, 0] && !nothing && (silent || matches!(b, Some((4, 0, 41)))) => {
            "hop-by-hop-beyond"
        }
        (None, Some((4, 0, 41))) if nothing && hop_by_hop => "hop-by-hop-told",
        (_, Some((4, 2, to)))
            if f.bytes.get(to as usize) == Some(&0xc2) && (nothing || matches!(a, Some((4, 0, _)))) =>
        {
            "jumbo-unknown"
        }
        _ if silent && given.to == MacAddr::BROADCAST && (f.to_own() || f.to_anycast()) && !f.passed_on(theirs) => {
            "unicast-in-link-broadcast"
        }
        (None, Some((4, 2, at)))
            if nothing && f.options_but_padding() > LINUX_OPTIONS && f.first_offender() == Some(at) =>
        {
            "hop-by-hop-offender"
        }
        _ if nothing && (f.options6(0).0.len() > 16 || f.options_but_padding() > LINUX_OPTIONS) => "hop-by-hop-budget",
        _ if nothing && (f.padding_says_something(0) || f.padding_says_something(60)) => "padding-not-zero",
        _ if nothing && (f.options6(0).1 > 7 || f.options6(60).1 > 7) => "padding-long",
        _ if nothing && f.options6(0).0.iter().any(|o| o[0] == 5 && o.len() != 4) => "router-alert-length",
        (None, Some((4, 0, at))) if nothing && f.lies_in(43, at) && f.bytes[at as usize] == 4 => "segment-routing",
        _ if nothing && group && chain.contains(&43) => "group-routing",
        (None | Some((4, 0, 4)), Some((4, 3, 0))) if (nothing || a.is_some()) && f.cuts_chain() => {
            "first-fragment-short"
        }
        _ if nothing && f.options6(0).0.iter().any(|o| matches!(o[0], 7 | 0x31)) => "hop-by-hop-spoken",
        (Some(_), None) if silent && f.upper() == 58 && f.after_headers().first() == Some(&137) => "about-redirect",
        (Some(a), Some(b)) if a == b && given.to == MacAddr::BROADCAST && source(&ours[0].1) == source6(f.dst) => {
            "error-source-broadcast"
        }
        (None, Some((4, 0, at))) if nothing && f.runs_out(at) => "header-cut-told",
        (None, Some((4, 0, at))) if nothing && f.lies_in(60, at) => "destination-options-told",
        (Some(_), None) if silent && chain.contains(&44) && f.upper() == 58 && f.after_headers().is_empty() => {
            "fragment-hides-type"
        }
        (Some(_), None) if silent && f.mobility_hides_error() => "error-behind-mobility",
        (Some((4, 1, 6 | 40..)), None) if silent && matches!(f.upper(), 4 | 41 | 47) => "tunnel-unknown-peer",
        (None, Some((4, 1, _))) if nothing && matches!(f.upper(), 103 | 136) => "protocols-spoken",
        (None, None) if nothing && f.to_anycast() && f.upper() == 6 && is_reset(ours) => "anycast-reset",
        (None, None) if nothing && (group || f.to_anycast()) && is_echo_reply(ours) => "group-echo-way-back",
        (Some((4, 0, at)), _) if fragments > 1 && to_us && at as usize == f.second_fragment() => "nested-fragments",
        // To a group, no such error may be sent.
        _ if fragments > 1 && group && nothing => "nested-fragments",
        _ => return None,
    })
}
