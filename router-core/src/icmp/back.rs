//! ICMPv4 errors about packets with a source route, and resets: they go back the way those came (RFC 1812 4.3.2.6; RFC 1122
//! 4.2.3.8 says the same of TCP).

use super::Offender;
use crate::addr::Family;
use crate::checksum;
use crate::frame::Frame;
use crate::headers::ipv4::MIN_HEADER;
use crate::headers::{protocol, source_route};

/// An error is not longer than this (RFC 1812 4.3.2.3).
const LONGEST: usize = 576;

/// Gives a finished error about `about`, or reset, the source route by which that packet came, turned round. Left alone are errors
/// about packets without one, and those with an extension (RFC 4884) for which there is no room beside it.
pub(crate) fn send_back_along(out: &mut Frame, about: &Offender<'_>) {
    let header = match about.bytes.first() {
        Some(first) if about.family == Family::Inet => about.bytes.get(..usize::from(first & 15) * 4),
        _ => None,
    };
    let Some((first_hop, mut option)) = header.and_then(source_route::way_back) else { return };
    while option.len() % 4 != 0 && !option.is_full() {
        option.push(0);
    }
    let added = option.len();
    if out.len() + added > LONGEST {
        // The length field of RFC 4884.
        if out.data().get(MIN_HEADER + 5) != Some(&0) {
            return;
        }
        out.truncate(LONGEST - added);
    }
    if out.push_front(added).is_none() {
        return;
    }
    let total = out.len() as u16;
    let data = out.data_mut();
    let Some((ip, icmp)) = data.split_at_mut_checked(MIN_HEADER + added) else { return };
    ip.copy_within(added.., 0);
    ip[MIN_HEADER..].copy_from_slice(&option);
    ip[0] = 0x40 | ((MIN_HEADER + added) / 4) as u8;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[16..20].copy_from_slice(&first_hop.octets());
    checksum::fill_ipv4_header(ip);
    // TCP's sum covers the end of the route, which is the destination that it was made for.
    if ip[9] == protocol::ICMP
        && let Some(sum) = icmp.get_mut(2..4)
    {
        sum.fill(0);
        let sum = checksum::checksum(icmp);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    }
}
