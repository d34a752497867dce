//! `duet demo` as a newcomer runs it.

use serde_json::Value;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// What the demo exits with where namespaces are not permitted.
const NO_LAB: i32 = 2;

/// Runs the demo; None where this machine allows no lab.
fn demo(args: &[&str]) -> Option<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_duet-under-test"));
    let output = command.arg("demo").args(args).output().unwrap();
    if output.status.code() == Some(NO_LAB) {
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(text.lines().count(), 1, "one clear line: {text}");
        eprintln!("SKIPPED: {}", text.trim());
        return None;
    }
    Some(output)
}

#[test]
fn all_work_in_time() {
    let start = Instant::now();
    let Some(output) = demo(&["--json"]) else { return };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], true);
    let scenarios = report["scenarios"].as_array().unwrap();
    let names: Vec<_> = scenarios.iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["native", "via-inet6", "6in4", "broker", "translate"]);
    for s in scenarios {
        for command in ["ping", "traceroute", "# TCP"] {
            let done = s["steps"].as_array().unwrap().iter();
            let done = done.filter(|step| step["command"].as_str().unwrap().starts_with(command)).count();
            assert!(done > 0, "{command} in {}", s["name"]);
        }
        assert!(s["routers"].as_array().unwrap().iter().all(|r| r["balanced"] == true), "{s}");
    }
}

#[test]
fn it_draws_plain_text_within_a_hundred_columns() {
    let Some(output) = demo(&["--scenario", "via-inet6"]) else { return };
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("r1# duet route add 203.0.113.0/24 via inet6 2001:db8:12::2"), "{text}");
    assert!(!text.contains('\x1b'), "colour belongs to terminals");
    let pictures = text.lines().filter(|l| l.contains(['┌', '│', '└'])).collect::<Vec<_>>();
    assert!(pictures.len() == 4 && pictures.iter().all(|l| l.chars().count() <= 100), "{pictures:#?}");
    let Some(output) = demo(&["--scenario", "native", "--ascii"]) else { return };
    assert!(output.status.success() && output.stdout.is_ascii(), "{}", String::from_utf8_lossy(&output.stdout));
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
    for signal in [9, 15] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_duet-under-test"));
        command.args(["demo", "--keep", "--json"]).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The report is written when everything is up.
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        if !lines.by_ref().map_while(Result::ok).any(|l| l == "}") {
            assert_eq!(child.wait().unwrap().code(), Some(NO_LAB));
            return;
        }
        assert!(!left_of(child.id()).is_empty());
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::from_named_raw(signal).unwrap()).unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(signal));
        let deadline = Instant::now() + Duration::from_secs(10);
        while !left_of(child.id()).is_empty() {
            assert!(Instant::now() < deadline, "left: {:?}", left_of(child.id()));
        }
    }
}
