//! Killed at any moment, nothing is lost and nothing doubled: the events are compared with the journal that the portal's own transactions wrote.

use crate::support::{
    Portal, cluster,
    invariants::Watch,
    open,
    program::{Program, SettingsFile},
    run, sample, value, wait_for,
};
use portal_audit::connect::Session;
use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};
use tokio::{sync::watch, task::JoinSet};

/// Kills of a plain run; `PORTAL_AUDIT_KILLS` is another number of them.
const KILLS: u64 = 20;
const CLIENTS: i64 = 3;

/// Random numbers from a seed that is printed, so that a failing run can be told.
struct Dice(u64);

impl Dice {
    fn new() -> Self {
        let seed = u64::from(std::process::id());
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        // Constants of Knuth's MMIX generator; its high bits are the random ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn kills() -> u64 {
    let given = std::env::var_os("PORTAL_AUDIT_KILLS");
    given.map_or(KILLS, |text| text.into_string().unwrap().parse().unwrap())
}

/// Life in the portal until told to stop.
struct Workload {
    acts: Arc<AtomicI64>,
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
}

impl Workload {
    async fn start(portal: &Portal) -> Self {
        let acts = Arc::new(AtomicI64::new(0));
        let (stop, stopped) = watch::channel(false);
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let session = open(cluster(), &portal.name).await;
            clients.spawn(live(session, client, Arc::clone(&acts), stopped.clone()));
        }
        Self { acts, stop, clients }
    }

    /// Waits until `more` things were done.
    async fn wait(&self, more: u64) {
        let target = self.acts.load(Ordering::Relaxed) + i64::try_from(more).unwrap();
        wait_for("life in the portal", async || self.acts.load(Ordering::Relaxed) >= target).await;
    }

    async fn stop(mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
    }
}

async fn live(session: Session, client: i64, acts: Arc<AtomicI64>, stopped: watch::Receiver<bool>) {
    for act in 0_i64.. {
        if *stopped.borrow() {
            return;
        }
        let seed = act * CLIENTS + client;
        session.client.execute("SELECT activity.act($1)", &[&seed]).await.unwrap();
        acts.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kills_lose_and_double_nothing() {
    let mut dice = Dice::new();
    let kills = kills();
    let portal = sample("kills").await;
    let settings = SettingsFile::new(&portal);
    let mut program = Program::run(&settings.path);
    portal.streaming().await;

    let workload = Workload::start(&portal).await;
    let watch = Watch::all(&portal);
    let streams = "SELECT active FROM pg_replication_slots WHERE slot_name = 'portal_audit_kills'";
    for kill in 0..kills {
        // Every other one is killed in the midst of its stream, the others wherever they are.
        if kill % 2 == 0 {
            wait_for("the stream", async || value::<bool>(&portal.source, streams).await).await;
        }
        workload.wait(dice.below(120)).await;
        program.kill();
        workload.wait(dice.below(30)).await;
        program = Program::run(&settings.path);
    }
    workload.wait(50).await;
    workload.stop().await;
    portal.catch_up().await;
    assert!(program.terminate().success());
    let looks = watch.stop().await;

    let proof = portal.proof().await;
    let types = "SELECT count(DISTINCT event_type) FROM public.events";
    let types: i64 = value(&portal.audit, types).await;
    println!(
        "{kills} kills, {looks} looks at what must hold, {} changes, {} events of {types} types",
        proof.changes, proof.events
    );
    assert!(types > 50, "all of the portal must live: {types} event types");
    assert!(proof.events > 500, "the workload must do something: {proof:?}");
    assert_eq!((proof.lost, proof.doubled), (0, 0), "{:#?}", proof.differences);
    let counted: i64 = value(&portal.audit, "SELECT events FROM portal_audit.progress").await;
    assert_eq!(counted, portal.count().await, "progress must count each event once");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_while_the_source_is_being_created() {
    let mut dice = Dice::new();
    let portal = sample("kills_at_creation").await;
    run(&portal.source, "INSERT INTO portal.users (username, uid, gid) SELECT 'user' || n, n, n FROM generate_series(1, 3000) n").await;
    let settings = SettingsFile::new(&portal);
    let made = "SELECT count(*) > 0 FROM portal_audit.progress";
    for _ in 0..6 {
        let program = Program::run(&settings.path);
        wait_for("a progress row", async || value::<bool>(&portal.audit, made).await).await;
        // A random little while, measured in round trips.
        for _ in 0..dice.below(30) {
            value::<bool>(&portal.audit, made).await;
        }
        program.kill();
    }
    run(&portal.source, "TRUNCATE journal.change").await;
    let program = Program::run(&settings.path);
    portal.streaming().await;
    run(&portal.source, "TRUNCATE journal.change").await;
    portal.act("INSERT INTO portal.users (username, uid, gid) VALUES ('wrenn', 1, 1)").await;
    assert!(program.terminate().success());
    assert_eq!(portal.events().await.matches("subject=user/wrenn").count(), 1);
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = 'kills_at_creation'";
    assert_eq!(value::<i64>(&portal.source, slots).await, 1, "no slot may be left over");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_and_started_goes_on_where_it_was() {
    let portal = sample("stop_start").await;
    let user = |name: &str| {
        format!("INSERT INTO portal.users (username, uid, gid) VALUES ('{name}', 1, 1)")
    };
    for name in ["first", "second", "third"] {
        let sidecar = portal.start().await;
        portal.act(&user(name)).await;
        sidecar.stop().await;
        // Confirmed before it ended: a source that shuts down need not wait for us.
        let end: String =
            value(&portal.audit, "SELECT end_lsn::text FROM portal_audit.progress").await;
        let confirmed = format!(
            "SELECT confirmed_flush_lsn = '{end}' FROM pg_replication_slots WHERE database = 'stop_start'"
        );
        // The walsender has read our last word before we go, unless the machine is too busy.
        wait_for("the confirmation", async || value::<bool>(&portal.source, &confirmed).await)
            .await;
        run(&portal.source, &user(&format!("{name}_while_away"))).await;
    }
    let sidecar = portal.start().await;
    portal.catch_up().await;
    sidecar.stop().await;
    let proof = portal.proof().await;
    assert_eq!((proof.events, proof.lost, proof.doubled), (6, 0, 0), "{:#?}", proof.differences);
}
