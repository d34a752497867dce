//! What stands behind `|`: filters on entries, a line at a time, so that a table of any length passes through in little
//! memory. An entry is a line with the indented lines below it.

use super::lex::Word;
use super::resolve::{Tree, pick};
use crate::grammar::{Failure, exit};
use std::io::{self, Write};

/// Entries longer than this are treated as they come.
const LONGEST_ENTRY: usize = 1 << 20;

/// The filters of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pipeline {
    stages: Vec<Stage>,
    /// `| json` was said.
    pub json: bool,
    /// `| no-more` was said.
    pub no_more: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Match(String),
    Except(String),
    Begin(String, bool),
    Count(u64),
    Head(u64),
}

impl Pipeline {
    /// Understands what stands behind the first `|`; a failure names the stage and its word.
    pub fn parse(tree: &Tree, stages: &[Vec<Word>], line_len: usize) -> Result<Pipeline, (usize, Failure)> {
        let mut out = Pipeline::default();
        for (i, words) in stages.iter().enumerate() {
            let fail = |f: Failure| (i, f);
            let Some(first) = words.first() else {
                let hint = "say match TEXT, except TEXT, begin TEXT, count, head NUMBER, json or no-more";
                let _ = line_len;
                return Err(fail(Failure::with_hint(exit::SYNTAX, "Error: a filter must follow \"|\".", hint)));
            };
            let node = pick(&tree.filters, &first.text, 0).map_err(fail)?;
            let value = words.get(1);
            if let Some(extra) = words.get(if node.args.is_empty() { 1 } else { 2 }) {
                let hint =
                    if node.args.is_empty() { "nothing follows it" } else { "put a text with blanks into quotes" };
                let line = format!("Error: \"{}\" is too much for \"{}\".", extra.text, node.word);
                return Err(fail(Failure::with_hint(exit::SYNTAX, line, hint).at(words.len() - 1)));
            }
            let text = || match value {
                Some(w) => Ok(w.text.clone()),
                None => {
                    let line = format!(
                        "Error: \"{}\" needs {}.",
                        node.word,
                        node.args.first().map_or("a value", |v| v.placeholder())
                    );
                    Err((i, Failure::with_hint(exit::SYNTAX, line, "such as \"| match 192.0.2.1\"").at(0)))
                }
            };
            match node.word.as_str() {
                "match" => out.stages.push(Stage::Match(text()?)),
                "except" => out.stages.push(Stage::Except(text()?)),
                "begin" => out.stages.push(Stage::Begin(text()?, false)),
                "count" => out.stages.push(Stage::Count(0)),
                "head" => {
                    let n = text()?.parse().map_err(|_| {
                        fail(
                            Failure::with_hint(
                                exit::SYNTAX,
                                "Error: \"head\" needs a number.",
                                "such as \"| head 20\"",
                            )
                            .at(1),
                        )
                    })?;
                    out.stages.push(Stage::Head(n));
                }
                "json" => out.json = true,
                _ => out.no_more = true,
            }
        }
        Ok(out)
    }

    /// Whether output passes unchanged.
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }

    /// Whether entries are better written as one line each.
    pub fn wants_lines(&self) -> bool {
        !self.stages.is_empty() && !self.json
    }
}

/// A writer that passes on what the filters let through. Nothing more comes after an error of kind BrokenPipe: the filters
/// have what they wanted.
pub(crate) struct Filter<'w> {
    out: &'w mut dyn Write,
    stages: Vec<Stage>,
    line: Vec<u8>,
    entry: Vec<u8>,
    satisfied: bool,
    /// Where in a JSON list the input is; None: text.
    json: Option<Json>,
}

/// A list whose elements are the entries.
#[derive(Clone, Copy, Debug, Default)]
struct Json {
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// Elements passed on.
    passed: u64,
}

impl<'w> Filter<'w> {
    pub fn new(pipeline: &Pipeline, out: &'w mut dyn Write) -> Self {
        let json = pipeline.json.then(Json::default);
        Filter { out, stages: pipeline.stages.clone(), line: Vec::new(), entry: Vec::new(), satisfied: false, json }
    }

    /// Treats what is left; counts are written now.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.stages.is_empty() {
            return self.out.flush();
        }
        let counts = self.stages.iter().any(|s| matches!(s, Stage::Count(_)));
        match self.json {
            Some(Json { passed: 0, .. }) if !counts => self.out.write_all(b"[]\n")?,
            Some(_) if !counts => self.out.write_all(b"]\n")?,
            Some(_) => self.json = None,
            None => {
                if !self.line.is_empty() {
                    self.line.push(b'\n');
                    self.take_line()?;
                }
                let last = std::mem::take(&mut self.entry);
                self.pass(0, &last)?;
            }
        }
        for i in 0..self.stages.len() {
            if let Stage::Count(n) = self.stages[i] {
                self.pass(i + 1, format!("{n}\n").as_bytes())?;
            }
        }
        self.out.flush()
    }

    fn take_line(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        let continues = line.first().is_some_and(|b| *b == b' ' || *b == b'\t') && !self.entry.is_empty();
        if !continues || self.entry.len() > LONGEST_ENTRY {
            let entry = std::mem::take(&mut self.entry);
            self.pass(0, &entry)?;
        }
        self.entry.extend_from_slice(&line);
        self.line = line;
        self.line.clear();
        Ok(())
    }

    /// Hands an entry to the filters from number `from` on.
    fn pass(&mut self, from: usize, entry: &[u8]) -> io::Result<()> {
        if entry.is_empty() {
            return Ok(());
        }
        for stage in &mut self.stages[from..] {
            match stage {
                Stage::Match(text) if !holds(entry, text) => return Ok(()),
                Stage::Except(text) if holds(entry, text) => return Ok(()),
                Stage::Begin(text, begun) => {
                    *begun |= holds(entry, text);
                    if !*begun {
                        return Ok(());
                    }
                }
                Stage::Count(n) => {
                    *n += 1;
                    return Ok(());
                }
                Stage::Head(0) => {
                    self.satisfied = true;
                    return Ok(());
                }
                Stage::Head(n) => *n -= 1,
                Stage::Match(_) | Stage::Except(_) => {}
            }
        }
        if let Some(json) = &mut self.json {
            self.out.write_all(if json.passed == 0 { b"[" } else { b"," })?;
            json.passed += 1;
        }
        self.out.write_all(entry)
    }

    /// Finds the elements of a list in a piece of JSON.
    fn take_json(&mut self, bytes: &[u8], mut json: Json) -> io::Result<()> {
        for &b in bytes {
            let inside = json.depth > 1;
            match b {
                _ if json.escaped => json.escaped = false,
                b'\\' if json.in_text => json.escaped = true,
                b'"' => json.in_text = !json.in_text,
                // An object alone is a list of one.
                b'{' if !json.in_text && json.depth == 0 => json.depth = 2,
                b'{' | b'[' if !json.in_text => json.depth += 1,
                b'}' | b']' if !json.in_text => json.depth = json.depth.saturating_sub(1),
                _ => {}
            }
            if inside || json.depth > 1 {
                self.entry.push(b);
            }
            if inside && json.depth <= 1 {
                self.json = Some(json);
                let entry = std::mem::take(&mut self.entry);
                self.pass(0, &entry)?;
                json.passed = self.json.map_or(0, |j| j.passed);
            }
        }
        self.json = Some(json);
        Ok(())
    }
}

impl Write for Filter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.stages.is_empty() {
            return self.out.write(bytes);
        }
        if self.satisfied {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if let Some(json) = self.json {
            self.take_json(bytes, json)?;
            return Ok(bytes.len());
        }
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() > LONGEST_ENTRY {
                self.take_line()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Whether an entry holds a text; without regard to case if the text has no capital letter. Colours do not count.
fn holds(entry: &[u8], text: &str) -> bool {
    let plain = without_escapes(&String::from_utf8_lossy(entry));
    if text.chars().any(char::is_uppercase) { plain.contains(text) } else { plain.to_lowercase().contains(text) }
}

/// The text without terminal escape sequences.
pub(crate) fn without_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            out.push(c);
        } else if chars.next() == Some('[') {
            // Up to the letter that ends the sequence.
            chars.by_ref().find(|c| c.is_ascii_alphabetic());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::lex::split;
    use super::*;

    fn run(line: &str, input: &str) -> Result<String, Failure> {
        let tree = Tree::new(&crate::app::definition());
        let stages = split(line).unwrap();
        let pipeline = Pipeline::parse(&tree, &stages[1..], line.len()).map_err(|(_, f)| f)?;
        let mut out = Vec::new();
        let mut filter = Filter::new(&pipeline, &mut out);
        for chunk in input.as_bytes().chunks(7) {
            if filter.write_all(chunk).is_err() {
                break;
            }
        }
        filter.finish().unwrap();
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn filters() {
        let text =
            "default \n\tnexthop via A dev x\n\tnexthop via B dev y\n10.0.0.0/8 dev lan0\n10.1.0.0/16 dev LAN1\n";
        for (line, want) in [
            ("r", text),
            ("r | match 10.", "10.0.0.0/8 dev lan0\n10.1.0.0/16 dev LAN1\n"),
            ("r | match lan1", "10.1.0.0/16 dev LAN1\n"),
            ("r | match LAN", "10.1.0.0/16 dev LAN1\n"),
            ("r | match 'via B'", "default \n\tnexthop via A dev x\n\tnexthop via B dev y\n"),
            ("r | except lan", "default \n\tnexthop via A dev x\n\tnexthop via B dev y\n"),
            ("r | begin 10.0 | head 1", "10.0.0.0/8 dev lan0\n"),
            ("r | count", "3\n"),
            ("r | match dev | count | match 3", "3\n"),
            ("r | ma 10. | co", "2\n"),
            ("r | no-more", text),
        ] {
            assert_eq!(run(line, text).unwrap(), want, "{line}");
        }
        assert_eq!(run("r | match x", "\u{1b}[36mx\u{1b}[0m\ny\n").unwrap(), "\u{1b}[36mx\u{1b}[0m\n");
        assert_eq!(run("r | count", "no end of line").unwrap(), "1\n");
    }

    #[test]
    fn elements_of_json_are_entries() {
        let text = "[{\"dst\":\"10.0.0.0/8\",\"flags\":[]},{\"dst\":\"a \\\"]} b\",\"x\":{\"y\":1}},{\"dst\":\"10.1.0.0/16\"}]\n";
        for (line, want) in [
            ("r | json | match 10.", "[{\"dst\":\"10.0.0.0/8\",\"flags\":[]},{\"dst\":\"10.1.0.0/16\"}]\n"),
            ("r | match ']} b' | json", "[{\"dst\":\"a \\\"]} b\",\"x\":{\"y\":1}}]\n"),
            ("r | json | count", "3\n"),
            ("r | json | match nothing", "[]\n"),
            ("r | json", text),
        ] {
            assert_eq!(run(line, text).unwrap(), want, "{line}");
        }
    }

    #[test]
    fn wrong_filters() {
        for (line, want) in [
            ("r |", "a filter must follow"),
            ("r | frob", "\"frob\" is not known here"),
            ("r | match", "\"match\" needs TEXT"),
            ("r | head x", "needs a number"),
            ("r | count x", "too much"),
            ("r | match a b", "too much"),
        ] {
            let f = run(line, "").unwrap_err();
            assert!(f.line.contains(want), "{line}: {f:?}");
        }
    }
}
