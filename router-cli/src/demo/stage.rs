//! One scenario's network, and the steps that a scenario is made of. Each step does something real, says what, and
//! keeps what came of it.

use super::instance::{Instance, InstanceError, Stats, this_program};
use super::report::{RouterReport, ScenarioReport, Step};
use super::screen::Screen;
use router_io::lab::probe::{Ping, TcpTransfer, Traceroute};
use router_io::lab::{End, Host, LabError, Net};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
#[cfg(feature = "broker")]
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How long links may take to come up, and counters to settle.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a single packet may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Bytes of a TCP transfer in each direction.
const TCP_BYTES: u64 = 8 << 20;

/// What ends a scenario early.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The lab refused.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A router refused.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// Something of this machine failed.
    #[error("{0}: {1}")]
    System(&'static str, std::io::Error),
}

/// The stage of one scenario.
pub struct Stage<'a> {
    screen: &'a Screen,
    net: Net,
    dir: PathBuf,
    routers: Vec<Instance>,
    report: ScenarioReport,
}

impl<'a> Stage<'a> {
    /// An empty stage; files and sockets go to `dir`, which is made.
    pub fn new(screen: &'a Screen, dir: PathBuf, name: &str, title: &str) -> Result<Self, StageError> {
        std::fs::create_dir_all(&dir).map_err(|e| StageError::System("cannot make a directory", e))?;
        let report = ScenarioReport { name: name.into(), title: title.into(), ok: true, ..Default::default() };
        Ok(Stage { screen, net: Net::new(), dir, routers: Vec::new(), report })
    }

    /// The screen.
    pub fn screen(&self) -> &Screen {
        self.screen
    }

    /// Makes the hosts and links and waits until they are up.
    pub fn wire(&mut self, hosts: &[&str], links: &[(End<'_>, End<'_>)]) -> Result<(), StageError> {
        self.screen.working("network namespaces");
        self.net.hosts(hosts)?;
        for (a, b) in links {
            self.net.link(*a, *b)?;
        }
        Ok(self.net.wait_ready(PATIENCE)?)
    }

    /// Lets a host's kernel forward IPv4.
    pub fn kernel_router(&mut self, name: &str) -> Result<(), StageError> {
        self.screen.command(name, '#', "sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.disable_ipv6=1");
        let host = self.net.host(name)?;
        host.set_sysctl("net.ipv4.ip_forward", "1")?;
        Ok(host.set_sysctl("net.ipv6.conf.all.disable_ipv6", "1")?)
    }

    /// Gives a host's kernel addresses on a device, and routes.
    pub fn kernel(&self, host: &str, addrs: &[(&str, &str)], routes: &[&str]) -> Result<(), StageError> {
        for (dev, addr) in addrs {
            self.screen.command(host, '#', &format!("ip addr add {addr} dev {dev}"));
            self.net.addr(host, dev, addr)?;
        }
        self.net.wait_ready(PATIENCE)?;
        for route in routes {
            let family = if route.contains(':') && !route.contains("inet6") { " -6" } else { "" };
            self.screen.command(host, '#', &format!("ip{family} route add {route}"));
            self.net.route(host, route)?;
        }
        Ok(())
    }

    /// Starts a router of ours in a host; shows its configuration file if told to.
    pub fn router(&mut self, name: &str, config: &str, show: bool) -> Result<(), StageError> {
        if show {
            self.screen.command(name, '#', &format!("cat {name}.toml"));
            config.trim_end().lines().for_each(|l| self.screen.note(l));
        }
        self.screen.command(name, '#', &format!("duet run {name}.toml"));
        self.screen.working(format!("{name} starts"));
        let start = Instant::now();
        let instance = Instance::start(&this_program(), self.net.host(name)?, &self.dir, config)?;
        let summary = format!("ready after {} ms, process {}", start.elapsed().as_millis(), instance.pid());
        self.routers.push(instance);
        self.step(name, format!("duet run {name}.toml"), true, summary, Value::Null);
        Ok(())
    }

    /// Gives a router a command and shows what it answers.
    pub fn duet(&mut self, router: &str, words: &str) -> Result<(), StageError> {
        let command = format!("duet {words}");
        self.screen.command(router, '#', &command);
        let list: Vec<&str> = words.split_whitespace().collect();
        let outcome = self.instance(router)?.ask(&list, b"")?;
        outcome.stdout.lines().chain(outcome.stderr.lines()).for_each(|l| self.screen.note(l));
        let ok = outcome.code == 0;
        if !ok {
            self.screen.bad(&format!("exit code {}", outcome.code));
        }
        self.keep(router, command, ok, format!("exit code {}", outcome.code), Value::Null);
        Ok(())
    }

    /// Runs a program of the machine in a host. False, and nothing is said, where it is missing or refuses.
    #[cfg(feature = "broker")]
    pub fn program(&self, host: &str, program: &str, args: &[&str]) -> Result<bool, StageError> {
        let mut command = std::process::Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(mut process) = self.net.host(host)?.spawn(command) else { return Ok(false) };
        let status = process.wait(ANSWER).map_err(|e| StageError::System("cannot wait for a program", e))?;
        let good = status.is_some_and(|s| s.success());
        if good {
            let words: Vec<String> =
                args.iter().map(|a| if a.contains(' ') { format!("'{a}'") } else { (*a).to_owned() }).collect();
            self.screen.command(host, '#', &format!("{program} {}", words.join(" ")));
        }
        Ok(good)
    }

    /// The directory of this scenario's files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Gives a router a command whose answer goes to a file.
    #[cfg(feature = "broker")]
    pub fn answer_to_file(&mut self, router: &str, words: &str, file: &str) -> Result<PathBuf, StageError> {
        let command = format!("duet {words} > {file}");
        self.screen.command(router, '#', &command);
        let text = self.instance(router)?.duet(words)?;
        let path = self.dir.join(file);
        std::fs::write(&path, text).map_err(|e| StageError::System("cannot write a file", e))?;
        self.keep(router, command, true, "exit code 0".into(), Value::Null);
        Ok(path)
    }

    /// The prefix that a router got from a broker: an address in its first /64 for a host, and the router's own.
    #[cfg(feature = "broker")]
    pub fn delegated(&self, router: &str) -> Result<(IpAddr, IpAddr), StageError> {
        let joined = self.instance(router)?.json("-j broker joined")?;
        let text = joined[0]["prefixes"][0].as_str().unwrap_or_default();
        let net: ipnet::Ipv6Net = text
            .parse()
            .map_err(|_| StageError::System("no prefix from the broker", std::io::Error::other(joined.to_string())))?;
        let nth = |n: u128| IpAddr::V6(std::net::Ipv6Addr::from_bits(net.network().to_bits() | n));
        Ok((nth(2), nth(1)))
    }

    /// A host's network gives it another address.
    #[cfg(feature = "broker")]
    pub fn renumber(&mut self, host: &str, dev: &str, old: &str, new: &str, route: &str) -> Result<(), StageError> {
        self.screen.command(host, '#', &format!("ip addr del {old} dev {dev}"));
        self.net.del_addr(host, dev, old)?;
        self.kernel(host, &[(dev, new)], &[route])
    }

    /// Pings until there is an answer, and says after what time that was.
    #[cfg(feature = "broker")]
    pub fn ping_until(&mut self, from: &str, dst: IpAddr) -> Result<(), StageError> {
        let command = format!("ping {dst}");
        self.screen.command(from, '$', &command);
        self.screen.working(format!("{from} pings {dst} until it answers"));
        let start = Instant::now();
        let answered = loop {
            let r = self.net.host(from)?.ping(&Ping::new(dst).timeout(Duration::from_millis(250)))?;
            if r.received > 0 || start.elapsed() > PATIENCE {
                break r.received > 0;
            }
        };
        let after = start.elapsed().as_millis() as u64;
        let summary = match answered {
            true => format!("answered again after {:.1} s", after as f64 / 1000.0),
            false => "no answer".to_owned(),
        };
        self.step(from, command, answered, summary, json!({ "milliseconds": after }));
        Ok(())
    }

    /// Waits until the routers' IPv6 addresses are theirs: in the first second nothing answers for them (RFC 4862 5.4).
    fn settle(&mut self) -> Result<(), StageError> {
        let start = Instant::now();
        for router in &self.routers {
            while router.duet("addr show")?.contains(" tentative") && start.elapsed() < PATIENCE {
                self.screen.working(format!("{} makes sure that nobody else has its addresses", router.name()));
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Pings, and wants every packet answered.
    pub fn ping(&mut self, from: &str, dst: IpAddr) -> Result<(), StageError> {
        self.settle()?;
        let command = format!("ping -c 5 {dst}");
        self.screen.command(from, '$', &command);
        self.screen.working(format!("{from} pings {dst}"));
        let r = self.net.host(from)?.ping(&Ping::new(dst).count(5).timeout(ANSWER))?;
        let mut summary = format!("{} sent, {} answered", r.sent, r.received);
        if let Some(rtt) = r.rtt {
            let ms = |micros: u64| micros as f64 / 1000.0;
            summary += &format!(", {:.2}/{:.2}/{:.2} ms", ms(rtt.min), ms(rtt.avg), ms(rtt.max));
        }
        if let Some(ttl) = r.reply_ttl {
            summary += &format!(", ttl {ttl}");
        }
        for e in &r.errors {
            summary += &format!("; {} says: {}", e.from, e.name);
        }
        self.step(from, command, r.all_answered(), summary, json!(r));
        Ok(())
    }

    /// Pings once, and wants the router to refuse with this error.
    pub fn ping_refused(&mut self, from: &str, dst: IpAddr, by: IpAddr, name: &str) -> Result<(), StageError> {
        let command = format!("ping -c 1 {dst}");
        self.screen.command(from, '$', &command);
        let r = self.net.host(from)?.ping(&Ping::new(dst).timeout(ANSWER))?;
        let found = r.errors.first();
        let ok = r.received == 0 && found.is_some_and(|e| e.from == by && e.name == name);
        let summary = match found {
            Some(e) => format!("{} says: {}", e.from, e.name),
            None if r.received > 0 => "answered".to_owned(),
            None => "no answer at all".to_owned(),
        };
        self.step(from, command, ok, summary, json!(r));
        Ok(())
    }

    /// Traces the way, and wants it to lead through these routers of ours to the host called `to`.
    pub fn traceroute(&mut self, from: &str, dst: IpAddr, routers: &[&str], to: &str) -> Result<(), StageError> {
        let command = format!("traceroute -n {dst}");
        self.screen.command(from, '$', &command);
        self.screen.working(format!("{from} traces the way to {dst}"));
        let expired = |stage: &Self| -> Result<Vec<u64>, StageError> {
            routers.iter().map(|r| Ok(stage.instance(r)?.stats()?.drops("ttl_expired"))).collect()
        };
        let before = expired(self)?;
        let r = self.net.host(from)?.traceroute(&Traceroute::new(dst).timeout(ANSWER).max_hops(8))?;
        let after = expired(self)?;
        let shown = |from: Option<IpAddr>| from.map_or_else(|| "*".to_owned(), |a| a.to_string());
        let width = r.hops.iter().map(|h| shown(h.from).len()).max().unwrap_or(0).max(18);
        for hop in &r.hops {
            let address = shown(hop.from);
            let time = hop.rtt.map_or_else(String::new, |t| format!("{:.2} ms", t as f64 / 1000.0));
            let name = routers.get(usize::from(hop.ttl) - 1).copied().unwrap_or(to);
            self.screen.note(&format!("{:>2}  {address:<width$} {time:>9}   {name}", hop.ttl));
        }
        // Addresses cannot tell routers apart that have none of their own; their counters can.
        let each_once = before.iter().zip(&after).all(|(b, a)| *a == b + 1);
        let ok = r.reached && r.hops.len() == routers.len() + 1 && each_once;
        let way: Vec<&str> = std::iter::once(from).chain(routers.iter().copied()).chain([to]).collect();
        let summary = if ok {
            let by = if routers.len() == 1 { "its own counter agrees" } else { "each router's own counter agrees" };
            format!("{}   ({by}: one TTL ran out here)", way.join(" → "))
        } else {
            let moved: Vec<_> = routers.iter().zip(before.iter().zip(&after)).map(|(r, (b, a))| (r, a - b)).collect();
            format!("wanted {}; TTLs that ran out: {moved:?}", way.join(" → "))
        };
        self.step(from, command, ok, summary, json!(r));
        Ok(())
    }

    /// Moves bytes over TCP in both directions and compares them.
    pub fn tcp(&mut self, client: &str, server: &str, addr: IpAddr) -> Result<(), StageError> {
        self.tcp_to(client, server, addr, addr)
    }

    /// As [`Stage::tcp`], where the server's own address is another one than the client knows.
    pub fn tcp_to(&mut self, client: &str, server: &str, addr: IpAddr, own: IpAddr) -> Result<(), StageError> {
        let mib = TCP_BYTES >> 20;
        let command = format!("# TCP with {server} at {addr}: {mib} MiB there, {mib} MiB back");
        self.screen.command(client, '$', &command);
        self.screen.working(format!("TCP between {client} and {server}"));
        let r = self.net.host(client)?.tcp_transfer(
            self.net.host(server)?,
            &TcpTransfer { listen: Some(own), ..TcpTransfer::new(addr, TCP_BYTES) },
        )?;
        let ok = r.all_right();
        let summary = if ok {
            format!("every byte as sent; {:.0} Mbit/s there, {:.0} Mbit/s back", r.up.mbit_per_s(), r.down.mbit_per_s())
        } else {
            let mut why = r.error.clone().unwrap_or_default();
            for (way, s) in [("there", &r.up), ("back", &r.down)] {
                why += &format!("; {way}: {} of {} bytes arrived", s.received, s.expected);
                if let Some(at) = s.mismatch_at {
                    why += &format!(", the first wrong one at {at}");
                }
            }
            why
        };
        self.step(client, command, ok, summary, json!(r));
        Ok(())
    }

    /// Each router's account: what came, what went, and that nothing is missing.
    pub fn account(&mut self) -> Result<(), StageError> {
        self.screen.line("");
        self.screen.dim("router  port        packets in   bytes in  packets out  bytes out");
        let mut totals = Vec::new();
        for router in &self.routers {
            let stats = router.settled(PATIENCE).or_else(|_| router.stats())?;
            for port in stats.ports.iter().filter(|p| p.totals.rx_packets + p.totals.tx_packets > 0) {
                let t = &port.totals;
                self.screen.note(&format!(
                    "{:<7} {:<10} {:>11} {:>10} {:>12} {:>10}",
                    router.name(),
                    port.ifname,
                    t.rx_packets,
                    bytes(t.rx_bytes),
                    t.tx_packets,
                    bytes(t.tx_bytes)
                ));
            }
            totals.push((router.name().to_owned(), stats));
        }
        for (name, stats) in totals {
            let (entered, ended) = stats.balance();
            let text = format!("{name}: {}", account_of(&stats));
            if entered == ended {
                self.screen.good(&text);
            } else {
                self.report.ok = false;
                self.screen.bad(&format!("{text}: {entered} frames entered, {ended} ended"));
            }
            self.report.routers.push(RouterReport { name, balanced: entered == ended, stats });
        }
        Ok(())
    }

    /// Ends all routers as an operator would, by SIGTERM, and wants them to end in order.
    pub fn close(&mut self) -> Result<(), StageError> {
        for router in std::mem::take(&mut self.routers) {
            let name = router.name().to_owned();
            self.screen.working(format!("{name} ends"));
            let (status, log) = router.stop()?;
            if !status.success() {
                let summary = format!("ended with {status}");
                log.lines().for_each(|l| self.screen.note(l));
                self.step(&name, format!("kill {name}"), false, summary, Value::Null);
            }
        }
        Ok(())
    }

    /// The scenario ended early.
    pub fn failed(&mut self, error: &StageError) {
        self.report.ok = false;
        self.report.error = Some(error.to_string());
        self.screen.bad(&error.to_string());
        self.logs();
    }

    /// What came of all.
    pub fn report(&self) -> &ScenarioReport {
        &self.report
    }

    /// How to enter each host and to command each router, for a person to type.
    pub fn hints(&self) -> Vec<(String, String)> {
        let names = self.net.host_names().filter_map(|n| self.net.host(n).ok());
        let mut hints: Vec<_> = names.map(|h: &std::sync::Arc<Host>| (h.name().to_owned(), h.enter_hint())).collect();
        hints.sort();
        hints
    }

    /// Names and control sockets of the running routers.
    pub fn sockets(&self) -> Vec<(String, PathBuf)> {
        self.routers.iter().map(|r| (r.name().to_owned(), r.socket().to_owned())).collect()
    }

    fn logs(&self) {
        for router in &self.routers {
            let log = router.log();
            if !log.is_empty() {
                self.screen.note(&format!("{} wrote:", router.name()));
                log.lines().for_each(|l| self.screen.note(&format!("  {l}")));
            }
        }
    }

    fn instance(&self, name: &str) -> Result<&Instance, StageError> {
        let found = self.routers.iter().find(|r| r.name() == name);
        Ok(found.ok_or_else(|| LabError::NoHost(name.to_owned()))?)
    }

    /// Says how a step went, and keeps it.
    fn step(&mut self, host: &str, command: String, ok: bool, summary: String, detail: Value) {
        if ok {
            self.screen.good(&summary);
        } else {
            self.screen.bad(&summary);
            self.logs();
        }
        self.keep(host, command, ok, summary, detail);
    }

    fn keep(&mut self, host: &str, command: String, ok: bool, summary: String, detail: Value) {
        self.report.ok &= ok;
        self.report.steps.push(Step { host: host.to_owned(), command, ok, summary, detail });
    }
}

/// The two sides of the conservation law in words.
fn account_of(s: &Stats) -> String {
    let mut text = format!(
        "{} received + {} made here = {} sent + {} used here + {} answered",
        s.received, s.originated, s.transmitted, s.delivered, s.answered
    );
    let dropped: u64 = s.drops.values().sum();
    if dropped > 0 {
        let mut by_count: Vec<_> = s.drops.iter().collect();
        by_count.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        let reasons: Vec<_> = by_count.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        text += &format!(" + {dropped} dropped ({})", reasons.join(", "));
    }
    if s.held > 0 {
        text += &format!(" + {} waiting", s.held);
    }
    text
}

fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{} kB", n / 1000),
        _ => format!("{} MB", n / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_law_in_words() {
        let mut s = Stats { received: 7, originated: 1, transmitted: 5, answered: 1, ..Default::default() };
        assert_eq!(account_of(&s), "7 received + 1 made here = 5 sent + 0 used here + 1 answered");
        s.drops.insert("ttl_expired".into(), 2);
        assert!(account_of(&s).ends_with(" + 2 dropped (2 ttl_expired)"));
        assert_eq!(s.balance(), (8, 8));
    }
}
