//! What ops use is tried: the queries of dashboards and runbook run on the audit database of the sample portal, as the role that readers have, and say what the portal itself says. `deploy/check` looks at the rest of deploy/.

use crate::support::{Portal, Wishes, cluster, open, portal, run, value};
use portal_audit::{config::Settings, connect::Session, demo::portal::STORY_SQL};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};
use tokio_postgres::types::Type;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(deploy().join(name)).unwrap()
}

/// The sample portal with the demo's story, in which every event type occurs, and its events.
async fn told(name: &str) -> Portal {
    let wishes = Wishes { name, backfill: true, ..Wishes::default() };
    let portal = portal(cluster(), wishes).await;
    let sidecar = portal.start().await;
    portal.act(STORY_SQL).await;
    sidecar.stop().await;
    portal
}

/// One query of a panel.
struct Query {
    place: String,
    sql: String,
    is_series: bool,
}

fn dashboards() -> Vec<(String, Value)> {
    let files = std::fs::read_dir(deploy().join("grafana")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".json")).collect();
    names.sort();
    let board = |name: String| {
        let text = read(&format!("grafana/{name}"));
        let board = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, board)
    };
    names.into_iter().map(board).collect()
}

/// Every object of a document that has this key, with the nearest title or name above it.
fn having<'a>(value: &'a Value, key: &str, title: &'a str, found: &mut Vec<(&'a str, &'a Value)>) {
    if let Value::Array(entries) = value {
        entries.iter().for_each(|entry| having(entry, key, title, found));
    }
    if let Value::Object(entries) = value {
        let own = entries.get("title").or_else(|| entries.get("name"));
        let title = own.and_then(Value::as_str).unwrap_or(title);
        if entries.contains_key(key) {
            found.push((title, value));
        }
        entries.values().for_each(|entry| having(entry, key, title, found));
    }
}

/// What Grafana puts in the place of its macros and of the dashboard's variables: texts, not expressions.
fn expanded(sql: &str) -> String {
    const FROM: &str = "'2000-01-01T00:00:00Z'";
    const TO: &str = "'2100-01-01T00:00:00Z'";
    const FILTER: &str = "$__timeFilter(";
    let mut sql = sql
        .replace("$__timeFrom()", FROM)
        .replace("$__timeTo()", TO)
        .replace("${locations:sqlstring}", "'hill = 34.05,-118.25; nowhere=1,2'")
        .replace("${facility:sqlstring}", "'hill','dale'");
    while let Some((before, rest)) = sql.split_once(FILTER) {
        let (column, after) = rest.split_once(')').unwrap();
        sql = format!("{before}{column} BETWEEN {FROM} AND {TO}{after}");
    }
    assert!(!sql.contains('$'), "this is neither a macro nor a variable that is known: {sql}");
    sql
}

fn queries() -> Vec<Query> {
    let mut queries = Vec::new();
    for (name, board) in &dashboards() {
        let mut found = Vec::new();
        having(board, "rawSql", "", &mut found);
        for (title, target) in found {
            let sql = expanded(target["rawSql"].as_str().unwrap());
            let is_series = target["format"] == "time_series";
            queries.push(Query { place: format!("{name}: {title}"), sql, is_series });
        }
        found = Vec::new();
        having(board, "query", "", &mut found);
        for (title, variable) in found {
            // A variable that asks the audit database; the others are kinds of data sources, texts, and Prometheus' own.
            let asked = variable["query"].as_str().filter(|text| text.starts_with("SELECT "));
            if let Some(sql) = asked {
                let place = format!("{name}: {title}, variable {}", variable["name"]);
                queries.push(Query { place, sql: expanded(sql), is_series: false });
            }
        }
    }
    queries
}

/// A session that may do what a reader may.
async fn reader(portal: &Portal) -> Session {
    let session = open(cluster(), &format!("{}_audit", portal.name)).await;
    run(&session, "SET ROLE portal_audit_reader").await;
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_a_dashboard_runs() {
    const NUMBERS: &[Type] = &[Type::INT8, Type::INT4, Type::FLOAT8];
    let portal = told("deploy_queries").await;
    let reader = reader(&portal).await;
    let queries = queries();
    assert!(queries.len() > 30, "only {} queries were found", queries.len());
    let mut empty = BTreeSet::new();
    for Query { place, sql, is_series } in &queries {
        let asked = reader.client.prepare(sql).await;
        let asked = asked.unwrap_or_else(|error| panic!("{place}: {error:?}\n{sql}"));
        let rows = reader.client.query(&asked, &[]).await;
        let rows = rows.unwrap_or_else(|error| panic!("{place}: {error:?}\n{sql}"));
        let (first, others) = asked.columns().split_first().unwrap();
        if *is_series {
            let is_time = first.name() == "time" && *first.type_() == Type::TIMESTAMPTZ;
            assert!(is_time, "{place}: a series begins with its time");
            let numbers = others.iter().all(|column| NUMBERS.contains(column.type_()));
            assert!(numbers, "{place}: {others:?} are not all numbers");
        }
        if rows.is_empty() {
            empty.insert(place.as_str());
        }
    }
    // What the story has nothing of: gaps, what is not covered or not mapped, logins, facilities of other names.
    let known = ["Gaps", "Not covered now", "Changes without a rule", "Logins", "switched off"];
    let known = [&known[..], &["What happened there", "Map", "Resources switched on"]].concat();
    for place in empty {
        assert!(known.iter().any(|known| place.contains(known)), "{place} is empty");
    }
}

fn panel(title: &str) -> String {
    let all = queries();
    let mut found = all.iter().filter(|query| query.place.ends_with(&format!(": {title}")));
    found.next().unwrap_or_else(|| panic!("there is no panel {title}")).sql.clone()
}

/// The totals are those of the portal's own tables.
#[tokio::test(flavor = "multi_thread")]
async fn a_dashboard_counts_what_is_there() {
    let portal = told("deploy_totals").await;
    let reader = reader(&portal).await;
    let mut sum = 0;
    for (title, table) in [
        ("Users", "portal.users"),
        ("Organizations", "portal.organizations"),
        ("Projects", "portal.projects"),
        ("Experiments", "portal.experiments"),
        ("Materializations", "portal.materializations"),
    ] {
        let shown: i64 = value(&reader, &panel(title)).await;
        let there: i64 = value(&portal.source, &format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(shown, there, "{title}");
        sum += there;
    }
    assert!(sum > 10, "the story leaves only {sum} behind");
}

/// What is switched on is what the portal's own table says, whatever was switched before.
#[tokio::test(flavor = "multi_thread")]
async fn a_dashboard_knows_which_resources_are_on() {
    const SWITCHED: &str = "
        INSERT INTO portal.facilities (name, address) VALUES ('hill', 'hill.example'), ('dale', 'dale.example'), ('gone', ''), ('bare', '');
        INSERT INTO portal.facility_resources (facility, resource) SELECT f, 'm' || n FROM unnest(ARRAY['hill', 'dale', 'gone']) AS f, generate_series(1, 5) AS n;
        UPDATE portal.facility_resources SET active = FALSE WHERE facility = 'hill' AND resource IN ('m1', 'm2', 'm3');
        UPDATE portal.facility_resources SET active = TRUE WHERE facility = 'hill' AND resource = 'm2';
        UPDATE portal.facility_resources SET active = FALSE WHERE facility = 'dale';
        DELETE FROM portal.facility_resources WHERE facility = 'hill' AND resource = 'm3';
        DELETE FROM portal.facilities WHERE name = 'gone'";
    const THERE: &str = "SELECT string_agg(format('%s %s %s', f.name, r.active, r.inactive), ', ' ORDER BY f.name) FROM portal.facilities f CROSS JOIN LATERAL
        (SELECT count(*) FILTER (WHERE active) AS active, count(*) FILTER (WHERE NOT active) AS inactive FROM portal.facility_resources WHERE facility = f.name) AS r";
    let portal = told("deploy_facilities").await;
    let sidecar = portal.start().await;
    // One transaction for each, as an operator would.
    for statement in SWITCHED.split(';') {
        portal.act(statement).await;
    }
    sidecar.stop().await;
    let reader = reader(&portal).await;
    let status = panel("Status of every facility");
    let shown: String = value(&reader, &format!("SELECT string_agg(format('%s %s %s', facility, switched_on, switched_off), ', ' ORDER BY facility) FROM ({status}) AS s")).await;
    assert_eq!(shown, value::<String>(&portal.source, THERE).await);
    assert!(shown.contains("hill 3 1") && shown.contains("dale 0 5"), "{shown}");
    let state = format!(
        "SELECT string_agg(state, ', ' ORDER BY facility) FROM ({status}) AS s WHERE facility IN ('bare', 'dale', 'hill')"
    );
    let state: String = value(&reader, &state).await;
    assert_eq!(state, "– no resources known, ✕ all off, ◐ partly off");
    // Only where somebody said where it lies.
    let map = format!(
        "SELECT format('%s %s %s', facility, latitude, longitude) FROM ({}) AS m",
        panel("Map")
    );
    assert_eq!(value::<String>(&reader, &map).await, "hill 34.05 -118.25");
}

/// The statements of the runbook's SQL blocks, by where they are to be run.
fn runbook() -> Vec<(bool, String)> {
    let text = read("RUNBOOK.md");
    let blocks = text.split("```sql\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut statements = Vec::new();
    for block in blocks {
        // A block that opens a transaction is a pattern for a migration, which stands for what is not known here.
        if block.contains("BEGIN;") {
            continue;
        }
        let mut is_source = None;
        for line in block.split_inclusive(";\n") {
            for comment in line.lines().filter_map(|line| line.trim().strip_prefix("-- ")) {
                match comment.as_bytes().first() {
                    Some(b'S') => is_source = Some(true),
                    Some(b'A') => is_source = Some(false),
                    _ => panic!("a comment of the runbook says neither S nor A: {comment}"),
                }
            }
            let is_source = is_source.expect("a block of the runbook begins with -- S or -- A");
            statements.push((is_source, line.to_owned()));
        }
    }
    statements
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_runbook_runs() {
    let portal = told("deploy_runbook").await;
    let statements = runbook();
    assert!(statements.len() > 20, "only {} statements were found", statements.len());
    for (is_source, statement) in statements {
        let session = if is_source { &portal.source } else { &portal.audit };
        run(session, "BEGIN").await;
        let done = session.client.batch_execute(&statement).await;
        done.unwrap_or_else(|error| panic!("{error:?}\n{statement}"));
        run(session, "ROLLBACK").await;
    }
}

/// Names in a text that look like metrics of ours.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let is_part = |byte: char| byte.is_ascii_alphanumeric() || byte == '_';
    let words = text.split(|byte| !is_part(byte));
    words.filter(|word| word.starts_with("portal_audit_") || word.starts_with("process_")).collect()
}

/// `deploy/check` asks the same with the labels; here it is asked where the program's registry is compared with that list.
#[test]
fn every_metric_of_rules_and_dashboards_is_known() {
    let list = read("metrics.txt");
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let known: BTreeSet<&str> = lines.map(|line| line.split(' ').next().unwrap()).collect();
    let mut texts = vec![("rules.yml".to_owned(), read("prometheus/rules.yml"))];
    for (name, board) in &dashboards() {
        let mut found = Vec::new();
        having(board, "expr", "", &mut found);
        texts.extend(found.iter().map(|(title, target)| {
            (format!("{name}: {title}"), target["expr"].as_str().unwrap().to_owned())
        }));
    }
    let mut asked = 0;
    for (place, text) in &texts {
        for name in metrics_in(text) {
            let ends = ["_bucket", "_sum", "_count"];
            let base = ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(
                known.contains(name) || known.contains(base),
                "{place}: {name} is not in metrics.txt"
            );
            asked += 1;
        }
    }
    assert!(asked > 40, "only {asked} were found");
}

/// The text of the settings in a file of values, which indents it by four.
fn settings_in(values: &str) -> String {
    let (_, text) = values.split_once("  portal-audit.toml: |\n").unwrap();
    let lines = text.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    lines.map(|line| format!("{}\n", line.trim_start_matches("    "))).collect()
}

/// Settings that are shipped are understood by the program that they are shipped with.
#[test]
fn settings_of_the_examples_are_read() {
    const FILES: [&str; 5] = [
        "compose/portal-audit.toml",
        "kustomize/base/portal-audit.toml",
        "kustomize/example/portal-audit.toml",
        "helm/portal-audit/values.yaml",
        "cloudnativepg/values.yaml",
    ];
    for name in FILES {
        let text = read(name);
        let text = if name.ends_with(".yaml") { settings_in(&text) } else { text };
        let settings = Settings::parse(Path::new(name), &text);
        let settings = settings.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(settings.limits.spool_folder, Path::new("/var/lib/portal-audit"), "{name}");
        assert_eq!(settings.sources.len(), 1, "{name}");
    }
}
