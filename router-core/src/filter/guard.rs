//! Everything that one port or tunnel asks of its packets: as configured, and as the data plane reads it.

use super::limit::LimitSpec;
use super::mss::MssClamp;
use super::table::RuleTable;
use super::urpf::{Alternatives, Urpf};
use crate::port::{PortId, PortKind};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// As configured. What is not said does nothing, or has the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardSpec {
    /// Name of the filter for what comes in. On the loopback `lo`: for what is delivered to the router itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_in: Option<String>,
    /// Name of the filter for what goes out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_out: Option<String>,
    /// Check of sources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub urpf: Option<Urpf>,
    /// Limits towards the control thread; None: [`LimitSpec::DEFAULT`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitSpec>,
    /// Clamp of TCP's segment size; None: to the path MTU on tunnels, off elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mss: Option<MssClamp>,
}

impl GuardSpec {
    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        *self == GuardSpec::default()
    }

    /// Names of the filters it uses.
    pub fn filters(&self) -> impl Iterator<Item = &str> {
        self.filter_in.iter().chain(&self.filter_out).map(String::as_str)
    }
}

/// One port's guard as the data plane sees it.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Judges what comes in.
    pub filter_in: Option<Arc<RuleTable>>,
    /// Judges what goes out.
    pub filter_out: Option<Arc<RuleTable>>,
    /// Checks sources.
    pub urpf: Option<Urpf>,
    /// Limits towards the control thread.
    pub limits: LimitSpec,
    /// Clamps TCP's segment size; None: as the port's kind does by default.
    pub mss: Option<MssClamp>,
}

/// What the fast path must know about a port's guard, kept beside the port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortFlags(u8);

impl PortFlags {
    /// Packets that come in are judged one by one.
    pub const JUDGE_IN: PortFlags = PortFlags(1);
    /// Packets that go out are judged one by one.
    pub const JUDGE_OUT: PortFlags = PortFlags(2);
    /// SYNs in either direction are edited.
    pub const CLAMP: PortFlags = PortFlags(4);

    /// Whether there is none.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether one of these is set.
    #[inline]
    pub fn has(self, other: PortFlags) -> bool {
        self.0 & other.0 != 0
    }

    fn with(self, other: PortFlags, on: bool) -> PortFlags {
        if on { PortFlags(self.0 | other.0) } else { self }
    }
}

impl Guard {
    /// For the fast path.
    pub fn flags(&self) -> PortFlags {
        PortFlags::default()
            .with(PortFlags::JUDGE_IN, self.filter_in.is_some() || self.urpf.is_some())
            .with(PortFlags::JUDGE_OUT, self.filter_out.is_some())
            .with(PortFlags::CLAMP, self.mss.is_some_and(|m| m != MssClamp::Off))
    }
}

/// The guards of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Guards {
    /// By index of the port, as far as the last one that has any.
    ports: Box<[Option<Arc<Guard>>]>,
    /// For what is delivered to the router itself.
    pub local: Option<Arc<RuleTable>>,
    /// Some tunnel judges or clamps what goes into it by its own wish: what enters tunnels must be looked at.
    pub tunnels: bool,
    /// For feasible checks: see [`Alternatives`]. Empty while nobody asks.
    pub alternatives: Arc<Alternatives>,
}

impl Guards {
    /// From the guards of ports.
    pub fn new(
        list: impl IntoIterator<Item = (PortId, Arc<Guard>)>,
        local: Option<Arc<RuleTable>>,
        tunnels: bool,
    ) -> Self {
        let mut ports: Vec<Option<Arc<Guard>>> = Vec::new();
        for (id, guard) in list {
            if ports.len() <= id.index() {
                ports.resize(id.index() + 1, None);
            }
            ports[id.index()] = Some(guard);
        }
        Guards { ports: ports.into(), local, tunnels, alternatives: Arc::default() }
    }

    /// The guard of a port.
    #[inline]
    pub fn get(&self, port: PortId) -> Option<&Arc<Guard>> {
        self.ports.get(port.index())?.as_ref()
    }

    /// The limits of a port towards the control thread.
    pub fn limits(&self, port: PortId) -> LimitSpec {
        self.get(port).map_or(LimitSpec::DEFAULT, |g| g.limits)
    }

    /// How a port clamps TCP's segment size: by default, tunnels do.
    #[inline]
    pub fn mss(&self, port: PortId, kind: PortKind) -> MssClamp {
        let by_kind = if kind == PortKind::Tunnel { MssClamp::ToPmtu } else { MssClamp::Off };
        self.get(port).and_then(|g| g.mss).unwrap_or(by_kind)
    }
}
