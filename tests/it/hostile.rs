//! Values that cost much, or that fit nowhere: each is kept, bounded and flagged, and the stream goes on.

use crate::support::{
    Portal, Wishes, cluster, portal,
    program::{Program, SettingsFile},
    run, value,
};
use crate::values::encoded;
use std::time::Instant;

const SCHEMA: &str = include_str!("hostile/schema.sql");
const MAPPING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/hostile/hostile.toml");

async fn hostile(name: &str, limits: &str) -> Portal {
    let wishes = Wishes { name, schema: SCHEMA, mapping: MAPPING, limits, ..Wishes::default() };
    portal(cluster(), wishes).await
}

/// One row that holds thousands of entries, beside a text that is no shorter, and asks for more names than are kept in memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_map_of_very_many_entries() {
    let portal = hostile("hostile_map", "names_in_memory = 64").await;
    let sidecar = portal.start().await;
    run(
        &portal.source,
        "INSERT INTO h.people SELECT 'k' || n, 'name of ' || n FROM generate_series(1, 20000) AS n",
    )
    .await;
    portal.act("INSERT INTO h.maps SELECT 'm', jsonb_object_agg('k' || n, jsonb_build_object('role', n)), (SELECT string_agg(md5(g::text), '') FROM generate_series(1, 30000) AS g) FROM generate_series(1, 20000) AS n").await;
    // Nothing of an entry changed: no event, though all are compared.
    portal.act("UPDATE h.maps SET note = 'short'").await;
    portal.act("UPDATE h.maps SET members = members || '{\"new\": {\"role\": \"r\"}}'").await;
    sidecar.stop().await;
    let all = "SELECT concat_ws(' ', count(*), count(DISTINCT event_uuid), count(*) FILTER (WHERE target = 'name of ' || (payload->>'role')), count(*) FILTER (WHERE payload->'_audit'->'truncated' = 'true'), max(length(payload->>'note'))) FROM public.events WHERE target <> 'new'";
    // The note stands as its hash: `sha256:`, 64 digits, ` of 960000 bytes`.
    assert_eq!(value::<String>(&portal.audit, all).await, "20000 20000 20000 20000 87");
    let new = "SELECT concat_ws(' ', target, payload->>'role', payload->>'note', payload->'_audit'->>'unresolved') FROM public.events WHERE target = 'new'";
    assert_eq!(value::<String>(&portal.audit, new).await, "new r short true");
}

/// Numbers that a parser would round are looked up in the text; each once, however many there are.
#[tokio::test(flavor = "multi_thread")]
async fn documents_of_very_many_numbers() {
    let portal = hostile("hostile_numbers", "value_bytes = 4000000").await;
    let sidecar = portal.start().await;
    portal.act("INSERT INTO h.documents (doc) SELECT jsonb_build_object('name', 'many', 'all', jsonb_agg(n + 0.125)) FROM generate_series(1, 60000) AS n").await;
    portal.act(r#"INSERT INTO h.documents (doc) VALUES ('{"name": 1.0000000000000000001, "all": [1.0000000000000000002, 0.1, 0.5]}')"#).await;
    portal.act(r#"INSERT INTO h.documents (doc) VALUES ('{"name": "apart", "all": 1.00000000000000000003, "each": [0.30, 12345678901234567890123]}')"#).await;
    sidecar.stop().await;
    let many = "SELECT concat_ws(' ', jsonb_array_length(payload->'all'), payload->'all'->59999, payload->'_audit' ? 'truncated') FROM public.events WHERE subject = 'many'";
    assert_eq!(value::<String>(&portal.audit, many).await, "60000 60000.125 f");
    // Two of them are one when they are parsed: neither is believed to be the other.
    let near = "SELECT concat_ws(' ', subject, payload->'all', payload->'_audit'->'truncated') FROM public.events WHERE subject LIKE '1%'";
    assert_eq!(value::<String>(&portal.audit, near).await, "1.0 [1.0, 0.1, 0.5] true");
    let apart = "SELECT concat_ws(' ', payload->'all', payload->'each', payload->'_audit' ? 'truncated') FROM public.events WHERE subject = 'apart'";
    assert_eq!(
        value::<String>(&portal.audit, apart).await,
        r#""1.00000000000000000003" [0.30, "12345678901234567890123"] f"#
    );
}

/// A server with more stack takes what another does not, and a document may be as large as a table.
#[tokio::test(flavor = "multi_thread")]
async fn documents_too_deep_and_too_large() {
    let portal = hostile("hostile_deep", "value_bytes = 1000000").await;
    let sidecar = portal.start().await;
    let deep = |depth: u32| {
        format!(
            "'{{\"name\": \"deep\", \"all\": ' || repeat('[', {depth}) || repeat(']', {depth}) || '}}'"
        )
    };
    for depth in [100, 6000, 20000] {
        portal
            .act(&format!(
                "SET max_stack_depth = '7MB'; INSERT INTO h.documents (raw) VALUES (({})::json)",
                deep(depth)
            ))
            .await;
    }
    portal.act(&format!("INSERT INTO h.documents (doc) VALUES (({})::jsonb)", deep(6000))).await;
    for number in ["1e400", "1e200000", "-0.0", "1e-400"] {
        portal.act(&format!("INSERT INTO h.documents (raw) VALUES ('[{number}]')")).await;
    }
    portal.act("INSERT INTO h.documents (doc) SELECT jsonb_build_object('name', 'large', 'all', jsonb_agg(md5(n::text))) FROM generate_series(1, 600000) AS n").await;
    sidecar.stop().await;
    let kinds = "SELECT string_agg(concat_ws(' ', jsonb_typeof(payload->'raw'), jsonb_typeof(payload->'doc'), payload->'_audit'->'escaped'), ', ' ORDER BY (payload->'_audit'->>'lsn')::pg_lsn) FROM public.events";
    assert_eq!(
        value::<String>(&portal.audit, kinds).await,
        "object, string true, string true, string true, string true, string true, string true, array, string true"
    );
    let large = "SELECT concat_ws(' ', left(subject, 10), length(payload->>'doc') < 100, payload->'_audit'->'truncated') FROM public.events WHERE payload->>'doc' LIKE 'sha256%'";
    assert!(value::<String>(&portal.audit, large).await.ends_with("t true"));
    let stand_ins = "SELECT count(*) FROM public.events WHERE event_type = 'undeliverable'";
    assert_eq!(value::<i64>(&portal.audit, stand_ins).await, 0);
}

/// Each column that an index of the audit database holds, and more than a page of it: neither refused nor taken for another.
#[tokio::test(flavor = "multi_thread")]
async fn texts_too_long_for_an_index() {
    let portal = hostile("hostile_long", "").await;
    let sidecar = portal.start().await;
    // Text that does not compress, and that differs only at its end.
    let long = "(SELECT string_agg(md5(g::text), '') FROM generate_series(1, 4000) AS g)";
    let texts = format!(
        "INSERT INTO h.texts (subject, target, caller, error, note) SELECT {long} || n, {long} || n, {long} || n, {long} || n, {long} || n FROM generate_series(1, 3) AS n"
    );
    portal.act(&texts).await;
    portal.act("UPDATE h.texts SET note = 'x'; DELETE FROM h.texts").await;
    sidecar.stop().await;
    let columns = "SELECT concat_ws(' ', count(*), count(DISTINCT subject), count(DISTINCT target), count(DISTINCT caller), max(octet_length(subject)) <= 1000, bool_and(payload->'_audit'->'truncated' = 'true'), max(octet_length(error_message))) FROM public.events";
    assert_eq!(value::<String>(&portal.audit, columns).await, "9 3 3 4 t t 65536");
}

/// Tables and columns may be called what no encoding knows, and what nobody would type.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_no_text() {
    let portal = encoded("hostile_names", "SQL_ASCII").await;
    let publication = &portal.settings.sources[0].publication;
    let script = r#"DO $$ DECLARE bad TEXT := convert_from('\x22636166e90a2722', 'SQL_ASCII'); worse TEXT := convert_from('\x22636166e80a2722', 'SQL_ASCII'); BEGIN
        EXECUTE 'ALTER TABLE t.texts ADD COLUMN ' || bad || ' TEXT DEFAULT 1';
        EXECUTE 'ALTER TABLE t.kinds ADD COLUMN ' || bad || ' TEXT';
        EXECUTE 'CREATE TABLE t.' || bad || ' (' || bad || ' TEXT PRIMARY KEY)';
        EXECUTE 'CREATE TABLE t.' || worse || ' (' || bad || ' TEXT PRIMARY KEY)';
        EXECUTE 'ALTER PUBLICATION "PUB" ADD TABLE t.' || bad || ', t.' || worse;
        EXECUTE 'ALTER PUBLICATION "PUB" DROP TABLE t.texts';
        EXECUTE 'ALTER PUBLICATION "PUB" ADD TABLE t.texts';
    END $$"#;
    run(&portal.source, &script.replace("\"PUB\"", &format!("\"{publication}\""))).await;
    let sidecar = portal.start().await;
    portal.act("INSERT INTO t.texts (subject) VALUES ('told')").await;
    portal.act(r#"DO $$ DECLARE bad TEXT := convert_from('\x22636166e90a2722', 'SQL_ASCII'); worse TEXT := convert_from('\x22636166e80a2722', 'SQL_ASCII'); BEGIN
        EXECUTE 'INSERT INTO t.' || bad || ' VALUES (1), (2)'; EXECUTE 'INSERT INTO t.' || worse || ' VALUES (3)'; EXECUTE 'TRUNCATE t.' || worse; END $$"#).await;
    sidecar.stop().await;
    let told = "SELECT string_agg(event_type || ' ' || subject, ', ' ORDER BY event_type DESC) FROM public.events";
    assert_eq!(
        value::<String>(&portal.audit, told).await,
        "text_added told, table_truncated t.caf\\xE8\n'"
    );
    let counted = "SELECT string_agg(relation || ' ' || changes, ', ' ORDER BY relation) FROM portal_audit.unmapped";
    assert_eq!(value::<String>(&portal.audit, counted).await, "t.caf\\xE8\n' 1, t.caf\\xE9\n' 2");
}

/// The largest number of kilobytes that a process had in memory.
fn peak_kilobytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// 100 MB of text, and then old and new of it in one message; 50 MB of bytes, which are 100 MB of text.
#[tokio::test(flavor = "multi_thread")]
async fn values_of_a_hundred_megabytes() {
    let portal = hostile("hostile_huge", "").await;
    let settings = SettingsFile::new(&portal);
    let program = Program::run(&settings.path);
    portal.streaming().await;
    let begun = Instant::now();
    let insert =
        "INSERT INTO h.texts (subject, note) VALUES ('huge', repeat('0123456789', 10000000))";
    portal.act(insert).await;
    portal.act("UPDATE h.texts SET target = 'again'").await;
    portal.act("BEGIN; SELECT pg_logical_emit_message(true, 'portal_audit.ctx', repeat('x', 100000000)); SELECT pg_logical_emit_message(false, 'portal_audit.attempt', repeat('x', 100000000)); SELECT pg_logical_emit_message(true, repeat('p', 1000), '\\x00ff'::bytea); UPDATE h.texts SET target = 'third', note = ''; COMMIT").await;
    let peak = peak_kilobytes(program.id());
    assert!(program.terminate().success());
    println!("peak {peak} kB in {:?}", begun.elapsed());
    let told = "SELECT string_agg(concat_ws(' ', subject, target, payload->>'note', payload->'_audit'->'truncated'), ', ' ORDER BY (payload->'_audit'->>'lsn')::pg_lsn) FROM public.events";
    let digest: String = value(
        &portal.source,
        "SELECT encode(sha256(repeat('0123456789', 10000000)::bytea), 'hex')",
    )
    .await;
    let huge = format!("sha256:{digest} of 100000000 bytes true");
    assert_eq!(
        value::<String>(&portal.audit, told).await,
        format!("huge {huge}, huge again {huge}, huge third ")
    );
    // Three times the longest message: as it comes, as it waits for its commit, and as it is read.
    assert!(peak < 900_000, "{peak} kB");
}
