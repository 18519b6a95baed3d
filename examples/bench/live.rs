//! The portal at work: A at a steady rate, D as fast as it goes. Who is attached takes turns.

use crate::{
    Result,
    backlog::has_reached,
    load::Done,
    process::{self, Meter, Program, cluster_cpu_seconds, pg_recvlogical},
    report::{Run, What},
    stage::{self, AUDIT, FLOOR_SLOT, OWNER, PORTAL, Stage, wait},
};
use portal_audit::{connect::Session, demo::portal::PORTAL_SQL, sql};
use tokio_postgres::types::PgLsn;

const NATIVE_SQL: &str = include_str!("native.sql");
/// The subscriber's database, its subscription and its publication.
const NATIVE: &str = "native";

pub(crate) struct Live {
    pub(crate) workload: &'static str,
    /// Transactions a second; 0: as many as there can be.
    pub(crate) rate: u32,
    /// The portal's clients.
    pub(crate) sessions: u32,
    pub(crate) seconds: u64,
    pub(crate) repetitions: usize,
    pub(crate) attached: &'static [What],
}

impl Live {
    pub(crate) async fn run(&self, stage: &Stage, runs: &mut Vec<Run>) -> Result<()> {
        stage.mark().await?;
        if self.attached.contains(&What::Subscription) {
            subscribe(stage).await?;
        }
        eprint!("{}: the portal works …", self.workload);
        let mut next = 0;
        for repetition in 1..=self.repetitions {
            eprint!(" {repetition}");
            for &what in self.attached {
                let (run, done) = self.measure(stage, what, next).await?;
                next = done.next;
                runs.push(run);
            }
        }
        eprintln!();
        Ok(())
    }

    async fn measure(&self, stage: &Stage, what: What, from: i64) -> Result<(Run, Done)> {
        let mut reader = attach(stage, what).await?;
        if what == What::Sidecar && self.rate > 0 {
            // A steady state has nothing left over from what came before.
            has_folded(stage, i64::MAX).await?;
        }
        let portal_before = cluster_cpu_seconds(&stage.portal.data_dir())?;
        let reader_before = look(&mut reader)?;
        let leaves = leaves(stage).await?;
        let meter = Meter::begin()?;
        let done = self.load(stage, what, from).await?;
        let stolen = meter.stolen()?;
        let portal_cpu = cluster_cpu_seconds(&stage.portal.data_dir())? - portal_before;
        let program_cpu = look(&mut reader)? - reader_before;
        let rss_bytes = reader.as_ref().map_or(0, |reader| reader.usage.peak_rss_bytes);
        if what == What::Sidecar {
            has_folded(stage, leaves).await?;
        }
        detach(stage, what, reader).await?;
        let run = Run {
            workload: self.workload,
            what,
            seconds: done.seconds,
            stolen,
            transactions: done.transactions,
            portal_cpu,
            program_cpu,
            rss_bytes,
            visible: done.visible,
            commit: Some(done.commit),
            ..Run::default()
        };
        Ok((run, done))
    }

    async fn load(&self, stage: &Stage, what: What, from: i64) -> Result<Done> {
        let (portal, from) = (stage.portal.dsn(PORTAL, OWNER), from.to_string());
        let (rate, seconds) = (self.rate.to_string(), self.seconds.to_string());
        let sessions = self.sessions.to_string();
        let mut arguments = vec![
            "load",
            "--portal",
            &portal,
            "--rate",
            &rate,
            "--sessions",
            &sessions,
            "--seconds",
            &seconds,
            "--from",
            &from,
        ];
        let events = match what {
            What::Sidecar => Some(stage.audit.dsn(AUDIT, OWNER)),
            What::Subscription | What::DurableSubscription => Some(stage.audit.dsn(NATIVE, OWNER)),
            _ => None,
        };
        // Probes cost the portal too, so they are for those whose latency is asked for.
        if let Some(events) = events.as_ref().filter(|_| self.rate > 0) {
            arguments.extend(["--events", events]);
        }
        Ok(serde_json::from_str(&process::own(&arguments)?.end().await?)?)
    }
}

/// Leaves that there are.
async fn leaves(stage: &Stage) -> Result<i64> {
    let audit = stage.audit(AUDIT).await?;
    Ok(audit.client.query_one("SELECT leaves FROM portal_audit.folding()", &[]).await?.get(0))
}

/// The tables that follow the record are part of what is measured: some events that came after so many are in them, or all that there are.
async fn has_folded(stage: &Stage, leaves: i64) -> Result<()> {
    let audit = stage.audit(AUDIT).await?;
    wait("the derived tables do not follow the record", async || {
        let query = "SELECT leaves - behind > $1 OR behind = 0 FROM portal_audit.folding()";
        Ok(audit.client.query_one(query, &[&leaves]).await?.get(0))
    })
    .await
}

fn look(reader: &mut Option<Program>) -> Result<f64> {
    let Some(reader) = reader else { return Ok(0.0) };
    if reader.look()? {
        Ok(reader.usage.cpu_seconds)
    } else {
        Err("what was attached has ended".into())
    }
}

/// Attaches who is measured, and waits until it has read all that there is.
async fn attach(stage: &Stage, what: What) -> Result<Option<Program>> {
    let portal = stage.portal(PORTAL).await?;
    match what {
        What::Sidecar => {
            let sidecar = process::sidecar(&stage.settings)?;
            let end = PgLsn::from(stage.log_end().await?.parse::<portal_audit::lsn::Lsn>()?.0);
            let audit = stage.audit(AUDIT).await?;
            wait("the sidecar did not catch up", async || has_reached(&audit, end).await).await?;
            Ok(Some(sidecar))
        }
        What::PgRecvlogical => {
            portal
                .client
                .execute(
                    "SELECT pg_create_logical_replication_slot($1, 'pgoutput')",
                    &[&FLOOR_SLOT],
                )
                .await?;
            let reader = pg_recvlogical(stage, FLOOR_SLOT, None)?;
            is_read(&portal, FLOOR_SLOT).await?;
            Ok(Some(reader))
        }
        What::Subscription | What::DurableSubscription => {
            let native = stage.audit(NATIVE).await?;
            let commit = if what == What::DurableSubscription { "on" } else { "off" };
            let set = format!("ALTER SUBSCRIPTION native SET (synchronous_commit = {commit})");
            native.client.batch_execute(&set).await?;
            native.client.batch_execute("ALTER SUBSCRIPTION native ENABLE").await?;
            is_read(&portal, NATIVE).await?;
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// Until the reader of a slot has confirmed all that there is.
async fn is_read(portal: &Session, slot: &str) -> Result<()> {
    let end: PgLsn = portal.client.query_one("SELECT pg_current_wal_lsn()", &[]).await?.get(0);
    // Something behind it, so that a quiet log does not leave the position where it is.
    portal.client.batch_execute("SELECT pg_logical_emit_message(true, 'bench', '')").await?;
    wait("the slot's reader did not catch up", async || {
        let query = "SELECT confirmed_flush_lsn >= $2 FROM pg_replication_slots WHERE slot_name = $1 AND active";
        let row = portal.client.query_opt(query, &[&slot, &end]).await?;
        Ok(row.is_some_and(|row| row.get(0)))
    })
    .await
}

async fn detach(stage: &Stage, what: What, reader: Option<Program>) -> Result<()> {
    if let Some(reader) = reader {
        reader.stop().await?;
    }
    match what {
        What::PgRecvlogical => stage::drop_slot(&stage.portal(PORTAL).await?, FLOOR_SLOT).await,
        What::Subscription | What::DurableSubscription => {
            let native = stage.audit(NATIVE).await?;
            Ok(native.client.batch_execute("ALTER SUBSCRIPTION native DISABLE").await?)
        }
        _ => Ok(()),
    }
}

/// The subscriber, with all rows and not yet enabled.
async fn subscribe(stage: &Stage) -> Result<()> {
    let portal = stage.portal(PORTAL).await?;
    portal
        .client
        .batch_execute(
            "CREATE PUBLICATION native FOR TABLE portal.project_members, portal.organizations",
        )
        .await?;
    let owner = stage.audit("postgres").await?;
    owner.client.batch_execute("CREATE DATABASE native").await?;
    let native = stage.audit(NATIVE).await?;
    native.client.batch_execute(PORTAL_SQL).await?;
    native.client.batch_execute(sql::audit()).await?;
    // Rows come table by table, so nothing may point from one to the other.
    native.client.batch_execute("ALTER TABLE portal.project_members DROP CONSTRAINT project_members_project_fkey, DROP CONSTRAINT project_members_username_fkey").await?;
    let dsn = stage.portal.tcp_dsn(PORTAL, OWNER).ok_or("no TCP")?;
    let dsn = dsn.replace('\'', "''");
    native
        .client
        .batch_execute(&format!("CREATE SUBSCRIPTION native CONNECTION '{dsn}' PUBLICATION native"))
        .await?;
    wait("the subscriber did not get its rows", async || {
        let row = native
            .client
            .query_one("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel", &[])
            .await?;
        Ok(row.get::<_, Option<bool>>(0) == Some(true))
    })
    .await?;
    native.client.batch_execute("ALTER SUBSCRIPTION native DISABLE").await?;
    native.client.batch_execute(NATIVE_SQL).await?;
    native.client.batch_execute("VACUUM ANALYZE").await?;
    Ok(())
}
