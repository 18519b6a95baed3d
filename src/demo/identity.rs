//! The sample identity server beside the portal: a second source, whose people sign in while one looks, and what their visits must give.

use super::{
    cluster::Cluster,
    portal::{OWNER, SOURCE_ROLE, SampleError, open, script, settings_text},
    proof::Proof,
};
use crate::{
    config::{Settings, Source},
    connect::Session,
    sql,
};
use std::{collections::HashMap, path::Path};
use tokio::time::{Duration, sleep};

/// Its tables, as Ory Kratos has them.
const KRATOS_SQL: &str = include_str!("../../sql/sample/kratos.sql");
/// `logins.act(seed)`, one visit.
const LOGINS_SQL: &str = include_str!("../../sql/sample/logins.sql");

/// Its database, and the name of its source.
pub(super) const IDENTITY: &str = "identity";

/// Between two visits; a deterministic second or two.
const VISIT_MILLIS: [u64; 5] = [700, 1_900, 1_100, 2_300, 500];

/// Creates it, and gives the source that follows it.
pub(super) async fn create(cluster: &Cluster) -> Result<Source, SampleError> {
    let dsn = cluster.dsn(IDENTITY, SOURCE_ROLE);
    let text = settings_text(cluster)
        + &format!("\n[[source]]\nname = {IDENTITY:?}\ndsn = {dsn:?}\nmapping = \"kratos\"\n");
    let settings = Settings::parse(Path::new("portal-audit.toml"), &text);
    let mut sources = settings.map_err(SampleError::Settings)?.sources;
    let source = sources.swap_remove(1);
    let owner = open(cluster, "postgres", OWNER).await?;
    script(&owner, "create the identity server's database", "CREATE DATABASE identity").await?;
    let identity = open(cluster, IDENTITY, OWNER).await?;
    script(&identity, "create the sample identity server", KRATOS_SQL).await?;
    script(&identity, "create its people", LOGINS_SQL).await?;
    script(&identity, "set up the identity server as a source", &sql::source(&source)).await?;
    Ok(source)
}

/// One visit after the other, until it is dropped.
pub(super) async fn visit(identity: Session) -> Result<(), SampleError> {
    for (seed, millis) in (1_u32..).zip(VISIT_MILLIS.into_iter().cycle()) {
        // Without a transaction around it, because each step of a visit is one.
        script(&identity, "sign in", &format!("CALL logins.act({seed})")).await?;
        sleep(Duration::from_millis(millis)).await;
    }
    Ok(())
}

/// Compares the events with what the visits told, and adds what it finds.
pub(super) async fn compare(
    identity: &Session,
    audit: &Session,
    proof: &mut Proof,
) -> Result<(), SampleError> {
    const TOLD: &str = "SELECT event_type, subject FROM logins.told";
    const WRITTEN: &str = "SELECT event_type, CASE WHEN payload->'_audit' ? 'unresolved' THEN '' ELSE subject END FROM public.events WHERE payload->'_audit'->>'source' = $1";
    let failed = |report| SampleError::Sql { action: "compare events and visits", report };
    let told = identity.client.query(TOLD, &[]).await.map_err(failed)?;
    let written = audit.client.query(WRITTEN, &[&IDENTITY]).await.map_err(failed)?;
    let mut balance: HashMap<(String, String), i64> = HashMap::new();
    for (rows, step) in [(&told, 1), (&written, -1)] {
        for row in rows {
            *balance.entry((row.get(0), row.get(1))).or_default() += step;
        }
    }
    proof.changes += told.len() as u64;
    proof.expected += told.len() as u64;
    proof.events += written.len() as u64;
    for difference in balance.into_values() {
        let by = difference.unsigned_abs();
        if difference > 0 { proof.lost += by } else { proof.doubled += by }
    }
    Ok(())
}
