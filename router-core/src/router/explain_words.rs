//! The words of [`super::Router::explain`], where facts become sentences.

use super::Router;
use crate::addr::Family;
use crate::forward::Verdict;
use crate::forward::local::Local;
use crate::headers::protocol;
use crate::icmp::{IcmpError, SourceRule};
use crate::packet::{Fragment, Packet};
use crate::port::{PortId, PortInfo, PortKind, TableId};
use crate::router::{MtuCause, PathInfo};
use crate::spec::{TunnelMode, TunnelOptions};
use crate::tables::Tables;
use crate::time::Instant;
use crate::tunnel::IPV6_MIN_MTU;
use std::sync::Arc;

pub(super) const ADDRESS_CHECK: &str = "source and destination may be on a wire";

pub(super) fn header_check(family: Family) -> &'static str {
    match family {
        Family::Inet => "IPv4 version, lengths, options and header checksum",
        Family::Inet6 => "IPv6 version, lengths and extension headers",
    }
}

pub(super) fn rule(port: Option<&Arc<PortInfo>>, table: TableId) -> String {
    match port {
        Some(p) if table != TableId::MAIN => format!("{} is bound to it", p.name),
        _ => "the rules: local, main, default".to_owned(),
    }
}

/// Why a packet is looked up once more in the table of a VRF.
pub(super) fn leak(vrf: Option<&PortInfo>) -> String {
    vrf.map_or_else(|| "the route leads there".to_owned(), |v| format!("the route leads to VRF {}", v.name))
}

pub(super) fn hash_covers(p: &Packet) -> &'static str {
    match (p.proto, p.fragment) {
        (_, Fragment::First | Fragment::Later) => "addresses and protocol: fragments leave the ports out",
        (protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP, _) if p.flow != 0 => {
            "addresses, protocol, flow label, ports"
        }
        (protocol::TCP | protocol::UDP | protocol::UDPLITE | protocol::SCTP, _) => "addresses, protocol, ports",
        (protocol::IPV4 | protocol::IPV6, _) => "addresses, protocol, inner addresses",
        _ if p.flow != 0 => "addresses, protocol, flow label",
        _ => "addresses, protocol",
    }
}

pub(super) fn verdict(v: &Verdict, tables: &Tables) -> String {
    let name = |p: &PortId| tables.ports.get(*p).map_or_else(String::new, |p| p.name.clone());
    match v {
        Verdict::Transmit(p) => format!("send through {}", name(p)),
        Verdict::Continue(_) => "go on with the route's next hops".to_owned(),
        Verdict::Again { port, .. } => format!("translate, and go round again as received from {}", name(port)),
        Verdict::Consult { port, .. } => format!("ask {} for a session, then translate", name(port)),
        Verdict::TooBig { mtu } => format!("too long for {mtu} bytes"),
        Verdict::Resolve { port, neighbor } => format!("ask for {neighbor} on {}", name(port)),
        Verdict::Deliver => "deliver to the router".to_owned(),
        Verdict::Drop(r) => format!("drop: {r}"),
    }
}

pub(super) fn local(l: &Local) -> &'static str {
    match l {
        Local::Echo => "an echo request to one of the router's addresses",
        Local::Tunnel => "a tunnel packet to one of the router's addresses",
        Local::TcpReset => "a TCP segment to one of the router's addresses, where nobody listens",
        Local::Ndp => "neighbour discovery",
        Local::Reassemble => "a fragment to one of the router's addresses",
        Local::IcmpError => "an ICMP error to one of the router's addresses",
        Local::Drop(_) => "for one of the router's addresses",
    }
}

pub(super) fn mode(mode: TunnelMode, inner: Option<Family>) -> &'static str {
    match (mode, inner) {
        (TunnelMode::SixInFour, Some(Family::Inet)) => "4in4, beside 6in4",
        (mode, _) => mode.shape().name,
    }
}

/// `ICMPv6 packet too big, mtu 1480 (type 2 code 0)`
pub(super) fn error(e: &IcmpError) -> String {
    let name = match e.family() {
        Family::Inet => "ICMP",
        Family::Inet6 => "ICMPv6",
    };
    format!("{name} {e} (type {} code {})", e.kind(), e.code())
}

pub(super) fn source_rule(rule: SourceRule, tables: &Tables) -> String {
    match rule {
        SourceRule::Asked => "the packet was sent to it (RFC 1122 3.2.1.3, RFC 4443 2.2 a)".into(),
        SourceRule::RouterId => "it is the configured router id".into(),
        SourceRule::OnLink => "the ingress port has it on the sender's link (RFC 1812 4.3.2.4)".into(),
        SourceRule::Ingress => "it is the ingress port's".into(),
        SourceRule::Other(p) => {
            let name = tables.ports.get(p).map_or("another port", |p| p.name.as_str());
            format!("the ingress port has none of that family; it is {name}'s")
        }
        SourceRule::Dummy => "the router has no IPv4 address: the dummy address says so (RFC 7600 5.4)".into(),
        SourceRule::LinkLocal => "the router has no other: the ingress port's link-local one".into(),
    }
}

impl Router {
    /// Which element set a limit that was met on the way through a port or tunnel.
    pub(super) fn whose_mtu(&self, tables: &Tables, port: PortId, mtu: u32, now: Instant) -> String {
        let Some(p) = tables.ports.get(port) else { return String::new() };
        if mtu < p.mtu {
            return format!("the route's own mtu, through {}", p.name);
        }
        if p.kind != PortKind::Tunnel {
            return format!("port {}", p.name);
        }
        let Some(t) = self.tunnel(now, port) else { return format!("tunnel {}", p.name) };
        let (name, added, least) = (&p.name, t.spec.overhead(), t.spec.mode.shape().least_mtu());
        match (t.spec.mtu, t.learned_mtu) {
            (Some(fixed), _) if fixed == mtu => format!("tunnel {name}: configured"),
            (_, Some(l)) if l.mtu.saturating_sub(added).max(least) == mtu => {
                if let MtuCause::Search(phase) = l.cause {
                    let (state, age) = (phase.name(), l.age.as_secs());
                    return format!(
                        "tunnel {name}: path MTU {} to {} probed {age} s ago ({state}, RFC 8899), less {added}",
                        l.mtu, t.spec.remote
                    );
                }
                let by = match l.cause {
                    MtuCause::Icmp(from) => format!("an ICMP error from {from}"),
                    MtuCause::Host => "the host's stack".to_owned(),
                    MtuCause::Probe | MtuCause::Search(_) => "probing".to_owned(),
                };
                format!(
                    "tunnel {name}: path MTU {} to {} learned from {by} {} s ago, kept {} s more, less {added}",
                    l.mtu,
                    t.spec.remote,
                    l.age.as_secs(),
                    l.left.as_secs()
                )
            }
            _ if t.spec.nopmtudisc && mtu == IPV6_MIN_MTU => {
                format!("tunnel {name}: the static {IPV6_MIN_MTU} without path MTU discovery (RFC 4213 3.2.1)")
            }
            _ if mtu == IPV6_MIN_MTU && least == mtu => {
                format!("tunnel {name}: the least that IPv6 needs (RFC 8200 5)")
            }
            _ => format!("tunnel {name}: its carrier's {} less {added}", mtu + added),
        }
    }
}

/// A mode with what is around it: the UDP format and port in use, and why, where the tunnel has a choice.
pub(super) fn encap(mode: &str, options: &TunnelOptions, path: Option<PathInfo>) -> String {
    let udp = options.udp.map(|u| format!(" in {}, port {}", u.kind.name(), u.dport)).unwrap_or_default();
    let auto = match path {
        Some(p) if options.auto.is_some() => format!(", encap auto: {}", p.cause.text()),
        _ => String::new(),
    };
    format!("{mode}{udp}{auto}")
}
