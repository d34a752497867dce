//! What the threads of a running router may still do: workers nothing, the control thread what ports need; and that the
//! router forwards, adds ports and cleans up all the same.

use router_io::sandbox_test;
use std::collections::BTreeMap;
use testbeds::lab::Dut::Duet;
use testbeds::lab::check::Pair;
use testbeds::lab::{Bed, RouterConfig};

const PROGRAM: &str = env!("CARGO_BIN_EXE_duet-under-test");

/// CAP_NET_ADMIN, CAP_NET_RAW, CAP_IPC_LOCK and CAP_BPF of `linux/capability.h`.
const PORTS: u64 = 1 << 12 | 1 << 13 | 1 << 14 | 1 << 39;

/// All capabilities that the threads of a process have or could take, by thread name.
fn capabilities(pid: u32) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
            line.trim().to_owned()
        };
        let all = ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"].map(|f| u64::from_str_radix(&field(f), 16).unwrap());
        *found.entry(field("Name:")).or_default() |= all.into_iter().fold(0, |a, b| a | b);
    }
    found
}

sandbox_test! {
    fn threads_keep_no_more_capabilities_than_they_need() {
        let mut bed = Bed::row(PROGRAM, &["a", "r", "b"], &[]).unwrap();
        bed.ready().unwrap();
        bed.end("a", &["192.0.2.1/25"], &["default via 192.0.2.2"]).unwrap();
        bed.end("b", &["192.0.2.129/25"], &["default via 192.0.2.130"]).unwrap();
        let left = RouterConfig::new("r").port("left", &["192.0.2.2/25"]);
        bed.router(Duet, &left).unwrap();
        let pid = bed.duet("r").pid();
        let check = || {
            let all = capabilities(pid);
            let workers = all.iter().filter(|(name, _)| name.starts_with("worker"));
            assert!(workers.clone().count() > 0 && workers.clone().all(|(_, caps)| *caps == 0), "{all:x?}");
            assert_eq!(all.values().fold(0, |a, b| a | b), PORTS, "{all:x?}");
        };
        check();
        // Ports of other kinds and devices, added later.
        let both = left.port("right", &["192.0.2.130/25"]).port_of("tun", "t0", &["203.0.113.1/24"], "");
        std::fs::write(bed.duet("r").config(), both.to_toml()).unwrap();
        let answer = bed.duet("r").duet("reload").unwrap();
        assert!(answer.contains("port right added") && answer.contains("port t0 added"), "{answer}");
        Pair::new(bed.host("a"), bed.host("b"), "192.0.2.1", "192.0.2.129").all(1500, &["192.0.2.2", "192.0.2.129"]).unwrap();
        check();
        // Nothing may be left on the devices, which is the control thread's work at the end.
        bed.finish().unwrap();
    }
}
