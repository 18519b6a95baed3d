//! A portal whose sidecar reaches both databases through proxies.

use super::{Portal, Wishes, installation, portal, proxy::Proxy};
use portal_audit::{
    config::Settings,
    demo::cluster::{Cluster, Options},
};
use std::{path::Path, sync::OnceLock};

pub static CLUSTER: OnceLock<Cluster> = OnceLock::new();

/// The one server of this binary that listens on TCP.
pub fn tcp_cluster() -> &'static Cluster {
    CLUSTER.get_or_init(|| {
        let settings = [("max_connections", "200")];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        // Over TCP, members of these roles must know a password, or are sent away.
        let hba =
            "host all +logins 127.0.0.1/32 scram-sha-256\nhost all +strangers 127.0.0.1/32 reject";
        let hba = Some(hba.to_owned());
        let options = Options { tcp: true, settings: settings.into(), hba, ..Options::default() };
        Cluster::start_with(&installation(), &options).unwrap_or_else(|error| panic!("{error}"))
    })
}

/// Where the sidecar finds a database, as keywords and values.
pub fn dsn(port: u16, database: &str) -> String {
    format!("host=127.0.0.1 port={port} user=postgres dbname={database}")
}

pub struct Linked {
    pub portal: Portal,
    pub source: Proxy,
    pub audit: Proxy,
}

/// The sample portal with its proxies; `limits` are lines for `[limits]`.
pub async fn linked(name: &str, limits: &str) -> Linked {
    let cluster = tcp_cluster();
    let retry = if limits.contains("retry_max_seconds") { "" } else { "retry_max_seconds = 1\n" };
    let limits = format!("{retry}{limits}");
    let wishes = Wishes { name, limits: &limits, ..Wishes::default() };
    let mut portal = portal(cluster, wishes).await;
    let (source, audit) = (Proxy::start(cluster.port()).await, Proxy::start(cluster.port()).await);
    let text = portal.settings_text.clone();
    let audit_name = format!("{name}_audit");
    let text = text.replace(&cluster.dsn(&audit_name, "postgres"), &dsn(audit.port, &audit_name));
    let text = text.replace(&cluster.dsn(name, "postgres"), &dsn(source.port, name));
    assert_eq!(text.matches("host=127.0.0.1").count(), 2, "{text}");
    portal.settings = Settings::parse(Path::new("test.toml"), &text).unwrap();
    portal.settings_text = text;
    Linked { portal, source, audit }
}
