//! What is known before a change is told: what its transaction says as a whole, and the names that it needs.

use super::{
    Limits, NAMES_WINDOW_CHANGES, RowChange, Table, TranslateError, Translation, Translator,
    caller::Gathered,
    commit_of,
    kratos::Kratos,
    moved,
    names::{NameKey, NameRow, Names, entry_bytes},
    remember::Known,
    row_change,
    rule::{Rule, Source},
    table::Tables,
    unfold::for_each_entry,
    unreadable,
};
use crate::{
    decode::Message,
    event::{ChangeKey, event_id},
    lsn::Lsn,
    spool::Cursor,
    timestamp::Timestamp,
    transaction::Transaction,
    tuple::{Operation, RememberedValue, Row, RowSpans},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// The reading for what a transaction says as a whole.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    cursor: Cursor,
    /// Relations that change inside the transaction: they must not change yet for the second reading.
    changed: Option<Tables>,
    /// What the transaction's own rows will have made known by then.
    kept: Kept,
}

/// Bytes of old values of one transaction's rows that this reading keeps; of more, it knows what was before the transaction.
const KEPT_BYTES_MAX: usize = 8 << 20;

/// What a transaction's own rows make known of themselves.
#[derive(Debug, Default)]
struct Kept {
    rows: HashMap<(usize, String), Option<Arc<str>>>,
    bytes: usize,
}

impl Kept {
    fn put(&mut self, row: NameRow) {
        let bytes = entry_bytes(&row.key, row.name.as_deref());
        let key = (row.names, row.key);
        // Even if the new one finds no room: an old value that is older still would be wrong.
        if let Some(before) = self.rows.remove(&key) {
            self.bytes -= entry_bytes(&key.1, before.as_deref());
        }
        if self.bytes + bytes <= KEPT_BYTES_MAX {
            self.bytes += bytes;
            self.rows.insert(key, row.name);
        }
    }
}

/// What is known, and above it what the transaction itself says.
struct Overlay<'a> {
    kept: &'a Kept,
    names: &'a Names,
}

impl Known for Overlay<'_> {
    fn name(&self, names: usize, key: &str) -> Option<Option<&str>> {
        if self.kept.rows.is_empty() {
            return self.names.peek(names, key);
        }
        let kept = self.kept.rows.get(&(names, key.to_owned()));
        kept.map(|name| name.as_deref()).or_else(|| self.names.peek(names, key))
    }
}

impl Translator {
    /// Reads what the transaction says as a whole, if that is not done yet. Gives the names that are missing for it.
    pub(super) fn prepare(
        &mut self,
        transaction: &Transaction,
        translation: &mut Translation,
    ) -> Result<Vec<NameKey>, TranslateError> {
        if let Some(mut gathering) = translation.gathering.take() {
            let missing = self.gather(transaction, &mut gathering, &mut translation.gathered)?;
            if !missing.is_empty() {
                translation.gathering = Some(gathering);
                return Ok(missing);
            }
        }
        let contexts = &mut translation.gathered.contexts;
        Ok(contexts.resolve(&self.contexts, &mut self.names, self.limits.names.get() / 2))
    }

    /// Reads what the transaction says as a whole; stops at names that are missing.
    fn gather(
        &mut self,
        transaction: &Transaction,
        gathering: &mut Gathering,
        gathered: &mut Gathered,
    ) -> Result<Vec<NameKey>, TranslateError> {
        loop {
            let offset = gathering.cursor.offset();
            let tables = gathering.changed.as_ref().unwrap_or(&self.tables);
            let wanted =
                |oid, is_deleted| tables.get(oid).is_none_or(|table| table.is_gathered(is_deleted));
            let message = transaction.next_wanted(&mut gathering.cursor, wanted);
            let message = message.map_err(|source| unreadable(transaction, source))?;
            let Some((wal_start, message)) = message else { return Ok(Vec::new()) };
            match message {
                Message::Relation(message) => {
                    let table = self.compile(&message, transaction.commit_lsn)?;
                    gathering.changed.get_or_insert_with(|| self.tables.clone()).put(table);
                }
                Message::LogicalMessage { transactional: true, prefix, content, .. } => {
                    gathered.contexts.add(&self.contexts, prefix, content);
                }
                message => {
                    let Some(change) = row_change(message) else { continue };
                    let (oid, may_move) = (change.0, moved::may_move(tables, &change));
                    let table = tables.get(oid).ok_or(TranslateError::UnknownRelation { oid })?;
                    let table = Arc::clone(table);
                    let at = (transaction, wal_start);
                    let is_known = if may_move {
                        let Gathering { cursor, kept, .. } = gathering;
                        let (mut first, mut second) = (Cursor::at(offset), cursor.clone());
                        let both = moved::change(transaction, &table, &mut first, &mut second)?;
                        let Some((change, is_pair)) = both else { continue };
                        let is_known = self.gather_row(&table, change, at, gathered, kept);
                        if is_pair {
                            cursor.rewind(second.offset());
                        }
                        is_known
                    } else {
                        self.gather_row(&table, change, at, gathered, &mut gathering.kept)
                    };
                    if !is_known {
                        gathering.cursor.rewind(offset);
                        let tables = gathering.changed.as_ref().unwrap_or(&self.tables);
                        let cursor = gathering.cursor.clone();
                        let spans = &mut self.spans;
                        let kratos = self.kratos.as_ref();
                        let (names, limits) = (&self.names, self.limits);
                        let window = Window { tables, names, kratos, limits };
                        return window.missing(transaction, cursor, spans);
                    }
                }
            }
        }
    }

    /// Takes one row for the transaction as a whole; `false`, and nothing done, if it is not known what is remembered of it.
    fn gather_row(
        &mut self,
        table: &Table,
        (oid, operation, old, new): RowChange<'_>,
        (transaction, wal_start): (&Transaction, Lsn),
        gathered: &mut Gathered,
        kept: &mut Kept,
    ) -> bool {
        let row = Row::new(operation, &table.relation, old, new, &mut self.spans);
        let known = Overlay { kept, names: &self.names };
        let Ok(remembered) = remembered(table, &row, &known) else { return false };
        let row = row.with_remembered(&remembered);
        let at = transaction.commit_time;
        for collected in &table.collected {
            gathered.add_row(collected, &row, at);
        }
        if let Some(remember) = &table.remember {
            remember.after(&row, &mut |row| kept.put(row));
        }
        if operation == Operation::Delete && !table.kin.children.is_empty() {
            let rule = table.rules.iter().find(|rule| rule.takes.matches(&row, at));
            let change = ChangeKey { wal_start, relation: oid, index: 0 };
            let commit = commit_of(transaction);
            let event = rule.map(|rule| event_id(self.origin, commit, change, &rule.id));
            gathered.deletions.add(&table.kin, &row, event);
        }
        self.names.trim();
        true
    }
}

/// What is looked ahead at for names that are missing, so that one question asks for many.
pub(super) struct Window<'a> {
    pub(super) tables: &'a Tables,
    pub(super) names: &'a Names,
    pub(super) kratos: Option<&'a Kratos>,
    pub(super) limits: Limits,
}

impl Window<'_> {
    /// The keys from the cursor on that are not in memory: up to a relation, and not too far.
    pub(super) fn missing(
        &self,
        transaction: &Transaction,
        cursor: Cursor,
        spans: &mut RowSpans,
    ) -> Result<Vec<NameKey>, TranslateError> {
        let mut missing = Missing::default();
        self.look(transaction, cursor, spans, &mut missing)?;
        Ok(missing.keys)
    }

    /// Adds the keys of a transaction, from the cursor on; `false` if nothing behind it can be foreseen.
    fn look(
        &self,
        transaction: &Transaction,
        mut cursor: Cursor,
        spans: &mut RowSpans,
        missing: &mut Missing,
    ) -> Result<bool, TranslateError> {
        loop {
            // What is asked for must all fit, or the first answers would be gone before they are used.
            let is_full = missing.keys.len() >= self.limits.names.get() / 2;
            if is_full || missing.changes >= NAMES_WINDOW_CHANGES {
                return Ok(false);
            }
            let asks = |oid, _| self.tables.get(oid).is_none_or(|table| table.asks_for_names());
            let next = transaction.next_wanted(&mut cursor, asks);
            let next = next.map_err(|source| unreadable(transaction, source))?;
            let Some((_, message)) = next else { return Ok(true) };
            if matches!(message, Message::Relation(_)) {
                return Ok(false);
            }
            let Some((oid, operation, old, new)) = row_change(message) else { continue };
            missing.changes += 1;
            let Some(table) = self.tables.get(oid) else { return Ok(false) };
            let row = Row::new(operation, &table.relation, old, new, spans);
            let foreseen = self.kratos.zip(table.kratos);
            let foreseen = foreseen.map(|(kratos, kind)| kratos.foresee(kind, &row, self.names));
            foreseen.into_iter().flatten().for_each(|key| missing.add(key));
            match remembered(table, &row, self.names) {
                Err(key) => missing.add(key),
                Ok(remembered) => {
                    let row = row.with_remembered(&remembered);
                    let at = transaction.commit_time;
                    needs_names(table, &row, at, self.names, &mut |key| missing.add(key));
                }
            }
        }
    }
}

/// Keys to ask for. One that a row in between will give is asked for in vain and no more: the answers are taken before any row is.
#[derive(Debug, Default)]
struct Missing {
    keys: Vec<NameKey>,
    /// One row may ask for very many, and many rows for one.
    seen: HashSet<NameKey>,
    changes: usize,
}

impl Missing {
    fn add(&mut self, key: NameKey) {
        if self.seen.insert(key.clone()) {
            self.keys.push(key);
        }
    }
}

impl Translator {
    /// Adds to `keys` those that the transactions after this one need too, as far as that can be foreseen: so that one question asks for many.
    ///
    /// # Errors
    /// A transaction cannot be read.
    pub fn foresee(
        &mut self,
        next: &[Transaction],
        keys: &mut Vec<NameKey>,
    ) -> Result<(), TranslateError> {
        let mut missing = Missing { keys: std::mem::take(keys), ..Missing::default() };
        missing.seen.extend(missing.keys.iter().cloned());
        let Self { tables, names, kratos, limits, spans, .. } = self;
        let window = Window { tables, names, kratos: kratos.as_ref(), limits: *limits };
        for transaction in next {
            if !window.look(transaction, Cursor::default(), spans, &mut missing)? {
                break;
            }
        }
        *keys = missing.keys;
        Ok(())
    }
}

/// What is remembered of a row; `Err` is the key to ask for.
pub(super) fn remembered(
    table: &Table,
    row: &Row<'_>,
    known: &impl Known,
) -> Result<Vec<(usize, RememberedValue)>, NameKey> {
    table.remember.as_ref().map_or_else(|| Ok(Vec::new()), |remember| remember.before(row, known))
}

/// Whether a rule that takes the row or an entry of it looks up names that are not in memory; tells each.
pub(super) fn needs_names(
    table: &Table,
    row: &Row<'_>,
    at: Timestamp,
    names: &Names,
    tell: &mut dyn FnMut(NameKey),
) -> bool {
    let mut needs = false;
    let mut look = |rules: &[Rule], row: &Row<'_>| {
        let sources = rules.iter().filter(|rule| rule.takes.matches(row, at));
        for source in sources.flat_map(Rule::sources) {
            let Source::Lookup { lookup, old, .. } = source else { continue };
            if let Some(key) = lookup.missing(row, *old, names) {
                needs = true;
                tell(key);
            }
        }
    };
    look(&table.rules, row);
    for_each_entry(table, row, &mut |unfold, _, row| look(&unfold.rules, &row));
    needs
}

#[cfg(test)]
mod tests {
    use super::{KEPT_BYTES_MAX, Kept, NameRow};

    fn row(key: &str, name: &str) -> NameRow {
        NameRow { names: 0, key: key.to_owned(), name: Some(name.into()) }
    }

    #[test]
    fn the_last_value_of_a_row_is_kept_however_often_it_changes() {
        let mut kept = Kept::default();
        let name = |kept: &Kept, key: &str| kept.rows.get(&(0, key.to_owned())).cloned().flatten();
        for turn in 0..KEPT_BYTES_MAX / 100 {
            kept.put(row("a", &turn.to_string()));
        }
        assert_eq!(name(&kept, "a").as_deref(), Some(&*(KEPT_BYTES_MAX / 100 - 1).to_string()));
        kept.put(row("b", &"b".repeat(KEPT_BYTES_MAX)));
        assert_eq!(name(&kept, "b"), None, "there is no room");
        kept.put(row("a", &"a".repeat(KEPT_BYTES_MAX)));
        assert_eq!((name(&kept, "a"), kept.bytes), (None, 0));
    }
}
