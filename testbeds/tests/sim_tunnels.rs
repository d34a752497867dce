//! Tunnels between simulated routers over a network that they do not own: several GRE tunnels between the same ends, GRE keepalives,
//! and the search for the path MTU where ICMP errors are filtered.

use router_core::addr::Family;
use router_core::router::{MtuCause, SearchPhase, TunnelError, TunnelInfo};
use router_core::settings::Settings;
use router_core::spec::{TunnelMode, TunnelSpec};
use router_core::time::Duration;
use router_core::tunnel::spec::Keepalive;
use std::net::IpAddr;
use testbeds::sim::{End, Net, packets};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

/// Two routers, and one of the network between them whose links are `wan` bytes wide; a LAN with one host at each end.
struct World {
    net: Net,
    left: usize,
    right: usize,
    /// Where the network's router and the right one meet.
    far: End,
    a: usize,
    b: usize,
}

fn world(six_outside: bool) -> World {
    let mut net = Net::default();
    let [left, middle, right] = [(); 3].map(|()| net.router(Settings::default()));
    let a = net.host(&["2001:db8:a::2/64", "192.0.2.2/25"], &["2001:db8:a::1", "192.0.2.1"]);
    let b = net.host(&["2001:db8:b::2/64", "192.0.2.130/25"], &["2001:db8:b::1", "192.0.2.129"]);
    let (na, nb) = (net.nic(a), net.nic(b));
    let mut far = na;
    for (r, site, v4, [own, peer], nic) in [
        (left, "a", "192.0.2.1/25", ends(six_outside, true), na),
        (right, "b", "192.0.2.129/25", ends(six_outside, false), nb),
    ] {
        let length = if six_outside { 64 } else { 24 };
        let lan = net.port(r, "lan", 1500, &[&format!("2001:db8:{site}::1/64"), v4]);
        net.link(lan, nic);
        let wan = net.port(r, "wan", 1500, &[&format!("{own}/{length}")]);
        far = net.port(middle, &format!("to_{site}"), 1500, &[&format!("{peer}/{length}")]);
        net.link(wan, far);
        net.route(r, if six_outside { "::/0" } else { "0.0.0.0/0" }, Some(peer), None);
    }
    World { net, left, right, far, a, b }
}

/// A router's own end and its gateway.
fn ends(six: bool, first: bool) -> [&'static str; 2] {
    match (six, first) {
        (false, true) => ["198.51.100.1", "198.51.100.2"],
        (false, false) => ["203.0.113.1", "203.0.113.2"],
        (true, true) => ["2001:db8:10::1", "2001:db8:10::2"],
        (true, false) => ["2001:db8:20::1", "2001:db8:20::2"],
    }
}

impl World {
    /// Adds a tunnel at one end.
    fn tunnel(
        &mut self,
        first: bool,
        name: &str,
        mode: TunnelMode,
        addrs: &[&str],
        with: impl FnOnce(&mut TunnelSpec),
    ) -> Result<(), TunnelError> {
        let six = mode.shape().outer == Family::Inet6;
        let mut spec = TunnelSpec::new(name, mode, ip(ends(six, first)[0]), ip(ends(six, !first)[0]));
        with(&mut spec);
        let addrs = addrs.iter().map(|a| a.parse().expect("address")).collect();
        let node = if first { self.left } else { self.right };
        self.net.with(node, |r, now, _| r.add_tunnel(now, spec, addrs)).map(|_| ())
    }

    fn info(&mut self, first: bool, name: &str) -> TunnelInfo {
        let (now, node) = (self.net.now(), if first { self.left } else { self.right });
        self.net.r(node).router.tunnel_named(now, name).expect("tunnel")
    }

    fn packets_of(&mut self, first: bool, name: &str) -> bool {
        self.info(first, name).life.expect("keepalive").alive
    }

    /// Whether a packet from one host's address reaches the other host.
    fn crosses(&mut self, from_a: bool, family: Family, size: usize) -> bool {
        let (x, y) = if from_a { (self.a, self.b) } else { (self.b, self.a) };
        let (src, dst) = (self.net.h(x).addr(family), self.net.h(y).addr(family));
        self.net.h(y).take();
        let header = if family == Family::Inet { 28 } else { 48 };
        self.net.send(x, packets::udp(src, dst, (1, 2), 64, true, &vec![7; size - header]));
        self.net.run(Duration::from_millis(500));
        self.net.h(y).take().iter().any(|p| p.len() == size)
    }
}

/// Proves rfc2890-2.1-key, rfc2890-2.1-separate.
#[test]
fn rfc2890_several_gre_tunnels_share_their_ends() {
    for (six, mode) in [(false, TunnelMode::Gre), (true, TunnelMode::GreSix)] {
        let mut w = world(six);
        // IPv4 goes by one tunnel, IPv6 by another; a third one has no key, and a fourth different ones for each direction.
        for first in [true, false] {
            let (four, sixes) =
                if first { ("192.0.2.128/25", "2001:db8:b::/64") } else { ("192.0.2.0/25", "2001:db8:a::/64") };
            let (out, back) = if first { (7, 8) } else { (8, 7) };
            for (name, ikey, okey) in [
                ("none", None, None),
                ("one", Some(1), Some(1)),
                ("two", Some(2), Some(2)),
                ("odd", Some(back), Some(out)),
            ] {
                w.tunnel(first, name, mode, &[], |s| (s.options.gre.ikey, s.options.gre.okey) = (ikey, okey))
                    .expect(name);
            }
            let node = if first { w.left } else { w.right };
            w.net.route(node, four, None, Some("one"));
            w.net.route(node, sixes, None, Some("odd"));
        }
        for from_a in [true, false, true] {
            assert!(w.crosses(from_a, Family::Inet, 200) && w.crosses(from_a, Family::Inet6, 200), "{six} {from_a}");
        }
        let totals = w.net.r(w.right).totals();
        assert_eq!(totals.dropped.iter().filter(|(n, _)| n.starts_with("tunnel")).count(), 0, "{totals:?}");
        // The same key again, or none again, could not be told apart: refused, and the one that is there is named.
        for (key, there, text) in [(Some(1), "one", "the key 1"), (None, "none", "no key")] {
            let e = w
                .tunnel(true, "again", mode, &[], |s| (s.options.gre.ikey, s.options.gre.okey) = (key, Some(9)))
                .unwrap_err();
            assert_eq!(e, TunnelError::SameKey { name: there.into(), key });
            assert!(e.to_string().contains(text) && e.to_string().contains("give each its own key"), "{e}");
        }
        // One goes; what is sent with its key is nobody's, and the others go on.
        let right = w.right;
        w.net.with(right, |r, now, out| r.del_tunnel(now, "one", out)).expect("removed");
        assert!(!w.crosses(true, Family::Inet, 200));
        let dropped = |w: &mut World, n: &str| w.net.r(right).totals().dropped.get(n).copied().unwrap_or(0);
        assert_eq!(dropped(&mut w, "tunnel_key"), 1);
        assert!(w.crosses(true, Family::Inet6, 200));
        // All of them; nobody is left to tell keys.
        for name in ["none", "two", "odd"] {
            w.net.with(right, |r, now, out| r.del_tunnel(now, name, out)).expect("removed");
        }
        w.tunnel(false, "one", mode, &[], |s| (s.options.gre.ikey, s.options.gre.okey) = (Some(1), Some(1)))
            .expect("again");
        w.net.route(right, "192.0.2.0/25", None, Some("one"));
        assert!(w.crosses(true, Family::Inet, 200) && w.crosses(false, Family::Inet, 200));
        w.net.check();
    }
}

/// GRE keepalives between two of ours: who does not answer is dead, and who answers lives again. The prober needs nothing of the peer but that.
#[test]
fn gre_keepalives_are_asked_and_answered() {
    for (six, mode, key) in
        [(false, TunnelMode::Gre, None), (false, TunnelMode::Gre, Some(5)), (true, TunnelMode::GreSix, Some(6))]
    {
        let mut w = world(six);
        let keyed = |s: &mut TunnelSpec| (s.options.gre.ikey, s.options.gre.okey) = (key, key);
        w.tunnel(true, "g", mode, &[], |s| {
            keyed(s);
            s.options.keepalive = Some(Keepalive { gre: true, hold: 2, ..Keepalive::new(ip("0.0.0.0")) });
        })
        .expect("tunnel");
        w.tunnel(false, "g", mode, &[], keyed).expect("tunnel");
        w.net.route(w.left, "192.0.2.128/25", None, Some("g"));
        w.net.route(w.right, "192.0.2.0/25", None, Some("g"));
        // The peer does not answer: what seems to come from itself is a martian to it.
        w.net.run(Duration::from_secs(6));
        assert!(!w.packets_of(true, "g"));
        let life = w.info(true, "g").life.expect("life");
        assert_eq!((life.answered, life.deaths), (0, 1));
        assert!(!w.crosses(true, Family::Inet, 200), "a dead tunnel takes its next hop out");
        let (right, left) = (w.right, w.left);
        let spec = |w: &mut World, answer: bool| {
            let mut spec = w.info(false, "g").spec;
            spec.options.gre.answer = answer;
            w.net.with(right, |r, now, _| r.change_tunnel(now, spec)).expect("changed");
        };
        spec(&mut w, true);
        w.net.run(Duration::from_secs(4));
        assert!(w.packets_of(true, "g"));
        assert!(w.crosses(true, Family::Inet, 200) && w.crosses(false, Family::Inet, 200));
        let life = w.info(true, "g").life.expect("life");
        assert!(life.answered >= 2 && life.rtt_us.is_some(), "{life:?}");
        spec(&mut w, false);
        w.net.run(Duration::from_secs(6));
        assert!(!w.packets_of(true, "g"));
        // Nothing was lost without a name.
        for node in [left, right] {
            assert_eq!(w.net.r(node).totals().held, 0);
        }
        w.net.check();
    }
}

/// Tunnels with ICMP keepalives that search for their path MTU, over a link that swallows what is longer than `path`.
fn searching(mode: TunnelMode, path: u32) -> World {
    let six = mode.shape().outer == Family::Inet6;
    let mut w = world(six);
    for (first, own, target) in
        [(true, "2001:db8:ff::1/64", "2001:db8:ff::2"), (false, "2001:db8:ff::2/64", "2001:db8:ff::1")]
    {
        w.tunnel(first, "t", mode, &[own], |s| {
            s.options.keepalive = Some(Keepalive { probe_mtu: true, ..Keepalive::new(ip(target)) });
        })
        .expect("tunnel");
    }
    w.net.route(w.left, "2001:db8:b::/64", None, Some("t"));
    w.net.route(w.right, "2001:db8:a::/64", None, Some("t"));
    let far = w.far;
    w.net.narrow(far, path);
    w
}

/// Proves rfc8899-4.1-probes, rfc8899-4.2-confirmation, rfc8899-4.4-mps.
/// Also proves rfc8899-3-larger, rfc8899-3-df, rfc8899-3-feedback.
#[test]
fn rfc8899_a_filtered_path_is_searched() {
    for (mode, overhead) in [(TunnelMode::SixInFour, 20), (TunnelMode::SixInSix, 40), (TunnelMode::Gre, 24)] {
        let mut w = searching(mode, 1400);
        // What nearly every path carries, until more is known.
        w.net.run(Duration::from_millis(500));
        assert!(w.info(true, "t").mtu <= 1280, "{}", w.info(true, "t").mtu);
        w.net.run(Duration::from_secs(25));
        for first in [true, false] {
            let t = w.info(first, "t");
            assert_eq!(t.mtu, 1400 - overhead, "{mode:?}");
            let l = t.learned_mtu.expect("found");
            assert_eq!((l.mtu, l.cause), (1400, MtuCause::Search(SearchPhase::Complete)));
            assert!(l.age <= Duration::from_secs(16), "{l:?}");
        }
        // And so it is with packets.
        let most = (1400 - overhead) as usize;
        assert!(w.crosses(true, Family::Inet6, most) && w.crosses(false, Family::Inet6, most));
        assert!(!w.crosses(true, Family::Inet6, most + 1));
        let a = w.a;
        let told: Vec<_> = w
            .net
            .h(a)
            .take()
            .iter()
            .filter_map(|p| packets::icmp(p))
            .map(|(k, _, b)| (k, u16::from_be_bytes([b[2], b[3]])))
            .collect();
        assert_eq!(told, [(2, most as u16)], "the sender inside hears the number that was found");
        w.net.check();
    }
}

/// Proves rfc8899-4.3-blackhole, rfc8899-5.1.1-raise.
#[test]
fn rfc8899_a_path_that_changes_in_silence_is_followed() {
    let mut w = searching(TunnelMode::SixInFour, 1500);
    w.net.run(Duration::from_secs(5));
    assert_eq!(w.info(true, "t").mtu, 1480);
    let far = w.far;
    w.net.narrow(far, 1420);
    assert!(!w.crosses(true, Family::Inet6, 1480));
    w.net.run(Duration::from_secs(40));
    assert_eq!(w.info(true, "t").mtu, 1400);
    assert!(w.crosses(true, Family::Inet6, 1400));
    // The path is wide again: noticed when the raise timer has run out.
    w.net.narrow(far, 1500);
    w.net.run(Duration::from_secs(660));
    assert_eq!(w.info(true, "t").mtu, 1480);
    assert!(w.crosses(true, Family::Inet6, 1480));
    w.net.check();
}
