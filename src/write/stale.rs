//! Sessions of ours that nobody uses any more.
//!
//! # Why
//! Where our host is lost, or the network between, the audit database learns of it late. Until then the transaction of that session holds its locks: the row of progress, and the ids of the events that it was about to write, which are the very ones that the next session writes. So each writer leaves a sign, an advisory lock that excludes nobody, and the next one of the source ends what it finds in a transaction.

use super::{WriteError, answered};
use crate::connect::Session;
use std::time::Duration;

/// Marks a session as a writer of the source, before it writes. `is_alone`: the source is streamed, and nobody reads its slot, so whoever writes still has nothing more to write, and is ended. While a source is being created its slot is read by nobody, and somebody writes.
///
/// # Errors
/// The audit database does not answer or refuses.
pub async fn sign_in(
    session: &Session,
    source: &str,
    is_alone: bool,
    timeout: Duration,
) -> Result<(), WriteError> {
    const SIGN: &str =
        "SELECT pg_advisory_lock_shared(hashtextextended('portal-audit writes ' || $1, 0))";
    // The two halves of the key, as pg_locks shows it (manual, 54.12). Where a transaction of another role is, it shows none.
    const END: &str = "SELECT pg_terminate_backend(a.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('portal-audit writes ' || $1, 0) AND a.pid <> pg_backend_pid() AND a.xact_start IS NOT NULL AND pg_has_role(a.usesysid, 'USAGE')";
    answered(timeout, "sign in", session.client.execute(SIGN, &[&source])).await?;
    if !is_alone {
        return Ok(());
    }
    let sessions =
        answered(timeout, "end old sessions", session.client.execute(END, &[&source])).await?;
    if sessions > 0 {
        tracing::warn!(
            source,
            sessions,
            "ended sessions in the audit database that an earlier start left in a transaction"
        );
    }
    Ok(())
}
