//! How sampling goes on, for people: a bar with rate and time to go on a terminal, now and then a line elsewhere.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use webdancer_synth::sample::Tally;

use crate::output;

/// Time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows a tally.
#[derive(Debug)]
pub(in crate::commands) struct Watch {
    bar: ProgressBar,
    /// What each line begins with.
    prefix: String,
    /// Attempts in all, where that is known.
    total: Option<u64>,
    begun: Instant,
    /// When the last line was written; none: there are no lines.
    line: Option<Mutex<Instant>>,
    /// What is told beside the tally.
    beside: Mutex<String>,
    /// The last tally.
    tally: Mutex<Tally>,
}

impl Watch {
    /// Of the attempts of a policy, named where another's may be under way beside them.
    pub(in crate::commands) fn new(policy: Option<&str>, total: Option<u64>, quiet: bool) -> Arc<Watch> {
        let prefix = policy.map(|policy| format!("{policy}: ")).unwrap_or_default();
        let bar = total.map_or_else(|| output::spinner(quiet), |total| output::bar(total, quiet));
        bar.set_prefix(prefix.clone());
        let begun = Instant::now();
        let line = (!quiet && !std::io::stderr().is_terminal()).then(|| Mutex::new(begun));
        Arc::new(Watch { bar, prefix, total, begun, line, beside: Mutex::default(), tally: Mutex::default() })
    }

    /// What is told beside the tally from now on, such as a score; shown at once, since it may change when no more attempts
    /// are made.
    pub(in crate::commands) fn tell_beside(&self, text: String) {
        *self.beside.lock().unwrap_or_else(PoisonError::into_inner) = text;
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.show(&tally);
    }

    pub(in crate::commands) fn show(&self, tally: &Tally) {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone_from(tally);
        self.bar.set_position(tally.trajectories);
        let beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.bar.set_message(format!("{}{beside}", message(tally)));
        let Some(line) = &self.line else { return };
        let mut last = line.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            output::note(&format!("{}{}{beside}", self.prefix, line_of(tally, self.total, self.begun.elapsed())));
        }
    }

    pub(in crate::commands) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn message(tally: &Tally) -> String {
    let failed = if tally.failed > 0 { format!(", {} failed", tally.failed) } else { String::new() };
    format!("trajectories, {} under way{failed}, {} tokens", tally.running, tally.input_tokens + tally.output_tokens)
}

fn line_of(tally: &Tally, total: Option<u64>, elapsed: Duration) -> String {
    let rate = tally.trajectories as f64 / elapsed.as_secs_f64().max(0.001);
    let (of, eta) = match total {
        Some(total) => {
            let left = total.saturating_sub(tally.trajectories + tally.failed) as f64;
            let eta = if rate > 0.0 { format!(", {:.0} s to go", left / rate) } else { String::new() };
            (format!(" of {total}"), eta)
        }
        None => Default::default(),
    };
    format!("{}{of} {}, {rate:.1}/s{eta}", tally.trajectories, message(tally))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rate_and_time_to_go() {
        let tally = Tally {
            trajectories: 30,
            running: 8,
            failed: 2,
            input_tokens: 900,
            output_tokens: 100,
            ..Tally::default()
        };
        assert_eq!(
            line_of(&tally, Some(92), Duration::from_secs(10)),
            "30 of 92 trajectories, 8 under way, 2 failed, 1000 tokens, 3.0/s, 20 s to go"
        );
        let none = Tally::default();
        assert_eq!(
            line_of(&none, Some(5), Duration::from_secs(1)),
            "0 of 5 trajectories, 0 under way, 0 tokens, 0.0/s"
        );
        assert_eq!(line_of(&none, None, Duration::from_secs(1)), "0 trajectories, 0 under way, 0 tokens, 0.0/s");
    }
}
