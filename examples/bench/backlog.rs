//! A backlog that is there when the reading begins: workloads B, C and E, each beside its floors, in turns.

use crate::{
    Result,
    drain::Drained,
    process::{self, Meter, Program, cpu_seconds, pg_recvlogical},
    report::{Run, What},
    stage::{self, AUDIT, FLOOR_SLOT, PORTAL, SLOT, Stage},
};
use bytes::{Bytes, BytesMut};
use futures_util::SinkExt as _;
use portal_audit::connect::Session;
use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, Read as _, Write as _},
    path::Path,
    pin::pin,
    time::Duration,
};
use tokio::time::sleep;
use tokio_postgres::types::PgLsn;

const POLL: Duration = Duration::from_millis(10);
const EVENT_COLUMNS: &str = "event_uuid, timestamp, event_type, caller, subject, subject_type, target, success, error_message, payload";
/// Of the binary format: signature, flags and the length of an extension (manual, COPY).
const COPY_HEADER_BYTES: usize = 19;
const COPY_END: [u8; 2] = [0xFF, 0xFF];
const CHUNK_BYTES: usize = 128 << 10;

/// What is measured.
pub(crate) struct Backlog {
    pub(crate) workload: &'static str,
    /// What the portal does: `CALL`s this.
    pub(crate) call: &'static str,
    /// Its argument: transactions or changes.
    pub(crate) size: u64,
    pub(crate) repetitions: usize,
}

impl Backlog {
    /// Each repetition: both readers, then the sidecar, then COPY of what the sidecar wrote, by itself and beside a reader.
    pub(crate) async fn run(&self, stage: &Stage, runs: &mut Vec<Run>) -> Result<()> {
        stage.mark().await?;
        let portal = stage.portal(PORTAL).await?;
        let end = self.work(stage).await?;
        for repetition in 1..=self.repetitions {
            eprint!(" {repetition}");
            runs.push(self.pg_recvlogical(stage, &portal, &end).await?);
            runs.push(self.read_alone(stage, &portal, &end).await?);
            stage.rewind().await?;
            runs.push(self.sidecar(stage, &end).await?);
            let rows = stage.file("events.copy");
            let events = save(stage, &rows).await?;
            for rows_per_commit in [u64::MAX, 1_000] {
                stage.rewind().await?;
                runs.push(self.copy(stage, &rows, events, rows_per_commit).await?);
            }
            stage.rewind().await?;
            runs.push(self.copy_and_read(stage, (&portal, &end), (&rows, events)).await?);
        }
        eprintln!();
        stage::drop_slot(&portal, FLOOR_SLOT).await
    }

    /// Lets the portal make the backlog; where its log ends then.
    pub(crate) async fn work(&self, stage: &Stage) -> Result<String> {
        eprint!("{}: the portal works …", self.workload);
        let portal = stage.portal(PORTAL).await?;
        portal.client.batch_execute("SET synchronous_commit = off").await?;
        let call = format!("CALL bench.{}{})", self.call, self.size);
        portal.client.batch_execute(&call).await?;
        stage.log_end().await
    }

    fn new_run(&self, what: What, meter: &Meter) -> Result<Run> {
        let (seconds, stolen) = (meter.seconds(), meter.stolen()?);
        Ok(Run { workload: self.workload, what, seconds, stolen, ..Run::default() })
    }

    async fn pg_recvlogical(&self, stage: &Stage, portal: &Session, end: &str) -> Result<Run> {
        stage.rewind().await?;
        stage::copy_slot(portal, SLOT, FLOOR_SLOT).await?;
        let meter = Meter::begin()?;
        let mut program = pg_recvlogical(stage, FLOOR_SLOT, Some(end))?;
        let mut walsender = Backends::default();
        while program.look()? {
            walsender.look(portal, REPLICATION).await?;
            sleep(POLL).await;
        }
        let mut run = self.new_run(What::PgRecvlogical, &meter)?;
        program.end().await?;
        (run.program_cpu, run.walsender_cpu) = (program.usage.cpu_seconds, walsender.cpu());
        run.rss_bytes = program.usage.peak_rss_bytes;
        Ok(run)
    }

    async fn read_alone(&self, stage: &Stage, portal: &Session, end: &str) -> Result<Run> {
        stage.rewind().await?;
        stage::copy_slot(portal, SLOT, FLOOR_SLOT).await?;
        let meter = Meter::begin()?;
        let mut program =
            process::own(&["drain", &stage.settings.to_string_lossy(), FLOOR_SLOT, end])?;
        let mut walsender = Backends::default();
        while program.look()? {
            walsender.look(portal, REPLICATION).await?;
            sleep(POLL).await;
        }
        let mut run = self.new_run(What::ReadAlone, &meter)?;
        let drained: Drained = serde_json::from_str(&program.end().await?)?;
        run.seconds = drained.seconds;
        (run.program_cpu, run.walsender_cpu) = (drained.cpu_seconds, walsender.cpu());
        (run.changes, run.events) = (drained.changes, drained.events);
        run.rss_bytes = program.usage.peak_rss_bytes;
        Ok(run)
    }

    /// The sidecar from where its slot and its progress stand, to the end.
    pub(crate) async fn sidecar(&self, stage: &Stage, end: &str) -> Result<Run> {
        let portal = stage.portal(PORTAL).await?;
        let audit = stage.audit(AUDIT).await?;
        let end = PgLsn::from(end.parse::<portal_audit::lsn::Lsn>()?.0);
        let before = counted(&audit).await?;
        let meter = Meter::begin()?;
        let mut sidecar = process::sidecar(&stage.settings)?;
        let (mut walsender, mut target) = (Backends::default(), Backends::default());
        while !has_reached(&audit, end).await? {
            if !sidecar.look()? {
                return Err("the sidecar has ended".into());
            }
            walsender.look(&portal, REPLICATION).await?;
            target.look(&audit, WRITING).await?;
            sleep(POLL).await;
        }
        let mut run = self.new_run(What::Sidecar, &meter)?;
        finish(&mut sidecar, &portal, &audit, &mut walsender, &mut target).await?;
        let after = counted(&audit).await?;
        let usage = sidecar.stop().await?;
        (run.program_cpu, run.rss_bytes) = (usage.cpu_seconds, usage.peak_rss_bytes);
        (run.walsender_cpu, run.target_cpu) = (walsender.cpu(), target.cpu());
        (run.changes, run.events) = (after.0 - before.0, after.1 - before.1);
        Ok(run)
    }

    /// COPY of finished rows into the table as the sidecar found it.
    pub(crate) async fn copy(
        &self,
        stage: &Stage,
        rows: &Path,
        events: u64,
        rows_per_commit: u64,
    ) -> Result<Run> {
        let audit = stage.audit(AUDIT).await?;
        let mut target = Backends::default();
        let meter = Meter::begin()?;
        copy_in(&audit, rows, rows_per_commit).await?;
        let what = if rows_per_commit == u64::MAX { What::Copy } else { What::CopyThousands };
        let mut run = self.new_run(what, &meter)?;
        target.look(&audit, "SELECT pg_backend_pid()").await?;
        (run.target_cpu, run.events) = (target.cpu(), events);
        Ok(run)
    }

    /// COPY of finished rows while the slot is read to nothing, until both are done.
    async fn copy_and_read(
        &self,
        stage: &Stage,
        (portal, end): (&Session, &str),
        (rows, events): (&Path, u64),
    ) -> Result<Run> {
        stage::copy_slot(portal, SLOT, FLOOR_SLOT).await?;
        let meter = Meter::begin()?;
        let mut reader = pg_recvlogical(stage, FLOOR_SLOT, Some(end))?;
        let mut run = self.copy(stage, rows, events, u64::MAX).await?;
        reader.end().await?;
        (run.what, run.seconds, run.stolen) = (What::CopyAndRead, meter.seconds(), meter.stolen()?);
        Ok(run)
    }
}

/// Sessions that are measured, by pid.
const REPLICATION: &str =
    "SELECT pid FROM pg_stat_replication WHERE application_name <> 'walreceiver'";
const WRITING: &str = "SELECT pid FROM pg_stat_activity WHERE usename = 'sidecar'";

/// CPU of backends, as it was when they were last seen.
#[derive(Debug, Default)]
struct Backends {
    known: HashMap<u32, f64>,
    looks: u64,
}

/// Backends that come later are found at each so many looks.
const LOOKS: u64 = 20;

impl Backends {
    async fn look(&mut self, session: &Session, pids: &str) -> Result<()> {
        if self.known.is_empty() || self.looks.is_multiple_of(LOOKS) {
            for row in session.client.query(pids, &[]).await? {
                self.known.entry(u32::try_from(row.get::<_, i32>(0))?).or_default();
            }
        }
        self.looks += 1;
        for (pid, seconds) in &mut self.known {
            *seconds = cpu_seconds(*pid, false).unwrap_or(*seconds);
        }
        Ok(())
    }

    fn cpu(&self) -> f64 {
        self.known.values().sum()
    }
}

async fn finish(
    sidecar: &mut Program,
    portal: &Session,
    audit: &Session,
    walsender: &mut Backends,
    target: &mut Backends,
) -> Result<()> {
    sidecar.look()?;
    walsender.look(portal, REPLICATION).await?;
    target.look(audit, WRITING).await
}

/// Whether progress is there.
pub(crate) async fn has_reached(audit: &Session, end: PgLsn) -> Result<bool> {
    let row =
        audit.client.query_opt("SELECT end_lsn >= $1 FROM portal_audit.progress", &[&end]).await?;
    Ok(row.is_some_and(|row| row.get(0)))
}

async fn counted(audit: &Session) -> Result<(u64, u64)> {
    let row =
        audit.client.query_one("SELECT changes, events FROM portal_audit.progress", &[]).await?;
    Ok((u64::try_from(row.get::<_, i64>(0))?, u64::try_from(row.get::<_, i64>(1))?))
}

/// The rows of `events` as they were written, in a file of COPY's binary format; how many.
pub(crate) async fn save(stage: &Stage, path: &Path) -> Result<u64> {
    use futures_util::TryStreamExt as _;
    let audit = stage.audit(AUDIT).await?;
    let mut file = File::create(path)?;
    let query =
        format!("COPY (SELECT {EVENT_COLUMNS} FROM public.events) TO STDOUT (FORMAT binary)");
    let stream = audit.client.copy_out(&query).await?;
    let mut stream = pin!(stream);
    while let Some(chunk) = stream.try_next().await? {
        file.write_all(&chunk)?;
    }
    let row = audit.client.query_one("SELECT count(*) FROM public.events", &[]).await?;
    Ok(u64::try_from(row.get::<_, i64>(0))?)
}

/// Copies the rows of a file, so many a commit.
async fn copy_in(audit: &Session, path: &Path, rows_per_commit: u64) -> Result<()> {
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut header = [0; COPY_HEADER_BYTES];
    file.read_exact(&mut header)?;
    let copy = format!("COPY public.events ({EVENT_COLUMNS}) FROM STDIN (FORMAT binary)");
    let mut is_over = false;
    while !is_over {
        let sink = audit.client.copy_in(&copy).await?;
        let mut sink = pin!(sink);
        let mut chunk = BytesMut::from(&header[..]);
        for _ in 0..rows_per_commit {
            is_over = !read_row(&mut file, &mut chunk)?;
            if is_over {
                break;
            }
            if chunk.len() >= CHUNK_BYTES {
                sink.send(chunk.split().freeze()).await?;
            }
        }
        chunk.extend_from_slice(&COPY_END);
        sink.send(Bytes::from(chunk)).await?;
        sink.finish().await?;
    }
    Ok(())
}

/// The next row as it stands; `false` at the end.
fn read_row(file: &mut impl std::io::Read, chunk: &mut BytesMut) -> Result<bool> {
    let mut fields = [0; 2];
    file.read_exact(&mut fields)?;
    if fields == COPY_END {
        return Ok(false);
    }
    chunk.extend_from_slice(&fields);
    for _ in 0..u16::from_be_bytes(fields) {
        let mut length = [0; 4];
        file.read_exact(&mut length)?;
        chunk.extend_from_slice(&length);
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(0);
        let start = chunk.len();
        chunk.resize(start + length, 0);
        file.read_exact(chunk.get_mut(start..).unwrap_or_default())?;
    }
    Ok(true)
}
