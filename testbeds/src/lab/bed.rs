//! A network of namespaces with routers in it.

use super::{Result, RouterConfig};
use router_cli::demo::instance::{Instance, Stats};
use router_io::lab::{Host, Net, sandbox};
use router_io::netlink::KernelBlock;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long links may take to become operational, and counters to settle.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who plays a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dut {
    /// Our own process.
    Duet,
    /// The host's kernel.
    Kernel,
}

/// A network with routers. Printing of the routers' logs helps to see what went wrong: they are printed when the bed is
/// dropped by a panic.
#[derive(Debug)]
pub struct Bed {
    /// Hosts and links.
    pub net: Net,
    program: PathBuf,
    dir: PathBuf,
    routers: BTreeMap<String, Instance>,
}

impl Bed {
    /// An empty bed whose routers are run by `program`.
    pub fn new(program: &str) -> Result<Self> {
        let dir = sandbox::private_dir()?;
        Ok(Bed { net: Net::new(), program: program.into(), dir, routers: BTreeMap::new() })
    }

    /// A row of hosts, each linked with the next. Device names: `left` towards the one before, `right` towards the one
    /// after; the ends, who are no routers, call theirs `eth0`. The MTU of each link is given.
    pub fn row(program: &str, hosts: &[&str], mtus: &[u32]) -> Result<Self> {
        let mut bed = Bed::new(program)?;
        bed.net.hosts(hosts)?;
        let last = hosts.len().saturating_sub(2);
        for (i, pair) in hosts.windows(2).enumerate() {
            let a = if i == 0 { "eth0" } else { "right" };
            let b = if i == last { "eth0" } else { "left" };
            bed.net.link_mtu((pair[0], a), (pair[1], b), mtus.get(i).copied().unwrap_or(1500))?;
        }
        Ok(bed)
    }

    /// A host.
    pub fn host(&self, name: &str) -> &Arc<Host> {
        self.net.host(name).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Waits until all links are up.
    pub fn ready(&self) -> Result {
        Ok(self.net.wait_ready(PATIENCE)?)
    }

    /// The directory for files, private to the sandbox.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The program under test.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Gives a host addresses on `eth0` and routes.
    pub fn end(&self, host: &str, addrs: &[&str], routes: &[&str]) -> Result {
        addrs.iter().try_for_each(|a| self.net.addr(host, "eth0", a))?;
        self.ready()?;
        Ok(routes.iter().try_for_each(|r| self.net.route(host, r))?)
    }

    /// Starts a router: our process, or the kernel with the same addresses and routes. All links must be ready.
    pub fn router(&mut self, dut: Dut, config: &RouterConfig) -> Result {
        match dut {
            Dut::Duet => {
                let instance =
                    Instance::start(&self.program, self.net.host(&config.name)?, &self.dir, &config.to_toml())?;
                self.routers.insert(config.name.clone(), instance);
            }
            Dut::Kernel => {
                assert!(config.extra.trim().is_empty(), "the kernel understands ports and routes only");
                self.net.kernel_router(&config.name)?;
                for port in &config.ports {
                    port.addrs.iter().try_for_each(|a| self.net.addr(&config.name, &port.name, a))?;
                }
                config.routes.iter().try_for_each(|r| self.net.route(&config.name, r))?;
            }
        }
        // Either may have made devices or addresses of the host.
        self.ready()
    }

    /// One of our routers.
    pub fn duet(&self, name: &str) -> &Instance {
        self.routers.get(name).unwrap_or_else(|| panic!("no router {name} is ours"))
    }

    /// One of our routers, to change.
    pub fn duet_mut(&mut self, name: &str) -> &mut Instance {
        self.routers.get_mut(name).unwrap_or_else(|| panic!("no router {name} is ours"))
    }

    /// Takes one of our routers out, to stop or drop it.
    pub fn take(&mut self, name: &str) -> Instance {
        self.routers.remove(name).unwrap_or_else(|| panic!("no router {name} is ours"))
    }

    /// Starts one of our routers again after [`Bed::take`].
    pub fn restart(&mut self, name: &str, toml: &str) -> Result {
        let instance = Instance::start(&self.program, self.net.host(name)?, &self.dir, toml)?;
        self.routers.insert(name.to_owned(), instance);
        Ok(())
    }

    /// Counters of one of our routers.
    pub fn stats(&self, name: &str) -> Result<Stats> {
        Ok(self.duet(name).stats()?)
    }

    /// The end of a lab: each of our routers obeys the conservation law, ends with 0 on SIGTERM and leaves nothing on
    /// its host.
    pub fn finish(mut self) -> Result {
        for (name, router) in std::mem::take(&mut self.routers) {
            let stats = router.settled(PATIENCE)?;
            println!(
                "{name}: {} received, {} made, {} sent, dropped {:?}",
                stats.received, stats.originated, stats.transmitted, stats.drops
            );
            let socket = router.socket().to_owned();
            let (status, log) = router.stop()?;
            assert!(status.success(), "router {name} ended with {status}\n{log}");
            assert!(!socket.exists(), "router {name} left its control socket");
            self.untouched(&name)?;
        }
        Ok(())
    }

    /// Asserts that no device of a host is kept from the kernel.
    pub fn untouched(&self, host: &str) -> Result {
        let host = self.net.host(host)?;
        for link in host.netlink().links()? {
            let blocked = host.run(|| KernelBlock::is_installed(link.index))?;
            assert!(!blocked, "{}: {} is still kept from the kernel", host.name(), link.name);
        }
        Ok(())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for (name, router) in &self.routers {
            eprintln!("--- router {name}, its configuration and log:");
            eprintln!("{}", std::fs::read_to_string(router.config()).unwrap_or_default());
            eprintln!("{}", router.log());
            if let Ok(stats) = router.stats() {
                eprintln!("{stats:?}");
            }
        }
        if std::thread::panicking() {
            for name in self.net.host_names() {
                eprintln!("--- the kernel of {name} discarded: {}", discards(self.host(name)).join(", "));
            }
        }
    }
}

/// Counters of a host's kernel that say that packets were lost there, if they are not zero.
fn discards(host: &Host) -> Vec<String> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
    let (pairs, columns) = host.run(|| (read("snmp6"), read("snmp") + &read("netstat")));
    let telling =
        |name: &str| ["Discard", "Error", "Err", "Drop", "NoRoute", "Trunc", "Fails"].iter().any(|w| name.contains(w));
    let mut found = Vec::new();
    let mut keep = |name: &str, value: &str| {
        if telling(name) && value != "0" {
            found.push(format!("{name} {value}"));
        }
    };
    for line in pairs.lines() {
        let mut words = line.split_whitespace();
        keep(words.next().unwrap_or_default(), words.next().unwrap_or("0"));
    }
    // A line of names, then a line of values.
    let lines: Vec<&str> = columns.lines().collect();
    for pair in lines.chunks(2) {
        let [names, values] = pair else { continue };
        names.split_whitespace().zip(values.split_whitespace()).for_each(|(n, v)| keep(n, v));
    }
    found
}
