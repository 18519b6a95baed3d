//! What is remembered from one transaction to the next. All of it lies in the names map, as JSON, so that it is written with the events, found again after a restart and bounded in memory.

use super::super::names::{NameKey, NameRow, Names};
use crate::{
    event::{ChangeKey, Commit},
    lsn::Lsn,
    timestamp::Timestamp,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The names tables of the translator, behind those of the mapping.
pub const ENTITIES: [&str; 7] = [
    "kratos.credential_type",
    "kratos.identity",
    "kratos.credential",
    "kratos.identifier",
    "kratos.session",
    "kratos.flow",
    "kratos.pending",
];

/// Those of them that a source begins anew without: they say how things are, not what things were called.
pub const VOLATILE: &[&str] =
    &["kratos.credential", "kratos.identifier", "kratos.session", "kratos.flow", PENDING];
/// What waits, by key.
pub const PENDING: &str = "kratos.pending";

/// A place in [`ENTITIES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entity {
    CredentialType,
    Identity,
    Credential,
    Identifier,
    Session,
    Flow,
    Pending,
}

impl Entity {
    fn place(self) -> usize {
        match self {
            Self::CredentialType => 0,
            Self::Identity => 1,
            Self::Credential => 2,
            Self::Identifier => 3,
            Self::Session => 4,
            Self::Flow => 5,
            Self::Pending => 6,
        }
    }
}

/// A key that is not in memory was asked for; nothing was done.
#[derive(Debug)]
pub(super) struct Missing;

/// An identity; kept when it is deleted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Username, if its traits have one.
    #[serde(rename = "u")]
    pub(super) username: Option<String>,
    /// When it was registered.
    #[serde(rename = "t")]
    pub(super) registered: i64,
    /// The transaction that registered it, where it was seen.
    #[serde(rename = "x", default)]
    pub(super) xid: u32,
    /// The session that registration opens was seen.
    #[serde(rename = "r", default)]
    pub(super) has_session: bool,
    #[serde(rename = "d", default)]
    pub(super) is_deleted: bool,
}

/// Whose a registered identifier is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Identifier {
    #[serde(rename = "i")]
    pub(super) identity: String,
    /// The types of the credentials that have it, by id.
    #[serde(rename = "c")]
    pub(super) types: Vec<String>,
}

/// An active session.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Session {
    #[serde(rename = "i")]
    pub(super) identity: String,
    #[serde(rename = "e")]
    pub(super) expires: i64,
    #[serde(rename = "a")]
    pub(super) authenticated: i64,
    #[serde(rename = "l", default)]
    pub(super) aal: Option<String>,
}

/// A login flow as its last row was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Flow {
    pub(super) id: String,
    #[serde(rename = "m")]
    pub(super) method: String,
    #[serde(rename = "s", default)]
    pub(super) state: Option<String>,
    #[serde(rename = "n", default)]
    pub(super) submit_count: Option<String>,
    /// Whom the identifier typed last belongs to.
    #[serde(rename = "i", default)]
    pub(super) identity: Option<String>,
    /// What it said last and is not yet decided, by its key.
    #[serde(rename = "p", default)]
    pub(super) waits: Option<String>,
}

/// Which change an event is about.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct At {
    xid: u32,
    commit_lsn: u64,
    time: i64,
    wal_start: u64,
    relation: u32,
    index: u32,
}

impl At {
    pub(super) fn new(commit: Commit, change: ChangeKey) -> Self {
        let Commit { xid, commit_lsn, commit_time } = commit;
        let ChangeKey { wal_start, relation, index } = change;
        let (commit_lsn, time, wal_start) = (commit_lsn.0, commit_time.0, wal_start.0);
        Self { xid, commit_lsn, time, wal_start, relation, index }
    }

    pub(super) fn commit(self) -> Commit {
        let (commit_lsn, commit_time) = (Lsn(self.commit_lsn), Timestamp(self.time));
        Commit { xid: self.xid, commit_lsn, commit_time }
    }

    pub(super) fn change(self) -> ChangeKey {
        let wal_start = Lsn(self.wal_start);
        ChangeKey { wal_start, relation: self.relation, index: self.index }
    }

    pub(super) fn time(self) -> i64 {
        self.time
    }

    /// Sorts as the log does.
    pub(super) fn key(self) -> String {
        format!("{:016x}-{:016x}-{:08x}", self.commit_lsn, self.wal_start, self.index)
    }
}

/// What waits for a word that may yet come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Waiting {
    /// A flow came to its end: a session follows, or the login was refused.
    Soft,
    /// A failure that a success in the same flow would look like.
    Held,
    /// Credentials were replaced: by their owner, by an admin, or by a login that hashed the password anew.
    Credentials,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) waiting: Waiting,
    pub(super) at: At,
    #[serde(default)]
    pub(super) identity: Option<String>,
    pub(super) subject: String,
    #[serde(default)]
    pub(super) method: String,
    #[serde(default)]
    pub(super) facts: FlowFacts,
    #[serde(default)]
    pub(super) reason: Option<u32>,
    #[serde(default)]
    pub(super) methods: Vec<String>,
}

/// What a flow's row says beside its state.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct FlowFacts {
    pub(super) kind: Option<String>,
    pub(super) aal: Option<String>,
    pub(super) is_refresh: bool,
}

/// Reads and writes of the map for one row: what is written counts only if nothing that is read is missing.
pub(super) struct Work<'a> {
    pub(super) names: &'a mut Names,
    /// Where [`ENTITIES`] begin among the names tables.
    pub(super) base: usize,
    pub(super) missing: &'a mut Vec<NameKey>,
    pub(super) puts: Vec<NameRow>,
}

impl Work<'_> {
    /// What is known of a key; a text that cannot be read, of another version of ours, is not known.
    pub(super) fn get<T: DeserializeOwned>(
        &mut self,
        entity: Entity,
        key: &str,
    ) -> Result<Option<T>, Missing> {
        let place = self.base + entity.place();
        let put = self.puts.iter().rev().find(|put| put.names == place && put.key == key);
        let text = match put {
            Some(put) => put.name.as_deref(),
            None if self.names.peek(place, key).is_some() => {
                self.names.get(place, key).map(|name| &**name)
            }
            None => {
                self.missing.push(NameKey { names: place, key: key.to_owned() });
                return Err(Missing);
            }
        };
        Ok(text.and_then(|text| serde_json::from_str(text).ok()))
    }

    /// Whether it is in memory what is known of a key.
    pub(super) fn holds(&self, entity: Entity, key: &str) -> bool {
        self.names.peek(self.base + entity.place(), key).is_some()
    }

    pub(super) fn put<T: Serialize>(&mut self, entity: Entity, key: &str, value: &T) {
        let name = serde_json::to_string(value).ok().map(Into::into);
        self.puts.push(NameRow { names: self.base + entity.place(), key: key.to_owned(), name });
    }

    pub(super) fn forget(&mut self, entity: Entity, key: &str) {
        let key = key.to_owned();
        self.puts.push(NameRow { names: self.base + entity.place(), key, name: None });
    }
}

/// The place of `entity` among the names tables.
pub(super) fn names_key(base: usize, entity: Entity, key: &str) -> NameKey {
    NameKey { names: base + entity.place(), key: key.to_owned() }
}
