//! The database: one file (redb), every change one transaction that is on the disk when it returns. A crash leaves the
//! state before or after a change, nothing else.

use super::model::{Account, Audit, Time, Tunnel};
use super::pool::Pool;
use ipnet::{IpNet, Ipv6Net};
use redb::backends::FileBackend;
use redb::{
    Database, Durability, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition,
    WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

const ACCOUNTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("accounts");
const TUNNELS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("tunnels");
/// Account and number of each tunnel.
const OWNERS: TableDefinition<'_, (&str, u32), ()> = TableDefinition::new("owners");
/// Prefix in use, as 16 bytes and a length, and the tunnel that has it.
const PREFIXES: TableDefinition<'_, [u8; 17], u32> = TableDefinition::new("prefixes");
/// The other end of each tunnel that has one: address, port (0: none), number.
const ENDS: TableDefinition<'_, ([u8; 16], u16, u32), ()> = TableDefinition::new("ends");
const AUDIT: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("audit");
/// Counters: `schema`, `tunnel` (the last number), and where the search in each pool goes on.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// Version of the tables.
const SCHEMA: u64 = 1;
/// The first tunnel's number: long enough for clients that take short names for mistakes.
const FIRST_ID: u64 = 10_001;
/// Entries kept of the audit log.
const AUDIT_MAX: u64 = 100_000;

/// Why the database did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be used.
    #[error("database {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// It was written by another program.
    #[error("the database has format {0}, this program knows {SCHEMA}")]
    Schema(u64),
    /// Reading or writing failed.
    #[error("database: {0}")]
    Failed(Box<redb::Error>),
    /// An entry is damaged.
    #[error("database: damaged entry: {0}")]
    Damaged(#[from] serde_json::Error),
    /// There is one of this name.
    #[error("there is an account \"{0}\" already")]
    Exists(String),
    /// There is none of this name or number.
    #[error("there is no {0}")]
    Missing(String),
    /// A limit of the configuration.
    #[error("{0}")]
    Full(String),
}

macro_rules! from_redb {
    ($($error:ident)+) => {$(
        impl From<redb::$error> for StoreError {
            fn from(e: redb::$error) -> Self {
                StoreError::Failed(Box::new(e.into()))
            }
        }
    )+};
}

from_redb!(TransactionError TableError StorageError CommitError SetDurabilityError);

type Result<T> = std::result::Result<T, StoreError>;

/// See the module.
pub struct Store {
    db: Database,
}

fn key_of(net: &IpNet) -> [u8; 17] {
    let mut key = [0; 17];
    match net {
        IpNet::V6(n) => key[..16].copy_from_slice(&n.network().octets()),
        IpNet::V4(n) => key[..16].copy_from_slice(&n.network().to_ipv6_mapped().octets()),
    }
    key[16] = net.prefix_len() + if matches!(net, IpNet::V4(_)) { 96 } else { 0 };
    key
}

fn addr_bytes(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
        IpAddr::V6(a) => a.octets(),
    }
}

/// A tunnel's entry in [`ENDS`].
fn end_of(t: &Tunnel) -> Option<([u8; 16], u16, u32)> {
    Some((addr_bytes(t.endpoint?), t.port.unwrap_or(0), t.id))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    Ok(serde_json::from_slice(bytes)?)
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

impl Store {
    /// Opens the file, or makes it; nobody but its owner may read it.
    pub fn open(path: &Path) -> Result<Self> {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        let failed = |e: redb::Error| StoreError::Open { path: path.to_owned(), source: Box::new(e) };
        if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| failed(e.into()))?;
        }
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(|e| failed(e.into()))?;
        let backend = FileBackend::new(file).map_err(|e| failed(e.into()))?;
        let db = Database::builder().set_cache_size(16 << 20).create_with_backend(backend);
        let db = db.map_err(|e| failed(e.into()))?;
        let store = Store { db };
        let schema = store.write(|tx| {
            tx.open_table(ACCOUNTS)?;
            tx.open_table(TUNNELS)?;
            tx.open_table(OWNERS)?;
            tx.open_table(PREFIXES)?;
            tx.open_table(AUDIT)?;
            // Files of older programs lack it.
            let mut ends = tx.open_table(ENDS)?;
            if ends.is_empty()? {
                for entry in tx.open_table(TUNNELS)?.iter()? {
                    if let Some(end) = end_of(&decode::<Tunnel>(entry?.1.value())?) {
                        ends.insert(end, ())?;
                    }
                }
            }
            let mut meta = tx.open_table(META)?;
            let found = meta.get("schema")?.map(|v| v.value());
            if found.is_none() {
                meta.insert("schema", SCHEMA)?;
            }
            Ok(found.unwrap_or(SCHEMA))
        })?;
        if schema == SCHEMA { Ok(store) } else { Err(StoreError::Schema(schema)) }
    }

    fn write<T>(&self, f: impl FnOnce(&WriteTransaction) -> Result<T>) -> Result<T> {
        let tx = self.db.begin_write()?;
        let out = f(&tx)?;
        tx.commit()?;
        Ok(out)
    }

    fn read<T>(&self, f: impl FnOnce(&ReadTransaction) -> Result<T>) -> Result<T> {
        f(&self.db.begin_read()?)
    }

    /// An account.
    pub fn account(&self, name: &str) -> Result<Option<Account>> {
        self.read(|tx| tx.open_table(ACCOUNTS)?.get(name)?.map(|v| decode(v.value())).transpose())
    }

    /// All accounts by name, each with the number of its tunnels.
    pub fn accounts(&self) -> Result<Vec<(Account, u32)>> {
        self.read(|tx| {
            let owners = tx.open_table(OWNERS)?;
            let mut out = Vec::new();
            for entry in tx.open_table(ACCOUNTS)?.iter()? {
                let account: Account = decode(entry?.1.value())?;
                let tunnels = owners.range((account.name.as_str(), 0)..=(account.name.as_str(), u32::MAX))?.count();
                out.push((account, tunnels as u32));
            }
            Ok(out)
        })
    }

    /// A new account, unless there are `max` already.
    pub fn add_account(&self, account: &Account, max: u32) -> Result<()> {
        self.write(|tx| {
            let mut table = tx.open_table(ACCOUNTS)?;
            if table.get(account.name.as_str())?.is_some() {
                return Err(StoreError::Exists(account.name.clone()));
            }
            if table.len()? >= u64::from(max) {
                return Err(StoreError::Full(format!("there are {max} accounts already (max_accounts)")));
            }
            table.insert(account.name.as_str(), encode(account)?.as_slice())?;
            Ok(())
        })
    }

    /// Changes an account.
    pub fn change_account(&self, name: &str, change: impl FnOnce(&mut Account)) -> Result<()> {
        self.write(|tx| {
            let mut table = tx.open_table(ACCOUNTS)?;
            let found = table.get(name)?.map(|v| decode::<Account>(v.value())).transpose()?;
            let mut account = found.ok_or_else(|| StoreError::Missing(format!("account \"{name}\"")))?;
            change(&mut account);
            table.insert(name, encode(&account)?.as_slice())?;
            Ok(())
        })
    }

    /// Removes an account, which has no tunnels any more.
    pub fn remove_account(&self, name: &str) -> Result<()> {
        self.write(|tx| match tx.open_table(ACCOUNTS)?.remove(name)? {
            Some(_) => Ok(()),
            None => Err(StoreError::Missing(format!("account \"{name}\""))),
        })
    }

    /// A tunnel.
    pub fn tunnel(&self, id: u32) -> Result<Option<Tunnel>> {
        self.read(|tx| tx.open_table(TUNNELS)?.get(id)?.map(|v| decode(v.value())).transpose())
    }

    /// All tunnels by number.
    pub fn tunnels(&self) -> Result<Vec<Tunnel>> {
        self.read(|tx| tx.open_table(TUNNELS)?.iter()?.map(|e| decode(e?.1.value())).collect())
    }

    /// An account's tunnels by number.
    pub fn tunnels_of(&self, account: &str) -> Result<Vec<Tunnel>> {
        self.read(|tx| {
            let tunnels = tx.open_table(TUNNELS)?;
            let mut out = Vec::new();
            for entry in tx.open_table(OWNERS)?.range((account, 0)..=(account, u32::MAX))? {
                if let Some(bytes) = tunnels.get(entry?.0.value().1)? {
                    out.push(decode(bytes.value())?);
                }
            }
            Ok(out)
        })
    }

    /// A new tunnel: `make` gets its number, its link and its prefixes, one from each of `pools`, each of which is a list
    /// of pools to try in order. `limits` are tunnels of the account and in all.
    pub fn add_tunnel(
        &self,
        account: &str,
        links: &Pool,
        pools: &[&[Pool]],
        limits: (u32, u32),
        make: impl FnOnce(u32, Ipv6Net, Vec<IpNet>) -> Tunnel,
    ) -> Result<Tunnel> {
        self.write(|tx| {
            let mut tunnels = tx.open_table(TUNNELS)?;
            let mut owners = tx.open_table(OWNERS)?;
            let mut prefixes = tx.open_table(PREFIXES)?;
            let mut meta = tx.open_table(META)?;
            let own = owners.range((account, 0)..=(account, u32::MAX))?.count() as u64;
            if own >= u64::from(limits.0) {
                return Err(StoreError::Full(format!("account \"{account}\" has {own} tunnels already")));
            }
            if tunnels.len()? >= u64::from(limits.1) {
                return Err(StoreError::Full(format!("there are {} tunnels already (max_tunnels)", limits.1)));
            }
            let id = meta.get("tunnel")?.map_or(FIRST_ID, |v| v.value() + 1);
            meta.insert("tunnel", id)?;
            let id = u32::try_from(id).map_err(|_| StoreError::Full("the numbers of tunnels are used up".into()))?;
            let mut take = |choice: &[Pool]| -> Result<Ipv6Net> {
                for pool in choice {
                    let place = format!("{} {}", pool.of.name(), pool.net);
                    let from = meta.get(place.as_str())?.map_or(0, |v| v.value()) % pool.size();
                    let mut index = from;
                    // A prefix that was given back is used again only after all others: whoever had it may still be
                    // sending.
                    while let Some(part) = pool.part(index) {
                        let key = key_of(&IpNet::V6(part));
                        if prefixes.get(key)?.is_none() {
                            prefixes.insert(key, id)?;
                            meta.insert(place.as_str(), pool.next(index))?;
                            return Ok(part);
                        }
                        index = pool.next(index);
                        if index == from {
                            break;
                        }
                    }
                }
                let of = choice.first().map_or("prefixes", |p| p.of.name());
                Err(StoreError::Full(format!("all of {of} are in use")))
            };
            let link = take(std::slice::from_ref(links))?;
            let delegated = pools.iter().map(|c| take(c).map(IpNet::V6)).collect::<Result<Vec<_>>>()?;
            let tunnel = make(id, link, delegated);
            owners.insert((account, id), ())?;
            tunnels.insert(id, encode(&tunnel)?.as_slice())?;
            if let Some(end) = end_of(&tunnel) {
                tx.open_table(ENDS)?.insert(end, ())?;
            }
            Ok(tunnel)
        })
    }

    /// Changes a tunnel, its number, account, link and prefixes aside; gives what it was and what it is.
    pub fn change_tunnel(&self, id: u32, change: impl FnOnce(&mut Tunnel)) -> Result<(Tunnel, Tunnel)> {
        self.write(|tx| {
            let mut table = tx.open_table(TUNNELS)?;
            let found = table.get(id)?.map(|v| decode::<Tunnel>(v.value())).transpose()?;
            let old = found.ok_or_else(|| StoreError::Missing(format!("tunnel {id}")))?;
            let mut new = old.clone();
            change(&mut new);
            table.insert(id, encode(&new)?.as_slice())?;
            let (was, is) = (end_of(&old), end_of(&new));
            if was != is {
                let mut ends = tx.open_table(ENDS)?;
                if let Some(end) = was {
                    ends.remove(end)?;
                }
                if let Some(end) = is {
                    ends.insert(end, ())?;
                }
            }
            Ok((old, new))
        })
    }

    /// The tunnels whose other end is there. Looks at these only, however many tunnels there are.
    pub fn tunnels_to(&self, addr: IpAddr, port: Option<u16>) -> Result<Vec<Tunnel>> {
        let (addr, port) = (addr_bytes(addr), port.unwrap_or(0));
        self.read(|tx| {
            let tunnels = tx.open_table(TUNNELS)?;
            let mut found = Vec::new();
            for entry in tx.open_table(ENDS)?.range((addr, port, 0)..=(addr, port, u32::MAX))? {
                let (_, _, id) = entry?.0.value();
                found.extend(tunnels.get(id)?.map(|v| decode::<Tunnel>(v.value())).transpose()?);
            }
            Ok(found)
        })
    }

    /// Removes a tunnel and frees its prefixes.
    pub fn remove_tunnel(&self, id: u32) -> Result<Tunnel> {
        self.write(|tx| {
            let mut table = tx.open_table(TUNNELS)?;
            let found = table.remove(id)?.map(|v| decode::<Tunnel>(v.value())).transpose()?;
            let tunnel = found.ok_or_else(|| StoreError::Missing(format!("tunnel {id}")))?;
            tx.open_table(OWNERS)?.remove((tunnel.account.as_str(), id))?;
            let mut prefixes = tx.open_table(PREFIXES)?;
            for net in tunnel.held() {
                prefixes.remove(key_of(&net))?;
            }
            if let Some(end) = end_of(&tunnel) {
                tx.open_table(ENDS)?.remove(end)?;
            }
            Ok(tunnel)
        })
    }

    /// How many parts of a pool are in use.
    pub fn used(&self, pool: &Pool) -> Result<u64> {
        let (Some(first), Some(last)) = (pool.part(0), pool.part(pool.size() - 1)) else { return Ok(0) };
        let range = key_of(&IpNet::V6(first))..=key_of(&IpNet::V6(last));
        self.read(|tx| {
            let mut used = 0;
            for entry in tx.open_table(PREFIXES)?.range(range)? {
                used += u64::from(entry?.0.value()[16] == pool.length);
            }
            Ok(used)
        })
    }

    /// Appends to the audit log; the oldest entries go. `lazy`: may be lost in a crash, for what strangers can cause.
    pub fn audit(&self, entry: &Audit, lazy: bool) -> Result<()> {
        let mut tx = self.db.begin_write()?;
        if lazy {
            tx.set_durability(Durability::None)?;
        }
        {
            let mut table = tx.open_table(AUDIT)?;
            let next = table.last()?.map_or(0, |(k, _)| k.value() + 1);
            table.insert(next, encode(entry)?.as_slice())?;
            while table.len()? > AUDIT_MAX {
                table.pop_first()?;
            }
        }
        Ok(tx.commit()?)
    }

    /// The last entries of the audit log, oldest first.
    pub fn audits(&self, last: usize) -> Result<Vec<Audit>> {
        let mut list = self.read(|tx| {
            let table = tx.open_table(AUDIT)?;
            table.iter()?.rev().take(last).map(|e| decode::<Audit>(e?.1.value())).collect::<Result<Vec<_>>>()
        })?;
        list.reverse();
        Ok(list)
    }

    /// Notes that clients were heard, and until when their tunnels are kept: one transaction for all.
    pub fn seen(&self, list: &[(u32, Time, Time)]) -> Result<()> {
        self.write(|tx| {
            let mut table = tx.open_table(TUNNELS)?;
            for (id, seen, until) in list {
                let found = table.get(*id)?.map(|v| decode::<Tunnel>(v.value())).transpose()?;
                if let Some(mut t) = found {
                    t.seen = Some(*seen);
                    t.until = if t.until == 0 { 0 } else { *until };
                    table.insert(*id, encode(&t)?.as_slice())?;
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::Mode;
    use super::super::pool::Use;
    use super::*;

    fn links() -> Pool {
        Pool { of: Use::Links, net: "2001:db8:f::/62".parse().unwrap(), length: 64 }
    }

    fn account(name: &str) -> Account {
        Account {
            name: name.into(),
            password: "p".into(),
            legacy: "l".into(),
            digest: None,
            enabled: true,
            max_tunnels: None,
            created: 1,
        }
    }

    fn add(store: &Store, who: &str, pools: &[&[Pool]]) -> Result<Tunnel> {
        store.add_tunnel(who, &links(), pools, (3, 100), |id, link, prefixes| Tunnel {
            id,
            account: who.into(),
            name: "home".into(),
            mode: Mode::SixInFour,
            endpoint: None,
            port: None,
            link,
            prefixes,
            key: "k".into(),
            created: 1,
            changed: None,
            seen: None,
            until: 0,
        })
    }

    #[test]
    fn all_of_it_survives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/b.redb");
        let store = Store::open(&path).unwrap();
        store.add_account(&account("joe"), 2).unwrap();
        assert!(matches!(store.add_account(&account("joe"), 2), Err(StoreError::Exists(_))));
        store.add_account(&account("ann"), 2).unwrap();
        assert!(matches!(store.add_account(&account("bob"), 2), Err(StoreError::Full(_))));
        let big = [Pool { of: Use::Prefixes, net: "2001:db8:4000::/47".parse().unwrap(), length: 48 }];
        let t = add(&store, "joe", &[&big]).unwrap();
        assert_eq!((t.id, t.link.to_string()), (10_001, "2001:db8:f::/64".into()));
        assert_eq!(t.prefixes, ["2001:db8:4000::/48".parse::<IpNet>().unwrap()]);
        assert_eq!((store.used(&big[0]).unwrap(), store.used(&links()).unwrap()), (1, 1));
        let (old, new) = store.change_tunnel(t.id, |t| t.endpoint = "192.0.2.1".parse().ok()).unwrap();
        assert_eq!((old.endpoint, new.endpoint), (None, "192.0.2.1".parse().ok()));
        drop(store);
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let store = Store::open(&path).unwrap();
        assert_eq!(store.tunnels().unwrap(), std::slice::from_ref(&new));
        assert_eq!(store.tunnels_of("joe").unwrap(), [new]);
        assert!(store.tunnels_of("ann").unwrap().is_empty());
        assert_eq!(
            store.accounts().unwrap().iter().map(|(a, n)| (a.name.as_str(), *n)).collect::<Vec<_>>(),
            [("ann", 0), ("joe", 1)]
        );
    }

    #[test]
    fn prefixes_are_used_again_last_and_limits_hold() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("b.redb")).unwrap();
        let big = [Pool { of: Use::Prefixes, net: "2001:db8:4000::/47".parse().unwrap(), length: 48 }];
        let a = add(&store, "joe", &[&big]).unwrap();
        store.remove_tunnel(a.id).unwrap();
        let b = add(&store, "joe", &[&big]).unwrap();
        assert_ne!(a.prefixes, b.prefixes);
        assert_ne!(a.id, b.id);
        let c = add(&store, "joe", &[&big]).unwrap();
        assert_eq!(a.prefixes, c.prefixes);
        // Nothing is taken when one of the pools is empty.
        assert!(matches!(add(&store, "joe", &[&big]), Err(StoreError::Full(_))));
        assert_eq!(store.used(&links()).unwrap(), 2);
        add(&store, "joe", &[]).unwrap();
        assert!(matches!(add(&store, "joe", &[]), Err(StoreError::Full(_))));
        assert!(matches!(store.remove_tunnel(a.id), Err(StoreError::Missing(_))));
    }

    #[test]
    fn the_audit_log_keeps_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("b.redb")).unwrap();
        for i in 0..5 {
            let entry = Audit { time: i, who: "joe".into(), from: None, via: "web".into(), what: format!("{i}") };
            store.audit(&entry, i % 2 == 0).unwrap();
        }
        let last: Vec<String> = store.audits(3).unwrap().into_iter().map(|a| a.what).collect();
        assert_eq!(last, ["2", "3", "4"]);
    }

    #[test]
    fn tunnels_are_found_by_their_other_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.redb");
        let store = Store::open(&path).unwrap();
        store.add_account(&account("ann"), 10).unwrap();
        let ids: Vec<u32> = (0..3).map(|_| add(&store, "ann", &[]).unwrap().id).collect();
        let (one, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let at = |store: &Store, addr, port| -> Vec<u32> {
            store.tunnels_to(addr, port).unwrap().iter().map(|t| t.id).collect()
        };
        store.change_tunnel(ids[0], |t| t.endpoint = Some(one)).unwrap();
        store.change_tunnel(ids[1], |t| (t.endpoint, t.port) = (Some(one), Some(4000))).unwrap();
        store.change_tunnel(ids[2], |t| t.endpoint = Some(one)).unwrap();
        assert_eq!((at(&store, one, None), at(&store, one, Some(4000))), (vec![ids[0], ids[2]], vec![ids[1]]));
        store.change_tunnel(ids[0], |t| t.endpoint = Some(other)).unwrap();
        store.remove_tunnel(ids[2]).unwrap();
        assert_eq!((at(&store, one, None), at(&store, other, None)), (vec![], vec![ids[0]]));
        // A file of an older program.
        store.write(|tx| Ok(tx.delete_table(ENDS)?)).unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!((at(&store, other, None), at(&store, one, Some(4000))), (vec![ids[0]], vec![ids[1]]));
    }
}
