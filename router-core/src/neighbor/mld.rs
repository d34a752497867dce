//! Multicast listener discovery, the part of a node (RFC 3810, RFC 2710 with an older querier): the router tells the switches
//! and multicast routers of a link which groups it is in, so that a switch that looks into MLD goes on delivering neighbour
//! solicitations to it (RFC 4861 7.2.1, RFC 4862 5.4.2).
//!
//! The groups are those of RFC 4291 2.8: all routers, and the solicited-node group of each address, anycast ones included.
//! All are joined for any source. All nodes (ff02::1) is never reported (RFC 3810 6).

use super::ndp::{self, push_link_header};
use crate::addr::MacAddr;
use crate::checksum;
use crate::drop_reason::DropReason;
use crate::frame::Frame;
use crate::headers::{be16, ethernet::ETHERTYPE_IPV6, ipv6, protocol};
use crate::jitter::Jitter;
use crate::packet::{Fragment, Packet};
use crate::port::{Medium, PortId, PortInfo, subnet_router_anycast};
use crate::settings::NeighborSettings;
use crate::tables::PortTable;
use crate::time::{Duration, Instant};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

/// RFC 3810 9.1: how often a change is told.
const ROBUSTNESS: u8 = 2;
/// RFC 3810 9.11: between those.
const UNSOLICITED_REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// RFC 3810 9.12: how long a querier of the old version counts as there: twice its usual interval, and ten seconds.
const OLDER_VERSION_QUERIER_PRESENT: Duration = Duration::from_secs(ROBUSTNESS as u64 * 125 + 10);
/// Records of 20 bytes that fit 1280 bytes behind IPv6, hop-by-hop and MLD headers.
const MAX_RECORDS: usize = (1280 - ipv6::HEADER - 8 - 8) / 20;

/// All routers of a link, and of a site (RFC 4291 2.7.1).
const ALL_ROUTERS: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2), Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 2)];
/// All MLDv2 routers: where reports go (RFC 3810 5.2.14).
const ALL_MLDV2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// The groups of so many proxied addresses of a prefix are joined.
const MAX_PROXIED: u128 = 256;

/// ICMPv6 type of a query (RFC 3810 5.1).
pub const QUERY: u8 = 130;

/// Why a report says what it says: RFC 3810 5.2.12, as far as any-source membership needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Record {
    /// MODE_IS_EXCLUDE, no source excluded: in the group, as the querier asked.
    Is,
    /// CHANGE_TO_INCLUDE_MODE, no source included: left.
    Left,
    /// CHANGE_TO_EXCLUDE_MODE, no source excluded: joined.
    Joined,
}

/// A message that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Version 2: all of it in one message.
    V2(Vec<(Record, Ipv6Addr)>),
    /// Version 1 (RFC 2710 3): in this group.
    V1(Ipv6Addr),
    /// Version 1: done with this group.
    V1Done(Ipv6Addr),
}

/// A valid query (RFC 3810 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The group asked about; None asks for all.
    pub group: Option<Ipv6Addr>,
    /// Answers may take so long.
    pub within: Duration,
    /// From a querier of version 1.
    pub old: bool,
}

impl Query {
    /// Reads and checks a query; `data` starts at the IPv6 header, `packet` is its parse. None for anything else: from
    /// elsewhere than this link, without a router alert, with a wrong checksum or length (RFC 3810 5.1.14, 6.2).
    pub fn parse(packet: &Packet, data: &[u8]) -> Option<Query> {
        let (IpAddr::V6(src), IpAddr::V6(dst)) = (packet.src, packet.dst) else { return None };
        let near = src.is_unicast_link_local() && packet.ttl == 1 && packet.router_alert;
        if !near || packet.proto != protocol::ICMPV6 || packet.fragment != Fragment::None {
            return None;
        }
        let m = packet.transport(data);
        let pseudo = checksum::pseudo_v6(src, dst, protocol::ICMPV6, m.len() as u32);
        if m.first() != Some(&QUERY) || !checksum::verify_with(pseudo, m) {
            return None;
        }
        let group = Ipv6Addr::from(<[u8; 16]>::try_from(m.get(8..24)?).ok()?);
        if !group.is_unspecified() && !group.is_multicast() {
            return None;
        }
        // RFC 3810 8.1: 24 bytes are version 1, 28 and more version 2, nothing is in between.
        let old = match m.len() {
            24 => true,
            n if n >= 28 => false,
            _ => return None,
        };
        let within = Duration::from_millis(match (be16(m, 4), old) {
            // RFC 3810 5.1.3: a number with an exponent.
            (code @ 0x8000.., false) => u64::from(code & 0xfff | 0x1000) << ((code >> 12 & 7) + 3),
            (code, _) => u64::from(code),
        });
        Some(Query { group: (!group.is_unspecified()).then_some(group), within, old })
    }
}

/// A group that the router is in.
#[derive(Clone, Copy, Debug)]
struct Member {
    /// Reports of having joined that are left.
    joins: u8,
    /// The next of them.
    join_at: Option<Instant>,
    /// Answer to a query about it.
    answer_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Link {
    groups: BTreeMap<Ipv6Addr, Member>,
    /// Left: how often that is still to be told, and when next.
    left: BTreeMap<Ipv6Addr, (u8, Instant)>,
    /// Answer to a query about all.
    answer_at: Option<Instant>,
    old_until: Option<Instant>,
}

/// The groups of all Ethernet ports. See the module.
#[derive(Debug)]
pub struct Listener {
    links: BTreeMap<PortId, Link>,
    jitter: Jitter,
}

impl Listener {
    /// In no group yet. `seed` feeds the random delays.
    pub fn new(seed: u64) -> Self {
        Listener { links: BTreeMap::new(), jitter: Jitter::new(seed) }
    }

    /// Follows the ports: joins and leaves are told. Nothing is where the settings say no.
    pub fn follow(&mut self, now: Instant, s: &NeighborSettings, ports: &PortTable) {
        let live =
            |p: PortId| ports.get(p).filter(|p| s.mld && p.up && p.medium == Medium::Ethernet && p.mac.is_some());
        self.links.retain(|port, _| live(*port).is_some());
        for port in ports.iter().filter_map(|p| live(p.id)) {
            let wanted = groups_of(port, s);
            let link = self.links.entry(port.id).or_default();
            for gone in link.groups.keys().filter(|g| !wanted.contains(g)).copied().collect::<Vec<_>>() {
                link.groups.remove(&gone);
                link.left.insert(gone, (ROBUSTNESS, now));
            }
            for group in wanted {
                link.left.remove(&group);
                link.groups.entry(group).or_insert(Member { joins: ROBUSTNESS, join_at: Some(now), answer_at: None });
            }
        }
    }

    /// A link went down: it hears everything anew once it is up.
    pub fn forget(&mut self, port: PortId) {
        self.links.remove(&port);
    }

    /// Takes a query in: RFC 3810 6.2. True when it will be answered.
    pub fn query(&mut self, now: Instant, port: PortId, query: &Query) -> bool {
        let delay = self.jitter.up_to(query.within);
        let Some(link) = self.links.get_mut(&port) else { return false };
        if query.old {
            link.old_until = Some(now + OLDER_VERSION_QUERIER_PRESENT);
        }
        let at = now + delay;
        // What is to be answered sooner anyhow stays as it is.
        if link.answer_at.is_some_and(|all| all <= at) {
            return true;
        }
        match query.group {
            None => {
                link.answer_at = Some(at);
                !link.groups.is_empty()
            }
            Some(group) => match link.groups.get_mut(&group) {
                Some(member) => {
                    member.answer_at = Some(member.answer_at.map_or(at, |before| before.min(at)));
                    true
                }
                None => false,
            },
        }
    }

    /// When [`Listener::poll`] has something to say next.
    pub fn poll_at(&self) -> Option<Instant> {
        let of = |l: &Link| {
            let members = l.groups.values().flat_map(|m| [m.join_at, m.answer_at]).flatten();
            members.chain(l.left.values().map(|(_, at)| *at)).chain(l.answer_at).min()
        };
        self.links.values().filter_map(of).min()
    }

    /// Messages that are due.
    pub fn poll(&mut self, now: Instant) -> Vec<(PortId, Report)> {
        let mut out = Vec::new();
        let ports: Vec<PortId> = self.links.keys().copied().collect();
        for port in ports {
            let again = now + self.jitter.up_to(UNSOLICITED_REPORT_INTERVAL);
            let Some(link) = self.links.get_mut(&port) else { continue };
            let due = |at: &Option<Instant>| at.is_some_and(|at| at <= now);
            let all = due(&link.answer_at);
            if all {
                link.answer_at = None;
            }
            if link.old_until.is_some_and(|until| until <= now) {
                link.old_until = None;
            }
            let mut records: BTreeSet<(Record, Ipv6Addr)> = BTreeSet::new();
            for (group, m) in &mut link.groups {
                if due(&m.join_at) {
                    m.joins = m.joins.saturating_sub(1);
                    m.join_at = (m.joins > 0).then_some(again);
                    records.insert((Record::Joined, *group));
                }
                if all || due(&m.answer_at) {
                    m.answer_at = None;
                    records.insert((Record::Is, *group));
                }
            }
            link.left.retain(|group, (times, at)| {
                if *at <= now {
                    records.insert((Record::Left, *group));
                    (*times, *at) = (times.saturating_sub(1), again);
                }
                *times > 0
            });
            let records: Vec<_> = records.into_iter().collect();
            if link.old_until.is_some() {
                out.extend(records.into_iter().map(|(record, group)| match record {
                    Record::Left => (port, Report::V1Done(group)),
                    Record::Is | Record::Joined => (port, Report::V1(group)),
                }));
            } else {
                out.extend(records.chunks(MAX_RECORDS).map(|part| (port, Report::V2(part.to_vec()))));
            }
        }
        out
    }
}

/// The groups of a port that are reported: those of its own addresses, and those of the addresses for which the router stands
/// in (RFC 4861 7.2.8), as long as a prefix has no more than [`MAX_PROXIED`] of them.
fn groups_of(port: &PortInfo, s: &NeighborSettings) -> BTreeSet<Ipv6Addr> {
    let mut groups = BTreeSet::new();
    for net in &port.addrs {
        let IpNet::V6(net) = net else { continue };
        groups.extend(ALL_ROUTERS);
        groups.insert(ndp::solicited_node(net.addr()));
        groups.extend(subnet_router_anycast(net).map(ndp::solicited_node));
    }
    for proxy in s.proxy.iter().filter(|p| p.port == port.name) {
        let IpNet::V6(net) = proxy.net else { continue };
        if 1u128.checked_shl(u32::from(128 - net.prefix_len())).is_some_and(|n| n <= MAX_PROXIED) {
            groups.extend(net.hosts().map(ndp::solicited_node));
        }
    }
    groups
}

/// Writes a report as an Ethernet frame from `port`, ready to be sent. It comes from the link-local address, or, while that
/// is being confirmed (`src` None), from the unspecified one (RFC 3810 5.2.13).
///
/// Errors: [`DropReason::PortGone`] without a link layer, [`DropReason::NoFrame`] when it does not fit.
pub fn write_report(
    out: &mut Frame,
    port: &PortInfo,
    src: Option<Ipv6Addr>,
    report: &Report,
) -> Result<(), DropReason> {
    let src = src.unwrap_or(Ipv6Addr::UNSPECIFIED);
    let (dst, body) = match report {
        Report::V2(records) => {
            let mut body = vec![143, 0, 0, 0, 0, 0];
            body.extend((records.len() as u16).to_be_bytes());
            for (record, group) in records {
                let kind = match record {
                    Record::Is => 2,
                    Record::Left => 3,
                    Record::Joined => 4,
                };
                body.extend([kind, 0, 0, 0]);
                body.extend(group.octets());
            }
            (ALL_MLDV2_ROUTERS, body)
        }
        Report::V1(group) => (*group, [&[131, 0, 0, 0, 0, 0, 0, 0][..], &group.octets()].concat()),
        Report::V1Done(group) => (ALL_ROUTERS[0], [&[132, 0, 0, 0, 0, 0, 0, 0][..], &group.octets()].concat()),
    };
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((body.len() as u16 + 8).to_be_bytes());
    packet.extend([protocol::HOP_BY_HOP, 1]);
    packet.extend(src.octets());
    packet.extend(dst.octets());
    // Router alert: multicast listener discovery (RFC 2711 2.1), padded.
    packet.extend([protocol::ICMPV6, 0, 5, 2, 0, 0, 1, 0]);
    let at = packet.len();
    packet.extend(&body);
    let sum = checksum::pseudo_v6(src, dst, protocol::ICMPV6, body.len() as u32).bytes(&body).finish();
    packet[at + 2..at + 4].copy_from_slice(&sum.to_be_bytes());
    out.reset();
    if !out.set_data(&packet) {
        return Err(DropReason::NoFrame);
    }
    push_link_header(out, port, MacAddr::for_ipv6_multicast(dst), ETHERTYPE_IPV6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Family;
    use crate::settings::Proxy;
    use crate::testing::port;
    use std::sync::Arc;

    fn v6(a: &str) -> Ipv6Addr {
        a.parse().unwrap()
    }

    fn table(addrs: &[&str]) -> PortTable {
        PortTable::default().with(Arc::new(port(3, "lan0", addrs)))
    }

    const ID: PortId = PortId(3);
    const ADDRS: &[&str] = &["192.0.2.1/24", "2001:db8::1/64", "fe80::1/64"];

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    /// What is said until a time, one line each.
    fn run(l: &mut Listener, until: u64) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(at) = l.poll_at().filter(|at| *at <= Instant::from_millis(until)) {
            for (_, report) in l.poll(at) {
                all.push(match report {
                    Report::V2(list) => list.iter().map(|(r, g)| format!("{r:?} {g}")).collect::<Vec<_>>().join(" "),
                    Report::V1(g) => format!("v1 {g}"),
                    Report::V1Done(g) => format!("done {g}"),
                });
            }
        }
        all
    }

    /// Proves rfc3810-6.1-join, rfc3810-6.1-leave, rfc3810-6-all-nodes.
    #[test]
    fn joins_and_leaves_are_told_twice() {
        let mut l = Listener::new(7);
        l.follow(at(0), &NeighborSettings::default(), &table(ADDRS));
        let joined = "Joined ff02::2 Joined ff02::1:ff00:0 Joined ff02::1:ff00:1 Joined ff05::2";
        assert_eq!(l.poll_at(), Some(at(0)), "at once");
        assert_eq!(run(&mut l, 60_000), [joined, joined]);
        l.follow(at(60_000), &NeighborSettings::default(), &table(ADDRS));
        assert_eq!(l.poll_at(), None, "nothing is new");
        l.follow(
            at(61_000),
            &NeighborSettings::default(),
            &table(&["2001:db8::1/64", "fe80::1/64", "2001:db8::77/64"]),
        );
        let more = "Joined ff02::1:ff00:77";
        assert_eq!(run(&mut l, 70_000), [more, more]);
        l.follow(at(71_000), &NeighborSettings::default(), &table(ADDRS));
        assert_eq!(run(&mut l, 80_000), ["Left ff02::1:ff00:77", "Left ff02::1:ff00:77"]);
        l.follow(at(81_000), &NeighborSettings { mld: false, ..NeighborSettings::default() }, &table(ADDRS));
        assert_eq!(l.poll_at(), None);
    }

    /// Proves rfc4861-7.2.8-join: of single hosts and small prefixes, on the port where it stands in for them.
    #[test]
    fn groups_of_proxied_addresses_are_joined() {
        let proxied = |net: &str, port: &str| {
            let proxy = Proxy { port: port.into(), net: net.parse().unwrap() };
            let s = NeighborSettings { proxy: vec![proxy], ..NeighborSettings::default() };
            let mut l = Listener::new(7);
            l.follow(at(0), &s, &table(ADDRS));
            let groups = &l.links[&PortId(3)].groups;
            (groups.len() - 4, groups.contains_key(&v6("ff02::1:ff00:8042")))
        };
        assert_eq!(proxied("2001:db8::8042/128", "lan0"), (1, true));
        assert_eq!(proxied("2001:db8::8040/126", "lan0"), (4, true));
        assert_eq!(proxied("2001:db8::8000/120", "lan0"), (256, true));
        assert_eq!(proxied("2001:db8::8000/119", "lan0"), (0, false));
        assert_eq!(proxied("::/0", "lan0"), (0, false));
        assert_eq!(proxied("2001:db8::8042/128", "wan0"), (0, false));
        assert_eq!(proxied("192.0.2.0/28", "lan0"), (0, false));
    }

    /// Proves rfc3810-6.2-general, rfc3810-6.2-specific, rfc3810-8.2.1-v1.
    #[test]
    fn queries_are_answered_in_their_time_and_version() {
        let mut l = Listener::new(7);
        l.follow(at(0), &NeighborSettings::default(), &table(ADDRS));
        run(&mut l, 60_000);
        let within = Duration::from_secs(10);
        let all = Query { group: None, within, old: false };
        let one = |g: &str| Query { group: Some(v6(g)), within, old: false };
        assert!(l.query(at(60_000), ID, &all) && !l.query(at(60_000), PortId(9), &all));
        assert!(l.poll_at().is_some_and(|t| t > at(60_000) && t < at(70_000)), "spread over ten seconds");
        let is = "Is ff02::2 Is ff02::1:ff00:0 Is ff02::1:ff00:1 Is ff05::2";
        assert_eq!(run(&mut l, 70_000), [is]);
        assert!(l.query(at(70_000), ID, &one("ff02::2")) && !l.query(at(70_000), ID, &one("ff02::77")));
        assert_eq!(run(&mut l, 80_000), ["Is ff02::2"]);
        // A querier of the old version is spoken to in its words, for 260 seconds.
        assert!(l.query(at(80_000), ID, &Query { old: true, ..all }));
        let old = ["v1 ff02::2", "v1 ff02::1:ff00:0", "v1 ff02::1:ff00:1", "v1 ff05::2"];
        assert_eq!(run(&mut l, 90_000), old);
        l.follow(at(91_000), &NeighborSettings::default(), &table(&["2001:db8::77/64"]));
        assert!(run(&mut l, 100_000).contains(&"done ff02::1:ff00:1".to_owned()));
        assert!(l.query(at(400_000), ID, &one("ff02::2")));
        assert_eq!(run(&mut l, 410_000), ["Is ff02::2"]);
    }

    fn query_packet(src: &str, hop_limit: u8, options: [u8; 6], body: &[u8]) -> Vec<u8> {
        let mut v = vec![0x60, 0, 0, 0, 0, 8 + body.len() as u8, 0, hop_limit];
        v.extend(v6(src).octets());
        v.extend(v6("ff02::1").octets());
        v.extend([58, 0]);
        v.extend(options);
        v.extend(body);
        let sum = checksum::pseudo_v6(v6(src), v6("ff02::1"), 58, body.len() as u32).bytes(body).finish();
        v[50..52].copy_from_slice(&sum.to_be_bytes());
        v
    }

    /// Proves rfc3810-5.1.14-valid, rfc3810-5.1.3-code, rfc3810-8.1-version.
    #[test]
    fn which_queries_count() {
        let alert = [5, 2, 0, 0, 1, 0];
        let body = |code: [u8; 2], group: &str, len: usize| {
            let mut m = vec![QUERY, 0, 0, 0, code[0], code[1], 0, 0];
            m.extend(v6(group).octets());
            m.resize(len, 0);
            m
        };
        let general = body([0x27, 0x10], "::", 28);
        type Row<'a> = (Vec<u8>, Option<(Option<&'a str>, u64, bool)>);
        let rows: Vec<Row<'_>> = vec![
            (query_packet("fe80::9", 1, alert, &general), Some((None, 10_000, false))),
            (query_packet("fe80::9", 1, alert, &body([0x27, 0x10], "::", 24)), Some((None, 10_000, true))),
            (query_packet("fe80::9", 1, alert, &body([3, 0xe8], "ff02::2", 28)), Some((Some("ff02::2"), 1000, false))),
            // 1 0000000000000000: mantissa 0, exponent 0, so 0x1000 << 3.
            (query_packet("fe80::9", 1, alert, &body([0x80, 0], "::", 28)), Some((None, 32_768, false))),
            (query_packet("fe80::9", 1, alert, &body([0x91, 0], "::", 28)), Some((None, 0x1100 << 4, false))),
            (query_packet("fe80::9", 1, alert, &body([0, 0], "::", 26)), None),
            (query_packet("fe80::9", 1, alert, &body([0, 0], "2001:db8::1", 28)), None),
            (query_packet("2001:db8::9", 1, alert, &general), None),
            (query_packet("fe80::9", 64, alert, &general), None),
            (query_packet("fe80::9", 1, [1, 4, 0, 0, 0, 0], &general), None),
            (
                {
                    let mut bad = query_packet("fe80::9", 1, alert, &general);
                    bad[50] ^= 1;
                    bad
                },
                None,
            ),
        ];
        for (bytes, want) in rows {
            let p = Packet::parse(Family::Inet6, &bytes).unwrap();
            let got = Query::parse(&p, &bytes);
            let want =
                want.map(|(group, ms, old)| Query { group: group.map(v6), within: Duration::from_millis(ms), old });
            assert_eq!(got, want, "{bytes:02x?}");
        }
    }

    /// Proves rfc3810-5.2-report, rfc3810-5.2.13-source, rfc3810-5-alert.
    #[test]
    fn reports_as_they_stand_on_the_wire() {
        let info = port(3, "lan0", ADDRS);
        let mut f = Frame::with_capacity(1500);
        let all = vec![(Record::Is, v6("ff02::2")), (Record::Left, v6("ff02::1:ff00:7"))];
        for (src, report, dst, kind) in [
            (Some(v6("fe80::1")), Report::V2(all.clone()), "ff02::16", 143),
            (None, Report::V2(all), "ff02::16", 143),
            (Some(v6("fe80::1")), Report::V1(v6("ff02::2")), "ff02::2", 131),
            (Some(v6("fe80::1")), Report::V1Done(v6("ff02::1:ff00:7")), "ff02::2", 132),
        ] {
            write_report(&mut f, &info, src, &report).unwrap();
            let d = f.data();
            assert_eq!(d[..6], MacAddr::for_ipv6_multicast(v6(dst)).0);
            let p = Packet::parse(Family::Inet6, &d[14..]).unwrap();
            let want: IpAddr = src.unwrap_or(Ipv6Addr::UNSPECIFIED).into();
            assert_eq!((p.src, p.dst, p.ttl, p.router_alert), (want, IpAddr::V6(v6(dst)), 1, true));
            let m = p.transport(&d[14..]);
            assert!(crate::forward::local::checksum_ok(&p, &d[14..]));
            assert_eq!((m[0], m[1]), (kind, 0));
            if kind == 143 {
                assert_eq!(m[6..12], [0, 2, 2, 0, 0, 0]);
                assert_eq!(
                    (m[12..28].to_vec(), m[28..32].to_vec()),
                    (v6("ff02::2").octets().to_vec(), vec![3, 0, 0, 0])
                );
                assert_eq!(m.len(), 8 + 2 * 20);
            } else {
                assert_eq!(m.len(), 24);
            }
        }
        let many: Vec<_> =
            (0..MAX_RECORDS as u16).map(|n| (Record::Is, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, n))).collect();
        write_report(&mut f, &info, None, &Report::V2(many)).unwrap();
        assert!(f.len() <= 1280 + 14);
    }
}
