//! Ports of a running router: opening, registering with router and workers, closing.

use super::Control;
use crate::clock::Clock;
use crate::port::PortError;
use crate::port::memory::{self, MemoryPort};
use crate::port::open::{Guard, OpenedPort, PortConfig};
use crate::port::pcap::Timeline;
use crate::port::wireguard::{self, spec::WireguardConfig};
use crate::worker::News;
use ipnet::IpNet;
use router_core::port::{PortCaps, PortId, PortInfo, PortKind};
use router_core::router;
use std::fmt;

/// Why a port command failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The port could not be opened.
    #[error(transparent)]
    Open(#[from] PortError),
    /// The router refused it.
    #[error(transparent)]
    Router(#[from] router::PortError),
}

/// A port that is open.
pub struct OpenPort {
    /// As configured.
    pub config: PortConfig,
    /// Frames that the kernel dropped before they were received (iproute2's `missed`): no counter of the router's knows
    /// them.
    pub missed: u64,
    /// The host's index of the device, while it exists.
    pub(super) device_index: Option<u32>,
    pub(super) timeline: Option<Timeline>,
    /// Its device and sockets have the programs that offload flows.
    pub(super) offloads: bool,
    /// `wireguard`: what tells of its peers, and changes them.
    pub wireguard: Option<wireguard::Handle>,
    pub(super) guards: Vec<Guard>,
}

impl fmt::Debug for OpenPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenPort").field("config", &self.config).field("device_index", &self.device_index).finish()
    }
}

impl Control {
    /// Opens a port and puts it into service.
    pub fn add_port(&mut self, config: PortConfig) -> Result<PortId, ControlError> {
        let replaying = matches!(self.clock, Clock::Virtual(_));
        let impossible = |reason: &str| {
            let reason = reason.to_owned();
            ControlError::Open(PortError::Config { port: config.name.clone(), reason })
        };
        match config.kind {
            PortKind::Pcap if !replaying => {
                return Err(impossible("a pcap port runs in the time of its file: all ports must be of kind \"pcap\""));
            }
            PortKind::Pcap | PortKind::Memory => {}
            _ if replaying => {
                return Err(impossible(
                    "a live port cannot be mixed with pcap ports, which run in the time of their file",
                ));
            }
            _ => {}
        }
        // A name that is taken must not touch the device.
        if self.router.ports().by_name(&config.name).is_some() {
            return Err(router::PortError::Exists(config.name).into());
        }
        let opened = self.opener.open(&config, self.workers.len())?;
        self.attach_port(config, opened)
    }

    /// Puts an opened port into service; for ports made elsewhere.
    pub fn attach_port(&mut self, config: PortConfig, opened: OpenedPort) -> Result<PortId, ControlError> {
        let now = self.clock.now();
        let mut addrs = config.addrs.clone();
        // A port over the host's stack has the host's address that it was told: what comes in is addressed to it.
        if let (PortKind::RawIp | PortKind::Udp, Some(local)) = (config.kind, config.local)
            && addrs.iter().all(|a| a.addr() != local)
        {
            addrs.push(IpNet::from(local));
        }
        let info = PortInfo {
            id: PortId::NONE,
            name: config.name.clone(),
            ifindex: 0,
            kind: if config.kind == PortKind::Auto { opened.kind } else { config.kind },
            medium: opened.medium,
            mac: config.mac.or(opened.mac),
            mtu: config.mtu.unwrap_or(opened.mtu),
            vlan: config.vlan,
            table: config.table,
            up: config.admin_up,
            admin_up: config.admin_up,
            caps: opened.caps,
            addrs,
        };
        let id = self.router.add_port(now, info)?;
        self.router.set_link(now, id, None, Some(opened.carrier), &mut self.out)?;
        // Workers must know the port before its first frame arrives.
        self.commit();
        self.watch_links();
        self.put_into_service(id, config, opened);
        Ok(id)
    }

    /// A `memory` port in service, and its other end.
    pub fn add_memory_port(
        &mut self,
        config: PortConfig,
        caps: PortCaps,
        capacity: usize,
    ) -> Result<(PortId, MemoryPort), ControlError> {
        let (near, far) = memory::pair(config.medium, caps, capacity)
            .map_err(|e| PortError::system(&config.name, "make a memory port", "nothing", e))?;
        let id = self.attach_port(config, OpenedPort::from_queues(vec![Box::new(near)]))?;
        Ok((id, far))
    }

    /// Takes a port out of service, closes it, and undoes what was changed on its device.
    pub fn remove_port(&mut self, id: PortId) -> Result<(), ControlError> {
        let now = self.clock.now();
        self.router.remove_port(now, id, &mut self.out)?;
        self.commit();
        self.close_port(id);
        Ok(())
    }

    /// Gives a WireGuard port the peers of another configuration; sessions with those that stay go on.
    pub fn set_wireguard_peers(&mut self, id: PortId, wanted: WireguardConfig) -> Result<(), PortError> {
        let Some((port, handle)) = self.ports.get_mut(&id).and_then(|p| Some((&mut p.config, p.wireguard.clone()?)))
        else {
            return Ok(());
        };
        handle.set_peers(&port.name, &wanted)?;
        port.wireguard = wanted;
        Ok(())
    }

    /// Ports with a device or file behind them.
    pub fn open_ports(&self) -> impl Iterator<Item = (PortId, &OpenPort)> {
        self.ports.iter().map(|(id, p)| (*id, p))
    }

    /// Distributes the queues over the workers, in place of the port's former ones if it had any.
    pub(super) fn put_into_service(&mut self, id: PortId, config: PortConfig, opened: OpenedPort) {
        let OpenedPort { queues, device_index, timeline, wireguard, guards, offloads, .. } = opened;
        for (worker, queue) in self.workers.iter().zip(queues) {
            // May wait for the worker to catch up; workers never wait for us.
            let _ = worker.news.send(News::AddQueue(id, queue));
            worker.wake.ring();
        }
        let missed = self.ports.get(&id).map_or(0, |p| p.missed);
        self.ports.insert(id, OpenPort { config, missed, device_index, timeline, offloads, wireguard, guards });
    }

    fn close_port(&mut self, id: PortId) {
        for worker in &self.workers {
            let _ = worker.news.send(News::RemoveQueue(id));
            worker.wake.ring();
        }
        self.ports.remove(&id);
    }
}
