//! A running router whose ports are in memory: no namespaces, no privileges.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `what` gives something.
#[track_caller]
pub fn eventually<T>(why: &str, mut what: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = what() {
            return value;
        }
        assert!(Instant::now() < until, "not in {PATIENCE:?}: {why}");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// See the module. It ends with its owner.
#[derive(Debug)]
pub struct Plain {
    program: PathBuf,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Plain {
    /// Starts `program run` with a configuration in which `SOCKET` stands for the path of the control socket.
    pub fn start(program: &str, toml: &str) -> io::Result<Plain> {
        let dir = tempfile::tempdir()?;
        let mut router = Plain { program: program.into(), dir, child: None };
        let socket = router.socket();
        std::fs::write(router.config(), toml.replace("SOCKET", &socket.to_string_lossy()))?;
        router.run()?;
        Ok(router)
    }

    /// Starts it again after [`Plain::kill`].
    pub fn run(&mut self) -> io::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.dir.path().join("log"))?;
        let child = Command::new(&self.program)
            .arg("run")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        let socket = self.socket();
        eventually("the router listens", || std::os::unix::net::UnixStream::connect(&socket).ok());
        Ok(())
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("duet.sock")
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("duet.toml")
    }

    /// A directory for the test's files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The program under test.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Runs the program with these words against this router, with something to read.
    pub fn ask_with(&self, words: &[&str], input: &[u8]) -> io::Result<Output> {
        let mut child = Command::new(&self.program)
            .args(words)
            .env("DUET_SOCKET", self.socket())
            .env("XDG_STATE_HOME", self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // The program may end before it has read everything.
                let _ = stdin.map(|mut s| s.write_all(input));
            });
            child.wait_with_output()
        })
    }

    /// Runs the program with these words; panics unless it succeeds; returns what it printed.
    #[track_caller]
    pub fn ask(&self, words: &[&str]) -> String {
        let out = self.ask_with(words, b"").unwrap_or_else(|e| panic!("{e}"));
        assert!(out.status.success(), "{words:?}: {}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of the router:\n{}", self.log());
        }
    }
}
