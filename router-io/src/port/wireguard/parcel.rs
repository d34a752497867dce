//! A batch of packets in one piece of memory: one message of a channel instead of hundreds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of packets under way between a worker and the thread, in one direction: some milliseconds' worth.
const UNDER_WAY: usize = 4 << 20;

/// Bounds what is under way in one direction by its size, whatever the number of parcels.
#[derive(Clone, Debug, Default)]
pub(super) struct Load(Arc<AtomicUsize>);

impl Load {
    /// Whether the parcel may still go; counted then.
    pub fn admit(&self, parcel: &Parcel) -> bool {
        let before = self.0.fetch_add(parcel.bytes.len(), Ordering::Relaxed);
        let fits = before < UNDER_WAY;
        if !fits {
            self.release(parcel);
        }
        fits
    }

    /// The parcel has arrived.
    pub fn release(&self, parcel: &Parcel) {
        self.0.fetch_sub(parcel.bytes.len(), Ordering::Relaxed);
    }
}

/// Most bytes of packets in one parcel, but for the last packet.
pub(super) const FULL: usize = 512 * 1024;
/// WireGuard pads packets to a multiple of this, so that lengths tell less.
const PAD: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Parcel {
    bytes: Vec<u8>,
    /// Start, length, length with padding.
    packets: Vec<(u32, u32, u32)>,
    next: usize,
}

impl Parcel {
    /// Adds a packet, with zeroes behind it up to a multiple of 16 bytes, if that is not more than `mtu`.
    pub fn push_padded(&mut self, packet: &[u8], mtu: usize) {
        let padded = packet.len().next_multiple_of(PAD).min(mtu).max(packet.len());
        let start = self.bytes.len();
        self.bytes.extend_from_slice(packet);
        self.bytes.resize(start + padded, 0);
        self.packets.push((start as u32, packet.len() as u32, padded as u32));
    }

    /// Lets `write` fill `room` bytes behind the last packet; what it returns is the next packet: how many of them.
    pub fn write(&mut self, room: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        let start = self.bytes.len();
        self.bytes.resize(start + room, 0);
        let len = write(&mut self.bytes[start..]).min(room);
        self.bytes.truncate(start + len);
        if len > 0 {
            self.packets.push((start as u32, len as u32, len as u32));
        }
    }

    /// The next packet, with its padding, and its length without.
    pub fn next(&mut self) -> Option<(&[u8], usize)> {
        let (start, len, padded) = *self.packets.get(self.next)?;
        self.next += 1;
        let packet = self.bytes.get(start as usize..(start + padded) as usize)?;
        Some((packet, len as usize))
    }

    /// Packets not yet taken.
    pub fn left(&self) -> usize {
        self.packets.len() - self.next
    }

    /// Whether no more should be added.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FULL
    }

    /// Empties it; the memory stays.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.packets.clear();
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_out_as_they_went_in() {
        let mut p = Parcel::default();
        p.push_padded(&[1; 20], 1420);
        p.push_padded(&[2; 1418], 1420);
        p.push_padded(&[3; 1430], 1420);
        p.write(100, |room| {
            room[..3].copy_from_slice(b"abc");
            3
        });
        p.write(50, |_| 0);
        assert_eq!(p.left(), 4);
        let (data, len) = p.next().unwrap();
        assert_eq!((&data[..20], &data[20..], len), (&[1; 20][..], &[0; 12][..], 20));
        let lengths: Vec<_> = std::iter::from_fn(|| p.next().map(|(d, l)| (d.len(), l))).collect();
        assert_eq!(lengths, [(1420, 1418), (1430, 1430), (3, 3)]);
        p.clear();
        assert_eq!((p.left(), p.next().is_none()), (0, true));
    }

    #[test]
    fn what_is_under_way_is_bounded_by_its_size() {
        let load = Load::default();
        let mut p = Parcel::default();
        p.push_padded(&[0; 1408], 1420);
        let sent = (0..10_000).filter(|_| load.admit(&p)).count();
        assert_eq!(sent, UNDER_WAY.div_ceil(1408));
        load.release(&p);
        assert!(load.admit(&p) && !load.admit(&p));
    }
}
