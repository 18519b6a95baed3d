//! What the process knows of itself: states, counters and gauges of each source, in Prometheus' names and units.
//!
//! The pipeline tells, the HTTP listener shows; nothing here asks a database. `deploy/metrics.txt` lists every series, and a test compares the two.

mod process;
mod series;

use crate::{
    event::Events, lsn::Lsn, timestamp::Timestamp, translate::Batch, tuple::Operation, write::End,
};
use chrono::{DateTime, Utc};
use process::Process;
use prometheus_client::{encoding::text, metrics::info::Info, registry::Registry};
use series::{Gauges, Labels, Series};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// What `pg_replication_slots.wal_status` may say.
const WAL_STATUSES: [&str; 4] = ["reserved", "extended", "unreserved", "lost"];

/// Who may find a fault: values of the label `stage`. Each has a series from the start, because an increase from nothing is not seen.
pub const STAGES: [&str; 10] = [
    "audit",
    "catalog",
    "continuity",
    "pipeline",
    "snapshot",
    "source",
    "transaction",
    "translate",
    "wire",
    "write",
];

/// What a source is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Its first session has not begun to stream: it connects, or makes the first snapshot.
    Starting,
    Streaming,
    /// Its session ended, and it is tried again; or another sidecar reads its slot.
    Waiting,
    /// It ended with a definite fault: this needs a human.
    Stopped,
}

impl State {
    const ALL: [Self; 4] = [Self::Starting, Self::Streaming, Self::Waiting, Self::Stopped];

    /// The value of the label `state`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Streaming => "streaming",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Every series of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    process: Process,
    states: watch::Sender<BTreeMap<String, State>>,
    /// Of each source, as they were counted last.
    known_gaps: Mutex<HashMap<String, u64>>,
    /// By the place that holds checkpoints: when they covered every event last, or when that was first wanted.
    covered: Mutex<BTreeMap<&'static str, Timestamp>>,
    /// By source.
    logs: Mutex<HashMap<String, KeptLog>>,
    series: Series,
}

/// What a source's slot keeps on its server's disk, as it was seen last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeptLog {
    /// How much it may: `limits.wal_budget_bytes`.
    pub budget: u64,
    /// Whether anybody has looked yet.
    pub is_seen: bool,
    /// `None`: there is no slot.
    pub bytes: Option<u64>,
    /// So many more until the server gives it up by itself; `None`: it never does.
    pub safe: Option<u64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("portal_audit");
        let version = vec![("version", env!("CARGO_PKG_VERSION"))];
        registry.register("build", "1; the label says which version runs", Info::new(version));
        let series = Series::new(&mut registry);
        let metrics = Self {
            registry,
            process: Process::new(),
            states: watch::Sender::default(),
            known_gaps: Mutex::default(),
            covered: Mutex::default(),
            logs: Mutex::default(),
            series,
        };
        metrics.reloaded(true);
        metrics
    }
}

impl Metrics {
    /// The handle of one source, whose series begin now.
    #[must_use]
    pub fn source(self: &Arc<Self>, name: &str) -> SourceMetrics {
        let source = SourceMetrics { metrics: Arc::clone(self), name: name.to_owned() };
        source.state(State::Starting);
        let labels = source.labels();
        let series = &self.series;
        for counter in [&series.transactions, &series.changes, &series.reconnects, &series.gaps] {
            drop(counter.get_or_create(&labels));
        }
        for stage in STAGES {
            drop(series.errors.get_or_create(&source.labels_and("stage", stage)));
        }
        source
    }

    /// Forgets every source: the settings were read again.
    pub fn clear(&self) {
        self.states.send_replace(BTreeMap::new());
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.series.clear();
    }

    /// The states of the sources, and their changes.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<BTreeMap<String, State>> {
        self.states.subscribe()
    }

    /// Settings were read again: taken, or refused.
    pub fn reloaded(&self, is_taken: bool) {
        self.series.reload_successful.set(f64::from(u8::from(is_taken)));
        if is_taken {
            self.series.reload_success.set(seconds(now()));
        }
    }

    /// Checkpoints are to be made so often, and held at these places; none: there is no `[proof]`. The age of what was told before stays.
    pub fn checkpoints(&self, interval: Duration, places: &[&'static str]) {
        let mut covered = self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        covered.retain(|place, _| places.contains(place));
        for place in places {
            covered.entry(place).or_insert_with(now);
        }
        self.series.checkpoint_interval.set(interval.as_secs_f64());
    }

    /// The checkpoints at a place cover every event that there is now.
    pub fn is_covered(&self, place: &'static str) {
        let mut covered = self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        covered.insert(place, now());
    }

    /// Up to when all that `source` committed is written.
    #[must_use]
    pub fn complete_to(&self, source: &str) -> Option<DateTime<Utc>> {
        let labels = vec![("source", source.to_owned())];
        let seconds = self.series.complete_to.get(&labels)?.get();
        // Whole seconds are what people are shown.
        let duration = Duration::try_from_secs_f64(seconds).ok()?;
        Some(DateTime::from(std::time::UNIX_EPOCH + duration))
    }

    /// What the slot of a source keeps; `None`: no such source is followed here.
    #[must_use]
    pub fn kept_log(&self, source: &str) -> Option<KeptLog> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).get(source).copied()
    }

    fn with_log(&self, source: &str, change: impl FnOnce(&mut KeptLog)) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        change(logs.entry(source.to_owned()).or_default());
    }

    /// For each place that is to hold checkpoints, how many seconds ago they covered every event there.
    #[must_use]
    pub fn checkpoint_ages(&self) -> Vec<(&'static str, f64)> {
        let now = seconds(now());
        let covered = self.covered.lock().unwrap_or_else(PoisonError::into_inner);
        covered.iter().map(|(place, at)| (*place, (now - seconds(*at)).max(0.0))).collect()
    }

    /// How often checkpoints are made, in seconds; 0: nobody signs.
    #[must_use]
    pub fn checkpoint_interval(&self) -> f64 {
        self.series.checkpoint_interval.get()
    }

    /// All series as OpenMetrics 1.0 text, as of now.
    ///
    /// # Errors
    /// None that can happen: a string takes all that is written.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let now = now();
        for name in self.states.borrow().keys() {
            let labels = vec![("source", name.clone())];
            let complete_to = self.series.complete_to.get(&labels).map(|time| time.get());
            if let Some(complete_to) = complete_to {
                let lag = (seconds(now) - complete_to).max(0.0);
                self.series.lag.get_or_create(&labels).set(lag);
            }
        }
        for (place, age) in self.checkpoint_ages() {
            let labels = vec![("place", place.to_owned())];
            self.series.checkpoint_age.get_or_create(&labels).set(age);
        }
        let mut text = String::new();
        text::encode_registry(&mut text, &self.registry)?;
        self.process.encode(&mut text)?;
        text::encode_eof(&mut text)?;
        Ok(text)
    }
}

/// What one source tells.
#[derive(Debug, Clone)]
pub struct SourceMetrics {
    metrics: Arc<Metrics>,
    name: String,
}

impl SourceMetrics {
    fn labels(&self) -> Labels {
        vec![("source", self.name.clone())]
    }

    fn labels_and(&self, name: &'static str, value: &str) -> Labels {
        vec![("source", self.name.clone()), (name, value.to_owned())]
    }

    fn set(&self, gauges: &Gauges, value: f64) {
        gauges.get_or_create(&self.labels()).set(value);
    }

    /// Of a gauge with one series a value, that `is` is the case.
    fn set_one_of(&self, gauges: &Gauges, label: &'static str, all: &[&str], is: Option<&str>) {
        for one in all {
            let value = f64::from(u8::from(is == Some(one)));
            gauges.get_or_create(&self.labels_and(label, one)).set(value);
        }
    }

    /// The source has come to another state.
    pub fn state(&self, state: State) {
        let series = &self.metrics.series;
        let names = State::ALL.map(State::name);
        self.set_one_of(&series.source_state, "state", &names, Some(state.name()));
        self.set(&series.source_connected, f64::from(u8::from(state == State::Streaming)));
        self.metrics
            .states
            .send_if_modified(|states| states.insert(self.name.clone(), state) != Some(state));
    }

    /// A session ended with a fault of `stage`.
    pub fn fault(&self, stage: &'static str) {
        let series = &self.metrics.series;
        series.errors.get_or_create(&self.labels_and("stage", stage)).inc();
    }

    /// A session is tried again.
    pub fn reconnect(&self) {
        self.metrics.series.reconnects.get_or_create(&self.labels()).inc();
    }

    /// What the settings say of the source.
    pub fn settings(&self, wal_budget_bytes: u64, mapping: &str, fingerprint: &str) {
        let series = &self.metrics.series;
        self.set(&series.wal_budget, approximate(wal_budget_bytes));
        self.metrics.with_log(&self.name, |log| log.budget = wal_budget_bytes);
        let mut labels = self.labels_and("mapping", mapping);
        labels.push(("fingerprint", fingerprint.to_owned()));
        series.mapping_info.get_or_create(&labels).set(1.0);
    }

    /// A batch is committed, or a piece of a large one is in the database; it took so long.
    pub fn wrote(&self, batch: &Batch, end: Option<End>, took: Duration) {
        let series = &self.metrics.series;
        let labels = self.labels();
        series.transactions.get_or_create(&labels).inc_by(batch.transactions);
        series.changes.get_or_create(&labels).inc_by(batch.changes);
        for ((table, operation), changes) in &batch.unmapped {
            let mut labels = self.labels_and("table", table);
            labels.push(("op", Operation::name(*operation).to_owned()));
            series.unmapped.get_or_create(&labels).inc_by(*changes);
        }
        if !batch.events.is_empty() {
            self.wrote_events(&batch.events, took);
        }
        let Some(End { last_commit, complete_to, .. }) = end else { return };
        if let Some(last_commit) = last_commit {
            self.set(&series.last_commit, seconds(last_commit));
        }
        if let Some(complete_to) = complete_to {
            self.set(&series.complete_to, seconds(complete_to));
        }
    }

    fn wrote_events(&self, events: &Events, took: Duration) {
        let series = &self.metrics.series;
        let labels = self.labels();
        series.write.get_or_create(&labels).observe(took.as_secs_f64());
        let number = u32::try_from(events.len()).unwrap_or(u32::MAX);
        series.batch_events.get_or_create(&labels).observe(f64::from(number));
        let now = seconds(now());
        let ages = series.commit_to_written.get_or_create_owned(&labels);
        let mut by_type: HashMap<&str, u64> = HashMap::new();
        for event in events.iter() {
            ages.observe((now - seconds(event.timestamp)).max(0.0));
            *by_type.entry(event.event_type).or_default() += 1;
        }
        for (event_type, count) in by_type {
            let labels = self.labels_and("event_type", event_type);
            series.events_written.get_or_create(&labels).inc_by(count);
        }
    }

    /// So many events `audit_gap` and `audit_diverged` stand in the audit database. Those that stood there when the process first looked are not counted: an alert on the counter tells of new ones.
    pub fn gaps(&self, gaps: u64) {
        let mut known = self.metrics.known_gaps.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(self.name.clone()).or_insert(gaps);
        let new = gaps.saturating_sub(std::mem::replace(known, gaps));
        self.metrics.series.gaps.get_or_create(&self.labels()).inc_by(new);
    }

    /// Where the source's log ends, and up to where it is written.
    pub fn log_end(&self, end: Lsn, written: Lsn) {
        self.set(&self.metrics.series.lag_bytes, approximate(end.bytes_since(written)));
    }

    /// What the slot keeps: bytes, bytes until the server gives it up, its `wal_status`. `None`: there is no slot.
    pub fn slot(&self, kept: Option<(u64, Option<u64>, Option<&str>)>) {
        let series = &self.metrics.series;
        self.set(&series.slot_present, f64::from(u8::from(kept.is_some())));
        self.metrics.with_log(&self.name, |log| {
            (log.is_seen, log.bytes) = (true, kept.map(|(bytes, ..)| bytes));
            log.safe = kept.and_then(|(_, safe, _)| safe);
        });
        let (bytes, safe, status) = kept.unwrap_or((0, None, None));
        self.set(&series.slot_retained, approximate(bytes));
        match safe {
            Some(safe) => self.set(&series.slot_safe, approximate(safe)),
            None => drop(series.slot_safe.remove(&self.labels())),
        }
        self.set_one_of(&series.slot_wal_status, "status", &WAL_STATUSES, status);
    }

    /// Objects that are not covered as of the last look.
    pub fn not_covered(&self, objects: usize) {
        let objects = u32::try_from(objects).unwrap_or(u32::MAX);
        self.set(&self.metrics.series.not_covered, f64::from(objects));
    }

    /// When the certificate of the server at `side`, `source` or `audit`, expires.
    pub fn certificate_expiry(&self, side: &'static str, expires: Timestamp) {
        let labels = self.labels_and("side", side);
        self.metrics.series.certificate_expiry.get_or_create(&labels).set(seconds(expires));
    }
}

/// Bytes as Prometheus counts: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a double")]
fn approximate(bytes: u64) -> f64 {
    bytes as f64
}

/// Unix time.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a double: exact to the microsecond")]
fn seconds(time: Timestamp) -> f64 {
    time.unix_micros() as f64 / 1e6
}

#[expect(clippy::disallowed_methods, reason = "ages are shown, and nothing is made of them")]
fn now() -> Timestamp {
    Timestamp::from(chrono::DateTime::from(std::time::SystemTime::now()))
}

#[cfg(test)]
mod tests {
    use super::{KeptLog, Metrics, State};
    use crate::{event::Events, lsn::Lsn, translate::Batch, write::End};
    use std::{sync::Arc, time::Duration};

    fn has(metrics: &Metrics, line: &str) -> bool {
        metrics.encode().unwrap().lines().any(|found| found == line)
    }

    #[test]
    fn a_source_has_one_state_and_counts() {
        let metrics = Arc::new(Metrics::default());
        let source = metrics.source("portal");
        for (there, told) in [(2, 0), (3, 1), (3, 1), (5, 3)] {
            source.gaps(there);
            assert!(has(&metrics, &format!("portal_audit_gaps_total{{source=\"portal\"}} {told}")));
        }
        source.state(State::Streaming);
        assert!(has(
            &metrics,
            "portal_audit_source_state{source=\"portal\",state=\"streaming\"} 1.0"
        ));
        assert!(has(
            &metrics,
            "portal_audit_source_state{source=\"portal\",state=\"starting\"} 0.0"
        ));
        let batch =
            Batch { transactions: 2, changes: 3, events: Events::default(), ..Batch::default() };
        let end = End { end_lsn: Lsn(5), last_commit: None, complete_to: Some(super::now()) };
        source.wrote(&batch, Some(end), Duration::ZERO);
        source.log_end(Lsn(500), Lsn(100));
        assert!(has(&metrics, "portal_audit_changes_total{source=\"portal\"} 3"));
        assert!(has(&metrics, "portal_audit_lag_bytes{source=\"portal\"} 400.0"));
        source.settings(100, "mapping", "");
        source.slot(Some((7, Some(1), Some("extended"))));
        let kept = KeptLog { budget: 100, is_seen: true, bytes: Some(7), safe: Some(1) };
        assert_eq!(metrics.kept_log("portal"), Some(kept));
        assert!(has(&metrics, "portal_audit_slot_safe_wal_bytes{source=\"portal\"} 1.0"));
        source.slot(None);
        assert_eq!(metrics.kept_log("portal").unwrap().bytes, None);
        assert!(has(&metrics, "portal_audit_slot_present{source=\"portal\"} 0.0"));
        assert!(!metrics.encode().unwrap().contains("slot_safe_wal_bytes{"));
        metrics.clear();
        assert_eq!(metrics.kept_log("portal"), None);
        assert!(!metrics.encode().unwrap().contains("source=\"portal\""));
    }
}
