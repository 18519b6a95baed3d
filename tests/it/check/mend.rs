//! Each row of the faults: made, found, mended, and then nothing is found.

use super::{
    Ready, expected,
    faults::{
        FAULTS,
        Heal::{self, By, Printed, PrintedThenSourceSql, SourceSql},
        Place::{self, Source},
    },
    paste, told,
};
use crate::support::{run, standby::major};
use portal_audit::check::Finding;

/// Column lists, row filters and whole schemas came with 15.
fn is_since_15(make: &str) -> bool {
    let added = make.split("ADD TABLE").nth(1).unwrap_or_default();
    added.contains('(') || make.contains("IN SCHEMA") || make.contains("password_hash")
}

fn filled(ready: &Ready, sql: &str) -> String {
    let source = ready.source_sql();
    sql.replace("{source_sql}", &source)
        .replace("{audit_sql}", portal_audit::sql::audit())
        .replace("{p}", "portal_audit")
        .replace("{s}", &ready.settings().sources[0].slot)
        .replace("{r}", &ready.reader)
        .replace("{w}", &ready.writer)
        .replace("{d}", &ready.portal.name)
}

/// Mends it; gives what is still found where the printed SQL should have mended all.
async fn mend(ready: &Ready, place: Place, faults: &[Finding], heal: Heal) -> Vec<Finding> {
    let session = if place == Source { &ready.portal.source } else { &ready.portal.audit };
    let mut left = Vec::new();
    let rest = match heal {
        Printed(rest) => {
            // One statement may mend several; a command of the shell is not for this.
            let mut fixes: Vec<&str> = faults.iter().map(|fault| fault.fix.as_str()).collect();
            fixes.retain(|fix| !fix.contains("psql"));
            fixes.sort_unstable();
            fixes.dedup();
            for fix in fixes {
                paste(session, fix).await;
            }
            left = ready.faults().await;
            rest
        }
        PrintedThenSourceSql(rest) => {
            paste(session, &faults[0].fix).await;
            run(session, &ready.source_sql()).await;
            rest
        }
        SourceSql(rest) => {
            let is_named = |fault: &Finding| fault.fix.contains("portal-audit sql source --config");
            assert!(faults.iter().all(is_named), "{faults:#?}");
            run(session, &ready.source_sql()).await;
            rest
        }
        By(sql) => sql,
    };
    run(session, &filled(ready, rest)).await;
    left
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_is_found_and_mended_by_what_is_printed() {
    let ready = Ready::new("check_faults").await;
    ready.is_well("at the beginning").await;
    let mut wrong = Vec::new();
    for &(name, (place, make, finds, heal)) in FAULTS {
        if major() == 14 && is_since_15(make) {
            continue;
        }
        let session = if place == Source { &ready.portal.source } else { &ready.portal.audit };
        run(session, &filled(&ready, make)).await;
        let faults = ready.faults().await;
        // Slots have no failover flag before 17, and on 14 a secret that is published is a warning.
        let is_there = |id: &&str| {
            (major() >= 17 || !id.starts_with("slot_failover"))
                && (major() > 14 || !id.starts_with("secrets_published"))
        };
        let finds: Vec<&str> = finds.iter().copied().filter(is_there).collect();
        if told(&faults) != expected(&finds) {
            wrong.push(format!("{name}: found {faults:#?}"));
        }
        let left = mend(&ready, place, &faults, heal).await;
        let after = ready.faults().await;
        if !left.is_empty() || !after.is_empty() {
            wrong.push(format!("{name}, mended: {left:#?}\n{after:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
