//! Flow offload in the kernel: the maps, their layouts, and the two programs of a `packet` port.
//!
//! The packet sockets of a port see a frame before the traffic programs of its device do. So a filter on the sockets
//! ([`FlowMaps::filter`]) decides: it classifies the frame, looks its flow up, and if the flow's entry is of the present generation,
//! keeps the frame from the socket and writes into the frame's control block, which lives as long as the frame is on its way through
//! this device, a mark and the number of the entry's way out. The program behind the sockets ([`FlowMaps::forwarder`]) obeys the
//! mark: it edits the headers and redirects the frame to the way's device. One decision, so no frame is both delivered and
//! forwarded, or neither. The mark is a random number of this process; if it ever does not arrive, the counters say so
//! ([`Counts::taken`] against [`Counts::forwarded`]), and the owner stops.
//!
//! The filter hands nothing over but plain TCP and UDP packets to the port's own address; anything else goes to the socket as
//! ever. Packets without an entry are shown to the owner, as many as it has asked for.

use super::insn::{Code, Helper, If, Label, Op, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, Reg, Size};
use super::{HashMap, Kind, LoadError, MappedArray, Program};
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

/// Bytes of a key: ingress device 4, protocol 1, family 1 (4 or 6), zero 2, the IPv6 header's first word or the TOS 4, ports 4, source
/// 16, destination 16. Addresses, ports and the word as in the packet, the rest as the machine has them.
pub const KEY: usize = 48;
/// Bytes of an entry: generation 8, way 4 (0: goes to the socket), longest IP packet 4, bytes that are put in front 4, zero 4.
pub const ENTRY: usize = 24;
/// Bytes of headers in a sample.
pub const HEAD: usize = 80;
/// Bytes of a sample: headers, zero 2, length of the frame 4, segment size 4.
pub const SAMPLE: usize = HEAD + 10;
/// Samples that may wait.
const SAMPLES: u32 = 256;

/// Words of a way, by number: device and family; bytes in front, and the sum of an outer IPv4 header without length; link header (two);
/// outer header (five); packets, segments, bytes.
const WAY_WORDS: usize = 12;
const WAY_OUT: i16 = 0;
const WAY_FAMILY: i16 = 4;
const WAY_ADDED: i16 = 8;
const WAY_SUM: i16 = 12;
const WAY_LINK: i16 = 16;
const WAY_OUTER: i16 = 32;
const WAY_PACKETS: i16 = 72;
const WAY_SEGMENTS: i16 = 80;
const WAY_BYTES: i16 = 88;

/// Words of the shared state: what is seldom written, asked for, and often written lie apart.
const STATE_WORDS: usize = 24;
const GENERATION: i32 = 0;
const WANTED: i32 = 64;
const TAKEN: i32 = 128;
const FORWARDED: i32 = 136;
const FAILED: i32 = 144;

/// Offsets in `struct __sk_buff`.
const SKB_LEN: i16 = 0;
const SKB_VLAN_PRESENT: i16 = 20;
const SKB_CB: i16 = 48;
const SKB_GSO_SEGS: i16 = 164;
const SKB_GSO_SIZE: i16 = 176;

/// `enum tcx_action_base`.
const NEXT: i32 = -1;
const DROP: i32 = 2;
/// What a socket filter returns for the whole frame, and for none of it.
const ALL: i32 = -1;
const NONE: i32 = 0;

const LINK: i32 = 14;
const TCP: i32 = 6;
const UDP: i32 = 17;
const IPV4: i32 = 0x0800u16.to_be() as i32;
const IPV6: i32 = 0x86ddu16.to_be() as i32;
/// FIN, SYN, RST.
const CONTROL_FLAGS: i32 = 0x07;
/// More fragments, offset, and the reserved bit; not DF.
const FRAGMENT: i32 = 0xbfffu16.to_be() as i32;
/// `BPF_NOEXIST`.
const NO_EXIST: i32 = 1;
/// `BPF_F_RECOMPUTE_CSUM`: the device's sum over the packet, where there is one, follows the change.
const RECOMPUTE: i32 = 1;
/// `BPF_ADJ_ROOM_MAC`, and flags of `bpf_skb_adjust_room`.
const AFTER_MAC: i32 = 1;
const FIXED_GSO: i32 = 1;
const ENCAP_IPV4: i32 = 1 << 1;
const ENCAP_IPV6: i32 = 1 << 2;

/// Where the filter keeps things, from the frame pointer: headers (so that the IP header is aligned), what completes a sample, key.
const HEADERS: i16 = -102;
const IP: i16 = HEADERS + 14;
const SAMPLE_LEN: i16 = HEADERS + 82;
const SAMPLE_GSO: i16 = HEADERS + 86;
const TRIM: i16 = -8;
const FLOW: i16 = -152;

/// What goes with a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Index of the device.
    pub out: u32,
    /// Whether the packets that take it are IPv6, before anything is put in front of them.
    pub v6: bool,
    /// The link header.
    pub link: [u8; 14],
    /// A whole outer header, of IPv4 or IPv6, that is put in front of each packet: length and checksum are written by the program.
    pub outer: Option<Outer>,
}

/// See [`Way::outer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outer {
    /// Without options.
    V4([u8; 20]),
    /// Without extension headers.
    V6([u8; 40]),
}

impl Way {
    /// Bytes that are put in front.
    pub fn added(&self) -> u32 {
        match self.outer {
            None => 0,
            Some(Outer::V4(_)) => 20,
            Some(Outer::V6(_)) => 40,
        }
    }

    fn words(&self) -> [u64; 9] {
        let mut bytes = [0u8; 72];
        let mut put = |at: i16, b: &[u8]| bytes[at as usize..at as usize + b.len()].copy_from_slice(b);
        put(WAY_OUT, &self.out.to_ne_bytes());
        put(WAY_FAMILY, &if self.v6 { 6u32 } else { 4 }.to_ne_bytes());
        put(WAY_ADDED, &self.added().to_ne_bytes());
        put(WAY_LINK, &self.link);
        match self.outer {
            None => {}
            Some(Outer::V4(mut header)) => {
                (header[2], header[3], header[10], header[11]) = (0, 0, 0, 0);
                let sum: u32 = header.chunks_exact(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum();
                put(WAY_SUM, &sum.to_ne_bytes());
                put(WAY_OUTER, &header);
            }
            Some(Outer::V6(header)) => put(WAY_OUTER, &header),
        }
        let word = |i: usize| bytes[8 * i..].first_chunk().map_or(0, |b| u64::from_ne_bytes(*b));
        std::array::from_fn(word)
    }
}

/// What has taken a way so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Frames; a super-frame is one.
    pub packets: u64,
    /// Packets on the wire.
    pub segments: u64,
    /// Of the frames, from the IP header on as they came in.
    pub bytes: u64,
}

/// What the programs have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames that the filters have kept from the sockets.
    pub taken: u64,
    /// Frames that were redirected.
    pub forwarded: u64,
    /// Frames that the kernel could not edit, for want of memory: lost.
    pub failed: u64,
}

/// A packet without an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its key.
    pub key: [u8; KEY],
    /// Its first bytes, link header in front; zero beyond its transport header.
    pub head: [u8; HEAD],
    /// Bytes of the frame.
    pub len: u32,
    /// Payload of each of its segments, if it is a super-frame.
    pub gso: u32,
}

/// An entry as the programs read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// It counts while this is the present generation.
    pub generation: u64,
    /// Number of the way; 0: the flow's packets go to the socket, and are not shown any more.
    pub way: u32,
    /// The longest IP packet.
    pub mtu: u32,
    /// As [`Way::added`].
    pub added: u32,
}

impl Entry {
    fn bytes(&self) -> [u8; ENTRY] {
        let mut b = [0; ENTRY];
        b[..8].copy_from_slice(&self.generation.to_ne_bytes());
        b[8..12].copy_from_slice(&self.way.to_ne_bytes());
        b[12..16].copy_from_slice(&self.mtu.to_ne_bytes());
        b[16..20].copy_from_slice(&self.added.to_ne_bytes());
        b
    }
}

/// Everything that the programs and their owner share.
#[derive(Debug)]
pub struct FlowMaps {
    flows: HashMap<KEY, ENTRY>,
    samples: HashMap<KEY, SAMPLE>,
    ways: MappedArray,
    state: MappedArray,
    /// What marks a frame that the filter has taken.
    mark: u64,
}

impl FlowMaps {
    /// Room for so many ways, number 0 not counted, and twice as many entries: there are some without a way. `mark`: a random number.
    /// Needs CAP_BPF.
    pub fn new(ways: u32, mark: u64) -> io::Result<Self> {
        Ok(FlowMaps {
            flows: HashMap::new(ways.saturating_mul(2))?,
            samples: HashMap::new(SAMPLES)?,
            ways: MappedArray::new(WAY_WORDS, ways as usize + 1)?,
            state: MappedArray::new(STATE_WORDS, 1)?,
            mark,
        })
    }

    /// Ways, number 0 included.
    pub fn ways(&self) -> usize {
        self.ways.count()
    }

    fn state(&self, at: i32) -> &AtomicU64 {
        // A constant of ours, within the value.
        &self.state.get(0)[at as usize / 8]
    }

    /// The present generation: entries of any other do not count.
    pub fn generation(&self) -> u64 {
        self.state(GENERATION).load(SeqCst)
    }

    /// From here on all entries are void, on every processor.
    pub fn begin_generation(&self) {
        self.state(GENERATION).fetch_add(1, SeqCst);
    }

    /// So many packets without an entry are to be shown from now on.
    pub fn want_samples(&self, n: u32) {
        self.state(WANTED).store(u64::from(n), Relaxed);
    }

    /// A packet without an entry.
    pub fn take_sample(&self) -> Option<Sample> {
        let (key, value) = self.samples.pop()?;
        let word = |at: usize| value[at..].first_chunk().map_or(0, |b| u32::from_ne_bytes(*b));
        let head = *value.first_chunk()?;
        Some(Sample { key, head, len: word(HEAD + 2), gso: word(HEAD + 6) })
    }

    /// What the programs have done so far.
    pub fn counts(&self) -> Counts {
        let get = |at| self.state(at).load(Relaxed);
        // In this order: what was taken has been forwarded by then, but for what is between the programs.
        let taken = get(TAKEN);
        Counts { taken, forwarded: get(FORWARDED), failed: get(FAILED) }
    }

    /// Writes a way that no entry names yet, nor has named a moment ago.
    pub fn set_way(&self, number: u32, way: &Way) {
        for (to, word) in self.ways.get(number as usize).iter().zip(way.words()) {
            to.store(word, Relaxed);
        }
    }

    /// What has taken a way, all flows together that ever had it.
    pub fn taken(&self, number: u32) -> Taken {
        let way = self.ways.get(number as usize);
        let get = |at: i16| way.get(at as usize / 8).map_or(0, |w| w.load(Relaxed));
        Taken { packets: get(WAY_PACKETS), segments: get(WAY_SEGMENTS), bytes: get(WAY_BYTES) }
    }

    /// Sets a flow's entry. E2BIG when there is no room for another one.
    pub fn set(&self, key: &[u8; KEY], entry: &Entry) -> io::Result<()> {
        self.flows.set(key, &entry.bytes())
    }

    /// Forgets a flow. A frame that was taken by its entry still goes the entry's way.
    pub fn remove(&self, key: &[u8; KEY]) -> bool {
        self.flows.remove(key)
    }

    /// The filter for the sockets of the device `ifindex`, whose frames are for `mac`.
    pub fn filter(&self, ifindex: u32, mac: [u8; 6]) -> Result<Program, LoadError> {
        let mut code = Code::new();
        let c = &mut code;
        let exits = Exits { to_socket: c.label(), unknown: c.label(), lookup: c.label() };
        let v6 = c.label();
        c.reg(Op::Mov, R6, R1);
        // A sample shows all of this.
        c.imm(Op::Mov, R0, 0);
        (0..3).for_each(|i| _ = c.store(Size::H, R10, HEADERS + 2 * i, R0));
        (0..10).for_each(|i| _ = c.store(Size::D, R10, HEADERS + 6 + 8 * i, R0));
        c.store(Size::W, R10, SAMPLE_GSO, R0).store(Size::D, R10, TRIM, R0);
        (0..6).for_each(|i| _ = c.store(Size::D, R10, FLOW + 8 * i, R0));
        c.load(Size::W, R0, R6, SKB_VLAN_PRESENT).jump_imm(If::Ne, R0, 0, exits.to_socket);
        c.load(Size::W, R7, R6, SKB_LEN).load(Size::W, R8, R6, SKB_GSO_SIZE);
        load(c, 0, 34, exits.to_socket);
        for (i, half) in mac.chunks_exact(2).enumerate() {
            c.load(Size::H, R1, R10, HEADERS + 2 * i as i16);
            c.jump_imm(If::Ne, R1, i32::from(u16::from_ne_bytes([half[0], half[1]])), exits.to_socket);
        }
        c.imm(Op::Mov, R0, ifindex as i32).store(Size::W, R10, FLOW, R0);
        c.load(Size::H, R1, R10, HEADERS + 12);
        c.jump_imm(If::Eq, R1, IPV6, v6).jump_imm(If::Ne, R1, IPV4, exits.to_socket);
        header_v4(c, &exits);
        transport(c, 34, &exits);
        c.place(v6);
        header_v6(c, &exits);
        transport(c, 54, &exits);
        self.look_up(c, &exits);
        self.show(c, &exits);
        c.place(exits.to_socket).ret(ALL);
        Program::load_as(Kind::Socket, "duet_flow_tap", &code.finish())
    }

    /// The flow's entry. R9: length of the longest IP packet.
    fn look_up(&self, c: &mut Code, exits: &Exits) {
        let plain = c.label();
        c.place(exits.lookup);
        c.map(R1, self.flows.fd()).reg(Op::Mov, R2, R10).imm(Op::Add, R2, i32::from(FLOW)).call(Helper::MapLookup);
        c.jump_imm(If::Eq, R0, 0, exits.unknown);
        c.map_value(R1, self.state.fd(), GENERATION).load(Size::D, R1, R1, 0);
        c.load(Size::D, R2, R0, 0).jump_reg(If::Ne, R1, R2, exits.unknown);
        c.load(Size::W, R1, R0, 8).jump_imm(If::Eq, R1, 0, exits.to_socket);
        c.load(Size::W, R2, R0, 12).jump_reg(If::Gt, R9, R2, exits.to_socket);
        c.load(Size::W, R2, R0, 16).jump_imm(If::Eq, R2, 0, plain);
        // Into a tunnel: no longer than an IP packet may be, super-frames of TCP only.
        c.reg(Op::Add, R2, R7).imm(Op::Sub, R2, LINK).jump_imm(If::Gt, R2, 65_535, exits.to_socket);
        c.jump_imm(If::Eq, R8, 0, plain);
        c.load(Size::B, R2, R10, FLOW + 4).jump_imm(If::Ne, R2, TCP, exits.to_socket);
        c.place(plain);
        c.store(Size::W, R6, SKB_CB + 8, R1);
        c.load(Size::W, R1, R10, TRIM).store(Size::W, R6, SKB_CB + 12, R1);
        let [low, high] = self.marks();
        c.imm(Op::Mov, R1, low).store(Size::W, R6, SKB_CB, R1);
        c.imm(Op::Mov, R1, high).store(Size::W, R6, SKB_CB + 4, R1);
        self.count(c, TAKEN);
        c.ret(NONE);
    }

    /// Shows a packet without entry, if the owner wants to see some.
    fn show(&self, c: &mut Code, exits: &Exits) {
        c.place(exits.unknown);
        c.map_value(R9, self.state.fd(), WANTED).load(Size::D, R1, R9, 0);
        c.jump_imm(If::Eq, R1, 0, exits.to_socket);
        // Below zero: several processors took the last one.
        c.jump_imm(If::Gt, R1, 1 << 20, exits.to_socket);
        c.imm(Op::Mov, R1, -1).atomic_add(R9, 0, R1);
        c.store(Size::W, R10, SAMPLE_LEN, R7).store(Size::W, R10, SAMPLE_GSO, R8);
        c.map(R1, self.samples.fd()).reg(Op::Mov, R2, R10).imm(Op::Add, R2, i32::from(FLOW));
        c.reg(Op::Mov, R3, R10).imm(Op::Add, R3, i32::from(HEADERS)).imm(Op::Mov, R4, NO_EXIST);
        c.call(Helper::MapUpdate);
    }

    fn marks(&self) -> [i32; 2] {
        // Never zero, which is what a frame has that no filter has seen.
        [self.mark as i32 | 1, (self.mark >> 32) as i32]
    }

    fn count(&self, c: &mut Code, what: i32) {
        c.map_value(R1, self.state.fd(), what).imm(Op::Mov, R2, 1).atomic_add(R1, 0, R2);
    }

    /// For the device's way in, behind the sockets: carries out what the filter has decided.
    pub fn forwarder(&self) -> Result<Program, LoadError> {
        let mut code = Code::new();
        let c = &mut code;
        let (next, fail, whole) = (c.label(), c.label(), c.label());
        let (v6, aged, plain, outer6, headed) = (c.label(), c.label(), c.label(), c.label(), c.label());
        let [low, high] = self.marks();
        c.reg(Op::Mov, R6, R1);
        for (at, mark) in [(0, low), (4, high)] {
            // 32 bits against 32 bits, whatever their signs.
            c.load(Size::W, R1, R6, SKB_CB + at).imm(Op::Mov, R2, mark).imm(Op::Shl, R2, 32).imm(Op::Shr, R2, 32);
            c.jump_reg(If::Ne, R1, R2, next);
        }
        c.imm(Op::Mov, R0, 0).store(Size::W, R6, SKB_CB, R0);
        c.load(Size::W, R1, R6, SKB_CB + 8).store(Size::W, R10, -4, R1);
        c.load(Size::W, R8, R6, SKB_CB + 12);
        c.map(R1, self.ways.fd()).reg(Op::Mov, R2, R10).imm(Op::Add, R2, -4).call(Helper::MapLookup);
        c.jump_imm(If::Eq, R0, 0, fail).reg(Op::Mov, R7, R0);
        // What the link has put behind the packet.
        c.jump_imm(If::Eq, R8, 0, whole);
        c.reg(Op::Mov, R1, R6).reg(Op::Mov, R2, R8).imm(Op::Mov, R3, 0).call(Helper::SkbChangeTail);
        c.jump_imm(If::Ne, R0, 0, fail);
        c.place(whole);
        c.load(Size::W, R9, R6, SKB_LEN).imm(Op::Sub, R9, LINK);
        c.load(Size::W, R1, R7, WAY_FAMILY).jump_imm(If::Eq, R1, 6, v6);
        age_v4(c, fail);
        c.jump(aged);
        c.place(v6);
        get(c, LINK + 7, -16, 1, fail);
        c.load(Size::B, R1, R10, -16).imm(Op::Sub, R1, 1).store(Size::B, R10, -16, R1);
        put(c, LINK + 7, -16, 1, RECOMPUTE, fail);
        c.place(aged);
        c.load(Size::W, R8, R7, WAY_ADDED).jump_imm(If::Eq, R8, 0, plain).jump_imm(If::Eq, R8, 40, outer6);
        outer_v4(c);
        adjust(c, 20, FIXED_GSO | ENCAP_IPV4, fail);
        put(c, LINK, -64, 20, RECOMPUTE, fail);
        c.jump(headed);
        c.place(outer6);
        for word in 0..5 {
            c.load(Size::D, R1, R7, WAY_OUTER + 8 * word).store(Size::D, R10, -64 + 8 * word, R1);
        }
        c.reg(Op::Mov, R1, R9).be16(R1).store(Size::H, R10, -64 + 4, R1);
        adjust(c, 40, FIXED_GSO | ENCAP_IPV6, fail);
        put(c, LINK, -64, 40, RECOMPUTE, fail);
        c.place(headed).place(plain);
        // The link header is no part of a device's sum.
        c.reg(Op::Mov, R1, R6).imm(Op::Mov, R2, 0).reg(Op::Mov, R3, R7).imm(Op::Add, R3, i32::from(WAY_LINK));
        c.imm(Op::Mov, R4, LINK).imm(Op::Mov, R5, 0).call(Helper::SkbStoreBytes).jump_imm(If::Ne, R0, 0, fail);
        let many = c.label();
        c.imm(Op::Mov, R1, 1).atomic_add(R7, WAY_PACKETS, R1).atomic_add(R7, WAY_BYTES, R9);
        c.load(Size::W, R1, R6, SKB_GSO_SEGS).jump_imm(If::Gt, R1, 0, many).imm(Op::Mov, R1, 1);
        c.place(many).atomic_add(R7, WAY_SEGMENTS, R1);
        self.count(c, FORWARDED);
        c.load(Size::W, R1, R7, WAY_OUT).imm(Op::Mov, R2, 0).call(Helper::Redirect).exit();
        c.place(fail);
        self.count(c, FAILED);
        c.ret(DROP).place(next).ret(NEXT);
        Program::load_as(Kind::Traffic, "duet_flow", &code.finish())
    }
}

/// Where the filter's parts go on.
struct Exits {
    to_socket: Label,
    unknown: Label,
    lookup: Label,
}

/// `len` bytes of the frame to the same place of the headers.
fn load(c: &mut Code, at: i32, len: i32, fail: Label) {
    get(c, at, HEADERS + at as i16, len, fail);
}

/// `len` bytes of the frame from `from` to the stack.
fn get(c: &mut Code, from: i32, to: i16, len: i32, fail: Label) {
    c.reg(Op::Mov, R1, R6).imm(Op::Mov, R2, from).reg(Op::Mov, R3, R10).imm(Op::Add, R3, i32::from(to));
    c.imm(Op::Mov, R4, len).call(Helper::SkbLoadBytes).jump_imm(If::Ne, R0, 0, fail);
}

/// `len` bytes of the stack to the frame.
fn put(c: &mut Code, to: i32, from: i16, len: i32, flags: i32, fail: Label) {
    c.reg(Op::Mov, R1, R6).imm(Op::Mov, R2, to).reg(Op::Mov, R3, R10).imm(Op::Add, R3, i32::from(from));
    c.imm(Op::Mov, R4, len).imm(Op::Mov, R5, flags).call(Helper::SkbStoreBytes).jump_imm(If::Ne, R0, 0, fail);
}

/// Makes room behind the link header.
fn adjust(c: &mut Code, by: i32, flags: i32, fail: Label) {
    c.reg(Op::Mov, R1, R6).imm(Op::Mov, R2, by).imm(Op::Mov, R3, AFTER_MAC).imm(Op::Mov, R4, flags);
    c.call(Helper::SkbAdjustRoom).jump_imm(If::Ne, R0, 0, fail);
}

/// The upper half of a register to the lower one, once.
fn fold(c: &mut Code, sum: Reg, scratch: Reg) {
    c.reg(Op::Mov, scratch, sum).imm(Op::Shr, scratch, 16).imm(Op::And, sum, 0xffff).reg(Op::Add, sum, scratch);
}

/// IPv4 without options or fragments, whole, its checksum right (RFC 1812 5.2.2). Leaves in R2 the frame's length as the header has it.
fn header_v4(c: &mut Code, exits: &Exits) {
    load(c, 34, 8, exits.to_socket);
    c.load(Size::B, R1, R10, IP).jump_imm(If::Ne, R1, 0x45, exits.to_socket);
    c.load(Size::H, R1, R10, IP + 6).jump_imm(If::Set, R1, FRAGMENT, exits.to_socket);
    c.load(Size::B, R1, R10, IP + 8).jump_imm(If::Lt, R1, 2, exits.to_socket);
    c.load(Size::W, R1, R10, IP);
    for word in 1..5 {
        c.load(Size::W, R2, R10, IP + 4 * word).reg(Op::Add, R1, R2);
    }
    c.reg(Op::Mov, R2, R1).imm(Op::Shr, R2, 32).imm(Op::Shl, R1, 32).imm(Op::Shr, R1, 32).reg(Op::Add, R1, R2);
    (0..3).for_each(|_| fold(c, R1, R2));
    c.jump_imm(If::Ne, R1, 0xffff, exits.to_socket);
    c.load(Size::B, R1, R10, IP + 1).store(Size::W, R10, FLOW + 8, R1);
    c.load(Size::W, R1, R10, IP + 12).store(Size::W, R10, FLOW + 16, R1);
    c.load(Size::W, R1, R10, IP + 16).store(Size::W, R10, FLOW + 32, R1);
    c.imm(Op::Mov, R1, 4).store(Size::B, R10, FLOW + 5, R1);
    c.load(Size::B, R3, R10, IP + 9);
    c.load(Size::H, R2, R10, IP + 2).be16(R2).imm(Op::Add, R2, LINK);
}

/// IPv6 with its transport header behind it. Leaves in R2 the frame's length as the header has it.
fn header_v6(c: &mut Code, exits: &Exits) {
    load(c, 34, 28, exits.to_socket);
    c.load(Size::B, R1, R10, IP).imm(Op::And, R1, 0xf0).jump_imm(If::Ne, R1, 0x60, exits.to_socket);
    c.load(Size::B, R1, R10, IP + 7).jump_imm(If::Lt, R1, 2, exits.to_socket);
    c.load(Size::W, R1, R10, IP).store(Size::W, R10, FLOW + 8, R1);
    for word in 0..4 {
        c.load(Size::D, R1, R10, IP + 8 + 8 * word).store(Size::D, R10, FLOW + 16 + 8 * word, R1);
    }
    c.imm(Op::Mov, R1, 6).store(Size::B, R10, FLOW + 5, R1);
    c.load(Size::B, R3, R10, IP + 6);
    c.load(Size::H, R2, R10, IP + 4).be16(R2).imm(Op::Add, R2, LINK + 40);
}

/// TCP or UDP (R3) at `at`, of which eight bytes are there; R2 as left by the IP header. Leaves in R9 the length of the longest IP packet.
fn transport(c: &mut Code, at: i32, exits: &Exits) {
    let (exact, udp) = (c.label(), c.label());
    // Cut short; or padded, which a super-frame never is.
    c.jump_reg(If::Gt, R2, R7, exits.to_socket).jump_reg(If::Eq, R2, R7, exact);
    c.jump_imm(If::Ne, R8, 0, exits.to_socket).store(Size::W, R10, TRIM, R2);
    c.place(exact);
    c.reg(Op::Mov, R9, R2).imm(Op::Sub, R9, LINK);
    c.store(Size::B, R10, FLOW + 4, R3);
    c.load(Size::W, R1, R10, HEADERS + at as i16).store(Size::W, R10, FLOW + 12, R1);
    c.jump_imm(If::Eq, R3, UDP, udp).jump_imm(If::Ne, R3, TCP, exits.to_socket);
    c.jump_imm(If::Lt, R2, at + 20, exits.to_socket);
    load(c, at + 8, 12, exits.to_socket);
    c.load(Size::B, R1, R10, HEADERS + at as i16 + 13).jump_imm(If::Set, R1, CONTROL_FLAGS, exits.to_socket);
    c.jump_imm(If::Eq, R8, 0, exits.lookup);
    c.load(Size::B, R9, R10, HEADERS + at as i16 + 12).imm(Op::Shr, R9, 4).imm(Op::Shl, R9, 2);
    c.imm(Op::Add, R9, at - LINK).reg(Op::Add, R9, R8).jump(exits.lookup);
    c.place(udp);
    c.jump_imm(If::Lt, R2, at + 8, exits.to_socket);
    c.jump_imm(If::Eq, R8, 0, exits.lookup);
    c.reg(Op::Mov, R9, R8).imm(Op::Add, R9, at - LINK + 8);
    c.jump(exits.lookup);
}

/// One from the TTL, and the checksum by the difference (RFC 1624), as the kernel does it.
fn age_v4(c: &mut Code, fail: Label) {
    let small = c.label();
    get(c, LINK + 8, -16, 4, fail);
    c.load(Size::B, R1, R10, -16).imm(Op::Sub, R1, 1).store(Size::B, R10, -16, R1);
    c.load(Size::H, R1, R10, -14).be16(R1).imm(Op::Add, R1, 0x0100).jump_imm(If::Lt, R1, 0xffff, small);
    c.imm(Op::Add, R1, 1);
    c.place(small).be16(R1).store(Size::H, R10, -14, R1);
    // TTL and checksum together: a device's sum stays as it is.
    put(c, LINK + 8, -16, 4, 0, fail);
}

/// The way's outer IPv4 header to the stack, with length (R9: of the packet inside) and checksum.
fn outer_v4(c: &mut Code) {
    for word in 0..5 {
        c.load(Size::W, R1, R7, WAY_OUTER + 4 * word).store(Size::W, R10, -64 + 4 * word, R1);
    }
    c.reg(Op::Mov, R1, R9).imm(Op::Add, R1, 20);
    c.load(Size::W, R2, R7, WAY_SUM).reg(Op::Add, R2, R1);
    c.be16(R1).store(Size::H, R10, -64 + 2, R1);
    (0..2).for_each(|_| fold(c, R2, R3));
    c.imm(Op::Xor, R2, 0xffff).be16(R2).store(Size::H, R10, -64 + 10, R2);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// None, said, where this process may not make maps.
    fn maps() -> Option<FlowMaps> {
        match FlowMaps::new(16, 0x1234_5678_9abc_def1) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
                eprintln!("SKIPPED: bpf(2): {e}");
                None
            }
            other => Some(other.expect("bpf(2)")),
        }
    }

    #[test]
    fn the_kernel_takes_the_programs() {
        let Some(maps) = maps() else { return };
        maps.filter(7, [2, 0, 0, 0, 0, 1]).unwrap_or_else(|e| panic!("{e}"));
        maps.forwarder().unwrap_or_else(|e| panic!("{e}"));
    }

    #[test]
    fn ways_are_written_as_they_are_read() {
        let mut header = [0; 20];
        header[..4].copy_from_slice(&[0x45, 0, 0x12, 0x34]);
        header[8..12].copy_from_slice(&[64, 41, 0xab, 0xcd]);
        header[12..].copy_from_slice(&[192, 0, 2, 1, 198, 51, 100, 2]);
        let way = Way { out: 9, v6: true, link: *b"abcdefghijklmn", outer: Some(Outer::V4(header)) };
        let bytes: Vec<u8> = way.words().iter().flat_map(|w| w.to_ne_bytes()).collect();
        let word = |at: i16| u32::from_ne_bytes(bytes[at as usize..][..4].try_into().unwrap());
        assert_eq!((word(WAY_OUT), word(WAY_FAMILY), word(WAY_ADDED)), (9, 6, 20));
        // Length and checksum are not in the sum, and not in the header.
        assert_eq!(word(WAY_SUM), 0x4500 + 0x4029 + 0xc000 + 0x0201 + 0xc633 + 0x6402);
        assert_eq!(&bytes[WAY_LINK as usize..][..14], b"abcdefghijklmn");
        assert_eq!(&bytes[WAY_OUTER as usize..][..12], &[0x45, 0, 0, 0, 0, 0, 0, 0, 64, 41, 0, 0]);
        assert_eq!(bytes.len(), WAY_PACKETS as usize);
        assert_eq!(WAY_WORDS * 8, WAY_BYTES as usize + 8);
        let plain = Way { out: 1, v6: false, link: [0; 14], outer: None };
        assert_eq!((plain.added(), plain.words()[1] as u32), (0, 0));
    }

    #[test]
    fn what_both_sides_share() {
        let Some(maps) = maps() else { return };
        assert_eq!((maps.ways(), maps.generation(), maps.counts()), (17, 0, Counts::default()));
        maps.begin_generation();
        assert_eq!(maps.generation(), 1);
        let key = [3; KEY];
        let entry = Entry { generation: 1, way: 5, mtu: 1500, added: 20 };
        maps.set(&key, &entry).unwrap();
        assert_eq!(maps.flows.get(&key), Some(entry.bytes()));
        let b = entry.bytes();
        assert_eq!((b[0], b[8], u16::from_ne_bytes([b[12], b[13]]), b[16]), (1, 5, 1500, 20));
        assert!(maps.remove(&key) && maps.take_sample().is_none());
        assert_eq!(maps.taken(5), Taken::default());
        assert_eq!(maps.taken(99), Taken::default());
    }
}
