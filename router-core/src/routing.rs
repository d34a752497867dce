//! stub
#![allow(missing_docs)]
use crate::addr::MacAddr;
use crate::object::*;
use crate::port::*;
use crate::spec::*;
use crate::tables::RoutingTables;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncapFacts {
    pub mode: TunnelMode,
    pub local: IpAddr,
    pub remote: IpAddr,
    pub ttl: Option<u8>,
    pub tos: Option<u8>,
    pub df: bool,
    pub mtu: u32,
    pub table: TableId,
    pub dev: Option<PortId>,
}
pub struct Routing;
impl Routing {
    pub fn new(_: u64) -> Self {
        Routing
    }
    pub fn tables(&mut self) -> RoutingTables {
        RoutingTables::empty()
    }
    pub fn prepare(&mut self) -> Option<RoutingTables> {
        None
    }
    pub fn apply(&mut self) -> bool {
        false
    }
    pub fn set_port(&mut self, _: Arc<PortInfo>) {}
    pub fn remove_port(&mut self, _: PortId) {}
    pub fn set_tunnel(&mut self, _: PortId, _: EncapFacts) {}
    pub fn remove_tunnel(&mut self, _: PortId) {}
    pub fn tunnel_carrier(&self, _: PortId) -> Option<ObjectId> {
        None
    }
    pub fn object(&self, _: ObjectId) -> Option<&Object> {
        None
    }
    pub fn set_neighbor(&mut self, _: PortId, _: IpAddr, _: Option<(MacAddr, Arc<AtomicBool>)>) {}
    pub fn neighbor_failed(&mut self, _: PortId, _: IpAddr, _: bool) {}
}
