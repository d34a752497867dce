//! Rules of packet filters: lines of text, an empty byte, and a packet to judge.

use router_core::filter::{Action, FilterSpec, Rule, RuleTable, mss};
use router_core::packet::Packet;

/// What is shown can be read again; the verdict is that of the first rule that matches, or a denial.
pub(super) fn rules(data: &[u8]) {
    let end = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    let (text, bytes) = data.split_at(end);
    let Ok(text) = std::str::from_utf8(text) else { return };
    let rules: Vec<Rule> = text.lines().take(64).filter_map(|line| line.parse().ok()).collect();
    for rule in &rules {
        let shown = rule.to_string();
        assert_eq!(shown.parse::<Rule>().as_ref(), Ok(rule), "{shown}");
    }
    let bytes = bytes.get(1..).unwrap_or(&[]);
    let Ok(packet) = Packet::sniff(bytes).and_then(|f| Packet::parse(f, bytes)) else { return };
    let spec = FilterSpec { rules };
    let judged = RuleTable::new("f", &spec, None).judge(&packet, bytes);
    match judged.rule {
        Some(i) => {
            let i = i as usize;
            assert!(!judged.hidden && spec.rules[i].matches(&packet, bytes));
            assert!(!spec.rules[..i].iter().any(|r| r.matches(&packet, bytes)));
            assert_eq!(judged.action, spec.rules[i].action);
        }
        None => assert_eq!(judged.action, Action::Deny),
    }
    let mut copy = bytes[..packet.len as usize].to_vec();
    if let Some((from, to)) = mss::clamp(&packet, &mut copy, 1220, false) {
        assert!(from > to && to == 1220);
        assert_eq!(Packet::parse(packet.family, &copy), Ok(packet), "only the option and the checksum change");
    }
}
