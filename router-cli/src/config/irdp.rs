//! `[port.NAME.irdp]`: ICMP router discovery on a port (RFC 1256).

use super::problem::Problems;
use super::reader::{Section, Value};
use router_core::irdp::NEVER;
use router_core::settings::IrdpSettings;
use std::net::Ipv4Addr;

/// Reads the table, or `true` for all defaults; None: not wanted.
pub(super) fn irdp(port: &str, value: &Value<'_>, problems: &mut Problems<'_>) -> Option<IrdpSettings> {
    let mut settings = IrdpSettings::default();
    if let Some(wanted) = value.get_ref().as_bool() {
        return wanted.then_some(settings);
    }
    let mut s = Section::of(&format!("port.{port}.irdp"), value, problems)?;
    settings.broadcast = s.boolean("broadcast", problems).unwrap_or(settings.broadcast);
    settings.max_interval = s.duration("interval", problems).unwrap_or(settings.max_interval);
    settings.min_interval = s.duration("min_interval", problems);
    settings.lifetime = s.duration("lifetime", problems);
    if let Some(value) = s.value("preference") {
        settings.preference = preference(&s.name, "preference", value, problems).unwrap_or(settings.preference);
    }
    for (text, span) in s.texts("exclude", "[\"192.0.2.9\"]", problems) {
        match text.parse::<Ipv4Addr>() {
            Ok(addr) => _ = settings.addresses.insert(addr, None),
            Err(_) => problems.add(
                span,
                format!("exclude in [{}]: \"{text}\" is not an IPv4 address", s.name),
                "write addresses of the port that are not to be told",
            ),
        }
    }
    if let Some(value) = s.value("preferences")
        && let Some(table) = Section::of(&format!("{}.preferences", s.name), value, problems)
    {
        for (key, span, value) in table.entries() {
            let Ok(addr) = key.parse::<Ipv4Addr>() else {
                let message = format!("preferences in [{}]: \"{key}\" is not an IPv4 address", s.name);
                problems.add(span, message, "write preferences = { \"192.0.2.1\" = 10 }");
                continue;
            };
            if let Some(level) = preference(&s.name, key, value, problems) {
                settings.addresses.insert(addr, Some(level));
            }
        }
    }
    if let Err(e) = settings.check() {
        problems.add(value.span(), format!("[{}]: {e}", s.name), "mend it, or leave it out for the default");
    }
    s.finish(problems);
    Some(settings)
}

/// A preference level: a number, or "never" for no default router.
fn preference(section: &str, key: &str, value: &Value<'_>, problems: &mut Problems<'_>) -> Option<i32> {
    if value.get_ref().as_str() == Some("never") {
        return Some(NEVER);
    }
    let level = value.get_ref().as_integer().and_then(|i| i32::from_str_radix(i.as_str(), i.radix()).ok());
    if level.is_none() {
        let message = format!("{key} in [{section}] is neither a number of 32 bits nor \"never\"");
        problems.add(value.span(), message, format!("write {key} = 10"));
    }
    level
}
