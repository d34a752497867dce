//! The same words given to the real `ip` (in a namespace of its own) and to duet over a table in memory: the same output
//! and exit codes must come out. Skipped, loudly, where there is no `ip` or no namespace.

mod common;

use common::{Run, TestRouter};
use std::process::Command;

/// Commands that set the stage; both sides must agree on each one's exit code.
const STAGE: &[&str] = &[
    "addr add 192.0.2.1/24 dev lan0",
    "addr add 192.0.2.2/24 dev lan0",
    "addr add 2001:db8::1/64 dev lan0 nodad",
    "addr add 198.51.100.1/24 dev wan0",
    "route add 203.0.113.0/24 via inet6 2001:db8::22 dev lan0 proto static",
    "route add 10.0.0.0/8 via 192.0.2.9",
    "route add 10.0.0.0/8 via 192.0.2.9",
    "route add 10.0.0.0/8 via 192.0.2.10 metric 5 proto bgp",
    "route append 10.0.0.0/8 via 198.51.100.9",
    "route add 10.1.0.0/16 nexthop via 192.0.2.9 weight 2 nexthop via 198.51.100.9 dev wan0",
    "route add 10.2.0.0/16 proto static metric 7 nexthop via inet6 2001:db8::22 dev lan0 nexthop via 198.51.100.9 weight 3",
    "route add blackhole 10.3.0.0/16",
    "route add unreachable 10.4.0.0/16 metric 5",
    "route add prohibit 10.5.0.0/16 proto 77",
    "route add throw 10.6.0.0/16",
    "route add default via 192.0.2.254 metric 10 src 192.0.2.1 mtu 1400",
    "route add 10.7.0.0/16 dev lan0",
    "route add 10.8.0.1 dev lan0 mtu 1300",
    "route add 10.9.0.0/16 via 10.99.0.1 dev lan0 onlink",
    "route add 10.10.0.0/16 via 192.0.2.9 table 100 proto bgp",
    "route add to 10.11/16 via 192.0.2.9 preference 7",
    "nexthop add id 1 via 192.0.2.77 dev lan0",
    "nexthop add id 1 via 192.0.2.77 dev lan0",
    "nexthop add id 2 via 2001:db8::77 dev lan0",
    "nexthop add id 4 via 203.0.113.77 dev wan0 onlink proto bird",
    "nexthop add id 5 blackhole",
    "nexthop add id 6 dev lan0",
    "nexthop add id 3 group 1/4,10",
    "nexthop add id 7 group 1/4 proto static",
    "route add 10.20.0.0/16 nhid 3",
    "route add 10.21.0.0/16 nhid 3 metric 3 proto bgp src 192.0.2.1",
    "route add 10.22.0.0/16 nhid 1",
    "route add 10.23.0.0/16 nhid 2",
    "route add 10.24.0.0/16 nhid 5",
    "route add 10.25.0.0/16 nhid 99",
    "-6 route add 2001:db8:1::/48 via 2001:db8::9",
    "-6 route add 2001:db8:2::/48 via fe80::9 dev lan0 metric 5",
    "-6 route add default via 2001:db8::9",
    "-6 route add blackhole 2001:db8:3::/48",
    "-6 route add unreachable 2001:db8:4::/48",
    "-6 route add prohibit 2001:db8:5::/48",
    "-6 route add throw 2001:db8:5:5::/64",
    "-6 route add 2001:db8:6::/48 nexthop via 2001:db8::9 weight 2 nexthop via 2001:db8::10 dev lan0",
    "-6 route add 2001:db8:7::/48 nhid 2",
    "-6 route add 2001:db8:8::/48 via 2001:db8::9 src 2001:db8::1 mtu 1300 proto ra",
    "-6 route add 2001:db8:9::/48 via 2001:db8:77::9 dev lan0 onlink",
    "route del 11.0.0.0/8",
    "route change 11.0.0.0/8 via 192.0.2.9",
    "route replace 10.12.0.0/16 via 192.0.2.9",
    "route replace 10.12.0.0/16 via 192.0.2.10",
    "neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev lan0",
    "neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev lan0",
    "neigh add 192.0.2.10 lladdr 02:00:00:00:00:0a dev lan0 nud reachable",
    "neigh add 192.0.2.11 lladdr 02:00:00:00:00:0b dev lan0 nud stale",
    "neigh add 192.0.2.12 dev lan0 nud failed",
    "neigh add 2001:db8::22 lladdr 02:00:00:00:00:22 dev lan0 nud reachable router",
    "neigh del 192.0.2.99 dev lan0",
];

/// Commands whose output is compared.
const SHOW: &[&str] = &[
    "route",
    "route show table all",
    "-6 route",
    "-4 route show table all",
    "-j route",
    "-j route show table all",
    "-j -6 route",
    "-d route",
    "-d route show table all",
    "-d -j route show table all",
    "-p -j route show 10.2.0.0/16",
    "-p -d -j route show 10.20.0.0/16",
    "-o route show 10.1.0.0/16",
    "-o -6 route show 2001:db8:6::/48",
    "route show table 100",
    "-j route show table 100",
    "route show proto static",
    "route show proto 77",
    "-j route show proto static",
    "route show via 192.0.2.9",
    "route show dev lan0",
    "-j route show dev lan0",
    "route show type blackhole",
    "route show match 10.1.2.3",
    "route show root 10.0.0.0/8",
    "route show exact 10.0.0.0/8",
    "route show 10.0.0.0/8",
    "route show scope link",
    "route show src 192.0.2.1",
    "route show 10.1.2.3",
    "-j route show 10.1.2.3",
    "-p -j route show 10.1.2.3",
    "r s 10/8",
    "ro l exact default",
    "route get 192.0.2.99",
    "route get 10.7.1.1",
    "-j route get 10.8.0.1",
    "route get 10.8.0.1",
    "-d route get 10.7.1.1",
    "route get 192.0.2.1",
    "route get 192.0.2.255",
    "-j route get 192.0.2.255",
    "route get 203.0.113.5",
    "-j route get 203.0.113.5",
    "-6 route get 2001:db8::77",
    "-j -6 route get 2001:db8::77",
    "route get 2001:db8:1::1",
    "route get fibmatch 10.1.2.3",
    "route get 10.3.0.1",
    "route get 10.4.0.1",
    "route get 10.5.0.1",
    "route get 2001:db8:4::1",
    "neigh",
    "-4 neigh",
    "-6 neigh",
    "-j neigh",
    "-p -j neigh show 192.0.2.9",
    "neigh show dev lan0",
    "-j neigh show dev lan0",
    "neigh show dev wan0",
    "-p -j neigh show dev wan0",
    "neigh show nud permanent",
    "neigh get 192.0.2.9 dev lan0",
    "neigh get 192.0.2.123 dev lan0",
    "nexthop",
    "-j nexthop",
    "-d nexthop",
    "-d -j nexthop",
    "-p -j nexthop show id 3",
    "nexthop show id 3",
    "nexthop get id 1",
    "nexthop get id 99",
    "nexthop show dev lan0",
    "nexthop show groups",
    "link show lan0",
    "-j link show lan0",
    "-o link show dev lan0",
    "-br link show lan0",
    "-br -j link show lan0",
    "-s -p -j link show fresh0",
    "-s link show fresh0",
    "link show lo",
    "addr show lan0",
    "-j addr show lan0",
    "-p -j addr show lan0",
    "-4 addr show lan0",
    "-6 addr show lan0",
    "-o addr show lan0",
    "-o -4 addr show dev lan0",
    "-br addr show lan0",
    "-br -j addr show lan0",
    "addr show to 192.0.2.0/24",
    "-s addr show fresh0",
    "rule",
    "-j rule",
    "-6 rule",
    "-d rule",
    "-p -j rule",
];

/// Commands that fail alike.
const FAIL: &[&str] = &[
    "route add x/24 via 192.0.2.9",
    "route add 10.0.0.0/33 via 192.0.2.9",
    "route add 10.0.0.1/24 via 192.0.2.9",
    "route add 10.30.0.0/16 via inet6 192.0.2.9",
    "route add 10.30.0.0/16 via inet 2001:db8::9",
    "route add 10.30.0.0/16 via 192.0.2.9 dev nope",
    "route add 10.30.0.0/16 via",
    "route add 10.30.0.0/16 dev",
    "route add 10.30.0.0/16 metric x via 192.0.2.9",
    "route add 10.30.0.0/16 proto xx via 192.0.2.9",
    "route add 10.30.0.0/16 table xx via 192.0.2.9",
    "route add 10.30.0.0/16 proto 300 via 192.0.2.9",
    "route add 10.30.0.0/16 mtu x via 192.0.2.9",
    "route add 10.30.0.0/16 via 192.0.2.9 via 192.0.2.10",
    "route add 10.30.0.0/16 via 192.0.2.9 10.0.0.0/9",
    "route add 10.30.0.0/16",
    "route add 10.30.0.0/16 foo",
    "route add 10.30.0.0/16 nexthop via 192.0.2.9 weight 0",
    "route add 10.30.0.0/16 nexthop via 192.0.2.9 weight 300",
    "route add 10.30.0.0/16 nexthop via 192.0.2.9 foo",
    "route add 10.30.0.0/16 nexthop",
    "route add 10.30.0.0/16 scope xx via 192.0.2.9",
    "route add 10.30.0.0/16 nhid x",
    "route frobnicate",
    "frobnicate",
    "-x route",
    "-f foo route",
    "route show foo",
    "route show proto xx",
    "route show table xx",
    "route show dev nope",
    "route get",
    "route get xx",
    "-6 route add 10.0.0.0/8 via fe80::1",
    "-4 route add 2001:db8::/32 via 192.0.2.9",
    "link set lan0 mtu x",
    "link set nope up",
    "link set",
    "link foo",
    "link set lan0 foo",
    "link show dev nope",
    "addr add 192.0.2.9/24",
    "addr add dev lan0",
    "addr add x dev lan0",
    "addr add 192.0.2.1/33 dev lan0",
    "addr del 192.0.2.77/24 dev lan0",
    "addr add 192.0.2.1/24 dev nope",
    "addr add 192.0.2.1/24 foo",
    "addr flush",
    "addr foo",
    "addr show dev nope",
    "neigh foo",
    "neigh add 192.0.2.9 lladdr 02:00 dev lan0",
    "neigh add 192.0.2.9 lladdr 02:00:00:00:00:09",
    "neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev nope",
    "neigh add dev lan0 lladdr 02:00:00:00:00:09",
    "neigh flush",
    "neigh get 192.0.2.123",
    "nexthop add id x",
    "nexthop del id 99",
    "nexthop add id 8 group x",
    "nexthop foo",
];

/// After the far end of lan0's wire went down.
const LINKDOWN: &[&str] = &["route", "-j route", "-6 route", "-j -6 route show 2001:db8:6::/48"];

const SCRIPT_HEAD: &str = r#"
set -e
ip link set lo up
ip link add lan0 index 2 type veth peer name lan1 index 12
ip link add wan0 index 3 type veth peer name wan1 index 13
ip link add fresh0 index 4 type veth peer name fresh1 index 14
for i in lan0 lan1 wan0 wan1 fresh0 fresh1; do ip link set $i addrgenmode none; done
ip link set lan0 address 02:00:00:00:00:01
ip link set wan0 address 02:00:00:00:00:02
ip link set fresh0 address 02:00:00:00:00:03
for i in lan0 lan1 wan0 wan1 fresh0 fresh1; do ip link set $i up; done
set +e
run() { printf '\036'; ip "$@" 2>/tmp/err.$$; rc=$?; printf '\037'; cat /tmp/err.$$; printf '\037%s' $rc; }
mount -t tmpfs none /tmp 2>/dev/null
"#;

/// Runs all of it with the real `ip`, in one namespace. None: not possible here.
fn real(stage: &[&str], rest: &[&str], linkdown: &[&str]) -> Option<Vec<Run>> {
    let mut script = SCRIPT_HEAD.to_owned();
    for line in stage.iter().chain(rest) {
        script.push_str(&format!("run {line}\n"));
    }
    // The kernel notices a lost carrier a little later.
    script.push_str("ip link set lan1 down\nfor i in $(seq 300); do\n");
    script.push_str("ip route | grep -q linkdown && ip -6 route | grep -q linkdown && break; sleep 0.01; done\n");
    for line in linkdown {
        script.push_str(&format!("run {line}\n"));
    }
    let root = rustix::process::geteuid().is_root();
    let flags = if root { "-nm" } else { "-Urnm" };
    let out = Command::new("unshare").args([flags, "sh", "-c", &script]).output().ok()?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let runs: Vec<Run> = text
        .split('\u{1e}')
        .skip(1)
        .filter_map(|part| {
            let mut fields = part.split('\u{1f}');
            Some(Run {
                out: fields.next()?.to_owned(),
                err: fields.next()?.to_owned(),
                code: fields.next()?.trim().parse().ok()?,
            })
        })
        .collect();
    if runs.len() != stage.len() + rest.len() + linkdown.len() {
        eprintln!("real ip did not run: {}", String::from_utf8_lossy(&out.stderr));
        return None;
    }
    Some(runs)
}

/// What differs for reasons outside the output format: veth's other end, the kernel's own loopback and multicast routes,
/// the order of a dump, and the stack of a machine that has sent packets already.
fn comparable(text: &str) -> Vec<String> {
    let text = text.replace("lan0@lan1        ", "lan0             ");
    let text = text.replace("lan0@lan1", "lan0").replace("fresh0@fresh1", "fresh0").replace("\"link\":\"lan1\",", "");
    let text = text.replace("        \"link\": \"lan1\",\n", "").replace("        \"link\": \"fresh1\",\n", "");
    let text =
        text.replace(" nodad ", " ").replace("\"nodad\":true,", "").replace("                \"nodad\": true,\n", "");
    let mut items: Vec<String> = Vec::new();
    if text.starts_with('[') && text.contains("},{\"") || text.starts_with("[{") {
        let body = text.trim_end().trim_start_matches('[').trim_end_matches(']');
        let (mut depth, mut from) = (0, 0);
        for (i, c) in body.char_indices() {
            match c {
                '{' | '[' => depth += 1,
                '}' | ']' => depth -= 1,
                ',' if depth == 0 => {
                    items.push(body[from..i].to_owned());
                    from = i + 1;
                }
                _ => {}
            }
        }
        items.push(body[from..].to_owned());
    } else {
        for line in text.lines() {
            match items.last_mut() {
                Some(last) if line.starts_with(['\t', ' ']) => {
                    last.push('\n');
                    last.push_str(line);
                }
                _ => items.push(line.to_owned()),
            }
        }
    }
    items.retain(|i| {
        !i.contains("127.0.0")
            && !i.contains("127.255")
            && !i.contains("::1 dev lo")
            && !i.contains("\"dst\":\"::1\"")
            && !i.contains("ff00::/8")
            && !i.contains("anycast")
    });
    items.sort();
    items
}

/// The kernel differs here, on purpose or because duet can do more; see docs/configuration.md and the tests of grammar.
fn familiar(err: &str) -> String {
    err.lines().next().unwrap_or_default().replace("\"ip ", "\"duet ")
}

/// Runs everything over a table in memory and compares.
fn compare(real: Vec<Run>) {
    let router = TestRouter::start(&["lan0", "wan0", "fresh0"]);
    let mut was_down = false;
    let wrong = differences(
        real,
        |_| false,
        |line, down| {
            if down && !std::mem::replace(&mut was_down, true) {
                router.backend.set_carrier("lan0", false);
            }
            Some(router.run(line))
        },
    );
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}

/// What is not the same when `run` executes the lines. It may leave out some; lines and items that are `known` to
/// differ are executed, but not compared.
fn differences(
    real: Vec<Run>,
    known: impl Fn(&str) -> bool,
    mut run: impl FnMut(&str, bool) -> Option<Run>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((line, down), want) in all_lines().zip(real) {
        let Some(got) = run(line, down).filter(|_| !known(line)) else { continue };
        if got.code != want.code || familiar(&got.err) != familiar(&want.err) {
            wrong.push(format!(
                "{line}\n  ip:   {} {}\n  duet: {} {}",
                want.code,
                familiar(&want.err),
                got.code,
                familiar(&got.err)
            ));
        }
        let (mut got, mut want) = (comparable(&got.out), comparable(&want.out));
        if down {
            // The kernel forgets next-hop objects whose link goes down; here they come back with it.
            got.retain(|i| !i.contains("nhid"));
            want.retain(|i| !i.contains("nhid"));
        }
        got.retain(|i| !known(i));
        want.retain(|i| !known(i));
        if got != want {
            let only = |a: &[String], b: &[String]| {
                a.iter().filter(|x| !b.contains(x)).map(|x| format!("{x}$")).collect::<Vec<_>>().join("\n    ")
            };
            wrong.push(format!("{line}\n  ip:\n    {}\n  duet:\n    {}", only(&want, &got), only(&got, &want)));
        }
    }
    wrong
}

/// Every command in order, and whether the far end of lan0 is down by then.
fn all_lines() -> impl Iterator<Item = (&'static str, bool)> {
    let before = STAGE.iter().chain(SHOW).chain(FAIL).map(|l| (*l, false));
    before.chain(LINKDOWN.iter().map(|l| (*l, true)))
}

#[test]
fn same_words_same_output_as_the_real_ip() {
    let rest: Vec<&str> = SHOW.iter().chain(FAIL).copied().collect();
    let Some(real) = real(STAGE, &rest, LINKDOWN) else {
        eprintln!("SKIPPED: comparison with the real ip needs iproute2 and the right to make network namespaces");
        return;
    };
    if std::env::var_os("DUET_RECORD").is_some() {
        let text: String = all_lines()
            .zip(&real)
            .map(|((line, _), r)| {
                format!("$ ip {line}\n{}! {} {}\n", r.out, r.code, r.err.lines().next().unwrap_or(""))
            })
            .collect();
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/iproute2-6.1.txt"), text).unwrap();
    }
    compare(real);
}

/// What `ip` 6.1 said on Linux 6.x, for machines without it. Recorded by the test above with DUET_RECORD=1.
#[test]
fn same_words_same_output_as_recorded() {
    let text = include_str!("iproute2-6.1.txt");
    compare(recorded(text));
}

fn recorded(text: &str) -> Vec<Run> {
    let runs: Vec<Run> = text
        .split("$ ip ")
        .skip(1)
        .zip(all_lines())
        .map(|(part, (line, _))| {
            let (head, rest) = part.split_once('\n').unwrap();
            assert_eq!(head, line, "the recording is out of date: DUET_RECORD=1 cargo test -p router-cli");
            let (out, status) = rest.rsplit_once("! ").unwrap();
            let (code, err) = status.trim_end_matches('\n').split_once(' ').unwrap();
            Run { out: out.to_owned(), err: err.to_owned(), code: code.parse().unwrap() }
        })
        .collect();
    assert_eq!(runs.len(), all_lines().count());
    runs
}

/// The same with the program and a real router, whose ports lead nowhere.
#[test]
fn same_words_same_output_from_a_running_router() {
    let dir = tempfile::tempdir().unwrap();
    let (file, socket) = (dir.path().join("r.toml"), dir.path().join("s"));
    // The kernel of the recorded answers was asked when duplicate address detection was over.
    let mut config = String::from("[neighbor]\ndad_transmits = 0\nmld = false\n\n[port.lo]\nkind = \"loopback\"\n");
    for (i, name) in ["lan0", "wan0", "fresh0"].iter().enumerate() {
        config.push_str(&format!(
            "[port.{name}]\nkind = \"memory\"\nmac = \"02:00:00:00:00:0{}\"\nlink_local = false\n",
            i + 1
        ));
    }
    std::fs::write(&file, config).unwrap();
    let mut router = Command::new(env!("CARGO_BIN_EXE_duet"))
        .arg("run")
        .arg(&file)
        .arg("--socket")
        .arg(&socket)
        .stderr(std::fs::File::create(dir.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        assert!(std::time::Instant::now() < until && router.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    // Linux lets users declare neighbours failed.
    let known = |text: &str| text.contains("192.0.2.12");
    let wrong = differences(recorded(include_str!("iproute2-6.1.txt")), known, |line, down| {
        // A memory port has no wire that could be cut.
        if down {
            return None;
        }
        let mut c = Command::new(env!("CARGO_BIN_EXE_duet"));
        let out = c.args(line.split_whitespace()).env("DUET_SOCKET", &socket).output().unwrap();
        Some(Run {
            out: String::from_utf8(out.stdout).unwrap(),
            err: String::from_utf8(out.stderr).unwrap(),
            code: u8::try_from(out.status.code().unwrap()).unwrap(),
        })
    });
    router.kill().unwrap();
    router.wait().unwrap();
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}
