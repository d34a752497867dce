//! What a port lets through: packet filters, reverse-path checks of the source (RFC 2827, RFC 3704), limits for what reaches
//! the control thread, and the clamp on TCP's segment size.
//!
//! None of it costs anything where it is not asked for: a port's slot in the snapshot says whether it has a [`Guard`], and
//! only frames of such ports, and TCP SYNs of tunnels, leave the fast path for it.
//!
//! | file | what |
//! |---|---|
//! | [`rule`] | one rule: its words, what it matches |
//! | [`table`] | an ordered list of rules with counters; fragments and hidden headers |
//! | [`urpf`] | where a source address may come from |
//! | [`limit`] | token buckets towards the control thread |
//! | [`mss`] | the segment size in SYNs |
//! | [`guard`] | all of it for one port, as configured and as the data plane sees it |

pub mod guard;
pub mod limit;
pub mod mss;
pub mod rule;
pub mod table;
pub mod urpf;

pub use guard::{Guard, GuardSpec, Guards, PortFlags};
pub use limit::{Limit, LimitKind, LimitSpec};
pub use mss::MssClamp;
pub use rule::{Action, Rule, RuleError};
pub use table::{FilterSpec, Judged, RuleCounts, RuleTable};
pub use urpf::{Urpf, UrpfMode};

/// Most rules of one filter.
pub const MAX_RULES: usize = 1024;

/// Most filters of one router.
pub const MAX_FILTERS: usize = 1024;

/// Longest name of a filter in bytes.
pub const MAX_NAME: usize = 31;

/// Whether a text can name a filter: letters, digits, `_`, `-` and `.`, and no word of a rule first.
pub fn valid_name(name: &str) -> bool {
    let clean = name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
    (1..=MAX_NAME).contains(&name.len()) && clean && !["none", "allow", "deny", "reject"].contains(&name)
}
