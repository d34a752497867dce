//! Translators: virtual ports that turn packets of one family into packets of the other, and the sessions of NAT64.

use crate::addr::Family;
use crate::checksum;
use crate::drop_reason::DropReason;
use crate::forward::Forwarder;
use crate::frame::{Frame, Meta};
use crate::headers::protocol;
use crate::packet::{Fragment, Packet};
use crate::port::{Medium, PortCaps, PortId, PortInfo, PortKind};
use crate::router::Router;
use crate::spec::{HopSpec, RouteOp, RouteSpec, proto};
use crate::time::Instant;
use crate::translate::nat64::{Nat64, Nat64Stats, Probe, SessionInfo};
use crate::translate::{Ends6, EndsOf, TranslateMode, Translator, TranslatorError, TranslatorSpec};
use crate::worker::{Job, Outbox, Start};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// MTU of a translator's port: whatever the families can have.
const MTU: u32 = 65_535;

/// A translator as the control side keeps it.
pub(super) struct TranslatorState {
    pub spec: TranslatorSpec,
    pub nat64: Option<Box<Nat64>>,
}

/// A translator as shown.
#[derive(Clone, Debug)]
pub struct TranslatorInfo {
    /// As configured.
    pub spec: TranslatorSpec,
    /// Its port.
    pub id: PortId,
    /// Counts of its sessions; None for a stateless one.
    pub nat64: Option<Nat64Stats>,
}

impl Router {
    /// Adds a translator: a port to which routes of both families lead.
    pub fn add_translator(&mut self, now: Instant, spec: TranslatorSpec) -> Result<PortId, TranslatorError> {
        spec.check(!self.settings.mapped_ports.is_empty())?;
        let info = PortInfo {
            id: PortId::NONE,
            name: spec.name.clone(),
            ifindex: 0,
            kind: PortKind::Translator,
            medium: Medium::Ip,
            mac: None,
            mtu: MTU,
            vlan: None,
            table: spec.table,
            up: true,
            admin_up: true,
            caps: PortCaps { partial_checksum: true, tso: true, uso: true, tunnels: false },
            addrs: Vec::new(),
        };
        let id = self.add_port(now, info)?;
        // Unlike seeds of hashes alone, this one also decides ports: no two translators share it.
        let seed = self.seed ^ u64::from(id.0).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x006e_6174_3634;
        let nat64 = match spec.mode {
            TranslateMode::Nat64 => Nat64::new(&spec, seed).map(Box::new),
            TranslateMode::Siit | TranslateMode::Clat => None,
        };
        let translator = Translator::new(&spec, id, nat64.as_ref().map(|n| n.map()))?;
        let mapped = spec.prefix.filter(|p| p.is_mapped());
        self.routing.set_translator(id, Some(Arc::new(translator) as Arc<dyn Forwarder>));
        if let Some(prefix) = mapped {
            // Written, this prefix is the IPv4 address space (see `crate::addr`): a route line cannot mean it.
            let mut route = RouteSpec::new(IpNet::V6(prefix.net()));
            route.proto = Some(proto::KERNEL);
            route.hops.push(HopSpec { dev: Some(spec.name.clone()), ..HopSpec::default() });
            // The port is new, so is its route.
            let _ = self.routing.route(RouteOp::Append, &route);
        }
        self.translators.insert(id, TranslatorState { spec, nat64 });
        self.changed = true;
        Ok(id)
    }

    /// Removes a translator with its sessions and routes.
    pub fn del_translator(&mut self, now: Instant, name: &str, out: &mut Outbox) -> Result<(), TranslatorError> {
        let id = self.translator_by_name(name)?;
        self.routing.set_translator(id, None);
        self.translators.remove(&id);
        self.remove_port(now, id, out)?;
        Ok(())
    }

    fn translator_by_name(&self, name: &str) -> Result<PortId, TranslatorError> {
        let port = self.ports.by_name(name).filter(|p| self.translators.contains_key(&p.id));
        port.map(|p| p.id).ok_or_else(|| TranslatorError::Unknown(name.to_owned()))
    }

    /// All translators, by index of their port.
    pub fn translators(&self) -> impl Iterator<Item = TranslatorInfo> {
        self.translators.iter().map(|(id, t)| TranslatorInfo {
            spec: t.spec.clone(),
            id: *id,
            nat64: t.nat64.as_ref().map(|n| n.stats()),
        })
    }

    /// Up to `most` sessions of a NAT64.
    pub fn nat64_sessions(&self, now: Instant, name: &str, most: usize) -> Result<Vec<SessionInfo>, TranslatorError> {
        let id = self.translator_by_name(name)?;
        let nat64 = self.translators.get(&id).and_then(|t| t.nat64.as_ref());
        Ok(nat64.map(|n| n.sessions(now, most)).unwrap_or_default())
    }

    /// Ports on which IPv4-mapped addresses are allowed: those that the operator named, and translators to them.
    pub(super) fn mapped_ports(&self) -> Arc<[PortId]> {
        if self.settings.mapped_ports.is_empty() {
            return Arc::new([]);
        }
        let named = self.ports.iter().filter(|p| self.settings.mapped_ports.contains(&p.name)).map(|p| p.id);
        let own = self.translators.iter().filter(|(_, t)| t.spec.prefix.is_some_and(|p| p.is_mapped()));
        named.chain(own.map(|(id, _)| *id)).collect()
    }

    /// A worker asks about a packet: its session is made or moves on, or it is a fragment whose rest must come first.
    pub(super) fn translate_punt(
        &mut self,
        now: Instant,
        mut frame: Frame,
        packet: &Packet,
        port: PortId,
        depth: u8,
        out: &mut Outbox,
    ) {
        if packet.fragment != Fragment::None {
            return self.join_for_translation(now, frame, packet, depth, out);
        }
        let ends = Translator::ends(packet, frame.data());
        let Some(nat64) = self.translators.get_mut(&port).and_then(|t| t.nat64.as_mut()) else {
            return self.end(now, frame, DropReason::TranslateNoSession, out);
        };
        let agreed = match ends {
            Some((EndsOf::V6(e), flags)) => nat64.outbound(now, &e, flags),
            Some((EndsOf::V4(e), flags)) => nat64.inbound(now, &e, flags),
            None => Err(DropReason::TranslateNoSession),
        };
        match agreed {
            Ok(()) => {
                frame.meta.admitted = true;
                self.go_on(now, frame, depth, out);
            }
            Err(reason) => self.refuse(now, frame, reason, out),
        }
    }

    /// The packet takes its way again from the lookup that brought it here.
    fn go_on(&mut self, now: Instant, frame: Frame, depth: u8, out: &mut Outbox) {
        let table = self.ports.get(frame.meta.port).map(|p| p.table).unwrap_or_default();
        let tables = Arc::clone(&self.tables);
        self.worker.relaunch(now, &tables, Job { frame, start: Start::Lookup(table), depth }, out);
    }

    /// A fragment on its way through a NAT64 (RFC 6146 3.4).
    fn join_for_translation(&mut self, now: Instant, frame: Frame, packet: &Packet, depth: u8, out: &mut Outbox) {
        let meta = frame.meta;
        if let Some(mut whole) = self.join(now, frame, packet, out) {
            whole.meta = Meta { joined: true, ..meta };
            self.go_on(now, whole, depth, out);
        }
    }

    /// Forgets sessions that are overdue and asks the hosts of connections that have been silent for long.
    pub(super) fn poll_translators(&mut self, now: Instant, out: &mut Outbox) {
        let mut probes: Vec<(Probe, PortId)> = Vec::new();
        for (id, t) in &mut self.translators {
            let Some(nat64) = t.nat64.as_mut() else { continue };
            let mut own = Vec::new();
            nat64.poll(now, &mut own);
            probes.extend(own.into_iter().map(|p| (p, *id)));
        }
        for (probe, port) in probes {
            let Some(mut frame) = out.pool.take() else { continue };
            if !write_probe(&mut frame, &probe.ends) {
                out.pool.put(frame);
                continue;
            }
            self.worker.counters().originated.add(1);
            let table = self.ports.get(port).map(|p| p.table).unwrap_or_default();
            let tables = Arc::clone(&self.tables);
            self.worker.relaunch(now, &tables, Job::new(frame, Start::Lookup(table)), out);
        }
    }

    /// When the next session may be overdue.
    pub(super) fn translator_deadline(&self) -> Option<Instant> {
        self.translators.values().filter_map(|t| t.nat64.as_ref()?.poll_at()).min()
    }
}

/// The probe of RFC 6146 3.5.2.2: an acknowledgement of nothing, which a host that knows the connection answers.
fn write_probe(frame: &mut Frame, e: &Ends6) -> bool {
    let mut p = [0u8; 60];
    p[0] = 0x60;
    p[5] = 20;
    p[6..8].copy_from_slice(&[protocol::TCP, 64]);
    p[8..24].copy_from_slice(&e.src.octets());
    p[24..40].copy_from_slice(&e.dst.octets());
    p[40..42].copy_from_slice(&e.sport.to_be_bytes());
    p[42..44].copy_from_slice(&e.dport.to_be_bytes());
    p[52..54].copy_from_slice(&[0x50, 0x10]);
    let Some(sum) = checksum::pseudo(IpAddr::V6(e.src), IpAddr::V6(e.dst), protocol::TCP, 20) else { return false };
    let sum = sum.bytes(&p[40..]).finish();
    p[56..58].copy_from_slice(&sum.to_be_bytes());
    debug_assert_eq!(Packet::sniff(&p), Ok(Family::Inet6));
    frame.set_data(&p)
}
