//! The house keeps its own rules: who may use whom, how long a file and a function may be, and that each event type is told everywhere.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Module, the modules of ours that it may use. Arrows go one way: nobody uses a module that uses it.
const MODULES: &[(&str, &[&str])] = &[
    ("chain", &[]),
    ("filter", &[]),
    ("own", &["filter"]),
    ("lsn", &[]),
    ("timestamp", &[]),
    ("conninfo", &[]),
    ("merkle", &[]),
    ("note", &["merkle"]),
    ("decode", &["lsn", "timestamp"]),
    ("spool", &["lsn"]),
    ("tuple", &["decode"]),
    ("transaction", &["decode", "lsn", "spool", "timestamp"]),
    ("event", &["lsn", "timestamp"]),
    ("leaf", &["event"]),
    ("translate", &["decode", "event", "lsn", "spool", "timestamp", "transaction", "tuple"]),
    ("config", &["conninfo", "note", "translate"]),
    ("connect", &["conninfo"]),
    ("budget", &["connect", "lsn"]),
    ("wire", &["connect", "conninfo", "lsn", "timestamp"]),
    ("catalog", &["connect", "decode", "lsn", "timestamp", "translate", "tuple"]),
    ("write", &["connect", "event", "leaf", "lsn", "timestamp", "translate", "tuple"]),
    ("metrics", &["event", "lsn", "timestamp", "translate", "tuple", "write"]),
    ("continuity", &["catalog", "lsn", "translate", "write"]),
    (
        "snapshot",
        &[
            "catalog",
            "connect",
            "decode",
            "lsn",
            "timestamp",
            "translate",
            "tuple",
            "wire",
            "write",
        ],
    ),
    ("sql", &["budget", "config", "translate", "wire", "write"]),
    ("status", &["budget", "catalog", "chain", "config", "connect", "lsn", "translate"]),
    ("show", &["status"]),
    ("retain", &["chain", "config", "connect", "conninfo", "show"]),
    (
        "pipeline",
        &[
            "budget",
            "catalog",
            "chain",
            "config",
            "connect",
            "conninfo",
            "continuity",
            "event",
            "lsn",
            "metrics",
            "snapshot",
            "timestamp",
            "transaction",
            "translate",
            "wire",
            "write",
        ],
    ),
    ("map", &["show"]),
    ("facility", &["chain", "config", "connect", "map", "show"]),
    (
        "export",
        &["chain", "config", "connect", "conninfo", "filter", "lsn", "own", "show", "timestamp"],
    ),
    (
        "web",
        &[
            "chain", "config", "connect", "conninfo", "export", "facility", "filter", "map",
            "metrics", "note", "own", "show",
        ],
    ),
    ("serve", &["metrics", "web"]),
    ("keep", &["chain", "config", "connect"]),
    ("proof", &["chain", "config", "connect", "conninfo", "merkle", "metrics", "note", "show"]),
    (
        "service",
        &[
            "chain", "config", "facility", "keep", "metrics", "pipeline", "proof", "retain",
            "serve", "web",
        ],
    ),
    (
        "check",
        &[
            "budget",
            "catalog",
            "chain",
            "config",
            "connect",
            "conninfo",
            "continuity",
            "note",
            "pipeline",
            "show",
            "translate",
            "wire",
            "write",
        ],
    ),
    (
        "demo",
        &[
            "chain", "config", "connect", "conninfo", "facility", "keep", "metrics", "pipeline",
            "serve", "show", "sql", "web",
        ],
    ),
    ("coverage", &["catalog", "chain", "config", "connect", "translate"]),
    (
        "replay",
        &[
            "catalog",
            "config",
            "connect",
            "decode",
            "event",
            "lsn",
            "show",
            "transaction",
            "translate",
            "tuple",
            "wire",
        ],
    ),
    ("explain", &["chain", "config", "connect", "conninfo", "show", "translate"]),
    (
        "tools",
        &[
            "catalog",
            "chain",
            "config",
            "connect",
            "coverage",
            "event",
            "explain",
            "lsn",
            "pipeline",
            "replay",
            "show",
            "transaction",
            "translate",
        ],
    ),
    ("ask", &["chain", "config", "connect", "conninfo", "filter", "own", "pipeline", "show"]),
    (
        "cli",
        &[
            "ask", "chain", "check", "config", "demo", "export", "facility", "pipeline", "proof",
            "retain", "service", "show", "sql", "status", "tools",
        ],
    ),
];

/// Crates that only some may name: what does IO stands at the rim.
const CRATES: &[(&str, &[&str])] = &[
    (
        "tokio_postgres",
        &[
            "ask", "budget", "catalog", "check", "connect", "demo", "explain", "export",
            "facility", "filter", "keep", "proof", "retain", "show", "snapshot", "status", "tools",
            "facility", "filter", "keep", "own", "proof", "retain", "snapshot", "status", "tools",
            "web", "write",
        ],
    ),
    ("postgres_protocol", &["wire"]),
    ("socket2", &["connect"]),
    (
        "tokio::",
        &[
            "ask", "check", "cli", "connect", "demo", "export", "facility", "keep", "metrics",
            "pipeline", "proof", "replay", "retain", "serve", "service", "tools", "wire", "write",
        ],
    ),
    ("std::net", &["config", "connect", "conninfo", "demo", "service", "web", "wire"]),
    ("prometheus_client", &["metrics"]),
    ("axum", &["serve", "web"]),
    ("hyper", &["serve"]),
    ("sd_notify", &["service"]),
    (
        "std::fs",
        &[
            "check", "config", "conninfo", "demo", "export", "metrics", "proof", "replay", "spool",
            "tools", "web",
        ],
    ),
    ("use ring::", &["note", "proof", "web"]),
    ("indicatif", &["export", "proof"]),
    ("rustls", &["connect"]),
    ("x509_cert", &["connect"]),
    ("toml::", &["catalog", "config", "coverage", "translate"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The part of a source file before its tests.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap()
}

/// The top-level module of a file of `src`.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Modules of ours that a text names: in `crate::x` and in the first level of `use crate::{…}`.
fn used(text: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut used = BTreeSet::new();
    for rest in text.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            used.insert(word(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (position, letter) in group.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    used.insert(word(&group[start..position]));
                    start = position + 1;
                }
                _ => {}
            }
            if letter == '}' && depth == 0 && start == position + 1 {
                break;
            }
        }
    }
    used.remove("");
    used
}

#[test]
fn arrows_go_one_way() {
    let names: BTreeSet<&str> = MODULES.iter().map(|(name, _)| *name).collect();
    for (position, (name, uses)) in MODULES.iter().enumerate() {
        for used in *uses {
            let place = MODULES.iter().position(|(other, _)| other == used);
            assert!(
                place.is_some_and(|place| place < position),
                "{name} may not use {used}: it stands later"
            );
        }
    }
    for path in rust_files(&root().join("src")) {
        let module = module(&path);
        if module == "lib" || module == "main" {
            continue;
        }
        let allowed = MODULES.iter().find(|(name, _)| *name == module);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("module {module} is not in the table"));
        let text = std::fs::read_to_string(&path).unwrap();
        for used in used(without_tests(&text)) {
            let is_ours = names.contains(used.as_str()) && used != module;
            assert!(
                !is_ours || allowed.contains(&used.as_str()),
                "{} uses {used}: an arrow turned round",
                path.display()
            );
        }
        for (name, users) in CRATES {
            let code =
                without_tests(&text).lines().filter(|line| !line.trim_start().starts_with("//"));
            let names_it = code.into_iter().any(|line| line.contains(name));
            assert!(
                !names_it || users.contains(&module.as_str()),
                "{} uses {name}",
                path.display()
            );
        }
    }
}

#[test]
fn uses_are_seen() {
    let text = "use crate::{\n    catalog::{self, Slot},\n    chain::chain,\n    lsn::Lsn,\n};\nuse crate::wire::X;\ncrate::event::y()";
    let expected: BTreeSet<String> =
        ["catalog", "chain", "lsn", "wire", "event"].map(str::to_owned).into();
    assert_eq!(used(text), expected);
}

#[test]
fn files_and_functions_fit() {
    for path in rust_files(&root().join("src")).into_iter().chain(rust_files(&root().join("tests")))
    {
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let own = if path.starts_with(root().join("src")) { without_tests(&text) } else { &text };
        let length = own.lines().count();
        assert!(length <= FILE_LINES_MAX, "{} has {length} lines", path.display());
        for (start, line) in lines.iter().enumerate() {
            let trimmed = line.trim_start();
            let is_function = [
                "fn ",
                "pub fn ",
                "async fn ",
                "pub async fn ",
                "pub(super) fn ",
                "pub(super) async fn ",
            ]
            .iter()
            .any(|begin| trimmed.starts_with(begin));
            if !is_function {
                continue;
            }
            let end = format!("{}}}", " ".repeat(line.len() - trimmed.len()));
            let length =
                lines[start..].iter().position(|line| *line == end).map_or(1, |end| end + 1);
            assert!(
                length <= FUNCTION_LINES_MAX,
                "{}:{}: {length} lines",
                path.display(),
                start + 1
            );
        }
    }
}

#[test]
fn each_event_type_of_the_identity_server_has_a_fixture() {
    let told: Vec<String> = std::fs::read_dir(root().join("tests/changes/kratos"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "events"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    for (event_type, _) in portal_audit::translate::kratos::spec::EVENT_TYPES {
        let line = format!("{event_type}  caller=");
        let is_told = told.iter().flat_map(|text| text.lines()).any(|own| own.starts_with(&line));
        assert!(is_told, "{event_type} is in no fixture");
    }
}

/// A table or column of ours without a comment is one that ops must guess.
#[tokio::test]
async fn what_is_ours_in_the_audit_database_is_explained() {
    let portal = crate::support::sample("tidy").await;
    let bare = "SELECT coalesce(string_agg(c.relname || coalesce('.' || a.attname, ''), ', '), '') FROM pg_class c LEFT JOIN LATERAL (SELECT attname, attnum FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 UNION ALL SELECT NULL, 0) a ON true WHERE c.relnamespace = 'portal_audit'::regnamespace AND c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_description d WHERE d.objoid = c.oid AND d.objsubid = a.attnum)";
    assert_eq!(crate::support::value::<String>(&portal.audit, bare).await, "");
}

#[test]
fn each_event_type_is_in_the_readme_and_has_a_fixture() {
    let mapping =
        std::fs::read_to_string(root().join("deploy/mapping/merge-reference.toml")).unwrap();
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let types = mapping.lines().filter_map(|line| line.strip_prefix("type "));
    let types: BTreeSet<&str> =
        types.map(|rest| rest.trim_start_matches([' ', '=']).trim_matches('"')).collect();
    assert!(types.len() > 30);
    for event_type in types {
        for end in ["sql", "events"] {
            let fixture = root().join(format!("tests/changes/portal/{event_type}.{end}"));
            assert!(fixture.is_file(), "{event_type} has no fixture {}", fixture.display());
        }
        assert!(readme.contains(&format!("`{event_type}`")), "{event_type} is not in the README");
    }
}

/// A row that a release must pass has its tests, or says why not; and what a row names is there.
#[test]
fn the_fault_table_names_tests_that_are_there() {
    let text = std::fs::read_to_string(root().join("tests/faults/table.toml")).unwrap();
    let table: toml::Table = text.parse().unwrap();
    let sources = rust_files(&root().join("src")).into_iter();
    let sources = sources.chain(rust_files(&root().join("tests/it")));
    let functions: String = sources.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let mut ids = BTreeSet::new();
    for row in table["row"].as_array().unwrap() {
        let id = row["id"].as_str().unwrap();
        assert!(ids.insert(id), "{id} twice");
        let tests = row.get("tests").map_or(&[][..], |tests| tests.as_array().unwrap());
        let is_gate = row.get("gate").is_some();
        assert!(!is_gate || !tests.is_empty() || row.get("not_run").is_some(), "{id} has no test");
        for test in tests {
            let name = test.as_str().unwrap().rsplit("::").next().unwrap();
            assert!(functions.contains(&format!("fn {name}(")), "{id}: there is no test {test}");
        }
    }
}

/// A mutant breaks one place, which is there, and names a test that is there.
#[test]
fn each_mutant_fits_the_sources() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let list: toml::Table = read("tests/faults/mutants.toml").parse().unwrap();
    let tests: String = rust_files(&root().join("tests/it"))
        .iter()
        .chain(&rust_files(&root().join("src")))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    for mutant in list["mutant"].as_array().unwrap() {
        let text = |key: &str| mutant[key].as_str().unwrap();
        let name = text("name");
        assert_eq!(read(text("file")).matches(text("find")).count(), 1, "{name}");
        let test = text("test").rsplit("::").next().unwrap();
        assert!(tests.contains(&format!("fn {test}(")), "{name}: there is no test {test}");
    }
}
