//! `duet bench` as a process: short runs of every kind, and what goes wrong.

use std::process::Command;

const DUET: &str = env!("CARGO_BIN_EXE_duet");

fn duet(words: &str) -> (i32, String, String) {
    let out = Command::new(DUET).args(words.split_whitespace()).output().unwrap();
    let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
    (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
}

fn json(words: &str) -> serde_json::Value {
    let (code, out, err) = duet(words);
    assert_eq!((code, err.as_str()), (0, ""), "{words}");
    serde_json::from_str(&out).unwrap()
}

const SHORT: &str = "--seconds 0.01 --destinations 300";

#[test]
fn lookups_of_every_pattern_and_family() {
    for pattern in ["uniform", "prefix", "zipf", "sequential"] {
        for family in ["inet", "inet6"] {
            let v = json(&format!("-j bench lookup --pattern {pattern} --family {family} --routes 500 {SHORT}"));
            assert_eq!((v["family"].as_str(), v["pattern"].as_str()), (Some(family), Some(pattern)));
            assert_eq!((v["table"].as_str(), v["routes"].as_u64()), (Some("synthetic"), Some(500)));
            assert!(v["mlps"].as_f64() > Some(0.0) && v["ns_per_packet"].as_f64() > Some(0.0), "{v}");
            assert!(v["bytes"].as_u64() > Some(0) && v["machine"]["cpu"].is_string(), "{v}");
        }
    }
}

#[test]
fn forwarding_of_every_kind() {
    for path in ["native4", "native6", "via-inet6", "6in4-encap", "6in4-decap"] {
        let v = json(&format!("bench forward --path {path} --routes 100 --batch 8 {SHORT} -j"));
        assert_eq!((v["path"].as_str(), v["batch"].as_u64()), (Some(path), Some(8)));
        assert_eq!((v["routes"].as_u64(), v["destinations"].as_u64()), (Some(100), Some(300)));
        assert!(v["mpps"].as_f64() > Some(0.0), "{v}");
    }
}

#[test]
fn a_table_of_both_families() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("t.txt");
    std::fs::write(&file, "# a table\n2001:db8:1::/48 3\n203.0.113.0/24\n0.0.0.0/0 9\n").unwrap();
    let file = file.display();
    assert_eq!(json(&format!("bench lookup --table {file} {SHORT} -j"))["family"], "inet6");
    assert_eq!(json(&format!("bench lookup --table {file} --family 4 {SHORT} -j"))["routes"], 2);
    assert_eq!(json(&format!("bench forward --path via-inet6 --table {file} {SHORT} -j"))["routes"], 2);
    let (code, out, _) = duet(&format!("bench lookup --table {file} {SHORT}"));
    assert!(code == 0 && out.contains(&format!("1 routes of {file}")) && out.contains("million lookups/s"), "{out}");
    let (code, out, _) = duet(&format!("bench lookup --routes 50 {SHORT}"));
    assert!(code == 0 && out.contains("50 routes of a synthetic table (no --table)"), "{out}");
}

#[test]
fn wrong_input_has_one_clear_line_and_a_code() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let bad = write("bad", b"10.0.0.0/8 1\n10.0.0.1/8 1\n");
    let v4 = write("v4", b"10.0.0.0/8 1\n");
    let gz = write("bad.gz", b"not gzip at all");
    let binary = write("binary", b"\xff\xfe\n");
    let own = write("own", b"192.0.2.1/32 1\n");
    let endless = write("endless", &[b'1'; 100_000]);
    let cases = [
        ("bench lookup --table /nonexistent".into(), 1, "/nonexistent: No such file or directory (os error 2)".into()),
        (format!("bench lookup --table {bad}"), 1, format!("{bad}:2: host bits are set: \"10.0.0.1/8 1\"")),
        (format!("bench lookup --table {v4} --family 6"), 1, format!("{v4}: no IPv6 route in it")),
        (format!("bench forward --path native6 --table {v4}"), 1, format!("{v4}: no IPv6 route in it")),
        (format!("bench lookup --table {gz}"), 1, format!("{gz}: invalid gzip header")),
        (format!("bench lookup --table {binary}"), 1, format!("{binary}:1: not a prefix: ")),
        (format!("bench lookup --table {endless}"), 1, format!("{endless}:1: a line without end: ")),
        (format!("bench forward --path native4 --table {own} {SHORT}"), 2, "only 0 of ".into()),
        ("bench lookup --pattern random".into(), 1, "error: invalid value 'random' for '--pattern <NAME>'".into()),
        ("bench forward --path ipip".into(), 1, "error: invalid value 'ipip' for '--path <NAME>'".into()),
        ("bench forward".into(), 1, "error: the following required arguments were not provided:".into()),
        (
            "bench lookup --seconds 0".into(),
            1,
            "error: invalid value '0' for '--seconds <N>': from 0.001 to 3600".into(),
        ),
        ("bench lookup --cpu 100000".into(), 1, "Cannot run on processor 100000".into()),
        (
            "bench lookup --table x --routes 5".into(),
            1,
            "error: the argument '--table <FILE>' cannot be used with".into(),
        ),
    ];
    for (words, code, line) in cases {
        let (got, out, err) = duet(&words);
        assert_eq!((got, out.as_str()), (code, ""), "{words}: {err}");
        let first = err.lines().next().unwrap_or_default();
        assert!(first.starts_with(&line), "{words}: {first}");
    }
}

#[test]
fn help_names_everything() {
    for (words, wanted) in [
        ("bench --help", ["lookup", "forward"]),
        ("bench lookup --help", ["uniform", "--family"]),
        ("bench forward --help", ["6in4-decap", "--batch"]),
    ] {
        let (code, out, _) = duet(words);
        assert!(code == 0 && wanted.iter().all(|w| out.contains(w)), "{words}: {out}");
    }
}
