//! Commands that change something say what they changed: the lines that were there before and are gone, and the new ones.

use crate::command::{Session, unexpected};
use crate::control::{
    AddrSelect, Answer, LinkSelect, NeighSelect, NextHopSelect, Op, PrefixSelect, RouteSelect, TableSelect,
};
use crate::grammar::{
    AddrCommand, Command, Failure, LinkCommand, NeighCommand, NextHopCommand, Options, RouteCommand, TunnelCommand,
};
use ipnet::IpNet;

/// Whether it only looks.
pub(super) fn is_read(command: &Command) -> bool {
    view(command).is_none() && flush(command).is_none()
}

/// Executes a changing command and says what it changed.
pub(super) fn execute(session: &mut Session<'_>, command: Command) -> Result<(), Failure> {
    if let Some((op, what)) = flush(&command) {
        let Answer::Count(n) = session.call(op)? else { return Err(unexpected()) };
        match n {
            0 => writeln!(session.out, "Nothing to remove.")?,
            n => writeln!(session.out, "Removed {n} {what}.")?,
        }
        return Ok(session.out.flush()?);
    }
    let Some(view) = view(&command) else { return session.execute(command) };
    let users = match &command {
        Command::NextHop(NextHopCommand::Delete(id)) => routes_of(session, *id)?,
        _ => 0,
    };
    let before = lines(session, &view)?;
    session.execute(command)?;
    let after = lines(session, &view)?;
    let gone: Vec<&String> = before.iter().filter(|l| !after.contains(l)).collect();
    let new: Vec<&String> = after.iter().filter(|l| !before.contains(l)).collect();
    if gone.is_empty() && new.is_empty() {
        writeln!(session.out, "Nothing changed: it was so already.")?;
    }
    for line in gone {
        writeln!(session.out, "- {line}")?;
    }
    for line in new {
        writeln!(session.out, "+ {line}")?;
    }
    if users > 0 {
        writeln!(session.out, "and {users} routes that used it")?;
    }
    Ok(session.out.flush()?)
}

/// What shows the things that a command may change.
fn view(command: &Command) -> Option<Command> {
    Some(match command {
        Command::Route(RouteCommand::Modify(_, r)) => Command::Route(RouteCommand::Show(RouteSelect {
            table: TableSelect::One(r.table_id()),
            dst: Some(PrefixSelect::Exact(r.dst)),
            ..RouteSelect::default()
        })),
        Command::Neigh(NeighCommand::Modify(_, n)) => Command::Neigh(NeighCommand::Show(NeighSelect {
            dev: Some(n.dev.clone()),
            to: Some(IpNet::from(n.addr)),
            nud_all: true,
            ..NeighSelect::default()
        })),
        Command::Addr(AddrCommand::Modify(_, dev, net)) => Command::Addr(AddrCommand::Show(AddrSelect {
            dev: Some(dev.clone()),
            to: Some(IpNet::from(net.addr())),
            ..AddrSelect::default()
        })),
        Command::Link(LinkCommand::Set(set)) => {
            Command::Link(LinkCommand::Show(LinkSelect { dev: Some(set.dev.clone()), ..LinkSelect::default() }))
        }
        Command::Tunnel(TunnelCommand::Add(t)) => Command::Tunnel(TunnelCommand::Show(Some(t.name.clone()))),
        Command::Tunnel(TunnelCommand::Change(t)) => Command::Tunnel(TunnelCommand::Show(Some(t.name.clone()))),
        Command::Tunnel(TunnelCommand::Delete(name)) => Command::Tunnel(TunnelCommand::Show(Some(name.clone()))),
        Command::NextHop(NextHopCommand::Add(n) | NextHopCommand::Replace(n)) => by_id(n.id),
        Command::NextHop(NextHopCommand::Delete(id)) => by_id(*id),
        _ => return None,
    })
}

fn by_id(id: u32) -> Command {
    Command::NextHop(NextHopCommand::Show(NextHopSelect { id: Some(id), ..NextHopSelect::default() }))
}

/// The operation behind a flush and the noun for what it removes.
fn flush(command: &Command) -> Option<(Op, String)> {
    Some(match command {
        Command::Route(RouteCommand::Flush(s)) => (Op::RouteFlush(s.clone()), format!("routes from {}", s.describe())),
        Command::Neigh(NeighCommand::Flush(s)) => (Op::NeighFlush(s.clone()), "neighbours".into()),
        Command::Addr(AddrCommand::Flush(s)) => (Op::AddrFlush(s.clone()), "addresses".into()),
        Command::NextHop(NextHopCommand::Flush(s)) => {
            (Op::NextHopFlush(s.clone()), "next hops, and the routes that used them".into())
        }
        _ => return None,
    })
}

/// The view's lines; nothing there counts as no lines.
fn lines(session: &mut Session<'_>, view: &Command) -> Result<Vec<String>, Failure> {
    let mut text = Vec::new();
    // Only of tunnels is there something that matters and is not shown without.
    let details = matches!(view, Command::Tunnel(_));
    let options = Options { details, oneline: true, ..Options::default() };
    match session.aside(options, &mut text, |s| s.execute(view.clone())) {
        Ok(()) => {}
        // What is missing has no lines; a lost router is another matter.
        Err(f) if session.is_connected() => drop(f),
        Err(f) => return Err(f),
    }
    let plain = |line: &str| line.replace('\\', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(String::from_utf8_lossy(&text).lines().map(plain).filter(|l| !l.is_empty()).collect())
}

fn routes_of(session: &mut Session<'_>, id: u32) -> Result<u64, Failure> {
    let select = RouteSelect { table: TableSelect::All, nhid: Some(id), ..RouteSelect::default() };
    let mut n = 0;
    session.each_route(&select, |_, _| {
        n += 1;
        Ok(())
    })?;
    Ok(n)
}
