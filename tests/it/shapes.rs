//! A portal of another shape: the worked mapping `deploy/mapping/campus.toml` and its fixtures.

use crate::support::{Wishes, cluster, portal, run};
use expect_test::expect_file;
use std::path::Path;

const SCHEMA: &str = include_str!("../../sql/sample/campus.sql");
const MAPPING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/mapping/campus.toml");

/// Runs one fixture. Nothing of it may be left without a rule.
async fn check(fixture: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/changes/campus");
    let path = folder.join(fixture).with_extension("sql");
    let script = std::fs::read_to_string(&path).unwrap();
    let (given, when) = script.split_once("\n-- when").expect("a fixture has a line `-- when`");
    let name = format!("campus_{fixture}");
    let wishes = Wishes { name: &name, schema: SCHEMA, mapping: MAPPING, ..Wishes::default() };
    let portal = portal(cluster(), wishes).await;
    run(&portal.source, given).await;
    let sidecar = portal.start().await;
    portal.act(when).await;
    sidecar.stop().await;
    expect_file![path.with_extension("events")].assert_eq(&portal.events().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts() {
    check("accounts").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_in_a_map() {
    check("member_map").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_table_of_members() {
    check("one_table_of_members").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions() {
    check("partitions").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cascade() {
    check("cascade").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creations() {
    check("creations").await;
}

#[test]
fn each_event_type_of_the_mapping_is_in_a_fixture() {
    let mapping = std::fs::read_to_string(MAPPING).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/changes/campus");
    let mut told = String::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "events") {
            told.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
    for event_type in mapping.lines().filter_map(|line| line.strip_prefix("type ")) {
        let event_type = event_type.trim_start_matches([' ', '=']).trim_matches('"');
        assert!(told.contains(&format!("{event_type}  ")), "{event_type} is in no fixture");
    }
}
