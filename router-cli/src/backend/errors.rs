//! Refusals of the router in iproute2's words.

use crate::control::WireError;
use router_core::addr::Family;
use router_core::explain::ExplainError;
use router_core::neighbor::NeighError;
use router_core::policy::RuleError;
use router_core::router::{PingError, PortError, TunnelError, VrfError};
use router_core::routing::RouteError;
use router_core::translate::TranslatorError;
use router_io::runtime::ControlError;

pub(super) fn route(e: RouteError) -> WireError {
    let code = match &e {
        RouteError::Exists => "exists",
        RouteError::NoDevice(name) => return WireError::no_device(name),
        RouteError::NoSuchRoute
        | RouteError::NotFound
        | RouteError::NothingToReplace
        | RouteError::NoNextHopObject(_) => "not_found",
        _ => "invalid",
    };
    WireError::new(code, e.to_string(), e.hint().unwrap_or_default().replace('`', "\""))
}

pub(super) fn port(e: PortError) -> WireError {
    match &e {
        PortError::Unknown(name) => WireError::no_device(name),
        PortError::Exists(_) => WireError::exists(e.to_string()),
        PortError::AddressExists(net) => WireError::addr_exists(Family::of_net(net)),
        PortError::NoAddress(net) => WireError::addr_missing(Family::of_net(net)),
        PortError::Mtu { .. } => WireError::new("invalid", "Error: mtu out of range of the device.", e.to_string()),
        PortError::Name(_) | PortError::Full | PortError::NotAssignable(..) => invalid(e),
    }
}

pub(super) fn tunnel(e: TunnelError) -> WireError {
    match e {
        TunnelError::Port(PortError::Exists(_)) => WireError::exists(e.to_string()),
        TunnelError::Port(p) => port(p),
        TunnelError::Device(name) => WireError::no_device(&name),
        TunnelError::SameEnds(_) | TunnelError::SameKey { .. } => WireError::exists(e.to_string()),
        other => invalid(other),
    }
}

pub(super) fn ping(e: PingError) -> WireError {
    let hint = match &e {
        PingError::NoDevice(name) => return WireError::no_device(name),
        PingError::NoRoute(_) => "\"duet explain to ADDRESS\" shows why",
        PingError::NotOwn(_) => "\"duet addr\" lists those that it has",
        PingError::NoSource(_) => "give a port one of that family",
        PingError::Own(_) => "ask another; \"duet addr\" shows that it is there",
        PingError::Size => "-s says how many bytes of data",
        PingError::Target(_) | PingError::Options(_) | PingError::NoSession => "",
    };
    WireError::new("invalid", format!("Error: {e}."), hint)
}

pub(super) fn rule(e: RuleError) -> WireError {
    match e {
        RuleError::Exists => WireError::exists("the very same rule is there: \"duet rule\" lists them"),
        RuleError::NoSuchRule => WireError::not_found("\"duet rule\" lists the rules"),
        RuleError::Invalid(_) | RuleError::Full => invalid(e),
    }
}

pub(super) fn vrf(e: VrfError) -> WireError {
    match e {
        VrfError::Port(p) => port(p),
        VrfError::Taken { .. } => WireError::exists(e.to_string()),
        other => invalid(other),
    }
}

pub(super) fn translator(e: TranslatorError) -> WireError {
    match e {
        TranslatorError::Port(p) => port(p),
        TranslatorError::Unknown(name) => WireError::no_device(&name),
        other => invalid(other),
    }
}

pub(super) fn neigh(e: NeighError) -> WireError {
    match e {
        NeighError::Exists => WireError::exists("\"duet neigh replace\" sets it whether there or not"),
        NeighError::NotFound => WireError::not_found("\"duet neigh\" lists the neighbours"),
        other => invalid(other),
    }
}

pub(super) fn control(e: ControlError) -> WireError {
    match e {
        ControlError::Router(p) => port(p),
        ControlError::Open(p) => {
            let code = if matches!(p, router_io::port::PortError::NoDevice { .. }) { "no_device" } else { "failed" };
            WireError::new(code, p.to_string(), "")
        }
    }
}

pub(super) fn explain(e: ExplainError) -> WireError {
    let hint = match &e {
        ExplainError::NoPort(name) => return WireError::no_device(name),
        ExplainError::NoDestination => "say \"to ADDRESS\"",
        ExplainError::Families => "an IPv4 packet has two IPv4 addresses, an IPv6 packet two IPv6 addresses",
        ExplainError::Length { .. } => "\"len\" counts the whole IP packet, headers included",
        ExplainError::NoIngress(_) => "say \"iif PORT\"",
        ExplainError::NoSource(_) => "say \"from ADDRESS\"",
        ExplainError::SuperFrame => "say \"proto tcp\" or \"proto udp\" with \"gso\"",
        ExplainError::NoPacket => "give a whole packet, from the IP or Ethernet header on",
    };
    WireError::new("invalid", format!("Error: {e}."), hint)
}

fn invalid(e: impl std::fmt::Display) -> WireError {
    WireError::new("invalid", "RTNETLINK answers: Invalid argument", e.to_string())
}

pub(super) fn unsupported(hint: &str) -> WireError {
    WireError::new("invalid", "RTNETLINK answers: Operation not supported", hint)
}
