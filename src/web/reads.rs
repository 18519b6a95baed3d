//! That somebody looked is an event too: `log_read`, once an hour for each visitor and thing looked at, so that leafing through pages does not fill the log.
//!
//! Recorded are searches, single events and subjects, on pages and by the API, of visitors with a name. Of whoever uses the machine itself nothing is known but that.

use super::{Visitor, Web};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Looking again within this time is the same read.
const SAME: Duration = Duration::from_secs(3_600);
/// Reads that are remembered; with more, the same one may be recorded twice.
const REMEMBERED_MAX: usize = 20_000;
/// Longer ones are recorded by their length.
const ASKED_BYTES_MAX: usize = 4_000;

/// What was looked at lately, by hash.
#[derive(Debug, Default)]
pub(super) struct Reads(Mutex<HashMap<[u8; 32], Instant>>);

impl Reads {
    /// Whether this is to be recorded; then it counts as recorded.
    fn is_new(&self, visitor: &str, page: &str, asked: &str, now: Instant) -> bool {
        let hash = hash_of(visitor, page, asked);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED_MAX {
            known.retain(|_, at| now.duration_since(*at) < SAME);
        }
        if known.len() >= REMEMBERED_MAX {
            known.clear();
        }
        let is_known = known.get(&hash).is_some_and(|at| now.duration_since(*at) < SAME);
        if !is_known {
            known.insert(hash, now);
        }
        !is_known
    }

    /// It was not recorded after all, so the next time it is new again.
    fn forget(&self, visitor: &str, page: &str, asked: &str) {
        let hash = hash_of(visitor, page, asked);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&hash);
    }
}

fn hash_of(visitor: &str, page: &str, asked: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [visitor, page, asked] {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

impl Web {
    /// Records that the visitor looked at a page: which one, what was asked there, how many events were shown. What keeps it from being recorded is logged and does not withhold the page: the same role may read with psql.
    pub(super) async fn looked(&self, visitor: &Visitor, page: &str, asked: &str, rows: usize) {
        if visitor.name.is_empty() || !self.reads.is_new(&visitor.name, page, asked, Instant::now())
        {
            return;
        }
        let filter = if asked.len() > ASKED_BYTES_MAX {
            json!({ "page": page, "bytes_left_out": asked.len() })
        } else {
            json!({ "page": page, "asked": asked })
        };
        let rows = u64::try_from(rows).ok();
        if self.sessions.record(visitor, "log_read", &filter, rows).await.is_err() {
            self.reads.forget(&visitor.name, page, asked);
            tracing::warn!(page, "a read over the pages could not be recorded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_again_within_an_hour_is_the_same_read() {
        let (reads, now) = (Reads::default(), Instant::now());
        assert!(reads.is_new("ada", "/events", "type:x", now));
        assert!(!reads.is_new("ada", "/events", "type:x", now + SAME / 2));
        assert!(reads.is_new("ada", "/events", "type:y", now));
        assert!(reads.is_new("bo", "/events", "type:x", now));
        assert!(reads.is_new("ada", "/events", "type:x", now + SAME));
        reads.forget("bo", "/events", "type:x");
        assert!(reads.is_new("bo", "/events", "type:x", now));
    }
}
