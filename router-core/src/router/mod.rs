//! The router as a whole, seen from its control side: the only writer of everything that the data plane reads.
//!
//! The caller hands in commands, facts about ports, punted frames and the present time; it gets back frames to send, the
//! next deadline, and, from [`Router::commit`], a new snapshot for the workers whenever something changed.

mod explain;
mod explain_words;
mod flows;
mod guards;
mod irdp;
mod links;
mod own;
mod ping;
mod punts;
mod translators;
mod tunnels;
mod vrfs;

pub use flows::FlowWay;
pub use guards::{FilterError, FilterInfo};
pub use links::PortError;
pub use ping::{Ping, PingAnswer, PingError, PingReply};
pub use translators::TranslatorInfo;
pub use tunnels::{
    LearnedMtu, Life, MtuCause, PathCause, PathInfo, PathResult, ProbeAnswer, SearchPhase, TunnelError, TunnelInfo,
    check_tunnel_spec, tunnel_hears,
};
pub use vrfs::VrfError;

use crate::addr::MacAddr;
use crate::advert::Adverts;
use crate::counters::WorkerCounters;
use crate::decap::DecapTable;
use crate::fragment::{Limits, Reassembler};
use crate::irdp::Irdp;
use crate::journal::{Happened, Journal, Subject};
use crate::neighbor::mld::Listener;
use crate::neighbor::{NeighborEvent, NeighborTable, OwnAddresses};
use crate::policy::Rules;
use crate::port::{Medium, PortCaps, PortId, PortInfo, PortKind, TableId};
use crate::routing::Routing;
use crate::settings::Settings;
use crate::tables::{GateTable, PortTable, Tables};
use crate::time::Instant;
use crate::trace::Tap;
use crate::worker::{Outbox, Worker};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

/// See the module.
pub struct Router {
    settings: Arc<Settings>,
    ports: PortTable,
    /// Whether the device behind a port has carrier; absent means yes.
    no_carrier: BTreeSet<PortId>,
    routing: Routing,
    neighbors: NeighborTable,
    /// Ports and tunnels by name.
    port_names: HashMap<String, PortId>,
    /// Indexes of former ports, and the first that was never used.
    free_ports: BTreeSet<PortId>,
    next_port: PortId,
    tunnels: tunnels::Tunnels,
    translators: BTreeMap<PortId, translators::TranslatorState>,
    seed: u64,
    decap: DecapTable,
    rules: Rules,
    gates: GateTable,
    guarding: guards::Guarding,
    reassembler: Reassembler,
    worker: Worker<Tap>,
    tables: Arc<Tables>,
    changed: bool,
    next_ifindex: u32,
    events: Vec<NeighborEvent>,
    /// Gateways that did not answer, and when to ask again.
    lost_gateways: BTreeMap<(PortId, IpAddr), Instant>,
    own: OwnAddresses,
    adverts: Adverts,
    irdp: Irdp,
    listener: Listener,
    /// Ports have changed since `own` looked at them.
    own_stale: bool,
    /// Addresses of ports that turned out to be somebody else's: tried again when the link comes up anew.
    duplicates: BTreeMap<PortId, Vec<IpNet>>,
    /// Who else uses addresses of ours (RFC 5227 2.4, RFC 4862 5.4.4).
    conflicts: BTreeMap<(PortId, IpAddr), Option<MacAddr>>,
    /// Ports, addresses and tunnels that changed.
    journal: Journal<(Happened, Subject)>,
    pings: ping::Pings,
}

impl Router {
    /// A router with nothing but its loopback. `seed` feeds every hash and random choice; a new one each start makes
    /// them unpredictable, a fixed one makes a simulation repeatable. `counters` are the control side's own.
    pub fn new(settings: Settings, seed: u64, counters: Arc<WorkerCounters>) -> Self {
        let settings = Arc::new(settings);
        let mut routing = Routing::new(seed);
        let tables = Arc::new(Tables {
            version: 0,
            ports: PortTable::default(),
            routing: routing.tables(),
            decap: DecapTable::default(),
            gates: GateTable::default(),
            settings: Arc::clone(&settings),
            guards: Arc::default(),
            mapped_ports: Arc::new([]),
            pings: Arc::new([]),
            policy: None,
        });
        let mut router = Router {
            settings,
            ports: PortTable::default(),
            no_carrier: Default::default(),
            routing,
            neighbors: NeighborTable::new(seed),
            port_names: HashMap::new(),
            free_ports: BTreeSet::new(),
            next_port: PortId(0),
            tunnels: tunnels::Tunnels::default(),
            translators: BTreeMap::new(),
            seed,
            decap: DecapTable::new(seed ^ 5),
            rules: Rules::default(),
            gates: GateTable::default(),
            guarding: guards::Guarding::default(),
            reassembler: Reassembler::new(Limits::default(), seed),
            worker: Worker::observed(counters, seed, Tap::new(Box::new(|| Instant::ZERO))),
            tables,
            changed: true,
            next_ifindex: 1,
            events: Vec::new(),
            lost_gateways: BTreeMap::new(),
            own: OwnAddresses::new(seed ^ 11),
            adverts: Adverts::new(seed),
            irdp: Irdp::new(seed.rotate_left(17)),
            listener: Listener::new(seed ^ 9),
            own_stale: true,
            duplicates: BTreeMap::new(),
            conflicts: BTreeMap::new(),
            journal: Journal::default(),
            pings: ping::Pings::default(),
        };
        let lo = PortInfo {
            id: PortId(0),
            name: "lo".into(),
            ifindex: 0,
            kind: PortKind::Loopback,
            medium: Medium::Ip,
            mac: None,
            mtu: 65_536,
            vlan: None,
            table: TableId::MAIN,
            up: true,
            admin_up: true,
            caps: PortCaps { partial_checksum: true, tso: true, uso: true, tunnels: false },
            addrs: Vec::new(),
        };
        // An empty table takes any well-formed name.
        let _ = router.add_port(Instant::ZERO, lo);
        router
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Changes the settings; timers that run already keep their old length.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = Arc::new(settings);
        self.changed = true;
        self.own_stale = true;
    }

    /// Ports and tunnels.
    pub fn ports(&self) -> &PortTable {
        &self.ports
    }

    /// Routes and next hops, to read.
    pub fn routing(&self) -> &Routing {
        &self.routing
    }

    /// Routes and next hops, to change. Follow with [`Router::commit`].
    pub fn routing_mut(&mut self) -> &mut Routing {
        &mut self.routing
    }

    /// The control side's own counters.
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        self.worker.counters()
    }

    /// Who watches the packets that the control side treats itself. Nobody, until watches are added; put another one in
    /// its place for a clock of your own.
    pub fn tap(&mut self) -> &mut Tap {
        self.worker.observer()
    }

    /// Stations that use an address of ours, since the last call; each address at most once in ten seconds (RFC 5227 2.4).
    pub fn take_conflicts(&mut self) -> Vec<(PortId, IpAddr, Option<MacAddr>)> {
        std::mem::take(&mut self.conflicts).into_iter().map(|((p, a), m)| (p, a, m)).collect()
    }

    /// Starts or stops writing down what changes.
    pub fn follow(&mut self, on: bool) {
        self.journal.follow(on);
        self.neighbors.journal().follow(on);
        self.routing.journal().follow(on);
    }

    /// What changed since the last call, and how many changes were too many to be kept: ports, addresses and tunnels, then
    /// neighbours, then next-hop objects and routes, each in order. Nothing unless [`Router::follow`] was said.
    pub fn take_changes(&mut self) -> (Vec<(Happened, Subject)>, u64) {
        let (mut list, mut lost) = self.journal.take();
        let (neighbors, more) = self.neighbors.journal().take();
        list.extend(neighbors.into_iter().map(|(h, n)| (h, Subject::Neighbor(n))));
        lost += more;
        let (routes, more) = self.routing.journal().take();
        list.extend(routes);
        (list, lost + more)
    }

    /// The newest snapshot.
    pub fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.tables)
    }

    /// Makes all changes since the last call visible to the data plane: first a snapshot that knows every new object,
    /// through `publish`, then the FIB entries that point to them. Cheap when nothing changed.
    ///
    /// A very long list of entries is written in slices: true when some are left, so that the caller can look after other
    /// work before it calls again.
    pub fn commit(&mut self, now: Instant, publish: &mut dyn FnMut(&Arc<Tables>)) -> bool {
        self.refresh_tunnels(now);
        self.follow_addresses(now);
        let routing = self.routing.prepare();
        if self.changed || routing.is_some() {
            let guards = self.compile_guards(routing.is_some());
            self.changed = false;
            self.tables = Arc::new(Tables {
                version: self.tables.version + 1,
                ports: self.ports.clone(),
                routing: routing.unwrap_or_else(|| self.tables.routing.clone()),
                decap: self.decap.clone(),
                gates: self.gates.clone(),
                settings: Arc::clone(&self.settings),
                guards,
                mapped_ports: self.mapped_ports(),
                pings: self.pings.identifiers(),
                policy: self.rules.compile(&self.ports),
            });
            publish(&self.tables);
        }
        self.routing.apply()
    }

    /// Fires all timers that are due and says when the next one is.
    pub fn poll(&mut self, now: Instant, out: &mut Outbox) -> Option<Instant> {
        let mut events = std::mem::take(&mut self.events);
        self.neighbors.poll(now, &self.settings.neighbor, &mut events);
        self.events = events;
        self.settle_neighbors(now, out);
        self.seek_gateways(now, out);
        self.poll_reassembly(now, out);
        // Who looks into MLD must know of a group before the first question to it (RFC 4862 5.4.2).
        self.follow_addresses(now);
        self.tell_groups(now, out);
        self.announce(now, out);
        self.advertise(now, out);
        self.advertise_v4(now, out);
        self.poll_translators(now, out);
        self.poll_tunnels(now, out);
        self.handle_own(now, out);
        self.refresh_tunnels(now);
        let gateways = self.lost_gateways.values().copied().min();
        let buckets = self.routing.poll_buckets(now);
        let deadlines = [
            self.neighbors.poll_at(),
            self.reassembler.poll_at(),
            self.tunnel_deadline(),
            self.translator_deadline(),
            self.own.poll_at(),
            self.listener.poll_at(),
            self.adverts.poll_at(now),
            self.irdp.poll_at(now),
            gateways,
            buckets,
        ];
        deadlines.into_iter().flatten().min()
    }
}
