//! A row of `events` as the server sent it, and its values as text.

use crate::timestamp::Timestamp;
use serde_json::value::RawValue;
use std::error::Error;
use tokio_postgres::{
    Row,
    types::{FromSql, Type, accepts},
};
use uuid::{Uuid, fmt::Hyphenated};

/// The names of the columns, in the table's order.
pub(super) const NAMES: [&str; 10] = [
    "event_uuid",
    "timestamp",
    "event_type",
    "caller",
    "subject",
    "subject_type",
    "target",
    "success",
    "error_message",
    "payload",
];

/// An event, borrowed from the server's answer.
#[derive(Debug, Clone, Copy)]
pub struct EventRow<'a> {
    pub event_uuid: Uuid,
    pub timestamp: Timestamp,
    pub event_type: &'a str,
    /// Empty if nobody is known of.
    pub caller: &'a str,
    pub subject: &'a str,
    pub subject_type: &'a str,
    pub target: Option<&'a str>,
    pub success: bool,
    pub error_message: Option<&'a str>,
    /// JSON as PostgreSQL writes a `jsonb`: numbers keep all their digits.
    pub payload: &'a str,
}

impl<'a> EventRow<'a> {
    /// Reads a row of [`COLUMNS`](crate::show::COLUMNS).
    pub(super) fn read(row: &'a Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            event_uuid: row.try_get(0)?,
            timestamp: row.try_get::<_, Micros>(1)?.0,
            event_type: row.try_get(2)?,
            caller: row.try_get(3)?,
            subject: row.try_get(4)?,
            subject_type: row.try_get(5)?,
            target: row.try_get(6)?,
            success: row.try_get(7)?,
            error_message: row.try_get(8)?,
            payload: row.try_get::<_, Jsonb<'_>>(9)?.0,
        })
    }

    /// The payload, to stand in other JSON byte for byte.
    pub(super) fn raw_payload(&self) -> Result<&'a RawValue, serde_json::Error> {
        serde_json::from_str(self.payload)
    }

    /// The id in its usual form.
    pub(super) fn id<'b>(&self, buffer: &'b mut [u8; Hyphenated::LENGTH]) -> &'b str {
        self.event_uuid.as_hyphenated().encode_lower(buffer)
    }
}

/// A `timestamptz`: microseconds since 2000-01-01 (the manual, "Date/Time Types").
struct Micros(Timestamp);

impl<'a> FromSql<'a> for Micros {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(Timestamp(i64::from_be_bytes(raw.try_into()?))))
    }

    accepts!(TIMESTAMPTZ);
}

/// The text of a `jsonb`, which its binary form has behind a version byte of 1 (`jsonb_send`).
struct Jsonb<'a>(&'a str);

impl<'a> FromSql<'a> for Jsonb<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let text = raw.strip_prefix(&[1]).ok_or("not version 1 of jsonb")?;
        Ok(Self(std::str::from_utf8(text)?))
    }

    accepts!(JSONB);
}

/// ISO 8601 in UTC with microseconds, as [`Timestamp`] prints. The calendar is asked only when the day changes.
#[derive(Debug)]
pub(super) struct Clock {
    /// Days since 2000-01-01 that `text` stands for.
    day: i64,
    /// `2026-04-23T20:50:23.123456Z`.
    text: String,
}

impl Default for Clock {
    fn default() -> Self {
        Self { day: 0, text: "2000-01-01T00:00:00.000000Z".to_owned() }
    }
}

impl Clock {
    const MICROS_OF_DAY: i64 = 86_400_000_000;
    /// Bytes of `2026-04-23T`.
    const DATE: usize = 11;

    pub(super) fn text(&mut self, at: Timestamp) -> &str {
        let (day, micros) =
            (at.0.div_euclid(Self::MICROS_OF_DAY), at.0.rem_euclid(Self::MICROS_OF_DAY));
        // A year of five digits and what lies beyond has another length.
        if day != self.day || self.text.len() != Self::DATE + 16 {
            self.day = day;
            self.text = at.to_string();
            return &self.text;
        }
        let mut time = [0_u8; 16];
        let parts = [
            (micros / 3_600_000_000, 2, b':'),
            (micros / 60_000_000 % 60, 2, b':'),
            (micros / 1_000_000 % 60, 2, b'.'),
            (micros % 1_000_000, 6, b'Z'),
        ];
        let mut places = time.iter_mut();
        for (number, digits, end) in parts {
            for place in (0..digits).rev() {
                let digit = number / 10_i64.pow(place) % 10;
                if let Some(byte) = places.next() {
                    *byte = b'0' + u8::try_from(digit).unwrap_or_default();
                }
            }
            if let Some(byte) = places.next() {
                *byte = end;
            }
        }
        self.text.truncate(Self::DATE);
        self.text.extend(time.iter().map(|byte| char::from(*byte)));
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_clock_says_what_the_calendar_says(times in prop::collection::vec((-3_000_000_i64..3_000_000, 0..Clock::MICROS_OF_DAY), 1..8)) {
            let mut clock = Clock::default();
            for (day, micros) in times {
                for day in [day, day, 0] {
                    let at = Timestamp(day * Clock::MICROS_OF_DAY + micros);
                    prop_assert_eq!(clock.text(at), at.to_string());
                }
            }
        }
    }
}
