//! The command line: clap for the program's own commands, iproute2's words for everything else.

use crate::command::sample::By;
use crate::command::{self, Session, run_batch_file, unexpected};
use crate::control::{Answer, Op, find_socket};
use crate::grammar::{Failure, OWN, Options, exit, parse_command, parse_options, usage};
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// First lines of the help.
const ABOUT: &str = "Duet: a userspace router in which IPv4 and IPv6 are one

  duet run FILE                 be a router
  duet shell                    talk to a running router, with help at every word
  duet route | neigh | ...      look at a running router and change it, in the words of iproute2
  duet explain ...              ask what becomes of a packet, and why
  duet trace | capture          follow live packets, copy them for Wireshark
  duet broker ...               hand tunnels out: accounts, tunnels, pools of prefixes
  duet stats | drops            see what became of the packets
  duet bench lookup | forward | wire   measure how fast this machine looks up and forwards";

const EXAMPLES: &str = "\
Examples:
  duet route add 203.0.113.0/24 via inet6 2001:db8::22 dev lan0
  duet -6 -j route show table all
  duet -batch routes.txt
  duet neigh; duet -s link; duet addr show dev lan0
  duet bench forward --path via-inet6 --table routes.txt.gz -j

Exit codes: 0 done, 1 unknown device or wrong value, 2 refused by the router or router not reachable, 255 not a command.
A running router is found by --socket PATH, -n NAME, DUET_SOCKET, or by being the only one in /run/duet.";

#[derive(Debug, Parser)]
#[command(name = "duet", version, about = ABOUT, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// Control socket of the router
    #[arg(long, value_name = "PATH")]
    socket: Option<String>,
    /// Name of the router: its socket is /run/duet/NAME.sock
    #[arg(short = 'n', long)]
    name: Option<String>,
    /// Print JSON
    #[arg(short, long)]
    pub json: bool,
    /// Indent JSON
    #[arg(short, long)]
    pretty: bool,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Be the router that FILE describes, until SIGTERM or SIGINT; SIGHUP reloads FILE
    Run(RunArgs),
    /// Check a configuration and say everything that is wrong with it
    Check {
        /// The configuration
        file: PathBuf,
    },
    /// See packets of real Linux hosts travel three ways through a private lab
    Demo(crate::demo::DemoArgs),
    /// Measure lookups and forwarding in memory, and on wires beside the kernel, with a table of yours
    Bench(crate::bench::BenchArgs),
    /// Talk to a running router, or to a configuration alone: line editing, completion, help at every word
    Shell(crate::shell::ShellArgs),
    /// Hand tunnels out: accounts, tunnels, pools, audit log of the running router's broker
    Broker(command::broker::BrokerArgs),
    /// Make the running router read its file again: all differences are applied, or none
    Reload(Common),
    /// What happens in the running router, as it happens
    Monitor(crate::monitor::MonitorArgs),
    /// The router on one screen: rates, tunnels, next hops, drops, workers, neighbours
    Top(crate::top::TopArgs),
    /// What bites, on this router and its host, with the command that mends it
    ///
    /// Exit code: 0 nothing or notes alone, 1 warnings, 2 errors.
    Doctor(crate::doctor::DoctorArgs),
    /// The topology of ports, tunnels and next hops, and how routes spread over them
    Graph(crate::graph::GraphArgs),
    /// Counters: totals, ports, tunnels and workers
    Stats {
        /// Which router, which form
        #[command(flatten)]
        common: Common,
        /// Traffic of routes or next hops instead, from a sample of packets
        #[arg(value_parser = ["route", "nexthop"])]
        of: Option<String>,
        /// How long to measure that
        #[arg(default_value = "3", requires = "of")]
        seconds: f64,
        /// Rates, again and again, every second or as often as said
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1")]
        watch: Option<f64>,
    },
    /// Why packets were dropped
    Drops {
        /// Which router, which form
        #[command(flatten)]
        common: Common,
        /// List all reasons, also those that never occurred
        #[arg(long)]
        all: bool,
        /// Again and again, every second or as often as said
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1")]
        watch: Option<f64>,
    },
    /// Versions of this program and of the running router
    Version(Common),
    /// Print a completion script
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// What may come next, for completion files
    #[command(name = crate::shell::external::ASK, hide = true)]
    Complete {
        /// Which shell asks
        shell: String,
        /// The line so far
        #[arg(default_value = "", allow_hyphen_values = true)]
        line: String,
    },
    /// Print the manual page, or write those of all commands
    Man {
        /// Directory to write them into, one file per command
        dir: Option<PathBuf>,
    },
    /// Routes: show, add, replace, change, append, del, flush, get, save, restore
    Route(Words),
    /// Packets of the running router as pcapng or as lines: capture [FILTER] [at rx|tx|drop|inner|outer] [-w FILE]
    Capture(Words),
    /// Follow packets step by step: trace add [FILTER] [count N], show, paths, clear
    Trace(Words),
    /// Count the traffic of routes and next hops: count add route PREFIX | nexthop ADDRESS, show, del, clear
    Count(Words),
    /// Flows that are offloaded to the kernel: flow show, flush
    Flow(Words),
    /// What becomes of a packet and why: explain [from A] to B [iif P] ...; "explain help" lists all words
    Explain(Words),
    /// Echo requests from the router: ping [-c N] [-s BYTES] [-t TTL] [-I PORT|ADDRESS] [ROUTER ...] ADDRESS
    Ping(Words),
    /// Neighbours (ARP and NDP): show, add, replace, change, del, get, flush
    Neigh(Words),
    /// Ports and tunnels: show, set up|down|mtu|master|mark; VRFs: add, del
    Link(Words),
    /// Addresses of ports: show, add, replace, del, flush
    Addr(Words),
    /// Tunnels: show, add, change, del
    Tunnel(Words),
    /// Translators between IPv4 and IPv6 and the sessions of NAT64: show
    Translate(Words),
    /// Packet filters of ports, source checks, limits, MSS: show, add, replace, del, set
    Filter(Words),
    /// Next-hop objects and groups: show, add, replace, del, get, flush
    Nexthop(Words),
    /// Policy rules: show, add, del, flush
    Rule(Words),
    /// VRFs: show; made with "link add NAME type vrf table N", filled with "link set PORT master NAME"
    Vrf(Words),
}

/// `duet run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The configuration
    pub file: PathBuf,
    /// Control socket instead of the one that the configuration names
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Log as JSON, one object per line
    #[arg(long)]
    pub log_json: bool,
    /// What to log: error, warn, info, debug, trace, or a filter such as info,router_io=debug
    #[arg(long, value_name = "FILTER", env = "DUET_LOG", default_value = "info")]
    pub log: String,
}

#[derive(Debug, Args)]
struct Words {
    /// Words of iproute2's grammar; "help" lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// The definition of the command line.
pub(crate) fn definition() -> clap::Command {
    Cli::command()
}

/// Runs the program with these arguments, the program's name first; returns the exit code.
pub fn run(args: impl IntoIterator<Item = std::ffi::OsString>) -> ExitCode {
    let mut words = Vec::new();
    for arg in args.into_iter().skip(1) {
        match arg.into_string() {
            Ok(word) => words.push(word),
            Err(bad) => {
                report(&Failure::new(exit::SYNTAX, format!("Error: argument {bad:?} is not valid UTF-8.")));
                return exit::SYNTAX.into();
            }
        }
    }
    dispatch(&words).unwrap_or_else(|failure| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        report_words(&failure, &words);
        failure.exit.into()
    })
}

/// Says on standard error what went wrong with a command of these words.
pub(crate) fn report_words(failure: &Failure, words: &[&str]) {
    if !failure.line.is_empty() {
        let _ = std::io::stderr().lock().write_all(crate::complaint::of_command(failure, words).as_bytes());
    }
}

/// Says what went wrong on standard error.
pub(crate) fn report(failure: &Failure) {
    if !failure.line.is_empty() {
        let _ = writeln!(std::io::stderr().lock(), "{}", failure.text());
    }
}

fn dispatch(words: &[String]) -> Result<ExitCode, Failure> {
    let refs: Vec<&str> = words.iter().map(String::as_str).collect();
    let wants_clap = |w: &&str| ["-h", "--help", "-V", "--version", "-Version"].contains(w);
    let first = refs.iter().find(|w| !w.starts_with('-') || wants_clap(w));
    match parse_options(&refs) {
        _ if first.is_some_and(wants_clap) => own(words),
        Ok((options, rest)) => match rest {
            [] if options.batch.is_none() && words.is_empty() => {
                let help = Cli::command().render_help();
                Err(Failure::new(exit::SYNTAX, help.to_string().trim_end().to_owned()))
            }
            [] if options.batch.is_none() => Err(Failure::new(exit::SYNTAX, usage(None))),
            [word, ..] if OWN.contains(word) => own(words),
            ["route", "diff", rest @ ..] => {
                crate::diff::run(&options, rest).map_err(|f| f.behind(words.len() - rest.len()))
            }
            ["help", ..] => done(print_clap(&Cli::command().render_long_help().to_string())),
            ["explain", rest @ ..] => {
                let asked = command::explain::parse(rest, options).map_err(|f| f.behind(words.len() - rest.len()))?;
                done(to_stdout(|out| {
                    let color = color(&asked.options);
                    command::explain::run(asked, out, color, the_socket)
                }))
            }
            ["trace", rest @ ..] => {
                let asked = command::trace::parse(rest, options).map_err(|f| f.behind(words.len() - rest.len()))?;
                done(to_stdout(|out| {
                    let color = color(&asked.options);
                    command::trace::run(asked, out, color, the_socket)
                }))
            }
            ["count", rest @ ..] => {
                let asked = command::count::parse(rest, options).map_err(|f| f.behind(words.len() - rest.len()))?;
                done(to_stdout(|out| {
                    let color = color(&asked.options);
                    command::count::run(asked, out, color, the_socket)
                }))
            }
            ["ping", rest @ ..] => {
                let asked = command::ping::parse(rest, options).map_err(|f| f.behind(words.len() - rest.len()))?;
                done(to_stdout(|out| {
                    let color = color(&asked.options);
                    command::ping::run(asked, out, color, the_socket)
                }))
            }
            ["flow", rest @ ..] => {
                let asked = command::flow::parse(rest, options).map_err(|f| f.behind(words.len() - rest.len()))?;
                done(to_stdout(|out| {
                    let color = color(&asked.options);
                    command::flow::run(asked, out, color, the_socket)
                }))
            }
            ["capture", rest @ ..] => {
                let asked = command::capture::parse(rest, options).map_err(|f| f.behind(words.len() - rest.len()))?;
                done(to_stdout(|out| command::capture::run(asked, out, the_socket)))
            }
            // `duet ip route` is what fingers type.
            ["ip", rest @ ..] => {
                let all = rest;
                let (mut inner, rest) = parse_options(rest).map_err(|f| f.behind(words.len() - all.len()))?;
                if let Some(word) = rest.first().filter(|w| w.len() > 1 && "monitor".starts_with(**w)) {
                    let words = all.iter().map(|w| if w == word { "monitor" } else { w });
                    return own(&words.map(str::to_owned).collect::<Vec<_>>());
                }
                inner.merge(options);
                done(words_command(inner, rest).map_err(|f| f.behind(words.len() - rest.len())))
            }
            rest => done(words_command(options, rest).map_err(|f| f.behind(words.len() - rest.len()))),
        },
        Err(failure) => Err(failure),
    }
}

fn done(result: Result<(), Failure>) -> Result<ExitCode, Failure> {
    result.map(|()| ExitCode::SUCCESS)
}

fn print_clap(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Whether standard output takes colour: a terminal, and no NO_COLOR.
pub(crate) fn color(options: &Options) -> bool {
    use anstream::ColorChoice;
    options.color.unwrap_or_else(|| anstream::AutoStream::choice(&std::io::stdout()) != ColorChoice::Never)
        && (options.color.is_some() || std::io::stdout().is_terminal())
}

/// The socket of the router that the options mean.
fn the_socket(options: &Options) -> Result<PathBuf, Failure> {
    find_socket(options.socket.as_deref(), options.name.as_deref())
        .map_err(|e| Failure::new(exit::REFUSED, e.to_string()))
}

/// Runs something that writes to standard output, buffered.
fn to_stdout(f: impl FnOnce(&mut dyn Write) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut out = std::io::BufWriter::with_capacity(64 * 1024, std::io::stdout().lock());
    let result = f(&mut out);
    let flushed = out.flush();
    result?;
    Ok(flushed?)
}

fn words_command(mut options: Options, mut rest: &[&str]) -> Result<(), Failure> {
    // iproute2 wants them in front; the other commands here take them behind, too.
    while let [before @ .., "-j" | "-json" | "--json"] = rest {
        (options.json, rest) = (true, before);
    }
    let family = options.family;
    // Grammar first: a wrong word is said without a router.
    let command = if options.batch.is_some() { None } else { Some(parse_command(rest, family)?) };
    let socket = find_socket(options.socket.as_deref(), options.name.as_deref())
        .map_err(|e| Failure::new(exit::REFUSED, e.to_string()));
    let color = color(&options);
    let mut out = std::io::BufWriter::with_capacity(64 * 1024, std::io::stdout().lock());
    let batch = options.batch.clone();
    let mut session = Session::new(socket?, options, &mut out, color);
    let result = match (command, batch) {
        (Some(command), _) => session.execute(command),
        (None, Some(file)) => run_batch_file(&mut session, &file),
        (None, None) => Ok(()),
    };
    let flushed = out.flush();
    result?;
    Ok(flushed?)
}

fn own(words: &[String]) -> Result<ExitCode, Failure> {
    let cli = match Cli::try_parse_from(clap_args(words)) {
        Ok(cli) => cli,
        Err(e) if !e.use_stderr() => {
            let _ = e.print();
            return Ok(ExitCode::SUCCESS);
        }
        Err(e) => return Err(wrong_words(&e, words)),
    };
    done(match cli.command {
        Sub::Run(args) => crate::run::run(&args),
        Sub::Demo(args) => return Ok(crate::demo::run(&args)),
        Sub::Bench(args) => return crate::bench::run(&args),
        Sub::Shell(args) => return crate::shell::run(&args),
        Sub::Check { file } => crate::run::check(&file, &mut std::io::stdout().lock()),
        Sub::Completion { shell } => Ok(crate::shell::external::script(shell, Cli::command(), &mut std::io::stdout())?),
        Sub::Complete { shell, line } => Ok(crate::shell::external::ask(&shell, &line, &mut std::io::stdout().lock())?),
        Sub::Man { dir: Some(dir) } => {
            let cannot = |e: std::io::Error| {
                Failure::new(exit::REFUSED, format!("Cannot write to {}: {}", dir.display(), crate::control::plain(&e)))
            };
            std::fs::create_dir_all(&dir).map_err(cannot)?;
            clap_mangen::generate_to(Cli::command(), &dir).map_err(cannot)
        }
        Sub::Man { dir: None } => {
            let man = clap_mangen::Man::new(Cli::command());
            Ok(man.render(&mut std::io::stdout().lock())?)
        }
        Sub::Reload(common) => ask(common, Op::Reload, |session, answer| match answer {
            Answer::Text(text) => Ok(writeln!(session.out, "{}", text.trim_end())?),
            Answer::Done => Ok(()),
            _ => Err(unexpected()),
        }),
        Sub::Broker(args) => {
            let options = args.options();
            let (socket, color) = (the_socket(&options)?, color(&options));
            to_stdout(|out| command::broker::run(&mut Session::new(socket, options, out, color), &args))
        }
        Sub::Doctor(args) => return crate::doctor::run(&args),
        Sub::Graph(args) => crate::graph::run(&args),
        Sub::Top(args) => crate::top::run(&args),
        Sub::Monitor(args) => crate::monitor::run(&args),
        Sub::Stats { common, of: None, watch, .. } => with_session(common, |s| command::drops::stats(s, watch)),
        Sub::Stats { common, of: Some(of), seconds, .. } => {
            let by = if of == "route" { By::Route } else { By::NextHop };
            with_session(common, |s| command::sample::stats(s, by, seconds))
        }
        Sub::Drops { common, all, watch } => with_session(common, |s| command::drops::drops(s, all, watch)),
        Sub::Version(common) => version(common),
        Sub::Route(w) => words_of("route", w),
        Sub::Capture(w) => return again("capture", &w),
        Sub::Trace(w) => return again("trace", &w),
        Sub::Count(w) => return again("count", &w),
        Sub::Flow(w) => return again("flow", &w),
        Sub::Explain(w) => return again("explain", &w),
        Sub::Ping(w) => return again("ping", &w),
        Sub::Neigh(w) => words_of("neigh", w),
        Sub::Link(w) => words_of("link", w),
        Sub::Addr(w) => words_of("addr", w),
        Sub::Tunnel(w) => words_of("tunnel", w),
        Sub::Translate(w) => words_of("translate", w),
        Sub::Filter(w) => words_of("filter", w),
        Sub::Nexthop(w) => words_of("nexthop", w),
        Sub::Rule(w) => words_of("rule", w),
        Sub::Vrf(w) => words_of("vrf", w),
    })
}

/// iproute2's habit is options first; clap wants them behind the command they belong to.
fn clap_args(words: &[String]) -> impl Iterator<Item = &str> {
    let at = words.iter().position(|w| OWN.contains(&w.as_str())).unwrap_or(0);
    let (before, after) = words.split_at(at);
    let command = after.iter().take(1).filter(move |_| at > 0);
    let rest = after.iter().skip(usize::from(at > 0));
    std::iter::once("duet").chain(command.chain(before).chain(rest).map(String::as_str))
}

/// Whether these words, the program's name left out, are a command of its own.
pub(crate) fn check(words: &[String]) -> Result<(), Failure> {
    let refs: Vec<&str> = words.iter().map(String::as_str).collect();
    let options = Options::default;
    match refs.as_slice() {
        ["explain", rest @ ..] => command::explain::parse(rest, options()).map(|_| ()).map_err(|f| f.behind(1)),
        ["trace", rest @ ..] => command::trace::parse(rest, options()).map(|_| ()).map_err(|f| f.behind(1)),
        ["count", rest @ ..] => command::count::parse(rest, options()).map(|_| ()).map_err(|f| f.behind(1)),
        ["ping", rest @ ..] => command::ping::parse(rest, options()).map(|_| ()).map_err(|f| f.behind(1)),
        ["flow", rest @ ..] => command::flow::parse(rest, options()).map(|_| ()).map_err(|f| f.behind(1)),
        ["capture", rest @ ..] => command::capture::parse(rest, options()).map(|_| ()).map_err(|f| f.behind(1)),
        [word, ..] if OWN.contains(word) => match Cli::try_parse_from(clap_args(words)) {
            Err(e) if e.use_stderr() => Err(wrong_words(&e, words)),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// clap's complaint, with the place of the word that it is about.
fn wrong_words(e: &clap::Error, words: &[String]) -> Failure {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let said = e.render().to_string();
    let text = |kind| match e.get(kind) {
        Some(ContextValue::String(s)) => Some(s.clone()),
        Some(ContextValue::Strings(list)) => list.first().cloned(),
        _ => None,
    };
    // The paragraph that names the error; tips and usage come behind.
    let line = said.split("\n\n").next().unwrap_or_default().lines().collect::<Vec<_>>();
    let values = line.iter().find_map(|l| l.trim().strip_prefix("[possible values: ")?.strip_suffix(']'));
    let mut failure = match e.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            return Failure::new(exit::USAGE, said.trim_end());
        }
        _ => {
            let kept = line.iter().filter(|l| !l.trim().starts_with("[possible values"));
            // What is missing stands under the caret.
            let most = if e.kind() == ErrorKind::MissingRequiredArgument { 1 } else { usize::MAX };
            Failure::new(exit::USAGE, kept.take(most).copied().collect::<Vec<_>>().join("\n"))
        }
    };
    let wrong = match e.kind() {
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => text(ContextKind::InvalidValue),
        ErrorKind::InvalidSubcommand => text(ContextKind::InvalidSubcommand),
        ErrorKind::MissingRequiredArgument => None,
        _ => text(ContextKind::InvalidArg),
    };
    // `--option <VALUE>` names an option.
    let wrong = wrong.map(|w| w.split([' ', '=']).next().unwrap_or_default().to_owned()).filter(|w| !w.is_empty());
    failure.word = Some(match wrong {
        Some(wrong) => {
            let exact = words.iter().rposition(|w| *w == wrong);
            let within = || words.iter().rposition(|w| w.starts_with('-') && w.contains(&*wrong));
            exact.or_else(within).unwrap_or(words.len())
        }
        None => words.len(),
    });
    failure.expected = values.map(|v| v.to_owned());
    let missing = ErrorKind::MissingRequiredArgument == e.kind();
    if let Some(names) = e.get(ContextKind::InvalidArg).filter(|_| missing).map(ToString::to_string) {
        failure.expected = Some(names);
    }
    let meant = [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue];
    let command = words.iter().find(|w| OWN.contains(&w.as_str())).map(|w| format!("{w} ")).unwrap_or_default();
    failure.hint = Some(match meant.into_iter().find_map(text) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("\"duet {command}--help\" tells more"),
    });
    failure
}

impl Common {
    /// As options of the grammar.
    pub(crate) fn options(self) -> Options {
        Options { socket: self.socket, name: self.name, json: self.json, pretty: self.pretty, ..Options::default() }
    }
}

/// A command that reads its words itself.
fn again(command: &str, words: &Words) -> Result<ExitCode, Failure> {
    let all: Vec<String> = std::iter::once(command.to_owned()).chain(words.words.iter().cloned()).collect();
    dispatch(&all)
}

fn words_of(object: &str, words: Words) -> Result<(), Failure> {
    let words: Vec<&str> = std::iter::once(object).chain(words.words.iter().map(String::as_str)).collect();
    words_command(Options::default(), &words)
}

/// Something on the running router, with buffered output.
fn with_session(common: Common, f: impl FnOnce(&mut Session<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    let options = common.options();
    let socket = the_socket(&options)?;
    let color = color(&options);
    to_stdout(|out| f(&mut Session::new(socket, options, out, color)))
}

/// One request to the running router.
fn ask(
    common: Common,
    op: Op,
    show: impl FnOnce(&mut Session<'_>, Answer) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let options = common.options();
    let socket = find_socket(options.socket.as_deref(), options.name.as_deref())
        .map_err(|e| Failure::new(exit::REFUSED, e.to_string()))?;
    let color = color(&options);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut session = Session::new(socket, options, &mut out, color);
    let answer = session.call(op)?;
    show(&mut session, answer)?;
    Ok(out.flush()?)
}

/// This program's version always, the router's if there is one.
fn version(common: Common) -> Result<(), Failure> {
    let json = common.json;
    let mine = env!("CARGO_PKG_VERSION");
    let router = ask_version(common);
    let mut out = std::io::stdout().lock();
    if json {
        let value = serde_json::json!({ "program": mine, "protocol": crate::control::VERSION, "router": router });
        return Ok(writeln!(out, "{value}")?);
    }
    writeln!(out, "duet {mine}")?;
    if let Some(v) = router {
        writeln!(out, "router {} runs duet {} (pid {})", v.name, v.version, v.pid)?;
    }
    Ok(())
}

fn ask_version(common: Common) -> Option<crate::control::VersionInfo> {
    let options = common.options();
    let socket = find_socket(options.socket.as_deref(), options.name.as_deref()).ok()?;
    match crate::control::Client::connect(&socket).ok()?.call(Op::Version).ok()? {
        Answer::Version(v) => Some(v),
        _ => None,
    }
}
