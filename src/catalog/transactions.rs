//! How transactions of a source ended, and where its log ends.

use super::CatalogError;
use crate::{connect::Session, lsn::Lsn, timestamp::Timestamp};
use tokio_postgres::types::PgLsn;

/// SQLSTATE of `pg_xact_status` for a transaction that is yet to come: another cluster's, or one that never was.
const FUTURE_XID: &str = "22023";
/// Size of a page of the log (the `wal_block_size` of every build that is shipped), and of its two headers.
const PAGE_BYTES: u64 = 8_192;
const PAGE_HEADERS: [u64; 2] = [24, 40];

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    InProgress,
    Committed,
    RolledBack,
    /// Too long ago, or yet to come.
    Unknown,
}

/// Whether a session leads to the cluster and timeline that are followed: behind several addresses another one may answer, whose transactions are others.
///
/// # Errors
/// The source does not answer.
pub async fn is_server(
    session: &Session,
    system_identifier: u64,
    timeline: u32,
) -> Result<bool, CatalogError> {
    // The file's name begins with the timeline. The control file has it only from the next checkpoint on.
    const QUERY: &str = "SELECT system_identifier::text, left(pg_walfile_name(pg_current_wal_insert_lsn()), 8) FROM pg_control_system()";
    let row = session.client.query_one(QUERY, &[]).await;
    let row = row.map_err(|report| CatalogError::Query { report })?;
    let (here, begins): (&str, &str) = (row.get(0), row.get(1));
    Ok(here == system_identifier.to_string() && begins == format!("{timeline:08X}"))
}

/// What became of transactions, by their ids with epoch. An id that is yet to come spoils the question for all, so then each is asked for alone.
///
/// # Errors
/// The source does not answer.
pub async fn outcomes(
    session: &Session,
    xids: &[i64],
) -> Result<Vec<(i64, Outcome)>, CatalogError> {
    let all = ask(session, xids).await;
    if !is_future(&all) {
        return all;
    }
    let mut outcomes = Vec::with_capacity(xids.len());
    for xid in xids {
        let one = ask(session, &[*xid]).await;
        if is_future(&one) {
            outcomes.push((*xid, Outcome::Unknown));
        } else {
            outcomes.extend(one?);
        }
    }
    Ok(outcomes)
}

fn is_future<T>(asked: &Result<T, CatalogError>) -> bool {
    asked.as_ref().is_err_and(|error| error.sqlstate() == Some(FUTURE_XID))
}

async fn ask(session: &Session, xids: &[i64]) -> Result<Vec<(i64, Outcome)>, CatalogError> {
    const QUERY: &str =
        "SELECT xid, pg_xact_status(xid::text::xid8) FROM unnest($1::bigint[]) AS u (xid)";
    let rows = session.client.query(QUERY, &[&xids]).await;
    let rows = rows.map_err(|report| CatalogError::Query { report })?;
    let outcome = |status: Option<&str>| match status {
        Some("committed") => Outcome::Committed,
        Some("aborted") => Outcome::RolledBack,
        Some(_) => Outcome::InProgress,
        None => Outcome::Unknown,
    };
    Ok(rows.iter().map(|row| (row.get(0), outcome(row.get(1)))).collect())
}

/// Where the last record of the source's log ends, written out or not.
///
/// # Errors
/// The source does not answer.
pub async fn log_end(session: &Session) -> Result<Lsn, CatalogError> {
    const QUERY: &str = "SELECT pg_current_wal_insert_lsn()";
    let row = session.client.query_one(QUERY, &[]).await;
    let row = row.map_err(|report| CatalogError::Query { report })?;
    Ok(end_of_last_record(Lsn(row.get::<_, PgLsn>(0).into())))
}

/// The source's clock, and where the last record of its log ended then.
///
/// # Errors
/// The source does not answer.
pub async fn clock_and_log_end(session: &Session) -> Result<(Timestamp, Lsn), CatalogError> {
    // In this order: what commits between the two may only make the end later. A standby's log ends where it is replayed to.
    const QUERY: &str = "SELECT clock_timestamp(), CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn(), '0/0') ELSE pg_current_wal_insert_lsn() END";
    let row = session.client.query_one(QUERY, &[]).await;
    let row = row.map_err(|report| CatalogError::Query { report })?;
    let time = Timestamp::from(row.get::<_, chrono::DateTime<chrono::Utc>>(0));
    Ok((time, end_of_last_record(Lsn(row.get::<_, PgLsn>(1).into()))))
}

/// At the border of a page the next record will be inserted behind the page's header, and until there is one nothing gets that far.
fn end_of_last_record(insert_lsn: Lsn) -> Lsn {
    let inside = insert_lsn.0 % PAGE_BYTES;
    if PAGE_HEADERS.contains(&inside) { Lsn(insert_lsn.0 - inside) } else { insert_lsn }
}

#[cfg(test)]
mod tests {
    use super::{Lsn, end_of_last_record};

    #[test]
    fn a_position_behind_a_header_is_the_border() {
        let ends = [0x2000, 0x2018, 0x2028, 0x2030].map(|lsn| end_of_last_record(Lsn(lsn)).0);
        assert_eq!(ends, [0x2000, 0x2000, 0x2000, 0x2030]);
    }
}
