//! The router's own addresses on its links: probed, announced, given up when they are somebody else's.

use crate::advert::{AdvertStatus, Due, write_advert};
use crate::neighbor::mld::write_report;
use crate::neighbor::{OwnEvent, write_announcement, write_probe};
use crate::port::PortId;
use crate::router::Router;
use crate::time::Instant;
use crate::worker::{Outbox, Step};
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

impl Router {
    /// Sends what is due about own addresses.
    pub(super) fn announce(&mut self, now: Instant, out: &mut Outbox) {
        self.follow_addresses(now);
        let mut events = Vec::new();
        self.own.poll(now, &self.settings.neighbor, &mut events);
        self.changed |= self.ports.set_tentative(self.own.tentative());
        for event in events {
            let (OwnEvent::Probe(port, addr) | OwnEvent::Announce(port, addr)) = event;
            let Some(info) = self.ports.get(port) else { continue };
            let Some(mut frame) = out.pool.take() else { return };
            let written = match event {
                OwnEvent::Probe(..) => write_probe(&mut frame, info, addr),
                OwnEvent::Announce(..) => write_announcement(&mut frame, info, addr),
            };
            if written.is_err() {
                out.pool.put(frame);
                continue;
            }
            self.worker.counters().originated.add(1);
            let tables = Arc::clone(&self.tables);
            self.worker.transmit(&mut Step { now, tables: &tables, out }, port, frame);
        }
    }

    /// Tells which groups the router is in (RFC 3810).
    pub(super) fn tell_groups(&mut self, now: Instant, out: &mut Outbox) {
        for (port, report) in self.listener.poll(now) {
            let Some(info) = self.ports.get(port) else { continue };
            let Some(mut frame) = out.pool.take() else { return };
            let src = info.link_local().filter(|a| !self.own.is_tentative(port, &IpAddr::V6(*a)));
            if write_report(&mut frame, info, src, &report).is_err() {
                out.pool.put(frame);
                continue;
            }
            self.worker.counters().originated.add(1);
            let tables = Arc::clone(&self.tables);
            self.worker.transmit(&mut Step { now, tables: &tables, out }, port, frame);
        }
    }

    /// Takes up ports and addresses that are new, before anybody may use them.
    pub(super) fn follow_addresses(&mut self, now: Instant) {
        if std::mem::take(&mut self.own_stale) {
            self.own.follow(now, &self.settings.neighbor, &self.ports);
            self.adverts.follow(now, &self.settings.adverts, &self.ports);
            self.irdp.follow(now, &self.settings.irdp, &self.ports);
            self.listener.follow(now, &self.settings.neighbor, &self.ports);
            self.changed |= self.ports.set_tentative(self.own.tentative());
            let given_up = self.duplicates.values().flatten().map(IpNet::addr).collect();
            self.changed |= self.ports.set_given_up(given_up);
        }
    }

    /// Addresses of a port that somebody else on the link has, so that they are not used (RFC 4862 5.4.5, RFC 5227
    /// 2.1.1).
    pub fn duplicates(&self, port: PortId) -> &[IpNet] {
        self.duplicates.get(&port).map(Vec::as_slice).unwrap_or_default()
    }

    /// How this router tells the hosts of a port's link about itself: nothing, or one or both families.
    pub fn advertisements(&self, now: Instant, port: PortId) -> Vec<AdvertStatus> {
        [self.adverts.status(now, port), self.irdp.status(now, port)].into_iter().flatten().collect()
    }

    /// Sends the router advertisements that are due.
    pub(super) fn advertise(&mut self, now: Instant, out: &mut Outbox) {
        let (ports, own) = (&self.ports, &self.own);
        let ready = |id| {
            let link_local = ports.get(id).and_then(|p| p.link_local());
            link_local.is_some_and(|a| !own.is_tentative(id, &IpAddr::V6(a)))
        };
        let due = self.adverts.poll(now, ready);
        self.send_adverts(now, due, out);
    }

    /// Tells every LAN that this router is its default router no more. To be called once, before the ports are closed.
    pub fn farewell(&mut self, now: Instant, out: &mut Outbox) {
        let due = self.adverts.finish();
        self.send_adverts(now, due, out);
        self.farewell_v4(now, out);
    }

    fn send_adverts(&mut self, now: Instant, due: Vec<Due>, out: &mut Outbox) {
        for Due { port, settings, last } in due {
            let Some(info) = self.ports.get(port).filter(|p| p.up || last) else { continue };
            let Some(mut frame) = out.pool.take() else { return };
            if write_advert(&mut frame, info, &settings, last).is_err() {
                out.pool.put(frame);
                continue;
            }
            self.worker.counters().originated.add(1);
            let tables = Arc::clone(&self.tables);
            self.worker.transmit(&mut Step { now, tables: &tables, out }, port, frame);
        }
    }

    /// Takes an address away that somebody else on the link has (RFC 4862 5.4.5, RFC 5227 2.1.1, 2.4).
    pub(super) fn give_up(&mut self, port: PortId, addr: IpAddr) {
        let Ok(info) = self.port(port) else { return };
        let duplicates: Vec<_> = info.addrs.iter().filter(|n| n.addr() == addr).copied().collect();
        for net in duplicates {
            if self.del_addr(port, net).is_ok() {
                self.duplicates.entry(port).or_default().push(net);
            }
        }
    }

    /// An address that was somebody else's is no more wanted, or is tried again. True when it was one.
    pub(super) fn forget_duplicate(&mut self, port: PortId, addr: IpNet) -> bool {
        let Some(list) = self.duplicates.get_mut(&port) else { return false };
        let before = list.len();
        list.retain(|n| n.addr() != addr.addr());
        let known = list.len() < before;
        self.own_stale |= known;
        known
    }
}
