//! The desired state that a configuration describes.

use super::broker::{BrokerPlan, JoinPlan};
use crate::control::Access;
use ipnet::IpNet;
use router_core::addr::MacAddr;
use router_core::filter::{FilterSpec, GuardSpec};
use router_core::policy::RuleSpec;
use router_core::port::{PortKind, TableId};
use router_core::settings::Settings;
use router_core::spec::{NeighSpec, NextHopSpec, RouteSpec, TunnelSpec};
use router_core::translate::TranslatorSpec;
use router_io::port::wireguard::spec::WireguardConfig;
use router_io::port::xdp::XdpOptions;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// `[router]`, but for what belongs to the settings.
    pub router: RouterPlan,
    /// `router_id`, `max_tunnel_nesting`, `[icmp]`, `[neighbor]`.
    pub settings: Settings,
    /// `[port.NAME]`, by name.
    pub ports: BTreeMap<String, PortPlan>,
    /// `[tunnel.NAME]`, by name.
    pub tunnels: BTreeMap<String, TunnelPlan>,
    /// `[vrf.NAME]`, by name.
    pub vrfs: BTreeMap<String, VrfPlan>,
    /// `[rules]`, in the order of the file.
    pub rules: Vec<RuleSpec>,
    /// `[translate.NAME]`, by name.
    pub translators: BTreeMap<String, TranslatorSpec>,
    /// Translators whose prefix is still to be asked for (`prefix = "auto"`).
    pub discover: Vec<String>,
    /// Names of ports and tunnels in the order of the file, which is the order in which they are opened.
    pub order: Vec<String>,
    /// `[nexthop]`, by number.
    pub nexthops: BTreeMap<u32, NextHopSpec>,
    /// `[neigh]`, in the order of the file.
    pub neighs: Vec<NeighSpec>,
    /// `[broker]`.
    pub broker: Option<BrokerPlan>,
    /// `[tunnel.NAME]` that a broker elsewhere gives, by name.
    pub joins: BTreeMap<String, JoinPlan>,
    /// `[filter.NAME]`, and the filters that ports write in place (`PORT.in`, `PORT.out`), by name.
    pub filters: BTreeMap<String, FilterSpec>,
    /// What ports and tunnels ask of their packets, by name, where they say anything.
    pub guards: BTreeMap<String, GuardSpec>,
    /// `[offload]`: most flows that the kernel forwards by itself; None: it does not. Cannot change without a restart.
    pub offload: Option<u32>,
    /// `[routes]`, in the order of the file, tables filled in.
    pub routes: Vec<RouteSpec>,
}

/// What cannot change without a restart.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterPlan {
    /// The router's name.
    pub name: String,
    /// Worker threads; None: one for each processor.
    pub workers: Option<usize>,
    /// The control socket; None: by name in /run/duet.
    pub socket: Option<PathBuf>,
    /// Owner and mode of the control socket.
    pub access: Access,
}

impl Default for RouterPlan {
    fn default() -> Self {
        RouterPlan { name: "duet".into(), workers: None, socket: None, access: Access::default() }
    }
}

impl RouterPlan {
    /// The control socket's path.
    pub fn socket_path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| crate::control::default_path(&self.name))
    }
}

/// Whether and which link-local IPv6 address a port has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkLocal {
    /// From its link-layer address, where it has one (RFC 4291 appendix A).
    #[default]
    Auto,
    /// None.
    Off,
    /// This one.
    Address(Ipv6Addr),
}

/// A VRF.
#[derive(Clone, Debug, PartialEq)]
pub struct VrfPlan {
    /// Its table.
    pub table: TableId,
    /// Addresses of its device.
    pub address: Vec<IpNet>,
}

/// A port.
#[derive(Clone, Debug, PartialEq)]
pub struct PortPlan {
    /// Name.
    pub name: String,
    /// How it moves packets.
    pub kind: PortKind,
    /// The host's device; None: of the port's own name.
    pub device: Option<String>,
    /// Addresses with the length of their link prefix.
    pub address: Vec<IpNet>,
    /// Link-layer address; None: the device's.
    pub mac: Option<MacAddr>,
    /// MTU in bytes; None: the device's.
    pub mtu: Option<u32>,
    /// VLAN id.
    pub vlan: Option<u16>,
    /// Table of packets that enter here.
    pub table: TableId,
    /// The VRF that it is in, whose table it has then.
    pub vrf: Option<String>,
    /// Mark of packets that enter here; 0 for none.
    pub mark: u32,
    /// Its link-local address.
    pub link_local: LinkLocal,
    /// Receive frames for all stations.
    pub promisc: bool,
    /// Administratively up from the start.
    pub up: bool,
    /// Leave the device to the kernel too.
    pub share_with_kernel: bool,
    /// `packet`: send past the queueing discipline of the device.
    pub qdisc_bypass: bool,
    /// `xdp`, `auto`: how AF_XDP is used.
    pub xdp: XdpOptions,
    /// Addresses of the host's side of a TUN device.
    pub host_address: Vec<IpNet>,
    /// `rawip`, `udp`: only packets to this address of the host.
    pub local: Option<IpAddr>,
    /// `udp`: its UDP ports.
    pub listen: Vec<u16>,
    /// `pcap`: file to read.
    pub input: Option<PathBuf>,
    /// `pcap`: file to write.
    pub output: Option<PathBuf>,
    /// `wireguard`: its keys and peers.
    pub wireguard: WireguardConfig,
}

impl PortPlan {
    /// A port with nothing but a name and a kind.
    pub fn new(name: &str, kind: PortKind) -> Self {
        PortPlan {
            name: name.to_owned(),
            kind,
            device: None,
            address: Vec::new(),
            mac: None,
            mtu: None,
            vlan: None,
            table: TableId::MAIN,
            vrf: None,
            mark: 0,
            link_local: LinkLocal::Auto,
            promisc: false,
            up: true,
            share_with_kernel: false,
            qdisc_bypass: false,
            xdp: XdpOptions::default(),
            host_address: Vec::new(),
            local: None,
            listen: Vec::new(),
            input: None,
            output: None,
            wireguard: WireguardConfig::default(),
        }
    }
}

/// A tunnel with its addresses.
#[derive(Clone, Debug, PartialEq)]
pub struct TunnelPlan {
    /// The tunnel.
    pub spec: TunnelSpec,
    /// Its addresses.
    pub address: Vec<IpNet>,
    /// The VRF that what comes out of it belongs to.
    pub vrf: Option<String>,
}
