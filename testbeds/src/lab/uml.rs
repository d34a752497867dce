//! A user-mode Linux kernel as a host of a lab: somebody else's tunnels at the other end.
//!
//! Debian's package `user-mode-linux` is a whole kernel that runs as a program. It is started inside a [`Host`], whose
//! devices it takes over (packet sockets on them; the host's own kernel is silent there), with the machine's files as its
//! root, read-only. What it is to do is told to a shell in it. It dies with its [`Guest`], and with the test.

use super::Result;
use router_io::lab::{Host, Process};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Debian's name for the kernel.
const KERNEL: &str = "linux.uml";
/// How long it may take to boot, and to do one thing.
const PATIENCE: Duration = Duration::from_secs(60);
/// What its first program does: modules of tunnels, then whatever is said on standard input.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
mount -t proc proc /proc
mount -t tmpfs none /tmp
modules=/usr/lib/uml/modules/$(uname -r)/kernel
for m in lib/crc-ccitt net/ipv6/ipv6 net/ipv4/tunnel4 net/ipv4/ip_tunnel net/ipv4/gre net/ipv6/tunnel6 net/ipv6/ip6_tunnel \
  net/ipv6/sit net/ipv4/ipip net/ipv4/ip_gre net/ipv6/ip6_gre net/ipv6/ip6_udp_tunnel net/ipv4/udp_tunnel net/ipv4/fou; do
  [ ! -e $modules/$m.ko ] || busybox insmod $modules/$m.ko
done
# No rate limits, no duplicate address detection, as for all hosts of labs.
echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
echo 0 > /proc/sys/net/ipv6/icmp/ratelimit
for i in all default; do
  echo 0 > /proc/sys/net/ipv6/conf/$i/accept_dad
  echo 0 > /proc/sys/net/ipv4/conf/$i/rp_filter
done
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
ip link set lo up
echo REA''DY
while read -r line; do eval "$line"; done
"#;

/// A running guest kernel. Its devices are called `vec0`, `vec1` and so on, in the order given.
#[derive(Debug)]
pub struct Guest {
    // Dropped first: the kernel ends, then its output.
    _process: Process,
    input: ChildStdin,
    lines: Receiver<String>,
    said: Vec<String>,
    asked: u32,
}

impl Guest {
    /// Whether all that a guest needs is installed; if not, says so on standard error.
    pub fn is_possible() -> bool {
        let found = |program: &str| {
            ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].iter().any(|d| Path::new(d).join(program).exists())
        };
        let missing: Vec<_> =
            [(KERNEL, "user-mode-linux"), ("busybox", "busybox-static"), ("ip", "iproute2"), ("unshare", "util-linux")]
                .iter()
                .filter(|(program, _)| !found(program))
                .map(|(_, package)| *package)
                .collect();
        if !missing.is_empty() {
            eprintln!("SKIPPED: a user-mode Linux kernel as the other end: not installed: {}", missing.join(", "));
        }
        missing.is_empty()
    }

    /// Boots a kernel in `host` that takes these devices over. None, said on standard error, where the system does not let
    /// one process trace another.
    ///
    /// # Errors
    /// With what it said, if it does not boot. One that panics before it is ready gets two more chances: now and then
    /// its first process cannot fork, whatever its network.
    pub fn boot(host: &Host, dir: &Path, devices: &[&str]) -> Result<Option<Self>> {
        for _ in 0..2 {
            match Self::boot_once(host, dir, devices) {
                Err(e) if e.to_string().contains("Kernel panic") => eprintln!("once more: {e}"),
                other => return other,
            }
        }
        Self::boot_once(host, dir, devices)
    }

    fn boot_once(host: &Host, dir: &Path, devices: &[&str]) -> Result<Option<Self>> {
        let init = dir.join(format!("init-{}", host.name()));
        std::fs::write(&init, INIT)?;
        std::fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        host.set_sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        // In a process namespace of its own: when its first process is killed, so are all that the guest consists of.
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child=KILL", "--mount-proc", KERNEL]).env("TMPDIR", dir);
        command.args(["mem=80M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", "panic=1"]);
        command.args(["con=null", "con0=fd:0,fd:1"]).arg(format!("init={}", init.display()));
        for (i, device) in devices.iter().enumerate() {
            let link = host.netlink().links()?.into_iter().find(|l| l.name == *device);
            // One frame at a time (vec=0): sending many, the driver loses all but the first piece of a super-frame's data.
            let mac = link.and_then(|l| l.mac).ok_or_else(|| format!("{}: no device {device}", host.name()))?;
            command.arg(format!("vec{i}:transport=raw,ifname={device},mac={mac},gro=1,vec=0"));
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = host.spawn(command)?;
        let (input, output) = process.stdin().zip(process.stdout()).ok_or("no pipes to the guest")?;
        let (tx, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n').map_while(|l| l.ok()) {
                let _ = tx.send(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        });
        let mut guest = Guest { _process: process, input, lines, said: Vec::new(), asked: 0 };
        match guest.hear("READY") {
            Ok(_) => {
                // The terminal is a pipe: nothing is to be said twice.
                guest.run("busybox stty -echo")?;
                Ok(Some(guest))
            }
            Err(e) if e.to_string().contains("ptrace") && e.to_string().contains("not permitted") => {
                eprintln!("SKIPPED: a user-mode Linux kernel as the other end: {e}");
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Runs a line of shell in the guest, and gives what it printed.
    ///
    /// # Errors
    /// With that, if it fails.
    pub fn run(&mut self, line: &str) -> Result<String> {
        self.asked += 1;
        let n = self.asked;
        // Quotes in the marks: an echo of the line itself is none.
        writeln!(self.input, "( {line} ) 2>&1; echo EN''D{n} $?")?;
        let (text, end) = self.hear(&format!("END{n} "))?;
        match end.trim_end().ends_with(" 0") {
            true => Ok(text),
            false => Err(format!("guest: {line}\n{text}{end}").into()),
        }
    }

    /// Runs several lines.
    ///
    /// # Errors
    /// As [`Guest::run`]; those behind are not run then.
    pub fn run_all<'l>(&mut self, lines: impl IntoIterator<Item = &'l str>) -> Result {
        lines.into_iter().map(str::trim).filter(|l| !l.is_empty()).try_for_each(|l| self.run(l).map(|_| ()))
    }

    /// Everything up to a line that starts with `mark`, and that line.
    fn hear(&mut self, mark: &str) -> Result<(String, String)> {
        let end = Instant::now() + PATIENCE;
        self.said.clear();
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line.starts_with(mark) => return Ok((self.said.join("\n"), line)),
                Ok(line) if line.starts_with("Kernel panic") => {
                    return Err(format!("the guest ends:\n{}\n{line}", self.said.join("\n")).into());
                }
                Ok(line) => self.said.push(line),
                Err(e) => {
                    let how = if e == RecvTimeoutError::Timeout { "says no more" } else { "has ended" };
                    return Err(format!("the guest kernel {how}:\n{}", self.said.join("\n")).into());
                }
            }
        }
    }
}
