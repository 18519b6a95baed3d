//! Life goes on and everything fails, again and again: two servers, a sidecar in a process of its own, and faults at random moments.
//!
//! `./x soak --minutes N` runs it for longer; a seed is printed, and `PORTAL_AUDIT_SEED` repeats its faults.

use crate::support::{
    Portal, Wishes, installation,
    invariants::Watch,
    life::{DEADLOCK, Dice, Life},
    linked, open,
    program::{Program, SettingsFile},
    proxy::{Ending, Proxy},
    run,
};
use portal_audit::{
    config::Settings,
    connect::{self, Session},
    demo::cluster::{Cluster, Options, Shutdown},
};
use std::{os::unix::process::ExitStatusExt as _, path::Path, time::Duration};
use tokio::time::Instant;

/// How long a plain run soaks; `PORTAL_AUDIT_SOAK_SECONDS` is another time.
const SECONDS: u64 = 10;
const CLIENTS: i64 = 2;
/// Bytes of memory that the sidecar may ever have held.
const MEMORY_MAX: u64 = 64 << 20;
/// Short waits, so that a run meets many faults.
const LIMITS: &str = "audit_timeout_seconds = 2\nsource_timeout_seconds = 5\nretry_max_seconds = 1";

/// What fails.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Killed,
    Terminated,
    SourceCrashes,
    AuditCrashes,
    AuditStops,
    WalsendersCut,
    WritersCut,
    AuditReadOnly,
    EventsLocked,
    LargeTransaction,
    LinksCut,
    SourceSilent,
    AuditSilent,
}

const FAULTS: [Fault; 13] = [
    Fault::Killed,
    Fault::Terminated,
    Fault::SourceCrashes,
    Fault::AuditCrashes,
    Fault::AuditStops,
    Fault::WalsendersCut,
    Fault::WritersCut,
    Fault::AuditReadOnly,
    Fault::EventsLocked,
    Fault::LargeTransaction,
    Fault::LinksCut,
    Fault::SourceSilent,
    Fault::AuditSilent,
];

/// Two servers, the sidecar, and what is known of it.
struct Place {
    source: Cluster,
    audit: Cluster,
    /// Between the sidecar and the two.
    links: [Proxy; 2],
    portal: Portal,
    settings: SettingsFile,
    log: tempfile::NamedTempFile,
    program: Option<Program>,
    memory: u64,
}

impl Place {
    async fn make() -> Self {
        let options = Options {
            tcp: true,
            settings: vec![("logical_decoding_work_mem".to_owned(), "64kB".to_owned())],
            ..Options::default()
        };
        let start = || Cluster::start_with(&installation(), &options).unwrap();
        let (source, audit) = (start(), start());
        let links = [Proxy::start(source.port()).await, Proxy::start(audit.port()).await];
        let wishes = Wishes { name: "soak", limits: LIMITS, ..Wishes::default() };
        let portal = apart(crate::support::portal(&source, wishes).await, &source, &audit).await;
        // The test itself looks past them.
        let text = portal.settings_text.clone();
        let text = text.replace(
            &audit.dsn("soak_audit", "postgres"),
            &linked::dsn(links[1].port, "soak_audit"),
        );
        let text =
            text.replace(&source.dsn("soak", "postgres"), &linked::dsn(links[0].port, "soak"));
        assert_eq!(text.matches("host=127.0.0.1").count(), 2, "{text}");
        let portal = Portal { settings_text: text, ..portal };
        let settings = SettingsFile::new(&portal);
        let log = tempfile::NamedTempFile::new().unwrap();
        let program = Program::run_logging(&settings.path, "info", log.path());
        let program = Some(program);
        portal.streaming().await;
        Self { source, audit, links, portal, settings, log, program, memory: 0 }
    }

    fn restart_program(&mut self) {
        let program = Program::run_logging(&self.settings.path, "info", self.log.path());
        self.program = Some(program);
    }

    fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.log.path()).unwrap();
        log.lines().rev().take(12).collect::<Vec<_>>().join("\n")
    }

    async fn audit_session(&self) -> Session {
        let audit = open(&self.audit, "soak_audit").await;
        run(&audit, "SET default_transaction_read_only = off").await;
        audit
    }

    /// Lets one thing fail; `life` goes on meanwhile.
    async fn fail(&mut self, fault: Fault, life: &Life, dice: &mut Dice) {
        const CUT_SLOTS: &str =
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active";
        const CUT_OTHERS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
        let program = self.program.as_mut().unwrap();
        self.memory = self.memory.max(program.memory_peak());
        assert!(program.is_running(), "it ended by itself:\n{}", self.log_end());
        let while_away = dice.below(60);
        match fault {
            Fault::Killed => {
                self.program.take().unwrap().kill();
                life.wait(while_away).await;
                self.restart_program();
            }
            Fault::Terminated => {
                let status = self.program.take().unwrap().terminate();
                // A program that was started a moment ago does not listen yet, and may be ended by the signal itself.
                assert!(status.success() || status.signal() == Some(15), "{}", self.log_end());
                life.wait(while_away).await;
                self.restart_program();
            }
            Fault::SourceCrashes => {
                self.source.stop_server(Shutdown::Immediate).unwrap();
                self.source.start_server().unwrap();
            }
            Fault::AuditCrashes | Fault::AuditStops => {
                let is_crash = matches!(fault, Fault::AuditCrashes);
                let mode = if is_crash { Shutdown::Immediate } else { Shutdown::Fast };
                self.audit.stop_server(mode).unwrap();
                life.wait(while_away).await;
                self.audit.start_server().unwrap();
            }
            Fault::WalsendersCut => run(&open(&self.source, "soak").await, CUT_SLOTS).await,
            Fault::WritersCut => run(&self.audit_session().await, CUT_OTHERS).await,
            Fault::AuditReadOnly => {
                let audit = self.audit_session().await;
                let only = "ALTER DATABASE soak_audit SET default_transaction_read_only = on";
                run(&audit, only).await;
                run(&audit, CUT_OTHERS).await;
                life.wait(while_away).await;
                run(&audit, "ALTER DATABASE soak_audit RESET default_transaction_read_only").await;
            }
            Fault::EventsLocked => {
                let audit = self.audit_session().await;
                run(&audit, "BEGIN; LOCK TABLE public.events").await;
                life.wait(while_away * 4).await;
                run(&audit, "COMMIT").await;
            }
            Fault::LinksCut => {
                for link in &self.links {
                    link.cut_all(Ending::Reset);
                }
            }
            Fault::SourceSilent => self.links[0].stall_all(),
            Fault::AuditSilent => self.links[1].stall_all(),
            Fault::LargeTransaction => {
                let first = 1_000_000_000 + dice.below(1 << 30);
                let acts = format!(
                    "DO $$ BEGIN FOR n IN {first}..{first} + 200 LOOP BEGIN PERFORM activity.act(n);
                       IF n % 3 = 0 THEN RAISE 'taken back'; END IF; EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$"
                );
                let source = open(&self.source, "soak").await;
                let done = source.client.batch_execute(&acts).await;
                let code = done.as_ref().err().map(|error| connect::sqlstate_of(error).unwrap());
                assert!(code.is_none_or(|code| code == DEADLOCK), "{done:?}");
            }
        }
    }
}

/// The same portal with its audit database on another server.
async fn apart(portal: Portal, source: &Cluster, audit: &Cluster) -> Portal {
    run(&open(audit, "postgres").await, "CREATE DATABASE soak_audit").await;
    let there = open(audit, "soak_audit").await;
    run(&there, portal_audit::sql::audit()).await;
    let dsn = |cluster: &Cluster| format!("{:?}", cluster.dsn("soak_audit", "postgres"));
    let settings_text = portal.settings_text.replace(&dsn(source), &dsn(audit));
    let settings = Settings::parse(Path::new("test.toml"), &settings_text).unwrap();
    Portal { settings, settings_text, audit: there, ..portal }
}

fn seconds() -> u64 {
    let given = std::env::var_os("PORTAL_AUDIT_SOAK_SECONDS");
    given.map_or(SECONDS, |text| text.into_string().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn everything_fails_and_nothing_is_lost() {
    let mut dice = Dice::new();
    let mut place = Place::make().await;
    let watch = Watch::all(&place.portal);
    let life = Life::start(&place.source.dsn("soak", "postgres"), CLIENTS);
    let (started, end) = (Instant::now(), Duration::from_secs(seconds()));
    let mut faults = 0_u64;
    // Each of them at least once, in a short run too.
    while started.elapsed() < end || faults < FAULTS.len() as u64 {
        let number =
            if faults < FAULTS.len() as u64 { faults } else { dice.below(FAULTS.len() as u64) };
        let fault = FAULTS[usize::try_from(number).unwrap()];
        place.fail(fault, &life, &mut dice).await;
        faults += 1;
        life.wait(dice.below(120)).await;
        println!(
            "{:>6.1} s  {faults:>4} {fault:?}, {} KiB held",
            started.elapsed().as_secs_f64(),
            place.program.as_ref().unwrap().memory_now() / 1024
        );
    }
    let acts = life.stop().await;
    place.portal.source = open(&place.source, "soak").await;
    place.portal.audit = open(&place.audit, "soak_audit").await;
    // So many faults leave a backlog: each session had only moments.
    place.portal.catch_up_within(Duration::from_secs(600)).await;
    let program = place.program.take().unwrap();
    let memory = place.memory.max(program.memory_peak());
    assert!(program.terminate().success());
    let looks = watch.stop().await;
    let proof = place.portal.proof().await;
    println!(
        "{faults} faults, {acts} acts, {} changes, {} events, {looks} looks, at most {} KiB held",
        proof.changes,
        proof.events,
        memory / 1024
    );
    assert!(proof.events > 500, "{proof:?}");
    assert_eq!((proof.lost, proof.doubled), (0, 0), "{:#?}", proof.differences);
    assert!(memory < MEMORY_MAX, "{memory} bytes were held");
}
