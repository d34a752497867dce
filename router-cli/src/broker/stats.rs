//! What the broker could not listen to, counted by cause: a flood shows here before anybody complains.

use crate::control::BrokerStats;
use std::sync::atomic::{AtomicU64, Ordering};

/// One counter.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All of them; [`BrokerStats`] says what each is.
#[derive(Debug, Default)]
pub struct Stats {
    /// TSP messages over UDP.
    pub tsp_datagrams: Count,
    /// TSP connections.
    pub tsp_connections: Count,
    /// Lost: the queue from the tunnels' port was full.
    pub tsp_queue_full: Count,
    /// Lost: too many of one peer.
    pub tsp_rate: Count,
    /// Lost: too many were being answered.
    pub tsp_busy: Count,
    /// Lost: too many conversations or connections.
    pub tsp_full: Count,
    /// HTTP requests.
    pub http_requests: Count,
    /// HTTP connections closed at once.
    pub http_full: Count,
    /// HTTP requests refused: too many of one peer.
    pub http_rate: Count,
    /// Work refused: too much was waiting.
    pub busy: Count,
}

impl Stats {
    /// As they are shown.
    pub fn shown(&self) -> BrokerStats {
        BrokerStats {
            tsp_datagrams: self.tsp_datagrams.get(),
            tsp_connections: self.tsp_connections.get(),
            tsp_queue_full: self.tsp_queue_full.get(),
            tsp_rate: self.tsp_rate.get(),
            tsp_busy: self.tsp_busy.get(),
            tsp_full: self.tsp_full.get(),
            http_requests: self.http_requests.get(),
            http_full: self.http_full.get(),
            http_rate: self.http_rate.get(),
            busy: self.busy.get(),
        }
    }
}
