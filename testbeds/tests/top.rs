//! The screen of `duet top` in a real terminal of 80 columns and 24 lines, and how it leaves that terminal.

use rustix::process::Signal;
use std::process::Command;
use testbeds::desk::{End, Plain, Terminal};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");
const CONFIG: &str = include_str!("../../docs/examples/inspect.toml");

fn router() -> Plain {
    let router = Plain::start(PROGRAM, &CONFIG.replace("[router]", "[router]\nsocket = \"SOCKET\"")).unwrap();
    router.ask(&["neigh", "add", "192.0.2.9", "lladdr", "02:00:00:00:00:09", "dev", "lan0"]);
    router
}

fn top(router: &Plain) -> Terminal {
    let mut command = Command::new(router.program());
    // A backtrace would push the message off the screen.
    command.args(["top", "-d", "0.2", "--socket"]).arg(router.socket()).env("RUST_BACKTRACE", "0");
    let top = Terminal::start(command, 24, 80).unwrap();
    top.see(&["diamond  duet ", "packets/s: "]);
    top
}

#[track_caller]
fn as_before(end: &End) {
    assert!(end.cooked && end.cursor && end.main_screen, "{end:?}");
}

#[test]
fn panes_keys_and_help() {
    let router = router();
    let mut top = top(&router);
    let screen = top.see(&["lan0", "wan0", "he", "rx pkt/s", " q leave "]);
    assert!(screen.lines().all(|l| l.chars().count() <= 80), "{screen}");
    top.press("2");
    top.see(&["203.0.113.5", "198.51.100.7", "1480", "up"]);
    top.press("3");
    top.see(&["No packet took a route just now"]);
    top.press("4");
    let screen = top.see(&["2001:db8:1::22", "192.0.2.9", "permanent", "routesv"]);
    let at = |text: &str| screen.find(text).unwrap_or(usize::MAX);
    assert!(at("198.51.100.1 ") < usize::MAX, "{screen}");
    // Another order: by address, then backwards.
    top.press("s");
    top.see(&["next hopv"]);
    let order = |screen: &str| screen.find("192.0.2.9").cmp(&screen.find("2001:db8:1::22"));
    top.see_that("sorted", |s| s.contains("next hopv") && order(s).is_lt());
    top.press("r");
    top.see_that("sorted backwards", |s| s.contains("next hop^") && order(s).is_gt());
    top.press("\t");
    top.see(&["No packet was dropped."]);
    top.press("6");
    top.see(&["worker0", "control", "load %"]);
    top.press("7");
    top.see(&["192.0.2.9", "02:00:00:00:00:09", "permanent"]);
    top.press("?");
    top.see(&["Keys", "another pane", "explain this line"]);
    top.press("x");
    top.see_that("the help is gone", |s| !s.contains("another pane"));
    // What changes is seen without a key.
    router.ask(&["neigh", "add", "192.0.2.10", "lladdr", "02:00:00:00:00:10", "dev", "lan0"]);
    top.see(&["02:00:00:00:00:10"]);
    top.press("1");
    router.ask(&["link", "set", "wan0", "down"]);
    top.see(&["wan0", " down "]);
    // On a line.
    top.press("7\r");
    top.see(&["explain to 192.0.2."]);
    top.see_that("an answer", |s| !s.contains("Asking the router"));
    top.press("x");
    top.resize(12, 40).unwrap();
    top.see_that("a small screen", |s| s.lines().count() <= 12 && s.contains("diamond"));
    top.press("q");
    let end = top.end();
    as_before(&end);
    assert!(end.status.success());
}

#[test]
fn the_terminal_is_left_as_it_was() {
    let router = router();
    for (how, keys, signal) in [
        ("Ctrl-C", "\x03", None),
        ("SIGTERM", "", Some(Signal::TERM)),
        ("SIGHUP", "", Some(Signal::HUP)),
        ("SIGINT", "", Some(Signal::INT)),
    ] {
        let mut top = top(&router);
        top.press(keys);
        if let Some(signal) = signal {
            top.signal(signal).unwrap();
        }
        let end = top.end();
        assert!(end.cooked && end.cursor && end.main_screen, "{how}: {end:?}");
    }
    let _ = top(&router).hang_up();
}

#[test]
fn a_panic_leaves_it_so_too_and_is_readable() {
    let router = router();
    let mut top = top(&router);
    // F12, in builds with debug assertions: this one.
    top.press("\x1b[24~");
    let end = top.end();
    as_before(&end);
    assert!(!end.status.success());
    assert!(end.screen.contains("asked for by F12"), "{}", end.screen);
}

#[test]
fn a_router_that_goes_is_said_and_one_that_comes_back_is_shown() {
    let mut router = router();
    let mut top = top(&router);
    router.kill();
    top.see(&["Cannot reach the router", "trying again"]);
    router.run().unwrap();
    top.see_that("it is back", |s| !s.contains("trying again") && s.contains("packets/s"));
    top.press("q");
    as_before(&top.end());
}

#[test]
fn without_a_terminal_or_a_router() {
    let router = router();
    let out = router.ask_with(&["top"], b"").unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).starts_with("\"duet top\" needs a terminal.\nHint: "));
    let mut command = Command::new(router.program());
    command.args(["top", "--socket", "/nonexistent/x.sock"]);
    let end = Terminal::start(command, 24, 80).unwrap().end();
    as_before(&end);
    assert_eq!(end.status.code(), Some(2));
    assert!(end.screen.starts_with("Cannot reach the router on /nonexistent/x.sock"), "{}", end.screen);
}
