//! ICMP router discovery (RFC 1256), the router's part: IPv4 hosts learn from it which routers their link has.
//!
//! - [`IrdpSettings`]: what is said on one port.
//! - [`write_advert`]: the message; [`is_solicitation`] and [`is_valid_solicitation`]: the question.
//! - [`Irdp`]: when: a few times soon after the start, then at random intervals, and when somebody asks.

mod message;
mod settings;
#[cfg(test)]
mod tests;

pub(crate) use message::most;
pub use message::{is_solicitation, is_valid_solicitation, write_advert};
pub use settings::{IrdpError, IrdpSettings, NEVER};

use crate::advert::{AdvertStatus, Tally};
use crate::jitter::Jitter;
use crate::port::{Medium, PortId, PortInfo};
use crate::tables::PortTable;
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// Router constants of RFC 1256 6.
const MAX_INITIAL_ADVERT_INTERVAL: Duration = Duration::from_secs(16);
const MAX_INITIAL_ADVERTISEMENTS: u8 = 3;
const MAX_RESPONSE_DELAY: Duration = Duration::from_secs(2);

/// What to say on a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// On this port.
    pub port: PortId,
    /// The addresses, with their preferences. Never empty.
    pub addrs: Vec<(Ipv4Addr, i32)>,
    /// Seconds for which they are good; 0: no longer.
    pub lifetime: u16,
    /// To 255.255.255.255 instead of 224.0.0.1.
    pub broadcast: bool,
}

struct State {
    settings: IrdpSettings,
    /// How many of the initial ones are left.
    initial: u8,
    next: Instant,
    /// Somebody has asked since the last one.
    asked: bool,
    /// What the hosts of the link have been told.
    told: Vec<(Ipv4Addr, i32)>,
    tally: Tally,
}

/// The schedule of all ports. See the module.
pub struct Irdp {
    ports: BTreeMap<PortId, State>,
    goodbyes: Vec<Due>,
    jitter: Jitter,
}

impl Irdp {
    /// An empty schedule. `seed` spreads the intervals.
    pub fn new(seed: u64) -> Self {
        Irdp { ports: BTreeMap::new(), goodbyes: Vec::new(), jitter: Jitter::new(seed) }
    }

    /// Follows settings (by the name of a port) and ports. A port that becomes an advertising one starts with its initial
    /// advertisements; addresses that are good no longer are said to be so once (RFC 1256 4.3).
    pub fn follow(&mut self, now: Instant, wanted: &BTreeMap<String, IrdpSettings>, ports: &PortTable) {
        self.ports.retain(|id, state| {
            let Some(port) = ports.get(*id).filter(|p| speaks(p)) else { return false };
            let addrs = wanted.get(&port.name).map(|s| s.addrs(port)).unwrap_or_default();
            let (told, gone): (Vec<_>, Vec<_>) =
                state.told.iter().partition(|(a, _)| addrs.iter().any(|(b, _)| a == b));
            state.told = told;
            if !gone.is_empty() {
                let broadcast = state.settings.broadcast;
                self.goodbyes.push(Due { port: *id, addrs: gone, lifetime: 0, broadcast });
            }
            !addrs.is_empty()
        });
        for port in ports.iter().filter(|p| speaks(p)) {
            let Some(settings) = wanted.get(&port.name).filter(|s| !s.addrs(port).is_empty()) else { continue };
            if self.ports.get(&port.id).is_some_and(|state| state.settings == *settings) {
                continue;
            }
            let next = now + self.jitter.up_to(MAX_RESPONSE_DELAY);
            let before = self.ports.remove(&port.id);
            let (told, tally) = before.map(|state| (state.told, state.tally)).unwrap_or_default();
            let (settings, initial) = (settings.clone(), MAX_INITIAL_ADVERTISEMENTS);
            self.ports.insert(port.id, State { settings, initial, next, asked: false, told, tally });
        }
    }

    /// Whether the router advertises itself on a port.
    pub fn is_active(&self, port: PortId) -> bool {
        self.ports.contains_key(&port)
    }

    /// What this has come to on a port; None where nothing is said.
    pub fn status(&self, now: Instant, port: PortId) -> Option<AdvertStatus> {
        let state = self.ports.get(&port)?;
        let to = if state.settings.broadcast { Ipv4Addr::BROADCAST } else { Ipv4Addr::new(224, 0, 0, 1) };
        let status = state.tally.status(now, state.next, IpAddr::V4(to), state.settings.lifetime_secs());
        Some(AdvertStatus { told: state.told.clone(), ..status })
    }

    /// A host asked: an advertisement to all goes out within two seconds, one for all who ask until then.
    pub fn solicited(&mut self, now: Instant, port: PortId) {
        let delay = self.jitter.up_to(MAX_RESPONSE_DELAY);
        let Some(state) = self.ports.get_mut(&port) else { return };
        state.tally.solicited();
        if !state.asked {
            state.asked = true;
            state.next = state.next.min(now + delay);
        }
    }

    /// When [`Irdp::poll`] has something to say next; `now` when a goodbye waits.
    pub fn poll_at(&self, now: Instant) -> Option<Instant> {
        let goodbye = (!self.goodbyes.is_empty()).then_some(now);
        self.ports.values().map(|s| s.next).chain(goodbye).min()
    }

    /// Advertisements that are due. Addresses that are still being confirmed are left out.
    pub fn poll(&mut self, now: Instant, ports: &PortTable) -> Vec<Due> {
        let mut due = std::mem::take(&mut self.goodbyes);
        let ids: Vec<PortId> = self.ports.iter().filter(|(_, s)| s.next <= now).map(|(id, _)| *id).collect();
        for id in ids {
            let Some((least, most)) = self.ports.get(&id).map(|s| s.settings.interval()) else { continue };
            let interval = self.jitter.between(least, most);
            let (Some(state), Some(port)) = (self.ports.get_mut(&id), ports.get(id)) else { continue };
            let mut addrs = state.settings.addrs(port);
            addrs.retain(|(a, _)| !ports.is_tentative(id, &IpAddr::V4(*a)));
            if addrs.is_empty() {
                state.next = now + Duration::from_millis(100);
                continue;
            }
            state.initial = state.initial.saturating_sub(1);
            // RFC 1256 4.3: the first few come sooner.
            let interval = if state.initial > 0 { interval.min(MAX_INITIAL_ADVERT_INTERVAL) } else { interval };
            (state.next, state.asked) = (now + interval, false);
            state.told.clone_from(&addrs);
            state.tally.sent(now);
            let (lifetime, broadcast) = (state.settings.lifetime_secs(), state.settings.broadcast);
            due.push(Due { port: id, addrs, lifetime, broadcast });
        }
        due
    }

    /// The router ends: what it says last, on every port on which it has advertised itself.
    pub fn finish(&mut self) -> Vec<Due> {
        let mut due = std::mem::take(&mut self.goodbyes);
        let told = std::mem::take(&mut self.ports).into_iter().filter(|(_, s)| !s.told.is_empty());
        due.extend(told.map(|(port, s)| Due { port, addrs: s.told, lifetime: 0, broadcast: s.settings.broadcast }));
        due
    }
}

/// Whether a port is a multicast interface that works.
fn speaks(port: &PortInfo) -> bool {
    port.up && port.medium == Medium::Ethernet && port.mac.is_some()
}
