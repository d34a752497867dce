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

/// How many bytes a load or store moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 1 byte.
    Byte = 0x10,
    /// 2 bytes.
    Half = 0x08,
    /// 4 bytes.
    Word = 0x00,
    /// 8 bytes.
    Double = 0x18,
}

/// Helper `bpf_map_lookup_elem`.
pub const MAP_LOOKUP: i32 = 1;
/// Helper `bpf_redirect_map`.
pub const REDIRECT_MAP: i32 = 51;

const fn insn(code: u8, dst: Reg, src: Reg, offset: i16, immediate: i32) -> Insn {
    Insn { code, registers: dst | src << 4, offset, immediate }
}

/// dst = src.
pub const fn mov(dst: Reg, src: Reg) -> Insn {
    insn(0xbf, dst, src, 0, 0)
}

/// dst = value.
pub const fn mov_imm(dst: Reg, value: i32) -> Insn {
    insn(0xb7, dst, 0, 0, value)
}

/// dst += value.
pub const fn add_imm(dst: Reg, value: i32) -> Insn {
    insn(0x07, dst, 0, 0, value)
}

/// dst += src.
pub const fn add(dst: Reg, src: Reg) -> Insn {
    insn(0x0f, dst, src, 0, 0)
}

/// dst -= src.
pub const fn sub(dst: Reg, src: Reg) -> Insn {
    insn(0x1f, dst, src, 0, 0)
}

/// dst &= value, in 32 bits.
pub const fn and32_imm(dst: Reg, value: u32) -> Insn {
    insn(0x54, dst, 0, 0, value as i32)
}

/// dst = *(src + offset).
pub const fn load(width: Width, dst: Reg, src: Reg, offset: i16) -> Insn {
    insn(0x61 | width as u8, dst, src, offset, 0)
}

/// *(dst + offset) = src.
pub const fn store(width: Width, dst: Reg, offset: i16, src: Reg) -> Insn {
    insn(0x63 | width as u8, dst, src, offset, 0)
}

/// *(dst + offset) = value, 4 bytes.
pub const fn store_imm(dst: Reg, offset: i16, value: i32) -> Insn {
    insn(0x62, dst, 0, offset, value)
}

/// Skips `offset` instructions if a > b.
pub const fn jump_greater(a: Reg, b: Reg, offset: i16) -> Insn {
    insn(0x2d, a, b, offset, 0)
}

/// Skips `offset` instructions if the low 32 bits of a are not `value`.
pub const fn jump_not_equal32(a: Reg, value: u32, offset: i16) -> Insn {
    insn(0x56, a, 0, offset, value as i32)
}

/// Skips `offset` instructions if a is 0.
pub const fn jump_zero(a: Reg, offset: i16) -> Insn {
    insn(0x15, a, 0, offset, 0)
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
