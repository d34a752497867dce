//! A simple host of a simulation: answers ARP, neighbour solicitations and echo requests, sends what it is told to its
//! gateway, and keeps every IP packet that it receives.

use crate::sim::packets;
use ipnet::IpNet;
use router_core::addr::{Family, MacAddr};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// See the module.
pub struct Host {
    mac: MacAddr,
    addrs: Vec<IpNet>,
    gateways: Vec<IpAddr>,
    neighbors: BTreeMap<IpAddr, MacAddr>,
    waiting: Vec<(IpAddr, Vec<u8>)>,
    out: Vec<Vec<u8>>,
    /// Every IP packet received, in order, neighbour discovery left out.
    pub received: Vec<Vec<u8>>,
    /// Answer address resolution (a host that has died does not).
    pub alive: bool,
    /// Frames that asked for our link-layer address.
    pub asked: usize,
}

impl Host {
    pub(super) fn new(mac: MacAddr, addrs: &[&str], gateways: &[&str]) -> Self {
        let mut addrs: Vec<IpNet> =
            addrs.iter().map(|a| router_core::addr::parse_interface_addr(a).expect("address")).collect();
        addrs.push(IpNet::new(IpAddr::V6(mac.link_local()), 64).expect("length"));
        let gateways = gateways.iter().map(|g| g.parse().expect("gateway")).collect();
        Host {
            mac,
            addrs,
            gateways,
            neighbors: BTreeMap::new(),
            waiting: Vec::new(),
            out: Vec::new(),
            received: Vec::new(),
            alive: true,
            asked: 0,
        }
    }

    /// Its link-layer address.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Its first address of a family.
    pub fn addr(&self, family: Family) -> IpAddr {
        self.addrs.iter().map(|a| a.addr()).find(|a| Family::of(a) == family).expect("an address of this family")
    }

    /// Takes what was received so far.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.received)
    }

    pub(super) fn drain(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.out)
    }

    pub(super) fn send(&mut self, packet: Vec<u8>) {
        let dst = packets::destination(&packet);
        let on_link = self.addrs.iter().any(|a| a.contains(&dst));
        let hop = if on_link {
            dst
        } else {
            let family = Family::of(&dst);
            let same = self.gateways.iter().find(|g| Family::of(g) == family);
            *same.or(self.gateways.first()).expect("a gateway")
        };
        match self.neighbors.get(&hop) {
            Some(mac) => self.out.push(packets::ethernet(*mac, self.mac, &packet)),
            None => {
                let ask = match hop {
                    IpAddr::V4(target) => {
                        let IpAddr::V4(own) = self.addr(Family::Inet) else { return };
                        packets::arp(1, MacAddr::BROADCAST, self.mac, own, MacAddr([0; 6]), target)
                    }
                    IpAddr::V6(target) => packets::solicitation(self.mac, self.own_v6(target), target),
                };
                self.out.push(ask);
                self.waiting.push((hop, packet));
            }
        }
    }

    fn own_v6(&self, peer: Ipv6Addr) -> Ipv6Addr {
        let near = self.addrs.iter().find(|a| a.contains(&IpAddr::V6(peer)));
        match near.map(|a| a.addr()) {
            Some(IpAddr::V6(a)) => a,
            _ => self.mac.link_local(),
        }
    }

    fn learn(&mut self, addr: IpAddr, mac: MacAddr) {
        self.neighbors.insert(addr, mac);
        let ready: Vec<_> = self.waiting.iter().filter(|w| w.0 == addr).map(|w| w.1.clone()).collect();
        self.waiting.retain(|w| w.0 != addr);
        for packet in ready {
            self.send(packet);
        }
    }

    fn owns(&self, addr: IpAddr) -> bool {
        self.addrs.iter().any(|a| a.addr() == addr)
    }

    pub(super) fn receive(&mut self, frame: &[u8]) {
        let for_us = frame.len() >= 14 && (frame[..6] == self.mac.0 || frame[0] & 1 == 1);
        if !for_us || !self.alive {
            return;
        }
        let from = MacAddr([frame[6], frame[7], frame[8], frame[9], frame[10], frame[11]]);
        let body = &frame[14..];
        match (frame[12], frame[13]) {
            (8, 6) => {
                if let Some(a) = packets::read_arp(body) {
                    if a.op == 1 && self.owns(IpAddr::V4(a.target)) {
                        self.asked += 1;
                        self.out.push(packets::arp(2, from, self.mac, a.target, from, a.sender));
                    }
                    if a.op == 2 {
                        self.learn(IpAddr::V4(a.sender), a.sender_mac);
                    }
                }
            }
            (0x86, 0xdd) | (8, 0) => {
                if let Some((kind, target, mac)) = packets::read_ndp(body) {
                    if kind == 135 && self.owns(IpAddr::V6(target)) {
                        self.asked += 1;
                        let IpAddr::V6(to) = packets::source(body) else { return };
                        self.out.push(packets::advertisement(self.mac, from, target, to));
                    }
                    if let (136, Some(mac)) = (kind, mac) {
                        self.learn(IpAddr::V6(target), mac);
                    }
                    return;
                }
                self.received.push(body.to_vec());
                if let Some(reply) = packets::echo_reply(body)
                    && self.owns(packets::destination(body))
                {
                    self.send(reply);
                }
            }
            _ => {}
        }
    }
}
