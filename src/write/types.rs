//! Event types: those of a mapping, and our own.
//!
//! # Why the sidecar declares and does not decide
//! Retention takes what the class of a type says, so whoever may change a class may have the record removed. `portal_audit.declare_types` takes class and readers from the first declaration; a mapping that says otherwise later is told what an admin runs. Where the sidecar's login is an admin itself, as where it owns the schema, it runs that.

use super::{WriteError, Writer, answered};
use crate::{
    connect::Session,
    translate::{
        attempt,
        mapping::{Mapping, Retention},
        picture,
    },
};
use std::{collections::BTreeMap, time::Duration};
use tokio_postgres::{Row, types::ToSql};

/// An event type as it is declared: name, sentence, class, and who may see it.
pub(super) type Declared<'a> = (&'a str, &'a str, Retention, &'a [&'a str]);

/// An event type that is kept or seen otherwise than the mapping says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptType {
    pub event_type: String,
    /// SQL for an admin of the audit database, without its semicolon.
    pub fix: String,
}

impl KeptType {
    fn read(row: &Row) -> Self {
        Self { event_type: row.get(0), fix: row.get(1) }
    }
}

/// Columns of what is declared, as parameters.
#[derive(Debug, Default)]
struct Columns {
    names: Vec<String>,
    describe: Vec<String>,
    retention: Vec<&'static str>,
    visible_to: Vec<String>,
}

impl Columns {
    fn push(&mut self, (name, describe, retention, visible_to): Declared<'_>) {
        self.names.push(name.to_owned());
        self.describe.push(describe.to_owned());
        self.retention.push(retention.name());
        self.visible_to.push(visible_to.join(","));
    }

    /// Every type that a source with this mapping declares at its start. Several blocks may declare one type: the last counts.
    fn of(mapping: &Mapping) -> Self {
        let mut types = BTreeMap::new();
        for (event_type, describe, visible_to, retention) in mapping.declared() {
            let visible_to: Vec<&str> =
                visible_to.iter().map(|name| name.get_ref().as_str()).collect();
            types.insert(event_type.get_ref(), (describe.get_ref(), retention, visible_to));
        }
        let mut columns = Self::default();
        for (name, (describe, retention, visible_to)) in &types {
            columns.push((name, describe, *retention, visible_to));
        }
        for found in attempt::event_types(mapping) {
            columns.push((&found.name, found.describe, found.retention, found.visible_to));
        }
        for found in picture::EVENT_TYPES {
            let (retention, visible_to) =
                (picture::EventType::RETENTION, picture::EventType::VISIBLE_TO);
            columns.push((found.name, found.describe, retention, visible_to));
        }
        columns
    }

    async fn declare(
        &self,
        session: &Session,
        timeout: Duration,
    ) -> Result<Vec<KeptType>, WriteError> {
        const QUERY: &str =
            "SELECT event_type, fix FROM portal_audit.declare_types($1, $2, $3, $4)";
        let Self { names, describe, retention, visible_to } = self;
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let parameters: [&(dyn ToSql + Sync); 4] = [names, describe, retention, visible_to];
        let query = session.client.query(QUERY, &parameters);
        let rows = answered(timeout, "store event types", query).await?;
        Ok(rows.iter().map(KeptType::read).collect())
    }
}

/// Declares the event types of a mapping, all in one round trip: a session should begin fast, also over a slow line. Gives those that stay otherwise.
///
/// # Errors
/// The audit database does not answer or refuses.
pub async fn store_event_types(
    session: &Session,
    mapping: &Mapping,
    timeout: Duration,
) -> Result<Vec<KeptType>, WriteError> {
    const MAY: &str =
        "SELECT has_function_privilege('portal_audit.change_type(text, text, text[])', 'EXECUTE')";
    let kept = Columns::of(mapping).declare(session, timeout).await?;
    if kept.is_empty() {
        return Ok(kept);
    }
    let may = answered(timeout, "look at its privileges", session.client.query_one(MAY, &[]));
    if !may.await?.get::<_, bool>(0) {
        return Ok(kept);
    }
    for KeptType { fix, .. } in &kept {
        let changed = session.client.batch_execute(fix);
        answered(timeout, "change an event type", changed).await?;
    }
    Ok(Vec::new())
}

/// Event types that are kept or seen otherwise than this mapping says; reads only.
///
/// # Errors
/// The audit database does not answer or refuses.
pub async fn kept_types(
    session: &Session,
    mapping: &Mapping,
    timeout: Duration,
) -> Result<Vec<KeptType>, WriteError> {
    const QUERY: &str = "SELECT event_type, fix FROM portal_audit.types_kept($1, $2, $3)";
    let Columns { names, retention, visible_to, .. } = Columns::of(mapping);
    let parameters: [&(dyn ToSql + Sync); 3] = [&names, &retention, &visible_to];
    let query = session.client.query(QUERY, &parameters);
    let rows = answered(timeout, "look at event types", query).await?;
    Ok(rows.iter().map(KeptType::read).collect())
}

impl Writer {
    /// Declares types that no mapping does, when the first event of such a one is written.
    pub(super) async fn declare(
        &self,
        types: impl IntoIterator<Item = Declared<'_>>,
    ) -> Result<(), WriteError> {
        let mut columns = Columns::default();
        types.into_iter().for_each(|declared| columns.push(declared));
        columns.declare(&self.hand.session, self.timeout).await.map(drop)
    }
}
