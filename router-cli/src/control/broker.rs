//! What may be asked of the tunnel broker of a running router, and of the client of somebody else's.

use ipnet::IpNet;
use router_core::counters::PortTotals;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A request to the broker, or to the client of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BrokerOp {
    /// New account.
    AccountAdd {
        /// Its name.
        name: String,
        /// Its password; None: the broker makes one up and tells it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<String>,
        /// How many tunnels it may have; None: the configuration's `max_tunnels_per_account`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_tunnels: Option<u32>,
    },
    /// Remove an account with its tunnels.
    AccountDelete(String),
    /// Accounts: one or all.
    AccountShow(Option<String>),
    /// New password.
    AccountPassword {
        /// Whose.
        name: String,
        /// None: the broker makes one up and tells it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<String>,
    },
    /// Block or unblock an account.
    AccountEnable {
        /// Which.
        name: String,
        /// Whether it may log in and its tunnels work.
        enabled: bool,
    },
    /// New tunnel.
    TunnelAdd(TunnelWish),
    /// Move the client's end.
    TunnelEndpoint {
        /// Which.
        id: u32,
        /// Where it is now.
        endpoint: IpAddr,
    },
    /// Make a new update key, which replaces the old one.
    TunnelKey(u32),
    /// Remove a tunnel; its prefixes return to their pools.
    TunnelDelete(u32),
    /// Tunnels: one or all.
    TunnelShow(Option<u32>),
    /// How full the pools are.
    PoolShow,
    /// The last entries of the audit log.
    Audit(u32),
    /// What was heard, and what was lost.
    Stats,
    /// Get a tunnel from a broker elsewhere and keep it.
    Join(Box<JoinSpec>),
    /// Give up a tunnel that a broker elsewhere gave.
    Leave(String),
    /// Tunnels of brokers elsewhere.
    Joined,
}

impl BrokerOp {
    /// Whether it changes anything.
    pub fn is_write(&self) -> bool {
        !matches!(
            self,
            BrokerOp::AccountShow(_)
                | BrokerOp::TunnelShow(_)
                | BrokerOp::PoolShow
                | BrokerOp::Audit(_)
                | BrokerOp::Stats
                | BrokerOp::Joined
        )
    }
}

/// What a new tunnel shall be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TunnelWish {
    /// Whose.
    pub account: String,
    /// What the account calls it.
    pub name: String,
    /// `6in4`, `6inudp4` or `4in6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Where the client is; None: it will say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<IpAddr>,
    /// Lengths of the prefixes to delegate: 48 or 64.
    #[serde(default)]
    pub prefixes: Vec<u8>,
}

/// What the broker answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BrokerAnswer {
    /// Done.
    Done,
    /// A password or key that was made up, told this once.
    Secret(String),
    /// Accounts.
    Accounts(Vec<AccountInfo>),
    /// Tunnels.
    Tunnels(Vec<LeaseInfo>),
    /// A new tunnel and its update key, told this once.
    Created(Box<LeaseInfo>, String),
    /// Pools.
    Pools(Vec<PoolInfo>),
    /// Entries of the audit log, oldest first.
    Audit(Vec<AuditInfo>),
    /// What was heard, and what was lost.
    Stats(BrokerStats),
    /// Tunnels of brokers elsewhere.
    Joined(Vec<JoinInfo>),
}

/// What the broker has heard since its start, and what it could not listen to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BrokerStats {
    /// TSP messages over UDP that were looked at.
    pub tsp_datagrams: u64,
    /// TSP connections.
    pub tsp_connections: u64,
    /// TSP messages lost because the queue from the tunnels' UDP port was full.
    pub tsp_queue_full: u64,
    /// TSP messages and connections dropped because one peer sent too many.
    pub tsp_rate: u64,
    /// TSP messages dropped because too many were being answered.
    pub tsp_busy: u64,
    /// TSP messages and connections dropped because there were too many conversations.
    pub tsp_full: u64,
    /// HTTP requests.
    pub http_requests: u64,
    /// HTTP connections closed because there were too many, in all or of one peer.
    pub http_full: u64,
    /// HTTP requests refused because one peer sent too many.
    pub http_rate: u64,
    /// Requests of either protocol refused because too much work was waiting: the database, the router, hashes.
    pub busy: u64,
}

/// An account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccountInfo {
    /// Its name.
    pub name: String,
    /// Whether it may log in and its tunnels work.
    pub enabled: bool,
    /// Its tunnels.
    pub tunnels: u32,
    /// How many it may have.
    pub max_tunnels: u32,
    /// When it was made, seconds since 1970.
    pub created: i64,
}

/// A tunnel that was handed out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeaseInfo {
    /// Its number: the `hostname` of the update call.
    pub id: u32,
    /// Whose.
    pub account: String,
    /// What the account calls it.
    pub name: String,
    /// `6in4`, `6inudp4` or `4in6`.
    pub mode: String,
    /// The server's outer address.
    pub server: IpAddr,
    /// The server's UDP port, if the mode has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_port: Option<u16>,
    /// The client's outer address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<IpAddr>,
    /// The client's UDP port, if the mode has ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_port: Option<u16>,
    /// The server's inner address.
    pub server_inner: IpNet,
    /// The client's inner address.
    pub client_inner: IpNet,
    /// Delegated prefixes.
    pub prefixes: Vec<IpNet>,
    /// The port of the router that carries it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// Inner MTU in bytes that every way carries.
    pub mtu: u32,
    /// When it was made, seconds since 1970.
    pub created: i64,
    /// When its endpoint changed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<i64>,
    /// When the client was last heard: an update, or a packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<i64>,
    /// When it ends unless it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// Counters.
    #[serde(default)]
    pub totals: PortTotals,
}

/// A pool of prefixes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolInfo {
    /// What it is for: `links`, `prefixes` or `subnets`.
    pub name: String,
    /// Its prefix.
    pub prefix: IpNet,
    /// Length of what it hands out.
    pub length: u8,
    /// How many it has.
    pub size: u64,
    /// How many are in use.
    pub used: u64,
}

/// An entry of the audit log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditInfo {
    /// Seconds since 1970.
    pub time: i64,
    /// Who: an account, or `operator`.
    pub who: String,
    /// From where, if over the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// By which way: `control`, `update`, `tsp`, `web`, `api`.
    pub via: String,
    /// What was done, or refused.
    pub what: String,
}

/// A tunnel to get from a broker elsewhere.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JoinSpec {
    /// The tunnel's name here.
    pub name: String,
    /// The broker: `http://HOST[:PORT]`, `https://`, or `tsp://[USER@]HOST[:PORT]`.
    pub url: String,
    /// The account there; empty: none.
    pub user: String,
    /// Its password.
    pub key: String,
    /// Length of the prefix to ask for; None: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<u8>,
    /// Carry the outer packets through this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// Port that gets the first /64 of the prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lan: Option<String>,
    /// Install no default route.
    #[serde(default)]
    pub no_default: bool,
    /// The outer address to use; None: the one that the host uses towards the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// The kind of tunnel to ask for by TSP: `any`, `6in4`, `6inudp4`, `4in6`; None: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// The only login to use by TSP: `digest-md5`, `plain`, `anonymous`; None: the best that is safe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<String>,
    /// Where a tunnel by TSP may end beside the broker itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<IpAddr>,
}

impl std::fmt::Debug for JoinSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of logs.
        write!(f, "JoinSpec({} of {} at {})", self.name, self.user, self.url)
    }
}

/// A tunnel from a broker elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JoinInfo {
    /// The tunnel's name here.
    pub name: String,
    /// The broker.
    pub url: String,
    /// The account there.
    pub user: String,
    /// The tunnel's number there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// The outer addresses, ours first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer: Option<(IpAddr, IpAddr)>,
    /// Delegated prefixes.
    pub prefixes: Vec<IpNet>,
    /// How often the endpoint was updated; by TSP, how often this router logged in.
    pub updates: u64,
    /// How the last login by TSP went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tsp: Option<TspInfo>,
    /// What went wrong last, if it still does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A login by the tunnel set-up protocol (RFC 5572).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TspInfo {
    /// `udp` or `tcp`.
    pub carrier: String,
    /// `digest-md5`, `plain` or `anonymous`.
    pub auth: String,
    /// What was given: `6in4`, `6inudp4` or `4in6`.
    pub mode: String,
    /// Who gave it, if the broker sent us there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Our outer address as the server sees it, if a NAT makes it another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<IpAddr>,
    /// The UDP port beside it, if the server says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_port: Option<u16>,
    /// Seconds since then.
    pub age: u64,
    /// Seconds until the next one, if nothing happens before.
    pub renew: u64,
}
