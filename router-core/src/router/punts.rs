//! Frames that the data plane could not finish: ARP, NDP, packets that wait for a neighbour, fragments to the router,
//! ICMP errors about packets of ours.
