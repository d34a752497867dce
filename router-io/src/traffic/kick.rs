//! Ends a system call of another thread: a signal whose handler does nothing.

use std::sync::Once;

/// A signal that nothing else here uses.
fn signal() -> libc::c_int {
    libc::SIGRTMIN() + 3
}

extern "C" fn nothing(_: libc::c_int) {}

/// Makes the signal harmless. Once for the whole process.
pub(super) fn prepare() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        // SAFETY: a C struct of integers, pointers and a signal set: all zero is a valid value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = nothing as *const () as libc::sighandler_t;
        // Without SA_RESTART, so that calls end with EINTR.
        // SAFETY: the action is complete, and its handler does nothing at all.
        unsafe { libc::sigaction(signal(), &action, std::ptr::null_mut()) };
    });
}

/// Interrupts the thread `tid` of this process. Nothing happens if it is not in a system call, so repeat it until it shows.
pub(super) fn interrupt(tid: i32) {
    // SAFETY: plain numbers; a thread that has ended gives ESRCH.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signal()) };
}
