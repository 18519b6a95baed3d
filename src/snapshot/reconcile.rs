//! What happened in a gap, as far as rows before and after it tell: what is remembered of rows is set aside before the snapshot is read, and compared with it a chunk at a time.

use super::{Pass, Snapshot, SnapshotError, inserted, kind};
use crate::{
    catalog::SourceTable,
    decode::{Message, OldTuple, ReplicaIdentity, TupleData, decode},
    translate::{
        Table, Translator,
        gap::{Compared, Gap},
        infer::{Found, Within},
    },
    tuple::{Operation, RowSpans},
    write::{WriteError, Writer},
};
use std::sync::Arc;

/// Rows that are compared by one question to the audit database, and their bytes.
const CHUNK_ROWS_MAX: usize = 500;
const CHUNK_BYTES_MAX: usize = 4 << 20;

/// Rows that are yet to be compared, by their keys.
#[derive(Debug)]
pub(super) struct Chunk {
    keys: Vec<String>,
    rows: Vec<Vec<u8>>,
    bytes: usize,
    /// Whether a row that is not known did not exist before the gap.
    is_whole: bool,
}

impl Chunk {
    pub(super) fn new(is_whole: bool) -> Self {
        Self { keys: Vec::new(), rows: Vec::new(), bytes: 0, is_whole }
    }

    /// Takes a row, as the message of its INSERT.
    pub(super) fn add(
        &mut self,
        table: &Table,
        tuple: TupleData<'_>,
        payload: &[u8],
        spans: &mut RowSpans,
    ) {
        if let Some(key) = Translator::remembered_key(table, tuple, spans) {
            self.keys.push(key);
            self.rows.push(payload.to_vec());
            self.bytes += payload.len();
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= CHUNK_ROWS_MAX || self.bytes >= CHUNK_BYTES_MAX
    }
}

impl Snapshot<'_> {
    /// The gap that is looked into; `None` if there is none, or the rows are of another database.
    pub(super) fn within(&self) -> Option<Within> {
        let (gap, end) = self.gap.as_ref().filter(|(gap, end)| !gap.is_elsewhere(end.now))?;
        let Gap { from_lsn, from_time, told_to, .. } = *gap;
        Some(Within { from_lsn, from_time, told_to, to_lsn: end.lsn, to_time: end.time })
    }

    /// What an earlier life of the source left is not how it is now; in another database it is not even about the same things. Gives the kinds of which everything was remembered.
    pub(super) async fn forget(
        &self,
        compares: bool,
        writer: &mut Writer,
    ) -> Result<Vec<String>, WriteError> {
        if self.gap.is_some() && !compares {
            writer.forget_all().await?;
            return Ok(Vec::new());
        }
        let mut whole = Vec::new();
        if compares {
            whole = writer.whole_kinds().await?;
            let remembered = self.mapping.remember.iter();
            let kinds: Vec<String> = remembered.map(|(table, _)| kind(table.get_ref())).collect();
            writer.set_aside(&kinds).await?;
        }
        let stale = self.mapping.states();
        let stale: Vec<&str> = stale.iter().map(String::as_str).collect();
        writer.forget(&stale).await?;
        Ok(whole)
    }

    /// Whether rows of a table are remembered: not where the log itself carries them whole.
    fn remembers(&self, table: &str) -> bool {
        let is_full =
            |table: &SourceTable| table.relation.replica_identity == ReplicaIdentity::Full;
        self.mapping.remember.iter().any(|(own, _)| own.get_ref() == table)
            && self.catalog.table(table).is_some_and(|table| !is_full(table))
    }

    /// From this snapshot on, of each table that is there. What nobody compared goes.
    pub(super) async fn remembers_all(&self, writer: &mut Writer) -> Result<(), WriteError> {
        let tables = self.mapping.remember.iter().map(|(table, _)| table.get_ref());
        let (here, gone): (Vec<&String>, Vec<&String>) =
            tables.partition(|table| self.remembers(table));
        for table in gone {
            while !writer.take_rest(&kind(table)).await?.is_empty() {}
        }
        let kinds: Vec<String> = here.into_iter().map(|table| kind(table)).collect();
        if kinds.is_empty() { Ok(()) } else { writer.set_whole(&kinds).await }
    }

    /// What the gap's event says of each table with rules.
    pub(super) fn compared(&self, whole: &[String]) -> Compared {
        let mut compared = Compared::default();
        let kratos = self.mapping.kratos.iter();
        let kratos = kratos.flat_map(crate::translate::kratos::spec::KratosSpec::tables);
        let rules = self.mapping.rules.iter().map(|rule| rule.table.get_ref().clone());
        let mut tables: Vec<String> = rules.chain(kratos.map(|(name, _)| name)).collect();
        tables.sort();
        tables.dedup();
        for table in tables {
            let is_remembered = self.remembers(&table);
            let mut rules = self.mapping.rules.iter();
            let is_dated =
                rules.any(|rule| *rule.table.get_ref() == table && rule.backfill.is_some());
            let list = if is_remembered && whole.contains(&kind(&table)) {
                &mut compared.whole
            } else if is_remembered || is_dated {
                &mut compared.parts
            } else {
                &mut compared.not
            };
            list.push(table);
        }
        compared
    }

    /// Compares the rows of a chunk with what is known of them, and empties it.
    pub(super) async fn compare(
        &self,
        table: &Table,
        chunk: &mut Chunk,
        pass: &mut Pass,
        translator: &mut Translator,
        writer: &mut Writer,
    ) -> Result<(), SnapshotError> {
        let kind = kind(&table.relation.qualified_name());
        let known = writer.take_aside(&kind, &chunk.keys).await.map_err(SnapshotError::Write)?;
        for (payload, known) in chunk.rows.iter().zip(known) {
            if known.is_some() || chunk.is_whole {
                let found = Found::Row(inserted(table, payload)?);
                self.infer(table, (found, known.as_deref()), pass, translator, writer).await?;
            }
        }
        *chunk = Chunk::new(chunk.is_whole);
        Ok(())
    }

    /// What was known and is not there any more.
    pub(super) async fn compare_gone(
        &self,
        table: &Table,
        pass: &mut Pass,
        translator: &mut Translator,
        writer: &mut Writer,
    ) -> Result<(), SnapshotError> {
        let name = table.relation.qualified_name();
        let mut payload = Vec::new();
        loop {
            let rest = writer.take_rest(&kind(&name)).await.map_err(SnapshotError::Write)?;
            if rest.is_empty() {
                return Ok(());
            }
            for (key, known) in rest {
                if !write_delete(&mut payload, table, &key) {
                    // A key that stands as its hash: that it is gone is all that can be said.
                    let unnamed = (Arc::from(name.as_str()), Operation::Delete);
                    *pass.batch.unmapped.entry(unnamed).or_default() += 1;
                    continue;
                }
                let failed = |source| SnapshotError::Row { table: name.clone(), source };
                let (_, message) = decode(&payload, false).map_err(failed)?;
                if let Message::Delete { old: OldTuple::Key(old) | OldTuple::Full(old), .. } =
                    message
                {
                    let found = (Found::Gone(old), Some(known.as_str()));
                    self.infer(table, found, pass, translator, writer).await?;
                }
            }
        }
    }

    async fn infer(
        &self,
        table: &Table,
        found: (Found<'_>, Option<&str>),
        pass: &mut Pass,
        translator: &mut Translator,
        writer: &mut Writer,
    ) -> Result<(), SnapshotError> {
        let Some(within) = self.within() else { return Ok(()) };
        loop {
            let Pass { batch, spans, .. } = pass;
            let missing = translator.infer(table, found, &within, spans, batch);
            if missing.is_empty() {
                return pass.write_full(self.limits, writer).await;
            }
            pass.look_up(&missing, translator, writer).await?;
        }
    }
}

/// The DELETE of a row of which only the key is known, as pgoutput would have sent it; `false` if the key cannot be read.
fn write_delete(payload: &mut Vec<u8>, table: &Table, key: &str) -> bool {
    let Some(columns) = table.remembered_by() else { return false };
    let values: Vec<String> = match columns {
        [_] => vec![key.to_owned()],
        _ => serde_json::from_str(key).unwrap_or_default(),
    };
    if values.len() != columns.len() {
        return false;
    }
    payload.clear();
    payload.push(b'D');
    payload.extend_from_slice(&table.relation.oid.to_be_bytes());
    payload.push(b'K');
    let count = table.relation.columns.len();
    payload.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
    for position in 0..count {
        let place = columns.iter().position(|column| *column == position);
        match place.and_then(|place| values.get(place)) {
            None => payload.push(b'n'),
            Some(value) => {
                payload.push(b't');
                let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
                payload.extend_from_slice(&length.to_be_bytes());
                payload.extend_from_slice(value.as_bytes());
            }
        }
    }
    true
}
