//! Filters and guards of ports, in the words of the control protocol.

use router_core::filter::{GuardSpec, Limit, LimitKind, LimitSpec, MssClamp, Rule, Urpf};
use serde::{Deserialize, Serialize};

/// Rules for a filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterRules {
    /// The filter.
    pub name: String,
    /// `filter.add`: in front of this rule, from 1; None: behind the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<u32>,
    /// The rules, in order.
    pub rules: Vec<Rule>,
}

/// What of a filter to remove.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterDelete {
    /// The filter.
    pub name: String,
    /// Only this rule, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
    /// Only the first rule that says this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Rule>,
}

/// Which filters: one or all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilterSelect {
    /// This one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Those of this port, and its guard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
}

/// What of a port's guard to change: what is not said stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardChange {
    /// The port or tunnel.
    pub dev: String,
    /// What to set.
    #[serde(skip_serializing_if = "GuardSpec::is_empty")]
    pub set: GuardSpec,
    /// What to clear: `filter_in`, `filter_out`, `urpf`, `mss`, `limits`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clear: Vec<String>,
}

impl GuardChange {
    /// The guard that `old` becomes. The error is a word of `clear` that means nothing.
    pub fn apply(&self, mut old: GuardSpec) -> Result<GuardSpec, String> {
        for word in &self.clear {
            match word.as_str() {
                "filter_in" => old.filter_in = None,
                "filter_out" => old.filter_out = None,
                "urpf" => old.urpf = None,
                "mss" => old.mss = None,
                "limits" => old.limits = None,
                other => return Err(other.to_owned()),
            }
        }
        let GuardSpec { filter_in, filter_out, urpf, limits, mss } = self.set.clone();
        Ok(GuardSpec {
            filter_in: filter_in.or(old.filter_in),
            filter_out: filter_out.or(old.filter_out),
            urpf: urpf.or(old.urpf),
            limits: limits.or(old.limits),
            mss: mss.or(old.mss),
        })
    }
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matched {
    /// Packets.
    pub packets: u64,
    /// Bytes of IP packets.
    pub bytes: u64,
}

/// A rule with what it has matched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleInfo {
    /// The rule.
    pub rule: Rule,
    /// What it has matched.
    #[serde(flatten)]
    pub matched: Matched,
}

/// Where a filter is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterUse {
    /// The port or tunnel; `lo`: what is delivered to the router.
    pub dev: String,
    /// `in` or `out`.
    pub direction: String,
}

/// A filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilterInfo {
    /// Its name.
    pub name: String,
    /// Where it is in force.
    #[serde(default)]
    pub used: Vec<FilterUse>,
    /// Its rules.
    #[serde(default)]
    pub rules: Vec<RuleInfo>,
    /// What no rule matched, which is denied.
    #[serde(default)]
    pub rest: Matched,
    /// What was denied because its transport header is cut or hidden by fragments.
    #[serde(default)]
    pub hidden: Matched,
}

/// A port's guard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GuardInfo {
    /// The port or tunnel.
    pub dev: String,
    /// What it asks for.
    pub guard: GuardSpec,
}

/// The answer of `filter.show`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FiltersInfo {
    /// Filters, by name.
    #[serde(default)]
    pub filters: Vec<FilterInfo>,
    /// Guards of ports that say something.
    #[serde(default)]
    pub ports: Vec<GuardInfo>,
}

/// A guard in the words of `filter set`, but for the port.
pub fn guard_words(g: &GuardSpec) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    let names = [("in", &g.filter_in), ("out", &g.filter_out)];
    out.extend(names.into_iter().filter_map(|(word, name)| Some((word, name.clone()?))));
    out.extend(g.urpf.map(|u: Urpf| ("urpf", u.to_string())));
    out.extend(g.mss.map(|m: MssClamp| ("mss", m.to_string())));
    let limits = g.limits.into_iter().flat_map(|l: LimitSpec| {
        LimitKind::ALL.into_iter().filter(move |(k, _)| l.of(*k) != LimitSpec::DEFAULT.of(*k)).map(move |(k, name)| {
            let Limit { rate, burst } = l.of(k);
            ("limit", if rate == 0 { format!("{name} none") } else { format!("{name} {rate}/{burst}") })
        })
    });
    out.extend(limits);
    out
}

/// `RATE` or `RATE/BURST`, in packets per second; `none` for no limit. Without a burst: a fifth of a second's worth.
pub fn parse_limit(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit::NONE);
    }
    let wrong = || format!("\"{text}\" is neither RATE, RATE/BURST nor none, in packets per second");
    let number = |t: &str| t.parse::<u32>().ok().filter(|n| *n > 0).ok_or_else(wrong);
    match text.split_once('/') {
        Some((rate, burst)) => Ok(Limit { rate: number(rate)?, burst: number(burst)? }),
        None => number(text).map(|rate| Limit { rate, burst: (rate / 5).max(1) }),
    }
}
