//! `duet ping`: echo requests from the router itself, with ping's options and lines (RFC 1812 4.3.3.6).

use super::trace::json;
use super::{Session, unexpected};
use crate::control::{Answer, Op, PingOp};
use crate::grammar::inspect::Line;
use crate::grammar::{Failure, Options, exit};
use crate::output::Out;
use router_core::addr::{Family, parse_addr};
use router_core::router::{Ping, PingAnswer, PingReply};
use serde_json::json as value;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Help of the command.
pub(crate) const USAGE: &str = "\
Usage: duet ping [ -c COUNT ] [ -i SECONDS ] [ -s BYTES ] [ -t TTL ] [ -Q TOS ] [ -W SECONDS ]
                 [ -I PORT | VRF | ADDRESS ] [ -M do|dont ] [ -R ] [ -j ]
                 [ [ strict ] ROUTER ... ] ADDRESS
-c  how many requests; 5              -i  time between two, from 0.01; 1
-s  bytes of data; 56                 -t  TTL or hop limit; ttl of [icmp]
-Q  type of service, traffic class    -W  how long the last answer may take; 1
-I  by this link whatever the routes say, by a VRF's routes, or from this own address
-M  do: set DF in IPv4 requests       -R  have IPv4 routers record their addresses
ROUTER ...  IPv4 routers to be visited on the way (source route); strict: and no others.
            Replies come back along them: lsrr or ssrr of [ipv4_options] must be \"process\".
Exit code 0 if anything was answered, 2 if not.";

/// Between looks for answers.
const LOOK: Duration = Duration::from_millis(5);

/// What the words say.
#[derive(Debug)]
pub(crate) struct Asked {
    /// None: help.
    ping: Option<Ping>,
    count: u32,
    every: Duration,
    patience: Duration,
    pub options: Options,
}

/// Reads the words behind `ping`.
pub(crate) fn parse(words: &[&str], mut options: Options) -> Result<Asked, Failure> {
    const ADDRESS: &str = "the address of who is to answer";
    let line = &mut Line::new(words);
    let family = options.family;
    let mut ping = Ping::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let mut addrs: Vec<(usize, IpAddr)> = Vec::new();
    let (mut count, mut every, mut patience) = (5, Duration::from_secs(1), Duration::from_secs(1));
    let seconds = |least: f64| move |w: &str| w.parse::<f64>().ok().filter(|s| (least..=3600.0).contains(s));
    while let Some(word) = line.next() {
        match word {
            "help" | "--help" | "-h" => return Ok(Asked { ping: None, count, every, patience, options }),
            "-c" => count = line.number(1, u64::from(u16::MAX))? as u32,
            "-i" => every = Duration::from_secs_f64(line.parsed("seconds, from 0.01 to 3600", seconds(0.01))?),
            "-W" => patience = Duration::from_secs_f64(line.parsed("seconds, from 0.01 to 3600", seconds(0.01))?),
            "-s" => ping.data = line.number(0, 65_507)? as u32,
            "-t" => ping.ttl = Some(line.number(1, 255)? as u8),
            "-Q" => ping.tclass = line.number(0, 255)? as u8,
            "-R" => ping.record = true,
            "-M" => {
                const MODES: &str = "do or dont";
                ping.df = line.parsed(MODES, |w| match w {
                    "do" | "want" => Some(true),
                    "dont" => Some(false),
                    _ => None,
                })?;
            }
            "-I" => {
                let from = line.value("a port, a VRF or one of the router's addresses")?;
                match parse_addr(from) {
                    Ok(addr) => ping.source = Some(addr),
                    Err(_) => ping.dev = Some(from.to_owned()),
                }
            }
            "-4" | "-6" => options.family = Some(if word == "-4" { Family::Inet } else { Family::Inet6 }),
            "strict" if addrs.is_empty() => ping.strict = true,
            _ if line.option(word, &mut options)? => {}
            _ => match parse_addr(word) {
                Ok(addr) => addrs.push((line.here(), addr)),
                Err(_) => return Err(line.wrong(ADDRESS)),
            },
        }
    }
    let Some((at, target)) = addrs.pop() else {
        return Err(line.complain(words.len(), "The command is not complete.", ADDRESS));
    };
    if let Some(wanted) = options.family.or(family).filter(|f| *f != Family::of(&target)) {
        return Err(line.complain(at, &format!("Error: {target} is no {wanted} address."), "one of that family"));
    }
    ping.target = target;
    for (at, hop) in addrs {
        match hop {
            IpAddr::V4(hop) if target.is_ipv4() => ping.route.push(hop),
            _ => return Err(line.complain(at, "Error: source routes are for IPv4 alone.", "one address")),
        }
    }
    if ping.strict && ping.route.is_empty() {
        return Err(line.complain(at, "Error: no router is named.", "the routers to be visited before the address"));
    }
    Ok(Asked { ping: Some(ping), count, every, patience, options })
}

/// Executes a command.
pub(crate) fn run(
    asked: Asked,
    out: &mut dyn Write,
    color: bool,
    socket: impl FnOnce(&Options) -> Result<PathBuf, Failure>,
) -> Result<(), Failure> {
    let Asked { ping, count, every, patience, options } = asked;
    let Some(ping) = ping else { return Ok(writeln!(out, "{USAGE}")?) };
    let mut session = Session::new(socket(&options)?, options, out, color);
    let (target, silent) = (ping.target, session.options.json);
    let mut told = Told { target, data: ping.data, asked: 0, answers: Vec::new() };
    let mut from = None;
    let Answer::PingSession(number) = session.call(Op::PingOpen)? else { return Err(unexpected()) };
    let mut next = Instant::now();
    loop {
        if told.asked < count && Instant::now() >= next {
            let op = PingOp { session: number, ping: ping.clone() };
            let Answer::Pinged(source, _) = session.call(Op::Ping(Box::new(op)))? else { return Err(unexpected()) };
            if from.replace(source).is_none() && !silent {
                session.print(|out, _| told.begin(out, source))?;
            }
            told.asked += 1;
            next = Instant::now() + if told.asked < count { every } else { patience };
        }
        let Answer::PingAnswers(more) = session.call(Op::PingAnswers(number))? else { return Err(unexpected()) };
        for answer in more {
            if !silent {
                session.print(|out, _| out.text(format_args!("{}\n", line_of(&answer))))?;
            }
            told.answers.push(answer);
        }
        session.out.flush()?;
        if told.asked == count && (told.answers.len() as u32 >= count || Instant::now() >= next) {
            break;
        }
        std::thread::sleep(LOOK);
    }
    match silent {
        true => json(&mut session, &told.json(from))?,
        false => session.print(|out, _| told.end(out))?,
    }
    match told.received() {
        0 => Err(Failure::with_hint(
            exit::REFUSED,
            format!("{target} does not answer."),
            "duet explain shows where its packets go",
        )),
        _ => Ok(()),
    }
}

/// What was sent, and what came back.
struct Told {
    target: IpAddr,
    data: u32,
    asked: u32,
    answers: Vec<PingAnswer>,
}

impl Told {
    fn replies(&self) -> impl Iterator<Item = &PingAnswer> {
        self.answers.iter().filter(|a| matches!(a.reply, PingReply::Echo { .. }))
    }

    fn received(&self) -> usize {
        self.replies().count()
    }

    /// Least, mean and greatest round trip, in milliseconds.
    fn rtt(&self) -> Option<[f64; 3]> {
        let all: Vec<f64> = self.replies().map(|a| millis(a.rtt)).collect();
        let least = all.iter().copied().reduce(f64::min)?;
        let most = all.iter().copied().reduce(f64::max)?;
        Some([least, all.iter().sum::<f64>() / all.len() as f64, most])
    }

    fn lost_percent(&self) -> u32 {
        self.asked.saturating_sub(self.received() as u32) * 100 / self.asked.max(1)
    }

    fn begin(&self, out: &mut Out<'_>, from: IpAddr) -> io::Result<()> {
        out.text(format_args!("PING {} from {from}: {} data bytes\n", self.target, self.data))
    }

    fn end(&self, out: &mut Out<'_>) -> io::Result<()> {
        let (target, asked, received, lost) = (self.target, self.asked, self.received(), self.lost_percent());
        let errors = self.answers.len() - received;
        let errors = if errors > 0 { format!(" +{errors} errors,") } else { String::new() };
        out.text(format_args!(
            "\n--- {target} ping statistics ---\n{asked} packets transmitted, {received} received,{errors} {lost}% packet loss\n"
        ))?;
        match self.rtt() {
            Some([least, mean, most]) => {
                out.text(format_args!("rtt min/avg/max = {least:.3}/{mean:.3}/{most:.3} ms\n"))
            }
            None => Ok(()),
        }
    }

    fn json(&self, from: Option<IpAddr>) -> serde_json::Value {
        let answers = self.answers.iter().map(|a| {
            let mut v = value!({ "icmp_seq": a.seq, "from": a.from, "time_ms": millis(a.rtt) });
            match &a.reply {
                PingReply::Echo { ttl, data, recorded } => {
                    (v["ttl"], v["bytes"]) = ((*ttl).into(), (data + 8).into());
                    if !recorded.is_empty() {
                        v["route"] = value!(recorded);
                    }
                }
                PingReply::Error { kind, code, mtu } => {
                    (v["icmp_type"], v["icmp_code"]) = ((*kind).into(), (*code).into());
                    v["error"] = what(a.from.is_ipv6(), *kind, *code, *mtu).into();
                    if let Some(mtu) = mtu {
                        v["mtu"] = (*mtu).into();
                    }
                }
            }
            v
        });
        let mut all = value!({
            "target": self.target, "from": from, "transmitted": self.asked, "received": self.received(),
            "loss_percent": self.lost_percent(), "answers": answers.collect::<Vec<_>>(),
        });
        if let Some([least, mean, most]) = self.rtt() {
            (all["rtt_min_ms"], all["rtt_avg_ms"], all["rtt_max_ms"]) = (least.into(), mean.into(), most.into());
        }
        all
    }
}

fn millis(d: Duration) -> f64 {
    d.as_secs_f64() * 1000.0
}

/// One answer, as ping has it.
fn line_of(a: &PingAnswer) -> String {
    match &a.reply {
        PingReply::Echo { ttl, data, recorded } => {
            let (bytes, from, seq, ms) = (data + 8, a.from, a.seq, millis(a.rtt));
            let mut line = format!("{bytes} bytes from {from}: icmp_seq={seq} ttl={ttl} time={ms:.3} ms");
            for (i, hop) in recorded.iter().enumerate() {
                line.push_str(if i == 0 { "\nRR:     " } else { "\n        " });
                line.push_str(&hop.to_string());
            }
            line
        }
        PingReply::Error { kind, code, mtu } => {
            format!("From {}: icmp_seq={} {}", a.from, a.seq, what(a.from.is_ipv6(), *kind, *code, *mtu))
        }
    }
}

/// What an ICMP error says, as ping has it.
fn what(v6: bool, kind: u8, code: u8, mtu: Option<u32>) -> String {
    let text = match (v6, kind, code) {
        (false, 3, 4) => return format!("Frag needed and DF set (mtu = {})", mtu.unwrap_or(0)),
        (true, 2, _) => return format!("Packet too big: mtu={}", mtu.unwrap_or(0)),
        (false, 3, 0) => "Destination Net Unreachable",
        (false, 3, 1) => "Destination Host Unreachable",
        (false, 3, 2) => "Destination Protocol Unreachable",
        (false, 3, 3) => "Destination Port Unreachable",
        (false, 3, 5) => "Source Route Failed",
        (false, 3, 13) => "Packet filtered",
        (false, 11, 0) => "Time to live exceeded",
        (false, 11, 1) => "Frag reassembly time exceeded",
        (false, 12, _) => "Parameter problem",
        (true, 1, 0) => "Destination unreachable: No route",
        (true, 1, 1) => "Destination unreachable: Administratively prohibited",
        (true, 1, 2) => "Destination unreachable: Beyond scope of source address",
        (true, 1, 3) => "Destination unreachable: Address unreachable",
        (true, 1, 4) => "Destination unreachable: Port unreachable",
        (true, 1, 5) => "Destination unreachable: Source address failed policy",
        (true, 1, 6) => "Destination unreachable: Reject route",
        (true, 3, 0) => "Time exceeded: Hop limit",
        (true, 3, 1) => "Time exceeded: Defragmentation failure",
        (true, 4, _) => "Parameter problem",
        _ => return format!("ICMP type {kind} code {code}"),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Asked, Failure> {
        parse(&text.split_whitespace().collect::<Vec<_>>(), Options::default())
    }

    #[test]
    fn words_of_ping() {
        let plain = || Ping::new("192.0.2.9".parse().unwrap());
        let hops = |list: &[&str]| list.iter().map(|h| h.parse().unwrap()).collect::<Vec<Ipv4Addr>>();
        for (text, want) in [
            ("192.0.2.9", plain()),
            (
                "-s 100 -t 3 -Q 0xb8 -M do -R 192.0.2.9",
                Ping { data: 100, ttl: Some(3), tclass: 0xb8, df: true, record: true, ..plain() },
            ),
            ("-I lan0 192.0.2.9", Ping { dev: Some("lan0".into()), ..plain() }),
            ("-I 10.0.0.1 192.0.2.9", Ping { source: Some("10.0.0.1".parse().unwrap()), ..plain() }),
            ("10.0.0.1 10.0.0.2 192.0.2.9", Ping { route: hops(&["10.0.0.1", "10.0.0.2"]), ..plain() }),
            ("strict 10.0.0.1 192.0.2.9 -j", Ping { route: hops(&["10.0.0.1"]), strict: true, ..plain() }),
            ("-6 2001:db8::9", Ping::new("2001:db8::9".parse().unwrap())),
        ] {
            assert_eq!(parsed(text).unwrap().ping, Some(want), "{text}");
        }
        let a = parsed("-c 3 -i 0.2 -W 2.5 192.0.2.9").unwrap();
        let ms = Duration::from_millis;
        assert_eq!((a.count, a.every, a.patience), (3, ms(200), ms(2500)));
        assert!(parsed("help").unwrap().ping.is_none());
        for bad in [
            "",
            "-c 0 192.0.2.9",
            "-c",
            "-t 256 192.0.2.9",
            "nobody",
            "-M no 192.0.2.9",
            "-4 2001:db8::9",
            "192.0.2.1 2001:db8::9",
            "strict 192.0.2.9",
            "-i 0 192.0.2.9",
        ] {
            assert_eq!(parsed(bad).unwrap_err().exit, exit::USAGE, "{bad}");
        }
    }

    #[test]
    fn lines_are_those_of_ping() {
        let from: IpAddr = "192.0.2.9".parse().unwrap();
        let rtt = Duration::from_micros(1234);
        let echo = PingReply::Echo { ttl: 63, data: 56, recorded: vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()] };
        let reply = PingAnswer { seq: 2, from, rtt, reply: echo };
        let want = "64 bytes from 192.0.2.9: icmp_seq=2 ttl=63 time=1.234 ms\nRR:     10.0.0.1\n        10.0.0.2";
        assert_eq!(line_of(&reply), want);
        let error = |from: &str, kind, code, mtu| {
            let reply = PingReply::Error { kind, code, mtu };
            line_of(&PingAnswer { seq: 1, from: from.parse().unwrap(), rtt, reply })
        };
        assert_eq!(error("10.0.0.1", 3, 1, None), "From 10.0.0.1: icmp_seq=1 Destination Host Unreachable");
        assert_eq!(
            error("10.0.0.1", 3, 4, Some(1400)),
            "From 10.0.0.1: icmp_seq=1 Frag needed and DF set (mtu = 1400)"
        );
        assert_eq!(error("fe80::1", 3, 0, None), "From fe80::1: icmp_seq=1 Time exceeded: Hop limit");
        let told = Told { target: from, data: 56, asked: 4, answers: vec![reply] };
        assert_eq!((told.received(), told.lost_percent()), (1, 75));
        let j = told.json(Some(from));
        assert_eq!((&j["received"], &j["answers"][0]["ttl"]), (&value!(1), &value!(63)));
        assert_eq!(j["rtt_avg_ms"], value!(1.234));
    }
}
