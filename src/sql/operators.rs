//! The same for operators of Kubernetes: what their resources declare, and the SQL that these leave to do.
//!
//! Nobody asks the database here, so keys and replica identities are unknown. What is printed is safe for the portal where they are the usual ones, and the SQL, which does see them, tells what must be otherwise.

use super::{literal, render};
use crate::{
    config::Source,
    translate::needs::{TableNeeds, needs},
};
use serde_json::Value;

const CLOUDNATIVE_PG: &str = include_str!("../../sql/cloudnative-pg.yaml");
const ZALANDO: &str = include_str!("../../sql/zalando.yaml");
const BESIDE_PUBLICATION_SQL: &str = include_str!("../../sql/beside_publication.sql");
/// Notes in the plan how a table is published; a column list ends with a bracket, and a name that did would be quoted.
const FOUND_SQL: &str = "    UPDATE portal_audit_plan SET is_optional = false, columns = CASE WHEN tables[cardinality(tables)] LIKE '%)' THEN listed END
     WHERE nspname = plan.nspname AND relname = plan.relname;
";

/// For CloudNativePG (`postgresql.cnpg.io/v1`): a part of the Cluster, and the Publication. `wal_budget_bytes`: of the settings.
#[must_use]
pub fn cloudnative_pg(source: &Source, wal_budget_bytes: u64) -> String {
    let needs = needs(&source.mapping);
    let objects: Vec<String> = needs.iter().map(|(table, needs)| entry(table, needs)).collect();
    fill(CLOUDNATIVE_PG, source, wal_budget_bytes)
        .replace("{{resource}}", &kubernetes_name(&source.slot))
        .replace("{{publication}}", &quoted(&source.publication))
        .replace("{{objects}}\n", &objects.concat())
}

/// For Zalando's operator (`acid.zalan.do/v1`): a part of its resource `postgresql`. `wal_budget_bytes`: of the settings.
#[must_use]
pub fn zalando(source: &Source, wal_budget_bytes: u64) -> String {
    fill(ZALANDO, source, wal_budget_bytes)
        .replace("{{secret}}", &kubernetes_name(source.conninfo.user()))
        .replace("{{slot}}", &quoted(&source.slot))
}

/// The SQL that a Publication leaves to do: replica identities and grants, and a warning where it must be otherwise.
#[must_use]
pub fn beside_publication(source: &Source) -> String {
    let needs = needs(&source.mapping);
    let certain = needs.iter().filter(|(_, needs)| !needs.is_optional);
    let printed: Vec<String> = certain.map(|(table, needs)| object(table, needs)).collect();
    let check = BESIDE_PUBLICATION_SQL
        .replace("{{printed}}", &literal(&format!("[{}]", printed.join(", "))));
    let makes = "Beside a Publication of CloudNativePG: it makes the replica identities and the grants that the mapping needs, and the role where\n-- the operator has not. It warns, with what to write instead, where the Publication does not fit the database.\n--";
    render(source, " --for cloudnative-pg --rest", makes, [FOUND_SQL, &check])
}

fn fill(template: &str, source: &Source, wal_budget_bytes: u64) -> String {
    // A quarter above the budget, in whole MB: a server that is asked for less by rounding would be the first to give the slot up.
    let megabytes = (wal_budget_bytes.saturating_mul(5) / 4).div_ceil(1 << 20);
    let keep = match megabytes % 1024 {
        0 => format!("{}GB", megabytes / 1024),
        _ => format!("{megabytes}MB"),
    };
    template
        .replace("{{source}}", &source.name)
        .replace("{{database}}", &quoted(source.conninfo.dbname()))
        .replace("{{database_text}}", source.conninfo.dbname())
        .replace("{{role}}", &quoted(source.conninfo.user()))
        .replace("{{keep}}", &keep)
}

/// A table's lines among the objects of a Publication.
fn entry(table: &str, needs: &TableNeeds) -> String {
    let mut remarks = Vec::new();
    if !needs.old_columns.is_empty() {
        let old: Vec<&str> = needs.old_columns.iter().map(String::as_str).collect();
        remarks.push(format!("old values of {}", old.join(", ")));
    }
    if !needs.optional_columns.is_empty() && needs.old_columns.is_empty() {
        let more: Vec<&str> = needs.optional_columns.iter().map(String::as_str).collect();
        remarks.push(format!("also, where they exist: {}", more.join(", ")));
    }
    let mut start = "";
    if needs.is_optional {
        remarks.push("where it exists".to_owned());
        start = "# ";
    }
    let remark = match remarks.as_slice() {
        [] => String::new(),
        remarks => format!("      # {}:\n", remarks.join("; ")),
    };
    format!("{remark}      {start}- table: {}\n", object(table, needs))
}

/// A table as the Publication is printed with, in JSON, which is YAML too. `columns` are those that are certain to exist, and are left out where old values are read.
fn object(table: &str, needs: &TableNeeds) -> String {
    let (schema, name) = table.split_once('.').unwrap_or(("public", table));
    let (schema, name) = (quoted(schema), quoted(name));
    if !needs.old_columns.is_empty() || needs.columns.is_empty() {
        return format!("{{\"name\": {name}, \"schema\": {schema}}}");
    }
    let columns: Vec<String> = needs.columns.iter().map(|column| quoted(column)).collect();
    let columns = columns.join(", ");
    format!("{{\"name\": {name}, \"schema\": {schema}, \"columns\": [{columns}]}}")
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A name as Kubernetes allows it for a resource.
fn kubernetes_name(name: &str) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    let name: String = name.to_ascii_lowercase().chars().map(letter).collect();
    name.trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs_of(columns: &[&str], old: &[&str]) -> TableNeeds {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        TableNeeds { columns: set(columns), old_columns: set(old), ..TableNeeds::default() }
    }

    #[test]
    fn a_table_has_a_list_unless_old_values_are_read() {
        let listed = object("portal.facilities", &needs_of(&["name", "a \"b\""], &[]));
        let value: Value = serde_json::from_str(&listed).unwrap();
        let expected = serde_json::json!({"schema": "portal", "name": "facilities", "columns": ["a \"b\"", "name"]});
        assert_eq!(value, expected);
        let whole = object("portal.facilities", &needs_of(&["name", "state"], &["state"]));
        assert_eq!(whole, r#"{"name": "facilities", "schema": "portal"}"#);
    }

    #[test]
    fn what_may_be_missing_is_not_published_but_told() {
        let optional = TableNeeds {
            is_optional: true,
            optional_columns: ["aal".to_owned()].into(),
            ..needs_of(&["id"], &[])
        };
        let text = entry("sessions", &optional);
        assert!(text.lines().all(|line| line.starts_with("      # ")), "{text}");
        assert!(text.contains("aal") && text.contains("where it exists"), "{text}");
    }

    #[test]
    fn names_are_as_kubernetes_wants_them() {
        assert_eq!(kubernetes_name("portal_audit_a_"), "portal-audit-a");
        assert_eq!(kubernetes_name("Portal_Äudit"), "portal--udit");
    }
}
