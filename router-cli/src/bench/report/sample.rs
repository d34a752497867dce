//! A made-up result, for tests of everything that shows one.

use super::*;

pub(crate) fn report() -> Report {
    let series = |m: f64| Series::of(vec![m * 0.95, m, m * 1.05]);
    let cell = |size: &str, dut: &str, mpps: f64, us: f64| {
        let probes: Vec<Option<u64>> =
            (0..1000u64).map(|i| Some((us * 1e3) as u64 + (us * 1e6) as u64 / (1001 - i))).collect();
        Cell {
            path: "native4".to_owned(),
            size: size.to_owned(),
            dut: dut.to_owned(),
            routes: 1,
            peak: series(mpps),
            throughput: series(mpps * 0.8),
            ratio: (dut != "kernel-threaded").then(|| Ratio {
                to: "kernel-threaded".to_owned(),
                peak: series(mpps),
                throughput: series(mpps),
                tcp: None,
            }),
            latency: Some(Latency {
                load_mpps: mpps / 2.0,
                p50_us: series(us).unwrap_or_default(),
                p99_us: series(us * 4.0).unwrap_or_default(),
                p999_us: series(us * 9.0).unwrap_or_default(),
                delays: Delays::of(&probes),
            }),
            loss: [0.5, 1.0, 1.5, 2.0]
                .iter()
                .map(|x| LossPoint {
                    offered_mpps: *x,
                    forwarded_mpps: x.min(mpps),
                    loss_percent: round((x - mpps * 0.65625).max(0.0) / x * 100.0),
                })
                .collect(),
            burst: series(mpps * 1000.0),
            reset: series(0.2),
            tcp: series(10.0),
            overload: Some(Overload {
                seconds: 60.0,
                peak_mpps: mpps,
                offered_mpps: mpps * 10.0,
                goodput: series(mpps * 0.97).unwrap_or_default(),
                answer_ms: series(8.0),
                memory_kib: Some([20_000, 20_100]),
                neighbors: Some([9, 9]),
            }),
            ..Cell::default()
        }
    };
    Report {
        bench: "wire".to_owned(),
        schema: SCHEMA,
        version: "0.1.0".to_owned(),
        commit: "0123abc".to_owned(),
        date: "2026-11-22T10:00:00Z".to_owned(),
        command: vec!["duet".to_owned(), "bench".to_owned(), "wire".to_owned(), "<&\">".to_owned()],
        machine: Machine { cpu: "Some CPU".to_owned(), cpus: 2, ghz: 2.5, kernel: "6.1".to_owned() },
        optimized: true,
        settings: Settings {
            flows: 256,
            table: "one route".to_owned(),
            workers: 1,
            seconds: 1.0,
            repeat: 3,
            load_percent: 50.0,
            probes_per_second: 1000,
            dut_cpus: vec![1],
            generator: "AF_PACKET, sendmmsg".to_owned(),
            sink: "XDP in the driver".to_owned(),
            ..Settings::default()
        },
        roof: vec![Roof { path: "native4".to_owned(), size: "64".to_owned(), mpps: 3.0 }],
        cells: vec![
            cell("64", "kernel-threaded", 1.0, 9.0),
            cell("64", "xdp", 2.0, 5.0),
            cell("imix", "kernel-threaded", 0.9, 12.0),
            cell("imix", "xdp", 1.8, 6.0),
        ],
        noise: Noise { foreign_percent: 1.0, steal_percent: 0.0, worst_foreign_percent: 2.0, stalled_percent: 0.1 },
        mismatch: None,
        warnings: vec!["a warning <of> sorts".to_owned()],
    }
}
