//! The verbs around mappings, as they are typed: what they print, and their exit codes.

use crate::support::{
    Portal, Wishes, cluster, portal,
    program::{SettingsFile, command},
    run, value,
};
use expect_test::expect_file;
use portal_audit::{
    config::Settings,
    sql,
    translate::mapping::{Mapping, RuleSpec},
};
use std::path::{Path, PathBuf};

/// The mapping of these tests: small, so that the shipped one may grow.
const MAPPING: &str = include_str!("../tools/mapping.toml");

/// What a run of the program said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn say(arguments: &[&str]) -> Said {
    let output = command(arguments).output().unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The sample portal with the mapping of these tests.
async fn small(name: &str) -> (tempfile::TempDir, Portal) {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "mapping.toml", MAPPING);
    let wishes = Wishes { name, mapping: text(&file), ..Wishes::default() };
    let portal = portal(cluster(), wishes).await;
    (folder, portal)
}

#[test]
fn a_mapping_is_checked_without_a_database() {
    assert_eq!(say(&["mapping", "check", "merge-reference"]).code, 0);
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "m.toml", MAPPING);
    let sound = say(&["mapping", "check", text(&file)]);
    assert_eq!(sound.code, 0, "{}", sound.err);
    assert!(
        sound.out.ends_with("m.toml: sound: 4 blocks, 3 event types, 2 tables\n"),
        "{}",
        sound.out
    );
    let file = write(
        folder.path(),
        "m.toml",
        &MAPPING.replace("on           = \"insert\"", "on = \"inserted\""),
    );
    let faulty = say(&["mapping", "check", text(&file)]);
    assert_eq!(faulty.code, 1);
    assert!(faulty.err.contains("m.toml:7:6: unknown word \"inserted\""), "{}", faulty.err);
    let absent = say(&["mapping", "check", "merge"]);
    assert_eq!(absent.code, 2);
    assert!(
        absent.err.contains("no built-in mapping \"merge\" (there are: merge-reference"),
        "{}",
        absent.err
    );
    assert_eq!(say(&["mapping", "check"]).code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_is_checked_against_the_live_database() {
    let (_mapping, portal) = small("tools_check").await;
    let settings = SettingsFile::new(&portal);
    let config = text(&settings.path);
    let sound = say(&["mapping", "check", "--config", config]);
    assert_eq!(sound.code, 0, "{}", sound.err);
    assert!(sound.out.contains("sound, and fits source tools_check: 4 blocks"), "{}", sound.out);
    // A mapping that is not yet the source's.
    let folder = tempfile::tempdir().unwrap();
    let other =
        write(folder.path(), "next.toml", &MAPPING.replace("\"institution\"", "\"institute\""));
    let faulty = say(&["mapping", "check", text(&other), "--config", config]);
    assert_eq!(faulty.code, 1);
    assert!(
        faulty.err.contains(
            "table portal.users has no column \"institute\"\n  Did you mean \"institution\"?"
        ),
        "{}",
        faulty.err
    );
    let stranger = say(&["mapping", "check", "--config", config, "--source", "other"]);
    assert_eq!(stranger.code, 2);
    assert!(stranger.err.contains("--source: tools_check"), "{}", stranger.err);
}

/// Tables that a scaffold must cope with.
const SHOP: &str = r#"
CREATE SCHEMA "Shop";
CREATE TYPE "Shop".mood AS ENUM ('calm', 'not so calm');
CREATE TABLE "Shop".customers (id BIGINT PRIMARY KEY, username TEXT NOT NULL, email TEXT, password_hash TEXT NOT NULL, level SMALLINT);
CREATE TABLE "Shop"."Order Lines" (
    "order id" INT, line INT, customer_id BIGINT NOT NULL REFERENCES "Shop".customers, mood "Shop".mood NOT NULL DEFAULT 'calm',
    size INT CHECK (size IN (1, 2, 30)), "say ""hi""" TEXT, total INT GENERATED ALWAYS AS (line * 2) STORED, notes JSONB, photo BYTEA,
    created_by BIGINT REFERENCES "Shop".customers, created_at TIMESTAMPTZ, updated_at TIMESTAMPTZ, PRIMARY KEY ("order id", line));
CREATE TABLE "Shop".boxes (name TEXT);
CREATE TABLE "Shop".tokens (token TEXT PRIMARY KEY);
"#;

const SCAFFOLDED: [&str; 9] = [
    "Shop.customers",
    "Shop.Order Lines",
    "portal.users",
    "portal.organization_members",
    "portal.experiment_models",
    "portal.allocations",
    "portal.facilities",
    "portal.api_tokens",
    "portal.pools",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_scaffold_is_a_sound_mapping_that_fits() {
    let (_mapping, portal) = small("tools_scaffold").await;
    run(&portal.source, SHOP).await;
    let settings = SettingsFile::new(&portal);
    let config = text(&settings.path);
    let folder = tempfile::tempdir().unwrap();
    let mut printed = String::new();
    for table in SCAFFOLDED {
        let said = say(&["mapping", "scaffold", table, "--config", config]);
        assert_eq!(said.code, 0, "{table}: {}", said.err);
        let file = write(folder.path(), "one.toml", &format!("{MAPPING}\n{}", said.out));
        let checked = say(&["mapping", "check", text(&file)]);
        assert_eq!(checked.code, 0, "{table}: {}\n{}", checked.err, said.out);
        fits(&portal, &file, table).await;
        printed.push_str(&said.out);
        printed.push('\n');
    }
    expect_file!["../tools/scaffold.toml"].assert_eq(&printed);
}

/// The database set up for a mapping as ops would do it, and checked.
async fn fits(portal: &Portal, mapping: &Path, table: &str) {
    let config = {
        let named = portal.settings_text.lines().map(|line| match line.starts_with("mapping = ") {
            true => format!("mapping = {:?}\n", text(mapping)),
            false => format!("{line}\n"),
        });
        named.collect::<String>()
    };
    let settings = Settings::parse(Path::new("test.toml"), &config).unwrap();
    run(&portal.source, &sql::source(&settings.sources[0])).await;
    let file = write(mapping.parent().unwrap(), "settings.toml", &config);
    let said = say(&["mapping", "check", "--config", text(&file)]);
    assert_eq!(said.code, 0, "{table}: {}", said.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scaffold_that_cannot_be_says_why() {
    let (_mapping, portal) = small("tools_no_scaffold").await;
    run(&portal.source, SHOP).await;
    let settings = SettingsFile::new(&portal);
    let error = |table: &str| {
        let said = say(&["mapping", "scaffold", table, "--config", text(&settings.path)]);
        assert_eq!(said.code, 1, "{}", said.out);
        said.err
    };
    assert!(error("Shop.boxes").contains("Shop.boxes has no primary key"));
    assert!(error("Shop.tokens").contains("the primary key of Shop.tokens is on the deny list"));
    assert!(error("users").contains("no table \"users\". Did you mean \"portal.users\"?"));
    assert!(error("portal.user").contains("Did you mean \"portal.users\"?"));
}

/// Blocks of every form that an example can set up, and examples that do not hold.
const EXAMPLES: &str = include_str!("../tools/examples.toml");

#[test]
fn examples_are_run_and_differences_are_readable() {
    let folder = tempfile::tempdir().unwrap();
    let sound = write(folder.path(), "sound.toml", MAPPING);
    let said = say(&["mapping", "test", text(&sound)]);
    assert_eq!(said.code, 0, "{}", said.out);
    assert!(
        said.out.ends_with("6 examples: 6 ok, 0 differ; 0 of 4 blocks have none\n"),
        "{}",
        said.out
    );
    let file = write(folder.path(), "examples.toml", EXAMPLES);
    let said = say(&["mapping", "test", text(&file)]);
    assert_eq!(said.code, 1, "{}", said.err);
    let shown = said.out.replace(text(&file), "examples.toml");
    expect_file!["../tools/examples.out"].assert_eq(&shown);
}

#[test]
fn an_example_that_is_none_is_told_at_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let error = |example: &str| {
        let file =
            write(folder.path(), "m.toml", &format!("{MAPPING}\n[[event.example]]\n{example}\n"));
        let said = say(&["mapping", "test", text(&file)]);
        assert_eq!(said.code, 1, "{}", said.out);
        said.err
    };
    assert!(
        error("gives = \"nothing\"")
            .contains("an example needs \"new\", \"old\" or both\n  A row with new")
    );
    assert!(error("new = { id = \"a\" }").contains("the key \"gives\" is missing"));
    let word = error("new = { id = \"a\" }\ngives = \"nothin\"");
    assert!(word.contains("expected \"nothing\", a table in braces or a list of them"), "{word}");
    assert!(
        error("new = { id = 1 }\ngives = { subjekt = \"a\" }")
            .contains("Did you mean \"subject\"?")
    );
    let file = write(folder.path(), "none.toml", "");
    assert!(say(&["mapping", "test", text(&file)]).out.contains("0 examples"));
}

/// The id of the event with a type and a subject.
async fn event_uuid(portal: &Portal, event_type: &str, subject: &str) -> String {
    let query = format!(
        "SELECT event_uuid::text FROM public.events WHERE event_type = '{event_type}' AND subject = '{subject}' ORDER BY timestamp DESC LIMIT 1"
    );
    value(&portal.audit, &query).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_explained_by_its_block_and_its_transaction() {
    let (_mapping, portal) = small("tools_explain").await;
    run(
        &portal.source,
        "INSERT INTO portal.organizations (name, oid) VALUES ('orgtest', 1);
         INSERT INTO portal.organization_members VALUES ('orgtest', 'UserMember', 'eve'), ('orgtest', 'UserMember', 'ada')",
    )
    .await;
    let sidecar = portal.start().await;
    portal
        .act(
            "BEGIN;
             UPDATE portal.organization_members SET id = 'mallory' WHERE id = 'eve';
             DELETE FROM portal.organization_members WHERE id = 'ada';
             INSERT INTO portal.users (username, state, uid, gid, institution) VALUES ('mallory', 'Active', 1, 1, E'\\x1b[2J');
             COMMIT",
        )
        .await;
    sidecar.stop().await;
    let settings = SettingsFile::new(&portal);
    let config = text(&settings.path);
    let removed = event_uuid(&portal, "org_member_deleted", "orgtest").await;
    let explain = |arguments: &[&str]| say(&[&["explain", "--config", config], arguments].concat());
    let query = "SELECT string_agg(event_uuid || ' ' || coalesce(payload->'_audit'->>'rule', '-') || ' ' || target, ',' ORDER BY target) FROM public.events WHERE event_type = 'org_member_deleted'";
    let all: String = value(&portal.audit, query).await;
    let (ada, eve) = all.split_once(',').unwrap();
    // The second block of the type is told apart by its number, which stands in the event.
    assert!(eve.ends_with(" 1 eve") && ada.ends_with(" - ada"), "{all}");
    assert!(all.contains(&removed));
    let by_update = explain(&[eve.split(' ').next().unwrap()]);
    assert_eq!(by_update.code, 0, "{}", by_update.err);
    let place = MAPPING.lines().position(|line| line.starts_with("changed")).unwrap() - 3;
    assert!(
        by_update.out.contains(&format!("mapping.toml:{place}, from portal.organization_members")),
        "{}",
        by_update.out
    );
    assert!(
        by_update.out.contains(
            "target                 eve  ← portal.organization_members.id before the change"
        ),
        "{}",
        by_update.out
    );
    assert!(
        by_update.out.contains("user_created: (unknown) created user mallory"),
        "{}",
        by_update.out
    );
    let by_delete = explain(&[ada.split(' ').next().unwrap()]);
    assert!(by_delete.out.contains("eve from orgtest"), "{}", by_delete.out);
    assert!(by_delete.out.contains("    on           = \"delete\""), "{}", by_delete.out);

    let created = event_uuid(&portal, "user_created", "mallory").await;
    let said = explain(&[&created]);
    assert!(
        said.out.contains("payload.institution    \\u{1b}[2J  ← portal.users.institution"),
        "{}",
        said.out
    );
    assert!(said.out.contains(
        "caller                 (unknown)  ← nothing in the transaction names the caller"
    ));
    let json = explain(&[&created, "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["event"]["event_uuid"], created.as_str());
    assert_eq!(json["rules"][0]["columns"]["payload.state"], "portal.users.state");
    assert_eq!(json["transaction"]["source"], "tools_explain");
    assert_eq!(json["beside"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_explained_is_told() {
    let (_mapping, portal) = small("tools_unexplained").await;
    let settings = SettingsFile::new(&portal);
    let insert = async |id: u32, payload: &str| {
        let id = format!("00000000-0000-0000-0000-{id:012}");
        let insert = format!(
            "INSERT INTO public.events VALUES ('{id}', now(), 'thing_happened', '', 'x', 'thing', NULL, true, NULL, '{payload}')"
        );
        run(&portal.audit, &insert).await;
        id
    };
    let others = insert(1, "{}").await;
    let other_source =
        insert(2, r#"{"_audit": {"source": "elsewhere", "lsn": "0/1", "xid": 7}}"#).await;
    let caused = insert(
        3,
        r#"{"_audit": {"source": "tools_unexplained", "cause": "00000000-0000-0000-0000-000000000001", "backfill": true, "sideways": true}}"#,
    )
    .await;
    let explain = |id: &str| say(&["explain", id, "--config", text(&settings.path)]);
    let error = |id: &str| {
        let said = explain(id);
        assert_eq!(said.code, 1, "{}", said.out);
        said.err
    };
    assert!(error("00000000-0000-0000-0000-000000000009").contains("there is no event"));
    assert!(error(&others).contains("was not written by portal-audit"));
    assert!(error(&other_source).contains(
        "is of source \"elsewhere\", which the settings do not name; there are: tools_unexplained"
    ));
    let said = explain(&caused);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(
        said.out.contains("caused by 00000000-0000-0000-0000-000000000001: thing_happened x"),
        "{}",
        said.out
    );
    assert!(said.out.contains("  backfill: the row is older than the audit"), "{}", said.out);
    assert!(said.out.contains("No block of"), "{}", said.out);
    assert_eq!(explain("no-uuid").code, 2);

    run(&portal.audit, "CREATE ROLE tools_blind LOGIN").await;
    let dsn = cluster().dsn("tools_unexplained_audit", "tools_blind");
    let said = say(&["explain", &caused, "--config", text(&settings.path), "--audit", &dsn]);
    assert_eq!(said.code, 1);
    assert!(said.err.contains("Name a login that may read events"), "{}", said.err);
}

/// The shipped mapping with examples behind some of its blocks.
fn with_examples() -> String {
    const REFERENCE: &str = include_str!("../../deploy/mapping/merge-reference.toml");
    const REFERENCE_EXAMPLES: &str = include_str!("../tools/reference_examples.toml");
    let mut mapping = REFERENCE.to_owned();
    for part in REFERENCE_EXAMPLES.split("\n# ").skip(1) {
        let (event_type, examples) = part.split_once('\n').unwrap();
        let read = Mapping::parse("m.toml", &mapping).unwrap_or_else(|errors| panic!("{errors}"));
        let of_type = |rule: &&RuleSpec| rule.event_type.get_ref() == event_type;
        let rule = read.rules.iter().find(of_type).unwrap_or_else(|| panic!("{event_type}"));
        let end = read.block_span(rule).end;
        mapping.insert_str(end, &format!("\n\n{examples}\n"));
    }
    mapping
}

#[test]
fn examples_hold_for_the_shipped_mapping() {
    let folder = tempfile::tempdir().unwrap();
    let file = write(folder.path(), "reference.toml", &with_examples());
    let said = say(&["mapping", "test", text(&file)]);
    assert_eq!(said.code, 0, "{}\n{}", said.out, said.err);
    assert!(said.out.contains("16 examples: 16 ok, 0 differ"), "{}", said.out);
}
