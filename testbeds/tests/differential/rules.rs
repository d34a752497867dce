//! Which differences are known, and what counts as one.

use crate::Sent;
use crate::stream::Given;
use std::fmt::Write;

/// Ids of all listed differences.
pub const ALL: &[&str] = &[];

/// Takes link headers off, and leaves out what routers say of their own accord: ARP, neighbour discovery, MLD, IGMP.
pub fn without_link_header(frames: Sent) -> Sent {
    let mut sent: Sent = frames
        .into_iter()
        .filter(|(_, f)| f.len() > 14 && (f[12..14] == [8, 0] || f[12..14] == [0x86, 0xdd]))
        .map(|(port, f)| (port, f[14..].to_vec()))
        .filter(|(_, p)| !is_chatter(p))
        .collect();
    sent.sort_by_key(|(port, _)| *port);
    sent
}

fn is_chatter(p: &[u8]) -> bool {
    let ndp_or_mld = |t: Option<&u8>| matches!(t, Some(130..=137 | 143));
    match p[0] >> 4 {
        4 => p.get(9) == Some(&2),
        // MLD reports have a hop-by-hop header.
        _ => {
            (p.get(6) == Some(&58) && ndp_or_mld(p.get(40)))
                || (p.get(6) == Some(&0) && p.get(40) == Some(&58) && ndp_or_mld(p.get(48)))
        }
    }
}

/// Whether a packet is an ICMP error.
pub fn is_error(p: &[u8]) -> bool {
    match p[0] >> 4 {
        4 => p[9] == 1 && matches!(p.get(usize::from(p[0] & 15) * 4), Some(3 | 4 | 5 | 11 | 12)),
        _ => p[6] == 58 && p.get(40).is_some_and(|t| *t < 128),
    }
}

/// The same with the fields left out that no rule fixes: the identification of IPv4 packets that a router makes itself.
pub fn normal(sent: &Sent) -> Sent {
    let mut sent = sent.clone();
    for (_, p) in &mut sent {
        if p[0] >> 4 == 4 && is_error(p) {
            p[4..6].fill(0);
            p[10..12].fill(0);
        }
    }
    sent
}

/// The listed difference that explains what the kernel (`theirs`) and Duet (`ours`) did with a packet.
pub fn listed(_given: &Given, _theirs: &Sent, _ours: &Sent) -> Option<&'static str> {
    None
}

/// What happened, for a person to read.
pub fn describe(n: usize, given: &Given, theirs: &Sent, ours: &Sent) -> String {
    let mut text = String::new();
    let hex = |b: &[u8]| b.iter().take(96).map(|b| format!("{b:02x}")).collect::<String>();
    let _ = writeln!(text, "packet {n} to {} ({} bytes): {}", given.to, given.packet.len(), hex(&given.packet));
    for (who, sent) in [("Linux", theirs), ("Duet ", ours)] {
        if sent.is_empty() {
            let _ = writeln!(text, "  {who}: nothing");
        }
        for (port, p) in sent {
            let _ = writeln!(text, "  {who}: port {port} ({} bytes): {}", p.len(), hex(p));
        }
    }
    text
}
