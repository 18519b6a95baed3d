//! What must hold at every instant, looked at all the time while a sidecar runs.
//!
//! The slot is never ahead of progress, and what a reader of the audit database sees is whole: progress counts exactly the events that are there, and each has its leaf.

use super::Portal;
use portal_audit::{
    config::Settings,
    connect::{self, Session},
    lsn::Lsn,
};
use std::time::Duration;
use tokio::{sync::watch, task::JoinSet, time::sleep};
use tokio_postgres::types::PgLsn;

/// How long between two looks.
const INTERVAL: Duration = Duration::from_millis(10);

/// A look at the databases, over and over. It counts the looks.
pub struct Watch {
    stop: watch::Sender<bool>,
    looks: JoinSet<Result<u64, String>>,
}

impl Watch {
    /// Looks at the slot and at progress.
    pub fn confirm_rule(settings: &Settings) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut looks = JoinSet::new();
        looks.spawn(confirm_rule(settings.clone(), stopped));
        Self { stop, looks }
    }

    /// Looks also at progress and at the events. They must all be of the source: nobody else may write them.
    pub fn all(portal: &Portal) -> Self {
        let mut watch = Self::confirm_rule(&portal.settings);
        watch.looks.spawn(whole(portal.settings.clone(), watch.stop.subscribe()));
        watch
    }

    /// Ends it; nothing that was seen may break a rule. Gives the number of looks.
    pub async fn stop(mut self) -> u64 {
        self.stop.send_replace(true);
        let mut looks = 0;
        while let Some(ended) = self.looks.join_next().await {
            looks += ended.unwrap().unwrap_or_else(|broken| panic!("{broken}"));
        }
        looks
    }
}

async fn session(settings: &Settings, is_audit: bool) -> Option<Session> {
    let conninfo = if is_audit { &settings.audit } else { &settings.sources[0].conninfo };
    let session = connect::connect(conninfo, "watch").await.ok()?;
    // Tests count the sessions that bear our name.
    session.client.batch_execute("SET application_name = 'watch'").await.ok()?;
    Some(session)
}

/// The slot is read first: progress may only have grown since.
async fn confirm_rule(settings: Settings, stopped: watch::Receiver<bool>) -> Result<u64, String> {
    const SLOT: &str = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1";
    const PROGRESS: &str =
        "SELECT end_lsn FROM portal_audit.progress WHERE source = $1 AND state = 'streaming'";
    let source = &settings.sources[0];
    let mut looks = 0;
    let look = async |from: &Session, to: &Session| -> Option<(Lsn, Lsn)> {
        let slot = from.client.query_opt(SLOT, &[&source.slot]).await.ok()??;
        let progress = to.client.query_opt(PROGRESS, &[&source.name]).await.ok()??;
        let confirmed = slot.get::<_, Option<PgLsn>>(0)?;
        Some((Lsn(confirmed.into()), Lsn(progress.get::<_, PgLsn>(0).into())))
    };
    while !*stopped.borrow() {
        // Servers come and go in some tests.
        let sessions = (session(&settings, false).await, session(&settings, true).await);
        let (Some(from), Some(to)) = sessions else {
            sleep(INTERVAL).await;
            continue;
        };
        while !*stopped.borrow() && !from.client.is_closed() && !to.client.is_closed() {
            if let Some((confirmed, end_lsn)) = look(&from, &to).await {
                if confirmed > end_lsn {
                    return Err(format!("the slot is ahead of progress: {confirmed} > {end_lsn}"));
                }
                looks += 1;
            }
            sleep(INTERVAL).await;
        }
    }
    Ok(looks)
}

/// A reader's snapshot never holds a part of a transaction.
async fn whole(settings: Settings, stopped: watch::Receiver<bool>) -> Result<u64, String> {
    const WHOLE: &str = "SELECT (SELECT count(*) FROM public.events), (SELECT sum(events)::bigint FROM portal_audit.progress), (SELECT sum(size)::bigint FROM portal_audit.trees)";
    let mut looks = 0;
    while !*stopped.borrow() {
        let Some(audit) = session(&settings, true).await else {
            sleep(INTERVAL).await;
            continue;
        };
        while let Ok(row) = audit.client.query_one(WHOLE, &[]).await {
            let (events, counted) = (row.get::<_, i64>(0), row.get::<_, Option<i64>>(1));
            if counted.is_some_and(|counted| counted != events) {
                return Err(format!(
                    "a reader saw {events} events where progress counts {counted:?}"
                ));
            }
            let sealed: i64 = row.get(2);
            if sealed != events {
                return Err(format!("a reader saw {events} events and {sealed} leaves"));
            }
            looks += 1;
            if *stopped.borrow() {
                break;
            }
            sleep(INTERVAL).await;
        }
    }
    Ok(looks)
}
