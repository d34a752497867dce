//! The tunnels from brokers elsewhere. One thread looks every two seconds whether this end has moved or a tunnel has died; the
//! broker itself is asked by threads that last as long as that takes, so that a slow one holds up nothing else. Brokers with the
//! JSON API are asked once a minute in any case, which tells when only the outside of a NAT has moved; those that speak TSP when
//! half of the tunnel's lifetime is over, and when its keepalives are not answered.

use super::http::{Answer as HttpAnswer, Url, request};
use super::joined::{AGAIN, Entry, Joined, LONGEST, Login, Source};
use super::plumb::{here, links, set_up, take_down};
use super::tsp;
use crate::broker::http::{Given, Wish};
use crate::config::JoinPlan;
use crate::control::{Answer, Backend, BrokerAnswer, BrokerOp, JoinSpec, Op, TspInfo, TunnelInfo, WireError};
use crate::tsp_url::{TspUrl, is_tsp};
use router_core::port::PortKind;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often our own address is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How often a broker with the JSON API is asked.
const ASK: Duration = Duration::from_secs(60);
/// Tunnels from brokers.
const MOST: usize = 16;

/// See the module.
pub(crate) struct Keeper {
    router: Arc<dyn Backend>,
    list: Mutex<Vec<Arc<Entry>>>,
    /// Closed to end the thread.
    end: Mutex<Option<Sender<()>>>,
}

impl Keeper {
    /// Starts the thread, with the tunnels of the configuration.
    pub fn start(router: Arc<dyn Backend>, plans: Vec<(String, JoinPlan)>) -> std::io::Result<Arc<Keeper>> {
        let (end, ended) = mpsc::channel();
        let keeper = Arc::new(Keeper { router, list: Mutex::default(), end: Mutex::new(Some(end)) });
        let mine = Arc::clone(&keeper);
        std::thread::Builder::new().name("duet-join".into()).spawn(move || {
            for (name, plan) in plans {
                if let Err(e) = mine.configured(&name, plan) {
                    tracing::error!(tunnel = name, "not joined: {}", e.line);
                }
            }
            mine.look();
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(LOOK) {
                mine.look();
            }
        })?;
        Ok(keeper)
    }

    /// Ends the thread.
    pub fn stop(&self) {
        self.end.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Entry>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, entry: &Arc<Entry>) {
        entry.gone.store(true, Ordering::Release);
        self.list().retain(|e| !Arc::ptr_eq(e, entry));
    }

    fn configured(&self, name: &str, plan: JoinPlan) -> Result<(), WireError> {
        let key = match &plan.key_file {
            None => String::new(),
            Some(file) => std::fs::read_to_string(file)
                .map_err(|e| WireError::new("invalid", format!("{}: {e}", file.display()), ""))?,
        };
        let spec = JoinSpec {
            name: name.to_owned(),
            url: plan.url,
            user: plan.user,
            key: key.trim().to_owned(),
            prefix: plan.prefix,
            dev: plan.dev,
            lan: plan.lan,
            no_default: plan.no_default,
            local: plan.local,
            mode: plan.mode,
            auth: plan.auth,
            server: plan.server,
        };
        // The broker may not be reachable yet: the thread goes on asking.
        self.prepare(spec).map(|_| ())
    }

    /// Answers a request of the operator.
    pub fn answer(&self, op: BrokerOp) -> Result<BrokerAnswer, WireError> {
        match op {
            BrokerOp::Join(spec) => {
                let entry = self.prepare(*spec)?;
                let mut joined = entry.joined();
                let result = self.ask(&mut joined);
                entry.note(&joined);
                drop(joined);
                match result {
                    Ok(()) => Ok(BrokerAnswer::Joined(vec![entry.info()])),
                    Err(e) => {
                        self.remove(&entry);
                        Err(e)
                    }
                }
            }
            BrokerOp::Leave(name) => {
                let entry = self.list().iter().find(|e| e.name == name).cloned();
                let entry = entry.ok_or_else(|| {
                    WireError::not_found(format!(
                        "\"{name}\" is no tunnel from a broker; \"duet broker joined\" lists them"
                    ))
                })?;
                self.remove(&entry);
                // Whoever asks for it just now is waited for.
                let joined = entry.joined();
                take_down(&*self.router, &joined);
                give_back(&*self.router, &joined).map(|()| BrokerAnswer::Done)
            }
            _ => {
                let list: Vec<Arc<Entry>> = self.list().clone();
                Ok(BrokerAnswer::Joined(list.iter().map(|e| e.info()).collect()))
            }
        }
    }

    /// Puts a tunnel in the list, if it can be one.
    fn prepare(&self, mut spec: JoinSpec) -> Result<Arc<Entry>, WireError> {
        let invalid = |e: String| WireError::new("invalid", e, "");
        let source = match is_tsp(&spec.url) {
            true => Source::Tsp(TspUrl::parse(&spec.url).map_err(|e| invalid(e.to_string()))?),
            false => Source::Api(Url::parse(&spec.url).map_err(|e| invalid(e.to_string()))?),
        };
        if let (Source::Tsp(url), true) = (&source, spec.user.is_empty()) {
            spec.user = url.user.clone().unwrap_or_default();
        }
        // A line, or a field of one, would end there.
        if [&spec.user, &spec.key].into_iter().any(|t| t.chars().any(char::is_control)) {
            return Err(invalid("the account and its password are one line without control characters".into()));
        }
        let links = links(&*self.router)?;
        if links.iter().any(|l| l.name == spec.name) {
            return Err(WireError::exists(format!("there is a port or tunnel \"{}\" already", spec.name)));
        }
        for dev in [&spec.dev, &spec.lan].into_iter().flatten() {
            if !links.iter().any(|l| l.name == *dev) {
                return Err(WireError::no_device(dev));
            }
        }
        // The host's own stack is what this thread talks through: so the tunnel goes that way, too.
        if spec.dev.is_none() {
            spec.dev = links.iter().find(|l| l.kind == PortKind::RawIp).map(|l| l.name.clone());
        }
        let mut list = self.list();
        if list.len() >= MOST {
            return Err(invalid(format!("{MOST} tunnels from brokers are enough")));
        }
        if list.iter().any(|e| e.name == spec.name) {
            return Err(WireError::exists(format!("there is a tunnel \"{}\" from a broker already", spec.name)));
        }
        let entry = Arc::new(Entry::new(Joined::new(spec, source)));
        list.push(Arc::clone(&entry));
        Ok(entry)
    }

    /// Each tunnel: is it still wanted, has this end moved, has it died, is it time to ask?
    fn look(self: &Arc<Self>) {
        let Ok(Answer::Tunnels(there)) = self.router.call(Op::TunnelShow(None)) else { return };
        let list: Vec<Arc<Entry>> = self.list().clone();
        for entry in list {
            // Whoever asks for it just now looks for itself.
            if entry.busy.load(Ordering::Acquire) {
                continue;
            }
            let Some(mut joined) = entry.try_joined() else { continue };
            let tunnel = there.iter().find(|t| t.tunnel.name == entry.name);
            if joined.lease.is_some() && tunnel.is_none() {
                tracing::info!(tunnel = entry.name, "removed here");
                self.remove(&entry);
                drop(joined);
                self.aside(&entry, |keeper, j| {
                    take_down(&*keeper.router, j);
                    // An account's tunnel at a broker like ours stays, with its prefix, until it is left; by TSP, deleting is
                    // how a client says that it is gone.
                    if matches!(j.source, Source::Tsp(_))
                        && let Err(e) = give_back(&*keeper.router, j)
                    {
                        tracing::warn!(tunnel = j.spec.name, "{}", e.line);
                    }
                });
                continue;
            }
            if due(&mut joined, tunnel) {
                drop(joined);
                self.aside(&entry, Self::ask_again);
            }
        }
    }

    /// Does something that takes its time, unless such a thing is under way.
    fn aside(self: &Arc<Self>, entry: &Arc<Entry>, what: impl FnOnce(&Self, &mut Joined) + Send + 'static) {
        if entry.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let (keeper, mine) = (Arc::clone(self), Arc::clone(entry));
        let work = move || {
            let mut joined = mine.joined();
            what(&keeper, &mut joined);
            mine.note(&joined);
            drop(joined);
            mine.busy.store(false, Ordering::Release);
        };
        if std::thread::Builder::new().name("duet-join".into()).spawn(work).is_err() {
            entry.busy.store(false, Ordering::Release);
        }
    }

    fn ask_again(&self, j: &mut Joined) {
        // Left in the meantime.
        if !self.list().iter().any(|e| e.name == j.spec.name && !e.is_gone()) {
            return;
        }
        match self.ask(j) {
            Ok(()) => (j.problem, j.wait) = (None, AGAIN),
            Err(e) => {
                if j.problem.as_ref() != Some(&e.line) {
                    tracing::warn!(tunnel = j.spec.name, broker = j.spec.url, "{}", e.line);
                }
                j.problem = Some(e.line);
                j.due = Instant::now() + j.wait;
                j.wait = (j.wait * 2).min(LONGEST);
            }
        }
    }

    /// Asks the broker, and does what it says.
    fn ask(&self, j: &mut Joined) -> Result<(), WireError> {
        match j.source.clone() {
            Source::Api(url) => self.ask_api(j, &url),
            Source::Tsp(url) => self.ask_tsp(j, &url),
        }
    }

    fn ask_api(&self, j: &mut Joined, url: &Url) -> Result<(), WireError> {
        let wish = Wish { mode: Some("6in4".into()), prefix: j.spec.prefix, endpoint: None };
        let body = serde_json::to_vec(&wish).map_err(|e| WireError::new("failed", e.to_string(), ""))?;
        let path = format!("/api/v1/tunnels/{}", j.spec.name);
        let answer = request(url, "PUT", &path, &j.spec.user, &j.spec.key, &body).map_err(|e| {
            WireError::new("failed", format!("Broker: {e}"), "is the address right, does this host have a way there?")
        })?;
        if answer.status != 200 {
            return Err(refused(&answer));
        }
        let given: Given = serde_json::from_slice(&answer.body)
            .map_err(|e| WireError::new("failed", format!("Broker: not understood: {e}"), ""))?;
        let local = j.spec.local.unwrap_or(answer.local).to_canonical();
        set_up(&*self.router, j, given.tunnel, local, None)?;
        if given.moved {
            j.updates += 1;
            tracing::info!(tunnel = j.spec.name, seen_from = %given.seen_from, "the broker knows this end");
        }
        j.seen = j.own_address().or(j.seen);
        j.due = Instant::now() + ASK;
        Ok(())
    }

    fn ask_tsp(&self, j: &mut Joined, url: &TspUrl) -> Result<(), WireError> {
        let mut here = here(&*self.router, j)?;
        here.bare &= !(j.eaten && here.door.is_some() && matches!(j.spec.mode.as_deref(), None | Some("any")));
        let got = tsp::create(url, &j.spec, &here).map_err(|e| e.told())?;
        let (seen, own) = (got.lease.endpoint, got.own.to_canonical());
        let info = TspInfo {
            carrier: got.carrier.into(),
            auth: got.login.to_ascii_lowercase(),
            mode: got.lease.mode.clone(),
            by: got.by,
            seen: seen.filter(|s| *s != own),
            seen_port: got.lease.endpoint_port,
            age: 0,
            renew: 0,
        };
        set_up(&*self.router, j, got.lease, own, Some(got.keepalive))?;
        j.updates += 1;
        let now = Instant::now();
        tracing::info!(tunnel = j.spec.name, broker = j.spec.url, by = info.carrier, "logged in");
        j.login = Some(Login { info, at: now, renew: now + got.renew });
        j.seen = j.own_address().or(j.seen);
        j.due = now + got.renew;
        Ok(())
    }
}

/// Whether the broker is to be asked now.
fn due(j: &mut Joined, tunnel: Option<&TunnelInfo>) -> bool {
    let now = Instant::now();
    let seen = j.own_address();
    let moved = seen.is_some() && seen != j.seen;
    j.seen = seen.or(j.seen);
    // A NAT that gives another address, or a server that has forgotten: a new login mends both.
    let dead = matches!(j.source, Source::Tsp(_)) && tunnel.and_then(|t| t.life.as_ref()).is_some_and(|l| !l.alive);
    let revive = dead && now >= j.dead.0;
    if moved {
        // Another place, another path.
        j.eaten = false;
    } else if revive && j.lease.as_ref().is_some_and(|l| l.mode == "6in4") {
        // Bare packets were promised and do not come through: in UDP they may.
        j.eaten = true;
    }
    match dead {
        true if revive => j.dead = (now + j.dead.1, (j.dead.1 * 2).min(LONGEST)),
        true => {}
        false => j.dead = (now, AGAIN),
    }
    moved || revive || now >= j.due
}

/// Tells the broker that the tunnel is not wanted any more.
fn give_back(router: &dyn Backend, j: &Joined) -> Result<(), WireError> {
    let untold = |why: String| {
        let hint = "it ends there by itself when its lease does";
        WireError::new("failed", format!("The tunnel is gone here, but the broker does not know: {why}"), hint)
    };
    match &j.source {
        Source::Api(url) => {
            let path = format!("/api/v1/tunnels/{}", j.spec.name);
            match request(url, "DELETE", &path, &j.spec.user, &j.spec.key, b"") {
                Ok(a) if a.status == 204 || a.status == 404 => Ok(()),
                Ok(a) => Err(refused(&a)),
                Err(e) => Err(untold(e.to_string())),
            }
        }
        Source::Tsp(url) => {
            let Some(lease) = &j.lease else { return Ok(()) };
            let here = here(router, j)?;
            tsp::delete(url, &j.spec, &here, &lease.mode).map_err(|e| untold(e.to_string()))
        }
    }
}

/// What the broker said instead of a tunnel.
fn refused(a: &HttpAnswer) -> WireError {
    #[derive(serde::Deserialize)]
    struct Why {
        error: String,
    }
    let why =
        serde_json::from_slice::<Why>(&a.body).map(|w| w.error.chars().filter(|c| !c.is_control()).take(300).collect());
    let why: String = why.unwrap_or_else(|_| format!("HTTP status {}", a.status));
    let hint = match a.status {
        401 | 403 => "user and key-file belong together; the broker's operator knows the account",
        409 => "the broker's operator can raise limits and enlarge pools",
        _ => "",
    };
    WireError::new("denied", format!("The broker refuses: {why}."), hint)
}
