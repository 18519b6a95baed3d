//! A disk of a few megabytes that a test can fill, and what tests need of the machine.

use std::{
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

/// A file system in memory, gone when dropped.
pub struct Tmpfs {
    pub path: PathBuf,
}

/// Runs a program; whether it is there and succeeds.
#[expect(clippy::disallowed_methods, reason = "this test is about the machine")]
pub fn does(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

impl Tmpfs {
    /// Mounts one at `path`, for whoever owns `like`. `None`, and a line that says so, without root.
    pub fn mount(path: &Path, megabytes: u32, like: &Path) -> Option<Self> {
        let owner = std::fs::metadata(like).unwrap();
        std::fs::create_dir_all(path).unwrap();
        let (place, size) = (path.to_str().unwrap(), format!("size={megabytes}m"));
        if !does("mount", &["-t", "tmpfs", "-o", &size, "portal-audit-test", place]) {
            println!("not run: this user may not mount a tmpfs");
            return None;
        }
        chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
        Some(Self { path: path.to_owned() })
    }

    /// Leaves no byte free.
    pub fn fill(&self) {
        let filler = std::fs::File::create(self.filler()).unwrap();
        let mut filler = std::io::BufWriter::new(filler);
        while std::io::Write::write_all(&mut filler, &[0; 4096]).is_ok() {}
        drop(filler.into_parts());
    }

    /// Makes room again.
    pub fn empty(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        does("umount", &["-l", self.path.to_str().unwrap()]);
    }
}
