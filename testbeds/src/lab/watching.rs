//! A `duet` command that goes on until it is told to stop, such as a capture.

use super::Result;
use router_cli::demo::instance::Instance;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long it may take to say something, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// See the module. Killed when dropped.
#[derive(Debug)]
pub struct Watching {
    child: Child,
    errors: Receiver<String>,
    heard: Vec<String>,
}

impl Watching {
    /// Starts `duet WORDS` on a router.
    pub fn start(program: &str, router: &Instance, words: &str) -> Result<Self> {
        Self::start_with(program, router.socket(), words, Stdio::piped())
    }

    /// As [`Watching::start`], with this standard output.
    pub fn start_with(program: &str, socket: &Path, words: &str, stdout: Stdio) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg0("duet").args(words.split_whitespace()).env("DUET_SOCKET", socket);
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (tx, errors) = channel();
        if let Some(stderr) = child.stderr.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(|l| l.ok()) {
                    let _ = tx.send(line);
                }
            });
        }
        Ok(Watching { child, errors, heard: Vec::new() })
    }

    /// Waits until it says something with this text on standard error.
    pub fn hear(&mut self, text: &str) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.errors.recv_timeout(left) {
                Ok(line) => {
                    self.heard.push(line.clone());
                    if line.contains(text) {
                        return Ok(line);
                    }
                }
                Err(_) => return Err(format!("never heard {text:?}, only {:?}", self.heard).into()),
            }
        }
    }

    /// Standard output, to be read by hand.
    pub fn stdout(&mut self) -> Option<std::process::ChildStdout> {
        self.child.stdout.take()
    }

    /// Ctrl-C.
    pub fn interrupt(&self) -> Result {
        Ok(kill_process(Pid::from_child(&self.child), Signal::INT)?)
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|s| s.is_some())
    }

    /// Waits for its end: exit code, standard output if it was not taken, all of standard error.
    pub fn end(mut self) -> Result<(Output, String)> {
        let mut out = Vec::new();
        let reader = self.child.stdout.take().map(|mut s| {
            std::thread::spawn(move || {
                let mut all = Vec::new();
                let _ = s.read_to_end(&mut all);
                all
            })
        });
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                self.child.kill()?;
                return Err(format!("it hangs; heard {:?}", self.heard).into());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        if let Some(reader) = reader {
            out = reader.join().unwrap_or_default();
        }
        while let Ok(line) = self.errors.recv_timeout(Duration::from_secs(2)) {
            self.heard.push(line);
        }
        let errors = self.heard.join("\n");
        Ok((Output { status, stdout: out, stderr: Vec::new() }, errors))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
