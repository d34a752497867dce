//! Devices under test: Duet as a process, the kernel, or a command of the user's.

use super::error::WireError;
use super::lab::Setup;
use super::noise;
use super::plan::{DutName, PathName};
use super::topology::{self, GEN4, LEFT4, Role};
use crate::demo::instance::{Instance, this_program};
use benches::table::Table;
use router_io::lab::{Host, Net, Process, sandbox};
use router_io::netlink::KernelRoute;
use router_io::traffic::{napi, pin_process};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fmt::Write;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// How long NAPI threads may take to appear.
const APPEAR: Duration = Duration::from_secs(2);

/// A running device under test.
#[derive(Debug)]
pub(super) struct Dut {
    pub name: DutName,
    routers: Vec<Instance>,
    exec: Option<Process>,
    /// Kernel threads that forward.
    pub threads: Vec<u32>,
}

impl Dut {
    /// Starts it in the hosts `dut` (and `dut2`) of a wired lab.
    pub fn start(name: DutName, net: &Net, setup: &Setup) -> Result<Dut, WireError> {
        let mut dut = Dut { name, routers: Vec::new(), exec: None, threads: Vec::new() };
        match name {
            DutName::Kernel => kernel(net, setup)?,
            DutName::KernelThreaded => {
                kernel(net, setup)?;
                dut.threads = threaded(net, &setup.cpus.dut)?;
            }
            DutName::Packet | DutName::PacketOffload | DutName::Xdp | DutName::Tun => {
                for (role, host) in setup.path.roles().iter().zip(["dut", "dut2"]) {
                    dut.routers.push(duet(name, net.host(host)?, *role, setup)?);
                }
                if name == DutName::Tun {
                    hand_over(net)?;
                }
            }
            DutName::Exec => dut.exec = Some(command(net.host("dut")?, setup)?),
            DutName::Devices => {}
        }
        Ok(dut)
    }

    /// Starts it again, as after a crash: processes are killed; the kernel's devices go down and up. Ends when it has all
    /// its routes back.
    pub fn restart(&mut self, net: &Net, setup: &Setup) -> Result<(), WireError> {
        for mut router in std::mem::take(&mut self.routers) {
            router.process().kill().map_err(WireError::system("kill the router"))?;
        }
        self.end_command().map_err(WireError::system("kill the command"))?;
        if self.name.is_kernel() {
            let before = napi::threads("left", Duration::ZERO);
            for dev in ["left", "right"] {
                net.set_up("dut", dev, false)?;
                net.set_up("dut", dev, true)?;
            }
            net.wait_ready(APPEAR)?;
            if self.name == DutName::KernelThreaded {
                // The device remembers that it is threaded; its threads are new ones.
                self.threads = new_threads(&before, &setup.cpus.dut)?;
            }
            return kernel(net, setup);
        }
        *self = Dut::start(self.name, net, setup)?;
        Ok(())
    }

    /// How long it may take until it forwards.
    pub fn patience(&mut self) -> Duration {
        let running = self.exec.as_mut().is_some_and(|p| matches!(p.try_wait(), Ok(None)));
        Duration::from_secs(if running { 60 } else { 10 })
    }

    /// The first of its processes, if it is Duet.
    pub fn first(&self) -> Option<&Instance> {
        self.routers.first()
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        self.routers.iter().map(Instance::log).collect::<Vec<_>>().join("\n").trim().to_owned()
    }

    /// Lets its processes run, or stops them.
    pub fn active(&mut self, on: bool) {
        let signal = if on { Signal::CONT } else { Signal::STOP };
        for router in &mut self.routers {
            let _ = router.process().signal(signal);
        }
        if let Some(exec) = &self.exec {
            signal_all(exec, signal);
        }
    }

    /// Ends the user's command, and what its shell has started.
    fn end_command(&mut self) -> std::io::Result<()> {
        let Some(mut exec) = self.exec.take() else { return Ok(()) };
        signal_all(&exec, Signal::KILL);
        exec.kill().map(drop)
    }
}

impl Drop for Dut {
    fn drop(&mut self) {
        let _ = self.end_command();
    }
}

/// To the command's shell, to what is in its process group, also when the shell has ended, and to its descendants.
fn signal_all(root: &Process, signal: Signal) {
    if let Some(group) = i32::try_from(root.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, signal);
    }
    for pid in noise::family(root.id()) {
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

fn gateway(path: PathName, role: Role, hop: u8) -> Option<IpAddr> {
    path.next_hop(role, hop).rsplit(' ').next().and_then(|a| a.parse().ok())
}

/// The kernel of host `dut` with the path's addresses and routes.
fn kernel(net: &Net, setup: &Setup) -> Result<(), WireError> {
    let path = setup.path;
    net.kernel_router("dut")?;
    let host = net.host("dut")?;
    // The error path is measured, not its limit.
    for setting in ["net.ipv4.icmp_msgs_per_sec", "net.ipv4.icmp_msgs_burst"] {
        host.set_sysctl(setting, "2147483647")?;
    }
    let plan = path.router(Role::First);
    for (dev, addr) in plan.addrs {
        match net.addr("dut", dev, &addr) {
            // IPv4 addresses survive a device that goes down and up.
            Err(router_io::lab::LabError::Netlink { source, .. }) if source.is_exists() => {}
            other => other?,
        }
    }
    net.wait_ready(Duration::from_secs(5))?;
    for route in plan.extra {
        net.route("dut", &route)?;
    }
    let routes: Vec<KernelRoute> = setup
        .table
        .iter()
        .filter_map(|(prefix, hop)| Some(KernelRoute::via(*prefix, gateway(path, Role::First, *hop)?)))
        .collect();
    host.netlink()
        .add_routes(&routes)
        .map_err(|source| WireError::Lab(router_io::lab::LabError::Netlink { host: host.name().to_owned(), source }))
}

/// Moves the receive processing of `left` to a kernel thread on the device's processors.
fn threaded(net: &Net, cpus: &[usize]) -> Result<Vec<u32>, WireError> {
    let host = net.host("dut")?;
    // Else the frames of the test go past NAPI.
    net.host("gen")?.run(|| napi::set_tso("eth0", false)).map_err(WireError::system("switch TSO of eth0 off"))?;
    let before = napi::threads("left", Duration::ZERO);
    host.run(|| napi::set_gro("left", true)).map_err(WireError::system("switch GRO of left on"))?;
    host.run(|| napi::set_threaded("left")).map_err(WireError::system("set threaded NAPI of left"))?;
    new_threads(&before, cpus)
}

/// Waits for kernel threads that receive for `left` and were not there before, and puts them on these processors.
fn new_threads(before: &[u32], cpus: &[usize]) -> Result<Vec<u32>, WireError> {
    let deadline = std::time::Instant::now() + APPEAR;
    let new = loop {
        let new: Vec<u32> = napi::threads("left", Duration::ZERO).into_iter().filter(|t| !before.contains(t)).collect();
        if !new.is_empty() || std::time::Instant::now() > deadline {
            break new;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    if new.is_empty() {
        let e = std::io::Error::other("no kernel thread appeared");
        return Err(WireError::System { what: "threaded NAPI of left".to_owned(), source: e });
    }
    napi::pin(&new, cpus).map_err(WireError::system("choose the processor of a kernel thread"))?;
    Ok(new)
}

/// Moves the TUN devices that Duet has made to the hosts at the two ends.
fn hand_over(net: &Net) -> Result<(), WireError> {
    let failed = |host: &Host, source| {
        WireError::Lab(router_io::lab::LabError::Netlink { host: host.name().to_owned(), source })
    };
    let dut = net.host("dut")?;
    for (dev, to) in [("left", "gen"), ("right", "sink")] {
        let host = net.host(to)?;
        let mut netlink = dut.netlink();
        let index = netlink.link_index(dev).map_err(|e| failed(dut, e))?;
        netlink.move_link(index, host.netns_fd()).map_err(|e| failed(dut, e))?;
        net.set_up(to, dev, true)?;
    }
    topology::end_addresses(net, ["left", "right"])
}

/// A Duet process with the path's configuration and routes.
fn duet(name: DutName, host: &Arc<Host>, role: Role, setup: &Setup) -> Result<Instance, WireError> {
    let dir = sandbox::private_dir().map_err(WireError::system("make a directory"))?;
    // Several labs exist at once.
    let dir = dir.join(format!("{}-{}", name.name(), setup.path.name()));
    std::fs::create_dir_all(&dir).map_err(WireError::system("make a directory"))?;
    let config = topology::duet_config(setup.path, role, name, setup.workers);
    let instance = Instance::start(&this_program(), host, &dir, &config)?;
    if role == Role::First || setup.path == PathName::Dual {
        load(&instance, setup.path, role, &setup.table)?;
    }
    pin_process(instance.pid(), &setup.cpus.dut, "worker").map_err(WireError::system("choose Duet's processors"))?;
    Ok(instance)
}

/// Gives a router the routes of the table, as an operator would give it a file.
fn load(instance: &Instance, path: PathName, role: Role, table: &Table) -> Result<(), WireError> {
    let mut lines = String::with_capacity(table.len() * 48);
    for (prefix, hop) in table {
        let _ = writeln!(lines, "route add {prefix} {}", path.next_hop(role, *hop));
    }
    let outcome = instance.ask(&["-batch", "-"], lines.as_bytes())?;
    if outcome.code == 0 {
        return Ok(());
    }
    Err(WireError::Router(crate::demo::instance::InstanceError::Refused {
        name: instance.name().to_owned(),
        words: "-batch -".to_owned(),
        code: outcome.code,
        text: outcome.stderr.trim_end().to_owned(),
    }))
}

/// The user's command.
fn command(host: &Arc<Host>, setup: &Setup) -> Result<Process, WireError> {
    let mut c = Command::new("sh");
    c.arg("-c").arg(setup.exec.as_deref().unwrap_or("true"));
    let cpus: Vec<String> = setup.cpus.dut.iter().map(usize::to_string).collect();
    c.env("DUT_LEFT", "left").env("DUT_RIGHT", "right").env("DUT_PATH", setup.path.name());
    c.env("DUT_CPUS", cpus.join(",")).env("DUT_LEFT_ADDRESS", LEFT4.to_string()).env("DUT_GENERATOR", GEN4.to_string());
    c.env("DUT_SINK", topology::sink4(0).to_string());
    c.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    Ok(host.spawn(c)?)
}
