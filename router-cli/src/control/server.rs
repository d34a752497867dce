//! The router's end: accepts clients, each on a thread of its own, within limits that keep any of them from hurting the
//! router or the others.

use super::lines::{LineError, LineReader, write_all};
use super::socket::{Access, Bound, SocketError, bind, may_write};
use super::stream;
use super::{
    Answer, Backend, BatchResult, Body, MonitorSelect, Op, Reply, Request, RoutePage, RouteSelect, VERSION, WireError,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bounds on clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Clients at a time.
    pub clients: usize,
    /// Bytes in a request line.
    pub line: usize,
    /// Time to finish a line that was begun.
    pub request: Duration,
    /// Time without any request.
    pub idle: Duration,
    /// Time to take one reply line.
    pub reply: Duration,
    /// Routes per reply line of a dump.
    pub page: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            clients: 64,
            line: 4 << 20,
            request: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            reply: Duration::from_secs(30),
            page: 1000,
        }
    }
}

/// A running server. Dropping it closes all connections and removes the socket file.
pub struct Server {
    stop: UnixStream,
    accept: Option<JoinHandle<()>>,
}

struct Shared {
    backend: Arc<dyn Backend>,
    limits: Limits,
    /// Owner, group and mode of the socket file.
    owner: (u32, u32, u32),
    clients: Mutex<Vec<Arc<UnixStream>>>,
    stopping: AtomicBool,
}

impl Server {
    /// Listens on `path`.
    pub fn start(path: &Path, access: &Access, limits: Limits, backend: Arc<dyn Backend>) -> Result<Self, SocketError> {
        Server::start_after(path, access, limits, backend, || {})
    }

    /// As [`Server::start`], calling `ready` when the socket is there and before anyone is served.
    pub fn start_after(
        path: &Path,
        access: &Access,
        limits: Limits,
        backend: Arc<dyn Backend>,
        ready: impl FnOnce(),
    ) -> Result<Self, SocketError> {
        let bound = bind(path, access)?;
        ready();
        let failed = |e: std::io::Error| SocketError::io("set up", path, e);
        bound.listener.set_nonblocking(true).map_err(failed)?;
        let owner = bound.owner().map_err(failed)?;
        let (stop, stopped) = UnixStream::pair().map_err(failed)?;
        let shared = Arc::new(Shared {
            backend,
            limits,
            owner,
            clients: Mutex::new(Vec::new()),
            stopping: AtomicBool::new(false),
        });
        let accept = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                // Threads of clients are its children.
                router_io::runtime::answer_soon();
                accept_loop(&bound, &stopped, &shared);
            })
            .map_err(failed)?;
        Ok(Server { stop, accept: Some(accept) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.stop.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.accept.take() {
            let _ = thread.join();
        }
    }
}

/// How often to see whether the router lives.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

fn accept_loop(bound: &Bound, stopped: &UnixStream, shared: &Arc<Shared>) {
    // One per client, and what the bound on clients counts: a thread that still ends takes its place as well.
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    loop {
        let mut fds = [PollFd::new(&bound.listener, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        if poll(&mut fds, Some(&LOOK)).is_err_and(|e| e != rustix::io::Errno::INTR) {
            break;
        }
        // A router that broke answers nobody any more: those who wait for it are let go.
        if !fds[1].revents().is_empty() || !shared.backend.is_alive() {
            break;
        }
        for ended in threads.extract_if(.., |t| t.is_finished()) {
            // Waits until the system has taken it back, which is at once.
            let _ = ended.join();
        }
        let stream = match bound.listener.accept() {
            Ok((stream, _)) => Arc::new(stream),
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(e) => {
                // Out of file descriptors, most likely. Clients that end free some.
                tracing::warn!(error = %e, socket = %bound.path().display(), "cannot accept a control connection");
                std::thread::park_timeout(Duration::from_millis(100));
                continue;
            }
        };
        if threads.len() >= shared.limits.clients {
            let error = WireError::new(
                "busy",
                format!("Error: {} clients are connected already.", shared.limits.clients),
                "close some, or try again",
            );
            let _ = send(&stream, &Reply::new(0, Body::Error(error)), Duration::ZERO);
            continue;
        }
        shared.clients.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&stream));
        let (shared2, stream2) = (Arc::clone(shared), Arc::clone(&stream));
        let spawned = std::thread::Builder::new().name("control-client".into()).spawn(move || {
            serve(&stream2, &shared2);
            forget(&shared2, &stream2);
        });
        match spawned {
            Ok(thread) => threads.push(thread),
            Err(_) => forget(shared, &stream),
        }
    }
    shared.stopping.store(true, Ordering::Relaxed);
    for client in shared.clients.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let _ = client.shutdown(std::net::Shutdown::Both);
    }
    for thread in threads {
        let _ = thread.join();
    }
}

fn forget(shared: &Shared, stream: &Arc<UnixStream>) {
    let _ = stream.shutdown(std::net::Shutdown::Both);
    shared.clients.lock().unwrap_or_else(PoisonError::into_inner).retain(|s| !Arc::ptr_eq(s, stream));
}

fn send(stream: &UnixStream, reply: &Reply, time: Duration) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    write_all(stream, &line, time)
}

/// One client, until it goes or breaks the rules: then it gets one clear error.
fn serve(stream: &Arc<UnixStream>, shared: &Shared) {
    let limits = &shared.limits;
    let write = may_write(stream, shared.owner);
    let Ok(read) = stream.try_clone() else { return };
    let mut lines = LineReader::new(read, limits.line);
    let mut chain_broken = false;
    while !shared.stopping.load(Ordering::Relaxed) {
        let farewell_as = |code: &str, line: String, hint: &str| {
            let error = WireError::new(code, line, hint);
            let _ = send(stream, &Reply::new(0, Body::Error(error)), Duration::from_secs(1));
        };
        let farewell = |line: String, hint: &str| farewell_as("protocol", line, hint);
        let request = match lines.next(limits.idle, limits.request) {
            Ok(None) | Err(LineError::Io(_) | LineError::Cancelled) => return,
            Ok(Some(line)) if line.iter().all(u8::is_ascii_whitespace) => continue,
            Ok(Some(line)) => read_request(line),
            Err(e @ LineError::TooLong(_)) => {
                return farewell(format!("Error: request {e}."), "send fewer operations per batch");
            }
            Err(e @ LineError::Slow(_)) => {
                return farewell(format!("Error: {e}."), "send a request as one line, at once");
            }
            Err(e @ LineError::Idle(_)) => {
                return farewell_as("idle", format!("Error: {e}."), "connect again when there is something");
            }
        };
        match request {
            Ok(r) => {
                if answer(stream, shared, r, write, &mut chain_broken).is_err() {
                    return;
                }
            }
            Err((id, error)) => {
                let _ = send(stream, &Reply::new(id, Body::Error(error)), Duration::from_secs(1));
                return;
            }
        }
    }
}

fn read_request(line: &[u8]) -> Result<Request, (u64, WireError)> {
    serde_json::from_slice::<Request>(line).map_err(|e| {
        // The version is looked at first: what else is wrong may be what is new in another version.
        #[derive(serde::Deserialize)]
        struct Envelope {
            v: Option<u32>,
            #[serde(default)]
            id: u64,
        }
        let envelope = serde_json::from_slice::<Envelope>(line).ok();
        let id = envelope.as_ref().map_or(0, |e| e.id);
        match envelope.and_then(|e| e.v) {
            Some(v) if v != VERSION => (id, wrong_version(v)),
            _ => (id, WireError::protocol(format!("Error: malformed request: {e}."))),
        }
    })
}

fn wrong_version(v: u32) -> WireError {
    WireError::new(
        "protocol",
        format!("Error: protocol version {v} is not spoken here."),
        format!("this router speaks version {VERSION}; use the duet program of the router's own version"),
    )
}

/// Executes and replies. An error means that the connection is of no use any more.
fn answer(
    stream: &UnixStream,
    shared: &Shared,
    request: Request,
    write: bool,
    chain_broken: &mut bool,
) -> std::io::Result<()> {
    let Request { v, id, op } = request;
    let time = shared.limits.reply;
    let reply = |body| send(stream, &Reply::new(id, body), time);
    if v != VERSION {
        reply(Body::Error(wrong_version(v)))?;
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    if op.is_write() && !write {
        return reply(Body::Error(WireError::new(
            "denied",
            "RTNETLINK answers: Operation not permitted",
            "only root and the socket's owner and group may change this router; see owner and mode in its configuration",
        )));
    }
    match op {
        Op::RouteShow(select) => dump(stream, shared, id, &select),
        Op::Monitor(select) => monitor(stream, shared, id, select),
        Op::Capture(select) => {
            let feed = shared.backend.capture(&select);
            stream::capture(stream, id, feed, shared.limits.reply, &|| shared.stopping.load(Ordering::Relaxed))
        }
        Op::RoutePage(p) => {
            let most = shared.limits.page;
            let limit = if p.limit == 0 { most } else { p.limit.min(most) };
            let page = shared.backend.routes(&p.select, p.after.as_ref(), limit);
            reply(to_body(page.map(|(routes, next)| Answer::Page(RoutePage { routes, next }))))
        }
        Op::Batch { chain: true, ops, .. } if *chain_broken => {
            reply(Body::Ok(Answer::Batch(BatchResult { skipped: ops.len() as u64, ..BatchResult::default() })))
        }
        Op::Batch { ref ops, chain, .. }
            if ops.iter().any(|o| {
                !o.is_write() || o.is_inspection() || matches!(o, Op::Batch { .. } | Op::Reload | Op::Broker(_))
            }) =>
        {
            *chain_broken |= chain;
            reply(Body::Error(WireError::protocol("Error: a batch holds changing operations only.")))
        }
        Op::Batch { ops, force, chain } => {
            let body = to_body(shared.backend.call(Op::Batch { ops, force, chain }));
            let failed = match &body {
                Body::Ok(Answer::Batch(r)) => !r.failed.is_empty(),
                Body::Ok(_) | Body::Page(_) => false,
                Body::Error(_) => true,
            };
            *chain_broken |= chain && failed && !force;
            reply(body)
        }
        op => reply(to_body(shared.backend.call(op))),
    }
}

/// Time that a follower may take for one page; meanwhile it loses events.
const FOLLOWER: Duration = Duration::from_secs(300);
/// Events per page.
const EVENTS: usize = 256;

/// Streams events until the client says something more, or goes.
fn monitor(stream: &UnixStream, shared: &Shared, id: u64, select: MonitorSelect) -> std::io::Result<()> {
    let follower = match shared.backend.follow(select) {
        Ok(follower) => follower,
        Err(e) => return send(stream, &Reply::new(id, Body::Error(e)), shared.limits.reply),
    };
    // Whoever has this line knows that from now on nothing is missed.
    send(stream, &Reply::new(id, Body::Page(Answer::Events(Vec::new()))), shared.limits.reply)?;
    loop {
        let events = follower.take(EVENTS, Duration::from_millis(200));
        let mut fds = [PollFd::new(stream, PollFlags::IN | PollFlags::RDHUP)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        let said = fds[0].revents();
        if said.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR) {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        let over = events.is_none() || said.contains(PollFlags::IN) || shared.stopping.load(Ordering::Relaxed);
        let events: Vec<_> = events.unwrap_or_default().iter().map(|e| (**e).clone()).collect();
        if over {
            return send(stream, &Reply::new(id, Body::Ok(Answer::Events(events))), shared.limits.reply);
        }
        if !events.is_empty() {
            send(stream, &Reply::new(id, Body::Page(Answer::Events(events))), FOLLOWER)?;
        }
    }
}

fn to_body(result: Result<Answer, WireError>) -> Body {
    match result {
        Ok(a) => Body::Ok(a),
        Err(e) => Body::Error(e),
    }
}

/// Streams routes page by page: neither side ever holds more than one.
fn dump(stream: &UnixStream, shared: &Shared, id: u64, select: &RouteSelect) -> std::io::Result<()> {
    let mut place = None;
    loop {
        let body = match shared.backend.routes(select, place.as_ref(), shared.limits.page) {
            Ok((routes, None)) => Body::Ok(Answer::Routes(routes)),
            Ok((routes, next)) => {
                place = next;
                if routes.is_empty() {
                    continue;
                }
                Body::Page(Answer::Routes(routes))
            }
            Err(e) => Body::Error(e),
        };
        let more = matches!(body, Body::Page(_));
        send(stream, &Reply::new(id, body), shared.limits.reply)?;
        if !more || shared.stopping.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

/// Executes the operations of a batch one after another: what a [`Backend`] does when it has nothing better.
pub fn run_batch(ops: Vec<Op>, force: bool, mut call: impl FnMut(Op) -> Result<Answer, WireError>) -> BatchResult {
    let total = ops.len() as u64;
    let mut result = BatchResult::default();
    for (index, op) in ops.into_iter().enumerate() {
        match call(op) {
            Ok(_) => result.done += 1,
            Err(error) => {
                result.failed.push(super::BatchFailure { index: index as u64, error });
                if !force {
                    break;
                }
            }
        }
    }
    result.skipped = total - result.done - result.failed.len() as u64;
    result
}
