//! Up to which time the log has certainly been read.
//!
//! # Why
//! A keepalive does not tell: a server that works through a backlog answers with its clock of now and a position of long ago. So the source is asked now and then for its clock and the end of its log together; as soon as the stream has passed that end, everything that was committed before that time has been read.

use super::{Fault, coverage::Watch};
use crate::{
    catalog::{self, CatalogError},
    chain::chain,
    config::{Settings, Source},
    connect::{self, Session},
    conninfo::ConnInfo,
    lsn::Lsn,
    timestamp::Timestamp,
};
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// How long the source has to answer; then its session is closed, and it is asked again.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// A session is used this long, because a smart shutdown of the source waits for each to end.
const SESSION_MAX: Duration = Duration::from_secs(60);

/// The source's clock, and where its log ended then.
type Answer = Option<(Timestamp, Lsn)>;

/// The clock task: asks the source, until the write task has ended.
#[derive(Debug)]
pub(super) struct Clock {
    source: String,
    conninfo: ConnInfo,
    interval: Duration,
    answers: watch::Sender<Answer>,
    written: watch::Receiver<Lsn>,
    /// Looks at the catalog in the same session.
    watch: Watch,
}

impl Clock {
    /// A clock, and what the read task makes of its answers.
    pub(super) fn new(
        settings: &Settings,
        source: &Source,
        written: watch::Receiver<Lsn>,
        watch: Watch,
    ) -> (Self, Horizon) {
        let (answers, seen) = watch::channel(None);
        let interval = Duration::from_millis(settings.limits.complete_interval_ms);
        let (conninfo, source) = (source.conninfo.clone(), source.name.clone());
        let horizon = Horizon { answers: seen, next: None, passed: None };
        (Self { source, conninfo, interval, answers, written, watch }, horizon)
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

    async fn ask_again_and_again(&mut self) {
        let mut session: Option<(Session, Instant)> = None;
        let mut was_answered = true;
        let mut is_asked = false;
        loop {
            let asked = async {
                let answer = self.ask(&mut session).await?;
                self.answers.send_replace(Some(answer));
                match &session {
                    Some((open, _)) => self.watch.look(open, answer, is_asked).await,
                    None => Ok(()),
                }
            };
            match timeout(ANSWER_MAX, asked).await {
                Ok(Ok(())) => was_answered = true,
                failed => {
                    session = None;
                    // Once: the read task will say what is the matter with a source that is gone.
                    if std::mem::take(&mut was_answered) {
                        let error = failed.map_or("no answer".to_owned(), |failed| {
                            failed.err().unwrap_or_default()
                        });
                        tracing::warn!(
                            source = self.source,
                            error,
                            "cannot ask for its clock and catalog"
                        );
                    }
                }
            }
            is_asked = tokio::select! {
                () = sleep(self.interval) => false,
                () = self.watch.described.notified() => true,
            };
        }
    }

    async fn ask(
        &self,
        session: &mut Option<(Session, Instant)>,
    ) -> Result<(Timestamp, Lsn), String> {
        if session.as_ref().is_some_and(|(_, since)| since.elapsed() >= SESSION_MAX) {
            *session = None;
        }
        let (open, _) = match session {
            Some(open) => open,
            None => {
                let opened = connect::connect(&self.conninfo, &self.source).await;
                session.insert((opened.map_err(|error| chain(&error))?, Instant::now()))
            }
        };
        let asked: Result<_, CatalogError> = catalog::clock_and_log_end(open).await;
        asked.map_err(|error| chain(&error))
    }
}

/// What the answers and the stream together tell.
#[derive(Debug)]
pub(super) struct Horizon {
    answers: watch::Receiver<Answer>,
    /// The answer that the stream has yet to pass. A newer one waits, or a busy stream would never pass any.
    next: Answer,
    passed: Option<Timestamp>,
}

impl Horizon {
    /// The stream has come to `position`, between transactions: everything before it was read.
    pub(super) fn pass(&mut self, position: Lsn) {
        if self.next.is_none() && self.answers.has_changed().unwrap_or(false) {
            self.next = *self.answers.borrow_and_update();
        }
        if let Some((time, _)) = self.next.filter(|(_, end)| position >= *end) {
            self.next = None;
            self.passed = Some(time);
        }
    }

    /// Everything that was committed before this time was read.
    pub(super) fn passed(&self) -> Option<Timestamp> {
        self.passed
    }
}
