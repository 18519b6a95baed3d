//! The checkpoints: whether what is written is signed as soon as the settings say.

use super::{Found, Verdict, verdict};
use crate::{
    config::CHECKPOINT_INTERVALS_MAX,
    connect::{self, Session},
    note::Checkpoint,
    show,
};
use std::time::Duration;
use tokio_postgres::Row;

/// What is known of the checkpoints.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// `interval_seconds` of `[proof]`; `None`: nobody signs.
    interval: Option<u64>,
    /// Number and age in seconds of the last one.
    last: Option<(u64, f64)>,
    /// Why it cannot be read.
    fault: Option<String>,
    /// Events behind it.
    events: u64,
    /// For how many seconds the first of them has waited.
    waits: f64,
}

impl Checkpoints {
    pub(super) async fn load(
        session: &Session,
        interval: Option<u64>,
    ) -> Result<Self, tokio_postgres::Error> {
        const LAST: &str = "SELECT note, extract(epoch FROM now() - at)::float8 FROM portal_audit.checkpoints ORDER BY number DESC LIMIT 1";
        const TREES: &str = "SELECT tree, size FROM portal_audit.trees";
        let mut found = Self { interval, ..Self::default() };
        if interval.is_none() {
            return Ok(found);
        }
        let last = match session.client.query_opt(LAST, &[]).await {
            // Whoever may not look is told so by another check.
            Err(error) if connect::sqlstate_of(&error) == Some("42501") => return Ok(found),
            last => last?,
        };
        let (note, age) = last.map(|row| (row.get::<_, String>(0), row.get(1))).unzip();
        let checkpoint = match note.as_deref().map(Checkpoint::parse).transpose() {
            Ok(checkpoint) => checkpoint,
            Err(fault) => {
                found.fault = Some(fault.to_string());
                return Ok(found);
            }
        };
        found.last = checkpoint.as_ref().map(|last| last.number).zip(age);
        for row in session.client.query(TREES, &[]).await? {
            let (tree, size): (&str, i64) = (row.get(0), row.get(1));
            let signed = checkpoint.as_ref().map_or(0, |last| last.size_of(tree));
            let size = size.unsigned_abs();
            if size > signed {
                found.events += size - signed;
                let waits = waits(session, tree, signed).await?;
                // What a checkpoint does not cover came after it.
                let waits = waits.unwrap_or(f64::INFINITY).min(age.unwrap_or(f64::INFINITY));
                found.waits = found.waits.max(waits);
            }
        }
        Ok(found)
    }

    fn told(&self) -> String {
        let last = match self.last {
            Some((number, age)) => {
                format!("the last one, {number}, is {} old", show::seconds(age.max(0.0)))
            }
            None => "there is none yet".to_owned(),
        };
        match self.events {
            0 => format!("{last}, and covers every event"),
            1 => format!("{last}, and 1 event came since"),
            events => format!("{last}, and {} events came since", show::count(events)),
        }
    }
}

/// Seconds since a leaf's event, by its id, if that begins with a time (RFC 9562, versions 7 and 8).
async fn waits(
    session: &Session,
    tree: &str,
    leaf: u64,
) -> Result<Option<f64>, tokio_postgres::Error> {
    const FIRST: &str = "SELECT (CASE WHEN get_byte(id, 6) >> 4 IN (7, 8) THEN extract(epoch FROM now()) - ('x' || encode(substr(id, 1, 6), 'hex'))::bit(48)::bigint / 1000.0 END)::float8 FROM (SELECT substr(uuids, (16 * ($2 - first))::int + 1, 16) AS id FROM portal_audit.seals WHERE tree = $1 AND first <= $2 ORDER BY first DESC LIMIT 1) AS s WHERE length(id) = 16";
    let leaf = i64::try_from(leaf).unwrap_or(i64::MAX);
    let row = session.client.query_opt(FIRST, &[&tree, &leaf]).await?;
    Ok(row.and_then(|row: Row| row.get(0)))
}

/// Whether no event waits too long for its signature.
pub(super) fn checkpoints(found: &Checkpoints) -> Verdict {
    let Some(interval) = found.interval else {
        return Ok("none are made: the settings have no [proof]".to_owned());
    };
    let longest = (Duration::from_secs(interval) * CHECKPOINT_INTERVALS_MAX).as_secs_f64();
    let finding = match &found.fault {
        Some(fault) => Some(format!("the last one cannot be read: {fault}")),
        None => (found.waits > longest).then(|| {
            let told = found.told();
            format!("{told}. Until one covers them they can be edited, and nobody could tell")
        }),
    };
    let fix = "# is the sidecar running, and may it read [proof] key_file? Its log says why it makes none; then:\nportal-audit verify";
    let warning = finding.map(|finding| Found::warning("portal_audit.checkpoints", finding, fix));
    verdict(warning.into_iter().collect(), found.told())
}

#[cfg(test)]
mod tests {
    use super::{Checkpoints, checkpoints};

    #[test]
    fn an_event_that_waits_for_three_intervals_is_told() {
        let of = |waits, events| {
            checkpoints(&Checkpoints {
                interval: Some(300),
                last: Some((12, 4_000.0)),
                events,
                waits,
                ..Checkpoints::default()
            })
        };
        assert_eq!(of(0.0, 0).unwrap(), "the last one, 12, is 67 min old, and covers every event");
        assert!(of(899.0, 7).unwrap().ends_with("and 7 events came since"));
        assert!(of(901.0, 7).unwrap_err()[0].finding.contains("nobody could tell"));
        assert!(checkpoints(&Checkpoints::default()).unwrap().contains("[proof]"));
    }
}
