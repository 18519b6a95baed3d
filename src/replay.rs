//! The stream recorded, and run again through two mappings: what a change of a mapping changes.
//!
//! ```text
//!  source ─frames─▶ record ─▶ file ─▶ Assembler ─▶ Transaction ─┬─▶ Translator(old) ─▶ events ─┐
//!                                                               └─▶ Translator(new) ─▶ events ─┴▶ differences
//! ```
//! The file is read once and in order; the events of one transaction are in memory twice. Names of keys come from the recorded rows alone: a key that none of them names stands for itself, on both sides.

mod file;
mod record;
mod show;

pub use file::{Header, Reader, RecordingError};
pub use record::{RecordError, record};
pub use show::text;

use crate::{
    event::{Event, Origin},
    transaction::{Assembler, Transaction, TransactionError},
    translate::{
        Batch, Limits, Step, TranslateError, Translator,
        mapping::{Mapping, RuleSpec},
    },
};
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
};

/// Differences that are kept one by one; the numbers are of all.
pub const DIFFERENCES_MAX: usize = 1_000;
/// Memory for unfinished transactions; beyond, they wait in an unnamed file.
const TRANSACTION_MEMORY_BYTES: usize = 16 << 20;
/// As in the pipeline, but for the batch: a transaction is compared as a whole.
const LIMITS: Limits = Limits {
    names: NonZeroUsize::MIN.saturating_add(100_000),
    value_bytes: 64 << 10,
    batch_events: usize::MAX,
    batch_bytes: usize::MAX,
};
/// Parts of `_audit` that say where an event stands, not what it is.
const PLACES: [&str; 2] = ["n", "rule"];

/// Why a recording cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("cannot read the recording")]
    Recording(#[source] RecordingError),
    #[error("the recorded stream cannot be read")]
    Transaction(#[source] TransactionError),
    #[error("the {side} mapping cannot translate the recorded stream")]
    Translate {
        side: &'static str,
        #[source]
        source: TranslateError,
    },
}

/// In what an event differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Only the old mapping gives it.
    OnlyBefore,
    /// Only the new mapping gives it.
    OnlyAfter,
    /// Both give it, and not alike.
    Changed,
    /// Both give it alike, under different ids: the number of its block has changed.
    OtherId,
}

/// One event that is not the same on both sides.
#[derive(Debug, Serialize)]
pub struct Difference {
    pub kind: Kind,
    pub xid: u32,
    pub lsn: String,
    pub event_type: String,
    pub subject: String,
    /// Each column, or key of the payload as `payload.KEY`, before and after.
    pub fields: BTreeMap<String, [Value; 2]>,
}

/// Numbers before and after.
pub type Counts = BTreeMap<String, [u64; 2]>;

/// What two mappings make of one recording.
#[derive(Debug, Default, Serialize)]
pub struct Comparison {
    pub before: String,
    pub after: String,
    pub transactions: u64,
    pub changes: u64,
    /// Whether the recording ends inside a transaction, which is left out.
    pub is_cut: bool,
    /// Events by type.
    pub types: Counts,
    /// Changes without an event, by table and operation.
    pub unmapped: Counts,
    pub only_before: u64,
    pub only_after: u64,
    pub changed: u64,
    pub other_id: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
    /// Event types whose sentence, audience or retention differs.
    pub described: Vec<String>,
    /// Tables of the new mapping that the recording does not describe: no change of them was recorded.
    pub silent: Vec<String>,
}

impl Comparison {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.only_before + self.only_after + self.changed + self.other_id == 0
            && self.described.is_empty()
    }
}

/// One mapping with its translator.
struct Side {
    name: &'static str,
    translator: Translator,
    batch: Batch,
}

impl Side {
    fn new(name: &'static str, origin: Origin, source: &str, mapping: &Arc<Mapping>) -> Self {
        let translator = Translator::new(origin, source, Arc::clone(mapping), LIMITS).strict();
        Self { name, translator, batch: Batch::default() }
    }

    fn translate(&mut self, transaction: &Transaction) -> Result<(), ReplayError> {
        let side = self.name;
        let failed = |source| ReplayError::Translate { side, source };
        let mut translation = self.translator.begin(transaction);
        loop {
            let step = self.translator.advance(transaction, &mut translation, &mut self.batch);
            match step.map_err(failed)? {
                Step::Done => return Ok(()),
                // Only the names of one batch could fill it: they are not needed here.
                Step::Full => self.batch.names.clear(),
                Step::Names(keys) => {
                    for key in keys {
                        self.translator.put_name(&key, None);
                    }
                }
            }
        }
    }
}

/// Runs a recording through two mappings.
///
/// # Errors
/// The recording cannot be read, or does not fit a mapping.
pub fn compare(
    mut recording: Reader,
    before: &Arc<Mapping>,
    after: &Arc<Mapping>,
) -> Result<Comparison, ReplayError> {
    let Header { source, system_identifier, database_oid, .. } = recording.header();
    let origin = Origin { system_identifier: *system_identifier, database_oid: *database_oid };
    let mut sides =
        [Side::new("old", origin, source, before), Side::new("new", origin, source, after)];
    let mut comparison = Comparison {
        before: before.file().to_owned(),
        after: after.file().to_owned(),
        described: described(before, after),
        ..Comparison::default()
    };
    let mut assembler = Assembler::new(TRANSACTION_MEMORY_BYTES, PathBuf::from("/tmp"));
    let mut seen = BTreeSet::new();
    while let Some((wal_start, payload)) =
        recording.next_message().map_err(ReplayError::Recording)?
    {
        seen.extend(file::described_table(&payload));
        let pushed = assembler.push(wal_start, &payload).map_err(ReplayError::Transaction)?;
        let Some(transaction) = pushed else { continue };
        for side in &mut sides {
            side.translate(&transaction)?;
        }
        comparison.transactions += 1;
        comparison.changes += transaction.changes;
        let [old, new] = &mut sides;
        comparison.transaction(&transaction, &old.batch, &new.batch);
        old.batch = Batch::default();
        new.batch = Batch::default();
        assembler.recycle(transaction);
    }
    comparison.is_cut = assembler.is_inside();
    let tables = after.tables();
    comparison.silent = tables.into_iter().filter(|table| !seen.contains(table)).collect();
    Ok(comparison)
}

/// Event types of both mappings that are not described alike.
fn described(before: &Mapping, after: &Mapping) -> Vec<String> {
    let all = |mapping: &Mapping| -> BTreeMap<String, String> {
        let words = |rule: &RuleSpec| {
            let visible: Vec<&str> =
                rule.visible_to.iter().map(|word| word.get_ref().as_str()).collect();
            let retention = rule.retention.get_ref().name();
            format!(
                "{:?}, visible to {}, retention {retention}",
                rule.describe.get_ref(),
                visible.join(" and ")
            )
        };
        mapping.rules.iter().map(|rule| (rule.event_type.get_ref().clone(), words(rule))).collect()
    };
    let (before, after) = (all(before), all(after));
    let differ = before.iter().filter_map(|(event_type, old)| {
        let new = after.get(event_type).filter(|new| *new != old)?;
        Some(format!("{event_type}: {old} → {new}"))
    });
    differ.collect()
}

impl Comparison {
    /// Compares what one transaction became.
    fn transaction(&mut self, transaction: &Transaction, old: &Batch, new: &Batch) {
        let batches = [(0, old), (1, new)];
        for (side, batch) in batches {
            for event in batch.events.iter() {
                add(&mut self.types, event.event_type, side, 1);
            }
            for ((table, operation), changes) in &batch.unmapped {
                add(&mut self.unmapped, &format!("{table} {}", operation.name()), side, *changes);
            }
        }
        let mut before: HashMap<_, _> =
            old.events.iter().map(|event| (event.event_uuid, event)).collect();
        let mut added = Vec::new();
        for after in new.events.iter() {
            match before.remove(&after.event_uuid) {
                None => added.push(after),
                Some(before) => {
                    let fields = fields(&columns(&before), &columns(&after));
                    if !fields.is_empty() {
                        self.difference(Kind::Changed, transaction, &after, fields);
                    }
                }
            }
        }
        // In their own order, not in that of a hash.
        let mut left: Vec<Event<'_>> =
            old.events.iter().filter(|event| before.contains_key(&event.event_uuid)).collect();
        for after in added {
            let twin = left.iter().position(|before| {
                before.event_type == after.event_type
                    && fields(&columns(before), &columns(&after)).is_empty()
            });
            match twin {
                Some(position) => {
                    left.remove(position);
                    self.difference(Kind::OtherId, transaction, &after, BTreeMap::new());
                }
                None => {
                    let fields = fields(&BTreeMap::new(), &columns(&after));
                    self.difference(Kind::OnlyAfter, transaction, &after, fields);
                }
            }
        }
        for before in left {
            let fields = fields(&columns(&before), &BTreeMap::new());
            self.difference(Kind::OnlyBefore, transaction, &before, fields);
        }
    }

    fn difference(
        &mut self,
        kind: Kind,
        transaction: &Transaction,
        event: &Event<'_>,
        fields: BTreeMap<String, [Value; 2]>,
    ) {
        *match kind {
            Kind::OnlyBefore => &mut self.only_before,
            Kind::OnlyAfter => &mut self.only_after,
            Kind::Changed => &mut self.changed,
            Kind::OtherId => &mut self.other_id,
        } += 1;
        if self.differences.len() < DIFFERENCES_MAX {
            self.differences.push(Difference {
                kind,
                xid: transaction.xid,
                lsn: transaction.commit_lsn.to_string(),
                event_type: event.event_type.to_owned(),
                subject: event.subject.to_owned(),
                fields,
            });
        }
    }
}

fn add(counts: &mut Counts, key: &str, side: usize, number: u64) {
    let pair = counts.entry(key.to_owned()).or_default();
    if let Some(count) = pair.get_mut(side) {
        *count += number;
    }
}

/// What an event says, by column and key; where it stands is left out.
fn columns(event: &Event<'_>) -> BTreeMap<String, Value> {
    let mut columns: BTreeMap<String, Value> = [
        ("caller", Value::from(event.caller)),
        ("subject", Value::from(event.subject)),
        ("subject_type", Value::from(event.subject_type)),
        ("target", Value::from(event.target)),
        ("success", Value::from(event.success)),
        ("error_message", Value::from(event.error_message)),
    ]
    .map(|(column, value)| (column.to_owned(), value))
    .into();
    let payload: Value = serde_json::from_str(event.payload).unwrap_or_default();
    for (key, value) in payload.as_object().into_iter().flatten() {
        match value.as_object().filter(|_| key == "_audit") {
            None => {
                columns.insert(format!("payload.{key}"), value.clone());
            }
            Some(audit) => {
                let flags = audit.iter().filter(|(flag, _)| !PLACES.contains(&flag.as_str()));
                columns.extend(
                    flags.map(|(flag, value)| (format!("payload._audit.{flag}"), value.clone())),
                );
            }
        }
    }
    columns
}

/// The columns that are not the same; what is not there is null.
fn fields(
    before: &BTreeMap<String, Value>,
    after: &BTreeMap<String, Value>,
) -> BTreeMap<String, [Value; 2]> {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let of = |columns: &BTreeMap<String, Value>, key| columns.get(key).cloned().unwrap_or_default();
    let pairs = keys.into_iter().map(|key| (key.clone(), [of(before, key), of(after, key)]));
    pairs.filter(|(_, [before, after])| before != after).collect()
}
