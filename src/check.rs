//! `portal-audit check`: what would go wrong, before it does. Asks the source, the audit database and the settings, and changes nothing.
//!
//! ```text
//!  settings ─▶ one session per database ─▶ facts (a few queries) ─▶ checks (pure functions) ─▶ findings, each with its fix
//! ```
//! A database that cannot be asked gives one finding, and its other checks are left out. What the pipeline judges at its start is asked of the same code, so that the two never disagree: [`Catalog::faults`](crate::catalog::Catalog::faults), [`continuity::decide`](crate::continuity::decide), [`budget::kept`](crate::budget::kept), [`write::look`](crate::write::look).
//!
//! # A new check
//! One row in the table of its group (its id, its function), and one fault in `tests/it/check`: a test compares the two lists.

mod audit;
mod line;
mod proof;
mod publication;
mod role;
mod server;
mod settings;
mod show;
mod slot;
mod source;

pub use show::{report_json, report_text};

use crate::{
    chain::chain,
    config::Settings,
    connect::{self, Session},
    conninfo::ConnInfo,
};
use serde::Serialize;
use std::{path::Path, time::Duration};

/// How long one database may take for all that is asked of it.
const DATABASE_MAX: Duration = Duration::from_secs(90);
/// Whatever a role or a database say: no query waits for long, and none can write.
const PIN: &str = "SET statement_timeout = '10s'; SET lock_timeout = '3s'; SET default_transaction_read_only = on";

/// How bad it is. The exit code of the worst: 0, 1, 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, and will bite.
    Warning,
    /// The sidecar would not start, would lose changes, or would harm the portal.
    Critical,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check, a word of [`ids`].
    pub check: &'static str,
    pub status: Status,
    /// What it is about: a table, a role, a setting, a slot.
    pub object: String,
    /// What was found. Holds no value of a row and no secret.
    pub finding: String,
    /// What to do: SQL or shell lines that can be pasted, remarks behind `--` or `#`; empty where all is well.
    pub fix: String,
    /// Name of the source in the settings; `None`: the audit database or the settings.
    pub source: Option<String>,
}

/// What is wrong, before it is known of which check.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    status: Status,
    object: String,
    finding: String,
    fix: String,
}

impl Found {
    fn critical(object: &str, finding: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Status::Critical, object, finding, fix)
    }

    fn warning(object: &str, finding: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(Status::Warning, object, finding, fix)
    }

    fn new(
        status: Status,
        object: &str,
        finding: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { status, object: object.to_owned(), finding: finding.into(), fix: fix.into() }
    }
}

/// What a check says: what holds, or what was found.
type Verdict = Result<String, Vec<Found>>;

/// `Ok` with what holds if nothing was found.
fn verdict(found: Vec<Found>, holds: impl Into<String>) -> Verdict {
    if found.is_empty() { Ok(holds.into()) } else { Err(found) }
}

/// A check of facts that were read before: its id, and its function.
type Check<F> = (&'static str, fn(&F) -> Verdict);

/// Judges facts by all checks of a group.
fn judge<F>(checks: &[Check<F>], facts: &F, source: Option<&str>, object: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (check, ask) in checks {
        let found = match ask(facts) {
            Ok(holds) => vec![Found::new(Status::Ok, object, holds, "")],
            Err(found) => found,
        };
        findings.extend(found.into_iter().map(|found| finding(check, source, found)));
    }
    findings
}

fn finding(check: &'static str, source: Option<&str>, found: Found) -> Finding {
    let Found { status, object, finding, fix } = found;
    Finding { check, status, object, finding, fix, source: source.map(str::to_owned) }
}

/// Every check by its id, in the order of the report.
#[must_use]
pub fn ids() -> Vec<&'static str> {
    fn of<F>(checks: &[Check<F>]) -> impl Iterator<Item = &'static str> {
        checks.iter().map(|(id, _)| *id)
    }
    let settings = ["settings"].into_iter().chain(of(settings::CHECKS));
    let audit = ["audit_reachable"].into_iter().chain(of(audit::CHECKS));
    let source = ["reachable"].into_iter().chain(of(server::CHECKS)).chain(of(role::CHECKS));
    let source = source.chain(of(publication::CHECKS)).chain(of(slot::CHECKS));
    settings.chain(audit).chain(source).collect()
}

/// Checks everything that a settings file names.
pub async fn check(path: &Path) -> Vec<Finding> {
    let settings = match Settings::load(path) {
        Ok(settings) => settings,
        Err(error) => {
            let fix = format!(
                "# mend {}; deploy/portal-audit.toml shows every setting, `portal-audit mapping check` every fault of a mapping",
                path.display()
            );
            let found = Found::critical(&path.display().to_string(), chain(&error), fix);
            return vec![finding("settings", None, found)];
        }
    };
    let mut findings = settings::check(path, &settings);
    let audit = audit::check(&settings).await;
    findings.extend(audit.findings);
    for one in &settings.sources {
        findings.extend(source::check(path, &settings, one, audit.session.as_ref()).await);
    }
    findings
}

/// The worst of all.
#[must_use]
pub fn worst(findings: &[Finding]) -> Status {
    findings.iter().map(|finding| finding.status).max().unwrap_or(Status::Ok)
}

/// A session for questions only.
async fn open(conninfo: &ConnInfo) -> Result<Session, Found> {
    let object = place(conninfo);
    let session = match connect::connect(conninfo, "check").await {
        Ok(session) => session,
        Err(error) => {
            let fix = way_in(conninfo, error.sqlstate());
            return Err(Found::critical(&object, chain(&error), fix));
        }
    };
    let pinned = session.client.batch_execute(PIN).await;
    pinned.map_err(|error| unanswered(&object, &connect::describe(&error)))?;
    Ok(session)
}

/// What is known of a refused connection's repair.
fn way_in(conninfo: &ConnInfo, sqlstate: Option<&str>) -> String {
    let (user, dbname) = (quoted(conninfo.user()), quoted(conninfo.dbname()));
    match sqlstate {
        Some("28P01") => format!(
            "# set the role's password and the passfile to the same one; in psql:\n\\password {user}"
        ),
        Some("28000") => format!(
            "# a line for this role in pg_hba.conf, then SELECT pg_reload_conf(); `replication` there means physical replication only:\nhost  {dbname}  {user}  <address>  scram-sha-256\n# and if the role is missing or may not log in:\nCREATE ROLE {user} LOGIN;"
        ),
        Some("3D000") => format!("CREATE DATABASE {dbname};\n-- or name the right one in the dsn"),
        Some("42501") => format!("GRANT CONNECT ON DATABASE {dbname} TO {user};"),
        Some("53300") => {
            "ALTER SYSTEM SET max_connections = 200;\n-- then restart the server; or end sessions that nobody needs".to_owned()
        }
        Some("57P03") => "-- the server is starting, stopping or recovering: try again".to_owned(),
        _ => format!(
            "# is the server up, and are host, port and sslmode in the dsn right?\npg_isready -h {}",
            conninfo.addresses().map(|address| format!("{} -p {}", address.host(), address.port())).next().unwrap_or_default()
        ),
    }
}

/// A database that is there and does not answer what is asked.
fn unanswered(object: &str, why: &str) -> Found {
    let fix = "-- nothing else of this database was checked: mend this, then run the check again";
    Found::critical(object, format!("it does not answer: {why}"), fix)
}

/// What comes of the questions to one database, within their time.
async fn within<T>(
    object: &str,
    asked: impl Future<Output = Result<T, Found>>,
) -> Result<T, Found> {
    match tokio::time::timeout(DATABASE_MAX, Box::pin(asked)).await {
        Ok(answer) => answer,
        Err(_elapsed) => {
            Err(unanswered(object, &format!("silent for {} s", DATABASE_MAX.as_secs())))
        }
    }
}

/// `database "portal" at /run/postgresql/.s.PGSQL.5432`.
fn place(conninfo: &ConnInfo) -> String {
    let address = conninfo.addresses().next().map(ToString::to_string).unwrap_or_default();
    format!("database {} at {address}", conninfo.dbname())
}

/// A name as SQL wants it: quoted only where it must be.
fn quoted(name: &str) -> String {
    let is_plain = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name
            .chars()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_');
    if is_plain { name.to_owned() } else { crate::wire::quote_identifier(name) }
}

/// Names as a list within a sentence; of many, the first ones.
fn listed<S: AsRef<str>>(names: &[S]) -> String {
    const NAMES_MAX: usize = 8;
    let first: Vec<&str> = names.iter().take(NAMES_MAX).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(NAMES_MAX);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    first.join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::{ids, listed, quoted};
    use std::collections::HashSet;

    #[test]
    fn each_id_is_one_check() {
        let ids = ids();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    }

    #[test]
    fn names_are_quoted_where_they_must_be() {
        assert_eq!(quoted("portal_audit2"), "portal_audit2");
        assert_eq!(quoted("portal-audit"), "\"portal-audit\"");
        assert_eq!(listed(&["a"; 10]), "a, a, a, a, a, a, a, a and 2 more");
    }
}
