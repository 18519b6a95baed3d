//! Names that memory does not hold, asked of the audit database in a session of their own.
//!
//! # Why
//! The write task's session is busy with the batch before, and after a start nearly every name is asked for: reading would wait for writing and writing for reading. This session sees what is committed, so it is asked only for names that nothing unwritten gives; the others are asked of the write task, whose session sees them.

use crate::{
    config::{Settings, Source},
    connect::{self, Session},
    conninfo::ConnInfo,
    translate::{Batch, names::NameKey},
    write,
};
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

/// The session, and what it must not be asked for.
#[derive(Debug)]
pub(super) struct Lookup {
    audit: ConnInfo,
    source: String,
    entities: Vec<String>,
    timeout: Duration,
    session: Option<Session>,
    /// No second session is to be had; then the write task answers all.
    is_refused: bool,
    handed: Handed,
}

/// What the write task got last; it may be written by now. What it got before these two is written, or it would not have got more: but for the pieces of one audit transaction, which are written together.
#[derive(Debug, Default)]
struct Handed {
    batches: [Option<Arc<Batch>>; 2],
    /// The audit transaction stays open for more.
    is_open: bool,
    /// It is not the whole of its audit transaction, and the other pieces are not known here any more.
    is_piece: bool,
}

impl Handed {
    fn hand(&mut self, batch: &Arc<Batch>, is_end: bool) {
        self.is_piece = self.is_open || !is_end;
        self.is_open = !is_end;
        let [_, last] = std::mem::take(&mut self.batches);
        self.batches = [last, Some(Arc::clone(batch))];
    }

    /// Whether one of these names may be in what is not written.
    fn may_give(&self, wanted: &HashSet<(usize, &str)>) -> bool {
        self.is_piece || self.batches.iter().flatten().any(|batch| gives(batch, wanted))
    }
}

impl Lookup {
    pub(super) fn new(settings: &Settings, source: &Source) -> Self {
        Self {
            audit: settings.audit.clone(),
            source: source.name.clone(),
            entities: source.mapping.entities(),
            timeout: settings.limits.audit_timeout(),
            session: None,
            is_refused: false,
            handed: Handed::default(),
        }
    }

    /// Notes what the write task gets.
    pub(super) fn hand(&mut self, batch: &Arc<Batch>, is_end: bool) {
        self.handed.hand(batch, is_end);
    }

    /// The names of keys; `None` if only the write task can tell them.
    pub(super) async fn ask(
        &mut self,
        keys: &[NameKey],
        batch: &Batch,
    ) -> Option<Vec<Option<String>>> {
        let wanted = wanted(keys);
        if gives(batch, &wanted) || self.handed.may_give(&wanted) {
            return None;
        }
        if self.session.is_none() && !self.is_refused {
            let opened = connect::connect(&self.audit, &self.source);
            self.session =
                tokio::time::timeout(self.timeout, opened).await.ok().and_then(Result::ok);
            self.is_refused = self.session.is_none();
        }
        let session = self.session.as_ref()?;
        let names = write::look_up(session, &self.source, &self.entities, keys, self.timeout).await;
        if names.is_err() {
            // It may have been ended for its idleness. The write task's session says what is the matter, if anything is.
            (self.session, self.is_refused) = (None, true);
        }
        names.ok()
    }
}

/// The keys, to be compared with.
pub(super) fn wanted(keys: &[NameKey]) -> HashSet<(usize, &str)> {
    keys.iter().map(|key| (key.names, key.key.as_str())).collect()
}

/// Whether a batch gives one of these names, or takes away all of a kind.
pub(super) fn gives(batch: &Batch, wanted: &HashSet<(usize, &str)>) -> bool {
    // Of most kinds nothing is wanted, and that is cheap to see.
    let kinds: BTreeSet<usize> = wanted.iter().map(|(names, _)| *names).collect();
    let mut given = batch.names.iter().filter(|row| kinds.contains(&row.names));
    !batch.emptied.is_empty() || given.any(|row| wanted.contains(&(row.names, row.key.as_str())))
}

#[cfg(test)]
mod tests {
    use super::{Handed, wanted};
    use crate::translate::{
        Batch,
        names::{NameKey, NameRow},
    };
    use std::sync::Arc;

    fn batch(key: &str) -> Arc<Batch> {
        let names = vec![NameRow { names: 0, key: key.to_owned(), name: None }];
        Arc::new(Batch { names, ..Batch::default() })
    }

    #[test]
    fn what_is_not_written_is_not_asked_for() {
        let keys = |key: &str| [NameKey { names: 0, key: key.to_owned() }];
        let mut handed = Handed::default();
        let may_give = |handed: &Handed, key: &str| handed.may_give(&wanted(&keys(key)));
        assert!(!may_give(&handed, "a"));
        handed.hand(&batch("a"), true);
        assert!(may_give(&handed, "a") && !may_give(&handed, "b"));
        // The pieces of a large transaction are written with its last one.
        handed.hand(&batch("b"), false);
        assert!(may_give(&handed, "b") && may_give(&handed, "a"));
        handed.hand(&batch("c"), true);
        assert!(may_give(&handed, "b"), "the first piece may not be written yet");
        handed.hand(&batch("d"), true);
        assert!(!may_give(&handed, "b") && may_give(&handed, "d"));
        assert!(may_give(&handed, "c"), "it may be finished while the next is copied");
        handed.hand(&batch("e"), true);
        assert!(!may_give(&handed, "c") && may_give(&handed, "d") && may_give(&handed, "e"));
    }
}
