//! What the inspecting operations ask and answer: captures, traces, drops.

use router_core::explain::{Bytes, PacketView};
use serde::{Deserialize, Serialize};

/// Which packets to capture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CaptureSelect {
    /// A filter in tcpdump's words; empty: all.
    pub filter: String,
    /// Points: `rx`, `tx`, `drop`, `inner`, `outer`.
    pub at: Vec<String>,
    /// Bytes of each packet; 0: all.
    pub snap: u32,
    /// Packets that may wait in the router; 0: a usual number.
    pub queue: u32,
}

/// Some packets of a capture.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CapturePage {
    /// In the order in which workers gave them.
    pub packets: Vec<PacketRecord>,
    /// Packets that were lost since the start, because they were not taken fast enough.
    pub lost: u64,
}

/// A captured packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PacketRecord {
    /// Nanoseconds since 1970.
    pub nanos: u64,
    /// Where: `rx`, `tx`, `drop`, `inner`, `outer`.
    pub at: String,
    /// Port or tunnel.
    pub port: String,
    /// On its way in; otherwise out.
    pub inbound: bool,
    /// Why it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its length.
    pub len: u32,
    /// Whether the bytes start with an Ethernet header.
    pub ethernet: bool,
    /// A VLAN tag that belongs into it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan_tci: Option<u16>,
    /// Bytes of payload of each of its segments, if it is a super-frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gso: Option<u16>,
    /// Its bytes.
    pub data: Bytes,
}

impl PacketRecord {
    /// The IP packet inside, if there is one.
    pub fn view(&self) -> Option<PacketView> {
        let bytes = &self.data.0;
        if !self.ethernet {
            return PacketView::read(bytes);
        }
        let tagged = bytes.get(12..14) == Some(&[0x81, 0x00]);
        PacketView::read(bytes.get(if tagged { 18 } else { 14 }..)?)
    }
}

/// Which packets to follow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TraceSelect {
    /// A filter in tcpdump's words; empty: all.
    pub filter: String,
    /// How many.
    pub count: u64,
}

/// A trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceInfo {
    /// Its number.
    pub id: u64,
    /// The filter.
    pub filter: String,
    /// Packets asked for.
    pub count: u64,
    /// Packets still wanted.
    pub left: u64,
    /// Records lost.
    pub lost: u64,
    /// What was seen.
    pub packets: Vec<TracedPacket>,
}

/// A packet that was followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TracedPacket {
    /// When it came, in nanoseconds since 1970.
    pub nanos: u64,
    /// Which worker treated it.
    pub worker: String,
    /// Through which port it came.
    pub iif: String,
    /// What it was, if it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<PacketView>,
    /// What happened to it.
    pub steps: Vec<TraceStep>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceStep {
    /// Nanoseconds after the first.
    pub after: u64,
    /// In one word.
    pub what: String,
    /// In some more.
    pub text: String,
    /// Whether packets of one way differ in it (lengths, TTLs).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub detail: bool,
    /// The packet as it was then, where its headers are new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<PacketView>,
}

/// A drop reason with what was seen of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DropInfo {
    /// Its name.
    pub reason: String,
    /// How many packets.
    pub packets: u64,
    /// The last ones.
    pub last: Vec<DroppedPacket>,
}

/// A packet that was dropped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DroppedPacket {
    /// Milliseconds ago.
    pub ago: u64,
    /// Through which port it came.
    pub iif: String,
    /// Its length then.
    pub len: u32,
    /// What it was, if it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packet: Option<PacketView>,
}

/// What one worker did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerStats {
    /// Its name.
    pub name: String,
    /// Frames taken from ports.
    pub received: u64,
    /// Frames made.
    pub originated: u64,
    /// Frames handed to ports.
    pub transmitted: u64,
    /// Frames dropped.
    pub dropped: u64,
}
