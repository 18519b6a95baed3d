//! `portal-audit check`: every fault that it knows is made on a real server, found by the one check that is named for it, and mended by what it prints.

mod faults;
mod list;
mod mend;
mod output;
mod scripts;
mod servers;
mod slots;

use crate::support::{Portal, Wishes, installation, open, portal, run, standby::major};
use portal_audit::{
    check::{self, Finding, Status},
    config::{self, Settings},
    connect::Session,
    demo::cluster::Cluster,
    sql,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

pub static CLUSTER: OnceLock<Cluster> = OnceLock::new();

/// A server set as one that people use: nothing is found of it.
fn cluster() -> &'static Cluster {
    CLUSTER.get_or_init(|| {
        let settings = [
            ("fsync", "on"),
            ("max_connections", "100"),
            ("max_slot_wal_keep_size", "20GB"),
            ("wal_sender_timeout", "60s"),
        ];
        Cluster::start(&installation(), &settings).unwrap_or_else(|error| panic!("{error}"))
    })
}

/// A portal that is ready to be followed, with settings on the disk.
struct Ready {
    portal: Portal,
    /// The logins of the sidecar: what `sql source` makes, and a member of portal_audit_writer. Roles are the whole server's, so each test has its own.
    reader: String,
    writer: String,
    /// Of no database: for what no other database must have.
    postgres: Session,
    folder: tempfile::TempDir,
    text: String,
}

impl Ready {
    async fn new(name: &str) -> Self {
        Self::on(cluster(), name).await
    }

    async fn on(cluster: &Cluster, name: &str) -> Self {
        let portal = portal(cluster, Wishes { name, ..Wishes::default() }).await;
        let dsn = |database: &str, user| format!("{:?}", cluster.dsn(database, user));
        let audit = format!("{name}_audit");
        let (reader, writer) = (format!("{name}_reader"), format!("{name}_writer"));
        let text = portal.settings_text.replace(&dsn(name, "postgres"), &dsn(name, &reader));
        let text = text.replace(&dsn(&audit, "postgres"), &dsn(&audit, &writer));
        let role = format!("CREATE ROLE {writer} LOGIN; GRANT portal_audit_writer TO {writer}");
        run(&portal.audit, &role).await;
        let folder = tempfile::tempdir().unwrap();
        let postgres = open(cluster, "postgres").await;
        let ready = Self { portal, reader, writer, postgres, folder, text };
        run(&ready.portal.source, &ready.source_sql()).await;
        ready
    }

    fn settings(&self) -> Settings {
        Settings::parse(Path::new("test.toml"), &self.text).unwrap()
    }

    fn source_sql(&self) -> String {
        sql::source(&self.settings().sources[0])
    }

    /// The settings on the disk, which nobody else may read.
    fn file(&self, text: &str) -> PathBuf {
        let path = self.folder.path().join("portal-audit.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Everything that is not as it should be.
    async fn faults(&self) -> Vec<Finding> {
        faults_of(&self.file(&self.text)).await
    }

    async fn faults_with(&self, old: &str, new: &str) -> Vec<Finding> {
        let text = self.text.replacen(old, new, 1);
        assert_ne!(text, self.text, "{old}");
        faults_of(&self.file(&text)).await
    }

    /// Nothing is found.
    async fn is_well(&self, after: &str) {
        let faults = self.faults().await;
        assert!(faults.is_empty(), "{after}: {faults:#?}");
    }
}

async fn faults_of(path: &Path) -> Vec<Finding> {
    let findings = check::check(path).await;
    let ids = check::ids();
    for finding in &findings {
        assert!(ids.contains(&finding.check) || finding.check == "settings", "{finding:?}");
        assert_eq!(finding.fix.is_empty(), finding.status == Status::Ok, "{finding:?}");
        assert!(!finding.finding.is_empty() && !finding.object.is_empty(), "{finding:?}");
    }
    // PostgreSQL 14 has no column lists, so what looks secret crosses the wire there, always.
    let is_of_14 = |finding: &Finding| {
        major() == 14 && finding.check == "secrets_published" && finding.status == Status::Warning
    };
    let faults = findings.into_iter();
    faults.filter(|finding| finding.status != Status::Ok && !is_of_14(finding)).collect()
}

/// What was found, as `id status`, each once.
fn told(faults: &[Finding]) -> Vec<String> {
    let mut told: Vec<String> = faults
        .iter()
        .map(|finding| format!("{} {:?}", finding.check, finding.status).to_lowercase())
        .collect();
    told.sort();
    told.dedup();
    told
}

fn expected(found: &[&str]) -> Vec<String> {
    let mut found: Vec<String> = found.iter().map(|found| (*found).to_owned()).collect();
    found.sort();
    found
}

/// Runs the SQL of a fix as somebody would who pastes it: statement by statement, for some run in no transaction.
async fn paste(session: &Session, fix: &str) {
    let lines = fix.lines().filter(|line| !line.starts_with("--") && !line.starts_with('#'));
    let sql: Vec<&str> = lines.collect();
    let sql = sql.join("\n");
    assert!(!sql.trim().is_empty(), "nothing to paste: {fix}");
    for statement in sql.split(";\n") {
        run(session, statement).await;
    }
}

/// A connection string by another name.
fn as_other(settings: &Settings, application: &str) -> Settings {
    let mut settings = settings.clone();
    let source = &mut settings.sources[0];
    let address = source.conninfo.addresses().next().unwrap();
    let dsn = format!(
        "host={} port={} dbname={} user={} application_name={application}",
        address.host(),
        address.port(),
        source.conninfo.dbname(),
        source.conninfo.user()
    );
    source.conninfo = config::conninfo(&dsn).unwrap();
    settings
}
