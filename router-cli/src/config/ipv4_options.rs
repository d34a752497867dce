//! `[ipv4_options]`: what is done with packets because of the IPv4 options in them (RFC 7126).

use super::problem::{Problems, nearest};
use super::reader::{Section, Value};
use router_core::headers::option_policy::NAMES;
use router_core::settings::{OptionAction, OptionPolicy};
use std::ops::Range;

const ACTIONS: &[(&str, OptionAction)] =
    &[("drop", OptionAction::Drop), ("ignore", OptionAction::Ignore), ("process", OptionAction::Process)];

/// Reads the section. `unknown` means all types without a name, and counts for less than a number.
pub(super) fn options(value: &Value<'_>, policy: &mut OptionPolicy, problems: &mut Problems<'_>) {
    let Some(s) = Section::of("ipv4_options", value, problems) else { return };
    let mut entries: Vec<_> = s.entries().collect();
    entries.sort_by_key(|(name, ..)| *name != "unknown");
    for (name, span, value) in entries {
        let Some(kinds) = kinds(name, &span, problems) else { continue };
        let action = value.get_ref().as_str().and_then(|t| ACTIONS.iter().find(|(n, _)| *n == t));
        let Some((_, action)) = action else {
            let message = format!("{name} in [ipv4_options] is neither \"drop\", \"ignore\" nor \"process\"");
            problems.add(value.span(), message, format!("write {name} = \"drop\""));
            continue;
        };
        if !kinds.iter().all(|kind| policy.set(*kind, *action)) {
            let message = match *action {
                OptionAction::Process => format!("{name} in [ipv4_options]: the router knows nothing to do for it"),
                _ => format!("{name} in [ipv4_options] is padding, which every packet with options may have"),
            };
            problems.add(value.span(), message, "\"process\" is for lsrr, ssrr, record_route and timestamp");
        }
    }
}

/// The types that a key means.
fn kinds(name: &str, span: &Range<usize>, problems: &mut Problems<'_>) -> Option<Vec<u8>> {
    if let Some((_, kinds)) = NAMES.iter().find(|(n, _)| *n == name) {
        return Some(kinds.to_vec());
    }
    if name == "unknown" {
        let named = |kind: &u8| NAMES.iter().any(|(_, kinds)| kinds.contains(kind));
        return Some((2..=255).filter(|kind| !named(kind)).collect());
    }
    if let Ok(kind) = name.parse() {
        return Some(vec![kind]);
    }
    let names = NAMES.iter().map(|(n, _)| *n).chain(["unknown"]);
    let remedy = match nearest(name, names.clone()) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("known are {}, and numbers from 2 to 255", names.collect::<Vec<_>>().join(", ")),
    };
    problems.add(span.clone(), format!("unknown option \"{name}\" in [ipv4_options]"), remedy);
    None
}
