//! Ways of forwarding that ask more of a packet: groups, filters, source checks, the clamp of TCP's segment size.

use crate::bed::{Bed, Packets, Refused, gateway, refused};
use router_core::filter::{FilterSpec, GuardSpec, MssClamp};
use router_core::spec::{HopSpec, NextHopKind, NextHopSpec, ResilientSpec, RouteOp, RouteSpec};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A router and packets for it, with a name.
pub struct Case {
    /// For the row.
    pub name: &'static str,
    /// The router.
    pub bed: Bed,
    /// What comes in by port `in`.
    pub packets: Packets,
}

/// 200 flows.
fn packets(v6: bool) -> Packets {
    let of = |i: u8| -> IpAddr {
        match v6 {
            true => Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, u16::from(i)).into(),
            false => Ipv4Addr::new(203, 0, 113, i).into(),
        }
    };
    Packets::udp(&(1..=200).map(of).collect::<Vec<_>>())
}

/// A route to those flows' destinations over so many gateways.
fn bed(v6: bool, hops: u8) -> Result<Bed, Refused> {
    let mut bed = Bed::new()?;
    let net = if v6 { "2001:db8:2::/48" } else { "203.0.113.0/24" };
    let mut spec = RouteSpec::new(net.parse().map_err(refused(net))?);
    let hop = |i| HopSpec { via: Some(gateway(v6, i)), dev: Some("out".into()), weight: 1, onlink: false };
    spec.hops = (1..=hops).map(hop).collect();
    bed.route(&spec)?;
    bed.commit();
    Ok(bed)
}

/// The same through a resilient group.
fn resilient(v6: bool, hops: u32) -> Result<Bed, Refused> {
    let mut bed = bed(v6, 1)?;
    let hop = |i: u32| HopSpec { via: Some(gateway(v6, i as u8)), dev: Some("out".into()), weight: 1, onlink: false };
    let single = (1..=hops).map(|i| NextHopSpec::new(i, NextHopKind::Hop(hop(i))));
    let spec = ResilientSpec { buckets: Some(128), ..ResilientSpec::default() };
    let members = NextHopKind::Group((1..=hops).map(|i| (i, 1)).collect());
    let group = NextHopSpec { resilient: Some(spec), ..NextHopSpec::new(10, members) };
    for n in single.chain([group]) {
        bed.router.routing_mut().next_hop(RouteOp::Add, &n).map_err(refused(n.id))?;
    }
    let net = if v6 { "2001:db8:2::/48" } else { "203.0.113.0/24" };
    let route = RouteSpec { nhid: Some(10), ..RouteSpec::new(net.parse().map_err(refused(net))?) };
    bed.route(&route)?;
    bed.commit();
    Ok(bed)
}

/// Rules of which plain UDP meets the last.
fn rules(n: usize) -> FilterSpec {
    let before = ["deny tcp dport 25", "deny udp dport 53,123", "deny from 192.0.2.64/26", "deny icmp type redirect"];
    let before = before.iter().cycle().take(n - 1).map(|r| r.parse());
    let rules = before.chain([("allow udp").parse()]).filter_map(Result::ok).collect();
    FilterSpec { rules }
}

/// All cases.
///
/// # Errors
/// None in a router that works.
pub fn cases() -> Result<Vec<Case>, Refused> {
    let mut cases = Vec::new();
    for (name, v6, hops) in [("IPv4, group of four", false, 4), ("IPv6, group of four", true, 4)] {
        cases.push(Case { name, bed: bed(v6, hops)?, packets: packets(v6) });
    }
    for (name, v6) in [("IPv4, resilient group of four", false), ("IPv6, resilient group of four", true)] {
        cases.push(Case { name, bed: resilient(v6, 4)?, packets: packets(v6) });
    }
    let none = GuardSpec::default;
    let filter_in = |n: &str| GuardSpec { filter_in: Some(n.into()), ..none() };
    let filter_out = |n: &str| GuardSpec { filter_out: Some(n.into()), ..none() };
    let urpf = |mode: &str| GuardSpec { urpf: mode.parse().ok(), ..none() };
    let guards = [
        ("IPv4, filter in of 1 rule", false, "in", filter_in("one")),
        ("IPv4, filter in of 8 rules", false, "in", filter_in("eight")),
        ("IPv6, filter in of 8 rules", true, "in", filter_in("eight")),
        ("IPv4, filter out of 8 rules", false, "out", filter_out("eight")),
        ("IPv4, sources checked, strict", false, "in", urpf("strict")),
        ("IPv4, sources checked, loose", false, "in", urpf("loose")),
        ("IPv6, sources checked, strict", true, "in", urpf("strict")),
        ("IPv4, MSS clamp, no SYNs", false, "out", GuardSpec { mss: Some(MssClamp::ToPmtu), ..none() }),
    ];
    for (name, v6, port, guard) in guards {
        let mut bed = bed(v6, 1)?;
        bed.router.set_filter("one", rules(1)).map_err(refused("a filter"))?;
        bed.router.set_filter("eight", rules(8)).map_err(refused("a filter"))?;
        bed.router.set_guard(port, guard).map_err(refused(name))?;
        bed.commit();
        cases.push(Case { name, bed, packets: packets(v6) });
    }
    Ok(cases)
}
