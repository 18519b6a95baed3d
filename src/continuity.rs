//! Whether what the source still has joins what we have written: decided before anything is requested, at every start and reconnect.
//!
//! # Why
//! A walsender that is asked to start before its slot's position starts at that position and says nothing: the changes in between are missing without an error. So the comparison is ours to make, and every doubt is a refusal that names the objects.

mod accept;
mod history;

pub use accept::{Acceptance, Loss, Refusal, Way};
pub use history::{History, HistoryError};

use crate::{catalog::Slot, lsn::Lsn, write::Progress};

/// The source as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    pub system_identifier: u64,
    pub timeline: u32,
    /// From which timelines that one came.
    pub history: History,
    /// Where its log ends on disk.
    pub log_end: Lsn,
    pub database: String,
    pub database_oid: u32,
}

/// What was found, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// A failover happened: progress is carried over to the timeline of now before anything else.
    pub crossing: Option<Crossing>,
    pub plan: Result<Plan, ContinuityError>,
}

/// A timeline that was followed and left, by a failover or by recovery to a point in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crossing {
    /// The timeline that was followed.
    pub then: u32,
    /// The one of now.
    pub now: u32,
    /// Where the one of then was left: what it wrote behind this is not in the log of now.
    pub left_at: Lsn,
    /// Progress on the timeline of then.
    pub end_lsn: Lsn,
}

impl Crossing {
    /// Whether we had read on where the log of now has other things: the standby was behind us.
    #[must_use]
    pub fn is_divergence(&self) -> bool {
        self.end_lsn > self.left_at
    }

    /// Progress on the timeline of now.
    #[must_use]
    pub fn resumes_at(&self) -> Lsn {
        self.end_lsn.min(self.left_at)
    }
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// First start. A slot of ours that a start left behind half-made is dropped first: nothing was ever confirmed on it.
    Create { drop_first: bool },
    /// Go on from here.
    Resume { from: Lsn },
}

/// Why the source must not be followed: changes are gone, or it is not the one that we know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContinuityError {
    #[error(
        "slot \"{slot}\" exists, but the audit database knows nothing of this source: it is not ours, or the audit database was replaced. If nobody needs it: SELECT pg_drop_replication_slot('{slot}')"
    )]
    SlotWithoutProgress { slot: String },
    #[error("slot \"{slot}\" is gone, and with it the changes since {end_lsn}.")]
    SlotLost { slot: String, end_lsn: Lsn },
    #[error(
        "slot \"{slot}\" is ahead of the audit database by {bytes} bytes ({end_lsn} to {confirmed}): those changes are gone. The audit database was restored from a backup, or the slot was moved by hand."
    )]
    SlotAhead { slot: String, end_lsn: Lsn, confirmed: Lsn, bytes: u64 },
    #[error(
        "slot \"{slot}\" can no longer be read ({reason}): the changes since {end_lsn} are gone."
    )]
    SlotInvalid { slot: String, reason: String, end_lsn: Lsn },
    #[error("slot \"{slot}\" {is}. Choose another slot name in the settings.")]
    SlotUnfit { slot: String, is: String },
    #[error(
        "the source is another cluster (system identifier {now}) than the one that was followed ({then})."
    )]
    OtherSystem { then: u64, now: u64 },
    #[error("the source is another database (oid {now}) than the one that was followed ({then}).")]
    OtherDatabase { then: u32, now: u32 },
    #[error(
        "the source is on timeline {now}, and {then} was followed, which is not in its history: it is another branch of that cluster, such as an old primary after a failover. Point the settings to the server that is current."
    )]
    OtherTimeline { then: u32, now: u32 },
    #[error(
        "the log of the source ends at {log_end}, before what is written ({end_lsn}): it was put back to an older copy of itself, or it is one."
    )]
    LogBehind { end_lsn: Lsn, log_end: Lsn },
    #[error(transparent)]
    History(#[from] HistoryError),
    #[error(
        "the source is a standby: it is followed once it is promoted. Point the settings to the primary."
    )]
    Standby,
    #[error(
        "two connections with the same settings lead to two servers: behind that address stands more than one."
    )]
    TwoServers,
    #[error("progress belongs to slot \"{then}\", and the settings name \"{now}\"")]
    OtherSlot { then: String, now: String },
}

impl ContinuityError {
    /// Whether waiting may mend it: in the midst of a failover a standby or two servers answer for a while.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Standby | Self::TwoServers)
    }
}

/// Compares what we have written with what the source has. Every finding that could hide a loss is an error in the plan.
#[must_use]
pub fn decide(
    slot_name: &str,
    progress: Option<&Progress>,
    slot: Option<&Slot>,
    here: &Here,
) -> Decision {
    let Some(progress) = progress else {
        let slot =
            slot.map(|_| ContinuityError::SlotWithoutProgress { slot: slot_name.to_owned() });
        let plan = slot.map_or(Ok(Plan::Create { drop_first: false }), Err);
        return Decision { crossing: None, plan };
    };
    let refused = |finding| Decision { crossing: None, plan: Err(finding) };
    if let Err(finding) = same_database(slot_name, progress, slot, here) {
        return refused(finding);
    }
    if progress.creating {
        let plan = Ok(Plan::Create { drop_first: slot.is_some() });
        return Decision { crossing: None, plan };
    }
    let crossing = match cross(progress, here) {
        Ok(crossing) => crossing,
        Err(finding) => return refused(finding),
    };
    let end_lsn = crossing.map_or(progress.end_lsn, |crossing| crossing.resumes_at());
    Decision { crossing, plan: resume(slot_name, end_lsn, slot) }
}

/// Whether source and slot are those of progress.
fn same_database(
    slot_name: &str,
    progress: &Progress,
    slot: Option<&Slot>,
    here: &Here,
) -> Result<(), ContinuityError> {
    if progress.slot != slot_name {
        let (then, now) = (progress.slot.clone(), slot_name.to_owned());
        return Err(ContinuityError::OtherSlot { then, now });
    }
    if progress.system_identifier != here.system_identifier {
        let (then, now) = (progress.system_identifier, here.system_identifier);
        return Err(ContinuityError::OtherSystem { then, now });
    }
    if progress.database_oid != here.database_oid {
        let (then, now) = (progress.database_oid, here.database_oid);
        return Err(ContinuityError::OtherDatabase { then, now });
    }
    slot.map_or(Ok(()), |slot| fit(slot_name, slot, &here.database))
}

/// How progress is carried over to the source's timeline; `None` if it is on that.
fn cross(progress: &Progress, here: &Here) -> Result<Option<Crossing>, ContinuityError> {
    let (then, now, end_lsn) = (progress.timeline, here.timeline, progress.end_lsn);
    if then == now {
        // A server that is asked for what is yet to come waits for it, and says nothing.
        let log_end = here.log_end;
        let is_behind = end_lsn > log_end;
        return if is_behind {
            Err(ContinuityError::LogBehind { end_lsn, log_end })
        } else {
            Ok(None)
        };
    }
    match here.history.left_at(then) {
        Some(left_at) => Ok(Some(Crossing { then, now, left_at, end_lsn })),
        None => Err(ContinuityError::OtherTimeline { then, now }),
    }
}

/// Whether the slot still has everything from a position on.
fn resume(slot_name: &str, end_lsn: Lsn, slot: Option<&Slot>) -> Result<Plan, ContinuityError> {
    let name = || slot_name.to_owned();
    let Some(slot) = slot else {
        return Err(ContinuityError::SlotLost { slot: name(), end_lsn });
    };
    if let Some(reason) = invalid(slot) {
        return Err(ContinuityError::SlotInvalid { slot: name(), reason, end_lsn });
    }
    match slot.confirmed_flush_lsn {
        Some(confirmed) if confirmed > end_lsn => {
            let bytes = confirmed.bytes_since(end_lsn);
            Err(ContinuityError::SlotAhead { slot: name(), end_lsn, confirmed, bytes })
        }
        _ => Ok(Plan::Resume { from: end_lsn }),
    }
}

/// Why a slot can no longer be read, if it cannot.
#[must_use]
pub fn invalid(slot: &Slot) -> Option<String> {
    let lost = || slot.wal_status.clone().filter(|status| status == "lost");
    slot.invalidation_reason.clone().or_else(lost)
}

/// Whether the slot is one that we could have made for a database.
///
/// # Errors
/// [`ContinuityError::SlotUnfit`].
pub fn fit(slot_name: &str, slot: &Slot, database: &str) -> Result<(), ContinuityError> {
    let is = match (&slot.plugin, &slot.database) {
        (None, _) => "is a physical one".to_owned(),
        (Some(plugin), _) if plugin != "pgoutput" => format!("uses the plugin {plugin:?}"),
        (_, Some(its)) if its != database => {
            format!("belongs to database {its:?}")
        }
        _ if slot.temporary => "is temporary".to_owned(),
        _ if slot.two_phase => "was made with two_phase".to_owned(),
        _ => return Ok(()),
    };
    Err(ContinuityError::SlotUnfit { slot: slot_name.to_owned(), is })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Here {
        Here {
            system_identifier: 7,
            timeline: 1,
            history: History::default(),
            log_end: Lsn(1_000),
            database: "portal".into(),
            database_oid: 5,
        }
    }

    fn progress() -> Progress {
        Progress {
            creating: false,
            slot: "s".into(),
            system_identifier: 7,
            timeline: 1,
            database_oid: 5,
            end_lsn: Lsn(100),
        }
    }

    fn slot() -> Slot {
        Slot {
            plugin: Some("pgoutput".into()),
            database: Some("portal".into()),
            temporary: false,
            two_phase: false,
            active_pid: None,
            confirmed_flush_lsn: Some(Lsn(90)),
            restart_lsn: Some(Lsn(80)),
            wal_status: Some("reserved".into()),
            invalidation_reason: None,
        }
    }

    /// The table of findings, row by row.
    #[test]
    fn only_what_joins_is_resumed() {
        let decide = |progress: Option<Progress>, slot: Option<Slot>| {
            decide("s", progress.as_ref(), slot.as_ref(), &here()).plan
        };
        let creating = || Progress { creating: true, end_lsn: Lsn::ZERO, ..progress() };
        assert_eq!(decide(None, None), Ok(Plan::Create { drop_first: false }));
        assert_eq!(decide(Some(creating()), None), Ok(Plan::Create { drop_first: false }));
        assert_eq!(decide(Some(creating()), Some(slot())), Ok(Plan::Create { drop_first: true }));
        let resume = Ok(Plan::Resume { from: Lsn(100) });
        assert_eq!(decide(Some(progress()), Some(slot())), resume);
        let equal = Slot { confirmed_flush_lsn: Some(Lsn(100)), ..slot() };
        assert_eq!(decide(Some(progress()), Some(equal)), resume);

        let error = |progress, slot| decide(progress, slot).unwrap_err();
        let lost = ContinuityError::SlotLost { slot: "s".into(), end_lsn: Lsn(100) };
        assert_eq!(error(Some(progress()), None), lost);
        assert!(matches!(error(None, Some(slot())), ContinuityError::SlotWithoutProgress { .. }));
        let ahead = Slot { confirmed_flush_lsn: Some(Lsn(101)), ..slot() };
        let ahead = error(Some(progress()), Some(ahead));
        assert!(matches!(ahead, ContinuityError::SlotAhead { bytes: 1, .. }));
        let gone = Slot { wal_status: Some("lost".into()), ..slot() };
        assert!(matches!(error(Some(progress()), Some(gone)), ContinuityError::SlotInvalid { .. }));
        for unfit in [
            Slot { plugin: None, ..slot() },
            Slot { plugin: Some("wal2json".into()), ..slot() },
            Slot { database: Some("other".into()), ..slot() },
            Slot { temporary: true, ..slot() },
            Slot { two_phase: true, ..slot() },
        ] {
            let error = error(Some(progress()), Some(unfit));
            assert!(matches!(error, ContinuityError::SlotUnfit { .. }));
        }
    }

    #[test]
    fn another_source_behind_the_same_name_is_refused() {
        let decide = |progress: &Progress| decide("s", Some(progress), Some(&slot()), &here()).plan;
        let other = [
            Progress { system_identifier: 8, ..progress() },
            Progress { database_oid: 6, ..progress() },
            Progress { timeline: 2, ..progress() },
            Progress { slot: "t".into(), ..progress() },
        ];
        assert!(other.iter().all(|progress| decide(progress).is_err()));
    }

    /// Timeline 3 came from 2 at 200, and that from 1 at 100.
    fn after_failovers() -> Here {
        let history = History::parse("1\t0/64\n2\t0/C8\n").unwrap();
        Here { timeline: 3, history, ..here() }
    }

    #[test]
    fn progress_is_carried_over_to_the_timeline_that_came_of_its_own() {
        let decide = |timeline, end_lsn, slot: &Slot| {
            let progress = Progress { timeline, end_lsn: Lsn(end_lsn), ..progress() };
            decide("s", Some(&progress), Some(slot), &after_failovers())
        };
        for (timeline, end_lsn, from, is_divergence) in [
            (1, 99, 99, false),
            (1, 100, 100, false),
            (1, 101, 100, true),
            (2, 101, 101, false),
            (2, 200, 200, false),
            (2, 201, 200, true),
        ] {
            let Decision { crossing, plan } = decide(timeline, end_lsn, &slot());
            assert_eq!(plan, Ok(Plan::Resume { from: Lsn(from) }), "{timeline} {end_lsn}");
            let crossing = crossing.unwrap();
            assert_eq!((crossing.then, crossing.now), (timeline, 3));
            assert_eq!(crossing.is_divergence(), is_divergence, "{timeline} {end_lsn}");
        }
        assert_eq!(decide(3, 500, &slot()).crossing, None);
        // What the slot no longer has is counted from where the old timeline was left.
        let ahead = Slot { confirmed_flush_lsn: Some(Lsn(110)), ..slot() };
        let plan = decide(1, 300, &ahead).plan;
        let end_lsn = Lsn(100);
        assert!(
            matches!(plan, Err(ContinuityError::SlotAhead { end_lsn: from, bytes: 10, .. }) if from == end_lsn)
        );
    }

    #[test]
    fn other_branches_and_older_copies_are_refused() {
        let decide = |timeline, end_lsn, here: &Here| {
            let progress = Progress { timeline, end_lsn: Lsn(end_lsn), ..progress() };
            decide("s", Some(&progress), Some(&slot()), here)
        };
        let refused = |decision: Decision| (decision.crossing, decision.plan.unwrap_err());
        let old_primary = refused(decide(3, 100, &here()));
        assert_eq!(old_primary, (None, ContinuityError::OtherTimeline { then: 3, now: 1 }));
        let branch = refused(decide(4, 100, &after_failovers()));
        assert_eq!(branch, (None, ContinuityError::OtherTimeline { then: 4, now: 3 }));
        let (end_lsn, log_end) = (Lsn(1_001), Lsn(1_000));
        let copy = refused(decide(1, 1_001, &here()));
        assert_eq!(copy, (None, ContinuityError::LogBehind { end_lsn, log_end }));
        assert_eq!(decide(1, 1_000, &here()).plan, Ok(Plan::Resume { from: Lsn(1_000) }));
    }
}
