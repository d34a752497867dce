//! The transcripts in docs/inspect.md are true: what is typed there is typed here, and the page must say what came out.
//! DUET_WRITE_TRANSCRIPTS=1 writes them anew.
//!
//! - `duet-console`: lines `$ duet ...`, run in docs/.
//! - `duet-shell FILE`: lines `duet> ...`, typed into one shell on that configuration.
//! - `duet-live FILE`: a router runs with that configuration; `$ duet monitor ... &` listens while the other commands run.
//! - `duet-screen FILE`: the keys of the first line are pressed in `duet top` on such a router; the screen, but for its first
//!   line, which tells ages.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use testbeds::desk::{Plain, Terminal, eventually};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// Standard output and standard error, as they would appear together.
fn run(words: &[&str]) -> String {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg("exec \"$0\" \"$@\" 2>&1")
        .arg(PROGRAM)
        .args(words)
        .current_dir(docs())
        .env_remove("DUET_SOCKET");
    let out = command.stdin(Stdio::null()).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

/// The program is called differently here than by users.
fn console(body: &[&str]) -> String {
    let mut made = String::new();
    for line in body.iter().filter(|l| l.starts_with("$ duet ")) {
        let words: Vec<&str> = line.trim_start_matches("$ duet ").split_whitespace().collect();
        made += &format!("{line}\n{}", run(&words));
    }
    made
}

fn shell(file: &str, body: &[&str]) -> String {
    let lines: Vec<&str> = body.iter().filter_map(|l| l.strip_prefix("duet> ")).collect();
    let mut made = String::new();
    let mut before = String::new();
    for n in 1..=lines.len() {
        let mut words = vec!["shell", file];
        for line in &lines[..n] {
            words.extend(["-c", line]);
        }
        let all = run(&words);
        let new = all.strip_prefix(&before).unwrap_or_else(|| panic!("{all}\ndoes not begin with\n{before}"));
        made += &format!("duet> {}\n", lines[n - 1]);
        // Lines that do not come from a terminal are repeated with their number above the caret.
        let echo = format!("{n}: {}\n", lines[n - 1]);
        match new.strip_prefix(&echo) {
            Some(rest) if rest.trim_start().starts_with('^') => {
                made += &format!("{}{rest}", " ".repeat("duet> ".len() - "1: ".len()))
            }
            Some(rest) => made += rest,
            None => made += new,
        }
        before = all;
    }
    made
}

fn router(file: &str) -> Plain {
    let toml = std::fs::read_to_string(docs().join(file)).unwrap();
    Plain::start(PROGRAM, &toml.replace("[router]", "[router]\nsocket = \"SOCKET\"")).unwrap()
}

fn live(file: &str, body: &[&str]) -> String {
    let router = router(file);
    let commands: Vec<&str> = body.iter().filter_map(|l| l.strip_prefix("$ duet ")).collect();
    let (listener, commands) = commands.split_first().unwrap();
    let words: Vec<&str> = listener.trim_end_matches(" &").split_whitespace().collect();
    let mut child =
        Command::new(PROGRAM).args(&words).env("DUET_SOCKET", router.socket()).stdout(Stdio::piped()).spawn().unwrap();
    let from = child.stdout.take().unwrap();
    let said = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let to = said.clone();
    let reader = std::thread::spawn(move || {
        let mut from = from;
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            *to.lock().unwrap() += &String::from_utf8_lossy(&buffer[..n]);
        }
    });
    // Two changes that are not told: when the second one is heard, so will be everything after it.
    eventually("it listens", || {
        router.ask(&["route", "replace", "192.88.99.0/24", "dev", "lan0"]);
        router.ask(&["route", "del", "192.88.99.0/24"]);
        said.lock().unwrap().contains("Deleted 192.88.99.0/24").then_some(())
    });
    router.ask(&["route", "add", "192.88.98.0/24", "dev", "lan0"]);
    eventually("the mark", || said.lock().unwrap().contains("192.88.98.0/24").then_some(()));
    let start = said.lock().unwrap().len();
    let mut made = format!("$ duet {listener}\n");
    for command in commands {
        let before = said.lock().unwrap().len();
        let words: Vec<&str> = command.split_whitespace().collect();
        router.ask(&words);
        eventually("the event", || (said.lock().unwrap().len() > before).then_some(()));
        made += &format!("$ duet {command}\n{}", &said.lock().unwrap()[before..]);
    }
    assert!(said.lock().unwrap().len() > start);
    let _ = child.kill();
    let _ = child.wait();
    let _ = reader.join();
    made
}

fn screen(file: &str, body: &[&str]) -> String {
    let router = router(file);
    let keys = body.first().copied().unwrap_or_default();
    let mut command = Command::new(PROGRAM);
    command.args(["top", "--socket"]).arg(router.socket());
    let mut top = Terminal::start(command, 24, 80).unwrap();
    top.see(&["packets/s: 0 received"]);
    top.press(keys);
    let screen = top.see(&["203.0.113.5"]);
    let lines: Vec<&str> = screen.lines().skip(1).map(str::trim_end).collect();
    // What is empty below the table is not shown.
    let (foot, above) = lines.split_last().unwrap();
    let used = above.iter().rposition(|l| !l.is_empty()).map_or(0, |i| i + 1);
    format!("{keys}\n{}\n{foot}\n", above[..used].join("\n"))
}

#[test]
fn transcripts_are_true() {
    let page = docs().join("inspect.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut made = String::new();
    let (mut at, mut blocks) = (0, 0);
    while at < lines.len() {
        let line = lines[at];
        at += 1;
        made += &format!("{line}\n");
        let Some(kind) = line.strip_prefix("```duet-") else { continue };
        let end = at + lines[at..].iter().position(|l| *l == "```").expect("the block ends");
        let body = &lines[at..end];
        let (kind, file) = kind.split_once(' ').unwrap_or((kind, ""));
        made += &match kind {
            "console" => console(body),
            "shell" => shell(file, body),
            "live" => live(file, body),
            "screen" => screen(file, body),
            other => panic!("{}:{at}: what is {other}?", page.display()),
        };
        blocks += 1;
        at = end;
    }
    assert!(blocks >= 8, "{blocks} transcripts in {}", page.display());
    if std::env::var_os("DUET_WRITE_TRANSCRIPTS").is_some() {
        std::fs::write(&page, made).unwrap();
        return;
    }
    for (n, (is, should)) in lines.iter().zip(made.lines()).enumerate() {
        assert_eq!(*is, should, "docs/inspect.md:{}; DUET_WRITE_TRANSCRIPTS=1 writes it anew", n + 1);
    }
    assert_eq!(lines.len(), made.lines().count());
}
