//! The stage: a portal's cluster and an audit cluster, both durable (fsync on), reached over TCP loopback as a sidecar on the portal's host reaches them.

use crate::{Outcome, Result};
use portal_audit::{
    config::{self, Settings},
    connect::{self, Session},
    demo::{
        cluster::{Cluster, Installation, Options},
        portal::PORTAL_SQL,
    },
    sql,
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::time::sleep;

const WORKLOAD_SQL: &str = include_str!("workload.sql");
/// The same for both: no checkpoint in the midst of a measurement, and memory as a small server has it.
const SERVER: [(&str, &str); 8] = [
    ("fsync", "on"),
    ("track_commit_timestamp", "off"),
    ("shared_buffers", "512MB"),
    ("max_wal_size", "16GB"),
    ("min_wal_size", "4GB"),
    ("checkpoint_timeout", "1h"),
    ("logical_decoding_work_mem", "64MB"),
    ("autovacuum", "off"),
];
pub(crate) const OWNER: &str = "postgres";
pub(crate) const PORTAL: &str = "portal";
pub(crate) const AUDIT: &str = "audit";
/// The slot that the sidecar reads.
pub(crate) const SLOT: &str = "bench";
/// A slot of its own for whoever only reads.
pub(crate) const FLOOR_SLOT: &str = "bench_floor";
/// The slot that nobody reads: the others are copies of it.
const BASE_SLOT: &str = "bench_base";
/// The audit database as it is before a workload.
const TEMPLATE: &str = "audit_before";
/// Log files of 16 MB that a cluster has to use again, as one that has run for a while: a new one is filled with zeros and flushed first, and whoever commits waits for that.
const LOG_FILES: usize = 96;
const NEXT_LOG_FILE: &str = "SELECT pg_logical_emit_message(true, 'bench', ''), pg_switch_wal()";
/// All that the sidecar keeps up with the record, beside the sources.
const FOLDS: [&str; 3] = [
    "SELECT portal_audit.fold(10000)",
    "SELECT portal_audit.fold_things(10000)",
    "SELECT portal_audit.fold_facilities(10000)",
];
pub(crate) const PUBLICATION: &str = "portal_audit";
const POLL: Duration = Duration::from_millis(10);
const WAIT_MAX: Duration = Duration::from_secs(1800);

pub(crate) struct Stage {
    pub(crate) portal: Cluster,
    pub(crate) audit: Cluster,
    pub(crate) settings: PathBuf,
    pub(crate) pg_recvlogical: PathBuf,
    folder: TempDir,
}

impl Stage {
    /// Both clusters, the sample portal with its rows, and an audit database that knows them.
    pub(crate) async fn build() -> Result<Self> {
        let explicit = env::var_os("PORTAL_AUDIT_PG_BINDIR").map(PathBuf::from);
        let installation = Installation::find(explicit.as_deref())?;
        let pg_recvlogical = program(&installation, "pg_recvlogical")?;
        let cluster = || {
            let settings = SERVER.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
            Cluster::start_with(
                &installation,
                &Options { tcp: true, settings, ..Options::default() },
            )
        };
        let (portal, audit) = (cluster()?, cluster()?);
        let folder = TempDir::with_prefix("portal-audit-bench-")?;
        let settings = folder.path().join("portal-audit.toml");
        fs::write(&settings, settings_text(&portal, &audit, folder.path())?)?;
        let stage = Self { portal, audit, settings, pg_recvlogical, folder };
        stage.fill().await?;
        Ok(stage)
    }

    async fn fill(&self) -> Result<()> {
        let owner = self.portal("postgres").await?;
        owner.client.batch_execute("CREATE DATABASE portal").await?;
        let portal = self.portal(PORTAL).await?;
        portal.client.batch_execute(PORTAL_SQL).await?;
        portal.client.batch_execute(WORKLOAD_SQL).await?;
        let settings = Settings::load(&self.settings)?;
        let source = settings.sources.first().ok_or("no source")?;
        portal.client.batch_execute(&sql::source(source)).await?;
        portal.client.batch_execute("VACUUM ANALYZE").await?;
        let owner = self.audit("postgres").await?;
        owner.client.batch_execute("CREATE ROLE sidecar LOGIN BYPASSRLS").await?;
        owner.client.batch_execute("CREATE DATABASE audit").await?;
        let audit = self.audit(AUDIT).await?;
        audit.client.batch_execute(sql::audit()).await?;
        audit.client.batch_execute("GRANT portal_audit_writer TO sidecar").await?;
        for cluster in [portal, audit] {
            for _ in 0..LOG_FILES {
                cluster.client.batch_execute(NEXT_LOG_FILE).await?;
            }
            cluster.client.batch_execute("CHECKPOINT").await?;
        }
        Ok(())
    }

    /// A session of the portal's owner, by its socket.
    pub(crate) async fn portal(&self, database: &str) -> Result<Session> {
        open(&self.portal.dsn(database, OWNER)).await
    }

    /// A session of the audit database's owner, by its socket.
    pub(crate) async fn audit(&self, database: &str) -> Result<Session> {
        open(&self.audit.dsn(database, OWNER)).await
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Lets the sidecar make its slot and take in what is there; then keeps that state: [`Stage::rewind`] goes back to it.
    pub(crate) async fn mark(&self) -> Result<()> {
        let sidecar = crate::process::sidecar(&self.settings)?;
        let audit = self.audit(AUDIT).await?;
        wait("the source was not taken in", async || {
            let row = audit.client.query_opt("SELECT FROM portal_audit.progress WHERE state = 'streaming' AND updated_at > now() - interval '10 s'", &[]).await?;
            Ok(row.is_some())
        })
        .await?;
        sidecar.stop().await?;
        // What the snapshot told is not what is measured, and neither is what follows from it.
        for fold in FOLDS {
            while audit.client.query_one(fold, &[]).await?.get::<_, i64>(0) > 0 {}
        }
        audit.client.batch_execute("TRUNCATE public.events").await?;
        audit.client.batch_execute("VACUUM ANALYZE").await?;
        drop(audit);
        let portal = self.portal(PORTAL).await?;
        copy_slot(&portal, SLOT, BASE_SLOT).await?;
        let owner = self.audit("postgres").await?;
        sessions_gone(&owner, AUDIT).await?;
        owner.client.batch_execute(&format!("ALTER DATABASE {AUDIT} RENAME TO {TEMPLATE}")).await?;
        owner.client.batch_execute(&format!("CREATE DATABASE {AUDIT} TEMPLATE {TEMPLATE}")).await?;
        Ok(())
    }

    /// Both databases' part of the sidecar as [`Stage::mark`] left it; the portal's rows stay as they are.
    pub(crate) async fn rewind(&self) -> Result<()> {
        let owner = self.audit("postgres").await?;
        owner.client.batch_execute(&format!("DROP DATABASE {AUDIT} WITH (FORCE)")).await?;
        owner.client.batch_execute(&format!("CREATE DATABASE {AUDIT} TEMPLATE {TEMPLATE}")).await?;
        self.rewind_slot().await
    }

    /// The slot as [`Stage::mark`] left it, and nothing left to do for either cluster.
    pub(crate) async fn rewind_slot(&self) -> Result<()> {
        let owner = self.audit("postgres").await?;
        owner.client.batch_execute("CHECKPOINT").await?;
        let portal = self.portal(PORTAL).await?;
        portal.client.batch_execute("CHECKPOINT").await?;
        copy_slot(&portal, BASE_SLOT, SLOT).await
    }

    /// Makes the audit database another one, whose name the old one gets.
    pub(crate) async fn exchange(&self, other: &str) -> Result<()> {
        let owner = self.audit("postgres").await?;
        sessions_gone(&owner, AUDIT).await?;
        sessions_gone(&owner, other).await?;
        for (from, to) in [(AUDIT, "exchanged"), (other, AUDIT), ("exchanged", other)] {
            owner.client.batch_execute(&format!("ALTER DATABASE {from} RENAME TO {to}")).await?;
        }
        Ok(())
    }

    /// Where the portal's log ends: with a transaction, because the end of a quiet log is no hurry.
    pub(crate) async fn log_end(&self) -> Result<String> {
        let portal = self.portal(PORTAL).await?;
        // On disk, though the workload did not wait for it.
        let row = portal
            .client
            .query_one("SELECT pg_logical_emit_message(true, 'bench', '')::text", &[])
            .await?;
        portal.client.batch_execute("CHECKPOINT").await?;
        Ok(row.get(0))
    }
}

fn settings_text(portal: &Cluster, audit: &Cluster, folder: &Path) -> Result<String> {
    let audit = audit.tcp_dsn(AUDIT, "sidecar").ok_or("no TCP")?;
    let source = portal.tcp_dsn(PORTAL, "portal_audit").ok_or("no TCP")?;
    Ok(format!(
        "[audit]\ndsn = {audit:?}\n\n[[source]]\nname = \"portal\"\ndsn = {source:?}\nmapping = \"merge-reference\"\nslot = \"{SLOT}\"\nbackfill = true\n\n[limits]\nspool_folder = {folder:?}\nwal_budget_action = \"warn\"\n"
    ))
}

/// A client program, which the pinned packages do not hold.
fn program(installation: &Installation, name: &str) -> Result<PathBuf> {
    let mut folders = vec![installation.bindir.clone()];
    folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    folders.extend(
        (14..=30).rev().map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin"))),
    );
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.exists());
    found.ok_or_else(|| {
        format!("{name} is not here: install PostgreSQL's client programs (Debian: postgresql-15)")
            .into()
    })
}

pub(crate) async fn open(dsn: &str) -> Result<Session> {
    Ok(connect::connect(&config::conninfo(dsn)?, "bench").await?)
}

pub(crate) async fn drop_slot(portal: &Session, slot: &str) -> Result<()> {
    let free = "SELECT active FROM pg_replication_slots WHERE slot_name = $1";
    wait("the slot stays in use", async || {
        let row = portal.client.query_opt(free, &[&slot]).await?;
        Ok(row.is_none_or(|row| !row.get::<_, bool>(0)))
    })
    .await?;
    let drop =
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1";
    portal.client.execute(drop, &[&slot]).await?;
    Ok(())
}

pub(crate) async fn copy_slot(portal: &Session, from: &str, to: &str) -> Result<()> {
    drop_slot(portal, to).await?;
    portal.client.execute("SELECT pg_copy_logical_replication_slot($1, $2)", &[&from, &to]).await?;
    Ok(())
}

async fn sessions_gone(owner: &Session, database: &str) -> Result<()> {
    wait("a session stays in the audit database", async || {
        let row = owner
            .client
            .query_one("SELECT count(*) FROM pg_stat_activity WHERE datname = $1", &[&database])
            .await?;
        Ok(row.get::<_, i64>(0) == 0)
    })
    .await
}

/// Until it holds.
pub(crate) async fn wait(what: &str, mut holds: impl AsyncFnMut() -> Outcome) -> Result<()> {
    let began = Instant::now();
    while !holds().await? {
        if began.elapsed() > WAIT_MAX {
            return Err(format!("{what} within {} s", WAIT_MAX.as_secs()).into());
        }
        sleep(POLL).await;
    }
    Ok(())
}
