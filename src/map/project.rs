//! From degrees to the units of the maps.

use std::f64::consts::PI;

/// Scale and centre of `world.svg`, as `make.mjs` fits it.
const WORLD_SCALE: f64 = 175.295_268_663_291_15;
const WORLD_CENTRE: (f64, f64) = (480.0, 250.0);
/// Those of `usa.svg`.
const USA_SCALE: f64 = 1_280.0;
const USA_CENTRE: (f64, f64) = (480.0, 300.0);
/// Insets end so much before their edge.
const EPSILON: f64 = 1e-6;

/// A place on `world.svg`: Natural Earth, by the polynomial of Šavrič, Jenny, Patterson and others, "A polynomial equation for the Natural Earth projection" (2011).
#[must_use]
pub fn world(longitude: f64, latitude: f64) -> (f64, f64) {
    let (lambda, phi) = (longitude.to_radians(), latitude.to_radians());
    let phi2 = phi * phi;
    let phi4 = phi2 * phi2;
    let x = lambda
        * (0.8707 - 0.131979 * phi2
            + phi4 * (-0.013791 + phi4 * (0.003971 * phi2 - 0.001529 * phi4)));
    let y = phi
        * (1.007226 + phi2 * (0.015085 + phi4 * (-0.044475 + 0.028874 * phi2 - 0.005916 * phi4)));
    (WORLD_CENTRE.0 + WORLD_SCALE * x, WORLD_CENTRE.1 - WORLD_SCALE * y)
}

/// A part of the map of the United States: Albers' conic equal-area projection (Snyder, "Map projections: a working manual", USGS 1395, page 98) of its own, cut to a rectangle.
struct Part {
    /// Longitude in the middle.
    meridian: f64,
    /// What is drawn at `at`, in degrees from that meridian and latitude.
    centre: (f64, f64),
    parallels: (f64, f64),
    scale: f64,
    /// From the map's centre, in units of its scale.
    at: (f64, f64),
    /// Left, top, right and bottom, likewise.
    edges: (f64, f64, f64, f64),
    margin: f64,
}

const PARTS: [Part; 3] = [
    Part {
        meridian: -96.0,
        centre: (-0.6, 38.7),
        parallels: (29.5, 45.5),
        scale: 1.0,
        at: (0.0, 0.0),
        edges: (-0.455, -0.238, 0.455, 0.238),
        margin: 0.0,
    },
    // Alaska, EPSG:3338, at a third of the scale.
    Part {
        meridian: -154.0,
        centre: (-2.0, 58.5),
        parallels: (55.0, 65.0),
        scale: 0.35,
        at: (-0.307, 0.201),
        edges: (-0.425, 0.120, -0.214, 0.234),
        margin: EPSILON,
    },
    // Hawaii, ESRI:102007.
    Part {
        meridian: -157.0,
        centre: (-3.0, 19.9),
        parallels: (8.0, 18.0),
        scale: 1.0,
        at: (-0.205, 0.212),
        edges: (-0.214, 0.166, -0.115, 0.234),
        margin: EPSILON,
    },
];

impl Part {
    fn project(&self, longitude: f64, latitude: f64) -> Option<(f64, f64)> {
        let mut from_meridian = (longitude - self.meridian).to_radians();
        if from_meridian.abs() > PI {
            from_meridian -= from_meridian.signum() * 2.0 * PI;
        }
        let (x, y) = self.conic(from_meridian, latitude.to_radians());
        let (centre_x, centre_y) =
            self.conic(self.centre.0.to_radians(), self.centre.1.to_radians());
        let x = USA_CENTRE.0 + USA_SCALE * (self.at.0 + self.scale * (x - centre_x));
        let y = USA_CENTRE.1 + USA_SCALE * (self.at.1 - self.scale * (y - centre_y));
        let (left, top, right, bottom) = self.edges;
        let within = |value: f64, centre: f64, from: f64, to: f64| {
            value >= centre + USA_SCALE * from + self.margin
                && value <= centre + USA_SCALE * to - self.margin
        };
        (within(x, USA_CENTRE.0, left, right) && within(y, USA_CENTRE.1, top, bottom))
            .then_some((x, y))
    }

    fn conic(&self, lambda: f64, phi: f64) -> (f64, f64) {
        let (first, second) =
            (self.parallels.0.to_radians().sin(), self.parallels.1.to_radians().sin());
        let n = f64::midpoint(first, second);
        let c = 1.0 + first * (2.0 * n - first);
        let radius = |phi: f64| (c - 2.0 * n * phi.sin()).sqrt() / n;
        let (r, r0) = (radius(phi), c.sqrt() / n);
        (r * (lambda * n).sin(), r0 - r * (lambda * n).cos())
    }
}

/// A place on `usa.svg`; `None` if the map does not show it. Parts of Canada and Mexico are within its rectangle.
#[must_use]
pub fn usa(longitude: f64, latitude: f64) -> Option<(f64, f64)> {
    PARTS.iter().find_map(|part| part.project(longitude, latitude))
}

/// Coasts and borders are drawn to a tenth of a unit and without small bends: so far off is still there.
const LAND_MARGIN: f64 = 4.0;

/// Whether a point is on the land of a map, by the even-odd rule over its path of class `map-land`.
pub(super) fn is_on_land(paths: &str, point: (f64, f64)) -> bool {
    let land =
        paths.split("class=\"map-land\" d=\"").nth(1).and_then(|rest| rest.split('"').next());
    let rings = rings(land.unwrap_or_default());
    let around = [(0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0)];
    around.iter().any(|(dx, dy)| {
        let (x, y) = (point.0 + dx * LAND_MARGIN, point.1 + dy * LAND_MARGIN);
        let crossings = rings.iter().flat_map(|ring| ring.iter().zip(ring.iter().cycle().skip(1)));
        let crossed = crossings.filter(|(a, b)| {
            (a.1 > y) != (b.1 > y) && x < (b.0 - a.0) * (y - a.1) / (b.1 - a.1) + a.0
        });
        crossed.count() % 2 == 1
    })
}

/// The rings of a path as `make.mjs` writes it: `M x y l dx dy …z`, with the spaces that are needed.
fn rings(path: &str) -> Vec<Vec<(f64, f64)>> {
    let ring = |text: &str| {
        let numbers = numbers(text);
        let mut at = (0.0, 0.0);
        let points = numbers.chunks_exact(2).map(|step| {
            let &[dx, dy] = step else { return at };
            at = (at.0 + dx, at.1 + dy);
            at
        });
        points.collect()
    };
    path.split('M').skip(1).map(ring).collect()
}

/// Numbers that follow each other with a space, a sign or a second point between them.
fn numbers(text: &str) -> Vec<f64> {
    let mut numbers = Vec::new();
    let mut number = String::new();
    for letter in text.chars().chain(['z']) {
        let is_part = letter.is_ascii_digit() || (letter == '.' && !number.contains('.'));
        if !is_part {
            numbers.extend(number.parse::<f64>().ok());
            number.clear();
        }
        if is_part || letter == '-' || letter == '.' {
            number.push(letter);
        }
    }
    numbers
}
