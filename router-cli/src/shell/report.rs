//! How the shell says that a line is wrong: a caret under the word, what is wrong, what was expected there.

use crate::grammar::Failure;
use std::io::{IsTerminal, Write};
use std::ops::Range;

/// Where the line came from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Where {
    /// It was typed and still stands above, from this column on.
    Typed { column: usize },
    /// It was read, as the line of this number.
    Read { number: u64 },
}

/// Longest list of what was expected.
const LONGEST: usize = 200;

/// Says it on standard error; returns the exit code.
pub(super) fn failure(f: &Failure, line: &str, at: Option<Range<usize>>, expected: &str, place: Where) -> u8 {
    let text = text(f, line, at, expected, place, columns());
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
    f.exit
}

fn columns() -> usize {
    match std::io::stderr().is_terminal() {
        true => crossterm::terminal::size().map_or(80, |(c, _)| usize::from(c)),
        false => usize::MAX,
    }
}

fn text(f: &Failure, line: &str, at: Option<Range<usize>>, expected: &str, place: Where, columns: usize) -> String {
    let mut out = String::new();
    if f.line.is_empty() {
        // A command of its own has said it.
        return out;
    }
    let width = |s: &str| s.chars().count();
    let mut indent = 0;
    match place {
        Where::Typed { column } if column + width(line) < columns => indent = column,
        // What was wrapped is written once more, so that the caret has a word to stand under.
        Where::Typed { .. } if at.is_some() && width(line) < columns => out.push_str(&format!("{line}\n")),
        Where::Typed { .. } => {}
        Where::Read { number } => {
            let head = format!("{number}: ");
            indent = width(&head);
            out.push_str(&format!("{head}{line}\n"));
        }
    }
    if let Some(at) = at
        && width(line) < columns
        && let (Some(before), Some(word)) = (line.get(..at.start), line.get(at.clone()))
    {
        let marks = "^".repeat(width(word).max(1));
        out.push_str(&format!("{:indent$}{:before$}{marks}\n", "", "", before = width(before)));
    }
    out.push_str(&f.line);
    out.push('\n');
    if let Some(hint) = &f.hint {
        let end = if hint.ends_with(['?', '.']) { "" } else { "." };
        out.push_str(&format!("Hint: {hint}{end}\n"));
    }
    if !expected.is_empty() {
        let short = match expected.char_indices().nth(LONGEST) {
            Some((end, _)) => {
                format!("{}, ...", expected[..end].rsplit_once(", ").map_or(&expected[..end], |(s, _)| s))
            }
            None => expected.to_owned(),
        };
        out.push_str(&format!("Expected here: {short}.\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_the_word() {
        let f = Failure::with_hint(255, "Error: no.", "yes");
        let got = text(&f, "route shwo", Some(6..10), "show, get", Where::Typed { column: 6 }, 80);
        assert_eq!(got, "            ^^^^\nError: no.\nHint: yes.\nExpected here: show, get.\n");
        let got = text(&f, "é x", Some(3..4), "", Where::Read { number: 12 }, 80);
        assert_eq!(got, "12: é x\n      ^\nError: no.\nHint: yes.\n");
        let got = text(&f, "route shwo", Some(6..10), "", Where::Typed { column: 6 }, 14);
        assert_eq!(got, "route shwo\n      ^^^^\nError: no.\nHint: yes.\n");
        let got = text(&f, "x", None, &"word, ".repeat(100), Where::Typed { column: 0 }, 80);
        assert!(got.ends_with("word, ....\n") && got.len() < 300, "{got}");
    }
}
