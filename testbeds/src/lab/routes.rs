//! Route sets and lookups: our FIB beside the kernel's.

use super::Result;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use router_cli::demo::instance::Instance;
use router_io::lab::Host;
use router_io::netlink::{KernelRoute, NetlinkError};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Pseudo-random numbers, the same in each run (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed other than zero.
    pub fn new(seed: u64) -> Self {
        Random(seed | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.number() >> 11) as usize % n.max(1)
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.number()) << 64 | u128::from(self.number())
    }
}

/// A prefix and the rest of its route's words, such as `via 192.0.2.1`; the kind, if not unicast, goes before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Destination.
    pub prefix: IpNet,
    /// The route's words.
    pub words: String,
}

/// `count` different prefixes below `roots`, each inside one drawn before as often as not, with next hops drawn from
/// `hops` (words such as `via 192.0.2.1`), and now and then a kind that forwards nothing.
pub fn nested(random: &mut Random, roots: &[IpNet], count: usize, hops: &[(&str, bool)]) -> Vec<Line> {
    let mut taken: BTreeSet<IpNet> = BTreeSet::new();
    let mut lines: Vec<Line> = Vec::new();
    while lines.len() < count {
        let parent = if random.below(2) == 0 && !lines.is_empty() {
            lines[random.below(lines.len())].prefix
        } else {
            roots[random.below(roots.len())]
        };
        let Some(prefix) = inside(random, parent) else { continue };
        if !taken.insert(prefix) {
            continue;
        }
        let ipv4 = prefix.addr().is_ipv4();
        let words = match random.below(40) {
            0 => format!("blackhole {prefix}"),
            1 => format!("unreachable {prefix}"),
            2 => format!("prohibit {prefix}"),
            _ => {
                let fitting: Vec<_> = hops.iter().filter(|(_, v4_only)| ipv4 || !v4_only).collect();
                format!("{prefix} {}", fitting[random.below(fitting.len())].0)
            }
        };
        lines.push(Line { prefix, words });
    }
    lines
}

/// A longer prefix inside `parent`.
fn inside(random: &mut Random, parent: IpNet) -> Option<IpNet> {
    let room = usize::from(parent.max_prefix_len() - parent.prefix_len());
    let len = parent.prefix_len() + 1 + random.below(room.min(9)) as u8;
    if room == 0 {
        return None;
    }
    IpNet::new(addr_in(random, parent), len).ok().map(|n| n.trunc())
}

/// An address inside a prefix.
pub fn addr_in(random: &mut Random, net: IpNet) -> IpAddr {
    match net {
        IpNet::V4(n) => {
            let host = (random.number() as u32) & !u32::from(n.netmask());
            Ipv4Addr::from(u32::from(Ipv4Net::network(&n)) | host).into()
        }
        IpNet::V6(n) => {
            let host = random.wide() & !u128::from(n.netmask());
            Ipv6Addr::from(u128::from(Ipv6Net::network(&n)) | host).into()
        }
    }
}

/// What a lookup gives: gateway and device, or the refusal in iproute2's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// Forwarded.
    Hop {
        /// The gateway; None if the destination is on the link.
        via: Option<IpAddr>,
        /// The device.
        dev: String,
    },
    /// Refused with this errno's text.
    Refused(String),
}

/// Looks destinations up in a kernel.
pub fn kernel_lookups(host: &Host, dsts: &[IpAddr]) -> Result<Vec<Looked>> {
    let mut netlink = host.netlink();
    let names: BTreeMap<u32, String> = netlink.links()?.into_iter().map(|l| (l.index, l.name)).collect();
    dsts.iter()
        .map(|dst| match netlink.lookup(*dst) {
            Ok(found) => {
                let dev = found.oif.and_then(|i| names.get(&i).cloned()).unwrap_or_default();
                Ok(Looked::Hop { via: found.gateway, dev })
            }
            Err(NetlinkError::Kernel { source, .. }) => Ok(Looked::Refused(strip_os_error(&source))),
            Err(e) => Err(e.into()),
        })
        .collect()
}

fn strip_os_error(e: &std::io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Looks destinations up in one of our routers: `duet route get`, in one batch.
pub fn duet_lookups(router: &Instance, dsts: &[IpAddr]) -> Result<Vec<Looked>> {
    let lines = dsts.iter().fold(String::new(), |mut text, dst| {
        let _ = writeln!(text, "route get {dst}");
        text
    });
    let outcome = router.ask(&["-j", "-force", "-batch", "-"], lines.as_bytes())?;
    // `Command failed -:LINE` follows the line that says why.
    let mut refused: BTreeMap<usize, String> = BTreeMap::new();
    let mut why = String::new();
    for line in outcome.stderr.lines() {
        if let Some(number) = line.strip_prefix("Command failed -:") {
            refused.insert(number.trim().parse()?, std::mem::take(&mut why));
        } else if let Some(text) = line.strip_prefix("RTNETLINK answers: ") {
            why = text.to_owned();
        }
    }
    let mut answers = serde_json::Deserializer::from_str(&outcome.stdout).into_iter::<Value>();
    let mut looked = Vec::new();
    for number in 1..=dsts.len() {
        if let Some(why) = refused.remove(&number) {
            looked.push(Looked::Refused(why));
            continue;
        }
        let Some(answer) = answers.next() else {
            return Err(format!("no answer to line {number}: {}", outcome.stderr).into());
        };
        looked.push(hop_of(&answer?).ok_or("an answer without a device")?);
    }
    Ok(looked)
}

/// iproute2's JSON: `gateway`, or `via: {family, host}` where the family is another.
fn hop_of(answer: &Value) -> Option<Looked> {
    let entry = answer.get(0).unwrap_or(answer);
    let text = entry.get("gateway").or_else(|| entry.get("via")?.get("host")).and_then(Value::as_str);
    let via = text.map(str::parse).transpose().ok()?;
    Some(Looked::Hop { via, dev: entry.get("dev")?.as_str()?.to_owned() })
}

/// Adds routes to a kernel.
pub fn kernel_add(host: &Host, lines: &[Line]) -> Result {
    let mut netlink = host.netlink();
    let routes = lines
        .iter()
        .map(|l| KernelRoute::parse(&l.words, |dev| netlink.link_index(dev)))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(netlink.add_routes(&routes)?)
}

/// Adds routes to one of our routers, in one batch.
pub fn duet_add(router: &Instance, lines: &[Line]) -> Result {
    let text = lines.iter().fold(String::new(), |mut text, l| {
        let _ = writeln!(text, "route add {}", l.words);
        text
    });
    let outcome = router.ask(&["-batch", "-"], text.as_bytes())?;
    if outcome.code == 0 { Ok(()) } else { Err(outcome.stderr.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_prefixes_are_different_and_inside() {
        let roots = ["10.0.0.0/8".parse().unwrap(), "2001:db8:8000::/33".parse().unwrap()];
        let lines = nested(&mut Random::new(1), &roots, 1000, &[("via 192.0.2.1", true), ("via 2001:db8::1", false)]);
        let set: BTreeSet<_> = lines.iter().map(|l| l.prefix).collect();
        assert_eq!(set.len(), 1000);
        assert!(set.iter().all(|p| roots.iter().any(|r: &IpNet| r.contains(p))));
        let nested = set.iter().filter(|p| set.iter().any(|q| q != *p && q.contains(*p))).count();
        assert!(nested > 300, "{nested}");
        assert!(lines.iter().all(|l| l.prefix.addr().is_ipv4() || !l.words.contains("192.0.2.1")));
    }

    #[test]
    fn answers_of_route_get() {
        let hop = |text: &str| hop_of(&serde_json::from_str(text).unwrap());
        let is = |via: Option<&str>| Some(Looked::Hop { via: via.map(|a| a.parse().unwrap()), dev: "x".into() });
        assert_eq!(hop(r#"[{"dst":"1.2.3.4","gateway":"1.1.1.1","dev":"x"}]"#), is(Some("1.1.1.1")));
        assert_eq!(hop(r#"[{"via":{"family":"inet6","host":"fe80::1"},"dev":"x"}]"#), is(Some("fe80::1")));
        assert_eq!(hop(r#"[{"dst":"1.2.3.4","dev":"x"}]"#), is(None));
        assert_eq!(hop("[]"), None);
    }
}
