//! The words of a mapping file as they stand there: what the tools show of a block.

use super::{Mapping, RuleSpec};
use std::ops::Range;

impl Mapping {
    /// The file, as it was named to [`Mapping::parse`].
    #[must_use]
    pub fn file(&self) -> &str {
        &self.source.file
    }

    /// The whole text of the file.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.source.text
    }

    /// What stands at a place, on one line.
    #[must_use]
    pub fn words_at(&self, span: Range<usize>) -> String {
        let words = self.source.text.get(span).unwrap_or_default();
        words.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// `file:line` of a place.
    #[must_use]
    pub fn place(&self, span: Range<usize>) -> String {
        let line = self.line(span);
        format!("{}:{line}", self.source.file)
    }

    /// The lines of a rule's block, from its header to the last line before the next table, without the comments and blank lines at its end.
    #[must_use]
    pub fn block(&self, rule: &RuleSpec) -> &str {
        let Range { start, end } = self.block_span(rule);
        self.source.text.get(start..end).unwrap_or_default()
    }

    /// Where the block of a rule stands.
    #[must_use]
    pub fn block_span(&self, rule: &RuleSpec) -> Range<usize> {
        let text = &self.source.text;
        let inside = rule.event_type.span().start;
        let start = text.get(..inside).and_then(|before| before.rfind(HEADER)).unwrap_or(inside);
        let mut end = start;
        let mut at = start;
        for (number, line) in
            text.get(start..).unwrap_or_default().split_inclusive('\n').enumerate()
        {
            let words = line.trim();
            let is_part = words.starts_with("[[event.") || words.starts_with("[event.");
            if number > 0 && words.starts_with('[') && !is_part {
                break;
            }
            at += line.len();
            if !words.is_empty() && !words.starts_with('#') {
                end = at - (line.len() - line.trim_end().len());
            }
        }
        start..end
    }

    /// Where the mapping switches on an event type that no `[[event]]` block gives, but a translator in Rust: what Ory Kratos does, or a failed attempt.
    #[must_use]
    pub fn by_hand(&self, event_type: &str) -> Option<Range<usize>> {
        let mut declared = self.kratos.iter().flat_map(|kratos| &kratos.event);
        if let Some(declared) = declared.find(|spec| spec.event_type.get_ref() == event_type) {
            return Some(declared.event_type.span());
        }
        let (entity, _operation) = event_type.strip_suffix("_failed")?.rsplit_once('_')?;
        let word = self.attempts.values().find(|word| word.get_ref() == entity)?;
        Some(word.span())
    }

    /// The mapping with one of its rules alone; names and labels stay.
    #[must_use]
    pub fn only(&self, rule: &RuleSpec) -> Self {
        Self { rules: vec![rule.clone()], ..self.clone() }
    }
}

/// How a block begins.
const HEADER: &str = "[[event]]";
