//! A private, throwaway PostgreSQL server that dies with us.
//!
//! ```text
//! us ──pipe──> sh (supervise.sh) ──> initdb, then postgres
//!                └ watcher: a line on the pipe is an order, its end is our death
//! ```
//!
//! # Why a shell in between
//! The server must not outlive us, whatever ends us: a panic, `exit`, SIGKILL. The kernel closes
//! our end of the pipe in each of these cases, so a shell that reads the other end knows. It ends
//! the server and removes the folder, and needs neither `unsafe` nor a crate for that.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::folder::Folder;
pub use super::installation::Installation;

/// The name of the socket carries a port even if no TCP port is open.
const SOCKET_PORT: u16 = 5432;
/// How long initdb, a start and an immediate end may each take on a busy machine.
const WAIT_MAX: Duration = Duration::from_secs(90);
/// How often a condition is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// So many lines of a program's log go into an error.
const LOG_LINES: usize = 12;
/// A port that was free a moment ago may be taken before the server has it.
const PORT_ATTEMPTS: u32 = 3;

const SUPERVISE: &str = include_str!("supervise.sh");

/// `fsync` is off because nothing here outlives its process; no other server may run so.
const SETTINGS: [(&str, &str); 6] = [
    ("wal_level", "logical"),
    ("fsync", "off"),
    ("max_replication_slots", "64"),
    ("max_wal_senders", "64"),
    ("max_prepared_transactions", "10"),
    ("track_commit_timestamp", "on"),
];

/// What can go wrong with a throwaway server. The messages carry the log of the program at fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    #[error("no PostgreSQL server programs (initdb, postgres) were found\n{choices}")]
    NotFound { choices: String },
    #[error("`{}` holds no `{program}`", bindir.display())]
    Incomplete { bindir: PathBuf, program: &'static str },
    #[error("`{} --version` said `{said}`, which names no version", program.display())]
    Version { program: PathBuf, said: String },
    #[error("cannot run `{}`", program.display())]
    Spawn { program: PathBuf, source: io::Error },
    #[error("cannot {action} `{}`", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody`")]
    NoUser,
    #[error("{program} ended with {status}; the end of its log:\n{log}")]
    Failed { program: &'static str, status: ExitStatus, log: String },
    #[error("{program} did not {what} within {seconds} s; the end of its log:\n{log}")]
    Timeout { program: &'static str, what: &'static str, seconds: u64, log: String },
}

/// What a server may have beyond the ordinary.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Listens on a random port of 127.0.0.1 too.
    pub tcp: bool,
    /// Lines of `pg_hba.conf` that come before the ones that trust everybody, so that they win.
    pub hba: Option<String>,
    /// Settings as in `postgres -c name=value`; they win over ours.
    pub settings: Vec<(String, String)>,
    /// Variables of the server's environment.
    pub environment: Vec<(String, String)>,
}

/// How a server is told to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shutdown {
    /// Clients are cut off, then a checkpoint is written; after 30 s it becomes `Immediate`.
    Fast,
    /// As a crash: the next start recovers from the WAL.
    Immediate,
}

/// A running server that dies with us, and its folder with it.
#[derive(Debug)]
pub struct Cluster {
    installation: Installation,
    options: Options,
    port: u16,
    /// The shell over the server; `None` while the server is stopped.
    supervisor: Option<Child>,
    folder: Folder,
}

impl Cluster {
    /// Makes and starts a server with these settings, and waits until it answers.
    pub fn start(
        installation: &Installation,
        settings: &[(&str, &str)],
    ) -> Result<Self, ClusterError> {
        let owned = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        let settings = settings.iter().map(owned).collect();
        Self::start_with(installation, &Options { settings, ..Options::default() })
    }

    /// As `start`, with everything that can be asked for.
    pub fn start_with(
        installation: &Installation,
        options: &Options,
    ) -> Result<Self, ClusterError> {
        let mut cluster = Self {
            installation: installation.clone(),
            options: options.clone(),
            port: SOCKET_PORT,
            supervisor: None,
            folder: Folder::make()?,
        };
        cluster.initdb()?;
        if !options.tcp {
            cluster.start_server()?;
            return Ok(cluster);
        }
        let mut attempt = 1;
        loop {
            cluster.port = free_port()?;
            match cluster.start_server() {
                Err(ClusterError::Failed { .. }) if attempt < PORT_ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
                Ok(()) => return Ok(cluster),
            }
        }
    }

    /// The programs that this server runs with.
    #[must_use]
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The folder of the Unix socket: `host` in a connection string.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        self.folder.path()
    }

    /// The data folder, with `postmaster.pid` while the server runs.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The port: in the socket's name, and on 127.0.0.1 if TCP was asked for.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the next start of the server has.
    pub fn options_mut(&mut self) -> &mut Options {
        &mut self.options
    }

    /// A connection string over the socket, as keywords and values.
    #[must_use]
    pub fn dsn(&self, dbname: &str, user: &str) -> String {
        self.connection_string(&self.socket_dir().to_string_lossy(), dbname, user)
    }

    /// A connection string over TCP; `None` unless TCP was asked for.
    #[must_use]
    pub fn tcp_dsn(&self, dbname: &str, user: &str) -> Option<String> {
        self.options.tcp.then(|| self.connection_string("127.0.0.1", dbname, user))
    }

    /// Starts the stopped or crashed server on the same data and port; does nothing while it runs.
    pub fn start_server(&mut self) -> Result<(), ClusterError> {
        if self.supervisor.is_some() {
            if !self.exit_file().exists() {
                return Ok(());
            }
            self.end("postgres", Shutdown::Immediate)?;
        }
        self.supervise("postgres", &self.server_arguments())?;
        let socket = self.socket_dir().join(format!(".s.PGSQL.{}", self.port));
        let exit = self.exit_file();
        let answered = poll(|| answers(&socket) || exit.exists());
        // A server that has ended may have answered before.
        if exit.exists() {
            let status = self.end("postgres", Shutdown::Immediate)?;
            return Err(ClusterError::Failed { program: "postgres", status, log: self.log_end() });
        }
        if answered { Ok(()) } else { Err(self.timeout("postgres", "answer")) }
    }

    /// Ends the server and waits until it is gone; data, folder and port stay.
    pub fn stop_server(&mut self, mode: Shutdown) -> Result<(), ClusterError> {
        if self.supervisor.is_some() {
            self.end("postgres", mode)?;
        }
        Ok(())
    }

    /// Ends the server in order, waits until it is gone, and removes the folder.
    pub fn stop(mut self) -> Result<(), ClusterError> {
        self.stop_server(Shutdown::Fast)
    }

    fn initdb(&mut self) -> Result<(), ClusterError> {
        let data = self.data_dir();
        let mut arguments: Vec<String> =
            ["-A", "trust", "-U", "postgres", "--no-sync", "--locale=C", "-E", "UTF8", "-D"]
                .map(str::to_owned)
                .to_vec();
        arguments.push(data.to_string_lossy().into_owned());
        self.supervise("initdb", &arguments)?;
        let exit = self.exit_file();
        if !poll(|| exit.exists()) {
            return Err(self.timeout("initdb", "end"));
        }
        let status = self.end("initdb", Shutdown::Immediate)?;
        if !status.success() {
            return Err(ClusterError::Failed { program: "initdb", status, log: self.log_end() });
        }
        if let Some(first) = &self.options.hba {
            let path = data.join("pg_hba.conf");
            let rest = fs::read_to_string(&path).map_err(io_error("read", &path))?;
            fs::write(&path, format!("{first}\n{rest}")).map_err(io_error("write", &path))?;
        }
        Ok(())
    }

    fn server_arguments(&self) -> Vec<String> {
        let mut arguments = vec!["-D".to_owned(), self.data_dir().to_string_lossy().into_owned()];
        let mut set = |name: &str, value: &str| {
            arguments.extend(["-c".to_owned(), format!("{name}={value}")]);
        };
        for (name, value) in SETTINGS {
            set(name, value);
        }
        set("listen_addresses", if self.options.tcp { "127.0.0.1" } else { "" });
        set("port", &self.port.to_string());
        set("unix_socket_directories", &self.socket_dir().to_string_lossy());
        for (name, value) in &self.options.settings {
            set(name, value);
        }
        arguments
    }

    /// Starts a program of the installation under the shell, as the user that the server has.
    fn supervise(
        &mut self,
        program: &'static str,
        arguments: &[String],
    ) -> Result<(), ClusterError> {
        let exit = self.exit_file();
        if exit.exists() {
            fs::remove_file(&exit).map_err(io_error("remove", &exit))?;
        }
        let path = self.installation.bindir.join(program);
        let mut shell = command("sh");
        shell.args(["-c", SUPERVISE, "sh"]).arg(self.folder.path()).arg(&path).args(arguments);
        // The folder, because ours may be closed to the server's user; a process group, so that
        // Ctrl-C on a terminal reaches us alone; the locale, so that the log is in English.
        shell.current_dir(self.folder.path()).process_group(0).env("LC_ALL", "C");
        shell.envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        // It prints nothing; as its standard output the lock is its own for as long as it lives.
        let lock = self.folder.share_lock()?;
        shell.stdin(Stdio::piped()).stdout(lock).stderr(Stdio::null());
        if let Some(user) = self.folder.user() {
            shell.uid(user.uid).gid(user.gid);
        }
        let not_run = |source| ClusterError::Spawn { program: "sh".into(), source };
        self.supervisor = Some(shell.spawn().map_err(not_run)?);
        Ok(())
    }

    /// Gives the shell its order and waits for its end; the status is the program's.
    fn end(&mut self, program: &'static str, mode: Shutdown) -> Result<ExitStatus, ClusterError> {
        let order: &[u8] = match mode {
            Shutdown::Fast => b"fast\n",
            Shutdown::Immediate => b"immediate\n",
        };
        let folder = self.folder.path().to_owned();
        let Some(child) = &mut self.supervisor else {
            return Ok(ExitStatus::default());
        };
        if let Some(pipe) = &mut child.stdin {
            pipe.write_all(order).map_err(io_error("end the server in", &folder))?;
        }
        let mut ended = None;
        poll(|| {
            ended = child.try_wait().transpose();
            ended.is_some()
        });
        let Some(ended) = ended else {
            return Err(self.timeout(program, "end"));
        };
        self.supervisor = None;
        ended.map_err(io_error("wait for the server in", &folder))
    }

    fn connection_string(&self, host: &str, dbname: &str, user: &str) -> String {
        let quote = |value: &str| format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"));
        let (host, user, dbname) = (quote(host), quote(user), quote(dbname));
        format!("host={host} port={} user={user} dbname={dbname}", self.port)
    }

    fn exit_file(&self) -> PathBuf {
        self.folder.path().join("exit")
    }

    fn log_end(&self) -> String {
        let path = self.folder.path().join("log");
        let Ok(log) = fs::read(&path) else {
            return format!("({} cannot be read)", path.display());
        };
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().rev().take(LOG_LINES).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn timeout(&self, program: &'static str, what: &'static str) -> ClusterError {
        ClusterError::Timeout { program, what, seconds: WAIT_MAX.as_secs(), log: self.log_end() }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut child) = self.supervisor.take() {
            drop(child.stdin.take());
            // The shell removes the folder; `Folder` does it if the server was stopped before.
            poll(|| !matches!(child.try_wait(), Ok(None)));
        }
    }
}

/// Runs `ready` until it says yes; false after `WAIT_MAX`.
#[expect(clippy::disallowed_methods, reason = "the one place that waits for a condition")]
fn poll(mut ready: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    while !ready() {
        if started.elapsed() > WAIT_MAX {
            return false;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    true
}

#[expect(clippy::disallowed_methods, reason = "this is where programs are started")]
pub(super) fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

pub(super) fn io_error(
    action: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> ClusterError {
    let path = path.to_owned();
    move |source| ClusterError::Io { action, path, source }
}

/// Whether a server takes clients on this socket. A refusal is an answer too; that it starts up
/// or shuts down (57P03) is not.
fn answers(socket: &Path) -> bool {
    // StartupMessage of protocol 3.0 (41 bytes), then Terminate, which ends every dialogue.
    const HELLO: &[u8] = b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0X\0\0\0\x04";
    let dialogue = || -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(HELLO)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    dialogue().is_ok_and(|answer| {
        matches!(answer.first(), Some(b'R' | b'E')) && !answer.windows(5).any(|w| w == b"57P03")
    })
}

fn free_port() -> Result<u16, ClusterError> {
    let port = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr().map(|a| a.port());
    port().map_err(io_error("find a free port on", Path::new("127.0.0.1")))
}

#[cfg(test)]
mod tests {
    use super::super::folder::remove_abandoned;
    use super::*;
    use tokio::task::JoinSet;
    use tokio_postgres::{NoTls, SimpleQueryMessage};

    /// In the environment of a test's second process: where it writes its folder's name.
    const FOLDER_REPORT: &str = "PORTAL_AUDIT_TEST_FOLDER_REPORT";

    fn installation() -> Installation {
        let explicit = std::env::var_os("PORTAL_AUDIT_PG_BINDIR").map(PathBuf::from);
        Installation::find(explicit.as_deref()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The first column of the last row that these statements give.
    fn query(dsn: &str, sql: &str) -> Result<String, tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(dsn, NoTls).await?;
            let mut tasks = JoinSet::new();
            tasks.spawn(connection);
            let messages = client.simple_query(sql).await?;
            let last = messages.iter().rev().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            });
            Ok(last.unwrap_or_default())
        })
    }

    fn postmaster_pid(folder: &Path) -> String {
        let file = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap();
        file.lines().next().unwrap().to_owned()
    }

    #[test]
    fn a_server_answers_decodes_and_leaves_nothing() {
        let cluster = Cluster::start(&installation(), &[("work_mem", "5MB")]).unwrap();
        let dsn = cluster.dsn("postgres", "postgres");
        let (folder, pid) = (cluster.socket_dir().to_owned(), postmaster_pid(cluster.socket_dir()));
        let version = query(&dsn, "SHOW server_version").unwrap();
        assert!(version.starts_with(&cluster.installation().version), "{version}");
        assert_eq!(query(&dsn, "SHOW work_mem").unwrap(), "5MB");
        assert_eq!(query(&dsn, "SHOW listen_addresses").unwrap(), "");
        let slot = "SELECT slot_name FROM pg_create_logical_replication_slot('s', 'pgoutput')";
        assert_eq!(query(&dsn, slot).unwrap(), "s");
        println!("{} {version}", query(&dsn, "SELECT version()").unwrap());
        cluster.stop().unwrap();
        assert!(!folder.exists());
        assert!(!Path::new("/proc").join(pid).exists());
    }

    #[test]
    fn a_restart_keeps_data_and_port() {
        let hba = Some("host all reader 127.0.0.1/32 reject".to_owned());
        let options = Options { tcp: true, hba, ..Options::default() };
        let mut cluster = Cluster::start_with(&installation(), &options).unwrap();
        let dsn = cluster.tcp_dsn("postgres", "postgres").unwrap();
        query(&dsn, "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)").unwrap();
        cluster.stop_server(Shutdown::Fast).unwrap();
        query(&dsn, "SELECT 1").unwrap_err();
        cluster.start_server().unwrap();
        query(&dsn, "INSERT INTO kept VALUES (2)").unwrap();
        cluster.stop_server(Shutdown::Immediate).unwrap();
        cluster.start_server().unwrap();
        query(&dsn, "INSERT INTO kept VALUES (3)").unwrap();
        let pid = postmaster_pid(cluster.socket_dir());
        assert!(command("kill").args(["-KILL", &pid]).status().unwrap().success());
        assert!(poll(|| cluster.exit_file().exists()));
        // The orphans of a killed server hold its memory until they notice.
        assert!(poll(|| cluster.start_server().is_ok()));
        assert_eq!(query(&dsn, "SELECT count(*) FROM kept").unwrap(), "3");
        query(&cluster.tcp_dsn("postgres", "reader").unwrap(), "SELECT 1").unwrap_err();
    }

    #[test]
    fn a_server_that_cannot_start_shows_its_log() {
        let error = Cluster::start(&installation(), &[("wal_level", "sometimes")]).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("postgres ended with exit status: 1"), "{text}");
        assert!(text.contains("invalid value for parameter \"wal_level\""), "{text}");
    }

    /// Both halves of the test: called again in a second process, it is the owner to be killed.
    #[test]
    fn a_killed_owner_leaves_nothing() {
        if let Some(report) = std::env::var_os(FOLDER_REPORT) {
            let cluster = Cluster::start(&installation(), &[]).unwrap();
            let folder = cluster.socket_dir().to_str().unwrap();
            fs::write(report, format!("{folder}\n")).unwrap();
            poll(|| false);
            return;
        }
        let reports = tempfile::tempdir().unwrap();
        let report = reports.path().join("folder");
        let this_test = "demo::cluster::tests::a_killed_owner_leaves_nothing";
        let mut owner = command(std::env::current_exe().unwrap())
            .args([this_test, "--exact"])
            .env(FOLDER_REPORT, &report)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let reported = || fs::read_to_string(&report).is_ok_and(|text| text.ends_with('\n'));
        assert!(poll(reported));
        let folder = PathBuf::from(fs::read_to_string(&report).unwrap().trim_end());
        let process = Path::new("/proc").join(postmaster_pid(&folder));
        assert_eq!(remove_abandoned(folder.parent().unwrap()), 0, "the owner lives");
        assert!(folder.exists());
        owner.kill().unwrap();
        owner.wait().unwrap();
        assert!(poll(|| !folder.exists() && !process.exists()));
    }
}
