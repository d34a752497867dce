//! A router made from a configuration alone: all its tables, none of its devices. Behind a socket of its own, so that every
//! command works on it as on a running one.

use crate::backend::RouterBackend;
use crate::config::{Change, LinkLocal, Plan, PortPlan, Target, apply, diff};
use crate::control::{Access, Limits, Op, Server, WireError};
use crate::grammar::{Failure, exit};
use ipnet::IpNet;
use router_core::port::{Medium, PortCaps, PortId, PortInfo, PortKind};
use router_io::runtime::{RouterHandle, Runtime, RuntimeConfig};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// MTU of a port whose device would say it.
const MTU: u32 = 1500;

/// See the module. Ends when dropped, and takes its socket with it.
pub(crate) struct Offline {
    // In this order: nobody may ask a router that is gone.
    _server: Server,
    runtime: Runtime,
    dir: PrivateDir,
    /// The router's name.
    pub name: String,
}

impl Offline {
    /// Builds the router that `plan` describes.
    pub fn start(plan: &Plan) -> Result<Offline, Failure> {
        Self::build(plan, false)
    }

    /// The same, with link-layer addresses made up: packets through it have complete link headers.
    pub fn with_stations(plan: &Plan) -> Result<Offline, Failure> {
        Self::build(plan, true)
    }

    fn build(plan: &Plan, stations: bool) -> Result<Offline, Failure> {
        let failed = |e: std::io::Error| Failure::new(exit::REFUSED, format!("Cannot make a router in memory: {e}"));
        let config = RuntimeConfig {
            workers: 1,
            max_ports: router_core::port::MAX_QUEUES as usize,
            settings: plan.settings.clone(),
            // Flow hashes are the same each time: questions can be repeated.
            seed: Some(1),
        };
        let runtime = Runtime::start(config).map_err(failed)?;
        let backend = Arc::new(RouterBackend::new(runtime.handle(), &plan.router.name));
        let fresh = Plan { settings: plan.settings.clone(), ..Plan::default() };
        apply(&WithoutDevices { backend: &backend, stations }, &diff(&fresh, plan))?;
        let dir = PrivateDir::new().map_err(failed)?;
        let access = Access { mode: 0o600, ..Access::default() };
        let limits = Limits { idle: std::time::Duration::from_secs(3600), ..Limits::default() };
        let server = Server::start(&dir.socket(), &access, limits, backend)
            .map_err(|e| Failure::new(exit::REFUSED, e.to_string()))?;
        Ok(Offline { _server: server, runtime, dir, name: plan.router.name.clone() })
    }

    /// The directory that its socket is in.
    pub fn dir(&self) -> PathBuf {
        self.dir.0.clone()
    }

    /// To ask whether the router in memory still is there: it is not after a bug.
    pub fn handle(&self) -> RouterHandle {
        self.runtime.handle()
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.socket()
    }
}

/// A directory that only this user can look into.
struct PrivateDir(PathBuf);

impl PrivateDir {
    fn new() -> std::io::Result<PrivateDir> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let base = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|p| p.is_dir())
            .unwrap_or_else(std::env::temp_dir);
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = base.join(format!("duet-offline-{}-{n}", std::process::id()));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(PrivateDir(path)),
                // Left by a process that was killed and had the same number.
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && n < 1000 => {}
                Err(e) => return Err(e),
            }
        }
    }

    fn socket(&self) -> PathBuf {
        self.0.join("offline.sock")
    }
}

impl Drop for PrivateDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.socket());
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Ports are entered into the tables; no device is opened.
struct WithoutDevices<'b> {
    backend: &'b RouterBackend,
    stations: bool,
}

impl Target for WithoutDevices<'_> {
    fn change(&self, wanted: Change) -> Result<(), WireError> {
        match wanted {
            Change::PortAdd(plan) if plan.kind != PortKind::Loopback => {
                self.backend.add_port_without_device(port_info(&plan), self.stations)
            }
            other => self.backend.change(other),
        }
    }

    fn changes(&self, ops: Vec<Op>) -> Result<(), (usize, WireError)> {
        self.backend.changes(ops)
    }
}

fn port_info(plan: &PortPlan) -> PortInfo {
    let mut addrs = plan.address.clone();
    if let LinkLocal::Address(a) = plan.link_local {
        addrs.extend(IpNet::new(a.into(), 64));
    }
    if let (PortKind::RawIp | PortKind::Udp, Some(local)) = (plan.kind, plan.local) {
        addrs.push(IpNet::from(local));
    }
    let medium = match plan.kind {
        PortKind::Tun
        | PortKind::RawIp
        | PortKind::Udp
        | PortKind::Wireguard
        | PortKind::Tunnel
        | PortKind::Translator
        | PortKind::Loopback => Medium::Ip,
        _ => Medium::Ethernet,
    };
    PortInfo {
        id: PortId::NONE,
        name: plan.name.clone(),
        ifindex: 0,
        kind: plan.kind,
        medium,
        mac: plan.mac,
        mtu: plan.mtu.unwrap_or(MTU),
        vlan: plan.vlan,
        table: plan.table,
        up: plan.up,
        admin_up: plan.up,
        caps: PortCaps::default(),
        addrs,
    }
}

/// Reads a configuration for a router without devices.
pub(crate) fn load(file: &Path) -> Result<Plan, Failure> {
    crate::run::load(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::complaint::Place;
    use crate::control::{Answer, Body, Client, ClientError, MonitorSelect};
    use std::time::{Duration, Instant};

    /// Whoever waits for a router whose control thread is gone is told so; nobody waits for ever.
    #[test]
    fn a_router_that_broke_ends_every_conversation() {
        let toml = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/inspect.toml");
        let router = Offline::start(&load(Path::new(toml)).unwrap()).unwrap();
        let connect = || Client::connect(&router.socket()).unwrap().patience(Duration::from_secs(30));
        let mut idle = connect();
        assert!(matches!(idle.call(Op::Stats), Ok(Answer::Stats(_))));
        let mut listening = connect();
        listening.send(Op::Monitor(MonitorSelect::default())).unwrap();
        assert!(matches!(listening.receive(), Ok(Body::Page(_))));
        let mut shell = crate::shell::Shell::new(router.socket(), false, Some("diamond".into()));
        shell.alive = Some(router.handle());
        let line = |shell: &mut crate::shell::Shell| shell.line("route | count", Place::Read { number: 1 });
        assert_eq!((line(&mut shell), shell.leave), (0, false));
        let began = Instant::now();
        let broken = router.runtime.handle().call(|_| panic!("provoked by a test"));
        assert!(broken.is_err());
        let gone = |e: &ClientError| match e {
            ClientError::Refused(e) => e.line == "The router has stopped.",
            ClientError::Broken(_) => true,
            _ => false,
        };
        // The shell says so, and ends.
        assert_eq!((shell.line("route", Place::Read { number: 2 }), shell.leave), (exit::REFUSED, true));
        let e = idle.call(Op::Stats).unwrap_err();
        assert!(gone(&e), "{e:?}");
        let end = loop {
            match listening.receive() {
                Ok(Body::Page(_)) => {}
                end => break end,
            }
        };
        assert!(matches!(&end, Ok(Body::Ok(_))) || end.as_ref().is_err_and(gone), "{end:?}");
        match Client::connect(&router.socket()).and_then(|mut c| c.call(Op::Stats)) {
            Err(ClientError::Connect { .. }) => {}
            Err(e) => assert!(gone(&e), "{e:?}"),
            Ok(a) => panic!("{a:?}"),
        }
        assert!(!router.handle().is_alive());
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
}
