//! `events --follow`: events in the order in which they were written.
//!
//! # Why not by time
//! The time of an event is that of its commit at the source. One that was committed earlier may be written later: two sources are not equally far, and a sidecar that was down catches up. Who looks only for what is newer than the newest misses those.
//!
//! The order of writing stands in `portal_audit.seals`: a row there is written with its events, and the rows of one tree come one after the other, so a place in each tree is all that is to be remembered. Rows that nobody sealed, because somebody else inserted them, are found by looking again and again at the last stretch of time; and so is everything where the role may not read the seals. Both are read in one snapshot, so that nothing is shown twice.

use super::{
    AskError,
    events::{EventsArguments, Page, Table, lines},
    paint::Paint,
    print,
    read::{Reader, complete_text},
    record::record,
    row::{EventRow, select},
    tell,
};
use crate::show::OutputFormat;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use tokio::time::sleep;
use uuid::Uuid;

/// Between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How far back each look goes for rows that nobody sealed.
const WINDOW: TimeDelta = TimeDelta::seconds(10);
/// The same where the seals cannot be read.
const WINDOW_ALONE: TimeDelta = TimeDelta::seconds(120);
/// Seals of one tree that are read at a time.
const SEALS_MAX: i64 = 64;
/// Events that are read at a time.
const EVENTS_MAX: usize = 1_000;
/// Bytes of a uuid in a seal.
const UUID_BYTES: usize = 16;

/// What was seen.
#[derive(Debug)]
struct Seen {
    /// The next leaf of each tree.
    trees: HashMap<String, i64>,
    /// Every event of the window.
    window: HashSet<Uuid>,
    from: DateTime<Utc>,
    width: TimeDelta,
}

/// Shows a page, and then what arrives until somebody ends it. `asked` is what is recorded of it.
pub(super) async fn follow(
    reader: &Reader,
    arguments: &EventsArguments,
    asked: &Value,
    page: Page,
) -> Result<(), AskError> {
    if !reader.abilities.reads_seals {
        tell(
            "the order of writing cannot be read: an event that is written more than 2 minutes after a later one is not shown",
        );
    }
    let mut seen = Seen::begin(reader).await?;
    reader.close().await?;
    let mut table = Table::new(Paint::of_stdout());
    let mut shown = page.events.len();
    let stop = crate::pipeline::asked_to_stop();
    tokio::pin!(stop);
    let mut result = show(&page.events, arguments, &mut table);
    while result.is_ok() {
        tokio::select! {
            () = &mut stop => break,
            () = sleep(POLL_INTERVAL) => {}
        }
        let events = arrived(reader, arguments, &mut seen).await?;
        shown += events.len();
        result = show(&events, arguments, &mut table);
    }
    // Whoever reads may have gone; that there was a read is recorded all the same.
    record(reader, "events", asked, shown).await?;
    result?;
    let complete_to = reader.complete_to().await?;
    tell(&match arguments.format {
        OutputFormat::Json => json!({"events": shown, "complete_to": complete_to}).to_string(),
        OutputFormat::Text => complete_text(&complete_to),
    });
    Ok(())
}

fn show(
    events: &[EventRow],
    arguments: &EventsArguments,
    table: &mut Table,
) -> Result<(), AskError> {
    if events.is_empty() {
        return Ok(());
    }
    match arguments.format {
        OutputFormat::Json => print(&lines(events)?),
        OutputFormat::Text => {
            print(&events.iter().map(|event| table.event(event)).collect::<String>())
        }
    }
}

/// What is meant of all that arrived since the last look, in the order of writing.
async fn arrived(
    reader: &Reader,
    arguments: &EventsArguments,
    seen: &mut Seen,
) -> Result<Vec<EventRow>, AskError> {
    const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
    let client = &reader.session.client;
    client.batch_execute(BEGIN).await.map_err(AskError::query)?;
    let new = seen.look(reader).await?;
    let mut events = Vec::new();
    for part in new.chunks(EVENTS_MAX) {
        let mut to = arguments.filter.condition();
        let wanted = to.bind(part.to_vec());
        to.and(&format!("e.event_uuid = ANY ({wanted}::uuid[])"));
        let query = format!("{} WHERE {}", select(&reader.abilities), to.sql());
        let rows = client.query(&query, &to.values()).await.map_err(AskError::query)?;
        let rows = rows.iter().map(EventRow::read).map(|event| (event.event_uuid, event));
        let mut rows: HashMap<Uuid, EventRow> = rows.collect();
        events.extend(part.iter().filter_map(|event_uuid| rows.remove(event_uuid)));
    }
    reader.close().await?;
    Ok(events)
}

impl Seen {
    /// All that the snapshot holds is seen.
    async fn begin(reader: &Reader) -> Result<Self, AskError> {
        let newest = newest(reader).await?;
        let width = if reader.abilities.reads_seals { WINDOW } else { WINDOW_ALONE };
        let mut seen = Self {
            trees: sizes(reader).await?,
            window: HashSet::new(),
            from: newest.unwrap_or(reader.now) - width,
            width,
        };
        seen.look(reader).await?;
        Ok(seen)
    }

    /// The events that are there now and were not at the last look.
    async fn look(&mut self, reader: &Reader) -> Result<Vec<Uuid>, AskError> {
        const RECENT: &str = "SELECT event_uuid, timestamp FROM public.events WHERE timestamp >= $1 ORDER BY timestamp, event_uuid";
        let mut new = Vec::new();
        for (tree, size) in sizes(reader).await? {
            let next = self.trees.entry(tree.clone()).or_insert(0);
            while *next < size {
                let (uuids, end) = sealed(reader, &tree, *next).await?;
                new.extend(uuids);
                // A tree that was cut off holds less than it says; `verify` finds that, not a look at its end.
                *next = end.unwrap_or(size);
            }
        }
        let mut known: HashSet<Uuid> = new.iter().copied().collect();
        let rows = reader.session.client.query(RECENT, &[&self.from]).await;
        let rows = rows.map_err(AskError::query)?;
        let recent: Vec<(Uuid, DateTime<Utc>)> =
            rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        for (event_uuid, _) in &recent {
            if !self.window.contains(event_uuid) && known.insert(*event_uuid) {
                new.push(*event_uuid);
            }
        }
        let newest = match recent.last() {
            // Time goes on without them too: what others do must not gather behind the last one of theirs.
            _ if reader.abilities.is_viewer => newest(reader).await?,
            last => last.map(|(_, at)| *at),
        };
        if let Some(newest) = newest {
            self.from = newest - self.width;
        }
        let kept = recent.into_iter().filter(|(_, at)| *at >= self.from);
        self.window = kept.map(|(event_uuid, _)| event_uuid).collect();
        Ok(new)
    }
}

/// The time of the newest event, or of the last one that a portal user may have missed: under the policy the newest of theirs may lie behind all that others did.
async fn newest(reader: &Reader) -> Result<Option<DateTime<Utc>>, AskError> {
    const NEWEST: &str = "SELECT max(timestamp) FROM public.events";
    const COMPLETE: &str = "SELECT max(complete_to) FROM portal_audit.progress";
    let query = match &reader.abilities {
        abilities if !abilities.is_viewer => NEWEST,
        abilities if abilities.reads_progress => COMPLETE,
        _ => "SELECT now()",
    };
    let row = reader.session.client.query_one(query, &[]).await.map_err(AskError::query)?;
    Ok(row.get(0))
}

async fn sizes(reader: &Reader) -> Result<HashMap<String, i64>, AskError> {
    if !reader.abilities.reads_seals {
        return Ok(HashMap::new());
    }
    let query = "SELECT tree, size FROM portal_audit.trees";
    let rows = reader.session.client.query(query, &[]).await.map_err(AskError::query)?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The events of a tree from a leaf on, and the leaf behind the last of them.
async fn sealed(
    reader: &Reader,
    tree: &str,
    next: i64,
) -> Result<(Vec<Uuid>, Option<i64>), AskError> {
    const QUERY: &str = "SELECT uuids, first + events FROM portal_audit.seals WHERE tree = $1 AND first >= $2 ORDER BY first LIMIT $3";
    let rows = reader.session.client.query(QUERY, &[&tree, &next, &SEALS_MAX]).await;
    let rows = rows.map_err(AskError::query)?;
    let mut uuids = Vec::new();
    for row in &rows {
        let bytes: &[u8] = row.get(0);
        uuids.extend(bytes.chunks(UUID_BYTES).filter_map(|bytes| Uuid::from_slice(bytes).ok()));
    }
    Ok((uuids, rows.last().map(|row| row.get(1))))
}
