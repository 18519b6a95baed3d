//! Workload F: the same backlog into an empty table and into one of ten million events, and the documented queries there.

use crate::{
    Result,
    backlog::{Backlog, save},
    report::{Report, median},
    stage::{AUDIT, Stage},
};
use portal_audit::connect::Session;
use std::{collections::BTreeMap, time::Instant};

const FILL_SQL: &str = include_str!("fill.sql");
pub(crate) const README: &str = include_str!("../../README.md");
/// The queries stand in the README's block behind this line.
const QUERIES: &str = "<!-- queries -->";
/// What the sidecar knew before the backlog.
const KEEP: &str = "CREATE SCHEMA kept; CREATE TABLE kept.names AS TABLE portal_audit.names; CREATE TABLE kept.progress AS TABLE portal_audit.progress; CREATE TABLE kept.began AS SELECT max(timestamp) AS at FROM public.events";
const PUT_BACK: &str = "TRUNCATE portal_audit.names; DELETE FROM portal_audit.progress; INSERT INTO portal_audit.names TABLE kept.names; INSERT INTO portal_audit.progress TABLE kept.progress; DELETE FROM public.events WHERE timestamp > (SELECT at FROM kept.began)";

/// The database with the large table, while the other one is in its place.
const FULL: &str = "audit_full";

/// Measures both tables and the queries.
pub(crate) async fn run(
    stage: &Stage,
    transactions: u64,
    repetitions: usize,
    report: &mut Report,
) -> Result<()> {
    let backlog =
        |workload| Backlog { workload, call: "run('pair', ", size: transactions, repetitions };
    let (empty, full) = (backlog("F empty"), backlog("F"));
    stage.mark().await?;
    eprint!("F: ten million events …");
    let audit = stage.audit(AUDIT).await?;
    for script in [FILL_SQL, "VACUUM ANALYZE public.events", KEEP] {
        audit.client.batch_execute(script).await?;
    }
    report.queries_ms = queries(&audit, repetitions).await?;
    drop(audit);
    let owner = stage.audit("postgres").await?;
    owner.client.batch_execute(&format!("CREATE DATABASE {FULL}")).await?;
    stage.exchange(FULL).await?;
    eprint!(" ");
    let end = full.work(stage).await?;
    for repetition in 1..=repetitions {
        eprint!(" {repetition}");
        stage.rewind().await?;
        report.runs.push(empty.sidecar(stage, &end).await?);
        let rows = stage.file("events.copy");
        let events = save(stage, &rows).await?;
        stage.rewind().await?;
        report.runs.push(empty.copy(stage, &rows, events, u64::MAX).await?);
        stage.exchange(FULL).await?;
        stage.rewind_slot().await?;
        report.runs.push(full.sidecar(stage, &end).await?);
        put_back(stage).await?;
        report.runs.push(full.copy(stage, &rows, events, u64::MAX).await?);
        put_back(stage).await?;
        stage.exchange(FULL).await?;
    }
    eprintln!();
    Ok(())
}

async fn put_back(stage: &Stage) -> Result<()> {
    let audit = stage.audit(AUDIT).await?;
    for script in [PUT_BACK, "VACUUM public.events", "CHECKPOINT"] {
        audit.client.batch_execute(script).await?;
    }
    Ok(())
}

/// Milliseconds of each documented query, as `EXPLAIN ANALYZE` would not disturb it: medians, the first time left out.
async fn queries(audit: &Session, repetitions: usize) -> Result<BTreeMap<String, f64>> {
    let mut millis = BTreeMap::new();
    for (title, query) in documented(README)? {
        let mut taken = Vec::new();
        for turn in 0..=repetitions {
            let began = Instant::now();
            let rows = audit.client.simple_query(&query).await?;
            if turn > 0 {
                taken.push(began.elapsed().as_secs_f64() * 1e3);
            }
            // Two messages are no rows: the columns, and the end.
            if rows.len() < 3 {
                return Err(format!("nothing is found by: {title}").into());
            }
        }
        millis.insert(title, median(taken).unwrap_or_default());
    }
    Ok(millis)
}

/// The queries of the README's block, each with its title.
pub(crate) fn documented(readme: &str) -> Result<Vec<(String, String)>> {
    let (_, text) = readme.split_once(QUERIES).ok_or("the README has no queries")?;
    let block = text.split("```").nth(1).and_then(|block| block.strip_prefix("sql\n"));
    let parts = block.ok_or("the README has no block of queries")?.split("\n\n");
    let parts = parts.map(|part| {
        let (title, query) = part.trim().split_once('\n').ok_or("a query has no title")?;
        Ok((title.trim_start_matches("-- ").to_owned(), query.to_owned()))
    });
    parts.collect()
}
