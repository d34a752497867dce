//! HTTP for strangers: everything is bounded. Connections (in all and per peer), the time of one, the size of header and
//! body, requests per peer; work goes to a few threads of its own, hashing to fewer still.

mod api;
mod commands;
mod html;
mod nic;
mod pages;
mod session;
mod steps;
#[cfg(test)]
mod tests;

pub use api::{Given, Wish};

use super::limit::peer;
use super::model::Account;
use super::service::{BrokerError, Origin, Service, Spoken};
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use session::Sessions;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// Connections in all.
const CONNECTIONS: usize = 512;
/// Connections of one peer.
const PER_PEER: usize = 24;
/// How long one connection may take, handshake, request and answer together.
const CONNECTION_TIME: Duration = Duration::from_secs(30);
/// How long the header may take.
const HEADER_TIME: Duration = Duration::from_secs(8);
/// Longest header, in bytes.
const HEADER: usize = 16 << 10;
/// Longest body, in bytes.
const BODY: usize = 16 << 10;
/// Hashes that may be waited for by requests.
const HASH_QUEUE: usize = 12;

/// What the handlers share.
pub struct Web {
    /// The broker.
    pub service: Arc<Service>,
    pub(super) sessions: Sessions,
    /// Whether TLS is spoken.
    pub tls: bool,
    light: Semaphore,
    heavy: Semaphore,
    heavy_waiting: AtomicUsize,
}

/// The peer of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

impl Web {
    /// For this broker.
    pub fn new(service: Arc<Service>, tls: bool) -> Self {
        Web {
            service,
            sessions: Sessions::default(),
            tls,
            light: Semaphore::new(64),
            heavy: Semaphore::new(2),
            heavy_waiting: AtomicUsize::new(0),
        }
    }

    fn busy(&self) -> BrokerError {
        self.service.stats.busy.one();
        BrokerError::Busy
    }

    /// Something that touches the database or the router.
    pub async fn light<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Service) -> Result<T, BrokerError> + Send + 'static,
    ) -> Result<T, BrokerError> {
        let _permit = self.light.try_acquire().map_err(|_| self.busy())?;
        let service = Arc::clone(&self.service);
        tokio::task::spawn_blocking(move || f(&service)).await.unwrap_or(Err(BrokerError::Busy))
    }

    /// Something that makes hashes: few at a time, so that they never hold up the rest.
    pub async fn heavy<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Service) -> Result<T, BrokerError> + Send + 'static,
    ) -> Result<T, BrokerError> {
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::AcqRel);
            }
        }
        let _waiting = Waiting(&self.heavy_waiting);
        if self.heavy_waiting.fetch_add(1, Ordering::AcqRel) >= HASH_QUEUE {
            return Err(self.busy());
        }
        let _permit = self.heavy.acquire().await.map_err(|_| BrokerError::Busy)?;
        let service = Arc::clone(&self.service);
        tokio::task::spawn_blocking(move || f(&service)).await.unwrap_or(Err(BrokerError::Busy))
    }

    /// Logs in; who did lately does not wait for those who did not.
    pub async fn login(
        &self,
        origin: Origin,
        user: String,
        password: String,
        spoken: Spoken,
        tunnel: Option<u32>,
    ) -> Result<Account, BrokerError> {
        let (u, p) = (user.clone(), password.clone());
        if let Some(account) = self.light(move |s| s.knows(origin, &u, &p, spoken, tunnel)).await? {
            return Ok(account);
        }
        self.heavy(move |s| s.login_for(origin, &user, &password, spoken, tunnel)).await
    }
}

/// User and password of a basic authorization (RFC 7617).
pub fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = data_encoding::BASE64.decode(rest.trim().as_bytes()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// All paths.
pub fn router(web: Arc<Web>) -> Router {
    Router::new()
        .merge(nic::routes())
        .merge(api::routes())
        .merge(pages::routes())
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn_with_state(Arc::clone(&web), guard))
        .with_state(web)
}

/// Requests per peer, and headers that every answer has.
async fn guard(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    let from = request.extensions().get::<Peer>().map(|p| p.0);
    let update = request.uri().path().starts_with("/nic/");
    let allowed = from.is_none_or(|from| web.service.requests.take(peer(from), Instant::now()));
    let stats = &web.service.stats;
    if allowed {
        stats.http_requests.one()
    } else {
        stats.http_rate.one()
    }
    let mut response = match allowed {
        true => next.run(request).await,
        // Update clients know words, not codes.
        false if update => "911\n".into_response(),
        false => (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "10")], "too many requests\n").into_response(),
    };
    let headers = response.headers_mut();
    let fixed: [(_, &'static str); 7] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Not "no-referrer": browsers would send forms with "Origin: null".
        (header::REFERRER_POLICY, "same-origin"),
        (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::HeaderName::from_static("permissions-policy"), "interest-cohort=()"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if web.tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    response
}

/// Connections by peer.
#[derive(Default)]
struct Counted(Mutex<HashMap<IpAddr, usize>>);

/// One connection's place.
struct Slot(Arc<Counted>, IpAddr);

impl Counted {
    fn enter(self: &Arc<Self>, from: IpAddr) -> Option<Slot> {
        let from = peer(from);
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let n = table.entry(from).or_default();
        if *n >= PER_PEER {
            return None;
        }
        *n += 1;
        drop(table);
        Some(Slot(Arc::clone(self), from))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = table.get_mut(&self.1) {
            *n -= 1;
            if *n == 0 {
                table.remove(&self.1);
            }
        }
    }
}

/// Accepts connections until the runtime ends.
pub async fn serve(listener: TcpListener, web: Arc<Web>, tls: Option<TlsAcceptor>) {
    let app = router(Arc::clone(&web));
    let all = Arc::new(Semaphore::new(CONNECTIONS));
    let peers = Arc::new(Counted::default());
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of descriptors: connections end within half a minute.
                tracing::warn!("broker: cannot accept: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (Ok(permit), Some(slot)) = (Arc::clone(&all).try_acquire_owned(), peers.enter(from.ip())) else {
            web.service.stats.http_full.one();
            continue;
        };
        let (app, tls) = (app.clone(), tls.clone());
        tokio::spawn(async move {
            let _held = (permit, slot);
            let _ = stream.set_nodelay(true);
            let talk = async {
                match tls {
                    Some(tls) => match tls.accept(stream).await {
                        Ok(stream) => connection(stream, from, app).await,
                        Err(e) => tracing::debug!(%from, "broker: TLS: {e}"),
                    },
                    None => connection(stream, from, app).await,
                }
            };
            let _ = tokio::time::timeout(CONNECTION_TIME, talk).await;
        });
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin>(stream: S, from: SocketAddr, app: Router) {
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(from.ip().to_canonical()));
        app.clone().oneshot(request.map(Body::new))
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(HEADER).keep_alive(false);
    if let Err(e) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%from, "broker: HTTP: {e}");
    }
}
