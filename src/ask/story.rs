//! A history as it is told: lives of a name, days, transactions, causes.

use super::{
    events::sentence,
    history::{Kind, cause},
    paint::{self, Paint},
    read::CompleteTo,
    row::EventRow,
};
use crate::show::{count, visible};
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use std::collections::HashMap;
use uuid::Uuid;

/// All that is told of one name.
#[derive(Debug, Serialize)]
pub struct Story {
    pub kind: Kind,
    /// Of an experiment.
    pub project: Option<String>,
    pub name: String,
    /// A name may be given again after its bearer is gone: who bore it then is another one.
    pub lifetimes: Vec<Lifetime>,
    /// Whether older events were left out.
    pub has_more: bool,
    pub complete_to: Vec<CompleteTo>,
}

/// From a creation to a deletion. Without a beginning it began before what is told.
#[derive(Debug, Default, Serialize)]
pub struct Lifetime {
    pub began: Option<DateTime<Utc>>,
    pub ended: Option<DateTime<Utc>>,
    pub transactions: Vec<Told>,
}

/// One transaction of a source, oldest first; or one row that was in none.
#[derive(Debug, Serialize)]
pub struct Told {
    pub timestamp: DateTime<Utc>,
    pub source: Option<String>,
    pub lsn: Option<String>,
    pub xid: Option<u64>,
    /// What caused these events, if that itself is no part of this story.
    pub because: Option<EventRow>,
    /// In their order; a cause stands before what it caused.
    pub events: Vec<EventRow>,
}

impl Story {
    pub(super) fn new(
        kind: Kind,
        project: Option<String>,
        name: String,
        events: Vec<EventRow>,
        causes: HashMap<Uuid, EventRow>,
        has_more: bool,
        complete_to: Vec<CompleteTo>,
    ) -> Self {
        let transactions = transactions(events, causes);
        let lifetimes = lifetimes(kind, &name, transactions);
        Self { kind, project, name, lifetimes, has_more, complete_to }
    }

    /// As it is said: `experiment mesh/mesh8`.
    fn title(&self) -> String {
        let project = self.project.as_ref().map(|project| format!("{project}/"));
        let title =
            format!("{} {}{}", self.kind.subject_type(), project.unwrap_or_default(), self.name);
        visible(&title).into_owned()
    }
}

/// The events of each transaction together.
fn transactions(mut events: Vec<EventRow>, mut causes: HashMap<Uuid, EventRow>) -> Vec<Told> {
    let text = |event: &EventRow, key: &str| {
        event.audit(key).and_then(serde_json::Value::as_str).map(str::to_owned)
    };
    events.sort_by_cached_key(EventRow::place);
    let mut told: Vec<Told> = Vec::new();
    for event in events {
        let (source, lsn) = (text(&event, "source"), text(&event, "lsn"));
        let xid = event.audit("xid").and_then(serde_json::Value::as_u64);
        match told.last_mut() {
            Some(last)
                if xid.is_some() && last.xid == xid && last.lsn == lsn && last.source == source =>
            {
                last.events.push(event);
            }
            _ => {
                let timestamp = event.timestamp;
                told.push(Told { timestamp, source, lsn, xid, because: None, events: vec![event] });
            }
        }
    }
    for told in &mut told {
        told.because = told.events.iter().find_map(cause).and_then(|cause| causes.remove(&cause));
        // Stable: the rest keeps its order. An object mapper deletes the children first.
        told.events.sort_by_key(|event| cause(event).is_some());
    }
    told
}

/// Divides at creations of the thing itself.
fn lifetimes(kind: Kind, name: &str, transactions: Vec<Told>) -> Vec<Lifetime> {
    let prefix = kind.prefix();
    let is_one = |told: &Told, ends: [&str; 2]| {
        told.events.iter().any(|event| {
            let end = event.event_type.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_'));
            event.subject == name
                && event.subject_type == kind.subject_type()
                && end.is_some_and(|end| ends.contains(&end))
        })
    };
    let mut lifetimes: Vec<Lifetime> = Vec::new();
    for told in transactions {
        let (begins, ends) =
            (is_one(&told, ["created", "registered"]), is_one(&told, ["deleted", "declined"]));
        let is_new = match lifetimes.last() {
            None => true,
            // An account may be known before it is created: its identity is registered first.
            Some(last) => {
                begins && (kind != Kind::User || last.ended.is_some() || last.began.is_some())
            }
        };
        if is_new {
            lifetimes.push(Lifetime::default());
        }
        let Some(last) = lifetimes.last_mut() else { continue };
        if begins {
            last.began.get_or_insert(told.timestamp);
        }
        if ends {
            last.ended = Some(told.timestamp);
        }
        last.transactions.push(told);
    }
    lifetimes
}

/// Events alike of one transaction of which the rest is counted.
const ALIKE_MAX: usize = 5;
/// Before a sentence: the time, the mark and a blank each.
const INDENT: usize = 12;

/// The story for a terminal. Unless `is_full`, many events alike of one transaction are told as a few and their number.
#[must_use]
pub fn story_text(story: &Story, paint: Paint, is_full: bool) -> String {
    let title = story.title();
    if story.lifetimes.is_empty() {
        return format!("nothing is told of {title}\n");
    }
    let mut out = String::new();
    if story.has_more {
        out.push_str("Older events are left out; --limit or --until shows them.\n\n");
    }
    let lives = story.lifetimes.len();
    for (number, life) in story.lifetimes.iter().enumerate() {
        if number > 0 {
            out.push('\n');
        }
        let which = if lives > 1 {
            format!(", {} of {lives} of that name", number + 1)
        } else {
            String::new()
        };
        out.push_str(&paint.bold(&format!("{title}{which}")));
        out.push_str(&format!("\n{}\n", span(life)));
        let mut day: Option<NaiveDate> = None;
        for told in &life.transactions {
            let today = told.timestamp.date_naive();
            if day.replace(today) != Some(today) {
                out.push_str(&format!("\n{}\n", paint.bold(&paint::day(told.timestamp))));
            }
            out.push_str(&tell(told, paint, is_full));
        }
    }
    out
}

fn span(life: &Lifetime) -> String {
    let began = life.began.map_or_else(
        || "its creation is not told".to_owned(),
        |began| format!("created {}", paint::minute(began)),
    );
    let ended = life.ended.map(|ended| format!(", deleted {}", paint::minute(ended)));
    format!("{began}{}", ended.unwrap_or_default())
}

/// The lines of one transaction: its first event has the time, the others hang under it.
fn tell(told: &Told, paint: Paint, is_full: bool) -> String {
    let mut out = String::new();
    let time = paint.dim(&paint::clock(told.timestamp));
    let blank = " ".repeat(8);
    let events = if is_full { whole(told) } else { brief(told) };
    let mut is_first = true;
    if let Some(because) = &told.because {
        out.push_str(&format!(
            "{time}  {} {}",
            paint.outcome(because.success),
            sentence(because, paint, INDENT)
        ));
        is_first = false;
    }
    let last = events.len().saturating_sub(1);
    for (number, line) in events.iter().enumerate() {
        if is_first {
            is_first = false;
            out.push_str(&format!("{time}  {}", line.text(paint, INDENT)));
            continue;
        }
        let branch = if number == last { "└" } else { "├" };
        out.push_str(&format!("{blank}  {} {}", paint.dim(branch), line.text(paint, INDENT + 2)));
    }
    out
}

/// One line under a transaction.
enum Line<'a> {
    Event(&'a EventRow),
    /// So many more of a type.
    More(usize, &'a str),
}

impl Line<'_> {
    fn text(&self, paint: Paint, indent: usize) -> String {
        match self {
            Line::Event(event) => {
                format!("{} {}", paint.outcome(event.success), sentence(event, paint, indent))
            }
            Line::More(more, event_type) => {
                let more = count(u64::try_from(*more).unwrap_or(u64::MAX));
                let text = format!("… and {more} more of type {}", visible(event_type));
                format!("{}\n", paint.dim(&text))
            }
        }
    }
}

fn whole(told: &Told) -> Vec<Line<'_>> {
    told.events.iter().map(Line::Event).collect()
}

/// The first few of each type, and how many there are beside them. A failure is always told.
fn brief(told: &Told) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    let mut rest = told.events.as_slice();
    while let Some(first) = rest.first() {
        let is_alike = |event: &&EventRow| event.event_type == first.event_type && event.success;
        let alike = rest.iter().take_while(is_alike).count().max(1);
        let (own, others) = rest.split_at(alike);
        let shown = if alike > ALIKE_MAX { ALIKE_MAX - 1 } else { alike };
        lines.extend(own.iter().take(shown).map(Line::Event));
        if alike > shown {
            lines.push(Line::More(alike - shown, &first.event_type));
        }
        rest = others;
    }
    lines
}
