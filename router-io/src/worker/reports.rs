//! The queue of reports from all workers to the control thread: bounded, and shared fairly among the ports where frames came in.
//!
//! A port may have as many punts waiting as there are places left (dynamic thresholds, Choudhury and Hahne 1998, with alpha 1):
//! alone it gets half of the queue, two that flood get a third each, n of them 1/(n+1). One more share always stays free, so
//! the first punts of a port that is quiet find a place whatever the others do. Ports have no queues of their own: order
//! within the queue is that of arrival, and what waits before a frame is bounded for all.

use super::Report;
use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded, unbounded};
use router_core::drop_reason::DropReason;
use router_core::port::PortId;
use router_core::worker::Punt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts of places taken. Ports and tunnels beyond share one with others.
const SHARES: usize = 1024;

/// How many places the punts of each port take.
type Shares = Arc<[AtomicUsize]>;

fn share(shares: &Shares, port: PortId) -> &AtomicUsize {
    &shares[port.index() % SHARES]
}

/// The end of a worker.
#[derive(Clone)]
pub struct ReportSender {
    queue: Sender<Report>,
    shares: Shares,
}

/// The end of the control thread.
pub struct ReportReceiver {
    queue: Receiver<Report>,
    shares: Shares,
}

/// A queue with so many places; None: without bound, and without shares.
pub fn queue(places: Option<usize>) -> (ReportSender, ReportReceiver) {
    let (tx, rx) = places.map_or_else(unbounded, bounded);
    let shares: Shares = (0..SHARES).map(|_| AtomicUsize::new(0)).collect();
    (ReportSender { queue: tx, shares: Arc::clone(&shares) }, ReportReceiver { queue: rx, shares })
}

impl ReportSender {
    /// Why a punt of this port would find no place now. Other workers may change that at any time.
    pub fn refusal(&self, port: PortId) -> Option<DropReason> {
        let free = self.queue.capacity()?.saturating_sub(self.queue.len());
        match share(&self.shares, port).load(Ordering::Relaxed) {
            _ if free == 0 => Some(DropReason::PuntQueueFull),
            mine if mine >= free => Some(DropReason::PuntShareFull),
            _ => None,
        }
    }

    /// Hands a punt over, or gives it back with the reason.
    // A worker calls this: a box would be an allocation for each frame of a flood.
    #[expect(clippy::result_large_err)]
    pub fn punt(&self, punt: Punt) -> Result<(), (Punt, DropReason)> {
        let port = punt.frame().meta.port;
        if let Some(reason) = self.refusal(port) {
            return Err((punt, reason));
        }
        // Before the receiver can take it off again.
        share(&self.shares, port).fetch_add(1, Ordering::Relaxed);
        match self.queue.try_send(Report::Punt(punt)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(report) | TrySendError::Disconnected(report)) => {
                share(&self.shares, port).fetch_sub(1, Ordering::Relaxed);
                match report {
                    Report::Punt(punt) => Err((punt, DropReason::PuntQueueFull)),
                    Report::Event(..) => Ok(()),
                }
            }
        }
    }

    /// Tells of an event of a port; false when there is no place.
    pub fn tell(&self, port: PortId, event: crate::port::PortEvent) -> bool {
        self.queue.try_send(Report::Event(port, event)).is_ok()
    }
}

impl ReportReceiver {
    /// Takes the oldest.
    pub fn take(&self) -> Result<Report, TryRecvError> {
        let report = self.queue.try_recv()?;
        if let Report::Punt(punt) = &report {
            share(&self.shares, punt.frame().meta.port).fetch_sub(1, Ordering::Relaxed);
        }
        Ok(report)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::PortEvent;
    use router_core::frame::Frame;

    const PLACES: usize = 1024;

    /// Lets a port punt until it is refused: how many were taken, and why no more.
    fn flood(tx: &ReportSender, port: u32) -> (usize, DropReason) {
        for n in 0..2 * PLACES {
            if let Err((punt, reason)) = tx.punt(punt(port)) {
                assert_eq!(punt.frame().meta.port, PortId(port));
                return (n, reason);
            }
        }
        panic!("no bound");
    }

    fn punt(port: u32) -> Punt {
        let mut frame = Frame::from_slice(&[1, 2, 3]);
        frame.meta.port = PortId(port);
        Punt::arp(frame)
    }

    #[test]
    fn a_flood_at_one_port_leaves_places_for_the_others() {
        let (tx, rx) = queue(Some(PLACES));
        assert_eq!(flood(&tx, 1), (PLACES / 2, DropReason::PuntShareFull));
        // One that comes later gets half of what is left, and one more still has a place.
        assert_eq!(flood(&tx, 2), (PLACES / 4, DropReason::PuntShareFull));
        assert!(tx.punt(punt(3)).is_ok());
        assert!(tx.tell(PortId(1), PortEvent::Overrun(1)), "events are nobody's share");
        // As the queue moves on, both floods come to a third each.
        for _ in 0..10 * PLACES {
            rx.take().unwrap();
            let _ = (tx.punt(punt(2)), tx.punt(punt(1)));
        }
        let of = |port| share(&tx.shares, PortId(port)).load(Ordering::Relaxed);
        assert!(of(1).abs_diff(PLACES / 3) <= 2 && of(2).abs_diff(PLACES / 3) <= 2, "{} and {}", of(1), of(2));
        while rx.take().is_ok() {}
        assert!(tx.shares.iter().all(|s| s.load(Ordering::Relaxed) == 0), "what was taken off is free again");
        assert!(rx.is_empty() && tx.refusal(PortId(1)).is_none());
    }

    #[test]
    fn any_number_of_floods_leave_a_place() {
        let (tx, _rx) = queue(Some(PLACES));
        for port in 0..10 {
            flood(&tx, port);
        }
        // Ten halves of what is left are all of 1,024 but one.
        assert_eq!(tx.refusal(PortId(11)), None);
        assert!(tx.punt(punt(11)).is_ok());
        assert_eq!(tx.refusal(PortId(12)), Some(DropReason::PuntQueueFull));
    }

    #[test]
    fn without_bound_nothing_is_refused_and_a_lost_control_thread_refuses_all() {
        let (tx, rx) = queue(None);
        for _ in 0..5 * PLACES {
            tx.punt(punt(1)).unwrap_or_else(|(_, reason)| panic!("{reason}"));
        }
        drop(rx);
        assert_eq!(tx.punt(punt(1)).map_err(|(_, reason)| reason), Err(DropReason::PuntQueueFull));
        let (tx, _rx) = queue(Some(1));
        assert!(tx.punt(punt(1)).is_ok());
        assert!(!tx.tell(PortId(1), PortEvent::Overrun(1)));
    }
}
