//! One network namespace, used as a host: run code in it, start programs in it, change its links and routes.

use super::{LabError, Process};
use crate::netlink::{Netlink, NetlinkError, sysctl};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::resume_unwind;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// Settings of every fresh host. A namespace inherits IPv4 settings of the machine: nothing is taken for granted.
const SETTINGS: &[(&str, &str)] = &[
    // First, for it resets others.
    ("net.ipv4.ip_forward", "0"),
    ("net.ipv6.conf.all.forwarding", "0"),
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "0"),
    // Link-local addresses usable at once; both must be 0.
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.addr_gen_mode", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
    // With reverse-path filtering a host without a route to 192.0.0.8 drops the ICMP errors that come from it.
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    // Redirects would change the routes that a test looks at.
    ("net.ipv4.conf.all.accept_redirects", "0"),
    ("net.ipv4.conf.default.accept_redirects", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv6.conf.default.accept_redirects", "0"),
    // Rate limits would hide answers.
    ("net.ipv4.icmp_ratelimit", "0"),
    ("net.ipv4.icmp_msgs_per_sec", "100000"),
    ("net.ipv4.icmp_msgs_burst", "100000"),
    ("net.ipv6.icmp.ratelimit", "0"),
];

type SpawnJob = (Command, Sender<io::Result<Process>>);

/// A host: a network namespace of its own. It ends, with its programs, when dropped.
#[derive(Debug)]
pub struct Host {
    name: String,
    netns: File,
    tid: u32,
    netlink: Mutex<Netlink>,
    jobs: Option<Sender<SpawnJob>>,
    anchor: Option<JoinHandle<()>>,
}

impl Host {
    /// Makes a host: a fresh namespace with `lo` up and settings that suit a lab.
    ///
    /// # Errors
    /// [`LabError::System`] if the process may not make namespaces; see [`super::sandbox`].
    pub fn new(name: &str) -> Result<Self, LabError> {
        let (ready, started) = bounded(1);
        let (jobs, todo) = unbounded();
        let anchor = thread::Builder::new()
            .name(format!("host {name}"))
            .spawn(move || anchor(&ready, &todo))
            .map_err(LabError::system("start a thread"))?;
        let gone = || io::Error::other("the host's thread ended");
        let (netns, tid) = started
            .recv()
            .unwrap_or_else(|_| Err(gone()))
            .map_err(LabError::system(format!("make network namespace of host {name}")))?;
        let netlink = in_netns(netns.as_fd(), || -> Result<Netlink, NetlinkError> {
            let mut netlink = Netlink::open()?;
            for (setting, value) in SETTINGS {
                match sysctl::write(setting, value) {
                    // Not every kernel has every setting.
                    Err(e) if !e.is_missing() => return Err(e),
                    _ => {}
                }
            }
            netlink.lo_up()?;
            Ok(netlink)
        })
        .map_err(|source| LabError::Netlink { host: name.to_owned(), source })?;
        Ok(Host {
            name: name.to_owned(),
            netns,
            tid,
            netlink: Mutex::new(netlink),
            jobs: Some(jobs),
            anchor: Some(anchor),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network namespace.
    pub fn netns_fd(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// Its netlink client. Usable from any thread, for the socket belongs to the host's namespace.
    pub fn netlink(&self) -> MutexGuard<'_, Netlink> {
        self.netlink.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `f` in the host, on a thread made for it, and waits for its result. Panics pass through.
    ///
    /// # Panics
    /// If the system gives no thread, or the process has lost the right to enter the namespace that it made.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        in_netns(self.netns.as_fd(), f)
    }

    /// Starts a thread that lives in the host, for servers. It is not ended by the host's drop: give it a way to end.
    pub fn thread<T: Send + 'static>(
        &self,
        name: &str,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>, LabError> {
        let netns = self.netns.try_clone().map_err(LabError::system("duplicate a namespace descriptor"))?;
        let (ready, entered) = bounded(1);
        let handle = thread::Builder::new()
            .name(format!("{}: {name}", self.name))
            .spawn(move || {
                let result = enter(netns.as_fd());
                let failed = result.is_err();
                let _ = ready.send(result);
                drop(netns);
                // The caller gets the error and drops the handle.
                if failed {
                    thread::park();
                }
                f()
            })
            .map_err(LabError::system("start a thread"))?;
        entered
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("the thread ended")))
            .map_err(LabError::system(format!("enter host {}", self.name)))?;
        Ok(handle)
    }

    /// Starts a program in the host. It is killed when the [`Process`] or the host is dropped, or this process dies.
    pub fn spawn(&self, command: Command) -> Result<Process, LabError> {
        let what = format!("host {}: start {:?}", self.name, command.get_program());
        let gone = || io::Error::other("the host has ended");
        let (reply, answer) = bounded(1);
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send((command, reply)).is_ok());
        let result = if sent { answer.recv().unwrap_or_else(|_| Err(gone())) } else { Err(gone()) };
        result.map_err(LabError::system(what))
    }

    /// Reads a kernel setting of the host, as sysctl(8) names it.
    pub fn sysctl(&self, name: &str) -> Result<String, LabError> {
        self.run(|| sysctl::read(name)).map_err(|source| self.failed(source))
    }

    /// Writes a kernel setting of the host.
    pub fn set_sysctl(&self, name: &str, value: &str) -> Result<(), LabError> {
        self.run(|| sysctl::write(name, value)).map_err(|source| self.failed(source))
    }

    /// The beginning of a command line that runs a program in this host, for a person to type: `nsenter ...`.
    pub fn enter_hint(&self) -> String {
        let pid = std::process::id();
        let user = if super::sandbox::in_user_namespace() {
            format!("--preserve-credentials --user=/proc/{pid}/ns/user ")
        } else {
            String::new()
        };
        format!("nsenter {user}--mount=/proc/{pid}/ns/mnt --net=/proc/{pid}/task/{}/ns/net", self.tid)
    }

    pub(super) fn failed(&self, source: NetlinkError) -> LabError {
        LabError::Netlink { host: self.name.clone(), source }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The anchor's end is what kills the host's programs: their parent-death signal follows that thread.
        self.jobs = None;
        if let Some(anchor) = self.anchor.take() {
            let _ = anchor.join();
        }
    }
}

/// The thread that made the namespace. It starts the host's programs, and must live as long as they may.
fn anchor(ready: &Sender<io::Result<(File, u32)>>, todo: &Receiver<SpawnJob>) {
    let made = make_netns();
    let failed = made.is_err();
    let _ = ready.send(made);
    if failed {
        return;
    }
    for (command, reply) in todo {
        let _ = reply.send(Process::spawn(command));
    }
}

fn make_netns() -> io::Result<(File, u32)> {
    // SAFETY: a new network namespace for this thread only; descriptors stay shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    let tid = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
    Ok((File::open("/proc/thread-self/ns/net")?, tid))
}

fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    move_into_link_name_space(netns, Some(LinkNameSpaceType::Network)).map_err(io::Error::from)
}

fn in_netns<T: Send>(netns: BorrowedFd<'_>, f: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(|| match enter(netns) {
            Ok(()) => f(),
            Err(e) => panic!("cannot enter a network namespace of this lab: {e}"),
        });
        worker.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}
