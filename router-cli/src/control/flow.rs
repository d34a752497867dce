//! Offloaded flows.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What offloading has come to, and its flows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowsInfo {
    /// None: offloading is off.
    pub status: Option<FlowStatus>,
    /// Those with the most bytes first, as many as were asked for.
    pub flows: Vec<FlowInfo>,
}

/// What offloading has come to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// Flows in the list.
    pub flows: usize,
    /// Most that there may be.
    pub max: usize,
    /// Why nothing is offloaded for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<String>,
    /// How often a change of the router has made all entries void.
    pub generation: u64,
    /// Frames that were offloaded; a super-frame is one. The counters of ports and of the router include them.
    pub packets: u64,
    /// Of their IP packets, as they came in.
    pub bytes: u64,
    /// Frames that the kernel could not edit, and dropped.
    pub failed: u64,
}

/// An offloaded flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowInfo {
    /// The port where it comes in.
    pub iif: String,
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// "tcp" or "udp".
    pub proto: String,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// TOS or traffic class.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tos: u8,
    /// IPv6 flow label.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub flowlabel: u32,
    /// The port where it goes out.
    pub oif: String,
    /// The tunnel that it enters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<String>,
    /// Frames; a super-frame is one.
    pub packets: u64,
    /// Packets on the wire.
    pub segments: u64,
    /// Of the IP packets, as they came in.
    pub bytes: u64,
    /// Seconds since it was first offloaded.
    pub age: f64,
    /// Seconds since its last packet was seen.
    pub idle: f64,
    /// Something has changed, and no packet has come since: its next one takes the general way.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale: bool,
}

fn is_zero<T: Default + PartialEq>(n: &T) -> bool {
    *n == T::default()
}
