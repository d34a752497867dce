//! A planted fault: the zero-length prefix is read only before the lookup.

#![allow(dead_code, clippy::duplicate_mod)]

mod sync {
    super::super::small_memory!();

    pub(super) const PUBLISH: Ordering = Ordering::Release;
    pub(super) const READ_AGAIN: bool = false;
}

#[path = "../arena.rs"]
mod arena;
#[path = "../change.rs"]
mod change;
#[path = "../edit.rs"]
mod edit;
#[path = "../node.rs"]
mod node;
#[path = "../record.rs"]
mod record;
#[path = "../trie.rs"]
mod trie;

super::scenarios!();

#[test]
#[should_panic(expected = "not [3, 2]")]
fn a_stale_default_is_seen() {
    let (before, changes, probe, allowed) = super::UNCOVERED;
    check(before, changes, probe, allowed, false);
}
