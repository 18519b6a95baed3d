//! Why a connection string, or a file that it names, cannot be used.

use super::SslMode;
use std::{io, path::PathBuf};

/// Why a connection string cannot be used. No text of it holds a password.
#[derive(Debug, thiserror::Error)]
pub enum ConnInfoError {
    /// The string cannot be read. It is not quoted, because it may hold a password.
    #[error("malformed connection string: {problem} at byte {position}")]
    Syntax {
        /// What was expected or found.
        problem: &'static str,
        /// Byte offset into the string, from 0.
        position: usize,
    },
    /// libpq has no such parameter.
    #[error("unknown connection parameter \"{name}\"{}", did_you_mean(*.suggestion))]
    Unknown {
        /// The name as given.
        name: String,
        /// The parameter whose name is nearest.
        suggestion: Option<&'static str>,
    },
    /// libpq has it, we have not.
    #[error("connection parameter \"{name}\" is not supported. {why} Remove it.")]
    NotHonoured {
        /// The parameter, or the environment variable that sets it.
        name: &'static str,
        /// A sentence: why, or what to do instead.
        why: &'static str,
    },
    /// A value that its parameter cannot have.
    #[error("invalid value for connection parameter \"{name}\": {problem}")]
    Invalid {
        /// The parameter; never `password`.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The service file does not hold the service, or cannot be read.
    #[error("service \"{service}\" of file \"{path}\": {problem}", path = path.display())]
    Service {
        /// The service asked for.
        service: String,
        /// The last file looked at.
        path: PathBuf,
        /// What is wrong; quotes no value.
        problem: String,
    },
    /// `sslmode` verifies the server and there is nothing to verify it by.
    #[error(
        "sslmode={sslmode} needs the certificate of the server's CA: name its file in sslrootcert, put it at ~/.postgresql/root.crt, or say sslrootcert=system for the CAs of the system."
    )]
    NoRootFile {
        /// The mode asked for.
        sslmode: SslMode,
    },
    /// A file that was named, or that another needs, cannot be read.
    #[error("could not read {parameter} \"{path}\"", path = path.display())]
    FileRead {
        /// The parameter that names it.
        parameter: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others can read the client certificate's key, so it is not used; libpq does not use it either.
    #[error(
        "sslkey \"{path}\" is not used: others may read it. Run `chmod 0600` on it; a file of root's may have 0640.",
        path = path.display()
    )]
    KeyMode {
        /// The file.
        path: PathBuf,
    },
    /// Others can read the passfile, so it is not used; libpq ignores such a file too.
    #[error(
        "passfile \"{path}\" is not used: others may read it. Run `chmod 0600` on it; a file of root's may have 0640.",
        path = path.display()
    )]
    PassfileMode {
        /// The file.
        path: PathBuf,
    },
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!(". Did you mean \"{name}\"?"))
}

pub(super) fn invalid(name: &'static str, problem: impl Into<String>) -> ConnInfoError {
    ConnInfoError::Invalid { name, problem: problem.into() }
}
