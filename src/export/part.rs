//! What of a file is whole: an export that was killed ends in the midst of an event.

use super::Format;
use serde::Deserialize;
use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    path::Path,
};
use uuid::fmt::Hyphenated;

/// The whole events of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) rows: u64,
    /// Of the head and the whole events.
    pub(super) bytes: u64,
    /// The ids of the first and the last of them.
    pub(super) first: Option<String>,
    pub(super) last: Option<String>,
}

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
        whole.first = Some(id_at(&mut file, format, first_begin, first_end)?);
        whole.last = Some(id_at(&mut file, format, begin, end)?);
    }
    Ok(whole)
}

/// The id of the event between two positions.
fn id_at(file: &mut File, format: Format, begin: u64, end: u64) -> io::Result<String> {
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    let length = u64::try_from(Hyphenated::LENGTH).unwrap_or_default();
    let length = if format == Format::Csv { length } else { end - begin };
    file.take(length).read_to_end(&mut bytes)?;
    if format == Format::Csv {
        return String::from_utf8(bytes).map_err(io::Error::other);
    }
    // Only these keys are looked at: a payload may hold numbers that no type of ours does.
    let line: Line<'_> = serde_json::from_slice(&bytes)?;
    let id = line.event_uuid.or(line.id).or(line.metadata.and_then(|metadata| metadata.uid));
    id.map(str::to_owned).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Where each of the formats has the id.
#[derive(Deserialize)]
struct Line<'a> {
    event_uuid: Option<&'a str>,
    id: Option<&'a str>,
    #[serde(borrow)]
    metadata: Option<Metadata<'a>>,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    uid: Option<&'a str>,
}
