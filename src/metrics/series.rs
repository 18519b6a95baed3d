//! The families of series, with their names, units and help.

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Metric, Registry, Unit},
};
use std::sync::atomic::AtomicU64;

pub(super) type Labels = Vec<(&'static str, String)>;
pub(super) type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
pub(super) type Counters = Family<Labels, Counter>;
pub(super) type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// What each source tells, and of settings that were read again.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) source_state: Gauges,
    pub(super) source_connected: Gauges,
    pub(super) lag_bytes: Gauges,
    pub(super) lag: Gauges,
    pub(super) complete_to: Gauges,
    pub(super) last_commit: Gauges,
    pub(super) slot_present: Gauges,
    pub(super) slot_retained: Gauges,
    pub(super) slot_safe: Gauges,
    pub(super) slot_wal_status: Gauges,
    pub(super) wal_budget: Gauges,
    pub(super) not_covered: Gauges,
    pub(super) mapping_info: Gauges,
    pub(super) certificate_expiry: Gauges,
    pub(super) checkpoint_age: Gauges,
    pub(super) transactions: Counters,
    pub(super) changes: Counters,
    pub(super) events_written: Counters,
    pub(super) unmapped: Counters,
    pub(super) reconnects: Counters,
    pub(super) errors: Counters,
    pub(super) gaps: Counters,
    pub(super) batch_events: Histograms,
    pub(super) write: Histograms,
    pub(super) commit_to_written: Histograms,
    pub(super) checkpoint_interval: Gauge<f64, AtomicU64>,
    pub(super) reload_successful: Gauge<f64, AtomicU64>,
    pub(super) reload_success: Gauge<f64, AtomicU64>,
}

/// Registers a family, and gives another handle to it.
fn put<M: Metric + Clone>(
    registry: &mut Registry,
    name: &str,
    unit: Option<Unit>,
    help: &str,
    metric: M,
) -> M {
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, metric.clone()),
        None => registry.register(name, help, metric.clone()),
    }
    metric
}

fn sizes() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 4.0, 9))
}

/// From a millisecond to two minutes.
fn times() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 18))
}

impl Series {
    #[rustfmt::skip]
    pub(super) fn new(registry: &mut Registry) -> Self {
        let mut gauges = |name, unit, help| put(registry, name, unit, help, Gauges::default());
        let source_state = gauges("source_state", None, "1 for the state that the source is in");
        let source_connected = gauges("source_connected", None, "Whether the source's log is being streamed");
        let lag_bytes = gauges("lag", Some(Unit::Bytes), "Bytes of the source's log behind what is written");
        let lag = gauges("lag", Some(Unit::Seconds), "Seconds since the time up to which all is written; subtracts the clocks of two machines");
        let complete_to = gauges("complete_to_timestamp", Some(Unit::Seconds), "All that the source committed before this Unix time of its clock is written");
        let last_commit = gauges("last_commit_timestamp", Some(Unit::Seconds), "Commit time of the last transaction written, Unix time of the source's clock");
        let slot_present = gauges("slot_present", None, "Whether the replication slot was there at the last look");
        let slot_retained = gauges("slot_retained_wal", Some(Unit::Bytes), "Log that the slot keeps on the source's disk");
        let slot_safe = gauges("slot_safe_wal", Some(Unit::Bytes), "Log that may yet be written before the server gives the slot up; absent without max_slot_wal_keep_size");
        let slot_wal_status = gauges("slot_wal_status", None, "1 for what pg_replication_slots says of the slot");
        let wal_budget = gauges("wal_budget", Some(Unit::Bytes), "Log that the slot may keep: limits.wal_budget_bytes");
        let not_covered = gauges("not_covered_objects", None, "Tables and publications whose changes are not all recorded");
        let mapping_info = gauges("mapping_info", None, "1; the labels say which mapping is in use");
        let certificate_expiry = gauges("certificate_expiry_timestamp", Some(Unit::Seconds), "Unix time at which the server's certificate of this side ends, or ours there if that is sooner");
        let checkpoint_age = gauges("checkpoint_age", Some(Unit::Seconds), "Seconds since the checkpoints at this place covered every event: in the database, in the file of copies, or with the program that takes them");
        let mut counters = |name, help| put(registry, name, None, help, Counters::default());
        let transactions = counters("transactions", "Source transactions that were written");
        let changes = counters("changes", "Row changes of those transactions");
        let events_written = counters("events_written", "Events that were written to the audit database; those of a large transaction whose session breaks are counted again");
        let unmapped = counters("unmapped_changes", "Published row changes that no rule of the mapping took");
        let reconnects = counters("reconnects", "Sessions with the source that ended and were tried again");
        let errors = counters("errors", "Sessions that ended with a fault, by the stage that found it");
        let gaps = counters("gaps", "Holes in the record and places where it went back that were recorded since the process started: events audit_gap and audit_diverged");
        let mut histograms = |name, unit, make: fn() -> Histogram, help| {
            put(registry, name, unit, help, Histograms::new_with_constructor(make))
        };
        let batch_events = histograms("batch_events", None, sizes, "Events of one audit transaction, or of one piece of a large one");
        let write = histograms("write", Some(Unit::Seconds), times, "Time to write one batch, to its commit");
        let commit_to_written = histograms("commit_to_written", Some(Unit::Seconds), times, "From an event's commit at the source to its commit in the audit database; subtracts the clocks of two machines");
        let mut alone = |name, unit, help| put(registry, name, unit, help, Gauge::default());
        let checkpoint_interval = alone("checkpoint_interval", Some(Unit::Seconds), "How often checkpoints are made: proof.interval_seconds; 0 without [proof]");
        let reload_successful = alone("config_last_reload_successful", None, "Whether the settings were taken that were read last");
        let reload_success = alone("config_last_reload_success_timestamp", Some(Unit::Seconds), "Unix time at which settings were taken last");
        Self {
            source_state, source_connected, lag_bytes, lag, complete_to, last_commit, slot_present, slot_retained, slot_safe, slot_wal_status, wal_budget, not_covered, mapping_info, certificate_expiry, checkpoint_age, transactions, changes, events_written, unmapped, reconnects, errors, gaps, batch_events, write, commit_to_written, checkpoint_interval, reload_successful, reload_success,
        }
    }

    /// Forgets what the sources told.
    #[rustfmt::skip]
    pub(super) fn clear(&self) {
        let Self {
            source_state, source_connected, lag_bytes, lag, complete_to, last_commit, slot_present, slot_retained, slot_safe, slot_wal_status, wal_budget, not_covered, mapping_info, certificate_expiry, checkpoint_age, transactions, changes, events_written, unmapped, reconnects, errors, gaps, batch_events, write, commit_to_written,
            checkpoint_interval: _, reload_successful: _, reload_success: _,
        } = self;
        for family in [source_state, source_connected, lag_bytes, lag, complete_to, last_commit, slot_present, slot_retained, slot_safe, slot_wal_status, wal_budget, not_covered, mapping_info, certificate_expiry, checkpoint_age]
        {
            family.clear();
        }
        for family in [transactions, changes, events_written, unmapped, reconnects, errors, gaps] {
            family.clear();
        }
        for family in [batch_events, write, commit_to_written] {
            family.clear();
        }
    }
}
