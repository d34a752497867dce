//! Routing tables to measure with: a real one from a file when it is there, and a synthetic one that always is.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::LazyLock;

/// Prefixes with the number of their next hop, 1 to 255.
pub type Table = Vec<(IpNet, u8)>;

/// Why a table could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The file cannot be opened or read.
    #[error("{file}: {error}")]
    Io {
        /// The file.
        file: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// A line is not `prefix next-hop-number`.
    #[error("{file}:{line}: {why}: \"{text}\"")]
    Line {
        /// The file.
        file: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        why: &'static str,
        /// The line, or its beginning.
        text: String,
    },
    /// There is no route of the wanted family in it.
    #[error("{file}: no {family} route in it")]
    Empty {
        /// The file.
        file: String,
        /// The family.
        family: &'static str,
    },
}

/// The longest line: a wrong file must not fill the memory.
const MAX_LINE: usize = 4096;

/// Reads a table, gzipped (by its name in `.gz` or its first bytes) or not: lines of `prefix next-hop-number`, the number from 1 to 255, or of a prefix
/// alone, which stands for next hop 1. Empty lines and those that begin with `#` are passed over. `keep` chooses.
///
/// # Errors
/// The first line that is not understood: half a table would measure something else.
pub fn read(path: &Path, keep: impl Fn(&IpNet) -> bool) -> Result<Table, TableError> {
    let name = || path.display().to_string();
    let io = |error| TableError::Io { file: name(), error };
    let mut file = BufReader::new(std::fs::File::open(path).map_err(io)?);
    let named = path.extension().is_some_and(|e| e == "gz");
    let zipped = named || file.fill_buf().map_err(io)?.starts_with(&[0x1f, 0x8b]);
    // Several zipped files one behind the other are one, as for gunzip.
    let mut reader: Box<dyn BufRead> =
        if zipped { Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(file))) } else { Box::new(file) };
    let mut table = Table::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let n = (&mut *reader).take(MAX_LINE as u64).read_until(b'\n', &mut line).map_err(io)?;
        if n == 0 {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        let understood = match text.trim() {
            _ if n == MAX_LINE => Err("a line without end"),
            "" => continue,
            t if t.starts_with('#') => continue,
            t => parse_line(t),
        };
        let (net, hop) = understood.map_err(|why| {
            let text = text.chars().take(60).filter(|c| !c.is_control()).collect();
            TableError::Line { file: name(), line: number, why, text }
        })?;
        if keep(&net) {
            table.push((net, hop));
        }
    }
    Ok(table)
}

fn parse_line(line: &str) -> Result<(IpNet, u8), &'static str> {
    let mut words = line.split_whitespace();
    let net: IpNet = words.next().and_then(|w| w.parse().ok()).ok_or("not a prefix")?;
    let hop = match words.next() {
        None => 1,
        Some(w) => w.parse().ok().filter(|h| *h > 0).ok_or("not a next hop number from 1 to 255")?,
    };
    if words.next().is_some() {
        return Err("more than a prefix and a next hop number");
    }
    if net != net.trunc() { Err("host bits are set") } else { Ok((net, hop)) }
}

/// The real full tables, IPv4 and IPv6, if the directory `shared/data` lies beside the checkout or further up.
pub fn full() -> Option<(Table, Table)> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().skip(2);
    let dir = above.map(|d| d.join("shared/data")).find(|d| d.is_dir())?;
    let table = |name| read(&dir.join(name), |_| true).ok();
    Some((table("bgp-ipv4.txt.gz")?, table("bgp-ipv6.txt.gz")?))
}

/// A small seeded generator (xorshift64*): the same numbers everywhere.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }
}

/// Space that no Internet table has routes for (RFC 6890): private, reserved, for documentation, 6to4.
const RESERVED: &[&str] = &[
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
];

/// Enters a prefix with a random next hop, unless it shares addresses with reserved space.
fn insert(set: &mut BTreeMap<IpNet, u8>, net: IpNet, r: &mut Random) {
    static NETS: LazyLock<Vec<IpNet>> = LazyLock::new(|| RESERVED.iter().filter_map(|t| t.parse().ok()).collect());
    if !NETS.iter().any(|x| x.contains(&net) || net.contains(x)) {
        set.insert(net, 1 + r.below(255) as u8);
    }
}

/// `n` IPv4 prefixes with lengths spread as in the real table (three fifths /24).
pub fn synthetic_v4(n: usize, seed: u64) -> Table {
    let mut r = Random(seed | 1);
    let mut set = BTreeMap::new();
    while set.len() < n {
        let len = match r.below(100) {
            0..60 => 24,
            60..72 => 22,
            72..83 => 23,
            83..88 => 21,
            88..93 => 20,
            93..97 => 19,
            _ => 12 + r.below(7) as u8,
        };
        let addr = 0x0100_0000 + (r.next_u64() % 0xdf00_0000) as u32;
        if let Ok(net) = Ipv4Net::new(addr.into(), len) {
            insert(&mut set, IpNet::V4(net.trunc()), &mut r);
        }
    }
    set.into_iter().collect()
}

/// `n` IPv6 prefixes inside 2000::/3 with lengths spread as in the real table (half /48).
pub fn synthetic_v6(n: usize, seed: u64) -> Table {
    let mut r = Random(seed | 1);
    let mut set = BTreeMap::new();
    while set.len() < n {
        let len = match r.below(100) {
            0..50 => 48,
            50..63 => 32,
            63..72 => 44,
            72..80 => 40,
            80..84 => 36,
            84..87 => 29,
            _ => 29 + r.below(36) as u8,
        };
        let high = 0x2000_0000_0000_0000 | (r.next_u64() & 0x0fff_ffff_ffff_ffff);
        if let Ok(net) = Ipv6Net::new((u128::from(high) << 64).into(), len) {
            insert(&mut set, IpNet::V6(net.trunc()), &mut r);
        }
    }
    set.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(parse_line("10.0.0.0/8 7"), Ok(("10.0.0.0/8".parse().unwrap(), 7)));
        assert_eq!(parse_line("2001:db8::/32"), Ok(("2001:db8::/32".parse().unwrap(), 1)));
        for (line, why) in [
            ("10.0.0.0 7", "not a prefix"),
            ("10.0.0.0/8 0", "not a next hop number from 1 to 255"),
            ("10.0.0.0/8 256", "not a next hop number from 1 to 255"),
            ("10.0.0.0/8 7 x", "more than a prefix and a next hop number"),
            ("10.0.0.1/8 7", "host bits are set"),
        ] {
            assert_eq!(parse_line(line), Err(why), "{line}");
        }
    }

    #[test]
    fn zipped_files_are_known_by_their_bytes_and_read_to_the_end() {
        let zipped = |text: &str| {
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut gz, text.as_bytes()).unwrap();
            gz.finish().unwrap()
        };
        let path = std::env::temp_dir().join(format!("duet-table-{}", std::process::id()));
        let two = [zipped("# a\n10.0.0.0/8 7\n"), zipped("\n2001:db8::/32\n")].concat();
        for (bytes, want) in
            [(&two[..], Some(2)), (&two[..two.len() - 9], None), (b"10.0.0.0/8", Some(1)), (b"", Some(0))]
        {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(read(&path, |_| true).ok().map(|t| t.len()), want);
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn synthetic_tables_are_the_same_everywhere() {
        let (a, b) = (synthetic_v4(500, 4), synthetic_v6(500, 6));
        assert_eq!((a.len(), b.len()), (500, 500));
        assert_eq!((&a, &b), (&synthetic_v4(500, 4), &synthetic_v6(500, 6)));
        assert!(a.windows(2).all(|w| w[0].0 < w[1].0));
        let private: IpNet = "10.0.0.0/8".parse().unwrap();
        assert!(RESERVED.iter().all(|t| t.parse::<IpNet>().is_ok_and(|n| n == n.trunc())));
        assert!(!synthetic_v4(5000, 1).iter().any(|(n, _)| private.contains(n) || n.contains(&private)));
    }
}
