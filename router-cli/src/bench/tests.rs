//! The text and JSON of a known measurement. Runs of the program itself are in `tests/bench.rs`.

use super::show::{Report, text};
use benches::measure::{Plan, Spread};
use router_io::machine::Machine;
use std::time::Duration;

fn report() -> Report {
    Report {
        bench: "forward",
        title: "Forwarding native4, UDP packets of 64 bytes".into(),
        path: Some("native4"),
        family: "inet",
        pattern: "zipf",
        table: "t.gz".into(),
        routes: 1_000_000,
        bytes: 3 << 20,
        load: Duration::from_millis(500),
        destinations: 1000,
        batch: 256,
        item: Spread { min: 20.0, median: 25.0, max: 40.0 },
        plan: Plan { runs: 5, time: Duration::from_millis(500) },
    }
}

fn machine(ghz: f64) -> Machine {
    Machine { cpu: "Some CPU".into(), cpus: 2, ghz, kernel: "6.1".into() }
}

#[test]
fn json_has_what_programs_look_for() {
    let v = report().json(&machine(2.5));
    assert_eq!((v["mpps"].as_f64(), v["ns_per_packet"].as_f64()), (Some(40.0), Some(25.0)));
    assert_eq!(
        (v["clocks_per_packet"].as_f64(), v["spread"]["clocks_per_packet"]["max"].as_f64()),
        (Some(62.5), Some(100.0))
    );
    assert_eq!((v["routes"].as_u64(), v["bytes"].as_u64()), (Some(1_000_000), Some(3 << 20)));
    assert_eq!(v["load_routes_per_second"].as_f64(), Some(2e6));
    assert_eq!((v["machine"]["cpu"].as_str(), v["path"].as_str()), (Some("Some CPU"), Some("native4")));
    assert_eq!(v["spread"]["mpps"]["min"].as_f64(), Some(25.0));
    assert!(v.get("mlps").is_none());
    let lookup = Report { path: None, bench: "lookup", ..report() }.json(&machine(0.0));
    assert!(lookup["clocks_per_packet"].is_null() && lookup["mlps"].is_number());
}

#[test]
fn text_is_a_table() {
    let t = text(&report(), &machine(2.5));
    for line in [
        "1000000 routes of t.gz, 3.0 MiB compiled",
        "1000 destinations, pattern zipf, batches of 256",
        "million packets/s           25.00      40.00      50.00",
        "ns per packet               20.00      25.00      40.00",
        "clocks per packet           50.00      62.50     100.00",
        "The runs differ by more than a fifth",
    ] {
        assert!(t.contains(line), "{line}\n{t}");
    }
    assert!(!text(&report(), &machine(0.0)).contains("clocks"));
    let synthetic = Report { table: "synthetic".into(), ..report() };
    assert!(text(&synthetic, &machine(0.0)).contains("a synthetic table (no --table)"));
}
