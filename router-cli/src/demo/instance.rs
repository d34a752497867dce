//! Router processes in a laboratory: `duet run` in a host of its own, and `duet` commands given to it.
//!
//! The demo and the end-to-end tests drive the program exactly as a person would: a file, a process, commands
//! through the control socket, SIGTERM.

use router_core::counters::PortTotals;
use router_io::lab::{Host, LabError, Process};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a router may take to open its control socket, and to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(20);

/// A router process could not be started, asked or stopped.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The lab refused.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A file, a socket or a process failed.
    #[error("router {name}: {what}: {source}")]
    System {
        /// The router.
        name: String,
        /// What was being done.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
    /// It ended instead of becoming ready, or did not become ready in time.
    #[error("router {name} {what}\n{log}")]
    NotReady {
        /// The router.
        name: String,
        /// How it ended, or how long was waited.
        what: String,
        /// What it wrote to standard error.
        log: String,
    },
    /// A command was refused.
    #[error("router {name}: `duet {words}` ended with {code}: {text}")]
    Refused {
        /// The router.
        name: String,
        /// The command.
        words: String,
        /// Its exit code.
        code: i32,
        /// What it wrote to standard error.
        text: String,
    },
    /// The answer to a command is not what it should be.
    #[error("router {name}: `duet {words}` answered something else than expected: {why}")]
    Answer {
        /// The router.
        name: String,
        /// The command.
        words: String,
        /// What is wrong.
        why: String,
    },
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Exit code; 128 and the signal's number if it was killed.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Counters of a router as `duet stats -j` tells them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Frames taken from ports.
    pub received: u64,
    /// Frames made by the router.
    pub originated: u64,
    /// Frames handed to ports.
    pub transmitted: u64,
    /// Frames used inside.
    pub delivered: u64,
    /// Requests answered.
    pub answered: u64,
    /// Frames waiting.
    pub held: u64,
    /// Frames dropped for all reasons.
    pub dropped: u64,
    /// Frames dropped, by reason.
    #[serde(default)]
    pub drops: BTreeMap<String, u64>,
    /// By port or tunnel.
    #[serde(default)]
    pub ports: Vec<PortStats>,
}

/// Counters of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStats {
    /// The port's name.
    pub ifname: String,
    /// Its counters.
    #[serde(flatten)]
    pub totals: PortTotals,
}

impl Stats {
    /// Frames dropped for one reason.
    pub fn drops(&self, reason: &str) -> u64 {
        self.drops.get(reason).copied().unwrap_or(0)
    }

    /// The conservation law of [`router_core::counters`]: frames that came in or were made, and frames that ended.
    pub fn balance(&self) -> (u64, u64) {
        let entered = self.received + self.originated;
        let dropped: u64 = self.drops.values().sum();
        (entered, self.transmitted + self.delivered + self.answered + dropped + self.held)
    }

    /// The counters of one port; all zero if there is none of this name.
    pub fn port(&self, name: &str) -> PortTotals {
        self.ports.iter().find(|p| p.ifname == name).map(|p| p.totals).unwrap_or_default()
    }
}

/// The program that plays the router: this one. The descriptor keeps working whatever is mounted over its path.
pub fn this_program() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// A running router. Killed when dropped.
#[derive(Debug)]
pub struct Instance {
    name: String,
    program: PathBuf,
    config: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    process: Process,
}

impl Instance {
    /// Writes `config` to `dir/NAME.toml`, starts `program run` on it in `host` and waits until its control socket
    /// answers. NAME is the host's name. Standard error goes to `dir/NAME.log`.
    ///
    /// # Errors
    /// [`InstanceError::NotReady`] with the log if the process ends or takes too long.
    pub fn start(program: &Path, host: &Arc<Host>, dir: &Path, config: &str) -> Result<Self, InstanceError> {
        let mut instance = Self::launch(program, host, dir, config)?;
        instance.wait_ready(PATIENCE)?;
        Ok(instance)
    }

    /// As [`Instance::start`] without waiting.
    pub fn launch(program: &Path, host: &Arc<Host>, dir: &Path, config: &str) -> Result<Self, InstanceError> {
        let name = host.name().to_owned();
        let on = |what| {
            let name = name.clone();
            move |source| InstanceError::System { name, what, source }
        };
        let file = |end: &str| dir.join(format!("{name}.{end}"));
        let (config_file, log_file, socket) = (file("toml"), file("log"), file("sock"));
        std::fs::write(&config_file, config).map_err(on("write its configuration"))?;
        let log = File::options().create(true).append(true).open(&log_file).map_err(on("open its log"))?;
        let again = log.try_clone().map_err(on("open its log"))?;
        let mut command = Command::new(program);
        command.arg0("duet").arg("run").arg(&config_file).arg("--socket").arg(&socket);
        // What the user has set for their own commands is not meant for a lab.
        command.env_remove("DUET_SOCKET").stdin(Stdio::null()).stdout(again).stderr(log);
        let process = host.spawn(command)?;
        Ok(Instance { name, program: program.into(), config: config_file, socket, log: log_file, process })
    }

    /// Waits until the control socket answers a command.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<(), InstanceError> {
        let deadline = Instant::now() + limit;
        loop {
            let ended = self.process.try_wait().map_err(|source| self.system("wait for it", source))?;
            if let Some(status) = ended {
                return Err(self.not_ready(format!("ended with {status} instead of becoming ready")));
            }
            // A socket file of a killed process may be there; nobody accepts on it.
            if UnixStream::connect(&self.socket).is_ok() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.not_ready(format!("was not ready after {} s", limit.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its name, which is its host's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it has written to standard output and standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Gives it a command, such as `["route", "show"]`, with `input` as standard input, and waits for the answer.
    pub fn ask(&self, words: &[&str], input: &[u8]) -> Result<Outcome, InstanceError> {
        let mut command = Command::new(&self.program);
        command.arg0("duet").args(words).env("DUET_SOCKET", &self.socket);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| self.system("start a command", source))?;
        let mut stdin = child.stdin.take();
        let output = std::thread::scope(|scope| {
            scope.spawn(move || {
                // A command that does not read its input closes it.
                let _ = stdin.as_mut().map(|s| s.write_all(input));
            });
            child.wait_with_output()
        })
        .map_err(|source| self.system("run a command", source))?;
        Ok(Outcome {
            code: exit_code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Gives it a command written in one line, which must succeed; gives its standard output.
    ///
    /// # Errors
    /// [`InstanceError::Refused`] if the exit code is not 0.
    pub fn duet(&self, words: &str) -> Result<String, InstanceError> {
        let list: Vec<&str> = words.split_whitespace().collect();
        let outcome = self.ask(&list, b"")?;
        if outcome.code == 0 {
            return Ok(outcome.stdout);
        }
        let text = outcome.stderr.trim_end().to_owned();
        Err(InstanceError::Refused { name: self.name.clone(), words: words.to_owned(), code: outcome.code, text })
    }

    /// As [`Instance::duet`]; the output read as JSON.
    pub fn json(&self, words: &str) -> Result<serde_json::Value, InstanceError> {
        let text = self.duet(words)?;
        serde_json::from_str(&text).map_err(|e| self.answer(words, format!("{e}: {text}")))
    }

    /// Its counters.
    pub fn stats(&self) -> Result<Stats, InstanceError> {
        let words = "stats -j";
        let mut value = self.json(words)?;
        // iproute2's habit is a list around everything.
        if let Some(first) = value.as_array_mut().and_then(|list| list.first_mut()) {
            value = first.take();
        }
        serde_json::from_value(value).map_err(|e| self.answer(words, e.to_string()))
    }

    /// Waits until its counters balance, no frame being under way, and gives them.
    ///
    /// # Errors
    /// [`InstanceError::Answer`] with the counters if they still do not at the end of `limit`.
    pub fn settled(&self, limit: Duration) -> Result<Stats, InstanceError> {
        let deadline = Instant::now() + limit;
        loop {
            let stats = self.stats()?;
            let (entered, ended) = stats.balance();
            if entered == ended {
                return Ok(stats);
            }
            if Instant::now() >= deadline {
                return Err(self.answer("stats", format!("{entered} frames entered, {ended} ended: {stats:?}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The process, for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it by SIGTERM and says how it ended, with its log.
    pub fn stop(mut self) -> Result<(ExitStatus, String), InstanceError> {
        let status = self.process.terminate(PATIENCE).map_err(|source| self.system("stop it", source))?;
        Ok((status, self.log()))
    }

    fn system(&self, what: &'static str, source: io::Error) -> InstanceError {
        InstanceError::System { name: self.name.clone(), what, source }
    }

    fn not_ready(&self, what: String) -> InstanceError {
        InstanceError::NotReady { name: self.name.clone(), what, log: self.log() }
    }

    fn answer(&self, words: &str, why: String) -> InstanceError {
        InstanceError::Answer { name: self.name.clone(), words: words.to_owned(), why }
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
