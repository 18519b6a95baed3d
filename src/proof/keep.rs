//! The sidecar's part: a checkpoint at every interval in which events were added, and its copies outside the database.
//!
//! # Copies
//! The file gets every checkpoint that it does not have, whichever sidecar made it, as long as our key signed it; the program gets those that came since the start. A copy that fails is tried again at the next interval. Before anything is signed the trees must hold what the last copy says: a database that was taken back is not signed anew in silence.

use super::{
    ProofError,
    checkpoint::{self, Outcome},
};
use crate::{
    chain::chain,
    config::{self, ProofSettings},
    connect::{self, Session},
    conninfo::ConnInfo,
    metrics::Metrics,
    note::{self, Checkpoint, SigningKey, is_signed},
};
use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use tokio::{io::AsyncWriteExt as _, time};

/// From the end of a file of copies; the last note is in it.
const TAIL_BYTES: u64 = 64 << 10;

/// What was done so far.
#[derive(Debug, Default)]
struct Kept {
    /// The last copy, or the last checkpoint that was made here.
    last: Option<Checkpoint>,
    in_file: u64,
    /// `None`: the program gets what comes from now on.
    by_command: Option<u64>,
}

/// Where checkpoints are held: values of the label `place`.
const DATABASE: &str = "database";
const FILE: &str = "file";
const COMMAND: &str = "command";

/// The places that these settings want checkpoints at.
#[must_use]
pub fn places(settings: Option<&ProofSettings>) -> Vec<&'static str> {
    let Some(settings) = settings else { return Vec::new() };
    let file = settings.copy_to_file.as_ref().map(|_| FILE);
    let command = settings.copy_to_command.first().map(|_| COMMAND);
    [Some(DATABASE), file, command].into_iter().flatten().collect()
}

/// Makes checkpoints for ever. What fails is logged and tried again, and its age grows.
pub async fn keep(audit: ConnInfo, settings: ProofSettings, metrics: Arc<Metrics>) {
    let mut kept = Kept::default();
    if let Some(path) = &settings.copy_to_file {
        match last_copy(path) {
            Ok(last) => {
                kept.in_file = last.as_ref().map_or(0, |last| last.number);
                kept.last = last;
            }
            Err(error) => tracing::error!(error = chain(&error), "the copies are not read"),
        }
    }
    let mut ticks = time::interval(Duration::from_secs(settings.interval_seconds));
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let done = match sign(&audit, &settings, &mut kept).await {
            Ok(signed) => signed,
            Err(error) => {
                tracing::error!(error = chain(&error), "no checkpoint was made");
                continue;
            }
        };
        let Signed { session, key, is_whole } = done;
        if is_whole {
            metrics.is_covered(DATABASE);
        }
        // One place that cannot be reached does not keep copies from the other.
        let copies = [
            (FILE, copy_to_file(&session, &key, &settings, &mut kept).await),
            (COMMAND, copy_to_command(&session, &key, &settings, &mut kept).await),
        ];
        for (place, copied) in copies {
            match copied {
                Ok(true) if is_whole => metrics.is_covered(place),
                Ok(_) => {}
                Err(error) => tracing::error!(
                    error = chain(&error),
                    place,
                    "a checkpoint was not copied: until it is, nothing outside the database tells whether that was taken back"
                ),
            }
        }
    }
}

/// A session after a checkpoint.
struct Signed {
    session: Session,
    key: SigningKey,
    /// Every event is signed.
    is_whole: bool,
}

async fn sign(
    audit: &ConnInfo,
    settings: &ProofSettings,
    kept: &mut Kept,
) -> Result<Signed, ProofError> {
    let key = config::signing_key(&settings.key_file).map_err(ProofError::Key)?;
    let mut session = connect::connect(audit, "proof").await.map_err(ProofError::Connect)?;
    if kept.by_command.is_none() {
        let query = "SELECT coalesce(max(number), 0) FROM portal_audit.checkpoints";
        let row = session.client.query_one(query, &[]).await.map_err(ProofError::query)?;
        kept.by_command = Some(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0));
    }
    let is_whole = match checkpoint::make(&mut session, &key, kept.last.as_ref()).await? {
        Outcome::Made(made) => {
            let checkpoint::Made { number, leaves, added, .. } = made;
            tracing::info!(number, leaves, added, "checkpoint");
            kept.last = Some(Checkpoint::parse(&made.note)?);
            true
        }
        Outcome::Same => true,
        Outcome::Busy => false,
    };
    Ok(Signed { session, key, is_whole })
}

/// Gives whether there is such a place.
async fn copy_to_file(
    session: &Session,
    key: &SigningKey,
    settings: &ProofSettings,
    kept: &mut Kept,
) -> Result<bool, ProofError> {
    let Some(path) = &settings.copy_to_file else { return Ok(false) };
    for (number, note) in signed(session, key, kept.in_file).await? {
        append(path, &note)?;
        kept.in_file = number;
    }
    Ok(true)
}

/// As [`copy_to_file`].
async fn copy_to_command(
    session: &Session,
    key: &SigningKey,
    settings: &ProofSettings,
    kept: &mut Kept,
) -> Result<bool, ProofError> {
    let [program, arguments @ ..] = settings.copy_to_command.as_slice() else { return Ok(false) };
    let after = kept.by_command.unwrap_or(0);
    for (number, note) in signed(session, key, after).await? {
        let wait = Duration::from_secs(settings.copy_timeout_seconds);
        give(program, arguments, &note, wait).await?;
        kept.by_command = Some(number);
    }
    Ok(true)
}

/// Checkpoints after one, as far as our key signed them.
async fn signed(
    session: &Session,
    key: &SigningKey,
    after: u64,
) -> Result<Vec<(u64, String)>, ProofError> {
    let query = "SELECT number, note FROM portal_audit.checkpoints WHERE number > $1 ORDER BY number LIMIT 1000";
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let rows = session.client.query(query, &[&after]).await.map_err(ProofError::query)?;
    let notes =
        rows.iter().map(|row| (u64::try_from(row.get::<_, i64>(0)).unwrap_or(0), row.get(1)));
    let keys = [key.public().clone()];
    Ok(notes.filter(|(_, note): &(_, String)| is_signed(note, &keys)).collect())
}

/// The last checkpoint of a file of copies.
fn last_copy(path: &Path) -> Result<Option<Checkpoint>, ProofError> {
    let read = |source| ProofError::Read { path: path.to_owned(), source };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(read(error)),
    };
    let length = file.metadata().map_err(read)?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).map_err(read)?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).map_err(read)?;
    let notes = note::notes(&String::from_utf8_lossy(&tail));
    Ok(notes.iter().rev().find_map(|note| Checkpoint::parse(note).ok()))
}

fn append(path: &Path, note: &str) -> Result<(), ProofError> {
    let write = |source| ProofError::Write { path: path.to_owned(), source };
    let mut options = File::options();
    let mut file = options.append(true).create(true).mode(0o644).open(path).map_err(write)?;
    file.write_all(note.as_bytes()).and_then(|()| file.sync_all()).map_err(write)
}

/// Gives a note to a program on its stdin; it must end with 0 in time.
async fn give(
    program: &str,
    arguments: &[String],
    note: &str,
    wait: Duration,
) -> Result<(), ProofError> {
    let fault = |problem: String| ProofError::Command { program: program.to_owned(), problem };
    let run = async {
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(note.as_bytes()).await?;
        }
        child.wait().await
    };
    match time::timeout(wait, run).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(fault(status.to_string())),
        Ok(Err(error)) => Err(fault(error.to_string())),
        Err(_late) => Err(fault(format!("it ran for more than {} s", wait.as_secs()))),
    }
}
