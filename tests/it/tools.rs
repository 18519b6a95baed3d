//! The verbs around mappings, as they are typed: what they print, and their exit codes.

use crate::support::{
    Portal, Wishes, cluster, portal,
    program::{SettingsFile, command},
    run,
};
use expect_test::expect_file;
use portal_audit::{config::Settings, sql};
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
