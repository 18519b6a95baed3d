//! What stands in for an event that the audit database refuses for a reason of that event's own.
//!
//! # Why
//! A constraint or a trigger that somebody added to `events` may refuse one event and take all others. Waiting would stop the source for good, and leaving it out would be a hole without a word. So the hole is an event itself, with the same id: what was refused, and why, and no value of the row.

use super::{
    json::sha256_text,
    mapping::{Mapping, MappingError, Retention},
};
use crate::event::{Event, EventRow, Events, push_formatted, push_json_string};

/// Its type in `events` and in `portal_audit.event_types`.
pub const EVENT_TYPE: &str = "undeliverable";
/// Its sentence for people.
pub const DESCRIBE: &str = "the audit database refused an event {payload.event_type} of source {subject} with SQLSTATE {payload.sqlstate}";
/// Who may see it.
pub const VISIBLE_TO: &[&str] = &["admin"];
/// How long it is kept.
pub const RETENTION: Retention = Retention::Project;
const SUBJECT_TYPE: &str = "source";
/// The key that ends every payload.
const AUDIT_KEY: &str = "\"_audit\":{";

/// How the audit database refused an event. Its message is left out, because it may quote the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub sqlstate: String,
    /// The constraint that it names.
    pub constraint: Option<String>,
}

/// Adds the event that stands in for `event`, which tells a change of `relation`.
pub fn tell(
    source: &str,
    (event, relation): (&Event<'_>, Option<&str>),
    refusal: &Refusal,
    events: &mut Events,
) {
    let (event_type, ()) = events.write(|out| out.push_str(EVENT_TYPE));
    let (caller, ()) = events.write(|_| {});
    let (subject, ()) = events.write(|out| out.push_str(source));
    let (subject_type, ()) = events.write(|out| out.push_str(SUBJECT_TYPE));
    let (error_message, ()) = events.write(|out| {
        out.push_str("refused by the audit database: SQLSTATE ");
        out.push_str(&refusal.sqlstate);
    });
    let (payload, ()) = events.write(|out| push_payload(out, event, relation, refusal));
    events.push(EventRow {
        relation: 0,
        event_uuid: event.event_uuid,
        timestamp: event.timestamp,
        event_type,
        caller,
        subject,
        subject_type,
        target: None,
        success: false,
        error_message: Some(error_message),
        payload,
    });
}

fn push_payload(out: &mut String, event: &Event<'_>, relation: Option<&str>, refusal: &Refusal) {
    out.push('{');
    let subject_hash = sha256_text(event.subject.as_bytes());
    let constraint = refusal.constraint.as_deref();
    for (key, text) in [
        ("event_type", Some(event.event_type)),
        ("subject_type", Some(event.subject_type)),
        ("table", relation),
        ("sqlstate", Some(refusal.sqlstate.as_str())),
        ("constraint", constraint),
        ("subject_sha256", Some(subject_hash.as_str())),
    ] {
        let Some(text) = text else { continue };
        push_json_string(out, key.as_bytes(), usize::MAX);
        out.push(':');
        push_json_string(out, text.as_bytes(), usize::MAX);
        out.push(',');
    }
    push_formatted(out, format_args!("\"bytes\":{},", bytes(event)));
    // What stands in a value is behind a backslash, so the last one is ours. It holds where the change was, and nothing of the row.
    let audit = event.payload.rfind(AUDIT_KEY).and_then(|start| event.payload.get(start..));
    let audit = audit.unwrap_or("\"_audit\":{}}").to_owned();
    let from = ["row", "transaction", "context", "session"];
    let audit = from.iter().fold(audit, |audit, word| {
        audit.replace(&format!("\"caller_from\":\"{word}\""), "\"caller_from\":\"none\"")
    });
    out.push_str(&audit);
}

/// Bytes of all its texts.
fn bytes(event: &Event<'_>) -> usize {
    let Event { caller, subject, target, error_message, payload, .. } = event;
    let optional = [target, error_message].map(|text| text.map_or(0, str::len));
    caller.len() + subject.len() + payload.len() + optional.iter().sum::<usize>()
}

/// A mapping must not give its own events this type: then a stand-in would be one among them.
#[must_use]
pub fn check(mapping: &Mapping) -> Vec<MappingError> {
    let taken = mapping.declared().map(|(event_type, ..)| event_type);
    let taken = taken.filter(|event_type| event_type.get_ref() == EVENT_TYPE);
    let errors = taken.map(|event_type| {
        let message =
            format!("event type {EVENT_TYPE:?} is the one of events that cannot be written");
        mapping.error(event_type.span(), message, Some("Choose another type.".to_owned()))
    });
    errors.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp::Timestamp;

    #[test]
    fn a_stand_in_tells_what_was_refused_and_no_value() {
        let refused = Event {
            event_uuid: uuid::Uuid::from_u128(7),
            timestamp: Timestamp(5),
            event_type: "user_created",
            caller: "canary",
            subject: "canary",
            subject_type: "user",
            target: Some("canary"),
            success: true,
            error_message: None,
            payload: r#"{"note":"canary \"_audit\":{","_audit":{"source":"portal","lsn":"0/10","xid":7,"caller_from":"row"}}"#,
        };
        let refusal =
            Refusal { sqlstate: "23514".to_owned(), constraint: Some("theirs".to_owned()) };
        let mut events = Events::default();
        tell("portal", (&refused, Some("portal.users")), &refusal, &mut events);
        let event = events.iter().next().unwrap();
        assert_eq!((event.event_uuid, event.timestamp), (refused.event_uuid, refused.timestamp));
        assert_eq!((event.event_type, event.subject), ("undeliverable", "portal"));
        assert_eq!((event.caller, event.target, event.success), ("", None, false));
        let digest = sha256_text(b"canary");
        assert_eq!(
            event.payload,
            format!(
                r#"{{"event_type":"user_created","subject_type":"user","table":"portal.users","sqlstate":"23514","constraint":"theirs","subject_sha256":"{digest}","bytes":{},"_audit":{{"source":"portal","lsn":"0/10","xid":7,"caller_from":"none"}}}}"#,
                18 + refused.payload.len()
            )
        );
        assert!(!format!("{event:?}").contains("canary"));
    }

    #[test]
    fn its_type_is_taken() {
        let mapping = "[[event]]\ntable = \"public.users\"\non = \"insert\"\ntype = \"undeliverable\"\nsubject = \"username\"\nsubject_type = \"user\"\ndescribe = \"x\"\nvisible_to = [\"admin\"]\nretention = \"user\"\n";
        let errors = Mapping::parse("m.toml", mapping).unwrap_err().0;
        assert_eq!(errors.len(), 1, "{errors:?}");
    }
}
