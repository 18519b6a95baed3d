//! Where the general translator asks this one.

use super::{
    super::{Batch, Place, Table, Translator, names::NameKey},
    Out,
    identifier::IdentifierKey,
    state::At,
};
use crate::{
    event::{ChangeKey, Commit},
    lsn::Lsn,
    timestamp::Timestamp,
    transaction::Transaction,
    tuple::Row,
};

impl Translator {
    /// The key of the hash that stands for identifiers nobody has; without one they are left out.
    pub fn set_identifier_key(&mut self, key: Option<IdentifierKey>) {
        if let Some(kratos) = &mut self.kratos {
            kratos.set_identifier_key(key);
        }
    }

    /// What waited when the source was last followed, by key.
    pub fn restore_pending(&mut self, rows: &[(String, String)]) {
        if let Some(kratos) = &mut self.kratos {
            kratos.restore(rows);
        }
    }

    /// The log has come to `time`, without a doubt: what has waited for longer than its window is decided.
    pub fn tick(&mut self, time: Timestamp, batch: &mut Batch) {
        if let Some(kratos) = &mut self.kratos {
            kratos.tick(time, batch);
        }
    }

    /// When the first of what waits is due; only [`Translator::tick`] or a later transaction decides it.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.kratos.as_ref().and_then(super::Kratos::next_deadline)
    }

    /// Commit time of the oldest change whose event is not yet decided.
    #[must_use]
    pub fn waits_since(&self) -> Option<Timestamp> {
        self.kratos.as_ref().and_then(super::Kratos::waits_since)
    }

    pub(in super::super) fn begin_kratos(&mut self) {
        if let Some(kratos) = &mut self.kratos {
            kratos.begin();
        }
    }

    /// Whether Kratos' translator took the change; none if it misses names.
    pub(in super::super) fn change_kratos(
        &mut self,
        table: &Table,
        row: &Row<'_>,
        here: ChangeKey,
        place: &mut Place<'_>,
        batch: &mut Batch,
    ) -> Option<bool> {
        let (Some(kratos), Some(kind)) = (&mut self.kratos, table.kratos) else {
            return Some(false);
        };
        let commit = place.commit();
        kratos.tick(commit.commit_time, batch);
        let context = place.gathered.contexts.caller(row).map(|named| named.caller);
        let mut out = Out { names: &mut self.names, batch, commit, events: place.events };
        kratos.change(kind, row, Some(At::new(commit, here)), context, &mut out)
    }

    /// The transaction has ended; `false` if names are missing.
    pub(in super::super) fn finish_kratos(
        &mut self,
        transaction: &Transaction,
        events: &mut u64,
        batch: &mut Batch,
    ) -> bool {
        let Some(kratos) = &mut self.kratos else { return true };
        let Transaction { xid, commit_lsn, commit_time, .. } = *transaction;
        let commit = Commit { xid, commit_lsn, commit_time };
        kratos.tick(commit_time, batch);
        let mut out = Out { names: &mut self.names, batch, commit, events };
        kratos.finish(&mut out).is_some()
    }

    pub(in super::super) fn missing_of_kratos(&mut self) -> Vec<NameKey> {
        self.kratos.as_mut().map(super::Kratos::take_missing).unwrap_or_default()
    }

    /// Takes in a row of a snapshot; gives the names that are missing for it.
    pub(in super::super) fn feed_kratos(
        &mut self,
        table: &Table,
        row: &Row<'_>,
        batch: &mut Batch,
    ) -> Vec<NameKey> {
        let (Some(kratos), Some(kind)) = (&mut self.kratos, table.kratos) else {
            return Vec::new();
        };
        let commit = Commit { xid: 0, commit_lsn: Lsn::ZERO, commit_time: Timestamp::default() };
        let mut out = Out { names: &mut self.names, batch, commit, events: &mut 0 };
        match kratos.change(kind, row, None, None, &mut out) {
            Some(_) => Vec::new(),
            None => kratos.take_missing(),
        }
    }
}
