//! What every page has around it, and texts as they may be shown.

use super::{Fault, Visitor, reader::Reader};
use crate::show;
use askama::Template;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};

/// Head and foot of a page.
#[derive(Debug)]
pub(super) struct Frame {
    /// Which entry of the menu it belongs to.
    pub(super) place: &'static str,
    pub(super) who: String,
    pub(super) may_leave: bool,
    pub(super) complete: Vec<Complete>,
}

/// Up to when a source's record is complete.
#[derive(Debug)]
pub(super) struct Complete {
    pub(super) source: String,
    pub(super) to: String,
    pub(super) lag: String,
    pub(super) is_late: bool,
}

/// Behind by more, a page says so loudly.
const LATE_SECONDS: f64 = 60.0;

impl Frame {
    pub(super) async fn read(
        place: &'static str,
        visitor: &Visitor,
        reader: &Reader,
    ) -> Result<Self, Fault> {
        const QUERY: &str = "SELECT source, complete_to, extract(epoch FROM now() - complete_to)::float8 FROM portal_audit.progress ORDER BY source";
        let complete = reader.rows(QUERY, &[]).await?;
        let complete = complete.iter().map(|row| {
            let seconds: Option<f64> = row.get(2);
            let to: Option<DateTime<Utc>> = row.get(1);
            Complete {
                source: row.get(0),
                to: to.map_or("nothing yet".to_owned(), time),
                lag: seconds.map_or(String::new(), |lag| show::seconds(lag.max(0.0))),
                is_late: seconds.is_none_or(|lag| lag > LATE_SECONDS),
            }
        });
        let who = match (visitor.name.as_str(), visitor.sees_all) {
            ("", _) => "this machine: sees all".to_owned(),
            (name, true) => format!("{name}: sees all"),
            (name, false) => name.to_owned(),
        };
        let complete = complete.collect();
        Ok(Self { place, who, may_leave: visitor.may_leave, complete })
    }
}

/// An instant, to the second, in UTC.
pub(super) fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}

/// A part of a path or of a query, with all but plain letters and digits escaped (RFC 3986, section 2.3).
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A page that was drawn.
pub(super) fn html(status: StatusCode, template: &impl Template) -> Result<Response, Fault> {
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    Ok((status, [(header::CONTENT_TYPE, kind)], template.render()?).into_response())
}

#[derive(Template)]
#[template(path = "fault.html")]
struct FaultPage<'a> {
    status: u16,
    reason: &'a str,
    message: &'a str,
}

/// The page in place of one that is not there.
pub(super) fn fault(status: StatusCode, message: &str) -> Response {
    let reason = match status {
        StatusCode::UNAUTHORIZED => "Not signed in",
        status => status.canonical_reason().unwrap_or("Fault"),
    };
    let page = FaultPage { status: status.as_u16(), reason, message };
    html(status, &page).unwrap_or_else(|_undrawn| status.into_response())
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    wrong: &'static str,
}

/// The form for a token; `wrong`: what was wrong with the last one, or empty.
pub(super) fn login(status: StatusCode, wrong: &'static str) -> Result<Response, Fault> {
    html(status, &LoginPage { wrong })
}

/// What is offered beside the pages' own words: [`show::visible`] for askama.
#[expect(unreachable_pub, reason = "askama's macro makes types of them")]
pub(super) mod filters {
    use std::fmt::Display;

    /// Control and direction characters as visible escapes; askama escapes the rest.
    #[askama::filter_fn]
    pub(in crate::web) fn seen(
        text: impl Display,
        _: &dyn askama::Values,
    ) -> askama::Result<String> {
        Ok(crate::show::visible(&text.to_string()).into_owned())
    }

    /// The same, with line ends as they are.
    #[askama::filter_fn]
    pub(in crate::web) fn seen_lines(
        text: impl Display,
        _: &dyn askama::Values,
    ) -> askama::Result<String> {
        let text = text.to_string();
        let lines: Vec<_> = text.split('\n').map(crate::show::visible).collect();
        Ok(lines.join("\n"))
    }

    /// A part of a link.
    #[askama::filter_fn]
    pub(in crate::web) fn escaped(
        text: impl Display,
        _: &dyn askama::Values,
    ) -> askama::Result<String> {
        Ok(super::escaped(&text.to_string()))
    }
}
