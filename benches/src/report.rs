//! What a bench prints, and leaves in `target/bench/NAME.json`: one JSON object per line and row.

use crate::measure::Spread;
use router_io::machine::Machine;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// See the module. Rows are written when it is dropped, and only then.
#[derive(Debug)]
pub struct Report {
    name: &'static str,
    /// Where it runs.
    pub machine: Machine,
    lines: Vec<Value>,
    keep: bool,
}

impl Report {
    /// A report that is kept in a file, unless `quick`.
    pub fn new(name: &'static str, quick: bool) -> Self {
        let machine = Machine::read();
        println!("{}, {} processors, {:.2} GHz, Linux {}", machine.cpu, machine.cpus, machine.ghz, machine.kernel);
        Report { name, machine, lines: Vec::new(), keep: !quick }
    }

    /// A row: prints `what` and the spread in `unit`, keeps both with whatever else is known.
    pub fn row(&mut self, what: &str, s: Spread, unit: &str, more: Value) {
        let digits = if s.median < 100.0 { 2 } else { 0 };
        println!("{what:<60} {:>11.digits$} {:>11.digits$} {:>11.digits$}  {unit}", s.min, s.median, s.max);
        let mut line = json!({ "row": what, "min": s.min, "median": s.median, "max": s.max });
        line["unit"] = unit.split(';').next().unwrap_or(unit).into();
        if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        self.lines.push(line);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if !self.keep || std::thread::panicking() {
            return;
        }
        let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target");
        let dir = std::env::var_os("CARGO_TARGET_DIR").map_or_else(beside, PathBuf::from);
        let path = dir.join("bench").join(format!("{}.json", self.name));
        let mut text = String::new();
        for line in &mut self.lines {
            line["bench"] = self.name.into();
            line["machine"] = json!(self.machine);
            text += &format!("{line}\n");
        }
        let write = || {
            std::fs::create_dir_all(dir.join("bench"))?;
            std::fs::File::create(&path)?.write_all(text.as_bytes())
        };
        match write() {
            Ok(()) => println!("rows are in {}", path.display()),
            Err(e) => eprintln!("{}: {e}", path.display()),
        }
    }
}
