//! What the translator fills and the writer takes.

use super::{attempt::Attempts, names::NameRow};
use crate::{event::Events, lsn::Lsn, tuple::Operation};
use std::{collections::HashMap, sync::Arc};

/// What a piece of the log became: events, names, and what no rule took.
#[derive(Debug, Default)]
pub struct Batch {
    pub events: Events,
    pub names: Vec<NameRow>,
    /// Kinds of names of which nothing was left, before `names`.
    pub emptied: Vec<usize>,
    /// No transaction of it ends behind this position.
    pub upto: Lsn,
    /// Changes without an event, by table and operation.
    pub unmapped: HashMap<(Arc<str>, Operation), u64>,
    /// What the attempt trigger said of transactions whose end is not known yet.
    pub attempts: Attempts,
    pub transactions: u64,
    pub changes: u64,
}

impl Batch {
    /// How much it holds.
    #[must_use]
    pub fn held(&self) -> Held {
        Held { events: self.events.len(), bytes: self.events.bytes(), names: self.names.len() }
    }
}

/// How much a batch holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    events: usize,
    /// Of the events.
    bytes: usize,
    names: usize,
}

impl Held {
    /// Whether it reaches a limit: of events, which holds for names too, or of bytes.
    #[must_use]
    pub fn is_full(self, events: usize, bytes: usize) -> bool {
        self.events >= events || self.bytes >= bytes || self.names >= events
    }

    /// What came since the batch held so much; all of it, if it is another batch.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            events: self.events.checked_sub(before.events).unwrap_or(self.events),
            bytes: self.bytes.checked_sub(before.bytes).unwrap_or(self.bytes),
            names: self.names.checked_sub(before.names).unwrap_or(self.names),
        }
    }
}
