//! `portal-audit demo`: a real PostgreSQL in a temporary folder, the sample portal in it, the sidecar beside it.
//!
//! Nothing of it is a special case of the sidecar: the same SQL, the same settings, the same pipeline as in production. Cluster, portal and proof serve the tests too.

pub mod cluster;
mod folder;
mod identity;
mod installation;
mod live;
mod once;
pub mod portal;
pub mod proof;

use crate::{chain::chain, metrics::Metrics, show::OutputFormat};
use cluster::{Cluster, ClusterError, Installation};
use portal::SampleError;
use std::{path::PathBuf, process::ExitCode, sync::Arc};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Duration, Instant, sleep},
};

/// How often the demo looks for what has arrived.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long the sidecar may take to reach a point of the log.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);

/// What the demo does.
#[derive(Debug, clap::Args)]
pub struct DemoArguments {
    /// Play a fixed story, compare the events with the portal's journal, and end
    #[arg(long)]
    once: bool,
    /// With --once: how the result is printed
    #[arg(long, value_enum, default_value_t = OutputFormat::Text, requires = "once")]
    format: OutputFormat,
    /// The folder with PostgreSQL's programs; found by itself if not given
    #[arg(long, value_name = "DIR", env = "PORTAL_AUDIT_PG_BINDIR")]
    pg_bindir: Option<PathBuf>,
}

/// Why a demo ended early.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("cannot start a throwaway PostgreSQL")]
    Cluster(#[source] ClusterError),
    #[error("cannot set up the sample portal")]
    Sample(#[source] SampleError),
    #[error("cannot serve the pages")]
    Listen(#[source] std::io::Error),
    #[error("the sidecar ended: {0}")]
    Sidecar(String),
    #[error("the sidecar did not catch up within {} s", CATCH_UP_MAX.as_secs())]
    Behind,
}

/// Runs the demo to its exit code.
pub async fn run(arguments: DemoArguments) -> ExitCode {
    let started = Instant::now();
    let result = match start_cluster(&arguments) {
        Err(error) => Err(DemoError::Cluster(error)),
        Ok(cluster) => {
            let result = if arguments.once {
                once::run(&cluster, arguments.format, started).await
            } else {
                Box::pin(live::run(&cluster)).await
            };
            result.and_then(|code| cluster.stop().map(|()| code).map_err(DemoError::Cluster))
        }
    };
    result.unwrap_or_else(|error| {
        tell(&format!("portal-audit: {}", chain(&error)));
        ExitCode::FAILURE
    })
}

fn start_cluster(arguments: &DemoArguments) -> Result<Cluster, ClusterError> {
    let installation = Installation::find(arguments.pg_bindir.as_deref())?;
    Cluster::start(&installation, &[])
}

#[expect(clippy::print_stderr, reason = "what the demo says beside its result")]
fn tell(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stdout, reason = "the demo's result")]
fn print(text: &str) {
    println!("{text}");
}

/// The sidecar's own pipeline, in this process.
struct Sidecar {
    stop: watch::Sender<bool>,
    tasks: JoinSet<Vec<crate::pipeline::Ended>>,
    metrics: Arc<Metrics>,
}

impl Sidecar {
    fn start(settings: crate::config::Settings) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let metrics = Arc::new(Metrics::default());
        let told = Arc::clone(&metrics);
        tasks.spawn(async move {
            tokio::select! {
                ended = crate::pipeline::run_accepting(settings.clone(), &[], &told, stopped) => ended,
                never = crate::keep::keep(&settings) => match never {},
                never = crate::facility::keep(&settings) => match never {},
            }
        });
        Self { stop, tasks, metrics }
    }

    /// Fails if the sidecar has ended by itself.
    fn is_running(&mut self) -> Result<(), DemoError> {
        match self.tasks.try_join_next() {
            None => Ok(()),
            Some(Ok(ended)) => Err(DemoError::Sidecar(faults(&ended))),
            Some(Err(error)) => Err(DemoError::Sidecar(error.to_string())),
        }
    }

    /// Asks it to stop and waits until what it read is written and confirmed.
    async fn stop(mut self) -> Result<(), DemoError> {
        self.stop.send_replace(true);
        match self.tasks.join_next().await {
            None => Ok(()),
            Some(Ok(ended)) if ended.is_empty() => Ok(()),
            Some(Ok(ended)) => Err(DemoError::Sidecar(faults(&ended))),
            Some(Err(error)) => Err(DemoError::Sidecar(error.to_string())),
        }
    }

    /// Waits until a query of one boolean says so.
    async fn wait_for(
        &mut self,
        session: &crate::connect::Session,
        query: &str,
    ) -> Result<(), DemoError> {
        let deadline = Instant::now() + CATCH_UP_MAX;
        loop {
            let row = session.client.query_one(query, &[]).await;
            let action = "ask how far the sidecar is";
            let row =
                row.map_err(|report| DemoError::Sample(SampleError::Sql { action, report }))?;
            if row.get::<_, Option<bool>>(0) == Some(true) {
                return Ok(());
            }
            self.is_running()?;
            if Instant::now() >= deadline {
                return Err(DemoError::Behind);
            }
            sleep(POLL_INTERVAL).await;
        }
    }
}

fn faults(ended: &[crate::pipeline::Ended]) -> String {
    let faults = ended.iter().map(|ended| chain(&ended.fault));
    faults.collect::<Vec<_>>().join("; ")
}

/// Whether the source streams.
const IS_STREAMING: &str = "SELECT bool_and(state = 'streaming') FROM portal_audit.progress";
