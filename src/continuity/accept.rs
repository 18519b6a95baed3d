//! The way on after a loss: only if somebody accepted it, and only once.

use super::{ContinuityError, invalid};
use crate::{catalog::Slot, lsn::Lsn, translate::gap::Reason};

/// How a source goes on after a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A new slot and its snapshot. A slot of ours that can no longer be read is dropped first.
    Anew { drop_first: bool },
    /// From where the slot stands.
    Skip { to: Lsn },
    /// Back to where the slot stands: what was written behind that may not be in the source's log.
    Back { to: Lsn },
}

/// A loss that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    pub reason: Reason,
    pub way: Way,
}

/// A finding that is not passed over, and what a person may do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{finding}{hint}")]
pub struct Refusal {
    pub finding: ContinuityError,
    /// Empty, or sentences behind a blank.
    pub hint: String,
}

/// What a run of the program may pass over: the one loss that it finds when it first looks at the source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Acceptance {
    /// Nothing, or nothing more.
    #[default]
    Nothing,
    /// Whatever is found at the first look.
    First,
    /// This finding, until it is written.
    This(ContinuityError),
}

impl From<ContinuityError> for Refusal {
    /// A finding that nobody may pass over.
    fn from(finding: ContinuityError) -> Self {
        Self { finding, hint: String::new() }
    }
}

impl Acceptance {
    /// Passes over a finding, if it is a loss and accepted.
    ///
    /// # Errors
    /// It is refused, with what a person may do.
    pub fn pass(
        &mut self,
        source: &str,
        finding: ContinuityError,
        slot: Option<&Slot>,
    ) -> Result<Loss, Refusal> {
        let way_on = format!("To go on and record the gap: portal-audit run --accept-gap {source}");
        let loss = match loss(&finding, slot) {
            Ok(Some(loss)) => loss,
            Ok(None) => return Err(finding.into()),
            Err(hint) => return Err(Refusal { finding, hint: format!(" {hint} {way_on}") }),
        };
        match self {
            Self::First => *self = Self::This(finding),
            Self::This(accepted) if *accepted == finding => {}
            Self::This(_) | Self::Nothing => {
                return Err(Refusal { finding, hint: format!(" {way_on}") });
            }
        }
        Ok(loss)
    }

    /// The source streams: what was accepted is written, and nothing more is.
    pub fn spend(&mut self) {
        *self = Self::Nothing;
    }
}

/// Which loss a finding is, and the way on. `None`: it is no loss but a fault of the settings. `Err`: what must be done before there is a way.
fn loss(finding: &ContinuityError, slot: Option<&Slot>) -> Result<Option<Loss>, String> {
    let reason = match finding {
        ContinuityError::SlotLost { .. } => Reason::SlotLost,
        ContinuityError::SlotInvalid { .. } => Reason::SlotInvalid,
        ContinuityError::SlotAhead { confirmed, .. } => {
            let way = Way::Skip { to: *confirmed };
            return Ok(Some(Loss { reason: Reason::SlotAhead, way }));
        }
        ContinuityError::OtherSystem { .. } => Reason::OtherSystem,
        ContinuityError::OtherDatabase { .. } => Reason::OtherDatabase,
        ContinuityError::OtherTimeline { .. } => Reason::OtherTimeline,
        ContinuityError::LogBehind { log_end, .. } => {
            let slot = slot.filter(|slot| invalid(slot).is_none());
            if let Some(to) = slot.and_then(|slot| slot.confirmed_flush_lsn) {
                let way = Way::Back { to: to.min(*log_end) };
                return Ok(Some(Loss { reason: Reason::LogBehind, way }));
            }
            Reason::LogBehind
        }
        ContinuityError::History(_)
        | ContinuityError::Standby
        | ContinuityError::TwoServers
        | ContinuityError::SlotWithoutProgress { .. }
        | ContinuityError::SlotUnfit { .. }
        | ContinuityError::OtherSlot { .. } => return Ok(None),
    };
    // In another cluster or database a slot of that name is not the one that we made; on another timeline it may hold changes that are not lost.
    let may_drop = match reason {
        Reason::SlotInvalid | Reason::LogBehind => true,
        Reason::OtherTimeline => slot.is_some_and(|slot| invalid(slot).is_some()),
        _ => false,
    };
    if slot.is_some() && !may_drop {
        return Err("There is a slot of that name, which is not dropped by itself: if nobody needs it, SELECT pg_drop_replication_slot.".to_owned());
    }
    Ok(Some(Loss { reason, way: Way::Anew { drop_first: slot.is_some() } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(end_lsn: u64) -> ContinuityError {
        ContinuityError::SlotLost { slot: "s".into(), end_lsn: Lsn(end_lsn) }
    }

    #[test]
    fn one_loss_is_passed_and_no_second_one() {
        let mut accepted = Acceptance::First;
        let way = Way::Anew { drop_first: false };
        let loss = Loss { reason: Reason::SlotLost, way };
        assert_eq!(accepted.pass("p", lost(1), None), Ok(loss));
        assert_eq!(accepted.pass("p", lost(1), None), Ok(loss), "the same, tried again");
        let refusal = accepted.pass("p", lost(2), None).unwrap_err();
        assert!(refusal.to_string().ends_with("record the gap: portal-audit run --accept-gap p"));
        accepted.spend();
        assert!(accepted.pass("p", lost(1), None).is_err());
    }

    #[test]
    fn faults_of_the_settings_are_never_passed() {
        let findings = [
            ContinuityError::SlotWithoutProgress { slot: "s".into() },
            ContinuityError::SlotUnfit { slot: "s".into(), is: "is temporary".into() },
            ContinuityError::OtherSlot { then: "s".into(), now: "t".into() },
            ContinuityError::Standby,
            ContinuityError::TwoServers,
        ];
        for finding in findings {
            let mut accepted = Acceptance::First;
            let refusal = accepted.pass("p", finding, None).unwrap_err();
            assert_eq!((refusal.hint.as_str(), accepted), ("", Acceptance::First));
        }
    }

    /// A slot that may still be read, or is none of ours, stays.
    #[test]
    fn no_slot_is_dropped_that_may_be_needed() {
        let slot = Slot {
            plugin: Some("pgoutput".into()),
            database: Some("portal".into()),
            temporary: false,
            two_phase: false,
            active_pid: None,
            confirmed_flush_lsn: Some(Lsn(1)),
            restart_lsn: Some(Lsn(1)),
            wal_status: Some("reserved".into()),
            invalidation_reason: None,
        };
        let unreadable = Slot { wal_status: Some("lost".into()), ..slot.clone() };
        let pass = |finding, slot| Acceptance::First.pass("p", finding, Some(slot));
        let way = |way: Result<Loss, Refusal>| way.map(|loss| loss.way).ok();
        let timeline = || ContinuityError::OtherTimeline { then: 1, now: 2 };
        assert_eq!(way(pass(timeline(), &slot)), None);
        let drop_first = Some(Way::Anew { drop_first: true });
        assert_eq!(way(pass(timeline(), &unreadable)), drop_first);
        let invalid = ContinuityError::SlotInvalid {
            slot: "s".into(),
            reason: "lost".into(),
            end_lsn: Lsn(1),
        };
        assert_eq!(way(pass(invalid, &unreadable)), drop_first);
        let behind = || ContinuityError::LogBehind { end_lsn: Lsn(9), log_end: Lsn(8) };
        assert_eq!(way(pass(behind(), &slot)), Some(Way::Back { to: Lsn(1) }));
        assert_eq!(way(pass(behind(), &unreadable)), drop_first);
        for slot in [&slot, &unreadable] {
            assert_eq!(way(pass(ContinuityError::OtherSystem { then: 1, now: 2 }, slot)), None);
            assert_eq!(way(pass(ContinuityError::OtherDatabase { then: 1, now: 2 }, slot)), None);
        }
    }
}
