//! What the operator wants done with packets because of the IPv4 options in them (RFC 7126 4): drop the packet, pass the
//! option on unread, or do as it asks.

use super::ipv4_options::{LSRR, RECORD_ROUTE, SSRR, TIMESTAMP, types};
use crate::drop_reason::DropReason;

/// What is done because of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionAction {
    /// The packet is dropped.
    Drop,
    /// The packet is forwarded as if the option were not there.
    Ignore,
    /// The router does what the option asks for. Only source routes, record route and timestamp ask a router for something.
    Process,
}

/// Named options that a router meets, and their types (the registry of IP option numbers); what has no name here is
/// "unknown".
pub const NAMES: &[(&str, &[u8])] = &[
    ("lsrr", &[LSRR]),
    ("ssrr", &[SSRR]),
    ("record_route", &[RECORD_ROUTE]),
    ("timestamp", &[TIMESTAMP]),
    ("router_alert", &[148]),
    ("security", &[130]),
    ("extended_security", &[133]),
    ("cipso", &[134]),
    ("stream_id", &[136]),
    ("probe_mtu", &[11]),
    ("reply_mtu", &[12]),
    ("traceroute", &[82]),
    ("visa", &[142]),
    ("extended_ip", &[145]),
    ("address_extension", &[147]),
    ("multi_destination", &[149]),
    ("dynamic_packet_state", &[151]),
    ("upstream_multicast", &[152]),
    ("quick_start", &[25]),
    ("experiment", &[30, 94, 158, 222]),
];

/// A set of option types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Types([u64; 4]);

impl Types {
    const fn with(mut self, kind: u8) -> Types {
        self.0[kind as usize / 64] |= 1 << (kind % 64);
        self
    }

    fn set(&mut self, kind: u8, there: bool) {
        let bit = 1 << (kind % 64);
        let word = &mut self.0[usize::from(kind) / 64];
        *word = if there { *word | bit } else { *word & !bit };
    }

    fn has(&self, kind: u8) -> bool {
        self.0[usize::from(kind) / 64] >> (kind % 64) & 1 == 1
    }
}

/// What is done, by type of option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OptionPolicy {
    drop: Types,
    process: Types,
}

impl Default for OptionPolicy {
    /// Source routes are refused (RFC 7126 4.3 and 4.4); record route and timestamp are obeyed (RFC 1812 5.3.13.5 and
    /// 5.3.13.6); all else passes unread (RFC 1812 5.3.13.1).
    fn default() -> Self {
        OptionPolicy {
            drop: Types([0; 4]).with(LSRR).with(SSRR),
            process: Types([0; 4]).with(RECORD_ROUTE).with(TIMESTAMP),
        }
    }
}

impl OptionPolicy {
    /// What is done because of an option of this type.
    pub fn action(&self, kind: u8) -> OptionAction {
        match () {
            () if self.drop.has(kind) => OptionAction::Drop,
            () if self.process.has(kind) => OptionAction::Process,
            () => OptionAction::Ignore,
        }
    }

    /// Sets what is done. False, and nothing is changed, where the router knows nothing to do for an option, and for padding,
    /// which every packet with options may have (RFC 7126 4.1 and 4.2).
    pub fn set(&mut self, kind: u8, action: OptionAction) -> bool {
        let known = matches!(kind, LSRR | SSRR | RECORD_ROUTE | TIMESTAMP);
        if kind <= 1 || (action == OptionAction::Process && !known) {
            return false;
        }
        self.drop.set(kind, action == OptionAction::Drop);
        self.process.set(kind, action == OptionAction::Process);
        true
    }

    /// Whether the router does as source routes say.
    pub fn follows_routes(&self) -> bool {
        self.process.has(LSRR) || self.process.has(SSRR)
    }

    /// Whether a packet with this checked header may pass at all.
    pub fn judge(&self, header: &[u8]) -> Result<(), DropReason> {
        match types(header).find(|kind| self.drop.has(*kind)) {
            Some(LSRR | SSRR) => Err(DropReason::Ipv4SourceRoute),
            Some(_) => Err(DropReason::Ipv4OptionDenied),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Proves rfc7126-4.1-end, rfc7126-4.2-nop.
    /// Proves rfc7126-4.13-security, rfc7126-4.9-alert-default.
    #[test]
    fn options_have_a_default_and_a_switch() {
        use OptionAction::{Drop, Ignore, Process};
        for kind in 0..=255u8 {
            let mut policy = OptionPolicy::default();
            let default = match kind {
                131 | 137 => Drop,
                7 | 68 => Process,
                _ => Ignore,
            };
            assert_eq!(policy.action(kind), default, "{kind}");
            for action in [Drop, Ignore, Process] {
                let takes = kind > 1 && (action != Process || matches!(kind, 131 | 137 | 7 | 68));
                let before = policy;
                assert_eq!(policy.set(kind, action), takes, "{kind} {action:?}");
                let want = if takes { action } else { before.action(kind) };
                assert_eq!(policy.action(kind), want, "{kind} {action:?}");
                // Nothing else has changed.
                assert!(
                    (0..=255).filter(|k| *k != kind).all(|k| policy.action(k) == OptionPolicy::default().action(k))
                );
            }
        }
    }

    #[test]
    fn names_are_of_different_options() {
        let mut all: Vec<u8> = NAMES.iter().flat_map(|(_, kinds)| kinds.iter().copied()).collect();
        let many = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), many);
    }
}
