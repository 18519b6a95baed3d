//! Whether what the source still has joins what we have written: decided before anything is requested, at every start and reconnect.
//!
//! # Why
//! A walsender that is asked to start before its slot's position starts at that position and says nothing: the changes in between are missing without an error. So the comparison is ours to make, and every doubt is a refusal that names the objects.

mod accept;

pub use accept::{Acceptance, Loss, Refusal, Way};

use crate::{catalog::Slot, lsn::Lsn, write::Progress};

/// The source as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    pub system_identifier: u64,
    pub timeline: u32,
    pub database: String,
    pub database_oid: u32,
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
        "the source is on timeline {now}, and {then} was followed: a failover happened, and positions of the two cannot be compared."
    )]
    OtherTimeline { then: u32, now: u32 },
    #[error("progress belongs to slot \"{then}\", and the settings name \"{now}\"")]
    OtherSlot { then: String, now: String },
}

/// Compares what we have written with what the source has.
///
/// # Errors
/// Every finding that could hide a loss.
pub fn decide(
    slot_name: &str,
    progress: Option<&Progress>,
    slot: Option<&Slot>,
    here: &Here,
) -> Result<Plan, ContinuityError> {
    let name = || slot_name.to_owned();
    let Some(progress) = progress else {
        return match slot {
            None => Ok(Plan::Create { drop_first: false }),
            Some(_) => Err(ContinuityError::SlotWithoutProgress { slot: name() }),
        };
    };
    if progress.slot != slot_name {
        return Err(ContinuityError::OtherSlot { then: progress.slot.clone(), now: name() });
    }
    if progress.system_identifier != here.system_identifier {
        let (then, now) = (progress.system_identifier, here.system_identifier);
        return Err(ContinuityError::OtherSystem { then, now });
    }
    if progress.database_oid != here.database_oid {
        let (then, now) = (progress.database_oid, here.database_oid);
        return Err(ContinuityError::OtherDatabase { then, now });
    }
    if let Some(slot) = slot {
        fit(slot_name, slot, here)?;
    }
    if progress.creating {
        return Ok(Plan::Create { drop_first: slot.is_some() });
    }
    if progress.timeline != here.timeline {
        let (then, now) = (progress.timeline, here.timeline);
        return Err(ContinuityError::OtherTimeline { then, now });
    }
    let end_lsn = progress.end_lsn;
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
fn invalid(slot: &Slot) -> Option<String> {
    let lost = || slot.wal_status.clone().filter(|status| status == "lost");
    slot.invalidation_reason.clone().or_else(lost)
}

/// Whether the slot is one that we could have made.
fn fit(slot_name: &str, slot: &Slot, here: &Here) -> Result<(), ContinuityError> {
    let is = match (&slot.plugin, &slot.database) {
        (None, _) => "is a physical one".to_owned(),
        (Some(plugin), _) if plugin != "pgoutput" => format!("uses the plugin {plugin:?}"),
        (_, Some(database)) if *database != here.database => {
            format!("belongs to database {database:?}")
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
        Here { system_identifier: 7, timeline: 1, database: "portal".into(), database_oid: 5 }
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
            decide("s", progress.as_ref(), slot.as_ref(), &here())
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
        let decide = |progress: &Progress| decide("s", Some(progress), Some(&slot()), &here());
        let other = [
            Progress { system_identifier: 8, ..progress() },
            Progress { database_oid: 6, ..progress() },
            Progress { timeline: 2, ..progress() },
            Progress { slot: "t".into(), ..progress() },
        ];
        assert!(other.iter().all(|progress| decide(progress).is_err()));
    }
}
