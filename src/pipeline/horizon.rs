//! Up to which time the log has certainly been read.
//!
//! # Why
//! A keepalive does not tell: a server that works through a backlog answers with its clock of now and a position of long ago. So the source is asked now and then for its clock and the end of its log together; as soon as the stream has passed that end, everything that was committed before that time has been read.

use super::Fault;
use crate::{
    catalog::{self, CatalogError},
    chain::chain,
    config::{Settings, Source},
    connect::{self, Session},
    conninfo::ConnInfo,
    lsn::Lsn,
    timestamp::Timestamp,
    wire::System,
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
    /// The server whose stream is read.
    system_identifier: u64,
    timeline: u32,
    interval: Duration,
    answers: watch::Sender<Answer>,
    written: watch::Receiver<Lsn>,
}

impl Clock {
    /// A clock, and what the read task makes of its answers.
    pub(super) fn new(
        settings: &Settings,
        source: &Source,
        system: &System,
        written: watch::Receiver<Lsn>,
    ) -> (Self, Horizon) {
        let (answers, seen) = watch::channel(None);
        let interval = Duration::from_millis(settings.limits.complete_interval_ms);
        let (conninfo, source) = (source.conninfo.clone(), source.name.clone());
        let horizon = Horizon { answers: seen, next: None, passed: None };
        let (system_identifier, timeline) = (system.system_identifier, system.timeline);
        let clock =
            Self { source, conninfo, system_identifier, timeline, interval, answers, written };
        (clock, horizon)
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
        loop {
            match timeout(ANSWER_MAX, self.ask(&mut session)).await {
                Ok(Ok(answer)) => {
                    was_answered = true;
                    self.answers.send_replace(Some(answer));
                }
                failed => {
                    session = None;
                    // Once: the read task will say what is the matter with a source that is gone.
                    if std::mem::take(&mut was_answered) {
                        let error = failed.map_or("no answer".to_owned(), |failed| {
                            failed.err().unwrap_or_default()
                        });
                        tracing::warn!(source = self.source, error, "cannot ask for its clock");
                    }
                }
            }
            sleep(self.interval).await;
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
                let opened = opened.map_err(|error| chain(&error))?;
                // An old primary may still answer behind the same name: its log ends elsewhere.
                let is_server =
                    catalog::is_server(&opened, self.system_identifier, self.timeline).await;
                if !is_server.map_err(|error| chain(&error))? {
                    return Err(
                        "another server answers than the one whose stream is read".to_owned()
                    );
                }
                session.insert((opened, Instant::now()))
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
