//! How fast transactions come: whether it is cheaper for all to gather them.
//!
//! # Why
//! Each audit transaction costs as much as a hundred events, and each byte that is taken at once wakes the source's walsender and us. At a portal's usual pace both buy latency. At a brisk one a millisecond of it is given for a sixth of our CPU, and for a disk that is asked less often. Where a portal makes thousands of transactions a second, its cores are what it lacks, and most of the time we would be at work is better spent there.

use std::time::Duration;
use tokio::time::Instant;

/// From this pace on transactions gather for a moment: a batch comes so long after the one before.
const BRISK_PER_SECOND: u128 = 500;
const BRISK_GATHERING: Duration = Duration::from_millis(1);
/// From this one on they gather in earnest.
const FAST_PER_SECOND: u128 = 3_000;
const FAST_GATHERING: Duration = Duration::from_millis(100);
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

    /// Whether they come fast; what comes after a pause does not.
    pub(super) fn is_fast(&self, now: Instant) -> bool {
        self.per_second(now) >= FAST_PER_SECOND
    }

    /// How long after a batch the next one comes at the earliest.
    pub(super) fn gathering(&self, now: Instant) -> Duration {
        match self.per_second(now) {
            FAST_PER_SECOND.. => FAST_GATHERING,
            BRISK_PER_SECOND.. => BRISK_GATHERING,
            _ => Duration::ZERO,
        }
    }

    fn per_second(&self, now: Instant) -> u128 {
        let is_lately = now.duration_since(self.since) < 2 * WINDOW;
        if is_lately { self.before } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::Pace;
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
        for (per_second, millis) in
            [(50, 0), (480, 0), (520, 1), (2_000, 1), (2_900, 1), (3_200, 100), (50_000, 100)]
        {
            let (pace, now) = pace(per_second, per_second);
            assert_eq!(pace.gathering(now), Duration::from_millis(millis), "{per_second}");
            assert_eq!(pace.is_fast(now), millis == 100, "{per_second}");
        }
    }

    #[test]
    fn a_few_at_once_do_not_and_a_pause_ends_it() {
        let (burst, now) = pace(50_000, 500);
        assert!(!burst.is_fast(now));
        let (fast, now) = pace(10_000, 10_000);
        assert!(fast.is_fast(now) && !fast.is_fast(now + Duration::from_millis(250)));
        assert_eq!(fast.gathering(now + Duration::from_millis(250)), Duration::ZERO);
    }
}
