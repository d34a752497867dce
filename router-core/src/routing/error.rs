//! Why a routing command was refused. The text is the line that iproute2 prints for the same mistake.

use std::net::IpAddr;

/// See the module. [`RouteError::hint`] adds cause and remedy, [`RouteError::exit_code`] is `ip`'s.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Prefix, table and metric (or the next-hop id) are taken.
    #[error("RTNETLINK answers: File exists")]
    Exists,
    /// Nothing to delete.
    #[error("RTNETLINK answers: No such process")]
    NoSuchRoute,
    /// Nothing to change, or no such next-hop object.
    #[error("RTNETLINK answers: No such file or directory")]
    NotFound,
    /// Nothing to change (IPv6).
    #[error("Error: Can not replace route - no match found.")]
    NothingToReplace,
    /// The gateway cannot be reached, or can never be one.
    #[error("Error: Nexthop has invalid gateway.")]
    InvalidGateway {
        /// The gateway.
        gateway: IpAddr,
        /// What is wrong with it.
        why: GatewayFault,
    },
    /// The gateway of an IPv6 route is our own.
    #[error("Error: Gateway can not be a local address.")]
    OwnGateway {
        /// The gateway.
        gateway: IpAddr,
    },
    /// No route leads to the gateway of an IPv6 route.
    #[error("RTNETLINK answers: No route to host")]
    NoRouteToGateway {
        /// The gateway.
        gateway: IpAddr,
    },
    /// No such port.
    #[error("Cannot find device \"{0}\"")]
    NoDevice(String),
    /// The port is administratively down.
    #[error("Error: {} is not up.", if *.direct { "Device for nexthop" } else { "Nexthop device" })]
    DeviceDown {
        /// The port.
        dev: String,
        /// An IPv4 route without gateway: Linux words it differently.
        direct: bool,
    },
    /// A link-local gateway without `dev`.
    #[error("Error: Egress device not specified.")]
    EgressNeeded {
        /// The gateway.
        gateway: IpAddr,
    },
    /// A unicast route that says neither `via`, `dev` nor `nhid`.
    #[error("RTNETLINK answers: No such device")]
    NoNextHop,
    /// A hop in a route of a kind that has none.
    #[error("Error: Gateway, device and multipath can not be specified for this route type.")]
    NoHopsForKind,
    /// `nhid` of nothing.
    #[error("Error: Nexthop id does not exist.")]
    NoNextHopObject(u32),
    /// A next-hop object must name its port.
    #[error("Error: Device attribute required for non-blackhole and non-fdb nexthops.")]
    NextHopNeedsDevice,
    /// A group's member is missing, or is the group itself.
    #[error("Error: Invalid nexthop id.")]
    GroupMember(u32),
    /// A new resilient group without a number of buckets.
    #[error("Error: Number of buckets not specified for nexthop group insertion.")]
    BucketsNeeded,
    /// A group without members, or with a group or blackhole among several.
    #[error("Error: {0}.")]
    Group(&'static str),
    /// `src` is not one of the router's own addresses.
    #[error("{}", if *.inet6 { "Error: Invalid source address." } else { "Error: Invalid prefsrc address." })]
    Source {
        /// The address.
        src: IpAddr,
        /// For an IPv6 route: Linux words it differently.
        inet6: bool,
    },
    /// Bits beyond the prefix length are set.
    #[error("Error: Invalid prefix for given prefix length.")]
    HostBits,
    /// A value out of range.
    #[error("RTNETLINK answers: Invalid argument")]
    Invalid(&'static str),
    /// No plug-in of this name.
    #[error("Error: unknown forwarder \"{name}\".")]
    NoForwarder {
        /// As written.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// The tables are full.
    #[error("RTNETLINK answers: Cannot allocate memory")]
    Full,
}

/// What is wrong with a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayFault {
    /// No route leads there.
    Unreachable,
    /// Not on the link of the named port.
    NotOnLink,
    /// One of the router's own addresses.
    Own,
    /// Multicast, broadcast, loopback or unspecified.
    NotUnicast,
    /// The only way there is the route itself.
    Loop,
}

impl RouteError {
    /// One line on cause and remedy, where there is something to say beyond the error itself.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            RouteError::Exists => "this prefix (or number) is taken in that table with that metric; \
                 use replace, change or append, or another metric"
                .into(),
            RouteError::NoSuchRoute => {
                "no route fits all that was said; see `route show table all` for what there is".into()
            }
            RouteError::NotFound | RouteError::NothingToReplace => "there is none yet; use add or replace".into(),
            RouteError::InvalidGateway { gateway, why } => match why {
                GatewayFault::Unreachable => {
                    format!("no route leads to {gateway}; add one, or name the link with `dev NAME onlink`")
                }
                GatewayFault::NotOnLink => {
                    format!("{gateway} is not on that link; add `onlink`, or leave out `dev` to look it up")
                }
                GatewayFault::Own => format!("{gateway} is this router's own address"),
                GatewayFault::NotUnicast => format!("{gateway} is not the address of one host"),
                GatewayFault::Loop => format!("the only route to {gateway} leads back through this one"),
            },
            RouteError::OwnGateway { gateway } => format!("{gateway} is this router's own address"),
            RouteError::NoRouteToGateway { gateway } => {
                format!("no route leads to {gateway}; add one, or name the link with `dev NAME onlink`")
            }
            RouteError::DeviceDown { dev, .. } => format!("bring it up first: `link set {dev} up`"),
            RouteError::EgressNeeded { gateway } => {
                format!("{gateway} is link-local and exists on every link: say which with `dev NAME`")
            }
            RouteError::NoNextHop => "say `via ADDRESS`, `dev NAME` or `nhid ID`".into(),
            RouteError::NoNextHopObject(id) => format!("add it first: `nexthop add id {id} via ADDRESS dev NAME`"),
            RouteError::NextHopNeedsDevice => "say `dev NAME`".into(),
            RouteError::GroupMember(id) => format!("there is no next-hop object {id} that a group could hold"),
            RouteError::BucketsNeeded => {
                "say `buckets N`, some ten times as many as members; the number cannot be changed later".into()
            }
            RouteError::Source { src, .. } => format!("{src} is not an address of this router in that table"),
            RouteError::HostBits => "clear the bits beyond the prefix length".into(),
            RouteError::Invalid(what) => (*what).into(),
            RouteError::NoForwarder { known, .. } if known.is_empty() => "no forwarder is plugged in".into(),
            RouteError::NoForwarder { known, .. } => format!("there are: {}", known.join(", ")),
            RouteError::Full => "the forwarding table has reached its limit".into(),
            RouteError::NoDevice(_) | RouteError::NoHopsForKind | RouteError::Group(_) => return None,
        })
    }

    /// The exit code of `ip` for this error: 1 for an unknown device, 2 for what the router refuses.
    pub fn exit_code(&self) -> u8 {
        match self {
            RouteError::NoDevice(_) => 1,
            _ => 2,
        }
    }
}
