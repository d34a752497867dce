//! How a wrong line is shown, by the shell and by single commands alike: a caret under the wrong word, what is wrong, how to
//! mend it, what was expected there.
//!
//! What was expected comes from the parser where it says so, otherwise from the tree of commands that completion uses.

use crate::grammar::{Failure, PROGRAM, exit, tokenize};
use crate::shell::complete::{expected, meant};
use crate::shell::lex::Word;
use crate::shell::resolve::Tree;
use std::io::IsTerminal;

/// Where a line came from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// It was typed at a prompt and still stands above, from this column on.
    Typed { column: usize },
    /// It was read, as the line of this number.
    Read { number: u64 },
    /// It is a command of its own: the complaint comes first, as iproute2 has it, then the line.
    Command,
}

/// Longest list of what was expected.
const LONGEST: usize = 200;
/// Columns of a terminal that does not say.
const COLUMNS: usize = 80;

/// Characters of a line that a caret stands under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    start: usize,
    len: usize,
}

/// The complaint about a line of these words; `filter`: they stand behind `|`.
pub(crate) fn text(f: &Failure, tree: &Tree, line: &str, words: &[Word], filter: bool, place: Place) -> String {
    if f.line.is_empty() {
        // A command of its own has said it.
        return String::new();
    }
    let at = f.word.or_else(|| quoted(f, words));
    let expects = match (&f.expected, at) {
        (Some(text), _) => text.clone(),
        (None, Some(at)) => expected(tree, words, at, filter),
        (None, None) => String::new(),
    };
    let mark = at.map(|at| mark(f, line, words, at));
    // A word that was nearly right says more than any other hint.
    let near = at.and_then(|at| {
        let before: Vec<&str> = words.iter().take(at).map(|w| w.text.as_str()).collect();
        meant(tree, &before, &words.get(at)?.text, filter)
    });
    let hint = near.map(|meant| format!("did you mean \"{meant}\"?")).or_else(|| f.hint.clone());
    layout(f, hint.as_deref(), line, mark, &shortened(&expects), place, columns())
}

/// The same about a command's words, without the program's name.
pub(crate) fn of_command(f: &Failure, args: &[&str]) -> String {
    if f.word.is_none() && f.exit != exit::USAGE {
        // Nothing is wrong with the words: the tree is not needed.
        return plain(f, f.hint.as_deref());
    }
    let mut line = PROGRAM.to_owned();
    let mut words = Vec::new();
    for arg in args {
        line.push(' ');
        let start = line.len();
        line.push_str(arg);
        words.push(Word { text: (*arg).to_owned(), start, end: line.len() });
    }
    text(f, &Tree::whole(&crate::app::definition()), &line, &words, false, Place::Command)
}

/// As a user sees a complaint about the words behind `command`.
#[cfg(test)]
pub(crate) fn shown(f: Failure, command: &str, words: &str) -> String {
    let all: Vec<&str> = std::iter::once(command).chain(words.split_whitespace()).collect();
    of_command(&f.behind(1), &all)
}

/// The same about a line of a batch file.
pub(crate) fn of_line(f: &Failure, line: &str) -> String {
    if f.word.is_none() && f.exit != exit::USAGE {
        return plain(f, f.hint.as_deref());
    }
    let words = tokenize(line).into_iter().map(|t| Word { end: t.start + t.text.len(), start: t.start, text: t.text });
    let words: Vec<Word> = words.collect();
    text(f, &Tree::whole(&crate::app::definition()), line, &words, false, Place::Command)
}

/// The word that a refusal quotes, such as the name of a port that there is not.
fn quoted(f: &Failure, words: &[Word]) -> Option<usize> {
    let name = f.line.split('"').nth(1).filter(|n| f.exit == exit::USAGE && !n.is_empty())?;
    words.iter().rposition(|w| w.text == name)
}

fn width(s: &str) -> usize {
    s.chars().count()
}

fn mark(f: &Failure, line: &str, words: &[Word], at: usize) -> Mark {
    let chars = |end: usize| width(line.get(..end).unwrap_or(line));
    match words.get(at) {
        Some(word) => {
            let (start, len) = (chars(word.start), chars(word.end).saturating_sub(chars(word.start)).max(1));
            // A quoted word begins with its quote.
            let quote = usize::from(line.get(word.start..).is_some_and(|l| l.starts_with(['"', '\''])));
            match f.part.map(|(offset, n)| (offset as usize, n as usize)) {
                Some((offset, n)) if offset + quote < len => {
                    Mark { start: start + quote + offset, len: n.clamp(1, len - quote - offset) }
                }
                _ => Mark { start, len },
            }
        }
        None => Mark { start: words.last().map_or(0, |w| chars(w.end) + 1), len: 1 },
    }
}

fn columns() -> usize {
    match std::io::stderr().is_terminal() {
        true => crossterm::terminal::size().map_or(COLUMNS, |(c, _)| usize::from(c)),
        false => usize::MAX,
    }
}

fn shortened(expected: &str) -> String {
    match expected.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}, ...", expected[..end].rsplit_once(", ").map_or(&expected[..end], |(s, _)| s)),
        None => expected.to_owned(),
    }
}

/// Without a caret.
fn plain(f: &Failure, hint: Option<&str>) -> String {
    let mut out = format!("{}\n", f.line);
    if let Some(hint) = hint {
        out.push_str(&format!("Hint: {}\n", sentence(hint)));
    }
    out
}

fn sentence(text: &str) -> String {
    let end = if text.ends_with(['?', '.']) { "" } else { "." };
    format!("{text}{end}")
}

/// Nothing of a word may act on the terminal.
fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The part of a line that fits, with the mark in it.
fn fitting(line: &str, mark: Mark, columns: usize) -> (String, Mark) {
    if width(line).max(mark.start + mark.len) < columns {
        return (line.to_owned(), mark);
    }
    let room = columns.saturating_sub(7).max(10);
    let from = mark.start.saturating_sub(room / 2);
    let head = if from > 0 { "..." } else { "" };
    let mut shown: String = line.chars().skip(from).take(room).collect();
    if from + room < width(line) {
        shown.push_str("...");
    }
    let start = mark.start - from;
    (format!("{head}{shown}"), Mark { start: start + head.len(), len: mark.len.min(room.saturating_sub(start)).max(1) })
}

fn layout(
    f: &Failure,
    hint: Option<&str>,
    line: &str,
    mark: Option<Mark>,
    expected: &str,
    place: Place,
    columns: usize,
) -> String {
    let line = printable(line);
    let carets = |indent: usize, m: Mark| format!("{:1$}{2}", "", indent + m.start, "^".repeat(m.len));
    let said = plain(f, hint);
    let expects = if expected.is_empty() { String::new() } else { format!("Expected here: {}\n", sentence(expected)) };
    match (place, mark) {
        (Place::Typed { column }, Some(m)) if column + width(&line).max(m.start + m.len) < columns => {
            format!("{}\n{said}{expects}", carets(column, m))
        }
        (Place::Typed { .. }, None) => format!("{said}{expects}"),
        // What was wrapped is written once more, so that the caret has a word to stand under.
        (Place::Typed { .. }, Some(m)) => {
            let (shown, m) = fitting(&line, m, columns);
            format!("{shown}\n{}\n{said}{expects}", carets(0, m))
        }
        (Place::Read { number }, mark) => {
            let head = format!("{number}: ");
            let (shown, caret) = match mark {
                Some(m) => {
                    let (shown, m) = fitting(&line, m, columns.saturating_sub(width(&head)));
                    (shown, carets(width(&head), m) + "\n")
                }
                None => (line, String::new()),
            };
            format!("{head}{shown}\n{caret}{said}{expects}")
        }
        (Place::Command, None) => said,
        (Place::Command, Some(m)) => {
            let (shown, m) = fitting(&line, m, columns.saturating_sub(2));
            let caret = carets(2, m);
            let (behind, below) = match expected {
                "" => (String::new(), String::new()),
                // In one line with the caret where there is room.
                text if width(&caret) + width(text) + 10 < columns.min(120) => {
                    (format!(" expected {text}"), String::new())
                }
                _ => (String::new(), expects),
            };
            let (first, rest) = said.split_once('\n').unwrap_or((&said, ""));
            format!("{first}\n  {shown}\n{caret}{behind}\n{rest}{below}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: usize, len: usize) -> Option<Mark> {
        Some(Mark { start, len })
    }

    #[test]
    fn the_caret_stands_under_the_word() {
        let f = Failure::with_hint(255, "Error: no.", "yes");
        let show =
            |line, mark, expected, place, columns| layout(&f, f.hint.as_deref(), line, mark, expected, place, columns);
        let typed = |column| Place::Typed { column };
        assert_eq!(
            show("route shwo", at(6, 4), "show, get", typed(6), 80),
            "            ^^^^\nError: no.\nHint: yes.\nExpected here: show, get.\n"
        );
        assert_eq!(
            show("é x", at(2, 1), "", Place::Read { number: 12 }, 80),
            "12: é x\n      ^\nError: no.\nHint: yes.\n"
        );
        assert_eq!(show("route shwo", at(6, 4), "", typed(6), 14), "route shwo\n      ^^^^\nError: no.\nHint: yes.\n");
        assert_eq!(
            show("duet route shwo", at(11, 4), "show, get", Place::Command, 80),
            "Error: no.\n  duet route shwo\n             ^^^^ expected show, get\nHint: yes.\n"
        );
        assert_eq!(
            show("duet route shwo", at(11, 4), "show, get", Place::Command, 30),
            "Error: no.\n  duet route shwo\n             ^^^^\nHint: yes.\nExpected here: show, get.\n"
        );
        assert_eq!(show("duet route", None, "", Place::Command, 80), "Error: no.\nHint: yes.\n");
        assert_eq!(show("a\u{1b}[2Jb", at(0, 1), "", Place::Command, 80).lines().nth(1), Some("  a\u{fffd}[2Jb"));
        let long = format!("{}WRONG{}", "x ".repeat(100), " y".repeat(100));
        let got = show(&long, at(200, 5), "", Place::Command, 40);
        let lines: Vec<&str> = got.lines().collect();
        let caret = lines[2].find('^').unwrap();
        assert!(lines[1].len() < 40 && lines[1][caret..].starts_with("WRONG"), "{got}");
    }

    #[test]
    fn long_lists_are_cut() {
        let text = shortened(&"word, ".repeat(100));
        assert!(text.ends_with("word, ...") && text.len() < 210, "{text}");
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_bearable(line in "\\PC{0,60}", word in 0usize..8, part in proptest::option::of((0u32..9, 0u32..9)), columns in 0usize..100) {
            let words = crate::shell::lex::split_open(&line).0.concat();
            let f = Failure { part, ..Failure::new(255, "Error: no.").at(word) };
            let m = mark(&f, &line, &words, word.min(words.len()));
            for place in [Place::Typed { column: 6 }, Place::Read { number: 1 }, Place::Command] {
                let _ = layout(&f, None, &line, Some(m), "x", place, columns);
            }
        }
    }
}
