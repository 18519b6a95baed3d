//! Opens every ordinary connection, with pinned settings; holds no query of its own.

use crate::conninfo::{Address, ConnInfo, ConnInfoError, Transport};
use std::{error::Error as _, future, time::Duration};
use tokio::{task::JoinSet, time};
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, NoTls, Socket, error::DbError, tls::NoTlsStream,
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
    #[error("{address} refused the connection: {sqlstate} {message}")]
    Server {
        /// The server.
        address: Address,
        /// Five characters (manual, appendix A).
        sqlstate: String,
        /// The primary message.
        message: String,
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
            Self::Server { sqlstate, .. } => Some(sqlstate),
            Self::ConnInfo { .. } | Self::Timeout { .. } | Self::Unreachable { .. } => None,
        }
    }

    /// Whether the next address may do better. As in libpq a server that answers decides for all,
    /// unless it only says that it cannot serve now (57P03: starting, stopping, recovering).
    fn is_of_this_address(&self) -> bool {
        match self {
            Self::Server { sqlstate, .. } => sqlstate == "57P03",
            Self::Timeout { .. } | Self::Unreachable { .. } => true,
            Self::ConnInfo { .. } => false,
        }
    }
}

/// Connects to the first server of `conninfo` that answers. `purpose` is what the session is for;
/// it shows in `pg_stat_activity` as `portal-audit (purpose)` unless the user chose a name.
///
/// # Errors
/// [`ConnectError`] for the last server tried.
pub async fn connect(conninfo: &ConnInfo, purpose: &str) -> Result<Session, ConnectError> {
    let mut addresses = conninfo.addresses();
    let mut address = addresses.next().expect("a ConnInfo holds at least one address");
    loop {
        match (connect_to(conninfo, address, purpose).await, addresses.next()) {
            (Err(error), Some(next)) if error.is_of_this_address() => {
                tracing::debug!(error = %error, "tried the next address");
                address = next;
            }
            (decided, _) => return decided,
        }
    }
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
    let config = config(conninfo, address, purpose, password);
    let opening = config.connect(NoTls);
    let opened = match conninfo.connect_timeout() {
        None => opening.await,
        Some(after) => time::timeout(after, opening)
            .await
            .map_err(|_elapsed| ConnectError::Timeout { address: address.clone(), after })?,
    };
    let (client, connection) = opened.map_err(|error| {
        let address = address.clone();
        match error.as_db_error() {
            Some(report) => ConnectError::Server {
                address,
                sqlstate: report.code().code().to_owned(),
                message: report.message().to_owned(),
            },
            None => ConnectError::Unreachable { address, message: describe(&error) },
        }
    })?;
    let mut driver = JoinSet::new();
    driver.spawn(drive(connection));
    Ok(Session { client, driver })
}

fn config(
    conninfo: &ConnInfo,
    address: &Address,
    purpose: &str,
    password: Option<String>,
) -> Config {
    let mut config = Config::new();
    config.user(conninfo.user()).dbname(conninfo.dbname()).options(conninfo.startup_options());
    config.port(address.port());
    match address {
        Address::Unix { dir, .. } => config.host_path(dir),
        Address::Tcp { host, hostaddr: None, .. } => config.host(host),
        Address::Tcp { host, hostaddr: Some(ip), .. } => config.host(host).hostaddr(*ip),
    };
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
async fn drive(mut connection: Connection<Socket, NoTlsStream>) {
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
        let config = config(&conninfo, conninfo.addresses().next().unwrap(), "writer", None);
        assert_eq!(config.get_application_name(), Some("portal-audit (writer)"));
        let options = config.get_options().unwrap();
        assert!(options.starts_with("-c datestyle=German -c datestyle=ISO"), "{options}");
        assert_eq!((config.get_ports(), config.get_dbname()), (&[7][..], Some("u")));
    }

    #[tokio::test]
    async fn says_which_server_it_could_not_reach() {
        let conninfo =
            ConnInfo::parse("host=/nonexistent,/nowhere user=u password=hunter2", &|_| None);
        let error = connect(&conninfo.unwrap(), "writer").await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("/nowhere/.s.PGSQL.5432: error connecting to server"), "{text}");
        assert!(!text.contains("hunter2") && error.sqlstate().is_none());
    }
}
