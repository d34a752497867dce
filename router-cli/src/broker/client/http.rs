//! One HTTP/1.1 request, over TLS if the address says so. Blocking, with a deadline and a limit on the answer.

use data_encoding::BASE64;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// For connecting, for each read and write.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer, in bytes.
const LONGEST: usize = 256 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address makes no sense.
    #[error("\"{0}\" is not the address of a broker: http://HOST[:PORT] or https://HOST[:PORT]")]
    Url(String),
    /// The network.
    #[error("cannot reach {0}: {1}")]
    Network(String, io::Error),
    /// TLS.
    #[error("{0}: {1}")]
    Tls(String, String),
    /// Not HTTP, or too much of it.
    #[error("{0} does not answer as a broker does")]
    Answer(String),
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
    /// Our own address of the connection.
    pub local: IpAddr,
}

/// A broker's address, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    tls: bool,
    host: String,
    port: u16,
}

impl Url {
    /// Reads `http://HOST[:PORT][/]`.
    pub fn parse(text: &str) -> Result<Url, HttpError> {
        let bad = || HttpError::Url(text.chars().take(200).collect());
        let (scheme, rest) = text.split_once("://").ok_or_else(bad)?;
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(bad()),
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => rest.split_once(':').map_or((rest, None), |(h, p)| (h, Some(p))),
        };
        let port = port.map_or(Ok(if tls { 443 } else { 80 }), |p| p.parse().map_err(|_| bad()))?;
        let clean = host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:".contains(c));
        if host.is_empty() || !clean || port == 0 {
            return Err(bad());
        }
        Ok(Url { tls, host: host.to_owned(), port })
    }

    /// Name and port, to be resolved.
    pub fn place(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Sends a request with basic authentication and a JSON body; IPv4 addresses first, because the tunnel needs one.
pub fn request(url: &Url, method: &str, path: &str, user: &str, key: &str, body: &[u8]) -> Result<Answer, HttpError> {
    let name = url.authority();
    let network = |e: io::Error| HttpError::Network(name.clone(), e);
    let mut addrs: Vec<_> = (url.host.as_str(), url.port).to_socket_addrs().map_err(network)?.collect();
    addrs.sort_by_key(|a| a.is_ipv6());
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    let mut stream = None;
    for addr in addrs.iter().take(4) {
        match TcpStream::connect_timeout(addr, PATIENCE) {
            Ok(s) => {
                stream = Some(s);
                break;
            }
            Err(e) => last = e,
        }
    }
    let stream = stream.ok_or(last).map_err(network)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(network)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(network)?;
    let local = stream.local_addr().map_err(network)?.ip();
    let credentials = BASE64.encode(format!("{user}:{key}").as_bytes());
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {name}\r\nUser-Agent: duet/{}\r\nAuthorization: Basic {credentials}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION"),
        body.len()
    );
    let message = [head.as_bytes(), body].concat();
    let bytes = if url.tls {
        let mut stream = StreamOwned::new(tls(url)?, stream);
        stream.write_all(&message).map_err(|e| HttpError::Tls(name.clone(), e.to_string()))?;
        read(&mut stream)
    } else {
        let mut stream = stream;
        stream.write_all(&message).map_err(network)?;
        read(&mut stream)
    };
    let (status, body) = parse(&bytes.map_err(network)?).ok_or_else(|| HttpError::Answer(name.clone()))?;
    Ok(Answer { status, body, local })
}

fn tls(url: &Url) -> Result<ClientConnection, HttpError> {
    let wrong = |why: String| HttpError::Tls(url.authority(), why);
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = ServerName::try_from(url.host.clone()).map_err(|e| wrong(e.to_string()))?;
    ClientConnection::new(Arc::new(config), server).map_err(|e| wrong(e.to_string()))
}

/// Until the other side closes.
fn read(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(n) if bytes.len() + n > LONGEST => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
            }
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
            // A peer that closes without saying so in TLS; the length tells whether all is there.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof && !bytes.is_empty() => return Ok(bytes),
            Err(e) => return Err(e),
        }
    }
}

/// Status and body. Chunks are for servers that do not know their answer's length: ours does.
pub fn parse(bytes: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let mut body = &bytes[end + 4..];
    for (name, value) in lines.filter_map(|l| l.split_once(':')) {
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return None;
        }
        if name.eq_ignore_ascii_case("content-length") {
            body = body.get(..value.trim().parse().ok()?)?;
        }
    }
    Some((status, body.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let of = |t: &str| Url::parse(t).map(|u| (u.tls, u.host, u.port)).ok();
        assert_eq!(of("http://b.example"), Some((false, "b.example".into(), 80)));
        assert_eq!(of("https://192.0.2.1:8443/"), Some((true, "192.0.2.1".into(), 8443)));
        assert_eq!(of("http://[2001:db8::1]:8080"), Some((false, "2001:db8::1".into(), 8080)));
        for bad in ["b.example", "ftp://x", "http://", "http://a b", "http://a:0", "http://a:x", "http://u@h\r\n"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn answers() {
        let of = |t: &[u8]| parse(t);
        assert_eq!(of(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabc"), Some((200, b"ab".to_vec())));
        assert_eq!(of(b"HTTP/1.0 404 Not Found\r\n\r\n"), Some((404, vec![])));
        for bad in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", b"SSH-2.0-x\r\n\r\n"] {
            assert_eq!(of(bad), None);
        }
    }
}
