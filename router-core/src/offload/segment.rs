//! Cutting a super-frame into the packets that it stands for (TSO and USO in software).

use super::complete_checksum;
use crate::checksum::{self, Sum};
use crate::drop_reason::DropReason;
use crate::frame::{Frame, FramePool, Gso, GsoKind, PartialChecksum};

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
/// TCP flags (RFC 9293 3.1).
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Tunnels around a packet that are looked through.
const OUTERS: usize = 3;
const IPV4: u8 = 4;
const IPV6: u8 = 41;

/// Where things lie in a TCP or UDP packet, which may lie in IP tunnels (RFC 2003, RFC 4213, RFC 2473).
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Where the outer headers begin, and whether each is IPv4; the first `outers` of them.
    outer: [(usize, bool); OUTERS],
    outers: usize,
    /// Where the innermost IP header begins.
    ip: usize,
    l4: usize,
    /// First payload byte.
    payload: usize,
    proto: u8,
    v4: bool,
}

impl Layout {
    /// None when the bytes are not TCP or UDP over IP, unfragmented, with whole headers.
    pub(super) fn of(data: &[u8]) -> Option<Layout> {
        let (mut outer, mut outers, mut at) = ([(0, false); OUTERS], 0, 0);
        loop {
            let ip = data.get(at..)?;
            let (v4, n, proto) = match ip.first()? >> 4 {
                4 => {
                    let n = checksum::ipv4_header_len(ip)?;
                    let fragment = u16::from_be_bytes([ip[6], ip[7]]) & 0x3fff != 0;
                    (true, n, (!fragment).then_some(ip[9])?)
                }
                6 => {
                    let (n, proto) = ipv6_transport(ip)?;
                    (false, n, proto)
                }
                _ => return None,
            };
            let l4 = at + n;
            let header = match proto {
                TCP => usize::from(data.get(l4 + 12)? >> 4) * 4,
                UDP => 8,
                IPV4 | IPV6 => {
                    *outer.get_mut(outers)? = (at, v4);
                    outers += 1;
                    at = l4;
                    continue;
                }
                _ => return None,
            };
            let minimum = if proto == TCP { 20 } else { 8 };
            let payload = l4 + header;
            let whole = header >= minimum && payload <= data.len();
            return whole.then_some(Layout { outer, outers, ip: at, l4, payload, proto, v4 });
        }
    }

    /// Whether the packet lies in a tunnel.
    pub(super) fn in_tunnel(&self) -> bool {
        self.outers > 0
    }

    /// Whether the packet lies in a single tunnel whose header has neither options nor extensions.
    pub(super) fn in_plain_tunnel(&self) -> bool {
        let (at, v4) = self.outer[0];
        self.outers == 1 && self.ip - at == if v4 { 20 } else { 40 }
    }

    /// Whether this is the transport protocol.
    pub(super) fn is(&self, proto: u8) -> bool {
        self.proto == proto
    }

    pub(super) fn is_v4(&self) -> bool {
        self.v4
    }

    /// Where the transport header begins.
    pub(super) fn l4(&self) -> usize {
        self.l4
    }

    /// Where the payload begins.
    pub(super) fn payload(&self) -> usize {
        self.payload
    }

    /// Corrects the headers of a super-frame, not in a tunnel, whose payload has grown: lengths, and the pending checksum.
    pub(super) fn finish_super(&self, data: &mut [u8]) {
        let len = data.len();
        finish_ip(&mut data[self.ip..], self.v4, len - self.ip, 0);
        self.write_checksum(data, len, false);
    }

    fn fits(&self, kind: GsoKind) -> bool {
        matches!(
            (kind, self.proto, self.v4),
            (GsoKind::TcpV4, TCP, true) | (GsoKind::TcpV6, TCP, false) | (GsoKind::UdpL4, UDP, _)
        )
    }

    /// Where the checksum of this packet is pending.
    pub(super) fn partial(&self) -> PartialChecksum {
        PartialChecksum { start: self.l4 as u16, offset: if self.proto == TCP { 16 } else { 6 } }
    }

    /// Writes the transport checksum of a packet that ends at `end`: finished, or the bare pseudo-header sum.
    pub(super) fn write_checksum(&self, data: &mut [u8], end: usize, finished: bool) {
        let len = (end - self.l4) as u32;
        let addrs = if self.v4 { self.ip + 12..self.ip + 20 } else { self.ip + 8..self.ip + 40 };
        let pseudo = Sum::of(&data[addrs]).word(u16::from(self.proto)).long(len);
        let at = self.l4 + usize::from(self.partial().offset);
        let value = if finished {
            data[at..at + 2].fill(0);
            pseudo.bytes(&data[self.l4..end]).finish_udp()
        } else {
            pseudo.fold()
        };
        data[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    /// Corrects all headers of segment number `i`, whose bytes with `n` payload bytes are `data`.
    fn finish(&self, data: &mut [u8], i: usize, n: usize, cut: Cut) {
        let end = self.payload + n;
        for (at, v4) in &self.outer[..self.outers] {
            finish_ip(&mut data[*at..], *v4, end - at, i);
        }
        finish_ip(&mut data[self.ip..], self.v4, end - self.ip, i);
        let l4 = &mut data[self.l4..];
        if self.proto == TCP {
            let seq = u32::from_be_bytes([l4[4], l4[5], l4[6], l4[7]]).wrapping_add((i * cut.size) as u32);
            l4[4..8].copy_from_slice(&seq.to_be_bytes());
            if i + 1 < cut.count {
                l4[13] &= !(FIN | PSH);
            }
            if i > 0 {
                l4[13] &= !CWR;
            }
        } else {
            l4[4..6].copy_from_slice(&((end - self.l4) as u16).to_be_bytes());
        }
        self.write_checksum(data, end, !cut.partial);
    }
}

/// Corrects the IP header of segment number `i`, which is `len` bytes long from this header on.
fn finish_ip(ip: &mut [u8], v4: bool, len: usize, i: usize) {
    if v4 {
        let id = u16::from_be_bytes([ip[4], ip[5]]).wrapping_add(i as u16);
        ip[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        ip[4..6].copy_from_slice(&id.to_be_bytes());
        checksum::fill_ipv4_header(ip);
    } else {
        ip[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
    }
}

/// How a payload is cut.
#[derive(Clone, Copy)]
struct Cut {
    size: usize,
    count: usize,
    /// Leave the checksums pending.
    partial: bool,
}

/// Offset and number of the upper-layer header behind the extension headers that may stand before a whole TCP or UDP.
pub(super) fn ipv6_transport(ip: &[u8]) -> Option<(usize, u8)> {
    let mut next = *ip.get(6)?;
    let mut at = 40;
    while matches!(next, 0 | 43 | 60) {
        next = *ip.get(at)?;
        at += (usize::from(*ip.get(at + 1)?) + 1) * 8;
    }
    (ip.len() >= at).then_some((at, next))
}

/// Cuts `frame` so that it holds its first segment, appends the others to `out`, and returns how many those are.
/// Unchanged on error.
pub(super) fn segment(
    frame: &mut Frame,
    gso: Gso,
    partial: bool,
    pool: &mut FramePool,
    out: &mut Vec<Frame>,
) -> Result<usize, DropReason> {
    let layout = Layout::of(frame.data()).filter(|l| l.fits(gso.kind)).ok_or(DropReason::OffloadMalformed)?;
    let size = usize::from(gso.size);
    let payload = frame.len() - layout.payload;
    // A segment must fit a 16-bit IP length; a size of nothing never ends.
    if size == 0 || layout.payload + size.min(payload) > 65_535 {
        return Err(DropReason::OffloadMalformed);
    }
    let cut = Cut { size, count: payload.div_ceil(size).max(1), partial };
    if cut.count == 1 {
        // Not larger than a segment after all: only the checksum is left to do.
        if !partial {
            complete_checksum(frame)?;
        }
        frame.meta.gso = None;
        return Ok(0);
    }
    if pool.available() < cut.count - 1 {
        return Err(DropReason::NoFrame);
    }
    let mut meta = frame.meta;
    meta.gso = None;
    meta.csum = partial.then(|| layout.partial());
    let before = out.len();
    let (header, body) = frame.data().split_at(layout.payload);
    for (i, piece) in body.chunks(size).enumerate().skip(1) {
        let end = header.len() + piece.len();
        match pool.take() {
            Some(mut f) if f.capacity() >= end => {
                let room = f.spare_mut();
                room[..header.len()].copy_from_slice(header);
                room[header.len()..end].copy_from_slice(piece);
                f.set_len(end);
                layout.finish(f.data_mut(), i, piece.len(), cut);
                f.meta = meta;
                out.push(f);
            }
            small => {
                out.drain(before..).chain(small).for_each(|f| pool.put(f));
                return Err(DropReason::NoFrame);
            }
        }
    }
    frame.truncate(layout.payload + size);
    layout.finish(frame.data_mut(), 0, size, cut);
    frame.meta = meta;
    Ok(cut.count - 1)
}
