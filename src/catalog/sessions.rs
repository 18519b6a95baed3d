//! Who stands in the way of a slot.

use super::CatalogError;
use crate::connect::Session;

/// Who reads a slot, as `process 7547 (portal-audit (portal))`; `None` if nobody does.
///
/// # Errors
/// The source does not answer.
pub async fn reader(session: &Session, slot: &str) -> Result<Option<String>, CatalogError> {
    const QUERY: &str = "SELECT format('process %s%s', s.active_pid, ' (' || nullif(a.application_name, '') || ')') FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = $1 AND s.active_pid IS NOT NULL";
    text(session, QUERY, &[&slot]).await
}

/// The oldest open transaction of the cluster that writes, which a new slot waits for. Who it is, is for superusers and `pg_read_all_stats`; its process everybody may see.
///
/// # Errors
/// The source does not answer.
pub async fn oldest_writer(session: &Session) -> Result<Option<String>, CatalogError> {
    const QUERY: &str = "SELECT CASE WHEN l.pid IS NULL THEN format('the prepared transaction %L of database %s', p.gid, p.database) ELSE format('process %s%s', l.pid, ' of ' || nullif(concat_ws(', ', 'database ' || quote_ident(a.datname), 'role ' || quote_ident(a.usename), nullif(a.application_name, ''), 'open since ' || to_char(a.xact_start, 'YYYY-MM-DD HH24:MI:SS')), '')) END FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid) LEFT JOIN pg_prepared_xacts p ON l.pid IS NULL AND p.transaction = l.transactionid WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid() ORDER BY age(l.transactionid) DESC LIMIT 1";
    text(session, QUERY, &[]).await
}

/// How many slots there are and how many there may be, as `10 of 10`.
///
/// # Errors
/// The source does not answer.
pub async fn slots_used(session: &Session) -> Result<Option<String>, CatalogError> {
    const QUERY: &str = "SELECT format('%s of %s', (SELECT count(*) FROM pg_replication_slots), current_setting('max_replication_slots'))";
    text(session, QUERY, &[]).await
}

async fn text(
    session: &Session,
    query: &str,
    parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<Option<String>, CatalogError> {
    let row = session.client.query_opt(query, parameters).await;
    let row = row.map_err(|report| CatalogError::Query { report })?;
    Ok(row.and_then(|row| row.get(0)))
}
