//! Looks at the source's catalog again and again: what is covered, and what has changed of it.
//!
//! The clock task lends its session. A look is three statements on the catalog's own rows; only if it finds something new is the mapping held against it. What it finds goes to the write task, which knows the last look and makes the events.

use super::Work;
use crate::{
    catalog::{self, Catalog, CatalogError},
    chain::chain,
    config::{Settings, Source},
    connect::Session,
    event::Origin,
    lsn::Lsn,
    metrics::SourceMetrics,
    timestamp::Timestamp,
    translate::{
        mapping::Mapping,
        picture::{Change, Covered, Hole, Look, Picture},
    },
};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{
        Notify, mpsc,
        oneshot::{self, error::TryRecvError},
    },
    time::Instant,
};

/// How often a catalog is read that changes while it is read.
const READS_MAX: u32 = 5;

/// What looks at one source.
#[derive(Debug)]
pub(super) struct Watch {
    source: String,
    pub(super) metrics: SourceMetrics,
    publication: String,
    mapping: Arc<Mapping>,
    origin: Origin,
    version_num: u32,
    interval: Duration,
    /// Weak: the write task ends when the read task has, and not later.
    work: mpsc::WeakSender<Work>,
    /// A table of the stream is not as it was: look at once.
    pub(super) described: Arc<Notify>,
    /// What tells a table that was dropped from one that was renamed.
    known: Option<Picture>,
    /// What the last look of this session found.
    last: Option<(Picture, Vec<Hole>)>,
    looked_at: Option<Instant>,
    /// A look that the write task has, and has not answered.
    handed: Option<Handed>,
}

/// What a look found, until it is written.
#[derive(Debug)]
struct Handed {
    picture: Picture,
    holes: Vec<Hole>,
    answered: oneshot::Receiver<Vec<Change>>,
}

impl Watch {
    pub(super) fn new(
        (settings, source): (&Settings, &Source),
        metrics: &SourceMetrics,
        (origin, version_num): (Origin, u32),
        covered: Option<&Covered>,
        work: mpsc::WeakSender<Work>,
    ) -> Self {
        Self {
            source: source.name.clone(),
            metrics: metrics.clone(),
            publication: source.publication.clone(),
            mapping: Arc::clone(&source.mapping),
            origin,
            version_num,
            interval: Duration::from_millis(settings.limits.coverage_interval_ms),
            work,
            described: Arc::new(Notify::new()),
            known: covered.map(|covered| covered.picture.clone()),
            last: None,
            looked_at: None,
            handed: None,
        }
    }

    /// Looks, if it is time to, and the last look is written. It never waits for the write task, which may have long work: the clock must go on.
    ///
    /// # Errors
    /// The source does not answer.
    pub(super) async fn look(
        &mut self,
        session: &Session,
        before: (Timestamp, Lsn),
        is_asked: bool,
    ) -> Result<(), String> {
        if is_asked {
            self.looked_at = None;
        }
        let is_due = self.looked_at.is_none_or(|looked_at| looked_at.elapsed() >= self.interval);
        if !self.is_written() || !is_due {
            return Ok(());
        }
        self.looked_at = Some(Instant::now());
        let look = self.take(session, before).await.map_err(|error| chain(&error))?;
        let (answer, answered) = oneshot::channel();
        let handed = Handed { picture: look.picture.clone(), holes: look.holes.clone(), answered };
        let work = Work::Look { look: Box::new(look), answer };
        match self.work.upgrade().map(|sender| sender.try_send(work)) {
            Some(Ok(())) => self.handed = Some(handed),
            // Other work stands before it: at the next turn. Or all end.
            Some(Err(_)) | None => self.looked_at = None,
        }
        Ok(())
    }

    /// Whether no look is on its way to the audit database. Tells what the last one found.
    fn is_written(&mut self) -> bool {
        let Some(mut handed) = self.handed.take() else { return true };
        match handed.answered.try_recv() {
            Ok(changes) => {
                for change in &changes {
                    self.warn(change);
                }
                self.metrics.not_covered(handed.holes.len());
                self.known = Some(handed.picture.clone());
                self.last = Some((handed.picture, handed.holes));
                true
            }
            Err(TryRecvError::Empty) => {
                self.handed = Some(handed);
                false
            }
            Err(TryRecvError::Closed) => true,
        }
    }

    async fn take(
        &self,
        session: &Session,
        (time, lsn): (Timestamp, Lsn),
    ) -> Result<Look, CatalogError> {
        let Self { publication, mapping, known, .. } = self;
        let read = async || {
            let known = known.as_ref();
            catalog::picture(session, self.version_num, publication, mapping, known).await
        };
        let mut picture = read().await?;
        let mut holes = match &self.last {
            Some((last, holes)) if *last == picture => Some(holes.clone()),
            _ => None,
        };
        let mut reads = 0;
        while holes.is_none() {
            let catalog = Catalog::load_any(session, publication, mapping).await?;
            let found = catalog::holes(&catalog, mapping, &picture);
            // Both must be about the same state: a release may have come between the two.
            let again = read().await?;
            reads += 1;
            holes = (again == picture || reads == READS_MAX).then_some(found);
            picture = again;
        }
        let holes = holes.unwrap_or_default();
        let (time_after, lsn_after) = catalog::clock_and_log_end(session).await?;
        Ok(Look {
            origin: self.origin,
            publication: publication.clone(),
            picture,
            holes,
            before: (lsn, time),
            after: (lsn_after, time_after),
        })
    }

    fn warn(&self, change: &Change) {
        let Change { object, is_schema, differences, missing, hole, filled } = change;
        let what: Vec<&str> =
            differences.iter().map(|difference| difference.what.as_str()).collect();
        let (source, kind, object, what) =
            (&self.source, object.kind(), object.name(), what.join(", "));
        let event = if *is_schema { "schema_changed" } else { "coverage_changed" };
        match (hole, filled) {
            (Some(Hole { reason, fix, rules, .. }), _) => {
                let rules = rules.join(", ");
                tracing::warn!(
                    source,
                    event,
                    kind,
                    object,
                    what,
                    reason,
                    fix,
                    rules,
                    "not covered"
                );
            }
            (None, Some(_)) => tracing::warn!(source, event, kind, object, what, "covered again"),
            (None, None) if !missing.is_empty() => {
                tracing::warn!(source, event, kind, object, what, "changes may be missing");
            }
            (None, None) => tracing::info!(source, event, kind, object, what, "changed"),
        }
    }
}
