//! An identity server with its sidecar: the sample's tables and requests, and the built-in mapping.

use super::{Portal, Wishes, cluster, portal, run, value, wait_for};
use portal_audit::translate::kratos::identifier::IdentifierKey;
use std::sync::OnceLock;

pub const KRATOS_SQL: &str = include_str!("../../../sql/sample/kratos.sql");
const MAPPING: &str = include_str!("../../../deploy/mapping/kratos.toml");

/// Seconds that a candidate waits for in fixtures: long for a test's next step, short for its end.
const WINDOW_SECONDS: u32 = 3;

/// The built-in mapping with another window, in a file of its own.
fn mapping(name: &str, window_seconds: u32) -> String {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().unwrap());
    let path = folder.path().join(format!("{name}.toml"));
    let window = format!("soft_failure_seconds = {window_seconds}");
    let text = MAPPING.replace("soft_failure_seconds = 30", &window);
    assert!(text.contains(&window));
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

pub async fn identity_server(name: &str) -> Portal {
    with(name, KRATOS_SQL, WINDOW_SECONDS).await
}

/// The same with another schema or window; always with a key for identifiers nobody has.
pub async fn with(name: &str, schema: &str, window_seconds: u32) -> Portal {
    let mapping = mapping(name, window_seconds);
    let wishes = Wishes { name, schema, mapping: &mapping, ..Wishes::default() };
    let mut portal = portal(cluster(), wishes).await;
    portal.settings.sources[0].identifier_key = IdentifierKey::new(b"a key of the tests");
    portal
}

/// Runs each line of a script as a transaction.
pub async fn steps(portal: &Portal, script: &str) {
    for line in script.lines().filter(|line| !line.starts_with("--") && !line.trim().is_empty()) {
        run(&portal.source, line).await;
    }
}

/// Waits until everything is written and nothing waits for its window.
pub async fn decided(portal: &Portal) {
    portal.catch_up().await;
    let none = "SELECT count(*) = 0 FROM portal_audit.names WHERE entity = 'kratos.pending'";
    wait_for("every candidate to be decided", async || value::<bool>(&portal.audit, none).await)
        .await;
}
