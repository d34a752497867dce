//! Addresses of brokers that speak the tunnel set-up protocol: `tsp://[USER@]HOST[:PORT]`.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

/// The protocol's port (RFC 5572).
pub const PORT: u16 = 3653;
/// Addresses of one name that are tried.
const ADDRESSES: usize = 4;

/// Kinds of tunnels that may be asked for, by their names here and in the protocol. The first lets the server choose.
pub const KINDS: [(&str, &str); 4] = [("any", "v6anyv4"), ("6in4", "v6v4"), ("6inudp4", "v6udpv4"), ("4in6", "v4v6")];
/// Logins that may be asked for.
pub const LOGINS: [&str; 3] = ["digest-md5", "plain", "anonymous"];
/// Lengths of prefixes that may be asked for.
pub const PREFIXES: std::ops::RangeInclusive<u8> = 48..=64;

/// How messages may travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// By UDP, and when that is not answered by TCP.
    Any,
    /// By UDP only.
    Udp,
    /// By TCP only.
    Tcp,
}

/// A broker's address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TspUrl {
    /// How to speak to it.
    pub carrier: Carrier,
    /// The account, if the address has it.
    pub user: Option<String>,
    /// Name or address.
    pub host: String,
    /// Port, TCP's and UDP's.
    pub port: u16,
}

/// It is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Something in it makes no sense.
    #[error("\"{0}\" is not the address of a broker: tsp://[USER@]HOST[:PORT], tsp+udp:// or tsp+tcp://")]
    Malformed(String),
    /// Whoever lists processes would see it.
    #[error("a password does not belong into an address: it is in key-file")]
    Password,
}

/// Whether a text is meant to be such an address.
pub fn is_tsp(text: &str) -> bool {
    ["tsp://", "tsp+udp://", "tsp+tcp://"].iter().any(|s| text.starts_with(s))
}

impl TspUrl {
    /// Reads it.
    pub fn parse(text: &str) -> Result<TspUrl, UrlError> {
        let bad = || UrlError::Malformed(text.chars().take(200).filter(|c| !c.is_control()).collect());
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        let carrier = match scheme {
            "tsp" => Carrier::Any,
            "tsp+udp" => Carrier::Udp,
            "tsp+tcp" => Carrier::Tcp,
            _ => return Err(bad()),
        };
        let rest = rest.trim_end_matches('/');
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        if user.is_some_and(|u| u.contains(':')) {
            return Err(UrlError::Password);
        }
        if user.is_some_and(|u| !valid_user(u)) {
            return Err(bad());
        }
        let (host, port) = match place.strip_prefix('[').and_then(|r| r.split_once(']')) {
            Some((host, port)) if host.parse::<std::net::Ipv6Addr>().is_ok() => match (port, port.strip_prefix(':')) {
                ("", _) => (host, None),
                (_, Some(port)) => (host, Some(port)),
                _ => return Err(bad()),
            },
            Some(_) => return Err(bad()),
            None => place.split_once(':').map_or((place, None), |(h, p)| (h, Some(p))),
        };
        let port = port.map_or(Ok(PORT), |p| p.parse().map_err(|_| bad()))?;
        if !valid_host(host) || port == 0 {
            return Err(bad());
        }
        Ok(TspUrl { carrier, user: user.map(str::to_owned), host: host.to_owned(), port })
    }

    /// Where that is now, at most a few addresses of one family.
    ///
    /// # Errors
    /// The resolver's; [`std::io::ErrorKind::NotFound`] when there is none of that family.
    pub fn resolve(&self, six: bool) -> std::io::Result<Vec<SocketAddr>> {
        let all = (self.host.as_str(), self.port).to_socket_addrs()?;
        let list: Vec<SocketAddr> = all.filter(|a| a.is_ipv6() == six).take(ADDRESSES).collect();
        if list.is_empty() {
            let why = format!("{} has no IPv{} address", self.host, if six { 6 } else { 4 });
            return Err(std::io::Error::new(std::io::ErrorKind::NotFound, why));
        }
        Ok(list)
    }

    /// The same broker's other machine.
    pub fn at(&self, host: String) -> TspUrl {
        TspUrl { host, ..self.clone() }
    }
}

/// Whether a text may be a host: a name, or an address.
pub fn valid_host(host: &str) -> bool {
    let clean = host.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c));
    (1..=253).contains(&host.len()) && (clean && !host.starts_with('-') || host.parse::<IpAddr>().is_ok())
}

/// Whether a text may name an account: nothing that ends a line or has a meaning of its own.
pub fn valid_user(user: &str) -> bool {
    (1..=64).contains(&user.len()) && user.chars().all(|c| c.is_ascii_graphic() && !"\"\\,=<>&/:@".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let of = |t: &str| TspUrl::parse(t).map(|u| (u.carrier, u.user, u.host, u.port));
        assert_eq!(of("tsp://b.example"), Ok((Carrier::Any, None, "b.example".into(), 3653)));
        assert_eq!(of("tsp+tcp://joe@192.0.2.1:99/"), Ok((Carrier::Tcp, Some("joe".into()), "192.0.2.1".into(), 99)));
        assert_eq!(of("tsp+udp://[2001:db8::1]"), Ok((Carrier::Udp, None, "2001:db8::1".into(), 3653)));
        assert_eq!(of("tsp://joe:secret@b.example"), Err(UrlError::Password));
        for bad in [
            "b.example",
            "tsp:b",
            "tsp://",
            "tsp://@b",
            "tsp://a b",
            "tsp://b:0",
            "tsp://b:x",
            "tsp://b:99999",
            "tsp://[x]",
            "tsp://[::1]x",
            "tsp://joe\r\n@b",
            "http://b",
            "tsp://a\"b@c",
            "tsp://-b",
            "tsp://b/c",
        ] {
            assert!(matches!(of(bad), Err(UrlError::Malformed(_))), "{bad}");
        }
    }
}
