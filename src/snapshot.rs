//! Tuples as of the slot's consistent point: they fill the names and, on request, give the events of rows that are older than the slot.
//!
//! The slot's own exported snapshot is read, so nothing falls between snapshot and stream, and nothing is in both. All of it is one audit transaction, which ends the state `creating`.

mod reconcile;

use crate::{
    catalog::{Catalog, SourceTable},
    connect::{self, Session},
    decode::{DecodeError, Message, ReplicaIdentity, TupleData, decode},
    lsn::Lsn,
    timestamp::Timestamp,
    translate::{
        Batch, Limits, Table, Translator,
        emit::{Mark, OldRow},
        gap::{Gap, GapEnd},
        mapping::{Mapping, MappingErrors},
        names::NameKey,
        needs::needs,
    },
    tuple::RowSpans,
    write::{End, WriteError, Writer},
};
use futures_util::TryStreamExt as _;
use reconcile::Chunk;
use std::{error::Error, pin::pin};
use tokio_postgres::types::{FromSql, ToSql, Type};

/// Why the snapshot was not taken. A server's report is not a source: see [`WriteError`].
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("cannot {action} in the source: {}", connect::describe(report))]
    Source { action: String, report: tokio_postgres::Error },
    #[error("the mapping does not fit the database")]
    Mapping(#[source] MappingErrors),
    #[error("a row of {table} cannot be read")]
    Row {
        table: String,
        #[source]
        source: DecodeError,
    },
    #[error("cannot write the snapshot")]
    Write(#[source] WriteError),
}

impl SnapshotError {
    /// The server's code, if it was a server.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Source { report, .. } => connect::sqlstate_of(report),
            Self::Write(error) => error.sqlstate(),
            Self::Mapping(_) | Self::Row { .. } => None,
        }
    }
}

/// What is read, as of when, and what becomes of it.
#[derive(Debug)]
pub struct Snapshot<'a> {
    pub session: &'a Session,
    pub catalog: &'a Catalog,
    pub mapping: &'a Mapping,
    /// The name under which the slot's creation exported it.
    pub name: &'a str,
    pub consistent_point: Lsn,
    /// The source's clock before the slot was created.
    pub time: Timestamp,
    /// Whether rows that exist become events.
    pub backfill: bool,
    /// The gap that ends here, and where. Then only rows that are younger than its beginning become events: the stream gave the others. What is known from before is compared with what is read.
    pub gap: Option<(Gap, GapEnd)>,
    pub limits: Limits,
}

/// What a table is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Purpose {
    Names,
    /// What happened in the gap.
    Compare,
    Events,
}

impl Snapshot<'_> {
    /// Reads what is wanted and writes it; then the source is no longer `creating`. Gives the number of events.
    ///
    /// # Errors
    /// The source refuses a table (the role needs SELECT on the columns that are read), or the audit database fails.
    pub async fn take(
        &self,
        translator: &mut Translator,
        writer: &mut Writer,
    ) -> Result<u64, SnapshotError> {
        let (batch, spans) = (Batch::default(), RowSpans::default());
        let mut pass = Pass { batch, spans, events: 0, upto: self.consistent_point };
        let within = self.within();
        let whole = self.forget(within.is_some(), writer).await.map_err(SnapshotError::Write)?;
        let wanted = self.wanted(within.is_some());
        if !wanted.is_empty() {
            self.begin().await?;
            for (purpose, table) in &wanted {
                let Some(table) = self.catalog.table(table) else { continue };
                let of_kratos = self.mapping.kratos.as_ref().filter(|_| *purpose == Purpose::Names);
                let of_kratos = of_kratos.filter(|kratos| kratos.table(&table.relation).is_some());
                let filter = of_kratos.map(|kratos| kratos.snapshot_filter(&table.relation));
                if let Some(filter) = filter.unwrap_or(Some("true")) {
                    let is_whole = whole.contains(&kind(&table.relation.qualified_name()));
                    let purpose = (*purpose, is_whole);
                    self.read(purpose, table, filter, &mut pass, translator, writer).await?;
                }
            }
            self.execute("end the snapshot", "COMMIT").await?;
        }
        self.remembers_all(writer).await.map_err(SnapshotError::Write)?;
        let end =
            End { end_lsn: self.consistent_point, last_commit: None, complete_to: Some(self.time) };
        if let Some((gap, end)) = &self.gap {
            let compared = within.map(|_| self.compared(&whole));
            let told = writer.end_gap(gap, end, compared.as_ref(), &mut pass.batch.events).await;
            told.map_err(SnapshotError::Write)?;
        }
        let events = pass.events + pass.batch.events.len() as u64;
        writer.write(&pass.batch, Some(end)).await.map_err(SnapshotError::Write)?;
        Ok(events)
    }

    /// What is read, and what for. A table with several rules is read once, and names before events, which need them.
    fn wanted(&self, compares: bool) -> Vec<(Purpose, String)> {
        let names = self.mapping.names.iter().map(|(_, names)| names.table.get_ref().clone());
        let remembered = self.mapping.remember.iter().map(|(table, _)| table.get_ref().clone());
        let kratos = self.mapping.kratos.iter();
        let kratos = kratos.flat_map(|kratos| kratos.tables().map(|(name, _)| name));
        let names = names.chain(remembered.clone()).chain(kratos);
        let rules = self.mapping.rules.iter().filter(|rule| rule.backfill.is_some());
        let events = rules.map(|rule| rule.table.get_ref().clone());
        let mut wanted: Vec<_> = names.map(|table| (Purpose::Names, table)).collect();
        if compares {
            wanted.extend(remembered.map(|table| (Purpose::Compare, table)));
        }
        if self.backfill || compares {
            wanted.extend(events.map(|table| (Purpose::Events, table)));
        }
        let mut seen = std::collections::HashSet::new();
        wanted.retain(|wanted| seen.insert(wanted.clone()));
        wanted
    }

    async fn execute(&self, action: &str, sql: &str) -> Result<(), SnapshotError> {
        let result = self.session.client.batch_execute(sql).await;
        result.map_err(|report| SnapshotError::Source { action: action.to_owned(), report })
    }

    /// `row_security = off` makes a policy an error: it would hide rows without a word.
    async fn begin(&self) -> Result<(), SnapshotError> {
        let name = self.name.replace('\'', "''");
        let begin = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT '{name}'; SET LOCAL row_security = off; SET LOCAL search_path = pg_catalog"
        );
        self.execute("use the slot's snapshot", &begin).await?;
        if self.catalog.server_encoding == "SQL_ASCII" {
            // As in the stream: such a database may hold bytes of no encoding, and converting them would be refused.
            let raw = "SET LOCAL client_encoding = 'SQL_ASCII'";
            self.execute("read bytes as they are", raw).await?;
        }
        Ok(())
    }

    /// What is selected of a table: a text of each column that is read, NULL for the others. PostgreSQL 14 publishes whole tables, and we may not read all of them, nor want to.
    fn columns(&self, table: &SourceTable) -> String {
        let needs = needs(self.mapping);
        let needs = needs.get(&table.relation.qualified_name());
        let is_needed = |name: &String| {
            needs.is_some_and(|needs| {
                let lists = [&needs.columns, &needs.old_columns, &needs.optional_columns];
                lists.iter().any(|list| list.contains(name))
            })
        };
        // Of a whole row everything is identity; what is not named is not read all the same.
        let is_full = table.relation.replica_identity == ReplicaIdentity::Full;
        let columns = table.relation.columns.iter().enumerate().map(|(position, column)| {
            let is_key = (column.key && !is_full) || table.primary_key.contains(&position);
            if !is_key && !is_needed(&column.name) {
                return "NULL::text".to_owned();
            }
            // The type's own output, as in the stream: a cast to text turns `t` into `true` and cuts the blanks of a char(n).
            let column = crate::wire::quote_identifier(&column.name);
            format!("CASE WHEN {column} IS DISTINCT FROM NULL THEN format('%s', {column}) END")
        });
        columns.collect::<Vec<_>>().join(", ")
    }

    async fn read(
        &self,
        (purpose, is_whole): (Purpose, bool),
        source_table: &SourceTable,
        filter: &str,
        pass: &mut Pass,
        translator: &mut Translator,
        writer: &mut Writer,
    ) -> Result<(), SnapshotError> {
        let relation = &source_table.relation;
        let name = relation.qualified_name();
        let table =
            Table::compile(self.mapping, relation.clone()).map_err(SnapshotError::Mapping)?;
        let quote = crate::wire::quote_identifier;
        let (columns, schema) = (self.columns(source_table), quote(&relation.namespace));
        let query =
            format!("SELECT {columns} FROM {schema}.{} WHERE {filter}", quote(&relation.name));
        let failed =
            |report| SnapshotError::Source { action: format!("read table {name}"), report };
        let parameters: [&(dyn ToSql + Sync); 0] = [];
        let rows = self.session.client.query_raw(&query, parameters).await.map_err(failed)?;
        let mut rows = pin!(rows);
        let (mut payload, mut chunk) = (Vec::new(), Chunk::new(is_whole));
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            write_insert(&mut payload, relation.oid, &row);
            let tuple = inserted(&table, &payload)?;
            match purpose {
                Purpose::Names => pass.feed(&table, tuple, translator, writer).await?,
                Purpose::Compare => {
                    chunk.add(&table, tuple, &payload, &mut pass.spans);
                    if chunk.is_full() {
                        self.compare(&table, &mut chunk, pass, translator, writer).await?;
                    }
                }
                Purpose::Events => {
                    let key = &source_table.primary_key;
                    let (consistent_point, snapshot_time) = (self.consistent_point, self.time);
                    let after = self.gap.as_ref().map(|(gap, _)| gap.told_to);
                    let mark = if self.backfill { Mark::Backfill } else { Mark::Inferred };
                    let old_row =
                        OldRow { tuple, key, consistent_point, snapshot_time, after, mark };
                    pass.backfill(&table, old_row, translator, writer).await?;
                }
            }
            pass.write_full(self.limits, writer).await?;
        }
        if purpose == Purpose::Compare {
            self.compare(&table, &mut chunk, pass, translator, writer).await?;
            self.compare_gone(&table, pass, translator, writer).await?;
        }
        Ok(())
    }
}

/// What the reading has gathered and not yet written.
struct Pass {
    batch: Batch,
    spans: RowSpans,
    /// Events already given to the writer.
    events: u64,
    /// As of when rows are read.
    upto: Lsn,
}

impl Pass {
    async fn feed(
        &mut self,
        table: &Table,
        tuple: TupleData<'_>,
        translator: &mut Translator,
        writer: &mut Writer,
    ) -> Result<(), SnapshotError> {
        loop {
            let missing = translator.feed_old_row(table, tuple, &mut self.spans, &mut self.batch);
            if missing.is_empty() {
                return Ok(());
            }
            self.look_up(&missing, translator, writer).await?;
        }
    }

    async fn look_up(
        &mut self,
        missing: &[NameKey],
        translator: &mut Translator,
        writer: &mut Writer,
    ) -> Result<(), SnapshotError> {
        // Names of this pass must be written before they are asked for.
        self.write(writer).await?;
        let found = writer.look_up(missing).await.map_err(SnapshotError::Write)?;
        for (key, name) in missing.iter().zip(found) {
            translator.put_name(key, name.as_deref());
        }
        Ok(())
    }

    async fn backfill(
        &mut self,
        table: &Table,
        old_row: OldRow<'_>,
        translator: &mut Translator,
        writer: &mut Writer,
    ) -> Result<(), SnapshotError> {
        loop {
            let missing = translator.backfill(table, old_row, &mut self.spans, &mut self.batch);
            if missing.is_empty() {
                return Ok(());
            }
            self.look_up(&missing, translator, writer).await?;
        }
    }

    async fn write_full(
        &mut self,
        limits: Limits,
        writer: &mut Writer,
    ) -> Result<(), SnapshotError> {
        let is_full = self.batch.held().is_full(limits.batch_events, limits.batch_bytes);
        if is_full { self.write(writer).await } else { Ok(()) }
    }

    async fn write(&mut self, writer: &mut Writer) -> Result<(), SnapshotError> {
        self.events += self.batch.events.len() as u64;
        self.batch.upto = self.upto;
        let batch = std::mem::take(&mut self.batch);
        writer.write(&batch, None).await.map_err(SnapshotError::Write)
    }
}

/// A kind of remembered rows, as [`Mapping::entities`] calls it.
fn kind(table: &str) -> String {
    format!("row.{table}")
}

/// The tuple of an INSERT's message.
fn inserted<'a>(table: &Table, payload: &'a [u8]) -> Result<TupleData<'a>, SnapshotError> {
    let row = |source| SnapshotError::Row { table: table.relation.qualified_name(), source };
    match decode(payload, false).map_err(row)? {
        (_, Message::Insert { new, .. }) => Ok(new),
        // It was written as one.
        _ => Err(row(DecodeError::UnknownTag { tag: 0 })),
    }
}

/// A text's bytes, of whatever encoding.
struct RawText<'a>(&'a [u8]);

impl<'a> FromSql<'a> for RawText<'a> {
    fn from_sql(_: &Type, bytes: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(bytes))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TEXT
    }
}

/// A row as pgoutput would have sent its INSERT, so that the snapshot goes the way of the stream.
fn write_insert(payload: &mut Vec<u8>, oid: u32, row: &tokio_postgres::Row) {
    payload.clear();
    payload.push(b'I');
    payload.extend_from_slice(&oid.to_be_bytes());
    payload.push(b'N');
    payload.extend_from_slice(&u16::try_from(row.len()).unwrap_or(u16::MAX).to_be_bytes());
    for position in 0..row.len() {
        match row.get::<_, Option<RawText<'_>>>(position) {
            None => payload.push(b'n'),
            Some(RawText(text)) => {
                payload.push(b't');
                let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                payload.extend_from_slice(&length.to_be_bytes());
                payload.extend_from_slice(text);
            }
        }
    }
}
