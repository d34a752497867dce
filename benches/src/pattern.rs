//! Destination patterns by name. What each one is, number for number, says the README.

use crate::table::Table;
use crate::traffic;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// In which order destinations come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// Uniformly over the space that the table covers.
    Uniform,
    /// A random route, then a random host in it.
    Prefix,
    /// Zipf(1.0) over destinations of `prefix`.
    Zipf,
    /// Destinations of `prefix`, sorted.
    Sequential,
}

impl Pattern {
    /// All of them.
    pub const ALL: [Pattern; 4] = [Pattern::Uniform, Pattern::Prefix, Pattern::Zipf, Pattern::Sequential];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Pattern::Uniform => "uniform",
            Pattern::Prefix => "prefix",
            Pattern::Zipf => "zipf",
            Pattern::Sequential => "sequential",
        }
    }

    /// `n` destinations within the routes of a table of one family. A default route covers everything and says nothing,
    /// so it counts only where there is no other. Empty for an empty table.
    pub fn destinations(self, table: &Table, n: usize) -> Vec<IpAddr> {
        let proper: Table = table.iter().filter(|(net, _)| net.prefix_len() > 0).copied().collect();
        let table = if proper.is_empty() { table } else { &proper };
        if table.is_empty() {
            return Vec::new();
        }
        let mut v = match self {
            // The share of the space is counted in units that leave a default route no room.
            Pattern::Uniform if !proper.is_empty() => traffic::uniform(table, n, 5),
            Pattern::Zipf => traffic::zipf(table, n, 3),
            _ => traffic::per_route(table, n, 3),
        };
        if self == Pattern::Sequential {
            v.sort_unstable();
        }
        v
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{synthetic_v4, synthetic_v6};

    #[test]
    fn every_destination_has_a_route() {
        for table in [synthetic_v4(300, 4), synthetic_v6(300, 6)] {
            for p in Pattern::ALL {
                let all = p.destinations(&table, 200);
                assert_eq!(all.len(), 200);
                assert!(all.iter().all(|a| table.iter().any(|(net, _)| net.contains(a))), "{p:?}");
            }
            assert!(Pattern::Sequential.destinations(&table, 200).is_sorted());
        }
    }

    #[test]
    fn tables_at_the_edge() {
        for p in Pattern::ALL {
            assert!(p.destinations(&Table::new(), 9).is_empty());
            for net in ["0.0.0.0/0", "::/0", "10.1.2.3/32", "2001:db8::1/128"] {
                let table: Table = vec![(net.parse().unwrap(), 1)];
                assert!(p.destinations(&table, 9).iter().all(|a| table[0].0.contains(a)), "{net} {p:?}");
            }
        }
    }
}
