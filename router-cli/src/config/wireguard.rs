//! `[port.NAME]` of kind "wireguard": its keys, and `[[port.NAME.peer]]`.

use super::problem::Problems;
use super::reader::{Section, Value};
use ipnet::IpNet;
use router_core::addr::parse_prefix;
use router_core::port::PortKind;
use router_io::port::wireguard::spec::{Endpoint, Key, PeerConfig, WireguardConfig};
use std::ops::Range;
use std::path::PathBuf;
use toml::de::DeValue;

/// How a file of a key is written.
const KEY_FILE: &str = "\"/etc/duet/wg0.key\"";

/// Reads what only ports of this kind have. `local` is read by the caller, as other kinds have it too.
pub(super) fn wireguard(
    kind: PortKind,
    span: &Range<usize>,
    s: &mut Section<'_, '_>,
    problems: &mut Problems<'_>,
) -> WireguardConfig {
    let mut w = WireguardConfig::default();
    let private = s.text("private_key_file", KEY_FILE, problems);
    let listen = s.number("listen_port", 1..=65_535, problems);
    let peers = s.value("peer");
    if kind != PortKind::Wireguard {
        for (key, there) in
            [("private_key_file", private.is_some()), ("listen_port", listen.is_some()), ("peer", peers.is_some())]
        {
            if there {
                problems.add(
                    span.clone(),
                    format!("[{}] of kind {kind} has {key}", s.name),
                    "it belongs to kind = \"wireguard\"",
                );
            }
        }
        return w;
    }
    match private {
        Some(file) => w.private_key_file = PathBuf::from(file),
        None if s.value("private_key_file").is_some() => {}
        None => problems.add(
            span.clone(),
            format!("[{}] has no private_key_file", s.name),
            format!("make one with \"(umask 077; wg genkey > FILE)\" and write private_key_file = {KEY_FILE}"),
        ),
    }
    w.listen_port = listen.map_or(0, |n| n as u16);
    if let Some(value) = peers {
        let name = format!("{}.peer", s.name);
        match value.get_ref() {
            DeValue::Array(list) => {
                for item in list.iter() {
                    w.peers.extend(peer(&name, item, problems));
                    // Told where the second of them stands.
                    if let Some(conflict) = w.conflict() {
                        problems.add(item.span(), format!("[[{name}]]: {conflict}"), "each belongs to one peer");
                        w.peers.pop();
                    }
                }
            }
            _ => w.peers.extend(peer(&name, value, problems)),
        }
    }
    w
}

fn peer(name: &str, value: &Value<'_>, problems: &mut Problems<'_>) -> Option<PeerConfig> {
    let mut s = Section::of(name, value, problems)?;
    let example = "\"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\"";
    let key =
        s.parsed("public_key", "a public key", example, problems, |t| t.parse::<Key>().map_err(|e| e.to_string()));
    if s.value("public_key").is_none() {
        problems.add(value.span(), format!("[[{name}]] has no public_key"), format!("write public_key = {example}"));
    }
    let preshared = s.text("preshared_key_file", "\"/etc/duet/peer1.psk\"", problems);
    let endpoint = s.parsed("endpoint", "HOST:PORT", "\"vpn.example.net:51820\"", problems, str::parse::<Endpoint>);
    let mut allowed_ips: Vec<IpNet> = Vec::new();
    for (text, span) in s.texts("allowed_ips", "[\"10.0.0.0/24\", \"2001:db8:5::/48\"]", problems) {
        match parse_prefix(&text) {
            Ok(net) if allowed_ips.contains(&net) => {}
            Ok(net) => allowed_ips.push(net),
            Err(e) => problems.add(span, format!("allowed_ips in [[{name}]]: {e}"), "write prefixes behind the peer"),
        }
    }
    let keepalive = s.duration("persistent_keepalive", problems);
    let seconds = keepalive.map(|d| (d, u16::try_from(d.as_secs())));
    if let Some((d, _)) = seconds.filter(|(d, n)| n.is_err() || d.subsec_nanos() > 0) {
        problems.add(
            value.span(),
            format!("persistent_keepalive in [[{name}]]: {d:?} is not a whole number of seconds up to 65535"),
            "write persistent_keepalive = \"25s\", or 0 for none",
        );
    }
    s.finish(problems);
    Some(PeerConfig {
        public_key: key?.0,
        preshared_key_file: preshared.map(PathBuf::from),
        endpoint: endpoint.map(|(e, _)| e),
        allowed_ips,
        persistent_keepalive: seconds.and_then(|(_, n)| n.ok()).filter(|n| *n > 0),
    })
}

#[cfg(test)]
mod tests {
    use crate::config::read;

    const KEYS: [&str; 2] =
        ["HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=", "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="];

    fn port(peers: &str) -> String {
        format!("[port.wg0]\nkind = \"wireguard\"\nprivate_key_file = \"/k\"\naddress = \"10.0.0.1/24\"\n{peers}")
    }

    #[test]
    fn peers_are_read() {
        let text = port(&format!(
            "listen_port = 51820\nlocal = \"192.0.2.1\"\n\
             [[port.wg0.peer]]\npublic_key = \"{}\"\nallowed_ips = [\"10.0.0.2/32\", \"2001:db8::/48\"]\n\
             endpoint = \"[2001:db8::9]:51820\"\npersistent_keepalive = \"25s\"\npreshared_key_file = \"/p\"\n\
             [[port.wg0.peer]]\npublic_key = \"{}\"\n",
            KEYS[0], KEYS[1]
        ));
        let plan = read(&text).unwrap();
        let w = &plan.ports["wg0"].wireguard;
        assert_eq!((w.listen_port, w.peers.len()), (51820, 2));
        assert_eq!(plan.ports["wg0"].local, Some("192.0.2.1".parse().unwrap()));
        let p = &w.peers[0];
        assert_eq!(p.endpoint.as_ref().unwrap().to_string(), "[2001:db8::9]:51820");
        assert_eq!((p.allowed_ips.len(), p.persistent_keepalive), (2, Some(25)));
        assert_eq!((w.peers[1].allowed_ips.len(), w.peers[1].persistent_keepalive), (0, None));
    }

    #[test]
    fn what_is_wrong_is_said_with_a_remedy() {
        let one = |k: &str, more: &str| format!("[[port.wg0.peer]]\npublic_key = \"{k}\"\n{more}\n");
        for (text, want) in [
            (port(&one("AAAA", "")), "not a key"),
            (port("[[port.wg0.peer]]\n"), "has no public_key"),
            (port(&(one(KEYS[0], "") + &one(KEYS[0], ""))), "two peers have the public key"),
            (
                port(&(one(KEYS[0], "allowed_ips = \"::/0\"") + &one(KEYS[1], "allowed_ips = \"::/0\""))),
                "both have ::/0 in allowed_ips",
            ),
            (port(&one(KEYS[0], "endpoint = \"192.0.2.1\"")), "is not HOST:PORT"),
            (port(&one(KEYS[0], "persistent_keepalive = \"1h\"\nkeepalive = 1")), "unknown key \"keepalive\""),
            (port(&one(KEYS[0], "persistent_keepalive = \"500ms\"")), "not a whole number of seconds"),
            ("[port.wg0]\nkind = \"wireguard\"\n".to_owned(), "has no private_key_file"),
            ("[port.a]\nkind = \"tun\"\nlisten_port = 1\n".to_owned(), "of kind tun has listen_port"),
            (
                "[port.wg0]\nkind = \"wireguard\"\nprivate_key_file = \"/k\"\nmac = \"02:00:00:00:00:01\"\n".to_owned(),
                "has mac",
            ),
        ] {
            let problems = read(&text).unwrap_err();
            assert!(problems.iter().any(|p| p.message.contains(want)), "{want}: {problems:?}");
        }
    }
}
