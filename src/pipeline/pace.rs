//! How fast transactions come: whether it is cheaper for all to gather them.
//!
//! # Why
//! Each audit transaction costs as much as a hundred events, and each byte that is taken at once wakes the source's walsender and us. At a portal's usual pace both buy latency. At a brisk one a millisecond of it is given for a sixth of our CPU, and for a disk that is asked less often. Where a portal makes thousands of transactions a second, its cores are what it lacks, and most of the time we would be at work is better spent there.

use crate::wire::TICK;
use std::time::Duration;
use tokio::time::Instant;

/// How long what comes gathers before the next stage takes it; zero: not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gathering {
    /// Bytes in an empty socket. What nobody waits for wakes nobody, and each read takes a core from the portal for a moment.
    pub(super) bytes: Duration,
    /// Transactions, until they are translated together: one question asks for all the names that they need.
    pub(super) transactions: Duration,
    /// Events, since the batch before.
    pub(super) events: Duration,
}

impl Gathering {
    /// The same where there is more to read than has come.
    pub(super) fn behind(self) -> Self {
        Self { events: self.events, ..BEHIND }
    }

    /// The same inside of a large transaction.
    pub(super) fn inside_large(self) -> Self {
        Self { bytes: BEHIND.bytes, ..self }
    }
}

/// At a portal's usual pace.
const USUAL: Gathering =
    Gathering { bytes: Duration::ZERO, transactions: Duration::ZERO, events: Duration::ZERO };
/// From this pace on events gather for a moment.
const BRISK_PER_SECOND: u128 = 500;
const BRISK: Gathering = Gathering { events: Duration::from_millis(1), ..USUAL };
/// From this one on all gathers in earnest: with reads each millisecond and questions each ten a saturated portal keeps a twentieth less of its transactions.
const FAST_PER_SECOND: u128 = 3_000;
const FAST: Gathering = Gathering {
    bytes: Duration::from_millis(20),
    transactions: Duration::from_millis(50),
    events: Duration::from_millis(100),
};
/// Behind, whatever the pace: more is there already, so nothing gathers for long.
const BEHIND: Gathering =
    Gathering { bytes: TICK, transactions: Duration::from_millis(10), ..USUAL };
/// It is judged by what came in so long.
const WINDOW: Duration = Duration::from_millis(100);

/// Counts transactions as they come.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    transactions: u128,
    /// A second, in the window before.
    before: u128,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, transactions: 0, before: 0 }
    }

    /// One more has come.
    pub(super) fn count(&mut self, now: Instant) {
        let elapsed = now.duration_since(self.since);
        if elapsed >= WINDOW {
            let before = self.transactions * 1_000_000 / elapsed.as_micros();
            *self = Self { since: now, transactions: 0, before };
        }
        self.transactions += 1;
    }

    /// What this pace asks for; what comes after a pause has none.
    pub(super) fn gathering(&self, now: Instant) -> Gathering {
        match self.per_second(now) {
            FAST_PER_SECOND.. => FAST,
            BRISK_PER_SECOND.. => BRISK,
            _ => USUAL,
        }
    }

    fn per_second(&self, now: Instant) -> u128 {
        let is_lately = now.duration_since(self.since) < 2 * WINDOW;
        if is_lately { self.before } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::{BRISK, FAST, Pace, USUAL};
    use std::time::Duration;
    use tokio::time::Instant;

    /// The pace after so many transactions at equal distances.
    fn pace(per_second: u32, transactions: u32) -> (Pace, Instant) {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for _ in 0..transactions {
            now += Duration::from_secs(1) / per_second;
            pace.count(now);
        }
        (pace, now)
    }

    #[test]
    fn only_many_transactions_gather() {
        for (per_second, gathering) in [
            (50, USUAL),
            (480, USUAL),
            (520, BRISK),
            (2_000, BRISK),
            (2_900, BRISK),
            (3_200, FAST),
            (50_000, FAST),
        ] {
            let (pace, now) = pace(per_second, per_second);
            assert_eq!(pace.gathering(now), gathering, "{per_second}");
        }
    }

    #[test]
    fn behind_nothing_waits_for_what_is_there() {
        let behind = FAST.behind();
        assert!(behind.bytes < FAST.bytes && behind.transactions < FAST.transactions);
        assert_eq!(behind.events, FAST.events);
        assert_eq!(USUAL.behind().events, USUAL.events);
        let inside = FAST.inside_large();
        assert_eq!((inside.bytes, inside.transactions), (behind.bytes, FAST.transactions));
    }

    #[test]
    fn a_few_at_once_do_not_and_a_pause_ends_it() {
        let (burst, now) = pace(50_000, 500);
        assert_eq!(burst.gathering(now), USUAL);
        let (fast, now) = pace(10_000, 10_000);
        assert_eq!(fast.gathering(now), FAST);
        assert_eq!(fast.gathering(now + Duration::from_millis(250)), USUAL);
    }
}
