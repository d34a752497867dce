//! The router of a configuration, in memory: its ports are there, but lead nowhere. For questions about a configuration.

use super::{change, execute};
use crate::backend::ports::{drop_link_local, port_config};
use crate::config::{Change, LinkLocal, Plan, PortPlan, Target};
use crate::control::{Answer, Op, WireError};
use crate::grammar::{Failure, exit};
use router_core::addr::MacAddr;
use router_core::port::{Medium, PortCaps, PortKind};
use router_io::port::memory;
use router_io::port::open::OpenedPort;
use router_io::runtime::RuntimeConfig;
use router_io::runtime::replay::Replay;
use std::cell::RefCell;

/// The seed of flow hashes: questions are repeatable.
const SEED: u64 = 1;

/// See the module.
pub(crate) struct Imagined(RefCell<Replay>);

impl Imagined {
    /// A router with the plan's settings and nothing else: apply the plan to it.
    pub fn new(plan: &Plan) -> Result<Self, Failure> {
        let max_ports = plan.ports.len() + plan.tunnels.len() + 16;
        let config = RuntimeConfig { workers: 1, max_ports, settings: plan.settings.clone(), seed: Some(SEED) };
        let replay = Replay::new(config)
            .map_err(|e| Failure::new(exit::REFUSED, format!("Cannot build the router in memory: {e}")))?;
        Ok(Imagined(RefCell::new(replay)))
    }

    /// Executes an operation.
    pub fn call(&mut self, op: Op) -> Result<Answer, WireError> {
        let control = self.0.get_mut().control();
        control.commit();
        execute(control, op)
    }

    fn add_port(&self, plan: &PortPlan) -> Result<(), WireError> {
        let failed = |e: &dyn std::fmt::Display| WireError::new("failed", format!("port {}: {e}", plan.name), "");
        let ethernet = matches!(plan.kind, PortKind::Packet | PortKind::Datalink | PortKind::Memory | PortKind::Pcap);
        let medium = if ethernet { Medium::Ethernet } else { Medium::Ip };
        let (near, _far) = memory::pair(medium, PortCaps::default(), 1).map_err(|e| failed(&e))?;
        let mut replay = self.0.borrow_mut();
        let control = replay.control();
        let number = control.router().ports().iter().count() as u16;
        let [high, low] = number.to_be_bytes();
        let opened = OpenedPort {
            // A device that nobody has seen: locally administered, by number.
            mac: ethernet.then_some(MacAddr([2, 0, 0, 0, high, low])),
            ..OpenedPort::from_queues(vec![Box::new(near)])
        };
        let id = control.attach_port(port_config(plan), opened).map_err(super::errors::control)?;
        if plan.link_local == LinkLocal::Off {
            drop_link_local(control, id, plan);
        }
        Ok(())
    }
}

impl Target for Imagined {
    fn change(&self, wanted: Change) -> Result<(), WireError> {
        match wanted {
            Change::PortAdd(plan) if plan.kind != PortKind::Loopback => self.add_port(&plan),
            wanted => change(self.0.borrow_mut().control(), wanted),
        }
    }
}
