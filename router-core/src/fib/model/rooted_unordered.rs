//! A planted fault: the slots of a direct root are stored without order.

#![allow(dead_code, clippy::duplicate_mod)]

super::engine!(publish: Relaxed, read_again: true, roots: 1);

#[test]
#[should_panic(expected = "not [1, 2]")]
fn half_made_nodes_are_seen_behind_a_direct_root() {
    let (before, changes, probe, allowed) = super::ROOT_NODE;
    check(before, changes, probe, allowed, false);
}
