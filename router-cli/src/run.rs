//! `duet run`: a router from a configuration, until a signal. `duet check`: the configuration alone.

use crate::app::RunArgs;
use crate::backend::{Direct, RouterBackend, follow_tunnel_ends};
use crate::config::{self, ConfigError, Plan, Target, apply, diff};
use crate::control::{Limits, Server, SocketError, WireError, check_free};
use crate::grammar::{Failure, exit};
use crate::shell::offline::Offline;
use router_core::port::PortKind;
use router_io::runtime::replay::Replay;
use router_io::runtime::{Runtime, RuntimeConfig, Signal, Signals, privileges};
use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// `duet check FILE`.
pub(crate) fn check(file: &Path, out: &mut impl Write) -> Result<(), Failure> {
    let plan = load(file)?;
    // What only a router can tell, such as a gateway that no route leads to, one in memory tells.
    Offline::start(&plan).map_err(|f| Failure { line: format!("{}: {}", file.display(), f.line), ..f })?;
    writeln!(
        out,
        "{}: router \"{}\" with {} ports, {} tunnels, {} routes, {} next hops, {} neighbours",
        file.display(),
        plan.router.name,
        plan.ports.len(),
        plan.tunnels.len(),
        plan.routes.len(),
        plan.nexthops.len(),
        plan.neighs.len()
    )?;
    Ok(out.flush()?)
}

/// Reads a configuration; the failure says all that is wrong with it.
pub(crate) fn load(file: &Path) -> Result<Plan, Failure> {
    config::load(file).map_err(|e| match &e {
        ConfigError::Read { .. } => {
            Failure::with_hint(exit::USAGE, e.to_string(), "docs/configuration.md has an example")
        }
        ConfigError::Wrong { .. } => Failure::new(exit::USAGE, e.to_string()),
    })
}

fn refused(line: impl std::fmt::Display) -> Failure {
    Failure::new(exit::REFUSED, line.to_string())
}

/// `duet run FILE`.
pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    let mut plan = load(&args.file)?;
    log_to_stderr(args)?;
    config::discover(&mut plan).map_err(refused)?;
    if plan.ports.values().any(|p| p.kind == PortKind::Pcap) {
        return replay(&plan);
    }
    let socket = args.socket.clone().unwrap_or_else(|| plan.router.socket_path());
    // Before any device is touched.
    check_free(&socket).map_err(|e| socket_failure(&e))?;
    privileges::check(plan.ports.values().map(|p| p.kind)).map_err(refused)?;
    let signals = Signals::install().map_err(refused)?;
    let runtime =
        Runtime::start(runtime_config(&plan)).map_err(|e| refused(format!("Cannot start the router: {e}")))?;
    if let Some(most) = plan.offload {
        offload_flows(&runtime, most);
    }
    let backend = Arc::new(RouterBackend::new(runtime.handle(), &plan.router.name));
    let fresh = Plan { settings: plan.settings.clone(), ..Plan::default() };
    apply(&*backend, &diff(&fresh, &plan)).map_err(|e| Failure::from(e).not_started(&args.file))?;
    follow_tunnel_ends(Arc::downgrade(&backend)).map_err(|e| refused(format!("Cannot start a thread: {e}")))?;
    let (name, access) = (plan.router.name.clone(), plan.router.access);
    let reloader = Arc::new(Reloader { file: args.file.clone(), plan: Mutex::new(plan), target: Arc::clone(&backend) });
    #[cfg(feature = "broker")]
    let doors = crate::broker::open(&reloader.plan.lock().unwrap_or_else(PoisonError::into_inner)).map_err(refused)?;
    let from_socket = Arc::downgrade(&reloader);
    backend.on_reload(Arc::new(move || match from_socket.upgrade() {
        Some(r) => r.reload(),
        None => Err(WireError::new("failed", "The router is shutting down.", "")),
    }));
    let served = Arc::clone(&backend);
    let server =
        Server::start_after(&socket, &access, Limits::default(), served, || give_up_privileges(&args.file, &socket))
            .map_err(|e| socket_failure(&e))?;
    // After the rights are given up: its threads have none.
    #[cfg(feature = "broker")]
    let broker = crate::broker::Broker::start(doors, Arc::clone(&backend) as Arc<dyn crate::control::Backend>)
        .map_err(refused)?;
    #[cfg(feature = "broker")]
    backend.on_broker(Some(broker.desk()));
    tracing::info!(router = name, pid = std::process::id(), socket = %socket.display(), "READY");
    notify("READY=1");
    let result = wait(&signals, &reloader);
    notify("STOPPING=1");
    drop(server);
    #[cfg(feature = "broker")]
    {
        backend.on_broker(None);
        broker.stop();
    }
    runtime.stop().map_err(refused)?;
    tracing::info!("stopped");
    result
}

/// Before any port is opened. Where the kernel or the rights do not allow it, the router works without.
fn offload_flows(runtime: &Runtime, most: u32) {
    let possible = || router_io::offload::probe().map_err(|e| e.to_string());
    let enable =
        move |control: &mut router_io::runtime::Control| control.offload_flows(most).map_err(|e| e.to_string());
    match possible().and_then(|()| runtime.handle().call(enable).unwrap_or_else(|e| Err(e.to_string()))) {
        Ok(()) => tracing::info!(max = most, "flows between packet ports are offloaded to the kernel"),
        Err(reason) => tracing::warn!(reason, "flows are not offloaded; the router works without"),
    }
}

/// What is left to do for this thread, and for those of the control socket that it is about to start, are files: reading
/// the configuration again, removing the socket. Ports are the business of the control thread.
fn give_up_privileges(file: &Path, socket: &Path) {
    let files_open = || {
        let probe = socket.with_extension(format!("{}.probe", std::process::id()));
        let removable = std::fs::File::create_new(&probe).and_then(|_| std::fs::remove_file(&probe)).is_ok();
        removable && std::fs::File::open(file).is_ok()
    };
    match privileges::keep_only(&[], files_open) {
        Ok(kept) => {
            let kept = if kept.is_empty() { "none".to_owned() } else { kept.join(",") };
            tracing::info!(kept, "capabilities given up; the control thread keeps what ports need, workers none");
        }
        Err(e) => tracing::warn!(error = %e, "cannot give up capabilities"),
    }
}

fn runtime_config(plan: &Plan) -> RuntimeConfig {
    RuntimeConfig {
        workers: plan.router.workers.unwrap_or_else(router_io::runtime::default_workers),
        max_ports: router_core::port::MAX_QUEUES as usize,
        settings: plan.settings.clone(),
        ..RuntimeConfig::default()
    }
}

fn socket_failure(e: &SocketError) -> Failure {
    let hint = match e {
        SocketError::Busy { .. } => "stop that one, or give this router another name or socket",
        SocketError::Io { .. } => "choose a writable path with --socket PATH or socket = \"PATH\" in [router]",
        SocketError::NotASocket(_) | SocketError::Several(_) => return refused(e),
    };
    Failure::with_hint(exit::REFUSED, e.to_string(), hint)
}

impl Failure {
    fn not_started(self, file: &Path) -> Failure {
        Failure { line: format!("{}: {}", file.display(), self.line), ..self }
    }
}

/// Until SIGTERM or SIGINT; SIGHUP reloads.
fn wait(signals: &Signals, reloader: &Reloader) -> Result<(), Failure> {
    loop {
        match signals.wait(None) {
            Ok(Some(signal @ (Signal::Terminate | Signal::Interrupt))) => {
                tracing::info!(?signal, "stopping");
                return Ok(());
            }
            Ok(Some(Signal::Hangup)) => match reloader.reload() {
                Ok(text) => tracing::info!("{}", text.replace('\n', "; ")),
                Err(e) => tracing::error!(hint = e.hint.as_deref().unwrap_or_default(), "not reloaded: {}", e.line),
            },
            Ok(None) => {}
            Err(e) => return Err(refused(format!("Cannot wait for signals: {e}"))),
        }
    }
}

/// Reads the file again and applies the difference, one at a time.
struct Reloader {
    file: PathBuf,
    plan: Mutex<Plan>,
    target: Arc<RouterBackend>,
}

impl Reloader {
    fn reload(&self) -> Result<String, WireError> {
        let mut old = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let unchanged = |line: String| WireError::new("invalid", line, "nothing was changed");
        let mut new = config::load(&self.file).map_err(|e| unchanged(e.to_string()))?;
        config::discover(&mut new).map_err(|e| unchanged(e.to_string()))?;
        let steps = diff(&old, &new);
        let target: &dyn Target = &*self.target;
        apply(target, &steps).map_err(|e| WireError {
            hint: Some(match e.hint {
                Some(hint) => format!("{hint}; the configuration in force is the old one"),
                None => "the configuration in force is the old one".into(),
            }),
            ..e
        })?;
        let mut lines: Vec<String> = steps.iter().map(|s| s.text.clone()).collect();
        if old.router != new.router {
            lines.push("[router] changed: name, workers, socket, owner and mode need a restart".into());
        }
        if old.offload != new.offload {
            lines.push("[offload] changed: it needs a restart".into());
        }
        if old.broker != new.broker || old.joins != new.joins {
            lines.push("[broker] and tunnels with broker = changed: they need a restart".into());
        }
        if lines.is_empty() {
            lines.push("nothing to change".into());
        }
        *old = new;
        const SHOWN: usize = 100;
        if lines.len() > SHOWN {
            let rest = lines.len() - SHOWN;
            lines.truncate(SHOWN);
            lines.push(format!("and {rest} more changes"));
        }
        Ok(lines.join("\n"))
    }
}

/// Capture files through the router in virtual time: no socket, no signals, the counters at the end.
fn replay(plan: &Plan) -> Result<(), Failure> {
    let mut replay = Replay::new(runtime_config(plan)).map_err(refused)?;
    let fresh = Plan { settings: plan.settings.clone(), ..Plan::default() };
    {
        let target = Direct(RefCell::new(replay.control()));
        apply(&target, &diff(&fresh, plan)).map_err(Failure::from)?;
    }
    let totals = replay.run().map_err(refused)?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "received {} originated {} transmitted {} delivered {} answered {} dropped {} held {}",
        totals.received,
        totals.originated,
        totals.transmitted,
        totals.delivered,
        totals.answered,
        totals.dropped_total(),
        totals.held
    )?;
    for (reason, n) in &totals.dropped {
        writeln!(out, "dropped {n} {reason}")?;
    }
    Ok(())
}

fn log_to_stderr(args: &RunArgs) -> Result<(), Failure> {
    // WireGuard's library calls every peer that is away an error; whoever wants to read that names it.
    let wanted = format!("defguard_boringtun=off,{}", args.log);
    let filter = tracing_subscriber::EnvFilter::try_new(wanted).map_err(|e| {
        Failure::with_hint(exit::USAGE, format!("--log {}: {e}", args.log), "say info, debug or info,router_io=debug")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    // A second call in one process keeps the first one's settings.
    let _ = if args.log_json { builder.json().try_init() } else { builder.with_ansi(color).try_init() };
    Ok(())
}

/// Tells the service manager, if there is one (sd_notify(3)).
fn notify(state: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let bytes = path.as_encoded_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|a| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &a));
    if let Err(e) = sent {
        tracing::warn!(error = %e, "cannot notify the service manager");
    }
}
