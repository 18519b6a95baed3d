//! `[proof]`: who signs checkpoints, and where copies of them go.

use super::ConfigError;
use crate::{conninfo::is_private, note::SigningKey};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// An event may wait for its signature for so many intervals: `check`, the pages and the alert rule say the same.
pub const CHECKPOINT_INTERVALS_MAX: u32 = 3;

/// Checkpoints that sign the record.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofSettings {
    /// The private key that `portal-audit proof key` made; read again for each checkpoint.
    pub key_file: PathBuf,
    /// How often a checkpoint is made, in seconds, if events were added.
    #[serde(default = "ProofSettings::interval")]
    pub interval_seconds: u64,
    /// Each checkpoint is appended to this file.
    pub copy_to_file: Option<PathBuf>,
    /// And given to this program, with its arguments, on its stdin.
    #[serde(default)]
    pub copy_to_command: Vec<String>,
    /// How long that may take, in seconds.
    #[serde(default = "ProofSettings::copy_timeout")]
    pub copy_timeout_seconds: u64,
}

impl ProofSettings {
    fn interval() -> u64 {
        300
    }

    fn copy_timeout() -> u64 {
        30
    }

    pub(super) fn check(mut self, settings: &Path) -> Result<Self, ConfigError> {
        let folder = settings.parent().unwrap_or(Path::new("."));
        self.key_file = folder.join(self.key_file);
        self.copy_to_file = self.copy_to_file.map(|file| folder.join(file));
        let fault = |message: &str| ConfigError::Value {
            path: settings.to_owned(),
            message: message.to_owned(),
        };
        if self.interval_seconds == 0 || self.copy_timeout_seconds == 0 {
            return Err(fault("seconds of [proof] must be at least 1"));
        }
        Ok(self)
    }
}

/// Reads the private key that signs checkpoints. Nobody else may read it.
///
/// # Errors
/// It cannot be read, others may read it, or it is none.
pub fn signing_key(path: &Path) -> Result<SigningKey, ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    let fault = |message: String| ConfigError::Value { path: path.to_owned(), message };
    if !is_private(&std::fs::metadata(path).map_err(read)?) {
        let path = path.display();
        return Err(fault(format!("others may read the key file: run chmod 0600 {path}")));
    }
    let text = std::fs::read_to_string(path).map_err(read)?;
    SigningKey::parse(&text).map_err(|error| fault(error.to_string()))
}
