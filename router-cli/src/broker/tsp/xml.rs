//! The documents (RFC 5572): what a client asks for, and what it gets. No entities but XML's own five,
//! no document type, limits on depth and number.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Elements in a document, and how deep they may lie.
const ELEMENTS: usize = 64;
const DEPTH: usize = 8;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A tunnel.
    Create,
    /// No tunnel any more.
    Delete,
    /// It takes the tunnel that it was offered.
    Accept,
    /// It does not.
    Reject,
    /// What is there.
    Info,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What to do.
    pub action: Action,
    /// `v6v4`, `v6udpv4`, `v6anyv4`, `v4v6`, in lower case.
    pub kind: String,
    /// The client's IPv4 address as it knows it.
    pub ipv4: Option<Ipv4Addr>,
    /// The client's IPv6 address as it knows it.
    pub ipv6: Option<Ipv6Addr>,
    /// Length of the prefix it wants for its network.
    pub prefix: Option<u8>,
    /// Whether it wants to be pinged, or will ping: seconds.
    pub keepalive: Option<u32>,
}

/// Not a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// Not XML, or more of it than a request has.
    #[error("malformed document")]
    Malformed,
    /// An address that is none.
    #[error("malformed IPv4 address")]
    Ipv4,
    /// An address that is none.
    #[error("malformed IPv6 address")]
    Ipv6,
}

/// The value of an attribute.
pub(in crate::broker) fn attribute(tag: &BytesStart<'_>, name: &str) -> Result<Option<String>, XmlError> {
    for a in tag.attributes() {
        let a = a.map_err(|_| XmlError::Malformed)?;
        if a.key.as_ref() == name {
            let value = a.value.as_ref();
            // Nothing that the protocol says needs escaping.
            let fine = value.len() <= 64 && !value.contains('&') && !value.contains('<');
            return if fine { Ok(Some(value.trim().to_owned())) } else { Err(XmlError::Malformed) };
        }
    }
    Ok(None)
}

/// What takes a document in as [`walk`] goes through it.
pub(in crate::broker) trait Visitor {
    /// Why the document is none.
    type Error: From<XmlError>;

    /// An element, `depth` below the outermost one; its name in lower case.
    fn element(&mut self, depth: usize, name: &str, tag: &BytesStart<'_>) -> Result<(), Self::Error>;

    /// Text that is not empty, and the names of the elements that it stands in, from the outermost on.
    fn text(&mut self, path: &[&str], text: &str) -> Result<(), Self::Error>;
}

/// Goes through a document of a stranger, within bounds.
///
/// # Errors
/// [`XmlError::Malformed`], as the visitor's; and its own.
pub(in crate::broker) fn walk<V: Visitor>(text: &str, visitor: &mut V) -> Result<(), V::Error> {
    let malformed = || V::Error::from(XmlError::Malformed);
    let mut reader = Reader::from_str(text);
    let mut path: Vec<String> = Vec::new();
    let mut elements = 0;
    loop {
        let event = reader.read_event().map_err(|_| malformed())?;
        let empty = matches!(event, Event::Empty(_));
        match event {
            Event::Start(tag) | Event::Empty(tag) => {
                elements += 1;
                let name = tag.local_name().as_ref().to_ascii_lowercase();
                if elements > ELEMENTS || path.len() >= DEPTH || name.len() > 32 {
                    return Err(malformed());
                }
                visitor.element(path.len(), &name, &tag)?;
                if !empty {
                    path.push(name);
                }
            }
            Event::End(_) => {
                path.pop();
            }
            Event::Text(t) => {
                let text = t.as_ref().trim();
                if !text.is_empty() {
                    visitor.text(&path.iter().map(String::as_str).collect::<Vec<_>>(), text)?;
                }
            }
            Event::Decl(_) | Event::Comment(_) | Event::CData(_) => {}
            // A document type is where entities that blow up are made.
            Event::DocType(_) | Event::PI(_) | Event::GeneralRef(_) => return Err(malformed()),
            Event::Eof => break,
        }
    }
    if path.is_empty() { Ok(()) } else { Err(malformed()) }
}

/// A request as far as it was read.
#[derive(Default)]
struct Request {
    wanted: Option<Wanted>,
    /// Of the address whose text comes next.
    address_type: String,
}

impl Visitor for Request {
    type Error = XmlError;

    fn element(&mut self, depth: usize, name: &str, tag: &BytesStart<'_>) -> Result<(), XmlError> {
        match (depth, name, &mut self.wanted) {
            (0, "tunnel", None) => {
                let action = attribute(tag, "action")?.ok_or(XmlError::Malformed)?;
                self.wanted = Some(Wanted {
                    action: match action.to_ascii_lowercase().as_str() {
                        "create" => Action::Create,
                        "delete" => Action::Delete,
                        "accept" => Action::Accept,
                        "reject" => Action::Reject,
                        "info" => Action::Info,
                        _ => return Err(XmlError::Malformed),
                    },
                    kind: attribute(tag, "type")?.unwrap_or_default().to_ascii_lowercase(),
                    ipv4: None,
                    ipv6: None,
                    prefix: None,
                    keepalive: None,
                });
            }
            (0, ..) => return Err(XmlError::Malformed),
            (_, "address", _) => self.address_type = attribute(tag, "type")?.unwrap_or_default(),
            (_, "prefix", Some(w)) => {
                let length = attribute(tag, "length")?.map(|l| l.parse().map_err(|_| XmlError::Malformed));
                w.prefix = length.transpose()?.or(w.prefix);
            }
            (_, "keepalive", Some(w)) => {
                let interval = attribute(tag, "interval")?;
                w.keepalive = interval.and_then(|i| i.parse().ok());
            }
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self, path: &[&str], text: &str) -> Result<(), XmlError> {
        // The client's own addresses: not those of its keepalive.
        if let (Some(w), ["tunnel", "client", "address"]) = (&mut self.wanted, path) {
            match self.address_type.as_str() {
                "ipv4" => w.ipv4 = Some(text.parse().map_err(|_| XmlError::Ipv4)?),
                "ipv6" => w.ipv6 = Some(text.parse().map_err(|_| XmlError::Ipv6)?),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Reads a request.
pub fn read(text: &str) -> Result<Wanted, XmlError> {
    let mut request = Request::default();
    walk(text, &mut request)?;
    request.wanted.ok_or(XmlError::Malformed)
}

/// What a client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// `v6v4` or another.
    pub kind: &'static str,
    /// How long it is kept without use, in seconds.
    pub lifetime: u64,
    /// Our outer address.
    pub server: IpAddr,
    /// Our inner address.
    pub server_inner: IpAddr,
    /// The client's outer address, as we see it.
    pub client: IpAddr,
    /// The client's UDP port, as we see it.
    pub client_port: Option<u16>,
    /// The client's inner address.
    pub client_inner: IpAddr,
    /// The client's name here.
    pub name: String,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Seconds between keepalives; None: the client wants none.
    pub keepalive: Option<u32>,
    /// The delegated prefix.
    pub prefix: Option<ipnet::IpNet>,
}

fn address(xml: &mut String, a: IpAddr) {
    let kind = if a.is_ipv4() { "ipv4" } else { "ipv6" };
    let _ = write!(xml, "<address type=\"{kind}\">{a}</address>");
}

/// The answer to a request that was granted, without its status line.
pub fn offer(o: &Offer) -> String {
    let mut xml = format!("<tunnel action=\"info\" type=\"{}\" lifetime=\"{}\"><server>", o.kind, o.lifetime);
    address(&mut xml, o.server);
    address(&mut xml, o.server_inner);
    xml.push_str("</server><client>");
    match o.client_port {
        Some(port) => {
            let _ = write!(xml, "<address type=\"ipv4\" port=\"{port}\">{}</address>", o.client);
        }
        None => address(&mut xml, o.client),
    }
    address(&mut xml, o.client_inner);
    let _ = write!(xml, "<address type=\"dn\">{}</address>", o.name);
    if !o.dns.is_empty() {
        xml.push_str("<dns_server>");
        o.dns.iter().for_each(|a| address(&mut xml, *a));
        xml.push_str("</dns_server>");
    }
    if let Some(interval) = o.keepalive {
        let _ = write!(xml, "<keepalive interval=\"{interval}\">");
        address(&mut xml, o.server_inner);
        xml.push_str("</keepalive>");
    }
    if let Some(p) = o.prefix {
        let _ = write!(xml, "<router><prefix length=\"{}\">{}</prefix></router>", p.prefix_len(), p.network());
    }
    xml.push_str("</client></tunnel>");
    xml
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Proves rfc5572-4.7-requests.
    #[test]
    fn requests() {
        let text = "<tunnel action=\"create\" type=\"v6v4\" proxy=\"no\">\r\n <client>\r\n  <address type=\"ipv4\">192.0.2.2</address>\r\n  \
            <keepalive interval=\"5\">\r\n     <address type=\"ipv6\">::</address>\r\n  </keepalive>\r\n  <router>\r\n   <prefix length=\"56\"/>\r\n  </router>\r\n </client>\r\n</tunnel>\r\n";
        let w = read(text).unwrap();
        assert_eq!((w.action, w.kind.as_str(), w.prefix, w.keepalive), (Action::Create, "v6v4", Some(56), Some(5)));
        assert_eq!((w.ipv4, w.ipv6), ("192.0.2.2".parse().ok(), None));
        assert_eq!(read("<tunnel action=\"accept\"></tunnel>\r\n").unwrap().action, Action::Accept);
    }

    /// Proves rfc5572-4.7-xml.
    #[test]
    fn hostile_documents() {
        let bomb =
            "<!DOCTYPE t [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;\">]><tunnel action=\"create\">&b;</tunnel>";
        let deep = "<tunnel action=\"create\">".to_owned() + &"<a>".repeat(20) + &"</a>".repeat(20) + "</tunnel>";
        let wide = "<tunnel action=\"create\">".to_owned() + &"<a/>".repeat(100) + "</tunnel>";
        for bad in [
            bomb,
            &deep,
            &wide,
            "",
            "x",
            "<tunnel>",
            "<tunnel action=\"create\">",
            "<tunnel action=\"explode\"/>",
            "<other action=\"create\"/>",
            "<tunnel action=\"create\"/><tunnel action=\"delete\"/>",
            "<tunnel action=\"create\"><client><prefix length=\"300\"/></client></tunnel>",
            "<tunnel action=\"create\">&lol;</tunnel>",
            "<tunnel action=\"&#99;reate\"/>",
            "<?xml-stylesheet href=\"x\"?><tunnel action=\"create\"/>",
            "<tunnel action='create' action='delete'/>",
        ] {
            assert_eq!(read(bad), Err(XmlError::Malformed), "{bad}");
        }
        let address = "<tunnel action=\"create\"><client><address type=\"ipv4\">999.1.1.1</address></client></tunnel>";
        assert_eq!(read(address), Err(XmlError::Ipv4));
    }

    proptest! {
        #[test]
        fn anything(text in ".{0,400}") {
            let _ = read(&text);
        }

        #[test]
        fn nearly_right(parts in proptest::collection::vec(0usize..12, 0..30)) {
            const WORDS: [&str; 12] = [
                "<tunnel action=\"create\" type=\"v6v4\">", "</tunnel>", "<client>", "</client>", "<address type=\"ipv4\">",
                "</address>", "192.0.2.1", "<router>", "</router>", "<prefix length=\"48\"/>", "&amp;", "<!-- x -->",
            ];
            let text: String = parts.into_iter().map(|i| WORDS[i]).collect();
            let _ = read(&text);
        }
    }
}
