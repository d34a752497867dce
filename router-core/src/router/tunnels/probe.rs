//! Questions asked through a tunnel by hand: echo requests of any size and traffic class, whatever the routes say. What
//! comes back tells whether the peer lives, how much fits, and what became of the marks.

use super::TunnelError;
use super::keepalive::echo_request;
use crate::addr::Family;
use crate::icmp::set_ttl;
use crate::packet::Packet;
use crate::port::PortId;
use crate::router::Router;
use crate::time::{Duration, Instant};
use crate::worker::{Fixed, Outbox, Start};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// Questions that are remembered at most, and answers that wait to be taken.
const MOST: usize = 1024;

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// Which question.
    pub seq: u16,
    /// How long it took.
    pub rtt: Duration,
    /// Traffic class of the answer: what was asked with, unless somebody on the way changed it.
    pub tclass: u8,
    /// Bytes of the answer, IP header included.
    pub size: u32,
}

#[derive(Debug, Default)]
pub(super) struct Probes {
    ident: u16,
    next: u16,
    target: Option<IpAddr>,
    sent: BTreeMap<u16, Instant>,
    answers: Vec<ProbeAnswer>,
}

impl Probes {
    pub(super) fn hear(&mut self, now: Instant, from: IpAddr, ident: u16, seq: u16, packet: &Packet) {
        if ident != self.ident || self.target != Some(from) || self.answers.len() >= MOST {
            return;
        }
        if let Some(sent) = self.sent.remove(&seq) {
            let rtt = now.saturating_since(sent);
            self.answers.push(ProbeAnswer { seq, rtt, tclass: packet.tclass, size: packet.len });
        }
    }
}

impl Router {
    /// Whom to ask through a tunnel if nobody is named: the keepalive's target, else the link-local address that the peer of
    /// a tunnel in IPv4 has (RFC 4213 3.7).
    pub fn probe_target(&self, name: &str) -> Result<Option<IpAddr>, TunnelError> {
        let id = self.tunnel_by_name(name)?;
        let Some(t) = self.tunnels.all.get(&id) else { return Ok(None) };
        let peer = match t.spec.remote {
            IpAddr::V4(a) if t.spec.mode.shape().carries.family(Family::Inet6) && !a.is_unspecified() => {
                Some(IpAddr::V6(Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(a.to_bits()))))
            }
            _ => None,
        };
        Ok(t.spec.options.keepalive.map(|k| k.target).or(peer))
    }

    /// Makes ready for questions through a tunnel: workers must know that answers are awaited. Follow with
    /// [`Router::commit`].
    pub fn await_probes(&mut self, name: &str) -> Result<(), TunnelError> {
        let id = self.tunnel_by_name(name)?;
        let seed = self.seed;
        if let Some(t) = self.tunnels.all.get_mut(&id).filter(|t| t.probes.is_none()) {
            t.probes = Some(Probes { ident: (seed >> 41) as u16 ^ !(id.0 as u16), ..Probes::default() });
            self.set_gate(id);
        }
        Ok(())
    }

    /// Asks `target` with a packet of `size` bytes and this traffic class. Says which number the question has.
    ///
    /// # Errors
    /// [`TunnelError::Device`] for no tunnel, [`TunnelError::Value`] when the tunnel has no address to ask from, or before
    /// [`Router::await_probes`].
    pub fn probe_tunnel(
        &mut self,
        now: Instant,
        name: &str,
        target: IpAddr,
        (size, tclass): (u32, u8),
        out: &mut Outbox,
    ) -> Result<u16, TunnelError> {
        let id = self.tunnel_by_name(name)?;
        let source = self
            .probe_source(id, target)
            .ok_or(TunnelError::Value("the tunnel has no address of that family to ask from: add one"))?;
        let Some(t) = self.tunnels.all.get_mut(&id) else { return Err(TunnelError::Device(name.to_owned())) };
        let Some(probes) = &mut t.probes else {
            return Err(TunnelError::Value("say first that questions will be asked"));
        };
        if probes.sent.len() >= MOST {
            probes.sent.clear();
        }
        probes.next = probes.next.wrapping_add(1);
        probes.target = Some(target);
        probes.sent.insert(probes.next, now);
        let (ident, seq) = (probes.ident, probes.next);
        let request = echo_request(source, target, ident, seq, (size, tclass));
        let Some(mut frame) = out.pool.take() else { return Ok(seq) };
        if !frame.set_data(&request) {
            out.pool.put(frame);
            return Err(TunnelError::Value("such a long packet fits no buffer"));
        }
        set_ttl(frame.data_mut(), self.settings.icmp.ttl);
        self.worker.counters().originated.add(1);
        let tables = Arc::clone(&self.tables);
        self.worker.launch(now, &mut Fixed(tables), frame, Start::Link(id), out);
        Ok(seq)
    }

    /// Answers since the last call.
    pub fn probe_answers(&mut self, name: &str) -> Result<Vec<ProbeAnswer>, TunnelError> {
        let id = self.tunnel_by_name(name)?;
        let probes = self.tunnels.all.get_mut(&id).and_then(|t| t.probes.as_mut());
        Ok(probes.map(|p| std::mem::take(&mut p.answers)).unwrap_or_default())
    }

    /// An address of a tunnel from which `target` is asked.
    pub(super) fn probe_source(&self, id: PortId, target: IpAddr) -> Option<IpAddr> {
        let port = self.ports.get(id)?;
        let near = matches!(target, IpAddr::V6(a) if a.is_unicast_link_local());
        let on_link = || port.addrs.iter().find(|n| n.contains(&target)).map(|n| n.addr());
        match near {
            true => port.link_local().map(IpAddr::V6),
            false => on_link().or_else(|| port.global_addr(Family::of(&target))),
        }
    }
}
