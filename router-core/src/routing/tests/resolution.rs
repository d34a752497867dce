//! Where routes lead, and who notices when that changes.

use super::*;
use crate::addr::Family::{Inet, Inet6};
use crate::spec::HopState;

/// Proves rfc8950-4-next-hop, rfc8950-4-link-local, draft-v4-via-v6-3-route.
#[test]
fn next_hop_family_is_independent_of_the_route() {
    let mut r = lab();
    ip(&mut r, "add 203.0.113.0/24 via 2001:db8::22").unwrap();
    ip(&mut r, "add 203.0.114.0/24 via fe80::22 dev lan1").unwrap();
    ip(&mut r, "add 2001:db8:7::/48 via 10.0.0.9").unwrap();
    assert_eq!(found(&r, "203.0.113.1"), "incomplete lan0 2001:db8::22");
    assert_eq!(found(&r, "203.0.114.1"), "incomplete lan1 fe80::22");
    assert_eq!(found(&r, "2001:db8:7::1"), "incomplete lan0 10.0.0.9");
    // IPv4-mapped notation is the IPv4 address.
    ip(&mut r, "add 203.0.115.0/24 via ::ffff:10.0.0.7").unwrap();
    assert_eq!(found(&r, "203.0.115.1"), "incomplete lan0 10.0.0.7");
    ip(&mut r, "del 203.0.115.0/24 via ::ffff:10.0.0.7").unwrap();
}

#[test]
fn neighbors_change_objects_not_routes() {
    let mut r = lab();
    for i in 0..50 {
        ip(&mut r, &format!("add 20.{i}.0.0/16 via 10.0.0.9")).unwrap();
    }
    let (objects, id) =
        (r.stats().objects, r.held.back().unwrap().1.lookup(TableId::MAIN, &"20.1.0.1".parse().unwrap()));
    learn(&mut r, LAN0, "10.0.0.9", 9);
    assert_eq!(found(&r, "20.1.0.1"), "forward lan0 10.0.0.9 02:00:00:00:09:09 mtu 1500");
    assert_eq!(r.held.back().unwrap().1.lookup(TableId::MAIN, &"20.1.0.1".parse().unwrap()), id);
    assert_eq!(r.stats().objects, objects);
    // As a destination on the link it is in the adjacency map.
    let tables = r.held.back().unwrap().1.clone();
    let hop = tables.adjacencies.get(LAN0, &"10.0.0.9".parse().unwrap()).unwrap();
    assert_eq!((hop.gateway, hop.rewrite.dst().unwrap().to_string()), (None, "02:00:00:00:09:09".into()));
    drop(tables);
    r.set_neighbor(LAN0, "10.0.0.9".parse().unwrap(), None);
    settle(&mut r);
    assert_eq!(found(&r, "20.1.0.1"), "incomplete lan0 10.0.0.9");
    assert!(r.held.back().unwrap().1.adjacencies.is_empty());
}

#[test]
fn a_port_without_link_layer_needs_no_neighbor() {
    let mut r = lab();
    ip(&mut r, "add 20.0.0.0/8 via 10.0.2.9 mtu 1400").unwrap();
    ip(&mut r, "add 2001:db8:7::/48 via fe80::9 dev tun0").unwrap();
    assert_eq!(found(&r, "20.0.0.1"), "forward tun0 mtu 1400");
    assert_eq!(found(&r, "2001:db8:7::1"), "forward tun0 mtu 1500");
}

#[test]
fn recursive_gateways_follow_their_route() {
    let mut r = lab();
    ip(&mut r, "add 192.0.2.0/24 via 10.0.0.9").unwrap();
    ip(&mut r, "add 20.0.0.0/8 via 192.0.2.1").unwrap();
    ip(&mut r, "add 21.0.0.0/8 via 20.0.0.1").unwrap();
    for dst in ["20.0.0.9", "21.0.0.1"] {
        assert_eq!(found(&r, dst), "incomplete lan0 10.0.0.9");
    }
    // A more specific route captures the gateway.
    ip(&mut r, "add 192.0.2.1/32 via 2001:db8:1::9").unwrap();
    assert_eq!(found(&r, "20.0.0.9"), "incomplete lan1 2001:db8:1::9");
    assert_eq!(found(&r, "21.0.0.1"), "incomplete lan1 2001:db8:1::9");
    assert_eq!(added(&r, Inet)[0], "20.0.0.0/8 via 192.0.2.1 dev lan1 *");
    ip(&mut r, "add 192.0.2.1/32 metric 5 via 10.0.1.7").unwrap();
    set_up(&mut r, LAN1, false);
    settle(&mut r);
    assert_eq!(found(&r, "20.0.0.9"), "incomplete lan0 10.0.0.9");
    set_up(&mut r, LAN1, true);
    settle(&mut r);
    ip(&mut r, "del 192.0.2.1/32 metric 0").unwrap();
    assert_eq!(found(&r, "20.0.0.9"), "incomplete lan1 10.0.1.7");
    ip(&mut r, "del 192.0.2.1/32").unwrap();
    ip(&mut r, "del 192.0.2.0/24").unwrap();
    // Nothing leads to the gateway: the route stays, unused.
    assert_eq!(found(&r, "20.0.0.9"), "no_route");
    assert_eq!(added(&r, Inet), ["20.0.0.0/8 via 192.0.2.1 dead", "21.0.0.0/8 via 20.0.0.1 dead"]);
    // The default route is as good a way as any.
    ip(&mut r, "add 0.0.0.0/0 via 10.0.0.9").unwrap();
    assert_eq!(found(&r, "20.0.0.9"), "incomplete lan0 10.0.0.9");
}

#[test]
fn recursion_through_multipath_keeps_weights() {
    let mut r = lab();
    ip(&mut r, "add 192.0.2.0/24 nexthop via 10.0.0.9 weight 3 nexthop via 2001:db8:1::9").unwrap();
    ip(&mut r, "add 20.0.0.0/8 nexthop via 192.0.2.1 nexthop via 10.0.1.7").unwrap();
    let group = "group(3*incomplete lan0 10.0.0.9, 1*incomplete lan1 2001:db8:1::9, 4*incomplete lan1 10.0.1.7)";
    assert_eq!(found(&r, "20.0.0.1"), group);
    assert_eq!(found(&r, "192.0.2.9"), "group(3*incomplete lan0 10.0.0.9, 1*incomplete lan1 2001:db8:1::9)");
    set_up(&mut r, LAN0, false);
    settle(&mut r);
    assert_eq!(found(&r, "192.0.2.9"), "group(1*incomplete lan1 2001:db8:1::9)");
    set_up(&mut r, LAN0, true);
    settle(&mut r);
    assert_eq!(found(&r, "20.0.0.1"), group);
}

#[test]
fn failed_neighbors_leave_groups_while_another_answers() {
    let mut r = lab();
    ip(&mut r, "add 20.0.0.0/8 nexthop via 10.0.0.9 nexthop via 2001:db8:1::9").unwrap();
    ip(&mut r, "add 21.0.0.0/8 via 10.0.0.9").unwrap();
    let (four, six): (IpAddr, IpAddr) = ("10.0.0.9".parse().unwrap(), "2001:db8:1::9".parse().unwrap());
    r.neighbor_failed(LAN0, four, true);
    settle(&mut r);
    assert_eq!(found(&r, "20.0.0.1"), "group(1*incomplete lan1 2001:db8:1::9)");
    assert_eq!(found(&r, "21.0.0.1"), "incomplete lan0 10.0.0.9");
    r.neighbor_failed(LAN1, six, true);
    settle(&mut r);
    assert_eq!(found(&r, "20.0.0.1"), "group(1*incomplete lan0 10.0.0.9, 1*incomplete lan1 2001:db8:1::9)");
    r.neighbor_failed(LAN1, six, false);
    learn(&mut r, LAN0, "10.0.0.9", 9);
    assert!(found(&r, "20.0.0.1").contains("forward lan0"));
    assert!(r.facts.neighbors.len() == 1);
}

#[test]
fn routes_do_not_resolve_through_themselves() {
    let mut r = lab();
    let bad = Err("Error: Nexthop has invalid gateway.".to_owned());
    assert_eq!(ip(&mut r, "add 20.0.0.0/8 via 20.0.0.1"), bad);
    ip(&mut r, "add 0.0.0.0/0 via 10.0.0.9").unwrap();
    // By way of the default route this works.
    ip(&mut r, "add 20.0.0.0/8 via 20.0.0.1").unwrap();
    assert_eq!(found(&r, "20.0.0.1"), "incomplete lan0 10.0.0.9");
    // Two that lead to each other do not: the second is refused, and the first survives.
    ip(&mut r, "add 30.0.0.0/8 via 31.0.0.1").unwrap();
    assert_eq!(ip(&mut r, "add 31.0.0.0/8 via 30.0.0.1"), bad);
    assert_eq!(found(&r, "30.0.0.1"), "incomplete lan0 10.0.0.9");
    let e = r.route(RouteOp::Add, &spec("31.0.0.0/8 via 30.0.0.1")).unwrap_err();
    assert!(matches!(e, RouteError::InvalidGateway { why: GatewayFault::Loop, .. }), "{e:?}");
    // A loop that comes about later leaves all of it unused.
    ip(&mut r, "add 31.0.0.0/8 via 10.0.0.7").unwrap();
    ip(&mut r, "add 32.0.0.0/8 via 30.0.0.1").unwrap();
    assert_eq!(found(&r, "32.0.0.1"), "incomplete lan0 10.0.0.7");
    ip(&mut r, "del 31.0.0.0/8").unwrap();
    assert_eq!(found(&r, "32.0.0.1"), "incomplete lan0 10.0.0.9");
}

/// Proves rfc1812-3.3.4-link.
/// Proves rfc1812-3.3.6-state, rfc1812-5.3.12.3-down, rfc1812-5.3.12.4-up.
#[test]
fn link_down_gives_way_to_backups_and_covering_routes() {
    let mut r = lab();
    ip(&mut r, "add 0.0.0.0/0 via 10.0.0.9").unwrap();
    ip(&mut r, "add 20.0.0.0/8 via 10.0.1.9").unwrap();
    ip(&mut r, "add 20.0.0.0/8 via 10.0.2.9 metric 5").unwrap();
    ip(&mut r, "add 21.0.0.0/8 via 10.0.1.9").unwrap();
    assert_eq!(found(&r, "20.0.0.1"), "incomplete lan1 10.0.1.9");
    set_up(&mut r, LAN1, false);
    // Before a single FIB entry is written the chain's object has already switched.
    let tables = r.prepare().unwrap();
    assert_eq!(
        describe(&r, &tables, tables.lookup(TableId::MAIN, &"20.0.0.1".parse().unwrap())),
        "forward tun0 mtu 1500"
    );
    drop(tables);
    settle(&mut r);
    assert_eq!(found(&r, "21.0.0.1"), "incomplete lan0 10.0.0.9");
    assert_eq!(found(&r, "10.0.1.1"), "local");
    let want = [
        "0.0.0.0/0 via 10.0.0.9 dev lan0 *",
        "20.0.0.0/8 via 10.0.1.9 dev lan1 dead",
        "20.0.0.0/8 via 10.0.2.9 dev tun0 metric 5 *",
        "21.0.0.0/8 via 10.0.1.9 dev lan1 dead",
    ];
    assert_eq!(added(&r, Inet), want);
    let (page, _) =
        r.page(&RouteFilter { metric: Some(0), via: "10.0.1.9".parse().ok(), ..Default::default() }, None, 9);
    assert!(page.iter().all(|i| i.states == [HopState::LinkDown] && !i.selected));
    set_up(&mut r, LAN1, true);
    settle(&mut r);
    assert_eq!(found(&r, "20.0.0.1"), "incomplete lan1 10.0.1.9");
    assert_eq!(found(&r, "21.0.0.1"), "incomplete lan1 10.0.1.9");
}

#[test]
fn kinds_and_tables() {
    let mut r = lab();
    let mut vrf = port(PortId(9), "blue0", Medium::Ethernet, &["10.9.0.1/24"]);
    vrf.table = TableId(10);
    r.set_port(Arc::new(vrf));
    for c in [
        "add blackhole 20.0.0.0/8",
        "add unreachable 21.0.0.0/8",
        "add prohibit 22.0.0.0/8",
        "add 0.0.0.0/0 via 10.0.0.9",
        "add throw 23.0.0.0/8",
        "add 20.0.0.0/8 via 10.0.0.9 table 253",
        "add 24.0.0.0/8 via 10.0.0.9 table 253",
        "add 20.0.0.0/8 via 10.9.0.9 table 10",
    ] {
        ip(&mut r, c).unwrap();
    }
    let bad = Err("Error: Nexthop has invalid gateway.".to_owned());
    assert_eq!(ip(&mut r, "add 25.0.0.0/8 via 10.0.0.9 table 10"), bad);
    for (dst, want) in [
        ("20.0.0.1", "blackhole"),
        ("21.0.0.1", "unreachable"),
        ("22.0.0.1", "prohibited"),
        ("23.0.0.1", "no_route"),
        ("24.0.0.1", "incomplete lan0 10.0.0.9"),
        ("10.9.0.1", "incomplete lan0 10.0.0.9"),
    ] {
        assert_eq!(found(&r, dst), want, "{dst}");
    }
    let blue = |dst| found_in(&r, TableId(10), dst);
    assert_eq!(blue("20.0.0.1"), "incomplete blue0 10.9.0.9");
    assert_eq!(
        (blue("10.9.0.1"), blue("10.9.0.255"), blue("10.0.0.1")),
        ("local".into(), "broadcast".into(), "no_route".into())
    );
}

#[test]
fn gateways_of_other_tables_are_looked_up_in_main() {
    let mut r = lab();
    let bad = || Err("Error: Nexthop has invalid gateway.".to_owned());
    let of = |r: &Routing, dst| found_in(r, TableId(100), dst);
    ip(&mut r, "add 20.0.0.0/8 via 10.0.0.9 table 100").unwrap();
    ip(&mut r, "add 21.0.0.0/8 via 2001:db8:1::9 src 10.0.1.1 table 100").unwrap();
    assert_eq!(of(&r, "20.0.0.1"), "incomplete lan0 10.0.0.9");
    assert_eq!(of(&r, "21.0.0.1"), "incomplete lan1 2001:db8:1::9");
    assert_eq!((of(&r, "10.0.0.9"), found(&r, "20.0.0.1")), ("no_route".into(), "no_route".into()));
    for refused in ["via 192.0.2.1", "via 10.0.0.1", "via 10.0.0.255"] {
        assert_eq!(ip(&mut r, &format!("add 22.0.0.0/8 {refused} table 100")), bad(), "{refused}");
    }
    // The table's own routes come first, and it is watched as well as main.
    ip(&mut r, "add 192.0.2.0/24 via 10.0.0.7").unwrap();
    ip(&mut r, "add 22.0.0.0/8 via 192.0.2.1 table 100").unwrap();
    assert_eq!(of(&r, "22.0.0.1"), "incomplete lan0 10.0.0.7");
    ip(&mut r, "replace 192.0.2.0/24 via 10.0.1.7").unwrap();
    assert_eq!(of(&r, "22.0.0.1"), "incomplete lan1 10.0.1.7");
    ip(&mut r, "add 192.0.2.0/28 via 10.0.0.8 table 100").unwrap();
    assert_eq!(of(&r, "22.0.0.1"), "incomplete lan0 10.0.0.8");
    ip(&mut r, "add throw 192.0.2.0/30 table 100").unwrap();
    assert_eq!(of(&r, "22.0.0.1"), "incomplete lan1 10.0.1.7");
    ip(&mut r, "add blackhole 192.0.2.1/32 table 100").unwrap();
    assert_eq!(of(&r, "22.0.0.1"), "no_route");
    for c in ["del 192.0.2.1/32 table 100", "del 192.0.2.0/30 table 100", "del 192.0.2.0/28 table 100"] {
        ip(&mut r, c).unwrap();
    }
    assert_eq!(of(&r, "22.0.0.1"), "incomplete lan1 10.0.1.7");
    ip(&mut r, "del 192.0.2.0/24").unwrap();
    assert_eq!(of(&r, "22.0.0.1"), "no_route");
    // A port makes the table a VRF, which keeps to itself, until the port leaves.
    let mut blue = port(PortId(9), "blue0", Medium::Ethernet, &["10.9.0.1/24"]);
    blue.table = TableId(100);
    r.set_port(Arc::new(blue.clone()));
    settle(&mut r);
    assert_eq!(of(&r, "20.0.0.1"), "no_route");
    assert_eq!(ip(&mut r, "add 23.0.0.0/8 via 10.0.0.9 table 100"), bad());
    blue.table = TableId(101);
    r.set_port(Arc::new(blue.clone()));
    settle(&mut r);
    assert_eq!(of(&r, "20.0.0.1"), "incomplete lan0 10.0.0.9");
    blue.table = TableId(100);
    r.set_port(Arc::new(blue));
    r.remove_port(PortId(9));
    settle(&mut r);
    assert_eq!(of(&r, "20.0.0.1"), "incomplete lan0 10.0.0.9");
    // The peer of a tunnel is looked up where it was said, and nowhere else.
    add_tunnel(&mut r, HE, "he", "10.0.0.9");
    assert!(r.tunnel_carrier(HE).is_some());
    r.set_tunnel(HE, EncapFacts { table: TableId(100), ..encap("10.0.0.9") });
    assert!(r.tunnel_carrier(HE).is_none());
}

#[test]
fn tunnels_stack_on_their_carrier() {
    let mut r = lab();
    ip(&mut r, "add 198.51.100.0/24 via 10.0.0.9").unwrap();
    add_tunnel(&mut r, HE, "he", "198.51.100.7");
    ip(&mut r, "add ::/0 via 2001:db8:ffff::1 dev he").unwrap();
    assert_eq!(found(&r, "2001:4860::1"), "encap he [incomplete lan0 10.0.0.9]");
    learn(&mut r, LAN0, "10.0.0.9", 9);
    assert_eq!(found(&r, "2001:4860::1"), "encap he [forward lan0 10.0.0.9 02:00:00:00:09:09 mtu 1500]");
    // IPv4 by an IPv6 next hop that is reached through the tunnel.
    ip(&mut r, "add 20.0.0.0/8 via 2001:db8:ffff::1").unwrap();
    assert_eq!(found(&r, "20.0.0.1"), "encap he [forward lan0 10.0.0.9 02:00:00:00:09:09 mtu 1500]");
    ip(&mut r, "replace 198.51.100.0/24 via 2001:db8:1::9").unwrap();
    assert_eq!(found(&r, "20.0.0.1"), "encap he [incomplete lan1 2001:db8:1::9]");
    assert!(r.tunnel_carrier(HE).is_some());
    ip(&mut r, "del 198.51.100.0/24").unwrap();
    assert_eq!((r.tunnel_carrier(HE), r.tunnel_looped(HE)), (None, false));
    assert_eq!(found(&r, "2001:4860::1"), "no_route");
    assert_eq!(added(&r, Inet6), ["::/0 via 2001:db8:ffff::1 dev he dead metric 1024"]);
    // A route that says the peer is behind the tunnel itself.
    ip(&mut r, "add 198.51.100.7/32 dev he").unwrap();
    ip(&mut r, "add 0.0.0.0/0 via 10.0.0.9").unwrap();
    assert_eq!((r.tunnel_carrier(HE), r.tunnel_looped(HE)), (None, true));
    assert_eq!(found(&r, "2001:4860::1"), "no_route");
    ip(&mut r, "del 198.51.100.7/32").unwrap();
    assert!(r.tunnel_carrier(HE).is_some());
    r.remove_port(HE);
    settle(&mut r);
    assert_eq!(found(&r, "2001:4860::1"), "no_route");
    assert_eq!(added(&r, Inet6), Vec::<String>::new());
}

#[test]
fn tunnels_through_each_other_are_not_used() {
    let mut r = lab();
    ip(&mut r, "add 198.51.100.0/24 via 10.0.0.9").unwrap();
    add_tunnel(&mut r, HE, "he", "198.51.100.7");
    add_tunnel(&mut r, PortId(5), "he2", "198.51.100.8");
    // One inside the other is fine.
    ip(&mut r, "add 198.51.100.8/32 dev he").unwrap();
    ip(&mut r, "add 20.0.0.0/8 dev he2").unwrap();
    assert_eq!(found(&r, "20.0.0.1"), "encap he2 [encap he [incomplete lan0 10.0.0.9]]");
    ip(&mut r, "add 198.51.100.7/32 dev he2").unwrap();
    assert_eq!((r.tunnel_carrier(HE), r.tunnel_carrier(PortId(5))), (None, None));
    assert_eq!(found(&r, "20.0.0.1"), "no_route");
    ip(&mut r, "del 198.51.100.8/32").unwrap();
    assert_eq!(found(&r, "20.0.0.1"), "encap he2 [incomplete lan0 10.0.0.9]");
    assert_eq!(found(&r, "198.51.100.7"), "encap he2 [incomplete lan0 10.0.0.9]");
}

#[test]
fn tunnels_bound_to_a_port() {
    let mut r = lab();
    add_tunnel(&mut r, HE, "he", "203.0.113.7");
    assert_eq!(r.tunnel_carrier(HE), None);
    r.set_tunnel(HE, EncapFacts { dev: Some(TUN0), ..encap("203.0.113.7") });
    settle(&mut r);
    assert_eq!(found(&r, "2001:db8:ffff::9"), "encap he [forward tun0 mtu 1500]");
    // On Ethernet: by the routes of that port only.
    r.set_tunnel(HE, EncapFacts { dev: Some(LAN1), ..encap("203.0.113.7") });
    ip(&mut r, "add 203.0.113.0/24 via 10.0.0.9").unwrap();
    assert_eq!(r.tunnel_carrier(HE), None);
    ip(&mut r, "add 203.0.113.7/32 via 10.0.1.9").unwrap();
    assert_eq!(found(&r, "2001:db8:ffff::9"), "encap he [incomplete lan1 10.0.1.9]");
    r.set_tunnel(HE, EncapFacts { dev: Some(LAN1), ..encap("10.0.1.77") });
    settle(&mut r);
    assert_eq!(found(&r, "2001:db8:ffff::9"), "encap he [incomplete lan1 10.0.1.77]");
}

#[test]
fn plug_ins_wrap_what_routes_resolve_to() {
    #[derive(Debug)]
    struct Mirror;
    impl Forwarder for Mirror {
        fn name(&self) -> &str {
            "mirror"
        }
        fn decide(
            &self,
            _: &crate::forward::Context<'_>,
            _: &crate::packet::Packet,
            _: &[u8],
        ) -> crate::forward::Verdict {
            crate::forward::Verdict::Deliver
        }
        fn apply(
            &self,
            _: &crate::forward::Context<'_>,
            _: &crate::packet::Packet,
            _: &mut crate::frame::Frame,
        ) -> Result<(), crate::drop_reason::DropReason> {
            Ok(())
        }
    }
    let mut r = lab();
    r.register_forwarder(Arc::new(Mirror));
    ip(&mut r, "add 20.0.0.0/8 via 10.0.0.9 forwarder mirror").unwrap();
    ip(&mut r, "add blackhole 21.0.0.0/8 forwarder mirror").unwrap();
    assert_eq!(found(&r, "20.0.0.1"), "plugin mirror [incomplete lan0 10.0.0.9]");
    assert_eq!(found(&r, "21.0.0.1"), "plugin mirror [blackhole]");
    let e = r.route(RouteOp::Add, &spec("22.0.0.0/8 via 10.0.0.9 forwarder glass")).unwrap_err();
    assert_eq!(e.to_string(), "Error: unknown forwarder \"glass\".");
    assert_eq!(e.hint().unwrap(), "there are: mirror");
    ip(&mut r, "del 20.0.0.0/8").unwrap();
    assert_eq!(found(&r, "20.0.0.1"), "no_route");
}

#[test]
fn ports_come_and_go() {
    let mut r = lab();
    let before = r.stats();
    r.set_port(Arc::new(port(PortId(9), "lan9", Medium::Ethernet, &["10.9.0.1/24", "fe80::9/64"])));
    for c in
        ["add 20.0.0.0/8 via 10.9.0.9", "add 21.0.0.0/8 dev lan9", "add 22.0.0.0/8 nexthop dev lan9 nexthop dev lan0"]
    {
        ip(&mut r, c).unwrap();
    }
    learn(&mut r, PortId(9), "10.9.0.9", 9);
    // A new address and a smaller MTU reach what is there.
    let mut info = port(PortId(9), "lan9", Medium::Ethernet, &["10.9.0.1/24", "10.9.1.1/24"]);
    info.mtu = 1400;
    r.set_port(Arc::new(info));
    settle(&mut r);
    assert_eq!(found(&r, "20.0.0.1"), "forward lan9 10.9.0.9 02:00:00:00:09:09 mtu 1400");
    assert_eq!((found(&r, "10.9.1.1"), found(&r, "fe80::9")), ("local".into(), "glean lan0".into()));
    let tables = r.held.back().unwrap().1.clone();
    assert_eq!(tables.adjacencies.get(PortId(9), &"10.9.0.9".parse().unwrap()).unwrap().mtu, 1400);
    drop(tables);
    r.remove_port(PortId(9));
    ip(&mut r, "del 20.0.0.0/8").unwrap();
    settle(&mut r);
    assert_eq!(added(&r, Inet), Vec::<String>::new());
    let after = r.stats();
    assert_eq!(
        (after.prefixes, after.paths, after.chains, after.objects),
        (before.prefixes, before.paths, before.chains, before.objects)
    );
    assert_eq!(after.adjacencies, 0);
}

#[test]
fn get_says_where_a_packet_goes() {
    let mut r = lab();
    ip(&mut r, "add 192.0.2.0/24 via 2001:db8::9").unwrap();
    ip(&mut r, "add 20.0.0.0/8 via 192.0.2.1 src 10.0.1.1").unwrap();
    ip(&mut r, "add 21.0.0.0/8 nexthop via 10.0.0.9 nexthop via 10.0.1.9").unwrap();
    let get = |dst: &str, flow| r.get(TableId::MAIN, &dst.parse().unwrap(), flow);
    let a = get("20.0.0.1", 0).unwrap();
    assert_eq!((a.port, a.gateway, a.src), (Some(LAN0), "2001:db8::9".parse().ok(), "10.0.1.1".parse().ok()));
    assert_eq!(a.route.route.dst.to_string(), "20.0.0.0/8");
    let a = get("192.0.2.7", 0).unwrap();
    assert_eq!((a.port, a.src), (Some(LAN0), "10.0.0.1".parse().ok()));
    let ports: Vec<_> = (0..64).map(|f| get("21.0.0.1", f).unwrap().port.unwrap()).collect();
    assert!(ports.contains(&LAN0) && ports.contains(&LAN1));
    let a = get("10.0.0.7", 0).unwrap();
    assert_eq!((a.port, a.gateway, a.src), (Some(LAN0), None, "10.0.0.1".parse().ok()));
    let a = get("10.0.0.1", 0).unwrap();
    assert_eq!((a.route.route.kind, a.port), (RouteKind::Local, Some(LAN0)));
    assert_eq!(get("99.0.0.1", 0), None);
}
