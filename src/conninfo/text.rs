//! The texts that libpq reads: keyword/value strings, URIs (manual, section 34.1.1) and lines of
//! the passfile (section 34.16). Pure.

use super::{
    ConnInfoError,
    error::invalid,
    parameters::{HONOURED, not_honoured},
};
use std::collections::BTreeMap;

pub(super) type Parameters = BTreeMap<&'static str, String>;

/// Reads either form. Of a parameter given twice the last counts, as in libpq.
pub(super) fn read(text: &str) -> Result<Parameters, ConnInfoError> {
    let mut parameters = Parameters::new();
    let scheme =
        ["postgresql://", "postgres://"].into_iter().find(|scheme| text.starts_with(scheme));
    match scheme {
        Some(scheme) => read_uri(text, scheme.len(), &mut parameters)?,
        None => read_keywords(text, &mut parameters)?,
    }
    Ok(parameters)
}

fn syntax(problem: &'static str, position: usize) -> ConnInfoError {
    ConnInfoError::Syntax { problem, position }
}

/// Keeps a value under its parameter's name, or says why there is none of that name.
pub(super) fn keep(
    name: &str,
    value: String,
    parameters: &mut Parameters,
) -> Result<(), ConnInfoError> {
    if let Some((known, _)) = HONOURED.iter().find(|(known, _)| *known == name) {
        if value.contains('\0') {
            return Err(invalid(known, "holds a NUL"));
        }
        parameters.insert(known, value);
        return Ok(());
    }
    if let Some(known) = not_honoured(name) {
        if known.is_harmless(&value) {
            return Ok(());
        }
        return Err(ConnInfoError::NotHonoured { name: known.name, why: known.why });
    }
    let suggestion = HONOURED
        .iter()
        .map(|(known, _)| (strsim::damerau_levenshtein(known, name), *known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().div_ceil(3))
        .map(|(_, known)| known);
    Err(ConnInfoError::Unknown { name: name.to_owned(), suggestion })
}

fn read_keywords(text: &str, parameters: &mut Parameters) -> Result<(), ConnInfoError> {
    let mut rest = text.trim_start();
    let position = |rest: &str| text.len() - rest.len();
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || c.is_ascii_whitespace()).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let Some(after) = after.trim_start().strip_prefix('=') else {
            return Err(syntax("expected \"=\" after a parameter's name", position(rest) + end));
        };
        let start = after.trim_start();
        let (value, after) = match start.strip_prefix('\'') {
            Some(quoted) => take_value(quoted, |c| c == '\''),
            None => take_value(start, |c| c.is_ascii_whitespace()),
        };
        let after = match (start.starts_with('\''), after.strip_prefix('\'')) {
            (true, None) => return Err(syntax("unterminated quoted string", position(start))),
            (true, Some(after)) => after,
            (false, _) => after,
        };
        keep(name, value, parameters)?;
        rest = after.trim_start();
    }
    Ok(())
}

/// The text up to `end`, with backslashes taken away, and what follows from `end` on.
fn take_value(text: &str, end: impl Fn(char) -> bool) -> (String, &str) {
    let mut value = String::new();
    let mut rest = text.chars();
    loop {
        let here = rest.as_str();
        match rest.next() {
            None => return (value, here),
            Some(c) if end(c) => return (value, here),
            Some('\\') => value.extend(rest.next()),
            Some(c) => value.push(c),
        }
    }
}

fn read_uri(text: &str, start: usize, out: &mut Parameters) -> Result<(), ConnInfoError> {
    let (_, mut rest) = text.split_at(start);
    let position = |rest: &str| text.len() - rest.len();
    // As in libpq the first `@` before any `/` ends the user, so a password may hold `?`.
    if let Some(end) = rest.find(['@', '/'])
        && let (user, Some(after)) = (rest.split_at(end).0, rest.split_at(end).1.strip_prefix('@'))
    {
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        keep("user", decode(name, position(rest))?, out)?;
        keep("password", decode(password, position(rest))?, out)?;
        rest = after;
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (servers, dbname) = place.split_once('/').unwrap_or((place, ""));
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for server in servers.split(',') {
        let (host, port) = match server.strip_prefix('[') {
            Some(bracketed) => {
                let (host, port) = bracketed.split_once(']').ok_or_else(|| {
                    syntax("missing \"]\" after an IPv6 address", position(server))
                })?;
                (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some("")))
            }
            None => server.split_once(':').map_or((server, Some("")), |(h, p)| (h, Some(p))),
        };
        let port = port.ok_or_else(|| syntax("expected \":\" or the end", position(rest)))?;
        hosts.push(decode(host, position(rest))?);
        ports.push(decode(port, position(rest))?);
    }
    for (name, list) in [("host", hosts), ("port", ports)] {
        if list.iter().any(|part| !part.is_empty()) {
            keep(name, list.join(","), out)?;
        }
    }
    keep("dbname", decode(dbname, position(rest))?, out)?;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair
            .split_once('=')
            .filter(|(_, value)| !value.contains('='))
            .ok_or_else(|| syntax("expected one \"=\" in a query parameter", position(query)))?;
        let (name, value) = (decode(name, position(query))?, decode(value, position(query))?);
        match (name.as_str(), value.as_str()) {
            // JDBC's spelling, which libpq takes too.
            ("ssl", "true") => keep("sslmode", "require".to_owned(), out)?,
            _ => keep(&name, value, out)?,
        }
    }
    Ok(())
}

/// Undoes percent-encoding; a plus sign is a plus sign. `position` is only for the error.
fn decode(text: &str, position: usize) -> Result<String, ConnInfoError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte.unwrap_or(b'?')).to_digit(16);
        let decoded = match (digit(rest.next()), digit(rest.next())) {
            (Some(high), Some(low)) => u8::try_from(high << 4 | low).ok().filter(|byte| *byte > 0),
            _ => None,
        };
        bytes.push(decoded.ok_or_else(|| syntax("invalid percent-encoding", position))?);
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(_) => Err(syntax("percent-encoding that is not UTF-8", position)),
    }
}

/// The password of the first line whose host, port, database and user are `wanted` or `*`.
pub(super) fn passfile_password(contents: &str, wanted: [&str; 4]) -> Option<String> {
    contents.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line.trim_end_matches('\r');
        for value in wanted {
            let (raw, (field, after)) = (rest, take_value(rest, |c| c == ':'));
            let after = after.strip_prefix(':')?;
            if field != value && !raw.starts_with("*:") {
                return None;
            }
            rest = after;
        }
        Some(take_value(rest, |c| c == ':').0).filter(|password| !password.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::{passfile_password, read};
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        match read(text) {
            Ok(parameters) => {
                let pairs = parameters.iter().filter(|(_, value)| !value.is_empty());
                pairs.map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" | ")
            }
            Err(error) => format!("! {error}"),
        }
    }

    #[test]
    fn reads_what_libpq_reads() {
        for (text, expected) in [
            ("", ""),
            ("host=a  port = 5", "host=a | port=5"),
            (r"user='it\'s \\ me' dbname=a\ b", r"dbname=a b | user=it's \ me"),
            ("host='' dbname=x dbname=y", "dbname=y"),
            ("postgresql://", ""),
            ("postgres://u:p%40%3a@h:1/d", "dbname=d | host=h | password=p@: | port=1 | user=u"),
            ("postgresql://u:p?q@h/d", "dbname=d | host=h | password=p?q | user=u"),
            ("postgresql://%2Frun%2Fpg:6/d", "dbname=d | host=/run/pg | port=6"),
            ("postgresql:///d?host=/tmp&user=a+b", "dbname=d | host=/tmp | user=a+b"),
            ("postgresql://a:1,b,[::1]:3", "host=a,b,::1 | port=1,,3"),
            ("postgresql://h?ssl=true", "host=h | sslmode=require"),
            ("gssencmode=disable sslcompression=0 service=a", "service=a"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn says_what_it_cannot_read() {
        for (text, expected) in [
            (
                "host",
                "malformed connection string: expected \"=\" after a parameter's name at byte 4",
            ),
            ("user='x", "malformed connection string: unterminated quoted string at byte 5"),
            ("hots=a", "unknown connection parameter \"hots\". Did you mean \"host\"?"),
            ("colour=a", "unknown connection parameter \"colour\""),
            (
                "sslcompression=1",
                "connection parameter \"sslcompression\" is not supported. Compression weakens TLS. Remove it.",
            ),
            (
                "postgresql://[::1",
                "malformed connection string: missing \"]\" after an IPv6 address at byte 13",
            ),
            (
                "postgresql://h%0",
                "malformed connection string: invalid percent-encoding at byte 13",
            ),
            (
                "postgresql://h%00",
                "malformed connection string: invalid percent-encoding at byte 13",
            ),
            (
                "postgresql://%ff",
                "malformed connection string: percent-encoding that is not UTF-8 at byte 13",
            ),
            (
                "postgresql://h?user",
                "malformed connection string: expected one \"=\" in a query parameter at byte 15",
            ),
        ] {
            assert_eq!(shown(text), format!("! {expected}"), "{text}");
        }
    }

    #[test]
    fn finds_the_first_line_that_fits() {
        let file =
            "# a comment\nother:5432:*:*:no\nh\\:1:*:d:u:p\\:q\\\\:ignored\r\n*:*:*:*:last\n";
        let password = |host| passfile_password(file, [host, "5432", "d", "u"]);
        assert_eq!(password("h:1").as_deref(), Some("p:q\\"));
        assert_eq!(password("elsewhere").as_deref(), Some("last"));
        assert_eq!(passfile_password("h:1:d", ["h", "1", "d", "u"]), None);
        assert_eq!(passfile_password("\\*:*:*:*:x", ["h", "1", "d", "u"]), None);
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*", line in "\\PC*") {
            for prefix in ["", "postgresql://", "host="] {
                drop(read(&format!("{prefix}{text}")));
            }
            passfile_password(&line, ["h", "1", "d", "u"]);
        }
    }
}
