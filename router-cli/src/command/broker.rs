//! `duet broker`: accounts, tunnels, pools and the audit log of the running router's broker; tunnels from others'.

use super::{Session, unexpected};
use crate::control::{
    AccountInfo, Answer, AuditInfo, BrokerAnswer, BrokerOp, BrokerStats, JoinInfo, JoinSpec, LeaseInfo, Op, PoolInfo,
    TunnelWish,
};
use crate::grammar::{Failure, Options, exit};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Longest password file that is read, in bytes.
const LONGEST: u64 = 4096;

/// Arguments of `duet broker`.
#[derive(Clone, Debug, Args)]
pub(crate) struct BrokerArgs {
    /// Control socket of the router
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<String>,
    /// Name of the router: its socket is /run/duet/NAME.sock
    #[arg(short = 'n', long = "name", value_name = "NAME", global = true)]
    router: Option<String>,
    /// Print JSON
    #[arg(short, long, global = true)]
    json: bool,
    /// Indent JSON
    #[arg(short, long, global = true)]
    pretty: bool,
    #[command(subcommand)]
    command: Sub,
}

#[derive(Clone, Debug, Subcommand)]
enum Sub {
    /// Who may have tunnels
    #[command(subcommand)]
    Account(AccountSub),
    /// Tunnels that were handed out
    #[command(subcommand)]
    Tunnel(TunnelSub),
    /// Pools of prefixes, and how full they are
    Pool {
        /// There is nothing else to do with them
        #[arg(value_parser = ["show"], default_value = "show", hide = true)]
        show: String,
    },
    /// Who did what, or tried to
    Audit {
        /// So many of the last entries
        #[arg(short = 'l', long, default_value = "50")]
        last: u32,
    },
    /// What the broker has heard, and what it lost because it was too much
    Stats,
    /// Tunnels that this router got from brokers elsewhere
    Joined,
    /// Give up a tunnel that a broker elsewhere gave, here and there
    Leave {
        /// The tunnel's name here
        name: String,
    },
}

#[derive(Clone, Debug, Subcommand)]
enum AccountSub {
    /// New account; its password is made up and told, unless a file has it
    Add {
        /// Its name
        name: String,
        /// File with the password; "-" for standard input
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// How many tunnels it may have
        #[arg(long, value_name = "N")]
        max_tunnels: Option<u32>,
    },
    /// Remove an account with its tunnels
    #[command(alias = "delete")]
    Del {
        /// Its name
        name: String,
    },
    /// List accounts
    #[command(alias = "list")]
    Show {
        /// Only this one
        name: Option<String>,
    },
    /// New password; made up and told, unless a file has it
    Passwd {
        /// Whose
        name: String,
        /// File with the password; "-" for standard input
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
    /// Let it do nothing any more: no login, its tunnels down
    Block {
        /// Which
        name: String,
    },
    /// Take that back
    Unblock {
        /// Which
        name: String,
    },
}

#[derive(Clone, Debug, Subcommand)]
enum TunnelSub {
    /// New tunnel; tells its update key
    Add {
        /// Whose
        account: String,
        /// What the account calls it
        name: String,
        /// Where the client is; it can say so itself later
        #[arg(long, value_name = "ADDRESS")]
        endpoint: Option<IpAddr>,
        /// Delegate a prefix of this length: 48 or 64; may be said several times
        #[arg(long, value_name = "LENGTH")]
        prefix: Vec<u8>,
        /// How packets travel: 6in4, 6inudp4 or 4in6
        #[arg(long)]
        mode: Option<String>,
    },
    /// Remove a tunnel
    #[command(alias = "delete")]
    Del {
        /// Its number
        id: u32,
    },
    /// List tunnels
    #[command(alias = "list")]
    Show {
        /// Only this one
        id: Option<u32>,
    },
    /// Move the client's end
    Move {
        /// Its number
        id: u32,
        /// Where the client is now
        endpoint: IpAddr,
    },
    /// Make a new update key
    Key {
        /// Its number
        id: u32,
    },
}

impl BrokerArgs {
    /// As options of the grammar.
    pub(crate) fn options(&self) -> Options {
        let (socket, name) = (self.socket.clone(), self.router.clone());
        Options { socket, name, json: self.json, pretty: self.pretty, ..Options::default() }
    }

    fn op(&self) -> Result<BrokerOp, Failure> {
        Ok(match self.command.clone() {
            Sub::Account(AccountSub::Add { name, password_file, max_tunnels }) => {
                BrokerOp::AccountAdd { name, password: password(password_file)?, max_tunnels }
            }
            Sub::Account(AccountSub::Del { name }) => BrokerOp::AccountDelete(name),
            Sub::Account(AccountSub::Show { name }) => BrokerOp::AccountShow(name),
            Sub::Account(AccountSub::Passwd { name, password_file }) => {
                BrokerOp::AccountPassword { name, password: password(password_file)? }
            }
            Sub::Account(AccountSub::Block { name }) => BrokerOp::AccountEnable { name, enabled: false },
            Sub::Account(AccountSub::Unblock { name }) => BrokerOp::AccountEnable { name, enabled: true },
            Sub::Tunnel(TunnelSub::Add { account, name, endpoint, prefix, mode }) => {
                BrokerOp::TunnelAdd(TunnelWish { account, name, mode, endpoint, prefixes: prefix })
            }
            Sub::Tunnel(TunnelSub::Del { id }) => BrokerOp::TunnelDelete(id),
            Sub::Tunnel(TunnelSub::Show { id }) => BrokerOp::TunnelShow(id),
            Sub::Tunnel(TunnelSub::Move { id, endpoint }) => BrokerOp::TunnelEndpoint { id, endpoint },
            Sub::Tunnel(TunnelSub::Key { id }) => BrokerOp::TunnelKey(id),
            Sub::Pool { .. } => BrokerOp::PoolShow,
            Sub::Audit { last } => BrokerOp::Audit(last),
            Sub::Stats => BrokerOp::Stats,
            Sub::Joined => BrokerOp::Joined,
            Sub::Leave { name } => BrokerOp::Leave(name),
        })
    }
}

fn password(file: Option<PathBuf>) -> Result<Option<String>, Failure> {
    file.map(|f| secret(&f)).transpose()
}

/// The first line of a file.
fn secret(file: &Path) -> Result<String, Failure> {
    let failed = |e: io::Error| {
        Failure::new(exit::USAGE, format!("Cannot read {}: {}", file.display(), crate::control::plain(&e)))
    };
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().lock().take(LONGEST).read_to_string(&mut text).map_err(failed)?;
    } else {
        std::fs::File::open(file).map_err(failed)?.take(LONGEST).read_to_string(&mut text).map_err(failed)?;
    }
    match text.lines().next().map(str::trim).filter(|t| !t.is_empty()) {
        Some(line) => Ok(line.to_owned()),
        None => Err(Failure::with_hint(
            exit::USAGE,
            format!("There is no password in {}.", file.display()),
            "its first line is the password",
        )),
    }
}

fn call(session: &mut Session<'_>, op: BrokerOp) -> Result<BrokerAnswer, Failure> {
    match session.call(Op::Broker(Box::new(op)))? {
        Answer::Broker(answer) => Ok(*answer),
        _ => Err(unexpected()),
    }
}

/// Asks, and prints the answer.
pub(crate) fn run(session: &mut Session<'_>, args: &BrokerArgs) -> Result<(), Failure> {
    let answer = call(session, args.op()?)?;
    print(session, &answer)
}

/// `tunnel add NAME broker ...`.
pub(crate) fn join(session: &mut Session<'_>, mut spec: JoinSpec, file: Option<&Path>) -> Result<(), Failure> {
    spec.key = file.map(secret).transpose()?.unwrap_or_default();
    match call(session, BrokerOp::Join(Box::new(spec)))? {
        answer @ BrokerAnswer::Joined(_) => print(session, &answer),
        _ => Err(unexpected()),
    }
}

/// Tunnels from brokers; none where nobody can say.
pub(crate) fn joined_list(session: &mut Session<'_>) -> Vec<JoinInfo> {
    match call(session, BrokerOp::Joined) {
        Ok(BrokerAnswer::Joined(list)) => list,
        _ => Vec::new(),
    }
}

fn json(session: &mut Session<'_>, value: &impl Serialize) -> Result<(), Failure> {
    let text = if session.options.pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    let text = text.map_err(|e| Failure::new(exit::REFUSED, e.to_string()))?;
    Ok(writeln!(session.out, "{text}")?)
}

fn print(session: &mut Session<'_>, answer: &BrokerAnswer) -> Result<(), Failure> {
    let plain = !session.options.json;
    match answer {
        BrokerAnswer::Done => Ok(()),
        BrokerAnswer::Secret(secret) if plain => Ok(writeln!(session.out, "{secret}")?),
        BrokerAnswer::Secret(secret) => json(session, &serde_json::json!({ "secret": secret })),
        BrokerAnswer::Created(t, key) if plain => {
            tunnels(session.out, std::slice::from_ref(&**t))?;
            Ok(writeln!(session.out, "update key, told this once: {key}")?)
        }
        BrokerAnswer::Created(t, key) => json(session, &serde_json::json!({ "tunnel": t, "update_key": key })),
        BrokerAnswer::Accounts(list) if plain => Ok(accounts(session.out, list)?),
        BrokerAnswer::Accounts(list) => json(session, list),
        BrokerAnswer::Tunnels(list) if plain => Ok(tunnels(session.out, list)?),
        BrokerAnswer::Tunnels(list) => json(session, list),
        BrokerAnswer::Pools(list) if plain => Ok(pools(session.out, list)?),
        BrokerAnswer::Pools(list) => json(session, list),
        BrokerAnswer::Audit(list) if plain => Ok(audit(session.out, list)?),
        BrokerAnswer::Audit(list) => json(session, list),
        BrokerAnswer::Stats(s) if plain => Ok(stats(session.out, s)?),
        BrokerAnswer::Stats(s) => json(session, s),
        BrokerAnswer::Joined(list) if plain => Ok(joined(session.out, list)?),
        BrokerAnswer::Joined(list) => json(session, list),
    }
}

/// Columns as wide as what is in them; the first row is the heading.
fn table(out: &mut dyn Write, rows: &[Vec<String>]) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|t| t.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(t, w)| format!("{t:<w$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

fn head(words: &[&str]) -> Vec<Vec<String>> {
    vec![words.iter().map(|w| (*w).to_owned()).collect()]
}

fn moment(time: Option<i64>) -> String {
    let stamp = time.and_then(|t| jiff::Timestamp::from_second(t).ok());
    stamp.map_or_else(|| "-".into(), |t| t.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

fn accounts(out: &mut dyn Write, list: &[AccountInfo]) -> io::Result<()> {
    let mut rows = head(&["ACCOUNT", "STATE", "TUNNELS", "SINCE (UTC)"]);
    rows.extend(list.iter().map(|a| {
        let state = if a.enabled { "open" } else { "blocked" };
        vec![a.name.clone(), state.into(), format!("{} of {}", a.tunnels, a.max_tunnels), moment(Some(a.created))]
    }));
    table(out, &rows)
}

fn tunnels(out: &mut dyn Write, list: &[LeaseInfo]) -> io::Result<()> {
    let mut rows = head(&["ID", "ACCOUNT", "NAME", "MODE", "ENDPOINT", "DEV", "CLIENT", "PREFIXES", "SEEN (UTC)"]);
    rows.extend(list.iter().map(|t| {
        let end = match (t.endpoint, t.endpoint_port) {
            (Some(a), Some(p)) => format!("{a}:{p}"),
            (Some(a), None) => a.to_string(),
            (None, _) => "-".into(),
        };
        let prefixes: Vec<String> = t.prefixes.iter().map(|p| p.to_string()).collect();
        vec![
            t.id.to_string(),
            t.account.clone(),
            t.name.clone(),
            t.mode.clone(),
            end,
            t.dev.clone().unwrap_or_else(|| "-".into()),
            t.client_inner.addr().to_string(),
            if prefixes.is_empty() { "-".into() } else { prefixes.join(",") },
            moment(t.seen),
        ]
    }));
    table(out, &rows)
}

fn pools(out: &mut dyn Write, list: &[PoolInfo]) -> io::Result<()> {
    let mut rows = head(&["POOL", "PREFIX", "GIVES", "USED", "OF"]);
    rows.extend(list.iter().map(|p| {
        vec![p.name.clone(), p.prefix.to_string(), format!("/{}", p.length), p.used.to_string(), p.size.to_string()]
    }));
    table(out, &rows)
}

fn audit(out: &mut dyn Write, list: &[AuditInfo]) -> io::Result<()> {
    let mut rows = head(&["TIME (UTC)", "WHO", "BY", "FROM", "WHAT"]);
    rows.extend(list.iter().map(|a| {
        let from = a.from.map_or_else(|| "-".into(), |f| f.to_string());
        vec![moment(Some(a.time)), a.who.clone(), a.via.clone(), from, a.what.clone()]
    }));
    table(out, &rows)
}

fn stats(out: &mut dyn Write, s: &BrokerStats) -> io::Result<()> {
    let mut rows = head(&["COUNT", "WHAT"]);
    for (n, what) in [
        (s.tsp_datagrams, "TSP messages over UDP"),
        (s.tsp_connections, "TSP connections"),
        (s.tsp_queue_full, "TSP messages lost: queue from the tunnels' port full"),
        (s.tsp_rate, "TSP messages and connections dropped: too many of one peer"),
        (s.tsp_busy, "TSP messages dropped: too many being answered"),
        (s.tsp_full, "TSP messages and connections dropped: too many conversations"),
        (s.http_requests, "HTTP requests"),
        (s.http_full, "HTTP connections closed: too many"),
        (s.http_rate, "HTTP requests refused: too many of one peer"),
        (s.busy, "requests refused: too much work waiting"),
    ] {
        rows.push(vec![n.to_string(), what.to_owned()]);
    }
    table(out, &rows)
}

fn joined(out: &mut dyn Write, list: &[JoinInfo]) -> io::Result<()> {
    let mut rows = head(&["TUNNEL", "BROKER", "USER", "ID", "LOCAL", "REMOTE", "PREFIXES", "UPDATES", "PROBLEM"]);
    rows.extend(list.iter().map(|j| {
        let text = |a: Option<IpAddr>| a.map_or_else(|| "-".into(), |a| a.to_string());
        let prefixes: Vec<String> = j.prefixes.iter().map(|p| p.to_string()).collect();
        vec![
            j.name.clone(),
            j.url.clone(),
            j.user.clone(),
            j.id.map_or_else(|| "-".into(), |id| id.to_string()),
            text(j.outer.map(|o| o.0)),
            text(j.outer.map(|o| o.1)),
            if prefixes.is_empty() { "-".into() } else { prefixes.join(",") },
            j.updates.to_string(),
            j.problem.clone().unwrap_or_else(|| "-".into()),
        ]
    }));
    table(out, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns() {
        let mut out = Vec::new();
        let list = [PoolInfo {
            name: "prefixes".into(),
            prefix: "2001:db8:4000::/36".parse().unwrap(),
            length: 48,
            size: 4096,
            used: 3,
        }];
        pools(&mut out, &list).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "POOL      PREFIX              GIVES  USED  OF\nprefixes  2001:db8:4000::/36  /48    3     4096\n"
        );
    }
}
