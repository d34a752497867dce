//! A small network of hosts, described in a few lines.

use super::{Host, LabError};
use crate::netlink::{KernelRoute, KernelRouteKind, VethEnd};
use router_core::addr::{MacAddr, parse_interface_addr};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One end of a link: host and device.
pub type End<'a> = (&'a str, &'a str);

/// Hosts and the links between them.
///
/// ```no_run
/// # fn main() -> Result<(), router_io::lab::LabError> {
/// use std::time::Duration;
/// let mut net = router_io::lab::Net::new();
/// net.hosts(&["a", "r", "b"])?;
/// net.link(("a", "eth0"), ("r", "lan"))?;
/// net.link(("r", "wan"), ("b", "eth0"))?;
/// net.addrs(&[("a", "eth0", "192.0.2.1/25"), ("r", "lan", "192.0.2.126/25")])?;
/// net.addrs(&[("r", "wan", "192.0.2.129/25"), ("b", "eth0", "192.0.2.200/25")])?;
/// net.kernel_router("r")?;
/// net.wait_ready(Duration::from_secs(5))?;
/// net.route("a", "default via 192.0.2.126")?;
/// net.route("b", "default via 192.0.2.129")?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Net {
    hosts: BTreeMap<String, Arc<Host>>,
    links: Vec<(String, String)>,
    next_index: u32,
}

impl Default for Net {
    fn default() -> Self {
        Self::new()
    }
}

impl Net {
    /// An empty network.
    pub fn new() -> Self {
        Net { hosts: BTreeMap::new(), links: Vec::new(), next_index: 10 }
    }

    /// Adds a host.
    pub fn add_host(&mut self, name: &str) -> Result<Arc<Host>, LabError> {
        let host = Arc::new(Host::new(name)?);
        self.hosts.insert(name.to_owned(), Arc::clone(&host));
        Ok(host)
    }

    /// Adds several hosts.
    pub fn hosts(&mut self, names: &[&str]) -> Result<(), LabError> {
        names.iter().try_for_each(|name| self.add_host(name).map(drop))
    }

    /// The host called `name`.
    pub fn host(&self, name: &str) -> Result<&Arc<Host>, LabError> {
        self.hosts.get(name).ok_or_else(|| LabError::NoHost(name.to_owned()))
    }

    /// Names of all hosts.
    pub fn host_names(&self) -> impl Iterator<Item = &str> {
        self.hosts.keys().map(String::as_str)
    }

    /// Connects two hosts by a veth pair with MTU 1500, both ends up, offloads as the kernel sets them: on.
    pub fn link(&mut self, a: End<'_>, b: End<'_>) -> Result<(), LabError> {
        self.link_mtu(a, b, 1500)
    }

    /// As [`Net::link`], with another MTU.
    pub fn link_mtu(&mut self, a: End<'_>, b: End<'_>, mtu: u32) -> Result<(), LabError> {
        let host_a = Arc::clone(self.host(a.0)?);
        let host_b = Arc::clone(self.host(b.0)?);
        let mut ends = [(a, &host_a), (b, &host_b)].map(|((_, dev), host)| {
            let mut end = VethEnd::new(dev, Some(host.netns_fd()));
            end.mtu = Some(mtu);
            end
        });
        for end in &mut ends {
            // No index twice in the whole lab: two veth ends of equal index make the kernel report their carrier up to
            // a second late (linkwatch takes them for no pair). And the address tells the link in a capture.
            let [hi, lo] = (self.next_index as u16).to_be_bytes();
            end.index = Some(self.next_index);
            end.mac = Some(MacAddr([0x02, 0, 0, 0, hi, lo]));
            self.next_index += 1;
        }
        host_a.netlink().add_veth(&ends[0], &ends[1]).map_err(|e| host_a.failed(e))?;
        for (end, host) in ends.iter().zip([&host_a, &host_b]) {
            let index = end.index.unwrap_or_default();
            host.netlink().set_up(index, true).map_err(|e| host.failed(e))?;
            self.links.push((host.name().to_owned(), end.name.to_owned()));
        }
        Ok(())
    }

    /// Adds an address such as `192.0.2.1/24` to a device. IPv6 addresses are usable at once.
    pub fn addr(&self, host: &str, dev: &str, addr: &str) -> Result<(), LabError> {
        let host = self.host(host)?;
        let addr = parse_interface_addr(addr)?;
        let mut netlink = host.netlink();
        let added = netlink.link_index(dev).and_then(|index| netlink.add_addr(index, addr));
        added.map_err(|e| host.failed(e))
    }

    /// Removes an address such as `192.0.2.1/24` from a device, and with the last one the routes through it.
    pub fn del_addr(&self, host: &str, dev: &str, addr: &str) -> Result<(), LabError> {
        let host = self.host(host)?;
        let addr = parse_interface_addr(addr)?;
        let mut netlink = host.netlink();
        let removed = netlink.link_index(dev).and_then(|index| netlink.del_addr(index, addr));
        removed.map_err(|e| host.failed(e))
    }

    /// Adds several addresses: host, device, address.
    pub fn addrs(&self, list: &[(&str, &str, &str)]) -> Result<(), LabError> {
        list.iter().try_for_each(|(host, dev, addr)| self.addr(host, dev, addr))
    }

    /// Adds a route in the grammar of [`KernelRoute::parse`].
    pub fn route(&self, host: &str, route: &str) -> Result<(), LabError> {
        let host = self.host(host)?;
        let mut netlink = host.netlink();
        let parsed = KernelRoute::parse(route, |dev| netlink.link_index(dev))
            .map_err(|source| LabError::Route { host: host.name().to_owned(), source })?;
        netlink.add_route(&parsed).map_err(|e| host.failed(e))
    }

    /// Lets the host's kernel forward both families.
    pub fn kernel_router(&self, host: &str) -> Result<(), LabError> {
        let host = self.host(host)?;
        host.set_sysctl("net.ipv4.ip_forward", "1")?;
        host.set_sysctl("net.ipv6.conf.all.forwarding", "1")
    }

    /// Sets the MTU of a device.
    pub fn set_mtu(&self, host: &str, dev: &str, mtu: u32) -> Result<(), LabError> {
        self.change(host, dev, |netlink, index| netlink.set_mtu(index, mtu))
    }

    /// A device as plain as the oldest: the kernel computes checksums and cuts super-frames before it sends by it. For
    /// receivers that know nothing of either.
    pub fn plain_device(&self, host: &str, dev: &str) -> Result<(), LabError> {
        let host = self.host(host)?;
        let device = host.run(|| {
            let device = crate::sys::device::Device::new(dev)?;
            device.set_feature(crate::sys::device::Feature::TX_CHECKSUM, 0)
        });
        device.map_err(|source| LabError::System { what: format!("host {}: offloads of {dev}", host.name()), source })
    }

    /// Sets a device up or down. The other end of its link loses or gains the carrier.
    pub fn set_up(&self, host: &str, dev: &str, up: bool) -> Result<(), LabError> {
        self.change(host, dev, |netlink, index| netlink.set_up(index, up))
    }

    fn change(
        &self,
        host: &str,
        dev: &str,
        f: impl FnOnce(&mut crate::netlink::Netlink, u32) -> Result<(), crate::netlink::NetlinkError>,
    ) -> Result<(), LabError> {
        let host = self.host(host)?;
        let mut netlink = host.netlink();
        let changed = netlink.link_index(dev).and_then(|index| f(&mut netlink, index));
        changed.map_err(|e| host.failed(e))
    }

    /// Waits until every link made here that still exists is operational and every address is usable.
    ///
    /// # Errors
    /// [`LabError::NotReady`] names what was missing at the end of `limit`.
    pub fn wait_ready(&self, limit: Duration) -> Result<(), LabError> {
        let deadline = Instant::now() + limit;
        loop {
            match self.not_ready()? {
                None => return Ok(()),
                Some(what) if Instant::now() >= deadline => {
                    return Err(LabError::NotReady { what, seconds: limit.as_secs() });
                }
                Some(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    fn not_ready(&self) -> Result<Option<String>, LabError> {
        for (name, dev) in &self.links {
            let host = self.host(name)?;
            let mut netlink = host.netlink();
            match netlink.link(dev) {
                Ok(link) if link.admin_up && !link.oper_up => return Ok(Some(format!("{name} {dev} has no carrier"))),
                Err(e) if !e.is_missing() => return Err(host.failed(e)),
                _ => {}
            }
        }
        for (name, host) in &self.hosts {
            let addrs = host.netlink().addrs(None).map_err(|e| host.failed(e))?;
            if let Some(a) = addrs.iter().find(|a| a.tentative) {
                return Ok(Some(format!("{name}: address {} is tentative", a.addr)));
            }
            // The kernel says "added" and makes the route to itself a moment later.
            let mut netlink = host.netlink();
            let up: Vec<u32> =
                netlink.links().map_err(|e| host.failed(e))?.iter().filter(|l| l.admin_up).map(|l| l.index).collect();
            for a in addrs.iter().filter(|a| up.contains(&a.index)).map(|a| a.addr.addr()) {
                let IpAddr::V6(v6) = a else { continue };
                let local = |l: &crate::netlink::FibLookup| l.kind == KernelRouteKind::Local;
                if !v6.is_unicast_link_local() && !netlink.lookup(a).is_ok_and(|l| local(&l)) {
                    return Ok(Some(format!("{name}: address {a} has no local route")));
                }
            }
        }
        Ok(None)
    }
}
