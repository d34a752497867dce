//! A broker on a stand-in for the router, for tests.

use super::http::Web;
use super::model::{Account, now};
use super::secret::md5_hex;
use super::service::Service;
use crate::config::BrokerPlan;
use crate::control::{Answer, Backend, Op};
use crate::fake::FakeBackend;
use std::sync::Arc;
use std::time::Duration;

/// A broker with the account `joe`, password `secret`, as the recorded clients have it.
pub struct Bench {
    pub web: Arc<Web>,
    pub router: Arc<FakeBackend>,
    _dir: tempfile::TempDir,
}

/// As the recorded servers were.
pub fn plan(dir: &std::path::Path) -> BrokerPlan {
    BrokerPlan {
        name: "lab.example".into(),
        listen: Vec::new(),
        tls: None,
        tsp: Vec::new(),
        database: dir.join("broker.redb"),
        endpoint: "192.0.2.1".parse().ok(),
        endpoint6: None,
        dev: None,
        udp_port: None,
        udp_dev: None,
        encap_auto: false,
        udp_keepalive: Duration::from_secs(20),
        links: "2001:db8:7::/48".parse().unwrap(),
        links4: None,
        prefixes: vec!["2001:db8:7000::/36".parse().unwrap()],
        subnets: vec!["2001:db8:8::/48".parse().unwrap()],
        dns: vec!["2001:db8:7::53".parse().unwrap()],
        lease: Duration::from_secs(604_800),
        anonymous_lease: Duration::from_secs(604_800),
        anonymous: true,
        digest_md5: true,
        private_endpoints: false,
        max_tunnels_per_account: 5,
        max_tunnels: 100,
        max_accounts: 100,
        overlap: Duration::from_secs(10),
    }
}

impl Bench {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut BrokerPlan)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut plan = plan(dir.path());
        change(&mut plan);
        let router = Arc::new(FakeBackend::with_ports(&["lan0"]));
        let service = Service::start(plan, Arc::clone(&router) as Arc<dyn Backend>).unwrap();
        // Shorter than accounts may have it today.
        let hash = |t: &str| service.secrets.hash(t).unwrap();
        let account = Account {
            name: "joe".into(),
            password: hash("secret"),
            legacy: hash(&md5_hex(b"secret")),
            digest: Some(md5_hex(b"joe:lab.example:secret")),
            enabled: true,
            max_tunnels: None,
            created: now(),
        };
        service.store.add_account(&account, 10).unwrap();
        Bench { web: Arc::new(Web::new(Arc::new(service), false)), router, _dir: dir }
    }

    /// Name, local and remote end of the router's tunnels.
    pub fn tunnels(&self) -> Vec<(String, String)> {
        match self.router.call(Op::TunnelShow(None)).unwrap() {
            Answer::Tunnels(list) => {
                list.iter().map(|t| (t.tunnel.name.clone(), t.tunnel.remote.to_string())).collect()
            }
            _ => panic!(),
        }
    }

    /// What may come out of a tunnel.
    pub fn allowed(&self, name: &str) -> Vec<String> {
        match self.router.call(Op::TunnelShow(Some(name.into()))).unwrap() {
            Answer::Tunnels(list) => list[0].tunnel.options.allowed.iter().map(|n| n.to_string()).collect(),
            _ => panic!(),
        }
    }

    /// Where a prefix is routed to.
    pub fn route(&self, prefix: &str) -> Option<String> {
        let select = crate::control::RouteSelect {
            dst: Some(crate::control::PrefixSelect::Exact(prefix.parse().unwrap())),
            ..Default::default()
        };
        let (list, _) = self.router.routes(&select, None, 10).unwrap();
        list.iter().find_map(|r| r.route.hops.first()?.dev.clone())
    }
}

/// Runs a future on a runtime like the broker's.
pub fn run<T>(f: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(f)
}

/// A file of `router-cli/recordings`.
pub fn recording(name: &str) -> Vec<u8> {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("recordings").join(name);
    std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}
