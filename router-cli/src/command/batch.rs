//! `-batch FILE`: one command per line. Changing commands travel in chunks, several of them on the way at once, so that a
//! full Internet table loads in seconds; a failure still stops everything after it, unless `-force`.

use super::{Session, unexpected};
use crate::control::{Answer, Body, Op, RuleDelete, VrfSpec};
use crate::grammar::{
    AddrCommand, Command, Failure, LinkCommand, NeighCommand, NextHopCommand, RouteCommand, RuleCommand, TunnelCommand,
    exit, parse_command, parse_options, tokenize,
};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};

/// Operations per request.
const CHUNK: usize = 1000;
/// Requests on the way.
const AHEAD: usize = 8;

/// Runs a batch file; `-` is standard input.
pub fn run_batch_file(session: &mut Session<'_>, path: &str) -> Result<(), Failure> {
    if path == "-" {
        return Batch::new(session, path).run(&mut BufReader::new(io::stdin()), true);
    }
    let file = File::open(path).map_err(|e| {
        let why = crate::control::plain(&e);
        Failure::new(exit::USAGE, format!("Cannot open file \"{path}\" for reading: {why}"))
    })?;
    Batch::new(session, path).run(&mut BufReader::with_capacity(1 << 20, file), false)
}

pub(super) struct Batch<'s, 'a> {
    session: &'s mut Session<'a>,
    name: String,
    force: bool,
    ops: Vec<Op>,
    lines: Vec<Source>,
    /// Lines of the chunks on the way.
    sent: VecDeque<Vec<Source>>,
    failed: bool,
    /// Codes of failures that do not count, such as what is there already when restoring.
    pub tolerate: Option<&'static str>,
}

/// Where a command came from.
#[derive(Clone, Default)]
struct Source {
    number: u64,
    text: Box<str>,
}

/// Nothing after the failure was executed.
struct Stop;

impl<'s, 'a> Batch<'s, 'a> {
    pub fn new(session: &'s mut Session<'a>, name: &str) -> Self {
        let force = session.options.force;
        Batch {
            session,
            name: name.to_owned(),
            force,
            ops: Vec::new(),
            lines: Vec::new(),
            sent: VecDeque::new(),
            failed: false,
            tolerate: None,
        }
    }

    pub fn force(mut self) -> Self {
        self.force = true;
        self
    }

    fn run(self, input: &mut BufReader<impl io::Read>, interactive: bool) -> Result<(), Failure> {
        let family = self.session.options.family;
        let parse = |words: &[&str]| {
            let (own, rest) = parse_options(words)?;
            if rest.is_empty() {
                return Ok(None);
            }
            parse_command(rest, own.family.or(family)).map(Some).map_err(|f| f.behind(words.len() - rest.len()))
        };
        self.each_line(input, interactive, parse)
    }

    /// Feeds every line to `parse` and executes what comes out.
    pub fn each_line<R: io::Read>(
        mut self,
        input: &mut BufReader<R>,
        interactive: bool,
        parse: impl Fn(&[&str]) -> Result<Option<Command>, Failure>,
    ) -> Result<(), Failure> {
        let mut number = 0u64;
        let mut line = Vec::new();
        loop {
            let first = number + 1;
            match read_joined(input, &mut line, &mut number) {
                Ok(true) => {}
                Ok(false) => break,
                Err(e) => {
                    let _ = self.drain(0);
                    return Err(Failure::new(exit::USAGE, format!("Cannot read \"{}\": {e}", self.name)));
                }
            }
            let text = String::from_utf8_lossy(&line);
            let tokens = tokenize(&text);
            let words: Vec<&str> = tokens.iter().map(|t| t.text.as_str()).collect();
            let parsed = parse(&words);
            let source = Source { number: first, text: text.into() };
            let done = match parsed {
                Ok(None) => Ok(()),
                Ok(Some(command)) => self.command(command, source),
                Err(failure) => self.drain(0).and_then(|()| self.complain(&failure, &source)),
            };
            let waiting = interactive && input.buffer().is_empty();
            let done = done.and_then(|()| if waiting { self.drain(0) } else { Ok(()) });
            if done.is_err() {
                return Err(Failure::new(exit::USAGE, ""));
            }
        }
        let drained = self.drain(0);
        if drained.is_err() || self.failed { Err(Failure::new(exit::USAGE, "")) } else { Ok(()) }
    }

    fn command(&mut self, command: Command, line: Source) -> Result<(), Stop> {
        match to_op(command) {
            Ok(op) => {
                self.ops.push(op);
                self.lines.push(line);
                if self.ops.len() < CHUNK { Ok(()) } else { self.send().and_then(|()| self.drain(AHEAD)) }
            }
            Err(command) => {
                self.drain(0)?;
                match self.session.execute(*command) {
                    Ok(()) => Ok(()),
                    Err(failure) => self.complain(&failure, &line),
                }
            }
        }
    }

    fn send(&mut self) -> Result<(), Stop> {
        if self.ops.is_empty() {
            return Ok(());
        }
        let op = Op::Batch { ops: std::mem::take(&mut self.ops), force: self.force, chain: !self.force };
        let lines = std::mem::take(&mut self.lines);
        let first = lines.first().cloned().unwrap_or_default();
        let sent = self.session.client().and_then(|c| c.send(op).map_err(Failure::from));
        match sent {
            Ok(()) => {
                self.sent.push_back(lines);
                Ok(())
            }
            Err(failure) => self.broken(&failure, &first),
        }
    }

    /// Sends what is collected and reads replies until at most `left` requests are open.
    fn drain(&mut self, left: usize) -> Result<(), Stop> {
        if left == 0 {
            self.send()?;
        }
        let mut result = Ok(());
        while self.sent.len() > left || (result.is_err() && !self.sent.is_empty()) {
            let Some(lines) = self.sent.pop_front() else { break };
            let first = lines.first().cloned().unwrap_or_default();
            let reply = self.session.client().and_then(|c| c.receive().map_err(Failure::from));
            let batch = match reply {
                Ok(Body::Ok(Answer::Batch(b))) => b,
                Ok(_) => return self.broken(&unexpected(), &first),
                Err(failure) => return self.broken(&failure, &first),
            };
            for failure in batch.failed {
                if Some(failure.error.code.as_str()) == self.tolerate {
                    continue;
                }
                let line = usize::try_from(failure.index).ok().and_then(|i| lines.get(i)).unwrap_or(&first);
                if self.complain(&failure.error.into(), line).is_err() {
                    result = Err(Stop);
                }
            }
        }
        result
    }

    /// A failure of one line: said, and the end unless forced.
    fn complain(&mut self, failure: &Failure, line: &Source) -> Result<(), Stop> {
        let _ = self.session.out.flush();
        let text = crate::complaint::of_line(failure, &line.text);
        let _ = writeln!(io::stderr().lock(), "{text}Command failed {}:{}", self.name, line.number);
        self.failed = true;
        if self.force { Ok(()) } else { Err(Stop) }
    }

    /// A failure of the connection: the end in any case.
    fn broken(&mut self, failure: &Failure, line: &Source) -> Result<(), Stop> {
        let _ = self.complain(failure, line);
        self.sent.clear();
        Err(Stop)
    }
}

/// Reads a line, joined with the next ones while it ends in a backslash. False at the end.
fn read_joined(input: &mut impl BufRead, line: &mut Vec<u8>, number: &mut u64) -> io::Result<bool> {
    line.clear();
    loop {
        if line.len() > 1 << 20 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than 1 MiB"));
        }
        let from = line.len();
        let mut part = io::Read::take(&mut *input, 1 << 20);
        if part.read_until(b'\n', line)? == 0 {
            return Ok(from > 0);
        }
        *number += 1;
        if line.ends_with(b"\n") {
            line.pop();
        }
        if !line.ends_with(b"\\") {
            return Ok(true);
        }
        line.pop();
    }
}

/// A changing operation, or the command back.
fn to_op(command: Command) -> Result<Op, Box<Command>> {
    Ok(match command {
        Command::Route(RouteCommand::Modify(op, spec)) => Op::route(op, *spec),
        Command::Neigh(NeighCommand::Modify(verb, spec)) => Op::neigh(verb, spec),
        Command::Addr(AddrCommand::Modify(verb, dev, net)) => Op::addr(verb, dev, net),
        Command::Link(LinkCommand::Set(set)) => Op::LinkSet(set),
        Command::Tunnel(TunnelCommand::Add(t)) => Op::TunnelAdd(t),
        Command::Tunnel(TunnelCommand::Change(c)) => Op::TunnelChange(c),
        Command::Tunnel(TunnelCommand::Delete(name)) => Op::TunnelDelete(name),
        Command::NextHop(NextHopCommand::Add(n)) => Op::NextHopAdd(n),
        Command::NextHop(NextHopCommand::Replace(n)) => Op::NextHopReplace(n),
        Command::NextHop(NextHopCommand::Delete(id)) => Op::NextHopDelete(id),
        Command::Rule(RuleCommand::Add(rule)) => Op::RuleAdd(rule),
        Command::Rule(RuleCommand::Delete(rule, any_action)) => {
            Op::RuleDelete(Box::new(RuleDelete { rule: *rule, any_action }))
        }
        Command::Link(LinkCommand::AddVrf(name, table)) => Op::VrfAdd(VrfSpec { name, table }),
        Command::Link(LinkCommand::Delete(name)) => Op::VrfDelete(name),
        other => return Err(Box::new(other)),
    })
}
