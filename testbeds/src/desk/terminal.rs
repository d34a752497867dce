//! A pseudo-terminal with a program in it: keys go in, what a person would see on the screen comes out.

use super::eventually;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// See the module.
pub struct Terminal {
    child: Child,
    master: File,
    /// Kept open so that the terminal's settings can be read when the program is gone.
    slave: OwnedFd,
    shared: Arc<Mutex<Shared>>,
    reader: Option<JoinHandle<()>>,
}

struct Shared {
    screen: vt100::Parser,
    /// Everything that came, escape sequences included.
    raw: Vec<u8>,
    paused: bool,
    closing: bool,
}

/// How a program ended, and how it left the terminal.
#[derive(Debug)]
pub struct End {
    /// Its exit status.
    pub status: ExitStatus,
    /// Lines are edited and echoed by the terminal again.
    pub cooked: bool,
    /// The screen that was there before is shown again.
    pub main_screen: bool,
    /// The cursor can be seen.
    pub cursor: bool,
    /// The screen at the end.
    pub screen: String,
}

impl Terminal {
    /// Starts a program in a terminal of this size. The command's environment is its own; TERM is that of a common terminal.
    pub fn start(mut command: Command, rows: u16, columns: u16) -> io::Result<Terminal> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let name = name.to_str().map_err(io::Error::other)?.to_owned();
        let slave = File::options().read(true).write(true).open(name)?;
        tcsetwinsize(&slave, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?;
        // setsid(1) makes the terminal the controlling one and becomes the program.
        let mut own = Command::new("setsid");
        own.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => own.env(key, value),
                None => own.env_remove(key),
            };
        }
        own.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        command = own;
        let end = |f: &File| f.try_clone().map(Stdio::from);
        let child = command.stdin(end(&slave)?).stdout(end(&slave)?).stderr(end(&slave)?).spawn()?;
        let master = File::from(master);
        let shared = Arc::new(Mutex::new(Shared {
            screen: vt100::Parser::new(rows, columns, 0),
            raw: Vec::new(),
            paused: false,
            closing: false,
        }));
        let (mut from, mut to, shared2) = (master.try_clone()?, master.try_clone()?, Arc::clone(&shared));
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                if lock(&shared2).closing {
                    return;
                }
                let mut fds = [PollFd::new(&from, PollFlags::IN)];
                let wait = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
                if lock(&shared2).paused {
                    std::thread::park_timeout(std::time::Duration::from_millis(20));
                    continue;
                }
                if poll(&mut fds, Some(&wait)).is_ok_and(|n| n == 0) {
                    continue;
                }
                let Ok(n @ 1..) = from.read(&mut buffer) else { return };
                let bytes = buffer.get(..n).unwrap_or_default();
                let mut s = lock(&shared2);
                for part in split_after(bytes, b"\x1b[6n") {
                    s.screen.process(part);
                    if part.ends_with(b"\x1b[6n") {
                        let (row, column) = s.screen.screen().cursor_position();
                        let _ = to.write_all(format!("\x1b[{};{}R", row + 1, column + 1).as_bytes());
                    }
                }
                s.raw.extend_from_slice(bytes);
            }
        });
        Ok(Terminal { child, master, slave: slave.into(), shared, reader: Some(reader) })
    }

    /// Presses keys. `\r` is Enter, `\t` TAB, `\x03` Ctrl-C.
    #[track_caller]
    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap_or_else(|e| panic!("{e}\n{}", self.screen()));
    }

    /// What is on the screen.
    pub fn screen(&self) -> String {
        lock(&self.shared).screen.screen().contents()
    }

    /// Everything that came so far, escape sequences included.
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&lock(&self.shared).raw).into_owned()
    }

    /// Stops reading what the program writes, as a line that is too slow does; or goes on.
    pub fn pause(&self, paused: bool) {
        lock(&self.shared).paused = paused;
    }

    /// Waits until the screen shows all of these; returns it.
    #[track_caller]
    pub fn see(&self, texts: &[&str]) -> String {
        self.see_that(&format!("the screen shows {texts:?}"), |screen| texts.iter().all(|t| screen.contains(t)))
    }

    /// Waits until the screen is as wanted; returns it.
    #[track_caller]
    pub fn see_that(&self, why: &str, wanted: impl Fn(&str) -> bool) -> String {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let screen = self.screen();
            if wanted(&screen) {
                return screen;
            }
            assert!(std::time::Instant::now() < until, "never: {why}\n--- screen:\n{screen}\n---");
            std::thread::park_timeout(std::time::Duration::from_millis(10));
        }
    }

    /// The program's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends the program a signal, by its number.
    pub fn signal(&self, signal: rustix::process::Signal) -> io::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Gives the terminal another size.
    pub fn resize(&mut self, rows: u16, columns: u16) -> io::Result<()> {
        lock(&self.shared).screen.screen_mut().set_size(rows, columns);
        Ok(tcsetwinsize(&self.master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?)
    }

    /// Takes the terminal away, as a lost connection does; returns how the program ended.
    #[track_caller]
    pub fn hang_up(mut self) -> ExitStatus {
        lock(&self.shared).closing = true;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        // The last end that is not the program's own.
        let null = File::open("/dev/null").unwrap_or_else(|e| panic!("{e}"));
        drop(std::mem::replace(&mut self.master, null));
        eventually("the program ends when its terminal is gone", || self.child.try_wait().ok().flatten())
    }

    /// Waits for the end of the program.
    #[track_caller]
    pub fn end(mut self) -> End {
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => {}
                Err(e) => panic!("{e}"),
            }
            assert!(std::time::Instant::now() < until, "it does not end\n--- screen:\n{}\n---", self.screen());
            std::thread::park_timeout(std::time::Duration::from_millis(10));
        };
        let modes = tcgetattr(&self.slave).map(|t| t.local_modes).unwrap_or(LocalModes::empty());
        // What was written last is still on its way to the screen.
        let mut last = usize::MAX;
        eventually("the screen is complete", || {
            let now = lock(&self.shared).raw.len();
            std::thread::park_timeout(std::time::Duration::from_millis(20));
            (std::mem::replace(&mut last, now) == now).then_some(())
        });
        let s = lock(&self.shared);
        let screen = s.screen.screen();
        End {
            status,
            cooked: modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG),
            main_screen: !screen.alternate_screen(),
            cursor: !screen.hide_cursor(),
            screen: screen.contents(),
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pieces of `bytes`, each but the last ending in `mark`.
fn split_after<'b>(bytes: &'b [u8], mark: &[u8]) -> Vec<&'b [u8]> {
    let mut out = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(mark.len()).position(|w| w == mark) {
        let (part, tail) = rest.split_at(at + mark.len());
        out.push(part);
        rest = tail;
    }
    out.push(rest);
    out
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        lock(&self.shared).paused = false;
        // The reader ends when the terminal is closed, which is after this.
        drop(self.reader.take());
    }
}
