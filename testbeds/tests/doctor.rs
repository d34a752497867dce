//! The doctor, the differ and the draughtsman: on a running router, on a configuration alone, and on the host around them.

use router_io::netlink::sysctl;
use router_io::sandbox_test;
use serde_json::Value;
use std::process::{Command, Output};
use testbeds::desk::Plain;
use testbeds::lab::Dut::Duet;
use testbeds::lab::{Bed, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");
const HEALTHY: &str = include_str!("../../docs/examples/inspect.toml");
const PATIENT: &str = include_str!("../../docs/examples/doctor.toml");

fn duet(words: &[&str]) -> Output {
    Command::new(PROGRAM).args(words).env_remove("DUET_SOCKET").output().unwrap()
}

fn checks(out: &Output) -> Vec<(String, String)> {
    let list: Value =
        serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&out.stdout)));
    let word = |f: &Value, key: &str| f[key].as_str().unwrap_or_else(|| panic!("{f} has no {key}")).to_owned();
    for f in list.as_array().unwrap() {
        assert!(!word(f, "what").is_empty() && !word(f, "evidence").is_empty() && !word(f, "mend").is_empty(), "{f}");
    }
    list.as_array().unwrap().iter().map(|f| (word(f, "severity"), word(f, "check"))).collect()
}

fn has(list: &[(String, String)], severity: &str, check: &str) -> bool {
    list.iter().any(|(s, c)| s == severity && c == check)
}

#[test]
fn findings_of_a_configuration_and_of_the_same_router_running() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("patient.toml");
    std::fs::write(&file, PATIENT).unwrap();
    let out = duet(&["doctor", "-j", file.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(2));
    let running = Plain::start(PROGRAM, &PATIENT.replace("[router]", "[router]\nsocket = \"SOCKET\"")).unwrap();
    let live = running.ask_with(&["doctor", "-j"], b"").unwrap();
    assert_eq!(live.status.code(), Some(2));
    for list in [checks(&out), checks(&live)] {
        for (severity, check) in [
            ("error", "tunnel-without-path"),
            ("error", "tunnel-local-address"),
            ("error", "next-hop-unusable"),
            ("warning", "mtu-carrier"),
            ("warning", "table-unused"),
            ("note", "mtu-tunnel"),
            ("note", "route-hidden"),
        ] {
            assert!(has(&list, severity, check), "{severity} {check} is not in {list:?}");
        }
    }
    // Each remedy removes its finding.
    for words in [
        &["route", "flush", "table", "100"][..],
        &["route", "del", "10.9.0.0/16", "metric", "20"],
        &["link", "set", "wan0", "up"],
        &["link", "set", "lan0", "mtu", "1500"],
        &["addr", "add", "192.0.2.77/24", "dev", "lan0"],
        &["route", "add", "203.0.113.5", "via", "192.0.2.9"],
    ] {
        running.ask(words);
    }
    let cured = running.ask_with(&["doctor", "-j"], b"").unwrap();
    assert_eq!((cured.status.code(), checks(&cured)), (Some(0), vec![]));
    std::fs::write(&file, HEALTHY).unwrap();
    let out = duet(&["doctor", file.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&out.stdout).starts_with("0 errors, 0 warnings, 0 notes; looked at "));
}

#[test]
fn devices_that_are_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.toml");
    std::fs::write(&file, "[port.lan0]\nkind = \"packet\"\ndevice = \"nosuchdevice\"\naddress = [\"192.0.2.1/24\"]\n")
        .unwrap();
    let out = duet(&["doctor", "-j", file.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(2));
    assert!(has(&checks(&out), "error", "device-missing"), "{}", String::from_utf8_lossy(&out.stdout));
    std::fs::write(&file, "[port.lan0]\nkind = \"pakcet\"\n").unwrap();
    let out = duet(&["doctor", file.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("x.toml:2:"), "{}", String::from_utf8_lossy(&out.stderr));
}

/// What the program says on the host of router r.
fn within(bed: &Bed, words: &[&str]) -> String {
    let socket = bed.duet("r").socket().to_owned();
    let out = bed.host("r").run(|| Command::new(PROGRAM).args(words).env("DUET_SOCKET", socket).output().unwrap());
    String::from_utf8(out.stdout).unwrap()
}

sandbox_test! {
    fn the_host_around_a_running_router() {
        let mut bed = Bed::row(PROGRAM, &["a", "r", "b"], &[]).unwrap();
        bed.ready().unwrap();
        let r = RouterConfig::new("r")
            .port("left", &["192.0.2.2/25"])
            .port_with("right", &["192.0.2.130/25"], "share_with_kernel = true")
            .port_of("tun", "tun0", &["198.51.100.1/24"], "host_address = [\"198.51.100.2/24\"]");
        bed.router(Duet, &r).unwrap();
        let host = bed.host("r");
        let set = |name: &str, value: &str| host.run(|| sysctl::write(name, value).unwrap());
        let doctor = || {
            let out = within(&bed, &["doctor", "-j"]);
            let list: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"));
            let mut found: Vec<String> = list.as_array().unwrap().iter().map(|f| f["check"].as_str().unwrap().to_owned()).collect();
            found.sort();
            (found, out)
        };
        for dev in ["all", "left", "right", "tun0"] {
            set(&format!("net.ipv4.conf.{dev}.forwarding"), "0");
            set(&format!("net.ipv4.conf.{dev}.rp_filter"), "0");
        }
        let (found, text) = doctor();
        assert!(!found.iter().any(|f| f == "kernel-forwards" || f.starts_with("rp-filter")), "{text}");
        // Only where the kernel is not kept from the device do both forward.
        set("net.ipv4.conf.left.forwarding", "1");
        let (found, text) = doctor();
        assert!(!found.contains(&"kernel-forwards".to_owned()), "{text}");
        set("net.ipv4.conf.right.forwarding", "1");
        let (found, text) = doctor();
        assert!(found.contains(&"kernel-forwards".to_owned()) && text.contains("sysctl -w net.ipv4.conf.right.forwarding=0"), "{text}");
        set("net.ipv4.conf.right.forwarding", "0");
        set("net.ipv4.conf.tun0.rp_filter", "1");
        let (found, text) = doctor();
        assert!(found.contains(&"rp-filter-strict".to_owned()) && found.contains(&"rp-filter-192.0.0.8".to_owned()), "{text}");
        bed.net.route("r", "192.0.0.8/32 via 198.51.100.1").unwrap();
        let (found, text) = doctor();
        assert!(!found.contains(&"rp-filter-192.0.0.8".to_owned()), "{text}");
    }
}

#[test]
fn differences() {
    let router = Plain::start(PROGRAM, &HEALTHY.replace("[router]", "[router]\nsocket = \"SOCKET\"")).unwrap();
    let config = router.config();
    let config = config.to_str().unwrap();
    let diff = |words: &[&str]| {
        let out = router.ask_with(&[&["route", "diff"], words].concat(), b"").unwrap();
        (out.status.code().unwrap(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    // Its link-local addresses aside, the router is what its configuration says.
    assert_eq!(diff(&["running", config]), (0, String::new(), String::new()));
    let saved = router.dir().join("saved");
    std::fs::write(&saved, router.ask(&["route", "save", "table", "all"])).unwrap();
    let saved = saved.to_str().unwrap();
    assert_eq!(diff(&["running", saved]).0, 0, "{:?}", diff(&["running", saved]));
    router.ask(&["route", "replace", "10.0.0.0/8", "via", "192.0.2.9"]);
    router.ask(&["route", "del", "10.66.0.0/16"]);
    router.ask(&["route", "add", "203.0.114.0/24", "dev", "lan0", "metric", "7"]);
    let want = "+ 10.0.0.0/8 via inet 192.0.2.9 dev lan0\n- 10.0.0.0/8 via inet6 2001:db8:1::22 dev lan0\n- blackhole 10.66.0.0/16\n+ 203.0.114.0/24 metric 7 dev lan0\n";
    let sorted = |t: &str| {
        let mut lines: Vec<String> = t.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    for other in [config, saved] {
        let (code, text, err) = diff(&[other, "running"]);
        assert_eq!((code, sorted(&text), err.as_str()), (1, sorted(want), ""));
    }
    let (code, text, _) = diff(&["-j", saved, "running"]);
    let v: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, v["only_first"].as_array().unwrap().len(), v["only_second"].as_array().unwrap().len()),
        (1, 2, 2)
    );
    assert_eq!(diff(&["running"]).0, 2);
    let (code, _, err) = diff(&["running", "/nonexistent"]);
    assert_eq!(code, 2);
    assert!(err.starts_with("Cannot open \"/nonexistent\": No such file or directory\nHint: "), "{err}");
    std::fs::write(saved, "10.0.0.0/8 via 192.0.2.9\nrubbish\n").unwrap();
    assert!(diff(&["running", saved]).2.contains("saved:2: "), "{:?}", diff(&["running", saved]));
}

sandbox_test! {
    fn differences_from_the_kernel() {
        let mut bed = Bed::row(PROGRAM, &["a", "r", "b"], &[]).unwrap();
        bed.ready().unwrap();
        let r = RouterConfig::new("r").port("left", &["192.0.2.2/25"]).port("right", &["192.0.2.130/25"])
            .route("10.0.0.0/8 via 192.0.2.1").route("10.1.0.0/16 via 192.0.2.129");
        bed.router(Duet, &r).unwrap();
        bed.net.addr("r", "left", "192.0.2.3/25").unwrap();
        bed.net.route("r", "10.0.0.0/8 via 192.0.2.1").unwrap();
        bed.net.route("r", "10.2.0.0/16 via 192.0.2.1").unwrap();
        let out = within(&bed, &["route", "diff", "kernel", "running"]);
        assert_eq!(out, "+ 10.1.0.0/16 via inet 192.0.2.129 dev right\n- 10.2.0.0/16 via inet 192.0.2.1 dev left\n");
    }
}

#[test]
fn pictures() {
    let router = Plain::start(PROGRAM, &HEALTHY.replace("[router]", "[router]\nsocket = \"SOCKET\"")).unwrap();
    let text = router.ask(&["graph"]);
    assert!(text.starts_with("diamond  10 routes\n") && text.contains("carried by wan0 via 198.51.100.1"), "{text}");
    let config = router.config();
    assert_eq!(router.ask(&["graph", config.to_str().unwrap()]), text, "the configuration gives the same picture");
    let dot = router.ask(&["graph", "-f", "dot"]);
    assert!(dot.contains("\"port he\" -> \"port wan0\" [style=dashed"), "{dot}");
    let svg = router.ask(&["graph", "--format", "svg"]);
    assert!(
        svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>") && svg.matches("<rect").count() >= 10,
        "{svg}"
    );
    assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    let v: Value = serde_json::from_str(&router.ask(&["graph", "-j"])).unwrap();
    assert_eq!((v["routes"].as_u64(), v["refusing"]["blackhole"].as_u64()), (Some(10), Some(1)));
}
