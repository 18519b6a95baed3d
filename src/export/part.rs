//! What of a file is whole: an export that was killed ends in the midst of an event.

use super::{Format, Place};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    path::Path,
};

/// The whole events of a file.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Whole {
    pub(super) rows: u64,
    /// Of the head and the whole events.
    pub(super) bytes: u64,
    /// The places of the first and the last of them.
    pub(super) first: Option<Place>,
    pub(super) last: Option<Place>,
}

/// More than an id and a time take in CSV.
const ID_AND_TIME_BYTES: u64 = 80;

/// Reads a file of a format to the end of its last whole event, in constant memory.
pub(super) fn whole(path: &Path, format: Format) -> io::Result<Whole> {
    let file = File::open(path)?;
    match format {
        Format::Csv | Format::Jsonl | Format::Cloudevents | Format::Ocsf => records(file, format),
        #[cfg(feature = "parquet")]
        Format::Parquet => super::parquet::whole(&file),
    }
}

/// Both forms end a record by a line feed; only in CSV a quoted cell may hold one.
fn records(file: File, format: Format) -> io::Result<Whole> {
    let is_csv = format == Format::Csv;
    let mut reader = BufReader::with_capacity(super::encode::BUFFER_BYTES, file);
    let (mut position, mut begin, mut end) = (0_u64, 0_u64, 0_u64);
    let mut is_quoted = false;
    let (head, mut first) = (u64::from(is_csv), None);
    let mut records = 0_u64;
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            break;
        }
        for byte in bytes {
            position += 1;
            match byte {
                b'"' if is_csv => is_quoted = !is_quoted,
                b'\n' if !is_quoted => {
                    (begin, end) = (end, position);
                    if records == head {
                        first = Some((begin, end));
                    }
                    records += 1;
                }
                _ => {}
            }
        }
        let count = bytes.len();
        reader.consume(count);
    }
    // The first record of CSV is the header.
    let rows = records.saturating_sub(head);
    let mut file = reader.into_inner();
    let mut whole = Whole { rows, bytes: end, first: None, last: None };
    if let Some((first_begin, first_end)) = first {
        whole.first = Some(place_at(&mut file, format, first_begin, first_end)?);
        whole.last = Some(place_at(&mut file, format, begin, end)?);
    }
    Ok(whole)
}

/// The place of the event between two positions.
fn place_at(file: &mut File, format: Format, begin: u64, end: u64) -> io::Result<Place> {
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    let length = end - begin;
    let length = if format == Format::Csv { length.min(ID_AND_TIME_BYTES) } else { length };
    file.take(length).read_to_end(&mut bytes)?;
    let place = if format == Format::Csv { cells(&bytes) } else { line(&bytes)? };
    place.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Neither an id nor a time is ever quoted.
fn cells(bytes: &[u8]) -> Option<Place> {
    let mut cells = bytes.split(|byte| *byte == b',');
    let mut cell = || Some(str::from_utf8(cells.next()?).ok()?.to_owned());
    Some(Place { event_uuid: cell()?, timestamp: cell()? })
}

/// Only these keys are looked at: a payload may hold numbers that no type of ours does.
fn line(bytes: &[u8]) -> io::Result<Option<Place>> {
    let Line { event_uuid, id, timestamp, time, metadata } = serde_json::from_slice(bytes)?;
    // OCSF's own time has milliseconds.
    let time = time.and_then(|time| serde_json::from_str(time.get()).ok());
    let (uid, original) = metadata.map(|it| (it.uid, it.original_time)).unwrap_or_default();
    let id = event_uuid.or(id).or(uid);
    let at = timestamp.or(original).or(time);
    let place = |(id, at): (&str, &str)| Place { timestamp: at.into(), event_uuid: id.into() };
    Ok(id.zip(at).map(place))
}

/// Where each of the formats has the id and the time.
#[derive(Deserialize)]
struct Line<'a> {
    event_uuid: Option<&'a str>,
    id: Option<&'a str>,
    timestamp: Option<&'a str>,
    #[serde(borrow)]
    time: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<Metadata<'a>>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    uid: Option<&'a str>,
    original_time: Option<&'a str>,
}
