//! What `verify` found, for people.

use super::finding::{Finding, Kind, Report};
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

/// `1 thing`, `2 things`.
fn some(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// The report as people read it: the verdict first.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    let broken = u64::try_from(report.findings.len()).unwrap_or(0) + report.findings_left_out;
    if report.is_sound() {
        lines.push(format!(
            "The record holds: {} in {}, {} as written.",
            some(report.leaves(), "leaf").replace("leafs", "leaves"),
            some(u64::try_from(report.trees.len()).unwrap_or(0), "tree"),
            some(report.rows, "row")
        ));
    } else {
        lines.push(format!("The record is BROKEN: {}.", some(broken, "finding")));
        for finding in &report.findings {
            let at = place(finding);
            let at = if at.is_empty() { at } else { format!("  {at}") };
            lines.push(format!("  {}{at}", word(finding.kind)));
            lines.push(format!("      {}", finding.what));
        }
        if report.findings_left_out > 0 {
            lines.push(format!("  and {} more", report.findings_left_out));
        }
    }
    if report.rows_removed + report.rows_erased > 0 {
        lines.push(format!(
            "{} removed by retention and {} changed by erasure, as the log records.",
            some(report.rows_removed, "row"),
            report.rows_erased
        ));
    }
    lines.push(signed(report));
    lines.extend(report.notes.iter().map(|note| format!("Note: {note}.")));
    lines.join("\n")
}

fn signed(report: &Report) -> String {
    let compared = match (report.checkpoints, report.copies) {
        (0, 0) => {
            return "Nothing is signed: who can write the database could have written all of it anew ([proof] in the settings makes checkpoints).".to_owned();
        }
        (own, 0) => {
            some(own, "checkpoint")
                + " compared; no copy from outside the database, which alone tells whether it was taken back (--checkpoints FILE)"
        }
        (own, copies) => format!(
            "{} and {} compared",
            some(own, "checkpoint"),
            some(copies, "copy").replace("copys", "copies")
        ),
    };
    let reach = match &report.reach {
        Some(reach) if reach.events_behind == 0 => {
            format!(" Checkpoint {} of {} holds and covers everything.", reach.number, reach.at)
        }
        Some(reach) => format!(
            " Checkpoint {} of {} holds; {} after it, not signed yet.",
            reach.number,
            reach.at,
            some(reach.events_behind, "event")
        ),
        None => " None of them holds.".to_owned(),
    };
    let keys = if report.is_key_given {
        ""
    } else {
        " Signatures were not looked at: name the public key with --key."
    };
    format!("{compared}.{reach}{keys}")
}
