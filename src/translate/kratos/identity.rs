//! Identities, the identifiers under which they log in, and their credentials.

use super::{
    Draft, Kratos, TRANSACTION_MAX,
    emit::Payload,
    identifier::map_key,
    old_text,
    state::{At, Entity, FlowFacts, Identifier, Identity, Missing, Pending, Waiting, Work},
    text, time,
};
use crate::{
    translate::caller::name_text,
    tuple::{Operation, Row},
};

/// A login that hashes a password anew has its session within this time.
pub(super) const REHASH_MICROS: i64 = 5_000_000;
/// Columns of an identity that change without anybody changing it.
const BOOKKEEPING: &[&str] = &["updated_at", "available_aal", "state_changed_at"];

/// Learns the name of a type of credentials.
pub(super) fn credential_type(row: &Row<'_>, work: &mut Work<'_>) -> bool {
    if let (Some(id), Some(name)) = (text(row, "id"), text(row, "name")) {
        work.put(Entity::CredentialType, id, &name);
    }
    true
}

impl Kratos {
    fn username(&self, traits: Option<&str>) -> Option<String> {
        let traits: serde_json::Value = serde_json::from_str(traits?).ok()?;
        let found = self.username.iter().find_map(|path| {
            let found = path.query(&traits).exactly_one().ok()?.as_str()?;
            Some(found).filter(|found| !found.is_empty())
        });
        found.map(|found| name_text(found.as_bytes()).into_owned())
    }

    pub(super) fn identity(
        &mut self,
        row: &Row<'_>,
        at: Option<At>,
        work: &mut Work<'_>,
        drafts: &mut Vec<Draft>,
    ) -> Result<bool, Missing> {
        let Some(id) = text(row, "id") else { return Ok(false) };
        let username = self.username(text(row, "traits"));
        let subject = username.clone().unwrap_or_else(|| id.to_owned());
        let known: Option<Identity> = match row.operation {
            Operation::Insert => None,
            _ => work.get(Entity::Identity, id)?,
        };
        let mut now = known.unwrap_or_default();
        now.username = username.or(now.username);
        match (row.operation, at) {
            (Operation::Insert, Some(at)) => {
                (now.registered, now.xid) = (at.time(), at.commit().xid);
                drafts.push(Draft::new("identity_registered", at, subject, Payload::default()));
            }
            (Operation::Insert, None) => {
                now.registered = time(row, "created_at").unwrap_or(i64::MIN);
            }
            (Operation::Update, Some(at)) => self.updated(row, at, subject, drafts),
            (Operation::Delete, Some(at)) => {
                now.is_deleted = true;
                drafts.push(Draft::new("identity_deleted", at, subject, Payload::default()));
            }
            _ => {}
        }
        work.put(Entity::Identity, id, &now);
        Ok(true)
    }

    fn updated(&mut self, row: &Row<'_>, at: At, subject: String, drafts: &mut Vec<Draft>) {
        let columns = row.relation.columns.iter().enumerate();
        let changed = columns.filter(|(place, _)| row.is_changed(*place));
        let mut changed: Vec<&str> = changed.map(|(_, column)| column.name.as_str()).collect();
        changed.retain(|name| !BOOKKEEPING.contains(name));
        let id = text(row, "id").unwrap_or_default();
        if !changed.is_empty() && self.inside.changed.len() < TRANSACTION_MAX {
            self.inside.changed.insert(id.to_owned());
        }
        if changed.contains(&"state") {
            let state = text(row, "state").unwrap_or_default();
            let event_type = match state {
                "active" => "identity_activated",
                _ => "identity_deactivated",
            };
            drafts.push(Draft::new(event_type, at, subject.clone(), Payload::default()));
            changed.retain(|name| *name != "state");
        }
        if changed.is_empty() {
            return;
        }
        let old_username = self.username(old_text(row, "traits"));
        let old_username = old_username.filter(|old| *old != subject);
        let mut payload = Payload::default();
        payload.list("changed", changed.iter().map(|name| (*name).to_owned()));
        payload.text("old_username", old_username.as_deref());
        drafts.push(Draft::new("identity_updated", at, subject, payload));
    }

    /// Credentials that were made; their own columns that would say more are secrets and not published.
    pub(super) fn credential(
        &mut self,
        row: &Row<'_>,
        at: Option<At>,
        work: &mut Work<'_>,
    ) -> Result<bool, Missing> {
        let Some(id) = text(row, "id") else { return Ok(false) };
        if row.operation == Operation::Delete {
            work.forget(Entity::Credential, id);
            return Ok(true);
        }
        let Some(identity) = text(row, "identity_id") else { return Ok(false) };
        let mut understood = true;
        if let (Some(at), Operation::Insert) = (at, row.operation) {
            let kind = text(row, "identity_credential_type_id").unwrap_or_default();
            let name: Option<String> = work.get(Entity::CredentialType, kind)?;
            let name = name.unwrap_or_else(|| kind.to_owned());
            let owner: Option<Identity> = work.get(Entity::Identity, identity)?;
            let is_new = owner.is_some_and(|owner| owner.xid == at.commit().xid);
            let made = &mut self.inside.credentials;
            understood = made.len() < TRANSACTION_MAX || made.contains_key(identity);
            if !is_new && understood {
                made.entry(identity.to_owned()).or_insert((at, Default::default())).1.insert(name);
            }
        }
        work.put(Entity::Credential, id, &identity);
        Ok(understood)
    }

    /// What an identifier that is typed resolves to.
    pub(super) fn registered_identifier(
        &self,
        row: &Row<'_>,
        at: Option<At>,
        work: &mut Work<'_>,
    ) -> Result<bool, Missing> {
        let Some(identifier) = text(row, "identifier") else { return Ok(false) };
        if row.operation == Operation::Update
            && let Some(old) = old_text(row, "identifier").filter(|old| *old != identifier)
        {
            work.forget(Entity::Identifier, &map_key(self.origin, old));
        }
        let key = map_key(self.origin, identifier);
        let kind = text(row, "identity_credential_type_id").unwrap_or_default();
        // Up to 24 the credential alone knows whose it is.
        let owner: Option<String> = match text(row, "identity_id") {
            Some(identity) => Some(identity.to_owned()),
            None if row.operation == Operation::Delete => None,
            None => {
                let credential = text(row, "identity_credential_id").unwrap_or_default();
                work.get(Entity::Credential, credential)?
            }
        };
        // A first snapshot begins with none, and asking for each would be slow.
        let is_new = at.is_none() && !work.holds(Entity::Identifier, &key);
        let known: Option<Identifier> =
            if is_new { None } else { work.get(Entity::Identifier, &key)? };
        if row.operation == Operation::Delete {
            if let Some(mut known) = known {
                known.types.retain(|other| other != kind);
                if known.types.is_empty() {
                    work.forget(Entity::Identifier, &key);
                } else {
                    work.put(Entity::Identifier, &key, &known);
                }
            }
            return Ok(true);
        }
        let Some(identity) = owner else { return Ok(false) };
        let same = known.filter(|known| known.identity == identity);
        let mut types = same.map(|known| known.types).unwrap_or_default();
        if !types.iter().any(|other| other == kind) {
            types.push(kind.to_owned());
        }
        work.put(Entity::Identifier, &key, &Identifier { identity, types });
        Ok(true)
    }

    /// A settings flow ended well: whoever replaced credentials a moment before was their owner.
    pub(super) fn settings(
        &mut self,
        row: &Row<'_>,
        _at: At,
        work: &mut Work<'_>,
        drafts: &mut Vec<Draft>,
    ) -> bool {
        let is_success = text(row, "state") == Some("success");
        let Some(identity) = text(row, "identity_id").filter(|_| is_success) else { return true };
        let waits = self.pending.iter().filter(|(_, pending)| {
            pending.waiting == Waiting::Credentials && pending.identity.as_deref() == Some(identity)
        });
        let keys: Vec<String> = waits.map(|(key, _)| key.clone()).collect();
        for key in keys {
            if let Some(pending) = self.take_pending(&key, work) {
                drafts.push(Draft::credentials_by_owner(&pending));
            }
        }
        if self.inside.credentials.contains_key(identity) {
            self.inside.settled.insert(identity.to_owned());
        }
        true
    }

    /// What the new credentials of the first identity mean.
    pub(super) fn replaced_credentials(
        &mut self,
        work: &mut Work<'_>,
        drafts: &mut Vec<Draft>,
    ) -> Result<(), Missing> {
        let Some((identity, _)) = self.inside.credentials.first_key_value() else { return Ok(()) };
        let owner: Option<Identity> = work.get(Entity::Identity, identity)?;
        let subject = self.username_of(Some(identity), work)?;
        let Some((identity, (at, methods))) = self.inside.credentials.pop_first() else {
            return Ok(());
        };
        let is_new = owner.is_some_and(|owner| owner.xid == at.commit().xid);
        if is_new || self.inside.changed.contains(&identity) {
            // Up to 1.3 every change of an identity writes all its credentials anew.
            return Ok(());
        }
        let is_settled = self.inside.settled.contains(&identity);
        let pending = Pending {
            waiting: Waiting::Credentials,
            at,
            identity: Some(identity),
            subject,
            method: String::new(),
            facts: FlowFacts::default(),
            reason: None,
            methods: methods.into_iter().collect(),
        };
        if is_settled {
            drafts.push(Draft::credentials_by_owner(&pending));
        } else {
            self.wait(pending, work, drafts);
        }
        Ok(())
    }
}
