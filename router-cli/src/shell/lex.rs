//! A typed line as words and `|` stages, each word with its place in the line.

/// A word of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// The word, quotes removed.
    pub text: String,
    /// Byte offset of its beginning, the quote included.
    pub start: usize,
    /// Byte offset of its end.
    pub end: usize,
}

/// A line that cannot be split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OpenQuote {
    /// Byte offset of the quote that is never closed.
    pub at: usize,
}

/// The stages of a line: its command, then what is behind each `|`. White space separates words; `'` and `"` quote; `#` at
/// the beginning of a word begins a comment.
pub(crate) fn split(line: &str) -> Result<Vec<Vec<Word>>, OpenQuote> {
    let (stages, open) = split_open(line);
    match open {
        Some(at) => Err(OpenQuote { at }),
        None => Ok(stages),
    }
}

/// As [`split`], for lines still being typed: an open quote reaches to the end; its place comes back too.
pub(crate) fn split_open(line: &str) -> (Vec<Vec<Word>>, Option<usize>) {
    let mut stages = vec![Vec::new()];
    let mut word: Option<Word> = None;
    let mut quote: Option<(char, usize)> = None;
    let close = |word: &mut Option<Word>, stages: &mut Vec<Vec<Word>>, end: usize| {
        if let (Some(mut w), Some(last)) = (word.take(), stages.last_mut()) {
            w.end = end;
            last.push(w);
        }
    };
    let mut end = line.len();
    for (i, c) in line.char_indices() {
        let fresh = || Word { text: String::new(), start: i, end: i };
        match quote {
            Some((q, _)) if c == q => quote = None,
            Some(_) => word.get_or_insert_with(fresh).text.push(c),
            None if c == '#' && word.is_none() => {
                end = i;
                break;
            }
            None if c.is_whitespace() => close(&mut word, &mut stages, i),
            None if c == '|' => {
                close(&mut word, &mut stages, i);
                stages.push(Vec::new());
            }
            None if c == '\'' || c == '"' => {
                quote = Some((c, i));
                word.get_or_insert_with(fresh);
            }
            None => word.get_or_insert_with(fresh).text.push(c),
        }
    }
    close(&mut word, &mut stages, end);
    (stages, quote.map(|(_, at)| at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_words_and_places() {
        let texts = |line| -> Vec<Vec<String>> {
            let stages = split(line).unwrap();
            stages.into_iter().map(|s| s.into_iter().map(|w| w.text).collect()).collect()
        };
        assert_eq!(
            texts("route show|match 'a | b' | count # why"),
            [vec!["route", "show"], vec!["match", "a | b"], vec!["count"]]
        );
        assert_eq!(texts(""), [Vec::<String>::new()]);
        assert_eq!(texts("a#b"), [vec!["a#b"]]);
        let w = &split("  ip  'x y'").unwrap()[0];
        assert_eq!((w[1].start, w[1].end, w[1].text.as_str()), (6, 11, "x y"));
        assert_eq!(split("route \"show").unwrap_err(), OpenQuote { at: 6 });
        assert_eq!(split_open("route \"show").0[0][1].text, "show");
    }

    proptest::proptest! {
        #[test]
        fn places_are_within_the_line(line in "\\PC{0,60}") {
            for w in split_open(&line).0.concat() {
                assert!(w.start <= w.end && line.is_char_boundary(w.start) && line.is_char_boundary(w.end));
            }
        }
    }
}
