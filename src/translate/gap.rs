//! The event of a gap: changes of a source that are gone, from where to where, and why.

use super::{
    diverged,
    emit::{close_payload, push_audit},
    mapping::{Mapping, MappingError, Retention},
};
use crate::{
    event::{EventRow, Events, Flags, Origin, gap_id, push_formatted, push_json_string},
    lsn::Lsn,
    timestamp::Timestamp,
};
use std::str::FromStr;

/// Its type in `events` and in `portal_audit.event_types`.
pub const EVENT_TYPE: &str = "audit_gap";
/// Its sentence for people.
pub const DESCRIBE: &str = "changes of source {subject} from {payload.from_time} to {payload.to_time} are missing: {payload.reason}";
/// Who may see it.
pub const VISIBLE_TO: &[&str] = &["admin"];
/// How long it is kept.
pub const RETENTION: Retention = Retention::Project;
const SUBJECT_TYPE: &str = "source";

/// How changes were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    SlotLost,
    SlotAhead,
    SlotInvalid,
    OtherSystem,
    OtherTimeline,
    OtherDatabase,
    /// We gave the slot up, because it kept too much of the source's log.
    WalBudget,
    /// The log of the source is older than what was read of it.
    LogBehind,
    /// A failover to a standby that was behind us.
    Diverged,
}

impl Reason {
    const ALL: [Self; 9] = [
        Self::LogBehind,
        Self::Diverged,
        Self::SlotLost,
        Self::SlotAhead,
        Self::SlotInvalid,
        Self::OtherSystem,
        Self::OtherTimeline,
        Self::OtherDatabase,
        Self::WalBudget,
    ];

    /// Its word in the event and in `portal_audit.gaps`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::SlotLost => "slot_lost",
            Self::SlotAhead => "slot_ahead",
            Self::SlotInvalid => "slot_invalid",
            Self::OtherSystem => "other_system",
            Self::OtherTimeline => "other_timeline",
            Self::OtherDatabase => "other_database",
            Self::WalBudget => "wal_budget",
            Self::LogBehind => "log_behind",
            Self::Diverged => "diverged",
        }
    }
}

/// A word that is none of a reason.
#[derive(Debug, thiserror::Error)]
#[error("not a reason of a gap")]
pub struct ParseReasonError;

impl FromStr for Reason {
    type Err = ParseReasonError;

    fn from_str(word: &str) -> Result<Self, ParseReasonError> {
        Self::ALL.into_iter().find(|reason| reason.name() == word).ok_or(ParseReasonError)
    }
}

/// Which log a position lies in: positions of two of them cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub origin: Origin,
    pub timeline: u32,
}

/// A gap that was accepted, as it is known before its end is: the row of `portal_audit.gaps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    pub reason: Reason,
    pub slot: String,
    /// What was followed until then.
    pub then: Place,
    /// Progress before the loss.
    pub from_lsn: Lsn,
    /// The record is whole up to this commit time.
    pub from_time: Timestamp,
    /// Changes up to this commit time may have been told: later than `from_time` if something waited to be decided.
    pub told_to: Timestamp,
}

/// Where the stream goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GapEnd {
    pub now: Place,
    pub lsn: Lsn,
    /// The source's clock: what is missing was committed before.
    pub time: Timestamp,
}

/// The tables of the mapping, by what their rows before and after the gap can tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Compared {
    /// What appeared, vanished or changed in what is remembered.
    pub whole: Vec<String>,
    /// Only what appeared and knows when.
    pub parts: Vec<String>,
    pub not: Vec<String>,
}

impl Gap {
    /// Whether what is followed now is another database than before, where the same key may be another thing.
    #[must_use]
    pub fn is_elsewhere(&self, now: Place) -> bool {
        self.then.origin != now.origin
    }

    /// Adds its event.
    pub fn tell(
        &self,
        source: &str,
        end: &GapEnd,
        compared: Option<&Compared>,
        events: &mut Events,
    ) {
        let GapEnd { now, lsn, time } = *end;
        let event_uuid =
            gap_id(now.origin, self.from_time, (self.from_lsn, lsn), self.reason.name());
        let (event_type, ()) = events.write(|out| out.push_str(EVENT_TYPE));
        let (caller, ()) = events.write(|_| {});
        let (subject, ()) = events.write(|out| out.push_str(source));
        let (subject_type, ()) = events.write(|out| out.push_str(SUBJECT_TYPE));
        let (payload, ()) = events.write(|out| self.push_payload(source, end, compared, out));
        events.push(EventRow {
            relation: 0,
            event_uuid,
            timestamp: time,
            event_type,
            caller,
            subject,
            subject_type,
            target: None,
            success: true,
            error_message: None,
            payload,
        });
    }

    fn push_payload(
        &self,
        source: &str,
        end: &GapEnd,
        compared: Option<&Compared>,
        out: &mut String,
    ) {
        let (reason, from, from_time) = (self.reason.name(), self.from_lsn, self.from_time);
        let GapEnd { now, lsn, time } = end;
        push_formatted(
            out,
            format_args!(
                "{{\"reason\":\"{reason}\",\"from_lsn\":\"{from}\",\"to_lsn\":\"{lsn}\",\"from_time\":\"{from_time}\",\"to_time\":\"{time}\",\"slot\":"
            ),
        );
        push_json_string(out, self.slot.as_bytes(), usize::MAX);
        let is_one_log = self.then.origin.system_identifier == now.origin.system_identifier
            && self.then.timeline == now.timeline;
        if is_one_log {
            push_formatted(out, format_args!(",\"bytes\":{}", lsn.bytes_since(from)));
        }
        // A system identifier has 64 bits: as a number, a reader of JSON would round it.
        let systems = (self.then.origin.system_identifier, now.origin.system_identifier);
        if systems.0 != systems.1 {
            push_formatted(
                out,
                format_args!(
                    ",\"old_system_identifier\":\"{}\",\"new_system_identifier\":\"{}\"",
                    systems.0, systems.1
                ),
            );
        }
        let numbers = [
            ("timeline", self.then.timeline, now.timeline),
            ("database_oid", self.then.origin.database_oid, now.origin.database_oid),
        ];
        for (name, old, new) in numbers.iter().filter(|(_, old, new)| old != new) {
            push_formatted(out, format_args!(",\"old_{name}\":{old},\"new_{name}\":{new}"));
        }
        if let Some(Compared { whole, parts, not }) = compared {
            let lists = [("compared", whole), ("compared_in_part", parts), ("not_compared", not)];
            for (name, tables) in lists.iter().filter(|(_, tables)| !tables.is_empty()) {
                push_formatted(out, format_args!(",\"{name}\":["));
                for (index, table) in tables.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    push_json_string(out, table.as_bytes(), usize::MAX);
                }
                out.push(']');
            }
        }
        out.push(',');
        let mut audit = String::new();
        push_audit(&mut audit, source, (*lsn, now.timeline), None);
        close_payload(out, (&audit, None), ("none", 0, 0), &mut Flags::default(), false);
    }
}

/// A mapping must not give its own events the types of the record's: then a gap would be one among them.
#[must_use]
pub fn check(mapping: &Mapping) -> Vec<MappingError> {
    let taken = mapping.declared().map(|(event_type, ..)| event_type);
    let ours = [EVENT_TYPE, diverged::EVENT_TYPE];
    let taken = taken.filter(|event_type| ours.contains(&event_type.get_ref().as_str()));
    let errors = taken.map(|event_type| {
        let name = event_type.get_ref();
        let message = format!("event type {name:?} is one of the record's own");
        mapping.error(event_type.span(), message, Some("Choose another type.".to_owned()))
    });
    errors.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The id is a promise to every row that was ever written.
    #[test]
    fn a_gap_is_told_with_its_bounds() {
        let place =
            Place { origin: Origin { system_identifier: u64::MAX, database_oid: 5 }, timeline: 1 };
        let gap = Gap {
            reason: Reason::SlotAhead,
            slot: "s".to_owned(),
            then: place,
            from_lsn: Lsn(16),
            from_time: Timestamp(830_292_623_123_456),
            told_to: Timestamp(830_292_623_123_456),
        };
        let told = |gap: &Gap, now| {
            let end = GapEnd { now, lsn: Lsn(32), time: Timestamp(830_292_624_000_000) };
            let mut events = Events::default();
            gap.tell("portal", &end, None, &mut events);
            let event = events.iter().next().unwrap();
            assert_eq!(
                (event.event_type, event.subject, event.caller),
                ("audit_gap", "portal", "")
            );
            (event.event_uuid.to_string(), event.payload.to_owned())
        };
        let (id, payload) = told(&gap, place);
        assert_eq!(id, "019dbc1b-ab13-8162-992f-ff17eee7329e");
        assert_eq!(
            payload,
            r#"{"reason":"slot_ahead","from_lsn":"0/10","to_lsn":"0/20","from_time":"2026-04-23T20:50:23.123456Z","to_time":"2026-04-23T20:50:24.000000Z","slot":"s","bytes":16,"_audit":{"source":"portal","lsn":"0/20","caller_from":"none"}}"#
        );
        let other = Gap { reason: Reason::OtherSystem, ..gap };
        let now = Place { origin: Origin { system_identifier: 8, ..place.origin }, timeline: 2 };
        let (other_id, payload) = told(&other, now);
        assert_ne!(id, other_id);
        let kept = r#""slot":"s","old_system_identifier":"18446744073709551615","new_system_identifier":"8","old_timeline":1,"new_timeline":2,"_audit""#;
        assert!(payload.contains(kept), "{payload}");
    }

    #[test]
    fn each_reason_comes_back_from_its_word() {
        for reason in Reason::ALL {
            assert_eq!(reason.name().parse::<Reason>().ok(), Some(reason));
        }
        assert!("".parse::<Reason>().is_err());
    }

    #[test]
    fn its_type_is_taken() {
        for event_type in ["audit_gap", "audit_diverged"] {
            let mapping = format!(
                "[[event]]\ntable = \"public.users\"\non = \"insert\"\ntype = \"{event_type}\"\nsubject = \"username\"\nsubject_type = \"user\"\ndescribe = \"x\"\nvisible_to = [\"admin\"]\nretention = \"user\"\n"
            );
            let errors = Mapping::parse("m.toml", &mapping).unwrap_err().0;
            assert_eq!(errors.len(), 1, "{errors:?}");
        }
    }
}
