//! A client of the tunnel set-up protocol (RFC 5572): gets a tunnel from anybody's server.
//!
//! * [`line`]: how messages travel; [`talk`]: the conversation; [`document`]: what is in it
//! * [`judge`]: whether what a server offers can be a tunnel of ours
//! * here: which machine is asked, by which transport, and how far redirections are followed

mod document;
mod judge;
mod line;
mod talk;
#[cfg(test)]
mod tests;

pub use judge::renewal;

use crate::control::{JoinSpec, LeaseInfo, WireError};
use crate::tsp_url::{Carrier, KINDS, PORT, TspUrl};
use document::Wish;
use ipnet::IpNet;
use judge::{Measure, Unfit, judge};
use line::{Line, Tcp, Udp, unspecified};
use router_io::port::udp::signals;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use talk::{Caller, Login, Outcome, Talk, TalkError, cnonce};

/// How many brokers are asked in all, one sending us to the next.
const HOPS: usize = 4;
/// How long one conversation may take.
const MOST: Duration = Duration::from_secs(30);
/// Seconds between keepalives that are asked for.
const KEEPALIVE: u32 = 10;

/// The router's `udp` port that tunnels in UDP would go through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// Its name.
    pub name: String,
    /// Its UDP port.
    pub number: u16,
    /// The address that it is bound to, if to one.
    pub local: Option<IpAddr>,
}

impl Door {
    /// The best of the ports with these names: one that has the protocol's own number.
    pub fn find(names: &[&str]) -> Option<Door> {
        let mut found: Vec<Door> = signals::speakers()
            .into_iter()
            .filter(|s| names.contains(&s.name.as_str()) && s.local.is_none_or(|l| l.is_ipv4()))
            .filter_map(|s| {
                let number = s.listen.iter().copied().find(|n| *n == PORT).or(s.listen.first().copied())?;
                Some(Door { name: s.name, number, local: s.local })
            })
            .collect();
        found.sort_by_key(|d| d.number != PORT);
        found.into_iter().next()
    }
}

/// What is known of this router.
#[derive(Clone, Debug, Default)]
pub struct Here {
    /// For tunnels in UDP.
    pub door: Option<Door>,
    /// Networks in use, and by whom.
    pub taken: Vec<(String, IpNet)>,
    /// Whether bare protocols can leave.
    pub bare: bool,
}

/// A tunnel, and how it was got.
#[derive(Clone, Debug)]
pub struct Got {
    /// The tunnel.
    pub lease: LeaseInfo,
    /// Our outer address.
    pub own: IpAddr,
    /// `udp` or `tcp`.
    pub carrier: &'static str,
    /// The login, as the protocol calls it.
    pub login: &'static str,
    /// Who gave it, if we were sent there.
    pub by: Option<String>,
    /// When to ask again.
    pub renew: Duration,
    /// How often to ask the server through the tunnel.
    pub keepalive: Duration,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TspError {
    /// The name.
    #[error("{0}: {1}")]
    Resolve(String, std::io::Error),
    /// The conversation.
    #[error("{0} by {1}: {2}")]
    Talk(String, &'static str, TalkError),
    /// What is offered.
    #[error("{0}: refused its offer: {1}")]
    Unfit(String, Unfit),
    /// Sent round in circles.
    #[error("{0} sends us to {1}, which has been asked already")]
    Loop(String, String),
    /// Sent too far.
    #[error("sent from one broker to the next {HOPS} times, last by {0}")]
    Far(String),
    /// Sent elsewhere with a password that must not go there.
    #[error("{0} sends us elsewhere, and the password would go there in the clear")]
    Clear(String),
    /// This router cannot carry it.
    #[error("{0}")]
    Here(String),
}

impl TspError {
    /// As the operator is told, with what to do.
    pub fn told(&self) -> WireError {
        let hint = match self {
            TspError::Resolve(..) => "is the name right, does this host have a resolver?",
            TspError::Talk(_, _, TalkError::Network(_)) => "is the address right, does this host have a way there?",
            TspError::Talk(_, _, TalkError::Refused(300, _)) => {
                "user and key-file belong together; the broker's operator knows the account and which logins it takes"
            }
            TspError::Talk(_, _, TalkError::Refused(303, _)) => "\"mode\" says which kind of tunnel to ask for",
            TspError::Talk(_, _, TalkError::Refused(507, _)) => "\"prefix\" says how long a prefix to ask for, or none",
            TspError::Unfit(_, Unfit::Foreign(..)) => "if that is the broker's tunnel server, say so: server ADDRESS",
            TspError::Here(_) => {
                "a [port.NAME] of kind = \"udp\" with listen = [3653] carries tunnels in UDP, one of kind = \"rawip\" the others"
            }
            _ => "",
        };
        WireError::new("denied", format!("Broker: {self}."), hint)
    }
}

/// What to ask one server for.
struct Ask<'a> {
    spec: &'a JoinSpec,
    here: &'a Here,
    kind: &'static str,
}

/// Asks for a tunnel, following redirections.
///
/// # Errors
/// See [`TspError`].
pub fn create(url: &TspUrl, spec: &JoinSpec, here: &Here) -> Result<Got, TspError> {
    let ask = Ask { spec, here, kind: kind(spec, here)? };
    follow(url, &ask, &mut |url, to| one(url, to, &ask))
}

/// Gives a tunnel of this mode back to who gave it.
///
/// # Errors
/// See [`TspError`].
pub fn delete(url: &TspUrl, spec: &JoinSpec, here: &Here, mode: &str) -> Result<(), TspError> {
    let kind = KINDS.iter().find(|(name, _)| *name == mode).map_or("v6anyv4", |(_, kind)| kind);
    let ask = Ask { spec, here, kind };
    follow(url, &ask, &mut |url, to| {
        over_each(url, to, &ask, &mut |talk, _| talk.delete(&ask.caller(url, to), ask.kind)).map(
            |(said, ..)| match said {
                Outcome::Elsewhere(list, login) => Step::Elsewhere(list, login),
                _ => Step::Done(()),
            },
        )
    })
}

/// The kind of tunnel to ask for: what is wanted, as far as this router can carry it.
fn kind(spec: &JoinSpec, here: &Here) -> Result<&'static str, TspError> {
    let wanted = spec.mode.as_deref().unwrap_or("any");
    let kind = KINDS.iter().find(|(name, _)| *name == wanted).map(|(_, kind)| *kind);
    match (kind, here.bare, here.door.is_some()) {
        (Some("v6anyv4"), true, true) => Ok("v6anyv4"),
        (Some("v6anyv4"), true, false) => Ok("v6v4"),
        (Some("v6anyv4" | "v6udpv4"), _, true) => Ok("v6udpv4"),
        (Some(kind @ ("v6v4" | "v4v6")), true, _) => Ok(kind),
        (Some("v6anyv4"), ..) => Err(TspError::Here("no port of this router could carry the tunnel".into())),
        (Some("v6udpv4"), ..) => Err(TspError::Here("this router has no udp port for tunnels in UDP".into())),
        (Some(_), ..) => Err(TspError::Here(format!("no port of this router carries {wanted} tunnels"))),
        (None, ..) => Err(TspError::Here(format!("\"{wanted}\" is no kind of tunnel"))),
    }
}

/// What one server said.
enum Step<T> {
    Done(T),
    Elsewhere(Vec<String>, Login),
}

/// Asks one server.
type OneServer<'o, T> = dyn FnMut(&TspUrl, SocketAddr) -> Result<Step<T>, TspError> + 'o;

/// Goes from broker to broker until one answers: never to one that was asked before, and not far.
fn follow<T>(url: &TspUrl, ask: &Ask<'_>, one: &mut OneServer<'_, T>) -> Result<T, TspError> {
    let (mut url, mut asked) = (url.clone(), Vec::<SocketAddr>::new());
    for _ in 0..HOPS {
        let list = url.resolve(ask.kind == "v4v6").map_err(|e| TspError::Resolve(url.host.clone(), e))?;
        let mut last = None;
        let mut next = None;
        for to in list {
            if asked.contains(&to) {
                last.get_or_insert(TspError::Loop("the broker".into(), to.to_string()));
                continue;
            }
            asked.push(to);
            match one(&url, to) {
                Ok(Step::Done(done)) => return Ok(done),
                Ok(Step::Elsewhere(hosts, login)) => {
                    if login == Login::Plain {
                        return Err(TspError::Clear(to.to_string()));
                    }
                    next = Some((to, hosts));
                    break;
                }
                // Another address of the same name may be better only where this one is not there.
                Err(e @ TspError::Talk(_, _, TalkError::Network(_))) => last = Some(e),
                Err(e) => return Err(e),
            }
        }
        let Some((from, hosts)) = next else {
            return Err(last.unwrap_or_else(|| TspError::Far(url.host.clone())));
        };
        let fresh = hosts
            .iter()
            .find(|h| h.parse::<IpAddr>().map_or(*h != &url.host, |a| !asked.contains(&(a, url.port).into())));
        match fresh {
            Some(host) => url = url.at(host.clone()),
            None => {
                return Err(TspError::Loop(
                    from.to_string(),
                    hosts.first().cloned().unwrap_or_else(|| "nobody".into()),
                ));
            }
        }
    }
    Err(TspError::Far(url.host))
}

/// Asks one server for a tunnel.
fn one(url: &TspUrl, to: SocketAddr, ask: &Ask<'_>) -> Result<Step<Got>, TspError> {
    let (spec, here) = (ask.spec, ask.here);
    let measure = |own: IpAddr| Measure {
        kind: ask.kind,
        peer: to,
        own,
        server: spec.server,
        prefix: spec.prefix,
        taken: &here.taken,
        names: (&spec.name, &spec.user),
    };
    // The tunnel, its lifetime and how often to keep it alive.
    type Fit = (LeaseInfo, Option<u64>, Option<u32>);
    let mut fit: Option<Result<Fit, Unfit>> = None;
    let (said, own, carrier) = over_each(url, to, ask, &mut |talk, own| {
        let wish = Wish { kind: ask.kind, own, prefix: spec.prefix, keepalive: KEEPALIVE };
        let said = talk.create(&ask.caller(url, to), &wish)?;
        if let Outcome::Offer(told, _) = &said {
            let lease = judge(told, &measure(own)).map(|lease| (lease, told.lifetime, told.keepalive));
            // A refusal that is lost frees the tunnel when its lifetime ends.
            let _ = talk.conclude(lease.is_ok());
            fit = Some(lease);
        }
        Ok(said)
    })?;
    match (said, fit) {
        (Outcome::Offer(_, login), Some(Ok((lease, lifetime, keepalive)))) => Ok(Step::Done(Got {
            lease,
            own,
            carrier,
            login: login.name(),
            by: (to.ip().to_string() != spec_host(spec)).then(|| to.to_string()),
            renew: renewal(lifetime),
            // More often is no harm, and what the server says is no order to be slow.
            keepalive: Duration::from_secs(u64::from(keepalive.unwrap_or(KEEPALIVE).clamp(1, KEEPALIVE))),
        })),
        (Outcome::Offer(..), Some(Err(e))) => Err(TspError::Unfit(to.to_string(), e)),
        (Outcome::Elsewhere(hosts, login), _) => Ok(Step::Elsewhere(hosts, login)),
        _ => Err(TspError::Far(to.to_string())),
    }
}

fn spec_host(spec: &JoinSpec) -> String {
    TspUrl::parse(&spec.url).map(|u| u.host).unwrap_or_default()
}

impl Ask<'_> {
    fn caller<'c>(&'c self, url: &'c TspUrl, to: SocketAddr) -> Caller<'c> {
        Caller {
            user: &self.spec.user,
            key: &self.spec.key,
            login: self.spec.auth.as_deref().and_then(Login::parse),
            host: &url.host,
            private: to.ip().is_loopback(),
            cnonce: cnonce(),
        }
    }
}

type Said = Result<Outcome, TalkError>;

/// Speaks with a server by UDP, and by TCP if that is not answered; what it said, our own address, and by which it was.
fn over_each(
    url: &TspUrl,
    to: SocketAddr,
    ask: &Ask<'_>,
    speak: &mut dyn FnMut(&mut Talk<'_>, IpAddr) -> Said,
) -> Result<(Outcome, IpAddr, &'static str), TspError> {
    let failed = |by: &'static str| move |e: TalkError| TspError::Talk(to.to_string(), by, e);
    let mut result = None;
    if url.carrier != Carrier::Tcp {
        let said = by_udp(to, ask).map_err(TalkError::from).and_then(|(mut line, own)| {
            let said = speak(&mut Talk::new(line.as_mut()), own)?;
            Ok((said, own))
        });
        match said {
            Ok((said, own)) => return Ok((said, own, "udp")),
            Err(e @ TalkError::Network(_)) if url.carrier == Carrier::Any => result = Some(failed("udp")(e)),
            Err(e) => return Err(failed("udp")(e)),
        }
    }
    let said = Tcp::open(to, ask.spec.local, MOST).map_err(TalkError::from).and_then(|(mut line, own)| {
        let said = speak(&mut Talk::new(&mut line), own)?;
        Ok((said, own))
    });
    match said {
        Ok((said, own)) => Ok((said, own, "tcp")),
        // Neither way: the first complaint says as much as the second.
        Err(TalkError::Network(_)) if result.is_some() => Err(result.unwrap_or_else(|| TspError::Far(to.to_string()))),
        Err(e) => Err(failed("tcp")(e)),
    }
}

/// A line by UDP: through the port that would carry the tunnel, so that a NAT has one binding for both.
fn by_udp(to: SocketAddr, ask: &Ask<'_>) -> std::io::Result<(Box<dyn Line>, IpAddr)> {
    let door = ask.here.door.as_ref().filter(|_| ask.kind != "v4v6" && ask.kind != "v6v4");
    match door {
        Some(door) => {
            let own = match ask.spec.local.or(door.local) {
                Some(own) => own,
                None => toward(to)?,
            };
            Ok((Box::new(Udp::through(&door.name, door.number, to)), own))
        }
        None => {
            let (line, own) = Udp::open(to, ask.spec.local, None)?;
            Ok((Box::new(line), own.ip()))
        }
    }
}

/// The address that the host would use towards another: no packet is sent.
///
/// # Errors
/// The host's: there is no way there.
pub fn toward(to: SocketAddr) -> std::io::Result<IpAddr> {
    let socket = std::net::UdpSocket::bind((unspecified(to), 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}
