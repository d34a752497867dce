//! Captures of a running router, read by other people's programs; and the ways in which a capture ends.

use router_io::lab::probe::Ping;
use router_io::sandbox_test;
use std::process::{Command, Stdio};
use testbeds::lab::Dut::{Duet, Kernel};
use testbeds::lab::check::{Pair, ip};
use testbeds::lab::{Bed, Result, RouterConfig, Watching};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

/// a - r1 - isp - r2 - b with a 6in4 tunnel between r1 and r2.
fn bed() -> Result<Bed> {
    let mut bed = Bed::row(PROGRAM, &["a", "r1", "isp", "r2", "b"], &[1500; 4])?;
    bed.ready()?;
    bed.end("a", &["2001:db8:a::1/64"], &["default via 2001:db8:a::2"])?;
    bed.end("b", &["2001:db8:b::1/64"], &["default via 2001:db8:b::2"])?;
    bed.router(
        Kernel,
        &RouterConfig::new("isp").port("left", &["198.51.100.1/24"]).port("right", &["203.0.113.1/24"]),
    )?;
    let tunnel = |local: &str, remote: &str, addr: &str| {
        format!("[tunnel.site]\nmode = \"6in4\"\nlocal = \"{local}\"\nremote = \"{remote}\"\naddress = [\"{addr}\"]\n")
    };
    bed.router(
        Duet,
        &RouterConfig::new("r1")
            .port("left", &["2001:db8:a::2/64"])
            .port("right", &["198.51.100.2/24"])
            .extra(&tunnel("198.51.100.2", "203.0.113.2", "2001:db8:ff::1/64"))
            .route("0.0.0.0/0 via 198.51.100.1")
            .route("2001:db8:b::/48 via 2001:db8:ff::2"),
    )?;
    bed.router(
        Duet,
        &RouterConfig::new("r2")
            .port("left", &["203.0.113.2/24"])
            .port("right", &["2001:db8:b::2/64"])
            .extra(&tunnel("203.0.113.2", "198.51.100.2", "2001:db8:ff::2/64"))
            .route("0.0.0.0/0 via 203.0.113.1")
            .route("2001:db8:a::/48 via 2001:db8:ff::1"),
    )?;
    Ok(bed)
}

fn ping(bed: &Bed) {
    let ping = Ping::new(ip("2001:db8:b::1"));
    assert!(bed.host("a").ping(&ping).unwrap().all_answered());
}

/// Whether a program is there; says so if not.
fn have(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
    if !there {
        println!("skipped what needs {program}: it is not installed");
    }
    there
}

/// Runs a reader on a file; it must not complain.
fn read(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().unwrap();
    let errors = String::from_utf8_lossy(&out.stderr);
    // What these programs say about being root, or about the file's name, is no complaint about the file.
    let complaint = |l: &&str| !l.contains("Running as user") && !l.starts_with("reading from file") && !l.is_empty();
    let complaints: Vec<&str> = errors.lines().filter(complaint).collect();
    assert!(out.status.success() && complaints.is_empty(), "{program} {args:?}: {complaints:?}");
    assert!(!out.stdout.is_empty(), "{program} {args:?} said nothing; {errors}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

sandbox_test! {
    fn wireshark_reads_all_stages() {
        let bed = bed().unwrap();
        ping(&bed);
        let file = bed.dir().join("all.pcapng");
        let words = format!("capture at rx,tx,drop,inner,outer -w {}", file.display());
        let mut capture = Watching::start(PROGRAM, bed.duet("r1"), &words).unwrap();
        capture.hear("capturing all packets").unwrap();
        ping(&bed);
        let pair = Pair::new(bed.host("a"), bed.host("b"), "2001:db8:a::1", "2001:db8:b::1");
        pair.traceroute(&["2001:db8:a::2", "2001:db8:ff::2", "2001:db8:b::1"]).unwrap();
        capture.interrupt().unwrap();
        let (out, errors) = capture.end().unwrap();
        assert!(out.status.success(), "{errors}");
        assert!(errors.contains(" packets captured, 0 lost"), "{errors}");
        let size = std::fs::metadata(&file).unwrap().len();
        assert!(size > 2000, "{size} bytes; {errors}");
        let name = file.display().to_string();
        if have("tshark") {
            let fields = ["-e", "frame.interface_name", "-e", "frame.comment", "-e", "frame.packet_flags_direction", "-e", "_ws.malformed"];
            let table = read("tshark", &[&["-r", &name, "-T", "fields", "-E", "separator=|"][..], &fields].concat());
            let has = |want: &[&str]| table.lines().any(|l| want.iter().all(|w| l.contains(w)));
            assert!(has(&["left|", "dropped: ttl_expired: TTL or hop limit"]), "{table}");
            assert!(has(&["site|inner packet of a tunnel"]) && has(&["outer packet of a tunnel"]), "{table}");
            for port in ["left", "right"] {
                let both = ["1", "2"].iter().all(|d| {
                    table.lines().any(|l| l.starts_with(&format!("{port}||")) && l.split('|').nth(2).is_some_and(|x| x.ends_with(d)))
                });
                assert!(both, "{port} is not seen in both directions:\n{table}");
            }
            assert!(!table.lines().any(|l| l.contains("Malformed")), "{table}");
            // The tunnel packets are understood down to the echo requests inside.
            let inside = read("tshark", &["-r", &name, "-Y", "ip.proto == 41 && icmpv6.type == 128", "-T", "fields", "-e", "ipv6.dst"]);
            assert!(inside.contains("2001:db8:b::1"), "{inside}");
        }
        if have("tcpdump") {
            let lines = read("tcpdump", &["-nn", "-r", &name]);
            assert!(lines.contains("ICMP6, echo request"), "{lines}");
        }
        // Our own reading of the same file.
        let told = bed.duet("r1").duet(&format!("explain --pcap {name} 1")).unwrap();
        assert!(told.contains("├─ in"), "{told}");
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn lines_filters_counts_and_rotation() {
        let bed = bed().unwrap();
        ping(&bed);
        let r1 = bed.duet("r1");
        let mut capture = Watching::start(PROGRAM, r1, "capture icmp6 and host 2001:db8:b::1 at rx -c 4").unwrap();
        capture.hear("capturing icmp6 and host").unwrap();
        let ping4 = Ping::new(ip("2001:db8:b::1")).count(4);
        assert!(bed.host("a").ping(&ping4).unwrap().all_answered());
        let (out, errors) = capture.end().unwrap();
        let lines = String::from_utf8(out.stdout).unwrap();
        assert_eq!(lines.lines().count(), 4, "{lines}{errors}");
        assert!(lines.lines().all(|l| l.contains("  in   ") && l.contains(" icmp6 echo re")), "{lines}");
        assert!(lines.contains("left     in   2001:db8:a::1 > 2001:db8:b::1 icmp6 echo request hlim 64"), "{lines}");
        assert!(errors.contains("4 packets captured"), "{errors}");

        let base = bed.dir().join("turn");
        let words = format!("capture icmp6 at rx,tx -w {} -C 1k -W 3 -c 30", base.display());
        let mut capture = Watching::start(PROGRAM, r1, &words).unwrap();
        capture.hear("capturing").unwrap();
        let ping20 = Ping::new(ip("2001:db8:b::1")).count(20);
        assert!(bed.host("a").ping(&ping20).unwrap().all_answered());
        let (out, errors) = capture.end().unwrap();
        assert!(out.status.success(), "{errors}");
        for n in 0..3 {
            let size = std::fs::metadata(format!("{}{n}", base.display())).unwrap().len();
            assert!((200..3000).contains(&size), "file {n} has {size} bytes");
        }
        // JSON, a line per packet.
        let mut capture = Watching::start(PROGRAM, r1, "capture at tx -j -c 2").unwrap();
        let mut pings = Vec::new();
        while pings.len() < 40 && bed.stats("r1").unwrap().transmitted < u64::MAX {
            pings.push(bed.host("a").ping(&Ping::new(ip("2001:db8:b::1"))).unwrap().all_answered());
            if capture.ended() {
                break;
            }
        }
        let (out, _) = capture.end().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let values: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(values.len(), 2);
        assert!(values.iter().all(|v| v["at"] == "tx" && v["data"].as_str().is_some_and(|d| d.len() > 80)), "{text}");
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn every_end_is_one_clear_line() {
        let mut bed = bed().unwrap();
        ping(&bed);
        // A full disk.
        let mut full = Watching::start(PROGRAM, bed.duet("r1"), "capture -w /dev/full").unwrap();
        full.hear("capturing").unwrap();
        ping(&bed);
        let (out, errors) = full.end().unwrap();
        assert_eq!(out.status.code(), Some(2), "{errors}");
        assert!(errors.lines().any(|l| l == "Capture ended: cannot write /dev/full: No space left on device"), "{errors}");
        // One that fills up on the way: what is there can be read.
        let small = bed.dir().join("small");
        std::fs::create_dir(&small).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(&small).status();
        assert!(mounted.is_ok_and(|s| s.success()), "a small file system");
        let file = small.join("x.pcapng").display().to_string();
        let mut full = Watching::start(PROGRAM, bed.duet("r1"), &format!("capture -w {file}")).unwrap();
        full.hear("capturing").unwrap();
        let large = Ping { size: 1400, ..Ping::new(ip("2001:db8:b::1")).count(20) };
        while !full.ended() {
            let _ = bed.host("a").ping(&large).unwrap();
        }
        let (out, errors) = full.end().unwrap();
        assert_eq!(out.status.code(), Some(2), "{errors}");
        assert!(errors.contains(&format!("Capture ended: cannot write {file}: No space left on device")), "{errors}");
        if have("tshark") {
            let lines = read("tshark", &["-r", &file]);
            assert!(lines.lines().count() > 20 && lines.contains("Echo (ping) request"), "{lines}");
        }
        // A reader that has had enough.
        let mut pipe = Watching::start(PROGRAM, bed.duet("r1"), "capture -w -").unwrap();
        pipe.hear("capturing").unwrap();
        drop(pipe.stdout());
        ping(&bed);
        let (out, errors) = pipe.end().unwrap();
        assert_eq!(out.status.code(), Some(2), "{errors}");
        assert!(errors.contains("Capture ended: nobody reads standard output any more."), "{errors}");
        // A file that cannot be.
        let refused = bed.duet("r1").ask(&["capture", "-w", "/nonexistent/x"], b"").unwrap();
        assert_eq!((refused.code, refused.stderr.trim_end()), (2, "Cannot open /nonexistent/x: No such file or directory"));
        // A filter that only the router can judge.
        let refused = bed.duet("r1").ask(&["capture", "on", "nowhere"], b"").unwrap();
        assert_eq!(refused.code, 2);
        assert!(refused.stderr.contains("  on nowhere\n     ^^^^^^^ expected the name of a port"), "{}", refused.stderr);
        // Nothing of these is left behind: the router copies for nobody any more.
        ping(&bed);
        // A router that vanishes.
        let mut gone = Watching::start(PROGRAM, bed.duet("r1"), "capture").unwrap();
        gone.hear("capturing").unwrap();
        let (status, log) = bed.take("r1").stop().unwrap();
        assert!(status.success(), "{log}");
        let (out, errors) = gone.end().unwrap();
        assert!(errors.lines().count() <= 4 && errors.contains("captured"), "{errors}");
        assert!(out.status.code().is_some(), "{errors}");
        // One that was never there.
        let output = Command::new(PROGRAM).args(["capture"]).env("DUET_SOCKET", "/nonexistent/socket").stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        bed.finish().unwrap();
    }
}
