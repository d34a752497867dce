//! bpf(2): maps, programs and links, for ports and for the test traffic of benchmarks. No compiler and no loader library:
//! programs are a few instructions ([`insn`]); those of ports are in [`xdp`], [`tunnel`] and [`flow`].

mod array;
pub mod flow;
mod hash;
pub mod insn;
mod mapped;
pub mod tunnel;
pub mod xdp;

pub use array::ArrayMap;
pub use hash::HashMap;
pub use mapped::MappedArray;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const PROG_QUERY: libc::c_int = 16;
const LINK_CREATE: libc::c_int = 28;

const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_SOCKET_FILTER: u32 = 1;
const PROG_TYPE_SCHED_CLS: u32 = 3;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const ATTACH_TCX_INGRESS: u32 = 46;
const ATTACH_TCX_EGRESS: u32 = 47;
const TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;

/// The verifier's words are kept up to this length.
const LOG: usize = 64 << 10;

/// `union bpf_attr`, filled field by field at the offsets of `linux/bpf.h`. Larger than any member used here; the kernel
/// accepts a longer one whose rest is zero.
#[repr(C, align(8))]
struct Attr([u8; 128]);

impl Attr {
    fn new() -> Self {
        Attr([0; 128])
    }

    fn word(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn fd(self, at: usize, fd: BorrowedFd<'_>) -> Self {
        self.word(at, fd.as_raw_fd() as u32)
    }

    /// A pointer, as a number: each caller keeps what it points to alive over the call.
    fn pointer(mut self, at: usize, pointer: *const u8) -> Self {
        self.0[at..at + 8].copy_from_slice(&(pointer.expose_provenance() as u64).to_ne_bytes());
        self
    }

    fn read(&self, at: usize) -> u32 {
        u32::from_ne_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    /// bpf(2).
    ///
    /// # Safety
    /// Pointers in the attribute must be good for what the command does with them.
    unsafe fn call(&mut self, command: libc::c_int) -> io::Result<libc::c_int> {
        // SAFETY: pointer and size describe `self`; what it points to is the caller's promise.
        let r = unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), self.0.len()) };
        if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r as libc::c_int) }
    }

    /// A command whose result is a new descriptor.
    ///
    /// # Safety
    /// As for [`Attr::call`], and the command must be one that makes a descriptor.
    unsafe fn call_for_fd(&mut self, command: libc::c_int) -> io::Result<OwnedFd> {
        // SAFETY: the caller's promise; the kernel sets close-on-exec on every descriptor that bpf(2) makes.
        Ok(unsafe { OwnedFd::from_raw_fd(self.call(command)?) })
    }
}

/// A map whose values the kernel only takes (`XSKMAP`): index to socket.
#[derive(Debug)]
pub struct XskMap {
    fd: OwnedFd,
}

impl XskMap {
    /// An empty map for `entries` receive queues.
    pub fn new(entries: u32) -> io::Result<Self> {
        let mut attr = Attr::new().word(0, MAP_TYPE_XSKMAP).word(4, 4).word(8, 4).word(12, entries);
        // SAFETY: MAP_CREATE reads plain numbers and makes a descriptor.
        Ok(XskMap { fd: unsafe { attr.call_for_fd(MAP_CREATE) }? })
    }

    /// Frames of receive queue `queue` go to `socket` from now on. The entry goes away when the socket is closed.
    pub fn set(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let value = socket.as_raw_fd();
        let mut attr = Attr::new()
            .fd(0, self.fd.as_fd())
            .pointer(8, std::ptr::from_ref(&queue).cast())
            .pointer(16, std::ptr::from_ref(&value).cast());
        // SAFETY: key and value are 4 bytes each, as the map was made, and live until the end of this function.
        unsafe { attr.call(MAP_UPDATE_ELEM) }.map(drop)
    }
}

/// How many programs for packets of the kernel are on one way of the device `ifindex` of the calling thread's network namespace,
/// anybody's.
pub fn attached_traffic(ifindex: u32, way: Way) -> io::Result<u32> {
    let mut attr = Attr::new().word(0, ifindex).word(4, way.attach_type());
    // SAFETY: PROG_QUERY without room for numbers of programs only counts them, into the attribute.
    unsafe { attr.call(PROG_QUERY) }?;
    Ok(attr.read(24))
}

/// Why the kernel does not take a program.
#[derive(Debug, thiserror::Error)]
#[error("the kernel refuses the BPF program: {source}{}", if .log.is_empty() { String::new() } else { format!("\n{log}") })]
pub struct LoadError {
    /// Its answer: EPERM without CAP_BPF and CAP_NET_ADMIN.
    pub source: io::Error,
    /// The verifier's words, if it got that far.
    pub log: String,
}

impl LoadError {
    /// As an error of a system call, with the verifier's last words.
    pub fn into_io(self) -> io::Error {
        let last: Vec<&str> = self.log.lines().rev().filter(|l| !l.starts_with("processed")).take(2).collect();
        match last.is_empty() {
            true => self.source,
            false => io::Error::new(self.source.kind(), format!("{}: {}", self.source, last.join(" / "))),
        }
    }
}

/// A loaded program. It runs while it is attached.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
}

/// What a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Frames as the driver has received them.
    Xdp,
    /// Packets of the kernel that come in or go out ([`Program::attach_traffic`]).
    Traffic,
    /// Packets on their way into a socket ([`Program::attach_socket`]).
    Socket,
}

/// On which of a device's ways a program for packets of the kernel runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Behind the packet sockets' look at what comes in.
    In,
    /// Before the queueing discipline.
    Out,
}

impl Way {
    fn attach_type(self) -> u32 {
        match self {
            Way::In => ATTACH_TCX_INGRESS,
            Way::Out => ATTACH_TCX_EGRESS,
        }
    }
}

/// How a program is attached to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// In the driver, before the kernel makes its own structures for a frame.
    Native,
    /// In the kernel's generic receive path: any driver, slower.
    Generic,
}

/// A program on a device; taken away when dropped, and when the process dies.
#[derive(Debug)]
pub struct Link {
    _fd: OwnedFd,
}

impl Program {
    /// Loads an XDP program under a name, of which 15 bytes count. Needs CAP_BPF and CAP_NET_ADMIN.
    pub fn load(name: &str, code: &[u64]) -> Result<Self, LoadError> {
        Self::load_as(Kind::Xdp, name, code)
    }

    /// The same for a program of any kind.
    pub fn load_as(kind: Kind, name: &str, code: &[u64]) -> Result<Self, LoadError> {
        let (kind, attach) = match kind {
            Kind::Xdp => (PROG_TYPE_XDP, ATTACH_XDP),
            Kind::Traffic => (PROG_TYPE_SCHED_CLS, 0),
            Kind::Socket => (PROG_TYPE_SOCKET_FILTER, 0),
        };
        let license = c"Dual MIT/GPL";
        let short = &name.as_bytes()[..name.len().min(15)];
        let attempt = |log: &mut [u8]| {
            let mut attr = Attr::new()
                .word(0, kind)
                .word(4, code.len() as u32)
                .pointer(8, code.as_ptr().cast())
                .pointer(16, license.as_ptr().cast())
                .word(68, attach);
            attr.0[48..48 + short.len()].copy_from_slice(short);
            if !log.is_empty() {
                attr = attr.word(24, 1).word(28, log.len() as u32).pointer(32, log.as_mut_ptr());
            }
            // SAFETY: instructions, licence and log live over the call, and the lengths are theirs.
            unsafe { attr.call_for_fd(PROG_LOAD) }
        };
        attempt(&mut []).map(|fd| Program { fd }).map_err(|source| {
            let mut log = vec![0; LOG];
            // Only to hear why.
            let _ = attempt(&mut log);
            let end = log.iter().position(|b| *b == 0).unwrap_or(0);
            LoadError { source, log: String::from_utf8_lossy(&log[..end]).trim_end().to_owned() }
        })
    }

    /// Attaches to the device `ifindex` of the calling thread's network namespace. Errors: EBUSY when another program is
    /// attached already, EOPNOTSUPP when the driver knows no XDP ([`AttachMode::Native`]), EPERM without CAP_NET_ADMIN.
    pub fn attach(&self, ifindex: u32, mode: AttachMode) -> io::Result<Link> {
        let flag = match mode {
            AttachMode::Generic => 1 << 1,
            AttachMode::Native => 1 << 2,
        };
        let mut attr = Attr::new().fd(0, self.fd.as_fd()).word(4, ifindex).word(8, ATTACH_XDP).word(12, flag);
        // SAFETY: LINK_CREATE reads plain numbers and makes a descriptor.
        Ok(Link { _fd: unsafe { attr.call_for_fd(LINK_CREATE) }? })
    }

    /// Attaches a program of kind [`Kind::Traffic`] to the device `ifindex` of the calling thread's network namespace, beside
    /// others that are there. Linux 6.6; EINVAL before.
    pub fn attach_traffic(&self, ifindex: u32, way: Way) -> io::Result<Link> {
        let mut attr = Attr::new().fd(0, self.fd.as_fd()).word(4, ifindex).word(8, way.attach_type());
        // SAFETY: LINK_CREATE reads plain numbers and makes a descriptor.
        Ok(Link { _fd: unsafe { attr.call_for_fd(LINK_CREATE) }? })
    }

    /// Lets a program of kind [`Kind::Socket`] say which packets `socket` gets, until the socket is closed.
    pub fn attach_socket(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        crate::sys::opt::set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_BPF, &self.fd.as_raw_fd())
    }

    /// Attaches it natively if the driver can, else generically, and says whether it is in the driver.
    pub fn attach_anyhow(&self, ifindex: u32) -> io::Result<(Link, bool)> {
        match self.attach(ifindex, AttachMode::Native) {
            Ok(link) => Ok((link, true)),
            Err(_) => self.attach(ifindex, AttachMode::Generic).map(|link| (link, false)),
        }
    }

    /// Runs it on `repeat` frames that begin as copies of `data` and really go where the program sends them, in batches
    /// of `batch` (at most 256). Linux 5.18.
    pub fn run_live(&self, data: &[u8], repeat: u32, batch: u32) -> io::Result<()> {
        let mut attr = Attr::new()
            .fd(0, self.fd.as_fd())
            .word(8, data.len() as u32)
            .pointer(16, data.as_ptr())
            .word(32, repeat)
            .word(64, TEST_XDP_LIVE_FRAMES)
            .word(72, batch);
        // SAFETY: the kernel reads `data` of the given length and writes nothing but the attributes.
        unsafe { attr.call(PROG_TEST_RUN) }.map(drop)
    }

    #[cfg(test)]
    /// Runs the program once over `frame` (at least 14 bytes), without any device: its answer (an `XDP_` action).
    pub fn test_run(&self, frame: &[u8]) -> io::Result<u32> {
        let mut attr =
            Attr::new().fd(0, self.fd.as_fd()).word(8, frame.len() as u32).pointer(16, frame.as_ptr()).word(32, 1);
        // SAFETY: the kernel reads `frame.len()` bytes of `frame`.
        unsafe { attr.call(PROG_TEST_RUN) }?;
        Ok(attr.read(4))
    }
}
