//! ICMP router discovery: what is due is sent, and who asks is answered (RFC 1256 4.3).

use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::irdp::{self, Due};
use crate::packet::Packet;
use crate::router::Router;
use crate::time::Instant;
use crate::worker::{Outbox, Step};
use std::sync::Arc;

impl Router {
    /// Sends the IPv4 router advertisements that are due.
    pub(super) fn advertise_v4(&mut self, now: Instant, out: &mut Outbox) {
        let due = self.irdp.poll(now, &self.ports);
        self.send_adverts_v4(now, due, out);
    }

    /// Tells the hosts of every link that this router is none any more.
    pub(super) fn farewell_v4(&mut self, now: Instant, out: &mut Outbox) {
        let due = self.irdp.finish();
        self.send_adverts_v4(now, due, out);
    }

    fn send_adverts_v4(&mut self, now: Instant, due: Vec<Due>, out: &mut Outbox) {
        for due in due {
            let Some(info) = self.ports.get(due.port).filter(|p| p.up || due.lifetime == 0).map(Arc::clone) else {
                continue;
            };
            // As many as they need, each with as many addresses as fit.
            for addrs in due.addrs.chunks(irdp::most(&info)) {
                let Some(mut frame) = out.pool.take() else { return };
                if irdp::write_advert(&mut frame, &info, &due, addrs).is_err() {
                    out.pool.put(frame);
                    continue;
                }
                self.worker.counters().originated.add(1);
                let tables = Arc::clone(&self.tables);
                self.worker.transmit(&mut Step { now, tables: &tables, out }, due.port, frame);
            }
        }
    }

    /// A host asks for routers.
    pub(super) fn router_solicit(&mut self, now: Instant, frame: Frame, packet: &Packet, out: &mut Outbox) {
        let port = frame.meta.port;
        let valid = self.ports.get(port).is_some_and(|p| irdp::is_valid_solicitation(packet, frame.data(), p));
        if !valid || !self.irdp.is_active(port) {
            return self.end(now, frame, DropReason::LocalIgnored, out);
        }
        self.irdp.solicited(now, port);
        self.worker.counters().delivered.add(1);
        out.pool.put(frame);
    }
}
