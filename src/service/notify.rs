//! What the service manager is told: sd_notify(3). Without `NOTIFY_SOCKET` nobody is.

use crate::metrics::{Metrics, State};
use sd_notify::NotifyState;
use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

/// A first snapshot may take long, and a source may be away: the service runs all the same.
const READY_MAX: Duration = Duration::from_secs(30);
/// How often the line of `systemctl status` is made anew.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Nobody can be told that nobody listens.
fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot tell the service manager");
    }
}

/// The service does what it is there for.
pub(super) fn ready() {
    say(&[NotifyState::Ready]);
}

/// It is being stopped.
pub(super) fn stopping() {
    say(&[NotifyState::Stopping]);
}

/// Its settings are read again; [`ready`] says when that is over.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(_) => say(&[NotifyState::Reloading]),
    }
}

/// Tells that the service is ready, what its sources do, and that it is alive: twice in the watchdog's time.
pub(super) async fn tell(metrics: Arc<Metrics>) -> Infallible {
    let mut states = metrics.states();
    let begun = states.wait_for(|states| {
        !states.is_empty() && states.values().all(|state| *state != State::Starting)
    });
    drop(timeout(READY_MAX, begun).await);
    ready();
    let watchdog = sd_notify::watchdog_enabled();
    let pause = watchdog.map_or(STATUS_INTERVAL, |within| (within / 2).min(STATUS_INTERVAL));
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        say(&[NotifyState::Status(&status(&metrics, &mut states))]);
        tokio::select! {
            _ = ticks.tick() => if watchdog.is_some() { say(&[NotifyState::Watchdog]) },
            changed = states.changed() => if changed.is_err() { ticks.tick().await; },
        }
    }
}

fn status(metrics: &Metrics, states: &mut watch::Receiver<BTreeMap<String, State>>) -> String {
    let states = states.borrow_and_update();
    let told = states.iter().map(|(source, state)| match metrics.complete_to(source) {
        Some(time) => format!("{source} {state}, complete to {}", time.format("%F %T UTC")),
        None => format!("{source} {state}"),
    });
    told.collect::<Vec<_>>().join("; ")
}
