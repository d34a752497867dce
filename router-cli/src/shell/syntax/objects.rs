//! The tree of iproute2's objects.

use super::{Node, Value, flag, key, many, words};

const PROTOS: &[&str] =
    &["kernel", "boot", "static", "ra", "zebra", "bird", "dhcp", "babel", "bgp", "isis", "ospf", "rip"];
const KINDS: &[&str] = &["unicast", "local", "broadcast", "blackhole", "unreachable", "prohibit", "throw"];
const SCOPES: &[&str] = &["global", "link", "host"];
const NUD: &[&str] = &["permanent", "reachable", "noarp", "stale", "delay", "probe", "failed", "incomplete"];

/// iproute2's objects.
pub(crate) fn objects() -> Vec<Node> {
    vec![route(), neigh(), link(), addr(), tunnel(), translate(), filter(), nexthop(), rule(), vrf()]
}

const IP_PROTOS: &[&str] = &["tcp", "udp", "icmp", "ipv6-icmp", "sctp"];

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
        key("vrf", Value::Port, "of this VRF"),
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
        key("from", Value::Prefix, "for packets with these sources alone"),
        key("vrf", Value::Port, "in the table of this VRF"),
        key("nexthop-vrf", Value::Port, "the next hop is found in this VRF"),
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
            key("vrf", Value::Port, "asked within this VRF"),
            key("mark", Value::Number, "its mark"),
            key("tos", Value::Number, "its TOS or traffic class"),
            key("ipproto", words(IP_PROTOS), "its protocol"),
            key("sport", Value::Number, "its source port"),
            key("dport", Value::Number, "its destination port"),
        ]),
        change("add", "New route"),
        change("del", "Remove a route").alias(&["delete"]),
        change("replace", "Set a route, whether there or not"),
        change("change", "Set a route that is there").alias(&["chg"]),
        change("append", "Another route beside those to the same prefix"),
        change("prepend", "The same, in front"),
        Node::new("flush", "Remove all routes that fit").arg(Value::Prefix).keys(&select),
        Node::new("save", "Print routes as lines that \"route restore\" reads").arg(Value::Prefix).keys(&select),
        Node::new("restore", "Add what \"route save\" printed, from standard input"),
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
        "udp",
        "memory",
        "pcap",
        "tunnel",
        "translator",
        "loopback",
    ];
    Node::new("link", "Ports and tunnels").complete().sub(vec![
        Node::new("show", "List ports and tunnels").alias(&["list", "lst"]).arg(Value::Port).keys(&[
            flag("up", "only those that are up"),
            key("type", words(&kinds), "only of this kind"),
            key("master", Value::Port, "only those of this VRF"),
        ]),
        Node::new("set", "Change a port").arg(Value::Port).keys(&[
            flag("up", "take it into service"),
            flag("down", "take it out of service"),
            key("mtu", Value::Number, "largest packet in bytes"),
            key("address", Value::Mac, "its link-layer address"),
            key("master", Value::Port, "put it into this VRF"),
            flag("nomaster", "take it out of its VRF"),
            key("mark", Value::Number, "mark of what comes in by it"),
        ]),
        Node::new("add", "New VRF, or a tunnel in iproute2's other words").arg(Value::Text("NAME".into())).keys(&[
            key("type", words(&["vrf", "sit", "ipip", "gre", "ip6tnl", "ip6gre"]), "of what kind"),
            key("table", Value::Table, "the VRF's table"),
            key("local", Value::Address, "the tunnel's outer source address"),
            key("remote", Value::Address, "its outer destination address"),
        ]),
        Node::new("del", "Remove a VRF").alias(&["delete"]).arg(Value::Port),
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
        flag("ignore-df", "even if the packet inside may not"),
        flag("noignore-df", "but not if the packet inside may not"),
        key("dev", Value::Port, "the port that carries it"),
        key("broker", Value::Text("URL".into()), "get it from this tunnel broker"),
        key("user", Value::Text("NAME".into()), "the account there"),
        key("key-file", Value::Text("FILE".into()), "the file with its password"),
        key("prefix", words(&["48", "64", "none"]), "the prefix to ask for"),
        key("lan", Value::Port, "the port that gets the first /64"),
        key("auth", words(&["digest-md5", "plain", "anonymous"]), "the only login at a tsp:// broker"),
        key("server", Value::Address, "where a tunnel from a tsp:// broker may end beside the broker"),
        flag("nodefault", "no default route through it"),
        key("mtu", Value::Text("68..65515".into()), "the inner MTU"),
        key("local-dev", Value::Port, "the port or device whose address is the outer source"),
        key("encaplimit", Value::Text("0..255|none".into()), "how many tunnels may be added around it"),
        key("flowlabel", words(&["auto", "inherit"]), "the outer flow label"),
        key("key", Value::Text("0..4294967295".into()), "GRE key of both directions"),
        flag("seq", "GRE sequence numbers in both directions"),
        flag("csum", "GRE checksums in both directions"),
        key("ikey", Value::Text("0..4294967295".into()), "GRE key of what comes in"),
        key("okey", Value::Text("0..4294967295".into()), "GRE key of what goes out"),
        flag("iseq", "GRE sequence numbers of what comes in"),
        flag("oseq", "GRE sequence numbers of what goes out"),
        flag("icsum", "GRE checksums of what comes in"),
        flag("ocsum", "GRE checksums of what goes out"),
        key("encap", words(&["fou", "gue", "auto", "none"]), "the same packets in UDP"),
        key("encap-retry", Value::Text("1..86400".into()), "seconds until the bare protocol is tried again"),
        key("encap-dev", Value::Port, "the port for what is in UDP"),
        key("encap-dport", Value::Text("1..65535".into()), "the peer's UDP port"),
        key("encap-sport", Value::Text("1..65535|auto".into()), "the UDP source port"),
        key("allowed", Value::Prefix, "an inner source prefix that may come out"),
        key("rate", Value::Text("1..4294967295".into()), "packets per second from the peer"),
        key("keepalive", Value::Address, "an address behind it that is asked whether it lives"),
        flag("probe-mtu", "find out by questions of growing size how much fits (RFC 8899)"),
        flag("keepalive-answer", "send the peer's GRE keepalives back"),
        key("interval", Value::Text("MILLISECONDS".into()), "how often it is asked"),
        key("retries", Value::Number, "unanswered questions until the tunnel is down"),
        key("hold", Value::Number, "answers until it is up again"),
        key("encap-rport", Value::Text("any | learn | 1..65535".into()), "the port from which the peer sends"),
        key("encap-port", Value::Text("1..65535".into()), "both UDP ports"),
        key("encap-retry", Value::Text("SECONDS".into()), "encap auto: how soon the bare protocol is tried again"),
        key("encap-dev", Value::Port, "encap auto: the udp port, where dev is a rawip port"),
        flag("encap-csum", "UDP checksums"),
        flag("noencap-csum", "no UDP checksums"),
        key("6rd-prefix", Value::Prefix, "the 6rd domain's IPv6 prefix"),
        key("6rd-relay_prefix", Value::Prefix, "the IPv4 prefix that all of the domain have in common"),
        key("6rd-br", Value::Address, "the domain's border relay"),
        flag("allow-6to4", "6to4 addresses may come out, too"),
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
        key("mss", Value::Text("to-pmtu|NUMBER|off|default".into()), "clamp TCP's segment size"),
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
        flag("inet", "of IPv4"),
        flag("inet6", "of IPv6"),
    ]
    .map(many);
    Node::new("filter", "Packet filters, and what ports ask of their packets").complete().sub(vec![
        Node::new("show", "List filters; -s with counters").alias(&["list", "lst"]).arg(name()).keys(&[key(
            "dev",
            Value::Port,
            "those of this port",
        )]),
        Node::new("add", "Add rules, behind the last or at a place")
            .arg(name())
            .keys(&[key("at", Value::Number, "in front of the rule of this number")])
            .keys(&rule),
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
        key("tos", Value::Number, "TOS or traffic class"),
        key("ipproto", words(IP_PROTOS), "upper-layer protocol"),
        key("sport", Value::Text("N[-N]".into()), "source port"),
        key("dport", Value::Text("N[-N]".into()), "destination port"),
        key("priority", Value::Text("0..4294967295".into()), "when it is tried"),
        key("lookup", Value::Table, "look up in this table"),
        key("suppress_prefixlength", Value::Text("0..128".into()), "matches no longer count as none"),
        key("goto", Value::Text("PRIORITY".into()), "go on with that rule"),
        key("protocol", words(PROTOS), "where the rule comes from"),
        flag("nop", "go on with the next rule"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::{Object, usage};

    fn words_of_node(node: &Node, out: &mut Vec<String>) {
        out.push(node.word.clone());
        out.extend(node.aliases.clone());
        for value in node.args.iter().chain(node.keys.iter().filter_map(|k| k.value.as_ref())) {
            match value {
                Value::OneOf(list) => out.extend(list.clone()),
                Value::Text(text) => out.extend(text.split(['|', ' ', ',']).map(str::to_owned)),
                Value::Destination => out.extend(KINDS.iter().map(|w| (*w).to_owned())),
                Value::Via => out.extend(["inet", "inet6"].map(str::to_owned)),
                Value::Table => out.extend(["main", "local", "default", "all"].map(str::to_owned)),
                _ => {}
            }
        }
        out.extend(node.keys.iter().map(|k| k.word.clone()));
        node.sub.iter().for_each(|n| words_of_node(n, out));
    }

    /// What the usage of an object names, completion, `?` and complaints know.
    #[test]
    fn the_tree_has_all_words_of_the_usage() {
        let all = [
            Object::Route,
            Object::Neigh,
            Object::Link,
            Object::Addr,
            Object::Tunnel,
            Object::Translate,
            Object::Filter,
            Object::NextHop,
            Object::Rule,
            Object::Vrf,
        ];
        let mut known = Vec::new();
        objects().iter().for_each(|n| words_of_node(n, &mut known));
        let mut missing = Vec::new();
        for object in all {
            let mut mine = Vec::new();
            let name = crate::grammar::object_name(object);
            objects().iter().filter(|n| n.word == name).for_each(|n| words_of_node(n, &mut mine));
            for line in usage(Some(object)).lines() {
                // Prose below the grammar has no brackets.
                if !line.contains(['[', '{', '|']) && !line.contains("duet ") {
                    continue;
                }
                let line = line.replace("[no]", "").replace("[i|o]", "");
                // Lines of another object are checked with it.
                let other = line.contains("duet link") && object != Object::Link;
                for word in line.split(|c: char| !(c.is_alphanumeric() || "-_".contains(c))).filter(|_| !other) {
                    let plain = word.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                        && !word.contains(|c: char| c.is_ascii_uppercase())
                        && !word.bytes().all(|b| b.is_ascii_digit() || b"afe".contains(&b));
                    let of_all = ["duet", "s", "d", "packets", "per", "second", "running"].contains(&word);
                    if plain && !of_all && !mine.iter().any(|k| k == word) {
                        missing.push(format!("{name}: {word}"));
                    }
                }
            }
        }
        assert!(missing.is_empty(), "{missing:#?}");
    }
}
