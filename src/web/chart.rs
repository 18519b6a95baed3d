//! Numbers over days as a drawing: inline SVG without styles or scripts, colours by class.

use chrono::{Days, NaiveDate};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 220.0;
/// Room for the numbers on the left and the dates below.
const LEFT: f64 = 52.0;
const BELOW: f64 = 24.0;
const ABOVE: f64 = 10.0;

/// What happened on each day of a range.
#[derive(Debug)]
pub(super) struct Daily {
    pub(super) first: NaiveDate,
    /// Succeeded and failed, from `first` on, one a day.
    pub(super) counts: Vec<(u64, u64)>,
}

/// The least number at or above `highest` that is round, and so is its half.
fn round_up(highest: u64) -> u64 {
    let mut step = 1_u64;
    loop {
        for factor in [2, 4, 6, 8, 10, 12, 16] {
            let round = step.saturating_mul(factor);
            if round >= highest {
                return round;
            }
        }
        step = step.saturating_mul(10);
    }
}

/// A number as a coordinate.
#[expect(clippy::cast_precision_loss, reason = "a drawing has no more than a thousand dots a side")]
fn dots(number: u64) -> f64 {
    number as f64
}

/// Bars of a day each, failures on top of the others.
pub(super) fn bars(days: &Daily) -> String {
    let top =
        round_up(days.counts.iter().map(|(well, failed)| well + failed).max().unwrap_or(0).max(4));
    let plot = HEIGHT - ABOVE - BELOW;
    let height = |count: u64| plot * dots(count) / dots(top);
    let count = dots(days.counts.len().max(1) as u64);
    let step = (WIDTH - LEFT) / count;
    let width = (step * 0.78).max(0.8);
    let mut svg = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Events a day, {} days; the table below has the numbers\">",
        days.counts.len()
    );
    for part in [0, 1, 2] {
        let number = top * part / 2;
        let y = ABOVE + plot - height(number);
        svg.push_str(&format!("<path class=\"grid\" d=\"M{LEFT} {y:.1}H{WIDTH}\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LEFT - 6.0, y + 4.0, crate::show::count(number)));
    }
    let every = (days.counts.len() / 6).max(1);
    for (place, (well, failed)) in days.counts.iter().enumerate() {
        let x = LEFT + step * dots(place as u64);
        let day = days.first.checked_add_days(Days::new(place as u64)).unwrap_or(days.first);
        if well + failed > 0 {
            let (high, more) = (height(*well), height(*failed));
            let y = ABOVE + plot - high;
            svg.push_str(&format!("<g><title>{day}: {well} succeeded, {failed} failed</title><rect class=\"well\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{high:.1}\"/>"));
            if *failed > 0 {
                svg.push_str(&format!("<rect class=\"fail\" x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\"/>", y - more.max(1.5), more.max(1.5)));
            }
            svg.push_str("</g>");
        }
        if place % every == 0 && days.counts.len() - place >= every / 2 {
            svg.push_str(&format!(
                "<text x=\"{x:.1}\" y=\"{:.0}\">{}</text>",
                HEIGHT - 6.0,
                day.format("%d %b")
            ));
        }
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (highest, round) in
            [(1, 2), (3, 4), (5, 6), (11, 12), (17, 20), (104, 120), (4_999, 6_000)]
        {
            assert_eq!(round_up(highest), round);
        }
    }

    #[test]
    fn a_day_is_a_bar_with_its_numbers() {
        let first = NaiveDate::from_ymd_opt(2026, 4, 23).unwrap();
        let svg = bars(&Daily { first, counts: vec![(10, 0), (0, 0), (3, 2)] });
        assert_eq!(svg.matches("class=\"well\"").count(), 2);
        assert!(svg.contains("<title>2026-04-25: 3 succeeded, 2 failed</title>"));
        assert!(!svg.contains("style="), "the policy of the pages forbids inline styles");
    }
}
