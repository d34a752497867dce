//! Resilient groups: the same words to the real `ip` of a kernel and to a running router, the same answers, exit codes and
//! error lines. Idle times are left out, and which of two members that deserve a bucket equally has it.

use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

const ADDRS: &[&str] =
    &["addr add 192.0.2.1/24 dev lan0", "addr add 198.51.100.1/24 dev wan0", "addr add 2001:db8::1/64 dev lan0"];

/// Commands in order. What a group looks like is asked after each that changes one.
const LINES: &[&str] = &[
    "nexthop add id 1 via 192.0.2.77 dev lan0",
    "nexthop add id 2 via 198.51.100.77 dev wan0",
    "nexthop add id 3 via 192.0.2.78 dev lan0",
    "nexthop add id 10 group 1/2,3 type resilient buckets 8 idle_timer 60 unbalanced_timer 300",
    "nexthop show id 10",
    "-j nexthop show id 10",
    "-p -j nexthop show id 10",
    "-d nexthop show id 10",
    "nexthop bucket show id 10",
    "-j nexthop bucket show id 10 nhid 2",
    "nexthop bucket get id 10 index 1",
    "-p -j nexthop bucket get id 10 index 1",
    "nexthop bucket show nhid 2",
    "nexthop bucket show dev wan0",
    "nexthop bucket get id 10 index 77",
    "nexthop bucket get id 77 index 7",
    "nexthop bucket get id 1 index 7",
    // Timers that are not said stay; the number of buckets is for good.
    "nexthop replace id 10 group 1/2,3 type resilient idle_timer 9",
    "nexthop show id 10",
    "nexthop replace id 10 group 1/2,3 type resilient",
    "nexthop show id 10",
    "nexthop replace id 10 group 1/2 type resilient buckets 16",
    "nexthop replace id 10 group 1/2",
    // What is refused.
    "nexthop add id 30 group 1/2 type resilient",
    "nexthop add id 30 group 1/2 type resilient buckets 0",
    "nexthop add id 30 group 1/2 type resilient buckets 70000",
    "nexthop add id 30 group 1/2 type resilient buckets x",
    "nexthop add id 30 group 1/2 type resilient buckets 8 idle_timer x",
    "nexthop add id 30 group 1/2 type foo",
    "nexthop add id 30 group 1/9 type resilient buckets 8",
    "nexthop add id 10 group 1/2 type resilient buckets 8",
    "nexthop add id 11 group 1/2 type mpath",
    "nexthop show id 11",
    "nexthop bucket get id 11 index 0",
    // A member's loss moves its buckets, and no others.
    "nexthop add id 12 group 1/2/3 type resilient buckets 6",
    "nexthop show id 12",
    "route add 203.0.113.0/24 nhid 12",
    "route show 203.0.113.0/24",
    "nexthop del id 3",
    "nexthop show id 12",
    "nexthop show groups",
    "nexthop del id 12",
    "nexthop show id 12",
    "route show 203.0.113.0/24",
];

/// Exit code, output, first line of errors.
type Told = (Option<i32>, Vec<String>, String);

/// What a command said, comparable.
fn told(out: &Output) -> Told {
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let mut lines: Vec<String> = text.lines().map(|l| without_idle_time(l.trim_end())).collect();
    lines.retain(|l| !l.is_empty());
    sort_buckets(&mut lines);
    let error = String::from_utf8_lossy(&out.stderr).lines().next().unwrap_or_default().to_owned();
    (out.status.code(), lines, error)
}

/// Without the numbers behind these words.
fn without_idle_time(line: &str) -> String {
    let mut line = line.to_owned();
    for word in ["idle_time ", "\"idle_time\":", "index ", "\"index\":"] {
        let mut parts = line.split(word);
        let mut kept = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            kept.push_str(word);
            kept.push_str(part.trim_start().trim_start_matches(|c: char| c.is_ascii_digit() || c == '.'));
        }
        line = kept;
    }
    line
}

/// Which bucket is whose is the implementation's choice; how many each has is not.
fn sort_buckets(lines: &mut [String]) {
    if lines.iter().all(|l| l.contains(" index ")) {
        lines.sort();
    }
}

struct Router(Child);

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The kernel's answers to all lines; None where there is no `ip`, no right to a namespace, or no such group.
fn kernel() -> Option<Vec<Told>> {
    let mut script = String::from(
        "ip link add lan0 type veth peer name lan1; ip link add wan0 type veth peer name wan1\n\
         for i in lan0 lan1 wan0 wan1; do ip link set $i up; done\n",
    );
    for line in ADDRS {
        script.push_str(&format!("ip {line}\n"));
    }
    for line in LINES {
        script.push_str(&format!("ip {line}; printf '\\036%s\\036\\n' $?; printf '\\036\\n' >&2\n"));
    }
    let flags = if rustix::process::geteuid().is_root() { "-n" } else { "-Urn" };
    let out = Command::new("unshare").args([flags, "sh", "-c", &script]).output().ok()?;
    let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let mut parts = text.split('\u{1e}');
    let mut errors = errors.split('\u{1e}');
    let mut all = Vec::new();
    for _ in LINES {
        let (text, code) = (parts.next()?, parts.next()?);
        let mut lines: Vec<String> = text.lines().map(|l| without_idle_time(l.trim_end())).collect();
        lines.retain(|l| !l.is_empty());
        sort_buckets(&mut lines);
        let error = errors.next()?.trim_start().lines().next().unwrap_or_default().to_owned();
        all.push((code.trim().parse().ok(), lines, error));
    }
    let add = LINES.iter().position(|l| l.contains("type resilient"))?;
    (all[add].0 == Some(0)).then_some(all)
}

#[test]
fn resilient_groups_as_the_kernel_has_them() {
    let Some(theirs) = kernel() else {
        eprintln!("SKIPPED: needs iproute2, the right to make network namespaces, and a kernel with resilient groups");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (file, socket) = (dir.path().join("r.toml"), dir.path().join("s"));
    let mut config = String::from("[neighbor]\ndad_transmits = 0\n\n[port.lo]\nkind = \"loopback\"\n");
    for (i, name) in ["lan0", "wan0"].iter().enumerate() {
        config.push_str(&format!("[port.{name}]\nkind = \"memory\"\nmac = \"02:00:00:00:00:0{i}\"\n"));
    }
    std::fs::write(&file, config).unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_duet"));
    run.arg("run")
        .arg(&file)
        .arg("--socket")
        .arg(&socket)
        .stderr(std::fs::File::create(dir.path().join("log")).unwrap());
    let mut router = Router(run.spawn().unwrap());
    let until = Instant::now() + Duration::from_secs(20);
    while std::os::unix::net::UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < until && router.0.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    let ours = |line: &str| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_duet"));
        told(&c.args(line.split_whitespace()).env("DUET_SOCKET", &socket).output().unwrap())
    };
    for line in ADDRS {
        assert_eq!(ours(line).0, Some(0), "{line}");
    }
    let mut wrong = Vec::new();
    for (line, theirs) in LINES.iter().zip(theirs) {
        let ours = ours(line);
        if ours != theirs {
            wrong.push(format!("{line}\n  ip:   {theirs:?}\n  duet: {ours:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} differences\n{}", wrong.len(), wrong.join("\n"));
}
