//! What the running router has, for completion: names of ports and tunnels, neighbours, prefixes. Every answer is bounded
//! in size and time; when the router does not answer, there is nothing to offer and nothing hangs.

use crate::control::{
    Answer, Client, LinkSelect, NeighSelect, NextHopSelect, Op, PrefixSelect, RoutePageSelect, RouteSelect, TableSelect,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use router_core::spec::NextHopKind;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Suggestions of one kind at most.
const MOST: usize = 100;
/// How long one question may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long an answer is good for the next key.
const FRESH: Duration = Duration::from_secs(2);

/// A name with a word about it.
pub(crate) type Named = (String, String);

/// Where completion asks.
pub(crate) trait Live {
    /// Ports and tunnels with their kinds.
    fn ports(&mut self) -> Vec<Named>;
    /// Tunnels.
    fn tunnels(&mut self) -> Vec<Named>;
    /// Neighbours' addresses with their ports.
    fn neighbors(&mut self) -> Vec<Named>;
    /// Own addresses with their lengths.
    fn own_addresses(&mut self) -> Vec<Named>;
    /// Numbers of next-hop objects.
    fn next_hops(&mut self) -> Vec<Named>;
    /// Tables that have routes.
    fn tables(&mut self) -> Vec<Named>;
    /// Prefixes that begin with this text.
    fn prefixes(&mut self, text: &str) -> Vec<Named>;
}

/// The router behind a socket.
pub(crate) struct LiveRouter {
    socket: PathBuf,
    client: Option<Client>,
    cache: Vec<(String, Instant, Answer)>,
}

impl LiveRouter {
    pub fn new(socket: &Path) -> Self {
        LiveRouter { socket: socket.to_owned(), client: None, cache: Vec::new() }
    }

    fn ask(&mut self, op: Op) -> Option<Answer> {
        let key = format!("{op:?}");
        self.cache.retain(|(_, at, _)| at.elapsed() < FRESH);
        if let Some((_, _, answer)) = self.cache.iter().find(|(k, ..)| *k == key) {
            return Some(answer.clone());
        }
        let answer = self.ask_router(&op)?;
        if self.cache.len() >= 32 {
            self.cache.remove(0);
        }
        self.cache.push((key, Instant::now(), answer.clone()));
        Some(answer)
    }

    fn ask_router(&mut self, op: &Op) -> Option<Answer> {
        // A connection may have become old; a new one gets one chance.
        for _ in 0..2 {
            if self.client.is_none() {
                self.client = Some(Client::connect(&self.socket).ok()?.patience(PATIENCE));
            }
            match self.client.as_mut()?.call(op.clone()) {
                Ok(answer) => return Some(answer),
                Err(_) => self.client = None,
            }
        }
        None
    }

    fn links(&mut self) -> Vec<crate::control::LinkInfo> {
        match self.ask(Op::LinkShow(LinkSelect::default())) {
            Some(Answer::Links(list)) => list,
            _ => Vec::new(),
        }
    }
}

impl Live for LiveRouter {
    fn ports(&mut self) -> Vec<Named> {
        let state = |up: bool| if up { "up" } else { "down" };
        self.links().into_iter().take(MOST).map(|l| (l.name, format!("{}, {}", l.kind, state(l.up)))).collect()
    }

    fn tunnels(&mut self) -> Vec<Named> {
        let outer =
            |l: crate::control::LinkInfo| l.outer.map(|(local, remote)| (l.name, format!("{local} to {remote}")));
        self.links().into_iter().filter_map(outer).take(MOST).collect()
    }

    fn neighbors(&mut self) -> Vec<Named> {
        let select = NeighSelect { nud_all: true, ..NeighSelect::default() };
        match self.ask(Op::NeighShow(select)) {
            Some(Answer::Neighs(list)) => {
                let named = |n: crate::control::NeighInfo| {
                    let state = n.neigh.state.map(crate::grammar::nud_name).unwrap_or_default();
                    (n.neigh.addr.to_string(), format!("{} {state}", n.neigh.dev))
                };
                list.into_iter().take(MOST).map(named).collect()
            }
            _ => Vec::new(),
        }
    }

    fn own_addresses(&mut self) -> Vec<Named> {
        let of = |l: crate::control::LinkInfo| {
            let name = l.name;
            l.addrs.into_iter().map(move |a| (a.to_string(), name.clone()))
        };
        self.links().into_iter().flat_map(of).take(MOST).collect()
    }

    fn next_hops(&mut self) -> Vec<Named> {
        let about = |kind: NextHopKind| match kind {
            NextHopKind::Blackhole => "blackhole".to_owned(),
            NextHopKind::Group(members) => format!("group of {}", members.len()),
            NextHopKind::Hop(h) => {
                let via = h.via.map(|v| format!("via {v} ")).unwrap_or_default();
                format!("{via}{}", h.dev.map(|d| format!("dev {d}")).unwrap_or_default())
            }
        };
        match self.ask(Op::NextHopShow(NextHopSelect::default())) {
            Some(Answer::Nexthops(list)) => {
                list.into_iter().take(MOST).map(|n| (n.id.to_string(), about(n.kind))).collect()
            }
            _ => Vec::new(),
        }
    }

    fn tables(&mut self) -> Vec<Named> {
        match self.ask(Op::Stats) {
            Some(Answer::Stats(s)) => {
                s.routes.iter().take(MOST).map(|(t, n)| (t.clone(), format!("{n} prefixes"))).collect()
            }
            _ => Vec::new(),
        }
    }

    fn prefixes(&mut self, text: &str) -> Vec<Named> {
        let mut found: Vec<Named> = Vec::new();
        let began = Instant::now();
        // Shorter prefixes may begin so too: 10.128.0.0/9 begins with 10.1.
        let selects = roots(text).into_iter().flat_map(|root| match root {
            Some(root) => vec![Some(PrefixSelect::Match(root)), Some(PrefixSelect::Root(root))],
            None => vec![None],
        });
        for dst in selects {
            let select = RouteSelect { table: TableSelect::All, dst, ..RouteSelect::default() };
            let page = RoutePageSelect { select, after: None, limit: MOST };
            let Some(Answer::Page(page)) = self.ask_router(&Op::RoutePage(page)) else { break };
            for info in page.routes {
                let name = info.route.dst.to_string();
                if name.starts_with(text) && found.iter().all(|(n, _)| *n != name) {
                    let via = info.route.hops.first().map(|h| {
                        let via = h.via.map(|v| format!("via {v} ")).unwrap_or_default();
                        format!("{via}{}", h.dev.as_ref().map(|d| format!("dev {d}")).unwrap_or_default())
                    });
                    found.push((name, via.unwrap_or_else(|| crate::grammar::kind_name(info.route.kind).to_owned())));
                }
            }
            if found.len() >= MOST || began.elapsed() > PATIENCE {
                break;
            }
        }
        found.truncate(MOST);
        found
    }
}

/// Prefixes within which, or around which, everything lies that begins with this text; None stands for everything.
fn roots(text: &str) -> Vec<Option<IpNet>> {
    let address = text.split('/').next().unwrap_or_default();
    if address.is_empty() {
        return vec![None];
    }
    match (address.contains(':'), address.contains('.')) {
        (true, _) => roots6(address),
        (false, true) => roots4(address),
        // Digits alone may become either.
        (false, false) => [roots4(address), roots6(address)].concat(),
    }
}

fn roots4(text: &str) -> Vec<Option<IpNet>> {
    let parts: Vec<&str> = text.split('.').collect();
    let (last, whole) = parts.split_last().map_or(("", &[][..]), |(l, w)| (*l, w));
    let Ok(octets) = whole.iter().map(|p| p.parse::<u8>()).collect::<Result<Vec<u8>, _>>() else { return Vec::new() };
    if octets.len() > 3 {
        return Vec::new();
    }
    let net = |octets: &[u8]| {
        let mut a = [0; 4];
        a[..octets.len()].copy_from_slice(octets);
        Ipv4Net::new(Ipv4Addr::from(a), 8 * octets.len() as u8).ok().map(IpNet::V4)
    };
    if last.is_empty() {
        return vec![net(&octets)];
    }
    // 1 may become 1, 10 to 19, 100 to 199.
    let fits = |n: &u8| n.to_string().starts_with(last);
    (0..=255u8).filter(fits).map(|n| net(&[&octets[..], &[n]].concat())).collect()
}

fn roots6(text: &str) -> Vec<Option<IpNet>> {
    if text.matches("::").count() == 1 && !text.ends_with("::") || text == "::" || text == ":" {
        // Which groups the rest will be is open: everything that the part before says.
        let before = text.split("::").next().unwrap_or_default();
        return if before.is_empty() {
            vec![Some(IpNet::V6(Ipv6Net::default()))]
        } else {
            roots6(&format!("{before}::"))
        };
    }
    let text = text.strip_suffix("::").map_or(text, |t| if t.is_empty() { t } else { &text[..t.len() + 1] });
    let parts: Vec<&str> = text.split(':').collect();
    let (last, whole) = parts.split_last().map_or(("", &[][..]), |(l, w)| (*l, w));
    let Ok(groups) = whole.iter().map(|p| u16::from_str_radix(p, 16)).collect::<Result<Vec<u16>, _>>() else {
        return Vec::new();
    };
    if groups.len() > 7 {
        return Vec::new();
    }
    let net = |groups: &[u16], len: u8| {
        let mut a = [0u16; 8];
        a[..groups.len()].copy_from_slice(groups);
        Ipv6Net::new(Ipv6Addr::from(a), len).ok().map(|n| IpNet::V6(n.trunc()))
    };
    let known = 16 * groups.len() as u8;
    let Ok(value) = u16::from_str_radix(last, 16) else {
        return if last.is_empty() { vec![net(&groups, known)] } else { Vec::new() };
    };
    // 2 may become 2, 2x, 2xx, 2xxx.
    let digits = last.len() as u8;
    (0..=4u8.saturating_sub(digits))
        .map(|more| net(&[&groups[..], &[value << (4 * more)]].concat(), known + 16 - 4 * more))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_hold_everything_that_begins_so() {
        let prefixes = [
            "10.0.0.0/8",
            "100.64.0.0/10",
            "192.0.2.0/24",
            "192.0.2.128/25",
            "203.0.113.7/32",
            "2001:db8::/32",
            "2001:db8:1::/48",
            "2001:db8:12::/48",
            "2001:db80::/32",
            "2001:db8:1:2:3:4:5:6/128",
            "fe80::/64",
            "64:ff9b::/96",
        ];
        for p in prefixes {
            let net: IpNet = p.parse().unwrap();
            for end in 1..=p.len() {
                let roots = roots(&p[..end]);
                let held = roots.iter().any(|r| r.is_none_or(|r| r.contains(&net) || net.contains(&r)));
                assert!(held, "{} -> {roots:?} do not hold {p}", &p[..end]);
                assert!(roots.len() <= 116);
            }
        }
        for rubbish in ["x", "1.2.3.4.5", "300.", "12345:", ":::", "1::2::3", "..", "é"] {
            let _ = roots(rubbish);
        }
    }
}
