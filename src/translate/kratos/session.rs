//! Sessions: logins that succeeded, were repeated, and ended.

use super::{
    Draft, Kratos, TRANSACTION_MAX,
    emit::Payload,
    identity::REHASH_MICROS,
    state::{At, Entity, Identity, Missing, Pending, Session, Waiting, Work},
    text, time,
};
use crate::tuple::{Operation, Row};
use serde::Deserialize;

/// A session that opens this soon after its identity was made belongs to the registration.
const REGISTRATION_MICROS: i64 = 2_000_000;
/// Methods of a session that recovery opened end so.
const RECOVERY: &str = "_recovery";

/// A session that the transaction under way made. Its device comes in a row of its own.
#[derive(Debug)]
pub(super) struct NewSession {
    id: String,
    identity: String,
    at: At,
    method: Option<String>,
    aal: Option<String>,
    ip: Option<String>,
    user_agent: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Method {
    method: Option<String>,
}

/// The methods of a session in the order of their use.
fn methods(row: &Row<'_>) -> Vec<String> {
    let listed = text(row, "authentication_methods");
    let listed: Option<Vec<Method>> = listed.and_then(|text| serde_json::from_str(text).ok());
    listed.into_iter().flatten().filter_map(|entry| entry.method).collect()
}

impl Kratos {
    pub(super) fn session(
        &mut self,
        row: &Row<'_>,
        at: Option<At>,
        work: &mut Work<'_>,
        drafts: &mut Vec<Draft>,
    ) -> Result<bool, Missing> {
        let Some(id) = text(row, "id") else { return Ok(false) };
        if row.operation == Operation::Delete || text(row, "active") != Some("t") {
            return self.ended(row, id, at, work, drafts);
        }
        let Some(identity) = text(row, "identity_id") else { return Ok(false) };
        let now = Session {
            identity: identity.to_owned(),
            expires: time(row, "expires_at").unwrap_or(i64::MAX),
            authenticated: time(row, "authenticated_at").unwrap_or(i64::MIN),
            aal: text(row, "aal").map(str::to_owned),
        };
        match (row.operation, at) {
            (Operation::Update, Some(at)) => {
                let known: Option<Session> = work.get(Entity::Session, id)?;
                if let Some(known) = known.filter(|known| known.authenticated < now.authenticated) {
                    let subject = self.username_of(Some(identity), work)?;
                    let method = methods(row).pop();
                    let kind = self.authenticated(identity, method.as_deref(), at, work);
                    let mut payload = Payload::default();
                    payload.text("method", method.as_deref());
                    payload.text("aal", now.aal.as_deref());
                    let old_aal =
                        known.aal.as_deref().filter(|old| Some(*old) != now.aal.as_deref());
                    payload.text("old_aal", old_aal);
                    payload.text("type", kind.as_deref());
                    drafts.push(Draft::by_subject("login_refreshed", at, subject, payload));
                }
            }
            (Operation::Insert, Some(at)) => {
                let method = methods(row).into_iter().next();
                let (id, identity) = (id.to_owned(), identity.to_owned());
                let (aal, ip, user_agent) = (now.aal.clone(), None, None);
                if self.inside.sessions.len() >= TRANSACTION_MAX {
                    // Its device, if it has one, came right behind it.
                    self.new_session(work, drafts)?;
                }
                let new = NewSession { id, identity, at, method, aal, ip, user_agent };
                self.inside.sessions.push(new);
            }
            _ => {}
        }
        work.put(Entity::Session, id, &now);
        Ok(true)
    }

    /// A session that is over. Only one that was known to be open ends: revoking writes over dead ones too, and cleaning up deletes them.
    fn ended(
        &self,
        row: &Row<'_>,
        id: &str,
        at: Option<At>,
        work: &mut Work<'_>,
        drafts: &mut Vec<Draft>,
    ) -> Result<bool, Missing> {
        let Some(at) = at.filter(|_| row.operation != Operation::Insert) else { return Ok(true) };
        let known: Option<Session> = work.get(Entity::Session, id)?;
        let Some(known) = known else { return Ok(true) };
        let identity: Option<Identity> = work.get(Entity::Identity, &known.identity)?;
        let goes_with_it = identity.as_ref().is_some_and(|identity| identity.is_deleted);
        if known.expires > at.time() && !goes_with_it {
            let subject = self.username_of(Some(&known.identity), work)?;
            let mut payload = Payload::default();
            let deleted = Some("deletion").filter(|_| row.operation == Operation::Delete);
            payload.text("by", deleted);
            drafts.push(Draft::new("logout", at, subject, payload));
        }
        work.forget(Entity::Session, id);
        Ok(true)
    }

    /// Where a session of this transaction came from.
    pub(super) fn device(&mut self, row: &Row<'_>) -> bool {
        let session = text(row, "session_id").filter(|_| row.operation == Operation::Insert);
        let sessions = &mut self.inside.sessions;
        if let Some(new) = sessions.iter_mut().rev().find(|new| Some(new.id.as_str()) == session) {
            new.ip = text(row, "ip_address").map(str::to_owned);
            new.user_agent = text(row, "user_agent").map(str::to_owned);
        }
        true
    }

    /// What the first of the new sessions is: a login, the end of a recovery, or part of a registration.
    pub(super) fn new_session(
        &mut self,
        work: &mut Work<'_>,
        drafts: &mut Vec<Draft>,
    ) -> Result<(), Missing> {
        let Some(new) = self.inside.sessions.first() else { return Ok(()) };
        let known: Option<Identity> = work.get(Entity::Identity, &new.identity)?;
        let subject = self.username_of(Some(&new.identity), work)?;
        let new = self.inside.sessions.remove(0);
        let mut payload = Payload::default();
        payload.text("method", new.method.as_deref());
        payload.text("aal", new.aal.as_deref());
        payload.text("ip", new.ip.as_deref());
        payload.text("user_agent", new.user_agent.as_deref());
        if new.method.as_deref().is_some_and(|method| method.ends_with(RECOVERY)) {
            drafts.push(Draft::by_subject("account_recovered", new.at, subject, payload));
            return Ok(());
        }
        if let Some(mut known) = known.filter(|known| !known.has_session) {
            let age = new.at.time().saturating_sub(known.registered);
            let logs_in = self.candidate(&new.identity, new.method.as_deref()).is_some_and(|key| {
                let identity = self.pending.get(&key).and_then(|found| found.identity.as_deref());
                identity == Some(new.identity.as_str())
            });
            if age <= REGISTRATION_MICROS && !logs_in {
                known.has_session = true;
                work.put(Entity::Identity, &new.identity, &known);
                return Ok(());
            }
        }
        let kind = self.authenticated(&new.identity, new.method.as_deref(), new.at, work);
        payload.text("type", kind.as_deref());
        drafts.push(Draft::by_subject("login_succeeded", new.at, subject, payload));
        Ok(())
    }

    /// An identity has proved itself: its flow did not fail, and its password was only hashed anew. Gives the flow's type, if it is clear which flow it was.
    fn authenticated(
        &mut self,
        identity: &str,
        method: Option<&str>,
        at: At,
        work: &mut Work<'_>,
    ) -> Option<String> {
        let rehashed = self.pending.iter().rev().find(|(_, pending)| {
            pending.waiting == Waiting::Credentials
                && pending.identity.as_deref() == Some(identity)
                && at.time().saturating_sub(pending.at.time()) <= REHASH_MICROS
        });
        if let Some(key) = rehashed.map(|(key, _)| key.clone()) {
            self.take_pending(&key, work);
        }
        let all = self.pending.values().filter(|pending| pending.waiting != Waiting::Credentials);
        let is_clear = all.count() == 1;
        let key = self.candidate(identity, method)?;
        let found = self.take_pending(&key, work)?;
        found.facts.kind.filter(|_| is_clear || found.identity.as_deref() == Some(identity))
    }

    /// The flow that this session probably belongs to; nothing in the rows joins the two but time. A flow that waits for its owner's session comes first, then the newest of those whose owner is not known and of its owner's failures, then any that waits.
    fn candidate(&self, identity: &str, method: Option<&str>) -> Option<String> {
        let fits = |pending: &Pending| {
            pending.waiting != Waiting::Credentials
                && method.is_none_or(|method| method == pending.method)
        };
        let newest = |wanted: &dyn Fn(&Pending, bool) -> bool| {
            let mut fitting = self.pending.iter().rev().filter(|(_, pending)| fits(pending));
            let found = fitting
                .find(|(_, found)| wanted(found, found.identity.as_deref() == Some(identity)));
            found.map(|(key, _)| key.clone())
        };
        newest(&|found, is_own| found.waiting == Waiting::Soft && is_own)
            .or_else(|| {
                newest(&|found, is_own| match found.waiting {
                    Waiting::Soft => found.identity.is_none(),
                    _ => is_own,
                })
            })
            .or_else(|| newest(&|found, _| found.waiting == Waiting::Soft))
    }
}
