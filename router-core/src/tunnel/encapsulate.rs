//! Into a tunnel: decides whether a packet may enter, and puts the outer header in front.

use super::outer::{Inner, Outer, Written};
use super::{limit, outer};
use crate::addr::Family;
use crate::drop_reason::DropReason;
use crate::forward::{Context, Forwarder, Verdict};
use crate::frame::Frame;
use crate::object::{Encap, Object};
use crate::packet::Packet;
use std::net::{IpAddr, Ipv4Addr};

/// Encapsulation into a tunnel.
#[derive(Debug)]
pub struct Encapsulate<'a> {
    /// The tunnel.
    pub encap: &'a Encap,
    /// Identification of the outer packet; matters only when DF is clear (RFC 6864 4).
    pub ident: u16,
}

impl Encapsulate<'_> {
    /// The encapsulation limit of the outer packet, if it is to have one (RFC 2473 4.1.1). An error when the packet inside
    /// may not be encapsulated again.
    fn limit(&self, bytes: &[u8]) -> Result<Option<u8>, DropReason> {
        let (configured, v6) = match &self.encap.outer {
            Some(Outer::V6(o)) => (o.limit(), true),
            Some(Outer::Long(l)) => (l.limit(), false),
            _ => (None, false),
        };
        if !limit::possible(bytes) {
            return Ok(configured);
        }
        match limit::find(bytes) {
            None => Ok(configured),
            Some((0, _)) => Err(DropReason::TunnelLimit),
            // Only a plain IPv6 header has room for it that nobody has counted on.
            Some((n, _)) => Ok(if v6 || configured.is_some() { Some(n - 1) } else { None }),
        }
    }

    /// The outer destination, where the packet inside names it.
    fn peer(&self, dst: IpAddr) -> Result<Option<Ipv4Addr>, DropReason> {
        let Some(Outer::Long(long)) = &self.encap.outer else { return Ok(None) };
        let (Some(derived), IpAddr::V6(dst), IpAddr::V4(local)) = (&long.derived, dst, self.encap.facts.local) else {
            return Ok(None);
        };
        derived.peer(dst, local).map(Some)
    }

    /// Bytes to be put in front.
    fn room(&self, limit: Option<u8>) -> usize {
        match &self.encap.outer {
            Some(Outer::V6(o)) if o.is_bare() && limit.is_some() => o.added() + limit::LEN as usize,
            Some(o) => o.added(),
            None => 0,
        }
    }
}

impl Forwarder for Encapsulate<'_> {
    fn name(&self) -> &str {
        self.encap.facts.mode.shape().name
    }

    #[inline]
    fn decide(&self, cx: &Context<'_>, packet: &Packet, bytes: &[u8]) -> Verdict {
        let encap = self.encap;
        if !encap.carries.family(packet.family) {
            return Verdict::Drop(DropReason::TunnelFamily);
        }
        let Some(outer) = &encap.outer else { return Verdict::Drop(DropReason::NextHopUnusable) };
        let limit = match self.limit(bytes) {
            Ok(limit) => limit,
            Err(reason) => return Verdict::Drop(reason),
        };
        let peer = match self.peer(packet.dst) {
            Ok(peer) => peer,
            Err(reason) => return Verdict::Drop(reason),
        };
        let room = self.room(limit);
        let mut mtu = encap.mtu - ((room - outer.added()) as u32).min(encap.mtu);
        let mut next = encap.carrier;
        if let (Some(peer), None) = (peer, encap.facts.dev) {
            // A way of its own for each peer.
            next = cx.tables.lookup(encap.facts.table, &IpAddr::V4(peer));
            if let Some(Object::Forward(hop)) = cx.tables.routing.objects.get(next) {
                mtu = mtu.min(hop.mtu.saturating_sub(room as u32).max(super::IPV6_MIN_MTU));
            }
        }
        if packet.df && packet.family == Family::Inet {
            mtu = mtu.min(encap.facts.df_mtu.unwrap_or(mtu));
        }
        if packet.wire_len > mtu { Verdict::TooBig { mtu } } else { Verdict::Continue(next) }
    }

    #[inline]
    fn apply(&self, cx: &Context<'_>, packet: &Packet, frame: &mut Frame) -> Result<(), DropReason> {
        let Some(outer) = &self.encap.outer else { return Err(DropReason::NextHopUnusable) };
        // The pipeline may have changed the hop limit after the parse: read it where it is.
        let inner = Inner::of(packet.family, frame.data()).ok_or(DropReason::TunnelInnerMalformed)?;
        let limit = self.limit(frame.data())?;
        let peer = self.peer(packet.dst)?;
        let room = self.room(limit);
        let total = packet.len as usize + room;
        let longest =
            usize::from(u16::MAX) + if outer.family() == Family::Inet6 { super::IPV6_HEADER as usize } else { 0 };
        if total > longest {
            return Err(DropReason::TooBig);
        }
        let data = frame.push_front(room).ok_or(DropReason::NoHeadroom)?;
        match outer {
            Outer::V4(o) => {
                if let Some(to) = data.first_chunk_mut() {
                    o.write(to, &inner, total as u16, self.ident);
                }
                Ok(())
            }
            Outer::V6(o) => {
                let label = o.label(packet.family, data.get(room..).unwrap_or_default());
                o.write_with(data, &inner, label, limit).ok_or(DropReason::TooBig)
            }
            Outer::Long(l) => {
                let at = Written { ident: self.ident, limit, peer, rehearsal: cx.rehearsal };
                l.write(data, &inner, at).ok_or(DropReason::TooBig)
            }
        }
    }
}

/// Whether super-frames may enter whole, to be cut behind the tunnel with their outer headers: those are corrected for each
/// segment only where they are bare IP headers.
pub fn takes_super_frames(outer: Option<&Outer>) -> bool {
    match outer {
        Some(outer::Outer::V4(_)) => true,
        Some(outer::Outer::V6(o)) => o.fits(),
        _ => false,
    }
}
