//! The program as a service: what it serves, settings that are read again, what the service manager hears, and who takes over.

use crate::support::{
    Portal, Wishes, cluster, portal,
    program::{Program, SettingsFile, command, signal},
    run, sample, value, wait_for,
};
use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::{Child, Stdio},
    time::Duration,
};

const SERVE: &str = "\n[serve]\nlisten = \"127.0.0.1:0\"\n";

fn user(name: &str) -> String {
    format!("INSERT INTO portal.users (username, uid, gid) VALUES ('{name}', 1, 1)")
}

/// A program that serves, its settings and its log.
pub struct Serving {
    pub program: Program,
    _file: SettingsFile,
    log: PathBuf,
    address: String,
}

impl Serving {
    async fn start(portal: &Portal) -> Self {
        Self::start_in(SettingsFile::new(portal), &portal.settings_text).await
    }

    pub async fn start_in(file: SettingsFile, settings: &str) -> Self {
        std::fs::write(&file.path, settings.to_owned() + SERVE).unwrap();
        let log = file.path.with_file_name("log");
        let program = Program::run_with_level(&file.path, &log, "info");
        let mut serving = Self { program, _file: file, log, address: String::new() };
        wait_for("the listener", async || serving.log_text().contains("serving /livez")).await;
        let text = serving.log_text();
        let line = text.lines().find(|line| line.contains("serving /livez")).unwrap();
        serving.address = line.split("address=").nth(1).unwrap().trim().to_owned();
        serving
    }

    fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The value of one series, by its name and labels as they are written.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    async fn shows(&self, series: &str, wanted: f64) {
        let what = format!("{series} {wanted}");
        wait_for(&what, async || self.metric(series) == Some(wanted)).await;
    }

    pub async fn says(&self, what: &str) {
        wait_for(what, async || self.log_text().contains(what)).await;
    }

    fn hang_up(&self) {
        signal(self.program.id(), "HUP");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_serves() {
    let portal = sample("serves").await;
    let serving = Serving::start(&portal).await;
    portal.streaming().await;
    assert_eq!(serving.get("/livez"), (200, "ok\n".to_owned()));
    wait_for("ready", async || serving.get("/readyz").0 == 200).await;
    assert_eq!(serving.get("/readyz?verbose").1, "[+]source-serves streaming\nready\n");
    assert_eq!(serving.get("/").0, 404);
    portal.act(&user("wrenn")).await;
    portal.act("UPDATE portal.users SET name = 'x'").await;
    serving
        .shows(
            "portal_audit_events_written_total{source=\"serves\",event_type=\"user_created\"}",
            1.0,
        )
        .await;
    serving.shows("portal_audit_transactions_total{source=\"serves\"}", 2.0).await;
    serving.shows("portal_audit_gaps_total{source=\"serves\"}", 0.0).await;
    serving.shows("portal_audit_not_covered_objects{source=\"serves\"}", 0.0).await;
    serving.shows("portal_audit_commit_to_written_seconds_count{source=\"serves\"}", 2.0).await;
    assert!(
        serving.metric("portal_audit_complete_to_timestamp_seconds{source=\"serves\"}").unwrap()
            > 1.7e9
    );
    assert!(serving.metric("portal_audit_lag_seconds{source=\"serves\"}").unwrap() < 3600.0);
    assert!(serving.program.terminate().success());
}

/// `deploy/metrics.txt` is what alerts and dashboards rest on: each series of it is served, with its type, and none that it does not name.
#[tokio::test(flavor = "multi_thread")]
async fn every_series_is_listed() {
    let portal = portal(
        cluster(),
        Wishes { name: "listed", limits: "wal_check_interval_ms = 20", ..Wishes::default() },
    )
    .await;
    let serving = Serving::start(&portal).await;
    portal.streaming().await;
    portal.act(&user("wrenn")).await;
    run(&portal.source, "CREATE TABLE portal.extra (id INTEGER PRIMARY KEY); ALTER PUBLICATION portal_audit ADD TABLE portal.extra").await;
    portal.act("INSERT INTO portal.extra VALUES (1)").await;
    // A fault, so that there is an error to count.
    let end = "SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots WHERE slot_name = 'portal_audit_listed' AND active";
    wait_for("a reader", async || value::<i64>(&portal.source, end).await == 1).await;
    serving.shows("portal_audit_reconnects_total{source=\"listed\"}", 1.0).await;
    serving.shows("portal_audit_slot_present{source=\"listed\"}", 1.0).await;
    serving.shows("portal_audit_not_covered_objects{source=\"listed\"}", 0.0).await;
    serving.shows("portal_audit_source_connected{source=\"listed\"}", 1.0).await;
    serving.shows("portal_audit_unmapped_changes_total{source=\"listed\",table=\"portal.extra\",op=\"insert\"}", 1.0).await;
    let (_, text) = serving.get("/metrics");
    let served =
        types(text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(str::to_owned));
    let listed = include_str!("../../deploy/metrics.txt");
    let listed = listed.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut listed = types(listed.map(str::to_owned));
    // What has series only under conditions that this test does not make.
    for conditional in
        ["slot_safe_wal_bytes", "certificate_expiry_timestamp_seconds", "checkpoint_age_seconds"]
    {
        assert!(listed.remove(&format!("portal_audit_{conditional}")).is_some());
    }
    assert_eq!(served, listed);
    assert!(serving.program.terminate().success());
}

/// Names with their types, as an exposition has them and as the list has them.
fn types(lines: impl Iterator<Item = String>) -> BTreeMap<String, String> {
    let of = |line: String| {
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    };
    lines
        .map(of)
        .map(|(name, kind)| {
            let is_info = kind == "info";
            (
                if is_info {
                    format!("{name}_info")
                } else {
                    name.trim_end_matches("_total").to_owned()
                },
                if is_info { "gauge".to_owned() } else { kind },
            )
        })
        .collect()
}

/// A source that is away is no reason to be unready; one that needs a human is.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_ready() {
    let portal = sample("who_is_ready").await;
    let text = &portal.settings_text;
    let (head, limits) = text.split_once("[limits]").unwrap();
    let source = &head[head.find("[[source]]").unwrap()..];
    let named = |name: &str| source.replace("name = \"who_is_ready\"", &format!("name = {name:?}"));
    // One that cannot be reached, and one whose publication is not there.
    let away = named("away").replace("host=", "host=/nowhere");
    let unfit = named("unfit") + "publication = \"nowhere\"\n";
    let with = |other: &str| format!("{head}{other}[limits]{limits}");
    let serving = Serving::start_in(SettingsFile::new(&portal), &with(&away)).await;
    let wanted = "[+]source-away waiting\n[+]source-who_is_ready streaming\nready\n";
    let is = async |serving: &Serving, code, text: &str| {
        let wanted = (code, text.to_owned());
        wait_for(text, async || serving.get("/readyz?verbose") == wanted).await;
    };
    is(&serving, 200, wanted).await;
    assert!(serving.program.terminate().success());
    let serving = Serving::start_in(SettingsFile::new(&portal), &with(&unfit)).await;
    is(&serving, 503, "[-]source-unfit stopped\n[+]source-who_is_ready streaming\nnot ready\n")
        .await;
    assert_eq!(serving.get("/livez").0, 200);
}

/// SIGHUP: a mapping and settings that are good take over with nothing lost; what is not understood, or does not fit the source, leaves the old ones in place.
#[tokio::test(flavor = "multi_thread")]
async fn settings_are_read_again() {
    let mut portal = sample("reloads").await;
    let mapping = include_str!("../../deploy/mapping/merge-reference.toml");
    portal.settings_text = portal.settings_text.replace("\"merge-reference\"", "\"own.toml\"");
    // Read from the folder of the settings, which is made with them.
    let file = SettingsFile::new(&portal);
    let own = file.path.with_file_name("own.toml");
    std::fs::write(&own, mapping).unwrap();
    let serving = Serving::start_in(file, &portal.settings_text).await;
    portal.streaming().await;
    portal.act(&user("before")).await;
    const SUCCESS: &str = "portal_audit_config_last_reload_successful";

    std::fs::write(&own, mapping.to_owned() + "\n[[event]]\ntype = 5\n").unwrap();
    serving.hang_up();
    serving.shows(SUCCESS, 0.0).await;
    portal.act(&user("not_understood")).await;

    let unfit = mapping.replacen("= \"username\"", "= \"usrname\"", 1);
    assert!(unfit != mapping);
    std::fs::write(&own, unfit).unwrap();
    serving.hang_up();
    serving.says("usrname").await;
    portal.act(&user("not_fitting")).await;
    assert_eq!(serving.metric(SUCCESS), Some(0.0));
    assert_eq!(serving.log_text().matches("the old ones stay").count(), 2);

    let better = mapping.replace("= \"user_created\"", "= \"user_made\"");
    assert!(better != mapping);
    std::fs::write(&own, better).unwrap();
    serving.hang_up();
    serving.shows(SUCCESS, 1.0).await;
    serving.shows("portal_audit_source_connected{source=\"reloads\"}", 1.0).await;
    portal.act(&user("after")).await;
    let told = "SELECT string_agg(event_type || ' ' || subject, ', ' ORDER BY payload->'_audit'->>'lsn') FROM public.events";
    let told: String = value(&portal.audit, told).await;
    assert_eq!(
        told,
        "user_created before, user_created not_understood, user_created not_fitting, user_made after"
    );
    assert!(serving.program.terminate().success());
}

/// What systemd hears: ready once the source streams, a line of status, a sign of life, a reload, the end.
#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told() {
    let portal = sample("told").await;
    let file = SettingsFile::new(&portal);
    let path = file.path.with_file_name("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut command = command(&["run", "--config", file.path.to_str().unwrap()]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000").stderr(Stdio::null());
    let program = Managed(command.spawn().unwrap());
    let hears = |what: &str| {
        let mut buffer = [0; 4_096];
        loop {
            let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{what}: {error}"));
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.lines().any(|line| line.starts_with(what)) {
                return text;
            }
        }
    };
    hears("READY=1");
    assert!(hears("STATUS=").contains("told streaming"));
    hears("WATCHDOG=1");
    hears("WATCHDOG=1");
    signal(program.0.id(), "HUP");
    assert!(hears("RELOADING=1").contains("MONOTONIC_USEC="));
    hears("READY=1");
    signal(program.0.id(), "TERM");
    hears("STOPPING=1");
}

/// A process that ends with its test.
struct Managed(Child);

impl Drop for Managed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Two on one slot: the second waits, says so once, and takes over when the first is killed; nothing is lost or doubled.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_one_stands_by() {
    let portal = sample("stands_by").await;
    let first = Serving::start(&portal).await;
    portal.streaming().await;
    portal.act(&user("before")).await;
    let second = Serving::start(&portal).await;
    second.shows("portal_audit_source_state{source=\"stands_by\",state=\"waiting\"}", 1.0).await;
    wait_for("ready", async || second.get("/readyz").0 == 200).await;
    for n in 0..20 {
        run(&portal.source, &user(&format!("user{n}"))).await;
    }
    second.shows("portal_audit_source_connected{source=\"stands_by\"}", 0.0).await;
    first.program.kill();
    let killed = std::time::Instant::now();
    second.shows("portal_audit_source_connected{source=\"stands_by\"}", 1.0).await;
    println!("took over after {:?}", killed.elapsed());
    portal.act(&user("after")).await;
    assert_eq!(portal.count().await, 22);
    let log = second.log_text();
    assert_eq!(log.lines().filter(|line| line.contains("55006")).count(), 1, "{log}");
    let proof = portal.proof().await;
    assert_eq!((proof.lost, proof.doubled), (0, 0), "{:#?}", proof.differences);
}
