//! What to do when a server refuses to let us in.

/// The fix that the SQLSTATE of a refused login names (manual, appendix A), as a sentence with a space before it; empty if it names none.
#[must_use]
pub fn advice(sqlstate: &str) -> &'static str {
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
