//! What a route or next-hop object must satisfy before it is taken in.

use super::{GatewayFault, RouteError, Routing};
use crate::addr::{Family, unmap};
use crate::next_hop::{Hop, PathId, PathKey};
use crate::port::{Medium, PortInfo, TableId};
use crate::rib::host;
use crate::spec::{HopSpec, HopState, RouteKind, RouteSpec};
use crate::tables::domain_of;
use std::net::IpAddr;
use std::sync::Arc;

/// Largest weight of a hop.
const MAX_WEIGHT: u16 = 256;
/// Most hops of one route.
const MAX_HOPS: usize = 256;

impl Routing {
    /// Checks what a route says and turns it into what the tables keep.
    pub(super) fn path_key(&self, spec: &RouteSpec) -> Result<PathKey, RouteError> {
        let family = spec.family();
        if spec.dst.trunc() != spec.dst {
            return Err(RouteError::HostBits);
        }
        let table = spec.table_id();
        let domain = domain_of(table);
        let forwarder = match &spec.forwarder {
            None => None,
            Some(name) => match self.facts.forwarders.get_key_value(&**name) {
                Some((known, _)) => Some(Arc::clone(known)),
                None => {
                    let known = self.forwarders().map(str::to_owned).collect();
                    return Err(RouteError::NoForwarder { name: name.clone(), known });
                }
            },
        };
        // A route by a blackhole object is shown as `blackhole ... nhid N`.
        let by_object = spec.nhid.filter(|id| {
            let there = self.facts.next_hops.get(id).map(|n| &n.kind);
            spec.kind == RouteKind::Unicast || (spec.kind == RouteKind::Blackhole && there.is_some())
        });
        let kind = if by_object.is_some() { RouteKind::Unicast } else { spec.kind };
        let mut hops = Vec::new();
        match (kind, by_object) {
            (RouteKind::Unicast, Some(nhid)) => {
                if !self.facts.next_hops.contains_key(&nhid) {
                    return Err(RouteError::NoNextHopObject(nhid));
                }
            }
            (RouteKind::Unicast, None) => {
                if spec.hops.is_empty() {
                    return Err(RouteError::NoNextHop);
                }
                if spec.hops.len() > MAX_HOPS {
                    return Err(RouteError::Invalid("a route takes at most 256 next hops"));
                }
                for h in &spec.hops {
                    hops.push(self.check_hop(h, family, domain)?);
                }
            }
            (RouteKind::Local | RouteKind::Broadcast | RouteKind::Anycast, _) => {
                for h in &spec.hops {
                    let id = h.dev.as_ref().map(|d| {
                        self.facts.port_by_name(d).map(|p| p.id).ok_or_else(|| RouteError::NoDevice(d.clone()))
                    });
                    match (h.via, id.transpose()?) {
                        (None, Some(id)) => hops.push(Hop { via: None, dev: Some(id), weight: 1, onlink: false }),
                        _ => return Err(RouteError::NoHopsForKind),
                    }
                }
            }
            // IPv6 routes of these kinds are shown with `dev lo` by iproute2, so that much is taken back in.
            (_, _) => {
                if spec.hops.iter().any(|h| h.via.is_some() || family == Family::Inet) {
                    return Err(RouteError::NoHopsForKind);
                }
            }
        }
        let src = spec.src.map(unmap);
        if let Some(src) = src
            && (Family::of(&src) != family || !self.is_own(domain, &src))
        {
            return Err(RouteError::Source { src, inet6: family == Family::Inet6 });
        }
        // Only a lookup needs to know where: all other routes of all tables can share.
        let looks_up = hops.iter().any(|h| h.dev.is_none());
        Ok(PathKey {
            kind,
            domain: if looks_up { domain } else { TableId::MAIN },
            hops,
            nhid: by_object,
            mtu: spec.mtu.unwrap_or(0),
            mss: spec.advmss.unwrap_or(0),
            src,
            forwarder,
        })
    }

    /// Checks one hop of a route of `family`, whose gateways are looked up in `domain`.
    pub(super) fn check_hop(&self, spec: &HopSpec, family: Family, domain: TableId) -> Result<Hop, RouteError> {
        if !(1..=MAX_WEIGHT).contains(&spec.weight) {
            return Err(RouteError::Invalid("weight must be 1 to 256"));
        }
        let via = spec.via.map(unmap);
        let port = match &spec.dev {
            None => None,
            Some(name) => Some(self.facts.port_by_name(name).ok_or_else(|| RouteError::NoDevice(name.clone()))?),
        };
        if let Some(gateway) = via {
            self.check_gateway(gateway, family, domain)?;
            if port.is_none() && is_link_local_v6(&gateway) {
                return Err(RouteError::EgressNeeded { gateway });
            }
        }
        if via.is_none() && port.is_none() {
            return Err(RouteError::NoNextHop);
        }
        if let Some(p) = port {
            if !p.admin_up {
                let direct = via.is_none() && family == Family::Inet;
                return Err(RouteError::DeviceDown { dev: p.name.clone(), direct });
            }
            if let Some(gateway) = via
                && !spec.onlink
                && !self.on_link(p, &gateway)
            {
                return Err(no_gateway(gateway, family, GatewayFault::NotOnLink));
            }
        }
        Ok(Hop { via, dev: port.map(|p| p.id), weight: spec.weight, onlink: spec.onlink })
    }

    /// The path of a route that says nothing but one gateway to be looked up, as nearly all routes of a full table do, if
    /// others have it already: found without writing down all that a path may say. None also for what is not right.
    pub(super) fn known_path(&self, spec: &RouteSpec) -> Option<PathId> {
        let [HopSpec { via: Some(via), dev: None, weight: 1, onlink: false }] = spec.hops[..] else { return None };
        let nothing_else = spec.kind == RouteKind::Unicast
            && spec.nhid.is_none()
            && spec.forwarder.is_none()
            && spec.src.is_none()
            && spec.mtu.unwrap_or(0) == 0
            && spec.advmss.unwrap_or(0) == 0;
        let (via, domain) = (unmap(via), domain_of(spec.table_id()));
        if !nothing_else || spec.dst.trunc() != spec.dst || is_link_local_v6(&via) {
            return None;
        }
        let path = *self.by_gateway.get(&(domain, via))?;
        self.check_gateway(via, spec.family(), domain).ok()?;
        Some(path)
    }

    fn check_gateway(&self, gateway: IpAddr, family: Family, domain: TableId) -> Result<(), RouteError> {
        let unicast = match gateway {
            IpAddr::V4(a) => !(a.is_unspecified() || a.is_multicast() || a.is_broadcast() || a.is_loopback()),
            IpAddr::V6(a) => !(a.is_unspecified() || a.is_multicast() || a.is_loopback()),
        };
        if !unicast {
            return Err(RouteError::InvalidGateway { gateway, why: GatewayFault::NotUnicast });
        }
        let main = || self.own_kind(TableId::MAIN, &gateway).filter(|_| self.facts.falls_back(domain));
        match self.own_kind(domain, &gateway).or_else(main) {
            Some(RouteKind::Local) if family == Family::Inet6 => Err(RouteError::OwnGateway { gateway }),
            Some(RouteKind::Local) => Err(RouteError::InvalidGateway { gateway, why: GatewayFault::Own }),
            Some(_) => Err(RouteError::InvalidGateway { gateway, why: GatewayFault::NotUnicast }),
            None => Ok(()),
        }
    }

    /// Whether an address is one of the router's own in this domain, or in `main` where the domain falls back to that.
    pub(super) fn is_own(&self, domain: TableId, addr: &IpAddr) -> bool {
        let own = |d| self.own_kind(d, addr) == Some(RouteKind::Local);
        own(domain) || (self.facts.falls_back(domain) && own(TableId::MAIN))
    }

    fn own_kind(&self, domain: TableId, addr: &IpAddr) -> Option<RouteKind> {
        if !self.rib.may_be_own(domain, addr) {
            return None;
        }
        let entry = self.rib.entries.get(self.rib.find(domain, &host(addr))?)?;
        let kinds = entry.candidates.iter().filter_map(|c| self.paths.get(c.path)).map(|p| p.key.kind);
        kinds.into_iter().find(|k| matches!(k, RouteKind::Local | RouteKind::Broadcast))
    }

    /// Whether a gateway is a neighbour on a port: link-local, within a link prefix, within a route straight to the
    /// port, or the port has no neighbours to speak of.
    fn on_link(&self, port: &PortInfo, gateway: &IpAddr) -> bool {
        if port.medium == Medium::Ip || is_link_local_v6(gateway) || port.on_link(gateway) {
            return true;
        }
        self.rib.covers(domain_of(port.table), &host(gateway)).into_iter().any(|(_, e)| {
            let candidates = self.rib.entries.get(e).map(|e| &e.candidates[..]).unwrap_or_default();
            candidates.iter().filter_map(|c| self.paths.get(c.path)).any(|p| {
                p.key.kind == RouteKind::Unicast && p.key.hops.iter().any(|h| h.via.is_none() && h.dev == Some(port.id))
            })
        })
    }

    /// A gateway that is to be looked up must be found when the route is added; later it may come and go.
    pub(super) fn check_resolved(&self, path: PathId, family: Family) -> Result<(), RouteError> {
        let Some(p) = self.paths.get(path) else { return Ok(()) };
        if p.key.kind != RouteKind::Unicast || p.key.nhid.is_some() {
            return Ok(());
        }
        for h in &p.outcome.hops {
            let sought = h.hop.dev.is_none_or(|d| self.facts.vrf(d).is_some());
            if let (true, Some(gateway), HopState::Unresolved) = (sought, h.hop.via, h.state) {
                let why = if p.outcome.looped { GatewayFault::Loop } else { GatewayFault::Unreachable };
                return Err(no_gateway(gateway, family, why));
            }
        }
        Ok(())
    }
}

fn no_gateway(gateway: IpAddr, family: Family, why: GatewayFault) -> RouteError {
    match (family, why) {
        (Family::Inet6, GatewayFault::Unreachable | GatewayFault::NotOnLink) => {
            RouteError::NoRouteToGateway { gateway }
        }
        _ => RouteError::InvalidGateway { gateway, why },
    }
}

fn is_link_local_v6(addr: &IpAddr) -> bool {
    matches!(addr, IpAddr::V6(a) if a.is_unicast_link_local())
}
