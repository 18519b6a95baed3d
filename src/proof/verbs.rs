//! The verbs `verify` and `proof`, as they are typed.

use super::{
    ProofError,
    checkpoint::{self, Outcome},
    export, file,
    finding::Report,
    live::{self, Since, Wishes},
    show, single,
};
use crate::{
    chain::chain,
    config::{self, AuditArguments, AuditError},
    connect,
    note::{self, PublicKey, SigningKey},
    show::OutputFormat,
};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};
use uuid::Uuid;

/// The proof is broken, or a database does not answer.
const EXIT_FAULT: u8 = 1;
/// Usage or settings.
const EXIT_SETTINGS: u8 = 2;

#[derive(Debug, clap::Args)]
pub struct VerifyArguments {
    #[command(flatten)]
    audit: AuditArguments,
    /// The public key that signs checkpoints, as `portal-audit proof key` printed it; several after a change of key
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// Copies of checkpoints from outside the database: what tells that it was taken back
    #[arg(long, value_name = "FILE")]
    checkpoints: Vec<PathBuf>,
    /// Compare only what came after a checkpoint: its number, or a file with its copy
    #[arg(long, value_name = "NUMBER|FILE")]
    since: Option<String>,
    /// Verify what `portal-audit proof export` wrote, without a database
    #[arg(long, value_name = "FILE", conflicts_with_all = ["since", "config", "audit"])]
    export: Option<PathBuf>,
    /// Prove that one event is in its tree, and print the proof: with --format json whoever has it and the public key can check it alone
    #[arg(long, value_name = "UUID", conflicts_with_all = ["since", "export", "checkpoints"])]
    event: Option<Uuid>,
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    format: OutputFormat,
}

#[derive(Debug, clap::Subcommand)]
pub enum ProofVerb {
    /// Make the key that signs checkpoints, and print its public half, which verify needs: keep that where nobody who owns the audit database can change it
    Key {
        /// The private key's file; a new one, for its owner alone
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The log's name in every checkpoint: a host's name, or one with a path
        #[arg(long, value_name = "NAME", default_value = "portal-audit")]
        name: String,
    },
    /// Write what proves the record into a file: rows, leaves, checkpoints and removals, for `verify --export` anywhere. It holds every event: as secret as the log
    Export {
        #[command(flatten)]
        audit: AuditArguments,
        /// A new file, for its owner alone
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Make a checkpoint now, and print it
    Checkpoint {
        #[command(flatten)]
        audit: AuditArguments,
        /// The private key's file
        #[arg(long, value_name = "FILE")]
        key_file: PathBuf,
    },
}

enum Failure {
    Fault(String),
    Settings(String),
}

impl From<AuditError> for Failure {
    fn from(error: AuditError) -> Self {
        Self::Settings(chain(&error))
    }
}

impl From<ProofError> for Failure {
    fn from(error: ProofError) -> Self {
        Self::Fault(chain(&error))
    }
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the output that was asked for")]
fn end(result: Result<(String, bool), Failure>) -> ExitCode {
    match result {
        Ok((text, is_sound)) => {
            println!("{text}");
            if is_sound { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAULT) }
        }
        Err(Failure::Fault(text)) => {
            eprintln!("portal-audit: {text}");
            ExitCode::from(EXIT_FAULT)
        }
        Err(Failure::Settings(text)) => {
            eprintln!("portal-audit: {text}");
            ExitCode::from(EXIT_SETTINGS)
        }
    }
}

/// Runs `verify`.
pub async fn verify(arguments: VerifyArguments) -> ExitCode {
    end(verify_with(arguments).await)
}

async fn verify_with(arguments: VerifyArguments) -> Result<(String, bool), Failure> {
    let keys: Result<Vec<PublicKey>, _> =
        arguments.key.iter().map(|key| PublicKey::parse(key)).collect();
    let keys = keys.map_err(|error| Failure::Settings(format!("--key: {error}")))?;
    let mut copies = Vec::new();
    for path in &arguments.checkpoints {
        let notes = note::notes(&read(path)?).into_iter().enumerate();
        let name = |place: usize| format!("note {} of {}", place + 1, path.display());
        copies.extend(notes.map(|(place, note)| (name(place), note)));
    }
    let since = match &arguments.since {
        Some(text) => Some(since(text)?),
        None => None,
    };
    let wishes = Wishes { keys, copies, since };
    let progress = progress();
    if let Some(path) = &arguments.export {
        let report = file::verify(path, &wishes, &progress);
        progress.finish_and_clear();
        return Ok(render(&report?, arguments.format));
    }
    let conninfo = arguments.audit.conninfo()?;
    let mut session = connect::connect(&conninfo, "verify").await.map_err(ProofError::Connect)?;
    if let Some(event_uuid) = arguments.event {
        let single = single::prove(&mut session, event_uuid, &wishes.keys).await?;
        let is_sound = single.is_sound();
        let text = match arguments.format {
            OutputFormat::Text => single.text(),
            OutputFormat::Json => json(&single),
        };
        return Ok((text, is_sound));
    }
    let report = live::verify(&mut session, &wishes, &progress).await;
    progress.finish_and_clear();
    Ok(render(&report?, arguments.format))
}

fn since(text: &str) -> Result<Since, Failure> {
    if let Ok(number) = text.parse() {
        return Ok(Since::Number(number));
    }
    let last = note::notes(&read(Path::new(text))?).pop();
    last.map(Since::Note).ok_or_else(|| Failure::Settings(format!("{text} holds no checkpoint")))
}

fn read(path: &Path) -> Result<String, Failure> {
    let read = |source| ProofError::Read { path: path.to_owned(), source };
    std::fs::read_to_string(path).map_err(read).map_err(|error| Failure::Settings(chain(&error)))
}

fn render(report: &Report, format: OutputFormat) -> (String, bool) {
    let text = match format {
        OutputFormat::Text => show::text(report),
        OutputFormat::Json => json(report),
    };
    (text, report.is_sound())
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("\"{error}\""))
}

/// On stderr, and only if that is a terminal.
fn progress() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = "{bar:32} {percent:>3} %  {human_pos} of {human_len} leaves, {eta} left";
    match ProgressStyle::with_template(style) {
        Ok(style) => bar.with_style(style),
        Err(_fault) => bar,
    }
}

/// Runs `proof`.
pub async fn proof(verb: ProofVerb) -> ExitCode {
    let text = match verb {
        ProofVerb::Key { out, name } => make_key(&out, &name),
        ProofVerb::Export { audit, out } => write_export(&audit, &out).await,
        ProofVerb::Checkpoint { audit, key_file } => make_checkpoint(&audit, &key_file).await,
    };
    end(text.map(|text| (text, true)))
}

fn make_key(out: &Path, name: &str) -> Result<String, Failure> {
    let (key, line) =
        SigningKey::generate(name).map_err(|error| Failure::Settings(error.to_string()))?;
    let write = |source| ProofError::Write { path: out.to_owned(), source };
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(out).map_err(write)?;
    writeln!(file, "{line}").and_then(|()| file.sync_all()).map_err(write)?;
    Ok(key.public().to_string())
}

async fn write_export(audit: &AuditArguments, out: &Path) -> Result<String, Failure> {
    let conninfo = audit.conninfo()?;
    let mut session = connect::connect(&conninfo, "proof").await.map_err(ProofError::Connect)?;
    let progress = progress();
    let leaves = export::export(&mut session, out, &progress).await;
    progress.finish_and_clear();
    let leaves = leaves?;
    Ok(format!("{leaves} leaves with their rows are in {}.", out.display()))
}

async fn make_checkpoint(audit: &AuditArguments, key_file: &Path) -> Result<String, Failure> {
    let key = config::signing_key(key_file).map_err(|error| Failure::Settings(chain(&error)))?;
    let conninfo = audit.conninfo()?;
    let mut session = connect::connect(&conninfo, "proof").await.map_err(ProofError::Connect)?;
    match checkpoint::make(&mut session, &key, None).await? {
        Outcome::Made(made) => Ok(made.note.trim_end().to_owned()),
        Outcome::Same => Ok("Nothing was added since the last checkpoint.".to_owned()),
        Outcome::Busy => {
            Err(Failure::Fault("a sidecar is making a checkpoint at this moment: try again".into()))
        }
    }
}
