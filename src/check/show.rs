//! The report as people and programs read it.

use super::{Finding, Status};
use crate::show::visible;

/// How wide a line may be where nobody says.
const WIDTH_DEFAULT: usize = 100;
/// Narrower than this a sentence is no longer read as one.
const WIDTH_MIN: usize = 40;
/// Before findings and fixes.
const INDENT: &str = "            ";

/// The report as JSON: an array of findings, in the order of the report.
///
/// # Errors
/// None: there is nothing in a finding that JSON cannot hold.
pub fn report_json(findings: &[Finding]) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(findings)
}

/// The report as text: what is wrong stands first within each database, each with lines to paste; what holds is a line, or with `is_verbose` a list.
#[must_use]
pub fn report_text(
    findings: &[Finding],
    is_verbose: bool,
    width: Option<usize>,
    is_coloured: bool,
) -> String {
    let width = width.unwrap_or(WIDTH_DEFAULT).max(WIDTH_MIN);
    let mut out = String::new();
    let mut rest = findings;
    while let Some(first) = rest.first() {
        let group = group_of(first);
        let end = rest.iter().position(|finding| group_of(finding) != group);
        let (own, others) = rest.split_at(end.unwrap_or(rest.len()));
        // Where it is, from the one finding that names it.
        let place = own.iter().find(|finding| finding.check.ends_with("reachable"));
        let title = place.map_or_else(
            || group.clone(),
            |at| match at.source {
                None => format!("audit {}", at.object),
                Some(_) => format!("{group}, {}", at.object),
            },
        );
        out.push_str(&database(&title, own, is_verbose, width, is_coloured));
        rest = others;
    }
    out.push_str(&tally("all", findings));
    out
}

fn group_of(finding: &Finding) -> String {
    match (&finding.source, finding.check) {
        (Some(source), _) => format!("source {source}"),
        (None, check) if check.starts_with("audit") => "audit database".to_owned(),
        (None, check) if super::audit::CHECKS.iter().any(|(id, _)| *id == check) => {
            "audit database".to_owned()
        }
        (None, _) => "settings".to_owned(),
    }
}

/// `source portal: 1 critical, 2 warnings, 40 ok`.
fn tally(name: &str, findings: &[Finding]) -> String {
    let count = |status| findings.iter().filter(|finding| finding.status == status).count();
    let plural = |count: usize, word: &str| match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        _ => Some(format!("{count} {word}s")),
    };
    let critical = count(Status::Critical);
    let parts = [
        (critical > 0).then(|| format!("{critical} critical")),
        plural(count(Status::Warning), "warning"),
        Some(format!("{} ok", count(Status::Ok))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    format!("{}: {}", visible(name), parts.join(", "))
}

fn database(
    name: &str,
    findings: &[Finding],
    is_verbose: bool,
    width: usize,
    is_coloured: bool,
) -> String {
    let mut out = tally(name, findings) + "\n";
    let mut ordered: Vec<&Finding> = findings.iter().collect();
    ordered.sort_by_key(|finding| std::cmp::Reverse(finding.status));
    for finding in ordered {
        match finding.status {
            Status::Ok if is_verbose => {
                let line = format!("  ok        {}: {}", finding.check, finding.finding);
                out.push_str(&visible(&line));
                out.push('\n');
            }
            Status::Ok => {}
            _ => out.push_str(&fault(finding, width, is_coloured)),
        }
    }
    out.push('\n');
    out
}

fn fault(finding: &Finding, width: usize, is_coloured: bool) -> String {
    let (word, colour) = match finding.status {
        Status::Critical => ("CRITICAL", "\u{1b}[1;31m"),
        _ => ("warning ", "\u{1b}[33m"),
    };
    let word = if is_coloured { format!("{colour}{word}\u{1b}[0m") } else { word.to_owned() };
    let object = Some(&finding.object).filter(|object| *object != finding.check);
    let object = object.map(|object| format!(": {}", visible(object))).unwrap_or_default();
    let mut out = format!("  {word}  {}{object}\n", finding.check);
    for line in wrapped(&finding.finding, width.saturating_sub(INDENT.len())) {
        out.push_str(&format!("{INDENT}{}\n", visible(&line)));
    }
    // Not wrapped: a line that is pasted must stay one.
    for line in finding.fix.lines() {
        out.push_str(&format!("{INDENT}  {}\n", visible(line)));
    }
    out
}

/// A sentence in lines of a width, broken at blanks.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(check: &'static str, status: Status, source: Option<&str>) -> Finding {
        let fix = if status == Status::Ok { "" } else { "DROP TABLE x;\n-- then wait" };
        Finding {
            check,
            status,
            object: "x\u{1b}[2J".into(),
            finding: "it is there and should not be".into(),
            fix: fix.into(),
            source: source.map(str::to_owned),
        }
    }

    #[test]
    fn the_worst_stands_first_and_fixes_stay_whole() {
        let findings = [
            finding("settings", Status::Ok, None),
            finding("tls", Status::Warning, Some("portal")),
            finding("wal_level", Status::Ok, Some("portal")),
            finding("mapping", Status::Critical, Some("portal")),
        ];
        let text = report_text(&findings, false, Some(40), false);
        let expected = "settings: 1 ok\n\nsource portal: 1 critical, 1 warning, 1 ok\n  CRITICAL  mapping: x\\u{1b}[2J\n            it is there and should not\n            be\n              DROP TABLE x;\n              -- then wait\n  warning   tls: x\\u{1b}[2J\n            it is there and should not\n            be\n              DROP TABLE x;\n              -- then wait\n\nall: 1 critical, 1 warning, 2 ok";
        assert_eq!(text, expected);
        let coloured = report_text(&findings, true, None, true);
        assert!(coloured.contains("\u{1b}[1;31mCRITICAL\u{1b}[0m"));
        assert!(coloured.contains("  ok        wal_level: it is there"));
    }
}
