//! Finds a page of events among millions.
//!
//! No index of the given table has both a name and the time. So the planner has two ways, through time until the page is full, or all events of the name and then sort; and it cannot know which one is short, because a name may be one of long ago. Here each way is bounded, for those who see all: first what is newest is looked through, then what the indexes of names find, as long as that is not too much. What is neither near nor seldom is looked for through time, for as long as a page may take; the page then says how far it came, and the next one goes on from there.

use super::{
    Fault, Visitor,
    events::{FROM, LINE},
    own,
    reader::Reader,
};
use crate::filter::{Filter, Key, Order, Where};
use chrono::{DateTime, Utc};
use std::time::{Duration, Instant};
use tokio_postgres::Row;
use uuid::Uuid;

/// Events that are looked through before the indexes are asked.
const NEAR: i64 = 4_000;
/// Events of a name or type that are looked at and sorted at most.
const SELDOM: i64 = 25_000;
/// Events that are looked through at a time, and how long a page goes on with that.
const STEP: i64 = 20_000;
const LOOK_MAX: Duration = Duration::from_millis(40);

/// Which events a page has.
pub(super) struct Wanted<'a> {
    pub(super) filter: &'a Filter,
    pub(super) order: Order,
    /// Only behind this one, in that order.
    pub(super) beyond: Option<Key>,
    pub(super) limit: i64,
}

/// A page, or as much of it as was found in time.
#[derive(Default)]
pub(super) struct Found {
    /// Of [`LINE`], and the payload as `whole`.
    pub(super) rows: Vec<Row>,
    /// Where looking stopped before the page was full: what lies behind was not looked at.
    pub(super) looked_to: Option<Key>,
}

/// What stands in a query.
struct Parts {
    /// Where the page begins and ends in time: what the index on it answers without the table.
    during: String,
    /// How many values that has; they are the first ones.
    during_values: usize,
    /// That, the place where the page begins among the events of one time, and all else that the events must be.
    whole: Where,
    is_all: bool,
    order: Order,
    limit: i64,
}

impl Parts {
    fn new(wanted: &Wanted<'_>, beyond: Option<Key>, limit: i64) -> Self {
        let mut whole = Where::default();
        wanted.filter.span(&mut whole);
        let (earlier, last) = match wanted.order {
            Order::NewestFirst => ("<", Uuid::nil()),
            Order::OldestFirst => (">", Uuid::max()),
        };
        if let Some(key) = beyond {
            let at = whole.bind(key.timestamp);
            // All of that time may lie on this side.
            let or_then = if key.event_uuid == last { "" } else { "=" };
            whole.and(&format!("e.timestamp {earlier}{or_then} {at}::timestamptz"));
        }
        let (during, during_values) = (whole.sql().to_owned(), whole.values().len());
        if let Some(key) = beyond.filter(|key| key.event_uuid != last) {
            whole.beyond(wanted.order, key);
        }
        let place = whole.sql().len();
        wanted.filter.matter(&mut whole);
        let is_all = place == whole.sql().len();
        Self { during, during_values, whole, is_all, order: wanted.order, limit }
    }
}

/// The page.
pub(super) async fn rows(
    reader: &Reader,
    visitor: &Visitor,
    wanted: &Wanted<'_>,
) -> Result<Found, Fault> {
    if visitor.sees_all {
        return any(reader, wanted).await;
    }
    let (rows, looked_to) = own::page(reader, wanted).await?;
    Ok(Found { rows, looked_to })
}

/// Of all events that there are.
async fn any(reader: &Reader, wanted: &Wanted<'_>) -> Result<Found, Fault> {
    let begun = Instant::now();
    let parts = Parts::new(wanted, wanted.beyond, wanted.limit);
    if parts.is_all {
        return Ok(Found { rows: walk(reader, &parts).await?, looked_to: None });
    }
    let mut found = look(reader, &parts, NEAR).await?;
    if found.looked_to.is_none() {
        return Ok(found);
    }
    // Where some are near, a few steps find the rest sooner than an index.
    let near = i64::try_from(found.rows.len()).unwrap_or_default();
    if near * 2 * STEP >= wanted.limit * NEAR {
        found = look(reader, &parts, 2 * STEP).await?;
        if found.looked_to.is_none() {
            return Ok(found);
        }
    }
    if let Some(rows) = seldom(reader, wanted.filter, &parts).await? {
        return Ok(Found { rows, looked_to: None });
    }
    while let Some(edge) = found.looked_to {
        let missing = wanted.limit - i64::try_from(found.rows.len()).unwrap_or(wanted.limit);
        let parts = Parts::new(wanted, Some(edge), missing);
        let more = look(reader, &parts, STEP).await?;
        found.rows.extend(more.rows);
        found.looked_to = more.looked_to;
        if begun.elapsed() > LOOK_MAX {
            break;
        }
    }
    Ok(found)
}

/// Through so many events and the others of the last one's time, and no farther than the page is full.
async fn look(reader: &Reader, parts: &Parts, events: i64) -> Result<Found, Fault> {
    let Parts { during, whole, order, limit, .. } = parts;
    let (way, side, last) = match order {
        Order::NewestFirst => ("DESC", ">=", Uuid::nil()),
        Order::OldestFirst => ("ASC", "<=", Uuid::max()),
    };
    let edge = format!(
        "SELECT e.timestamp FROM public.events e WHERE {during} ORDER BY e.timestamp {way} OFFSET {events} LIMIT 1"
    );
    let mut values = whole.values();
    values.truncate(parts.during_values);
    let edge: Option<DateTime<Utc>> = reader.row(&edge, &values).await?.map(|row| row.get(0));
    let mut values = whole.values();
    let mut condition = whole.sql().to_owned();
    if let Some(edge) = &edge {
        values.push(edge);
        condition.push_str(&format!(" AND e.timestamp {side} ${}", values.len()));
    }
    let rows = reader.rows(&select(&condition, order.sql(), *limit), &values).await?;
    let is_full = i64::try_from(rows.len()).is_ok_and(|found| found >= *limit);
    let looked_to = edge.filter(|_| !is_full);
    let looked_to = looked_to.map(|timestamp| Key { timestamp, event_uuid: last });
    Ok(Found { rows, looked_to })
}

fn select(condition: &str, order: &str, limit: i64) -> String {
    format!(
        "SELECT {LINE}, e.payload AS whole FROM {FROM} WHERE {condition} ORDER BY {order} LIMIT {limit}"
    )
}

/// Through time, until the page is full.
async fn walk(reader: &Reader, parts: &Parts) -> Result<Vec<Row>, Fault> {
    let query = select(parts.whole.sql(), parts.order.sql(), parts.limit);
    reader.rows(&query, &parts.whole.values()).await
}

/// By the indexes of names; `None`: there are too many.
async fn seldom(
    reader: &Reader,
    filter: &Filter,
    parts: &Parts,
) -> Result<Option<Vec<Row>>, Fault> {
    // What types a beginning stands for is not known when the plan is made, which then seems to find half of the table.
    reader.set("enable_seqscan = off").await?;
    let found = few(reader, filter, parts).await?;
    reader.set("enable_seqscan = DEFAULT").await?;
    let Some(ids) = found else { return Ok(None) };
    let query = select("e.event_uuid = ANY ($1)", parts.order.sql(), parts.limit);
    Ok(Some(reader.rows(&query, &[&ids]).await?))
}

async fn few(reader: &Reader, filter: &Filter, parts: &Parts) -> Result<Option<Vec<Uuid>>, Fault> {
    let mut to = Where::default();
    let Some(fewest) = filter.fewest(&mut to, SELDOM + 1) else { return Ok(None) };
    let count = reader.row(&format!("SELECT {fewest}"), &to.values()).await?.ok_or(Fault::Away)?;
    if count.get::<_, i64>(0) > SELDOM {
        return Ok(None);
    }
    let (condition, order, limit) = (parts.whole.sql(), parts.order.sql(), parts.limit);
    // Apart from the order, for which the planner would walk through all of time.
    let query = format!(
        "WITH e AS MATERIALIZED (SELECT e.event_uuid, e.timestamp FROM public.events e WHERE {condition}) SELECT ARRAY(SELECT e.event_uuid FROM e ORDER BY {order} LIMIT {limit})"
    );
    let found = reader.row(&query, &parts.whole.values()).await?.ok_or(Fault::Away)?;
    Ok(Some(found.get(0)))
}
