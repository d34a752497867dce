//! Searches ahead: where packets of many tunnels come mixed, those of the next packets are done together, before the first of
//! them is looked at. One by one, each search is a chain of loads and multiplications that all else of its packet waits for;
//! in a loop of its own, which does nothing else, those of many packets are under way at once.
//!
//! Only packets whose tunnel is none of those that [`super::known`] keeps ask for it, and each ask reaches as far as the last
//! ones have paid: a batch of one or a few tunnels is hardly searched ahead, one of a thousand in pieces of [`MOST`].

use super::known::ends_of;
use crate::decap::Peers;
use crate::frame::Frame;
use crate::headers::protocol;
use crate::port::{PortId, TableId};
use crate::tables::Tables;

/// Packets that are searched for together at most.
const MOST: usize = 64;

/// Tunnels of one mode from which on what a search needs is mostly in no near cache.
const FAR: usize = 1024;

/// What was found for one packet.
#[derive(Clone, Copy)]
struct Place {
    ends: u64,
    tunnel: PortId,
    plain: Option<(TableId, bool)>,
}

const NOBODY: Place = Place { ends: 0, tunnel: PortId::NONE, plain: None };

/// See the module. Tunnels in bare IPv4 only.
pub(super) struct Ahead {
    /// The packets for which it was searched, from this one on.
    from: usize,
    len: usize,
    /// How many of them asked.
    used: usize,
    places: [Place; MOST],
}

/// Where packets are searched for, and among whom.
pub(super) struct Among<'t> {
    pub batch: &'t [Frame],
    /// Bytes in front of the IP headers.
    pub l2: usize,
    /// The tunnels whose packets are IPv6.
    pub six: Option<&'t Peers>,
    /// The tunnels whose packets are IPv4.
    pub four: Option<&'t Peers>,
    pub tables: &'t Tables,
}

impl Ahead {
    pub(super) fn new() -> Self {
        Ahead { from: 0, len: 0, used: 0, places: [NOBODY; MOST] }
    }

    /// For the next batch.
    #[inline]
    pub(super) fn forget(&mut self) {
        (self.from, self.len, self.used) = (0, 0, 0);
    }

    /// The tunnel of packet `i` of the batch, whose outer addresses are `ends`, and what [`crate::tables::PortTable::plain_tunnel`]
    /// says of it.
    #[inline(always)]
    pub(super) fn ask<'t>(
        &mut self,
        i: usize,
        ends: u64,
        among: impl FnOnce() -> Among<'t>,
    ) -> Option<(PortId, Option<(TableId, bool)>)> {
        if i.wrapping_sub(self.from) >= self.len {
            self.search(i, &among());
        }
        self.used += 1;
        let place = self.places.get(i.wrapping_sub(self.from))?;
        (place.ends == ends && place.tunnel != PortId::NONE).then_some((place.tunnel, place.plain))
    }

    #[inline(never)]
    fn search(&mut self, i: usize, among: &Among<'_>) {
        let Among { batch, l2, six, four, tables } = *among;
        let far = six.into_iter().chain(four).any(|p| p.len() > FAR);
        // As far again, if half of the last ones were wanted and no gap has come since.
        let paid = i == self.from + self.len && self.used * 2 >= self.len;
        self.len = match paid {
            true => (self.len * 2).clamp(if far { MOST } else { 4 }, MOST),
            false => 4,
        };
        (self.from, self.used) = (i, 0);
        let frames = batch.get(i..).unwrap_or_default();
        let frames = &frames[..frames.len().min(self.len)];
        let peers_of = |proto| match proto {
            protocol::IPV6 => six,
            protocol::IPV4 => four,
            _ => None,
        };

        if far {
            // What comes from far memory, in as few instructions as can be: the value does not matter, that it was loaded does.
            let touch = |frame| header(frame, l2).and_then(|h| Some(peers_of(h[9])?.touch_v4(ends_of(h)))).unwrap_or(0);
            std::hint::black_box(frames.iter().fold(0u32, |sum, frame| sum.wrapping_add(touch(frame))));
        }
        for (frame, place) in frames.iter().zip(&mut self.places) {
            *place = match header(frame, l2) {
                Some(h) => {
                    let ends = ends_of(h);
                    let tunnel = peers_of(h[9]).and_then(|p| p.find_v4(ends)).unwrap_or(PortId::NONE);
                    Place { ends, tunnel, plain: None }
                }
                None => NOBODY,
            };
        }
        for place in &mut self.places[..frames.len()] {
            place.plain = tables.ports.plain_tunnel(place.tunnel);
        }
    }
}

#[inline(always)]
fn header(frame: &Frame, l2: usize) -> Option<&[u8; 20]> {
    frame.data().get(l2..)?.first_chunk()
}
