//! The program itself, as processes: start, commands, reload, signals, and what goes wrong. The routers here have no
//! ports, so that no privilege is needed.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const DUET: &str = env!("CARGO_BIN_EXE_duet");

const CONFIG: &str = r#"
[router]
name = "test"

[port.lan0]
kind = "memory"
address = ["192.0.2.1/24", "2001:db8::1/64"]

[routes]
main = ["blackhole 10.0.0.0/8", "203.0.113.0/24 via inet6 2001:db8::22"]
"#;

struct Router {
    dir: tempfile::TempDir,
    child: Child,
}

impl Router {
    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("test.toml")
    }

    fn start() -> Router {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("test.toml"), CONFIG).unwrap();
        let child = spawn(&dir);
        let mut router = Router { dir, child };
        router.wait_ready();
        router
    }

    fn wait_ready(&mut self) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.duet("version").stdout.iter().filter(|b| **b == b'\n').count() < 2 {
            assert!(Instant::now() < until && self.child.try_wait().unwrap().is_none(), "{}", self.log());
            std::thread::yield_now();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn duet(&self, words: &str) -> Output {
        let mut c = Command::new(DUET);
        c.args(words.split_whitespace()).env("DUET_SOCKET", self.socket()).stdin(Stdio::null()).output().unwrap()
    }

    /// Standard output of a command that must succeed.
    fn ok(&self, words: &str) -> String {
        let out = self.duet(words);
        assert_eq!(out.status.code(), Some(0), "{words}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// Exit code and standard error of a command.
    fn fails(&self, words: &str) -> (i32, String) {
        let out = self.duet(words);
        (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

fn spawn(dir: &tempfile::TempDir) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(dir.path().join("log")).unwrap();
    let mut c = Command::new(DUET);
    c.arg("run").arg(dir.path().join("test.toml")).arg("--socket").arg(dir.path().join("s"));
    c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_router_runs_takes_commands_reloads_and_stops() {
    let mut r = Router::start();
    let table = "blackhole 10.0.0.0/8 proto static \n\
                 192.0.2.0/24 dev lan0 proto kernel scope link src 192.0.2.1 \n\
                 203.0.113.0/24 via inet6 2001:db8::22 dev lan0 proto static \n";
    assert_eq!(r.ok("route"), table);
    assert_eq!(r.ok("ip -4 r s"), table);
    assert_eq!(r.ok("route show 203.0.113.0/24 -j"), r.ok("-j route show 203.0.113.0/24"));
    assert!(r.ok("-j route show 203.0.113.0/24").starts_with(
        "[{\"dst\":\"203.0.113.0/24\",\"via\":{\"family\":\"inet6\",\"host\":\"2001:db8::22\"},\"dev\":\"lan0\",\"protocol\":\"static\","
    ));
    r.ok("route add 198.51.100.0/24 via ::ffff:192.0.2.9");
    assert_eq!(r.ok("route show 198.51.100.0/24"), "198.51.100.0/24 via 192.0.2.9 dev lan0 \n");
    let (code, text) = r.fails("route add 198.51.100.0/24 via 192.0.2.9");
    assert_eq!(code, 2);
    assert!(text.starts_with("RTNETLINK answers: File exists\nHint: "), "{text}");
    assert_eq!(r.fails("route add 10.1.0.0/16 dev nope").0, 1);
    assert_eq!(r.fails("route del 10.1.0.0/16").1.lines().next(), Some("RTNETLINK answers: No such process"));
    assert!(r.ok("route get 203.0.113.9").contains("via inet6 2001:db8::22"));
    assert_eq!(r.fails("route get 10.1.1.1").1.lines().next(), Some("RTNETLINK answers: Invalid argument"));
    assert!(r.ok("stats").starts_with("received "));
    assert_eq!(r.ok("drops"), "No packet was dropped.\n");

    // A wrong file changes nothing and says why; a right one is applied.
    std::fs::write(r.file(), CONFIG.replace("10.0.0.0/8", "10.0.0.1/8")).unwrap();
    let (code, text) = r.fails("reload");
    assert_eq!(code, 2);
    assert!(text.contains("test.toml:10:20: Invalid prefix for given prefix length"), "{text}");
    assert_eq!(r.ok("route show type blackhole"), "blackhole 10.0.0.0/8 proto static \n");
    std::fs::write(r.file(), CONFIG.replace("10.0.0.0/8", "10.64.0.0/10")).unwrap();
    assert_eq!(
        r.ok("reload"),
        "route blackhole 10.64.0.0/10 proto static\nroute blackhole 10.0.0.0/8 proto static removed\n"
    );
    std::fs::write(r.file(), CONFIG.replace("10.0.0.0/8", "10.128.0.0/9")).unwrap();
    r.signal(rustix::process::Signal::HUP);
    let until = Instant::now() + Duration::from_secs(10);
    while r.ok("route show type blackhole") != "blackhole 10.128.0.0/9 proto static \n" {
        assert!(Instant::now() < until, "{}", r.log());
    }

    // What is saved can be restored; what is there already does not matter.
    let saved = r.ok("route save");
    assert!(saved.contains("203.0.113.0/24 proto static via inet6 2001:db8::22 dev lan0\n"), "{saved}");
    r.ok("route flush proto static");
    let path = r.dir.path().join("saved");
    std::fs::write(&path, &saved).unwrap();
    let restored = Command::new(DUET)
        .args(["route", "restore"])
        .env("DUET_SOCKET", r.socket())
        .stdin(std::fs::File::open(&path).unwrap())
        .output()
        .unwrap();
    assert_eq!(restored.status.code(), Some(0), "{}", String::from_utf8_lossy(&restored.stderr));
    assert_eq!(r.ok("route save"), saved);

    r.signal(rustix::process::Signal::TERM);
    assert_eq!(r.child.wait().unwrap().code(), Some(0));
    assert!(!r.socket().exists());
    assert!(r.log().contains("READY"), "{}", r.log());
    let (code, text) = r.fails("route");
    assert_eq!(code, 2);
    assert!(text.contains("Hint: start it with \"duet run FILE\""), "{text}");
}

#[test]
fn a_second_one_is_refused_and_a_killed_one_replaced() {
    let mut r = Router::start();
    let mut second = spawn(&r.dir);
    assert_eq!(second.wait().unwrap().code(), Some(2));
    let want = format!("another duet is running (pid {})", r.child.id());
    assert!(r.log().contains(&want), "{}", r.log());
    r.child.kill().unwrap();
    r.child.wait().unwrap();
    assert!(r.socket().exists());
    assert_eq!(r.fails("route").0, 2);
    r.child = spawn(&r.dir);
    r.wait_ready();
    assert!(r.ok("route").contains("blackhole 10.0.0.0/8"));
}

#[test]
fn wrong_command_lines_have_one_clear_line_and_the_right_code() {
    let run = |words: &str| {
        let mut c = Command::new(DUET);
        let out = c.args(words.split_whitespace()).env("DUET_SOCKET", "/nonexistent/s").output().unwrap();
        (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    for (words, code, line) in [
        ("frobnicate", 1, "Object \"frobnicate\" is unknown, try \"duet help\"."),
        ("route frobnicate", 255, "Command \"frobnicate\" is unknown, try \"duet route help\"."),
        ("-x route", 255, "Option \"-x\" is unknown, try \"duet -help\"."),
        ("route add x via y", 1, "Error: any valid prefix is expected rather than \"x\"."),
        ("route", 2, "Cannot reach the router on /nonexistent/s: No such file or directory"),
        ("check /nonexistent.toml", 1, "/nonexistent.toml: No such file or directory"),
        ("run /nonexistent.toml", 1, "/nonexistent.toml: No such file or directory"),
        ("run", 1, "error: the following required arguments were not provided:"),
        ("route add 10.0.0.0/8 via", 255, "Command line is not complete. Try option \"help\""),
        ("-batch /nonexistent", 1, "Cannot open file \"/nonexistent\" for reading: No such file or directory"),
    ] {
        let (got, text) = run(words);
        assert_eq!((got, text.lines().next().unwrap_or_default()), (code, line), "{words}");
    }
    assert!(run("cehck x").1.contains("did you mean \"check\"?"));
}

#[test]
fn help_completion_and_manual_are_made() {
    let out = |words: &str| {
        let out = Command::new(DUET).args(words.split_whitespace()).output().unwrap();
        assert_eq!(out.status.code(), Some(0), "{words}");
        String::from_utf8(out.stdout).unwrap()
    };
    let help = out("--help");
    for word in ["duet run FILE", "duet route | neigh", "duet stats | drops", "Exit codes"] {
        assert!(help.contains(word), "{word}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(out(&format!("completion {shell}")).contains("nexthop"));
    }
    assert!(out("man").contains(".TH duet 1"));
    assert_eq!(out("--version"), format!("duet {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_examples_of_the_documentation_are_right() {
    let text = concat!(include_str!("../../docs/configuration.md"), include_str!("../../README.md"));
    let dir = tempfile::tempdir().unwrap();
    for (i, example) in text.split("```toml\n").skip(1).enumerate() {
        let example = example.split("```").next().unwrap();
        // The second example names a port of the first.
        let lan0 = "[port.lan0]\nkind = \"packet\"\naddress = [\"192.0.2.1/24\", \"2001:db8:1::1/64\"]\n";
        let ports = if example.contains("[port.lan0]") { "" } else { lan0 };
        let path = dir.path().join(format!("{i}.toml"));
        std::fs::write(&path, format!("{ports}{example}")).unwrap();
        let out = Command::new(DUET).arg("check").arg(&path).output().unwrap();
        assert_eq!(out.status.code(), Some(0), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn completion_files_and_manual_pages_know_every_command() {
    let run = |words: &[&str]| {
        let out = Command::new(DUET).args(words).output().unwrap();
        assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let help = run(&["--help"]);
    let list = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let commands: Vec<&str> = list
        .lines()
        .filter_map(|l| l.strip_prefix("  ").filter(|l| !l.starts_with(' '))?.split_whitespace().next())
        .filter(|w| w.chars().all(|c| c.is_ascii_lowercase()))
        .collect();
    for wanted in ["run", "shell", "monitor", "top", "doctor", "graph", "route", "completion", "man"] {
        assert!(commands.contains(&wanted), "{commands:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completion", shell]);
        for command in &commands {
            assert!(script.contains(command), "{shell}: {command}");
        }
        assert!(script.contains("format") && script.contains("svg"), "{shell}: values of options");
        // Where the shell is there, it must find no fault with it.
        let file = dir.path().join(shell);
        std::fs::write(&file, script).unwrap();
        match Command::new(shell).arg("-n").arg(&file).output() {
            Ok(out) => assert!(out.status.success(), "{shell}: {}", String::from_utf8_lossy(&out.stderr)),
            Err(_) => eprintln!("SKIPPED: {shell} is not there to read its completion file"),
        }
    }
    run(&["man", dir.path().join("man").to_str().unwrap()]);
    for command in &commands {
        let page = std::fs::read_to_string(dir.path().join("man").join(format!("duet-{command}.1")))
            .unwrap_or_else(|e| panic!("{command}: {e}"));
        assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH NAME"), "{page}");
    }
    assert_eq!(run(&["man"]), std::fs::read_to_string(dir.path().join("man/duet.1")).unwrap());
}
