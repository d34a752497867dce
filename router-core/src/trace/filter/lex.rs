//! Words of a filter and where they stand.

/// A word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word<'t> {
    pub text: &'t str,
    pub at: usize,
}

/// Splits a filter into words, parentheses and operators. A backslash before a word, with which tcpdump's users keep
/// protocol names from being keywords, is left out.
pub(super) fn words(text: &str) -> Vec<Word<'_>> {
    let mut out = Vec::new();
    let mut rest = text.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        if c.is_whitespace() || c == '\\' {
            continue;
        }
        let end = match c {
            '(' | ')' => at + 1,
            '!' => at + 1,
            '&' | '|' => match rest.next_if(|(_, n)| *n == c) {
                Some((second, _)) => second + 1,
                None => at + 1,
            },
            _ => {
                let mut end = at + c.len_utf8();
                while let Some((i, n)) = rest.next_if(|(_, n)| !n.is_whitespace() && !"()!&|".contains(*n)) {
                    end = i + n.len_utf8();
                }
                end
            }
        };
        out.push(Word { text: &text[at..end], at });
    }
    out
}
