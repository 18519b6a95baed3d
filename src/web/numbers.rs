//! The numbers of the overview, kept for a while: they are counted from everything there is, and many look at them at once.

use super::{Fault, reader::Reader};
use chrono::{DateTime, TimeDelta, Utc};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Numbers by their keys in `portal_audit.stats`.
type Numbers = BTreeMap<String, i64>;

/// Numbers as of a time.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// When, by the database's clock. Numbers of the present are as of then.
    pub(super) counted: DateTime<Utc>,
    pub(super) numbers: Numbers,
    /// What they were [`BEFORE`] that time: the quick ones, of `portal_audit.totals`.
    pub(super) before: Numbers,
}

/// What numbers are compared with.
const BEFORE: TimeDelta = TimeDelta::days(30);

/// Numbers of the present are at most so old.
const NOW_KEPT: Duration = Duration::from_secs(15);
/// What was so in the past changes only by events that come late.
const PAST_KEPT: Duration = Duration::from_secs(600);
const PAST: TimeDelta = TimeDelta::hours(1);
/// Times whose numbers are kept.
const TIMES_MAX: usize = 64;

/// Numbers by the time that they are of; `None`: the present.
type Times = HashMap<Option<DateTime<Utc>>, (Instant, Arc<Counted>)>;

/// Numbers that were counted lately.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<Times>);

impl Kept {
    fn find(&self, key: Option<DateTime<Utc>>, now: Instant) -> Option<Arc<Counted>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|key, (at, _)| {
            let kept = if key.is_some() { PAST_KEPT } else { NOW_KEPT };
            now.duration_since(*at) < kept
        });
        all.get(&key).map(|(_, counted)| Arc::clone(counted))
    }

    fn keep(&self, key: Option<DateTime<Utc>>, now: Instant, counted: &Arc<Counted>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= TIMES_MAX {
            all.clear();
        }
        all.insert(key, (now, Arc::clone(counted)));
    }

    /// The numbers as of a time; by the database's clock it is `now`.
    pub(super) async fn at(
        &self,
        reader: &Reader,
        at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Arc<Counted>, Fault> {
        const QUERY: &str = "SELECT key, number FROM portal_audit.stats($1)";
        const BEFORE_QUERY: &str = "SELECT key, number FROM portal_audit.totals($1)";
        let key = (now - at > PAST).then_some(at);
        // A time between an hour ago and now is neither.
        let is_kept = key.is_some() || at == now;
        if let Some(counted) = self.find(key, Instant::now()).filter(|_| is_kept) {
            return Ok(counted);
        }
        let numbers = numbers_of(reader, QUERY, at).await?;
        let before = numbers_of(reader, BEFORE_QUERY, at - BEFORE).await?;
        let counted = Arc::new(Counted { counted: now, numbers, before });
        // While the tables are being filled for the first time, nothing was there yet.
        if is_kept && counted.numbers.values().any(|number| *number > 0) {
            self.keep(key, Instant::now(), &counted);
        }
        Ok(counted)
    }
}

async fn numbers_of(reader: &Reader, query: &str, at: DateTime<Utc>) -> Result<Numbers, Fault> {
    let rows = reader.rows(query, &[&at]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_present_grow_old_first() {
        let (kept, now) = (Kept::default(), Instant::now());
        let past = Some(DateTime::UNIX_EPOCH);
        for key in [None, past] {
            kept.keep(key, now, &Arc::default());
            assert!(kept.find(key, now).is_some());
        }
        assert!(kept.find(None, now + NOW_KEPT).is_none());
        assert!(kept.find(past, now + NOW_KEPT).is_some());
        assert!(kept.find(past, now + PAST_KEPT).is_none());
    }
}
