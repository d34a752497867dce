//! How much fits into a tunnel, found out by questions of growing size where the network's ICMP errors are filtered: RFC 8899 with the
//! tunnel's echo requests as probe packets. All sizes are those of packets inside.

use super::mtu::{LearnedMtu, MtuCause};
use crate::time::{Duration, Instant};
use serde::{Deserialize, Serialize};

/// MAX_PROBES (RFC 8899 5.1.2): so many questions of one size unanswered, and the size does not pass.
const MAX_PROBES: u8 = 3;
/// The least PROBE_TIMER (5.1.1). It is three times the longest way there and back that was seen, if that is more.
const PROBE_TIMER: Duration = Duration::from_secs(1);
/// The greatest.
const LONGEST_PROBE_TIMER: Duration = Duration::from_secs(15);
/// Questions whose late answers are understood.
const HISTORY: usize = 8;
/// PMTU_RAISE_TIMER (5.1.1): the path may have become wider.
const RAISE_TIMER: Duration = Duration::from_secs(600);
/// CONFIRMATION_TIMER (5.1.1): the path may have become narrower.
const CONFIRMATION_TIMER: Duration = Duration::from_secs(15);
/// Whether what must pass passes again.
const ERROR_TIMER: Duration = Duration::from_secs(10);
/// BASE_PLPMTU (5.1.2): what nearly every path carries.
const BASE: u32 = 1280;

/// MTUs that links have, largest first (5.3.2 lets the sizes be chosen): Ethernet, jumbo frames, PPPoE, tunnels in each other, mobile networks.
const COMMON: [u32; 27] = [
    9216, 9000, 8192, 4352, 2048, 1500, 1492, 1488, 1480, 1472, 1468, 1460, 1454, 1450, 1440, 1430, 1420, 1412, 1400,
    1390, 1380, 1372, 1360, 1340, 1320, 1300, 1280,
];

/// Where the search is (RFC 8899 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SearchPhase {
    /// Whether the base size passes is not known.
    Base,
    /// The base size does not pass: the least possible is assumed.
    Error,
    /// Larger sizes are tried.
    Search,
    /// The largest that passes is known, and confirmed from time to time.
    Complete,
}

impl SearchPhase {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            SearchPhase::Base => "base",
            SearchPhase::Error => "error",
            SearchPhase::Search => "search",
            SearchPhase::Complete => "search complete",
        }
    }
}

/// A question as it was sent.
#[derive(Clone, Copy, Debug)]
struct Question {
    seq: u16,
    size: u32,
    at: Instant,
}

/// The search of one tunnel.
#[derive(Clone, Debug)]
pub(super) struct Search {
    phase: SearchPhase,
    /// The size in force, PLPMTU.
    size: u32,
    /// When it was confirmed last.
    confirmed: Instant,
    /// MIN_PLPMTU and MAX_PLPMTU.
    least: u32,
    most: u32,
    /// Bytes that the tunnel adds.
    overhead: u32,
    /// The smallest size that is known not to pass.
    fails: u32,
    /// The question that is under way: its size, and when it was asked last.
    asked: Option<(u32, Instant)>,
    /// The last questions that were not answered.
    history: [Option<Question>; HISTORY],
    /// The longest time that an answer took, lately.
    rtt: Duration,
    tries: u8,
    raise: Instant,
    pub(super) next: Instant,
    pub(super) ident: u16,
    seq: u16,
}

impl Search {
    pub(super) fn new(now: Instant, ident: u16, (least, most, overhead): (u32, u32, u32)) -> Self {
        let most = most.max(least);
        let size = BASE.clamp(least, most);
        Search {
            phase: SearchPhase::Base,
            size,
            confirmed: now,
            least,
            most,
            overhead,
            fails: u32::MAX,
            asked: None,
            history: [None; HISTORY],
            rtt: Duration::ZERO,
            tries: 0,
            raise: now + RAISE_TIMER,
            next: now,
            ident,
            seq: 0,
        }
    }

    /// The size that packets may have now.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// As a path MTU that somebody told.
    pub(super) fn info(&self, now: Instant) -> LearnedMtu {
        LearnedMtu {
            mtu: self.size + self.overhead,
            age: now.saturating_since(self.confirmed),
            left: self.raise.saturating_since(now),
            cause: MtuCause::Search(self.phase),
        }
    }

    fn base(&self) -> u32 {
        BASE.clamp(self.least, self.most)
    }

    /// The way is another one, or somebody (an ICMP error, 4.6.1) has said that no more than `most` fits. Says whether the size in
    /// force has changed.
    pub(super) fn bound(&mut self, now: Instant, (least, most, overhead): (u32, u32, u32)) -> bool {
        let most = most.max(least);
        if (self.least, self.most, self.overhead) == (least, most, overhead) {
            return false;
        }
        let before = self.size;
        *self = self.anew(now, (least, most, overhead));
        self.size != before
    }

    /// The peer has died, or come back: whatever was found out is not believed any more (5.2: Disabled, then Base).
    pub(super) fn restart(&mut self, now: Instant) {
        *self = self.anew(now, (self.least, self.most, self.overhead));
    }

    fn anew(&self, now: Instant, bounds: (u32, u32, u32)) -> Search {
        Search { seq: self.seq, rtt: self.rtt, ..Search::new(now, self.ident, bounds) }
    }

    /// PROBE_TIMER: longer than an answer takes (5.1.1), and so at most one question per way there and back (3, 7).
    fn patience(&self) -> Duration {
        (self.rtt * 3).clamp(PROBE_TIMER, LONGEST_PROBE_TIMER)
    }

    /// The time has come: the number and size of a question to ask, if any. Afterwards `next` is later.
    pub(super) fn poll(&mut self, now: Instant) -> Option<(u16, u32)> {
        if let Some((size, at)) = self.asked {
            let patience = self.patience();
            if now.saturating_since(at) < patience {
                self.next = at + patience;
                return None;
            }
            self.tries += 1;
            if self.tries < MAX_PROBES {
                return Some(self.ask(now, size));
            }
            self.failed(now, size);
        }
        if self.phase == SearchPhase::Complete && now >= self.raise {
            (self.phase, self.fails, self.raise) = (SearchPhase::Search, u32::MAX, now + RAISE_TIMER);
        }
        if self.next > now {
            return None;
        }
        let size = match self.phase {
            SearchPhase::Base | SearchPhase::Error => self.base(),
            SearchPhase::Search => match self.candidate() {
                Some(size) => size,
                None => {
                    self.complete(now);
                    return None;
                }
            },
            SearchPhase::Complete => self.size,
        };
        Some(self.ask(now, size))
    }

    fn ask(&mut self, now: Instant, size: u32) -> (u16, u32) {
        self.seq = self.seq.wrapping_add(1);
        self.asked = Some((size, now));
        self.history.rotate_right(1);
        self.history[0] = Some(Question { seq: self.seq, size, at: now });
        self.next = now + self.patience();
        (self.seq, size)
    }

    /// MAX_PROBES questions of a size were not answered.
    fn failed(&mut self, now: Instant, size: u32) {
        (self.asked, self.tries, self.next) = (None, 0, now);
        match self.phase {
            SearchPhase::Base | SearchPhase::Error => {
                (self.phase, self.size, self.next) = (SearchPhase::Error, self.least, now + ERROR_TIMER);
            }
            SearchPhase::Search => self.fails = self.fails.min(size),
            // 4.3: what has passed does not any more.
            SearchPhase::Complete => {
                (self.phase, self.fails, self.size) = (SearchPhase::Base, size, self.base());
            }
        }
    }

    /// A question was answered, perhaps late: no answer counts twice. Says whether the size in force has changed.
    pub(super) fn hear(&mut self, now: Instant, seq: u16) -> bool {
        let found = self.history.iter_mut().find(|q| q.is_some_and(|q| q.seq == seq));
        let Some(Question { size, at, .. }) = found.and_then(Option::take) else { return false };
        self.rtt = now.saturating_since(at).max(self.rtt * 7 / 8);
        let awaited = self.asked.is_some_and(|(asked, _)| asked == size);
        if !awaited && (size <= self.size || size > self.most) {
            return false;
        }
        (self.asked, self.tries, self.next, self.confirmed) = (None, 0, now, now);
        if size >= self.fails {
            self.fails = u32::MAX;
        }
        let before = self.size;
        match self.phase {
            SearchPhase::Base | SearchPhase::Error => (self.phase, self.size) = (SearchPhase::Search, size),
            SearchPhase::Search => self.size = size.max(self.size),
            SearchPhase::Complete if awaited => self.next = now + CONFIRMATION_TIMER,
            // It had been given up before its answer came.
            SearchPhase::Complete => (self.phase, self.size) = (SearchPhase::Search, size),
        }
        if self.phase == SearchPhase::Search && self.candidate().is_none() {
            self.complete(now);
        }
        self.size != before
    }

    fn complete(&mut self, now: Instant) {
        (self.phase, self.raise, self.next) = (SearchPhase::Complete, now + RAISE_TIMER, now + CONFIRMATION_TIMER);
    }

    /// The next size to try: the largest of all first, for most paths carry it, then the middle of those left.
    fn candidate(&self) -> Option<u32> {
        if self.size >= self.most {
            return None;
        }
        if self.fails > self.most {
            return Some(self.most);
        }
        let inner = COMMON.iter().map(|outer| outer.saturating_sub(self.overhead));
        let left: Vec<u32> = inner.filter(|s| *s > self.size && *s < self.fails && *s <= self.most).collect();
        left.get(left.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A path that swallows what is too long, in simulated time.
    struct World {
        now: Instant,
        search: Search,
        path: u32,
        /// Every so many questions are lost for other reasons; 0: none.
        loss: u32,
        asked: u32,
    }

    const OVERHEAD: u32 = 20;

    impl World {
        fn new(most: u32, path: u32) -> Self {
            let now = Instant::from_millis(1000);
            World { now, search: Search::new(now, 7, (1280, most, OVERHEAD)), path, loss: 0, asked: 0 }
        }

        /// Lets time pass until the search has the phase; how long it took.
        fn until(&mut self, phase: SearchPhase, limit: Duration) -> Duration {
            let start = self.now;
            while self.search.phase != phase {
                assert!(self.now.saturating_since(start) <= limit, "{:?}", self.search);
                self.step();
            }
            self.now.saturating_since(start)
        }

        fn pass(&mut self, span: Duration) {
            let end = self.now + span;
            while self.search.next <= end {
                self.step();
            }
            self.now = end;
        }

        fn step(&mut self) {
            self.now = self.now.max(self.search.next);
            let before = self.search.next;
            match self.search.poll(self.now) {
                Some((seq, size)) => {
                    self.asked += 1;
                    let lost = self.loss > 0 && self.asked.is_multiple_of(self.loss);
                    if size + OVERHEAD <= self.path && !lost {
                        self.now = self.now + Duration::from_millis(20);
                        self.search.hear(self.now, seq);
                    }
                }
                None => assert!(self.search.next > before, "time goes on"),
            }
        }

        fn best(&self) -> u32 {
            let all = COMMON.iter().map(|c| c - OVERHEAD).chain([self.search.most]);
            all.filter(|s| s + OVERHEAD <= self.path && *s <= self.search.most && *s >= self.search.least)
                .max()
                .unwrap_or(1280)
        }
    }

    /// Proves rfc8899-5.2-phases, rfc8899-5.3.2-sizes, rfc8899-5.1.2-base.
    #[test]
    fn a_wide_path_is_found_at_once_and_a_narrow_one_soon() {
        let mut wide = World::new(1480, 1500);
        assert!(wide.until(SearchPhase::Complete, Duration::from_secs(1)) < Duration::from_millis(100));
        assert_eq!((wide.search.size(), wide.asked), (1480, 2), "the base, then the most there can be");
        let mut narrow = World::new(1480, 1400);
        let took = narrow.until(SearchPhase::Complete, Duration::from_secs(20));
        assert_eq!(narrow.search.size(), 1380);
        assert!(took <= Duration::from_secs(16), "{took:?}");
        assert_eq!(narrow.search.info(narrow.now).mtu, 1400);
    }

    /// One lost question, or two, are no reason to believe that the size does not pass.
    ///
    /// Proves rfc8899-5.1.2-max-probes, rfc8899-3-loss.
    #[test]
    fn loss_is_told_from_size() {
        for loss in [2, 3, 5] {
            let mut w = World { loss, ..World::new(1480, 1400) };
            w.until(SearchPhase::Complete, Duration::from_secs(60));
            assert_eq!(w.search.size(), 1380, "every {loss}th lost");
        }
    }

    /// Black hole detection in Search Complete.
    ///
    /// Proves rfc8899-4.3-blackhole, rfc8899-5.1.1-confirmation.
    #[test]
    fn a_path_that_becomes_narrower_is_noticed() {
        let mut w = World::new(1480, 1500);
        w.until(SearchPhase::Complete, Duration::from_secs(1));
        w.path = 1420;
        let start = w.now;
        while w.search.size() == 1480 {
            w.step();
        }
        assert_eq!(w.search.size(), 1280, "what nearly every path carries, meanwhile");
        let noticed = w.now.saturating_since(start);
        assert!(noticed <= CONFIRMATION_TIMER + PROBE_TIMER * 4, "{noticed:?}");
        w.until(SearchPhase::Complete, Duration::from_secs(20));
        assert_eq!(w.search.size(), 1400);
    }

    /// Proves rfc8899-5.1.1-raise.
    #[test]
    fn a_path_that_becomes_wider_is_used_when_the_raise_timer_runs_out() {
        let mut w = World::new(1480, 1400);
        w.until(SearchPhase::Complete, Duration::from_secs(20));
        w.path = 1500;
        w.pass(Duration::from_secs(500));
        assert_eq!(w.search.size(), 1380);
        w.pass(Duration::from_secs(150));
        assert_eq!((w.search.size(), w.search.phase), (1480, SearchPhase::Complete));
    }

    /// MIN_PLPMTU, and back.
    ///
    /// Proves rfc8899-5.2-error.
    #[test]
    fn a_path_that_does_not_carry_the_base_is_an_error_until_it_does() {
        let now = Instant::from_millis(1000);
        let mut w = World { search: Search::new(now, 7, (68, 1480, OVERHEAD)), ..World::new(1480, 600) };
        w.until(SearchPhase::Error, Duration::from_secs(10));
        assert_eq!(w.search.size(), 68);
        w.pass(Duration::from_secs(120));
        assert_eq!(w.search.phase, SearchPhase::Error);
        w.path = 1500;
        w.until(SearchPhase::Complete, Duration::from_secs(30));
        assert_eq!(w.search.size(), 1480);
    }

    /// What an ICMP error says bounds the search, and begins it anew.
    ///
    /// Proves rfc8899-4.6.2-ptb.
    /// Also proves rfc8899-3-link, rfc8899-3-increase, rfc8899-4.6.2-directly.
    #[test]
    fn a_new_bound_begins_anew() {
        let mut w = World::new(1480, 1500);
        w.until(SearchPhase::Complete, Duration::from_secs(1));
        assert!(!w.search.bound(w.now, (1280, 1480, OVERHEAD)));
        assert!(w.search.bound(w.now, (1280, 1430, OVERHEAD)));
        assert_eq!((w.search.phase, w.search.size()), (SearchPhase::Base, 1280));
        w.until(SearchPhase::Complete, Duration::from_secs(1));
        assert_eq!(w.search.size(), 1430);
        assert!(!w.search.hear(w.now, 9999), "an answer to nothing");
        assert!(w.search.bound(w.now, (1280, 1480, OVERHEAD)));
        assert_eq!(w.search.size(), 1280, "more is believed once it has passed");
    }

    /// Asks for `limit`, with answers that take `rtt`; each question that fits is answered `copies` times. The times of the
    /// questions.
    fn far(search: &mut Search, path: u32, rtt: Duration, copies: usize, limit: Duration) -> Vec<Instant> {
        let mut now = search.next;
        let end = now + limit;
        let mut flying: std::collections::VecDeque<(Instant, u16)> = std::collections::VecDeque::new();
        let mut asked = Vec::new();
        while now <= end {
            match flying.front().copied().filter(|(at, _)| *at <= search.next) {
                Some((at, seq)) => {
                    now = now.max(at);
                    flying.pop_front();
                    search.hear(now, seq);
                }
                None => {
                    now = now.max(search.next);
                    if let Some((seq, size)) = search.poll(now) {
                        asked.push(now);
                        if size + OVERHEAD <= path {
                            flying.extend((0..copies).map(|_| (now + rtt, seq)));
                        }
                    }
                }
            }
        }
        asked
    }

    /// Proves rfc8899-5.1.1-probe-timer, rfc8899-3-interval, rfc8899-3-delay: answers may take longer than a second, come
    /// late or twice; once their time is known there is at most one question in it.
    #[test]
    fn far_peers_have_the_time_that_they_need() {
        for (rtt, path, best) in [
            (20, 1500, 1480),
            (900, 1500, 1480),
            (1200, 1500, 1480),
            (1200, 1400, 1380),
            (2500, 1400, 1380),
            (3500, 1400, 1380),
            (4900, 1500, 1480),
        ] {
            for copies in [1, 3] {
                let rtt = Duration::from_millis(rtt);
                let mut search = Search::new(Instant::from_millis(1000), 7, (1280, 1480, OVERHEAD));
                let asked = far(&mut search, path, rtt, copies, Duration::from_secs(500));
                assert_eq!((search.size(), search.phase), (best, SearchPhase::Complete), "{rtt:?} {path} {copies}");
                let after = Instant::from_millis(1000) + rtt;
                for pair in asked.windows(2).filter(|p| p[0] > after) {
                    assert!(pair[1].saturating_since(pair[0]) >= rtt, "{rtt:?} {path}: {asked:?}");
                }
                assert!(asked.len() < 80, "{}", asked.len());
            }
        }
    }

    proptest! {
        /// Whatever the path does, the search ends at the largest common size that passes, and asks a bounded number of questions.
        ///
        /// Proves rfc8899-3-bounded.
        #[test]
        fn the_largest_that_passes_is_found(most in 1280u32..9200, paths in proptest::collection::vec(1300u32..9300, 1..4)) {
            let mut w = World::new(most, 9300);
            for path in paths {
                w.path = path;
                let before = w.asked;
                // Long enough for a raise, a black hole and both searches.
                w.pass(RAISE_TIMER + Duration::from_secs(120));
                prop_assert_eq!(w.search.phase, SearchPhase::Complete);
                prop_assert_eq!(w.search.size(), w.best());
                prop_assert!(w.asked - before < 120, "{}", w.asked - before);
            }
        }
    }
}
