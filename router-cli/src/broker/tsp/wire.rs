//! What travels: lines, documents with their length in front, and over UDP a header that tells repetitions apart.

/// Longest line, in bytes.
pub const LINE: usize = 1024;
/// Longest document, in bytes.
pub const DOCUMENT: usize = 8192;

/// Bytes of a conversation, cut into what the protocol is made of.
#[derive(Debug, Default)]
pub struct Input {
    bytes: Vec<u8>,
}

/// The peer does not keep to the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A line that does not end.
    #[error("line too long")]
    Line,
    /// A document that is too long.
    #[error("document too long")]
    Length,
    /// Not text.
    #[error("not UTF-8")]
    Text,
}

impl Input {
    /// More bytes; refused when they are more than any message has.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        if self.bytes.len() + bytes.len() > DOCUMENT + 2 * LINE {
            return Err(WireError::Length);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// Whether the end of a line is there.
    pub fn has_line(&self) -> bool {
        self.bytes.contains(&b'\n')
    }

    /// Whether nothing is left.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A line without its end. Clients are known to send a NUL behind a line, which is then in front of the next one.
    pub fn line(&mut self) -> Result<Option<Vec<u8>>, WireError> {
        let stray = self.bytes.iter().take_while(|b| **b == 0).count();
        self.bytes.drain(..stray);
        let Some(at) = self.bytes.iter().position(|b| *b == b'\n') else {
            return if self.bytes.len() > LINE { Err(WireError::Line) } else { Ok(None) };
        };
        if at > LINE {
            return Err(WireError::Line);
        }
        let mut line: Vec<u8> = self.bytes.drain(..=at).collect();
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(line))
    }

    /// A document with its length in front (RFC 5572).
    pub fn document(&mut self) -> Result<Option<String>, WireError> {
        let stray = self.bytes.iter().take_while(|b| matches!(b, 0 | b'\r' | b'\n')).count();
        self.bytes.drain(..stray);
        let Some(end) = self.bytes.iter().position(|b| *b == b'\n') else {
            return if self.bytes.len() > LINE { Err(WireError::Line) } else { Ok(None) };
        };
        let head = std::str::from_utf8(&self.bytes[..end]).map_err(|_| WireError::Text)?;
        let (name, value) = head.split_once(':').ok_or(WireError::Line)?;
        if !name.trim().eq_ignore_ascii_case("content-length") {
            return Err(WireError::Line);
        }
        let length: usize = value.trim().parse().map_err(|_| WireError::Length)?;
        if length > DOCUMENT {
            return Err(WireError::Length);
        }
        let from = end + 1;
        if self.bytes.len() < from + length {
            return Ok(None);
        }
        let text = String::from_utf8(self.bytes[from..from + length].to_vec()).map_err(|_| WireError::Text)?;
        self.bytes.drain(..from + length);
        Ok(Some(text))
    }
}

/// An answer with its length in front.
pub fn with_length(body: &str) -> Vec<u8> {
    format!("Content-length: {}\r\n{body}", body.len()).into_bytes()
}

/// The header of TSP over UDP: 0xf and a sequence number, a time stamp (RFC 5572).
pub const HEADER: usize = 8;

/// The header and the rest, if this is a message of the protocol and not an IPv6 packet of a tunnel.
pub fn split(datagram: &[u8]) -> Option<(&[u8; HEADER], &[u8])> {
    let (header, rest) = datagram.split_first_chunk::<HEADER>()?;
    (header[0] >> 4 == 0xf).then_some((header, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_and_documents() {
        let mut i = Input::default();
        i.push(b"VERSION=2.0.2\r\nAUTHENTICATE ANONYMOUS\r\n\0Content-length: 3\r\nab").unwrap();
        assert_eq!(i.line().unwrap().unwrap(), b"VERSION=2.0.2");
        assert_eq!(i.line().unwrap().unwrap(), b"AUTHENTICATE ANONYMOUS");
        assert_eq!(i.document(), Ok(None));
        i.push(b"c").unwrap();
        assert_eq!(i.document(), Ok(Some("abc".into())));
        assert!(i.is_empty());
        for (bad, why) in [
            ("Content-length: 9999\r\n", WireError::Length),
            ("Content-length: -1\r\n", WireError::Length),
            ("Content-length: 18446744073709551616\r\n", WireError::Length),
            ("Something: 1\r\n", WireError::Line),
            ("nothing\r\n", WireError::Line),
        ] {
            let mut i = Input::default();
            i.push(bad.as_bytes()).unwrap();
            assert_eq!(i.document(), Err(why), "{bad}");
        }
        let mut i = Input::default();
        i.push(&[b'x'; LINE + 1]).unwrap();
        assert_eq!(i.line(), Err(WireError::Line));
        assert_eq!(Input::default().push(&[0; DOCUMENT + 2 * LINE + 1]), Err(WireError::Length));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20)) {
            let mut i = Input::default();
            for p in &pieces {
                if i.push(p).is_err() { break }
                let _ = i.document();
                let _ = i.line();
            }
            let whole = pieces.concat();
            if let Some((header, rest)) = split(&whole) {
                prop_assert_eq!(header.len() + rest.len(), whole.len());
            }
        }
    }
}
