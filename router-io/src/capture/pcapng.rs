//! pcapng (draft-ietf-opsawg-pcapng): written with names, directions and comments; read as far as packets go.
//!
//! Every interface is declared as Ethernet: tools refuse files that mix link types. A packet without a link header gets
//! one made of zeros and the right EtherType.

use crate::port::pcap_file::{self, CaptureError};
use router_core::port::Medium;
use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const SIMPLE_PACKET: u32 = 3;
const STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
const ETHERNET: u16 = 1;
/// Longest block accepted.
const MAX_BLOCK: u32 = 16 << 20;

/// What is written about a packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Nanoseconds since 1970.
    pub nanos: u64,
    /// The interface's name.
    pub interface: &'a str,
    /// On its way in or out; None: not known.
    pub inbound: Option<bool>,
    /// A comment, such as why it was dropped.
    pub comment: Option<&'a str>,
    /// Its bytes.
    pub data: &'a [u8],
    /// Its whole length.
    pub len: u32,
    /// Whether the bytes start with an Ethernet header.
    pub ethernet: bool,
    /// A VLAN tag that belongs into it.
    pub vlan_tci: Option<u16>,
}

/// Writes a file.
#[derive(Debug)]
pub struct Writer<W: Write> {
    to: W,
    snap: u32,
    interfaces: HashMap<String, (u32, u64)>,
    names: Vec<String>,
    written: u64,
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Writes the section header. `snap` is the length to which packets were cut.
    pub fn new(mut to: W, snap: u32) -> io::Result<Self> {
        let mut body = Vec::new();
        body.extend(BYTE_ORDER.to_le_bytes());
        body.extend([1, 0, 0, 0]);
        body.extend(u64::MAX.to_le_bytes());
        option(&mut body, 4, concat!("duet ", env!("CARGO_PKG_VERSION")).as_bytes());
        end_of_options(&mut body);
        let mut block = Vec::new();
        wrap(&mut block, SECTION, &body);
        to.write_all(&block)?;
        let written = block.len() as u64;
        Ok(Writer { to, snap, interfaces: HashMap::new(), names: Vec::new(), written, block })
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Appends a packet, and its interface before the first one.
    pub fn write(&mut self, p: &Packet<'_>) -> io::Result<()> {
        let id = self.interface(p.interface)?;
        let mut data = Vec::with_capacity(p.data.len() + 18);
        let mut extra = 0;
        if p.ethernet {
            data.extend(p.data);
        } else {
            data.extend([0; 12]);
            data.extend(if p.data.first().is_some_and(|b| b >> 4 == 6) { [0x86, 0xdd] } else { [0x08, 0x00] });
            data.extend(p.data);
            extra = 14;
        }
        if let Some(tci) = p.vlan_tci.filter(|_| data.len() >= 12) {
            let [a, b] = tci.to_be_bytes();
            data.splice(12..12, [0x81, 0x00, a, b]);
            extra += 4;
        }
        let mut body = Vec::with_capacity(data.len() + 64);
        body.extend(id.to_le_bytes());
        body.extend(((p.nanos >> 32) as u32).to_le_bytes());
        body.extend((p.nanos as u32).to_le_bytes());
        body.extend((data.len() as u32).to_le_bytes());
        body.extend((p.len + extra).max(data.len() as u32).to_le_bytes());
        body.extend(&data);
        pad(&mut body);
        if let Some(comment) = p.comment {
            option(&mut body, 1, comment.as_bytes());
        }
        if let Some(inbound) = p.inbound {
            option(&mut body, 2, &u32::from(if inbound { 1u8 } else { 2 }).to_le_bytes());
        }
        if p.comment.is_some() || p.inbound.is_some() {
            end_of_options(&mut body);
        }
        self.put(ENHANCED_PACKET, &body)
    }

    fn interface(&mut self, name: &str) -> io::Result<u32> {
        if let Some((id, n)) = self.interfaces.get_mut(name) {
            *n += 1;
            return Ok(*id);
        }
        let id = self.names.len() as u32;
        self.names.push(name.to_owned());
        self.interfaces.insert(name.to_owned(), (id, 1));
        let mut body = Vec::new();
        body.extend(ETHERNET.to_le_bytes());
        body.extend([0, 0]);
        body.extend(self.snap.to_le_bytes());
        option(&mut body, 2, name.as_bytes());
        // Nanoseconds.
        option(&mut body, 9, &[9]);
        end_of_options(&mut body);
        self.put(INTERFACE, &body)?;
        Ok(id)
    }

    /// Writes statistics: how many packets each interface gave, and on the first how many were lost in all.
    pub fn finish(&mut self, nanos: u64, lost: u64) -> io::Result<()> {
        if self.names.is_empty() && lost > 0 {
            self.interface("router")?;
        }
        for (id, name) in self.names.clone().iter().enumerate() {
            let seen = self.interfaces.get(name).map_or(0, |(_, n)| *n);
            let dropped = if id == 0 { lost } else { 0 };
            let mut body = Vec::new();
            body.extend((id as u32).to_le_bytes());
            body.extend(((nanos >> 32) as u32).to_le_bytes());
            body.extend((nanos as u32).to_le_bytes());
            if id == 0 && lost > 0 {
                option(&mut body, 1, b"packets lost between the workers and the file, over all interfaces");
            }
            option(&mut body, 4, &(seen + dropped).to_le_bytes());
            option(&mut body, 5, &dropped.to_le_bytes());
            end_of_options(&mut body);
            self.put(STATISTICS, &body)?;
        }
        self.to.flush()
    }

    /// Writes out what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    fn put(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        self.block.clear();
        wrap(&mut self.block, kind, body);
        self.to.write_all(&self.block)?;
        self.written += self.block.len() as u64;
        Ok(())
    }
}

fn wrap(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let len = (12 + body.len()) as u32;
    out.extend(kind.to_le_bytes());
    out.extend(len.to_le_bytes());
    out.extend(body);
    out.extend(len.to_le_bytes());
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn end_of_options(body: &mut Vec<u8>) {
    body.extend([0; 4]);
}

/// Reads packets from a capture file of either format.
pub enum AnyReader<R: Read> {
    /// Classic.
    Classic(pcap_file::Reader<Prefixed<R>>),
    /// pcapng.
    Ng(Box<Reader<R>>),
}

/// A reader after its first bytes were looked at.
pub type Prefixed<R> = io::Chain<io::Cursor<Vec<u8>>, BufReader<R>>;

impl<R: Read> AnyReader<R> {
    /// Looks at the first bytes and picks the format.
    pub fn new(from: R) -> Result<Self, CaptureError> {
        let mut from = BufReader::new(from);
        let mut magic = Vec::new();
        from.by_ref().take(4).read_to_end(&mut magic)?;
        let ng = magic == SECTION.to_le_bytes();
        let from = io::Cursor::new(magic).chain(from);
        Ok(if ng {
            AnyReader::Ng(Box::new(Reader { from, offset: 0, swapped: false, links: Vec::new() }))
        } else {
            AnyReader::Classic(pcap_file::Reader::new(from)?)
        })
    }

    /// Reads the next packet into `data` and says what it looks like. None: the file ends here.
    pub fn next(&mut self, data: &mut Vec<u8>) -> Result<Option<Medium>, CaptureError> {
        match self {
            AnyReader::Classic(r) => {
                let medium = r.medium();
                Ok(r.next(data)?.map(|_| medium))
            }
            AnyReader::Ng(r) => r.next(data),
        }
    }
}

/// Reads a pcapng file.
pub struct Reader<R: Read> {
    from: Prefixed<R>,
    offset: u64,
    swapped: bool,
    /// Link types of the section's interfaces.
    links: Vec<u16>,
}

impl<R: Read> Reader<R> {
    fn next(&mut self, data: &mut Vec<u8>) -> Result<Option<Medium>, CaptureError> {
        loop {
            let start = self.offset;
            let cut = |what| CaptureError::Truncated { what, offset: start };
            let mut head = [0u8; 8];
            let got = read_up_to(&mut self.from, &mut head)?;
            if got == 0 {
                return Ok(None);
            }
            if got < head.len() {
                return Err(cut("a block header"));
            }
            let kind = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
            let mut length = [head[4], head[5], head[6], head[7]];
            let mut order = Vec::new();
            if kind == SECTION {
                // Its byte order is said inside.
                self.from.by_ref().take(4).read_to_end(&mut order)?;
                self.swapped = order == BYTE_ORDER.to_be_bytes();
                self.links.clear();
            }
            let kind = if self.swapped { kind.swap_bytes() } else { kind };
            if self.swapped {
                length.reverse();
            }
            let len = u32::from_le_bytes(length);
            if !(12..=MAX_BLOCK).contains(&len) || !len.is_multiple_of(4) {
                return Err(CaptureError::Length { offset: start, len });
            }
            let rest = (len as usize - 8).saturating_sub(order.len());
            let mut body = vec![0; rest];
            if read_up_to(&mut self.from, &mut body)? < rest {
                return Err(cut("a block"));
            }
            self.offset += u64::from(len);
            // Without the length at its end.
            body.truncate(rest - 4);
            match kind {
                INTERFACE if body.len() >= 2 => self.links.push(self.half(&body, 0)),
                ENHANCED_PACKET if body.len() >= 20 => {
                    let (interface, kept) = (self.word(&body, 0) as usize, self.word(&body, 12) as usize);
                    let bytes = body.get(20..20 + kept).ok_or(cut("a packet"))?;
                    let medium = self.medium(interface)?;
                    data.clear();
                    data.extend(bytes);
                    return Ok(Some(medium));
                }
                SIMPLE_PACKET if body.len() >= 4 => {
                    let len = self.word(&body, 0) as usize;
                    let medium = self.medium(0)?;
                    data.clear();
                    data.extend(body[4..].iter().take(len));
                    return Ok(Some(medium));
                }
                _ => {}
            }
        }
    }

    fn medium(&self, interface: usize) -> Result<Medium, CaptureError> {
        match self.links.get(interface) {
            Some(1) => Ok(Medium::Ethernet),
            Some(101 | 228 | 229) => Ok(Medium::Ip),
            Some(other) => Err(CaptureError::LinkType(u32::from(*other))),
            None => Err(CaptureError::Truncated { what: "the list of interfaces", offset: self.offset }),
        }
    }

    fn half(&self, b: &[u8], at: usize) -> u16 {
        let v = u16::from_le_bytes([b[at], b[at + 1]]);
        if self.swapped { v.swap_bytes() } else { v }
    }

    fn word(&self, b: &[u8], at: usize) -> u32 {
        let v = u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        if self.swapped { v.swap_bytes() } else { v }
    }
}

/// Fills `buf` as far as the input goes.
fn read_up_to(from: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < buf.len() {
        match from.read(&mut buf[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(have)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet<'a>(data: &'a [u8], ethernet: bool) -> Packet<'a> {
        Packet {
            nanos: 1_700_000_000_123_456_789,
            interface: "lan0",
            inbound: Some(true),
            comment: Some("why"),
            data,
            len: data.len() as u32,
            ethernet,
            vlan_tci: None,
        }
    }

    fn read(bytes: &[u8]) -> Vec<Vec<u8>> {
        let (mut r, mut data, mut out) = (AnyReader::new(bytes).unwrap(), Vec::new(), Vec::new());
        while r.next(&mut data).unwrap().is_some() {
            out.push(data.clone());
        }
        out
    }

    #[test]
    fn what_is_written_is_read_with_link_headers_made_up() {
        let mut file = Vec::new();
        let mut w = Writer::new(&mut file, 65_535).unwrap();
        w.write(&packet(&[7; 61], true)).unwrap();
        w.write(&Packet { interface: "tun0", vlan_tci: Some(5), ..packet(&[0x60, 1, 2], false) }).unwrap();
        w.finish(5, 3).unwrap();
        let len = w.written();
        assert_eq!(len, file.len() as u64);
        let got = read(&file);
        assert_eq!(got[0], [7; 61]);
        assert_eq!(got[1], [&[0; 12][..], &[0x81, 0, 0, 5, 0x86, 0xdd, 0x60, 1, 2]].concat());
    }

    #[test]
    fn big_endian_files_too() {
        let mut f = Vec::new();
        for w in [SECTION, 28, BYTE_ORDER, 0x0001_0000, u32::MAX, u32::MAX, 28] {
            f.extend(w.to_be_bytes());
        }
        for w in [INTERFACE, 20, 0x0065_0000, 65_535, 20] {
            f.extend(w.to_be_bytes());
        }
        for w in [ENHANCED_PACKET, 36, 0, 0, 0, 3, 3, 0x4500_0100, 36] {
            f.extend(w.to_be_bytes());
        }
        let mut r = AnyReader::new(&f[..]).unwrap();
        let mut data = Vec::new();
        assert_eq!(r.next(&mut data).unwrap(), Some(Medium::Ip));
        assert_eq!(data, [0x45, 0, 1]);
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(tail in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..400) {
            let mut file = Vec::new();
            let mut w = Writer::new(&mut file, 65_535).unwrap();
            w.write(&packet(&tail, true)).unwrap();
            w.finish(1, 0).unwrap();
            file.truncate(cut.min(file.len()));
            file.extend(&tail);
            if let Ok(mut r) = AnyReader::new(&file[..]) {
                let mut data = Vec::new();
                for _ in 0..1000 {
                    if !matches!(r.next(&mut data), Ok(Some(_))) {
                        break;
                    }
                }
            }
        }
    }
}
