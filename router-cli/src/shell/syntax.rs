//! What may be typed where: one tree of commands, keywords and kinds of values. Completion, `?`, abbreviations and "expected
//! here" all read it; what the words mean is the business of the grammar.
//!
//! The tree of iproute2's objects and of other routers' `show` commands is written down here. The program's own commands
//! come from their clap definitions, so that a new one is in the shell the moment it is in the program.

use clap::builder::ValueHint;

/// Kinds of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A port or tunnel.
    Port,
    /// A tunnel.
    Tunnel,
    /// A destination: prefix, `default`, or a type with a prefix behind it.
    Destination,
    /// A prefix that has routes.
    Prefix,
    /// An address.
    Address,
    /// A gateway: `inet` or `inet6` may stand before it.
    Via,
    /// A neighbour's address.
    Neighbor,
    /// An address with its length.
    OwnAddress,
    /// A routing table.
    Table,
    /// A number of a next-hop object.
    NextHop,
    /// A link-layer address.
    Mac,
    /// A number.
    Number,
    /// One of these words.
    OneOf(Vec<String>),
    /// A file of the host.
    File,
    /// Anything; what is shown for it.
    Text(String),
}

impl Value {
    /// What stands for it in help.
    pub fn placeholder(&self) -> &str {
        match self {
            Value::Port => "PORT",
            Value::Tunnel => "TUNNEL",
            Value::Destination | Value::Prefix => "PREFIX",
            Value::Address | Value::Via => "ADDRESS",
            Value::Neighbor => "NEIGHBOR",
            Value::OwnAddress => "ADDRESS/LENGTH",
            Value::Table => "TABLE",
            Value::NextHop => "ID",
            Value::Mac => "MAC",
            Value::Number => "NUMBER",
            Value::OneOf(_) => "WORD",
            Value::File => "FILE",
            Value::Text(name) => name,
        }
    }

    /// One line about it.
    pub fn help(&self) -> &str {
        match self {
            Value::Port => "a port or tunnel of this router",
            Value::Tunnel => "a tunnel of this router",
            Value::Destination => "such as 203.0.113.0/24, 2001:db8::/32 or default",
            Value::Prefix => "such as 203.0.113.0/24 or 2001:db8::/32",
            Value::Address => "such as 192.0.2.1 or 2001:db8::1",
            Value::Via => "a gateway of either family, such as 192.0.2.1 or 2001:db8::1",
            Value::Neighbor => "a neighbour's address, such as 192.0.2.1",
            Value::OwnAddress => "an address with its length, such as 192.0.2.1/24",
            Value::Table => "main, local, default or a number",
            Value::NextHop => "the number of a next-hop object",
            Value::Mac => "such as 02:00:00:00:00:01",
            Value::Number => "a number",
            Value::OneOf(_) => "one of these words",
            Value::File => "a file",
            Value::Text(_) => "",
        }
    }
}

/// A keyword behind a command.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub word: String,
    pub help: String,
    /// The value that follows it.
    pub value: Option<Value>,
    /// It may be said more than once.
    pub many: bool,
}

/// A command, or a word on the way to one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub word: String,
    /// Other names of the same thing, understood but not offered.
    pub aliases: Vec<String>,
    pub help: String,
    /// Values without a keyword, in order.
    pub args: Vec<Value>,
    /// Any further values are of the last kind of `args`.
    pub args_repeat: bool,
    pub keys: Vec<Key>,
    pub sub: Vec<Node>,
    /// The line may end here although `sub` goes on.
    pub complete: bool,
}

impl Node {
    fn new(word: &str, help: &str) -> Self {
        Node { word: word.into(), help: help.into(), ..Node::default() }
    }

    fn alias(mut self, names: &[&str]) -> Self {
        self.aliases.extend(names.iter().map(|n| (*n).to_owned()));
        self
    }

    fn arg(mut self, value: Value) -> Self {
        self.args.push(value);
        self
    }

    fn keys(mut self, keys: &[Key]) -> Self {
        self.keys.extend_from_slice(keys);
        self
    }

    fn sub(mut self, nodes: Vec<Node>) -> Self {
        self.sub = nodes;
        self
    }

    /// Also a command by itself.
    fn complete(mut self) -> Self {
        self.complete = true;
        self
    }

    /// Whether `word` is its name or another name of it.
    pub fn is(&self, word: &str) -> bool {
        self.word == word || self.aliases.iter().any(|a| a == word)
    }

    /// Whether `word` begins its name or another name of it.
    pub fn begins(&self, word: &str) -> bool {
        self.word.starts_with(word) || self.aliases.iter().any(|a| a.starts_with(word))
    }
}

fn key(word: &str, value: Value, help: &str) -> Key {
    Key { word: word.into(), help: help.into(), value: Some(value), many: false }
}

fn flag(word: &str, help: &str) -> Key {
    Key { word: word.into(), help: help.into(), value: None, many: false }
}

fn many(k: Key) -> Key {
    Key { many: true, ..k }
}

fn words(list: &[&str]) -> Value {
    Value::OneOf(list.iter().map(|w| (*w).to_owned()).collect())
}

const PROTOS: &[&str] =
    &["kernel", "boot", "static", "ra", "zebra", "bird", "dhcp", "babel", "bgp", "isis", "ospf", "rip"];
const KINDS: &[&str] = &["unicast", "local", "broadcast", "blackhole", "unreachable", "prohibit", "throw"];
const SCOPES: &[&str] = &["global", "link", "host"];
const NUD: &[&str] = &["permanent", "reachable", "noarp", "stale", "delay", "probe", "failed", "incomplete"];

/// iproute2's objects.
pub(crate) fn objects() -> Vec<Node> {
    vec![route(), neigh(), link(), addr(), tunnel(), translate(), filter(), nexthop(), rule(), vrf()]
}

fn route() -> Node {
    let select = [
        key("root", Value::Prefix, "this prefix and all within it"),
        key("match", Value::Prefix, "this prefix and all that cover it"),
        key("exact", Value::Prefix, "this prefix alone"),
        key("table", Value::Table, "another table than main, or all"),
        key("proto", words(PROTOS), "where the route comes from"),
        key("type", words(KINDS), "what the route does"),
        key("scope", words(SCOPES), "how far the destination is"),
        key("dev", Value::Port, "leaving by this port"),
        key("via", Value::Via, "over this gateway"),
        key("src", Value::Address, "with this preferred source"),
        key("metric", Value::Number, "with this metric"),
    ];
    let spec = [
        key("via", Value::Via, "the gateway, of either family"),
        key("dev", Value::Port, "the port or tunnel to leave by"),
        key("metric", Value::Number, "the lowest metric wins"),
        key("table", Value::Table, "another table than main"),
        key("proto", words(PROTOS), "where the route comes from"),
        key("src", Value::Address, "source of the router's own packets"),
        key("mtu", Value::Number, "largest packet in bytes"),
        key("advmss", Value::Number, "largest segment that TCP SYNs of this route may tell, in bytes"),
        key("nhid", Value::NextHop, "a next-hop object instead of via and dev"),
        many(flag("nexthop", "one of several next hops: via, dev, weight follow")),
        many(key("weight", Value::Number, "share of flows, 1 to 256")),
        flag("onlink", "take the gateway as reachable on the port"),
        key("forwarder", Value::Text("NAME".into()), "a plugged-in forwarder"),
    ];
    let mut spec = spec.to_vec();
    // Behind "nexthop" they come again.
    spec.iter_mut().filter(|k| ["via", "dev", "onlink"].contains(&k.word.as_str())).for_each(|k| k.many = true);
    let change = |word: &str, help: &str| Node::new(word, help).arg(Value::Destination).keys(&spec);
    Node::new("route", "Routes").complete().sub(vec![
        Node::new("show", "List routes").alias(&["list", "lst"]).arg(Value::Prefix).keys(&select),
        Node::new("get", "Which route a packet to an address takes").arg(Value::Address).keys(&[
            key("from", Value::Address, "its source address"),
            key("iif", Value::Port, "the port it comes in by"),
            key("oif", Value::Port, "the port it must leave by"),
            flag("fibmatch", "show the matching route itself"),
        ]),
        change("add", "New route"),
        change("del", "Remove a route").alias(&["delete"]),
        change("replace", "Set a route, whether there or not"),
        change("change", "Set a route that is there").alias(&["chg"]),
        change("append", "Another route beside those to the same prefix"),
        change("prepend", "The same, in front"),
        Node::new("flush", "Remove all routes that fit").arg(Value::Prefix).keys(&select),
        Node::new("save", "Print routes as lines that \"route restore\" reads").arg(Value::Prefix).keys(&select),
        Node::new("diff", "Compare the routes of two sources")
            .arg(Value::Text("SOURCE".into()))
            .arg(Value::Text("SOURCE".into())),
        Node::new("help", "Usage in iproute2's form"),
    ])
}

fn neigh() -> Node {
    let select = [
        key("to", Value::Prefix, "within this prefix"),
        key("dev", Value::Port, "on this port"),
        many(key("nud", words(NUD), "in this state")),
    ];
    let spec = [
        key("lladdr", Value::Mac, "its link-layer address"),
        key("dev", Value::Port, "the port it is on"),
        key("nud", words(NUD), "its state"),
        flag("router", "it is a router"),
    ];
    let change = |word: &str, help: &str| Node::new(word, help).arg(Value::Neighbor).keys(&spec);
    Node::new("neigh", "Neighbours (ARP and NDP)").alias(&["neighbor", "neighbour"]).complete().sub(vec![
        Node::new("show", "List neighbours").alias(&["list", "lst"]).arg(Value::Prefix).keys(&select),
        Node::new("get", "One neighbour").arg(Value::Neighbor).keys(&[key("dev", Value::Port, "on this port")]),
        change("add", "New neighbour"),
        change("del", "Remove a neighbour").alias(&["delete"]),
        change("replace", "Set a neighbour, whether there or not"),
        change("change", "Set a neighbour that is there").alias(&["chg"]),
        Node::new("flush", "Forget all neighbours that fit").keys(&select).keys(&[flag("all", "all of them")]),
        Node::new("help", "Usage in iproute2's form"),
    ])
}

fn link() -> Node {
    let kinds = [
        "tun",
        "tap",
        "packet",
        "datalink",
        "xdp",
        "rawip",
        "udp",
        "memory",
        "pcap",
        "tunnel",
        "translator",
        "loopback",
    ];
    Node::new("link", "Ports and tunnels").complete().sub(vec![
        Node::new("show", "List ports and tunnels")
            .alias(&["list", "lst"])
            .arg(Value::Port)
            .keys(&[flag("up", "only those that are up"), key("type", words(&kinds), "only of this kind")]),
        Node::new("set", "Change a port").arg(Value::Port).keys(&[
            flag("up", "take it into service"),
            flag("down", "take it out of service"),
            key("mtu", Value::Number, "largest packet in bytes"),
        ]),
        Node::new("help", "Usage in iproute2's form"),
    ])
}

fn addr() -> Node {
    let on = [key("dev", Value::Port, "the port")];
    let select = [
        key("dev", Value::Port, "of this port"),
        key("to", Value::Prefix, "within this prefix"),
        key("scope", words(SCOPES), "of this scope"),
        flag("up", "only of ports that are up"),
    ];
    Node::new("addr", "Addresses of ports").alias(&["address"]).complete().sub(vec![
        Node::new("show", "List addresses").alias(&["list", "lst"]).arg(Value::Port).keys(&select),
        Node::new("add", "New address").arg(Value::OwnAddress).keys(&on),
        Node::new("del", "Remove an address").alias(&["delete"]).arg(Value::OwnAddress).keys(&on),
        Node::new("replace", "Set an address, whether there or not").arg(Value::OwnAddress).keys(&on),
        Node::new("change", "Set an address that is there").alias(&["chg"]).arg(Value::OwnAddress).keys(&on),
        Node::new("flush", "Remove all addresses that fit").keys(&select),
        Node::new("help", "Usage in iproute2's form"),
    ])
}

fn tunnel() -> Node {
    let spec = [
        key(
            "mode",
            words(&[
                "6in4", "4in6", "6in6", "any-in-6", "4in4", "any-in-4", "gre", "gre6", "6rd", "6to4", "sit", "ipip",
                "ipip6", "ip6ip6", "ip6gre", "any",
            ]),
            "what is carried in what",
        ),
        key("local", Value::Address, "the outer source address"),
        key("remote", Value::Address, "the outer destination address"),
        key("ttl", Value::Text("1..255|inherit".into()), "the outer TTL"),
        key("tos", Value::Text("inherit|00..fe".into()), "the outer traffic class"),
        flag("pmtudisc", "the outer packet is never fragmented on its way"),
        flag("nopmtudisc", "the outer packet may be fragmented"),
        key("dev", Value::Port, "the port that carries it"),
        key("broker", Value::Text("URL".into()), "get it from this tunnel broker"),
        key("user", Value::Text("NAME".into()), "the account there"),
        key("key-file", Value::Text("FILE".into()), "the file with its password"),
        key("prefix", words(&["48", "64", "none"]), "the prefix to ask for"),
        key("lan", Value::Port, "the port that gets the first /64"),
        flag("nodefault", "no default route through it"),
        key("mtu", Value::Text("68..65515".into()), "the inner MTU"),
        key("local-dev", Value::Port, "the port or device whose address is the outer source"),
        key("encaplimit", Value::Text("0..255|none".into()), "how many tunnels may be added around it"),
        key("flowlabel", words(&["auto", "inherit"]), "the outer flow label"),
        key("key", Value::Text("0..4294967295".into()), "GRE key of both directions"),
        flag("seq", "GRE sequence numbers in both directions"),
        flag("csum", "GRE checksums in both directions"),
        key("encap", words(&["fou", "gue", "none"]), "the same packets in UDP"),
        key("encap-dport", Value::Text("1..65535".into()), "the peer's UDP port"),
        key("encap-sport", Value::Text("1..65535|auto".into()), "the UDP source port"),
        key("allowed", Value::Prefix, "an inner source prefix that may come out"),
        key("rate", Value::Text("1..4294967295".into()), "packets per second from the peer"),
        key("keepalive", Value::Address, "an address behind it that is asked whether it lives"),
    ];
    let change = |word: &str, help: &str| Node::new(word, help).arg(Value::Tunnel).keys(&spec);
    Node::new("tunnel", "Tunnels").alias(&["tunl"]).complete().sub(vec![
        Node::new("show", "List tunnels").alias(&["list", "lst"]).arg(Value::Tunnel),
        change("add", "New tunnel"),
        change("change", "Change a tunnel; what is not said stays").alias(&["chg"]),
        Node::new("check", "Test a tunnel end to end").arg(Value::Tunnel).arg(Value::Address),
        Node::new("del", "Remove a tunnel with its addresses and routes").alias(&["delete"]).arg(Value::Tunnel),
        Node::new("help", "Usage in iproute2's form"),
    ])
}

fn translate() -> Node {
    let sessions = key("sessions", Value::Text("COUNT".into()), "list so many sessions of NAT64");
    Node::new("translate", "Translators between IPv4 and IPv6").complete().sub(vec![
        Node::new("show", "List translators").alias(&["list", "lst"]).arg(Value::Port).keys(&[sessions]),
        Node::new("help", "Usage in iproute2's form"),
    ])
}

fn filter() -> Node {
    let set = [
        key("in", Value::Text("FILTER".into()), "the filter for what comes in, or none"),
        key("out", Value::Text("FILTER".into()), "the filter for what goes out, or none"),
        key("urpf", words(&["strict", "feasible", "loose", "none"]), "check where sources come from"),
        flag("allow-default", "let the default route count for that check"),
        key("mss", Value::Text("to-pmtu, off or a size".into()), "clamp TCP's segment size"),
        key("limit", words(&["neighbor", "icmp", "other", "default"]), "limit what reaches the control thread"),
        key("dev", Value::Port, "the port or tunnel"),
    ];
    let name = || Value::Text("NAME".into());
    let rule = [
        flag("allow", "let the packets through"),
        flag("deny", "drop them"),
        flag("reject", "drop them and tell the sender"),
        flag("tcp", "of TCP"),
        flag("udp", "of UDP"),
        flag("icmp", "of ICMP for IPv4"),
        flag("icmpv6", "of ICMP for IPv6"),
        key("proto", Value::Number, "of this protocol"),
        key("from", Value::Prefix, "with a source in it"),
        key("to", Value::Prefix, "with a destination in it"),
        key("sport", Value::Text("PORT[-PORT]".into()), "from these ports"),
        key("dport", Value::Text("PORT[-PORT]".into()), "to these ports"),
        key("type", Value::Text("TYPE".into()), "of this ICMP type"),
        key("code", Value::Number, "of this ICMP code"),
        flag("established", "not the first segment of a TCP connection"),
        key("dscp", Value::Text("DSCP".into()), "with this code point"),
        flag("fragment", "fragments"),
    ]
    .map(many);
    Node::new("filter", "Packet filters, and what ports ask of their packets").complete().sub(vec![
        Node::new("show", "List filters; -s with counters").alias(&["list", "lst"]).arg(name()).keys(&[key(
            "dev",
            Value::Port,
            "those of this port",
        )]),
        Node::new("add", "Add rules, behind the last or at a place").arg(name()).keys(&rule),
        Node::new("replace", "Give a filter these rules, all at once").arg(name()).keys(&rule),
        Node::new("del", "Remove a rule or a filter").alias(&["delete"]).arg(name()).keys(&rule),
        Node::new("set", "Change what a port asks of its packets").keys(&set),
        Node::new("help", "Usage in iproute2's form"),
    ])
}

fn nexthop() -> Node {
    let spec = [
        key("id", Value::NextHop, "its number"),
        key("via", Value::Via, "the gateway"),
        key("dev", Value::Port, "the port"),
        flag("onlink", "take the gateway as reachable on the port"),
        flag("blackhole", "drop silently"),
        key("group", Value::Text("ID[,WEIGHT]/...".into()), "several next hops"),
        key("type", words(&["mpath", "resilient"]), "how a group shares flows"),
        key("buckets", Value::Number, "of a resilient group: into how many parts flows fall"),
        key("idle_timer", Value::Number, "of a resilient group: seconds until a bucket without packets may move"),
        key(
            "unbalanced_timer",
            Value::Number,
            "of a resilient group: seconds until buckets in use move, too; 0: never",
        ),
        key("proto", words(PROTOS), "where it comes from"),
    ];
    let select = [
        key("id", Value::NextHop, "this one"),
        key("dev", Value::Port, "leaving by this port"),
        flag("groups", "groups alone"),
        key("proto", words(PROTOS), "where it comes from"),
    ];
    let one = [key("id", Value::NextHop, "its number")];
    Node::new("nexthop", "Next-hop objects and groups").complete().sub(vec![
        Node::new("show", "List next hops").alias(&["list", "lst"]).keys(&select),
        Node::new("get", "One next hop").keys(&one),
        Node::new("add", "New next hop").keys(&spec),
        Node::new("replace", "Set a next hop, whether there or not").keys(&spec),
        Node::new("del", "Remove a next hop and the routes that use it").alias(&["delete"]).keys(&one),
        Node::new("flush", "Remove all next hops that fit").keys(&select),
        Node::new("bucket", "Buckets of resilient groups").complete().sub(vec![
            Node::new("show", "List buckets").alias(&["list", "lst"]).keys(&[
                key("id", Value::NextHop, "of this group"),
                key("nhid", Value::NextHop, "of this member"),
                key("dev", Value::Port, "of members that leave by this port"),
            ]),
            Node::new("get", "One bucket")
                .keys(&[key("id", Value::NextHop, "the group"), key("index", Value::Number, "its place")]),
        ]),
        Node::new("help", "Usage in iproute2's form"),
    ])
}

fn vrf() -> Node {
    Node::new("vrf", "VRFs").complete().sub(vec![
        Node::new("show", "List VRFs").alias(&["list", "lst"]).arg(Value::Port),
        Node::new("help", "Usage in iproute2's form"),
    ])
}

fn rule() -> Node {
    let spec = [
        flag("not", "what the rest does not select"),
        key("from", Value::Prefix, "source"),
        key("to", Value::Prefix, "destination"),
        key("iif", Value::Port, "came in there; a VRF stands for its ports, lo for own packets"),
        key("fwmark", Value::Text("MARK[/MASK]".into()), "marked so"),
        key("dscp", Value::Text("0..63|EF|AF41|CS6".into()), "code point"),
        key("ipproto", words(&["tcp", "udp", "icmp", "ipv6-icmp", "sctp"]), "upper-layer protocol"),
        key("sport", Value::Text("N[-N]".into()), "source port"),
        key("dport", Value::Text("N[-N]".into()), "destination port"),
        key("priority", Value::Text("0..4294967295".into()), "when it is tried"),
        key("lookup", Value::Table, "look up in this table"),
        key("suppress_prefixlength", Value::Text("0..128".into()), "matches no longer count as none"),
        key("goto", Value::Text("PRIORITY".into()), "go on with that rule"),
        flag("l3mdev", "look packets of VRFs up in their tables"),
        flag("blackhole", "drop silently"),
        flag("prohibit", "refuse as prohibited"),
        flag("unreachable", "refuse as unreachable"),
    ];
    Node::new("rule", "Policy rules").complete().sub(vec![
        Node::new("show", "List rules").alias(&["list", "lst"]).keys(&spec),
        Node::new("add", "New rule").keys(&spec),
        Node::new("del", "Remove the first rule that fits").alias(&["delete"]).keys(&spec),
        Node::new("flush", "Remove all rules but those of priority 0"),
        Node::new("help", "Usage in iproute2's form"),
    ])
}

/// What users of FRR (and most others), BIRD and the BSDs type to look at routes.
pub(crate) fn show() -> Node {
    let table = || vec![Node::new("summary", "How many routes there are, by origin")];
    let family = |word: &str, help: &str| {
        Node::new(word, help).sub(vec![
            Node::new("route", "Routes, in FRR's layout").complete().arg(Value::Prefix).sub(table()),
            Node::new("fib", "Routes that the data plane uses, in FRR's layout")
                .complete()
                .arg(Value::Prefix)
                .sub(table()),
        ])
    };
    Node::new("show", "Routes in the layout of FRR (ip, ipv6) or BIRD (route)").sub(vec![
        family("ip", "IPv4"),
        family("ipv6", "IPv6"),
        Node::new("route", "Routes, in BIRD's layout").complete().keys(&[
            key("for", Value::Address, "the route that a packet to this address takes"),
            key("table", Value::Table, "another table than main"),
            flag("all", "with their attributes"),
            flag("count", "only their number"),
        ]),
    ])
}

/// Filters behind `|`.
pub(crate) fn filters() -> Vec<Node> {
    let text = || Value::Text("TEXT".into());
    vec![
        Node::new("match", "Only entries with this text in them").alias(&["include", "grep"]).arg(text()),
        Node::new("except", "Only entries without this text in them").alias(&["exclude"]).arg(text()),
        Node::new("begin", "From the first entry with this text on").arg(text()),
        Node::new("count", "Only the number of entries"),
        Node::new("head", "Only the first entries").arg(Value::Number),
        Node::new("json", "As JSON"),
        Node::new("no-more", "Without stopping at each screenful"),
    ]
}

/// The shell's own words.
pub(crate) fn builtins() -> Vec<Node> {
    vec![
        Node::new("help", "What can be typed").alias(&["?"]),
        Node::new("history", "The lines typed so far"),
        Node::new("connect", "Talk to another router, or to this one again").arg(Value::Text("[NAME|SOCKET]".into())),
        Node::new("exit", "Leave the shell").alias(&["quit", "logout"]),
    ]
}

/// Commands of the program that make no sense inside the shell.
const NOT_HERE: &[&str] = &["run", "shell", "demo", "completion", super::external::ASK, "man", "help", "ip"];

/// The program's own commands, from their definitions; iproute2's objects and what makes no sense here left out.
pub(crate) fn own(program: &clap::Command) -> Vec<Node> {
    let known = objects();
    program
        .get_subcommands()
        .filter(|c| !NOT_HERE.contains(&c.get_name()) && !known.iter().any(|n| n.word == c.get_name()))
        .map(from_clap)
        .collect()
}

fn from_clap(command: &clap::Command) -> Node {
    let text = |s: Option<&clap::builder::StyledStr>| {
        s.map(|s| s.to_string().lines().next().unwrap_or_default().to_owned()).unwrap_or_default()
    };
    let mut node = Node::new(command.get_name(), &text(command.get_about()));
    node.aliases = command.get_all_aliases().map(str::to_owned).collect();
    node.sub = command.get_subcommands().filter(|c| c.get_name() != "help").map(from_clap).collect();
    node.complete = !command.is_subcommand_required_set();
    for arg in command.get_arguments().filter(|a| !a.is_hide_set()) {
        // The shell is connected already.
        if ["socket", "name", "help", "version", "pretty"].contains(&arg.get_id().as_str()) {
            continue;
        }
        let values: Vec<String> = arg.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
        let takes = arg.get_action().takes_values();
        let name = arg
            .get_value_names()
            .and_then(|n| n.first())
            .map_or_else(|| arg.get_id().to_string().to_uppercase(), |n| n.to_string());
        let value = takes.then(|| value_of(&name, values, arg.get_value_hint()));
        if arg.is_positional() {
            node.args_repeat |= arg.is_trailing_var_arg_set() || matches!(arg.get_action(), clap::ArgAction::Append);
            node.args.extend(value);
            continue;
        }
        let word = match (arg.get_long(), arg.get_short()) {
            (Some(long), _) => format!("--{long}"),
            (None, Some(short)) => format!("-{short}"),
            (None, None) => continue,
        };
        node.keys.push(Key { word, help: text(arg.get_help()), value, many: false });
    }
    if node.word == "trace" {
        node.sub = vec![
            Node::new("add", "Follow packets that fit a filter").arg(Value::Text("FILTER".into())).keys(&[key(
                "count",
                Value::Number,
                "packets until it ends",
            )]),
            Node::new("show", "The packets followed so far, step by step"),
            Node::new("paths", "The ways they took, with their number"),
            Node::new("clear", "Forget them and follow no more"),
        ];
        node.sub[0].args_repeat = true;
        node.args.clear();
    }
    if node.word == "count" {
        let what = || {
            vec![
                Node::new("route", "Packets for which this prefix wins").arg(Value::Prefix).keys(&[key(
                    "table",
                    Value::Table,
                    "another table than main",
                )]),
                Node::new("nexthop", "Packets that routes send to a gateway").arg(Value::Neighbor).keys(&[
                    key("dev", Value::Port, "the port it is on"),
                    key("id", Value::NextHop, "that of a next-hop object, or each of its group"),
                ]),
            ]
        };
        node.sub = vec![
            Node::new("add", "Count from now on").sub(what()),
            Node::new("del", "Count no more").alias(&["delete"]).sub(what()),
            Node::new("show", "What was counted").keys(&[flag("--watch", "again and again, with rates")]),
            Node::new("clear", "Count nothing any more"),
        ];
        node.args.clear();
    }
    if let Some(more) = words_of(&node.word) {
        node.keys.extend(more);
        node.args.clear();
        node.args_repeat = true;
    }
    node
}

/// What a value of clap's is, by the name that its help gives it.
fn value_of(name: &str, values: Vec<String>, hint: ValueHint) -> Value {
    if !values.is_empty() {
        return Value::OneOf(values);
    }
    match name {
        "PORT" => Value::Port,
        "TUNNEL" => Value::Tunnel,
        "ADDRESS" => Value::Address,
        "PREFIX" => Value::Prefix,
        "TABLE" => Value::Table,
        "FILE" | "PATH" => Value::File,
        _ if matches!(hint, ValueHint::FilePath | ValueHint::AnyPath) => Value::File,
        other => Value::Text(other.to_owned()),
    }
}

/// Keywords of commands whose words are a language of their own.
fn words_of(command: &str) -> Option<Vec<Key>> {
    match command {
        "explain" => Some(vec![
            key("from", Value::Address, "the packet's source address"),
            key("to", Value::Address, "its destination address"),
            key("iif", Value::Port, "the port it comes in by"),
            key("proto", words(&["udp", "tcp", "icmp"]), "its protocol"),
            key("sport", Value::Number, "its source port"),
            key("dport", Value::Number, "its destination port"),
            key("ttl", Value::Number, "its TTL or hop limit"),
            key("len", Value::Number, "its length in bytes"),
            flag("df", "it must not be fragmented"),
            key("mark", Value::Number, "its mark"),
        ]),
        "capture" => Some(vec![
            key("at", words(&["rx", "tx", "drop", "inner", "outer"]), "where packets are taken"),
            key("-w", Value::File, "write pcapng to this file; - is standard output"),
            key("-c", Value::Number, "packets until it ends"),
        ]),
        _ => None,
    }
}
