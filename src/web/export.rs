//! The events of a search as a file, streamed under the visitor's role.

use super::{
    Fault, Visitor, Web,
    events::SEARCH_BYTES_MAX,
    reader::{self, Reader},
};
use crate::{
    export::{ExportError, Format, Stream},
    filter::Filter,
};
use axum::{
    Extension,
    body::Body,
    extract::{Query, State},
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Deserialize;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Exports that a visitor may begin within [`SPAN`].
const BEGUN_MAX: usize = 6;
/// And whoever sees all, who may well save one for each day of a month.
const BEGUN_BY_ADMIN_MAX: usize = 60;
const SPAN: Duration = Duration::from_secs(60);

/// When each visitor began exports.
#[derive(Debug, Default)]
pub(super) struct Begun(Mutex<HashMap<String, VecDeque<Instant>>>);

impl Begun {
    /// Whether the visitor may begin one more now; then that counts.
    fn may(&self, name: &str, most: usize, now: Instant) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, times| {
            times.retain(|at| now.duration_since(*at) < SPAN);
            !times.is_empty()
        });
        let own = all.entry(name.to_owned()).or_default();
        let may = own.len() < most;
        if may {
            own.push_back(now);
        }
        may
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    #[serde(default)]
    q: String,
    format: Format,
}

/// Content type and end of name of a file.
fn kind(format: Format) -> (&'static str, &'static str) {
    match format {
        Format::Csv => ("text/csv; charset=utf-8; header=present", "csv"),
        Format::Jsonl => ("application/jsonl", "jsonl"),
        Format::Cloudevents => ("application/jsonl", "cloudevents.jsonl"),
        Format::Ocsf => ("application/jsonl", "ocsf.jsonl"),
        #[cfg(feature = "parquet")]
        Format::Parquet => ("application/vnd.apache.parquet", "parquet"),
    }
}

pub(super) async fn export(
    State(web): State<Arc<Web>>,
    Extension(visitor): Extension<Visitor>,
    Query(asked): Query<Asked>,
) -> Result<Response, Fault> {
    if asked.q.len() > SEARCH_BYTES_MAX {
        return Err(Fault::Asked(format!("A search has {SEARCH_BYTES_MAX} letters at most.")));
    }
    let filter = Filter::from_words(&asked.q);
    let filter = filter.map_err(|error| Fault::Asked(crate::chain::chain(&error)))?;
    let most = if visitor.sees_all { BEGUN_BY_ADMIN_MAX } else { BEGUN_MAX };
    if !web.begun.may(&visitor.name, most, Instant::now()) {
        return Err(Fault::Often);
    }
    let reader = web.exports.read_long(&visitor).await?;
    let stream = Stream::begin(reader.session(), &filter, asked.format).await;
    let mut stream = stream.map_err(|error| fault(&error))?;
    // What goes wrong at the begin has a page that says so.
    let first = stream.next(reader.session()).await.map_err(|error| fault(&error))?;
    let (kind, end) = kind(asked.format);
    let filter = serde_json::json!({ "page": "/events/export", "q": asked.q, "format": end });
    // Before the first byte leaves: whoever breaks off later has what came until then.
    web.sessions.record(&visitor, "log_exported", &filter, stream.events()).await?;
    let until =
        stream.before().map_or_else(String::new, |at| at.format("-%Y%m%dT%H%M%SZ").to_string());
    let file = format!("attachment; filename=\"portal-audit-events{until}.{end}\"");
    let mut response = Body::from_stream(pieces(reader, stream, first)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(file) = HeaderValue::from_str(&file) {
        headers.insert(header::CONTENT_DISPOSITION, file);
    }
    Ok(response)
}

/// The bytes of a file. Where reading fails the connection is broken off, so that nobody takes a part for the whole.
fn pieces(
    reader: Reader,
    stream: Stream,
    first: Vec<u8>,
) -> impl stream::Stream<Item = Result<Vec<u8>, ExportError>> + Send {
    stream::try_unfold((reader, stream, first), async |(reader, mut stream, piece)| {
        if piece.is_empty() {
            return Ok(None);
        }
        let next = stream.next(reader.session()).await.inspect_err(|error| {
            let error = crate::chain::chain(error);
            tracing::warn!(error, "an export over the pages ended early");
        })?;
        Ok(Some((piece, (reader, stream, next))))
    })
}

fn fault(error: &ExportError) -> Fault {
    match error {
        ExportError::Query { message, .. } => {
            tracing::warn!(error = message, "an export over the pages could not be read");
            Fault::Refused(reader::UNSAID.to_owned())
        }
        _ => Fault::Away,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visitor_may_begin_a_few_in_a_minute() {
        let (begun, now) = (Begun::default(), Instant::now());
        for _ in 0..BEGUN_MAX {
            assert!(begun.may("ada", BEGUN_MAX, now));
        }
        assert!(!begun.may("ada", BEGUN_MAX, now));
        assert!(begun.may("bo", BEGUN_MAX, now));
        assert!(begun.may("ada", BEGUN_MAX, now + SPAN));
    }
}
