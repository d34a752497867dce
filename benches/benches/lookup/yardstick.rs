//! Longest-prefix match by others: crates that anyone can have, each used as its documentation says.

use ip_network_table_deps_treebitmap::IpLookupTable;
use ip_network_table_deps_treebitmap::address::Address as TreeBitmapAddress;
use ipnet::{Ipv4Net, Ipv6Net};
use poptrie::Poptrie;
use prefix_trie::PrefixMap;
use std::fmt::Debug;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use ts_bart::RoutingTable;

/// The bits of an answer that the next lookup's address is changed by: none, though the compiler must not know.
pub const NO_BITS: u32 = 0;

/// An address that can be made to depend on a lookup before.
pub trait Address: Copy + Debug {
    /// With `x`, which is zero, mixed in.
    fn xor(self, x: u32) -> Self;
}

impl Address for Ipv4Addr {
    #[inline(always)]
    fn xor(self, x: u32) -> Self {
        Ipv4Addr::from_bits(self.to_bits() ^ x)
    }
}

impl Address for Ipv6Addr {
    #[inline(always)]
    fn xor(self, x: u32) -> Self {
        Ipv6Addr::from_bits(self.to_bits() ^ u128::from(x) << 64)
    }
}

/// A table of somebody else's.
pub trait Yardstick<A> {
    /// Its crate.
    fn name(&self) -> &'static str;
    /// Memory that building it left in use.
    fn bytes(&self) -> usize;
    /// The value of the longest match; 0 without one.
    fn get(&self, a: A) -> u32;
    /// Looks all up; the sum of the answers.
    fn independent(&self, all: &[A]) -> u32;
    /// Looks all up, each one when the answer before is known; begins and ends with a zero.
    fn dependent(&self, all: &[A], last: u32) -> u32;
}

struct Table<T, G> {
    name: &'static str,
    table: T,
    bytes: usize,
    get: G,
}

impl<A: Address, T, G: Fn(&T, A) -> Option<u8>> Yardstick<A> for Table<T, G> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn get(&self, a: A) -> u32 {
        (self.get)(&self.table, a).map_or(0, u32::from)
    }

    fn independent(&self, all: &[A]) -> u32 {
        all.iter().fold(0, |sum, a| sum + black_box(self.get(*a)))
    }

    fn dependent(&self, all: &[A], last: u32) -> u32 {
        let mask = black_box(NO_BITS);
        all.iter().fold(last, |last, a| self.get(a.xor(last)) & mask)
    }
}

fn built<A: Address, T: 'static>(
    name: &'static str,
    in_use: &impl Fn() -> u64,
    make: impl FnOnce() -> T,
    get: impl Fn(&T, A) -> Option<u8> + 'static,
) -> Box<dyn Yardstick<A>> {
    let before = in_use();
    let table = make();
    let bytes = in_use().saturating_sub(before) as usize;
    println!("{name}: {} KiB", bytes >> 10);
    Box::new(Table { name, table, bytes, get })
}

fn tree_bitmap<A: TreeBitmapAddress>(routes: &[(A, u8, u8)]) -> IpLookupTable<A, u8> {
    let mut t = IpLookupTable::new();
    routes.iter().for_each(|(a, len, hop)| _ = t.insert(*a, u32::from(*len), *hop));
    t
}

fn bart<A: Into<IpAddr> + Copy>(routes: &[(A, u8, u8)]) -> ts_bart::Table<u8> {
    let mut t = ts_bart::Table::default();
    for (a, len, hop) in routes {
        t.insert(ipnet::IpNet::new_assert((*a).into(), *len), *hop);
    }
    t
}

/// All of them with these IPv4 routes. `in_use` says how much memory is.
pub fn v4(routes: &[(Ipv4Addr, u8, u8)], in_use: impl Fn() -> u64) -> Vec<Box<dyn Yardstick<Ipv4Addr>>> {
    let trie = || routes.iter().map(|(a, l, h)| (Ipv4Net::new_assert(*a, *l), *h)).collect::<PrefixMap<_, _>>();
    let pop = || routes.iter().map(|(a, l, h)| ((*a, *l), *h)).collect::<Poptrie<_, _>>();
    vec![
        built("prefix-trie", &in_use, trie, |t, a| t.get_lpm(&Ipv4Net::from(a)).map(|(_, h)| *h)),
        built("treebitmap", &in_use, || tree_bitmap(routes), |t, a| t.longest_match(a).map(|(_, _, h)| *h)),
        built("poptrie", &in_use, pop, |t, a| t.lookup(a).copied()),
        built("ts_bart", &in_use, || bart(routes), |t, a: Ipv4Addr| t.lookup(a.into()).copied()),
    ]
}

/// As [`v4`].
pub fn v6(routes: &[(Ipv6Addr, u8, u8)], in_use: impl Fn() -> u64) -> Vec<Box<dyn Yardstick<Ipv6Addr>>> {
    let trie = || routes.iter().map(|(a, l, h)| (Ipv6Net::new_assert(*a, *l), *h)).collect::<PrefixMap<_, _>>();
    let pop = || routes.iter().map(|(a, l, h)| ((*a, *l), *h)).collect::<Poptrie<_, _>>();
    vec![
        built("prefix-trie", &in_use, trie, |t, a| t.get_lpm(&Ipv6Net::from(a)).map(|(_, h)| *h)),
        built("treebitmap", &in_use, || tree_bitmap(routes), |t, a| t.longest_match(a).map(|(_, _, h)| *h)),
        built("poptrie", &in_use, pop, |t, a| t.lookup(a).copied()),
        built("ts_bart", &in_use, || bart(routes), |t, a: Ipv6Addr| t.lookup(a.into()).copied()),
    ]
}
