//! Splits a line of a batch file or of the configuration into words, remembering where each one stood.

/// A word and where it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The word, quotes removed.
    pub text: String,
    /// Byte offset in the line.
    pub start: usize,
}

/// Words of one line. White space separates; `'` and `"` quote; `#` outside quotes begins a comment.
pub fn tokenize(line: &str) -> Vec<Token> {
    let mut out = Vec::new();
    let mut word: Option<Token> = None;
    let mut quote: Option<char> = None;
    for (i, c) in line.char_indices() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => word.get_or_insert_with(|| Token { text: String::new(), start: i }).text.push(c),
            None if c == '#' => break,
            None if c.is_whitespace() => out.extend(word.take()),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_with(|| Token { text: String::new(), start: i });
            }
            None => word.get_or_insert_with(|| Token { text: String::new(), start: i }).text.push(c),
        }
    }
    out.extend(word);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_quotes_comments() {
        let words = |s| tokenize(s).into_iter().map(|t| (t.text, t.start)).collect::<Vec<_>>();
        assert_eq!(words(" a  bc "), [("a".to_owned(), 1), ("bc".to_owned(), 4)]);
        assert_eq!(
            words("a 'b c' \"\" d#e"),
            [("a".into(), 0), ("b c".into(), 2), (String::new(), 8), ("d".into(), 11)]
        );
        assert_eq!(words("# all"), []);
        assert_eq!(words("\"open"), [("open".to_owned(), 0)]);
    }
}
