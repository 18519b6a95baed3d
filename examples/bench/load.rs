//! The portal's clients: small transactions, at a rate or as fast as they go, and probes that tell how soon an event is visible. A program of its own, so that nothing of it counts as ours.

use crate::{
    Result,
    report::{Latency, median},
    stage::open,
};
use portal_audit::connect::Session;
use serde::{Deserialize, Serialize};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::sleep_until};

/// Between two probes; no multiple of anything else.
const PROBE_INTERVAL: Duration = Duration::from_millis(47);
/// An event that is not there by then never comes.
const PROBE_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Load {
    /// The portal's database.
    #[arg(long)]
    portal: String,
    /// The database where probes are looked for; none without.
    #[arg(long)]
    events: Option<String>,
    #[arg(long)]
    sessions: u32,
    /// Transactions a second; as many as there can be, if 0.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    #[arg(long)]
    seconds: u64,
    /// Number of the first transaction.
    #[arg(long)]
    from: i64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) transactions: u64,
    pub(crate) seconds: f64,
    pub(crate) commit: Latency,
    pub(crate) visible: Option<Latency>,
    /// Number of the transaction that comes next.
    pub(crate) next: i64,
}

impl Load {
    pub(crate) async fn run(self) -> Result<Done> {
        let counter = Arc::new(AtomicI64::new(self.from));
        let began = Instant::now();
        let end = began + Duration::from_secs(self.seconds);
        let mut clients = JoinSet::new();
        for number in 0..self.sessions {
            let (session, load, counter) =
                (open(&self.portal).await?, self.clone(), Arc::clone(&counter));
            clients.spawn(async move {
                load.client(&session, number, &counter, (began, end))
                    .await
                    .map_err(|error| error.to_string())
            });
        }
        let visible = match &self.events {
            Some(events) => {
                Some(probe(&open(&self.portal).await?, &open(events).await?, self.from, end).await?)
            }
            None => None,
        };
        let mut commits = Vec::new();
        while let Some(client) = clients.join_next().await {
            commits.extend(client??);
        }
        let seconds = began.elapsed().as_secs_f64();
        Ok(Done {
            transactions: commits.len() as u64,
            seconds,
            commit: latency(commits),
            visible: visible.map(latency),
            next: counter.load(Ordering::Relaxed),
        })
    }

    /// One client; gives the milliseconds of each of its commits.
    async fn client(
        &self,
        session: &Session,
        number: u32,
        counter: &AtomicI64,
        (began, end): (Instant, Instant),
    ) -> Result<Vec<f64>> {
        let statement = session.client.prepare("SELECT bench.small($1)").await?;
        let mut taken = Vec::new();
        for turn in 0_u32.. {
            if self.rate > 0 {
                let due = f64::from(turn * self.sessions + number) / f64::from(self.rate);
                sleep_until((began + Duration::from_secs_f64(due)).into()).await;
            }
            let before = Instant::now();
            if before >= end {
                break;
            }
            let n = counter.fetch_add(1, Ordering::Relaxed);
            session.client.execute(&statement, &[&n]).await?;
            taken.push(before.elapsed().as_secs_f64() * 1e3);
        }
        Ok(taken)
    }
}

/// Marked rows, one after the other: milliseconds from the portal's commit until another session sees the event.
async fn probe(portal: &Session, events: &Session, from: i64, end: Instant) -> Result<Vec<f64>> {
    let mark = portal
        .client
        .prepare("INSERT INTO portal.organizations (name, oid) VALUES ($1, 1)")
        .await?;
    let look = "SELECT FROM public.events WHERE subject_type = 'organization' AND subject = $1";
    let look = events.client.prepare(look).await?;
    let mut taken = Vec::new();
    for number in 0.. {
        let due = Instant::now() + PROBE_INTERVAL;
        if due >= end {
            break;
        }
        sleep_until(due.into()).await;
        let name = format!("probe-{from}-{number}");
        portal.client.execute(&mark, &[&name]).await?;
        let committed = Instant::now();
        while events.client.query_opt(&look, &[&name]).await?.is_none() {
            if committed.elapsed() > PROBE_MAX {
                return Err("an event did not come".into());
            }
        }
        taken.push(committed.elapsed().as_secs_f64() * 1e3);
    }
    Ok(taken)
}

fn latency(mut millis: Vec<f64>) -> Latency {
    millis.sort_by(f64::total_cmp);
    let p99 = millis.get(millis.len() * 99 / 100).copied().unwrap_or_default();
    Latency { p50: median(millis).unwrap_or_default(), p99 }
}
