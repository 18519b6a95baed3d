//! How much log our slot keeps on a source's disk, and giving it up when that is too much: the portal wins.
//!
//! # Why a marker
//! A slot that is gone is a loss, which a person must accept. One that we gave up was accepted beforehand, by the settings; but at that moment the audit database often cannot be written, and the program may be started anew before it can. So the fact stays where the slot was: beside it, before it is dropped, a physical slot is made that keeps no log, named after it. A slot is all that we keep on a source, and this one survives us, the server's crash and its restart. It goes as soon as the audit database knows.

use crate::{connect::Session, lsn::Lsn};
use tokio_postgres::types::PgLsn;

/// Ends the name of the marker. The settings leave room for it within the 63 bytes of a slot's name.
pub const MARKER_END: &str = "_released";

/// Why the source's slot cannot be looked at or given up.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    #[error("the source refused to {action}: {}", crate::connect::describe(report))]
    Source { action: &'static str, report: tokio_postgres::Error },
}

/// What a slot keeps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// Bytes of log since its oldest position.
    pub bytes: u64,
    /// Bytes that may yet be written before the server gives it up; `None` where the server sets no limit.
    pub safe_bytes: Option<u64>,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: Option<String>,
    /// Who reads it now.
    pub active_pid: Option<i32>,
    /// Whether it is one that we could have made: logical, by pgoutput, of this database and no temporary one.
    pub is_like_ours: bool,
}

/// How near a limit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Level {
    #[default]
    Well,
    /// 50 %.
    Half,
    /// 80 %.
    Near,
    Over,
}

impl Level {
    /// Of `bytes` within `limit`.
    #[must_use]
    pub fn of(bytes: u64, limit: u64) -> Self {
        let percent = u128::from(bytes) * 100 / u128::from(limit.max(1));
        match percent {
            0..50 => Self::Well,
            50..80 => Self::Half,
            80..100 => Self::Near,
            _ => Self::Over,
        }
    }
}

impl Kept {
    /// How near the budget is.
    #[must_use]
    pub fn level(&self, budget: u64) -> Level {
        Level::of(self.bytes, budget)
    }

    /// How near the server is to giving the slot up by itself (`max_slot_wal_keep_size`).
    #[must_use]
    pub fn server_level(&self) -> Level {
        match (self.wal_status.as_deref(), self.safe_bytes) {
            (Some("unreserved" | "lost"), _) => Level::Over,
            (_, None) => Level::Well,
            (_, Some(safe)) => Level::of(self.bytes, self.bytes.saturating_add(safe)),
        }
    }

    /// What a person should know, a sentence each.
    #[must_use]
    pub fn warnings(&self, budget: u64, releases: bool) -> Vec<String> {
        let bytes = self.bytes;
        let then = if releases {
            "At the budget the slot is given up and the gap recorded."
        } else {
            "Nothing is done about it: wal_budget_action is \"warn\"."
        };
        let mut warnings = Vec::new();
        if self.level(budget) >= Level::Half {
            let percent = u128::from(bytes) * 100 / u128::from(budget.max(1));
            warnings.push(format!(
                "the slot keeps {bytes} bytes of the source's log, {percent} % of limits.wal_budget_bytes. {then}"
            ));
        }
        match (self.server_level(), self.wal_status.as_deref()) {
            (Level::Well, _) => {}
            (_, Some("lost")) => warnings.push(
                "the server has given the slot up: the changes that it kept are gone.".to_owned(),
            ),
            (_, Some("unreserved")) => warnings.push(
                "the slot is beyond max_slot_wal_keep_size: the server gives it up at its next checkpoint. Raise max_slot_wal_keep_size."
                    .to_owned(),
            ),
            _ => warnings.push(format!(
                "the server gives the slot up after {} more bytes (max_slot_wal_keep_size).",
                self.safe_bytes.unwrap_or(0)
            )),
        }
        warnings
    }
}

/// The name of a slot's marker.
#[must_use]
pub fn marker(slot: &str) -> String {
    format!("{slot}{MARKER_END}")
}

fn source(action: &'static str) -> impl FnOnce(tokio_postgres::Error) -> BudgetError {
    move |report| BudgetError::Source { action, report }
}

/// What a slot keeps; `None` if there is none of that name.
///
/// # Errors
/// The source does not answer.
pub async fn kept(session: &Session, slot: &str) -> Result<Option<Kept>, BudgetError> {
    const QUERY: &str = "SELECT restart_lsn, CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, safe_wal_size, wal_status, active_pid, slot_type = 'logical' AND plugin = 'pgoutput' AND NOT temporary AND database = current_database() FROM pg_replication_slots WHERE slot_name = $1";
    let row = session.client.query_opt(QUERY, &[&slot]).await;
    let row = row.map_err(source("look at the slot"))?;
    Ok(row.map(|row| {
        let lsn = |column: usize| row.get::<_, Option<PgLsn>>(column).map(|lsn| Lsn(lsn.into()));
        let bytes = match (lsn(0), lsn(1)) {
            (Some(from), Some(end)) => end.bytes_since(from),
            // A slot without a position keeps nothing.
            _ => 0,
        };
        let safe = row.get::<_, Option<i64>>(2);
        Kept {
            bytes,
            safe_bytes: safe.map(|safe| u64::try_from(safe).unwrap_or(0)),
            wal_status: row.get(3),
            active_pid: row.get(4),
            is_like_ours: row.get::<_, Option<bool>>(5).unwrap_or(false),
        }
    }))
}

/// Whether a slot was given up by us.
///
/// # Errors
/// The source does not answer.
pub async fn is_released(session: &Session, slot: &str) -> Result<bool, BudgetError> {
    const QUERY: &str = "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1 AND slot_type = 'physical')";
    let row = session.client.query_one(QUERY, &[&marker(slot)]).await;
    Ok(row.map_err(source("look for the slot's marker"))?.get(0))
}

/// Gives a slot up: its marker first, then itself. A server without room for another slot gets no marker; `Ok(false)` says so.
///
/// # Errors
/// The source does not answer; 55006: somebody reads the slot.
pub async fn release(session: &Session, slot: &str) -> Result<bool, BudgetError> {
    const MARK: &str = "SELECT pg_create_physical_replication_slot($1::text::name) WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)";
    const DROP: &str = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND slot_type = 'logical'";
    let marked = session.client.execute(MARK, &[&marker(slot)]).await;
    let dropped = session.client.execute(DROP, &[&slot]).await.map_err(source("drop the slot"));
    if dropped.is_err() {
        // The slot is still there, so nothing was given up.
        forget(session, slot).await?;
    }
    dropped?;
    if marked.is_err() {
        return Ok(session.client.execute(MARK, &[&marker(slot)]).await.is_ok());
    }
    Ok(true)
}

/// Takes the marker away: the audit database knows, or nothing was lost.
///
/// # Errors
/// The source does not answer.
pub async fn forget(session: &Session, slot: &str) -> Result<(), BudgetError> {
    const QUERY: &str = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1 AND slot_type = 'physical'";
    let dropped = session.client.execute(QUERY, &[&marker(slot)]).await;
    dropped.map(drop).map_err(source("drop the slot's marker"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_near_by_its_hundredths() {
        let level = |bytes| Level::of(bytes, 1_000);
        assert_eq!([0, 499].map(level), [Level::Well; 2]);
        assert_eq!([500, 799].map(level), [Level::Half; 2]);
        assert_eq!([800, 999].map(level), [Level::Near; 2]);
        assert_eq!([1_000, u64::MAX].map(level), [Level::Over; 2]);
        assert_eq!(Level::of(0, 0), Level::Well);
        assert_eq!(Level::of(u64::MAX, u64::MAX), Level::Over);
    }

    #[test]
    fn each_limit_is_told() {
        let kept = Kept { bytes: 60, wal_status: Some("reserved".into()), ..Kept::default() };
        assert!(kept.warnings(1_000, true).is_empty());
        let told = kept.warnings(100, true).join("");
        assert!(told.contains("keeps 60 bytes of the source's log, 60 % of"), "{told}");
        assert!(kept.warnings(100, false).join("").contains("wal_budget_action is \"warn\""));
        let near = Kept { safe_bytes: Some(15), ..kept.clone() };
        assert_eq!(near.server_level(), Level::Near);
        assert!(near.warnings(1_000, true).join("").contains("after 15 more bytes"));
        let unreserved = Kept { wal_status: Some("unreserved".into()), ..kept };
        assert!(unreserved.warnings(1_000, true).join("").contains("at its next checkpoint"));
    }
}
