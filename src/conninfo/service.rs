//! Service files: named sets of connection parameters (manual, section 34.17).

use super::{
    ConnInfoError,
    text::{Parameters, keep},
};
use std::{fs, io, path::PathBuf};

/// The parameters of a service: of the user's file, else of the system's.
///
/// `file` is the file that was named, if one was; `env` gives `HOME` and `PGSYSCONFDIR`.
pub(super) fn read(
    service: &str,
    file: Option<String>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Parameters, ConnInfoError> {
    let is_named = file.is_some();
    let in_home = || env("HOME").map(|home| PathBuf::from(home).join(".pg_service.conf"));
    let own = file.map(PathBuf::from).or_else(in_home);
    let system = env("PGSYSCONFDIR").map(|folder| PathBuf::from(folder).join("pg_service.conf"));
    let mut looked_at = PathBuf::from("~/.pg_service.conf");
    for (path, must_exist) in [(own, is_named), (system, false)] {
        let Some(path) = path else { continue };
        let problem = |problem: String| {
            let (service, path) = (service.to_owned(), path.clone());
            ConnInfoError::Service { service, path, problem }
        };
        let contents = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => continue,
            other => other.map_err(|error| problem(error.to_string()))?,
        };
        if let Some(found) = find(&contents, service).map_err(problem)? {
            return Ok(found);
        }
        looked_at = path;
    }
    let problem = "there is no such service. Add it as [name] and lines key=value.".to_owned();
    Err(ConnInfoError::Service { service: service.to_owned(), path: looked_at, problem })
}

/// The lines of `[service]`; of a parameter given twice the first counts, as in libpq. An error quotes no value.
fn find(contents: &str, service: &str) -> Result<Option<Parameters>, String> {
    let mut found: Option<Parameters> = None;
    for (number, line) in (1..).zip(contents.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if name.strip_suffix(']') == Some(service) {
                found = Some(Parameters::new());
            }
            continue;
        }
        let Some(parameters) = &mut found else { continue };
        if line.starts_with("ldap") && !line.contains('=') || line.starts_with("ldap://") {
            return Err(format!("line {number}: parameters from LDAP are not supported"));
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err(format!("line {number}: expected key=value"));
        };
        if name == "service" || name == "servicefile" {
            return Err(format!("line {number}: a service cannot name another"));
        }
        let mut one = Parameters::new();
        keep(name, value.to_owned(), &mut one)
            .map_err(|error| format!("line {number}: {error}"))?;
        for (name, value) in one {
            parameters.entry(name).or_insert(value);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{find, read};

    #[test]
    fn finds_a_service_as_libpq_does() {
        let file = "# comment\n[other]\nhost=no\n\n[mine]\n host=a=b \nhost=twice\nport=7\n[mine]\ndbname=late\n";
        let found = find(file, "mine").unwrap().unwrap();
        let shown: Vec<String> = found.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(shown, ["host=a=b", "port=7"]);
        assert!(find(file, "min").unwrap().is_none());
    }

    #[test]
    fn says_which_line_it_cannot_read_and_no_value() {
        for (line, says) in [
            ("password", "line 2: expected key=value"),
            ("hots=secret", "line 2: unknown connection parameter \"hots\""),
            ("sslpassword=secret", "line 2: connection parameter \"sslpassword\" is not supported"),
            ("service=x", "line 2: a service cannot name another"),
            ("ldap://x", "line 2: parameters from LDAP are not supported"),
        ] {
            let told = find(&format!("[s]\n{line}\n"), "s").unwrap_err();
            assert!(told.starts_with(says) && !told.contains("secret"), "{line}: {told}");
        }
    }

    #[test]
    fn the_users_file_comes_before_the_systems() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("pg_service.conf"), "[a]\nport=1\n[b]\nport=2\n").unwrap();
        std::fs::write(path(".pg_service.conf"), "[a]\nport=3\n").unwrap();
        let env = |name: &str| {
            ["HOME", "PGSYSCONFDIR"].contains(&name).then(|| folder.path().display().to_string())
        };
        let port = |service: &str, file: Option<String>| {
            read(service, file, &env).map(|found| found["port"].clone())
        };
        assert_eq!(port("a", None).unwrap(), "3");
        assert_eq!(port("b", None).unwrap(), "2");
        assert_eq!(port("a", Some(path("pg_service.conf"))).unwrap(), "1");
        for (service, file) in [("c", None), ("a", Some(path("nowhere")))] {
            let told = port(service, file).unwrap_err().to_string();
            assert!(told.contains(&format!("service \"{service}\" of file")), "{told}");
        }
    }
}
