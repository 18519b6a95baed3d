//! Login flows: which UPDATE of a flow is a failed login.

use super::{
    Draft, Kratos,
    identifier::map_key,
    state::{At, Entity, Flow, FlowFacts, Identifier, Identity, Missing, Pending, Waiting, Work},
    text,
};
use crate::tuple::{Operation, Row, Value};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Two words of a flow within this time are of the same attempt: no human is as fast.
const SAME_ATTEMPT_MICROS: i64 = 1_000_000;
/// The address is not verified: the one failure that a flow tells after its method was set.
const NOT_VERIFIED: u32 = 4_000_010;
/// Flows are kept under as many hexadecimal digits of their id, so that nobody who opens flows can fill the names map. A flow that another has pushed out is only less well known.
const FLOW_KEY_DIGITS: usize = 5;

/// Message ids that say why a login failed, the method that says it, and our words for it. Others are no failures: 4000001 (any error), 4000002 (a field is empty), 4010001 (expired), 1000000 and up (information).
const FAILURES: &[(u32, Option<&str>, &str)] = &[
    (4_000_006, Some("password"), "username or password is wrong"),
    (4_000_008, Some("totp"), "the one-time code is wrong"),
    (NOT_VERIFIED, None, "the address is not verified"),
    (4_000_012, Some("lookup_secret"), "the backup code was used before"),
    (4_000_015, Some("webauthn"), "no such security key"),
    (4_000_016, Some("lookup_secret"), "the backup code is wrong"),
    (4_000_035, Some("code"), "no account takes codes under this identifier"),
    (4_000_037, None, "no such account"),
    (4_010_008, Some("code"), "the login code is wrong or was used before"),
    (4_010_010, Some("code"), "no such address for the second factor"),
];

/// Our words for a failure, and its method.
pub(super) fn failure(reason: u32) -> Option<(Option<&'static str>, &'static str)> {
    FAILURES.iter().find(|(id, ..)| *id == reason).map(|(_, method, words)| (*method, *words))
}

/// What is read of `ui`; nothing else of it is parsed.
#[derive(Debug, Default, Deserialize)]
struct Ui<'a> {
    #[serde(default)]
    messages: Option<Vec<Message>>,
    #[serde(borrow, default)]
    nodes: Option<Vec<Node<'a>>>,
}

#[derive(Debug, Deserialize)]
struct Message {
    id: i64,
}

#[derive(Debug, Deserialize)]
struct Node<'a> {
    #[serde(borrow, default)]
    attributes: Option<Attributes<'a>>,
    #[serde(default)]
    messages: Option<Vec<Message>>,
}

#[derive(Debug, Deserialize)]
struct Attributes<'a> {
    #[serde(borrow, default)]
    name: Option<&'a RawValue>,
    #[serde(borrow, default)]
    value: Option<&'a RawValue>,
}

impl Ui<'_> {
    fn messages(&self) -> impl Iterator<Item = &Message> {
        let of_nodes =
            self.nodes.iter().flatten().filter_map(|node| node.messages.as_ref()).flatten();
        self.messages.iter().flatten().chain(of_nodes)
    }

    fn failure(&self) -> Option<u32> {
        let ids = self.messages().filter_map(|message| u32::try_from(message.id).ok());
        ids.into_iter().find(|id| failure(*id).is_some())
    }

    /// What was typed: the node `identifier`, up to 0.8 `password_identifier`.
    fn identifier(&self) -> Option<String> {
        let attributes = self.nodes.iter().flatten().filter_map(|node| node.attributes.as_ref());
        let mut identifiers = attributes.filter(|attributes| {
            let name = attributes.name.map_or("", RawValue::get);
            matches!(name, "\"identifier\"" | "\"password_identifier\"")
        });
        let found = identifiers
            .find_map(|attributes| serde_json::from_str::<String>(attributes.value?.get()).ok())?;
        Some(found).filter(|found| !found.trim().is_empty())
    }
}

/// What an UPDATE of a flow means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Nothing,
    Failed(u32),
    /// A failure, unless it is the success after one.
    Held(u32),
    /// A success, unless no session follows.
    Soft,
}

/// The method was chosen and its work is done, so that a session must follow. An identifier alone, or a code that was only sent, is not yet an attempt; with a provider the user has left for it.
fn is_final(flow: &Flow) -> bool {
    is_attempted(flow) && !matches!(flow.method.as_str(), "oidc" | "saml")
}

fn is_attempted(flow: &Flow) -> bool {
    let is_sent = flow.method == "code" && flow.state.as_deref() == Some("sent_email");
    !flow.method.is_empty() && flow.method != "identifier_first" && !is_sent
}

fn verdict(known: Option<&Flow>, now: &Flow, ui: Option<&Ui<'_>>) -> Verdict {
    let reason = ui.and_then(Ui::failure);
    let Some(known) = known else {
        // Its INSERT was not seen. A wrong code is told after an UPDATE of submit_count, from which it is known.
        let is_first_word = now.method == "code" && now.submit_count.is_some();
        return match reason {
            Some(_) if is_first_word && !is_attempted(now) => Verdict::Nothing,
            Some(reason) if is_attempted(now) => Verdict::Held(reason),
            Some(reason) => Verdict::Failed(reason),
            None if is_final(now) => Verdict::Soft,
            None => Verdict::Nothing,
        };
    };
    let has_moved = (&known.method, &known.state) != (&now.method, &now.state);
    if has_moved || known.submit_count != now.submit_count {
        // Whatever its messages say: a success leaves those of the failure before it.
        return if has_moved && is_final(now) { Verdict::Soft } else { Verdict::Nothing };
    }
    match reason {
        Some(reason) if is_attempted(now) => Verdict::Held(reason),
        Some(reason) => Verdict::Failed(reason),
        None if is_final(now) && ui.is_none_or(|ui| ui.messages().next().is_none()) => {
            Verdict::Soft
        }
        None => Verdict::Nothing,
    }
}

/// Whether `now` is the same attempt's later word.
fn is_same_attempt(before: &Pending, now: Verdict, at: At) -> bool {
    let is_soon = at.time().saturating_sub(before.at.time()) < SAME_ATTEMPT_MICROS;
    match (before.waiting, now) {
        (Waiting::Soft, Verdict::Soft) => is_soon,
        (Waiting::Soft, Verdict::Held(reason)) => reason == NOT_VERIFIED,
        (Waiting::Held, Verdict::Held(reason)) => {
            is_soon && reason == NOT_VERIFIED && before.reason == Some(reason)
        }
        _ => false,
    }
}

fn flow_key(id: &str) -> &str {
    id.get(..FLOW_KEY_DIGITS).unwrap_or(id)
}

/// What is read of a row's `ui`: none if it did not change and was not sent.
fn form<'a>(row: &Row<'a>) -> Result<Option<Ui<'a>>, serde_json::Error> {
    match row.relation.position("ui").map_or(Value::Null, |place| row.value(place)) {
        Value::Absent => Ok(None),
        Value::Null => Ok(Some(Ui::default())),
        Value::Text(document) => serde_json::from_slice(document).map(Some),
    }
}

/// Clean-up deletes a flow. What is not in memory is overwritten some day.
fn forget(id: &str, work: &mut Work<'_>) -> Result<bool, Missing> {
    let key = flow_key(id);
    if work.holds(Entity::Flow, key) {
        let known: Option<Flow> = work.get(Entity::Flow, key)?;
        if known.is_some_and(|known| known.id == id) {
            work.forget(Entity::Flow, key);
        }
    }
    Ok(true)
}

/// What a verdict says of an attempt, and whether it has to wait.
fn attempt(
    verdict: Verdict,
    now: &Flow,
    subject: String,
    at: At,
    row: &Row<'_>,
) -> Option<(bool, Pending)> {
    let (waits, waiting, reason) = match verdict {
        Verdict::Nothing => return None,
        Verdict::Failed(reason) => (false, Waiting::Held, Some(reason)),
        Verdict::Held(reason) => (true, Waiting::Held, Some(reason)),
        Verdict::Soft => (true, Waiting::Soft, None),
    };
    let facts = FlowFacts {
        kind: text(row, "type").map(str::to_owned),
        aal: text(row, "requested_aal").map(str::to_owned),
        is_refresh: text(row, "forced") == Some("t"),
    };
    let (identity, method) = (now.identity.clone(), now.method.clone());
    let methods = Vec::new();
    Some((waits, Pending { waiting, at, identity, subject, method, facts, reason, methods }))
}

impl Kratos {
    pub(super) fn login_flow(
        &mut self,
        row: &Row<'_>,
        at: Option<At>,
        work: &mut Work<'_>,
        drafts: &mut Vec<Draft>,
    ) -> Result<bool, Missing> {
        let Some(id) = text(row, "id") else { return Ok(false) };
        let key = flow_key(id);
        if row.operation == Operation::Delete {
            return forget(id, work);
        }
        let Ok(ui) = form(row) else { return Ok(false) };
        let known: Option<Flow> = match row.operation {
            Operation::Update => work.get(Entity::Flow, key)?.filter(|known: &Flow| known.id == id),
            _ => None,
        };
        let typed = ui.as_ref().and_then(Ui::identifier);
        let earlier = known.as_ref().and_then(|known| known.identity.clone());
        let (identity, subject) = match typed {
            Some(typed) => self.whose(&typed, work)?,
            None => (earlier.clone(), self.username_of(earlier.as_deref(), work)?),
        };
        let mut now = Flow {
            id: id.to_owned(),
            method: text(row, "active_method").unwrap_or_default().to_owned(),
            state: text(row, "state").map(str::to_owned),
            submit_count: text(row, "submit_count").map(str::to_owned),
            identity,
            waits: known.as_ref().and_then(|known| known.waits.clone()),
        };
        if let (Some(at), Operation::Update) = (at, row.operation) {
            let verdict = verdict(known.as_ref(), &now, ui.as_ref());
            if let Some((waits, pending)) = attempt(verdict, &now, subject, at, row) {
                self.decide_earlier(now.waits.take(), verdict, at, work, drafts);
                if waits {
                    now.waits = Some(at.key());
                    self.wait(pending, work, drafts);
                } else {
                    drafts.push(Draft::decided(&pending));
                }
            }
        }
        if known.as_ref() != Some(&now) {
            work.put(Entity::Flow, key, &now);
        }
        Ok(true)
    }

    /// The flow speaks again: what it said before was refused, unless it is still the same attempt.
    fn decide_earlier(
        &mut self,
        earlier: Option<String>,
        verdict: Verdict,
        at: At,
        work: &mut Work<'_>,
        drafts: &mut Vec<Draft>,
    ) {
        let Some(key) = earlier.filter(|key| self.pending.contains_key(key)) else { return };
        if let Some(before) = self.take_pending(&key, work)
            && !is_same_attempt(&before, verdict, at)
        {
            drafts.push(Draft::decided(&before));
        }
    }

    /// Whose an identifier is: the identity and its username, else no identity and what may stand for the typed text.
    fn whose(&self, typed: &str, work: &mut Work<'_>) -> Result<(Option<String>, String), Missing> {
        let found: Option<Identifier> =
            work.get(Entity::Identifier, &map_key(self.origin, typed))?;
        match found {
            Some(found) => {
                let name = self.username_of(Some(&found.identity), work)?;
                Ok((Some(found.identity), name))
            }
            None => Ok((None, self.key.as_ref().map_or(String::new(), |key| key.pseudonym(typed)))),
        }
    }

    /// The username of an identity, else its id; empty if there is no identity.
    pub(super) fn username_of(
        &self,
        identity: Option<&str>,
        work: &mut Work<'_>,
    ) -> Result<String, Missing> {
        let Some(id) = identity else { return Ok(String::new()) };
        let known: Option<Identity> = work.get(Entity::Identity, id)?;
        Ok(known.and_then(|known| known.username).unwrap_or_else(|| id.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::{Flow, Ui, Verdict, verdict};

    fn flow(method: &str, state: &str, submit_count: u32) -> Flow {
        let submit_count = Some(submit_count.to_string());
        Flow { method: method.into(), state: Some(state.into()), submit_count, ..Flow::default() }
    }

    fn ui(text: &str) -> Ui<'_> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_verdict_needs_what_was_before() {
        let wrong = r#"{"messages": [{"id": 1010003}, {"id": 4000006}]}"#;
        let in_node = r#"{"nodes": [{"messages": null}, {"messages": [{"id": 4010008}]}]}"#;
        let empty = r#"{"messages": [{"id": 4000002}]}"#;
        let (shown, sent) = (flow("", "choose_method", 0), flow("code", "sent_email", 1));
        let (password, passed) =
            (flow("password", "choose_method", 0), flow("code", "passed_challenge", 1));
        let oidc = flow("oidc", "choose_method", 0);
        let (failed, held) = (Verdict::Failed(4_000_006), Verdict::Held(4_000_006));
        for (known, now, form, expected) in [
            (Some(&shown), &shown, wrong, failed),
            (Some(&shown), &shown, empty, Verdict::Nothing),
            (Some(&shown), &password, wrong, Verdict::Soft),
            (Some(&password), &password, wrong, held),
            (Some(&password), &password, "{}", Verdict::Soft),
            (Some(&password), &password, empty, Verdict::Nothing),
            (Some(&shown), &oidc, "{}", Verdict::Nothing),
            (Some(&oidc), &oidc, wrong, held),
            (Some(&shown), &sent, "{}", Verdict::Nothing),
            (Some(&sent), &flow("code", "sent_email", 2), in_node, Verdict::Nothing),
            (Some(&sent), &sent, in_node, Verdict::Failed(4_010_008)),
            (Some(&sent), &passed, in_node, Verdict::Soft),
            (None, &shown, wrong, failed),
            (None, &password, wrong, held),
            (None, &password, "{}", Verdict::Soft),
            (None, &sent, in_node, Verdict::Nothing),
            (None, &shown, "{}", Verdict::Nothing),
        ] {
            let found = verdict(known, now, Some(&ui(form)));
            assert_eq!(found, expected, "{known:?} {now:?} {form}");
        }
        assert_eq!(verdict(Some(&shown), &shown, None), Verdict::Nothing);
    }

    #[test]
    fn the_identifier_is_all_that_is_read_of_a_form() {
        let text = r#"{"action": 7, "nodes": [{"attributes": {"name": "csrf_token", "value": "x"}}, {"attributes": {"name": 5}}, {"type": "a"},
            {"attributes": {"name": "identifier", "value": null}}, {"attributes": {"name": "password_identifier", "value": "wrenn"}}]}"#;
        assert_eq!(ui(text).identifier().as_deref(), Some("wrenn"));
        assert_eq!(ui(r#"{"nodes": null, "messages": null}"#).identifier(), None);
        let blank = r#"{"nodes": [{"attributes": {"name": "identifier", "value": " "}}]}"#;
        assert_eq!(ui(blank).identifier(), None);
    }
}
