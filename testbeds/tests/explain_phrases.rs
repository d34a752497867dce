//! What `duet explain` tells, element by element of the decision, as text and as JSON, on a configuration that has them all.

use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

const CONFIG: &str = r#"
[router]
name = "phrases"

[filter.edge]
rules = ["deny tcp dport 25", "reject udp dport 137", "allow"]

[port.lan0]
kind = "packet"
filter_in = "edge"
urpf = "strict"
address = ["192.0.2.1/24", "2001:db8:1::1/64"]

[port.core0]
kind = "packet"
address = ["2001:db8:2::1/64"]

[port.core1]
kind = "packet"
mtu = 1400
address = ["2001:db8:3::1/64"]

[port.wan0]
kind = "packet"
address = ["198.51.100.7/24"]

[tunnel.he]
mode = "6in4"
local = "198.51.100.7"
remote = "203.0.113.5"
address = ["2001:db8:ffff::2/64"]

[rules]
ipv4 = ["from 192.0.2.64/26 lookup 100 priority 100"]

[neigh]
lan0 = ["192.0.2.9 lladdr 02:00:00:00:00:09", "2001:db8:1::9 lladdr 02:00:00:00:00:09"]
core0 = ["2001:db8:2::22 lladdr 02:00:00:00:00:22"]
core1 = ["2001:db8:3::33 lladdr 02:00:00:00:00:33"]
wan0 = ["198.51.100.1 lladdr 02:00:00:00:00:01"]

[routes]
main = [
  "203.0.113.0/24 via 198.51.100.1",
  "10.0.0.0/8 via inet6 2001:db8:2::22",
  "10.1.0.0/16 via inet6 2001:db8:3::33 metric 10",
  "10.1.0.0/16 via inet6 2001:db8:2::22 metric 100",
  "10.2.0.0/16 via 10.1.0.1",
  "10.9.0.0/16 nexthop via inet6 2001:db8:2::22 weight 2 nexthop via inet6 2001:db8:3::33 weight 1",
  "blackhole 192.168.0.0/16",
  "::/0 via 2001:db8:ffff::1 dev he",
]
100 = ["10.0.0.0/8 via 192.0.2.9"]
"#;

/// A tunnel packet of the peer, with an echo request inside.
const ARRIVING: &str = "4500004c000100003c291848cb007105c63364076000000000103a3c2001486048600000000000000000888820010db8000100000000000000000009800018a6000100010000000000000000";

/// The words; what the text must say; what the JSON must have.
type Case = (&'static str, &'static [&'static str], &'static [&'static str]);

const CASES: &[Case] = &[
    // Parse and source check; no rule says more than the table's own order.
    (
        "from 10.5.5.5 to 10.1.2.3 iif lan0",
        &[
            "├─ checks    IPv4 version, lengths, options and header checksum",
            "├─ urpf      strict on lan0: no way back",
            "└─ dropped   urpf: ",
        ],
        &["\"step\":\"checks\"", "\"step\":\"source_check\"", "\"allowed\":false", "\"reason\":\"urpf\""],
    ),
    // Filters: which rule of which filter; who is told, from where, why from there.
    (
        "from 192.0.2.9 to 10.1.2.3 proto tcp dport 25",
        &[
            "├─ filter    edge, in by lan0: deny, rule 1: deny tcp dport 25",
            "└─ answer    none: filter_in is never answered",
        ],
        &["\"step\":\"filter\"", "\"number\":1", "\"action\":\"deny\"", "\"step\":\"no_reply\""],
    ),
    (
        "from 192.0.2.9 to 10.1.2.3 proto udp dport 137",
        &[
            "reject, rule 2",
            "└─ answer    ICMP communication administratively prohibited (type 3 code 13) from 192.0.2.1",
            "from there because the ingress port has it on the sender's link (RFC 1812 4.3.2.4)",
        ],
        &["\"step\":\"reply\"", "\"source\":\"192.0.2.1\"", "\"why\":\"the ingress port"],
    ),
    // The policy rule and its table.
    (
        "from 192.0.2.70 to 10.5.5.5",
        &["├─ rule      100: from 192.0.2.64/26 lookup 100", "├─ lookup    10.5.5.5 in table 100 (rule 100)"],
        &["\"step\":\"rule\",\"priority\":100", "\"table\":100,\"rule\":\"rule 100\""],
    ),
    // Every covering prefix, longest first; candidates with preference and metric; recursion; neighbour; TTL; MTU; bytes.
    (
        "from 192.0.2.9 to 10.1.2.3",
        &[
            "│  ├─ 10.1.0.0/16  wins: the longest that can be used\n│  │  ├─ * via inet6 2001:db8:3::33 dev core1 proto static preference 1 metric 10\n",
            "│  │  │  └─ 2001:db8:3::33 is reached by 2001:db8:3::/64 dev core1\n",
            "│  │  └─   via inet6 2001:db8:2::22 dev core0 proto static preference 1 metric 100  behind: higher metric\n│  └─ 10.0.0.0/8   loses: shorter\n",
            "├─ neighbor  2001:db8:3::33 dev core1 lladdr 02:00:00:00:00:33 permanent (by NDP)\n├─ ttl       64 -> 63\n├─ mtu       1400, set by port core1\n",
            "└─ out       core1 to 2001:db8:3::33, a next hop of the other family, 98 bytes\n             ether 02 00 00 00 00 33 ",
            "\n             ipv4  45 00 00 54 ",
        ],
        &[
            "\"verdict\":\"wins\"",
            "\"verdict\":\"shorter\"",
            "\"preference\":1",
            "\"choice\":\"metric\"",
            "\"recursion\":[[{",
            "\"step\":\"neighbor\"",
            "\"state\":\"PERMANENT\"",
            "\"step\":\"ttl\",\"from\":64,\"to\":63",
            "\"mtu\":1400,\"by\":\"port core1\"",
        ],
    ),
    // A gateway that is found by another route.
    (
        "from 192.0.2.9 to 10.2.2.3",
        &[
            "│     ├─ 10.1.0.1 is reached by 10.1.0.0/16 via inet6 2001:db8:3::33 dev core1\n",
            "└─ 2001:db8:3::33 is reached by 2001:db8:3::/64 dev core1\n",
        ],
        &["\"recursion\":[["],
    ),
    // A member of a group, and the others.
    (
        "from 192.0.2.9 to 10.9.1.1 proto tcp sport 1000 dport 443",
        &[
            "├─ group     flow hash 0x",
            " of addresses, protocol, ports: bucket ",
            "* via 2001:db8:2::22 dev core0   67% of flows, this one's\n",
            "  via 2001:db8:3::33 dev core1   33% of flows\n",
        ],
        &["\"step\":\"group\",\"hash\":", "\"members\":["],
    ),
    // Encapsulation, bytes added, whose MTU it is.
    (
        "from 2001:db8:1::9 to 2001:4860:4860::8888 len 1300",
        &[
            "├─ tunnel    he (6in4): 198.51.100.7 > 203.0.113.5, 20 bytes added, outer ttl 64 len 1320, DF set",
            "203.0.113.5 is reached by 203.0.113.0/24 via 198.51.100.1 dev wan0",
            "├─ mtu       1480, set by tunnel he: its carrier's 1500 less 20",
            "             ipv4  45 00 05 28 ",
            "             ipv6  60 00 00 00 ",
        ],
        &["\"step\":\"encap\"", "\"added\":20", "\"mtu\":1480", "\"limits\":["],
    ),
    // Decapsulation and the second lookup.
    (
        "iif wan0 --hex ARRIVING",
        &[
            "├─ local     a tunnel packet to one of the router's addresses",
            "├─ tunnel    he: out of 203.0.113.5 > 198.51.100.7, its configured peer; 20 bytes taken off",
            "└─ inside    2001:4860:4860::8888 > 2001:db8:1::9 icmp6 echo request",
            "   ├─ lookup    2001:db8:1::9 in table main",
            "   └─ out       lan0, 70 bytes",
        ],
        &["\"step\":\"decap\"", "\"role\":\"inner\""],
    ),
    // What cannot go on: the reason, the error that goes back with the true MTU.
    (
        "from 192.0.2.9 to 10.1.2.3 len 1450 df",
        &[
            "├─ dropped   too_big: ",
            "└─ answer    ICMP fragmentation needed, mtu 1400 (type 3 code 4) from 192.0.2.1",
            "   └─ out       lan0, ",
        ],
        &["\"reason\":\"too_big\"", "\"step\":\"reply\""],
    ),
    (
        "from 192.0.2.9 to 10.1.2.3 ttl 1",
        &["├─ dropped   ttl_expired: ", "└─ answer    ICMP time exceeded in transit (type 11 code 0)"],
        &["\"reason\":\"ttl_expired\""],
    ),
    (
        "from 192.0.2.9 to 192.168.1.1",
        &["└─ dropped   blackhole: ", "   └─ answer    none: blackhole is never answered"],
        &["\"reason\":\"blackhole\""],
    ),
    // Each piece.
    (
        "from 192.0.2.9 to 10.1.2.3 len 3000 --all",
        &["├─ cut       into 3 fragments", "├─ fragment  1 of 3: ", "├─ fragment  2 of 3: ", "└─ fragment  3 of 3: "],
        &["\"role\":{\"fragment\":{\"index\":2,\"of\":3}"],
    ),
    (
        "from 192.0.2.9 to 10.1.2.3 proto tcp len 4000 gso 1348 --all",
        &["segment   1 of 3: ", "└─ segment   3 of 3: "],
        &["\"role\":{\"segment\":{\"index\":2,\"of\":3}"],
    ),
];

#[test]
fn every_element_of_the_decision_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("phrases.toml");
    std::fs::write(&file, CONFIG).unwrap();
    let explain = |words: &str, json: bool| {
        let words: Vec<&str> = words.split_whitespace().map(|w| if w == "ARRIVING" { ARRIVING } else { w }).collect();
        let mut command = Command::new(PROGRAM);
        command.args(["explain", "-c"]).arg(&file).args(words).args(json.then_some("-j")).env_remove("DUET_SOCKET");
        let out = command.output().unwrap();
        let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{errors}");
        text.into_owned()
    };
    let mut missing = Vec::new();
    for (words, said, values) in CASES {
        let (text, json) = (explain(words, false), explain(words, true));
        assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{json}");
        missing.extend(said.iter().filter(|s| !text.contains(**s)).map(|s| format!("{words}: text {s}\n{text}")));
        missing.extend(values.iter().filter(|v| !json.contains(**v)).map(|v| format!("{words}: JSON {v}\n{json}")));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}
