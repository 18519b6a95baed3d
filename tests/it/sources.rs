//! One process follows many sources, and one that fails never ends another.

use crate::support::{Sidecar, cluster, run, sample, value, wait_for};
use portal_audit::config::Settings;
use std::path::Path;

const USER: &str = "INSERT INTO portal.users (username, uid, gid) VALUES ('wrenn', 1, 1)";

#[tokio::test(flavor = "multi_thread")]
async fn one_down_never_stops_another() {
    let (one, other) = (sample("source_one").await, sample("source_other").await);
    let source = |name: &str, database: &str| {
        let dsn = cluster().dsn(database, "postgres");
        format!(
            "[[source]]\nname = {name:?}\ndsn = {dsn:?}\nslot = \"portal_audit_{database}\"\nmapping = \"merge-reference\"\n"
        )
    };
    // One without a publication, which needs a human, and one without a server, which may come back.
    let nowhere = "[[source]]\nname = \"nowhere\"\ndsn = \"host=/nowhere dbname=x user=y\"\nmapping = \"merge-reference\"\n";
    run(&other.source, "CREATE DATABASE source_bare").await;
    let others =
        [source("source_bare", "source_bare"), source("other", "source_other"), nowhere.to_owned()];
    let (audit_and_one, limits) = one.settings_text.split_once("[limits]").unwrap();
    let text = format!("{audit_and_one}{}[limits]{limits}", others.concat());
    let settings = Settings::parse(Path::new("test.toml"), &text).unwrap();
    let names: Vec<&str> = settings.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(names, ["source_one", "source_bare", "other", "nowhere"]);

    let sidecar = Sidecar::start(settings);
    let streaming = "SELECT count(*) = 2 FROM portal_audit.progress WHERE state = 'streaming'";
    wait_for("two streams", async || value::<bool>(&one.audit, streaming).await).await;
    run(&one.source, USER).await;
    run(&other.source, USER).await;
    let both = "SELECT count(DISTINCT payload->'_audit'->>'source') = 2 FROM public.events WHERE subject = 'wrenn'";
    wait_for("an event of each", async || value::<bool>(&one.audit, both).await).await;
    let ids = "SELECT count(DISTINCT event_uuid) FROM public.events";
    assert_eq!(
        value::<i64>(&one.audit, ids).await,
        2,
        "equal rows of two databases are two events"
    );
    let faults = sidecar.stop_with_faults().await;
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(
        faults[0]
            .contains("publication \"portal_audit\" does not exist in database \"source_bare\""),
        "{faults:?}"
    );
}
