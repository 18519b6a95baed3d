//! What the names map keeps in the audit database: `portal_audit.names`.

use super::{End, WriteError, Writer, answered};
use crate::{
    connect::Session,
    lsn::Lsn,
    translate::{Batch, names::NameKey},
};
use futures_util::future;
use std::{collections::BTreeMap, time::Duration};
use tokio_postgres::types::{PgLsn, ToSql, Type};

/// Keys of one question for names, so that each is answered in time.
const LOOK_UP_KEYS_MAX: usize = 50_000;

pub(super) const GIVE_NAMES: &str = "INSERT INTO portal_audit.names (source, entity, key, name, upto) SELECT $1, e, k, n, $5 FROM unnest($2::text[], $3::text[], $4::text[]) AS u (e, k, n) ON CONFLICT (source, entity, key) DO UPDATE SET name = excluded.name, upto = excluded.upto";
pub(super) const FORGET_NAMES: &str = "DELETE FROM portal_audit.names USING unnest($2::text[], $3::text[]) AS u (e, k) WHERE source = $1 AND entity = e AND key = k";

/// Rows of `portal_audit.names`, for `unnest`.
#[derive(Default)]
struct NameArrays<'a> {
    entities: Vec<&'a str>,
    keys: Vec<&'a str>,
    names: Vec<&'a str>,
}

/// The names of keys in the names tables of a source, whose kinds are `entities`, as a session sees them.
///
/// # Errors
/// The audit database does not answer or refuses.
pub async fn look_up(
    session: &Session,
    source: &str,
    entities: &[String],
    keys: &[NameKey],
    timeout: Duration,
) -> Result<Vec<Option<String>>, WriteError> {
    const QUERY: &str = "SELECT n.name FROM unnest($2::text[], $3::text[]) WITH ORDINALITY AS u (entity, key, place) LEFT JOIN portal_audit.names n ON n.source = $1 AND n.entity = u.entity AND n.key = u.key ORDER BY u.place";
    let entity = |key: &NameKey| entities.get(key.names).map_or("", String::as_str);
    let mut names = Vec::with_capacity(keys.len());
    for keys in keys.chunks(LOOK_UP_KEYS_MAX) {
        let entities: Vec<&str> = keys.iter().map(entity).collect();
        let texts: Vec<&str> = keys.iter().map(|key| key.key.as_str()).collect();
        // Reading waits for the answer, so it is asked in one round trip.
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&source, Type::TEXT), (&entities, Type::TEXT_ARRAY), (&texts, Type::TEXT_ARRAY)];
        let asked = session.client.query_typed(QUERY, &parameters);
        let rows = answered(timeout, "look up names", asked);
        names.extend(rows.await?.iter().map(|row| row.get::<_, Option<String>>(0)));
    }
    Ok(names)
}

impl Writer {
    /// What a TRUNCATE left nothing of.
    pub(super) async fn empty_names(&self, batch: &Batch) -> Result<(), WriteError> {
        let emptied = batch.emptied.iter().filter_map(|place| self.entities.get(*place));
        let emptied: Vec<&str> = emptied.map(String::as_str).collect();
        if emptied.is_empty() { Ok(()) } else { self.forget_in_open(&emptied).await }
    }

    /// Each with a position that no change behind it needs: what is told of a failover depends on it.
    pub(super) async fn write_names(
        &self,
        batch: &Batch,
        end: Option<End>,
    ) -> Result<(), WriteError> {
        if batch.names.is_empty() {
            return Ok(());
        }
        // One statement may not write a row twice: the last name of a key counts. In the order of the index they cost it least.
        let last: BTreeMap<(usize, &str), Option<&str>> = batch
            .names
            .iter()
            .map(|row| ((row.names, row.key.as_str()), row.name.as_deref()))
            .collect();
        let entity = |place: usize| self.entities.get(place).map_or("", String::as_str);
        let (mut given, mut gone) = (NameArrays::default(), NameArrays::default());
        for ((place, key), name) in last {
            let arrays = if name.is_some() { &mut given } else { &mut gone };
            arrays.entities.push(entity(place));
            arrays.keys.push(key);
            arrays.names.extend(name);
        }
        let upto = end.map_or(self.end_lsn, |end| end.end_lsn).max(batch.upto);
        // No key is among both, so neither waits for the other.
        let (forgotten, given) =
            future::join(self.forget_names(&gone), self.give_names(&given, upto)).await;
        forgotten.and(given)
    }

    async fn forget_names(&self, names: &NameArrays<'_>) -> Result<(), WriteError> {
        let NameArrays { entities, keys, .. } = names;
        if keys.is_empty() {
            return Ok(());
        }
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.source, entities, keys];
        let query = self.hand.session.client.execute(&self.hand.forget_names, &parameters);
        answered(self.timeout, "forget names", query).await.map(drop)
    }

    async fn give_names(&self, names: &NameArrays<'_>, upto: Lsn) -> Result<(), WriteError> {
        let NameArrays { entities, keys, names } = names;
        if keys.is_empty() {
            return Ok(());
        }
        let upto = PgLsn::from(upto.0);
        let parameters: [&(dyn ToSql + Sync); 5] = [&self.source, entities, keys, names, &upto];
        let query = self.hand.session.client.execute(&self.hand.give_names, &parameters);
        answered(self.timeout, "write names", query).await.map(drop)
    }

    /// The names of keys, as of all that was given to this writer, committed or not.
    ///
    /// # Errors
    /// As [`look_up`].
    pub async fn look_up(&self, keys: &[NameKey]) -> Result<Vec<Option<String>>, WriteError> {
        look_up(&self.hand.session, &self.source, &self.entities, keys, self.timeout).await
    }

    /// Everything that is kept of one of the mapping's names tables, by key.
    ///
    /// # Errors
    /// The audit database does not answer or refuses.
    pub async fn kept(&self, entity: &str) -> Result<Vec<(String, String)>, WriteError> {
        const QUERY: &str = "SELECT key, name FROM portal_audit.names WHERE source = $1 AND entity = $2 ORDER BY key";
        let parameters: [&(dyn ToSql + Sync); 2] = [&self.source, &entity];
        let query = self.hand.session.client.query(QUERY, &parameters);
        let rows = answered(self.timeout, "read names", query).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Forgets names tables of the source, as a piece of the audit transaction that the next [`Writer::write`] goes on with.
    ///
    /// # Errors
    /// The audit database does not answer or refuses.
    pub async fn forget(&mut self, entities: &[&str]) -> Result<(), WriteError> {
        self.open().await?;
        self.forget_in_open(entities).await
    }

    async fn forget_in_open(&self, entities: &[&str]) -> Result<(), WriteError> {
        const QUERY: &str =
            "DELETE FROM portal_audit.names WHERE source = $1 AND entity = ANY ($2)";
        let parameters: [&(dyn ToSql + Sync); 2] = [&self.source, &entities];
        let query = self.hand.session.client.execute(QUERY, &parameters);
        answered(self.timeout, "forget names", query).await.map(drop)
    }
}
