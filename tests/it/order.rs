//! A second oracle: another slot on the same log, read by PostgreSQL's own `test_decoding`. It says in which order transactions were committed, when, and how much each changed.

use crate::support::{
    Sidecar, Wishes, cluster, invariants::Watch, life::DEADLOCK, open, order::Second, portal, run,
    sample, value, wait_for,
};
use portal_audit::{config::Settings, connect};
use std::path::Path;
use tokio::task::JoinSet;

const WRITERS: i64 = 100;
const ACTS: i64 = 4;

/// Many writers at once: what is written stands in the order of their commits, which is that of neither their ids nor their clocks.
#[tokio::test(flavor = "multi_thread")]
async fn many_writers_are_told_in_the_order_of_their_commits() {
    let portal = sample("commit_order").await;
    let second = Second::begin(&portal).await;
    let sidecar = portal.start().await;
    let watch = Watch::all(&portal);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let session = open(cluster(), &portal.name).await;
        writers.spawn(async move {
            // The whole session, not its client alone.
            let session = session;
            for act in 0..ACTS {
                let seed = writer * ACTS + act;
                let act = session.client.execute("SELECT activity.act($1)", &[&seed]).await;
                // Two may be in each other's way; then one of them has done nothing.
                let refused = act.as_ref().err().and_then(connect::sqlstate_of);
                assert!(act.is_ok() || refused == Some(DEADLOCK), "{act:?}");
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    portal.catch_up().await;
    sidecar.stop().await;
    assert!(watch.stop().await > 0);
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (0, 0), "{:#?}", proof.differences);
    let transactions = second.compare().await;
    assert!(transactions > 100, "{transactions} transactions");
}

/// Transactions that change nothing give nothing, and progress passes them.
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_nothing_is_no_event() {
    let portal = sample("order_nothing").await;
    let second = Second::begin(&portal).await;
    let sidecar = portal.start().await;
    portal.act("INSERT INTO portal.users (username, uid, gid) VALUES ('wren', 1, 1)").await;
    for nothing in [
        "BEGIN; COMMIT",
        "BEGIN; SELECT txid_current(); COMMIT",
        "BEGIN; SELECT count(*) FROM portal.users; COMMIT",
        "CREATE TABLE portal.more (n INT); CREATE INDEX ON portal.more (n); COMMENT ON TABLE portal.more IS 'x'; DROP TABLE portal.more",
        "BEGIN; UPDATE portal.users SET name = 'x'; ROLLBACK",
        "BEGIN; SAVEPOINT s; DELETE FROM portal.users; ROLLBACK TO s; COMMIT",
        "DO $$ BEGIN BEGIN DELETE FROM portal.users; RAISE 'no'; EXCEPTION WHEN others THEN NULL; END; END $$",
        "UPDATE portal.users SET name = name",
        "DELETE FROM portal.users WHERE username = 'nobody'",
        "VACUUM portal.users",
    ] {
        for statement in
            if nothing.starts_with("DO") { vec![nothing] } else { nothing.split("; ").collect() }
        {
            run(&portal.source, statement).await;
        }
        portal.catch_up().await;
    }
    sidecar.stop().await;
    let proof = portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (1, 0, 0), "{:#?}", proof.differences);
    assert_eq!(second.compare().await, 1);
}

/// A mapping that was changed is given the same log again: what its old blocks said is the same row, and only the new block's events are new.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_log_by_a_changed_mapping_doubles_nothing() {
    const MORE: &str = "\n[[event]]\ntype = \"user_named\"\ntable = \"portal.users\"\non = \"update\"\nsubject = \"username\"\nsubject_type = \"user\"\npayload = { name = \"name\" }\ndescribe = \"user {subject} was named\"\nvisible_to = [\"admin\"]\nretention = \"user\"\n";
    let portal = sample("order_mapping").await;
    let folder = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/mapping/merge-reference.toml");
    let changed = std::fs::read_to_string(shipped).unwrap() + MORE;
    std::fs::write(folder.path().join("changed.toml"), changed).unwrap();
    let text = portal.settings_text.replace("\"merge-reference\"", "\"changed.toml\"");
    let mut again = Settings::parse(&folder.path().join("test.toml"), &text).unwrap();
    // A slot of its own from the same point, so that it is given what the first one was.
    again.sources[0].name = "again".to_owned();
    again.sources[0].slot = "order_mapping_again".to_owned();

    let first = portal.start().await;
    let second = Sidecar::start(again.clone());
    let both = "SELECT count(*) = 2 FROM portal_audit.progress WHERE state = 'streaming'";
    wait_for("both", async || value::<bool>(&portal.audit, both).await).await;
    second.stop().await;
    for seed in 0..200 {
        run(&portal.source, &format!("SELECT activity.act({seed})")).await;
    }
    run(&portal.source, "INSERT INTO portal.users (username, uid, gid, name) VALUES ('wren', 1, 1, 'a'); UPDATE portal.users SET name = 'b' WHERE username = 'wren'").await;
    let end: String = value(&portal.source, "SELECT pg_current_wal_insert_lsn()::text").await;
    let passed = |source: &str| {
        format!("SELECT end_lsn >= '{end}' FROM portal_audit.progress WHERE source = '{source}'")
    };
    let (passed, again_passed) = (passed(&portal.name), passed("again"));
    wait_for("the first", async || value::<bool>(&portal.audit, &passed).await).await;
    first.stop().await;
    let before = portal.count().await;
    let second = Sidecar::start(again);
    wait_for("the second", async || value::<bool>(&portal.audit, &again_passed).await).await;
    second.stop().await;
    let new = "SELECT count(*) FROM public.events WHERE event_type = 'user_named'";
    let new: i64 = value(&portal.audit, new).await;
    assert!(new > 0);
    assert_eq!(portal.count().await, before + new);
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (0, 0), "{:#?}", proof.differences);
}

/// Two databases of one server, each with its slot: each one's order is kept.
#[tokio::test(flavor = "multi_thread")]
async fn each_source_has_its_order() {
    let one = sample("order_one").await;
    let other = portal(cluster(), Wishes { name: "order_other", ..Wishes::default() }).await;
    let seconds = [Second::begin(&one).await, Second::begin(&other).await];
    let sidecars = [one.start().await, other.start().await];
    for seed in 0..150 {
        let act = format!("SELECT activity.act({seed})");
        tokio::join!(run(&one.source, &act), run(&other.source, &act));
    }
    for portal in [&one, &other] {
        portal.catch_up().await;
    }
    for sidecar in sidecars {
        sidecar.stop().await;
    }
    for second in seconds {
        let transactions = second.compare().await;
        assert!(transactions > 30, "{transactions} transactions");
    }
}
