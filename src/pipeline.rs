//! One loop per source: the stages one after the other, and when to confirm.
//!
//! ```text
//!  read task                                             write task
//!   frames ─▶ Assembler ─▶ Translator ─▶ Batch ══work══▶ Writer ─▶ audit database
//!   keepalive ┐                                             │ end_lsn, after COMMIT
//!             └─▶ confirm task ◀════════written═════════════┘
//!                   └─▶ status update to the walsender
//!  clock task: the source's clock and the end of its log ─▶ what is complete
//!  keeper, beside all sessions: what the slot keeps on the source's disk ─▶ gives it up
//! ```
//!
//! # The confirm rule
//! The walsender is told only a position that the write task has committed as progress; so at every instant the slot's `confirmed_flush_lsn` ≤ progress. A keepalive's `wal_end` may be confirmed when the stream stands between transactions: the server has sent everything before it, and what commits later is sent whole, from wherever it began. It goes the same way, through the write task, because progress must not fall behind the slot.
//!
//! # Group commit
//! While the write task commits, the read task gathers the next batch: one transaction when the source is idle, thousands when we are behind. Then the events of the next batch are copied while the one before it is finished, in a second session.

mod attempts;
mod confirm;
mod coverage;
mod fault;
mod first;
mod horizon;
mod keeper;
mod lookup;
mod pace;
mod read;
mod reload;
mod retry;
mod start;
mod write;

pub use start::identify;

use crate::{
    chain::chain,
    config::{Settings, Source},
    continuity::Acceptance,
    metrics::{Metrics, SourceMetrics, State},
    translate::{
        Batch,
        names::NameKey,
        picture::{self, Change, Look},
    },
    write::{End, Ends},
};
pub use fault::{Fault, NoPublication};
use keeper::{Keeper, Standing};
pub use reload::try_settings;
use retry::Retry;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot, watch},
    task::JoinSet,
    time::sleep,
};

/// Asked to stop, we write and confirm what was read for at most this long; whoever asks kills after 10 s, as a rule.
const DRAIN_MAX: Duration = Duration::from_secs(8);

/// What the write task is asked.
#[derive(Debug)]
enum Work {
    /// A batch; without an `end` the first pieces of a large transaction. The permit says, when dropped, that the write task takes another.
    Write { batch: Arc<Batch>, end: Option<End>, idle: OwnedSemaphorePermit },
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
    run_accepting(settings, &[], &Arc::default(), stop).await
}

/// The same, and `metrics` is told of each source. Changes that are gone of the sources in `accepted` are passed over and recorded, if they are gone now: at the first look at the source, and no second time.
pub async fn run_accepting(
    settings: Settings,
    accepted: &[String],
    metrics: &Arc<Metrics>,
    stop: watch::Receiver<bool>,
) -> Vec<Ended> {
    let settings = Arc::new(settings);
    let (mut sources, mut names) = (JoinSet::new(), HashMap::new());
    for source in &settings.sources {
        let (settings, source, stop) = (Arc::clone(&settings), source.clone(), stop.clone());
        let is_accepted = accepted.contains(&source.name);
        let accepted = if is_accepted { Acceptance::First } else { Acceptance::Nothing };
        let name = source.name.clone();
        let told = metrics.source(&name);
        let task =
            sources.spawn(async move { follow(&settings, &source, accepted, told, stop).await });
        names.insert(task.id(), name);
    }
    let mut ended = Vec::new();
    let mut keepers = JoinSet::new();
    while let Some(joined) = sources.join_next_with_id().await {
        match joined {
            Ok((_, (None, _))) => {}
            Ok((_, (Some(end), mut keeper))) => {
                // Its slot stays and keeps the log, for as long as the other sources keep us here. Who is not let in does not try again and again: that locks accounts.
                if !end.fault.is_not_let_in() {
                    keepers.spawn(async move { keeper.run().await });
                }
                ended.push(end);
            }
            Err(error) => {
                let source = names.remove(&error.id()).unwrap_or_default();
                metrics.source(&source).state(State::Stopped);
                tracing::error!(source, error = %Fault::Panic, "source stopped: this needs a human");
                ended.push(Ended { source, fault: Fault::Panic });
            }
        }
    }
    ended
}

/// Follows one source, and looks after its slot meanwhile. Gives why it ended, and who looks after the slot.
async fn follow(
    settings: &Settings,
    source: &Source,
    accepted: Acceptance,
    metrics: SourceMetrics,
    stop: watch::Receiver<bool>,
) -> (Option<Ended>, Keeper) {
    let fingerprint = picture::fingerprint(&source.mapping, &source.publication);
    metrics.settings(settings.limits.wal_budget_bytes, &source.mapping_name, &fingerprint);
    let mut keeper = Keeper::new(settings, source, metrics.clone());
    let (standing, held) = (keeper.standing(), keeper.held());
    let sessions = sessions(settings, source, accepted, &metrics, stop, (standing, held));
    let sessions = Box::pin(sessions);
    let ended = tokio::select! {
        ended = sessions => ended,
        never = Box::pin(keeper.run()) => match never {},
    };
    if ended.as_ref().is_some_and(|ended| !ended.fault.is_not_let_in()) {
        // A program that is started and ends at once, again and again, looks too.
        Box::pin(keeper.look()).await;
    }
    (ended, keeper)
}

/// Session after session.
async fn sessions(
    settings: &Settings,
    source: &Source,
    mut accepted: Acceptance,
    metrics: &SourceMetrics,
    mut stop: watch::Receiver<bool>,
    (standing, mut held): (watch::Sender<Standing>, watch::Receiver<bool>),
) -> Option<Ended> {
    let name = source.name.as_str();
    let mut retry = Retry::new(Duration::from_secs(settings.limits.retry_max_seconds));
    // Told once, not every second or two for as long as the other sidecar lives.
    let mut stands_by = false;
    loop {
        let outcome = tokio::select! {
            outcome = Box::pin(session((settings, source), metrics, (&mut accepted, &mut retry), &standing, stop.clone())) => outcome,
            () = until(&mut held, true) => Err(Fault::OverBudget),
        };
        standing.send_modify(|standing| {
            (standing.is_in_session, standing.has_tried) = (false, true);
        });
        let Err(fault) = outcome else {
            tracing::info!(source = name, "stopped");
            return None;
        };
        let error = chain(&fault);
        let is_standby = fault.is_slot_in_use();
        if !is_standby {
            metrics.fault(fault.stage());
        }
        let Some(wait) = retry.after(&fault) else {
            metrics.state(State::Stopped);
            tracing::error!(source = name, error, "source stopped: this needs a human");
            return Some(Ended { source: name.to_owned(), fault });
        };
        metrics.state(State::Waiting);
        metrics.reconnect();
        if !std::mem::replace(&mut stands_by, is_standby) || !is_standby {
            tracing::warn!(source = name, error, retry_ms = wait.as_millis(), "session ended");
        }
        tokio::select! {
            () = async { sleep(wait).await; until(&mut held, false).await } => {}
            () = until(&mut stop, true) => return None,
        }
    }
}

/// Returns when a word has come, or nobody is left to give it.
async fn until(told: &mut watch::Receiver<bool>, word: bool) {
    drop(told.wait_for(|told| *told == word).await);
}

/// One session: from connecting to the end of the stream. `Ok` only when asked to stop, with everything written confirmed.
async fn session(
    (settings, source): (&Settings, &Source),
    metrics: &SourceMetrics,
    (accepted, retry): (&mut Acceptance, &mut Retry),
    standing: &watch::Sender<Standing>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Fault> {
    // What a start leaves half-made the next one finds, so it may be cut off anywhere.
    let started = tokio::select! {
        started = Box::pin(start::start(settings, source, accepted, standing, metrics)) => started?,
        () = until(&mut stop, true) => return Ok(()),
    };
    let start::Started { frames, status, translator, writer, teller, system, looked } = started;
    retry.streams();
    accepted.spend();
    let end_lsn = writer.end_lsn();
    metrics.gaps(writer.gaps().await.map_err(Fault::Write)?);
    metrics.state(State::Streaming);
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
    let watch =
        coverage::Watch::new((settings, source), metrics, is_first_of, covered, work.downgrade());
    let described = Arc::clone(&watch.described);
    let written_or_not = written_seen.clone();
    let (clock, horizon) = horizon::Clock::new(settings, source, &system, written_or_not, watch);
    tasks.spawn(clock.run());
    let signals = read::Signals { replies: Arc::clone(&replies), described };
    let reader = read::Reader::new((settings, source), translator, horizon, work, signals, end_lsn);
    tasks.spawn(reader.run(frames, stop.clone()));
    let fingerprint = picture::fingerprint(&source.mapping, &source.publication);
    let metrics = metrics.clone();
    let opener = write::Opener::new(settings, source);
    let task = write::Task { writer, opener, teller, fingerprint, metrics, stored, written };
    tasks.spawn(task.run(work_taken));
    let confirm_interval = Duration::from_millis(settings.limits.confirm_interval_ms);
    tasks.spawn(confirm::confirm(status, written_seen.clone(), replies, confirm_interval));
    let drained = async {
        until(&mut stop, true).await;
        sleep(DRAIN_MAX).await;
    };
    let ended = tokio::select! {
        ended = first_fault(tasks) => ended.map_err(|fault| fault.of_stream(source)),
        () = drained => {
            let source = source.name.as_str();
            tracing::warn!(source, "not all that was read could be written in time: it is read again at the next start");
            Ok(())
        }
    };
    if *written_seen.borrow() > end_lsn {
        retry.moved();
    }
    ended
}

/// Waits until the tasks of a session have ended; gives the first fault, which ends the others.
async fn first_fault(mut tasks: JoinSet<Result<(), Fault>>) -> Result<(), Fault> {
    let mut first = Ok(());
    while let Some(joined) = tasks.join_next().await {
        let ended = match joined {
            Err(error) if error.is_panic() => Err(Fault::Panic),
            Err(_aborted) => Ok(()),
            Ok(ended) => ended,
        };
        if ended.is_err() {
            tasks.abort_all();
        }
        // A task that lost its partner knows less than why the partner ended.
        if matches!((&first, &ended), (Ok(()), Err(_)) | (Err(Fault::Task), Err(_))) {
            first = ended;
        }
    }
    first
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

#[cfg(test)]
mod tests {
    use super::{Fault, first_fault};
    use tokio::{sync::oneshot, task::JoinSet};

    /// Whichever of its partners notices first: what it ends with is the panic, which no new session passes over.
    #[tokio::test]
    async fn a_panic_ends_its_source() {
        for _ in 0..20 {
            let mut tasks = JoinSet::new();
            let (alive, gone) = oneshot::channel::<()>();
            tasks.spawn(async move { gone.await.map_err(|_gone| Fault::Task) });
            tasks.spawn(async move {
                let _alive = alive;
                panic!("as the decoder would")
            });
            tasks.spawn(std::future::pending());
            let fault = first_fault(tasks).await.unwrap_err();
            assert!(matches!(fault, Fault::Panic) && fault.is_definite(), "{fault}");
        }
    }

    #[tokio::test]
    async fn tasks_that_end_well_are_no_fault() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async { Ok(()) });
        tasks.spawn(async { Ok(()) });
        assert!(first_fault(tasks).await.is_ok());
    }
}
