//! One subject's history: a user's, an organization's, a project's, an experiment's.

use super::{
    Fault, Visitor, Web,
    events::{self, Line, Lines},
    find::Wanted,
    overview,
    page::{self, Frame, filters},
    panes::{self, Pane, Subject},
};
use crate::filter::{Filter, Moment, Order, PayloadValue};
use askama::Template;
use axum::{
    Extension,
    extract::{Path, Query, State},
    http::StatusCode,
    response::Response,
};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use std::sync::Arc;

const PAGE_EVENTS: i64 = 100;

#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    before: Option<String>,
    /// A date whose end is meant.
    at: Option<String>,
}

/// A day of a history.
struct Day {
    date: String,
    lines: Vec<Line>,
}

#[derive(Template)]
#[template(path = "subject.html")]
struct SubjectPage {
    frame: Frame,
    kind: &'static str,
    name: String,
    at: String,
    latest: String,
    panes: Vec<Pane>,
    days: Vec<Day>,
    older: Option<String>,
    /// How far was looked, where that is not all.
    looked_to: Option<String>,
    search: String,
}

pub(super) async fn of_kind(
    state: State<Arc<Web>>,
    visitor: Extension<Visitor>,
    Path((kind, name)): Path<(String, String)>,
    asked: Query<Asked>,
) -> Result<Response, Fault> {
    let (kind, subject_type) = match kind.as_str() {
        "users" => ("User", "user"),
        "organizations" => ("Organization", "organization"),
        "projects" => ("Project", "project"),
        _ => return Err(Fault::Missing),
    };
    let mut filter = Filter::default();
    if subject_type == "user" {
        filter.user.push(name.clone());
    } else {
        filter.subject_type.push(subject_type.to_owned());
        filter.subject.push(name.clone());
    }
    history(state, visitor, (kind, name, filter), asked).await
}

pub(super) async fn experiment(
    state: State<Arc<Web>>,
    visitor: Extension<Visitor>,
    Path((project, name)): Path<(String, String)>,
    asked: Query<Asked>,
) -> Result<Response, Fault> {
    let mut filter = Filter::default();
    filter.subject_type.push("experiment".to_owned());
    filter.subject.push(name.clone());
    filter.payload.push(PayloadValue { key: "project".to_owned(), value: project.clone() });
    history(state, visitor, ("Experiment", format!("{project}/{name}"), filter), asked).await
}

async fn history(
    State(web): State<Arc<Web>>,
    Extension(visitor): Extension<Visitor>,
    (kind, name, filter): (&'static str, String, Filter),
    Query(asked): Query<Asked>,
) -> Result<Response, Fault> {
    let reader = web.sessions.read(&visitor).await?;
    let frame = Frame::read("", &visitor, &reader).await?;
    let now = reader.row("SELECT now()", &[]).await?.ok_or(Fault::Away)?.get(0);
    let date = overview::date(asked.at.as_deref())?;
    let at: DateTime<Utc> = date.map_or(now, |date| overview::end_of(date).min(now));
    let until = date.map(|_| Moment::At(at));
    let filter = Filter { until, ..filter };
    let beyond = asked.before.as_deref().map(|before| {
        events::heard(before).ok_or(Fault::Asked("There is no such page of events.".into()))
    });
    let order = Order::NewestFirst;
    let wanted = Wanted { filter: &filter, order, beyond: beyond.transpose()?, limit: PAGE_EVENTS };
    let Lines { lines, looked_to } = events::read_lines(&reader, &visitor, &wanted).await?;
    let is_whole = looked_to.is_none();
    if lines.is_empty() && is_whole && asked.before.is_none() && date.is_none() {
        return Err(Fault::Missing);
    }
    let is_full = i64::try_from(lines.len()) == Ok(PAGE_EVENTS);
    let older = lines.last().filter(|_| is_full).map(|line| line.key).or(looked_to);
    let at_text = date.map_or_else(String::new, |date| date.to_string());
    let older =
        older.map(|key| format!("?at={at_text}&before={}", page::escaped(&events::said(key))));
    // Of others' lives only events tell, to those who may see them.
    let panes = match (visitor.sees_all && asked.before.is_none(), subject_of(kind, &name)) {
        (true, Some(subject)) => panes::of(&reader, &subject, at).await?,
        _ => Vec::new(),
    };
    let count = lines.len();
    let search = match kind {
        "User" => format!("user:{}", quoted(&name)),
        "Experiment" => String::from("subject_type:experiment"),
        kind => format!("subject_type:{} subject:{}", kind.to_lowercase(), quoted(&name)),
    };
    drop(reader);
    web.looked(&visitor, kind, &name, count).await;
    let page = SubjectPage {
        frame,
        kind,
        name,
        at: at_text,
        latest: now.date_naive().to_string(),
        panes,
        days: by_day(lines),
        older,
        looked_to: looked_to.map(|key| page::time(key.timestamp)),
        search,
    };
    page::html(StatusCode::OK, &page)
}

fn subject_of<'a>(kind: &str, name: &'a str) -> Option<Subject<'a>> {
    match kind {
        "User" => Some(Subject::User(name)),
        "Organization" => Some(Subject::Organization(name)),
        "Project" => Some(Subject::Project(name)),
        "Experiment" => {
            let (project, name) = name.split_once('/')?;
            Some(Subject::Experiment { project, name })
        }
        _ => None,
    }
}

/// As a search box takes any name.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

fn by_day(lines: Vec<Line>) -> Vec<Day> {
    let mut days: Vec<Day> = Vec::new();
    for line in lines {
        let date = line.key.timestamp.format("%A, %-d %B %Y").to_string();
        match days.last_mut().filter(|day| day.date == date) {
            Some(day) => day.lines.push(line),
            None => days.push(Day { date, lines: vec![line] }),
        }
    }
    days
}
