//! Words of a filter and where they stand.

/// A word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word<'t> {
    pub text: &'t str,
    pub at: usize,
}

/// Characters that are words of their own wherever they stand.
const ALONE: &str = "()[]+*%^";
/// Characters that are operators, alone or with the one that may follow.
const PAIRS: [&str; 8] = ["&&", "||", "==", "!=", "<=", ">=", "<<", ">>"];
const OPERATORS: &str = "!&|=<>";

/// Splits a filter into words, parentheses and operators. A backslash before a word, with which tcpdump's users keep
/// protocol names from being keywords, is left out. `-`, `/` and `:` are parts of words (`20-60`, `10.0.0.0/8`) but for
/// those in brackets; arithmetic elsewhere takes such words apart by [`split`].
pub(super) fn words(text: &str) -> Vec<Word<'_>> {
    let mut out = Vec::new();
    let mut brackets = 0usize;
    let mut rest = text.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        if c.is_whitespace() || c == '\\' {
            continue;
        }
        match c {
            '[' => brackets += 1,
            ']' => brackets = brackets.saturating_sub(1),
            _ => {}
        }
        let single = ALONE.contains(c) || (brackets > 0 && c == ':');
        let end = if single {
            at + 1
        } else if OPERATORS.contains(c) {
            let pair = text.get(at..at + 2).filter(|p| PAIRS.contains(p));
            if pair.is_some() {
                rest.next();
            }
            at + 1 + usize::from(pair.is_some())
        } else {
            let ends =
                |n: char| n.is_whitespace() || ALONE.contains(n) || OPERATORS.contains(n) || (brackets > 0 && n == ':');
            let mut end = at + c.len_utf8();
            while let Some((i, n)) = rest.next_if(|(_, n)| !ends(*n)) {
                end = i + n.len_utf8();
            }
            end
        };
        out.push(Word { text: &text[at..end], at });
    }
    out
}

/// The parts of a word in arithmetic: `len-5` is three, `tcp-syn` one.
pub(super) fn split<'t>(word: Word<'t>, is_name: impl Fn(&str) -> bool) -> Option<[Word<'t>; 3]> {
    if is_name(word.text) {
        return None;
    }
    // Of `tcp-syn-1` the name is as long as it can be.
    let mut at = word.text.char_indices().rev().filter(|(_, c)| "-/".contains(*c)).map(|(i, _)| i);
    let at = at.clone().find(|i| is_name(&word.text[..*i])).or_else(|| at.next_back())?;
    let part = |from: usize, to: usize| Word { text: &word.text[from..to], at: word.at + from };
    Some([part(0, at), part(at, at + 1), part(at + 1, word.text.len())])
}
