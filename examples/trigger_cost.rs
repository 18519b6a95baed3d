//! Measures what the context and attempt triggers cost the portal: one client, one-row UPDATEs, with neither, either and both of them on the table. `trigger_cost [ROUNDS]`
//!
//! The four tables take turns in blocks of statements, so that a busy moment of the machine falls on all of them; each block's median is compared with that of the bare table in the same round. The log is measured when no page is written whole any more. The server is a throwaway one; it writes its log to the disk as a portal's does, and once more without waiting for that, which shows the triggers' own time.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use portal_audit::{
    config,
    connect::{self, Session},
    demo::cluster::{Cluster, Installation},
    sql,
};
use std::{error::Error, path::PathBuf, time::Instant};
use tokio_postgres::Statement;

const ROUNDS_DEFAULT: usize = 21;
const STATEMENTS: usize = 200;
const ROWS: i32 = 100;
const TABLES: [&str; 4] = ["bare", "context", "attempt", "both"];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let rounds = std::env::args().nth(1).map_or(Ok(ROUNDS_DEFAULT), |rounds| rounds.parse())?;
    let bindir = std::env::var_os("PORTAL_AUDIT_PG_BINDIR").map(PathBuf::from);
    let settings = [
        ("fsync", "on"),
        ("shared_buffers", "128MB"),
        ("max_wal_size", "4GB"),
        ("checkpoint_timeout", "1h"),
        ("autovacuum", "off"),
    ];
    let cluster = Cluster::start(&Installation::find(bindir.as_deref())?, &settings)?;
    let conninfo = config::conninfo(&cluster.dsn("postgres", "postgres"))?;
    let session = connect::connect(&conninfo, "trigger_cost").await?;
    let version: String =
        session.client.query_one("SELECT current_setting('server_version')", &[]).await?.get(0);
    println!(
        "PostgreSQL {version}, {rounds} rounds of {STATEMENTS} one-row UPDATEs for each table"
    );
    let updates = prepare(&session).await?;
    for commit in ["on", "off"] {
        session.client.batch_execute(&format!("SET synchronous_commit = {commit}")).await?;
        println!("synchronous_commit = {commit}");
        for (table, median, ratio) in measure(&session, &updates, rounds).await? {
            println!("  {table:8} {median:7.3} ms  {ratio:.2} of bare");
        }
    }
    for (table, update) in TABLES.iter().zip(&updates) {
        let before = log_end(&session).await?;
        block(&session, update, 1_000).await?;
        let bytes = log_end(&session).await?.saturating_sub(before) / 1_000;
        println!("  {table:8} {bytes:4} bytes of log a statement");
    }
    Ok(())
}

/// Makes the tables with their triggers; gives the UPDATE of each.
async fn prepare(session: &Session) -> Result<Vec<Statement>, tokio_postgres::Error> {
    let client = &session.client;
    client.batch_execute(sql::context()).await?;
    client.batch_execute(sql::attempt()).await?;
    client.batch_execute("SET portal.caller = 'alice'").await?;
    let mut updates = Vec::new();
    for table in TABLES {
        client
            .batch_execute(&format!(
                "CREATE TABLE cost_{table} (id INT PRIMARY KEY, n INT NOT NULL) WITH (fillfactor = 50);
                 INSERT INTO cost_{table} SELECT n, 0 FROM generate_series(1, {ROWS}) n"
            ))
            .await?;
        if ["context", "both"].contains(&table) {
            client.batch_execute(&format!("CALL portal_audit.attach('cost_{table}')")).await?;
        }
        if ["attempt", "both"].contains(&table) {
            client
                .batch_execute(&format!("CALL portal_audit.attach_attempt('cost_{table}')"))
                .await?;
        }
        updates.push(
            client.prepare(&format!("UPDATE cost_{table} SET n = n + 1 WHERE id = $1")).await?,
        );
    }
    client.batch_execute("CHECKPOINT").await?;
    for update in &updates {
        block(session, update, STATEMENTS).await?;
    }
    Ok(updates)
}

/// Each table's median statement and its ratio to the bare table's in the same round, both as medians of the rounds.
async fn measure(
    session: &Session,
    updates: &[Statement],
    rounds: usize,
) -> Result<Vec<(&'static str, f64, f64)>, tokio_postgres::Error> {
    let mut medians = vec![Vec::new(); TABLES.len()];
    for round in 0..rounds {
        // Another one begins in each round.
        for turn in 0..TABLES.len() {
            let place = (round + turn) % TABLES.len();
            if let (Some(update), Some(medians)) = (updates.get(place), medians.get_mut(place)) {
                medians.push(median(block(session, update, STATEMENTS).await?));
            }
        }
    }
    let bare = medians.first().cloned().unwrap_or_default();
    let told = TABLES.iter().zip(medians).map(|(table, medians)| {
        let ratios = medians.iter().zip(&bare).map(|(with, without)| with / without).collect();
        (*table, median(medians), median(ratios))
    });
    Ok(told.collect())
}

/// Runs statements one after the other; gives each one's milliseconds.
async fn block(
    session: &Session,
    update: &Statement,
    statements: usize,
) -> Result<Vec<f64>, tokio_postgres::Error> {
    let mut times = Vec::with_capacity(statements);
    for id in (1..=ROWS).cycle().take(statements) {
        let started = Instant::now();
        session.client.execute(update, &[&id]).await?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

async fn log_end(session: &Session) -> Result<i64, tokio_postgres::Error> {
    const QUERY: &str = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint";
    Ok(session.client.query_one(QUERY, &[]).await?.get(0))
}
