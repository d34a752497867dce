//! `duet bench wire` as a user runs it: tiny runs end, say everything and leave nothing behind; errors are clear. How fast
//! anything is, is not tested.

use serde_json::Value;
use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use testbeds::desk::eventually;

/// What the program exits with where this machine allows no lab or no programs in the kernel.
const REFUSED: i32 = 2;
/// Small in every respect.
const TINY: &[&str] = &["--time", "0.05", "--repeat", "1", "--flows", "8"];

fn duet(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duet-under-test"));
    command.args(args);
    command
}

/// Runs the bench; None where this machine allows none.
fn bench(args: &[&str]) -> Option<Output> {
    let output = duet(&["bench", "wire"]).args(TINY).args(args).output().unwrap();
    if output.status.code() == Some(REFUSED) {
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("duet bench forward"), "offers what works without privileges: {text}");
        eprintln!("SKIPPED: {}", text.trim());
        return None;
    }
    Some(output)
}

fn json(args: &[&str]) -> Option<Value> {
    let output = bench(&[args, &["-j"]].concat())?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{args:?}: {out}\n{err}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn json_is_complete_and_files_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let [csv, html, report] = ["a.csv", "a.html", "a.json"].map(|n| dir.path().join(n).display().to_string());
    let args = [
        "--measure",
        "throughput,latency,loss,burst,reset,tcp",
        "--dut",
        "kernel,packet",
        "--csv",
        &csv,
        "--html",
        &html,
    ];
    let Some(v) = json(&args) else { return };
    for key in ["bench", "schema", "version", "commit", "date", "command", "machine", "settings", "roof", "noise"] {
        assert!(!v[key].is_null(), "{key}: {v}");
    }
    assert!(v["mismatch"].is_null(), "the kernel's counters agree: {v}");
    let cells = v["cells"].as_array().unwrap();
    assert_eq!(cells.iter().map(|c| c["dut"].as_str().unwrap()).collect::<Vec<_>>(), ["kernel", "packet"]);
    for c in cells {
        for figure in ["peak", "throughput", "burst", "reset", "tcp"] {
            assert_eq!(c[figure]["values"].as_array().map(Vec::len), Some(1), "{figure}: {c}");
        }
        assert!(c["peak"]["median"].as_f64() > Some(0.0) && c["tcp"]["median"].as_f64() > Some(0.0), "{c}");
        assert!(c["latency"]["delays"]["received"].as_u64() > Some(0), "{c}");
        assert!(c["loss"].as_array().unwrap().len() > 5);
    }
    assert_eq!(cells[1]["ratio"]["to"], "kernel");
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains("</html>") && page.contains("<svg") && !page.contains("http"), "one page, by itself");
    assert!(std::fs::read_to_string(&csv).unwrap().lines().count() > 20);
    // A run does not differ from itself; one repetition is too few to say more.
    std::fs::write(&report, v.to_string()).unwrap();
    let same = duet(&["bench", "compare", &report, &report, "-j"]).output().unwrap();
    let same: Value = serde_json::from_slice(&same.stdout).unwrap();
    assert!(same["changes"].as_array().unwrap().iter().all(|c| c["verdict"] == "unknown"), "{same}");
}

#[test]
fn every_path_is_forwarded() {
    let paths = "native4,native6,via-inet6,6in4-encap,6in4-decap,6in4-dual,icmp-ttl,icmp-noroute,icmp-toobig";
    let args = ["--path", paths, "--dut", "packet", "--measure", "latency", "--size", "64,imix"];
    let Some(v) = json(&args) else { return };
    for c in v["cells"].as_array().unwrap() {
        let d = &c["latency"]["delays"];
        assert!(d["received"].as_u64() > Some(0), "{c}");
    }
    assert_eq!(v["cells"].as_array().unwrap().len(), 17, "too big is measured with one size");
}

#[test]
fn a_command_can_be_measured_and_its_failure_is_said() {
    // The kernel itself, set up by a command.
    let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
    let args = ["--dut-exec", &format!("{forward}; exit 3"), "--dut", "kernel", "--measure", "latency"];
    let Some(output) = bench_or_failure(&args) else { return };
    // Without addresses on its devices nothing is forwarded.
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(REFUSED), "{text}");
    assert!(text.starts_with("exec, native4: of ") && text.contains("test frames"), "{text}");
}

#[test]
fn nothing_that_a_measured_command_started_is_left() {
    // A number of seconds that no other process sleeps.
    let seconds = format!("{}", 1_000_000_000 + u64::from(std::process::id()));
    let command = format!("sleep {seconds} & exit 3");
    let Some(output) = bench_or_failure(&["--dut-exec", &command, "--measure", "latency"]) else { return };
    assert_eq!(output.status.code(), Some(REFUSED), "{}", String::from_utf8_lossy(&output.stderr));
    let mine = format!("sleep\0{seconds}\0");
    let left = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter(|e| std::fs::read(e.path().join("cmdline")).is_ok_and(|c| c == mine.as_bytes())).count()
    };
    eventually("the command's child is gone", || (left() == 0).then_some(()));
}

/// As [`bench`], where a refusal of the run itself is expected.
fn bench_or_failure(args: &[&str]) -> Option<Output> {
    bench(&["--dut", "kernel", "--measure", "latency"])?;
    Some(duet(&["bench", "wire"]).args(TINY).args(args).output().unwrap())
}

#[test]
fn wrong_words_are_said_at_once() {
    for (args, code, first) in [
        (&["--size", "63"][..], 1, "error: invalid value '63' for '--size <BYTES>'"),
        (&["--path", "ipip"], 1, "error: invalid value 'ipip' for '--path <NAME>'"),
        (&["--table", "/nonexistent"], 1, "/nonexistent: No such file"),
        (&["--html", "/nonexistent/a.html"], 1, "/nonexistent/a.html: No such file"),
        (&["--dut-cpu", "9999"], 1, "Cannot run on processor 9999"),
        (&["--tx", "eth7"], 1, "error: the following required arguments were not provided:"),
        (&["--tx", "a", "--rx", "b", "--gateway", "x"], 1, "--gateway: \"x\" is not a link-layer address"),
        (&["--tx", "a", "--rx", "b", "--gateway", "02:00:00:00:00:01", "--path", "icmp-ttl"], 1, "--tx cannot measure"),
    ] {
        let output = duet(&["bench", "wire"]).args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(REFUSED) && text.contains("namespace") {
            return eprintln!("SKIPPED: {}", text.trim());
        }
        assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
        assert!(text.starts_with(first), "{args:?}: {text}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.json");
    std::fs::write(&file, "{\"bench\": 1}").unwrap();
    let file = file.display().to_string();
    let output = duet(&["bench", "compare", &file, &file]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && text.contains("not a result of duet bench wire"), "{text}");
    let output = duet(&["bench"]).output().unwrap();
    assert!(output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains("--quick"));
}

/// Processes whose environment says that they belong to a sandbox made by process `pid`.
fn left_of(pid: u32) -> Vec<String> {
    let mark = format!("DUET_SANDBOX={pid}:");
    let dirs = std::fs::read_dir("/proc").unwrap().flatten();
    let belongs = |dir: &std::path::Path| {
        let environment = std::fs::read(dir.join("environ")).unwrap_or_default();
        environment.split(|b| *b == 0).any(|v| v.starts_with(mark.as_bytes()))
    };
    dirs.map(|d| d.path()).filter(|d| belongs(d)).map(|d| d.display().to_string()).collect()
}

#[test]
fn whatever_ends_it_nothing_is_left() {
    for signal in [2, 9, 15] {
        let mut command = duet(&["bench", "wire", "--dut", "packet", "--time", "3600", "--measure", "throughput"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        // The process inside, and the router that it starts.
        while left_of(child.id()).len() < 2 {
            if child.try_wait().unwrap().is_some() {
                let mut text = String::new();
                child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
                assert!(text.contains("duet bench forward"), "{text}");
                return eprintln!("SKIPPED: {}", text.trim());
            }
            assert!(Instant::now() < deadline);
        }
        // A terminal's Ctrl-C reaches both processes; the outer one leaves it to the inner one.
        let targets: Vec<u32> = if signal == 2 {
            left_of(child.id()).iter().filter_map(|p| p.rsplit('/').next()?.parse().ok()).collect()
        } else {
            vec![child.id()]
        };
        for target in targets {
            let pid = rustix::process::Pid::from_raw(target as i32).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::from_named_raw(signal).unwrap());
        }
        let status = child.wait().unwrap();
        assert!(!status.success());
        let deadline = Instant::now() + Duration::from_secs(10);
        while !left_of(child.id()).is_empty() {
            assert!(Instant::now() < deadline, "left: {:?}", left_of(child.id()));
        }
    }
}
