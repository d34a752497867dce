//! A router without packets behind a real control socket, and the program's commands run against it.

use router_cli::command::{Session, run_batch_file};
use router_cli::control::{Access, Limits, Server};
use router_cli::fake::FakeBackend;
use router_cli::grammar::{Failure, parse_command, parse_options};
use std::path::PathBuf;
use std::sync::Arc;

/// What a command did.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub out: String,
    pub err: String,
    pub code: u8,
}

pub struct TestRouter {
    pub backend: Arc<FakeBackend>,
    pub socket: PathBuf,
    pub dir: tempfile::TempDir,
    _server: Server,
}

#[allow(dead_code)]
impl TestRouter {
    pub fn start(ports: &[&str]) -> Self {
        Self::with_limits(ports, Limits::default())
    }

    pub fn with_limits(ports: &[&str], limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("duet.sock");
        let backend = Arc::new(FakeBackend::with_ports(ports));
        let server = Server::start(&socket, &Access::default(), limits, backend.clone()).unwrap();
        TestRouter { backend, socket, dir, _server: server }
    }

    /// Runs one command line, as the program would after reading its arguments.
    pub fn run(&self, line: &str) -> Run {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut out = Vec::new();
        let result = self.execute(&words, &mut out);
        let (err, code) = match result {
            Ok(()) => (String::new(), 0),
            Err(f) => (f.text(), f.exit),
        };
        Run { out: String::from_utf8(out).unwrap(), err, code }
    }

    fn execute(&self, words: &[&str], out: &mut Vec<u8>) -> Result<(), Failure> {
        let (options, rest) = parse_options(words)?;
        let batch = options.batch.clone();
        let family = options.family;
        let mut session = Session::new(self.socket.clone(), options, out, false);
        match batch {
            Some(file) => run_batch_file(&mut session, &file),
            None => {
                let command = parse_command(rest, family)?;
                session.execute(command)
            }
        }
    }
}
