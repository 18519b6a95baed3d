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
    wire::System,
};
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

/// How long the source has to answer; then its session is closed, and it is asked again.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// A session is used this long, because a smart shutdown of the source waits for each to end.
const SESSION_MAX: Duration = Duration::from_secs(15);
/// Its end is noticed within this time, however seldom the clock is asked.
const NOTICE_INTERVAL: Duration = Duration::from_millis(500);
/// A source that is being stopped has this long to send the rest of its log. Then its stream is closed: a stop waits until all that was committed is confirmed, and behind a backlog that may be hours.
const STOP_GRACE: Duration = Duration::from_secs(2);
/// SQLSTATE of a server that takes no sessions now, because it stops.
const CANNOT_CONNECT_NOW: &str = "57P03";
/// So many times in a row it may fail before that is told.
const FAILURES_TOLD: u64 = 3;

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
    /// Looks at the catalog in the same session.
    watch: Watch,
}

impl Clock {
    /// A clock, and what the read task makes of its answers.
    pub(super) fn new(
        settings: &Settings,
        source: &Source,
        system: &System,
        written: watch::Receiver<Lsn>,
        watch: Watch,
    ) -> (Self, Horizon) {
        let (answers, seen) = watch::channel(None);
        let interval = Duration::from_millis(settings.limits.complete_interval_ms);
        let (conninfo, source) = (source.conninfo.clone(), source.name.clone());
        let horizon = Horizon { answers: seen, next: None, passed: None };
        let (system_identifier, timeline) = (system.system_identifier, system.timeline);
        let clock = Self {
            source,
            conninfo,
            system_identifier,
            timeline,
            interval,
            answers,
            written,
            watch,
        };
        (clock, horizon)
    }

    pub(super) async fn run(mut self) -> Result<(), Fault> {
        let mut written = self.written.clone();
        let ended = async { while written.changed().await.is_ok() {} };
        tokio::select! {
            () = ended => Ok(()),
            () = Box::pin(self.ask_until_it_stops()) => Err(Fault::SourceStops),
        }
    }

    /// Returns when the source has been stopping for as long as it may wait for us.
    async fn ask_until_it_stops(&mut self) {
        let mut session: Option<(Session, Instant)> = None;
        let mut failures = 0_u64;
        let mut stops_since = None;
        let mut is_asked = false;
        loop {
            let asked = async {
                let answer = self.ask(&mut session).await?;
                self.answers.send_replace(Some(answer));
                self.watch.metrics.log_end(answer.1, *self.written.borrow());
                match &session {
                    Some((open, _)) => self.watch.look(open, answer, is_asked).await,
                    None => Ok(()),
                }
                .map_err(|error| Unanswered { is_stopping: false, error })
            };
            match timeout(ANSWER_MAX, asked).await {
                Ok(Ok(())) => (failures, stops_since) = (0, None),
                failed => {
                    session = None;
                    let unanswered = failed.ok().and_then(Result::err).unwrap_or_default();
                    if unanswered.is_stopping {
                        stops_since = stops_since.or(Some(Instant::now()));
                    }
                    failures += 1;
                    // Not at first, because the read task will say what is the matter with a source that is gone; and once.
                    if failures == FAILURES_TOLD {
                        let error = unanswered.error;
                        let source = &self.source;
                        tracing::warn!(source, error, "cannot ask for its clock and catalog");
                    }
                }
            }
            is_asked = match stops_since {
                Some(since) if since.elapsed() >= STOP_GRACE => return,
                Some(_) => {
                    sleep(self.interval.min(NOTICE_INTERVAL)).await;
                    false
                }
                None => tokio::select! {
                    () = self.pause(session.as_ref()) => false,
                    () = self.watch.described.notified() => true,
                },
            };
        }
    }

    /// Until the next question, or until the session has ended.
    async fn pause(&self, session: Option<&(Session, Instant)>) {
        let until = Instant::now() + self.interval;
        while Instant::now() < until {
            sleep_until(until.min(Instant::now() + NOTICE_INTERVAL)).await;
            if session.is_some_and(|(session, _)| session.client.is_closed()) {
                return;
            }
        }
    }

    async fn ask(
        &self,
        session: &mut Option<(Session, Instant)>,
    ) -> Result<(Timestamp, Lsn), Unanswered> {
        if session.as_ref().is_some_and(|(_, since)| since.elapsed() >= SESSION_MAX) {
            *session = None;
        }
        let (open, _) = match session {
            Some(open) => open,
            None => {
                let opened = connect::connect(&self.conninfo, &self.source).await;
                let opened = opened.map_err(|error| Unanswered {
                    is_stopping: error.sqlstate() == Some(CANNOT_CONNECT_NOW),
                    error: chain(&error),
                })?;
                // An old primary may still answer behind the same name: its log ends elsewhere.
                let is_server =
                    catalog::is_server(&opened, self.system_identifier, self.timeline).await;
                let unanswered = |error| Unanswered { is_stopping: false, error };
                if !is_server.map_err(|error| unanswered(chain(&error)))? {
                    let error = "another server answers than the one whose stream is read";
                    return Err(unanswered(error.to_owned()));
                }
                session.insert((opened, Instant::now()))
            }
        };
        let asked: Result<_, CatalogError> = catalog::clock_and_log_end(open).await;
        asked.map_err(|error| Unanswered { error: chain(&error), is_stopping: false })
    }
}

/// Why the source did not tell its clock.
#[derive(Debug)]
struct Unanswered {
    error: String,
    is_stopping: bool,
}

impl Default for Unanswered {
    fn default() -> Self {
        Self { error: "no answer".to_owned(), is_stopping: false }
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
