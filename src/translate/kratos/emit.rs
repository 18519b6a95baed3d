//! One finding → one event in the batch.

use super::{
    super::{Batch, emit},
    Kratos,
    flow::failure,
    state::{At, Pending, Waiting},
};
use crate::event::{
    EventRow, Flags, INDEXED_TEXT_BYTES_MAX, event_id, push_json_string, push_text,
};

/// Our words for a login that was refused after the password was right.
const NO_SESSION: &str = "no session followed: the account is disabled or a hook refused it";
const SUBJECT_TYPE: &str = "user";

/// An event, before its text lies in a batch.
#[derive(Debug)]
pub(super) struct Draft {
    event_type: &'static str,
    pub(super) at: At,
    subject: String,
    /// Whether the subject itself did it.
    is_own: bool,
    /// The caller that a context of the transaction names.
    pub(super) context: Option<String>,
    error: Option<&'static str>,
    payload: Payload,
    is_inferred: bool,
    is_unresolved: bool,
}

/// The facts of an event, in order.
#[derive(Debug, Default)]
pub(super) struct Payload(Vec<(&'static str, Fact)>);

#[derive(Debug)]
enum Fact {
    Text(String),
    Number(u32),
    True,
    List(Vec<String>),
}

impl Payload {
    /// A text, if there is one.
    pub(super) fn text(&mut self, key: &'static str, text: Option<&str>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            self.0.push((key, Fact::Text(text.to_owned())));
        }
    }

    pub(super) fn list(&mut self, key: &'static str, items: impl Iterator<Item = String>) {
        self.0.push((key, Fact::List(items.collect())));
    }
}

impl Draft {
    pub(super) fn new(event_type: &'static str, at: At, subject: String, payload: Payload) -> Self {
        Self {
            event_type,
            at,
            subject,
            is_own: false,
            context: None,
            error: None,
            payload,
            is_inferred: false,
            is_unresolved: false,
        }
    }

    /// What only the subject can have done.
    pub(super) fn by_subject(
        event_type: &'static str,
        at: At,
        subject: String,
        payload: Payload,
    ) -> Self {
        Self { is_own: true, ..Self::new(event_type, at, subject, payload) }
    }

    /// What waited, and nothing came that says otherwise.
    pub(super) fn decided(pending: &Pending) -> Self {
        if pending.waiting == Waiting::Credentials {
            let draft = Self::credentials(pending, "admin");
            return Self { is_inferred: true, ..draft };
        }
        let (method, words) = pending.reason.and_then(failure).unzip();
        let of_flow = Some(pending.method.as_str()).filter(|method| !method.is_empty());
        let mut payload = Payload::default();
        payload.text("method", method.flatten().or(of_flow));
        payload.0.extend(pending.reason.map(|reason| ("reason", Fact::Number(reason))));
        payload.text("type", pending.facts.kind.as_deref());
        payload.text("aal", pending.facts.aal.as_deref());
        payload.0.extend(pending.facts.is_refresh.then_some(("refresh", Fact::True)));
        Self {
            error: Some(words.unwrap_or(NO_SESSION)),
            is_inferred: pending.waiting == Waiting::Soft,
            is_unresolved: pending.identity.is_none(),
            ..Self::new("login_failed", pending.at, pending.subject.clone(), payload)
        }
    }

    /// Credentials that their owner replaced.
    pub(super) fn credentials_by_owner(pending: &Pending) -> Self {
        Self { is_own: true, ..Self::credentials(pending, "settings") }
    }

    fn credentials(pending: &Pending, by: &str) -> Self {
        let mut payload = Payload::default();
        payload.text("by", Some(by));
        let is_password = pending.methods.iter().all(|method| method == "password");
        if !is_password {
            payload.list("methods", pending.methods.iter().cloned());
        }
        let event_type = if is_password { "password_changed" } else { "credentials_changed" };
        Self::new(event_type, pending.at, pending.subject.clone(), payload)
    }
}

impl Kratos {
    /// Adds an event to the batch; `events` counts those of the transaction.
    pub(super) fn push(&self, draft: &Draft, events: &mut u64, batch: &mut Batch) {
        let commit = draft.at.commit();
        let out = &mut batch.events;
        let (event_type, ()) = out.write(|out| out.push_str(draft.event_type));
        let (subject, mut flags) =
            out.write(|out| push_text(out, draft.subject.as_bytes(), INDEXED_TEXT_BYTES_MAX));
        let (caller, caller_from) = match (draft.is_own, &draft.context) {
            (true, _) => (draft.subject.as_str(), "row"),
            (false, Some(caller)) => (caller.as_str(), "context"),
            (false, None) => ("", "none"),
        };
        let (caller, _) =
            out.write(|out| push_text(out, caller.as_bytes(), INDEXED_TEXT_BYTES_MAX));
        let (subject_type, ()) = out.write(|out| out.push_str(SUBJECT_TYPE));
        let error_message = draft.error.map(|error| out.write(|out| out.push_str(error)).0);
        flags.inferred |= draft.is_inferred;
        flags.unresolved |= draft.is_unresolved;
        let mut audit = String::new();
        let position = (commit.commit_lsn, self.timeline);
        emit::push_audit(&mut audit, &self.source, position, Some(commit.xid));
        let (payload, ()) = out.write(|out| {
            out.push('{');
            for (key, fact) in &draft.payload.0 {
                push_json_string(out, key.as_bytes(), usize::MAX);
                out.push(':');
                flags |= self.push_fact(fact, out);
                out.push(',');
            }
            emit::close_payload(out, (&audit, None), (caller_from, *events, 0), &mut flags, false);
        });
        let event_uuid = event_id(self.origin, commit, draft.at.change(), draft.event_type);
        batch.events.push(EventRow {
            relation: draft.at.change().relation,
            event_uuid,
            timestamp: commit.commit_time,
            event_type,
            caller,
            subject,
            subject_type,
            target: None,
            success: draft.error.is_none(),
            error_message,
            payload,
        });
        *events += 1;
    }

    fn push_fact(&self, fact: &Fact, out: &mut String) -> Flags {
        let mut flags = Flags::default();
        match fact {
            Fact::Text(text) => flags = push_json_string(out, text.as_bytes(), self.value_limit),
            Fact::Number(number) => out.push_str(&number.to_string()),
            Fact::True => out.push_str("true"),
            Fact::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    flags |= push_json_string(out, item.as_bytes(), self.value_limit);
                }
                out.push(']');
            }
        }
        flags
    }
}
