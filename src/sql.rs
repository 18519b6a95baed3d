//! The SQL that ops run, filled in for their settings: the text is in `sql/`.

mod operators;

pub use operators::{beside_publication, cloudnative_pg, zalando};

use crate::{
    budget,
    config::{Settings, Source},
    translate::{
        deny::{EXEMPT, denied_pattern},
        needs::needs,
    },
    write::AUDIT_SQL,
};

const SOURCE_SQL: &str = include_str!("../sql/source.sql");
const PUBLISH_SQL: &str = include_str!("../sql/publish.sql");
const UNDO_SQL: &str = include_str!("../sql/undo.sql");
const CONTEXT_SQL: &str = include_str!("../sql/context.sql");
const LOGIN_SQL: &str = include_str!("../sql/login.sql");
const ATTEMPT_SQL: &str = include_str!("../sql/attempt.sql");

/// For the source: role, publication, replica identities.
#[must_use]
pub fn source(source: &Source) -> String {
    let makes =
        "It makes the role, the publication, and the replica identities that the mapping needs.";
    render(source, "", makes, ["", PUBLISH_SQL])
}

/// The script of a source. `flags`: of the verb that prints it. `makes`: its own word on that. `found` and `publish`: what it does with each table that it found, and with all of them.
fn render(source: &Source, flags: &str, makes: &str, [found, publish]: [&str; 2]) -> String {
    let array = |columns: &std::collections::BTreeSet<String>| {
        let quoted: Vec<String> = columns.iter().map(|column| literal(column)).collect();
        format!("ARRAY[{}]::TEXT[]", quoted.join(", "))
    };
    let plan: Vec<String> = needs(&source.mapping)
        .iter()
        .map(|(table, needs)| {
            let (schema, name) = table.split_once('.').unwrap_or(("public", table));
            let (columns, old_columns) = (array(&needs.columns), array(&needs.old_columns));
            let (optional, is_optional) = (array(&needs.optional_columns), needs.is_optional);
            format!(
                "  ({}, {},\n   {columns},\n   {old_columns},\n   {optional}, {is_optional})",
                literal(schema),
                literal(name)
            )
        })
        .collect();
    SOURCE_SQL
        .replace("{{flags}}", flags)
        .replace("{{makes}}", makes)
        .replace("{{found}}", found)
        .replace("{{publish}}", publish)
        .replace("{{database}}", source.conninfo.dbname())
        .replace("{{role}}", &literal(source.conninfo.user()))
        .replace("{{publication}}", &literal(&source.publication))
        .replace("{{secret}}", &literal(&denied_pattern()))
        .replace("{{exempt}}", &array(&EXEMPT.iter().map(|name| (*name).to_owned()).collect()))
        .replace("{{plan}}", &plan.join(",\n"))
}

/// For the source: takes off what [`source()`] made, and the slot.
#[must_use]
pub fn undo(source: &Source) -> String {
    UNDO_SQL
        .replace("{{database}}", source.conninfo.dbname())
        .replace("{{role}}", &literal(source.conninfo.user()))
        .replace("{{slot}}", &literal(&source.slot))
        .replace("{{marker}}", &literal(&budget::marker(&source.slot)))
        .replace("{{publication_name}}", &crate::wire::quote_identifier(&source.publication))
}

/// For the audit database.
#[must_use]
pub fn audit() -> &'static str {
    AUDIT_SQL
}

/// For the audit database of these settings: the same, and the login that they name.
#[must_use]
pub fn audit_for(settings: &Settings) -> String {
    let role = settings.audit.user();
    // Each source has two sessions that write and one that asks for names, and old ones may linger while new ones begin.
    let connections = settings.sources.len() * 6 + 4;
    let login = LOGIN_SQL
        .replace("{{role}}", &literal(role))
        .replace("{{role_text}}", role)
        .replace("{{connections}}", &connections.to_string());
    format!("{AUDIT_SQL}{login}")
}

/// For the source, if its owner consents: the trigger that tells who the caller is.
#[must_use]
pub fn context() -> &'static str {
    CONTEXT_SQL
}

/// For the source, if its owner consents: the trigger that tells what was tried and rolled back.
#[must_use]
pub fn attempt() -> &'static str {
    ATTEMPT_SQL
}

/// A text as an SQL literal, with backslashes as they are.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
