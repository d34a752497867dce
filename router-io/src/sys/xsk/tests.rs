//! Frames over a veth pair between two namespaces of the test's own.

use super::*;
use crate::lab::{Net, sandbox};
use crate::sandbox_test;
use crate::sys::bpf::{AttachMode, Link, Program, XskMap};
use crate::sys::device::Device;
use router_core::frame::Frame;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);

fn umem(chunks: usize, home: u8) -> (Umem, Vec<Frame>) {
    Umem::new(UmemConfig { chunk: 2048, chunks, home }).unwrap()
}

/// A device's only queue, all of its frames, and the program that brings them.
struct Opened {
    socket: Socket,
    _link: Option<Link>,
}

/// Fills the ring before the program is there, so that not even a neighbour solicitation is lost.
fn open(device: &str, umem: &Umem, spare: &mut Vec<Frame>, attach: Option<AttachMode>) -> Opened {
    let ifindex = Device::new(device).unwrap().index().unwrap();
    let options = BindOptions { rx_ring: 64, tx_ring: 64, ..BindOptions::default() };
    let mut socket = Socket::bind(umem, ifindex, 0, &options).unwrap();
    if attach.is_some() {
        socket.fill(spare);
    }
    let link = attach.map(|mode| {
        let map = XskMap::new(1).unwrap();
        map.set(0, socket.as_fd()).unwrap();
        Program::redirect(&map).unwrap().attach(ifindex, mode).unwrap()
    });
    Opened { socket, _link: link }
}

fn until(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < end, "nothing within {LIMIT:?}");
        std::thread::yield_now();
    }
}

/// Frame number `i`: recognizable, of its own length.
fn numbered(i: usize, frame: &mut Frame) {
    let mut bytes = vec![(i % 251) as u8; 60 + i % 1400];
    bytes[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
    bytes[14..18].copy_from_slice(&(i as u32).to_be_bytes());
    frame.reset();
    assert!(frame.set_data(&bytes));
}

fn pair() -> Net {
    let mut net = Net::new();
    net.hosts(&["a", "b"]).unwrap();
    net.link(("a", "eth0"), ("b", "eth0")).unwrap();
    net
}

/// As root of the machine only: a user namespace may not load programs.
fn may_load() -> bool {
    let may = !sandbox::in_user_namespace();
    if !may {
        eprintln!("SKIPPED: XDP programs need CAP_BPF of the machine, not of a user namespace");
    }
    may
}

/// Sends `count` frames from a to b and checks every byte.
fn carry(mode: AttachMode, count: usize) {
    let net = pair();
    let (ua, mut spare_a) = umem(128, 1);
    let mut a = net.host("a").unwrap().run(|| open("eth0", &ua, &mut Vec::new(), None));
    let (ub, mut spare_b) = umem(128, 2);
    let mut b = net.host("b").unwrap().run(|| open("eth0", &ub, &mut spare_b, Some(mode)));
    let (mut sent, mut seen) = (0, 0);
    let (mut queue, mut got) = (Vec::new(), Vec::new());
    until(|| {
        a.socket.complete(64, &mut spare_a);
        // As many on the way as the receiver has frames for: nothing may be lost.
        while sent < count && sent - seen < 32 {
            let Some(mut frame) = spare_a.pop() else { break };
            numbered(sent, &mut frame);
            queue.push(frame);
            sent += 1;
        }
        a.socket.transmit(&mut queue);
        let kick = a.socket.kick();
        assert_eq!(kick.refused, 0);
        b.socket.receive(64, &mut got);
        for frame in got.drain(..) {
            // The kernels of both ends may say something of their own (router solicitations).
            if frame.data()[12..14] == [0x88, 0xb5] {
                let mut want = Frame::with_capacity(2000);
                numbered(seen, &mut want);
                assert_eq!(frame.data(), want.data());
                assert!(frame.headroom() >= PACKET_HEADROOM && b.socket.takes(&frame) && !a.socket.takes(&frame));
                seen += 1;
            }
            spare_b.push(frame);
        }
        b.socket.fill(&mut spare_b);
        seen == count
    });
    until(|| {
        a.socket.complete(64, &mut spare_a);
        a.socket.sending() == 0
    });
    assert_eq!(spare_a.len(), 128);
    let statistics = b.socket.statistics().unwrap();
    assert_eq!((statistics.rx_dropped, statistics.rx_invalid, statistics.rx_ring_full), (0, 0, 0));
}

sandbox_test! {
    fn frames_arrive_whole_and_in_order() {
        if may_load() {
            carry(AttachMode::Native, 5000);
            carry(AttachMode::Generic, 1000);
        }
    }
}

sandbox_test! {
    fn a_frame_moves_between_two_devices_of_one_umem_without_a_copy() {
        if !may_load() {
            return;
        }
        let mut net = Net::new();
        net.hosts(&["a", "r", "b"]).unwrap();
        net.link(("a", "eth0"), ("r", "left")).unwrap();
        net.link(("r", "right"), ("b", "eth0")).unwrap();
        let (shared, mut spare) = umem(256, 7);
        let (mut left, mut right) = net.host("r").unwrap().run(|| {
            let native = Some(AttachMode::Native);
            let left = open("left", &shared, &mut spare, native);
            (left, open("right", &shared, &mut spare, native))
        });
        let (ua, mut frames_a) = umem(64, 1);
        let mut a = net.host("a").unwrap().run(|| open("eth0", &ua, &mut Vec::new(), None));
        let (ub, mut frames_b) = umem(64, 2);
        let mut b = net.host("b").unwrap().run(|| open("eth0", &ub, &mut frames_b, Some(AttachMode::Native)));
        let mut queue: Vec<Frame> = frames_a.drain(..32).collect();
        queue.iter_mut().enumerate().for_each(|(i, f)| numbered(i, f));
        let bytes: usize = queue.iter().map(Frame::len).sum();
        assert_eq!(a.socket.transmit(&mut queue), 32);
        assert_eq!(a.socket.kick(), Kick::default());
        let mut moved = 0;
        until(|| {
            let mut got = Vec::new();
            left.socket.receive(64, &mut got);
            got.retain(|f| f.data()[12..14] == [0x88, 0xb5]);
            let addresses: Vec<_> = got.iter().map(|f| f.data().as_ptr().addr()).collect();
            moved += right.socket.transmit(&mut got);
            right.socket.kick();
            let mut back = Vec::new();
            let ours = |f: &Frame| addresses.contains(&f.data().as_ptr().addr());
            until(|| {
                right.socket.complete(64, &mut back);
                right.socket.sending() == 0
            });
            assert!(back.iter().all(ours), "a frame came back from other memory");
            moved == 32
        });
        let (mut count, mut length) = (0, 0);
        until(|| {
            let mut got = Vec::new();
            b.socket.receive(64, &mut got);
            let ours = got.iter().filter(|f| f.data()[12..14] == [0x88, 0xb5]);
            (count, length) = ours.fold((count, length), |(n, sum), f| (n + 1, sum + f.len()));
            b.socket.fill(&mut got);
            count == 32
        });
        assert_eq!(length, bytes);
    }
}

sandbox_test! {
    fn a_queue_has_one_socket_and_errors_say_which_step() {
        let net = pair();
        let (u, _frames) = umem(64, 1);
        let (other, _more) = umem(64, 2);
        net.host("a").unwrap().run(|| {
            let ifindex = Device::new("eth0").unwrap().index().unwrap();
            let options = BindOptions::default();
            let Ok(first) = Socket::bind(&u, ifindex, 0, &options) else {
                eprintln!("SKIPPED: no AF_XDP here");
                return;
            };
            let errno = |r: Result<Socket, BindError>| match r {
                Err(BindError::Bind(e)) => e.raw_os_error(),
                other => panic!("{other:?}"),
            };
            assert_eq!(errno(Socket::bind(&other, ifindex, 0, &options)), Some(libc::EBUSY));
            assert_eq!(errno(Socket::bind(&other, ifindex, 99, &options)), Some(libc::EINVAL));
            assert_eq!(errno(Socket::bind(&other, 9999, 0, &options)), Some(libc::ENODEV));
            let zero_copy = BindOptions { copy: CopyMode::ZeroCopy, ..options };
            drop(first);
            assert_eq!(errno(Socket::bind(&other, ifindex, 0, &zero_copy)), Some(libc::EOPNOTSUPP));
            assert!(!Socket::bind(&u, ifindex, 0, &options).unwrap().zero_copy(), "the queue is free again");
        });
    }
}

#[test]
fn only_sizes_that_the_kernel_takes() {
    for (chunk, chunks, home) in
        [(1024, 64, 1), (8192, 64, 1), (2048, 0, 1), (2048, 64, 0), (4096, usize::MAX / 4096, 1)]
    {
        assert!(Umem::new(UmemConfig { chunk, chunks, home }).is_err(), "{chunk} {chunks} {home}");
    }
    let (u, frames) = umem(3, 1);
    assert_eq!((frames.len(), u.frame_capacity()), (3, 1792));
    assert_eq!(frames.iter().map(|f| u.chunk_of(f)).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
    assert_eq!(u.chunk_of(&frames[0].clone()), None);
}
