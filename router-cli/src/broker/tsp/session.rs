//! A conversation, without any socket: bytes in, bytes out, the broker asked in between.

use super::auth::{Challenge, plain};
use super::wire::{Input, WireError, with_length};
use super::xml::{Action, Offer, Wanted, XmlError, offer, read};
use crate::broker::http::Web;
use crate::broker::model::{Account, Mode, Tunnel};
use crate::broker::service::{BrokerError, Origin, Service, Spoken};
use crate::broker::store::StoreError;
use ipnet::IpNet;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Wrong passwords in one conversation.
const TRIES: u8 = 3;
/// Requests in one conversation.
const REQUESTS: u8 = 8;
/// What the tunnel of an account that came by this protocol is called; the other one has IPv4 inside.
const NAME: &str = "tsp";
const NAME4: &str = "tsp4";
/// Seconds between keepalives that keep a NAT's binding.
const KEEPALIVE: u32 = 30;

/// How the conversation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// More to come.
    Go,
    /// Over.
    End,
}

enum State {
    Version,
    Authenticate,
    Plain,
    Digest(Challenge),
    /// Over UDP the client acknowledges the proof before it hears that all is well.
    Proof(Box<Account>),
    /// Who it is; None: nobody.
    Ready(Option<Box<Account>>),
    Over,
}

/// See the module.
pub struct Talk {
    peer: SocketAddr,
    /// Over UDP each datagram is a message.
    udp: bool,
    input: Input,
    state: State,
    tries: u8,
    requests: u8,
    /// The tunnel that was made in this conversation.
    made: Option<u32>,
}

/// A status line.
fn status(e: &BrokerError) -> &'static str {
    match e {
        BrokerError::BadAuth | BrokerError::Blocked | BrokerError::Locked(_) => "300 Authentication failed",
        BrokerError::Store(StoreError::Full(_)) => "301 No more tunnels available",
        BrokerError::Mode(_) => "303 Unsupported tunnel type",
        BrokerError::Length(_) => "507 Requested prefix length cannot be assigned",
        BrokerError::Taken(_) => "506 IPv4 address already used for existing tunnel",
        BrokerError::Foreign(_) | BrokerError::Endpoint(_) => "501 IPv4 address is not valid for this tunnel",
        BrokerError::Busy | BrokerError::TooOften => "530 Server too busy",
        BrokerError::NoTunnel | BrokerError::Invalid(_) => "500 Invalid request format",
        BrokerError::Store(_) | BrokerError::Router(_) => "310 Server side error",
    }
}

impl Talk {
    /// A new one.
    pub fn new(peer: SocketAddr, udp: bool) -> Self {
        let (input, state) = (Input::default(), State::Version);
        Talk { peer, udp, input, state, tries: 0, requests: 0, made: None }
    }

    fn origin(&self) -> Origin {
        Origin { from: Some(self.peer.ip().to_canonical()), via: "tsp" }
    }

    /// More bytes from the client. What is to be sent, and whether it is over.
    pub async fn feed(&mut self, bytes: &[u8], web: &Arc<Web>) -> (Vec<u8>, Next) {
        let mut out = Vec::new();
        if let Err(e) = self.input.push(bytes) {
            return self.broken(out, e);
        }
        if let (State::Proof(_), true) = (&self.state, self.udp)
            && let State::Proof(account) = std::mem::replace(&mut self.state, State::Over)
        {
            out.extend_from_slice(b"200 Success\r\n");
            self.state = State::Ready(Some(account));
            if bytes.is_empty() {
                return (out, Next::Go);
            }
        }
        loop {
            let before = out.len();
            let more = match self.step(web, &mut out).await {
                Ok(more) => more,
                Err(e) => return self.broken(out, e),
            };
            if matches!(self.state, State::Over) {
                return (out, Next::End);
            }
            if !more && out.len() == before {
                return (out, Next::Go);
            }
        }
    }

    fn broken(&mut self, mut out: Vec<u8>, e: WireError) -> (Vec<u8>, Next) {
        tracing::debug!(peer = %self.peer, "broker: TSP: {e}");
        self.state = State::Over;
        out.extend(with_length("500 Invalid request format or specified length\r\n"));
        (out, Next::End)
    }

    /// One line or document; false if there is none yet.
    async fn step(&mut self, web: &Arc<Web>, out: &mut Vec<u8>) -> Result<bool, WireError> {
        if let State::Ready(_) = self.state {
            let Some(text) = self.input.document()? else { return Ok(false) };
            self.request(&text, web, out).await;
            return Ok(true);
        }
        let Some(line) = self.input.line()? else { return Ok(false) };
        match std::mem::replace(&mut self.state, State::Over) {
            State::Version => self.version(&line, web, out),
            State::Authenticate => self.authenticate(&line, web, out),
            State::Plain => {
                let result = match plain(&line) {
                    Some((user, password)) => web.login(self.origin(), user, password, Spoken::Plain, None).await,
                    None => Err(BrokerError::BadAuth),
                };
                match result {
                    Ok(account) => self.welcome(account, None, out),
                    Err(e) => self.refuse(&e, out),
                }
            }
            State::Digest(challenge) => {
                let origin = self.origin();
                let result = match challenge.read(&line) {
                    Some(answer) => {
                        let check = move |s: &Service| {
                            let account = s.account_for_digest(origin, &answer.user)?;
                            let digest = account.as_ref().and_then(|a| a.digest.as_deref());
                            match (digest.and_then(|d| answer.check(d)), account) {
                                (Some(proof), Some(account)) => Ok((s.enter(origin, account)?, proof)),
                                _ => Err(s.wrong(origin, &answer.user)),
                            }
                        };
                        web.light(check).await
                    }
                    None => Err(BrokerError::BadAuth),
                };
                match result {
                    Ok((account, proof)) => self.welcome(account, Some(proof), out),
                    Err(e) => self.refuse(&e, out),
                }
            }
            State::Proof(account) => self.state = State::Ready(Some(account)),
            State::Ready(_) | State::Over => {}
        }
        Ok(true)
    }

    fn version(&mut self, line: &[u8], web: &Web, out: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(line);
        let version = text.strip_prefix("VERSION=").map(str::trim);
        if !version.is_some_and(|v| v == "2.0" || v.starts_with("2.0.")) {
            out.extend_from_slice(b"302 Unsupported client version\r\n");
            return;
        }
        let mut reply = String::from("CAPABILITY");
        for mode in web.service.plumb.modes() {
            let _ = write!(reply, " TUNNEL={}", mode.tsp().to_uppercase());
        }
        if web.service.plan.anonymous {
            reply.push_str(" AUTH=ANONYMOUS");
        }
        reply.push_str(" AUTH=PLAIN");
        if web.service.plan.digest_md5 {
            reply.push_str(" AUTH=DIGEST-MD5");
        }
        out.extend_from_slice(reply.as_bytes());
        out.extend_from_slice(b"\r\n");
        self.state = State::Authenticate;
    }

    fn authenticate(&mut self, line: &[u8], web: &Web, out: &mut Vec<u8>) {
        let text = String::from_utf8_lossy(line).to_ascii_uppercase();
        let plan = &web.service.plan;
        match text.strip_prefix("AUTHENTICATE ").map(str::trim) {
            Some("ANONYMOUS") if plan.anonymous => {
                out.extend_from_slice(b"200 Success\r\n");
                self.state = State::Ready(None);
            }
            Some("PLAIN") => self.state = State::Plain,
            Some("DIGEST-MD5") if plan.digest_md5 => {
                let challenge = Challenge::new(&plan.name);
                out.extend_from_slice(challenge.line().as_bytes());
                out.extend_from_slice(b"\r\n");
                self.state = State::Digest(challenge);
            }
            Some(_) => self.refuse(&BrokerError::BadAuth, out),
            None => out.extend(with_length("500 Invalid request format or specified length\r\n")),
        }
    }

    fn welcome(&mut self, account: Account, proof: Option<String>, out: &mut Vec<u8>) {
        let account = Box::new(account);
        let waits = proof.is_some() && self.udp;
        if let Some(proof) = proof {
            out.extend_from_slice(proof.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if waits {
            self.state = State::Proof(account);
        } else {
            out.extend_from_slice(b"200 Success\r\n");
            self.state = State::Ready(Some(account));
        }
    }

    /// The client may try another way (RFC 5572), not for ever.
    fn refuse(&mut self, e: &BrokerError, out: &mut Vec<u8>) {
        out.extend_from_slice(status(e).as_bytes());
        out.extend_from_slice(b"\r\n");
        self.tries += 1;
        let over = self.tries >= TRIES || !matches!(e, BrokerError::BadAuth);
        self.state = if over { State::Over } else { State::Authenticate };
    }

    async fn request(&mut self, text: &str, web: &Arc<Web>, out: &mut Vec<u8>) {
        self.requests += 1;
        if self.requests > REQUESTS {
            self.state = State::Over;
            return;
        }
        let wanted = match read(text) {
            Ok(wanted) => wanted,
            Err(e) => {
                let line = match e {
                    XmlError::Malformed => "500 Invalid request format or specified length",
                    XmlError::Ipv4 => "501 Invalid IPv4 address",
                    XmlError::Ipv6 => "502 Invalid IPv6 address",
                };
                out.extend(with_length(&format!("{line}\r\n")));
                self.state = State::Over;
                return;
            }
        };
        let account = match &self.state {
            State::Ready(account) => account.clone(),
            _ => return,
        };
        let (origin, peer, made) = (self.origin(), self.peer, self.made.take());
        let from = Client { peer, udp: self.udp };
        match wanted.action {
            // The client says that it is done: over TCP it closes now.
            Action::Accept => {}
            Action::Reject => {
                if let Some(id) = made {
                    let _ = web.light(move |s| s.delete(origin, id)).await;
                }
            }
            Action::Delete => {
                let gone = web.light(move |s| {
                    let t = existing(s, account.as_deref(), from)?.ok_or(BrokerError::NoTunnel)?;
                    s.delete(origin, t.id)
                });
                let line = match gone.await {
                    Ok(()) => "200 Success".to_owned(),
                    Err(e) => status(&e).to_owned(),
                };
                out.extend(with_length(&format!("{line}\r\n")));
            }
            Action::Info | Action::Create => {
                let create = wanted.action == Action::Create;
                let result = web.heavy(move |s| {
                    let found = existing(s, account.as_deref(), from)?;
                    let (t, new) = match (found, create) {
                        (Some(t), false) => (t, false),
                        (None, false) => return Err(BrokerError::NoTunnel),
                        (found, true) => give(s, origin, account.as_deref(), &wanted, from, found)?,
                    };
                    Ok((describe(s, &t, &wanted), new.then_some(t.id)))
                });
                match result.await {
                    Ok((xml, new)) => {
                        self.made = new;
                        out.extend(with_length(&format!("200 Success\r\n{xml}\r\n")));
                    }
                    Err(e) => {
                        tracing::info!(%peer, "broker: TSP request refused: {e}");
                        out.extend(with_length(&format!("{}\r\n", status(&e))));
                    }
                }
            }
        }
    }
}

/// Where a client is.
#[derive(Clone, Copy)]
struct Client {
    peer: SocketAddr,
    /// It speaks over UDP, and its port is that of its tunnel.
    udp: bool,
}

impl Client {
    /// The name of its tunnel: which family is inside follows from the one outside.
    fn name(self) -> &'static str {
        if self.peer.ip().to_canonical().is_ipv6() { NAME4 } else { NAME }
    }
}

/// The tunnel that this client got before.
fn existing(s: &Service, account: Option<&Account>, from: Client) -> Result<Option<Tunnel>, BrokerError> {
    match account {
        Some(a) => match s.own(&a.name, from.name()) {
            Ok(t) => Ok(Some(t)),
            Err(BrokerError::NoTunnel) => Ok(None),
            Err(e) => Err(e),
        },
        None => {
            // Behind one NAT there may be several: over UDP their ports tell them apart.
            let (addr, port) = (from.peer.ip().to_canonical(), from.udp.then_some(from.peer.port()));
            let list = s.store.tunnels_of(crate::broker::model::ANONYMOUS)?;
            let mut list: Vec<Tunnel> = list.into_iter().filter(|t| t.endpoint == Some(addr)).collect();
            list.retain(|t| t.mode != Mode::SixInUdp || t.port == port && port.is_some());
            list.sort_by_key(|t| (t.mode == Mode::SixInUdp) != from.udp);
            Ok(list.into_iter().next())
        }
    }
}

/// Gives a client its tunnel: the one it had, moved to where it is now, or a new one.
fn give(
    s: &Service,
    origin: Origin,
    account: Option<&Account>,
    wanted: &Wanted,
    from: Client,
    found: Option<Tunnel>,
) -> Result<(Tunnel, bool), BrokerError> {
    let modes = s.plumb.modes();
    let seen = from.peer.ip().to_canonical();
    let nat = wanted.ipv4.is_some_and(|a| IpAddr::V4(a) != seen);
    let mode = match wanted.kind.as_str() {
        "v6v4" => Mode::SixInFour,
        "v6udpv4" => Mode::SixInUdp,
        // Protocol 41 where it passes, UDP through a NAT.
        "v6anyv4" if nat && modes.contains(&Mode::SixInUdp) => Mode::SixInUdp,
        "v6anyv4" => Mode::SixInFour,
        "v4v6" => Mode::FourInSix,
        other => return Err(BrokerError::Mode(other.chars().take(16).collect())),
    };
    if !modes.contains(&mode) {
        return Err(BrokerError::Mode(mode.tsp().into()));
    }
    // Over TCP the port says nothing: it is learned from the first packet.
    let port = (mode == Mode::SixInUdp && from.udp).then_some(from.peer.port());
    let said = match mode {
        Mode::FourInSix => wanted.ipv6.map(IpAddr::V6),
        // What a client behind a NAT believes to be its address is of no use here.
        _ => None,
    };
    let to = s.claimed(origin, said, mode)?;
    // Nobody gets a prefix without an account. Who asks for less than a /48 gets one.
    let length = match (wanted.prefix, account) {
        (None | Some(0), _) => None,
        (Some(32), _) if mode == Mode::FourInSix => None,
        (Some(n), _) if mode == Mode::FourInSix => return Err(BrokerError::Length(n)),
        (Some(128), _) => None,
        (Some(64), Some(_)) => Some(64),
        (Some(48..64), Some(_)) => Some(48),
        (Some(n), _) => return Err(BrokerError::Length(n)),
    };
    if let Some(t) = found {
        let has = length.is_none_or(|l| t.prefixes.iter().any(|p| p.prefix_len() == l));
        // An account's tunnel is the same with its packets in UDP or without: its prefix stays.
        let kept = t.mode == mode || account.is_some() && mode != Mode::FourInSix && t.mode != Mode::FourInSix;
        if kept && has {
            s.update_as(origin, t.id, Some(mode), to, port)?;
            return Ok((Tunnel { mode, port, ..t }, false));
        }
        // Of nobody's tunnels only those of the same kind are surely the same client's: another may sit behind its NAT.
        if account.is_some() || t.mode == mode {
            s.delete(origin, t.id)?;
        }
    }
    let lengths: Vec<u8> = length.into_iter().collect();
    let (t, _) = s.create(origin, account, from.name(), mode, Some((to, port)), &lengths)?;
    Ok((t, true))
}

fn describe(s: &Service, t: &Tunnel, wanted: &Wanted) -> String {
    let info = s.info(t);
    let asked = wanted.prefix;
    offer(&Offer {
        kind: t.mode.tsp(),
        lifetime: if t.account == crate::broker::model::ANONYMOUS {
            s.plan.anonymous_lease.as_secs()
        } else {
            s.plan.lease.as_secs()
        },
        server: info.server,
        server_inner: info.server_inner.addr(),
        client: s.store.tunnel(t.id).ok().flatten().and_then(|t| t.endpoint).or(t.endpoint).unwrap_or(info.server),
        client_port: t.port,
        client_inner: info.client_inner.addr(),
        name: format!("t{}.{}", t.id, s.plan.name),
        dns: s.plan.dns.iter().copied().take(4).collect(),
        keepalive: wanted.keepalive.map(|_| KEEPALIVE),
        prefix: asked.and_then(|_| t.prefixes.first().copied()).filter(|p| matches!(p, IpNet::V6(_))),
    })
}
