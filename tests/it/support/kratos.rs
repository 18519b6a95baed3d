//! An identity server with its sidecar: the sample's tables and requests, and the built-in mapping.

use super::{Portal, Wishes, cluster, portal, run, value, wait_for};
use portal_audit::translate::kratos::identifier::IdentifierKey;
use std::sync::OnceLock;

pub const KRATOS_SQL: &str = include_str!("../../../sql/sample/kratos.sql");
const MAPPING: &str = include_str!("../../../deploy/mapping/kratos.toml");

/// The built-in mapping, but that it does not wait for half a minute.
fn mapping() -> &'static str {
    static FILE: OnceLock<(tempfile::TempDir, String)> = OnceLock::new();
    let (_, path) = FILE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kratos.toml");
        let text = MAPPING.replace("soft_failure_seconds = 30", "soft_failure_seconds = 3");
        assert_ne!(text, MAPPING);
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (folder, path)
    });
    path
}

pub async fn identity_server(name: &str) -> Portal {
    with_schema(name, KRATOS_SQL).await
}

/// The same with another schema, and a key for identifiers nobody has.
pub async fn with_schema(name: &str, schema: &str) -> Portal {
    let wishes = Wishes { name, schema, mapping: mapping(), ..Wishes::default() };
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
