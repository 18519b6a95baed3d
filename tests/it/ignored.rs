//! What the reference mapping leaves out on purpose is neither an event nor counted as unmapped; what nobody thought of is counted.

use crate::support::{Portal, run, sample, value};

const GIVEN: &str = "
    INSERT INTO portal.projects (name, gid, state) VALUES ('mesh', 1, 'Active');
    INSERT INTO portal.users (username, uid, gid) VALUES ('sedge', 1, 1);
    INSERT INTO portal.experiments (project, name, creator) VALUES ('mesh', 'mesh8', 'sedge');
    INSERT INTO portal.experiment_models (project, experiment, revision) VALUES ('mesh', 'mesh8', 'c0ffee1');
    INSERT INTO portal.realizations (pid, eid, id, creator, code) VALUES ('mesh', 'mesh8', 'one', 'sedge', 'Ok'), ('mesh', 'mesh8', 'two', 'sedge', 'Ok');
    INSERT INTO portal.allocations (pid, eid, rid, fid, resource, node, virt) VALUES ('mesh', 'mesh8', 'one', 'hill', 'm1', 'a', FALSE);
    INSERT INTO portal.materializations (pid, eid, rid, highest_status) VALUES ('mesh', 'mesh8', 'one', 'Processing'), ('mesh', 'mesh8', 'two', 'Success');
    INSERT INTO portal.facilities (name, address) VALUES ('hill', 'hill.example'), ('dale', 'dale.example');
    INSERT INTO portal.facility_resources (facility, resource) VALUES ('hill', 'm1');
    INSERT INTO portal.api_tokens (username, token_hash) VALUES ('sedge', 'h');
    INSERT INTO portal.xdcs (project, name, creator) VALUES ('mesh', 'desk', 'sedge');";

async fn unmapped(portal: &Portal) -> String {
    let query = "SELECT coalesce(string_agg(relation || ' ' || operation || ' ' || changes, ', ' ORDER BY relation, operation), '') FROM portal_audit.unmapped";
    value(&portal.audit, query).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_on_purpose_is_not_unmapped() {
    let portal = sample("ignored").await;
    run(&portal.source, GIVEN).await;
    let sidecar = portal.start().await;
    for update in [
        "experiment_models SET msg = 'reading', compile_time = now()",
        "realizations SET xhash = 'x', ver = ver + 1, nodes = '{\"a\": {}}'",
        "allocations SET cores_used = 4",
        "materializations SET messages = '[{\"level\": \"Info\"}]', last_updated = now()",
        "materializations SET highest_status = 'Unresponsive' WHERE rid = 'one'",
        "facilities SET certificate = 'c', cacertificate = 'ca', model = '\\x00', ver = ver + 1",
        "facility_resources SET roles = ARRAY['TbNode']",
        "api_tokens SET last_used = now()",
        "xdcs SET mem_limit = 8",
    ] {
        portal.act(&format!("UPDATE portal.{update}")).await;
    }
    assert_eq!((portal.count().await, unmapped(&portal).await), (0, String::new()));
    // A row that comes to stand for something else is not what was meant.
    for update in [
        "experiment_models SET revision = 'c0ffee2'",
        "allocations SET resource = 'm2'",
        "facilities SET name = 'vale' WHERE name = 'dale'",
        "facility_resources SET resource = 'm2'",
        "xdcs SET name = 'bench'",
    ] {
        portal.act(&format!("UPDATE portal.{update}")).await;
    }
    assert_eq!(portal.count().await, 0);
    assert_eq!(
        unmapped(&portal).await,
        "portal.allocations update 1, portal.experiment_models update 1, portal.facilities update 1, portal.facility_resources update 1, portal.xdcs update 1"
    );
    sidecar.stop().await;
}
