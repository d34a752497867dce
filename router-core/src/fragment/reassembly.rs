//! Bounded reassembly of datagrams addressed to the router itself.
//!
//! Fragments are copied out of their frames, so that held memory is what the limits say and not a pool's large buffers.
//! Overlapping fragments discard the whole datagram, those still to come included (RFC 5722 for IPv6; done for IPv4 too,
//! where nothing honest overlaps either). When a limit is reached the oldest datagrams make room: if those held stayed,
//! a handful of fragments without their rest would shut everybody out until they time out.

use crate::checksum::{fill_ipv4_header, ipv4_header_len};
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::port::{PortId, TableId};
use crate::tables::domain_of;
use crate::time::{Duration, Instant};
use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How much a [`Reassembler`] may hold, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Datagrams, discarded ones that are still remembered included.
    pub datagrams: usize,
    /// Fragments of one datagram.
    pub fragments: usize,
    /// Bytes of all fragments.
    pub bytes: usize,
    /// From the first fragment of an IPv4 datagram to its end (RFC 1122 3.3.2 asks for a fixed value).
    pub timeout_v4: Duration,
    /// From the first fragment of an IPv6 datagram to its end (RFC 8200 4.5: 60 seconds).
    pub timeout_v6: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            datagrams: 256,
            fragments: 128,
            bytes: 4 << 20,
            timeout_v4: Duration::from_secs(60),
            timeout_v6: Duration::from_secs(60),
        }
    }
}

/// What became of a fragment.
#[derive(Debug)]
pub enum Pushed {
    /// Not a fragment: go on with the frame that was given.
    Whole,
    /// A copy is held; the frame given is free again, but counts as held.
    Held,
    /// The datagram is complete. `merged` fragments held until now are held no more: they, but not the one given, which
    /// lives on in `frame`, are to be counted as delivered.
    Complete {
        /// The whole packet, from its IP header.
        frame: Frame,
        /// Fragments that were held.
        merged: usize,
    },
    /// The fragment was dropped.
    Dropped {
        /// Why.
        reason: DropReason,
        /// Fragments that were held and are dropped with it, for the same reason.
        also: usize,
        /// RFC 8200 4.5 asks for an ICMPv6 parameter problem, code 0, pointing to this offset.
        pointer: Option<u32>,
    },
}

/// A datagram that ran out of time.
#[derive(Debug)]
pub struct Expired {
    /// Its first fragment, if it came: the answer is time exceeded, code 1 (RFC 1122 3.3.2, RFC 8200 4.5).
    pub first: Option<Frame>,
    /// Fragments that were held and are dropped now, as [`DropReason::LocalFragment`].
    pub fragments: usize,
}

/// What tells datagrams apart: RFC 791 3.2, RFC 8200 4.5. The protocol is 0 for IPv6.
type Key = (IpAddr, IpAddr, u32, u8);

/// And in which table, for VRFs may have the same addresses.
type Place = (Key, TableId);

/// One fragment as its headers describe it.
struct Facts {
    key: Key,
    /// In bytes.
    offset: usize,
    more: bool,
    /// Where its part of the payload lies in the packet.
    payload: std::ops::Range<usize>,
    /// IPv6: where the fragment header is, and the field that names it.
    v6: Option<(usize, usize)>,
    ecn: u8,
    atomic: bool,
}

struct Part {
    packet: Box<[u8]>,
    port: PortId,
    facts: Facts,
}

impl Part {
    fn end(&self) -> usize {
        self.facts.offset + self.facts.payload.len()
    }

    fn payload(&self) -> &[u8] {
        &self.packet[self.facts.payload.clone()]
    }
}

struct Datagram {
    since: Instant,
    deadline: Instant,
    /// By offset, never overlapping.
    parts: Vec<Part>,
    /// Payload length, once the last fragment is here.
    end: Option<usize>,
    /// An overlap was seen: everything of it is dropped until the deadline.
    discarded: bool,
}

/// Reassembles datagrams. See the module.
pub struct Reassembler {
    limits: Limits,
    datagrams: HashMap<Place, Datagram, FixedState>,
    held: usize,
    bytes: usize,
    evicted: usize,
}

impl Reassembler {
    /// An empty one. `seed` should differ between starts: senders choose the keys.
    pub fn new(limits: Limits, seed: u64) -> Self {
        let datagrams = HashMap::with_hasher(FixedState::with_seed(seed));
        Reassembler { limits, datagrams, held: 0, bytes: 0, evicted: 0 }
    }

    /// Fragments held: part of the conservation law's `held`.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Fragments that made room for others since this was last asked: they are held no more, and dropped as
    /// [`DropReason::HeldLimit`]. To be asked after each [`Reassembler::push`].
    pub fn take_evicted(&mut self) -> usize {
        std::mem::take(&mut self.evicted)
    }

    /// Takes a packet that starts at the first byte of `frame`'s data, of a router with one table.
    pub fn push(&mut self, now: Instant, frame: &Frame) -> Pushed {
        self.push_in(now, TableId::MAIN, frame)
    }

    /// Takes a packet that starts at the first byte of `frame`'s data, and came through a port of this table.
    pub fn push_in(&mut self, now: Instant, table: TableId, frame: &Frame) -> Pushed {
        let packet = frame.data();
        let dropped = |reason, also| Pushed::Dropped { reason, also, pointer: None };
        let facts = match Facts::of(packet) {
            Ok(Some(f)) => f,
            Ok(None) => return Pushed::Whole,
            Err(pointer) => return Pushed::Dropped { reason: DropReason::LocalFragment, also: 0, pointer },
        };
        let part = Part { packet: packet[..facts.payload.end].into(), port: frame.meta.port, facts };
        if part.facts.atomic {
            // RFC 6946: never mixed with other fragments of the same identification.
            return Pushed::Complete { frame: join(&[part]), merged: 0 };
        }
        let key = (part.facts.key, domain_of(table));
        if !self.datagrams.contains_key(&key) {
            if self.datagrams.len() >= self.limits.datagrams && !self.evict(&key) {
                return dropped(DropReason::HeldLimit, 0);
            }
            let timeout = if key.0.0.is_ipv4() { self.limits.timeout_v4 } else { self.limits.timeout_v6 };
            let empty =
                Datagram { since: now, deadline: now + timeout, parts: Vec::new(), end: None, discarded: false };
            self.datagrams.insert(key, empty);
        }
        let Some(d) = self.datagrams.get_mut(&key) else { return dropped(DropReason::HeldLimit, 0) };
        if d.discarded {
            return dropped(DropReason::LocalFragment, 0);
        }
        let at = d.parts.partition_point(|p| p.facts.offset < part.facts.offset);
        match d.fits(at, &part) {
            Fit::Free => {}
            Fit::Duplicate => return dropped(DropReason::LocalFragment, 0),
            Fit::Overlap => {
                let also = d.parts.len();
                d.discarded = true;
                let parts = std::mem::take(&mut d.parts);
                self.forget(&parts);
                return dropped(DropReason::LocalFragment, also);
            }
        }
        let own: usize = d.parts.iter().map(|p| p.packet.len()).sum();
        if own + part.packet.len() > self.limits.bytes || d.parts.len() >= self.limits.fragments {
            if d.parts.is_empty() {
                self.datagrams.remove(&key);
            }
            return dropped(DropReason::HeldLimit, 0);
        }
        while self.bytes + part.packet.len() > self.limits.bytes && self.evict(&key) {}
        let Some(d) = self.datagrams.get_mut(&key) else { return dropped(DropReason::HeldLimit, 0) };
        if !part.facts.more {
            d.end = Some(part.end());
        }
        self.held += 1;
        self.bytes += part.packet.len();
        d.parts.insert(at, part);
        if d.end != Some(d.parts.iter().map(|p| p.facts.payload.len()).sum()) {
            return Pushed::Held;
        }
        let parts = self.datagrams.remove(&key).map(|d| d.parts).unwrap_or_default();
        self.forget(&parts);
        let merged = parts.len().saturating_sub(1);
        if !may_join(&parts) {
            return dropped(DropReason::LocalFragment, merged);
        }
        Pushed::Complete { frame: join(&parts), merged }
    }

    /// Gives up what is overdue at `now`.
    pub fn poll(&mut self, now: Instant, out: &mut Vec<Expired>) {
        let (mut held, mut bytes) = (self.held, self.bytes);
        self.datagrams.retain(|_, d| {
            if d.deadline > now {
                return true;
            }
            held -= d.parts.len();
            bytes -= d.parts.iter().map(|p| p.packet.len()).sum::<usize>();
            if !d.parts.is_empty() {
                let first = d.parts.first().filter(|p| p.facts.offset == 0).map(|p| {
                    let mut f = Frame::from_slice(&p.packet);
                    f.meta.port = p.port;
                    f
                });
                out.push(Expired { first, fragments: d.parts.len() });
            }
            false
        });
        (self.held, self.bytes) = (held, bytes);
    }

    /// When [`Reassembler::poll`] has something to do next.
    pub fn poll_at(&self) -> Option<Instant> {
        self.datagrams.values().map(|d| d.deadline).min()
    }

    /// Gives up the oldest datagram but the one with this key. False if there is none.
    fn evict(&mut self, but: &Place) -> bool {
        let others = self.datagrams.iter().filter(|(k, _)| *k != but);
        let oldest = others.min_by_key(|(k, d)| (d.since, *k)).map(|(k, _)| *k);
        let Some(gone) = oldest.and_then(|k| self.datagrams.remove(&k)) else { return false };
        self.forget(&gone.parts);
        self.evicted += gone.parts.len();
        true
    }

    fn forget(&mut self, parts: &[Part]) {
        self.held -= parts.len();
        self.bytes -= parts.iter().map(|p| p.packet.len()).sum::<usize>();
    }
}

enum Fit {
    Free,
    Duplicate,
    Overlap,
}

impl Datagram {
    /// Whether `part` goes between its neighbours; `at` is its place by offset.
    fn fits(&self, at: usize, part: &Part) -> Fit {
        let same = self.parts.get(at).filter(|p| p.facts.offset == part.facts.offset && p.end() == part.end());
        if same.is_some_and(|p| p.payload() == part.payload() && p.facts.more == part.facts.more) {
            // RFC 8200 4.5: exact duplicates may be ignored.
            return Fit::Duplicate;
        }
        let before = at.checked_sub(1).and_then(|i| self.parts.get(i)).is_some_and(|p| p.end() > part.facts.offset);
        let after = self.parts.get(at).is_some_and(|p| p.facts.offset < part.end());
        let beyond = match self.end {
            Some(end) => part.end() > end || !part.facts.more,
            None => !part.facts.more && self.parts.last().is_some_and(|p| p.end() > part.end()),
        };
        if before || after || beyond { Fit::Overlap } else { Fit::Free }
    }
}

impl Facts {
    /// `Ok(None)` when the packet is no fragment; `Err` with a pointer for a parameter problem when it is a bad one.
    fn of(packet: &[u8]) -> Result<Option<Facts>, Option<u32>> {
        match packet.first().map(|b| b >> 4) {
            Some(4) => Facts::v4(packet),
            Some(6) => Facts::v6(packet),
            _ => Err(None),
        }
    }

    fn v4(p: &[u8]) -> Result<Option<Facts>, Option<u32>> {
        let start = ipv4_header_len(p).ok_or(None)?;
        let end = usize::from(u16::from_be_bytes([p[2], p[3]]));
        let field = u16::from_be_bytes([p[6], p[7]]);
        let (offset, more) = (usize::from(field & 0x1fff) * 8, field & 0x2000 != 0);
        if offset == 0 && !more {
            return Ok(None);
        }
        let addr = |at: usize| IpAddr::V4(Ipv4Addr::new(p[at], p[at + 1], p[at + 2], p[at + 3]));
        if end <= start || end > p.len() || (more && (end - start) % 8 != 0) || start + offset + end - start > 0xffff {
            return Err(None);
        }
        let key = (addr(12), addr(16), u32::from(u16::from_be_bytes([p[4], p[5]])), p[9]);
        Ok(Some(Facts { key, offset, more, payload: start..end, v6: None, ecn: p[1] & 3, atomic: false }))
    }

    fn v6(p: &[u8]) -> Result<Option<Facts>, Option<u32>> {
        if p.len() < 40 {
            return Err(None);
        }
        let end = 40 + usize::from(u16::from_be_bytes([p[4], p[5]]));
        // What may stand before a fragment header: hop-by-hop options, destination options, a routing header.
        let (mut named_at, mut at) = (6, 40);
        while matches!(p[named_at], 0 | 43 | 60) {
            let len = p.get(at + 1).ok_or(None)?;
            (named_at, at) = (at, at + (usize::from(*len) + 1) * 8);
            if at > p.len() {
                return Err(None);
            }
        }
        if p[named_at] != 44 {
            return Ok(None);
        }
        let h = p.get(at..at + 8).ok_or(None)?;
        let field = u16::from_be_bytes([h[2], h[3]]);
        let (offset, more) = (usize::from(field & !7), field & 1 != 0);
        let start = at + 8;
        let atomic = offset == 0 && !more;
        if end > p.len() || end < start || (end == start && !atomic) {
            return Err(None);
        }
        if more && (end - start) % 8 != 0 {
            return Err(Some(4)); // the payload length field
        }
        if at - 40 + offset + (end - start) > 0xffff {
            return Err(Some(at as u32 + 2)); // the fragment offset field
        }
        let addr = |at: usize| {
            let mut o = [0; 16];
            o.copy_from_slice(&p[at..at + 16]);
            IpAddr::V6(Ipv6Addr::from(o))
        };
        let key = (addr(8), addr(24), u32::from_be_bytes([h[4], h[5], h[6], h[7]]), 0);
        let (v6, ecn) = (Some((at, named_at)), (p[1] >> 4) & 3);
        Ok(Some(Facts { key, offset, more, payload: start..end, v6, ecn, atomic }))
    }
}

/// Whether a complete set makes a packet: it fits a length field, and congestion marks agree with each other (RFC 3168
/// 5.3: a mark beside a fragment that is not ECN-capable means drop).
fn may_join(parts: &[Part]) -> bool {
    let payload: usize = parts.iter().map(|p| p.facts.payload.len()).sum();
    let header = parts.first().map_or(0, |p| p.facts.v6.map_or(p.facts.payload.start, |(at, _)| at - 40));
    let marked = parts.iter().any(|p| p.facts.ecn == 3);
    let incapable = parts.iter().any(|p| p.facts.ecn == 0);
    header + payload <= 0xffff && !(marked && incapable)
}

/// The packet of a complete set, in order of offset.
fn join(parts: &[Part]) -> Frame {
    let Some(first) = parts.first() else { return Frame::default() };
    let marked = parts.iter().any(|p| p.facts.ecn == 3);
    let header = first.facts.v6.map_or(first.facts.payload.start, |(at, _)| at);
    let len = header + parts.iter().map(|p| p.facts.payload.len()).sum::<usize>();
    let mut frame = Frame::with_capacity(len);
    frame.meta.port = first.port;
    let room = frame.spare_mut();
    room[..header].copy_from_slice(&first.packet[..header]);
    let mut at = header;
    for p in parts {
        room[at..at + p.payload().len()].copy_from_slice(p.payload());
        at += p.payload().len();
    }
    match first.facts.v6 {
        Some((fragment_at, named_at)) => {
            // RFC 8200 4.5: the fragment header goes, its next header moves to the header before.
            room[named_at] = first.packet[fragment_at];
            room[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
            room[1] |= if marked { 0x30 } else { 0 };
        }
        None => {
            room[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            room[6..8].fill(0);
            room[1] |= if marked { 3 } else { 0 };
            fill_ipv4_header(&mut room[..len]);
        }
    }
    frame.set_len(len);
    frame
}

#[cfg(test)]
#[path = "reassembly_tests.rs"]
mod tests;
