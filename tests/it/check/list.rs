//! Each check has a fault that it finds.

use super::faults::FAULTS;
use portal_audit::check;
use std::{collections::BTreeSet, path::Path};

/// Checks whose faults are no row of the table, and the test that makes one.
const ELSEWHERE: &[(&str, &str)] = &[
    ("settings", "settings_that_cannot_be_read"),
    ("inline_password", "secrets_in_the_settings"),
    ("passfile", "secrets_in_the_settings"),
    ("token_file", "tokens_that_let_nobody_in_or_anybody"),
    ("jwks_file", "keys_that_let_nobody_in_or_anybody"),
    ("spool_folder", "a_folder_that_is_not_there"),
    ("audit_reachable", "databases_that_cannot_be_reached"),
    ("audit_version", "audit_databases_that_are_too_old"),
    ("audit_tls", "plaintext_on_a_network"),
    ("audit_durability", "servers_that_are_set_badly"),
    ("audit_is_source", "one_database_for_both"),
    ("one_sidecar", "two_sidecars"),
    ("checkpoints", "events_that_nobody_signs"),
    ("reachable", "databases_that_cannot_be_reached"),
    ("version", "versions_that_are_not_known"),
    ("primary", "standbys"),
    ("tls", "plaintext_on_a_network"),
    ("wal_level", "servers_that_are_set_badly"),
    ("replication_slots", "servers_that_are_set_badly"),
    ("max_slot_wal_keep_size", "servers_that_are_set_badly"),
    ("idle_replication_slot_timeout", "servers_that_are_set_badly"),
    ("synchronized_standby_slots", "servers_that_are_set_badly"),
    ("output_plugin_libraries", "pgoutput_is_not_allowed"),
    ("long_transactions", "transactions_that_are_open_for_long"),
    ("server_encoding", "a_database_without_an_encoding"),
    ("clock", "clocks_that_are_apart"),
    ("via_root", "partitions_by_their_own_names"),
    ("full_identity_cost", "the_cost_of_full_is_told_by_the_day"),
    ("slot_lost", "a_slot_that_is_gone"),
    ("same_source", "a_followed_portal"),
    ("slot_reader", "a_followed_portal"),
    ("slot_wal", "a_followed_portal"),
    ("slot_failover", "a_slot_without_failover"),
];

fn sources(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.extension().is_some_and(|end| end == "rs"));
    files.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn each_check_has_a_test_that_fails_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = sources(&root.join("src/check")) + &sources(&root.join("tests/it/check"));
    for (id, test) in ELSEWHERE {
        assert!(text.contains(&format!("fn {test}()")), "{id}: there is no test {test}");
    }
    let found = FAULTS.iter().flat_map(|(_, (_, _, found, _))| found.iter());
    let found = found.map(|found| found.split(' ').next().unwrap());
    let known: BTreeSet<&str> = found.chain(ELSEWHERE.iter().map(|(id, _)| *id)).collect();
    let ids: BTreeSet<&str> = check::ids().into_iter().collect();
    assert_eq!(known, ids);
    let names: BTreeSet<&str> = FAULTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), FAULTS.len(), "each fault has a name of its own");
    assert!(FAULTS.len() + ELSEWHERE.len() >= 60);
}
