//! `duet demo`: ways of forwarding, shown in a private lab with real Linux hosts at both ends.
//!
//! The program runs itself again in namespaces of its own ([`router_io::lab::sandbox`]), builds a network there, starts
//! routers as processes of their own and gives them commands, as an operator would. Whatever ends the demo, its end or
//! Ctrl-C, a panic or kill -9: the kernel takes everything down with it.

#[cfg(feature = "broker")]
mod broker;
pub mod instance;
mod native;
mod picture;
mod report;
mod screen;
mod stage;
mod translate;
mod tunnel;
mod via_inet6;

pub use report::{DemoReport, RouterReport, ScenarioReport, Step};

use clap::{Args, ValueEnum};
use router_io::lab::{interrupt, sandbox};
use screen::Screen;
use stage::{Stage, StageError};
use std::process::ExitCode;
use std::time::Instant;

/// Exit code where something did not work.
const FAILED: u8 = 1;
/// Exit code where this machine does not allow a lab.
const NO_LAB: u8 = 2;

/// Arguments of `duet demo`.
#[derive(Args, Clone, Debug, Default)]
pub struct DemoArgs {
    /// Play only this scenario
    #[arg(long, value_enum, value_name = "NAME")]
    pub scenario: Option<Scenario>,
    /// Leave everything up until Ctrl-C, and say how to enter each host
    #[arg(long)]
    pub keep: bool,
    /// Print the results as JSON, and nothing else
    #[arg(short, long)]
    pub json: bool,
    /// Draw with ASCII characters only
    #[arg(long)]
    pub ascii: bool,
}

/// The scenarios.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// IPv4 and IPv6 between two subnets
    #[value(name = "native")]
    Native,
    /// IPv4 across routers that have IPv6 addresses only
    #[value(name = "via-inet6")]
    ViaInet6,
    /// IPv6 over an IPv4-only network
    #[value(name = "6in4")]
    SixInFour,
    /// Two sites with prefixes from a tunnel broker
    #[cfg(feature = "broker")]
    #[value(name = "broker")]
    Broker,
    /// IPv6-only and IPv4-only hosts reach each other
    #[value(name = "translate")]
    Translate,
}

impl Scenario {
    const ALL: &[Scenario] = &[
        Scenario::Native,
        Scenario::ViaInet6,
        Scenario::SixInFour,
        #[cfg(feature = "broker")]
        Scenario::Broker,
        Scenario::Translate,
    ];

    fn name(self) -> &'static str {
        match self {
            Scenario::Native => "native",
            Scenario::ViaInet6 => "via-inet6",
            Scenario::SixInFour => "6in4",
            #[cfg(feature = "broker")]
            Scenario::Broker => "broker",
            Scenario::Translate => "translate",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Scenario::Native => native::TITLE,
            Scenario::ViaInet6 => via_inet6::TITLE,
            Scenario::SixInFour => tunnel::TITLE,
            #[cfg(feature = "broker")]
            Scenario::Broker => broker::TITLE,
            Scenario::Translate => translate::TITLE,
        }
    }

    fn play(self, stage: &mut Stage<'_>) -> Result<(), StageError> {
        match self {
            Scenario::Native => native::play(stage),
            Scenario::ViaInet6 => via_inet6::play(stage),
            Scenario::SixInFour => tunnel::play(stage),
            #[cfg(feature = "broker")]
            Scenario::Broker => broker::play(stage),
            Scenario::Translate => translate::play(stage),
        }
    }
}

/// Runs the demo. Call it from the main thread before any other exists, with the program's own arguments untouched: it
/// starts the program again with the same ones.
///
/// The exit code is 0 if everything worked, 1 if something did not, 2 where namespaces are not permitted.
pub fn run(args: &DemoArgs) -> ExitCode {
    match sandbox::enter() {
        Ok(sandbox::Side::Outside(code)) => ExitCode::from(u8::try_from(code).unwrap_or(FAILED)),
        Ok(sandbox::Side::Inside) => inside(args),
        Err(e) => {
            eprintln!("duet demo: {e}");
            ExitCode::from(NO_LAB)
        }
    }
}

fn inside(args: &DemoArgs) -> ExitCode {
    let dir = match sandbox::private_dir() {
        Ok(dir) => dir,
        Err(e) => {
            eprintln!("duet demo: {e}");
            return ExitCode::from(NO_LAB);
        }
    };
    let start = Instant::now();
    let screen = Screen::new(args.json, args.ascii);
    let whose = if sandbox::in_user_namespace() { "user, network and mount" } else { "network and mount" };
    screen.line("Duet: one router, many ways. Real packets of real Linux hosts, all forwarded by this program.");
    screen.line(format_args!("Everything below happens in {whose} namespaces of its own; nothing outside is touched."));
    let scenarios: Vec<_> =
        Scenario::ALL.iter().copied().filter(|s| args.scenario.is_none_or(|only| only == *s)).collect();
    let mut report = DemoReport::default();
    let mut kept = Vec::new();
    for (i, scenario) in scenarios.iter().enumerate() {
        screen.title(&format!("{}/{}", i + 1, scenarios.len()), scenario.name(), scenario.title());
        let mut stage = match Stage::new(&screen, dir.join(scenario.name()), scenario.name(), scenario.title()) {
            Ok(stage) => stage,
            Err(e) => {
                screen.bad(&e.to_string());
                report.scenarios.push(ScenarioReport {
                    name: scenario.name().to_owned(),
                    title: scenario.title().to_owned(),
                    error: Some(e.to_string()),
                    ..Default::default()
                });
                continue;
            }
        };
        let played = scenario.play(&mut stage);
        if let Err(e) = played.and_then(|()| if args.keep { Ok(()) } else { stage.close() }) {
            stage.failed(&e);
        }
        report.scenarios.push(stage.report().clone());
        if args.keep {
            kept.push(stage);
        }
    }
    report.ok = report.scenarios.iter().all(|s| s.ok);
    report.seconds = start.elapsed().as_millis() as f64 / 1000.0;
    let failed: Vec<_> = report.scenarios.iter().filter(|s| !s.ok).map(|s| s.name.as_str()).collect();
    let verdict = match (report.ok, scenarios.len()) {
        (true, 1) => "It worked".to_owned(),
        (true, _) => format!("All {} worked", scenarios.len()),
        (false, _) => format!("Did not work: {}", failed.join(", ")),
    };
    screen.verdict(report.ok, &format!("{verdict}, in {:.1} seconds.", report.seconds));
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report).unwrap_or_default());
    }
    if args.keep {
        hold(&screen, &kept);
    }
    drop(kept);
    screen.rest();
    ExitCode::from(if report.ok { 0 } else { FAILED })
}

/// Leaves everything up until Ctrl-C.
fn hold(screen: &Screen, stages: &[Stage<'_>]) {
    let program = std::env::current_exe().map_or_else(|_| "duet".into(), |p| p.display().to_string());
    for stage in stages {
        screen.line("");
        screen.line(format_args!("{}: a command in one of its hosts begins with", stage.report().name));
        for (host, hint) in stage.hints() {
            screen.note(&format!("{host:<6} {hint}"));
        }
        for (router, socket) in stage.sockets() {
            screen.note(&format!("{router:<6} ... {program} --socket {} route show", socket.display()));
        }
    }
    screen.line("");
    screen.line("A shell in a host: the line above and then `sh`; there `ip`, `ping`, `tcpdump` see what it sees.");
    screen.line("Ctrl-C ends it all.");
    screen.working("up until Ctrl-C");
    interrupt::wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: DemoArgs,
    }

    #[test]
    fn arguments() {
        let parse = |words: &[&str]| <Cli as clap::Parser>::try_parse_from([&["demo"], words].concat()).map(|c| c.args);
        for s in Scenario::ALL.iter().copied() {
            assert_eq!(parse(&["--scenario", s.name()]).unwrap().scenario, Some(s));
        }
        assert!(parse(&["-j", "--keep"]).unwrap().json);
        assert!(parse(&["--scenario", "none"]).is_err());
    }
}
