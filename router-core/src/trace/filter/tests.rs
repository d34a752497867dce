use super::*;
use proptest::prelude::*;

fn ports(name: &str) -> Option<PortId> {
    (name == "lan0").then_some(PortId(3))
}

fn parse(text: &str) -> Filter {
    Filter::parse(text, &ports).unwrap_or_else(|e| panic!("{}\n{}", e, e.picture(text)))
}

/// An Ethernet frame with a UDP packet 192.0.2.1:1000 > 198.51.100.2:53.
fn udp4() -> Vec<u8> {
    let mut v = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    v.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2]);
    v.extend([0x03, 0xe8, 0, 53, 0, 8, 0, 0]);
    v
}

/// TCP 2001:db8::1:443 > 2001:db8::2:50000.
fn tcp6() -> Vec<u8> {
    let mut v = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd];
    v.extend([0x60, 0, 0, 0, 0, 20, 6, 64]);
    v.extend("2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    v.extend("2001:db8::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    v.extend([0x01, 0xbb, 0xc3, 0x50]);
    v.extend([0; 16]);
    v
}

#[test]
fn primitives_and_their_meaning() {
    let (v4, v6) = (udp4(), tcp6());
    for (text, on4, on6) in [
        ("", true, true),
        ("ip", true, false),
        ("ip6", false, true),
        ("arp", false, false),
        ("udp", true, false),
        ("tcp", false, true),
        ("icmp or icmp6", false, false),
        ("host 192.0.2.1", true, false),
        ("src host 192.0.2.1", true, false),
        ("dst host 192.0.2.1", false, false),
        ("dst 198.51.100.2 or 2001:db8::2", true, true),
        ("net 192.0.2", true, false),
        ("src and dst net 2001:db8::/32", false, true),
        ("src or dst port 53", true, false),
        ("port domain or https", true, true),
        ("tcp port 53", false, false),
        ("tcp src port 443", false, true),
        ("portrange 50-60", true, false),
        ("proto 17", true, false),
        ("ip6 proto tcp", false, true),
        ("proto \\tcp", false, true),
        ("not udp", false, true),
        ("!(udp or tcp)", false, false),
        ("udp && port 53 || tcp", true, true),
        ("less 42", true, false),
        ("greater 43", false, true),
        ("ether host 02:00:00:00:00:02", true, true),
        ("ether dst 02:00:00:00:00:02", false, false),
        ("ether proto 0x86dd", false, true),
        ("ether proto ip", true, false),
        ("broadcast or multicast", false, false),
        ("vlan", false, false),
        ("on lan0", true, true),
        ("inbound and udp", true, false),
        ("outbound", false, false),
        ("reason ttl_expired", false, false),
    ] {
        let f = parse(text);
        let got = [&v4, &v6].map(|v| f.matches(&Subject::new(PortId(3), v, true, None)));
        assert_eq!(got, [on4, on6], "{text}");
        // Without its link header it is the same packet, but for the stations.
        if !text.contains("ether") {
            let bare = [&v4, &v6].map(|v| f.matches(&Subject::new(PortId(3), &v[14..], false, None)));
            assert_eq!(bare, [on4, on6], "{text}, no link header");
        }
    }
    let s = Subject::new(PortId(1), &v4, true, None).dropped(DropReason::TtlExpired).outbound();
    assert!(parse("reason ttl_expired and outbound and not on lan0").matches(&s));
}

#[test]
fn bytes_and_arithmetic() {
    let (v4, mut v6) = (udp4(), tcp6());
    v6[14 + 40 + 13] = 0x12;
    for (text, on4, on6) in [
        ("ip[0] = 0x45", true, false),
        ("ip[0]==69", true, false),
        ("ip[0] = 0105", true, false),
        ("ip6[6] == 6", false, true),
        ("not ip6[6] = 6", true, false),
        ("!ip6[6]=6", true, false),
        ("tcp[13] & 2 != 0", false, true),
        ("tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn|tcp-ack", false, true),
        ("tcp[tcpflags]&(tcp-fin|tcp-rst)!=0", false, false),
        ("(tcp[13] & 2) != 0", false, true),
        ("((tcp[13]) & 2) != 0 or (udp[2:2] = 53)", true, true),
        ("udp[0:2] > 1023 and udp[0:2]<=1000+24-24", false, false),
        ("udp[0:2] >= 1000", true, false),
        ("udp[0:2]/2 = 500", true, false),
        ("udp[0:2]/2*2-1 = 999", true, false),
        ("len-14 = 28", true, false),
        ("len/2 = 21", true, false),
        ("42 = len", true, false),
        ("tcp-ack+tcp-rst <= ip[0] and tcp-syn = 2", true, false),
        ("len = ip[2:2] + 14", true, false),
        ("ip[2:2] - len = 0xfffffff2", true, false),
        ("ip[12:4] = 0xc0000201", true, false),
        ("ip[(ip[0]&0xf)<<2:2] = 1000", true, false),
        ("ip[ip[0]-0x45+8] = 64", true, false),
        ("ip[100] = 0 or ip[100] != 0", false, false),
        ("ip[0] / 0 = 1 or ip[0] % 0 != 1", false, false),
        ("-1 = 0xffffffff and udp", true, false),
        ("1 << 40 = 0 and tcp", false, true),
        ("2 ^ 3 | 4 = 5 and udp", true, false),
        ("port 53 or 443 and ip[8] = 64", true, false),
        ("net 192.0.2.0 mask 255.255.255.0", true, false),
        ("arp[6:2] = 1", false, false),
        ("icmp[icmptype] = icmp-echo or icmp6[icmp6type] = icmp6-echo", false, false),
    ] {
        let f = parse(text);
        let got = [&v4, &v6].map(|v| f.matches(&Subject::new(PortId(3), v, true, None)));
        assert_eq!(got, [on4, on6], "{text}");
        let bare = [&v4, &v6].map(|v| f.matches(&Subject::new(PortId(3), &v[14..], false, None)));
        assert_eq!(bare, [on4, on6], "{text}, no link header");
    }
    // A later fragment has no transport header.
    let mut later = udp4();
    later[21] = 1;
    assert!(!parse("udp[0:2] = 1000").matches(&Subject::new(PortId(3), &later, true, None)));
    let on_ether = parse("ether[0] & 1 = 0 and link[12:2] = 0x800");
    assert!(on_ether.matches(&Subject::new(PortId(3), &v4, true, None)));
    assert!(!on_ether.matches(&Subject::new(PortId(3), &v4[14..], false, None)));
}

#[test]
fn tags_are_looked_through() {
    let mut tagged = udp4();
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    let plain = udp4();
    for s in [Subject::new(PortId(1), &tagged, true, None), Subject::new(PortId(1), &plain, true, Some(0xe007))] {
        assert!(parse("vlan 7 and udp port 53").matches(&s));
        assert!(parse("vlan and host 192.0.2.1 and greater 46 and less 46").matches(&s));
        assert!(!parse("vlan 8").matches(&s));
    }
}

#[test]
fn complaints_point_at_the_word() {
    for (text, wrong, expected) in [
        ("hots 192.0.2.1", "hots", "host, net"),
        ("host", "", "an IPv4 or IPv6 address"),
        ("host 192.0.2.300", "192.0.2.300", "an IPv4 or IPv6 address"),
        ("tcp prt 80", "prt", "and, or"),
        ("port 80 udp", "udp", "and, or"),
        ("port 70000", "70000", "a port from 0"),
        ("portrange 80", "80", "two ports"),
        ("(tcp or udp", "", "a closing parenthesis"),
        ("tcp)", ")", "and, or"),
        ("tcp and", "", "host, net"),
        ("tcp and and udp", "and", "host, net"),
        ("icmp port 80", "port", "host, net, proto"),
        ("on wan9", "wan9", "the name of a port"),
        ("reason boredom", "boredom", "duet drops"),
        ("less many", "many", "a number"),
        ("vlan 4096", "4096", "0 to 4095"),
        ("ip multicast and ip broadcast", "broadcast", "ether broadcast"),
        ("ip host 2001:db8::1", "2001:db8::1", "an IPv4 or"),
        ("tcp[13", "", "a closing bracket"),
        ("tcp[13] & 2", "", "an operator or one of ="),
        ("tcp[13] 5", "5", "an operator or one of ="),
        ("tcp[13] & 2 != ", "", "a number, len"),
        ("tcp[13] & syn != 0", "syn", "a number, len"),
        ("tcp[13:3] = 1", "3", "1, 2 or 4"),
        ("tcp[x] = 1", "x", "a number, len"),
        ("esp[0] = 1", "esp", "a number, len"),
        ("(ip[0] + 1 = 2", "", "a closing parenthesis"),
        ("ip[0] = tcp", "tcp", "in brackets"),
        ("net 192.0.2.0 mask 255.0.255.0", "255.0.255.0", "a mask"),
        ("net 192.0.2.1 mask 255.255.255.0", "192.0.2.1", "a prefix"),
    ] {
        let e = Filter::parse(text, &ports).unwrap_err();
        let shown = text.get(e.at..e.at + e.len).unwrap_or("?");
        assert_eq!(shown, wrong, "{text}: {e:?}");
        assert!(e.expected.contains(expected), "{text}: {e:?}");
    }
    let e = Filter::parse("tcp and prt 80", &ports).unwrap_err();
    assert_eq!(e.picture("tcp and prt 80").lines().nth(1).map(|l| l.find('^')), Some(Some(10)));
    let e = Filter::parse("host", &ports).unwrap_err();
    assert_eq!(e.picture("host").lines().nth(1), Some("       ^ expected an IPv4 or IPv6 address"));
}

#[test]
fn size_is_bounded() {
    let long = vec!["tcp"; MAX_PRIMITIVES + 1].join(" or ");
    assert!(Filter::parse(&long, &ports).is_err());
    assert!(Filter::parse(&"(".repeat(100_000), &ports).is_err());
    assert!(Filter::parse(&"not ".repeat(100_000), &ports).is_err());
    assert!(Filter::parse(&vec!["tcp"; MAX_PRIMITIVES].join(" or "), &ports).is_ok());
    for begin in ["ip[", "-", "(1+", "((", "1+(", "not (", "len-"] {
        assert!(Filter::parse(&begin.repeat(10_000), &ports).is_err(), "{begin}");
        let text = format!("{}1{} = 1", begin.repeat(200), ")".repeat(200));
        assert!(Filter::parse(&text, &ports).is_err(), "{begin}");
    }
}

proptest! {
    #[test]
    fn any_text_parses_or_is_refused(text in "[a-z0-9 ().:/!&|\\\\\\[\\]<>=+*%^-]{0,60}") {
        if let Err(e) = Filter::parse(&text, &ports) {
            prop_assert!(e.at <= text.len() && !e.expected.is_empty());
            e.picture(&text);
        }
    }

    #[test]
    fn words_in_any_order(list in prop::collection::vec(prop_oneof![
        Just("host"), Just("src"), Just("dst"), Just("and"), Just("or"), Just("not"), Just("("), Just(")"), Just("tcp"),
        Just("port"), Just("80"), Just("192.0.2.1"), Just("net"), Just("10.0.0.0/8"), Just("vlan"), Just("é"), Just("ip6"),
        Just("tcp["), Just("]"), Just("ip[0"), Just(":2]"), Just("&"), Just("!="), Just("tcp-syn"), Just("len-1"), Just("<"),
    ], 0..12), bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let text = list.join(" ");
        match Filter::parse(&text, &ports) {
            Ok(f) => drop(f.matches(&Subject::new(PortId(0), &bytes, true, None))),
            Err(e) => drop(e.picture(&text)),
        }
    }
}
