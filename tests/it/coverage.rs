//! Coverage: what was asked for, judged by the live configuration. The README's table is generated here.

use crate::support::{
    Portal, Wishes, cluster, kratos::KRATOS_SQL, portal, program::SettingsFile, program::command,
    run, sample,
};
use portal_audit::coverage::{self, ASKS, Answer, Asks, Status};
use std::path::Path;

async fn answers(portal: &Portal) -> Vec<Answer> {
    let asks = Asks::parse("asks.toml", ASKS).unwrap();
    coverage::judge(&asks, &coverage::load(&portal.settings).await)
}

fn answer<'a>(answers: &'a [Answer], ask: &str) -> &'a Answer {
    answers.iter().find(|answer| answer.ask.starts_with(ask)).unwrap_or_else(|| panic!("{ask}"))
}

/// The README around its coverage, and that.
fn sections(readme: &str) -> [&str; 3] {
    let start = readme.find("<!-- coverage -->\n").expect("the README has the marker");
    let (before, rest) = readme.split_at(start + "<!-- coverage -->\n".len());
    let end = rest.find("<!-- /coverage -->").expect("the README has the end marker");
    let (section, after) = rest.split_at(end);
    [before, section, after]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_says_what_the_sample_portal_is_told_of() {
    let mut portal = sample("portal").await;
    // The identity server beside it, as deploy/portal-audit.toml has it.
    let wishes =
        Wishes { name: "identity", schema: KRATOS_SQL, mapping: "kratos", ..Wishes::default() };
    let identity = self::portal(cluster(), wishes).await;
    portal.settings.sources.extend(identity.settings.sources);
    let told = coverage::markdown(&answers(&portal).await);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let [before, section, after] = sections(&readme);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, format!("{before}{told}{after}")).unwrap();
        return;
    }
    assert_eq!(section, told, "run ./x bless and read the difference");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_database_decides() {
    let portal = sample("coverage_live").await;
    let before = answers(&portal).await;
    let removed = answer(&before, "member removed from an organization");
    assert_eq!(removed.status, Status::Partly);
    assert!(
        removed
            .improve
            .contains(&"CALL portal_audit.attach('portal.organization_members');".to_owned())
    );
    assert_eq!(answer(&before, "experiment created").status, Status::Yes);
    assert_eq!(answer(&before, "the caller").status, Status::Partly);
    assert_eq!(answer(&before, "denied requests").status, Status::No);

    // The step that was offered, taken.
    run(&portal.source, &removed.improve[0]).await;
    let attached = answers(&portal).await;
    let removed = answer(&attached, "member removed from an organization");
    assert_eq!(removed.status, Status::Yes, "{removed:?}");
    assert_eq!(
        removed.rules[0].facts["caller"],
        "the context trigger on portal.organization_members"
    );
    assert!(removed.reason.as_ref().unwrap().contains("SET LOCAL portal.caller"));
    // A trigger that does not fire names nobody.
    run(&portal.source, "ALTER TABLE portal.organization_members DISABLE TRIGGER ALL").await;
    assert_eq!(
        answer(&answers(&portal).await, "member removed from an org").status,
        Status::Partly
    );

    // What is rolled back is told by another trigger, and never wholly.
    let rolled_back = |answers: &[Answer]| answer(answers, "failed attempts").status;
    assert_eq!(rolled_back(&attached), Status::No);
    run(
        &portal.source,
        "CREATE FUNCTION portal_audit.attempt() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER a BEFORE INSERT ON portal.users FOR EACH STATEMENT EXECUTE FUNCTION portal_audit.attempt()",
    )
    .await;
    assert_eq!(rolled_back(&answers(&portal).await), Status::Partly);

    // A table that leaves the publication, and an identity that no longer carries old values.
    run(
        &portal.source,
        "ALTER PUBLICATION portal_audit DROP TABLE portal.users; ALTER TABLE portal.projects REPLICA IDENTITY DEFAULT",
    )
    .await;
    let after = answers(&portal).await;
    let created = answer(&after, "user created");
    assert_eq!(created.status, Status::No, "{created:?}");
    assert!(created.reason.as_ref().unwrap().contains("does not publish portal.users"));
    assert!(created.improve[0].contains("portal-audit sql source"));
    let frozen = answer(&after, "project activated");
    assert_eq!(frozen.status, Status::No, "{frozen:?}");
    assert!(frozen.reason.as_ref().unwrap().contains("old value of \"state\""));
    // What reads no old value is told as before.
    let project = answer(&after, "project created and deleted");
    assert_eq!(project.rules[0].event_type, "project_created");
    assert_eq!(answer(&after, "organization activated").status, Status::Yes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_does_not_answer_tells_nothing() {
    let mut portal = sample("coverage_away").await;
    portal.settings.sources[0].publication = "no_such_publication".into();
    let answers = answers(&portal).await;
    let created = answer(&answers, "user created");
    assert_eq!(created.status, Status::No);
    assert!(created.reason.as_ref().unwrap().contains("no_such_publication"), "{created:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fact_that_a_block_leaves_out_is_named_with_its_column() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("short.toml");
    let block = "[[event]]\ntype = \"org_created\"\ntable = \"portal.organizations\"\non = \"insert\"\nsubject = \"name\"\nsubject_type = \"organization\"\ndescribe = \"{subject}\"\nretention = \"project\"\n";
    std::fs::write(&file, block).unwrap();
    let name = "coverage_short";
    let wishes = Wishes { name, mapping: file.to_str().unwrap(), ..Wishes::default() };
    let portal = portal(cluster(), wishes).await;
    let answers = answers(&portal).await;
    let created = answer(&answers, "organization created");
    assert_eq!(created.status, Status::Partly);
    let reason = created.reason.as_ref().unwrap();
    assert!(reason.contains("org_created does not tell category."), "{reason}");
    assert!(reason.contains("No block gives org_deleted."), "{reason}");
    let step = created.improve.iter().find(|step| step.contains("category")).unwrap();
    assert!(step.contains("short.toml:1: payload = { category = \"category\" }"), "{step}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_verb_prints_three_formats() {
    let portal = sample("coverage_verb").await;
    let settings = SettingsFile::new(&portal);
    let config = settings.path.to_str().unwrap();
    let verb = |format| {
        let output =
            command(&["coverage", "--config", config, "--format", format]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = verb("text");
    assert!(text.contains("user_created  mapping/merge-reference.toml:"), "{text}");
    assert!(text.contains("WHAT WOULD IMPROVE IT"), "{text}");
    assert!(verb("markdown").contains("| user created | yes | `user_created` |"));
    let json: serde_json::Value = serde_json::from_str(&verb("json")).unwrap();
    let first = &json[0];
    assert_eq!((&first["ask"], &first["status"]), (&"user created".into(), &"yes".into()));
    assert_eq!(first["rules"][0]["event_type"], "user_created");
    assert!(first["reason"].is_null() && first["improve"].as_array().unwrap().is_empty());
}

#[test]
fn asks_that_ask_nothing_are_refused() {
    let error = |text: &str| Asks::parse("a.toml", text).unwrap_err().to_string();
    assert!(
        error("[[ask]]\nabout = \"A\"\nask = \"b\"\n")
            .ends_with("\"b\" says neither types, never nor judge")
    );
    let strange = "[[ask]]\nabout = \"A\"\nask = \"b\"\ntypes = [\"t\"]\nfacts = [\"colour\"]\n";
    assert!(error(strange).contains("\"colour\" is no fact"));
}
