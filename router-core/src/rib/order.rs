//! The order of `ip route show`, page by page.
//!
//! Linux walks its tries in its own way: IPv4 by address, and of one address the longest prefix first; IPv6 leaves
//! first, so that every prefix comes after all that lie within it and the default route is last.

use super::{EntryId, NetMap};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Calls `f` for the entries within `root` in display order, those behind `after` only, until it says false.
pub(crate) fn walk4(
    map: &NetMap<EntryId>,
    root: &Ipv4Net,
    after: Option<&Ipv4Net>,
    f: &mut dyn FnMut(IpNet, EntryId) -> bool,
) {
    let mut group: Vec<(Ipv4Net, EntryId)> = Vec::new();
    let mut emit = |group: &mut Vec<(Ipv4Net, EntryId)>| {
        // One address comes shortest first; display is the other way round.
        group.drain(..).rev().all(|(n, id)| f(IpNet::V4(n), id))
    };
    let mut start = *root;
    if let Some(after) = after {
        let rest = map
            .v4
            .cover(after)
            .filter(|(n, _)| n.network() == after.network() && n.prefix_len() < after.prefix_len() && root.contains(n));
        group.extend(rest.map(|(n, id)| (n, *id)));
        if !emit(&mut group) {
            return;
        }
        start = Ipv4Net::from(after.network());
    }
    for (n, id) in map.v4.iter_from(&start, after.is_none()) {
        if !root.contains(&n) {
            if n.network() > root.broadcast() {
                break;
            }
            continue;
        }
        if group.last().is_some_and(|(g, _)| g.network() != n.network()) && !emit(&mut group) {
            return;
        }
        group.push((n, *id));
    }
    emit(&mut group);
}

/// As [`walk4`] for IPv6.
pub(crate) fn walk6(
    map: &NetMap<EntryId>,
    root: &Ipv6Net,
    after: Option<&Ipv6Net>,
    f: &mut dyn FnMut(IpNet, EntryId) -> bool,
) {
    // Prefixes that contain the place reached: shown when the walk leaves them.
    let mut open: Vec<(Ipv6Net, EntryId)> = Vec::new();
    let mut start = *root;
    if let Some(after) = after {
        let around = map.v6.cover(after).filter(|(n, _)| n.prefix_len() < after.prefix_len() && root.contains(n));
        open.extend(around.map(|(n, id)| (n, *id)));
        start = Ipv6Net::from(after.broadcast());
    }
    for (n, id) in map.v6.iter_from(&start, after.is_none()) {
        if !root.contains(&n) {
            if n.network() > root.broadcast() {
                break;
            }
            continue;
        }
        while let Some((o, oid)) = open.last().copied() {
            if o.contains(&n) {
                break;
            }
            open.pop();
            if !f(IpNet::V6(o), oid) {
                return;
            }
        }
        open.push((n, *id));
    }
    while let Some((o, oid)) = open.pop() {
        if !f(IpNet::V6(o), oid) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pages(map: &NetMap<EntryId>, v4: bool, size: usize) -> Vec<IpNet> {
        let mut all: Vec<IpNet> = Vec::new();
        loop {
            let (before, after) = (all.len(), all.last().copied());
            let mut take = |n: IpNet, _| {
                all.push(n);
                all.len() - before < size
            };
            match (v4, after) {
                (true, Some(IpNet::V4(a))) => walk4(map, &Ipv4Net::default(), Some(&a), &mut take),
                (true, _) => walk4(map, &Ipv4Net::default(), None, &mut take),
                (false, Some(IpNet::V6(a))) => walk6(map, &Ipv6Net::default(), Some(&a), &mut take),
                (false, _) => walk6(map, &Ipv6Net::default(), None, &mut take),
            }
            if all.len() == before {
                return all;
            }
        }
    }

    proptest! {
        #[test]
        fn pages_add_up_to_the_sorted_whole(
            nets in prop::collection::btree_set((0u32..64, 0u8..=32), 0..40),
            size in 1usize..5,
        ) {
            let mut map = NetMap::default();
            let (mut want4, mut want6) = (Vec::new(), Vec::new());
            for (a, l) in nets {
                let four = Ipv4Net::new_assert((a << 26).into(), l).trunc();
                let six = Ipv6Net::new_assert((u128::from(a) << 122).into(), l).trunc();
                map.insert(IpNet::V4(four), 0);
                map.insert(IpNet::V6(six), 0);
                want4.push(four);
                want6.push(six);
            }
            want4.sort_by_key(|n| (n.network(), 255 - n.prefix_len()));
            want4.dedup();
            want6.sort_by_key(|n| (n.broadcast(), 255 - n.prefix_len()));
            want6.dedup();
            prop_assert_eq!(pages(&map, true, size), want4.into_iter().map(IpNet::V4).collect::<Vec<_>>());
            prop_assert_eq!(pages(&map, false, size), want6.into_iter().map(IpNet::V6).collect::<Vec<_>>());
        }
    }
}
