//! The shell in a real terminal: what is typed, what is seen, and what happens when the router, the terminal or the reader
//! goes away.

use rustix::process::Signal;
use std::process::Command;
use testbeds::desk::{Plain, Terminal, eventually};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");
const CONFIG: &str = include_str!("../../docs/examples/inspect.toml");

fn router() -> Plain {
    Plain::start(PROGRAM, &CONFIG.replace("[router]", "[router]\nsocket = \"SOCKET\"")).unwrap()
}

fn shell_of(router: &Plain, rows: u16, columns: u16) -> Terminal {
    let mut command = Command::new(router.program());
    command.args(["shell", "--socket"]).arg(router.socket()).env("XDG_STATE_HOME", router.dir());
    let shell = Terminal::start(command, rows, columns).unwrap();
    shell.see(&["diamond> "]);
    shell
}

/// Whether a process waits for its terminal to take what it writes.
fn blocked(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/wchan"))
        .is_ok_and(|w| w.contains("n_tty_write") || w.contains("wait_woken"))
}

/// Ctrl-C on a line being typed, and a clean screen.
#[track_caller]
fn give_up(shell: &mut Terminal) {
    shell.press("\x03");
    // Keys that come together with Ctrl-C are thrown away with the line, so this one is pressed until it helps.
    eventually("a clean screen", || {
        shell.press("\x0c");
        std::thread::park_timeout(std::time::Duration::from_millis(100));
        let screen = shell.screen();
        (screen.trim().lines().count() == 1 && screen.trim_end().ends_with('>')).then_some(())
    });
}

/// Types a line and waits for the prompt after its output.
#[track_caller]
fn type_line(shell: &mut Terminal, line: &str) -> String {
    let prompts = |s: &str| s.lines().filter(|l| l.starts_with("diamond")).count();
    shell.press("\x0c");
    shell.see_that("a clean screen", |s| prompts(s) == 1 && s.trim() == "diamond>");
    shell.press(&format!("{line}\r"));
    shell.see_that(&format!("the end of {line:?}"), |s| prompts(s) == 2 && s.trim_end().ends_with('>'))
}

#[test]
fn a_session() {
    let router = router();
    let mut shell = shell_of(&router, 30, 100);
    let screen = type_line(&mut shell, "ro sh");
    assert!(screen.contains("10.0.0.0/8 via inet6 2001:db8:1::22 dev lan0 proto static"), "{screen}");
    // Colour on a terminal.
    assert!(shell.raw().contains("\x1b[35m10.0.0.0/8"), "{}", shell.raw());
    let screen = type_line(&mut shell, "ip -6 route show | match tun | count");
    assert!(screen.lines().any(|l| l == "0"), "{screen}");
    let screen = type_line(&mut shell, "show ip route 10.9.1.1");
    assert!(
        screen.contains("Routing entry for 10.9.0.0/16") && screen.contains("  * 192.0.2.10, via lan0, weight 3"),
        "{screen}"
    );
    let screen = type_line(&mut shell, "route -n get 10.1.1.1");
    assert!(
        screen.contains("    gateway: 2001:db8:1::22") && screen.contains("flags: <UP,GATEWAY,DONE,STATIC>"),
        "{screen}"
    );
    let screen = type_line(&mut shell, "show route for 10.66.1.1");
    assert!(screen.contains("10.66.0.0/16         blackhole [static1] * (200)"), "{screen}");
    // A command of the program that is not iproute2's.
    let screen = type_line(&mut shell, "version");
    assert!(screen.contains("router diamond runs duet"), "{screen}");
    // The history, over lines and over sessions.
    shell.press("\x0c\x1b[A");
    shell.see(&["diamond> version"]);
    give_up(&mut shell);
    shell.press("exit\r");
    let end = shell.end();
    assert!(end.status.success() && end.cooked && end.cursor && end.main_screen, "{end:?}");
    let mut next = shell_of(&router, 30, 100);
    next.press("\x1b[A\x1b[A");
    next.see(&["diamond> version"]);
}

#[test]
fn help_and_completion_come_from_the_live_tables() {
    let router = router();
    let mut shell = shell_of(&router, 40, 100);
    shell.press("route add 203.0.114.0/24 dev ?");
    shell.see(&["  lan0  memory, up", "  he    tunnel, up", "diamond> route add 203.0.114.0/24 dev"]);
    shell.press("la\t");
    shell.see(&["diamond> route add 203.0.114.0/24 dev lan0"]);
    shell.press("\r");
    shell.see(&["+ 203.0.114.0/24 dev lan0"]);
    // A prefix that was not there before, by its first letters.
    shell.press("\x0croute del 203.0.114\t");
    shell.see(&["diamond> route del 203.0.114.0/24"]);
    shell.press("\r");
    shell.see(&["- 203.0.114.0/24 dev lan0"]);
    shell.press("\x0cne\t");
    shell.see(&["neigh", "nexthop"]);
    give_up(&mut shell);
    shell.press("tunnel del \t");
    shell.see(&["diamond> tunnel del he"]);
    give_up(&mut shell);
    shell.press("drops --a\t");
    shell.see(&["diamond> drops --all"]);
    give_up(&mut shell);
    shell.press("route show | co\t");
    shell.see(&["diamond> route show | count"]);
}

#[test]
fn a_wrong_word_has_a_caret_under_it() {
    let router = router();
    let mut shell = shell_of(&router, 24, 80);
    let screen = type_line(&mut shell, "route add 10.0.0.0/33 dev lan0");
    let lines: Vec<&str> = screen.lines().collect();
    let typed = lines.iter().position(|l| l.contains("10.0.0.0/33")).unwrap();
    let word = lines[typed].find("10.0.0.0/33").unwrap();
    assert_eq!(lines[typed + 1], format!("{:word$}{}", "", "^".repeat("10.0.0.0/33".len())), "{screen}");
    assert!(screen.contains("Expected here: PREFIX"), "{screen}");
    let screen = type_line(&mut shell, "r");
    assert!(screen.contains("\"r\" is ambiguous: route, rule, reload"), "{screen}");
    let screen = type_line(&mut shell, "route show | frob");
    assert!(screen.contains("^^^^") && screen.contains("match, except, begin, count"), "{screen}");
    let screen = type_line(&mut shell, "route show 'x");
    assert!(screen.contains("never closed"), "{screen}");
}

#[test]
fn long_output_stops_at_each_screenful() {
    let router = router();
    let batch: String =
        (0..5000u32).map(|i| format!("route add 172.{}.{}.0/24 dev lan0\n", 16 + i / 256, i % 256)).collect();
    assert!(router.ask_with(&["-batch", "-"], batch.as_bytes()).unwrap().status.success());
    let mut shell = shell_of(&router, 24, 80);
    shell.press("route show\r");
    let screen = shell.see(&["--More--"]);
    assert_eq!(screen.lines().count(), 24, "{screen}");
    shell.press("\r");
    shell.see_that("one line more", |s| s.contains("--More--") && s.lines().next() != screen.lines().next());
    shell.press("/");
    shell.see_that("a search", |s| s.lines().last() == Some("/"));
    shell.press("172.20.7.\r");
    shell.see(&["172.20.7.0/24", "--More--"]);
    shell.press("q");
    shell.see_that("the prompt", |s| s.trim_end().ends_with("diamond>"));
    // All at once, and Ctrl-C in the middle.
    shell.pause(true);
    shell.press("route show | no-more\r");
    eventually("the listing waits for the terminal", || blocked(shell.pid()).then_some(()));
    shell.press("\x03");
    shell.pause(false);
    shell.see_that("the prompt", |s| s.trim_end().ends_with("diamond>"));
    assert!(!shell.raw().contains("172.35.135.0/24"), "Ctrl-C did not end the listing");
    let screen = type_line(&mut shell, "route show table all | match 172. | count");
    assert!(screen.lines().any(|l| l == "5000"), "{screen}");
}

#[test]
fn a_router_that_vanishes_is_one_line_and_comes_back() {
    let mut router = router();
    let mut shell = shell_of(&router, 24, 120);
    router.kill();
    shell.press("neigh\r");
    let screen = shell.see(&["Cannot reach the router", "diamond (lost)> "]);
    assert!(screen.contains("The connection is lost. Every command tries again"), "{screen}");
    router.run().unwrap();
    shell.press("route show 10.66.0.0/16\r");
    shell.see(&["blackhole 10.66.0.0/16 proto static"]);
    shell.see_that("the prompt as before", |s| s.trim_end().ends_with("diamond>"));
    // "connect" waits, and Ctrl-C ends the wait.
    router.kill();
    give_up(&mut shell);
    shell.press("connect\r");
    shell.see(&["waiting for it"]);
    router.run().unwrap();
    shell.see(&["Router \"diamond\", duet"]);
    shell.see_that("the prompt", |s| s.trim_end().ends_with("diamond>"));
    router.kill();
    give_up(&mut shell);
    shell.press("connect\r");
    shell.see(&["waiting for it"]);
    shell.press("\x03");
    shell.see_that("the prompt", |s| s.trim_end().ends_with('>'));
}

#[test]
fn a_terminal_that_goes_away_ends_the_shell() {
    let router = router();
    for signal in [Signal::HUP, Signal::TERM] {
        let mut shell = shell_of(&router, 24, 80);
        shell.press("route sh");
        shell.see(&["route sh"]);
        shell.signal(signal).unwrap();
        let end = shell.end();
        assert!(end.cooked && end.cursor, "{end:?}");
    }
    let mut shell = shell_of(&router, 24, 80);
    shell.press("route sh");
    shell.see(&["route sh"]);
    let _ = shell.hang_up();
    // The configuration's own router goes with its shell.
    let mut command = Command::new(router.program());
    command.arg("shell").arg(router.config()).env("XDG_RUNTIME_DIR", router.dir()).env("XDG_STATE_HOME", router.dir());
    let mut shell = Terminal::start(command, 24, 80).unwrap();
    shell.see(&["diamond (file)> ", "nothing here touches a device"]);
    let sockets = || {
        std::fs::read_dir(router.dir())
            .unwrap()
            .flatten()
            .filter(|e| e.file_name().to_string_lossy().starts_with("duet-offline"))
            .count()
    };
    assert_eq!(sockets(), 1);
    shell.press("stats\r");
    shell.see(&["routes in main"]);
    shell.signal(Signal::TERM).unwrap();
    shell.end();
    assert_eq!(sockets(), 0);
    let mut command = Command::new(router.program());
    command.arg("shell").arg(router.config()).env("XDG_RUNTIME_DIR", router.dir()).env("XDG_STATE_HOME", router.dir());
    let shell = Terminal::start(command, 24, 80).unwrap();
    shell.see(&["diamond (file)> "]);
    let _ = shell.hang_up();
    assert_eq!(sockets(), 0);
}

#[test]
fn a_slow_terminal_holds_up_nobody() {
    let router = router();
    let batch: String = (0..20_000u32)
        .map(|i| format!("route add 10.{}.{}.{}/32 dev lan0\n", 100 + i / 65536, i / 256 % 256, i % 256))
        .collect();
    assert!(router.ask_with(&["-batch", "-"], batch.as_bytes()).unwrap().status.success());
    let mut slow = shell_of(&router, 24, 80);
    slow.pause(true);
    slow.press("route show | no-more\r");
    // While one terminal takes nothing, another shell changes and looks.
    let out = router.ask_with(&["shell"], b"route add 203.0.115.0/24 dev lan0\nroute show 203.0.115.0/24\n").unwrap();
    assert_eq!(
        String::from_utf8_lossy(&out.stdout),
        "+ 203.0.115.0/24 dev lan0 scope link\n203.0.115.0/24 dev lan0 scope link \n"
    );
    slow.pause(false);
    slow.see(&["203.0.115.0/24"]);
    slow.see_that("the prompt", |s| s.trim_end().ends_with("diamond>"));
}

#[test]
fn lines_from_a_pipe() {
    let router = router();
    let out = router.ask_with(&["shell"], b"show ip route 10.66.0.1\n\n# nothing\nroute shwo\nlink | count\n").unwrap();
    assert_eq!(out.status.code(), Some(255));
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(text.starts_with("Routing entry for 10.66.0.0/16\n") && text.ends_with("\n4\n"), "{text}");
    assert!(!text.contains('\x1b'), "no colour: {text}");
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(
        err.starts_with(
            "4: route shwo\n         ^^^^\nError: \"shwo\" is not known here.\nHint: did you mean \"show\"?\n"
        ),
        "{err}"
    );
    let out = router
        .ask_with(&["shell", "-c", "route show 10.66.0.0/16 | json", "-c", "exit", "-c", "nonsense"], b"")
        .unwrap();
    assert_eq!(
        (out.status.code(), String::from_utf8_lossy(&out.stdout).as_ref()),
        (Some(0), "[{\"type\":\"blackhole\",\"dst\":\"10.66.0.0/16\",\"protocol\":\"static\",\"flags\":[]}]\n")
    );
    // Programs of the other kind, through filters.
    let out =
        router.ask_with(&["shell", "-c", "drops --all | match hop_limit | count", "-c", "stats | json"], b"").unwrap();
    assert!(out.status.success());
    assert!(
        String::from_utf8_lossy(&out.stdout).contains("\n{\"received\":"),
        "{}",
        String::from_utf8_lossy(&out.stdout)
    );
    // Nobody listens.
    let out = router.ask_with(&["shell", "--socket", "/nonexistent/x.sock"], b"route\n").unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&out.stderr).lines().next(),
        Some("Cannot reach the router on /nonexistent/x.sock: No such file or directory")
    );
}

#[test]
fn a_reader_that_has_enough() {
    let router = router();
    let batch: String =
        (0..20_000u32).map(|i| format!("route add 10.100.{}.{}/32 dev lan0\n", i / 256 % 256, i % 256)).collect();
    assert!(router.ask_with(&["-batch", "-"], batch.as_bytes()).unwrap().status.success());
    let line = format!("echo 'route show' | {} shell --socket {} | head -n 3", PROGRAM, router.socket().display());
    let out = Command::new("sh").arg("-c").arg(line).output().unwrap();
    assert_eq!(
        (String::from_utf8_lossy(&out.stdout).lines().count(), String::from_utf8_lossy(&out.stderr).as_ref()),
        (3, "")
    );
}

#[test]
fn several_shells_at_once() {
    let router = router();
    let mut shells: Vec<Terminal> = (0..4).map(|_| shell_of(&router, 24, 100)).collect();
    for (i, shell) in shells.iter_mut().enumerate() {
        shell.press(&format!("route add 203.0.{}.0/24 dev lan0\r", 120 + i));
    }
    for (i, shell) in shells.iter().enumerate() {
        shell.see(&[&format!("+ 203.0.{}.0/24 dev lan0", 120 + i)]);
    }
    for shell in &mut shells {
        let screen = type_line(shell, "route show | match 203.0.12 | count");
        assert!(screen.lines().any(|l| l == "4"), "{screen}");
    }
    eventually("all are there", || (router.ask(&["route"]).matches("203.0.12").count() == 4).then_some(()));
}

/// A line of /proc/PID/status in KiB.
fn memory(pid: u32, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Routes for a table as large as the Internet's, where its list is there; else fewer, made up. Their number comes too.
fn many_routes() -> (u64, String) {
    use std::io::BufRead;
    let beside = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let dir = std::env::var_os("DUET_DATA").map_or(beside, std::path::PathBuf::from);
    let Ok(file) = std::fs::File::open(dir.join("bgp-ipv4.txt.gz")) else {
        eprintln!(
            "SKIPPED: {} has no full table, 100,000 routes are made up; DUET_DATA names the directory",
            dir.display()
        );
        let line =
            |i: u32| format!("route add {}/24 via 192.0.2.9\n", std::net::Ipv4Addr::from(0x0b00_0000 + (i << 8)));
        return (100_000, (0..100_000).map(line).collect());
    };
    let mut text = String::new();
    let mut count = 0;
    for line in std::io::BufReader::new(flate2::read::GzDecoder::new(file)).lines().map_while(Result::ok) {
        if let Some(prefix) = line.split_whitespace().next() {
            text += &format!("route add {prefix} via 192.0.2.9\n");
            count += 1;
        }
    }
    (count, text)
}

#[test]
fn a_full_table_is_shown_filtered_and_counted_in_little_memory() {
    let router = router();
    router.ask(&["route", "flush", "proto", "static"]);
    let (count, text) = many_routes();
    assert!(router.ask_with(&["-batch", "-"], text.as_bytes()).unwrap().status.success());
    let loaded = memory(router.pid(), "VmRSS");
    let mut shell = shell_of(&router, 24, 80);
    let began = std::time::Instant::now();
    shell.press("route show\r");
    shell.see(&["--More--"]);
    let first = began.elapsed();
    let at_first = memory(shell.pid(), "VmRSS");
    shell.press("q");
    shell.see_that("the prompt", |s| s.trim_end().ends_with("diamond>"));
    let began = std::time::Instant::now();
    // Its own two link prefixes are there too.
    shell.press("\x0croute show | count\r");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while !shell.screen().lines().any(|l| l == (count + 2).to_string()) {
        assert!(std::time::Instant::now() < until, "{}", shell.screen());
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
    let all = began.elapsed();
    let (most, grown) = (memory(shell.pid(), "VmHWM"), memory(router.pid(), "VmHWM").saturating_sub(loaded));
    println!(
        "{count} routes: first screen after {first:.1?}, counted in {all:.1?}; shell {at_first} KiB, {most} KiB at most; router {loaded} KiB, {grown} KiB more at most"
    );
    assert!(most < 32 * 1024, "the shell took {most} KiB");
    // The highest it ever was includes loading.
    assert!(grown < 64 * 1024, "the router took {grown} KiB more");
    // Half way through, Ctrl-C ends it at once: the rest is not fetched.
    shell.press("\x0croute show | no-more\r");
    shell.see(&[" via 192.0.2.9 dev lan0"]);
    shell.press("\x03");
    shell.see_that("the prompt", |s| s.trim_end().ends_with("diamond>"));
    assert!(!shell.raw().contains("198.51.100.0/24 dev wan0"), "the listing went on to its end");
    shell.press("\x0croute show | match 192.0.2.0/24 | json\r");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while !shell.screen().contains("\"dst\":\"192.0.2.0/24\"") {
        assert!(std::time::Instant::now() < until, "{}", shell.screen());
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}
