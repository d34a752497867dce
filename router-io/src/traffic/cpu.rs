//! Which processors a process or thread may use.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::io;

/// Processors that the calling thread may use, in order.
pub fn affinity() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Keeps a thread (by thread id) on these processors. An empty list changes nothing.
pub fn pin_thread_of(tid: u32, cpus: &[usize]) -> io::Result<()> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    cpus.iter().filter(|cpu| **cpu < CpuSet::MAX_CPU).for_each(|cpu| set.set(*cpu));
    let pid = i32::try_from(tid).ok().and_then(Pid::from_raw);
    Ok(sched_setaffinity(pid, &set)?)
}

/// Keeps all present threads of a process on these processors, and so those that they make later; threads whose name
/// begins with `spread` get one processor each, in turn.
pub fn pin_process(pid: u32, cpus: &[usize], spread: &str) -> io::Result<()> {
    let mut next = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?;
        let Some(tid) = task.file_name().to_str().and_then(|t| t.parse().ok()) else { continue };
        let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let one = if !spread.is_empty() && name.starts_with(spread) {
            next += 1;
            cpus.get((next - 1) % cpus.len().max(1)).map(std::slice::from_ref)
        } else {
            None
        };
        match pin_thread_of(tid, one.unwrap_or(cpus)) {
            // A thread that has just ended.
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_kept_where_it_is_put() {
        std::thread::spawn(|| {
            let all = affinity();
            assert!(!all.is_empty());
            let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
            pin_thread_of(tid, &all[..1]).unwrap();
            assert_eq!(affinity(), all[..1]);
            pin_thread_of(tid, &[]).unwrap();
            assert_eq!(affinity(), all[..1]);
        })
        .join()
        .unwrap();
    }
}
