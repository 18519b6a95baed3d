//! `[pages]`: where the pages read, and who they take somebody for.

use super::{
    ConfigError, Settings, connection,
    jwt::{Jwks, Jwt, JwtFile},
    proof::signing_key,
};
use crate::conninfo::ConnInfo;
use serde::Deserialize;
use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

/// How the pages know who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Whoever reaches the address sees all; only on a loopback address.
    Loopback,
    /// A bearer token, or a session cookie that one was exchanged for: lines of `SHA-256 in hex, name` in a file that is read again for each login.
    Token { file: PathBuf },
    /// A header that a proxy sets, from these addresses only.
    Proxy { header: String, peers: Vec<IpAddr> },
    /// A token that an identity server signed, in a bearer header or a cookie of the portal's.
    Jwt(Jwt),
}

/// What the pages need.
#[derive(Debug, Clone)]
pub struct Pages {
    pub conninfo: ConnInfo,
    pub access: Access,
    /// Names of those who see all.
    pub admins: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Loopback,
    Token,
    Proxy,
    Jwt,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PagesFile {
    dsn: String,
    access: Mode,
    token_file: Option<PathBuf>,
    proxy_header: Option<String>,
    #[serde(default)]
    proxy_peers: Vec<IpAddr>,
    #[serde(default)]
    admins: Vec<String>,
    jwt: Option<JwtFile>,
}

/// Letters of a SHA-256 in hex.
const HASH_LETTERS: usize = 64;

/// What a token file says: the number of each line that is neither empty nor a remark, and its SHA-256 in small hex letters with a name; `None`: it names nobody.
pub fn token_lines(text: &str) -> impl Iterator<Item = (usize, Option<(&str, &str)>)> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let lines = (1..).zip(text.lines().map(str::trim));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(
        move |(number, line)| {
            let named = line.split_once(char::is_whitespace);
            let named =
                named.filter(|(hash, _)| hash.len() == HASH_LETTERS && hash.bytes().all(is_hex));
            (number, named.map(|(hash, name)| (hash, name.trim())))
        },
    )
}

impl Settings {
    /// Whether the keys that the settings name can be used: those that sign checkpoints, and those that verify the pages' tokens.
    ///
    /// # Errors
    /// The first that cannot, and its fix.
    pub fn try_keys(&self) -> Result<(), ConfigError> {
        if let Some(proof) = &self.proof {
            signing_key(&proof.key_file)?;
        }
        match self.pages.as_ref().map(|pages| &pages.access) {
            Some(Access::Jwt(jwt)) => Jwks::read(&jwt.jwks_file).map(drop),
            _ => Ok(()),
        }
    }
}

impl PagesFile {
    /// Checks it against where the pages are served; paths are relative to the settings file.
    pub(super) fn check(
        self,
        path: &Path,
        listen: Option<SocketAddr>,
    ) -> Result<Pages, ConfigError> {
        let fault = |message: &str| ConfigError::Value {
            path: path.to_owned(),
            message: format!("[pages] {message}"),
        };
        let Some(listen) = listen else {
            return Err(fault("needs [serve] listen: the address where the pages are served"));
        };
        let access = match self.access {
            Mode::Loopback if listen.ip().is_loopback() => Access::Loopback,
            Mode::Loopback => {
                return Err(fault(
                    "access = \"loopback\" lets everybody see all, so [serve] listen must be a loopback address: take \"token\", \"proxy\" or \"jwt\", or listen on 127.0.0.1",
                ));
            }
            Mode::Token => match self.token_file {
                Some(file) => Access::Token { file: beside(path, file) },
                None => return Err(fault("access = \"token\" needs token_file")),
            },
            Mode::Proxy => match (self.proxy_header, self.proxy_peers) {
                (Some(header), peers) if !peers.is_empty() => {
                    Access::Proxy { header: header.to_ascii_lowercase(), peers }
                }
                _ => {
                    return Err(fault(
                        "access = \"proxy\" needs proxy_header and proxy_peers: the addresses that may name a user",
                    ));
                }
            },
            Mode::Jwt => match self.jwt {
                Some(jwt) => Access::Jwt(jwt.check(path).map_err(|message| fault(&message))?),
                None => {
                    return Err(fault(
                        "access = \"jwt\" needs [pages.jwt] with jwks_file, issuer and audience",
                    ));
                }
            },
        };
        let conninfo = connection(path, "[pages]", &self.dsn)?;
        Ok(Pages { conninfo, access, admins: self.admins })
    }
}

fn beside(settings: &Path, file: PathBuf) -> PathBuf {
    settings.parent().map_or(file.clone(), |folder| folder.join(file))
}
