//! `Lsn`, a position in the write-ahead log, as PostgreSQL's type `pg_lsn` prints it.

use std::{fmt, str::FromStr};

/// A byte position in the write-ahead log; ordered, printed `16/B374D848` (manual, section 8.20).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// `0/0`: no position. A slot asked to start there starts where it was last confirmed.
    pub const ZERO: Self = Self(0);

    /// Bytes from `earlier` up to here; zero if `earlier` is not earlier.
    #[must_use]
    pub fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not an LSN.
#[derive(Debug, thiserror::Error)]
#[error("not a log sequence number: expected two hexadecimal numbers like 16/B374D848")]
pub struct ParseLsnError;

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, ParseLsnError> {
        let part = |hex: &str| {
            let digits = !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
            u32::from_str_radix(hex, 16).ok().filter(|_| digits).ok_or(ParseLsnError)
        };
        let (high, low) = text.split_once('/').ok_or(ParseLsnError)?;
        Ok(Self(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::Lsn;

    #[test]
    fn prints_and_parses_as_postgres_does() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF", "1/0"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        for text in ["", "0", "0/", "/0", "0/G", "+0/1", "0/123456789", "0/0/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text:?} must not parse");
        }
    }
}
