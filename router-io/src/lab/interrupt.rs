//! Waiting until somebody wants the end.

use rustix::event::{Timespec, poll};
use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Waits for SIGINT (Ctrl-C), SIGTERM or SIGHUP. From the first call on these no longer end the process by themselves.
pub fn wait() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler does nothing but store to an atomic.
        unsafe { libc::signal(signal, on_signal as *const () as libc::sighandler_t) };
    }
    let tick = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    while !INTERRUPTED.load(Ordering::Relaxed) {
        // Another thread may get the signal, so a call that ends early is not relied upon.
        let _ = poll(&mut [], Some(&tick));
    }
}
