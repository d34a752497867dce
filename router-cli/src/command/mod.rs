//! Commands on a running router: a parsed [`Command`] becomes requests on the control socket, their answers become
//! iproute2's output.

mod batch;
pub(crate) mod broker;
pub(crate) mod capture;
pub(crate) mod count;
pub(crate) mod drops;
pub(crate) mod explain;
mod filter;
pub(crate) mod flow;
pub(crate) mod ping;
mod restore;
mod rule;
pub(crate) mod sample;
pub(crate) mod trace;
mod tunnel_check;

pub use batch::run_batch_file;

use crate::control::{
    Answer, BucketSelect, Client, ClientError, LinkSelect, LinkSet, NeighSelect, NextHopSelect, Op, RoutePage,
    RoutePageSelect, RoutePlace, RouteSelect, VrfSpec,
};
use crate::grammar::{
    AddrCommand, Command, Failure, LinkCommand, NeighCommand, NextHopCommand, Options, RouteCommand, TunnelCommand,
    exit, usage,
};
use crate::output::{self, NextHops, Out, OutState};
use router_core::port::PortKind;
use router_core::spec::{RouteInfo, proto};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A connection that is made when it is first needed, and output with the options that shape it.
pub struct Session<'a> {
    socket: PathBuf,
    client: Option<Client>,
    cancel: Option<Arc<AtomicBool>>,
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
        Session { socket, client: None, cancel: None, options, out, color }
    }

    /// Gives up waiting for the router as soon as this is set.
    pub fn cancelled_by(mut self, flag: Arc<AtomicBool>) -> Self {
        self.cancel = Some(flag);
        self
    }

    /// Takes over a connection that is open already, of the same router.
    pub fn with_client(mut self, client: Option<Client>) -> Self {
        self.client = client;
        self
    }

    /// The connection, if there is one, for the next session.
    pub fn into_client(self) -> Option<Client> {
        self.client.filter(|c| c.in_flight() == 0)
    }

    pub(crate) fn client(&mut self) -> Result<&mut Client, Failure> {
        Ok(self.connected()?)
    }

    fn connected(&mut self) -> Result<&mut Client, ClientError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => {
                let client = Client::connect(&self.socket)?;
                match &self.cancel {
                    Some(flag) => client.cancelled_by(Arc::clone(flag)),
                    None => client,
                }
            }
        };
        Ok(self.client.insert(client))
    }

    pub(crate) fn call(&mut self, op: Op) -> Result<Answer, Failure> {
        Ok(self.try_call(op)?)
    }

    /// One request. An old connection that was closed meanwhile is made anew.
    pub(crate) fn try_call(&mut self, op: Op) -> Result<Answer, ClientError> {
        let fresh = self.client.is_none();
        let repeated = op.clone();
        let result = self.connected()?.call(op);
        let again = match &result {
            // It hung up because nothing was asked for a while: it cannot have begun this operation.
            Err(ClientError::Refused(e)) if e.code == "idle" => true,
            // It went away while nobody looked; whoever is there now may answer. Changes are not sent twice.
            Err(ClientError::Broken(_)) => !fresh && !repeated.is_write(),
            _ => false,
        };
        if again || matches!(result, Err(ClientError::Broken(_) | ClientError::Cancelled)) {
            self.client = None;
        }
        if again { self.connected()?.call(repeated) } else { result }
    }

    /// Whether there is a connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.client.is_some()
    }

    /// Runs `f` with other options and another output on the same connection.
    pub(crate) fn aside<R>(
        &mut self,
        options: Options,
        out: &mut dyn Write,
        f: impl FnOnce(&mut Session<'_>) -> R,
    ) -> R {
        let client = self.client.take();
        let mut other =
            Session { socket: self.socket.clone(), client, cancel: self.cancel.clone(), options, out, color: false };
        let result = f(&mut other);
        self.client = other.client.take();
        result
    }

    /// Every selected route, in order, some at a time: neither side holds more than a page, and the router does not wait
    /// for a slow reader.
    pub(crate) fn each_route(
        &mut self,
        select: &RouteSelect,
        mut each: impl FnMut(&mut dyn Write, &RouteInfo) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut after = None;
        loop {
            let page = self.route_page(select, after.take())?;
            page.routes.iter().try_for_each(|info| each(self.out, info))?;
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
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
            Command::Translate(select) => match self.call(Op::TranslateShow(select))? {
                Answer::Translators(list) => self.print(|out, o| output::translators(out, &list, o)),
                _ => Err(unexpected()),
            },
            Command::Filter(c) => self.filter(c),
            Command::NextHop(c) => self.nexthop(c),
            Command::Rule(c) => self.rule(c),
            Command::Vrf(name) => self.vrfs(name.as_deref()),
            Command::Help(object) => Err(Failure::new(exit::SYNTAX, usage(Some(object)))),
        }
    }

    fn route(&mut self, command: RouteCommand) -> Result<(), Failure> {
        match command {
            RouteCommand::Modify(op, spec) => self.done(Op::route(op, *spec)),
            RouteCommand::Show(select) => {
                let select = self.in_vrf(select)?;
                self.show_routes(select)
            }
            RouteCommand::Flush(select) => {
                let select = self.in_vrf(select)?;
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
            RouteCommand::Save(select) => {
                let select = self.in_vrf(select)?;
                self.save_routes(select)
            }
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
        let mut page = self.route_page(&select, None)?;
        // One writer for the whole list: it knows where commas go.
        let mut carry = OutState::default();
        let mut begun = false;
        loop {
            let mut out = Out::resume(self.out, &self.options, self.color, carry);
            if !std::mem::replace(&mut begun, true) {
                out.begin()?;
            }
            for info in &page.routes {
                output::route(&mut out, info, &select, &self.options, &objects)?;
            }
            carry = out.pause();
            let Some(next) = page.next.take() else { break };
            page = self.route_page(&select, Some(next))?;
        }
        Ok(Out::resume(self.out, &self.options, self.color, carry).end()?)
    }

    fn route_page(&mut self, select: &RouteSelect, after: Option<RoutePlace>) -> Result<RoutePage, Failure> {
        match self.call(Op::RoutePage(RoutePageSelect { select: select.clone(), after, limit: 0 }))? {
            Answer::Page(page) => Ok(page),
            _ => Err(unexpected()),
        }
    }

    fn save_routes(&mut self, select: RouteSelect) -> Result<(), Failure> {
        writeln!(self.out, "# duet routes, version 1: read back with \"duet route restore\"")?;
        self.each_route(&select, |out, info| {
            // The router makes its own routes from its addresses.
            if info.route.proto != Some(proto::KERNEL) {
                writeln!(out, "{}", output::route_line(&info.route))?;
            }
            Ok(())
        })?;
        Ok(self.out.flush()?)
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
            LinkCommand::AddVrf(name, table) => self.done(Op::VrfAdd(VrfSpec { name, table })),
            LinkCommand::Delete(name) => self.done(Op::VrfDelete(name)),
            LinkCommand::Set(set) if (LinkSet { dev: set.dev.clone(), ..LinkSet::default() }) == set => {
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
        match self.try_call(Op::LinkShow(select)) {
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
            TunnelCommand::Join(spec, file) => broker::join(self, *spec, file.as_deref()),
            TunnelCommand::Change(c) => self.done(Op::TunnelChange(c)),
            TunnelCommand::Delete(name) => self.done(Op::TunnelDelete(name)),
            TunnelCommand::Check(name, target) => self.check_tunnel(&name, target),
            TunnelCommand::Show(name) => match self.call(Op::TunnelShow(name.clone()))? {
                Answer::Tunnels(list) => {
                    let kind = Some(PortKind::Wireguard.to_string());
                    let ports = match name.is_some() && !list.is_empty() {
                        true => Vec::new(),
                        false => self.links(LinkSelect { kind, ..LinkSelect::default() })?,
                    };
                    let ports: Vec<_> =
                        ports.into_iter().filter(|p| name.as_ref().is_none_or(|n| *n == p.name)).collect();
                    // Who gave it is known by another part of the router, and missing where there is none.
                    let joined = if self.options.details { broker::joined_list(self) } else { Vec::new() };
                    match name {
                        Some(name) if list.is_empty() && ports.is_empty() => Err(Failure::no_device(&name)),
                        _ => self.print(|out, o| output::tunnels(out, &list, &ports, &joined, o)),
                    }
                }
                _ => Err(unexpected()),
            },
        }
    }

    fn check_tunnel(&mut self, name: &str, target: Option<std::net::IpAddr>) -> Result<(), Failure> {
        let found = tunnel_check::run(name, target, &mut |op| self.call(op))?;
        let dead = found.reached.received == 0;
        self.print(|out, _| tunnel_check::print(out, &found))?;
        match dead {
            true => Err(Failure::with_hint(
                exit::REFUSED,
                format!("{} does not answer through {name}.", found.target),
                "duet explain shows where its packets go; is the other end up, and does it know this one?",
            )),
            false => Ok(()),
        }
    }

    fn nexthop(&mut self, command: NextHopCommand) -> Result<(), Failure> {
        match command {
            NextHopCommand::Add(n) => self.done(Op::NextHopAdd(n)),
            NextHopCommand::Replace(n) => self.done(Op::NextHopReplace(n)),
            NextHopCommand::Delete(id) => self.done(Op::NextHopDelete(id)),
            NextHopCommand::Get(id) => self.show_nexthops(NextHopSelect { id: Some(id), ..NextHopSelect::default() }),
            NextHopCommand::Show(select) => self.show_nexthops(select),
            NextHopCommand::Buckets(select) => self.show_buckets(select, false),
            NextHopCommand::Bucket(select) => self.show_buckets(select, true),
            NextHopCommand::Flush(select) => {
                let removed = self.call(Op::NextHopFlush(select))?;
                self.flushed(&removed)
            }
        }
    }

    fn show_buckets(&mut self, select: BucketSelect, one: bool) -> Result<(), Failure> {
        match self.call(Op::NextHopBuckets(select))? {
            Answer::Buckets(list) if one && list.is_empty() => {
                Err(Failure::from(crate::control::WireError::not_found(
                    "\"duet nexthop bucket show\" lists the buckets of resilient groups",
                )))
            }
            Answer::Buckets(list) => self.print(|out, _| output::buckets(out, &list)),
            _ => Err(unexpected()),
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
