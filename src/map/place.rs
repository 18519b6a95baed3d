//! States, and where marks and names stand so that none hides another.

/// Size of names on the map, in its units.
pub(super) const FONT_SIZE: f64 = 14.0;
/// Width of a letter of that size, on the safe side.
const LETTER_WIDTH: f64 = 7.8;
/// Rings in which a mark that would hide another is moved away, and places in each.
const RINGS: u8 = 6;
const PLACES: u8 = 12;

/// State of a facility, from well to worse; `Unknown` is none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Up,
    Planned,
    Maintenance,
    Degraded,
    Down,
    Unknown,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Up, Self::Planned, Self::Maintenance, Self::Degraded, Self::Down, Self::Unknown];

    /// The word of `portal_audit.facility_state`; a word that is not known is unknown.
    #[must_use]
    pub fn of_word(word: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.word() == word).unwrap_or(Self::Unknown)
    }

    /// As it is written, everywhere.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Planned => "planned",
            Self::Maintenance => "maintenance",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Unknown => "unknown",
        }
    }

    /// A sign of one column that tells it without colour, of the same shape as on the map.
    #[must_use]
    pub fn sign(self) -> char {
        match self {
            Self::Up => '●',
            Self::Planned => '◆',
            Self::Maintenance => '■',
            Self::Degraded => '▲',
            Self::Down => '✖',
            Self::Unknown => '?',
        }
    }
}

/// A rectangle: left, top, right, bottom.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl Area {
    pub(super) fn new(left: f64, top: f64, right: f64, bottom: f64) -> Self {
        Self { left, top, right, bottom }
    }

    fn around((x, y): (f64, f64), radius: f64) -> Self {
        Self::new(x - radius, y - radius, x + radius, y + radius)
    }

    /// Area that both have.
    pub(super) fn shared(&self, other: &Self) -> f64 {
        let width = self.right.min(other.right) - self.left.max(other.left);
        let height = self.bottom.min(other.bottom) - self.top.max(other.top);
        width.max(0.0) * height.max(0.0)
    }

    fn area(&self) -> f64 {
        (self.right - self.left) * (self.bottom - self.top)
    }

    fn holds(&self, (x, y): (f64, f64)) -> bool {
        x >= self.left && x <= self.right && y >= self.top && y <= self.bottom
    }
}

/// The points, those moved that would be nearer than `distance` to one before them.
pub(super) fn apart(points: &[(f64, f64)], distance: f64, canvas: Area) -> Vec<(f64, f64)> {
    let mut placed: Vec<(f64, f64)> = Vec::new();
    for point in points {
        let is_free = |at: &(f64, f64)| {
            canvas.holds(*at) && placed.iter().all(|(x, y)| (x - at.0).hypot(y - at.1) >= distance)
        };
        let around = (1..=RINGS).flat_map(|ring| {
            (0..PLACES).map(move |place| {
                let angle = f64::from(place) / f64::from(PLACES) * std::f64::consts::TAU;
                let radius = f64::from(ring) * distance;
                (point.0 + radius * angle.cos(), point.1 + radius * angle.sin())
            })
        });
        let free = std::iter::once(*point).chain(around).find(is_free);
        placed.push(free.unwrap_or(*point));
    }
    placed
}

/// Where a name stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Label {
    /// Of its `anchor` on its base line.
    pub(super) x: f64,
    pub(super) y: f64,
    side: Side,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Right,
    Left,
    Middle,
}

impl Label {
    /// SVG's word for which end of the text stands at `x`.
    pub(super) fn anchor(&self) -> &'static str {
        match self.side {
            Side::Right => "start",
            Side::Left => "end",
            Side::Middle => "middle",
        }
    }

    pub(super) fn space(&self, text: &str) -> Area {
        let letters = u32::try_from(text.chars().count()).unwrap_or(u32::MAX);
        let width = f64::from(letters) * LETTER_WIDTH;
        let left = match self.side {
            Side::Right => self.x,
            Side::Left => self.x - width,
            Side::Middle => self.x - width / 2.0,
        };
        Area::new(left, self.y - FONT_SIZE * 0.8, left + width, self.y + FONT_SIZE * 0.25)
    }
}

/// A name for each mark: where ops wish it, else at the first side where it hides nothing, else where it hides least.
pub(super) fn labels(
    marks: &[(f64, f64)],
    texts: &[String],
    wishes: &[(f64, f64)],
    radius: f64,
    canvas: Area,
) -> Vec<Label> {
    let mut taken: Vec<Area> = marks.iter().map(|mark| Area::around(*mark, radius)).collect();
    let mut labels = vec![None; marks.len()];
    // Those that ops placed come first, and the others find a place beside them.
    for is_placed in [true, false] {
        let all = marks.iter().zip(texts).zip(wishes).zip(labels.iter_mut());
        for (((mark, text), wish), label) in all {
            if (*wish != (0.0, 0.0)) != is_placed {
                continue;
            }
            let candidates = sides(*mark, radius);
            let cost = |label: &Label| {
                let space = label.space(text);
                let outside = space.area() - space.shared(&canvas);
                outside * 4.0 + taken.iter().map(|other| other.shared(&space)).sum::<f64>()
            };
            let chosen = if is_placed {
                let [right, ..] = candidates;
                Label { x: right.x + wish.0, y: right.y + wish.1, ..right }
            } else {
                let [first, rest @ ..] = candidates;
                rest.into_iter()
                    .fold(first, |best, next| if cost(&next) < cost(&best) { next } else { best })
            };
            taken.push(chosen.space(text));
            *label = Some(chosen);
        }
    }
    labels.into_iter().flatten().collect()
}

/// Places around a mark, the best first.
fn sides((x, y): (f64, f64), radius: f64) -> [Label; 8] {
    let (beside, middle) = (radius + 4.0, FONT_SIZE * 0.35);
    let (above, below) = (y - radius - 3.0, y + radius + FONT_SIZE * 0.9);
    let label = |x: f64, y: f64, side: Side| Label { x, y, side };
    [
        label(x + beside, y + middle, Side::Right),
        label(x - beside, y + middle, Side::Left),
        label(x, above, Side::Middle),
        label(x, below, Side::Middle),
        label(x + radius * 0.7, above, Side::Right),
        label(x + radius * 0.7, below, Side::Right),
        label(x - radius * 0.7, above, Side::Left),
        label(x - radius * 0.7, below, Side::Left),
    ]
}
