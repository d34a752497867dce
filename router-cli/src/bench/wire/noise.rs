//! Who else was at work on the machine: processor time of foreign programs, and time that the hypervisor took.

use std::fs;

/// Processor time so far, in the kernel's ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Ticks {
    /// Programs and kernel, without interrupts.
    work: u64,
    /// Interrupts and softirqs.
    irq: u64,
    /// Taken by the hypervisor.
    steal: u64,
    /// Of all processors together, idle time included.
    all: u64,
    /// Of our own processes.
    own: u64,
}

/// Shares of one processor's time that others had.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Noise {
    pub foreign: f64,
    pub steal: f64,
}

impl Ticks {
    /// The present figures; `own` are the processes of the measurement.
    pub fn read(own: &[u32]) -> Ticks {
        let mut t = fs::read_to_string("/proc/stat").map(|text| machine(&text)).unwrap_or_default();
        let of = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/stat")).map(|s| process(&s)).unwrap_or(0);
        t.own = own.iter().map(of).sum();
        t
    }

    /// What others had since `before`, on a machine with `cpus` processors.
    pub fn since(self, before: Ticks, cpus: usize) -> Noise {
        let elapsed = self.all.saturating_sub(before.all) as f64 / cpus.max(1) as f64;
        if elapsed <= 0.0 {
            return Noise::default();
        }
        let own = self.own.saturating_sub(before.own);
        let work = self.work.saturating_sub(before.work);
        let irq = self.irq.saturating_sub(before.irq);
        // Some kernels count softirq time to the process that it interrupts, others do not. The smaller reading is
        // certain to be somebody else's.
        let foreign = work.saturating_sub(own).min((work + irq).saturating_sub(own));
        Noise { foreign: foreign as f64 / elapsed, steal: self.steal.saturating_sub(before.steal) as f64 / elapsed }
    }
}

/// A process and all that descend from it.
pub(super) fn family(root: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> =
        pids.filter_map(|p| Some((p, parent(&fs::read_to_string(format!("/proc/{p}/stat")).ok()?)?))).collect();
    let mut found = vec![root];
    let mut i = 0;
    while let Some(of) = found.get(i).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
        i += 1;
    }
    found
}

fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// The first line of /proc/stat: user nice system idle iowait irq softirq steal (guest time is in user).
fn machine(text: &str) -> Ticks {
    let line = text.lines().next().unwrap_or_default();
    let n: Vec<u64> = line.split_whitespace().skip(1).map_while(|w| w.parse().ok()).collect();
    let at = |i: usize| n.get(i).copied().unwrap_or(0);
    Ticks { work: at(0) + at(1) + at(2), irq: at(5) + at(6), steal: at(7), all: (0..8).map(at).sum(), own: 0 }
}

/// utime and stime of /proc/PID/stat. The name may hold anything, even parentheses.
fn process(text: &str) -> u64 {
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().skip(11).take(2).filter_map(|w| w.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_what_is_not_ours() {
        let before = machine("cpu  100 0 50 800 5 10 20 3 0 0\ncpu0 1 2 3\n");
        let mut after = machine("cpu  160 0 90 860 5 10 20 23 0 0\n");
        assert_eq!((before.work, before.irq, before.steal), (150, 30, 3));
        after.own = 60;
        // 180 ticks went by on two processors; 100 of work, 60 ours.
        let noise = after.since(before, 2);
        assert!((noise.foreign - 40.0 / 90.0).abs() < 1e-9 && (noise.steal - 20.0 / 90.0).abs() < 1e-9, "{noise:?}");
        assert_eq!(before.since(before, 2), Noise::default());
    }

    #[test]
    fn a_process_with_a_strange_name() {
        let line = "77 (a) b (c)) R 1 2 3 4 5 6 7 8 9 10 21 13 0 0 20 0 1 0";
        assert_eq!(process(line), 34);
        assert_eq!((process(""), parent(line), parent("")), (0, Some(1), None));
        assert!(family(std::process::id()).contains(&std::process::id()));
        assert!(Ticks::read(&[std::process::id()]).all > 0);
    }
}
