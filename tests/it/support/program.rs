//! The program itself, as ops start it: for what only a process can show, like being killed.

use super::Portal;
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

/// The binary under test, with arguments.
#[expect(clippy::disallowed_methods, reason = "this test is about the process")]
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portal-audit"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The same with so many bytes of address space. `None`, and a line that says so, where there is no `prlimit`.
#[expect(clippy::disallowed_methods, reason = "this test is about the process")]
pub fn limited(bytes: u64, arguments: &[&str]) -> Option<Command> {
    if !Command::new("prlimit").arg("--version").output().is_ok_and(|out| out.status.success()) {
        println!("not run: there is no prlimit");
        return None;
    }
    let mut command = Command::new("prlimit");
    command.arg(format!("--as={bytes}")).arg(env!("CARGO_BIN_EXE_portal-audit"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    Some(command)
}

/// A settings file on the disk.
pub struct SettingsFile {
    _folder: tempfile::TempDir,
    pub path: PathBuf,
}

impl SettingsFile {
    pub fn new(portal: &Portal) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("portal-audit.toml");
        std::fs::write(&path, &portal.settings_text).unwrap();
        Self { _folder: folder, path }
    }
}

/// A sidecar in a process of its own.
pub struct Program(Child);

impl Program {
    /// `portal-audit run`; its log goes to the test's stderr if it fails to start.
    pub fn run(settings: &Path) -> Self {
        let arguments = ["run", "--config", settings.to_str().unwrap()];
        Self(command(&arguments).stderr(Stdio::null()).spawn().unwrap())
    }

    /// The same, passing over changes of a source that are gone.
    pub fn run_accepting(settings: &Path, source: &str) -> Self {
        let arguments = ["run", "--config", settings.to_str().unwrap(), "--accept-gap", source];
        Self(command(&arguments).stderr(Stdio::null()).spawn().unwrap())
    }

    /// The same, with every line of its log in a file.
    pub fn run_with_log(settings: &Path, log: &Path) -> Self {
        Self::run_logging(settings, "trace", log)
    }

    /// The same, with its log from this level on at the end of a file.
    pub fn run_logging(settings: &Path, level: &str, log: &Path) -> Self {
        let mut command = command(&["run", "--config", settings.to_str().unwrap()]);
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        Self(command.env("PORTAL_AUDIT_LOG", level).stderr(log).spawn().unwrap())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// The most memory that it ever held, in bytes.
    pub fn memory_peak(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// The memory that it holds now, in bytes.
    pub fn memory_now(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// A size of `/proc/PID/status`, which are in KiB. Zero once it has ended.
    fn memory(&self, size: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(size));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.map_or(0, |kib| kib.trim().parse::<u64>().unwrap() * 1024)
    }

    /// SIGTERM, and nothing more.
    pub fn ask_to_stop(&self) {
        signal(self.0.id(), "TERM");
    }

    /// The same, with the lines of a level.
    pub fn run_with_level(settings: &Path, log: &Path, level: &str) -> Self {
        Self::run_logging(settings, level, log)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// SIGKILL: no chance to clean up.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGTERM, and the exit status.
    pub fn terminate(mut self) -> ExitStatus {
        signal(self.0.id(), "TERM");
        self.0.wait().unwrap()
    }
}

impl Drop for Program {
    /// A test that fails leaves no process behind.
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Sends a signal; std can only send SIGKILL.
#[expect(clippy::disallowed_methods, reason = "this test is about the process")]
pub fn signal(pid: u32, name: &str) {
    let script = format!("kill -{name} {pid}");
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
}
