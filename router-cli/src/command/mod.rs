//! Commands on a running router: a parsed [`Command`] becomes requests on the control socket, their answers become
//! iproute2's output.

mod batch;
pub(crate) mod explain;
mod restore;

pub use batch::run_batch_file;

use crate::control::{Answer, Client, ClientError, LinkSelect, NeighSelect, NextHopSelect, Op, RouteSelect};
use crate::grammar::{
    AddrCommand, Command, Failure, LinkCommand, NeighCommand, NextHopCommand, Options, RouteCommand, TunnelCommand,
    exit, usage,
};
use crate::output::{self, NextHops, Out};
use router_core::spec::proto;
use std::io::{self, Write};
use std::path::PathBuf;

/// A connection that is made when it is first needed, and output with the options that shape it.
pub struct Session<'a> {
    socket: PathBuf,
    client: Option<Client>,
    /// Options in force.
    pub options: Options,
    /// Where output goes.
    pub out: &'a mut dyn Write,
    /// Whether output is coloured.
    pub color: bool,
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Failure {
        match e.kind() {
            // The reader had enough, as in `duet route | head`: nothing to complain about.
            io::ErrorKind::BrokenPipe => Failure::new(0, ""),
            _ => Failure::new(exit::REFUSED, format!("Cannot write the output: {e}")),
        }
    }
}

impl<'a> Session<'a> {
    /// A session with the router behind `socket`.
    pub fn new(socket: PathBuf, options: Options, out: &'a mut dyn Write, color: bool) -> Self {
        Session { socket, client: None, options, out, color }
    }

    pub(crate) fn client(&mut self) -> Result<&mut Client, Failure> {
        if self.client.is_none() {
            self.client = Some(Client::connect(&self.socket)?);
        }
        self.client.as_mut().ok_or_else(|| Failure::new(exit::REFUSED, "no connection"))
    }

    pub(crate) fn call(&mut self, op: Op) -> Result<Answer, Failure> {
        Ok(self.client()?.call(op)?)
    }

    fn done(&mut self, op: Op) -> Result<(), Failure> {
        self.call(op).map(|_| ())
    }

    /// Runs `print` with a writer made by the options.
    pub(crate) fn print(
        &mut self,
        print: impl FnOnce(&mut Out<'_>, &Options) -> io::Result<()>,
    ) -> Result<(), Failure> {
        let mut out = Out::new(self.out, &self.options, self.color);
        Ok(print(&mut out, &self.options)?)
    }

    /// Executes one command.
    pub fn execute(&mut self, command: Command) -> Result<(), Failure> {
        match command {
            Command::Route(c) => self.route(c),
            Command::Neigh(c) => self.neigh(c),
            Command::Link(c) => self.link(c),
            Command::Addr(c) => self.addr(c),
            Command::Tunnel(c) => self.tunnel(c),
            Command::NextHop(c) => self.nexthop(c),
            Command::Rule => self.print(output::rules),
            Command::Help(object) => Err(Failure::new(exit::SYNTAX, usage(Some(object)))),
        }
    }

    fn route(&mut self, command: RouteCommand) -> Result<(), Failure> {
        match command {
            RouteCommand::Modify(op, spec) => self.done(Op::route(op, *spec)),
            RouteCommand::Show(select) => self.show_routes(select),
            RouteCommand::Flush(select) => {
                let removed = self.call(Op::RouteFlush(select))?;
                self.flushed(&removed)
            }
            RouteCommand::Get(get) => match self.call(Op::RouteGet(get))? {
                Answer::Get(info) => self.print(|out, o| {
                    out.begin()?;
                    output::get(out, &info, o)?;
                    out.end()
                }),
                Answer::Routes(list) => self.print(|out, o| {
                    out.begin()?;
                    for info in &list {
                        output::route(out, info, &RouteSelect::default(), o, &NextHops::new())?;
                    }
                    out.end()
                }),
                _ => Err(unexpected()),
            },
            RouteCommand::Save(select) => self.save_routes(select),
            RouteCommand::Restore => restore::restore(self, &mut io::stdin().lock()),
        }
    }

    fn show_routes(&mut self, select: RouteSelect) -> Result<(), Failure> {
        self.known_device(select.dev.as_deref())?;
        let mut objects = NextHops::new();
        if self.options.details {
            match self.call(Op::NextHopShow(NextHopSelect::default()))? {
                Answer::Nexthops(list) => objects.extend(list.into_iter().map(|n| (n.id, n))),
                _ => return Err(unexpected()),
            }
        }
        self.client()?;
        let Session { client: Some(client), options, out, color, .. } = self else { return Err(unexpected()) };
        let mut out = Out::new(*out, options, *color);
        let mut begun = false;
        client.pages(Op::RouteShow(select.clone()), |page| {
            let Answer::Routes(list) = page else { return Err(unexpected()) };
            if !std::mem::replace(&mut begun, true) {
                out.begin()?;
            }
            for info in &list {
                output::route(&mut out, info, &select, options, &objects)?;
            }
            Ok::<(), Failure>(())
        })?;
        Ok(out.end()?)
    }

    fn save_routes(&mut self, select: RouteSelect) -> Result<(), Failure> {
        self.client()?;
        let Session { client: Some(client), out, .. } = self else { return Err(unexpected()) };
        writeln!(out, "# duet routes, version 1: read back with \"duet route restore\"")?;
        client.pages(Op::RouteShow(select), |page| {
            let Answer::Routes(list) = page else { return Err(unexpected()) };
            // The router makes its own routes from its addresses.
            for info in list.iter().filter(|i| i.route.proto != Some(proto::KERNEL)) {
                writeln!(out, "{}", output::route_line(&info.route))?;
            }
            Ok::<(), Failure>(())
        })?;
        Ok(out.flush()?)
    }

    /// What iproute2 says after a flush, with `-s`.
    fn flushed(&mut self, removed: &Answer) -> Result<(), Failure> {
        let Answer::Count(n) = removed else { return Err(unexpected()) };
        if self.options.stats > 0 {
            match n {
                0 => writeln!(self.out, "Nothing to flush.")?,
                n => writeln!(
                    self.out,
                    "\n*** Round 1, deleting {n} entries ***\n*** Flush is complete after 1 round ***"
                )?,
            }
        }
        Ok(self.out.flush()?)
    }

    fn neigh(&mut self, command: NeighCommand) -> Result<(), Failure> {
        match command {
            NeighCommand::Modify(verb, spec) => self.done(Op::neigh(verb, spec)),
            NeighCommand::Show(select) => {
                self.known_device(select.dev.as_deref())?;
                self.show_neighs(select)
            }
            NeighCommand::Get(select) => {
                self.known_device(select.dev.as_deref())?;
                match self.call(Op::NeighShow(select.clone()))? {
                    Answer::Neighs(list) if list.is_empty() => {
                        Err(Failure::new(exit::REFUSED, "Error: Neighbour entry not found."))
                    }
                    Answer::Neighs(list) => self.print(|out, o| output::neighs(out, &list, &select, o)),
                    _ => Err(unexpected()),
                }
            }
            NeighCommand::Flush(select) => {
                let removed = self.call(Op::NeighFlush(select))?;
                self.flushed(&removed)
            }
        }
    }

    fn show_neighs(&mut self, select: NeighSelect) -> Result<(), Failure> {
        match self.call(Op::NeighShow(select.clone()))? {
            Answer::Neighs(list) => self.print(|out, o| output::neighs(out, &list, &select, o)),
            _ => Err(unexpected()),
        }
    }

    fn known_device(&mut self, dev: Option<&str>) -> Result<(), Failure> {
        match dev {
            Some(d) => self.call(Op::LinkShow(LinkSelect { dev: Some(d.into()), ..LinkSelect::default() })).map(|_| ()),
            None => Ok(()),
        }
    }

    fn link(&mut self, command: LinkCommand) -> Result<(), Failure> {
        match command {
            LinkCommand::Set(set) if set.up.is_none() && set.mtu.is_none() && set.address.is_none() => {
                self.known_device(Some(&set.dev))
            }
            LinkCommand::Set(set) => self.done(Op::LinkSet(set)),
            LinkCommand::Show(select) => {
                let list = self.links(select)?;
                self.print(|out, o| output::links(out, &list, o))
            }
        }
    }

    fn links(&mut self, select: LinkSelect) -> Result<Vec<crate::control::LinkInfo>, Failure> {
        let dev = select.dev.clone();
        match self.client()?.call(Op::LinkShow(select)) {
            Ok(Answer::Links(list)) => Ok(list),
            Ok(_) => Err(unexpected()),
            Err(ClientError::Refused(e)) if e.code == "no_device" => Err(Failure {
                line: format!("Device \"{}\" does not exist.", dev.unwrap_or_default()),
                ..Failure::from(e)
            }),
            Err(e) => Err(e.into()),
        }
    }

    fn addr(&mut self, command: AddrCommand) -> Result<(), Failure> {
        match command {
            AddrCommand::Modify(verb, dev, net) => self.done(Op::addr(verb, dev, net)),
            AddrCommand::Flush(select) => {
                let removed = self.call(Op::AddrFlush(select))?;
                self.flushed(&removed)
            }
            AddrCommand::Show(select) => {
                let list = self.links(LinkSelect { dev: select.dev.clone(), ..LinkSelect::default() })?;
                self.print(|out, o| output::addrs(out, &list, &select, o))
            }
        }
    }

    fn tunnel(&mut self, command: TunnelCommand) -> Result<(), Failure> {
        match command {
            TunnelCommand::Add(t) => self.done(Op::TunnelAdd(t)),
            TunnelCommand::Change(c) => self.done(Op::TunnelChange(c)),
            TunnelCommand::Delete(name) => self.done(Op::TunnelDelete(name)),
            TunnelCommand::Show(name) => match self.call(Op::TunnelShow(name.clone()))? {
                Answer::Tunnels(list) => match name {
                    Some(name) if list.is_empty() => Err(Failure::no_device(&name)),
                    _ => self.print(|out, o| output::tunnels(out, &list, o)),
                },
                _ => Err(unexpected()),
            },
        }
    }

    fn nexthop(&mut self, command: NextHopCommand) -> Result<(), Failure> {
        match command {
            NextHopCommand::Add(n) => self.done(Op::NextHopAdd(n)),
            NextHopCommand::Replace(n) => self.done(Op::NextHopReplace(n)),
            NextHopCommand::Delete(id) => self.done(Op::NextHopDelete(id)),
            NextHopCommand::Get(id) => self.show_nexthops(NextHopSelect { id: Some(id), ..NextHopSelect::default() }),
            NextHopCommand::Show(select) => self.show_nexthops(select),
            NextHopCommand::Flush(select) => {
                let removed = self.call(Op::NextHopFlush(select))?;
                self.flushed(&removed)
            }
        }
    }

    fn show_nexthops(&mut self, select: NextHopSelect) -> Result<(), Failure> {
        let one = select.id;
        match self.call(Op::NextHopShow(select))? {
            Answer::Nexthops(list) if one.is_some() && list.is_empty() => {
                Err(Failure::from(crate::control::WireError::not_found("\"duet nexthop\" lists the next-hop objects")))
            }
            Answer::Nexthops(list) => self.print(|out, o| output::nexthops(out, &list, o)),
            _ => Err(unexpected()),
        }
    }
}

pub(crate) fn unexpected() -> Failure {
    Failure::with_hint(
        exit::REFUSED,
        "The router gave an answer of another kind than asked for.",
        "program and router are of different versions; \"duet version\" shows both",
    )
}
