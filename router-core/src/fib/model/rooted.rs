//! As [`super::sound`], in a table with a direct root.

#![allow(dead_code, clippy::duplicate_mod)]

super::engine!(publish: Release, read_again: true, roots: 1);

#[test]
fn readers_see_what_held_behind_a_direct_root() {
    for (before, changes, probe, allowed) in [super::ROOT_NODE, super::ROOT_HIDDEN, super::ROOT_LARGE] {
        check(before, changes, probe, allowed, false);
    }
}

#[test]
#[should_panic(expected = "not [9, 1]")]
fn a_slot_of_a_root_may_not_lead_to_a_node_used_again() {
    let (before, changes, probe, allowed) = super::ROOT_LARGE;
    check(before, changes, probe, allowed, true);
}
