//! `history`: all that concerns one user, organization, project or experiment, found by the given indexes alone.
//!
//! Each kind of row that belongs to a story is an arm of its own, an index each, and their union is the story. What `<name>_created` and the like mean is a convention of names, so a mapping of one's own is understood as well.

use super::{
    AskError,
    paint::Paint,
    print,
    read::{Abilities, Reader, complete_text},
    record::record,
    row::{EventRow, select},
    story::{Story, story_text},
    tell,
};
use crate::{
    config::AuditArguments,
    filter::{Filter, Moment, Where},
    show::OutputFormat,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap, HashSet};
use tokio_postgres::types::Json;
use uuid::Uuid;

/// Most events of one story.
const LIMIT_MAX: i64 = 100_000;

/// What has a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The account, its logins and memberships, and what the user did
    User,
    /// With its members and projects
    Organization,
    /// With its members, experiments and machines
    Project,
    /// PROJECT/NAME, with its realizations and materializations
    Experiment,
}

impl Kind {
    /// As in `events.subject_type`.
    #[must_use]
    pub fn subject_type(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Organization => "organization",
            Self::Project => "project",
            Self::Experiment => "experiment",
        }
    }

    /// How its event types begin.
    #[must_use]
    pub fn prefix(self) -> &'static str {
        if self == Self::Organization { "org" } else { self.subject_type() }
    }
}

#[derive(Debug, clap::Args)]
pub struct HistoryArguments {
    /// Whose
    #[arg(value_enum)]
    kind: Kind,
    /// Its name; of an experiment PROJECT/NAME, where NAME alone does if only one project has it
    name: String,
    /// From then on, as in `events`
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,
    /// Until before then; a date means until its end
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,
    /// How many events, counted from the newest
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(i64).range(1..=LIMIT_MAX))]
    limit: i64,
    /// Every event, also where one transaction has many alike
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    audit: AuditArguments,
    /// Text for people, or one JSON document
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    format: OutputFormat,
}

pub(super) async fn run(arguments: HistoryArguments) -> Result<(), AskError> {
    let HistoryArguments { kind, limit, full, format, .. } = arguments;
    let reader = Reader::open(&arguments.audit, "history").await?;
    // What was never analyzed may look as if it were quicker to read the whole of it.
    let plan = "SET LOCAL enable_seqscan = off; SET LOCAL jit = off; SET LOCAL work_mem = '32MB'";
    reader.session.client.batch_execute(plan).await.map_err(AskError::query)?;
    let (project, name) = whose(&reader, kind, &arguments.name).await?;
    let mut span = Filter { since: arguments.since, until: arguments.until, ..Filter::default() };
    span.pin(reader.now);
    let mut to = span.condition();
    let belongs = arms(kind, project.as_deref(), &name, &reader.abilities, &mut to);
    let mut events = rows(&reader, &span, to, &belongs, limit + 1).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = events.len() > limit;
    events.truncate(limit);
    effects(&reader, kind, &mut events).await?;
    let causes = causes(&reader, &events).await?;
    let complete_to = reader.complete_to().await?;
    reader.close().await?;
    let shown = events.len();
    let asked = json!({"kind": kind, "project": project, "name": name, "since": span.since, "until": span.until});
    record(&reader, "history", &asked, shown).await?;
    let story = Story::new(kind, project, name, events, causes, has_more, complete_to);
    match format {
        OutputFormat::Json => {
            print(&(serde_json::to_string_pretty(&story).map_err(AskError::Json)? + "\n"))?;
        }
        OutputFormat::Text => {
            print(&story_text(&story, Paint::of_stdout(), full))?;
            tell(&complete_text(&story.complete_to));
        }
    }
    Ok(())
}

/// The project of an experiment, and the name.
async fn whose(
    reader: &Reader,
    kind: Kind,
    name: &str,
) -> Result<(Option<String>, String), AskError> {
    const PROJECTS: &str = "SELECT DISTINCT payload->>'project' FROM public.events WHERE subject_type = 'experiment' AND subject = $1 AND payload->>'project' IS NOT NULL ORDER BY 1 LIMIT 20";
    if kind != Kind::Experiment {
        return Ok((None, name.to_owned()));
    }
    if let Some((project, name)) = name.split_once('/') {
        return Ok((Some(project.to_owned()), name.to_owned()));
    }
    let rows = reader.session.client.query(PROJECTS, &[&name]).await.map_err(AskError::query)?;
    let projects: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    match projects.as_slice() {
        [] => Ok((None, name.to_owned())),
        [only] => Ok((Some(only.clone()), name.to_owned())),
        _ => {
            let each = projects.iter().map(|project| format!("{project}/{name}"));
            let each = each.collect::<Vec<_>>().join(", ");
            Err(AskError::Usage(format!(
                "several projects have such an experiment. Say which: {each}"
            )))
        }
    }
}

/// Most events of a story that a portal user finds by what the payload holds.
const OWN_MAX: i32 = 10_000;

/// The newest of a portal user's own that a filter means, which no index would find under the policy.
fn mine(filter: &Value, to: &mut Where) -> String {
    let filter = to.bind(Json(filter.clone()));
    format!(
        "e.event_uuid = ANY (ARRAY(SELECT o.event_uuid FROM portal_audit.my_events({OWN_MAX}, NULL, NULL, {filter}) o))"
    )
}

/// The births and ends of what is within an organization, and within a project.
const PROJECTS: [&str; 3] = ["project_created", "project_deleted", "project_declined"];
const EXPERIMENTS: [&str; 5] = [
    "experiment_created",
    "experiment_deleted",
    "experiment_renamed",
    "xdc_created",
    "xdc_deleted",
];

/// What belongs to a story by one of the given indexes.
struct Arm {
    condition: String,
    /// Whether that index alone answers it, without the table.
    is_covered: bool,
}

impl Arm {
    fn covered(condition: String) -> Self {
        Self { condition, is_covered: true }
    }

    fn looked_at(condition: String) -> Self {
        Self { condition, is_covered: false }
    }
}

/// What belongs to a story, as conditions on events. Each is served by one index.
fn arms(
    kind: Kind,
    project: Option<&str>,
    name: &str,
    abilities: &Abilities,
    to: &mut Where,
) -> Vec<Arm> {
    let is_viewer = abilities.is_viewer;
    let prefix = kind.prefix();
    let own = kind.subject_type();
    let name_at = to.bind(name.to_owned());
    let mut arms = vec![
        Arm::covered(format!("e.subject_type = '{own}' AND e.subject = {name_at}::text")),
        Arm::looked_at(format!(
            "e.event_type = '{prefix}_renamed' AND e.payload->>'old_name' = {name_at}::text"
        )),
    ];
    let member = |kind: &str| {
        Arm::looked_at(format!("e.target = {name_at}::text AND e.payload->>'kind' = '{kind}'"))
    };
    let within = |types: &[&str], key: &str, to: &mut Where| {
        let held = format!("e.payload->>'{key}' = {name_at}::text");
        if is_viewer {
            let filter = json!({"type": types, "payload": [format!("{key}={name}")]});
            return Arm::looked_at(format!("{} AND {held}", mine(&filter, to)));
        }
        Arm::looked_at(format!("e.event_type = ANY ('{{{}}}') AND {held}", types.join(",")))
    };
    match kind {
        Kind::User => {
            arms.push(member("usermember"));
            arms.push(Arm::covered(format!("e.caller = {name_at}::text")));
        }
        Kind::Organization => {
            arms.push(within(&PROJECTS, "organization", to));
        }
        Kind::Project => {
            arms.push(member("projectmember"));
            arms.push(Arm::looked_at(format!("e.target = {name_at}::text AND e.event_type = ANY ('{{pool_project_added,pool_project_removed}}')")));
            // What else happens within an experiment is its own story.
            arms.push(within(&EXPERIMENTS, "project", to));
        }
        Kind::Experiment => {
            let Some(project) = project else { return arms };
            let project_at = to.bind(project.to_owned());
            let end = to.bind(format!(".{name}.{project}"));
            let there = format!("e.payload->>'project' = {project_at}::text");
            arms = vec![
                Arm::looked_at(format!(
                    "e.subject_type = 'experiment' AND e.subject = {name_at}::text AND {there}"
                )),
                Arm::looked_at(format!(
                    "e.event_type = 'experiment_renamed' AND e.payload->>'old_name' = {name_at}::text AND e.payload->>'old_project' = {project_at}::text"
                )),
            ];
            if is_viewer {
                let filter = json!({"subject_type": ["realization", "materialization"], "payload": [format!("project={project}")]});
                let ends = format!("right(e.subject, length({end}::text)) = {end}::text");
                arms.push(Arm::looked_at(format!("{} AND {ends}", mine(&filter, to))));
                return arms;
            }
            arms.extend(runs(&project_at, &end, abilities.reads_things));
        }
    }
    arms
}

/// What is called NAME.EXPERIMENT.PROJECT. No index finds endings: the table of what a project has is read, which is whole up to a time, and what is newer by that. Without the table an index is read alone, all of it.
fn runs(project: &str, end: &str, reads_things: bool) -> Vec<Arm> {
    let ends = |name: &str| format!("right({name}, length({end}::text)) = {end}::text");
    let named = |own: &str| {
        if reads_things {
            format!(
                "SELECT coalesce(t.subject, t.key) FROM portal_audit.project_things t WHERE t.project = portal_audit.short({project}::text) AND t.subject_type = '{own}' AND {}",
                ends("coalesce(t.subject, t.key)")
            )
        } else {
            format!(
                "SELECT DISTINCT s.subject FROM public.events s WHERE s.subject_type = '{own}' AND {}",
                ends("s.subject")
            )
        }
    };
    let mut runs = Vec::new();
    for own in ["realization", "materialization"] {
        let named = named(own);
        let named = format!("e.subject_type = '{own}' AND e.subject = ANY (ARRAY({named}))");
        runs.push(Arm::looked_at(named));
        if reads_things {
            runs.push(Arm::looked_at(format!(
                "e.timestamp >= (SELECT portal_audit.things_to()) AND e.subject_type = '{own}' AND {}",
                ends("e.subject")
            )));
        }
    }
    runs
}

/// Events of somebody who did much. Their newest are looked for among the newest of all before their whole life is sorted.
const BUSY: i64 = 20_000;
const LATELY: i64 = 250_000;

/// The newest events that belong, newest first.
async fn rows(
    reader: &Reader,
    during: &Filter,
    mut to: Where,
    arms: &[Arm],
    limit: i64,
) -> Result<Vec<EventRow>, AskError> {
    let is_viewer = reader.abilities.is_viewer;
    let span = to.sql().to_owned();
    let mut since = if is_viewer { None } else { lately(reader, during, &to, arms).await? };
    let limit_at = to.bind(limit);
    loop {
        let (mut values, mut span) = (to.values(), span.clone());
        if let Some(since) = &since {
            values.push(since);
            span.push_str(&format!(" AND e.timestamp >= ${}::timestamptz", values.len()));
        }
        // Apart from the order, for which the planner would walk through all of time.
        let query = format!(
            "{} WHERE e.event_uuid = ANY (ARRAY(WITH u AS MATERIALIZED ({}) SELECT u.event_uuid FROM u ORDER BY u.timestamp DESC, u.event_uuid DESC LIMIT {limit_at})) ORDER BY e.timestamp DESC, e.event_uuid DESC",
            select(&reader.abilities),
            belonging(&span, arms, since.is_some())
        );
        let rows = reader.session.client.query(&query, &values).await.map_err(AskError::query)?;
        if since.is_none() || i64::try_from(rows.len()) == Ok(limit) {
            return Ok(rows.iter().map(EventRow::read).collect());
        }
        since = None;
    }
}

/// Of all that belongs, id and time. Lately the indexes are put together before a row is read; over all of time each arm stands alone, for the planner to know what to do with it, and because a policy asks no index of a condition that has what may leak a value in it.
fn belonging(span: &str, arms: &[Arm], is_lately: bool) -> String {
    let select = "SELECT e.event_uuid, e.timestamp FROM public.events e WHERE";
    if is_lately {
        let any = arms.iter().map(|arm| format!("({})", arm.condition)).collect::<Vec<_>>();
        return format!("{select} {span} AND ({})", any.join(" OR "));
    }
    let each = arms.iter().map(|arm| format!("{select} {span} AND {}", arm.condition));
    each.collect::<Vec<_>>().join(" UNION ")
}

/// Since when there are [`LATELY`] events of all, where the story has many.
async fn lately(
    reader: &Reader,
    during: &Filter,
    to: &Where,
    arms: &[Arm],
) -> Result<Option<DateTime<Utc>>, AskError> {
    let client = &reader.session.client;
    let span = to.sql();
    let counts = arms.iter().filter(|arm| arm.is_covered).map(|arm| {
        let from = format!("public.events e WHERE {span} AND {}", arm.condition);
        format!("(SELECT count(*) FROM (SELECT FROM {from} LIMIT {BUSY}) e)")
    });
    let counts: Vec<String> = counts.collect();
    if counts.is_empty() {
        return Ok(None);
    }
    let query = format!("SELECT {}", counts.join(" + "));
    let count = client.query_one(&query, &to.values()).await.map_err(AskError::query)?;
    if count.get::<_, i64>(0) < BUSY {
        return Ok(None);
    }
    let during = during.condition();
    let query = format!(
        "SELECT e.timestamp FROM public.events e WHERE {} ORDER BY e.timestamp DESC OFFSET {LATELY} LIMIT 1",
        during.sql()
    );
    let edge = client.query_opt(&query, &during.values()).await.map_err(AskError::query)?;
    Ok(edge.map(|row| row.get(0)))
}

/// Most events that the end of one thing took with it.
const EFFECTS_MAX: i64 = 10_000;

/// Adds what the ends of the thing itself took with them, wherever that stands. It happened at the same time, which has an index.
async fn effects(reader: &Reader, kind: Kind, events: &mut Vec<EventRow>) -> Result<(), AskError> {
    let ends = events.iter().filter(|event| {
        event.subject_type == kind.subject_type()
            && (event.event_type.ends_with("_deleted") || event.event_type.ends_with("_declined"))
    });
    let (times, causes): (Vec<_>, Vec<_>) =
        ends.map(|event| (event.timestamp, event.event_uuid.to_string())).unzip();
    let known: HashSet<Uuid> = events.iter().map(|event| event.event_uuid).collect();
    let query = format!(
        "{} WHERE e.timestamp = ANY ($1) AND e.payload #>> '{{_audit,cause}}' = ANY ($2) ORDER BY e.timestamp, e.event_uuid LIMIT $3",
        select(&reader.abilities)
    );
    let rows = reader.session.client.query(&query, &[&times, &causes, &EFFECTS_MAX]).await;
    let rows = rows.map_err(AskError::query)?;
    let rows = rows.iter().map(EventRow::read);
    events.extend(rows.filter(|event| !known.contains(&event.event_uuid)));
    Ok(())
}

/// The events that caused some of these and are not among them.
async fn causes(reader: &Reader, events: &[EventRow]) -> Result<HashMap<Uuid, EventRow>, AskError> {
    let own: HashSet<Uuid> = events.iter().map(|event| event.event_uuid).collect();
    let causes: BTreeSet<Uuid> = events.iter().filter_map(cause).collect();
    let wanted: Vec<Uuid> = causes.into_iter().filter(|cause| !own.contains(cause)).collect();
    let query = format!("{} WHERE e.event_uuid = ANY ($1)", select(&reader.abilities));
    let rows = reader.session.client.query(&query, &[&wanted]).await.map_err(AskError::query)?;
    let rows = rows.iter().map(EventRow::read).map(|event| (event.event_uuid, event));
    Ok(rows.collect())
}

/// The event that caused this one.
pub(super) fn cause(event: &EventRow) -> Option<Uuid> {
    event.audit("cause")?.as_str()?.parse().ok()
}
