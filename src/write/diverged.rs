//! A failover: progress on another timeline, and what is told where the source went back.
//!
//! # Why exactly once
//! The event, its row in `portal_audit.gaps` and the progress that goes back with them are one audit transaction, and that moves progress by compare-and-set: whoever comes second finds progress elsewhere.

use super::{End, Progress, WriteError, Writer, answered, gap::FORGET_ATTEMPTS};
use crate::{
    connect::Session,
    event::Event,
    lsn::Lsn,
    timestamp::Timestamp,
    translate::{
        Batch,
        diverged::{DESCRIBE, Divergence, EVENT_TYPE, Phantoms, RETENTION, VISIBLE_TO},
    },
};
use chrono::{DateTime, Utc};
use std::time::Duration;
use tokio_postgres::types::{PgLsn, ToSql};

/// Records that the log that was followed goes on, on another timeline, from where progress stands.
///
/// # Errors
/// The audit database does not answer or refuses, or progress is no longer what it was.
pub async fn store_timeline(
    session: &Session,
    source: &str,
    progress: &Progress,
    timeline: u32,
    timeout: Duration,
) -> Result<(), WriteError> {
    const QUERY: &str = "UPDATE portal_audit.progress SET timeline = $4, updated_at = now() WHERE source = $1 AND end_lsn = $2 AND timeline = $3 AND state = 'streaming'";
    let (then, now) = (i64::from(progress.timeline), i64::from(timeline));
    let end_lsn = PgLsn::from(progress.end_lsn.0);
    let parameters: [&(dyn ToSql + Sync); 4] = [&source, &end_lsn, &then, &now];
    let query = session.client.execute(QUERY, &parameters);
    match answered(timeout, "store the timeline", query).await? {
        0 => Err(WriteError::Moved { source_name: source.to_owned() }),
        _ => Ok(()),
    }
}

impl Writer {
    /// Goes back with the source: tells of it, forgets what the changes that are no more have left in names and attempts, and moves progress to where the logs part.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub async fn diverge(&mut self, divergence: &Divergence) -> Result<(), WriteError> {
        self.open().await?;
        let phantoms = self.phantoms(divergence).await?;
        let from_time = self.whole_to().await?;
        let mut batch = Batch::default();
        divergence.tell(&self.source, from_time, &phantoms, &mut batch.events);
        self.record(divergence, from_time, &phantoms, &batch).await?;
        self.forget_phantoms(divergence.left_at).await?;
        self.set_back(divergence, &phantoms).await?;
        let end = End { end_lsn: divergence.left_at, last_commit: None, complete_to: None };
        self.write(&batch, Some(end)).await?;
        self.known_to = divergence.end_lsn;
        Ok(())
    }

    /// The session, for who goes on otherwise.
    #[must_use]
    pub fn into_session(self) -> Session {
        self.hand.session
    }

    async fn phantoms(&self, divergence: &Divergence) -> Result<Phantoms, WriteError> {
        const QUERY: &str =
            "SELECT events, first, last, before FROM portal_audit.phantoms($1, $2, $3, $4)";
        let timeline = i64::from(divergence.then.timeline);
        let bounds = (PgLsn::from(divergence.left_at.0), PgLsn::from(divergence.end_lsn.0));
        let parameters: [&(dyn ToSql + Sync); 4] = [&self.source, &timeline, &bounds.0, &bounds.1];
        let query = self.hand.session.client.query_one(QUERY, &parameters);
        let row = answered(self.timeout, "count events that are no more", query).await?;
        let time = |column: usize| row.get::<_, Option<DateTime<Utc>>>(column).map(Timestamp::from);
        let events = row.get::<_, i64>(0).unsigned_abs();
        Ok(Phantoms { events, times: time(1).zip(time(2)), before: time(3) })
    }

    /// Up to which commit time the record was whole on the timeline that was left.
    async fn whole_to(&self) -> Result<Timestamp, WriteError> {
        const QUERY: &str = "SELECT coalesce(complete_to, last_commit, updated_at) FROM portal_audit.progress WHERE source = $1";
        let parameters: [&(dyn ToSql + Sync); 1] = [&self.source];
        let query = self.hand.session.client.query_opt(QUERY, &parameters);
        let row = answered(self.timeout, "read progress", query).await?;
        let moved = || WriteError::Moved { source_name: self.source.clone() };
        let row = row.ok_or_else(moved)?;
        Ok(Timestamp::from(row.get::<_, DateTime<Utc>>(0)))
    }

    async fn record(
        &self,
        divergence: &Divergence,
        from_time: Timestamp,
        phantoms: &Phantoms,
        batch: &Batch,
    ) -> Result<(), WriteError> {
        const ROW: &str = "INSERT INTO portal_audit.gaps (source, reason, slot, system_identifier, timeline, database_oid, from_lsn, from_time, to_lsn, to_time, event_uuid) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
        let client = &self.hand.session.client;
        let (reason, slot) = (divergence.reason.name(), &divergence.slot);
        let system_identifier = divergence.then.origin.system_identifier.to_string();
        let timeline = i64::from(divergence.then.timeline);
        let oid = i64::from(divergence.then.origin.database_oid);
        let bounds = (PgLsn::from(divergence.end_lsn.0), PgLsn::from(divergence.left_at.0));
        let from_time = from_time.to_utc();
        let to_time = phantoms.before.map(Timestamp::to_utc);
        let event_uuid = batch.events.iter().last().map(|Event { event_uuid, .. }| event_uuid);
        let parameters: [&(dyn ToSql + Sync); 11] = [
            &self.source,
            &reason,
            slot,
            &system_identifier,
            &timeline,
            &oid,
            &bounds.0,
            &from_time,
            &bounds.1,
            &to_time,
            &event_uuid,
        ];
        let query = client.execute(ROW, &parameters);
        answered(self.timeout, "record that the source went back", query).await?;
        self.declare([(EVENT_TYPE, DESCRIBE, RETENTION, VISIBLE_TO)]).await
    }

    /// A name that a change behind the parting gave or took is not known any more. An attempt of there will never be decided.
    async fn forget_phantoms(&self, left_at: Lsn) -> Result<(), WriteError> {
        const NAMES: &str = "DELETE FROM portal_audit.names WHERE source = $1 AND upto > $2";
        let left_at = PgLsn::from(left_at.0);
        let parameters: [&(dyn ToSql + Sync); 2] = [&self.source, &left_at];
        let query = self.hand.session.client.execute(NAMES, &parameters);
        answered(self.timeout, "forget names", query).await?;
        let query = self.hand.session.client.execute(FORGET_ATTEMPTS, &parameters);
        answered(self.timeout, "forget attempts", query).await.map(drop)
    }

    /// What is known of times goes back too, which [`Writer::write`] never does.
    async fn set_back(
        &self,
        divergence: &Divergence,
        phantoms: &Phantoms,
    ) -> Result<(), WriteError> {
        const QUERY: &str = "UPDATE portal_audit.progress SET timeline = $3, last_commit = $4, complete_to = $4 WHERE source = $1 AND end_lsn = $2 AND timeline = $5";
        let end_lsn = PgLsn::from(divergence.end_lsn.0);
        let before = phantoms.before.map(Timestamp::to_utc);
        let (then, now) = (divergence.then.timeline, divergence.now.timeline);
        let (then, now) = (i64::from(then), i64::from(now));
        let parameters: [&(dyn ToSql + Sync); 5] = [&self.source, &end_lsn, &now, &before, &then];
        let query = self.hand.session.client.execute(QUERY, &parameters);
        match answered(self.timeout, "set progress back", query).await? {
            0 => Err(WriteError::Moved { source_name: self.source.clone() }),
            _ => Ok(()),
        }
    }
}
