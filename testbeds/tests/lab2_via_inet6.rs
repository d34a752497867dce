//! Lab 2: IPv4 by IPv6 next hops across three routers without any IPv4 address (RFC 9229,
//! draft-ietf-intarea-v4-via-v6), ours and the kernel's in all mixtures.

use router_core::addr::MacAddr;
use router_io::lab::probe::Ping;
use router_io::sandbox_test;
use testbeds::lab::Dut::{Duet, Kernel};
use testbeds::lab::check::{Pair, ip};
use testbeds::lab::{Bed, Dut, Result, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");
const NAMES: [&str; 3] = ["r1", "r2", "r3"];
/// The link in the middle is narrower.
const MIDDLE: u32 = 1400;

/// How gateways are written.
#[derive(Clone, Copy, PartialEq)]
enum Gateways {
    Global,
    LinkLocal,
}

/// a - r1 - r2 - r3 - b. Link i is 2001:db8:i::/64, its left end 1, its right end 2; routers have no IPv4 address.
fn bed(duts: [Dut; 3], gateways: Gateways) -> Result<Bed> {
    let mut bed = Bed::row(PROGRAM, &["a", "r1", "r2", "r3", "b"], &[1500, 1500, MIDDLE, 1500])?;
    bed.ready()?;
    let gateway = |link: usize, end: usize| -> Result<String> {
        // The device at this end of the link, and the device by which the other end reaches it.
        let (host, dev) = if end == 1 { (link, "right") } else { (link + 1, "left") };
        let host = ["a", "r1", "r2", "r3", "b"][host];
        let dev = if matches!(host, "a" | "b") { "eth0" } else { dev };
        let peer_dev = if end == 1 { "left" } else { "right" };
        let peer_dev = if (link == 0 && end == 2) || (link == 3 && end == 1) { "eth0" } else { peer_dev };
        Ok(match gateways {
            Gateways::Global => format!("via inet6 2001:db8:{link}::{end}"),
            Gateways::LinkLocal => {
                let mac: MacAddr = bed.host(host).netlink().link(dev)?.mac.ok_or("a link without address")?;
                format!("via inet6 {} dev {peer_dev}", mac.link_local())
            }
        })
    };
    let a_default = format!("0.0.0.0/0 {}", gateway(0, 2)?);
    let b_default = format!("0.0.0.0/0 {}", gateway(3, 1)?);
    let mut routers = Vec::new();
    for i in 1..=3 {
        let (to_a, to_b) = (gateway(i - 1, 1)?, gateway(i, 2)?);
        let six = |words: &str| words.replace("inet6 ", "");
        routers.push(
            RouterConfig::new(NAMES[i - 1])
                .port("left", &[&format!("2001:db8:{}::2/64", i - 1)])
                .port("right", &[&format!("2001:db8:{i}::1/64")])
                .route(&format!("192.0.2.0/25 {to_a}"))
                .route(&format!("192.0.2.128/25 {to_b}"))
                // IPv6 as well, so that the same chain carries both.
                .route(&format!("2001:db8:a::/48 {}", six(&to_a)))
                .route(&format!("2001:db8:b::/48 {}", six(&to_b))),
        );
    }
    bed.end("a", &["192.0.2.1/32", "2001:db8::1/64", "2001:db8:a::1/128"], &[&a_default, "default via 2001:db8::2"])?;
    bed.end(
        "b",
        &["192.0.2.129/32", "2001:db8:3::2/64", "2001:db8:b::1/128"],
        &[&b_default, "default via 2001:db8:3::1"],
    )?;
    for (dut, config) in duts.into_iter().zip(&routers) {
        bed.router(dut, config)?;
    }
    Ok(bed)
}

fn lab(duts: [Dut; 3], gateways: Gateways) {
    let bed = bed(duts, gateways).unwrap();
    let (a, b) = (bed.host("a"), bed.host("b"));
    let four = Pair::new(a, b, "192.0.2.1", "192.0.2.129");
    four.reachable().unwrap();
    four.fragmented_on_the_way().unwrap();
    // Every router says "I have no IPv4 address" by the one address that says so (RFC 7600 5.4).
    four.all(MIDDLE, &["192.0.0.8", "192.0.0.8", "192.0.0.8", "192.0.2.129"]).unwrap();
    four.swapped().traceroute(&["192.0.0.8", "192.0.0.8", "192.0.0.8", "192.0.2.1"]).unwrap();
    if gateways == Gateways::Global {
        let six = Pair::new(a, b, "2001:db8:a::1", "2001:db8:b::1");
        let ping = Ping::new(ip("2001:db8:b::1")).from(ip("2001:db8:a::1"));
        assert!(a.ping(&ping).unwrap().all_answered());
        six.every_size_after_learning(MIDDLE).unwrap();
    }
    bed.finish().unwrap();
}

sandbox_test! {
    fn kernels_only() {
        lab([Kernel, Kernel, Kernel], Gateways::Global);
    }
}

sandbox_test! {
    fn kernels_only_link_local() {
        lab([Kernel, Kernel, Kernel], Gateways::LinkLocal);
    }
}

sandbox_test! {
    fn all_ours() {
        lab([Duet, Duet, Duet], Gateways::Global);
    }
}

sandbox_test! {
    fn all_ours_link_local() {
        lab([Duet, Duet, Duet], Gateways::LinkLocal);
    }
}

sandbox_test! {
    fn ours_between_kernels() {
        lab([Kernel, Duet, Kernel], Gateways::Global);
    }
}

sandbox_test! {
    fn ours_between_kernels_link_local() {
        lab([Kernel, Duet, Kernel], Gateways::LinkLocal);
    }
}

sandbox_test! {
    fn kernel_between_ours() {
        lab([Duet, Kernel, Duet], Gateways::Global);
    }
}

sandbox_test! {
    fn kernel_between_ours_link_local() {
        lab([Duet, Kernel, Duet], Gateways::LinkLocal);
    }
}
