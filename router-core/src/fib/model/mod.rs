//! How changes are published, under a model checker: every order in which a reader's and the writer's memory accesses can
//! fall, and every old value that the memory model lets a reader see, up to a number of preemptions.
//!
//! The engine is compiled again with the checker's atomics, in small memory. That the checker can see faults is shown by
//! planting some: links published without order, the zero-length prefix read once, nodes used again too early; the first and the last in a table with a direct root, too. What publishes the root itself is
//! the standard library's `OnceLock`, which is not modelled: a scenario's root is there before its reader. (A test with real threads,
//! `readers_see_only_real_states`, lets tables get their roots while they are read.)

mod read_once;
mod rooted;
mod rooted_unordered;
mod sound;
mod unordered;

use ipnet::IpNet;

/// The engine once more, with the checker's atomics and in small memory, and the scenarios on it. Links to new nodes are
/// stored in the order `publish`; `read_again` says whether the zero-length prefix is read twice. With `roots` 1, a table has a
/// direct root from its first prefix on, of 64 slots: prefixes of 16 bits or more find their own.
macro_rules! engine {
    (publish: $publish:ident, read_again: $read_again:literal, roots: $roots:literal) => {
        mod sync {
            pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

            pub(super) const SEGMENT_LOG2: u32 = 8;
            pub(super) const SEGMENT: usize = 1 << SEGMENT_LOG2;
            pub(super) const SEGMENTS: usize = 2;
            pub(super) const CONSTANT_NODES: u32 = 4;
            pub(super) const DIRECT_FROM: u32 = u32::MAX;
            pub(super) const DIRECT_FREE: usize = $roots;
            pub(super) const ROOT_SLOTS: usize = 64;

            pub(super) fn segment() -> Option<Box<[AtomicU64; SEGMENT]>> {
                let words: Box<[AtomicU64]> = std::iter::repeat_with(|| AtomicU64::new(0)).take(SEGMENT).collect();
                words.try_into().ok()
            }

            pub(super) const PUBLISH: Ordering = Ordering::$publish;
            pub(super) const READ_AGAIN: bool = $read_again;
        }

        #[path = "../arena.rs"]
        mod arena;
        #[path = "../change.rs"]
        mod change;
        #[path = "../edit.rs"]
        mod edit;
        #[path = "../lanes.rs"]
        mod lanes;
        #[path = "../node.rs"]
        mod node;
        #[path = "../record.rs"]
        mod record;
        #[path = "../runs.rs"]
        mod runs;
        #[path = "../trie.rs"]
        mod trie;

        use super::{Step, net};
        use crate::object::ObjectId;
        use arena::FibMemory;
        use loom::sync::Arc;
        use std::net::Ipv4Addr;
        use trie::Trie;

        fn step(trie: &Trie<Ipv4Addr>, memory: &mut FibMemory, step: &Step) {
            let (prefix, value, cover) = *step;
            let (octets, len) = net(prefix);
            match value {
                Some(v) => trie.insert(memory, &octets, len, ObjectId(v)).expect("room"),
                None => trie.remove(memory, &octets, len, cover.map(|(l, v)| (l, ObjectId(v)))),
            }
        }

        /// A reader looks `probe` up once while the writer makes `changes` to what `before` made. It must see one of
        /// `allowed`. Each change is a snapshot; its nodes are used again when the reader is done, or at once if `early`.
        fn check(before: &'static [Step], changes: &'static [Step], probe: &str, allowed: &'static [u32], early: bool) {
            let probe: Ipv4Addr = probe.parse().expect("an address");
            let mut model = loom::model::Builder::new();
            model.preemption_bound = Some(3);
            model.check(move || {
                let mut memory = FibMemory::new();
                let trie = Arc::new(Trie::<Ipv4Addr>::new(0));
                before.iter().for_each(|s| step(&trie, &mut memory, s));
                memory.seal(0);
                memory.release(1);
                let mut snapshot = Arc::new(());
                let reader = {
                    let (trie, lines, held) = (trie.clone(), memory.lines().clone(), snapshot.clone());
                    loom::thread::spawn(move || {
                        let single = trie.lookup(&lines, probe);
                        let mut batch = [ObjectId(0)];
                        trie.lookup_batch(&lines, &[probe], &mut batch);
                        drop(held);
                        (single.0, batch[0].0)
                    })
                };
                for (seq, change) in (1..).zip(changes) {
                    step(&trie, &mut memory, change);
                    memory.seal(seq);
                    if early || Arc::get_mut(&mut snapshot).is_some() {
                        memory.release(seq + 1);
                    }
                }
                let (single, batch) = reader.join().expect("the reader");
                assert!(allowed.contains(&single) && allowed.contains(&batch), "{single} {batch}: not {allowed:?}");
            });
        }
    };
}

use engine;

/// A prefix, its value or None to remove it, and then the longest prefix around it.
type Step = (&'static str, Option<u32>, Option<(u8, u32)>);

fn net(prefix: &str) -> ([u8; 4], u8) {
    match prefix.parse() {
        Ok(IpNet::V4(n)) => (n.network().octets(), n.prefix_len()),
        _ => panic!("{prefix} is no IPv4 prefix"),
    }
}

/// A node appears below an answer.
const NEW_NODE: (&[Step], &[Step], &str, &[u32]) =
    (&[("10.0.0.0/8", Some(1), None)], &[("10.1.2.0/24", Some(2), None)], "10.1.2.3", &[1, 2]);

/// The zero-length prefix changes, then a prefix goes that hid it: its former value was never the answer.
const UNCOVERED: (&[Step], &[Step], &str, &[u32]) = (
    &[("0.0.0.0/0", Some(1), None), ("10.0.0.0/8", Some(3), None)],
    &[("0.0.0.0/0", Some(2), None), ("10.0.0.0/8", None, Some((0, 2)))],
    "10.1.2.3",
    &[3, 2],
);

/// A prefix comes, then the zero-length prefix behind it changes.
const COVERED: (&[Step], &[Step], &str, &[u32]) = (
    &[("0.0.0.0/0", Some(1), None), ("11.0.0.0/8", Some(4), None)],
    &[("10.0.0.0/8", Some(3), None), ("0.0.0.0/0", Some(2), None)],
    "10.1.2.3",
    &[1, 3],
);

/// A node is replaced, and another one is made that would take its place.
const REUSED: (&[Step], &[Step], &str, &[u32]) = (
    &[("10.1.2.0/24", Some(1), None), ("10.1.4.0/24", Some(1), None)],
    &[("10.1.3.0/24", Some(2), None), ("11.1.2.0/23", Some(9), None), ("12.1.2.0/23", Some(9), None)],
    "10.1.2.3",
    &[1],
);

/// A node appears below an answer in a slot of a direct root.
const ROOT_NODE: (&[Step], &[Step], &str, &[u32]) =
    (&[("10.1.0.0/16", Some(1), None)], &[("10.1.2.0/24", Some(2), None)], "10.1.2.3", &[1, 2]);

/// A node below a direct root is hidden, as all in it have the same answer, then comes again.
const ROOT_HIDDEN: (&[Step], &[Step], &str, &[u32]) = (
    &[("10.1.0.0/16", Some(1), None), ("10.1.2.0/24", Some(2), None)],
    &[("10.1.2.0/24", Some(1), None), ("10.1.3.0/24", Some(0), None), ("10.1.2.0/24", None, Some((16, 1)))],
    "10.1.2.3",
    &[2, 1],
);

/// A large answer in a slot of a direct root, which takes a node, then a small one, then a node in its place.
const ROOT_LARGE: (&[Step], &[Step], &str, &[u32]) = (
    &[("10.1.0.0/16", Some(9), None)],
    &[("10.1.0.0/16", Some(1), None), ("10.2.0.0/16", Some(8), None)],
    "10.1.2.3",
    &[9, 1],
);

/// A value changes in place, in a node and for the bytes that it skips.
const IN_PLACE: (&[Step], &[Step], &str, &[u32]) = (
    &[("10.0.0.0/8", Some(1), None), ("10.1.2.0/24", Some(2), None)],
    &[("10.1.2.0/24", Some(3), None), ("10.0.0.0/8", Some(4), None), ("10.1.2.0/24", None, Some((8, 4)))],
    "10.1.2.3",
    &[2, 3, 4],
);
