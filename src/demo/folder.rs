//! The private folder of one throwaway server.
//!
//! # Why a lock
//! The shell over the server removes the folder when we die. Should it be killed as well, the
//! folder stays behind. So each folder holds a file that we and the shell keep locked, and the next
//! start removes the folders whose lock is free. A pid would not do: pids are used again, and another
//! container's mean nothing here. A server whose folder is gone ends by itself within a minute.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::cluster::{ClusterError, io_error};

/// The start of our folders' names; `supervise.sh` checks it before it removes one.
const PREFIX: &str = "portal-audit-";
/// So many random characters follow.
const RANDOM_BYTES: usize = 6;
/// The lock file of a folder.
const LOCK: &str = "owner";
/// A socket's path has 107 bytes at most, of which `/.s.PGSQL.65535` takes 15.
const SOCKET_FOLDER_BYTES_MAX: usize = 92;

/// A folder that is removed when it is dropped, and by the next start if it never is.
#[derive(Debug)]
pub(super) struct Folder {
    directory: TempDir,
    user: Option<User>,
    lock: File,
}

/// Whom the server runs as, and whose its folder is, if not ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Folder {
    /// A folder with its lock, short enough for a socket, after a look for abandoned ones.
    pub(super) fn make() -> Result<Self, ClusterError> {
        let user = server_user()?;
        let mut base = std::env::temp_dir();
        let path_bytes = base.as_os_str().len() + 1 + PREFIX.len() + RANDOM_BYTES;
        // The server's user does not reach a private TMPDIR of root's.
        if user.is_some() || path_bytes > SOCKET_FOLDER_BYTES_MAX {
            base = PathBuf::from("/tmp");
        }
        remove_abandoned(&base);
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .rand_bytes(RANDOM_BYTES)
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir_in(&base)
            .map_err(io_error("make a folder in", &base))?;
        let path = directory.path();
        // The file is locked before it has its name, so that nobody finds it unlocked.
        let (new, named) = (path.join("owner.new"), path.join(LOCK));
        let lock = File::create(&new).map_err(io_error("make", &new))?;
        lock.lock().map_err(io_error("lock", &new))?;
        fs::rename(&new, &named).map_err(io_error("make", &named))?;
        if let Some(user) = user {
            chown(path, Some(user.uid), Some(user.gid)).map_err(io_error("give away", path))?;
        }
        Ok(Self { directory, user, lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The lock for a process that we start: it is free when we and that process are gone.
    pub(super) fn share_lock(&self) -> Result<File, ClusterError> {
        self.lock.try_clone().map_err(io_error("share the lock of", self.path()))
    }

    pub(super) fn user(&self) -> Option<User> {
        self.user
    }
}

/// The user that we run as. A new file is ours, so its owner tells, without a system call of our
/// own.
pub(super) fn effective_uid() -> io::Result<u32> {
    Ok(tempfile::tempfile()?.metadata()?.uid())
}

/// Nobody in particular unless we are root, whom the server refuses.
fn server_user() -> Result<Option<User>, ClusterError> {
    let base = std::env::temp_dir();
    if effective_uid().map_err(io_error("make a file in", &base))? != 0 {
        return Ok(None);
    }
    let path = Path::new("/etc/passwd");
    let users = fs::read_to_string(path).map_err(io_error("read", path))?;
    let find = |name: &str| {
        users.lines().find_map(|line| {
            let mut fields = line.split(':');
            let named = fields.next() == Some(name);
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            named.then_some(User { uid, gid })
        })
    };
    find("postgres").or_else(|| find("nobody")).map(Some).ok_or(ClusterError::NoUser)
}

/// Removes the folders whose owner is dead. What we may not touch is somebody else's to clean up,
/// and no reason not to start.
pub(super) fn remove_abandoned(base: &Path) -> usize {
    let Ok(entries) = fs::read_dir(base) else { return 0 };
    let abandoned = entries.flatten().map(|entry| entry.path()).filter(|path| {
        let ours = path.file_name().and_then(OsStr::to_str);
        let lock = || File::open(path.join(LOCK)).is_ok_and(|file| file.try_lock().is_ok());
        ours.is_some_and(|name| name.starts_with(PREFIX)) && lock()
    });
    abandoned.filter(|path| fs::remove_dir_all(path).is_ok()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_whose_owner_is_gone_is_removed() {
        let base = tempfile::tempdir().unwrap();
        for name in ["portal-audit-dead", "portal-audit-alive", "portal-audit-new", "another"] {
            fs::create_dir(base.path().join(name)).unwrap();
        }
        let lock = |name: &str| File::create(base.path().join(name).join(LOCK)).unwrap();
        let (alive, _) = (lock("portal-audit-alive"), lock("portal-audit-dead"));
        lock("another");
        alive.lock().unwrap();
        assert_eq!(remove_abandoned(base.path()), 1);
        assert!(!base.path().join("portal-audit-dead").exists());
        assert!(base.path().join("portal-audit-alive").exists());
    }
}
