//! Output that nobody takes: a closed pipe, a full disk. Each ends in one clear line or in none, and nothing hangs.

use std::process::{Command, Output, Stdio};
use testbeds::desk::Plain;

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");
const CONFIG: &str = include_str!("../../docs/examples/inspect.toml");

/// A router with more routes than fit into a pipe.
fn router() -> Plain {
    let router = Plain::start(PROGRAM, &CONFIG.replace("[router]", "[router]\nsocket = \"SOCKET\"")).unwrap();
    let batch: String =
        (0..20_000u32).map(|i| format!("route add 10.100.{}.{}/32 dev lan0\n", i / 256, i % 256)).collect();
    assert!(router.ask_with(&["-batch", "-"], batch.as_bytes()).unwrap().status.success());
    router
}

fn shell(router: &Plain, line: &str) -> Output {
    let path = format!("{}:/usr/bin:/bin", router.dir().display());
    let _ = std::os::unix::fs::symlink(PROGRAM, router.dir().join("duet"));
    let mut command = Command::new("timeout");
    command.args(["60", "bash", "-c", &format!("set -o pipefail; {line}")]);
    command.env("PATH", path).env("DUET_SOCKET", router.socket()).env("XDG_STATE_HOME", router.dir());
    command.stdin(Stdio::null()).output().unwrap()
}

/// Commands with a long output, or an endless one.
const LONG: [&str; 8] = [
    "duet route",
    "duet route save",
    "duet -j route show table all",
    "duet shell -c 'route show'",
    "duet shell -c 'route show | match 10.100'",
    "duet route diff running /dev/null",
    "duet stats --watch 0.1",
    "duet graph",
];

#[test]
fn a_reader_that_has_had_enough_hears_no_complaint() {
    let router = router();
    for command in LONG.iter().filter(|c| **c != "duet graph" && !c.contains("diff")) {
        let out = shell(&router, &format!("{command} | head -n 1 | wc -l"));
        let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert_eq!((text.trim(), errors.as_ref()), ("1", ""), "{command}: {:?}", out.status);
        assert_ne!(out.status.code(), Some(124), "{command} hangs");
    }
}

#[test]
fn a_full_disk_is_said_in_one_line() {
    let router = router();
    for command in LONG {
        let out = shell(&router, &format!("{command} > /dev/full"));
        let errors = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{command}: {errors}");
        // A shell repeats which of its lines it was.
        let lines = errors.lines().filter(|l| !l.starts_with("1: ")).count();
        assert_eq!(lines, 1, "{command}: {errors}");
        assert!(errors.contains("No space left on device"), "{command}: {errors}");
    }
}
