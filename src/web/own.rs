//! A page of events for a user of the portal.

use super::{
    Fault,
    events::{FROM, LINE},
    find::Wanted,
    reader::{Reader, fault},
};
use crate::{filter::Key, own};
use std::time::{Duration, Instant};
use tokio_postgres::Row;

/// How long more is looked for, where a page is not full.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// Rows of [`LINE`] with the payload as `whole`, and where looking stopped before the page was full.
pub(super) async fn page(
    reader: &Reader,
    wanted: &Wanted<'_>,
) -> Result<(Vec<Row>, Option<Key>), Fault> {
    let limit = i32::try_from(wanted.limit).unwrap_or(i32::MAX);
    let client = &reader.session().client;
    let page = own::page(client, wanted.filter, wanted.order, wanted.beyond, limit).await;
    let page = page.map_err(|error| fault(&error))?;
    let query = format!(
        "SELECT {LINE}, e.payload AS whole FROM {FROM} WHERE e.event_uuid = ANY ($1) ORDER BY {}",
        wanted.order.sql()
    );
    Ok((reader.rows(&query, &[&page.ids]).await?, page.looked_to))
}

/// The same, and as much of what lies behind as is found in time.
pub(super) async fn rows(reader: &Reader, wanted: &Wanted<'_>) -> Result<Vec<Row>, Fault> {
    let begun = Instant::now();
    let (mut rows, mut looked_to) = page(reader, wanted).await?;
    while let Some(beyond) = looked_to {
        if begun.elapsed() > LOOK_MAX {
            return Err(Fault::Long);
        }
        let missing = wanted.limit - i64::try_from(rows.len()).unwrap_or(wanted.limit);
        let (filter, order) = (wanted.filter, wanted.order);
        let wanted = Wanted { filter, order, beyond: Some(beyond), limit: missing };
        let (more, to) = page(reader, &wanted).await?;
        rows.extend(more);
        looked_to = to;
    }
    Ok(rows)
}
