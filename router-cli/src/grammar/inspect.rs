//! Words of the inspecting commands, with complaints that point at the wrong word.

use super::failure::{Failure, exit};
use super::{Options, value};
use std::net::IpAddr;

/// A cursor over the words of one command.
pub(crate) struct Line<'a> {
    words: &'a [&'a str],
    next: usize,
}

impl<'a> Line<'a> {
    pub fn new(words: &'a [&'a str]) -> Self {
        Line { words, next: 0 }
    }

    pub fn next(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.next).copied();
        self.next += usize::from(word.is_some());
        word
    }

    pub fn peek(&self) -> Option<&'a str> {
        self.words.get(self.next).copied()
    }

    /// Index of the word that [`Line::next`] returned last.
    pub fn here(&self) -> usize {
        self.next.saturating_sub(1)
    }

    /// The value of the word before, which must be there.
    pub fn value(&mut self, expected: &str) -> Result<&'a str, Failure> {
        self.next().ok_or_else(|| self.complain(self.words.len(), "The command is not complete.", expected))
    }

    /// A value that `read` understands.
    pub fn parsed<T>(&mut self, expected: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, Failure> {
        let word = self.value(expected)?;
        read(word).ok_or_else(|| self.wrong(expected))
    }

    pub fn address(&mut self) -> Result<IpAddr, Failure> {
        self.parsed("an IPv4 or IPv6 address", |w| router_core::addr::parse_addr(w).ok())
    }

    pub fn number(&mut self, least: u64, most: u64) -> Result<u64, Failure> {
        let expected = format!("a number from {least} to {most}");
        self.parsed(&expected, |w| value::parse_number(w).filter(|n| (least..=most).contains(n)))
    }

    /// Takes `word` if it is an option that every inspecting command has; false if it is not.
    pub fn option(&mut self, word: &str, options: &mut Options) -> Result<bool, Failure> {
        match word {
            "-j" | "-json" | "--json" => options.json = true,
            "-n" | "--name" => options.name = Some(self.value("the name of a router")?.to_owned()),
            "--socket" => options.socket = Some(self.value("the path of a control socket")?.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The last word is wrong.
    pub fn wrong(&self, expected: &str) -> Failure {
        let word = self.words.get(self.here()).copied().unwrap_or("");
        self.complain(self.here(), &format!("Error: \"{word}\" is wrong here."), expected)
    }

    /// The familiar line, about word `at` (or what is missing behind the last), and what was expected there.
    pub fn complain(&self, at: usize, line: &str, expected: &str) -> Failure {
        Failure::new(exit::USAGE, line).at(at.min(self.words.len())).expecting(expected)
    }

    /// As [`Line::complain`], about `length` characters of the word from `offset` on.
    pub fn complain_within(&self, at: usize, offset: usize, length: usize, line: &str, expected: &str) -> Failure {
        Failure { part: Some((offset as u32, length as u32)), ..self.complain(at, line, expected) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_name_the_wrong_word() {
        let words = ["to", "192.0.2.x", "df"];
        let mut line = Line::new(&words);
        line.next();
        let e = line.address().unwrap_err();
        assert_eq!((e.line.as_str(), e.word), ("Error: \"192.0.2.x\" is wrong here.", Some(1)));
        assert_eq!(e.expected.as_deref(), Some("an IPv4 or IPv6 address"));
        let words = ["to"];
        let mut line = Line::new(&words);
        line.next();
        let e = line.address().unwrap_err();
        assert_eq!((e.line.as_str(), e.word), ("The command is not complete.", Some(1)));
    }
}
