//! Compiled tables without their shorter prefixes, for rules that suppress those (`suppress_prefixlength`).
//!
//! A match no longer than N counts as none; the longest of the others is then no match either, for it would be shorter
//! still. So the answer is that of a table which holds only what is longer than N. A rule like that nearly always is about
//! the default route; the price is a second copy of the table in the FIB, and nothing per packet.

use super::Routing;
use crate::fib::Fib;
use crate::object::ObjectId;
use crate::port::TableId;
use crate::tables::{ViewSet, domain_of};
use ipnet::IpNet;
use std::sync::Arc;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Views(Vec<((TableId, u8), Arc<Fib>)>);

impl Views {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// For a snapshot.
    pub(super) fn set(&self) -> ViewSet {
        self.0.as_slice().into()
    }
}

impl Routing {
    /// Says which tables are needed without their prefixes up to a length. A new one costs a walk over the table.
    pub fn set_views(&mut self, wanted: &[(TableId, u8)]) {
        let wanted: Vec<_> = wanted.iter().map(|(t, n)| (domain_of(*t), *n)).collect();
        if self.views.0.iter().map(|(key, _)| *key).eq(wanted.iter().copied()) {
            return;
        }
        let mut had = std::mem::take(&mut self.views.0);
        for key in wanted {
            if let Some(place) = had.iter().position(|(k, _)| *k == key) {
                self.views.0.push(had.swap_remove(place));
                continue;
            }
            let fib = Arc::new(Fib::new(&self.memory));
            for (_, e) in self.rib.entries.iter().filter(|(_, e)| e.domain == key.0 && e.dst.prefix_len() > key.1) {
                if let Some(object) = e.installed() {
                    // What does not fit is looked up as absent, as in the table itself.
                    let _ = fib.insert(&mut self.memory, &e.dst, object);
                }
            }
            self.views.0.push((key, fib));
        }
        self.fibs_changed = true;
    }

    /// Brings one prefix of a table's views up to date. Before the entry says that it is installed.
    pub(super) fn write_views(&mut self, domain: TableId, dst: &IpNet, wanted: Option<ObjectId>) {
        for i in 0..self.views.0.len() {
            let Some(((table, shortest), fib)) = self.views.0.get(i).map(|(key, fib)| (*key, Arc::clone(fib))) else {
                return;
            };
            if table != domain || dst.prefix_len() <= shortest {
                continue;
            }
            match wanted {
                Some(object) => _ = fib.insert(&mut self.memory, dst, object),
                None => {
                    let cover = self.rib.installed_cover(domain, dst).filter(|(len, _)| *len > shortest);
                    fib.remove(&mut self.memory, dst, cover);
                }
            }
        }
    }
}
