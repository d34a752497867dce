//! Reads keys of a TOML table one by one, noting what is wrong and what was never asked for.

use super::problem::{Problems, nearest};
use router_core::addr::{MacAddr, parse_addr, parse_interface_addr};
use router_core::port::TableId;
use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value and where it stands.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// One table of the file.
pub(super) struct Section<'t, 'v> {
    /// As written in its header.
    pub name: String,
    table: &'v DeTable<'t>,
    known: Vec<&'static str>,
}

impl<'t, 'v> Section<'t, 'v> {
    /// The table behind a value; None, with a problem noted, if it is none.
    pub fn of(name: &str, value: &'v Value<'t>, problems: &mut Problems<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => Some(Section { name: name.to_owned(), table, known: Vec::new() }),
            other => {
                let message = format!("\"{name}\" is {}, not a table", described(other));
                problems.add(value.span(), message, format!("write [{name}] and its keys below"));
                None
            }
        }
    }

    /// All keys with their values, in the order of the file.
    pub fn entries(&self) -> impl Iterator<Item = (&'v str, Range<usize>, &'v Value<'t>)> + use<'t, 'v> {
        let table: &'v DeTable<'t> = self.table;
        let mut list: Vec<_> = table.iter().map(|(k, v)| (k.get_ref().as_ref(), k.span(), v)).collect();
        list.sort_by_key(|(_, span, _)| span.start);
        list.into_iter()
    }

    /// The value of a key, which counts as known from now on.
    pub fn value(&mut self, key: &'static str) -> Option<&'v Value<'t>> {
        self.known.push(key);
        let table: &'v DeTable<'t> = self.table;
        table.iter().find(|(k, _)| k.get_ref() == key).map(|(_, v)| v)
    }

    fn wrong(&self, key: &str, value: &Value<'t>, expected: &str, example: &str, problems: &mut Problems<'_>) {
        let message = format!("{key} in [{}] is {}, expected {expected}", self.name, described(value.get_ref()));
        let remedy = if example.is_empty() { String::new() } else { format!("write {key} = {example}") };
        problems.add(value.span(), message, remedy);
    }

    /// A text that `read` understands.
    pub fn parsed<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        example: &str,
        problems: &mut Problems<'_>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<(T, Range<usize>)> {
        let value = self.value(key)?;
        let Some(text) = value.get_ref().as_str() else {
            self.wrong(key, value, expected, example, problems);
            return None;
        };
        match read(text) {
            Ok(v) => Some((v, value.span())),
            Err(why) => {
                problems.add(
                    value.span(),
                    format!("{key} in [{}]: {why}", self.name),
                    format!("write {key} = {example}"),
                );
                None
            }
        }
    }

    /// A text.
    pub fn text(&mut self, key: &'static str, example: &str, problems: &mut Problems<'_>) -> Option<String> {
        self.parsed(key, "a text", example, problems, |t| Ok(t.to_owned())).map(|(t, _)| t)
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, key: &'static str, problems: &mut Problems<'_>) -> Option<bool> {
        let value = self.value(key)?;
        if value.get_ref().as_bool().is_none() {
            self.wrong(key, value, "true or false", "true", problems);
        }
        value.get_ref().as_bool()
    }

    /// A whole number in a range.
    pub fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
        problems: &mut Problems<'_>,
    ) -> Option<u64> {
        let value = self.value(key)?;
        match whole(value.get_ref()) {
            Some(n) if range.contains(&n) => Some(n),
            _ => {
                let expected = format!("a number from {} to {}", range.start(), range.end());
                self.wrong(key, value, &expected, "", problems);
                None
            }
        }
    }

    /// A time: `"30s"`, `"500ms"`, `"5m"`, `"1h"`, or a number of seconds.
    pub fn duration(&mut self, key: &'static str, problems: &mut Problems<'_>) -> Option<Duration> {
        let value = self.value(key)?;
        let time = match value.get_ref() {
            DeValue::String(text) => duration(text),
            DeValue::Float(f) => {
                f.as_str().replace('_', "").parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok())
            }
            other => whole(other).map(Duration::from_secs),
        };
        let day = Duration::from_secs(86_400);
        if time.is_none_or(|t| t > day * 365) {
            self.wrong(key, value, "a time", "\"30s\" (ms, s, m, h)", problems);
            return None;
        }
        time
    }

    /// An address of any family.
    pub fn addr(
        &mut self,
        key: &'static str,
        example: &str,
        problems: &mut Problems<'_>,
    ) -> Option<(IpAddr, Range<usize>)> {
        self.parsed(key, "an address", example, problems, |t| parse_addr(t).map_err(|e| e.to_string()))
    }

    /// A link-layer address.
    pub fn mac(&mut self, key: &'static str, problems: &mut Problems<'_>) -> Option<MacAddr> {
        let read = |t: &str| match t.parse::<MacAddr>() {
            Ok(m) if m.is_unicast() => Ok(m),
            Ok(_) => Err(format!("\"{t}\" is not the address of one station")),
            Err(e) => Err(e.to_string()),
        };
        self.parsed(key, "a link-layer address", "\"02:00:00:00:00:01\"", problems, read).map(|(m, _)| m)
    }

    /// A table by name or number.
    pub fn table(&mut self, key: &'static str, problems: &mut Problems<'_>) -> Option<TableId> {
        let value = self.value(key)?;
        let table = match value.get_ref() {
            DeValue::String(text) => crate::grammar::table_from_name(text),
            other => whole(other).and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).map(TableId),
        };
        if table.is_none() {
            self.wrong(key, value, "a table", "\"main\" or a number from 1", problems);
        }
        table
    }

    /// A list of addresses with prefix lengths, or one of them.
    pub fn interface_addrs(&mut self, key: &'static str, problems: &mut Problems<'_>) -> Vec<ipnet::IpNet> {
        let example = "[\"192.0.2.1/24\", \"2001:db8::1/64\"]";
        let mut out: Vec<ipnet::IpNet> = Vec::new();
        for (text, span) in self.texts(key, example, problems) {
            match parse_interface_addr(&text) {
                Ok(net) if out.iter().any(|n| n.addr() == net.addr()) => {
                    problems.add(
                        span,
                        format!("{key} in [{}]: {} is there twice", self.name, net.addr()),
                        "leave out one",
                    );
                }
                Ok(net) if net.addr().is_unspecified() || net.addr().is_multicast() => {
                    let message = format!("{key} in [{}]: {} cannot be a router's own address", self.name, net.addr());
                    problems.add(span, message, "");
                }
                Ok(net) => out.push(net),
                Err(e) => {
                    problems.add(span, format!("{key} in [{}]: {e}", self.name), format!("write {key} = {example}"))
                }
            }
        }
        out
    }

    /// A list of texts, or one text, each with its place.
    pub fn texts(
        &mut self,
        key: &'static str,
        example: &str,
        problems: &mut Problems<'_>,
    ) -> Vec<(String, Range<usize>)> {
        match self.value(key) {
            Some(value) => texts(key, &self.name, value, example, problems),
            None => Vec::new(),
        }
    }

    /// Notes every key that nobody asked for.
    pub fn finish(self, problems: &mut Problems<'_>) {
        for (key, span, _) in self.entries().filter(|(k, ..)| !self.known.contains(k)) {
            let remedy = match nearest(key, self.known.iter().copied()) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => {
                    let mut known = self.known.clone();
                    known.sort_unstable();
                    known.dedup();
                    format!("known keys are {}", known.join(", "))
                }
            };
            problems.add(span, format!("unknown key \"{key}\" in [{}]", self.name), remedy);
        }
    }
}

/// A list of texts, or one text.
pub(super) fn texts(
    key: &str,
    section: &str,
    value: &Value<'_>,
    example: &str,
    problems: &mut Problems<'_>,
) -> Vec<(String, Range<usize>)> {
    let wrong = |v: &Value<'_>, problems: &mut Problems<'_>| {
        let message = format!("{key} in [{section}] is {}, expected a list of texts", described(v.get_ref()));
        problems.add(v.span(), message, format!("write {key} = {example}"));
    };
    let mut out = Vec::new();
    match value.get_ref() {
        DeValue::String(text) => out.push((text.to_string(), value.span())),
        DeValue::Array(list) => {
            for item in list.iter() {
                match item.get_ref() {
                    DeValue::String(text) => out.push((text.to_string(), item.span())),
                    _ => wrong(item, problems),
                }
            }
        }
        _ => wrong(value, problems),
    }
    out
}

fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(s) => format!("\"{s}\""),
        DeValue::Integer(i) => i.as_str().to_owned(),
        DeValue::Float(f) => f.as_str().to_owned(),
        DeValue::Boolean(b) => b.to_string(),
        DeValue::Datetime(d) => d.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// A number that is not negative.
pub(super) fn whole(value: &DeValue<'_>) -> Option<u64> {
    let i = value.as_integer()?;
    u64::from_str_radix(&i.as_str().replace('_', ""), i.radix()).ok()
}

fn duration(text: &str) -> Option<Duration> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(at);
    let seconds = match unit.trim() {
        "ms" => 0.001,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}
