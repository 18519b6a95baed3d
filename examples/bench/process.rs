//! Programs that are measured: their time, their CPU and their memory, as `/proc` has them.

use crate::{Result, stage::Stage};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};
use tokio::time::{Duration, sleep};

/// `/proc` counts CPU in these; `getconf CLK_TCK` says 100 on every Linux of today.
const TICKS_PER_SECOND: f64 = 100.0;
const POLL: Duration = Duration::from_millis(2);

/// A child that ends with us.
pub(crate) struct Program {
    child: Child,
    /// As it was when it was last looked at.
    pub(crate) usage: Usage,
}

/// What a process used so far.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_rss_bytes: u64,
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Program {
    #[expect(clippy::disallowed_methods, reason = "a benchmark runs the programs that it measures")]
    pub(crate) fn spawn(program: &Path, arguments: &[&str]) -> Result<Self> {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .env("PORTAL_AUDIT_LOG", "error")
            .spawn()?;
        Ok(Self { child, usage: Usage::default() })
    }

    /// Looks at what it used; `false` once it has ended.
    pub(crate) fn look(&mut self) -> Result<bool> {
        if let Some(usage) = usage(self.child.id()) {
            self.usage = usage;
        }
        Ok(self.child.try_wait()?.is_none())
    }

    /// Until it ends by itself; what it printed.
    pub(crate) async fn end(&mut self) -> Result<String> {
        while self.look()? {
            sleep(POLL).await;
        }
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!("a measured program ended with {status}").into());
        }
        let mut text = String::new();
        if let Some(output) = &mut self.child.stdout {
            std::io::Read::read_to_string(output, &mut text)?;
        }
        Ok(text)
    }

    /// SIGTERM, then until it has ended.
    #[expect(clippy::disallowed_methods, reason = "a benchmark ends the programs that it measures")]
    pub(crate) async fn stop(mut self) -> Result<Usage> {
        let id = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status()?;
        while self.look()? {
            sleep(POLL).await;
        }
        Ok(self.usage)
    }
}

/// The sidecar, of the same build.
pub(crate) fn sidecar(settings: &Path) -> Result<Program> {
    Program::spawn(&built()?, &["run", "--config", &settings.to_string_lossy()])
}

/// What a program prints until it ends.
#[expect(clippy::disallowed_methods, reason = "a benchmark runs the programs that it measures")]
pub(crate) fn said(program: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(program).args(arguments).env("PORTAL_AUDIT_LOG", "error").output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("it ended with {}: {error}", output.status).into());
    }
    Ok(output.stdout)
}

/// The program, of the same build.
pub(crate) fn built() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let program = own.ancestors().nth(2).ok_or("no folder of programs")?.join("portal-audit");
    if !program.exists() {
        return Err(format!("{} is not built", program.display()).into());
    }
    Ok(program)
}

/// This program, at one of its own parts.
pub(crate) fn own(arguments: &[&str]) -> Result<Program> {
    Program::spawn(&std::env::current_exe()?, arguments)
}

/// PostgreSQL's own client of a slot, to nothing, up to a position.
pub(crate) fn pg_recvlogical(stage: &Stage, slot: &str, end: Option<&str>) -> Result<Program> {
    let dsn = stage.portal.tcp_dsn(crate::stage::PORTAL, "portal_audit").ok_or("no TCP")?;
    let publication = format!("publication_names={}", crate::stage::PUBLICATION);
    let mut arguments = vec!["-d", &dsn, "--slot", slot, "--start", "--no-loop", "-f", "/dev/null"];
    arguments.extend(["-o", "proto_version=1", "-o", &publication]);
    if let Some(end) = end {
        arguments.extend(["--endpos", end]);
    }
    Program::spawn(&stage.pg_recvlogical, &arguments)
}

/// What a process has used, with children that have ended.
fn usage(pid: u32) -> Option<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = peak.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(Usage { cpu_seconds: cpu_seconds(pid, false)?, peak_rss_bytes: kib * 1024 })
}

/// CPU that a process took, in user and system mode; of its ended children too, if asked for (proc(5), fields 14 to 17).
pub(crate) fn cpu_seconds(pid: u32, with_children: bool) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let ticks = |field: usize| rest.split(' ').nth(field - 3)?.parse::<f64>().ok();
    let mut all = ticks(14)? + ticks(15)?;
    if with_children {
        all += ticks(16)? + ticks(17)?;
    }
    Some(all / TICKS_PER_SECOND)
}

/// CPU of a whole cluster: its postmaster, that one's children, and those that have ended.
pub(crate) fn cluster_cpu_seconds(data: &Path) -> Result<f64> {
    let pid_file = fs::read_to_string(data.join("postmaster.pid"))?;
    let postmaster: u32 =
        pid_file.lines().next().ok_or("an empty postmaster.pid")?.trim().parse()?;
    let mut all = cpu_seconds(postmaster, true).ok_or("no postmaster")?;
    for (pid, parent) in processes()? {
        if parent == postmaster {
            all += cpu_seconds(pid, false).unwrap_or_default();
        }
    }
    Ok(all)
}

/// Every process with its parent.
fn processes() -> Result<HashMap<u32, u32>> {
    let mut found = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let parent =
            stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        found.extend(parent.map(|parent: u32| (pid, parent)));
    }
    Ok(found)
}

/// What a measurement takes: time, and how much of the machine was given to others meanwhile.
pub(crate) struct Meter {
    began: Instant,
    stolen: f64,
    whole: f64,
}

impl Meter {
    pub(crate) fn begin() -> Result<Self> {
        let (stolen, whole) = machine()?;
        Ok(Self { began: Instant::now(), stolen, whole })
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// The share of the machine's time that its host gave to others.
    pub(crate) fn stolen(&self) -> Result<f64> {
        let (stolen, whole) = machine()?;
        Ok((stolen - self.stolen) / (whole - self.whole).max(1.0))
    }
}

/// Ticks that were stolen, and all ticks of all processors (proc(5), `/proc/stat`).
fn machine() -> Result<(f64, f64)> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line.split_whitespace().skip(1).flat_map(str::parse).collect();
    let stolen = ticks.get(7).copied().unwrap_or_default();
    Ok((stolen, ticks.iter().take(8).sum()))
}
