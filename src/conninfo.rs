//! libpq's connection parameters with libpq's meaning, refusals included (manual, section 34.1.2).
//!
//! Reads no environment and opens no connection. The one file it reads is the passfile, anew at
//! each connect, so that a rotated password needs no restart.
//!
//! Where this departs from libpq, it is on the safe side: an unencrypted connection to another
//! host is never a silent fallback, a parameter that we do not honour is an error, and connecting
//! ends after [`CONNECT_TIMEOUT_DEFAULT`] where libpq would wait for ever.

mod address;
mod refused;
mod sslmode;
mod text;

pub use address::Address;
pub use refused::Refused;
pub use sslmode::{SslMode, Transport};

use address::{SOCKET_DIRS_DEFAULT, addresses};
use std::{fmt, fs, io, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};
use text::Parameters;

/// How long one address may take to answer when `connect_timeout` is not given.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);

/// Settings that change how a value is printed; a session must never inherit them from a role or a
/// database. The portal's own defaults would else give `04/03/2026 14:06:07 JST` for a time.
const PINNED_SETTINGS: &str = "-c datestyle=ISO -c intervalstyle=postgres \
    -c extra_float_digits=3 -c bytea_output=hex -c timezone=UTC -c synchronous_commit=on \
    -c lc_monetary=C -c xmlbinary=base64 -c quote_all_identifiers=off";

/// The parameters that we honour, each with the environment variable that is its default.
const HONOURED: [(&str, &str); 11] = [
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("sslmode", "PGSSLMODE"),
    ("application_name", "PGAPPNAME"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("options", "PGOPTIONS"),
];

/// libpq's other parameters. To accept one and do nothing could weaken what its author asked for.
#[rustfmt::skip]
const NOT_HONOURED: [&str; 34] = [
    "channel_binding", "client_encoding", "fallback_application_name", "gssdelegation",
    "gssencmode", "gsslib", "keepalives", "keepalives_count", "keepalives_idle",
    "keepalives_interval", "krbsrvname", "load_balance_hosts", "max_protocol_version",
    "min_protocol_version", "oauth_client_id", "oauth_issuer", "replication", "require_auth",
    "requirepeer", "requiressl", "service", "servicefile", "ssl_max_protocol_version",
    "ssl_min_protocol_version", "sslcert", "sslcertmode", "sslcompression", "sslcrl", "sslkey",
    "sslnegotiation", "sslpassword", "sslrootcert", "target_session_attrs", "tcp_user_timeout",
];

/// Variables that would choose another server or ask for more safety than we give.
const ENV_NOT_HONOURED: [(&str, &str); 5] = [
    ("PGSERVICE", "service"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGREQUIREAUTH", "require_auth"),
    ("PGREQUIRESSL", "requiressl"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
];

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
    #[error("connection parameter \"{name}\" is not supported. Remove it.")]
    NotHonoured {
        /// The parameter, or the environment variable that sets it.
        name: &'static str,
    },
    /// A value that its parameter cannot have.
    #[error("invalid value for connection parameter \"{name}\": {problem}")]
    Invalid {
        /// The parameter; never `password`.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// `sslmode` asks for TLS.
    #[error("sslmode={sslmode} towards {address}: TLS is not built in yet")]
    TlsNotBuiltIn {
        /// libpq's word for the mode.
        sslmode: SslMode,
        /// The server meant.
        address: Address,
    },
    /// `sslmode` allows plaintext, which on a network is a decision and not a default.
    #[error(
        "refused to connect to {address} without TLS. Set sslmode=disable to accept that \
         passwords' proofs and rows cross the network in plaintext."
    )]
    PlaintextRefused {
        /// The server meant.
        address: Address,
    },
    /// Others can read the passfile, so it is not used; libpq ignores such a file too.
    #[error(
        "passfile \"{path}\" is not used: others may read it. Run `chmod 0600` on it.",
        path = path.display()
    )]
    PassfileMode {
        /// The file.
        path: PathBuf,
    },
    /// The passfile exists and cannot be read.
    #[error("could not read passfile \"{path}\"", path = path.display())]
    PassfileRead {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!(". Did you mean \"{name}\"?"))
}

fn invalid(name: &'static str, problem: impl Into<String>) -> ConnInfoError {
    ConnInfoError::Invalid { name, problem: problem.into() }
}

/// Connection parameters, read and checked. `Debug` prints `***` for the password.
#[derive(Clone)]
pub struct ConnInfo {
    addresses: Vec<Address>,
    user: String,
    dbname: String,
    password: Option<String>,
    is_password_written: bool,
    passfile: Option<PathBuf>,
    sslmode: SslMode,
    application_name: Option<String>,
    connect_timeout: Option<Duration>,
    options: String,
}

impl fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `options` is left out: nothing stops a user from setting a secret there.
        f.debug_struct("ConnInfo")
            .field("addresses", &self.addresses)
            .field("user", &self.user)
            .field("dbname", &self.dbname)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("passfile", &self.passfile)
            .field("sslmode", &self.sslmode)
            .field("application_name", &self.application_name)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

impl ConnInfo {
    /// Reads `host=… dbname=…` or `postgresql://…`; `env` gives the defaults (manual, 34.15). An
    /// empty value counts as not given.
    ///
    /// # Errors
    /// A malformed string, an unknown or unsupported parameter, an impossible value, or a
    /// transport that we refuse (see [`transport`](Self::transport)).
    pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConnInfoError> {
        let mut given = text::read(text)?;
        given.retain(|_, value| !value.is_empty());
        let is_password_written = given.contains_key("password");
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        for (variable, parameter) in ENV_NOT_HONOURED {
            if env(variable).is_some() && !given.contains_key(parameter) {
                return Err(ConnInfoError::NotHonoured { name: variable });
            }
        }
        for (parameter, variable) in HONOURED {
            if !given.contains_key(parameter)
                && let Some(value) = env(variable)
            {
                given.insert(parameter, value);
            }
        }
        let conninfo = Self { is_password_written, ..Self::from_parameters(given, &env)? };
        conninfo.addresses.iter().try_for_each(|address| conninfo.transport(address).map(drop))?;
        Ok(conninfo)
    }

    fn from_parameters(
        mut given: Parameters,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConnInfoError> {
        let addresses = addresses(
            given.get("host").map(String::as_str),
            given.get("hostaddr").map(String::as_str),
            given.get("port").map(String::as_str),
        )?;
        let user = given
            .remove("user")
            .or_else(|| env("USER"))
            .or_else(|| env("LOGNAME"))
            .ok_or_else(|| invalid("user", "none given, and the environment names none"))?;
        let sslmode = given.remove("sslmode").map_or(Ok(SslMode::Prefer), |name| name.parse())?;
        Ok(Self {
            addresses,
            dbname: given.remove("dbname").unwrap_or_else(|| user.clone()),
            user,
            password: given.remove("password"),
            is_password_written: false,
            passfile: given
                .remove("passfile")
                .map(PathBuf::from)
                .or_else(|| env("HOME").map(|home| PathBuf::from(home).join(".pgpass"))),
            sslmode,
            application_name: given.remove("application_name"),
            connect_timeout: connect_timeout(given.get("connect_timeout").map(String::as_str))?,
            options: given.remove("options").unwrap_or_default(),
        })
    }

    /// Whether the string itself holds a password, which then lies where the string does.
    #[must_use]
    pub fn is_password_written(&self) -> bool {
        self.is_password_written
    }

    /// The servers to try, in order; at least one.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.addresses.iter()
    }

    /// The role to log in as.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database; the user's name if none was given.
    #[must_use]
    pub fn dbname(&self) -> &str {
        &self.dbname
    }

    /// What to be called in `pg_stat_activity`, if the user chose a name.
    #[must_use]
    pub fn application_name(&self) -> Option<&str> {
        self.application_name.as_deref()
    }

    /// How long each address may take to connect and log in; `None`: for ever, asked for with 0.
    #[must_use]
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// The startup packet's `options`: the user's, then the settings that we pin. The last wins.
    #[must_use]
    pub fn startup_options(&self) -> String {
        format!("{} {PINNED_SETTINGS}", self.options).trim_start().to_owned()
    }

    /// Whether and how to encrypt towards `address`. This is the seam for TLS.
    ///
    /// # Why
    /// libpq's default `prefer` falls back to plaintext when the server, or who sits in front of
    /// it, says that it has no TLS. On this machine that is harmless; on a network it must be asked
    /// for with `disable`. A socket has no TLS in libpq either, whatever the mode.
    ///
    /// # Errors
    /// [`ConnInfoError::TlsNotBuiltIn`] and [`ConnInfoError::PlaintextRefused`].
    pub fn transport(&self, address: &Address) -> Result<Transport, ConnInfoError> {
        match (self.sslmode, address) {
            (SslMode::Disable, _) | (_, Address::Unix { .. }) => Ok(Transport::Plain),
            (SslMode::Allow | SslMode::Prefer, address) if address.is_local() => {
                Ok(Transport::Plain)
            }
            (SslMode::Allow | SslMode::Prefer, address) => {
                Err(ConnInfoError::PlaintextRefused { address: address.clone() })
            }
            (sslmode, address) => {
                Err(ConnInfoError::TlsNotBuiltIn { sslmode, address: address.clone() })
            }
        }
    }

    /// The password for one server: as given, else the first line of the passfile that fits
    /// (manual, section 34.16), read now. Pass [`Address::host`] and [`Address::port`].
    ///
    /// # Errors
    /// [`ConnInfoError::PassfileMode`], which a caller that can do without may take for `None`, as
    /// libpq does; [`ConnInfoError::PassfileRead`]. A missing file is `None`.
    pub fn password(&self, host: &str, port: u16) -> Result<Option<String>, ConnInfoError> {
        if self.password.is_some() {
            return Ok(self.password.clone());
        }
        let Some(path) = &self.passfile else { return Ok(None) };
        let unreadable = |source| ConnInfoError::PassfileRead { path: path.clone(), source };
        let metadata = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(unreadable)?,
        };
        if !metadata.is_file() {
            return Err(unreadable(io::Error::other("not a plain file")));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(ConnInfoError::PassfileMode { path: path.clone() });
        }
        // libpq looks up the default socket's directory as "localhost".
        let host = if SOCKET_DIRS_DEFAULT.contains(&host) { "localhost" } else { host };
        let contents = fs::read_to_string(path).map_err(unreadable)?;
        let wanted = [host, &port.to_string(), &self.dbname, &self.user];
        Ok(text::passfile_password(&contents, wanted))
    }
}

/// libpq's reading: zero and less is "for ever", and one second is too short to be meant.
fn connect_timeout(text: Option<&str>) -> Result<Option<Duration>, ConnInfoError> {
    let Some(text) = text else { return Ok(Some(CONNECT_TIMEOUT_DEFAULT)) };
    let seconds = text.trim().parse::<i32>();
    match seconds.map(u64::try_from) {
        Ok(Ok(0) | Err(_)) => Ok(None),
        Ok(Ok(seconds)) => Ok(Some(Duration::from_secs(seconds.max(2)))),
        Err(_) => Err(invalid("connect_timeout", "expected a number of seconds")),
    }
}

#[cfg(test)]
mod tests {
    use super::{ConnInfo, ConnInfoError};
    use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

    fn parse(text: &str, env: &[(&str, &str)]) -> Result<ConnInfo, ConnInfoError> {
        let user = [("USER", "os")];
        let find = |name: &str| {
            let found = env.iter().chain(&user).find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        ConnInfo::parse(text, &find)
    }

    #[test]
    fn takes_what_is_missing_from_the_environment() {
        let env = [("PGHOST", "127.0.0.1"), ("PGPORT", "7"), ("PGUSER", "u"), ("PGPASSWORD", "x")];
        let conninfo = parse("dbname=d port=8", &env).unwrap();
        assert_eq!(conninfo.addresses().next().unwrap().to_string(), "127.0.0.1:8");
        assert_eq!((conninfo.user(), conninfo.dbname()), ("u", "d"));
        assert_eq!(conninfo.password("h", 1).unwrap().as_deref(), Some("x"));
        let conninfo = parse("", &[]).unwrap();
        assert_eq!((conninfo.user(), conninfo.dbname()), ("os", "os"));
        assert!(parse("", &[("PGSERVICE", "s")]).is_err());
    }

    #[test]
    fn plaintext_towards_another_host_must_be_asked_for() {
        for (text, error) in [
            ("", ""),
            ("host=localhost", ""),
            ("host=[::1]", "refused"),
            ("host=::1", ""),
            ("host=/tmp sslmode=verify-full", ""),
            ("host=db hostaddr=127.0.0.1", ""),
            (
                "host=localhost hostaddr=10.0.0.1",
                "refused to connect to localhost:5432 without TLS",
            ),
            ("host=localhost,db", "refused to connect to db:5432 without TLS"),
            ("host=db sslmode=disable", ""),
            ("host=db sslmode=allow", "refused"),
            (
                "host=localhost sslmode=require",
                "sslmode=require towards localhost:5432: TLS is not",
            ),
            ("host=db sslmode=verify-full", "sslmode=verify-full towards db:5432: TLS is not"),
        ] {
            let shown = parse(text, &[]).map_or_else(|error| error.to_string(), |_| String::new());
            assert!(
                shown.starts_with(error) && shown.is_empty() == error.is_empty(),
                "{text}: {shown}"
            );
        }
    }

    #[test]
    fn limits_the_wait() {
        for (text, seconds) in [("", 30), ("connect_timeout=1", 2), ("connect_timeout=9", 9)] {
            let timeout = parse(text, &[]).unwrap().connect_timeout();
            assert_eq!(timeout, Some(Duration::from_secs(seconds)));
        }
        assert_eq!(parse("connect_timeout=0", &[]).unwrap().connect_timeout(), None);
        assert!(parse("connect_timeout=soon", &[]).is_err());
    }

    #[test]
    fn shows_no_password() {
        let conninfo = parse("password=hunter2 options=-chunter2", &[]).unwrap();
        assert!(!format!("{conninfo:?}").contains("hunter2"));
        assert!(conninfo.startup_options().starts_with("-chunter2 -c datestyle=ISO"));
    }

    #[test]
    fn reads_the_passfile_anew_and_only_if_it_is_private() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!("passfile={} user=u dbname=d", file.path().display());
        let conninfo = parse(&text, &[]).unwrap();
        assert_eq!(conninfo.password("/tmp", 1).unwrap(), None);
        fs::write(file.path(), "localhost:1:d:u:first").unwrap();
        assert_eq!(conninfo.password("/tmp", 1).unwrap().as_deref(), Some("first"));
        fs::write(file.path(), "*:*:*:*:second").unwrap();
        assert_eq!(conninfo.password("h", 1).unwrap().as_deref(), Some("second"));
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(conninfo.password("h", 1), Err(ConnInfoError::PassfileMode { .. })));
        drop(file);
        assert_eq!(conninfo.password("h", 1).unwrap(), None);
    }
}
