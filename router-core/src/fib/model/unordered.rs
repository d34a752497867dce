//! A planted fault: links to new nodes are stored without order.

#![allow(dead_code, clippy::duplicate_mod)]

mod sync {
    super::super::small_memory!();

    pub(super) const PUBLISH: Ordering = Ordering::Relaxed;
    pub(super) const READ_AGAIN: bool = true;
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
#[should_panic(expected = "not [1, 2]")]
fn half_made_nodes_are_seen() {
    let (before, changes, probe, allowed) = super::NEW_NODE;
    check(before, changes, probe, allowed, false);
}
