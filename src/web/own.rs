//! A page of events for a user of the portal.

use super::{
    Fault,
    events::{FROM, LINE},
    find::Wanted,
    reader::{Reader, fault},
};
use crate::{filter::Key, own};
use tokio_postgres::Row;

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
