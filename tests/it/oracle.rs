//! PostgreSQL as the oracle of the decoder: random changes of every type, read from the raw stream, against what the server itself wrote of them in the same transaction.
//!
//! Two slots of one point read the same changes, one whole after each commit, one in segments before it: both must tell the same, and give the same event ids. The seed is printed; `PORTAL_AUDIT_SEED` repeats a run.

mod load;
mod stream;

use crate::support::{cluster, open, run, value};
use load::{Load, Table};
use portal_audit::{
    event::Origin,
    translate::{Batch, Limits, Step, Translator, mapping::Mapping},
};
use std::{hash::BuildHasher, num::NonZeroUsize, sync::Arc};
use stream::{Change, Slot, Stream};

/// Changes that a run makes at least, rolled back ones aside.
const CHANGES_MIN: usize = 300;

/// Settings of the database that would change the text of values, were they not pinned.
const HOSTILE_SETTINGS: &str = "datestyle = 'SQL, DMY'; intervalstyle = 'sql_standard'; timezone = 'Asia/Kathmandu'; bytea_output = 'escape'; extra_float_digits = -5";

fn seed() -> u64 {
    let given = std::env::var_os("PORTAL_AUDIT_SEED");
    let given = given.map(|text| text.into_string().unwrap().parse().unwrap());
    given.unwrap_or_else(|| std::hash::RandomState::new().hash_one(0))
}

/// The highest protocol of the server, and how it streams.
fn highest(version_num: u32) -> Vec<(&'static str, String)> {
    let (protocol, streaming) = match version_num {
        ..150_000 => ("2", "on"),
        150_000..160_000 => ("3", "on"),
        _ => ("4", "parallel"),
    };
    vec![("proto_version", protocol.to_owned()), ("streaming", streaming.to_owned())]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_says_what_the_server_says() {
    let seed = seed();
    println!("PORTAL_AUDIT_SEED={seed}");
    let postgres = open(cluster(), "postgres").await;
    run(&postgres, "CREATE DATABASE oracle").await;
    for setting in HOSTILE_SETTINGS.split("; ") {
        run(&postgres, &format!("ALTER DATABASE oracle SET {setting}")).await;
    }
    let session = open(cluster(), "oracle").await;
    let mut load = Load::new(&session, seed).await;
    let whole = Slot::create("oracle", "oracle_whole").await;
    let streamed = Slot::create("oracle", "oracle_streamed").await;
    while load.changes() < CHANGES_MIN {
        load.transaction(&session).await;
    }
    load.finish(&session).await;

    let version = streamed.version_num;
    let publications = "oracle, oracle_inserts";
    let whole = whole.read(publications, &[("proto_version", "1".to_owned())], usize::MAX).await;
    let streamed = streamed.read(publications, &highest(version), 100_000).await;
    assert!(!whole.was_streamed() && streamed.was_streamed());
    compare(&load.tables, &load.journal(&session).await, &whole.changes());
    assert_eq!(whole.changes(), streamed.changes());
    assert_eq!(events(&whole), events(&streamed));
}

/// The events of a stream, in order.
fn events(stream: &Stream) -> Vec<String> {
    const RULE: &str = "subject = \"id\"\nsubject_type = \"row\"\npayload = { big = \"big\", number = \"c_numeric\", document = \"c_json\" }\ndescribe = \"\"\nretention = \"project\"\n";
    let mut text = String::new();
    for table in load::TABLES {
        for (on, kind) in [("insert", "inserted"), ("update", "updated")] {
            text += &format!(
                "[[event]]\ntype = \"{table}_{kind}\"\ntable = \"o.{table}\"\non = \"{on}\"\n{RULE}"
            );
        }
    }
    let mapping = Arc::new(Mapping::parse("oracle.toml", &text).unwrap());
    let limits = Limits {
        names: NonZeroUsize::MIN,
        value_bytes: 20_000,
        batch_events: usize::MAX,
        batch_bytes: usize::MAX,
    };
    let origin = Origin { system_identifier: 1, database_oid: 1 };
    let mut translator = Translator::new(origin, "oracle", mapping, limits);
    let mut batch = Batch::default();
    for transaction in &stream.transactions {
        let mut translation = translator.begin(transaction);
        let step = translator.advance(transaction, &mut translation, &mut batch);
        assert_eq!(step.unwrap(), Step::Done);
    }
    batch.events.iter().map(|event| format!("{event:?}")).collect()
}

/// What the journal says of one change: its table, the operation, and the columns' texts before and after.
#[derive(Debug)]
pub struct Line {
    table: String,
    operation: String,
    old: Option<Vec<Option<String>>>,
    new: Option<Vec<Option<String>>>,
}

fn compare(tables: &[Table], journal: &[Line], changes: &[Change]) {
    let table = |name: &str| tables.iter().find(|table| table.name == name).unwrap();
    let journal: Vec<&Line> =
        journal.iter().filter(|line| table(&line.table).publishes(&line.operation)).collect();
    let mut unsent = 0;
    for (place, (line, change)) in journal.iter().zip(changes).enumerate() {
        assert_eq!(
            (&line.table, &line.operation),
            (&change.table, &change.operation),
            "change {place}"
        );
        let table = table(&line.table);
        assert_eq!(change.columns, table.columns, "change {place}");
        for (position, column) in change.columns.iter().enumerate() {
            let at = format!("change {place}: {} of {}.{column}", line.operation, line.table);
            unsent += usize::from(compare_column(table, line, change, position, &at));
        }
    }
    assert_eq!(journal.len(), changes.len());
    assert!(unsent > 0, "no unchanged TOASTed value was left out");
}

/// Compares a column at both sides of a change; says whether its new value was not sent.
fn compare_column(table: &Table, line: &Line, change: &Change, position: usize, at: &str) -> bool {
    let at_position =
        |row: &Option<Vec<Option<String>>>| row.as_ref().map(|row| row[position].clone());
    let (old, new) = (at_position(&line.old), at_position(&line.new));
    let carried = table.carries_old(position);
    let expected_old = old.clone().filter(|_| carried);
    assert_eq!(change.old[position], expected_old, "{at}, old");
    if line.operation == "update" {
        let changed = carried && old != new;
        assert_eq!(change.is_changed[position], changed, "{at}, is changed");
    }
    let expected = if line.operation == "delete" { expected_old } else { new.clone() };
    let got = &change.new[position];
    if *got == expected {
        return false;
    }
    // Not sent: allowed only for a TOASTed value that did not change, where no old tuple holds it.
    assert_eq!(*got, None, "{at}");
    assert!(line.operation == "update" && !carried && old == new, "{at} was not sent");
    assert!(new.flatten().is_some(), "{at} is NULL and was not sent");
    true
}

/// The server tells a relation once in a streamed transaction, and not again after the savepoint in which it did so was rolled back.
#[tokio::test(flavor = "multi_thread")]
async fn a_relation_first_seen_in_a_rolled_back_savepoint_is_known_after_it() {
    let postgres = open(cluster(), "postgres").await;
    run(&postgres, "CREATE DATABASE oracle_savepoint").await;
    let session = open(cluster(), "oracle_savepoint").await;
    let schema =
        "CREATE TABLE a (id INT PRIMARY KEY, t TEXT); CREATE TABLE marker (id INT PRIMARY KEY);
        ALTER TABLE a ALTER t SET STORAGE EXTERNAL; CREATE PUBLICATION oracle FOR TABLE a, marker";
    run(&session, schema).await;
    let slot = Slot::create("oracle_savepoint", "oracle_savepoint").await;
    let rows = |from: i32| {
        format!(
            "INSERT INTO a SELECT g, repeat(md5(g::text), 40) FROM generate_series({from}, {from} + 199) g;"
        )
    };
    let options = highest(slot.version_num);
    let mut segments = slot.segments.subscribe();
    let act = async {
        // What is rolled back is streamed before: the server leaves out what it knows to be aborted.
        let mut step = async |script: String, streams: bool| {
            segments.mark_unchanged();
            run(&session, &script).await;
            if streams {
                segments.changed().await.unwrap();
            }
        };
        step(format!("BEGIN; SAVEPOINT s; {}", rows(1)), true).await;
        step(format!("ROLLBACK TO s; {}", rows(1_001)), true).await;
        step(format!("SAVEPOINT t; ALTER TABLE a ADD extra INT DEFAULT 7; {}", rows(2_001)), true)
            .await;
        step(format!("SAVEPOINT u; {} RELEASE u", rows(3_001)), true).await;
        step(format!("ROLLBACK TO t; {} COMMIT", rows(4_001)), false).await;
        step("INSERT INTO marker VALUES (1)".to_owned(), false).await;
    };
    let (stream, ()) = tokio::join!(slot.read("oracle", &options, 100_000), act);
    assert!(stream.was_streamed());
    let ids: Vec<i32> = stream
        .changes()
        .iter()
        .map(|change| change.new[0].clone().flatten().unwrap().parse().unwrap())
        .collect();
    assert_eq!(ids, (1_001..1_201).chain(4_001..4_201).collect::<Vec<_>>());
    assert_eq!(value::<i64>(&session, "SELECT count(*) FROM a").await, 400);
}
