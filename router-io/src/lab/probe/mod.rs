//! Measurements with plain sockets, from the calling thread's network namespace; [`Host`] has a method for
//! each that runs it there. Every wait has a deadline, every result is data that serialises.

mod icmp;
mod pattern;
mod ping;
mod sweep;
mod tcp;
mod traceroute;
mod udp;

pub use icmp::{IcmpError, MessageBytes, icmp_name};
pub use ping::{Ping, PingReport, Rtt};
pub use sweep::{PingSweep, SweepReport};
pub use tcp::{StreamReport, TcpReport, TcpTransfer};
pub use traceroute::{Hop, Traceroute, TracerouteReport};
pub use udp::{UdpExchange, UdpReport};

use super::{Host, LabError};
use router_core::addr::Family;
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};
use serde::Serialize;
use socket2::{Domain, SockAddr};
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// What a sender does about the path MTU (`ping -M`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PmtuDisc {
    /// Never fragment: DF set, and the kernel refuses what exceeds the known path MTU.
    Do,
    /// DF set; the kernel fragments here what exceeds the known path MTU. The kernel's default.
    #[default]
    Want,
    /// DF clear: routers may fragment IPv4.
    Dont,
}

/// Applies a path MTU policy to a socket.
fn set_pmtu_disc(socket: impl AsFd, family: Family, policy: PmtuDisc) -> io::Result<()> {
    match family {
        Family::Inet => sockopt::set_ip_mtu_discover(
            socket,
            match policy {
                PmtuDisc::Do => Ipv4PathMtuDiscovery::DO,
                PmtuDisc::Want => Ipv4PathMtuDiscovery::WANT,
                PmtuDisc::Dont => Ipv4PathMtuDiscovery::DONT,
            },
        ),
        Family::Inet6 => sockopt::set_ipv6_mtu_discover(
            socket,
            match policy {
                PmtuDisc::Do => Ipv6PathMtuDiscovery::DO,
                PmtuDisc::Want => Ipv6PathMtuDiscovery::WANT,
                PmtuDisc::Dont => Ipv6PathMtuDiscovery::DONT,
            },
        ),
    }?;
    Ok(())
}

fn domain(family: Family) -> Domain {
    match family {
        Family::Inet => Domain::IPV4,
        Family::Inet6 => Domain::IPV6,
    }
}

/// A socket address; `scope` is the interface index that a link-local address needs.
fn socket_addr(addr: IpAddr, port: u16, scope: u32) -> SocketAddr {
    match addr {
        IpAddr::V4(_) => SocketAddr::new(addr, port),
        IpAddr::V6(a) => SocketAddr::V6(SocketAddrV6::new(a, port, 0, scope)),
    }
}

fn raw_addr(addr: IpAddr, scope: u32) -> SockAddr {
    SockAddr::from(socket_addr(addr, 0, scope))
}

/// What is left until `deadline`; at least a millisecond, for zero means "for ever" to sockets.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// The MTU that the kernel uses towards `dst`: the egress device's, or what path MTU discovery has learned.
pub fn path_mtu(dst: IpAddr) -> io::Result<u32> {
    let any = match Family::of(&dst) {
        Family::Inet => "0.0.0.0:0",
        Family::Inet6 => "[::]:0",
    };
    let socket = UdpSocket::bind(any)?;
    // Connecting a UDP socket sends nothing; it looks the route up.
    socket.connect((dst, 9))?;
    let mtu = match Family::of(&dst) {
        Family::Inet => sockopt::ip_mtu(&socket),
        Family::Inet6 => sockopt::ipv6_mtu(&socket),
    };
    Ok(mtu?)
}

impl Host {
    /// Pings from this host.
    pub fn ping(&self, ping: &Ping) -> Result<PingReport, LabError> {
        self.probe("ping", || ping.run())
    }

    /// Pings once with every size of a range, many at a time.
    pub fn ping_sweep(&self, sweep: &PingSweep) -> Result<SweepReport, LabError> {
        self.probe("ping sweep", || sweep.run())
    }

    /// Traces the route from this host.
    pub fn traceroute(&self, trace: &Traceroute) -> Result<TracerouteReport, LabError> {
        self.probe("traceroute", || trace.run())
    }

    /// The MTU that this host's kernel uses towards `dst`; see [`path_mtu`].
    pub fn path_mtu(&self, dst: IpAddr) -> Result<u32, LabError> {
        self.probe("path MTU", || path_mtu(dst))
    }

    /// Moves bytes over TCP between this host (client) and another (server), and compares them.
    pub fn tcp_transfer(&self, server: &Host, transfer: &TcpTransfer) -> Result<TcpReport, LabError> {
        tcp::run(self, server, transfer).map_err(LabError::system(format!("host {}: tcp transfer", self.name())))
    }

    /// Exchanges datagrams between this host and another and compares them.
    pub fn udp_exchange(&self, server: &Host, exchange: &UdpExchange) -> Result<UdpReport, LabError> {
        udp::run(self, server, exchange).map_err(LabError::system(format!("host {}: udp exchange", self.name())))
    }

    fn probe<T: Send>(&self, what: &str, f: impl FnOnce() -> io::Result<T> + Send) -> Result<T, LabError> {
        self.run(f).map_err(LabError::system(format!("host {}: {what}", self.name())))
    }
}
