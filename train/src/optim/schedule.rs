//! The learning rate, step by step.

use serde::Deserialize;

/// How the learning rate falls behind the warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// It stays.
    Constant,
    /// On a straight line.
    Linear,
    /// On half a cosine.
    #[default]
    Cosine,
}

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
    pub decay: Decay,
    /// The share of `peak` that it ends at.
    pub floor: f64,
}

impl Schedule {
    /// The learning rate of a step, counted from 0: `(step + 1) / warmup_steps` of the peak at first.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let length = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let done = ((step - self.warmup_steps) as f64 / length as f64).min(1.0);
        let left = match self.decay {
            Decay::Constant => return self.peak,
            Decay::Linear => 1.0 - done,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
        };
        self.peak * (self.floor + (1.0 - self.floor) * left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_on_a_line_and_falls_to_the_floor() {
        let schedule = Schedule { peak: 1.0, warmup_steps: 4, total_steps: 14, decay: Decay::Linear, floor: 0.1 };
        let rates: Vec<f64> = [0, 3, 4, 9, 14, 99].iter().map(|&step| schedule.at(step)).collect();
        for (rate, expected) in rates.iter().zip([0.25, 1.0, 1.0, 0.55, 0.1, 0.1]) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
        let cosine = Schedule { decay: Decay::Cosine, floor: 0.0, ..schedule };
        assert!((cosine.at(9) - 0.5).abs() < 1e-12 && cosine.at(14).abs() < 1e-12);
        assert_eq!(Schedule { decay: Decay::Constant, ..schedule }.at(13), 1.0);
    }
}
