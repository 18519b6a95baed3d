//! Keeps the derived tables of the audit database up with the record, those of facilities too: calls `portal_audit.fold` and `portal_audit.fold_facilities` in pieces, beside the sources and never in their way.
//!
//! # What it costs the writers
//! Nothing waits for it: it takes no lock that the write stage takes. It rests after each piece four times as long as the piece took, and nineteen times while a source is behind or events come fast: so it uses at most a fifth of one core of the audit database, or a twentieth.

use crate::{
    chain::chain,
    config::Settings,
    connect::{self, ConnectError, Session},
};
use std::{convert::Infallible, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Row;

/// Events of one piece: so many at least, if there are, and at most. Each piece costs a core some 1.5 ms and each event 20 µs, so pieces of a hundred cost two thirds more; and whoever wakes on that core meanwhile waits for the kernel's tick.
const PIECE_EVENTS: (i64, i64) = (1_000, 10_000);
/// Between the two: so many pieces for what is left.
const PIECES: i64 = 20;
/// What a crash takes of these tables is folded again from where they stand, which goes with it: so nobody waits for the disk on their account.
const NO_WAIT: &str = "SET synchronous_commit = off";
/// Rests of a piece's length: while a source is behind or events come fast, and otherwise.
const RESTS: (u32, u32) = (19, 4);
/// So many events a second are fast: the portal's people wait for the cores, and the fold may come later.
const FAST_PER_SECOND: f64 = 500.0;
/// Longest wait after a fault.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Wait after a fault of a login: servers and directories count those, and the sources try it too.
const WAIT_NOT_LET_IN: Duration = Duration::from_secs(600);

/// Takes a piece. Says whether a source's record is more than ten seconds old, and how many leaves there were, and were left.
const FOLD: &str = "SELECT greatest(portal_audit.fold($1::bigint::int), portal_audit.fold_things($1::bigint::int)), coalesce((SELECT min(complete_to) < now() - interval '10 seconds' FROM portal_audit.progress), false), f.leaves, f.behind FROM portal_audit.folding() AS f";
/// The same for the tables of facilities, in a transaction of its own, so that a fault of one is not the other's.
const FOLD_FACILITIES: &str = "SELECT portal_audit.fold_facilities($1)";

/// Why the derived tables are not kept up. The server's report is not a source, because printing that prints DETAIL too.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("cannot reach the audit database")]
    Connect(#[source] ConnectError),
    #[error("the audit database refused to fold: {}{}", connect::describe(report), hint(report))]
    Database { report: tokio_postgres::Error },
    #[error("the audit database did not fold within {seconds} s")]
    Silent { seconds: u64 },
}

fn hint(report: &tokio_postgres::Error) -> &'static str {
    match connect::sqlstate_of(report) {
        Some("42501") => ". GRANT portal_audit_writer to the sidecar's role",
        Some("3F000" | "42P01" | "42883") => ". Run `portal-audit sql audit` there",
        _ => "",
    }
}

impl KeepError {
    fn is_not_let_in(&self) -> bool {
        matches!(self, Self::Connect(error) if error.is_definite() || error.is_of_secrets())
    }
}

/// Folds what is written, for as long as it is polled. A fault is told once, and tried again.
pub async fn keep(settings: &Settings) -> Infallible {
    let interval = Duration::from_millis(settings.limits.keep_interval_ms);
    let mut wait = interval;
    let mut is_told = false;
    let (mut session, mut seen) = (None, None);
    loop {
        sleep(wait).await;
        match pieces(settings, &mut session, &mut seen).await {
            Ok(0) if !is_told => wait = interval,
            Ok(events) => {
                tracing::debug!(events, "the derived tables are up with the record");
                (wait, is_told) = (interval, false);
            }
            Err(error) => {
                session = None;
                wait = match error.is_not_let_in() {
                    true => WAIT_NOT_LET_IN,
                    false => (wait * 2).clamp(interval, WAIT_MAX.max(interval)),
                };
                let error = chain(&error);
                // The first turn may come before the schema is made.
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(
                        error,
                        "the derived tables (users, members, stats, facilities) fall behind; the record does not, and it is tried again"
                    );
                }
            }
        }
    }
}

/// When a piece began, and how many leaves there were: how fast they come since.
type Seen = (Instant, i64);

/// Piece after piece until nothing is left. Gives how many events they were.
async fn pieces(
    settings: &Settings,
    session: &mut Option<Session>,
    seen: &mut Option<Seen>,
) -> Result<i64, KeepError> {
    let open = match session.take() {
        Some(open) if !open.client.is_closed() => open,
        Some(_) | None => {
            let opened = connect::connect(&settings.audit, "keep").await;
            let opened = opened.map_err(KeepError::Connect)?;
            let set = opened.client.batch_execute(NO_WAIT).await;
            set.map_err(|report| KeepError::Database { report })?;
            opened
        }
    };
    let open = session.insert(open);
    let mut events = 0;
    let mut limit = PIECE_EVENTS.0;
    loop {
        let begun = Instant::now();
        let main = ask(settings, open, FOLD, limit).await;
        let facilities = ask(settings, open, FOLD_FACILITIES, limit).await;
        let (main, facilities) = (main?, facilities?);
        let (taken, leaves) = (main.get::<_, i64>(0), main.get::<_, i64>(2));
        let is_fast = seen.replace((begun, leaves)).is_some_and(|(then, had)| {
            is_fast(leaves.saturating_sub(had), begun.duration_since(then))
        });
        if taken == 0 && facilities.get::<_, i64>(0) == 0 {
            return Ok(events);
        }
        events += taken;
        limit = piece_events(main.get(3));
        let (far, near) = RESTS;
        sleep(begun.elapsed() * if main.get(1) || is_fast { far } else { near }).await;
    }
}

fn piece_events(left: i64) -> i64 {
    let (least, most) = PIECE_EVENTS;
    (left / PIECES).clamp(least, most)
}

fn is_fast(more: i64, elapsed: Duration) -> bool {
    u32::try_from(more).map_or(more > 0, |more| {
        f64::from(more) >= FAST_PER_SECOND * elapsed.as_secs_f64().max(1e-9)
    })
}

/// One call, for so many events, and its row.
async fn ask(
    settings: &Settings,
    open: &Session,
    query: &str,
    events: i64,
) -> Result<Row, KeepError> {
    let limit = settings.limits.audit_timeout();
    timeout(limit, open.client.query_one(query, &[&events]))
        .await
        .map_err(|_elapsed| KeepError::Silent { seconds: limit.as_secs() })?
        .map_err(|report| KeepError::Database { report })
}

#[cfg(test)]
mod tests {
    use super::{is_fast, piece_events};
    use std::time::Duration;

    #[test]
    fn a_piece_grows_with_what_is_left() {
        let left = [0, 39_999, 60_000, 200_000, 10_000_000];
        assert_eq!(left.map(piece_events), [1_000, 1_999, 3_000, 10_000, 10_000]);
    }

    #[test]
    fn what_comes_fast_is_what_came_in_the_time_since() {
        let second = Duration::from_secs(1);
        assert!(!is_fast(0, Duration::ZERO) && !is_fast(-5, second) && !is_fast(499, second));
        assert!(is_fast(500, second) && is_fast(5, second / 100) && is_fast(i64::MAX, second));
    }
}
