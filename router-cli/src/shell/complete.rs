//! What may come next: behind TAB, `?` and "expected here".

use super::lex::{Word, split_open};
use super::live::{Live, Named};
use super::resolve::{Resolved, Tree, pick};
use super::syntax::{Key, Node, Value};

/// Something that may come next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// The word, or what stands for a value.
    pub text: String,
    /// What it means.
    pub help: String,
    /// It can be typed as it stands.
    pub literal: bool,
}

/// What the grammar allows at a place.
#[derive(Default)]
pub(crate) struct Menu<'t> {
    subs: Vec<&'t Node>,
    keys: Vec<&'t Key>,
    values: Vec<Value>,
    /// The command may end here.
    pub end: bool,
}

/// What may follow these words.
pub(crate) fn menu<'t>(tree: &'t Tree, before: &[&str], filter: bool) -> Menu<'t> {
    if filter {
        return match before {
            [] => Menu { subs: tree.filters.iter().collect(), ..Menu::default() },
            [word, rest @ ..] => pick(&tree.filters, word, 0).map(|n| walk(n, rest)).unwrap_or_default(),
        };
    }
    let (words, mut led) = (behind_options(before), false);
    let words = match words {
        ["ip", rest @ ..] => {
            led = true;
            behind_options(rest)
        }
        other => other,
    };
    match words {
        [] => Menu { subs: tree.first.iter().filter(|n| !led || tree.is_object(n)).collect(), ..Menu::default() },
        [word, rest @ ..] => {
            let found = pick(&tree.first, word, 0).ok().or_else(|| {
                // iproute2's order of priority.
                let name = crate::grammar::find_object(word).map(crate::grammar::object_name)?;
                tree.first.iter().find(|n| n.word == name)
            });
            found.map(|n| walk(n, rest)).unwrap_or_default()
        }
    }
}

/// The words behind the options, of which some have a value.
fn behind_options<'a, 'b>(mut words: &'a [&'b str]) -> &'a [&'b str] {
    while let [option, rest @ ..] = words {
        if !option.starts_with('-') {
            break;
        }
        let value = ["-n", "--name", "-name", "--socket", "-socket", "-f", "-family", "-b", "-batch"].contains(option);
        words = rest.get(usize::from(value)..).unwrap_or_default();
    }
    words
}

/// The word that was probably meant in the place of a wrong one.
pub(crate) fn meant(tree: &Tree, before: &[&str], word: &str, filter: bool) -> Option<String> {
    let menu = menu(tree, before, filter);
    let values = menu.values.iter().filter_map(|v| if let Value::OneOf(list) = v { Some(list) } else { None });
    let values = values.flatten().map(String::as_str);
    let words = menu.subs.iter().map(|n| n.word.as_str()).chain(menu.keys.iter().map(|k| k.word.as_str()));
    crate::config::nearest(word, values.chain(words).filter(|w| *w != word)).map(str::to_owned)
}

/// What may follow `words` behind a node.
fn walk<'t>(node: &'t Node, words: &[&str]) -> Menu<'t> {
    if let [word, rest @ ..] = words
        && !node.sub.is_empty()
        && let Some(next) = pick(&node.sub, word, 0).ok().or_else(|| node.sub.iter().find(|n| n.begins(word)))
    {
        return walk(next, rest);
    }
    let mut arg = 0;
    let mut used: Vec<&str> = Vec::new();
    let mut expecting: Option<Value> = None;
    for word in words {
        if let Some(value) = expecting.take() {
            // "inet" and "inet6" say the family of what follows.
            if value == Value::Via && ["inet", "inet6"].contains(word) {
                expecting = Some(Value::Address);
            }
            continue;
        }
        let known = node.keys.iter().find(|k| k.word == *word);
        let known = known.or_else(|| {
            let mut fitting = node.keys.iter().filter(|k| k.word.starts_with(word));
            fitting.next().filter(|_| fitting.next().is_none())
        });
        match known {
            Some(key) => {
                used.push(&key.word);
                expecting.clone_from(&key.value);
            }
            None => {
                let kind = node.args.get(arg) == Some(&Value::Destination) && is_kind(word);
                arg += usize::from(!kind);
            }
        }
    }
    if let Some(value) = expecting {
        return Menu { values: vec![value], ..Menu::default() };
    }
    let mut values: Vec<Value> = node.args.get(arg).cloned().into_iter().collect();
    if values.is_empty() && node.args_repeat {
        values.extend(node.args.last().cloned());
    }
    let kind_said = words.last().is_some_and(|w| is_kind(w)) && values == [Value::Destination];
    if kind_said {
        return Menu { values: vec![Value::Prefix], ..Menu::default() };
    }
    Menu {
        subs: if words.is_empty() { node.sub.iter().collect() } else { Vec::new() },
        keys: node.keys.iter().filter(|k| k.many || !used.contains(&k.word.as_str())).collect(),
        values,
        end: node.complete || node.sub.is_empty(),
    }
}

fn is_kind(word: &str) -> bool {
    ["unicast", "local", "broadcast", "blackhole", "unreachable", "prohibit", "throw"].contains(&word)
}

impl Menu<'_> {
    /// All that begins with `partial`, values taken from the router where it has them.
    pub fn items(&self, partial: &str, live: &mut dyn Live) -> Vec<Item> {
        let (fixed, known) = self.split_items(partial, live);
        known.into_iter().chain(fixed).collect()
    }

    /// The same, apart: what the grammar says, what values there are.
    fn split_items(&self, partial: &str, live: &mut dyn Live) -> (Vec<Item>, Vec<Item>) {
        let word = |text: &str, help: &str| Item { text: text.into(), help: help.into(), literal: true };
        let mut out: Vec<Item> = Vec::new();
        let mut values: Vec<Item> = Vec::new();
        for value in &self.values {
            let known = known(value, partial, live);
            let known: Vec<Named> = known.into_iter().filter(|(n, _)| n.starts_with(partial)).collect();
            // A placeholder says what else fits.
            if !matches!(value, Value::OneOf(_) | Value::Port | Value::Tunnel) || known.is_empty() {
                out.push(Item { text: value.placeholder().into(), help: value.help().into(), literal: false });
            }
            values.extend(known.iter().map(|(name, about)| word(name, about)));
        }
        out.extend(self.subs.iter().filter(|n| n.begins(partial)).map(|n| word(&n.word, &n.help)));
        let keys = self.keys.iter().filter(|k| k.word.starts_with(partial));
        // Options with dashes are many and dull: they appear when a dash is typed, or when there is nothing else.
        let some = !out.is_empty() || !values.is_empty();
        let dull = |k: &&&Key| k.word.starts_with('-') && partial.is_empty() && some;
        let keys: Vec<Item> = keys.filter(|k| !dull(k)).map(|k| word(&k.word, &k.help)).collect();
        out.extend(keys);
        (out, values)
    }

    /// What was expected, in one line; `end`: the line might have ended.
    fn expected(&self, end: bool) -> String {
        let values = self.values.iter().map(|v| match v {
            Value::OneOf(list) => list.join("|"),
            other => other.placeholder().to_owned(),
        });
        let subs = self.subs.iter().map(|n| n.word.clone());
        let keys = self.keys.iter().map(|k| match &k.value {
            Some(Value::OneOf(_)) | None => k.word.clone(),
            Some(v) => format!("{} {}", k.word, v.placeholder()),
        });
        let end = end.then(|| "end of line".to_owned());
        values.chain(subs).chain(keys).chain(end).collect::<Vec<_>>().join(", ")
    }
}

fn known(value: &Value, partial: &str, live: &mut dyn Live) -> Vec<Named> {
    let plain =
        |words: &[&str], help: &str| words.iter().map(|w| ((*w).to_owned(), help.to_owned())).collect::<Vec<_>>();
    match value {
        Value::Port => live.ports(),
        Value::Tunnel => live.tunnels(),
        Value::Destination => {
            let mut all = plain(&["default"], "everything that no longer prefix covers");
            all.extend(plain(
                &["blackhole", "unreachable", "prohibit", "throw", "unicast", "local"],
                "a type; a prefix follows",
            ));
            all.extend(live.prefixes(partial));
            all
        }
        Value::Prefix => [plain(&["default"], "the default route"), live.prefixes(partial)].concat(),
        Value::Address | Value::Neighbor => live.neighbors(),
        Value::Via => {
            [plain(&["inet", "inet6"], "the gateway's family; its address follows"), live.neighbors()].concat()
        }
        Value::OwnAddress => live.own_addresses(),
        Value::Table => [plain(&["main", "local", "default", "all"], ""), live.tables()].concat(),
        Value::NextHop => live.next_hops(),
        Value::OneOf(list) => list.iter().map(|w| (w.clone(), String::new())).collect(),
        Value::File => files(partial),
        Value::Text(name) if name == "[NAME|SOCKET]" => {
            crate::control::running_names().into_iter().map(|n| (n, String::new())).collect()
        }
        Value::Text(_) | Value::Mac | Value::Number => Vec::new(),
    }
}

/// Files that begin so.
fn files(partial: &str) -> Vec<Named> {
    let (dir, _) = partial.rsplit_once('/').map_or(("", partial), |(d, f)| (if d.is_empty() { "/" } else { d }, f));
    let prefix = partial.rsplit_once('/').map_or(String::new(), |(d, _)| format!("{d}/"));
    let Ok(list) = std::fs::read_dir(if dir.is_empty() { "." } else { dir }) else { return Vec::new() };
    let mut out: Vec<Named> = list
        .flatten()
        .take(1000)
        .map(|e| {
            let slash = if e.path().is_dir() { "/" } else { "" };
            (format!("{prefix}{}{slash}", e.file_name().to_string_lossy()), String::new())
        })
        .collect();
    out.sort();
    out
}

/// A line being typed: the stage that the cursor is in, the words before it, and the one that it is in or at the end of.
pub(crate) struct Place {
    pub filter: bool,
    pub before: Vec<String>,
    pub partial: String,
    /// Where the partial word begins.
    pub start: usize,
}

impl Place {
    /// The cursor is at the end of `line`.
    pub fn at_end_of(line: &str) -> Place {
        let (stages, _) = split_open(line);
        let filter = stages.len() > 1;
        let mut words: Vec<Word> = stages.into_iter().next_back().unwrap_or_default();
        let partial = words.pop_if(|w| w.end == line.len());
        let start = partial.as_ref().map_or(line.len(), |w| w.start);
        let before = words.into_iter().map(|w| w.text).collect();
        Place { filter, before, partial: partial.map(|w| w.text).unwrap_or_default(), start }
    }

    /// What may be here.
    pub fn items(&self, tree: &Tree, live: &mut dyn Live) -> Vec<Item> {
        let before: Vec<&str> = self.before.iter().map(String::as_str).collect();
        menu(tree, &before, self.filter).items(&self.partial, live)
    }
}

/// Names and prefixes of the router that `?` lists.
const MOST_KNOWN: usize = 10;

/// What `?` prints.
pub(crate) fn help(tree: &Tree, line: &str, live: &mut dyn Live) -> String {
    let place = Place::at_end_of(line);
    let before: Vec<&str> = place.before.iter().map(String::as_str).collect();
    let menu = menu(tree, &before, place.filter);
    // What the grammar says first, then what the router has, of which there may be much.
    let (fixed, known) = menu.split_items(&place.partial, live);
    let more = known.len().saturating_sub(MOST_KNOWN);
    let mut rows: Vec<(String, String)> =
        fixed.into_iter().chain(known.into_iter().take(MOST_KNOWN)).map(|i| (i.text, i.help)).collect();
    if more > 0 {
        rows.push(("...".into(), "and more; TAB completes".into()));
    }
    if place.partial.is_empty() && !before.is_empty() && ends(tree, line, &menu) {
        rows.push(("<cr>".into(), "run it".into()));
        if !place.filter || menu.end {
            rows.push(("|".into(), "match, except, begin, count, head, json: what becomes of the output".into()));
        }
    }
    if rows.is_empty() {
        let place = if place.partial.is_empty() {
            "Nothing more fits here.\n".to_owned()
        } else {
            format!("Nothing begins with \"{}\" here.\n", place.partial)
        };
        return place;
    }
    let width = rows.iter().map(|(w, _)| w.chars().count()).max().unwrap_or(0).min(32);
    rows.iter().map(|(w, h)| format!("  {w:<width$}  {h}").trim_end().to_owned() + "\n").collect()
}

/// Whether the line is a command as it stands.
fn ends(tree: &Tree, line: &str, menu: &Menu<'_>) -> bool {
    let Ok(stages) = super::lex::split(line) else { return false };
    if stages.len() > 1 {
        return menu.end;
    }
    whole(tree, &stages[0], menu)
}

/// Whether these words are a command.
fn whole(tree: &Tree, words: &[Word], menu: &Menu<'_>) -> bool {
    match tree.resolve(words) {
        Ok(Resolved::Grammar { options, words, .. }) => {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            crate::grammar::parse_command(&words, options.family).is_ok()
        }
        Ok(_) => menu.end,
        Err(_) => false,
    }
}

/// What was expected in the place of word `at`.
pub(crate) fn expected(tree: &Tree, words: &[Word], at: usize, filter: bool) -> String {
    let before: Vec<&str> = words.iter().take(at).map(|w| w.text.as_str()).collect();
    let menu = menu(tree, &before, filter);
    let end = if filter { menu.end } else { whole(tree, words.get(..at).unwrap_or_default(), &menu) };
    let text = menu.expected(end);
    // The first words are too many to list under an error.
    if at == 0 && !filter { String::new() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Live for Fixed {
        fn ports(&mut self) -> Vec<Named> {
            vec![("lan0".into(), "packet, up".into()), ("he".into(), "tunnel, up".into())]
        }
        fn tunnels(&mut self) -> Vec<Named> {
            vec![("he".into(), String::new())]
        }
        fn neighbors(&mut self) -> Vec<Named> {
            vec![("192.0.2.9".into(), "lan0 reachable".into())]
        }
        fn own_addresses(&mut self) -> Vec<Named> {
            vec![("192.0.2.1/24".into(), "lan0".into())]
        }
        fn next_hops(&mut self) -> Vec<Named> {
            vec![("7".into(), "via 192.0.2.9".into())]
        }
        fn tables(&mut self) -> Vec<Named> {
            vec![("100".into(), String::new())]
        }
        fn prefixes(&mut self, _: &str) -> Vec<Named> {
            vec![("203.0.113.0/24".into(), String::new()), ("2001:db8::/32".into(), String::new())]
        }
    }

    fn words(line: &str) -> Vec<String> {
        let tree = Tree::new(&crate::app::definition());
        let items = Place::at_end_of(line).items(&tree, &mut Fixed);
        items.into_iter().filter(|i| i.literal).map(|i| i.text).collect()
    }

    #[test]
    fn what_may_come_next() {
        for (line, want) in [
            ("ro", "route"),
            ("ip ro", "route"),
            ("route sh", "show"),
            ("route add 203", "203.0.113.0/24"),
            ("route add 203.0.113.0/24 via inet6 19", "192.0.2.9"),
            ("route add blackhole 20", "203.0.113.0/24"),
            ("route show dev l", "lan0"),
            ("link set ", "lan0"),
            ("link set lan0 m", "mtu"),
            ("tunnel del ", "he"),
            ("neigh show nud rea", "reachable"),
            ("nexthop get id ", "7"),
            ("addr del 192", "192.0.2.1/24"),
            ("route show table 1", "100"),
            ("route show | co", "count"),
            ("route show | match x | ", "count"),
            ("show ip ro", "route"),
            ("show ip route ", "summary"),
            ("show route f", "for"),
            ("drops --a", "--all"),
            ("ro sh ta", "table"),
            ("-6 rou", "route"),
        ] {
            assert!(words(line).contains(&want.to_owned()), "{line}: {:?}", words(line));
        }
        assert_eq!(words("route add 203.0.113.0/24 metric "), Vec::<String>::new());
        assert!(!words("ip ").contains(&"stats".to_owned()));
        assert!(!words("route show proto bgp ").contains(&"proto".to_owned()), "said already");
    }

    #[test]
    fn question_mark() {
        let tree = Tree::new(&crate::app::definition());
        let text = help(&tree, "route add 203.0.113.0/24 ", &mut Fixed);
        assert!(text.contains("  via") && text.contains("  metric") && !text.contains("<cr>"), "{text}");
        let text = help(&tree, "route add 203.0.113.0/24 dev lan0 ", &mut Fixed);
        assert!(text.contains("<cr>"), "{text}");
        assert!(help(&tree, "", &mut Fixed).contains("route"));
        assert!(help(&tree, "route xyz", &mut Fixed).contains("Nothing begins with"));
        assert!(help(&tree, "route get ", &mut Fixed).contains("ADDRESS"));
    }

    #[test]
    fn expected_in_place_of_a_word() {
        let tree = Tree::new(&crate::app::definition());
        let words = super::super::lex::split("route show frobnicate").unwrap().remove(0);
        let text = expected(&tree, &words, 2, false);
        assert!(text.starts_with("PREFIX") && text.contains("dev PORT") && text.ends_with("end of line"), "{text}");
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_bearable(line in "[a-z0-9 :/.|'\"?-]{0,40}") {
            let tree = Tree::new(&crate::app::definition());
            let _ = help(&tree, &line, &mut Fixed);
            let _ = Place::at_end_of(&line).items(&tree, &mut Fixed);
        }
    }
}
