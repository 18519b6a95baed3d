//! The settings: one TOML file, its types, defaults and limits. The one reader of the environment.
//!
//! `deploy/portal-audit.toml` holds every setting with its default; a test compares the two.

mod audit;
mod facilities;
mod jwt;
mod pages;
mod proof;

pub use audit::{AuditArguments, AuditError};
pub use facilities::{Facilities, Facility};
pub use jwt::{AdminClaim, Jwks, Jwt, PublicKey};
pub use pages::{Access, Pages, token_lines};
pub use proof::{CHECKPOINT_INTERVALS_MAX, ProofSettings, signing_key};

use crate::{
    conninfo::{ConnInfo, ConnInfoError, is_private},
    translate::{
        kratos::identifier::{IdentifierKey, KEY_BYTES_MIN},
        mapping::{Mapping, MappingErrors},
    },
};
use pages::PagesFile;
use serde::Deserialize;
use std::{
    collections::HashSet,
    io,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Mappings that are built in, by name.
const BUILT_IN_MAPPINGS: &[(&str, &str)] = &[
    ("merge-reference", include_str!("../deploy/mapping/merge-reference.toml")),
    ("kratos", include_str!("../deploy/mapping/kratos.toml")),
];

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{}:{line}: {message}", path.display())]
    Syntax { path: PathBuf, line: usize, message: String },
    #[error("{}: {message}", path.display())]
    Value { path: PathBuf, message: String },
    #[error("{}: the connection of {object}", path.display())]
    ConnInfo {
        path: PathBuf,
        object: String,
        #[source]
        source: ConnInfoError,
    },
    #[error("the mapping of source {source_name:?} has faults")]
    Mapping {
        source_name: String,
        #[source]
        source: MappingErrors,
    },
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    audit: AuditFile,
    #[serde(default)]
    source: Vec<SourceFile>,
    #[serde(default)]
    limits: Limits,
    serve: Option<ServeFile>,
    proof: Option<ProofSettings>,
    pages: Option<PagesFile>,
    #[serde(default)]
    facilities: facilities::FacilitiesFile,
    #[serde(default)]
    facility: Vec<Facility>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServeFile {
    listen: SocketAddr,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditFile {
    dsn: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceFile {
    name: String,
    dsn: String,
    publication: Option<String>,
    slot: Option<String>,
    mapping: String,
    #[serde(default)]
    backfill: bool,
    identifier_key_file: Option<PathBuf>,
}

/// Every buffer and every wait has its limit here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of unfinished transactions that a source keeps in memory; beyond, they wait in an unnamed file.
    pub transaction_memory_bytes: usize,
    /// Where such files are made.
    pub spool_folder: PathBuf,
    /// An audit transaction ends with the source transaction that reaches so many events.
    pub batch_events: usize,
    /// Or so many bytes of their text.
    pub batch_bytes: usize,
    /// Longest value of a payload's key in bytes; a longer one is replaced by its hash.
    pub value_bytes: usize,
    /// Names that are kept in memory, at most 16 MiB of them; the others are in the audit database.
    pub names_in_memory: NonZeroUsize,
    /// Whether the server sends large transactions before they commit.
    pub streaming: bool,
    /// How long the audit database has to answer, in seconds. Then the source's connection is closed too, so that the source can be shut down.
    pub audit_timeout_seconds: u64,
    /// How long the source may be silent, in seconds, although it is asked for a sign of life each second. Then it is taken for dead and connected to anew. PostgreSQL's own receivers wait 60 (wal_receiver_timeout).
    pub source_timeout_seconds: u64,
    /// How long creating a slot may wait for open transactions of the source, in seconds.
    pub slot_timeout_seconds: u64,
    /// How often the slot is told what is written, in milliseconds.
    pub confirm_interval_ms: u64,
    /// How often "complete to" is written while nothing happens, in milliseconds.
    pub complete_interval_ms: u64,
    /// How often the source's catalog is looked at for changes of what is covered, in milliseconds.
    pub coverage_interval_ms: u64,
    /// How often the source is asked how transactions ended whose attempts wait, in milliseconds.
    pub attempt_interval_ms: u64,
    /// How often the audit database's derived tables (users, members, stats as of any time) are brought up with the record, in milliseconds.
    pub keep_interval_ms: u64,
    /// Longest wait before a source is tried again, in seconds.
    pub retry_max_seconds: u64,
    /// Bytes of log that our slot may keep on a source's disk. Warnings come at 50 and 80 %.
    pub wal_budget_bytes: u64,
    /// What happens beyond.
    pub wal_budget_action: WalBudgetAction,
    /// How often that is looked at, in milliseconds.
    pub wal_check_interval_ms: u64,
    /// How often retention is applied, in seconds; 0: not by the sidecar.
    pub prune_interval_seconds: u64,
    /// Events that one transaction of it takes away at most.
    pub prune_events: i32,
}

/// What happens to a slot that keeps more than the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WalBudgetAction {
    /// It is given up, and the gap recorded: the source's disk does not fill up.
    Release,
    /// It stays.
    Warn,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            transaction_memory_bytes: 16 << 20,
            spool_folder: PathBuf::from("/tmp"),
            batch_events: 10_000,
            batch_bytes: 8 << 20,
            value_bytes: 64 << 10,
            names_in_memory: NonZeroUsize::new(100_000).unwrap_or(NonZeroUsize::MIN),
            streaming: true,
            audit_timeout_seconds: 30,
            source_timeout_seconds: 60,
            slot_timeout_seconds: 60,
            confirm_interval_ms: 100,
            complete_interval_ms: 2_000,
            coverage_interval_ms: 5_000,
            attempt_interval_ms: 500,
            keep_interval_ms: 1_000,
            retry_max_seconds: 10,
            wal_budget_bytes: 16 << 30,
            wal_budget_action: WalBudgetAction::Release,
            wal_check_interval_ms: 10_000,
            prune_interval_seconds: 3_600,
            prune_events: 1_000,
        }
    }
}

impl Limits {
    /// How long the source may be silent.
    #[must_use]
    pub fn source_timeout(&self) -> Duration {
        Duration::from_secs(self.source_timeout_seconds)
    }

    /// How long the audit database has to answer.
    #[must_use]
    pub fn audit_timeout(&self) -> Duration {
        Duration::from_secs(self.audit_timeout_seconds)
    }
}

/// The settings, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    pub audit: ConnInfo,
    pub sources: Vec<Source>,
    pub limits: Limits,
    /// Where `/livez`, `/readyz` and `/metrics` are served; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// `None`: no checkpoints are made.
    pub proof: Option<ProofSettings>,
    /// The pages, if they are served there too.
    pub pages: Option<Pages>,
    pub facilities: Facilities,
}

/// One database that is followed.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name in progress, in `_audit` and in logs.
    pub name: String,
    pub conninfo: ConnInfo,
    pub publication: String,
    pub slot: String,
    pub mapping: Arc<Mapping>,
    /// As the settings name it.
    pub mapping_name: String,
    /// Whether the first start makes events of rows that exist.
    pub backfill: bool,
    /// Of the hash that stands for a failed login's identifier that nobody has.
    pub identifier_key: Option<IdentifierKey>,
}

/// Reads the environment: libpq's variables, and what says how wide and in which colours to write, are the only ones.
#[expect(clippy::disallowed_methods, reason = "this is the one reader of the environment")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether whoever runs this wants no colours: `NO_COLOR` is set and not empty (no-color.org), or the terminal cannot show them.
#[must_use]
pub fn is_colourless() -> bool {
    let is_set = environment("NO_COLOR").is_some_and(|value| !value.is_empty());
    is_set || environment("TERM").is_some_and(|value| value == "dumb")
}

/// How wide lines shall be where no terminal says it: `COLUMNS`.
#[must_use]
pub fn columns() -> Option<usize> {
    environment("COLUMNS")?.parse().ok().filter(|columns| *columns > 0)
}

/// Parses a connection string with libpq's environment defaults.
///
/// # Errors
/// What [`ConnInfo::parse`] finds.
pub fn conninfo(text: &str) -> Result<ConnInfo, ConnInfoError> {
    ConnInfo::parse(text, &environment)
}

impl Settings {
    /// Reads a settings file, and the mappings it names beside it.
    ///
    /// # Errors
    /// A file that cannot be read, or anything in it that is not understood.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let settings = Self::parse(path, &text)?;
        let mut written = settings.sources.iter().map(|source| &source.conninfo);
        let has_password =
            settings.audit.is_password_written() || written.any(ConnInfo::is_password_written);
        let is_open = std::fs::metadata(path).is_ok_and(|file| !is_private(&file));
        if has_password && is_open {
            let path = path.display();
            tracing::warn!(%path, "others may read the settings, which hold a password: run chmod 0600 on them, or use a passfile");
        }
        Ok(settings)
    }

    /// Reads settings from `text`; paths in it are relative to `path`.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = text.get(..start).unwrap_or_default().matches('\n').count() + 1;
            let message = error.message().to_owned();
            ConfigError::Syntax { path: path.to_owned(), line, message }
        })?;
        let value_error = |message: String| ConfigError::Value { path: path.to_owned(), message };
        if file.source.is_empty() {
            return Err(value_error("there is no [[source]]: name a database to follow".into()));
        }
        check_limits(&file.limits).map_err(value_error)?;
        let mut names = HashSet::new();
        let mut sources = Vec::new();
        for source in file.source {
            if !names.insert(source.name.clone()) {
                return Err(value_error(format!("two sources are named {:?}", source.name)));
            }
            sources.push(source.check(path)?);
        }
        let audit = connection(path, "[audit]", &file.audit.dsn)?;
        let listen = file.serve.map(|serve| serve.listen);
        let proof = file.proof.map(|proof| proof.check(path)).transpose()?;
        let pages = file.pages.map(|pages| pages.check(path, listen)).transpose()?;
        let facilities = file.facilities.check(file.facility).map_err(value_error)?;
        Ok(Self { audit, sources, limits: file.limits, listen, proof, pages, facilities })
    }
}

/// One change must find all its names in memory at once.
const NAMES_IN_MEMORY_MIN: usize = 64;

/// A slot's name has up to 63 bytes, and `_released` must fit behind it.
const SLOT_BYTES_MAX: usize = 54;

fn check_limits(limits: &Limits) -> Result<(), String> {
    if limits.names_in_memory.get() < NAMES_IN_MEMORY_MIN {
        return Err(format!("limits.names_in_memory must be at least {NAMES_IN_MEMORY_MIN}"));
    }
    let positive = [
        ("batch_events", limits.batch_events as u64),
        ("batch_bytes", limits.batch_bytes as u64),
        ("value_bytes", limits.value_bytes as u64),
        ("audit_timeout_seconds", limits.audit_timeout_seconds),
        ("source_timeout_seconds", limits.source_timeout_seconds),
        ("slot_timeout_seconds", limits.slot_timeout_seconds),
        ("confirm_interval_ms", limits.confirm_interval_ms),
        ("complete_interval_ms", limits.complete_interval_ms),
        ("coverage_interval_ms", limits.coverage_interval_ms),
        ("attempt_interval_ms", limits.attempt_interval_ms),
        ("keep_interval_ms", limits.keep_interval_ms),
        ("retry_max_seconds", limits.retry_max_seconds),
        ("wal_budget_bytes", limits.wal_budget_bytes),
        ("wal_check_interval_ms", limits.wal_check_interval_ms),
    ];
    if limits.prune_events < 1 {
        return Err("limits.prune_events must be at least 1".to_owned());
    }
    match positive.iter().find(|(_, value)| *value == 0) {
        Some((name, _)) => Err(format!("limits.{name} must be at least 1")),
        None => Ok(()),
    }
}

fn connection(path: &Path, object: &str, dsn: &str) -> Result<ConnInfo, ConfigError> {
    conninfo(dsn).map_err(|source| ConfigError::ConnInfo {
        path: path.to_owned(),
        object: object.to_owned(),
        source,
    })
}

impl SourceFile {
    fn check(self, path: &Path) -> Result<Source, ConfigError> {
        let value_error = |message: String| ConfigError::Value { path: path.to_owned(), message };
        if self.name.starts_with('.') {
            return Err(value_error(format!(
                "source {:?} begins with a dot: such names are those of the audit database's own events",
                self.name
            )));
        }
        let slot = self.slot.unwrap_or_else(|| format!("portal_audit_{}", self.name));
        let is_slot_name = !slot.is_empty()
            && slot.len() <= SLOT_BYTES_MAX
            && slot
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !is_slot_name {
            return Err(value_error(format!(
                "slot {slot:?} of source {:?} is not up to {SLOT_BYTES_MAX} lower-case letters, digits and underscores",
                self.name
            )));
        }
        let object = format!("source {:?}", self.name);
        let conninfo = connection(path, &object, &self.dsn)?;
        let mapping = load_mapping(path, &self.name, &self.mapping)?;
        let key_file = self.identifier_key_file.as_deref();
        let identifier_key = key_file.map(|file| load_key(path, file)).transpose()?;
        Ok(Source {
            name: self.name,
            conninfo,
            publication: self.publication.unwrap_or_else(|| "portal_audit".to_owned()),
            slot,
            mapping: Arc::new(mapping),
            mapping_name: self.mapping,
            backfill: self.backfill,
            identifier_key,
        })
    }
}

/// The bytes of a key file beside the settings. Nobody else may read it.
fn load_key(settings: &Path, file: &Path) -> Result<IdentifierKey, ConfigError> {
    let path = settings.parent().unwrap_or(Path::new(".")).join(file);
    let read = |source| ConfigError::Read { path: path.clone(), source };
    let fault = |message: String| ConfigError::Value { path: settings.to_owned(), message };
    if !is_private(&std::fs::metadata(&path).map_err(read)?) {
        let path = path.display();
        return Err(fault(format!("others may read the key file {path}: run chmod 0600 {path}")));
    }
    let bytes = std::fs::read(&path).map_err(read)?;
    IdentifierKey::new(bytes.trim_ascii()).ok_or_else(|| {
        fault(format!("the key file {} has less than {KEY_BYTES_MIN} bytes", path.display()))
    })
}

/// Reads a mapping by itself: a built-in one by its name, or a file.
///
/// # Errors
/// There is no such mapping, or it has faults.
pub fn mapping(name: &str) -> Result<Mapping, ConfigError> {
    load_mapping(Path::new("mapping"), name, name)
}

/// A built-in mapping by its name, or a file beside the settings.
fn load_mapping(settings: &Path, source_name: &str, mapping: &str) -> Result<Mapping, ConfigError> {
    let fault = |source| ConfigError::Mapping { source_name: source_name.to_owned(), source };
    if let Some((name, text)) = BUILT_IN_MAPPINGS.iter().find(|(name, _)| *name == mapping) {
        return Mapping::parse(&format!("mapping/{name}.toml"), text).map_err(fault);
    }
    let path = settings.parent().unwrap_or(Path::new(".")).join(mapping);
    let text = std::fs::read_to_string(&path).map_err(|source| {
        let known: Vec<&str> = BUILT_IN_MAPPINGS.iter().map(|(name, _)| *name).collect();
        let is_name = !mapping.contains(['/', '.']);
        if is_name {
            let known = known.join(", ");
            let message = format!(
                "there is no built-in mapping {mapping:?} (there are: {known}) and no such file"
            );
            return ConfigError::Value { path: settings.to_owned(), message };
        }
        ConfigError::Read { path: path.clone(), source }
    })?;
    Mapping::parse(&path.display().to_string(), &text).map_err(fault)
}

#[cfg(test)]
mod tests {
    use super::Settings;
    use std::path::Path;

    fn error(text: &str) -> String {
        Settings::parse(Path::new("p.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn faults_name_the_file_and_the_place() {
        let audit = "[audit]\ndsn = \"host=/tmp dbname=a user=u\"\n";
        assert!(error(audit).contains("p.toml: there is no [[source]]"));
        let unknown = format!("{audit}dns = 1\n");
        assert!(
            error(&unknown).starts_with("p.toml:3: unknown field `dns`"),
            "{}",
            error(&unknown)
        );
        let source =
            "[[source]]\nname = \"p\"\ndsn = \"host=/tmp dbname=a user=u\"\nmapping = \"merge\"\n";
        assert!(error(&format!("{audit}{source}")).contains("no built-in mapping \"merge\""));
        let slot = source.replace("\"merge\"", "\"merge-reference\"\nslot = \"Bad-Name\"");
        assert!(error(&format!("{audit}{slot}")).contains("slot \"Bad-Name\""));
        let dot = source.replace("\"p\"", "\".own\"");
        assert!(error(&format!("{audit}{dot}")).contains("begins with a dot"));
        let zero = format!("[limits]\nbatch_events = 0\n{audit}{source}");
        assert!(error(&zero).contains("limits.batch_events must be at least 1"));
        let source = source.replace("\"merge\"", "\"merge-reference\"");
        let place = "[[facility]]\nname = \"hill\"\nlatitude = 40.8\nlongitude = -111.8\n";
        for (line, fault) in [
            ("latitude = 91.0", "latitude must be from -90 to 90"),
            ("longitude = nan", "longitude must be from -180 to 180"),
            ("url = \"javascript:alert(1)\"", "url must begin with"),
            ("probe = \"hill.example\"", "probe must be host:port"),
        ] {
            let key = line.split(' ').next().unwrap();
            let kept: Vec<&str> = place.lines().filter(|own| !own.starts_with(key)).collect();
            let text = format!("{audit}{source}{}\n{line}\n", kept.join("\n"));
            let error = error(&text);
            assert!(error.contains(&format!("facility \"hill\": {fault}")), "{line}: {error}");
        }
        let rare = error(&format!("{audit}[facilities]\nprobe_interval_seconds = 3600\n{source}"));
        assert!(rare.contains("facilities.probe_interval_seconds must be at most 400"), "{rare}");
        let twice = error(&format!("{audit}{source}{place}{place}"));
        assert!(twice.contains("two facilities are named \"hill\""), "{twice}");
    }
}
