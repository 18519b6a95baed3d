//! What `verify` found, for people.

use super::finding::{Finding, Kind, Reach, Report};
use std::fmt::Write as _;

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Edited => "EDITED",
        Kind::Missing => "MISSING",
        Kind::Inserted => "INSERTED",
        Kind::Duplicated => "DUPLICATED",
        Kind::Reordered => "REORDERED",
        Kind::Truncated => "TRUNCATED",
        Kind::RolledBack => "ROLLED BACK",
        Kind::Rewritten => "REWRITTEN",
        Kind::Forged => "FORGED",
        Kind::RemovedEdited => "REMOVALS EDITED",
    }
}

/// Where it is: tree, leaf or leaves, event.
fn place(finding: &Finding) -> String {
    let mut place = String::new();
    if let Some(tree) = &finding.tree {
        write!(place, "tree {tree:?}").expect("a String takes all");
    }
    match (finding.seq, finding.upto.filter(|upto| Some(*upto) != finding.seq)) {
        (Some(seq), Some(upto)) => write!(place, ", leaves {seq} to {upto}"),
        (Some(seq), None) => write!(place, ", leaf {seq}"),
        _ => Ok(()),
    }
    .expect("a String takes all");
    if let Some(event_uuid) = finding.event_uuid {
        let comma = if place.is_empty() { "" } else { ", " };
        write!(place, "{comma}event {event_uuid}").expect("a String takes all");
    }
    place
}

/// `1 leaf`, `2 leaves`.
pub(super) fn leaves(count: u64) -> String {
    format!("{count} {}", if count == 1 { "leaf" } else { "leaves" })
}

/// `1 thing`, `2 things`.
fn some(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// A time of a checkpoint, to the second.
fn time(at: &str) -> String {
    let time = chrono::DateTime::parse_from_rfc3339(at);
    time.map_or_else(|_| at.to_owned(), |at| at.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// The report as people read it: the verdict first, then what is broken, then what it rests on.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    let broken = u64::try_from(report.findings.len()).unwrap_or(0) + report.findings_left_out;
    if report.is_sound() {
        lines.push(format!(
            "The record holds: {} in {}, {} as written.",
            leaves(report.leaves()),
            some(u64::try_from(report.trees.len()).unwrap_or(0), "tree"),
            some(report.rows, "row")
        ));
    } else {
        lines.push(format!("The record is BROKEN: {}.", some(broken, "finding")));
        for finding in &report.findings {
            let at = place(finding);
            let at = if at.is_empty() { at } else { format!("  {at}") };
            lines.push(format!("\n  {}{at}", word(finding.kind)));
            lines.push(format!("      {}", finding.what));
        }
        if report.findings_left_out > 0 {
            lines.push(format!("\n  and {} more", report.findings_left_out));
        }
    }
    lines.push(String::new());
    let mut say = |about: &str, what: &str| lines.push(format!("  {about:<9} {what}"));
    if report.rows_removed + report.rows_erased > 0 {
        let removed = some(report.rows_removed, "row");
        let erased = report.rows_erased;
        say(
            "Removed",
            &format!("{removed} by retention, {erased} changed by erasure, as the log records"),
        );
    }
    signed(report, &mut say);
    for note in &report.notes {
        say("Left out", note);
    }
    if !report.is_sound() {
        say(
            "Next",
            "change nothing in this database; compare with a backup, an export or a replica (deploy/RUNBOOK.md, Broken record)",
        );
    }
    lines.join("\n")
}

/// What the verdict rests on.
fn signed(report: &Report, say: &mut impl FnMut(&str, &str)) {
    if (report.checkpoints, report.copies) == (0, 0) {
        return say(
            "Signed",
            "nothing: who can write the database could have written all of it anew ([proof] in the settings makes checkpoints)",
        );
    }
    let behind = |events| format!("{} after it, not signed yet", some(events, "event"));
    let signed = match &report.reach {
        None => "by no checkpoint that holds".to_owned(),
        Some(Reach { number, at, .. }) if !report.is_sound() => {
            format!("the last checkpoint that fits what is there is {number} of {}", time(at))
        }
        Some(Reach { number, at, events_behind: 0 }) => {
            format!("everything, by checkpoint {number} of {}", time(at))
        }
        Some(Reach { number, at, events_behind }) => {
            format!("up to checkpoint {number} of {}; {}", time(at), behind(*events_behind))
        }
    };
    say("Signed", &signed);
    let own = some(report.checkpoints, "checkpoint");
    let compared = match report.copies {
        0 => format!(
            "{own} of the database; no copy from outside, and only a copy tells whether all of it was taken back (--checkpoints FILE)"
        ),
        1 => format!("{own} of the database, and 1 copy from outside"),
        copies => format!("{own} of the database, and {copies} copies from outside"),
    };
    say("Compared", &compared);
    if !report.is_key_given {
        say("Key", "not given, so nobody looked at who signed: name the public key with --key");
    }
}
