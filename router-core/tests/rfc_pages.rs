//! Holds the compliance pages `docs/rfc/*.md` and the tests of the workspace together, by the rules of
//! `docs/rfc/README.md`: what a page claims is proven by a test that names the claim, and no test names a claim that no
//! page makes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// One row of a page.
#[derive(Debug)]
struct Row {
    page: String,
    id: String,
    answer: String,
    tests: Vec<String>,
}

/// One test function.
#[derive(Debug)]
struct Test {
    /// Path of its file from the root of the workspace, with slashes.
    file: String,
    name: String,
    /// Ids in its documentation, attributes and body.
    ids: BTreeSet<String>,
}

/// What an id of this page starts with: `4443` gives `rfc4443`, `draft-nodeid` stays.
fn prefix(page: &str) -> String {
    if page.starts_with(|c: char| c.is_ascii_digit()) { format!("rfc{page}") } else { page.to_owned() }
}

/// Ids in a text: words such as `rfc4443-2.4-e6` of one of these pages, or of an RFC without a page.
fn ids_in(text: &str, pages: &BTreeSet<String>) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    text.split(|c: char| !word(c))
        .map(|w| w.trim_end_matches(['.', '-']))
        .filter(|w| {
            let of_rfc = w
                .strip_prefix("rfc")
                .and_then(|rest| rest.split_once('-'))
                .is_some_and(|(n, _)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
            let of_draft = pages.iter().filter(|p| p.starts_with("draft-")).any(|p| {
                let rest = w.strip_prefix(p.as_str()).and_then(|r| r.strip_prefix('-'));
                rest.is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()))
            });
            of_rfc || of_draft
        })
        .map(str::to_owned)
        .collect()
}

/// Rows of a page: table lines of four cells whose first starts as the page's ids do.
fn rows_of(page: &str, text: &str) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut faults) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|l| l.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if cells[0] == "id" || cells[0].starts_with("---") {
            continue;
        }
        let [id, _requirement, answer, tests] = cells[..] else {
            faults.push(format!("{page}.md: not four cells: {line}"));
            continue;
        };
        let tests = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        rows.push(Row { page: page.to_owned(), id: id.to_owned(), answer: answer.to_owned(), tests });
    }
    (rows, faults)
}

/// The tests of a source file, and all ids in it.
fn tests_of(file: &str, text: &str, pages: &BTreeSet<String>) -> (Vec<Test>, BTreeSet<String>) {
    let lines: Vec<&str> = text.lines().collect();
    let mut tests = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        if trimmed != "#[test]" {
            continue;
        }
        let indent = &line[..line.len() - trimmed.len()];
        let above = lines[..i].iter().rev().take_while(|l| {
            let l = l.trim_start();
            l.starts_with("//") || l.starts_with("#[")
        });
        let start = i - above.count();
        let Some(at) = (i..lines.len()).find(|n| lines[*n].trim_start().starts_with("fn ")) else { continue };
        let name = lines[at].trim_start().trim_start_matches("fn ");
        let name = name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned();
        let end = (at..lines.len()).find(|n| lines[*n] == format!("{indent}}}")).unwrap_or(lines.len() - 1);
        let ids = ids_in(&lines[start..=end].join("\n"), pages);
        tests.push(Test { file: file.to_owned(), name, ids });
    }
    (tests, ids_in(text, pages))
}

/// The RFC that a function's name starts with.
fn rfc_in_name(name: &str) -> Option<String> {
    let rest = name.strip_prefix("rfc")?;
    let rest = rest.strip_prefix('_').unwrap_or(rest);
    let n: String = rest.chars().take_while(char::is_ascii_digit).collect();
    (!n.is_empty()).then_some(n)
}

/// Whether a test carries an id: in its text, or at the start of its name (`rfc4443_2_4_e6_...`).
fn carries(test: &Test, id: &str) -> bool {
    let plain = |text: &str| text.replace("rfc_", "rfc").replace(['.', '-'], "_");
    let name = plain(&test.name);
    let in_name = name.strip_prefix(&plain(id)).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
    in_name || test.ids.contains(id)
}

/// The test that a page means: a name, or the end of a path and a name, `icmp/tests.rs::never_answered`.
fn find<'a>(tests: &'a [Test], wanted: &str) -> Vec<&'a Test> {
    let (file, name) = wanted.rsplit_once("::").unwrap_or(("", wanted));
    let fits = |t: &&Test| t.name == name && (file.is_empty() || format!("/{}", t.file).ends_with(&format!("/{file}")));
    tests.iter().filter(fits).collect()
}

/// Everything that is wrong, one line each. `pages` and `sources` are names and texts.
fn faults(pages: &[(String, String)], index: &str, sources: &[(String, String)]) -> Vec<String> {
    let prefixes: BTreeSet<String> = pages.iter().map(|(p, _)| prefix(p)).collect();
    let (mut rows, mut faults) = (Vec::new(), Vec::new());
    for (page, text) in pages {
        let (r, f) = rows_of(page, text);
        if r.is_empty() {
            faults.push(format!("{page}.md has no rows"));
        }
        rows.extend(r);
        faults.extend(f);
        if !index.contains(&format!("({page}.md)")) {
            faults.push(format!("README.md does not list {page}.md"));
        }
    }
    for link in index.split("](").skip(1).filter_map(|rest| rest.split_once(".md)")).map(|(name, _)| name) {
        if !link.contains('/') && !pages.iter().any(|(p, _)| p == link) {
            faults.push(format!("README.md lists {link}.md, which is not there"));
        }
    }
    let mut tests = Vec::new();
    let mut named = Vec::new();
    for (file, text) in sources {
        let (t, ids) = tests_of(file, text, &prefixes);
        tests.extend(t);
        named.extend(ids.into_iter().map(|id| (file, id)));
    }
    let mut by_id: BTreeMap<&str, &Row> = BTreeMap::new();
    for row in &rows {
        let Row { page, id, answer, tests: wanted } = row;
        if by_id.insert(id, row).is_some() {
            faults.push(format!("{page}.md: {id} is there twice"));
        }
        let section = id.strip_prefix(&format!("{}-", prefix(page)));
        if !section.is_some_and(|s| s.starts_with(|c: char| c.is_ascii_alphanumeric())) {
            faults.push(format!("{page}.md: {id} is not {}-SECTION or {0}-SECTION-ITEM", prefix(page)));
        }
        let reason = |kind: &str| answer.strip_prefix(kind).is_some_and(|r| r.starts_with(": ") && r.len() > 8);
        if answer != "yes" && !["no", "later", "not applicable"].iter().any(|k| reason(k)) {
            faults.push(format!("{page}.md: {id}: \"{answer}\" is neither yes nor no, later, not applicable: REASON"));
        }
        if answer == "yes" && wanted.is_empty() {
            faults.push(format!("{page}.md: {id} says yes and names no test"));
        }
        for name in wanted {
            match find(&tests, name)[..] {
                [] => faults.push(format!("{page}.md: {id} names the test {name}, which does not exist")),
                [test] if carries(test, id) => {}
                [test] => faults.push(format!("{}: test {} does not carry {id}, which names it", test.file, test.name)),
                _ => faults.push(format!("{page}.md: {id}: several tests are called {name}: write file.rs::name")),
            }
        }
    }
    for (file, id) in &named {
        if !by_id.contains_key(id.as_str()) {
            faults.push(format!("{file} names {id}, which no page has"));
        }
    }
    let names_back =
        |row: &Row, test: &Test| row.tests.iter().any(|n| find(&tests, n).iter().any(|t| std::ptr::eq(*t, test)));
    for test in &tests {
        for row in test.ids.iter().filter_map(|id| by_id.get(id.as_str())).filter(|row| !names_back(row, test)) {
            faults.push(format!("{}: test {} carries {}, which does not name it", test.file, test.name, row.id));
        }
        if let Some(rfc) = rfc_in_name(&test.name)
            && !rows.iter().any(|row| row.page == rfc && names_back(row, test))
        {
            faults.push(format!("{}: no row of {rfc}.md names the test {}", test.file, test.name));
        }
    }
    faults
}

fn read_all(dir: &Path, extension: &str, root: &Path, found: &mut Vec<(String, String)>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && path.file_name().is_some_and(|n| n != "target") {
            read_all(&path, extension, root, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn pages_and_tests_agree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let dir = root.join("docs/rfc");
    let mut pages = Vec::new();
    read_all(&dir, "md", &dir, &mut pages);
    let pages: Vec<_> = pages.into_iter().map(|(n, t)| (n.trim_end_matches(".md").to_owned(), t)).collect();
    let (index, pages): (Vec<_>, Vec<_>) = pages.into_iter().partition(|(name, _)| name == "README");
    assert!(pages.len() >= 30, "only {} pages in {}", pages.len(), dir.display());
    let mut sources = Vec::new();
    for package in ["router-core", "router-io", "router-cli", "testbeds", "benches"] {
        let before = sources.len();
        read_all(&root.join(package), "rs", root, &mut sources);
        assert!(sources.len() > before, "no sources in {package}");
    }
    // This file's examples are not claims.
    sources.retain(|(file, _)| file != "router-core/tests/rfc_pages.rs");
    let faults = faults(&pages, &index[0].1, &sources);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn each_kind_of_fault_is_found() {
    let good_page = "# RFC 1\n| id | requirement | answer | tests |\n|---|---|---|---|\n\
        | rfc1-2.1-a | MUST | yes | `t`, `rfc1_2_1_a_name` |\n| rfc1-3 | MAY | no: because it is so | |\n";
    let good_source = "/// rfc1-2.1-a\n#[test]\nfn t() {\n    x();\n}\n#[test]\nfn rfc1_2_1_a_name() {\n}\n";
    let good_index = "[one](1.md)";
    let found = |page: &str, index: &str, source: &str| {
        faults(&[("1".into(), page.into())], index, &[("a/b.rs".into(), source.into())])
    };
    assert_eq!(found(good_page, good_index, good_source), Vec::<String>::new());
    let page = |from: &str, to: &str| found(&good_page.replacen(from, to, 1), good_index, good_source).join("\n");
    let source = |from: &str, to: &str| found(good_page, good_index, &good_source.replacen(from, to, 1)).join("\n");
    let rows = [
        ("a row names no such test", page("`t`", "`u`"), "names the test u, which does not exist"),
        ("a yes without test", page("| `t`, `rfc1_2_1_a_name` ", "| "), "says yes and names no test"),
        ("an unknown answer", page("| yes ", "| maybe "), "is neither"),
        ("a no without reason", page("no: because it is so", "no"), "is neither"),
        ("a row twice", page("rfc1-3", "rfc1-2.1-a"), "is there twice"),
        ("a row of another RFC", page("rfc1-3", "rfc2-3"), "is not rfc1-SECTION"),
        ("a row gone", page("| rfc1-2.1-a | MUST | yes | `t`, `rfc1_2_1_a_name` |\n", ""), "which no page has"),
        ("a broken row", page("| MAY ", ""), "not four cells"),
        ("a test that does not carry the id", source("/// rfc1-2.1-a\n", ""), "does not carry rfc1-2.1-a"),
        ("an id without row", source("x()", "x(\"rfc1-9.9-z\")"), "names rfc1-9.9-z, which no page has"),
        ("an id whose row names others", source("x()", "x(\"rfc1-3\")"), "which does not name it"),
        ("a name without row", source("x();\n}", "x();\n}\n#[test]\nfn rfc1_4_new() {\n}"), "no row of 1.md names"),
        ("a name of an RFC without page", source("x();\n}", "x();\n}\n#[test]\nfn rfc_7_x() {\n}"), "no row of 7.md"),
        ("two tests of one name", source("fn rfc1_2_1_a_name", "fn t"), "several tests are called t"),
        ("a page that is not listed", found(good_page, "", good_source).join("\n"), "does not list 1.md"),
        ("a page that is not there", found(good_page, "[1](1.md) [2](2.md)", good_source).join("\n"), "lists 2.md"),
    ];
    for (what, faults, want) in rows {
        assert!(faults.contains(want), "{what}: {faults:?}");
    }
}
