//! A frame: one owned buffer with free room in front, and what is known about it beside the bytes.
//!
//! Adding an outer header or a link header moves the start index, not the payload. Offload metadata travels with the
//! frame (the Linux `virtio_net_hdr` model): a checksum that is not yet computed, and the segment size of a super-frame.

use crate::port::PortId;
use bytes::{Buf, BytesMut};

/// Free bytes before the data of a freshly received frame: room for two IPv6 outer headers, GRE and a link header.
pub const HEADROOM: usize = 192;

/// The largest link-layer frame: a 64 KiB packet, an Ethernet header and two VLAN tags.
pub const MAX_FRAME: usize = 65_535 + 14 + 8;

/// A transport checksum that the last hop before a wire must still compute.
///
/// As in Linux CHECKSUM_PARTIAL: the field already holds the folded pseudo-header sum (not inverted); the sum from
/// `start` to the end of the packet has to be stored, inverted, at `start + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// First summed byte, counted from the first byte of the frame's data (so it moves with [`Frame::push_front`]).
    pub start: u16,
    /// Where the checksum field lies, counted from `start`.
    pub offset: u16,
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// What kind of super-frame this is (`virtio_net_hdr.gso_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP, cut into datagrams of the segment size (USO, `VIRTIO_NET_HDR_GSO_UDP_L4`), either family.
    UdpL4,
}

/// A super-frame that still has to be cut into segments before a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// The transport protocol.
    pub kind: GsoKind,
    /// Payload bytes per segment.
    pub size: u16,
    /// Whether the TCP flags carry ECN (CWR only on the first segment, RFC 3168 6.1.2).
    pub ecn: bool,
}

/// What is known about a frame beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// The port (or, after decapsulation, the tunnel) through which it came. [`PortId::NONE`] for our own packets.
    pub port: PortId,
    /// A checksum not yet computed.
    pub csum: Option<PartialChecksum>,
    /// A super-frame not yet cut.
    pub gso: Option<Gso>,
    /// The VLAN tag (TCI) that the kernel took out of the frame, if any; ports put it back into the bytes or here on send.
    pub vlan_tci: Option<u16>,
    /// This router has taken its one from the TTL or hop limit already.
    pub ttl_taken: bool,
    /// It was put together from fragments here: translated to IPv4 it may be fragmented again.
    pub joined: bool,
    /// The control side has agreed to its translation.
    pub admitted: bool,
    /// Whether its sender is to be told of a better way has been decided already.
    pub redirected: bool,
    /// The guard of the port where it came in has let it pass.
    pub passed_in: bool,
    /// The filter of the port that it is about to leave by has let it pass.
    pub passed_out: bool,
    /// It is to find out whether it fits: the MTU in force of the tunnel that it enters does not hold for it.
    pub beyond_mtu: bool,
    /// A step along its source route was made here: what the route's pointer was before (RFC 791 3.1). 0: none was.
    pub source_route: u8,
    /// Set for rules to look at ([`crate::policy`]); 0: that of the port through which it came.
    pub mark: u32,
}

impl Meta {
    /// Whether something is known that must be seen to before the frame can be sent or edited.
    #[inline]
    pub fn is_special(&self) -> bool {
        self.csum.is_some() | self.gso.is_some() | self.vlan_tci.is_some()
    }
}

/// Where a frame's memory belongs: 0 for memory of its own, otherwise a number that whoever lent it chose (see
/// [`FramePool::add_home`]).
pub type Home = u8;

/// A packet buffer: headroom, data, tailroom in one piece of memory, its own or part of a pool's.
#[derive(Debug)]
pub struct Frame {
    buf: BytesMut,
    start: u32,
    end: u32,
    home: Home,
    /// What is known beside the bytes.
    pub meta: Meta,
}

impl Default for Frame {
    /// A frame without any memory, useful to leave behind in place of one that was taken.
    fn default() -> Self {
        Frame { buf: BytesMut::new(), start: 0, end: 0, home: 0, meta: Meta::default() }
    }
}

impl Clone for Frame {
    /// A copy in memory of its own, with [`HEADROOM`] and no room behind the data.
    fn clone(&self) -> Self {
        if !self.has_memory() {
            return Frame::default();
        }
        Frame { meta: self.meta, ..Frame::from_slice(self.data()) }
    }
}

impl Frame {
    /// An empty frame able to hold `capacity` bytes of data beside [`HEADROOM`].
    pub fn with_capacity(capacity: usize) -> Self {
        Frame::over(BytesMut::zeroed(HEADROOM + capacity))
    }

    /// An empty frame in this memory.
    fn over(buf: BytesMut) -> Self {
        let start = HEADROOM.min(buf.len()) as u32;
        Frame { buf, start, end: start, home: 0, meta: Meta::default() }
    }

    /// An empty frame in memory that belongs elsewhere: a piece that a device shares. At most 4 GiB.
    pub fn lent(memory: BytesMut, home: Home) -> Self {
        Frame { home, ..Frame::over(memory) }
    }

    /// Where its memory belongs.
    pub fn home(&self) -> Home {
        self.home
    }

    /// The data is the `len` bytes from byte `start` of the buffer: something else wrote them there. False, and unchanged,
    /// when they do not lie in the buffer.
    pub fn place(&mut self, start: usize, len: usize) -> bool {
        let fits = start.checked_add(len).is_some_and(|end| end <= self.buf.len());
        if fits {
            (self.start, self.end) = (start as u32, (start + len) as u32);
        }
        fits
    }

    /// A frame with a copy of `data` and just enough memory for it beside [`HEADROOM`].
    pub fn from_slice(data: &[u8]) -> Self {
        let mut f = Frame::with_capacity(data.len());
        f.set_data(data);
        f
    }

    /// Forgets data and metadata; the memory stays.
    pub fn reset(&mut self) {
        self.start = HEADROOM.min(self.buf.len()) as u32;
        self.end = self.start;
        self.meta = Meta::default();
    }

    /// Replaces the data by a copy of `data`, headroom in front. False, and empty, when it does not fit.
    pub fn set_data(&mut self, data: &[u8]) -> bool {
        let meta = self.meta;
        self.reset();
        self.meta = meta;
        let s = self.start as usize;
        match self.buf.get_mut(s..s + data.len()) {
            Some(room) => {
                room.copy_from_slice(data);
                self.end = (s + data.len()) as u32;
                true
            }
            None => false,
        }
    }

    /// The whole buffer behind the headroom, for a receive call to fill; finish with [`Frame::set_len`].
    pub fn spare_mut(&mut self) -> &mut [u8] {
        let s = self.start as usize;
        &mut self.buf[s..]
    }

    /// Sets the number of data bytes after a receive call, clamped to the buffer.
    pub fn set_len(&mut self, len: usize) {
        self.end = (self.start as usize + len).min(self.buf.len()) as u32;
    }

    /// The data.
    pub fn data(&self) -> &[u8] {
        &self.buf[self.start as usize..self.end as usize]
    }

    /// The data, to edit.
    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut self.buf[self.start as usize..self.end as usize]
    }

    /// Number of data bytes.
    pub fn len(&self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether there is no data.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Free bytes before the data.
    pub fn headroom(&self) -> usize {
        self.start as usize
    }

    /// The largest length that the data can have from its present start.
    pub fn capacity(&self) -> usize {
        self.buf.len() - self.start as usize
    }

    /// Grows the data by `n` bytes at the front (their content is whatever was there) and returns the new data.
    /// None, and unchanged, when the headroom is too small. A pending checksum moves along.
    pub fn push_front(&mut self, n: usize) -> Option<&mut [u8]> {
        if n > self.start as usize {
            return None;
        }
        self.start -= n as u32;
        if let Some(c) = &mut self.meta.csum {
            c.start += n as u16;
        }
        Some(self.data_mut())
    }

    /// Removes up to `n` bytes from the front. A pending checksum moves along, and is dropped if its start is removed.
    pub fn pull_front(&mut self, n: usize) {
        let n = n.min(self.len());
        self.start += n as u32;
        self.meta.csum =
            self.meta.csum.and_then(|c| Some(PartialChecksum { start: c.start.checked_sub(n as u16)?, ..c }));
    }

    /// Puts `new` bytes (their content is whatever was there) in place of the first `old` ones, keeps `rest` bytes behind
    /// them at most, and returns the new data. None, and unchanged, when that does not fit. Not for frames with a pending
    /// checksum.
    #[inline]
    pub fn exchange_front(&mut self, old: usize, new: usize, rest: usize) -> Option<&mut [u8]> {
        let kept = self.start as usize + old;
        let end = (kept + rest).min(self.end as usize);
        let start = kept.checked_sub(new)?;
        if end < kept {
            return None;
        }
        let data = self.buf.get_mut(start..end)?;
        (self.start, self.end) = (start as u32, end as u32);
        Some(data)
    }

    /// Cuts the data to `len` bytes if it is longer (Ethernet padding).
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.end = self.start + len as u32;
        }
    }

    /// Whether the frame owns memory (a default frame does not).
    pub fn has_memory(&self) -> bool {
        !self.buf.is_empty()
    }
}

/// Frames at rest, ready for the next receive call. Never grows past its limit; a worker owns one.
#[derive(Debug)]
pub struct FramePool {
    free: Vec<Frame>,
    limit: usize,
    frame_capacity: usize,
    /// Lent frames at rest, by home.
    homes: Vec<Vec<Frame>>,
}

impl FramePool {
    /// A pool of `count` frames of `frame_capacity` data bytes each, all allocated now, in one piece: the operating system
    /// provides the memory of a frame's pages when they are first written, so that large frames cost what they carry.
    pub fn new(count: usize, frame_capacity: usize) -> Self {
        let mut pool = FramePool { free: Vec::with_capacity(count), limit: count, frame_capacity, homes: Vec::new() };
        pool.refill(count);
        // The first one taken is the first in memory.
        pool.free.reverse();
        pool
    }

    /// Takes an empty frame, or None when all are in use (the caller counts a drop).
    pub fn take(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    /// Makes room for `count` more lent frames of `home`: from now on [`FramePool::put`] keeps them apart.
    pub fn add_home(&mut self, home: Home, count: usize) {
        let index = usize::from(home);
        if self.homes.len() <= index {
            self.homes.resize_with(index + 1, Vec::new);
        }
        let list = &mut self.homes[index];
        list.reserve_exact(list.capacity() - list.len() + count);
    }

    /// Takes back room for `count` lent frames of `home`, which have been taken out before.
    pub fn shrink_home(&mut self, home: Home, count: usize) {
        if let Some(list) = self.homes.get_mut(usize::from(home)) {
            list.shrink_to(list.capacity().saturating_sub(count));
        }
    }

    /// Takes a lent frame of this home: the last that was put back.
    pub fn take_lent(&mut self, home: Home) -> Option<Frame> {
        self.homes.get_mut(usize::from(home))?.pop()
    }

    /// Puts a frame back. Frames too small for receiving, those beyond the limit, and lent ones for which there is no
    /// room, are freed.
    pub fn put(&mut self, mut frame: Frame) {
        frame.reset();
        if frame.home != 0 {
            if let Some(list) = self.homes.get_mut(usize::from(frame.home)).filter(|l| l.len() < l.capacity()) {
                list.push(frame);
            }
        } else if self.free.len() < self.limit && frame.capacity() >= self.frame_capacity {
            self.free.push(frame);
        }
    }

    /// Puts a copy in the place of a frame that could be one of this pool's, which keeps that one. For frames that somebody
    /// else will free, or keep for long: large buffers, cut from one piece of memory, come home, and what is kept takes what it
    /// needs.
    pub fn keep(&mut self, frame: &mut Frame) {
        if frame.home != 0 || frame.start as usize + frame.capacity() >= HEADROOM + self.frame_capacity {
            let copy = frame.clone();
            self.put(std::mem::replace(frame, copy));
        }
    }

    /// Frames available.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Allocates frames until at least `want` (at most the limit) are available. For the control side between bursts,
    /// because frames may leave for good through a port that keeps them (memory ports, neighbour queues).
    pub fn refill(&mut self, want: usize) {
        let missing = want.min(self.limit).saturating_sub(self.free.len());
        // An odd number of cache lines more each time keeps equal offsets of neighbouring frames out of one cache set.
        let size = |i: usize| HEADROOM + self.frame_capacity + (i % 16) * LINE;
        let room: usize = (0..missing).map(|i| size(i).next_multiple_of(LINE)).sum();
        let mut memory = BytesMut::zeroed(room + LINE);
        // Each begins with a line, and so does what it receives: headers lie in as few lines as can be.
        memory.advance(memory.as_ptr().align_offset(LINE).min(LINE));
        for i in 0..missing {
            let mut piece = memory.split_to(size(i).next_multiple_of(LINE));
            piece.truncate(size(i));
            self.free.push(Frame::over(piece));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn push_and_pull_move_the_pending_checksum() {
        let mut f = Frame::from_slice(&[1, 2, 3, 4]);
        f.meta.csum = Some(PartialChecksum { start: 2, offset: 1 });
        f.push_front(3).unwrap()[..3].copy_from_slice(&[9, 9, 9]);
        assert_eq!(f.data(), [9, 9, 9, 1, 2, 3, 4]);
        assert_eq!(f.meta.csum.unwrap().start, 5);
        f.pull_front(5);
        assert_eq!(f.meta.csum.unwrap().start, 0);
        f.pull_front(1);
        assert_eq!(f.meta.csum, None);
        assert!(f.push_front(10_000).is_none());
        assert_eq!(f.data(), [4]);
    }

    #[test]
    fn fronts_are_exchanged_within_the_buffer() {
        // old, new, rest; the bytes behind the new front, or None
        let rows: &[(usize, usize, usize, Option<&[u8]>)] = &[
            (2, 2, 9, Some(&[3, 4])),
            (2, 0, 1, Some(&[3])),
            (2, HEADROOM + 2, 9, Some(&[3, 4])),
            (2, HEADROOM + 3, 9, None),
            (4, 1, 9, Some(&[])),
            (5, 1, 9, None),
        ];
        for (old, new, rest, want) in rows {
            let mut f = Frame::from_slice(&[1, 2, 3, 4]);
            let got = f.exchange_front(*old, *new, *rest).map(|d| d[*new..].to_vec());
            assert_eq!(got.as_deref(), *want, "{old} {new} {rest}");
            match want {
                Some(w) => assert_eq!(f.len(), new + w.len()),
                None => assert_eq!(f.data(), [1, 2, 3, 4]),
            }
        }
    }

    #[test]
    fn frames_of_a_pool_are_apart_and_outlive_it() {
        let mut p = FramePool::new(40, 100);
        let mut all: Vec<Frame> = std::iter::from_fn(|| p.take()).collect();
        drop(p);
        for (i, f) in all.iter_mut().enumerate() {
            assert!(f.capacity() >= 100 && f.headroom() == HEADROOM && f.is_empty());
            assert!(f.set_data(&vec![i as u8; f.capacity()]));
            f.push_front(HEADROOM).unwrap()[..HEADROOM].fill(i as u8);
        }
        for (i, f) in all.iter().enumerate() {
            assert!(f.data().iter().all(|b| *b == i as u8));
        }
        let mut copy = all[3].clone();
        copy.data_mut().fill(99);
        assert!(all[3].data().iter().all(|b| *b == 3));
    }

    #[test]
    fn lent_frames_stay_apart_and_copies_are_not_lent() {
        let mut p = FramePool::new(1, 10);
        let lent = || Frame::lent(BytesMut::zeroed(1000), 2);
        p.put(lent());
        assert!(p.take_lent(2).is_none(), "no room was made");
        p.add_home(2, 2);
        (0..3).for_each(|_| p.put(lent()));
        assert_eq!((p.available(), p.take_lent(1).is_none()), (1, true));
        let mut f = p.take_lent(2).unwrap();
        assert!(f.place(900, 100) && !f.place(901, 100) && !f.place(1, usize::MAX));
        assert_eq!((f.headroom(), f.len(), f.home(), f.clone().home()), (900, 100, 2, 0));
        assert!(p.take_lent(2).is_some() && p.take_lent(2).is_none());
    }

    #[test]
    fn pool_is_bounded_and_refuses_small_frames() {
        let mut p = FramePool::new(2, 100);
        let (a, b) = (p.take().unwrap(), p.take().unwrap());
        assert!(p.take().is_none());
        p.put(Frame::from_slice(&[0; 10]));
        assert_eq!(p.available(), 0);
        p.put(a);
        p.put(b);
        p.put(Frame::with_capacity(100));
        assert_eq!(p.available(), 2);
    }
}
