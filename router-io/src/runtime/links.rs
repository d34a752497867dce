//! Following the host's devices: carrier, MTU, vanishing and coming back.

use super::Control;
use crate::netlink::{LinkEvent, LinkInfo, LinkMonitor};
use crate::port::PortEvent;
use router_core::port::{PortId, PortKind};

impl Control {
    /// Opens the link monitor when the first port with a device needs it.
    pub(super) fn watch_links(&mut self) {
        if self.links.is_none() {
            match LinkMonitor::open() {
                Ok(monitor) => self.links = Some(monitor),
                Err(e) => {
                    tracing::warn!(error = %e, "cannot follow link changes; ports only notice when sending fails")
                }
            }
        }
    }

    /// Applies what the host's devices did since the last turn.
    pub(super) fn follow_links(&mut self) {
        let Some(monitor) = &mut self.links else { return };
        match monitor.events() {
            Ok(events) => events.into_iter().for_each(|e| self.link_event(&e)),
            Err(e) => {
                tracing::warn!(error = %e, "link changes are not followed any more");
                self.links = None;
            }
        }
    }

    fn link_event(&mut self, event: &LinkEvent) {
        match event {
            LinkEvent::Changed(link) => {
                for id in self.ports_on(link.index) {
                    self.set_carrier(id, link.admin_up && link.running);
                    self.adopt_mtu(id, link);
                }
                self.reopen(link);
            }
            LinkEvent::Removed(link) => {
                for id in self.ports_on(link.index) {
                    self.lose_device(id);
                }
            }
        }
    }

    fn ports_on(&self, index: u32) -> Vec<PortId> {
        self.ports.iter().filter(|(_, p)| p.device_index == Some(index)).map(|(id, _)| *id).collect()
    }

    fn set_carrier(&mut self, id: PortId, carrier: bool) {
        if self.router.carrier(id) != carrier {
            tracing::info!(port = id.0, carrier, "link changed");
            let now = self.clock.now();
            // The port exists in the router as long as it is open here.
            let _ = self.router.set_link(now, id, None, Some(carrier), &mut self.out);
        }
    }

    /// A port without an MTU of its own has its device's.
    fn adopt_mtu(&mut self, id: PortId, link: &LinkInfo) {
        let configured = self.ports.get(&id).is_none_or(|p| p.config.mtu.is_some());
        let differs = self.router.ports().get(id).is_some_and(|p| p.mtu != link.mtu);
        if !configured
            && differs
            && let Err(e) = self.router.set_mtu(id, link.mtu)
        {
            tracing::warn!(port = id.0, mtu = link.mtu, error = %e, "cannot take over the device's MTU");
        }
    }

    fn lose_device(&mut self, id: PortId) {
        if let Some(port) = self.ports.get_mut(&id) {
            // A TUN or TAP device that has been moved to another namespace (a container's) works there as before, and was only
            // down for the move. Of one that is really gone its queue knows.
            if port.config.kind.makes_device() {
                tracing::info!(port = %port.config.name, "the device has left this network namespace, or is gone");
                port.device_index = None;
                return self.set_carrier(id, true);
            }
            tracing::warn!(port = %port.config.name, "the device vanished");
            port.device_index = None;
            port.guards.clear();
        }
        self.set_carrier(id, false);
    }

    /// A device that came back under the name of a port that lost its own.
    fn reopen(&mut self, link: &LinkInfo) {
        let lost = |p: &super::ports::OpenPort| {
            p.device_index.is_none()
                && matches!(p.config.kind, PortKind::Packet | PortKind::Datalink | PortKind::Xdp | PortKind::Auto)
                && p.config.device_name() == link.name
        };
        let ids: Vec<_> = self.ports.iter().filter(|(_, p)| lost(p)).map(|(id, p)| (*id, p.config.clone())).collect();
        for (id, config) in ids {
            match self.opener.open(&config, self.workers.len()) {
                Ok(opened) => {
                    tracing::info!(port = %config.name, "the device is back");
                    let carrier = opened.carrier;
                    self.put_into_service(id, config, opened);
                    self.set_carrier(id, carrier);
                }
                Err(e) => tracing::warn!(error = %e, "the device is back, but cannot be opened"),
            }
        }
    }

    /// Something that a worker noticed at a port.
    pub(super) fn port_event(&mut self, id: PortId, event: PortEvent) {
        let Some(port) = self.ports.get_mut(&id) else { return };
        match event {
            PortEvent::Overrun(frames) => port.missed += frames,
            // The monitor tells about devices, and also when they come back.
            // Nothing comes back under the name of a TUN device, and no other news of one that was moved.
            PortEvent::Vanished if port.config.kind.makes_device() => {
                port.device_index = None;
                self.set_carrier(id, false);
            }
            // In another namespace it is not up at first, and nobody here would hear when it is.
            PortEvent::LinkDown if port.config.kind.makes_device() && port.device_index.is_none() => {}
            PortEvent::LinkDown | PortEvent::Vanished if port.device_index.is_some() && self.links.is_some() => {}
            PortEvent::LinkDown | PortEvent::Vanished => self.set_carrier(id, false),
            PortEvent::Broken(errno) => {
                let error = std::io::Error::from_raw_os_error(errno);
                tracing::error!(port = %port.config.name, %error, "the port failed and is out of service");
                self.set_carrier(id, false);
            }
            PortEvent::PathMtu { dst, mtu } => {
                tracing::debug!(port = %port.config.name, %dst, mtu, "the host's stack knows a smaller path MTU");
                let now = self.clock.now();
                // In force with the commit that follows the reports.
                self.router.learn_host_path_mtu(now, dst, mtu);
            }
        }
    }
}
