//! The control protocol: what a client may ask of a running router and what it answers, one JSON object per line over a
//! Unix stream socket. docs/control-protocol.md describes it for other programs.

mod broker;
mod client;
mod count;
mod events;
mod filter;
mod flow;
mod inspect;
mod lines;
mod ops;
mod select;
mod server;
mod socket;
mod stream;
mod wire;

pub use broker::*;
pub(crate) use client::plain;
pub use client::{Client, ClientError};
pub use count::{CountInfo, CountTarget};
pub use events::{DropEvent, Event, Follower, Hub, Kind, MonitorSelect, TunnelEvent, What, now};
pub use filter::*;
pub use flow::{FlowInfo, FlowStatus, FlowsInfo};
pub use inspect::*;
pub use ops::{
    AddrSpec, Answer, BatchFailure, BatchResult, GetInfo, LinkInfo, NeighInfo, Op, PingOp, RoutePage, RoutePageSelect,
    RuleDelete, StatsInfo, TranslateSelect, TranslatorInfo, TunnelInfo, TunnelProbe, VersionInfo, VrfSpec,
};
pub(crate) use select::addr_scope;
pub use select::{
    AddrSelect, BucketSelect, LinkSelect, LinkSet, NeighSelect, NextHopSelect, PrefixSelect, RouteGet, RouteSelect,
    TableSelect, TunnelChange, route_scope,
};
pub use server::{Limits, Server, run_batch};
pub(crate) use socket::running_names;
pub use socket::{Access, SocketError, check_free, default_path, find_socket};
pub use wire::{Body, Reply, Request, VERSION, WireError};

use ipnet::IpNet;
use router_core::port::TableId;
use router_core::spec::RouteInfo;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What executes operations: the running router, or a stand-in in tests. Called from several client threads at once.
pub trait Backend: Send + Sync + 'static {
    /// Whether there still is a router. When there is none, the server hangs up.
    fn is_alive(&self) -> bool {
        true
    }

    /// Executes one operation. [`Op::Batch`] comes here too, and should take one turn of the control thread.
    fn call(&self, op: Op) -> Result<Answer, WireError>;

    /// Up to `limit` routes that fit, from `after` on, in a fixed order. The returned place, if any, is where to go on.
    /// A page may be empty though there are more: the walk looks at a bounded number of routes per call.
    fn routes(
        &self,
        select: &RouteSelect,
        after: Option<&RoutePlace>,
        limit: usize,
    ) -> Result<(Vec<RouteInfo>, Option<RoutePlace>), WireError>;

    /// Starts a capture; dropping the feed ends it.
    fn capture(&self, _select: &CaptureSelect) -> Result<Box<dyn PacketFeed>, WireError> {
        Err(WireError::new("invalid", "RTNETLINK answers: Operation not supported", "no packets pass here"))
    }

    /// Lets somebody follow what happens, until the follower is dropped.
    fn follow(&self, _select: MonitorSelect) -> Result<Arc<Follower>, WireError> {
        Err(WireError::new("invalid", "RTNETLINK answers: Operation not supported", "nothing happens here"))
    }
}

/// A capture that is going on.
pub trait PacketFeed {
    /// What has come since the last call, up to so many packets, without waiting.
    fn take(&mut self, most: usize) -> CapturePage;
}

/// A place in the order of a route dump: everything up to and with this prefix has been seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutePlace {
    /// Table.
    pub table: TableId,
    /// Prefix.
    pub dst: IpNet,
}
