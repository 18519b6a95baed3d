//! Finds a page of events among millions.
//!
//! No index of the given table has both a name and the time. So the planner has two ways, through time until the page is full, or all events of the name and then sort; and it cannot know which one is short, because a name may be one of long ago. Here each way is bounded: first what is newest is looked through, then what the indexes of names find, as long as that is not too much; only what is neither near nor seldom is left to the planner.

use super::{
    Fault, Visitor,
    events::{FROM, LINE},
    own,
    reader::Reader,
};
use crate::filter::{Filter, Key, Lists, Order, Where};
use tokio_postgres::Row;
use uuid::Uuid;

/// Events that are looked through, from where the page begins.
const NEAR: i64 = 4_000;
/// If some are among those, so many more are looked through at most to fill the page.
const FARTHER: i64 = 25_000;
/// Events of a name that are sorted at most.
const SELDOM: i64 = 100_000;

/// Which events a page has.
pub(super) struct Wanted<'a> {
    pub(super) filter: &'a Filter,
    pub(super) order: Order,
    /// Only behind this one, in that order.
    pub(super) beyond: Option<Key>,
    pub(super) limit: i64,
}

/// What stands in a query.
struct Parts {
    /// Where the page begins and ends in time.
    place: String,
    /// That, and all else that the events must be.
    whole: Where,
    order: &'static str,
    limit: i64,
}

/// Rows of [`LINE`], and the payload as `whole`.
pub(super) async fn rows(
    reader: &Reader,
    visitor: &Visitor,
    wanted: &Wanted<'_>,
) -> Result<Vec<Row>, Fault> {
    if !visitor.sees_all {
        return own::rows(reader, wanted).await;
    }
    let mut whole = Where::default();
    wanted.filter.span(&mut whole);
    if let Some(key) = wanted.beyond {
        whole.beyond(wanted.order, key);
    }
    let place = whole.sql().to_owned();
    wanted.filter.matter(&mut whole, Lists::Stepped);
    let is_all = whole.sql() == place;
    let parts = Parts { place, whole, order: wanted.order.sql(), limit: wanted.limit };
    let full = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
    if is_all {
        return walk(reader, &parts).await;
    }
    let some = near(reader, &parts, NEAR).await?;
    if some.len() >= full {
        return Ok(some);
    }
    let farther = farther(some.len(), wanted.limit);
    if let Some(farther) = farther {
        let more = near(reader, &parts, farther).await?;
        if more.len() >= full {
            return Ok(more);
        }
    }
    if !wanted.filter.is_indexed() {
        return walk(reader, &parts).await;
    }
    match seldom(reader, &parts).await? {
        Some(found) => Ok(found),
        None => walk(reader, &parts).await,
    }
}

/// How many are to be looked through for a full page, where so many of the nearest are of it.
fn farther(found: usize, limit: i64) -> Option<i64> {
    let found = i64::try_from(found).ok().filter(|found| *found > 0)?;
    // Twice what an even spread would need.
    let farther = (2 * NEAR * limit) / found;
    (farther <= FARTHER).then_some(farther)
}

fn select(condition: &str, order: &str, limit: i64) -> String {
    format!(
        "SELECT {LINE}, e.payload AS whole FROM {FROM} WHERE {condition} ORDER BY {order} LIMIT {limit}"
    )
}

/// Through time, until the page is full.
async fn walk(reader: &Reader, parts: &Parts) -> Result<Vec<Row>, Fault> {
    let query = select(parts.whole.sql(), parts.order, parts.limit);
    reader.rows(&query, &parts.whole.values()).await
}

/// Through so many events only.
async fn near(reader: &Reader, parts: &Parts, near: i64) -> Result<Vec<Row>, Fault> {
    let (place, condition, order, limit) =
        (&parts.place, parts.whole.sql(), parts.order, parts.limit);
    let query = format!(
        "WITH near AS MATERIALIZED (SELECT e.* FROM public.events e WHERE {place} ORDER BY {order} LIMIT {near}) SELECT {LINE}, e.payload AS whole FROM near e LEFT JOIN portal_audit.event_types t ON t.event_type = e.event_type WHERE {condition} ORDER BY {order} LIMIT {limit}"
    );
    reader.rows(&query, &parts.whole.values()).await
}

/// By the indexes of names; `None`: there are too many.
async fn seldom(reader: &Reader, parts: &Parts) -> Result<Option<Vec<Row>>, Fault> {
    let (condition, order, limit) = (parts.whole.sql(), parts.order, parts.limit);
    let query = format!(
        "WITH e AS MATERIALIZED (SELECT e.event_uuid, e.timestamp FROM public.events e WHERE {condition} LIMIT {SELDOM} + 1) SELECT e.event_uuid, (SELECT count(*) FROM e) FROM e ORDER BY {order} LIMIT {limit}"
    );
    // What types a beginning stands for is not known when the plan is made, which then seems to find half of the table.
    reader.set("enable_seqscan = off").await?;
    let found = reader.rows(&query, &parts.whole.values()).await?;
    reader.set("enable_seqscan = DEFAULT").await?;
    if found.first().is_some_and(|row| row.get::<_, i64>(1) > SELDOM) {
        return Ok(None);
    }
    let ids: Vec<Uuid> = found.iter().map(|row| row.get(0)).collect();
    let query = select("e.event_uuid = ANY ($1)", order, limit);
    Ok(Some(reader.rows(&query, &[&ids]).await?))
}
