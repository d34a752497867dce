//! The router's errors in the words of the control protocol.

use crate::control::WireError;
use router_core::neighbor::NeighError;
use router_core::router::{PortError, TunnelError};
use router_core::routing::RouteError;
use router_io::runtime::{ControlError, Stopped};

/// The control thread is gone.
pub(super) fn stopped(_: Stopped) -> WireError {
    WireError::new("failed", "the router has stopped", "start it again with \"duet run\"")
}

impl From<RouteError> for WireError {
    fn from(e: RouteError) -> WireError {
        let code = match &e {
            RouteError::Exists => "exists",
            RouteError::NoSuchRoute
            | RouteError::NotFound
            | RouteError::NothingToReplace
            | RouteError::NoNextHopObject(_) => "not_found",
            RouteError::NoDevice(_) => "no_device",
            RouteError::InvalidGateway { .. } | RouteError::NoRouteToGateway { .. } | RouteError::DeviceDown { .. } => {
                "unreachable"
            }
            _ => "invalid",
        };
        WireError::new(code, e.to_string(), e.hint().unwrap_or_default())
    }
}

impl From<PortError> for WireError {
    fn from(e: PortError) -> WireError {
        match e {
            PortError::Unknown(name) => WireError::no_device(&name),
            PortError::Exists(_) => WireError::exists(e.to_string()),
            PortError::AddressExists(_) => WireError::new("exists", "RTNETLINK answers: File exists", e.to_string()),
            PortError::NoAddress(net) => {
                let family = if net.addr().is_ipv4() { "ipv4" } else { "ipv6" };
                WireError::new("not_found", format!("Error: {family}: Address not found."), e.to_string())
            }
            e => WireError::new("invalid", "RTNETLINK answers: Invalid argument", e.to_string()),
        }
    }
}

impl From<TunnelError> for WireError {
    fn from(e: TunnelError) -> WireError {
        match e {
            TunnelError::Port(e) => e.into(),
            TunnelError::Device(name) => WireError::no_device(&name),
            TunnelError::SameEnds(_) => WireError::exists(e.to_string()),
            e => WireError::new("invalid", "RTNETLINK answers: Invalid argument", e.to_string()),
        }
    }
}

impl From<NeighError> for WireError {
    fn from(e: NeighError) -> WireError {
        match e {
            NeighError::Exists => WireError::exists(e.to_string()),
            NeighError::NotFound => WireError::not_found(e.to_string()),
            e => WireError::new("invalid", "RTNETLINK answers: Invalid argument", e.to_string()),
        }
    }
}

impl From<ControlError> for WireError {
    fn from(e: ControlError) -> WireError {
        match e {
            ControlError::Router(e) => e.into(),
            e => WireError::new("failed", e.to_string(), ""),
        }
    }
}
