//! From which timelines the source's own came, and where each was left.

use crate::lsn::Lsn;

/// The ancestors of a timeline; timeline 1 has none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History(Vec<(u32, Lsn)>);

/// A history file that is none. It holds no values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the history of the source's timeline cannot be read: line {line}")]
pub struct HistoryError {
    pub line: usize,
}

impl History {
    /// Reads what `TIMELINE_HISTORY` gives: lines of timeline, position and a comment for people (`src/backend/access/transam/timeline.c`).
    ///
    /// # Errors
    /// A line that is neither that nor a comment.
    pub fn parse(text: &str) -> Result<Self, HistoryError> {
        let mut ancestors = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let mut words = line.split_ascii_whitespace();
            let Some(timeline) = words.next().filter(|word| !word.starts_with('#')) else {
                continue;
            };
            let position = words.next().and_then(|word| word.parse().ok());
            let ancestor = timeline.parse().ok().zip(position);
            ancestors.push(ancestor.ok_or(HistoryError { line: index + 1 })?);
        }
        Ok(Self(ancestors))
    }

    /// Where an ancestor was left: what lies before is common to both, what lies behind is the ancestor's alone.
    #[must_use]
    pub fn left_at(&self, timeline: u32) -> Option<Lsn> {
        let left = self.0.iter().find(|(ancestor, _)| *ancestor == timeline);
        left.map(|(_, position)| *position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ancestors_and_where_they_were_left() {
        let text = "1\t0/1516DA8\tno recovery target specified\n\n# ours\n2\t1/A0\tbefore 2026-11-22 05:37:25.2+00\n";
        let history = History::parse(text).unwrap();
        assert_eq!(history.left_at(1), Some(Lsn(0x0151_6DA8)));
        assert_eq!(history.left_at(2), Some(Lsn(0x0001_0000_00A0)));
        assert_eq!(history.left_at(3), None);
        assert_eq!(History::parse(""), Ok(History::default()));
        for (text, line) in [("1", 1), ("1 0/1\nx 0/1", 2), ("1\tno", 1), ("-1\t0/1", 1)] {
            assert_eq!(History::parse(text), Err(HistoryError { line }), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
            drop(History::parse(&text));
        }
    }
}
