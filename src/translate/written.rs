//! What is written of one change more than once.

use super::path::DocumentPath;
use crate::event::{Flags, push_json_string};
use std::sync::Arc;

/// What was written of the values of one change at some cost, and is written again: the hash of one that is too long, which each entry of the row may tell, and a list that is a name too.
#[derive(Debug, Default)]
pub struct Written(Vec<(Place, Arc<str>, Flags)>);

/// Where a value lies and how long it is, and the path into it.
#[derive(Debug, PartialEq)]
pub struct Place {
    start: usize,
    length: usize,
    path: Option<Arc<str>>,
}

impl Place {
    /// A value of the change, or what a path finds in it.
    #[must_use]
    pub fn new(value: &[u8], path: Option<&DocumentPath>) -> Self {
        let path = path.map(|path| Arc::clone(path.text()));
        Self { start: value.as_ptr().addr(), length: value.len(), path }
    }
}

impl Written {
    /// Forgets all: the values of the next change lie where these lay.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// What is kept of a place.
    #[must_use]
    pub fn find(&self, place: &Place) -> Option<(&str, Flags)> {
        let known = self.0.iter().find(|(known, ..)| known == place);
        known.map(|(_, text, flags)| (&**text, *flags))
    }

    /// Keeps what was written of a place.
    pub fn keep(&mut self, place: Place, text: Arc<str>, flags: Flags) {
        self.0.push((place, text, flags));
    }

    /// Appends what stands for a value that is longer than `limit`.
    pub fn push_long(&mut self, out: &mut String, value: &[u8], limit: usize) -> Flags {
        let place = Place::new(value, None);
        if let Some((text, flags)) = self.find(&place) {
            out.push_str(text);
            return flags;
        }
        let start = out.len();
        let flags = push_json_string(out, value, limit);
        if flags.truncated {
            self.0.push((place, out.get(start..).unwrap_or_default().into(), flags));
        }
        flags
    }
}
