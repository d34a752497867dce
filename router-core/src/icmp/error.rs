//! ICMP errors as values.

use crate::addr::Family;
use std::fmt;
use std::net::Ipv4Addr;

/// Codes of ICMPv4 destination unreachable (type 3): RFC 792, RFC 1122 3.2.2.1, RFC 1812 5.2.7.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum UnreachableV4 {
    /// No route.
    Net = 0,
    /// The host does not answer ARP, or an unreachable route.
    Host = 1,
    /// No such protocol here.
    Protocol = 2,
    /// Nobody listens there.
    Port = 3,
    /// Too long and DF is set: made by [`IcmpError::too_big`], which has the MTU.
    FragmentationNeeded = 4,
    /// The source route cannot be followed.
    SourceRouteFailed = 5,
    /// Network unknown.
    NetUnknown = 6,
    /// Host unknown.
    HostUnknown = 7,
    /// Source host isolated.
    SourceIsolated = 8,
    /// Network administratively prohibited.
    NetProhibited = 9,
    /// Host administratively prohibited.
    HostProhibited = 10,
    /// Network unreachable for this type of service.
    NetTos = 11,
    /// Host unreachable for this type of service.
    HostTos = 12,
    /// Communication administratively prohibited.
    Prohibited = 13,
    /// Host precedence violation.
    PrecedenceViolation = 14,
    /// Precedence cutoff in effect.
    PrecedenceCutoff = 15,
}

/// Codes of ICMPv6 destination unreachable (type 1): RFC 4443 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum UnreachableV6 {
    /// No route to destination.
    NoRoute = 0,
    /// Communication administratively prohibited.
    Prohibited = 1,
    /// Beyond scope of source address.
    BeyondScope = 2,
    /// Address unreachable.
    Address = 3,
    /// Port unreachable.
    Port = 4,
    /// Source address failed ingress/egress policy.
    SourcePolicy = 5,
    /// Reject route to destination.
    RejectRoute = 6,
}

/// Smallest MTU of an IPv6 link (RFC 8200 5).
const IPV6_MIN_MTU: u32 = 1280;
/// Smallest MTU of an IPv4 link (RFC 791 3.2).
const IPV4_MIN_MTU: u32 = 68;

/// An ICMP error of one family: type, code, and the four bytes behind the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    family: Family,
    kind: u8,
    code: u8,
    word: u32,
}

impl IcmpError {
    const fn v4(kind: u8, code: u8, word: u32) -> Self {
        IcmpError { family: Family::Inet, kind, code, word }
    }

    const fn v6(kind: u8, code: u8, word: u32) -> Self {
        IcmpError { family: Family::Inet6, kind, code, word }
    }

    /// ICMPv4 destination unreachable.
    pub const fn unreachable_v4(code: UnreachableV4) -> Self {
        Self::v4(3, code as u8, 0)
    }

    /// ICMPv6 destination unreachable.
    pub const fn unreachable_v6(code: UnreachableV6) -> Self {
        Self::v6(1, code as u8, 0)
    }

    /// TTL or hop limit exceeded in transit (RFC 792, RFC 4443 3.3).
    pub const fn time_exceeded(family: Family) -> Self {
        match family {
            Family::Inet => Self::v4(11, 0, 0),
            Family::Inet6 => Self::v6(3, 0, 0),
        }
    }

    /// Fragment reassembly time exceeded (RFC 792, RFC 4443 3.3).
    pub const fn reassembly_time_exceeded(family: Family) -> Self {
        match family {
            Family::Inet => Self::v4(11, 1, 0),
            Family::Inet6 => Self::v6(3, 1, 0),
        }
    }

    /// Fragmentation needed with the next-hop MTU (RFC 1191 4), or packet too big (RFC 4443 3.2), which never tells less
    /// than 1280 bytes (RFC 8201 4).
    pub const fn too_big(family: Family, mtu: u32) -> Self {
        match family {
            Family::Inet => {
                let mtu = if mtu < IPV4_MIN_MTU { IPV4_MIN_MTU } else { mtu };
                Self::v4(3, 4, if mtu > 0xffff { 0xffff } else { mtu })
            }
            Family::Inet6 => Self::v6(2, 0, if mtu < IPV6_MIN_MTU { IPV6_MIN_MTU } else { mtu }),
        }
    }

    /// ICMPv4 parameter problem, code 0, at this byte of the header (RFC 792).
    pub const fn parameter_problem_v4(pointer: u8) -> Self {
        Self::v4(12, 0, (pointer as u32) << 24)
    }

    /// Whether it is a parameter problem of ICMPv4.
    pub fn is_parameter_problem(&self) -> bool {
        self.family() == Family::Inet && self.kind() == 12
    }

    /// ICMPv6 parameter problem (RFC 4443 3.4): 0 erroneous field, 1 unknown next header, 2 unknown option, 3 incomplete
    /// header chain in a first fragment (RFC 7112).
    pub const fn parameter_problem_v6(code: u8, pointer: u32) -> Self {
        Self::v6(4, code, pointer)
    }

    /// ICMPv4 redirect for the host (RFC 792 code 1; RFC 1812 5.2.7.2 allows no redirects for networks).
    pub const fn redirect_v4(gateway: Ipv4Addr) -> Self {
        Self::v4(5, 1, gateway.to_bits())
    }

    /// The family of the error and of the packet it is about.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// ICMP type.
    pub const fn kind(&self) -> u8 {
        self.kind
    }

    /// ICMP code.
    pub const fn code(&self) -> u8 {
        self.code
    }

    /// The four bytes behind the checksum: the MTU, the pointer, or zero.
    pub const fn word(&self) -> u32 {
        self.word
    }

    /// The MTU it tells, if it is about a packet that is too big.
    pub const fn mtu(&self) -> Option<u32> {
        match (self.family, self.kind, self.code) {
            (Family::Inet, 3, 4) | (Family::Inet6, 2, _) => Some(self.word),
            _ => None,
        }
    }

    /// Whether it is an ICMPv4 redirect.
    pub(super) const fn is_redirect(&self) -> bool {
        matches!((self.family, self.kind), (Family::Inet, 5))
    }

    /// Whether it answers packets to multicast destinations too (RFC 4443 2.4 e.3).
    pub(super) const fn answers_multicast(&self) -> bool {
        matches!((self.family, self.kind, self.code), (Family::Inet6, 2, _) | (Family::Inet6, 4, 2))
    }
}

impl fmt::Display for IcmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match (self.family, self.kind, self.code) {
            (Family::Inet, 3, 0) => "network unreachable",
            (Family::Inet, 3, 1) => "host unreachable",
            (Family::Inet, 3, 2) => "protocol unreachable",
            (Family::Inet, 3, 4) => return write!(f, "fragmentation needed, mtu {}", self.word),
            (Family::Inet, 3, 5) => "source route failed",
            (Family::Inet, 3, 13) | (Family::Inet6, 1, 1) => "communication administratively prohibited",
            (Family::Inet, 3, 3) | (Family::Inet6, 1, 4) => "port unreachable",
            (Family::Inet, 5, _) => return write!(f, "redirect to {}", Ipv4Addr::from_bits(self.word)),
            (Family::Inet, 11, 0) | (Family::Inet6, 3, 0) => "time exceeded in transit",
            (Family::Inet, 11, 1) | (Family::Inet6, 3, 1) => "fragment reassembly time exceeded",
            (Family::Inet, 12, _) => return write!(f, "parameter problem at byte {}", self.word >> 24),
            (Family::Inet6, 1, 0) => "no route to destination",
            (Family::Inet6, 1, 2) => "beyond scope of source address",
            (Family::Inet6, 1, 3) => "address unreachable",
            (Family::Inet6, 1, 5) => "source address failed policy",
            (Family::Inet6, 1, 6) => "reject route to destination",
            (Family::Inet6, 2, _) => return write!(f, "packet too big, mtu {}", self.word),
            (Family::Inet6, 4, 1) => return write!(f, "unknown next header at byte {}", self.word),
            (Family::Inet6, 4, 2) => return write!(f, "unknown option at byte {}", self.word),
            (Family::Inet6, 4, _) => return write!(f, "parameter problem at byte {}", self.word),
            (Family::Inet, kind, code) | (Family::Inet6, kind, code) => {
                return write!(f, "type {kind} code {code}");
            }
        };
        f.write_str(text)
    }
}
