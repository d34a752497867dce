//! The engine as it is: no order of accesses shows a reader what never held.

#![allow(dead_code, clippy::duplicate_mod)]

super::engine!(publish: Release, read_again: true, roots: 0);

#[test]
fn readers_see_what_held() {
    for (before, changes, probe, allowed) in
        [super::NEW_NODE, super::UNCOVERED, super::COVERED, super::REUSED, super::IN_PLACE]
    {
        check(before, changes, probe, allowed, false);
    }
}

#[test]
#[should_panic(expected = "not [1]")]
fn nodes_used_again_too_early_are_seen() {
    let (before, changes, probe, allowed) = super::REUSED;
    check(before, changes, probe, allowed, true);
}
