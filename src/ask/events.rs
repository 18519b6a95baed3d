//! `events`: rows of the log, page by page or as they arrive.

use super::{
    AskError,
    follow::follow,
    paint::{self, Paint, column},
    print,
    read::{CompleteTo, Reader, complete_text},
    record::record,
    row::{EventRow, select},
    tell,
};
use crate::{
    config::AuditArguments,
    filter::{Filter, Key, Order, Where},
    show::{OutputFormat, count, visible},
};
use chrono::NaiveDate;
use serde_json::json;
use tokio_postgres::types::Json;
use uuid::Uuid;

/// Most rows of one page: more is what `export` is for.
const LIMIT_MAX: i64 = 10_000;

#[derive(Debug, clap::Args)]
pub struct EventsArguments {
    #[command(flatten)]
    pub(super) filter: Filter,
    /// How many, counted from the newest
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(i64).range(0..=LIMIT_MAX))]
    limit: i64,
    /// Only what came before this event: the page that ends there
    #[arg(long, value_name = "EVENT_UUID", conflicts_with = "follow")]
    before: Option<Uuid>,
    /// Newest first
    #[arg(long, conflicts_with = "follow")]
    reverse: bool,
    /// Go on as events arrive, until Ctrl-C. They come in the order in which they were written, so one of an earlier time may stand after a later one
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    audit: AuditArguments,
    /// Text for people, or one JSON object per line
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    pub(super) format: OutputFormat,
}

/// Events as they are shown, in the order in which they are shown.
#[derive(Debug)]
pub struct Page {
    pub events: Vec<EventRow>,
    /// If older ones were left out: where the next page ends.
    pub before: Option<Uuid>,
    pub complete_to: Vec<CompleteTo>,
}

pub(super) async fn run(mut arguments: EventsArguments) -> Result<(), AskError> {
    if arguments.limit == 0 && !arguments.follow {
        return Err(AskError::Usage("--limit 0 shows nothing without --follow".to_owned()));
    }
    let asked = json!(arguments.filter);
    let reader = Reader::open(&arguments.audit, "events").await?;
    arguments.filter.pin(reader.now);
    let page = page(&reader, &arguments).await?;
    if arguments.follow {
        return follow(&reader, &arguments, &asked, page).await;
    }
    reader.close().await?;
    record(&reader, "events", &asked, page.events.len()).await?;
    match arguments.format {
        OutputFormat::Text => print(&page_text(&page, Paint::of_stdout()))?,
        OutputFormat::Json => print(&lines(&page.events)?)?,
    }
    tell(&trailer(&page, &arguments));
    Ok(())
}

/// The newest events that are meant, and whether there are more. One more than is shown is read.
async fn page(reader: &Reader, arguments: &EventsArguments) -> Result<Page, AskError> {
    let before = match arguments.before {
        Some(event_uuid) => Some(place(reader, event_uuid).await?),
        None => None,
    };
    let (select, order) = (select(&reader.abilities), Order::NewestFirst.sql());
    let to = if reader.abilities.is_viewer {
        own(&arguments.filter, before, arguments.limit + 1)
    } else {
        let mut to = arguments.filter.condition();
        if let Some(key) = before {
            to.beyond(Order::NewestFirst, key);
        }
        to
    };
    let query =
        format!("{select} WHERE {} ORDER BY {order} LIMIT {}", to.sql(), arguments.limit + 1);
    let rows = reader.session.client.query(&query, &to.values()).await.map_err(AskError::query)?;
    let mut events: Vec<EventRow> = rows.iter().map(EventRow::read).collect();
    let limit = usize::try_from(arguments.limit).unwrap_or(usize::MAX);
    let has_more = events.len() > limit;
    events.truncate(limit);
    let before = events.last().filter(|_| has_more).map(|event| event.event_uuid);
    events.sort_by_cached_key(EventRow::place);
    if arguments.reverse {
        events.reverse();
    }
    Ok(Page { events, before, complete_to: reader.complete_to().await? })
}

/// So many of the newest that a portal user may see.
fn own(filter: &Filter, before: Option<Key>, limit: i64) -> Where {
    let mut to = Where::default();
    let limit = to.bind(i32::try_from(limit).unwrap_or(i32::MAX));
    let filter = to.bind(Json(filter.clone()));
    let at = to.bind(before.map(|key| key.timestamp));
    let event_uuid = to.bind(before.map(|key| key.event_uuid));
    to.and(&format!(
        "e.event_uuid = ANY (ARRAY(SELECT o.event_uuid FROM portal_audit.my_events({limit}, {at}, {event_uuid}, {filter}) o))"
    ));
    to
}

async fn place(reader: &Reader, event_uuid: Uuid) -> Result<Key, AskError> {
    const QUERY: &str = "SELECT timestamp FROM public.events WHERE event_uuid = $1";
    let row = reader.session.client.query_opt(QUERY, &[&event_uuid]).await;
    let row = row.map_err(AskError::query)?.ok_or(AskError::NoEvent { event_uuid })?;
    Ok(Key { timestamp: row.get(0), event_uuid })
}

/// Each event as a line of JSON.
pub(super) fn lines(events: &[EventRow]) -> Result<String, AskError> {
    let mut out = String::new();
    for event in events {
        out.push_str(&serde_json::to_string(event).map_err(AskError::Json)?);
        out.push('\n');
    }
    Ok(out)
}

/// What is said after the events, on stderr: in the format of the answer.
fn trailer(page: &Page, arguments: &EventsArguments) -> String {
    let Page { events, before, complete_to } = page;
    let before = before.map(|before| before.to_string());
    if arguments.format == OutputFormat::Json {
        return json!({"events": events.len(), "before": before, "complete_to": complete_to})
            .to_string();
    }
    let shown = match events.len() {
        0 => "no such events".to_owned(),
        1 => "1 event".to_owned(),
        many => format!("{} events", count(u64::try_from(many).unwrap_or(u64::MAX))),
    };
    let more = before.map(|before| format!(", older ones with --before {before}"));
    format!("{shown}{}; {}", more.unwrap_or_default(), complete_text(complete_to))
}

/// The events under the days on which they happened.
#[must_use]
pub fn page_text(page: &Page, paint: Paint) -> String {
    let mut table = Table::new(paint);
    page.events.iter().map(|event| table.event(event)).collect()
}

/// From this width on the table has a column for who did it, and one for the event type.
const WIDTH_OF_CALLER: usize = 76;
const WIDTH_OF_TYPE: usize = 116;
/// Columns of those two.
const CALLER: usize = 12;
const TYPE: usize = 26;

/// Lines of a table that may go on for ever.
#[derive(Debug)]
pub(super) struct Table {
    paint: Paint,
    day: Option<NaiveDate>,
}

impl Table {
    pub(super) fn new(paint: Paint) -> Self {
        Self { paint, day: None }
    }

    /// An event's lines, under its day if that is a new one.
    pub(super) fn event(&mut self, event: &EventRow) -> String {
        let paint = self.paint;
        let mut out = String::new();
        let day = event.timestamp.date_naive();
        let before = self.day.replace(day);
        if before != Some(day) {
            let gap = if before.is_some() { "\n" } else { "" };
            out.push_str(&format!("{gap}{}\n", paint.bold(&paint::day(event.timestamp))));
        }
        out.push_str(&format!(
            "{}  {} ",
            paint.dim(&paint::clock(event.timestamp)),
            paint.outcome(event.success)
        ));
        let mut indent = 12;
        if paint.is_at_least(WIDTH_OF_CALLER) {
            let caller = if event.caller.is_empty() { "–" } else { &event.caller };
            out.push_str(&format!("{}  ", column(caller, CALLER)));
            indent += CALLER + 2;
        }
        if paint.is_at_least(WIDTH_OF_TYPE) {
            out.push_str(&format!("{}  ", paint.dim(&column(&event.event_type, TYPE))));
            indent += TYPE + 2;
        }
        out.push_str(&sentence(event, paint, indent));
        out
    }
}

/// The sentence, and under it the reason of a failure unless the sentence tells it.
pub(super) fn sentence(event: &EventRow, paint: Paint, indent: usize) -> String {
    /// A long reason may be cut in the sentence.
    const ALIKE: usize = 200;
    let mut lines = paint.wrap(indent, &event.description);
    let reason = event.error_message.as_deref().unwrap_or_default();
    let begin: String = visible(reason).chars().take(ALIKE).collect();
    if !event.description.contains(&begin) {
        let reason = paint.wrap(indent, reason);
        lines.extend(reason.iter().map(|line| paint.red(line)));
    }
    let margin = format!("\n{}", " ".repeat(indent));
    lines.join(&margin) + "\n"
}
