//! A planted fault: the zero-length prefix is read only before the lookup.

#![allow(dead_code, clippy::duplicate_mod)]

super::engine!(publish: Release, read_again: false, roots: 0);

#[test]
#[should_panic(expected = "not [3, 2]")]
fn a_stale_default_is_seen() {
    let (before, changes, probe, allowed) = super::UNCOVERED;
    check(before, changes, probe, allowed, false);
}
