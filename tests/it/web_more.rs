//! The pages: exports, what is recorded of reads, proof, subjects at a time, and many requests at once.

use crate::{
    support::{Portal, cluster, open, run, sample, value},
    web::{Answer, Site, tell, world},
};
use portal_audit::config::Access;
use std::path::Path;
use tokio::task::JoinSet;

/// The body of an answer in chunks, put together.
fn whole(answer: &Answer) -> String {
    if !answer.head.contains("transfer-encoding: chunked") {
        return answer.body.clone();
    }
    let (mut text, mut rest) = (String::new(), answer.body.as_str());
    loop {
        let (size, after) = rest.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return text;
        }
        text.push_str(&after[..size]);
        rest = after[size..].strip_prefix("\r\n").unwrap();
    }
}

/// Tokens `of-bo` and `of-root`; root sees all.
async fn site_of_two(portal: &Portal, folder: &Path) -> Site {
    let file = folder.join("tokens");
    let hashes = "SELECT encode(sha256('of-bo'), 'hex') || E' bo\\n' || encode(sha256('of-root'), 'hex') || ' root'";
    let hashes: String = value(&open(cluster(), "postgres").await, hashes).await;
    std::fs::write(&file, hashes).unwrap();
    Site::of(portal, Access::Token { file }, &["root"]).await
}

const BO: [&str; 1] = ["Authorization: Bearer of-bo"];
const ROOT: [&str; 1] = ["Authorization: Bearer of-root"];

#[tokio::test(flavor = "multi_thread")]
async fn an_export_holds_what_its_visitor_may_see_and_is_recorded_once() {
    let portal = sample("web_export").await;
    world(&portal).await;
    tell(&portal, 6, ["user_created", "=1+1", "=2+2", "user", ""], "{}").await;
    let folder = tempfile::tempdir().unwrap();
    let site = site_of_two(&portal, folder.path()).await;
    let ask = async |query: &str, who: &[&str]| {
        site.ask(&format!("GET /events/export?{query}"), who, "").await
    };
    let csv = ask("format=csv", &ROOT).await;
    assert_eq!(csv.status, 200, "{}", csv.body);
    for header in ["content-type: text/csv", "attachment; filename=\"portal-audit-events", ".csv\""]
    {
        assert!(csv.head.contains(header), "no {header}: {}", csv.head);
    }
    let csv = whole(&csv);
    assert_eq!(csv.lines().count(), 7, "{csv}");
    assert!(csv.contains(",'=1+1,'=2+2,"), "{csv}");
    let lines = whole(&ask("format=jsonl&q=type:project_*", &BO).await);
    let subjects: Vec<String> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["subject"].to_string())
        .collect();
    assert!(
        !subjects.is_empty() && subjects.iter().all(|subject| subject == "\"maple\""),
        "{lines}"
    );
    for format in ["cloudevents", "ocsf"] {
        let lines = whole(&ask(&format!("format={format}&q=type:project_created"), &ROOT).await);
        assert_eq!(lines.lines().count(), 2, "{lines}");
    }
    let recorded: String = value(&portal.audit, "SELECT string_agg(concat_ws(' ', caller, payload #>> '{filter,format}', payload ->> 'rows'), ', ' ORDER BY timestamp) FROM events WHERE event_type = 'log_exported'").await;
    assert_eq!(recorded, "root csv 6, bo jsonl 1, root cloudevents.jsonl 2, root ocsf.jsonl 2");
    for (query, status) in [("format=exe", 400), ("", 400), ("format=csv&q=colour:red", 400)] {
        assert_eq!(ask(query, &ROOT).await.status, status, "{query}");
    }
    // One was begun by bo, and five more may be in this minute.
    for _ in 0..5 {
        assert_eq!(ask("format=csv", &BO).await.status, 200);
    }
    let refused = ask("format=csv", &BO).await;
    assert!(refused.status == 429 && refused.head.contains("retry-after: 60"), "{}", refused.head);
    assert_eq!(ask("format=csv", &ROOT).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_export_comes_whole_in_pieces() {
    let portal = sample("web_export_long").await;
    run(&portal.audit, "INSERT INTO events SELECT gen_random_uuid(), timestamptz '2026-04-23 20:00Z' + n * interval '1 s', 'user_created', 'root', 'user-' || n, 'user', NULL, true, NULL, '{}' FROM generate_series(1, 20000) n").await;
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    let answer = site.get("/events/export?format=csv").await;
    assert!(answer.head.contains("transfer-encoding: chunked"), "{}", answer.head);
    let text = whole(&answer);
    assert_eq!(text.lines().count(), 20_001);
    assert!(text.ends_with("\r\n") && text.contains("user-20000"));
    // How many there are was not known when it began.
    let recorded: String = value(&portal.audit, "SELECT coalesce(payload ->> 'rows', 'not known') FROM events WHERE event_type = 'log_exported'").await;
    assert_eq!(recorded, "not known");
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_is_recorded_once_an_hour_for_each_thing() {
    let portal = sample("web_reads").await;
    world(&portal).await;
    let folder = tempfile::tempdir().unwrap();
    let site = site_of_two(&portal, folder.path()).await;
    let id: String =
        value(&portal.audit, "SELECT event_uuid::text FROM events WHERE event_type = 'project_member_added' AND target = 'bo'").await;
    for _ in 0..2 {
        for path in ["/events?q=actor:ada", "/projects/maple", &format!("/events/{id}"), "/"] {
            assert_eq!(site.ask(&format!("GET {path}"), &BO, "").await.status, 200, "{path}");
        }
        let path = "/api/v1/events?q=actor:ada&limit=1";
        assert_eq!(site.ask(&format!("GET {path}"), &BO, "").await.status, 200);
    }
    let recorded = "SELECT string_agg(concat_ws(' ', caller, payload #>> '{filter,page}', payload #>> '{filter,asked}'), ', ' ORDER BY timestamp) FROM events WHERE event_type = 'log_read'";
    let recorded: String = value(&portal.audit, recorded).await;
    assert_eq!(recorded, format!("bo /events actor:ada, bo Project maple, bo /events/ID {id}"));
    // Only admins see who looked at what.
    let seen = site.ask("GET /api/v1/events?q=type:log_read", &BO, "").await;
    assert!(seen.body.contains("\"events\":[]"), "{}", seen.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_shows_its_place_in_the_proof() {
    let portal = sample("web_proof").await;
    run(&portal.audit, "SELECT portal_audit.record('retention_applied', 'x', 's' || n, 'audit', NULL, true, NULL, '{}') FROM generate_series(1, 300) n").await;
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    for n in [1, 2, 150, 300] {
        let id: String = value(
            &portal.audit,
            &format!("SELECT event_uuid::text FROM events WHERE subject = 's{n}'"),
        )
        .await;
        let page = site.get(&format!("/events/{id}")).await;
        let place = format!("Leaf <b>{}</b> of tree <b>.own</b>", n - 1);
        assert!(page.status == 200 && page.body.contains(&place), "{}", page.body);
        let hash: String = value(&portal.audit, &format!("SELECT encode(leaves, 'hex') FROM portal_audit.seals WHERE tree = '.own' AND first = {}", n - 1)).await;
        assert!(page.body.contains(&hash) && page.body.contains("No checkpoint signs it yet"));
    }
    // One that nobody sealed has no place.
    tell(&portal, 1, ["user_created", "a", "b", "user", ""], "{}").await;
    let id: String =
        value(&portal.audit, "SELECT event_uuid::text FROM events WHERE subject = 'b'").await;
    let page = site.get(&format!("/events/{id}")).await;
    assert!(page.status == 200 && !page.body.contains("<h2>Proof</h2>"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subject_shows_what_was_so_at_a_date() {
    let portal = sample("web_subjects").await;
    run(&portal.audit, "SELECT portal_audit.adopt()").await;
    for (hour, event_type, subject, subject_type, target, payload) in [
        (1, "user_created", "bo", "user", "", r#"{"state": "active"}"#),
        (2, "org_created", "oak", "organization", "", r#"{"category": "research"}"#),
        (3, "project_created", "maple", "project", "", r#"{"organization": "oak"}"#),
        (
            4,
            "project_member_added",
            "maple",
            "project",
            "bo",
            r#"{"kind": "usermember", "role": "maintainer", "state": "active"}"#,
        ),
        (5, "experiment_created", "mesh", "experiment", "", r#"{"project": "maple"}"#),
        (
            6,
            "realization_created",
            "r.mesh.maple",
            "realization",
            "",
            r#"{"project": "maple", "experiment": "mesh", "action": "allocate", "resources": ["m1"]}"#,
        ),
        (30, "project_member_deleted", "maple", "project", "bo", r#"{"kind": "usermember"}"#),
    ] {
        let columns = [event_type, "bo", subject, subject_type, target];
        tell(&portal, hour * 60, columns, payload).await;
    }
    run(&portal.audit, "TRUNCATE portal_audit.trees, portal_audit.seals; SELECT portal_audit.adopt(); SELECT portal_audit.fold(100000)").await;
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    for (path, shown, hidden) in [
        ("/users/bo?at=2026-04-24", "Member of", "Never"),
        ("/users/bo", "Created experiments", "Member of"),
        ("/projects/maple?at=2026-04-24", "maintainer", "Never"),
        ("/projects/maple", "Resources held", "maintainer"),
        ("/projects/maple", "href=\"/experiments/maple/mesh\"", "Never"),
        ("/organizations/oak", "research", "Never"),
        ("/experiments/maple/mesh", "r.mesh.maple", "Never"),
        ("/projects/maple?at=2026-04-01", "No event until then", "Members"),
    ] {
        let page = site.get(path).await;
        assert_eq!(page.status, 200, "{path}: {}", page.body);
        assert!(page.body.contains(shown), "{path} does not show {shown}: {}", page.body);
        assert!(!page.body.contains(hidden), "{path} shows {hidden}: {}", page.body);
    }
    assert_eq!(site.get("/projects/maple?at=x").await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_elsewhere_cannot_ask_by_another_name() {
    let portal = sample("web_rebinding").await;
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    for (host, status) in
        [("localhost", 200), ("[::1]:8484", 200), ("evil.example", 403), ("127.0.0.1.evil", 403)]
    {
        for path in ["/", "/api/v1/events", "/events/export?format=csv"] {
            let answer = site.ask(&format!("GET {path}"), &[&format!("Host: {host}")], "").await;
            assert_eq!(answer.status, status, "{host} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_refused() {
    let portal = sample("web_large").await;
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    let long = "x".repeat(3_000);
    assert_eq!(site.get(&format!("/events?q={long}")).await.status, 400);
    assert_eq!(site.get(&format!("/events?q={}", long.repeat(4))).await.status, 414);
    let many: Vec<String> = (0..100).map(|n| format!("X-{n}: 1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(site.ask("GET /", &many, "").await.status, 431);
    let form = ["Content-Type: application/x-www-form-urlencoded", "Sec-Fetch-Site: same-origin"];
    let body = format!("token={}", "x".repeat(5_000));
    assert_eq!(site.ask("POST /login", &form, &body).await.status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_answered_or_told_to_wait_and_leaves_sessions_to_others() {
    let portal = sample("web_burst").await;
    world(&portal).await;
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    let site = std::sync::Arc::new(site);
    let mut asked = JoinSet::new();
    for n in 0..400 {
        let site = std::sync::Arc::clone(&site);
        let path = ["/events", "/", "/projects/maple", "/api/v1/events"][n % 4];
        asked.spawn(async move { site.get(path).await });
    }
    while let Some(answer) = asked.join_next().await {
        let answer = answer.unwrap();
        assert!(matches!(answer.status, 200 | 503), "{}: {}", answer.status, answer.body);
        assert!(answer.status == 200 || answer.head.contains("retry-after"), "{}", answer.head);
    }
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename LIKE '%\\_pages'";
    let sessions: i64 = value(&portal.audit, sessions).await;
    assert!(sessions <= 4, "{sessions} sessions");
    assert_eq!(site.get("/events").await.status, 200);
}
