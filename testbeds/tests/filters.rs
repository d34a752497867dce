//! Filters mean what they mean to tcpdump: random packets, random filters, both opinions.

use router_core::port::{Medium, PortId};
use router_core::time::Instant;
use router_core::trace::{Filter, Subject};
use router_io::port::pcap_file::Writer;
use std::process::Command;

/// Splitmix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[(self.next() % list.len() as u64) as usize]
    }
}

const V4: &[[u8; 4]] = &[[192, 0, 2, 1], [192, 0, 2, 2], [198, 51, 100, 2], [10, 1, 2, 3], [224, 0, 0, 5]];
const V6: &[&str] = &["2001:db8::1", "2001:db8::2", "2001:db8:1::1", "ff02::1"];

/// A frame with room behind its headers, so that tcpdump's programs never read beyond its end.
fn frame(rng: &mut Rng) -> Vec<u8> {
    let dst = rng.pick(&[[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], [0xff; 6], [1, 0, 0x5e, 0, 0, 5]]);
    let src = rng.pick(&[[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]]);
    let mut f = [dst, src].concat();
    let proto = rng.pick(&[1u8, 6, 17, 17, 58, 132, 41, 47, 44, 50]);
    let ports = [rng.pick(&[22u16, 53, 80, 179, 443, 1000, 2000]), rng.pick(&[22u16, 53, 80, 179, 443, 1000, 2000])];
    let mut l4 = [ports[0].to_be_bytes(), ports[1].to_be_bytes()].concat();
    l4.resize(rng.pick(&[64, 65, 200]), 0);
    match rng.next() % 10 {
        0..5 => {
            f.extend([8, 0]);
            let options = rng.pick(&[0u8, 0, 0, 4]);
            let fragment = rng.pick(&[0u16, 0, 0, 0x4000, 0x2000, 0x2001, 0x0007]);
            let len = (20 + usize::from(options) + l4.len()) as u16;
            f.extend([0x45 + options / 4, 0]);
            f.extend(len.to_be_bytes());
            f.extend([0, 1]);
            f.extend(fragment.to_be_bytes());
            f.extend([64, proto, 0, 0]);
            f.extend(rng.pick(V4));
            f.extend(rng.pick(V4));
            f.resize(f.len() + usize::from(options), 1);
            f.extend(l4);
        }
        5..9 => {
            f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            f.extend((l4.len() as u16).to_be_bytes());
            f.extend([proto, 64]);
            for _ in 0..2 {
                f.extend(rng.pick(V6).parse::<std::net::Ipv6Addr>().expect("address").octets());
            }
            if proto == 44 {
                l4[0] = rng.pick(&[6, 17, 58]);
            }
            f.extend(l4);
        }
        _ => {
            f.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
            f.extend(src);
            f.extend(rng.pick(V4));
            f.extend([0; 6]);
            f.extend(rng.pick(V4));
            f.resize(100, 0);
        }
    }
    f
}

fn primitive(rng: &mut Rng) -> String {
    let dir = rng.pick(&["", "", "src ", "dst ", "src or dst ", "src and dst "]);
    let four = rng.pick(&["192.0.2.1", "198.51.100.2", "10.1.2.3"]);
    match rng.next() % 22 {
        17..=20 => relation(rng),
        21 => format!("{dir}net 192.0.2.0 mask 255.255.255.0"),
        0 => rng.pick(&["ip", "ip6", "arp", "icmp", "icmp6", "tcp", "udp", "sctp"]).to_owned(),
        1 | 2 => format!("{dir}host {four}"),
        3 => format!("ip {dir}host {four}"),
        4 => format!("{dir}host {}", rng.pick(&["2001:db8::1", "2001:db8:1::1"])),
        5 => format!(
            "{dir}net {}",
            rng.pick(&["192.0.2.0/24", "10.0.0.0/8", "192.0.2", "2001:db8::/64", "2001:db8::/32"])
        ),
        6 => format!("{dir}port {}", rng.pick(&[22, 53, 80, 443])),
        7 => format!("{} {dir}port {}", rng.pick(&["tcp", "udp"]), rng.pick(&[22, 53, 80, 443])),
        8 => format!("{dir}portrange {}", rng.pick(&["20-60", "100-1000", "0-65535"])),
        9 => format!("proto {}", rng.pick(&[1, 6, 17, 41, 47, 50])),
        10 => format!("{} proto {}", rng.pick(&["ip", "ip6"]), rng.pick(&[1, 6, 17, 41, 58])),
        11 => format!("{} {}", rng.pick(&["less", "greater"]), rng.pick(&[90, 98, 99, 118, 119, 200])),
        12 => format!("ether {}host 02:00:00:00:00:01", rng.pick(&["", "src ", "dst "])),
        13 => rng
            .pick(&["ether broadcast", "ether multicast", "ip multicast", "ip6 multicast", "ether proto 0x0806"])
            .to_owned(),
        14 => format!("arp {dir}host {four}"),
        15 => format!("port {} or {}", rng.pick(&[22, 53]), rng.pick(&[80, 443])),
        _ => format!("{dir}host {four} or 192.0.2.2"),
    }
}

/// Bytes that lie within all packets here. Those of transport headers are compared on IPv4 alone: ours read IPv6 packets
/// as well. Right operands have no bytes of headers in them: libpcap forgets to ask whether the packet has such a header.
fn value(rng: &mut Rng, depth: u8) -> String {
    match rng.next() % 8 {
        0 => rng.pick(&["1", "0x10", "017", "255", "64", "tcp-syn", "tcp-ack"]).to_owned(),
        1 => "len".to_owned(),
        2 => format!("ip[{}]", rng.pick(&["0", "8", "9", "2:2", "12:4", "6:2", "1+1:2", "(ip[0]&0xf)<<2"])),
        3 => format!("ip6[{}]", rng.pick(&["6", "7", "4:2", "24:4", "40"])),
        4 => rng.pick(&["ether[0]", "ether[12:2]", "link[5]", "arp[6:2]", "arp[24:4]"]).to_owned(),
        5 if depth < 3 => format!("({} {} {})", value(rng, depth + 1), operator(rng), plain(rng)),
        6 if depth < 3 => format!("{} {} {}", value(rng, depth + 1), operator(rng), plain(rng)),
        _ => format!("ip[{}]", rng.next() % 20),
    }
}

fn plain(rng: &mut Rng) -> &'static str {
    rng.pick(&["1", "2", "0x10", "017", "255", "tcp-syn", "(1 + 2)", "len"])
}

fn operator(rng: &mut Rng) -> &'static str {
    rng.pick(&["&", "|", "+", "-", "*", "<<", ">>"])
}

fn relation(rng: &mut Rng) -> String {
    let compare = rng.pick(&["=", "==", "!=", "<", "<=", ">", ">="]);
    match rng.next() % 4 {
        0 => format!(
            "(ip and tcp[{}] & {} {compare} 0)",
            rng.pick(&["0", "1", "13", "tcpflags"]),
            rng.pick(&["1", "tcp-syn"])
        ),
        1 => format!("(ip and udp[{}:2] {compare} {})", rng.pick(&[0, 2]), rng.pick(&[53, 443, 1000])),
        2 => format!("icmp[icmptype] {compare} icmp-echo or icmp6[0] {compare} 0"),
        _ => format!("{} {compare} {}", value(rng, 0), value(rng, 0)),
    }
}

fn filter(rng: &mut Rng, depth: u8) -> String {
    match rng.next() % 6 {
        0 if depth < 3 => format!("not ({})", filter(rng, depth + 1)),
        1 if depth < 3 => format!("({}) and ({})", filter(rng, depth + 1), filter(rng, depth + 1)),
        2 if depth < 3 => format!("{} or {}", primitive(rng), filter(rng, depth + 1)),
        3 if depth < 3 => format!("{} and not {} or {}", primitive(rng), primitive(rng), primitive(rng)),
        _ => primitive(rng),
    }
}

#[test]
fn as_tcpdump_understands_them() {
    if !Command::new("tcpdump").arg("--version").output().is_ok_and(|o| o.status.success()) {
        println!("skipped: tcpdump is not installed");
        return;
    }
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("packets.pcap");
    let rng = &mut Rng(7);
    let frames: Vec<Vec<u8>> = (0..400).map(|_| frame(rng)).collect();
    let mut w = Writer::new(std::fs::File::create(&path).expect("file"), Medium::Ethernet).expect("header");
    for (i, f) in frames.iter().enumerate() {
        // The time is the packet's number.
        w.write(Instant::from_millis(i as u64 * 1000), f).expect("packet");
    }
    w.flush().expect("file");
    let (mut compared, mut matched) = (0, 0);
    for _ in 0..500 {
        let text = filter(rng, 0);
        let out = Command::new("tcpdump")
            .arg("-O")
            .arg("-nn")
            .arg("-tt")
            .arg("-r")
            .arg(&path)
            .arg(&text)
            .output()
            .expect("tcpdump");
        let errors = String::from_utf8_lossy(&out.stderr);
        // What can match nothing is refused, and so are shifts by more than a word.
        if ["expression rejects all packets", "shift by more than"].iter().any(|e| errors.contains(e)) {
            continue;
        }
        assert!(out.status.success(), "{text}: {errors}");
        let stdout = String::from_utf8_lossy(&out.stdout);
        let theirs: Vec<usize> = stdout
            .lines()
            .filter(|l| !l.starts_with([' ', '\t']))
            .filter_map(|l| l.split('.').next()?.parse().ok())
            .collect();
        let ours = Filter::parse(&text, &|_| None).unwrap_or_else(|e| panic!("{text}\n{e}\n{}", e.picture(&text)));
        let fits = |f: &&Vec<u8>| ours.matches(&Subject::new(PortId(0), f, true, None));
        let ours: Vec<usize> = frames.iter().enumerate().filter(|(_, f)| fits(f)).map(|(i, _)| i).collect();
        assert_eq!(
            ours,
            theirs,
            "{text}: first difference {:?}",
            ours.iter().zip(&theirs).find(|(a, b)| a != b).map(|(a, b)| &frames[*a.min(b)])
        );
        compared += 1;
        matched += ours.len();
    }
    assert!(compared > 350 && matched > 5000, "{compared} filters, {matched} matches");
}
