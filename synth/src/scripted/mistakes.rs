//! The mistakes that the scripted policy makes, and how often.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A kind of mistake. An attempt makes one or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mistake {
    /// Finds the answer and gives another.
    WrongAnswer,
    /// Writes a tool call that is not JSON.
    BadJson,
    /// Calls a tool that there is not.
    UnknownTool,
    /// Writes itself what a tool would answer.
    SimulatedObservation,
    /// Says the same again and again in a thought.
    Repetition,
    /// Goes on calling tools and never answers.
    NoAnswer,
    /// Answers without calling a tool, from memory.
    NoToolCall,
    /// Goes on calling tools after the answer is known, then gives it.
    OverAction,
}

impl Mistake {
    /// Every mistake.
    pub const ALL: [Mistake; 8] = [
        Mistake::WrongAnswer,
        Mistake::BadJson,
        Mistake::UnknownTool,
        Mistake::SimulatedObservation,
        Mistake::Repetition,
        Mistake::NoAnswer,
        Mistake::NoToolCall,
        Mistake::OverAction,
    ];
}

/// The share of attempts that make each mistake, 0 to 1; the rest make none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MistakeRates {
    /// Share of [`Mistake::WrongAnswer`].
    pub wrong_answer: f64,
    /// Share of [`Mistake::BadJson`].
    pub bad_json: f64,
    /// Share of [`Mistake::UnknownTool`].
    pub unknown_tool: f64,
    /// Share of [`Mistake::SimulatedObservation`].
    pub simulated_observation: f64,
    /// Share of [`Mistake::Repetition`].
    pub repetition: f64,
    /// Share of [`Mistake::NoAnswer`].
    pub no_answer: f64,
    /// Share of [`Mistake::NoToolCall`].
    pub no_tool_call: f64,
    /// Share of [`Mistake::OverAction`].
    pub over_action: f64,
}

impl fmt::Display for Mistake {
    /// As settings and the command line write it: `wrong_answer`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = serde_json::to_value(self).map_err(|_| fmt::Error)?;
        f.write_str(name.as_str().unwrap_or_default())
    }
}

/// Rates that cannot be: correct them.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RatesError {
    /// A rate is no share.
    #[error("the rate of {0} is {1}, not between 0 and 1")]
    NoShare(Mistake, f64),
    /// An attempt makes one mistake at most.
    #[error("the rates of mistakes add up to {0}, more than 1")]
    TooMany(f64),
}

impl MistakeRates {
    /// Each mistake in this share of attempts.
    pub fn each(rate: f64) -> MistakeRates {
        MistakeRates {
            wrong_answer: rate,
            bad_json: rate,
            unknown_tool: rate,
            simulated_observation: rate,
            repetition: rate,
            no_answer: rate,
            no_tool_call: rate,
            over_action: rate,
        }
    }

    /// The share of a mistake.
    pub fn of(&self, mistake: Mistake) -> f64 {
        match mistake {
            Mistake::WrongAnswer => self.wrong_answer,
            Mistake::BadJson => self.bad_json,
            Mistake::UnknownTool => self.unknown_tool,
            Mistake::SimulatedObservation => self.simulated_observation,
            Mistake::Repetition => self.repetition,
            Mistake::NoAnswer => self.no_answer,
            Mistake::NoToolCall => self.no_tool_call,
            Mistake::OverAction => self.over_action,
        }
    }

    /// Checks that every rate is a share and that they add up to 1 at most.
    ///
    /// # Errors
    /// Where they do not.
    pub fn checked(self) -> Result<MistakeRates, RatesError> {
        for mistake in Mistake::ALL {
            let rate = self.of(mistake);
            if !(0.0..=1.0).contains(&rate) {
                return Err(RatesError::NoShare(mistake, rate));
            }
        }
        let sum = Mistake::ALL.iter().map(|mistake| self.of(*mistake)).sum::<f64>();
        // Eight eighths, say, may add up to a little more.
        if sum > 1.0 + 1e-9 { Err(RatesError::TooMany(sum)) } else { Ok(self) }
    }

    /// The mistake of an attempt, by a number drawn evenly from [0, 1).
    pub(super) fn draw(&self, mut drawn: f64) -> Option<Mistake> {
        for mistake in Mistake::ALL {
            let rate = self.of(mistake);
            if drawn < rate {
                return Some(mistake);
            }
            drawn -= rate;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_that_cannot_be_are_refused() {
        assert!(MistakeRates::each(0.125).checked().is_ok());
        assert_eq!(
            MistakeRates { bad_json: 1.5, ..MistakeRates::default() }.checked().unwrap_err().to_string(),
            "the rate of bad_json is 1.5, not between 0 and 1"
        );
        assert!(matches!(MistakeRates::each(0.2).checked(), Err(RatesError::TooMany(_))));
        assert!(MistakeRates { no_answer: f64::NAN, ..MistakeRates::default() }.checked().is_err());
    }

    #[test]
    fn each_mistake_has_its_share_of_what_is_drawn() {
        let rates = MistakeRates { wrong_answer: 0.5, over_action: 0.25, ..MistakeRates::default() };
        let drawn: Vec<_> = [0.0, 0.49, 0.5, 0.74, 0.75, 0.99].map(|number| rates.draw(number)).into();
        let (wrong, over) = (Some(Mistake::WrongAnswer), Some(Mistake::OverAction));
        assert_eq!(drawn, [wrong, wrong, over, over, None, None]);
    }
}
