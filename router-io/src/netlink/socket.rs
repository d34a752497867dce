//! The request and answer machinery: one socket, sequence numbers, acknowledgements, dumps and pipelined batches.

use super::NetlinkError;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use rustix::net::{RecvFlags, sockopt};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Messages of a batch that are under way at once: their acknowledgements fit the smallest usual receive buffer.
const BATCH: usize = 100;
/// The kernel never sends a longer datagram in answer to ours (it limits dumps to 32 KiB or the reader's buffer).
const RECV_BUFFER: usize = 64 << 10;
/// How often a dump that raced with a change is asked again before its last answer is taken as it is.
const DUMP_TRIES: usize = 8;

/// A client of the kernel's routing tables in one network namespace.
pub struct Netlink {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink").finish_non_exhaustive()
    }
}

/// One parsed header and where its payload lies in the receive buffer.
struct Part {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: std::ops::Range<usize>,
}

impl Netlink {
    /// Opens a client in the calling thread's network namespace.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`] if the kernel gives no netlink socket.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = open_socket(1 << 20)?;
        let on = |op, r: io::Result<()>| r.map_err(|source| NetlinkError::Socket { op, source });
        on("connect", socket.connect(&SocketAddr::new(0, 0)))?;
        // The kernel always answers; the limit is there so that a surprise is an error and not a hang.
        on(
            "set a time limit",
            sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_secs(10)))
                .map_err(io::Error::from),
        )?;
        // Both only improve error texts and bandwidth: old kernels may lack them.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        Ok(Netlink { socket, buffer: vec![0; RECV_BUFFER], sequence: 1 })
    }

    /// Sends one request and waits for its acknowledgement. `flags` are added to REQUEST and ACK.
    pub(super) fn acked(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        what: impl FnOnce() -> String,
    ) -> Result<(), NetlinkError> {
        let mut failed = None;
        self.pipeline(vec![message], flags, |_, e| failed = Some(e))?;
        match failed {
            None => Ok(()),
            Some((source, detail)) => Err(NetlinkError::Kernel { what: what(), source, detail }),
        }
    }

    /// Sends many requests, [`BATCH`] under way at once, and calls `failed` with the index of each one refused.
    pub(super) fn pipeline(
        &mut self,
        messages: Vec<RouteNetlinkMessage>,
        flags: u16,
        mut failed: impl FnMut(usize, (io::Error, Option<String>)),
    ) -> Result<(), NetlinkError> {
        let mut out = Vec::new();
        let mut done = 0;
        let mut messages = messages.into_iter().peekable();
        while messages.peek().is_some() {
            let first = self.sequence;
            out.clear();
            let mut count = 0;
            for message in messages.by_ref().take(BATCH) {
                append(&mut out, message, NLM_F_REQUEST | NLM_F_ACK | flags, first.wrapping_add(count));
                count += 1;
            }
            self.sequence = first.wrapping_add(count);
            self.send(&out)?;
            let mut missing = count;
            while missing > 0 {
                for part in self.receive()? {
                    let index = part.sequence.wrapping_sub(first);
                    if part.kind != NLMSG_ERROR || index >= count {
                        continue;
                    }
                    missing -= 1;
                    if let Some(e) = self.error_of(&part) {
                        failed(done + index as usize, e);
                    }
                }
            }
            done += count as usize;
        }
        Ok(())
    }

    /// Sends one request that is answered by exactly one message (a get).
    pub(super) fn get(
        &mut self,
        message: RouteNetlinkMessage,
        what: impl Fn() -> String,
    ) -> Result<RouteNetlinkMessage, NetlinkError> {
        let sequence = self.next_sequence();
        let mut out = Vec::new();
        append(&mut out, message, NLM_F_REQUEST, sequence);
        self.send(&out)?;
        loop {
            for part in self.receive()? {
                if part.sequence != sequence {
                    continue;
                }
                if part.kind == NLMSG_ERROR {
                    return Err(match self.error_of(&part) {
                        Some((source, detail)) => NetlinkError::Kernel { what: what(), source, detail },
                        None => NetlinkError::Answer { what: what(), why: "an acknowledgement without data".into() },
                    });
                }
                return self.decode(&part).map_err(|why| NetlinkError::Answer { what: what(), why });
            }
        }
    }

    /// Asks for a whole table. Entries that this version cannot decode are left out and noted in the log.
    pub(super) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        what: impl Fn() -> String,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let mut entries = Vec::new();
        for _ in 0..DUMP_TRIES {
            entries.clear();
            if !self.dump_once(message.clone(), &mut entries, &what)? {
                break;
            }
        }
        Ok(entries)
    }

    /// One round of a dump; true if the table changed meanwhile (NLM_F_DUMP_INTR) and the result may be torn.
    fn dump_once(
        &mut self,
        message: RouteNetlinkMessage,
        entries: &mut Vec<RouteNetlinkMessage>,
        what: &impl Fn() -> String,
    ) -> Result<bool, NetlinkError> {
        let sequence = self.next_sequence();
        let mut out = Vec::new();
        append(&mut out, message, NLM_F_REQUEST | NLM_F_DUMP, sequence);
        self.send(&out)?;
        let mut torn = false;
        loop {
            for part in self.receive()? {
                if part.sequence != sequence {
                    continue;
                }
                torn |= part.flags & NLM_F_DUMP_INTR != 0;
                match part.kind {
                    NLMSG_DONE => return Ok(torn),
                    NLMSG_ERROR => {
                        return match self.error_of(&part) {
                            Some((source, detail)) => Err(NetlinkError::Kernel { what: what(), source, detail }),
                            None => Ok(torn),
                        };
                    }
                    _ => match self.decode(&part) {
                        Ok(entry) => entries.push(entry),
                        Err(why) => tracing::debug!(what = what(), why, "netlink entry not understood"),
                    },
                }
            }
        }
    }

    fn next_sequence(&mut self) -> u32 {
        let now = self.sequence;
        self.sequence = now.wrapping_add(1);
        now
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        loop {
            match self.socket.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(NetlinkError::Socket { op: "send", source }),
            }
        }
    }

    fn receive(&mut self) -> Result<Vec<Part>, NetlinkError> {
        let len = receive_into(&self.socket, &mut self.buffer, RecvFlags::empty())
            .map_err(|source| NetlinkError::Socket { op: "receive", source })?;
        Ok(split(&self.buffer[..len]))
    }

    fn decode(&self, part: &Part) -> Result<RouteNetlinkMessage, String> {
        decode(&self.buffer, part)
    }

    /// The refusal that an NLMSG_ERROR carries; None for an acknowledgement.
    fn error_of(&self, part: &Part) -> Option<(io::Error, Option<String>)> {
        const HEADER: usize = 4 + 16;
        let bytes = &self.buffer[part.payload.clone()];
        let code = i32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
        (code != 0).then(|| {
            let detail = bytes.get(HEADER..).and_then(ext_ack_text);
            (io::Error::from_raw_os_error(code.saturating_neg()), detail)
        })
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Opens a bound rtnetlink socket whose receive buffer is `bytes` long, or as near to it as privilege allows.
pub(super) fn open_socket(bytes: usize) -> Result<Socket, NetlinkError> {
    let on = |op| move |source| NetlinkError::Socket { op, source };
    let mut socket = Socket::new(NETLINK_ROUTE).map_err(on("open"))?;
    socket.bind_auto().map_err(on("bind"))?;
    if sockopt::set_socket_recv_buffer_size_force(&socket, bytes).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(&socket, bytes);
    }
    Ok(socket)
}

/// Receives one datagram; interrupted calls are repeated.
pub(super) fn receive_into(socket: &Socket, buffer: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
    loop {
        match rustix::net::recv(socket, &mut *buffer, flags) {
            Ok((len, _)) => return Ok(len),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Decodes every message of a received datagram that this version understands.
pub(super) fn decode_all(bytes: &[u8]) -> Vec<RouteNetlinkMessage> {
    split(bytes).iter().filter_map(|part| decode(bytes, part).ok()).collect()
}

fn decode(bytes: &[u8], part: &Part) -> Result<RouteNetlinkMessage, String> {
    let mut header = NetlinkHeader::default();
    header.message_type = part.kind;
    header.flags = part.flags;
    RouteNetlinkMessage::deserialize(&header, &bytes[part.payload.clone()]).map_err(|e| e.to_string())
}

/// Cuts a datagram into its messages; stops at the first that does not fit.
fn split(bytes: &[u8]) -> Vec<Part> {
    const HEADER: usize = 16;
    let mut parts = Vec::new();
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|r| r.len() >= HEADER) {
        let Ok(message) = NetlinkBuffer::new_checked(rest) else { break };
        let len = message.length() as usize;
        if len < HEADER || len > rest.len() {
            break;
        }
        parts.push(Part {
            kind: message.message_type(),
            flags: message.flags(),
            sequence: message.sequence_number(),
            payload: at + HEADER..at + len,
        });
        at += len.next_multiple_of(4);
    }
    parts
}

/// NLMSGERR_ATTR_MSG of an extended acknowledgement.
fn ext_ack_text(mut tlvs: &[u8]) -> Option<String> {
    const NLMSGERR_ATTR_MSG: u16 = 1;
    while let [a, b, c, d, ..] = *tlvs {
        let len = usize::from(u16::from_ne_bytes([a, b]));
        let kind = u16::from_ne_bytes([c, d]) & 0x3fff;
        let value = tlvs.get(4..len)?;
        if kind == NLMSGERR_ATTR_MSG {
            return Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
        }
        tlvs = tlvs.get(len.next_multiple_of(4)..)?;
    }
    None
}

fn append(out: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16, sequence: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let at = out.len();
    out.resize(at + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut out[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_never_leaves_the_buffer() {
        let mut out = Vec::new();
        append(&mut out, RouteNetlinkMessage::GetLink(Default::default()), NLM_F_REQUEST, 7);
        append(&mut out, RouteNetlinkMessage::GetLink(Default::default()), NLM_F_REQUEST, 8);
        assert_eq!(split(&out).iter().map(|p| p.sequence).collect::<Vec<_>>(), [7, 8]);
        for cut in 0..out.len() {
            assert!(split(&out[..cut]).iter().all(|p| p.payload.end <= cut), "{cut}");
        }
        out[0..4].copy_from_slice(&3u32.to_ne_bytes());
        assert!(split(&out).is_empty());
    }

    #[test]
    fn extended_ack_message() {
        let mut tlv = Vec::from(9u16.to_ne_bytes());
        tlv.extend(1u16.to_ne_bytes());
        tlv.extend(b"nope\0");
        assert_eq!(ext_ack_text(&tlv).as_deref(), Some("nope"));
        assert_eq!(ext_ack_text(&tlv[..6]), None);
        assert_eq!(ext_ack_text(&[0; 8]), None);
    }
}
