//! A capture file that is followed by the next one when it is full, as tcpdump's `-C` and `-W` do.

use super::pcapng::{Packet, Writer};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
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
    /// Bytes of the file that are known to be whole blocks.
    whole: u64,
}

impl Files {
    /// Opens the first file; `-` is standard output, which is never rotated.
    pub fn create(path: &Path, snap: u32, size: u64, count: usize) -> io::Result<Self> {
        let size = if path == Path::new("-") { 0 } else { size };
        let mut f = Files { path: path.to_owned(), snap, size, count, number: 0, writer: None, whole: 0 };
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
        self.whole = 0;
        self.writer = Some(Writer::new(to, self.snap)?);
        Ok(())
    }

    /// After a failure the file ends with its last whole block, so that readers have no complaint.
    fn checked(&mut self, result: io::Result<()>) -> io::Result<()> {
        if result.is_err() && self.path != Path::new("-") {
            // What it still holds is lost, or makes some more whole blocks.
            drop(self.writer.take());
            // The failure is the news, not what comes of the rescue.
            let _ = cut_to_blocks(&self.current(), self.whole);
        }
        result
    }

    /// Appends a packet, to the next file when this one is full.
    pub fn write(&mut self, p: &Packet<'_>) -> io::Result<()> {
        let result = self.try_write(p);
        self.checked(result)
    }

    fn try_write(&mut self, p: &Packet<'_>) -> io::Result<()> {
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
        let result = self.writer.as_mut().map_or(Ok(()), Writer::flush);
        if result.is_ok() {
            self.whole = self.writer.as_ref().map_or(0, Writer::written);
        }
        self.checked(result)
    }

    /// Ends the file with its statistics.
    pub fn finish(&mut self, nanos: u64, lost: u64) -> io::Result<()> {
        let result = self.writer.as_mut().map_or(Ok(()), |w| w.finish(nanos, lost));
        self.checked(result)
    }
}

/// Shortens a file to the whole blocks in it, of which there are `from` bytes at least.
fn cut_to_blocks(path: &Path, from: u64) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let about = file.metadata()?;
    // A device is not cut.
    if !about.is_file() {
        return Ok(());
    }
    let mut at = from.min(about.len());
    loop {
        let mut head = [0; 8];
        if file.read_exact_at(&mut head, at).is_err() {
            break;
        }
        // Type and length of a block (pcapng 3.1), as the writer here orders its bytes.
        let [_, _, _, _, len @ ..] = head;
        let len = u64::from(u32::from_le_bytes(len));
        if len < 12 || at + len > about.len() {
            break;
        }
        at += len;
    }
    file.set_len(at)
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

    #[test]
    fn what_was_cut_short_ends_with_a_whole_block() {
        use crate::capture::pcapng::AnyReader;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c");
        let packet = Packet {
            nanos: 1,
            interface: "lan0",
            inbound: None,
            comment: Some("short"),
            data: &[7; 101],
            len: 101,
            ethernet: true,
            vlan_tci: None,
        };
        let mut f = Files::create(&path, 65_535, 0, 0).unwrap();
        let mut whole = Vec::new();
        for _ in 0..3 {
            f.write(&packet).unwrap();
            f.flush().unwrap();
            whole.push(f.whole);
        }
        let all = std::fs::read(&path).unwrap();
        assert_eq!(all.len() as u64, whole[2]);
        for short in whole[0]..=whole[2] {
            std::fs::write(&path, &all[..short as usize]).unwrap();
            cut_to_blocks(&path, whole[0]).unwrap();
            let packets = whole.iter().filter(|w| **w <= short).count();
            assert_eq!(std::fs::metadata(&path).unwrap().len(), whole[packets - 1], "{short}");
            let mut reader = AnyReader::new(File::open(&path).unwrap()).unwrap();
            let mut data = Vec::new();
            for _ in 0..packets {
                assert!(reader.next(&mut data).unwrap().is_some() && data == packet.data);
            }
            assert!(reader.next(&mut data).unwrap().is_none());
        }
    }
}
