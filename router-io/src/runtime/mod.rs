//! A running router: worker threads, the control thread, and the handle by which everybody else talks to it.

mod control;
mod flows;
mod links;
mod ports;
pub mod privileges;
pub mod replay;
mod signals;
mod watch;

#[cfg(test)]
mod tests;

pub use control::{Control, Settled, Watcher};
pub use flows::{OffloadStatus, OffloadedFlow};
pub use ports::ControlError;
pub use signals::{Signal, Signals};
pub use watch::{Capture, MAX_TRACED, Trace, Traced, WatchError};

use crate::clock::{Clock, VirtualClock};
use crate::sys::sched;
use crate::sys::wake::Wake;
use crate::worker::{Worker, WorkerParts, reports};
use arc_swap::ArcSwap;
use control::{Command, ControlParts, WorkerLink};
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};
use privileges::{OF_PORTS, keep_only_and_tell};
use router_core::counters::WorkerCounters;
use router_core::router::Router;
use router_core::settings::Settings;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Frames that may wait for the control thread, from all workers together; one port's flood takes half of them at most
/// ([`reports`]).
const REPORTS: usize = 1024;
/// Messages that may wait for one worker.
const NEWS: usize = 256;
/// Commands that may wait for the control thread; more callers wait in line.
const COMMANDS: usize = 256;

/// How to run a router.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Worker threads, at least one. Several are pinned, each to a processor of its own, if there are enough.
    pub workers: usize,
    /// Room for ports. Tunnels beyond it find room as they come: they have no queues.
    pub max_ports: usize,
    /// Timers and limits.
    pub settings: Settings,
    /// Feeds hashes and random choices; None draws a new one.
    pub seed: Option<u64>,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        RuntimeConfig { workers: 1, max_ports: 1024, settings: Settings::default(), seed: None }
    }
}

/// A running router. Dropping it stops it; [`Runtime::stop`] also says how that went.
pub struct Runtime {
    handle: RouterHandle,
    control: Option<JoinHandle<()>>,
    workers: Vec<JoinHandle<io::Result<()>>>,
}

impl Runtime {
    /// Starts the threads, in the calling thread's network namespace. The router has no ports yet. The threads give up
    /// the capabilities that they do not need ([`privileges`]); the calling thread keeps its own.
    pub fn start(config: RuntimeConfig) -> io::Result<Self> {
        let (control, workers, handle) = assemble(config, Clock::monotonic())?;
        allow_pinned_memory();
        // From here on, dropping the runtime stops what has been started.
        let mut runtime = Runtime { handle, control: None, workers: Vec::new() };
        let builder = std::thread::Builder::new().name("control".to_owned());
        runtime.control = Some(builder.spawn(move || {
            let may_open_tun = || open_is_allowed(Path::new("/dev/net/tun"));
            keep_only_and_tell("control", &OF_PORTS, may_open_tun);
            answer_soon();
            control.run();
        })?);
        let places = processors(workers.len());
        for (i, worker) in workers.into_iter().enumerate() {
            let name = format!("worker{i}");
            let place = places.get(i).copied();
            let builder = std::thread::Builder::new().name(name.clone());
            let last_words = StopAtEnd(runtime.handle());
            runtime.workers.push(builder.spawn(move || {
                let _last_words = last_words;
                if let Some(processor) = place {
                    stay_on(processor);
                }
                keep_only_and_tell(&name, &[], || true);
                worker.run()
            })?);
        }
        Ok(runtime)
    }

    /// False once the router has stopped, by command or because a thread failed; [`Runtime::stop`] then says why.
    pub fn is_running(&self) -> bool {
        self.control.as_ref().is_some_and(|c| !c.is_finished())
    }

    /// A handle for commands.
    pub fn handle(&self) -> RouterHandle {
        self.handle.clone()
    }

    /// Stops all threads, closes all ports and undoes what was changed on the host.
    pub fn stop(mut self) -> Result<(), StopError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), StopError> {
        let _ = self.handle.send(Box::new(Control::stop));
        let mut result = Ok(());
        // The control thread waits until its workers have closed their queues, then lets go of the devices.
        for (i, worker) in self.workers.drain(..).enumerate() {
            match worker.join() {
                Ok(Ok(())) => {}
                Ok(Err(e)) => result = Err(StopError::Worker(i, e)),
                Err(_) => result = Err(StopError::Panicked(format!("worker {i}"))),
            }
        }
        if let Some(control) = self.control.take()
            && control.join().is_err()
        {
            result = Err(StopError::Panicked("the control thread".to_owned()));
        }
        result
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            tracing::error!(error = %e, "the router did not stop in order");
        }
    }
}

/// Stops the router when a worker ends, for whatever reason: without one of its workers a router would drop packets
/// silently.
struct StopAtEnd(RouterHandle);

impl Drop for StopAtEnd {
    fn drop(&mut self) {
        // Never waits: a control thread that is itself ending, or waiting for this worker, would not answer.
        if self.0.commands.try_send(Box::new(Control::stop)).is_ok() {
            self.0.wake.ring();
        }
    }
}

/// Workers if nobody says how many: one for each processor that this process may use.
pub fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Processors for so many workers, one each. None when there are fewer than that, and for a single worker: the scheduler
/// keeps that away from processors that are busy with interrupts.
fn processors(workers: usize) -> Vec<usize> {
    if workers < 2 {
        return Vec::new();
    }
    let Ok(allowed) = sched_getaffinity(None) else { return Vec::new() };
    let list: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|c| allowed.is_set(*c)).take(workers).collect();
    if list.len() == workers { list } else { Vec::new() }
}

/// Under overload a worker keeps a processor busy for good: threads that answer an operator, or neighbours, should not wait for
/// the end of its turns. For the calling thread and those that it makes.
pub fn answer_soon() {
    if let Err(e) = sched::answer_soon() {
        tracing::debug!(error = %e, "the scheduler grants no short turns");
    }
}

/// Pins the calling thread.
fn stay_on(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    if let Err(e) = sched_setaffinity(None, &set) {
        tracing::debug!(processor, error = %e, "cannot pin a worker");
    }
}

/// Memory that `xdp` ports share with the kernel counts against a limit, which threads without capabilities cannot raise.
fn allow_pinned_memory() {
    let limit = getrlimit(Resource::Memlock);
    let wish = |maximum| setrlimit(Resource::Memlock, Rlimit { current: maximum, maximum });
    // None is "unlimited". Where that is refused, as much as may be; the port says so if it is too little.
    if wish(None).is_err() {
        let _ = wish(limit.maximum);
    }
}

/// Whether the calling thread may open a device; true if it is not there.
fn open_is_allowed(device: &Path) -> bool {
    match std::fs::File::options().read(true).write(true).open(device) {
        Ok(_) => true,
        Err(e) => e.kind() != io::ErrorKind::PermissionDenied,
    }
}

/// What went wrong while running, noticed at the end.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// A worker could not wait for its ports.
    #[error("worker {0} failed: {1}")]
    Worker(usize, io::Error),
    /// A thread panicked: a bug.
    #[error("{0} panicked; please report this with the message above")]
    Panicked(String),
}

/// The router has been stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the router has stopped")]
pub struct Stopped;

/// What is never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Never {}

/// Runs commands on the control thread. Cheap to clone, usable from any thread but the control thread itself.
#[derive(Clone)]
pub struct RouterHandle {
    commands: Sender<Command>,
    wake: Wake,
    /// Nothing ever comes here: it is closed when the control thread has ended.
    life: Receiver<Never>,
}

impl fmt::Debug for RouterHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouterHandle").field("waiting", &self.commands.len()).finish()
    }
}

impl RouterHandle {
    /// Whether the control thread lives: it neither ended nor panicked.
    pub fn is_alive(&self) -> bool {
        self.life.try_recv() == Err(TryRecvError::Empty)
    }

    /// Runs `f` on the control thread and waits for its result. What it changed is in force when this returns.
    pub fn call<R: Send + 'static>(&self, f: impl FnOnce(&mut Control) -> R + Send + 'static) -> Result<R, Stopped> {
        let (tx, rx) = bounded(1);
        self.send(Box::new(move |control: &mut Control| {
            let result = f(control);
            control.commit();
            // The caller may have given up.
            let _ = tx.send(result);
        }))?;
        // What waits in a bounded channel whose receiver goes is not dropped, and with it `tx` is not: hence the other one.
        crossbeam_channel::select! {
            recv(rx) -> result => result.map_err(|_| Stopped),
            recv(self.life) -> _ => rx.try_recv().map_err(|_| Stopped),
        }
    }

    fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).map_err(|_| Stopped)?;
        self.wake.ring();
        Ok(())
    }
}

/// Makes all parts of a router and joins them, without starting any thread.
fn assemble(config: RuntimeConfig, clock: Clock) -> io::Result<(Control, Vec<Worker>, RouterHandle)> {
    let seed = config.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    let counters = Arc::new(WorkerCounters::new(config.max_ports));
    let router = Router::new(config.settings, seed, Arc::clone(&counters));
    let tables = Arc::new(ArcSwap::new(router.tables()));
    let (commands_tx, commands) = bounded(COMMANDS);
    // In a replay both ends are the same thread, which must not wait for itself.
    let replaying = matches!(clock, Clock::Virtual(_));
    let (reports_tx, reports) = reports::queue((!replaying).then_some(REPORTS));
    let wake = Wake::new()?;
    let (alive, life) = bounded(0);
    let mut workers = Vec::new();
    let mut links = Vec::new();
    for _ in 0..config.workers.max(1) {
        let (news_tx, news) = if replaying { unbounded() } else { bounded(NEWS) };
        let worker_wake = Wake::new()?;
        let counters = Arc::new(WorkerCounters::new(config.max_ports));
        links.push(WorkerLink { news: news_tx, wake: worker_wake.clone(), counters: Arc::clone(&counters) });
        workers.push(Worker::new(WorkerParts {
            clock: clock.clone(),
            tables: Arc::clone(&tables),
            counters,
            seed,
            max_ports: config.max_ports,
            news,
            wake: worker_wake,
            reports: reports_tx.clone(),
            wake_control: wake.clone(),
        })?);
    }
    let virtual_clock = match &clock {
        Clock::Virtual(c) => c.clone(),
        Clock::Monotonic(_) => VirtualClock::default(),
    };
    let control = Control::new(ControlParts {
        router,
        clock,
        virtual_clock,
        tables,
        counters,
        workers: links,
        commands,
        reports,
        wake: wake.clone(),
        max_ports: config.max_ports,
        alive,
    });
    Ok((control, workers, RouterHandle { commands: commands_tx, wake, life }))
}
