//! `Refused`: a server that does not let us in, and what to do about it.

use super::Address;
use std::fmt;

/// A server's refusal of a login. Holds nothing of its report but code and primary message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The server.
    pub address: Address,
    /// The role.
    pub user: String,
    /// The database.
    pub dbname: String,
    /// Five characters (manual, appendix A).
    pub sqlstate: String,
    /// The primary message.
    pub message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, user, dbname, sqlstate, message } = self;
        write!(f, "{address} refused role \"{user}\" for database \"{dbname}\": {message}")?;
        write!(f, " (SQLSTATE {sqlstate}).{}", advice(sqlstate))
    }
}

impl Refused {
    /// Whether it is no PostgreSQL but a pooler, which does not know what our startup packet says.
    #[must_use]
    pub fn is_by_pooler(&self) -> bool {
        self.sqlstate == "08P01"
    }
}

/// The fix that the SQLSTATE of a refused login names (manual, appendix A), as a sentence with a space before it; empty if it names none.
fn advice(sqlstate: &str) -> &'static str {
    match sqlstate {
        "28P01" => {
            " Check the role's password in the passfile, and on the server whether it has expired (VALID UNTIL)."
        }
        "28000" => {
            " Check that the role exists and has LOGIN, and that pg_hba.conf lets it in from here (hostssl … scram-sha-256)."
        }
        "3D000" => " Check dbname.",
        "42501" => {
            " Give the role what it lacks: CONNECT on the database or, for the stream of a source, ALTER ROLE … REPLICATION."
        }
        "53300" => {
            " Raise max_connections (for a stream max_wal_senders), or the role's or database's CONNECTION LIMIT."
        }
        "55000" => " Check that the database allows connections.",
        "57P03" => " It starts, stops or recovers, which passes.",
        "08P01" => {
            " This is how a pooler answers that does not pass replication or options on: name the server itself, not its pooler."
        }
        _ => "",
    }
}
