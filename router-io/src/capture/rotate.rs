//! A capture file that is followed by the next one when it is full, as tcpdump's `-C` and `-W` do.

use super::pcapng::{Packet, Writer};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Files of a limited size: `name`, `name1`, `name2` ..., or with a limited number of files numbers of equal width that
/// start again from the first.
pub struct Files {
    path: PathBuf,
    snap: u32,
    /// Bytes per file; 0: no limit.
    size: u64,
    /// Files; 0: no limit.
    count: usize,
    number: usize,
    writer: Option<Writer<Box<dyn Write>>>,
}

impl Files {
    /// Opens the first file; `-` is standard output, which is never rotated.
    pub fn create(path: &Path, snap: u32, size: u64, count: usize) -> io::Result<Self> {
        let size = if path == Path::new("-") { 0 } else { size };
        let mut f = Files { path: path.to_owned(), snap, size, count, number: 0, writer: None };
        f.open()?;
        Ok(f)
    }

    /// The path of the file being written.
    pub fn current(&self) -> PathBuf {
        if self.size == 0 {
            return self.path.clone();
        }
        let digits = if self.count > 0 { (self.count - 1).to_string().len() } else { 0 };
        let name = match (self.number, digits) {
            (0, 0) => return self.path.clone(),
            (n, 0) => n.to_string(),
            (n, digits) => format!("{n:0digits$}"),
        };
        let mut path = self.path.clone().into_os_string();
        path.push(name);
        path.into()
    }

    fn open(&mut self) -> io::Result<()> {
        let to: Box<dyn Write> = match self.path == Path::new("-") {
            true => Box::new(io::stdout()),
            false => Box::new(BufWriter::with_capacity(256 * 1024, File::create(self.current())?)),
        };
        self.writer = Some(Writer::new(to, self.snap)?);
        Ok(())
    }

    /// Appends a packet, to the next file when this one is full.
    pub fn write(&mut self, p: &Packet<'_>) -> io::Result<()> {
        if self.size > 0 && self.writer.as_ref().is_some_and(|w| w.written() >= self.size) {
            if let Some(mut w) = self.writer.take() {
                w.finish(p.nanos, 0)?;
            }
            self.number += 1;
            if self.count > 0 {
                self.number %= self.count;
            }
            self.open()?;
        }
        match &mut self.writer {
            Some(w) => w.write(p),
            None => Err(io::Error::other("the capture file is closed")),
        }
    }

    /// Writes out what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), Writer::flush)
    }

    /// Ends the file with its statistics.
    pub fn finish(&mut self, nanos: u64, lost: u64) -> io::Result<()> {
        self.writer.as_mut().map_or(Ok(()), |w| w.finish(nanos, lost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_files_give_way_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let packet = Packet {
            nanos: 1,
            interface: "lan0",
            inbound: None,
            comment: None,
            data: &[0; 1000],
            len: 1000,
            ethernet: true,
            vlan_tci: None,
        };
        for (count, names) in [(0, &["c", "c1", "c2", "c3"][..]), (2, &["c0", "c1"])] {
            let path = dir.path().join(format!("{count}c"));
            let mut f = Files::create(&path, 65_535, 2000, count).unwrap();
            for _ in 0..8 {
                f.write(&packet).unwrap();
            }
            f.finish(2, 0).unwrap();
            for name in names {
                let file = dir.path().join(format!("{count}{name}"));
                let size = std::fs::metadata(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).len();
                assert!((2000..4000).contains(&size), "{name}: {size}");
            }
        }
        assert!(Files::create(Path::new("/nonexistent/x"), 1, 0, 0).is_err());
    }
}
