//! Opens sockets: the one way to a server, for ordinary sessions and for replication.

use super::tls::{self, Encryption, Problem};
use crate::conninfo::{Address, Transport};
use socket2::{SockRef, TcpKeepalive};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpSocket, TcpStream, UnixStream},
};
use tokio_rustls::client::TlsStream;

/// A connection on which nothing moves is asked for a sign of life after this time …
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// … and then so often …
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// … and so many times: a server that is gone is noticed after 45 s, also by who only waits for an answer.
const KEEPALIVE_PROBES: u32 = 6;
/// How long what we sent may stay without acknowledgement.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(45);

/// The ways to a server.
#[derive(Debug)]
pub enum Stream {
    /// Over a network, or within the machine.
    Tcp(TcpStream),
    /// By a socket file.
    Unix(UnixStream),
    /// The first, encrypted.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Every address that stands behind one: a name may have several, of which the first may be dead.
///
/// # Errors
/// The name is not known, or nobody knows now.
pub(super) async fn resolve(address: &Address) -> io::Result<Vec<Address>> {
    let Address::Tcp { host, hostaddr: None, port } = address else {
        return Ok(vec![address.clone()]);
    };
    let found = tokio::net::lookup_host((host.as_str(), *port)).await?;
    let found = found.map(|found| Address::Tcp {
        host: host.clone(),
        hostaddr: Some(found.ip()),
        port: *port,
    });
    let found: Vec<Address> = found.collect();
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no address of that name"));
    }
    Ok(found)
}

impl Stream {
    /// Connects to an address that [`resolve`] gave; says how it is encrypted. `receive_buffer` is `SO_RCVBUF`, if the system's own choice is not wanted; `prepare` reads the files of TLS.
    pub(super) async fn open(
        address: &Address,
        transport: Transport,
        receive_buffer: fn(IpAddr) -> Option<u32>,
        prepare: impl FnOnce() -> Result<tls::Prepared, Problem>,
    ) -> Result<(Self, Option<Encryption>), Problem> {
        let (ip, port) = match address {
            Address::Unix { dir, port } => {
                let opened = UnixStream::connect(format!("{dir}/.s.PGSQL.{port}")).await;
                return Ok((Self::Unix(opened.map_err(Problem::Io)?), None));
            }
            Address::Tcp { hostaddr: Some(ip), port, .. } => (*ip, *port),
            Address::Tcp { hostaddr: None, .. } => {
                let problem = "the name was not resolved";
                return Err(Problem::Io(io::Error::new(io::ErrorKind::InvalidInput, problem)));
            }
        };
        // Before connecting: what cannot be used needs no server to say so.
        let prepared = if transport == Transport::Plain { None } else { Some(prepare()?) };
        let opened = open_tcp(SocketAddr::new(ip, port), receive_buffer(ip)).await;
        let mut socket = opened.map_err(Problem::Io)?;
        let Some(prepared) = prepared else { return Ok((Self::Tcp(socket), None)) };
        if !tls::is_offered(&mut socket).await? {
            return match transport {
                Transport::Tls => Err(Problem::Tls(tls::TlsError::NotOffered)),
                Transport::TlsIfOffered | Transport::Plain => Ok((Self::Tcp(socket), None)),
            };
        }
        let (stream, encryption) = prepared.shake(socket).await?;
        Ok((Self::Tls(Box::new(stream)), Some(encryption)))
    }
}

async fn open_tcp(address: SocketAddr, receive_buffer: Option<u32>) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Before connecting, since the window's scale is agreed upon in the handshake.
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.set_nodelay(true)?;
    let options = SockRef::from(&socket);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE);
    let keepalive = keepalive.with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    options.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    options.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    socket.connect(address).await
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::resolve;
    use crate::conninfo::Address;

    #[tokio::test]
    async fn a_name_becomes_its_addresses_and_stays_a_name() {
        let named = Address::Tcp { host: "localhost".to_owned(), hostaddr: None, port: 7 };
        let found = resolve(&named).await.unwrap();
        assert!(found.iter().all(|found| found.to_string() == "localhost:7"), "{found:?}");
        assert!(found.iter().all(|found| *found != named), "{found:?}");
        let unknown = Address::Tcp { host: "nowhere.invalid".to_owned(), hostaddr: None, port: 7 };
        resolve(&unknown).await.unwrap_err();
    }
}
