//! Facilities on a map: an SVG that stands in the page, without tiles, scripts or inline style. Pure: no IO, no clock.
//!
//! The land is projected when `deploy/map/make.mjs` makes it; markers are projected here, by the same formulas, held to d3-geo's points by a test. Colours are classes ([`STYLE`]), a state has its own shape, and each marker is a link that the keyboard reaches.

mod place;
mod project;

pub use place::State;
pub use project::{usa, world};

use crate::show::visible;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use place::{Area, Label};
use std::fmt::Write as _;

/// The style sheet that gives the classes of the map their colours, light and dark.
pub const STYLE: &str = include_str!("map/map.css");
/// Width of both maps in their own units.
pub const WIDTH: f64 = 960.0;

const WORLD: &str = include_str!("map/world.svg");
const USA: &str = include_str!("map/usa.svg");
/// Longest name on the map, in characters; the whole one stands in the title.
const LABEL_CHARACTERS: usize = 28;
/// Half the width of a marker.
const RADIUS: f64 = 8.0;

/// A base map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// The world in Natural Earth.
    World,
    /// The United States in Albers' projection, Alaska and Hawaii as insets.
    Usa,
}

impl Base {
    /// The United States if all places are in them, else the world.
    #[must_use]
    pub fn of(markers: &[Marker<'_>]) -> Self {
        let is_in = |marker: &Marker<'_>| {
            usa(marker.longitude, marker.latitude)
                .is_some_and(|point| project::is_on_land(USA, point))
        };
        if !markers.is_empty() && markers.iter().all(is_in) { Self::Usa } else { Self::World }
    }

    /// Height in the map's own units.
    #[must_use]
    pub fn height(self) -> f64 {
        match self {
            Self::World => 500.0,
            Self::Usa => 600.0,
        }
    }

    fn paths(self) -> &'static str {
        match self {
            Self::World => WORLD,
            Self::Usa => USA,
        }
    }

    fn project(self, longitude: f64, latitude: f64) -> Option<(f64, f64)> {
        match self {
            Self::World => Some(world(longitude, latitude)),
            Self::Usa => usa(longitude, latitude),
        }
    }
}

/// A facility to be drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Marker<'a> {
    pub name: &'a str,
    pub state: State,
    /// What is said of it when it is pointed at or read aloud, behind its name and state.
    pub why: &'a str,
    pub latitude: f64,
    pub longitude: f64,
    /// Where its name stands, if ops said so, from where it would stand by itself.
    pub label_offset: (f64, f64),
}

/// The page of a facility: a path in which its name is one segment (RFC 3986, section 3.3).
#[must_use]
pub fn href(name: &str) -> String {
    format!("/facilities/{}", utf8_percent_encode(name, SEGMENT))
}

/// What a segment of a path may hold as it is: the unreserved letters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// The map with its markers, each a link to [`href`], in the order in which they are given.
#[must_use]
pub fn svg(markers: &[Marker<'_>]) -> String {
    let base = Base::of(markers);
    let mut points: Vec<(f64, f64)> = Vec::new();
    let mut shown = Vec::new();
    for marker in markers {
        if let Some(point) = base.project(marker.longitude, marker.latitude) {
            points.push(point);
            shown.push(marker);
        }
    }
    let canvas = Area::new(0.0, 0.0, WIDTH, base.height());
    let marks = place::apart(&points, RADIUS * 2.0 + 3.0, canvas);
    let texts: Vec<String> = shown.iter().map(|marker| short(marker.name)).collect();
    let wishes: Vec<(f64, f64)> = shown.iter().map(|marker| marker.label_offset).collect();
    let labels = place::labels(&marks, &texts, &wishes, RADIUS, canvas);
    let mut out = format!(
        "<svg class=\"facility-map\" viewBox=\"0 0 {WIDTH} {}\" role=\"group\" aria-label=\"Facilities on a map\">\n<g aria-hidden=\"true\">\n{}</g>\n",
        base.height(),
        base.paths()
    );
    for (point, mark) in points.iter().zip(&marks) {
        if point != mark {
            let (x, y) = point;
            let line = writeln!(
                out,
                "<path class=\"map-leader\" d=\"M{x:.1} {y:.1}L{:.1} {:.1}\"/>",
                mark.0, mark.1
            );
            debug_assert!(line.is_ok(), "a String takes everything");
        }
    }
    for (((marker, mark), label), text) in shown.iter().zip(&marks).zip(&labels).zip(&texts) {
        out.push_str(&link(marker, *mark, label, text));
    }
    out.push_str("</svg>\n");
    out
}

fn link(marker: &Marker<'_>, mark: (f64, f64), label: &Label, text: &str) -> String {
    let Marker { name, state, why, .. } = marker;
    let (x, y) = mark;
    let anchor = label.anchor();
    format!(
        "<a class=\"state-{word}\" href=\"{href}\"><title>{name}: {word}. {why}</title>\
         <circle class=\"map-focus\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"13\"/>\
         <g transform=\"translate({x:.1} {y:.1})\">{shape}</g>\
         <text class=\"map-label\" x=\"{label_x:.1}\" y=\"{label_y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\">{text}</text></a>\n",
        word = state.word(),
        href = escaped(&href(name)),
        name = escaped(&visible(name)),
        why = escaped(&visible(why)),
        shape = shape(*state),
        label_x = label.x,
        label_y = label.y,
        size = place::FONT_SIZE,
        text = escaped(text),
    )
}

/// The state's own shape, which tells it without colour: for a table's first column, too.
#[must_use]
pub fn shape(state: State) -> &'static str {
    match state {
        State::Up => "<circle class=\"map-mark\" r=\"7\"/>",
        State::Degraded => "<path class=\"map-mark\" d=\"M0-8.5L8.5 6.5H-8.5z\"/>",
        State::Maintenance => "<path class=\"map-mark\" d=\"M-7-7H7V7H-7z\"/>",
        State::Planned => "<path class=\"map-mark\" d=\"M0-9L9 0L0 9L-9 0z\"/>",
        State::Down => {
            "<path class=\"map-mark\" d=\"M-8-4.5L-4.5-8L0-3.5L4.5-8L8-4.5L3.5 0L8 4.5L4.5 8L0 3.5L-4.5 8L-8 4.5L-3.5 0z\"/>"
        }
        State::Unknown => {
            "<path class=\"map-mark\" d=\"M-7-3a4 4 0 0 1 4-4H3a4 4 0 0 1 4 4V3a4 4 0 0 1-4 4H-3a4 4 0 0 1-4-4z\"/><path class=\"map-sign\" d=\"M-2.3-1.8a2.3 2.3 0 1 1 3.4 2Q0 .9 0 1.7M0 4.3v.1\"/>"
        }
    }
}

/// Each state with its shape and word, for under the map.
#[must_use]
pub fn legend() -> String {
    let items = State::ALL.iter().map(|state| {
        let word = state.word();
        format!(
            "<li class=\"state-{word}\"><svg viewBox=\"-11 -11 22 22\" width=\"18\" height=\"18\" aria-hidden=\"true\">{}</svg> {word}</li>\n",
            shape(*state)
        )
    });
    format!("<ul class=\"facility-map-legend\">\n{}</ul>\n", items.collect::<String>())
}

fn short(name: &str) -> String {
    crate::show::fit(&visible(name), LABEL_CHARACTERS).into_owned()
}

/// Text in which nothing is markup (XML 1.0, section 2.4), in an attribute too.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests;
