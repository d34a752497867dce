//! What `duet doctor` finds is gone when the command that it names has been run: each finding is caused, seen, mended as it
//! says, and looked for again.

use router_io::lab::probe::Ping;
use router_io::netlink::sysctl;
use router_io::sandbox_test;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use testbeds::desk::eventually;
use testbeds::lab::Bed;
use testbeds::lab::Dut::Duet;
use testbeds::lab::RouterConfig;
use testbeds::lab::check::ip;

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

/// A shell command on the host of router r, on which the program is called as users call it.
fn on_host(bed: &Bed, bin: &Path, line: &str) -> Output {
    let socket = bed.duet("r").socket().to_owned();
    let path = format!("{}:{}:/usr/sbin:/sbin", bin.display(), std::env::var("PATH").unwrap_or_default());
    bed.host("r")
        .run(|| Command::new("sh").args(["-c", line]).env("PATH", path).env("DUET_SOCKET", socket).output().unwrap())
}

/// The finding of this kind about this: evidence and mending command.
fn finding(bed: &Bed, bin: &Path, check: &str, about: &str) -> Option<(String, String)> {
    let out = on_host(bed, bin, "duet doctor -j");
    let list: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
    let text = |f: &Value, key: &str| f[key].as_str().unwrap_or_default().to_owned();
    let list = list.as_array().cloned().unwrap_or_default();
    let found = list.iter().find(|f| f["check"] == check && text(f, "what").contains(about))?;
    assert!(!text(found, "evidence").is_empty(), "{found}");
    Some((text(found, "evidence"), text(found, "mend")))
}

/// Waits for the finding, runs its command, waits until it is gone.
fn mended(bed: &Bed, bin: &Path, check: &str, about: &str, evidence: &str) {
    let (seen, mend) = eventually(check, || finding(bed, bin, check, about));
    assert!(seen.contains(evidence), "{check}: {seen}");
    // What comes behind is advice for other causes.
    let command = mend.split([';', ',']).next().unwrap_or_default();
    let out = on_host(bed, bin, command);
    assert!(out.status.success(), "{check}: {command}: {out:?}");
    eventually(&format!("{check} is gone after: {command}"), || {
        finding(bed, bin, check, about).is_none().then_some(())
    });
}

sandbox_test! {
    fn every_command_mends_what_it_is_named_for() {
        let mut bed = Bed::row(PROGRAM, &["a", "r", "b"], &[]).unwrap();
        bed.ready().unwrap();
        bed.end("a", &["192.0.2.1/25"], &["default via 192.0.2.2"]).unwrap();
        let r = RouterConfig::new("r")
            .port("left", &["192.0.2.2/25"])
            .port_with("right", &["192.0.2.130/25"], "share_with_kernel = true")
            .port_of("tun", "tun0", &["198.51.100.1/24"], "host_address = [\"198.51.100.2/24\"]");
        bed.router(Duet, &r).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path();
        std::os::unix::fs::symlink(PROGRAM, bin.join("duet")).unwrap();
        let host = bed.host("r");
        let set = |name: &str, value: &str| host.run(|| sysctl::write(name, value).unwrap());
        let duet = |words: &str| bed.duet("r").duet(words).unwrap();
        for dev in ["all", "left", "right", "tun0"] {
            set(&format!("net.ipv4.conf.{dev}.forwarding"), "0");
            set(&format!("net.ipv4.conf.{dev}.rp_filter"), "0");
        }

        set("net.ipv4.conf.right.forwarding", "1");
        mended(&bed, bin, "kernel-forwards", "ipv4 packets of right", "net.ipv4.conf.right.forwarding = 1");
        set("net.ipv6.conf.right.forwarding", "1");
        mended(&bed, bin, "kernel-forwards", "ipv6 packets of right", "net.ipv6.conf.right.forwarding = 1");
        set("net.ipv4.conf.tun0.rp_filter", "1");
        mended(&bed, bin, "rp-filter-192.0.0.8", "192.0.0.8", "ip route get 192.0.0.8: unreachable");
        mended(&bed, bin, "rp-filter-strict", "tun0", "net.ipv4.conf.tun0.rp_filter = 1");

        duet("route add 10.8.0.0/16 via 192.0.2.1 mtu 9000");
        mended(&bed, bin, "mtu-route", "MTU above", "10.8.0.0/16");
        duet("route add 10.7.0.0/16 via 192.0.2.129");
        duet("link set right down");
        mended(&bed, bin, "next-hop-unusable", "192.0.2.129", "10.7.0.0/16");
        // Nobody is at that address, until somebody is.
        duet("route add 10.6.0.0/16 via 192.0.2.131");
        let _ = bed.host("a").ping(&Ping::new(ip("10.6.0.1"))).unwrap();
        let (seen, mend) = eventually("a silent gateway", || finding(&bed, bin, "next-hop-silent", "192.0.2.131"));
        assert!(seen.contains("192.0.2.131 dev right FAILED") && mend.starts_with("duet neigh show dev right"), "{seen} {mend}");
        bed.end("b", &["192.0.2.131/25"], &["default via 192.0.2.130"]).unwrap();
        eventually("it answers", || {
            let _ = bed.host("a").ping(&Ping::new(ip("10.6.0.1"))).unwrap();
            finding(&bed, bin, "next-hop-silent", "192.0.2.131").is_none().then_some(())
        });
        let down = on_host(&bed, bin, "ip link set left down");
        assert!(down.status.success(), "{down:?}");
        mended(&bed, bin, "device-down", "left", "administratively down");
        bed.finish().unwrap();
    }
}

#[test]
fn a_user_without_rights_is_told_which_are_missing() {
    if !Command::new("setpriv").arg("--version").output().is_ok_and(|o| o.status.success()) {
        println!("skipped: setpriv is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.toml");
    std::fs::write(&file, "[port.lan0]\nkind = \"packet\"\ndevice = \"lo\"\naddress = [\"192.0.2.1/24\"]\n").unwrap();
    let doctor = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["doctor", "-j"]).arg(&file);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let without = doctor(&["setpriv", "--bounding-set=-all", "--inh-caps=-all", PROGRAM]);
    let list: Value = serde_json::from_str(&without).unwrap();
    let found =
        list.as_array().unwrap().iter().find(|f| f["check"] == "capabilities").unwrap_or_else(|| panic!("{without}"));
    let text = |key: &str| found[key].as_str().unwrap().to_owned();
    assert!(text("mend").contains("setcap cap_net_raw") || text("mend").contains("setcap cap_net_admin"), "{without}");
    assert!(text("evidence").to_lowercase().contains("cap_net"), "{without}");
    // With them it is not said; a test that runs without rights itself cannot see that.
    if rustix::process::geteuid().is_root() {
        assert!(!doctor(&[PROGRAM]).contains("\"capabilities\""));
    }
}
