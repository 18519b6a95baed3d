//! The verbs of the proof as they are typed, the checkpoints of the sidecar, and a verifier that shares no code with ours.

use crate::{
    attacks::{attacked, log},
    service::Serving,
    support::{
        Wishes, cluster, portal,
        program::{Program, SettingsFile, command},
        run, value, wait_for,
    },
};
use portal_audit::{
    merkle::is_included,
    note::{Checkpoint, PublicKey, is_signed, notes},
};
use serde_json::Value;
use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
};

fn say(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn dsn(name: &str) -> String {
    cluster().dsn(&format!("attacked_{name}"), "postgres")
}

fn export(folder: &Path, dsn: &str) -> PathBuf {
    let path = folder.join("proof.jsonl");
    let (code, _, error) =
        say(&["proof", "export", "--audit", dsn, "--out", path.to_str().unwrap()]);
    assert_eq!(code, 0, "{error}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    path
}

#[expect(clippy::disallowed_methods, reason = "the verifier is another program")]
fn python(path: &Path) -> Option<(bool, String)> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/verify.py");
    let output = std::process::Command::new("python3").arg(script).arg(path).output();
    let Ok(output) = output else {
        println!("not run: there is no python3");
        return None;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some((output.status.success(), text + &String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test]
async fn a_verifier_of_others_agrees() {
    log().await;
    for (name, attack, expected) in [
        ("py_not", "", "18 rows hold"),
        ("py_lawful", "SELECT retain(); SELECT erase()", "19 rows hold"),
        (
            "py_edited",
            "UPDATE events SET caller = 'x' WHERE subject = 'p5'",
            "portal 5: the row was edited",
        ),
        ("py_gone", "DELETE FROM events WHERE subject = 'p5'", "portal 5: the row is gone"),
        (
            "py_anew",
            "UPDATE events SET caller = 'x' WHERE subject = 'p10'; SELECT reseal()",
            "portal 12: the leaves are not those of a checkpoint",
        ),
        ("py_cut", "SELECT cut()", "portal 8: leaves are gone from the end"),
        (
            "py_list",
            "SELECT retain(); DELETE FROM events WHERE subject = 'p6'; UPDATE portal_audit.removed SET places = '{1,2}'",
            "the list of what was removed is not the one that was recorded",
        ),
    ] {
        drop(attacked(name, "attacked_today", attack).await);
        let folder = tempfile::tempdir().unwrap();
        let Some((is_sound, text)) = python(&export(folder.path(), &dsn(name))) else { return };
        assert_eq!(is_sound, expected.ends_with("hold"), "{name}: {text}");
        assert!(text.contains(expected), "{name}: {text}");
    }
}

#[tokio::test]
async fn verify_says_what_is_broken_and_exits_with_one() {
    let log = log().await;
    let key = log.key.public().to_string();
    drop(attacked("verb", "attacked_today", "").await);
    let sound = say(&["verify", "--audit", &dsn("verb"), "--key", &key]);
    assert_eq!(sound.0, 0, "{}", sound.2);
    assert!(
        sound.1.starts_with("The record holds: 18 leaves in 3 trees, 18 rows as written."),
        "{}",
        sound.1
    );
    assert!(sound.1.contains("2 events after it, not signed yet"), "{}", sound.1);
    drop(
        attacked(
            "verb_edited",
            "attacked_today",
            "UPDATE events SET caller = 'hidden' WHERE subject = 'p5'",
        )
        .await,
    );
    let (code, text, error) =
        say(&["verify", "--audit", &dsn("verb_edited"), "--key", &key, "--format", "json"]);
    assert_eq!(code, 1, "{error}");
    let report: Value = serde_json::from_str(&text).unwrap();
    let finding = &report["findings"][0];
    assert_eq!(
        (&finding["kind"], &finding["tree"], &finding["seq"]),
        (&"edited".into(), &"portal".into(), &5.into())
    );
    assert!(!text.contains("hidden") && !error.contains("hidden"));
    let folder = tempfile::tempdir().unwrap();
    let file = export(folder.path(), &dsn("verb_edited"));
    let (code, text, _) = say(&["verify", "--export", file.to_str().unwrap(), "--key", &key]);
    assert_eq!(code, 1);
    assert!(text.contains("EDITED  tree \"portal\", leaf 5, event "), "{text}");
    // What to do stands last, and of a broken record nothing says that a checkpoint covers it.
    assert!(text.trim_end().lines().last().unwrap().starts_with("  Next      change nothing"));
    assert!(text.contains("the last checkpoint that fits what is there is 2 of "), "{text}");
    // A file that was cut off says so, and not that the record is broken.
    let whole = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, whole.strip_suffix("{\"kind\":\"end\"}\n").unwrap()).unwrap();
    let (code, _, error) = say(&["verify", "--export", file.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(error.contains("is not what `portal-audit proof export` writes"), "{error}");
    assert_eq!(say(&["verify", "--audit", &dsn("verb"), "--key", "nonsense"]).0, 2);
}

#[tokio::test]
async fn one_event_is_proved_to_whomever_has_the_public_key() {
    let log = log().await;
    let keys = [log.key.public().clone()];
    let session = attacked("single", "attacked_today", "").await;
    let uuid: String =
        value(&session, "SELECT event_uuid::text FROM events WHERE subject = 'p5'").await;
    let (dsn, key) = (dsn("single"), keys[0].to_string());
    let arguments =
        ["verify", "--audit", &dsn, "--key", &key, "--event", &uuid, "--format", "json"];
    let (code, text, error) = say(&arguments);
    assert_eq!(code, 0, "{error}");
    let proof: Value = serde_json::from_str(&text).unwrap();
    let note = proof["checkpoint"].as_str().unwrap();
    assert!(is_signed(note, &keys));
    let (size, root) = Checkpoint::parse(note).unwrap().trees["portal"];
    let hash = |text: &Value| {
        let byte = |place| {
            u8::from_str_radix(&text.as_str().unwrap()[2 * place..2 * place + 2], 16).unwrap()
        };
        std::array::from_fn(byte)
    };
    let path: Vec<[u8; 32]> = proof["path"].as_array().unwrap().iter().map(hash).collect();
    assert!(is_included(&hash(&proof["leaf"]), proof["seq"].as_u64().unwrap(), size, &path, &root));
    // Behind the last checkpoint nothing is proved yet, nor if the row was edited.
    let late: String =
        value(&session, "SELECT event_uuid::text FROM events WHERE subject = 'p13'").await;
    let (code, text, _) = say(&["verify", "--audit", &dsn, "--event", &late]);
    assert!(code == 1 && text.contains("NOT PROVED: no checkpoint signs it yet"), "{text}");
    run(&session, "UPDATE events SET caller = 'x' WHERE subject = 'p5'").await;
    let (code, text, _) = say(&["verify", "--audit", &dsn, "--event", &uuid]);
    assert!(code == 1 && text.contains("NOT PROVED: the row is not the one"), "{text}");
}

#[tokio::test]
async fn the_sidecar_signs_and_copies_what_was_added() {
    let own = portal(cluster(), Wishes { name: "signing", ..Wishes::default() }).await;
    let file = SettingsFile::new(&own);
    let folder = file.path.parent().unwrap();
    let key_file = folder.join("proof.key");
    let (code, key, error) =
        say(&["proof", "key", "--name", "log", "--out", key_file.to_str().unwrap()]);
    assert_eq!(code, 0, "{error}");
    let key = PublicKey::parse(&key).unwrap();
    let copies = folder.join("copies");
    let taken = folder.join("taken");
    let take = format!("cat >> {}", taken.display());
    let text = format!(
        "[proof]\nkey_file = \"proof.key\"\ninterval_seconds = 1\ncopy_to_file = \"copies\"\ncopy_to_command = [\"sh\", \"-c\", {take:?}]\n{}",
        own.settings_text
    );
    std::fs::write(&file.path, text).unwrap();
    let mut program = Program::run(&file.path);
    own.streaming().await;
    let record =
        "SELECT portal_audit.record('log_read', 'u', 'events', 'audit', NULL, true, NULL, '{}')";
    for count in 1..3 {
        run(&own.audit, record).await;
        let made = format!("SELECT count(*) >= {count} FROM portal_audit.checkpoints");
        wait_for("a checkpoint", async || value::<bool>(&own.audit, &made).await).await;
        let held = |path: &Path| std::fs::read_to_string(path).map_or(0, |text| notes(&text).len());
        wait_for("its copies", async || held(&copies) >= count && held(&taken) >= count).await;
    }
    assert!(program.is_running());
    let copied = std::fs::read_to_string(&copies).unwrap();
    assert!(notes(&copied).iter().all(|note| is_signed(note, std::slice::from_ref(&key))));
    let settings = file.path.to_str().unwrap();
    let key = key.to_string();
    let arguments =
        ["verify", "--config", settings, "--key", &key, "--checkpoints", copies.to_str().unwrap()];
    let (code, text, error) = say(&arguments);
    assert_eq!(code, 0, "{text}{error}");
    // A key that others may read is not used.
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (code, _, error) = say(&["run", "--config", settings]);
    assert!(code == 2 && error.contains("others may read the key file"), "{error}");
}

/// Each place has an age of its own: it grows from when the place no longer has what the others have.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_not_made_or_not_copied_grows_old() {
    let own = portal(cluster(), Wishes { name: "signing_age", ..Wishes::default() }).await;
    let file = SettingsFile::new(&own);
    let folder = file.path.parent().unwrap().to_owned();
    let key_file = folder.join("proof.key");
    assert_eq!(say(&["proof", "key", "--name", "log", "--out", key_file.to_str().unwrap()]).0, 0);
    let taken = folder.join("taken");
    let take = format!("test -d {0} && cat > {0}/last", taken.display());
    let proof = format!(
        "[proof]\nkey_file = \"proof.key\"\ninterval_seconds = 1\ncopy_to_file = \"vault/copies\"\ncopy_to_command = [\"sh\", \"-c\", {take:?}]\n"
    );
    let serving = Serving::start_in(file, &(proof + &own.settings_text)).await;
    own.streaming().await;
    run(
        &own.audit,
        "SELECT portal_audit.record('log_read', 'u', 'events', 'audit', NULL, true, NULL, '{}')",
    )
    .await;
    let age = |place: &str| {
        let series = format!("portal_audit_checkpoint_age_seconds{{place=\"{place}\"}}");
        serving.metric(&series).unwrap()
    };
    let is_behind = |place: &str, other: &str| age(place) > age(other) + 2.0;
    assert_eq!(serving.metric("portal_audit_checkpoint_interval_seconds"), Some(1.0));
    // Neither copy arrives, and one is no reason for the other not to.
    wait_for("old copies", async || is_behind("file", "database")).await;
    assert!(is_behind("command", "database"));
    serving.says("cannot write").await;
    serving.says("did not take a copy").await;
    std::fs::create_dir(&taken).unwrap();
    wait_for("the program's copy", async || is_behind("file", "command")).await;
    std::fs::create_dir(folder.join("vault")).unwrap();
    wait_for("the file's copy", async || !is_behind("file", "database")).await;
    let copied = std::fs::read_to_string(folder.join("vault/copies")).unwrap();
    assert_eq!(notes(&copied).len(), 1);
    // Nothing is added any more: what is covered stays so. And without the key nothing is.
    let is_old = || ["database", "file", "command"].iter().all(|place| age(place) > 3.0);
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o644)).unwrap();
    wait_for("old checkpoints", async || is_old()).await;
    serving.says("no checkpoint was made").await;
    std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
    wait_for("young checkpoints", async || !is_old()).await;
    assert!(serving.program.terminate().success());
}
