//! A row of `events` with its sentence.

use super::read::Abilities;
use crate::show::{ShownEvent, visible};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use serde_json::Value;
use uuid::Uuid;

/// A row of `events` as it is, and its sentence.
#[derive(Debug, Clone, Serialize)]
pub struct EventRow {
    #[serde(serialize_with = "as_text")]
    pub event_uuid: Uuid,
    #[serde(serialize_with = "as_instant")]
    pub timestamp: DateTime<Utc>,
    pub event_type: String,
    pub caller: String,
    pub subject: String,
    pub subject_type: String,
    pub target: Option<String>,
    pub success: bool,
    pub error_message: Option<String>,
    pub payload: Value,
    /// Not a column: what happened, as a sentence.
    pub description: String,
}

fn as_text<S: Serializer>(event_uuid: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(event_uuid)
}

fn as_instant<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&instant(*at))
}

/// With microseconds, which is what the table keeps.
pub(super) fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

const COLUMNS: &str = "e.event_uuid, e.timestamp, e.event_type, e.caller, e.subject, e.subject_type, e.target, e.success, e.error_message, e.payload";

/// `SELECT … FROM public.events e`, with the sentence or the template of one, as far as the role may read them.
pub(super) fn select(abilities: &Abilities) -> String {
    let (sentence, template) = match abilities {
        Abilities { describes: true, .. } => (
            "portal_audit.describe(e.event_type, e.caller, e.subject, e.subject_type, e.target, e.success, e.error_message, e.payload)",
            "NULL::text",
        ),
        Abilities { reads_types: true, .. } => (
            "NULL::text",
            "(SELECT t.describe FROM portal_audit.event_types t WHERE t.event_type = e.event_type)",
        ),
        _ => ("NULL::text", "NULL::text"),
    };
    format!("SELECT {COLUMNS}, {sentence}, {template} FROM public.events e")
}

impl EventRow {
    /// From a row of [`select`].
    pub(super) fn read(row: &tokio_postgres::Row) -> Self {
        let shown = ShownEvent {
            timestamp: row.get(1),
            event_type: row.get(2),
            caller: row.get(3),
            subject: row.get(4),
            subject_type: row.get(5),
            target: row.get(6),
            success: row.get(7),
            error_message: row.get(8),
            payload: row.get(9),
        };
        let described: Option<String> = row.get(10);
        let template: Option<String> = row.get(11);
        let description = described
            .or_else(|| template.map(|template| shown.sentence(&template)))
            .unwrap_or_else(|| plain(&shown));
        Self {
            event_uuid: row.get(0),
            timestamp: shown.timestamp,
            event_type: shown.event_type,
            caller: shown.caller,
            subject: shown.subject,
            subject_type: shown.subject_type,
            target: shown.target,
            success: shown.success,
            error_message: shown.error_message,
            payload: shown.payload,
            description,
        }
    }

    /// Where it stands in the order of time, and within its transaction where it stood there.
    pub(super) fn place(&self) -> (DateTime<Utc>, Option<String>, Option<String>, u64, Uuid) {
        let text = |key| self.audit(key).and_then(Value::as_str).map(str::to_owned);
        // The first of a transaction has no number.
        let place = self.audit("n").and_then(Value::as_u64).unwrap_or(0);
        (self.timestamp, text("source"), text("lsn"), place, self.event_uuid)
    }

    /// What portal-audit knows of how it knows it.
    pub(super) fn audit(&self, key: &str) -> Option<&Value> {
        self.payload.get("_audit")?.get(key)
    }
}

/// For a type that nobody declared: `glawler: org member added, organization orgtest, testuser`.
fn plain(event: &ShownEvent) -> String {
    let what = visible(&event.event_type.replace('_', " ")).replace(['{', '}'], "|");
    let target = if event.target.is_some() { ", {target}" } else { "" };
    event.sentence(&format!("{{caller}}: {what}, {{subject_type}} {{subject}}{target}"))
}
