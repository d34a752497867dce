//! The port on devices of namespaces of the test's own.

use super::memory::Memories;
use super::*;
use crate::lab::{Net, sandbox};
use crate::port::{Refused, packet};
use crate::sandbox_test;
use crate::sys::device::Device;
use router_core::frame::MAX_FRAME;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);

fn may_load() -> bool {
    let may = !sandbox::in_user_namespace();
    if !may {
        eprintln!("SKIPPED: XDP programs need CAP_BPF of the machine, not of a user namespace");
    }
    may
}

fn pair() -> Net {
    let mut net = Net::new();
    net.hosts(&["a", "r"]).unwrap();
    net.link(("a", "eth0"), ("r", "eth0")).unwrap();
    net.wait_ready(Duration::from_secs(5)).unwrap();
    net
}

/// UDP of flow `n`.
fn flow(n: u16) -> Frame {
    let mut f = vec![0u8; 60];
    f[..6].fill(0xff);
    f[6..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 8, 0]);
    f[14..34].copy_from_slice(&[0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    f[34..38].copy_from_slice(&[(n >> 8) as u8, n as u8, 0x30, 0x39]);
    f[39] = 26;
    Frame::from_slice(&f)
}

fn is_flow(f: &Frame) -> bool {
    f.data().get(36..38) == Some(&[0x30, 0x39])
}

sandbox_test! {
    fn every_receive_queue_of_the_device_is_served() {
        if !may_load() {
            return;
        }
        for workers in [1usize, 2] {
            let net = pair();
            for host in ["r", "a"] {
                let set = net.host(host).unwrap().run(|| Device::new("eth0").unwrap().set_queues(2));
                if let Err(e) = set {
                    eprintln!("SKIPPED: veth with two queues: {e}");
                    return;
                }
            }
            let mut memories = Memories::default();
            let (queues, _facts, _guards) = net
                .host("r")
                .unwrap()
                .run(|| open("p", "eth0", false, workers, XdpOptions::default(), &mut memories).unwrap());
            assert_eq!(queues.len(), workers);
            let mut queues: Vec<Box<dyn Port>> = queues.into_iter().map(Queue::boxed).collect();
            let mut pools: Vec<FramePool> = (0..workers).map(|_| FramePool::new(16, MAX_FRAME)).collect();
            for (queue, pool) in queues.iter_mut().zip(&mut pools) {
                assert!(queue.fd().is_some() && queue.polls_cheaply());
                queue.enter_service(pool);
            }
            // More than all rings hold, in turns.
            let mut from = net.host("a").unwrap().run(|| packet::open("t", "eth0", Default::default(), 1)).unwrap().0.remove(0);
            let mut seen = vec![0usize; workers];
            let mut sent = 0;
            let end = Instant::now() + LIMIT;
            while seen.iter().sum::<usize>() < 10_000 {
                assert!(Instant::now() < end, "{seen:?} of {sent}");
                let mut frames: Vec<Frame> =
                    (sent..10_000.min(seen.iter().sum::<usize>() + 100)).map(|n| flow(n as u16)).collect();
                sent += frames.len();
                let mut report = SendReport::default();
                from.send_batch(&mut frames, &mut FramePool::new(1, 10), &mut report);
                assert!(report.refused.is_empty());
                for (i, (queue, pool)) in queues.iter_mut().zip(&mut pools).enumerate() {
                    let mut batch = Vec::new();
                    queue.recv_batch(64, pool, &mut batch, &mut RecvReport::default());
                    for f in batch {
                        seen[i] += usize::from(is_flow(&f));
                        pool.put(f);
                    }
                }
            }
            assert!(seen.iter().all(|n| *n > 1000), "{seen:?}");
            // Everything that was allotted comes back.
            for (queue, pool) in queues.iter_mut().zip(&mut pools) {
                queue.leave_service(pool);
                assert!(pool.take_lent(1).is_none() && pool.take_lent(2).is_none());
            }
        }
    }
}

sandbox_test! {
    fn frames_in_other_memory_are_copied_and_too_long_ones_refused() {
        if !may_load() {
            return;
        }
        let net = pair();
        let mut memories = Memories::default();
        let (mut queues, ..) =
            net.host("r").unwrap().run(|| open("p", "eth0", false, 1, XdpOptions::default(), &mut memories).unwrap());
        let mut pool = FramePool::new(16, MAX_FRAME);
        let mut queue = queues.remove(0).boxed();
        queue.enter_service(&mut pool);
        let (mut at, _) = net.host("a").unwrap().run(|| packet::open("t", "eth0", Default::default(), 1)).unwrap();
        let mut tagged = flow(7);
        tagged.meta.vlan_tci = Some(5);
        let mut frames = vec![flow(6), Frame::from_slice(&[1; 3000]), tagged];
        let mut report = SendReport::default();
        queue.send_batch(&mut frames, &mut pool, &mut report);
        assert!(frames.is_empty());
        let refused = [Refused { reason: DropReason::TxError, bytes: 3000 }];
        assert_eq!(report.refused, refused);
        let mut got = Vec::new();
        let end = Instant::now() + LIMIT;
        while got.len() < 2 {
            assert!(Instant::now() < end);
            let mut batch = Vec::new();
            at[0].recv_batch(64, &mut FramePool::new(64, MAX_FRAME), &mut batch, &mut RecvReport::default());
            got.extend(batch.into_iter().filter(|f| is_flow(f) || f.data()[12] == 0x81 || f.meta.vlan_tci.is_some()));
        }
        assert_eq!(got[0].data(), flow(6).data());
        let tag = got[1].meta.vlan_tci.or_else(|| Some(u16::from_be_bytes([got[1].data()[14], got[1].data()[15]])));
        assert_eq!(tag, Some(5));
    }
}

sandbox_test! {
    fn a_port_can_be_opened_again_and_a_second_one_is_told_why_not() {
        if !may_load() {
            return;
        }
        let net = pair();
        let mut memories = Memories::default();
        net.host("r").unwrap().run(|| {
            let mut again = || open("p", "eth0", true, 1, XdpOptions::default(), &mut memories);
            for _ in 0..3 {
                let (mut queues, _, guards) = again().unwrap();
                let mut pool = FramePool::new(4, MAX_FRAME);
                let mut queue = queues.remove(0).boxed();
                queue.enter_service(&mut pool);
                queue.leave_service(&mut pool);
                drop((queue, guards));
            }
            let held = again().unwrap();
            let e = again().err().unwrap().to_string();
            assert!(e.contains("another AF_XDP program or port has it"), "{e}");
            drop(held);
            let zero_copy = XdpOptions { zero_copy: Some(true), ..XdpOptions::default() };
            let e = open("p", "eth0", false, 1, zero_copy, &mut Memories::default()).err().unwrap().to_string();
            assert!(e.contains("zero-copy"), "{e}");
            let e = open("p", "nothing", false, 1, XdpOptions::default(), &mut Memories::default()).err().unwrap();
            assert!(e.to_string().contains("no device"), "{e}");
        });
    }
}
