//! Opens every ordinary connection, with pinned settings; holds no query of its own. Opens the line of every connection, TLS included.

mod certificate;
mod cipher;
mod each;
mod guard;
mod socket;
mod tls;
mod verify;

pub use cipher::Cipher;
pub use each::{Line, LoggedIn, broken_line, each};
#[cfg(test)]
pub(crate) use guard::tests::terms as guard_terms;
pub use guard::{Refusal, Terms};
pub use socket::Stream;
pub use tls::{Encryption, TlsError};

use crate::conninfo::{Address, ConnInfo, ConnInfoError, Refused};
use guard::Guarded;
use std::{
    error::Error as _,
    future::{self, Ready, ready},
    io,
    time::Duration,
};
use tokio::task::JoinSet;
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection,
    config::{SslMode, SslNegotiation},
    error::DbError,
    tls::TlsConnect,
};

/// An open connection. Dropping it ends the connection, also in the midst of a query.
#[derive(Debug)]
pub struct Session {
    /// Asks the queries.
    pub client: Client,
    /// How the line is encrypted; `None`: it is not.
    pub encryption: Option<Encryption>,
    /// Owns the one task that moves the bytes; aborts it when dropped.
    #[expect(dead_code, reason = "held for its Drop")]
    driver: JoinSet<()>,
}

/// Why no connection was opened. Texts name the server and hold no DETAIL, HINT or password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The parameters forbid it, or the passfile cannot be used.
    #[error("could not connect to {address}")]
    ConnInfo {
        /// The server meant.
        address: Address,
        /// Why.
        #[source]
        source: Box<ConnInfoError>,
    },
    /// Nothing answered in time.
    #[error("could not connect to {address} within {} s", .after.as_secs())]
    Timeout {
        /// The last server tried.
        address: Address,
        /// `connect_timeout`.
        after: Duration,
    },
    /// The server answered with an error. Its report is not kept as a source, because printing
    /// that prints DETAIL too.
    #[error("{0}")]
    Server(Box<Refused>),
    /// There is no TLS towards the server, or not such as was asked for.
    #[error("could not connect to {address}: {problem}")]
    Tls {
        /// The server.
        address: Address,
        /// Why.
        problem: Box<TlsError>,
    },
    /// The server is there and not what was asked for.
    #[error("{address} is not what target_session_attrs={target} asks for.")]
    NotTheTarget {
        /// The server.
        address: Address,
        /// libpq's word.
        target: &'static str,
    },
    /// The server wants a login that the parameters do not allow.
    #[error("refused to log in to {address} as role \"{user}\": {refusal}. {}", way_on(.refusal))]
    LoginRefused {
        /// The server.
        address: Address,
        /// The role.
        user: String,
        /// Why.
        refusal: Refusal,
    },
    /// The server asks for the password in a form that gives it away.
    #[error(
        "refused to send the password of role \"{user}\" to {address} as {method}: whoever sits in between could ask for that. \
         Set password_encryption = 'scram-sha-256', set the role's password again, and say scram-sha-256 in pg_hba.conf."
    )]
    PasswordRefused {
        /// The server.
        address: Address,
        /// The role.
        user: String,
        /// What the server asked for.
        method: &'static str,
    },
    /// The server wants a password and we have none.
    #[error(
        "{address} asks for a password of role \"{user}\" and none was given. Add it to the passfile."
    )]
    NoPassword {
        /// The server.
        address: Address,
        /// The role.
        user: String,
    },
    /// No server, no way to it, or no PostgreSQL there.
    #[error("could not connect to {address}: {message}")]
    Unreachable {
        /// The last server tried.
        address: Address,
        /// As [`describe`] gives it.
        message: String,
    },
}

impl ConnectError {
    /// The server's SQLSTATE, if a server answered.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server(refused) => Some(&refused.sqlstate),
            _ => None,
        }
    }

    /// Whether the settings or the server must be changed before another try can do better; what the server reports is judged by its [`sqlstate`](Self::sqlstate).
    #[must_use]
    pub fn is_definite(&self) -> bool {
        match self {
            Self::ConnInfo { .. } | Self::PasswordRefused { .. } | Self::NoPassword { .. } => true,
            // A handshake may fail because the line broke in its midst, or the bytes were changed.
            Self::Tls { problem, .. } => !matches!(**problem, TlsError::Handshake(_)),
            Self::LoginRefused { refusal, .. } => *refusal != Refusal::Unproven,
            Self::Server(refused) => refused.is_by_pooler(),
            // Another server may be promoted.
            Self::Timeout { .. } | Self::Unreachable { .. } | Self::NotTheTarget { .. } => false,
        }
    }

    /// Whether passwords, certificates and their files are what is in the way, which may be in the midst of being changed.
    #[must_use]
    pub fn is_of_secrets(&self) -> bool {
        match self {
            Self::NoPassword { .. } | Self::ConnInfo { .. } | Self::Tls { .. } => true,
            Self::Server(refused) => refused.sqlstate.starts_with("28"),
            _ => false,
        }
    }

    /// Whether the next address may do better. As in libpq a server that answers decides for all,
    /// unless it only says that it cannot serve now (57P03: starting, stopping, recovering), or is not the kind of server that was asked for.
    fn is_of_this_address(&self) -> bool {
        match self {
            Self::Server(refused) => refused.sqlstate == "57P03",
            Self::Timeout { .. } | Self::Unreachable { .. } | Self::NotTheTarget { .. } => true,
            _ => false,
        }
    }

    /// What the end of a login means.
    #[must_use]
    pub fn of_refusal(refusal: Refusal, address: &Address, user: &str) -> Self {
        let (address, user) = (address.clone(), user.to_owned());
        match refusal {
            Refusal::GivesAway(method) => Self::PasswordRefused { address, user, method },
            Refusal::NoPassword => Self::NoPassword { address, user },
            Refusal::NotBound | Refusal::NotAllowed(_) | Refusal::Unproven => {
                Self::LoginRefused { address, user, refusal }
            }
        }
    }
}

/// What to do about a login that was not allowed.
fn way_on(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::NotBound => {
            "channel_binding=require needs TLS and scram-sha-256 in pg_hba.conf (hostssl), and a certificate that is not signed with Ed25519."
        }
        Refusal::NotAllowed(_) => "Add that to require_auth, or change pg_hba.conf.",
        _ => "Look who answers in its place.",
    }
}

/// Connects to the first server of `conninfo` that answers, by any address of its name. `purpose` is what the session is for;
/// it shows in `pg_stat_activity` as `portal-audit (purpose)` unless the user chose a name.
///
/// # Errors
/// [`ConnectError`] for the last server tried.
pub async fn connect(conninfo: &ConnInfo, purpose: &str) -> Result<Session, ConnectError> {
    each(conninfo, |_ip| None, |line| log_in(conninfo, purpose, line)).await
}

async fn log_in(
    conninfo: &ConnInfo,
    purpose: &str,
    line: Line,
) -> Result<LoggedIn<Session>, ConnectError> {
    let Line { stream, encryption, address, terms } = line;
    let config = config(conninfo, purpose, terms.password());
    let login = config.connect_raw(Guarded::new(stream, terms), Encrypted).await;
    let (client, connection) = login.map_err(|error| not_let_in(&error, conninfo, &address))?;
    let is_on = |name| connection.parameter(name) == Some("on");
    let (is_standby, is_read_only) =
        (is_on("in_hot_standby"), is_on("default_transaction_read_only"));
    let mut driver = JoinSet::new();
    driver.spawn(drive(connection));
    let connection = Session { client, encryption, driver };
    Ok(LoggedIn { connection, is_standby, is_read_only })
}

/// The line is encrypted already, or not to be: tokio-postgres takes it as it is, with the hash that binds the login to it.
#[derive(Debug)]
struct Encrypted;

impl TlsConnect<Guarded<Stream>> for Encrypted {
    type Stream = Guarded<Stream>;
    type Error = io::Error;
    type Future = Ready<io::Result<Guarded<Stream>>>;

    fn connect(self, stream: Guarded<Stream>) -> Self::Future {
        ready(Ok(stream))
    }
}

/// Why a login failed.
fn not_let_in(
    error: &tokio_postgres::Error,
    conninfo: &ConnInfo,
    address: &Address,
) -> ConnectError {
    if let Some(report) = error.as_db_error() {
        return ConnectError::Server(Box::new(Refused {
            address: address.clone(),
            user: conninfo.user().to_owned(),
            dbname: conninfo.dbname().to_owned(),
            sqlstate: report.code().code().to_owned(),
            message: report.message().to_owned(),
        }));
    }
    let line = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    let refusal = line.and_then(io::Error::get_ref).and_then(|cause| cause.downcast_ref());
    match (refusal, line) {
        (Some(refusal), _) => ConnectError::of_refusal(*refusal, address, conninfo.user()),
        (None, Some(line)) => broken_line(address, line, describe(error)),
        (None, None) => {
            ConnectError::Unreachable { address: address.clone(), message: describe(error) }
        }
    }
}

fn config(conninfo: &ConnInfo, purpose: &str, password: Option<&str>) -> Config {
    let mut config = Config::new();
    config.user(conninfo.user()).dbname(conninfo.dbname()).options(conninfo.startup_options());
    // As in a server that begins with TLS: nothing is asked before `Encrypted` is.
    config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    match conninfo.application_name() {
        Some(name) => config.application_name(name),
        None => config.application_name(format!("portal-audit ({purpose})")),
    };
    if let Some(password) = password {
        config.password(password);
    }
    config
}

/// Moves the bytes until either side ends. An error is not lost: the client's calls fail.
async fn drive(mut connection: Connection<Guarded<Stream>, Guarded<Stream>>) {
    while let Some(message) = future::poll_fn(|context| connection.poll_message(context)).await {
        match message {
            // Without its text, which may quote a row.
            Ok(AsyncMessage::Notice(notice)) => {
                tracing::debug!(sqlstate = notice.code().code(), "received a notice");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(error = describe(&error), "connection ended");
                return;
            }
        }
    }
}

/// The server's SQLSTATE, if the server reported the error.
#[must_use]
pub fn sqlstate_of(error: &tokio_postgres::Error) -> Option<&str> {
    error.code().map(tokio_postgres::error::SqlState::code)
}

/// `SQLSTATE message`, or what happened on our side. Leaves out DETAIL, HINT and WHERE, which
/// carry values of rows (`Failing row contains (…)`); so print this and never the error itself.
#[must_use]
pub fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(report) = error.as_db_error() {
        return format!("{} {}", report.code().code(), report.message());
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause.filter(|inner| !inner.is::<DbError>()) {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{config, connect};
    use crate::conninfo::ConnInfo;

    #[test]
    fn names_the_purpose_and_pins_the_settings() {
        let text = "host=localhost port=7 user=u options='-c datestyle=German'";
        let conninfo = ConnInfo::parse(text, &|_| None).unwrap();
        let config = config(&conninfo, "writer", None);
        assert_eq!(config.get_application_name(), Some("portal-audit (writer)"));
        let options = config.get_options().unwrap();
        assert!(options.starts_with("-c datestyle=German -c datestyle=ISO"), "{options}");
        assert_eq!(config.get_dbname(), Some("u"));
    }

    #[tokio::test]
    async fn says_which_server_it_could_not_reach() {
        let conninfo =
            ConnInfo::parse("host=/nonexistent,/nowhere user=u password=hunter2", &|_| None);
        let error = connect(&conninfo.unwrap(), "writer").await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("/nowhere/.s.PGSQL.5432: No such file"), "{text}");
        assert!(!text.contains("hunter2") && error.sqlstate().is_none());
    }
}
