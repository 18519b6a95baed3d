//! One export, from its request to its manifest.

use super::{
    ExportError, Format, Manifest, Place, Range, Request, beside,
    encode::Encoder,
    output::{self, Output},
    part,
    progress::Progress,
    read::{self, Now},
    row::EventRow,
};
use crate::{
    connect::{self, Session},
    conninfo::ConnInfo,
    filter::{Filter, Key, Moment},
};
use chrono::{DateTime, Days, NaiveTime, Utc};
use std::{
    fs, future,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// What became of a request.
#[derive(Debug)]
pub struct Exported {
    /// As it stands beside the file. `truncated`: it was stopped.
    pub manifest: Manifest,
    /// What somebody should know who looks at the result.
    pub note: Option<String>,
}

/// Where an export stands when it begins to read.
struct Begun {
    manifest: Manifest,
    filter: Filter,
    /// Reads behind this event.
    after: Option<Key>,
    output: Output,
}

/// Exports events. Ctrl-C ends it with what is whole.
///
/// # Errors
/// The database refuses, or the file cannot be written. Then the part stays, and `--resume` goes on with it.
pub async fn export(audit: &ConnInfo, request: Request) -> Result<Exported, ExportError> {
    let session = connect::connect(audit, "export").await.map_err(ExportError::Connect)?;
    let now = read::begin(&session).await?;
    let note = note(&now, request.open);
    let begun = if request.resume {
        resume(&session, &request).await?
    } else {
        begin(&session, &now, &request).await?
    };
    let Begun { mut manifest, filter, after, output } = begun;
    let progress =
        Progress::new(read::first(&session).await?, manifest.range.before.unwrap_or(now.at));
    let mut encoder =
        Encoder::new(output, request.format, request.raw).map_err(ExportError::Encode)?;
    let stopped = pour(&session, &filter, after, &mut manifest, &mut encoder, &progress).await?;
    drop(progress);
    if stopped {
        // What the encoder still holds is written, so that the part ends with a whole event; of Parquet nothing can be used.
        encoder.finish().map_err(ExportError::Encode)?;
        manifest.truncated = true;
        // A session of its own: this one is in the midst of an answer.
        let session = connect::connect(audit, "export").await.map_err(ExportError::Connect)?;
        read::record(&session, &manifest.filter, manifest.rows).await?;
        return Ok(Exported { manifest, note });
    }
    let output = encoder.finish().map_err(ExportError::Encode)?;
    let name = request.out.clone().unwrap_or_else(|| PathBuf::from("stdout"));
    let finished = output.finish();
    (manifest.bytes, manifest.sha256) =
        finished.map_err(|source| ExportError::File { path: name, source })?;
    read::end(&session).await?;
    let recorded = read::record(&session, &manifest.filter, manifest.rows).await?;
    manifest.recorded_as = recorded.map(|id| id.to_string());
    manifest.truncated = false;
    if let Some(path) = &request.out {
        manifest.write(&beside(path))?;
        let renamed = output::rename(path).and_then(|()| fs::remove_file(of_part(path)));
        renamed.map_err(|source| ExportError::File { path: path.clone(), source })?;
    }
    Ok(Exported { manifest, note })
}

/// Where the manifest of a part is.
fn of_part(path: &Path) -> PathBuf {
    beside(&output::part(path))
}

/// Writes the events of the range; gives whether Ctrl-C stopped it.
async fn pour(
    session: &Session,
    filter: &Filter,
    after: Option<Key>,
    manifest: &mut Manifest,
    encoder: &mut Encoder,
    progress: &Progress,
) -> Result<bool, ExportError> {
    let mut events = read::events(session, filter, after, manifest.range.before).await?;
    // Where signals cannot be heard, Ctrl-C ends the process.
    let mut stop = Box::pin(async {
        if tokio::signal::ctrl_c().await.is_err() {
            future::pending::<()>().await;
        }
    });
    let mut last = None;
    let stopped = loop {
        let row = tokio::select! {
            biased;
            () = &mut stop => break true,
            row = events.next(session) => row?,
        };
        let Some(row) = row else { break false };
        let event = EventRow::read(&row).map_err(ExportError::query)?;
        encoder.event(&event).map_err(ExportError::Encode)?;
        manifest.rows += 1;
        if manifest.range.first.is_none() {
            manifest.range.first = Some(place(&event));
        }
        progress.show(manifest.rows, event.timestamp);
        last = Some((event.timestamp, event.event_uuid));
    };
    if let Some((timestamp, event_uuid)) = last {
        manifest.range.last =
            Some(Place { timestamp: timestamp.to_string(), event_uuid: event_uuid.to_string() });
    }
    Ok(stopped)
}

fn place(event: &EventRow<'_>) -> Place {
    Place { timestamp: event.timestamp.to_string(), event_uuid: event.event_uuid.to_string() }
}

/// Begins anew. A part has a manifest from its first byte on, or nobody could tell what it is a part of.
async fn begin(session: &Session, now: &Now, request: &Request) -> Result<Begun, ExportError> {
    let mut filter = request.filter.clone();
    filter.pin(now.at);
    let (before, closed) = end(now, &filter, request.open);
    let after = match request.after {
        Some(event_uuid) => Some(read::key_of(session, event_uuid).await?),
        None => None,
    };
    let manifest = Manifest {
        format: request.format,
        raw: request.raw,
        filter: as_json(&filter)?,
        range: Range {
            after: request.after.map(|id| id.to_string()),
            before,
            closed,
            first: None,
            last: None,
        },
        complete_to: now.complete_to.clone(),
        rows: 0,
        bytes: 0,
        sha256: String::new(),
        truncated: true,
        made_at: now.at,
        tool: concat!("portal-audit ", env!("CARGO_PKG_VERSION")).to_owned(),
        schema: now.schema.clone(),
        recorded_as: None,
    };
    let output = match &request.out {
        None => Output::stdout(),
        Some(path) => {
            clear(path, request.force)?;
            let output = Output::begin(path)?;
            manifest.write(&of_part(path))?;
            output
        }
    };
    Ok(Begun { manifest, filter, after, output })
}

/// The filter as the manifest holds it.
fn as_json(filter: &Filter) -> Result<serde_json::Value, ExportError> {
    serde_json::to_value(filter).map_err(|error| ExportError::Encode(error.into()))
}

/// Where the range ends, and whether the record is complete to there.
pub(super) fn end(now: &Now, filter: &Filter, is_open: bool) -> (Option<DateTime<Utc>>, bool) {
    let until = filter.until.and_then(moment_end);
    let complete = now.complete();
    let before = match (until, complete) {
        _ if is_open => until,
        (Some(until), Some(complete)) => Some(until.min(complete)),
        (until, complete) => until.or(complete),
    };
    let is_closed =
        matches!((before, complete), (Some(before), Some(complete)) if before <= complete);
    (before, is_closed)
}

/// The instant before which a range ends. The filter is pinned: nothing in it is so long ago.
fn moment_end(moment: Moment) -> Option<DateTime<Utc>> {
    match moment {
        Moment::At(at) => Some(at),
        Moment::Day(day) => {
            Some(day.checked_add_days(Days::new(1))?.and_time(NaiveTime::MIN).and_utc())
        }
        Moment::Ago(_) => None,
    }
}

/// Makes room for a file.
fn clear(path: &Path, is_forced: bool) -> Result<(), ExportError> {
    if !is_forced {
        return if path.exists() {
            Err(ExportError::FileIsThere { path: path.to_owned() })
        } else {
            Ok(())
        };
    }
    for old in [output::part(path), of_part(path)] {
        match fs::remove_file(&old) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(ExportError::File { path: old, source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// Goes on behind the last whole event of a part.
async fn resume(session: &Session, request: &Request) -> Result<Begun, ExportError> {
    let Some(path) = &request.out else { return Err(ExportError::OtherPart { what: "file" }) };
    let no_part = |source| ExportError::NoPart { path: output::part(path), source };
    let mut manifest = Manifest::read(&of_part(path)).map_err(no_part)?;
    let mut filter = request.filter.clone();
    filter.pin(manifest.made_at);
    let same = [
        ("format", manifest.format == request.format),
        ("--raw", manifest.raw == request.raw),
        ("filter", manifest.filter == as_json(&filter)?),
    ];
    if let Some((what, _)) = same.into_iter().find(|(_, is_same)| !is_same) {
        return Err(ExportError::OtherPart { what });
    }
    if !is_resumable(request.format) {
        return Err(ExportError::NotResumable);
    }
    let part = output::part(path);
    let whole = part::whole(&part, request.format)
        .map_err(|source| ExportError::File { path: part, source })?;
    // The part itself says where it ends: retention may have taken that event since.
    let after = match (&whole.last, &manifest.range.after) {
        (Some(last), _) => Some(key(session, last).await?),
        (None, Some(id)) => Some(read::key_of(session, uuid(id)?).await?),
        (None, None) => None,
    };
    manifest.rows = whole.rows;
    (manifest.range.first, manifest.range.last) = (whole.first, whole.last);
    let output = Output::go_on(path, whole.bytes)?;
    Ok(Begun { manifest, filter, after, output })
}

/// Where an event of a part is. A time that no calendar has is asked for.
async fn key(session: &Session, place: &Place) -> Result<Key, ExportError> {
    let event_uuid = uuid(&place.event_uuid)?;
    match DateTime::parse_from_rfc3339(&place.timestamp) {
        Ok(at) => Ok(Key { timestamp: at.to_utc(), event_uuid }),
        Err(_beyond) => read::key_of(session, event_uuid).await,
    }
}

fn uuid(text: &str) -> Result<Uuid, ExportError> {
    text.parse().map_err(|_other| ExportError::OtherPart { what: "file" })
}

/// A Parquet file can be read only with its end.
fn is_resumable(format: Format) -> bool {
    matches!(format, Format::Csv | Format::Jsonl | Format::Cloudevents | Format::Ocsf)
}

/// What the range leaves out or cannot promise.
fn note(now: &Now, is_open: bool) -> Option<String> {
    if !now.knows_progress {
        return Some(
            "this role may not read portal_audit.progress, so nothing says up to when the record is complete"
                .to_owned(),
        );
    }
    if is_open {
        return None;
    }
    let (source, at) = now.complete_to.iter().min_by_key(|(_, at)| **at)?;
    Some(match at {
        Some(at) => format!(
            "the record of source {source} is complete to {}; --open takes in what is later",
            at.format("%Y-%m-%d %H:%M:%SZ")
        ),
        None => format!("nothing says up to when the record of source {source} is complete"),
    })
}
