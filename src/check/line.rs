//! The line to a server: whether others can read what crosses it, or pretend to be the server.

use super::{Found, Verdict};
use crate::connect::Session;
use chrono::{DateTime, Utc};

/// A certificate that ends sooner should have been renewed: CloudNativePG does so seven days before.
const DAYS_MIN: i64 = 7;

/// What is known of the line of a session.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Line {
    pub(super) is_encrypted: bool,
    /// Whether the server's certificate is signed by somebody that we trust.
    pub(super) is_verified: bool,
    /// Whether the connection stays on its machine, as the server sees it.
    pub(super) is_local: bool,
    /// Until the first certificate of the line ends, the server's or ours.
    pub(super) days_left: Option<i64>,
}

impl Line {
    /// Asks the server for what it sees; the certificates are what the handshake showed.
    pub(super) async fn load(session: &Session) -> Result<Self, tokio_postgres::Error> {
        const QUERY: &str = "SELECT coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false), inet_server_addr() IS NULL OR inet_server_addr() <<= '127.0.0.0/8' OR inet_server_addr() = '::1', now()";
        let row = session.client.query_one(QUERY, &[]).await?;
        let now: DateTime<Utc> = row.get(2);
        let ends = session.encryption.as_ref().map(|encryption| {
            let both = [encryption.server_not_after, encryption.client_not_after];
            (encryption.is_verified, both.into_iter().flatten().min())
        });
        Ok(Self {
            is_encrypted: row.get(0),
            is_verified: ends.is_some_and(|(is_verified, _)| is_verified),
            is_local: row.get(1),
            days_left: ends.and_then(|(_, end)| end).map(|end| (end - now).num_days()),
        })
    }

    /// What is wrong with it; `what` is lost where there is no TLS.
    pub(super) fn judge(&self, what: &str) -> Verdict {
        const FIX: &str = "# in the dsn: sslmode=verify-full, and sslrootcert= the authority of the server's certificate";
        match *self {
            Self { is_encrypted: false, is_local: true, .. } => {
                Ok("the connection stays on the server's machine".to_owned())
            }
            Self { is_encrypted: false, .. } => Err(vec![Found::critical("sslmode", what, FIX)]),
            Self { is_verified: false, is_local: false, .. } => {
                let finding = "encrypted, but not verified: whoever sits in between can pretend to be the server";
                Err(vec![Found::warning("sslmode", finding, FIX)])
            }
            Self { days_left: Some(days), .. } if days < DAYS_MIN => {
                let finding = format!("encrypted; a certificate of this line ends in {days} days");
                let fix = "# renew the server's certificate, or ours (sslcert), whichever ends first: it is read at the next connect";
                Err(vec![Found::warning("certificate", finding, fix)])
            }
            Self { days_left: Some(days), .. } => {
                Ok(format!("encrypted; its certificates are valid for {days} days or more"))
            }
            Self { days_left: None, .. } => Ok("encrypted".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Line;

    #[test]
    fn plaintext_on_a_network() {
        let told = |is_encrypted, is_verified, is_local, days_left| {
            let line = Line { is_encrypted, is_verified, is_local, days_left };
            match line.judge("rows cross the network in plaintext") {
                Ok(text) => text,
                Err(found) => format!("{found:?}"),
            }
        };
        let plain = told(false, false, false, None);
        assert!(plain.contains("Critical") && plain.contains("verify-full"), "{plain}");
        let unverified = told(true, false, false, Some(90));
        assert!(unverified.contains("Warning") && unverified.contains("not verified"));
        let ending = told(true, true, false, Some(6));
        assert!(ending.contains("Warning") && ending.contains("in 6 days"), "{ending}");
        for well in [
            told(true, true, false, Some(7)),
            told(true, false, true, None),
            told(false, false, true, None),
        ] {
            assert!(!well.contains("Warning") && !well.contains("Critical"), "{well}");
        }
    }
}
