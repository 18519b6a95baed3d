//! From where a source's stream begins: where progress stands, behind a loss that was accepted, at the switch point of a failover, or at the consistent point of a new slot and its snapshot.

use super::{
    Fault,
    start::{explained, translate_limits},
};
use crate::{
    budget,
    catalog::Catalog,
    config::{Settings, Source},
    connect::Session,
    continuity::{Crossing, Loss, Way},
    lsn::Lsn,
    snapshot::{Snapshot, SnapshotError},
    timestamp::Timestamp,
    translate::{
        Translator,
        diverged::Divergence,
        gap::{GapEnd, Place, Reason},
        kratos,
    },
    wire::{Connection, CreatedSlot},
    write::{self, Progress, Writer},
};
use std::time::Duration;

/// What a source's stream begins from.
pub(super) struct First<'a> {
    pub(super) settings: &'a Settings,
    pub(super) source: &'a Source,
    pub(super) session: Session,
    pub(super) catalog: &'a Catalog,
    pub(super) place: Place,
}

impl First<'_> {
    fn timeout(&self) -> Duration {
        self.settings.limits.audit_timeout()
    }

    /// Progress of a source whose slot is not made yet.
    fn creating(&self) -> Progress {
        Progress {
            creating: true,
            slot: self.source.slot.clone(),
            system_identifier: self.place.origin.system_identifier,
            timeline: self.place.timeline,
            database_oid: self.place.origin.database_oid,
            end_lsn: Lsn::ZERO,
        }
    }

    /// Carries progress over to the timeline of now; where the source went back, that is told. Gives progress as it is then.
    pub(super) async fn cross(
        &self,
        audit: Session,
        progress: Option<Progress>,
        crossing: Option<Crossing>,
    ) -> Result<(Session, Option<Progress>), Fault> {
        let (Some(progress), Some(crossing)) = (&progress, crossing) else {
            return Ok((audit, progress));
        };
        let Crossing { then, now, left_at, end_lsn } = crossing;
        let (name, resumes_at) = (&self.source.name, crossing.resumes_at());
        let audit = if crossing.is_divergence() {
            tracing::warn!(source = name, then, now, %end_lsn, %left_at, "a failover to a server that was behind: going back to where the timelines part");
            let place = Place { timeline: then, ..self.place };
            let writer = self.diverge(audit, place, (end_lsn, left_at), Reason::Diverged).await?;
            writer.into_session()
        } else {
            tracing::info!(source = name, then, now, %end_lsn, %left_at, "a failover: the log goes on, on another timeline");
            let stored = write::store_timeline(&audit, name, progress, now, self.timeout());
            stored.await.map_err(Fault::Write)?;
            audit
        };
        Ok((audit, Some(Progress { timeline: now, end_lsn: resumes_at, ..progress.clone() })))
    }

    /// Goes back with the source, from where progress stands to where its log parts from what was read.
    async fn diverge(
        &self,
        audit: Session,
        then: Place,
        (end_lsn, left_at): (Lsn, Lsn),
        reason: Reason,
    ) -> Result<Writer, Fault> {
        let Self { source, session, place, .. } = self;
        let time = source_time(session).await?;
        let slot = source.slot.clone();
        let divergence = Divergence { reason, slot, then, now: *place, left_at, end_lsn, time };
        let writer =
            Writer::new(audit, &source.name, &source.mapping, end_lsn, self.timeout()).await;
        let mut writer = writer.map_err(Fault::Write)?;
        writer.diverge(&divergence).await.map_err(Fault::Write)?;
        Ok(writer)
    }

    /// Goes on where progress stands.
    pub(super) async fn resume(
        &self,
        audit: Session,
        from: Lsn,
        is_released: bool,
        translator: &mut Translator,
    ) -> Result<Writer, Fault> {
        let Self { source, .. } = self;
        if is_released {
            // It was about to be given up, and was not.
            let forgotten = budget::forget(&self.session, &source.slot).await;
            forgotten.map_err(Fault::Budget)?;
        }
        let writer = Writer::new(audit, &source.name, &source.mapping, from, self.timeout()).await;
        let writer = writer.map_err(Fault::Write)?;
        self.restore_pending(&writer, translator).await?;
        Ok(writer)
    }

    /// What waits for a row that may yet come.
    async fn restore_pending(
        &self,
        writer: &Writer,
        translator: &mut Translator,
    ) -> Result<(), Fault> {
        if self.source.mapping.kratos.is_some() {
            let pending = writer.kept(kratos::PENDING).await.map_err(Fault::Write)?;
            translator.restore_pending(&pending);
        }
        Ok(())
    }

    /// Goes on after a loss that was accepted.
    pub(super) async fn go_on(
        self,
        audit: Session,
        replication: &mut Connection,
        Loss { reason, way }: Loss,
        progress: Option<&Progress>,
        translator: &mut Translator,
    ) -> Result<(Writer, Lsn), Fault> {
        // Without progress nothing is written, and nothing lost.
        let creating = self.creating();
        let lost = progress.unwrap_or(&creating);
        let (name, from) = (&self.source.name, lost.end_lsn);
        tracing::warn!(source = name, reason = reason.name(), %from, "going on after a loss that was accepted");
        match way {
            Way::Anew { drop_first } => {
                let begun =
                    write::begin_anew(&audit, name, reason, (lost, &creating), self.timeout());
                begun.await.map_err(Fault::Write)?;
                // Much the largest of the three ways.
                Box::pin(self.create(audit, replication, drop_first, translator)).await
            }
            Way::Skip { to } => Ok((self.skip(audit, reason, (from, to)).await?, to)),
            Way::Back { to } => {
                let writer = self.diverge(audit, self.place, (from, to), reason).await?;
                self.restore_pending(&writer, translator).await?;
                Ok((writer, to))
            }
        }
    }

    /// Passes over what lies between progress and the slot.
    async fn skip(
        &self,
        audit: Session,
        reason: Reason,
        (from, to): (Lsn, Lsn),
    ) -> Result<Writer, Fault> {
        let Self { source, ref session, place, .. } = *self;
        let time = source_time(session).await?;
        let end = GapEnd { now: place, lsn: to, time };
        let writer = Writer::new(audit, &source.name, &source.mapping, from, self.timeout()).await;
        let mut writer = writer.map_err(Fault::Write)?;
        let stale = source.mapping.states();
        let stale: Vec<&str> = stale.iter().map(String::as_str).collect();
        writer.skip(reason, &end, &stale).await.map_err(Fault::Write)?;
        Ok(writer)
    }

    /// Creates the slot and takes its snapshot. Until that is written the source is `creating`: whoever finds it so may begin again.
    pub(super) async fn create(
        self,
        audit: Session,
        replication: &mut Connection,
        drop_first: bool,
        translator: &mut Translator,
    ) -> Result<(Writer, Lsn), Fault> {
        let (creating, timeout) = (self.creating(), self.timeout());
        let Self { settings, source, ref session, catalog, place } = self;
        let stored = write::store_progress(&audit, &source.name, &creating, timeout).await;
        stored.map_err(Fault::Write)?;
        let gap = write::open_gap(&audit, &source.name, timeout).await.map_err(Fault::Write)?;
        budget::forget(session, &source.slot).await.map_err(Fault::Budget)?;
        if drop_first {
            replication.drop_slot(&source.slot).await.map_err(Fault::Wire)?;
        }
        let time = source_time(session).await?;
        let wait = Duration::from_secs(settings.limits.slot_timeout_seconds).as_millis();
        let wait = u32::try_from(wait).unwrap_or(u32::MAX);
        let failover = catalog.version_num >= 170_000;
        let created =
            replication.create_slot(&source.slot, catalog.version_num, failover, wait).await;
        let CreatedSlot { consistent_point, snapshot } = match created {
            Ok(created) => created,
            Err(error) => return Err(explained(source, error).await),
        };
        tracing::info!(
            source = source.name,
            slot = source.slot,
            consistent_point = %consistent_point,
            "created the slot"
        );
        let writer = Writer::new(audit, &source.name, &source.mapping, Lsn::ZERO, timeout).await;
        let mut writer = writer.map_err(Fault::Write)?;
        // What the new slot gives was committed after its making: the gap's end is not earlier.
        let lsn = consistent_point;
        let end = GapEnd { now: place, lsn, time: source_time(session).await? };
        let snapshot = Snapshot {
            session,
            catalog,
            mapping: &source.mapping,
            name: &snapshot,
            consistent_point,
            time,
            backfill: source.backfill,
            gap: gap.map(|gap| (gap, end)),
            limits: translate_limits(&settings.limits),
        };
        let events = snapshot.take(translator, &mut writer).await.map_err(Fault::Snapshot)?;
        tracing::info!(source = source.name, events, "wrote the snapshot");
        Ok((writer, consistent_point))
    }
}

/// The source's clock.
async fn source_time(session: &Session) -> Result<Timestamp, Fault> {
    let row = session.client.query_one("SELECT clock_timestamp()", &[]).await;
    let row = row.map_err(|report| {
        Fault::Snapshot(SnapshotError::Source { action: "ask the time".to_owned(), report })
    })?;
    Ok(Timestamp::from(row.get::<_, chrono::DateTime<chrono::Utc>>(0)))
}
