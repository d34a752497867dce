//! BPF instructions (`linux/bpf.h`, `struct bpf_insn`), as few as our programs use.

use std::os::fd::{AsRawFd, BorrowedFd};

/// One instruction.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    code: u8,
    /// Destination in the low nibble, source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Registers: R0 results, R1-R5 arguments, R6-R9 kept over calls, R10 the stack's end.
pub type Reg = u8;

/// Helper `bpf_redirect_map`.
pub const REDIRECT_MAP: i32 = 51;

const fn insn(code: u8, dst: Reg, src: Reg, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers: dst | src << 4, offset, immediate }
}

/// dst = value.
pub const fn mov_imm(dst: Reg, value: i32) -> Insn {
    insn(0xb7, dst, 0, 0, value)
}

/// dst = *(src + offset), 4 bytes.
pub const fn load(dst: Reg, src: Reg, offset: i16) -> Insn {
    insn(0x61, dst, src, offset, 0)
}

/// Calls a helper.
pub const fn call(helper: i32) -> Insn {
    insn(0x85, 0, 0, 0, helper)
}

/// Ends the program with R0.
pub const fn exit() -> Insn {
    insn(0x95, 0, 0, 0, 0)
}

/// dst = the map of this descriptor; two instructions long.
pub fn load_map(dst: Reg, map: BorrowedFd<'_>) -> [Insn; 2] {
    const PSEUDO_MAP_FD: Reg = 1;
    [insn(0x18, dst, PSEUDO_MAP_FD, 0, map.as_raw_fd()), insn(0, 0, 0, 0, 0)]
}
