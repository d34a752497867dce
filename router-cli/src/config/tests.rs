use super::diff::{Change, Target, apply, diff};
use super::*;
use crate::control::{Backend, Op, WireError};
use crate::fake::FakeBackend;
use router_core::port::{PortKind, TableId};
use router_core::settings::OnConflict;
use router_core::spec::proto;
use std::sync::Mutex;
use std::time::Duration;

const DIAMOND: &str = r#"
[router]
name = "diamond"
router_id = "192.0.2.1"
workers = 2
mode = "0600"

[port.lan0]
kind = "packet"
device = "eth1"
address = ["192.0.2.1/24", "2001:db8:1::1/64"]
mtu = 1500
vlan = 100
link_local = "fe80::1"
acd = false

[port.tun0]
kind = "tun"
host_address = "198.51.100.2/24"

[tunnel.he]
mode = "6in4"
local = "198.51.100.7"
remote = "203.0.113.5"
ttl = "inherit"
address = "2001:db8:ffff::2/64"

[nexthop]
1 = "via 192.0.2.9 dev lan0"
2 = "group 1,3"

[neigh]
lan0 = ["192.0.2.9 lladdr 02:00:00:00:00:09"]

[routes]
main = [
  "203.0.113.0/24 via inet6 2001:db8:1::22",
  "default via 2001:db8:ffff::1 dev he",   # IPv6
  '10.0.0.0/8 nhid 2 proto bgp',
]
100 = ["blackhole 10.0.0.0/8"]

[icmp]
error_rate = 50
ttl = 200
dummy_source = "192.0.0.9"
info_to = ["192.0.2.0/24", "2001:db8::/32"]

[neighbor]
reachable_time = "10s"
retrans_timer = "250ms"
max_pending = 8
failed_hold = 1.5
acd = true
acd_conflict = "yield"
"#;

#[test]
fn everything_is_read() {
    let plan = read(DIAMOND).unwrap();
    assert_eq!((plan.router.name.as_str(), plan.router.workers, plan.router.access.mode), ("diamond", Some(2), 0o600));
    assert_eq!(plan.router.socket_path().to_str(), Some("/run/duet/diamond.sock"));
    let lan0 = &plan.ports["lan0"];
    assert_eq!((lan0.kind, lan0.vlan, lan0.address.len()), (PortKind::Packet, Some(100), 2));
    assert_eq!(lan0.link_local, LinkLocal::Address("fe80::1".parse().unwrap()));
    let he = &plan.tunnels["he"];
    assert_eq!((he.spec.ttl, he.spec.ttl_inherit, he.address.len()), (None, true, 1));
    assert_eq!(plan.routes.len(), 4);
    let get = |dst: &str| plan.routes.iter().find(|r| r.dst.to_string() == dst).unwrap();
    assert_eq!((get("::/0").proto, get("::/0").table), (Some(proto::STATIC), Some(TableId::MAIN)));
    assert_eq!(get("203.0.113.0/24").hops[0].via, Some("2001:db8:1::22".parse().unwrap()));
    assert_eq!(plan.nexthops.len(), 2);
    assert_eq!(plan.neighs[0].dev, "lan0");
    assert_eq!(
        (plan.settings.icmp.error_rate, plan.settings.icmp.ttl, plan.settings.neighbor.max_pending),
        (50, 200, 8)
    );
    assert_eq!(plan.settings.neighbor.reachable_time, Duration::from_secs(10));
    assert_eq!(plan.settings.neighbor.retrans_timer, Duration::from_millis(250));
    assert_eq!(plan.settings.neighbor.failed_hold, Duration::from_millis(1500));
    assert_eq!(plan.settings.icmp.info_to.len(), 2);
    let n = &plan.settings.neighbor;
    assert!(n.probes_ipv4("he") && !n.probes_ipv4("lan0") && n.acd_conflict == OnConflict::Yield);
    assert_eq!(read("").unwrap(), Plan::default());
}

/// Settings of single prefixes of an advertisement, and what is wrong with some.
#[test]
fn prefixes_of_an_advertisement() {
    let text = |prefix: &str| {
        let port = "[port.lan0]\nkind = \"memory\"\naddress = [\"2001:db8:1::1/64\"]\n";
        format!("{port}[port.lan0.advertise.prefix]\n{prefix}\n")
    };
    let plan = read(&text(
        "\"2001:db8:1::/64\" = { valid = \"1h\", preferred = \"10m\", on_link = false, autonomous = false }",
    ));
    let adverts = plan.unwrap().settings.adverts;
    let of = adverts["lan0"].by_prefix[&"2001:db8:1::/64".parse().unwrap()];
    let (hour, ten) = (Duration::from_secs(3600), Duration::from_secs(600));
    assert_eq!((of.valid, of.preferred, of.on_link, of.autonomous), (Some(hour), Some(ten), false, Some(false)));
    for (wrong, what) in [
        ("\"192.0.2.0/24\" = {}", "192.0.2.0/24 is not an IPv6 prefix"),
        ("\"2001:db8:1::/64\" = { onlink = true }", "did you mean \"on_link\"?"),
        ("\"2001:db8:1::/64\" = { valid = \"1m\", preferred = \"2m\" }", "the preferred lifetime is longer"),
        ("\"2001:db8:1::/56\" = { autonomous = true }", "hosts cannot make addresses from 2001:db8:1::/56"),
        ("\"2001:db8:1::/64\" = 5", "not a table"),
    ] {
        let all = problems(&text(wrong)).join("\n");
        assert!(all.contains(what), "{wrong}: {all}");
    }
}

/// Each problem of a text, as the user sees it.
fn problems(text: &str) -> Vec<String> {
    read(text).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn problems_have_place_and_remedy() {
    let cases: &[(&str, &[&str])] = &[
        ("[rooter]\n", &["1:2: unknown section [rooter]; did you mean [router]?"]),
        ("[router]\nnmae = \"x\"\n", &["2:1: unknown key \"nmae\" in [router]; did you mean \"name\"?"]),
        ("[router]\nworkers = 0\n", &["2:11: workers in [router] is 0, expected a number from 1 to 256"]),
        (
            "[router]\nname = \"a/b\"\n",
            &[
                "2:8: name in [router]: \"a/b\" cannot be a name: up to 64 letters, digits, \".\", \"_\" and \"-\"; write name = \"diamond\"",
            ],
        ),
        ("[router]\nmode = 660\n", &["2:8: mode in [router] is not an octal file mode; write mode = \"0660\""]),
        (
            "[router]\nowner = \"nobody-like-this\"\n",
            &["2:9: owner in [router]: no user \"nobody-like-this\" here; write owner = \"root:netops\""],
        ),
        (
            "[port.lan0]\naddress = [\"192.0.2.1/33\"]\n",
            &[
                "1:7: [port.lan0] has no kind; write kind = \"packet\" (or auto, xdp, tun, tap, datalink, rawip, udp, wireguard, memory, pcap)",
                "2:12: address in [port.lan0]: \"192.0.2.1/33\": prefix length must be 0 to 32; write address = [\"192.0.2.1/24\", \"2001:db8::1/64\"]",
            ],
        ),
        (
            "[port.lan0]\nkind = \"paket\"\n",
            &["2:8: kind in [port.lan0]: unknown kind \"paket\", did you mean \"packet\"?; write kind = \"packet\""],
        ),
        (
            "[port.\"a b\"]\nkind = \"tun\"\n",
            &["1:7: \"a b\" cannot be a port's name; a name has 1 to 15 characters, no white space, no \"/\" or \":\""],
        ),
        (
            "[port.a]\nkind = \"tun\"\nmtu = 1000\naddress = \"2001:db8::1/64\"\n",
            &["1:7: [port.a] has an IPv6 address and an MTU below 1280 (RFC 8200 5); raise mtu or remove the address"],
        ),
        (
            "[port.a]\nkind = \"packet\"\ndevice = \"eth0\"\n[port.b]\nkind = \"packet\"\ndevice = \"eth0\"\n",
            &["4:7: [port.b] uses device eth0 like [port.a]; one port per device and VLAN"],
        ),
        (
            "[tunnel.he]\nmode = \"6in4\"\nlocal = { device = \"eth0\" }\nremote = \"203.0.113.5\"\n",
            &[
                "3:9: local in [tunnel.he] follows nothing; write local = { dev = \"eth0\" }: a port, or a device of the host",
                "3:11: unknown key \"device\" in [tunnel.he.local]; known keys are dev",
            ],
        ),
        (
            "[tunnel.he]\nmode = \"vti\"\nlocal = \"192.0.2.1\"\n",
            &[
                "1:9: [tunnel.he] has no remote; write remote = \"203.0.113.5\"",
                "2:8: mode in [tunnel.he]: unknown mode \"vti\", known are 6in4, 4in6, 6in6, any-in-6, 4in4, any-in-4, gre, gre6, 6rd, 6to4; write mode = \"6in4\"",
            ],
        ),
        (
            "[neighbor]\nreachable_time = \"soon\"\n",
            &[
                "2:18: reachable_time in [neighbor] is \"soon\", expected a time; write reachable_time = \"30s\" (ms, s, m, h)",
            ],
        ),
        (
            "[routes]\nmain = [\n  \"10.0.0.0/8 via 192.0.2.9 dev lan0\",\n  \"10.0.0.1/8 via 192.0.2.9\",\n]\n",
            &[
                "3:3: Cannot find device \"lan0\"; add [port.lan0] or [tunnel.lan0]",
                "4:4: Invalid prefix for given prefix length; \"10.0.0.1/8\" has bits set beyond its length; did you mean 10.0.0.0/8?",
            ],
        ),
        (
            "[routes]\nmain = [\"10.0.0.0/8 metrik 5 via 192.0.2.9\"]\n",
            &[
                "2:21: either \"to\" is duplicate, or \"metrik\" is a garbage; this word is neither an option of a route nor its only prefix",
            ],
        ),
        (
            "[routes]\nmain = [\"default via inet6 2001:db8::1\"]\n",
            &[
                "2:10: \"default\" is ambiguous with a next hop of its own family; say 0.0.0.0/0 or -4 for the IPv4 default route, ::/0 or -6 for the IPv6 one",
            ],
        ),
        (
            "[routes]\nmian = [\"10.0.0.0/8 via 192.0.2.9\"]\n",
            &[
                "2:1: \"mian\" in [routes] is not a table; name the table: main, local, default, a number or a VRF, such as main = [ ... ]",
            ],
        ),
        (
            "[routes]\nmain = [\"10.0.0.0/8 via 192.0.2.9\", \"10.0.0.0/8 via 192.0.2.10\"]\n",
            &[
                "2:37: the route to 10.0.0.0/8 is there already, in line 2; give one another metric, or join them with nexthop",
            ],
        ),
        (
            "[routes]\nmain = [\"10.0.0.0/8 nhid 7\"]\n",
            &["2:9: next hop 7 is not in [nexthop]; add 7 = \"via ... dev ...\""],
        ),
        ("[router\nname = \"x\"\n", &["1:8: unclosed table, expected `]`"]),
    ];
    for (text, want) in cases {
        assert_eq!(problems(text), *want, "{text}");
    }
}

#[test]
fn the_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.toml");
    std::fs::write(&path, "[a]\n[b]\n").unwrap();
    let text = load(&path).unwrap_err().to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with(&format!("{}:1:2: unknown section [a]", path.display())), "{text}");
    let missing = load(&dir.path().join("y.toml")).unwrap_err().to_string();
    assert!(missing.contains("y.toml: No such file"), "{missing}");
}

/// Carries out operations on a fake router, ports aside, and refuses what it is told to.
struct Rig {
    fake: FakeBackend,
    log: Mutex<Vec<Change>>,
    refuse: Option<String>,
}

impl Target for Rig {
    fn change(&self, change: Change) -> Result<(), WireError> {
        self.log.lock().unwrap().push(change.clone());
        if let (Some(word), Change::Op(op)) = (&self.refuse, &change)
            && serde_json::to_string(op).unwrap().contains(word)
            && !matches!(op, Op::RouteDelete(_))
        {
            return Err(WireError::new("failed", "Error: refused.", "because"));
        }
        match change {
            Change::Op(op) => self.fake.call(op).map(|_| ()),
            _ => Ok(()),
        }
    }
}

impl Rig {
    fn new(refuse: Option<&str>) -> Self {
        let fake = FakeBackend::with_ports(&["lan0"]);
        Rig { fake, log: Mutex::default(), refuse: refuse.map(str::to_owned) }
    }

    fn routes(&self) -> Vec<String> {
        let select = crate::control::RouteSelect { table: crate::control::TableSelect::All, ..Default::default() };
        let (list, _) = self.fake.routes(&select, None, 1000).unwrap();
        list.iter().map(|i| crate::output::route_line(&i.route)).collect()
    }
}

fn plan(routes: &str) -> Plan {
    read(&format!(
        "[port.lan0]\nkind = \"packet\"\n[nexthop]\n1 = \"via 192.0.2.9 dev lan0\"\n[routes]\nmain = [{routes}]\n"
    ))
    .unwrap()
}

#[test]
fn a_reload_applies_the_difference() {
    let rig = Rig::new(None);
    let a = plan(r#""10.0.0.0/8 via 192.0.2.9 dev lan0", "10.1.0.0/16 via 192.0.2.9 dev lan0", "10.2.0.0/16 nhid 1""#);
    let b = plan(r#""10.0.0.0/8 via 192.0.2.10 dev lan0", "10.2.0.0/16 nhid 1", "10.3.0.0/16 dev lan0""#);
    apply(&rig, &diff(&Plan::default(), &a)).unwrap();
    let steps = diff(&a, &b);
    let texts: Vec<&str> = steps.iter().map(|s| s.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "route 10.0.0.0/8 proto static via inet 192.0.2.10 dev lan0",
            "route 10.3.0.0/16 proto static dev lan0",
            "route 10.1.0.0/16 proto static via inet 192.0.2.9 dev lan0 removed",
        ]
    );
    apply(&rig, &steps).unwrap();
    let after = rig.routes();
    assert_eq!(after.len(), 3);
    assert!(after[0].contains("192.0.2.10") && after[2].starts_with("10.3.0.0/16"), "{after:?}");
    assert!(diff(&b, &b).is_empty());
}

#[test]
fn a_refused_reload_leaves_everything_as_it_was() {
    let rig = Rig::new(Some("10.9.0.0/16"));
    let a = plan(r#""10.0.0.0/8 via 192.0.2.9 dev lan0", "10.1.0.0/16 via 192.0.2.9 dev lan0""#);
    apply(&rig, &diff(&Plan::default(), &a)).unwrap();
    let before = rig.routes();
    let b = plan(r#""10.0.0.0/8 via 192.0.2.10 dev lan0", "10.2.0.0/16 dev lan0", "10.9.0.0/16 dev lan0""#);
    let error = apply(&rig, &diff(&a, &b)).unwrap_err();
    assert_eq!(error.line, "route 10.9.0.0/16 proto static dev lan0: Error: refused.");
    assert_eq!(rig.routes(), before);
}

#[test]
fn routes_come_after_those_they_lean_on() {
    let p = read(
        "[port.lan0]\nkind = \"packet\"\naddress = \"192.0.2.1/24\"\n[routes]\nmain = [\"10.0.0.0/8 via 203.0.113.1\", \
         \"198.51.100.0/24 via 10.1.1.1\", \"203.0.113.0/24 via 192.0.2.9\", \"172.16.0.0/12 via 172.16.0.1\"]\n",
    )
    .unwrap();
    let texts: Vec<String> = diff(&Plan::default(), &p).into_iter().skip(1).map(|s| s.text).collect();
    let order: Vec<&str> = texts.iter().filter_map(|t| t.split(' ').nth(1)).collect();
    assert_eq!(order, ["203.0.113.0/24", "10.0.0.0/8", "172.16.0.0/12", "198.51.100.0/24"]);
}

#[test]
fn a_port_opened_anew_gets_its_routes_again() {
    let a = plan(r#""10.0.0.0/8 via 192.0.2.9 dev lan0", "10.2.0.0/16 nhid 1", "blackhole 10.3.0.0/16""#);
    let mut b = a.clone();
    b.ports.get_mut("lan0").unwrap().device = Some("eth7".into());
    let texts: Vec<String> = diff(&a, &b).into_iter().map(|s| s.text).collect();
    assert_eq!(
        texts,
        [
            "port lan0 removed",
            "port lan0 added",
            "nexthop 1 changed",
            "route 10.0.0.0/8 proto static via inet 192.0.2.9 dev lan0",
        ]
    );
    let mut c = a.clone();
    c.ports.get_mut("lan0").unwrap().address.push("192.0.2.1/24".parse().unwrap());
    let texts: Vec<String> = diff(&a, &c).into_iter().map(|s| s.text).collect();
    assert_eq!(texts, ["address 192.0.2.1/24 of lan0 added"]);
}

proptest::proptest! {
    #[test]
    fn any_text_gives_a_plan_or_problems(text in "(\\[[a-z.]{1,12}\\]\n)?([a-z_]{1,12} = (\"[^\"\\\\\n]{0,20}\"|[0-9a-fx._-]{1,9}|\\[\"[^\"\\\\\n]{0,30}\"\\])\n){0,6}") {
        let _ = read(&text);
    }

    #[test]
    fn any_change_of_a_good_file_gives_a_plan_or_problems(at in 0usize..DIAMOND.len(), with in "\\PC{0,6}", len in 0usize..12) {
        let mut text = DIAMOND.to_owned();
        let floor = |mut i: usize| { while !text.is_char_boundary(i) { i -= 1; } i };
        let (from, to) = (floor(at), floor((at + len).min(text.len())));
        text.replace_range(from..to, &with);
        if let Err(problems) = read(&text) {
            proptest::prop_assert!(!problems.is_empty());
        }
    }
}

const TWINS: &str = r#"
[port.r0]
kind = "memory"
address = "192.0.2.1/24"
mark = 7

[port.b0]
kind = "memory"
address = "192.0.2.1/24"

[vrf.red]
table = 10
ports = ["r0"]
address = "198.51.100.1/32"

[vrf.blue]
table = 20
ports = ["b0"]

[rules]
ipv4 = ["from 192.0.2.0/25 lookup 100 priority 100"]
ipv6 = ["dscp EF prohibit"]

[routes]
red = ["default via 192.0.2.254", "203.0.113.0/24 from 192.0.2.0/25 dev blue"]
"#;

#[test]
fn vrfs_and_rules() {
    let plan = read(TWINS).unwrap();
    assert_eq!(plan.ports["r0"].table, TableId(10));
    assert_eq!(plan.ports["b0"].vrf.as_deref(), Some("blue"));
    assert!(plan.routes.iter().all(|r| r.table == Some(TableId(10)) && r.vrf.is_none()));
    assert_eq!(plan.routes[1].from, "192.0.2.0/25".parse().ok());
    let rules: Vec<_> = plan.rules.iter().map(ToString::to_string).collect();
    assert_eq!(rules, ["from 192.0.2.0/25 lookup 100", "from all dscp 46 prohibit"]);
    let texts: Vec<String> = diff(&Plan::default(), &plan).into_iter().map(|s| s.text).collect();
    let at = |t: &str| texts.iter().position(|x| x.starts_with(t)).unwrap_or_else(|| panic!("{t}: {texts:?}"));
    assert!(at("VRF red added") < at("port r0 added") && at("port r0 added") < at("route "));
    // Out of one VRF, into the other, and its mark: without closing the port.
    let moved = TWINS.replace("ports = [\"r0\"]", "ports = []").replace("ports = [\"b0\"]", "ports = [\"b0\", \"r0\"]");
    let moved = read(&moved.replace("mark = 7", "mark = 8")).unwrap_err();
    assert!(format!("{moved:?}").contains("both have the address"), "{moved:?}");
    let other = read(&TWINS.replace("ports = [\"r0\"]", "ports = []")).unwrap();
    let texts: Vec<String> = diff(&plan, &other).into_iter().map(|s| s.text).collect();
    assert_eq!(texts, ["port r0: link"]);
    let back: Vec<String> = diff(&plan, &Plan::default()).into_iter().map(|s| s.text).collect();
    assert!(back.iter().any(|t| t == "VRF blue removed") && back.iter().any(|t| t.starts_with("rule ")), "{back:?}");
    for (from, to, why) in [
        ("table = 20", "table = 10", "has the table of"),
        ("table = 20", "table = 254", "the router's own tables"),
        ("ports = [\"b0\"]", "ports = [\"b1\"]", "Cannot find device"),
        ("ports = [\"b0\"]", "ports = [\"r0\"]", "already"),
        ("red = [", "rod = [", "did you mean \"red\"?"),
        ("ipv6 = [", "ipv9 = [", "unknown key"),
        ("dscp EF prohibit", "dscp EF", "does nothing"),
    ] {
        let problems = format!("{:?}", read(&TWINS.replace(from, to)).unwrap_err());
        assert!(problems.contains(why) || problems.replace('\\', "").contains(why), "{to}: {problems}");
    }
}

#[test]
fn gre_tunnels_are_told_apart_by_their_keys() {
    let gre = |name: &str, more: &str| {
        format!("[tunnel.{name}]\nmode = \"gre\"\nlocal = \"198.51.100.7\"\nremote = \"203.0.113.5\"\n{more}\n")
    };
    let good = [gre("a", "key = 1"), gre("b", "ikey = 2\nokey = 1"), gre("c", "")].concat();
    assert_eq!(read(&good).unwrap().tunnels.len(), 3);
    for (one, two, want) in [("key = 1", "ikey = 1\nokey = 9", "and the key 1 as"), ("", "okey = 3", "and no key as")] {
        let problems = read(&[gre("a", one), gre("b", two)].concat()).unwrap_err();
        assert!(problems.iter().any(|p| p.message.contains(want)), "{problems:?}");
    }
}

#[test]
fn keepalives_ask_by_echo_or_gre_and_may_search_for_the_mtu() {
    let tunnel = |mode: &str, more: &str| {
        format!("[tunnel.t]\nmode = \"{mode}\"\nlocal = \"198.51.100.7\"\nremote = \"203.0.113.5\"\n{more}\n")
    };
    let of = |mode: &str, more: &str| read(&tunnel(mode, more)).unwrap().tunnels["t"].spec.options.clone();
    let short = of("gre", "keepalive = \"gre\"\nkeepalive_answer = true");
    assert!(short.keepalive.unwrap().gre && short.gre.answer && !short.keepalive.unwrap().probe_mtu);
    let long = of("gre", "keepalive = { kind = \"gre\", interval = \"500ms\", retries = 5 }").keepalive.unwrap();
    assert_eq!((long.gre, long.interval, long.retries, long.hold), (true, 500, 5, 3));
    let probing = of("6in4", "keepalive = { target = \"2001:db8::1\", probe_mtu = true }").keepalive.unwrap();
    assert!(!probing.gre && probing.probe_mtu);
    for (mode, more) in [
        ("6in4", "keepalive = \"gre\""),
        ("6in4", "keepalive_answer = true"),
        ("gre", "keepalive = { kind = \"gre\", probe_mtu = true }"),
        ("gre", "keepalive = { kind = \"gre\", target = \"192.0.2.1\" }"),
        ("gre", "keepalive = { interval = \"1s\" }"),
        ("gre", "keepalive = { kind = \"bfd\" }"),
        ("6in4", "pmtudisc = false\nkeepalive = { target = \"2001:db8::1\", probe_mtu = true }"),
    ] {
        assert!(read(&tunnel(mode, more)).is_err(), "{mode} {more}");
    }
}

#[test]
fn ipv4_options_have_names_and_numbers() {
    use router_core::settings::OptionAction::{Drop, Ignore, Process};
    let of = |text: &str| read(&format!("[ipv4_options]\n{text}\n")).map(|plan| plan.settings.ipv4_options);
    let some = of(
        "lsrr = \"process\"\n137 = \"ignore\"\nexperiment = \"drop\"\ntimestamp = \"ignore\"\n99 = \"ignore\"\nunknown = \"drop\"",
    );
    let some = some.unwrap();
    for (kind, want) in [
        (131, Process),
        (137, Ignore),
        (30, Drop),
        (222, Drop),
        (68, Ignore),
        (7, Process),
        (98, Drop),
        (99, Ignore),
        (148, Ignore),
        (0, Ignore),
        (1, Ignore),
    ] {
        assert_eq!(some.action(kind), want, "{kind}");
    }
    for (text, want) in [
        ("lssr = \"drop\"", "did you mean lsrr?"),
        ("lsrr = \"accept\"", "neither"),
        ("lsrr = true", "neither"),
        ("router_alert = \"process\"", "nothing to do"),
        ("1 = \"drop\"", "padding"),
        ("256 = \"drop\"", "unknown option"),
    ] {
        let problems = format!("{:?}", of(text).unwrap_err());
        assert!(problems.contains(want), "{text}: {problems}");
    }
}

#[test]
fn inner_df_is_ignored_where_somebody_says_so() {
    let of = |more: &str| {
        read(&format!("[tunnel.t]\nmode = \"4in4\"\nlocal = \"198.51.100.7\"\nremote = \"203.0.113.5\"\n{more}\n"))
    };
    let plan = of("pmtudisc = false\nignore_df = true").unwrap();
    assert!(plan.tunnels["t"].spec.options.ignore_df);
    assert!(of("ignore_df = true").is_err() && of("").is_ok());
}

/// Ports without link layer have nobody to probe, or to tell of themselves: said, not passed over.
#[test]
fn what_speaks_to_a_link_needs_one() {
    for (name, kind, more) in
        [("p0", "tun", ""), ("p0", "rawip", ""), ("p0", "udp", "listen = [6080]\n"), ("lo", "loopback", "")]
    {
        let port = format!("[port.{name}]\nkind = \"{kind}\"\n{more}");
        for key in ["acd", "advertise", "irdp"] {
            let found = problems(&format!("{port}{key} = true\n")).join("\n");
            assert!(found.contains(&format!("has {key}")) && found.contains("leave it out"), "{kind} {key}: {found}");
        }
        let found = read(&format!("{port}acd = false\n"));
        assert!(found.is_ok(), "{kind}: {found:?}");
    }
    for kind in ["packet", "tap", "memory", "auto"] {
        let all = format!("[port.p0]\nkind = \"{kind}\"\nacd = true\nirdp = true\nadvertise = true\n");
        assert!(read(&all).is_ok(), "{kind}");
    }
}

/// Proves rfc1256-4.1-configurable.
#[test]
fn icmp_router_discovery_of_a_port() {
    use router_core::settings::IrdpSettings;
    let of = |more: &str| read(&format!("[port.lan0]\nkind = \"packet\"\n{more}\n")).map(|plan| plan.settings.irdp);
    assert!(of("").unwrap().is_empty() && of("irdp = false").unwrap().is_empty());
    assert_eq!(of("irdp = true").unwrap()["lan0"], IrdpSettings::default());
    let all = "[port.lan0.irdp]\ninterval = \"20s\"\nmin_interval = \"10s\"\nlifetime = \"30s\"\npreference = -3\n\
               broadcast = true\nexclude = [\"192.0.2.9\"]\npreferences = { \"192.0.2.1\" = \"never\" }";
    let secs = std::time::Duration::from_secs;
    let want = IrdpSettings {
        broadcast: true,
        max_interval: secs(20),
        min_interval: Some(secs(10)),
        lifetime: Some(secs(30)),
        preference: -3,
        addresses: [("192.0.2.9", None), ("192.0.2.1", Some(i32::MIN))]
            .map(|(a, p)| (a.parse().unwrap(), p))
            .into_iter()
            .collect(),
    };
    assert_eq!(of(all).unwrap()["lan0"], want);
    for bad in [
        "interval = \"3s\"",
        "preference = \"high\"",
        "exclude = [\"2001:db8::1\"]",
        "preferences = { x = 1 }",
        "rate = 1",
    ] {
        assert!(of(&format!("[port.lan0.irdp]\n{bad}")).is_err(), "{bad}");
    }
}

#[test]
fn offloading_is_off_unless_asked_for() {
    for (text, most) in [
        ("", None),
        ("[offload]\n", None),
        ("[offload]\nflows = false\nmax = 7\n", None),
        ("[offload]\nflows = true\n", Some(65_536)),
        ("[offload]\nflows = true\nmax = 1000\n", Some(1000)),
    ] {
        assert_eq!(super::read(text).unwrap().offload, most, "{text}");
    }
    let problems = super::read("[offload]\nflows = 1\nmax = 0\nfast = true\n").unwrap_err();
    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(said[1].contains("expected a number from 1 to 1048576"), "{said:?}");
}
