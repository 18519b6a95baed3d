//! The settings: secrets in files, and who may read those.

use super::{Check, Finding, Found, Verdict, judge, verdict};
use crate::{
    chain::chain,
    config::{Access, Jwks, Settings, token_lines},
    conninfo::{ConnInfo, ConnInfoError},
};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// What is asked of the settings.
pub(super) const CHECKS: &[Check<Facts>] = &[
    ("inline_password", inline_password),
    ("passfile", passfile),
    ("token_file", token_file),
    ("jwks_file", jwks_file),
    ("spool_folder", spool_folder),
];
/// Lines of a file that are named.
const LINES_MAX: usize = 5;

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
    /// The file by which visitors of the pages are known: of tokens, or of keys.
    tokens: Option<Named>,
    keys: Option<Named>,
    spool_folder: PathBuf,
}

/// A file that says who somebody is.
#[derive(Debug)]
struct Named {
    path: PathBuf,
    /// Permissions of group and others; `None`: it is not there.
    mode: Option<u32>,
    /// Why nobody can be known by it.
    fault: Option<String>,
    /// Lines that name nobody.
    misread: Vec<usize>,
}

impl Named {
    fn new(path: &Path, fault: Option<String>, misread: Vec<usize>) -> Self {
        let mode = fs::metadata(path).ok().map(|file| file.permissions().mode() & 0o077);
        Self { path: path.to_owned(), mode, fault, misread }
    }

    /// Lines of `SHA-256 in hex, name`, as the pages read them.
    fn tokens(path: &Path) -> Self {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return Self::new(path, Some(error.to_string()), Vec::new()),
        };
        let (named, misread): (Vec<_>, Vec<_>) =
            token_lines(&text).partition(|(_, named)| named.is_some());
        let fault =
            named.is_empty().then(|| "no line of it has a token's hash and a name".to_owned());
        Self::new(path, fault, misread.into_iter().map(|(number, _)| number).collect())
    }

    fn keys(path: &Path) -> Self {
        Self::new(path, Jwks::read(path).err().map(|error| chain(&error)), Vec::new())
    }
}

/// Checks the settings themselves.
pub(super) fn check(path: &Path, settings: &Settings) -> Vec<Finding> {
    let sources = settings.sources.iter();
    let sources = sources.map(|source| (format!("source {:?}", source.name), &source.conninfo));
    let pages = settings.pages.as_ref();
    let pages_login = pages.map(|pages| ("[pages]".to_owned(), &pages.conninfo));
    let all: Vec<(String, &ConnInfo)> = [("[audit]".to_owned(), &settings.audit)]
        .into_iter()
        .chain(pages_login)
        .chain(sources)
        .collect();
    let (tokens, keys) = match pages.map(|pages| &pages.access) {
        Some(Access::Token { file }) => (Some(Named::tokens(file)), None),
        Some(Access::Jwt(jwt)) => (None, Some(Named::keys(&jwt.jwks_file))),
        _ => (None, None),
    };
    let written = all.iter().filter(|(_, conninfo)| conninfo.is_password_written());
    let facts = Facts {
        path: path.to_owned(),
        is_open: is_open(path),
        with_password: written.map(|(name, _)| name.clone()).collect(),
        unused: all.iter().filter_map(|(name, conninfo)| unused(name, conninfo)).collect(),
        tokens,
        keys,
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

fn token_file(facts: &Facts) -> Verdict {
    let Some(file) = &facts.tokens else { return Ok("no tokens are in use".to_owned()) };
    let path = file.path.display();
    let object = path.to_string();
    let mut found = unusable(
        file,
        "# a line for each: the token's SHA-256 in hex, a blank, the name\nprintf %s \"$TOKEN\" | sha256sum",
    );
    if !file.misread.is_empty() {
        let lines = file.misread.iter().take(LINES_MAX).map(usize::to_string).collect::<Vec<_>>();
        let more = if file.misread.len() > LINES_MAX { " and more" } else { "" };
        let finding = format!("nobody can sign in by line {}{more} of it", lines.join(", "));
        let fix = "# such a line is the token's SHA-256 in small hex letters, a blank, the name; or begins with #";
        found.push(Found::warning(&object, finding, fix));
    }
    if file.mode.is_some_and(|mode| mode & 0o055 != 0) {
        let finding = "others may read it: who is known by which hash, and a short token can be guessed from that";
        found.push(Found::warning(&object, finding, format!("chmod 0600 {path}")));
    }
    verdict(found, "visitors of the pages are known by their tokens")
}

fn jwks_file(facts: &Facts) -> Verdict {
    let Some(file) = &facts.keys else { return Ok("no signed tokens are in use".to_owned()) };
    let fix = "# save there what the identity server has at its jwks_uri: the public keys";
    verdict(unusable(file, fix), "visitors of the pages are known by signed tokens")
}

/// What makes a file no proof of who somebody is.
fn unusable(file: &Named, fix: &str) -> Vec<Found> {
    let path = file.path.display();
    let mut found = Vec::new();
    if let Some(fault) = &file.fault {
        let finding = format!("nobody can sign in to the pages: {fault}");
        found.push(Found::critical(&path.to_string(), finding, fix));
    }
    if file.mode.is_some_and(|mode| mode & 0o022 != 0) {
        let finding = "others may write it: whoever does is whom they like";
        found.push(Found::critical(&path.to_string(), finding, format!("chmod go-w {path}")));
    }
    found
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
