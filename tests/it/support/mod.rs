//! The cluster of the test binary, and a portal with its sidecar for each test.

pub mod encode;
pub mod invariants;
pub mod kratos;
pub mod life;
pub mod linked;
pub mod order;
pub mod program;
pub mod proxy;
pub mod sealed;
pub mod servers;
pub mod standby;
pub mod tls;
pub mod tmpfs;

use invariants::Watch;
use portal_audit::{
    chain::chain,
    config::{self, Settings},
    connect::{self, Session},
    demo::{
        cluster::{Cluster, Installation},
        portal::{ACTIVITY_SQL, JOURNAL_SQL, PORTAL_SQL},
        proof::{self, Proof},
    },
    pipeline::{self, Ended},
    sql,
};
use std::{
    collections::BTreeSet,
    future::Future,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
    time::{Instant, sleep},
};

/// How long a condition may take to come true before its test fails.
pub const WAIT_MAX: Duration = Duration::from_secs(120);
/// The databases of which copies are made: a sample portal, and an audit database.
const PORTAL_TEMPLATE: &str = "portal_template";
const AUDIT_TEMPLATE: &str = "audit_template";
/// Servers that hold the databases of many tests, so that copies pay.
static MANY: [&OnceLock<Cluster>; 3] = [&CLUSTER, &linked::CLUSTER, &crate::check::CLUSTER];

pub fn installation() -> Installation {
    let bindir = std::env::var_os("PORTAL_AUDIT_PG_BINDIR").map(PathBuf::from);
    Installation::find(bindir.as_deref()).unwrap_or_else(|error| panic!("{error}"))
}

static CLUSTER: OnceLock<Cluster> = OnceLock::new();

/// The one cluster of this binary. It ends with the process, however that ends.
pub fn cluster() -> &'static Cluster {
    CLUSTER.get_or_init(|| {
        Cluster::start(
            &installation(),
            // Every test leaves its slot behind, and all of them share this server.
            &[
                ("max_connections", "200"),
                ("max_replication_slots", "500"),
                ("max_wal_senders", "100"),
                ("logical_decoding_work_mem", "64kB"),
            ],
        )
        .unwrap_or_else(|error| panic!("{error}"))
    })
}

pub async fn open(cluster: &Cluster, database: &str) -> Session {
    let conninfo = config::conninfo(&cluster.dsn(database, "postgres")).unwrap();
    connect::connect(&conninfo, "test").await.unwrap()
}

pub async fn run(session: &Session, script: &str) {
    let result = session.client.batch_execute(script).await;
    result.unwrap_or_else(|error| panic!("{}: {error:?}", connect::describe(&error)));
}

/// Asks again and again until the condition holds.
pub async fn wait_for<F: Future<Output = bool>>(what: &str, condition: impl FnMut() -> F) {
    wait_within(what, WAIT_MAX, condition).await;
}

pub async fn wait_within<F: Future<Output = bool>>(
    what: &str,
    wait: Duration,
    mut condition: impl FnMut() -> F,
) {
    let deadline = Instant::now() + wait;
    while !condition().await {
        assert!(Instant::now() < deadline, "{what} did not happen within {wait:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The value of a query of one row and one column.
pub async fn value<T: for<'a> tokio_postgres::types::FromSql<'a>>(
    session: &Session,
    query: &str,
) -> T {
    let row = session.client.query_one(query, &[]).await;
    row.unwrap_or_else(|error| panic!("{query}: {error:?}")).get(0)
}

fn portal_scripts() -> [&'static str; 4] {
    [PORTAL_SQL, ACTIVITY_SQL, JOURNAL_SQL, sql::context()]
}

/// Makes the templates of a server once.
async fn templates(cluster: &Cluster) {
    static MADE: Mutex<BTreeSet<PathBuf>> = Mutex::const_new(BTreeSet::new());
    let mut made = MADE.lock().await;
    if made.contains(cluster.socket_dir()) {
        return;
    }
    let postgres = open(cluster, "postgres").await;
    for (name, scripts) in
        [(PORTAL_TEMPLATE, &portal_scripts()[..]), (AUDIT_TEMPLATE, &[sql::audit()])]
    {
        run(&postgres, &format!("CREATE DATABASE {name}")).await;
        let template = open(cluster, name).await;
        for script in scripts {
            run(&template, script).await;
        }
        drop(template);
        // A template must have no session, and the server ends one a moment after its client.
        let alone = format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = '{name}'");
        wait_for("the template is alone", async || value::<bool>(&postgres, &alone).await).await;
    }
    made.insert(cluster.socket_dir().to_owned());
}

/// Makes a database as a copy of another. Where nobody waits for the disk it is copied file by file: through the log, every walsender of the server would read the copy too.
async fn copy(cluster: &Cluster, name: &str, template: &str) -> Session {
    const BY_FILE: &str = "SELECT current_setting('server_version_num')::int >= 150000 AND NOT current_setting('fsync')::bool";
    let postgres = open(cluster, "postgres").await;
    let by_file = value::<bool>(&postgres, BY_FILE).await;
    let strategy = if by_file { "STRATEGY file_copy" } else { "" };
    run(&postgres, &format!("CREATE DATABASE {name} TEMPLATE {template} {strategy}")).await;
    open(cluster, name).await
}

/// Makes a database with what these scripts make, by a copy where many are made.
async fn database(cluster: &Cluster, name: &str, template: &str, scripts: &[&str]) -> Session {
    if MANY.iter().any(|one| one.get().is_some_and(|one| std::ptr::eq(one, cluster))) {
        templates(cluster).await;
        return copy(cluster, name, template).await;
    }
    let session = copy(cluster, name, "template1").await;
    for script in scripts {
        run(&session, script).await;
    }
    session
}

/// Makes a database with the tables of the sample portal.
pub async fn portal_database(cluster: &Cluster, name: &str) -> Session {
    database(cluster, name, PORTAL_TEMPLATE, &portal_scripts()).await
}

/// Makes an audit database with the schema and no row.
pub async fn audit_database(cluster: &Cluster, name: &str) -> Session {
    database(cluster, name, AUDIT_TEMPLATE, &[sql::audit()]).await
}

/// A source database, an audit database, and the settings of a sidecar between them.
pub struct Portal {
    pub name: String,
    pub source: Session,
    pub audit: Session,
    pub settings: Settings,
    pub settings_text: String,
}

/// What a test may want to be different.
pub struct Wishes<'a> {
    pub name: &'a str,
    /// SQL of the source database; the sample portal if empty.
    pub schema: &'a str,
    pub mapping: &'a str,
    pub backfill: bool,
    /// Lines for `[limits]`.
    pub limits: &'a str,
}

impl Default for Wishes<'_> {
    fn default() -> Self {
        Self { name: "", schema: "", mapping: "merge-reference", backfill: false, limits: "" }
    }
}

/// The sample portal, with its source set up, and an empty audit database.
pub async fn sample(name: &str) -> Portal {
    portal(cluster(), Wishes { name, ..Wishes::default() }).await
}

pub async fn portal(cluster: &Cluster, wishes: Wishes<'_>) -> Portal {
    let Wishes { name, schema, mapping, backfill, limits } = wishes;
    let source = if schema.is_empty() {
        portal_database(cluster, name).await
    } else {
        let source = copy(cluster, name, "template1").await;
        run(&source, schema).await;
        source
    };
    let audit = audit_database(cluster, &format!("{name}_audit")).await;
    let settings_text = settings_text(cluster, name, mapping, backfill, limits);
    let settings = Settings::parse(Path::new("test.toml"), &settings_text)
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
    run(&source, &sql::source(&settings.sources[0])).await;
    Portal { name: name.to_owned(), source, audit, settings, settings_text }
}

/// The sample portal on one server and an empty audit database on another, with what the settings need there.
pub async fn portal_between(source: &Cluster, audit: &Cluster, name: &str, settings: &Settings) {
    let session = portal_database(source, name).await;
    run(&session, &sql::source(&settings.sources[0])).await;
    audit_database(audit, &format!("{name}_audit")).await;
}

/// Sends a signal to the first process of a server.
pub fn signal_server(cluster: &Cluster, signal: &str) {
    let file = std::fs::read_to_string(cluster.data_dir().join("postmaster.pid")).unwrap();
    program::signal(file.lines().next().unwrap().parse().unwrap(), signal);
}

pub fn settings_text(
    cluster: &Cluster,
    name: &str,
    mapping: &str,
    backfill: bool,
    limits: &str,
) -> String {
    let source = cluster.dsn(name, "postgres");
    let audit = cluster.dsn(&format!("{name}_audit"), "postgres");
    let spool = cluster.socket_dir().display().to_string();
    format!(
        "[audit]\ndsn = {audit:?}\n[[source]]\nname = {name:?}\ndsn = {source:?}\nmapping = {mapping:?}\nbackfill = {backfill}\n\
         [limits]\nspool_folder = {spool:?}\ncomplete_interval_ms = 20\nconfirm_interval_ms = 10\n{limits}\n"
    )
}

impl Portal {
    /// Starts a sidecar in this process and waits until it streams. While it runs, what must always hold is looked at; but not on servers of a test's own, because such tests count and end sessions.
    pub async fn start(&self) -> Sidecar {
        let mut sidecar = Sidecar::start(self.settings.clone());
        self.streaming().await;
        let shared = CLUSTER.get().map(|cluster| cluster.dsn(&self.name, "postgres"));
        if shared.is_some_and(|dsn| self.settings_text.contains(&format!("{dsn:?}"))) {
            sidecar.watch = Some(Watch::confirm_rule(&self.settings));
        }
        sidecar
    }

    pub async fn streaming(&self) {
        let query = format!(
            "SELECT count(*) = 1 FROM portal_audit.progress WHERE source = '{}' AND state = 'streaming'",
            self.name
        );
        wait_for("streaming", async || value::<bool>(&self.audit, &query).await).await;
    }

    /// Waits until everything that is in the source's log now is written.
    pub async fn catch_up(&self) {
        self.catch_up_within(WAIT_MAX).await;
    }

    /// The same where there is much of it.
    pub async fn catch_up_within(&self, wait: Duration) {
        let end: String = value(&self.source, "SELECT pg_current_wal_insert_lsn()::text").await;
        let query = format!("SELECT bool_and(end_lsn >= '{end}') FROM portal_audit.progress");
        wait_within("catching up", wait, async || {
            value::<Option<bool>>(&self.audit, &query).await == Some(true)
        })
        .await;
    }

    /// Runs a script in the source and waits until the audit has it.
    pub async fn act(&self, script: &str) {
        run(&self.source, script).await;
        self.catch_up().await;
    }

    /// The events against the portal's journal; they must all be sealed.
    pub async fn proof(&self) -> Proof {
        sealed::assert_sealed(&self.audit).await;
        proof::compare(&self.source, &self.audit, &self.name).await.unwrap()
    }

    /// The events in order, as fixtures show them; they must all be sealed.
    pub async fn events(&self) -> String {
        sealed::assert_sealed(&self.audit).await;
        const QUERY: &str = "SELECT event_type, caller, subject_type, subject, target, success, error_message, (payload - '_audit')::text, payload->'_audit'->>'caller_from', ((payload->'_audit') - ARRAY['source', 'lsn', 'xid', 'n', 'caller_from', 'cause', 'rule'])::text, CASE WHEN payload->'_audit' ? 'cause' THEN coalesce((SELECT c.event_type || ' ' || c.subject FROM public.events c WHERE c.event_uuid = (e.payload->'_audit'->>'cause')::uuid), 'an event that is not there') END FROM public.events e ORDER BY coalesce((payload->'_audit'->>'lsn')::pg_lsn, '0/0'), payload->'_audit'->>'xid', coalesce((payload->'_audit'->>'n')::bigint, 0), event_type, subject";
        let rows = self.audit.client.query(QUERY, &[]).await.unwrap();
        rows.iter().map(show).collect()
    }

    /// How many events there are.
    pub async fn count(&self) -> i64 {
        value(&self.audit, "SELECT count(*) FROM public.events").await
    }
}

fn show(row: &tokio_postgres::Row) -> String {
    let text = |column: usize| row.get::<_, Option<&str>>(column).unwrap_or_default();
    let target = row.get::<_, Option<&str>>(4).map(|target| format!("  target={target}"));
    let outcome = if row.get(5) { "ok".to_owned() } else { format!("FAILED {}", text(6)) };
    let flags = Some(text(9)).filter(|flags| *flags != "{}").map(|flags| format!("  {flags}"));
    let cause = row.get::<_, Option<&str>>(10).map(|cause| format!("  cause={cause}"));
    format!(
        "{}  caller={} ({})  subject={}/{}{}  {outcome}{}{}\n    {}\n",
        text(0),
        text(1),
        text(8),
        text(2),
        text(3),
        target.unwrap_or_default(),
        cause.unwrap_or_default(),
        flags.unwrap_or_default(),
        text(7)
    )
}

/// A sidecar in this process.
pub struct Sidecar {
    stop: watch::Sender<bool>,
    tasks: JoinSet<Vec<Ended>>,
    watch: Option<Watch>,
}

impl Sidecar {
    pub fn start(settings: Settings) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(pipeline::run(settings, stopped));
        Self { stop, tasks, watch: None }
    }

    /// One that may pass over changes of its sources that are gone.
    pub fn start_accepting(settings: Settings) -> Self {
        let accepted: Vec<String> =
            settings.sources.iter().map(|source| source.name.clone()).collect();
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            pipeline::run_accepting(settings, &accepted, &std::sync::Arc::default(), stopped).await
        });
        Self { stop, tasks, watch: None }
    }

    /// Asks it to stop; it must not have ended by a fault.
    pub async fn stop(mut self) {
        let watch = self.watch.take();
        let ended = self.stop_with_faults().await;
        assert!(ended.is_empty(), "{}", ended.join("\n"));
        if let Some(watch) = watch {
            watch.stop().await;
        }
    }

    /// Asks it to stop; gives the faults of sources that had ended.
    pub async fn stop_with_faults(self) -> Vec<String> {
        self.stop.send_replace(true);
        self.ended().await
    }

    /// Waits until it ends by itself; gives the faults.
    pub async fn ended(mut self) -> Vec<String> {
        let ended = tokio::time::timeout(WAIT_MAX, self.tasks.join_next()).await;
        let ended = ended.expect("the sidecar must end").unwrap().unwrap();
        ended.iter().map(|ended| chain(&ended.fault)).collect()
    }
}
