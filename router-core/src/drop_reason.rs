//! Why a packet was dropped: one closed list. The number indexes the counters, the name is the text in commands, and
//! [`crate::icmp`] maps a reason to the ICMP answer, if any.

use serde::Serialize;
use std::fmt;

macro_rules! reasons {
    ($($variant:ident, $name:literal, $why:literal;)+) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $why] $variant,)+
        }

        impl DropReason {
            /// Every reason, in the order of their counters.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)+];

            /// The stable name: lower case, underscores.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)+ }
            }

            /// One sentence on what it means.
            pub const fn explanation(self) -> &'static str {
                match self { $(DropReason::$variant => $why,)+ }
            }
        }
    };
}

reasons! {
    // link layer
    FrameTooShort, "frame_too_short", "The frame ends before its link header does.";
    UnknownEthertype, "unknown_ethertype", "The frame carries neither IPv4, IPv6 nor ARP.";
    UnknownVlan, "unknown_vlan", "The frame's VLAN tag is not the port's.";
    NotForUs, "not_for_us", "The destination link-layer address is another station's.";
    PortDown, "port_down", "The port is administratively down or has no carrier.";
    // parse
    Ipv4Truncated, "ipv4_truncated", "The packet is shorter than its IPv4 header says (RFC 791 3.1).";
    Ipv4Version, "ipv4_version", "The version field of an IPv4 packet is not 4 (RFC 1812 5.2.2).";
    Ipv4HeaderLength, "ipv4_header_length", "The IPv4 header length is below 20 bytes or beyond the packet (RFC 1812 5.2.2).";
    Ipv4Checksum, "ipv4_checksum", "The IPv4 header checksum is wrong (RFC 1812 5.2.2).";
    Ipv4Options, "ipv4_options", "An IPv4 option is malformed (RFC 1812 4.2.2.1).";
    Ipv4SourceRoute, "ipv4_source_route", "The packet asks for source routing, which is refused (RFC 7126 4.3), or fails (RFC 1812 5.2.4.3).";
    Ipv4OptionDenied, "ipv4_option_denied", "The packet has an IPv4 option with which the operator lets nothing pass (RFC 7126 4).";
    Ipv6Truncated, "ipv6_truncated", "The packet is shorter than its IPv6 header says (RFC 8200 3).";
    Ipv6Version, "ipv6_version", "The version field of an IPv6 packet is not 6 (RFC 8200 3).";
    Ipv6Extension, "ipv6_extension", "An IPv6 extension header is malformed or out of place (RFC 8200 4).";
    Ipv6HopByHop, "ipv6_hop_by_hop", "A hop-by-hop option demands that unknowing routers drop the packet (RFC 8200 4.2).";
    Ipv6RoutingHeader, "ipv6_routing_header", "The packet carries a type 0 routing header (RFC 5095).";
    ArpMalformed, "arp_malformed", "An ARP packet is cut or not about Ethernet and IPv4 (RFC 826).";
    NdpMalformed, "ndp_malformed", "A neighbour discovery packet fails the checks of RFC 4861 6.1 or 7.1.";
    // addresses
    MartianSource, "martian_source", "The source address can never be a sender's (RFC 1812 5.3.7, RFC 6890).";
    MartianDestination, "martian_destination", "The destination address can never be forwarded to (RFC 1812 5.3.7, RFC 6890).";
    LinkLocalScope, "link_local_scope", "A link-local address must not leave its link (RFC 4291 2.5.6, RFC 3927 2.7).";
    MulticastNotForwarded, "multicast_not_forwarded", "Multicast is not forwarded.";
    BroadcastNotForwarded, "broadcast_not_forwarded", "Broadcasts are not forwarded (RFC 2644).";
    MappedAddress, "mapped_address", "An IPv4-mapped address must never be on a wire.";
    OwnSource, "own_source", "A packet from outside claims one of our own addresses as its source.";
    // decision
    TtlExpired, "ttl_expired", "TTL or hop limit ran out here (RFC 1812 5.3.1, RFC 4443 3.3).";
    NoRoute, "no_route", "No route to the destination (RFC 1812 4.3.3.1, RFC 4443 3.1).";
    Blackhole, "blackhole", "The route is a blackhole.";
    Unreachable, "unreachable", "The route says unreachable.";
    Prohibited, "prohibited", "The route says prohibit.";
    NextHopUnusable, "next_hop_unusable", "No next hop of the route is usable now.";
    TooBig, "too_big", "The packet exceeds the next MTU and may not be fragmented (RFC 1191, RFC 8201).";
    NeighborFailed, "neighbor_failed", "The next hop or host did not answer ARP or NDP (RFC 1812 4.3.3.1, RFC 4861 7.2.2).";
    NeighborQueueFull, "neighbor_queue_full", "Too many packets already wait for this neighbour (RFC 4861 7.2.2).";
    NeighborTableFull, "neighbor_table_full", "The neighbour cache is full (RFC 6583).";
    // filters
    FilterIn, "filter_in", "The filter of the port where it came in does not allow it.";
    FilterOut, "filter_out", "The filter of the port by which it would leave does not allow it.";
    FilterLocal, "filter_local", "Addressed to the router, whose own filter (that of lo) does not allow it.";
    Urpf, "urpf", "No route back to the source leads where the port's check asks for (RFC 2827, RFC 3704).";
    LimitNeighbor, "limit_neighbor", "More ARP and neighbour discovery than the port's limit towards the control thread.";
    LimitIcmp, "limit_icmp", "More ICMP errors to the router than the port's limit towards the control thread.";
    LimitOther, "limit_other", "More packets that wait for neighbours, fragments to the router and new sessions than the port's limit.";
    // tunnels
    TunnelUnknownPeer, "tunnel_unknown_peer", "A tunnel packet for us from an address that is no configured peer (RFC 4213 3.6).";
    TunnelInnerSource, "tunnel_inner_source", "The inner source address may not come out of a tunnel (RFC 4213 3.6).";
    TunnelInnerMalformed, "tunnel_inner_malformed", "What a tunnel packet carries is not a packet of the tunnel's family.";
    TunnelEcn, "tunnel_ecn", "Outer congestion mark on an inner packet that is not ECN-capable (RFC 6040 4.2).";
    TunnelNesting, "tunnel_nesting", "Too many tunnels inside each other, or a tunnel through itself.";
    TunnelFamily, "tunnel_family", "The tunnel does not carry this family, or its packets say that something else is inside.";
    TunnelHeader, "tunnel_header", "A GRE, GUE or UDP header in a tunnel packet is malformed, or asks for what is refused (RFC 2784 2.3).";
    TunnelKey, "tunnel_key", "The GRE key is not the tunnel's (RFC 2890 2.1).";
    TunnelChecksum, "tunnel_checksum", "The GRE or outer UDP checksum is wrong or missing (RFC 2784 2.1).";
    TunnelSequence, "tunnel_sequence", "The GRE sequence number is old or missing (RFC 2890 2.2).";
    TunnelRate, "tunnel_rate", "The peer sends more packets than the tunnel's rate allows.";
    TunnelReflection, "tunnel_reflection", "The packet came out of this tunnel and would go back into it (RFC 4443 3.1).";
    TunnelLimit, "tunnel_limit", "The packet may not be encapsulated again: its encapsulation limit is zero (RFC 2473 4.1.1).";
    TunnelNoPeer, "tunnel_no_peer", "The inner destination names no peer that can be one (RFC 5969 7, RFC 3964 5).";
    TunnelLoop, "tunnel_loop", "A loop: the inner address names this router as its own peer (RFC 6324 2), or the source is ours or the far end's (RFC 2003 3.2).";
    TunnelFragment, "tunnel_fragment", "A fragmented outer packet; tunnels here do not reassemble.";
    // WireGuard
    WireguardMalformed, "wireguard_malformed", "A datagram at a WireGuard socket that is none of its four messages.";
    WireguardMac, "wireguard_mac", "A WireGuard handshake that was not made for our public key: its first MAC is wrong.";
    WireguardUnknown, "wireguard_unknown", "A WireGuard handshake by a key that is no peer's, or a message of a session that is not there.";
    WireguardHandshake, "wireguard_handshake", "A WireGuard handshake that does not decrypt, is out of place, or is older than one seen.";
    WireguardCookie, "wireguard_cookie", "Under load: a WireGuard handshake that was answered with a cookie instead.";
    WireguardRate, "wireguard_rate", "More WireGuard handshakes from one source than are looked at while under load.";
    WireguardDecrypt, "wireguard_decrypt", "A WireGuard data message that does not decrypt.";
    WireguardReplay, "wireguard_replay", "A WireGuard data message whose counter was seen before, or is too old to tell.";
    WireguardSource, "wireguard_source", "The inner source address is none of those allowed to the WireGuard peer that sent it.";
    WireguardBacklog, "wireguard_backlog", "Workers do not take decrypted packets fast enough.";
    WireguardNoPeer, "wireguard_no_peer", "The destination is none of those allowed to any WireGuard peer.";
    WireguardNoEndpoint, "wireguard_no_endpoint", "Where the WireGuard peer is, is not known yet.";
    WireguardNoSession, "wireguard_no_session", "Waited for a WireGuard handshake that did not come, behind too many others or too long.";
    // translation
    TranslateSource, "translate_source", "The source address has no counterpart in the other family (RFC 7915, RFC 6052, RFC 7757).";
    TranslateDestination, "translate_destination", "The destination address has no counterpart in the other family (RFC 7915, RFC 6052, RFC 7757).";
    TranslateIcmp, "translate_icmp", "The other family has no such ICMP message (RFC 7915 4.2, 5.2), or it quotes another ICMP error.";
    TranslateFragment, "translate_fragment", "A fragmented ICMP message: its checksum cannot be translated (RFC 7915 1.2).";
    TranslateUdpChecksum, "translate_udp_checksum", "UDP without checksum, which cannot be computed for a fragment (RFC 7915 4.5).";
    TranslateExtension, "translate_extension", "IPv6 extension headers in a fragment, or too many of them (RFC 7915 5.1.1).";
    TranslateRouting, "translate_routing", "A routing header that still has segments left (RFC 7915 5.1).";
    TranslateProtocol, "translate_protocol", "A protocol that means something else in the other family, or that NAT64 does not follow (RFC 6146 1.2).";
    TranslateMalformed, "translate_malformed", "A transport header or quoted packet is cut, or its lengths or checksum are wrong.";
    TranslateNoSession, "translate_no_session", "NAT64 has no binding or session that the packet belongs to (RFC 6146 3.5).";
    TranslateFiltered, "translate_filtered", "NAT64's address-dependent filter: the IPv6 host has not sent to this address (RFC 6146 3.5).";
    TranslateTableFull, "translate_table_full", "NAT64's limit of sessions, in all or for this host, is reached.";
    TranslatePoolEmpty, "translate_pool_empty", "NAT64's pool has no free IPv4 transport address (RFC 6146 3.5.1.1).";
    // local
    NoLocalService, "no_local_service", "Addressed to the router, which has no such service.";
    LocalFragment, "local_fragment", "A fragment addressed to the router could not be reassembled.";
    LocalChecksum, "local_checksum", "Addressed to the router with a wrong transport checksum.";
    IcmpConsumed, "icmp_consumed", "An ICMP message to the router that calls for no answer.";
    RateLimited, "rate_limited", "The rate limit of answers of this kind is reached (RFC 1812 4.3.2.8, RFC 4443 2.4 f).";
    TentativeAddress, "tentative_address", "To an address of the router, or from one into a tunnel, that duplicate address detection has not confirmed (RFC 4862 5.4).";
    LocalIgnored, "local_ignored", "Link chatter the router takes no part in (multicast, broadcast).";
    // resources
    NoFrame, "no_frame", "No free packet buffer.";
    NoHeadroom, "no_headroom", "No room in the buffer for another header.";
    PuntQueueFull, "punt_queue_full", "The control thread's queue is full.";
    PuntShareFull, "punt_share_full", "The port where it came in already has its share of the control thread's queue: the rest is for other ports.";
    HeldLimit, "held_limit", "The limit of all waiting packets is reached.";
    // egress
    TxFull, "tx_full", "The egress port could not take the frame: its queue or socket buffer is full.";
    TxError, "tx_error", "The egress port refused the frame with an error.";
    PortGone, "port_gone", "The egress port was removed.";
    OffloadMalformed, "offload_malformed", "Offload metadata does not fit the packet's bytes.";
    PluginDrop, "plugin_drop", "A plugged-in forwarder dropped the packet.";
}

impl DropReason {
    /// Number of reasons.
    pub const COUNT: usize = Self::ALL.len();

    /// The index of its counter.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The reason with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|r| r.name() == name)
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for DropReason {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found_again() {
        for (i, r) in DropReason::ALL.iter().enumerate() {
            assert_eq!(r.index(), i);
            assert_eq!(DropReason::from_name(r.name()), Some(*r));
            assert!(r.explanation().ends_with('.'));
        }
    }
}
