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
        let mut command = command(&["run", "--config", settings.to_str().unwrap()]);
        let log = std::fs::File::create(log).unwrap();
        Self(command.env("PORTAL_AUDIT_LOG", "trace").stderr(log).spawn().unwrap())
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

/// Sends a signal; std can only send SIGKILL.
#[expect(clippy::disallowed_methods, reason = "this test is about the process")]
pub fn signal(pid: u32, name: &str) {
    let script = format!("kill -{name} {pid}");
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
}
