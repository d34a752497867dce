//! `[filter.NAME]`, and what ports and tunnels ask of their packets: `filter_in`, `filter_out`, `urpf`, `mss`, `limit_*`.

use super::parse::Places;
use super::plan::Plan;
use super::problem::Problems;
use super::reader::{Section, Value, whole};
use crate::control::parse_limit;
use router_core::filter::{FilterSpec, GuardSpec, LimitKind, LimitSpec, MAX_RULES, MssClamp, Rule, Urpf, valid_name};
use router_core::port::PortKind;
use std::ops::Range;
use toml::de::DeValue;

const EXAMPLE: &str = "[\"allow tcp dport 22\", \"deny\"]";

/// Reads all filters.
pub(super) fn filters(value: &Value<'_>, plan: &mut Plan, problems: &mut Problems<'_>) {
    let Some(outer) = Section::of("filter", value, problems) else { return };
    for (name, span, value) in outer.entries() {
        if !valid_name(name) {
            let remedy =
                "a name has 1 to 31 letters, digits, \".\", \"_\" and \"-\", and is not none, allow, deny or reject";
            problems.add(span, format!("\"{name}\" cannot be a filter's name"), remedy);
            continue;
        }
        let Some(mut s) = Section::of(&format!("filter.{name}"), value, problems) else { continue };
        let lines = s.texts("rules", EXAMPLE, problems);
        if s.value("rules").is_none() {
            problems.add(span.clone(), format!("[filter.{name}] has no rules"), format!("write rules = {EXAMPLE}"));
        }
        let what = format!("[filter.{name}]");
        s.finish(problems);
        plan.filters.insert(name.to_owned(), rules(&what, lines, &span, problems));
    }
}

fn rules(
    what: &str,
    lines: Vec<(String, Range<usize>)>,
    whole: &Range<usize>,
    problems: &mut Problems<'_>,
) -> FilterSpec {
    let mut spec = FilterSpec::default();
    let count = lines.len();
    for (text, span) in lines {
        match text.parse::<Rule>() {
            Ok(rule) => {
                if let Some(last) = spec.rules.last().filter(|r| r.is_everything()) {
                    let message =
                        format!("{what}: nothing reaches this rule: \"{last}\" before it matches every packet");
                    problems.add(span, message, "move it up, or leave it out");
                }
                spec.rules.push(rule);
            }
            Err(e) => problems.add(span, format!("{what}: {e}"), "docs/filter.md has all words"),
        }
    }
    let denies_all = spec.rules.iter().any(Rule::is_everything) || spec.allows_anything();
    if count == spec.rules.len() && !denies_all && count > 0 {
        let message = format!("{what} lets nothing through: what no rule allows is denied");
        problems.add(whole.clone(), message, "end with \"allow\" to let the rest pass, or with \"deny\" to mean it");
    }
    if count > MAX_RULES {
        problems.add(
            whole.clone(),
            format!("{what} has {count} rules; {MAX_RULES} are possible"),
            "join some, or split it",
        );
    }
    spec
}

/// Reads what the section of a port or tunnel says.
pub(super) fn guard(
    name: &str,
    kind: PortKind,
    span: &Range<usize>,
    s: &mut Section<'_, '_>,
    (plan, places): (&mut Plan, &mut Places),
    problems: &mut Problems<'_>,
) {
    let mut g = GuardSpec {
        filter_in: one_filter(name, "filter_in", s, (plan, places), problems),
        filter_out: one_filter(name, "filter_out", s, (plan, places), problems),
        ..GuardSpec::default()
    };
    let urpf = s.parsed("urpf", "a mode", "\"strict\"", problems, |t| match t {
        "off" | "none" => Ok(None),
        _ => t.parse::<Urpf>().map(Some),
    });
    g.urpf = urpf.and_then(|(u, _)| u);
    g.mss = mss(s, problems);
    for (kind, key) in
        [(LimitKind::Neighbor, "limit_neighbor"), (LimitKind::Icmp, "limit_icmp"), (LimitKind::Other, "limit_other")]
    {
        if let Some((limit, _)) = s.parsed(key, "a limit", "\"1000/200\"", problems, parse_limit) {
            *g.limits.get_or_insert_with(LimitSpec::default).of_mut(kind) = limit;
        }
    }
    if kind == PortKind::Loopback && (g.filter_out.is_some() || g.urpf.is_some() || g.mss.is_some()) {
        let message = format!("[port.{name}]: the loopback has no filter_out, urpf or mss");
        problems.add(span.clone(), message, "its filter_in is for what is delivered to the router itself");
    }
    if kind.over_host() && g.urpf.is_some() {
        let message = format!("[port.{name}]: sources are checked where packets come in from a link or tunnel");
        problems.add(span.clone(), message, "write urpf in the section of the tunnel");
    }
    if !g.is_empty() {
        plan.guards.insert(name.to_owned(), g);
    }
}

/// A filter by name, or lines of its own: they make a filter named PORT.in or PORT.out.
fn one_filter(
    port: &str,
    key: &'static str,
    s: &mut Section<'_, '_>,
    (plan, places): (&mut Plan, &mut Places),
    problems: &mut Problems<'_>,
) -> Option<String> {
    let value = s.value(key)?;
    if let DeValue::String(name) = value.get_ref() {
        if !valid_name(name) {
            let message = format!("{key} in [{}]: \"{name}\" cannot be a filter's name", s.name);
            problems.add(value.span(), message, format!("name a filter, or write {key} = {EXAMPLE}"));
            return None;
        }
        places.filters.push((name.to_string(), value.span()));
        return Some(name.to_string());
    }
    let lines = s.texts(key, EXAMPLE, problems);
    let name = format!("{port}.{}", key.trim_start_matches("filter_"));
    if plan.filters.contains_key(&name) {
        let message = format!("[filter.{name}] is the name of the lines of {key} in [{}]", s.name);
        problems.add(value.span(), message, "rename that filter");
    }
    let spec = rules(&format!("{key} in [{}]", s.name), lines, &value.span(), problems);
    plan.filters.insert(name.clone(), spec);
    Some(name)
}

fn mss(s: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> Option<MssClamp> {
    let value = s.value("mss")?;
    let text = match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        other => whole(other).map(|n| n.to_string()).unwrap_or_default(),
    };
    text.parse()
        .map_err(|why| problems.add(value.span(), format!("mss in [{}]: {why}", s.name), "write mss = \"to-pmtu\""))
        .ok()
}

/// Every filter that is named must be there.
pub(super) fn check(plan: &Plan, places: &Places, problems: &mut Problems<'_>) {
    for (name, span) in places.filters.iter().filter(|(n, _)| !plan.filters.contains_key(n)) {
        let remedy = match super::nearest(name, plan.filters.keys().map(String::as_str)) {
            Some(meant) => format!("did you mean \"{meant}\"?"),
            None => format!("write [filter.{name}] with its rules"),
        };
        problems.add(span.clone(), format!("no filter \"{name}\""), remedy);
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Change, diff, read};

    const GOOD: &str = "[filter.wan]\nrules = [\"allow tcp dport 22\", \"deny\"]\n[port.p]\nkind = \"packet\"\nfilter_in = \"wan\"\n\
        filter_out = [\"deny udp dport 53\", \"allow\"]\nurpf = \"strict allow-default\"\nmss = 1300\nlimit_neighbor = \"10/5\"\n";

    #[test]
    fn filters_come_before_ports_and_go_after_them() {
        let plan = read(GOOD).unwrap();
        assert_eq!(plan.filters.keys().collect::<Vec<_>>(), ["p.out", "wan"]);
        let guard = &plan.guards["p"];
        assert_eq!((guard.filter_in.as_deref(), guard.filter_out.as_deref()), (Some("wan"), Some("p.out")));
        let kinds = |steps: Vec<crate::config::Step>| -> String {
            let letter = |c: &Change| match c {
                Change::FilterSet(..) => 'f',
                Change::GuardSet(..) => 'g',
                Change::PortAdd(_) => 'p',
                Change::PortRemove(_) => 'r',
                Change::FilterRemove(_) => 'x',
                _ => '?',
            };
            steps.iter().map(|s| letter(&s.change)).collect()
        };
        let none = Default::default();
        assert_eq!(kinds(diff(&none, &plan)), "ffgp");
        assert_eq!(kinds(diff(&plan, &none)), "grxx");
        assert_eq!(kinds(diff(&plan, &plan)), "");
        let other = read(&GOOD.replace("dport 22", "dport 23")).unwrap();
        assert_eq!(kinds(diff(&plan, &other)), "f");
    }

    #[test]
    fn mistakes_are_told_with_their_remedy() {
        let rows = [
            ("dport 22", "dport 2 2", "no word of a rule"),
            ("\"wan\"", "\"wann\"", "no filter \"wann\""),
            ("\"allow tcp dport 22\", \"deny\"", "\"deny tcp dport 22\"", "lets nothing through"),
            ("\"allow tcp dport 22\", \"deny\"", "\"deny\", \"allow tcp dport 22\"", "nothing reaches this rule"),
            ("strict", "strikt", "begins with neither"),
            ("1300", "13", "mss in"),
            ("10/5", "lots", "limit_neighbor in"),
            ("rules", "rule", "has no rules"),
            ("kind = \"packet\"", "kind = \"loopback\"", "the loopback has no filter_out"),
        ];
        for (from, to, want) in rows {
            let problems = read(&GOOD.replacen(from, to, 1)).expect_err(want);
            assert!(problems.iter().any(|p| p.to_string().contains(want)), "{want}: {problems:?}");
        }
    }
}
