//! Frames made by the kernel itself: an XDP program, run on "live frames" (BPF_PROG_RUN), writes the next frame's headers
//! over a recycled page and redirects it to the device. No system call, no socket buffer and no copy of the payload per
//! frame; the receiving device gets bare frames, as from a wire, and pays for whatever it makes of them.
//!
//! The program also keeps the pace: it looks at the clock and drops what is not yet due, so that frames leave evenly; and
//! it stamps the probes. The call runs until a signal ends it, for setting it up takes milliseconds.
//!
//! Needs Linux 5.18, CAP_BPF and CAP_NET_ADMIN, and a device that takes redirected frames: a veth does while its other end
//! has NAPI, that is an XDP program or GRO switched on.

use super::frames::FrameSet;
use super::generator::{Engine, LATEST, Offer, Pace, ProbePlan, Sent};
use super::kick;
use super::probe::{Probe, SLOTS};
use crate::sys::bpf::insn::{Code, Helper, If, Label, Op, R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, Reg, Size};
use crate::sys::bpf::{ArrayMap, LoadError, Program};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

const XDP_DROP: i32 = 1;
/// Bytes rewritten in each frame: the headers of IPv6 UDP in IPv4, and a probe's payload behind them.
const HEAD: usize = 104;
/// Frames per run of the program: paced, so that a due frame does not wait for many that are not; and at full speed. A
/// veth's queue holds 256.
const BATCH: [u32; 2] = [16, 64];
/// More than any run reaches.
const ENDLESS: u32 = 1 << 30;
/// Longest frame: it shares a page with the kernel's book-keeping.
const LONGEST: usize = 3000;
/// Bits behind the point of instants in nanoseconds.
const POINT: i32 = 10;

// The program's state, by offset. First what it counts:
const COUNT: i16 = 0;
const PROBES: i16 = 8;
const LATE: i16 = 16;
const START: i16 = 24;
const END: i16 = 32;
const LAST: i16 = 40;
const DUE: i16 = 48;
const PROBE_DUE: i16 = 56;
// Then what it is told:
const INTERVAL: i16 = 64;
const LIMIT: i16 = 72;
const PROBE_INTERVAL: i16 = 80;
const TIME: i16 = 88;
const ALLOWED: i16 = 96;
const STATE: usize = 104;

/// See the module.
#[derive(Debug)]
pub struct Live {
    ifindex: u32,
    loaded: Option<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    program: Program,
    state: ArrayMap,
    /// Not zero: send nothing more.
    stop: ArrayMap,
    /// The program needs it.
    _table: ArrayMap,
    template: Vec<u8>,
    probe_rate: f64,
}

impl Live {
    /// On the device `ifindex` of the calling thread's network namespace; the thread that runs it must be in the same.
    ///
    /// # Errors
    /// EPERM without the capabilities.
    pub fn open(ifindex: u32) -> io::Result<Self> {
        // So that a lack of privilege shows now.
        ArrayMap::new(8, 1)?;
        kick::prepare();
        Ok(Live { ifindex, loaded: None })
    }
}

impl Engine for Live {
    fn name(&self) -> &'static str {
        "XDP live frames"
    }

    fn load(&mut self, frames: &FrameSet, probe: Option<ProbePlan>) -> io::Result<()> {
        let wrong = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        // What the program adds to a probe must not change its checksum: two bytes make up for the rest.
        let mark = Probe { sequence: 0, sent: 0 }.bytes();
        let pad: Vec<u8> = mark.into_iter().chain([0; 2]).collect();
        let probe_frame = probe.map(|p| p.udp.frame(p.len, &pad, p.outer)).unwrap_or_default();
        let longest = frames.longest().max(probe_frame.len());
        if frames.is_empty() || longest > LONGEST {
            return Err(wrong("no frames, or longer ones than fit a page"));
        }
        let head = longest.min(HEAD);
        let words = head.div_ceil(8);
        let table = ArrayMap::new(8 + words * 8, frames.len() + 1)?;
        for (i, frame) in frames.iter().chain([&probe_frame[..]]).enumerate() {
            if frame.get(head..).is_some_and(|rest| rest.iter().any(|b| *b != 0)) {
                return Err(wrong("a payload that is not all zero"));
            }
            let mut value = (frame.len() as i64 - longest as i64).to_ne_bytes().to_vec();
            value.extend_from_slice(&frame[..head.min(frame.len())]);
            value.resize(8 + words * 8, 0);
            table.set(i as u32, &value)?;
        }
        let (state, stop) = (ArrayMap::new(STATE, 1)?, ArrayMap::new(8, 1)?);
        let payload_at = probe.map_or(0, |p| p.udp.payload_at(p.outer.is_some()));
        let layout = Layout { head, frames: frames.len(), longest, payload_at, ifindex: self.ifindex };
        let program =
            Program::load("duet_generator", &layout.program(&state, &stop, &table)).map_err(LoadError::into_io)?;
        let probe_rate = probe.map_or(0.0, |p| p.rate);
        self.loaded = Some(Loaded { program, state, stop, _table: table, template: vec![0; longest], probe_rate });
        Ok(())
    }

    fn run(&mut self, offer: &Offer, stop: &AtomicBool) -> io::Result<Sent> {
        match &self.loaded {
            Some(loaded) => loaded.run(offer, stop),
            None => Ok(Sent::default()),
        }
    }
}

impl Loaded {
    fn run(&self, offer: &Offer, stop: &AtomicBool) -> io::Result<Sent> {
        let point = f64::from(1 << POINT);
        let interval = match offer.pace {
            Pace::Max => 0,
            Pace::Rate(rate) => ((1e9 * point / rate.max(1e-3)) as u64).max(1),
        };
        let mut state = [0u8; STATE];
        let mut tell = |at: i16, value: u64| state[at as usize..at as usize + 8].copy_from_slice(&value.to_ne_bytes());
        tell(INTERVAL, interval);
        tell(LIMIT, offer.frames.unwrap_or(u64::MAX >> 1));
        let probes = if offer.probes && self.probe_rate > 0.0 { (1e9 / self.probe_rate) as u64 } else { 0 };
        tell(PROBE_INTERVAL, probes);
        tell(TIME, offer.time.as_nanos() as u64);
        tell(ALLOWED, (LATEST.as_nanos() as u64) << POINT);
        self.state.set(0, &state)?;
        self.stop.set(0, &[0; 8])?;
        let (tid, done) = (AtomicI32::new(0), AtomicBool::new(false));
        let ended = std::thread::scope(|scope| {
            let runner = scope.spawn(|| {
                tid.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
                let ended = self.program.run_live(&self.template, ENDLESS, BATCH[usize::from(interval == 0)]);
                done.store(true, Ordering::Release);
                ended
            });
            let watched = self.watch(offer, stop, &done);
            let stopped = self.stop.set(0, &1u64.to_ne_bytes());
            while !done.load(Ordering::Acquire) {
                kick::interrupt(tid.load(Ordering::Acquire));
                std::thread::sleep(Duration::from_micros(500));
            }
            let ended = runner.join().unwrap_or_else(|_| Err(io::Error::other("the runner panicked")));
            watched.and(stopped).and(ended)
        });
        match ended {
            Err(e) if e.raw_os_error() != Some(libc::EINTR) => return Err(e),
            _ => {}
        }
        self.sent(offer)
    }

    /// Waits until the time is over, the burst is sent, or somebody wants the end.
    fn watch(&self, offer: &Offer, stop: &AtomicBool, done: &AtomicBool) -> io::Result<()> {
        let begin = Instant::now();
        loop {
            std::thread::sleep(Duration::from_millis(1));
            if done.load(Ordering::Acquire) || stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let now = self.look()?;
            // The program's own clock counts, and begins when it first runs.
            let over = now(END) > 0 && super::probe::now() > now(END);
            let all = offer.frames.is_some_and(|n| now(COUNT) >= n);
            if over || all || begin.elapsed() > offer.time + Duration::from_secs(5) {
                return Ok(());
            }
        }
    }

    /// The program's state as a function of the offset.
    fn look(&self) -> io::Result<impl Fn(i16) -> u64 + use<>> {
        let mut b = [0u8; STATE];
        self.state.get(0, &mut b)?;
        Ok(move |at: i16| {
            b.get(at as usize..at as usize + 8).and_then(|w| w.try_into().ok()).map_or(0, u64::from_ne_bytes)
        })
    }

    fn sent(&self, offer: &Offer) -> io::Result<Sent> {
        let now = self.look()?;
        let whole = offer.frames.is_none() && super::probe::now() > now(END);
        let end = if whole { now(END) } else { now(LAST) };
        Ok(Sent {
            load: now(COUNT),
            refused: 0,
            probes: now(PROBES) as u32,
            late: now(LATE),
            seconds: end.saturating_sub(now(START)) as f64 / 1e9,
        })
    }
}

/// What the program must know.
struct Layout {
    head: usize,
    frames: usize,
    longest: usize,
    payload_at: usize,
    ifindex: u32,
}

/// Where the program keeps things on its stack.
const KEY: i16 = -4;
const IS_PROBE: i16 = -16;
const NOW: i16 = -24;

impl Layout {
    fn program(&self, state: &ArrayMap, stop: &ArrayMap, table: &ArrayMap) -> Vec<u64> {
        let mut c = Code::new();
        let [drop, load, frame, send] = [c.label(), c.label(), c.label(), c.label()];
        c.reg(Op::Mov, R6, R1).map_value(R1, stop.fd(), 0).load(Size::D, R1, R1, 0).jump_imm(If::Ne, R1, 0, drop);
        c.map_value(R9, state.fd(), 0).call(Helper::KtimeGetNs).reg(Op::Mov, R8, R0).store(Size::D, R10, NOW, R8);
        start(&mut c);
        c.load(Size::D, R1, R9, END).jump_reg(If::Gt, R8, R1, drop);
        self.choose_probe(&mut c, load, frame);
        c.place(load);
        pace(&mut c, drop, send);
        c.place(send).store(Size::D, R9, LAST, R8).reg(Op::Mov, R1, R7).imm(Op::Add, R1, 1).store(
            Size::D,
            R9,
            COUNT,
            R1,
        );
        c.imm(Op::Mod, R7, self.frames as i32).store(Size::W, R10, KEY, R7);
        c.imm(Op::Mov, R1, 0).store(Size::D, R10, IS_PROBE, R1);
        c.place(frame);
        self.write_frame(&mut c, table, drop);
        c.imm(Op::Mov, R1, self.ifindex as i32).imm(Op::Mov, R2, 0).call(Helper::Redirect).exit();
        c.place(drop).ret(XDP_DROP);
        c.finish()
    }

    /// If a probe is due, its number goes to R7, its place in the table to the stack, and on at `frame`; else at `load`.
    fn choose_probe(&self, c: &mut Code, load: Label, frame: Label) {
        if self.payload_at == 0 {
            return;
        }
        let in_time = c.label();
        c.load(Size::D, R1, R9, PROBE_INTERVAL).jump_imm(If::Eq, R1, 0, load);
        c.load(Size::D, R2, R9, PROBE_DUE).jump_reg(If::Gt, R2, R8, load);
        c.load(Size::D, R7, R9, PROBES).jump_imm(If::Gt, R7, SLOTS as i32 - 1, load);
        // Missed ones are not made up for.
        c.reg(Op::Add, R2, R1).jump_reg(If::Gt, R2, R8, in_time).reg(Op::Mov, R2, R8).reg(Op::Add, R2, R1);
        c.place(in_time).store(Size::D, R9, PROBE_DUE, R2);
        c.reg(Op::Mov, R1, R7).imm(Op::Add, R1, 1).store(Size::D, R9, PROBES, R1);
        c.imm(Op::Mov, R1, self.frames as i32).store(Size::W, R10, KEY, R1);
        c.imm(Op::Mov, R1, 1).store(Size::D, R10, IS_PROBE, R1).jump(frame);
    }

    /// Headers from the table, the probe's payload, the length.
    fn write_frame(&self, c: &mut Code, table: &ArrayMap, drop: Label) {
        let no_probe = c.label();
        c.map(R1, table.fd()).reg(Op::Mov, R2, R10).imm(Op::Add, R2, i32::from(KEY)).call(Helper::MapLookup);
        c.jump_imm(If::Eq, R0, 0, drop).reg(Op::Mov, R8, R0);
        c.load(Size::W, R2, R6, 0).load(Size::W, R3, R6, 4);
        c.reg(Op::Mov, R4, R2).imm(Op::Add, R4, self.head as i32).jump_reg(If::Gt, R4, R3, drop);
        let mut at = 0i16;
        for (size, len) in [(Size::D, 8), (Size::W, 4), (Size::H, 2), (Size::B, 1)] {
            while at as usize + len <= self.head {
                c.load(size, R5, R8, 8 + at).store(size, R2, at, R5);
                at += len as i16;
            }
        }
        let end = self.payload_at + 18;
        if self.payload_at > 0 && end <= self.longest {
            c.load(Size::D, R1, R10, IS_PROBE).jump_imm(If::Eq, R1, 0, no_probe);
            c.reg(Op::Mov, R4, R2).imm(Op::Add, R4, end as i32).jump_reg(If::Gt, R4, R3, drop);
            let p = self.payload_at as i16;
            c.load(Size::D, R5, R10, NOW).store(Size::W, R2, p + 4, R7).store(Size::D, R2, p + 8, R5);
            // The sum of what was written, in one's complement (RFC 1071: in whichever byte order), and its opposite.
            c.imm(Op::Mov, R4, 0);
            for (word, count) in [(R7, 2), (R5, 4)] {
                for i in 0..count {
                    add_word(c, R4, word, i);
                }
            }
            for _ in 0..2 {
                c.reg(Op::Mov, R1, R4).imm(Op::Shr, R1, 16).imm(Op::And, R4, 0xffff).reg(Op::Add, R4, R1);
            }
            c.imm(Op::Xor, R4, 0xffff).store(Size::H, R2, p + 16, R4).place(no_probe);
        }
        // Frames that are as long as the page's template stay as they are.
        let whole = c.label();
        c.load(Size::D, R2, R8, 0).jump_imm(If::Eq, R2, 0, whole);
        c.reg(Op::Mov, R1, R6).call(Helper::XdpAdjustTail).jump_imm(If::Ne, R0, 0, drop).place(whole);
    }
}

/// `sum +=` 16 bits of a word.
fn add_word(c: &mut Code, sum: Reg, word: Reg, i: i32) {
    c.reg(Op::Mov, R1, word).imm(Op::Shr, R1, 16 * i).imm(Op::And, R1, 0xffff).reg(Op::Add, sum, R1);
}

/// The first run of the program begins the time.
fn start(c: &mut Code) {
    let started = c.label();
    c.load(Size::D, R1, R9, START).jump_imm(If::Ne, R1, 0, started).store(Size::D, R9, START, R8);
    c.load(Size::D, R1, R9, TIME).reg(Op::Add, R1, R8).store(Size::D, R9, END, R1);
    c.store(Size::D, R9, PROBE_DUE, R8).reg(Op::Mov, R1, R8).imm(Op::Shl, R1, POINT).store(Size::D, R9, DUE, R1);
    c.place(started);
}

/// The number of the next frame of the load in R7; on at `drop` if there is none or it is not yet due.
fn pace(c: &mut Code, drop: Label, send: Label) {
    let [more, kept] = [c.label(), c.label()];
    c.load(Size::D, R7, R9, COUNT).load(Size::D, R1, R9, LIMIT).jump_reg(If::Gt, R1, R7, more).jump(drop).place(more);
    c.load(Size::D, R1, R9, INTERVAL).jump_imm(If::Eq, R1, 0, send);
    c.load(Size::D, R2, R9, DUE).reg(Op::Mov, R3, R8).imm(Op::Shl, R3, POINT).jump_reg(If::Gt, R2, R3, drop);
    // What is later than allowed is given up, in whole frames.
    c.reg(Op::Sub, R3, R2).load(Size::D, R4, R9, ALLOWED).jump_reg(If::Gt, R4, R3, kept);
    c.reg(Op::Sub, R3, R4).reg(Op::Div, R3, R1).load(Size::D, R4, R9, LATE).reg(Op::Add, R4, R3);
    c.store(Size::D, R9, LATE, R4).reg(Op::Mul, R3, R1).reg(Op::Add, R2, R3);
    c.place(kept).reg(Op::Add, R2, R1).store(Size::D, R9, DUE, R2);
}
