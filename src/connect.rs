//! Opens every ordinary connection, with pinned settings; holds no query of its own.

mod guard;
mod socket;

pub use socket::{Stream, resolve};

use crate::conninfo::{Address, ConnInfo, ConnInfoError, Refused, Transport};
use guard::{Guarded, Refusal};
use std::{error::Error as _, future, io, time::Duration};
use tokio::{task::JoinSet, time};
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, NoTls, error::DbError, tls::NoTlsStream,
};

/// An open connection. Dropping it ends the connection, also in the midst of a query.
#[derive(Debug)]
pub struct Session {
    /// Asks the queries.
    pub client: Client,
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
        source: ConnInfoError,
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
            Self::Server(refused) => refused.is_by_pooler(),
            Self::Timeout { .. } | Self::Unreachable { .. } => false,
        }
    }

    /// Whether the next address may do better. As in libpq a server that answers decides for all,
    /// unless it only says that it cannot serve now (57P03: starting, stopping, recovering).
    fn is_of_this_address(&self) -> bool {
        match self {
            Self::Server(refused) => refused.sqlstate == "57P03",
            Self::Timeout { .. } | Self::Unreachable { .. } => true,
            _ => false,
        }
    }
}

/// Connects to the first server of `conninfo` that answers, by any address of its name. `purpose` is what the session is for;
/// it shows in `pg_stat_activity` as `portal-audit (purpose)` unless the user chose a name.
///
/// # Errors
/// [`ConnectError`] for the last server tried.
pub async fn connect(conninfo: &ConnInfo, purpose: &str) -> Result<Session, ConnectError> {
    let mut outcome = None;
    for named in conninfo.addresses() {
        let unresolved = |error: io::Error| ConnectError::Unreachable {
            address: named.clone(),
            message: error.to_string(),
        };
        let found = within(conninfo, named, async { resolve(named).await.map_err(unresolved) });
        let found = match found.await {
            Ok(found) => found,
            Err(error) => {
                outcome = Some(Err(error));
                continue;
            }
        };
        for address in &found {
            let tried = connect_to(conninfo, address, purpose).await;
            if !tried.as_ref().is_err_and(ConnectError::is_of_this_address) {
                return tried;
            }
            outcome = Some(tried);
        }
    }
    outcome.expect("a ConnInfo holds at least one address")
}

/// What comes of `attempt`, within `connect_timeout`.
async fn within<T>(
    conninfo: &ConnInfo,
    address: &Address,
    attempt: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    let Some(after) = conninfo.connect_timeout() else { return attempt.await };
    let attempt = time::timeout(after, attempt).await;
    attempt.map_err(|_elapsed| ConnectError::Timeout { address: address.clone(), after })?
}

async fn connect_to(
    conninfo: &ConnInfo,
    address: &Address,
    purpose: &str,
) -> Result<Session, ConnectError> {
    let refused = |source| ConnectError::ConnInfo { address: address.clone(), source };
    let Transport::Plain = conninfo.transport(address).map_err(refused)?;
    let password = match conninfo.password(address.host(), address.port()) {
        // As libpq: go without, since the server may not ask for one.
        Err(error @ ConnInfoError::PassfileMode { .. }) => {
            tracing::warn!(error = %error, "ignored the passfile");
            None
        }
        other => other.map_err(refused)?,
    };
    let has_password = password.is_some();
    let config = config(conninfo, purpose, password);
    let opening = async {
        let stream = Stream::open(address, |_ip| None).await;
        let stream = stream.map_err(|error| ConnectError::Unreachable {
            address: address.clone(),
            message: error.to_string(),
        })?;
        let login = config.connect_raw(Guarded::new(stream, has_password), NoTls).await;
        login.map_err(|error| not_let_in(&error, conninfo, address))
    };
    let (client, connection) = within(conninfo, address, opening).await?;
    let mut driver = JoinSet::new();
    driver.spawn(drive(connection));
    Ok(Session { client, driver })
}

/// Why a login failed.
fn not_let_in(
    error: &tokio_postgres::Error,
    conninfo: &ConnInfo,
    address: &Address,
) -> ConnectError {
    let (address, user) = (address.clone(), conninfo.user().to_owned());
    let refusal = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    let refusal = refusal.and_then(io::Error::get_ref).and_then(|cause| cause.downcast_ref());
    match (error.as_db_error(), refusal) {
        (Some(report), _) => ConnectError::Server(Box::new(Refused {
            address,
            user,
            dbname: conninfo.dbname().to_owned(),
            sqlstate: report.code().code().to_owned(),
            message: report.message().to_owned(),
        })),
        (None, Some(Refusal::GivesAway(method))) => {
            ConnectError::PasswordRefused { address, user, method }
        }
        (None, Some(Refusal::NoPassword)) => ConnectError::NoPassword { address, user },
        (None, None) => ConnectError::Unreachable { address, message: describe(error) },
    }
}

fn config(conninfo: &ConnInfo, purpose: &str, password: Option<String>) -> Config {
    let mut config = Config::new();
    config.user(conninfo.user()).dbname(conninfo.dbname()).options(conninfo.startup_options());
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
async fn drive(mut connection: Connection<Guarded<Stream>, NoTlsStream>) {
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
