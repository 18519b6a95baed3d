//! The verb as a process: its exit codes, its JSON, its text.

use super::Ready;
use crate::support::{program::command, run, standby::major};

fn check(ready: &Ready, more: &[&str]) -> (i32, String) {
    let path = ready.file(&ready.text);
    let arguments = ["check", "--config", path.to_str().unwrap()];
    let output = command(&[&arguments[..], more].concat()).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "nothing but the report");
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_is_that_of_the_worst() {
    let ready = Ready::new("check_exit").await;
    let (code, text) = check(&ready, &[]);
    // On 14 a secret crosses the wire, which is a warning.
    let is_14 = major() == 14;
    assert_eq!((code, text.lines().count() < 12), (i32::from(is_14), true), "{text}");
    assert!(
        text.contains("source check_exit, database check_exit at ") && text.contains(" ok\n"),
        "{text}"
    );
    let (_, verbose) = check(&ready, &["--verbose"]);
    assert!(
        verbose.lines().count() > 40 && verbose.contains("  ok        wal_level: logical"),
        "{verbose}"
    );

    run(&ready.portal.source, "GRANT UPDATE ON portal.users TO check_exit_reader").await;
    let (code, text) = check(&ready, &[]);
    assert_eq!(code, 1, "{text}");
    run(&ready.portal.source, "ALTER PUBLICATION portal_audit SET (publish = 'insert')").await;
    let (code, text) = check(&ready, &[]);
    assert_eq!(code, 2, "{text}");
    let critical = text.find("  CRITICAL  publication_operations: publication portal_audit");
    assert!(critical < text.find("  warning   role_may_write"), "{text}");

    let (code, json) = check(&ready, &["--format", "json"]);
    let findings: serde_json::Value = serde_json::from_str(&json).unwrap();
    let findings = findings.as_array().unwrap();
    assert!(code == 2 && findings.len() > 40);
    for finding in findings {
        let keys: Vec<&String> = finding.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["check", "status", "object", "finding", "fix", "source"]);
    }
    let worst = findings.iter().find(|finding| finding["status"] == "critical").unwrap();
    assert_eq!(worst["check"], "publication_operations");
    assert_eq!(worst["source"], "check_exit");
    assert!(worst["fix"].as_str().unwrap().starts_with("ALTER PUBLICATION portal_audit SET"));
}
