//! `SslMode`: libpq's words for how much safety a connection must have; and `Transport`, what comes of it.

use super::{ConnInfoError, error::invalid};
use std::{fmt, str::FromStr};

/// libpq's `sslmode` (manual, section 34.19.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the manual's own words")]
pub enum SslMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Every mode with its spelling.
const SSL_MODES: [(&str, SslMode); 6] = [
    ("disable", SslMode::Disable),
    ("allow", SslMode::Allow),
    ("prefer", SslMode::Prefer),
    ("require", SslMode::Require),
    ("verify-ca", SslMode::VerifyCa),
    ("verify-full", SslMode::VerifyFull),
];

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = SSL_MODES.iter().find(|(_, mode)| mode == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for SslMode {
    type Err = ConnInfoError;

    fn from_str(text: &str) -> Result<Self, ConnInfoError> {
        let found = SSL_MODES.iter().find(|(name, _)| *name == text);
        found.map(|(_, mode)| *mode).ok_or_else(|| {
            let names = SSL_MODES.map(|(name, _)| name);
            invalid("sslmode", format!("expected one of {}", names.join(", ")))
        })
    }
}

impl SslMode {
    /// Whether the server's certificate must be signed by a CA that is known.
    #[must_use]
    pub fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

/// One way to try an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Unencrypted.
    Plain,
    /// Encrypted, or unencrypted if the server says that it has no TLS.
    TlsIfOffered,
    /// Encrypted.
    Tls,
}
