//! The pages and their API, asked over HTTP as a browser asks.

use crate::support::{Portal, cluster, open, run, sample, value};
use portal_audit::{
    config::{self, Access, Pages},
    metrics::{Metrics, State},
    note::SigningKey,
    proof::checkpoint,
    serve, web,
};
use sha2::{Digest as _, Sha256};
use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_postgres::types::ToSql;

/// Pages of a portal's audit database, served until this is dropped.
pub(crate) struct Site {
    pub(crate) address: SocketAddr,
    metrics: Arc<Metrics>,
    _serving: JoinSet<()>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Site {
    pub(crate) async fn of(portal: &Portal, access: Access, admins: &[&str]) -> Self {
        let login = format!("{}_pages", portal.name);
        let roles = format!(
            "CREATE ROLE {login} LOGIN NOINHERIT; GRANT portal_audit_reader, portal_audit_web TO {login}"
        );
        run(&portal.audit, &roles).await;
        let dsn = cluster().dsn(&format!("{}_audit", portal.name), &login);
        let conninfo = config::conninfo(&dsn).unwrap();
        let admins = admins.iter().map(|name| (*name).to_owned()).collect();
        let metrics = Arc::new(Metrics::default());
        let routes = web::routes(&Pages { conninfo, access, admins }, &metrics);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        let told = Arc::clone(&metrics);
        serving.spawn(async move { match serve::serve(listener, told, routes).await {} });
        Self { address, metrics, _serving: serving }
    }

    pub(crate) async fn ask(&self, request: &str, headers: &[&str], body: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut text = format!("{request} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|header| header.starts_with("Host:")) {
            text.push_str(&format!("Host: {}\r\n", self.address));
        }
        for header in headers {
            text.push_str(header);
            text.push_str("\r\n");
        }
        text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        // Of a body in chunks the sizes stay in it, which no assertion here minds.
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), &["Accept: text/html"], "").await
    }

    pub async fn json(&self, path: &str, headers: &[&str]) -> serde_json::Value {
        let answer = self.ask(&format!("GET /api/v1{path}"), headers, "").await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        let body = answer.body.find('{').unwrap()..=answer.body.rfind('}').unwrap();
        serde_json::from_str(&answer.body[body]).unwrap()
    }
}

/// An event as others would write it, at so many minutes of a day.
pub(crate) async fn tell(portal: &Portal, minute: u32, columns: [&str; 5], payload: &str) {
    const QUERY: &str = "INSERT INTO public.events VALUES (gen_random_uuid(), timestamptz '2026-04-23 20:00:00Z' + make_interval(mins => $1::int), $2, $3, $4, $5, nullif($6, ''), true, NULL, $7::text::jsonb)";
    let minute = i32::try_from(minute).unwrap();
    let [event_type, caller, subject, subject_type, target] = columns;
    let parameters: [&(dyn ToSql + Sync); 7] =
        [&minute, &event_type, &caller, &subject, &subject_type, &target, &payload];
    portal.audit.client.execute(QUERY, &parameters).await.unwrap();
}

/// A small world: two users, a project, and somebody else's token.
pub(crate) async fn world(portal: &Portal) {
    let types = "INSERT INTO portal_audit.event_types VALUES ('project_created', '{caller} created project {subject}', 'project', '{admin,project}'), ('project_member_added', '{caller} added {target} to {subject} as {payload.role}', 'project', '{admin,project,self}'), ('token_created', '{caller} made token {subject}', 'user', '{admin,self}') ON CONFLICT DO NOTHING";
    run(&portal.audit, types).await;
    tell(portal, 1, ["project_created", "ada", "maple", "project", ""], "{}").await;
    for (minute, member, role) in [(2, "ada", "creator"), (3, "bo", "member")] {
        let payload = format!(r#"{{"kind": "usermember", "role": "{role}", "state": "active"}}"#);
        tell(portal, minute, ["project_member_added", "ada", "maple", "project", member], &payload)
            .await;
    }
    tell(portal, 4, ["token_created", "ada", "deploy-key", "token", ""], "{}").await;
    tell(portal, 5, ["project_created", "cy", "birch", "project", ""], "{}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_is_there_with_its_guards() {
    let portal = sample("web_pages").await;
    world(&portal).await;
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    for (path, status, shown) in [
        ("/", 200, "Events a day"),
        ("/?at=2026-04-24&days=30", 200, "At the end of 2026-04-24"),
        ("/?at=tomorrow", 400, "A date is written"),
        ("/events", 200, "ada added bo to maple as member"),
        ("/events?q=actor:cy", 200, "cy created project birch"),
        ("/events?q=colour:red", 400, "unknown word"),
        ("/events?q=success:false", 200, "No event fits"),
        ("/events?before=never", 400, "no such page of events"),
        ("/events/11111111-1111-1111-1111-111111111111", 404, "no such page"),
        ("/users/bo", 200, "ada added bo"),
        ("/users/nobody", 404, "no such page"),
        ("/projects/maple", 200, "ada created project maple"),
        ("/pipeline", 200, "Changes without a rule"),
        ("/assets/style-2.css", 404, ""),
        ("/assets/..%2f..%2fCargo.toml", 404, ""),
        ("/nothing", 404, "no such page"),
        ("/livez", 200, "ok"),
    ] {
        let answer = site.get(path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.body.contains(shown), "{path} does not show {shown:?}: {}", answer.body);
        if path == "/livez" {
            continue;
        }
        for header in ["content-security-policy: default-src 'none'", "nosniff", "no-referrer"] {
            assert!(answer.head.contains(header), "{path} has no {header}: {}", answer.head);
        }
        // Nothing of a page comes from elsewhere, and nothing stands inline that the policy forbids.
        for foreign in ["src=\"http", "href=\"http", "style=\"", "<script", "onclick"] {
            assert!(!answer.body.contains(foreign), "{path} has {foreign}");
        }
    }
    // What a page needs beside itself has the hash of its bytes in its name, and is kept for ever; a name of other bytes is nothing.
    let page = site.get("/facilities").await.body;
    let assets = page.split("\"/assets/").skip(1).map(|rest| rest.split('"').next().unwrap());
    let mut assets: Vec<&str> = assets.collect();
    assets.sort_unstable();
    assets.dedup();
    assert_eq!(assets.len(), 3, "{assets:?}");
    for name in assets {
        let (stem, rest) = name.split_once('-').unwrap();
        let (hash, end) = rest.split_once('.').unwrap();
        let answer = site.get(&format!("/assets/{name}")).await;
        assert_eq!(answer.status, 200, "{name}");
        assert!(answer.head.contains("cache-control: public, max-age=31536000, immutable"));
        let found = Sha256::digest(&answer.body);
        let found: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(hash.len() == 16 && found.starts_with(hash), "{name} is {found}");
        let older = format!("/assets/{stem}-0123456789abcdef.{end}");
        assert_eq!(site.get(&older).await.status, 404);
    }
    let id: String = value(
        &portal.audit,
        "SELECT event_uuid::text FROM events WHERE event_type = 'token_created'",
    )
    .await;
    let detail = site.get(&format!("/events/{id}")).await;
    assert!(detail.status == 200 && detail.body.contains("ada made token deploy-key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn paging_shows_each_event_once() {
    let portal = sample("web_paging").await;
    // Many of one instant, and more than two pages.
    run(&portal.audit, "INSERT INTO events SELECT gen_random_uuid(), timestamptz '2026-04-23 20:00Z' + (n / 40) * interval '1 s', 'user_created', 'root', 'user-' || n, 'user', NULL, true, NULL, '{}' FROM generate_series(1, 130) n").await;
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    let (mut path, mut seen) = ("/events?limit=50".to_owned(), Vec::new());
    loop {
        let page = site.json(&path, &[]).await;
        for event in page["events"].as_array().unwrap() {
            seen.push(event["subject"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/events?limit=50&before={next}");
    }
    assert_eq!(seen.len(), 130);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 130);
    // The pages for people: on to the end by "Older", and back.
    let (mut path, mut pages) = ("/events".to_owned(), 0);
    let link = |body: &str, rel: &str| {
        let rest = body.split_once(&format!("rel=\"{rel}\" href=\""))?.1;
        Some(rest.split('"').next().unwrap().replace("&#38;", "&").replace("&amp;", "&"))
    };
    let last = loop {
        let page = site.get(&path).await;
        pages += 1;
        match link(&page.body, "next") {
            Some(next) => path = next,
            None => break page,
        }
    };
    assert_eq!(pages, 3);
    let back = site.get(&link(&last.body, "prev").unwrap()).await;
    assert_eq!(back.body.matches("<time datetime").count(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_harmless() {
    let portal = sample("web_hostile").await;
    let names = [
        "<script>alert(1)</script>".to_owned(),
        "\" onmouseover=\"alert(1)".to_owned(),
        "'; DROP TABLE events; --".to_owned(),
        "\u{202E}gnp.exe\u{2066}".to_owned(),
        "=cmd|' /C calc'!A0".to_owned(),
        "a/../../b?c#d&e%00".to_owned(),
        "é".repeat(450),
    ];
    for (minute, name) in (0..).zip(&names) {
        tell(
            &portal,
            minute,
            ["user_created", name, name, "user", name],
            r#"{"x": "</pre><script>"}"#,
        )
        .await;
    }
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let mut paths = vec!["/".to_owned(), "/events".to_owned()];
    for name in &names {
        paths.push(format!("/users/{}", escaped(name)));
        paths.push(format!(
            "/events?q={}",
            escaped(&format!("actor:\"{}\"", name.replace('"', "\\\"")))
        ));
    }
    let ids: String =
        value(&portal.audit, "SELECT string_agg(event_uuid::text, ' ') FROM events").await;
    paths.extend(ids.split(' ').map(|id| format!("/events/{id}")));
    for path in paths {
        let answer = site.get(&path).await;
        assert_eq!(answer.status, 200, "{path}");
        // The search box holds what was searched, letter by letter, or it could not be searched again.
        let box_begins = answer.body.split_once("name=\"q\" value=\"");
        let shown = match &box_begins {
            None => answer.body.clone(),
            Some((before, rest)) => format!("{before}{}", rest.split_once('"').unwrap().1),
        };
        for forbidden in ["<script", "onmouseover=\"", "\u{202E}", "\u{2066}"] {
            assert!(!shown.contains(forbidden), "{path} shows {forbidden:?} as it is");
        }
    }
    let count: i64 = value(&portal.audit, "SELECT count(*) FROM events").await;
    assert_eq!(count, i64::try_from(names.len()).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_shows_what_its_user_may_see() {
    let portal = sample("web_token").await;
    world(&portal).await;
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("tokens");
    let hash: String = value(&open(cluster(), "postgres").await, "SELECT encode(sha256('of-bo'), 'hex') || E' bo\\n' || encode(sha256('of-root'), 'hex') || ' root'").await;
    std::fs::write(&file, hash).unwrap();
    let site = Site::of(&portal, Access::Token { file }, &["root"]).await;
    // Nobody in particular.
    let page = site.get("/events").await;
    assert!(page.status == 303 && page.head.contains("location: /login"), "{}", page.head);
    assert_eq!(site.ask("GET /api/v1/events", &[], "").await.status, 401);
    assert_eq!(site.ask("GET /events", &["Authorization: Bearer of-nobody"], "").await.status, 401);
    // A member sees the project, and neither the token of another nor another project.
    let bo = ["Authorization: Bearer of-bo"];
    let seen = site.json("/events", &bo).await;
    let types: Vec<&str> = seen["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["subject"].as_str().unwrap())
        .collect();
    assert!(!types.is_empty() && types.iter().all(|subject| *subject == "maple"), "{types:?}");
    for path in ["/", "/events", "/projects/maple", "/users/bo"] {
        let page = site.ask(&format!("GET {path}"), &bo, "").await;
        assert_eq!(page.status, 200, "{path}");
        assert!(!page.body.contains("deploy-key") && !page.body.contains("birch"), "{path}");
    }
    for path in ["/projects/birch", "/users/cy"] {
        assert_eq!(site.ask(&format!("GET {path}"), &bo, "").await.status, 404, "{path}");
    }
    for path in ["/pipeline", "/api/v1/stats"] {
        assert_eq!(site.ask(&format!("GET {path}"), &bo, "").await.status, 403, "{path}");
    }
    // The next request in the same session of the database is another's.
    let root = ["Authorization: Bearer of-root"];
    // That bo looked is an event too, which is not counted here.
    let told = "/events?q=type:project_*%20type:token_*";
    assert_eq!(site.json(told, &root).await["events"].as_array().unwrap().len(), 5);
    assert!(site.json(told, &bo).await["events"].as_array().unwrap().len() < 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_exchanged_for_a_cookie_and_not_guessed() {
    let portal = sample("web_login").await;
    world(&portal).await;
    let folder = tempfile::tempdir().unwrap();
    let file: PathBuf = folder.path().join("tokens");
    let hash: String = Sha256::digest("of-bo").iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(&file, format!("{hash} bo\n")).unwrap();
    let site = Site::of(&portal, Access::Token { file }, &[]).await;
    let form = site.get("/login").await;
    assert!(form.status == 200 && form.body.contains("name=\"token\""), "{}", form.body);
    // Signing in gives a cookie; from another site's form it does not.
    let form = "Content-Type: application/x-www-form-urlencoded";
    let login = async |site_of: &str, token: &str| {
        site.ask(
            "POST /login",
            &[form, &format!("Sec-Fetch-Site: {site_of}")],
            &format!("token={token}"),
        )
        .await
    };
    assert_eq!(login("cross-site", "of-bo").await.status, 403);
    assert_eq!(login("same-origin", "wrong").await.status, 401);
    let signed = login("same-origin", "of-bo").await;
    assert!(
        signed.status == 303 && signed.head.contains("httponly; samesite=strict"),
        "{}",
        signed.head
    );
    assert!(
        signed.head.contains("set-cookie: __host-portal_audit_token=of-bo; path=/;"),
        "{}",
        signed.head
    );
    assert!(
        signed.head.contains("; secure;") && !signed.head.contains("domain="),
        "{}",
        signed.head
    );
    let page = site.ask("GET /events", &["Cookie: __Host-portal_audit_token=of-bo"], "").await;
    assert!(page.status == 200 && page.body.contains("Sign out"));
    // Who guesses is stopped, by the form and by the header; who was right is not.
    for n in 0..19 {
        assert_eq!(login("same-origin", &format!("guess-{n}")).await.status, 401, "{n}");
    }
    let stopped = login("same-origin", "of-cy").await;
    assert!(stopped.status == 429 && stopped.body.contains("Wait a minute"), "{}", stopped.body);
    let guess = site.ask("GET /events", &["Authorization: Bearer of-cy"], "").await;
    assert!(guess.status == 429 && guess.head.contains("retry-after: 60"), "{}", guess.head);
    let bo = site.ask("GET /events", &["Authorization: Bearer of-bo"], "").await;
    assert_eq!(bo.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pipeline_tells_what_a_slot_keeps_and_what_is_signed() {
    let portal = sample("web_pipeline").await;
    let source = "INSERT INTO portal_audit.progress (source, state, slot, system_identifier, timeline, database_oid, end_lsn) VALUES ('portal', 'streaming', 'audit', '1', 1, 1, '0/10')";
    run(&portal.audit, source).await;
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    let page = site.get("/pipeline").await.body;
    assert!(page.contains("● following") && !page.contains("Kept on its disk"), "{page}");
    assert!(page.contains("Nobody signs the record"), "{page}");

    let told = site.metrics.source("portal");
    told.state(State::Streaming);
    told.settings(1 << 30, "mapping", "");
    told.slot(Some((128 << 20, Some(7 << 30), Some("reserved"))));
    let page = site.get("/pipeline").await.body;
    let kept = "128.0 MiB of the 1.0 GiB allowed (12 %); the server gives it up 7.0 GiB later";
    assert!(page.contains(kept) && page.contains("● following"), "{page}");
    told.slot(Some((512 << 20, None, Some("reserved"))));
    let page = site.get("/pipeline").await.body;
    assert!(page.contains("▲ 512.0 MiB of the 1.0 GiB allowed (50 %) <meter"), "{page}");
    told.slot(None);
    assert!(site.get("/pipeline").await.body.contains("▲ there is no slot"));
    told.state(State::Waiting);
    assert!(site.get("/pipeline").await.body.contains("▲ cannot be followed now"));
    told.state(State::Stopped);
    assert!(site.get("/pipeline").await.body.contains("▲ stopped"));

    site.metrics.checkpoints(Duration::from_secs(300), &["database", "file"]);
    let page = site.get("/pipeline").await.body;
    assert!(page.contains("No checkpoint is made yet."), "{page}");
    assert!(page.contains("</span> Copies in the file covered every event 0.0 s ago"), "{page}");
    let sealed =
        "SELECT portal_audit.record('log_read', 'ada', 'events', 'log', NULL, true, NULL, '{}')";
    run(&portal.audit, sealed).await;
    let (key, _) = SigningKey::generate("log").unwrap();
    let mut session = open(cluster(), "web_pipeline_audit").await;
    checkpoint::make(&mut session, &key, None).await.unwrap();
    let page = site.get("/pipeline").await.body;
    assert!(page.contains(", covers every event."), "{page}");
    run(&portal.audit, sealed).await;
    let page = site.get("/pipeline").await.body;
    assert!(page.contains("covers all but the last 1."), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_as_it_is_described() {
    let portal = sample("web_api").await;
    world(&portal).await;
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    let described = site.json("/openapi.json", &[]).await;
    let answer = site.ask("GET /api/v1/openapi.json", &[], "").await;
    let tag = answer.head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let had = format!("If-None-Match: {}", tag.replace("w/", "W/"));
    assert_eq!(site.ask("GET /api/v1/openapi.json", &[&had], "").await.status, 304);
    let required = |schema: &serde_json::Value| -> Vec<String> {
        let mut names: Vec<String> = schema["required"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    let keys = |value: &serde_json::Value| -> Vec<String> {
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    let of = |path: &str| {
        described["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
            .clone()
    };
    let events = site.json("/events?q=type:project_*&limit=1", &[]).await;
    assert_eq!(keys(&events), required(&of("/events")));
    assert_eq!(keys(&events["events"][0]), required(&described["components"]["schemas"]["Event"]));
    let id = events["events"][0]["event_uuid"].as_str().unwrap();
    assert_eq!(site.json(&format!("/events/{id}"), &[]).await, events["events"][0]);
    assert_eq!(keys(&site.json("/stats?at=2026-04-24", &[]).await), required(&of("/stats")));
    for (path, status) in [
        ("/events?limit=0", 400),
        ("/events?q=foo:x", 400),
        ("/events/x", 404),
        ("/stats?at=x", 400),
        ("/nothing", 404),
    ] {
        let answer = site.ask(&format!("GET /api/v1{path}"), &[], "").await;
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.head.contains("application/problem+json"), "{path}: {}", answer.head);
    }
}
