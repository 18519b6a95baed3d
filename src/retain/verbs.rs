//! `prune`, `erase user` and `hold`: their flags, and what they print.

use super::{Pruned, RetainError, open, prune_all, pruned};
use crate::{
    chain::chain,
    config::{AuditArguments, AuditError},
    connect::Session,
    show::{OutputFormat, visible},
};
use comfy_table::{CellAlignment, Table, presets};
use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

#[derive(Debug, clap::Args)]
pub struct PruneArguments {
    #[command(flatten)]
    audit: AuditArguments,
    /// Show what is due, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Events of one transaction
    #[arg(long, value_name = "EVENTS", default_value_t = 1_000)]
    batch: i32,
    #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
    format: OutputFormat,
}

#[derive(Debug, clap::Subcommand)]
pub enum EraseVerb {
    /// Give one person a pseudonym in everything that is kept; counts and proof stay. Delete the account in the portal first, or new events bring the name back
    User {
        /// As in events
        name: String,
        #[command(flatten)]
        audit: AuditArguments,
        /// Show what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
        format: OutputFormat,
    },
}

#[derive(Debug, clap::Subcommand)]
pub enum HoldVerb {
    /// Keep events from retention and erasure; those that all the conditions name, or everything
    Add {
        /// Why
        #[arg(long)]
        reason: String,
        /// Events that name this user
        #[arg(long)]
        user: Option<String>,
        #[arg(long)]
        subject_type: Option<String>,
        #[arg(long)]
        subject: Option<String>,
        /// Events of this type
        #[arg(long = "type", value_name = "EVENT_TYPE")]
        event_type: Option<String>,
        /// Events of this time (RFC 3339) and later
        #[arg(long, value_name = "TIME")]
        from: Option<chrono::DateTime<chrono::Utc>>,
        /// Events before this time
        #[arg(long, value_name = "TIME")]
        to: Option<chrono::DateTime<chrono::Utc>>,
        #[command(flatten)]
        audit: AuditArguments,
    },
    /// End a hold
    Release {
        /// Its number
        hold: i64,
        #[command(flatten)]
        audit: AuditArguments,
    },
    /// Show the holds, ended ones too
    List {
        #[command(flatten)]
        audit: AuditArguments,
        #[arg(long, value_enum, default_value_t = OutputFormat::Text)]
        format: OutputFormat,
    },
}

enum Failure {
    /// Exit code 1.
    Fault(String),
    /// Exit code 2.
    Usage(String),
}

impl From<RetainError> for Failure {
    fn from(error: RetainError) -> Self {
        Self::Fault(chain(&error))
    }
}

impl From<AuditError> for Failure {
    fn from(error: AuditError) -> Self {
        Self::Usage(chain(&error))
    }
}

async fn reach(audit: &AuditArguments) -> Result<Session, Failure> {
    Ok(open(&audit.conninfo()?, "retention").await?)
}

/// Runs `prune` to its exit code.
pub async fn prune(arguments: PruneArguments) -> ExitCode {
    finish(run_prune(arguments).await)
}

async fn run_prune(arguments: PruneArguments) -> Result<String, Failure> {
    let session = reach(&arguments.audit).await?;
    let mut all: BTreeMap<String, Pruned> = BTreeMap::new();
    if arguments.dry_run {
        let batch = pruned(&session, arguments.batch, true).await?;
        all.extend(batch.into_iter().map(|pruned| (pruned.event_type.clone(), pruned)));
    } else {
        // Who asks wants all of it, also what was written late.
        let again = session.client.execute("SELECT portal_audit.look_again()", &[]).await;
        again.map_err(|report| RetainError::Query { what: "apply retention", report })?;
        prune_all(&session, arguments.batch, |batch| {
            for pruned in batch {
                let sum = all.entry(pruned.event_type.clone());
                let sum = sum.or_insert_with(|| Pruned { events: 0, ..pruned.clone() });
                sum.events += pruned.events;
                sum.oldest = sum.oldest.clone().min(pruned.oldest.clone());
                sum.newest = sum.newest.clone().max(pruned.newest.clone());
            }
        })
        .await?;
    }
    let pruned: Vec<Pruned> = all.into_values().collect();
    if arguments.format == OutputFormat::Json {
        return json(&serde_json::json!({ "dry_run": arguments.dry_run, "pruned": pruned }));
    }
    let mut table = table(&["TYPE", "EVENTS", "OLDEST (UTC)", "NEWEST (UTC)"]);
    for Pruned { event_type, events, oldest, newest } in &pruned {
        table.add_row([visible(event_type).as_ref(), &events.to_string(), oldest, newest]);
    }
    right(&mut table, 1);
    let sum: i64 = pruned.iter().map(|pruned| pruned.events).sum();
    let events = if sum == 1 { "1 event is".to_owned() } else { format!("{sum} events are") };
    let told = match (sum, arguments.dry_run) {
        (0, _) => "Nothing is due.".to_owned(),
        (_, true) => format!(
            "{}\n{events} due; nothing was changed. Rows that others wrote into events beside the record are counted here and stay.",
            trimmed(&table)
        ),
        (_, false) => format!(
            "{}\n{events} gone. Events of type retention_applied record it, and verify goes by them.",
            trimmed(&table)
        ),
    };
    Ok(told + &held(&session).await?)
}

/// That holds keep events which would be due, for who may know.
async fn held(session: &Session) -> Result<String, RetainError> {
    const MAY: &str =
        "SELECT coalesce(has_table_privilege(to_regclass('portal_audit.holds'), 'SELECT'), false)";
    const HOLDS: &str = "SELECT count(*) FROM portal_audit.holds WHERE released_at IS NULL";
    let refused = |report| RetainError::Query { what: "count holds", report };
    if !session.client.query_one(MAY, &[]).await.map_err(refused)?.get::<_, bool>(0) {
        return Ok(String::new());
    }
    let row = session.client.query_one(HOLDS, &[]).await.map_err(refused)?;
    Ok(match row.get::<_, i64>(0) {
        0 => String::new(),
        1 => "\n1 hold keeps events that may be due: portal-audit hold list".to_owned(),
        holds => format!("\n{holds} holds keep events that may be due: portal-audit hold list"),
    })
}

/// Runs `erase` to its exit code.
pub async fn erase(verb: EraseVerb) -> ExitCode {
    finish(run_erase(verb).await)
}

async fn run_erase(verb: EraseVerb) -> Result<String, Failure> {
    let EraseVerb::User { name, audit, dry_run, yes, format } = verb;
    if !dry_run && !yes && !io::stdin().is_terminal() {
        return Err(Failure::Usage("nobody is there to be asked: say --yes, or --dry-run".into()));
    }
    let session = reach(&audit).await?;
    if !dry_run && !yes {
        let found = erased(&session, &name, true).await?;
        if found.is_empty() {
            return Ok(NOWHERE.to_owned());
        }
        if !is_confirmed(&name, &erased_text(&found)) {
            return Err(Failure::Fault("not confirmed: nothing was changed".into()));
        }
    }
    let found = erased(&session, &name, dry_run).await?;
    if format == OutputFormat::Json {
        let rows = found.iter().map(
            |(object, item, number)| serde_json::json!({ "object": object, "item": item, "number": number }),
        );
        let rows: Vec<_> = rows.collect();
        return json(&serde_json::json!({ "dry_run": dry_run, "erased": rows }));
    }
    if found.is_empty() {
        return Ok(NOWHERE.to_owned());
    }
    let pseudonym = found.iter().find(|(object, ..)| object == "pseudonym");
    let last = match pseudonym {
        Some((_, pseudonym, _)) => format!(
            "The person is {pseudonym} now. An event of type user_erased records it, and verify goes by it.\n{ELSEWHERE}"
        ),
        None => format!(
            "In these rows a pseudonym would stand for the name; no row would go. Nothing was changed.\n{ELSEWHERE}"
        ),
    };
    Ok(format!("{}\n{last}", erased_text(&found)))
}

const NOWHERE: &str =
    "The name is in no event and in no table of portal-audit. Upper and lower case matter.";
const ELSEWHERE: &str = "Not found are a name inside a model file, an earlier name of the person (erase that too), and copies elsewhere: exports, backups, the portal itself.";

type Erased = (String, String, i64);

async fn erased(
    session: &Session,
    name: &str,
    is_dry_run: bool,
) -> Result<Vec<Erased>, RetainError> {
    const QUERY: &str = "SELECT object, item, number FROM portal_audit.erase_user($1, $2)";
    let rows = session.client.query(QUERY, &[&name, &is_dry_run]).await;
    let rows = rows.map_err(|report| RetainError::Query { what: "erase", report })?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

fn erased_text(found: &[Erased]) -> String {
    let mut table = table(&["IN", "OF", "ROWS"]);
    for (object, item, number) in found.iter().filter(|(object, ..)| object != "pseudonym") {
        table.add_row([object.as_str(), visible(item).as_ref(), &number.to_string()]);
    }
    right(&mut table, 2);
    trimmed(&table)
}

#[expect(clippy::print_stderr, reason = "a question is not the output")]
fn is_confirmed(name: &str, table: &str) -> bool {
    eprint!("{table}\nThis cannot be undone. Type the name again to erase it: ");
    let mut line = String::new();
    let is_asked = io::stderr().flush().is_ok();
    is_asked && io::stdin().read_line(&mut line).is_ok() && line.trim_end_matches('\n') == name
}

/// Runs `hold` to its exit code.
pub async fn hold(verb: HoldVerb) -> ExitCode {
    finish(run_hold(verb).await)
}

async fn run_hold(verb: HoldVerb) -> Result<String, Failure> {
    match verb {
        HoldVerb::Add { reason, user, subject_type, subject, event_type, from, to, audit } => {
            const QUERY: &str = "SELECT portal_audit.hold($1, $2, $3, $4, $5, $6, $7)";
            let session = reach(&audit).await?;
            let values: [&(dyn tokio_postgres::types::ToSql + Sync); 7] =
                [&reason, &user, &subject_type, &subject, &event_type, &from, &to];
            let row = session.client.query_one(QUERY, &values).await;
            let row = row.map_err(|report| RetainError::Query { what: "place a hold", report })?;
            let hold: i64 = row.get(0);
            let keeps = [
                ("user", user),
                ("subject type", subject_type),
                ("subject", subject),
                ("type", event_type),
                ("from", from.map(|at| minute(&at.to_rfc3339()))),
                ("before", to.map(|at| minute(&at.to_rfc3339()))),
            ];
            let keeps = keeps_text(keeps.iter().map(|(name, value)| (*name, value.as_deref())));
            Ok(format!(
                "Hold {hold} is placed. It holds: {keeps}\nNeither retention nor erasure touches these events until: portal-audit hold release {hold}"
            ))
        }
        HoldVerb::Release { hold, audit } => {
            const QUERY: &str = "SELECT portal_audit.release($1)";
            let session = reach(&audit).await?;
            let released = session.client.execute(QUERY, &[&hold]).await;
            released.map_err(|report| RetainError::Query { what: "release a hold", report })?;
            Ok(format!("Hold {hold} is released. What it kept may go when it is due."))
        }
        HoldVerb::List { audit, format } => {
            const QUERY: &str = "SELECT to_jsonb(h) FROM portal_audit.holds h ORDER BY hold";
            let session = reach(&audit).await?;
            let rows = session.client.query(QUERY, &[]).await;
            let rows = rows.map_err(|report| RetainError::Query { what: "list holds", report })?;
            let holds: Vec<serde_json::Value> = rows.iter().map(|row| row.get(0)).collect();
            match format {
                OutputFormat::Json => json(&holds.into()),
                OutputFormat::Text => Ok(holds_text(&holds)),
            }
        }
    }
}

fn holds_text(holds: &[serde_json::Value]) -> String {
    const CONDITIONS: [(&str, &str); 6] = [
        ("about_user", "user"),
        ("subject_type", "subject type"),
        ("subject", "subject"),
        ("event_type", "type"),
        ("events_from", "from"),
        ("events_to", "before"),
    ];
    if holds.is_empty() {
        return "There is no hold.".to_owned();
    }
    let mut table = table(&["HOLD", "KEEPS", "REASON", "BY", "SINCE", "RELEASED"]);
    for hold in holds {
        let text = |key: &str| hold.get(key).and_then(|value| value.as_str()).unwrap_or_default();
        let keeps = CONDITIONS.iter().map(|(key, name)| {
            let value =
                if key.starts_with("events_") { minute(text(key)) } else { text(key).to_owned() };
            (*name, Some(value).filter(|value| !value.is_empty()))
        });
        let keeps: Vec<_> = keeps.collect();
        let keeps = keeps_text(keeps.iter().map(|(name, value)| (*name, value.as_deref())));
        let day = |key: &str| text(key).get(..10).unwrap_or("-").to_owned();
        table.add_row([
            hold.get("hold").map(ToString::to_string).unwrap_or_default(),
            keeps,
            visible(text("reason")).into_owned(),
            visible(text("placed_by")).into_owned(),
            day("placed_at"),
            day("released_at"),
        ]);
    }
    trimmed(&table)
}

/// Events that a hold keeps, by its conditions.
fn keeps_text<'a>(conditions: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> String {
    let said = conditions.filter_map(|(name, value)| Some(format!("{name} {}", visible(value?))));
    let said: Vec<String> = said.collect();
    if said.is_empty() { "EVERYTHING".to_owned() } else { said.join(", ") }
}

/// A time as JSON has it, in UTC to the minute.
fn minute(at: &str) -> String {
    let time = chrono::DateTime::parse_from_rfc3339(at);
    time.map_or_else(|_| at.to_owned(), |at| at.to_utc().format("%Y-%m-%d %H:%M UTC").to_string())
}

/// A table without the blanks at the ends of its lines.
fn trimmed(table: &Table) -> String {
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    table
}

fn right(table: &mut Table, column: usize) {
    if let Some(column) = table.column_mut(column) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

fn json(value: &serde_json::Value) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map_err(|error| Failure::Fault(error.to_string()))
}

#[expect(clippy::print_stdout, reason = "the output that was asked for")]
#[expect(clippy::print_stderr, reason = "the last word of a program that cannot go on")]
fn finish(result: Result<String, Failure>) -> ExitCode {
    match result {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(Failure::Fault(message)) => {
            eprintln!("portal-audit: {message}");
            ExitCode::from(1)
        }
        Err(Failure::Usage(message)) => {
            eprintln!("portal-audit: {message}");
            ExitCode::from(2)
        }
    }
}
