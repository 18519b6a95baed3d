//! A stream recorded by the program, and what two mappings make of it.

use crate::support::{
    Portal, Wishes, cluster, portal,
    program::{SettingsFile, command, signal},
    run, value, wait_for,
};
use portal_audit::{
    replay::{Comparison, Kind, Reader, compare},
    translate::mapping::Mapping,
};
use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

const MAPPING: &str = include_str!("../tools/mapping.toml");

struct Recorded {
    folder: tempfile::TempDir,
    portal: Portal,
    file: PathBuf,
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Records what `script` does to the sample portal, until the program is asked to stop.
async fn recorded(name: &str, script: &str) -> Recorded {
    let folder = tempfile::tempdir().unwrap();
    let mapping = folder.path().join("mapping.toml");
    std::fs::write(&mapping, MAPPING).unwrap();
    let wishes = Wishes { name, mapping: path(&mapping), ..Wishes::default() };
    let portal = portal(cluster(), wishes).await;
    let settings = SettingsFile::new(&portal);
    let file = folder.path().join("stream.rec");
    let arguments = ["replay", "--record", path(&file), "--config", path(&settings.path)];
    let child = command(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let slot = |what: &str| {
        format!(
            "SELECT count(*) = 1 FROM pg_replication_slots WHERE temporary AND database = '{name}' AND {what}"
        )
    };
    let active = slot("active AND confirmed_flush_lsn IS NOT NULL");
    // Until the file is there the stream may not have begun; what the slot saw by then is in it all the same.
    wait_for("recording", async || file.is_file() && value::<bool>(&portal.source, &active).await)
        .await;
    run(&portal.source, script).await;
    let end: String = value(&portal.source, "SELECT pg_current_wal_insert_lsn()::text").await;
    let written = slot(&format!("confirmed_flush_lsn >= '{end}'"));
    wait_for("the recording has it", async || value::<bool>(&portal.source, &written).await).await;
    signal(child.id(), "INT");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("it holds row data"), "{said}");
    Recorded { folder, portal, file }
}

fn mapping(text: &str) -> Arc<Mapping> {
    Arc::new(Mapping::parse("m.toml", text).unwrap())
}

fn compared(recorded: &Recorded, before: &str, after: &str) -> Comparison {
    let recording = Reader::open(&recorded.file).unwrap();
    compare(recording, &mapping(before), &mapping(after)).unwrap()
}

const SCRIPT: &str = "
INSERT INTO portal.users (username, state, uid, gid, category) VALUES ('ada', 'Pending', 1, 1, 'Class'), ('eve', 'Active', 2, 2, '');
BEGIN;
UPDATE portal.users SET state = 'Active' WHERE username = 'ada';
UPDATE portal.users SET ver = 2 WHERE username = 'eve';
INSERT INTO portal.organizations (name, oid) VALUES ('orgtest', 1);
COMMIT;
INSERT INTO portal.organization_members VALUES ('orgtest', 'UserMember', 'eve');
UPDATE portal.organization_members SET id = 'ada';
DELETE FROM portal.organization_members";

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_is_compared_by_two_mappings() {
    let recorded = recorded("replay_compare", SCRIPT).await;
    let mode = std::fs::metadata(&recorded.file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The slot went with its connection.
    let slots = "SELECT count(*) = 0 FROM pg_replication_slots WHERE database = 'replay_compare'";
    wait_for("the slot is gone", async || value::<bool>(&recorded.portal.source, slots).await)
        .await;

    let same = compared(&recorded, MAPPING, MAPPING);
    assert!(same.is_same() && !same.is_cut);
    assert_eq!(same.types["user_created"], [2, 2]);
    assert_eq!(same.types["org_member_deleted"], [2, 2]);
    assert_eq!((same.transactions, same.changes), (2, 7));

    // A key of the payload more, one less, a type renamed, a block gone, and the numbers of two blocks changed round.
    let changed = MAPPING.replace("category = \"category\", ", "").replacen(
        "institution = \"institution\"",
        "institution = \"institution\", uid = \"uid\"",
        1,
    );
    let changed = compared(&recorded, MAPPING, &changed);
    assert_eq!((changed.changed, changed.only_before, changed.only_after), (2, 0, 0));
    let ada = changed.differences.iter().find(|difference| difference.subject == "ada").unwrap();
    assert_eq!(ada.kind, Kind::Changed);
    assert_eq!(ada.fields["payload.category"], ["Class".into(), serde_json::Value::Null]);
    assert_eq!(ada.fields["payload.uid"], [serde_json::Value::Null, 1.into()]);

    let renamed = MAPPING.replace("\"user_activated\"", "\"user_enabled\"");
    let renamed = compared(&recorded, MAPPING, &renamed);
    assert_eq!((renamed.changed, renamed.only_before, renamed.only_after), (0, 1, 1));
    assert_eq!(renamed.types["user_enabled"], [0, 1]);

    let (first, last) = MAPPING.split_at(MAPPING.rfind("[[event]]").unwrap());
    let fewer = compared(&recorded, MAPPING, first);
    assert_eq!((fewer.only_before, fewer.changed), (1, 0));
    // What no block takes is counted on both sides.
    assert_eq!(fewer.unmapped["portal.organization_members update"], [0, 1]);
    assert_eq!(fewer.unmapped["portal.users update"], [1, 1]);

    let (users, member) = first.split_at(first.rfind("[[event]]").unwrap());
    let turned = compared(&recorded, MAPPING, &format!("{users}{last}\n{member}"));
    assert_eq!((turned.other_id, turned.only_before + turned.only_after), (2, 0));
    let described = MAPPING.replace("{caller} activated", "{caller} enabled");
    let described = compared(&recorded, MAPPING, &described);
    assert!(!described.is_same() && described.described[0].starts_with("user_activated:"));
    let more = format!(
        "{MAPPING}\n[[event]]\ntype = \"pool_created\"\ntable = \"portal.pools\"\nsubject = \"name\"\nsubject_type = \"pool\"\ndescribe = \"{{subject}}\"\nretention = \"project\"\n"
    );
    let more = compared(&recorded, MAPPING, &more);
    assert!(more.is_same() && more.silent == ["portal.pools"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verb_compares_with_the_mapping_of_the_recording() {
    let recorded = recorded("replay_verb", SCRIPT).await;
    let dry_run = |name: &str, text: &str, more: &[&str]| {
        let file = recorded.folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        let arguments = ["replay", "--dry-run", path(&recorded.file), "--mapping", path(&file)];
        let output = command(&[&arguments[..], more].concat()).output().unwrap();
        let (out, err) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        (output.status.code().unwrap(), out, err)
    };
    let (code, out, _) = dry_run("same.toml", MAPPING, &[]);
    assert!(code == 0 && out.ends_with("nothing differs\n"), "{out}");
    let changed = MAPPING.replace("category = \"category\", ", "");
    let (code, out, _) = dry_run("changed.toml", &changed, &[]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("changed: user_created ada"), "{out}");
    assert!(out.contains("  payload.category         \"Class\" → nothing\n"), "{out}");
    let (code, out, _) =
        dry_run("changed.toml", &changed, &["--against", "merge-reference", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(code == 1 && json["only_before"].as_u64().unwrap() > 0, "{out}");
    let (code, _, err) =
        dry_run("strange.toml", &MAPPING.replace("\"institution\"", "\"institute\""), &[]);
    assert!(
        code == 1
            && err.contains("the new mapping cannot translate")
            && err.contains("publishes no column \"institute\""),
        "{err}"
    );
    // A file is not overwritten.
    let settings = SettingsFile::new(&recorded.portal);
    let again = [
        "replay",
        "--record",
        path(&recorded.file),
        "--config",
        path(&settings.path),
        "--seconds",
        "1",
    ];
    let again = command(&again).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("File exists"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_whole_recording_is_refused() {
    let recorded = recorded("replay_broken", SCRIPT).await;
    let whole = std::fs::read(&recorded.file).unwrap();
    let file = recorded.folder.path().join("broken.rec");
    let error = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let read = Reader::open(&file).and_then(|mut recording| {
            while recording.next_message()?.is_some() {}
            Ok(())
        });
        read.unwrap_err().to_string()
    };
    assert!(error(b"").ends_with("is not a recording of portal-audit"));
    assert!(
        error(b"SELECT 1; -- a script of some length")
            .ends_with("is not a recording of portal-audit")
    );
    let mut other = whole.clone();
    other[19] = 9;
    assert!(error(&other).contains("is a recording of version 9"));
    // Wherever it is cut off, that is told.
    for length in (20..whole.len()).step_by(97) {
        assert!(error(&whole[..length]).contains("is cut off after"), "{length}");
    }
    assert!(error(&whole[..whole.len() - 1]).contains("is cut off after"));
    let mut count = whole.clone();
    *count.last_mut().unwrap() ^= 1;
    assert!(error(&count).contains("is damaged after"));
}
