//! A WireGuard port and its peers, as written and as shown.

use data_encoding::BASE64;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// A public key: 32 bytes, written in base64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Key(pub [u8; 32]);

/// A text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key: 32 bytes in base64, 44 characters, as \"wg pubkey\" and \"wg genkey\" print them")]
pub struct NoKey;

impl FromStr for Key {
    type Err = NoKey;

    fn from_str(text: &str) -> Result<Self, NoKey> {
        let bytes = BASE64.decode(text.as_bytes()).map_err(|_| NoKey)?;
        bytes.try_into().map(Key).map_err(|_| NoKey)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(&self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> String {
        key.to_string()
    }
}

impl TryFrom<String> for Key {
    type Error = NoKey;

    fn try_from(text: String) -> Result<Self, NoKey> {
        text.parse()
    }
}

/// Where a peer is: an address or a name, and a UDP port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// An address, or the name of a host.
    pub host: String,
    /// UDP port.
    pub port: u16,
}

impl Endpoint {
    /// The socket address, if the host is one.
    pub fn addr(&self) -> Option<SocketAddr> {
        self.host.parse::<IpAddr>().ok().map(|a| SocketAddr::new(a, self.port))
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is not HOST:PORT, with an IPv6 address in brackets");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|p| *p != 0).ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = match bare {
            Some(h) if h.parse::<std::net::Ipv6Addr>().is_ok() => h,
            Some(_) => return Err(wrong()),
            None if host.is_empty() || host.contains([':', '[', ']', '/', ' ']) => return Err(wrong()),
            None => host,
        };
        Ok(Endpoint { host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A peer as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerConfig {
    /// Its public key, by which it is known.
    pub public_key: Key,
    /// File of the key that is shared with it beside the others, if any.
    pub preshared_key_file: Option<PathBuf>,
    /// Where it is; None: it will tell by speaking first.
    pub endpoint: Option<Endpoint>,
    /// Addresses behind it: sources that it may use, destinations that go to it.
    pub allowed_ips: Vec<IpNet>,
    /// Seconds between packets that keep the way to it open.
    pub persistent_keepalive: Option<u16>,
}

/// A port as configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WireguardConfig {
    /// File of the private key.
    pub private_key_file: PathBuf,
    /// UDP port; 0: any.
    pub listen_port: u16,
    /// Address of the host to which the socket is bound; None: all.
    pub local: Option<IpAddr>,
    /// The peers, no public key and no allowed prefix twice.
    pub peers: Vec<PeerConfig>,
}

impl WireguardConfig {
    /// Whether only the peers differ: what a running port can take over.
    pub fn same_but_for_peers(&self, other: &Self) -> bool {
        let bare = |c: &Self| WireguardConfig { peers: Vec::new(), ..c.clone() };
        bare(self) == bare(other)
    }

    /// The first thing that two peers both claim.
    pub fn conflict(&self) -> Option<String> {
        for (i, p) in self.peers.iter().enumerate() {
            for other in &self.peers[..i] {
                if p.public_key == other.public_key {
                    return Some(format!("two peers have the public key {}", p.public_key));
                }
                if let Some(net) = p.allowed_ips.iter().find(|n| other.allowed_ips.contains(n)) {
                    return Some(format!(
                        "peers {} and {} both have {net} in allowed_ips",
                        other.public_key, p.public_key
                    ));
                }
            }
        }
        None
    }
}

/// A port as it is. Secret keys are never part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Our public key.
    pub public_key: Key,
    /// The UDP port in use.
    pub listen_port: u16,
    /// The peers, as configured.
    pub peers: Vec<PeerStatus>,
}

/// A peer as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its public key.
    pub public_key: Key,
    /// Whether a preshared key is in use.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preshared_key: bool,
    /// Where it was last heard from, else where it was configured to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// The name that its endpoint was configured by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_name: Option<String>,
    /// Addresses behind it.
    #[serde(default)]
    pub allowed_ips: Vec<IpNet>,
    /// Seconds since 1970 at which the session in use was agreed upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_handshake: Option<u64>,
    /// Bytes received, WireGuard's own headers and handshakes included.
    pub transfer_rx: u64,
    /// Bytes sent, likewise.
    pub transfer_tx: u64,
    /// Seconds between keepalives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_keepalive: Option<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_endpoints_are_read_as_they_are_printed() {
        let text = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
        let key: Key = text.parse().unwrap();
        assert_eq!(key.to_string(), text);
        for bad in ["", "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw", "AAAA", &text[..40], "é"] {
            assert_eq!(bad.parse::<Key>(), Err(NoKey), "{bad}");
        }
        for good in ["192.0.2.1:51820", "[2001:db8::1]:51820", "vpn.example.net:1"] {
            assert_eq!(good.parse::<Endpoint>().unwrap().to_string(), good);
        }
        assert_eq!("[2001:db8::1]:7".parse::<Endpoint>().unwrap().addr(), Some("[2001:db8::1]:7".parse().unwrap()));
        assert_eq!("a.example:7".parse::<Endpoint>().unwrap().addr(), None);
        for bad in ["", ":1", "192.0.2.1", "2001:db8::1:51820", "[192.0.2.1]:1", "a:0", "a:65536", "[::1:1", "a b:1"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_two_peers_claim_is_found() {
        let peer = |n: u8, nets: &[&str]| PeerConfig {
            public_key: Key([n; 32]),
            preshared_key_file: None,
            endpoint: None,
            allowed_ips: nets.iter().map(|n| n.parse().unwrap()).collect(),
            persistent_keepalive: None,
        };
        let config = |peers| WireguardConfig { peers, ..WireguardConfig::default() };
        assert_eq!(config(vec![peer(1, &["10.0.0.0/8"]), peer(2, &["10.1.0.0/16"])]).conflict(), None);
        assert!(config(vec![peer(1, &[]), peer(1, &[])]).conflict().unwrap().contains("public key"));
        assert!(config(vec![peer(1, &["::/0"]), peer(2, &["::/0"])]).conflict().unwrap().contains("::/0"));
    }
}
