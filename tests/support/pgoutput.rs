//! A stream of pgoutput messages by hand, as the manual (section 55.9) lays them out.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on ends")]

use portal_audit::{
    event::Origin,
    lsn::Lsn,
    transaction::{Assembler, Transaction},
    translate::{Batch, Limits, Step, Translator, mapping::Mapping},
};
use std::{num::NonZeroUsize, sync::Arc};

/// A rule per operation, each with a payload of three keys.
const MAPPING: &str = r#"
[[event]]
type         = "member_added"
table        = "portal.members"
on           = "insert"
subject      = "organization"
subject_type = "organization"
target       = "username"
payload      = { role = { label = "role" }, state = { label = "state" }, kind = { value = "usermember" } }
describe     = "{caller} added {target} to {subject}"
visible_to   = ["admin"]
retention    = "project"

[[event]]
type         = "member_state_changed"
table        = "portal.members"
on           = "update"
when         = { state = { changes = true } }
subject      = "organization"
subject_type = "organization"
target       = "username"
payload      = { old_state = { label = "state", old = true }, state = { label = "state" }, role = { label = "role" } }
describe     = "{caller} changed {target} in {subject}"
visible_to   = ["admin"]
retention    = "project"

[[event]]
type         = "member_deleted"
table        = "portal.members"
on           = "delete"
subject      = "organization"
subject_type = "organization"
target       = "username"
payload      = { role = { label = "role" }, state = { label = "state" }, kind = { value = "usermember" } }
describe     = "{caller} removed {target} from {subject}"
visible_to   = ["admin"]
retention    = "project"
"#;

const OID: u32 = 16_400;
const NAMES: [&str; 5] = ["id", "organization", "username", "role", "state"];

fn tuple(columns: usize, id: usize, state: &str) -> Vec<u8> {
    let (id, username) = (id.to_string(), format!("user{}", id % 2_000));
    let mut bytes = u16::try_from(columns).unwrap().to_be_bytes().to_vec();
    for place in 0..columns {
        let values = [id.as_str(), "orgtest", &username, "Member", state];
        let value = values.get(place).copied().unwrap_or("a value that no rule reads");
        bytes.push(b't');
        bytes.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
        bytes.extend(value.as_bytes());
    }
    bytes
}

fn relation(columns: usize) -> Vec<u8> {
    let mut bytes = [&b"R"[..], &OID.to_be_bytes(), b"portal\0members\0f"].concat();
    bytes.extend(u16::try_from(columns).unwrap().to_be_bytes());
    for place in 0..columns {
        let name = NAMES.get(place).map_or_else(|| format!("c{place}"), |name| (*name).to_owned());
        bytes.extend([&[1][..], name.as_bytes(), &[0, 0, 0, 0, 25, 255, 255, 255, 255]].concat());
    }
    bytes
}

/// Insert, update and delete in turns.
fn change(columns: usize, number: usize) -> Vec<u8> {
    let (tag, old, new) = (["I", "U", "D"][number % 3], !number.is_multiple_of(3), number % 3 < 2);
    let mut bytes = [tag.as_bytes(), &OID.to_be_bytes()].concat();
    if old {
        bytes.extend([&b"O"[..], &tuple(columns, number, "Pending")].concat());
    }
    if new {
        bytes.extend([&b"N"[..], &tuple(columns, number, "Active")].concat());
    }
    bytes
}

/// The messages of `transactions` with `changes` each; the first describes its table.
pub(crate) fn stream(columns: usize, transactions: usize, changes: usize) -> Vec<(Lsn, Vec<u8>)> {
    let mut messages = Vec::new();
    for transaction in 0..transactions {
        let lsn = 1_000_000 + transaction as u64 * 1_000_000;
        let (commit, end) = (lsn.to_be_bytes(), (lsn + 50).to_be_bytes());
        let time = 830_292_623_123_456_i64.to_be_bytes();
        let xid = u32::try_from(transaction).unwrap().to_be_bytes();
        messages.push((Lsn(lsn), [&b"B"[..], &commit, &time, &xid].concat()));
        if transaction == 0 {
            messages.push((Lsn(0), relation(columns)));
        }
        for number in 0..changes {
            let lsn = Lsn(lsn - 900_000 + number as u64);
            messages.push((lsn, change(columns, transaction * changes + number)));
        }
        messages.push((Lsn(lsn), [&b"C\0"[..], &commit, &end, &time].concat()));
    }
    messages
}

/// Stages 3 and 4.
pub(crate) struct Stages {
    assembler: Assembler,
    translator: Translator,
}

impl Stages {
    pub(crate) fn new() -> Self {
        let mapping = Mapping::parse("members.toml", MAPPING).unwrap();
        let limits = Limits {
            names: NonZeroUsize::new(1_000).unwrap(),
            value_bytes: 65_536,
            batch_events: usize::MAX,
            batch_bytes: usize::MAX,
        };
        let origin = Origin { system_identifier: 7, database_oid: 5 };
        Self {
            assembler: Assembler::new(64 << 20, std::env::temp_dir()),
            translator: Translator::new(origin, "portal", Arc::new(mapping), limits),
        }
    }

    /// Takes messages to events.
    pub(crate) fn run(&mut self, messages: &[(Lsn, Vec<u8>)], batch: &mut Batch) {
        for (lsn, message) in messages {
            if let Some(transaction) = self.assembler.push(*lsn, message).unwrap() {
                self.translate(&transaction, batch);
                self.assembler.recycle(transaction);
            }
        }
    }

    fn translate(&mut self, transaction: &Transaction, batch: &mut Batch) {
        let mut translation = self.translator.begin(transaction);
        let step = self.translator.advance(transaction, &mut translation, batch).unwrap();
        assert_eq!(step, Step::Done);
    }
}
