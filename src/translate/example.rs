//! The examples of a block: a row's change, and the event that it must give. `portal-audit mapping test` runs them.

use super::value::Name;
use serde::{
    Deserialize, Deserializer,
    de::{
        self, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer,
        value::SeqAccessDeserializer,
    },
};
use std::{collections::BTreeMap, fmt, marker::PhantomData};

/// Columns of a row with their values. A value's type is that of TOML: a table or a list stands for a `jsonb`, anything that is not here for NULL.
pub type Cells = BTreeMap<Name, serde_json::Value>;

/// One example: `[[event.example]]`, or `example = { … }` if it is the only one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "ExampleTable")]
pub struct ExampleSpec {
    /// The row after the change; without it the row is deleted.
    pub new: Option<Cells>,
    /// The row before the change; without it the row is inserted. Beside `new` only what was different.
    pub old: Option<Cells>,
    /// Columns that were NULL before an UPDATE, which no value of TOML can say.
    pub null: Vec<Name>,
    /// Rows that the same transaction inserted before.
    pub beside: Vec<BesideSpec>,
    /// What `[names.X]` knows: X → key → name.
    pub names: BTreeMap<String, BTreeMap<String, String>>,
    /// The caller that a context of the transaction names.
    pub context: Option<String>,
    /// The events in order; empty for a near miss.
    pub gives: Vec<GivesSpec>,
}

/// A row of another table in the same transaction.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BesideSpec {
    pub table: Name,
    pub new: Cells,
}

/// What is expected of an event; what is not named is not compared. An empty text stands for a column that is NULL.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivesSpec {
    pub subject: Option<String>,
    pub target: Option<String>,
    pub caller: Option<String>,
    pub success: Option<bool>,
    pub error_message: Option<String>,
    /// Each named key must be there with this value.
    #[serde(default)]
    pub payload: BTreeMap<String, serde_json::Value>,
    /// The sentence with its placeholders filled.
    pub says: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExampleTable {
    new: Option<Cells>,
    old: Option<Cells>,
    #[serde(default)]
    null: Vec<Name>,
    #[serde(default)]
    beside: Vec<BesideSpec>,
    #[serde(default)]
    names: BTreeMap<String, BTreeMap<String, String>>,
    context: Option<String>,
    gives: Gives,
}

impl TryFrom<ExampleTable> for ExampleSpec {
    type Error = String;

    fn try_from(table: ExampleTable) -> Result<Self, String> {
        let ExampleTable { new, old, null, beside, names, context, gives: Gives(gives) } = table;
        if new.is_none() && old.is_none() {
            return Err("an example needs \"new\", \"old\" or both\nA row with new alone is inserted, with old alone deleted, with both updated.".into());
        }
        if !null.is_empty() && new.is_none() {
            return Err("\"null\" is about an update\nA column that is not named is NULL.".into());
        }
        Ok(Self { new, old, null, beside, names, context, gives })
    }
}

impl ExampleSpec {
    /// Where it stands, as far as a column of it tells.
    #[must_use]
    pub fn place(&self) -> Option<std::ops::Range<usize>> {
        let cells = self.old.iter().chain(&self.new).flat_map(BTreeMap::keys);
        cells.map(toml::Spanned::span).min_by_key(|span| span.start)
    }
}

/// `"nothing"`, one event or a list of them.
struct Gives(Vec<GivesSpec>);

impl<'de> Deserialize<'de> for Gives {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tables { nothing: true, of: PhantomData }).map(Self)
    }
}

/// The examples of a block: one table or several.
#[derive(Debug, Clone, Default)]
pub struct Examples(pub Vec<ExampleSpec>);

impl<'de> Deserialize<'de> for Examples {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tables { nothing: false, of: PhantomData }).map(Self)
    }
}

struct Tables<T> {
    /// Whether the word "nothing" may stand there.
    nothing: bool,
    of: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Tables<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nothing = if self.nothing { "\"nothing\", " } else { "" };
        write!(f, "{nothing}a table in braces or a list of them")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<T>, E> {
        if self.nothing && text == "nothing" {
            return Ok(Vec::new());
        }
        Err(E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Vec<T>, A::Error> {
        Ok(vec![T::deserialize(MapAccessDeserializer::new(map))?])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Vec<T>, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list))
    }
}
