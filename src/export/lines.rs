//! An event as a line: of CSV, of JSON, of CloudEvents 1.0. For OCSF see [`super::ocsf`].

use super::{
    encode::EncodeError,
    row::{Clock, EventRow, NAMES},
};
use crate::{lsn::Lsn, show::visible};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::{borrow::Cow, io::Write};
use uuid::fmt::Hyphenated;

/// RFC 4180: a header, CRLF, and quotes where a cell needs them. NULL and empty text are both an empty cell: JSON Lines tells them apart.
pub(super) struct Csv<W: Write> {
    /// Leaves cells as they are, although a spreadsheet may take them for formulas.
    is_raw: bool,
    clock: Clock,
    writer: csv::Writer<W>,
}

impl<W: Write> Csv<W> {
    pub(super) fn new(to: W, is_raw: bool, has_header: bool) -> Result<Self, EncodeError> {
        let mut writer = csv::WriterBuilder::new()
            .terminator(csv::Terminator::CRLF)
            .buffer_capacity(super::encode::BUFFER_BYTES)
            .from_writer(to);
        if has_header {
            writer.write_record(NAMES)?;
        }
        Ok(Self { is_raw, clock: Clock::default(), writer })
    }

    pub(super) fn event(&mut self, event: &EventRow<'_>) -> Result<(), EncodeError> {
        let mut id = [0; Hyphenated::LENGTH];
        let cells = [
            event.id(&mut id),
            self.clock.text(event.timestamp),
            event.event_type,
            event.caller,
            event.subject,
            event.subject_type,
            event.target.unwrap_or_default(),
            if event.success { "true" } else { "false" },
            event.error_message.unwrap_or_default(),
            event.payload,
        ];
        for cell in cells {
            if !self.is_raw && is_formula(cell) {
                self.writer.write_field(format!("'{cell}"))?;
            } else {
                self.writer.write_field(cell)?;
            }
        }
        Ok(self.writer.write_record(None::<&[u8]>)?)
    }

    pub(super) fn finish(self) -> Result<W, EncodeError> {
        self.writer.into_inner().map_err(|error| EncodeError::Write(error.into_error()))
    }
}

/// Whether a spreadsheet may take a cell for a formula: OWASP's list ("CSV Injection"), with the wide forms that some take for the same letters.
#[must_use]
pub fn is_formula(cell: &str) -> bool {
    cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'])
}

/// The row as a JSON object, its columns in the table's order.
#[derive(Serialize)]
struct Line<'a> {
    event_uuid: &'a str,
    timestamp: &'a str,
    event_type: &'a str,
    caller: &'a str,
    subject: &'a str,
    subject_type: &'a str,
    target: Option<&'a str>,
    success: bool,
    error_message: Option<&'a str>,
    payload: &'a RawValue,
}

/// Writes an event as one line of JSON. The payload stands byte for byte as PostgreSQL prints it.
pub(super) fn jsonl(
    to: &mut impl Write,
    clock: &mut Clock,
    event: &EventRow<'_>,
) -> Result<(), EncodeError> {
    let mut id = [0; Hyphenated::LENGTH];
    let line = Line {
        event_uuid: event.id(&mut id),
        timestamp: clock.text(event.timestamp),
        event_type: event.event_type,
        caller: event.caller,
        subject: event.subject,
        subject_type: event.subject_type,
        target: event.target,
        success: event.success,
        error_message: event.error_message,
        payload: event.raw_payload()?,
    };
    end_line(to, &line)
}

/// An event of CloudEvents 1.0 in structured mode (`cloudevents/spec`, JSON event format 1.0.2).
#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: &'a str,
    source: String,
    r#type: String,
    time: &'a str,
    /// Absent if it would be empty, as is each attribute.
    subject: String,
    datacontenttype: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    callerid: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<String>,
    data: Data<'a>,
}

/// What the attributes cannot hold exactly stands in `data` as it is.
#[derive(Serialize)]
struct Data<'a> {
    caller: &'a str,
    subject: &'a str,
    subject_type: &'a str,
    target: Option<&'a str>,
    success: bool,
    error_message: Option<&'a str>,
    payload: &'a RawValue,
}

/// Begins the `type` of every event: the reverse domain of the portal.
const TYPE_BEGIN: &str = "org.mergetb.portal.";

/// Writes an event as one line of CloudEvents. Attributes may not hold control characters (section "Type System"), so those are visible escapes there.
pub(super) fn cloud_event(
    to: &mut impl Write,
    clock: &mut Clock,
    event: &EventRow<'_>,
) -> Result<(), EncodeError> {
    let known = Known::of(event);
    let source = known.source.as_deref().map_or_else(
        || "/portal-audit".to_owned(),
        |source| format!("/portal-audit/{}", escape_uri(source)),
    );
    let mut id = [0; Hyphenated::LENGTH];
    let line = CloudEvent {
        specversion: "1.0",
        id: event.id(&mut id),
        source,
        r#type: format!("{TYPE_BEGIN}{}.v1", visible(event.event_type)),
        time: clock.text(event.timestamp),
        subject: format!("{}/{}", visible(event.subject_type), visible(event.subject)),
        datacontenttype: "application/json",
        callerid: visible(event.caller),
        sequence: known.sequence(),
        data: Data {
            caller: event.caller,
            subject: event.subject,
            subject_type: event.subject_type,
            target: event.target,
            success: event.success,
            error_message: event.error_message,
            payload: event.raw_payload()?,
        },
    };
    end_line(to, &line)
}

/// What the payload's `_audit` says of where an event comes from.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Known<'a> {
    #[serde(borrow)]
    pub(super) source: Option<Cow<'a, str>>,
    #[serde(borrow)]
    lsn: Option<Cow<'a, str>>,
    n: Option<u64>,
}

/// The payload as far as an export looks into it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Payload<'a> {
    #[serde(rename = "_audit", borrow)]
    audit: Option<&'a RawValue>,
}

impl<'a> Known<'a> {
    /// Rows of others have no `_audit`, or one of another form: nothing is known of those.
    pub(super) fn of(event: &EventRow<'a>) -> Self {
        let payload: Payload<'a> = serde_json::from_str(event.payload).unwrap_or_default();
        payload.audit.and_then(|audit| serde_json::from_str(audit.get()).ok()).unwrap_or_default()
    }

    /// The place in the source's log, of a fixed width so that it sorts as text: the commit's position and the number among its events.
    fn sequence(&self) -> Option<String> {
        let lsn: Lsn = self.lsn.as_deref()?.parse().ok()?;
        Some(format!("{:016X}.{:010}", lsn.0, self.n.unwrap_or_default()))
    }
}

/// Percent-encodes what may not stand in a segment of a URI's path (RFC 3986, section 2.3).
fn escape_uri(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Writes a value and ends its line.
pub(super) fn end_line(to: &mut impl Write, value: &impl Serialize) -> Result<(), EncodeError> {
    serde_json::to_writer(&mut *to, value)?;
    to.write_all(b"\n").map_err(EncodeError::Write)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_of_any_name_is_a_uri() {
        assert_eq!(escape_uri("a b/ü-._~"), "a%20b%2F%C3%BC-._~");
    }

    #[test]
    fn what_a_spreadsheet_computes_is_a_formula() {
        for cell in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"] {
            assert!(is_formula(cell), "{cell:?}");
        }
        for cell in ["", "a=1", "'=1", " =1", "{\"a\": \"=1\"}"] {
            assert!(!is_formula(cell), "{cell:?}");
        }
    }
}
