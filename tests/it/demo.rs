//! The demo as a newcomer starts it: the program, a real server, and nothing left behind.

use crate::support::{
    cluster, installation, open,
    program::{command, signal},
    wait_for,
};
use portal_audit::{chain::chain, demo::portal::script};
use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

fn demo(arguments: &[&str]) -> std::process::Command {
    let mut command = command(&["demo"]);
    command.args(arguments).arg("--pg-bindir").arg(installation().bindir);
    command
}

/// The story gives each event type of the mapping, each event once, and the program ends by itself.
#[test]
fn once() {
    let output = demo(&["--once", "--format", "json"]).output().unwrap();
    let (out, log) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{log}\n{out}");
    assert_eq!(log, "", "nothing beside the result");
    let outcome: serde_json::Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!((&outcome["lost"], &outcome["doubled"]), (&0.into(), &0.into()), "{outcome}");
    let by_type = outcome["by_type"].as_object().unwrap();
    let events: u64 = by_type.values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(outcome["events"], events);
    assert!(outcome["changes"].as_u64().unwrap() > 90, "{outcome}");
    assert!(outcome["backfilled"].as_u64().unwrap() > 100, "{outcome}");
    let mapping = include_str!("../../deploy/mapping/merge-reference.toml");
    let types = mapping.lines().filter_map(|line| line.strip_prefix("type "));
    for event_type in types.map(|rest| rest.trim_start_matches([' ', '=']).trim_matches('"')) {
        assert!(by_type.contains_key(event_type), "the story has no {event_type}");
    }
    let version = outcome["server_version"].as_str().unwrap();
    assert_eq!(version, installation().version);
}

/// A running demo, and the folder of its server.
struct Live {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    folder: PathBuf,
}

impl Live {
    fn start() -> Self {
        let mut child = demo(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut words = String::new();
        BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut words).unwrap();
        let (_, folder) = words.trim().rsplit_once(" in ").unwrap_or_else(|| panic!("{words}"));
        let folder = PathBuf::from(folder);
        assert!(folder.is_dir(), "{}", folder.display());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, folder }
    }

    /// Reads until events arrive.
    fn read(&mut self, count: usize) {
        for line in self.lines.by_ref().take(count) {
            let line = line.unwrap();
            // Time, type, sentence.
            let words: Vec<&str> = line.split_whitespace().collect();
            assert!(words.len() > 3 && words[1].contains('_'), "{line}");
        }
    }
}

async fn leaves_nothing(folder: &Path) {
    let pid = std::fs::read_to_string(folder.join("data/postmaster.pid"));
    wait_for("the folder to go", async || !folder.exists()).await;
    if let Some(pid) = pid.ok().as_deref().and_then(|file| file.lines().next()) {
        let process = Path::new("/proc").join(pid);
        wait_for("the server to go", async || !process.exists()).await;
    }
}

#[tokio::test]
async fn ctrl_c_leaves_nothing() {
    let mut live = Live::start();
    live.read(3);
    let folder = live.folder.clone();
    signal(live.child.id(), "INT");
    // Its last lines are to be read, or it would wait for us.
    drop(live.lines);
    let status = live.child.wait().unwrap();
    assert!(status.success(), "{status}");
    leaves_nothing(&folder).await;
}

/// The identity server is followed beside the portal: logins and failures come by replication, and each is there once.
#[tokio::test]
async fn people_sign_in_while_one_looks() {
    let mut live = Live::start();
    let mut awaited = vec![" login_succeeded ", "✗ login_failed "];
    for line in live.lines.by_ref() {
        let line = line.unwrap();
        awaited.retain(|said| !line.contains(said));
        if awaited.is_empty() {
            break;
        }
    }
    signal(live.child.id(), "INT");
    let rest = std::thread::spawn(move || live.lines.count());
    let mut said = String::new();
    std::io::Read::read_to_string(live.child.stderr.as_mut().unwrap(), &mut said).unwrap();
    assert!(live.child.wait().unwrap().success() && awaited.is_empty(), "{awaited:?} {said}");
    assert!(said.contains("0 lost, 0 doubled"), "{said}");
    rest.join().unwrap();
    leaves_nothing(&live.folder).await;
}

#[tokio::test]
async fn sigkill_leaves_nothing() {
    let mut live = Live::start();
    live.read(1);
    let folder = live.folder.clone();
    live.child.kill().unwrap();
    live.child.wait().unwrap();
    leaves_nothing(&folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_is_told_once() {
    let session = open(cluster(), "postgres").await;
    let error = script(&session, "set up nothing", "SELECT 1 / 0").await.unwrap_err();
    assert_eq!(chain(&error), "cannot set up nothing: 22012 division by zero");
}
