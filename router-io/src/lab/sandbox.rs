//! A private sandbox for labs: the program runs itself again in namespaces of its own.
//!
//! The second process has a fresh network namespace and a private mount namespace with an empty `/run`, and where the
//! user is not root also a user namespace in which they are. The kernel kills it when the first one dies. So whatever
//! happens, a panic or kill -9, nothing outside is touched and nothing is left behind.

use super::process::die_with_parent;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::ffi::{CStr, OsStr};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Set in the process inside: `PID:INODE` of the process and the network namespace that it came from.
const MARK: &str = "DUET_SANDBOX";
/// A test that takes longer than this inside a sandbox is killed.
const TEST_LIMIT: Duration = Duration::from_secs(300);

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// This user, or this container, may not create namespaces.
    #[error(
        "cannot create a private network namespace: {0}; run as root, or let users create user namespaces \
         (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, \
         user.max_user_namespaces above 0; in a container: --privileged)"
    )]
    NotPermitted(io::Error),
    /// Something else failed.
    #[error("cannot start the sandbox: {0}")]
    System(#[from] io::Error),
}

/// On which side of [`enter`] the program finds itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Inside: go on.
    Inside,
    /// Outside, and the process inside has ended with this exit code (128 and the signal's number if killed).
    Outside(i32),
}

/// Whether this process was put into a sandbox by [`enter`] or [`in_sandbox`].
pub fn is_inside() -> bool {
    let Ok(mark) = std::env::var(MARK) else { return false };
    let Some((pid, inode)) = mark.split_once(':') else { return false };
    // Children of the process inside inherit the mark, but have another parent. And a mark that somebody just set does
    // not let a lab loose on the machine's own network.
    let parent = rustix::process::getppid().map(|p| p.as_raw_nonzero().get().to_string());
    parent.as_deref() == Some(pid) && netns_inode().is_some_and(|own| own != inode)
}

/// Whether this process is in a user namespace other than the machine's first.
pub fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().ne(["0", "0", "4294967295"])
}

/// Runs the program again inside a sandbox with the same arguments and waits for it; inside, returns at once. Call it
/// from the main thread, before any other thread exists.
///
/// # Errors
/// [`SandboxError::NotPermitted`] with the remedy.
pub fn enter() -> Result<Side, SandboxError> {
    if is_inside() {
        return Ok(Side::Inside);
    }
    let mut child = start(|command| {
        command.args(std::env::args_os().skip(1));
        if let Some(name) = std::env::args_os().next() {
            command.arg0(name);
        }
    })?;
    // Ctrl-C reaches the process inside as well, which ends in order; wait for that.
    let _ignored = IgnoreInterrupts::new();
    Ok(Side::Outside(exit_code(child.wait()?)))
}

/// A directory for files and sockets of a lab, private to the sandbox and gone with it: `/run/duet`.
///
/// # Errors
/// When called outside, or where the sandbox could not mount its own `/run`.
pub fn private_dir() -> io::Result<std::path::PathBuf> {
    if !is_inside() || !fs::read_to_string("/proc/self/mounts")?.lines().any(|l| l.starts_with("duet-sandbox /run ")) {
        return Err(io::Error::other("no private directory: not in a sandbox with its own /run"));
    }
    let dir = std::path::PathBuf::from("/run/duet");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Runs a test's body inside a sandbox: the test binary runs itself again for this one test, called `name` as libtest
/// calls it. Where namespaces may not be created, says so on standard error and returns. See [`crate::sandbox_test`].
///
/// # Panics
/// With the output of the process inside, if that fails or takes too long.
pub fn in_sandbox(name: &str, body: impl FnOnce()) {
    if is_inside() {
        body();
        return;
    }
    match run_test(name) {
        Ok((status, output)) => {
            print!("{output}");
            pass_on(&output);
            // A wrong name would run no test, successfully.
            let ran = output.contains("running 1 test");
            assert!(status.is_some_and(|s| s.success()) && ran, "{name} inside the sandbox: {}", describe(status, ran));
        }
        Err(e @ SandboxError::NotPermitted(_)) => {
            // Not by a macro of libtest's: those are hidden when a test passes.
            // And in one piece, for tests run side by side.
            let _ = io::stderr().write_all(format!("SKIPPED: {name}: {e}\n").as_bytes());
        }
        Err(e) => panic!("{name}: {e}"),
    }
}

/// Repeats lines for the reader of a test run on standard error, which libtest hides when a test passes: what was left
/// out (`SKIPPED: ...`) and what was measured (`NOTE: ...`).
fn pass_on(output: &str) {
    for line in output.lines() {
        if let Some(at) = ["SKIPPED: ", "NOTE: "].iter().find_map(|mark| line.find(mark)) {
            let _ = io::stderr().write_all(format!("{}\n", &line[at..]).as_bytes());
        }
    }
}

/// Defines a libtest test whose body runs inside a sandbox ([`lab::sandbox::in_sandbox`](in_sandbox)).
#[macro_export]
macro_rules! sandbox_test {
    ($(#[$meta:meta])* fn $name:ident() $body:block) => {
        #[test]
        $(#[$meta])*
        fn $name() {
            let path = concat!(module_path!(), "::", stringify!($name));
            // libtest leaves out the crate's name.
            let name = path.split_once("::").map_or(path, |(_, rest)| rest);
            $crate::lab::sandbox::in_sandbox(name, || $body);
        }
    };
}

/// How long a test may take: [`TEST_LIMIT`], or as many seconds as `DUET_TEST_LIMIT` says, for one that is made longer by hand.
fn limit() -> Duration {
    let seconds = std::env::var("DUET_TEST_LIMIT").ok().and_then(|s| s.parse().ok());
    seconds.map_or(TEST_LIMIT, Duration::from_secs)
}

fn describe(status: Option<ExitStatus>, ran: bool) -> String {
    match status {
        None => format!("not finished after {} s, killed", limit().as_secs()),
        Some(_) if !ran => "libtest knows no test of this name".to_owned(),
        Some(status) => status.to_string(),
    }
}

fn run_test(name: &str) -> Result<(Option<ExitStatus>, String), SandboxError> {
    let (mut output, input) = io::pipe()?;
    let mut child = start(|command| {
        command.args([name, "--exact", "--nocapture", "--test-threads=1", "--include-ignored"]);
        command.stdin(Stdio::null());
        // A process without standard output would fail anyway: fall back to the inherited one.
        if let (Ok(a), Ok(b)) = (input.try_clone(), input.try_clone()) {
            command.stdout(a).stderr(b);
        }
    })?;
    drop(input);
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = output.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let deadline = Instant::now() + limit();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => {
                child.kill()?;
                child.wait()?;
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    Ok((status, reader.join().unwrap_or_default()))
}

fn netns_inode() -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/thread-self/ns/net").ok().map(|m| m.ino().to_string())
}

/// Starts this program again in a sandbox: as it is, or else in a user namespace.
fn start(configure: impl Fn(&mut Command)) -> Result<Child, SandboxError> {
    if rustix::process::geteuid().is_root() {
        match attempt(&configure, false) {
            // A container's root may lack CAP_SYS_ADMIN and still be allowed a user namespace.
            Err(e) if not_permitted(&e) => {}
            other => return Ok(other?),
        }
    }
    attempt(&configure, true).map_err(|e| if not_permitted(&e) { SandboxError::NotPermitted(e) } else { e.into() })
}

/// Whether the error is one by which unshare(2) and the user namespace's files refuse: privilege, limits, security
/// modules, kernels without namespaces.
fn not_permitted(e: &io::Error) -> bool {
    let codes = [libc::EPERM, libc::EACCES, libc::ENOSPC, libc::EINVAL, libc::ENOSYS, libc::EUSERS];
    e.raw_os_error().is_some_and(|code| codes.contains(&code))
}

fn attempt(configure: &impl Fn(&mut Command), user_namespace: bool) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    configure(&mut command);
    let mark = format!("{}:{}", std::process::id(), netns_inode().unwrap_or_default());
    command.env(MARK, OsStr::new(&mark));
    let uid_map = format!("0 {} 1", rustix::process::geteuid().as_raw());
    let gid_map = format!("0 {} 1", rustix::process::getegid().as_raw());
    // SAFETY: the closure runs between fork and exec; it makes plain system calls on memory prepared before.
    unsafe {
        command.pre_exec(move || {
            let mut flags = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
            if user_namespace {
                flags |= UnshareFlags::NEWUSER;
            }
            unshare_unsafe(flags)?;
            if user_namespace {
                // Kernels before 3.19 lack the file and do not need it written.
                let _ = write_file(c"/proc/self/setgroups", b"deny");
                write_file(c"/proc/self/uid_map", uid_map.as_bytes())?;
                write_file(c"/proc/self/gid_map", gid_map.as_bytes())?;
            }
            private_mounts();
            Ok(())
        });
    }
    // After the above, for a change of credentials clears the signal.
    die_with_parent(&mut command);
    command.spawn()
}

/// Writes a file of /proc in one piece, with system calls only.
fn write_file(path: &CStr, text: &[u8]) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags, open};
    let file = open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text)?;
    Ok(())
}

/// Mounts of the sandbox. Each is a convenience: the lab says what it misses if one is refused.
fn private_mounts() {
    let none = std::ptr::null();
    let mount = |source: &CStr, target: &CStr, kind: *const libc::c_char, flags: libc::c_ulong, data: &CStr| {
        // SAFETY: all pointers are to NUL-terminated constants or null where mount(2) allows it.
        unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind, flags, data.as_ptr().cast()) }
    };
    // Nothing done below may propagate to the machine's own mounts.
    if mount(c"none", c"/", none, libc::MS_REC | libc::MS_PRIVATE, c"") != 0 {
        return;
    }
    mount(c"duet-sandbox", c"/run", c"tmpfs".as_ptr(), libc::MS_NOSUID | libc::MS_NODEV, c"mode=755");
    // Containers often mount /proc/sys read-only, and the hosts of a lab need their own settings below it.
    mount(c"none", c"/proc/sys", none, libc::MS_REMOUNT | libc::MS_BIND, c"");
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Ignores SIGINT and SIGQUIT of the terminal as long as it lives, as a shell does for a foreground program.
struct IgnoreInterrupts([libc::sighandler_t; 2]);

impl IgnoreInterrupts {
    fn new() -> Self {
        // SAFETY: sets a disposition; no handler code is involved.
        IgnoreInterrupts([libc::SIGINT, libc::SIGQUIT].map(|s| unsafe { libc::signal(s, libc::SIG_IGN) }))
    }
}

impl Drop for IgnoreInterrupts {
    fn drop(&mut self) {
        for (signal, old) in [libc::SIGINT, libc::SIGQUIT].into_iter().zip(self.0) {
            // SAFETY: restores what `new` found.
            unsafe { libc::signal(signal, old) };
        }
    }
}
