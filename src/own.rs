//! What a user of the portal may see. The audit database finds it by what the user has to do with (`portal_audit.my_page`, `sql/mine.sql`); a query on `events` would look at every row, for the policy to hide it.

use crate::filter::{Filter, Key, Moment, Order};
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use std::pin::Pin;
use tokio_postgres::{
    Client, Error, Row, RowStream,
    types::{Json, ToSql},
};
use uuid::Uuid;

/// Events of the first page of [`Events`], which somebody waits for, and of the next ones.
const FIRST_EVENTS: i32 = 500;
const PAGE_EVENTS: i32 = 10_000;

/// Whether policies hide rows of `events` from the role of this session, and it can ask for its own. An older schema cannot be asked.
///
/// # Errors
/// The database refuses.
pub async fn is_viewer(client: &Client) -> Result<bool, Error> {
    const MAY: &str = "SELECT coalesce(has_function_privilege(to_regproc('portal_audit.my_page'), 'EXECUTE'), false)";
    const SEES_ALL: &str = "SELECT portal_audit.sees_all()";
    if !client.query_one(MAY, &[]).await?.get::<_, bool>(0) {
        return Ok(false);
    }
    Ok(!client.query_one(SEES_ALL, &[]).await?.get::<_, bool>(0))
}

/// Events by id, in no order.
#[derive(Debug)]
pub struct Page {
    pub ids: Vec<Uuid>,
    /// The last of them in the order that was asked for.
    pub last: Option<Key>,
    /// Where looking stopped before the page was full: what lies behind was not looked at.
    pub looked_to: Option<Key>,
}

/// So many events of the user of this session that a filter means, 10,000 at most, beyond a place. It looks at a bounded number of events.
///
/// # Errors
/// The database refuses.
pub async fn page(
    client: &Client,
    filter: &Filter,
    order: Order,
    beyond: Option<Key>,
    limit: i32,
) -> Result<Page, Error> {
    const PAGE: &str =
        "SELECT is_event, at, event_uuid FROM portal_audit.my_page($1, $2, $3, $4, $5)";
    let (at, event_uuid) = (beyond.map(|key| key.timestamp), beyond.map(|key| key.event_uuid));
    let is_oldest_first = order == Order::OldestFirst;
    let values: [&(dyn ToSql + Sync); 5] =
        [&limit, &Json(filter), &at, &event_uuid, &is_oldest_first];
    let rows = client.query(PAGE, &values).await?;
    let mut page = Page { ids: Vec::with_capacity(rows.len()), last: None, looked_to: None };
    for row in &rows {
        let key = Key { timestamp: row.get(1), event_uuid: row.get(2) };
        if row.get(0) {
            page.ids.push(key.event_uuid);
            page.last = Some(key);
        } else {
            page.looked_to = Some(key);
        }
    }
    Ok(page)
}

/// All events of the user of this session that a filter means, oldest first, page after page. They must be read in one snapshot.
pub struct Events {
    filter: Filter,
    /// `SELECT … FROM public.events e`.
    select: String,
    /// Where the next page begins; `None`: there is no other.
    next: Option<(Option<Key>, i32)>,
    rows: Option<Pin<Box<RowStream>>>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Events").field("filter", &self.filter).finish_non_exhaustive()
    }
}

impl Events {
    /// Behind `after`, and before `before`, which the filter's own end is not earlier than.
    #[must_use]
    pub fn new(
        filter: &Filter,
        select: &str,
        after: Option<Key>,
        before: Option<DateTime<Utc>>,
    ) -> Self {
        let until = before.map(Moment::At).or(filter.until);
        let filter = Filter { until, ..filter.clone() };
        let (select, next) = (select.to_owned(), Some((after, FIRST_EVENTS)));
        Self { filter, select, next, rows: None }
    }

    /// The next event; `None`: that was the last.
    ///
    /// # Errors
    /// The database refuses.
    pub async fn next(&mut self, client: &Client) -> Result<Option<Row>, Error> {
        loop {
            if let Some(rows) = &mut self.rows {
                if let Some(row) = rows.try_next().await? {
                    return Ok(Some(row));
                }
                self.rows = None;
            }
            let Some((beyond, limit)) = self.next.take() else { return Ok(None) };
            let page = page(client, &self.filter, Order::OldestFirst, beyond, limit).await?;
            let is_full = i32::try_from(page.ids.len()) == Ok(limit);
            let beyond = page.looked_to.or(page.last.filter(|_| is_full));
            self.next = beyond.map(|key| (Some(key), PAGE_EVENTS));
            let query = format!(
                "{} WHERE e.event_uuid = ANY ($1) ORDER BY {}",
                self.select,
                Order::OldestFirst.sql()
            );
            self.rows = Some(Box::pin(client.query_raw(&query, [&page.ids]).await?));
        }
    }
}
