//! A column of each type: its text is the same whatever the portal's database, role and clients have set, in the stream and in the snapshot.

use crate::support::{Portal, Wishes, cluster, open, portal, run, value, wait_for};
use expect_test::expect_file;

const SCHEMA: &str = include_str!("types/schema.sql");
const ROWS: &str = include_str!("types/rows.sql");
const MAPPING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/types/types.toml");
/// What changes the text of values, where a session takes it from its database or role.
const SETTINGS: [&str; 9] = [
    "datestyle = 'SQL, DMY'",
    "intervalstyle = 'iso_8601'",
    "bytea_output = 'escape'",
    "timezone = 'Asia/Tokyo'",
    "extra_float_digits = -3",
    "quote_all_identifiers = on",
    "search_path = '\"t y\"'",
    "client_encoding = 'LATIN1'",
    "xmlbinary = 'hex'",
];

async fn types(name: &str, backfill: bool) -> Portal {
    let wishes = Wishes { name, schema: SCHEMA, mapping: MAPPING, backfill, ..Wishes::default() };
    portal(cluster(), wishes).await
}

/// Sets all of it for a database, and for a role in it.
async fn unsettle(portal: &Portal) {
    let postgres = open(cluster(), "postgres").await;
    for (place, setting) in SETTINGS.iter().enumerate() {
        let whose = if place % 2 == 0 { "DATABASE" } else { "ROLE postgres IN DATABASE" };
        run(&postgres, &format!("ALTER {whose} {} SET {setting}", portal.name)).await;
    }
}

/// Payloads of inserted rows, told apart by nothing but their values.
async fn payloads(portal: &Portal, condition: &str) -> String {
    let query = format!(
        "SELECT string_agg(DISTINCT concat_ws(' ', subject, target, (payload - '_audit')::text), E'\\n') FROM public.events WHERE {condition}"
    );
    value(&portal.audit, &query).await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_type_has_its_text() {
    let portal = types("types_golden", false).await;
    let sidecar = portal.start().await;
    portal.act(ROWS).await;
    sidecar.stop().await;
    let events = portal.events().await;
    // It has 131,072 digits.
    assert!(events.contains("\"sha256:") && !events.contains("0000000000000000000000000000"));
    expect_file!["types/types.events"].assert_eq(&events);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_portal_change_no_payload() {
    let portal = types("types_settled", false).await;
    let sidecar = portal.start().await;
    portal.act(ROWS).await;
    let before = payloads(&portal, "true").await;
    let first: i64 = portal.count().await;
    unsettle(&portal).await;
    // The server process that decodes starts anew, with the settings as they are now.
    let walsender = "SELECT active_pid FROM pg_replication_slots WHERE database = 'types_settled'";
    let pid: i32 = value(&portal.source, walsender).await;
    run(&portal.source, &format!("SELECT pg_terminate_backend({pid})")).await;
    let again = format!(
        "SELECT coalesce(max(active_pid) <> {pid}, false) FROM pg_replication_slots WHERE database = 'types_settled'"
    );
    wait_for("another walsender", async || value::<bool>(&portal.source, &again).await).await;
    portal.act(ROWS).await;
    sidecar.stop().await;
    assert_eq!(portal.count().await, first * 2);
    assert_eq!(payloads(&portal, "true").await, before);

    // The snapshot's session, too.
    let old = types("types_unsettled", true).await;
    unsettle(&old).await;
    let inserts = ROWS.split("UPDATE").next().unwrap();
    run(&old.source, inserts).await;
    let sidecar = old.start().await;
    old.act(inserts).await;
    sidecar.stop().await;
    let backfilled = payloads(&old, "payload->'_audit' ? 'backfill'").await;
    assert_eq!(backfilled, payloads(&old, "NOT payload->'_audit' ? 'backfill'").await);
    assert!(before.starts_with(backfilled.lines().next().unwrap()) || before.contains(&backfilled));
}
