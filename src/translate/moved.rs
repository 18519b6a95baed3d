//! An UPDATE that moves a row to another partition: in the log a DELETE and an INSERT, one right after the other.
//!
//! The two partitions speak with the voice of their table (`publish_via_partition_root`), so the pair looks like a row that went and another that came. `[moved]` in a mapping names the columns by which the portal knows a row of such a table; a pair that agrees in them is told as the UPDATE that it was.

use super::{
    Batch, Place, RowChange, Table, TranslateError, Translator, caller::joined_key, row_change,
    table::Tables, unreadable,
};
use crate::{
    spool::Cursor,
    transaction::Transaction,
    tuple::{Operation, Row, RowSpans},
};

/// Whether a change may be the first half of such a pair.
pub(super) fn may_move(tables: &Tables, change: &RowChange<'_>) -> bool {
    let (oid, operation, ..) = *change;
    operation == Operation::Delete && tables.get(oid).is_some_and(|table| !table.moved.is_empty())
}

/// The change at `first`, together with its other half at `second`, which stands behind it; says whether there was one.
pub(super) fn change<'a>(
    transaction: &'a Transaction,
    table: &Table,
    first: &'a mut Cursor,
    second: &'a mut Cursor,
) -> Result<Option<(RowChange<'a>, bool)>, TranslateError> {
    let read = |cursor: &'a mut Cursor| -> Result<Option<RowChange<'a>>, TranslateError> {
        let next = transaction.next(cursor);
        let next = next.map_err(|source| unreadable(transaction, source))?;
        Ok(next.and_then(|(_, message)| row_change(message)))
    };
    let (Some(deleted), inserted) = (read(first)?, read(second)?) else { return Ok(None) };
    let (oid, _, old, _) = deleted;
    Ok(Some(match inserted {
        Some((other, Operation::Insert, _, new)) if other == oid => {
            let moved = (oid, Operation::Update, old, new);
            let mut spans = RowSpans::default();
            let row = Row::new(Operation::Update, &table.relation, old, new, &mut spans);
            let key = joined_key(&row, &table.moved, true);
            let is_same = key.is_some() && key == joined_key(&row, &table.moved, false);
            if is_same { (moved, true) } else { (deleted, false) }
        }
        _ => (deleted, false),
    }))
}

impl Translator {
    /// Translates a deletion at `offset` together with the insertion behind it, if the row only moved. `second` stands behind the deletion, and behind the insertion if it was taken.
    pub(super) fn moved(
        &mut self,
        oid: u32,
        (offset, second): (u64, &mut Cursor),
        place: &mut Place<'_>,
        batch: &mut Batch,
    ) -> Result<bool, TranslateError> {
        let table = self.tables.get(oid).ok_or(TranslateError::UnknownRelation { oid })?;
        let (mut first, behind) = (Cursor::at(offset), second.offset());
        let both = self::change(place.transaction, table, &mut first, second)?;
        let Some((change, is_pair)) = both else { return Ok(true) };
        let is_ready = self.change(change, place, batch)?;
        if !is_pair {
            second.rewind(behind);
        }
        Ok(is_ready)
    }
}
