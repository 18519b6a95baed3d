//! Values that a table of text and `jsonb` cannot hold as they are, or that would do harm: from the row to the event.

use crate::support::{
    Portal, Wishes, audit_database, cluster, open, portal, run, settings_text, value,
};
use expect_test::expect_file;
use portal_audit::{chain::chain, config::Settings, sql};
use std::path::Path;

const SCHEMA: &str = include_str!("values/schema.sql");
const MAPPING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/values/values.toml");

async fn values(name: &str, limits: &str) -> Portal {
    let wishes = Wishes { name, schema: SCHEMA, mapping: MAPPING, limits, ..Wishes::default() };
    portal(cluster(), wishes).await
}

/// The payload of the only event with a subject.
async fn payload(portal: &Portal, subject: &str) -> serde_json::Value {
    let query = format!("SELECT payload FROM public.events WHERE subject = '{subject}'");
    value(&portal.audit, &query).await
}

#[tokio::test(flavor = "multi_thread")]
async fn documents() {
    let portal = values("values_documents", "").await;
    let sidecar = portal.start().await;
    portal.act(include_str!("values/documents.sql")).await;
    sidecar.stop().await;
    expect_file!["values/documents.events"].assert_eq(&portal.events().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn texts() {
    let portal = values("values_texts", "").await;
    let sidecar = portal.start().await;
    portal.act("INSERT INTO t.kinds VALUES ('known', 'Its name')").await;
    portal.act(include_str!("values/texts.sql")).await;
    sidecar.stop().await;
    expect_file!["values/texts.events"].assert_eq(&portal.events().await);
}

/// A row gives the same values whether the snapshot reads it or the stream brings it.
#[tokio::test(flavor = "multi_thread")]
async fn a_backfilled_row_has_the_values_of_the_stream() {
    const VALUES: &str = "SELECT string_agg(concat_ws(' ', subject, target, success, error_message, payload - '_audit'), '|' ORDER BY subject, target) FROM public.events WHERE payload->'_audit' ? 'backfill' = ";
    let wishes = Wishes {
        name: "values_backfill",
        schema: SCHEMA,
        mapping: MAPPING,
        backfill: true,
        limits: "",
    };
    let portal = portal(cluster(), wishes).await;
    let texts = include_str!("values/texts.sql");
    run(&portal.source, &format!("INSERT INTO t.kinds VALUES ('known', 'Its name'); {texts}"))
        .await;
    let sidecar = portal.start().await;
    portal.act(texts).await;
    sidecar.stop().await;
    let backfilled = value::<String>(&portal.audit, &format!("{VALUES} TRUE")).await;
    assert_eq!(backfilled, value::<String>(&portal.audit, &format!("{VALUES} FALSE")).await);
    let times = "SELECT string_agg(DISTINCT timestamp::text, ' ') FROM public.events WHERE payload->'_audit' ? 'backfill'";
    assert_eq!(value::<String>(&portal.audit, times).await, "2026-01-02 03:04:05.678901+00");
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes() {
    let portal = values("values_sizes", "value_bytes = 5000").await;
    let sidecar = portal.start().await;
    // 10,000 characters that do not compress, in all of which no B-tree entry fits.
    let hex = "(SELECT string_agg(md5(g::text), '') FROM generate_series(1, 312) AS g)";
    portal.act(&format!("INSERT INTO t.texts (subject, big) VALUES ('long value', {hex}), ({hex}, 'x'), (repeat('ü', 600), 'y')")).await;
    portal.act("UPDATE t.texts SET note = 'n' WHERE subject = 'long value'").await;
    portal.act("UPDATE t.texts SET note = 'o', big = NULL WHERE subject = 'long value'").await;
    sidecar.stop().await;
    let digest: String = value(
        &portal.source,
        &format!("SELECT 'sha256:' || encode(sha256({hex}::bytea), 'hex') || ' of 9984 bytes'"),
    )
    .await;
    let long = "SELECT payload->>'big' FROM public.events WHERE event_type = 'text_added' AND subject = 'long value' AND payload->'_audit'->'truncated' = 'true'";
    assert_eq!(value::<String>(&portal.audit, long).await, digest);
    let cut = "SELECT string_agg(length(subject) || ' ' || substr(subject, length(subject) - 24, 9) || ' ' || (payload->'_audit'->>'truncated'), ', ' ORDER BY length(subject)) FROM public.events WHERE subject <> 'long value'";
    assert_eq!(value::<String>(&portal.audit, cut).await, "511 … sha256: true, 998 … sha256: true");
    // What was not sent because it did not change is left out and said; NULL is left out.
    let changed = "SELECT string_agg(concat_ws(' ', payload->>'note', payload ? 'big', target IS NULL, payload->'_audit'->'unchanged'), ', ' ORDER BY payload->>'note') FROM public.events WHERE event_type = 'text_changed'";
    assert_eq!(value::<String>(&portal.audit, changed).await, "n f t true, o f t");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_of_children() {
    const CHILDREN: &str = "INSERT INTO t.parents VALUES ('p'), ('q'), ('none');
        INSERT INTO t.children VALUES ('p', 'a'), ('p', 'eyJ.secret'), ('q', 'c')";
    let portal = values("values_children", "").await;
    let sidecar = portal.start().await;
    portal.act(&format!("BEGIN; {CHILDREN}; COMMIT")).await;
    portal.act("INSERT INTO t.children VALUES ('none', 'later')").await;
    portal.act("DELETE FROM t.parents").await;
    let many = |count: u32| {
        format!(
            "BEGIN; INSERT INTO t.parents VALUES ('{count}'); INSERT INTO t.children SELECT '{count}', g FROM generate_series(1, {count}) AS g; COMMIT"
        )
    };
    portal.act(&many(1_000)).await;
    portal.act(&many(1_001)).await;
    sidecar.stop().await;
    let shown = "SELECT string_agg(concat_ws(' ', event_type, subject, payload->'resources'), E'\\n' ORDER BY timestamp, subject) FROM public.events WHERE length(subject) < 4 OR subject = 'none'";
    let expected = [
        "parent_added none []",
        "parent_added p [\"a\", \"[redacted]\"]",
        "parent_added q [\"c\"]",
        "parent_deleted none [\"later\"]",
        "parent_deleted p [\"a\", \"[redacted]\"]",
        "parent_deleted q [\"c\"]",
    ];
    assert_eq!(value::<String>(&portal.audit, shown).await, expected.join("\n"));
    for (subject, truncated) in [("1000", false), ("1001", true)] {
        let payload = payload(&portal, subject).await;
        assert_eq!(payload["resources"].as_array().unwrap().len(), 1_000);
        assert_eq!(payload["_audit"]["truncated"] == true, truncated, "{subject}");
    }
}

/// Of more rows than are kept in memory any list may lack some, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn lists_of_a_transaction_have_a_limit() {
    let portal = values("values_collected", "").await;
    let sidecar = portal.start().await;
    portal
        .act("BEGIN; SET LOCAL session_replication_role = replica;
            INSERT INTO t.children SELECT 'p' || g, 'r' FROM generate_series(1, 100000) AS g;
            INSERT INTO t.children VALUES ('last', 'r'); INSERT INTO t.parents VALUES ('p1'), ('last'); COMMIT")
        .await;
    sidecar.stop().await;
    for (subject, length) in [("p1", 1), ("last", 0)] {
        let payload = payload(&portal, subject).await;
        assert_eq!(payload["resources"].as_array().unwrap().len(), length);
        assert_eq!(payload["_audit"]["truncated"], true);
    }
}

/// Names need neither fit into memory nor into an index.
#[tokio::test(flavor = "multi_thread")]
async fn names_beyond_their_limits() {
    let portal = values("values_names", "names_in_memory = 64").await;
    // With a source and an entity beside it, such a key is too long for a B-tree of the audit database.
    let hex = "(SELECT left(string_agg(md5(g::text), ''), 2680) FROM generate_series(1, 100) AS g)";
    run(&portal.source, &format!("INSERT INTO t.kinds SELECT g, 'name of ' || g FROM generate_series(1, 1000) AS g; INSERT INTO t.kinds VALUES ({hex}, repeat('long name ', 1000))")).await;
    let sidecar = portal.start().await;
    portal
        .act("INSERT INTO t.texts (subject, kind) SELECT g, g FROM generate_series(1, 1001) AS g")
        .await;
    portal.act(&format!("INSERT INTO t.texts (subject, kind) VALUES ('long', {hex}); UPDATE t.kinds SET name = 'short' WHERE length(id) > 10; INSERT INTO t.texts (subject, kind) VALUES ('shorter', {hex})")).await;
    sidecar.stop().await;
    let named = "SELECT count(*) FROM public.events WHERE target = 'name of ' || subject";
    assert_eq!(value::<i64>(&portal.audit, named).await, 1_000);
    let target = "SELECT string_agg(concat(subject, ' ', left(target, 9), ' ', length(target), ' ', payload->'_audit'->>'unresolved'), ', ' ORDER BY subject) FROM public.events WHERE target NOT LIKE 'name of %'";
    assert_eq!(
        value::<String>(&portal.audit, target).await,
        "1001 1001 4 true, long long name 998 , shorter short 5 "
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_column_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = std::fs::read_to_string(MAPPING).unwrap();
    std::fs::write(file.path(), text.replace("{ note = \"note\"", "{ note = \"password_hash\""))
        .unwrap();
    let text = settings_text(cluster(), "values_denied", file.path().to_str().unwrap(), false, "");
    let error = Settings::parse(Path::new("test.toml"), &text).unwrap_err();
    let error = chain(&error);
    assert!(error.contains("column \"password_hash\" is on the deny list"), "{error}");
}

/// Updates of a table with a generated column and replica identity FULL work, with the publication that we ask for.
#[tokio::test(flavor = "multi_thread")]
async fn a_generated_column_breaks_no_update() {
    let schema = format!("{SCHEMA}; ALTER TABLE t.texts REPLICA IDENTITY FULL");
    let wishes =
        Wishes { name: "values_generated", schema: &schema, mapping: MAPPING, ..Wishes::default() };
    let portal = portal(cluster(), wishes).await;
    let sidecar = portal.start().await;
    portal
        .act("INSERT INTO t.texts (subject, note, big) VALUES ('s', 'n', repeat('big', 1000))")
        .await;
    portal.act("UPDATE t.texts SET note = 'changed'; DELETE FROM t.texts").await;
    sidecar.stop().await;
    let note = "SELECT concat(payload->>'note', ' ', length(payload->>'big')) FROM public.events WHERE event_type = 'text_changed'";
    assert_eq!(value::<String>(&portal.audit, note).await, "changed 3000");
}

/// A portal whose database has another encoding than UTF-8.
pub async fn encoded(name: &str, encoding: &str) -> Portal {
    let postgres = open(cluster(), "postgres").await;
    run(&postgres, &format!("CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")).await;
    let settings_text = settings_text(cluster(), name, MAPPING, true, "");
    let settings = Settings::parse(Path::new("test.toml"), &settings_text).unwrap();
    let source = open(cluster(), name).await;
    run(&source, SCHEMA).await;
    run(&source, &sql::source(&settings.sources[0])).await;
    let audit = audit_database(cluster(), &format!("{name}_audit")).await;
    Portal { name: name.to_owned(), source, audit, settings, settings_text }
}

/// Rows with the bytes of `café` in an encoding, as key, name, label and text.
fn coffee(bytes: &str, encoding: &str) -> String {
    let text = format!("convert_from('\\x{bytes}', '{encoding}')");
    format!(
        "INSERT INTO t.kinds VALUES ({text}, {text}) ON CONFLICT DO NOTHING; INSERT INTO t.texts (subject, kind, note, state) VALUES ({text}, {text}, {text}, {text})"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_in_latin1() {
    let portal = encoded("values_latin1", "LATIN1").await;
    run(&portal.source, &coffee("436166e9", "LATIN1")).await;
    let sidecar = portal.start().await;
    portal.act(&coffee("436166e9", "LATIN1")).await;
    sidecar.stop().await;
    expect_file!["values/latin1.events"].assert_eq(&portal.events().await);
}

/// Bytes of no encoding stop neither the snapshot nor the stream, and two of them never become one.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_encoding() {
    let portal = encoded("values_sql_ascii", "SQL_ASCII").await;
    run(&portal.source, &coffee("436166e9", "SQL_ASCII")).await;
    let sidecar = portal.start().await;
    portal.act(&coffee("436166e9", "SQL_ASCII")).await;
    portal.act(&coffee("436166e8", "SQL_ASCII")).await;
    portal.act(&coffee("436166c3a9", "SQL_ASCII")).await;
    portal
        .act("BEGIN; INSERT INTO t.parents VALUES ('p'); INSERT INTO t.children VALUES ('p', convert_from('\\xe9', 'SQL_ASCII')); COMMIT")
        .await;
    sidecar.stop().await;
    expect_file!["values/sql_ascii.events"].assert_eq(&portal.events().await);
}
