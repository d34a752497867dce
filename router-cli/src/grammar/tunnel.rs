//! `tunnel add|change|del|show|check`, and `link add NAME type KIND` for the same tunnels.

use super::failure::{Failure, exit};
use super::words::Words;
use super::{Command, Object, TunnelCommand, value};
use crate::config::tunnel::{is_host_name, mode_names};
use crate::control::TunnelChange;
use ipnet::{IpNet, Ipv4Net};
use router_core::addr::Family;
use router_core::spec::{TunnelMode, TunnelOptions, TunnelSpec};
use router_core::tunnel::FlowLabel;
use router_core::tunnel::derived::Derived;
use router_core::tunnel::mode::Peer;
use router_core::tunnel::spec::{Keepalive, SixRdOptions, UdpKind, UdpOptions};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) fn parse(w: &mut Words<'_>) -> Result<Command, Failure> {
    if w.next().is_none() {
        return Ok(Command::Tunnel(TunnelCommand::Show(None)));
    }
    match () {
        () if w.matches(&["add"]) && super::join::is_join(w) => super::join::parse(w),
        () if w.matches(&["add"]) => {
            Draft::parse(w)?.into_spec(w).map(|t| Command::Tunnel(TunnelCommand::Add(Box::new(t))))
        }
        () if w.matches(&["change"]) => {
            let d = Draft::parse(w)?;
            let name = d.name()?;
            Ok(Command::Tunnel(TunnelCommand::Change(Box::new(TunnelChange {
                name,
                local: d.local,
                remote: d.remote,
                ttl: d.ttl,
                tos: d.tos,
                nopmtudisc: d.nopmtudisc,
                ignore_df: d.ignore_df,
                dev: d.dev.clone(),
                options: Box::new(d.options(TunnelMode::SixInFour)?),
            }))))
        }
        () if w.matches(&["delete"]) => Draft::parse(w)?.name().map(|n| Command::Tunnel(TunnelCommand::Delete(n))),
        () if w.matches(&["check"]) => {
            let name = w.dev()?;
            let target = if w.peek().is_some() { Some(w.addr()?) } else { None };
            match w.next() {
                None => Ok(Command::Tunnel(TunnelCommand::Check(name, target))),
                Some(_) => Err(w.garbage("ADDRESS", "say tunnel check NAME [ ADDRESS ]")),
            }
        }
        () if w.matches(&["show", "lst", "list"]) => {
            Draft::parse(w).map(|d| Command::Tunnel(TunnelCommand::Show(d.name)))
        }
        () if w.matches(&["prl", "6rd"]) => Err(w.unsupported()),
        () if w.matches(&["help"]) => Ok(Command::Help(Object::Tunnel)),
        () => Err(w.unknown_command("tunnel")),
    }
}

/// `link add [name] NAME [mtu N] type KIND ...`, from behind `add`. None when the kind is no tunnel's.
pub(super) fn parse_link_add(w: &mut Words<'_>) -> Result<Option<TunnelSpec>, Failure> {
    let mut d = Draft::default();
    while let Some(word) = w.next() {
        match word {
            "type" => {
                let kind = w.arg()?;
                if !matches!(kind, "sit" | "ipip" | "gre" | "ip6tnl" | "ip6gre") {
                    return Ok(None);
                }
                d.link = Some(kind.to_owned());
                d.words(w)?;
                return d.into_spec(w).map(Some);
            }
            "mtu" => d.mtu(w)?,
            _ => d.name_word(w)?,
        }
    }
    Ok(None)
}

#[derive(Default)]
struct Draft {
    name: Option<String>,
    mode: Option<String>,
    /// The kind of `link add`.
    link: Option<String>,
    /// `-4` or `-6`.
    family: Option<Family>,
    local: Option<IpAddr>,
    remote: Option<IpAddr>,
    /// 0: inherit.
    ttl: Option<u8>,
    /// 1: inherit.
    tos: Option<u8>,
    nopmtudisc: Option<bool>,
    ignore_df: Option<bool>,
    mtu: Option<u32>,
    dev: Option<String>,
    options: TunnelOptions,
    udp: Option<UdpOptions>,
    no_udp: bool,
    prefix: Option<ipnet::Ipv6Net>,
    relay_prefix: Option<Ipv4Net>,
    br: Option<Ipv4Addr>,
    keepalive: Option<Keepalive>,
}

impl Draft {
    fn parse(w: &mut Words<'_>) -> Result<Draft, Failure> {
        let mut d = Draft { family: w.family, ..Draft::default() };
        d.words(w)?;
        Ok(d)
    }

    fn words(&mut self, w: &mut Words<'_>) -> Result<(), Failure> {
        while let Some(word) = w.next() {
            self.word(word, w)?;
        }
        Ok(())
    }

    fn word(&mut self, word: &str, w: &mut Words<'_>) -> Result<(), Failure> {
        let o = &mut self.options;
        match word {
            "mode" => {
                let text = w.arg()?;
                if text != "any" && TunnelMode::from_word(text).is_none() {
                    return Err(w.invalid(
                        "unknown tunnel mode",
                        format!("duet knows {}, and iproute2's words for them", mode_names()),
                    ));
                }
                self.mode = Some(text.to_owned());
            }
            "remote" => match end(w)? {
                Ok(addr) => self.remote = Some(addr),
                Err(name) => o.remote_name = Some(name),
            },
            "local" => match end(w)? {
                Ok(addr) => self.local = Some(addr),
                Err(_) => {
                    return Err(
                        w.invalid("invalid address", "say local ADDRESS, or local-dev DEVICE to follow a device")
                    );
                }
            },
            "local-dev" => o.local_dev = Some(w.dev()?),
            "ttl" | "hoplimit" | "hlim" => {
                self.ttl = Some(match w.arg()? {
                    "inherit" => 0,
                    _ => w
                        .current_number("ttl", 1..=255)
                        .map_err(|_| w.invalid("invalid TTL", "a TTL is 1 to 255, or inherit"))?
                        as u8,
                });
            }
            "tos" | "tclass" | "tc" | "dsfield" => {
                self.tos = Some(match w.arg()? {
                    "inherit" => 1,
                    text => {
                        tos(text).ok_or_else(|| w.invalid("bad TOS value", "say inherit or hexadecimal 00 to fe"))?
                    }
                });
            }
            "pmtudisc" => self.nopmtudisc = Some(false),
            "nopmtudisc" => self.nopmtudisc = Some(true),
            "ignore-df" => self.ignore_df = Some(true),
            "noignore-df" => self.ignore_df = Some(false),
            "mtu" => self.mtu(w)?,
            "dev" => self.dev = Some(w.dev()?),
            "encaplimit" => {
                o.encaplimit = match w.arg()? {
                    "none" => None,
                    _ => Some(w.current_number("encaplimit", 0..=255)? as u8),
                }
            }
            "flowlabel" | "fl" => {
                o.flowlabel = match w.arg()? {
                    "auto" => FlowLabel::Auto,
                    "inherit" => FlowLabel::Inherit,
                    text => {
                        let digits = text.strip_prefix("0x").unwrap_or(text);
                        let label = u32::from_str_radix(digits, 16).ok().filter(|l| *l <= 0xf_ffff);
                        let why = || w.invalid("invalid flowlabel", "say auto, inherit, or 20 bits in hexadecimal");
                        FlowLabel::Fixed(label.ok_or_else(why)?)
                    }
                }
            }
            "key" => {
                let key = gre_key(w)?;
                (o.gre.ikey, o.gre.okey) = (Some(key), Some(key));
            }
            "ikey" => o.gre.ikey = Some(gre_key(w)?),
            "okey" => o.gre.okey = Some(gre_key(w)?),
            "nokey" => (o.gre.ikey, o.gre.okey) = (None, None),
            "noikey" => o.gre.ikey = None,
            "nookey" => o.gre.okey = None,
            "seq" => (o.gre.iseq, o.gre.oseq) = (true, true),
            "iseq" => o.gre.iseq = true,
            "oseq" => o.gre.oseq = true,
            "csum" => (o.gre.icsum, o.gre.ocsum) = (true, true),
            "icsum" => o.gre.icsum = true,
            "ocsum" => o.gre.ocsum = true,
            "encap" => {
                let kind = match w.arg()? {
                    "fou" => UdpKind::Fou,
                    "gue" => UdpKind::Gue,
                    "auto" => {
                        o.auto.get_or_insert_default();
                        UdpKind::Fou
                    }
                    "none" => {
                        self.no_udp = true;
                        return Ok(());
                    }
                    _ => return Err(w.invalid("Invalid encap type.", "say fou, gue, auto or none")),
                };
                self.udp().kind = kind;
            }
            "noencap" => self.no_udp = true,
            "encap-sport" => {
                self.udp().sport = match w.arg()? {
                    "auto" => 0,
                    _ => w.current_number("encap-sport", 1..=65_535)? as u16,
                }
            }
            "encap-dport" => {
                w.arg()?;
                self.udp().dport = w.current_number("encap-dport", 1..=65_535)? as u16;
            }
            "encap-port" => {
                w.arg()?;
                self.udp().port = w.current_number("encap-port", 1..=65_535)? as u16;
            }
            "encap-rport" => {
                self.udp().rport = match w.arg()? {
                    "any" => 0,
                    "learn" => {
                        self.udp().learn = true;
                        0
                    }
                    _ => w.current_number("encap-rport", 1..=65_535)? as u16,
                }
            }
            "encap-dev" => o.encap_dev = Some(w.dev()?),
            "encap-retry" => {
                w.arg()?;
                let retry = w.current_number("encap-retry", 1..=86_400)? as u32;
                self.options.auto.get_or_insert_default().retry = retry;
            }
            "encap-csum" | "encap-csum6" => self.udp().csum = Some(true),
            "noencap-csum" | "noencap-csum6" => self.udp().csum = Some(false),
            "noencap-remcsum" => {}
            "6rd-prefix" => {
                w.arg()?;
                match w.current_prefix(Some(Family::Inet6))? {
                    IpNet::V6(net) => self.prefix = Some(net),
                    IpNet::V4(_) => return Err(w.invalid("invalid 6rd_prefix", "say an IPv6 prefix")),
                }
            }
            "6rd-relay_prefix" => {
                w.arg()?;
                match w.current_prefix(Some(Family::Inet))? {
                    IpNet::V4(net) => self.relay_prefix = Some(net),
                    IpNet::V6(_) => return Err(w.invalid("invalid 6rd-relay_prefix", "say an IPv4 prefix")),
                }
            }
            "6rd-br" => match w.addr()? {
                IpAddr::V4(a) => self.br = Some(a),
                IpAddr::V6(_) => return Err(w.invalid("invalid address", "a border relay has an IPv4 address")),
            },
            "allow-6to4" => o.allow_6to4 = true,
            "allowed" => {
                w.arg()?;
                let net = w.current_prefix(None)?;
                o.allowed.push(net);
            }
            "rate" => {
                w.arg()?;
                o.rate = Some(w.current_number("rate", 1..=u64::from(u32::MAX))? as u32);
            }
            "keepalive" => {
                let word = w.arg()?;
                if word == "gre" {
                    self.keeper(Ipv4Addr::UNSPECIFIED.into()).gre = true;
                } else {
                    let target = w.current_addr(None)?;
                    self.keeper(target).target = target;
                }
            }
            "probe-mtu" => self.keeper(Ipv4Addr::UNSPECIFIED.into()).probe_mtu = true,
            "keepalive-answer" => o.gre.answer = true,
            "interval" => {
                w.arg()?;
                let ms = w.current_number("interval", 100..=3_600_000)? as u32;
                self.keeper(Ipv4Addr::UNSPECIFIED.into()).interval = ms;
            }
            "retries" => {
                w.arg()?;
                self.keeper(Ipv4Addr::UNSPECIFIED.into()).retries = w.current_number("retries", 1..=100)? as u8;
            }
            "hold" => {
                w.arg()?;
                self.keeper(Ipv4Addr::UNSPECIFIED.into()).hold = w.current_number("hold", 1..=100)? as u8;
            }
            "external" | "prl-default" | "prl-nodefault" | "prl-delete" | "6rd-reset" | "encap-remcsum" | "dscp"
            | "fwmark" | "isatap" => return Err(w.unsupported()),
            _ => self.name_word(w)?,
        }
        Ok(())
    }

    fn udp(&mut self) -> &mut UdpOptions {
        self.udp.get_or_insert(UdpOptions::new(UdpKind::Gue, 0))
    }

    fn keeper(&mut self, target: IpAddr) -> &mut Keepalive {
        self.keepalive.get_or_insert(Keepalive::new(target))
    }

    fn mtu(&mut self, w: &mut Words<'_>) -> Result<(), Failure> {
        w.arg()?;
        self.mtu = Some(w.current_number("mtu", 68..=65_535)? as u32);
        Ok(())
    }

    fn name_word(&mut self, w: &mut Words<'_>) -> Result<(), Failure> {
        if w.current() == "name" {
            w.arg()?;
        }
        if self.name.is_some() {
            return Err(w.garbage("name", "say NAME mode sit remote ADDRESS local ADDRESS"));
        }
        if !value::valid_name(w.current()) {
            return Err(
                w.invalid("\"name\" not a valid ifname", "a name has 1 to 15 characters, no white space, no \"/\"")
            );
        }
        self.name = Some(w.current().to_owned());
        Ok(())
    }

    fn name(&self) -> Result<String, Failure> {
        self.name.clone().ok_or_else(|| lacks("Not enough information: a tunnel name is required.", "say which tunnel"))
    }

    /// The mode, from what was said of it: `any` and the kind of a link leave it to the family.
    fn mode(&self) -> Result<TunnelMode, Failure> {
        let ends = self.remote.or(self.local).map(|a| Family::of(&a));
        let six = self.family.or(ends) == Some(Family::Inet6);
        let any = if six { TunnelMode::AnyInSix } else { TunnelMode::AnyInFour };
        let said = self.mode.as_deref();
        Ok(match (self.link.as_deref(), said) {
            (Some("gre"), None) => TunnelMode::Gre,
            (Some("ip6gre"), None) => TunnelMode::GreSix,
            (Some("ipip"), None | Some("ipip")) => TunnelMode::FourInFour,
            (Some("ipip" | "sit"), Some("any")) => TunnelMode::AnyInFour,
            (Some("sit"), None) if self.prefix.is_some() => TunnelMode::SixRd,
            (Some("sit"), None) => TunnelMode::SixInFour,
            // As iproute2: IPv6 inside unless another mode is said.
            (Some("ip6tnl"), None) => TunnelMode::SixInSix,
            (Some("ip6tnl"), Some("any")) => TunnelMode::AnyInSix,
            (_, Some("any")) => any,
            (_, Some("gre")) if six => TunnelMode::GreSix,
            (_, Some(word)) => TunnelMode::from_word(word).unwrap_or(any),
            (_, None) => {
                return Err(lacks(
                    "cannot determine tunnel mode (ipip, gre, sit ...)",
                    &format!("say mode and one of {}", mode_names()),
                ));
            }
        })
    }

    /// What only some tunnels have.
    fn options(&self, mode: TunnelMode) -> Result<TunnelOptions, Failure> {
        let mut o = self.options.clone();
        if let Some(u) = self.udp.filter(|_| !self.no_udp) {
            if u.dport == 0 && !u.learn {
                return Err(lacks(
                    "Not enough information: \"encap-dport\" is required.",
                    "say encap-dport PORT: the peer's, or encap-rport learn",
                ));
            }
            o.udp = Some(u);
        }
        if let Some(k) = self.keepalive {
            if k.target.is_unspecified() && !k.gre {
                return Err(lacks(
                    "Not enough information: \"keepalive\" is required.",
                    "say keepalive ADDRESS: whom to ask; or keepalive gre",
                ));
            }
            o.keepalive = Some(k);
        }
        let prefix = self.prefix.or((mode == TunnelMode::SixToFour).then_some(Derived::SIX_TO_FOUR));
        if let Some(prefix) = prefix {
            o.sixrd = Some(SixRdOptions { prefix, relay_prefix: self.relay_prefix.unwrap_or_default(), br: self.br });
        }
        Ok(o)
    }

    fn into_spec(self, w: &Words<'_>) -> Result<TunnelSpec, Failure> {
        let name = self.name()?;
        let mode = self.mode()?;
        let shape = mode.shape();
        let mut options = self.options(mode)?;
        let unknown: IpAddr = match shape.outer {
            Family::Inet => Ipv4Addr::UNSPECIFIED.into(),
            Family::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let remote = match self.remote {
            Some(a) => a,
            None if options.remote_name.is_some() || shape.peer == Peer::Derived => unknown,
            None => {
                return Err(lacks(
                    "Not enough information: \"remote\" is required.",
                    "say remote ADDRESS: the only peer to be accepted",
                ));
            }
        };
        let local = match self.local {
            Some(a) => a,
            None if options.local_dev.is_some() => unknown,
            None => {
                return Err(lacks(
                    "Not enough information: \"local\" is required.",
                    "say local ADDRESS: the outer source address",
                ));
            }
        };
        if self.ttl.is_some_and(|t| t != 0) && self.nopmtudisc == Some(true) {
            return Err(lacks(
                "ttl != 0 and nopmtudisc are incompatible",
                "a fixed TTL is only loop-safe with DF set; leave one of them out",
            )
            .at(w.place_of(&["nopmtudisc"])));
        }
        options.ignore_df = self.ignore_df.unwrap_or(false);
        let spec = TunnelSpec {
            ttl: self.ttl.filter(|t| *t != 0),
            ttl_inherit: self.ttl == Some(0),
            tos: self.tos.filter(|t| *t != 1),
            nopmtudisc: self.nopmtudisc.unwrap_or(false),
            mtu: self.mtu,
            dev: self.dev,
            options,
            ..TunnelSpec::new(&name, mode, local, remote)
        };
        router_core::router::check_tunnel_spec(&spec)
            .map_err(|e| lacks(&format!("Error: {e}."), "docs/tunnels.md compares the modes"))?;
        Ok(spec)
    }
}

fn lacks(line: &str, hint: &str) -> Failure {
    Failure::with_hint(exit::SYNTAX, line, hint)
}

/// An outer address, or a name to be asked from the resolver. `any` is refused: a tunnel accepts only its configured peer.
fn end(w: &mut Words<'_>) -> Result<Result<IpAddr, String>, Failure> {
    let text = w.arg()?;
    if text == "any" {
        return Err(w.invalid("invalid address", "a tunnel has one fixed peer and one own address"));
    }
    let looks_like_one = text.contains(':') || text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if !looks_like_one && text.contains('.') && is_host_name(text) {
        return Ok(Err(text.to_owned()));
    }
    let addr = w.current_addr(None)?;
    if addr.is_unspecified() || addr.is_multicast() || addr.is_loopback() {
        return Err(w.invalid("invalid address", format!("{addr} cannot be a tunnel's end")));
    }
    Ok(Ok(addr))
}

/// A GRE key: a number, or four bytes written like an IPv4 address.
fn gre_key(w: &mut Words<'_>) -> Result<u32, Failure> {
    let text = w.arg()?;
    if let Ok(dotted) = text.parse::<Ipv4Addr>() {
        return Ok(dotted.to_bits());
    }
    w.current_number("key", 0..=u64::from(u32::MAX)).map(|n| n as u32)
}

/// A traffic class byte as iproute2 reads it: hexadecimal, with or without `0x`.
fn tos(text: &str) -> Option<u8> {
    let hex = text.strip_prefix("0x").unwrap_or(text);
    let plain = !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u8::from_str_radix(hex, 16).ok()).flatten().filter(|t| t & 1 == 0)
}
