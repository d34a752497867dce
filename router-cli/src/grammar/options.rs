//! Options before the object: `-4 -6 -j -p -s -d -o -br -batch FILE -force -family F`, one or two dashes, abbreviated as
//! iproute2 lets them be, and duet's own `--socket PATH` and `-n NAME`.

use super::failure::{Failure, exit};
use super::{PROGRAM, usage};
use router_core::addr::Family;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `-4`, `-6`, `-family`.
    pub family: Option<Family>,
    /// `-j`: JSON.
    pub json: bool,
    /// `-p`: indented JSON.
    pub pretty: bool,
    /// `-s`: statistics; twice for more.
    pub stats: u8,
    /// `-d`: details.
    pub details: bool,
    /// `-o`: one line per object.
    pub oneline: bool,
    /// `-br`: brief table.
    pub brief: bool,
    /// `-batch FILE`; `-` is standard input.
    pub batch: Option<String>,
    /// `-force`: a batch goes on after failures.
    pub force: bool,
    /// `--socket PATH`.
    pub socket: Option<String>,
    /// `-n NAME`: the router called so, by its socket in /run/duet.
    pub name: Option<String>,
    /// `-c`: colour; None decides by terminal and NO_COLOR.
    pub color: Option<bool>,
}

impl Options {
    /// Adds what was said before another set of options; this set wins where both say something.
    pub fn merge(&mut self, outer: Options) {
        self.family = self.family.or(outer.family);
        self.json |= outer.json;
        self.pretty |= outer.pretty;
        self.stats = self.stats.saturating_add(outer.stats);
        self.details |= outer.details;
        self.oneline |= outer.oneline;
        self.brief |= outer.brief;
        self.force |= outer.force;
        self.batch = self.batch.take().or(outer.batch);
        self.socket = self.socket.take().or(outer.socket);
        self.name = self.name.take().or(outer.name);
        self.color = self.color.or(outer.color);
    }
}

/// What the options are, where one is wrong.
const OPTIONS: &str = "-4, -6, -j, -p, -s, -d, -o, -br, -c, -batch FILE, -force, -n NAME, --socket PATH";

/// Reads options in front; returns them with the rest of the words.
pub fn parse_options<'a>(mut words: &'a [&'a str]) -> Result<(Options, &'a [&'a str]), Failure> {
    let all = words.len();
    let mut o = Options::default();
    while let [word, rest @ ..] = words {
        let here = all - words.len();
        if !word.starts_with('-') || *word == "-" {
            break;
        }
        words = rest;
        if *word == "--" {
            break;
        }
        let opt = if word.starts_with("--") { &word[1..] } else { word };
        let (opt, inline) = match opt.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (opt, None),
        };
        // iproute2's own order decides which option an abbreviation means.
        let is = |name: &str| opt.len() >= 2 && name.starts_with(opt);
        let mut value = || match inline.or_else(|| words.first().copied()) {
            Some(v) => {
                if inline.is_none() {
                    words = &words[1..];
                }
                Ok(v)
            }
            None => Err(Failure::with_hint(
                exit::SYNTAX,
                "Command line is not complete. Try option \"help\"",
                format!("\"{word}\" needs a value"),
            )
            .at(all)),
        };
        if opt == "-socket" || opt == "-sock" {
            o.socket = Some(value()?.to_owned());
        } else if is("-family") {
            o.family = family(value()?).map_err(|f| f.at(here + usize::from(inline.is_none())))?;
        } else if opt == "-4" {
            o.family = Some(Family::Inet);
        } else if opt == "-6" {
            o.family = Some(Family::Inet6);
        } else if is("-statistics") || is("-stats") {
            o.stats = o.stats.saturating_add(1);
        } else if is("-details") {
            o.details = true;
        } else if is("-oneline") {
            o.oneline = true;
        } else if is("-force") {
            o.force = true;
        } else if is("-batch") {
            o.batch = Some(value()?.to_owned());
        } else if is("-brief") {
            o.brief = true;
        } else if is("-json") {
            o.json = true;
        } else if is("-pretty") {
            o.pretty = true;
        } else if opt == "-n" || opt == "-name" {
            o.name = Some(value()?.to_owned());
        } else if is("-color") || opt == "-colour" {
            o.color = Some(inline != Some("never"));
        } else if is("-human-readable")
            || is("-resolve")
            || is("-Numeric")
            || is("-timestamp")
            || opt == "-ts"
            || is("-tshort")
            || is("-iec")
        {
            // Accepted, without effect: names are never resolved here.
        } else if is("-help") {
            return Err(Failure::new(exit::SYNTAX, usage(None)));
        } else {
            let line = format!("Option \"{word}\" is unknown, try \"{PROGRAM} -help\".");
            return Err(Failure::new(exit::SYNTAX, line).at(here).expecting(OPTIONS));
        }
    }
    Ok((o, words))
}

fn family(text: &str) -> Result<Option<Family>, Failure> {
    match text {
        "inet" => Ok(Some(Family::Inet)),
        "inet6" => Ok(Some(Family::Inet6)),
        _ => Err(Failure::with_hint(
            exit::SYNTAX,
            format!("Error: argument \"{text}\" is wrong: invalid protocol family"),
            "say inet or inet6",
        )
        .expecting("inet, inet6")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(Options, Vec<String>), Failure> {
        let words: Vec<&str> = text.split_whitespace().collect();
        parse_options(&words).map(|(o, rest)| (o, rest.iter().map(|s| s.to_string()).collect()))
    }

    #[test]
    fn abbreviations_and_values() {
        let (o, rest) = parse("-6 -j -p -s -s -det -o route show").unwrap();
        assert_eq!(
            (o.family, o.json, o.pretty, o.stats, o.details, o.oneline),
            (Some(Family::Inet6), true, true, 2, true, true)
        );
        assert_eq!(rest, ["route", "show"]);
        let (o, rest) = parse("--json -f inet --socket /x -b - -fo").unwrap();
        assert_eq!((o.family, o.batch.as_deref(), o.socket.as_deref()), (Some(Family::Inet), Some("-"), Some("/x")));
        assert!(o.force && rest.is_empty());
        assert_eq!(parse("--socket=/x l").unwrap().0.socket.as_deref(), Some("/x"));
        assert_eq!(parse("-x").unwrap_err().line, "Option \"-x\" is unknown, try \"duet -help\".");
        assert_eq!(parse("-b").unwrap_err().exit, 255);
        assert_eq!(parse("-f foo").unwrap_err().line, "Error: argument \"foo\" is wrong: invalid protocol family");
    }
}
