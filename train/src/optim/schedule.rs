//! The learning rate, step by step.

use crate::config::{ScheduleConfig, ScheduleKind};

/// Linear warm-up, then a decay to a floor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Learning rate at the end of the warm-up.
    pub peak: f64,
    /// Steps that it rises over.
    pub warmup_steps: u64,
    /// Steps in all.
    pub total_steps: u64,
    /// How it falls.
    pub kind: ScheduleKind,
    /// The share of `peak` that it ends at.
    pub floor: f64,
}

impl Schedule {
    /// The schedule of a run of so many steps.
    pub fn new(config: &ScheduleConfig, peak: f64, total_steps: u64) -> Self {
        let share = (config.warmup_share * total_steps as f64).ceil() as u64;
        let warmup_steps = config.warmup_steps.unwrap_or(share);
        Self { peak, warmup_steps, total_steps, kind: config.kind, floor: config.lr_min_share }
    }

    /// The learning rate of a step, counted from 0: `(step + 1) / warmup_steps` of the peak at first.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let length = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let done = ((step - self.warmup_steps) as f64 / length as f64).min(1.0);
        let left = match self.kind {
            ScheduleKind::Constant => return self.peak,
            ScheduleKind::Linear => 1.0 - done,
            ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        };
        self.peak * (self.floor + (1.0 - self.floor) * left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_on_a_line_and_falls_to_the_floor() {
        let schedule = Schedule { peak: 1.0, warmup_steps: 4, total_steps: 14, kind: ScheduleKind::Linear, floor: 0.1 };
        let rates: Vec<f64> = [0, 3, 4, 9, 14, 99].iter().map(|&step| schedule.at(step)).collect();
        for (rate, expected) in rates.iter().zip([0.25, 1.0, 1.0, 0.55, 0.1, 0.1]) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
        let cosine = Schedule { kind: ScheduleKind::Cosine, floor: 0.0, ..schedule };
        assert!((cosine.at(9) - 0.5).abs() < 1e-12 && cosine.at(14).abs() < 1e-12);
        assert_eq!(Schedule { kind: ScheduleKind::Constant, ..schedule }.at(13), 1.0);
    }
}
