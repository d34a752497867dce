//! Router advertisements (RFC 4861 6.2): being the default router of a LAN.
//!
//! - [`AdvertSettings`]: what is said on one port.
//! - [`write_advert`]: the message.
//! - [`Adverts`]: when: a few soon after the start, then at random intervals, and when somebody asks; never too often.

mod message;
mod settings;
mod status;
#[cfg(test)]
mod tests;

pub use message::write_advert;
pub use settings::{AdvertError, AdvertSettings, Preference, PrefixSettings};
pub use status::AdvertStatus;
pub(crate) use status::Tally;

use crate::jitter::Jitter;
use crate::port::{Medium, PortId, PortInfo};
use crate::tables::PortTable;
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

/// Router constants of RFC 4861 10.
const MAX_INITIAL_RTR_ADVERT_INTERVAL: Duration = Duration::from_secs(16);
const MAX_INITIAL_RTR_ADVERTISEMENTS: u8 = 3;
const MIN_DELAY_BETWEEN_RAS: Duration = Duration::from_secs(3);
const MAX_RA_DELAY_TIME: Duration = Duration::from_millis(500);

/// An advertisement to send.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    /// On this port.
    pub port: PortId,
    /// What it says.
    pub settings: AdvertSettings,
    /// The last one: lifetime zero, the router is one no more (RFC 4861 6.2.5).
    pub last: bool,
}

struct State {
    settings: AdvertSettings,
    /// How many of the initial ones are left.
    initial: u8,
    next: Instant,
    sent: Option<Instant>,
    /// Hosts on this link may have been told that this is a router.
    told: bool,
    tally: Tally,
}

/// The schedule of all ports. See the module.
pub struct Adverts {
    ports: BTreeMap<PortId, State>,
    /// Ports that are down, whose hosts were told before: what was said. Their name tells them from later ones.
    silent: BTreeMap<PortId, (String, AdvertSettings)>,
    goodbyes: Vec<Due>,
    jitter: Jitter,
}

impl Adverts {
    /// An empty schedule. `seed` spreads the intervals.
    pub fn new(seed: u64) -> Self {
        Adverts { ports: BTreeMap::new(), silent: BTreeMap::new(), goodbyes: Vec::new(), jitter: Jitter::new(seed) }
    }

    /// Follows settings (by the name of a port) and ports. A port whose settings are new or changed starts with its
    /// initial advertisements; one that is to say nothing more says so once.
    pub fn follow(&mut self, now: Instant, wanted: &BTreeMap<String, AdvertSettings>, ports: &PortTable) {
        let speaks = |p: &PortInfo| p.up && p.medium == Medium::Ethernet && p.mac.is_some() && p.link_local().is_some();
        for (id, state) in std::mem::take(&mut self.ports) {
            match ports.get(id) {
                Some(port) if speaks(port) && wanted.contains_key(&port.name) => _ = self.ports.insert(id, state),
                Some(port) if state.told => _ = self.silent.insert(id, (port.name.clone(), state.settings)),
                _ => {}
            }
        }
        self.silent.retain(|id, (name, settings)| match ports.get(*id).filter(|p| p.name == *name) {
            Some(port) if speaks(port) && !wanted.contains_key(name) => {
                self.goodbyes.push(Due { port: *id, settings: settings.clone(), last: true });
                false
            }
            there => there.is_some(),
        });
        for port in ports.iter().filter(|p| speaks(p)) {
            let Some(settings) = wanted.get(&port.name) else { continue };
            match self.ports.get_mut(&port.id) {
                Some(state) if state.settings == *settings => {}
                Some(state) => {
                    (state.settings, state.initial) = (settings.clone(), MAX_INITIAL_RTR_ADVERTISEMENTS);
                    state.next = earliest(now, state.sent);
                }
                None => {
                    let next = now + self.jitter.up_to(MAX_RA_DELAY_TIME);
                    let (settings, initial) = (settings.clone(), MAX_INITIAL_RTR_ADVERTISEMENTS);
                    let told = self.silent.remove(&port.id).is_some();
                    self.ports
                        .insert(port.id, State { settings, initial, next, sent: None, told, tally: Tally::default() });
                }
            }
        }
    }

    /// Whether the router advertises itself on a port.
    pub fn is_active(&self, port: PortId) -> bool {
        self.ports.contains_key(&port)
    }

    /// What this has come to on a port; None where nothing is said.
    pub fn status(&self, now: Instant, port: PortId) -> Option<AdvertStatus> {
        let state = self.ports.get(&port)?;
        let to = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
        Some(state.tally.status(now, state.next, to, state.settings.lifetime_secs()))
    }

    /// A host asked (RFC 4861 6.2.6): an advertisement to all goes out within half a second, but never within three
    /// seconds of another.
    pub fn solicited(&mut self, now: Instant, port: PortId) {
        let delay = self.jitter.up_to(MAX_RA_DELAY_TIME);
        if let Some(state) = self.ports.get_mut(&port) {
            state.tally.solicited();
            state.next = state.next.min(earliest(now, state.sent) + delay);
        }
    }

    /// When [`Adverts::poll`] has something to say next; `now` when a goodbye waits.
    pub fn poll_at(&self, now: Instant) -> Option<Instant> {
        let goodbye = (!self.goodbyes.is_empty()).then_some(now);
        self.ports.values().map(|s| s.next).chain(goodbye).min()
    }

    /// Advertisements that are due. A port for which `ready` says no (its link-local address is tentative) waits a little.
    pub fn poll(&mut self, now: Instant, ready: impl Fn(PortId) -> bool) -> Vec<Due> {
        let mut due = std::mem::take(&mut self.goodbyes);
        let ids: Vec<PortId> = self.ports.iter().filter(|(_, s)| s.next <= now).map(|(id, _)| *id).collect();
        for id in ids {
            let wait = |s: &State| (s.settings.least_interval(), s.settings.max_interval);
            let Some((least, most)) = self.ports.get(&id).map(wait) else { continue };
            let interval = self.jitter.between(least, most);
            let Some(state) = self.ports.get_mut(&id) else { continue };
            if !ready(id) {
                state.next = now + Duration::from_millis(100);
                continue;
            }
            state.initial = state.initial.saturating_sub(1);
            // RFC 4861 6.2.4: the first few come sooner.
            let interval = if state.initial > 0 { interval.min(MAX_INITIAL_RTR_ADVERT_INTERVAL) } else { interval };
            (state.next, state.sent, state.told) = (now + interval, Some(now), true);
            state.tally.sent(now);
            due.push(Due { port: id, settings: state.settings.clone(), last: false });
        }
        due
    }

    /// The router ends: what it says last, on every port that it has advertised itself on. Also where the link seems to be
    /// down: the system tells of a link that is up again up to a second late.
    pub fn finish(&mut self) -> Vec<Due> {
        let mut due = std::mem::take(&mut self.goodbyes);
        let ports = std::mem::take(&mut self.ports).into_iter().filter(|(_, s)| s.told).map(|(id, s)| (id, s.settings));
        let silent = std::mem::take(&mut self.silent).into_iter().map(|(id, (_, settings))| (id, settings));
        due.extend(ports.chain(silent).map(|(port, settings)| Due { port, settings, last: true }));
        due
    }
}

/// The earliest time for an advertisement to all after another.
fn earliest(now: Instant, sent: Option<Instant>) -> Instant {
    sent.map_or(now, |at| now.max(at + MIN_DELAY_BETWEEN_RAS))
}
