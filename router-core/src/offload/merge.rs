//! Joining TCP segments into super-frames (GRO in software) for a port that takes such: one send call, and one walk through
//! the receiving stack, in place of dozens.
//!
//! Only what a port would cut into exactly the same packets again is joined: segments of one flow that follow each other in
//! one batch, of equal size but for the last, whose headers differ in nothing but length, sequence number, identification and
//! checksums. A finished checksum is verified before it is given up for a pending one.

use super::segment::{Layout, TCP};
use crate::checksum::{self, Sum};
use crate::frame::{Frame, FramePool, Gso, GsoKind};

/// Flows that are open at the same time.
const FLOWS: usize = 8;
/// Segments shorter than this do not pay.
const LEAST: usize = 256;
/// TCP flags that a segment may have (RFC 9293 3.1).
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// A frame to which more may be joined.
#[derive(Clone, Copy)]
struct Open {
    /// Index among the frames that stay.
    at: usize,
    layout: Layout,
    /// Payload bytes of each of its segments.
    size: usize,
    /// The next expected sequence number.
    next: u32,
    segments: u16,
}

/// Joins what can be joined among `frames`, each with a link header of `link` bytes, in place and in order. Memory that is no
/// longer needed goes to `pool`.
pub fn merge(frames: &mut Vec<Frame>, link: usize, pool: &mut FramePool) {
    let mut open: [Option<Open>; FLOWS] = [None; FLOWS];
    let mut oldest = 0;
    let mut kept = 0;
    for i in 0..frames.len() {
        let (before, rest) = frames.split_at_mut(i);
        let Some(frame) = rest.first_mut() else { break };
        let candidate = Candidate::of(frame, link);
        let mut joined = false;
        if let Some(c) = &candidate {
            let same = open.iter_mut().find(|o| {
                o.as_ref()
                    .is_some_and(|o| before.get(o.at).is_some_and(|head| c.same_flow(frame, head, &o.layout, link)))
            });
            match same {
                Some(slot) => {
                    if let Some(o) = slot
                        && let Some(head) = before.get_mut(o.at)
                        && c.joins(frame, head, o, link, pool)
                    {
                        joined = true;
                        if c.size < o.size || c.push {
                            *slot = None;
                        }
                    } else {
                        *slot = c.opens(kept);
                    }
                }
                None => {
                    open[oldest] = c.opens(kept);
                    oldest = (oldest + 1) % FLOWS;
                }
            }
        } else {
            close_flow_of(frame, before, &mut open, link);
        }
        if joined {
            pool.put(std::mem::take(frame));
        } else {
            frames.swap(kept, i);
            kept += 1;
        }
    }
    frames.truncate(kept);
}

/// A frame that cannot be joined ends what is open of its flow: nothing behind it may go in front of it.
fn close_flow_of(frame: &Frame, before: &[Frame], open: &mut [Option<Open>; FLOWS], link: usize) {
    if open.iter().all(Option::is_none) {
        return;
    }
    let Some(layout) = frame.data().get(link..).and_then(Layout::of).filter(|l| !l.in_tunnel() && l.is(TCP)) else {
        return;
    };
    let c = Candidate { layout, size: 0, seq: 0, push: false };
    for slot in open {
        if let Some(o) = slot
            && before.get(o.at).is_some_and(|head| c.same_flow(frame, head, &o.layout, link))
        {
            *slot = None;
        }
    }
}

/// A frame that may begin or continue a super-frame.
struct Candidate {
    layout: Layout,
    size: usize,
    seq: u32,
    push: bool,
}

impl Candidate {
    fn of(frame: &Frame, link: usize) -> Option<Candidate> {
        if frame.meta.gso.is_some() || frame.len() < link + 40 + LEAST {
            return None;
        }
        let ip = frame.data().get(link..)?;
        let layout = Layout::of(ip).filter(|l| !l.in_tunnel() && l.is(TCP))?;
        // No options in front of it, and no padding behind it.
        let whole = if layout.is_v4() {
            usize::from(u16::from_be_bytes([ip[2], ip[3]])) == ip.len() && layout.l4() == 20
        } else {
            usize::from(u16::from_be_bytes([ip[4], ip[5]])) + 40 == ip.len() && layout.l4() == 40
        };
        let tcp = &ip[layout.l4()..];
        let size = ip.len() - layout.payload();
        let flags = tcp[13];
        let plain = flags & !PSH == ACK && tcp[12] & 0x0f == 0;
        (whole && plain && size >= LEAST).then(|| Candidate {
            layout,
            size,
            seq: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
            push: flags & PSH != 0,
        })
    }

    /// Addresses and ports are the same.
    fn same_flow(&self, frame: &Frame, head: &Frame, layout: &Layout, link: usize) -> bool {
        let (a, b) = (&frame.data()[link..], &head.data()[link..]);
        let addresses = if self.layout.is_v4() { 12..20 } else { 8..40 };
        let l4 = self.layout.l4();
        layout.is_v4() == self.layout.is_v4() && a[addresses.clone()] == b[addresses] && a[l4..l4 + 4] == b[l4..l4 + 4]
    }

    fn opens(&self, at: usize) -> Option<Open> {
        let next = self.seq.wrapping_add(self.size as u32);
        // What pushes is delivered at once: nothing is joined behind it.
        (!self.push).then_some(Open { at, layout: self.layout, size: self.size, next, segments: 1 })
    }

    /// Appends the payload to `head`, if that is right. `head` is then a super-frame.
    fn joins(&self, frame: &Frame, head: &mut Frame, open: &mut Open, link: usize, pool: &mut FramePool) -> bool {
        let fits = self.seq == open.next
            && self.size <= open.size
            && self.layout.payload() == open.layout.payload()
            && head.len() - link + self.size <= usize::from(u16::MAX)
            && (open.segments == 1 || head.len() + self.size <= head.capacity())
            && head.meta.vlan_tci == frame.meta.vlan_tci
            && self.headers_match(frame, head, open, link);
        if !fits || !verified(frame, &self.layout, link) {
            return false;
        }
        if open.segments == 1 && !(make_room(head, pool) && start(head, open, link)) {
            return false;
        }
        let from = link + self.layout.payload();
        let len = head.len();
        if len + self.size > head.capacity() {
            return false;
        }
        let payload = &frame.data()[from..];
        head.spare_mut()[len..len + payload.len()].copy_from_slice(payload);
        head.set_len(len + payload.len());
        let ip = &mut head.data_mut()[link..];
        if self.push {
            ip[open.layout.l4() + 13] |= PSH;
        }
        open.layout.finish_super(ip);
        open.next = open.next.wrapping_add(self.size as u32);
        open.segments += 1;
        true
    }

    /// Nothing differs but what differs between the segments of one super-frame.
    fn headers_match(&self, frame: &Frame, head: &Frame, open: &Open, link: usize) -> bool {
        let (a, b) = (frame.data(), head.data());
        let (l4, payload) = (link + self.layout.l4(), link + self.layout.payload());
        let id = |d: &[u8]| u16::from_be_bytes([d[link + 4], d[link + 5]]);
        let ip = if self.layout.is_v4() {
            // All but length, identification and checksum; the identification counts up, or means nothing (RFC 6864 4.1).
            let df = a[link + 6] & 0x40 != 0;
            a[link..link + 2] == b[link..link + 2]
                && a[link + 6..link + 10] == b[link + 6..link + 10]
                && (df || id(a) == id(b).wrapping_add(open.segments))
        } else {
            a[link..link + 4] == b[link..link + 4] && a[link + 6..link + 8] == b[link + 6..link + 8]
        };
        // Acknowledgement and offset; window; urgent pointer and options.
        let tcp = a[l4 + 8..l4 + 13] == b[l4 + 8..l4 + 13]
            && a[l4 + 14..l4 + 16] == b[l4 + 14..l4 + 16]
            && a[l4 + 18..payload] == b[l4 + 18..payload];
        ip && tcp && a[..link] == b[..link]
    }
}

/// Whether the segment's checksum is right, or still to be made.
fn verified(frame: &Frame, layout: &Layout, link: usize) -> bool {
    if let Some(c) = frame.meta.csum {
        return usize::from(c.start) == link + layout.l4() && c.offset == layout.partial().offset;
    }
    let ip = &frame.data()[link..];
    let addrs = if layout.is_v4() { &ip[12..20] } else { &ip[8..40] };
    let l4 = &ip[layout.l4()..];
    checksum::verify_with(Sum::of(addrs).word(u16::from(TCP)).long(l4.len() as u32), l4)
        && (!layout.is_v4() || checksum::verify(&ip[..20]))
}

/// Makes the first segment a super-frame of one.
fn start(head: &mut Frame, open: &Open, link: usize) -> bool {
    if !verified(head, &open.layout, link) {
        return false;
    }
    let mut csum = open.layout.partial();
    csum.start += link as u16;
    head.meta.csum = Some(csum);
    let kind = if open.layout.is_v4() { GsoKind::TcpV4 } else { GsoKind::TcpV6 };
    head.meta.gso = Some(Gso { kind, size: open.size as u16, ecn: false });
    true
}

/// Moves a frame whose buffer holds a single packet into one that holds a super-frame.
fn make_room(head: &mut Frame, pool: &mut FramePool) -> bool {
    if head.capacity() > usize::from(u16::MAX) {
        return true;
    }
    let Some(mut large) = pool.take() else { return false };
    let room = large.capacity() > head.capacity() && large.set_data(head.data());
    if room {
        large.meta = head.meta;
        std::mem::swap(head, &mut large);
    }
    pool.put(large);
    room
}
