//! Routing tables to measure with: a real one from a file when it is there, and a synthetic one that always is.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Prefixes with the number of their next hop, 1 to 255.
pub type Table = Vec<(IpNet, u8)>;

/// Reads `prefix next-hop-number` lines, gzipped or not. None when there is no such file.
///
/// Panics on a malformed line: a bench with half a table would measure something else.
pub fn read(path: &Path) -> Option<Table> {
    let file = std::fs::File::open(path).ok()?;
    let reader: Box<dyn std::io::Read> = if path.extension().is_some_and(|e| e == "gz") {
        Box::new(flate2::read::GzDecoder::new(file))
    } else {
        Box::new(file)
    };
    let parse = |line: String| {
        let (prefix, hop) = line.split_once(' ')?;
        Some((prefix.parse().ok()?, hop.trim().parse().ok()?))
    };
    let lines = BufReader::new(reader).lines();
    Some(lines.map(|l| l.ok().and_then(parse).unwrap_or_else(|| panic!("{}: malformed", path.display()))).collect())
}

/// The real full tables, IPv4 and IPv6, if the directory `shared/data` lies beside the checkout or further up.
pub fn full() -> Option<(Table, Table)> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().skip(2);
    let dir = above.map(|d| d.join("shared/data")).find(|d| d.is_dir())?;
    Some((read(&dir.join("bgp-ipv4.txt.gz"))?, read(&dir.join("bgp-ipv6.txt.gz"))?))
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

/// `n` IPv4 prefixes with lengths spread as in the real table (three fifths /24).
pub fn synthetic_v4(n: usize, seed: u64) -> Table {
    let mut r = Random(seed | 1);
    let mut set = std::collections::BTreeMap::new();
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
            set.insert(IpNet::V4(net.trunc()), 1 + r.below(255) as u8);
        }
    }
    set.into_iter().collect()
}

/// `n` IPv6 prefixes inside 2000::/3 with lengths spread as in the real table (half /48).
pub fn synthetic_v6(n: usize, seed: u64) -> Table {
    let mut r = Random(seed | 1);
    let mut set = std::collections::BTreeMap::new();
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
            set.insert(IpNet::V6(net.trunc()), 1 + r.below(255) as u8);
        }
    }
    set.into_iter().collect()
}
