//! Other people's programs through and against the router: diagnosis tools as they come from the distribution, and two suites
//! of attacks on IPv6. What is not installed is said and left out; `.ci/run` installs all of it.
//!
//! `DUET_HOSTILE_SECONDS` sets how long each attack lasts; 2 without it. For more than ten, `DUET_TEST_LIMIT` must be set as well.
//! `DUET_HOSTILE_ONLY` leaves out those whose name has none of its words in it, with commas between.

use router_cli::demo::instance::Stats;
use router_io::lab::Host;
use router_io::sandbox_test;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use testbeds::lab::check::Pair;
use testbeds::lab::tools::run;
use testbeds::lab::{Bed, Dut, Result, RouterConfig, Watching};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

/// a - r - b, with two more stations on a's side of the router: the attacker sits on a link of his own.
fn bed(left: &str, more: &str) -> Result<Bed> {
    let mut bed = Bed::new(PROGRAM)?;
    bed.net.hosts(&["a", "r", "b", "x"])?;
    bed.net.link(("a", "eth0"), ("r", "left"))?;
    bed.net.link(("r", "right"), ("b", "eth0"))?;
    bed.net.link(("r", "third"), ("x", "eth0"))?;
    bed.ready()?;
    bed.end("a", &["192.0.2.1/25", "2001:db8:a::1/64"], &["default via 192.0.2.2", "default via 2001:db8:a::2"])?;
    bed.end("b", &["192.0.2.129/25", "2001:db8:b::1/64"], &["default via 192.0.2.130", "default via 2001:db8:b::2"])?;
    bed.end("x", &["203.0.113.1/24", "2001:db8:c::1/64"], &["default via 203.0.113.2", "default via 2001:db8:c::2"])?;
    let r = RouterConfig::new("r")
        .port_with("left", &["192.0.2.2/25", "2001:db8:a::2/64"], left)
        .port("right", &["192.0.2.130/25", "2001:db8:b::2/64"])
        .port("third", &["203.0.113.2/24", "2001:db8:c::2/64"])
        .extra(more);
    bed.router(Dut::Duet, &r)?;
    Ok(bed)
}

/// Runs a program that must succeed and say all of this; nothing where it is not installed.
fn says(host: &Host, program: &str, args: &[&str], all: &[&str]) {
    let Some((good, text)) = run(host, program, args) else { return };
    assert!(good, "{program} {args:?}:\n{text}");
    for words in all {
        assert!(text.contains(words), "{program} {args:?} does not say {words:?}:\n{text}");
    }
}

fn diagnosis() -> Result {
    let bed = bed("advertise = true", "")?;
    let a = bed.host("a");
    for (b, r) in [("192.0.2.129", "192.0.2.2"), ("2001:db8:b::1", "2001:db8:a::2")] {
        Pair::new(a, bed.host("b"), if b.contains(':') { "2001:db8:a::1" } else { "192.0.2.1" }, b).reachable()?;
        says(a, "ping", &["-c", "3", "-i", "0.01", b], &[" 0% packet loss"]);
        // Larger than the link: fragments there and back.
        says(a, "ping", &["-c", "2", "-i", "0.01", "-s", "4000", b], &[" 0% packet loss"]);
        says(a, "traceroute", &["-n", "-q", "1", b], &[r, b]);
        says(a, "traceroute", &["-n", "-q", "1", "-I", b], &[r, b]);
        says(a, "traceroute", &["-n", "-q", "1", "-T", b], &[r, b]);
        says(a, "mtr", &["-n", "-r", "-c", "3", "-i", "0.1", b], &[r, b, "0.0%"]);
        says(a, "tracepath", &["-n", b], &[r, b, "pmtu 1500", "reached"]);
        says(a, "fping", &["-q", "-c", "20", "-p", "10", "-t", "1000", b], &["20/20/0%"]);
        says(a, "fping", &["-q", "-c", "20", "-p", "10", "-t", "1000", r], &["20/20/0%"]);
        let v6: &[&str] = if b.contains(':') { &["-6"] } else { &[] };
        let trace = [&["-n", "-Pn", "-sn", "--traceroute"], v6, &[b]].concat();
        says(a, "nmap", &trace, &[r, b, "Host is up"]);
        // A port scan finds closed ports, behind the router and on it.
        for target in [b, r] {
            let scan = [&["-n", "-Pn", "-sT", "-p", "22,80"], v6, &[target]].concat();
            says(a, "nmap", &scan, &["22/tcp closed", "80/tcp closed"]);
        }
    }
    says(a, "ndisc6", &["-n", "-1", "2001:db8:a::2", "eth0"], &["Target link-layer address", "from 2001:db8:a::2"]);
    says(a, "rdisc6", &["-n", "-1", "eth0"], &["2001:db8:a::/64", "Router lifetime"]);
    throughput(&bed)?;
    bed.finish()
}

/// iperf3 in both directions over both families: every byte arrives, and TCP runs.
fn throughput(bed: &Bed) -> Result {
    let (a, b) = (bed.host("a"), bed.host("b"));
    for (server, extra) in [("192.0.2.129", ""), ("2001:db8:b::1", "-R")] {
        let mut command = Command::new("iperf3");
        command.args(["-s", "-1", "-B", server]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(mut process) = b.spawn(command) else {
            eprintln!("SKIPPED: iperf3: not installed");
            return Ok(());
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        let (good, text) = loop {
            let args: Vec<&str> = ["-c", server, "-n", "50M", extra].into_iter().filter(|w| !w.is_empty()).collect();
            let (good, text) = run(a, "iperf3", &args).unwrap_or_default();
            // The server may not listen yet.
            if good || !text.contains("refused") || Instant::now() > deadline {
                break (good, text);
            }
        };
        assert!(good && text.contains("receiver"), "iperf3 {server}:\n{text}");
        process.wait(Duration::from_secs(10))?;
    }
    Ok(())
}

sandbox_test! {
    fn programs_of_the_distribution_work_unmodified() {
        diagnosis().unwrap();
    }
}

/// Attacks: a program, its arguments. They go on until they are ended. From thc-ipv6 (Debian puts `atk6-` in front) and
/// SI6's ipv6toolkit.
const ATTACKS: &[(&str, &[&str])] = &[
    ("atk6-flood_advertise6", &["eth0", "2001:db8:c::2"]),
    ("atk6-flood_solicitate6", &["eth0", "2001:db8:c::2"]),
    ("atk6-flood_router26", &["eth0"]),
    ("atk6-flood_rs6", &["eth0"]),
    ("atk6-flood_mld6", &["eth0"]),
    ("atk6-flood_redir6", &["eth0"]),
    ("atk6-ndpexhaust26", &["-c", "-r", "eth0", "2001:db8:b::/64"]),
    ("atk6-rsmurf6", &["eth0", "2001:db8:c::2"]),
    ("atk6-denial6", &["eth0", "2001:db8:c::2", "1"]),
    ("atk6-denial6", &["eth0", "2001:db8:c::2", "2"]),
    ("atk6-fuzz_ip6", &["-x", "-1", "-3", "eth0", "2001:db8:c::2"]),
    ("atk6-fragmentation6", &["-p", "eth0", "2001:db8:c::2"]),
    ("atk6-exploit6", &["eth0", "2001:db8:c::2"]),
    ("na6", &["-i", "eth0", "-d", "2001:db8:c::2", "-t", "2001:db8:c::77", "-F", "50", "-l", "-z", "1"]),
    ("ns6", &["-i", "eth0", "-d", "2001:db8:c::2", "-t", "2001:db8:c::2", "-F", "50", "-l", "-z", "1"]),
    ("rs6", &["-i", "eth0", "-F", "50", "-l", "-z", "1"]),
    ("ra6", &["-i", "eth0", "-d", "ff02::1", "-F", "50", "-l", "-z", "1"]),
    ("frag6", &["-i", "eth0", "-d", "2001:db8:c::2", "-F", "500", "-l", "-z", "1"]),
    ("icmp6", &["-i", "eth0", "-d", "2001:db8:c::2", "-t", "2", "-l", "-z", "1"]),
    ("tcp6", &["-i", "eth0", "-d", "2001:db8:b::1", "-a", "80", "-X", "S", "-F", "50", "-l", "-z", "1"]),
    ("udp6", &["-i", "eth0", "-d", "2001:db8:c::2", "-a", "53", "-l", "-z", "1"]),
];

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Packets that got through between a and b while `seconds` passed: sent and answered.
fn watch(a: &Host, seconds: u64) -> Option<(u64, u64)> {
    let count = (seconds * 100).to_string();
    let (_, text) = run(a, "ping", &["-q", "-n", "-i", "0.01", "-c", &count, "-W", "1", "2001:db8:b::1"])?;
    let line = text.lines().find(|l| l.contains("packets transmitted"))?;
    let mut numbers = line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

/// Where the echo requests of a and their answers are counted: at the hosts and at both ports of the router. What is lost
/// between two of these places was lost there.
#[derive(Debug)]
struct Ledger {
    /// At the hosts: sent by a, seen by b, answered by b, seen by a.
    echo: [u64; 4],
    stats: Stats,
    /// Frames that the router's process came too late for: the kernel's queues of `left` and `right` were full.
    missed: u64,
    /// Frames that the kernel dropped on the two links: the backlog of a processor was full.
    backlog: u64,
}

/// A counter of ICMPv6 of a host's kernel.
fn counter(host: &Host, name: &str) -> u64 {
    let text = host.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp6")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default();
    line.trim().parse().unwrap_or(0)
}

/// Frames that a device of a host could not hand to its peer.
fn undelivered(host: &Host, device: &str) -> u64 {
    let text = host.run(|| std::fs::read_to_string("/proc/thread-self/net/dev")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.trim_start().strip_prefix(device)?.strip_prefix(':')).unwrap_or_default();
    line.split_whitespace().nth(11).and_then(|n| n.parse().ok()).unwrap_or(0)
}

impl Ledger {
    fn read(bed: &Bed) -> Result<Self> {
        let (a, b) = (bed.host("a"), bed.host("b"));
        let stats = bed.stats("r")?;
        let missed = stats.port("left").rx_missed + stats.port("right").rx_missed;
        Ok(Ledger {
            echo: [
                counter(a, "Icmp6OutEchos"),
                counter(b, "Icmp6InEchos"),
                counter(b, "Icmp6OutEchoReplies"),
                counter(a, "Icmp6InEchoReplies"),
            ],
            stats,
            missed,
            backlog: [("a", "eth0"), ("r", "left"), ("r", "right"), ("b", "eth0")]
                .map(|(host, device)| undelivered(bed.host(host), device))
                .iter()
                .sum(),
        })
    }

    /// What was lost since `before`: on the way to b, in b, on the way back.
    fn lost_since(&self, before: &Ledger) -> [u64; 3] {
        let grown = |i: usize| self.echo[i].saturating_sub(before.echo[i]);
        [0, 1, 2].map(|i| grown(i).saturating_sub(grown(i + 1)))
    }

    /// Everything that the router dropped since, by reason.
    fn drops_since(&self, before: &Ledger) -> Vec<(String, u64)> {
        let grown = |(r, n): (&String, &u64)| (r.clone(), n.saturating_sub(before.stats.drops(r)));
        self.stats.drops.iter().map(grown).filter(|(_, n)| *n > 0).collect()
    }
}

fn attacks() -> Result {
    let seconds = std::env::var("DUET_HOSTILE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(2);
    // The pinged hosts have to answer for themselves every two seconds, not every thirty, amid whatever the attacker sends.
    let bed = bed("", "[neighbor]\nreachable_time = \"1s\"\ndelay_first_probe = \"1s\"")?;
    let (a, x) = (bed.host("a"), bed.host("x"));
    Pair::new(a, bed.host("b"), "2001:db8:a::1", "2001:db8:b::1").reachable()?;
    let pid = bed.duet("r").pid();
    let mut ran = 0;
    let mut strike = |program: &str, args: &[&str]| -> Result<Option<u64>> {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let before = Ledger::read(&bed)?;
        let neighbors = Watching::start(PROGRAM, bed.duet("r"), "monitor -ts neigh")?;
        let Ok(mut attack) = x.spawn(command) else {
            eprintln!("SKIPPED: {program}: not installed");
            return Ok(None);
        };
        let watched = watch(a, seconds);
        let _ = attack.kill();
        let after = Ledger::read(&bed)?;
        neighbors.interrupt()?;
        let memory = resident(pid);
        let frames = after.stats.received.saturating_sub(before.stats.received);
        let (lost, drops) = (after.lost_since(&before), after.drops_since(&before));
        let (missed, backlog) = (after.missed - before.missed, after.backlog - before.backlog);
        println!("{program} {}: {frames} frames, {watched:?} through, {memory} KiB resident", args.join(" "));
        println!(
            "    lost to b, in b, back: {lost:?}; missed at left and right: {missed}; lost by the kernel there: {backlog}; dropped: {drops:?}"
        );
        if let Some((sent, answered)) = watched {
            // What the pinged hosts' neighbours went through, where something is lost.
            let (seen, _) = neighbors.end()?;
            let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
            let hosts: Vec<&str> = seen.lines().filter(|l| l.contains("dev left") || l.contains("dev right")).collect();
            let story = format!(
                "lost {lost:?}, missed {missed}, lost by the kernel {backlog}, dropped {drops:?}, neighbours {hosts:#?}"
            );
            assert!(answered * 100 >= sent * 99, "{program}: {answered} of {sent} got through; {story}");
            // Each that is lost was lost where the router never saw it: it, or the kernel, got no processor in time.
            assert!(lost[0] + lost[2] <= missed + backlog, "{program}: lost by the router: {story}");
        }
        ran += 1;
        Ok(Some(memory))
    };
    // Room for tables that are full, and for buffers that are used for the first time; a few bytes kept of each of the
    // millions of frames, or a buffer of 64 KiB for each of some hundred, would be more.
    let bound = resident(pid) + 64 * 1024;
    let only = std::env::var("DUET_HOSTILE_ONLY").unwrap_or_default();
    let wanted = |program: &str| only.split(',').any(|part| program.contains(part));
    for (program, args) in ATTACKS.iter().filter(|(program, _)| wanted(program)) {
        let Some(memory) = strike(program, args)? else { continue };
        assert!(memory <= bound, "{program}: {memory} KiB resident, above {bound}");
    }
    if ran == 0 {
        return Ok(());
    }
    // Nothing of it stays: both families pass, neighbours are found anew.
    Pair::new(a, bed.host("b"), "192.0.2.1", "192.0.2.129").reachable()?;
    Pair::new(a, bed.host("b"), "2001:db8:a::1", "2001:db8:b::1").reachable()?;
    Pair::new(a, bed.host("x"), "2001:db8:a::1", "2001:db8:c::1").wait_reachable(Duration::from_secs(15))?;
    bed.finish()
}

sandbox_test! {
    fn suites_of_attacks_leave_forwarding_undisturbed() {
        attacks().unwrap();
    }
}
