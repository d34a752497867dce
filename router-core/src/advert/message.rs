//! The message: RFC 4861 4.2 and 4.6, RFC 4191 2.2, RFC 8106 5, RFC 8781 4.

use super::{AdvertSettings, Preference};
use crate::checksum;
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::headers::{ethernet::ETHERTYPE_IPV6, ipv6, protocol};
use crate::neighbor::ndp::{ALL_NODES, push_link_header};
use crate::port::PortInfo;
use arrayvec::ArrayVec;
use ipnet::Ipv6Net;
use std::net::{IpAddr, Ipv6Addr};

/// An advertisement fits the smallest IPv6 packet that every link carries.
const MAX: usize = 1280 - ipv6::HEADER;

type Message = ArrayVec<u8, MAX>;

/// Writes an advertisement of `port` to all nodes as an Ethernet frame, ready to be sent. `last` says that this router is
/// a default router no more.
///
/// Errors: [`DropReason::PortGone`] when the port has no link layer or no link-local address, [`DropReason::NoFrame`] when
/// it does not fit.
pub fn write_advert(out: &mut Frame, port: &PortInfo, s: &AdvertSettings, last: bool) -> Result<(), DropReason> {
    let (own, src) = port.mac.zip(port.link_local()).ok_or(DropReason::PortGone)?;
    let mut m = Message::new();
    let preference = match s.preference {
        // RFC 4191 2.2: a router that is no default router has the medium preference.
        _ if last || s.lifetime_secs() == 0 => 0,
        Preference::High => 0b01 << 3,
        Preference::Medium => 0,
        Preference::Low => 0b11 << 3,
    };
    let flags = u8::from(s.managed) << 7 | u8::from(s.other) << 6 | preference;
    let lifetime = if last { 0 } else { s.lifetime_secs() }.to_be_bytes();
    put(&mut m, &[134, 0, 0, 0, s.hop_limit, flags, lifetime[0], lifetime[1]])?;
    for time in [s.reachable_time, s.retrans_timer] {
        put(&mut m, &u32::try_from(time.as_millis()).unwrap_or(u32::MAX).to_be_bytes())?;
    }
    put(&mut m, &[1, 1])?;
    put(&mut m, &own.0)?;
    let mtu = s.mtu.unwrap_or(port.mtu);
    put(&mut m, &[5, 1, 0, 0])?;
    put(&mut m, &mtu.to_be_bytes())?;
    let own_prefixes;
    let prefixes = match &s.prefixes {
        Some(list) => list,
        None => {
            own_prefixes = prefixes_of(port);
            &own_prefixes
        }
    };
    for p in prefixes {
        prefix(&mut m, s, p)?;
    }
    options(&mut m, s)?;
    let sum = checksum::pseudo_v6(src, ALL_NODES, protocol::ICMPV6, m.len() as u32).bytes(&m).finish();
    m[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut ip = [0; ipv6::HEADER];
    ip[0] = 0x60;
    ip[4..6].copy_from_slice(&(m.len() as u16).to_be_bytes());
    ip[6..8].copy_from_slice(&[protocol::ICMPV6, 255]);
    ip[8..24].copy_from_slice(&src.octets());
    ip[24..40].copy_from_slice(&ALL_NODES.octets());
    out.reset();
    let total = ip.len() + m.len();
    let room = out.spare_mut().get_mut(..total).ok_or(DropReason::NoFrame)?;
    room[..ip.len()].copy_from_slice(&ip);
    room[ip.len()..].copy_from_slice(&m);
    out.set_len(total);
    push_link_header(out, port, crate::addr::MacAddr::for_ipv6_multicast(ALL_NODES), ETHERTYPE_IPV6)
}

/// Whether settings fit one message, with eight prefixes of the port where none are given.
pub(super) fn fits(s: &AdvertSettings) -> bool {
    let mut m = Message::new();
    let prefixes = 32 * s.prefixes.as_ref().map_or(8, Vec::len);
    put(&mut m, &[0; 32]).is_ok() && prefixes + 32 < MAX && {
        m.extend(std::iter::repeat_n(0, prefixes));
        options(&mut m, s).is_ok()
    }
}

/// The global /64 prefixes of a port's own addresses.
fn prefixes_of(port: &PortInfo) -> Vec<Ipv6Net> {
    let mut found: Vec<Ipv6Net> = Vec::new();
    for net in &port.addrs {
        let IpAddr::V6(a) = net.addr() else { continue };
        if net.prefix_len() == 64 && !a.is_unicast_link_local() {
            let prefix = Ipv6Net::new_assert(a, 64).trunc();
            if !found.contains(&prefix) {
                found.push(prefix);
            }
        }
    }
    found.truncate(8);
    found
}

fn put(m: &mut Message, bytes: &[u8]) -> Result<(), DropReason> {
    m.try_extend_from_slice(bytes).map_err(|_| DropReason::NoFrame)
}

/// Prefix information (RFC 4861 4.6.2): on-link, and autonomous where hosts can make addresses of it, unless the operator
/// says otherwise.
fn prefix(m: &mut Message, s: &AdvertSettings, p: &Ipv6Net) -> Result<(), DropReason> {
    let seconds = |d: crate::time::Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX).to_be_bytes();
    let of = s.by_prefix.get(p).copied().unwrap_or_default();
    let autonomous = of.autonomous.unwrap_or(p.prefix_len() == 64 && !s.managed);
    let (valid, preferred) = s.lifetimes(p);
    put(m, &[3, 4, p.prefix_len(), u8::from(of.on_link) << 7 | u8::from(autonomous) << 6])?;
    put(m, &seconds(valid))?;
    put(m, &seconds(preferred))?;
    put(m, &[0; 4])?;
    put(m, &p.network().octets())
}

fn options(m: &mut Message, s: &AdvertSettings) -> Result<(), DropReason> {
    let lifetime = s.option_lifetime();
    if !s.dns.is_empty() {
        let units = u8::try_from(1 + 2 * s.dns.len()).map_err(|_| DropReason::NoFrame)?;
        put(m, &[25, units, 0, 0])?;
        put(m, &lifetime.to_be_bytes())?;
        s.dns.iter().try_for_each(|a: &Ipv6Addr| put(m, &a.octets()))?;
    }
    if !s.search.is_empty() {
        let mut names = Vec::new();
        for name in &s.search {
            for label in name.trim_end_matches('.').split('.') {
                names.push(u8::try_from(label.len()).map_err(|_| DropReason::NoFrame)?);
                names.extend(label.as_bytes());
            }
            names.push(0);
        }
        names.resize(names.len().next_multiple_of(8), 0);
        let units = u8::try_from(1 + names.len() / 8).map_err(|_| DropReason::NoFrame)?;
        put(m, &[31, units, 0, 0])?;
        put(m, &lifetime.to_be_bytes())?;
        put(m, &names)?;
    }
    if let Some((p, code)) = s.pref64.and_then(|p| Some((p, pref64_code(p.prefix_len())?))) {
        // Thirteen bits of lifetime in units of eight seconds, rounded up, and three for the length.
        let scaled = lifetime.div_ceil(8).min(0x1fff) as u16;
        put(m, &[38, 2])?;
        put(m, &(scaled << 3 | code).to_be_bytes())?;
        put(m, &p.network().octets()[..12])?;
    }
    Ok(())
}

/// RFC 8781 4: the code of a prefix length.
pub(super) fn pref64_code(len: u8) -> Option<u16> {
    [96, 64, 56, 48, 40, 32].iter().position(|l| *l == len).map(|code| code as u16)
}
