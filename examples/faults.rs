//! Runs the fault table, `tests/faults/table.toml`, and says how each row ended: what `./x faults` calls.
//!
//! The faults are ordinary tests, so that none can rot unseen; this program knows which of them stand for which row. With `--log` it reads what `cargo test` has printed already and runs nothing.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "it runs the tests, and its output is what it is for"
)]

use clap::{Parser, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    error::Error,
    io::{BufRead as _, BufReader, IsTerminal as _},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

const TABLE: &str = include_str!("../tests/faults/table.toml");
/// A test that cannot run here prints this and why.
const NOT_RUN: &str = "not run: ";
/// Kills at random moments; a plain test run is content with fewer.
const KILLS: &str = "200";

/// Runs the fault table.
#[derive(Debug, Parser)]
#[command(name = "./x faults")]
struct Arguments {
    /// Rows to run, such as B2; a letter names its whole section; all if none is given
    ids: Vec<String>,
    /// Only the rows that a release must pass
    #[arg(long)]
    gate: bool,
    #[arg(long, default_value = "text")]
    format: Format,
    /// Reads what `cargo test -- --show-output` has printed, and runs nothing
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultTable {
    row: Vec<FaultRow>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultRow {
    id: String,
    #[serde(default)]
    gate: bool,
    what: String,
    #[serde(default)]
    tests: Vec<String>,
    /// Why it is not run, or what of it is not.
    not_run: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Passed,
    NotRun,
    Failed,
}

/// How a row ended.
#[derive(Debug, Serialize)]
struct Ending<'a> {
    id: &'a str,
    gate: bool,
    what: &'a str,
    outcome: Outcome,
    tests: BTreeMap<&'a str, Outcome>,
    /// What of it was not run, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_run: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    passed: usize,
    failed: usize,
    not_run: BTreeMap<&'a str, String>,
    rows: Vec<Ending<'a>>,
}

/// What `cargo test` printed, read: how each test ended, and why some did not run.
#[derive(Debug, Default)]
struct Log {
    outcomes: HashMap<String, Outcome>,
    reasons: HashMap<String, String>,
    /// Whose output is being shown.
    shown: String,
}

impl Log {
    fn read(&mut self, line: &str) -> Option<(&str, Outcome)> {
        if let Some(name) = line.strip_prefix("---- ") {
            self.shown = name.split(' ').next().unwrap_or_default().to_owned();
        } else if let Some(reason) = line.strip_prefix(NOT_RUN) {
            self.reasons.insert(self.shown.clone(), reason.to_owned());
        } else if let Some((name, end)) =
            line.strip_prefix("test ").and_then(|line| line.split_once(" ... "))
        {
            let outcome = if end == "ok" { Outcome::Passed } else { Outcome::Failed };
            self.outcomes.insert(name.to_owned(), outcome);
            return Some((self.outcomes.get_key_value(name)?.0, outcome));
        }
        None
    }

    /// Whether the output that is being shown is that of a test that failed.
    fn is_of_a_failure(&self) -> bool {
        self.outcomes.get(&self.shown) == Some(&Outcome::Failed)
    }

    /// How a test of the table ended; one that is not there did not pass.
    fn outcome(&self, test: &str) -> Outcome {
        let name = plain(test);
        match self.outcomes.get(name) {
            Some(Outcome::Passed) if self.reasons.contains_key(name) => Outcome::NotRun,
            Some(outcome) => *outcome,
            None => Outcome::Failed,
        }
    }

    fn ending<'a>(&self, row: &'a FaultRow) -> Ending<'a> {
        let tests: BTreeMap<&str, Outcome> =
            row.tests.iter().map(|test| (test.as_str(), self.outcome(test))).collect();
        let outcome = if tests.values().any(|outcome| *outcome == Outcome::Failed) {
            Outcome::Failed
        } else if tests.values().any(|outcome| *outcome == Outcome::Passed) {
            Outcome::Passed
        } else {
            Outcome::NotRun
        };
        let reasons = tests.keys().filter_map(|test| self.reasons.get(plain(test)));
        let reasons: BTreeSet<&str> = reasons.chain(&row.not_run).map(String::as_str).collect();
        let not_run = reasons.into_iter().collect::<Vec<_>>().join("; ");
        let not_run = match (outcome, not_run.is_empty()) {
            (Outcome::NotRun, true) => Some("no test makes this fault yet".to_owned()),
            (_, true) => None,
            (_, false) => Some(not_run),
        };
        Ending { id: &row.id, gate: row.gate, what: &row.what, outcome, tests, not_run }
    }
}

/// The name by which `cargo test` calls a test of the table.
fn plain(test: &str) -> &str {
    test.strip_prefix("lib:").unwrap_or(test)
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments = Arguments::parse();
    let table: FaultTable = toml::from_str(TABLE)?;
    let rows = chosen(&table, &arguments)?;
    let mut log = Log::default();
    match &arguments.log {
        Some(path) => {
            for line in std::fs::read_to_string(path)?.lines() {
                log.read(line);
            }
        }
        None => run(&rows, &mut log)?,
    }
    let rows: Vec<Ending<'_>> = rows.iter().map(|row| log.ending(row)).collect();
    let count = |outcome| rows.iter().filter(|row| row.outcome == outcome).count();
    let (passed, failed) = (count(Outcome::Passed), count(Outcome::Failed));
    let left = rows.iter().filter(|row| row.outcome == Outcome::NotRun);
    let not_run = left.filter_map(|row| Some((row.id, row.not_run.clone()?))).collect();
    let report = Report { passed, failed, not_run, rows };
    match arguments.format {
        Format::Text => show(&report),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The rows that were asked for, in the order of the table.
fn chosen<'a>(table: &'a FaultTable, arguments: &Arguments) -> Result<Vec<&'a FaultRow>, String> {
    let names = |id: &str, row: &FaultRow| {
        let section = row.id.trim_end_matches(|digit: char| digit.is_ascii_digit());
        row.id.eq_ignore_ascii_case(id) || section.eq_ignore_ascii_case(id)
    };
    let unknown = arguments.ids.iter().find(|id| !table.row.iter().any(|row| names(id, row)));
    if let Some(unknown) = unknown {
        let ids: Vec<&str> = table.row.iter().map(|row| row.id.as_str()).collect();
        return Err(format!("the fault table has no row {unknown:?}; its rows: {}", ids.join(" ")));
    }
    let wanted = |row: &&FaultRow| {
        let is_named = arguments.ids.is_empty() || arguments.ids.iter().any(|id| names(id, row));
        is_named && (row.gate || !arguments.gate)
    };
    Ok(table.row.iter().filter(wanted).collect())
}

/// Runs the tests of these rows, once each, and tells of each on stderr when it has ended.
fn run(rows: &[&FaultRow], log: &mut Log) -> Result<(), Box<dyn Error>> {
    let tests: BTreeSet<&str> =
        rows.iter().flat_map(|row| &row.tests).map(|test| plain(test)).collect();
    if tests.is_empty() {
        return Ok(());
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--locked", "--no-fail-fast", "--lib", "--test", "it", "--"]);
    cargo.args(["--exact", "--show-output"]).args(&tests).stdout(Stdio::piped());
    if std::env::var_os("PORTAL_AUDIT_KILLS").is_none() {
        cargo.env("PORTAL_AUDIT_KILLS", KILLS);
    }
    let mut cargo = cargo.spawn()?;
    let output = cargo.stdout.take().ok_or("cargo test has no output")?;
    let mut ended = 0;
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some((test, outcome)) = log.read(&line) {
            ended += 1;
            eprintln!("{ended:>4}/{} {:<7} {test}", tests.len(), word(outcome));
        } else if log.is_of_a_failure() && !line.is_empty() {
            eprintln!("          {line}");
        }
    }
    cargo.wait()?;
    Ok(())
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::NotRun => "not run",
        Outcome::Failed => "FAILED",
    }
}

fn show(report: &Report<'_>) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_truncation_indicator("");
    table.set_header(["row", "gate", "outcome", "tests", "fault"]);
    for row in &report.rows {
        let reason = row.not_run.iter().map(|reason| format!("\n({reason})"));
        let what = reason.fold(row.what.to_owned(), |what, reason| what + &reason);
        let gate = if row.gate { "●" } else { "" };
        let tests = row.tests.len().to_string();
        table.add_row([row.id, gate, word(row.outcome), &tests, &what]);
    }
    for column in [1, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Center);
        }
    }
    if !std::io::stdout().is_terminal() {
        table.set_width(120);
    }
    println!("{table}");
    let (passed, failed, left) = (report.passed, report.failed, report.not_run.len());
    println!("\n{passed} passed, {failed} failed, {left} not run");
}
