//! The same topology and the same seeded stream of packets (valid, odd and broken, both families) through the Linux
//! kernel's own forwarding in a namespace, and through the router's core. What leaves, by which port, byte for byte, must
//! be the same, but for the differences that `docs/differences.md` lists with their reasons.

mod duet;
mod kernel;
mod rules;
mod stream;

use router_core::addr::MacAddr;
use router_io::sandbox_test;
use std::collections::BTreeMap;

/// Packets of the stream. Each is followed by one that marks its end, so a run takes a few seconds.
const PACKETS: u64 = 6000;

/// Link-layer addresses of the router's ports, `lan0` and `wan0`.
const OWN: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0xff, 1]), MacAddr([2, 0, 0, 0, 0xff, 2])];
/// Those of the neighbours on each link.
const PEER: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0x10, 1]), MacAddr([2, 0, 0, 0, 0x10, 2])];
/// Names, MTUs and addresses of the ports. The links are so small that every address on them is somebody's: no packet
/// waits for a neighbour that never answers.
const PORTS: [(&str, u32, &[&str]); 2] = [
    ("lan0", 1500, &["192.0.2.1/30", "2001:db8::1/126", "fe80::1/64"]),
    ("wan0", 1400, &["198.51.100.1/30", "2001:db8:1::1/126", "fe80::1/64"]),
];
/// Neighbours of each link.
const NEIGHBORS: [&[&str]; 2] = [
    &["192.0.2.2", "2001:db8::2", "2001:db8::3", "fe80::2"],
    &["198.51.100.2", "2001:db8:1::2", "2001:db8:1::3", "fe80::2"],
];
/// Routes, in words that both sides understand.
const ROUTES: &[&str] = &[
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
    fn linux_and_duet_do_the_same() {
        let kernel = match kernel::Kernel::new() {
            Ok(kernel) => kernel,
            Err(e) => panic!("no kernel router: {e}"),
        };
        let mut duet = duet::Duet::new();
        let stream: Vec<_> = (0..PACKETS).map(stream::packet).collect();
        let theirs = kernel.run(&stream);
        let mut used: BTreeMap<&str, usize> = BTreeMap::new();
        let mut unlisted = Vec::new();
        let mut same = 0;
        for (n, (given, theirs)) in stream.iter().zip(&theirs).enumerate() {
            let ours = duet.send(given);
            let (a, b) = (rules::normal(theirs), rules::normal(&ours));
            if a == b {
                same += 1;
                continue;
            }
            match rules::listed(given, &a, &b) {
                Some(rule) => *used.entry(rule).or_default() += 1,
                None => unlisted.push((n, given, a, b)),
            }
        }
        let moved = theirs.iter().filter(|s| !s.is_empty()).count();
        println!("NOTE: {PACKETS} packets, {moved} with an answer or forwarded, {same} treated alike, listed: {used:?}");
        let text = unlisted.iter().take(12).map(|(n, given, a, b)| rules::describe(*n, given, a, b));
        let text: Vec<String> = text.collect();
        assert!(unlisted.is_empty(), "{} unlisted differences:\n{}", unlisted.len(), text.join("\n"));
        // The stream must be worth something, and the list must not hold what is not there any more.
        assert!(same > PACKETS as usize / 2 && moved > PACKETS as usize / 4, "{same} alike, {moved} moved");
        let page = include_str!("../../../docs/differences.md");
        for rule in rules::ALL {
            assert!(page.contains(&format!("`{rule}`")), "docs/differences.md does not list {rule}");
            assert!(used.contains_key(rule), "{rule} was not seen: take it out of docs/differences.md");
        }
    }
}
