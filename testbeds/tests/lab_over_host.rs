//! Tunnels over the host's own stack, by `rawip` and `udp` ports: TCP with its bytes compared, pings of every size, UDP, path
//! MTU discovery across a narrow network, between two of our routers.

use router_io::sandbox_test;
use testbeds::desk::eventually;
use testbeds::lab::Dut::{Duet, Kernel};
use testbeds::lab::check::Pair;
use testbeds::lab::{Bed, Result, RouterConfig, tools};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

#[derive(Clone, Copy)]
struct Case {
    /// Kind of the port that carries the outer packets, and what belongs to it.
    kind: &'static str,
    port: &'static str,
    /// Lines of the tunnel.
    tunnel: &'static str,
    six_outside: bool,
    four: bool,
    six: bool,
    overhead: u32,
}

const fn rawip(tunnel: &'static str, six_outside: bool, four: bool, six: bool, overhead: u32) -> Case {
    Case { kind: "rawip", port: "", tunnel, six_outside, four, six, overhead }
}

const fn udp(tunnel: &'static str, six_outside: bool, four: bool, six: bool, overhead: u32) -> Case {
    Case { kind: "udp", port: "listen = [6080]\n", tunnel, six_outside, four, six, overhead }
}

impl Case {
    /// Outer addresses: r1, the network's router on both sides, r2.
    fn outer(&self) -> [&'static str; 4] {
        match self.six_outside {
            true => ["2001:db8:10::2", "2001:db8:10::1", "2001:db8:20::1", "2001:db8:20::2"],
            false => ["198.51.100.2", "198.51.100.1", "203.0.113.1", "203.0.113.2"],
        }
    }

    fn length(&self) -> u8 {
        if self.six_outside { 64 } else { 24 }
    }

    fn router(&self, first: bool) -> RouterConfig {
        let [r1, _, _, r2] = self.outer();
        let (name, inside, local, remote, own, far) = match first {
            true => ("r1", "left", r1, r2, ["2001:db8:a::2/64", "192.0.2.2/25"], ["2001:db8:b::/64", "192.0.2.128/25"]),
            false => {
                ("r2", "right", r2, r1, ["2001:db8:b::2/64", "192.0.2.130/25"], ["2001:db8:a::/64", "192.0.2.0/25"])
            }
        };
        let want = [self.six, self.four];
        let addrs: Vec<&str> = own.iter().zip(want).filter(|(_, w)| *w).map(|(a, _)| *a).collect();
        let mut c = RouterConfig::new(name).port(inside, &addrs).port_of(self.kind, "wan", &[], self.port).extra(
            &format!("[tunnel.site]\nlocal = \"{local}\"\nremote = \"{remote}\"\ndev = \"wan\"\n{}\n", self.tunnel),
        );
        for (net, _) in far.iter().zip(want).filter(|(_, w)| *w) {
            c = c.route(&format!("{net} dev site"));
        }
        c
    }

    fn bed(&self, middle: u32) -> Result<Bed> {
        let mut bed = Bed::row(PROGRAM, &["a", "r1", "isp", "r2", "b"], &[1500, 1500, middle, 1500])?;
        bed.ready()?;
        let [r1, left, right, r2] = self.outer();
        let n = self.length();
        let pick = |list: [&'static str; 2]| -> Vec<&'static str> {
            list.into_iter().zip([self.six, self.four]).filter(|(_, w)| *w).map(|(a, _)| a).collect()
        };
        bed.end(
            "a",
            &pick(["2001:db8:a::1/64", "192.0.2.1/25"]),
            &pick(["::/0 via 2001:db8:a::2", "0.0.0.0/0 via 192.0.2.2"]),
        )?;
        bed.end(
            "b",
            &pick(["2001:db8:b::1/64", "192.0.2.129/25"]),
            &pick(["::/0 via 2001:db8:b::2", "0.0.0.0/0 via 192.0.2.130"]),
        )?;
        let isp =
            RouterConfig::new("isp").port("left", &[&format!("{left}/{n}")]).port("right", &[&format!("{right}/{n}")]);
        bed.router(Kernel, &isp)?;
        for (host, dev, addr, gateway) in [("r1", "right", r1, left), ("r2", "left", r2, right)] {
            bed.net.addr(host, dev, &format!("{addr}/{n}"))?;
            bed.ready()?;
            bed.net.route(host, &format!("default via {gateway}"))?;
        }
        bed.router(Duet, &self.router(true))?;
        bed.router(Duet, &self.router(false))?;
        Ok(bed)
    }

    fn run(self, middle: u32) {
        println!("=== {} over {}", self.tunnel.replace('\n', ", "), self.kind);
        let bed = self.bed(middle).unwrap();
        let inner = middle - self.overhead;
        let pair = |a, b| Pair::new(bed.host("a"), bed.host("b"), a, b);
        let six = self.six.then(|| pair("2001:db8:a::1", "2001:db8:b::1"));
        let four = self.four.then(|| pair("192.0.2.1", "192.0.2.129"));
        for pair in six.into_iter().chain(four) {
            pair.tcp().unwrap();
            pair.reachable().unwrap();
            // One packet teaches the host's stack, the next one makes the stack tell us.
            pair.discovers_mtu(inner, 2).unwrap();
            pair.swapped().discovers_mtu(inner, 2).unwrap();
            pair.every_size().unwrap();
            pair.udp().unwrap();
            pair.tcp().unwrap();
            pair.swapped().tcp().unwrap();
        }
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn rawip_ipv4_and_ipv6_in_ipv6() {
        rawip("mode = \"4in6\"", true, true, false, 40).run(1420);
        rawip("mode = \"6in6\"", true, false, true, 40).run(1420);
    }
}

sandbox_test! {
    fn rawip_both_in_ipv6() {
        rawip("mode = \"any-in-6\"", true, true, true, 40).run(1420);
    }
}

sandbox_test! {
    fn rawip_ipv4_and_both_in_ipv4() {
        rawip("mode = \"4in4\"", false, true, false, 20).run(1420);
        rawip("mode = \"any-in-4\"", false, true, true, 20).run(1420);
    }
}

sandbox_test! {
    fn rawip_gre_over_both() {
        rawip("mode = \"gre\"\nkey = 4711\nseq = true\ncsum = true", false, true, true, 36).run(1420);
        rawip("mode = \"gre6\"\nkey = 7", true, true, true, 48).run(1420);
    }
}

sandbox_test! {
    fn udp_fou_over_ipv4() {
        udp("mode = \"6in4\"\nencap = \"fou\"\nencap_dport = 6080", false, false, true, 28).run(1420);
    }
}

sandbox_test! {
    fn udp_fou_wide() {
        udp("mode = \"6in4\"\nencap = \"fou\"\nencap_dport = 6080", false, false, true, 28).run(1500);
    }
}

sandbox_test! {
    fn udp_below_the_least_mtu_of_ipv6() {
        // The host fragments what is around packets of 1280 bytes, and the other puts it together.
        udp("mode = \"6in4\"\nencap = \"fou\"\nencap_dport = 6080\nmtu = 1280", false, false, true, 28).narrower(1284);
    }
}

sandbox_test! {
    fn udp_gue_over_ipv6() {
        udp("mode = \"any-in-6\"\nencap = \"gue\"\nencap_dport = 6080", true, true, true, 52).run(1420);
    }
}

sandbox_test! {
    fn udp_gre_in_gue() {
        udp("mode = \"gre\"\nencap = \"gue\"\nencap_dport = 6080\nencap_rport = 6080\nkey = 1", false, true, true, 40).run(1420);
    }
}

impl Case {
    /// Across a network that is too narrow for the tunnel.
    fn narrower(self, middle: u32) {
        let bed = self.bed(middle).unwrap();
        let pair = Pair::new(bed.host("a"), bed.host("b"), "2001:db8:a::1", "2001:db8:b::1");
        pair.wait_reachable(std::time::Duration::from_secs(5)).unwrap();
        pair.tcp().unwrap();
        pair.swapped().tcp().unwrap();
        pair.every_size_after_learning(1280).unwrap();
        bed.finish().unwrap();
    }
}

sandbox_test! {
    fn auto_over_the_host_takes_one_port_or_the_other() {
        let case = Case {
            kind: "rawip",
            port: "[port.out]\nkind = \"udp\"\nlisten = [6080]\n",
            tunnel: "mode = \"6in4\"\nencap = \"auto\"\nencap_dport = 6080\nencap_dev = \"out\"\nencap_retry = \"2s\"",
            six_outside: false,
            four: false,
            six: true,
            overhead: 20,
        };
        let keep = |own: u8, peer: u8| format!(
            "address = [\"2001:db8:f::{own}/64\"]\nkeepalive = {{ target = \"2001:db8:f::{peer}\", interval = \"200ms\", hold = 2 }}\n"
        );
        let mut bed = case.bed_with(1500, [&keep(1, 2), &keep(2, 1)]).unwrap();
        let path = |bed: &Bed, want: &str| {
            for r in ["r1", "r2"] {
                eventually(&format!("{r} sends by {want}"), || {
                    let json = bed.duet(r).json("-j -d tunnel show site").unwrap();
                    (json[0]["path"] == want && json[0]["state"] == "alive").then_some(())
                });
            }
        };
        let eat = "add table ip t; add chain ip t c { type filter hook forward priority 0; }; add rule ip t c ip protocol 41 drop";
        path(&bed, "6in4");
        let talk = |bed: &Bed| Pair::new(bed.host("a"), bed.host("b"), "2001:db8:a::1", "2001:db8:b::1").tcp().unwrap();
        talk(&bed);
        if tools::run(bed.host("isp"), "nft", &[eat]).is_some() {
            path(&bed, "fou");
            talk(&bed);
            tools::run(bed.host("isp"), "nft", &["delete table ip t"]);
            path(&bed, "6in4");
            talk(&bed);
        }
        // A router that is started anew while the other goes on is found again.
        let r2 = bed.take("r2");
        let toml = std::fs::read_to_string(r2.config()).unwrap();
        r2.stop().unwrap();
        bed.restart("r2", &toml).unwrap();
        path(&bed, "6in4");
        talk(&bed);
        bed.finish().unwrap();
    }
}

impl Case {
    /// As [`Case::bed`], with further lines of the tunnel's section for each end.
    fn bed_with(&self, middle: u32, more: [&str; 2]) -> Result<Bed> {
        let plain = Case { tunnel: "mode = \"6in4\"", ..rawip("", false, false, true, 20) };
        let mut bed = plain.bed(middle)?;
        for (first, name) in [(true, "r1"), (false, "r2")] {
            drop(bed.take(name));
            let more = more[usize::from(!first)];
            let mut toml = self.router(first).to_toml();
            toml = toml.replace(self.tunnel, &format!("{}\n{more}", self.tunnel));
            bed.restart(name, &toml)?;
        }
        Ok(bed)
    }
}
