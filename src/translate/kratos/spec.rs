//! What the mapping says of Kratos, and which of its tables and columns are read.

use super::super::{
    mapping::{Mapping, MappingError, Retention, meant_or_known},
    needs::TableNeeds,
    value::{Name, parse_path},
};
use crate::tuple::Relation;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use toml::Spanned;

/// How long a login may take from its flow's last word to its session, if the mapping does not say.
const WINDOW_SECONDS: u32 = 30;
/// A longer window would hold "complete to" back for too long.
const WINDOW_SECONDS_MAX: u32 = 3_600;

/// The table `[kratos]` of a mapping.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KratosSpec {
    /// The schema of Kratos' tables.
    pub schema: Name,
    /// JSONPaths into `identities.traits`; the first that finds a text is the username.
    pub username: Vec<Name>,
    /// How long a login without a session waits for one before it counts as failed.
    pub soft_failure_seconds: Option<Spanned<u32>>,
    /// One block for each event type.
    #[serde(default)]
    pub event: Vec<DeclaredSpec>,
}

/// An event type that no rule makes: what people are told of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredSpec {
    #[serde(rename = "type")]
    pub event_type: Name,
    pub describe: Name,
    #[serde(default)]
    pub visible_to: Vec<Name>,
    pub retention: Spanned<Retention>,
}

/// Every event type of the translator, with the keys that its payload may have.
pub const EVENT_TYPES: &[(&str, &[&str])] = &[
    ("identity_registered", &[]),
    ("identity_updated", &["changed", "old_username"]),
    ("identity_deactivated", &[]),
    ("identity_activated", &[]),
    ("identity_deleted", &[]),
    ("login_succeeded", &["method", "aal", "type", "ip", "user_agent"]),
    ("login_failed", &["method", "reason", "type", "refresh", "aal"]),
    ("login_refreshed", &["method", "aal", "old_aal", "type"]),
    ("logout", &["by"]),
    ("account_recovered", &["method", "aal", "ip", "user_agent"]),
    ("password_changed", &["by"]),
    ("credentials_changed", &["by", "methods"]),
];

/// A table of Kratos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    CredentialTypes,
    Identities,
    Credentials,
    Identifiers,
    Sessions,
    Devices,
    LoginFlows,
    SettingsFlows,
}

/// What is read of it.
#[derive(Debug, PartialEq, Eq)]
pub struct TableSpec {
    pub kind: Kind,
    pub name: &'static str,
    pub columns: &'static [&'static str],
    /// Columns that not every version has.
    pub optional: &'static [&'static str],
    /// Those of which the old value is read.
    pub old: &'static [&'static str],
    /// Whether some versions lack the table.
    pub is_optional: bool,
    /// Which rows the first snapshot reads; none if it reads none.
    pub snapshot: Option<&'static str>,
}

/// In the order of the first snapshot: an identifier needs its credential, a session its identity. No column here is a secret but `ui`, of which message ids and the identifier node alone are read.
pub const TABLES: &[TableSpec] = &[
    TableSpec {
        kind: Kind::CredentialTypes,
        name: "identity_credential_types",
        columns: &["id", "name"],
        optional: &[],
        old: &[],
        is_optional: false,
        snapshot: Some("true"),
    },
    TableSpec {
        kind: Kind::Identities,
        name: "identities",
        columns: &["id", "traits", "created_at"],
        optional: &["state"],
        old: &["id", "traits"],
        is_optional: false,
        snapshot: Some("true"),
    },
    TableSpec {
        kind: Kind::Credentials,
        name: "identity_credentials",
        columns: &["id", "identity_id", "identity_credential_type_id"],
        optional: &["created_at"],
        old: &[],
        is_optional: false,
        snapshot: Some("true"),
    },
    TableSpec {
        kind: Kind::Identifiers,
        name: "identity_credential_identifiers",
        columns: &["id", "identifier", "identity_credential_id"],
        optional: &["identity_credential_type_id", "identity_id"],
        old: &["identifier", "identity_credential_id"],
        is_optional: false,
        snapshot: Some("true"),
    },
    TableSpec {
        kind: Kind::Sessions,
        name: "sessions",
        columns: &["id", "identity_id", "active", "issued_at", "authenticated_at", "expires_at"],
        optional: &["aal", "authentication_methods", "created_at"],
        old: &[],
        is_optional: false,
        snapshot: Some("active AND expires_at > now() AT TIME ZONE 'UTC'"),
    },
    TableSpec {
        kind: Kind::Devices,
        name: "session_devices",
        columns: &["id", "session_id", "ip_address", "user_agent"],
        optional: &[],
        old: &[],
        is_optional: true,
        snapshot: None,
    },
    TableSpec {
        kind: Kind::LoginFlows,
        name: "selfservice_login_flows",
        columns: &["id", "type", "active_method", "issued_at", "ui"],
        optional: &["state", "submit_count", "forced", "requested_aal"],
        old: &[],
        is_optional: false,
        // Flows live for about an hour, but rows of old ones stay until they are cleaned up.
        snapshot: Some("issued_at > now() AT TIME ZONE 'UTC' - interval '1 day'"),
    },
    TableSpec {
        kind: Kind::SettingsFlows,
        name: "selfservice_settings_flows",
        columns: &["id", "identity_id", "state"],
        optional: &["type"],
        old: &[],
        is_optional: false,
        snapshot: None,
    },
];

impl KratosSpec {
    /// The window in microseconds.
    #[must_use]
    pub fn window_micros(&self) -> i64 {
        let seconds = self.soft_failure_seconds.as_ref().map(|seconds| *seconds.get_ref());
        i64::from(seconds.unwrap_or(WINDOW_SECONDS)).saturating_mul(1_000_000)
    }

    /// The qualified names of its tables, in the order of the first snapshot.
    pub fn tables(&self) -> impl Iterator<Item = (String, &'static TableSpec)> {
        TABLES.iter().map(|table| (format!("{}.{}", self.schema.get_ref(), table.name), table))
    }

    /// Whether a table may be missing: not every version has it.
    #[must_use]
    pub fn is_optional(&self, qualified_name: &str) -> bool {
        self.tables().any(|(name, table)| table.is_optional && name == qualified_name)
    }

    /// Which rows of a relation the first snapshot reads, as a condition in SQL.
    #[must_use]
    pub fn snapshot_filter(&self, relation: &Relation) -> Option<&'static str> {
        self.table(relation)?.snapshot
    }

    /// What is read of a relation.
    #[must_use]
    pub fn table(&self, relation: &Relation) -> Option<&'static TableSpec> {
        let is_here = relation.namespace == *self.schema.get_ref();
        TABLES.iter().find(|table| is_here && table.name == relation.name)
    }

    /// Adds what is read to the needs of the mapping.
    pub fn needs(&self, needs: &mut BTreeMap<String, TableNeeds>) {
        let words = |words: &'static [&str]| words.iter().map(|word| (*word).to_owned());
        for (name, table) in self.tables() {
            let is_new = !needs.contains_key(&name);
            let needs = needs.entry(name).or_default();
            needs.columns.extend(words(table.columns));
            needs.old_columns.extend(words(table.old));
            needs.optional_columns.extend(words(table.optional));
            needs.is_optional = is_new && table.is_optional;
        }
    }

    /// The faults that can be found without a database.
    pub fn check(&self, mapping: &Mapping) -> Vec<MappingError> {
        let mut errors = Vec::new();
        if self.username.is_empty() {
            let hint = "Write username = [\"$.username\"]: where the traits have it.".to_owned();
            let message = "no path says what a username is".to_owned();
            errors.push(mapping.error(self.schema.span(), message, Some(hint)));
        }
        for path in &self.username {
            if let Err(message) = parse_path(path.get_ref()) {
                let (message, hint) = message.split_once('\n').unwrap_or((&message, ""));
                let hint = Some(hint).filter(|hint| !hint.is_empty()).map(str::to_owned);
                errors.push(mapping.error(path.span(), message.to_owned(), hint));
            }
        }
        if let Some(seconds) = &self.soft_failure_seconds
            && !(1..=WINDOW_SECONDS_MAX).contains(seconds.get_ref())
        {
            let message =
                format!("soft_failure_seconds must be between 1 and {WINDOW_SECONDS_MAX}");
            errors.push(mapping.error(seconds.span(), message, None));
        }
        self.check_types(mapping, &mut errors);
        errors
    }

    /// Every type is declared once, and its sentence names what it has.
    fn check_types(&self, mapping: &Mapping, errors: &mut Vec<MappingError>) {
        let known: Vec<&str> = EVENT_TYPES.iter().map(|(name, _)| *name).collect();
        let mut seen = BTreeSet::new();
        for declared in &self.event {
            let word = declared.event_type.get_ref().as_str();
            let place = declared.event_type.span();
            let Some((_, payload)) = EVENT_TYPES.iter().find(|(name, _)| *name == word) else {
                let hint = meant_or_known(word, "There are", &known);
                let message = format!("the Kratos translator makes no event {word:?}");
                errors.push(mapping.error(place, message, hint));
                continue;
            };
            if !seen.insert(word) {
                let message = format!("event type {word:?} is declared twice");
                errors.push(mapping.error(place, message, Some("Remove one.".to_owned())));
            }
            errors.extend(check_sentence(mapping, declared, payload));
        }
        let missing: Vec<&str> = known.into_iter().filter(|name| !seen.contains(name)).collect();
        if !missing.is_empty() {
            let message = format!("event types are not declared: {}", missing.join(", "));
            let hint = "Give each a block [[kratos.event]] with type, describe and retention.";
            errors.push(mapping.error(self.schema.span(), message, Some(hint.to_owned())));
        }
    }

    /// What a relation lacks; `unpublished` are the columns that the table has and the publication leaves out, where the catalog is known.
    pub fn check_relation(
        &self,
        mapping: &Mapping,
        relation: &Relation,
        unpublished: Option<&[String]>,
    ) -> Vec<MappingError> {
        let Some(table) = self.table(relation) else { return Vec::new() };
        let name = relation.qualified_name();
        let left_out = unpublished.unwrap_or_default();
        let has_left_out = |column: &str| left_out.iter().any(|other| other == column);
        let mut errors = Vec::new();
        let mut error = |message: String, hint: &str| {
            errors.push(mapping.error(self.schema.span(), message, Some(hint.to_owned())));
        };
        for column in table.columns.iter().chain(table.optional) {
            let is_required = table.columns.contains(column);
            match relation.position(column) {
                Some(position) if table.old.contains(column) && !relation.carries_old(position) => {
                    let message =
                        format!("the replica identity of {name} does not carry the old {column:?}");
                    error(message, RUN_SOURCE_SQL);
                }
                Some(_) => {}
                None if has_left_out(column) => {
                    error(format!("column {column:?} of {name} is not published"), RUN_SOURCE_SQL);
                }
                None if is_required && unpublished.is_none() => {
                    error(format!("{name} publishes no column {column:?}"), RUN_SOURCE_SQL);
                }
                None if is_required => {
                    let hint = "Kratos from 0.6 to 26 has it. Does \"schema\" name the schema of Kratos' tables?";
                    error(format!("table {name} has no column {column:?}"), hint);
                }
                None => {}
            }
        }
        errors
    }
}

const RUN_SOURCE_SQL: &str = "Run what `portal-audit sql source` prints on that database.";

fn check_sentence(
    mapping: &Mapping,
    declared: &DeclaredSpec,
    payload: &[&str],
) -> Vec<MappingError> {
    let sentence = declared.describe.get_ref();
    let fixed = ["caller", "subject", "subject_type", "error_message", "timestamp"];
    let mut known: Vec<String> = fixed.map(str::to_owned).into();
    known.extend(payload.iter().map(|key| format!("payload.{key}")));
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let placeholders =
        sentence.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(word, _)| word);
    let unknown = placeholders.filter(|placeholder| !known.contains(placeholder));
    unknown
        .map(|placeholder| {
            let part = declared.describe.span();
            let place = mapping.place_within(part, &format!("{{{placeholder}"));
            let hint = meant_or_known(placeholder, "It has", &known);
            let message = format!("the event has no {placeholder:?} for its sentence");
            mapping.error(place, message, hint)
        })
        .collect()
}
