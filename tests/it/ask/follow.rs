//! `events --follow`: what arrives is shown once, in the order in which it was written.

use super::{audit, story};
use crate::support::{Portal, program::command, run, sample, value};
use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    sync::mpsc,
};

/// Lines of a program that goes on, as they come.
struct Following {
    child: std::process::Child,
    lines: mpsc::Receiver<String>,
}

impl Following {
    fn start(dsn: &str, arguments: &[&str]) -> Self {
        let mut command =
            command(&[&["events", "--follow", "--format", "json"], arguments].concat());
        command.args(["--audit", dsn]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    /// The subject of the next event.
    fn next(&self) -> String {
        let line = self.lines.recv_timeout(crate::support::WAIT_MAX).unwrap();
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        event["subject"].as_str().unwrap().to_owned()
    }

    /// Ctrl-C; gives what else was shown, and what was said on stderr.
    fn stop(self) -> (Vec<String>, String) {
        crate::support::program::signal(self.child.id(), "INT");
        let output = self.child.wait_with_output().unwrap();
        assert!(output.status.success());
        (self.lines.iter().collect(), String::from_utf8(output.stderr).unwrap())
    }
}

/// An event at a time, sealed in a tree or not.
async fn write(portal: &Portal, subject: &str, at: &str, is_sealed: bool) {
    let insert = format!(
        "INSERT INTO public.events VALUES (gen_random_uuid(), {at}, 'experiment_created', 'maple', '{subject}', 'experiment', NULL, true, NULL, '{{}}') RETURNING event_uuid"
    );
    let query = if is_sealed {
        format!(
            "WITH e AS ({insert}), t AS (SELECT coalesce((SELECT size FROM portal_audit.trees WHERE tree = 'late'), 0) AS size) SELECT portal_audit.seal('late', t.size, uuid_send(event_uuid), uuid_send(gen_random_uuid()), sha256('')) FROM e, t"
        )
    } else {
        insert
    };
    run(&portal.audit, &query).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_misses_nothing_and_sees_nothing_twice() {
    let portal = story("ask_follow").await;
    run(
        &portal.audit,
        "INSERT INTO portal_audit.trees (tree) VALUES ('late') ON CONFLICT DO NOTHING",
    )
    .await;
    write(&portal, "before", "now()", true).await;
    let following =
        Following::start(&audit(&portal), &["--subject-type", "experiment", "--limit", "1"]);
    assert_eq!(following.next(), "before");
    let (mut expected, mut seen) = (Vec::new(), Vec::new());
    for round in 0..4 {
        // One of last year stands after one of now, because it was written later.
        for (kind, at, is_sealed) in [
            ("now", "now()", true),
            ("late", "now() - interval '1 year'", true),
            ("foreign", "now()", false),
        ] {
            let subject = format!("{kind}{round}");
            write(&portal, &subject, at, is_sealed).await;
            seen.push(following.next());
            expected.push(subject);
        }
        write_unwanted(&portal).await;
    }
    assert_eq!(seen, expected);
    let (rest, error) = following.stop();
    assert!(rest.is_empty(), "{rest:?}");
    assert!(error.contains("\"events\":13") && error.contains("complete_to"), "{error}");
    let read: String =
        value(&portal.audit, "SELECT asked::text || ' ' || rows FROM public.reads").await;
    assert_eq!(read, r#"{"verb": "events", "asked": {"subject_type": ["experiment"]}} 13"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_portal_user_who_follows_does_not_look_through_what_others_did() {
    const READ: &str = "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_user_tables WHERE relid = 'public.events'::regclass";
    let portal = sample("ask_follow_own").await;
    run(&portal.audit, "CREATE ROLE ask_maple LOGIN; GRANT portal_audit_viewer TO ask_maple; INSERT INTO portal_audit.viewers VALUES ('ask_maple', 'maple');
        INSERT INTO portal_audit.event_types (event_type, describe, retention, visible_to) VALUES ('experiment_created', '{subject}', 'project', '{self}')
          ON CONFLICT (event_type) DO UPDATE SET visible_to = excluded.visible_to;
        INSERT INTO portal_audit.progress (source, state, slot, system_identifier, timeline, database_oid, end_lsn, complete_to) VALUES ('follow', 'streaming', 's', '1', 1, 1, '0/2000', now());
        INSERT INTO public.events SELECT gen_random_uuid(), now() - n * interval '1 second', 'login_failed', '', 'wrenn', 'user', NULL, false, NULL, '{}' FROM generate_series(600, 60600) n; ANALYZE public.events").await;
    write(&portal, "before", "now() - interval '2 days'", false).await;
    let dsn = crate::support::cluster().dsn(&format!("{}_audit", portal.name), "ask_maple");
    let before: i64 = value(&portal.audit, READ).await;
    let following = Following::start(&dsn, &["--caller", "maple", "--limit", "1"]);
    assert_eq!(following.next(), "before");
    write(&portal, "after", "now()", false).await;
    assert_eq!(following.next(), "after");
    following.stop();
    let read = async || value::<i64>(&portal.audit, READ).await - before;
    crate::support::wait_for("what was read to be told", async || read().await > 0).await;
    assert!(read().await < 60_000, "{} events looked at", read().await);
}

async fn write_unwanted(portal: &Portal) {
    let insert = "INSERT INTO public.events VALUES (gen_random_uuid(), now(), 'login_failed', '', 'maple', 'user', NULL, false, 'wrong', '{}')";
    run(&portal.audit, insert).await;
}
