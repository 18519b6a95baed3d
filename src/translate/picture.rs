//! What is covered: the publication and the mapped tables as the source's catalog has them, kept from one look to the next.
//!
//! # Why
//! Nothing in the stream tells that a table left the publication for a while, that a partition came with its rows, or that a table was dropped and made again. So the catalog is looked at again and again, each look is compared with the one before ([`changes`]), and each difference is an event with the bounds between which it must have happened ([`tell()`]). It holds words of the structure only, never a value of a row.

mod tell;

pub use tell::{EVENT_TYPES, EventType, check, tell};

use super::mapping::Mapping;
use crate::{event::Origin, lsn::Lsn, timestamp::Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Facts of one object, by their names. A column stands as `#` and its number, which a new name does not change.
pub type Facts = BTreeMap<String, String>;

/// The fact that says whether an object is there; the others are known only if it is.
pub const STATE: &str = "state";
/// It is there.
pub const THERE: &str = "there";
/// There is none of that name.
pub const ABSENT: &str = "absent";
/// Begins the state of an object that is there under another name.
pub const RENAMED: &str = "renamed to ";

/// The structure of a source, as far as it decides what is recorded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// Oid of the publication, kept when it is gone.
    pub publication_oid: u32,
    pub publication: Facts,
    /// By the name that the mapping uses.
    pub tables: BTreeMap<String, TablePicture>,
}

/// A mapped table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablePicture {
    /// Kept when the table is gone; 0 if it never was there.
    pub oid: u32,
    pub facts: Facts,
    /// By number, which is never used again.
    pub columns: BTreeMap<i16, ColumnPicture>,
}

/// A column, published or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnPicture {
    pub name: String,
    #[serde(rename = "type")]
    pub type_name: String,
}

/// What changes belong to: the publication, or a mapped table. Its order is that of events.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "is", content = "name", rename_all = "snake_case")]
pub enum Object {
    Publication(String),
    Table(String),
}

impl Object {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Publication(name) | Self::Table(name) => name,
        }
    }

    /// As in `events.subject_type`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Publication(_) => "publication",
            Self::Table(_) => "table",
        }
    }
}

/// Why an object is not covered, or not wholly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    #[serde(flatten)]
    pub object: Object,
    pub reason: String,
    /// What to do.
    pub fix: String,
    /// Parts of the mapping that stand still: event types, or `names.X`.
    pub rules: Vec<String>,
    /// Whether it is the shape of the table that does not fit the mapping, rather than the publication.
    pub is_schema: bool,
    /// It was covered up to here.
    #[serde(with = "lsn_text")]
    pub from_lsn: Lsn,
    #[serde(with = "time_text")]
    pub from_time: Timestamp,
}

/// What is not covered.
pub type Holes = Vec<Hole>;

/// One look at the catalog.
#[derive(Debug, Clone)]
pub struct Look {
    pub origin: Origin,
    /// The publication's name, there or not.
    pub publication: String,
    pub picture: Picture,
    /// What is not covered, as of this look; the bounds are not filled in.
    pub holes: Holes,
    /// The end of the log and the source's clock before the look: what it shows as old was so up to here.
    pub before: (Lsn, Timestamp),
    /// The same after it: what it shows as new was so from here on.
    pub after: (Lsn, Timestamp),
}

/// What is stored of the last look.
#[derive(Debug, Clone)]
pub struct Covered {
    pub origin: Origin,
    /// [`fingerprint`] of the mapping and the publication's name.
    pub fingerprint: String,
    pub picture: Picture,
    pub holes: Holes,
    pub lsn: Lsn,
    pub time: Timestamp,
}

/// A value of a fact, or of a part of the shape, before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub what: String,
    pub old: Option<String>,
    pub new: Option<String>,
}

/// What became of one object between two looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub object: Object,
    pub is_schema: bool,
    pub differences: Vec<Difference>,
    /// Why changes of rows may be missing; none: they are not.
    pub missing: Vec<&'static str>,
    /// The hole that is there now.
    pub hole: Option<Hole>,
    /// The hole that was there before and is not now.
    pub filled: Option<Hole>,
}

/// Tells whether settings are the ones of the last look.
#[must_use]
pub fn fingerprint(mapping: &Mapping, publication: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(mapping.text().as_bytes());
    hash.update([0]);
    hash.update(publication.as_bytes());
    let hash: [u8; 32] = hash.finalize().into();
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

impl Covered {
    /// What the first look finds: nothing to compare it with.
    #[must_use]
    pub fn first(look: &Look, fingerprint: &str) -> Self {
        let mut covered = Self {
            origin: look.origin,
            fingerprint: fingerprint.to_owned(),
            picture: look.picture.clone(),
            holes: Vec::new(),
            lsn: look.before.0,
            time: look.before.1,
        };
        covered.holes = covered.bounded(look);
        covered
    }

    /// The same after the look.
    #[must_use]
    pub fn after(&self, look: &Look, fingerprint: &str) -> Self {
        Self { holes: self.bounded(look), ..Self::first(look, fingerprint) }
    }

    /// The holes of a look, with the bounds of those that were there before.
    fn bounded(&self, look: &Look) -> Holes {
        let holes = look.holes.iter().map(|hole| {
            let old = hole_of(&self.holes, &hole.object, hole.is_schema);
            let (from_lsn, from_time) =
                old.map_or((self.lsn, self.time), |old| (old.from_lsn, old.from_time));
            Hole { from_lsn, from_time, ..hole.clone() }
        });
        holes.collect()
    }

    /// The tables of the mapping by the oid that they have or had.
    #[must_use]
    pub fn known(&self) -> BTreeMap<u32, String> {
        let tables = self.picture.tables.iter().filter(|(_, table)| table.oid != 0);
        tables.map(|(name, table)| (table.oid, name.clone())).collect()
    }
}

fn hole_of<'a>(holes: &'a [Hole], object: &Object, is_schema: bool) -> Option<&'a Hole> {
    holes.iter().find(|hole| hole.object == *object && hole.is_schema == is_schema)
}

/// Whether a hole is the same one, however long it is there.
fn is_same(one: Option<&Hole>, other: Option<&Hole>) -> bool {
    let words = |hole: Option<&Hole>| hole.map(|hole| (hole.reason.clone(), hole.rules.clone()));
    words(one) == words(other)
}

/// What a look changes: the publication, then the tables by name.
#[must_use]
pub fn changes(before: &Covered, look: &Look) -> Vec<Change> {
    let mut changes = Vec::new();
    let publication = Object::Publication(look.publication.clone());
    let (old, new) = (&before.picture, &look.picture);
    let differences = differences(&old.publication, &new.publication, &|fact| fact.to_owned());
    push(&mut changes, (before, look), publication, (false, differences));
    let is_via_root = |picture: &Picture| {
        picture.publication.get("via root").is_some_and(|via_root| via_root == "yes")
    };
    let is_via_root = is_via_root(old) && is_via_root(new);
    for (name, now) in &new.tables {
        let object = Object::Table(name.clone());
        let Some(then) = old.tables.get(name) else {
            // The mapping has come to name it: nothing of it was covered before.
            continue;
        };
        let shown = |table: &TablePicture, fact: &str| shown(table, fact);
        let mut facts = table_differences(then, now);
        facts.retain(|difference| !is_told_by_itself(difference, is_via_root));
        for difference in &mut facts {
            difference.old = difference.old.take().map(|fact| shown(then, &fact));
            difference.new = difference.new.take().map(|fact| shown(now, &fact));
        }
        let is_renamed = |fact: &Difference| {
            let words = [&fact.old, &fact.new];
            fact.what == STATE && words.into_iter().flatten().any(|word| word.starts_with(RENAMED))
        };
        let (mut shape, facts): (Vec<_>, Vec<_>) = facts.into_iter().partition(is_renamed);
        if is_there(&then.facts) && is_there(&now.facts) {
            shape.extend(column_differences(then, now));
        }
        push(&mut changes, (before, look), object.clone(), (false, facts));
        push(&mut changes, (before, look), object, (true, shape));
    }
    changes
}

fn push(
    changes: &mut Vec<Change>,
    (before, look): (&Covered, &Look),
    object: Object,
    (is_schema, differences): (bool, Vec<Difference>),
) {
    let old = hole_of(&before.holes, &object, is_schema);
    let new = hole_of(&look.holes, &object, is_schema);
    if differences.is_empty() && is_same(old, new) {
        return;
    }
    let is_hole = old.or(new).is_some();
    let mut missing: Vec<&str> = Vec::new();
    if is_schema && is_hole {
        missing.push("rules that do not fit the table tell nothing; changes that they might have taken are events of type change_unmapped");
    } else if !is_schema {
        missing.extend(differences.iter().filter_map(|difference| because(&object, difference)));
        if missing.is_empty() && is_hole {
            missing.push("what was not covered is not in the log that we read");
        }
    }
    missing.sort_unstable();
    missing.dedup();
    let filled = old.filter(|_| new.is_none()).cloned();
    let hole = new.cloned();
    changes.push(Change { object, is_schema, differences, missing, hole, filled });
}

/// Why changes of rows may be missing after a fact has changed.
fn because(object: &Object, difference: &Difference) -> Option<&'static str> {
    let what = difference.what.as_str();
    let is_publication = matches!(object, Object::Publication(_));
    match what {
        "also publishes" | "name" | "replica identity" => None,
        STATE | "oid" if is_publication => Some(
            "what was changed while there was no such publication is not in the log that we read",
        ),
        "operations" => {
            Some("operations that the publication left out are not in the log that we read")
        }
        "altered" => Some(
            "somebody altered the publication, and it looks as before: what it left out meanwhile is not in the log that we read",
        ),
        "via root" => Some("changes of partitions came under other names, which no rule takes"),
        STATE | "oid" => {
            Some("the rows of a table that is dropped go without a change of their own")
        }
        "published as" | "tables" | "schemas" => {
            Some("changes while the table was not published are not in the log that we read")
        }
        "row filter" => Some("rows that the filter left out are not in the log that we read"),
        "columns published" => Some("columns that the list left out are missing from the events"),
        _ if what.starts_with("partition ") => Some(match (&difference.old, &difference.new) {
            (None, _) => {
                "rows that the partition had when it was attached came without a change of their own"
            }
            (_, None) => "rows of the partition went without a change of their own",
            (Some(old), Some(new)) if file_of(old) == file_of(new) => return None,
            _ => {
                "the partition was truncated, rewritten or made again: a truncation of a partition is not in the log that we read"
            }
        }),
        _ => None,
    }
}

/// The part of a partition's fact that says which rows it holds.
fn file_of(partition: &str) -> Option<&str> {
    partition.split_once(", replica identity").map(|(file, _)| file)
}

/// Whether only the file of a partition is another one. One that is published as itself tells its truncation itself.
fn is_told_by_itself(difference: &Difference, is_via_root: bool) -> bool {
    let without_file = |fact: &String| {
        let (oid, rest) = fact.split_once(", file ")?;
        Some((oid.to_owned(), rest.split_once(',')?.1.to_owned()))
    };
    let [old, new] = [&difference.old, &difference.new].map(Option::as_ref);
    let is_file = old.and_then(without_file) == new.and_then(without_file);
    !is_via_root && difference.what.starts_with("partition ") && old.is_some() && is_file
}

fn is_there(facts: &Facts) -> bool {
    facts.get(STATE).is_some_and(|state| state == THERE)
}

fn differences(old: &Facts, new: &Facts, named: &dyn Fn(&str) -> String) -> Vec<Difference> {
    let is_one_state = old.get(STATE) == new.get(STATE);
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut differences: Vec<Difference> = names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        // Of what is not there no more can be said.
        .filter(|name| is_one_state || *name == STATE)
        .map(|name| Difference {
            what: named(name),
            old: old.get(name).cloned(),
            new: new.get(name).cloned(),
        })
        .collect();
    // Each change of a publication's row alters it; alone it says that something was changed, and back.
    if differences.len() > 1 {
        differences.retain(|difference| difference.what != "altered");
    }
    differences
}

fn table_differences(then: &TablePicture, now: &TablePicture) -> Vec<Difference> {
    let mut facts = differences(&then.facts, &now.facts, &|fact| fact.to_owned());
    if then.oid != now.oid && then.oid != 0 && now.oid != 0 {
        let (old, new) = (Some(then.oid.to_string()), Some(now.oid.to_string()));
        facts.push(Difference { what: "oid".to_owned(), old, new });
    }
    facts
}

/// A fact with the names of its columns.
fn shown(table: &TablePicture, fact: &str) -> String {
    let mut pieces = fact.split('#');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = piece.split_at_checked(digits).unwrap_or((piece, ""));
        let column = number.parse::<i16>().ok().and_then(|number| table.columns.get(&number));
        match column {
            Some(column) => out.push_str(&column.name),
            None => out.push_str(&format!("#{number}")),
        }
        out.push_str(rest);
    }
    out
}

/// Columns that were added, dropped, renamed or given another type. In a table that was made again the numbers say nothing, so there the names are compared.
fn column_differences(then: &TablePicture, now: &TablePicture) -> Vec<Difference> {
    let by_number = then.oid == now.oid;
    let mut differences = Vec::new();
    let mut tell = |what: String, old: Option<&str>, new: Option<&str>| {
        let (old, new) = (old.map(str::to_owned), new.map(str::to_owned));
        differences.push(Difference { what, old, new });
    };
    let same = |number: i16, column: &ColumnPicture, others: &BTreeMap<i16, ColumnPicture>| {
        let named = || others.values().find(|other| other.name == column.name);
        if by_number { others.get(&number) } else { named() }.cloned()
    };
    for (number, old) in &then.columns {
        match same(*number, old, &now.columns) {
            None => tell(format!("column {}", old.name), Some(&old.type_name), None),
            Some(new) => {
                if new.name != old.name {
                    tell("column name".to_owned(), Some(&old.name), Some(&new.name));
                }
                if new.type_name != old.type_name {
                    let what = format!("column {}", new.name);
                    tell(what, Some(&old.type_name), Some(&new.type_name));
                }
            }
        }
    }
    for (number, new) in &now.columns {
        if same(*number, new, &then.columns).is_none() {
            tell(format!("column {}", new.name), None, Some(&new.type_name));
        }
    }
    differences
}

mod lsn_text {
    use crate::lsn::Lsn;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(lsn: &Lsn, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(lsn)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Lsn, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

mod time_text {
    use crate::timestamp::Timestamp;
    use chrono::{DateTime, Utc};
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(time)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        DateTime::<Utc>::deserialize(from).map(Timestamp::from)
    }
}
