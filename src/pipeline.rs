//! One loop per source: the stages one after the other, and when to confirm.
//!
//! ```text
//!  read task                                             write task
//!   frames ─▶ Assembler ─▶ Translator ─▶ Batch ══work══▶ Writer ─▶ audit database
//!   keepalive ┐                                             │ end_lsn, after COMMIT
//!             └─▶ confirm task ◀════════written═════════════┘
//!                   └─▶ status update to the walsender
//!  clock task: the source's clock and the end of its log ─▶ what is complete
//! ```
//!
//! # The confirm rule
//! The walsender is told only a position that the write task has committed as progress; so at every instant the slot's `confirmed_flush_lsn` ≤ progress. A keepalive's `wal_end` may be confirmed when the stream stands between transactions: the server has sent everything before it, and what commits later is sent whole, from wherever it began. It goes the same way, through the write task, because progress must not fall behind the slot.
//!
//! # Group commit
//! The write task takes one batch at a time. While it commits, the read task gathers the next: one transaction when the source is idle, thousands when we are behind.

mod attempts;
mod confirm;
mod coverage;
mod horizon;
mod read;
mod start;

use crate::{
    catalog::CatalogError,
    chain::chain,
    config::{Settings, Source},
    connect::ConnectError,
    continuity::{Acceptance, Refusal},
    lsn::Lsn,
    snapshot::SnapshotError,
    transaction::TransactionError,
    translate::{
        Batch, TranslateError,
        attempt::Teller,
        names::NameKey,
        picture::{self, Change, Look},
    },
    wire::WireError,
    write::{End, Ends, WriteError, Writer},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep},
};

/// The first wait before a source is tried again; it doubles.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// A session that lasted this long was a good one: the next wait is the first again.
const SESSION_GOOD: Duration = Duration::from_secs(30);

/// Why a source's session ended.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("cannot reach the source")]
    Source(#[source] ConnectError),
    #[error("cannot reach the audit database")]
    Audit(#[source] ConnectError),
    #[error("the replication connection failed")]
    Wire(#[source] WireError),
    #[error("the log cannot be read on")]
    NoPublication(#[source] Box<NoPublication>),
    #[error("the source does not fit")]
    Catalog(#[source] CatalogError),
    #[error("changes may be missing")]
    Continuity(#[source] Refusal),
    #[error("the first snapshot failed")]
    Snapshot(#[source] SnapshotError),
    #[error("the stream cannot be read")]
    Transaction(#[source] TransactionError),
    #[error("a transaction cannot be translated")]
    Translate(#[source] TranslateError),
    #[error("events cannot be written")]
    Write(#[source] WriteError),
    #[error("a task of the pipeline ended")]
    Task,
}

/// A change was made while there was no publication, and the server cannot read past it: PostgreSQL 14 to 17. From 18 on such changes are passed over without a word.
#[derive(Debug, thiserror::Error)]
#[error(
    "publication \"{publication}\" did not exist, or not yet, when the change at {lsn} was made, and the server cannot read past that. First see that it exists (portal-audit sql source). Then pass over what was changed without it: in the source, SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn()); and portal-audit run --accept-gap {source_name}, which records what is missing"
)]
pub struct NoPublication {
    source_name: String,
    publication: String,
    slot: String,
    lsn: Lsn,
    #[source]
    report: WireError,
}

impl Fault {
    /// Whether waiting cannot help, so that a human must. The server's code decides, never its text.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        match self {
            Self::Wire(error) => {
                is_definite_code(error.sqlstate())
                    || matches!(
                        error,
                        WireError::PasswordRefused { .. }
                            | WireError::NoPassword { .. }
                            | WireError::Protocol(_)
                            | WireError::Unsupported { .. }
                            | WireError::ConnInfo { .. }
                    )
            }
            Self::Source(error) | Self::Audit(error) => {
                is_definite_code(error.sqlstate()) || matches!(error, ConnectError::ConnInfo { .. })
            }
            Self::Catalog(CatalogError::Query { report }) => {
                is_definite_code(crate::connect::sqlstate_of(report))
            }
            Self::Snapshot(error) => {
                is_definite_code(error.sqlstate())
                    || matches!(error, SnapshotError::Mapping(_) | SnapshotError::Row { .. })
            }
            Self::Write(error) => {
                is_definite_code(error.sqlstate()) || matches!(error, WriteError::TooLarge)
            }
            Self::Catalog(_) | Self::Continuity(_) | Self::Translate(_) => true,
            Self::Transaction(error) => !matches!(error, TransactionError::Spool { .. }),
            Self::NoPublication(_) => true,
            Self::Task => false,
        }
    }

    /// What a broken stream says of a source.
    fn of_stream(error: WireError, source: &Source) -> Self {
        match error {
            WireError::Server { ref sqlstate, associated_lsn: Some(lsn), .. }
                if sqlstate == "42704" =>
            {
                Self::NoPublication(Box::new(NoPublication {
                    source_name: source.name.clone(),
                    publication: source.publication.clone(),
                    slot: source.slot.clone(),
                    lsn,
                    report: error,
                }))
            }
            error => Self::Wire(error),
        }
    }
}

/// SQLSTATE classes that no waiting mends (manual, appendix A): feature, data, constraint, authorization, database, syntax and access, object state. 55006 (slot in use) and 55P03 (lock not available) pass. So does 23505: an event is there already, and the first batch of the next session passes over it.
fn is_definite_code(code: Option<&str>) -> bool {
    let Some(code) = code.filter(|code| *code != "23505") else { return false };
    let class = code.get(..2).unwrap_or_default();
    matches!(class, "0A" | "22" | "23" | "28" | "3D" | "42") || code == "55000" || code == "42704"
}

/// What the write task is asked.
#[derive(Debug)]
enum Work {
    /// A batch; without an `end` the first pieces of a large transaction. The permit says, when dropped, that the write task is idle.
    Write { batch: Batch, end: Option<End>, idle: OwnedSemaphorePermit },
    /// Names, as of everything that was sent before.
    LookUp { keys: Vec<NameKey>, answer: oneshot::Sender<Vec<Option<String>>> },
    /// The transactions whose attempts wait for their end.
    WaitingAttempts { answer: oneshot::Sender<Vec<i64>> },
    /// How some of them ended.
    EndAttempts { ends: Ends },
    /// What the source's catalog says now; the answer is what has changed.
    Look { look: Box<Look>, answer: oneshot::Sender<Vec<Change>> },
}

/// A source that ended for good, and why.
#[derive(Debug)]
pub struct Ended {
    pub source: String,
    pub fault: Fault,
}

/// Follows every source until `stop` turns true. One source that ends never ends another.
///
/// Gives those that ended with a definite fault.
pub async fn run(settings: Settings, stop: watch::Receiver<bool>) -> Vec<Ended> {
    run_accepting(settings, &[], stop).await
}

/// The same, but changes that are gone of the sources in `accepted` are passed over and recorded, if they are gone now: at the first look at the source, and no second time.
pub async fn run_accepting(
    settings: Settings,
    accepted: &[String],
    stop: watch::Receiver<bool>,
) -> Vec<Ended> {
    let settings = Arc::new(settings);
    let mut sources = JoinSet::new();
    for source in &settings.sources {
        let (settings, source, stop) = (Arc::clone(&settings), source.clone(), stop.clone());
        let is_accepted = accepted.contains(&source.name);
        let accepted = if is_accepted { Acceptance::First } else { Acceptance::Nothing };
        sources.spawn(async move { follow(&settings, &source, accepted, stop).await });
    }
    let mut ended = Vec::new();
    while let Some(joined) = sources.join_next().await {
        match joined {
            Ok(None) => {}
            Ok(Some(fault)) => ended.push(fault),
            Err(error) => tracing::error!(%error, "a source's task ended"),
        }
    }
    ended
}

/// Follows one source, session after session.
async fn follow(
    settings: &Settings,
    source: &Source,
    mut accepted: Acceptance,
    mut stop: watch::Receiver<bool>,
) -> Option<Ended> {
    let name = source.name.as_str();
    let mut retry = RETRY_FIRST;
    loop {
        let started = Instant::now();
        let Err(fault) = Box::pin(session(settings, source, &mut accepted, stop.clone())).await
        else {
            tracing::info!(source = name, "stopped");
            return None;
        };
        let error = chain(&fault);
        if fault.is_definite() {
            tracing::error!(source = name, error, "source stopped: this needs a human");
            return Some(Ended { source: name.to_owned(), fault });
        }
        if started.elapsed() >= SESSION_GOOD {
            retry = RETRY_FIRST;
        }
        tracing::warn!(source = name, error, retry_ms = retry.as_millis(), "session ended");
        tokio::select! {
            () = sleep(retry) => {}
            _ = stop.wait_for(|stop| *stop) => return None,
        }
        retry = (retry * 2).min(Duration::from_secs(settings.limits.retry_max_seconds));
    }
}

/// One session: from connecting to the end of the stream. `Ok` only when asked to stop, with everything written confirmed.
async fn session(
    settings: &Settings,
    source: &Source,
    accepted: &mut Acceptance,
    stop: watch::Receiver<bool>,
) -> Result<(), Fault> {
    let started = start::start(settings, source, accepted).await?;
    let start::Started { frames, status, translator, writer, teller, system, looked } = started;
    accepted.spend();
    let end_lsn = writer.end_lsn();
    tracing::info!(source = source.name, slot = source.slot, end_lsn = %end_lsn, "streaming");
    // The read task holds at most one message to the write task: the permit is what it waits for.
    let (work, work_taken) = mpsc::channel(1);
    let (written, written_seen) = watch::channel(end_lsn);
    let replies = Arc::new(Notify::new());
    let stored = Arc::new(Notify::new());
    let mut tasks: JoinSet<Result<(), Fault>> = JoinSet::new();
    let resolver = attempts::Resolver::new(
        settings,
        source,
        &system,
        work.downgrade(),
        Arc::clone(&stored),
        written_seen.clone(),
    );
    tasks.spawn(resolver.run());
    let (covered, is_first_of) = (looked.covered.as_ref(), (looked.origin, looked.version_num));
    let watch = coverage::Watch::new(settings, source, is_first_of, covered, work.downgrade());
    let described = Arc::clone(&watch.described);
    let (clock, horizon) = horizon::Clock::new(settings, source, written_seen.clone(), watch);
    tasks.spawn(clock.run());
    let signals = read::Signals { replies: Arc::clone(&replies), described };
    let reader = read::Reader::new(settings, translator, horizon, work, signals, end_lsn);
    tasks.spawn(reader.run(frames, stop));
    let fingerprint = picture::fingerprint(&source.mapping, &source.publication);
    tasks.spawn(write(writer, teller, fingerprint, stored, work_taken, written));
    let confirm_interval = Duration::from_millis(settings.limits.confirm_interval_ms);
    tasks.spawn(confirm::confirm(status, written_seen, replies, confirm_interval));
    // The read task ends first, then the write task has written what it was given, then the last of it is confirmed. The first fault ends them all.
    while let Some(joined) = tasks.join_next().await {
        match joined {
            Ok(Err(Fault::Wire(error))) => return Err(Fault::of_stream(error, source)),
            Ok(result) => result?,
            Err(_panicked) => return Err(Fault::Task),
        }
    }
    Ok(())
}

/// The write task: one batch after the other, and after each commit the new position.
async fn write(
    mut writer: Writer,
    teller: Teller,
    fingerprint: String,
    stored: Arc<Notify>,
    mut work: mpsc::Receiver<Work>,
    written: watch::Sender<Lsn>,
) -> Result<(), Fault> {
    while let Some(work) = work.recv().await {
        match work {
            Work::Write { batch, end, idle } => {
                writer.write(&batch, end).await.map_err(Fault::Write)?;
                drop(idle);
                written.send_replace(writer.end_lsn());
                if !batch.attempts.is_empty() {
                    stored.notify_one();
                }
            }
            Work::LookUp { keys, answer } => {
                let names = writer.look_up(&keys).await.map_err(Fault::Write)?;
                // The read task may have been stopped meanwhile.
                drop(answer.send(names));
            }
            Work::WaitingAttempts { answer } => {
                let waiting = writer.waiting_attempts().await.map_err(Fault::Write)?;
                drop(answer.send(waiting));
            }
            Work::EndAttempts { ends } => {
                writer.end_attempts(&ends, &teller).await.map_err(Fault::Write)?;
            }
            Work::Look { look, answer } => {
                let changes = writer.look(&look, &fingerprint).await.map_err(Fault::Write)?;
                drop(answer.send(changes));
            }
        }
    }
    Ok(())
}

/// Completes when the process is asked to stop, by SIGTERM or Ctrl-C.
pub async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}
