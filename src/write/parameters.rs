//! Events as parameters of a statement and as rows of a binary COPY.

use super::{End, WriteError, Writer};
use crate::{event::Event, timestamp::Timestamp};
use bytes::{BufMut as _, BytesMut};
use chrono::{DateTime, Utc};
use std::{error::Error, ops::Range};
use tokio_postgres::types::{IsNull, PgLsn, ToSql, Type, accepts, to_sql_checked};
use uuid::Uuid;

/// The first time of a `timestamptz`, in 4714 BC, and the one behind its last, in the year 294277 (`datatype/timestamp.h`).
const TIMES: Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;

/// The time as the table can hold it, exact to the microsecond; the two infinities are among them.
pub(super) fn storable(time: Timestamp) -> Timestamp {
    if matches!(time.0, i64::MIN | i64::MAX) {
        return time;
    }
    Timestamp(time.0.clamp(TIMES.start, TIMES.end - 1))
}

/// A `timestamptz` as it stands on the wire: `chrono` ends before it does.
#[derive(Debug)]
struct At(Timestamp);

impl ToSql for At {
    fn to_sql(
        &self,
        _type: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_i64(self.0.0);
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMPTZ);

    to_sql_checked!();
}

/// The columns of events, for `unnest`.
#[derive(Default)]
pub(super) struct Arrays<'a> {
    ids: Vec<Uuid>,
    timestamps: Vec<At>,
    event_types: Vec<&'a str>,
    callers: Vec<&'a str>,
    subjects: Vec<&'a str>,
    subject_types: Vec<&'a str>,
    targets: Vec<Option<&'a str>>,
    successes: Vec<bool>,
    error_messages: Vec<Option<&'a str>>,
    payloads: Vec<&'a str>,
}

impl<'a> Arrays<'a> {
    pub(super) fn new(events: impl Iterator<Item = Event<'a>>) -> Self {
        let mut arrays = Self::default();
        for event in events {
            arrays.ids.push(event.event_uuid);
            arrays.timestamps.push(At(storable(event.timestamp)));
            arrays.event_types.push(event.event_type);
            arrays.callers.push(event.caller);
            arrays.subjects.push(event.subject);
            arrays.subject_types.push(event.subject_type);
            arrays.targets.push(event.target);
            arrays.successes.push(event.success);
            arrays.error_messages.push(event.error_message);
            arrays.payloads.push(event.payload);
        }
        arrays
    }

    /// In the order of the table's columns.
    pub(super) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        vec![
            &self.ids,
            &self.timestamps,
            &self.event_types,
            &self.callers,
            &self.subjects,
            &self.subject_types,
            &self.targets,
            &self.successes,
            &self.error_messages,
            &self.payloads,
        ]
    }
}

/// The arguments of `portal_audit.advance`.
pub(super) struct Moved {
    source: String,
    from: PgLsn,
    to: PgLsn,
    last_commit: Option<DateTime<Utc>>,
    complete_to: Option<DateTime<Utc>>,
    transactions: i64,
    changes: i64,
    events: i64,
}

impl Moved {
    pub(super) fn new(writer: &Writer, end: End) -> Self {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        Self {
            source: writer.source.clone(),
            from: PgLsn::from(writer.end_lsn.0),
            to: PgLsn::from(end.end_lsn.0),
            last_commit: end.last_commit.map(Timestamp::to_utc),
            complete_to: end.complete_to.map(Timestamp::to_utc),
            transactions: count(writer.pending.transactions),
            changes: count(writer.pending.changes),
            events: count(writer.pending.events),
        }
    }

    pub(super) fn parameters(&self) -> [&(dyn ToSql + Sync); 8] {
        [
            &self.source,
            &self.from,
            &self.to,
            &self.last_commit,
            &self.complete_to,
            &self.transactions,
            &self.changes,
            &self.events,
        ]
    }
}

/// One row in the binary COPY format (manual, COPY, "Binary Format"), in the order of the table's columns.
pub(super) fn put_event(out: &mut BytesMut, event: &Event<'_>) -> Result<(), WriteError> {
    out.put_i16(10);
    put_field(out, event.event_uuid.as_bytes())?;
    put_field(out, &storable(event.timestamp).0.to_be_bytes())?;
    put_field(out, event.event_type.as_bytes())?;
    put_field(out, event.caller.as_bytes())?;
    put_field(out, event.subject.as_bytes())?;
    put_field(out, event.subject_type.as_bytes())?;
    put_nullable(out, event.target)?;
    put_field(out, &[u8::from(event.success)])?;
    put_nullable(out, event.error_message)?;
    // jsonb's binary form: its version, then the text.
    let length = i32::try_from(event.payload.len() + 1).map_err(|_long| WriteError::TooLarge)?;
    out.put_i32(length);
    out.put_u8(1);
    out.put_slice(event.payload.as_bytes());
    Ok(())
}

fn put_nullable(out: &mut BytesMut, text: Option<&str>) -> Result<(), WriteError> {
    match text {
        Some(text) => put_field(out, text.as_bytes()),
        None => {
            out.put_i32(-1);
            Ok(())
        }
    }
}

fn put_field(out: &mut BytesMut, bytes: &[u8]) -> Result<(), WriteError> {
    out.put_i32(i32::try_from(bytes.len()).map_err(|_long| WriteError::TooLarge)?);
    out.put_slice(bytes);
    Ok(())
}
