//! The same topology and the same seeded stream of packets (valid, odd and broken, both families) through the Linux
//! kernel's own forwarding in a namespace, and through the router's core. What leaves, by which port, byte for byte, must
//! be the same, but for the differences that `docs/differences.md` lists with their reasons.

mod duet;
mod fields;
mod kernel;
mod rules;
mod stream;
mod twin;
mod verdict;

use router_core::addr::MacAddr;
use router_io::sandbox_test;
use std::collections::BTreeMap;
use stream::Given;

/// Packets of the stream. Each is followed by one that marks its end, so a run takes ten seconds. By hand, the
/// environment variables `DIFFERENTIAL_PACKETS` and `DIFFERENTIAL_SEED` give longer and other streams, and
/// `DIFFERENTIAL_SHOWN` says how many unlisted differences are shown; with `DIFFERENTIAL_KINDS`, what either side did is counted
/// for each rule.
const PACKETS: u64 = 100_000;

/// A number from the environment.
fn given(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Link-layer addresses of the router's ports, `lan0` and `wan0`.
const OWN: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0xff, 1]), MacAddr([2, 0, 0, 0, 0xff, 2])];
/// Those of the neighbours on each link.
const PEER: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0x10, 1]), MacAddr([2, 0, 0, 0, 0x10, 2])];
/// Names of the ports.
const PORTS: [&str; 2] = ["lan0", "wan0"];

/// What differs between two runs of the stream.
pub struct Topology {
    /// Addresses of the ports. The links are so small that every address on them is somebody's: no packet waits for a
    /// neighbour that never answers.
    addrs: [&'static [&'static str]; 2],
    /// MTUs of the ports.
    mtus: [u32; 2],
    /// Neighbours of each link.
    neighbors: [&'static [&'static str]; 2],
    /// Broadcast addresses of the IPv4 links, old ones included.
    broadcasts: &'static [&'static [u8]],
    /// Routes, in words that both sides understand.
    routes: &'static [&'static str],
    /// Whether source routes are followed.
    source_routes: bool,
}

/// Both families on both links.
const DUAL: Topology = Topology {
    mtus: [1500, 1400],
    addrs: [
        &["192.0.2.1/30", "2001:db8::1/126", "fe80::1/64"],
        &["198.51.100.1/30", "2001:db8:1::1/126", "fe80::1/64"],
    ],
    neighbors: [
        &["192.0.2.0", "192.0.2.2", "2001:db8::2", "2001:db8::3", "fe80::2"],
        &["198.51.100.0", "198.51.100.2", "2001:db8:1::2", "2001:db8:1::3", "fe80::2"],
    ],
    broadcasts: &[&[192, 0, 2, 0], &[192, 0, 2, 3], &[198, 51, 100, 0], &[198, 51, 100, 3]],
    routes: DUAL_ROUTES,
    source_routes: false,
};

/// The same, and source routes are followed.
const ROUTED: Topology = Topology { source_routes: true, ..DUAL };

/// No IPv4 address anywhere: IPv4 goes by IPv6 next hops, and errors come from 192.0.0.8.
const ONLY_V6: Topology = Topology {
    mtus: [1500, 1400],
    addrs: [&["2001:db8::1/126", "fe80::1/64"], &["2001:db8:1::1/126", "fe80::1/64"]],
    neighbors: [&["2001:db8::2", "2001:db8::3", "fe80::2"], &["2001:db8:1::2", "2001:db8:1::3", "fe80::2"]],
    broadcasts: &[],
    routes: &[
        "203.0.113.0/24 via 2001:db8:1::2 dev wan0",
        "198.51.100.0/24 via fe80::2 dev wan0",
        "10.0.0.0/8 via 2001:db8::2 dev lan0",
        "192.0.2.0/24 via fe80::2 dev lan0",
        "blackhole 203.0.114.0/24",
        "unreachable 203.0.115.0/24",
        "prohibit 203.0.116.0/24",
        "2001:db8:9::/48 via 2001:db8:1::2 dev wan0",
        "2001:db8:f::/48 via 2001:db8::2 dev lan0",
        "unreachable 2001:db8:b::/48",
    ],
    source_routes: false,
};

/// Links of the usual size with several addresses each, the least MTU that IPv6 allows, gateways of the other family.
const WIDE: Topology = Topology {
    mtus: [1500, 1280],
    addrs: [
        &["192.0.2.1/24", "192.0.2.9/24", "2001:db8::1/64", "2001:db8:f:2::1/64", "2001:db8:f:3::1/64", "fe80::1/64"],
        &["198.51.100.1/24", "2001:db8:1::1/127", "fe80::1/64"],
    ],
    neighbors: [
        &["192.0.2.0", "192.0.2.2", "192.0.2.3", "2001:db8::2", "2001:db8::3", "fe80::2"],
        &["198.51.100.0", "198.51.100.2", "198.51.100.3", "2001:db8:1::", "fe80::2"],
    ],
    broadcasts: &[&[192, 0, 2, 0], &[192, 0, 2, 255], &[198, 51, 100, 0], &[198, 51, 100, 255]],
    routes: &[
        "203.0.113.0/24 via fe80::2 dev wan0",
        "10.0.0.0/8 via 192.0.2.2 dev lan0",
        "blackhole 203.0.114.0/24",
        "unreachable 203.0.115.0/24",
        "prohibit 203.0.116.0/24",
        "2001:db8:9::/48 via fe80::2 dev wan0",
        "2001:db8:f::/48 via 2001:db8::2 dev lan0",
        "2001:db8:1::2/128 via 2001:db8:1:: dev wan0",
        "blackhole 2001:db8:a::/48",
        "unreachable 2001:db8:b::/48",
        "prohibit 2001:db8:c::/48",
    ],
    source_routes: false,
};

const DUAL_ROUTES: &[&str] = &[
    "203.0.113.0/24 via 198.51.100.2 dev wan0",
    "10.0.0.0/8 via 192.0.2.2 dev lan0",
    "blackhole 203.0.114.0/24",
    "unreachable 203.0.115.0/24",
    "prohibit 203.0.116.0/24",
    "2001:db8:9::/48 via 2001:db8:1::2 dev wan0",
    "2001:db8:f::/48 via 2001:db8::2 dev lan0",
    "blackhole 2001:db8:a::/48",
    "unreachable 2001:db8:b::/48",
    "prohibit 2001:db8:c::/48",
];

/// What leaves a router because of one packet: port (0 or 1) and the IP packet, in the order of ports.
type Sent = Vec<(usize, Vec<u8>)>;

sandbox_test! {
    /// The list must not hold what is not there any more.
    fn linux_and_duet_do_the_same() {
        let used = compare(&DUAL);
        for rule in rules::ALL {
            assert!(used.contains_key(rule), "{rule} was not seen: take it out of docs/differences.md");
        }
    }
}

sandbox_test! {
    /// Proves draft-v4-via-v6-3-wire, draft-v4-via-v6-4-source: as Linux does, but for the list.
    fn linux_and_duet_do_the_same_without_ipv4_addresses() {
        let used = compare(&ONLY_V6);
        assert!(used.contains_key(rules::ONLY_V6), "{} was not seen", rules::ONLY_V6);
    }
}

sandbox_test! {
    /// Larger links, the least MTU, next hops of the other family on a router with addresses of both.
    fn linux_and_duet_do_the_same_on_larger_links() {
        let used = compare(&WIDE);
        assert!(used.contains_key(rules::SEVERAL), "{} was not seen", rules::SEVERAL);
    }
}

sandbox_test! {
    /// With `accept_source_route` there and `lsrr`, `ssrr` "process" here.
    fn linux_and_duet_follow_source_routes_alike() {
        let used = compare(&ROUTED);
        for rule in rules::ROUTED {
            assert!(used.contains_key(rule), "{rule} was not seen");
        }
    }
}

/// Sends the stream through both and returns how often each listed difference was seen.
fn compare(topology: &Topology) -> BTreeMap<&'static str, usize> {
    let kernel = kernel::Kernel::new(topology).unwrap_or_else(|e| panic!("no kernel router: {e}"));
    let mut duet = duet::Duet::new(topology);
    let (packets, seed) = (given("DIFFERENTIAL_PACKETS", PACKETS), given("DIFFERENTIAL_SEED", 0));
    let stream: Vec<_> = (0..packets).map(|n| stream::packet(seed, n, topology.mtus)).collect();
    let theirs = kernel.run(&stream);
    let mut found = Found::default();
    for (n, (given, theirs)) in stream.iter().zip(&theirs).enumerate() {
        let ours = duet.send(given);
        found.judge(topology, (n, given), &rules::normal(theirs), &rules::normal(&ours));
    }
    // A packet may have several things that Linux minds: its twin is then judged as itself, and has a twin.
    for _ in 0..4 {
        let pairs = std::mem::take(&mut found.twins);
        let twins: Vec<Given> = pairs.iter().map(|t| t.twin.clone()).collect();
        for (pair, theirs) in pairs.into_iter().zip(kernel.run(&twins)) {
            let ours = rules::normal(&duet.send(&pair.twin));
            if !twin::alike((&pair.given, &pair.twin), (&pair.ours, &ours)) {
                found.unlisted.push((pair.n, pair.given, pair.ours, ours));
                continue;
            }
            found.judge(topology, (pair.n, &pair.twin), &rules::normal(&theirs), &ours);
        }
    }
    assert!(found.twins.is_empty(), "twins of twins without an end: {:?}", found.twins[0].given);
    let Found { used, unlisted, histogram, same, .. } = found;
    let moved = theirs.iter().filter(|s| !s.is_empty()).count();
    println!("NOTE: {packets} packets, {moved} with an answer or forwarded, {same} treated alike, listed: {used:?}");
    if std::env::var_os("DIFFERENTIAL_KINDS").is_some() {
        histogram.iter().for_each(|(key, n)| println!("KIND {n} {key}"));
    }
    let text = unlisted
        .iter()
        .take(given("DIFFERENTIAL_SHOWN", 12) as usize)
        .map(|(n, given, a, b)| rules::describe(*n, given, a, b));
    let text: Vec<String> = text.collect();
    assert!(unlisted.is_empty(), "{} unlisted differences:\n{}", unlisted.len(), text.join("\n"));
    // The stream must be worth something.
    assert!(same > packets as usize / 2 && moved > packets as usize / 4, "{same} alike, {moved} moved");
    let page = include_str!("../../../docs/differences.md");
    for rule in rules::ALL.iter().chain(rules::ROUTED).chain([&rules::ONLY_V6, &rules::SEVERAL]) {
        assert!(page.contains(&format!("`{rule}`")), "docs/differences.md does not list {rule}");
    }
    used
}

/// A packet that a rule explains only if its twin is treated alike (see [`twin`]).
struct Pair {
    n: usize,
    given: Given,
    twin: Given,
    ours: Sent,
}

/// What the comparison has found.
#[derive(Default)]
struct Found {
    same: usize,
    used: BTreeMap<&'static str, usize>,
    histogram: BTreeMap<String, usize>,
    unlisted: Vec<(usize, Given, Sent, Sent)>,
    twins: Vec<Pair>,
}

impl Found {
    /// Takes note of what the kernel and Duet did about a packet.
    fn judge(&mut self, topology: &Topology, (n, given): (usize, &Given), theirs: &Sent, ours: &Sent) {
        if theirs == ours {
            self.same += 1;
            return;
        }
        let Some(list) = rules::listed(topology, given, theirs, ours) else {
            return self.unlisted.push((n, given.clone(), theirs.clone(), ours.clone()));
        };
        for rule in list {
            *self.used.entry(rule).or_default() += 1;
            let key = format!("{rule}: {} | {}", rules::kind(theirs), rules::kind(ours));
            *self.histogram.entry(key).or_default() += 1;
            if twin::needs_twin(rule) {
                match twin::twin(rule, given) {
                    Some(twin) => self.twins.push(Pair { n, given: given.clone(), twin, ours: ours.clone() }),
                    None => self.unlisted.push((n, given.clone(), theirs.clone(), ours.clone())),
                }
            }
        }
    }
}
