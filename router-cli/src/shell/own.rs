//! Commands of the program that are not iproute2's: run as processes of their own, so that whatever the program can do, the
//! shell can, and Ctrl-C ends a stream without ending the shell.

use super::pipe::{Filter, Pipeline};
use crate::grammar::{Failure, exit};
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

/// Runs `duet WORDS` against the router behind `socket`. Without filters it has the terminal for itself.
pub(super) fn run(
    socket: &Path,
    words: &[String],
    pipeline: &Pipeline,
    terminal: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut command = Command::new("/proc/self/exe");
    command.args(words).env("DUET_SOCKET", socket).stdin(if terminal { Stdio::inherit() } else { Stdio::null() });
    let failed = |e: io::Error| Failure::new(exit::REFUSED, format!("Cannot run \"{}\": {e}", words.join(" ")));
    if pipeline.is_empty() && terminal {
        out.flush()?;
        return said(command.status().map_err(failed)?);
    }
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut result = Ok(());
    if let Some(mut from) = child.stdout.take() {
        let mut out = BufWriter::new(out);
        let mut filter = Filter::new(pipeline, &mut out);
        let mut buffer = [0; 16 * 1024];
        result = loop {
            match from.read(&mut buffer) {
                Ok(0) => break filter.finish(),
                Ok(n) => {
                    // What a slow source said so far is wanted now.
                    if let Err(e) = filter
                        .write_all(&buffer[..n])
                        .and_then(|()| if pipeline.is_empty() { filter.flush() } else { Ok(()) })
                    {
                        let done = filter.finish();
                        break if e.kind() == io::ErrorKind::BrokenPipe { done } else { Err(e) };
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break Err(e),
            }
        };
    }
    // Its output is closed: a writer that goes on is told so, and ends.
    let status = child.wait().map_err(failed)?;
    result?;
    if pipeline.is_empty() {
        said(status)
    } else {
        said(status).or_else(|f| if f.exit == exit::INTERRUPTED { Ok(()) } else { Err(f) })
    }
}

/// The process has said itself what went wrong.
fn said(status: ExitStatus) -> Result<(), Failure> {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Failure::new(u8::try_from(code).unwrap_or(exit::REFUSED), "")),
        (None, Some(2 | 13)) => Err(Failure::new(exit::INTERRUPTED, "")),
        (None, signal) => {
            Err(Failure::new(exit::REFUSED, format!("The command was killed by signal {}.", signal.unwrap_or(0))))
        }
    }
}
