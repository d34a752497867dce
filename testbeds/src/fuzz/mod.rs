//! Fuzz targets: each takes any bytes and must come back without a panic. `testbeds/fuzz` drives them by coverage; the test
//! `fuzz_corpora` replays the committed corpora and every finding in an ordinary test run.

mod control;
mod filter;
pub mod forward;
mod listener;
mod parse;
mod stage;
mod state;
mod strangers;
mod translate;
mod tunnels;

/// A target: any bytes in, a panic for a broken promise.
pub type Target = fn(&[u8]);

/// Every target by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("parse", parse::packets),
    ("forward", forward::worker),
    ("neighbor", state::neighbor),
    ("reassembly", state::reassembly),
    ("config", control::config),
    ("control", control::protocol),
    ("capture_filter", control::capture_filter),
    ("words", control::words),
    ("filter", filter::rules),
    ("tunnels", tunnels::tunnels),
    ("translate", translate::translators),
    ("listener", listener::multicast),
    ("broker", strangers::broker),
    ("wireguard", strangers::wireguard),
    ("udp", strangers::udp),
    ("pcap", strangers::pcap),
];

/// The target with this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|(n, _)| *n == name).map(|(_, t)| *t)
}

/// Takes numbers and pieces off the front of an input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn word(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes([self.byte()?, self.byte()?]))
    }

    /// Up to `n` bytes.
    fn piece(&mut self, n: usize) -> &'a [u8] {
        let (piece, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        piece
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_takes_nothing_and_little() {
        for (name, target) in TARGETS {
            println!("{name}");
            target(&[]);
            for first in 0..=255 {
                target(&[first, 2, 0, 0x20, 17, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0x45]);
            }
        }
    }
}
