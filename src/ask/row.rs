//! A row of `events` with its sentence.

use super::read::Abilities;
use crate::show::{COLUMNS, ShownEvent, visible};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use std::ops::Deref;
use uuid::Uuid;

/// A row of `events` as it is, and its sentence.
#[derive(Debug, Clone, Serialize)]
pub struct EventRow {
    #[serde(flatten)]
    event: ShownEvent,
    /// Not a column: what happened, as a sentence.
    pub description: String,
}

impl Deref for EventRow {
    type Target = ShownEvent;

    fn deref(&self) -> &ShownEvent {
        &self.event
    }
}

/// `SELECT … FROM public.events e`, with the sentence or the template of one, as far as the role may read them.
pub(super) fn select(abilities: &Abilities) -> String {
    let (sentence, template) = match abilities {
        // To fill a template in there takes the server longer than to find the event.
        Abilities { reads_types: true, .. } => (
            "NULL::text",
            "(SELECT t.describe FROM portal_audit.event_types t WHERE t.event_type = e.event_type)",
        ),
        Abilities { describes: true, .. } => (
            "portal_audit.describe(e.event_type, e.caller, e.subject, e.subject_type, e.target, e.success, e.error_message, e.payload)",
            "NULL::text",
        ),
        _ => ("NULL::text", "NULL::text"),
    };
    format!("SELECT {COLUMNS}, {sentence}, {template} FROM public.events e")
}

impl EventRow {
    /// From a row of [`select`].
    pub(super) fn read(row: &tokio_postgres::Row) -> Self {
        let event = ShownEvent::read(row);
        let described: Option<String> = row.get(10);
        let template: Option<String> = row.get(11);
        let description = described
            .or_else(|| template.map(|template| event.sentence(&template)))
            .unwrap_or_else(|| plain(&event));
        Self { event, description }
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
