//! What the kernel itself counted on a device: the independent figure beside a generator's and a sink's.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Counters of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// Frames received.
    pub rx_packets: u64,
    /// Frames received and dropped by driver or stack.
    pub rx_dropped: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Frames not sent.
    pub tx_dropped: u64,
}

impl DeviceCounters {
    /// What was counted since `before`.
    pub fn since(self, before: DeviceCounters) -> DeviceCounters {
        DeviceCounters {
            rx_packets: self.rx_packets.wrapping_sub(before.rx_packets),
            rx_dropped: self.rx_dropped.wrapping_sub(before.rx_dropped),
            tx_packets: self.tx_packets.wrapping_sub(before.tx_packets),
            tx_dropped: self.tx_dropped.wrapping_sub(before.tx_dropped),
        }
    }
}

/// Reads the counters of one device again and again, from whatever thread: the open file belongs to the network namespace
/// in which it was opened.
#[derive(Debug)]
pub struct Reader {
    file: File,
    device: String,
}

impl Reader {
    /// Of a device in the calling thread's network namespace.
    pub fn open(device: &str) -> io::Result<Self> {
        let mut reader = Reader { file: File::open("/proc/thread-self/net/dev")?, device: device.to_owned() };
        reader.read().map(|_| reader)
    }

    /// The present counters.
    pub fn read(&mut self) -> io::Result<DeviceCounters> {
        let mut text = String::new();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_string(&mut text)?;
        parse(&text, &self.device).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }
}

fn parse(text: &str, device: &str) -> Option<DeviceCounters> {
    let line = text.lines().find_map(|l| l.trim_start().strip_prefix(device)?.strip_prefix(':'))?;
    let n: Vec<u64> = line.split_whitespace().map_while(|w| w.parse().ok()).collect();
    let at = |i: usize| n.get(i).copied();
    Some(DeviceCounters { rx_packets: at(1)?, rx_dropped: at(3)?, tx_packets: at(9)?, tx_dropped: at(11)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_net_dev() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
                    face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop\n    \
                    lo:       1       2    3    4    5     6          7         8        9      10   11   12    13\n  \
                    lo0: 100 200 0 0 0 0 0 0 300 400 0 7 0 0 0 0\n";
        let c = parse(text, "lo0").unwrap();
        assert_eq!(c, DeviceCounters { rx_packets: 200, rx_dropped: 0, tx_packets: 400, tx_dropped: 7 });
        assert_eq!(parse(text, "lo").unwrap().tx_packets, 10);
        assert_eq!(parse(text, "eth0"), None);
        assert!(Reader::open("nosuch").is_err());
        let mut lo = Reader::open("lo").unwrap();
        assert!(lo.read().unwrap().rx_packets <= lo.read().unwrap().rx_packets);
    }
}
