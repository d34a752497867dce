use super::*;
use proptest::prelude::*;
use router_core::port::TableId;
use router_core::spec::{HopSpec, NextHopKind, NudState, RouteKind};

fn parse(line: &str) -> Result<Command, Failure> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (options, rest) = parse_options(&words)?;
    parse_command(rest, options.family)
}

fn route(line: &str) -> RouteSpec {
    match parse(&format!("route add {line}")) {
        Ok(Command::Route(RouteCommand::Modify(RouteOp::Add, spec))) => *spec,
        other => panic!("{line}: {other:?}"),
    }
}

fn hop(via: Option<&str>, dev: Option<&str>) -> HopSpec {
    HopSpec { via: via.map(|v| v.parse().unwrap()), dev: dev.map(str::to_owned), weight: 1, onlink: false }
}

#[test]
fn abbreviations_in_iproute2s_order() {
    let kind = |line: &str| match parse(line).unwrap() {
        Command::Route(RouteCommand::Show(_)) => "route show",
        Command::Route(RouteCommand::Modify(op, _)) => match op {
            RouteOp::Add => "route add",
            RouteOp::Replace => "route replace",
            RouteOp::Change => "route change",
            RouteOp::Append => "route append",
            RouteOp::Prepend => "route prepend",
            RouteOp::Delete => "route del",
        },
        Command::Route(RouteCommand::Flush(_)) => "route flush",
        Command::Route(RouteCommand::Save(_)) => "route save",
        Command::Route(RouteCommand::Get(_)) => "route get",
        Command::Route(RouteCommand::Restore) => "route restore",
        Command::Addr(AddrCommand::Show(_)) => "addr show",
        Command::Link(LinkCommand::Show(_)) => "link show",
        Command::Link(LinkCommand::Set(_)) => "link set",
        Command::Neigh(NeighCommand::Show(_)) => "neigh show",
        Command::Tunnel(TunnelCommand::Show(_)) => "tunnel show",
        Command::NextHop(NextHopCommand::Show(_)) => "nexthop show",
        Command::Rule(_) => "rule show",
        Command::Vrf(_) => "vrf show",
        Command::Help(_) => "help",
        other => panic!("{other:?}"),
    };
    for (line, want) in [
        ("r", "route show"),
        ("ro", "route show"),
        ("ro l", "route show"),
        ("r s", "route show"),
        ("r lst", "route show"),
        ("ru", "rule show"),
        ("a", "addr show"),
        ("a s lan0", "addr show"),
        ("l", "link show"),
        ("l sh", "link show"),
        ("l s lan0 up", "link set"),
        ("n", "neigh show"),
        ("neighbour", "neigh show"),
        ("t", "tunnel show"),
        ("tunl", "tunnel show"),
        ("nex", "nexthop show"),
        ("r a 10/8 dev x", "route add"),
        ("r ap 10/8 dev x", "route append"),
        ("r r 10/8 dev x", "route replace"),
        ("r res", "route restore"),
        ("r c 10/8 dev x", "route change"),
        ("r p 10/8 dev x", "route prepend"),
        ("r d 10/8", "route del"),
        ("r f table 100", "route flush"),
        ("r sa", "route save"),
        ("r g 10.0.0.1", "route get"),
        ("r h", "help"),
    ] {
        assert_eq!(kind(line), want, "{line}");
    }
}

#[test]
fn routes() {
    let r = route("203.0.113.0/24 via inet6 2001:db8::22 dev lan0 proto static");
    assert_eq!(r.hops, [hop(Some("2001:db8::22"), Some("lan0"))]);
    assert_eq!((r.dst.to_string().as_str(), r.proto), ("203.0.113.0/24", Some(4)));
    // Family inferred, mapped notation, short prefixes, `to`.
    assert_eq!(route("10.0.0.0/8 via 2001:db8::1").hops, [hop(Some("2001:db8::1"), None)]);
    assert_eq!(route("10.0.0.0/8 via ::ffff:192.0.2.1").hops, [hop(Some("192.0.2.1"), None)]);
    assert_eq!(route("10.0.0.0/8 via inet ::ffff:192.0.2.1").hops, [hop(Some("192.0.2.1"), None)]);
    assert_eq!(route("::ffff:10.0.0.0/104 via 192.0.2.1").dst.to_string(), "10.0.0.0/8");
    assert_eq!(route("to 10/8 via 192.0.2.1").dst.to_string(), "10.0.0.0/8");
    assert_eq!(route("2001:db8::/32 via 192.0.2.1").hops, [hop(Some("192.0.2.1"), None)]);
    // Words in any order, `metric` by all its names.
    for word in ["metric", "preference", "priority", "m", "pri"] {
        assert_eq!(route(&format!("dev lan0 {word} 0x10 10/8")).metric, Some(16), "{word}");
    }
    let r = route("blackhole 10/8 table 100 metric 5");
    assert_eq!((r.kind, r.table, r.hops.len()), (RouteKind::Blackhole, Some(TableId(100)), 0));
    let r = route("10/8 src 192.0.2.1 mtu lock 1400 table main via 192.0.2.9 dev lan0 onlink scope global");
    assert_eq!((r.mtu, r.src, r.hops[0].onlink), (Some(1400), Some("192.0.2.1".parse().unwrap()), true));
    let r = route("10/8 proto bgp nexthop via inet6 fe80::1 dev a weight 3 nexthop via 192.0.2.1");
    assert_eq!(r.hops, [HopSpec { weight: 3, ..hop(Some("fe80::1"), Some("a")) }, hop(Some("192.0.2.1"), None)]);
    assert_eq!(route("10/8 nhid 7").nhid, Some(7));
    assert_eq!(route("10/8 dev x forwarder mirror").forwarder.as_deref(), Some("mirror"));
}

#[test]
fn default_routes() {
    let dst = |line: &str| match parse(line) {
        Ok(Command::Route(RouteCommand::Modify(_, spec))) => spec.dst.to_string(),
        Err(f) => f.hint.unwrap_or(f.line),
        other => panic!("{other:?}"),
    };
    let ambiguous = "say 0.0.0.0/0 or -4 for the IPv4 default route, ::/0 or -6 for the IPv6 one";
    for (line, want) in [
        ("route add default via 192.0.2.1", "0.0.0.0/0"),
        ("route add default via 2001:db8::1", "::/0"),
        ("route add default dev x", "0.0.0.0/0"),
        ("route add blackhole default", "0.0.0.0/0"),
        ("-6 route add blackhole default", "::/0"),
        ("route add default via inet6 2001:db8::1", ambiguous),
        ("route del default via inet6 2001:db8::1", ambiguous),
        ("route add default nexthop via inet6 2001:db8::1 nexthop via 192.0.2.1", ambiguous),
        ("route add default nexthop via 2001:db8::1 nexthop via 192.0.2.1", ambiguous),
        ("-4 route add default via inet6 2001:db8::1", "0.0.0.0/0"),
        ("-6 route add default via inet6 2001:db8::1", "::/0"),
        ("route add 0.0.0.0/0 via inet6 2001:db8::1", "0.0.0.0/0"),
        ("route add ::/0 via inet6 2001:db8::1", "::/0"),
        ("route add default via ::ffff:192.0.2.1", "0.0.0.0/0"),
    ] {
        assert_eq!(dst(line), want, "{line}");
    }
}

#[test]
fn errors_say_what_iproute2_says() {
    for (line, code, want) in [
        ("route add x/24 via 192.0.2.9", 1, "Error: any valid prefix is expected rather than \"x/24\"."),
        ("route add 10.0.0.0/33 dev x", 1, "Error: any valid prefix is expected rather than \"10.0.0.0/33\"."),
        ("route add 10.0.0.1/24 dev x", 2, "Error: Invalid prefix for given prefix length."),
        ("route add 10/8 via 192.0.2.x", 1, "Error: any valid address is expected rather than \"192.0.2.x\"."),
        ("route add 10/8 via inet6 192.0.2.9", 1, "Error: inet6 address is expected rather than \"192.0.2.9\"."),
        ("route add 10/8 via inet 2001:db8::9", 1, "Error: inet address is expected rather than \"2001:db8::9\"."),
        ("route add 10/8 via", 255, "Command line is not complete. Try option \"help\""),
        ("route add 10/8 metric x dev y", 255, "Error: argument \"x\" is wrong: \"metric\" value is invalid"),
        ("route add 10/8 proto xx dev y", 255, "Error: argument \"xx\" is wrong: \"protocol\" value is invalid"),
        ("route add 10/8 proto 300 dev y", 255, "Error: argument \"300\" is wrong: \"protocol\" value is invalid"),
        ("route add 10/8 table xx dev y", 255, "Error: argument \"xx\" is wrong: \"table\" value is invalid"),
        ("route add 10/8 scope xx dev y", 255, "Error: argument \"xx\" is wrong: invalid \"scope\" value"),
        (
            "route add 10/8 via 192.0.2.9 via 192.0.2.10",
            255,
            "Error: argument \"via\" is wrong: use nexthop syntax to specify multiple via",
        ),
        (
            "route add 10/8 via 192.0.2.9 10.0.0.0/9",
            255,
            "Error: either \"to\" is duplicate, or \"10.0.0.0/9\" is a garbage.",
        ),
        ("route add 10/8", 2, "RTNETLINK answers: No such device"),
        ("route add 10/8 foo", 255, "Error: either \"to\" is duplicate, or \"foo\" is a garbage."),
        ("route add 10/8 nexthop via 192.0.2.9 weight 0", 255, "Error: argument \"0\" is wrong: \"weight\" is invalid"),
        (
            "route add 10/8 nexthop via 192.0.2.9 foo",
            255,
            "Error: \"nexthop\" or end of line is expected instead of \"foo\"",
        ),
        ("route add 10/8 nexthop", 255, "Error: unexpected end of line after \"nexthop\""),
        ("route add 10/8 nhid x", 255, "Error: argument \"x\" is wrong: \"id\" value is invalid"),
        ("-6 route add 10.0.0.0/8 via fe80::1", 1, "Error: inet6 prefix is expected rather than \"10.0.0.0/8\"."),
        ("-4 route add 2001:db8::/32 dev x", 1, "Error: inet prefix is expected rather than \"2001:db8::/32\"."),
        ("-6 route add default via fe80::1", 2, "Error: Egress device not specified."),
        ("route add 10/8 via inet6 fe80::1", 2, "Error: Egress device not specified."),
        ("route frobnicate", 255, "Command \"frobnicate\" is unknown, try \"duet route help\"."),
        ("frobnicate", 1, "Object \"frobnicate\" is unknown, try \"duet help\"."),
        ("route flush", 1, "\"duet route flush\" requires arguments."),
        ("route show foo", 1, "Error: any valid prefix is expected rather than \"foo\"."),
        ("route show proto xx", 255, "Error: argument \"xx\" is wrong: invalid \"protocol\""),
        ("route show table xx", 255, "Error: argument \"xx\" is wrong: table id value is invalid"),
        ("route get", 1, "need at least a destination address"),
        (
            "route add 10/8 dev averyveryverylongname",
            255,
            "Error: argument \"averyveryverylongname\" is wrong: \"dev\" not a valid ifname",
        ),
        ("link set lan0 mtu x", 255, "Error: argument \"x\" is wrong: Invalid \"mtu\" value"),
        ("link set", 255, "Not enough information: \"dev\" argument is required."),
        ("link foo", 255, "Command \"foo\" is unknown, try \"duet link help\"."),
        ("link set lan0 foo", 255, "Error: either \"dev\" is duplicate, or \"foo\" is a garbage."),
        ("addr add 192.0.2.1/24", 1, "Not enough information: \"dev\" argument is required."),
        ("addr add x dev lan0", 1, "Error: any valid prefix is expected rather than \"x\"."),
        ("addr add 192.0.2.1/24 foo", 255, "Error: either \"local\" is duplicate, or \"foo\" is a garbage."),
        ("addr flush", 1, "Flush requires arguments."),
        ("addr foo", 255, "Command \"foo\" is unknown, try \"duet address help\"."),
        ("neigh foo", 255, "Command \"foo\" is unknown, try \"duet neigh help\"."),
        ("neigh add 192.0.2.9 lladdr 02:00:00:00:00:09", 255, "Device and destination are required arguments."),
        ("neigh add 192.0.2.9 lladdr 02:00 dev lan0", 2, "Error: Invalid link address."),
        ("neigh flush", 1, "Flush requires arguments."),
        ("neigh get 192.0.2.123", 1, "Device and address are required arguments."),
        ("tunnel add he", 255, "cannot determine tunnel mode (ipip, gre, sit ...)"),
        ("nexthop add id x", 255, "Error: argument \"x\" is wrong: invalid id value"),
        ("nexthop add id 1", 2, "Error: Invalid address family."),
        ("nexthop add id 2 group x", 255, "Error: argument \"x\" is wrong: \"group\" value is invalid"),
        ("nexthop foo", 255, "Command \"foo\" is unknown, try \"duet nexthop help\"."),
    ] {
        let f = parse(line).expect_err(line);
        assert_eq!((f.exit, f.line.as_str()), (code, want), "{line}");
    }
}

#[test]
fn other_objects() {
    let Command::Neigh(NeighCommand::Modify(Verb::Add, n)) =
        parse("neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev lan0 nud stale").unwrap()
    else {
        panic!()
    };
    assert_eq!((n.dev.as_str(), n.state), ("lan0", Some(NudState::Stale)));
    for mode in ["sit", "6in4", "ipv6/ip"] {
        let line =
            format!("tunnel add he mode {mode} remote 203.0.113.5 local 198.51.100.7 ttl 64 tos inherit dev wan0");
        let Command::Tunnel(TunnelCommand::Add(t)) = parse(&line).unwrap() else { panic!() };
        assert_eq!((t.name.as_str(), t.ttl, t.tos, t.dev.as_deref()), ("he", Some(64), None, Some("wan0")));
    }
    // iproute2's words for every mode, by tunnel and by link.
    for (line, mode, overhead) in [
        ("tunnel add t mode ipip remote 203.0.113.5 local 198.51.100.7", "4in4", 20),
        ("tunnel add t mode gre remote 203.0.113.5 local 198.51.100.7 key 5 seq csum", "gre", 36),
        ("-6 tunnel add t mode ip6ip6 remote 2001:db8::5 local 2001:db8::7 encaplimit 4", "6in6", 48),
        ("-6 tunnel add t mode ipip6 remote 2001:db8::5 local 2001:db8::7", "4in6", 40),
        ("-6 tunnel add t mode any remote 2001:db8::5 local 2001:db8::7 hoplimit 9 tclass 20", "any-in-6", 40),
        ("-6 tunnel add t mode gre remote 2001:db8::5 local 2001:db8::7 key 1.2.3.4", "gre6", 48),
        ("link add t type sit mode any remote 203.0.113.5 local 198.51.100.7", "any-in-4", 20),
        ("link add name t mtu 1400 type ip6tnl mode ipip6 remote 2001:db8::5 local 2001:db8::7", "4in6", 40),
        ("link add t type ip6gre remote 2001:db8::5 local 2001:db8::7", "gre6", 44),
        (
            "link add t type sit remote 203.0.113.5 local 198.51.100.7 encap gue encap-sport auto encap-dport 5",
            "6in4",
            32,
        ),
        ("link add t type ipip remote 203.0.113.5 local 198.51.100.7 encap fou encap-dport 5", "4in4", 28),
        ("tunnel add t mode 6rd local 198.51.100.7 6rd-prefix 2001:db8::/32", "6rd", 20),
        ("tunnel add t mode 6to4 local 198.51.100.7 allow-6to4", "6to4", 20),
        (
            "tunnel add t mode gre remote 203.0.113.5 local 198.51.100.7 key 5 keepalive gre interval 500 keepalive-answer",
            "gre",
            28,
        ),
        ("tunnel add t mode sit remote 203.0.113.5 local 198.51.100.7 keepalive 2001:db8::1 probe-mtu", "6in4", 20),
        ("tunnel add t mode sit remote tunnel.example.net local-dev eth0 allowed 2001:db8::/48 rate 9", "6in4", 20),
    ] {
        let t = match parse(line) {
            Ok(Command::Tunnel(TunnelCommand::Add(t))) => t,
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!((t.mode.shape().name, t.overhead()), (mode, overhead), "{line}");
    }
    for (line, what) in [
        ("tunnel add t mode 6to4 local 198.51.100.7", "RFC 7526"),
        ("tunnel add t mode sit remote 203.0.113.5 local 2001:db8::1", "needs IPv4"),
        ("tunnel add t mode sit remote 203.0.113.5 local 198.51.100.7 key 5", "not for a 6in4"),
        ("tunnel add t mode gre remote 203.0.113.5 local 198.51.100.7 encap fou", "encap-dport"),
        ("tunnel add t mode sit remote 203.0.113.5 local 198.51.100.7 keepalive gre", "not for a 6in4"),
        ("tunnel add t mode gre remote 203.0.113.5 local 198.51.100.7 probe-mtu", "keepalive"),
    ] {
        let e = parse(line).unwrap_err();
        assert!(e.line.contains(what), "{line}: {}", e.line);
    }
    let Command::NextHop(NextHopCommand::Add(n)) = parse("nexthop add id 3 group 1/4,10 proto bgp").unwrap() else {
        panic!()
    };
    assert_eq!((n.kind, n.proto), (NextHopKind::Group(vec![(1, 1), (4, 10)]), Some(186)));
    let line =
        "nexthop replace id 3 group 1/4,10 type resilient buckets 64 idle_timer 60 unbalanced_timer 300 proto bgp";
    let Command::NextHop(NextHopCommand::Replace(n)) = parse(line).unwrap() else { panic!() };
    let r = n.resilient.unwrap();
    assert_eq!((r.buckets, r.idle_timer, r.unbalanced_timer, n.proto), (Some(64), Some(60), Some(300), Some(186)));
    let Command::NextHop(NextHopCommand::Buckets(s)) = parse("nexthop bucket list id 3 nhid 4 dev lan0").unwrap()
    else {
        panic!()
    };
    assert_eq!((s.id, s.nhid, s.dev.as_deref()), (Some(3), Some(4), Some("lan0")));
    assert!(matches!(parse("nexthop bucket get id 3 index 7").unwrap(), Command::NextHop(NextHopCommand::Bucket(_))));
    for (line, what) in [
        ("nexthop add id 3 group 1/2 type resilient buckets 65536", "invalid buckets value"),
        ("nexthop add id 3 group 1/2 type random", "\"type\" value is invalid"),
        ("nexthop add id 3 blackhole type resilient buckets 4", "for groups"),
        ("nexthop bucket get id 3", "a group and a bucket are expected"),
        ("rule add oif lan0 lookup 100", "bound to a device"),
        ("rule add uidrange 0-99 lookup 100", "local users"),
        ("rule add tun_id 7 lookup 100", "without a configured peer"),
        ("route add 10.0.0.0/8 via 192.0.2.9 advmss 100", "advmss"),
    ] {
        let e = parse(line).unwrap_err();
        assert!(e.line.contains(what), "{line}: {}", e.line);
    }
    let Command::Addr(AddrCommand::Modify(Verb::Add, dev, net)) =
        parse("addr add ::ffff:192.0.2.1/120 dev lan0").unwrap()
    else {
        panic!()
    };
    assert_eq!((dev.as_str(), net.to_string().as_str()), ("lan0", "192.0.2.1/24"));
}

/// Words that occur in the grammar, so that random lines get deep into it.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "route", "neigh", "link", "addr", "tunnel", "nexthop", "rule", "add", "del", "replace", "show", "get", "flush",
            "set", "save", "via", "dev", "inet", "inet6", "metric", "proto", "table", "all", "main", "nexthop", "weight",
            "nhid", "id", "group", "1/2,3", "to", "default", "blackhole", "unicast", "mtu", "lock", "src", "scope", "link",
            "onlink", "root", "match", "exact", "lladdr", "nud", "mode", "sit", "remote", "local", "ttl", "tos", "up",
            "-4", "-6", "-j", "-batch", "-", "--", "10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "fe80::1", "lan0",
            "::ffff:10.0.0.0/104", "02:00:00:00:00:01", "255", "0x", "", "type", "forwarder", "pref", "medium",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,20}",
        1 => "[0-9a-f:./,]{0,24}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn any_words_give_a_command_or_a_failure(words in prop::collection::vec(word(), 0..14)) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if let Ok((o, rest)) = parse_options(&words) {
            match parse_command(rest, o.family) {
                Ok(_) => {}
                Err(f) => prop_assert!(!f.line.is_empty() && [1, 2, 255].contains(&f.exit)),
            }
        }
        let _ = parse_route_line(&words, None);
        let _ = parse_neigh_line(&words);
        let _ = parse_nexthop_line(&words);
    }

    #[test]
    fn any_line_tokenizes(line in "\\PC*") {
        for t in tokenize(&line) {
            prop_assert!(t.start <= line.len() && line.is_char_boundary(t.start));
        }
    }
}

/// What follows `rule add`, and how the rule reads when shown.
#[test]
fn rules_in_the_words_of_ip_rule() {
    let rows = [
        ("from 10.0.0.0/8 lookup 100", "from 10.0.0.0/8 lookup 100"),
        ("from 10.1.2.3 table main", "from 10.1.2.3 lookup main"),
        ("to 192.0.2.0/24 iif lan0 prohibit", "from all to 192.0.2.0/24 iif lan0 prohibit"),
        ("not fwmark 0x10/0xff table 7", "not from all fwmark 0x10/0xff lookup 7"),
        ("fwmark 7 blackhole", "from all fwmark 0x7 blackhole"),
        ("dscp EF lookup 9 pref 10", "from all dscp 46 lookup 9"),
        ("dscp AF41 lookup 9", "from all dscp 34 lookup 9"),
        ("tos 0xb8 lookup 9", "from all dscp 46 lookup 9"),
        ("ipproto tcp dport 80-90 sport 1 unreachable", "from all ipproto tcp sport 1 dport 80-90 unreachable"),
        ("table main suppress_prefixlength 0", "from all lookup main suppress_prefixlength 0"),
        ("goto 900 priority 5", "from all goto 900"),
        ("l3mdev", "from all lookup [l3mdev-table]"),
        ("from 2001:db8::/32 type unreachable", "from 2001:db8::/32 unreachable"),
    ];
    for (text, want) in rows {
        let words: Vec<&str> = text.split(' ').collect();
        let read = parse_rule_line(&words, None).map_or_else(|f| f.line, |r| r.to_string());
        assert_eq!(read, want, "{text}");
    }
    for (text, why) in [
        ("from 10.0.0.0/8", "does nothing"),
        ("from 10.0.0.1/8 lookup 1", "10.0.0.0/8"),
        ("from 10.0.0.0/8 to 2001:db8::/32 lookup 1", "is an inet6 prefix"),
        ("dscp 64 lookup 1", "dscp"),
        ("dport 90-80 lookup 1", "port range"),
        ("lookup 1 prohibit", "duplicate"),
        ("frm 10.0.0.0/8", "rule type"),
    ] {
        let words: Vec<&str> = text.split(' ').collect();
        let failure = parse_rule_line(&words, None).expect_err(text);
        let all = format!("{} {}", failure.line, failure.hint.unwrap_or_default());
        assert!(all.to_lowercase().contains(why), "{text}: {all}");
    }
}
