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
    /// Where the page begins and ends in time.
    place: String,
    /// How many values that has; they are the first ones.
    place_values: usize,
    /// That, and the types and names that an index finds.
    indexed: String,
    /// That, and all else that the events must be.
    whole: Where,
    order: Order,
    limit: i64,
}

impl Parts {
    fn new(wanted: &Wanted<'_>, beyond: Option<Key>, limit: i64) -> Self {
        let mut whole = Where::default();
        wanted.filter.span(&mut whole);
        if let Some(key) = beyond {
            whole.beyond(wanted.order, key);
        }
        let (place, place_values) = (whole.sql().to_owned(), whole.values().len());
        wanted.filter.names(&mut whole);
        let indexed = whole.sql().to_owned();
        wanted.filter.facts(&mut whole);
        Self { place, place_values, indexed, whole, order: wanted.order, limit }
    }

    fn is_all(&self) -> bool {
        self.place == self.whole.sql()
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
    if parts.is_all() {
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
    if wanted.filter.is_indexed()
        && let Some(rows) = seldom(reader, &parts).await?
    {
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

/// Through so many events only, and no farther than the page is full.
async fn look(reader: &Reader, parts: &Parts, events: i64) -> Result<Found, Fault> {
    let (place, condition, order, limit) =
        (&parts.place, parts.whole.sql(), parts.order.sql(), parts.limit);
    // The limit keeps the inner part apart, so that the outer one decides nothing about how it is read.
    let query = format!(
        "SELECT {LINE}, e.payload AS whole FROM (SELECT e.* FROM public.events e WHERE {place} ORDER BY {order} LIMIT {events}) e LEFT JOIN portal_audit.event_types t ON t.event_type = e.event_type WHERE {condition} ORDER BY {order} LIMIT {limit}"
    );
    let rows = reader.rows(&query, &parts.whole.values()).await?;
    if i64::try_from(rows.len()).is_ok_and(|found| found >= limit) {
        return Ok(Found { rows, looked_to: None });
    }
    let edge = format!(
        "SELECT e.timestamp, e.event_uuid FROM public.events e WHERE {place} ORDER BY {order} OFFSET {events} - 1 LIMIT 1"
    );
    let mut values = parts.whole.values();
    values.truncate(parts.place_values);
    let edge = reader.row(&edge, &values).await?;
    let looked_to = edge.map(|row| Key { timestamp: row.get(0), event_uuid: row.get(1) });
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
async fn seldom(reader: &Reader, parts: &Parts) -> Result<Option<Vec<Row>>, Fault> {
    let (indexed, order, limit) = (&parts.indexed, parts.order.sql(), parts.limit);
    // The rest of the condition, which holds for few or many: what is looked at is bounded, not what is found.
    let rest = parts.whole.sql().get(indexed.len()..).unwrap_or_default();
    let query = format!(
        "WITH e AS MATERIALIZED (SELECT e.event_uuid, e.timestamp, true {rest} AS fits FROM public.events e WHERE {indexed} LIMIT {SELDOM} + 1) SELECT (SELECT count(*) FROM e), ARRAY(SELECT e.event_uuid FROM e WHERE fits ORDER BY {order} LIMIT {limit})"
    );
    // What types a beginning stands for is not known when the plan is made, which then seems to find half of the table.
    reader.set("enable_seqscan = off").await?;
    let found = reader.row(&query, &parts.whole.values()).await?.ok_or(Fault::Away)?;
    reader.set("enable_seqscan = DEFAULT").await?;
    if found.get::<_, i64>(0) > SELDOM {
        return Ok(None);
    }
    let ids: Vec<Uuid> = found.get(1);
    let query = select("e.event_uuid = ANY ($1)", order, limit);
    Ok(Some(reader.rows(&query, &[&ids]).await?))
}
