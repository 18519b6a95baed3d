//! The verbs, their flags, and what they print. No work of its own.

use crate::{
    ask,
    chain::chain,
    check,
    config::{ConfigError, Settings, Source},
    facility,
    pipeline::Ended,
    proof::verbs as proof,
    retain,
    service::{self, ServiceError},
    show::{self, OutputFormat},
    sql, status, tools,
};
use clap::{Parser, Subcommand, ValueEnum};
use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Audit events from a PostgreSQL portal's write-ahead log, exactly once, without touching the portal's code.
#[derive(Debug, Parser)]
#[command(name = "portal-audit", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub verb: Verb,
    /// How log lines look; they go to stderr.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Follow every source of the settings until SIGTERM or Ctrl-C
    Run {
        /// The settings file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Go on although changes of this source are gone, and record the gap as an event; can be given several times. Holds for what is found at the start, and only once
        #[arg(long, value_name = "SOURCE")]
        accept_gap: Vec<String>,
    },
    /// Print the SQL that ops run
    Sql {
        #[command(subcommand)]
        what: SqlVerb,
    },
    /// Check everything before it can go wrong: settings, databases, publication, slot; each finding with its fix. Exit code: 0 all is well, 1 warnings, 2 something critical
    Check {
        /// The settings file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
        format: OutputFormat,
        /// List also what is as it should be
        #[arg(long)]
        verbose: bool,
    },
    /// Show how far each source is
    Status {
        /// The settings file
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
        format: OutputFormat,
    },
    /// Show events of the log: filtered, page by page, or as they arrive
    Events(ask::EventsArguments),
    /// Tell the story of one user, organization, project or experiment
    History(ask::HistoryArguments),
    /// Count users, projects, organizations, experiments and what they do, now or at any time
    Stats(ask::StatsArguments),
    /// Check, test and begin mappings
    Mapping {
        #[command(subcommand)]
        what: tools::MappingVerb,
    },
    /// Say how much of what was asked for the live configuration tells: yes, partly, no, and what would improve it
    Coverage(tools::CoverageArguments),
    /// Explain one event: the block that makes it, the columns it rests on, its transaction
    Explain(tools::ExplainArguments),
    /// Write events to a file: CSV, JSON Lines, CloudEvents, OCSF, Parquet
    Export(crate::export::ExportArguments),
    /// Record the stream of a source, and compare what two mappings make of it
    Replay(tools::ReplayArguments),
    /// Prove that nobody edited the record: rows, leaves and signed checkpoints are compared, and each broken thing is named with its place. Exit code: 0 it holds, 1 it is broken
    Verify(proof::VerifyArguments),
    /// The key and the checkpoints of that proof
    Proof {
        #[command(subcommand)]
        what: proof::ProofVerb,
    },
    /// Apply retention: take away what is older than its class is kept. The sidecar does it by itself
    Prune(retain::PruneArguments),
    /// Erase a person on request
    Erase {
        #[command(subcommand)]
        what: retain::EraseVerb,
    },
    /// Legal hold: events that neither retention nor erasure may touch
    Hold {
        #[command(subcommand)]
        what: retain::HoldVerb,
    },
    /// Facilities: their states, since when and why, and the maintenance that operators announce
    Facility {
        #[command(subcommand)]
        what: facility::FacilityVerb,
    },
    /// Try it: a throwaway PostgreSQL, a sample portal with some life in it, and its events as they arrive
    Demo(crate::demo::DemoArguments),
}

#[derive(Debug, Subcommand)]
pub enum SqlVerb {
    /// For the source database: role, publication, replica identities
    Source {
        #[command(flatten)]
        source: SourceArguments,
        /// For whom: an operator gets what its resources declare, as YAML, which says what SQL is left to run
        #[arg(long = "for", value_enum, default_value_t = Keeper::Plain)]
        keeper: Keeper,
        /// The SQL that those resources leave to run
        #[arg(long)]
        rest: bool,
    },
    /// For the source database: takes portal-audit off again
    Undo(SourceArguments),
    /// For the source database, if its owner consents: the trigger that tells who the caller is
    Context,
    /// For the source database, if its owner consents: the trigger that tells what was tried and rolled back
    Attempt,
    /// For the audit database: the table events and the schema portal_audit
    Audit {
        /// The settings file, to make the login that it names too
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// Who keeps the source's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Keeper {
    Plain,
    CloudnativePg,
    Zalando,
}

#[derive(Debug, clap::Args)]
pub struct SourceArguments {
    /// The settings file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which source, if the settings have several
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

/// A definite fault.
const EXIT_FAULT: u8 = 1;
/// Usage or settings.
const EXIT_SETTINGS: u8 = 2;

/// Runs a verb to its exit code: 0 asked to stop, 1 definite fault, 2 usage or settings.
pub async fn run(cli: Cli) -> ExitCode {
    match cli.verb {
        Verb::Run { config, accept_gap } => match Settings::load(&config) {
            Ok(settings) => follow(&config, settings, &accept_gap).await,
            Err(error) => settings_error(&error),
        },
        Verb::Sql { what } => print_sql(what),
        Verb::Status { config, format } => match Settings::load(&config) {
            Ok(settings) => print_status(&settings, format).await,
            Err(error) => settings_error(&error),
        },
        Verb::Check { config, format, verbose } => print_check(&config, format, verbose).await,
        Verb::Events(arguments) => ask::events(arguments).await,
        Verb::History(arguments) => ask::history(arguments).await,
        Verb::Stats(arguments) => ask::stats(arguments).await,
        Verb::Mapping { what } => tools::mapping(what).await,
        Verb::Coverage(arguments) => tools::coverage(arguments).await,
        Verb::Explain(arguments) => tools::explain(arguments).await,
        Verb::Export(arguments) => crate::export::run(arguments).await,
        Verb::Replay(arguments) => tools::replay(arguments).await,
        Verb::Verify(arguments) => proof::verify(arguments).await,
        Verb::Proof { what } => proof::proof(what).await,
        Verb::Prune(arguments) => retain::prune(arguments).await,
        Verb::Erase { what } => retain::erase(what).await,
        Verb::Hold { what } => retain::hold(what).await,
        Verb::Facility { what } => facility::run(what).await,
        Verb::Demo(arguments) => crate::demo::run(arguments).await,
    }
}

fn settings_error(error: &ConfigError) -> ExitCode {
    complain(&chain(error));
    ExitCode::from(EXIT_SETTINGS)
}

#[expect(clippy::print_stderr, reason = "the last word of a program that cannot go on")]
fn complain(text: &str) {
    eprintln!("portal-audit: {text}");
}

#[expect(clippy::print_stdout, reason = "the output that was asked for")]
fn print(text: &str) {
    println!("{text}");
}

async fn follow(path: &Path, settings: Settings, accept_gap: &[String]) -> ExitCode {
    let names: Vec<&str> = settings.sources.iter().map(|source| source.name.as_str()).collect();
    if let Some(unknown) = accept_gap.iter().find(|name| !names.contains(&name.as_str())) {
        complain(&format!(
            "--accept-gap {unknown}: no such source. There are: {}",
            names.join(", ")
        ));
        return ExitCode::from(EXIT_SETTINGS);
    }
    let ended = match service::run(path, settings, accept_gap).await {
        Ok(ended) => ended,
        Err(error) => {
            complain(&chain(&error));
            let is_settings = matches!(error, ServiceError::Listen { .. } | ServiceError::Key(_));
            return ExitCode::from(if is_settings { EXIT_SETTINGS } else { EXIT_FAULT });
        }
    };
    for Ended { source, fault } in &ended {
        complain(&format!("source {source}: {}", chain(fault)));
    }
    if ended.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAULT) }
}

async fn print_check(config: &Path, format: OutputFormat, is_verbose: bool) -> ExitCode {
    let findings = check::check(config).await;
    match format {
        OutputFormat::Text => {
            let is_terminal = io::stdout().is_terminal();
            let width = terminal_size::terminal_size().filter(|_| is_terminal);
            let width = width.map(|(width, _)| usize::from(width.0));
            print(&check::report_text(&findings, is_verbose, width, is_terminal));
        }
        OutputFormat::Json => match check::report_json(&findings) {
            Ok(text) => print(&text),
            Err(error) => complain(&error.to_string()),
        },
    }
    match check::worst(&findings) {
        check::Status::Ok => ExitCode::SUCCESS,
        check::Status::Warning => ExitCode::from(1),
        check::Status::Critical => ExitCode::from(2),
    }
}

fn print_sql(what: SqlVerb) -> ExitCode {
    let (arguments, render): (_, fn(&Settings, &Source) -> String) = match what {
        SqlVerb::Audit { config: None } => {
            print(sql::audit());
            return ExitCode::SUCCESS;
        }
        SqlVerb::Audit { config: Some(path) } => {
            return match Settings::load(&path) {
                Ok(settings) => {
                    print(&sql::audit_for(&settings));
                    ExitCode::SUCCESS
                }
                Err(error) => settings_error(&error),
            };
        }
        SqlVerb::Context => {
            print(sql::context());
            return ExitCode::SUCCESS;
        }
        SqlVerb::Attempt => {
            print(sql::attempt());
            return ExitCode::SUCCESS;
        }
        SqlVerb::Source { source, keeper, rest } => (source, source_printer(keeper, rest)),
        SqlVerb::Undo(arguments) => (arguments, |_, source| sql::undo(source)),
    };
    let settings = match Settings::load(&arguments.config) {
        Ok(settings) => settings,
        Err(error) => return settings_error(&error),
    };
    let names: Vec<&str> = settings.sources.iter().map(|source| source.name.as_str()).collect();
    let chosen = match (&arguments.source, settings.sources.as_slice()) {
        (None, [only]) => Some(only),
        (None, _) => None,
        (Some(name), sources) => sources.iter().find(|source| source.name == *name),
    };
    let Some(source) = chosen else {
        complain(&format!("say which source with --source: {}", names.join(", ")));
        return ExitCode::from(EXIT_SETTINGS);
    };
    print(&render(&settings, source));
    ExitCode::SUCCESS
}

fn source_printer(keeper: Keeper, is_rest: bool) -> fn(&Settings, &Source) -> String {
    match (keeper, is_rest) {
        (Keeper::CloudnativePg, false) => {
            |settings, source| sql::cloudnative_pg(source, settings.limits.wal_budget_bytes)
        }
        (Keeper::CloudnativePg, true) => |_, source| sql::beside_publication(source),
        (Keeper::Zalando, false) => {
            |settings, source| sql::zalando(source, settings.limits.wal_budget_bytes)
        }
        // Zalando's operator has no publications, so all of it is left.
        (Keeper::Plain, _) | (Keeper::Zalando, true) => |_, source| sql::source(source),
    }
}

async fn print_status(settings: &Settings, format: OutputFormat) -> ExitCode {
    let sources = match status::status(settings).await {
        Ok(sources) => sources,
        Err(error) => {
            complain(&error);
            return ExitCode::from(EXIT_FAULT);
        }
    };
    match format {
        OutputFormat::Text => print(&show::status_table(&sources)),
        OutputFormat::Json => match serde_json::to_string_pretty(&sources) {
            Ok(text) => print(&text),
            Err(error) => complain(&error.to_string()),
        },
    }
    let is_well =
        sources.iter().all(|source| source.state == "streaming" && source.not_covered.is_empty());
    if is_well { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAULT) }
}
