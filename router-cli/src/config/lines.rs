//! Lines of the command grammar inside the configuration; problems point at the word.

use super::problem::Problems;
use crate::grammar::{Failure, Token, tokenize};
use std::ops::Range;

/// Splits `text`, adds `extra` words, and lets `parse` read them.
pub(super) fn parse_line<T>(
    text: &str,
    span: Range<usize>,
    extra: impl Fn(&[&str]) -> Vec<String>,
    problems: &mut Problems<'_>,
    parse: impl Fn(&[&str]) -> Result<T, Failure>,
) -> Option<T> {
    let tokens = tokenize(text);
    if tokens.is_empty() {
        problems.add(span, "an empty line", "leave it out");
        return None;
    }
    let words: Vec<&str> = tokens.iter().map(|t| t.text.as_str()).collect();
    let extra = extra(&words);
    let all: Vec<&str> = words.iter().copied().chain(extra.iter().map(String::as_str)).collect();
    match parse(&all) {
        Ok(v) => Some(v),
        Err(f) => {
            let place = f
                .word
                .and_then(|w| tokens.get(w).or(tokens.last()))
                .map_or(0, |t| offset(text, &span, t, problems.text()));
            let line = f.line.strip_prefix("Error: ").unwrap_or(&f.line);
            let line = line.strip_prefix("RTNETLINK answers: ").unwrap_or(line);
            problems.add(span.start + place..span.end, line, f.hint.unwrap_or_default());
            None
        }
    }
}

/// Where a word of a string begins, counted from the string's opening quote. Known only when the string stands in the
/// file as it is, without escapes.
fn offset(text: &str, span: &Range<usize>, token: &Token, file: &str) -> usize {
    let raw = file.get(span.clone()).unwrap_or_default();
    for quote in ["\"\"\"", "'''", "\"", "'"] {
        if let Some(inner) = raw.strip_prefix(quote).and_then(|r| r.strip_suffix(quote)) {
            let skipped = inner.len().saturating_sub(text.len());
            return if inner.ends_with(text) && skipped <= 2 { quote.len() + skipped + token.start } else { 0 };
        }
    }
    0
}
