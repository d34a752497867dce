//! Next hops as shared things. Their family is independent of the route's: that is the heart of the product.
//!
//! A [`Path`] is everything that a route says except its prefix, table, metric and origin: kind, hops, MTU, source. All
//! routes that say the same share one path, and a path owns one forwarding object whose number never changes while it
//! lives. When a link, a neighbour or a recursive gateway's route changes, the path's object gets new content; its
//! routes are not touched.
//!
//! A [`Chain`] is the ordered list of paths of a prefix with several candidates, again shared by all prefixes with the
//! same list. Its object has the content of the first usable path, so that a backup takes over without a visit to the
//! prefixes either. Only when no path of a chain is usable do its prefixes leave the FIB, for the covering prefix to
//! take over.

pub(crate) mod activity;
pub(crate) mod buckets;
pub(crate) mod resilient;

use crate::object::ObjectId;
use crate::port::{PortId, TableId};
use crate::resolve::{Dep, Outcome};
use crate::rib::EntryId;
use crate::routing::slab::Key;
use crate::spec::RouteKind;
use std::net::IpAddr;
use std::sync::Arc;

/// A path's index.
pub(crate) type PathId = Key;

/// A chain's index.
pub(crate) type ChainId = Key;

/// Most paths in a chain. More candidates for one prefix (a link-local prefix has one per port) wait until these fail.
pub(crate) const MAX_CHAIN: usize = 16;

/// A next hop as the tables keep it: [`crate::spec::HopSpec`] with the port's number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hop {
    pub(crate) via: Option<IpAddr>,
    pub(crate) dev: Option<PortId>,
    pub(crate) weight: u16,
    pub(crate) onlink: bool,
}

/// What makes paths equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PathKey {
    pub(crate) kind: RouteKind,
    /// Where gateways without `dev` are looked up.
    pub(crate) domain: TableId,
    pub(crate) hops: Vec<Hop>,
    /// A next-hop object in place of `hops`.
    pub(crate) nhid: Option<u32>,
    /// In bytes; 0 for none.
    pub(crate) mtu: u32,
    /// Limit on TCP's segment size, in bytes; 0 for none.
    pub(crate) mss: u16,
    pub(crate) src: Option<IpAddr>,
    pub(crate) forwarder: Option<Arc<str>>,
}

impl PathKey {
    /// A path that says no more than its kind and the port it belongs to.
    pub(crate) fn on_port(kind: RouteKind, port: PortId, src: Option<IpAddr>) -> Self {
        let hop = Hop { via: None, dev: Some(port), weight: 1, onlink: false };
        PathKey { kind, domain: TableId::MAIN, hops: vec![hop], nhid: None, mtu: 0, mss: 0, src, forwarder: None }
    }

    /// The gateway that it is looked up by, if the path says nothing else, as nearly all do.
    pub(crate) fn plain_gateway(&self) -> Option<IpAddr> {
        let plain = self.kind == RouteKind::Unicast && self.nhid.is_none() && (self.mtu, self.mss) == (0, 0);
        match &self.hops[..] {
            [Hop { via, dev: None, weight: 1, onlink: false }]
                if plain && self.src.is_none() && self.forwarder.is_none() =>
            {
                *via
            }
            _ => None,
        }
    }

    /// The ports named in it, each once.
    pub(crate) fn ports(&self) -> impl Iterator<Item = PortId> {
        let named = self.hops.iter().filter_map(|h| h.dev).enumerate();
        named.filter(|(i, p)| !self.hops.iter().filter_map(|h| h.dev).take(*i).any(|q| q == *p)).map(|(_, p)| p)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) key: Arc<PathKey>,
    /// Candidates with this path.
    pub(crate) refs: u32,
    pub(crate) outcome: Outcome,
    /// What the outcome depends on.
    pub(crate) deps: Vec<Dep>,
    /// What routes point to.
    pub(crate) object: ObjectId,
    /// What stands behind the plugged-in forwarder, if one is named.
    pub(crate) inner: Option<ObjectId>,
    pub(crate) chains: Vec<ChainId>,
    /// The chain of this path alone, if there is one.
    pub(crate) lone: ChainId,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) paths: Arc<[PathId]>,
    /// The only path's object, or one of its own.
    pub(crate) object: ObjectId,
    pub(crate) usable: bool,
    /// Its entries, in no order; each knows its place here.
    pub(crate) entries: Vec<EntryId>,
}

impl Chain {
    /// Whether the object is the chain's own.
    pub(crate) fn owns_object(&self) -> bool {
        self.paths.len() > 1
    }
}
