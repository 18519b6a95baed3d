//! Every event has its leaf: what PostgreSQL prints of a payload is known beforehand, and no way of writing forgets a leaf or makes one of nothing.

use crate::support::{
    Sidecar, Wishes, audit_database, cluster, open, portal, run, sample, sealed::assert_sealed,
    value, wait_for,
};
use portal_audit::{
    connect::Session,
    event::Event,
    leaf::{Payloads, leaf},
    timestamp::Timestamp,
};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

/// Texts that are compared at a time, and how often.
const TEXTS: usize = 500;
const ROUNDS: usize = 5;

fn space() -> impl Strategy<Value = String> {
    "[ \t\r\n]{0,2}"
}

/// A string with its quotes: characters of each length in UTF-8, and each kind of escape.
fn string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-c äé€😀\u{7f}~/']{0,3}",
        1 => r#"\\["\\/bfnrt]"#,
        1 => r"\\u00[0-7][1-9a-fA-F]",
        1 => r"\\u[1-9a-cA-C][0-9a-f]{3}",
        1 => r"\\u[dD][89abAB][0-9a-f]{2}\\u[dD][c-fC-F][0-9a-f]{2}",
    ];
    proptest::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,9})?([eE][+-]?[0-9]{1,2})?",
        1 => r"-?(0|[1-9])(\.0{0,3}[0-9]{1,3})?[eE][+-]?[0-9]{1,3}",
        1 => r"-?0(\.0{1,4})?([eE][+-]?0?[0-9])?",
        1 => "-?[1-9]e(16383|20000|131000)|[1-9]\\.[0-9]e-16[01][0-9][0-9]",
    ]
}

/// A JSON text that PostgreSQL takes: keys out of order and twice, spaces, every kind of number.
fn text() -> impl Strategy<Value = String> {
    let single = prop_oneof![4 => number(), 4 => string(), 1 => "null|true|false"];
    single.prop_recursive(4, 40, 8, |inner| {
        let item = (space(), inner.clone(), space())
            .prop_map(|(before, item, after)| before + &item + &after)
            .boxed();
        let member = (space(), prop_oneof![string(), "\"[a-c]{0,2}\""], space(), item.clone());
        let member =
            member.prop_map(|(before, key, after, value)| format!("{before}{key}{after}:{value}"));
        prop_oneof![
            (space(), proptest::collection::vec(item, 0..6)).prop_map(|(space, items)| match items
                .len()
            {
                0 => format!("[{space}]"),
                _ => format!("[{}]", items.join(",")),
            }),
            (space(), proptest::collection::vec(member, 0..8)).prop_map(|(space, members)| {
                match members.len() {
                    0 => format!("{{{space}}}"),
                    _ => format!("{{{}}}", members.join(",")),
                }
            }),
        ]
    })
}

/// The server is the oracle: of each text, what is read back of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_payload_is_known_as_the_server_will_print_it() {
    const PRINTED: &str = "SELECT t::jsonb::text FROM unnest($1::text[]) WITH ORDINALITY AS u (t, place) ORDER BY place";
    let server = open(cluster(), "postgres").await;
    let mut runner = TestRunner::default();
    let mut payloads = Payloads::default();
    for _ in 0..ROUNDS {
        let texts: Vec<String> =
            (0..TEXTS).map(|_| text().new_tree(&mut runner).unwrap().current()).collect();
        let printed = server.client.query(PRINTED, &[&texts]).await.unwrap();
        for (text, row) in texts.iter().zip(&printed) {
            let mut out = String::new();
            payloads.push(text, &mut out);
            let expected: &str = row.get(0);
            assert_eq!(out, expected, "of {text}");
        }
    }
}

/// The leaf of each row by the audit database's function, and its time as it is stored.
async fn leaves(audit: &Session, salt: &[u8; 16]) -> Vec<(Uuid, Timestamp, Vec<u8>)> {
    const QUERY: &str = "SELECT event_uuid, timestamptz_send(timestamp), portal_audit.leaf($1, e) FROM public.events e ORDER BY event_uuid";
    let rows = audit.client.query(QUERY, &[&salt.as_slice()]).await.unwrap();
    let time = |bytes: &[u8]| Timestamp(i64::from_be_bytes(bytes.try_into().unwrap()));
    rows.iter().map(|row| (row.get(0), time(row.get(1)), row.get(2))).collect()
}

const INSERT: &str = "INSERT INTO public.events VALUES ($1, $2::text::timestamptz, $3, $4, $5, $6, $7, $8, $9, $10::text::jsonb)";

#[tokio::test(flavor = "multi_thread")]
async fn the_leaf_is_the_one_that_the_database_computes() {
    let audit = audit_database(cluster(), "seals_leaf").await;
    let long = "ü\\ \"x\" ".repeat(2_500);
    let longer = format!("{{\"b\":{},\"a\":\"{}\"}}", "[1.50e1,{}]", "€".repeat(7_000));
    let hostile = [
        (
            "2026-04-23 20:50:23.123456+00",
            ["user_created", "wren", "wren", "user"],
            None,
            true,
            None,
            "{}",
        ),
        (
            "294276-12-31 23:59:59.999999+00",
            ["", "", "", ""],
            Some(""),
            false,
            Some(""),
            r#"{"_audit":{"n":1},"a":null}"#,
        ),
        (
            "4713-01-01 00:00:00+00 BC",
            ["\u{1}", "\n", "😀", "\u{7f}"],
            Some("ä"),
            true,
            Some(&*long),
            "[]",
        ),
        ("infinity", [&*long, "a", "b", "c"], None, false, None, &*longer),
        (
            "-infinity",
            ["a", "", "ab", "c"],
            Some("-1"),
            false,
            None,
            r#"{"\u0062":1,"b":2,"a":-0.0}"#,
        ),
    ];
    let salt = *b"0123456789abcdef";
    for (number, (time, texts, target, success, error, payload)) in (1_u128..).zip(&hostile) {
        let id = Uuid::from_u128(number);
        let [event_type, caller, subject, subject_type] = texts;
        let parameters: [&(dyn ToSql + Sync); 10] =
            [&id, time, event_type, caller, subject, subject_type, target, success, error, payload];
        audit.client.execute(INSERT, &parameters).await.unwrap();
    }
    let stored = leaves(&audit, &salt).await;
    assert_eq!(stored.len(), hostile.len());
    for ((event_uuid, timestamp, expected), (_, texts, target, success, error_message, given)) in
        stored.into_iter().zip(hostile)
    {
        let mut payload = String::new();
        Payloads::default().push(given, &mut payload);
        let [event_type, caller, subject, subject_type] = texts;
        let event = Event {
            event_uuid,
            timestamp,
            event_type,
            caller,
            subject,
            subject_type,
            target,
            success,
            error_message,
            payload: &payload,
        };
        assert_eq!(leaf(&salt, &event).as_slice(), expected, "{event_uuid}");
    }
}

fn users(from: u32, to: u32) -> String {
    format!(
        "INSERT INTO portal.users (username, uid, gid) SELECT 'user' || n, n, n FROM generate_series({from}, {to}) AS n;"
    )
}

/// A statement, a COPY, names beside it, pieces of one large transaction, and rows from before.
#[tokio::test(flavor = "multi_thread")]
async fn each_way_of_writing_seals() {
    let limits = "batch_events = 500\n";
    let wishes = Wishes { name: "seals_ways", backfill: true, limits, ..Wishes::default() };
    let portal = portal(cluster(), wishes).await;
    run(&portal.source, &users(1, 20)).await;
    let sidecar = portal.start().await;
    portal.catch_up().await;
    assert_sealed(&portal.audit).await;
    for script in [users(21, 21), users(22, 60), users(61, 400), users(401, 3_000)] {
        portal.act(&script).await;
        assert_sealed(&portal.audit).await;
    }
    portal.act("UPDATE portal.users SET username = username || '\t\"ü', state = 'Active' WHERE uid < 90").await;
    portal.act("TRUNCATE portal.users CASCADE").await;
    sidecar.stop().await;
    assert_sealed(&portal.audit).await;
    let pieces = "SELECT count(*) > 6 FROM portal_audit.seals";
    assert!(value::<bool>(&portal.audit, pieces).await);
    assert!(portal.count().await > 3_000);
}

/// The slot is made anew and gives rows that are there, beside new ones: those are passed over, and have their leaf.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_read_again_gets_no_second_leaf() {
    let wishes = Wishes { name: "seals_again", backfill: true, ..Wishes::default() };
    let portal = portal(cluster(), wishes).await;
    run(&portal.source, &users(1, 2_500)).await;
    let sidecar = portal.start().await;
    portal.catch_up().await;
    sidecar.stop().await;
    assert_eq!(portal.count().await, 2_500);
    for (from, to) in [(2_501, 2_510), (2_511, 4_000)] {
        run(&portal.source, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()").await;
        run(&portal.source, &users(from, to)).await;
        run(&portal.audit, "DELETE FROM portal_audit.progress").await;
        let sidecar = portal.start().await;
        portal.catch_up().await;
        sidecar.stop().await;
        assert_eq!(portal.count().await, i64::from(to));
        assert_sealed(&portal.audit).await;
    }
}

/// A trigger of somebody else leaves events out without a word: they are in no tree either.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_trigger_leaves_out_has_no_leaf() {
    const LEAVE_OUT: &str = "CREATE FUNCTION public.theirs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.subject LIKE '%7' THEN RETURN NULL; END IF; RETURN NEW; END $$; CREATE TRIGGER theirs BEFORE INSERT ON public.events FOR EACH ROW EXECUTE FUNCTION public.theirs()";
    let portal = sample("seals_left_out").await;
    let sidecar = portal.start().await;
    // It comes while the sidecar runs: COPY tells that rows are missing.
    portal.act(&users(1, 1)).await;
    run(&portal.audit, LEAVE_OUT).await;
    for (from, to) in [(100, 400), (500, 502), (607, 607), (700, 1_900)] {
        portal.act(&users(from, to)).await;
        assert_sealed(&portal.audit).await;
    }
    sidecar.stop().await;
    // And from its start one knows.
    let sidecar = portal.start().await;
    for (from, to) in [(2_007, 2_007), (2_008, 2_018)] {
        portal.act(&users(from, to)).await;
        assert_sealed(&portal.audit).await;
    }
    sidecar.stop().await;
    let left_out = "SELECT count(*) FROM public.events WHERE subject LIKE '%7'";
    assert_eq!(value::<i64>(&portal.audit, left_out).await, 0);
    assert!(portal.count().await > 1_300);
}

/// A tree that somebody else has added to is not added to: nothing of that is written. The next start takes it as it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_somebody_else_moved_is_left_alone() {
    const MOVE: &str = "SELECT portal_audit.seal('seals_moved', 1, uuid_send(event_uuid), '0123456789abcdef'::bytea, portal_audit.leaf('0123456789abcdef'::bytea, e)) FROM public.events e WHERE subject = 'mine'";
    let portal = sample("seals_moved").await;
    let sidecar = Sidecar::start(portal.settings.clone());
    portal.streaming().await;
    portal.act(&users(1, 1)).await;
    run(&portal.audit, "INSERT INTO public.events SELECT gen_random_uuid(), now(), 'mine', '', 'mine', 'mine', NULL, true, NULL").await;
    run(&portal.audit, MOVE).await;
    run(&portal.source, &users(2, 2)).await;
    let told = "SELECT count(*) = 3 FROM public.events";
    wait_for("the next try", async || value::<bool>(&portal.audit, told).await).await;
    sidecar.stop().await;
    assert_sealed(&portal.audit).await;
}
