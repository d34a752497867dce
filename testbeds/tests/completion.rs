//! Completion in other shells: the words of the grammar, and names from the running router.

use std::process::Command;
use testbeds::desk::Plain;

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
        ("duet route re", &["replace"]),
        ("duet route add 10.1.0.0/16 vi", &["via"]),
        ("duet route add 10.1.0.0/16 dev ", &["he", "lan0", "lo", "wan0"]),
        ("duet ip link set w", &["wan0"]),
        ("duet route del 10.9", &["10.9.0.0/16"]),
        // Readline has taken what stands before the last colon already.
        ("duet route del 2001:db8:f", &["ffff::/64", "ffff::2/128"]),
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
    assert_eq!(offered(&router, "duet link set "), ["down", "mtu", "up"]);
}
