//! The last packets that ended for each reason: a few per reason, the first bytes of each.
//!
//! One worker writes, anyone reads, nobody waits: each place has a sequence number that is odd while it is written, and
//! all its words are atomic. Under a flood only a few per second are kept, so that dropping stays cheap.

use crate::drop_reason::DropReason;
use crate::port::PortId;
use crate::time::Instant;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, fence};

/// Bytes kept of each packet.
pub const HEAD: usize = 128;
/// Packets kept per reason and worker.
const KEPT: usize = 4;
/// Of one reason, in nanoseconds, after a first few.
const EVERY: u64 = 100_000_000;
const WORDS: usize = HEAD / 8;

/// See the module.
#[derive(Debug, Default)]
pub struct LastDrops {
    /// Made with the first drop.
    reasons: OnceLock<Box<[Reason]>>,
}

#[derive(Debug, Default)]
struct Reason {
    /// When as many as are kept may be written at once again.
    full_at: AtomicU64,
    written: AtomicU64,
    places: [Place; KEPT],
}

#[derive(Debug, Default)]
struct Place {
    seq: AtomicU64,
    at: AtomicU64,
    /// Length, kept length, port, whether a link header is in front.
    facts: AtomicU64,
    head: [AtomicU64; WORDS],
}

/// A dropped packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastDrop {
    /// When.
    pub at: Instant,
    /// The port through which it came; [`PortId::NONE`] for a packet of our own.
    pub port: PortId,
    /// Its length then.
    pub len: u32,
    /// Whether the bytes start with a link header.
    pub link: bool,
    /// Its first bytes.
    pub head: Vec<u8>,
}

impl LastDrops {
    /// Keeps a dropped packet, if not too many of its kind were kept just now. Only the owning worker may call this.
    #[inline]
    pub fn note(&self, now: Instant, reason: DropReason, port: PortId, data: &[u8]) {
        let all = self.reasons.get_or_init(|| (0..DropReason::COUNT).map(|_| Reason::default()).collect());
        let Some(r) = all.get(reason.index()) else { return };
        let now = now.as_nanos();
        // A bucket with room for as many as are kept.
        let next = r.full_at.load(Relaxed).max(now) + EVERY;
        if next - now > EVERY * KEPT as u64 {
            return;
        }
        r.full_at.store(next, Relaxed);
        r.write(now, reason, port, data);
    }

    /// What is kept of one reason, oldest first. A place that is being written meanwhile is left out.
    pub fn read(&self, reason: DropReason) -> Vec<LastDrop> {
        let Some(r) = self.reasons.get().and_then(|all| all.get(reason.index())) else { return Vec::new() };
        let mut found: Vec<LastDrop> = r.places.iter().filter_map(Place::read).collect();
        found.sort_by_key(|d| d.at);
        found
    }
}

/// Reasons for which frames still have their link header.
fn has_link_header(reason: DropReason) -> bool {
    use DropReason as R;
    matches!(reason, R::FrameTooShort | R::UnknownEthertype | R::UnknownVlan | R::NotForUs)
}

impl Reason {
    #[cold]
    fn write(&self, now: u64, reason: DropReason, port: PortId, data: &[u8]) {
        let n = self.written.load(Relaxed);
        self.written.store(n.wrapping_add(1), Relaxed);
        let place = &self.places[n as usize % KEPT];
        let seq = place.seq.load(Relaxed);
        place.seq.store(seq.wrapping_add(1), Relaxed);
        fence(Release);
        let head = &data[..data.len().min(HEAD)];
        place.at.store(now, Relaxed);
        let link = u64::from(has_link_header(reason));
        let facts = (data.len() as u64) << 41 | (head.len() as u64) << 33 | link << 32 | u64::from(port.0);
        place.facts.store(facts, Relaxed);
        for (word, bytes) in place.head.iter().zip(head.chunks(8)) {
            let mut b = [0; 8];
            b[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(b), Relaxed);
        }
        place.seq.store(seq.wrapping_add(2), Release);
    }
}

impl Place {
    fn read(&self) -> Option<LastDrop> {
        let before = self.seq.load(Acquire);
        if before == 0 || before % 2 == 1 {
            return None;
        }
        let at = Instant::from_nanos(self.at.load(Relaxed));
        let facts = self.facts.load(Relaxed);
        let mut head: Vec<u8> = self.head.iter().flat_map(|w| w.load(Relaxed).to_le_bytes()).collect();
        fence(Acquire);
        if self.seq.load(Relaxed) != before {
            return None;
        }
        head.truncate((facts >> 33 & 0xff) as usize);
        let (port, link) = (PortId(facts as u32), facts >> 32 & 1 == 1);
        Some(LastDrop { at, port, len: (facts >> 41) as u32, link, head })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn the_last_few_are_kept_and_a_flood_is_sampled() {
        let l = LastDrops::default();
        let at = |ms| Instant::from_millis(ms);
        for i in 0..1000u64 {
            l.note(at(1000), DropReason::NoRoute, PortId(3), &[i as u8; 200]);
        }
        let seen = l.read(DropReason::NoRoute);
        assert_eq!(seen.iter().map(|d| d.head[0]).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert!(seen.iter().all(|d| d.len == 200 && d.head.len() == HEAD && d.port == PortId(3) && !d.link));
        l.note(at(1150), DropReason::NoRoute, PortId::NONE, &[9; 20]);
        assert_eq!(
            l.read(DropReason::NoRoute).last().map(|d| (d.head.len(), d.head[0], d.port)),
            Some((20, 9, PortId::NONE))
        );
        assert!(l.read(DropReason::TxFull).is_empty());
        l.note(at(1), DropReason::NotForUs, PortId(1), &[]);
        assert!(l.read(DropReason::NotForUs)[0].link);
    }

    #[test]
    fn readers_never_see_half_of_a_packet() {
        let (l, stop) = (Arc::new(LastDrops::default()), Arc::new(AtomicBool::new(false)));
        let writer = {
            let (l, stop) = (Arc::clone(&l), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut t = 1u64;
                while !stop.load(Relaxed) {
                    t += 1;
                    l.note(Instant::from_millis(t * 1000), DropReason::NoRoute, PortId(1), &[t as u8; 128]);
                }
            })
        };
        let mut seen = 0;
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while seen < 20_000 && std::time::Instant::now() < until {
            for d in l.read(DropReason::NoRoute) {
                assert!(d.head.iter().all(|b| *b == d.head[0]), "{d:?}");
                assert_eq!((d.at.as_nanos() / 1_000_000_000) as u8, d.head[0]);
                seen += 1;
            }
        }
        stop.store(true, Relaxed);
        writer.join().unwrap();
        assert!(seen > 0);
    }
}
