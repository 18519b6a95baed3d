//! Servers that cannot be reached, that are set badly, or that are not the right one; and the settings themselves.

use super::{Ready, expected, faults_of, paste, told};
use crate::support::{
    Wishes, cluster as shared, installation, open, run, standby,
    standby::{Pair, major},
    value,
};
use portal_audit::{
    check::{Finding, Status},
    demo::cluster::{Cluster, Shutdown},
    note::SigningKey,
    proof::checkpoint,
};
use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

#[tokio::test(flavor = "multi_thread")]
async fn databases_that_cannot_be_reached() {
    let ready = Ready::new("check_unreachable").await;
    for (old, new, says) in [
        ("dbname='check_unreachable'", "dbname='nowhere'", "3D000"),
        ("user='check_unreachable_reader'", "user='check_nobody'", "28000"),
        (
            "port=5432 user='check_unreachable_reader'",
            "port=5433 user='check_unreachable_reader'",
            "5433",
        ),
    ] {
        let faults = ready.faults_with(old, new).await;
        assert_eq!(told(&faults), ["reachable critical"], "{faults:#?}");
        assert!(faults[0].finding.contains(says), "{says}: {faults:#?}");
        assert_eq!(faults[0].source.as_deref(), Some("check_unreachable"));
    }
    let faults = ready.faults_with("dbname='check_unreachable_audit'", "dbname='nowhere'").await;
    assert_eq!(told(&faults), ["audit_reachable critical"], "{faults:#?}");
    assert_eq!(faults[0].source, None);
    // Both, and no further check of either.
    let text = ready.text.replace("dbname='check_unreachable", "dbname='nowhere");
    let faults = faults_of(&ready.file(&text)).await;
    assert_eq!(told(&faults), ["audit_reachable critical", "reachable critical"], "{faults:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_read() {
    let ready = Ready::new("check_settings").await;
    for (text, says) in [
        ("[audit]\n", "dsn"),
        ("[audit]\ndsn = \"host=/tmp\"\nmore = 1\n[[source]]\n", "more"),
        (
            "[audit]\ndsn = \"host=/tmp user=u\"\n[[source]]\nname = \"p\"\ndsn = \"host=/tmp user=u\"\nmapping = \"nowhere\"\n",
            "there is no built-in mapping",
        ),
    ] {
        let faults = faults_of(&ready.file(text)).await;
        assert_eq!(told(&faults), ["settings critical"], "{faults:#?}");
        assert!(faults[0].finding.contains(says), "{faults:#?}");
    }
    // Faults of the mapping's own, each with its place.
    let mapping = ready.folder.path().join("bad.toml");
    fs::write(&mapping, "[[event]]\ntype = \"t\"\ntable = \"users\"\n").unwrap();
    let faults = ready.faults_with("\"merge-reference\"", "\"bad.toml\"").await;
    assert_eq!(told(&faults), ["settings critical"], "{faults:#?}");
    assert!(faults[0].finding.contains("bad.toml:"), "{faults:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_in_the_settings() {
    let ready = Ready::new("check_secrets").await;
    let user = format!("user='{}'", ready.reader);
    let text = ready.text.replacen(&user, &format!("{user} password=hunter2"), 1);
    let path = ready.file(&text);
    let faults = faults_of(&path).await;
    assert_eq!(told(&faults), ["inline_password warning"], "{faults:#?}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let faults = faults_of(&path).await;
    assert_eq!(told(&faults), ["inline_password critical"], "{faults:#?}");
    assert!(!format!("{faults:?}").contains("hunter2"), "{faults:#?}");

    let pgpass = ready.folder.path().join("pgpass");
    fs::write(&pgpass, "*:*:*:*:hunter2\n").unwrap();
    fs::set_permissions(&pgpass, fs::Permissions::from_mode(0o644)).unwrap();
    let passfile = format!("{user} passfile={}", pgpass.display());
    let text = ready.text.replacen(&user, &passfile, 1);
    let path = ready.file(&text);
    let faults = faults_of(&path).await;
    assert_eq!(told(&faults), ["passfile critical"], "{faults:#?}");
    assert_eq!(faults[0].fix, format!("chmod 0600 {}", pgpass.display()));
    fs::set_permissions(&pgpass, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(told(&faults_of(&path).await), Vec::<String>::new());
}

/// Seals a leaf whose id begins with a time of 2023.
async fn seal_old(ready: &Ready) {
    let seal = "SELECT portal_audit.seal('.own', size, decode('018b0000000070008000' || substr(md5(size::text), 1, 12), 'hex'), decode(md5('salt'), 'hex'), sha256('leaf')) FROM portal_audit.trees WHERE tree = '.own'";
    run(&ready.portal.audit, seal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_nobody_signs() {
    let ready = Ready::new("check_checkpoints").await;
    seal_old(&ready).await;
    ready.is_well("nobody is to sign").await;
    let path = ready.file(&format!("{}\n[proof]\nkey_file = \"key\"\n", ready.text));
    let faults = faults_of(&path).await;
    assert_eq!(told(&faults), ["checkpoints warning"], "{faults:#?}");
    assert!(faults[0].finding.starts_with("there is none yet, and 1 event came"), "{faults:#?}");
    let (key, _) = SigningKey::generate("log").unwrap();
    let mut session = open(super::cluster(), "check_checkpoints_audit").await;
    checkpoint::make(&mut session, &key, None).await.unwrap();
    assert_eq!(told(&faults_of(&path).await), Vec::<String>::new());
    // It came after the checkpoint, whatever its id says.
    seal_old(&ready).await;
    assert_eq!(told(&faults_of(&path).await), Vec::<String>::new());
    let age = "UPDATE portal_audit.checkpoints SET at = at - interval '16 minutes'";
    run(&ready.portal.audit, age).await;
    let faults = faults_of(&path).await;
    assert_eq!(told(&faults), ["checkpoints warning"], "{faults:#?}");
    assert!(faults[0].finding.starts_with("the last one, 1, is 16 min old, and 1"), "{faults:#?}");
    run(&ready.portal.audit, "UPDATE portal_audit.checkpoints SET note = 'no note'").await;
    let faults = faults_of(&path).await;
    assert!(faults[0].finding.starts_with("the last one cannot be read"), "{faults:#?}");
}

/// Settings with pages that are entered so, and the file by which visitors are known.
fn with_pages(ready: &Ready, access: &str, file: &str) -> (PathBuf, PathBuf) {
    let dsn = shared().dsn(&ready.writer.replace("_writer", "_audit"), &ready.writer);
    let text = format!(
        "{}\n[serve]\nlisten = \"127.0.0.1:0\"\n[pages]\ndsn = {dsn:?}\n{access}\n",
        ready.text
    );
    (ready.file(&text), ready.folder.path().join(file))
}

/// The file as it is, with a mode; what is found then.
async fn with_file((settings, file): &(PathBuf, PathBuf), text: &str, mode: u32) -> Vec<Finding> {
    fs::write(file, text).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    faults_of(settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_let_nobody_in_or_anybody() {
    let ready = Ready::new("check_tokens").await;
    let paths = with_pages(&ready, "access = \"token\"\ntoken_file = \"tokens\"", "tokens");
    assert_eq!(told(&faults_of(&paths.0).await), ["token_file critical"]);
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let line = format!("# who\n\n{hash} wrenn\n");
    let none = Vec::<String>::new();
    assert_eq!(told(&with_file(&paths, &line, 0o600).await), none);
    assert_eq!(told(&with_file(&paths, "# nobody yet\n", 0o600).await), ["token_file critical"]);
    for bad in [hash.to_uppercase() + " maple", hash.to_owned(), "hunter2 maple".to_owned()] {
        let faults = with_file(&paths, &format!("{line}{bad}\n"), 0o600).await;
        assert_eq!(told(&faults), ["token_file warning"], "{bad}: {faults:#?}");
        assert!(faults[0].finding.contains("line 4 "), "{faults:#?}");
        assert!(!format!("{faults:?}").contains("hunter2"), "{faults:#?}");
    }
    let faults = with_file(&paths, &line, 0o644).await;
    assert_eq!(told(&faults), ["token_file warning"], "{faults:#?}");
    let faults = with_file(&paths, &line, 0o620).await;
    assert_eq!(told(&faults), ["token_file critical"], "{faults:#?}");
    assert_eq!(faults[0].fix, format!("chmod go-w {}", paths.1.display()));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_let_nobody_in_or_anybody() {
    let ready = Ready::new("check_keys").await;
    let access = "access = \"jwt\"\n[pages.jwt]\njwks_file = \"keys.json\"\nissuer = \"https://id.example\"\naudience = \"audit\"\nname = \"$.sub\"";
    let paths = with_pages(&ready, access, "keys.json");
    assert_eq!(told(&faults_of(&paths.0).await), ["jwks_file critical"]);
    // The key of RFC 8037, appendix A.2.
    let public = r#"{"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let keys = format!("{{\"keys\": [{public}]}}");
    assert_eq!(told(&with_file(&paths, &keys, 0o644).await), Vec::<String>::new());
    let secret = keys.replace("\"kid\"", "\"d\": \"hunter2\", \"kid\"");
    for bad in ["", "{\"keys\": []}", &secret] {
        let faults = with_file(&paths, bad, 0o644).await;
        assert_eq!(told(&faults), ["jwks_file critical"], "{bad}: {faults:#?}");
        assert!(!format!("{faults:?}").contains("hunter2"), "{faults:#?}");
    }
    assert_eq!(told(&with_file(&paths, &keys, 0o646).await), ["jwks_file critical"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_not_there() {
    let ready = Ready::new("check_folder").await;
    let text: Vec<&str> =
        ready.text.lines().filter(|line| !line.starts_with("spool_folder")).collect();
    let text = text.join("\n") + "\nspool_folder = \"/nowhere/at/all\"\n";
    let faults = faults_of(&ready.file(&text)).await;
    assert_eq!(told(&faults), ["spool_folder critical"], "{faults:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_database_for_both() {
    let ready = Ready::new("check_both").await;
    run(&ready.portal.source, portal_audit::sql::audit()).await;
    let faults = ready.faults_with("dbname='check_both_audit'", "dbname='check_both'").await;
    assert_eq!(told(&faults), ["audit_is_source warning"], "{faults:#?}");
}

/// Server by server, for these are of all databases at once.
#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_set_badly() {
    let settings = [
        ("wal_level", "replica"),
        ("max_replication_slots", "0"),
        ("max_wal_senders", "0"),
        ("max_connections", "12"),
    ];
    let cluster = Cluster::start(&installation(), &settings).unwrap();
    let ready = Ready::on(&cluster, "check_badly").await;
    let postgres = open(&cluster, "postgres").await;
    let mut finds = vec![
        "wal_level critical",
        "replication_slots critical",
        "replication critical",
        "connections warning",
        "max_slot_wal_keep_size warning",
        "audit_durability critical",
    ];
    if major() >= 18 {
        run(&postgres, "ALTER SYSTEM SET idle_replication_slot_timeout = '1d'").await;
        finds.push("idle_replication_slot_timeout warning");
    }
    if major() >= 17 {
        run(&postgres, "ALTER SYSTEM SET synchronized_standby_slots = 'nobody'").await;
        finds.push("synchronized_standby_slots critical");
    }
    run(&postgres, "SELECT pg_reload_conf()").await;
    let loaded = async || ready.faults().await.len() == finds.len();
    crate::support::wait_for("the server to read its settings", loaded).await;
    let faults = ready.faults().await;
    assert_eq!(told(&faults), expected(&finds), "{faults:#?}");

    // What takes no restart is mended by what is printed.
    for id in ["max_slot_wal_keep_size", "idle_replication_slot_timeout"] {
        let Some(fault) = faults.iter().find(|fault| fault.check == id) else { continue };
        paste(&postgres, &fault.fix).await;
        finds.retain(|find| !find.starts_with(id));
    }
    let loaded = async || ready.faults().await.len() == finds.len();
    crate::support::wait_for("the server to read its settings", loaded).await;
    assert_eq!(told(&ready.faults().await), expected(&finds));

    // Less than the budget is as bad.
    run(&postgres, "ALTER SYSTEM SET max_slot_wal_keep_size = '1GB'").await;
    run(&postgres, "SELECT pg_reload_conf()").await;
    finds.push("max_slot_wal_keep_size warning");
    let loaded = async || ready.faults().await.len() == finds.len();
    crate::support::wait_for("the server to read its settings", loaded).await;
    assert_eq!(told(&ready.faults().await), expected(&finds));
}

#[tokio::test(flavor = "multi_thread")]
async fn standbys() {
    let (pair, portal) =
        Pair::start_unsynchronised(Wishes { name: "check_standby", ..Wishes::default() }).await;
    pair.caught_up().await;
    let portal = standby::moved(portal, &pair.primary, &pair.standby).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("portal-audit.toml");
    let mut text = portal.settings_text;
    fs::write(&path, &text).unwrap();
    let faults = faults_of(&path).await;
    let critical = |faults: &[Finding]| -> Vec<&'static str> {
        let critical = faults.iter().filter(|fault| fault.status == Status::Critical);
        critical.map(|fault| fault.check).collect()
    };
    // These servers run without fsync.
    assert_eq!(critical(&faults), ["audit_durability", "primary"], "{faults:#?}");
    let dsn = |cluster: &Cluster, database| format!("{:?}", cluster.dsn(database, "postgres"));
    let on_primary = dsn(shared(), "check_standby_audit");
    assert!(text.contains(&on_primary));
    text = text.replace(&on_primary, &dsn(&pair.standby, "postgres"));
    fs::write(&path, &text).unwrap();
    let faults = faults_of(&path).await;
    assert_eq!(
        critical(&faults),
        ["audit_writable", "audit_schema", "audit_durability", "primary"],
        "{faults:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_an_encoding() {
    let ready = Ready::new("check_utf8").await;
    run(
        &ready.postgres,
        "CREATE DATABASE check_ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0",
    )
    .await;
    let source = open(super::cluster(), "check_ascii").await;
    run(&source, portal_audit::demo::portal::PORTAL_SQL).await;
    run(&source, &ready.source_sql()).await;
    let faults = ready.faults_with("dbname='check_utf8'", "dbname='check_ascii'").await;
    assert_eq!(told(&faults), ["server_encoding warning"], "{faults:#?}");
}

/// The check itself leaves nothing behind, and cannot: its sessions are read-only.
#[tokio::test(flavor = "multi_thread")]
async fn it_changes_nothing() {
    let mut cluster = Cluster::start(&installation(), &[("fsync", "on")]).unwrap();
    let ready = Ready::on(&cluster, "check_quiet").await;
    let postgres = open(&cluster, "postgres").await;
    run(&postgres, "CHECKPOINT").await;
    let written = "SELECT pg_current_xact_id_if_assigned() IS NULL AND (SELECT count(*) FROM pg_replication_slots) = 0";
    let next = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text";
    let before: String = value(&postgres, next).await;
    for _ in 0..3 {
        drop(ready.faults().await);
    }
    assert_eq!(value::<String>(&postgres, next).await, before, "no transaction wrote");
    assert!(value::<bool>(&postgres, written).await);
    drop(postgres);
    cluster.stop_server(Shutdown::Fast).unwrap();
    let faults = ready.faults().await;
    assert_eq!(told(&faults), ["audit_reachable critical", "reachable critical"], "{faults:#?}");
}
