//! A primary and its standby, and a portal on them whose audit database is elsewhere.
//!
//! Not every installation has `pg_basebackup`, so the standby is a copy of the stopped primary's folder without its slots.

use super::{
    Portal, Wishes, audit_database, cluster, installation, open, portal_database, run,
    settings_text, value, wait_for,
};
use portal_audit::{
    config::Settings,
    demo::cluster::{Cluster, Options, Shutdown},
    sql,
};
use std::{path::Path, process::Command};

/// From this version on a standby can carry slots on.
pub const SYNCHRONISED_SLOTS_SINCE: u32 = 17;
/// The slot by which the standby keeps the primary's log.
const PHYSICAL_SLOT: &str = "standby";

/// The major version of the servers under test.
pub fn major() -> u32 {
    let version = installation().version;
    version.split('.').next().and_then(|major| major.parse().ok()).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "folders are copied with their owner")]
fn shell(script: &str, arguments: [&Path; 2]) {
    let mut command = Command::new("sh");
    command.args(["-ec", script, "sh"]).args(arguments);
    assert!(command.status().unwrap().success(), "{script}");
}

fn settings(pairs: &[(&str, &str)]) -> Options {
    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    Options { settings: pairs.iter().map(owned).collect(), ..Options::default() }
}

/// A server made of a copy of another one's folder, which is stopped for it and started again.
pub fn copy(original: &mut Cluster, pairs: &[(&str, &str)], prepare: &str) -> Cluster {
    let mut copy = Cluster::start_with(&installation(), &settings(pairs)).unwrap();
    copy.stop_server(Shutdown::Immediate).unwrap();
    original.stop_server(Shutdown::Fast).unwrap();
    let script = format!("rm -rf \"$2\"; cp -a \"$1\" \"$2\"; cd \"$2\"; {prepare}");
    shell(&script, [&original.data_dir(), &copy.data_dir()]);
    original.start_server().unwrap();
    copy.start_server().unwrap();
    copy
}

/// A primary with a standby that follows it.
pub struct Pair {
    pub primary: Cluster,
    pub standby: Cluster,
}

impl Pair {
    /// Both run, with the portal on the primary and not yet followed. The standby carries logical slots on where it can.
    pub async fn start(wishes: Wishes<'_>) -> (Self, Portal) {
        Self::make(wishes, major() >= SYNCHRONISED_SLOTS_SINCE).await
    }

    /// The same, with a standby that knows nothing of slots.
    pub async fn start_unsynchronised(wishes: Wishes<'_>) -> (Self, Portal) {
        Self::make(wishes, false).await
    }

    async fn make(wishes: Wishes<'_>, synchronises: bool) -> (Self, Portal) {
        let mut primary = Cluster::start_with(&installation(), &settings(&[])).unwrap();
        let portal = portal(&primary, wishes).await;
        let slot = format!("SELECT pg_create_physical_replication_slot('{PHYSICAL_SLOT}', true)");
        run(&open(&primary, "postgres").await, &slot).await;
        let standby = Self::join(&mut primary, synchronises);
        let Portal { name, audit, settings, settings_text, .. } = portal;
        let source = open(&primary, &name).await;
        let portal = Portal { name, source, audit, settings, settings_text };
        (Self { primary, standby }, portal)
    }

    fn join(primary: &mut Cluster, synchronises: bool) -> Cluster {
        let conninfo = primary.dsn("postgres", "postgres").replace('\'', "''");
        let prepare = format!(
            "rm -rf pg_replslot/*; touch standby.signal; echo \"primary_conninfo = '{conninfo}'\" >> postgresql.auto.conf; chown -R --reference=. ."
        );
        let mut pairs = vec![("hot_standby_feedback", "on"), ("primary_slot_name", PHYSICAL_SLOT)];
        pairs.extend([
            ("wal_receiver_status_interval", "1"),
            ("wal_retrieve_retry_interval", "100ms"),
        ]);
        if synchronises {
            pairs.push(("sync_replication_slots", "on"));
        }
        copy(primary, &pairs, &prepare)
    }

    /// Waits until the standby has all that the primary has logged by now.
    pub async fn caught_up(&self) {
        let primary = open(&self.primary, "postgres").await;
        let end: String = value(&primary, "SELECT pg_current_wal_flush_lsn()::text").await;
        let standby = open(&self.standby, "postgres").await;
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
        wait_for("the standby", async || value::<bool>(&standby, &replayed).await).await;
    }

    /// Waits until the standby could carry the portal's slot on.
    pub async fn slot_synchronised(&self, portal: &Portal) {
        let standby = open(&self.standby, "postgres").await;
        let synchronised = format!(
            "SELECT count(*) = 1 FROM pg_replication_slots WHERE slot_name = 'portal_audit_{}' AND synced AND NOT temporary AND invalidation_reason IS NULL",
            portal.name
        );
        let is_synchronised = async || {
            // It is only kept once the standby's log reaches as far back as the slot needs, and its worker rests longer and longer.
            run(&open(&self.primary, "postgres").await, "SELECT pg_log_standby_snapshot()").await;
            value::<bool>(&standby, &synchronised).await
        };
        wait_for("the slot on the standby", is_synchronised).await;
    }

    /// From now on the standby gets nothing of the primary.
    pub async fn cut_off(&self) {
        let standby = open(&self.standby, "postgres").await;
        run(&standby, "ALTER SYSTEM SET primary_conninfo = ''").await;
        run(&standby, "SELECT pg_reload_conf()").await;
        let alone = "SELECT count(*) = 0 FROM pg_stat_wal_receiver";
        wait_for("the standby is alone", async || value::<bool>(&standby, alone).await).await;
    }

    /// Where the old primary's log and the promoted standby's part.
    pub async fn parting(&self) -> String {
        let standby = open(&self.standby, "postgres").await;
        let history =
            "SELECT (regexp_match(pg_read_file('pg_wal/00000002.history'), '^1\\s+(\\S+)'))[1]";
        value(&standby, history).await
    }

    /// Makes a primary of the standby; the old one goes on if it is not stopped.
    pub async fn promote(&self) {
        promote(&self.standby).await;
    }
}

/// Makes a primary of a standby.
pub async fn promote(standby: &Cluster) {
    let session = open(standby, "postgres").await;
    assert!(value::<bool>(&session, "SELECT pg_promote()").await);
}

/// The sample portal on a server of its own, with its audit database on the one that all tests share.
pub async fn portal(source_cluster: &Cluster, wishes: Wishes<'_>) -> Portal {
    let Wishes { name, mapping, backfill, limits, .. } = wishes;
    let source = portal_database(source_cluster, name).await;
    let audit_name = format!("{name}_audit");
    let text = settings_text(source_cluster, name, mapping, backfill, limits);
    let not_there = format!("{:?}", source_cluster.dsn(&audit_name, "postgres"));
    let audit_dsn = format!("{:?}", cluster().dsn(&audit_name, "postgres"));
    assert!(text.contains(&not_there));
    let settings_text = text.replace(&not_there, &audit_dsn);
    let settings = parse(&settings_text);
    run(&source, &sql::source(&settings.sources[0])).await;
    let audit = audit_database(cluster(), &audit_name).await;
    Portal { name: name.to_owned(), source, audit, settings, settings_text }
}

pub fn parse(text: &str) -> Settings {
    Settings::parse(Path::new("test.toml"), text).unwrap()
}

/// The same portal with its source on another server, as after a failover.
pub async fn moved(portal: Portal, from: &Cluster, to: &Cluster) -> Portal {
    let Portal { name, audit, settings_text, .. } = portal;
    let dsn = |cluster: &Cluster| format!("{:?}", cluster.dsn(&name, "postgres"));
    assert!(settings_text.contains(&dsn(from)));
    let settings_text = settings_text.replace(&dsn(from), &dsn(to));
    let settings = parse(&settings_text);
    let source = open(to, &name).await;
    Portal { name, source, audit, settings, settings_text }
}
