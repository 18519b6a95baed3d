//! The sample portal in a throwaway cluster, set up the way ops would: by the very SQL that `portal-audit sql` prints.

use super::cluster::Cluster;
use crate::{
    config::{self, ConfigError, Settings},
    connect::{self, ConnectError, Session},
    conninfo::ConnInfoError,
    sql,
};
use std::path::Path;

/// The portal's tables, replica identities included.
pub const PORTAL_SQL: &str = include_str!("../../sql/sample/portal.sql");
/// 90 days of past.
pub const HISTORY_SQL: &str = include_str!("../../sql/sample/history.sql");
/// Events that stand in the table before the sidecar comes.
const EARLIER_SQL: &str = include_str!("../../sql/sample/earlier.sql");
/// The journal that row triggers write in the portal's own transactions.
pub const JOURNAL_SQL: &str = concat!(
    include_str!("../../sql/sample/journal.sql"),
    include_str!("../../sql/sample/journal_experiments.sql"),
    include_str!("../../sql/sample/journal_facilities.sql"),
);
/// `activity.act(seed)`, one thing that a person would do.
pub const ACTIVITY_SQL: &str = concat!(
    include_str!("../../sql/sample/activity.sql"),
    include_str!("../../sql/sample/activity_testbed.sql"),
);
/// What operators register in the portal while the sidecar follows it.
pub const REGISTERED_SQL: &str = include_str!("../../sql/sample/registered_facilities.sql");
/// Where the facilities are, for the audit database.
pub const FACILITIES_SQL: &str = include_str!("../../sql/sample/facilities.sql");
/// The fixed story, step by step.
pub const STORY_SQL: &str = include_str!("../../sql/sample/story.sql");
/// Tables that tell who the caller is, by the optional trigger.
const CONTEXT_TABLES: [&str; 17] = [
    "users",
    "organizations",
    "projects",
    "organization_members",
    "project_members",
    "experiments",
    "experiment_models",
    "realizations",
    "allocations",
    "materializations",
    "facilities",
    "facility_members",
    "facility_resources",
    "pools",
    "public_keys",
    "api_tokens",
    "xdcs",
];

/// The portal's database.
pub const PORTAL_DATABASE: &str = "portal";
/// The audit database, named as its admins name it.
pub const AUDIT_DATABASE: &str = "portal-audit";
/// The role by which the sidecar reads; its source's name too.
pub(super) const SOURCE_ROLE: &str = "portal_audit";
/// The role by which it writes.
const AUDIT_ROLE: &str = "portal_audit_sidecar";
/// The login of the pages.
const PAGES_ROLE: &str = "portal_audit_pages";
/// The cluster's own superuser, which only sets up.
pub const OWNER: &str = "postgres";

/// Why the sample could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    #[error("cannot connect to the throwaway server")]
    Connect(#[source] ConnectError),
    #[error("a connection string of the throwaway server")]
    ConnInfo(#[source] ConnInfoError),
    #[error("cannot {action}: {}", connect::describe(report))]
    Sql { action: &'static str, report: tokio_postgres::Error },
    #[error("the sample's settings")]
    Settings(#[source] ConfigError),
}

/// Opens a session in the throwaway cluster.
///
/// # Errors
/// The server does not answer.
pub async fn open(cluster: &Cluster, dbname: &str, user: &str) -> Result<Session, SampleError> {
    let conninfo = config::conninfo(&cluster.dsn(dbname, user)).map_err(SampleError::ConnInfo)?;
    Box::pin(connect::connect(&conninfo, "demo")).await.map_err(SampleError::Connect)
}

/// Runs a script.
///
/// # Errors
/// The server refuses it.
pub async fn script(session: &Session, action: &'static str, sql: &str) -> Result<(), SampleError> {
    let result = session.client.batch_execute(sql).await;
    result.map_err(|report| SampleError::Sql { action, report })
}

/// The settings of a sidecar that follows the sample portal.
#[must_use]
pub fn settings_text(cluster: &Cluster) -> String {
    let audit = cluster.dsn(AUDIT_DATABASE, AUDIT_ROLE);
    let source = cluster.dsn(PORTAL_DATABASE, SOURCE_ROLE);
    let spool = cluster.socket_dir().display().to_string();
    let pages = cluster.dsn(AUDIT_DATABASE, PAGES_ROLE);
    format!(
        "[audit]\ndsn = {audit:?}\n\n[serve]\nlisten = \"127.0.0.1:8484\"\n\n[pages]\ndsn = {pages:?}\naccess = \"loopback\"\n\n[[source]]\nname = \"portal\"\ndsn = {source:?}\nmapping = \"merge-reference\"\nbackfill = true\n\n[limits]\nspool_folder = {spool:?}\n"
    )
}

/// Creates both databases, the portal and the roles; gives the settings.
///
/// # Errors
/// The server refuses something.
pub async fn create(cluster: &Cluster, with_history: bool) -> Result<Settings, SampleError> {
    let settings = Settings::parse(Path::new("portal-audit.toml"), &settings_text(cluster));
    let settings = settings.map_err(SampleError::Settings)?;
    // Side by side: a newcomer waits for the first event.
    tokio::try_join!(create_audit(cluster), create_portal(cluster, &settings, with_history))?;
    Ok(settings)
}

/// Fills `events` with what another program wrote before: logins, failures, an outage.
///
/// # Errors
/// The server refuses it.
pub async fn recall(cluster: &Cluster) -> Result<(), SampleError> {
    let audit = open(cluster, AUDIT_DATABASE, OWNER).await?;
    script(&audit, "fill in the earlier events", EARLIER_SQL).await
}

async fn create_audit(cluster: &Cluster) -> Result<(), SampleError> {
    let owner = open(cluster, "postgres", OWNER).await?;
    script(&owner, "create the audit database", "CREATE DATABASE \"portal-audit\"").await?;
    let audit = open(cluster, AUDIT_DATABASE, OWNER).await?;
    script(&audit, "set up the audit database", sql::audit()).await?;
    let roles = format!(
        "CREATE ROLE {AUDIT_ROLE} LOGIN BYPASSRLS; GRANT portal_audit_writer TO {AUDIT_ROLE}; CREATE ROLE {PAGES_ROLE} LOGIN NOINHERIT; GRANT portal_audit_reader, portal_audit_web TO {PAGES_ROLE}"
    );
    script(&audit, "create the roles of sidecar and pages", &roles).await
}

async fn create_portal(
    cluster: &Cluster,
    settings: &Settings,
    with_history: bool,
) -> Result<(), SampleError> {
    let owner = open(cluster, "postgres", OWNER).await?;
    script(&owner, "create the portal database", "CREATE DATABASE portal").await?;
    let portal = open(cluster, PORTAL_DATABASE, OWNER).await?;
    script(&portal, "create the sample portal", PORTAL_SQL).await?;
    if with_history {
        script(&portal, "fill in 90 days of history", HISTORY_SQL).await?;
    }
    script(&portal, "create the activity", ACTIVITY_SQL).await?;
    script(&portal, "create the journal", JOURNAL_SQL).await?;
    script(&portal, "create the context trigger", sql::context()).await?;
    for table in CONTEXT_TABLES {
        let attach = format!("CALL portal_audit.attach('portal.{table}')");
        script(&portal, "attach the context trigger", &attach).await?;
    }
    for source in &settings.sources {
        script(&portal, "set up the source", &sql::source(source)).await?;
    }
    Ok(())
}

/// The steps of the story: what a person does, and the SQL of it.
#[must_use]
pub fn story() -> Vec<(&'static str, &'static str)> {
    let steps = STORY_SQL.split("\n-- step: ").skip(1);
    steps.filter_map(|step| step.split_once('\n')).collect()
}
