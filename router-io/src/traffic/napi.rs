//! Threaded NAPI: the kernel's receive processing of a device in a thread of its own, which can be put on a processor.

use super::cpu::pin_thread_of;
use crate::sys::device::{Device, Feature};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::io;
use std::time::{Duration, Instant};

/// Switches GRO of a device of the calling thread's namespace on or off. A veth has NAPI while GRO is on.
pub fn set_gro(device: &str, on: bool) -> io::Result<()> {
    Device::new(device)?.set_feature(Feature::GRO, u32::from(on))
}

/// Switches TCP segmentation offload of a device of the calling thread's namespace on or off. A veth whose other end has NAPI
/// goes past it with everything that GRO could not merge, so with UDP, while TSO is on.
pub fn set_tso(device: &str, on: bool) -> io::Result<()> {
    Device::new(device)?.set_feature(Feature::TSO, u32::from(on))
}

/// Moves receive processing of a device of the calling thread's namespace into kernel threads. The calling thread gets a
/// mount namespace of its own, for sysfs shows the devices of the namespace that mounted it: call it on a thread made
/// for this.
pub fn set_threaded(device: &str) -> io::Result<()> {
    // SAFETY: a new mount namespace for this thread only; nothing else depends on its mounts.
    unsafe { unshare_unsafe(UnshareFlags::FS | UnshareFlags::NEWNS) }?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    mount("sysfs", "/sys", "sysfs", MountFlags::empty(), None)?;
    std::fs::write(format!("/sys/class/net/{device}/threaded"), "1")
}

/// Thread ids of the kernel threads that receive for devices of this name. They appear a moment after
/// [`set_threaded`], so the wait is up to `limit`.
pub fn threads(device: &str, limit: Duration) -> Vec<u32> {
    let deadline = Instant::now() + limit;
    loop {
        let found = find(device);
        if !found.is_empty() || Instant::now() >= deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn find(device: &str) -> Vec<u32> {
    let name = format!("napi/{device}-");
    let name = name.get(..15).unwrap_or(&name);
    let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = all.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.starts_with(name))).collect()
}

/// Keeps them on these processors.
pub fn pin(threads: &[u32], cpus: &[usize]) -> io::Result<()> {
    threads.iter().try_for_each(|t| pin_thread_of(*t, cpus))
}
