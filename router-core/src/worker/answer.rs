//! Packets that answer packets: ICMP errors, echo replies, TCP resets.
