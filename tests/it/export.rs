//! `export`: what it writes reads back to the same rows, twice to the same bytes, and goes on where it was cut.

use crate::support::{self, Portal, run, value};
use expect_test::expect_file;
use portal_audit::{
    export::{self, CheckError, Exported, Format, Request, check, is_formula},
    filter::Filter,
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

const FORMATS: [Format; 4] = [Format::Csv, Format::Jsonl, Format::Cloudevents, Format::Ocsf];

/// Values that break files: formulas, quotes, line ends, letters that turn the line around, long ones, numbers that no double holds.
const HOSTILE: &str = r#"
    INSERT INTO portal_audit.progress (source, state, slot, system_identifier, timeline, database_oid, end_lsn, complete_to)
    VALUES ('portal', 'streaming', 's', '1', 1, 1, '0/0', '2026-05-01');
    INSERT INTO public.events
    SELECT md5(n::text)::uuid, '2026-04-23 20:50:23.123456+00'::timestamptz + (n / 2) * interval '1 second',
           'type_' || n, v, v, 'user', CASE WHEN n % 3 > 0 THEN v END, n % 2 = 0, CASE WHEN n % 5 > 0 THEN v END,
           jsonb_build_object(v, v, '_audit', jsonb_build_object('source', 'portal', 'lsn', '1/ABC', 'n', n))
      FROM unnest(ARRAY['', '=1+1', '+1', '-1', '@SUM(A1)', E'\t=1', E'\r=1', E'\n=1', '=HYPERLINK("http://x","y")', '"', '""', ',', ';', '''', E'a\r\nb', E'a\nb', E'\\',
                        U&'\202Egnp.exe', U&'\200B=1', U&'\FEFF=1', U&'\FF1D1', 'größer', '<script>', repeat('x"', 5000), E'\x1b[2J', ' =1', 'NULL', '%n${jndi:x}'])
             WITH ORDINALITY AS hostile (v, n);
    INSERT INTO public.events VALUES
      ('00000000-0000-4000-8000-000000000001', '2026-04-24', 'model_pushed', 'a', 'b', 'experiment', NULL, true, NULL, '{"n": 1e400, "d": 0.10, "model": null}'),
      ('00000000-0000-4000-8000-000000000002', '2026-04-24', 'deep', 'a', 'b', 'experiment', NULL, true, NULL, (repeat('[', 1000) || repeat(']', 1000))::jsonb),
      ('00000000-0000-4000-8000-000000000003', '2026-04-24', 'of_others', 'a', 'b', 'experiment', NULL, true, NULL, '{"_audit": "ours"}'),
      ('00000000-0000-4000-8000-000000000004', '2026-04-25', 'model_pushed', 'a', 'b', 'experiment', NULL, true, NULL, jsonb_build_object('model', repeat('node = 1;', 200000))),
      ('00000000-0000-4000-8000-000000000005', '2026-05-02', 'later', 'a', 'b', 'experiment', NULL, true, NULL, '{}');
"#;

/// Rows of [`HOSTILE`] before the record's end.
const ROWS: u64 = 32;

struct Place {
    portal: Portal,
    folder: tempfile::TempDir,
}

impl Place {
    async fn new(name: &str) -> Self {
        let portal = support::sample(name).await;
        run(&portal.audit, HOSTILE).await;
        Self { portal, folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn request(&self, format: Format, name: &str) -> Request {
        Request {
            format,
            out: Some(self.path(name)),
            resume: false,
            force: false,
            after: None,
            raw: false,
            open: false,
            filter: Filter::default(),
        }
    }

    async fn export(&self, request: Request) -> Exported {
        let exported = export::export(&self.portal.settings.audit, request).await;
        exported.unwrap_or_else(|error| panic!("{}", portal_audit::chain::chain(&error)))
    }

    /// The rows as the server prints them, in order; NULL is empty.
    async fn rows(&self) -> Vec<[Option<String>; 10]> {
        const QUERY: &str = "SELECT event_uuid::text, to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), event_type, caller, subject, subject_type, target, success::text, error_message, payload::text FROM public.events WHERE timestamp < '2026-05-01' ORDER BY timestamp, event_uuid";
        let rows = self.portal.audit.client.query(QUERY, &[]).await.unwrap();
        rows.iter().map(|row| std::array::from_fn(|column| row.get(column))).collect()
    }
}

fn cells(path: &Path) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_path(path).unwrap();
    let records = reader.records().map(Result::unwrap);
    records.map(|record| record.iter().map(str::to_owned).collect()).collect()
}

#[tokio::test]
async fn a_csv_reads_back_and_no_cell_is_a_formula() {
    let place = Place::new("export_csv").await;
    let rows = place.rows().await;
    place.export(place.request(Format::Csv, "safe.csv")).await;
    place.export(Request { raw: true, ..place.request(Format::Csv, "raw.csv") }).await;
    let (safe, raw) = (cells(&place.path("safe.csv")), cells(&place.path("raw.csv")));
    assert_eq!(safe.len(), rows.len() + 1);
    let mut formulas = 0;
    for ((row, safe), raw) in rows.iter().zip(&safe[1..]).zip(&raw[1..]) {
        for ((value, safe), raw) in row.iter().zip(safe).zip(raw) {
            let value = value.as_deref().unwrap_or_default();
            assert_eq!(raw, value);
            assert!(!is_formula(safe), "{safe:?}");
            if is_formula(value) {
                formulas += 1;
                assert_eq!(safe.strip_prefix('\''), Some(value));
            } else {
                assert_eq!(safe, value);
            }
        }
    }
    assert!(formulas > 20, "{formulas}");
    let text = fs::read(place.path("safe.csv")).unwrap();
    assert!(text.starts_with(b"event_uuid,timestamp,event_type,caller,subject,subject_type,target,success,error_message,payload\r\n"));
}

#[tokio::test]
async fn a_line_of_json_is_the_row_byte_for_byte() {
    let place = Place::new("export_jsonl").await;
    let rows = place.rows().await;
    place.export(place.request(Format::Jsonl, "events.jsonl")).await;
    let text = fs::read_to_string(place.path("events.jsonl")).unwrap();
    let lines: Vec<&str> = text.split_terminator('\n').collect();
    assert_eq!(lines.len(), rows.len());
    for (row, line) in rows.iter().zip(lines) {
        let line: BTreeMap<&str, &serde_json::value::RawValue> =
            serde_json::from_str(line).unwrap();
        let text = |key: &str| serde_json::from_str::<Option<String>>(line[key].get()).unwrap();
        for (column, key) in
            ["event_uuid", "timestamp", "event_type", "caller", "subject", "subject_type", "target"]
                .into_iter()
                .enumerate()
        {
            assert_eq!(text(key), row[column], "{key}");
        }
        assert_eq!(Some(line["success"].get()), row[7].as_deref());
        assert_eq!(text("error_message"), row[8]);
        assert_eq!(Some(line["payload"].get()), row[9].as_deref());
    }
}

#[tokio::test]
async fn a_cloud_event_has_attributes_that_the_specification_allows() {
    let place = Place::new("export_cloudevents").await;
    place.export(place.request(Format::Cloudevents, "events.jsonl")).await;
    let text = fs::read_to_string(place.path("events.jsonl")).unwrap();
    let mut ids = std::collections::BTreeSet::new();
    for line in text.split_terminator('\n') {
        let line: BTreeMap<&str, &serde_json::value::RawValue> =
            serde_json::from_str(line).unwrap();
        for (name, value) in line.iter().filter(|(name, _)| **name != "data") {
            assert!(
                name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit())
            );
            let value: String = serde_json::from_str(value.get()).unwrap();
            assert!(!value.is_empty() && !value.contains(char::is_control), "{name}: {value:?}");
        }
        assert_eq!(line["specversion"].get(), "\"1.0\"");
        assert!(line["source"].get().starts_with("\"/portal-audit"));
        assert!(ids.insert(line["id"].get().to_owned()));
    }
    assert_eq!(ids.len(), usize::try_from(ROWS).unwrap());
    assert!(text.contains(r#""sequence":"0000000100000ABC.0000000001""#), "{text:.900}");
}

#[tokio::test]
async fn two_exports_of_a_closed_range_have_the_same_bytes() {
    let place = Place::new("export_twice").await;
    for format in FORMATS {
        let first = place.export(place.request(format, &format!("{format}.1"))).await;
        run(&place.portal.audit, "INSERT INTO public.events VALUES (gen_random_uuid(), '2026-06-01', 'later', '', '', '', NULL, true, NULL)").await;
        let second = place.export(place.request(format, &format!("{format}.2"))).await;
        assert!(first.manifest.range.closed && first.manifest.rows == ROWS);
        assert_eq!(first.manifest.sha256, second.manifest.sha256, "{format}");
        assert_eq!(check(&place.path(&format!("{format}.1"))).unwrap(), first.manifest);
    }
    // Exports are events too, where they are recorded.
    let all = place.portal.count().await;
    let open = Request { open: true, ..place.request(Format::Jsonl, "open") };
    let open = place.export(open).await;
    assert!(all >= 37);
    assert_eq!(
        (i64::try_from(open.manifest.rows).unwrap(), open.manifest.range.closed),
        (all, false)
    );
    // What is known of no source is promised of none.
    run(&place.portal.audit, "UPDATE portal_audit.progress SET complete_to = NULL").await;
    let unknown = place.export(place.request(Format::Jsonl, "unknown")).await;
    assert!(!unknown.manifest.range.closed);
}

#[tokio::test]
async fn an_export_that_was_cut_anywhere_goes_on_to_the_same_bytes() {
    let place = Place::new("export_resume").await;
    for format in FORMATS {
        let name = format!("{format}");
        let whole = place.export(place.request(format, &name)).await.manifest;
        let path = place.path(&name);
        let text = fs::read(&path).unwrap();
        // At its ends, in the header, behind quotes and line ends, in the midst of cells.
        let mut cuts = vec![0, 1, 40, 107, 108, 109, text.len() - 1, text.len()];
        cuts.extend((1..12).map(|part| 4_000 * part + part));
        for cut in cuts {
            fs::rename(&path, place.path(&format!("{format}.old"))).unwrap();
            fs::write(place.path(&format!("{format}.part")), &text[..cut]).unwrap();
            let mut part = whole.clone();
            (part.rows, part.truncated) = (0, true);
            let part = serde_json::to_string(&part).unwrap();
            fs::write(place.path(&format!("{format}.part.manifest.json")), part).unwrap();
            let request = Request { resume: true, ..place.request(format, &name) };
            let mut resumed = place.export(request).await.manifest;
            resumed.recorded_as.clone_from(&whole.recorded_as);
            assert!(fs::read(&path).unwrap() == text, "{format} cut at {cut}");
            assert_eq!(resumed, whole, "{format} cut at {cut}");
        }
    }
}

/// A part may lie for days, and retention takes what is oldest.
#[tokio::test]
async fn a_part_goes_on_though_its_events_are_gone() {
    let place = Place::new("export_gone").await;
    let ids: Vec<String> = place.rows().await.into_iter().filter_map(|[id, ..]| id).collect();
    let (gone, next) = (&ids[..ids.len() / 2], &ids[ids.len() / 2]);
    let mut wholes = Vec::new();
    for format in FORMATS {
        let name = format!("{format}");
        let manifest = place.export(place.request(format, &name)).await.manifest;
        let text = fs::read_to_string(place.path(&name)).unwrap();
        let cut = text[..text.find(next.as_str()).unwrap()].rfind('\n').unwrap() + 1;
        fs::remove_file(place.path(&name)).unwrap();
        fs::write(place.path(&format!("{name}.part")), &text[..cut]).unwrap();
        let part = serde_json::to_string(&manifest).unwrap();
        fs::write(place.path(&format!("{name}.part.manifest.json")), part).unwrap();
        wholes.push((format, name, text, manifest));
    }
    let delete = "DELETE FROM public.events WHERE event_uuid = ANY ($1::text[]::uuid[])";
    let deleted = place.portal.audit.client.execute(delete, &[&gone]).await.unwrap();
    assert_eq!(deleted, gone.len() as u64);
    for (format, name, text, whole) in wholes {
        let request = Request { resume: true, ..place.request(format, &name) };
        let mut resumed = place.export(request).await.manifest;
        resumed.recorded_as.clone_from(&whole.recorded_as);
        assert!(fs::read_to_string(place.path(&name)).unwrap() == text, "{format}");
        assert_eq!(resumed, whole, "{format}");
    }
}

#[tokio::test]
async fn a_part_goes_on_only_as_what_it_began_as() {
    let place = Place::new("export_part").await;
    let whole = place.export(place.request(Format::Csv, "a")).await.manifest;
    fs::rename(place.path("a"), place.path("b.part")).unwrap();
    fs::write(place.path("b.part.manifest.json"), serde_json::to_string(&whole).unwrap()).unwrap();
    let fails = async |request: Request| {
        let result = export::export(&place.portal.settings.audit, request).await;
        result.unwrap_err().to_string()
    };
    let said = fails(Request { resume: true, ..place.request(Format::Jsonl, "b") }).await;
    assert!(said.contains("another format"), "{said}");
    let said = fails(Request { resume: true, raw: true, ..place.request(Format::Csv, "b") }).await;
    assert!(said.contains("another --raw"), "{said}");
    let filter = Filter { caller: vec!["a".into()], ..Filter::default() };
    let said = fails(Request { resume: true, filter, ..place.request(Format::Csv, "b") }).await;
    assert!(said.contains("another filter"), "{said}");
    let said = fails(place.request(Format::Csv, "b")).await;
    assert!(said.contains("b.part is there"), "{said}");
    let forced = Request { force: true, ..place.request(Format::Csv, "b") };
    assert_eq!(place.export(forced).await.manifest, whole_of(&place.path("b")));
    let said = fails(place.request(Format::Csv, "b")).await;
    assert!(said.contains("--force replaces it"), "{said}");
    assert!(!place.path("b.part").exists() && !place.path("b.part.manifest.json").exists());
}

fn whole_of(path: &Path) -> export::Manifest {
    check(path).unwrap()
}

#[tokio::test]
async fn a_file_that_was_changed_is_told_from_its_manifest() {
    let place = Place::new("export_check").await;
    let path = place.path("events.jsonl");
    let manifest = place.export(place.request(Format::Jsonl, "events.jsonl")).await.manifest;
    let text = fs::read(&path).unwrap();
    let mut changed = text.clone();
    changed[200] ^= 1;
    fs::write(&path, &changed).unwrap();
    assert!(matches!(check(&path), Err(CheckError::Hash { .. })));
    fs::write(&path, &text[..text.len() - 1]).unwrap();
    assert!(matches!(check(&path), Err(CheckError::Bytes { .. })));
    fs::write(&path, &text).unwrap();
    check(&path).unwrap();
    let beside = export::beside(&path);
    let forged = export::Manifest { rows: manifest.rows + 1, ..manifest.clone() };
    fs::write(&beside, serde_json::to_string(&forged).unwrap()).unwrap();
    assert!(matches!(check(&path), Err(CheckError::Rows { .. })));
    let part = export::Manifest { truncated: true, ..manifest };
    fs::write(&beside, serde_json::to_string(&part).unwrap()).unwrap();
    assert!(matches!(check(&path), Err(CheckError::Truncated { .. })));
    fs::remove_file(&beside).unwrap();
    assert!(matches!(check(&path), Err(CheckError::Read { .. })));
}

#[cfg(feature = "parquet")]
#[tokio::test]
async fn a_parquet_file_holds_the_same_rows() {
    use parquet::{
        file::reader::{FileReader as _, SerializedFileReader},
        record::RowAccessor as _,
    };
    let place = Place::new("export_parquet").await;
    let rows = place.rows().await;
    let exported = place.export(place.request(Format::Parquet, "events.parquet")).await;
    assert_eq!(check(&place.path("events.parquet")).unwrap(), exported.manifest);
    let file = fs::File::open(place.path("events.parquet")).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let read: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    assert_eq!(read.len(), rows.len());
    for (row, read) in rows.iter().zip(&read) {
        let id = uuid::Uuid::from_slice(read.get_bytes(0).unwrap().data()).unwrap();
        assert_eq!(Some(id.to_string()), row[0]);
        assert_eq!(read.get_string(9).ok(), row[9].as_ref());
        assert_eq!(read.get_string(2).ok(), row[2].as_ref());
        assert_eq!(read.get_string(6).ok(), row[6].as_ref());
        assert_eq!(read.get_bool(7).unwrap().to_string(), row[7].clone().unwrap());
        assert_eq!(read.get_string(8).ok(), row[8].as_ref());
        let at = chrono::DateTime::from_timestamp_micros(read.get_timestamp_micros(1).unwrap());
        let at = at.unwrap().format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
        assert_eq!(Some(at), row[1]);
    }
}

#[tokio::test]
async fn an_export_has_the_rows_of_its_filter_behind_its_event_and_is_recorded() {
    let place = Place::new("export_filter").await;
    // As in sql/access.sql, where that is not there.
    run(&place.portal.audit, "DO $do$ BEGIN IF to_regprocedure('portal_audit.record_read(text,jsonb,bigint)') IS NULL THEN CREATE FUNCTION portal_audit.record_read(p_what text, p_filter jsonb, p_rows bigint) RETURNS uuid LANGUAGE sql AS $$ SELECT portal_audit.record(p_what, session_user, 'events', 'audit', NULL, true, NULL, jsonb_build_object('filter', p_filter, 'rows', p_rows)) $$; END IF; END $do$").await;
    let filter = Filter { event_type: vec!["model_*".into()], ..Filter::default() };
    let both = place
        .export(Request { filter: filter.clone(), ..place.request(Format::Jsonl, "both") })
        .await;
    assert_eq!(both.manifest.rows, 2);
    let first = both.manifest.range.first.as_ref().unwrap().event_uuid.parse().unwrap();
    let after = Request { filter, after: Some(first), ..place.request(Format::Jsonl, "after") };
    let after = place.export(after).await.manifest;
    assert_eq!((after.rows, after.range.first), (1, both.manifest.range.last.clone()));
    let recorded = both.manifest.recorded_as.unwrap();
    let told: String = value(&place.portal.audit, &format!("SELECT event_type || ' ' || (payload->'rows') || ' ' || (payload->'filter') FROM public.events WHERE event_uuid = '{recorded}'")).await;
    assert_eq!(told, r#"log_exported 2 {"type": ["model_*"]}"#);
    let unknown =
        Request { after: Some(uuid::Uuid::nil()), ..place.request(Format::Jsonl, "none") };
    let error = export::export(&place.portal.settings.audit, unknown).await.unwrap_err();
    assert!(error.to_string().contains("there is no event 00000000"), "{error}");
}

/// Of each type that mappings, the identity server and the audit itself have, an event of OCSF. `deploy/check` holds this file against
/// the schema of OCSF 1.5.0.
#[tokio::test]
async fn each_event_type_is_an_event_of_ocsf() {
    let place = Place::new("export_ocsf").await;
    run(&place.portal.audit, "TRUNCATE public.events").await;
    let mapping = include_str!("../../deploy/mapping/merge-reference.toml");
    let value_of = |line: &str| line.split('"').nth(1).unwrap_or_default().to_owned();
    let mut types: BTreeMap<String, String> = BTreeMap::new();
    let mut event_type = String::new();
    for line in mapping.lines() {
        if line.starts_with("type ") {
            event_type = value_of(line);
        } else if line.starts_with("subject_type ") {
            types.insert(event_type.clone(), value_of(line));
        }
    }
    assert!(types.len() > 60, "{}", types.len());
    for (event_type, _) in portal_audit::translate::kratos::spec::EVENT_TYPES {
        types.insert((*event_type).to_owned(), "user".to_owned());
    }
    for own in [
        "audit_gap",
        "audit_diverged",
        "undeliverable",
        "coverage_changed",
        "schema_changed",
        "change_unmapped",
        "table_truncated",
        "user_insert_failed",
        "row_update_failed",
        "log_read",
        "log_exported",
        "retention_applied",
        "user_erased",
        "of_tomorrow",
    ] {
        types.insert(own.to_owned(), "audit".to_owned());
    }
    let insert = "INSERT INTO public.events SELECT md5($1::text || $3::text)::uuid, '2026-04-23 20:50:23.123456+00', $1, CASE WHEN $3 = 'projectmember' THEN '' ELSE 'glawler' END, 'a subject', $2, CASE WHEN $1 LIKE '%member%' OR $1 LIKE '%token%' THEN 'a target' END, $3 <> 'projectmember', CASE WHEN $3 = 'projectmember' THEN 'no such thing' END, jsonb_build_object('kind', $3::text, '_audit', jsonb_build_object('source', 'portal'))";
    for (event_type, subject_type) in &types {
        for kind in ["usermember", "projectmember"] {
            place
                .portal
                .audit
                .client
                .execute(insert, &[event_type, subject_type, &kind])
                .await
                .unwrap();
        }
    }
    place.export(place.request(Format::Ocsf, "events.ocsf")).await;
    let text = fs::read_to_string(place.path("events.ocsf")).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2 * types.len());
    lines.sort_unstable();
    expect_file!["../export/ocsf.jsonl"].assert_eq(&(lines.join("\n") + "\n"));
}

#[tokio::test]
async fn the_verb_says_what_it_did_and_what_is_wrong() {
    let place = Place::new("export_verb").await;
    let settings = support::program::SettingsFile::new(&place.portal);
    let config = settings.path.to_str().unwrap();
    let out = place.path("events.csv");
    let out = out.to_str().unwrap();
    let say = |arguments: &[&str]| {
        let output =
            support::program::command(&[&["export"], arguments].concat()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let whole = ["--format", "csv", "--out", out, "--config", config];
    let (code, printed, said) = say(&whole);
    assert!(code == 0 && printed.is_empty(), "{said}");
    assert!(said.contains("32 events") && said.contains("complete up to 2026-05-01"), "{said}");
    let (code, _, said) = say(&whole);
    assert!(code == 1 && said.contains("--force replaces it"), "{said}");
    let (code, _, said) = say(&["--check", out]);
    assert!(code == 0 && said.contains("32 events"), "{said}");
    fs::write(out, "event_uuid\r\n").unwrap();
    let (code, _, said) = say(&["--check", out]);
    assert!(code == 1 && said.contains("its manifest says"), "{said}");
    let (code, printed, said) = say(&["--format", "jsonl", "--caller", "a", "--config", config]);
    assert!(code == 0 && printed.lines().count() == 4, "{said}");
    let (code, _, said) = say(&["--config", config]);
    assert!(code == 2 && said.contains("--format"), "{said}");
    let (code, _, said) = say(&["--format", "csv", "--audit", "nonsense"]);
    assert!(code == 2, "{said}");
}
