//! Documents of the client's side (RFC 5572): what it asks for, and what servers answer, read as hostile: no entities but
//! XML's own five, no document type, limits on depth, number and length, addresses that are addresses.

use crate::broker::tsp::xml::{Visitor, XmlError, attribute, walk};
use ipnet::IpNet;
use quick_xml::events::BytesStart;
use std::fmt::Write;
use std::net::IpAddr;

/// Addresses of one kind in an answer.
const ADDRESSES: usize = 16;

/// What to ask for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// `v6anyv4`, `v6v4`, `v6udpv4`, `v4v6`.
    pub kind: &'static str,
    /// Our outer address as we know it.
    pub own: IpAddr,
    /// Length of the prefix for our network.
    pub prefix: Option<u8>,
    /// Seconds between keepalives.
    pub keepalive: u32,
}

/// An address of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub addr: IpAddr,
    /// The UDP port beside it.
    pub port: Option<u16>,
    /// The length of its network.
    pub length: Option<u8>,
}

/// What a server says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The kind of tunnel.
    pub kind: String,
    /// How long it is kept, in seconds.
    pub lifetime: Option<u64>,
    /// Addresses of the server's end, outer and inner.
    pub server: Vec<Address>,
    /// Addresses of ours.
    pub client: Vec<Address>,
    /// Prefix for our network.
    pub prefix: Option<IpNet>,
    /// Seconds between keepalives.
    pub keepalive: Option<u32>,
    /// Other brokers to ask: names or addresses.
    pub brokers: Vec<String>,
}

/// Why an answer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// Not XML, or more of it than an answer has.
    #[error("malformed XML")]
    Xml,
    /// Not about a tunnel.
    #[error("no <tunnel> element")]
    Tunnel,
    /// Text that ought to be an address.
    #[error("an address that is none")]
    Address,
    /// Text that ought to be a prefix.
    #[error("a prefix that is none")]
    Prefix,
    /// Text that ought to be a number.
    #[error("a number that is none")]
    Number,
    /// Too many of one kind.
    #[error("too many addresses")]
    Many,
}

impl From<XmlError> for Bad {
    fn from(_: XmlError) -> Self {
        Bad::Xml
    }
}

/// The request for a tunnel.
pub fn create(w: &Wish) -> String {
    let family = if w.own.is_ipv4() { "ipv4" } else { "ipv6" };
    // Inside is the other family than outside.
    let (inner, none) = if w.own.is_ipv4() { ("ipv6", "::") } else { ("ipv4", "0.0.0.0") };
    let mut xml = format!(
        "<tunnel action=\"create\" type=\"{}\" proxy=\"no\">\r\n <client>\r\n  <address type=\"{family}\">{}</address>\r\n  \
         <keepalive interval=\"{}\">\r\n   <address type=\"{inner}\">{none}</address>\r\n  </keepalive>\r\n",
        w.kind, w.own, w.keepalive
    );
    if let Some(length) = w.prefix {
        let _ = write!(xml, "  <router>\r\n   <prefix length=\"{length}\"/>\r\n  </router>\r\n");
    }
    xml.push_str(" </client>\r\n</tunnel>\r\n");
    xml
}

/// That the offer is taken.
pub const ACCEPT: &str = "<tunnel action=\"accept\"></tunnel>\r\n";
/// That it is not.
pub const REJECT: &str = "<tunnel action=\"reject\"></tunnel>\r\n";

/// That the tunnel is not wanted any more.
pub fn delete(kind: &str) -> String {
    format!("<tunnel action=\"delete\" type=\"{kind}\"></tunnel>\r\n")
}

fn number<T: std::str::FromStr>(tag: &BytesStart<'_>, name: &str) -> Result<Option<T>, Bad> {
    attribute(tag, name)?.map(|t| t.parse().map_err(|_| Bad::Number)).transpose()
}

/// An answer as far as it was read.
#[derive(Default)]
struct Answer {
    told: Option<Told>,
    /// Type, port and length of the address whose text comes next.
    address: (String, Option<u16>, Option<u8>),
    /// The same of a prefix.
    length: Option<u8>,
}

impl Visitor for Answer {
    type Error = Bad;

    fn element(&mut self, depth: usize, name: &str, tag: &BytesStart<'_>) -> Result<(), Bad> {
        match (depth, name, &mut self.told) {
            (0, "tunnel", None) => {
                let kind = attribute(tag, "type")?.unwrap_or_default();
                let lifetime = number(tag, "lifetime")?;
                self.told = Some(Told { kind: kind.to_ascii_lowercase(), lifetime, ..Told::default() });
            }
            (0, ..) => return Err(Bad::Tunnel),
            (_, "address", _) => {
                let kind = attribute(tag, "type")?.unwrap_or_default();
                self.address = (kind, number(tag, "port")?, number(tag, "length")?);
            }
            (_, "prefix", _) => self.length = number(tag, "length")?,
            (_, "keepalive", Some(t)) => t.keepalive = number(tag, "interval")?,
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self, path: &[&str], text: &str) -> Result<(), Bad> {
        let Some(told) = &mut self.told else { return Ok(()) };
        match path {
            ["tunnel", "server", "address"] => note(&mut told.server, &self.address, text)?,
            ["tunnel", "client", "address"] => note(&mut told.client, &self.address, text)?,
            ["tunnel", "client", "router", "prefix"] => {
                let (net, said) = text.split_once('/').map_or((text, None), |(n, l)| (n, Some(l)));
                let said = said.map(|l| l.parse().map_err(|_| Bad::Prefix)).transpose()?;
                let length = self.length.or(said).ok_or(Bad::Prefix)?;
                let addr: IpAddr = net.parse().map_err(|_| Bad::Prefix)?;
                told.prefix = Some(IpNet::new(addr, length).map_err(|_| Bad::Prefix)?);
            }
            ["tunnel", "broker", "address"] => {
                if told.brokers.len() >= ADDRESSES {
                    return Err(Bad::Many);
                }
                if !crate::tsp_url::valid_host(text) {
                    return Err(Bad::Address);
                }
                told.brokers.push(text.to_owned());
            }
            _ => {}
        }
        Ok(())
    }
}

/// Reads an answer.
pub fn read(text: &str) -> Result<Told, Bad> {
    let mut answer = Answer::default();
    walk(text, &mut answer)?;
    answer.told.ok_or(Bad::Tunnel)
}

fn note(list: &mut Vec<Address>, said: &(String, Option<u16>, Option<u8>), text: &str) -> Result<(), Bad> {
    let (kind, port, length) = said;
    let addr: IpAddr = match kind.as_str() {
        "ipv4" => IpAddr::V4(text.parse().map_err(|_| Bad::Address)?),
        "ipv6" => IpAddr::V6(text.parse().map_err(|_| Bad::Address)?),
        // A name ("dn") is nothing that a tunnel needs.
        _ => return Ok(()),
    };
    if list.len() >= ADDRESSES {
        return Err(Bad::Many);
    }
    list.push(Address { addr, port: *port, length: *length });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::tsp::xml::{self, Action};
    use proptest::prelude::*;

    #[test]
    fn requests_are_what_our_server_reads() {
        let w = |own: &str, kind, prefix| Wish { kind, own: own.parse().unwrap(), prefix, keepalive: 30 };
        let read = xml::read(&create(&w("192.0.2.2", "v6udpv4", Some(56)))).unwrap();
        assert_eq!(
            (read.action, read.kind.as_str(), read.prefix, read.keepalive),
            (Action::Create, "v6udpv4", Some(56), Some(30))
        );
        assert_eq!(read.ipv4, "192.0.2.2".parse().ok());
        let read = xml::read(&create(&w("2001:db8::2", "v4v6", None))).unwrap();
        assert_eq!((read.kind.as_str(), read.prefix, read.ipv6), ("v4v6", None, "2001:db8::2".parse().ok()));
        assert_eq!(xml::read(ACCEPT).unwrap().action, Action::Accept);
        assert_eq!(xml::read(REJECT).unwrap().action, Action::Reject);
        assert_eq!(xml::read(&delete("v6v4")).unwrap().action, Action::Delete);
    }

    #[test]
    fn answers() {
        let text = "<tunnel action=\"info\" type=\"v6udpv4\" lifetime=\"1440\">\n<server><address type=\"ipv4\">192.0.2.1</address>\
            <address type=\"ipv6\">2001:db8:7::1</address></server><client><address type=\"ipv4\" port=\"4000\">203.0.113.9</address>\
            <address type=\"ipv6\" length=\"128\">2001:db8:7::2</address><address type=\"dn\">t.example</address><dns_server>\
            <address type=\"ipv6\">2001:db8::53</address></dns_server><keepalive interval=\"30\"><address type=\"ipv6\">2001:db8:7::1\
            </address></keepalive><router><prefix length=\"56\">2001:db8:7100::</prefix></router></client></tunnel>\r\n";
        let t = read(text).unwrap();
        assert_eq!((t.kind.as_str(), t.lifetime, t.keepalive), ("v6udpv4", Some(1440), Some(30)));
        assert_eq!(t.server.len(), 2);
        assert_eq!(t.client[0], Address { addr: "203.0.113.9".parse().unwrap(), port: Some(4000), length: None });
        assert_eq!(t.client[1].length, Some(128));
        assert_eq!(t.prefix, "2001:db8:7100::/56".parse().ok());
        let more = "<tunnel action=\"list\" type=\"broker\"><broker><address type=\"ipv4\">192.0.2.7</address><address type=\"dn\">b.example</address></broker></tunnel>";
        assert_eq!(read(more).unwrap().brokers, ["192.0.2.7", "b.example"]);
    }

    #[test]
    fn hostile_answers() {
        let bomb = "<!DOCTYPE t [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><tunnel type=\"v6v4\">&b;</tunnel>";
        let deep = "<tunnel>".to_owned() + &"<a>".repeat(20) + &"</a>".repeat(20) + "</tunnel>";
        let wide = "<tunnel>".to_owned() + &"<a/>".repeat(100) + "</tunnel>";
        let many = "<tunnel><server>".to_owned()
            + &"<address type=\"ipv4\">192.0.2.1</address>".repeat(20)
            + "</server></tunnel>";
        for (text, why) in [
            (bomb, Bad::Xml),
            (&deep, Bad::Xml),
            (&wide, Bad::Xml),
            (&many, Bad::Many),
            ("", Bad::Tunnel),
            ("hello", Bad::Tunnel),
            ("<html><body>Log in</body></html>", Bad::Tunnel),
            ("<tunnel type=\"v6v4\"><server>", Bad::Xml),
            ("<tunnel><server><address type=\"ipv4\">999.0.2.1</address></server></tunnel>", Bad::Address),
            ("<tunnel><server><address type=\"ipv6\">192.0.2.1</address></server></tunnel>", Bad::Address),
            ("<tunnel><broker><address type=\"dn\">a b; rm</address></broker></tunnel>", Bad::Address),
            (
                "<tunnel><client><router><prefix length=\"300\">2001:db8::</prefix></router></client></tunnel>",
                Bad::Number,
            ),
            (
                "<tunnel><client><router><prefix length=\"129\">2001:db8::</prefix></router></client></tunnel>",
                Bad::Prefix,
            ),
            ("<tunnel><client><router><prefix>2001:db8::</prefix></router></client></tunnel>", Bad::Prefix),
            ("<tunnel lifetime=\"-1\"></tunnel>", Bad::Number),
            ("<tunnel lifetime=\"99999999999999999999999\"></tunnel>", Bad::Number),
            ("<?xml-stylesheet href=\"x\"?><tunnel/>", Bad::Xml),
        ] {
            assert_eq!(read(text), Err(why), "{text}");
        }
    }

    proptest! {
        #[test]
        fn anything(text in ".{0,400}") {
            let _ = read(&text);
        }

        #[test]
        fn nearly_right(parts in proptest::collection::vec(0usize..14, 0..30)) {
            const WORDS: [&str; 14] = [
                "<tunnel type=\"v6v4\">", "</tunnel>", "<client>", "</client>", "<server>", "</server>", "<address type=\"ipv4\">",
                "</address>", "192.0.2.1", "<router>", "</router>", "<prefix length=\"48\">", "</prefix>", "2001:db8::",
            ];
            let text: String = parts.into_iter().map(|i| WORDS[i]).collect();
            let _ = read(&text);
        }
    }
}
