//! The attempts task: asks the source how the transactions ended whose attempts wait.
//!
//! It has a plain session of its own, and only while there is something to ask, so that it never keeps a source from being shut down. It neither reads the stream nor writes: what it learns goes to the write task. A source that does not answer it delays nothing but these events.
//!
//! # When an answer counts
//! The source may say that a transaction was rolled back while its last messages are still on their way to us. So the end of the source's log is asked for after the answer, and the answer counts when everything before that is written.

use super::{Fault, Work};
use crate::{
    catalog::{self, CatalogError, Outcome},
    chain::chain,
    config::{Settings, Source},
    connect::{self, Session},
    conninfo::ConnInfo,
    lsn::Lsn,
    wire::System,
    write::Ends,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{sleep, timeout},
};

/// How long the source has to answer; then its session is closed, and it is asked again.
const ANSWER_MAX: Duration = Duration::from_secs(10);

const SILENT: &str = "the source does not answer";

/// Asks until the write task has ended.
#[derive(Debug)]
pub(super) struct Resolver {
    pub(super) source: String,
    pub(super) conninfo: ConnInfo,
    /// The server whose stream is read.
    pub(super) system_identifier: u64,
    pub(super) timeline: u32,
    pub(super) interval: Duration,
    /// Weak: the write task ends when the read task has, and not later.
    pub(super) work: mpsc::WeakSender<Work>,
    /// Told when attempts were stored.
    pub(super) stored: Arc<Notify>,
    pub(super) written: watch::Receiver<Lsn>,
}

impl Resolver {
    pub(super) fn new(
        settings: &Settings,
        source: &Source,
        system: &System,
        work: mpsc::WeakSender<Work>,
        stored: Arc<Notify>,
        written: watch::Receiver<Lsn>,
    ) -> Self {
        Self {
            source: source.name.clone(),
            conninfo: source.conninfo.clone(),
            system_identifier: system.system_identifier,
            timeline: system.timeline,
            interval: Duration::from_millis(settings.limits.attempt_interval_ms),
            work,
            stored,
            written,
        }
    }

    pub(super) async fn run(mut self) -> Result<(), Fault> {
        let mut written = self.written.clone();
        let ended = async { while written.changed().await.is_ok() {} };
        tokio::select! {
            () = ended => {}
            () = Box::pin(self.ask_again_and_again()) => {}
        }
        Ok(())
    }

    /// Returns when there is nobody left to tell.
    async fn ask_again_and_again(&mut self) {
        let mut session = None;
        while let Some(waiting) = self.waiting().await {
            if waiting.is_empty() {
                session = None;
                self.stored.notified().await;
                continue;
            }
            match self.ask(&mut session, &waiting).await {
                Ok(ends) if ends.is_empty() => {}
                Ok(ends) => self.tell(ends).await,
                Err(error) => {
                    tracing::warn!(
                        source = self.source,
                        error,
                        waiting = waiting.len(),
                        "cannot ask how transactions ended"
                    );
                    session = None;
                }
            }
            sleep(self.interval).await;
        }
    }

    async fn waiting(&self) -> Option<Vec<i64>> {
        let (answer, answered) = oneshot::channel();
        self.work.upgrade()?.send(Work::WaitingAttempts { answer }).await.ok()?;
        answered.await.ok()
    }

    async fn tell(&self, ends: Ends) {
        if let Some(work) = self.work.upgrade() {
            // The write task may have ended meanwhile; then they wait for the next session.
            drop(work.send(Work::EndAttempts { ends }).await);
        }
    }

    async fn open(&self) -> Result<Session, String> {
        let opened = connect::connect(&self.conninfo, &self.source).await;
        let opened = opened.map_err(|error| chain(&error))?;
        let is_server = catalog::is_server(&opened, self.system_identifier, self.timeline).await;
        if is_server.map_err(|error| chain(&error))? {
            Ok(opened)
        } else {
            Err("another server answers than the one whose stream is read".to_owned())
        }
    }

    /// Which of the transactions have ended, once everything that they logged is written.
    async fn ask(
        &mut self,
        session: &mut Option<Session>,
        waiting: &[i64],
    ) -> Result<Ends, String> {
        let open = match session {
            Some(open) => open,
            None => {
                let opened = timeout(ANSWER_MAX, self.open()).await;
                session.insert(opened.map_err(|_elapsed| SILENT.to_owned())??)
            }
        };
        let asked = timeout(ANSWER_MAX, ends(open, waiting)).await;
        let asked = asked.map_err(|_elapsed| SILENT.to_owned())?;
        let (ends, log_end) = asked.map_err(|error| chain(&error))?;
        if !ends.is_empty() {
            // The stream may be hours behind: meanwhile the source need not keep a session for us.
            if *self.written.borrow() < log_end {
                *session = None;
            }
            let written = self.written.wait_for(|written| *written >= log_end).await;
            drop(written.map_err(|_closed| "the write task has ended".to_owned())?);
        }
        Ok(ends)
    }
}

/// Asks what became of transactions, and then where the log ends.
async fn ends(session: &Session, waiting: &[i64]) -> Result<(Ends, Lsn), CatalogError> {
    let mut ends = Ends::default();
    for (xid, outcome) in catalog::outcomes(session, waiting).await? {
        match outcome {
            Outcome::InProgress => {}
            Outcome::Committed => ends.committed.push(xid),
            Outcome::RolledBack => ends.rolled_back.push(xid),
            Outcome::Unknown => ends.unknown.push(xid),
        }
    }
    Ok((ends, catalog::log_end(session).await?))
}
