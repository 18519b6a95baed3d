//! `Timestamp`, PostgreSQL's `timestamptz` as it stands on the wire.

use chrono::{DateTime, Utc};
use std::fmt;

/// Microseconds from 1970-01-01 to 2000-01-01 UTC, where PostgreSQL's clock starts.
const POSTGRES_EPOCH_UNIX_MICROS: i64 = 946_684_800_000_000;

/// Microseconds since 2000-01-01 00:00 UTC: the wire's form of a time, exact to the microsecond.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// From microseconds since 1970-01-01, saturating at the ends of the range.
    #[must_use]
    pub fn from_unix_micros(micros: i64) -> Self {
        Self(micros.saturating_sub(POSTGRES_EPOCH_UNIX_MICROS))
    }

    /// Microseconds since 1970-01-01, saturating at the ends of the range.
    #[must_use]
    pub fn unix_micros(self) -> i64 {
        self.0.saturating_add(POSTGRES_EPOCH_UNIX_MICROS)
    }

    /// The same instant for `chrono`; a time out of its range becomes the range's end.
    #[must_use]
    pub fn to_utc(self) -> DateTime<Utc> {
        let out_of_range =
            if self.0 < 0 { DateTime::<Utc>::MIN_UTC } else { DateTime::<Utc>::MAX_UTC };
        DateTime::from_timestamp_micros(self.unix_micros()).unwrap_or(out_of_range)
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_micros().saturating_sub(POSTGRES_EPOCH_UNIX_MICROS))
    }
}

impl fmt::Display for Timestamp {
    /// ISO 8601 in UTC with microseconds: `2026-04-23T20:50:23.123456Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_utc().format("%Y-%m-%dT%H:%M:%S%.6fZ"))
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn starts_at_the_year_2000_and_survives_the_ends() {
        assert_eq!(Timestamp(0).to_string(), "2000-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp::from(Timestamp(1).to_utc()), Timestamp(1));
        assert!(!Timestamp(i64::MAX).to_string().is_empty());
        assert!(!Timestamp(i64::MIN).to_string().is_empty());
    }
}
