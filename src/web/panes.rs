//! What stands above a subject's history for those who see all: what was so at a time, from the tables that are folded from events.

use super::{
    Fault,
    page::{self, escaped},
    reader::Reader,
};
use chrono::{DateTime, Utc};
use tokio_postgres::{Row, types::ToSql};

/// Rows of a table at most; the last one says that there are more.
const ROWS_MAX: usize = 200;

/// A word of a table, which may lead somewhere.
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) path: Option<String>,
}

/// A table of what was so.
pub(super) struct Pane {
    pub(super) title: &'static str,
    pub(super) heads: &'static [&'static str],
    pub(super) rows: Vec<Vec<Cell>>,
    pub(super) has_more: bool,
}

/// A subject as its page names it.
pub(super) enum Subject<'a> {
    User(&'a str),
    Organization(&'a str),
    Project(&'a str),
    Experiment { project: &'a str, name: &'a str },
}

/// Each query gives texts, and beside each its kind if it has a page: `text, kind, text, kind, …`.
pub(super) async fn of(
    reader: &Reader,
    subject: &Subject<'_>,
    at: DateTime<Utc>,
) -> Result<Vec<Pane>, Fault> {
    let panes = match subject {
        Subject::User(name) => vec![
            pane(reader, &SELF, &[&"user", &"", name, &at]).await?,
            pane(reader, &MEMBERSHIPS, &[name, &at]).await?,
            pane(reader, &EXPERIMENTS_BY, &[name, &at]).await?,
            pane(reader, &LOGINS, &[name, &at]).await?,
        ],
        Subject::Organization(name) => vec![
            pane(reader, &SELF, &[&"organization", &"", name, &at]).await?,
            pane(reader, &MEMBERS, &[&"organization", name, &at]).await?,
        ],
        Subject::Project(name) => vec![
            pane(reader, &SELF, &[&"project", &"", name, &at]).await?,
            pane(reader, &MEMBERS, &[&"project", name, &at]).await?,
            pane(reader, &EXPERIMENTS_IN, &[name, &at]).await?,
            pane(reader, &RESOURCES, &[name, &at]).await?,
        ],
        Subject::Experiment { project, name } => vec![
            pane(reader, &SELF, &[&"experiment", project, name, &at]).await?,
            pane(reader, &RUNS, &[project, name, &at]).await?,
        ],
    };
    Ok(panes.into_iter().filter(|pane| !pane.rows.is_empty()).collect())
}

/// What a pane is made from.
struct Asked {
    title: &'static str,
    heads: &'static [&'static str],
    query: &'static str,
}

const SELF: Asked = Asked {
    title: "As it stands",
    heads: &["Since", "State", "Category", "Organization"],
    query: "SELECT t.since, NULL, t.state, NULL, t.facts ->> 'category', NULL, t.facts ->> 'organization', 'organization' FROM portal_audit.there($1, $4) t WHERE t.within = portal_audit.short($2) AND t.name = portal_audit.short($3)",
};
const MEMBERSHIPS: Asked = Asked {
    title: "Member of",
    heads: &["Name", "Kind", "Role", "State", "Since"],
    query: "SELECT m.subject, m.kind, m.kind, NULL, m.role, NULL, m.state, NULL, m.since, NULL FROM portal_audit.memberships_of($1, $2) m ORDER BY m.kind, m.subject LIMIT 201",
};
const MEMBERS: Asked = Asked {
    title: "Members",
    heads: &["Name", "Kind", "Role", "State", "Since"],
    query: "SELECT m.member, m.member_kind, m.member_kind, NULL, m.role, NULL, m.state, NULL, m.since, NULL FROM portal_audit.members($1, $2, $3) m ORDER BY m.member_kind, m.role, m.member LIMIT 201",
};
const EXPERIMENTS_IN: Asked = Asked {
    title: "Experiments",
    heads: &["Name", "Since"],
    query: "SELECT l.within || '/' || l.subject, 'experiment', l.began, NULL FROM portal_audit.lifetimes l WHERE l.subject_type = 'experiment' AND l.within = portal_audit.short($1) AND l.began <= $2 AND (l.ended IS NULL OR l.ended > $2) ORDER BY l.began DESC, l.subject LIMIT 201",
};
// Sorted after they are found: with LIMIT in one step the planner may walk through all of time for a name that is rare.
const EXPERIMENTS_BY: Asked = Asked {
    title: "Created experiments",
    heads: &["Name", "When"],
    query: "WITH own AS MATERIALIZED (SELECT e.payload ->> 'project' AS project, e.subject, e.timestamp FROM public.events e WHERE e.caller = $1 AND e.event_type = 'experiment_created' AND e.success AND e.timestamp <= $2) SELECT concat_ws('/', o.project, o.subject), 'experiment', o.timestamp, NULL FROM own o ORDER BY o.timestamp DESC LIMIT 201",
};
const LOGINS: Asked = Asked {
    title: "Logins of 30 days",
    heads: &["Outcome", "How many", "First", "Last"],
    query: "WITH own AS MATERIALIZED (SELECT e.success, e.timestamp FROM public.events e WHERE e.subject_type = 'user' AND e.subject = $1 AND e.event_type IN ('login_succeeded', 'login_refreshed', 'login_failed') AND e.timestamp > $2::timestamptz - interval '30 days' AND e.timestamp <= $2) SELECT CASE WHEN o.success THEN 'succeeded' ELSE 'failed' END, NULL, count(*)::text, NULL, min(o.timestamp), NULL, max(o.timestamp), NULL FROM own o GROUP BY o.success ORDER BY o.success DESC",
};
const RESOURCES: Asked = Asked {
    title: "Resources held",
    heads: &["Resource", "By", "Kind", "Since"],
    query: "WITH last AS MATERIALIZED (SELECT DISTINCT ON (r.subject_type, r.subject, r.resource) r.* FROM portal_audit.resource_points r WHERE r.project = portal_audit.short($1) AND r.at <= $2 ORDER BY r.subject_type, r.subject, r.resource, r.at DESC, r.lsn DESC, r.n DESC, r.event_uuid DESC) SELECT p.resource, NULL, p.subject, NULL, p.subject_type, NULL, p.at, NULL FROM last p JOIN portal_audit.lifetimes l ON l.subject_type = p.subject_type AND l.within = '' AND l.subject = p.subject AND l.began <= $2 AND (l.ended IS NULL OR l.ended > $2) WHERE p.held ORDER BY p.resource LIMIT 201",
};
const RUNS: Asked = Asked {
    title: "Realizations and materializations",
    heads: &["Name", "Kind", "Began", "Ended", "Outcome"],
    query: "WITH own AS MATERIALIZED (SELECT DISTINCT r.subject_type, r.subject FROM portal_audit.resource_points r WHERE r.project = portal_audit.short($1) AND r.experiment = portal_audit.short($2) AND r.at <= $3) SELECT l.subject, NULL, l.subject_type, NULL, l.began, NULL, CASE WHEN l.ended <= $3 THEN l.ended END, NULL, s.state, NULL FROM own o JOIN portal_audit.lifetimes l ON l.subject_type = o.subject_type AND l.within = '' AND l.subject = o.subject AND l.began <= $3 LEFT JOIN LATERAL (SELECT p.state FROM portal_audit.lifetime_points p WHERE p.subject_type = l.subject_type AND p.within = '' AND p.subject = l.subject AND p.state IS NOT NULL AND p.at BETWEEN l.began AND coalesce(l.ended, 'infinity') AND p.at <= $3 ORDER BY p.at DESC, p.lsn DESC, p.n DESC LIMIT 1) AS s ON true ORDER BY l.began DESC LIMIT 201",
};

async fn pane(
    reader: &Reader,
    asked: &Asked,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Pane, Fault> {
    let mut found = reader.rows(asked.query, parameters).await?;
    let has_more = found.len() > ROWS_MAX;
    found.truncate(ROWS_MAX);
    let rows = found.iter().map(cells).collect();
    Ok(Pane { title: asked.title, heads: asked.heads, rows, has_more })
}

fn cells(row: &Row) -> Vec<Cell> {
    let pairs = (0..row.len()).step_by(2);
    let cells = pairs.map(|column| {
        let text = row.try_get::<_, Option<String>>(column).unwrap_or_else(|_a_time| {
            row.try_get::<_, Option<DateTime<Utc>>>(column).ok().flatten().map(page::time)
        });
        let text = text.unwrap_or_default();
        let kind: Option<String> = row.try_get(column + 1).unwrap_or_default();
        let path = kind.as_deref().filter(|_| !text.is_empty()).and_then(|kind| path(kind, &text));
        Cell { text, path }
    });
    cells.collect()
}

/// The page of a subject.
fn path(kind: &str, name: &str) -> Option<String> {
    let folder = match kind {
        "user" => "users",
        "organization" => "organizations",
        "project" => "projects",
        "facility" => "facilities",
        "experiment" => {
            let (project, name) = name.split_once('/')?;
            return Some(format!("/experiments/{}/{}", escaped(project), escaped(name)));
        }
        _ => return None,
    };
    Some(format!("/{folder}/{}", escaped(name)))
}
