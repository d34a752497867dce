//! A wrong word in any command: iproute2's or clap's own line first, a caret under the word, what was expected there, the
//! exit code. No router runs here: words are complained about without one.

use std::process::Command;

const DUET: &str = env!("CARGO_BIN_EXE_duet");

/// The command's exit code and what it said.
fn run(words: &[&str]) -> (i32, String) {
    let out = Command::new(DUET).args(words).env("DUET_SOCKET", "/nonexistent/s").output().unwrap();
    assert!(out.stdout.is_empty(), "{words:?}: {}", String::from_utf8_lossy(&out.stdout));
    (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
}

/// `[word]` is the wrong one of the words; `[]` at the end says that one is missing there. What follows: exit code, first
/// line, some of what was expected.
const CASES: &[(&str, i32, &str, &str)] = &[
    // route
    ("route [shwo]", 255, "Command \"shwo\" is unknown, try \"duet route help\".", "show"),
    (
        "route add [10.0.0.0/33] via 192.0.2.9",
        1,
        "Error: any valid prefix is expected rather than \"10.0.0.0/33\".",
        "PREFIX",
    ),
    (
        "route add 10.0.0.0/8 via [192.0.2]",
        1,
        "Error: any valid address is expected rather than \"192.0.2\".",
        "ADDRESS",
    ),
    (
        "route add 10.0.0.0/8 via inet6 [192.0.2.1]",
        1,
        "Error: inet6 address is expected rather than \"192.0.2.1\".",
        "ADDRESS",
    ),
    ("route add 10.0.0.0/8 via []", 255, "Command line is not complete. Try option \"help\"", "ADDRESS"),
    (
        "route add 10.0.0.0/8 [metrik] 5",
        255,
        "Error: either \"to\" is duplicate, or \"metrik\" is a garbage.",
        "metric NUMBER",
    ),
    (
        "route add 10.0.0.0/8 metric [five]",
        255,
        "Error: argument \"five\" is wrong: \"metric\" value is invalid",
        "NUMBER",
    ),
    ("route add 10.0.0.0/8 proto [bpg]", 255, "Error: argument \"bpg\" is wrong: \"protocol\" value is invalid", "bgp"),
    ("route add 10.0.0.0/8 []", 2, "RTNETLINK answers: No such device", "via ADDRESS"),
    ("route add []", 255, "Error: a destination prefix is expected.", "PREFIX"),
    (
        "route replace 10.0.0.0/8 via 192.0.2.9 src [2001:db8::x]",
        1,
        "Error: any valid address is expected rather than \"2001:db8::x\".",
        "ADDRESS",
    ),
    ("route del [10.0.0.1/8]", 2, "Error: Invalid prefix for given prefix length.", "PREFIX"),
    (
        "route change blackhole 10.0.0.0/8 [via] 192.0.2.9",
        2,
        "Error: Nexthops are not allowed for this route type.",
        "",
    ),
    (
        "route append 10.0.0.0/8 nexthop via 192.0.2.9 weight [0]",
        255,
        "Error: argument \"0\" is wrong: \"weight\" is invalid",
        "NUMBER",
    ),
    ("route get [192.0.2.256]", 1, "Error: any valid prefix is expected rather than \"192.0.2.256\".", "ADDRESS"),
    ("route get []", 1, "need at least a destination address", "ADDRESS"),
    ("route get 192.0.2.1 ipproto [tpc]", 255, "Error: argument \"tpc\" is wrong: invalid ipproto", "tcp"),
    ("route show table [mian]", 255, "Error: argument \"mian\" is wrong: table id value is invalid", "TABLE"),
    (
        "route show type [blakhole]",
        255,
        "Error: argument \"blakhole\" is wrong: node type value is invalid",
        "blackhole",
    ),
    ("route flush []", 1, "\"duet route flush\" requires arguments.", "PREFIX"),
    ("route save proto [xx]", 255, "Error: argument \"xx\" is wrong: invalid \"protocol\"", "bgp"),
    (
        "-4 route add [2001:db8::/32] dev lan0",
        1,
        "Error: inet prefix is expected rather than \"2001:db8::/32\".",
        "PREFIX",
    ),
    (
        "-n other ip -6 route add [10.0.0.0/8] dev lan0",
        1,
        "Error: inet6 prefix is expected rather than \"10.0.0.0/8\".",
        "PREFIX",
    ),
    ("ip route [frobnicate]", 255, "Command \"frobnicate\" is unknown, try \"duet route help\".", "show"),
    // neigh
    ("neigh [shwo]", 255, "Command \"shwo\" is unknown, try \"duet neigh help\".", "show"),
    ("neigh add 192.0.2.1 lladdr [02:00] dev lan0", 2, "Error: Invalid link address.", "MAC"),
    (
        "neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 []",
        255,
        "Device and destination are required arguments.",
        "dev PORT",
    ),
    (
        "neigh replace 192.0.2.1 dev lan0 nud [premanent]",
        255,
        "Error: argument \"premanent\" is wrong: nud state is bad",
        "permanent",
    ),
    ("neigh del [192.0.2]  dev lan0", 1, "Error: any valid address is expected rather than \"192.0.2\".", "NEIGHBOR"),
    (
        "neigh show dev [averyveryverylongname]",
        255,
        "Error: argument \"averyveryverylongname\" is wrong: \"dev\" not a valid ifname",
        "PORT",
    ),
    ("neigh get 192.0.2.1 []", 1, "Device and address are required arguments.", "dev PORT"),
    ("neigh flush []", 1, "Flush requires arguments.", "dev PORT"),
    // link
    ("link [shwo]", 255, "Command \"shwo\" is unknown, try \"duet link help\".", "show"),
    ("link set lan0 mtu [big]", 255, "Error: argument \"big\" is wrong: Invalid \"mtu\" value", "NUMBER"),
    ("link set lan0 [upp]", 255, "Error: either \"dev\" is duplicate, or \"upp\" is a garbage.", "up"),
    ("link set lan0 address [02:x]", 255, "Error: argument \"02:x\" is wrong: \"address\" value is invalid", "MAC"),
    ("link add blue type vrf table [x]", 255, "Error: argument \"x\" is wrong: invalid table ID", "TABLE"),
    ("link del []", 255, "Not enough information: \"dev\" argument is required.", "PORT"),
    ("link show lan0 [wan0]", 255, "Error: either \"dev\" is duplicate, or \"wan0\" is a garbage.", "up"),
    // addr
    ("addr [shwo]", 255, "Command \"shwo\" is unknown, try \"duet address help\".", "show"),
    (
        "addr add [192.0.2.1/42] dev lan0",
        1,
        "Error: any valid prefix is expected rather than \"192.0.2.1/42\".",
        "ADDRESS/LENGTH",
    ),
    ("addr add 192.0.2.1/24 []", 1, "Not enough information: \"dev\" argument is required.", "dev PORT"),
    ("addr add [224.0.0.1/24] dev lan0", 2, "RTNETLINK answers: Invalid argument", "ADDRESS/LENGTH"),
    ("addr show scope [linc]", 255, "Error: argument \"linc\" is wrong: invalid \"scope\"", "link"),
    // tunnel
    ("tunnel [shwo]", 255, "Command \"shwo\" is unknown, try \"duet tunnel help\".", "show"),
    (
        "tunnel add he mode [6in5] local 192.0.2.1 remote 192.0.2.2",
        255,
        "Error: argument \"6in5\" is wrong: unknown tunnel mode",
        "6in4",
    ),
    (
        "tunnel add he mode 6in4 local 192.0.2.1 []",
        255,
        "Not enough information: \"remote\" is required.",
        "remote ADDRESS",
    ),
    (
        "tunnel add he mode 6in4 local [192.0.2] remote 192.0.2.2",
        1,
        "Error: any valid address is expected rather than \"192.0.2\".",
        "ADDRESS",
    ),
    ("tunnel change he encap [fuo]", 255, "Error: argument \"fuo\" is wrong: Invalid encap type.", "fou"),
    (
        "tunnel add he broker [ftp://x] user u key-file k",
        255,
        "Error: argument \"ftp://x\" is wrong: invalid address of a broker",
        "URL",
    ),
    // nexthop
    ("nexthop [shwo]", 255, "Command \"shwo\" is unknown, try \"duet nexthop help\".", "show"),
    ("nexthop add id [seven]", 255, "Error: argument \"seven\" is wrong: invalid id value", "ID"),
    (
        "nexthop add id 7 group [1;2]",
        255,
        "Error: argument \"1;2\" is wrong: \"group\" value is invalid",
        "ID[,WEIGHT]",
    ),
    ("nexthop add via 192.0.2.1 []", 255, "Error: a next-hop id is expected.", "id ID"),
    (
        "nexthop add id 7 blackhole [dev] lan0",
        2,
        "Error: A next hop is one of: gateway or device, group, blackhole.",
        "",
    ),
    // rule
    ("rule [shwo]", 255, "Command \"shwo\" is unknown, try \"duet rule help\".", "show"),
    (
        "rule add from [10.0.0.0/33] lookup 100",
        1,
        "Error: any valid prefix is expected rather than \"10.0.0.0/33\".",
        "PREFIX",
    ),
    (
        "rule add from 10.0.0.0/8 [lokup] 100",
        255,
        "Error: argument \"lokup\" is wrong: Failed to parse rule type",
        "lookup TABLE",
    ),
    (
        "rule add fwmark [red] lookup 100",
        255,
        "Error: argument \"red\" is wrong: fwmark value is invalid",
        "MARK[/MASK]",
    ),
    ("rule del []", 1, "\"duet rule del\" requires arguments.", "from PREFIX"),
    // vrf, translate
    ("vrf [shwo]", 255, "Command \"shwo\" is unknown, try \"duet vrf help\".", "show"),
    ("vrf show blue [red]", 255, "Error: either \"name\" is duplicate, or \"red\" is a garbage.", "end of line"),
    ("translate [shwo]", 255, "Command \"shwo\" is unknown, try \"duet translate help\".", "show"),
    // filter
    ("filter [shwo]", 255, "Command \"shwo\" is unknown, try \"duet filter help\".", "show"),
    ("filter add wan allow [tpc] dport 22", 255, "Error: argument \"tpc\" is wrong: no rule of a filter.", "tcp"),
    ("filter replace wan allow tcp dport [x]", 255, "Error: argument \"x\" is wrong: no rule of a filter.", "PORT"),
    ("filter add wan at [zero] allow", 255, "Error: argument \"zero\" is wrong: \"at\" value is invalid", "NUMBER"),
    ("filter set dev lan0 urpf [strickt]", 255, "Error: argument \"strickt\" is wrong: invalid mode", "strict"),
    ("filter set dev lan0 limit [cpu] 5", 255, "Error: argument \"cpu\" is wrong: unknown kind", "neighbor"),
    ("filter del wan 3 [4]", 255, "Error: either \"filter\" is duplicate, or \"4\" is a garbage.", ""),
    // options, objects
    ("[-x] route", 255, "Option \"-x\" is unknown, try \"duet -help\".", "-4"),
    ("-family [ipx] route", 255, "Error: argument \"ipx\" is wrong: invalid protocol family", "inet6"),
    ("-j [frobnicate]", 1, "Object \"frobnicate\" is unknown, try \"duet help\".", ""),
    // the inspecting commands
    ("explain to [10.1.1.x]", 1, "Error: \"10.1.1.x\" is wrong here.", "an IPv4 or IPv6 address"),
    ("explain from 192.0.2.1 []", 1, "The command is not complete.", "to ADDRESS"),
    ("-j explain to 192.0.2.1 proto [udpp]", 1, "Error: \"udpp\" is wrong here.", "udp, tcp, icmp"),
    ("explain --hex [45000]", 1, "Error: these are not whole bytes.", "pairs of hexadecimal digits"),
    ("explain --watch icmp [adn] host 192.0.2.1", 1, "Error: This word does not continue the filter.", "and"),
    ("trace [sohw]", 1, "Error: \"sohw\" is wrong here.", "add"),
    ("trace add icmp [adn] host 192.0.2.2", 1, "Error: This word does not continue the filter.", "and"),
    ("trace add icmp count [0]", 1, "Error: \"0\" is wrong here.", "a number from 1"),
    ("capture icmp at [rxx]", 1, "Error: \"rxx\" is wrong here.", "rx, tx, drop, inner or outer"),
    ("capture host [192.0.2]  -c 1", 1, "", "address"),
    ("capture [--foo]", 1, "Error: \"--foo\" is wrong here.", "-w"),
    ("capture -C 10 []", 1, "Error: without a file there is nothing to rotate.", "-w FILE"),
    ("count add [routes] 10.0.0.0/8", 1, "Error: \"routes\" is wrong here.", "route or nexthop"),
    ("count add route [10.0.0.0/99]", 1, "Error: \"10.0.0.0/99\" is wrong here.", "a prefix"),
    ("flow [fluhs]", 1, "Error: \"fluhs\" is wrong here.", "show or flush"),
    ("flow show limit [0]", 1, "Error: \"0\" is wrong here.", "a number from 1 to 10000"),
    ("flow flush [all]", 1, "Error: \"all\" is wrong here.", "nothing more"),
    ("ping -t [256] 192.0.2.9", 1, "Error: \"256\" is wrong here.", "a number from 1 to 255"),
    ("ping 192.0.2.9 [nobody]", 1, "Error: \"nobody\" is wrong here.", "the address of who is to answer"),
    ("ping [2001:db8::1] 192.0.2.9", 1, "Error: source routes are for IPv4 alone.", "one address"),
    ("ping -c 3 []", 1, "The command is not complete.", "the address of who is to answer"),
    ("route diff running []", 2, "Error: two sources are compared.", "running"),
    // what clap reads
    ("drops [--al]", 1, "error: unexpected argument '--al' found", "--all"),
    ("stats [routes]", 1, "error: invalid value 'routes' for '[OF]'", "route, nexthop"),
    (
        "stats --watch [soon]",
        1,
        "error: invalid value 'soon' for '--watch [<SECONDS>]': invalid float literal",
        "SECONDS",
    ),
    ("monitor [rout]", 1, "error: invalid value 'rout' for '[OBJECT]...'", "route, nexthop"),
    ("top --delay [x]", 1, "", "SECONDS"),
    ("doctor [--foo]", 1, "error: unexpected argument '--foo' found", "FILE"),
    ("graph -f [pdf]", 1, "error: invalid value 'pdf' for '--format <FORMAT>'", "text, dot, svg"),
    ("-j graph -f [pdf]", 1, "error: invalid value 'pdf' for '--format <FORMAT>'", "text, dot, svg"),
    ("reload [now]", 1, "error: unexpected argument 'now' found", "end of line"),
    ("version [now]", 1, "error: unexpected argument 'now' found", "end of line"),
    ("check []", 1, "error: the following required arguments were not provided:", "FILE"),
    ("run []", 1, "error: the following required arguments were not provided:", "FILE"),
    ("shell [--frob]", 1, "error: unexpected argument '--frob' found", "FILE"),
    ("completion [tcsh]", 1, "error: invalid value 'tcsh' for '<SHELL>'", "bash"),
    ("demo [now]", 1, "error: unexpected argument 'now' found", ""),
    ("bench lookup --pattern [rnd]", 1, "error: invalid value 'rnd' for '--pattern <NAME>'", "uniform"),
    ("broker [frob]", 1, "error: unrecognized subcommand 'frob'", "account"),
];

#[test]
fn a_caret_under_the_wrong_word_and_what_was_expected() {
    let mut wrong = Vec::new();
    for (case, code, first, expected) in CASES {
        let plain: Vec<&str> = case.split_whitespace().map(|w| w.trim_matches(|c| c == '[' || c == ']')).collect();
        let words: Vec<&str> = plain.iter().copied().filter(|w| !w.is_empty()).collect();
        let (got, text) = run(&words);
        let at = case.split_whitespace().position(|w| w.starts_with('[')).unwrap();
        let before: usize = "  duet".len() + plain[..at].iter().map(|w| w.len() + 1).sum::<usize>() + 1;
        let caret = format!("{}{}", " ".repeat(before), "^".repeat(plain[at].len().max(1)));
        let lines: Vec<&str> = text.lines().collect();
        let said = lines.first().is_some_and(|l| first.is_empty() || l == first);
        let shown = lines.get(1) == Some(&format!("  duet {}", words.join(" ")).as_str());
        let marked = lines.get(2).is_some_and(|l| l.strip_prefix(&caret).is_some_and(|rest| !rest.starts_with('^')));
        let behind = lines.get(2).and_then(|l| l.split_once(" expected ")).map(|(_, e)| e);
        let below = lines.iter().find_map(|l| l.strip_prefix("Expected here: "));
        let expects = expected.is_empty() || behind.or(below).is_some_and(|e| e.contains(expected));
        if got != *code || !said || !shown || !marked || !expects {
            wrong.push(format!("{case}: [{got}] said {said} shown {shown} marked {marked} expects {expects}\n{text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every command of the program has a case above.
#[test]
fn no_command_is_left_out() {
    let help = Command::new(DUET).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let names: Vec<&str> = commands
        .filter_map(|l| l.strip_prefix("  ").filter(|l| !l.starts_with(' '))?.split_whitespace().next())
        .collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names.into_iter().filter(|n| *n != "man") {
        let words = |case: &str| case.split_whitespace().any(|w| w == name);
        assert!(CASES.iter().any(|(case, ..)| words(case)), "{name} has no case");
    }
}

#[test]
fn lines_of_a_batch_have_the_same_with_their_number() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "\n# nothing\n  route add 10.0.0.0/33  dev lan0\n").unwrap();
    let path = file.path().to_str().unwrap();
    let (code, text) = run(&["-batch", path]);
    assert_eq!(code, 1);
    assert!(
        text.starts_with(
            "Error: any valid prefix is expected rather than \"10.0.0.0/33\".\n    route add 10.0.0.0/33  dev lan0\n              ^^^^^^^^^^^\n"
        ),
        "{text}"
    );
    assert!(
        text.contains("\nExpected here: PREFIX, ") && text.ends_with(&format!("Command failed {path}:3\n")),
        "{text}"
    );
}

#[test]
fn a_word_of_several_is_shown_as_it_was_typed() {
    let (_, text) = run(&["capture", "icmp adn host 192.0.2.1", "-c", "1"]);
    let want = "  duet capture 'icmp adn host 192.0.2.1' -c 1\n                     ^^^ expected and, or, or the end\n";
    assert!(text.contains(want), "{text}");
}
