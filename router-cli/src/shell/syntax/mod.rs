//! What may be typed where: one tree of commands, keywords and kinds of values. Completion, `?`, abbreviations and "expected
//! here" all read it; what the words mean is the business of the grammar.
//!
//! The tree of iproute2's objects and of other routers' `show` commands is written down here. The program's own commands
//! come from their clap definitions, so that a new one is in the shell the moment it is in the program.

mod objects;

use clap::builder::ValueHint;
pub(crate) use objects::objects;

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

/// All of the program's own commands, those too that make no sense inside the shell.
pub(crate) fn all_own(program: &clap::Command) -> Vec<Node> {
    let known = objects();
    program.get_subcommands().filter(|c| !known.iter().any(|n| n.word == c.get_name())).map(from_clap).collect()
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
    if node.word == "flow" {
        let limit = || key("limit", Value::Number, "at most so many");
        node.sub = vec![
            Node::new("show", "Those with the most bytes first").keys(&[limit()]),
            Node::new("flush", "Forget them; those with packets are learned again"),
        ];
        node.args.clear();
    }
    if let Some(more) = words_of(&node.word) {
        node.keys.extend(more);
        node.args.clear();
        if node.word == "ping" {
            node.args.push(Value::Address);
        }
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
        "ping" => Some(vec![
            key("-c", Value::Number, "how many requests; 5"),
            key("-i", Value::Text("SECONDS".into()), "time between two; 1"),
            key("-s", Value::Number, "bytes of data; 56"),
            key("-t", Value::Number, "TTL or hop limit"),
            key("-Q", Value::Number, "type of service or traffic class"),
            key("-I", Value::Port, "the link or VRF, or one of the router's addresses"),
            key("-M", words(&["do", "dont"]), "set DF, or leave it clear"),
            key("-W", Value::Text("SECONDS".into()), "how long an answer may take; 1"),
            flag("-R", "have routers record their addresses"),
            flag("strict", "the routers named, and no others between them"),
        ]),
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
            key("tos", Value::Number, "its TOS or traffic class"),
            key("gso", Value::Number, "a super-frame of segments of so many bytes"),
            key("mark", Value::Number, "its mark"),
            flag("--all", "every fragment or segment, and the answers in full"),
            key("--pcap", Value::File, "a packet of this capture file; its number follows"),
            key("--hex", Value::Text("BYTES".into()), "an Ethernet frame or IP packet in hexadecimal"),
            key("--watch", Value::Text("FILTER".into()), "live packets as they come in, in tcpdump's words"),
            key("-c", Value::File, "ask a configuration instead of the running router"),
        ]),
        "capture" => Some(vec![
            key("at", words(&["rx", "tx", "drop", "inner", "outer"]), "where packets are taken"),
            key("-w", Value::File, "write pcapng to this file; - is standard output"),
            key("-c", Value::Number, "packets until it ends"),
            key("-s", Value::Number, "bytes of each packet"),
            key("-C", Value::Text("SIZE".into()), "the next file after so many million bytes"),
            key("-W", Value::Number, "so many files, then the first again"),
            key("-B", Value::Number, "packets that may wait in the router"),
            key("on", Value::Port, "by this port alone"),
            flag("inbound", "what comes in"),
            flag("outbound", "what goes out"),
            key("host", Value::Neighbor, "from or to this address"),
            key("net", Value::Prefix, "from or to this prefix"),
            key("port", Value::Number, "from or to this port"),
        ]),
        _ => None,
    }
}
