//! What was measured, as a table for people and as JSON for programs.

use crate::pages::Asked;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use std::collections::BTreeMap;

/// From this share of the machine's time on a measurement is disturbed.
const STOLEN_MAX: f64 = 0.05;
const MIB: f64 = 1024.0 * 1024.0;

/// Who did the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    #[default]
    Sidecar,
    /// The stream read and translated, and nothing written.
    ReadAlone,
    PgRecvlogical,
    /// The finished rows by one COPY.
    Copy,
    /// The finished rows by COPY, 1,000 a commit.
    CopyThousands,
    /// The finished rows by one COPY, while pg_recvlogical reads: both halves of the work, each by PostgreSQL's own means, on the same cores.
    CopyAndRead,
    /// A native subscription with a trigger that writes the events; as it is by default, its commits do not wait for the disk.
    Subscription,
    /// The same with commits that do, as ours.
    DurableSubscription,
    /// The portal with nobody attached.
    Nobody,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Sidecar => "portal-audit",
            Self::ReadAlone => "read and translate alone",
            Self::PgRecvlogical => "pg_recvlogical to nothing",
            Self::Copy => "COPY of the finished rows",
            Self::CopyThousands => "the same, 1,000 a commit",
            Self::CopyAndRead => "COPY beside pg_recvlogical",
            Self::Subscription => "subscription with a trigger",
            Self::DurableSubscription => "the same, durable commits",
            Self::Nobody => "nobody attached",
        }
    }
}

/// Milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize, serde::Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

/// One measurement. What does not apply is zero.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Run {
    pub(crate) workload: &'static str,
    pub(crate) what: What,
    pub(crate) seconds: f64,
    /// The share of the machine's time that its host gave to others meanwhile.
    pub(crate) stolen: f64,
    pub(crate) changes: u64,
    pub(crate) events: u64,
    /// Of the program that reads.
    pub(crate) program_cpu: f64,
    pub(crate) walsender_cpu: f64,
    /// Of the audit database's backend that writes.
    pub(crate) target_cpu: f64,
    /// Of the portal's whole cluster.
    pub(crate) portal_cpu: f64,
    pub(crate) rss_bytes: u64,
    /// The portal's transactions.
    pub(crate) transactions: u64,
    /// From the portal's commit to the event being visible.
    pub(crate) visible: Option<Latency>,
    /// The portal's own commits.
    pub(crate) commit: Option<Latency>,
}

/// The whole.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    pub(crate) postgresql: String,
    pub(crate) load_at_start: String,
    pub(crate) ratios: BTreeMap<&'static str, f64>,
    pub(crate) latency_ms: BTreeMap<&'static str, f64>,
    pub(crate) rss_mib: BTreeMap<&'static str, f64>,
    pub(crate) micros_per_change: BTreeMap<String, f64>,
    pub(crate) queries_ms: BTreeMap<String, f64>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) runs: Vec<Run>,
}

pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The median over the repetitions: what ran one after the other is compared, because machines change their pace. Where the host gave much of the machine to others the comparison does not count, if there is any other.
fn ratio<'a>(
    pairs: impl Iterator<Item = (&'a Run, &'a Run)>,
    of: impl Fn(&Run) -> f64,
) -> Option<f64> {
    let is_quiet = |run: &Run| run.stolen <= STOLEN_MAX;
    let pairs: Vec<_> = pairs.filter(|(_, b)| of(b) > 0.0).collect();
    let quiet = pairs.iter().filter(|(a, b)| is_quiet(a) && is_quiet(b));
    let ratios: Vec<f64> = quiet.map(|(a, b)| of(a) / of(b)).collect();
    if ratios.is_empty() {
        return median(pairs.iter().map(|(a, b)| of(a) / of(b)).collect());
    }
    median(ratios)
}

impl Report {
    fn of<'a>(&'a self, workload: &'a str, what: What) -> impl Iterator<Item = &'a Run> {
        self.runs.iter().filter(move |run| run.workload == workload && run.what == what)
    }

    fn median(&self, workload: &str, what: What, of: impl Fn(&Run) -> f64) -> Option<f64> {
        median(self.of(workload, what).map(of).collect())
    }

    fn ratio(&self, workload: &str, of: impl Fn(&Run) -> f64, (a, b): (What, What)) -> Option<f64> {
        ratio(self.of(workload, a).zip(self.of(workload, b)), of)
    }

    /// What follows from the runs.
    pub(crate) fn conclude(&mut self) {
        let seconds = |run: &Run| run.seconds;
        let rate = |run: &Run| run.transactions as f64 / run.seconds;
        let portal = |run: &Run| run.portal_cpu / run.transactions as f64;
        let (sidecar, copy, both) = (What::Sidecar, What::Copy, What::CopyAndRead);
        let ratios = [
            (
                "read_vs_pg_recvlogical",
                self.ratio("B", seconds, (What::ReadAlone, What::PgRecvlogical)),
            ),
            ("end_to_end_vs_copy", self.ratio("B", seconds, (sidecar, copy))),
            ("end_to_end_vs_copy_1000", self.ratio("B", seconds, (sidecar, What::CopyThousands))),
            ("end_to_end_vs_copy_and_read", self.ratio("B", seconds, (sidecar, both))),
            ("one_tx_vs_copy", self.ratio("C", seconds, (sidecar, copy))),
            ("one_tx_vs_copy_and_read", self.ratio("C", seconds, (sidecar, both))),
            ("wide_vs_copy", self.ratio("E", seconds, (sidecar, copy))),
            ("wide_vs_copy_and_read", self.ratio("E", seconds, (sidecar, both))),
            (
                "wide_read_vs_pg_recvlogical",
                self.ratio("E", seconds, (What::ReadAlone, What::PgRecvlogical)),
            ),
            ("portal_tps_kept", self.ratio("D", rate, (sidecar, What::Nobody))),
            (
                "portal_tps_kept_pg_recvlogical",
                self.ratio("D", rate, (What::PgRecvlogical, What::Nobody)),
            ),
            (
                "portal_cpu_vs_pg_recvlogical",
                self.ratio("D", portal, (sidecar, What::PgRecvlogical)),
            ),
            ("rate_at_10m", self.rate_at_10m(sidecar)),
            ("rate_at_10m_copy", self.rate_at_10m(copy)),
        ];
        self.ratios = ratios.into_iter().filter_map(|(name, ratio)| Some((name, ratio?))).collect();
        self.latencies();
        for workload in ["A", "B", "C", "D", "E", "F"] {
            let peak = self.of(workload, sidecar).map(|run| run.rss_bytes).max();
            self.rss_mib.extend(peak.map(|peak| (workload, peak as f64 / MIB)));
        }
        let micros = |run: &Run| run.program_cpu * 1e6 / run.changes as f64;
        for workload in ["B", "C", "E", "F"] {
            for what in [sidecar, What::ReadAlone] {
                let median = self.median(workload, what, micros);
                let key = format!("{workload} {}", what.name());
                self.micros_per_change.extend(median.map(|micros| (key, micros)));
            }
        }
    }

    /// The same backlog into ten million events and into none.
    fn rate_at_10m(&self, what: What) -> Option<f64> {
        ratio(self.of("F empty", what).zip(self.of("F", what)), |run| run.seconds)
    }

    fn latencies(&mut self) {
        let of = |what, which: fn(&Run) -> Option<Latency>, part: fn(Latency) -> f64| {
            let is_quiet = self.of("A", what).any(|run| run.stolen <= STOLEN_MAX);
            let runs = self.of("A", what).filter(|run| !is_quiet || run.stolen <= STOLEN_MAX);
            median(runs.filter_map(which).map(part).collect())
        };
        let named = [
            ("p50", of(What::Sidecar, |run| run.visible, |it| it.p50)),
            ("p99", of(What::Sidecar, |run| run.visible, |it| it.p99)),
            ("subscription_p50", of(What::Subscription, |run| run.visible, |it| it.p50)),
            ("subscription_p99", of(What::Subscription, |run| run.visible, |it| it.p99)),
            (
                "durable_subscription_p50",
                of(What::DurableSubscription, |run| run.visible, |it| it.p50),
            ),
            (
                "durable_subscription_p99",
                of(What::DurableSubscription, |run| run.visible, |it| it.p99),
            ),
            ("portal_commit_p50", of(What::Sidecar, |run| run.commit, |it| it.p50)),
            ("portal_commit_p99", of(What::Sidecar, |run| run.commit, |it| it.p99)),
            ("portal_commit_alone_p50", of(What::Nobody, |run| run.commit, |it| it.p50)),
            ("portal_commit_alone_p99", of(What::Nobody, |run| run.commit, |it| it.p99)),
        ];
        self.latency_ms =
            named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header([
            "",
            "",
            "s",
            "stolen %",
            "changes",
            "events",
            "program CPU",
            "walsender",
            "target",
            "portal",
            "RSS MiB",
            "tps",
            "visible ms",
            "commit ms",
        ]);
        for run in &self.runs {
            let shown =
                |value: f64| if value > 0.0 { format!("{value:.2}") } else { String::new() };
            let count = |value: u64| if value > 0 { value.to_string() } else { String::new() };
            let latency = |value: Option<Latency>| {
                value.map(|it| format!("{:.2} / {:.2}", it.p50, it.p99)).unwrap_or_default()
            };
            let rate = run.transactions as f64 / run.seconds;
            table.add_row([
                run.workload.to_owned(),
                run.what.name().to_owned(),
                shown(run.seconds),
                format!("{:.0}", run.stolen * 100.0),
                count(run.changes),
                count(run.events),
                shown(run.program_cpu),
                shown(run.walsender_cpu),
                shown(run.target_cpu),
                shown(run.portal_cpu),
                shown(run.rss_bytes as f64 / MIB),
                if rate > 0.0 { format!("{rate:.0}") } else { String::new() },
                latency(run.visible),
                latency(run.commit),
            ]);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let table = if self.runs.is_empty() { String::new() } else { format!("{table}\n") };
        let mut text = format!(
            "PostgreSQL {}, load at start {}\n{table}",
            self.postgresql, self.load_at_start
        );
        let mut section = |title: &str, values: Vec<(String, f64)>| {
            for (place, (name, value)) in values.iter().enumerate() {
                let title = if place == 0 { title } else { "" };
                text.push_str(&format!("{title:<18} {name:<46} {value:>10.2}\n"));
            }
        };
        let owned = |map: &BTreeMap<&'static str, f64>| {
            map.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
        };
        let cloned = |map: &BTreeMap<String, f64>| {
            map.iter().map(|(name, value)| (name.clone(), *value)).collect()
        };
        section("ratios", owned(&self.ratios));
        section("latency, ms", owned(&self.latency_ms));
        section("peak RSS, MiB", owned(&self.rss_mib));
        section("CPU, µs/change", cloned(&self.micros_per_change));
        section("queries, ms", cloned(&self.queries_ms));
        text + &self.asked()
    }

    /// What people ask, and what takes longer than it should.
    fn asked(&self) -> String {
        if self.asked.is_empty() {
            return String::new();
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(["", "", "ms", "longest", "first", "size"]);
        for asked in &self.asked {
            let late = if asked.is_late() { " !" } else { "" };
            table.add_row([
                asked.kind.to_owned(),
                asked.what.clone(),
                format!("{:.1}{late}", asked.median_ms),
                format!("{:.1}", asked.longest_ms),
                format!("{:.1}", asked.first_ms),
                asked.size.to_string(),
            ]);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        let late = self.asked.iter().filter(|asked| asked.is_late()).count();
        format!("{table}\n{} asked, {late} took more than 100 ms\n", self.asked.len())
    }
}
