//! The prefix of the network's NAT64, asked from its DNS (RFC 7050): `prefix = "auto"` of a CLAT.
//!
//! The name ipv4only.arpa has two well-known IPv4 addresses and no IPv6 one. Where a DNS64 makes one up all the same, it
//! shows the prefix. The host's own resolver is asked, before any port is opened.

use super::plan::Plan;
use router_core::translate::Prefix;
use std::io;
use std::net::{IpAddr, Ipv6Addr, ToSocketAddrs};

/// The name of RFC 7050 8.2.
const NAME: &str = "ipv4only.arpa";

/// Why no prefix was found.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// The resolver gave no answer.
    #[error("[translate.{name}]: prefix = \"auto\", but the resolver does not answer about {NAME}: {source}")]
    Resolver {
        /// The translator.
        name: String,
        /// What it said.
        source: io::Error,
    },
    /// There is no DNS64.
    #[error(
        "[translate.{name}]: prefix = \"auto\", but {NAME} has no IPv6 address here: this network has no DNS64 (RFC 7050); \
         write the prefix itself"
    )]
    None {
        /// The translator.
        name: String,
    },
}

/// Fills in the prefixes that are to be asked for.
pub(crate) fn discover(plan: &mut Plan) -> Result<(), DiscoverError> {
    discover_with(plan, || {
        let addrs = (NAME, 0).to_socket_addrs()?;
        Ok(addrs.filter_map(|a| if let IpAddr::V6(a) = a.ip() { Some(a) } else { None }).collect())
    })
}

fn discover_with(plan: &mut Plan, ask: impl Fn() -> io::Result<Vec<Ipv6Addr>>) -> Result<(), DiscoverError> {
    for name in std::mem::take(&mut plan.discover) {
        let answer = ask().map_err(|source| DiscoverError::Resolver { name: name.clone(), source })?;
        let prefix = answer.iter().find_map(|a| Prefix::of_well_known_address(*a));
        let prefix = prefix.ok_or_else(|| DiscoverError::None { name: name.clone() })?;
        if let Some(t) = plan.translators.get_mut(&name) {
            t.prefix = Some(prefix);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str =
        "[translate.clat]\nmode = \"clat\"\nprefix = \"auto\"\nmap = [\"192.0.0.2 = 2001:db8:6::464\"]\n";

    /// Proves rfc7050-3-answers.
    #[test]
    fn rfc7050_answers() {
        let plan = super::super::read(FILE).unwrap();
        let run = |answer: &[&str]| {
            let mut plan = plan.clone();
            let list: Vec<Ipv6Addr> = answer.iter().map(|a| a.parse().unwrap()).collect();
            discover_with(&mut plan, || Ok(list.clone())).map(|()| plan.translators["clat"].prefix.unwrap().to_string())
        };
        assert_eq!(run(&["2001:db8:64::192.0.0.171"]).unwrap(), "2001:db8:64::/96");
        assert_eq!(run(&["2001:db8::9", "64:ff9b::c000:aa"]).unwrap(), "64:ff9b::/96");
        assert!(matches!(run(&[]), Err(DiscoverError::None { .. })));
        let mut plan = plan.clone();
        let silent = discover_with(&mut plan, || Err(io::ErrorKind::TimedOut.into()));
        assert!(matches!(silent, Err(DiscoverError::Resolver { .. })));
    }

    #[test]
    fn only_a_clat_may_ask() {
        let problems = super::super::read(&FILE.replace("clat\"", "nat64\"")).unwrap_err();
        assert!(problems.iter().any(|p| p.message.contains("auto")), "{problems:?}");
    }
}
