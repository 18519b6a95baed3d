//! Killed and cut at exact messages: whatever was on its way at that moment, nothing is lost and nothing doubled.

use crate::support::{
    Portal, Sidecar,
    linked::{Linked, linked},
    program::{Program, SettingsFile},
    proxy::{
        Ending, Fault, Message, Proxy, WHOLE,
        Way::{ToClient, ToServer},
        Which,
    },
    run, value, wait_for,
};

/// Which connection breaks.
#[derive(Clone, Copy, Debug)]
enum At {
    Source,
    Audit,
}
use At::{Audit, Source};

impl Linked {
    fn proxy(&mut self, at: At) -> &mut Proxy {
        match at {
            Source => &mut self.source,
            Audit => &mut self.audit,
        }
    }
}

/// One event, written by one statement.
fn small(name: &str) -> String {
    format!("INSERT INTO portal.users (username, uid, gid) VALUES ('{name}', 1, 1)")
}

/// So many events that they are written by COPY, between BEGIN and COMMIT.
fn large(name: &str) -> String {
    format!(
        "INSERT INTO portal.users (username, uid, gid) SELECT '{name}' || '_' || n, n, n FROM generate_series(1, 150) AS n"
    )
}

async fn is_written(portal: &Portal, name: &str) -> bool {
    let query = format!("SELECT count(*) > 0 FROM public.events WHERE subject LIKE '{name}%'");
    value(&portal.audit, &query).await
}

async fn assert_proven(portal: &Portal) {
    let proof = portal.proof().await;
    assert!(proof.events > 0, "{proof:?}");
    assert_eq!((proof.lost, proof.doubled), (0, 0), "{:#?}", proof.differences);
    let counted: i64 = value(&portal.audit, "SELECT events FROM portal_audit.progress").await;
    assert_eq!(counted, portal.count().await, "progress must count each event once");
}

/// A moment at which the sidecar is killed: what it waits for then, and whether the events are durable.
struct Moment {
    name: &'static str,
    is_large: bool,
    at: At,
    fault: Fault,
    skip: usize,
    message: Which,
    is_durable: bool,
}

fn is_copy_data(message: &Message<'_>) -> bool {
    message.is(ToServer, b'd', b"")
}

fn moments() -> Vec<Moment> {
    let moment = |name, is_large, at, fault, message, is_durable| Moment {
        name,
        is_large,
        at,
        fault,
        skip: 0,
        message,
        is_durable,
    };
    let is_bind = |message: &Message<'_>| message.is(ToServer, b'B', b"moment");
    let is_begin = |message: &Message<'_>| message.is(ToServer, b'Q', b"BEGIN");
    let is_commit = |message: &Message<'_>| message.is(ToServer, b'Q', b"COMMIT");
    let is_status =
        |message: &Message<'_>| is_copy_data(message) && message.body.first() == Some(&b'r');
    vec![
        moment("at_begin", true, Source, Fault::HoldNext, |m| m.is_pgoutput(b'B'), false),
        Moment {
            skip: 70,
            ..moment(
                "mid_transaction",
                true,
                Source,
                Fault::HoldNext,
                |m| m.is_pgoutput(b'I'),
                false,
            )
        },
        moment("commit_unread", true, Source, Fault::Hold, |m| m.is_pgoutput(b'C'), false),
        moment("begin_unsent", true, Audit, Fault::Hold, is_begin, false),
        moment("statement_unsent", false, Audit, Fault::Hold, is_bind, false),
        moment("mid_copy", true, Audit, Fault::HoldNext, is_copy_data, false),
        moment("commit_unsent", true, Audit, Fault::Hold, is_commit, false),
        moment("commit_unanswered", true, Audit, Fault::HoldAnswer, is_commit, true),
        moment("statement_unanswered", false, Audit, Fault::HoldAnswer, is_bind, true),
        moment("unconfirmed", true, Source, Fault::Hold, is_status, true),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_message_of_a_transaction() {
    let mut linked = linked("net_killed", "").await;
    let settings = SettingsFile::new(&linked.portal);
    for moment in moments() {
        let name = format!("moment_{}", moment.name);
        let program = Program::run(&settings.path);
        linked.portal.streaming().await;
        // The first batch after a start takes another way.
        linked.portal.act(&small(&format!("before_{}", moment.name))).await;
        linked.proxy(moment.at).arm(moment.fault, moment.skip, moment.message);
        let script = if moment.is_large { large(&name) } else { small(&name) };
        run(&linked.portal.source, &script).await;
        linked.proxy(moment.at).fired(&name).await;
        if moment.is_durable {
            wait_for("the events", async || is_written(&linked.portal, &name).await).await;
        }
        program.kill();
        let is_durable = is_written(&linked.portal, &name).await;
        assert_eq!(is_durable, moment.is_durable, "killed at another moment: {name}");
        linked.source.cut_all(Ending::Close);
        linked.audit.cut_all(Ending::Close);
    }
    // The last: the confirmation has arrived.
    let program = Program::run(&settings.path);
    linked.portal.act(&large("moment_confirmed")).await;
    let end: String =
        value(&linked.portal.audit, "SELECT end_lsn::text FROM portal_audit.progress").await;
    let confirmed = format!(
        "SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE database = 'net_killed'"
    );
    wait_for("the confirmation", async || value::<bool>(&linked.portal.source, &confirmed).await)
        .await;
    program.kill();
    let program = Program::run(&settings.path);
    linked.portal.act(&small("the_end")).await;
    assert!(program.terminate().success());
    assert_proven(&linked.portal).await;
}

/// Bytes of a `CopyData` with a message of pgoutput: tag, length, the frame's four fields, the message.
const IN_LENGTH: usize = 3;
const IN_FRAME: usize = 5 + 11;
const IN_MESSAGE: usize = 5 + 25 + 6;

#[tokio::test(flavor = "multi_thread")]
async fn the_source_link_is_cut_inside_a_message() {
    let mut linked = linked("net_source_cut", "").await;
    let sidecar = linked.portal.start().await;
    let kinds: [(u8, Which); 3] = [
        (b'B', |message| message.is_pgoutput(b'B')),
        (b'I', |message| message.is_pgoutput(b'I')),
        (b'C', |message| message.is_pgoutput(b'C')),
    ];
    for (kind, matches) in kinds {
        for after in [0, 1, IN_LENGTH, 5, IN_FRAME, IN_MESSAGE, WHOLE] {
            let ending = if after % 2 == 0 { Ending::Close } else { Ending::Reset };
            let name = format!("cut_{kind}_{after}");
            linked.source.arm(Fault::Cut { after, ending }, 0, matches);
            run(&linked.portal.source, &small(&name)).await;
            linked.source.fired(&name).await;
            wait_for(&name, async || is_written(&linked.portal, &name).await).await;
        }
    }
    linked.portal.catch_up().await;
    sidecar.stop().await;
    assert_proven(&linked.portal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_link_is_cut_in_the_midst_of_writing() {
    let mut linked = linked("net_audit_cut", "").await;
    let sidecar = Sidecar::start(linked.portal.settings.clone());
    linked.portal.streaming().await;
    let matches: [(&str, bool, Which); 7] = [
        ("begin", true, |message| message.is(ToServer, b'Q', b"BEGIN")),
        ("copy", true, |message| message.is(ToClient, b'G', b"")),
        ("data", true, is_copy_data),
        ("done", true, |message| message.is(ToServer, b'c', b"")),
        ("commit", true, |message| message.is(ToServer, b'Q', b"COMMIT")),
        ("answer", true, |message| message.is(ToClient, b'C', b"COMMIT")),
        ("bind", false, |message| message.is(ToServer, b'B', b"cut_bind")),
    ];
    for (kind, is_large, matches) in matches {
        for (after, ending) in
            [(0, Ending::Close), (4, Ending::Reset), (WHOLE, Ending::Close), (WHOLE, Ending::Reset)]
        {
            let name = format!("cut_{kind}_{after}_{ending:?}");
            // So that the batch is not the first after a start.
            linked.portal.act(&small(&format!("before_{name}"))).await;
            linked.audit.arm(Fault::Cut { after, ending }, 0, matches);
            run(&linked.portal.source, &if is_large { large(&name) } else { small(&name) }).await;
            linked.audit.fired(&name).await;
            wait_for(&name, async || is_written(&linked.portal, &name).await).await;
        }
    }
    linked.portal.catch_up().await;
    sidecar.stop().await;
    assert_proven(&linked.portal).await;
}
