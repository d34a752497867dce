//! One event as text or JSON.

use crate::control::{AddrSelect, Event, NeighSelect, RouteSelect, TableSelect, TunnelEvent, What};
use crate::grammar::Options;
use crate::output::{self, NextHops, Out};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::io::{self, Write};

/// How events are printed.
#[derive(Debug)]
pub(crate) struct Form {
    pub options: Options,
    pub color: bool,
    /// `[ROUTE]` and so on in front.
    pub label: bool,
    pub timestamp: bool,
    /// On the event's own line.
    pub short: bool,
}

impl Form {
    /// Prints an event.
    pub fn write(&self, out: &mut dyn Write, event: &Event) -> io::Result<()> {
        if self.options.json {
            return self.write_json(out, event);
        }
        if let What::Drops(list) = &event.what {
            // A line for each, like everything else.
            for one in list {
                self.head(out, event)?;
                writeln!(out, "{} {} new, {} in all", one.reason, one.new, one.packets)?;
            }
            return Ok(());
        }
        self.head(out, event)?;
        self.write_what(out, &event.what, false)
    }

    fn head(&self, out: &mut dyn Write, event: &Event) -> io::Result<()> {
        if self.timestamp {
            out.write_all(self.time(event.time).as_bytes())?;
        }
        if self.label {
            write!(out, "[{}]", label(&event.what))?;
        }
        if event.deleted {
            out.write_all(b"Deleted ")?;
        }
        Ok(())
    }

    /// iproute2's two forms, in local time.
    fn time(&self, micros: u64) -> String {
        let local = stamp(micros).to_zoned(TimeZone::system());
        let micros = micros % 1_000_000;
        match self.short {
            true => format!("[{}.{micros:06}] ", local.strftime("%Y-%m-%dT%H:%M:%S")),
            false => format!("Timestamp: {} {micros:06} usec\n", local.strftime("%a %b %e %H:%M:%S %Y")),
        }
    }

    fn write_what(&self, out: &mut dyn Write, what: &What, json: bool) -> io::Result<()> {
        let o = &Options { json, pretty: false, details: self.options.details, ..Options::default() };
        let mut to = Out::new(out, o, self.color);
        match what {
            What::Route(info) => {
                let all = RouteSelect { table: TableSelect::All, ..RouteSelect::default() };
                output::route(&mut to, info, &all, o, &NextHops::new())
            }
            What::Nexthop(n) => output::nexthops(&mut to, std::slice::from_ref(n), o),
            What::NexthopBucket(b) => output::buckets(&mut to, std::slice::from_ref(b)),
            What::Neigh(n) => {
                let all = NeighSelect { nud_all: true, ..NeighSelect::default() };
                output::neighs(&mut to, std::slice::from_ref(n), &all, o)
            }
            What::Link(l) => output::links(&mut to, std::slice::from_ref(l), o),
            What::Address(l) => {
                let o = &Options { oneline: true, ..o.clone() };
                output::addrs(&mut Out::new(out, o, self.color), std::slice::from_ref(l), &AddrSelect::default(), o)
            }
            What::Tunnel(t) => tunnel(out, t, json, self.color),
            What::Drops(list) => Ok(serde_json::to_writer(out, list)?),
            What::Lost(n) if json => write!(out, "{n}"),
            What::Lost(n) => writeln!(out, "{n} events are missing here: they came faster than they were read"),
        }
    }

    /// `{"time":..,"event":..,"deleted":true,EVENT:{..}}`, the thing itself with iproute2's keys.
    fn write_json(&self, out: &mut dyn Write, event: &Event) -> io::Result<()> {
        let mut thing = Vec::new();
        self.write_what(&mut thing, &event.what, true)?;
        let thing = String::from_utf8_lossy(&thing);
        let thing = thing.trim();
        // Lists of one.
        let single = !matches!(event.what, What::Drops(_));
        let thing = thing.strip_prefix('[').and_then(|t| t.strip_suffix(']')).filter(|_| single).unwrap_or(thing);
        let name = label(&event.what).to_lowercase();
        let time = stamp(event.time);
        write!(out, "{{\"time\":\"{time:.6}\",\"event\":\"{name}\",")?;
        if event.deleted {
            out.write_all(b"\"deleted\":true,")?;
        }
        writeln!(out, "\"{name}\":{thing}}}")
    }
}

fn stamp(micros: u64) -> Timestamp {
    i64::try_from(micros).ok().and_then(|m| Timestamp::from_microsecond(m).ok()).unwrap_or_default()
}

fn label(what: &What) -> &'static str {
    match what {
        What::Route(_) => "ROUTE",
        What::Nexthop(_) => "NEXTHOP",
        What::NexthopBucket(_) => "NEXTHOPBUCKET",
        What::Neigh(_) => "NEIGH",
        What::Link(_) => "LINK",
        What::Address(_) => "ADDR",
        What::Tunnel(_) => "TUNNEL",
        What::Drops(_) => "DROPS",
        What::Lost(_) => "LOST",
    }
}

/// As `ip tunnel` shows it, with what changes by itself.
fn tunnel(out: &mut dyn Write, t: &TunnelEvent, json: bool, color: bool) -> io::Result<()> {
    let o = Options { json, ..Options::default() };
    let mut text = Vec::new();
    output::tunnels(&mut Out::new(&mut text, &o, color), std::slice::from_ref(&t.info), &[], &[], &o)?;
    let text = String::from_utf8_lossy(&text);
    if json {
        let fields = text.trim().trim_start_matches('[').trim_end_matches(']').trim_end_matches('}');
        return write!(out, "{fields},\"mtu\":{},\"carried\":{}}}", t.mtu, t.carried);
    }
    let state = if t.carried { "carried" } else { "no path to its remote" };
    writeln!(out, "{} mtu {} {state}", text.trim_end(), t.mtu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{DropEvent, NeighInfo};
    use router_core::spec::{NudState, RouteInfo, RouteKind, RouteSpec};

    fn form(json: bool, label: bool, short: bool) -> Form {
        Form { options: Options { json, ..Options::default() }, color: false, label, timestamp: short, short }
    }

    fn text(form: &Form, deleted: bool, what: What) -> String {
        let mut out = Vec::new();
        form.write(&mut out, &Event { time: 1_795_338_753_000_042, deleted, what }).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn neigh() -> What {
        let neigh = router_core::spec::NeighSpec {
            addr: "192.0.2.9".parse().unwrap(),
            dev: "lan0".into(),
            lladdr: Some("02:00:00:00:00:09".parse().unwrap()),
            state: Some(NudState::Reachable),
            router: false,
        };
        What::Neigh(NeighInfo { neigh, used: 0, confirmed: 0, updated: 0, probes: 0, pending: 0 })
    }

    fn route() -> What {
        let mut route = RouteSpec::new("10.66.0.0/16".parse().unwrap());
        (route.kind, route.proto) = (RouteKind::Blackhole, Some(4));
        What::Route(Box::new(RouteInfo { route, states: vec![], selected: true }))
    }

    #[test]
    fn as_ip_monitor_says_it() {
        assert_eq!(
            text(&form(false, false, false), false, neigh()),
            "192.0.2.9 dev lan0 lladdr 02:00:00:00:00:09 REACHABLE \n"
        );
        assert_eq!(
            text(&form(false, true, false), true, route()),
            "[ROUTE]Deleted blackhole 10.66.0.0/16 proto static \n"
        );
        let drops = What::Drops(vec![DropEvent { reason: "no_route".into(), new: 2, packets: 7 }]);
        assert_eq!(text(&form(false, true, false), false, drops), "[DROPS]no_route 2 new, 7 in all\n");
        assert!(text(&form(false, true, false), false, What::Lost(3)).starts_with("[LOST]3 events are missing"));
        let stamped = text(&form(false, false, true), false, route());
        assert!(stamped.starts_with("[2026-") && stamped.contains(".000042] blackhole"), "{stamped}");
    }

    #[test]
    fn as_json_lines() {
        let line = text(&form(true, false, false), true, route());
        assert_eq!(
            line,
            "{\"time\":\"2026-11-22T09:12:33.000042Z\",\"event\":\"route\",\"deleted\":true,\"route\":{\"type\":\"blackhole\",\"dst\":\"10.66.0.0/16\",\"protocol\":\"static\",\"flags\":[]}}\n"
        );
        for what in [neigh(), What::Lost(3), What::Drops(vec![])] {
            let line = text(&form(true, false, false), false, what);
            let value: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
            assert!(value[value["event"].as_str().unwrap()] != serde_json::Value::Null, "{line}");
        }
    }
}
