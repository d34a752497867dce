//! Classic capture files (draft-ietf-opsawg-pcap): read in either byte order and resolution, written in nanoseconds.

use router_core::port::Medium;
use router_core::time::Instant;
use std::io::{self, Read, Write};

const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
const LINKTYPE_ETHERNET: u32 = 1;
const LINKTYPE_RAW: u32 = 101;
const LINKTYPE_IPV4: u32 = 228;
const LINKTYPE_IPV6: u32 = 229;
/// Longest record accepted: more can only be a broken file.
const MAX_RECORD: u32 = router_core::frame::MAX_FRAME as u32;

/// What is wrong with a capture file.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file is not a classic capture file.
    #[error("not a capture file: it starts with {0:#010x}; pcapng files can be converted with `editcap -F pcap`")]
    Magic(u32),
    /// The file ends inside a header or a packet.
    #[error("the file ends in the middle of {what} at byte {offset}")]
    Truncated {
        /// Header or packet.
        what: &'static str,
        /// Where that begins.
        offset: u64,
    },
    /// A packet that cannot be.
    #[error("the packet at byte {offset} claims {len} bytes, more than any frame")]
    Length {
        /// Where its header begins.
        offset: u64,
        /// What it claims.
        len: u32,
    },
    /// Neither Ethernet nor bare IP.
    #[error("link type {0} is neither Ethernet (1) nor raw IP (101)")]
    LinkType(u32),
    /// Reading or writing failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads a capture file packet by packet.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    offset: u64,
    swapped: bool,
    nanoseconds: bool,
    medium: Medium,
}

impl<R: Read> Reader<R> {
    /// Reads the file header.
    pub fn new(mut from: R) -> Result<Self, CaptureError> {
        let mut header = [0u8; 24];
        read_whole(&mut from, &mut header, 0, "the file header")?.ok_or_else(|| truncated("the file header", 0))?;
        let word = |i: usize| u32::from_ne_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
        let magic = word(0);
        let (swapped, nanoseconds) = match (magic, magic.swap_bytes()) {
            (MICROSECONDS, _) => (false, false),
            (NANOSECONDS, _) => (false, true),
            (_, MICROSECONDS) => (true, false),
            (_, NANOSECONDS) => (true, true),
            _ => return Err(CaptureError::Magic(u32::from_be_bytes([header[0], header[1], header[2], header[3]]))),
        };
        // The upper bits of the link type hold FCS information.
        let link = (if swapped { word(20).swap_bytes() } else { word(20) }) & 0x0fff_ffff;
        let medium = match link {
            LINKTYPE_ETHERNET => Medium::Ethernet,
            LINKTYPE_RAW | LINKTYPE_IPV4 | LINKTYPE_IPV6 => Medium::Ip,
            other => return Err(CaptureError::LinkType(other)),
        };
        Ok(Reader { from, offset: 24, swapped, nanoseconds, medium })
    }

    /// What the packets look like.
    pub fn medium(&self) -> Medium {
        self.medium
    }

    /// Reads the next packet into `data` and returns its time, in nanoseconds since 1970. None: the file ends here.
    pub fn next(&mut self, data: &mut Vec<u8>) -> Result<Option<Instant>, CaptureError> {
        let mut header = [0u8; 16];
        let start = self.offset;
        if read_whole(&mut self.from, &mut header, start, "a packet header")?.is_none() {
            return Ok(None);
        }
        let word = |i: usize| {
            let w = u32::from_ne_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
            if self.swapped { w.swap_bytes() } else { w }
        };
        let (seconds, fraction, len) = (word(0), word(4), word(8));
        if len > MAX_RECORD {
            return Err(CaptureError::Length { offset: start, len });
        }
        data.clear();
        data.resize(len as usize, 0);
        read_whole(&mut self.from, data, start, "a packet")?
            .or(if len == 0 { Some(()) } else { None })
            .ok_or_else(|| truncated("a packet", start))?;
        self.offset += 16 + u64::from(len);
        let nanos = u64::from(fraction) * if self.nanoseconds { 1 } else { 1000 };
        Ok(Some(Instant::from_nanos(u64::from(seconds) * 1_000_000_000 + nanos)))
    }
}

fn truncated(what: &'static str, offset: u64) -> CaptureError {
    CaptureError::Truncated { what, offset }
}

/// Fills `buf`. None: the file ended before the first byte.
fn read_whole(
    from: &mut impl Read,
    buf: &mut [u8],
    offset: u64,
    what: &'static str,
) -> Result<Option<()>, CaptureError> {
    let mut have = 0;
    while have < buf.len() {
        match from.read(&mut buf[have..]) {
            Ok(0) if have == 0 => return Ok(None),
            Ok(0) => return Err(truncated(what, offset)),
            Ok(n) => have += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(Some(()))
}

/// Writes a capture file: little endian, nanoseconds, whole packets.
#[derive(Debug)]
pub struct Writer<W: Write> {
    to: W,
}

impl<W: Write> Writer<W> {
    /// Writes the file header.
    pub fn new(mut to: W, medium: Medium) -> io::Result<Self> {
        let link = if medium == Medium::Ethernet { LINKTYPE_ETHERNET } else { LINKTYPE_RAW };
        let mut h = Vec::with_capacity(24);
        h.extend(NANOSECONDS.to_le_bytes());
        h.extend([2, 0, 4, 0]);
        h.extend([0; 8]);
        h.extend(MAX_RECORD.to_le_bytes());
        h.extend(link.to_le_bytes());
        to.write_all(&h)?;
        Ok(Writer { to })
    }

    /// Appends a packet seen at `at` (nanoseconds since 1970, before 2106).
    pub fn write(&mut self, at: Instant, packet: &[u8]) -> io::Result<()> {
        let (seconds, nanos) = (at.as_nanos() / 1_000_000_000, at.as_nanos() % 1_000_000_000);
        let len = packet.len() as u32;
        let mut h = [0u8; 16];
        for (i, w) in [seconds as u32, nanos as u32, len, len].into_iter().enumerate() {
            h[4 * i..4 * i + 4].copy_from_slice(&w.to_le_bytes());
        }
        self.to.write_all(&h)?;
        self.to.write_all(packet)
    }

    /// Writes out what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(magic: u32, big: bool, link: u32, packets: &[(u32, u32, &[u8])]) -> Vec<u8> {
        let w = |v: u32| if big { v.to_be_bytes() } else { v.to_le_bytes() };
        let mut b = w(magic).to_vec();
        b.extend([0; 16]);
        b.extend(w(link));
        for (s, f, data) in packets {
            for v in [*s, *f, data.len() as u32, data.len() as u32] {
                b.extend(w(v));
            }
            b.extend(*data);
        }
        b
    }

    #[test]
    fn both_orders_and_resolutions() {
        for (magic, fraction, nanos) in [(MICROSECONDS, 7, 7000), (NANOSECONDS, 7, 7)] {
            for big in [false, true] {
                let bytes = file(magic, big, 1, &[(3, fraction, b"abc"), (4, 0, b"")]);
                let mut r = Reader::new(&bytes[..]).unwrap();
                let mut data = Vec::new();
                assert_eq!(r.medium(), Medium::Ethernet);
                assert_eq!(r.next(&mut data).unwrap(), Some(Instant::from_nanos(3_000_000_000 + nanos)));
                assert_eq!(data, b"abc");
                assert_eq!(r.next(&mut data).unwrap(), Some(Instant::from_millis(4000)));
                assert_eq!(r.next(&mut data).unwrap(), None);
            }
        }
    }

    #[test]
    fn broken_files_say_where() {
        let good = file(NANOSECONDS, false, 101, &[(1, 2, b"abcdef")]);
        let error = |bytes: &[u8]| {
            let mut data = Vec::new();
            Reader::new(bytes).and_then(|mut r| r.next(&mut data)).unwrap_err().to_string()
        };
        assert_eq!(error(&good[..10]), "the file ends in the middle of the file header at byte 0");
        assert_eq!(error(b""), "the file ends in the middle of the file header at byte 0");
        assert_eq!(error(&good[..30]), "the file ends in the middle of a packet header at byte 24");
        assert_eq!(error(&good[..40]), "the file ends in the middle of a packet at byte 24");
        assert_eq!(error(&good[..43]), "the file ends in the middle of a packet at byte 24");
        assert!(
            error(b"\x0a\x0d\x0d\x0a__________________________")
                .starts_with("not a capture file: it starts with 0x0a0d")
        );
        assert_eq!(error(&file(NANOSECONDS, true, 113, &[])), "link type 113 is neither Ethernet (1) nor raw IP (101)");
        let mut long = good.clone();
        long[32..36].copy_from_slice(&1_000_000u32.to_le_bytes());
        assert_eq!(error(&long), "the packet at byte 24 claims 1000000 bytes, more than any frame");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(packets in proptest::collection::vec((0u64..1 << 61, proptest::collection::vec(any::<u8>(), 0..50)), 0..10)) {
            let mut bytes = Vec::new();
            let mut w = Writer::new(&mut bytes, Medium::Ip).unwrap();
            for (t, p) in &packets {
                w.write(Instant::from_nanos(*t), p).unwrap();
            }
            let (mut r, mut data, mut back) = (Reader::new(&bytes[..]).unwrap(), Vec::new(), Vec::new());
            while let Some(t) = r.next(&mut data).unwrap() {
                back.push((t.as_nanos(), data.clone()));
            }
            prop_assert_eq!(back, packets);
        }

        #[test]
        fn anything_is_read_or_refused(tail in proptest::collection::vec(any::<u8>(), 0..200), magic in prop_oneof![Just(MICROSECONDS), Just(NANOSECONDS), any::<u32>()]) {
            let mut bytes = magic.to_le_bytes().to_vec();
            bytes.extend(tail);
            if let Ok(mut r) = Reader::new(&bytes[..]) {
                let mut data = Vec::new();
                while let Ok(Some(_)) = r.next(&mut data) {}
            }
        }
    }
}
