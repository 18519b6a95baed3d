//! What operators of Kubernetes declare, and the SQL that they leave to do: printed, applied by hand, and followed.

use crate::support::{
    Sidecar, audit_database, cluster, installation, open, program::command, run, value, wait_for,
};
use expect_test::expect_file;
use portal_audit::{config::Settings, connect::Session, demo::portal::PORTAL_SQL, sql};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_postgres::{AsyncMessage, NoTls};

/// A source that nobody has set up, with an audit database that is.
struct Place {
    name: String,
    folder: TempDir,
    source: Session,
    audit: Session,
    settings: Settings,
}

impl Place {
    async fn new(name: &str) -> Self {
        run(&open(cluster(), "postgres").await, &format!("CREATE DATABASE {name}")).await;
        let source = open(cluster(), name).await;
        run(&source, PORTAL_SQL).await;
        let audit = audit_database(cluster(), &format!("{name}_audit")).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("portal-audit.toml");
        let text = format!(
            "[audit]\ndsn = {:?}\n[[source]]\nname = {name:?}\ndsn = {:?}\nmapping = \"merge-reference\"\n[limits]\nspool_folder = {:?}\n",
            cluster().dsn(&format!("{name}_audit"), "postgres"),
            cluster().dsn(name, &format!("{name}_reader")),
            cluster().socket_dir()
        );
        std::fs::write(&file, text).unwrap();
        let settings = Settings::load(&file).unwrap();
        Self { name: name.to_owned(), folder, source, audit, settings }
    }

    /// Prints by the program itself, as ops do.
    fn print(&self, flags: &[&str]) -> String {
        let file = self.folder.path().join("portal-audit.toml");
        let arguments = ["sql", "source", "--config", file.to_str().unwrap()];
        let output = command(&[&arguments[..], flags].concat()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a script as psql does, and gives what it says of the Publication.
    async fn warnings(&self, script: &str) -> Result<Vec<String>, tokio_postgres::Error> {
        let dsn = cluster().dsn(&self.name, "postgres");
        let (client, mut connection) = tokio_postgres::connect(&dsn, NoTls).await?;
        let mut listening = tokio::task::JoinSet::new();
        listening.spawn(async move {
            let mut warnings = Vec::new();
            while let Some(Ok(message)) =
                std::future::poll_fn(|context| connection.poll_message(context)).await
            {
                if let AsyncMessage::Notice(notice) = message
                    && notice.message().starts_with("the Publication")
                {
                    warnings.push(notice.message().to_owned());
                }
            }
            warnings
        });
        let outcome = client.batch_execute(script).await;
        drop(client);
        let warnings = listening.join_next().await.unwrap().unwrap();
        outcome.map(|()| warnings)
    }

    /// The role as both operators make it.
    async fn make_role(&self) {
        run(&self.source, &format!("CREATE ROLE {}_reader LOGIN REPLICATION", self.name)).await;
    }

    /// Follows the source until one event is there, and says where its slot stands.
    async fn follow(&self) -> String {
        let sidecar = Sidecar::start(self.settings.clone());
        let streams = "SELECT count(*) = 1 FROM portal_audit.progress WHERE state = 'streaming'";
        wait_for("streaming", async || value::<bool>(&self.audit, streams).await).await;
        run(&self.source, "INSERT INTO portal.users (username, uid, gid) VALUES ('ada', 1, 1)")
            .await;
        run(&self.source, "UPDATE portal.users SET state = 'Active'").await;
        let both = "SELECT count(*) = 2 FROM public.events WHERE event_type IN ('user_created', 'user_activated') AND subject = 'ada'";
        wait_for("the events", async || value::<bool>(&self.audit, both).await).await;
        let slot = "SELECT format('%s %s %s %s', slot_name, slot_type, database, plugin) FROM pg_replication_slots WHERE database = current_database()";
        let slot = value(&self.source, slot).await;
        sidecar.stop().await;
        slot
    }

    /// Replica identities, and what is published with which columns.
    async fn published(&self) -> String {
        let list = if installation().major >= 15 { "r.prattrs::TEXT" } else { "NULL" };
        let query = format!(
            "SELECT string_agg(format('%s %s %s %s', c.oid::REGCLASS, c.relreplident, p.pubname, {list}), E'\\n' ORDER BY c.relname)
               FROM pg_class c LEFT JOIN pg_publication_rel r ON r.prrelid = c.oid LEFT JOIN pg_publication p ON p.oid = r.prpubid
              WHERE c.relnamespace = 'portal'::REGNAMESPACE AND c.relkind = 'r'"
        );
        value(&self.source, &query).await
    }
}

/// Tables among the objects of a Publication: each is a line of JSON.
fn objects(text: &str) -> Vec<Value> {
    let tables = text.lines().filter_map(|line| line.trim_start().strip_prefix("- table: "));
    tables.map(|table| serde_json::from_str(table).unwrap()).collect()
}

/// The same as the operator writes them in SQL.
fn tables(objects: &[Value]) -> String {
    let quote = |name: &Value| format!("\"{}\"", name.as_str().unwrap());
    let table = |object: &Value| {
        let name = format!("{}.{}", quote(&object["schema"]), quote(&object["name"]));
        let columns = object.get("columns").map(|columns| {
            let columns: Vec<String> = columns.as_array().unwrap().iter().map(quote).collect();
            format!(" ({})", columns.join(", "))
        });
        name + &columns.unwrap_or_default()
    };
    objects.iter().map(table).collect::<Vec<_>>().join(", ")
}

const OPTIONS: &str =
    "publish = 'insert, update, delete, truncate', publish_via_partition_root = 'true'";
const WRITES: &str = "BEGIN; INSERT INTO portal.users (username, uid, gid) VALUES ('bob', 1, 1);
    INSERT INTO portal.api_tokens (username, token_hash) VALUES ('bob', 'x'); UPDATE portal.api_tokens SET revoked = true;
    UPDATE portal.users SET name = 'b'; DELETE FROM portal.api_tokens; DELETE FROM portal.users; ROLLBACK";

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_of_cloudnative_pg_and_the_sql_beside_it_are_what_the_script_makes() {
    let place = Place::new("operators_cnpg").await;
    place.make_role().await;
    let yaml = place.print(&["--for", "cloudnative-pg"]);
    for line in [
        "  name: \"portal_audit\"",
        "  dbname: \"operators_cnpg\"",
        "      - name: \"operators_cnpg_reader\"",
    ] {
        assert!(yaml.lines().any(|own| own == line), "{line} is not in:\n{yaml}");
    }
    let printed = objects(&yaml);
    let create =
        format!("CREATE PUBLICATION portal_audit FOR TABLE {} WITH ({OPTIONS})", tables(&printed));

    // Before there is a publication, the SQL says how the printed one must be changed.
    let rest = place.print(&["--for", "cloudnative-pg", "--rest"]);
    let before = place.warnings(&rest).await.unwrap();
    let is_fitting = installation().major < 15;
    assert_eq!(
        before.is_empty(),
        is_fitting,
        "without column lists nothing is to be changed: {before:?}"
    );
    // Who applies it as it was printed does not break the portal, and is told the same.
    run(&place.source, &create).await;
    run(&place.source, WRITES).await;
    let applied = place.warnings(&rest).await.unwrap();
    assert_eq!(applied, before);
    if let [warning] = applied.as_slice() {
        let wanted = objects(warning);
        let token = wanted.iter().find(|object| object["name"] == "api_tokens").unwrap();
        assert!(
            token["columns"].as_array().is_some_and(|list| !list.contains(&json!("token_hash"))),
            "{token}"
        );
        let alter = format!("ALTER PUBLICATION portal_audit SET TABLE {}", tables(&wanted));
        run(&place.source, &alter).await;
        run(&place.source, WRITES).await;
    }
    assert_eq!(place.warnings(&rest).await.unwrap(), Vec::<String>::new(), "now it fits");

    let slot = place.follow().await;
    assert_eq!(slot, "portal_audit_operators_cnpg logical operators_cnpg pgoutput");
    let by_operator = place.published().await;
    run(&place.source, &place.print(&[])).await;
    assert_eq!(place.published().await, by_operator);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_goes_before_the_identity_that_excludes_it() {
    if installation().major < 15 {
        println!("not run: lists of columns came with 15");
        return;
    }
    let place = Place::new("operators_list").await;
    run(&place.source, "ALTER TABLE portal.users REPLICA IDENTITY DEFAULT; CREATE PUBLICATION portal_audit FOR TABLE portal.users (username, name)").await;
    let rest = place.print(&["--for", "cloudnative-pg", "--rest"]);
    let before = place.published().await;
    let error = place.warnings(&rest).await.unwrap_err();
    let message = error.as_db_error().unwrap().message();
    assert_eq!(
        message,
        "publication portal_audit has a column list for portal.users, which needs replica identity FULL"
    );
    assert_eq!(place.published().await, before, "and nothing is changed");
    run(&place.source, WRITES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_zalandos_operator_leaves_is_the_whole_script() {
    let place = Place::new("operators_zalando").await;
    place.make_role().await;
    let yaml = place.print(&["--for", "zalando"]);
    let rest = place.print(&["--for", "zalando", "--rest"]);
    assert_eq!(rest, place.print(&["--for", "plain"]));
    run(&place.source, &rest).await;
    // Patroni keeps a slot that is as its entry says, and drops another.
    let slot = place.follow().await;
    let [name, kind, database, plugin] = slot.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let entry = format!(
        "    slots:\n      \"{name}\":\n        type: {kind}\n        database: \"{database}\"\n        plugin: {plugin}\n"
    );
    assert!(yaml.contains(&entry), "{entry} is not in:\n{yaml}");
}

/// `UPDATE_EXPECT=1` writes the files anew.
#[test]
fn what_is_printed_is_reviewed() {
    let text = "[audit]\ndsn = \"host=/x dbname=portal-audit user=portal_audit_sidecar\"\n
        [[source]]\nname = \"portal\"\ndsn = \"host=/x dbname=portal user=portal_audit\"\nmapping = \"merge-reference\"\n
        [[source]]\nname = \"identity\"\ndsn = \"host=/x dbname=kratos user=portal_audit\"\nmapping = \"kratos\"\n";
    let settings = Settings::parse(std::path::Path::new("test.toml"), text).unwrap();
    let [portal, identity] = settings.sources.as_slice() else { panic!("two sources") };
    let budget = settings.limits.wal_budget_bytes;
    expect_file!["../operators/cloudnative-pg.yaml"]
        .assert_eq(&sql::cloudnative_pg(portal, budget));
    expect_file!["../operators/zalando.yaml"].assert_eq(&sql::zalando(portal, budget));
    // Tables and columns that not every version has.
    let yaml = sql::cloudnative_pg(identity, budget);
    let objects = yaml.split_once("objects:\n").unwrap().1;
    expect_file!["../operators/kratos.objects"].assert_eq(objects);
}
