//! The receiving end: an XDP program that counts test frames where the driver hands them over, drops them, and notes how
//! long each probe was under way. Everything else (ARP, neighbour discovery, TCP) passes to the kernel.

use super::probe::{MAGIC, PAYLOAD, SLOTS};
use super::{LOAD_PORT, PROBE_PORT};
use crate::sys::bpf::insn::{Code, Helper, If, Op, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, Size};
use crate::sys::bpf::{ArrayMap, Link, LoadError, Program};
use std::io;

const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;
/// Offsets in the value that holds the counts.
const LOAD: i16 = 0;
const BYTES: i16 = 8;
const PROBES: i16 = 16;
const OTHERS: i16 = 24;
const STATE: usize = 32;

/// Why there is no sink.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The kernel refuses programs or maps.
    #[error("cannot load the counting program: {0}")]
    Program(#[source] io::Error),
    /// The device does not take the program.
    #[error("cannot attach the counting program to the device: {0}")]
    Attach(#[source] io::Error),
    /// Counts cannot be read.
    #[error("cannot read the sink's counts: {0}")]
    Read(#[source] io::Error),
}

/// One field that tells test frames: offset from the link header's start, width, value in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Bytes from the start of the frame.
    pub at: usize,
    /// Whether it is two bytes (network order) or one.
    pub wide: bool,
    /// What it must be.
    pub value: u16,
}

impl Field {
    const fn two(at: usize, value: u16) -> Self {
        Field { at, wide: true, value }
    }

    const fn one(at: usize, value: u16) -> Self {
        Field { at, wide: false, value }
    }

    fn end(self) -> usize {
        self.at + if self.wide { 2 } else { 1 }
    }
}

/// Where in an arriving frame the test packet is to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What every test frame has.
    pub fields: Vec<Field>,
    /// Where the UDP destination port is.
    pub port_at: usize,
    /// Where the UDP payload is.
    pub payload_at: usize,
}

impl Layout {
    /// UDP over IPv4.
    pub fn udp4() -> Self {
        Layout { fields: vec![Field::two(12, 0x0800), Field::one(23, 17)], port_at: 36, payload_at: 42 }
    }

    /// UDP over IPv6.
    pub fn udp6() -> Self {
        Layout { fields: vec![Field::two(12, 0x86dd), Field::one(20, 17)], port_at: 56, payload_at: 62 }
    }

    /// UDP over IPv6 in IPv4.
    pub fn udp6_in_4() -> Self {
        Layout {
            fields: vec![Field::two(12, 0x0800), Field::one(23, 41), Field::one(40, 17)],
            port_at: 76,
            payload_at: 82,
        }
    }

    /// An ICMPv4 error of this type that quotes UDP over IPv4.
    pub fn icmp4(kind: u8) -> Self {
        Layout {
            fields: vec![
                Field::two(12, 0x0800),
                Field::one(23, 1),
                Field::one(34, u16::from(kind)),
                Field::one(51, 17),
            ],
            port_at: 64,
            payload_at: 70,
        }
    }

    /// An ICMPv6 error of this type that quotes UDP over IPv6.
    pub fn icmp6(kind: u8) -> Self {
        Layout {
            fields: vec![
                Field::two(12, 0x86dd),
                Field::one(20, 58),
                Field::one(54, u16::from(kind)),
                Field::one(68, 17),
            ],
            port_at: 104,
            payload_at: 110,
        }
    }
}

/// What a sink has seen since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames of the load.
    pub load: u64,
    /// Their bytes, without check sequences.
    pub bytes: u64,
    /// Probes.
    pub probes: u64,
    /// Frames that are none of the test's.
    pub others: u64,
}

impl Counts {
    /// What came since `before`.
    pub fn since(self, before: Counts) -> Counts {
        Counts {
            load: self.load.wrapping_sub(before.load),
            bytes: self.bytes.wrapping_sub(before.bytes),
            probes: self.probes.wrapping_sub(before.probes),
            others: self.others.wrapping_sub(before.others),
        }
    }

    /// All frames.
    pub fn frames(self) -> u64 {
        self.load + self.probes + self.others
    }
}

/// A sink on a device. Gone, with everything it installed, when dropped or when the process ends.
#[derive(Debug)]
pub struct Sink {
    state: ArrayMap,
    delays: ArrayMap,
    /// The program, for as long as this lives.
    _link: Link,
    native: bool,
}

impl Sink {
    /// Puts a sink on the device `ifindex` of the calling thread's network namespace.
    pub fn open(ifindex: u32, layout: &Layout) -> Result<Self, SinkError> {
        let state = ArrayMap::new(STATE, 1).map_err(SinkError::Program)?;
        let delays = ArrayMap::new(8, SLOTS).map_err(SinkError::Program)?;
        let code = program(layout, state.fd(), delays.fd());
        let program = Program::load("duet_sink", &code).map_err(LoadError::into_io).map_err(SinkError::Program)?;
        let (link, native) = program.attach_anyhow(ifindex).map_err(SinkError::Attach)?;
        Ok(Sink { state, delays, _link: link, native })
    }

    /// How it works, for reports.
    pub fn name(&self) -> &'static str {
        if self.native { "XDP in the driver" } else { "generic XDP" }
    }

    /// What has arrived so far.
    pub fn counts(&self) -> Result<Counts, SinkError> {
        let mut b = [0; STATE];
        self.state.get(0, &mut b).map_err(SinkError::Read)?;
        let at =
            |i: i16| b.get(i as usize..i as usize + 8).and_then(|w| w.try_into().ok()).map_or(0, u64::from_ne_bytes);
        Ok(Counts { load: at(LOAD), bytes: at(BYTES), probes: at(PROBES), others: at(OTHERS) })
    }

    /// Delays of the first `n` probes of a measurement in nanoseconds, by sequence number; None for those that did not
    /// arrive. Forgets them, for the next measurement.
    pub fn take_delays(&self, n: u32) -> Result<Vec<Option<u64>>, SinkError> {
        let mut all = Vec::with_capacity(n as usize);
        for i in 0..n.min(SLOTS as u32) {
            let mut b = [0; 8];
            self.delays.get(i, &mut b).map_err(SinkError::Read)?;
            let delay = u64::from_ne_bytes(b);
            all.push((delay > 0).then_some(delay));
            if delay > 0 {
                self.delays.set(i, &[0; 8]).map_err(SinkError::Read)?;
            }
        }
        Ok(all)
    }
}

/// The value as a little or big endian load sees a field in network order.
fn as_loaded(f: Field) -> i32 {
    i32::from(if f.wide { u16::from_ne_bytes(f.value.to_be_bytes()) } else { f.value })
}

fn program(layout: &Layout, state: i32, delays: i32) -> Vec<u64> {
    let mut c = Code::new();
    let [other, probe, drop] = [c.label(), c.label(), c.label()];
    let port = |value| Field::two(layout.port_at, value);
    let need = layout.fields.iter().map(|f| f.end()).max().unwrap_or(0).max(layout.port_at + 2);
    c.reg(Op::Mov, R6, R1).load(Size::W, R2, R6, 0).load(Size::W, R3, R6, 4);
    c.reg(Op::Mov, R4, R2).imm(Op::Add, R4, need as i32).jump_reg(If::Gt, R4, R3, other);
    for f in &layout.fields {
        c.load(if f.wide { Size::H } else { Size::B }, R5, R2, f.at as i16).jump_imm(If::Ne, R5, as_loaded(*f), other);
    }
    c.load(Size::H, R5, R2, layout.port_at as i16);
    c.jump_imm(If::Eq, R5, as_loaded(port(PROBE_PORT)), probe).jump_imm(If::Ne, R5, as_loaded(port(LOAD_PORT)), other);
    c.reg(Op::Sub, R3, R2).imm(Op::Mov, R4, 1).map_value(R1, state, 0);
    c.atomic_add(R1, LOAD, R4).atomic_add(R1, BYTES, R3).ret(XDP_DROP);

    c.place(probe).reg(Op::Mov, R4, R2).imm(Op::Add, R4, (layout.payload_at + PAYLOAD) as i32);
    let p = layout.payload_at as i16;
    c.jump_reg(If::Gt, R4, R3, other).load(Size::W, R5, R2, p).jump_imm(If::Ne, R5, MAGIC as i32, other);
    c.load(Size::W, R7, R2, p + 4).load(Size::D, R8, R2, p + 8).call(Helper::KtimeGetNs);
    c.reg(Op::Mov, R9, R0).reg(Op::Sub, R9, R8);
    c.map_value(R1, state, 0).imm(Op::Mov, R4, 1).atomic_add(R1, PROBES, R4);
    c.imm(Op::And, R7, SLOTS as i32 - 1).store(Size::W, R10, -4, R7);
    c.map(R1, delays).reg(Op::Mov, R2, R10).imm(Op::Add, R2, -4).call(Helper::MapLookup);
    c.jump_imm(If::Eq, R0, 0, drop).store(Size::D, R0, 0, R9);
    c.place(drop).ret(XDP_DROP);

    c.place(other).map_value(R1, state, 0).imm(Op::Mov, R4, 1).atomic_add(R1, OTHERS, R4).ret(XDP_PASS);
    c.finish()
}

#[cfg(test)]
mod tests {
    use super::super::{Encapsulation, Udp};
    use super::*;
    use router_core::addr::MacAddr;

    #[test]
    fn layouts_find_the_port_and_the_payload() {
        let udp = |src: &str, dst: &str| Udp {
            dst_mac: MacAddr([2; 6]),
            src_mac: MacAddr([4; 6]),
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            sport: 1,
            dport: PROBE_PORT,
            ttl: 9,
        };
        let (v4, v6) = (udp("198.18.0.2", "198.19.0.2"), udp("2001:2::2", "2001:2::3"));
        let outer = Encapsulation { src: [198, 18, 0, 1].into(), dst: [198, 19, 0, 1].into() };
        for (layout, frame) in [
            (Layout::udp4(), v4.frame(100, b"here", None)),
            (Layout::udp6(), v6.frame(100, b"here", None)),
            (Layout::udp6_in_4(), v6.frame(100, b"here", Some(outer))),
        ] {
            let two = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
            assert_eq!((two(layout.port_at), &frame[layout.payload_at..][..4]), (PROBE_PORT, &b"here"[..]));
            for f in layout.fields {
                assert_eq!(if f.wide { two(f.at) } else { u16::from(frame[f.at]) }, f.value, "{f:?}");
            }
        }
    }
}
