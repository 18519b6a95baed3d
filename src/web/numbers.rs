//! The numbers of the overview, kept for a while: they are counted from everything there is, and many look at them at once.

use super::{Fault, reader::Reader};
use chrono::{DateTime, TimeDelta, Utc};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Numbers by their keys in `portal_audit.stats`.
pub(super) type Numbers = Arc<BTreeMap<String, i64>>;

/// Numbers of the present are at most so old.
const NOW_KEPT: Duration = Duration::from_secs(15);
/// What was so in the past changes only by events that come late.
const PAST_KEPT: Duration = Duration::from_secs(600);
const PAST: TimeDelta = TimeDelta::hours(1);
/// Times whose numbers are kept.
const TIMES_MAX: usize = 64;

/// Numbers by the time that they are of; `None`: the present.
type Times = HashMap<Option<DateTime<Utc>>, (Instant, Numbers)>;

/// Numbers that were counted lately.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Times>);

impl Kept {
    fn find(&self, key: Option<DateTime<Utc>>, now: Instant) -> Option<Numbers> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|key, (at, _)| {
            let kept = if key.is_some() { PAST_KEPT } else { NOW_KEPT };
            now.duration_since(*at) < kept
        });
        all.get(&key).map(|(_, numbers)| Arc::clone(numbers))
    }

    fn keep(&self, key: Option<DateTime<Utc>>, now: Instant, numbers: &Numbers) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= TIMES_MAX {
            all.clear();
        }
        all.insert(key, (now, Arc::clone(numbers)));
    }

    /// The numbers as of a time; by the database's clock it is `now`.
    pub(super) async fn at(
        &self,
        reader: &Reader,
        at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Numbers, Fault> {
        const QUERY: &str = "SELECT key, number FROM portal_audit.stats($1)";
        let key = (now - at > PAST).then_some(at);
        // A time between an hour ago and now is neither.
        let is_kept = key.is_some() || at == now;
        if let Some(numbers) = self.find(key, Instant::now()).filter(|_| is_kept) {
            return Ok(numbers);
        }
        let rows = reader.rows(QUERY, &[&at]).await?;
        let numbers: Numbers = Arc::new(rows.iter().map(|row| (row.get(0), row.get(1))).collect());
        // While the tables are being filled for the first time, nothing was there yet.
        if is_kept && numbers.values().any(|number| *number > 0) {
            self.keep(key, Instant::now(), &numbers);
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_present_grow_old_first() {
        let (kept, now) = (Kept::default(), Instant::now());
        let past = Some(DateTime::UNIX_EPOCH);
        for key in [None, past] {
            kept.keep(key, now, &Numbers::default());
            assert!(kept.find(key, now).is_some());
        }
        assert!(kept.find(None, now + NOW_KEPT).is_none());
        assert!(kept.find(past, now + NOW_KEPT).is_some());
        assert!(kept.find(past, now + PAST_KEPT).is_none());
    }
}
