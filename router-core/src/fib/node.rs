//! Entries and nodes: how the content of slots is packed, and how a lookup reads it.
//!
//! An *entry* is 32 bits: an answer ([`LEAF`]), that is an object number plus one or 0 for "no route here"; or a *link* to
//! a node, the number of its first word and what kind it is. A node has 256 slots, one per value of an address byte.
//!
//! The usual node stores each run of equal slots once:
//!
//! ```text
//! word 0..5   each: 56 slots, from the highest bit down: 1 where a run begins (slot 0 always does: its bit stays 0);
//!             lowest byte: runs begun before the word. The last word has room between for the writer's notes
//! word 5..    the runs' values, 16 bits each: an answer, or from 0x8000 on the place of ...
//!  then       entries of 32 bits, for links and larger answers
//! ```
//!
//! So twelve runs fit in one cache line with their bitmap, and a step is: one load, a count of bits, one load.
//!
//! In IPv6, where most steps lead on, a node has entries of 32 bits in the place of the values. Those that a direct root of IPv6
//! leads to, and no others, are *dense*: 256 entries one after the other. A node below which all prefixes agree in some
//! bytes *skips* them: the two words before its first one hold these bytes and their number, and the entry of all
//! addresses that have others there. (Dense nodes have these two words too, for the notes.)
//!
//! A published node's bitmap never changes, nor do the bytes it skips. Its values and entries may, one word at a time;
//! everything else is done in a copy.

use super::arena::Reader;
use super::sync::Ordering::{Acquire, Relaxed};
use std::net::{Ipv4Addr, Ipv6Addr};

/// An entry that is an answer.
pub(super) const LEAF: u32 = 1 << 31;
/// A link to a node that skips bytes.
pub(super) const SKIP: u32 = 1 << 30;
/// A link to a dense node.
pub(super) const DENSE: u32 = 1 << 29;
/// A link to a node of 32-bit entries, one per run.
pub(super) const FULL: u32 = 1 << 28;
/// The number of a link's word.
pub(super) const INDEX: u32 = FULL - 1;

/// "No route here": the zero-length prefix decides.
pub(super) const MISS: u32 = LEAF;

/// Answers below this number fit into a value of 16 bits; values from it on are places of entries.
pub(super) const SMALL: u32 = 0x8000;

/// Words before the values.
pub(super) const HEAD: usize = 5;
/// Words before the first one of a node that skips or is dense.
pub(super) const BEFORE: usize = 2;
/// Slots per word of the bitmap.
pub(super) const SLOTS: u32 = 56;
/// Values of 16 bits per word.
pub(super) const VALUES: usize = 4;

#[inline(always)]
pub(super) fn is_link(entry: u32) -> bool {
    entry & LEAF == 0
}

/// An address as lookups take it apart.
pub(super) trait Address: Copy {
    /// Bytes of an address.
    const BYTES: usize;

    /// Whether nodes have 32-bit entries throughout, but for those that a direct root leads to. IPv6's paths are long and
    /// most steps lead on: they save a load in each.
    const FULL: bool = Self::BYTES > 4;

    /// The first eight bytes; the rest zero if there are fewer.
    fn high(self) -> u64;

    /// The eight bytes behind them.
    fn low(self) -> u64;

    /// The first 16 bits.
    #[inline(always)]
    fn top16(self) -> usize {
        (self.high() >> 48) as usize
    }

    /// Byte `i`.
    #[inline(always)]
    fn byte(self, i: u32) -> u32 {
        let part = if Self::BYTES <= 8 || i < 8 { self.high() } else { self.low() };
        u32::from((part >> (!(i * 8) & 56)) as u8)
    }

    /// Byte `i`, modulo the bytes that there are, from memory.
    fn nth(&self, i: u8) -> u32;

    /// Eight bytes from byte `i` on, zeros behind the end.
    #[inline(always)]
    fn window(self, i: u32) -> u64 {
        if Self::BYTES <= 8 {
            return self.high() << ((i * 8) & 63);
        }
        let all = u128::from(self.high()) << 64 | u128::from(self.low());
        ((all << ((i * 8) & 127)) >> 64) as u64
    }
}

impl Address for Ipv4Addr {
    const BYTES: usize = 4;

    #[inline(always)]
    fn high(self) -> u64 {
        u64::from(self.to_bits()) << 32
    }

    #[inline(always)]
    fn low(self) -> u64 {
        0
    }

    #[inline(always)]
    fn nth(&self, i: u8) -> u32 {
        u32::from(self.octets()[usize::from(i & 3)])
    }

    #[inline(always)]
    fn top16(self) -> usize {
        (self.to_bits() >> 16) as usize
    }

    #[inline(always)]
    fn byte(self, i: u32) -> u32 {
        u32::from((self.to_bits() >> (!(i * 8) & 24)) as u8)
    }
}

impl Address for Ipv6Addr {
    const BYTES: usize = 16;

    #[inline(always)]
    fn high(self) -> u64 {
        (self.to_bits() >> 64) as u64
    }

    #[inline(always)]
    fn low(self) -> u64 {
        self.to_bits() as u64
    }

    #[inline(always)]
    fn nth(&self, i: u8) -> u32 {
        u32::from(self.octets()[usize::from(i & 15)])
    }
}

/// The word of the bitmap in which a slot is. (An exact division by 56 of anything below 256.)
#[inline(always)]
pub(super) fn part_of(slot: u32) -> u32 {
    (slot * 1171) >> 16
}

/// Runs begun up to a slot, the first one not counted, from its word of the bitmap.
#[inline(always)]
pub(super) fn rank(word: u64, slot: u32, part: u32) -> usize {
    // The bit of the slot is 63 - (slot - 56 part), modulo 64.
    let begun = word >> (!(slot + 8 * part) & 63);
    begun.count_ones() as usize + usize::from(word as u8)
}

/// Where a node that is not dense keeps the value of a slot, counted in values from word 0 of all.
#[inline(always)]
pub(super) fn place(lines: Reader<'_>, node: u32, slot: u32) -> usize {
    let part = part_of(slot);
    let word = lines.load((node + part) as usize, Relaxed);
    node as usize * VALUES + HEAD * VALUES + rank(word, slot, part)
}

/// As [`place`] for a node of 32-bit entries, counted in these from word 0 of all.
#[inline(always)]
pub(super) fn full_place(lines: Reader<'_>, node: u32, slot: u32) -> usize {
    let part = part_of(slot);
    let word = lines.load((node + part) as usize, Relaxed);
    node as usize * 2 + HEAD * 2 + rank(word, slot, part)
}

/// The 32-bit entry in a place.
#[inline(always)]
pub(super) fn full(lines: Reader<'_>, place: usize) -> u32 {
    (lines.load(place / 2, Acquire) >> ((place * 32) & 63)) as u32
}

/// The value in a place.
#[inline(always)]
pub(super) fn value(lines: Reader<'_>, place: usize) -> u32 {
    let word = lines.load(place / VALUES, Acquire);
    u32::from((word >> ((place * 16) & 63)) as u16)
}

/// The entry that a value of a node stands for.
#[inline(always)]
pub(super) fn entry_of(lines: Reader<'_>, node: u32, value: u32) -> u32 {
    if value < SMALL { LEAF | value } else { half(lines, node, value & (SMALL - 1)) }
}

/// The 32-bit entry number `i` of a node's words.
#[inline(always)]
pub(super) fn half(lines: Reader<'_>, node: u32, i: u32) -> u32 {
    let word = lines.load((node + i / 2) as usize, Acquire);
    (word >> ((i * 32) & 32)) as u32
}

/// The bytes that a node skips, from the highest on, and their number in the lowest byte.
#[inline(always)]
pub(super) fn skipped(lines: Reader<'_>, node: u32) -> u64 {
    lines.load((node as usize).wrapping_sub(BEFORE), Relaxed)
}

/// Whether eight bytes of an address begin with those that a node skips.
#[inline(always)]
pub(super) fn agrees(window: u64, skipped: u64) -> bool {
    // One to seven bytes: they are the highest 8 to 56 bits.
    (window ^ skipped) >> (64 - 8 * (skipped & 7)) == 0
}

/// The entry of addresses that have other bytes than those skipped.
#[inline(always)]
pub(super) fn otherwise(lines: Reader<'_>, node: u32) -> u32 {
    lines.load((node as usize).wrapping_sub(1), Acquire) as u32
}

/// The place of that entry.
#[inline(always)]
pub(super) fn otherwise_place(node: u32) -> usize {
    (node as usize).wrapping_sub(1) * 2
}

/// The answer for an address of which `used` bytes led to `link`, which is not dense.
#[inline(always)]
pub(super) fn walk<A: Address>(lines: Reader<'_>, mut link: u32, address: A, mut used: u32) -> u32 {
    loop {
        let node = link & INDEX;
        if link & SKIP != 0 {
            let skipped = skipped(lines, node);
            if !agrees(address.window(used), skipped) {
                return otherwise(lines, node) & !LEAF;
            }
            used += skipped as u32 & 7;
        }
        if A::FULL {
            link = full(lines, full_place(lines, node, address.byte(used)));
            if !is_link(link) {
                return link & !LEAF;
            }
            used += 1;
            continue;
        }
        let value = value(lines, place(lines, node, address.byte(used)));
        if value < SMALL {
            return value;
        }
        link = half(lines, node, value & (SMALL - 1));
        if !is_link(link) {
            return link & !LEAF;
        }
        used += 1;
    }
}

/// As [`walk`], from a value of a node.
#[inline]
pub(super) fn walk_on<A: Address>(lines: Reader<'_>, node: u32, value: u32, address: A, used: u32) -> u32 {
    let entry = entry_of(lines, node, value);
    if is_link(entry) { walk(lines, entry, address, used) } else { entry & !LEAF }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_divided_among_the_words() {
        for slot in 0..256 {
            assert_eq!(part_of(slot), slot / SLOTS);
            let word = 1u64 << (63 - slot % SLOTS) | 7;
            assert_eq!(rank(word, slot, slot / SLOTS), 8);
            assert_eq!(rank(u64::MAX << 8 | 7, slot, slot / SLOTS), 7 + 1 + (slot % SLOTS) as usize);
        }
    }

    #[test]
    fn addresses_come_apart() {
        let four = Ipv4Addr::new(1, 2, 3, 4);
        assert_eq!((0..4).map(|i| four.byte(i)).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!((four.top16(), four.window(2)), (0x0102, 0x0304 << 48));
        let six: Ipv6Addr = "1:203:405:607:809:a0b:c0d:e0f".parse().unwrap();
        assert!((0..16).all(|i| six.byte(i) == i));
        assert_eq!((six.top16(), six.window(4), six.window(9)), (1, 0x0405_0607_0809_0a0b, 0x090a_0b0c_0d0e_0f00));
        assert!(agrees(six.window(2), 0x0203_0400_0000_0003) && !agrees(six.window(2), 0x0203_0500_0000_0003));
        assert!(agrees(six.window(9), 0x090a_0b0c_0d0e_0f07));
    }
}
