//! Opens a connection for replication: socket, startup packet, login (manual, section 55.2.1).

use super::{
    ERROR_RESPONSE_TAG, WireError, first_message,
    login::{Login, LoginError},
    message_length, server_error,
    stream::SKIPPED_MAX,
};
use crate::{
    connect::{ConnectError, Encryption, Line, LoggedIn, Stream, broken_line, each},
    conninfo::{Address, ConnInfo, Refused},
};
use bytes::{Buf, BytesMut};
use postgres_protocol::message::{backend, frontend};
use std::{collections::BTreeMap, io, net::IpAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// `SO_RCVBUF` of a TCP connection; Linux doubles it. A network's delay must not be what limits us.
pub const RECEIVE_BUFFER_BYTES: u32 = 128 << 10;

/// `SO_RCVBUF` of a connection within the machine, where no delay needs a window.
///
/// # Why
/// The walsender sends each message by itself. With a wide window it depends on the congestion
/// window, so on chance, whether each goes through the network stack as a packet of its own or they
/// gather in the server's send buffer; with a narrow one they mostly gather. With too narrow a one
/// long rows come in many pieces, and each is a read of ours and an answer of the kernel's. With
/// 4, 16, 32 and 128 KiB, medians of three runs in turns on two busy cores: transactions of one row
/// cost the walsender 0.53, 0.58, 0.68 and 0.79 s; materializations among small rows (workload B)
/// cost us 2.3, 1.5, 1.45 and 1.45 s, and the walsender 1.1 s each.
const LOOPBACK_RECEIVE_BUFFER_BYTES: u32 = 16 << 10;

/// What may come between and says nothing that we need; a notice may quote a row.
const TAGS_SKIPPED: [u8; 2] = [backend::NOTICE_RESPONSE_TAG, backend::BACKEND_KEY_DATA_TAG];

/// The receive buffer that suits an address.
fn receive_buffer(ip: IpAddr) -> Option<u32> {
    Some(if ip.is_loopback() { LOOPBACK_RECEIVE_BUFFER_BYTES } else { RECEIVE_BUFFER_BYTES })
}

/// A connection in replication mode that awaits a command. Its methods are not cancel-safe: after
/// dropping one half-way, drop the connection too.
#[derive(Debug)]
pub struct Connection {
    pub(super) stream: Stream,
    /// What was read and not yet taken.
    pub(super) buffer: BytesMut,
    parameters: BTreeMap<String, String>,
    encryption: Option<Encryption>,
}

impl Connection {
    /// Connects to the first server of `conninfo` that answers, in replication mode with a database
    /// (`replication=database`), with the settings pinned that change how values are printed.
    ///
    /// `client_encoding` is `UTF8`, or `SQL_ASCII` for a database in that encoding, whose bytes then
    /// come as they are: converting them would stop the slot for good at the first byte that is not
    /// UTF-8.
    ///
    /// # Errors
    /// [`WireError`] of the last server tried. A server that answers with an error decides for all,
    /// unless it says that it cannot serve now (57P03).
    pub async fn connect(conninfo: &ConnInfo, client_encoding: &str) -> Result<Self, WireError> {
        let log_in = |line| Self::log_in(conninfo, client_encoding, line);
        each(conninfo, receive_buffer, log_in).await.map_err(WireError::Connect)
    }

    async fn log_in(
        conninfo: &ConnInfo,
        client_encoding: &str,
        line: Line,
    ) -> Result<LoggedIn<Self>, ConnectError> {
        let Line { stream, encryption, address, terms } = line;
        let (buffer, parameters) = (BytesMut::new(), BTreeMap::new());
        let mut connection = Self { stream, buffer, parameters, encryption };
        // Whether a `regclass` names its schema depends on the search path. Nothing is looked up by it here.
        let options = format!("{} -c search_path=pg_catalog", conninfo.startup_options());
        let packet = [
            ("user", conninfo.user()),
            ("database", conninfo.dbname()),
            ("replication", "database"),
            ("application_name", conninfo.application_name().unwrap_or("portal-audit (stream)")),
            ("client_encoding", client_encoding),
            ("options", &options),
        ];
        let not_let_in = |error| not_let_in(error, conninfo, &address);
        connection
            .send(|out| frontend::startup_message(packet, out))
            .await
            .map_err(|error| not_let_in(LoginFault::Wire(error)))?;
        let mut login = Login::new(conninfo.user(), &terms);
        connection.answer(&mut login).await.map_err(not_let_in)?;
        let is_on = |name| connection.parameter(name) == Some("on");
        let (is_standby, is_read_only) =
            (is_on("in_hot_standby"), is_on("default_transaction_read_only"));
        Ok(LoggedIn { connection, is_standby, is_read_only })
    }

    async fn answer(&mut self, login: &mut Login<'_>) -> Result<(), LoginFault> {
        loop {
            let message = self.receive().await.map_err(LoginFault::Wire)?;
            match message.tag {
                ERROR_RESPONSE_TAG => {
                    return Err(LoginFault::Wire(server_error("logging in", &message.body)));
                }
                backend::AUTHENTICATION_TAG => {
                    let reply = login.answer(&message.body).map_err(LoginFault::Login)?;
                    if let Some(reply) = reply {
                        self.write(&reply).await.map_err(LoginFault::Wire)?;
                    }
                }
                backend::READY_FOR_QUERY_TAG if login.is_done() => return Ok(()),
                tag => {
                    let tag = tag.escape_ascii();
                    let error = WireError::protocol(format!("message \"{tag}\" during login"));
                    return Err(LoginFault::Wire(error));
                }
            }
        }
    }

    /// How the line is encrypted; `None`: it is not.
    #[must_use]
    pub fn encryption(&self) -> Option<&Encryption> {
        self.encryption.as_ref()
    }

    /// What the server reported of itself: `server_version`, `server_encoding`, `TimeZone` …
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// Writes what `message` puts into the buffer.
    pub(super) async fn send(
        &mut self,
        message: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<(), WireError> {
        let mut out = BytesMut::new();
        // It fails only on a NUL in a text, which the protocol cannot carry.
        message(&mut out).map_err(|error| WireError::protocol(error.to_string()))?;
        self.write(&out).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let during = "sending a command";
        let failed = |source| WireError::Io { during, source };
        self.stream.write_all(bytes).await.map_err(failed)?;
        // TLS may hold back what the socket had no room for.
        self.stream.flush().await.map_err(failed)
    }

    /// The next message, past notices and parameters, which are kept.
    pub(super) async fn receive(&mut self) -> Result<Message, WireError> {
        for _ in 0..SKIPPED_MAX {
            while first_message(&self.buffer)?.is_none() {
                if message_length(&self.buffer)?.is_none()
                    || self.buffer.capacity() == self.buffer.len()
                {
                    self.buffer.reserve(8 << 10);
                }
                let during = "awaiting an answer";
                let read = self.stream.read_buf(&mut self.buffer).await;
                if read.map_err(|source| WireError::Io { during, source })? == 0 {
                    return Err(WireError::Ended);
                }
            }
            let length = message_length(&self.buffer)?.unwrap_or_default();
            let mut body = self.buffer.split_to(length);
            let tag = body.get_u8();
            body.advance(4);
            match tag {
                backend::PARAMETER_STATUS_TAG => {
                    let mut texts =
                        body.as_ref().split(|byte: &u8| *byte == 0).map(String::from_utf8_lossy);
                    if let (Some(name), Some(value)) = (texts.next(), texts.next()) {
                        self.parameters.insert(name.into_owned(), value.into_owned());
                    }
                }
                tag if TAGS_SKIPPED.contains(&tag) => {}
                tag => return Ok(Message { tag, body }),
            }
        }
        Err(WireError::protocol("notices without end"))
    }
}

/// Why a login failed.
enum LoginFault {
    Wire(WireError),
    Login(LoginError),
}

/// The same in the words of every connection.
fn not_let_in(fault: LoginFault, conninfo: &ConnInfo, address: &Address) -> ConnectError {
    let user = conninfo.user();
    match fault {
        LoginFault::Wire(WireError::Server { sqlstate, message, .. }) => {
            let (user, dbname) = (user.to_owned(), conninfo.dbname().to_owned());
            let address = address.clone();
            ConnectError::Server(Box::new(Refused { address, user, dbname, sqlstate, message }))
        }
        LoginFault::Wire(WireError::Io { source, .. }) => {
            let message = source.to_string();
            broken_line(address, &source, message)
        }
        LoginFault::Wire(error) => {
            ConnectError::Unreachable { address: address.clone(), message: error.to_string() }
        }
        LoginFault::Login(LoginError::Refused(refusal)) => {
            ConnectError::of_refusal(refusal, address, user)
        }
        LoginFault::Login(LoginError::Broken(message)) => {
            ConnectError::Unreachable { address: address.clone(), message }
        }
    }
}

/// One message of the server, its header taken off.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) tag: u8,
    pub(super) body: BytesMut,
}
