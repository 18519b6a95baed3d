//! Links that are half open, flap, crawl, or answer nobody: the sidecar notices by itself, waits sensibly, and loses nothing.

use crate::support::{
    Portal, Sidecar, WAIT_MAX,
    linked::{linked, tcp_cluster},
    open,
    program::{Program, SettingsFile, signal},
    proxy::{Ending, Fault, Way::ToServer, Weather},
    run, value, wait_for,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::sleep;

fn user(name: &str) -> String {
    format!("INSERT INTO portal.users (username, uid, gid) VALUES ('{name}', 1, 1)")
}

/// What a program says of itself.
struct Log {
    folder: tempfile::TempDir,
}

impl Log {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.path()).unwrap()
    }

    /// Lines that somebody must read.
    fn complaints(&self) -> Vec<String> {
        let text = self.text();
        let lines = text.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR "));
        lines.map(str::to_owned).collect()
    }

    async fn says(&self, what: &str) {
        wait_for(what, async || self.text().contains(what)).await;
    }
}

fn start(settings: &Path, log: &Log) -> Program {
    Program::run_with_level(settings, &log.path(), "info")
}

async fn assert_proven(portal: &Portal) {
    let proof = portal.proof().await;
    assert!(proof.events > 0, "{proof:?}");
    assert_eq!((proof.lost, proof.doubled), (0, 0), "{:#?}", proof.differences);
}

/// No packet arrives and no connection is closed: the source's server thinks so too, and keeps the slot until its own timeout.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_falls_silent_is_connected_to_anew() {
    let limits = "source_timeout_seconds = 2";
    let linked = linked("outage_half_open", limits).await;
    run(&linked.portal.source, "ALTER DATABASE outage_half_open SET wal_sender_timeout = '4s'")
        .await;
    let (settings, log) = (SettingsFile::new(&linked.portal), Log::new());
    let program = start(&settings.path, &log);
    linked.portal.streaming().await;
    linked.portal.act(&user("before")).await;
    log.says("streaming").await;
    linked.source.stall_all();
    run(&linked.portal.source, &user("meanwhile")).await;
    log.says("the source did not answer within 2 s").await;
    // The server has not noticed yet: the slot is still in use, which passes.
    log.says("(SQLSTATE 55006)").await;
    linked.portal.act(&user("after")).await;
    assert!(program.terminate().success());
    let refused = log.complaints().iter().filter(|line| line.contains("55006")).count();
    assert!(refused < 30, "it must not insist: {refused} times");
    assert_proven(&linked.portal).await;
}

/// The audit database falls silent in the midst of a transaction: the source is let go, and no event is written twice.
#[tokio::test(flavor = "multi_thread")]
async fn an_audit_database_that_falls_silent_is_connected_to_anew() {
    let mut linked = linked("outage_audit", "audit_timeout_seconds = 1").await;
    let sidecar = linked.portal.start().await;
    linked.portal.act(&user("before")).await;
    linked.audit.arm(Fault::HoldAnswer, 0, |message| message.is(ToServer, b'B', b"meanwhile"));
    run(&linked.portal.source, &user("meanwhile")).await;
    linked.audit.fired("the write").await;
    linked.portal.act(&user("after")).await;
    sidecar.stop().await;
    assert_proven(&linked.portal).await;
}

/// Neither end learns that the other is gone: what our session holds is in the way of the next one, and of whoever waits for the table.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_left_open_is_ended() {
    let mut linked = linked("outage_left", "audit_timeout_seconds = 1").await;
    let sidecar = linked.portal.start().await;
    linked.audit.arm(Fault::Hold, 0, |message| message.is(ToServer, b'Q', b"COMMIT"));
    let many = "INSERT INTO portal.users (username, uid, gid) SELECT 'left-' || n, n, n FROM generate_series(1, 300) n";
    run(&linked.portal.source, many).await;
    linked.audit.fired("the end of the transaction").await;
    // Whoever is next in line lets nobody pass.
    let other = open(tcp_cluster(), "outage_left_audit").await;
    let locked = run(&other, "BEGIN; LOCK TABLE public.events; COMMIT");
    tokio::time::timeout(WAIT_MAX, locked).await.expect("somebody else's lock must be given");
    linked.portal.catch_up().await;
    sidecar.stop().await;
    assert_proven(&linked.portal).await;
}

/// Life in the portal, one transaction each 5 ms, until the future ends.
async fn with_load(portal: &Portal, fault: impl Future<Output = ()>) -> i64 {
    let mut acts = 0_i64;
    let load = async {
        loop {
            let act = "SELECT activity.act($1)";
            portal.source.client.execute(act, &[&acts]).await.unwrap();
            acts += 1;
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = fault => {}
        () = load => {}
    }
    acts
}

#[tokio::test(flavor = "multi_thread")]
async fn flapping_links_make_progress_and_no_flood() {
    let linked = linked("outage_flapping", "").await;
    let (settings, log) = (SettingsFile::new(&linked.portal), Log::new());
    let program = start(&settings.path, &log);
    linked.portal.streaming().await;
    let end = "SELECT end_lsn::text FROM portal_audit.progress";
    let mut ends = std::collections::HashSet::new();
    let (mut flaps, mut barren) = (0, 0);
    let flapping = async {
        // On a busy machine a session may take longer to begin than it is given: then it is given more.
        while flaps < 40 || (ends.len() < 4 && flaps < 300) {
            flaps += 1;
            sleep(Duration::from_millis(200 + 10 * barren)).await;
            let ending = if flaps % 2 == 0 { Ending::Reset } else { Ending::Close };
            linked.source.cut_all(ending);
            linked.audit.cut_all(ending);
            let is_new = ends.insert(value::<String>(&linked.portal.audit, end).await);
            barren = if is_new { 0 } else { barren + 1 };
        }
    };
    let acts = with_load(&linked.portal, flapping).await;
    assert!(ends.len() >= 4, "progress must move while links flap: {ends:?}\n{}", log.text());
    let complaints = log.complaints();
    let sessions = log.text().matches(" streaming ").count();
    println!(
        "{acts} acts, {flaps} cuts, {sessions} streams, {} lines, progress at {} places",
        complaints.len(),
        ends.len()
    );
    // One line for each session that ended, and each session was ended by a cut.
    assert!(complaints.len() <= flaps, "{}", complaints.join("\n"));
    linked.portal.catch_up().await;
    assert!(program.terminate().success());
    assert_proven(&linked.portal).await;
}

/// A long way to the audit database, then a narrow line: it takes longer, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_audit_link_delays_and_breaks_nothing() {
    let linked = linked("outage_slow", "audit_timeout_seconds = 10").await;
    let (settings, log) = (SettingsFile::new(&linked.portal), Log::new());
    let program = start(&settings.path, &log);
    linked.portal.streaming().await;
    for weather in [
        Weather { latency: Duration::from_millis(150), ..Weather::default() },
        Weather { bytes_per_second: 40_000, ..Weather::default() },
    ] {
        linked.audit.set_weather(weather);
        let acts = with_load(&linked.portal, sleep(Duration::from_millis(1_500))).await;
        assert!(acts > 10);
        linked.portal.catch_up().await;
    }
    assert!(program.terminate().success());
    assert_eq!(log.complaints(), Vec::<String>::new(), "no timeout");
    assert_proven(&linked.portal).await;
}

/// What is asked of a program that is to end, and how long that may take by the promise.
async fn terminated(program: Program, what: &str) {
    let ended = tokio::task::spawn_blocking(move || program.terminate());
    let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
    let status = ended.unwrap_or_else(|_elapsed| panic!("{what}: still there after 10 s"));
    assert!(status.unwrap().success(), "{what}");
}

/// Who is asked to stop stops, whatever it waits for.
#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_at_any_moment() {
    let mut linked = linked("outage_stop", "").await;
    let settings = SettingsFile::new(&linked.portal);
    let black_hole = Weather { is_black_hole: true, ..Weather::default() };
    let refusing = Weather { is_refusing: true, ..Weather::default() };
    for (at_source, weather, what) in [
        (true, black_hole, "connecting to a source that is a black hole"),
        (false, black_hole, "connecting to an audit database that is a black hole"),
        (true, refusing, "waiting for a source that refuses"),
        (false, refusing, "waiting for an audit database that refuses"),
    ] {
        let log = Log::new();
        let proxy = if at_source { &linked.source } else { &linked.audit };
        let before = proxy.accepted();
        proxy.set_weather(weather);
        let program = start(&settings.path, &log);
        // A second attempt shows that it waits between them; a black hole has only one.
        let attempts = if weather.is_refusing { 2 } else { 1 };
        wait_for(what, async || proxy.accepted() >= before + attempts).await;
        terminated(program, what).await;
        proxy.set_weather(Weather::default());
        proxy.cut_all(Ending::Close);
    }

    // While the source has stopped answering in the midst of the stream.
    let log = Log::new();
    let program = start(&settings.path, &log);
    linked.portal.streaming().await;
    linked.portal.act(&user("before")).await;
    linked.source.stall_all();
    terminated(program, "reading a stream that stands still").await;
    linked.source.cut_all(Ending::Close);

    // In the midst of a transaction, of which nothing may remain but by the next start.
    let program = start(&settings.path, &log);
    linked.portal.act(&user("again")).await;
    linked.source.arm(Fault::HoldNext, 20, |message| message.is_pgoutput(b'I'));
    let many = "INSERT INTO portal.users (username, uid, gid) SELECT 'many' || n, n, n FROM generate_series(1, 50) n";
    run(&linked.portal.source, many).await;
    linked.source.fired("the midst of a transaction").await;
    terminated(program, "in the midst of a transaction").await;
    linked.source.cut_all(Ending::Close);
    let program = start(&settings.path, &log);
    linked.portal.act(&user("after")).await;
    let progress = "SELECT end_lsn::text FROM portal_audit.progress";
    terminated(program, "streaming").await;
    let end: String = value(&linked.portal.audit, progress).await;
    let confirmed = format!(
        "SELECT confirmed_flush_lsn = '{end}' FROM pg_replication_slots WHERE database = 'outage_stop'"
    );
    wait_for("the confirmation", async || value::<bool>(&linked.portal.source, &confirmed).await)
        .await;
    assert_proven(&linked.portal).await;
}

/// The audit database does not answer, so the first request waits for its timeout; the second does not.
#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_twice_ends_at_once() {
    let mut linked = linked("outage_twice", "audit_timeout_seconds = 600").await;
    let (settings, log) = (SettingsFile::new(&linked.portal), Log::new());
    let program = start(&settings.path, &log);
    linked.portal.streaming().await;
    linked.portal.act(&user("before")).await;
    linked.audit.arm(Fault::Hold, 0, |message| message.is(ToServer, b'B', b"meanwhile"));
    run(&linked.portal.source, &user("meanwhile")).await;
    linked.audit.fired("the write").await;
    signal(program.id(), "TERM");
    log.says("asked to stop").await;
    assert!(!program.terminate().success(), "what was not written was not a success");
    linked.audit.cut_all(Ending::Close);
    linked.source.cut_all(Ending::Close);
    let sidecar = Sidecar::start(linked.portal.settings.clone());
    linked.portal.catch_up().await;
    sidecar.stop().await;
    assert_proven(&linked.portal).await;
}
