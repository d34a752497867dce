//! Opening a WireGuard port, and what the control thread keeps of it.

use super::engine::{Effects, Engine, LoadedPeer};
use super::keys;
use super::names;
use super::parcel::{Load, Parcel};
use super::queue::{Losses, Queue};
use super::socket::UdpSocket;
use super::spec::{Key, Status, WireguardConfig};
use super::thread::{Command, Lane, Tunneler};
use crate::clock::Clock;
use crate::port::{Port, PortError};
use crate::runtime::privileges::keep_only_and_tell;
use crate::sys::wake::Wake;
use crossbeam_channel::{Sender, bounded};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Parcels under way between a worker and the thread, each direction; their bytes are bounded, too.
const CHANNEL: usize = 4096;
/// Empty parcels that are kept.
const SPARE: usize = 32;
/// How long the thread may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(1);

/// A running port as the control thread holds it. When the last clone goes, the port's thread ends.
#[derive(Clone)]
pub struct Handle {
    commands: Sender<Command>,
    wake: Wake,
    public_key: Key,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}

impl Handle {
    /// What it is doing; without peers if its thread does not answer.
    pub fn status(&self) -> Status {
        let (ask, answer) = bounded(1);
        let sent = self.commands.send_timeout(Command::Status(ask), PATIENCE);
        self.wake.ring();
        let nothing = || Status { public_key: self.public_key, listen_port: 0, peers: Vec::new() };
        sent.ok().and_then(|()| answer.recv_timeout(PATIENCE).ok()).unwrap_or_else(nothing)
    }

    /// Gives it the peers of `config`: sessions of those whose keys stay go on.
    pub fn set_peers(&self, port: &str, config: &WireguardConfig) -> Result<(), PortError> {
        let peers = load(port, config)?;
        let gone = || PortError::Config { port: port.to_owned(), reason: "its thread has ended".to_owned() };
        self.commands.send_timeout(Command::Peers(peers), PATIENCE).map_err(|_| gone())?;
        self.wake.ring();
        Ok(())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The thread looks whether it was the last one, now or at its next tick.
        self.wake.ring();
    }
}

/// Opens the socket, starts the thread, and returns one queue for each worker.
pub fn open(
    port: &str,
    config: &WireguardConfig,
    mtu: u32,
    queues: usize,
) -> Result<(Vec<Box<dyn Port>>, Handle), PortError> {
    if let Some(reason) = config.conflict() {
        return Err(PortError::Config { port: port.to_owned(), reason });
    }
    let private = keys::read(port, "private key", &config.private_key_file)?;
    let mut engine = Engine::new(private.bytes());
    drop(private);
    let public_key = engine.public_key();
    if let Some(p) = config.peers.iter().find(|p| p.public_key == public_key) {
        let reason = format!("peer {} is this port itself: it needs the other end's public key", p.public_key);
        return Err(PortError::Config { port: port.to_owned(), reason });
    }
    let peers = load(port, config)?;
    let socket = UdpSocket::open(port, config.local, config.listen_port)?;
    let failed = |e| PortError::system(port, "start its thread", "nothing", e);
    let wake = Wake::new().map_err(failed)?;
    let losses = Arc::new(Losses::new());
    let clock = Clock::monotonic();
    let mut effects = Effects::new(queues, Arc::clone(&losses));
    engine.set_peers(clock.now(), peers, &mut effects);
    let mut lanes = Vec::new();
    let mut ends: Vec<Box<dyn Port>> = Vec::new();
    for i in 0..queues.max(1) {
        let (to_thread, from_worker) = bounded(CHANNEL);
        let (spare, spare_end) = bounded(SPARE);
        let (to_worker, from_thread) = bounded(CHANNEL);
        let (emptied, emptied_end) = bounded(SPARE);
        let (outward, inward) = (Load::default(), Load::default());
        let worker_wake = Wake::new().map_err(failed)?;
        lanes.push(Lane {
            from_worker,
            spare,
            to_worker,
            emptied: emptied_end,
            wake: worker_wake.clone(),
            outward: outward.clone(),
            inward: inward.clone(),
        });
        ends.push(Box::new(Queue {
            to_thread,
            spare: spare_end,
            wake_thread: wake.clone(),
            outward,
            inward,
            from_thread,
            emptied,
            wake: worker_wake,
            current: Parcel::default(),
            losses: (i == 0).then(|| Arc::clone(&losses)),
            mtu: mtu as usize,
            gone: false,
        }));
    }
    let (commands, orders) = bounded(16);
    let (questions, asked) = bounded(64);
    let (answers, told) = bounded(64);
    let resolver_wake = wake.clone();
    std::thread::Builder::new()
        .name("wg-names".to_owned())
        .spawn(move || {
            keep_only_and_tell("wg-names", &[], || true);
            names::answer(&asked, &answers, &resolver_wake);
        })
        .map_err(failed)?;
    let tunneler = Tunneler {
        engine,
        effects,
        socket,
        lanes,
        commands: orders,
        wake: wake.clone(),
        questions,
        answers: told,
        clock,
    };
    std::thread::Builder::new()
        .name(format!("wg-{port}").chars().take(15).collect())
        .spawn(move || {
            keep_only_and_tell("wireguard", &[], || true);
            tunneler.run();
        })
        .map_err(failed)?;
    Ok((ends, Handle { commands, wake, public_key }))
}

/// The peers with their secrets.
fn load(port: &str, config: &WireguardConfig) -> Result<Vec<LoadedPeer>, PortError> {
    if let Some(reason) = config.conflict() {
        return Err(PortError::Config { port: port.to_owned(), reason });
    }
    let peer = |p: &super::spec::PeerConfig| {
        let preshared = p.preshared_key_file.as_ref().map(|f| keys::read(port, "preshared key", f)).transpose()?;
        Ok(LoadedPeer {
            key: p.public_key,
            preshared: preshared.map(|s| *s.bytes()),
            endpoint: p.endpoint.clone(),
            allowed: p.allowed_ips.clone(),
            keepalive: p.persistent_keepalive,
        })
    };
    config.peers.iter().map(peer).collect()
}
