//! Keeps the derived tables of the audit database up with the record, those of facilities too: calls `portal_audit.fold` and `portal_audit.fold_facilities` in small pieces, beside the sources and never in their way.
//!
//! # What it costs the writers
//! Nothing waits for it: it takes no lock that the write stage takes. It rests after each piece four times as long as the piece took, and nine times while a source is behind, so that it uses at most a fifth of one core of the audit database, or a tenth.

use crate::{
    chain::chain,
    config::Settings,
    connect::{self, ConnectError, Session},
};
use std::{convert::Infallible, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// Events of one piece at a portal's pace: some hundredths of a second's work, so that whoever waits for the disk behind it does not wait for long.
const PIECE_EVENTS: i32 = 500;
/// Where there is much to do: larger ones are cheaper, for who is active has a row for each day, which each piece writes anew.
const LARGE_PIECE_EVENTS: i32 = 10_000;
/// After so many small ones in a row, each of them full.
const SMALL_PIECES: usize = 20;
/// What a crash takes of these tables is folded again from where they stand, which goes with it: so nobody waits for the disk on their account.
const NO_WAIT: &str = "SET synchronous_commit = off";
/// Rests of a piece's length: while a source is behind, and otherwise.
const RESTS: (u32, u32) = (9, 4);
/// Longest wait after a fault.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Wait after a fault of a login: servers and directories count those, and the sources try it too.
const WAIT_NOT_LET_IN: Duration = Duration::from_secs(600);

/// Takes a piece, and says whether a source's record is more than ten seconds old.
const FOLD: &str = "SELECT greatest(portal_audit.fold($1), portal_audit.fold_things($1)), coalesce((SELECT min(complete_to) < now() - interval '10 seconds' FROM portal_audit.progress), false)";
/// The same for the tables of facilities, in a transaction of its own, so that a fault of one is not the other's.
const FOLD_FACILITIES: &str = "SELECT portal_audit.fold_facilities($1::int), false";

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
    let mut session = None;
    loop {
        sleep(wait).await;
        match pieces(settings, &mut session).await {
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

/// Piece after piece until nothing is left. Gives how many events they were.
async fn pieces(settings: &Settings, session: &mut Option<Session>) -> Result<i64, KeepError> {
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
    for turn in 0_usize.. {
        let limit = if turn < SMALL_PIECES { PIECE_EVENTS } else { LARGE_PIECE_EVENTS };
        let begun = Instant::now();
        let main = piece(settings, open, FOLD, limit).await;
        let facilities = piece(settings, open, FOLD_FACILITIES, limit).await;
        let ((taken, is_behind), (of_facilities, _)) = (main?, facilities?);
        if taken == 0 && of_facilities == 0 {
            break;
        }
        events += taken;
        let (far, near) = RESTS;
        sleep(begun.elapsed() * if is_behind { far } else { near }).await;
    }
    Ok(events)
}

/// How many events one call took, and whether a source is far behind.
async fn piece(
    settings: &Settings,
    open: &Session,
    query: &str,
    events: i32,
) -> Result<(i64, bool), KeepError> {
    let limit = settings.limits.audit_timeout();
    let row = timeout(limit, open.client.query_one(query, &[&events]))
        .await
        .map_err(|_elapsed| KeepError::Silent { seconds: limit.as_secs() })?
        .map_err(|report| KeepError::Database { report })?;
    Ok((row.get(0), row.get(1)))
}
