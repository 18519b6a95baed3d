//! That somebody read is an event too.

use super::{AskError, read::Reader, tell};
use crate::connect;
use serde_json::{Value, json};

/// Longest JSON of what was asked for that is recorded, in bytes.
const ASKED_BYTES_MAX: usize = 8_000;

/// Records a read: which verb, what was asked for, how many rows came. What keeps it from being recorded is said, and does not withhold the answer: a role that may read can do so with psql as well.
pub(super) async fn record(
    reader: &Reader,
    verb: &str,
    asked: &Value,
    rows: usize,
) -> Result<(), AskError> {
    const QUERY: &str = "SELECT portal_audit.record_read('log_read', $1::jsonb, $2::bigint)";
    let role = &reader.abilities.role;
    if !reader.abilities.records {
        tell(&format!(
            "this read is not recorded: there is no portal_audit.record_read that role {role} may execute"
        ));
        return Ok(());
    }
    let bytes = asked.to_string().len();
    let asked = match asked {
        Value::Object(_) if bytes > ASKED_BYTES_MAX => json!({"bytes_left_out": bytes}),
        asked => asked.clone(),
    };
    let asked = json!({"verb": verb, "asked": asked});
    let rows = i64::try_from(rows).unwrap_or(i64::MAX);
    match reader.session.client.query_one(QUERY, &[&asked, &rows]).await {
        Ok(_) => Ok(()),
        // A standby reads only, and a full disk should not hide the log.
        Err(error) if error.as_db_error().is_some() => {
            tell(&format!("this read is not recorded: {}", connect::describe(&error)));
            Ok(())
        }
        Err(error) => Err(AskError::query(error)),
    }
}
