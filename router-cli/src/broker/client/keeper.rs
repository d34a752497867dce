//! The thread that keeps tunnels from brokers elsewhere: it looks every two seconds whether this end has moved, and asks
//! the broker once a minute in any case, which also tells when only the outside of a NAT has moved.

use super::http::{Answer as HttpAnswer, Url, request};
use crate::broker::http::{Given, Wish};
use crate::broker::plumb::{all, tunnel_spec};
use crate::config::JoinPlan;
use crate::control::{
    AddrSpec, Answer, Backend, BrokerAnswer, BrokerOp, JoinInfo, JoinSpec, LeaseInfo, LinkSelect, Op, TunnelChange,
    WireError,
};
use crate::grammar::parse_route_line;
use ipnet::IpNet;
use router_core::port::PortKind;
use std::net::{IpAddr, Ipv6Addr, ToSocketAddrs, UdpSocket};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often our own address is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How often the broker is asked.
const ASK: Duration = Duration::from_secs(60);
/// How long to wait after a failure: doubled up to the longest.
const AGAIN: Duration = Duration::from_secs(4);
const LONGEST: Duration = Duration::from_secs(120);
/// Tunnels from brokers.
const MOST: usize = 16;

/// One tunnel.
struct Joined {
    spec: JoinSpec,
    url: Url,
    lease: Option<LeaseInfo>,
    /// Our outer address, as the tunnel has it.
    local: Option<IpAddr>,
    /// The address that the host would use now.
    seen: Option<IpAddr>,
    due: Instant,
    wait: Duration,
    updates: u64,
    problem: Option<String>,
}

/// See the module.
pub(crate) struct Keeper {
    router: Arc<dyn Backend>,
    list: Mutex<Vec<Joined>>,
    /// Closed to end the thread.
    end: Mutex<Option<Sender<()>>>,
}

/// Milliseconds between two questions to the server through the tunnel: NATs forget bindings of UDP and of what they do not
/// know after 30 seconds at the earliest (RFC 4787 4.3 has two minutes).
const KEEPALIVE: u32 = 10_000;
/// The same where it tells whether the path lets protocol 41 through.
const KEEPALIVE_AUTO: u32 = 3_000;

impl Keeper {
    /// Starts the thread, with the tunnels of the configuration.
    pub fn start(router: Arc<dyn Backend>, plans: Vec<(String, JoinPlan)>) -> std::io::Result<Arc<Keeper>> {
        let (end, ended) = mpsc::channel();
        let keeper = Arc::new(Keeper { router, list: Mutex::default(), end: Mutex::new(Some(end)) });
        let mine = Arc::clone(&keeper);
        std::thread::Builder::new().name("duet-join".into()).spawn(move || {
            for (name, plan) in plans {
                if let Err(e) = mine.configured(&name, plan) {
                    tracing::error!(tunnel = name, "not joined: {}", e.line);
                }
            }
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK) {
                mine.look();
            }
        })?;
        Ok(keeper)
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Joined>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn configured(&self, name: &str, plan: JoinPlan) -> Result<(), WireError> {
        let file = plan.key_file.display().to_string();
        let key = std::fs::read_to_string(&plan.key_file);
        let key = key.map_err(|e| WireError::new("invalid", format!("{file}: {e}"), ""))?;
        let spec = JoinSpec {
            name: name.to_owned(),
            url: plan.url,
            user: plan.user,
            key: key.trim().to_owned(),
            prefix: plan.prefix,
            dev: plan.dev,
            lan: plan.lan,
            no_default: plan.no_default,
            local: plan.local,
        };
        // The broker may not be reachable yet: the thread goes on asking.
        let joined = self.prepare(spec)?;
        self.list().push(joined);
        self.look();
        Ok(())
    }

    /// Answers a request of the operator.
    pub fn answer(&self, op: BrokerOp) -> Result<BrokerAnswer, WireError> {
        match op {
            BrokerOp::Join(spec) => {
                let mut joined = self.prepare(*spec)?;
                self.ask(&mut joined)?;
                let info = joined.info();
                self.list().push(joined);
                Ok(BrokerAnswer::Joined(vec![info]))
            }
            BrokerOp::Leave(name) => {
                let mut list = self.list();
                let at = list.iter().position(|j| j.spec.name == name);
                let at = at.ok_or_else(|| {
                    WireError::not_found(format!(
                        "\"{name}\" is no tunnel from a broker; \"duet broker joined\" lists them"
                    ))
                })?;
                let joined = list.remove(at);
                drop(list);
                self.take_down(&joined);
                let path = format!("/api/v1/tunnels/{}", joined.spec.name);
                let gone = request(&joined.url, "DELETE", &path, &joined.spec.user, &joined.spec.key, b"");
                match gone {
                    Ok(a) if a.status == 204 || a.status == 404 => Ok(BrokerAnswer::Done),
                    Ok(a) => Err(refused(&a)),
                    Err(e) => Err(WireError::new(
                        "failed",
                        format!("The tunnel is gone here, but the broker does not know: {e}"),
                        "it ends there by itself when its lease does",
                    )),
                }
            }
            _ => Ok(BrokerAnswer::Joined(self.list().iter().map(Joined::info).collect())),
        }
    }

    fn prepare(&self, mut spec: JoinSpec) -> Result<Joined, WireError> {
        let url = Url::parse(&spec.url).map_err(|e| WireError::new("invalid", e.to_string(), ""))?;
        let list = self.list();
        if list.len() >= MOST {
            return Err(WireError::new("invalid", format!("{MOST} tunnels from brokers are enough"), ""));
        }
        if list.iter().any(|j| j.spec.name == spec.name) {
            return Err(WireError::exists(format!("there is a tunnel \"{}\" from a broker already", spec.name)));
        }
        drop(list);
        let Answer::Links(links) = self.router.call(Op::LinkShow(LinkSelect::default()))? else {
            return Err(WireError::new("failed", "no answer about ports", ""));
        };
        if links.iter().any(|l| l.name == spec.name) {
            return Err(WireError::exists(format!("there is a port or tunnel \"{}\" already", spec.name)));
        }
        for dev in [&spec.dev, &spec.lan].into_iter().flatten() {
            if !links.iter().any(|l| l.name == *dev) {
                return Err(WireError::no_device(dev));
            }
        }
        // The host's own stack is what this thread talks through: so the tunnel goes that way, too.
        if spec.dev.is_none() {
            spec.dev = links.iter().find(|l| l.kind == PortKind::RawIp).map(|l| l.name.clone());
        }
        Ok(Joined {
            spec,
            url,
            lease: None,
            local: None,
            seen: None,
            due: Instant::now(),
            wait: AGAIN,
            updates: 0,
            problem: None,
        })
    }

    /// Each tunnel: is it still wanted, has this end moved, is it time to ask?
    fn look(&self) {
        // Taken out meanwhile: the operator's questions do not wait for the network.
        let mut list = std::mem::take(&mut *self.list());
        let here = match self.router.call(Op::TunnelShow(None)) {
            Ok(Answer::Tunnels(all)) => all,
            _ => return self.list().append(&mut list),
        };
        list.retain(|j| {
            let removed = j.lease.is_some() && !here.iter().any(|t| t.tunnel.name == j.spec.name);
            if removed {
                tracing::info!(tunnel = j.spec.name, "removed here: the broker is not told of this end any more");
            }
            !removed
        });
        for j in &mut list {
            let now_seen = own_address(&j.spec, j.lease.as_ref());
            let moved = now_seen.is_some() && now_seen != j.seen;
            if !moved && Instant::now() < j.due {
                continue;
            }
            j.seen = now_seen;
            match self.ask(j) {
                Ok(()) => (j.problem, j.wait, j.due) = (None, AGAIN, Instant::now() + ASK),
                Err(e) => {
                    if j.problem.as_ref() != Some(&e.line) {
                        tracing::warn!(tunnel = j.spec.name, broker = j.spec.url, "{}", e.line);
                    }
                    j.problem = Some(e.line);
                    j.due = Instant::now() + j.wait;
                    j.wait = (j.wait * 2).min(LONGEST);
                }
            }
        }
        let mut now = self.list();
        list.append(&mut now);
        *now = list;
    }

    /// Asks the broker, and does what it says.
    fn ask(&self, j: &mut Joined) -> Result<(), WireError> {
        let wish = Wish { mode: Some("6in4".into()), prefix: j.spec.prefix, endpoint: None };
        let body = serde_json::to_vec(&wish).map_err(|e| WireError::new("failed", e.to_string(), ""))?;
        let path = format!("/api/v1/tunnels/{}", j.spec.name);
        let answer = request(&j.url, "PUT", &path, &j.spec.user, &j.spec.key, &body).map_err(|e| {
            WireError::new("failed", format!("Broker: {e}"), "is the address right, does this host have a way there?")
        })?;
        if answer.status != 200 {
            return Err(refused(&answer));
        }
        let given: Given = serde_json::from_slice(&answer.body)
            .map_err(|e| WireError::new("failed", format!("Broker: not understood: {e}"), ""))?;
        let local = j.spec.local.unwrap_or(answer.local).to_canonical();
        self.set_up(j, given.tunnel, local)?;
        if given.moved {
            j.updates += 1;
            tracing::info!(tunnel = j.spec.name, seen_from = %given.seen_from, "the broker knows this end");
        }
        j.seen = own_address(&j.spec, j.lease.as_ref()).or(j.seen);
        j.due = Instant::now() + ASK;
        Ok(())
    }

    /// Makes the tunnel here what the broker says.
    fn set_up(&self, j: &mut Joined, lease: LeaseInfo, local: IpAddr) -> Result<(), WireError> {
        let name = &j.spec.name;
        let same = j.lease.as_ref().is_some_and(|old| {
            (old.id, old.server, &old.client_inner, &old.prefixes)
                == (lease.id, lease.server, &lease.client_inner, &lease.prefixes)
        });
        match (&j.lease, same) {
            (Some(_), true) if j.local == Some(local) => {}
            (Some(_), true) => {
                let change = TunnelChange { name: name.clone(), local: Some(local), ..TunnelChange::default() };
                self.router.call(Op::TunnelChange(Box::new(change)))?;
                tracing::info!(tunnel = name, %local, "this end has moved");
            }
            (before, _) => {
                // Another tunnel than before: the broker has forgotten the old one.
                if before.is_some() {
                    self.take_down(j);
                }
                let mut text = format!("tunnel add {name} mode {} remote {} local {local}", lease.mode, lease.server);
                if let Some(dev) = &j.spec.dev {
                    text += &format!(" dev {dev}");
                }
                // The path decides, if the broker is ready for both, and this router has a way for UDP.
                let mut interval = KEEPALIVE;
                if let (Some(port), "6in4") = (lease.server_port, lease.mode.as_str())
                    && let Some(way) = self.way_for_udp(j)
                {
                    text += &format!(" encap auto encap-dport {port} encap-port {port} encap-sport {port}{way}");
                    interval = KEEPALIVE_AUTO;
                }
                // The first question opens the way in through a NAT, the others keep it open; without answers the routes
                // give way to others.
                text += &format!(" keepalive {} interval {interval} retries 3 hold 1", lease.server_inner.addr());
                let mut ops = vec![Op::TunnelAdd(Box::new(tunnel_spec(&text)?))];
                ops.push(Op::AddrReplace(AddrSpec { dev: name.clone(), addr: lease.client_inner }));
                let mut line = |text: String| -> Result<(), WireError> {
                    let words: Vec<&str> = text.split_whitespace().collect();
                    let spec = parse_route_line(&words, None).map_err(|e| WireError::new("invalid", e.line, ""))?;
                    ops.push(Op::RouteReplace(Box::new(spec)));
                    Ok(())
                };
                if !j.spec.no_default {
                    line(format!("::/0 via {} dev {name}", lease.server_inner.addr()))?;
                }
                // What of the prefix is used nowhere here must not go back through the tunnel (RFC 7084 WPD-5).
                for p in lease.prefixes.iter().filter(|p| p.prefix_len() < 64) {
                    line(format!("unreachable {p} metric 4294967295"))?;
                }
                if let (Some(lan), Some(addr)) = (&j.spec.lan, lan_address(&lease)) {
                    ops.push(Op::AddrReplace(AddrSpec { dev: lan.clone(), addr }));
                }
                if let Err(e) = all(&*self.router, ops) {
                    let _ = self.router.call(Op::TunnelDelete(name.clone()));
                    return Err(e);
                }
                tracing::info!(tunnel = name, %local, server = %lease.server, "tunnel from a broker");
            }
        }
        j.local = Some(local);
        j.lease = Some(lease);
        Ok(())
    }

    /// Words on how UDP leaves: as all else does, or by a `udp` port. None: not at all, because `dev` is for other protocols.
    fn way_for_udp(&self, j: &Joined) -> Option<String> {
        let Some(dev) = &j.spec.dev else { return Some(String::new()) };
        let Ok(Answer::Links(links)) = self.router.call(Op::LinkShow(LinkSelect::default())) else { return None };
        let over_host = links.iter().any(|l| l.name == *dev && l.kind.over_host());
        match links.iter().find(|l| l.kind == PortKind::Udp) {
            Some(udp) if over_host => Some(format!(" encap-dev {}", udp.name)),
            _ if over_host => None,
            _ => Some(String::new()),
        }
    }

    fn take_down(&self, j: &Joined) {
        let _ = self.router.call(Op::TunnelDelete(j.spec.name.clone()));
        let Some(lease) = &j.lease else { return };
        if let (Some(lan), Some(addr)) = (&j.spec.lan, lan_address(lease)) {
            let _ = self.router.call(Op::AddrDelete(AddrSpec { dev: lan.clone(), addr }));
        }
        for p in lease.prefixes.iter().filter(|p| p.prefix_len() < 64) {
            let text = format!("unreachable {p} metric 4294967295");
            let words: Vec<&str> = text.split_whitespace().collect();
            if let Ok(spec) = parse_route_line(&words, None) {
                let _ = self.router.call(Op::RouteDelete(Box::new(spec)));
            }
        }
    }
}

impl Joined {
    fn info(&self) -> JoinInfo {
        JoinInfo {
            name: self.spec.name.clone(),
            url: self.spec.url.clone(),
            user: self.spec.user.clone(),
            id: self.lease.as_ref().map(|l| l.id),
            outer: self.local.zip(self.lease.as_ref().map(|l| l.server)),
            prefixes: self.lease.as_ref().map(|l| l.prefixes.clone()).unwrap_or_default(),
            updates: self.updates,
            problem: self.problem.clone(),
        }
    }
}

/// The first /64 of the prefix, with this router as ::1.
fn lan_address(lease: &LeaseInfo) -> Option<IpNet> {
    let IpNet::V6(p) = lease.prefixes.first()? else { return None };
    let addr = Ipv6Addr::from_bits(p.network().to_bits() | 1);
    IpNet::new(IpAddr::V6(addr), 64).ok()
}

/// The address that the host would use towards the broker, or the tunnel's other end: no packet is sent.
fn own_address(spec: &JoinSpec, lease: Option<&LeaseInfo>) -> Option<IpAddr> {
    if spec.local.is_some() {
        return spec.local;
    }
    let target = match lease {
        Some(l) => (l.server, 9).into(),
        None => {
            let host = spec.url.split_once("://")?.1.trim_end_matches('/');
            let with_port = if host.rsplit(']').next().is_some_and(|t| t.contains(':')) {
                host.to_owned()
            } else {
                format!("{host}:80")
            };
            with_port.to_socket_addrs().ok()?.find(|a| a.is_ipv4())?
        }
    };
    let socket = UdpSocket::bind(if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// What the broker said instead of a tunnel.
fn refused(a: &HttpAnswer) -> WireError {
    #[derive(serde::Deserialize)]
    struct Why {
        error: String,
    }
    let why =
        serde_json::from_slice::<Why>(&a.body).map(|w| w.error.chars().filter(|c| !c.is_control()).take(300).collect());
    let why: String = why.unwrap_or_else(|_| format!("HTTP status {}", a.status));
    let hint = match a.status {
        401 | 403 => "user and key-file belong together; the broker's operator knows the account",
        409 => "the broker's operator can raise limits and enlarge pools",
        _ => "",
    };
    WireError::new("denied", format!("The broker refuses: {why}."), hint)
}
