//! How fast transactions come: whether it is cheaper for all to gather them.
//!
//! # Why
//! Each audit transaction costs as much as a hundred events, and each byte that is taken at once wakes the source's walsender and us. At a portal's usual pace both buy latency. Where a portal makes thousands of transactions a second, its cores are what it lacks, and most of the time we would be at work is better spent there.

use std::time::Duration;
use tokio::time::Instant;

/// From this pace on transactions gather.
const FAST_PER_SECOND: u128 = 3_000;
/// It is judged by what came in so long.
const WINDOW: Duration = Duration::from_millis(100);

/// Counts transactions as they come.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    transactions: u128,
    was_fast: bool,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, transactions: 0, was_fast: false }
    }

    /// One more has come.
    pub(super) fn count(&mut self, now: Instant) {
        let elapsed = now.duration_since(self.since);
        if elapsed >= WINDOW {
            let is_fast = self.transactions * 1_000_000 >= FAST_PER_SECOND * elapsed.as_micros();
            *self = Self { since: now, transactions: 0, was_fast: is_fast };
        }
        self.transactions += 1;
    }

    /// Whether they come fast; what comes after a pause does not.
    pub(super) fn is_fast(&self, now: Instant) -> bool {
        self.was_fast && now.duration_since(self.since) < 2 * WINDOW
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
        for (per_second, is_fast) in
            [(50, false), (2_000, false), (2_900, false), (3_200, true), (50_000, true)]
        {
            let (pace, now) = pace(per_second, per_second);
            assert_eq!(pace.is_fast(now), is_fast, "{per_second}");
        }
    }

    #[test]
    fn a_few_at_once_do_not_and_a_pause_ends_it() {
        let (burst, now) = pace(50_000, 500);
        assert!(!burst.is_fast(now));
        let (fast, now) = pace(10_000, 10_000);
        assert!(fast.is_fast(now) && !fast.is_fast(now + Duration::from_millis(250)));
    }
}
