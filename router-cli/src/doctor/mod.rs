//! `duet doctor`: looks at a running router, or a configuration alone, and at the host it is on, for what bites. Each
//! finding comes with its evidence and with the command that mends it.

mod host;
mod router;

use crate::app::Common;
use crate::command::Session;
use crate::config::Plan;
use crate::grammar::{Failure, exit};
use crate::output::{Out, Paint};
use crate::shell::offline::{Offline, load};
use crate::topology::Topology;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// `duet doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct DoctorArgs {
    /// A configuration to look at, instead of the running router
    pub file: Option<PathBuf>,
    /// Which router, which form
    #[command(flatten)]
    pub common: Common,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Packets are lost or go astray now.
    Error,
    /// They will be under circumstances that occur.
    Warning,
    /// Good to know.
    Note,
}

/// Something that bites.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub severity: Severity,
    /// A stable word for programs.
    pub check: &'static str,
    pub what: String,
    pub evidence: String,
    /// The command that mends it.
    pub mend: String,
}

impl Finding {
    fn new(
        severity: Severity,
        check: &'static str,
        what: impl Into<String>,
        evidence: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Finding { severity, check, what: what.into(), evidence: evidence.into(), mend: mend.into() }
    }
}

/// Looks; the exit code is 0 if there is nothing but notes, 1 for warnings, 2 for errors.
pub(crate) fn run(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let options = args.common.clone().options();
    let plan: Option<Plan> = args.file.as_deref().map(load).transpose()?;
    let offline = plan.as_ref().map(Offline::start).transpose()?;
    let socket = match &offline {
        Some(o) => o.socket(),
        None => crate::control::find_socket(options.socket.as_deref(), options.name.as_deref())
            .map_err(|e| Failure::new(exit::REFUSED, e.to_string()))?,
    };
    let mut sink = io::sink();
    let mut session = Session::new(socket, options.clone(), &mut sink, false);
    let topology = Topology::of(&mut session)?;
    let mut findings = router::look(&topology);
    findings.extend(host::look(&topology, plan.as_ref()));
    findings.sort_by_key(|f| f.severity);
    let color = crate::app::color(&options);
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    let mut out = Out::new(&mut stdout, &options, color);
    print(&mut out, &findings, &topology)?;
    stdout.flush()?;
    Ok(ExitCode::from(match findings.first().map(|f| f.severity) {
        Some(Severity::Error) => 2,
        Some(Severity::Warning) => 1,
        Some(Severity::Note) | None => 0,
    }))
}

fn print(out: &mut Out<'_>, findings: &[Finding], t: &Topology) -> io::Result<()> {
    out.begin()?;
    for f in findings {
        let (word, paint) = match f.severity {
            Severity::Error => ("error", Paint::Down),
            Severity::Warning => ("warning", Paint::Mac),
            Severity::Note => ("note", Paint::Name),
        };
        out.object(None)?;
        out.json_word("severity", word)?;
        out.json_word("check", f.check)?;
        out.painted(format_args!("{word:<8}"), paint)?;
        out.str("what", "", &f.what, "\n", Paint::Plain)?;
        out.str("evidence", "  seen    ", &f.evidence, "\n", Paint::Plain)?;
        out.str("mend", "  mend    ", &f.mend, "\n\n", Paint::Plain)?;
        out.end_object()?;
    }
    let count = |s| findings.iter().filter(|f| f.severity == s).count();
    let plural = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let routes: u64 = t.stats.routes.values().sum();
    out.text(format_args!(
        "{}, {}, {}; looked at {}, {} and {routes} prefixes of router \"{}\".\n",
        plural(count(Severity::Error), "error"),
        plural(count(Severity::Warning), "warning"),
        plural(count(Severity::Note), "note"),
        plural(t.links.len() - t.tunnels.len(), "port"),
        plural(t.tunnels.len(), "tunnel"),
        t.version.name
    ))?;
    out.end()
}
