//! ICMP extensions (RFC 4884): which interface a packet came in by (RFC 5837), and which node speaks
//! (draft-ietf-intarea-extended-icmp-nodeid), so that traceroute tells routers without addresses of their own apart.

use super::IcmpError;
use crate::addr::Family;
use crate::checksum;
use crate::port::PortInfo;
use crate::settings::IcmpSettings;
use arrayvec::ArrayVec;
use std::net::IpAddr;

/// Longest name sub-object, its length byte included (RFC 5837 4.3, draft 3.3).
const MAX_NAME: usize = 64;
/// Class of the interface information object (RFC 5837 4).
const CLASS_INTERFACE: u8 = 2;
/// Class of the node identification object (draft 3).
const CLASS_NODE: u8 = 5;
/// Bits of a C-Type, the same in both classes.
const HAS_INDEX: u8 = 8;
const HAS_ADDR: u8 = 4;
const HAS_NAME: u8 = 2;
const HAS_MTU: u8 = 1;

/// An extension structure, ready to be appended to the quote of an error; empty when there is nothing to tell.
///
/// Longest: its header, an interface with index, address, name and MTU, a node with address and name.
#[derive(Clone, Debug, Default)]
pub struct Extension(ArrayVec<u8, { 4 + (4 + 4 + 20 + MAX_NAME + 4) + (4 + 20 + MAX_NAME) }>);

impl Extension {
    /// What the settings allow to tell `to` about the router and the port through which the offending packet came. The role
    /// of that port is 0: the incoming IP interface (RFC 5837 4.1).
    pub fn new(settings: &IcmpSettings, ingress: Option<&PortInfo>, family: Family, to: IpAddr) -> Self {
        let mut e = Extension::default();
        if !settings.info_to.is_empty() && !settings.info_to.iter().any(|n| n.contains(&to)) {
            return e;
        }
        e.push(&[0x20, 0, 0, 0]);
        if let (true, Some(port)) = (settings.interface_info, ingress) {
            let at = e.open(CLASS_INTERFACE);
            let mut kind = HAS_INDEX | HAS_NAME | HAS_MTU;
            e.push(&port.ifindex.to_be_bytes());
            if let Some(addr) = port.global_addr(family).or(port.link_local().map(IpAddr::V6)) {
                kind |= HAS_ADDR;
                e.addr(addr);
            }
            e.name(&port.name);
            e.push(&port.mtu.to_be_bytes());
            e.close(at, kind);
        }
        if let Some(node) = &settings.node {
            let at = e.open(CLASS_NODE);
            let mut kind = 0;
            if let Some(addr) = node.addr {
                kind |= HAS_ADDR;
                e.addr(addr);
            }
            if !node.name.is_empty() {
                kind |= HAS_NAME;
                e.name(&node.name);
            }
            e.close(at, kind);
        }
        if e.0.len() == 4 {
            e.0.clear();
            return e;
        }
        let sum = checksum::checksum(&e.0);
        e.0[2..4].copy_from_slice(&sum.to_be_bytes());
        e
    }

    /// Whether there is nothing to append.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// What does not fit is left out; the capacity is that of the longest one.
    fn push(&mut self, bytes: &[u8]) {
        let room = self.0.remaining_capacity().min(bytes.len());
        self.0.extend(bytes[..room].iter().copied());
    }

    fn open(&mut self, class: u8) -> usize {
        let at = self.0.len();
        self.push(&[0, 0, class, 0]);
        at
    }

    fn close(&mut self, at: usize, kind: u8) {
        let len = (self.0.len() - at) as u16;
        if let Some(header) = self.0.get_mut(at..at + 4) {
            header[..2].copy_from_slice(&len.to_be_bytes());
            header[3] = kind;
        }
    }

    fn addr(&mut self, addr: IpAddr) {
        match addr {
            IpAddr::V4(a) => {
                self.push(&[0, 1, 0, 0]);
                self.push(&a.octets());
            }
            IpAddr::V6(a) => {
                self.push(&[0, 2, 0, 0]);
                self.push(&a.octets());
            }
        }
    }

    /// Length byte, name, padding to four bytes. A name too long is cut at a character's end, so that it stays UTF-8.
    fn name(&mut self, name: &str) {
        let end = name.floor_char_boundary(MAX_NAME - 1);
        let len = (1 + end).next_multiple_of(4);
        self.push(&[len as u8]);
        self.push(&name.as_bytes()[..end]);
        self.push(&[0; 3][..len - 1 - end]);
    }
}

/// Where an error's length field lies (counted from the ICMP header) and in how many bytes it counts, if extensions may
/// follow it (RFC 4884 4): never behind packet too big.
pub(super) fn length_field(error: &IcmpError) -> Option<(usize, usize)> {
    match (error.family(), error.kind()) {
        (Family::Inet, 3 | 11 | 12) => Some((5, 4)),
        (Family::Inet6, 1 | 3) => Some((4, 8)),
        _ => None,
    }
}

/// How much of the offending packet of `len` bytes is quoted before an extension, and with padding: `room` bytes at
/// most, at least 128 (RFC 4884 4.1 to 4.5), a multiple of `unit`. None when there is no room for that.
pub(super) fn quote_len(len: usize, room: usize, unit: usize) -> Option<(usize, usize)> {
    let most = room / unit * unit;
    let padded = len.next_multiple_of(unit).clamp(128, most.max(128));
    (padded <= most).then_some((len.min(padded), padded))
}
