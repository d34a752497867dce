//! What a router says about itself on one port: the conceptual variables of RFC 4861 6.2.1, with their defaults.

use crate::time::Duration;
use ipnet::Ipv6Net;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

/// Router preference (RFC 4191 2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preference {
    /// Before others.
    High,
    /// As all others.
    #[default]
    Medium,
    /// Only if there is no other.
    Low,
}

/// What is said of one prefix beside what is said of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixSettings {
    /// AdvValidLifetime; None: that of all.
    pub valid: Option<Duration>,
    /// AdvPreferredLifetime; None: that of all, but not longer than `valid`.
    pub preferred: Option<Duration>,
    /// AdvOnLinkFlag.
    pub on_link: bool,
    /// AdvAutonomousFlag; None: where hosts can make addresses of it and DHCPv6 does not give them.
    pub autonomous: Option<bool>,
}

impl Default for PrefixSettings {
    fn default() -> Self {
        PrefixSettings { valid: None, preferred: None, on_link: true, autonomous: None }
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct AdvertSettings {
    /// MaxRtrAdvInterval: 4 to 1800 seconds.
    pub max_interval: Duration,
    /// MinRtrAdvInterval: 3 seconds to three quarters of `max_interval`. None: a third of it, at least 3 seconds.
    pub min_interval: Option<Duration>,
    /// AdvDefaultLifetime: 0 (not a default router), or from `max_interval` to 9000 seconds. None: three times
    /// `max_interval`.
    pub lifetime: Option<Duration>,
    /// Preference among default routers.
    pub preference: Preference,
    /// AdvManagedFlag: addresses by DHCPv6.
    pub managed: bool,
    /// AdvOtherConfigFlag: other things by DHCPv6.
    pub other: bool,
    /// AdvCurHopLimit; 0 says nothing.
    pub hop_limit: u8,
    /// AdvReachableTime, at most an hour; zero says nothing.
    pub reachable_time: Duration,
    /// AdvRetransTimer; zero says nothing.
    pub retrans_timer: Duration,
    /// AdvLinkMTU; None: the port's, if it is not more than 1500 or not Ethernet's usual.
    pub mtu: Option<u32>,
    /// Prefixes on the link from which hosts make addresses; None: the global /64 prefixes of the port's own addresses.
    pub prefixes: Option<Vec<Ipv6Net>>,
    /// What is different for single ones of them.
    pub by_prefix: BTreeMap<Ipv6Net, PrefixSettings>,
    /// AdvValidLifetime of all prefixes.
    pub valid: Duration,
    /// AdvPreferredLifetime of all prefixes, not longer than `valid`.
    pub preferred: Duration,
    /// Recursive name servers (RFC 8106 5.1).
    pub dns: Vec<Ipv6Addr>,
    /// Search domains (RFC 8106 5.2).
    pub search: Vec<String>,
    /// Prefix of the network's NAT64 (RFC 8781): of length 96, 64, 56, 48, 40 or 32.
    pub pref64: Option<Ipv6Net>,
}

impl Default for AdvertSettings {
    fn default() -> Self {
        AdvertSettings {
            max_interval: Duration::from_secs(600),
            min_interval: None,
            lifetime: None,
            preference: Preference::Medium,
            managed: false,
            other: false,
            hop_limit: 64,
            reachable_time: Duration::ZERO,
            retrans_timer: Duration::ZERO,
            mtu: None,
            prefixes: None,
            by_prefix: BTreeMap::new(),
            valid: Duration::from_secs(2_592_000),
            preferred: Duration::from_secs(604_800),
            dns: Vec::new(),
            search: Vec::new(),
            pref64: None,
        }
    }
}

/// Why settings are refused. The text names the value and its bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdvertError {
    /// Out of its bounds.
    #[error("an interval of {0:?} is out of range: 4 s to 1800 s (RFC 4861 6.2.1)")]
    Interval(Duration),
    /// Out of its bounds.
    #[error("a shortest interval of {0:?} is out of range: 3 s to {1:?} (RFC 4861 6.2.1)")]
    MinInterval(Duration, Duration),
    /// Out of its bounds.
    #[error("a reachable time of {0:?} is out of range: at most an hour (RFC 4861 6.2.1)")]
    ReachableTime(Duration),
    /// More milliseconds than its field holds.
    #[error("a retransmission timer of {0:?} is more than the field holds (RFC 4861 4.2)")]
    RetransTimer(Duration),
    /// Out of its bounds.
    #[error("a lifetime of {0:?} is out of range: 0, or {1:?} to 9000 s (RFC 4861 6.2.1)")]
    Lifetime(Duration, Duration),
    /// Longer than the valid one.
    #[error("the preferred lifetime is longer than the valid one (RFC 4861 4.6.2)")]
    Preferred,
    /// Settings for what is not advertised.
    #[error("{0} is not among the prefixes that are advertised")]
    Stranger(Ipv6Net),
    /// Hosts make addresses from prefixes of 64 bits alone.
    #[error("hosts cannot make addresses from {0}: its length is not 64 (RFC 4862 5.5.3)")]
    Autonomous(Ipv6Net),
    /// No prefix of a link.
    #[error("{0} cannot be a prefix of a link: multicast, link-local, or nothing")]
    Prefix(Ipv6Net),
    /// RFC 8781 4 knows only these lengths.
    #[error("{0} cannot be a NAT64 prefix: its length is not 32, 40, 48, 56, 64 or 96 (RFC 6052 2.2)")]
    Pref64(Ipv6Net),
    /// Not a domain name.
    #[error("\"{0}\" is not a domain name")]
    Domain(String),
    /// More than one packet of 1280 bytes holds.
    #[error("too much for one advertisement of 1280 bytes")]
    TooLong,
}

impl AdvertSettings {
    /// Valid and preferred lifetime of a prefix.
    pub fn lifetimes(&self, p: &Ipv6Net) -> (Duration, Duration) {
        let of = self.by_prefix.get(p).copied().unwrap_or_default();
        let valid = of.valid.unwrap_or(self.valid);
        (valid, of.preferred.unwrap_or(self.preferred.min(valid)))
    }

    /// MinRtrAdvInterval: as set, or a third of the longest, at least three seconds.
    pub fn least_interval(&self) -> Duration {
        self.min_interval.unwrap_or((self.max_interval / 3).max(Duration::from_secs(3))).min(self.max_interval)
    }

    /// Router lifetime in seconds.
    pub fn lifetime_secs(&self) -> u16 {
        let lifetime = self.lifetime.unwrap_or(self.max_interval * 3);
        u16::try_from(lifetime.as_secs()).unwrap_or(u16::MAX).min(9000)
    }

    /// Lifetime of what a host learns beside the router: three intervals (RFC 8106 5.1, RFC 8781 4.1).
    pub(super) fn option_lifetime(&self) -> u32 {
        (self.max_interval.as_secs() * 3) as u32
    }

    /// Checks everything that a configuration can get wrong.
    pub fn check(&self) -> Result<(), AdvertError> {
        let secs = Duration::from_secs;
        if !(secs(4)..=secs(1800)).contains(&self.max_interval) {
            return Err(AdvertError::Interval(self.max_interval));
        }
        let most = self.max_interval * 3 / 4;
        if let Some(least) = self.min_interval.filter(|i| !(secs(3)..=most).contains(i)) {
            return Err(AdvertError::MinInterval(least, most));
        }
        if self.reachable_time > secs(3600) {
            return Err(AdvertError::ReachableTime(self.reachable_time));
        }
        if u32::try_from(self.retrans_timer.as_millis()).is_err() {
            return Err(AdvertError::RetransTimer(self.retrans_timer));
        }
        if let Some(l) = self.lifetime
            && !l.is_zero()
            && !(self.max_interval..=secs(9000)).contains(&l)
        {
            return Err(AdvertError::Lifetime(l, self.max_interval));
        }
        if self.preferred > self.valid {
            return Err(AdvertError::Preferred);
        }
        for (p, of) in &self.by_prefix {
            if self.prefixes.as_ref().is_some_and(|list| !list.contains(p)) {
                return Err(AdvertError::Stranger(*p));
            }
            let (valid, preferred) = self.lifetimes(p);
            if preferred > valid {
                return Err(AdvertError::Preferred);
            }
            if of.autonomous == Some(true) && p.prefix_len() != 64 {
                return Err(AdvertError::Autonomous(*p));
            }
        }
        for p in self.prefixes.iter().flatten() {
            let a = p.addr();
            if a.is_multicast() || a.is_unicast_link_local() || p.prefix_len() == 0 {
                return Err(AdvertError::Prefix(*p));
            }
        }
        if let Some(p) = self.pref64.filter(|p| super::message::pref64_code(p.prefix_len()).is_none()) {
            return Err(AdvertError::Pref64(p));
        }
        for name in &self.search {
            let label = |l: &str| !l.is_empty() && l.len() < 64 && l.bytes().all(|b| b.is_ascii_graphic());
            if name.len() > 253 || !name.trim_end_matches('.').split('.').all(label) {
                return Err(AdvertError::Domain(name.clone()));
            }
        }
        super::message::fits(self).then_some(()).ok_or(AdvertError::TooLong)
    }
}
