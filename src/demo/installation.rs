//! Finds PostgreSQL's server programs. `./x` looks in the same order before it offers to fetch.

use std::cmp::Reverse;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use super::cluster::{ClusterError, command, io_error};
use super::folder::effective_uid;

/// Where `./x setup` run by root puts its PostgreSQLs; everybody may read them.
const PUBLIC_CACHE: &str = "/var/cache/portal-audit/postgres";

/// Where systems install several majors side by side: a folder, what stands before the major in
/// the names of its entries; the programs are in `bin` below.
const SYSTEM_FOLDERS: [(&str, &str); 5] = [
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/opt/homebrew/opt", "postgresql@"),
    ("/usr/local/opt", "postgresql@"),
    ("/Applications/Postgres.app/Contents/Versions", ""),
];

/// A folder with the server programs of one PostgreSQL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Installation {
    /// Absolute.
    pub bindir: PathBuf,
    /// As the server says it: `15.18`, `19beta1`.
    pub version: String,
    pub major: u32,
}

impl Installation {
    /// The PostgreSQL to use: the explicit one if there is one, and then no other; else the newest
    /// of `./x setup`, else `pg_config`'s, else the system's newest, else the one on `PATH`.
    pub fn find(explicit: Option<&Path>) -> Result<Self, ClusterError> {
        if let Some(bindir) = explicit {
            return Self::at(bindir);
        }
        let mut candidates = Vec::new();
        for cache in cache_folders() {
            candidates.extend(newest_first(&[(cache.as_path(), "")]));
        }
        candidates.extend(pg_config_bindir());
        candidates.extend(newest_first(&SYSTEM_FOLDERS.map(|(f, prefix)| (Path::new(f), prefix))));
        candidates.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        let complete = candidates.iter().find(|bindir| missing_program(bindir).is_none());
        match complete {
            Some(bindir) => Self::at(bindir),
            None => Err(ClusterError::NotFound { choices: choices() }),
        }
    }

    /// The PostgreSQL of this folder.
    fn at(bindir: &Path) -> Result<Self, ClusterError> {
        if let Some(program) = missing_program(bindir) {
            return Err(ClusterError::Incomplete { bindir: bindir.to_owned(), program });
        }
        let bindir = bindir.canonicalize().map_err(io_error("resolve", bindir))?;
        let program = bindir.join("postgres");
        let output = match command(&program).arg("--version").output() {
            Ok(output) => output,
            Err(source) => return Err(ClusterError::Spawn { program, source }),
        };
        let mut said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let Some((version, major)) = parse_version(&said) else {
            said.push_str(String::from_utf8_lossy(&output.stderr).trim());
            return Err(ClusterError::Version { program, said });
        };
        Ok(Self { bindir, version, major })
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-1)` gives `15.18` and 15.
fn parse_version(said: &str) -> Option<(String, u32)> {
    let version = said.strip_prefix("postgres (PostgreSQL) ")?.split(' ').next()?;
    Some((version.to_owned(), leading_number(version)?))
}

/// The number at the start: 15 of `15.18`, 19 of `19beta1`.
fn leading_number(text: &str) -> Option<u32> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text.get(..digits)?.parse().ok()
}

fn missing_program(bindir: &Path) -> Option<&'static str> {
    ["initdb", "postgres"].into_iter().find(|program| !bindir.join(program).is_file())
}

/// The caller's own cache, then root's.
fn cache_folders() -> Vec<PathBuf> {
    let public = PathBuf::from(PUBLIC_CACHE);
    if effective_uid().is_ok_and(|uid| uid == 0) {
        return vec![public];
    }
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let own = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    own.map(|cache| cache.join("portal-audit/postgres")).into_iter().chain([public]).collect()
}

/// The `bin` folders below these, newest major first. A folder that is not there has none.
fn newest_first(folders: &[(&Path, &str)]) -> Vec<PathBuf> {
    let mut found: Vec<(Reverse<u32>, PathBuf)> = Vec::new();
    for &(folder, prefix) in folders {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        found.extend(entries.flatten().filter_map(|entry| {
            let name = entry.file_name();
            let major = leading_number(name.to_str()?.strip_prefix(prefix)?)?;
            Some((Reverse(major), entry.path().join("bin")))
        }));
    }
    found.sort();
    found.into_iter().map(|(_, bindir)| bindir).collect()
}

/// What `pg_config` says, if it is there; it comes with a client's headers too, without a server.
fn pg_config_bindir() -> Option<PathBuf> {
    let Ok(output) = command("pg_config").arg("--bindir").output() else { return None };
    let said = output.stdout.trim_ascii_end();
    (!said.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(said)))
}

/// How to get a PostgreSQL here, best first.
fn choices() -> String {
    let package_manager = if cfg!(target_os = "macos") {
        "brew install postgresql@17"
    } else if Path::new("/etc/debian_version").exists() {
        "apt-get install postgresql"
    } else if Path::new("/etc/redhat-release").exists() {
        "dnf install postgresql-server"
    } else if Path::new("/etc/alpine-release").exists() {
        "apk add postgresql"
    } else {
        "install your system's PostgreSQL server, 14 or newer"
    };
    format!(
        "  ./x setup                        fetches one into the cache, for demo and tests only\n  \
         {package_manager:32} from the system\n  \
         PORTAL_AUDIT_PG_BINDIR=FOLDER    names the folder of initdb and postgres"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn versions() {
        let of = |version: &str| parse_version(&format!("postgres (PostgreSQL) {version}"));
        assert_eq!(of("15.18 (Debian 15.18-0+deb12u1)"), Some(("15.18".to_owned(), 15)));
        assert_eq!(of("19beta1"), Some(("19beta1".to_owned(), 19)));
        assert_eq!(of("devel"), None);
        assert_eq!(parse_version("psql (PostgreSQL) 15.18"), None);
    }

    #[test]
    fn newest_major_first_whatever_its_folder() {
        let base = tempfile::tempdir().unwrap();
        for name in ["9.6", "10", "18", ".new-x", "pgsql-17", "pgsql-old"] {
            fs::create_dir(base.path().join(name)).unwrap();
        }
        let found = newest_first(&[(base.path(), ""), (base.path(), "pgsql-")]);
        let names: Vec<_> =
            ["18", "pgsql-17", "10", "9.6"].map(|name| base.path().join(name).join("bin")).to_vec();
        assert_eq!(found, names);
    }

    #[test]
    fn an_explicit_folder_is_not_replaced_by_another() {
        let folder = tempfile::tempdir().unwrap();
        let find = || Installation::find(Some(folder.path())).unwrap_err().to_string();
        assert!(find().ends_with("holds no `initdb`"));
        for program in ["initdb", "postgres"] {
            let path = folder.path().join(program);
            fs::write(&path, "#!/bin/sh\necho broken\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert!(find().ends_with("said `broken`, which names no version"));
    }

    #[test]
    fn the_error_lists_what_to_do() {
        let text = ClusterError::NotFound { choices: choices() }.to_string();
        assert!(text.lines().nth(1).unwrap().starts_with("  ./x setup"), "{text}");
    }
}
