//! The verb `facility`.

use super::{FacilityError, detail, end, facilities, facility_detail, fold, list, plan};
use crate::{
    chain::chain,
    config::AuditArguments,
    connect::{self, Session},
    show::{OutputFormat, visible},
};
use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
};

/// A definite fault.
const EXIT_FAULT: u8 = 1;
/// Usage or settings.
const EXIT_SETTINGS: u8 = 2;

/// Events that are counted before an answer: some seconds' work, and only where nobody asked for long.
const FOLD_EVENTS: i64 = 100_000;

#[derive(Debug, clap::Subcommand)]
pub enum FacilityVerb {
    /// Every facility with its state, the worst first
    List {
        /// As of this time: 2026-04-30, "2026-04-30 12:00" (UTC)
        #[arg(long, value_name = "TIME", default_value = "now", hide_default_value = true)]
        at: String,
        #[command(flatten)]
        reach: AuditArguments,
        #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
        format: OutputFormat,
    },
    /// One facility: its state and why, its resources, who holds them, its history
    Show {
        name: String,
        /// How far back its history goes
        #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(i32).range(1..=3660))]
        days: i32,
        #[command(flatten)]
        reach: AuditArguments,
        #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
        format: OutputFormat,
    },
    /// Announce maintenance, end it, or cancel it; each is an event that users can read
    Maintenance(MaintenanceArguments),
}

#[derive(Debug, clap::Args)]
pub struct MaintenanceArguments {
    name: String,
    /// When it begins: now, +2h, "2026-12-01 09:00" (UTC)
    #[arg(long, value_name = "TIME", default_value = "now", conflicts_with_all = ["end", "cancel"])]
    from: String,
    /// When it is expected to end; it lasts until somebody ends it
    #[arg(long, value_name = "TIME", required_unless_present_any = ["end", "cancel"], conflicts_with_all = ["end", "cancel"])]
    until: Option<String>,
    /// What is done, for users to read
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["end", "cancel"], conflicts_with_all = ["end", "cancel"])]
    note: Option<String>,
    /// End the maintenance that has begun
    #[arg(long, conflicts_with = "cancel")]
    end: bool,
    /// Cancel the next one that has not begun
    #[arg(long)]
    cancel: bool,
    #[command(flatten)]
    reach: AuditArguments,
}

/// Why the verb ends without a result.
enum Failure {
    Fault(FacilityError),
    Settings(String),
}

impl From<FacilityError> for Failure {
    fn from(error: FacilityError) -> Self {
        Self::Fault(error)
    }
}

/// Runs the verb to its exit code: 0 done, 1 refused or not reached, 2 usage or settings.
pub async fn run(verb: FacilityVerb) -> ExitCode {
    let done = match verb {
        FacilityVerb::List { at, reach, format } => print_list(&at, &reach, format).await,
        FacilityVerb::Show { name, days, reach, format } => {
            print_detail(&name, days, &reach, format).await
        }
        FacilityVerb::Maintenance(arguments) => maintain(&arguments).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Fault(error)) => complain(&chain(&error), EXIT_FAULT),
        Err(Failure::Settings(message)) => complain(&message, EXIT_SETTINGS),
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a program that cannot go on")]
fn complain(text: &str, code: u8) -> ExitCode {
    eprintln!("portal-audit: {text}");
    ExitCode::from(code)
}

#[expect(clippy::print_stdout, reason = "the output that was asked for")]
fn print(text: &str) {
    println!("{}", text.trim_end());
}

async fn open(reach: &AuditArguments) -> Result<Session, Failure> {
    let conninfo = reach.conninfo().map_err(|error| Failure::Settings(chain(&error)))?;
    let session = connect::connect(&conninfo, "facility").await;
    session.map_err(|error| Failure::Fault(FacilityError::Connect(error)))
}

fn json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(|error| Failure::Settings(error.to_string()))
}

/// Width of the terminal, if it is one.
fn width() -> Option<usize> {
    let size = terminal_size::terminal_size().filter(|_| io::stdout().is_terminal());
    size.map(|(width, _)| usize::from(width.0))
}

async fn print_list(at: &str, reach: &AuditArguments, format: OutputFormat) -> Result<(), Failure> {
    let session = open(reach).await?;
    fold(&session, FOLD_EVENTS).await?;
    let all = facilities(&session, at).await?;
    match format {
        OutputFormat::Text => print(&list(&all, width(), io::stdout().is_terminal())),
        OutputFormat::Json => print(&json(&all)?),
    }
    Ok(())
}

async fn print_detail(
    name: &str,
    days: i32,
    reach: &AuditArguments,
    format: OutputFormat,
) -> Result<(), Failure> {
    let session = open(reach).await?;
    fold(&session, FOLD_EVENTS).await?;
    let one = facility_detail(&session, name, days).await?;
    match format {
        OutputFormat::Text => print(&detail(&one, days, io::stdout().is_terminal())),
        OutputFormat::Json => print(&json(&one)?),
    }
    Ok(())
}

async fn maintain(arguments: &MaintenanceArguments) -> Result<(), Failure> {
    let MaintenanceArguments { name, from, until, note, end: is_ended, cancel, reach } = arguments;
    let session = open(reach).await?;
    if *is_ended || *cancel {
        end(&session, name, *cancel).await?;
    } else {
        let until = until.as_deref().unwrap_or_default();
        plan(&session, name, (from, until), note.as_deref().unwrap_or_default()).await?;
    }
    let one = facility_detail(&session, name, 1).await?.facility;
    let (sign, word) = (one.state.sign(), one.state.word());
    print(&format!("{sign} {}  {word}: {}", visible(&one.name), visible(&one.why)));
    Ok(())
}
