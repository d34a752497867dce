//! Ethernet II with IEEE 802.1Q tags, as received: which packet is inside and whether it is for us.

use crate::addr::{Family, MacAddr};
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::headers::be16;
use crate::port::PortInfo;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Tag protocol identifier of a customer VLAN tag.
pub const TPID_CTAG: u16 = 0x8100;
/// Tag protocol identifier of a service VLAN tag.
pub const TPID_STAG: u16 = 0x88a8;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// An IP packet of the family named by the EtherType.
    Ip(Family),
    /// An ARP packet.
    Arp,
}

/// What the link header said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// What is inside.
    pub payload: Payload,
    /// The sender.
    pub src: MacAddr,
    /// The destination was a group: broadcast or multicast.
    pub group: bool,
}

/// Reads the link header of a received frame, checks that the frame is for this port (address, VLAN), and takes the
/// header off: afterwards the frame's data starts with the packet. On an error the frame is unchanged.
pub fn receive(frame: &mut Frame, port: &PortInfo) -> Result<Link, DropReason> {
    let data = frame.data();
    if data.len() < 14 {
        return Err(DropReason::FrameTooShort);
    }
    let mac = |at: usize| MacAddr([data[at], data[at + 1], data[at + 2], data[at + 3], data[at + 4], data[at + 5]]);
    let (dst, src) = (mac(0), mac(6));
    let mut ethertype = be16(data, 12);
    let mut header = 14;
    let mut tci = frame.meta.vlan_tci;
    // A tag is either already taken out by the kernel, or in the bytes: at most one is understood.
    if tci.is_none() && matches!(ethertype, TPID_CTAG | TPID_STAG) {
        if data.len() < 18 {
            return Err(DropReason::FrameTooShort);
        }
        tci = Some(be16(data, 14));
        ethertype = be16(data, 16);
        header = 18;
    }
    // VLAN 0 is a priority tag: the frame is untagged as far as VLANs go (IEEE 802.1Q 9.6).
    let vid = tci.map(|t| t & 0x0fff).filter(|v| *v != 0);
    if vid != port.vlan {
        return Err(DropReason::UnknownVlan);
    }
    let group = dst.is_group();
    if !group && port.mac.is_some_and(|own| own != dst) {
        return Err(DropReason::NotForUs);
    }
    let payload = match ethertype {
        ETHERTYPE_IPV4 => Payload::Ip(Family::Inet),
        ETHERTYPE_IPV6 => Payload::Ip(Family::Inet6),
        ETHERTYPE_ARP => Payload::Arp,
        TPID_CTAG | TPID_STAG => return Err(DropReason::UnknownVlan),
        _ => return Err(DropReason::UnknownEthertype),
    };
    frame.pull_front(header);
    frame.meta.vlan_tci = None;
    Ok(Link { payload, src, group })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::port;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const PEER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn eth(dst: MacAddr, middle: &[u8]) -> Frame {
        let mut v = dst.0.to_vec();
        v.extend(PEER.0);
        v.extend(middle);
        Frame::from_slice(&v)
    }

    #[test]
    fn tags_and_addresses() {
        let v6 = Ok(Payload::Ip(Family::Inet6));
        // destination, bytes after the addresses, tag in metadata, port VLAN, expectation
        type Row<'a> = (MacAddr, &'a [u8], Option<u16>, Option<u16>, Result<Payload, DropReason>);
        let rows: &[Row<'_>] = &[
            (OWN, &[0x86, 0xdd, 0x60], None, None, v6),
            (MacAddr::BROADCAST, &[8, 6, 0], None, None, Ok(Payload::Arp)),
            (PEER, &[8, 0, 0], None, None, Err(DropReason::NotForUs)),
            (OWN, &[0x81, 0, 0, 0, 0x86, 0xdd, 0x60], None, None, v6),
            (OWN, &[0x81, 0, 0x20, 10, 0x86, 0xdd, 0x60], None, Some(10), v6),
            (OWN, &[0x81, 0, 0, 11, 0x86, 0xdd, 0x60], None, Some(10), Err(DropReason::UnknownVlan)),
            (OWN, &[0x81, 0, 0, 10, 0x86, 0xdd, 0x60], None, None, Err(DropReason::UnknownVlan)),
            (OWN, &[0x86, 0xdd, 0x60], Some(10), Some(10), v6),
            (OWN, &[0x86, 0xdd, 0x60], Some(10), None, Err(DropReason::UnknownVlan)),
            (OWN, &[0x86, 0xdd, 0x60], None, Some(10), Err(DropReason::UnknownVlan)),
            (OWN, &[0x81, 0, 0, 0, 0x81, 0, 0, 0], None, None, Err(DropReason::UnknownVlan)),
            (OWN, &[0x81, 0, 0], None, None, Err(DropReason::FrameTooShort)),
            (OWN, &[0x88, 0xcc, 0], None, None, Err(DropReason::UnknownEthertype)),
            (OWN, &[8], None, None, Err(DropReason::FrameTooShort)),
        ];
        for (i, (dst, middle, meta, vlan, want)) in rows.iter().enumerate() {
            let mut f = eth(*dst, middle);
            f.meta.vlan_tci = *meta;
            let mut p = port(0, "p", &[]);
            p.mac = Some(OWN);
            p.vlan = *vlan;
            let before = f.len();
            assert_eq!(receive(&mut f, &p).map(|l| l.payload), *want, "row {i}");
            if want.is_err() {
                assert_eq!(f.len(), before, "row {i}: left unchanged");
            }
        }
    }
}
