//! The transcripts in docs/inspect.md are true: what is typed there is typed here, and the page must say what came out.
//! DUET_WRITE_TRANSCRIPTS=1 writes them anew.
//!
//! - `duet-console`: lines `$ duet ...`, run in docs/.
//! - `duet-shell FILE`: lines `duet> ...`, typed into one shell on that configuration.
//! - `duet-live FILE`: a router runs with that configuration; `$ duet monitor ... &` listens while the other commands run.
//! - `duet-lab [part] [numbers]`: the network of [`lab`] is made; `$ duet ...` is typed on its router, `a$ ping ...` on its
//!   host a. A command that ends in ` &` goes on meanwhile; what it said is shown when it has ended. Times and rates differ
//!   from run to run: numbers with a fraction stand for any such, with `numbers` all numbers do. With `part` the router may
//!   say more lines than are shown, for those that tell of what Linux hosts chatter.
//! - `duet-screen FILE`: the keys of the first line are pressed in `duet top` on such a router; the screen, but for its first
//!   line, which tells ages.

use router_io::lab::probe::Ping;
use router_io::sandbox_test;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use testbeds::desk::{Plain, Terminal, eventually};
use testbeds::lab::Watching;

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

/// a - r1 - b; b has 203.0.113.9, too, and r1 throws away what is for 198.51.100.0/24.
fn lab(body: &[&str]) -> testbeds::lab::Result<String> {
    use testbeds::lab::{Bed, Dut::Duet, RouterConfig};
    let mut bed = Bed::row(PROGRAM, &["a", "r1", "b"], &[1500; 2])?;
    bed.ready()?;
    bed.end("a", &["192.0.2.2/25"], &["default via 192.0.2.1"])?;
    bed.end("b", &["192.0.2.130/25", "203.0.113.9/32"], &["default via 192.0.2.129"])?;
    bed.router(
        Duet,
        &RouterConfig::new("r1")
            .port("left", &["192.0.2.1/25"])
            .port("right", &["192.0.2.129/25"])
            .route("203.0.113.0/24 via 192.0.2.130")
            .route("blackhole 198.51.100.0/24"),
    )?;
    // Neighbours are known before anybody looks.
    for to in ["192.0.2.130", "203.0.113.9"] {
        assert!(bed.host("a").ping(&Ping::new(to.parse()?))?.all_answered());
    }
    let r1 = bed.duet("r1");
    let mut made = String::new();
    let mut going: Vec<Watching> = Vec::new();
    let mut measures = false;
    let file = bed.dir().join("file").to_string_lossy().into_owned();
    for line in body {
        if let Some(words) = line.strip_prefix("$ duet ") {
            made += &format!("{line}\n");
            if let Some(words) = words.strip_suffix(" &") {
                let words = words.replace("FILE", &file);
                let mut command = Watching::start(PROGRAM, r1, &words)?;
                if words.starts_with("capture") {
                    command.hear("capturing")?;
                }
                measures |= words.starts_with("stats");
                going.push(command);
                continue;
            }
            let words: Vec<&str> = words.split_whitespace().collect();
            let said = r1.ask(&words, b"")?;
            made += &said.stdout;
            made += &said.stderr;
        } else if let Some(words) = line.strip_prefix("a$ ping ") {
            made += &format!("{line}\n");
            let mut ping = Ping::new("192.0.2.130".parse()?);
            ping.timeout = std::time::Duration::from_millis(300);
            let mut words = words.split_whitespace();
            while let Some(word) = words.next() {
                let mut number = || words.next().and_then(|w| w.parse().ok()).unwrap_or(1);
                match word {
                    "-c" => ping.count = number(),
                    "-t" => ping.ttl = Some(number() as u8),
                    to => ping.dst = to.parse()?,
                }
            }
            let _ = bed.host("a").ping(&ping)?;
            // A measurement begins when it does: there is traffic until it has ended.
            while measures && !going.iter_mut().all(Watching::ended) {
                let _ = bed.host("a").ping(&ping)?;
            }
        }
    }
    for command in going {
        let (out, errors) = command.end()?;
        made += &String::from_utf8_lossy(&out.stdout);
        made += &errors;
        if !made.ends_with('\n') {
            made.push('\n');
        }
    }
    bed.finish()?;
    Ok(made.replace(&file, "FILE"))
}

/// A line without what differs from run to run.
fn lasting(line: &str, numbers: bool) -> String {
    let word = |w: &str| {
        let bare = w.trim_end_matches(['%', ',', 'k', 'M', 'G']);
        let digits = !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b':');
        let (dots, colons) = (bare.matches('.').count(), bare.matches(':').count());
        let time = colons == 2 && dots == 1;
        let fraction = colons == 0 && dots == 1;
        let whole = numbers && colons == 0 && dots == 0;
        if digits && (time || fraction || whole) { "#".to_owned() } else { w.to_owned() }
    };
    line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

/// What is said in the page if it is true of what was made, else what was made.
fn agreed(body: &[&str], made: &str, options: &str) -> String {
    let (part, numbers) = (options.contains("part"), options.contains("numbers"));
    let said: Vec<String> = body.iter().map(|l| lasting(l, numbers)).collect();
    let is: Vec<String> = made.lines().map(|l| lasting(l, numbers)).collect();
    let mut rest = is.iter();
    let fits = match part {
        true => said.iter().all(|s| rest.any(|i| i == s)),
        false => said == is,
    };
    if fits { body.iter().map(|l| format!("{l}\n")).collect() } else { made.to_owned() }
}

sandbox_test! {
    /// Those of real traffic.
    fn transcripts_of_the_lab_are_true() {
        check(|kind, options, body| {
            let made = match kind {
                "lab" => lab(body).unwrap(),
                _ => return None,
            };
            Some(agreed(body, &made, options))
        }, 5);
    }
}

#[test]
fn transcripts_are_true() {
    check(
        |kind, file, body| {
            Some(match kind {
                "console" => console(body),
                "shell" => shell(file, body),
                "live" => live(file, body),
                "screen" => screen(file, body),
                "lab" => return None,
                other => panic!("what is {other}?"),
            })
        },
        8,
    );
}

/// Goes through the page with what makes each kind of block anew.
fn check(make: impl Fn(&str, &str, &[&str]) -> Option<String>, least: usize) {
    // One after the other: each writes the whole page, if it is to be written.
    static PAGE: Mutex<()> = Mutex::new(());
    let _page = PAGE.lock().unwrap_or_else(PoisonError::into_inner);
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
        match make(kind, file, body) {
            Some(text) => {
                made += &text;
                blocks += 1;
            }
            None => made.extend(body.iter().map(|l| format!("{l}\n"))),
        }
        at = end;
    }
    assert!(blocks >= least, "{blocks} transcripts in {}", page.display());
    if std::env::var_os("DUET_WRITE_TRANSCRIPTS").is_some() {
        std::fs::write(&page, made).unwrap();
        return;
    }
    for (n, (is, should)) in lines.iter().zip(made.lines()).enumerate() {
        assert_eq!(*is, should, "docs/inspect.md:{}; DUET_WRITE_TRANSCRIPTS=1 writes it anew", n + 1);
    }
    assert_eq!(lines.len(), made.lines().count());
}

/// Each inspecting command has a transcript in its section, of a kind that one of these tests runs.
#[test]
fn every_command_has_a_transcript() {
    let text = std::fs::read_to_string(docs().join("inspect.md")).unwrap();
    let run = ["```console", "```duet-lab", "```duet-console", "```duet-shell", "```duet-live", "```duet-screen"];
    for (command, words) in [
        ("shell", "duet> "),
        ("explain", "$ duet explain"),
        ("trace", "$ duet trace show"),
        ("capture", "$ duet capture"),
        ("drops", "$ duet drops"),
        ("stats", "$ duet stats"),
        ("monitor", "$ duet monitor"),
        ("top", "packets/s: "),
        ("doctor", "$ duet doctor"),
        ("route diff", "$ duet route diff"),
        ("graph", "$ duet graph"),
    ] {
        let section = text.split("\n## ").find(|s| s.starts_with(&format!("duet {command}\n"))).unwrap_or_default();
        let mut blocks = section.split("\n```\n").filter_map(|b| b.split_once("\n```").map(|(_, b)| format!("```{b}")));
        let there = blocks.any(|b| run.iter().any(|r| b.starts_with(r)) && b.contains(words));
        assert!(there, "duet {command} has no transcript");
    }
}
