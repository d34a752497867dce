//! What a user sees when something is not as it should be: iproute2's familiar line, one line of cause and remedy, and
//! the exit code.

use serde::{Deserialize, Serialize};

/// Exit codes, as iproute2's.
pub mod exit {
    /// An address, prefix or device that makes no sense; an unknown object; a failed batch.
    pub const USAGE: u8 = 1;
    /// Refused by the router, or the router cannot be reached.
    pub const REFUSED: u8 = 2;
    /// Ended by the user: 128 and the number of SIGINT, as shells count.
    pub const INTERRUPTED: u8 = 130;
    /// The words do not form a command.
    pub const SYNTAX: u8 = 255;
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{line}")]
pub struct Failure {
    /// The familiar line.
    pub line: String,
    /// Cause and remedy.
    pub hint: Option<String>,
    /// The process's exit code.
    pub exit: u8,
    /// Index of the offending word, where there is one; the number of words where something is missing at the end.
    pub word: Option<usize>,
    /// The part of that word that is wrong, if not all of it: where it begins, how long it is, in characters.
    #[serde(default)]
    pub part: Option<(u32, u32)>,
    /// What was expected there, where the parser knows better than the tree of commands.
    #[serde(default)]
    pub expected: Option<String>,
}

impl Failure {
    /// Without a hint.
    pub fn new(exit: u8, line: impl Into<String>) -> Self {
        Failure { line: line.into(), hint: None, exit, word: None, part: None, expected: None }
    }

    /// With cause and remedy.
    pub fn with_hint(exit: u8, line: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure { hint: Some(hint.into()), ..Failure::new(exit, line) }
    }

    /// The same, pointing at a word.
    pub fn at(mut self, word: usize) -> Self {
        self.word = Some(word);
        self
    }

    /// The same, saying what was expected at the word.
    pub fn expecting(mut self, what: &str) -> Self {
        self.expected = Some(what.to_owned());
        self
    }

    /// The same, with all words that come before the parsed ones counted.
    pub fn behind(mut self, words: usize) -> Self {
        self.word = self.word.map(|w| w + words);
        self
    }

    /// `Cannot find device "x"`.
    pub fn no_device(name: &str) -> Self {
        Failure::with_hint(
            exit::USAGE,
            format!("Cannot find device \"{name}\""),
            "\"duet link\" lists the ports and tunnels of this router",
        )
    }

    /// The text for standard error.
    pub fn text(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}\nHint: {hint}.", self.line, hint = hint.trim_end_matches('.')),
            None => self.line.clone(),
        }
    }
}
