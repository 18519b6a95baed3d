//! Whether addresses of facilities answer: a TCP connection now and then, if the settings ask for it, and nothing sent over it.
//!
//! Addresses come from settings alone. One failure may be a lost packet: two in a row are needed before a facility is said not to answer.

use super::{FacilityError, failed};
use crate::{
    chain::chain,
    config::{Facility, Settings},
    connect::{self, Session},
};
use futures_util::{StreamExt as _, stream};
use std::{collections::HashMap, convert::Infallible, future::pending, io, time::Duration};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

/// Failures in a row that are taken for one.
const FAILURES_MIN: u32 = 2;
/// Addresses that are tried at a time.
const PROBES_AT_ONCE: usize = 16;
/// Longest wait between two rounds, so that places are kept soon after the audit database is up.
const INTERVAL_MAX: Duration = Duration::from_secs(5);

/// What one try found.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Found {
    Reachable { rtt_ms: f64 },
    Unreachable(&'static str),
}

/// What tries found so far, of one facility.
#[derive(Debug, Clone, Copy, Default)]
struct Judge {
    failures: u32,
}

impl Judge {
    /// What is to be kept after one more try, if anything.
    fn judge(&mut self, found: Found) -> Option<Found> {
        match found {
            Found::Reachable { .. } => self.failures = 0,
            Found::Unreachable(_) => self.failures = self.failures.saturating_add(1),
        }
        (self.failures == 0 || self.failures >= FAILURES_MIN).then_some(found)
    }
}

/// The class of a failed connection, in the words of `portal_audit.facility_probes`.
fn class(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::TimedOut => "timeout",
        // What the resolver reports has no kind of its own, and no number of the system's.
        _ if error.raw_os_error().is_none() => "name",
        _ => "network",
    }
}

async fn probe(address: &str, wait: Duration) -> Found {
    let started = Instant::now();
    match timeout(wait, TcpStream::connect(address)).await {
        Err(_elapsed) => Found::Unreachable("timeout"),
        Ok(Err(error)) => Found::Unreachable(class(&error)),
        Ok(Ok(_stream)) => Found::Reachable { rtt_ms: started.elapsed().as_secs_f64() * 1_000.0 },
    }
}

async fn probe_named(name: String, address: String, wait: Duration) -> (String, Found) {
    (name, probe(&address, wait).await)
}

/// Keeps the places of the settings and what probes find, for as long as it is polled. Nothing waits for it: where the audit database is down it tries again. Where nothing is probed, it is done with the places and holds no session.
pub async fn keep(settings: &Settings) -> Infallible {
    if settings.facilities.facilities.is_empty() {
        return pending().await;
    }
    let mut judges: HashMap<String, Judge> = HashMap::new();
    let mut session = None;
    let mut was_well = true;
    let mut probed: Option<Instant> = None;
    loop {
        let is_due = settings.facilities.probe_interval.is_some_and(|interval| {
            probed.is_none_or(|probed| probed.elapsed() + INTERVAL_MAX / 2 >= interval)
        });
        if is_due {
            probed = Some(Instant::now());
        }
        let done = round(settings, &mut session, &mut judges, is_due).await;
        if let Err(error) = &done {
            session = None;
            if was_well {
                let error = chain(error);
                tracing::warn!(error, "states of facilities are not kept; trying again");
            }
        }
        was_well = done.is_ok();
        if was_well && settings.facilities.probe_interval.is_none() {
            drop(session.take());
            return pending().await;
        }
        let interval = settings.facilities.probe_interval.unwrap_or(INTERVAL_MAX);
        sleep(interval.min(INTERVAL_MAX)).await;
    }
}

async fn round(
    settings: &Settings,
    kept: &mut Option<Session>,
    judges: &mut HashMap<String, Judge>,
    is_probing: bool,
) -> Result<(), FacilityError> {
    let facilities = &settings.facilities;
    let session = match kept {
        Some(session) => session,
        None => {
            let session = connect::connect(&settings.audit, "facilities").await;
            let session = kept.insert(session.map_err(FacilityError::Connect)?);
            for facility in &facilities.facilities {
                place(session, facility).await?;
            }
            session
        }
    };
    if is_probing {
        let tries: Vec<_> = facilities
            .facilities
            .iter()
            .filter_map(|own| {
                let address = own.probe.clone()?;
                Some(probe_named(own.name.clone(), address, facilities.probe_timeout))
            })
            .collect();
        let mut tries = stream::iter(tries).buffer_unordered(PROBES_AT_ONCE);
        while let Some((name, found)) = tries.next().await {
            let judge = judges.entry(name.clone()).or_default();
            if let Some(found) = judge.judge(found) {
                store(session, &name, found).await?;
            }
        }
    }
    Ok(())
}

async fn place(session: &Session, own: &Facility) -> Result<(), FacilityError> {
    let Facility { name, latitude, longitude, label_dx, label_dy, organization, url, probe: _ } =
        own;
    let query = "SELECT portal_audit.facility_placed($1, $2, $3, $4, $5, $6, $7)";
    let parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)] =
        &[name, latitude, longitude, label_dx, label_dy, organization, url];
    let placed = session.client.query_one(query, parameters).await;
    placed.map(|_row| ()).map_err(failed("keep the place of a facility"))
}

async fn store(session: &Session, name: &str, found: Found) -> Result<(), FacilityError> {
    let (is_reachable, error, rtt_ms) = match found {
        Found::Reachable { rtt_ms } => (true, None, Some(rtt_ms)),
        Found::Unreachable(class) => (false, Some(class), None),
    };
    let query = "SELECT portal_audit.facility_probed($1, $2, $3, $4)";
    let stored = session.client.query_one(query, &[&name, &is_reachable, &error, &rtt_ms]).await;
    stored.map(|_row| ()).map_err(failed("keep what a probe found"))
}

#[cfg(test)]
mod tests {
    use super::{Found, Judge, probe};
    use std::time::Duration;

    #[test]
    fn one_failure_is_not_told_and_two_are() {
        let (well, lost) = (Found::Reachable { rtt_ms: 1.0 }, Found::Unreachable("timeout"));
        let mut judge = Judge::default();
        let tries = [well, lost, well, lost, lost, lost, well];
        let told: Vec<bool> = tries.into_iter().map(|found| judge.judge(found).is_some()).collect();
        assert_eq!(told, [true, false, true, false, true, true, true]);
    }

    #[tokio::test]
    async fn a_port_is_open_or_says_why_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let wait = Duration::from_secs(30);
        assert!(matches!(probe(&address, wait).await, Found::Reachable { .. }));
        drop(listener);
        assert_eq!(probe(&address, wait).await, Found::Unreachable("refused"));
        assert_eq!(probe("no-such-host.invalid:22", wait).await, Found::Unreachable("name"));
    }
}
