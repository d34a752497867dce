//! What all interfaces of the broker share: who may do what, and what becomes of it in the database and the router.

use super::limit::{Buckets, Lockout};
use super::model::{ANONYMOUS, Account, Audit, Mode, Time, Tunnel, mapped, now, valid_account, valid_label};
use super::plumb::Plumb;
use super::pool::{Pool, Use};
use super::secret::{Busy, Secrets, make_up, md5_hex};
use super::stats::Stats;
use super::store::{Store, StoreError};
use crate::config::BrokerPlan;
use crate::control::{Backend, LeaseInfo, WireError};
use ipnet::IpNet;
use router_core::counters::PortTotals;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Inner MTU that every mode carries over every path: IPv6's least (RFC 8200 5) when nothing better is known, and what
/// 1500 bytes leave where the outer header is known.
const OUTER_MTU: u32 = 1500;

/// Why the broker does not do it.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Unknown account or wrong password; nobody is told which.
    #[error("unknown account or wrong password")]
    BadAuth,
    /// Too many wrong passwords from there.
    #[error("too many wrong passwords: wait {} seconds", .0.as_secs().max(1))]
    Locked(Duration),
    /// Too much at once.
    #[error("too busy: try again soon")]
    Busy,
    /// The operator blocked the account.
    #[error("the account is blocked")]
    Blocked,
    /// No such tunnel, or not theirs.
    #[error("no such tunnel")]
    NoTunnel,
    /// Changed too often.
    #[error("changed too often: wait a minute")]
    TooOften,
    /// An address that cannot be the endpoint.
    #[error("{0}")]
    Endpoint(String),
    /// Another tunnel ends there.
    #[error("{0} is the endpoint of another tunnel")]
    Taken(IpAddr),
    /// The address is not the one that the request came from.
    #[error("{0} is not the address that this request comes from")]
    Foreign(IpAddr),
    /// Not a mode of this broker.
    #[error("tunnels of mode {0} are not to be had here")]
    Mode(String),
    /// Malformed.
    #[error("{0}")]
    Invalid(String),
    /// No prefix of this length is to be had.
    #[error("prefixes of length {0} are not to be had here")]
    Length(u8),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The router.
    #[error("the router refuses: {0}")]
    Router(#[from] WireError),
}

impl From<Busy> for BrokerError {
    fn from(_: Busy) -> Self {
        BrokerError::Busy
    }
}

type Result<T> = std::result::Result<T, BrokerError>;

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The address; None: the operator's command.
    pub from: Option<IpAddr>,
    /// The interface: `update`, `tsp`, `web`, `api`, `control`.
    pub via: &'static str,
}

/// How a client says its password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// As it is.
    Plain,
    /// As its MD5 in hexadecimal.
    Md5,
}

/// What came of a new endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It is another one now.
    Good(IpAddr),
    /// It was this one already.
    Same(IpAddr),
}

/// See the module.
pub struct Service {
    /// As configured.
    pub plan: BrokerPlan,
    /// The database.
    pub store: Store,
    /// Hashes.
    pub secrets: Secrets,
    /// The router.
    pub plumb: Plumb,
    /// Requests by peer.
    pub requests: Buckets<IpAddr>,
    /// What was heard, and what was lost.
    pub stats: Stats,
    lockout: Lockout,
    /// Changes of a tunnel.
    changes: Buckets<u32>,
    /// Updates of a tunnel that changed nothing.
    idle: Buckets<u32>,
    links: Pool,
    links4: Option<Pool>,
    prefixes: Vec<Pool>,
    subnets: Vec<Pool>,
    /// When clients were heard, still to be written down; and packets seen last.
    heard: Mutex<(BTreeMap<u32, Time>, BTreeMap<u32, u64>)>,
    /// One change of a tunnel at a time, so that database and router agree.
    turn: Mutex<()>,
}

impl Service {
    /// Opens the database, and gives the router all the tunnels that are in it.
    pub fn start(plan: BrokerPlan, router: Arc<dyn Backend>) -> Result<Self> {
        let store = Store::open(&plan.database)?;
        let pool = |of, length| {
            move |net: &IpNet| match net {
                IpNet::V6(net) => Some(Pool { of, net: *net, length }),
                IpNet::V4(_) => None,
            }
        };
        let service = Service {
            links: Pool { of: Use::Links, net: plan.links, length: 64 },
            links4: plan.links4.map(|net| Pool { of: Use::Links4, net: mapped(net), length: 126 }),
            prefixes: plan.prefixes.iter().filter_map(pool(Use::Prefixes, 48)).collect(),
            subnets: plan.subnets.iter().filter_map(pool(Use::Subnets, 64)).collect(),
            store,
            secrets: Secrets::default(),
            plumb: Plumb::new(router, plan.clone()),
            requests: Buckets::new(10.0, 60.0),
            stats: Stats::default(),
            lockout: Lockout::default(),
            changes: Buckets::new(1.0 / 30.0, 12.0),
            idle: Buckets::new(1.0 / 20.0, 30.0),
            heard: Mutex::default(),
            turn: Mutex::default(),
            plan,
        };
        service.plumb.start()?;
        let blocked: Vec<String> =
            service.store.accounts()?.into_iter().filter(|(a, _)| !a.enabled).map(|(a, _)| a.name).collect();
        let (mut up, mut refused) = (0u32, 0u32);
        for t in service.store.tunnels()?.iter().filter(|t| t.endpoint.is_some() && !blocked.contains(&t.account)) {
            match service.plumb.set(t) {
                Ok(()) => up += 1,
                Err(e) => {
                    refused += 1;
                    tracing::warn!(tunnel = t.id, "not restored: {}", e.line);
                }
            }
        }
        tracing::info!(up, refused, "broker: tunnels restored");
        Ok(service)
    }

    /// The pools, in the order of the configuration.
    pub fn pools(&self) -> impl Iterator<Item = &Pool> {
        std::iter::once(&self.links).chain(&self.links4).chain(&self.prefixes).chain(&self.subnets)
    }

    /// Writes to the audit log. What strangers can cause without an account may be lost in a crash.
    pub fn audit(&self, origin: Origin, who: &str, what: impl Into<String>) {
        let what = what.into();
        // A name that a stranger made up is a stranger's text.
        let who: String = who.chars().filter(|c| !c.is_control()).take(32).collect();
        let lazy = what.starts_with("refused");
        tracing::info!(who, from = ?origin.from, via = origin.via, "broker: {what}");
        let entry = Audit { time: now(), who, from: origin.from, via: origin.via.into(), what };
        if let Err(e) = self.store.audit(&entry, lazy) {
            tracing::error!("broker: the audit log cannot be written: {e}");
        }
    }

    /// Whether this peer may try a password for this account now.
    fn may_try(&self, origin: Origin, user: &str) -> Result<()> {
        let wait = origin.from.and_then(|from| self.lockout.locked(from, user, Instant::now()));
        wait.map_or(Ok(()), |d| Err(BrokerError::Locked(d)))
    }

    /// A wrong password: counted, noted.
    pub fn wrong(&self, origin: Origin, user: &str) -> BrokerError {
        let locked = origin.from.and_then(|from| self.lockout.failed(from, user, Instant::now()));
        let what = match locked {
            Some(d) => format!("refused: wrong password; locked out for {} s", d.as_secs()),
            None => "refused: wrong password".to_owned(),
        };
        self.audit(origin, user, what);
        BrokerError::BadAuth
    }

    /// The account, if the password is right. Takes its time; see [`Secrets::verify`].
    pub fn login(&self, origin: Origin, user: &str, password: &str, spoken: Spoken) -> Result<Account> {
        let user = if valid_account(user) { user } else { "?" };
        self.may_try(origin, user)?;
        let account = self.store.account(user)?;
        let hash = account.as_ref().map(|a| match spoken {
            Spoken::Plain => a.password.as_str(),
            Spoken::Md5 => a.legacy.as_str(),
        });
        let ok = self.secrets.verify(password, hash)?;
        match account {
            Some(a) if ok => self.enter(origin, a),
            _ => Err(self.wrong(origin, user)),
        }
    }

    /// Who proved who they are.
    pub fn enter(&self, origin: Origin, account: Account) -> Result<Account> {
        if let Some(from) = origin.from {
            self.lockout.succeeded(from, &account.name);
        }
        if account.enabled { Ok(account) } else { Err(BrokerError::Blocked) }
    }

    /// An account without a password, for DIGEST-MD5.
    pub fn account_for_digest(&self, origin: Origin, user: &str) -> Result<Option<Account>> {
        self.may_try(origin, user)?;
        Ok(self.store.account(user)?)
    }

    /// Who may update the tunnel `host`: the account with its password, or with the tunnel's own update key.
    pub fn login_for(
        &self,
        origin: Origin,
        user: &str,
        password: &str,
        spoken: Spoken,
        host: Option<u32>,
    ) -> Result<Account> {
        let tunnel = host.map(|id| self.store.tunnel(id)).transpose()?.flatten();
        let tunnel = tunnel.filter(|t| t.account == user && spoken == Spoken::Plain);
        // An update key has a form of its own: no second hash for passwords that are none.
        let looks_like_key = password.len() == 32 && password.bytes().all(|b| b.is_ascii_alphanumeric());
        if let Some(t) = tunnel.filter(|_| looks_like_key) {
            self.may_try(origin, user)?;
            if self.secrets.verify(password, Some(&t.key))? {
                let account = self.store.account(user)?.ok_or(BrokerError::BadAuth)?;
                return self.enter(origin, account);
            }
        }
        self.login(origin, user, password, spoken)
    }

    /// The account, if the password was right lately: needs no hash. None: it takes one to know.
    pub fn knows(
        &self,
        origin: Origin,
        user: &str,
        password: &str,
        spoken: Spoken,
        host: Option<u32>,
    ) -> Result<Option<Account>> {
        if !valid_account(user) || password.len() > super::secret::LONGEST {
            return Ok(None);
        }
        self.may_try(origin, user)?;
        let Some(account) = self.store.account(user)? else { return Ok(None) };
        let hash = match spoken {
            Spoken::Plain => &account.password,
            Spoken::Md5 => &account.legacy,
        };
        let mut known = self.secrets.remembered(password, hash);
        if let Some(id) = host.filter(|_| !known && spoken == Spoken::Plain) {
            let tunnel = self.store.tunnel(id)?.filter(|t| t.account == user);
            known = tunnel.is_some_and(|t| self.secrets.remembered(password, &t.key));
        }
        if known { self.enter(origin, account).map(Some) } else { Ok(None) }
    }

    /// A new account; gives its password if that was made up.
    pub fn add_account(
        &self,
        origin: Origin,
        name: &str,
        password: Option<String>,
        max: Option<u32>,
    ) -> Result<Option<String>> {
        if !valid_account(name) || name == ANONYMOUS {
            let line = format!("\"{name}\" cannot name an account: up to 32 of a to z, 0 to 9, \".\", \"_\" and \"-\"");
            return Err(BrokerError::Invalid(line));
        }
        let (password, told) = chosen(password)?;
        let (hash, legacy, digest) = self.hashes(name, &password)?;
        let account = Account {
            name: name.to_owned(),
            password: hash,
            legacy,
            digest,
            enabled: true,
            max_tunnels: max,
            created: now(),
        };
        self.store.add_account(&account, self.plan.max_accounts)?;
        self.audit(origin, name, "account made");
        Ok(told)
    }

    fn hashes(&self, name: &str, password: &str) -> Result<(String, String, Option<String>)> {
        let hash = self.secrets.hash(password)?;
        let legacy = self.secrets.hash(&md5_hex(password.as_bytes()))?;
        let digest = self.plan.digest_md5.then(|| md5_hex(format!("{name}:{}:{password}", self.plan.name).as_bytes()));
        Ok((hash, legacy, digest))
    }

    /// A new password; gives it if it was made up.
    pub fn set_password(&self, origin: Origin, name: &str, password: Option<String>) -> Result<Option<String>> {
        let (password, told) = chosen(password)?;
        let (hash, legacy, digest) = self.hashes(name, &password)?;
        self.store.change_account(name, |a| (a.password, a.legacy, a.digest) = (hash, legacy, digest))?;
        self.audit(origin, name, "password changed");
        Ok(told)
    }

    /// Blocks or unblocks an account: its tunnels go down or up.
    pub fn enable_account(&self, origin: Origin, name: &str, enabled: bool) -> Result<()> {
        let _turn = self.turn();
        self.store.change_account(name, |a| a.enabled = enabled)?;
        for t in self.store.tunnels_of(name)? {
            if enabled {
                self.plumb.set(&t)?;
            } else {
                self.plumb.forget(t.id);
            }
        }
        self.audit(origin, name, if enabled { "account unblocked" } else { "account blocked" });
        Ok(())
    }

    /// Removes an account and its tunnels.
    pub fn delete_account(&self, origin: Origin, name: &str) -> Result<()> {
        if self.store.account(name)?.is_none() {
            return Err(StoreError::Missing(format!("account \"{name}\"")).into());
        }
        for t in self.store.tunnels_of(name)? {
            self.delete(origin, t.id)?;
        }
        self.store.remove_account(name)?;
        self.audit(origin, name, "account removed");
        Ok(())
    }

    fn turn(&self) -> std::sync::MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new tunnel; gives it and its update key. `account` None: nobody's.
    pub fn create(
        &self,
        origin: Origin,
        account: Option<&Account>,
        name: &str,
        mode: Mode,
        end: Option<(IpAddr, Option<u16>)>,
        prefixes: &[u8],
    ) -> Result<(Tunnel, String)> {
        if !valid_label(name) {
            let line = "a tunnel's name has up to 32 letters, digits, \".\", \"_\" and \"-\"";
            return Err(BrokerError::Invalid(line.into()));
        }
        if !self.plumb.modes().contains(&mode) {
            return Err(BrokerError::Mode(mode.name().into()));
        }
        // Nothing that is inside IPv4 packets can be routed there: the prefixes are of IPv6.
        let links = match (mode, &self.links4) {
            (Mode::FourInSix, Some(links)) => match prefixes.first() {
                Some(length) => return Err(BrokerError::Length(*length)),
                None => links,
            },
            _ => &self.links,
        };
        let pools = prefixes.iter().map(|l| self.pools_of(*l)).collect::<Result<Vec<_>>>()?;
        if pools.len() > 4 {
            return Err(BrokerError::Invalid("a tunnel has at most four prefixes".into()));
        }
        let owner = account.map_or(ANONYMOUS, |a| a.name.as_str());
        let most = match account {
            Some(a) => a.max_tunnels.unwrap_or(self.plan.max_tunnels_per_account),
            None => self.plan.max_tunnels,
        };
        let key = make_up();
        let hash = self.secrets.hash(&key)?;
        let _turn = self.turn();
        if let Some((addr, port)) = end {
            self.check_endpoint(mode, addr, port, None)?;
        }
        if account.is_some() && self.store.tunnels_of(owner)?.iter().any(|t| t.name == name) {
            return Err(BrokerError::Invalid(format!("there is a tunnel \"{name}\" already")));
        }
        let time = now();
        let tunnel =
            self.store.add_tunnel(owner, links, &pools, (most, self.plan.max_tunnels), |id, link, prefixes| {
                Tunnel {
                    id,
                    account: owner.to_owned(),
                    name: name.to_owned(),
                    mode,
                    endpoint: end.map(|(a, _)| a),
                    port: end.and_then(|(_, p)| p),
                    link,
                    prefixes,
                    key: hash,
                    created: time,
                    changed: end.map(|_| time),
                    seen: Some(time),
                    until: self.until(account.is_none(), time),
                }
            })?;
        if let Err(e) = self.plumb.set(&tunnel) {
            self.store.remove_tunnel(tunnel.id)?;
            return Err(e.into());
        }
        self.audit(origin, owner, format!("tunnel {} \"{name}\" made, {}", tunnel.id, at(tunnel.endpoint)));
        Ok((tunnel, key))
    }

    fn until(&self, anonymous: bool, time: Time) -> Time {
        let lease = if anonymous { self.plan.anonymous_lease } else { self.plan.lease };
        if lease.is_zero() { 0 } else { time + i64::try_from(lease.as_secs()).unwrap_or(i64::MAX / 2) }
    }

    fn pools_of(&self, length: u8) -> Result<&[Pool]> {
        let pools = match length {
            48 => &self.prefixes,
            64 => &self.subnets,
            _ => return Err(BrokerError::Length(length)),
        };
        if pools.is_empty() { Err(BrokerError::Length(length)) } else { Ok(pools) }
    }

    /// Removes a tunnel.
    pub fn delete(&self, origin: Origin, id: u32) -> Result<()> {
        let _turn = self.turn();
        let t = self.store.remove_tunnel(id)?;
        self.plumb.forget(id);
        self.plumb.forget_address(t.server_inner());
        self.audit(origin, &t.account, format!("tunnel {id} \"{}\" removed", t.name));
        Ok(())
    }

    /// An account's tunnel by number or name.
    pub fn own(&self, account: &str, which: &str) -> Result<Tunnel> {
        let list = self.store.tunnels_of(account)?;
        let found = list.into_iter().find(|t| t.name == which || which.parse() == Ok(t.id));
        found.ok_or(BrokerError::NoTunnel)
    }

    /// A new update key.
    pub fn new_key(&self, origin: Origin, id: u32) -> Result<String> {
        let key = make_up();
        let hash = self.secrets.hash(&key)?;
        let (old, _) = self.store.change_tunnel(id, |t| t.key = hash)?;
        self.audit(origin, &old.account, format!("update key of tunnel {id} changed"));
        Ok(key)
    }

    /// Moves the client's end of a tunnel.
    pub fn update(&self, origin: Origin, id: u32, addr: IpAddr, port: Option<u16>) -> Result<Moved> {
        self.update_as(origin, id, None, addr, port)
    }

    /// The same, and its packets may travel another way from now on: all that it holds stays with it. A client that comes
    /// behind a NAT, or out of one, is the same client.
    pub fn update_as(
        &self,
        origin: Origin,
        id: u32,
        mode: Option<Mode>,
        addr: IpAddr,
        port: Option<u16>,
    ) -> Result<Moved> {
        let _turn = self.turn();
        let t = self.store.tunnel(id)?.ok_or(BrokerError::NoTunnel)?;
        let mode = mode.unwrap_or(t.mode);
        // Its own network is of the family inside.
        if (mode == Mode::FourInSix) != (t.mode == Mode::FourInSix) || !self.plumb.modes().contains(&mode) {
            return Err(BrokerError::Mode(mode.name().into()));
        }
        let same = t.endpoint == Some(addr) && t.mode == mode;
        // Who does not say a port has none to say: the data plane learns it.
        let port = if same { port.or(t.port) } else { port };
        if same && t.port == port {
            if origin.from.is_some() && !self.idle.take(id, Instant::now()) {
                return Err(BrokerError::TooOften);
            }
            self.hear(id);
            return Ok(Moved::Same(addr));
        }
        self.check_endpoint(mode, addr, port, Some(id))?;
        if origin.from.is_some() && !self.changes.take(id, Instant::now()) {
            self.audit(origin, &t.account, format!("refused: tunnel {id} changed too often"));
            return Err(BrokerError::TooOften);
        }
        let mut moved = t.clone();
        (moved.endpoint, moved.port, moved.mode) = (Some(addr), port, mode);
        self.plumb.set(&moved)?;
        let time = now();
        self.store.change_tunnel(id, |s| {
            (s.endpoint, s.port, s.changed, s.seen) = (Some(addr), port, Some(time), Some(time));
            s.mode = mode;
            s.until = if s.until == 0 { 0 } else { self.until(s.account == ANONYMOUS, time) };
        })?;
        let as_what = if mode == t.mode { String::new() } else { format!(", from now on {}", mode.name()) };
        self.audit(origin, &t.account, format!("tunnel {id} moved from {} to {addr}{as_what}", at(t.endpoint)));
        Ok(Moved::Good(addr))
    }

    /// The endpoint that a client over the network means: what it says, unless that is an address that only its own
    /// network knows; never somebody else's.
    pub fn claimed(&self, origin: Origin, said: Option<IpAddr>, mode: Mode) -> Result<IpAddr> {
        let from = origin.from.map(|f| f.to_canonical());
        let v4 = mode != Mode::FourInSix;
        match (said.map(|s| s.to_canonical()), from) {
            (None, Some(from)) if from.is_ipv4() == v4 => Ok(from),
            (None, _) => {
                Err(BrokerError::Endpoint("say which address: this request came over the other family".into()))
            }
            (Some(said), Some(from)) if said == from => Ok(said),
            (Some(said), None) => Ok(said),
            // Behind a NAT: the address that it was given outside.
            (Some(IpAddr::V4(said)), Some(from)) if v4 && from.is_ipv4() && !is_global(said) => Ok(from),
            (Some(said), Some(_)) => Err(BrokerError::Foreign(said)),
        }
    }

    fn check_endpoint(&self, mode: Mode, addr: IpAddr, port: Option<u16>, own: Option<u32>) -> Result<()> {
        let cannot = |why: &str| Err(BrokerError::Endpoint(format!("{addr} cannot be the end of a tunnel: {why}")));
        match addr {
            IpAddr::V4(_) if mode == Mode::FourInSix => return cannot("this mode needs an IPv6 address"),
            IpAddr::V6(_) if mode != Mode::FourInSix => return cannot("this mode needs an IPv4 address"),
            IpAddr::V4(a)
                if a.is_unspecified()
                    || a.is_multicast()
                    || a.is_loopback()
                    || a.octets()[0] >= 224
                    || a.octets()[0] == 0 =>
            {
                return cannot("not a unicast address");
            }
            IpAddr::V4(a) if !is_global(a) && !self.plan.private_endpoints => {
                return cannot("a private address (private_endpoints)");
            }
            IpAddr::V6(a) if a.is_unspecified() || a.is_multicast() || a.is_loopback() || a.is_unicast_link_local() => {
                return cannot("not a global unicast address");
            }
            _ => {}
        }
        if self.plumb.server(mode) == Some(addr) {
            return cannot("it is the server's own");
        }
        // A tunnel in one of our own tunnels.
        if let IpAddr::V6(a) = addr
            && self.pools().any(|p| p.net.contains(&a))
        {
            return cannot("it is an address of this broker's pools");
        }
        if self.store.tunnels_to(addr, port)?.iter().any(|t| t.mode == mode && Some(t.id) != own) {
            return Err(BrokerError::Taken(addr));
        }
        Ok(())
    }

    /// A client was heard.
    fn hear(&self, id: u32) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).0.insert(id, now());
    }

    /// From time to time: old ends go, use is noted, what is not used ends.
    pub fn tidy(&self, minutely: bool) {
        self.plumb.tidy(Instant::now());
        if !minutely {
            return;
        }
        for (id, port) in self.plumb.moved_ports() {
            if let Err(e) = self.store.change_tunnel(id, |t| t.port = Some(port)) {
                tracing::warn!(tunnel = id, "cannot note the port of a client: {e}");
            }
        }
        let time = now();
        let received: BTreeMap<u32, u64> =
            self.plumb.all_totals().into_iter().map(|(id, t)| (id, t.rx_packets)).collect();
        let list: Vec<(u32, Time, Time)> = {
            let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            let (heard, before) = &mut *heard;
            for (id, n) in &received {
                if before.get(id).copied().unwrap_or(0) < *n {
                    heard.insert(*id, time);
                }
            }
            *before = received;
            std::mem::take(heard).into_iter().map(|(id, at)| (id, at, at)).collect()
        };
        let result = (|| -> Result<()> {
            let tunnels: BTreeMap<u32, Tunnel> = self.store.tunnels()?.into_iter().map(|t| (t.id, t)).collect();
            // To the hour: a busy server would write all the time.
            let stale = |id: &u32| tunnels.get(id).is_some_and(|t| t.seen.is_none_or(|s| s + 3600 < time));
            let until = |id: u32| self.until(tunnels.get(&id).is_some_and(|t| t.account == ANONYMOUS), time);
            let mut due: Vec<(u32, Time, Time)> =
                list.iter().filter(|(id, ..)| stale(id)).map(|(id, at, _)| (*id, *at, until(*id))).collect();
            if !due.is_empty() {
                due.sort_unstable();
                self.store.seen(&due)?;
            }
            let fresh: Vec<u32> = due.iter().map(|(id, ..)| *id).collect();
            for t in tunnels.values().filter(|t| t.until != 0 && t.until < time && !fresh.contains(&t.id)) {
                self.delete(Origin { from: None, via: "lease" }, t.id)?;
            }
            Ok(())
        })();
        if let Err(e) = result {
            tracing::error!("broker: {e}");
        }
    }

    /// Tunnels as they are shown: the router is asked once, however many they are.
    pub fn infos(&self, list: &[Tunnel]) -> Vec<LeaseInfo> {
        match list {
            [one] => vec![self.info(one)],
            list => {
                let totals = self.plumb.all_totals();
                list.iter().map(|t| self.described(t, totals.get(&t.id).copied().unwrap_or_default())).collect()
            }
        }
    }

    /// A tunnel as it is shown.
    pub fn info(&self, t: &Tunnel) -> LeaseInfo {
        self.described(t, self.plumb.totals(t.id))
    }

    fn described(&self, t: &Tunnel, totals: PortTotals) -> LeaseInfo {
        let server = self.plumb.server(t.mode).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let overhead = match t.mode {
            Mode::SixInFour => 20,
            Mode::SixInUdp => 28,
            Mode::FourInSix => 40,
        };
        let link = t.link_net();
        let net = |a: IpAddr| IpNet::new(a, link.prefix_len()).unwrap_or(link);
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).0.get(&t.id).copied();
        LeaseInfo {
            id: t.id,
            account: t.account.clone(),
            name: t.name.clone(),
            mode: t.mode.name().into(),
            server,
            server_port: self.plumb.server_port(t.mode),
            endpoint: t.endpoint,
            endpoint_port: t.port,
            server_inner: net(t.server_inner()),
            client_inner: net(t.client_inner()),
            prefixes: t.prefixes.clone(),
            dev: self.plumb.dev(t.id),
            mtu: OUTER_MTU - overhead,
            created: t.created,
            changed: t.changed,
            seen: heard.or(t.seen),
            until: (t.until != 0).then_some(t.until),
            totals,
        }
    }
}

/// The password that was said, or one that was made up and is to be told.
fn chosen(password: Option<String>) -> Result<(String, Option<String>)> {
    match password {
        Some(p) if p.len() < 8 || p.len() > super::secret::LONGEST => {
            Err(BrokerError::Invalid("a password has 8 to 256 characters".into()))
        }
        Some(p) => Ok((p, None)),
        None => {
            let made = make_up();
            Ok((made.clone(), Some(made)))
        }
    }
}

fn at(endpoint: Option<IpAddr>) -> String {
    endpoint.map_or_else(|| "nowhere".into(), |a| a.to_string())
}

/// Whether an IPv4 address is not of a private network or a shared address space (RFC 1918, RFC 6598, RFC 3927).
fn is_global(a: Ipv4Addr) -> bool {
    let shared = a.octets()[0] == 100 && (64..128).contains(&a.octets()[1]);
    !(a.is_private() || a.is_link_local() || shared)
}
