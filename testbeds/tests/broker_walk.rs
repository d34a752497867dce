//! The walk through docs/broker.md, as it is written there: every command of its section "Try it", in order, by a shell in
//! namespaces of its own.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

const DOC: &str = include_str!("../../docs/broker.md");

/// The commands of the section: shell blocks whole, of consoles what stands behind the prompt.
fn script() -> String {
    let from = DOC.find("## Try it").expect("the section");
    let text = &DOC[from..from + DOC[from..].find("\n## Operate").expect("the next section")];
    let mut script = String::new();
    let mut kind = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), kind) {
            (Some(_), Some(_)) => kind = None,
            (Some(k), None) => kind = Some(k),
            (None, Some("sh")) => script += &format!("{line}\n"),
            (None, Some("console")) => {
                if let Some(command) = line.strip_prefix("# ") {
                    script += &format!("{command}\n");
                }
            }
            _ => {}
        }
    }
    script
}

#[test]
fn the_walk_through_works_as_written() {
    let tools = ["ip", "curl", "ping", "unshare"];
    let found = |t: &&str| ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].iter().any(|d| Path::new(d).join(t).exists());
    let may = Command::new("unshare").args(["-rnm", "--mount-proc", "-pf", "true"]).stderr(Stdio::null()).status();
    if !tools.iter().all(found) || !may.is_ok_and(|s| s.success()) {
        eprintln!("SKIPPED: docs/broker.md: needs {}, and namespaces", tools.join(", "));
        return;
    }
    let bin = tempfile::tempdir().expect("a directory");
    symlink(env!("CARGO_BIN_EXE_duet-under-test"), bin.path().join("duet")).expect("a link");
    let path = format!("{}:{}", bin.path().display(), std::env::var("PATH").unwrap_or_default());
    // All processes end with the first one of their namespace, the shell.
    let done = Command::new("unshare")
        .args(["-rnm", "--mount-proc", "--kill-child", "-pf", "bash", "-c", &script()])
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .expect("a shell");
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    for (what, times) in
        [("3 received, 0% packet loss", 2), ("tunnel 10001 \"up6\" made, 203.0.113.77", 2), ("good 203.0.113.99", 1)]
    {
        assert_eq!(out.matches(what).count(), times, "{what:?} in what it printed:\n{out}\n{err}");
    }
    assert!(out.contains("moved from 203.0.113.77 to 203.0.113.99"), "the change in the audit log:\n{out}\n{err}");
}
