//! Commands that bring a tunnel up at the client's end, ready to be copied.

use crate::control::LeaseInfo;
use std::net::IpAddr;

/// A system and its commands.
pub struct Recipe {
    /// The system.
    pub system: &'static str,
    /// What is to be known before.
    pub note: &'static str,
    /// The commands or the file.
    pub text: String,
}

/// For every system that can do the tunnel's mode. `url` is the broker's own.
pub fn recipes(t: &LeaseInfo, url: &str) -> Vec<Recipe> {
    let local = t.endpoint.map_or_else(|| "YOUR_IPV4_ADDRESS".to_owned(), |a| a.to_string());
    let (server, client, gateway) = (t.server, t.client_inner, t.server_inner.addr());
    let (id, user, name, mtu) = (t.id, &t.account, &t.name, t.mtu);
    let dev = format!("tb{id}");
    let lan = t.prefixes.iter().map(|p| match p.addr() {
        IpAddr::V6(a) => format!("{}1/64", a),
        IpAddr::V4(a) => a.to_string(),
    });
    let lan: Vec<String> = lan.collect();
    let duet = Recipe {
        system: "Duet",
        note: "One command; it keeps the endpoint up to date. KEY_FILE holds your password.",
        text: format!(
            "duet tunnel add {name} broker {url} user {user} key-file KEY_FILE{}\n",
            t.prefixes.first().map_or_else(|| " prefix 0".into(), |p| format!(" prefix {} lan lan0", p.prefix_len()))
        ),
    };
    if let (Some(port), "6inudp4") = (t.server_port, t.mode.as_str()) {
        // Any port of one's own will do: the NAT chooses another.
        let text = format!(
            "duet tunnel add {dev} mode 6in4 local YOUR_IPV4_ADDRESS remote {server} encap fou encap-dport {port} \
             encap-rport {port} encap-port 3653 encap-sport 3653 keepalive {gateway} interval 15000\n\
             duet addr add {client} dev {dev}\nduet route add ::/0 dev {dev}\n"
        );
        let note =
            "YOUR_IPV4_ADDRESS is that of your own device, behind the NAT. The keepalive holds the NAT's binding.";
        return vec![Recipe { system: "Duet", note, text }];
    }
    if t.mode == "4in6" {
        let local = t.endpoint.map_or_else(|| "YOUR_IPV6_ADDRESS".to_owned(), |a| a.to_string());
        let note = "IPv4 for a line that has IPv6 only.";
        let duet = format!(
            "duet tunnel add {dev} mode 4in6 local {local} remote {server}\nduet addr add {client} dev {dev}\n\
             duet route add 0.0.0.0/0 via {gateway} dev {dev}\n"
        );
        let linux = format!(
            "ip link add {dev} type ip6tnl mode ipip6 local {local} remote {server} encaplimit none\n\
             ip link set {dev} up mtu {mtu}\nip addr add {client} dev {dev}\nip route add default via {gateway} dev {dev}\n"
        );
        return vec![
            Recipe { system: "Duet", note, text: duet },
            Recipe { system: "Linux", note: "As root, on a line that has IPv6 only.", text: linux },
        ];
    }
    let first = |command: &dyn Fn(&str) -> String| lan.first().map(|a| command(a)).unwrap_or_default();
    let linux = format!(
        "ip tunnel add {dev} mode sit remote {server} local {local} ttl 64\n\
         ip link set {dev} up mtu {mtu}\n\
         ip addr add {client} dev {dev}\n\
         ip -6 route add default via {gateway} dev {dev}\n{}",
        first(&|a| format!("ip addr add {a} dev LAN\n"))
    );
    let freebsd = format!(
        "ifconfig gif0 create\n\
         ifconfig gif0 tunnel {local} {server} mtu {mtu} up\n\
         ifconfig gif0 inet6 {} {gateway} prefixlen 128 alias\n\
         route -n add -inet6 default {gateway}\n{}",
        client.addr(),
        first(&|a| format!("ifconfig LAN inet6 {} prefixlen 64 alias\n", a.trim_end_matches("/64")))
    );
    let openbsd = format!(
        "ifconfig gif0 tunnel {local} {server}\n\
         ifconfig gif0 inet6 {} {gateway} prefixlen 128\n\
         ifconfig gif0 mtu {mtu} up\n\
         route -n add -inet6 default {gateway}\n",
        client.addr()
    );
    let prefixes: String = t.prefixes.iter().map(|p| format!("\tlist ip6prefix '{p}'\n")).collect();
    let openwrt = format!(
        "config interface 'wan6'\n\toption proto '6in4'\n\toption peeraddr '{server}'\n\toption ip6addr '{client}'\n\
         {prefixes}\toption tunnelid '{id}'\n\toption username '{user}'\n\toption password 'UPDATE_KEY'\n\toption mtu '{mtu}'\n"
    );
    let host = url.split_once("://").map_or(url, |(_, h)| h);
    let ddclient = format!(
        "protocol=dyndns2\nserver={host}\nssl={}\nuse=if, if=WAN\nlogin={user}\npassword='UPDATE_KEY'\n{id}\n",
        if url.starts_with("https") { "yes" } else { "no" }
    );
    vec![
        duet,
        Recipe { system: "Linux", note: "As root; LAN is the device of your network.", text: linux },
        Recipe { system: "OpenWrt", note: "In /etc/config/network, package 6in4.", text: openwrt },
        Recipe {
            system: "FreeBSD",
            note: "As root; with an endpoint behind a NAT, the address of your own device.",
            text: freebsd,
        },
        Recipe { system: "OpenBSD", note: "As root.", text: openbsd },
        Recipe { system: "ddclient", note: "In /etc/ddclient.conf, when your address changes.", text: ddclient },
    ]
}
