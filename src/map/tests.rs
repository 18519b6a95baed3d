use super::{Base, Marker, State, WIDTH, legend, place, project, svg, usa, world};
use serde_json::Value;

/// Points of d3-geo, which drew the maps: `make.mjs` wrote them.
const GOLDEN: &str = include_str!("../../tests/map/golden.json");

fn marker(name: &str, longitude: f64, latitude: f64) -> Marker<'_> {
    let state = State::Up;
    Marker { name, state, why: "well", latitude, longitude, label_offset: (0.0, 0.0) }
}

/// What is drawn over the land.
fn over_land(markers: &[Marker<'_>]) -> String {
    let drawn = svg(markers);
    drawn.split_once("</g>").unwrap().1.to_owned()
}

#[test]
fn a_place_stands_where_the_land_under_it_was_drawn() {
    let golden: Vec<Value> = serde_json::from_str(GOLDEN).unwrap();
    assert!(golden.len() > 100);
    let is_near = |point: (f64, f64), golden: &Value| {
        let at = |index: usize| golden[index].as_f64().unwrap();
        (point.0 - at(0)).abs() < 1e-5 && (point.1 - at(1)).abs() < 1e-5
    };
    for row in golden {
        let at = |index: usize| row["place"][index].as_f64().unwrap();
        assert!(is_near(world(at(0), at(1)), &row["world"]), "{row}");
        match usa(at(0), at(1)) {
            Some(point) => assert!(!row["usa"].is_null() && is_near(point, &row["usa"]), "{row}"),
            None => assert!(row["usa"].is_null(), "{row}"),
        }
    }
}

#[test]
fn the_united_states_are_chosen_if_every_place_is_in_them() {
    let (angeles, boston, utah) =
        (marker("a", -118.44, 33.98), marker("b", -71.09, 42.34), marker("u", -111.84, 40.76));
    assert_eq!(Base::of(&[angeles, boston, utah]), Base::Usa);
    let islands =
        [marker("h", -157.86, 21.3), marker("k", -149.9, 61.2), marker("m", -80.19, 25.76)];
    assert_eq!(Base::of(&islands), Base::Usa);
    for (name, longitude, latitude) in [
        ("toronto", -79.4, 43.7),
        ("paris", 2.35, 48.86),
        ("tijuana", -117.0, 32.0),
        ("juan", -66.1, 18.47),
    ] {
        assert_eq!(Base::of(&[angeles, marker(name, longitude, latitude)]), Base::World, "{name}");
    }
    assert_eq!(Base::of(&[]), Base::World);
}

#[test]
fn a_name_is_text_and_nothing_else() {
    let hostile = "<script>alert('\"&\u{202e}";
    let mut bad = marker(hostile, 0.0, 0.0);
    bad.why = hostile;
    let drawn = over_land(&[bad]);
    assert!(!drawn.contains("<script") && !drawn.contains('\u{202e}'), "{drawn}");
    assert_eq!(drawn.matches("&lt;script&gt;alert(&#39;&quot;&amp;").count(), 3);
    assert!(
        drawn.contains("href=\"/facilities/%3Cscript%3Ealert%28%27%22%26%E2%80%AE\""),
        "{drawn}"
    );
    let long = "x".repeat(10_000);
    let drawn = over_land(&[marker(&long, 0.0, 0.0)]);
    let label = drawn.split("middle\">").nth(1).or_else(|| drawn.split("start\">").nth(1)).unwrap();
    assert!(label.chars().take_while(|letter| *letter != '<').count() <= 28);
}

#[test]
fn nothing_in_it_is_a_style_or_a_script() {
    let all: Vec<Marker<'_>> = State::ALL
        .iter()
        .map(|state| Marker { state: *state, ..marker("f", 10.0, 10.0) })
        .collect();
    let text = svg(&all) + &legend();
    for word in ["style", "<script", "http", "onclick", "onload"] {
        assert!(!text.contains(word), "{word}");
    }
    for state in State::ALL {
        let class = format!("class=\"state-{}\"", state.word());
        assert!(text.contains(&format!("<a {class}")) && text.contains(&format!("<li {class}")));
        assert_eq!(State::of_word(state.word()), state);
    }
    assert_eq!(State::of_word("on fire"), State::Unknown);
}

#[test]
fn marks_of_one_place_stand_apart_and_names_hide_nothing() {
    let cities = [
        marker("quillmark", -118.44, 33.98),
        marker("quillmark-annex", -118.45, 33.98),
        marker("norrin", -118.4, 34.0),
        marker("tessaly", -71.09, 42.34),
        marker("tessaly-lab", -71.2, 42.4),
    ];
    let points: Vec<(f64, f64)> =
        cities.iter().map(|marker| usa(marker.longitude, marker.latitude).unwrap()).collect();
    let canvas = place::Area::new(0.0, 0.0, WIDTH, Base::Usa.height());
    let marks = place::apart(&points, 19.0, canvas);
    for (index, one) in marks.iter().enumerate() {
        for other in &marks[index + 1..] {
            assert!((one.0 - other.0).hypot(one.1 - other.1) >= 18.9, "{one:?} {other:?}");
        }
    }
    assert_eq!(over_land(&cities).matches("map-leader").count(), 3);
    let texts: Vec<String> = cities.iter().map(|marker| marker.name.to_owned()).collect();
    let labels = place::labels(&marks, &texts, &vec![(0.0, 0.0); cities.len()], 8.0, canvas);
    let spaces: Vec<_> = labels.iter().zip(&texts).map(|(label, text)| label.space(text)).collect();
    for (index, one) in spaces.iter().enumerate() {
        for other in &spaces[index + 1..] {
            assert!(one.shared(other) == 0.0, "{labels:?}");
        }
    }
}

#[test]
fn ops_may_say_where_a_name_stands() {
    let mut placed = marker("hill", 0.0, 0.0);
    let by_itself = over_land(&[placed]);
    placed.label_offset = (30.0, -20.0);
    let moved = over_land(&[placed]);
    assert!(by_itself.contains("x=\"492.0\" y=\"254.9\""), "{by_itself}");
    assert!(moved.contains("x=\"522.0\" y=\"234.9\""), "{moved}");
}

#[test]
fn the_maps_are_small_and_hold_paths_only() {
    for (paths, bytes) in [(super::WORLD, 62_000), (super::USA, 68_000)] {
        assert!(paths.len() < bytes, "{} bytes", paths.len());
        assert!(
            paths
                .lines()
                .all(|line| line.starts_with("<path class=\"map-") && line.ends_with("z\"/>")
                    || line.ends_with("\"/>"))
        );
    }
    assert!(project::is_on_land(super::WORLD, world(-100.0, 40.0)));
    assert!(!project::is_on_land(super::WORLD, world(-30.0, 30.0)));
}
