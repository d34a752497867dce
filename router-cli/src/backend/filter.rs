//! Filters of the running router.

use crate::control::{
    Answer, FilterDelete, FilterInfo, FilterRules, FilterSelect, FilterUse, FiltersInfo, GuardChange, GuardInfo,
    Matched, RuleInfo, WireError,
};
use router_core::filter::FilterSpec;
use router_core::router::FilterError;
use router_io::runtime::Control;

type Result<T = Answer> = std::result::Result<T, WireError>;

pub(super) fn error(e: FilterError) -> WireError {
    match &e {
        FilterError::Unknown(_) => {
            WireError::new("not_found", format!("Error: {e}."), "\"duet filter\" lists the filters")
        }
        FilterError::Exists(_) => WireError::exists(e.to_string()),
        FilterError::InUse { port, .. } => {
            let hint = format!("say \"duet filter set dev {port} in none\" (or out) first");
            WireError::new("busy", format!("Error: {e}."), hint)
        }
        FilterError::NoRule { name, .. } => WireError::new(
            "not_found",
            format!("Error: {e}."),
            format!("\"duet filter show {name}\" numbers its rules"),
        ),
        _ => WireError::new("invalid", format!("Error: {e}."), ""),
    }
}

pub(super) fn show(c: &Control, select: &FilterSelect) -> Result {
    let guard_of = select.dev.as_ref().map(|dev| c.router().guard(dev));
    if let Some(dev) = select.dev.as_ref().filter(|d| c.router().ports().by_name(d).is_none()) {
        return Err(WireError::no_device(dev));
    }
    let wanted = |name: &str| {
        select.name.as_ref().is_none_or(|n| n == name)
            && guard_of.as_ref().is_none_or(|g| g.filters().any(|f| f == name))
    };
    let matched = |(packets, bytes)| Matched { packets, bytes };
    let filters: Vec<FilterInfo> = c
        .router()
        .filters()
        .filter(|f| wanted(f.table.name()))
        .map(|f| {
            let (rest, hidden) = f.table.rest();
            let direction = |out: bool| (if out { "out" } else { "in" }).to_owned();
            FilterInfo {
                name: f.table.name().to_owned(),
                used: f.used.into_iter().map(|(dev, out)| FilterUse { dev, direction: direction(out) }).collect(),
                rules: f.table.rules().map(|(r, n)| RuleInfo { rule: r.clone(), matched: matched(n) }).collect(),
                rest: matched(rest),
                hidden: matched(hidden),
            }
        })
        .collect();
    if let Some(name) = select.name.as_ref().filter(|_| filters.is_empty()) {
        return Err(error(FilterError::Unknown(name.clone())));
    }
    let ports = c.router().guards().filter(|(dev, g)| match (&select.dev, &select.name) {
        (Some(d), _) => d == dev,
        (None, Some(n)) => g.filters().any(|f| f == n),
        (None, None) => true,
    });
    let ports = ports.map(|(dev, g)| GuardInfo { dev: dev.to_owned(), guard: g.clone() }).collect();
    Ok(Answer::Filters(FiltersInfo { filters, ports }))
}

pub(super) fn replace(c: &mut Control, f: FilterRules) -> Result {
    c.router_mut().set_filter(&f.name, FilterSpec { rules: f.rules }).map_err(error)?;
    Ok(Answer::Done)
}

/// Adds rules to a filter, which is made if it is not there.
pub(super) fn add(c: &mut Control, f: FilterRules) -> Result {
    let mut spec = c.router().filter(&f.name).cloned().unwrap_or_default();
    let at = match f.at {
        None => spec.rules.len(),
        Some(n) if (1..=spec.rules.len() + 1).contains(&(n as usize)) => n as usize - 1,
        Some(n) => return Err(error(FilterError::NoRule { name: f.name, rule: n.to_string() })),
    };
    spec.rules.splice(at..at, f.rules);
    c.router_mut().set_filter(&f.name, spec).map_err(error)?;
    Ok(Answer::Done)
}

/// Removes one rule, or a whole filter.
pub(super) fn delete(c: &mut Control, d: FilterDelete) -> Result {
    let mut spec = c.router().filter(&d.name).map_err(error)?.clone();
    let at = match (d.number, &d.rule) {
        (None, None) => {
            c.router_mut().del_filter(&d.name).map_err(error)?;
            return Ok(Answer::Done);
        }
        (Some(n), _) => (n as usize).checked_sub(1).filter(|i| *i < spec.rules.len()),
        (None, Some(rule)) => spec.rules.iter().position(|r| r == rule),
    };
    let asked = || d.number.map(|n| n.to_string()).or(d.rule.as_ref().map(ToString::to_string)).unwrap_or_default();
    let Some(at) = at else { return Err(error(FilterError::NoRule { rule: asked(), name: d.name })) };
    spec.rules.remove(at);
    c.router_mut().set_filter(&d.name, spec).map_err(error)?;
    Ok(Answer::Done)
}

pub(super) fn set(c: &mut Control, change: &GuardChange) -> Result {
    if c.router().ports().by_name(&change.dev).is_none() {
        return Err(WireError::no_device(&change.dev));
    }
    let guard = change.apply(c.router().guard(&change.dev)).map_err(|word| {
        WireError::new(
            "invalid",
            format!("Error: \"{word}\" cannot be cleared."),
            "filter_in, filter_out, urpf, mss or limits",
        )
    })?;
    c.router_mut().set_guard(&change.dev, guard).map_err(error)?;
    Ok(Answer::Done)
}
