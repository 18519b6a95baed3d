//! The pages of facilities, their feeds and their API, asked over HTTP.

use crate::{
    facility::{hill, tell},
    support::{Portal, cluster, open, run, sample, value},
    web::Site,
};
use portal_audit::config::Access;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// One facility of each state, all but one on the map.
async fn states(name: &str) -> Portal {
    let portal = hill(name).await;
    tell(
        &portal,
        "SELECT tell('2 days', 'facility_registered', 'facility', f) FROM unnest(ARRAY['dale', 'moor', 'glen', 'fen', 'mist']) f;
         SELECT tell('2 days', 'facility_resources_added', 'facility', f, resources('a', 'b')) FROM unnest(ARRAY['dale', 'moor', 'glen', 'fen']) f;
         SELECT tell('5 hours', 'facility_resources_deactivated', 'facility', 'dale', resources('a', 'b'));
         SELECT tell('4 hours', 'facility_resources_deactivated', 'facility', 'moor', resources('a'));
         INSERT INTO portal_audit.maintenance (facility, from_time, until, note, announced_by, announced_at) VALUES
           ('glen', now() - interval '9 hours', now() - interval '1 hour', 'New roof', 'opsduty', now() - interval '1 day'),
           ('fen', now() + interval '1 day', now() + interval '2 days', 'New floor', 'opsduty', now() - interval '1 hour');
         INSERT INTO portal_audit.facility_places (facility, latitude, longitude, organization, url) VALUES
           ('hill', 34, -118, 'A school', 'https://hill.example/?a=1&b=2'), ('dale', 41, -112, NULL, NULL), ('moor', 42, -71, NULL, NULL), ('glen', 51.5, 0, NULL, NULL), ('fen', 52, 13, NULL, NULL)",
    )
    .await;
    portal
}

/// The row of the table that names a facility.
fn row<'a>(body: &'a str, name: &str) -> &'a str {
    let link = format!("<th scope=\"row\"><a href=\"/facilities/{name}\"");
    let mut rows = body.split("<tr>");
    rows.find(|row| row.contains(&link)).unwrap_or_else(|| panic!("no row of {name}: {body}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_state_has_its_shape_its_word_and_its_reason_on_the_map_and_in_the_table() {
    let portal = states("web_states").await;
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    let page = site.get("/facilities").await;
    assert_eq!(page.status, 200);
    let (map, table) = page.body.split_once("<h2 id=\"states\">").unwrap();
    let mut shapes = Vec::new();
    for (name, state, why) in [
        ("hill", "up", "4 of its 4 resources are active"),
        ("dale", "down", "none of its 2 resources is active"),
        ("moor", "degraded", "1 of its 2 resources are not active"),
        ("glen", "maintenance", "nobody has ended it: New roof"),
        ("fen", "planned", "New floor"),
        ("mist", "unknown", "no resource of it is known, and no probe tells of it"),
    ] {
        let row = row(table, name);
        let sign = format!("class=\"state-sign state-{state}\"");
        assert!(row.contains(&sign) && row.contains(&format!("</svg> {state}</td>")), "{row}");
        assert!(row.contains(why), "{row}");
        shapes.push(row.split("<svg").nth(1).unwrap().split("</svg>").next().unwrap().to_owned());
        let on_map = map.contains(&format!(
            "<a class=\"state-{state}\" href=\"/facilities/{name}\"><title>{name}: {state}. "
        ));
        assert_eq!(on_map, name != "mist", "{name}");
        assert_eq!(row.contains("not on the map"), name == "mist");
        assert_eq!(row.contains("overdue"), name == "glen", "{row}");
        let detail = site.get(&format!("/facilities/{name}")).await;
        assert_eq!(detail.status, 200, "{name}");
        assert!(detail.body.contains(&format!("<b>{state}</b> since")), "{}", detail.body);
        assert!(detail.body.contains(why), "{name}");
        assert_eq!(detail.body.contains("role=\"status\""), name == "glen", "{name}");
        for foreign in ["src=\"http", "style=\"", "<script", "onclick"] {
            assert!(!detail.body.contains(foreign) && !page.body.contains(foreign), "{foreign}");
        }
    }
    shapes.sort();
    shapes.dedup();
    assert_eq!(shapes.len(), 6, "each state has its own shape");
    // What is worst stands first.
    let place = |name: &str| table.find(&format!("/facilities/{name}\"")).unwrap();
    assert!(place("dale") < place("moor") && place("moor") < place("mist"));
    assert!(place("glen") < place("fen") && place("fen") < place("hill"));
    let hill = site.get("/facilities/hill").await.body;
    assert!(hill.contains("A school") && hill.contains("34.00° N, 118.00° W"), "{hill}");
    assert!(hill.contains("https://hill.example/?a=1&#38;b=2"), "{hill}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_past_time_is_shown_as_it_was() {
    let portal = states("web_facilities_past").await;
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    let ago = async |hours: u32| -> String {
        let query = format!("SELECT portal_audit.utc_text(now() - interval '{hours} hours')");
        value(&portal.audit, &query).await
    };
    let before = ago(20).await;
    let page = site.get(&format!("/facilities?at={before}")).await;
    assert!(page.body.contains("as of "), "{}", page.body);
    for (name, state) in [("dale", "up"), ("moor", "up"), ("glen", "planned")] {
        let link = format!("/facilities/{name}?at=");
        let row = page.body.split("<tr>").find(|row| row.contains(&link)).unwrap();
        assert!(row.contains(&format!("</svg> {state}</td>")), "{row}");
    }
    let detail = site.get(&format!("/facilities/dale?at={before}")).await;
    assert!(detail.body.contains("<b>up</b> since") && !detail.body.contains("Allocated now"));
    let early = site.get(&format!("/facilities?at={}", ago(72).await)).await;
    assert!(early.status == 200 && early.body.contains("The portal had no facility"));
    for (path, status) in [
        ("/facilities?at=tomorrow", 400),
        ("/facilities/nowhere", 404),
        ("/facilities/hill?at=2020-01-01", 404),
        ("/facilities/hill?days=7", 200),
        ("/api/v1/facilities?at=x", 400),
        ("/api/v1/facilities/nowhere", 404),
    ] {
        assert_eq!(site.get(path).await.status, status, "{path}");
    }
    let history = site.get("/facilities/dale").await.body;
    assert_eq!(history.matches("<rect class=\"state-").count(), 2, "up, then down");
    assert!(
        history.contains("<td>1 d 19 h</td>") && history.contains("<td>5 h 00 min</td>"),
        "{history}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_what_is_shown_to_those_who_may_see_it() {
    let portal = hill("web_facility_use").await;
    run(&portal.audit, "INSERT INTO portal_audit.event_types VALUES ('realization_created', '{caller} realized {subject}', 'project', '{admin,project}'), ('materialization_completed', 'materialized {subject}', 'project', '{admin,project}') ON CONFLICT DO NOTHING").await;
    tell(
        &portal,
        "SELECT tell('9 hours', 'realization_created', 'realization', 'one.exp.oak', '{\"project\": \"oak\", \"resources\": [\"m1\", \"m2\"], \"facilities\": [\"hill\"]}');
         SELECT tell('8 hours', 'materialization_completed', 'materialization', 'one.exp.oak', '{\"project\": \"oak\", \"resources\": [\"m1\"], \"facilities\": [\"hill\"]}', false);
         SELECT tell('1 hours', 'facility_resources_deactivated', 'facility', 'hill', resources('m4'));",
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let hashes: String = value(&open(cluster(), "postgres").await, "SELECT encode(sha256('of-bo'), 'hex') || E' bo\\n' || encode(sha256('of-root'), 'hex') || ' root'").await;
    std::fs::write(&file, hashes).unwrap();
    let site = Site::of(&portal, Access::Token { file }, &["root"]).await;
    let of = async |token: &str| {
        let header = format!("Authorization: Bearer {token}");
        let page = site.ask("GET /facilities/hill", &[&header], "").await;
        assert_eq!(page.status, 200, "{}", page.body);
        page.body
    };
    let root = of("of-root").await;
    assert!(root.contains("<a href=\"/experiments/oak/exp\">one.exp.oak</a>"), "{root}");
    assert!(root.contains("m1, m2") && root.contains("<a href=\"/users/opsduty\">"), "{root}");
    assert!(root.contains("Failures on it") && root.contains("<b>m4</b> since"), "{root}");
    assert!(root.contains("portal-audit facility maintenance --from now"), "{root}");
    // Somebody else sees the state and its numbers, and not whose work it is.
    let bo = of("of-bo").await;
    assert!(bo.contains("2 of them") && bo.contains("3 active of 4"), "{bo}");
    for hidden in ["one.exp.oak", "opsduty", "Failures on it", "portal-audit facility maintenance"]
    {
        assert!(!bo.contains(hidden), "{hidden}: {bo}");
    }
    assert_eq!(site.ask("GET /facilities.atom", &[], "").await.status, 401);
}

/// The document in an answer whose body came in chunks or not.
fn xml(body: &str) -> &str {
    body.get(body.find("<?xml").unwrap()..body.rfind('>').unwrap() + 1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn feeds_tell_each_change_once_and_in_order() {
    let portal = states("web_feeds").await;
    tell(
        &portal,
        "SELECT portal_audit.facility_maintenance_end('glen');
         SELECT portal_audit.facility_maintenance_end('fen', true);
         SELECT tell('3 hours', 'facility_registered', 'facility', '<b>&\u{202E}]]>')",
    )
    .await;
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    let answer = site.get("/facilities.atom").await;
    assert!(answer.head.contains("content-type: application/atom+xml"), "{}", answer.head);
    let document = roxmltree::Document::parse(xml(&answer.body)).unwrap();
    let feed = document.root_element();
    const ATOM: &str = "http://www.w3.org/2005/Atom";
    assert!(feed.has_tag_name((ATOM, "feed")));
    let text = |node: roxmltree::Node<'_, '_>, name: &str| {
        let found = node.children().find(|child| child.has_tag_name((ATOM, name)));
        found.unwrap_or_else(|| panic!("no {name}")).text().unwrap_or_default().to_owned()
    };
    // What RFC 4287 wants of a feed and of each entry.
    for name in ["id", "title", "updated", "author"] {
        text(feed, name);
    }
    let entries: Vec<_> =
        feed.children().filter(|child| child.has_tag_name((ATOM, "entry"))).collect();
    let told: Vec<[String; 4]> = entries
        .iter()
        .map(|entry| ["updated", "id", "title", "content"].map(|name| text(*entry, name)))
        .collect();
    assert!(told.windows(2).all(|pair| pair[0][0] >= pair[1][0]), "newest first: {told:?}");
    assert_eq!(text(feed, "updated"), told[0][0]);
    let mut ids: Vec<&str> = told.iter().map(|entry| entry[1].as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), told.len(), "no id twice");
    for (title, content) in [
        ("dale: down", "none of its 2 resources is active"),
        ("moor: degraded", "1 of its 2 resources are not active"),
        ("glen: maintenance", "New roof"),
        ("glen: maintenance ended", "New roof"),
        ("fen: maintenance cancelled", "New floor"),
        ("mist: unknown", "no resource of it is known"),
        ("<b>&\\u{202e}]]>: unknown", "no resource of it is known"),
    ] {
        let found: Vec<_> = told.iter().filter(|entry| entry[2] == title).collect();
        assert_eq!(found.len(), 1, "{title}: {told:?}");
        assert!(found[0][3].contains(content), "{title}: {}", found[0][3]);
    }
    assert!(told.iter().any(|entry| entry[2].starts_with("fen: maintenance from ")));
    // A reader that asks again finds the same entries, and the same in JSON.
    let again = site.get("/facilities.atom").await;
    assert_eq!(xml(&again.body), xml(&answer.body));
    let answer = site.get("/facilities.json").await;
    assert!(answer.head.contains("content-type: application/feed+json"), "{}", answer.head);
    let body = answer.body.find('{').unwrap()..=answer.body.rfind('}').unwrap();
    let json: serde_json::Value = serde_json::from_str(&answer.body[body]).unwrap();
    assert_eq!(json["version"], "https://jsonfeed.org/version/1.1");
    let items = json["items"].as_array().unwrap();
    let same: Vec<&str> = items.iter().map(|item| item["id"].as_str().unwrap()).collect();
    assert_eq!(same, told.iter().map(|entry| entry[1].as_str()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_has_not_changed_costs_nothing() {
    let portal = states("web_feed_kept").await;
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    let first = site.get("/facilities.atom").await;
    assert_eq!(site.get("/facilities.json").await.status, 200);
    assert!(first.head.contains("cache-control: private, max-age=30"), "{}", first.head);
    let tag = first.head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let had = format!("If-None-Match: {}", tag.replace("w/", "W/"));
    // Nobody asks the database again; nor does a page that was shown hold a lock on which this would wait.
    run(&portal.audit, "SET lock_timeout = '30s'; DROP SCHEMA portal_audit CASCADE").await;
    let again = site.ask("GET /facilities.atom", &[&had], "").await;
    assert!(again.status == 304 && !again.body.contains("<feed"), "{}", again.head);
    let other = site.ask("GET /facilities.atom", &["If-None-Match: \"other\""], "").await;
    assert!(other.status == 200 && xml(&other.body) == xml(&first.body));
    assert_eq!(site.get("/facilities.json").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_of_facilities_are_harmless() {
    let portal = sample("web_facility_hostile").await;
    run(&portal.audit, crate::facility::TELL).await;
    let names = [
        "<script>alert(1)</script>",
        "\" onmouseover=\"alert(1)",
        "'; DROP TABLE events; --",
        "\u{202E}gnp.exe",
        "a/../../b?c#d&e",
        "--end",
    ];
    for name in names {
        let query = "SELECT tell('1 hour', 'facility_registered', 'facility', $1)";
        portal.audit.client.query_one(query, &[&name]).await.unwrap();
        let place = "INSERT INTO portal_audit.facility_places (facility, latitude, longitude, organization) VALUES ($1, 40, -100, $1)";
        portal.audit.client.execute(place, &[&name]).await.unwrap();
        let window = "INSERT INTO portal_audit.maintenance (facility, from_time, until, note, announced_by) VALUES ($1, now(), now() + interval '1 h', $1, $1)";
        portal.audit.client.execute(window, &[&name]).await.unwrap();
    }
    tell(&portal, "SELECT 1").await;
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    let escaped = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let mut paths = vec!["/facilities".to_owned(), "/facilities.atom".to_owned()];
    paths.extend(names.iter().map(|name| format!("/facilities/{}", escaped(name))));
    for path in paths {
        let answer = site.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        for forbidden in ["<script", "onmouseover=\"", "\u{202E}"] {
            assert!(!answer.body.contains(forbidden), "{path} shows {forbidden:?} as it is");
        }
    }
    let option = site.get("/facilities/--end").await.body;
    assert!(option.contains("-- --end"), "{option}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_fifty_facilities_is_small() {
    let portal = sample("web_facility_many").await;
    run(&portal.audit, crate::facility::TELL).await;
    tell(
        &portal,
        "SELECT tell('2 days', 'facility_registered', 'facility', 'facility-' || n) FROM generate_series(1, 50) n;
         SELECT tell('2 days', 'facility_resources_added', 'facility', 'facility-' || n, resources('a', 'b')) FROM generate_series(1, 50) n;
         INSERT INTO portal_audit.facility_places (facility, latitude, longitude) SELECT 'facility-' || n, sin(n) * 60, n * 7 - 175 FROM generate_series(1, 50) n",
    )
    .await;
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    let request = "GET /facilities HTTP/1.1\r\nHost: test\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(60), read).await.unwrap().unwrap();
    let head = String::from_utf8_lossy(&answer[..400.min(answer.len())]).to_ascii_lowercase();
    assert!(head.contains("content-encoding: gzip"), "{head}");
    assert!(answer.len() < 150 * 1_024, "{} bytes", answer.len());
    let page = site.get("/facilities").await;
    assert_eq!(page.body.matches("class=\"map-label\"").count(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_of_facilities_is_as_it_is_described() {
    let portal = states("web_facility_api").await;
    let site = Site::of(&portal, Access::Loopback, &[]).await;
    let described = site.json("/openapi.json", &[]).await;
    let keys = |value: &serde_json::Value| -> Vec<String> {
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys
    };
    let required = |schemas: &[&serde_json::Value]| -> Vec<String> {
        let names = schemas.iter().flat_map(|schema| schema["required"].as_array().unwrap());
        let mut names: Vec<String> = names.map(|name| name.as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let of = |path: &str| {
        &described["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    };
    let facility = &described["components"]["schemas"]["Facility"];
    let all = site.json("/facilities", &[]).await;
    assert_eq!(keys(&all), required(&[of("/facilities")]));
    assert_eq!(all["facilities"].as_array().unwrap().len(), 6);
    assert_eq!(all["facilities"][0]["state"], "down");
    for own in all["facilities"].as_array().unwrap() {
        assert_eq!(keys(own), required(&[facility]));
    }
    let one = site.json("/facilities/glen", &[]).await;
    assert_eq!(keys(&one), required(&[facility, &of("/facilities/{name}")["allOf"][1]]));
    assert_eq!((&one["is_overdue"], &one["note"]), (&true.into(), &"New roof".into()));
    let history = one["history"].as_array().unwrap();
    let states: Vec<&str> = history.iter().map(|span| span["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["up", "planned", "maintenance"]);
}
