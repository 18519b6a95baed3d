//! Fills a database with what its pages are asked about, step by step, and says how long each took.

use crate::Result;
use portal_audit::{config, connect::Session, sql, write};
use std::time::{Duration, Instant};

const FILL_SQL: &str = include_str!("fill.sql");
const DERIVE_SQL: &str = include_str!("derive.sql");
/// Before each step of a script stands its name.
const STEP: &str = "\n-- Step: ";
/// Calls of `bench.fill`, one for each part of the time.
const PARTS: i32 = 36;
const MILLION: i64 = 1_000_000;
const STORE_MAX: Duration = Duration::from_secs(60);

/// What the sidecar calls after it has written, until nothing is left.
const FOLDS: [(&str, &str); 3] = [
    ("what admins ask", "SELECT portal_audit.fold(20000)"),
    ("what portal users ask", "SELECT portal_audit.fold_things(20000)"),
    ("facilities", "SELECT portal_audit.fold_facilities(20000)"),
];

/// A step that is said on stderr: its name, how far it is, and in the end its seconds.
struct Step {
    began: Instant,
    rows: i64,
}

impl Step {
    fn begin(name: &str) -> Self {
        eprint!("pages: {name} …");
        Self { began: Instant::now(), rows: 0 }
    }

    /// So many more rows; each full million is said.
    fn add(&mut self, rows: i64) {
        let before = self.rows / MILLION;
        self.rows += rows;
        for million in before + 1..=self.rows / MILLION {
            eprint!(" {million}M");
        }
    }

    fn end(self) {
        eprintln!(" {:.0} s", self.began.elapsed().as_secs_f64());
    }
}

/// Into an empty database: the schema, ten million events, and all that the sidecar makes of them.
pub(super) async fn fill(audit: &Session) -> Result<()> {
    audit.client.batch_execute(sql::audit()).await?;
    for mapping in ["merge-reference", "kratos"] {
        write::store_event_types(audit, &config::mapping(mapping)?, STORE_MAX).await?;
    }
    audit.client.batch_execute("SET work_mem = '256MB'").await?;
    let (plan, indexes) = FILL_SQL.split_once("\n-- Step: indexes\n").ok_or("no indexes")?;
    script(audit, plan).await?;
    events(audit).await?;
    script(audit, &format!("{STEP}indexes\n{indexes}")).await?;
    script(audit, DERIVE_SQL).await?;
    analyze(audit).await?;
    for (name, fold) in FOLDS {
        let mut step = Step::begin(name);
        loop {
            let taken = audit.client.query_one(fold, &[]).await?.get(0);
            step.add(taken);
            if taken == 0 {
                break;
            }
        }
        step.end();
    }
    analyze(audit).await
}

/// What stands before the first step has no name, and takes no time.
async fn script(audit: &Session, text: &str) -> Result<()> {
    let mut steps = text.split(STEP);
    audit.client.batch_execute(steps.next().unwrap_or_default()).await?;
    for step in steps {
        let (name, statements) = step.split_once('\n').ok_or("a step without statements")?;
        let said = Step::begin(name);
        audit.client.batch_execute(statements).await?;
        said.end();
    }
    Ok(())
}

async fn events(audit: &Session) -> Result<()> {
    let mut step = Step::begin("events");
    for part in 1..=PARTS {
        step.add(audit.client.query_one("SELECT bench.fill($1)", &[&part]).await?.get(0));
    }
    step.end();
    Ok(())
}

/// As autovacuum would, some time later.
async fn analyze(audit: &Session) -> Result<()> {
    let step = Step::begin("vacuum, analyze");
    audit.client.batch_execute("VACUUM ANALYZE").await?;
    step.end();
    Ok(())
}
