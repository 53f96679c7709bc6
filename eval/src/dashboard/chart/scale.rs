//! From values to places, the lines that an axis has, and the room that texts beside a plot need.

use chrono::{DateTime, Utc};

use super::Unit;
use crate::render::text_width;

/// The size of letters in charts, as their style has it.
pub(super) const FONT: f64 = 12.0;
/// Characters of a label before a line.
pub(super) const LABEL_MAX: usize = 32;

/// Where a chart of lines one below the other has what: labels, the plot, figures. Labels and figures are never cut: the chart
/// is wider where they need it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Beside {
    /// Where the plot begins; labels end before it.
    pub(super) left: f64,
    /// Where it ends.
    pub(super) right: f64,
    /// Where figures begin.
    pub(super) figures: f64,
    /// The whole.
    pub(super) width: f64,
}

impl Beside {
    /// Room for these labels and figures, in the order of their lines.
    pub(super) fn of(labels: &[String], figures: &[String]) -> Beside {
        const WIDTH: f64 = 760.0;
        const LEFT: f64 = 230.0;
        const PLOT_WIDTH: f64 = 410.0;
        let widest = |texts: &[String]| texts.iter().map(|text| text_width(text, FONT)).fold(0.0, f64::max);
        let left = LEFT.max(widest(labels) + 16.0).ceil();
        let right = left + PLOT_WIDTH;
        let begin = right + 12.0;
        Beside { left, right, figures: begin, width: WIDTH.max(begin + widest(figures) + 6.0).ceil() }
    }
}

/// Where values stand between two ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Values from `low` to `high` between the places `from` and `to`. A single value stands in the middle.
    pub(super) fn new((low, high): (f64, f64), (from, to): (f64, f64)) -> Scale {
        let (low, high) = if high > low { (low, high) } else { (low - 0.5, low + 0.5) };
        Scale { low, high, from, to }
    }

    /// The place of a value, at the nearest end where it lies beyond.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = (value.clamp(self.low, self.high) - self.low) / (self.high - self.low);
        ((self.from + share * (self.to - self.from)) * 10.0).round() / 10.0
    }

    /// Round values for about `wanted` lines.
    pub(super) fn ticks(&self, wanted: usize) -> Vec<f64> {
        let step = step((self.high - self.low) / wanted.max(1) as f64);
        let first = (self.low / step).ceil();
        // No minus before a zero.
        (0..=wanted * 3)
            .map(|n| (first + n as f64) * step + 0.0)
            .take_while(|tick| *tick <= self.high + step * 1e-9)
            .collect()
    }

    /// Whole times for about `wanted` lines, in milliseconds, with their text.
    pub(super) fn times(&self, wanted: usize) -> Vec<(f64, String)> {
        const MINUTE: f64 = 60_000.0;
        const DAY: f64 = 1_440.0 * MINUTE;
        const STEPS: [f64; 14] = [
            MINUTE,
            5.0 * MINUTE,
            15.0 * MINUTE,
            60.0 * MINUTE,
            180.0 * MINUTE,
            720.0 * MINUTE,
            DAY,
            2.0 * DAY,
            7.0 * DAY,
            14.0 * DAY,
            30.0 * DAY,
            90.0 * DAY,
            365.0 * DAY,
            3_650.0 * DAY,
        ];
        let least = (self.high - self.low) / wanted.max(1) as f64;
        let step = STEPS.into_iter().find(|step| *step >= least).unwrap_or(3_650.0 * DAY);
        let pattern = if step >= DAY { "%Y-%m-%d" } else { "%m-%d %H:%M" };
        let first = (self.low / step).ceil();
        let ticks = (0..=wanted * 3).map(|n| (first + n as f64) * step).take_while(|tick| *tick <= self.high);
        ticks.filter_map(|tick| Some((tick, time_of(tick)?.format(pattern).to_string()))).collect()
    }
}

/// The time of milliseconds since 1970.
pub(super) fn time_of(ms: f64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(ms as i64)
}

/// The ends of the axis of these values: from zero where the unit asks for it, else with a little room.
pub(super) fn ends(unit: Unit, values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return (0.0, 1.0);
    }
    match unit {
        // All of it where half of it is used: 3.8 % would lie on the ground of 100.
        Unit::Share => (0.0, if high > 0.5 { 1.0 } else { (high * 10.0).ceil().max(1.0) / 10.0 }),
        Unit::Points => {
            let reach = ((low.abs().max(high.abs()) * 20.0).ceil() / 20.0).clamp(0.05, 1.0);
            (-reach, reach)
        }
        Unit::Number(_) => (low.min(0.0), if high > 0.0 { high * 1.05 } else { 1.0 }),
        Unit::Level(_) => {
            // A hundredth of the value at least: less would be lines that read alike.
            let room = ((high - low) * 0.05).max(high.abs() * 0.005).max(1e-9);
            (low - room, high + room)
        }
    }
}

fn step(least: f64) -> f64 {
    let magnitude = 10f64.powf(least.max(1e-300).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|by| by * magnitude)
        .find(|step| *step >= least * (1.0 - 1e-9))
        .unwrap_or(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_beside_a_plot_is_never_cut() {
        let of = |label: &str, figure: &str| Beside::of(&[label.to_string()], &[figure.to_string()]);
        let usual = Beside { left: 230.0, right: 640.0, figures: 652.0, width: 760.0 };
        assert_eq!(of("all questions", "40.7 ± 9.3"), usual);
        // Eleven digits, three signs, eight others: 12 · (11 · 0.66 + 3 + 8 · 0.4) = 161.5 from 652 on, and 6.
        assert_eq!(of("all", "+13.34 [+18.67, +18.6]"), Beside { width: 820.0, ..usual });
        // 32 capitals: 12 · 25.6, and 16.
        let long = of(&"A".repeat(32), "1");
        assert_eq!((long.left, long.right, long.figures, long.width), (324.0, 734.0, 746.0, 760.0));
    }

    #[test]
    fn axes_have_round_lines() {
        let close = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(close(&Scale::new((0.0, 1.0), (0.0, 1.0)).ticks(5), &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]));
        assert!(close(&Scale::new((-0.15, 0.15), (0.0, 1.0)).ticks(3), &[-0.1, 0.0, 0.1]));
        let times = Scale::new((0.0, 3.0 * 86_400_000.0), (0.0, 1.0)).times(3);
        assert_eq!(times.first().unwrap().1, "1970-01-01");
        assert_eq!(times.len(), 4);
    }

    #[test]
    fn a_value_stands_where_the_axis_says_and_never_outside() {
        let scale = Scale::new((0.0, 1.0), (100.0, 300.0));
        assert_eq!([scale.at(0.5), scale.at(2.0), scale.at(-1.0)], [200.0, 300.0, 100.0]);
        assert_eq!(Scale::new((5.0, 5.0), (0.0, 10.0)).at(5.0), 5.0);
    }

    #[test]
    fn quantities_begin_at_zero_and_levels_need_not() {
        assert_eq!(ends(Unit::Share, [0.2, 0.31].into_iter()), (0.0, 0.4));
        assert_eq!(ends(Unit::Share, [0.2, 0.6].into_iter()), (0.0, 1.0));
        assert_eq!(ends(Unit::Number("rows"), [10.0].into_iter()), (0.0, 10.5));
        assert_eq!(ends(Unit::Level(""), [2.0, 3.0].into_iter()), (1.95, 3.05));
        assert_eq!(ends(Unit::Level(""), [200.0].into_iter()), (199.0, 201.0));
        assert_eq!(ends(Unit::Points, [0.12].into_iter()), (-0.15, 0.15));
        assert_eq!(ends(Unit::Share, std::iter::empty()), (0.0, 1.0));
    }
}
