//! A portal that is followed, and what can go wrong with its slot.

use super::{Ready, as_other, expected, paste, told};
use crate::support::{Sidecar, run, standby::major, value, wait_for};

const USER: &str = "INSERT INTO portal.users (username, uid, gid) VALUES ('wren', 1, 1)";

impl Ready {
    fn slot(&self) -> String {
        self.settings().sources[0].slot.clone()
    }

    async fn follow(&self) -> Sidecar {
        let sidecar = Sidecar::start(self.settings());
        self.portal.streaming().await;
        self.portal.act(USER).await;
        sidecar
    }

    pub async fn stop(&self, sidecar: Sidecar) {
        sidecar.stop().await;
        let free = format!(
            "SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{}'",
            self.slot()
        );
        wait_for("the slot is free", async || value::<bool>(&self.postgres, &free).await).await;
    }

    /// Progress as somebody has changed it, and as it was.
    async fn with_progress(&self, set: &str, finds: &[&str]) {
        run(&self.portal.audit, "CREATE TABLE backup AS TABLE portal_audit.progress").await;
        run(&self.portal.audit, &format!("UPDATE portal_audit.progress SET {set}")).await;
        let faults = self.faults().await;
        assert_eq!(told(&faults), expected(finds), "{set}: {faults:#?}");
        run(&self.portal.audit, "DELETE FROM portal_audit.progress; INSERT INTO portal_audit.progress TABLE backup; DROP TABLE backup").await;
        self.is_well(set).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_portal() {
    let ready = Ready::new("check_followed").await;
    let sidecar = ready.follow().await;
    ready.is_well("while it runs").await;
    let budget = ready.faults_with("[limits]", "[limits]\nwal_budget_bytes = 1").await;
    assert_eq!(told(&budget), ["slot_wal warning"], "{budget:#?}");
    ready.stop(sidecar).await;
    ready.is_well("stopped").await;

    ready.with_progress("slot = 'other'", &["slot_position critical"]).await;
    ready.with_progress("end_lsn = '0/1'", &["slot_position critical"]).await;
    ready.with_progress("system_identifier = '1'", &["same_source critical"]).await;
    ready.with_progress("database_oid = 1", &["same_source critical"]).await;
    ready.with_progress("timeline = 7", &["same_source critical"]).await;
    ready.with_progress("end_lsn = 'FFFFFFFF/0'", &["same_source critical"]).await;

    // Somebody else reads it.
    let other = Sidecar::start(as_other(&ready.settings(), "stranger"));
    let read =
        format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{}'", ready.slot());
    wait_for("the other", async || value::<bool>(&ready.postgres, &read).await).await;
    let faults = ready.faults().await;
    assert_eq!(told(&faults), ["slot_reader critical"], "{faults:#?}");
    assert!(faults[0].finding.contains("stranger"), "{faults:#?}");
    ready.stop(other).await;
    ready.is_well("read by nobody").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_gone() {
    let ready = Ready::new("check_gone").await;
    let sidecar = ready.follow().await;
    ready.stop(sidecar).await;
    let drop = format!("SELECT pg_drop_replication_slot('{}')", ready.slot());
    run(&ready.portal.source, &drop).await;
    let faults = ready.faults().await;
    assert_eq!(told(&faults), ["slot_lost critical"], "{faults:#?}");
    assert!(faults[0].fix.contains("--accept-gap check_gone"), "{faults:#?}");
    // Given up by the sidecar itself: the next start records the gap.
    let marker = format!("SELECT pg_create_physical_replication_slot('{}_released')", ready.slot());
    run(&ready.portal.source, &marker).await;
    let faults = ready.faults().await;
    assert_eq!(told(&faults), ["slot_lost warning"], "{faults:#?}");
}

/// As one that was made by hand, or before 17.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_without_failover() {
    if major() < 17 {
        return;
    }
    let ready = Ready::new("check_failover").await;
    let sidecar = ready.follow().await;
    ready.stop(sidecar).await;
    let slot = ready.slot();
    run(&ready.portal.source, &format!("SELECT pg_drop_replication_slot('{slot}')")).await;
    let make =
        format!("SELECT lsn::text FROM pg_create_logical_replication_slot('{slot}', 'pgoutput')");
    let lsn: String = value(&ready.portal.source, &make).await;
    run(&ready.portal.audit, &format!("UPDATE portal_audit.progress SET end_lsn = '{lsn}'")).await;
    let faults = ready.faults().await;
    assert_eq!(told(&faults), ["slot_failover warning"], "{faults:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sidecars() {
    let ready = Ready::new("check_two").await;
    let sidecar = ready.follow().await;
    ready.is_well("one").await;
    let sign =
        "SELECT pg_advisory_lock_shared(hashtextextended('portal-audit writes check_two', 0))";
    run(&ready.portal.audit, sign).await;
    let faults = ready.faults().await;
    assert_eq!(told(&faults), ["one_sidecar warning"], "{faults:#?}");
    run(&ready.portal.audit, "SELECT pg_advisory_unlock_all()").await;
    ready.is_well("one again").await;
    ready.stop(sidecar).await;
}

/// Partitions told by their own names are none of the mapping's tables.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_by_their_own_names() {
    let ready = Ready::new("check_partitions").await;
    let mapping = ready.folder.path().join("logs.toml");
    std::fs::write(&mapping, "[[event]]\ntype = \"log_added\"\ntable = \"public.logs\"\non = \"insert\"\nsubject = \"id\"\nsubject_type = \"log\"\ndescribe = \"x\"\nvisible_to = [\"admin\"]\nretention = \"user\"\n").unwrap();
    let source = &ready.portal.source;
    run(source, "CREATE TABLE logs (id INT PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM (0) TO (9)").await;
    let text = ready.text.replace("\"merge-reference\"", "\"logs.toml\"\npublication = \"logs\"");
    let path = ready.file(&text);
    let settings = portal_audit::config::Settings::load(&path).unwrap();
    run(source, &portal_audit::sql::source(&settings.sources[0])).await;
    assert_eq!(told(&super::faults_of(&path).await), Vec::<String>::new());
    run(source, "ALTER PUBLICATION logs SET TABLE logs; ALTER PUBLICATION logs SET (publish_via_partition_root = false)").await;
    let faults = super::faults_of(&path).await;
    assert_eq!(told(&faults), ["via_root critical"], "{faults:#?}");
    paste(source, &faults[0].fix).await;
    // The partition's rows are in the log, with the partition's identity.
    run(source, "ALTER TABLE logs_1 REPLICA IDENTITY NOTHING").await;
    let faults = super::faults_of(&path).await;
    assert_eq!(told(&faults), ["old_values critical", "replica_identity critical"], "{faults:#?}");
}
