//! The keeper: looks, again and again, at how much log our slot keeps on the source, whatever the sessions and the audit database do, and gives the slot up when that is beyond the budget.
//!
//! It opens a plain session for a moment each time, so it never keeps a source from being shut down.
//!
//! # Which slot may go
//! Only one that nobody reads: the server itself refuses to drop another. A stream of ours is ended first. Never one that we know not to be ours, because a comparison said so; while the audit database has not answered yet, the name in the settings and the slot's kind must do.

use crate::{
    budget::{self, BudgetError, Kept, Level},
    catalog,
    chain::chain,
    config::{Settings, Source, WalBudgetAction},
    connect::{self, Session},
    conninfo::ConnInfo,
    metrics::SourceMetrics,
};
use std::{convert::Infallible, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// How long one look may take.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// How long a walsender has to notice that its client is gone.
const END_MAX: Duration = Duration::from_secs(5);
/// How often it is looked whether it has.
const END_INTERVAL: Duration = Duration::from_millis(50);

/// What the sessions know of the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Standing {
    pub(super) owner: Owner,
    /// A stream of ours is open, or being opened.
    pub(super) is_in_session: bool,
    /// A session has ended, so the audit database was asked at least once.
    pub(super) has_tried: bool,
    /// It was given up, and no marker could be made.
    pub(super) is_released: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Owner {
    /// No comparison was made yet.
    #[default]
    Unknown,
    /// We follow this server's.
    Ours {
        system_identifier: u64,
        timeline: u32,
    },
    NotOurs,
}

/// Looks after one source's slot.
#[derive(Debug)]
pub(super) struct Keeper {
    source: String,
    metrics: SourceMetrics,
    conninfo: ConnInfo,
    slot: String,
    budget: u64,
    action: WalBudgetAction,
    interval: Duration,
    standing: watch::Sender<Standing>,
    /// True: sessions must end, and not begin.
    hold: watch::Sender<bool>,
    /// What was warned of: of the budget, and of the server's own limit.
    warned: (Level, Level),
    is_refusal_told: bool,
}

impl Keeper {
    pub(super) fn new(settings: &Settings, source: &Source, metrics: SourceMetrics) -> Self {
        Self {
            source: source.name.clone(),
            metrics,
            conninfo: source.conninfo.clone(),
            slot: source.slot.clone(),
            budget: settings.limits.wal_budget_bytes,
            action: settings.limits.wal_budget_action,
            interval: Duration::from_millis(settings.limits.wal_check_interval_ms),
            standing: watch::Sender::default(),
            hold: watch::Sender::new(false),
            warned: (Level::Well, Level::Well),
            is_refusal_told: false,
        }
    }

    /// Where the sessions say what they know.
    pub(super) fn standing(&self) -> watch::Sender<Standing> {
        self.standing.clone()
    }

    /// Where they learn that they must not go on.
    pub(super) fn held(&self) -> watch::Receiver<bool> {
        self.hold.subscribe()
    }

    pub(super) async fn run(&mut self) -> Infallible {
        loop {
            self.look().await;
            sleep(self.interval).await;
        }
    }

    /// Looks once.
    pub(super) async fn look(&mut self) {
        let looked = timeout(LOOK_MAX, self.look_and_act()).await;
        self.hold.send_replace(false);
        match looked {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(source = self.source, error, "cannot look at the slot");
            }
            Err(_elapsed) => tracing::debug!(source = self.source, "no answer about the slot"),
        }
    }

    async fn look_and_act(&mut self) -> Result<(), String> {
        // At the start the first session may yet find out that the slot is not ours, or that nobody lets us in.
        let Standing { owner, has_tried, .. } = *self.standing.borrow();
        if owner == Owner::Unknown && !has_tried {
            return Ok(());
        }
        let session = connect::connect(&self.conninfo, &self.source).await;
        let session = session.map_err(|error| chain(&error))?;
        let kept = budget::kept(&session, &self.slot).await.map_err(|error| chain(&error))?;
        let seen = kept.as_ref();
        self.metrics
            .slot(seen.map(|kept| (kept.bytes, kept.safe_bytes, kept.wal_status.as_deref())));
        let Some(kept) = kept else { return Ok(()) };
        self.warn(&kept);
        let is_over = kept.level(self.budget) == Level::Over;
        if !is_over || self.action == WalBudgetAction::Warn {
            return Ok(());
        }
        self.give_up(&session, &kept).await.map_err(|error| chain(&error))
    }

    /// Once for each threshold that is passed on the way up.
    fn warn(&mut self, kept: &Kept) {
        let levels = (kept.level(self.budget), kept.server_level());
        let is_worse = levels.0 > self.warned.0 || levels.1 > self.warned.1;
        self.warned = levels;
        if !is_worse {
            return;
        }
        for warning in kept.warnings(self.budget, self.action == WalBudgetAction::Release) {
            tracing::warn!(source = self.source, slot = self.slot, warning, "the log piles up");
        }
    }

    async fn give_up(&mut self, session: &Session, kept: &Kept) -> Result<(), BudgetError> {
        if let Some(refusal) = self.refusal(session, kept).await {
            if !std::mem::replace(&mut self.is_refusal_told, true) {
                let (source, slot) = (&self.source, &self.slot);
                tracing::error!(source, slot, refusal, "the WAL budget is passed");
            }
            return Ok(());
        }
        self.hold.send_replace(true);
        let mut active = kept.active_pid;
        let deadline = Instant::now() + END_MAX;
        while active.is_some() && Instant::now() < deadline {
            sleep(END_INTERVAL).await;
            let now = budget::kept(session, &self.slot).await?;
            active = now.and_then(|kept| kept.active_pid);
        }
        let is_marked = budget::release(session, &self.slot).await?;
        self.standing.send_modify(|standing| standing.is_released |= !is_marked);
        tracing::error!(
            source = self.source,
            slot = self.slot,
            kept_bytes = kept.bytes,
            budget_bytes = self.budget,
            "gave the slot up: the WAL budget is passed. The changes since are gone; the gap is recorded when the audit database answers"
        );
        Ok(())
    }

    /// Why the slot must stay although the budget is passed.
    async fn refusal(&self, session: &Session, kept: &Kept) -> Option<String> {
        let Standing { owner, is_in_session, .. } = *self.standing.borrow();
        if !kept.is_like_ours {
            return Some("the slot stays: it is none that portal-audit makes".to_owned());
        }
        if let Some(pid) = kept.active_pid.filter(|_| !is_in_session) {
            return Some(format!("the slot stays: process {pid}, which is not ours, reads it"));
        }
        match owner {
            Owner::NotOurs => Some("the slot stays: it is not known to be ours".to_owned()),
            Owner::Unknown => None,
            Owner::Ours { system_identifier, timeline } => {
                let is_server = catalog::is_server(session, system_identifier, timeline).await;
                let is_server = is_server.unwrap_or(false);
                (!is_server).then(|| "the slot stays: another server answers".to_owned())
            }
        }
    }
}
