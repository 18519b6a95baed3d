//! A loss that was accepted: its row in `portal_audit.gaps`, and its event in the audit transaction that moves progress past it.
//!
//! # Why exactly once
//! A source has at most one gap without an end. It gets its end, and its event, in the audit transaction that makes the new progress durable: if that is not committed, the gap waits for the next start; if it is, there is no gap left to end.

use super::{End, Progress, WriteError, Writer, answered};
use crate::{
    connect::Session,
    event::{Event, Events, Origin},
    lsn::Lsn,
    timestamp::Timestamp,
    translate::{
        Batch,
        gap::{self, Compared, Gap, GapEnd, Place, Reason},
    },
};
use chrono::{DateTime, Utc};
use std::time::Duration;
use tokio_postgres::types::{PgLsn, ToSql};

/// Opens a gap at progress. A source that is `creating` has one already, or nothing that could be lost.
const OPEN: &str = "INSERT INTO portal_audit.gaps (source, reason, slot, system_identifier, timeline, database_oid, from_lsn, from_time, last_commit) SELECT source, $2, slot, system_identifier, timeline, database_oid, end_lsn, coalesce(complete_to, last_commit, updated_at), last_commit FROM portal_audit.progress WHERE source = $1 AND end_lsn = $3 AND state = 'streaming' ON CONFLICT DO NOTHING";
const LOAD: &str = "SELECT reason, slot, system_identifier, timeline, database_oid, from_lsn, from_time, greatest(from_time, last_commit) FROM portal_audit.gaps WHERE source = $1 AND to_lsn IS NULL";
/// Attempts that wait belong to transactions of the log that was followed: another one knows nothing of their ids, nor of those behind where they part.
pub(super) const FORGET_ATTEMPTS: &str = "WITH gone AS (DELETE FROM portal_audit.attempts WHERE source = $1 AND lsn > $2 RETURNING relation) INSERT INTO portal_audit.unmapped AS u (source, relation, operation, changes) SELECT $1, relation, 'attempt undecided', count(*) FROM gone GROUP BY relation ON CONFLICT (source, relation, operation) DO UPDATE SET changes = u.changes + excluded.changes";

/// Puts a source back into `creating`, and opens the gap that its new slot will end. Both or none.
///
/// # Errors
/// The audit database does not answer or refuses, or progress is no longer at `from`.
pub async fn begin_anew(
    session: &Session,
    source: &str,
    reason: Reason,
    (from, creating): (&Progress, &Progress),
    timeout: Duration,
) -> Result<(), WriteError> {
    const CREATING: &str = "UPDATE portal_audit.progress SET state = 'creating', slot = $3, system_identifier = $4, timeline = $5, database_oid = $6, end_lsn = '0/0', updated_at = now() WHERE source = $1 AND end_lsn = $2";
    let client = &session.client;
    let from_lsn = PgLsn::from(from.end_lsn.0);
    answered(timeout, "begin", client.batch_execute("BEGIN")).await?;
    let reason = reason.name();
    let parameters: [&(dyn ToSql + Sync); 3] = [&source, &reason, &from_lsn];
    answered(timeout, "open the gap", client.execute(OPEN, &parameters)).await?;
    let is_one_log =
        from.system_identifier == creating.system_identifier && from.timeline == creating.timeline;
    if !is_one_log {
        let all = PgLsn::from(0);
        let parameters: [&(dyn ToSql + Sync); 2] = [&source, &all];
        let query = client.execute(FORGET_ATTEMPTS, &parameters);
        answered(timeout, "forget attempts", query).await?;
    }
    let system_identifier = creating.system_identifier.to_string();
    let (timeline, oid) = (i64::from(creating.timeline), i64::from(creating.database_oid));
    let parameters: [&(dyn ToSql + Sync); 6] =
        [&source, &from_lsn, &creating.slot, &system_identifier, &timeline, &oid];
    match answered(timeout, "store progress", client.execute(CREATING, &parameters)).await? {
        0 => Err(WriteError::Moved { source_name: source.to_owned() }),
        _ => answered(timeout, "commit", client.batch_execute("COMMIT")).await,
    }
}

/// Events `audit_gap` and `audit_diverged` of the source.
///
/// # Errors
/// The audit database does not answer or refuses.
pub async fn count_gaps(
    session: &Session,
    source: &str,
    timeout: Duration,
) -> Result<u64, WriteError> {
    const QUERY: &str = "SELECT count(*) FROM public.events WHERE event_type IN ('audit_gap', 'audit_diverged') AND subject = $1";
    let parameters: [&(dyn ToSql + Sync); 1] = [&source];
    let counted = session.client.query_one(QUERY, &parameters);
    let row = answered(timeout, "count gaps", counted).await?;
    Ok(row.get::<_, i64>(0).unsigned_abs())
}

/// The gap of a source that has no end yet.
///
/// # Errors
/// The audit database does not answer or refuses.
pub async fn open_gap(
    session: &Session,
    source: &str,
    timeout: Duration,
) -> Result<Option<Gap>, WriteError> {
    let row = answered(timeout, "read gaps", session.client.query_opt(LOAD, &[&source])).await?;
    Ok(row.and_then(|row| {
        let origin = Origin {
            system_identifier: row.get::<_, &str>(2).parse().unwrap_or(0),
            database_oid: u32::try_from(row.get::<_, i64>(4)).unwrap_or(0),
        };
        let timeline = u32::try_from(row.get::<_, i64>(3)).unwrap_or(0);
        // The word is one of ours: the statement above wrote it.
        Some(Gap {
            reason: row.get::<_, &str>(0).parse().ok()?,
            slot: row.get(1),
            then: Place { origin, timeline },
            from_lsn: Lsn(row.get::<_, PgLsn>(5).into()),
            from_time: Timestamp::from(row.get::<_, DateTime<Utc>>(6)),
            told_to: Timestamp::from(row.get::<_, DateTime<Utc>>(7)),
        })
    }))
}

impl Writer {
    /// As [`count_gaps`].
    ///
    /// # Errors
    /// The audit database does not answer or refuses.
    pub async fn gaps(&self) -> Result<u64, WriteError> {
        count_gaps(&self.hand.session, &self.source, self.timeout).await
    }

    /// Passes over changes that are gone, from progress to where the slot stands: the gap, its event and the new progress, in one audit transaction. Old values that are remembered are forgotten, because the lost changes may have changed them.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub async fn skip(
        &mut self,
        reason: Reason,
        end: &GapEnd,
        stale: &[&str],
    ) -> Result<(), WriteError> {
        self.forget(stale).await?;
        let (source, reason) = (self.source.clone(), reason.name());
        let from_lsn = PgLsn::from(self.end_lsn.0);
        let parameters: [&(dyn ToSql + Sync); 3] = [&source, &reason, &from_lsn];
        let query = self.hand.session.client.execute(OPEN, &parameters);
        answered(self.timeout, "open the gap", query).await?;
        let mut batch = Batch::default();
        if let Some(gap) = open_gap(&self.hand.session, &source, self.timeout).await? {
            self.end_gap(&gap, end, None, &mut batch.events).await?;
        }
        let end = End { end_lsn: end.lsn, last_commit: None, complete_to: None };
        self.write(&batch, Some(end)).await
    }

    /// Ends a gap, as a piece of the audit transaction that the next [`Writer::write`] goes on with, and adds its event to what that one is given.
    ///
    /// # Errors
    /// The audit database does not answer or refuses.
    pub async fn end_gap(
        &mut self,
        gap: &Gap,
        end: &GapEnd,
        compared: Option<&Compared>,
        events: &mut Events,
    ) -> Result<(), WriteError> {
        const QUERY: &str = "UPDATE portal_audit.gaps SET to_lsn = $2, to_time = $3, event_uuid = $4 WHERE source = $1 AND to_lsn IS NULL";
        self.open().await?;
        let client = &self.hand.session.client;
        gap.tell(&self.source, end, compared, events);
        let event_uuid = events.iter().last().map(|Event { event_uuid, .. }| event_uuid);
        let (lsn, time) = (PgLsn::from(end.lsn.0), end.time.to_utc());
        let parameters: [&(dyn ToSql + Sync); 4] = [&self.source, &lsn, &time, &event_uuid];
        let ended = answered(self.timeout, "end the gap", client.execute(QUERY, &parameters));
        if ended.await? == 0 {
            return Err(WriteError::Moved { source_name: self.source.clone() });
        }
        self.declare([(gap::EVENT_TYPE, gap::DESCRIBE, gap::RETENTION, gap::VISIBLE_TO)]).await
    }

    /// Forgets all that is kept of the source's keys, as a piece of the audit transaction that the next [`Writer::write`] goes on with: in another database the same key may be another thing.
    ///
    /// # Errors
    /// The audit database does not answer or refuses.
    pub async fn forget_all(&mut self) -> Result<(), WriteError> {
        const QUERY: &str = "DELETE FROM portal_audit.names WHERE source = $1";
        self.open().await?;
        let parameters: [&(dyn ToSql + Sync); 1] = [&self.source];
        let query = self.hand.session.client.execute(QUERY, &parameters);
        answered(self.timeout, "forget names", query).await.map(drop)
    }
}
