//! An event as one of OCSF 1.5.0 (<https://schema.ocsf.io/1.5.0/>). [`rule()`] says which class it is; what OCSF has no place for stands in `unmapped`.

mod table;

pub use table::{Class, Rule, rule};

use super::{
    encode::EncodeError,
    lines::{Known, end_line},
    row::EventRow,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::io::Write;
use table::{OTHER, Thing};
use uuid::fmt::Hyphenated;

/// The release of the schema that the events are valid by.
const VERSION: &str = "1.5.0";

/// OCSF's `severity_id`: Informational, Low, High.
const INFORMATIONAL: u8 = 1;
const LOW: u8 = 2;
const HIGH: u8 = 4;

#[derive(Serialize)]
struct Event<'a> {
    class_uid: u32,
    class_name: &'static str,
    category_uid: u32,
    activity_id: u32,
    activity_name: String,
    /// `class_uid` × 100 + `activity_id`.
    type_uid: u32,
    severity_id: u8,
    /// Milliseconds since 1970-01-01; `metadata.original_time` has the microseconds.
    time: i64,
    status_id: u8,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_detail: Option<&'a str>,
    metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<Actor<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entity: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Named<'a>>,
    unmapped: Unmapped<'a>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    version: &'static str,
    uid: &'a str,
    event_code: &'a str,
    log_name: &'static str,
    /// The source that was followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_provider: Option<&'a str>,
    original_time: String,
    product: Product,
}

#[derive(Serialize)]
struct Product {
    name: &'static str,
    vendor_name: &'static str,
}

#[derive(Serialize)]
struct Actor<'a> {
    user: Named<'a>,
}

/// OCSF's user, group, managed entity or service: the portal has no other key than the name.
#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'a str>,
}

impl<'a> Named<'a> {
    fn new(name: &'a str) -> Self {
        Self { name, uid: name, r#type: None }
    }

    fn of_type(name: &'a str, r#type: &'a str) -> Self {
        Self { r#type: Some(r#type), ..Self::new(name) }
    }
}

/// The row's own columns.
#[derive(Serialize)]
struct Unmapped<'a> {
    caller: &'a str,
    subject: &'a str,
    subject_type: &'a str,
    target: Option<&'a str>,
    payload: &'a RawValue,
}

/// What the class depends on beside the type.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Kind<'a> {
    #[serde(borrow)]
    kind: Option<&'a RawValue>,
}

/// Whether the target is the user that became or ceased to be a member: an organization has projects as members too.
fn is_user_member(event: &EventRow<'_>) -> bool {
    let kind: Kind<'_> = serde_json::from_str(event.payload).unwrap_or_default();
    kind.kind.is_none_or(|kind| !kind.get().contains("project"))
}

/// Writes an event as one line of OCSF.
pub(super) fn event(to: &mut impl Write, event: &EventRow<'_>) -> Result<(), EncodeError> {
    let rule = rule(event.event_type);
    let has_user = rule.class != Class::Group
        || !event.event_type.contains("_member_")
        || is_user_member(event);
    // A project that joins an organization is no user: then it is a change of the organization.
    let (class, activity) =
        if has_user { (rule.class, rule.activity) } else { (Class::Entity, OTHER) };
    let known = Known::of(event);
    let user = match class {
        Class::Account | Class::Authentication => Some(Named::new(event.subject)),
        Class::Group if event.event_type.contains("_member_") => event.target.map(Named::new),
        _ => None,
    };
    let entity = match rule.thing {
        Thing::Target(noun) => Named::of_type(event.target.unwrap_or(event.subject), noun),
        Thing::Subject => Named::of_type(event.subject, event.subject_type),
    };
    let mut id = [0; Hyphenated::LENGTH];
    let line = Event {
        class_uid: class.uid(),
        class_name: class.name(),
        category_uid: class.uid() / 1000,
        activity_id: activity,
        activity_name: activity_name(class, activity, event.event_type),
        type_uid: class.uid() * 100 + activity,
        severity_id: severity(class, event.success),
        time: event.timestamp.unix_micros().div_euclid(1000),
        status_id: if event.success { 1 } else { 2 },
        status: if event.success { "Success" } else { "Failure" },
        status_detail: event.error_message,
        metadata: Metadata {
            version: VERSION,
            uid: event.id(&mut id),
            event_code: event.event_type,
            log_name: "portal-audit",
            log_provider: known.source.as_deref(),
            original_time: event.timestamp.to_string(),
            product: Product { name: "portal-audit", vendor_name: "MergeTB" },
        },
        actor: (!event.caller.is_empty() && class != Class::ApplicationError)
            .then(|| Actor { user: Named::new(event.caller) }),
        user,
        group: (class == Class::Group).then(|| Named::of_type(event.subject, event.subject_type)),
        entity: (class == Class::Entity).then_some(entity),
        service: (class == Class::Authentication)
            .then(|| Named::new(known.source.as_deref().unwrap_or("portal"))),
        unmapped: Unmapped {
            caller: event.caller,
            subject: event.subject,
            subject_type: event.subject_type,
            target: event.target,
            payload: event.raw_payload()?,
        },
    };
    end_line(to, &line)
}

fn severity(class: Class, success: bool) -> u8 {
    match (class, success) {
        (Class::ApplicationError, _) => HIGH,
        (_, true) => INFORMATIONAL,
        (_, false) => LOW,
    }
}

/// The schema's caption; for Other the event type in words, as the schema asks for a name of the source's own.
fn activity_name(class: Class, activity: u32, event_type: &str) -> String {
    match class.activity(activity) {
        Some(name) => name.to_owned(),
        None => event_type.replace('_', " "),
    }
}
