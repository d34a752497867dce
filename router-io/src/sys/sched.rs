//! How soon a thread gets a processor that others keep busy.

use std::io;

/// `SCHED_OTHER`'s length of a turn that [`answer_soon`] asks for, in nanoseconds: the shortest that the kernel grants.
const TURN: u64 = 100_000;

/// struct sched_attr, as long as Linux 3.14 had it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Lets the calling thread, and those that it makes, run soon after it is woken, on a processor that another thread keeps
/// busy: it asks the scheduler for short turns. Its share of the processor stays the same, and no privilege is needed. Linux
/// 6.12; without effect before.
pub fn answer_soon() -> io::Result<()> {
    let size = size_of::<Attributes>() as u32;
    let mut a = Attributes { size, ..Attributes::default() };
    // SAFETY: the kernel writes at most `size` bytes to `a`.
    let r = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, std::ptr::from_mut(&mut a), size, 0) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    if a.policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    a.runtime = TURN;
    // SAFETY: the kernel reads the `size` bytes of `a`.
    let r = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(&a), 0) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn any_thread_may_ask() {
        std::thread::spawn(|| super::answer_soon().unwrap()).join().unwrap();
    }
}
