//! The verbs around mappings: `mapping check|test|scaffold`, `coverage`, `explain` and `replay`. Each reads, prints, and changes nothing.
//!
//! Exit codes: 0 sound (or nothing differs), 1 faults were found or a database does not answer, 2 usage or settings.

mod check;
mod examples;
mod replay;
mod scaffold;

use crate::{
    chain::chain,
    config::{ConfigError, Settings, Source},
    coverage::{self, ASKS, Asks},
    explain,
    show::OutputFormat,
};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};
use uuid::Uuid;

/// A definite fault, or a difference.
const EXIT_FAULT: u8 = 1;
/// Usage or settings.
const EXIT_SETTINGS: u8 = 2;

/// Why a verb has no answer.
#[derive(Debug)]
enum Failure {
    /// Exit code 1.
    Fault(String),
    /// Exit code 2.
    Settings(String),
}

/// What a verb prints, and whether all is well.
struct Output {
    text: String,
    is_well: bool,
}

#[derive(Debug, clap::Subcommand)]
pub enum MappingVerb {
    /// Tell every fault of a mapping at its place; with --config also whether it fits the live database
    Check(CheckArguments),
    /// Run the examples of a mapping's blocks
    Test {
        /// A mapping file, or the name of a built-in one
        mapping: String,
    },
    /// Print the first blocks for a table of the live database, to be edited
    Scaffold(ScaffoldArguments),
}

#[derive(Debug, clap::Args)]
pub struct ScaffoldArguments {
    /// schema.table
    table: String,
    /// The settings file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which source, if the settings have several
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct CheckArguments {
    /// A mapping file, or the name of a built-in one; without it the mapping of the source
    #[arg(required_unless_present = "config")]
    mapping: Option<String>,
    #[command(flatten)]
    live: LiveArguments,
}

/// A source of the settings.
#[derive(Debug, clap::Args)]
pub struct LiveArguments {
    /// The settings file: also ask the source's database
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which source, if the settings have several
    #[arg(long, value_name = "NAME", requires = "config")]
    source: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct CoverageArguments {
    /// The settings file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// What was asked for, if not what is built in
    #[arg(long, value_name = "FILE")]
    asks: Option<PathBuf>,
    /// How the answers are printed
    #[arg(long, value_enum, default_value_t = CoverageFormat::Text)]
    format: CoverageFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum CoverageFormat {
    Text,
    Markdown,
    Json,
}

#[derive(Debug, clap::Args)]
pub struct ExplainArguments {
    /// The event's event_uuid
    event_uuid: Uuid,
    /// The settings file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The audit database as a role that may read events, if that of the settings may not
    #[arg(long, value_name = "DSN")]
    audit: Option<String>,
    /// How it is printed
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    format: OutputFormat,
}

#[derive(Debug, clap::Args)]
pub struct ReplayArguments {
    /// Record the stream of a source into a new file, until Ctrl-C or --seconds. The file holds row data: it is made for its owner alone (0600), and should not outlive its use
    #[arg(long, value_name = "FILE", requires = "config", required_unless_present = "dry_run")]
    record: Option<PathBuf>,
    /// Run a recording through two mappings and show what differs; writes nothing
    #[arg(long, value_name = "FILE", requires = "mapping", conflicts_with = "record")]
    dry_run: Option<PathBuf>,
    /// The settings file
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    config: Option<PathBuf>,
    /// Which source, if the settings have several
    #[arg(long, value_name = "NAME", conflicts_with = "dry_run")]
    source: Option<String>,
    /// How long to record
    #[arg(long, value_name = "N", conflicts_with = "dry_run")]
    seconds: Option<u64>,
    /// The new mapping: a file, or the name of a built-in one
    #[arg(long, value_name = "MAPPING", conflicts_with = "record")]
    mapping: Option<String>,
    /// The old mapping, if not the one that the source had when it was recorded
    #[arg(long, value_name = "MAPPING", conflicts_with = "record")]
    against: Option<String>,
    /// How the differences are printed
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    format: OutputFormat,
}

/// Runs `replay` to its exit code: with --dry-run 1 if anything differs.
pub async fn replay(arguments: ReplayArguments) -> ExitCode {
    finish(replay::run(arguments).await)
}

/// Runs `mapping …` to its exit code.
pub async fn mapping(verb: MappingVerb) -> ExitCode {
    finish(match verb {
        MappingVerb::Check(arguments) => check::run(arguments).await,
        MappingVerb::Test { mapping } => examples::run(&mapping),
        MappingVerb::Scaffold(arguments) => scaffold::run(arguments).await,
    })
}

/// Runs `coverage` to its exit code, which is 0 whatever the answers are, and 1 if a source could not be asked.
pub async fn coverage(arguments: CoverageArguments) -> ExitCode {
    finish(cover(arguments).await)
}

async fn cover(arguments: CoverageArguments) -> Result<Output, Failure> {
    let CoverageArguments { config, asks, format } = arguments;
    let asks = match asks {
        None => Asks::parse("deploy/asks.toml", ASKS),
        Some(path) => Asks::parse(&path.display().to_string(), &read(&path)?),
    };
    let asks = asks.map_err(|error| Failure::Settings(chain(&error)))?;
    let settings = settings(&config)?;
    let views = coverage::load(&settings).await;
    let answers = coverage::judge(&asks, &views);
    let is_well = views.iter().all(|view| view.live.is_ok());
    let text = match format {
        CoverageFormat::Text => coverage::text(&answers),
        CoverageFormat::Markdown => coverage::markdown(&answers),
        CoverageFormat::Json => json(&answers)?,
    };
    Ok(Output { text, is_well })
}

/// Runs `explain` to its exit code.
pub async fn explain(arguments: ExplainArguments) -> ExitCode {
    finish(explain_event(arguments).await)
}

async fn explain_event(arguments: ExplainArguments) -> Result<Output, Failure> {
    let ExplainArguments { event_uuid, config, audit, format } = arguments;
    let settings = settings(&config)?;
    let audit = explain::audit_conninfo(&settings, audit.as_deref()).map_err(Failure::Settings)?;
    let explanation = explain::explain(&settings, &audit, event_uuid).await;
    let explanation = explanation.map_err(|error| Failure::Fault(chain(&error)))?;
    let text = match format {
        OutputFormat::Text => explain::text(&explanation),
        OutputFormat::Json => json(&explanation)?,
    };
    Ok(Output { text, is_well: true })
}

#[expect(clippy::print_stdout, reason = "the output that was asked for")]
#[expect(clippy::print_stderr, reason = "the last word of a program that cannot go on")]
fn finish(result: Result<Output, Failure>) -> ExitCode {
    match result {
        Ok(Output { text, is_well }) => {
            println!("{}", text.trim_end());
            if is_well { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAULT) }
        }
        Err(Failure::Fault(message)) => {
            eprintln!("portal-audit: {message}");
            ExitCode::from(EXIT_FAULT)
        }
        Err(Failure::Settings(message)) => {
            eprintln!("portal-audit: {message}");
            ExitCode::from(EXIT_SETTINGS)
        }
    }
}

fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(|error| Failure::Fault(error.to_string()))
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::Settings(format!("cannot read {}: {error}", path.display())))
}

fn settings(path: &Path) -> Result<Settings, Failure> {
    Settings::load(path).map_err(|error| settings_failure(&error))
}

/// A mapping with faults is what these verbs are there to find; anything else of the settings is the caller's to mend first.
fn settings_failure(error: &ConfigError) -> Failure {
    match error {
        ConfigError::Mapping { source, .. } => Failure::Fault(faults(&source.0)),
        ConfigError::Value { message, .. } => Failure::Settings(message.clone()),
        other => Failure::Settings(chain(other)),
    }
}

/// Faults, one below the other, behind their number.
fn faults(faults: &[crate::translate::mapping::MappingError]) -> String {
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let count = match lines.len() {
        1 => "1 fault".to_owned(),
        count => format!("{count} faults"),
    };
    format!("{count}\n{}", lines.join("\n"))
}

/// The source that is meant.
fn chosen<'a>(settings: &'a Settings, name: Option<&str>) -> Result<&'a Source, Failure> {
    let found = match (name, settings.sources.as_slice()) {
        (None, [only]) => Some(only),
        (None, _) => None,
        (Some(name), sources) => sources.iter().find(|source| source.name == name),
    };
    found.ok_or_else(|| {
        let names: Vec<&str> = settings.sources.iter().map(|source| source.name.as_str()).collect();
        Failure::Settings(format!("say which source with --source: {}", names.join(", ")))
    })
}
