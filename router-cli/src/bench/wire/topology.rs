//! Addresses, frames, layouts and routers' configurations of each path.
//!
//! ```text
//! gen eth0 -------- left dut right -------- eth0 sink           one device under test
//! gen eth0 -- left dut right -- left dut2 right -- eth0 sink    two (RFC 8219 4.2)
//! ```
//! Addresses are those set aside for benchmarks: 198.18.0.0/15 (RFC 2544), 2001:2::/48 (RFC 5180).

use super::error::WireError;
use super::plan::{DutName, PathName, SizeName};
use benches::pattern::Pattern;
use benches::table::Table;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use router_core::addr::MacAddr;
use router_io::lab::Net;
use router_io::traffic::{Encapsulation, FCS, FrameSet, LOAD_PORT, Layout, PROBE_PORT, ProbePlan, Udp};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a table of one route consists of.
pub(super) const ONE_ROUTE: (IpNet, IpNet) = (
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(198, 19, 128, 0), 17)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 2, 0, 0x8000, 0, 0, 0, 0), 49)),
);

pub(super) const GEN4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);
pub(super) const LEFT4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
pub(super) const RIGHT4: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
pub(super) const GEN6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 2);
const LEFT6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1);
const RIGHT6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, 1);
/// Between two devices under test.
const MIDDLE4: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 1, 1), Ipv4Addr::new(198, 18, 1, 2)];
/// Where the inner packets of a tunnel from the generator come from.
const INNER: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 2, 0, 0, 0, 2);
/// Where TCP goes that leaves by a tunnel to the sink.
pub(super) const BEHIND: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 3, 0, 0, 0, 2);
/// A destination that no table has (RFC 5737).
const NOWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 0);
/// Gateways behind the right port.
pub(super) const GATEWAYS: u8 = 8;

/// The sink's IPv4 address number `i`.
pub(super) fn sink4(i: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 19, 0, 2 + i)
}

/// Gives the hosts at the ends, on these devices of theirs, their addresses.
pub(super) fn end_addresses(net: &Net, [generator, sink]: [&str; 2]) -> Result<(), WireError> {
    net.addr("gen", generator, &format!("{GEN4}/24"))?;
    net.addr("gen", generator, &format!("{GEN6}/64"))?;
    for i in 0..GATEWAYS {
        net.addr("sink", sink, &format!("{}/24", sink4(i)))?;
        net.addr("sink", sink, &format!("{}/64", sink6(i)))?;
    }
    net.addr("sink", sink, &format!("{BEHIND}/128"))?;
    Ok(())
}

/// The sink's IPv6 address number `i`.
pub(super) fn sink6(i: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 2, 0, 1, 0, 0, 0, 2 + u16::from(i))
}

/// One router of the setup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The only one, or the first of two.
    First,
    /// The second of two.
    Second,
}

/// What a router is to be.
#[derive(Clone, Debug, Default)]
pub(super) struct RouterPlan {
    /// Device and address with prefix length.
    pub addrs: Vec<(&'static str, String)>,
    /// Local and remote end of its tunnel t0.
    pub tunnel: Option<(Ipv4Addr, Ipv4Addr)>,
    /// Routes in iproute2's grammar, without the table.
    pub extra: Vec<String>,
}

impl PathName {
    /// The routers on the way.
    pub(super) fn roles(self) -> &'static [Role] {
        if self == PathName::Dual { &[Role::First, Role::Second] } else { &[Role::First] }
    }

    /// MTU of the links from the generator, between two routers, to the sink: where outer headers are on the way they
    /// must fit, whatever the inner frame's size.
    pub(super) fn mtus(self) -> [u32; 3] {
        match self {
            PathName::Encap => [1500, 1500, 1600],
            PathName::Decap => [1600, 1500, 1500],
            PathName::Dual => [1500, 1600, 1500],
            PathName::IcmpTooBig => [1500, 1500, 1280],
            _ => [1500; 3],
        }
    }

    /// Routes of the generator's and the sink's kernel, for TCP.
    pub(super) fn host_routes(self) -> [(&'static str, String); 4] {
        let back = if self == PathName::ViaInet6 { format!("inet6 {RIGHT6}") } else { RIGHT4.to_string() };
        [
            ("gen", format!("0.0.0.0/0 via {LEFT4}")),
            ("gen", format!("::/0 via {LEFT6}")),
            ("sink", format!("0.0.0.0/0 via {back}")),
            ("sink", format!("::/0 via {RIGHT6}")),
        ]
    }

    /// Where the sink's TCP listens, if a stream can go this way.
    pub(super) fn tcp(self) -> Option<IpAddr> {
        match self {
            PathName::Native4 | PathName::ViaInet6 => Some(sink4(0).into()),
            PathName::Native6 | PathName::Dual => Some(sink6(0).into()),
            PathName::Encap => Some(BEHIND.into()),
            _ => None,
        }
    }

    /// Whether the sink is on the generator's device: answers come back there.
    pub(super) fn returns(self) -> bool {
        self.is_error()
    }

    /// Where a test packet is found at the sink.
    pub(super) fn layout(self) -> Layout {
        match self {
            PathName::Native4 | PathName::ViaInet6 => Layout::udp4(),
            PathName::Native6 | PathName::Decap | PathName::Dual => Layout::udp6(),
            PathName::Encap => Layout::udp6_in_4(),
            // Time Exceeded, Destination Unreachable (no route; fragmentation needed): RFC 792.
            PathName::IcmpTtl => Layout::icmp4(11),
            PathName::IcmpNoRoute | PathName::IcmpTooBig => Layout::icmp4(3),
        }
    }

    /// Where a test packet is found where it comes from the generator: for a sink at the other end of its wire.
    pub(super) fn sent_layout(self) -> Layout {
        match self {
            PathName::Decap => Layout::udp6_in_4(),
            _ if self.is_v6() => Layout::udp6(),
            _ => Layout::udp4(),
        }
    }

    /// The router's addresses and tunnel.
    pub(super) fn router(self, role: Role) -> RouterPlan {
        let a = |dev, addr: IpAddr| (dev, format!("{addr}/{}", if addr.is_ipv4() { 24 } else { 64 }));
        let left = [a("left", LEFT4.into()), a("left", LEFT6.into())];
        let right = [a("right", RIGHT4.into()), a("right", RIGHT6.into())];
        let mut plan = RouterPlan::default();
        match (self, role) {
            (PathName::Dual, Role::First) => {
                plan.addrs = left.to_vec();
                plan.addrs.push(a("right", MIDDLE4[0].into()));
                plan.tunnel = Some((MIDDLE4[0], MIDDLE4[1]));
                plan.extra = vec!["2001:2:0:1::/64 dev t0".to_owned()];
            }
            (PathName::Dual, Role::Second) => {
                plan.addrs = right.to_vec();
                plan.addrs.push(a("left", MIDDLE4[1].into()));
                plan.tunnel = Some((MIDDLE4[1], MIDDLE4[0]));
                plan.extra = vec!["2001:2::/64 dev t0".to_owned()];
            }
            _ => {
                plan.addrs = left.into_iter().chain(right).collect();
                plan.tunnel = match self {
                    PathName::Encap => Some((RIGHT4, sink4(0))),
                    PathName::Decap => Some((LEFT4, GEN4)),
                    _ => None,
                };
                match self {
                    PathName::Decap => plan.extra = vec!["2001:2:0:2::/64 dev t0".to_owned()],
                    PathName::Encap => plan.extra = vec![format!("{BEHIND}/128 dev t0")],
                    _ => {}
                }
                if self == PathName::ViaInet6 {
                    // No IPv4 on the way out.
                    plan.addrs.retain(|(dev, addr)| *dev == "left" || addr.contains(':'));
                    plan.extra = vec![format!("198.19.0.0/24 via inet6 {}", sink6(0))];
                }
            }
        }
        plan
    }

    /// Where the table's route with next hop number `hop` leads, in the words of `route add`.
    pub(super) fn next_hop(self, role: Role, hop: u8) -> String {
        let i = hop.wrapping_sub(1) % GATEWAYS;
        match self {
            PathName::Encap => "dev t0".to_owned(),
            PathName::Dual if role == Role::First => "dev t0".to_owned(),
            PathName::Native6 | PathName::Decap | PathName::Dual => format!("via {}", sink6(i)),
            PathName::ViaInet6 => format!("via inet6 {}", sink6(i)),
            _ => format!("via {}", sink4(i)),
        }
    }

    /// The outer header that the generator puts on, if it is a tunnel's end.
    fn outer(self) -> Option<Encapsulation> {
        (self == PathName::Decap).then_some(Encapsulation { src: GEN4, dst: LEFT4 })
    }

    fn source(self) -> IpAddr {
        match self {
            PathName::Decap => INNER.into(),
            _ if self.is_v6() => GEN6.into(),
            _ => GEN4.into(),
        }
    }

    fn udp(self, macs: [MacAddr; 2], dst: IpAddr, sport: u16, dport: u16) -> Udp {
        let ttl = if self == PathName::IcmpTtl { 1 } else { 64 };
        Udp { dst_mac: macs[1], src_mac: macs[0], src: self.source(), dst, sport, dport, ttl }
    }

    /// Frame length on the wire, without check sequence, for a nominal size. An inner packet on its way out of a tunnel
    /// has the nominal size once it is out, so that both sides of a tunnel see the same packet.
    fn length(self, size: usize) -> usize {
        size - FCS + if self.outer().is_some() { 20 } else { 0 }
    }
}

/// The load: a frame per flow (and size of the mix), and its probe.
pub(super) struct Stream {
    pub frames: FrameSet,
    pub probe: ProbePlan,
}

/// Makes the load for a path. `macs`: generator's and device under test's.
pub(super) fn stream(
    path: PathName,
    size: SizeName,
    table: &Table,
    flows: u32,
    macs: [MacAddr; 2],
    rate: f64,
) -> Stream {
    let destinations: Vec<IpAddr> = match path {
        PathName::IcmpNoRoute => (0..flows).map(|i| Ipv4Addr::from_bits(NOWHERE.to_bits() + i % 256).into()).collect(),
        _ => Pattern::Prefix.destinations(table, flows as usize),
    };
    let sizes = size.sizes();
    // Each flow has frames of all sizes: the number of frames is a multiple of both.
    let count = destinations.len() * sizes.len();
    let mut frames = FrameSet::default();
    for i in 0..count {
        let flow = i % destinations.len();
        let at = (i + i / destinations.len()) % sizes.len();
        let udp = path.udp(macs, destinations[flow], 1024 + (flow % 60_000) as u16, LOAD_PORT);
        frames.push(&udp.frame(path.length(sizes[at]), &[], path.outer()));
    }
    let first = destinations.first().copied().unwrap_or(path.source());
    let udp = path.udp(macs, first, 1023, PROBE_PORT);
    let probe = ProbePlan { udp, len: path.length(sizes[0]), outer: path.outer(), rate };
    Stream { frames, probe }
}

/// Duet's configuration file.
pub(super) fn duet_config(path: PathName, role: Role, dut: DutName, workers: u16) -> String {
    let plan = path.router(role);
    let kind = dut.port_kind().unwrap_or("packet");
    let quote = |list: Vec<String>| list.into_iter().map(|a| format!("\"{a}\"")).collect::<Vec<_>>().join(", ");
    let mut t = format!("[router]\nname = \"dut\"\nworkers = {workers}\n\n");
    if dut == DutName::PacketOffload {
        t += "[offload]\nflows = true\n\n";
    }
    // The error path is measured, not its limit.
    t += "[icmp]\nerror_rate = 4294967295\nerror_burst = 4294967295\npeer_rate = 4294967295\npeer_burst = 4294967295\n";
    for dev in ["left", "right"] {
        let addrs = plan.addrs.iter().filter(|(d, _)| *d == dev).map(|(_, a)| a.clone()).collect();
        let _ = write!(t, "\n[port.{dev}]\nkind = \"{kind}\"\ndevice = \"{dev}\"\naddress = [{}]\n", quote(addrs));
    }
    if let Some((local, remote)) = plan.tunnel {
        let _ = write!(t, "\n[tunnel.t0]\nmode = \"6in4\"\nlocal = \"{local}\"\nremote = \"{remote}\"\n");
    }
    if !plan.extra.is_empty() {
        let _ = write!(t, "\n[routes]\nmain = [{}]\n", quote(plan.extra));
    }
    t
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    const MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];

    fn table(path: PathName) -> Table {
        vec![(if path.is_v6() { ONE_ROUTE.1 } else { ONE_ROUTE.0 }, 1)]
    }

    #[test]
    fn every_path_has_a_valid_configuration() {
        for path in PathName::value_variants() {
            for role in path.roles() {
                let text = duet_config(*path, *role, DutName::Packet, 2);
                let dir = tempfile::tempdir().unwrap();
                let file = dir.path().join("dut.toml");
                std::fs::write(&file, &text).unwrap();
                crate::config::load(&file).unwrap_or_else(|e| panic!("{path:?}: {e}\n{text}"));
            }
        }
    }

    #[test]
    fn streams_have_the_size_asked_for() {
        for path in PathName::value_variants() {
            for size in [64u16, 128, 1518] {
                let s = stream(*path, SizeName::Bytes(size), &table(*path), 16, MACS, 1000.0);
                assert_eq!(s.frames.len(), 16);
                let outer = if *path == PathName::Decap { 20 } else { 0 };
                let least = if path.is_v6() { 62 } else { 60 };
                let want = (usize::from(size) - 4).max(least) + outer;
                assert!(s.frames.iter().all(|f| f.len() == want), "{path:?} {size}");
            }
            let s = stream(*path, SizeName::Imix, &table(*path), 16, MACS, 1000.0);
            assert_eq!(s.frames.len(), 16 * 12);
            let big = s.frames.iter().filter(|f| f.len() > 1500).count();
            assert_eq!(big, 16, "{path:?}: one of twelve");
        }
    }

    #[test]
    fn destinations_are_where_the_table_leads_or_nowhere() {
        for path in PathName::value_variants().iter().filter(|p| !p.is_v6()) {
            let s = stream(*path, SizeName::Bytes(64), &table(*path), 64, MACS, 1000.0);
            for f in s.frames.iter() {
                let dst = Ipv4Addr::new(f[30], f[31], f[32], f[33]);
                let routed = ONE_ROUTE.0.contains(&IpAddr::V4(dst));
                assert_eq!(routed, *path != PathName::IcmpNoRoute, "{path:?} {dst}");
                assert_eq!(f[22], if *path == PathName::IcmpTtl { 1 } else { 64 });
            }
        }
    }
}
