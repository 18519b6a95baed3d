//! What was remembered before a gap, set aside until it is compared. Pieces of the audit transaction that the next [`Writer::write`] goes on with: whoever is killed leaves all of it as it was.

use super::{WriteError, Writer, answered};
use crate::translate::infer::WHOLE;
use tokio_postgres::types::ToSql;

/// Keys of what is set aside that are taken at a time.
const TAKEN_MAX: i64 = 500;
/// Before the kind's own word.
const ASIDE: &str = "gap.";

impl Writer {
    /// Of which kinds everything is remembered.
    ///
    /// # Errors
    /// The audit database does not answer or refuses.
    pub async fn whole_kinds(&self) -> Result<Vec<String>, WriteError> {
        Ok(self.kept(WHOLE).await?.into_iter().map(|(kind, _)| kind).collect())
    }

    /// From now on everything of these kinds is remembered.
    ///
    /// # Errors
    /// The audit database does not answer or refuses.
    pub async fn set_whole(&mut self, kinds: &[String]) -> Result<(), WriteError> {
        const QUERY: &str = "INSERT INTO portal_audit.names (source, entity, key, name) SELECT $1, $2, k, '' FROM unnest($3::text[]) AS u (k) ON CONFLICT DO NOTHING";
        self.open().await?;
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.source, &WHOLE, &kinds];
        let query = self.hand.session.client.execute(QUERY, &parameters);
        answered(self.timeout, "write names", query).await.map(drop)
    }

    /// Sets aside what is remembered of these kinds.
    ///
    /// # Errors
    /// The audit database does not answer or refuses.
    pub async fn set_aside(&mut self, kinds: &[String]) -> Result<(), WriteError> {
        const QUERY: &str = "UPDATE portal_audit.names SET entity = $3 || entity WHERE source = $1 AND entity = ANY ($2)";
        self.open().await?;
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.source, &kinds, &ASIDE];
        let query = self.hand.session.client.execute(QUERY, &parameters);
        answered(self.timeout, "set names aside", query).await.map(drop)
    }

    /// Takes what was set aside of some keys, each in its place.
    ///
    /// # Errors
    /// The audit database does not answer or refuses.
    pub async fn take_aside(
        &mut self,
        kind: &str,
        keys: &[String],
    ) -> Result<Vec<Option<String>>, WriteError> {
        const QUERY: &str = "WITH taken AS (DELETE FROM portal_audit.names WHERE source = $1 AND entity = $2 AND key = ANY ($3) RETURNING key, name) SELECT taken.name FROM unnest($3::text[]) WITH ORDINALITY AS u (key, place) LEFT JOIN taken USING (key) ORDER BY place";
        self.open().await?;
        let kind = format!("{ASIDE}{kind}");
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.source, &kind, &keys];
        let query = self.hand.session.client.query(QUERY, &parameters);
        let rows = answered(self.timeout, "take names", query).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Takes some of what nobody asked for, by key; empty when nothing is left.
    ///
    /// # Errors
    /// The audit database does not answer or refuses.
    pub async fn take_rest(&mut self, kind: &str) -> Result<Vec<(String, String)>, WriteError> {
        const QUERY: &str = "WITH taken AS (DELETE FROM portal_audit.names WHERE source = $1 AND entity = $2 AND key IN (SELECT key FROM portal_audit.names WHERE source = $1 AND entity = $2 ORDER BY key LIMIT $3) RETURNING key, name) SELECT key, name FROM taken ORDER BY key";
        self.open().await?;
        let kind = format!("{ASIDE}{kind}");
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.source, &kind, &TAKEN_MAX];
        let query = self.hand.session.client.query(QUERY, &parameters);
        let rows = answered(self.timeout, "take names", query).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}
