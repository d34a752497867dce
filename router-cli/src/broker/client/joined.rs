//! One tunnel from a broker: what was wanted, what was given, how it goes.

use super::http::Url;
use crate::control::{JoinInfo, JoinSpec, LeaseInfo, TspInfo};
use crate::tsp_url::TspUrl;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How long to wait after a failure: doubled up to the longest.
pub(super) const AGAIN: Duration = Duration::from_secs(4);
pub(super) const LONGEST: Duration = Duration::from_secs(120);

/// Whom to ask.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The JSON API.
    Api(Url),
    /// The tunnel set-up protocol.
    Tsp(TspUrl),
}

/// How the last login went.
#[derive(Clone, Debug)]
pub(super) struct Login {
    /// What is shown.
    pub info: TspInfo,
    /// Since when.
    pub at: Instant,
    /// When the next one is due.
    pub renew: Instant,
}

/// One tunnel.
#[derive(Debug)]
pub(super) struct Joined {
    pub spec: JoinSpec,
    pub source: Source,
    pub lease: Option<LeaseInfo>,
    /// Our outer address, as the tunnel has it.
    pub local: Option<IpAddr>,
    /// The address that the host would use now.
    pub seen: Option<IpAddr>,
    pub due: Instant,
    pub wait: Duration,
    /// Until when a tunnel whose server does not answer is left alone, and how long the next time.
    pub dead: (Instant, Duration),
    pub updates: u64,
    /// The path eats protocol 41, as far as is known: UDP is asked for.
    pub eaten: bool,
    pub login: Option<Login>,
    pub problem: Option<String>,
}

impl Joined {
    /// Not asked for yet.
    pub fn new(spec: JoinSpec, source: Source) -> Self {
        let now = Instant::now();
        let (lease, local, seen, login, problem) = (None, None, None, None, None);
        Joined {
            spec,
            source,
            lease,
            local,
            seen,
            due: now,
            wait: AGAIN,
            dead: (now, AGAIN),
            updates: 0,
            eaten: false,
            login,
            problem,
        }
    }

    /// As it is shown.
    pub fn info(&self) -> JoinInfo {
        let login = self.login.as_ref().map(|l| TspInfo {
            age: l.at.elapsed().as_secs(),
            renew: l.renew.saturating_duration_since(Instant::now()).as_secs(),
            ..l.info.clone()
        });
        JoinInfo {
            name: self.spec.name.clone(),
            url: self.spec.url.clone(),
            user: self.spec.user.clone(),
            id: self.lease.as_ref().map(|l| l.id).filter(|id| *id != 0),
            outer: self.local.zip(self.lease.as_ref().map(|l| l.server)),
            prefixes: self.lease.as_ref().map(|l| l.prefixes.clone()).unwrap_or_default(),
            updates: self.updates,
            tsp: login,
            problem: self.problem.clone(),
        }
    }

    /// The address that the host would use towards the broker, or the tunnel's other end: no packet is sent.
    pub fn own_address(&self) -> Option<IpAddr> {
        if self.spec.local.is_some() {
            return self.spec.local;
        }
        let target: SocketAddr = match (&self.lease, &self.source) {
            (Some(l), _) => (l.server, 9).into(),
            // Whoever has no tunnel yet asks again by the clock.
            (None, Source::Tsp(_)) => return None,
            (None, Source::Api(url)) => url.place().to_socket_addrs().ok()?.find(|a| a.is_ipv4())?,
        };
        super::tsp::toward(target).ok()
    }
}

/// A tunnel in the list: what is going on is known without waiting for it.
#[derive(Debug)]
pub(super) struct Entry {
    pub name: String,
    joined: Mutex<Joined>,
    shown: Mutex<JoinInfo>,
    /// Somebody asks for it right now.
    pub busy: AtomicBool,
    /// It is not wanted any more.
    pub gone: AtomicBool,
}

impl Entry {
    /// In the list, not asked for yet.
    pub fn new(joined: Joined) -> Self {
        let shown = Mutex::new(joined.info());
        let (busy, gone) = (AtomicBool::new(false), AtomicBool::new(false));
        Entry { name: joined.spec.name.clone(), joined: Mutex::new(joined), shown, busy, gone }
    }

    /// Waits for what is going on.
    pub fn joined(&self) -> MutexGuard<'_, Joined> {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None while something is going on.
    pub fn try_joined(&self) -> Option<MutexGuard<'_, Joined>> {
        match self.joined.try_lock() {
            Ok(joined) => Some(joined),
            Err(TryLockError::Poisoned(e)) => Some(e.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// What is known, without waiting.
    pub fn info(&self) -> JoinInfo {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(joined) = self.try_joined() {
            *shown = joined.info();
        }
        shown.clone()
    }

    /// Notes what is shown while something is going on next.
    pub fn note(&self, joined: &Joined) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = joined.info();
    }

    /// Whether nobody wants it any more.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}
