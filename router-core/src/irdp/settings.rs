//! What a router says about itself on one port: the configuration variables of RFC 1256 4.1, with their defaults.

use crate::port::PortInfo;
use crate::time::Duration;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

/// The preference of an address that is no default router, for those only who were sent to it (RFC 1256 4.1).
pub const NEVER: i32 = i32::MIN;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IrdpSettings {
    /// AdvertisementAddress is 255.255.255.255 instead of 224.0.0.1.
    pub broadcast: bool,
    /// MaxAdvertisementInterval: 4 to 1800 seconds.
    pub max_interval: Duration,
    /// MinAdvertisementInterval: 3 seconds to `max_interval`. None: three quarters of that.
    pub min_interval: Option<Duration>,
    /// AdvertisementLifetime: `max_interval` to 9000 seconds. None: three times `max_interval`.
    pub lifetime: Option<Duration>,
    /// PreferenceLevel of all addresses without one of their own; [`NEVER`]: no default router.
    pub preference: i32,
    /// What differs for single addresses: their PreferenceLevel, or None for those that are not advertised at all.
    pub addresses: BTreeMap<Ipv4Addr, Option<i32>>,
}

impl Default for IrdpSettings {
    fn default() -> Self {
        IrdpSettings {
            broadcast: false,
            max_interval: Duration::from_secs(600),
            min_interval: None,
            lifetime: None,
            preference: 0,
            addresses: BTreeMap::new(),
        }
    }
}

/// Why settings are refused. The text names the value and its bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IrdpError {
    /// Out of its bounds.
    #[error("an interval of {0:?} is out of range: 4 s to 1800 s (RFC 1256 4.1)")]
    Interval(Duration),
    /// Out of its bounds.
    #[error("a shortest interval of {0:?} is out of range: 3 s to {1:?} (RFC 1256 4.1)")]
    MinInterval(Duration, Duration),
    /// Out of its bounds.
    #[error("a lifetime of {0:?} is out of range: {1:?} to 9000 s (RFC 1256 4.1)")]
    Lifetime(Duration, Duration),
}

impl IrdpSettings {
    /// Shortest and longest time between two advertisements that nobody asked for.
    pub fn interval(&self) -> (Duration, Duration) {
        (self.min_interval.unwrap_or(self.max_interval * 3 / 4), self.max_interval)
    }

    /// Lifetime in seconds.
    pub fn lifetime_secs(&self) -> u16 {
        let lifetime = self.lifetime.unwrap_or(self.max_interval * 3);
        u16::try_from(lifetime.as_secs()).unwrap_or(u16::MAX).min(9000)
    }

    /// The addresses of a port that are advertised, with their preferences.
    pub fn addrs(&self, port: &PortInfo) -> Vec<(Ipv4Addr, i32)> {
        let mut found: Vec<(Ipv4Addr, i32)> = Vec::new();
        for net in &port.addrs {
            let IpAddr::V4(a) = net.addr() else { continue };
            let preference = self.addresses.get(&a).copied().unwrap_or(Some(self.preference));
            // A host can be the neighbour of no address that has its link for itself.
            if let Some(preference) = preference.filter(|_| net.prefix_len() < 32)
                && !found.iter().any(|(b, _)| *b == a)
            {
                found.push((a, preference));
            }
        }
        found
    }

    /// Checks everything that a configuration can get wrong.
    pub fn check(&self) -> Result<(), IrdpError> {
        let secs = Duration::from_secs;
        if !(secs(4)..=secs(1800)).contains(&self.max_interval) {
            return Err(IrdpError::Interval(self.max_interval));
        }
        if let Some(least) = self.min_interval.filter(|i| !(secs(3)..=self.max_interval).contains(i)) {
            return Err(IrdpError::MinInterval(least, self.max_interval));
        }
        if let Some(l) = self.lifetime.filter(|l| !(self.max_interval..=secs(9000)).contains(l)) {
            return Err(IrdpError::Lifetime(l, self.max_interval));
        }
        Ok(())
    }
}
