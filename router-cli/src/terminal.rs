//! Leaving the terminal as it was found, whatever ends the program: a signal, a panic, a terminal that goes away.

use router_io::runtime::{Signal, Signals};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Time to end in order after a signal. A reader of a terminal that is gone may never come back by itself.
const GRACE: Duration = Duration::from_millis(500);

/// What ends a command, and the program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flags {
    /// Ctrl-C, or anything that ends the program.
    pub interrupt: Arc<AtomicBool>,
    /// SIGTERM, SIGHUP or a lost terminal: the program ends.
    pub stop: Arc<AtomicBool>,
}

/// Watches over the terminal until dropped. One per process; a second one does nothing.
pub(crate) struct Guard {
    shared: Arc<Shared>,
}

struct Shared {
    flags: Flags,
    saved: Option<Termios>,
    /// Escape sequences that undo what the program did to the screen.
    undo: Mutex<&'static str>,
    /// A directory that must not be left behind.
    litter: Mutex<Option<PathBuf>>,
    done: AtomicBool,
}

impl Guard {
    /// Starts watching: remembers the terminal's settings, follows signals.
    pub fn new(flags: &Flags) -> Guard {
        let saved = tcgetattr(io::stdin()).ok();
        let shared = Shared {
            flags: flags.clone(),
            saved,
            undo: Mutex::new(""),
            litter: Mutex::new(None),
            done: AtomicBool::new(false),
        };
        let guard = Guard { shared: Arc::new(shared) };
        if let Ok(signals) = Signals::install() {
            let shared = Arc::clone(&guard.shared);
            // Without this thread signals have no effect, so it must be there or they must not be caught.
            let spawned = std::thread::Builder::new().name("terminal".into()).spawn(move || watch(&signals, &shared));
            if let Err(e) = spawned {
                tracing::warn!(error = %e, "cannot watch the terminal");
            }
        }
        guard
    }

    /// Sequences to write if the program ends otherwise than in order.
    pub fn undo_with(&self, sequences: &'static str) {
        *self.shared.undo.lock().unwrap_or_else(PoisonError::into_inner) = sequences;
    }

    /// A directory to remove in that case, with the files in it.
    pub fn litter(&self, dir: Option<PathBuf>) {
        *self.shared.litter.lock().unwrap_or_else(PoisonError::into_inner) = dir;
    }

    /// Puts the terminal back as it was: what a panic needs before its message.
    pub fn restore(&self) {
        restore(&self.shared);
    }

    /// The same, for a hook that outlives this reference.
    pub fn restorer(&self) -> impl Fn() + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || restore(&shared)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.done.store(true, Ordering::Release);
    }
}

fn restore(shared: &Shared) {
    let undo = *shared.undo.lock().unwrap_or_else(PoisonError::into_inner);
    if !undo.is_empty() {
        let _ = rustix::io::write(io::stdout(), undo.as_bytes());
    }
    if let Some(saved) = &shared.saved {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, saved);
    }
}

fn watch(signals: &Signals, shared: &Shared) {
    loop {
        let signal = match signals.wait(Some(Duration::from_secs(1))) {
            Ok(signal) => signal,
            Err(_) => return,
        };
        if shared.done.load(Ordering::Acquire) {
            // The program is ending or goes on without a terminal to watch.
            match signal {
                Some(Signal::Terminate | Signal::Hangup | Signal::Interrupt) => std::process::exit(130),
                None => continue,
            }
        }
        let code = match signal {
            Some(Signal::Interrupt) => {
                shared.flags.interrupt.store(true, Ordering::Relaxed);
                continue;
            }
            Some(Signal::Terminate) => 143,
            Some(Signal::Hangup) => 129,
            None if hung_up() => 129,
            None => continue,
        };
        shared.flags.stop.store(true, Ordering::Relaxed);
        shared.flags.interrupt.store(true, Ordering::Relaxed);
        let until = std::time::Instant::now() + GRACE;
        while std::time::Instant::now() < until {
            if shared.done.load(Ordering::Acquire) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        restore(shared);
        if let Some(dir) = shared.litter.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = std::fs::remove_dir_all(dir);
        }
        std::process::exit(code);
    }
}

/// Whether the terminal behind standard input is gone.
fn hung_up() -> bool {
    let stdin = io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok()
        && fds[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
}
