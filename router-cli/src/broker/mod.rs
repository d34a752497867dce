//! The tunnel broker: hands tunnels of this router out to accounts, and keeps their ends where the clients are.
//!
//! It lives in the process of `duet run` when the configuration has a `[broker]` section; docs/decisions says why. It has
//! threads of its own, without any capability, and talks to the router by the very operations of the control socket: the
//! workers know nothing of it, and a slow or hostile client meets limits here long before it could disturb anybody.
//!
//! * [`store`], [`model`], [`pool`]: what is kept, crash safe, in one file
//! * [`secret`], [`limit`], [`stats`]: hashes, lockout, rates, what was lost to them
//! * [`service`], [`plumb`]: who may do what; what the router has to know
//! * [`http`], [`tsp`]: update clients, the web page and its API; RFC 5572
//! * [`admin`]: the operator's commands
//! * [`client`]: the other side, `duet tunnel add NAME broker URL`

mod admin;
pub(crate) mod client;
pub(crate) mod http;
mod limit;
mod model;
mod plumb;
mod pool;
mod secret;
mod service;
mod stats;
mod store;
#[cfg(test)]
mod testing;
pub(crate) mod tsp;

use crate::backend::BrokerDesk;
use crate::config::{BrokerPlan, Plan};
use crate::control::{Backend, BrokerOp, WireError};
use client::Keeper;
use http::Web;
use router_core::port::PortKind;
use router_io::port::udp::signals;
use service::Service;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Threads that may wait for the disk, the router or a hash.
const BLOCKING: usize = 6;

/// Why the broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket.
    #[error("broker: cannot listen on {addr}: {source}")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A certificate or key.
    #[error("broker: {path}: {why}")]
    Tls {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The database or the router.
    #[error("broker: {0}")]
    Service(#[from] service::BrokerError),
    /// Threads.
    #[error("broker: {0}")]
    Threads(#[from] std::io::Error),
}

/// Sockets and files that may need the rights that the process gives up.
pub(crate) struct Doors {
    plan: Option<BrokerPlan>,
    http: Vec<TcpListener>,
    tls: Option<TlsAcceptor>,
    tsp_tcp: Vec<TcpListener>,
    tsp_udp: Vec<UdpSocket>,
    /// Addresses whose UDP port is a `udp` port of the router.
    tsp_shared: Vec<SocketAddr>,
    keeper: Vec<(String, crate::config::JoinPlan)>,
}

/// Opens what the configuration names.
pub(crate) fn open(plan: &Plan) -> Result<Doors, StartError> {
    let mut doors = Doors {
        plan: plan.broker.clone(),
        http: Vec::new(),
        tls: None,
        tsp_tcp: Vec::new(),
        tsp_udp: Vec::new(),
        tsp_shared: Vec::new(),
        keeper: plan.joins.iter().map(|(n, j)| (n.clone(), j.clone())).collect(),
    };
    let Some(b) = &plan.broker else { return Ok(doors) };
    let tcp = |addr: &SocketAddr| -> Result<TcpListener, StartError> {
        let open = || -> std::io::Result<TcpListener> {
            let listener = TcpListener::bind(addr)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        open().map_err(|source| StartError::Listen { addr: *addr, source })
    };
    let udp = |addr: &SocketAddr| -> Result<UdpSocket, StartError> {
        let open = || -> std::io::Result<UdpSocket> {
            let socket = UdpSocket::bind(addr)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        open().map_err(|source| StartError::Listen { addr: *addr, source })
    };
    doors.http = b.listen.iter().map(tcp).collect::<Result<_, _>>()?;
    doors.tsp_tcp = b.tsp.iter().map(tcp).collect::<Result<_, _>>()?;
    let shared = |addr: &SocketAddr| {
        let has = |local: Option<std::net::IpAddr>| local.is_none_or(|l| l == addr.ip() || addr.ip().is_unspecified());
        plan.ports.values().any(|p| p.kind == PortKind::Udp && p.listen.contains(&addr.port()) && has(p.local))
    };
    (doors.tsp_shared, doors.tsp_udp) = {
        let (shared, own): (Vec<SocketAddr>, Vec<SocketAddr>) = b.tsp.iter().partition(|a| shared(a));
        (shared, own.iter().map(udp).collect::<Result<_, _>>()?)
    };
    doors.tls = b.tls.as_ref().map(|(cert, key)| acceptor(cert, key)).transpose()?;
    Ok(doors)
}

fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, StartError> {
    let wrong = |path: &Path, why: String| StartError::Tls { path: path.display().to_string(), why };
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|e| wrong(cert, e.to_string()))?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|e| wrong(key, e.to_string()))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(chain, key_der))
        .map_err(|e| wrong(cert, e.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The running broker, and the client of others. Ends when dropped.
pub(crate) struct Broker {
    runtime: Option<Runtime>,
    service: Option<Arc<Service>>,
    keeper: Arc<Keeper>,
    _claims: Vec<signals::Claimed>,
}

impl Broker {
    /// Starts its threads, which have the rights that the calling thread has now.
    pub fn start(doors: Doors, router: Arc<dyn Backend>) -> Result<Broker, StartError> {
        let keeper = Keeper::start(Arc::clone(&router), doors.keeper)?;
        let Some(plan) = doors.plan else {
            return Ok(Broker { runtime: None, service: None, keeper, _claims: Vec::new() });
        };
        let service = Arc::new(Service::start(plan, router)?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(BLOCKING)
            .thread_name("duet-broker")
            .on_thread_start(calm)
            .enable_all()
            .build()?;
        let web = Arc::new(Web::new(Arc::clone(&service), doors.tls.is_some()));
        let _inside = runtime.enter();
        for listener in doors.http {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            runtime.spawn(http::serve(listener, Arc::clone(&web), doors.tls.clone()));
        }
        let desk = Arc::new(tsp::Desk::new(Arc::clone(&web)));
        for listener in doors.tsp_tcp {
            runtime.spawn(tsp::serve_tcp(tokio::net::TcpListener::from_std(listener)?, Arc::clone(&desk)));
        }
        for socket in doors.tsp_udp {
            runtime.spawn(tsp::serve_udp(tokio::net::UdpSocket::from_std(socket)?, Arc::clone(&desk)));
        }
        let mut claims = Vec::new();
        for addr in doors.tsp_shared {
            // A flood fills the queue and no more.
            let (to, signals) = tokio::sync::mpsc::channel(256);
            let of = Arc::clone(&service);
            claims.push(signals::claim(addr, move |signal| tsp::enqueue(&to, signal, &of.stats.tsp_queue_full)));
            runtime.spawn(tsp::serve_signals(signals, Arc::clone(&desk)));
        }
        let tidied = Arc::clone(&service);
        runtime.spawn(async move {
            let mut clock = tokio::time::interval(Duration::from_secs(1));
            clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            for n in 0u64.. {
                clock.tick().await;
                let service = Arc::clone(&tidied);
                let _ = tokio::task::spawn_blocking(move || service.tidy(n % 60 == 59)).await;
            }
        });
        drop(_inside);
        Ok(Broker { runtime: Some(runtime), service: Some(service), keeper, _claims: claims })
    }

    /// Who answers the operator's requests.
    pub fn desk(&self) -> Arc<BrokerDesk> {
        let (service, keeper) = (self.service.clone(), Arc::clone(&self.keeper));
        Arc::new(move |op| match op {
            BrokerOp::Join(_) | BrokerOp::Leave(_) | BrokerOp::Joined => keeper.answer(op),
            op => match &service {
                Some(service) => admin::answer(service, op),
                None => Err(WireError::new(
                    "failed",
                    "Error: this router is no tunnel broker.",
                    "write a [broker] section in its configuration and start it again; docs/broker.md has an example",
                )),
            },
        })
    }

    /// Ends its threads.
    pub fn stop(mut self) {
        self.keeper.stop();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(3));
        }
        if let Some(service) = &self.service {
            service.plumb.stop();
        }
    }
}

/// Forwarding comes first where threads compete for a processor.
fn calm() {
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 10);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let one = rcgen::generate_simple_self_signed(["b.example".to_owned()]).unwrap();
        let two = rcgen::generate_simple_self_signed(["b.example".to_owned()]).unwrap();
        let cert = write("cert.pem", one.cert.pem());
        let key = write("key.pem", one.signing_key.serialize_pem());
        let other = write("other.pem", two.signing_key.serialize_pem());
        assert!(acceptor(&cert, &key).is_ok());
        for (cert, key) in [(&cert, &other), (&key, &key), (&cert, &cert), (&dir.path().join("none"), &key)] {
            let e = acceptor(cert, key).map(|_| ()).unwrap_err();
            assert!(e.to_string().contains(&dir.path().display().to_string()), "{e}");
        }
    }

    /// A browser's handshake, and a page over it.
    /// Proves rfc3053-5-security.
    #[test]
    fn pages_over_tls() {
        use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
        use std::io::{Read, Write};
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let bench = testing::Bench::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (web, tls) = (Arc::new(Web::new(Arc::clone(&bench.web.service), true)), acceptor(&cert, &key).unwrap());
        runtime.spawn(async move {
            http::serve(tokio::net::TcpListener::from_std(listener).unwrap(), web, Some(tls)).await
        });
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        let mut stream = StreamOwned::new(connection, std::net::TcpStream::connect(addr).unwrap());
        stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("strict-transport-security"), "{text}");
    }
}
