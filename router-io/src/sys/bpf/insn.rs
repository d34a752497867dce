//! A few eBPF instructions: enough to write the programs of ports, and of [`crate::traffic`], without a compiler.
//! See the kernel's `Documentation/bpf/standardization/instruction-set.rst`.

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(pub u8);

/// Result, arguments, callee-saved registers, frame pointer.
pub const R0: Reg = Reg(0);
/// First argument.
pub const R1: Reg = Reg(1);
/// Second argument.
pub const R2: Reg = Reg(2);
/// Third argument.
pub const R3: Reg = Reg(3);
/// Fourth argument.
pub const R4: Reg = Reg(4);
/// Fifth argument.
pub const R5: Reg = Reg(5);
/// Kept across calls.
pub const R6: Reg = Reg(6);
/// Kept across calls.
pub const R7: Reg = Reg(7);
/// Kept across calls.
pub const R8: Reg = Reg(8);
/// Kept across calls.
pub const R9: Reg = Reg(9);
/// Frame pointer.
pub const R10: Reg = Reg(10);

/// Width of a memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Size {
    /// One byte.
    B = 0x10,
    /// Two.
    H = 0x08,
    /// Four.
    W = 0x00,
    /// Eight.
    D = 0x18,
}

/// Arithmetic on 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Op {
    /// +
    Add = 0x00,
    /// -
    Sub = 0x10,
    /// and
    And = 0x50,
    /// unsigned quotient
    Div = 0x30,
    /// *
    Mul = 0x20,
    /// <<
    Shl = 0x60,
    /// unsigned >>
    Shr = 0x70,
    /// unsigned remainder
    Mod = 0x90,
    /// exclusive or
    Xor = 0xa0,
    /// =
    Mov = 0xb0,
}

/// A condition for a jump: destination against source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum If {
    /// ==
    Eq = 0x10,
    /// unsigned >
    Gt = 0x20,
    /// unsigned <
    Lt = 0xa0,
    /// any of these bits
    Set = 0x40,
    /// !=
    Ne = 0x50,
}

/// A place to jump to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// Helper functions of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Helper {
    /// `bpf_map_lookup_elem`
    MapLookup = 1,
    /// `bpf_map_update_elem`
    MapUpdate = 2,
    /// `bpf_ktime_get_ns`
    KtimeGetNs = 5,
    /// `bpf_skb_store_bytes`
    SkbStoreBytes = 9,
    /// `bpf_redirect`
    Redirect = 23,
    /// `bpf_skb_load_bytes`
    SkbLoadBytes = 26,
    /// `bpf_skb_change_tail`
    SkbChangeTail = 38,
    /// `bpf_skb_adjust_room`
    SkbAdjustRoom = 50,
    /// `bpf_redirect_map`
    RedirectMap = 51,
    /// `bpf_xdp_adjust_tail`
    XdpAdjustTail = 65,
}

/// A program being written.
#[derive(Clone, Debug, Default)]
pub struct Code {
    words: Vec<u64>,
    /// Where each label is; none yet for a jump ahead.
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

impl Code {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn push(&mut self, op: u8, dst: Reg, src: Reg, off: i16, imm: i32) -> &mut Self {
        let w = u64::from(op)
            | u64::from(dst.0) << 8
            | u64::from(src.0) << 12
            | u64::from(off as u16) << 16
            | u64::from(imm as u32) << 32;
        self.words.push(w);
        self
    }

    /// `dst = dst op imm`
    pub fn imm(&mut self, op: Op, dst: Reg, imm: i32) -> &mut Self {
        self.push(0x07 | op as u8, dst, R0, 0, imm)
    }

    /// `dst = dst op src`
    pub fn reg(&mut self, op: Op, dst: Reg, src: Reg) -> &mut Self {
        self.push(0x0f | op as u8, dst, src, 0, 0)
    }

    /// `dst = *(src + off)`
    pub fn load(&mut self, size: Size, dst: Reg, src: Reg, off: i16) -> &mut Self {
        self.push(0x61 | size as u8, dst, src, off, 0)
    }

    /// `*(dst + off) = src`
    pub fn store(&mut self, size: Size, dst: Reg, off: i16, src: Reg) -> &mut Self {
        self.push(0x63 | size as u8, dst, src, off, 0)
    }

    /// `*(u64 *)(dst + off) += src`, atomically
    pub fn atomic_add(&mut self, dst: Reg, off: i16, src: Reg) -> &mut Self {
        self.push(0xdb, dst, src, off, 0)
    }

    /// The lower 16 bits of `dst` from network order to the host's, or back; the others become 0.
    pub fn be16(&mut self, dst: Reg) -> &mut Self {
        self.push(0xdc, dst, R0, 0, 16)
    }

    /// `dst =` the map behind a descriptor
    pub fn map(&mut self, dst: Reg, fd: i32) -> &mut Self {
        self.push(0x18, dst, Reg(1), 0, fd).push(0, R0, R0, 0, 0)
    }

    /// `dst =` address of byte `off` in the value of a map with one element
    pub fn map_value(&mut self, dst: Reg, fd: i32, off: i32) -> &mut Self {
        self.push(0x18, dst, Reg(2), 0, fd).push(0, R0, R0, 0, off)
    }

    /// A helper's call; R1 to R5 are lost, R0 is its result.
    pub fn call(&mut self, helper: Helper) -> &mut Self {
        self.push(0x85, R0, R0, 0, helper as i32)
    }

    /// A label to be placed later.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// The label is here.
    pub fn place(&mut self, label: Label) -> &mut Self {
        self.labels[label.0] = Some(self.words.len());
        self
    }

    /// Jump to the label.
    pub fn jump(&mut self, to: Label) -> &mut Self {
        self.jumps.push((self.words.len(), to));
        self.push(0x05, R0, R0, 0, 0)
    }

    /// Jump to the label if `dst cond imm`.
    pub fn jump_imm(&mut self, cond: If, dst: Reg, imm: i32, to: Label) -> &mut Self {
        self.jumps.push((self.words.len(), to));
        self.push(0x05 | cond as u8, dst, R0, 0, imm)
    }

    /// Jump to the label if `dst cond src`.
    pub fn jump_reg(&mut self, cond: If, dst: Reg, src: Reg, to: Label) -> &mut Self {
        self.jumps.push((self.words.len(), to));
        self.push(0x0d | cond as u8, dst, src, 0, 0)
    }

    /// `return value`
    pub fn ret(&mut self, value: i32) -> &mut Self {
        self.imm(Op::Mov, R0, value).push(0x95, R0, R0, 0, 0)
    }

    /// `return R0`
    pub fn exit(&mut self) -> &mut Self {
        self.push(0x95, R0, R0, 0, 0)
    }

    /// The finished instructions. Jumps to labels that were never placed go nowhere, which the kernel's verifier refuses.
    pub fn finish(mut self) -> Vec<u64> {
        for (at, label) in &self.jumps {
            if let Some(Some(target)) = self.labels.get(label.0) {
                let off = (*target as i64 - *at as i64 - 1) as i16;
                self.words[*at] |= u64::from(off as u16) << 16;
            }
        }
        self.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoding() {
        let mut c = Code::new();
        let end = c.label();
        c.imm(Op::Mov, R2, -1).reg(Op::Add, R2, R3).load(Size::H, R5, R2, 12).store(Size::D, R10, -8, R5);
        c.jump_imm(If::Ne, R5, 8, end).atomic_add(R1, 8, R4);
        c.place(end).ret(2);
        let words = c.finish();
        let want: [u64; 8] = [
            0xffff_ffff_0000_02b7,
            0x0000_0000_0000_320f,
            0x0000_0000_000c_2569,
            0x0000_0000_fff8_5a7b,
            0x0000_0008_0001_0555,
            0x0000_0000_0008_41db,
            0x0000_0002_0000_00b7,
            0x0000_0000_0000_0095,
        ];
        assert_eq!(words, want, "{words:x?}");
    }
}
