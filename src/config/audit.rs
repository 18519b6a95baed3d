//! `--audit` and `--config`: which audit database a verb asks, and as whom. One meaning for all verbs.

use super::{ConfigError, Settings, conninfo};
use crate::conninfo::{ConnInfo, ConnInfoError};
use std::path::PathBuf;

/// Which audit database is asked, and as whom.
#[derive(Debug, Clone, clap::Args)]
pub struct AuditArguments {
    /// The audit database as a role that may do this, without a password; without it that of --config, or what PGHOST, PGUSER … say
    #[arg(long, value_name = "DSN")]
    audit: Option<String>,
    /// The settings file, whose audit database is meant if --audit names none
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Why it is not known which.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error(transparent)]
    Settings(#[from] ConfigError),
    #[error(transparent)]
    ConnInfo(#[from] ConnInfoError),
}

impl AuditArguments {
    /// The connection that they mean; what they do not say comes from the environment, as for psql.
    ///
    /// # Errors
    /// The settings or the connection string cannot be used.
    pub fn conninfo(&self) -> Result<ConnInfo, AuditError> {
        match (&self.audit, &self.config) {
            (None, Some(path)) => Ok(Settings::load(path)?.audit),
            (text, _) => Ok(conninfo(text.as_deref().unwrap_or_default())?),
        }
    }
}
