//! The verb `run` as a service: signals, settings read again, what the service manager is told, and the HTTP listener beside the sources.
//!
//! # Reload
//! SIGHUP reads the settings and the mappings anew. What works with the old ones must work with the new: the files are read whole, and each source that is being streamed is asked whether its mapping fits. Otherwise the old settings stay. New ones take over between two sessions: what was read is written and confirmed, and the stream goes on behind it.

mod notify;

use crate::{
    chain::chain,
    config::{ConfigError, Pages, Settings},
    facility, keep,
    metrics::Metrics,
    pipeline::{self, Ended},
    proof, retain, serve, web,
};
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

/// Why the service does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("cannot listen on {address} ([serve] listen)")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("cannot wait for signals")]
    Signals(#[source] io::Error),
    #[error(
        "a key that the settings name ([proof] key_file, [pages.jwt] jwks_file) cannot be used"
    )]
    Key(#[source] ConfigError),
    #[error("asked to stop a second time: not waiting")]
    Impatient,
}

/// Why settings that were read again are not taken.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Unfit(String),
}

struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    ToStop,
    ToReload,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.term.recv() => Asked::ToStop,
            _ = self.int.recv() => Asked::ToStop,
            _ = self.hup.recv() => Asked::ToReload,
        }
    }
}

/// Follows the sources of `settings`, which were read from `path`, until asked to stop. Gives the sources that ended with a definite fault.
///
/// # Errors
/// [`ServiceError`]: nothing was begun, or nobody waits for the end.
pub async fn run(
    path: &Path,
    settings: Settings,
    accepted: &[String],
) -> Result<Vec<Ended>, ServiceError> {
    let metrics = Arc::new(Metrics::default());
    settings.try_keys().map_err(ServiceError::Key)?;
    let mut signals = Signals::new().map_err(ServiceError::Signals)?;
    let mut beside = JoinSet::new();
    if let Some(address) = settings.listen {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|source| ServiceError::Listen { address, source })?;
        let address = listener.local_addr().unwrap_or(address);
        if settings.pages.is_some() {
            tracing::info!(url = format!("http://{address}/"), "serving the pages");
        }
        tracing::info!(%address, "serving /livez, /readyz and /metrics");
        let pages = settings.pages.as_ref();
        let pages = pages.map(|pages| web::routes(pages, &metrics)).unwrap_or_default();
        beside.spawn(serve::serve(listener, Arc::clone(&metrics), pages));
    }
    beside.spawn(notify::tell(Arc::clone(&metrics)));
    let (mut settings, mut accepted) = (settings, accepted);
    loop {
        match until_next(path, &settings, accepted, &metrics, &mut signals).await? {
            Next::Ended(ended) => return Ok(ended),
            Next::Settings(next) => {
                if next.listen != settings.listen {
                    tracing::warn!("[serve] listen is taken at the next start of the program");
                }
                if !are_same(next.pages.as_ref(), settings.pages.as_ref()) {
                    tracing::warn!("[pages] is taken at the next start of the program");
                }
                (settings, accepted) = (*next, &[]);
                metrics.clear();
                metrics.reloaded(true);
                notify::ready();
                tracing::info!("the settings were read again");
            }
        }
    }
}

/// Whether the pages would know the same people. Their files of tokens and keys are read anew for each request.
fn are_same(one: Option<&Pages>, other: Option<&Pages>) -> bool {
    let known = |pages: &Pages| (pages.access.clone(), pages.admins.clone());
    one.map(known) == other.map(known)
}

enum Next {
    Ended(Vec<Ended>),
    Settings(Box<Settings>),
}

/// What is kept up beside the sources.
fn keepers(settings: &Settings, metrics: &Arc<Metrics>) -> JoinSet<()> {
    let mut kept = JoinSet::new();
    let all = settings.clone();
    kept.spawn(async move { match keep::keep(&all).await {} });
    let all = settings.clone();
    kept.spawn(async move { match retain::keep(all).await {} });
    let all = settings.clone();
    kept.spawn(async move { match facility::keep(&all).await {} });
    let proof = settings.proof.as_ref();
    let interval = proof.map_or(0, |proof| proof.interval_seconds);
    metrics.checkpoints(Duration::from_secs(interval), &proof::keep::places(proof));
    if let Some(proof) = proof {
        kept.spawn(proof::keep::keep(settings.audit.clone(), proof.clone(), Arc::clone(metrics)));
    }
    kept
}

/// They never end by themselves, so one that does has panicked; the sources go on.
fn told(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a task beside the sources has ended: restart the program");
    }
}

/// Follows the sources until they have ended, or other settings take over.
async fn until_next(
    path: &Path,
    settings: &Settings,
    accepted: &[String],
    metrics: &Arc<Metrics>,
    signals: &mut Signals,
) -> Result<Next, ServiceError> {
    let (stop, stopped) = watch::channel(false);
    // Ends with this function: what was not committed was not done.
    let mut kept = keepers(settings, metrics);
    let mut sources = pin!(pipeline::run_accepting(settings.clone(), accepted, metrics, stopped));
    let mut reloads: JoinSet<Result<Settings, ReloadError>> = JoinSet::new();
    let mut next = None;
    let mut is_asked_to_stop = false;
    let ended = loop {
        tokio::select! {
            ended = &mut sources => break ended,
            Some(ended) = kept.join_next() => told(ended),
            Some(read) = reloads.join_next() => match read {
                Ok(Ok(read)) => {
                    next = Some(read);
                    stop.send_replace(true);
                }
                Ok(Err(error)) => refuse(metrics, &chain(&error)),
                Err(error) => refuse(metrics, &error.to_string()),
            },
            asked = signals.next() => match asked {
                Asked::ToStop if is_asked_to_stop => return Err(ServiceError::Impatient),
                Asked::ToStop => {
                    is_asked_to_stop = true;
                    notify::stopping();
                    tracing::info!("asked to stop: writing and confirming what was read");
                    stop.send_replace(true);
                }
                Asked::ToReload if is_asked_to_stop || next.is_some() || !reloads.is_empty() => {}
                Asked::ToReload => {
                    notify::reloading();
                    reloads.spawn(reload(path.to_owned(), Arc::clone(metrics)));
                }
            },
        }
    };
    Ok(match next {
        Some(next) if !is_asked_to_stop => Next::Settings(Box::new(next)),
        _ => Next::Ended(ended),
    })
}

fn refuse(metrics: &Metrics, error: &str) {
    tracing::error!(error, "the settings were not taken, the old ones stay");
    metrics.reloaded(false);
    notify::ready();
}

async fn reload(path: PathBuf, metrics: Arc<Metrics>) -> Result<Settings, ReloadError> {
    let settings = Settings::load(&path)?;
    settings.try_keys()?;
    let states = metrics.states().borrow().clone();
    pipeline::try_settings(&settings, &states).await.map_err(ReloadError::Unfit)?;
    Ok(settings)
}
