//! Words of the inspecting commands, with complaints that point at the wrong word.

use super::failure::{Failure, exit};
use super::{Options, PROGRAM, value};
use std::net::IpAddr;

/// A cursor over the words of one command.
pub(crate) struct Line<'a> {
    /// The command's own word.
    command: &'a str,
    words: &'a [&'a str],
    next: usize,
}

impl<'a> Line<'a> {
    pub fn new(command: &'a str, words: &'a [&'a str]) -> Self {
        Line { command, words, next: 0 }
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

    /// The familiar line, then the command with a caret under word `at` (or behind the last), and what was expected.
    pub fn complain(&self, at: usize, line: &str, expected: &str) -> Failure {
        let (word, length) = self.words.get(at).map_or((0, 1), |w| (0, w.chars().count().max(1)));
        self.complain_within(at, word, length, line, expected)
    }

    /// As [`Line::complain`], under `length` characters of the word from `offset` on.
    pub fn complain_within(&self, at: usize, offset: usize, length: usize, line: &str, expected: &str) -> Failure {
        let mut text = format!("{PROGRAM} {}", self.command);
        let mut column = text.chars().count() + 1;
        for (i, word) in self.words.iter().enumerate() {
            if i == at {
                column = text.chars().count() + 1;
            }
            text.push(' ');
            text.push_str(word);
        }
        if at >= self.words.len() {
            column = text.chars().count() + 1;
        }
        let caret = "^".repeat(length);
        let space = " ".repeat(column + offset);
        Failure::new(exit::USAGE, format!("{line}\n  {text}\n  {space}{caret} expected {expected}")).at(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carets_stand_under_the_wrong_word() {
        let words = ["to", "192.0.2.x", "df"];
        let mut line = Line::new("explain", &words);
        line.next();
        let e = line.address().unwrap_err();
        assert_eq!(
            e.line,
            "Error: \"192.0.2.x\" is wrong here.\n  duet explain to 192.0.2.x df\n                  ^^^^^^^^^ expected an IPv4 or IPv6 address"
        );
        let words = ["to"];
        let mut line = Line::new("explain", &words);
        line.next();
        let e = line.address().unwrap_err();
        assert_eq!(
            e.line,
            "The command is not complete.\n  duet explain to\n                  ^ expected an IPv4 or IPv6 address"
        );
    }
}
