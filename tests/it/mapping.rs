//! Mappings: what is wrong in one is told at its place, nothing that stands in one brings the program down, and a new event type is a block and no Rust.
//!
//! A broken mapping stands in `tests/mapping/NAME.toml`, what is said of it beside it in `NAME.error`. Those in `live/` are sound in themselves and do not fit the database; a `NAME.sql` is run there first.

use crate::support::{
    Portal, Sidecar, Wishes, cluster, installation, open, portal, run, sample, value,
};
use expect_test::expect_file;
use portal_audit::{
    config::Settings,
    sql,
    translate::{
        deny::{denied_pattern, is_denied},
        mapping::Mapping,
    },
};
use proptest::prelude::*;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::task::JoinSet;

/// Fixtures that run at the same time.
const AT_ONCE: usize = 4;
/// Lines of one event type under its header.
const BLOCK_LINES_MAX: usize = 12;
const SHIPPED: &str = include_str!("../../deploy/mapping/merge-reference.toml");

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|end| end == extension)).collect();
    files.sort();
    files
}

fn stem(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

fn parse(path: &Path) -> Result<Mapping, String> {
    let text = std::fs::read_to_string(path).unwrap();
    let file = path.file_name().unwrap().to_str().unwrap();
    Mapping::parse(file, &text).map_err(|errors| errors.to_string())
}

#[test]
fn a_broken_mapping_is_told_at_its_place() {
    let fixtures = files(&folder("mapping"), "toml");
    assert!(fixtures.len() >= 18);
    for path in fixtures {
        let error = parse(&path).expect_err(stem(&path));
        let place = format!("{}.toml:", stem(&path));
        let firsts = error.lines().filter(|line| !line.starts_with("  "));
        assert!(firsts.into_iter().all(|line| line.starts_with(&place)), "{error}");
        expect_file![path.with_extension("error")].assert_eq(&(error + "\n"));
    }
}

/// Column lists and row filters came with PostgreSQL 15.
const FROM_15: [&str; 4] =
    ["columns_of_a_full_identity", "row_filter", "unpublished_column", "unpublished_key"];

/// What the sidecar ends with, and that it left no slot behind.
async fn check_live(path: &Path, portal: &mut Portal) {
    let mapping = parse(path).unwrap_or_else(|error| panic!("{error}"));
    portal.settings.sources[0].mapping = Arc::new(mapping);
    let faults = Sidecar::start(portal.settings.clone()).ended().await;
    expect_file![path.with_extension("error")].assert_eq(&(faults.join("\n") + "\n"));
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
    assert_eq!(value::<i64>(&portal.source, slots).await, 0, "{}", stem(path));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_does_not_fit_the_database_stops_its_source() {
    let major = installation().major;
    let fixtures = files(&folder("mapping/live"), "toml");
    let (changed, plain): (Vec<_>, Vec<_>) =
        fixtures.into_iter().partition(|path| path.with_extension("sql").is_file());
    let mut portal = sample("mapping_live").await;
    for path in plain {
        check_live(&path, &mut portal).await;
    }
    let mut running = JoinSet::new();
    for path in changed {
        if major < 15 && FROM_15.contains(&stem(&path)) {
            continue;
        }
        if running.len() == AT_ONCE {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(async move {
            let mut portal = sample(&format!("mapping_{}", stem(&path))).await;
            let script = std::fs::read_to_string(path.with_extension("sql")).unwrap();
            run(&portal.source, &script).await;
            check_live(&path, &mut portal).await;
        });
    }
    while let Some(checked) = running.join_next().await {
        checked.unwrap();
    }
}

/// The shipped blocks: their lines without blanks, comments and examples, and the line with the type.
fn blocks() -> Vec<(usize, String)> {
    let mut blocks: Vec<(usize, String)> = Vec::new();
    let mut is_inside = false;
    for line in SHIPPED.lines().map(str::trim) {
        if line.starts_with('[') {
            is_inside = line == "[[event]]";
            blocks.extend(is_inside.then(|| (0, String::new())));
        }
        let Some((lines, event_type)) = blocks.last_mut().filter(|_| is_inside) else { continue };
        *lines += usize::from(!line.is_empty() && !line.starts_with(['#', '[']));
        if let Some(word) = line.strip_prefix("type ") {
            *event_type = word.trim_matches([' ', '=', '"']).to_owned();
        }
    }
    blocks
}

#[test]
fn an_event_type_is_a_few_lines_and_has_its_fixture() {
    let blocks = blocks();
    assert!(!blocks.is_empty());
    for (lines, event_type) in blocks {
        assert!(lines <= BLOCK_LINES_MAX, "{event_type} takes {lines} lines");
        for extension in ["sql", "events"] {
            let fixture = folder("changes/portal").join(format!("{event_type}.{extension}"));
            assert!(fixture.is_file(), "{} is missing", fixture.display());
        }
    }
}

const NEW_TYPE: &str = r#"[[event]]
type         = "facility_sited"
table        = "portal.facilities"
on           = "insert"
subject      = "name"
subject_type = "facility"
target       = { column = "properties", path = "$.site.name" }
payload      = { access = { label = "access_mode" }, racks = { column = "properties", path = "$.racks[*].id", list = true } }
describe     = "{caller} put facility {subject} at {target}"
visible_to   = ["admin"]
retention    = "project"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_event_type_is_a_block_and_no_rust() {
    assert!(NEW_TYPE.lines().count() <= BLOCK_LINES_MAX);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mapping.toml");
    std::fs::write(&file, format!("{SHIPPED}\n{NEW_TYPE}")).unwrap();
    let wishes = Wishes { name: "new_type", mapping: file.to_str().unwrap(), ..Wishes::default() };
    let portal = portal(cluster(), wishes).await;
    let sidecar = portal.start().await;
    portal
        .act(
            r#"INSERT INTO portal.facilities (name, address, properties)
               VALUES ('lighthouse', '::1', '{"site": {"name": "Pier 4"}, "racks": [{"id": 7}, {"id": 9}]}')"#,
        )
        .await;
    sidecar.stop().await;
    expect_test::expect![[r#"
        facility_registered  caller= (none)  subject=facility/lighthouse  ok
            {"address": "::1", "access_mode": "public", "description": ""}
        facility_sited  caller= (none)  subject=facility/lighthouse  target=Pier 4  ok
            {"racks": [7, 9], "access": "public"}
    "#]]
    .assert_eq(&portal.events().await);
    let describe =
        "SELECT describe FROM portal_audit.event_types WHERE event_type = 'facility_sited'";
    let describe: String = value(&portal.audit, describe).await;
    assert_eq!(describe, "{caller} put facility {subject} at {target}");
}

/// Parses; what it finds does not matter, and any fault must have a place in the file.
fn survives(text: &str) {
    if let Err(errors) = Mapping::parse("m.toml", text) {
        let lines = text.matches('\n').count() + 1;
        assert!(!errors.0.is_empty());
        assert!(errors.0.iter().all(|error| error.line <= lines), "{errors}");
    }
}

/// Words of the shipped mapping with what stands between them.
fn tokens() -> Vec<&'static str> {
    SHIPPED
        .split_inclusive(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_bring_the_parser_down(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        survives(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_mutation_brings_the_parser_down(
        at in any::<prop::sample::Index>(),
        from in any::<prop::sample::Index>(),
        kind in 0..4,
        other in "[\\[\\]{}=\",.$@?(0-9a-zé_ \n-]{0,12}",
    ) {
        let mut tokens = tokens();
        let (at, from) = (at.index(tokens.len()), tokens[from.index(tokens.len())]);
        match kind {
            0 => drop(tokens.remove(at)),
            1 => tokens.insert(at, tokens[at]),
            2 => tokens[at] = from,
            _ => tokens[at] = other.as_str(),
        }
        survives(&tokens.concat());
    }
}

#[test]
fn depth_does_not_overflow_the_stack() {
    const DEEP: usize = 100_000;
    let value = |value: &str| format!("[[event]]\nsubject = {value}\n");
    let path = |path: &str| value(&format!("{{ column = \"c\", path = \"{path}\" }}"));
    for text in [
        value(&"[".repeat(DEEP)),
        value(&"{ when = ".repeat(DEEP)),
        value(&format!("{}1{}", "{ key = ".repeat(70), " }".repeat(70))),
        format!("{}a = 1", "a.".repeat(DEEP)),
        format!("[{}a]", "a.".repeat(DEEP)),
        path(&format!("$[?{}", "(".repeat(DEEP))),
        path(&format!("$[?{}@.a]", "!".repeat(240))),
        path(&format!("${}", "[?@".repeat(16))),
        path(&format!("$[?{}@.a{}]", "(".repeat(14), ")".repeat(14))),
        path(&format!("$[?{}true]", "@.a&&".repeat(48))),
        path(&format!("${}", ".a".repeat(127))),
    ] {
        survives(&text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn program_and_script_agree_on_what_a_secret_is() {
    let session = open(cluster(), "postgres").await;
    let names = [
        "password",
        "PasswordHash",
        "tokenHash",
        "api_key",
        "apiKey",
        "apikey",
        "key",
        "user_pwd",
        "passenger",
        "hashtag",
        "private_key",
        "privateKey",
        "recovery_code",
        "code",
        "otp",
        "Salt",
        "username",
        "tokens",
        "secrets",
        "session-cookie",
        "totp2",
        "key_material",
        "signature",
        "category",
    ];
    for name in names {
        let query = "SELECT regexp_replace($1, '([a-z0-9])([A-Z])', '\\1_\\2', 'g') ~* $2";
        let row = session.client.query_one(query, &[&name, &denied_pattern()]).await.unwrap();
        assert_eq!(row.get::<_, bool>(0), is_denied(name), "{name}");
    }
    assert!(sql::source(&sample_source()).contains(&denied_pattern()));
}

fn sample_source() -> portal_audit::config::Source {
    let text = crate::support::settings_text(cluster(), "some", "merge-reference", false, "");
    Settings::parse(Path::new("test.toml"), &text).unwrap().sources.remove(0)
}
