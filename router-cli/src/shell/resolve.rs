//! From typed words to a command: abbreviations are written out, ambiguous ones listed.

use super::lex::Word;
use super::syntax::{self, Node};
use crate::grammar::{Failure, Options, exit, find_object, object_name, parse_options};

/// Everything that can be typed.
pub(crate) struct Tree {
    /// First words of a line.
    pub first: Vec<Node>,
    /// First words behind `|`.
    pub filters: Vec<Node>,
    objects: Vec<String>,
    own: Vec<String>,
}

/// A line's command.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Resolved {
    /// Nothing was typed.
    Empty,
    /// iproute2's grammar; `offset` words of the line come before `words`.
    Grammar { options: Options, words: Vec<String>, offset: usize },
    /// A command of the program's own, and the place of each of its words in the line.
    Own(Vec<String>, Vec<usize>),
    /// `show ...` of FRR or BIRD, `show` included.
    Show(Vec<String>),
    /// `route -n get ADDRESS` of the BSDs: its arguments and the place of the first of them in the line.
    Bsd(Vec<String>, usize),
    /// One of the shell's own words with its arguments.
    Builtin(String, Vec<String>),
}

impl Tree {
    pub fn new(program: &clap::Command) -> Self {
        let objects = syntax::objects();
        let own = syntax::own(program);
        let names = |nodes: &[Node]| nodes.iter().map(|n| n.word.clone()).collect();
        let (object_names, own_names) = (names(&objects), names(&own));
        let mut first = objects;
        first.push(syntax::show());
        first.extend(own);
        first.extend(syntax::builtins());
        Tree { first, filters: syntax::filters(), objects: object_names, own: own_names }
    }

    /// What a single command may be: no words of a conversation, but all commands of the program.
    pub fn whole(program: &clap::Command) -> Self {
        let objects = syntax::objects();
        let own = syntax::all_own(program);
        let names = |nodes: &[Node]| nodes.iter().map(|n| n.word.clone()).collect();
        let (object_names, own_names) = (names(&objects), names(&own));
        Tree { first: [objects, own].concat(), filters: Vec::new(), objects: object_names, own: own_names }
    }

    /// iproute2's objects: what may follow `ip`.
    pub fn is_object(&self, node: &Node) -> bool {
        self.objects.contains(&node.word)
    }

    /// Understands a command.
    pub fn resolve(&self, line: &[Word]) -> Result<Resolved, Failure> {
        let texts: Vec<&str> = line.iter().map(|w| w.text.as_str()).collect();
        let led = texts.first() == Some(&"ip");
        let rest = if led { &texts[1..] } else { &texts[..] };
        if !led && bsd_get(rest) {
            let at = rest.iter().position(|w| *w == "get").map_or(rest.len(), |i| i + 1);
            return Ok(Resolved::Bsd(rest[at..].iter().map(|w| (*w).to_owned()).collect(), at));
        }
        let (options, words) = parse_options(rest).map_err(|f| f.behind(usize::from(led)))?;
        let offset = texts.len() - words.len();
        let Some(word) = words.first() else {
            return match texts.is_empty() {
                true => Ok(Resolved::Empty),
                false => Err(Failure::with_hint(
                    exit::SYNTAX,
                    "Error: a command is missing.",
                    "\"?\" lists what can be typed",
                )
                .at(texts.len())),
            };
        };
        if led && word.len() > 1 && "monitor".starts_with(word) {
            let before = texts[1..offset].iter();
            let words = std::iter::once(&"monitor").chain(before).chain(&words[1..]);
            let places = std::iter::once(offset).chain(1..offset).chain(offset + 1..texts.len());
            return Ok(Resolved::Own(words.map(|w| (*w).to_owned()).collect(), places.collect()));
        }
        if led {
            // Fingers expect iproute2's own order of priority here.
            let object = find_object(word).map(|o| object_name(o).to_owned());
            let words = object.into_iter().chain(words.iter().skip(1).map(|w| (*w).to_owned()));
            let words: Vec<String> = words.collect();
            let words = if find_object(word).is_some() {
                words
            } else {
                texts[offset..].iter().map(|w| (*w).to_owned()).collect()
            };
            return Ok(Resolved::Grammar { options, words, offset });
        }
        let node = pick(&self.first, word, offset)?;
        let full = spell_out(node, words, offset)?;
        Ok(match () {
            () if self.objects.contains(&node.word) && full.get(1).map(String::as_str) == Some("diff") => {
                Resolved::Own(full, (offset..texts.len()).collect())
            }
            () if self.objects.contains(&node.word) => Resolved::Grammar { options, words: full, offset },
            () if self.own.contains(&node.word) => {
                // Options that were typed first belong to the command.
                let before = texts[..offset].iter().map(|w| (*w).to_owned());
                let mut full = full;
                full.splice(1..1, before);
                let places = std::iter::once(offset).chain(0..offset).chain(offset + 1..texts.len());
                Resolved::Own(full, places.collect())
            }
            () if node.word == "show" => Resolved::Show(full),
            () => Resolved::Builtin(full[0].clone(), full[1..].to_vec()),
        })
    }
}

/// `route -n get`, `route get -inet6`: a form that only the BSDs have.
fn bsd_get(words: &[&str]) -> bool {
    let [first, rest @ ..] = words else { return false };
    let flags = rest.iter().take_while(|w| w.starts_with('-')).count();
    *first == "route"
        && rest.get(flags) == Some(&"get")
        && (flags > 0 || rest.get(flags + 1).is_some_and(|w| ["-inet", "-inet6", "-host", "-net"].contains(w)))
}

/// The node that `word` names or abbreviates.
pub(crate) fn pick<'n>(nodes: &'n [Node], word: &str, at: usize) -> Result<&'n Node, Failure> {
    if let Some(node) = nodes.iter().find(|n| n.is(word)) {
        return Ok(node);
    }
    let fitting: Vec<&Node> = nodes.iter().filter(|n| !word.is_empty() && n.begins(word)).collect();
    match fitting.as_slice() {
        [one] => Ok(one),
        [] => {
            let names = nodes.iter().map(|n| n.word.as_str());
            let hint = match crate::config::nearest(word, names) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => "\"?\" lists what can be typed".into(),
            };
            Err(Failure::with_hint(exit::SYNTAX, format!("Error: \"{word}\" is not known here."), hint).at(at))
        }
        several => {
            let names: Vec<&str> = several.iter().map(|n| n.word.as_str()).collect();
            let line = format!("Error: \"{word}\" is ambiguous: {}.", names.join(", "));
            Err(Failure::with_hint(exit::SYNTAX, line, "type some more letters").at(at))
        }
    }
}

/// The words with every word of the tree in full.
fn spell_out(node: &Node, words: &[&str], offset: usize) -> Result<Vec<String>, Failure> {
    let mut out = vec![node.word.clone()];
    let mut node = node;
    let mut at = 1;
    while let Some(word) = words.get(at).filter(|_| !node.sub.is_empty()) {
        let argument = !node.args.is_empty() || word.starts_with('-');
        match pick(&node.sub, word, offset + at) {
            Ok(next) => {
                out.push(next.word.clone());
                node = next;
                at += 1;
            }
            Err(_) if argument || !node.keys.is_empty() => break,
            Err(failure) => return Err(failure),
        }
    }
    if node.sub.is_empty() || node.complete || at < words.len() {
        out.extend(words[at.min(words.len())..].iter().map(|w| (*w).to_owned()));
        return Ok(out);
    }
    let names: Vec<&str> = node.sub.iter().map(|n| n.word.as_str()).collect();
    let line = format!("Error: \"{}\" is not complete.", node.word);
    Err(Failure::with_hint(exit::SYNTAX, line, format!("it goes on with {}", names.join(", ")))
        .at(offset + words.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::lex::split;

    fn resolve(line: &str) -> Result<Resolved, Failure> {
        let tree = Tree::new(&crate::app::definition());
        tree.resolve(&split(line).unwrap()[0])
    }

    fn grammar(line: &str) -> String {
        match resolve(line) {
            Ok(Resolved::Grammar { words, .. }) => words.join(" "),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn abbreviations_are_spelled_out() {
        for (line, want) in [
            ("ro sh", "route show"),
            ("rou sh table all", "route show table all"),
            ("nei", "neigh"),
            ("ip r", "route"),
            ("ip n sh", "neigh sh"),
            ("ip -6 ro get 2001:db8::1", "route get 2001:db8::1"),
            ("a l", "addr show"),
            ("li set lan0 down", "link set lan0 down"),
            ("nex", "nexthop"),
        ] {
            assert_eq!(grammar(line), want, "{line}");
        }
    }

    #[test]
    fn ambiguous_and_unknown_words_are_said() {
        for (line, want, word) in [
            ("r", "Error: \"r\" is ambiguous: route, rule, reload.", 0),
            ("route re 10.0.0.0/8", "Error: \"re\" is ambiguous: replace, reload", 1),
            ("rute show", "Error: \"rute\" is not known here.", 0),
            ("show ip", "Error: \"ip\" is not complete.", 2),
            ("route shwo", "Error: \"shwo\" is not known here.", 1),
        ] {
            match resolve(line) {
                Err(f) => {
                    assert_eq!(f.word, Some(word), "{line}: {f:?}");
                    let same = f.line.split(':').next() == want.split(':').next();
                    assert!(same, "{line}: {f:?}");
                }
                Ok(Resolved::Grammar { words, .. }) if line.starts_with("route re") => assert_eq!(words[1], "replace"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn other_tongues() {
        assert_eq!(resolve("route -n get 192.0.2.1").unwrap(), Resolved::Bsd(vec!["192.0.2.1".into()], 3));
        assert!(matches!(resolve("route get 192.0.2.1").unwrap(), Resolved::Grammar { .. }));
        let show = |line| match resolve(line).unwrap() {
            Resolved::Show(w) => w.join(" "),
            other => panic!("{other:?}"),
        };
        assert_eq!(show("sh ip ro"), "show ip route");
        assert_eq!(show("sho ip ro 192.0.2.1"), "show ip route 192.0.2.1");
        assert_eq!(show("show ip fib sum"), "show ip fib summary");
        assert_eq!(show("show route for 192.0.2.1"), "show route for 192.0.2.1");
        assert_eq!(resolve("").unwrap(), Resolved::Empty);
        assert_eq!(resolve("quit").unwrap(), Resolved::Builtin("exit".into(), vec![]));
        assert_eq!(resolve("sta").unwrap(), Resolved::Own(vec!["stats".into()], vec![0]));
        assert_eq!(
            resolve("-j drops --all").unwrap(),
            Resolved::Own(["drops", "-j", "--all"].map(str::to_owned).to_vec(), vec![1, 0, 2])
        );
    }
}
