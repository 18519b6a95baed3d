//! Attempts that wait for the end of their transaction, and the events of those that were rolled back.
//!
//! # Why exactly once
//! An attempt is stored in the audit transaction that moves progress past its message, so it is known as long as its message may not come again. It becomes an event in the audit transaction that deletes its row, and only if there was a row to delete. It is decided only when everything is written that the source logged before the end was asked for: then none of its messages can come afterwards.

use super::{Totals, WriteError, Writer, answered};
use crate::{
    event::Events,
    lsn::Lsn,
    timestamp::Timestamp,
    translate::{
        Batch,
        attempt::{Failed, Teller, event_type},
    },
};
use chrono::{DateTime, Utc};
use std::collections::HashMap;
use tokio_postgres::types::{PgLsn, ToSql};

/// Transactions of a source whose attempts may wait at a time; those of others are refused, and counted.
const WAITING_MAX: i64 = 10_000;
/// Statements of one transaction that its event lists.
const STATEMENTS_MAX: i32 = 100;
/// The relation under which messages are counted that name none.
const NO_RELATION: &str = "portal_audit.attempt";
/// Operations in `portal_audit.unmapped`.
const UNREADABLE: &str = "attempt unreadable";
const REFUSED: &str = "attempt refused";
const UNDECIDED: &str = "attempt undecided";

/// How transactions ended, by their ids.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Ends {
    pub committed: Vec<i64>,
    pub rolled_back: Vec<i64>,
    /// The source no longer knows, or never did.
    pub unknown: Vec<i64>,
}

impl Ends {
    /// Whether none has ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.rolled_back.is_empty() && self.unknown.is_empty()
    }
}

const COUNT: &str = "INSERT INTO portal_audit.unmapped AS u (source, relation, operation, changes) VALUES ($1, $2, $3, $4) ON CONFLICT (source, relation, operation) DO UPDATE SET changes = u.changes + excluded.changes";

impl Writer {
    /// Stores the attempts of a batch in the open audit transaction.
    pub(super) async fn write_attempts(&self, batch: &Batch) -> Result<(), WriteError> {
        const QUERY: &str =
            "SELECT portal_audit.keep_attempts($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
        let attempts = batch.attempts.in_order();
        if !attempts.is_empty() {
            let xids: Vec<i64> = attempts.iter().map(|attempt| attempt.xid).collect();
            let lsns: Vec<PgLsn> =
                attempts.iter().map(|attempt| PgLsn::from(attempt.lsn.0)).collect();
            let ats: Vec<DateTime<Utc>> =
                attempts.iter().map(|attempt| attempt.at.to_utc()).collect();
            let relations: Vec<&str> =
                attempts.iter().map(|attempt| attempt.relation.as_str()).collect();
            let operations: Vec<&str> = attempts.iter().map(|attempt| attempt.operation).collect();
            let callers: Vec<&str> =
                attempts.iter().map(|attempt| attempt.caller.as_str()).collect();
            let flags: Vec<&str> = attempts.iter().map(|attempt| attempt.flags.as_str()).collect();
            let nested: Vec<bool> = attempts.iter().map(|attempt| attempt.nested).collect();
            let parameters: [&(dyn ToSql + Sync); 11] = [
                &self.source,
                &xids,
                &lsns,
                &ats,
                &relations,
                &operations,
                &callers,
                &flags,
                &nested,
                &WAITING_MAX,
                &STATEMENTS_MAX,
            ];
            let query = self.hand.session.client.query_one(QUERY, &parameters);
            let row = answered(self.timeout, "keep attempts", query).await?;
            self.count(NO_RELATION, REFUSED, row.get(0)).await?;
        }
        let unreadable = i64::try_from(batch.attempts.unreadable).unwrap_or(i64::MAX);
        self.count(NO_RELATION, UNREADABLE, unreadable).await
    }

    async fn count(&self, relation: &str, operation: &str, number: i64) -> Result<(), WriteError> {
        if number == 0 {
            return Ok(());
        }
        let parameters: [&(dyn ToSql + Sync); 4] = [&self.source, &relation, &operation, &number];
        let query = self.hand.session.client.execute(COUNT, &parameters);
        answered(self.timeout, "count attempts", query).await.map(drop)
    }

    /// The transactions whose attempts wait.
    ///
    /// # Errors
    /// The audit database does not answer or refuses.
    pub async fn waiting_attempts(&self) -> Result<Vec<i64>, WriteError> {
        const QUERY: &str = "SELECT xid FROM portal_audit.attempts WHERE source = $1";
        let parameters: [&(dyn ToSql + Sync); 1] = [&self.source];
        let query = self.hand.session.client.query(QUERY, &parameters);
        let rows = answered(self.timeout, "read attempts", query).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Forgets the attempts of transactions that have ended, and writes an event for each that was rolled back. Inside an audit transaction that is open it becomes a part of that one.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub async fn end_attempts(&mut self, ends: &Ends, teller: &Teller) -> Result<(), WriteError> {
        let own = !self.is_open;
        self.open().await?;
        let decided = [&ends.committed[..], &ends.rolled_back, &ends.unknown].concat();
        let failed = self.delete_attempts(&decided).await?;
        let mut events = Events::default();
        let mut types: HashMap<String, ()> = HashMap::new();
        for failed in &failed {
            if ends.rolled_back.contains(&failed.xid) {
                teller.tell(failed, &mut events);
                types.insert(teller.event_type(failed), ());
            } else if ends.unknown.contains(&failed.xid) {
                self.count(&failed.relation, UNDECIDED, 1).await?;
            }
        }
        // Events of this kind have no rule that says their types at the start: a table may have the trigger and no word in `[attempts]`.
        let types: Vec<_> = types.into_keys().filter_map(|name| event_type(&name)).collect();
        let types = types
            .iter()
            .map(|found| (found.name.as_str(), found.describe, found.retention, found.visible_to));
        self.declare(types).await?;
        self.deliver(&events).await?;
        let written = events.len() as u64;
        if own {
            self.count_events(written).await?;
            answered(self.timeout, "commit", self.hand.session.client.batch_execute("COMMIT"))
                .await?;
            (self.is_open, self.has_savepoint) = (false, false);
        } else {
            self.pending = Totals { events: self.pending.events + written, ..self.pending };
        }
        Ok(())
    }

    async fn delete_attempts(&self, xids: &[i64]) -> Result<Vec<Failed>, WriteError> {
        const QUERY: &str = "WITH gone AS (DELETE FROM portal_audit.attempts WHERE source = $1 AND xid = ANY ($2) RETURNING *) SELECT xid, lsn, at, relation, operation, caller, flags, statements::text, left_out FROM gone ORDER BY lsn";
        let parameters: [&(dyn ToSql + Sync); 2] = [&self.source, &xids];
        let query = self.hand.session.client.query(QUERY, &parameters);
        let rows = answered(self.timeout, "end attempts", query).await?;
        let failed = rows.iter().map(|row| Failed {
            xid: row.get(0),
            lsn: Lsn(row.get::<_, PgLsn>(1).into()),
            at: Timestamp::from(row.get::<_, DateTime<Utc>>(2)),
            relation: row.get(3),
            operation: row.get(4),
            caller: row.get(5),
            flags: row.get(6),
            statements: row.get(7),
            left_out: row.get(8),
        });
        Ok(failed.collect())
    }

    pub(super) async fn count_events(&self, events: u64) -> Result<(), WriteError> {
        const QUERY: &str =
            "UPDATE portal_audit.progress SET events = events + $2 WHERE source = $1";
        if events == 0 {
            return Ok(());
        }
        let events = i64::try_from(events).unwrap_or(i64::MAX);
        let parameters: [&(dyn ToSql + Sync); 2] = [&self.source, &events];
        let query = self.hand.session.client.execute(QUERY, &parameters);
        answered(self.timeout, "count events", query).await.map(drop)
    }
}
