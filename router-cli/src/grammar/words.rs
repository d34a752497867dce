//! A cursor over words with iproute2's ways of matching and complaining.

use super::failure::{Failure, exit};
use super::{PROGRAM, value};
use ipnet::IpNet;
use router_core::addr::Family;
use std::net::IpAddr;

/// The cursor. "Current" is the word that [`Words::next`] returned last.
pub(super) struct Words<'a> {
    words: &'a [&'a str],
    next: usize,
    /// What `-4` or `-6` said.
    pub family: Option<Family>,
}

impl<'a> Words<'a> {
    pub fn new(words: &'a [&'a str], family: Option<Family>) -> Self {
        Words { words, next: 0, family }
    }

    pub fn next(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.next).copied();
        if word.is_some() {
            self.next += 1;
        }
        word
    }

    /// The words that are left.
    pub fn ahead(&self) -> &'a [&'a str] {
        self.words.get(self.next..).unwrap_or_default()
    }

    pub fn peek(&self) -> Option<&'a str> {
        self.words.get(self.next).copied()
    }

    /// The words behind the current one.
    pub fn rest(&self) -> &'a [&'a str] {
        self.words.get(self.next..).unwrap_or_default()
    }

    /// Index of the current word.
    pub fn here(&self) -> usize {
        self.next.saturating_sub(1)
    }

    pub fn current(&self) -> &'a str {
        self.word(self.here())
    }

    /// Where one of these words stands last; the end if none does.
    pub fn place_of(&self, names: &[&str]) -> usize {
        self.words.iter().rposition(|w| names.contains(w)).unwrap_or(self.words.len())
    }

    /// Word `at`; empty behind the last.
    pub fn word(&self, at: usize) -> &'a str {
        self.words.get(at).copied().unwrap_or("")
    }

    /// Whether the current word is a prefix of one of these: iproute2's `matches`.
    pub fn matches(&self, names: &[&str]) -> bool {
        let word = self.current();
        !word.is_empty() && names.iter().any(|n| n.starts_with(word))
    }

    /// The next word, which must be there: iproute2's NEXT_ARG.
    pub fn arg(&mut self) -> Result<&'a str, Failure> {
        self.next().ok_or_else(|| self.incomplete())
    }

    pub fn incomplete(&self) -> Failure {
        let after = self.words.last().map(|w| format!("a value must follow \"{w}\"")).unwrap_or_default();
        Failure::with_hint(exit::SYNTAX, "Command line is not complete. Try option \"help\"", after)
            .at(self.words.len())
    }

    pub fn fail_here(&self, code: u8, line: String, hint: String) -> Failure {
        let f = Failure::new(code, line).at(self.here());
        if hint.is_empty() { f } else { Failure { hint: Some(hint), ..f } }
    }

    /// iproute2's invarg: `Error: argument "X" is wrong: why`.
    pub fn invalid(&self, why: &str, hint: impl Into<String>) -> Failure {
        self.fail_here(exit::SYNTAX, format!("Error: argument \"{}\" is wrong: {why}", self.current()), hint.into())
    }

    /// iproute2's duparg2: `Error: either "to" is duplicate, or "X" is a garbage.`
    pub fn garbage(&self, key: &str, hint: &str) -> Failure {
        let line = format!("Error: either \"{key}\" is duplicate, or \"{}\" is a garbage.", self.current());
        self.fail_here(exit::SYNTAX, line, hint.into())
    }

    pub fn duplicate(&self, key: &str) -> Failure {
        let line = format!("Error: duplicate \"{key}\": \"{}\" is the second value.", self.current());
        self.fail_here(exit::SYNTAX, line, format!("say \"{key}\" once"))
    }

    pub fn unknown_command(&self, object: &str) -> Failure {
        let line = format!("Command \"{}\" is unknown, try \"{PROGRAM} {object} help\".", self.current());
        self.fail_here(exit::SYNTAX, line, String::new())
    }

    /// A word that iproute2 knows and duet has no use for.
    pub fn unsupported(&self) -> Failure {
        let line = format!("Error: argument \"{}\" is wrong: not supported by {PROGRAM}", self.current());
        self.fail_here(exit::SYNTAX, line, "it steers the kernel's own stack, not a router; leave it out".into())
    }

    pub fn number(&mut self, key: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, Failure> {
        self.arg()?;
        self.current_number(key, range)
    }

    pub fn current_number(&self, key: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, Failure> {
        value::parse_number(self.current()).filter(|n| range.contains(n)).ok_or_else(|| {
            self.invalid(
                &format!("\"{key}\" value is invalid"),
                format!("\"{key}\" takes a number from {} to {}", range.start(), range.end()),
            )
        })
    }

    /// A device name: at most 15 bytes without `/` and white space, as Linux has it.
    pub fn dev(&mut self) -> Result<String, Failure> {
        let name = self.arg()?;
        if value::valid_name(name) {
            return Ok(name.to_owned());
        }
        Err(self.fail_here(
            exit::SYNTAX,
            format!("Error: argument \"{name}\" is wrong: \"dev\" not a valid ifname"),
            "a name has 1 to 15 characters, no white space, no \"/\"".into(),
        ))
    }

    /// The current word as an address of any family.
    pub fn current_addr(&self, family: Option<Family>) -> Result<IpAddr, Failure> {
        let text = self.current();
        let expected = family.map_or_else(|| "any".to_owned(), |f| f.to_string());
        let wrong = |hint: String| {
            let line = match family {
                Some(_) => format!("Error: {expected} address is expected rather than \"{text}\"."),
                None => format!("Error: any valid address is expected rather than \"{text}\"."),
            };
            self.fail_here(exit::USAGE, line, hint)
        };
        let addr = router_core::addr::parse_addr(text).map_err(|e| wrong(e.to_string()))?;
        match family {
            Some(f) if f != Family::of(&addr) => Err(wrong(format!("\"{text}\" is an {} address", Family::of(&addr)))),
            _ => Ok(addr),
        }
    }

    pub fn addr(&mut self) -> Result<IpAddr, Failure> {
        self.arg()?;
        self.current_addr(None)
    }

    /// The current word as a prefix, host bits refused. Not `default`.
    pub fn current_prefix(&self, family: Option<Family>) -> Result<IpNet, Failure> {
        let net = self.current_interface_addr(family)?;
        if net.trunc() != net {
            return Err(self.fail_here(
                exit::REFUSED,
                "Error: Invalid prefix for given prefix length.".into(),
                format!("\"{}\" has bits set beyond its length; did you mean {}?", self.current(), net.trunc()),
            ));
        }
        Ok(net)
    }

    /// The current word as a prefix, host bits kept.
    pub fn current_interface_addr(&self, family: Option<Family>) -> Result<IpNet, Failure> {
        let text = self.current();
        let line = |f: Option<Family>| match f {
            Some(f) => format!("Error: {f} prefix is expected rather than \"{text}\"."),
            None => format!("Error: any valid prefix is expected rather than \"{text}\"."),
        };
        let net =
            value::parse_interface_addr(text).map_err(|e| self.fail_here(exit::USAGE, line(family), e.to_string()))?;
        match family {
            Some(f) if f != Family::of_net(&net) => Err(self.fail_here(
                exit::USAGE,
                line(family),
                format!("\"{text}\" is an {} prefix", Family::of_net(&net)),
            )),
            _ => Ok(net),
        }
    }
}
