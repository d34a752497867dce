//! A planted fault: links to new nodes are stored without order.

#![allow(dead_code, clippy::duplicate_mod)]

super::engine!(publish: Relaxed, read_again: true, roots: 0);

#[test]
#[should_panic(expected = "not [1, 2]")]
fn half_made_nodes_are_seen() {
    let (before, changes, probe, allowed) = super::NEW_NODE;
    check(before, changes, probe, allowed, false);
}
