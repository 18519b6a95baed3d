//! The events of changes of what is covered: `coverage_changed` and `schema_changed`.

use super::{Change, Covered, Difference, Hole, Look};
use crate::{
    event::{
        EventRow, Events, Flags, INDEXED_TEXT_BYTES_MAX, gap_id, push_formatted, push_json_string,
        push_text,
    },
    lsn::Lsn,
    timestamp::Timestamp,
    translate::{
        emit::{close_payload, push_audit},
        mapping::{Mapping, MappingError, Retention},
        stopped::CHANGE_UNMAPPED,
    },
};

const COVERAGE_CHANGED: &str = "coverage_changed";
const SCHEMA_CHANGED: &str = "schema_changed";

/// An event type that no mapping declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventType {
    pub name: &'static str,
    /// Its sentence for people.
    pub describe: &'static str,
}

/// The event types of what is covered and what is not. Their rows are told to admins and kept for ever.
pub const EVENT_TYPES: [EventType; 3] = [
    EventType {
        name: COVERAGE_CHANGED,
        describe: "what is recorded of {subject_type} {subject} changed between {payload.from_time} and {payload.to_time}; changes may be missing: {payload.changes_may_be_missing}",
    },
    EventType {
        name: SCHEMA_CHANGED,
        describe: "{subject} changed its shape between {payload.from_time} and {payload.to_time}; rules that stopped: {payload.rules_stopped}",
    },
    EventType {
        name: CHANGE_UNMAPPED,
        describe: "{payload.operation} of a row of {subject}, which the mapping no longer fits",
    },
];

impl EventType {
    /// Who may see events of these types.
    pub const VISIBLE_TO: &'static [&'static str] = &["admin"];
    /// How long they are kept.
    pub const RETENTION: Retention = Retention::Project;
}

/// Adds the events of changes that a look found.
pub fn tell(source: &str, before: &Covered, look: &Look, changes: &[Change], events: &mut Events) {
    for change in changes {
        let word = if change.is_schema { SCHEMA_CHANGED } else { COVERAGE_CHANGED };
        let Change { object, .. } = change;
        let (from, to) = (before.lsn, look.after.0);
        let id = format!("{word}\0{}\0{}", object.kind(), object.name());
        let event_uuid = gap_id(look.origin, before.time, (from, to), &id);
        let mut flags = Flags::default();
        let (event_type, ()) = events.write(|out| out.push_str(word));
        let (caller, ()) = events.write(|_| {});
        let (subject, written) =
            events.write(|out| push_text(out, object.name().as_bytes(), INDEXED_TEXT_BYTES_MAX));
        flags |= written;
        let (subject_type, ()) = events.write(|out| out.push_str(object.kind()));
        let (payload, ()) = events.write(|out| {
            push_bounds(out, "{", (from, before.time), look.after);
            push_change(out, change, look);
            out.push(',');
            let mut audit = String::new();
            push_audit(&mut audit, source, (to, 1), None);
            close_payload(out, (&audit, None), ("none", 0, 0), &mut flags, false);
        });
        events.push(EventRow {
            relation: 0,
            event_uuid,
            timestamp: look.after.1,
            event_type,
            caller,
            subject,
            subject_type,
            target: None,
            success: true,
            error_message: None,
            payload,
        });
    }
}

fn push_bounds(
    out: &mut String,
    begin: &str,
    (from_lsn, from_time): (Lsn, Timestamp),
    (to_lsn, to_time): (Lsn, Timestamp),
) {
    push_formatted(
        out,
        format_args!(
            "{begin}\"from_lsn\":\"{from_lsn}\",\"to_lsn\":\"{to_lsn}\",\"from_time\":\"{from_time}\",\"to_time\":\"{to_time}\""
        ),
    );
}

fn push_change(out: &mut String, change: &Change, look: &Look) {
    let Change { differences, missing, hole, filled, .. } = change;
    out.push_str(",\"changes\":[");
    for (index, difference) in differences.iter().enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        push_difference(out, difference);
    }
    push_formatted(out, format_args!("],\"changes_may_be_missing\":{}", !missing.is_empty()));
    if !missing.is_empty() {
        push_member(out, "because", &missing.join("; "));
    }
    if let Some(Hole { reason, fix, rules, .. }) = hole {
        push_member(out, "not_covered", reason);
        push_member(out, "fix", fix);
        push_rules(out, "rules_stopped", rules);
    }
    if let Some(Hole { from_lsn, from_time, rules, .. }) = filled {
        // The hole as a whole: from the last look before it to the first one after it.
        push_bounds(out, ",\"covered_again\":{", (*from_lsn, *from_time), look.after);
        out.push('}');
        push_rules(out, "rules_that_work_again", rules);
    }
}

fn push_difference(out: &mut String, Difference { what, old, new }: &Difference) {
    out.push_str("{\"what\":");
    push_json_string(out, what.as_bytes(), usize::MAX);
    for (key, value) in [("old", old), ("new", new)] {
        if let Some(value) = value {
            push_member(out, key, value);
        }
    }
    out.push('}');
}

fn push_rules(out: &mut String, key: &str, rules: &[String]) {
    if rules.is_empty() {
        return;
    }
    push_formatted(out, format_args!(",\"{key}\":["));
    for (index, rule) in rules.iter().enumerate() {
        out.push_str(if index > 0 { "," } else { "" });
        push_json_string(out, rule.as_bytes(), usize::MAX);
    }
    out.push(']');
}

fn push_member(out: &mut String, key: &str, text: &str) {
    push_formatted(out, format_args!(",\"{key}\":"));
    push_json_string(out, text.as_bytes(), usize::MAX);
}

/// A mapping must not give its own events these types: then what is missing from the record would be one among them.
#[must_use]
pub fn check(mapping: &Mapping) -> Vec<MappingError> {
    let errors = mapping.declared().filter_map(|(event_type, ..)| {
        let name = event_type.get_ref();
        let taken = EVENT_TYPES.iter().find(|taken| taken.name == name)?;
        let message =
            format!("event type {:?} is one of those that tell what is covered", taken.name);
        Some(mapping.error(event_type.span(), message, Some("Choose another type.".to_owned())))
    });
    errors.collect()
}
