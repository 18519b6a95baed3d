//! The states of a facility over a range as a strip: inline SVG without styles or scripts, colours by class, and heights that tell the states without colour.

use crate::{facility::Span, map::State};
use chrono::{DateTime, TimeDelta, Utc};

const WIDTH: f64 = 860.0;
/// Of the highest bar.
const PLOT: f64 = 44.0;
/// Room for the times below.
const BELOW: f64 = 20.0;
/// A short outage is seen, too.
const WIDTH_MIN: f64 = 2.0;
const MARKS: i32 = 5;

/// The worse, the higher.
fn height(state: State) -> f64 {
    match state {
        State::Up | State::Unknown => PLOT * 0.3,
        State::Planned => PLOT * 0.4,
        State::Maintenance => PLOT * 0.6,
        State::Degraded => PLOT * 0.75,
        State::Down => PLOT,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a drawing has no more than a thousand dots a side")]
fn dots(seconds: TimeDelta) -> f64 {
    seconds.num_seconds() as f64
}

/// The strip from the first span on until `at`; empty if there is none.
pub(super) fn strip(history: &[Span], at: DateTime<Utc>) -> String {
    let Some(first) = history.first() else { return String::new() };
    let from = first.from;
    let length = (at - from).max(TimeDelta::seconds(1));
    let place = |time: DateTime<Utc>| (WIDTH * dots(time - from) / dots(length)).clamp(0.0, WIDTH);
    let mut svg = format!(
        "<svg class=\"chart strip\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"States over time; the table below has them\">",
        PLOT + BELOW
    );
    // The worst last, so that a short one is not hidden by its neighbour.
    let mut order: Vec<&Span> = history.iter().collect();
    order.sort_by(|one, other| height(one.state).total_cmp(&height(other.state)));
    for span in order {
        let (left, right) = (place(span.from), place(span.until));
        let width = (right - left).max(WIDTH_MIN);
        let high = height(span.state);
        let word = span.state.word();
        svg.push_str(&format!(
            "<rect class=\"state-{word}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{high:.1}\"><title>{word} from {} until {}</title></rect>",
            left.min(WIDTH - width),
            PLOT - high,
            span.from.format("%Y-%m-%d %H:%M"),
            span.until.format("%Y-%m-%d %H:%M"),
        ));
    }
    let format = match length {
        _ if length < TimeDelta::hours(1) => "%H:%M:%S",
        _ if length < TimeDelta::days(3) => "%d %b %H:%M",
        _ => "%d %b",
    };
    for mark in 0..=MARKS {
        let time = from + length / MARKS * mark;
        let anchor = match mark {
            0 => "start",
            MARKS => "end",
            _ => "middle",
        };
        svg.push_str(&format!(
            "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"{anchor}\">{}</text>",
            place(time),
            PLOT + BELOW - 4.0,
            time.format(format)
        ));
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(state: State, from: i64, until: i64) -> Span {
        let at = |hour| DateTime::UNIX_EPOCH + TimeDelta::hours(hour);
        Span { state, from: at(from), until: at(until), why: "<b>".to_owned() }
    }

    #[test]
    fn a_short_outage_is_as_wide_as_can_be_seen() {
        let at = DateTime::UNIX_EPOCH + TimeDelta::days(365);
        let history = [
            span(State::Up, 0, 4_000),
            span(State::Down, 4_000, 4_001),
            span(State::Up, 4_001, 8_760),
        ];
        let svg = strip(&history, at);
        assert_eq!(svg.matches("<rect").count(), 3);
        let down = svg.split("<rect ").find(|part| part.contains("state-down")).unwrap();
        assert!(down.contains("width=\"2.0\""), "{down}");
        assert!(!svg.contains("<b>"), "{svg}");
    }

    #[test]
    fn nothing_known_is_nothing_drawn() {
        assert_eq!(strip(&[], DateTime::UNIX_EPOCH), "");
    }

    #[test]
    fn a_moment_can_be_drawn() {
        let svg = strip(&[span(State::Unknown, 1, 1)], DateTime::UNIX_EPOCH + TimeDelta::hours(1));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
