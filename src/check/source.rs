//! One source: its sessions, what is read of it, and all checks of it.

use super::{
    Finding, Found, finding, judge, open, place, publication, quoted, role, server, slot,
    unanswered, within,
};
use crate::{
    catalog::Catalog,
    chain::chain,
    config::{Settings, Source, WalBudgetAction},
    connect::Session,
    continuity::{self, Decision},
    pipeline,
    wire::{Connection, WireError},
    write::{self, Progress},
};
use std::path::Path;

/// Checks one source. Progress is read in the audit database, if that answers.
pub(super) async fn check(
    path: &Path,
    settings: &Settings,
    source: &Source,
    audit: Option<&Session>,
) -> Vec<Finding> {
    let name = Some(source.name.as_str());
    let object = place(&source.conninfo);
    let asked = within(&object, ask(path, settings, source, audit));
    match asked.await {
        Ok(findings) => {
            let reached = Found::new(super::Status::Ok, &object, "it answers", "");
            [finding("reachable", name, reached)].into_iter().chain(findings).collect()
        }
        Err(found) => vec![finding("reachable", name, found)],
    }
}

async fn ask(
    path: &Path,
    settings: &Settings,
    source: &Source,
    audit: Option<&Session>,
) -> Result<Vec<Finding>, Found> {
    let object = place(&source.conninfo);
    let silent = |why: String| unanswered(&object, &why);
    let session = open(&source.conninfo).await?;
    let budget = settings.limits.wal_budget_bytes;
    let server = server::Server::load(&session, &source.slot, budget).await.map_err(silent)?;
    let mut role = role::Role::load(&session, &source.mapping).await.map_err(silent)?;
    let run_source_sql = format!(
        "portal-audit sql source --config {} --source {} | psql -d {}",
        path.display(),
        source.name,
        quoted(source.conninfo.dbname())
    );
    let facts =
        publication::Facts::load(&session, &source.publication, &source.mapping, &run_source_sql);
    let (facts, catalog) = facts.await.map_err(silent)?;
    let own_name = source.conninfo.application_name().unwrap_or("portal-audit (stream)");
    let wanted = slot::Wanted {
        slot: &source.slot,
        source: &source.name,
        config: path.display().to_string(),
        database: &catalog.database,
        own_name: own_name.to_owned(),
        version_num: catalog.version_num,
        budget_bytes: budget,
        releases: settings.limits.wal_budget_action == WalBudgetAction::Release,
    };
    let mut slot = slot::Slot::load(&session, &wanted).await.map_err(silent)?;
    match Connection::connect(&source.conninfo, "UTF8").await {
        Err(error) => role.refused = Some((error.sqlstate().map(str::to_owned), chain(&error))),
        Ok(mut replication) => {
            let standing = Standing { settings, source, audit, catalog: &catalog, slot: &slot };
            match standing.decide(&session, &mut replication).await {
                Ok(decision) => slot.decision = decision,
                Err(Undecided::Wire(error)) => {
                    role.refused = Some((error.sqlstate().map(str::to_owned), chain(&error)));
                }
                Err(Undecided::Other(why)) => return Err(silent(why)),
            }
        }
    }
    let name = Some(source.name.as_str());
    let mut findings = judge(server::CHECKS, &server, name, "server");
    findings.extend(judge(
        role::CHECKS,
        &role,
        name,
        &format!("role {}", quoted(source.conninfo.user())),
    ));
    findings.extend(judge(
        publication::CHECKS,
        &facts,
        name,
        &format!("publication {}", quoted(&source.publication)),
    ));
    findings.extend(judge(slot::CHECKS, &slot, name, &format!("slot {}", source.slot)));
    Ok(findings)
}

/// What the comparison with progress needs.
struct Standing<'a> {
    settings: &'a Settings,
    source: &'a Source,
    audit: Option<&'a Session>,
    catalog: &'a Catalog,
    slot: &'a slot::Slot,
}

/// Why there is no comparison.
enum Undecided {
    Wire(WireError),
    Other(String),
}

impl Standing<'_> {
    /// What the pipeline would decide; `None` on a standby, and where progress cannot be read.
    async fn decide(
        &self,
        session: &Session,
        replication: &mut Connection,
    ) -> Result<Option<Decision>, Undecided> {
        let Some(audit) = self.audit.filter(|_| !self.catalog.is_in_recovery) else {
            return Ok(None);
        };
        let Some(progress) = self.progress(audit).await? else { return Ok(None) };
        let identified =
            pipeline::identify(session, self.catalog, progress.as_ref(), replication).await;
        let here = match identified {
            Ok((_, here)) => here,
            Err(pipeline::Fault::Wire(error)) => return Err(Undecided::Wire(error)),
            Err(pipeline::Fault::Continuity(refusal)) => {
                let plan = Err(refusal.finding);
                return Ok(Some(Decision { crossing: None, plan }));
            }
            Err(other) => return Err(Undecided::Other(chain(&other))),
        };
        let slot = self.slot.slot();
        Ok(Some(continuity::decide(&self.source.slot, progress.as_ref(), slot, &here)))
    }

    /// What is written of the source; the outer `None`: the audit database does not say.
    async fn progress(&self, audit: &Session) -> Result<Option<Option<Progress>>, Undecided> {
        let timeout = self.settings.limits.audit_timeout();
        match write::load_progress(audit, &self.source.name, timeout).await {
            Ok(progress) => Ok(Some(progress)),
            // Nothing was ever written there.
            Err(error) if matches!(error.sqlstate(), Some("42P01" | "3F000")) => Ok(Some(None)),
            Err(_told_by_the_audit_database) => Ok(None),
        }
    }
}
