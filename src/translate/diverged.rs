//! The event of a divergence: the source went on from before where we had read, so some of what is written tells of changes that no longer exist.
//!
//! The events themselves stay, for they were true of the server that was followed then. Which they are, the positions and the timeline in their `_audit` say.

use super::{
    emit::{close_payload, push_audit},
    gap::{Place, Reason},
    mapping::Retention,
};
use crate::{
    event::{EventRow, Events, Flags, gap_id, push_formatted, push_json_string},
    lsn::Lsn,
    timestamp::Timestamp,
};

/// Its type in `events` and in `portal_audit.event_types`.
pub const EVENT_TYPE: &str = "audit_diverged";
/// Its sentence for people.
pub const DESCRIBE: &str = "source {subject} went back from {payload.to_lsn} to {payload.from_lsn} ({payload.reason}): {payload.events} events were told of what lay between";
/// Who may see it.
pub const VISIBLE_TO: &[&str] = &["admin"];
/// How long it is kept.
pub const RETENTION: Retention = Retention::Project;
const SUBJECT_TYPE: &str = "source";

/// A source that went back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Divergence {
    pub reason: Reason,
    pub slot: String,
    /// What was followed until then.
    pub then: Place,
    pub now: Place,
    /// Where the log of now parts from the one that was read; the stream goes on from here.
    pub left_at: Lsn,
    /// Progress before.
    pub end_lsn: Lsn,
    /// The source's clock when it was found.
    pub time: Timestamp,
}

/// What of the record lies behind the parting, and before it, as the audit database counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phantoms {
    pub events: u64,
    /// Times of the first and the last of them.
    pub times: Option<(Timestamp, Timestamp)>,
    /// Time of the last event before them.
    pub before: Option<Timestamp>,
}

impl Divergence {
    /// Adds its event. `from_time`: the record was whole up to this commit time, for the id.
    pub fn tell(
        &self,
        source: &str,
        from_time: Timestamp,
        phantoms: &Phantoms,
        events: &mut Events,
    ) {
        let positions = (self.end_lsn, self.left_at);
        let event_uuid = gap_id(self.now.origin, from_time, positions, self.reason.name());
        let (event_type, ()) = events.write(|out| out.push_str(EVENT_TYPE));
        let (caller, ()) = events.write(|_| {});
        let (subject, ()) = events.write(|out| out.push_str(source));
        let (subject_type, ()) = events.write(|out| out.push_str(SUBJECT_TYPE));
        let (payload, ()) = events.write(|out| self.push_payload(source, phantoms, out));
        events.push(EventRow {
            relation: 0,
            event_uuid,
            timestamp: self.time,
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

    fn push_payload(&self, source: &str, phantoms: &Phantoms, out: &mut String) {
        let (reason, left_at, end_lsn) = (self.reason.name(), self.left_at, self.end_lsn);
        let (then, now) = (self.then.timeline, self.now.timeline);
        let (events, bytes) = (phantoms.events, end_lsn.bytes_since(left_at));
        push_formatted(
            out,
            format_args!(
                "{{\"reason\":\"{reason}\",\"from_lsn\":\"{left_at}\",\"to_lsn\":\"{end_lsn}\",\"old_timeline\":{then},\"new_timeline\":{now},\"events\":{events},\"bytes\":{bytes},"
            ),
        );
        if let Some((first, last)) = phantoms.times {
            let times = format_args!("\"from_time\":\"{first}\",\"to_time\":\"{last}\",");
            push_formatted(out, times);
        }
        out.push_str("\"slot\":");
        push_json_string(out, self.slot.as_bytes(), usize::MAX);
        out.push(',');
        let mut audit = String::new();
        push_audit(&mut audit, source, (left_at, now), None);
        close_payload(out, (&audit, None), ("none", 0, 0), &mut Flags::default(), false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Origin;

    /// The id is a promise to every row that was ever written.
    #[test]
    fn a_divergence_is_told_with_its_bounds() {
        let origin = Origin { system_identifier: 7, database_oid: 5 };
        let divergence = Divergence {
            reason: Reason::Diverged,
            slot: "s".to_owned(),
            then: Place { origin, timeline: 1 },
            now: Place { origin, timeline: 2 },
            left_at: Lsn(16),
            end_lsn: Lsn(32),
            time: Timestamp(830_292_624_000_000),
        };
        let (first, last) = (Timestamp(830_292_623_000_000), Timestamp(830_292_623_500_000));
        let phantoms = Phantoms { events: 2, times: Some((first, last)), before: None };
        let mut events = Events::default();
        divergence.tell("portal", Timestamp(830_292_623_123_456), &phantoms, &mut events);
        let event = events.iter().next().unwrap();
        assert_eq!((event.event_type, event.subject, event.caller), (EVENT_TYPE, "portal", ""));
        assert_eq!(event.event_uuid.to_string(), "019dbc1b-ab13-87f0-ae3b-c3daf3eb332b");
        assert_eq!(
            event.payload,
            r#"{"reason":"diverged","from_lsn":"0/10","to_lsn":"0/20","old_timeline":1,"new_timeline":2,"events":2,"bytes":16,"from_time":"2026-04-23T20:50:23.000000Z","to_time":"2026-04-23T20:50:23.500000Z","slot":"s","_audit":{"source":"portal","lsn":"0/10","timeline":2,"caller_from":"none"}}"#
        );
    }
}
