//! `duet shell`: a conversation with a running router, or with a configuration alone.
//!
//! [`lex`] splits a line, [`resolve`] finds out which command it is, [`complete`] knows what may come next ([`syntax`] is
//! the tree behind both), [`pipe`] and [`pager`] shape the output, [`editor`] reads lines from a terminal. Lines that do
//! not come from a terminal are executed all the same.

mod changes;
pub(crate) mod complete;
mod editor;
pub(crate) mod external;
pub(crate) mod lex;
mod live;
pub(crate) mod offline;
mod own;
mod pager;
mod pipe;
pub(crate) mod resolve;
mod show;
mod syntax;

use crate::command::Session;
use crate::complaint::{self, Place};
use crate::control::{Answer, Client, Op, find_socket};
use crate::grammar::{Command, Failure, Options, exit, parse_command};
use crate::terminal::{Flags, Guard};
use editor::{Editor, Input, history_file};
use live::LiveRouter;
use offline::Offline;
use pager::Pager;
use pipe::{Filter, Pipeline};
use resolve::{Resolved, Tree};
use router_io::runtime::RouterHandle;
use std::io::{self, BufRead, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// `duet shell`.
#[derive(Debug, clap::Args)]
pub(crate) struct ShellArgs {
    /// A configuration: talk to a router made from it in memory, without any device
    pub file: Option<PathBuf>,
    /// Execute this line and end; may be given several times
    #[arg(short = 'c', long = "command", value_name = "LINE")]
    pub lines: Vec<String>,
    /// Control socket of the router
    #[arg(long, value_name = "PATH", conflicts_with = "file")]
    pub socket: Option<String>,
    /// Name of the router: its socket is /run/duet/NAME.sock
    #[arg(short = 'n', long, conflicts_with = "file")]
    pub name: Option<String>,
}

/// Runs it.
pub(crate) fn run(args: &ShellArgs) -> Result<ExitCode, Failure> {
    let terminal = args.lines.is_empty() && io::stdin().is_terminal() && io::stdout().is_terminal();
    let offline = match &args.file {
        Some(file) => Some(Offline::start(&offline::load(file)?)?),
        None => None,
    };
    let socket = match &offline {
        Some(o) => o.socket(),
        None => find_socket(args.socket.as_deref(), args.name.as_deref())
            .map_err(|e| Failure::new(exit::REFUSED, e.to_string()))?,
    };
    let mut shell = Shell::new(socket, terminal, offline.as_ref().map(|o| format!("{} (file)", o.name)));
    shell.alive = offline.as_ref().map(|o| o.handle());
    // Nobody wants to find out with the first command.
    shell.greet(args.file.as_deref())?;
    let code = match terminal {
        true => {
            let guard = Guard::new(&shell.flags);
            guard.litter(offline.as_ref().map(Offline::dir));
            let code = shell.converse();
            // In order from here on.
            drop(offline);
            return Ok(ExitCode::from(code));
        }
        false if args.lines.is_empty() => shell.read_all(&mut io::stdin().lock()),
        false => shell.execute_all(args.lines.iter().map(|l| Ok(l.clone()))),
    };
    drop(offline);
    Ok(ExitCode::from(code))
}

struct Shell {
    tree: Arc<Tree>,
    socket: PathBuf,
    client: Option<Client>,
    terminal: bool,
    color: bool,
    /// The prompt, without its sign.
    name: String,
    fixed_name: Option<String>,
    lost: bool,
    history: Vec<String>,
    flags: Flags,
    leave: bool,
    moved: bool,
    /// The router in this process, if it is here.
    alive: Option<RouterHandle>,
}

impl Shell {
    fn new(socket: PathBuf, terminal: bool, fixed_name: Option<String>) -> Self {
        Shell {
            tree: Arc::new(Tree::new(&crate::app::definition())),
            socket,
            client: None,
            terminal,
            color: crate::app::color(&Options::default()),
            name: fixed_name.clone().unwrap_or_else(|| "duet".into()),
            fixed_name,
            lost: false,
            history: Vec::new(),
            flags: Flags::default(),
            leave: false,
            moved: false,
            alive: None,
        }
    }

    /// Connects, and says to whom.
    fn greet(&mut self, file: Option<&Path>) -> Result<(), Failure> {
        let mut client = Client::connect(&self.socket)?.cancelled_by(Arc::clone(&self.flags.interrupt));
        let Answer::Version(v) = client.call(Op::Version)? else { return Err(crate::command::unexpected()) };
        self.client = Some(client);
        if self.fixed_name.is_none() {
            self.name = v.name.clone();
        }
        if self.terminal {
            match file {
                Some(file) => println!(
                    "Router \"{}\" as {} describes it, in memory: nothing here touches a device.",
                    v.name,
                    file.display()
                ),
                None => println!("Router \"{}\", duet {}, pid {}.", v.name, v.version, v.pid),
            }
            println!("? shows what can be typed, TAB completes, exit leaves.");
        }
        Ok(())
    }

    /// Until the user leaves.
    fn converse(&mut self) -> u8 {
        let mut editor = self.editor();
        let mut code = 0;
        while !self.leave && !self.flags.stop.load(Ordering::Relaxed) {
            let prompt = if self.lost { format!("{} (lost)", self.name) } else { self.name.clone() };
            match editor.read(&prompt) {
                Ok(Input::Line(line)) => {
                    if !line.trim().is_empty() {
                        self.history.push(line.clone());
                    }
                    let column = prompt.chars().count() + 2;
                    code = self.line(&line, Place::Typed { column });
                    if std::mem::take(&mut self.moved) {
                        editor = self.editor();
                    }
                }
                Ok(Input::Help(line)) => {
                    let mut live = LiveRouter::new(&self.socket);
                    // The line being typed stays above its help.
                    let text = complete::help(&self.tree, &line, &mut live);
                    let mut out = Pager::new(true, Arc::clone(&self.flags.interrupt));
                    let _ = writeln!(out).and_then(|()| out.write_all(text.as_bytes())).and_then(|()| out.flush());
                }
                Ok(Input::Interrupt) => {}
                Ok(Input::End) => break,
                Err(e) => {
                    let _ = writeln!(io::stderr(), "The terminal is gone: {e}");
                    return exit::REFUSED;
                }
            }
        }
        code
    }

    fn editor(&self) -> Editor {
        let live = Box::new(LiveRouter::new(&self.socket));
        Editor::new(Arc::clone(&self.tree), live, history_file().as_deref(), self.color, Arc::clone(&self.flags.stop))
    }

    /// Lines from a file or a pipe. All are executed; the exit code is that of the first that failed.
    fn read_all(&mut self, input: &mut dyn BufRead) -> u8 {
        let mut left = Vec::new();
        let lines = std::iter::from_fn(|| {
            left.clear();
            match io::Read::take(&mut *input, 1 << 20).read_until(b'\n', &mut left) {
                Ok(0) => None,
                Ok(_) => Some(String::from_utf8(left.clone()).map_err(|_| "not UTF-8".to_owned())),
                Err(e) => Some(Err(e.to_string())),
            }
        });
        self.execute_all(lines)
    }

    fn execute_all(&mut self, lines: impl Iterator<Item = Result<String, String>>) -> u8 {
        let mut first = 0;
        for (number, line) in (1u64..).zip(lines) {
            let code = match line {
                Ok(line) => self.line(line.trim_end_matches(['\n', '\r']), Place::Read { number }),
                Err(e) => {
                    let _ = writeln!(io::stderr(), "Line {number}: {e}");
                    exit::USAGE
                }
            };
            first = if first == 0 { code } else { first };
            if self.leave {
                break;
            }
        }
        first
    }

    /// Executes one line; returns its exit code.
    fn line(&mut self, line: &str, place: Place) -> u8 {
        self.flags.interrupt.store(self.flags.stop.load(Ordering::Relaxed), Ordering::Relaxed);
        let stages = match lex::split(line) {
            Ok(stages) => stages,
            Err(open) => {
                let f = Failure::with_hint(
                    exit::SYNTAX,
                    "Error: this quote is never closed.",
                    "put another one at the end",
                );
                let rest = lex::Word { text: String::new(), start: open.at, end: line.len() };
                return self.complain(&f.at(0).expecting(""), line, &[rest], false, place);
            }
        };
        let (words, filters) = stages.split_first().map_or((&[][..], &[][..]), |(w, f)| (w.as_slice(), f));
        let pipeline = match Pipeline::parse(&self.tree, filters, line.len()) {
            Ok(p) => p,
            Err((stage, f)) => {
                let words = filters.get(stage).map(Vec::as_slice).unwrap_or_default();
                return self.complain(&f, line, words, true, place);
            }
        };
        let result = self.tree.resolve(words).and_then(|resolved| self.execute(resolved, &pipeline));
        if self.alive.as_ref().is_some_and(|handle| !handle.is_alive()) {
            self.leave = true;
            let hint = "this is a bug of duet; please report it with the message above";
            let gone = Failure::with_hint(exit::REFUSED, "The router in memory has broken down; the shell ends.", hint);
            return self.complain(&gone, line, &[], false, place);
        }
        match result {
            Ok(()) => 0,
            Err(f) if f.exit == 0 => 0,
            Err(f) => self.complain(&f, line, words, false, place),
        }
    }

    fn complain(&mut self, f: &Failure, line: &str, words: &[lex::Word], filter: bool, place: Place) -> u8 {
        let text = complaint::text(f, &self.tree, line, words, filter, place);
        let _ = io::stderr().lock().write_all(text.as_bytes());
        f.exit
    }

    fn execute(&mut self, resolved: Resolved, pipeline: &Pipeline) -> Result<(), Failure> {
        match resolved {
            Resolved::Empty => Ok(()),
            Resolved::Builtin(name, args) => self.builtin(&name, &args, pipeline),
            Resolved::Own(mut words, places) => {
                // What is wrong with the words is said here, under the line that was typed.
                crate::app::check(&words).map_err(|f| {
                    let word = f.word.map(|w| places.get(w).copied().unwrap_or(places.len()));
                    Failure { word, ..f }
                })?;
                if pipeline.json {
                    // In front, where every command of the program takes options.
                    words.insert(0, "-j".into());
                }
                let terminal = self.terminal;
                let mut out = self.sink(pipeline);
                own::run(&self.socket, &words, pipeline, terminal, &mut out)
            }
            Resolved::Grammar { options, words, offset } => {
                let refs: Vec<&str> = words.iter().map(String::as_str).collect();
                let command = parse_command(&refs, options.family).map_err(|f| f.behind(offset))?;
                if let Command::Help(object) = command {
                    return self.with_session(options, pipeline, |s| {
                        Ok(writeln!(s.out, "{}", crate::grammar::usage(Some(object)))?)
                    });
                }
                if command == Command::Route(crate::grammar::RouteCommand::Restore) {
                    let hint = "leave the shell and say \"duet route restore < FILE\"";
                    return Err(Failure::with_hint(
                        exit::USAGE,
                        "Error: \"route restore\" reads standard input, which is the shell's.",
                        hint,
                    ));
                }
                self.with_session(options, pipeline, |s| match changes::is_read(&command) {
                    true => s.execute(command),
                    false => changes::execute(s, command),
                })
            }
            Resolved::Show(words) if pipeline.json => {
                // Programs get the one form of JSON there is.
                let family = match words.get(1).map(String::as_str) {
                    Some("ip") => Some(router_core::addr::Family::Inet),
                    Some("ipv6") => Some(router_core::addr::Family::Inet6),
                    _ => None,
                };
                let mut line = vec!["route", "show"];
                let target = words.iter().skip(2).find(|w| w.contains(['.', ':']));
                line.extend(target.map(|w| ["match", w.as_str()]).into_iter().flatten());
                let command = parse_command(&line, family)?;
                self.with_session(Options { family, ..Options::default() }, pipeline, |s| s.execute(command))
            }
            Resolved::Show(words) => self.with_session(Options::default(), pipeline, |s| show::show(s, &words)),
            Resolved::Bsd(args, offset) => {
                self.with_session(Options::default(), pipeline, |s| show::route_get(s, &args, offset))
            }
        }
    }

    /// Runs `f` with a session whose output goes through the filters and, on a terminal, the pager.
    fn with_session(
        &mut self,
        mut options: Options,
        pipeline: &Pipeline,
        f: impl FnOnce(&mut Session<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        options.json |= pipeline.json;
        options.pretty |= pipeline.json && self.terminal && pipeline.is_empty();
        let color = options.color.unwrap_or(self.color) && pipeline.is_empty();
        let mut sink = self.sink(pipeline);
        let mut out = BufWriter::with_capacity(32 * 1024, Filter::new(pipeline, &mut sink));
        let mut session = Session::new(self.socket.clone(), options, &mut out, color)
            .cancelled_by(Arc::clone(&self.flags.interrupt))
            .with_client(self.client.take());
        let result = f(&mut session);
        let lost = result.is_err() && !session.is_connected();
        self.client = session.into_client();
        // A reader that had enough ends the listing, not the filters: a count is still to be written.
        let flushed = out.flush();
        let (filter, _) = out.into_parts();
        let mut filter = filter;
        let finished = filter.finish();
        let had_enough = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
        self.note_loss(lost && !self.flags.interrupt.load(Ordering::Relaxed));
        result?;
        match flushed.and(finished) {
            Err(e) if had_enough(&e) => Ok(()),
            other => Ok(other?),
        }
    }

    fn note_loss(&mut self, lost: bool) {
        if lost && !self.lost && self.terminal {
            let _ = writeln!(
                io::stderr(),
                "The connection is lost. Every command tries again; \"connect\" waits for the router, \"connect NAME\" takes another one."
            );
        }
        self.lost = lost;
    }

    fn sink(&self, pipeline: &Pipeline) -> Box<dyn Write> {
        match self.terminal {
            true => Box::new(Pager::new(!pipeline.no_more, Arc::clone(&self.flags.interrupt))),
            false => Box::new(io::stdout()),
        }
    }

    fn builtin(&mut self, name: &str, args: &[String], pipeline: &Pipeline) -> Result<(), Failure> {
        match name {
            "exit" => {
                self.leave = true;
                Ok(())
            }
            "connect" => self.connect(args.first().map(String::as_str)),
            "history" => {
                let lines = self.history.clone();
                self.with_session(Options::default(), pipeline, |s| {
                    for (n, line) in (1u64..).zip(&lines) {
                        writeln!(s.out, "{n:>5}  {line}")?;
                    }
                    Ok(s.out.flush()?)
                })
            }
            _ => {
                let line = args.iter().map(|a| format!("{a} ")).collect::<String>();
                let text = complete::help(&self.tree, &line, &mut LiveRouter::new(&self.socket));
                self.with_session(Options::default(), pipeline, |s| {
                    s.out.write_all(text.as_bytes())?;
                    Ok(s.out.flush()?)
                })
            }
        }
    }

    /// To another router, or to this one when it is back.
    fn connect(&mut self, to: Option<&str>) -> Result<(), Failure> {
        let socket = match to {
            None => self.socket.clone(),
            Some(path) if path.contains('/') => path.into(),
            Some(name) => crate::control::default_path(name),
        };
        let began = std::time::Instant::now();
        loop {
            match Client::connect(&socket) {
                Ok(_) => break,
                // The same router may be on its way back.
                Err(e) if to.is_none() && self.terminal && !self.flags.interrupt.load(Ordering::Relaxed) => {
                    if began.elapsed() < std::time::Duration::from_millis(150) {
                        println!("{e}; waiting for it, Ctrl-C gives up.");
                    }
                    std::thread::sleep(std::time::Duration::from_millis(200));
                }
                Err(e) => return Err(e.into()),
            }
        }
        self.socket = socket;
        self.client = None;
        self.lost = false;
        self.moved = true;
        if to.is_some() {
            self.fixed_name = None;
        }
        self.greet(None)
    }
}
