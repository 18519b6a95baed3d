//! What the source itself cannot decode: that source stops and says where and what to do, the gap is recorded on request, and the stream goes on behind it.

use crate::support::{
    Portal, Sidecar, audit_database, cluster, open, run, sample, settings_text, value, wait_for,
};
use portal_audit::{config::Settings, sql};
use std::path::Path;

const MAPPING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/values/values.toml");
const SCHEMA: &str = include_str!("values/schema.sql");

/// The repair as the error tells it; then the source goes on, and one gap tells of what is missing.
async fn give_up_and_go_on(portal: &Portal, fault: &str, behind: &str) {
    assert!(fault.contains("The source stopped decoding at "), "{fault}");
    assert!(fault.contains("--accept-gap"), "{fault}");
    let (_, repair) = fault.split_once('`').unwrap();
    let (repair, _) = repair.split_once('`').unwrap();
    let slot = &portal.settings.sources[0].slot;
    let free =
        format!("SELECT active_pid IS NULL FROM pg_replication_slots WHERE slot_name = '{slot}'");
    wait_for("the slot is free", async || value::<bool>(&portal.source, &free).await).await;
    run(&portal.source, &repair.replace("<slot>", slot)).await;
    // Not in silence: without the word of a human it stays where it is.
    let faults = Sidecar::start(portal.settings.clone()).ended().await;
    assert!(faults.join("\n").contains("ahead of the audit database"), "{faults:?}");
    let sidecar = Sidecar::start_accepting(portal.settings.clone());
    portal.act(behind).await;
    sidecar.stop().await;
    let gaps = "SELECT concat_ws(' ', count(*), min(payload->>'reason')) FROM public.events WHERE event_type = 'audit_gap'";
    assert_eq!(value::<String>(&portal.audit, gaps).await, "1 slot_ahead");
}

/// Bytes that the database takes and no conversion knows: 0x81 is no character of WIN1252.
#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_cannot_be_converted() {
    let name = "unreadable_text";
    let postgres = open(cluster(), "postgres").await;
    run(&postgres, &format!("CREATE DATABASE {name} ENCODING 'WIN1252' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")).await;
    let settings_text = settings_text(cluster(), name, MAPPING, false, "");
    let settings = Settings::parse(Path::new("test.toml"), &settings_text).unwrap();
    let source = open(cluster(), name).await;
    run(&source, SCHEMA).await;
    run(&source, &sql::source(&settings.sources[0])).await;
    let audit = audit_database(cluster(), &format!("{name}_audit")).await;
    let portal = Portal { name: name.to_owned(), source, audit, settings, settings_text };
    let sidecar = portal.start().await;
    portal.act("INSERT INTO t.texts (subject) VALUES ('before' || chr(128))").await;
    run(&portal.source, "INSERT INTO t.texts (subject, note) VALUES ('gone', chr(129))").await;
    let faults = sidecar.ended().await.join("\n");
    assert!(faults.contains("22P05") && faults.contains(&portal.settings.sources[0].slot));
    give_up_and_go_on(&portal, &faults, "INSERT INTO t.texts (subject) VALUES ('behind')").await;
    let subjects = "SELECT string_agg(subject, ' ' ORDER BY (payload->'_audit'->>'lsn')::pg_lsn) FROM public.events WHERE event_type = 'text_added'";
    assert_eq!(value::<String>(&portal.audit, subjects).await, "before€ behind");
}

/// Before 18 the log cannot be decoded while a publication that is gone was not there.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_was_not_there() {
    let portal = sample("unreadable_publication").await;
    let version: i32 =
        value(&portal.source, "SELECT current_setting('server_version_num')::int").await;
    if version >= 180_000 {
        println!("not run: PostgreSQL 17 and earlier");
        return;
    }
    let sidecar = portal.start().await;
    portal.act("INSERT INTO portal.users (username, uid, gid) VALUES ('before', 1, 1)").await;
    sidecar.stop().await;
    let publication = &portal.settings.sources[0].publication;
    run(&portal.source, &format!("DROP PUBLICATION \"{publication}\"")).await;
    run(&portal.source, "INSERT INTO portal.users (username, uid, gid) VALUES ('gone', 2, 2)")
        .await;
    run(&portal.source, &sql::source(&portal.settings.sources[0])).await;
    let faults = Sidecar::start(portal.settings.clone()).ended().await.join("\n");
    assert!(faults.contains("42704") && faults.contains(publication.as_str()), "{faults}");
    run(&portal.source, "TRUNCATE journal.change").await;
    give_up_and_go_on(
        &portal,
        &faults,
        "INSERT INTO portal.users (username, uid, gid) VALUES ('behind', 3, 3)",
    )
    .await;
    let subjects = "SELECT string_agg(subject, ' ' ORDER BY subject) FROM public.events WHERE event_type = 'user_created'";
    assert_eq!(value::<String>(&portal.audit, subjects).await, "before behind");
}
