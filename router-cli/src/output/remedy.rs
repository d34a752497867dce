//! What to do about packets that are dropped for a reason.

/// One or two sentences; None for a reason that this program does not know.
pub fn remedy(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "frame_too_short" => {
            "Look at the sender's driver and the cable: \"duet capture at drop reason frame_too_short\"."
        }
        "unknown_ethertype" => {
            "Harmless: the link carries other protocols (LLDP, STP, MPLS). Silence their sender if they disturb."
        }
        "unknown_vlan" => "Set \"vlan\" of the port to the tag that arrives, or take the VLAN off the switch port.",
        "not_for_us" => {
            "Usual on a shared link with promisc = true or a flooding switch; else look for a stale neighbour entry of the sender."
        }
        "port_down" => "\"duet link set PORT up\"; look at the carrier with \"duet link\".",
        "ipv4_truncated" | "ipv6_truncated" => {
            "The sender or a link on the way cuts packets: compare with a capture at the sender."
        }
        "ipv4_version" | "ipv6_version" => {
            "Something else than IP is sent with IP's EtherType: capture it with \"duet capture at drop\"."
        }
        "ipv4_header_length" | "ipv4_checksum" => {
            "Packets are damaged on the way or made wrongly: capture them, look at the sender's offload settings."
        }
        "ipv4_options" | "ipv6_extension" => "A broken or probing sender; the ICMP error tells it where.",
        "ipv4_option_denied" => "Nothing: [ipv4_options] says so. Find out who sends such options.",
        "ipv4_source_route" | "ipv6_routing_header" => {
            "Nothing: source routing is refused on purpose. Find out who asks for it."
        }
        "ipv6_hop_by_hop" => "The sender demands that routers know an option; this one does not.",
        "arp_malformed" | "ndp_malformed" => {
            "Capture the packets and look at the station that sends them; it may also be a spoofing attempt (hop limit below 255)."
        }
        "martian_source" => {
            "A host with a wrong address, or spoofing: the last packets say through which port it comes."
        }
        "martian_destination" => "A host with a wrong route or configuration sends to addresses that cannot be.",
        "link_local_scope" => "Give the hosts global addresses: link-local ones are good on their own link only.",
        "multicast_not_forwarded" => "Usual. Multicast routing is not done by this router.",
        "broadcast_not_forwarded" => "Usual. Directed broadcasts are not forwarded on purpose (RFC 2644).",
        "mapped_address" => "Find the program that writes ::ffff:0:0/96 addresses into packets.",
        "own_source" => "Another host has one of our addresses, a link is looped, or somebody spoofs.",
        "ttl_expired" => {
            "Traceroute does this on purpose. If there are many, look for a routing loop: \"duet explain\" on both routers."
        }
        "no_route" => {
            "Add a route: \"duet route get ADDRESS\" says what is missing; \"duet explain\" what was compared."
        }
        "blackhole" | "unreachable" | "prohibited" => "A route of yours says so: \"duet route get ADDRESS\" shows it.",
        "next_hop_unusable" => {
            "All next hops are down or unresolved: \"duet -d route\" marks them, \"duet explain\" follows them."
        }
        "too_big" => {
            "Senders must learn the path MTU from the ICMP errors: see that nobody filters them; or raise the MTU that \"duet explain\" names."
        }
        "neighbor_failed" => "The next hop is down or on another link: \"duet neigh\", and ping it.",
        "neighbor_queue_full" => {
            "Packets come faster than the neighbour answers: raise max_pending in [neighbor], or find out why it is slow."
        }
        "neighbor_table_full" => {
            "A scan of a large prefix, or more hosts than max_entries in [neighbor]: \"duet neigh\"."
        }
        "filter_in" | "filter_out" | "filter_local" => {
            "\"duet -s filter\" shows what each rule has matched, \"duet explain\" which rule a packet meets."
        }
        "urpf" => "Sources that do not belong behind this port: \"duet explain\" shows where their route leads.",
        "limit_neighbor" | "limit_icmp" | "limit_other" => {
            "A flood, or a very large link: \"duet drops\" shows whose packets; raise limit_neighbor, limit_icmp or limit_other."
        }
        "tunnel_unknown_peer" => {
            "Somebody sends tunnel packets without being configured: add the tunnel, or ignore it."
        }
        "tunnel_inner_source" => "The peer sends packets that it must not send: check its source addresses.",
        "tunnel_inner_malformed" => {
            "The other end sends another protocol in this tunnel: compare the modes of both ends."
        }
        "tunnel_family" => "Route this family into another tunnel, or choose a mode that carries both.",
        "tunnel_header" => "The other end uses another format: compare mode, encap and options of both ends.",
        "tunnel_key" => "The other end sends another GRE key: compare key, ikey and okey of both ends.",
        "tunnel_checksum" => "Packets are damaged on the way, or the other end sends no GRE checksum: compare csum.",
        "tunnel_sequence" => {
            "Packets overtake each other on the way, or the other end sends no sequence: leave out seq."
        }
        "tunnel_rate" => "The peer sends more than its rate: raise the tunnel's rate, or tell the peer.",
        "tunnel_reflection" => {
            "A route leads back into the tunnel that the packet came from: give what is not used a blackhole route."
        }
        "tunnel_limit" => "Too many tunnels around each other on this way: the packet's source has limited them.",
        "tunnel_no_peer" => {
            "Outside the 6rd prefix there is no peer without a border relay: set br, or mend the route."
        }
        "tunnel_loop" => {
            "An attack, or a loop of routes: packets for a tunnel whose 6rd or 6to4 address is this router's own, or that claim to come from it or from the far end."
        }
        "tunnel_ecn" => {
            "A router on the tunnel's way marks congestion that the inner packet cannot carry; usual under load."
        }
        "tunnel_nesting" => {
            "A tunnel's peer is routed through the tunnel itself, or more tunnels are stacked than max_tunnel_nesting allows."
        }
        "tunnel_fragment" => "Lower the tunnel's mtu at the other end, or enable path MTU discovery there.",
        "wireguard_malformed" => {
            "Something else is sent to the WireGuard port, or somebody scans: usual in small numbers."
        }
        "wireguard_mac" => {
            "A peer has another public key for this port: \"duet tunnel show PORT\" prints the right one."
        }
        "wireguard_unknown" => {
            "Add the peer's public key to the port's peers; a few are usual after a restart, until peers agree on new sessions."
        }
        "wireguard_handshake" => {
            "Compare the preshared keys of both ends; repeated ones may be an attack or a peer's wrong clock."
        }
        "wireguard_cookie" | "wireguard_rate" => {
            "Many handshakes at once: after a restart of a large server, or a flood. Honest peers come back."
        }
        "wireguard_decrypt" | "wireguard_replay" => {
            "Damaged, repeated or forged datagrams: usual in small numbers where paths duplicate packets."
        }
        "wireguard_source" => {
            "The peer sends from an address that is not in its allowed_ips: add it, or mend the peer."
        }
        "wireguard_no_peer" => {
            "Add the destination to the allowed_ips of the peer behind which it is, or mend the route."
        }
        "wireguard_no_endpoint" => "Give the peer an endpoint, or let it speak first (persistent_keepalive there).",
        "wireguard_no_session" => {
            "The peer does not answer handshakes: compare keys and endpoint; \"duet tunnel show PORT\"."
        }
        "wireguard_backlog" => "Workers are overloaded: \"duet stats\"; more of them, or less traffic.",
        "translate_source" | "translate_destination" => {
            "Look at the translator's prefix and address map: this address lies outside both."
        }
        "translate_icmp" | "translate_protocol" => {
            "Usual: the other family has no such message or protocol; hosts must do without."
        }
        "translate_fragment" | "translate_udp_checksum" => {
            "Let the sender use smaller packets, or UDP checksums: fragments of these cannot be translated."
        }
        "translate_extension" | "translate_routing" => {
            "A sender with unusual extension headers: capture it with \"duet capture at drop\"."
        }
        "translate_malformed" => "A broken sender, or packets cut on the way: capture them.",
        "translate_no_session" => {
            "Packets of sessions that have ended, or from outside without being asked for: usual in small numbers."
        }
        "translate_filtered" => {
            "Usual: somebody outside whom the host has not spoken to; or use endpoint-independent filtering."
        }
        "translate_table_full" => {
            "Raise NAT64's limits, or find the host that opens so many sessions in \"duet drops\"."
        }
        "translate_pool_empty" => "Add IPv4 addresses to NAT64's pool, or lower the lifetime of sessions.",
        "no_local_service" => "Usual for probes and scans: nobody listens at the router's own addresses.",
        "local_fragment" => "Fragments to the router did not all arrive in time: look for loss on the way.",
        "local_checksum" => {
            "Packets to the router are damaged on the way, or an offload of the sender is left unfinished."
        }
        "icmp_consumed" => "Nothing: messages that call for no answer.",
        "rate_limited" => "Raise error_rate or echo_rate in [icmp] if the senders are honest.",
        "tentative_address" => {
            "Usual for a second after a start, with \"acd\" for seven. If it stays, look for \"dadfailed\" in \"duet addr\": another station has the address."
        }
        "local_ignored" => "Nothing: link chatter (mDNS, DHCP, IGMP) that is not for a router.",
        "no_frame" => {
            "Buffers run out: a port sends too slowly for what it gets, or workers are overloaded: \"duet stats\"."
        }
        "no_headroom" => "Too many headers for one buffer: reduce the stacking of tunnels.",
        "punt_queue_full" => {
            "The control thread is flooded: look for a scan, an ARP storm or very many unresolved neighbours."
        }
        "punt_share_full" => {
            "One port floods the control thread; others are not hurt. Look at \"duet stats\" for the port with drops, and lower its limit_neighbor and limit_other."
        }
        "held_limit" => "Too many packets wait for neighbours: raise max_pending_total in [neighbor].",
        "tx_full" => {
            "The egress is slower than what is sent to it: shape at the source, add a link, or enlarge the queue of the device."
        }
        "tx_error" => "The device refuses frames: see the router's log and the MTU of the device.",
        "port_gone" => "Packets were on their way when the port was removed.",
        "offload_malformed" => "A driver gives wrong offload data: switch the device's offloads off with ethtool -K.",
        "plugin_drop" => "The plugged-in forwarder of the route decided so.",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use router_core::drop_reason::DropReason;

    #[test]
    fn every_reason_has_one() {
        for r in DropReason::ALL {
            assert!(super::remedy(r.name()).is_some(), "{r}: say what to do about it in output/remedy.rs");
        }
    }
}
