//! Life in the sample portal, while something fails.

use super::wait_for;
use portal_audit::{
    config,
    connect::{self, Session},
};
use std::{
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};
use tokio::{sync::watch, task::JoinSet};

/// Random numbers from a seed that is printed, so that a failing run can be told.
pub struct Dice(u64);

impl Dice {
    /// The seed is `PORTAL_AUDIT_SEED`, or a new one.
    pub fn new() -> Self {
        let given = std::env::var_os("PORTAL_AUDIT_SEED");
        let given = given.map(|text| text.into_string().unwrap().parse().unwrap());
        let seed = given.unwrap_or_else(|| std::hash::RandomState::new().hash_one(0) >> 32);
        println!("PORTAL_AUDIT_SEED={seed}");
        Self(seed)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        // Constants of Knuth's MMIX generator; its high bits are the random ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Clients that act in the portal until told to stop.
pub struct Life {
    acts: Arc<AtomicI64>,
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
}

impl Life {
    /// They come back when the server was away; but no statement of theirs may fail for another reason.
    pub fn start(dsn: &str, clients: i64) -> Self {
        let acts = Arc::new(AtomicI64::new(0));
        let (stop, stopped) = watch::channel(false);
        let mut all = JoinSet::new();
        for client in 0..clients {
            let acts = Arc::clone(&acts);
            all.spawn(live(dsn.to_owned(), (client, clients), acts, stopped.clone()));
        }
        Self { acts, stop, clients: all }
    }

    /// Waits until `more` things were done.
    pub async fn wait(&self, more: u64) {
        let target = self.acts.load(Ordering::Relaxed) + i64::try_from(more).unwrap();
        wait_for("life in the portal", async || self.acts.load(Ordering::Relaxed) >= target).await;
    }

    /// Ends it; gives the number of things done.
    pub async fn stop(mut self) -> i64 {
        self.stop.send_replace(true);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        self.acts.load(Ordering::Relaxed)
    }
}

async fn live(
    dsn: String,
    (client, clients): (i64, i64),
    acts: Arc<AtomicI64>,
    stopped: watch::Receiver<bool>,
) {
    let mut session: Option<Session> = None;
    for act in 0_i64.. {
        if *stopped.borrow() {
            return;
        }
        let Some(portal) = &session else {
            session = connect::connect(&config::conninfo(&dsn).unwrap(), "life").await.ok();
            tokio::task::yield_now().await;
            continue;
        };
        let seed = act * clients + client;
        match portal.client.execute("SELECT activity.act($1)", &[&seed]).await {
            Ok(_) => drop(acts.fetch_add(1, Ordering::Relaxed)),
            // The server was shut down: that ends the session, whatever the report says.
            Err(error) if error.is_closed() || is_shutdown(&error) => session = None,
            // Two that do things at random may be in each other's way; then one of them has done nothing.
            Err(error) if connect::sqlstate_of(&error) == Some(DEADLOCK) => {}
            Err(error) => panic!("{}", connect::describe(&error)),
        }
    }
}

/// SQLSTATE of a transaction that was taken back to end a deadlock.
pub const DEADLOCK: &str = "40P01";

fn is_shutdown(error: &tokio_postgres::Error) -> bool {
    connect::sqlstate_of(error).is_none_or(|code| code.starts_with("57P"))
}
