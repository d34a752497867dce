//! Completion in other shells: the words of the grammar, and names from the running router.

use std::process::Command;
use testbeds::desk::{Plain, Terminal};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");
const CONFIG: &str = include_str!("../../docs/examples/inspect.toml");

/// What bash offers at the end of a line, by the completion file.
fn offered(router: &Plain, line: &str) -> Vec<String> {
    let script = r#"
        source <("$0" completion bash)
        COMP_LINE="$1"; COMP_POINT=${#COMP_LINE}
        read -ra COMP_WORDS <<< "$COMP_LINE"
        case "$COMP_LINE" in *' ') COMP_WORDS+=("");; esac
        COMP_WORDS[0]="$0"; COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
        COMPREPLY=()
        _duet "$0" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut command = Command::new("bash");
    command.args(["-c", script, PROGRAM, line]).env("DUET_SOCKET", router.socket());
    let out = command.output().unwrap();
    assert!(out.status.success() && out.stderr.is_empty(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    let mut list: Vec<String> = String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect();
    list.sort();
    list
}

#[test]
fn bash_knows_the_grammar_and_the_router() {
    let mut router = Plain::start(PROGRAM, &CONFIG.replace("[router]", "[router]\nsocket = \"SOCKET\"")).unwrap();
    for (line, want) in [
        ("duet rou", &["route"][..]),
        ("duet route re", &["replace", "restore"]),
        ("duet -6 -n other route sh", &["show"]),
        ("duet route add 10.1.0.0/16 vi", &["via"]),
        ("duet route add 10.1.0.0/16 dev ", &["he", "lan0", "lo", "wan0"]),
        ("duet ip link set w", &["wan0"]),
        ("duet route del 10.9", &["10.9.0.0/16"]),
        // Readline has taken what stands before the last colon already.
        ("duet route del 2001:db8:f", &["ffff::/128", "ffff::/64", "ffff::2/128"]),
        ("duet tunnel show ", &["he"]),
        ("duet count add n", &["nexthop"]),
        ("duet explain to 10.1.1.1 iif l", &["lan0", "lo"]),
        ("duet doc", &["doctor"]),
        ("duet doctor --js", &["--json"]),
    ] {
        assert_eq!(offered(&router, line), want, "{line}");
    }
    // Without a router the words are left.
    router.kill();
    assert_eq!(offered(&router, "duet route add 10.1.0.0/16 vi"), ["via"]);
    let words = ["address", "down", "mark", "master", "mtu", "nomaster", "up"];
    assert_eq!(offered(&router, "duet link set "), words);
}

/// Whether that shell is on this machine; says so if it is not.
fn has(shell: &str) -> bool {
    let there = Command::new(shell).args(["-c", "exit"]).status().is_ok_and(|s| s.success());
    if !there {
        eprintln!("skipped: {shell} is not installed; \"apt-get install {shell}\" brings it");
    }
    there
}

/// A directory with the program as `duet` in it: shells complete by that name.
fn bin(router: &Plain) -> String {
    let dir = router.dir().join("bin");
    std::fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink(router.program(), dir.join("duet")).unwrap();
    format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default())
}

#[test]
fn fish_knows_the_grammar_and_the_router() {
    if !has("fish") {
        return;
    }
    let mut router = Plain::start(PROGRAM, &CONFIG.replace("[router]", "[router]\nsocket = \"SOCKET\"")).unwrap();
    let path = bin(&router);
    let offered = |router: &Plain, line: &str| -> Vec<String> {
        let script = "duet completion fish | source; complete -C \"$WANTED\"";
        let mut fish = Command::new("fish");
        fish.args(["--no-config", "-c", script]).env("PATH", &path).env("WANTED", line).env("HOME", router.dir());
        let out = fish.env("DUET_SOCKET", router.socket()).output().unwrap();
        assert!(out.status.success() && out.stderr.is_empty(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
    };
    for (line, want) in [
        ("duet route re", &["replace\tSet a route, whether there or not", "restore\t"][..]),
        ("duet route add 10.1.0.0/16 vi", &["via\tthe gateway, of either family"]),
        (
            "duet route add 10.1.0.0/16 dev ",
            &["he\ttunnel, up", "lan0\tmemory, up", "lo\tloopback, up", "wan0\tmemory, up"],
        ),
        ("duet -6 -n other route sh", &["show\tList routes"]),
        ("duet ip link set w", &["wan0\t"]),
        (
            "duet route del 2001:db8:f",
            &["2001:db8:ffff::/64\tdev he", "2001:db8:ffff::/128\tdev he", "2001:db8:ffff::2/128\tdev he"],
        ),
        ("duet explain to 10.1.1.1 iif l", &["lan0\t", "lo\t"]),
        ("duet doc", &["doctor\tWhat bites"]),
        ("duet doctor --js", &["--json\tPrint JSON"]),
    ] {
        let got = offered(&router, line);
        let same = got.len() == want.len() && got.iter().zip(want).all(|(g, w)| g.starts_with(w));
        assert!(same, "{line}: {got:?}");
    }
    router.kill();
    assert_eq!(offered(&router, "duet route add 10.1.0.0/16 vi"), ["via\tthe gateway, of either family"]);
}

#[test]
fn zsh_knows_the_grammar_and_the_router() {
    if !has("zsh") {
        return;
    }
    let router = Plain::start(PROGRAM, &CONFIG.replace("[router]", "[router]\nsocket = \"SOCKET\"")).unwrap();
    let mut command = Command::new("zsh");
    command.arg("-f").current_dir(router.dir()).env("PATH", bin(&router)).env("HOME", router.dir());
    command.env("DUET_SOCKET", router.socket());
    let mut zsh = Terminal::start(command, 40, 100).unwrap();
    zsh.press("PS1='ready> '; autoload -Uz compinit; compinit -u -d \"$HOME/dump\"; . <(duet completion zsh)\r");
    zsh.see_that("the prompt", |s| s.trim_end().ends_with("ready>"));
    // What is typed before the key, and what the screen shows then.
    for (line, want) in [
        ("duet route ad", &["duet route add"][..]),
        ("duet route re", &["replace  -- Set a route, whether there or not", "restore  -- Add what"]),
        ("duet route add 10.1.0.0/16 dev ", &["he ", "-- tunnel, up", "wan0", "lan0", "-- memory, up"]),
        ("duet -6 -n other route fl", &["duet -6 -n other route flush"]),
        ("duet ip link set w", &["duet ip link set wan0"]),
        ("duet route del 2001:db8:f", &["2001:db8:ffff::/64 ", "2001:db8:ffff::2/128 ", "-- dev he"]),
        ("duet explain to 10.1.1.1 iif la", &["duet explain to 10.1.1.1 iif lan0"]),
        ("duet doc", &["duet doctor"]),
        ("duet doctor --js", &["duet doctor --json"]),
    ] {
        // Once more lists what is left to choose from.
        zsh.press(&format!("\x15\x0c{line}"));
        zsh.see_that("what was typed", |s| s.trim_start().starts_with(&format!("ready> {}", line.trim_end())));
        zsh.press("\t");
        if want.len() > 1 {
            zsh.press("\t");
        }
        zsh.see(want);
    }
    zsh.press("\x15exit\r");
    assert!(zsh.end().status.success());
}
