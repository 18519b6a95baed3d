//! Colours, widths and times, for people.

use crate::show::visible;
use chrono::{DateTime, Utc};
use std::io::{self, IsTerminal as _};

/// How text is laid out: for a terminal, or for what comes behind a pipe.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    /// Columns of the terminal, or as `COLUMNS` says. Without either nothing is wrapped, so that a line of grep is a whole one.
    pub width: Option<usize>,
    pub is_coloured: bool,
}

/// Narrower than this a sentence is no longer read as one.
const WIDTH_MIN: usize = 40;

impl Paint {
    /// As stdout is.
    pub(super) fn of_stdout() -> Self {
        let is_terminal = io::stdout().is_terminal();
        let size = terminal_size::terminal_size().filter(|_| is_terminal);
        Self {
            width: size.map(|(width, _)| usize::from(width.0)).or_else(crate::config::columns),
            is_coloured: is_terminal && !crate::config::is_colourless(),
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.is_coloured { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(super) fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// How it ended, as a mark that reads without its colour too.
    pub(super) fn outcome(self, is_success: bool) -> String {
        if is_success { self.paint("32", "✓") } else { self.paint("1;31", "✗") }
    }

    /// Whether this much stands beside each other.
    pub(super) fn is_at_least(self, width: usize) -> bool {
        self.width.is_none_or(|own| own >= width)
    }

    /// Text in lines, the later ones under the first; `indent` columns stand before it.
    pub(super) fn wrap(self, indent: usize, text: &str) -> Vec<String> {
        let text = visible(text);
        let Some(width) = self.width else { return vec![text.into_owned()] };
        let width = width.max(WIDTH_MIN).saturating_sub(indent).max(WIDTH_MIN / 2);
        let lines = textwrap::wrap(&text, textwrap::Options::new(width).break_words(true));
        lines.into_iter().map(std::borrow::Cow::into_owned).collect()
    }
}

/// Cuts a name to a width in columns and fills it up.
pub(super) fn column(text: &str, width: usize) -> String {
    let text = visible(text);
    let mut kept = String::new();
    let mut used = 0;
    let whole = textwrap::core::display_width(&text);
    for letter in text.chars() {
        let own = textwrap::core::display_width(letter.encode_utf8(&mut [0; 4]));
        if whole > width && used + own + 1 > width {
            kept.push('…');
            used += 1;
            break;
        }
        kept.push(letter);
        used += own;
    }
    kept.push_str(&" ".repeat(width.saturating_sub(used)));
    kept
}

pub(super) fn day(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %A, UTC").to_string()
}

pub(super) fn clock(at: DateTime<Utc>) -> String {
    at.format("%H:%M:%S").to_string()
}

pub(super) fn minute(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M UTC").to_string()
}

pub(super) fn second(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_as_wide_as_it_is_however_wide_its_letters_are() {
        for text in ["", "abc", "abcdef", "abcdefgh", "日本語日本語", "e\u{301}e\u{301}"] {
            assert_eq!(textwrap::core::display_width(&column(text, 6)), 6, "{text}");
        }
        assert_eq!(column("abcdefgh", 6), "abcde…");
        assert_eq!(column("\u{202e}x", 12), "\\u{202e}x   ");
    }
}
