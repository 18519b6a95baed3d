//! A table of the catalog → blocks of a mapping.

use super::{Foreign, LiveColumn, LiveTable, NAME_COLUMNS};
use crate::coverage::literal;
use crate::translate::{
    deny::{in_words, is_denied},
    mapping::Mapping,
};
use std::{collections::BTreeMap, fmt::Write as _};

/// Columns that a write moves by itself: no change that people mean.
const BOOKKEEPING: [&str; 9] = [
    "ver",
    "version",
    "lock_version",
    "updated",
    "updated_at",
    "modified",
    "modified_at",
    "last_updated",
    "last_used",
];
/// Words of columns that hold personal data: an event may say that they changed, not what they are.
const PERSONAL: [&str; 8] = ["email", "mail", "phone", "address", "birth", "ip", "addr", "mobile"];
/// Columns that tell when a row was made, and by whom.
const CREATED: [&str; 4] = ["created", "created_at", "inserted_at", "creation_time"];
const CREATOR: [&str; 4] = ["creator", "created_by", "creator_id", "author"];
/// A link of more key columns than this is a place, not a pair.
const PAIR_KEY_MAX: usize = 3;

/// A block's name of a column: how its value is written, and which [names.X] that needs.
struct Value {
    toml: String,
    is_label: bool,
}

/// What is written on the way.
struct Blocks<'a> {
    table: &'a LiveTable,
    mapping: &'a Mapping,
    entity: String,
    /// The first column of the key.
    first: &'a LiveColumn,
    key: Vec<&'a LiveColumn>,
    /// Whether old values of all columns can be had: FULL publishes every column, so none may be a secret.
    may_be_full: bool,
    comments: Vec<String>,
    /// Names tables to be added: their name, table, key and name column.
    names: BTreeMap<String, (String, String, String)>,
}

/// The blocks for a table, ready to be appended to `mapping`.
///
/// # Errors
/// The table has no primary key, or one that only names secrets.
pub(super) fn render(table: &LiveTable, mapping: &Mapping) -> Result<String, String> {
    let name = &table.name;
    let mut key: Vec<&LiveColumn> =
        table.columns.iter().filter(|column| column.key.is_some()).collect();
    key.sort_by_key(|column| column.key);
    if key.is_empty() {
        return Err(format!(
            "{name} has no primary key, so no column says which row an event is about. Give it one, or write the block by hand with a subject that you know to be unique."
        ));
    }
    key.retain(|column| !column.is_denied());
    let Some(&first) = key.first() else {
        return Err(format!(
            "the primary key of {name} is on the deny list: its name is a secret's, so no event may show it"
        ));
    };
    let bare = name.rsplit('.').next().unwrap_or(name);
    let entity = singular(bare);
    let may_be_full = table.is_full || !table.columns.iter().any(LiveColumn::is_denied);
    let (comments, names) = (Vec::new(), BTreeMap::new());
    Ok(Blocks { table, mapping, entity, first, key, may_be_full, comments, names }.text())
}

impl<'a> Blocks<'a> {
    fn text(mut self) -> String {
        self.explain();
        let (subject, target) = self.who();
        let insert = self.block("created", "insert", subject, target);
        let update = self.block("updated", "update", subject, target);
        let delete = self.block("deleted", "delete", subject, target);
        let mut out = format!("# {}: first blocks, to be edited.\n", self.table.name);
        for comment in &self.comments {
            let _written = writeln!(out, "# {comment}");
        }
        for (name, (table, key, column)) in &self.names {
            let (name, table, key, column) =
                (bare_key(name), quote(table), quote(key), quote(column));
            let _written =
                write!(out, "\n[names.{name}]\ntable = {table}\nkey   = {key}\nname  = {column}\n");
        }
        for block in [insert, update, delete] {
            out.push('\n');
            out.push_str(&block);
        }
        let _written = write!(
            out,
            "\n# Then: portal-audit mapping check --config FILE, and what portal-audit sql source prints.\n# Who did it: CALL portal_audit.attach('{}'); on the source (portal-audit sql context).\n",
            literal(&self.table.name)
        );
        out
    }

    fn comment(&mut self, comment: String) {
        if !self.comments.contains(&comment) {
            self.comments.push(comment);
        }
    }

    /// What was left out of the blocks, and why.
    fn explain(&mut self) {
        let table = self.table;
        for column in &table.columns {
            let name = &column.name;
            if column.is_denied() {
                self.comment(format!(
                    "{name} is left out: its name is a secret's, and no mapping may read it."
                ));
            } else if column.is_generated {
                self.comment(format!(
                    "{name} is left out: it is generated, so it is not in the log."
                ));
            } else if name == "_audit" {
                self.comment(
                    "_audit is left out of the payload: that key is portal-audit's own.".into(),
                );
            } else if is_json(column) {
                self.comment(format!("{name} is {}: take a part of it with {{ column = {}, path = \"$.some.key\" }}, a list with list = true.", column.type_name, quote(name)));
            } else if column.type_name == "bytea" {
                self.comment(format!("{name} is left out: bytes say nothing to a reader."));
            } else if is_personal(column) {
                self.comment(format!("{name} looks personal: an event says that it changed, not what it is. The log outlives the row."));
            } else if BOOKKEEPING.contains(&name.as_str()) {
                self.comment(format!("{name} is not in \"changed\": a write moves it by itself."));
            }
            if let Some(labels) = column.labels.as_ref().filter(|labels| !labels.is_empty()) {
                self.comment(format!("{name} is one of {labels}: for an event of its own to one of them, say when = {{ {} = {{ becomes = \"…\" }} }}.", bare_key(name)));
            } else if is_code(column) {
                self.comment(format!("{name} holds codes: name them, [labels.{}_{name}] 0 = \"…\", and write {{ label = {}, labels = \"{}_{name}\" }}.", self.entity, quote(name), self.entity));
            }
        }
        if self.key.len() > 1 {
            let key: Vec<&str> = self.key.iter().map(|column| column.name.as_str()).collect();
            let key = key.join(", ");
            self.comment(format!(
                "The key is ({key}): choose which of them is the subject, and which the target."
            ));
        }
        if !self.may_be_full {
            self.comment("Old values: the table holds a secret, so it cannot be published whole. A unique index over its key and the columns to compare, all NOT NULL, and REPLICA IDENTITY USING INDEX carry theirs.".into());
        }
    }

    /// The columns of subject and target.
    fn who(&self) -> (&'a LiveColumn, Option<&'a LiveColumn>) {
        let is_name = |column: &&&LiveColumn| NAME_COLUMNS.contains(&column.name.as_str());
        match self.key.as_slice() {
            [only] if !only.is_text() => {
                let named = self.named().filter(|_| only.foreign.is_none());
                (named.unwrap_or(only), None)
            }
            [only] => (only, None),
            key => match key.iter().find(is_name) {
                Some(name) => (name, None),
                None => {
                    let last = key.last().filter(|_| key.len() <= PAIR_KEY_MAX).copied();
                    (self.first, last)
                }
            },
        }
    }

    /// The column that names the row, beside its key.
    fn named(&self) -> Option<&'a LiveColumn> {
        let table = self.table;
        let sound = |column: &&LiveColumn| column.is_text() && !column.is_denied();
        NAME_COLUMNS
            .iter()
            .find_map(|name| table.columns.iter().find(|column| column.name == *name).filter(sound))
    }

    /// Whether an UPDATE or DELETE can tell the column's old value.
    fn carries_old(&self, column: &LiveColumn) -> bool {
        self.may_be_full || column.is_identity || column.key.is_some()
    }

    fn block(
        &mut self,
        participle: &str,
        operation: &str,
        subject: &'a LiveColumn,
        target: Option<&'a LiveColumn>,
    ) -> String {
        let table = self.table;
        let (event_type, entity) = (self.event_type(participle), self.entity.clone());
        let mut out = String::from("[[event]]\n");
        let mut line = |key: &str, value: String| {
            let _written = writeln!(out, "{key:<12} = {value}");
        };
        line("type", quote(&event_type));
        line("table", quote(&table.name));
        line("on", quote(operation));
        let changed = self.changed();
        let compares = operation == "update" && !changed.is_empty();
        if compares {
            line("changed", list(&changed));
        }
        let is_delete = operation == "delete";
        line("subject", self.subject(subject, is_delete).toml);
        line("subject_type", quote(&entity));
        if let Some(target) = target {
            line("target", self.value(target, false).toml);
        }
        if operation == "insert"
            && let Some(creator) = self.column_of(&CREATOR)
        {
            line("caller", self.value(creator, false).toml);
        }
        let mut payload: Vec<String> = Vec::new();
        for column in &table.columns {
            let is_taken = std::ptr::eq(column, subject)
                || target.is_some_and(|target| std::ptr::eq(column, target));
            if is_taken || !is_shown(column) || (is_delete && !self.carries_old(column)) {
                continue;
            }
            let value = self.value(column, false);
            payload.push(format!("{} = {}", bare_key(&column.name), value.toml));
            let was = format!("old_{}", column.name);
            let is_free = table.columns.iter().all(|column| column.name != was);
            let may_differ = column.key.is_none() && self.carries_old(column);
            if compares && value.is_label && is_free && may_differ {
                payload.push(format!("{} = {}", bare_key(&was), self.value(column, true).toml));
            }
        }
        if compares && table.columns.iter().all(|column| column.name != "changed") {
            payload.insert(0, format!("changed = {{ changed = {} }}", list(&changed)));
        }
        if !payload.is_empty() {
            line("payload", format!("{{ {} }}", payload.join(", ")));
        }
        let words = entity.replace('_', " ");
        let object = if target.is_some() {
            format!("{words} {{target}} of {{subject}}")
        } else {
            format!("{words} {{subject}}")
        };
        line("describe", quote(&format!("{{caller}} {participle} {object}")));
        line("visible_to", "[\"admin\"]".into());
        line("retention", "\"project\"".into());
        if operation == "insert"
            && let Some(created) = self.column_of(&CREATED).filter(|column| column.category == 'D')
        {
            line("backfill", quote(&created.name));
        }
        out
    }

    /// The columns that an update compares.
    fn changed(&self) -> Vec<&'a str> {
        let compared = |column: &&LiveColumn| {
            column.key.is_none()
                && !column.is_denied()
                && !column.is_generated
                && column.type_name != "bytea"
                && !BOOKKEEPING.contains(&column.name.as_str())
                && self.carries_old(column)
        };
        self.table.columns.iter().filter(compared).map(|column| column.name.as_str()).collect()
    }

    fn column_of(&self, words: &[&str]) -> Option<&'a LiveColumn> {
        let table = self.table;
        let found =
            words.iter().find_map(|word| table.columns.iter().find(|column| column.name == *word));
        found.filter(|column| !column.is_denied() && !column.is_generated)
    }

    /// The subject. A deleted row without old values is named by what its key was called.
    fn subject(&mut self, subject: &LiveColumn, is_delete: bool) -> Value {
        if let ([key], true, false) = (self.key.as_slice(), is_delete, self.carries_old(subject)) {
            let own = Foreign {
                table: self.table.name.clone(),
                key: key.name.clone(),
                is_text: false,
                name: Some(subject.name.clone()),
            };
            let column = key.name.clone();
            if let Some(value) = self.lookup(&column, &own, false) {
                return value;
            }
        }
        self.value(subject, false)
    }

    fn value(&mut self, column: &LiveColumn, old: bool) -> Value {
        let name = &column.name;
        let was = if old { ", old = true" } else { "" };
        if let Some(foreign) = &column.foreign
            && let Some(value) = self.lookup(name, foreign, old)
        {
            return value;
        }
        if column.labels.is_some() || column.category == 'E' {
            return Value { toml: format!("{{ label = {}{was} }}", quote(name)), is_label: true };
        }
        let toml = if old { format!("{{ column = {}{was} }}", quote(name)) } else { quote(name) };
        Value { toml, is_label: false }
    }

    /// A foreign key as the name it stands for, if it is not a name itself.
    fn lookup(&mut self, column: &str, foreign: &Foreign, old: bool) -> Option<Value> {
        let Foreign { table, key, is_text, name } = foreign;
        if *is_text || is_denied(key) || table.matches('.').count() != 1 {
            return None;
        }
        let known = self.mapping.names.iter().find(|(_, names)| names.table.get_ref() == table);
        let names = match known {
            Some((names, _)) => names.clone(),
            None => {
                let Some(name) = name else {
                    self.comment(format!("{column} is a key of {table}, which has no column that looks like a name: add a [names.X] to show one."));
                    return None;
                };
                self.new_names(table, key, name)
            }
        };
        let was = if old { ", old = true" } else { "" };
        let toml = format!("{{ lookup = {}, key = {}{was} }}", quote(&names), quote(column));
        Some(Value { toml, is_label: false })
    }

    fn new_names(&mut self, table: &str, key: &str, name: &str) -> String {
        let base = table.rsplit('.').next().unwrap_or(table);
        let wanted = (table.to_owned(), key.to_owned(), name.to_owned());
        let mut names = base.to_owned();
        let mut number = 2;
        while self.mapping.names_position(&names).is_some()
            || self.names.get(&names).is_some_and(|other| *other != wanted)
        {
            names = format!("{base}_{number}");
            number += 1;
        }
        self.names.insert(names.clone(), wanted);
        names
    }

    /// A type that the mapping does not have yet.
    fn event_type(&mut self, participle: &str) -> String {
        let rules = &self.mapping.rules;
        let taken = |name: &str| rules.iter().find(|rule| rule.event_type.get_ref() == name);
        let plain = format!("{}_{participle}", self.entity);
        let Some(rule) = taken(&plain) else { return plain };
        let line = self.mapping.line(rule.event_type.span());
        self.comment(format!(
            "{plain} is taken (line {line} of the mapping), so the type has a number here."
        ));
        (2..)
            .map(|number| format!("{}_{number}_{participle}", self.entity))
            .find(|name| taken(name).is_none())
            .unwrap_or(plain)
    }
}

fn is_json(column: &LiveColumn) -> bool {
    matches!(column.type_name.as_str(), "json" | "jsonb")
}

fn is_code(column: &LiveColumn) -> bool {
    column.type_name == "int2" && column.foreign.is_none()
}

fn is_personal(column: &LiveColumn) -> bool {
    column.name.split('_').any(|word| PERSONAL.contains(&word))
}

/// Whether a payload shows the column.
fn is_shown(column: &LiveColumn) -> bool {
    let is_time = column.category == 'D';
    !(column.is_denied()
        || column.is_generated
        || is_json(column)
        || is_personal(column)
        || is_time
        || column.type_name == "bytea"
        || column.name == "_audit"
        || BOOKKEEPING.contains(&column.name.as_str())
        || CREATOR.contains(&column.name.as_str()))
}

/// `Organization Members` → `organization_member`.
fn singular(table: &str) -> String {
    let mut words = in_words(table)
        .replace(|letter: char| !(letter.is_ascii_lowercase() || letter.is_ascii_digit()), "_");
    for (end, instead) in [
        ("ies", "y"),
        ("sses", "ss"),
        ("xes", "x"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("ss", "ss"),
        ("us", "us"),
        ("s", ""),
    ] {
        if let Some(stem) = words.strip_suffix(end) {
            words = format!("{stem}{instead}");
            break;
        }
    }
    let words: Vec<&str> = words.split('_').filter(|word| !word.is_empty()).collect();
    let words = words.join("_");
    if words.starts_with(|first: char| first.is_ascii_lowercase()) {
        words
    } else {
        format!("row_{words}")
    }
}

/// A text as a basic string of TOML, which has JSON's escapes.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

fn bare_key(text: &str) -> String {
    let is_bare = !text.is_empty()
        && text
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-');
    if is_bare { text.to_owned() } else { quote(text) }
}

fn list(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| quote(word)).collect();
    format!("[{}]", words.join(", "))
}
