//! Where an export goes: a file that gets its name when it is whole, or stdout.

use super::ExportError;
use sha2::{Digest as _, Sha256};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Stdout, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A path with an end put to its name.
pub(super) fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// The file in the making.
pub(super) fn part(path: &Path) -> PathBuf {
    with_end(path, ".part")
}

enum Sink {
    File(File),
    Stdout(Stdout),
    Pieces(Pieces),
}

/// Bytes that wait until somebody takes them.
#[derive(Debug, Clone, Default)]
pub(super) struct Pieces(Arc<Mutex<Vec<u8>>>);

impl Pieces {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        // Whoever held it left whole bytes there.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.lock())
    }
}

/// Counts and hashes what passes.
pub(super) struct Output {
    sink: Sink,
    hash: Sha256,
    bytes: u64,
}

impl Output {
    pub(super) fn stdout() -> Self {
        Self { sink: Sink::Stdout(io::stdout()), hash: Sha256::new(), bytes: 0 }
    }

    pub(super) fn pieces(pieces: Pieces) -> Self {
        Self { sink: Sink::Pieces(pieces), hash: Sha256::new(), bytes: 0 }
    }

    /// Begins the part of a file. It holds what people did, so it is its owner's alone.
    pub(super) fn begin(path: &Path) -> Result<Self, ExportError> {
        let part = part(path);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part);
        match file {
            Ok(file) => Ok(Self { sink: Sink::File(file), hash: Sha256::new(), bytes: 0 }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(ExportError::PartIsThere { path: part })
            }
            Err(source) => Err(ExportError::File { path: part, source }),
        }
    }

    /// Goes on behind the first `bytes` of a part; what is behind them is cut off.
    pub(super) fn go_on(path: &Path, bytes: u64) -> Result<Self, ExportError> {
        let part = part(path);
        let open = || -> io::Result<Self> {
            let mut file = OpenOptions::new().read(true).append(true).open(&part)?;
            file.set_len(bytes)?;
            let hash = hash(&mut file, bytes)?;
            Ok(Self { sink: Sink::File(file), hash, bytes })
        };
        open().map_err(|source| ExportError::File { path: part.clone(), source })
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes the bytes durable; gives their number and their SHA-256 in hexadecimal.
    pub(super) fn finish(mut self) -> io::Result<(u64, String)> {
        self.flush()?;
        if let Sink::File(file) = &self.sink {
            file.sync_all()?;
        }
        Ok((self.bytes, hexadecimal(self.hash)))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = match &mut self.sink {
            Sink::File(file) => file.write(bytes),
            Sink::Stdout(stdout) => stdout.write(bytes),
            Sink::Pieces(pieces) => pieces.lock().write(bytes),
        }?;
        let written = bytes.get(..count).unwrap_or(bytes);
        self.hash.update(written);
        self.bytes += u64::try_from(written.len()).unwrap_or_default();
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::File(file) => file.flush(),
            Sink::Stdout(stdout) => stdout.flush(),
            Sink::Pieces(_) => Ok(()),
        }
    }
}

/// Hashes the next `bytes` of a file.
fn hash(file: &mut File, bytes: u64) -> io::Result<Sha256> {
    let mut hash = Sha256::new();
    io::copy(&mut file.take(bytes), &mut Hasher(&mut hash))?;
    Ok(hash)
}

struct Hasher<'a>(&'a mut Sha256);

impl Write for Hasher<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The SHA-256 of a file in hexadecimal, and its bytes.
pub(super) fn digest(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    Ok((bytes, hexadecimal(hash(&mut file, bytes)?)))
}

/// Gives the part its name. The folder is made durable too, or the name may be gone after a power cut.
pub(super) fn rename(path: &Path) -> io::Result<()> {
    std::fs::rename(part(path), path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
