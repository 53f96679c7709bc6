//! Numbers, times and texts for people. Decimals are fixed, units stand in headings; the exact value is on hover.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::render::few;
use crate::stats::CLUSTERS_FEW;
use crate::stats::mean::Estimate;

/// What stands for nothing.
pub const MISSING: &str = "–";

/// A share in percent: `51.5`.
pub fn percent(share: f64) -> String {
    crate::render::percent(share)
}

/// An estimate in percent with half its interval, marked where its clusters are few: `51.5 ± 4.9`, `8.3 ± 16.9†`; one that
/// is not symmetric has its ends on hover.
pub fn estimate(estimate: Option<&Estimate>) -> String {
    let Some(estimate) = estimate else { return MISSING.to_string() };
    let few = few(estimate.clusters);
    match estimate.interval {
        Some(ends) => format!("{} ± {}{few}", percent(estimate.value), percent((ends.high - ends.low) / 2.0)),
        None => format!("{}{few}", percent(estimate.value)),
    }
}

/// What an estimate rests on, for hovering: `40.7 %, 95 % interval 31.5 to 50.4, 103 questions in 40 clusters`.
pub fn estimate_hint(estimate: &Estimate, confidence: f64) -> String {
    let ends = estimate.interval.map_or_else(String::new, |ends| {
        format!(", {:.0} % interval {} to {}", confidence * 100.0, percent(ends.low), percent(ends.high))
    });
    let clusters = match estimate.clusters == estimate.questions {
        true => String::new(),
        false => format!(" in {} clusters", estimate.clusters),
    };
    let few = if estimate.clusters < CLUSTERS_FEW { ", few: rough" } else { "" };
    format!("{} %{ends}, {} questions{clusters}{few}", percent(estimate.value), estimate.questions)
}

/// A difference in points with its sign: `+3.1`, `−0.4`.
pub fn points(value: f64) -> String {
    crate::render::points(value, None)
}

/// A count with thin spaces between thousands: `1 266`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A quantity with its magnitude: `950`, `12.3 k`, `4.6 M`.
pub fn quantity(value: f64) -> String {
    let sized = |by: f64, unit: &str| format!("{:.1} {unit}", value / by);
    match value.abs() {
        size if size < 10_000.0 && value.fract() == 0.0 => format!("{value:.0}"),
        size if size < 10_000.0 => format!("{value:.1}"),
        size if size < 1e6 => sized(1e3, "k"),
        size if size < 1e9 => sized(1e6, "M"),
        _ => sized(1e9, "G"),
    }
}

/// Milliseconds in units of people: `340 ms`, `12.4 s`, `3 m 05 s`, `2 h 14 m`.
pub fn duration_ms(ms: f64) -> String {
    let seconds = (ms / 1000.0).round().max(0.0) as u64;
    match ms {
        _ if ms < 1_000.0 => format!("{ms:.0} ms"),
        _ if ms < 60_000.0 => format!("{:.1} s", ms / 1000.0),
        _ if ms < 3_600_000.0 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Money in the settings' currency: two decimals, four below one.
pub fn money(value: f64) -> String {
    if value.abs() < 1.0 { format!("{value:.4}") } else { format!("{value:.2}") }
}

/// A time to the minute, UTC: `2026-11-21 20:15`.
pub fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M").to_string()
}

/// A time exactly.
pub fn exact_time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// A time as rows have it.
pub fn parsed_time(text: &str) -> Option<DateTime<Utc>> {
    let with_zone = DateTime::parse_from_rfc3339(text).map(|at| at.to_utc());
    let without = || chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").map(|at| at.and_utc());
    with_zone.or_else(|_| without()).ok()
}

/// A text of at most so many characters; what is cut ends in `…`.
pub fn clipped(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_string(),
        Some(_) => text.chars().take(characters.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// The beginning of an id that tells it from others: ids are long, and their ends are on hover and in the copy.
pub fn short_id(id: &str) -> String {
    clipped(id, 14)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Interval;
    use crate::stats::mean::Method;

    #[test]
    fn figures_have_fixed_decimals_and_say_what_they_rest_on() {
        let interval = Some(Interval { low: 0.466, high: 0.564 });
        let of = Estimate {
            value: 0.515,
            standard_error: None,
            interval,
            method: Method::Bootstrap,
            questions: 103,
            clusters: 40,
        };
        assert_eq!(estimate(Some(&of)), "51.5 ± 4.9");
        assert_eq!(estimate_hint(&of, 0.95), "51.5 %, 95 % interval 46.6 to 56.4, 103 questions in 40 clusters");
        let of = Estimate { questions: 12, clusters: 12, ..of };
        assert_eq!(estimate(Some(&of)), "51.5 ± 4.9†");
        assert_eq!(estimate_hint(&of, 0.95), "51.5 %, 95 % interval 46.6 to 56.4, 12 questions, few: rough");
        assert_eq!(estimate(None), "–");
        assert_eq!((points(0.031), points(-0.004)), ("+3.1".to_string(), "−0.4".to_string()));
    }

    #[test]
    fn quantities_have_units_of_people() {
        assert_eq!(count(1_266_000), "1\u{202f}266\u{202f}000");
        assert_eq!([999.0, 12_345.0, 4_600_000.0].map(quantity), ["999", "12.3 k", "4.6 M"]);
        let durations = [340.0, 12_400.0, 185_000.0, 8_040_000.0].map(duration_ms);
        assert_eq!(durations, ["340 ms", "12.4 s", "3 m 05 s", "2 h 14 m"]);
        assert_eq!((money(0.009), money(12.5)), ("0.0090".to_string(), "12.50".to_string()));
    }

    #[test]
    fn a_clipped_text_is_cut_between_characters() {
        assert_eq!((clipped("naïve", 5), clipped("naïveté", 5)), ("naïve".to_string(), "naïv…".to_string()));
    }
}
