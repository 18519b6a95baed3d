//! `demo`: the sample portal lives, and its events are printed as they arrive, until Ctrl-C.

use super::{
    DemoError, POLL_INTERVAL, Sidecar,
    cluster::Cluster,
    identity::{self, IDENTITY},
    portal::{self, AUDIT_DATABASE, OWNER, PORTAL_DATABASE, SampleError},
    proof, tell,
};
use crate::{
    config::Settings,
    connect::Session,
    serve,
    show::{COLUMNS, ShownEvent, count, fit, seconds, visible},
    web,
};
use chrono::{DateTime, Utc};
use std::{
    collections::HashMap,
    io::{self, IsTerminal as _, Write as _},
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
};
use tokio::{
    net::TcpListener,
    task::JoinSet,
    time::{Duration, sleep},
};
use uuid::Uuid;

/// Between two actions in the portal; a deterministic few tenths of a second.
const ACTION_MILLIS: [u64; 6] = [150, 400, 250, 700, 100, 500];
/// Column widths of a line; the sentence takes the rest.
const TYPE_WIDTH: usize = 30;
const LINE_WIDTH_DEFAULT: usize = 120;

pub(super) async fn run(cluster: &Cluster) -> Result<ExitCode, DemoError> {
    tell(&format!(
        "PostgreSQL {} in {}",
        cluster.installation().version,
        cluster.socket_dir().display()
    ));
    let mut settings = portal::create(cluster, true).await.map_err(DemoError::Sample)?;
    settings.sources.push(identity::create(cluster).await.map_err(DemoError::Sample)?);
    portal::recall(cluster).await.map_err(DemoError::Sample)?;
    let sources = settings.sources.len();
    let sentences = sentences(&settings);
    let pages = settings.pages.clone().zip(settings.listen);
    let mut sidecar = Sidecar::start(settings);
    let audit = open(cluster, AUDIT_DATABASE).await?;
    let all = format!(
        "SELECT count(*) = {sources} AND bool_and(state = 'streaming') FROM portal_audit.progress"
    );
    sidecar.wait_for(&audit, &all).await?;
    let mut beside = JoinSet::new();
    if let Some((pages, address)) = pages {
        let listener = listen(address).await.map_err(DemoError::Listen)?;
        let address = listener.local_addr().unwrap_or(address);
        tell(&format!("The pages: http://{address}/"));
        let routes = web::routes(&pages, &sidecar.metrics);
        beside.spawn(serve::serve(listener, Arc::clone(&sidecar.metrics), routes));
    }
    let portal = open(cluster, PORTAL_DATABASE).await?;
    let registered = portal::script(&portal, "register facilities", portal::REGISTERED_SQL).await;
    registered.map_err(DemoError::Sample)?;
    drop(portal);
    let placed = portal::script(&audit, "say where they are", portal::FACILITIES_SQL).await;
    placed.map_err(DemoError::Sample)?;
    let past = introduce(cluster, &audit).await?;

    let mut activity = JoinSet::new();
    activity.spawn(act(open(cluster, PORTAL_DATABASE).await?));
    let visitors = open(cluster, IDENTITY).await?;
    activity.spawn(async { identity::visit(visitors).await.map_err(DemoError::Sample) });
    let screen = Screen::new();
    let mut seen = Seen { since: start_of_stream(&audit).await?, ids: Vec::new() };
    let asked_to_stop = crate::pipeline::asked_to_stop();
    tokio::pin!(asked_to_stop);
    loop {
        for event in new_events(&audit, &mut seen).await? {
            screen.line(&line(&event, &sentences));
        }
        screen.progress(&progress(&audit, past).await?);
        sidecar.is_running()?;
        tokio::select! {
            () = &mut asked_to_stop => break,
            ended = activity.join_next() => {
                if let Some(Ok(Err(error))) = ended {
                    return Err(error);
                }
            }
            () = sleep(POLL_INTERVAL * 4) => {}
        }
    }
    screen.clear();
    activity.shutdown().await;
    finish(cluster, &audit, sidecar).await
}

/// Waits until all is written, and compares it with what the sources wrote down themselves.
async fn finish(
    cluster: &Cluster,
    audit: &Session,
    mut sidecar: Sidecar,
) -> Result<ExitCode, DemoError> {
    // Whoever was told to stop may be in the middle of something, which still commits.
    const QUIET: &str = "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname IN ('portal', 'identity') AND backend_type = 'client backend' AND state <> 'idle' AND pid <> pg_backend_pid()";
    let portal = open(cluster, PORTAL_DATABASE).await?;
    sidecar.wait_for(&portal, QUIET).await?;
    let end = portal.client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).await;
    let end: String = end.map_err(failed)?.get(0);
    let reached = format!("SELECT bool_and(end_lsn >= '{end}') FROM portal_audit.progress");
    sidecar.wait_for(audit, &reached).await?;
    sidecar.stop().await?;
    let proof = proof::compare(&portal, audit, "portal").await;
    let mut proof = proof.map_err(DemoError::Sample)?;
    let identity = open(cluster, IDENTITY).await?;
    let compared = identity::compare(&identity, audit, &mut proof).await;
    compared.map_err(DemoError::Sample)?;
    tell(&format!(
        "{} row changes became {} events: {} lost, {} doubled, by what portal and identity server wrote down themselves.",
        count(proof.changes),
        count(proof.events),
        proof.lost,
        proof.doubled
    ));
    Ok(ExitCode::SUCCESS)
}

/// Where the settings say, or at any port if that one is taken.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            TcpListener::bind((address.ip(), 0)).await
        }
        bound => bound,
    }
}

fn failed(report: tokio_postgres::Error) -> DemoError {
    DemoError::Sample(SampleError::Sql { action: "read events", report })
}

async fn open(cluster: &Cluster, database: &str) -> Result<Session, DemoError> {
    portal::open(cluster, database, OWNER).await.map_err(DemoError::Sample)
}

fn sentences(settings: &Settings) -> HashMap<String, String> {
    let declared = settings.sources.iter().flat_map(|source| source.mapping.declared());
    let pairs = declared.map(|(name, says, ..)| (name.get_ref().clone(), says.get_ref().clone()));
    pairs.collect()
}

/// What was there before, and three lines to try. Gives how many of those events the sidecar wrote: not what the record had before it.
async fn introduce(cluster: &Cluster, audit: &Session) -> Result<u64, DemoError> {
    const QUERY: &str = "SELECT count(*), min(timestamp), (SELECT coalesce(sum(events), 0)::bigint FROM portal_audit.progress) FROM public.events";
    let row = audit.client.query_one(QUERY, &[]).await.map_err(failed)?;
    let since: Option<DateTime<Utc>> = row.get(1);
    let since = since.map_or_else(String::new, |since| since.format(" since %Y-%m-%d").to_string());
    let past = row.get::<_, i64>(2).unsigned_abs();
    let events = count(row.get::<_, i64>(0).unsigned_abs());
    tell(&format!(
        "{events} events of what existed{since}; now what happens. Ctrl-C ends it and leaves nothing.\n"
    ));
    let programs = std::env::var_os("PATH").unwrap_or_default();
    let bindir = cluster.installation().bindir.clone();
    let mut folders = std::env::split_paths(&programs).chain([bindir]);
    if folders.any(|folder| folder.join("psql").is_file()) {
        let (folder, port) = (cluster.socket_dir().display(), cluster.port());
        tell("Try in another terminal:");
        tell(&format!(
            "  export PGHOST={folder} PGPORT={port} PGUSER=postgres PGDATABASE=portal-audit"
        ));
        for query in [
            "SELECT event_type, count(*) FROM events GROUP BY 1 ORDER BY 2 DESC",
            "SELECT timestamp, caller, subject, target FROM events WHERE event_type = 'org_member_added'",
            "SELECT source, complete_to, end_lsn, events FROM portal_audit.progress",
        ] {
            tell(&format!("  psql -c \"{query}\""));
        }
        tell("");
    }
    Ok(past)
}

/// One action after the other, as the portal's own session would.
async fn act(portal: Session) -> Result<(), DemoError> {
    for (seed, millis) in (1_i64..).zip(ACTION_MILLIS.into_iter().cycle()) {
        // An action that two people want at once may be refused to one of them; that is the portal's business.
        if let Err(error) = portal.client.execute("SELECT activity.act($1)", &[&seed]).await
            && error.code().is_none()
        {
            return Err(failed(error));
        }
        sleep(Duration::from_millis(millis)).await;
    }
    Ok(())
}

/// Up to where events were printed.
struct Seen {
    since: DateTime<Utc>,
    /// Those of exactly that time.
    ids: Vec<Uuid>,
}

async fn start_of_stream(audit: &Session) -> Result<DateTime<Utc>, DemoError> {
    let row = audit.client.query_one("SELECT now()", &[]).await.map_err(failed)?;
    Ok(row.get(0))
}

async fn new_events(audit: &Session, seen: &mut Seen) -> Result<Vec<ShownEvent>, DemoError> {
    let query = format!(
        "SELECT {COLUMNS} FROM public.events e WHERE e.timestamp >= $1 AND e.event_uuid <> ALL ($2) ORDER BY e.timestamp, (e.payload->'_audit'->>'n')::int NULLS FIRST LIMIT 500"
    );
    let rows = audit.client.query(&query, &[&seen.since, &seen.ids]).await.map_err(failed)?;
    let mut events = Vec::new();
    for row in rows {
        let event = ShownEvent::read(&row);
        if event.timestamp > seen.since {
            seen.ids.clear();
            seen.since = event.timestamp;
        }
        seen.ids.push(event.event_uuid);
        events.push(event);
    }
    Ok(events)
}

fn line(event: &ShownEvent, sentences: &HashMap<String, String>) -> String {
    let time = event.timestamp.format("%H:%M:%S%.3f");
    let event_type = visible(&event.event_type);
    let sentence = match sentences.get(&event.event_type) {
        Some(describe) => event.sentence(describe),
        None => format!("{} {}", event.subject_type, visible(&event.subject)),
    };
    let mark = if event.success { ' ' } else { '✗' };
    format!("{time} {mark} {event_type:<TYPE_WIDTH$} {sentence}")
}

async fn progress(audit: &Session, past: u64) -> Result<String, DemoError> {
    const QUERY: &str = "SELECT coalesce(sum(events), 0)::bigint, coalesce(sum(changes), 0)::bigint, min(complete_to), extract(epoch FROM clock_timestamp() - min(complete_to))::float8 FROM portal_audit.progress";
    let row = audit.client.query_one(QUERY, &[]).await.map_err(failed)?;
    let number = |column: usize| row.get::<_, i64>(column).unsigned_abs();
    let (events, changes) = (count(number(0).saturating_sub(past)), count(number(1)));
    let complete_to: Option<DateTime<Utc>> = row.get(2);
    let complete_to =
        complete_to.map_or("–".to_owned(), |time| time.format("%H:%M:%S").to_string());
    let lag = row.get::<_, Option<f64>>(3).map_or("–".to_owned(), |lag| seconds(lag.max(0.0)));
    Ok(format!("{events} events of {changes} changes · complete to {complete_to} UTC · lag {lag}"))
}

/// Lines that scroll, and under them one that stays, if this is a terminal.
struct Screen {
    is_terminal: bool,
    width: usize,
}

impl Screen {
    fn new() -> Self {
        let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        Self {
            is_terminal: std::io::stdout().is_terminal(),
            width: width.unwrap_or(LINE_WIDTH_DEFAULT),
        }
    }

    fn line(&self, line: &str) {
        if self.is_terminal {
            self.write(&format!("\r\x1b[2K{}\n", fit(line, self.width)));
        } else {
            self.write(&format!("{line}\n"));
        }
    }

    fn progress(&self, line: &str) {
        if self.is_terminal {
            self.write(&format!("\r\x1b[2K\x1b[2m{}\x1b[0m", fit(line, self.width)));
        }
    }

    fn clear(&self) {
        if self.is_terminal {
            self.write("\r\x1b[2K");
        }
    }

    /// A reader that went away is no fault of the demo's.
    fn write(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    }
}
