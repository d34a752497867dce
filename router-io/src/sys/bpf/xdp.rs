//! The XDP programs: everything to AF_XDP sockets, and counting by rules.

use super::insn::{self, Insn, Width};
use super::{CounterMap, LoadError, Program, XskMap};
use std::os::fd::AsFd;

/// XDP actions (`enum xdp_action`).
pub const XDP_DROP: i32 = 1;
/// The frame goes on to the kernel's own stack.
pub const XDP_PASS: i32 = 2;

/// Offsets in `struct xdp_md`.
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const RX_QUEUE_INDEX: i16 = 16;

impl Program {
    /// Frames go to the socket that `map` has for their receive queue; those of queues without one to the kernel.
    pub fn redirect(map: &XskMap) -> Result<Self, LoadError> {
        let mut code = vec![insn::load(Width::Word, 2, 1, RX_QUEUE_INDEX)];
        code.extend(insn::load_map(1, map.fd.as_fd()));
        // The low bits of the flags are what the helper returns when the map has no socket.
        code.extend([insn::mov_imm(3, XDP_PASS), insn::call(insn::REDIRECT_MAP), insn::exit()]);
        Program::load(&code, false)
    }

    /// Counts and disposes of frames by `rules`: the first whose matches all hold counts the frame under its own index in
    /// `counters` and decides. Frames that no rule matches go to the kernel, uncounted. `sockets` is what
    /// [`Action::Socket`] redirects to. Needs CAP_PERFMON beside CAP_BPF and CAP_NET_ADMIN.
    pub fn rules(rules: &[Rule], counters: &CounterMap, sockets: Option<&XskMap>) -> Result<Self, LoadError> {
        Program::load(&compile(rules, counters, sockets), false)
    }
}

/// A comparison of up to four bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    offset: u16,
    width: Width,
    mask: u32,
    value: u32,
}

impl Match {
    /// The byte at `offset` is `value`.
    pub fn byte(offset: u16, value: u8) -> Self {
        Match { offset, width: Width::Byte, mask: 0xff, value: value.into() }
    }

    /// The two bytes at `offset`, in network byte order, are `value`.
    pub fn half(offset: u16, value: u16) -> Self {
        Match { offset, width: Width::Half, mask: 0xffff, value: value.to_be().into() }
    }

    /// The four bytes at `offset`, in network byte order, are `value`.
    pub fn word(offset: u16, value: u32) -> Self {
        Match { offset, width: Width::Word, mask: u32::MAX, value: value.to_be() }
    }

    /// The same, looking only at the bits of `mask` (network byte order, of the comparison's own width).
    pub fn masked(mut self, mask: u32) -> Self {
        self.mask = match self.width {
            Width::Byte => mask & 0xff,
            Width::Half => u32::from((mask as u16).to_be()),
            Width::Word | Width::Double => mask.to_be(),
        };
        self.value &= self.mask;
        self
    }

    fn len(self) -> i32 {
        match self.width {
            Width::Byte => 1,
            Width::Half => 2,
            Width::Word | Width::Double => 4,
        }
    }
}

/// What becomes of a frame that a rule matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It ends here.
    Drop,
    /// It goes on to the kernel.
    Pass,
    /// It goes to the AF_XDP socket of its receive queue; where there is none, it ends here.
    Socket,
}

/// A rule of [`Program::rules`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// All must hold; a frame that is too short for one does not match.
    pub matches: Vec<Match>,
    /// What then happens.
    pub action: Action,
}

/// R6: the context; R7: length of the frame; R8: its start; R9: its end.
fn compile(rules: &[Rule], counters: &CounterMap, sockets: Option<&XskMap>) -> Vec<Insn> {
    let mut code = vec![
        insn::mov(6, 1),
        insn::load(Width::Word, 8, 1, DATA),
        insn::load(Width::Word, 9, 1, DATA_END),
        insn::mov(7, 9),
        insn::sub(7, 8),
    ];
    for (i, rule) in rules.iter().enumerate() {
        let body = hit(i, rule.action, counters, sockets);
        // Each comparison skips the rest of this rule, so they are laid down from the last to the first.
        let mut tests: Vec<Insn> = Vec::new();
        for m in rule.matches.iter().rev() {
            let mut test = vec![insn::mov(1, 8), insn::add_imm(1, i32::from(m.offset) + m.len())];
            let mask: &[Insn] = if m.mask == full(m.width) { &[] } else { &[insn::and32_imm(2, m.mask)] };
            let rest = |after: usize| (after + tests.len() + body.len()) as i16;
            test.push(insn::jump_greater(1, 9, rest(mask.len() + 2)));
            test.push(insn::load(m.width, 2, 8, m.offset as i16));
            test.extend(mask);
            test.push(insn::jump_not_equal32(2, m.value, rest(0)));
            test.extend(tests);
            tests = test;
        }
        code.extend(tests);
        code.extend(body);
        if rule.matches.is_empty() {
            // Nothing comes after a rule for everything, and the verifier wants no dead code.
            return code;
        }
    }
    code.extend([insn::mov_imm(0, XDP_PASS), insn::exit()]);
    code
}

fn full(width: Width) -> u32 {
    match width {
        Width::Byte => 0xff,
        Width::Half => 0xffff,
        Width::Word | Width::Double => u32::MAX,
    }
}

/// Counts under `index` and ends the program.
fn hit(index: usize, action: Action, counters: &CounterMap, sockets: Option<&XskMap>) -> Vec<Insn> {
    let mut code = vec![insn::store_imm(10, -4, index as i32)];
    code.extend(insn::load_map(1, counters.fd.as_fd()));
    code.extend([insn::mov(2, 10), insn::add_imm(2, -4), insn::call(insn::MAP_LOOKUP)]);
    // The verifier wants to see that we look; an array has every index.
    code.push(insn::jump_zero(0, 6));
    code.extend([
        insn::load(Width::Double, 1, 0, 0),
        insn::add_imm(1, 1),
        insn::store(Width::Double, 0, 0, 1),
        insn::load(Width::Double, 1, 0, 8),
        insn::add(1, 7),
        insn::store(Width::Double, 0, 8, 1),
    ]);
    match (action, sockets) {
        (Action::Socket, Some(map)) => {
            code.extend(insn::load_map(1, map.fd.as_fd()));
            code.extend([
                insn::load(Width::Word, 2, 6, RX_QUEUE_INDEX),
                insn::mov_imm(3, XDP_DROP),
                insn::call(insn::REDIRECT_MAP),
            ]);
        }
        (Action::Pass, _) => code.push(insn::mov_imm(0, XDP_PASS)),
        (Action::Drop | Action::Socket, _) => code.push(insn::mov_imm(0, XDP_DROP)),
    }
    code.push(insn::exit());
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::bpf::Count;

    /// None, said, where this process may not load programs.
    fn allowed<T>(what: std::io::Result<T>) -> Option<T> {
        match what {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
                eprintln!("SKIPPED: bpf(2): {e}");
                None
            }
            other => Some(other.expect("bpf(2)")),
        }
    }

    #[test]
    fn rules_count_what_they_match_and_nothing_else() {
        let rules = [
            Rule {
                matches: vec![Match::half(12, 0x0800), Match::byte(23, 17), Match::half(36, 9)],
                action: Action::Drop,
            },
            Rule {
                matches: vec![Match::half(12, 0x0800), Match::word(30, 0x0a01_0000).masked(0xffff_0000)],
                action: Action::Pass,
            },
            Rule {
                matches: vec![Match::half(12, 0x86dd), Match::half(14, 0x6000).masked(0xf000)],
                action: Action::Drop,
            },
        ];
        let Some(counters) = allowed(CounterMap::new(4)) else { return };
        let program = Program::rules(&rules, &counters, None).unwrap();
        let frame = |len: usize, set: &[(usize, &[u8])]| {
            let mut f = vec![0u8; len];
            set.iter().for_each(|(at, bytes)| f[*at..at + bytes.len()].copy_from_slice(bytes));
            f
        };
        let (drop, pass) = (XDP_DROP as u32, XDP_PASS as u32);
        let table = [
            (frame(64, &[(12, &[8, 0]), (23, &[17]), (36, &[0, 9])]), drop),
            (frame(64, &[(12, &[8, 0]), (23, &[17]), (36, &[0, 10])]), pass),
            // Too short for the port.
            (frame(36, &[(12, &[8, 0]), (23, &[17])]), pass),
            (frame(100, &[(12, &[8, 0]), (30, &[10, 1, 2, 3])]), pass),
            (frame(80, &[(12, &[0x86, 0xdd]), (14, &[0x61])]), drop),
            (frame(80, &[(12, &[0x86, 0xdd]), (14, &[0x51])]), pass),
            (frame(14, &[]), pass),
        ];
        for (frame, want) in &table {
            assert_eq!(program.test_run(frame).unwrap(), *want, "{frame:02x?}");
        }
        let count = |packets, bytes| Count { packets, bytes };
        let all: Vec<Count> = (0..5).map(|i| counters.get(i).unwrap()).collect();
        assert_eq!(all, [count(1, 64), count(1, 100), count(1, 80), count(0, 0), count(0, 0)]);
    }

    #[test]
    fn without_a_socket_frames_go_to_the_kernel() {
        let Some(map) = allowed(XskMap::new(2)) else { return };
        assert_eq!(map.entries(), 2);
        assert_eq!(Program::redirect(&map).unwrap().test_run(&[0; 64]).unwrap(), XDP_PASS as u32);
        let counters = CounterMap::new(1).unwrap();
        let all = [Rule { matches: vec![], action: Action::Socket }];
        let program = Program::rules(&all, &counters, Some(&map)).unwrap();
        assert_eq!(program.test_run(&[0; 64]).unwrap(), XDP_DROP as u32);
        assert_eq!(counters.get(0).unwrap().packets, 1);
    }

    #[test]
    fn a_refused_program_comes_with_the_verifiers_words() {
        if allowed(XskMap::new(1)).is_none() {
            return;
        }
        let e = Program::load(&[insn::mov(0, 3), insn::exit()], false).unwrap_err();
        assert!(e.log.contains("R3"), "{e}");
    }
}
