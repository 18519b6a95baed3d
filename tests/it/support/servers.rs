//! A source and an audit database on servers of their own, so that each can be stopped, killed or filled up without the other.

use super::{Portal, installation, open, portal_between};
use portal_audit::{
    chain::chain,
    config::Settings,
    connect::Session,
    demo::cluster::{Cluster, Options, Shutdown},
};
use std::path::Path;

/// Two servers and the settings of a sidecar between them.
pub struct Servers {
    pub source: Cluster,
    pub audit: Cluster,
    pub name: &'static str,
    pub settings: Settings,
    pub settings_text: String,
}

/// Server settings and lines of `[limits]` that a test wants.
#[derive(Default)]
pub struct Wanted<'a> {
    pub source: &'a [(&'a str, &'a str)],
    pub audit: &'a [(&'a str, &'a str)],
    pub limits: &'a str,
    /// Roles that the sidecar logs in as; a superuser if empty.
    pub roles: (&'a str, &'a str),
}

fn options(settings: &[(&str, &str)]) -> Options {
    let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
    Options { settings: settings.iter().map(owned).collect(), ..Options::default() }
}

impl Servers {
    /// Starts both, with the sample portal `name` and an empty audit database.
    pub async fn start(name: &'static str, wanted: Wanted<'_>) -> (Self, Portal) {
        let start = |settings| Cluster::start_with(&installation(), &options(settings)).unwrap();
        let (source, audit) = (start(wanted.source), start(wanted.audit));
        let or_superuser = |role: &str| if role.is_empty() { "postgres" } else { role }.to_owned();
        let (role, audit_role) = (or_superuser(wanted.roles.0), or_superuser(wanted.roles.1));
        let settings_text = format!(
            "[audit]\ndsn = {:?}\n[[source]]\nname = {name:?}\ndsn = {:?}\nmapping = \"merge-reference\"\n\
             [limits]\nspool_folder = \"/tmp\"\ncomplete_interval_ms = 20\nconfirm_interval_ms = 10\n{}\n",
            audit.dsn(&format!("{name}_audit"), &audit_role),
            source.dsn(name, &role),
            wanted.limits
        );
        let settings = Settings::parse(Path::new("test.toml"), &settings_text)
            .unwrap_or_else(|error| panic!("{}", chain(&error)));
        portal_between(&source, &audit, name, &settings).await;
        let servers = Self { source, audit, name, settings, settings_text };
        let portal = servers.portal().await;
        (servers, portal)
    }

    /// New sessions in both, as after a restart.
    pub async fn portal(&self) -> Portal {
        Portal {
            name: self.name.to_owned(),
            source: self.in_source().await,
            audit: self.in_audit().await,
            settings: self.settings.clone(),
            settings_text: self.settings_text.clone(),
        }
    }

    pub async fn in_source(&self) -> Session {
        open(&self.source, self.name).await
    }

    pub async fn in_audit(&self) -> Session {
        open(&self.audit, &format!("{}_audit", self.name)).await
    }

    /// A fast stop of the source, which must end by itself: a client that never confirms would hold it for ever, and after 30 s it would become an immediate one.
    pub fn stop_source_fast(&mut self) {
        self.source.stop_server(Shutdown::Fast).unwrap();
        let log = self.source_log();
        let (_, last) = log.rsplit_once("received fast shutdown request").unwrap();
        assert!(!last.contains("received immediate shutdown request"), "{last}");
    }

    pub fn source_log(&self) -> String {
        std::fs::read_to_string(self.source.socket_dir().join("log")).unwrap()
    }
}
