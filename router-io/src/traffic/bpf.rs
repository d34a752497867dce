//! bpf(2): maps, XDP programs, attaching them for as long as a descriptor is open, running them on live frames.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
const LINK_CREATE: libc::c_long = 28;
const MAP_TYPE_ARRAY: u32 = 2;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;

/// A command's attributes: as long as the longest union member used here, the rest zero, as the kernel wants it.
#[repr(C, align(8))]
struct Attr([u8; 128]);

impl Attr {
    fn new() -> Self {
        Attr([0; 128])
    }

    fn u32(mut self, at: usize, v: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&v.to_ne_bytes());
        self
    }

    fn u64(mut self, at: usize, v: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&v.to_ne_bytes());
        self
    }

    fn fd(self, at: usize, fd: &OwnedFd) -> Self {
        self.u32(at, fd.as_raw_fd() as u32)
    }

    /// # Safety
    /// Every pointer that the attributes hold for this command must be valid for what the kernel reads or writes there.
    unsafe fn call(&mut self, command: libc::c_long) -> io::Result<i32> {
        // SAFETY: the attributes are 128 readable and writable bytes; what they point to is the caller's promise.
        let r = unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), self.0.len()) };
        if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r as i32) }
    }
}

fn own(fd: i32) -> OwnedFd {
    // SAFETY: a descriptor that the kernel has just made for this process.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// An array map: `len` values of `size` bytes.
#[derive(Debug)]
pub struct ArrayMap {
    fd: OwnedFd,
    size: usize,
    len: usize,
}

impl ArrayMap {
    /// Makes one, all zero. Needs CAP_BPF, or CAP_SYS_ADMIN on older kernels.
    pub fn new(size: usize, len: usize) -> io::Result<Self> {
        let mut attr = Attr::new().u32(0, MAP_TYPE_ARRAY).u32(4, 4).u32(8, size as u32).u32(12, len as u32);
        // SAFETY: this command's attributes hold no pointer.
        let fd = own(unsafe { attr.call(MAP_CREATE) }?);
        Ok(ArrayMap { fd, size, len })
    }

    /// Its descriptor, for instructions.
    pub fn fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    /// How many values it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none; the kernel makes no such map.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies value `i` to `to`, which must have the values' size.
    pub fn get(&self, i: u32, to: &mut [u8]) -> io::Result<()> {
        if to.len() != self.size.next_multiple_of(8) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut attr =
            Attr::new().fd(0, &self.fd).u64(8, std::ptr::from_ref(&i) as u64).u64(16, to.as_mut_ptr() as u64);
        // SAFETY: the kernel reads four bytes of key and writes one value, whose size was compared above.
        unsafe { attr.call(MAP_LOOKUP_ELEM) }.map(drop)
    }

    /// Sets value `i`.
    pub fn set(&self, i: u32, value: &[u8]) -> io::Result<()> {
        if value.len() != self.size.next_multiple_of(8) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut attr = Attr::new().fd(0, &self.fd).u64(8, std::ptr::from_ref(&i) as u64).u64(16, value.as_ptr() as u64);
        // SAFETY: the kernel reads four bytes of key and one value, whose size was compared above.
        unsafe { attr.call(MAP_UPDATE_ELEM) }.map(drop)
    }
}

/// A loaded XDP program.
#[derive(Debug)]
pub struct XdpProgram {
    fd: OwnedFd,
}

impl XdpProgram {
    /// Loads instructions. Needs CAP_BPF and CAP_NET_ADMIN.
    ///
    /// # Errors
    /// The kernel's, with the verifier's last words where it refused the program.
    pub fn load(name: &str, code: &[u64]) -> io::Result<Self> {
        let license = CString::new("Dual MIT/GPL")?;
        let mut log = vec![0u8; 16 << 10];
        let mut attr = Attr::new()
            .u32(0, PROG_TYPE_XDP)
            .u32(4, code.len() as u32)
            .u64(8, code.as_ptr() as u64)
            .u64(16, license.as_ptr() as u64)
            .u32(24, 1)
            .u32(28, log.len() as u32)
            .u64(32, log.as_mut_ptr() as u64);
        let short = &name.as_bytes()[..name.len().min(15)];
        attr.0[48..48 + short.len()].copy_from_slice(short);
        // SAFETY: code, licence and log outlive the call; their lengths are given or end with a NUL.
        match unsafe { attr.call(PROG_LOAD) } {
            Ok(fd) => Ok(XdpProgram { fd: own(fd) }),
            // A log that does not fit is an error of its own; the program may still be good.
            Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => {
                let mut quiet = attr.u32(24, 0).u32(28, 0).u64(32, 0);
                // SAFETY: as above, without a log.
                Ok(XdpProgram { fd: own(unsafe { quiet.call(PROG_LOAD) }?) })
            }
            Err(e) => {
                let end = log.iter().position(|b| *b == 0).unwrap_or(log.len());
                let text = String::from_utf8_lossy(&log[..end]);
                let last: Vec<&str> = text.lines().rev().filter(|l| !l.starts_with("processed")).take(2).collect();
                if last.is_empty() {
                    return Err(e);
                }
                Err(io::Error::new(e.kind(), format!("{e}: {}", last.join(" / "))))
            }
        }
    }

    /// Attaches it to a device of the calling thread's namespace, natively if the driver can, else generically. Dropping
    /// the result, or the end of the process, detaches it.
    pub fn attach(&self, ifindex: u32) -> io::Result<XdpLink> {
        let try_mode = |flags: u32| {
            let mut attr = Attr::new().fd(0, &self.fd).u32(4, ifindex).u32(8, ATTACH_XDP).u32(12, flags);
            // SAFETY: this command's attributes hold no pointer.
            unsafe { attr.call(LINK_CREATE) }.map(own)
        };
        match try_mode(XDP_FLAGS_DRV_MODE) {
            Ok(fd) => Ok(XdpLink { _fd: fd, native: true }),
            Err(_) => try_mode(XDP_FLAGS_SKB_MODE).map(|fd| XdpLink { _fd: fd, native: false }),
        }
    }

    /// Runs it on `repeat` frames that begin as copies of `data` and really go where the program sends them, in batches
    /// of `batch` (at most 256). Linux 5.18.
    pub fn run_live(&self, data: &[u8], repeat: u32, batch: u32) -> io::Result<()> {
        let mut attr = Attr::new()
            .fd(0, &self.fd)
            .u32(8, data.len() as u32)
            .u64(16, data.as_ptr() as u64)
            .u32(32, repeat)
            .u32(64, TEST_XDP_LIVE_FRAMES)
            .u32(72, batch);
        // SAFETY: the kernel reads `data` of the given length and writes nothing but the attributes.
        unsafe { attr.call(PROG_TEST_RUN) }.map(drop)
    }
}

/// An attached program.
#[derive(Debug)]
pub struct XdpLink {
    _fd: OwnedFd,
    native: bool,
}

impl XdpLink {
    /// Whether it runs in the driver.
    pub fn is_native(&self) -> bool {
        self.native
    }
}
