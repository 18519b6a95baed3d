//! `Address`: where a server listens, and libpq's way to pair the lists of hosts and ports.

use super::{ConnInfoError, error::invalid};
use std::{fmt, net::IpAddr};

const PORT_DEFAULT: u16 = 5432;

/// Where packages put the socket: Debian and Red Hat first, PostgreSQL's own default second. A
/// libpq knows one of the two, chosen when it was compiled.
pub(super) const SOCKET_DIRS_DEFAULT: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// One server to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// The socket file `dir/.s.PGSQL.port`.
    Unix {
        /// The directory that holds the socket.
        dir: String,
        /// Names the file; no TCP port.
        port: u16,
    },
    /// A TCP server.
    Tcp {
        /// The name to resolve and, with TLS, to verify.
        host: String,
        /// If given, connect here and resolve nothing.
        hostaddr: Option<IpAddr>,
        /// The TCP port.
        port: u16,
    },
}

impl Address {
    /// What the passfile calls this server: host name, `hostaddr` or socket directory.
    #[must_use]
    pub fn host(&self) -> &str {
        match self {
            Self::Unix { dir, .. } => dir,
            Self::Tcp { host, .. } => host,
        }
    }

    /// The port; for a socket, the number in its file's name.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Unix { port, .. } | Self::Tcp { port, .. } => *port,
        }
    }

    /// Whether bytes to this server stay on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix { .. } => true,
            Self::Tcp { hostaddr: Some(ip), .. } => ip.is_loopback(),
            Self::Tcp { host, .. } => {
                host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { dir, port } => write!(f, "{dir}/.s.PGSQL.{port}"),
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "{host}:{port}"),
        }
    }
}

/// Pairs the lists of `host`, `hostaddr` and `port` as libpq does.
pub(super) fn addresses(
    host: Option<&str>,
    hostaddr: Option<&str>,
    port: Option<&str>,
) -> Result<Vec<Address>, ConnInfoError> {
    let list = |text: Option<&str>| -> Vec<String> {
        text.map(|text| text.split(',').map(|part| part.trim().to_owned()).collect())
            .unwrap_or_default()
    };
    let (hosts, hostaddrs, ports) = (list(host), list(hostaddr), list(port));
    let count = hosts.len().max(hostaddrs.len()).max(1);
    if !hosts.is_empty() && !hostaddrs.is_empty() && hosts.len() != hostaddrs.len() {
        return Err(invalid("hostaddr", format!("{} for {count} hosts", hostaddrs.len())));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(invalid("port", format!("{} for {count} hosts", ports.len())));
    }
    let mut addresses = Vec::new();
    for index in 0..count {
        let port = ports.get(index).or(ports.first()).map_or("", String::as_str);
        let port = match port {
            "" => PORT_DEFAULT,
            text => text
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| invalid("port", "expected a number from 1 to 65535"))?,
        };
        let host = hosts.get(index).map_or("", String::as_str);
        match (host, hostaddrs.get(index).map_or("", String::as_str)) {
            ("", "") => {
                let sockets = SOCKET_DIRS_DEFAULT.map(str::to_owned);
                addresses.extend(sockets.map(|dir| Address::Unix { dir, port }));
            }
            (dir, "") if dir.starts_with('/') => {
                addresses.push(Address::Unix { dir: dir.to_owned(), port });
            }
            (name, "") if name.starts_with('@') => {
                return Err(invalid("host", "abstract sockets are not supported"));
            }
            (name, "") => {
                addresses.push(Address::Tcp { host: name.to_owned(), hostaddr: None, port });
            }
            (name, ip) => {
                let hostaddr = ip.parse().ok();
                if hostaddr.is_none() {
                    return Err(invalid("hostaddr", "expected an IPv4 or IPv6 address"));
                }
                let host = if name.is_empty() { ip } else { name }.to_owned();
                addresses.push(Address::Tcp { host, hostaddr, port });
            }
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::addresses;

    #[test]
    fn pairs_hosts_with_ports() {
        for (host, hostaddr, port, expected) in [
            ("", "", "", "/var/run/postgresql/.s.PGSQL.5432 /tmp/.s.PGSQL.5432"),
            ("a,b", "", "1", "a:1 b:1"),
            ("a,/run", "", "1,", "a:1 /run/.s.PGSQL.5432"),
            ("", "::1", "2", "[::1]:2"),
            ("a,b", "127.0.0.1,", "2", "a:2 b:2"),
            ("a,b", "", "1,2,3", "! port"),
            ("a,b", "127.0.0.1", "", "! hostaddr"),
            ("a", "elsewhere", "", "! hostaddr"),
            ("a", "", "65536", "! port"),
            ("a", "", "0", "! port"),
            ("@a", "", "", "! host"),
        ] {
            let given = |text: &'static str| Some(text).filter(|text| !text.is_empty());
            let shown = match addresses(given(host), given(hostaddr), given(port)) {
                Ok(list) => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
                Err(super::ConnInfoError::Invalid { name, .. }) => format!("! {name}"),
                Err(error) => error.to_string(),
            };
            assert_eq!(shown, expected, "{host:?} {hostaddr:?} {port:?}");
        }
    }
}
