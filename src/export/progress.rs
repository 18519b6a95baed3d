//! How far an export is, on a terminal's stderr.

use crate::{show, timestamp::Timestamp};
use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressStyle};

/// Events between two looks at the terminal.
const EVERY: u64 = 1_000;

/// A bar over the time that the events are of: how many there are is not known without counting them.
pub(super) struct Progress {
    bar: ProgressBar,
    begin: i64,
}

impl Progress {
    /// Nothing is drawn where stderr is no terminal.
    pub(super) fn new(first: Option<DateTime<Utc>>, before: DateTime<Utc>) -> Self {
        let begin = first.unwrap_or(before).timestamp();
        let length = u64::try_from(before.timestamp() - begin).unwrap_or_default();
        let bar = ProgressBar::new(length.max(1));
        let style = ProgressStyle::with_template("{percent:>3}% {wide_bar:.dim} {msg}");
        bar.set_style(style.unwrap_or_else(|_template| ProgressStyle::default_bar()));
        Self { bar, begin }
    }

    pub(super) fn show(&self, rows: u64, at: Timestamp) {
        if !rows.is_multiple_of(EVERY) || self.bar.is_hidden() {
            return;
        }
        let at = at.to_utc();
        self.bar.set_position(u64::try_from(at.timestamp() - self.begin).unwrap_or_default());
        let seconds = self.bar.elapsed().as_secs().max(1);
        self.bar.set_message(format!(
            "{} events, up to {} ({}/s)",
            show::count(rows),
            at.format("%Y-%m-%d"),
            show::count(rows / seconds)
        ));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
