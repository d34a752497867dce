//! Ends of tunnels that are not addresses: a name that the resolver knows, a device of the host. A thread of its own asks,
//! because a resolver may take its time; what it finds becomes a change of the tunnel.

use super::RouterBackend;
use crate::control::{Answer, Backend, Op, TunnelChange, TunnelInfo};
use router_core::addr::Family;
use router_io::netlink::Netlink;
use router_io::runtime::privileges::keep_only_and_tell;
use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Weak;
use std::time::{Duration, Instant};

/// How often the host's devices are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How often a name that has an address is asked again, and one that has none, or one that does not answer any more.
const ASK: Duration = Duration::from_secs(30);
const ASK_SOON: Duration = Duration::from_secs(5);

/// Starts the thread. It ends with the router.
pub(crate) fn follow(backend: Weak<RouterBackend>) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("tunnel-ends".into());
    thread.spawn(move || {
        // Asking needs none.
        keep_only_and_tell("tunnel-ends", &[], || true);
        let mut names = Names::default();
        loop {
            std::thread::sleep(LOOK);
            let Some(backend) = backend.upgrade() else { return };
            // A router that is shutting down refuses.
            let Ok(Answer::Tunnels(list)) = backend.call(Op::TunnelEnds) else { return };
            for change in changes(&list, &mut names, device_addr) {
                let (name, local, remote) = (change.name.clone(), change.local, change.remote);
                match backend.call(Op::TunnelChange(Box::new(change))) {
                    Ok(_) => tracing::info!(tunnel = name, ?local, ?remote, "an end of the tunnel has moved"),
                    Err(e) => tracing::warn!(tunnel = name, "an end of the tunnel cannot move: {}", e.line),
                }
            }
        }
    })?;
    Ok(())
}

/// What the resolver said, and when.
#[derive(Default)]
struct Names(BTreeMap<(String, bool), (Option<IpAddr>, Instant)>);

impl Names {
    /// The address that a name has, preferably the one that is in use.
    /// Asked again sooner where nobody answers at the one known: `dead`.
    fn addr(&mut self, name: &str, family: Family, now_used: IpAddr, dead: bool) -> Option<IpAddr> {
        let key = (name.to_owned(), family == Family::Inet6);
        if let Some((known, asked)) = self.0.get(&key)
            && asked.elapsed() < if known.is_none() || dead { ASK_SOON } else { ASK }
        {
            return *known;
        }
        let list: Vec<IpAddr> = (name, 0)
            .to_socket_addrs()
            .map(|l| l.map(|a| a.ip()).filter(|a| Family::of(a) == family).collect())
            .unwrap_or_default();
        let found = if list.contains(&now_used) { Some(now_used) } else { list.first().copied() };
        self.0.insert(key, (found, Instant::now()));
        found
    }
}

/// What is to change. A name or device without an address leaves the tunnel as it is.
fn changes(
    list: &[TunnelInfo],
    names: &mut Names,
    device: impl Fn(&str, Family) -> Option<IpAddr>,
) -> Vec<TunnelChange> {
    let mut out = Vec::new();
    for (t, life) in list.iter().map(|i| (&i.tunnel, &i.life)) {
        let dead = life.as_ref().is_some_and(|l| !l.alive);
        let family = t.mode.shape().outer;
        let remote = t.options.remote_name.as_ref().and_then(|n| names.addr(n, family, t.remote, dead));
        let local = t.options.local_dev.as_ref().and_then(|d| device(d, family));
        let (local, remote) = (local.filter(|a| *a != t.local), remote.filter(|a| *a != t.remote));
        if local.is_some() || remote.is_some() {
            out.push(TunnelChange { name: t.name.clone(), local, remote, ..TunnelChange::default() });
        }
    }
    out
}

/// The address of a device of the host: the first that is good beyond its link.
fn device_addr(device: &str, family: Family) -> Option<IpAddr> {
    let mut netlink = Netlink::open().ok()?;
    let index = netlink.links().ok()?.into_iter().find(|l| l.name == device)?.index;
    let global = |a: &IpAddr| match a {
        IpAddr::V4(a) => !a.is_link_local() && !a.is_loopback(),
        IpAddr::V6(a) => !a.is_unicast_link_local() && !a.is_loopback(),
    };
    let addrs = netlink.addrs(Some(index)).ok()?;
    addrs.into_iter().map(|a| a.addr.addr()).find(|a| Family::of(a) == family && global(a))
}

#[cfg(test)]
mod tests {
    use super::*;
    use router_core::spec::{TunnelMode, TunnelSpec};

    #[test]
    fn only_what_has_moved_is_changed() {
        let ip = |t: &str| t.parse::<IpAddr>().unwrap();
        let tunnel = |name: &str, local: &str, dev: Option<&str>| {
            let mut spec = TunnelSpec::new(name, TunnelMode::SixInFour, ip(local), ip("192.0.2.9"));
            spec.options.local_dev = dev.map(str::to_owned);
            TunnelInfo::of(spec)
        };
        let list = [
            tunnel("still", "198.51.100.1", Some("eth0")),
            tunnel("moved", "198.51.100.2", Some("eth0")),
            tunnel("gone", "198.51.100.3", Some("eth1")),
            tunnel("plain", "198.51.100.4", None),
        ];
        let device = |d: &str, f: Family| (d == "eth0" && f == Family::Inet).then(|| ip("198.51.100.1"));
        let got = changes(&list, &mut Names::default(), device);
        let want = TunnelChange { name: "moved".into(), local: Some(ip("198.51.100.1")), ..TunnelChange::default() };
        assert_eq!(got, [want]);
        let mut spec = TunnelSpec::new("named", TunnelMode::SixInFour, ip("192.0.2.1"), ip("0.0.0.0"));
        spec.options.remote_name = Some("localhost".into());
        let named = [TunnelInfo::of(spec)];
        let got = changes(&named, &mut Names::default(), |_, _| None);
        assert_eq!(got.first().and_then(|c| c.remote), Some(ip("127.0.0.1")));
        // What was found a while ago is asked for again where nobody answers there.
        let ago = Instant::now().checked_sub(ASK_SOON).unwrap();
        for (dead, want) in [(false, "192.0.2.77"), (true, "127.0.0.1")] {
            let mut names = Names::default();
            names.0.insert(("localhost".into(), false), (Some(ip("192.0.2.77")), ago));
            assert_eq!(names.addr("localhost", Family::Inet, ip("192.0.2.77"), dead), Some(ip(want)), "{dead}");
        }
    }
}
