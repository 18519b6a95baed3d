//! A row of `events` as its leaf takes it: each column as its length in four bytes and its bytes, as `portal_audit.leaf` in `sql/proof.sql` has them.

use crate::merkle::{Hash, leaf_hash};
use serde_json::Value;
use uuid::Uuid;

/// The columns, in the table's order; the payload as its text.
pub const COLUMNS: &str = "event_uuid, timestamp, event_type, caller, subject, subject_type, target, success, error_message, payload::text";
/// How many.
pub const COLUMNS_COUNT: usize = 10;
/// Events of the tree `.own` that record what is listed in `portal_audit.removed`.
pub const RECORDING: [&str; 2] = ["retention_applied", "user_erased"];

/// A row, ready to be hashed.
#[derive(Debug, Clone, Default)]
pub struct Row {
    bytes: Vec<u8>,
    columns: usize,
    event_type: String,
    /// If the event records removals, the digest in its payload.
    pub digest: Option<String>,
}

impl Row {
    /// Adds the next column, as `COPY … (FORMAT binary)` has it.
    pub fn column(&mut self, value: Option<&[u8]>) {
        let length = value.map_or(-1, |value| i32::try_from(value.len()).unwrap_or(i32::MAX));
        self.bytes.extend(length.to_be_bytes());
        self.bytes.extend(value.unwrap_or_default());
        let text = || String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        match self.columns {
            2 => self.event_type = text(),
            9 if RECORDING.contains(&self.event_type.as_str()) => {
                let payload: Value = serde_json::from_str(&text()).unwrap_or_default();
                self.digest = payload.get("digest").and_then(Value::as_str).map(str::to_owned);
            }
            _ => {}
        }
        self.columns += 1;
    }

    /// The leaf, with a salt.
    #[must_use]
    pub fn leaf(&self, salt: &[u8; 16]) -> Hash {
        leaf_hash(&[salt, &self.bytes])
    }

    /// Reads a row of an export: a list of the columns; the timestamp as microseconds since 2000-01-01 00:00 UTC, as PostgreSQL counts.
    #[must_use]
    pub fn from_json(columns: &[Value]) -> Option<(Uuid, Self)> {
        let event_uuid: Uuid = columns.first()?.as_str()?.parse().ok()?;
        let mut row = Self::default();
        for (place, value) in columns.iter().enumerate() {
            match (place, value) {
                (0, _) => row.column(Some(event_uuid.as_bytes())),
                (1, value) => row.column(Some(&value.as_i64()?.to_be_bytes())),
                (_, Value::Null) => row.column(None),
                (_, Value::Bool(value)) => row.column(Some(&[u8::from(*value)])),
                (_, value) => row.column(Some(value.as_str()?.as_bytes())),
            }
        }
        (row.columns == COLUMNS_COUNT).then_some((event_uuid, row))
    }

    /// The row as an export has it; from the columns as the server sends them.
    #[must_use]
    pub fn to_json(columns: &[Option<&[u8]>]) -> Option<Value> {
        let mut values = Vec::with_capacity(COLUMNS_COUNT);
        for (place, value) in columns.iter().enumerate() {
            values.push(match (place, value) {
                (_, None) => Value::Null,
                (0, Some(value)) => Uuid::from_slice(value).ok()?.to_string().into(),
                (1, Some(value)) => i64::from_be_bytes((*value).try_into().ok()?).into(),
                (7, Some(value)) => (**value == [1]).into(),
                (_, Some(value)) => std::str::from_utf8(value).ok()?.into(),
            });
        }
        Some(Value::Array(values))
    }
}
