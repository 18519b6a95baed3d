//! The slot: whether it is ours, whether it joins what is written, and what it keeps on the disk.

use super::{Check, Found, Verdict, verdict};
use crate::{
    budget::{self, Kept},
    catalog::{self, CatalogError, Slot as CatalogSlot},
    connect::{self, Session},
    continuity::{self, ContinuityError, Decision},
};

/// What is asked of the slot.
pub(super) const CHECKS: &[Check<Slot>] = &[
    ("slot_kind", slot_kind),
    ("slot_lost", slot_lost),
    ("slot_position", slot_position),
    ("same_source", same_source),
    ("slot_reader", slot_reader),
    ("slot_wal", slot_wal),
    ("slot_failover", slot_failover),
];

/// What is known of the slot.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) source: String,
    pub(super) config: String,
    database: String,
    slot: Option<CatalogSlot>,
    /// Process and application that read it, if somebody does.
    reader: Option<(i32, Option<String>)>,
    /// What it is called by whoever reads it for us.
    own_name: String,
    failover: Option<bool>,
    kept: Option<Kept>,
    is_released: bool,
    pub(super) budget_bytes: u64,
    pub(super) releases: bool,
    /// What the pipeline would decide; `None` where it cannot be asked.
    pub(super) decision: Option<Decision>,
}

/// What the settings say of a slot.
#[derive(Debug, Clone)]
pub(super) struct Wanted<'a> {
    pub(super) slot: &'a str,
    pub(super) source: &'a str,
    pub(super) config: String,
    pub(super) database: &'a str,
    pub(super) own_name: String,
    pub(super) version_num: u32,
    pub(super) budget_bytes: u64,
    pub(super) releases: bool,
}

impl Slot {
    /// Asks.
    pub(super) async fn load(session: &Session, wanted: &Wanted<'_>) -> Result<Self, String> {
        let Wanted { slot, source, config, database, own_name, version_num, .. } = wanted.clone();
        let told = |error: CatalogError| match error {
            CatalogError::Query { report } => connect::describe(&report),
            other => other.to_string(),
        };
        let failover = if version_num >= 170_000 { "s.failover" } else { "NULL::bool" };
        let query = format!(
            "SELECT s.active_pid, nullif(a.application_name, ''), {failover} FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid WHERE s.slot_name = $1"
        );
        let row = session.client.query_opt(&query, &[&slot]).await;
        let row = row.map_err(|error| connect::describe(&error))?;
        let pid = row.as_ref().and_then(|row| row.get::<_, Option<i32>>(0));
        let kept = budget::kept(session, slot).await.map_err(|error| error.to_string())?;
        let is_released = budget::is_released(session, slot).await;
        Ok(Self {
            name: slot.to_owned(),
            source: source.to_owned(),
            config,
            database: database.to_owned(),
            slot: catalog::load_slot(session, version_num, slot).await.map_err(told)?,
            reader: pid.map(|pid| (pid, row.as_ref().and_then(|row| row.get(1)))),
            own_name,
            failover: row.as_ref().and_then(|row| row.get(2)),
            kept,
            is_released: is_released.map_err(|error| error.to_string())?,
            budget_bytes: wanted.budget_bytes,
            releases: wanted.releases,
            decision: None,
        })
    }

    /// The slot as the catalog has it.
    pub(super) fn slot(&self) -> Option<&CatalogSlot> {
        self.slot.as_ref()
    }

    fn object(&self) -> String {
        format!("slot {}", self.name)
    }

    fn accept_gap(&self) -> String {
        format!(
            "# what lies in between is gone; to go on and record the gap:\nportal-audit run --config {} --accept-gap {}",
            self.config, self.source
        )
    }

    /// Why the pipeline would not go on.
    fn refusal(&self) -> Option<&ContinuityError> {
        self.decision.as_ref().and_then(|decision| decision.plan.as_ref().err())
    }
}

fn drop_slot(name: &str) -> String {
    format!("SELECT pg_drop_replication_slot('{name}');")
}

fn slot_kind(slot: &Slot) -> Verdict {
    let Some(there) = &slot.slot else {
        return Ok("made at the first start".to_owned());
    };
    match continuity::fit(&slot.name, there, &slot.database) {
        Ok(()) => Ok("a logical slot of pgoutput in this database".to_owned()),
        Err(finding) => {
            let fix = format!(
                "-- if nobody needs it:\n{}\n-- or in the settings: slot = \"portal_audit_2\"",
                drop_slot(&slot.name)
            );
            Err(vec![Found::critical(&slot.object(), finding.to_string(), fix)])
        }
    }
}

fn slot_lost(slot: &Slot) -> Verdict {
    if let Some(reason) = slot.slot.as_ref().and_then(continuity::invalid) {
        let finding =
            format!("the server has given it up ({reason}): the changes since then are gone");
        return Err(vec![Found::critical(&slot.object(), finding, slot.accept_gap())]);
    }
    match slot.refusal() {
        Some(ContinuityError::SlotLost { .. }) if slot.is_released => {
            let finding =
                "the sidecar gave it up at its budget: the next start records the gap by itself";
            let fix = format!("portal-audit run --config {}", slot.config);
            Err(vec![Found::warning(&slot.object(), finding, fix)])
        }
        Some(finding @ ContinuityError::SlotLost { .. }) => {
            Err(vec![Found::critical(&slot.object(), finding.to_string(), slot.accept_gap())])
        }
        _ => Ok("it has everything since it was made".to_owned()),
    }
}

fn slot_position(slot: &Slot) -> Verdict {
    let is_unfit = slot
        .slot
        .as_ref()
        .is_some_and(|there| continuity::fit(&slot.name, there, &slot.database).is_err());
    let fix = match slot.refusal() {
        Some(ContinuityError::SlotWithoutProgress { .. }) if !is_unfit => {
            format!(
                "-- if nobody needs it; the first start makes it anew:\n{}",
                drop_slot(&slot.name)
            )
        }
        Some(ContinuityError::SlotAhead { .. }) => slot.accept_gap(),
        Some(ContinuityError::OtherSlot { then, .. }) => {
            format!("# in the settings, of source {:?}:\nslot = {then:?}", slot.source)
        }
        _ => return Ok("it joins what is written".to_owned()),
    };
    let finding = slot.refusal().map(ToString::to_string).unwrap_or_default();
    let finding = finding.split(" If nobody needs it:").next().unwrap_or_default().to_owned();
    Err(vec![Found::critical(&slot.object(), finding, fix)])
}

fn same_source(slot: &Slot) -> Verdict {
    let fix = match slot.refusal() {
        Some(
            ContinuityError::OtherSystem { .. }
            | ContinuityError::OtherDatabase { .. }
            | ContinuityError::OtherTimeline { .. }
            | ContinuityError::LogBehind { .. },
        ) => format!(
            "# name the server that was followed in the dsn; or, if this is its successor:\n{}",
            slot.accept_gap()
        ),
        Some(ContinuityError::TwoServers | ContinuityError::History(_)) => {
            "# name one server in the dsn: behind that address stands more than one".to_owned()
        }
        _ => return Ok("the server and database that were followed".to_owned()),
    };
    let finding = slot.refusal().map(ToString::to_string).unwrap_or_default();
    Err(vec![Found::critical(&format!("source {}", slot.source), finding, fix)])
}

fn slot_reader(slot: &Slot) -> Verdict {
    let Some((pid, application)) = &slot.reader else {
        return Ok("free".to_owned());
    };
    // Of another role's session the name is hidden, and ours is this role's.
    let name = application.as_deref().unwrap_or("of another role");
    if name == slot.own_name {
        return Ok(format!("read by process {pid}, {name}"));
    }
    let finding = format!(
        "it is read by process {pid} ({name}), which is no sidecar of these settings: a start waits until it ends"
    );
    let fix = format!("-- if it should not:\nSELECT pg_terminate_backend({pid});");
    Err(vec![Found::critical(&slot.object(), finding, fix)])
}

fn slot_wal(slot: &Slot) -> Verdict {
    let Some(kept) = &slot.kept else {
        return Ok("nothing is kept yet".to_owned());
    };
    let is_lost = slot.slot.as_ref().is_some_and(|there| continuity::invalid(there).is_some());
    let warnings = kept.warnings(slot.budget_bytes, slot.releases);
    let fix = format!(
        "# is the sidecar up, and does it keep up?\nportal-audit status --config {}",
        slot.config
    );
    let found = warnings.into_iter().filter(|_| !is_lost);
    let found = found.map(|warning| Found::warning(&slot.object(), warning, &fix));
    verdict(found.collect(), format!("keeps {}", crate::show::bytes(kept.bytes)))
}

fn slot_failover(slot: &Slot) -> Verdict {
    let is_ours = slot
        .slot
        .as_ref()
        .is_some_and(|there| continuity::fit(&slot.name, there, &slot.database).is_ok());
    let found = (is_ours && slot.failover == Some(false)).then(|| {
        let finding = "it has no failover flag: after a promotion it is not on the new primary, and changes are gone";
        // Only the replication protocol can alter a slot, and only while nobody reads it.
        let fix = format!(
            "# with the sidecar stopped:\npsql 'dbname={} replication=database' -c 'ALTER_REPLICATION_SLOT {} ( FAILOVER true )'",
            slot.database, slot.name
        );
        Found::warning(&slot.object(), finding, fix)
    });
    let holds = match slot.failover {
        Some(true) => "standbys can carry it on",
        _ if slot.slot.is_none() => "made with it where the server can (17 and later)",
        _ => "this version has none",
    };
    verdict(found.into_iter().collect(), holds)
}
