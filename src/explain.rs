//! One event of the audit database explained: which block of the live mapping makes it and from which columns, in which transaction, beside which other events. Reads only.

mod show;

pub use show::text;

use crate::{
    chain::chain,
    config::{Settings, Source},
    connect::{self, ConnectError, Session},
    conninfo::ConnInfo,
    show::{COLUMNS, ShownEvent},
    translate::{
        emit::TABLE_TRUNCATED,
        gap,
        mapping::{Mapping, RuleSpec},
        origin::origin,
        picture, stopped,
    },
};
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, ops::Deref};
use uuid::Uuid;

/// Why an event cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    #[error("cannot reach the audit database")]
    Connect(#[source] ConnectError),
    #[error("cannot read the audit database: {}{}", connect::describe(report), hint(report))]
    Query { report: tokio_postgres::Error },
    #[error("there is no event {event_uuid}")]
    Unknown { event_uuid: Uuid },
    #[error(
        "event {event_uuid} was not written by portal-audit: its payload has no _audit that names a source"
    )]
    OfOthers { event_uuid: Uuid },
    #[error(
        "event {event_uuid} is of source {source_name:?}, which the settings do not name; there are: {known}"
    )]
    OtherSource { event_uuid: Uuid, source_name: String, known: String },
}

/// The sidecar's own login may write events and not read them.
fn hint(error: &tokio_postgres::Error) -> &'static str {
    match connect::sqlstate_of(error) {
        Some("42501") => {
            ". Name a login that may read events: --audit \"host=… dbname=… user=…\" (GRANT portal_audit_reader TO it)"
        }
        Some("42P01") => ". Run what `portal-audit sql audit` prints on that database",
        _ => "",
    }
}

/// An event with all its columns; `payload` without `_audit`.
#[derive(Debug, Clone, Serialize)]
pub struct EventColumns {
    #[serde(flatten)]
    event: ShownEvent,
    /// Its sentence, filled.
    pub sentence: String,
    #[serde(skip)]
    audit: Value,
}

impl Deref for EventColumns {
    type Target = ShownEvent;

    fn deref(&self) -> &ShownEvent {
        &self.event
    }
}

/// Where it was committed.
#[derive(Debug, Serialize)]
pub struct CommitOf {
    pub source: String,
    /// Absent for a row that is older than the audit.
    pub xid: Option<u64>,
    /// Of the commit; of the snapshot for a row that is older than the audit.
    pub lsn: Option<String>,
    pub time: chrono::DateTime<chrono::Utc>,
}

/// A block of the live mapping that makes such events.
#[derive(Debug, Serialize)]
pub struct Block {
    /// `file:line`.
    pub place: String,
    pub table: String,
    /// Each column of `events`, and each key of the payload as `payload.KEY`, with what it rests on.
    pub columns: BTreeMap<String, String>,
    /// The block as it is written.
    pub text: String,
}

/// Everything that can be said of an event.
#[derive(Debug, Serialize)]
pub struct Explanation {
    pub event: EventColumns,
    pub transaction: CommitOf,
    /// How the caller is known, in words.
    pub caller: String,
    /// One, or several where the log does not say which of them it was; none for what no block makes.
    pub rules: Vec<Block>,
    /// What was done to its values, and what that means.
    pub flags: BTreeMap<String, String>,
    /// The event that caused it.
    pub cause: Option<EventColumns>,
    /// The other events of its transaction, in order.
    pub beside: Vec<EventColumns>,
    /// Why there is no rule, if so.
    pub note: Option<String>,
}

const FROM: &str =
    "FROM public.events e LEFT JOIN portal_audit.event_types t ON t.event_type = e.event_type";

/// Most of the other events that are read.
const BESIDE_MAX: i64 = 1_000;

/// Explains an event. `audit` is the audit database, as a role that may read events.
///
/// # Errors
/// There is no such event, it is not of a source of the settings, or the database refuses.
pub async fn explain(
    settings: &Settings,
    audit: &ConnInfo,
    event_uuid: Uuid,
) -> Result<Explanation, ExplainError> {
    let session = connect::connect(audit, "explain").await.map_err(ExplainError::Connect)?;
    let found = find(&session, event_uuid).await?;
    let event = found.ok_or(ExplainError::Unknown { event_uuid })?;
    let Some(source_name) = event.audit.get("source").and_then(Value::as_str).map(str::to_owned)
    else {
        return Err(ExplainError::OfOthers { event_uuid });
    };
    let source = settings.sources.iter().find(|source| source.name == source_name);
    let Some(source) = source else {
        let known: Vec<&str> = settings.sources.iter().map(|source| source.name.as_str()).collect();
        let known = known.join(", ");
        return Err(ExplainError::OtherSource { event_uuid, source_name, known });
    };
    let cause = event.audit.get("cause").and_then(Value::as_str);
    let cause = match cause.and_then(|cause| cause.parse().ok()) {
        Some(cause) => find(&session, cause).await?,
        None => None,
    };
    let beside = beside(&session, &event).await?;
    let text = |key: &str| event.audit.get(key).and_then(Value::as_str).map(str::to_owned);
    let rules = blocks(source, &event);
    Ok(Explanation {
        transaction: CommitOf {
            source: source_name,
            xid: event.audit.get("xid").and_then(Value::as_u64),
            lsn: text("lsn"),
            time: event.timestamp,
        },
        caller: caller(&text("caller_from").unwrap_or_default(), &event.caller),
        note: rules.is_empty().then(|| no_rule(source, &event.event_type)),
        rules,
        flags: flags(&event.audit),
        cause,
        beside,
        event,
    })
}

async fn find(session: &Session, event_uuid: Uuid) -> Result<Option<EventColumns>, ExplainError> {
    let query = format!("SELECT {COLUMNS}, t.describe {FROM} WHERE e.event_uuid = $1");
    let row = session.client.query_opt(&query, &[&event_uuid]).await;
    let row = row.map_err(|report| ExplainError::Query { report })?;
    Ok(row.as_ref().map(event))
}

/// The other events of the same transaction. They share the commit time, which has an index.
async fn beside(
    session: &Session,
    event: &EventColumns,
) -> Result<Vec<EventColumns>, ExplainError> {
    let query = format!(
        "SELECT {COLUMNS}, t.describe {FROM} WHERE e.timestamp = $1 AND e.event_uuid <> $2
            AND e.payload->'_audit'->'source' = $3 AND e.payload->'_audit'->'xid' = $4 AND e.payload->'_audit'->'lsn' = $5
          ORDER BY coalesce((e.payload->'_audit'->>'n')::bigint, 0) LIMIT {BESIDE_MAX}"
    );
    let part = |key: &str| event.audit.get(key).cloned().unwrap_or_default();
    let (source, xid, lsn) = (part("source"), part("xid"), part("lsn"));
    if xid.is_null() {
        return Ok(Vec::new());
    }
    let rows = session
        .client
        .query(&query, &[&event.timestamp, &event.event_uuid, &source, &xid, &lsn])
        .await
        .map_err(|report| ExplainError::Query { report })?;
    Ok(rows.iter().map(self::event).collect())
}

fn event(row: &tokio_postgres::Row) -> EventColumns {
    let mut event = ShownEvent::read(row);
    let audit = event.payload.as_object_mut().and_then(|payload| payload.shift_remove("_audit"));
    let describe: Option<String> = row.get(10);
    let sentence = event.sentence(&describe.unwrap_or_default());
    EventColumns { event, sentence, audit: audit.unwrap_or_default() }
}

/// The blocks that make such an event: of each table with its type, the one of its number.
fn blocks(source: &Source, event: &EventColumns) -> Vec<Block> {
    let mapping = &*source.mapping;
    let number = event.audit.get("rule").and_then(Value::as_u64).unwrap_or(0);
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let mut blocks = Vec::new();
    for rule in mapping.rules.iter().filter(|rule| *rule.event_type.get_ref() == event.event_type) {
        let place = seen.entry(rule.table.get_ref()).or_default();
        if *place == number && *rule.subject_type.get_ref() == event.subject_type {
            blocks.push(block(mapping, rule));
        }
        *place += 1;
    }
    blocks
}

fn block(mapping: &Mapping, rule: &RuleSpec) -> Block {
    let mut columns = BTreeMap::new();
    let single = [
        ("subject", Some(&rule.subject)),
        ("target", rule.target.as_ref()),
        ("caller", rule.caller.as_ref()),
        ("error_message", rule.error_message.as_ref()),
    ];
    for (key, value) in single {
        if let Some(value) = value {
            columns.insert(key.to_owned(), origin(mapping, rule, value));
        }
    }
    for (key, value) in &rule.payload {
        columns.insert(format!("payload.{}", key.get_ref()), origin(mapping, rule, value));
    }
    if !rule.success.is_empty() {
        let names: Vec<&str> =
            rule.success.keys().map(|column| column.get_ref().as_str()).collect();
        let table = rule.table.get_ref();
        columns.insert("success".to_owned(), format!("{table}.{}", names.join(", ")));
    }
    Block {
        place: mapping.place(mapping.block_span(rule)),
        table: rule.table.get_ref().clone(),
        columns,
        text: mapping.block(rule).to_owned(),
    }
}

fn no_rule(source: &Source, event_type: &str) -> String {
    let file = source.mapping.file();
    if event_type == TABLE_TRUNCATED {
        return "A TRUNCATE has no rows, so no block makes this event: portal-audit writes it for every table of the mapping.".into();
    }
    if event_type == gap::EVENT_TYPE {
        return "No change made it: changes are missing, somebody went on with --accept-gap, and portal-audit wrote from where to where.".into();
    }
    if event_type == stopped::CHANGE_UNMAPPED {
        return "A change of a table that no longer fits the mapping: portal-audit tells it raw. _audit and rules_stopped in the payload say where and which blocks stand still.".into();
    }
    if picture::EVENT_TYPES.iter().any(|known| known.name == event_type) {
        return "No change made it: portal-audit looks at the source's catalog again and again, and what it found was not as before.".into();
    }
    if let Some(place) = source.mapping.by_hand(event_type) {
        let place = source.mapping.place(place);
        return format!(
            "A translator in Rust makes it, switched on at {place}: what it tells rests on more than one row."
        );
    }
    format!(
        "No block of {file} gives it now: the mapping has changed since, or portal-audit writes this type by itself."
    )
}

fn caller(from: &str, caller: &str) -> String {
    match from {
        "row" => "a column of the row names the caller",
        "transaction" => "another row of the same transaction names the caller",
        "context" => "a logical message of the transaction names the caller: evidence, not proof",
        "session" => "inferred from who was logged in then",
        "none" => "nothing in the transaction names the caller",
        _ if caller.is_empty() => "it is not recorded how the caller could be known",
        _ => "it is not recorded how the caller is known",
    }
    .to_owned()
}

/// The flags of `_audit`, in words.
fn flags(audit: &Value) -> BTreeMap<String, String> {
    const PLACE: [&str; 7] = ["source", "lsn", "xid", "n", "caller_from", "rule", "cause"];
    let meaning = |flag: &str| match flag {
        "backfill" => {
            "the row is older than the audit: it was read when the audit began, with its values of that moment"
        }
        "truncated" => "a value was longer than the limit: it was cut, or stands as its SHA-256",
        "escaped" => {
            "a value held what the table cannot, a NUL or a byte that is not UTF-8: it stands as a visible escape"
        }
        "redacted" => "a value looked like a secret and was replaced",
        "unchanged" => "a large value that did not change was not sent, and is left out",
        "unresolved" => "a key has no name that is known, and stands for itself",
        "inferred" => "it was concluded from other rows, not read",
        _ => "see the documentation of this version",
    };
    let keys = audit.as_object().into_iter().flat_map(serde_json::Map::keys);
    let flags = keys.filter(|key| !PLACE.contains(&key.as_str()));
    flags.map(|flag| (flag.clone(), meaning(flag).to_owned())).collect()
}

/// The parameters of the audit database: those of the settings, or others for a login that may read events.
///
/// # Errors
/// The other parameters cannot be read.
pub fn audit_conninfo(settings: &Settings, other: Option<&str>) -> Result<ConnInfo, String> {
    match other {
        None => Ok(settings.audit.clone()),
        Some(text) => crate::config::conninfo(text).map_err(|error| chain(&error)),
    }
}
