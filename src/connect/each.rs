//! Goes through the servers of a connection string until one lets us in: the same for ordinary sessions and for replication.

use super::{
    ConnectError, Stream, Terms,
    socket::resolve,
    tls::{Encryption, Problem, TlsError, alert, prepare, rustls_error},
};
use crate::conninfo::{Address, ConnInfo, ConnInfoError, Target, Transport};
use std::{io, net::IpAddr};
use tokio::time;

/// An open line to a server, before the login.
#[derive(Debug)]
pub struct Line {
    /// The line.
    pub stream: Stream,
    /// How it is encrypted.
    pub encryption: Option<Encryption>,
    /// The server.
    pub address: Address,
    /// What the login may consist of.
    pub terms: Terms,
}

/// What came of a login, and what the server then says of itself.
#[derive(Debug)]
pub struct LoggedIn<T> {
    /// The connection.
    pub connection: T,
    /// Whether it is a standby (`in_hot_standby`).
    pub is_standby: bool,
    /// Whether its transactions are read-only by default (`default_transaction_read_only`).
    pub is_read_only: bool,
}

/// Logs in to the first server of `conninfo` that answers and fits, by any address of its name. `receive_buffer` is `SO_RCVBUF` where the system's own choice is not wanted.
///
/// # Errors
/// [`ConnectError`] of the last server tried. A server that answers decides for all, unless it cannot serve now (57P03) or is not what `target_session_attrs` asks for.
pub async fn each<T, F>(
    conninfo: &ConnInfo,
    receive_buffer: fn(IpAddr) -> Option<u32>,
    log_in: impl Fn(Line) -> F,
) -> Result<T, ConnectError>
where
    F: Future<Output = Result<LoggedIn<T>, ConnectError>>,
{
    // With prefer-standby whoever answers will do, once no standby was found.
    let targets = match conninfo.target() {
        Target::PreferStandby => &[Target::Standby, Target::Any][..],
        Target::Any => &[Target::Any],
        Target::ReadWrite => &[Target::ReadWrite],
        Target::ReadOnly => &[Target::ReadOnly],
        Target::Primary => &[Target::Primary],
        Target::Standby => &[Target::Standby],
    };
    let mut rounds = Vec::new();
    for target in targets {
        rounds.extend(conninfo.addresses().map(|named| (named, *target)));
    }
    let mut outcome = None;
    for (named, target) in rounds {
        let unresolved = |error: io::Error| unreachable(named, error.to_string());
        let found = within(conninfo, named, async { resolve(named).await.map_err(unresolved) });
        let found = match found.await {
            Ok(found) => found,
            Err(error) => {
                outcome = Some(error);
                continue;
            }
        };
        for address in &found {
            match each_transport(conninfo, address, receive_buffer, target, &log_in).await {
                Err(error) if error.is_of_this_address() => outcome = Some(error),
                decided => return decided,
            }
        }
    }
    Err(outcome.expect("a ConnInfo holds at least one address"))
}

/// Tries the ways to encrypt towards one address. As in libpq another way is tried where TLS failed, or the server refused the login over this one.
async fn each_transport<T, F>(
    conninfo: &ConnInfo,
    address: &Address,
    receive_buffer: fn(IpAddr) -> Option<u32>,
    target: Target,
    log_in: &impl Fn(Line) -> F,
) -> Result<T, ConnectError>
where
    F: Future<Output = Result<LoggedIn<T>, ConnectError>>,
{
    let mut transports = conninfo.transports(address).iter().peekable();
    loop {
        let transport = transports.next().copied().unwrap_or(Transport::Tls);
        let mut is_encrypted = false;
        let attempt = async {
            let line = open(conninfo, address, transport, receive_buffer).await?;
            is_encrypted = line.encryption.is_some();
            let logged_in = log_in(line).await?;
            if !target.fits(logged_in.is_standby, logged_in.is_read_only) {
                let (address, target) = (address.clone(), conninfo.target().name());
                return Err(ConnectError::NotTheTarget { address, target });
            }
            Ok(logged_in.connection)
        };
        let outcome = within(conninfo, address, attempt).await;
        let may_go_on = match &outcome {
            Err(ConnectError::Tls { .. }) => true,
            // The other way would be the same one.
            Err(ConnectError::Server(_)) => is_encrypted == (transport == Transport::TlsIfOffered),
            _ => false,
        };
        match &outcome {
            Err(error) if may_go_on && transports.peek().is_some() => {
                let text = error.to_string();
                tracing::debug!(%address, encrypted = is_encrypted, error = text, "another sslmode is tried");
            }
            _ => return outcome,
        }
    }
}

/// Opens the line and reads the password.
async fn open(
    conninfo: &ConnInfo,
    address: &Address,
    transport: Transport,
    receive_buffer: fn(IpAddr) -> Option<u32>,
) -> Result<Line, ConnectError> {
    let refused = |error: ConnInfoError| {
        let (address, source) = (address.clone(), Box::new(error));
        ConnectError::ConnInfo { address, source }
    };
    let password = match conninfo.password(address.host(), address.port()) {
        // As libpq: go without, since the server may not ask for one.
        Err(error @ ConnInfoError::PassfileMode { .. }) => {
            tracing::warn!(error = %error, "ignored the passfile");
            None
        }
        other => other.map_err(refused)?,
    };
    let prepare = || prepare(conninfo, address.host());
    let opened = Stream::open(address, transport, receive_buffer, prepare).await;
    let (stream, encryption) = opened.map_err(|problem| match problem {
        Problem::ConnInfo(source) => refused(source),
        Problem::Tls(problem) => tls_error(address, problem),
        Problem::Io(error) => unreachable(address, error.to_string()),
    })?;
    let terms = Terms::new(conninfo, encryption.as_ref(), password);
    Ok(Line { stream, encryption, address: address.clone(), terms })
}

fn unreachable(address: &Address, message: String) -> ConnectError {
    ConnectError::Unreachable { address: address.clone(), message }
}

fn tls_error(address: &Address, problem: TlsError) -> ConnectError {
    ConnectError::Tls { address: address.clone(), problem: Box::new(problem) }
}

/// What it means that the line broke during the login: under TLS 1.3 the server judges our certificate only then.
#[must_use]
pub fn broken_line(address: &Address, error: &io::Error, message: String) -> ConnectError {
    match rustls_error(error).and_then(alert) {
        Some(problem) => tls_error(address, problem),
        None => unreachable(address, message),
    }
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
