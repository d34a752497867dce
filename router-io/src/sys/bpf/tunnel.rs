//! Programs on a device's way out and in that make tunnels' super-frames: the kernel segments a packet in a tunnel by itself (or
//! lets the hardware do it) if only it knows where the inner packet begins, which `virtio_net_hdr` cannot say.
//!
//! [`Program::encapsulate`] takes a marked super-frame that a packet socket has sent with all its headers, takes the outer one
//! off and puts the same bytes on again by `bpf_skb_adjust_room`, which notes what is a tunnel's header and what is not. The
//! payload does not move. [`Program::decapsulate`] and [`Program::put_on`] are the other end of a 6in4 tunnel, for tests and
//! benchmarks on machines whose kernel has no tunnel driver.

use super::insn::{Code, Helper, If, Label, Op, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, Size};
use super::{Kind, LoadError, Program};
use std::net::Ipv4Addr;

/// The mark (SO_MARK) of frames that [`Program::encapsulate`] is to see; it takes it away.
pub const MARK: u32 = 0x4475_6574;

/// `enum tcx_action_base`: on to the next program, or into the ground.
const NEXT: i32 = -1;
const DROP: i32 = 2;
/// Offsets in `struct __sk_buff`.
const SKB_MARK: i16 = 8;
const SKB_PROTOCOL: i16 = 16;
const SKB_GSO_SIZE: i16 = 176;
/// `BPF_ADJ_ROOM_MAC`, and flags of `bpf_skb_adjust_room`.
const AFTER_MAC: i32 = 1;
const FIXED_GSO: i32 = 1;
const ENCAP_IPV4: i32 = 1 << 1;
const ENCAP_IPV6: i32 = 1 << 2;
const DECAP_IPV4: i32 = 1 << 7;
const DECAP_IPV6: i32 = 1 << 8;
/// Length of the link header.
const LINK: i32 = 14;
/// Where the program keeps an outer header, from the frame pointer.
const ROOM: i16 = -40;

const IPV4: i32 = 0x0800u16.to_be() as i32;
const IPV6: i32 = 0x86ddu16.to_be() as i32;

/// What goes before a packet, as `bpf_skb_adjust_room` wants to know it.
#[derive(Clone, Copy)]
struct Outer {
    len: i32,
    /// Where its protocol field is.
    protocol: i16,
    flag: i32,
}

const OUTER_V4: Outer = Outer { len: 20, protocol: 9, flag: ENCAP_IPV4 };
const OUTER_V6: Outer = Outer { len: 40, protocol: 6, flag: ENCAP_IPV6 };

/// Calls a helper and goes to `fail` unless it returns 0.
fn must(code: &mut Code, helper: Helper, fail: Label) {
    code.call(helper).jump_imm(If::Ne, R0, 0, fail);
}

/// `len` bytes of the packet from the network header on to the program's room.
fn load_outer(code: &mut Code, len: i32, fail: Label) {
    code.reg(Op::Mov, R1, R6).imm(Op::Mov, R2, LINK).reg(Op::Mov, R3, R10).imm(Op::Add, R3, i32::from(ROOM));
    code.imm(Op::Mov, R4, len);
    must(code, Helper::SkbLoadBytes, fail);
}

/// Grows (or shrinks) the packet behind its link header; the flags are in R9.
fn adjust(code: &mut Code, by: i32, fail: Label) {
    code.reg(Op::Mov, R1, R6).imm(Op::Mov, R2, by).imm(Op::Mov, R3, AFTER_MAC).reg(Op::Mov, R4, R9);
    must(code, Helper::SkbAdjustRoom, fail);
}

/// The program's room to the packet, `len` bytes at `at`.
fn store(code: &mut Code, at: i32, from: i16, len: i32, fail: Label) {
    code.reg(Op::Mov, R1, R6).imm(Op::Mov, R2, at).reg(Op::Mov, R3, R10).imm(Op::Add, R3, i32::from(from));
    code.imm(Op::Mov, R4, len).imm(Op::Mov, R5, 0);
    must(code, Helper::SkbStoreBytes, fail);
}

/// Off and on again, with the tunnel noted.
fn renew(code: &mut Code, outer: Outer, next: Label, drop: Label) {
    load_outer(code, outer.len, drop);
    code.load(Size::B, R8, R10, ROOM + outer.protocol);
    let v4 = code.label();
    code.imm(Op::Mov, R9, FIXED_GSO | DECAP_IPV4).jump_imm(If::Eq, R8, 4, v4);
    code.imm(Op::Mov, R9, FIXED_GSO | DECAP_IPV6).jump_imm(If::Ne, R8, 41, drop);
    code.place(v4);
    adjust(code, -outer.len, drop);
    code.imm(Op::Mov, R9, FIXED_GSO | outer.flag);
    adjust(code, outer.len, drop);
    store(code, LINK, ROOM, outer.len, drop);
    code.jump(next);
}

impl Program {
    /// For the way out of a packet socket's device: see the module.
    pub fn encapsulate() -> Result<Self, LoadError> {
        let mut code = Code::new();
        let (next, drop, v6) = (code.label(), code.label(), code.label());
        code.load(Size::W, R0, R1, SKB_MARK).jump_imm(If::Ne, R0, MARK as i32, next);
        code.reg(Op::Mov, R6, R1).imm(Op::Mov, R0, 0).store(Size::W, R6, SKB_MARK, R0);
        // No longer than a segment after all: then it is complete as it is.
        code.load(Size::W, R0, R6, SKB_GSO_SIZE).jump_imm(If::Eq, R0, 0, next);
        code.load(Size::W, R7, R6, SKB_PROTOCOL).jump_imm(If::Eq, R7, IPV6, v6).jump_imm(If::Ne, R7, IPV4, drop);
        renew(&mut code, OUTER_V4, next, drop);
        code.place(v6);
        renew(&mut code, OUTER_V6, next, drop);
        code.place(drop).ret(DROP).place(next).ret(NEXT);
        Program::load_as(Kind::Traffic, "duet_tunnel", &code.finish())
    }

    /// For the way in: takes the outer header of 6in4 packets off.
    pub fn decapsulate() -> Result<Self, LoadError> {
        let mut code = Code::new();
        let (next, drop) = (code.label(), code.label());
        code.reg(Op::Mov, R6, R1).load(Size::W, R7, R6, SKB_PROTOCOL).jump_imm(If::Ne, R7, IPV4, next);
        load_outer(&mut code, 20, next);
        code.load(Size::B, R8, R10, ROOM + 9).jump_imm(If::Ne, R8, 41, next);
        code.imm(Op::Mov, R9, FIXED_GSO | DECAP_IPV6);
        adjust(&mut code, -20, drop);
        code.imm(Op::Mov, R0, IPV6).store(Size::H, R10, ROOM, R0);
        store(&mut code, 12, ROOM, 2, drop);
        code.jump(next);
        code.place(drop).ret(DROP).place(next).ret(NEXT);
        Program::load_as(Kind::Traffic, "duet_decap", &code.finish())
    }

    /// For the way out: puts an outer header from `src` to `dst` on all IPv6 packets that begin with byte `first` of a global
    /// address (others are neighbour discovery's).
    pub fn put_on(src: Ipv4Addr, dst: Ipv4Addr) -> Result<Self, LoadError> {
        let mut code = Code::new();
        let (next, drop) = (code.label(), code.label());
        code.reg(Op::Mov, R6, R1).load(Size::W, R7, R6, SKB_PROTOCOL).jump_imm(If::Ne, R7, IPV6, next);
        // The destination's first byte: 2000::/3, in which everything lies that goes by a router.
        load_outer(&mut code, 40, next);
        code.load(Size::B, R8, R10, ROOM + 24).imm(Op::And, R8, 0xe0).jump_imm(If::Ne, R8, 0x20, next);
        // Length, before it is overwritten.
        code.load(Size::B, R7, R10, ROOM + 4).imm(Op::Shl, R7, 8).load(Size::B, R8, R10, ROOM + 5).reg(Op::Add, R7, R8);
        code.imm(Op::Add, R7, 60);
        let template = header(src, dst);
        for (i, word) in template.chunks_exact(4).enumerate() {
            let value = i32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
            code.imm(Op::Mov, R0, value).store(Size::W, R10, ROOM + 4 * i as i16, R0);
        }
        // Big end first: length, then the sum of all words.
        code.reg(Op::Mov, R8, R7).imm(Op::Shr, R8, 8).store(Size::B, R10, ROOM + 2, R8).store(
            Size::B,
            R10,
            ROOM + 3,
            R7,
        );
        let sum: u32 = template.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
        code.imm(Op::Add, R7, sum as i32);
        for _ in 0..2 {
            code.reg(Op::Mov, R8, R7).imm(Op::Shr, R8, 16).imm(Op::And, R7, 0xffff).reg(Op::Add, R7, R8);
        }
        code.imm(Op::Xor, R7, 0xffff).reg(Op::Mov, R8, R7).imm(Op::Shr, R8, 8);
        code.store(Size::B, R10, ROOM + 10, R8).store(Size::B, R10, ROOM + 11, R7);
        code.imm(Op::Mov, R9, FIXED_GSO | ENCAP_IPV4);
        adjust(&mut code, 20, drop);
        store(&mut code, LINK, ROOM, 20, drop);
        code.imm(Op::Mov, R0, IPV4).store(Size::H, R10, ROOM, R0);
        store(&mut code, 12, ROOM, 2, drop);
        code.jump(next);
        code.place(drop).ret(DROP).place(next).ret(NEXT);
        Program::load_as(Kind::Traffic, "duet_encap", &code.finish())
    }
}

/// An IPv4 header of protocol 41 without length and checksum (RFC 791 3.1).
fn header(src: Ipv4Addr, dst: Ipv4Addr) -> [u8; 20] {
    let mut h = [0; 20];
    (h[0], h[6], h[8], h[9]) = (0x45, 0x40, 64, 41);
    h[12..16].copy_from_slice(&src.octets());
    h[16..20].copy_from_slice(&dst.octets());
    h
}
