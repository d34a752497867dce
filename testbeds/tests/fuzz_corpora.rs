//! Every committed input of every fuzz target, findings among them, replayed. `testbeds/fuzz/run` finds new ones.

use std::fs;
use std::path::PathBuf;
use testbeds::fuzz::TARGETS;

fn corpora() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

#[test]
fn every_committed_input_is_survived() {
    for (name, target) in TARGETS {
        let list = fs::read_dir(corpora().join(name)).unwrap_or_else(|e| panic!("no corpus of {name}: {e}"));
        let mut inputs: Vec<_> = list.map(|e| e.expect("an entry").path()).collect();
        inputs.sort();
        assert!(inputs.len() >= 5, "{name}: only {} inputs", inputs.len());
        for path in inputs {
            let bytes = fs::read(&path).expect("an input");
            // The name of an input that panics stands above its message.
            println!("{}", path.display());
            target(&bytes);
        }
    }
}

#[test]
fn every_corpus_has_a_target() {
    for entry in fs::read_dir(corpora()).expect("corpora") {
        let name = entry.expect("an entry").file_name();
        assert!(TARGETS.iter().any(|(n, _)| name == **n), "corpus/{} is nobody's", name.display());
    }
}
