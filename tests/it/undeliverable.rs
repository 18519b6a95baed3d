//! Events that the audit database refuses, each for a reason of its own: a stand-in takes the place of each, and the others go on.

use crate::support::{Portal, Wishes, cluster, portal, run, sample, value, wait_for};

const STAND_INS: &str = "SELECT count(*) FROM public.events WHERE event_type = 'undeliverable'";

/// A trigger of somebody else, who does not want events of some subjects.
async fn refuse(portal: &Portal, condition: &str, raise: &str) {
    let script = format!(
        "CREATE FUNCTION public.theirs() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {condition} THEN {raise}; END IF; RETURN NEW; END $$;
         CREATE TRIGGER theirs BEFORE INSERT ON public.events FOR EACH ROW EXECUTE FUNCTION public.theirs()"
    );
    run(&portal.audit, &script).await;
}

fn users(from: u32, to: u32) -> String {
    format!(
        "INSERT INTO portal.users (username, uid, gid) SELECT 'user' || n, n, n FROM generate_series({from}, {to}) AS n"
    )
}

/// What the stand-ins say, in order of the log.
async fn told(portal: &Portal) -> String {
    value(&portal.audit, "SELECT coalesce(string_agg(concat_ws(' ', payload->>'event_type', payload->>'table', payload->>'sqlstate', payload->>'constraint', payload->>'subject_sha256' = encode(sha256('user7'), 'hex')), E'\\n' ORDER BY payload->'_audit'->>'lsn', payload->'_audit'->>'n'), '') FROM public.events WHERE event_type = 'undeliverable' AND subject = current_database()::text || '' OR event_type = 'undeliverable'").await
}

/// The proof, but for `refused` events that are lost in it because stand-ins have their places.
async fn prove(portal: &Portal, refused: u64) {
    let proof = portal.proof().await;
    let missing = proof.differences.join("\n");
    assert!(proof.events > 0);
    assert_eq!((proof.lost, proof.doubled), (refused, refused), "{missing}");
    assert_eq!(value::<i64>(&portal.audit, STAND_INS).await.unsigned_abs(), refused);
}

/// One row at a time: each event goes in a statement of its own.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_a_few() {
    let portal = sample("undeliverable_few").await;
    refuse(&portal, "NEW.subject = 'user7'", "RAISE EXCEPTION 'not %', NEW.subject").await;
    let sidecar = portal.start().await;
    for n in 5..10 {
        portal.act(&users(n, n)).await;
    }
    sidecar.stop().await;
    assert_eq!(told(&portal).await, "user_created portal.users P0001 t");
    prove(&portal, 1).await;
    let kept = "SELECT count(*) FROM public.events WHERE event_type = 'user_created'";
    assert_eq!(value::<i64>(&portal.audit, kept).await, 4);
}
