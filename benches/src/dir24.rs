//! A yardstick for IPv4: a flat table of 2^24 entries of 16 bits (DIR-24-8), built once, without updates.

use crate::table::Table;
use ipnet::IpNet;

/// Entries with this bit name a block of 256 for the last byte.
const BLOCK: u16 = 1 << 15;

/// See the module.
#[derive(Debug)]
pub struct Dir24 {
    first: Vec<u16>,
    blocks: Vec<u16>,
}

impl Dir24 {
    /// Compiles a table. IPv6 prefixes are left out.
    pub fn new(table: &Table) -> Self {
        let mut nets: Vec<_> = table
            .iter()
            .filter_map(|(net, hop)| match net {
                IpNet::V4(n) => Some((n.prefix_len(), n.network().to_bits(), u16::from(*hop))),
                IpNet::V6(_) => None,
            })
            .collect();
        nets.sort_unstable();
        let (mut first, mut blocks) = (vec![0u16; 1 << 24], Vec::new());
        for (len, net, hop) in nets {
            let at = (net >> 8) as usize;
            if len <= 24 {
                first[at..at + (1 << (24 - len))].fill(hop);
                continue;
            }
            if first[at] & BLOCK == 0 {
                let old = std::mem::replace(&mut first[at], BLOCK | (blocks.len() >> 8) as u16);
                blocks.resize(blocks.len() + 256, old);
            }
            let start = usize::from(first[at] & !BLOCK) << 8 | (net & 255) as usize;
            blocks[start..start + (1 << (32 - len))].fill(hop);
        }
        Dir24 { first, blocks }
    }

    /// The value for a destination, 0 without a match.
    #[inline]
    pub fn lookup(&self, dst: u32) -> u16 {
        let entry = self.first[(dst >> 8) as usize];
        if entry & BLOCK == 0 {
            return entry;
        }
        self.blocks[usize::from(entry & !BLOCK) << 8 | (dst & 255) as usize]
    }

    /// Looks up `dst[i]` into `out[i]`: all first loads, then what is left.
    pub fn lookup_batch(&self, dst: &[u32], out: &mut [u16]) {
        for (d, o) in dst.iter().zip(out.iter_mut()) {
            *o = self.first[(*d >> 8) as usize];
        }
        for (d, o) in dst.iter().zip(out) {
            if *o & BLOCK != 0 {
                *o = self.blocks[usize::from(*o & !BLOCK) << 8 | (*d & 255) as usize];
            }
        }
    }

    /// Bytes of the table.
    pub fn bytes(&self) -> usize {
        (self.first.len() + self.blocks.len()) * 2
    }
}
