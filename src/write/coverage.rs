//! What is covered, as it was at the last look: one row of `portal_audit.coverage` per source.
//!
//! # Why exactly once
//! A look's events and the picture that it was compared with are replaced in one audit transaction, and only if the picture is still the one that was compared: a second sidecar, or one that was killed before the commit, finds either all of it or nothing.

use super::{Totals, WriteError, Writer, answered};
use crate::{
    connect::Session,
    event::{Events, Origin},
    lsn::Lsn,
    timestamp::Timestamp,
    translate::picture::{self, Change, Covered, Look},
};
use chrono::{DateTime, Utc};
use std::time::Duration;
use tokio_postgres::types::{PgLsn, ToSql};

/// Stores the first look at a source, or at another database behind its name.
const FIRST: &str = "INSERT INTO portal_audit.coverage AS c (source, system_identifier, database_oid, settings, picture, holes, lsn, at) VALUES ($1, $2, $3, $4, $5::text::jsonb, $6::text::jsonb, $7, $8) ON CONFLICT (source) DO UPDATE SET system_identifier = excluded.system_identifier, database_oid = excluded.database_oid, settings = excluded.settings, picture = excluded.picture, holes = excluded.holes, lsn = excluded.lsn, at = excluded.at WHERE (c.system_identifier, c.database_oid) <> (excluded.system_identifier, excluded.database_oid)";
/// Replaces the last look by one that finds something else, or other settings.
const REPLACE: &str = "UPDATE portal_audit.coverage SET settings = $4, picture = $5::text::jsonb, holes = $6::text::jsonb, lsn = $7, at = $8 WHERE source = $1 AND system_identifier = $2 AND database_oid = $3 AND lsn = $9 AND at = $10";
/// The same, if nothing has changed.
const CONFIRM: &str =
    "UPDATE portal_audit.coverage SET lsn = $2, at = $3 WHERE source = $1 AND lsn = $4 AND at = $5";

/// Reads what is stored of the last look at a source.
///
/// # Errors
/// The audit database does not answer or refuses.
pub async fn load_covered(
    session: &Session,
    source: &str,
    timeout: Duration,
) -> Result<Option<Covered>, WriteError> {
    const QUERY: &str = "SELECT system_identifier, database_oid, settings, picture::text, holes::text, lsn, at FROM portal_audit.coverage WHERE source = $1";
    let row =
        answered(timeout, "read what is covered", session.client.query_opt(QUERY, &[&source]))
            .await?;
    Ok(row.and_then(|row| {
        // What another version wrote and this one cannot read is like nothing: the next look is the first.
        Some(Covered {
            origin: Origin {
                system_identifier: row.get::<_, &str>(0).parse().ok()?,
                database_oid: u32::try_from(row.get::<_, i64>(1)).ok()?,
            },
            fingerprint: row.get(2),
            picture: serde_json::from_str(row.get(3)).ok()?,
            holes: serde_json::from_str(row.get(4)).ok()?,
            lsn: Lsn(row.get::<_, PgLsn>(5).into()),
            time: Timestamp::from(row.get::<_, DateTime<Utc>>(6)),
        })
    }))
}

impl Writer {
    /// Stores a look, with an event for each object that changed since the last one; tells the changes. A look that was overtaken by another one changes nothing. Inside an audit transaction that is open it becomes a part of that one.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub async fn look(
        &mut self,
        look: &Look,
        fingerprint: &str,
    ) -> Result<Vec<Change>, WriteError> {
        let last = load_covered(&self.hand.session, &self.source, self.timeout).await?;
        let Some(last) = last.filter(|last| last.origin == look.origin) else {
            let first = Covered::first(look, fingerprint);
            self.store(FIRST, &first, None).await?;
            return Ok(Vec::new());
        };
        // Overtaken. The position alone goes back in a failover, the clock alone when it is set.
        if look.before.0 < last.lsn && look.before.1 < last.time {
            return Ok(Vec::new());
        }
        let changes = picture::changes(&last, look);
        if changes.is_empty() && last.fingerprint == fingerprint && last.picture == look.picture {
            let (source, lsn, at) =
                (&self.source, PgLsn::from(look.before.0.0), look.before.1.to_utc());
            let (old_lsn, old_at) = (PgLsn::from(last.lsn.0), last.time.to_utc());
            let parameters: [&(dyn ToSql + Sync); 5] = [source, &lsn, &at, &old_lsn, &old_at];
            let query = self.hand.session.client.execute(CONFIRM, &parameters);
            answered(self.timeout, "store the time of a look", query).await?;
            return Ok(changes);
        }
        let own = !self.is_open;
        if own {
            answered(self.timeout, "begin", self.hand.session.client.batch_execute("BEGIN"))
                .await?;
        }
        let stored = self.store(REPLACE, &last.after(look, fingerprint), Some(&last)).await?;
        let mut events = Events::default();
        if stored > 0 {
            picture::tell(&self.source, &last, look, &changes, &mut events);
            self.leaves.truncate(0);
            self.insert(&events, 0..events.len()).await?;
            self.seal_piece().await?;
        }
        let written = events.len() as u64;
        if own {
            self.count_events(written).await?;
            answered(self.timeout, "commit", self.hand.session.client.batch_execute("COMMIT"))
                .await?;
        } else {
            self.pending = Totals { events: self.pending.events + written, ..self.pending };
        }
        Ok(if stored > 0 { changes } else { Vec::new() })
    }

    async fn store(
        &self,
        query: &str,
        covered: &Covered,
        last: Option<&Covered>,
    ) -> Result<u64, WriteError> {
        let system_identifier = covered.origin.system_identifier.to_string();
        let database_oid = i64::from(covered.origin.database_oid);
        // Our own types: maps with keys of text, and texts.
        let picture = serde_json::to_string(&covered.picture).unwrap_or_default();
        let holes = serde_json::to_string(&covered.holes).unwrap_or_default();
        let (lsn, at) = (PgLsn::from(covered.lsn.0), covered.time.to_utc());
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![
            &self.source,
            &system_identifier,
            &database_oid,
            &covered.fingerprint,
            &picture,
            &holes,
            &lsn,
            &at,
        ];
        let last = last.map(|last| (PgLsn::from(last.lsn.0), last.time.to_utc()));
        if let Some((lsn, at)) = &last {
            parameters.extend([lsn as &(dyn ToSql + Sync), at]);
        }
        let query = self.hand.session.client.execute(query, &parameters);
        answered(self.timeout, "store what is covered", query).await
    }
}
