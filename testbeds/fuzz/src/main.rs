//! libFuzzer on one target of `testbeds::fuzz`, named by the environment variable `DUET_FUZZ`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;
use testbeds::fuzz::{TARGETS, Target, target};

static TARGET: OnceLock<Target> = OnceLock::new();

fn chosen() -> Target {
    let name = std::env::var("DUET_FUZZ").unwrap_or_default();
    target(&name).unwrap_or_else(|| {
        let known: Vec<&str> = TARGETS.iter().map(|(n, _)| *n).collect();
        eprintln!("DUET_FUZZ names the target, one of: {}", known.join(", "));
        std::process::exit(1)
    })
}

fuzz_target!(|data: &[u8]| TARGET.get_or_init(chosen)(data));
