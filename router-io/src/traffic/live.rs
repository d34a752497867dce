//! Frames made by the kernel itself: an XDP program, run on "live frames" (BPF_PROG_RUN), writes the next frame's headers
//! over a recycled page and redirects it to the device. No system call, no socket buffer and no copy of the payload per
//! frame, so it is several times as fast as any socket. Needs Linux 5.18, CAP_BPF and CAP_NET_ADMIN, and a device that
//! takes redirected frames: a veth does while its other end has an XDP program or GRO switched on.

use super::bpf::{ArrayMap, XdpProgram};
use super::frames::FrameSet;
use super::generator::{Taken, Transmitter};
use super::insn::{Code, Helper, If, Op, R0, R1, R2, R3, R4, R5, R6, R7, R8, R10, Size};
use super::packet_tx::PacketTx;
use std::io;

const XDP_DROP: i32 = 1;
/// Bytes rewritten in each frame: enough for the headers of IPv6 UDP in IPv4.
const HEAD: usize = 88;
/// Frames per run of the program. A veth's queue holds 256.
const BATCH: usize = 64;
/// At full speed that many batches per system call: setting a run up costs as much as some hundred frames.
const FAST: usize = 16;
/// Longest frame: it shares a page with the kernel's book-keeping.
const LONGEST: usize = 3000;

/// See the module.
#[derive(Debug)]
pub struct LiveTx {
    ifindex: u32,
    probes: PacketTx,
    program: Option<XdpProgram>,
    template: Vec<u8>,
    /// The program's counter of frames and its table of headers live as long as the program needs them.
    maps: Option<(ArrayMap, ArrayMap)>,
}

impl LiveTx {
    /// On the device `ifindex` of the calling thread's network namespace; the sending thread must be in the same.
    pub fn open(ifindex: u32) -> io::Result<Self> {
        // So that a lack of privilege shows now.
        ArrayMap::new(8, 1)?;
        Ok(LiveTx { ifindex, probes: PacketTx::open(ifindex)?, program: None, template: Vec::new(), maps: None })
    }
}

impl Transmitter for LiveTx {
    fn name(&self) -> &'static str {
        "XDP live frames"
    }

    fn load(&mut self, frames: &FrameSet) -> io::Result<()> {
        let longest = frames.longest();
        if frames.is_empty() || longest > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no frames, or longer ones than fit a page"));
        }
        let head = frames.iter().map(<[u8]>::len).min().unwrap_or(0).min(HEAD);
        let words = head.div_ceil(8);
        let counter = ArrayMap::new(8, 1)?;
        let table = ArrayMap::new(8 + words * 8, frames.len())?;
        for (i, frame) in frames.iter().enumerate() {
            if frame.get(head..).is_some_and(|rest| rest.iter().any(|b| *b != 0)) {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "a payload that is not all zero"));
            }
            let mut value = (frame.len() as i64 - longest as i64).to_ne_bytes().to_vec();
            value.extend_from_slice(&frame[..head]);
            value.resize(8 + words * 8, 0);
            table.set(i as u32, &value)?;
        }
        let equal = frames.iter().all(|f| f.len() == longest);
        let code = program(&counter, &table, head, equal, self.ifindex);
        self.program = Some(XdpProgram::load("duet_generator", &code)?);
        self.template = vec![0; longest];
        self.maps = Some((counter, table));
        Ok(())
    }

    fn send(&mut self, count: usize) -> io::Result<Taken> {
        let Some(program) = &self.program else { return Ok(Taken::default()) };
        let count = count.min(self.batch());
        program.run_live(&self.template, count as u32, count.min(BATCH) as u32)?;
        Ok(Taken { taken: count, refused: 0 })
    }

    fn send_now(&mut self, frame: &[u8]) -> io::Result<bool> {
        self.probes.send_now(frame)
    }

    fn batch(&self) -> usize {
        BATCH * FAST
    }
}

fn program(counter: &ArrayMap, table: &ArrayMap, head: usize, equal: bool, ifindex: u32) -> Vec<u64> {
    let mut c = Code::new();
    let drop = c.label();
    c.reg(Op::Mov, R6, R1).map_value(R1, counter.fd(), 0).load(Size::D, R7, R1, 0);
    c.reg(Op::Mov, R2, R7).imm(Op::Add, R2, 1).store(Size::D, R1, 0, R2);
    c.imm(Op::Mod, R7, table.len() as i32).store(Size::W, R10, -4, R7);
    c.map(R1, table.fd()).reg(Op::Mov, R2, R10).imm(Op::Add, R2, -4).call(Helper::MapLookup);
    c.jump_imm(If::Eq, R0, 0, drop).reg(Op::Mov, R8, R0);
    if !equal {
        c.reg(Op::Mov, R1, R6).load(Size::D, R2, R8, 0).call(Helper::XdpAdjustTail).jump_imm(If::Ne, R0, 0, drop);
    }
    c.load(Size::W, R2, R6, 0).load(Size::W, R3, R6, 4);
    c.reg(Op::Mov, R4, R2).imm(Op::Add, R4, head as i32).jump_reg(If::Gt, R4, R3, drop);
    let mut at = 0i16;
    for (size, len) in [(Size::D, 8), (Size::W, 4), (Size::H, 2), (Size::B, 1)] {
        while at as usize + len <= head {
            c.load(size, R5, R8, 8 + at).store(size, R2, at, R5);
            at += len as i16;
        }
    }
    c.imm(Op::Mov, R1, ifindex as i32).imm(Op::Mov, R2, 0).call(Helper::Redirect).exit();
    c.place(drop).ret(XDP_DROP);
    c.finish()
}
