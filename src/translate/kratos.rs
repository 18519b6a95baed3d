//! Ory Kratos, the identity server, as a source: logins cannot be told from one row, so they are translated by hand.
//!
//! # Why not by rules
//! A failed login is an UPDATE of a flow that says so, but the success after it repeats the words. A success is a new session, but not each new session is a login. A login that is refused after the password was right leaves no word at all. So a row is read together with what was before it (`state`, in the names map) and with what comes after it: what is not yet clear waits as `Pending`, and is decided by a later row or when the log has passed its window (`Kratos::tick`). While something waits, "complete to" stays before it.
//!
//! # Versions
//! | Kratos | what differs | here |
//! | --- | --- | --- |
//! | 0.5 | forms in a table per method | not supported |
//! | 0.6, 0.7 | a success sets no active_method; no aal, no methods in sessions | no soft failures; events without method and aal |
//! | 0.8 | the identifier's node is `password_identifier` | both nodes are read |
//! | 0.11 | `session_devices` begins | before, no address and no user agent |
//! | 1.1 | flows have a state and a submit_count; a registration opens a session | columns are read where they exist |
//! | to 1.3 | any change of an identity writes all its credentials anew | a change of the identity in the same transaction is no password change |
//! | 25, 26 | identifiers and devices name their identity; only changed credentials are written | where they do not, the credential tells |
//!
//! # Secrets
//! The published columns hold one: `ui`, with a CSRF token and what was typed as the identifier, which may be a password. Message ids and the identifier are taken out of it, the rest is not even parsed; the identifier becomes a username that we know or a keyed hash at once ([`identifier`]). PostgreSQL 14 has no column lists: there whole rows cross the wire, and what is not named here is not looked at.
//!
//! # Limits
//! Flow and session are joined by method, owner and time, for no column joins them: with logins at the same moment the type of a flow may be another's, never its count. An identifier is looked up without its network (`nid`). Attempts that the server refuses before it writes, recovery that never opened a session, and a password that an admin changes within five seconds of a login are not told.

mod emit;
mod flow;
mod hook;
pub mod identifier;
mod identity;
mod session;
pub mod spec;
mod state;

use super::{
    Batch,
    mapping::Mapping,
    names::{NameKey, Names},
    value::parse_path,
};
use crate::{
    event::{Commit, Origin},
    timestamp::Timestamp,
    tuple::{Operation, Row, Value},
};
use emit::Draft;
use identifier::IdentifierKey;
use serde_json_path::JsonPath;
use spec::Kind;
use state::{At, Entity, Missing, Pending, Work};
pub use state::{ENTITIES, PENDING, VOLATILE};
use std::collections::{BTreeMap, BTreeSet};

/// Most candidates that wait at one time; beyond, the oldest is decided at once.
const PENDING_MAX: usize = 10_000;
/// Most new sessions of one transaction that wait for their devices, and most identities of one whose credentials are compared with their other changes.
const TRANSACTION_MAX: usize = 1_000;

/// The translator of one source's Kratos tables.
#[derive(Debug)]
pub(super) struct Kratos {
    origin: Origin,
    source: String,
    timeline: u32,
    username: Vec<JsonPath>,
    window_micros: i64,
    value_limit: usize,
    /// Where [`ENTITIES`] begin among the names tables.
    base: usize,
    key: Option<IdentifierKey>,
    /// In the log's order.
    pending: BTreeMap<String, Pending>,
    /// Nothing of it is due before.
    due: i64,
    inside: Inside,
    missing: Vec<NameKey>,
}

/// What the transaction under way has said so far.
#[derive(Debug, Default)]
struct Inside {
    sessions: Vec<session::NewSession>,
    /// Types of the credentials that were made anew, by identity.
    credentials: BTreeMap<String, (At, BTreeSet<String>)>,
    /// Identities of which more than their credentials changed.
    changed: BTreeSet<String>,
    /// Identities whose settings flow ended well.
    settled: BTreeSet<String>,
}

/// Where events go.
pub(super) struct Out<'a> {
    pub(super) names: &'a mut Names,
    pub(super) batch: &'a mut Batch,
    pub(super) commit: Commit,
    /// Events of the transaction so far.
    pub(super) events: &'a mut u64,
}

impl Kratos {
    pub(super) fn new(
        origin: Origin,
        source: &str,
        mapping: &Mapping,
        value_limit: usize,
    ) -> Option<Self> {
        let spec = mapping.kratos.as_ref()?;
        let paths = spec.username.iter().filter_map(|path| parse_path(path.get_ref()).ok());
        Some(Self {
            origin,
            source: source.to_owned(),
            timeline: 1,
            username: paths.collect(),
            window_micros: spec.window_micros(),
            value_limit,
            base: mapping.kratos_base(),
            key: None,
            pending: BTreeMap::new(),
            due: i64::MAX,
            inside: Inside::default(),
            missing: Vec::new(),
        })
    }

    pub(super) fn set_timeline(&mut self, timeline: u32) {
        self.timeline = timeline;
    }

    pub(super) fn set_identifier_key(&mut self, key: Option<IdentifierKey>) {
        self.key = key;
    }

    /// What waited when the source was last followed, by key.
    pub(super) fn restore(&mut self, rows: &[(String, String)]) {
        self.pending = rows
            .iter()
            .filter_map(|(key, text)| Some((key.clone(), serde_json::from_str(text).ok()?)))
            .collect();
        self.due = self.first_deadline();
    }

    /// The commit time of the oldest change that waits: the record is complete to before it.
    pub(super) fn waits_since(&self) -> Option<Timestamp> {
        self.pending.values().map(|pending| Timestamp(pending.at.time())).min()
    }

    /// A transaction begins.
    pub(super) fn begin(&mut self) {
        self.inside = Inside::default();
    }

    /// The log has come to `time`: what has waited for longer is decided.
    pub(super) fn tick(&mut self, time: Timestamp, batch: &mut Batch) {
        if self.due >= time.0 {
            return;
        }
        let due = |pending: &Pending| self.deadline(pending) < time.0;
        let keys: Vec<String> = self
            .pending
            .iter()
            .filter(|(_, pending)| due(pending))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.decide(&key, batch);
        }
        self.due = self.first_deadline();
    }

    /// When something that waits may be due, at the earliest.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        (!self.pending.is_empty()).then_some(Timestamp(self.due))
    }

    fn first_deadline(&self) -> i64 {
        let deadlines = self.pending.values().map(|pending| self.deadline(pending));
        deadlines.min().unwrap_or(i64::MAX)
    }

    fn deadline(&self, pending: &Pending) -> i64 {
        let window = match pending.waiting {
            state::Waiting::Credentials => self.window_micros.min(identity::REHASH_MICROS),
            state::Waiting::Soft | state::Waiting::Held => self.window_micros,
        };
        pending.at.time().saturating_add(window)
    }

    /// Nothing came that says otherwise.
    fn decide(&mut self, key: &str, batch: &mut Batch) {
        if let Some(pending) = self.pending.remove(key) {
            batch.names.push(self.forgotten(key));
            self.push(&Draft::decided(&pending), &mut 0, batch);
        }
    }

    fn forgotten(&self, key: &str) -> super::names::NameRow {
        let NameKey { names, key } = state::names_key(self.base, Entity::Pending, key);
        super::names::NameRow { names, key, name: None }
    }

    /// Takes what waits off without an event.
    fn take_pending(&mut self, key: &str, work: &mut Work<'_>) -> Option<Pending> {
        work.forget(Entity::Pending, key);
        self.pending.remove(key)
    }

    fn wait(&mut self, pending: Pending, work: &mut Work<'_>, drafts: &mut Vec<Draft>) {
        if self.pending.len() >= PENDING_MAX
            && let Some((key, oldest)) = self.pending.pop_first()
        {
            work.forget(Entity::Pending, &key);
            drafts.push(Draft::decided(&oldest));
        }
        self.due = self.due.min(self.deadline(&pending));
        let key = pending.at.key();
        work.put(Entity::Pending, &key, &pending);
        self.pending.insert(key, pending);
    }

    /// Translates a row's change, or takes a row of a snapshot in if there is no `at`. Says whether it was understood; none if names are missing, and then nothing is done.
    fn change(
        &mut self,
        kind: Kind,
        row: &Row<'_>,
        at: Option<At>,
        context: Option<&str>,
        out: &mut Out<'_>,
    ) -> Option<bool> {
        self.working(out, |kratos, work, drafts| {
            let taken = match (kind, at) {
                (Kind::CredentialTypes, _) => Ok(identity::credential_type(row, work)),
                (Kind::Identities, _) => kratos.identity(row, at, work, drafts),
                (Kind::Credentials, _) => kratos.credential(row, at, work),
                (Kind::Identifiers, _) => kratos.registered_identifier(row, at, work),
                (Kind::Sessions, _) => kratos.session(row, at, work, drafts),
                (Kind::LoginFlows, _) => kratos.login_flow(row, at, work, drafts),
                (Kind::Devices, Some(_)) => Ok(kratos.device(row)),
                (Kind::SettingsFlows, Some(at)) => Ok(kratos.settings(row, at, work, drafts)),
                (Kind::Devices | Kind::SettingsFlows, None) => Ok(true),
            };
            let commit = at.map(At::commit);
            for draft in drafts.iter_mut().filter(|draft| Some(draft.at.commit()) == commit) {
                draft.context = context.map(str::to_owned);
            }
            taken
        })
    }

    /// The transaction has ended: what it said as a whole. `None` if names are missing; call again then.
    pub(super) fn finish(&mut self, out: &mut Out<'_>) -> Option<()> {
        while !self.inside.sessions.is_empty() {
            self.working(out, Self::new_session)?;
        }
        while !self.inside.credentials.is_empty() {
            self.working(out, Self::replaced_credentials)?;
        }
        Some(())
    }

    /// Does a piece of work as a whole, or, if names are missing, not at all: it changes nothing of `self` before it has read all.
    fn working<T>(
        &mut self,
        out: &mut Out<'_>,
        act: impl FnOnce(&mut Self, &mut Work<'_>, &mut Vec<Draft>) -> Result<T, Missing>,
    ) -> Option<T> {
        let mut missing = std::mem::take(&mut self.missing);
        let mut drafts = Vec::new();
        let mut work =
            Work { names: out.names, base: self.base, missing: &mut missing, puts: Vec::new() };
        let done = act(self, &mut work, &mut drafts).ok();
        let puts = work.puts;
        self.missing = missing;
        let done = done?;
        for put in puts {
            out.names.put(put.names, &put.key, put.name.clone());
            out.batch.names.push(put);
        }
        for draft in &drafts {
            let mut elsewhere = 0;
            let is_here = draft.at.commit() == out.commit;
            let ordinal = if is_here { &mut *out.events } else { &mut elsewhere };
            self.push(draft, ordinal, out.batch);
        }
        Some(done)
    }

    /// What was missing last.
    pub(super) fn take_missing(&mut self) -> Vec<NameKey> {
        std::mem::take(&mut self.missing)
    }

    /// Keys that a row further on will ask for, so that one question asks for many.
    pub(super) fn foresee(&self, kind: Kind, row: &Row<'_>, names: &Names) -> Option<NameKey> {
        let is_known = row.operation != Operation::Insert && kind == Kind::Sessions;
        let id = text(row, "id").filter(|_| is_known)?;
        let key = state::names_key(self.base, Entity::Session, id);
        names.peek(key.names, &key.key).is_none().then_some(key)
    }
}

/// A column's text; none if it is NULL, was not sent or is not UTF-8.
fn text<'a>(row: &Row<'a>, column: &str) -> Option<&'a str> {
    utf8(row.value(row.relation.position(column)?))
}

/// The same before the change.
fn old_text<'a>(row: &Row<'a>, column: &str) -> Option<&'a str> {
    utf8(row.old_value(row.relation.position(column)?))
}

fn utf8(value: Value<'_>) -> Option<&str> {
    let Value::Text(bytes) = value else { return None };
    std::str::from_utf8(bytes).ok()
}

/// A `timestamp` of Kratos, which is UTC.
fn time(row: &Row<'_>, column: &str) -> Option<i64> {
    let value = row.value(row.relation.position(column)?);
    super::rule::parse_time(value).map(|time| time.0)
}
