//! What the router has to know of the tunnels: a tunnel port for each that has an endpoint, routes of its prefixes to it,
//! and an "unreachable" route of each whole pool, so that nothing of it ever leaves by the default route.
//!
//! A changed endpoint is make before break: a second tunnel port to the new endpoint is made, the routes move to it in
//! the same turn of the router's control thread, and the old port is still heard for a while.

use super::model::{Mode, Tunnel};
use crate::config::BrokerPlan;
use crate::control::{AddrSpec, Answer, Backend, Op, TunnelChange, TunnelInfo, WireError};
use crate::grammar::{Command, TunnelCommand, parse_command, parse_route_line};
use ipnet::IpNet;
use router_core::counters::PortTotals;
use router_core::spec::TunnelSpec;
use router_core::tunnel::Path;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Metric of the "unreachable" routes: behind everything else.
const LAST: &str = "4294967295";

/// The tunnel ports of one tunnel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Line {
    /// The one that is used, its other end, and how packets travel.
    current: Option<(String, (IpAddr, u16), Mode)>,
    /// The one before, and until when it is heard.
    old: Option<(String, Instant)>,
}

/// See the module.
pub struct Plumb {
    router: Arc<dyn Backend>,
    plan: BrokerPlan,
    lines: Mutex<BTreeMap<u32, Line>>,
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// The operation behind words of the command line.
fn route(verb: fn(Box<router_core::spec::RouteSpec>) -> Op, line: &str) -> Result<Op, WireError> {
    let spec = parse_route_line(&words(line), None).map_err(|e| WireError::new("invalid", e.line, ""))?;
    Ok(verb(Box::new(spec)))
}

/// A tunnel as `tunnel add` would make it.
pub fn tunnel_spec(line: &str) -> Result<TunnelSpec, WireError> {
    match parse_command(&words(line), None) {
        Ok(Command::Tunnel(TunnelCommand::Add(spec))) => Ok(*spec),
        Ok(_) => Err(WireError::new("invalid", format!("not a tunnel: {line}"), "")),
        Err(e) => Err(WireError::new("invalid", e.line, e.hint.unwrap_or_default())),
    }
}

/// Several operations in one turn of the control thread; the first refusal is told.
pub fn all(router: &dyn Backend, ops: Vec<Op>) -> Result<(), WireError> {
    match router.call(Op::Batch { ops, force: false, chain: false })? {
        Answer::Batch(result) => match result.failed.into_iter().next() {
            Some(f) => Err(f.error),
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

impl Plumb {
    /// A router without any of the tunnels.
    pub fn new(router: Arc<dyn Backend>, plan: BrokerPlan) -> Self {
        Plumb { router, plan, lines: Mutex::default() }
    }

    /// Modes that this router and this configuration can do.
    pub fn modes(&self) -> Vec<Mode> {
        let mut modes = Vec::new();
        if self.plan.endpoint.is_some() {
            modes.push(Mode::SixInFour);
        }
        if self.plan.endpoint.is_some() && self.plan.udp_port.is_some() {
            modes.push(Mode::SixInUdp);
        }
        if self.plan.endpoint6.is_some() && self.plan.links4.is_some() {
            modes.push(Mode::FourInSix);
        }
        modes
    }

    /// The UDP port of the server's to which the client of a tunnel may send.
    pub fn server_port(&self, mode: Mode) -> Option<u16> {
        self.plan.udp_port.filter(|_| self.asks(mode))
    }

    /// Whether the client is asked whether it is there.
    fn asks(&self, mode: Mode) -> bool {
        mode == Mode::SixInUdp || mode == Mode::SixInFour && self.plan.encap_auto
    }

    /// The server's end.
    pub fn server(&self, mode: Mode) -> Option<IpAddr> {
        match mode {
            Mode::SixInFour | Mode::SixInUdp => self.plan.endpoint.map(IpAddr::V4),
            Mode::FourInSix => self.plan.endpoint6.map(IpAddr::V6),
        }
    }

    /// All of what is handed out.
    fn pools(&self) -> impl Iterator<Item = IpNet> + '_ {
        let links = std::iter::once(IpNet::V6(self.plan.links)).chain(self.plan.links4.map(IpNet::V4));
        links.chain(self.plan.prefixes.iter().chain(&self.plan.subnets).copied())
    }

    /// The "unreachable" routes.
    pub fn start(&self) -> Result<(), WireError> {
        let ops = self
            .pools()
            .map(|net| route(Op::RouteReplace, &format!("unreachable {net} metric {LAST}")))
            .collect::<Result<_, _>>()?;
        all(&*self.router, ops)
    }

    /// Takes the "unreachable" routes and everything else back.
    pub fn stop(&self) {
        let ids: Vec<u32> = self.lines().keys().copied().collect();
        for id in ids {
            self.forget(id);
        }
        for net in self.pools() {
            if let Ok(op) = route(Op::RouteDelete, &format!("unreachable {net} metric {LAST}")) {
                let _ = self.router.call(op);
            }
        }
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the router do what the tunnel says.
    pub fn set(&self, t: &Tunnel) -> Result<(), WireError> {
        let mut lines = self.lines();
        let line = lines.entry(t.id).or_default();
        let Some(endpoint) = t.endpoint else {
            drop(lines);
            self.forget(t.id);
            return Ok(());
        };
        let end = (endpoint, t.port.unwrap_or(0));
        if line.current.as_ref().is_some_and(|(_, at, mode)| *at == end && *mode == t.mode) {
            return Ok(());
        }
        // Another port of the same address: the line stays, and is told where to go.
        if let Some((name, (addr, _), Mode::SixInUdp)) = line.current.clone()
            && addr == endpoint
            && t.mode == Mode::SixInUdp
        {
            let spec = tunnel_spec(&self.line(t, &name, end)?)?;
            let options = Box::new(spec.options);
            self.router.call(Op::TunnelChange(Box::new(TunnelChange {
                name: name.clone(),
                options,
                ..TunnelChange::default()
            })))?;
            line.current = Some((name, end, t.mode));
            return Ok(());
        }
        let names = [format!("tb{}", t.id), format!("tb{}b", t.id)];
        let name = match &line.current {
            Some((used, ..)) if *used == names[0] => names[1].clone(),
            _ => names[0].clone(),
        };
        let spec = tunnel_spec(&self.line(t, &name, end)?)?;
        let mut ops = Vec::new();
        // Two changes in quick succession: the port before the last one is still there.
        if let Some((old, _)) = line.old.take() {
            ops.push(Op::TunnelDelete(old));
        }
        ops.push(Op::TunnelAdd(Box::new(spec)));
        let own = IpNet::from(t.server_inner());
        // A client in UDP is asked whether it is there, from the tunnel's own address.
        let dev = if self.asks(t.mode) { name.clone() } else { "lo".into() };
        ops.push(Op::AddrReplace(AddrSpec { dev, addr: own }));
        for net in t.sources() {
            ops.push(route(Op::RouteReplace, &format!("{net} dev {name}"))?);
        }
        let result = all(&*self.router, ops);
        if let Err(e) = result {
            // What was done of it before the refusal.
            let _ = self.router.call(Op::TunnelDelete(name));
            return Err(e);
        }
        line.old = line.current.take().map(|(old, ..)| (old, Instant::now() + self.plan.overlap));
        line.current = Some((name, end, t.mode));
        Ok(())
    }

    /// The command that makes a tunnel.
    fn line(&self, t: &Tunnel, name: &str, (endpoint, port): (IpAddr, u16)) -> Result<String, WireError> {
        let Some(local) = self.server(t.mode) else {
            return Err(WireError::new("invalid", format!("no endpoint for {} tunnels", t.mode.name()), ""));
        };
        let mut text = format!("tunnel add {name} remote {endpoint} local {local}");
        match (t.mode, self.plan.udp_port) {
            (Mode::SixInUdp, Some(own)) => {
                // RFC 5572: the IPv6 packet follows the UDP header at once. The client's port is the one from which it
                // answers: a NAT may give it another one.
                let ms = self.plan.udp_keepalive.as_millis();
                text += &format!(" mode 6in4 encap fou encap-port {own} encap-sport {own} encap-rport learn");
                text += &format!(" keepalive {} interval {ms}", t.client_inner());
                if port != 0 {
                    text += &format!(" encap-dport {port}");
                }
            }
            (Mode::SixInFour, Some(own)) if self.plan.encap_auto => {
                let ms = self.plan.udp_keepalive.as_millis();
                text += &format!(" mode 6in4 encap auto encap-port {own} encap-sport {own} encap-rport learn");
                text += &format!(" keepalive {} interval {ms}", t.client_inner());
                if let Some(dev) = &self.plan.udp_dev {
                    text += &format!(" encap-dev {dev}");
                }
            }
            (mode, _) => text += &format!(" mode {}", mode.name()),
        }
        let udp_dev = self.plan.udp_dev.as_ref().filter(|_| t.mode == Mode::SixInUdp);
        if let Some(dev) = udp_dev.or(self.plan.dev.as_ref()) {
            text += &format!(" dev {dev}");
        }
        // Nothing comes out of it but what was delegated (RFC 4213 3.6, BCP 38).
        for net in t.sources() {
            text += &format!(" allowed {net}");
        }
        Ok(text)
    }

    /// Tunnels in UDP whose client has moved to another port since: what the data plane has found.
    pub fn moved_ports(&self) -> Vec<(u32, u16)> {
        let list = match self.router.call(Op::TunnelShow(None)) {
            Ok(Answer::Tunnels(list)) => list,
            _ => return Vec::new(),
        };
        let now: BTreeMap<&str, u16> = list
            .iter()
            .filter(|t| t.tunnel.options.auto.is_none())
            .filter_map(|t| match t.path.as_ref()?.path? {
                Path::Udp(port) => Some((t.tunnel.name.as_str(), port)),
                Path::Bare => None,
            })
            .collect();
        let mut moved = Vec::new();
        for (id, line) in self.lines().iter_mut() {
            if let Some((name, (_, port), _)) = &mut line.current
                && let Some(is) = now.get(name.as_str()).filter(|is| *is != port)
            {
                *port = *is;
                moved.push((*id, *is));
            }
        }
        moved
    }

    /// Takes a tunnel out of the router.
    pub fn forget(&self, id: u32) {
        let Some(line) = self.lines().remove(&id) else { return };
        for name in line.current.map(|(n, ..)| n).into_iter().chain(line.old.map(|(n, _)| n)) {
            if let Err(e) = self.router.call(Op::TunnelDelete(name)) {
                tracing::warn!(tunnel = id, "cannot remove a tunnel: {}", e.line);
            }
        }
    }

    /// Takes a tunnel's server address away, after [`Plumb::forget`].
    pub fn forget_address(&self, server: IpAddr) {
        let _ = self.router.call(Op::AddrDelete(AddrSpec { dev: "lo".into(), addr: IpNet::from(server) }));
    }

    /// Removes old ports whose time has come.
    pub fn tidy(&self, now: Instant) {
        for (id, line) in self.lines().iter_mut() {
            if let Some((name, _)) = line.old.take_if(|(_, until)| *until <= now)
                && let Err(e) = self.router.call(Op::TunnelDelete(name))
            {
                tracing::warn!(tunnel = id, "cannot remove the old end of a tunnel: {}", e.line);
            }
        }
    }

    /// The port that carries a tunnel now.
    pub fn dev(&self, id: u32) -> Option<String> {
        self.lines().get(&id)?.current.as_ref().map(|(name, ..)| name.clone())
    }

    /// The counters of a tunnel's port.
    pub fn totals(&self, id: u32) -> PortTotals {
        let Some(dev) = self.dev(id) else { return PortTotals::default() };
        match self.router.call(Op::TunnelShow(Some(dev))) {
            Ok(Answer::Tunnels(list)) => list.first().map(|t: &TunnelInfo| t.totals).unwrap_or_default(),
            _ => PortTotals::default(),
        }
    }

    /// The counters of every tunnel that is up, in one question.
    pub fn all_totals(&self) -> BTreeMap<u32, PortTotals> {
        let by_name: BTreeMap<String, u32> =
            self.lines().iter().filter_map(|(id, l)| Some((l.current.as_ref()?.0.clone(), *id))).collect();
        match self.router.call(Op::TunnelShow(None)) {
            Ok(Answer::Tunnels(list)) => {
                let known = list.iter().filter_map(|t| Some((*by_name.get(&t.tunnel.name)?, t.totals)));
                known.collect()
            }
            _ => BTreeMap::new(),
        }
    }
}
