//! Opens a connection for replication: socket, startup packet, login (manual, section 55.2.1).

use super::{
    ERROR_RESPONSE_TAG, WireError, first_message, login::Login, message_length, server_error,
};
use crate::conninfo::{Address, ConnInfo, Transport};
use bytes::{Buf, BytesMut};
use postgres_protocol::message::{backend, frontend};
use std::{collections::BTreeMap, io, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UnixStream},
    time,
};

/// `SO_RCVBUF` of a TCP connection; Linux doubles it. A network's delay must not be what limits us.
pub const RECEIVE_BUFFER_BYTES: u32 = 128 << 10;

/// `SO_RCVBUF` of a connection within the machine, where no delay needs a window.
///
/// # Why
/// The walsender sends each message by itself. With a wide window it depends on the congestion
/// window, so on chance, whether each goes through the network stack as a packet of its own or they
/// gather in the server's send buffer; with a narrow one they mostly gather. In five runs in turns
/// on two busy cores 1,000,000 transactions of one row took 10 to 14 s with 4 KiB, 9 to 22 s with
/// 128 KiB, and `pg_recvlogical` 14 to 19 s; the walsender's kernel time was 3.1 to 4.8 s, 2.9 to
/// 10.7 s and 3.7 to 7.3 s.
const LOOPBACK_RECEIVE_BUFFER_BYTES: u32 = 4 << 10;

/// What may come between and says nothing that we need; a notice may quote a row.
const TAGS_SKIPPED: [u8; 2] = [backend::NOTICE_RESPONSE_TAG, backend::BACKEND_KEY_DATA_TAG];

/// The two ways to a server. TLS becomes a third variant, wrapped around the second.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    async fn open(address: &Address) -> io::Result<Self> {
        let (host, hostaddr, port) = match address {
            Address::Unix { dir, port } => {
                let socket = format!("{dir}/.s.PGSQL.{port}");
                return Ok(Self::Unix(UnixStream::connect(socket).await?));
            }
            Address::Tcp { host, hostaddr, port } => (host, hostaddr, *port),
        };
        let resolved = match hostaddr {
            Some(ip) => vec![SocketAddr::new(*ip, port)],
            None => tokio::net::lookup_host((host.as_str(), port)).await?.collect(),
        };
        let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "no address of that name"));
        for address in resolved {
            outcome = Self::open_tcp(address).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    async fn open_tcp(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Before connecting, since the window's scale is agreed upon in the handshake.
        let is_local = address.ip().is_loopback();
        let bytes = if is_local { LOOPBACK_RECEIVE_BUFFER_BYTES } else { RECEIVE_BUFFER_BYTES };
        socket.set_recv_buffer_size(bytes)?;
        socket.set_keepalive(true)?;
        socket.set_nodelay(true)?;
        Ok(Self::Tcp(socket.connect(address).await?))
    }

    async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read_buf(buffer).await,
            Self::Unix(stream) => stream.read_buf(buffer).await,
        }
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await,
            Self::Unix(stream) => stream.write_all(bytes).await,
        }
    }
}

/// A connection in replication mode that awaits a command. Its methods are not cancel-safe: after
/// dropping one half-way, drop the connection too.
#[derive(Debug)]
pub struct Connection {
    pub(super) stream: Stream,
    /// What was read and not yet taken.
    pub(super) buffer: BytesMut,
    parameters: BTreeMap<String, String>,
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
        let mut outcome = Err(WireError::protocol("no address given"));
        for address in conninfo.addresses() {
            outcome = Self::connect_within(conninfo, address, client_encoding).await;
            match &outcome {
                Err(WireError::Unreachable { .. } | WireError::Timeout { .. }) => {}
                Err(error) if error.sqlstate() == Some("57P03") => {}
                _ => break,
            }
        }
        outcome
    }

    async fn connect_within(
        conninfo: &ConnInfo,
        address: &Address,
        client_encoding: &str,
    ) -> Result<Self, WireError> {
        let connecting = Self::connect_to(conninfo, address, client_encoding);
        match conninfo.connect_timeout() {
            None => connecting.await,
            Some(after) => time::timeout(after, connecting)
                .await
                .map_err(|_elapsed| WireError::Timeout { address: address.clone(), after })?,
        }
    }

    async fn connect_to(
        conninfo: &ConnInfo,
        address: &Address,
        client_encoding: &str,
    ) -> Result<Self, WireError> {
        let refused = |source| WireError::ConnInfo { address: address.clone(), source };
        // TLS is negotiated here, between opening the socket and the startup packet.
        let Transport::Plain = conninfo.transport(address).map_err(refused)?;
        let stream = Stream::open(address)
            .await
            .map_err(|source| WireError::Unreachable { address: address.clone(), source })?;
        let mut connection = Self { stream, buffer: BytesMut::new(), parameters: BTreeMap::new() };
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
        connection.send(|out| frontend::startup_message(packet, out)).await?;
        let password = || conninfo.password(address.host(), address.port()).map_err(refused);
        connection.log_in(&mut Login::new(conninfo.user(), &password), address).await?;
        Ok(connection)
    }

    async fn log_in(&mut self, login: &mut Login<'_>, address: &Address) -> Result<(), WireError> {
        loop {
            let message = self.receive().await?;
            match message.tag {
                ERROR_RESPONSE_TAG => {
                    return Err(server_error(format!("logging in at {address}"), &message.body));
                }
                backend::AUTHENTICATION_TAG => {
                    if let Some(reply) = login.answer(&message.body)? {
                        self.write(&reply).await?;
                    }
                }
                backend::READY_FOR_QUERY_TAG if login.is_done() => return Ok(()),
                tag => {
                    let tag = tag.escape_ascii();
                    return Err(WireError::protocol(format!("message \"{tag}\" during login")));
                }
            }
        }
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
        self.stream.write_all(bytes).await.map_err(|source| WireError::Io { during, source })
    }

    /// The next message, past notices and parameters, which are kept.
    pub(super) async fn receive(&mut self) -> Result<Message, WireError> {
        loop {
            while first_message(&self.buffer)?.is_none() {
                if message_length(&self.buffer)?.is_none()
                    || self.buffer.capacity() == self.buffer.len()
                {
                    self.buffer.reserve(8 << 10);
                }
                let during = "awaiting an answer";
                let read = self.stream.read(&mut self.buffer).await;
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
    }
}

/// One message of the server, its header taken off.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) tag: u8,
    pub(super) body: BytesMut,
}
