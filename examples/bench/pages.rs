//! Workload pages: every page, answer of the API, verb and documented query over ten million events of a testbed, each asked until its median is known.

mod fill;

use crate::{
    Result, process,
    report::{Report, median},
    stage,
    table::{README, documented},
};
use portal_audit::{
    config::{self, Access, Pages},
    connect::Session,
    demo::cluster::{Cluster, Installation, Options},
    metrics::Metrics,
    serve, web,
};
use serde::Serialize;
use std::{env, net::SocketAddr, path::PathBuf, sync::Arc, time::Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const COOKBOOK: &str = include_str!("../../sql/COOKBOOK.md");
/// The log stays small: nothing here is worth recovering.
const SERVER: [(&str, &str); 6] = [
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("shared_buffers", "1GB"),
    ("maintenance_work_mem", "512MB"),
    ("max_wal_size", "1GB"),
    ("full_page_writes", "off"),
];
const DATABASE: &str = "audit";
/// Who sees all.
const OPS: &str = "ops";
/// What every page and answer may take.
const MILLIS_MAX: f64 = 100.0;

/// One question, and how long its answer took.
#[derive(Debug, Serialize)]
pub(crate) struct Asked {
    /// `page`, `viewer`, `verb`, `cookbook` or `query`.
    pub(crate) kind: &'static str,
    pub(crate) what: String,
    pub(crate) median_ms: f64,
    pub(crate) longest_ms: f64,
    pub(crate) first_ms: f64,
    /// Of the answer, as it goes over the wire; of a query the rows.
    pub(crate) size: usize,
}

impl Asked {
    pub(crate) fn is_late(&self) -> bool {
        self.median_ms > MILLIS_MAX
    }
}

/// Fills a database of its own, unless one is named, and asks. One that is named is filled if it is empty, and stays.
pub(crate) async fn run(dsn: Option<&str>, repetitions: usize, report: &mut Report) -> Result<()> {
    if let Some(dsn) = dsn {
        let audit = stage::open(dsn).await?;
        let empty = "SELECT to_regclass('public.events') IS NULL";
        if audit.client.query_one(empty, &[]).await?.get(0) {
            fill::fill(&audit).await?;
        }
        return ask(dsn, repetitions, report).await;
    }
    let explicit = env::var_os("PORTAL_AUDIT_PG_BINDIR").map(PathBuf::from);
    let settings = SERVER.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let options = Options { tcp: true, settings, ..Options::default() };
    let cluster = Cluster::start_with(&Installation::find(explicit.as_deref())?, &options)?;
    let owner = stage::open(&cluster.dsn("postgres", stage::OWNER)).await?;
    owner.client.batch_execute(&format!("CREATE DATABASE {DATABASE}")).await?;
    let dsn = cluster.dsn(DATABASE, stage::OWNER);
    let audit = stage::open(&dsn).await?;
    fill::fill(&audit).await?;
    drop(audit);
    ask(&dsn, repetitions, report).await
}

/// Pages and answers of the API. `{day}` is a day of last year; `{event}` and `{old}` are events of now and then.
const PATHS: [&str; 63] = [
    "/",
    "/?at={day}",
    "/?days=30",
    "/?days=365",
    "/?days=1825",
    "/?days=1825&at={day}",
    "/events",
    "/events?before={old}",
    "/events?after={old}",
    "/events?q=type:org_member_added",
    "/events?q=type:org_*",
    "/events?q=type:login_*",
    "/events?q=type:login_failed since:7d",
    "/events?q=type:user_frozen",
    "/events?q=type:project_deleted",
    "/events?q=type:audit_gap",
    "/events?q=type:no_such_type",
    "/events?q=success:false",
    "/events?q=success:false since:7d",
    "/events?q=success:false type:realization_created",
    "/events?q=success:false type:materialization_started",
    "/events?q=actor:user-0000",
    "/events?q=actor:user-0000 type:project_deleted",
    "/events?q=actor:user-1999",
    "/events?q=actor:nobody",
    "/events?q=subject_type:facility",
    "/events?q=subject_type:organization subject:organization-7",
    "/events?q=subject:project-0007",
    "/events?q=subject:user-0000",
    "/events?q=subject:user-0000 type:user_frozen",
    "/events?q=target:user-0020",
    "/events?q=user:user-0000",
    "/events?q=user:user-1500",
    "/events?q=user:user-1500 until:{day}",
    "/events?q=payload.role:maintainer",
    "/events?q=payload.role:creator",
    "/events?q=payload.resources:facility-07-12",
    "/events?q=payload.no:thing",
    "/events?q=payload.no:thing type:project_member_added",
    "/events?q=type:experiment_* since:{day} until:{day}",
    "/events/{event}",
    "/events/{old_id}",
    "/users/user-0000",
    "/users/user-1500",
    "/users/user-1500?at={day}",
    "/organizations/organization-7",
    "/projects/project-0000",
    "/projects/project-0500?at={day}",
    "/experiments/project-0000/experiment-0",
    "/experiments/project-0500/experiment-1500",
    "/facilities",
    "/facilities?at={day}",
    "/facilities/facility-00",
    "/facilities/facility-40?days=365&at={day}",
    "/facilities.atom",
    "/facilities.json",
    "/pipeline",
    "/api/v1/stats",
    "/api/v1/stats?at={day}",
    "/api/v1/events?limit=500",
    "/api/v1/events?limit=500&q=type:experiment_*",
    "/api/v1/facilities",
    "/api/v1/facilities/facility-00",
];

/// Users of the portal, from who sees much to who sees nothing: one keeps an organization with its 20 projects and is a member of 20 more, the others are members of 300 and of 9, have a login and nothing else, and are not known.
const VIEWERS: [&str; 5] = ["user-0019", "user-0500", "user-1290", "user-1500", "nobody"];

/// What each of them asks. `{viewer}` is their own name; what they may not see is not there.
const VIEWER_PATHS: [&str; 18] = [
    "/",
    "/events",
    "/events?before={old}",
    "/events?after={old}",
    "/events?q=type:project_member_*",
    "/events?q=type:project_deleted",
    "/events?q=success:false",
    "/events?q=success:false type:realization_created",
    "/events?q=actor:user-0000",
    "/events?q=user:{viewer}",
    "/events?q=payload.role:creator",
    "/events?q=payload.no:thing",
    "/events?q=payload.no:thing type:project_member_added",
    "/events?q=type:experiment_* since:{day} until:{day}",
    "/users/{viewer}",
    "/projects/project-0999",
    "/experiments/project-0019/experiment-19",
    "/api/v1/events?limit=500",
];

/// Verbs of the program, as a shell takes them.
const VERBS: [&str; 19] = [
    "stats",
    "stats --at {day}",
    "history user user-0000",
    "history user user-1500",
    "history organization organization-7",
    "history project project-0000",
    "history project project-0500",
    "history experiment project-0000/experiment-0",
    "history experiment project-0500/experiment-1500",
    "events",
    "events --type org_member_added",
    "events --type org_*",
    "events --caller user-0000",
    "events --subject project-0007",
    "events --target user-0020",
    "events --user user-1500",
    "events --success false",
    "events --payload role=creator",
    "events --since 7d",
];

async fn ask(dsn: &str, repetitions: usize, report: &mut Report) -> Result<()> {
    let audit = stage::open(dsn).await?;
    let version = audit.client.query_one("SHOW server_version", &[]).await?;
    report.postgresql = version.get(0);
    let known = Known::read(&audit).await?;
    let site = Site::open(dsn).await?;
    for path in PATHS {
        let what = known.fill(path);
        let ask = async || site.ask(&what, OPS).await;
        report.asked.push(timed("page", &what, repetitions, ask).await?);
    }
    for viewer in VIEWERS {
        for path in VIEWER_PATHS {
            let path = known.fill(path).replace("{viewer}", viewer);
            let ask = async || site.ask(&path, viewer).await;
            let what = format!("{viewer} {path}");
            report.asked.push(timed("viewer", &what, repetitions, ask).await?);
        }
    }
    for verb in VERBS {
        let what = known.fill(verb);
        let mut words: Vec<&str> = what.split(' ').collect();
        words.extend(["--audit", dsn]);
        let verb = async || process::said(&process::built()?, &words).map(|said| said.len());
        report.asked.push(timed("verb", &what, repetitions, verb).await?);
    }
    audit.client.batch_execute("SET ROLE portal_audit_reader").await?;
    let mut queries: Vec<_> = documented(README)?.into_iter().map(|it| ("query", it)).collect();
    let cookbook = known.own_names(COOKBOOK);
    let recipes = cookbook.split("\n## ").skip(1).filter_map(|part| {
        let query = part.split_once("```sql\n")?.1.split("```").next()?;
        Some(("cookbook", (part.lines().next()?.to_owned(), query.to_owned())))
    });
    queries.extend(recipes);
    for (kind, (title, query)) in queries {
        let query = async || Ok(audit.client.simple_query(&query).await?.len().saturating_sub(2));
        report.asked.push(timed(kind, &title, repetitions, query).await?);
    }
    Ok(())
}

/// So often, and once before, when what is kept for a while is not there yet.
async fn timed(
    kind: &'static str,
    what: &str,
    repetitions: usize,
    ask: impl AsyncFn() -> Result<usize>,
) -> Result<Asked> {
    let (mut first_ms, mut taken, mut size) = (0.0, Vec::new(), 0);
    for turn in 0..=repetitions {
        let began = Instant::now();
        size = ask().await.map_err(|error| format!("{kind} {what}: {error}"))?;
        let millis = began.elapsed().as_secs_f64() * 1e3;
        if turn == 0 { first_ms = millis } else { taken.push(millis) }
    }
    let longest_ms = taken.iter().copied().fold(0.0, f64::max);
    let median_ms = median(taken).unwrap_or_default();
    eprintln!("{median_ms:>8.1} {kind} {what}");
    Ok(Asked { kind, what: what.to_owned(), median_ms, longest_ms, first_ms, size })
}

/// Things of the database that questions name.
struct Known {
    day: String,
    event: String,
    old_id: String,
    old: String,
}

impl Known {
    async fn read(audit: &Session) -> Result<Self> {
        const QUERY: &str = "SELECT (now() - interval '400 days')::date::text, (SELECT event_uuid::text FROM events ORDER BY timestamp DESC LIMIT 1), o.event_uuid::text, to_char(o.timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') || '_' || o.event_uuid FROM (SELECT event_uuid, timestamp FROM events WHERE timestamp < now() - interval '400 days' ORDER BY timestamp DESC LIMIT 1) o";
        let row = audit.client.query_one(QUERY, &[]).await?;
        Ok(Self { day: row.get(0), event: row.get(1), old_id: row.get(2), old: row.get(3) })
    }

    fn fill(&self, text: &str) -> String {
        let named = [
            ("{day}", &self.day),
            ("{event}", &self.event),
            ("{old_id}", &self.old_id),
            ("{old}", &self.old),
        ];
        named.into_iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    /// The cookbook with names of this testbed, and its times moved to where there is life.
    fn own_names(&self, text: &str) -> String {
        let named = [
            ("'wrenn'", "'user-0007'"),
            ("'testuser'", "'user-0020'"),
            ("'orgtest'", "'organization-7'"),
            ("'mesh'", "'project-0007'"),
            ("'mesh8'", "'experiment-7'"),
            ("'m1'", "'facility-00-7'"),
        ];
        named.into_iter().fold(text.to_owned(), |text, (name, own)| text.replace(name, own))
    }
}

/// The pages, served by this process.
struct Site {
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Site {
    async fn open(dsn: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let access = Access::Proxy { header: "x-user".into(), peers: vec![address.ip()] };
        let pages =
            Pages { conninfo: config::conninfo(dsn)?, access, admins: vec![OPS.to_owned()] };
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let metrics = Arc::new(Metrics::default());
            let routes = web::routes(&pages, &metrics);
            match serve::serve(listener, metrics, routes).await {}
        });
        Ok(Self { address, _serving: serving })
    }

    /// Bytes of the body, as they came. What a user of the portal may not see is not found.
    async fn ask(&self, path: &str, who: &str) -> Result<usize> {
        let path = path.replace(' ', "%20");
        let mut stream = TcpStream::connect(self.address).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAccept-Encoding: gzip\r\nAccept: text/html\r\nx-user: {who}\r\n\r\n",
            self.address
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let code = answer.get(9..12);
        if code != Some(b"200") && (who == OPS || code != Some(b"404")) {
            let status = answer.get(..40).unwrap_or(&answer);
            return Err(String::from_utf8_lossy(status).into());
        }
        let head = answer.windows(4).position(|end| end == b"\r\n\r\n").ok_or("no head")?;
        Ok(answer.len() - head - 4)
    }
}
