//! The running router behind the control socket and the configuration: operations become calls on its control thread.

mod count;
mod ends;
mod errors;
mod events;
mod execute;
mod filter;
mod flow;
mod inspect;
mod ports;
mod show;

pub(crate) use ends::follow as follow_tunnel_ends;
pub(crate) use execute::execute;
use execute::flush_page;
pub(crate) use ports::change;

use crate::config::{Change, Target};
use crate::control::{
    Answer, Backend, BrokerAnswer, BrokerOp, CaptureSelect, Follower, Hub, MonitorSelect, Op, PacketFeed, RoutePlace,
    RouteSelect, StatsInfo, TableSelect, VERSION, VersionInfo, WireError, run_batch,
};
use ports::drop_link_local;
use router_core::addr::{Family, MacAddr};
use router_core::port::{Medium, PortInfo};
use router_core::routing::{Cursor, PrefixSelect, RouteFilter};
use router_core::spec::RouteInfo;
use router_io::runtime::{Control, RouterHandle};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Reads the configuration again and applies the difference; answers with lines about what changed.
pub(crate) type Reload = dyn Fn() -> Result<String, WireError> + Send + Sync;

/// The tunnel broker and the client of one.
pub(crate) type BrokerDesk = dyn Fn(BrokerOp) -> Result<BrokerAnswer, WireError> + Send + Sync;

/// See the module.
pub(crate) struct RouterBackend {
    handle: RouterHandle,
    name: String,
    started: Instant,
    reload: Mutex<Option<Arc<Reload>>>,
    broker: Mutex<Option<Arc<BrokerDesk>>>,
    hub: Arc<Hub>,
}

impl RouterBackend {
    pub fn new(handle: RouterHandle, name: &str) -> Self {
        RouterBackend {
            handle,
            name: name.to_owned(),
            started: Instant::now(),
            reload: Mutex::new(None),
            broker: Mutex::new(None),
            hub: Arc::default(),
        }
    }

    /// Sets what [`Op::Reload`] does.
    pub fn on_reload(&self, reload: Arc<Reload>) {
        *self.reload.lock().unwrap_or_else(PoisonError::into_inner) = Some(reload);
    }

    /// Sets who answers [`Op::Broker`].
    pub fn on_broker(&self, desk: Option<Arc<BrokerDesk>>) {
        *self.broker.lock().unwrap_or_else(PoisonError::into_inner) = desk;
    }

    /// A port in the tables alone: no device is opened.
    /// With `stations`, an Ethernet port gets the address of a device that nobody has seen: locally administered, by
    /// number. No link-local address is made of it: only those that are written are the port's.
    pub fn add_port_without_device(&self, mut info: PortInfo, stations: bool) -> Result<(), WireError> {
        self.on_control(move |c| {
            let now = c.now();
            let written = info.addrs.clone();
            if stations && info.medium == Medium::Ethernet && info.mac.is_none() {
                let [high, low] = (c.router().ports().iter().count() as u16).to_be_bytes();
                info.mac = Some(MacAddr([2, 0, 0, 0, high, low]));
            }
            let id = c.router_mut().add_port(now, info).map_err(errors::port)?;
            drop_link_local(c, id, &written);
            Ok(())
        })?
    }

    fn on_control<R: Send + 'static>(
        &self,
        f: impl FnOnce(&mut Control) -> R + Send + 'static,
    ) -> Result<R, WireError> {
        self.handle
            .call(f)
            .map_err(|_| WireError::new("failed", "The router has stopped.", "start it again with \"duet run FILE\""))
    }
}

impl Backend for RouterBackend {
    fn is_alive(&self) -> bool {
        self.handle.is_alive()
    }

    fn call(&self, op: Op) -> Result<Answer, WireError> {
        match op {
            Op::Reload => {
                let reload = self.reload.lock().unwrap_or_else(PoisonError::into_inner).clone();
                match reload {
                    Some(reload) => reload().map(Answer::Text),
                    None => Err(WireError::new("failed", "Error: this router has no configuration file.", "")),
                }
            }
            Op::Broker(op) => {
                let desk = self.broker.lock().unwrap_or_else(PoisonError::into_inner).clone();
                match desk {
                    Some(desk) => desk(*op).map(|a| Answer::Broker(Box::new(a))),
                    None => Err(WireError::new("failed", "Error: this duet was built without the broker.", "")),
                }
            }
            Op::Version => Ok(Answer::Version(VersionInfo {
                version: env!("CARGO_PKG_VERSION").into(),
                name: self.name.clone(),
                pid: std::process::id(),
                protocol: VERSION,
            })),
            Op::Stats => {
                let uptime = self.started.elapsed().as_secs();
                let stats = self.on_control(|c| show::stats(c))?;
                Ok(Answer::Stats(Box::new(StatsInfo { uptime, ..stats })))
            }
            Op::RouteFlush(select) => {
                let (mut count, mut after) = (0, None);
                loop {
                    let select = select.clone();
                    let (n, next) = self.on_control(move |c| flush_page(c, &select, after))?;
                    count += n;
                    match next {
                        Some(_) => after = next,
                        None => return Ok(Answer::Count(count)),
                    }
                }
            }
            Op::Batch { ops, force, .. } => {
                self.on_control(move |c| Answer::Batch(run_batch(ops, force, |op| execute(c, op))))
            }
            op => self.on_control(move |c| execute(c, op))?,
        }
    }

    fn capture(&self, select: &CaptureSelect) -> Result<Box<dyn PacketFeed>, WireError> {
        inspect::capture(&self.handle, select)
    }

    fn routes(
        &self,
        select: &RouteSelect,
        after: Option<&RoutePlace>,
        limit: usize,
    ) -> Result<(Vec<RouteInfo>, Option<RoutePlace>), WireError> {
        let filter = coarse(select);
        let cursor = after.map(|p| Cursor { family: Family::of_net(&p.dst), table: p.table, dst: p.dst });
        let (mut page, next) = self.on_control(move |c| c.router().routing().page(&filter, cursor, limit))?;
        page.retain(|r| select.matches(r));
        Ok((page, next.map(|c| RoutePlace { table: c.table, dst: c.dst })))
    }

    fn follow(&self, select: MonitorSelect) -> Result<Arc<Follower>, WireError> {
        let (follower, _) = self.hub.join(select);
        let hub = Arc::downgrade(&self.hub);
        // Said each time: the last follower may be leaving just now, and the watcher with it.
        self.on_control(move |c| c.watch(Some(events::watcher(hub))))?;
        events::watch_drops(&self.hub, &self.handle);
        Ok(follower)
    }
}

/// Only what the tables are ordered by: with it, every page costs the control thread the same, however few routes fit
/// the rest of the selector.
fn coarse(select: &RouteSelect) -> RouteFilter {
    use crate::control::PrefixSelect as Wanted;
    RouteFilter {
        family: select.family,
        table: match select.table {
            TableSelect::Main => Some(router_core::port::TableId::MAIN),
            TableSelect::All => None,
            TableSelect::One(t) => Some(t),
        },
        select: select.dst.map(|s| match s {
            Wanted::Root(p) => PrefixSelect::Root(p),
            Wanted::Match(p) => PrefixSelect::Match(p),
            Wanted::Exact(p) => PrefixSelect::Exact(p),
        }),
        ..RouteFilter::default()
    }
}

impl Target for RouterBackend {
    fn change(&self, wanted: Change) -> Result<(), WireError> {
        self.on_control(move |c| change(c, wanted))?
    }

    fn changes(&self, ops: Vec<Op>) -> Result<(), (usize, WireError)> {
        let result = self.on_control(move |c| run_batch(ops, false, |op| execute(c, op))).map_err(|e| (0, e))?;
        match result.failed.into_iter().next() {
            Some(f) => Err((usize::try_from(f.index).unwrap_or(0), f.error)),
            None => Ok(()),
        }
    }
}

/// A router that replays capture files: its control side is at hand, no thread in between.
pub(crate) struct Direct<'c>(pub std::cell::RefCell<&'c mut Control>);

impl Target for Direct<'_> {
    fn change(&self, wanted: Change) -> Result<(), WireError> {
        change(&mut self.0.borrow_mut(), wanted)
    }
}
