//! How much fits into a tunnel: from its carrier, from what the network said, from the configuration.

use super::search::SearchPhase;
use super::{Tunnel, Tunnels};
use crate::addr::Family;
use crate::journal::Happened;
use crate::object::{Encap, Object, ObjectId};
use crate::port::{PortId, PortKind};
use crate::router::Router;
use crate::routing::EncapFacts;
use crate::spec::TunnelSpec;
use crate::time::{Duration, Instant};
use crate::tunnel::DEFAULT_TTL;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// How long a path MTU learned from an ICMP error is believed (RFC 1191 6.3, RFC 8201 4: ten minutes).
const PMTU_LIFETIME: Duration = Duration::from_secs(600);

/// Tunnels that may carry each other, at most: what an object's MTU is followed through.
const MAX_STACK: u8 = 8;

/// Who told a path MTU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MtuCause {
    /// An ICMP error from this router (RFC 1191, RFC 8201).
    Icmp(IpAddr),
    /// The host's own stack, which carries the outer packets.
    Host,
    /// Probes that got through, and others that did not (RFC 8899).
    Probe,
    /// The tunnel's own search, which is here now (RFC 8899).
    Search(SearchPhase),
}

/// A path MTU that the network told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LearnedMtu {
    /// Largest outer packet, in bytes.
    pub mtu: u32,
    /// How long ago it was told last.
    pub age: Duration,
    /// How long it is still believed.
    pub left: Duration,
    /// Who told it.
    pub cause: MtuCause,
}

#[derive(Clone, Debug)]
pub(super) struct Learned {
    mtu: u32,
    since: Instant,
    pub(super) until: Instant,
    cause: MtuCause,
}

impl Learned {
    pub(super) fn info(&self, now: Instant) -> LearnedMtu {
        let (age, left) = (now.saturating_since(self.since), self.until.saturating_since(now));
        LearnedMtu { mtu: self.mtu, age, left, cause: self.cause }
    }
}

impl Tunnel {
    /// What is known about the path: what the search has found, unless somebody has said less.
    pub(super) fn learned_mtu(&self, now: Instant) -> Option<LearnedMtu> {
        let told = self.learned.as_ref().map(|l| l.info(now));
        let found = self.search.as_ref().map(|s| s.info(now));
        match (told, found) {
            (Some(told), Some(found)) => Some(if told.mtu < found.mtu { told } else { found }),
            (told, found) => found.or(told),
        }
    }
}

impl Tunnels {
    /// Remembers a path MTU for a while; a larger one than is known is not news.
    fn learn(&mut self, now: Instant, id: PortId, mtu: u32, cause: MtuCause) {
        let Some(t) = self.all.get_mut(&id) else { return };
        if t.learned.as_ref().is_some_and(|l| mtu > l.mtu) {
            return;
        }
        let until = now + PMTU_LIFETIME;
        if let Some(old) = t.learned.replace(Learned { mtu, since: now, until, cause }) {
            self.expiry.remove(&(old.until, id));
        }
        self.expiry.insert((until, id));
        self.dirty.insert(id);
    }

    /// Forgets path MTUs that are too old.
    fn forget(&mut self, now: Instant) {
        while let Some((until, id)) = self.expiry.first().copied().filter(|(until, _)| *until <= now) {
            self.expiry.remove(&(until, id));
            if let Some(t) = self.all.get_mut(&id) {
                t.learned = None;
            }
            self.dirty.insert(id);
        }
    }
}

impl Router {
    /// Tells the data plane about each tunnel whose MTU or parameters have changed: because of a command, another
    /// underlay route, a link's MTU, an ICMP error, or because what was learned is too old. Looks only at those that such
    /// a change concerns.
    pub(in crate::router) fn refresh_tunnels(&mut self, now: Instant) {
        self.tunnels.forget(now);
        if !self.tunnels.moved_ports.is_empty() {
            self.follow_local_ends(now);
        }
        for _ in 0..MAX_STACK {
            // A tunnel's new MTU is news for those that it carries.
            self.tunnels.dirty.append(&mut self.routing.take_moved_tunnels());
            if self.tunnels.dirty.is_empty() {
                return;
            }
            for id in std::mem::take(&mut self.tunnels.dirty) {
                self.refresh_tunnel(now, id);
            }
        }
    }

    fn refresh_tunnel(&mut self, now: Instant, id: PortId) {
        let Some(dev) = self.tunnels.all.get(&id).map(|t| self.outer_port(t)) else { return };
        let over_udp = dev.is_some_and(|d| self.ports.get(d).is_some_and(|p| p.kind == PortKind::Udp));
        let carrier = self.routing.tunnel_carrier(id);
        let path = carrier.and_then(|o| self.path_mtu(o, 0));
        let Some(t) = self.tunnels.all.get_mut(&id) else { return };
        let carried = std::mem::replace(&mut t.told_carried, carrier.is_some());
        let mut news = carried != carrier.is_some();
        let spec = match &t.paths {
            None if !over_udp => &t.spec,
            _ => &TunnelSpec { options: t.options(over_udp), ..t.spec.clone() },
        };
        let shape = spec.mode.shape();
        let (overhead, least) = (spec.overhead(), shape.least_mtu());
        let outer = path.unwrap_or(1500);
        let outer = t.learned.as_ref().map_or(outer, |l| l.mtu.min(outer));
        // What the search may find at most; until it does, what it has found.
        let outer = match &mut t.search {
            Some(search) => {
                let most = outer.saturating_sub(overhead).min(spec.mtu.unwrap_or(u32::MAX));
                let due = search.next;
                search.bound(now, (least, most, overhead));
                if search.next != due {
                    self.tunnels.searching.remove(&(due, id));
                    self.tunnels.searching.insert((search.next, id));
                }
                outer.min(search.size() + overhead)
            }
            None => outer,
        };
        // RFC 4213 3.2.2: below 1300 the outer packet may be fragmented, so that the tunnel still carries 1280.
        let fits = outer >= least + overhead;
        let dynamic = outer.saturating_sub(overhead).max(least);
        let mtu = match (spec.mtu, spec.nopmtudisc) {
            (Some(fixed), true) => fixed,
            (Some(fixed), false) => fixed.min(dynamic),
            // RFC 4213 3.2.1: a static tunnel MTU is 1280 unless configured.
            (None, true) => crate::tunnel::IPV6_MIN_MTU,
            (None, false) => dynamic,
        };
        let df = fits && !spec.nopmtudisc;
        let keeps_df = !df && spec.local.is_ipv4() && shape.carries.family(Family::Inet) && !spec.options.ignore_df;
        let facts = EncapFacts {
            mode: spec.mode,
            local: spec.local,
            remote: spec.remote,
            ttl: (!spec.ttl_inherit).then_some(spec.ttl.unwrap_or(DEFAULT_TTL)),
            tos: spec.tos,
            df,
            df_mtu: keeps_df.then_some(outer.saturating_sub(overhead).max(68)),
            mtu,
            path: (spec.remote.is_ipv6() && mtu + overhead > outer).then_some(outer.max(crate::tunnel::IPV6_MIN_MTU)),
            table: spec.underlay_table.unwrap_or_default(),
            dev,
            options: match &t.facts {
                Some(f) if *f.options == spec.options => Arc::clone(&f.options),
                _ => Arc::new(spec.options.clone()),
            },
            state: Arc::clone(&t.state),
        };
        if t.facts.as_ref() != Some(&facts) {
            news |= t.facts.is_some();
            let first = t.facts.is_none();
            t.facts = Some(facts.clone());
            self.routing.set_tunnel(id, facts);
            if first {
                self.set_gate(id);
            }
        }
        if let Ok(mut info) = self.port(id)
            && info.mtu != mtu
        {
            info.mtu = mtu;
            self.put(info);
        }
        if news {
            self.note_tunnel(now, id, Happened::Changed);
        }
    }

    /// The port by which a tunnel's outer packets leave, if one is named.
    fn outer_port(&self, t: &super::Tunnel) -> Option<PortId> {
        let in_udp = t.options(false).udp.is_some();
        let name = t.spec.options.encap_dev.as_ref().filter(|_| in_udp).or(t.spec.dev.as_ref())?;
        self.port_names.get(name).copied()
    }

    /// The MTU of what an object leads to, in bytes; the least of a group's members.
    fn path_mtu(&self, id: ObjectId, depth: u8) -> Option<u32> {
        if depth > MAX_STACK {
            return None;
        }
        match self.routing.object(id)? {
            Object::Forward(f) => Some(f.mtu),
            Object::Incomplete(i) => self.ports.get(i.port).map(|p| p.mtu),
            Object::Glean(g) => self.ports.get(g.port).map(|p| if g.mtu > 0 { g.mtu.min(p.mtu) } else { p.mtu }),
            Object::Encap(Encap { mtu, .. }) => Some(*mtu),
            Object::Group(g) => g.buckets.iter().filter_map(|b| self.path_mtu(*b, depth + 1)).min(),
            Object::Plugin(p) => self.path_mtu(p.next, depth + 1),
            Object::Counted(c) => self.path_mtu(c.next, depth + 1),
            Object::Sources(s) => self.path_mtu(s.otherwise, depth + 1),
            Object::Discard(_) | Object::Local | Object::Broadcast | Object::Table(_) => None,
        }
    }

    /// The network said that outer packets of this tunnel may have `mtu` bytes at most. Says what the inner MTU is then.
    pub(super) fn learn_outer_mtu(&mut self, now: Instant, id: PortId, mtu: u32, cause: MtuCause) -> Option<u32> {
        self.tunnels.learn(now, id, mtu, cause);
        self.refresh_tunnels(now);
        self.ports.get(id).map(|p| p.mtu)
    }

    /// The host's own stack, which carries the outer packets of some tunnels, knows that those to `remote` may have
    /// `mtu` bytes at most. Follow with [`Router::commit`].
    pub fn learn_host_path_mtu(&mut self, now: Instant, remote: IpAddr, mtu: u32) {
        let all = self.tunnels.all.iter().filter(|(_, t)| t.spec.remote == remote);
        for id in all.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.tunnels.learn(now, id, mtu.max(68), MtuCause::Host);
        }
        self.refresh_tunnels(now);
    }

    /// Probes have shown that outer packets of `mtu` bytes pass and longer ones do not, although nobody says so (RFC 8899).
    pub fn learn_probed_mtu(&mut self, now: Instant, name: &str, mtu: u32) -> Result<(), super::TunnelError> {
        let id = self.tunnel_by_name(name)?;
        self.learn_outer_mtu(now, id, mtu, MtuCause::Probe);
        Ok(())
    }

    /// When tunnels want to be looked at next.
    pub(in crate::router) fn tunnel_deadline(&self) -> Option<Instant> {
        let first = |set: &std::collections::BTreeSet<(Instant, PortId)>| set.first().map(|(at, _)| *at);
        let t = &self.tunnels;
        [&t.expiry, &t.asking, &t.searching, &t.trying].into_iter().filter_map(first).min()
    }
}
