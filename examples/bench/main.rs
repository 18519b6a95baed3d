//! Measures the whole against PostgreSQL's own limits, in one run: what `./x bench` calls.
//!
//! Two durable clusters, the sample portal with a thousand projects, and workloads A to F; the workload `pages` asks all that people ask of ten million events. Each figure stands beside a floor of the same run; repetitions take turns. What counts are the ratios: seconds move with the machine.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "its output is what it is for")]

mod backlog;
mod drain;
mod live;
mod load;
mod pages;
mod process;
mod report;
mod stage;
mod table;

use backlog::Backlog;
use clap::{Parser, Subcommand, ValueEnum};
use live::Live;
use load::Load;
use report::{Report, What};
use stage::Stage;
use std::{error::Error, fs, path::PathBuf};

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;
/// Whether something holds.
pub(crate) type Outcome = Result<bool>;

/// Transactions a second of workload A.
const STEADY_RATE: u32 = 2_000;

/// Who is attached to the portal in turn: at that rate, and when it goes as fast as it can.
const STEADY: [What; 4] =
    [What::Nobody, What::Sidecar, What::Subscription, What::DurableSubscription];
const SATURATED: [What; 3] = [What::Nobody, What::Sidecar, What::PgRecvlogical];

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Measures workloads.
    Run(Wanted),
    /// Reads a slot to nothing: a part of `run`.
    #[command(hide = true)]
    Drain { settings: PathBuf, slot: String, end: String },
    /// The portal's clients: a part of `run`.
    #[command(hide = true)]
    Load(Load),
}

#[derive(Debug, clap::Args)]
struct Wanted {
    /// Which; all of them without.
    workloads: Vec<Workload>,
    /// Repetitions of each measurement; their medians count.
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Row changes of the backlog of B, C, E and F.
    #[arg(long, default_value_t = 500_000)]
    changes: u64,
    /// How long A and D measure each time.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// The database that pages are asked of: an empty one is filled with ten million events first. Without, one of its own is
    #[arg(long)]
    dsn: Option<String>,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "verbatim")]
enum Workload {
    /// 2,000 small transactions a second: how long until each is visible.
    A,
    /// A backlog of small transactions.
    B,
    /// One large transaction.
    C,
    /// The portal saturated.
    D,
    /// A backlog of wide rows.
    E,
    /// A backlog into ten million events, and the documented queries.
    F,
    /// Every page, verb and documented query over ten million events.
    #[value(name = "pages")]
    Pages,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Arguments::parse().verb {
        Verb::Drain { settings, slot, end } => {
            let drained = drain::drain(&settings, &slot, end.parse()?).await?;
            println!("{}", serde_json::to_string(&drained)?);
        }
        Verb::Load(load) => println!("{}", serde_json::to_string(&load.run().await?)?),
        Verb::Run(wanted) => {
            let report = measure(&wanted).await?;
            match wanted.format {
                Format::Text => print!("{}", report.table()),
                Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
            }
        }
    }
    Ok(())
}

async fn measure(wanted: &Wanted) -> Result<Report> {
    let mut report = Report { load_at_start: load()?, ..Report::default() };
    let is_wanted = |workload| wanted.workloads.is_empty() || wanted.workloads.contains(&workload);
    for (workload, name, call, size) in [
        (Workload::B, "B", "run('pair', ", wanted.changes / 2),
        (Workload::C, "C", "one(", wanted.changes),
        (Workload::E, "E", "run('wide', ", wanted.changes / 5),
    ] {
        if is_wanted(workload) {
            let stage = Stage::build().await?;
            report.postgresql.clone_from(&stage.portal.installation().version);
            let repetitions = wanted.repetitions;
            let backlog = Backlog { workload: name, call, size, repetitions };
            backlog.run(&stage, &mut report.runs).await?;
        }
    }
    let (seconds, repetitions) = (wanted.seconds, wanted.repetitions);
    let live = [
        Live {
            workload: "A",
            rate: STEADY_RATE,
            sessions: 4,
            seconds,
            repetitions,
            attached: &STEADY,
        },
        // So many that their commits share the disk and the cores are what they lack; in short turns, because a disk changes its pace.
        Live {
            workload: "D",
            rate: 0,
            sessions: 16,
            seconds: seconds.div_ceil(3),
            repetitions: 3 * repetitions,
            attached: &SATURATED,
        },
    ];
    for (workload, live) in [Workload::A, Workload::D].into_iter().zip(live) {
        if is_wanted(workload) {
            let stage = Stage::build().await?;
            report.postgresql.clone_from(&stage.portal.installation().version);
            live.run(&stage, &mut report.runs).await?;
        }
    }
    if is_wanted(Workload::F) {
        let stage = Stage::build().await?;
        report.postgresql.clone_from(&stage.portal.installation().version);
        table::run(&stage, wanted.changes / 2, wanted.repetitions, &mut report).await?;
    }
    if is_wanted(Workload::Pages) {
        pages::run(wanted.dsn.as_deref(), wanted.repetitions, &mut report).await?;
    }
    report.conclude();
    Ok(report)
}

/// Load of the machine over the last minutes: what else was going on.
fn load() -> Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').take(3).collect::<Vec<_>>().join(" "))
}
