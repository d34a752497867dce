//! What the screen shows, asked of the router once per interval by a thread of its own.

use super::busy::{self, Busy, Sampler};
use crate::control::{
    Answer, Client, ClientError, LinkInfo, LinkSelect, NeighInfo, NeighSelect, NextHopSelect, Op, RoutePage,
    RoutePageSelect, RoutePlace, RouteSelect, StatsInfo, TableSelect, TunnelInfo, VersionInfo,
};
use router_core::spec::NextHopSpec;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

/// Pages of routes looked at per interval, to find out which next hops they use: a full table takes minutes, and costs the
/// router next to nothing.
const PAGES: usize = 5;
/// A finished count is good for so long.
const RECOUNT: Duration = Duration::from_secs(30);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Ticks per second of /proc (USER_HZ, which Linux fixes for user space).
const TICKS: f64 = 100.0;

/// Everything at one moment.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub at: Instant,
    pub version: VersionInfo,
    pub stats: StatsInfo,
    pub links: Vec<LinkInfo>,
    pub tunnels: Vec<TunnelInfo>,
    pub neighs: Vec<NeighInfo>,
    pub nexthops: Vec<NextHopSpec>,
    /// Routes by gateway and port, and whether all have been counted.
    pub users: BTreeMap<(Option<IpAddr>, String), u64>,
    pub counted: bool,
    /// Threads with the CPU time that they have used, in seconds.
    pub threads: Vec<(String, f64)>,
    /// The busiest routes, or why they are not known.
    pub busy: Result<Vec<Busy>, String>,
}

/// What comes from the collector.
pub(super) type News = Result<Box<Snapshot>, String>;

/// What the screen tells the collector.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    /// The time between two snapshots.
    pub every: Duration,
    /// Whether somebody looks at routes.
    pub routes: bool,
}

pub(super) struct Collector {
    socket: PathBuf,
    client: Option<Client>,
    counting: BTreeMap<(Option<IpAddr>, String), u64>,
    place: Option<RoutePlace>,
    users: BTreeMap<(Option<IpAddr>, String), u64>,
    counted_at: Option<Instant>,
    pub(super) sampler: Sampler,
}

/// Collects until the screen is gone. `wishes` brings changes of what it wants.
pub(super) fn run(socket: PathBuf, mut wish: Wish, news: &Sender<News>, wishes: &Receiver<Wish>) {
    let mut c = Collector {
        socket,
        client: None,
        counting: BTreeMap::new(),
        place: None,
        users: BTreeMap::new(),
        counted_at: None,
        sampler: Sampler::default(),
    };
    loop {
        let began = Instant::now();
        let result = c.snapshot(wish).map(Box::new).map_err(|e| e.to_string());
        if result.is_err() {
            c.client = None;
        }
        if news.send(result).is_err() {
            return;
        }
        match wishes.recv_timeout(wish.every.saturating_sub(began.elapsed())) {
            Ok(new) => wish = new,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

pub(super) fn other() -> ClientError {
    ClientError::Broken("an answer of another kind than asked for".into())
}

impl Collector {
    pub(super) fn call(&mut self, op: Op) -> Result<Answer, ClientError> {
        if self.client.is_none() {
            self.client = Some(Client::connect(&self.socket)?.patience(PATIENCE));
        }
        match &mut self.client {
            Some(client) => client.call(op),
            None => Err(other()),
        }
    }

    fn snapshot(&mut self, wish: Wish) -> Result<Snapshot, ClientError> {
        let Answer::Version(version) = self.call(Op::Version)? else { return Err(other()) };
        let Answer::Stats(stats) = self.call(Op::Stats)? else { return Err(other()) };
        let at = Instant::now();
        let Answer::Links(links) = self.call(Op::LinkShow(LinkSelect::default()))? else { return Err(other()) };
        let Answer::Tunnels(tunnels) = self.call(Op::TunnelShow(None))? else { return Err(other()) };
        let all = NeighSelect { nud_all: true, ..NeighSelect::default() };
        let Answer::Neighs(neighs) = self.call(Op::NeighShow(all))? else { return Err(other()) };
        let Answer::Nexthops(nexthops) = self.call(Op::NextHopShow(NextHopSelect::default()))? else {
            return Err(other());
        };
        self.count()?;
        let threads = threads(version.pid);
        let users = if self.users.is_empty() { self.counting.clone() } else { self.users.clone() };
        let counted = !self.users.is_empty();
        let busy = self.busy(wish)?;
        Ok(Snapshot { at, version, stats: *stats, links, tunnels, neighs, nexthops, users, counted, threads, busy })
    }

    fn busy(&mut self, wish: Wish) -> Result<Result<Vec<Busy>, String>, ClientError> {
        if !wish.routes {
            self.sampler.forget();
            return Ok(Ok(Vec::new()));
        }
        let window = (wish.every / 2).clamp(Duration::from_millis(50), Duration::from_secs(1));
        match busy::look(self, window) {
            Ok(()) => Ok(Ok(self.sampler.busiest())),
            // Following packets needs more rights than reading tables.
            Err(ClientError::Refused(e)) => Ok(Err(e.hint.unwrap_or(e.line))),
            Err(e) => Err(e),
        }
    }

    /// Looks at some more routes.
    fn count(&mut self) -> Result<(), ClientError> {
        if self.counted_at.is_some_and(|at| at.elapsed() < RECOUNT) {
            return Ok(());
        }
        for _ in 0..PAGES {
            let select = RouteSelect { table: TableSelect::All, ..RouteSelect::default() };
            let op = Op::RoutePage(RoutePageSelect { select, after: self.place.take(), limit: 0 });
            let Answer::Page(RoutePage { routes, next }) = self.call(op)? else { return Err(other()) };
            for info in routes.iter().filter(|i| i.selected) {
                for hop in info.route.hops.iter().filter(|h| h.via.is_some()) {
                    *self.counting.entry((hop.via, hop.dev.clone().unwrap_or_default())).or_default() += 1;
                }
            }
            self.place = next;
            if self.place.is_none() {
                self.users = std::mem::take(&mut self.counting);
                self.counted_at = Some(Instant::now());
                break;
            }
        }
        Ok(())
    }
}

/// CPU time of the router's threads. The router is on this host: its socket is.
fn threads(pid: u32) -> Vec<(String, f64)> {
    let mut out = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let name = read("comm").trim().to_owned();
        if name.starts_with("worker") || name == "control" {
            // Fields 14 and 15, counted behind the name in parentheses, which may hold blanks.
            let stat = read("stat");
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
            out.push((name, (ticks(11) + ticks(12)) / TICKS));
        }
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}
