//! The settings: secrets in files, and who may read those.

use super::{Check, Finding, Found, Verdict, judge, verdict};
use crate::{
    config::Settings,
    conninfo::{ConnInfo, ConnInfoError},
};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// What is asked of the settings.
pub(super) const CHECKS: &[Check<Facts>] =
    &[("inline_password", inline_password), ("passfile", passfile), ("spool_folder", spool_folder)];

/// What is known of the settings.
#[derive(Debug)]
pub(super) struct Facts {
    path: PathBuf,
    /// Others than its owner may read the file.
    is_open: bool,
    /// What holds a password: `[audit]`, `source "portal"`.
    with_password: Vec<String>,
    /// Why a passfile is not used: of what, and why.
    unused: Vec<(String, String, Option<PathBuf>)>,
    spool_folder: PathBuf,
}

/// Checks the settings themselves.
pub(super) fn check(path: &Path, settings: &Settings) -> Vec<Finding> {
    let sources = settings.sources.iter();
    let sources = sources.map(|source| (format!("source {:?}", source.name), &source.conninfo));
    let all: Vec<(String, &ConnInfo)> =
        [("[audit]".to_owned(), &settings.audit)].into_iter().chain(sources).collect();
    let written = all.iter().filter(|(_, conninfo)| conninfo.is_password_written());
    let facts = Facts {
        path: path.to_owned(),
        is_open: is_open(path),
        with_password: written.map(|(name, _)| name.clone()).collect(),
        unused: all.iter().filter_map(|(name, conninfo)| unused(name, conninfo)).collect(),
        spool_folder: settings.limits.spool_folder.clone(),
    };
    judge(CHECKS, &facts, None, &path.display().to_string())
}

fn is_open(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o077 != 0)
}

fn unused(name: &str, conninfo: &ConnInfo) -> Option<(String, String, Option<PathBuf>)> {
    let address = conninfo.addresses().next()?;
    let error = conninfo.password(address.host(), address.port()).err()?;
    let path = match &error {
        ConnInfoError::PassfileMode { path } => Some(path.clone()),
        _ => None,
    };
    Some((name.to_owned(), error.to_string(), path))
}

fn inline_password(facts: &Facts) -> Verdict {
    let file = facts.path.display();
    let fix = |name: &str| {
        let mode = if facts.is_open { format!("\nchmod 0600 {file}") } else { String::new() };
        format!(
            "# in {name}: passfile=/etc/portal-audit/pgpass in place of password=…, and there (chmod 0600):\n# host:port:database:user:password{mode}"
        )
    };
    let found = facts.with_password.iter().map(|name| {
        if facts.is_open {
            let finding = format!("{name} has a password in it, and others may read {file}");
            Found::critical(name, finding, fix(name))
        } else {
            let finding = "the dsn has a password in it: it lies in each copy of the settings";
            Found::warning(name, finding, fix(name))
        }
    });
    verdict(found.collect(), "no password is written in the settings")
}

fn passfile(facts: &Facts) -> Verdict {
    let found = facts.unused.iter().map(|(name, why, path)| {
        let fix = path.as_ref().map_or_else(
            || "# let the sidecar's user read it, or name another passfile in the dsn".to_owned(),
            |path| format!("chmod 0600 {}", path.display()),
        );
        Found::critical(name, why, fix)
    });
    verdict(found.collect(), "passfiles can be read by nobody else")
}

fn spool_folder(facts: &Facts) -> Verdict {
    let folder = &facts.spool_folder;
    let found = (!folder.is_dir()).then(|| {
        let finding = "limits.spool_folder is no folder: a transaction that memory does not hold could not be read";
        let path = folder.display();
        Found::critical(&path.to_string(), finding, format!("mkdir -p -m 0700 {path}"))
    });
    verdict(found.into_iter().collect(), "large transactions have a folder to wait in")
}
