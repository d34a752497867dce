use super::*;
use crate::filter::RuleError;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 packet with this payload at this fragment offset.
fn v4(proto: u8, payload: &[u8], offset: u16, more: bool) -> Vec<u8> {
    let mut v = vec![0x45, 0xb8, 0, (20 + payload.len()) as u8, 0, 1, 0, 0, 64, proto, 0, 0];
    v.extend(Ipv4Addr::new(192, 0, 2, 9).octets());
    v.extend(Ipv4Addr::new(198, 51, 100, 7).octets());
    v[6..8].copy_from_slice(&((offset / 8) | if more { 0x2000 } else { 0 }).to_be_bytes());
    crate::checksum::fill_ipv4_header(&mut v);
    v.extend(payload);
    v
}

/// An IPv6 packet whose first next header is `next`.
fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut v = vec![0x6b, 0x80, 0, 0, 0, payload.len() as u8, next, 64];
    v.extend("2001:db8::9".parse::<Ipv6Addr>().unwrap().octets());
    v.extend("2001:db8:1::7".parse::<Ipv6Addr>().unwrap().octets());
    v.extend(payload);
    v
}

fn tcp(flags: u8) -> Vec<u8> {
    vec![0x30, 0x39, 0, 22, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 1, 0, 0, 0, 0, 0]
}

fn udp() -> Vec<u8> {
    vec![0, 53, 0x30, 0x39, 0, 8, 0, 0]
}

fn fragment(next: u8, offset: u16, more: bool, rest: &[u8]) -> Vec<u8> {
    let field = (offset & 0xfff8) | u16::from(more);
    [&[next, 0], &field.to_be_bytes()[..], &[0, 0, 0, 7], rest].concat()
}

fn table(rules: &[&str]) -> RuleTable {
    let rules = rules.iter().map(|r| r.parse().unwrap_or_else(|e: RuleError| panic!("{r}: {e}"))).collect();
    RuleTable::new("f", &FilterSpec { rules }, None)
}

fn judge(t: &RuleTable, v: &[u8]) -> Judged {
    let p = Packet::parse(Packet::sniff(v).unwrap(), v).unwrap();
    t.judge(&p, v)
}

#[test]
fn each_condition_matches_and_does_not() {
    let rows: &[(&str, Vec<u8>, bool)] = &[
        ("allow", v4(6, &tcp(2), 0, false), true),
        ("allow", v6(17, &udp()), true),
        ("allow inet", v4(6, &tcp(2), 0, false), true),
        ("allow inet", v6(6, &tcp(2)), false),
        ("allow inet6", v6(6, &tcp(2)), true),
        ("allow tcp", v4(6, &tcp(2), 0, false), true),
        ("allow tcp", v4(17, &udp(), 0, false), false),
        ("allow proto 6", v6(6, &tcp(2)), true),
        ("allow from 192.0.2.0/24", v4(17, &udp(), 0, false), true),
        ("allow from 192.0.2.0/24", v6(17, &udp()), false),
        ("allow from 10.0.0.0/8,192.0.2.9", v4(17, &udp(), 0, false), true),
        ("allow to 198.51.100.8", v4(17, &udp(), 0, false), false),
        ("allow to 2001:db8:1::/48", v6(17, &udp()), true),
        ("allow tcp dport 22", v4(6, &tcp(2), 0, false), true),
        ("allow tcp dport 23", v4(6, &tcp(2), 0, false), false),
        ("allow tcp dport 1-21,80", v4(6, &tcp(2), 0, false), false),
        ("allow tcp dport 20-30", v6(6, &tcp(2)), true),
        ("allow udp sport 53", v4(17, &udp(), 0, false), true),
        ("allow tcp sport 12345 dport 22", v4(6, &tcp(2), 0, false), true),
        ("allow tcp established", v4(6, &tcp(2), 0, false), false),
        ("allow tcp established", v4(6, &tcp(0x12), 0, false), true),
        ("allow tcp established", v6(6, &tcp(4)), true),
        ("allow established", v4(6, &tcp(0x10), 0, false), true),
        ("allow dscp ef", v4(17, &udp(), 0, false), true),
        ("allow dscp 46", v6(17, &udp()), true),
        ("allow dscp cs6", v4(17, &udp(), 0, false), false),
        ("allow icmp type echo-request", v4(1, &[8, 0, 0, 0], 0, false), true),
        ("allow icmp type echo-request", v4(1, &[0, 0, 0, 0], 0, false), false),
        ("allow icmp type 3 code 4", v4(1, &[3, 4, 0, 0], 0, false), true),
        ("allow icmp type 3 code 4", v4(1, &[3, 1, 0, 0], 0, false), false),
        ("allow icmpv6 type echo-request,1-4", v6(58, &[2, 0, 0, 0]), true),
        ("allow icmpv6 type echo-request,1-4", v6(58, &[129, 0, 0, 0]), false),
        ("allow fragment", v4(17, &udp(), 0, true), true),
        ("allow fragment", v4(17, &udp(), 0, false), false),
        // Extension headers are walked.
        ("allow tcp dport 22", v6(60, &[&[6, 0, 1, 4, 0, 0, 0, 0], &tcp(2)[..]].concat()), true),
        ("allow tcp dport 22", v6(44, &fragment(6, 0, false, &tcp(2))), true),
    ];
    for (rule, v, want) in rows {
        let judged = judge(&table(&[rule]), v);
        assert_eq!(judged.action == Action::Allow, *want, "{rule}: {v:02x?}");
        assert!(!judged.hidden, "{rule}");
    }
}

#[test]
fn the_first_rule_that_matches_decides_and_nothing_else_passes() {
    let t = table(&["deny tcp dport 22", "reject udp", "allow from 192.0.2.0/24"]);
    let rows = [
        (v4(6, &tcp(2), 0, false), Action::Deny, Some(0)),
        (v4(17, &udp(), 0, false), Action::Reject, Some(1)),
        (v4(47, &[0; 8], 0, false), Action::Allow, Some(2)),
        (v6(59, &[]), Action::Deny, None),
    ];
    for (v, action, rule) in rows {
        assert_eq!(judge(&t, &v), Judged { action, rule, hidden: false });
    }
    assert_eq!(judge(&table(&[]), &v6(59, &[])).action, Action::Deny);
}

/// What hides a transport header, or puts another in its place, never passes a filter that looks there, whatever it allows.
/// Proves rfc1858-3-tiny, rfc1858-4-overlap, rfc3128-3-offset-one.
#[test]
fn hidden_headers_never_pass() {
    let deep = table(&["allow tcp dport 80", "allow"]);
    let flat = table(&["allow from 192.0.2.0/24", "allow inet6"]);
    let options = |n: usize| [60, 0, 1, 4, 0, 0, 0, 0].repeat(n);
    let rows: &[(&str, Vec<u8>, bool)] = &[
        ("tiny first fragment (RFC 1858 3)", v4(6, &tcp(2)[..8], 0, true), true),
        ("first fragment up to the flags", v4(6, &tcp(2)[..16], 0, true), false),
        ("overlapping fragment (RFC 1858 4)", v4(6, &tcp(2)[8..], 8, true), true),
        ("offset one, last (RFC 3128)", v4(6, &tcp(2)[8..], 8, false), true),
        ("offset two", v4(6, &[0; 16], 16, false), false),
        ("offset one of UDP", v4(17, &[0; 16], 8, false), false),
        ("TCP cut short", v4(6, &tcp(2)[..12], 0, false), true),
        ("UDP cut short", v4(17, &[0, 53], 0, false), true),
        ("UDP with ports", v4(17, &udp()[..4], 0, true), false),
        ("ICMP cut short", v4(1, &[8], 0, false), true),
        ("IPv6 tiny first fragment", v6(44, &fragment(6, 0, true, &tcp(2)[..8])), true),
        ("IPv6 first fragment", v6(44, &fragment(6, 0, true, &tcp(2))), false),
        ("IPv6 overlapping fragment", v6(44, &fragment(6, 8, true, &tcp(2)[8..])), true),
        ("IPv6 chain in a later fragment (RFC 7112)", v6(44, &fragment(60, 0, true, &options(1)[..8])), true),
        ("IPv6 later fragment", v6(44, &fragment(6, 1280, false, &[0; 8])), false),
        ("more extension headers than are walked", v6(60, &options(20)), true),
    ];
    for (what, v, hidden) in rows {
        let j = judge(&deep, v);
        assert_eq!((j.hidden, j.action == Action::Allow), (*hidden, !hidden), "{what}");
        assert_eq!(judge(&flat, v).action, Action::Allow, "{what}: a filter by addresses alone need not see it");
    }
}

#[test]
fn later_fragments_follow_their_first() {
    let later = v4(17, &[7; 16], 1480, false);
    let rows: &[(&[&str], Action)] = &[
        (&["allow udp dport 53"], Action::Allow),
        (&["allow tcp dport 53"], Action::Deny),
        (&["deny udp dport 53", "allow"], Action::Allow),
        (&["deny udp", "allow"], Action::Deny),
        (&["deny fragment", "allow udp dport 53"], Action::Deny),
        (&["allow udp from 10.0.0.0/8 dport 53"], Action::Deny),
        (&["allow established"], Action::Deny),
    ];
    for (rules, want) in rows {
        assert_eq!(judge(&table(rules), &later).action, *want, "{rules:?}");
    }
}

#[test]
fn texts_that_are_no_rule_say_why() {
    let rows = [
        ("", "begins with"),
        ("permit-all", "begins with"),
        ("allow tcp udp", "twice"),
        ("allow dport 80", "ports belong to a protocol"),
        ("allow icmp dport 80", "ports belong to a protocol"),
        ("allow tcp dport 99999", "is not a port"),
        ("allow tcp dport 80-22", "is not a port"),
        ("allow tcp dport", "a value must follow"),
        ("allow from 192.0.2.0/24 to 2001:db8::/32", "both families"),
        ("allow inet from 2001:db8::/32", "both families"),
        ("allow from 192.0.2.1/24", "192.0.2.0/24"),
        ("allow icmp inet6", "IPv6 has icmpv6"),
        ("allow type echo-request", "belongs to icmp"),
        ("allow icmp type too-big", "is not a type of ICMP"),
        ("allow icmp code 3", "belongs to a type"),
        ("allow udp established", "only tcp"),
        ("allow dscp 64", "code point"),
        ("allow proto tcpp", "a protocol is a number"),
        ("allow sideways", "no word of a rule"),
        ("allow tcp dport 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", "two rules"),
    ];
    for (text, why) in rows {
        let e = text.parse::<Rule>().unwrap_err();
        assert!(e.why.contains(why), "{text:?}: {e}");
    }
}

#[test]
fn replaced_rules_keep_their_counts() {
    let spec = |rules: &[&str]| FilterSpec { rules: rules.iter().map(|r| r.parse().unwrap()).collect() };
    let first = RuleTable::new("f", &spec(&["allow udp", "allow tcp"]), None);
    let v = v4(6, &tcp(2), 0, false);
    for part in 0..20 {
        let j = judge(&first, &v);
        first.count(part, &j, 40);
    }
    let second = RuleTable::new("f", &spec(&["deny tcp dport 23", "allow tcp", "allow tcp"]), Some(&first));
    let counts: Vec<_> = second.rules().map(|(_, c)| c).collect();
    assert_eq!(counts, [(0, 0), (20, 800), (0, 0)]);
    assert_eq!(first.rest().0, (0, 0));
}

/// Any rule that can be written.
fn any_rule() -> impl Strategy<Value = String> {
    let action = prop_oneof![Just("allow"), Just("deny"), Just("reject")];
    let nets = prop_oneof![
        Just(""),
        Just(" from 192.0.2.0/24"),
        Just(" to 198.51.100.7"),
        Just(" from 2001:db8::/32,fd00::/8"),
        Just(" from 2001:db8::9 to 2001:db8:1::/48"),
        Just(" from 10.0.0.0/8"),
        Just(" inet"),
        Just(" inet6"),
    ];
    let deep = prop_oneof![
        Just(String::new()),
        Just(" established".to_owned()),
        Just(" proto 17".to_owned()),
        Just(" fragment".to_owned()),
        Just(" dscp ef".to_owned()),
        (0u16..200, 0u16..200).prop_map(|(a, b)| format!(" tcp dport {}-{}", a.min(b), a.max(b))),
        (0u16..200).prop_map(|a| format!(" udp sport {a},1024-65535")),
    ];
    (action, nets, deep).prop_map(|(a, n, d)| format!("{a}{n}{d}"))
}

/// Rule by rule as the words say it, on the packet's own bytes: the model.
fn model(rule: &Rule, v: &[u8]) -> bool {
    let v4 = v[0] >> 4 == 4;
    let (mut proto, mut at, tclass) = match v4 {
        true => (v[9], 20, v[1]),
        false => (v[6], 40, (v[0] << 4) | (v[1] >> 4)),
    };
    let (mut offset, mut more) = (0, false);
    if v4 {
        (offset, more) = ((u16::from_be_bytes([v[6], v[7]]) & 0x1fff) * 8, v[6] & 0x20 != 0);
    } else if proto == 44 {
        let field = u16::from_be_bytes([v[42], v[43]]);
        (proto, at, offset, more) = (v[40], 48, field & 0xfff8, field & 1 == 1);
    }
    let src: IpAddr = if v4 {
        <[u8; 4]>::try_from(&v[12..16]).unwrap().into()
    } else {
        <[u8; 16]>::try_from(&v[8..24]).unwrap().into()
    };
    let dst: IpAddr = if v4 {
        <[u8; 4]>::try_from(&v[16..20]).unwrap().into()
    } else {
        <[u8; 16]>::try_from(&v[24..40]).unwrap().into()
    };
    let family = if v4 { Family::Inet } else { Family::Inet6 };
    let shallow = rule.family.is_none_or(|f| f == family)
        && rule.proto.is_none_or(|p| p == proto)
        && rule.dscp.is_none_or(|d| d == tclass >> 2)
        && (!rule.fragment || offset > 0 || more)
        && (rule.from.is_empty() || rule.from.iter().any(|n| n.contains(&src)))
        && (rule.to.is_empty() || rule.to.iter().any(|n| n.contains(&dst)));
    let port = |i: usize| u16::from_be_bytes([v[at + i], v[at + i + 1]]);
    let ports = |list: &[crate::filter::rule::Range<u16>], i: usize| {
        list.is_empty() || list.iter().any(|r| (r.least..=r.most).contains(&port(i)))
    };
    let deep = !rule.looks_deep()
        || match offset {
            0 => ports(&rule.sport, 0) && ports(&rule.dport, 2) && (!rule.established || v[at + 13] & 0x14 != 0),
            _ => rule.action == Action::Allow,
        };
    shallow && deep
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn a_filter_says_what_its_rules_say_one_by_one(
        rules in proptest::collection::vec(any_rule(), 0..6),
        v6_packet: bool, is_tcp: bool, flags: u8, sport in 0u16..300, dport in 0u16..300,
        offset in prop_oneof![Just(0u16), Just(16), Just(1480)], more: bool, fragmented: bool,
    ) {
        // What the words cannot join is no rule: left out here.
        let rules: Vec<Rule> = rules.iter().filter_map(|r| r.parse().ok()).collect();
        let mut t = if is_tcp { tcp(flags) } else { [udp(), vec![0; 12]].concat() };
        t[..2].copy_from_slice(&sport.to_be_bytes());
        t[2..4].copy_from_slice(&dport.to_be_bytes());
        let proto = if is_tcp { 6 } else { 17 };
        let (offset, more) = if fragmented { (offset, more) } else { (0, false) };
        let v = match (v6_packet, fragmented) {
            (true, true) => v6(44, &fragment(proto, offset, more, &t)),
            (true, false) => v6(proto, &t),
            (false, _) => v4(proto, &t, offset, more),
        };
        let want = rules.iter().position(|r| model(r, &v));
        let spec = FilterSpec { rules };
        let got = judge(&RuleTable::new("f", &spec, None), &v);
        prop_assert_eq!(got.rule.map(|i| i as usize), want);
        prop_assert_eq!(got.action, want.map_or(Action::Deny, |i| spec.rules[i].action));
    }

    #[test]
    fn what_is_shown_can_be_written_again(text in any_rule()) {
        if let Ok(rule) = text.parse::<Rule>() {
            prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule), "{}", text);
        }
    }

    #[test]
    fn any_text_is_a_rule_or_an_error(text in "\\PC{0,60}") {
        let _ = text.parse::<Rule>();
    }
}
