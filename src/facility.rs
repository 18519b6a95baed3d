//! Facilities of the testbed: their states as the audit database concludes them (`sql/facility_states.sql` has the rules), the verb `facility`, and the probe of their addresses.

mod probe;
mod show;
mod verb;

pub use probe::keep;
pub use show::{detail, list, rank, shares, span};
pub use verb::{FacilityVerb, run};

use crate::{
    connect::{self, ConnectError, Session},
    map::{Marker, State},
};
use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};
use tokio_postgres::Row;

/// Why there is no answer about facilities.
#[derive(Debug, thiserror::Error)]
pub enum FacilityError {
    #[error("cannot reach the audit database")]
    Connect(#[source] ConnectError),
    // Not a source: printing that prints DETAIL, which holds values of rows.
    #[error("cannot {action}: {}{}", connect::describe(report), hint(report))]
    Query { action: &'static str, report: tokio_postgres::Error },
    #[error(
        "the portal has no facility {name:?}. `portal-audit facility list` tells which there are"
    )]
    Unknown { name: String },
}

/// What to do about a refusal.
fn hint(error: &tokio_postgres::Error) -> &'static str {
    match connect::sqlstate_of(error) {
        Some("42501") => {
            ". Name a login that may: --audit \"host=… dbname=… user=…\" (GRANT portal_audit_reader TO it; for maintenance portal_audit_operator)"
        }
        Some("42P01" | "42883" | "3F000") => {
            ". Run what `portal-audit sql audit` prints on that database"
        }
        Some("22007" | "22008") => {
            ". A time is 2026-12-01T09:00Z, \"2026-12-01 09:00\" (UTC), now, or from now on +2h, \"+3 days\""
        }
        _ => "",
    }
}

/// A facility at a time, as `portal_audit.facility_states` tells it.
#[derive(Debug, Clone, Serialize)]
pub struct Facility {
    pub name: String,
    #[serde(serialize_with = "as_word")]
    pub state: State,
    pub since: Option<DateTime<Utc>>,
    /// A sentence without its full stop.
    pub why: String,
    pub resources_active: i32,
    pub resources_total: i32,
    /// Resources that a realization holds.
    pub allocated: i64,
    /// Materializations on it that succeeded in the last `recent_hours`.
    pub succeeded: i64,
    /// Those that failed.
    pub failed: i64,
    pub maintenance_from: Option<DateTime<Utc>>,
    pub expected_end: Option<DateTime<Utc>>,
    /// Whether the expected end has passed and nobody ended it.
    pub is_overdue: bool,
    pub planned_from: Option<DateTime<Utc>>,
    pub planned_until: Option<DateTime<Utc>>,
    /// Of the maintenance that is, or is planned.
    pub note: Option<String>,
    /// Whether its address answers; `None`: nobody looked lately.
    pub reachable: Option<bool>,
    pub rtt_ms: Option<f64>,
    pub last_seen: Option<DateTime<Utc>>,
    pub place: Option<Place>,
}

impl Facility {
    /// A row of `portal_audit.facility_states`.
    pub(crate) fn of_row(row: &Row) -> Self {
        facility(row)
    }

    /// It on the map, if its place is known.
    #[must_use]
    pub fn marker(&self) -> Option<Marker<'_>> {
        let place = self.place.as_ref()?;
        Some(Marker {
            name: &self.name,
            state: self.state,
            why: &self.why,
            latitude: place.latitude,
            longitude: place.longitude,
            label_offset: (place.label_dx, place.label_dy),
        })
    }
}

/// Where a facility is.
#[derive(Debug, Clone, Serialize)]
pub struct Place {
    pub latitude: f64,
    pub longitude: f64,
    pub label_dx: f64,
    pub label_dy: f64,
    pub organization: Option<String>,
    pub url: Option<String>,
}

fn as_word<S: Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.word())
}

/// A span in which the state stayed.
#[derive(Debug, Clone, Serialize)]
pub struct Span {
    #[serde(serialize_with = "as_word")]
    pub state: State,
    pub from: DateTime<Utc>,
    pub until: DateTime<Utc>,
    /// Why it began.
    pub why: String,
}

impl Span {
    /// A row of `portal_audit.facility_history`.
    pub(crate) fn of_row(row: &Row) -> Self {
        Self {
            state: State::of_word(row.get(0)),
            from: row.get(1),
            until: row.get(2),
            why: row.get(3),
        }
    }
}

/// A resource that is not active, or one that is allocated.
#[derive(Debug, Clone, Serialize)]
pub struct Resource {
    pub resource: String,
    pub since: DateTime<Utc>,
    /// `realization.experiment.project`, if it is allocated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub realization: Option<String>,
}

/// Everything that can be said of one facility.
#[derive(Debug, Clone, Serialize)]
pub struct Detail {
    #[serde(flatten)]
    pub facility: Facility,
    pub history: Vec<Span>,
    pub inactive: Vec<Resource>,
    /// What the reader may see of it; `None`: the login may not ask.
    pub allocations: Option<Vec<Resource>>,
}

/// All facilities at a time.
#[derive(Debug, Clone, Serialize)]
pub struct Facilities {
    /// The time.
    pub at: DateTime<Utc>,
    pub facilities: Vec<Facility>,
    /// Events that are written and not counted yet.
    pub events_behind: i64,
}

/// A time as people give it: `now`, `+2h`, or what PostgreSQL reads, in UTC.
const TIME: &str = "CASE WHEN $1::text LIKE '+%' THEN now() + substr($1::text, 2)::interval ELSE $1::text::timestamptz END";
/// Most of a list of resources that is read.
const RESOURCES_MAX: i64 = 1_000;

fn failed(action: &'static str) -> impl Fn(tokio_postgres::Error) -> FacilityError {
    move |report| FacilityError::Query { action, report }
}

/// Brings the tables of facilities up with the events, at most about so many of them; gives how many it looked at.
///
/// # Errors
/// The database refuses.
pub async fn fold(session: &Session, events: i64) -> Result<i64, FacilityError> {
    let query = "SELECT portal_audit.fold_facilities($1)";
    let row = session.client.query_one(query, &[&events]).await;
    Ok(row.map_err(failed("follow events"))?.get(0))
}

/// The facilities at a time.
///
/// # Errors
/// The time cannot be read, or the database refuses.
pub async fn facilities(session: &Session, at: &str) -> Result<Facilities, FacilityError> {
    let action = "read the states of facilities";
    let query = format!("SELECT {TIME}, portal_audit.facilities_behind()");
    let row = session.client.query_one(&query, &[&at]).await.map_err(failed(action))?;
    let (at, events_behind): (DateTime<Utc>, i64) = (row.get(0), row.get(1));
    let query = "SELECT * FROM portal_audit.facility_states($1)";
    let rows = session.client.query(query, &[&at]).await.map_err(failed(action))?;
    Ok(Facilities { at, facilities: rows.iter().map(facility).collect(), events_behind })
}

fn facility(row: &Row) -> Facility {
    let place = row.get::<_, Option<f64>>("latitude").zip(row.get("longitude"));
    Facility {
        name: row.get("facility"),
        state: State::of_word(row.get("state")),
        since: row.get("since"),
        why: row.get("why"),
        resources_active: row.get("resources_active"),
        resources_total: row.get("resources_total"),
        allocated: row.get("allocated"),
        succeeded: row.get("succeeded"),
        failed: row.get("failed"),
        maintenance_from: row.get("maintenance_from"),
        expected_end: row.get("expected_end"),
        is_overdue: row.get("is_overdue"),
        planned_from: row.get("planned_from"),
        planned_until: row.get("planned_until"),
        note: row.get("note"),
        reachable: row.get("reachable"),
        rtt_ms: row.get("rtt_ms"),
        last_seen: row.get("last_seen"),
        place: place.map(|(latitude, longitude)| Place {
            latitude,
            longitude,
            label_dx: row.get("label_dx"),
            label_dy: row.get("label_dy"),
            organization: row.get("organization"),
            url: row.get("url"),
        }),
    }
}

/// One facility now, with its states of the last days.
///
/// # Errors
/// The portal has no such facility, or the database refuses.
pub async fn facility_detail(
    session: &Session,
    name: &str,
    days: i32,
) -> Result<Detail, FacilityError> {
    let all = facilities(session, "now").await?;
    let found = all.facilities.into_iter().find(|facility| facility.name == name);
    let facility = found.ok_or_else(|| FacilityError::Unknown { name: name.to_owned() })?;
    let client = &session.client;
    let query = "SELECT state, from_time, until, why FROM portal_audit.facility_history($1, now() - make_interval(days => $2))";
    let rows = client.query(query, &[&name, &days]).await.map_err(failed("read its history"))?;
    let history = rows.iter().map(Span::of_row).collect();
    let query = "SELECT resource, since, NULL FROM portal_audit.facility_resources WHERE facility = $1 AND NOT active ORDER BY since, resource LIMIT $2";
    let rows = client.query(query, &[&name, &RESOURCES_MAX]).await;
    let inactive = rows.map_err(failed("read its resources"))?.iter().map(resource).collect();
    let query = "SELECT resource, since, realization FROM portal_audit.facility_allocations WHERE facility = $1 ORDER BY resource, since LIMIT $2";
    let allocations = match client.query(query, &[&name, &RESOURCES_MAX]).await {
        Ok(rows) => Some(rows.iter().map(resource).collect()),
        Err(error) if connect::sqlstate_of(&error) == Some("42501") => None,
        Err(error) => return Err(failed("read its allocations")(error)),
    };
    Ok(Detail { facility, history, inactive, allocations })
}

fn resource(row: &Row) -> Resource {
    Resource { resource: row.get(0), since: row.get(1), realization: row.get(2) }
}

/// Announces maintenance; times as [`facilities`] takes them.
///
/// # Errors
/// It makes no sense, or the database refuses.
pub async fn plan(
    session: &Session,
    name: &str,
    (from, until): (&str, &str),
    note: &str,
) -> Result<(), FacilityError> {
    let action = "plan maintenance";
    let mut times: Vec<DateTime<Utc>> = Vec::new();
    for time in [from, until] {
        let row = session.client.query_one(&format!("SELECT {TIME}"), &[&time]).await;
        times.push(row.map_err(failed(action))?.get(0));
    }
    let query = "SELECT portal_audit.facility_maintenance_plan($1, ($3::timestamptz[])[1], ($3::timestamptz[])[2], $2)";
    session.client.query_one(query, &[&name, &note, &times]).await.map_err(failed(action))?;
    Ok(())
}

/// Ends maintenance that is, or cancels what is planned.
///
/// # Errors
/// There is none, or the database refuses.
pub async fn end(session: &Session, name: &str, is_cancelled: bool) -> Result<(), FacilityError> {
    let action = if is_cancelled { "cancel maintenance" } else { "end maintenance" };
    let query = "SELECT portal_audit.facility_maintenance_end($1, $2)";
    session.client.query_one(query, &[&name, &is_cancelled]).await.map_err(failed(action))?;
    Ok(())
}
