//! What whoever owns the audit database may try, each on a copy of one log, and where `verify` says so. See also the fault table, row K4.

use crate::support::{cluster, open, run, value};
use indicatif::ProgressBar;
use portal_audit::{
    config,
    connect::{self, Session},
    note::{PublicKey, SigningKey},
    proof::{
        checkpoint, export, file,
        finding::{Finding, Kind, Report},
        live::{self, Since, Wishes},
    },
    sql,
};
use tokio::sync::OnceCell;

/// Rows that are older than the proof.
const OLD: &str = "CREATE TABLE public.events (event_uuid UUID PRIMARY KEY, timestamp TIMESTAMPTZ NOT NULL, event_type TEXT NOT NULL, caller TEXT NOT NULL, subject TEXT NOT NULL, subject_type TEXT NOT NULL, target TEXT, success BOOLEAN NOT NULL, error_message TEXT, payload JSONB NOT NULL DEFAULT '{}'::jsonb);
INSERT INTO public.events SELECT gen_random_uuid(), now() + n * interval '1 second', 'project_created', 'c', 'old' || n, 'project', NULL, true, NULL FROM generate_series(0, 2) n";

/// Writes as the sidecar does; and what somebody would write who knows how leaves are made.
const HELPERS: &str = r#"
CREATE FUNCTION public.write(first bigint, last bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE s record;
BEGIN
  INSERT INTO public.events SELECT gen_random_uuid(), '2026-04-23 20:50:23.5+00', 'project_created', 'ä\', 'p' || n, 'project', 'target', true, 'error', '{"kind": 1.50, "b": "\u0001 \" ü", "a": {}}' || jsonb_build_object('n', n) FROM generate_series(first, last) n;
  SELECT string_agg(uuid_send(event_uuid), '' ORDER BY n) AS u, string_agg(salt, '' ORDER BY n) AS s, string_agg(portal_audit.leaf(salt, e), '' ORDER BY n) AS l INTO s
    FROM (SELECT e, event_uuid, substr(subject, 2)::int AS n, uuid_send(gen_random_uuid()) AS salt FROM public.events e WHERE subject = ANY(SELECT 'p' || n FROM generate_series(first, last) n)) AS x;
  PERFORM portal_audit.seal('portal', first, s.u, s.s, s.l);
END $$;
CREATE FUNCTION public.reseal() RETURNS void LANGUAGE sql AS $$
  UPDATE portal_audit.seals s SET leaves = (
    SELECT string_agg(portal_audit.leaf(substr(s.salts, 16 * i + 1, 16), e), '' ORDER BY i)
      FROM generate_series(0, s.events - 1) i JOIN public.events e ON e.event_uuid = encode(substr(s.uuids, 16 * i + 1, 16), 'hex')::uuid) WHERE tree = 'portal'
$$;
CREATE FUNCTION public.cut() RETURNS void LANGUAGE sql AS $$
  DELETE FROM public.events WHERE subject IN ('p8', 'p9', 'p10', 'p11', 'p12', 'p13');
  DELETE FROM portal_audit.seals WHERE tree = 'portal' AND first >= 8;
  UPDATE portal_audit.trees SET size = 8 WHERE tree = 'portal';
$$;
-- As retention does: digest, event, list, deletion. p5 is place 1 of the seal that begins at 4.
CREATE FUNCTION public.retain() RETURNS void LANGUAGE sql AS $$
  INSERT INTO portal_audit.removed (event_uuid, tree, first, places)
  SELECT portal_audit.record('retention_applied', '', 'events', 'audit', NULL, true, NULL, jsonb_build_object('digest', encode(sha256(E'portal 4 1 \n'), 'hex'))), 'portal', 4, '{1}';
  DELETE FROM public.events WHERE subject = 'p5';
$$;
-- As erasure does: row, salt, digest, event, list. p9 is place 1 of the seal that begins at 8.
CREATE FUNCTION public.erase() RETURNS void LANGUAGE sql AS $$
  UPDATE public.events SET caller = 'erased' WHERE subject = 'p9';
  UPDATE portal_audit.seals SET salts = overlay(salts PLACING '\x00000000000000000000000000000000' FROM 17) WHERE tree = 'portal' AND first = 8;
  INSERT INTO portal_audit.removed (event_uuid, tree, first, places, leaves)
  SELECT portal_audit.record('user_erased', '', 'u', 'user', NULL, true, NULL, jsonb_build_object('digest', encode(sha256(convert_to('portal 8 1 ' || encode(leaf, 'hex') || E'\n', 'UTF8')), 'hex'))), 'portal', 8, '{1}', leaf
    FROM (SELECT portal_audit.leaf('\x00000000000000000000000000000000', e) AS leaf FROM public.events e WHERE subject = 'p9') AS l;
$$;
"#;

/// The log under attack: databases to copy, the key, and what was copied from it.
pub struct Log {
    pub key: SigningKey,
    pub other_key: SigningKey,
    pub copies: Vec<(String, String)>,
}

const YESTERDAY: &str = "attacked_yesterday";
const TODAY: &str = "attacked_today";

async fn checkpoint(session: &mut Session, key: &SigningKey) -> String {
    match checkpoint::make(session, key, None).await.unwrap() {
        checkpoint::Outcome::Made(made) => made.note,
        other => panic!("{other:?}"),
    }
}

async fn copy(from: &str, to: &str) {
    let postgres = open(cluster(), "postgres").await;
    // A template must have no session, and the server ends one a moment after its client.
    let alone = format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = '{from}'");
    crate::support::wait_for("alone", async || value::<bool>(&postgres, &alone).await).await;
    run(&postgres, &format!("CREATE DATABASE {to} TEMPLATE {from}")).await;
}

/// Leaves 0 to 7 and a checkpoint; leaves 8 to 11 and another; 12 and 13 behind it.
pub async fn log() -> &'static Log {
    static LOG: OnceCell<Log> = OnceCell::const_new();
    let make = async || {
        let (key, other_key) =
            (SigningKey::generate("log").unwrap().0, SigningKey::generate("log").unwrap().0);
        run(&open(cluster(), "postgres").await, &format!("CREATE DATABASE {YESTERDAY}")).await;
        let mut session = open(cluster(), YESTERDAY).await;
        for script in [OLD, sql::audit(), HELPERS, "SELECT write(0, 3), write(4, 7)"] {
            run(&session, script).await;
        }
        run(&session, "SELECT portal_audit.record('log_read', 'u', 'events', 'audit', NULL, true, NULL, '{}')").await;
        let first = checkpoint(&mut session, &key).await;
        drop(session);
        copy(YESTERDAY, TODAY).await;
        let mut session = open(cluster(), TODAY).await;
        run(&session, "SELECT write(8, 11)").await;
        let second = checkpoint(&mut session, &key).await;
        run(&session, "SELECT write(12, 13)").await;
        let copies = vec![("copy 1".to_owned(), first), ("copy 2".to_owned(), second)];
        Log { key, other_key, copies }
    };
    LOG.get_or_init(make).await
}

pub async fn attacked(name: &str, from: &str, attack: &str) -> Session {
    let name = format!("attacked_{name}");
    copy(from, &name).await;
    let session = open(cluster(), &name).await;
    run(&session, attack).await;
    session
}

/// Of the database; and the same of an export, unless only a part is looked at.
async fn verify(session: &mut Session, wishes: &Wishes) -> Report {
    let hidden = ProgressBar::hidden();
    let report = live::verify(session, wishes, &hidden).await.unwrap();
    if wishes.since.is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proof.jsonl");
        export::export(session, &path, &hidden).await.unwrap();
        let offline = file::verify(&path, wishes, &hidden).unwrap();
        let twice = |finding: &Finding| finding.what.contains("more than one row");
        let found: Vec<_> = report.findings.iter().filter(|finding| !twice(finding)).collect();
        let found_offline: Vec<_> = offline.findings.iter().collect();
        assert_eq!(found_offline, found);
    }
    report
}

async fn wishes() -> Wishes {
    let log = log().await;
    Wishes { keys: vec![log.key.public().clone()], copies: log.copies.clone(), since: None }
}

fn places(report: &Report) -> Vec<(Kind, &str, u64)> {
    let place = |finding: &Finding| finding.seq.unwrap_or(u64::MAX);
    let tree = |finding: &'_ Finding| finding.tree.is_some();
    let mut places = Vec::new();
    for finding in &report.findings {
        let name = finding.tree.as_deref().filter(|_| tree(finding)).unwrap_or("");
        places.push((finding.kind, name, place(finding)));
    }
    places
}

const NOWHERE: u64 = u64::MAX;

/// Name, what a superuser does, and what is found first, in order.
type Attack = (&'static str, &'static str, &'static [(Kind, &'static str, u64)]);

const ATTACKS: &[Attack] = &[
    (
        "event_uuid",
        "UPDATE events SET event_uuid = gen_random_uuid() WHERE subject = 'p5'",
        &[(Kind::Missing, "portal", 5), (Kind::Inserted, "", NOWHERE)],
    ),
    (
        "timestamp",
        "UPDATE events SET timestamp = timestamp + interval '1 microsecond' WHERE subject = 'p5'",
        &[(Kind::Edited, "portal", 5)],
    ),
    (
        "event_type",
        "UPDATE events SET event_type = 'project_createe' WHERE subject = 'p5'",
        &[(Kind::Edited, "portal", 5)],
    ),
    (
        "caller",
        "UPDATE events SET caller = 'ä]' WHERE subject = 'p5'",
        &[(Kind::Edited, "portal", 5)],
    ),
    (
        "subject",
        "UPDATE events SET subject = 'q5' WHERE subject = 'p5'",
        &[(Kind::Edited, "portal", 5)],
    ),
    (
        "subject_type",
        "UPDATE events SET subject_type = 'Project' WHERE subject = 'p5'",
        &[(Kind::Edited, "portal", 5)],
    ),
    (
        "target",
        "UPDATE events SET target = 'targeu' WHERE subject = 'p5'",
        &[(Kind::Edited, "portal", 5)],
    ),
    (
        "success",
        "UPDATE events SET success = NOT success WHERE subject = 'p5'",
        &[(Kind::Edited, "portal", 5)],
    ),
    (
        "error_message",
        "UPDATE events SET error_message = NULL WHERE subject = 'p5'",
        &[(Kind::Edited, "portal", 5)],
    ),
    (
        "payload",
        "UPDATE events SET payload = jsonb_set(payload, '{kind}', '1.5') WHERE subject = 'p5'",
        &[(Kind::Edited, "portal", 5)],
    ),
    (
        "null_for_empty",
        "UPDATE events SET target = '' WHERE subject = 'old1'",
        &[(Kind::Edited, ".adopted", 1)],
    ),
    (
        "between_columns",
        "UPDATE events SET subject = 'p5project', subject_type = '' WHERE subject = 'p5'",
        &[(Kind::Edited, "portal", 5)],
    ),
    (
        "own",
        "UPDATE events SET caller = 'v' WHERE event_type = 'log_read'",
        &[(Kind::Edited, ".own", 0)],
    ),
    ("delete", "DELETE FROM events WHERE subject = 'p5'", &[(Kind::Missing, "portal", 5)]),
    ("delete_all", "TRUNCATE events", &[(Kind::Missing, ".adopted", 0)]),
    (
        "insert",
        "INSERT INTO events SELECT gen_random_uuid(), timestamp, event_type, caller, 'x', subject_type, target, success FROM events WHERE subject = 'p5'",
        &[(Kind::Inserted, "", NOWHERE)],
    ),
    (
        "duplicate",
        "INSERT INTO events SELECT gen_random_uuid(), timestamp, event_type, caller, subject, subject_type, target, success, error_message, payload FROM events WHERE subject = 'p5'",
        &[(Kind::Inserted, "", NOWHERE)],
    ),
    (
        "duplicate_row",
        "ALTER TABLE events DROP CONSTRAINT events_pkey; INSERT INTO events SELECT * FROM events WHERE subject = 'p5'",
        &[(Kind::Duplicated, "portal", 5)],
    ),
    (
        "duplicate_leaf",
        "SELECT portal_audit.seal('portal', 14, substr(uuids, 17, 16), substr(salts, 17, 16), substr(leaves, 33, 32)) FROM portal_audit.seals WHERE tree = 'portal' AND first = 4",
        &[(Kind::Duplicated, "portal", 5)],
    ),
    // One row more and one leaf more: the numbers agree.
    (
        "duplicate_and_insert",
        "SELECT portal_audit.seal('portal', 14, substr(uuids, 17, 16), substr(salts, 17, 16), substr(leaves, 33, 32)) FROM portal_audit.seals WHERE tree = 'portal' AND first = 4; INSERT INTO events SELECT gen_random_uuid(), timestamp, event_type, caller, 'x', subject_type, target, success FROM events WHERE subject = 'p5'",
        &[(Kind::Duplicated, "portal", 5), (Kind::Inserted, "", NOWHERE)],
    ),
    (
        "names_swapped",
        "UPDATE portal_audit.seals SET uuids = substr(uuids, 1, 16) || substr(uuids, 33, 16) || substr(uuids, 17, 16) || substr(uuids, 49) WHERE tree = 'portal' AND first = 4",
        &[(Kind::Reordered, "portal", 5), (Kind::Reordered, "portal", 6)],
    ),
    (
        "leaves_swapped",
        "UPDATE portal_audit.seals SET uuids = substr(uuids, 1, 16) || substr(uuids, 33, 16) || substr(uuids, 17, 16) || substr(uuids, 49), salts = substr(salts, 1, 16) || substr(salts, 33, 16) || substr(salts, 17, 16) || substr(salts, 49), leaves = substr(leaves, 1, 32) || substr(leaves, 65, 32) || substr(leaves, 33, 32) || substr(leaves, 97) WHERE tree = 'portal' AND first = 8",
        &[(Kind::Rewritten, "portal", 8)],
    ),
    (
        "payloads_swapped",
        "UPDATE events a SET payload = b.payload FROM events b WHERE (a.subject, b.subject) IN (('p5', 'p6'), ('p6', 'p5'))",
        &[(Kind::Edited, "portal", 5), (Kind::Edited, "portal", 6)],
    ),
    (
        "seals_gone",
        "DELETE FROM portal_audit.seals WHERE tree = 'portal' AND first = 4",
        &[(Kind::Missing, "portal", 4)],
    ),
    ("tail_cut", "SELECT cut()", &[(Kind::Truncated, "portal", 8)]),
    (
        "tail_and_checkpoint_cut",
        "SELECT cut(); DELETE FROM portal_audit.checkpoints WHERE number = 2",
        &[(Kind::RolledBack, "portal", 8)],
    ),
    (
        "all_cut",
        "TRUNCATE events, portal_audit.seals, portal_audit.trees, portal_audit.checkpoints",
        &[(Kind::RolledBack, ".adopted", 0)],
    ),
    (
        "size_taken_back",
        "UPDATE portal_audit.trees SET size = 8 WHERE tree = 'portal'",
        &[(Kind::Truncated, "portal", 8)],
    ),
    (
        "rewritten",
        "UPDATE events SET caller = 'x' WHERE subject = 'p5'; SELECT reseal()",
        &[(Kind::Rewritten, "portal", 0)],
    ),
    (
        "rewritten_later",
        "UPDATE events SET caller = 'x' WHERE subject = 'p10'; SELECT reseal()",
        &[(Kind::Rewritten, "portal", 8)],
    ),
    (
        "rewritten_without_checkpoints",
        "UPDATE events SET caller = 'x' WHERE subject = 'p5'; SELECT reseal(); DELETE FROM portal_audit.checkpoints",
        &[(Kind::Rewritten, "portal", 0)],
    ),
    (
        "checkpoint_edited",
        "UPDATE portal_audit.checkpoints SET note = replace(note, 'checkpoint 2', 'checkpoint 3') WHERE number = 2",
        &[(Kind::Forged, "", NOWHERE)],
    ),
    (
        "checkpoint_gone",
        "DELETE FROM portal_audit.checkpoints WHERE number = 1",
        &[(Kind::Forged, "", NOWHERE)],
    ),
    // The hash of the node over leaves 0 and 1 in the place of leaf 0, and so on: the same root, of a smaller tree.
    (
        "second_preimage",
        "UPDATE portal_audit.seals SET events = 2, uuids = substr(uuids, 1, 32), salts = substr(salts, 1, 32), leaves = sha256('\\x01' || substr(leaves, 1, 64)) || sha256('\\x01' || substr(leaves, 65, 64)) WHERE tree = 'portal' AND first = 0",
        &[(Kind::Edited, "portal", 0)],
    ),
    (
        "removed_by_nobody",
        "DELETE FROM events WHERE subject = 'p5'; INSERT INTO portal_audit.removed VALUES (gen_random_uuid(), 'portal', 4, '{1}')",
        &[(Kind::RemovedEdited, "portal", 5)],
    ),
    (
        "removed_extended",
        "SELECT retain(); DELETE FROM events WHERE subject = 'p6'; UPDATE portal_audit.removed SET places = '{1,2}'",
        &[(Kind::RemovedEdited, "portal", 5)],
    ),
    (
        "removed_by_an_edited_event",
        "SELECT retain(); DELETE FROM events WHERE subject = 'p6'; UPDATE portal_audit.removed SET places = '{1,2}'; UPDATE events SET payload = jsonb_set(payload, '{digest}', to_jsonb(encode(portal_audit.removed_digest((SELECT event_uuid FROM portal_audit.removed)), 'hex'))) WHERE event_type = 'retention_applied'",
        &[(Kind::Edited, ".own", 1), (Kind::RemovedEdited, "portal", 5)],
    ),
    (
        "list_gone",
        "SELECT retain(); TRUNCATE portal_audit.removed",
        &[(Kind::Missing, "portal", 5)],
    ),
    (
        "erased_then_edited",
        "SELECT erase(); UPDATE events SET caller = 'somebody' WHERE subject = 'p9'",
        &[(Kind::Edited, "portal", 9)],
    ),
];

#[tokio::test]
async fn each_attack_is_found_at_its_place() {
    log().await;
    for (name, attack, expected) in ATTACKS {
        let mut session = attacked(name, TODAY, attack).await;
        let report = verify(&mut session, &wishes().await).await;
        let found = places(&report);
        assert_eq!(found.get(..expected.len()), Some(*expected), "{name}: {:#?}", report.findings);
    }
}

#[tokio::test]
async fn an_untouched_log_holds() {
    log().await;
    let mut session = attacked("not", TODAY, "").await;
    let report = verify(&mut session, &wishes().await).await;
    assert_eq!(places(&report), []);
    assert_eq!((report.leaves(), report.rows), (18, 18));
    let reach = report.reach.unwrap();
    assert_eq!((reach.number, reach.events_behind), (2, 2));
}

#[tokio::test]
async fn what_retention_and_erasure_recorded_holds() {
    log().await;
    let mut session = attacked("lawfully", TODAY, "SELECT retain(); SELECT erase()").await;
    let report = verify(&mut session, &wishes().await).await;
    assert_eq!(places(&report), [], "{:?}", report.findings);
    assert_eq!((report.rows, report.rows_removed, report.rows_erased), (18, 1, 1));
}

#[tokio::test]
async fn a_backup_of_yesterday_is_known_by_a_copy() {
    log().await;
    let mut session = attacked("back", YESTERDAY, "").await;
    let report = verify(&mut session, &wishes().await).await;
    assert_eq!(places(&report), [(Kind::RolledBack, "portal", 8)]);
    // Without a copy nobody can know.
    let alone = Wishes { copies: Vec::new(), ..wishes().await };
    assert!(verify(&mut session, &alone).await.is_sound());
}

#[tokio::test]
async fn a_history_signed_by_another_key_is_forged() {
    let log = log().await;
    let attack = "UPDATE events SET caller = 'x' WHERE subject = 'p5'; SELECT reseal(); DELETE FROM portal_audit.checkpoints";
    let mut session = attacked("signed_anew", TODAY, attack).await;
    checkpoint(&mut session, &log.other_key).await;
    let with = |key: &PublicKey| Wishes { keys: vec![key.clone()], ..Wishes::default() };
    let report = verify(&mut session, &with(log.key.public())).await;
    assert_eq!(places(&report)[0], (Kind::Forged, "", NOWHERE));
    // Its own key would be content, which is why the right one is kept elsewhere.
    assert!(verify(&mut session, &with(log.other_key.public())).await.is_sound());
}

#[tokio::test]
async fn a_log_that_shrank_is_not_signed() {
    let log = log().await;
    let mut session = attacked("shrunk", TODAY, "SELECT cut()").await;
    let refused = checkpoint::make(&mut session, &log.key, None).await.unwrap_err().to_string();
    assert!(refused.contains("tree \"portal\" has 8 leaves and had 12"), "{refused}");
    let conninfo = config::conninfo(&cluster().dsn("attacked_shrunk", "postgres")).unwrap();
    let mut other = connect::connect(&conninfo, "test").await.unwrap();
    assert!(checkpoint::make(&mut other, &log.key, None).await.is_err(), "the lock was given back");
}

#[tokio::test]
async fn since_a_checkpoint_only_what_came_later_is_looked_at() {
    let log = log().await;
    let attack = "UPDATE events SET caller = 'x' WHERE subject IN ('p5', 'p10')";
    let mut session = attacked("since", TODAY, attack).await;
    for (since, expected) in [
        (Since::Number(1), &[(Kind::Edited, "portal", 10)][..]),
        (Since::Number(2), &[]),
        (Since::Note(log.copies[0].1.clone()), &[(Kind::Edited, "portal", 10)]),
    ] {
        let wishes = Wishes { since: Some(since), ..wishes().await };
        assert_eq!(places(&verify(&mut session, &wishes).await), expected);
    }
}
