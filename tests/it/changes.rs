//! The fixtures are the suite: an action's SQL in `tests/changes/<source>/NAME.sql`, the events it gives beside it in `NAME.events`.
//!
//! What stands before the line `-- when` is there before the audit begins. `./x bless` rewrites the `.events`; the difference is reviewed. Each is compared with the portal's own journal too, unless a line `-- unproven:` says why that cannot be.
//! The identity server's requests are transactions of their own: there each line is one. So are attempts, and each of theirs fails or says itself how it ends.

use crate::support::{Portal, installation, kratos, run, sample, value, wait_for};
use expect_test::expect_file;
use std::{
    future::Future,
    path::{Path, PathBuf},
};
use tokio::task::JoinSet;

/// Fixtures that run at the same time.
const AT_ONCE: usize = 4;

fn fixtures(source: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/changes").join(source);
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|end| end == "sql")).collect();
    files.sort();
    files
}

/// How large transactions come: before they commit, with what will be rolled back.
async fn check_streamed(path: PathBuf) {
    check_as(path, "st").await;
}

async fn check(path: PathBuf) {
    check_as(path, "fx").await;
}

async fn check_as(path: PathBuf, how: &str) {
    let script = std::fs::read_to_string(&path).unwrap();
    let (given, when) = script.split_once("\n-- when").expect("a fixture has a line `-- when`");
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let portal: Portal = sample(&format!("{how}_{stem}")).await;
    if how == "st" {
        let all = "SET debug_logical_replication_streaming = immediate";
        run(&portal.source, &format!("ALTER DATABASE {} {all}", portal.name)).await;
    }
    run(&portal.source, given).await;
    run(&portal.source, "TRUNCATE journal.change").await;
    let sidecar = portal.start().await;
    portal.act(when).await;
    sidecar.stop().await;
    expect_file![path.with_extension("events")].assert_eq(&portal.events().await);
    // The journal's own opinion, but where it cannot have one.
    if script.contains("\n-- unproven: ") {
        return;
    }
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (0, 0), "{stem}: {:#?}", proof.differences);
}

async fn check_kratos(path: PathBuf) {
    let script = std::fs::read_to_string(&path).unwrap();
    let (given, when) = script.split_once("-- when\n").expect("a fixture has a line `-- when`");
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let portal = kratos::identity_server(&format!("kratos_{stem}")).await;
    kratos::steps(&portal, given).await;
    let sidecar = portal.start().await;
    kratos::steps(&portal, when).await;
    kratos::decided(&portal).await;
    sidecar.stop().await;
    expect_file![path.with_extension("events")].assert_eq(&portal.events().await);
}

async fn check_attempts(path: PathBuf) {
    let script = std::fs::read_to_string(&path).unwrap();
    let (given, when) = script.split_once("-- when\n").expect("a fixture has a line `-- when`");
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let portal = sample(&format!("attempts_{stem}")).await;
    run(&portal.source, given).await;
    run(&portal.source, portal_audit::sql::attempt()).await;
    let attach = "DO $$ DECLARE t regclass; BEGIN FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'portal'::regnamespace AND relkind = 'r' LOOP CALL portal_audit.attach_attempt(t); END LOOP; END $$";
    run(&portal.source, attach).await;
    let sidecar = portal.start().await;
    for step in when.lines() {
        let done = portal.source.client.batch_execute(step).await;
        let says_how = step.ends_with("ROLLBACK;") || step.ends_with("COMMIT;");
        assert_eq!(done.is_ok(), says_how, "{stem}: {step}");
        run(&portal.source, "ROLLBACK; RESET portal.caller").await;
    }
    // What a rollback leaves in the log is flushed with the next commit at the latest.
    portal.act("CREATE TABLE flushed ()").await;
    let decided = "SELECT count(*) = 0 FROM portal_audit.attempts";
    wait_for("all is decided", async || value::<bool>(&portal.audit, decided).await).await;
    sidecar.stop().await;
    expect_file![path.with_extension("events")].assert_eq(&portal.events().await);
}

async fn all<F: Future<Output = ()> + Send + 'static>(source: &str, check: fn(PathBuf) -> F) {
    let mut running = JoinSet::new();
    let mut failed = 0;
    for fixture in fixtures(source) {
        if running.len() == AT_ONCE {
            failed += u32::from(running.join_next().await.unwrap().is_err());
        }
        running.spawn(check(fixture));
    }
    while let Some(checked) = running.join_next().await {
        failed += u32::from(checked.is_err());
    }
    assert_eq!(failed, 0, "fixtures failed; each is told above");
}

#[tokio::test(flavor = "multi_thread")]
async fn portal() {
    all("portal", check).await;
}

/// 16 and later can be told to stream all; the events are the same.
#[tokio::test(flavor = "multi_thread")]
async fn streamed() {
    if installation().major < 16 {
        println!("not run: PostgreSQL 16 and later");
        return;
    }
    all("portal", check_streamed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kratos() {
    all("kratos", check_kratos).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts() {
    all("attempts", check_attempts).await;
}
