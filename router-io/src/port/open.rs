//! Opening a port as configured: any kind, one queue per worker, with the facts about its device.

use super::error::PortError;
use super::packet::PacketOptions;
use super::pcap::{PcapPort, Timeline};
use super::wireguard::{self, spec::WireguardConfig};
use super::xdp::memory::Memories;
use super::xdp::{self, XdpOptions};
use super::{Port, datalink, memory, packet, rawip, tun, udp};
use crate::clock::VirtualClock;
use crate::netlink::{KernelBlock, Netlink, NetlinkError};
use crate::offload::Programs;
use crate::sys::bpf::flow::FlowMaps;
use crate::sys::device::Device;
use ipnet::IpNet;
use router_core::addr::MacAddr;
use router_core::port::{Medium, PortCaps, PortKind, TableId};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};

/// MTU of ports without a device that has one.
const DEFAULT_MTU: u32 = 1500;

/// A port as configured. Fields that do not concern its kind are ignored.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// Its name in the router, at most 15 bytes.
    pub name: String,
    /// How it moves packets.
    pub kind: PortKind,
    /// The host's device; None: of the port's own name (`rawip`: any device).
    pub device: Option<String>,
    /// Its link-layer address; None: the device's. Another one than the device's wants `promiscuous`.
    pub mac: Option<MacAddr>,
    /// Its MTU in bytes; None: the device's, else 1500. Only `tun` and `tap` change the device.
    pub mtu: Option<u32>,
    /// Its addresses with link prefix lengths.
    pub addrs: Vec<IpNet>,
    /// VLAN id that it sends and accepts; None: untagged.
    pub vlan: Option<u16>,
    /// Table in which packets that enter here are looked up.
    pub table: TableId,
    /// Receive frames for all stations.
    pub promiscuous: bool,
    /// Administratively up from the start.
    pub admin_up: bool,
    /// `packet`, `datalink`: leave the device to the kernel too (by default the kernel is kept off it).
    pub share_with_kernel: bool,
    /// `packet`: send past the queueing discipline of the device.
    pub qdisc_bypass: bool,
    /// `xdp`: how.
    pub xdp: XdpOptions,
    /// `tun`, `tap`: addresses of the host's side of the device.
    pub host_addrs: Vec<IpNet>,
    /// `rawip`, `udp`: only packets to this address of the host.
    pub local: Option<IpAddr>,
    /// `udp`: its UDP ports.
    pub listen: Vec<u16>,
    /// `pcap`: file to read, if any.
    pub input: Option<PathBuf>,
    /// `pcap`: file to write, if any.
    pub output: Option<PathBuf>,
    /// `memory`, and `pcap` without input: what its frames look like.
    pub medium: Medium,
    /// `wireguard`: keys and peers.
    pub wireguard: WireguardConfig,
}

impl PortConfig {
    /// A port with nothing but a name and a kind.
    pub fn new(name: impl Into<String>, kind: PortKind) -> Self {
        PortConfig {
            name: name.into(),
            kind,
            device: None,
            mac: None,
            mtu: None,
            addrs: Vec::new(),
            vlan: None,
            table: TableId::MAIN,
            promiscuous: false,
            admin_up: true,
            share_with_kernel: false,
            qdisc_bypass: false,
            xdp: XdpOptions::default(),
            host_addrs: Vec::new(),
            local: None,
            listen: Vec::new(),
            input: None,
            output: None,
            medium: Medium::Ethernet,
            wireguard: WireguardConfig::default(),
        }
    }

    fn packet_options(&self) -> PacketOptions {
        PacketOptions { promiscuous: self.promiscuous, qdisc_bypass: self.qdisc_bypass }
    }

    /// The name of the device, the port's own by default.
    pub fn device_name(&self) -> &str {
        self.device.as_deref().unwrap_or(&self.name)
    }
}

/// Something that lasts as long as the port and is undone when dropped.
pub type Guard = Box<dyn Send>;

/// An opened port.
pub struct OpenedPort {
    /// How it moves packets: never [`PortKind::Auto`].
    pub kind: PortKind,
    /// One queue per worker, at least one.
    pub queues: Vec<Box<dyn Port>>,
    /// What its frames look like.
    pub medium: Medium,
    /// What every queue takes at egress.
    pub caps: PortCaps,
    /// The device's link-layer address.
    pub mac: Option<MacAddr>,
    /// The device's MTU.
    pub mtu: u32,
    /// Whether the device is up and has carrier; true without a device.
    pub carrier: bool,
    /// The host's index of the device, to match link events with.
    pub device_index: Option<u32>,
    /// The host's name of the device.
    pub device: Option<String>,
    /// `pcap`: when its next frame is due.
    pub timeline: Option<Timeline>,
    /// `wireguard`: what tells of its peers, and changes them.
    pub wireguard: Option<wireguard::Handle>,
    /// Flows that enter and leave here may be offloaded.
    pub offloads: bool,
    /// What is undone when the port is closed.
    pub guards: Vec<Guard>,
}

impl fmt::Debug for OpenedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedPort")
            .field("queues", &self.queues.len())
            .field("medium", &self.medium)
            .field("caps", &self.caps)
            .field("mac", &self.mac)
            .field("mtu", &self.mtu)
            .field("carrier", &self.carrier)
            .field("device_index", &self.device_index)
            .finish_non_exhaustive()
    }
}

impl OpenedPort {
    /// A port without a device, made of ready queues: `memory` ports, and kinds made elsewhere.
    pub fn from_queues(queues: Vec<Box<dyn Port>>) -> Self {
        let medium = queues.first().map_or(Medium::Ip, |q| q.medium());
        OpenedPort {
            kind: PortKind::Memory,
            caps: common_caps(&queues),
            queues,
            medium,
            mac: None,
            mtu: DEFAULT_MTU,
            carrier: true,
            device_index: None,
            device: None,
            timeline: None,
            wireguard: None,
            offloads: false,
            guards: Vec::new(),
        }
    }

    fn of_device(port: &str, queues: Vec<Box<dyn Port>>, facts: &Device) -> Result<Self, PortError> {
        let read = |e| PortError::system(port, "read the device's facts", super::error::NET_ADMIN, e);
        let mut opened = OpenedPort::from_queues(queues);
        opened.mac = facts.mac().map_err(read)?;
        opened.mtu = facts.mtu().map_err(read)?;
        opened.device_index = Some(facts.index().map_err(read)?);
        opened.device = Some(facts.name());
        opened.carrier = facts.link().map_err(read)?.1;
        Ok(opened)
    }
}

/// Queues of one kind as queues of any.
fn boxed<Q: Port + 'static>(queues: Vec<Q>) -> Vec<Box<dyn Port>> {
    queues.into_iter().map(|q| Box::new(q) as Box<dyn Port>).collect()
}

/// What all queues take.
fn common_caps(queues: &[Box<dyn Port>]) -> PortCaps {
    let all = |f: fn(&PortCaps) -> bool| !queues.is_empty() && queues.iter().all(|q| f(&q.caps()));
    PortCaps {
        partial_checksum: all(|c| c.partial_checksum),
        tso: all(|c| c.tso),
        uso: all(|c| c.uso),
        tunnels: all(|c| c.tunnels),
    }
}

/// Opens ports, and remembers what they share.
#[derive(Debug, Default)]
pub struct Opener {
    /// Times capture ports.
    pub clock: VirtualClock,
    /// Memory that `xdp` ports share with the kernel.
    memories: Memories,
    /// Devices from which the kernel is kept off, by index: several ports (VLANs) may use one device.
    blocks: BTreeMap<u32, Weak<KernelBlock>>,
    /// Devices with programs that offload flows: one port each.
    programs: BTreeMap<u32, Weak<Programs>>,
    /// What the programs of `packet` ports share; None: nothing is offloaded.
    pub offload: Option<Arc<FlowMaps>>,
}

impl Opener {
    /// An opener whose capture ports follow `clock`.
    pub fn new(clock: VirtualClock) -> Self {
        Opener {
            clock,
            memories: Memories::default(),
            blocks: BTreeMap::new(),
            programs: BTreeMap::new(),
            offload: None,
        }
    }

    /// Opens a port with one queue for each of `workers`, in the calling thread's network namespace.
    pub fn open(&mut self, config: &PortConfig, workers: usize) -> Result<OpenedPort, PortError> {
        let kind = match config.kind {
            PortKind::Auto => return self.open_fastest(config, workers),
            kind => kind,
        };
        let mut opened = match kind {
            PortKind::Xdp => self.open_xdp(config, workers)?,
            _ => open(config, workers, &self.clock, self.offload.as_deref().map(|f| (f, &mut self.programs)))?,
        };
        opened.kind = kind;
        if matches!(kind, PortKind::Packet | PortKind::Datalink) && !config.share_with_kernel {
            self.keep_kernel_off(config, &mut opened)?;
        }
        Ok(opened)
    }

    /// `xdp` where the device and our privileges allow it, `packet` otherwise; the log says which and why.
    fn open_fastest(&mut self, config: &PortConfig, workers: usize) -> Result<OpenedPort, PortError> {
        let device = config.device_name();
        let as_kind = |kind| PortConfig { kind, ..config.clone() };
        let possible = match config {
            _ if config.vlan.is_some() => Err("several VLANs of a device cannot share AF_XDP".to_owned()),
            _ if config.share_with_kernel => Err("AF_XDP leaves nothing to the kernel".to_owned()),
            _ => xdp::can_be_xdp(device).map_err(str::to_owned),
        };
        let tried = possible.and_then(|()| self.open(&as_kind(PortKind::Xdp), workers).map_err(|e| e.to_string()));
        match tried {
            Ok(opened) => {
                tracing::info!(port = %config.name, device, kind = "xdp", "chosen: the fastest here");
                Ok(opened)
            }
            Err(reason) => {
                let opened = self.open(&as_kind(PortKind::Packet), workers)?;
                tracing::info!(port = %config.name, device, kind = "packet", not_xdp = reason, "chosen: the fastest here");
                Ok(opened)
            }
        }
    }

    fn open_xdp(&mut self, config: &PortConfig, workers: usize) -> Result<OpenedPort, PortError> {
        let refuse = |reason: &str| PortError::Config { port: config.name.clone(), reason: reason.to_owned() };
        if config.share_with_kernel {
            return Err(refuse(
                "an xdp port takes every frame from the kernel; share_with_kernel needs kind = \"packet\"",
            ));
        }
        let (name, device) = (config.name.as_str(), config.device_name());
        let (queues, facts, guards) =
            xdp::open(name, device, config.promiscuous, workers, config.xdp, &mut self.memories)?;
        let queues = queues.into_iter().map(xdp::Queue::boxed).collect();
        Ok(OpenedPort { guards, ..OpenedPort::of_device(name, queues, &facts)? })
    }

    /// Keeps the host's kernel from acting on the frames that the port receives.
    fn keep_kernel_off(&mut self, config: &PortConfig, opened: &mut OpenedPort) -> Result<(), PortError> {
        let Some(index) = opened.device_index else { return Ok(()) };
        let block = match self.blocks.get(&index).and_then(Weak::upgrade) {
            Some(block) => block,
            None => {
                let block = KernelBlock::install(index)
                    .map_err(|e| netlink_error(config, "keep the kernel off the device", &e))?;
                Arc::new(block)
            }
        };
        self.blocks.retain(|_, b| b.strong_count() > 0);
        self.blocks.insert(index, Arc::downgrade(&block));
        opened.guards.push(Box::new(block));
        Ok(())
    }
}

fn open(
    config: &PortConfig,
    workers: usize,
    clock: &VirtualClock,
    flows: Option<(&FlowMaps, &mut BTreeMap<u32, Weak<Programs>>)>,
) -> Result<OpenedPort, PortError> {
    let name = config.name.as_str();
    let device = config.device_name();
    let impossible = |reason: &str| PortError::Config { port: name.to_owned(), reason: reason.to_owned() };
    match config.kind {
        PortKind::Tun | PortKind::Tap => {
            let medium = if config.kind == PortKind::Tap { Medium::Ethernet } else { Medium::Ip };
            let (queues, facts) = tun::open(name, device, medium, config.mtu, workers)?;
            let mut opened = OpenedPort::of_device(name, boxed(queues), &facts)?;
            opened.mac = opened.mac.map(tun::near_mac);
            add_host_addrs(config, &opened)?;
            Ok(opened)
        }
        PortKind::Packet => {
            let (mut queues, facts) = packet::open(name, device, config.packet_options(), workers)?;
            let index = facts.index().ok().filter(|_| !config.qdisc_bypass && config.vlan.is_none());
            let told = index.map(|index| packet::send_tunnels(&mut queues, index));
            // The kernel, too, would want the packets; the queueing discipline that is not wanted is on the programs' way.
            let may = index.is_some() && !config.share_with_kernel;
            let programs = flows.filter(|_| may).and_then(|(flows, all)| offload(config, flows, all, &queues, &facts));
            let mut opened = OpenedPort::of_device(name, boxed(queues), &facts)?;
            opened.offloads = programs.is_some();
            opened.guards.extend(programs.map(|p| Box::new(p) as Guard));
            match told {
                Some(Ok(link)) => opened.guards.push(Box::new(link)),
                Some(Err(e)) => tracing::debug!(port = name, error = %e, "super-frames in tunnels are cut in software"),
                None => {}
            }
            Ok(opened)
        }
        PortKind::Datalink => {
            let (queues, facts) = datalink::open(name, device, config.promiscuous, workers)?;
            OpenedPort::of_device(name, boxed(queues), &facts)
        }
        PortKind::RawIp => {
            let raw = rawip::RawIpConfig { local: config.local, device: config.device.clone() };
            let queues = rawip::open(name, &raw, workers)?;
            let mtu = queues.first().map_or(DEFAULT_MTU, rawip::RawIpQueue::mtu);
            Ok(OpenedPort { mtu, ..OpenedPort::from_queues(boxed(queues)) })
        }
        PortKind::Udp => {
            let listen = config.listen.clone();
            let config = udp::UdpConfig { local: config.local, device: config.device.clone(), listen };
            let queues = udp::open(name, &config, workers)?;
            let mtu = queues.first().map_or(DEFAULT_MTU, udp::UdpQueue::mtu);
            Ok(OpenedPort { mtu, ..OpenedPort::from_queues(boxed(queues)) })
        }
        PortKind::Pcap => {
            let (input, output) = (config.input.as_deref(), config.output.as_deref());
            if input.is_none() && output.is_none() {
                return Err(impossible("a pcap port needs `input`, `output` or both"));
            }
            let (queue, timeline) = PcapPort::open(name, input, output, config.medium, clock.clone())?;
            Ok(OpenedPort { timeline: Some(timeline), ..OpenedPort::from_queues(vec![Box::new(queue)]) })
        }
        PortKind::Wireguard => {
            let mtu = config.mtu.unwrap_or(wireguard::DEFAULT_MTU);
            let (queues, handle) = wireguard::open(name, &config.wireguard, mtu, workers)?;
            Ok(OpenedPort { mtu, wireguard: Some(handle), ..OpenedPort::from_queues(queues) })
        }
        // By itself a memory port has nobody at its other end; programs attach one end of `memory::pair`.
        PortKind::Memory => {
            let caps = PortCaps { partial_checksum: true, tso: true, uso: true, tunnels: false };
            let (queue, far) = memory::pair(config.medium, caps, 1024)
                .map_err(|e| PortError::system(name, "make a memory port", super::error::NET_ADMIN, e))?;
            let mut opened = OpenedPort::from_queues(vec![Box::new(queue)]);
            opened.guards.push(Box::new(far));
            Ok(opened)
        }
        PortKind::Tunnel
        | PortKind::Translator
        | PortKind::Loopback
        | PortKind::Vrf
        | PortKind::Xdp
        | PortKind::Auto => Err(impossible("this kind has no device to open")),
    }
}

/// Puts the programs that offload flows on a port; without them it works as ever.
fn offload(
    config: &PortConfig,
    flows: &FlowMaps,
    all: &mut BTreeMap<u32, Weak<Programs>>,
    queues: &[packet::PacketQueue],
    facts: &Device,
) -> Option<Arc<Programs>> {
    let mac = config.mac.or(facts.mac().ok().flatten())?;
    let index = facts.index().ok()?;
    all.retain(|_, p| p.strong_count() > 0);
    // Two ports that hear the same frames both treat them, as a user may want; the programs would not.
    if all.contains_key(&index) {
        tracing::warn!(port = %config.name, "flows of this port are not offloaded: another port has the device");
        return None;
    }
    let sockets = queues.iter().map(packet::PacketQueue::socket);
    match Programs::attach(flows, sockets, index, mac.0) {
        Ok(programs) => {
            let programs = Arc::new(programs);
            all.insert(index, Arc::downgrade(&programs));
            Some(programs)
        }
        Err(e) => {
            tracing::warn!(port = %config.name, error = %e, "flows of this port are not offloaded");
            None
        }
    }
}

/// Gives the host's side of a TUN or TAP device its addresses.
fn add_host_addrs(config: &PortConfig, opened: &OpenedPort) -> Result<(), PortError> {
    let (Some(index), false) = (opened.device_index, config.host_addrs.is_empty()) else { return Ok(()) };
    let mut netlink = Netlink::open().map_err(|e| netlink_error(config, "open netlink", &e))?;
    for addr in &config.host_addrs {
        match netlink.add_addr(index, *addr) {
            Err(e) if !e.is_exists() => return Err(netlink_error(config, &format!("add {addr} to the device"), &e)),
            _ => {}
        }
    }
    Ok(())
}

fn netlink_error(config: &PortConfig, action: &str, e: &NetlinkError) -> PortError {
    match e.errno() {
        Some(libc::EPERM | libc::EACCES) => PortError::Permission {
            port: config.name.clone(),
            action: action.to_owned(),
            capability: super::error::NET_ADMIN,
        },
        _ => PortError::Config { port: config.name.clone(), reason: format!("cannot {action}: {e}") },
    }
}
