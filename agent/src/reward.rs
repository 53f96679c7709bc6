//! The reward of a trajectory: R = 0.1·format + 0.9·answer, both 0 or 1 (paper, section 3.3).
//!
//! `format` is 1 if the whole output is in the format, every call is valid JSON and calls a tool that exists, no
//! observation was made up, and the agent ended by itself. `answer` is 1 if the judge says that the answer is correct.
//!
//! | trajectory | format | answer | reward |
//! |---|---|---|---|
//! | answered by itself | as written | as judged | 0, 0.1, 0.9 or 1 |
//! | forced final answer | 0 | as judged | 0 or 0.9 |
//! | out of its own budget, or no answer | 0 | 0 | 0 |
//! | an attempt that failed by no fault of the agent's, or a judge that failed | – | – | none: it leaves its group |
//!
//! No reward is not a reward of 0: an outage must not teach anything.

use serde::{Deserialize, Serialize};
use webdancer_schemas::rows::{Reward, Trajectory};

use crate::judge::Verdict;
use crate::output::{Output, OutputFault, turns_of};
use crate::tool::Tools;

/// What marks an observation. An agent that writes one makes it up.
pub const OBSERVATION_MARKS: [&str; 2] = ["<tool_response>", "</tool_response>"];

/// Ends by the agent's own budget.
const SPENT: [&str; 4] = ["calls", "tokens", "time", "malformed"];

/// What a reward is computed by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RewardParameters {
    /// Weight of the format. Default 0.1 (paper).
    pub format_weight: f64,
    /// Weight of the answer. Default 0.9 (paper).
    pub answer_weight: f64,
    /// The tools that exist. Default those of the [registry](Tools::standard).
    pub tools: Vec<String>,
    /// What marks an observation in an agent's own text. Default the tags of one.
    pub observation_marks: Vec<String>,
}

impl Default for RewardParameters {
    fn default() -> RewardParameters {
        RewardParameters {
            format_weight: 0.1,
            answer_weight: 0.9,
            tools: Tools::standard().names(),
            observation_marks: OBSERVATION_MARKS.map(str::to_string).to_vec(),
        }
    }
}

impl RewardParameters {
    /// What is wrong with them, if anything: names the key.
    pub fn fault(&self) -> Option<&'static str> {
        let is_weight = |weight: f64| weight.is_finite() && weight >= 0.0;
        if !is_weight(self.format_weight) || !is_weight(self.answer_weight) {
            return Some("format_weight and answer_weight must be numbers from 0");
        }
        if self.tools.is_empty() || self.tools.iter().any(String::is_empty) {
            return Some("tools must name at least one tool, and no empty one");
        }
        if self.observation_marks.iter().any(String::is_empty) {
            return Some("observation_marks must not hold an empty mark: it would be found everywhere");
        }
        None
    }
}

/// A reward and its parts.
#[derive(Debug, Clone, PartialEq)]
pub struct RewardParts {
    /// Whether the format was obeyed.
    pub format: bool,
    /// Whether the answer is correct.
    pub answer: bool,
    /// The weighted sum.
    pub reward: f64,
    /// Why the format was not obeyed.
    pub fault: Option<String>,
}

/// Why a trajectory has no reward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Withheld {
    /// The attempt ended by a failure of the model's endpoint, a tool or the engine.
    #[error("the attempt failed by no fault of the agent's")]
    AttemptFailed,
    /// The judge failed.
    #[error("the judge failed")]
    JudgeFailed,
    /// There is an answer, and nobody has judged it.
    #[error("the answer has not been judged")]
    NotJudged,
}

/// The reward of an output whose answer was judged so; None where nobody judged it.
///
/// # Errors
/// Why there is no reward.
pub fn reward(
    output: &Output<'_>,
    verdict: Option<Verdict>,
    parameters: &RewardParameters,
) -> Result<RewardParts, Withheld> {
    if output.termination == "error" {
        return Err(Withheld::AttemptFailed);
    }
    // Whoever spent its budget has not answered, whatever stands in the row.
    let spent = SPENT.contains(&output.termination);
    let answered = !spent && output.answer.is_some_and(|answer| !answer.trim().is_empty());
    let answer = match verdict {
        _ if !answered => false,
        Some(Verdict::Pass) => true,
        Some(Verdict::Fail) => false,
        Some(Verdict::Error) => return Err(Withheld::JudgeFailed),
        None => return Err(Withheld::NotJudged),
    };
    let fault = format_fault(output, parameters);
    let format = fault.is_none();
    let weigh = |part: bool, weight: f64| if part { weight } else { 0.0 };
    let reward = weigh(format, parameters.format_weight) + weigh(answer, parameters.answer_weight);
    Ok(RewardParts { format, answer, reward, fault })
}

/// The reward of a row, as a row; group, penalty and advantage are left to whoever knows the group.
///
/// # Errors
/// Why there is no reward.
pub fn reward_row(
    row: &Trajectory,
    verdict: Option<Verdict>,
    parameters: &RewardParameters,
) -> Result<(Reward, RewardParts), Withheld> {
    let turns = turns_of(row);
    let turns_or_none = turns.as_deref().unwrap_or_default();
    let output = Output { termination: &row.termination, answer: row.answer.as_deref(), turns: turns_or_none };
    let mut parts = reward(&output, verdict, parameters)?;
    if let Err(fault @ OutputFault::UnequalLists { .. }) = &turns {
        parts.fault = Some(fault.to_string());
    }
    let as_number = |part: bool| Some(f64::from(u8::from(part)));
    let reward = Reward {
        trajectory_id: row.trajectory_id.clone(),
        format: as_number(parts.format),
        answer: as_number(parts.answer),
        reward: parts.reward,
        policy_version: row.policy_version,
        ..Reward::default()
    };
    Ok((reward, parts))
}

/// Why the format was not obeyed, in one line.
fn format_fault(output: &Output<'_>, parameters: &RewardParameters) -> Option<String> {
    if let Err(fault) = output.check() {
        return Some(fault.to_string());
    }
    if output.termination != "answer" {
        return Some(format!("the agent did not end by itself but by {:?}", output.termination));
    }
    if let Some((turn, tool)) = output.unknown_tool(&parameters.tools) {
        return Some(format!("turn {turn} calls {tool:?}, which does not exist"));
    }
    let simulated = output.simulated_observation(&parameters.observation_marks);
    simulated.map(|turn| format!("turn {turn} makes up an observation"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Trajectory {
        let some = |text: &str| Some(text.to_string());
        Trajectory {
            trajectory_id: "t".to_string(),
            answer: some("Paris"),
            termination: "answer".to_string(),
            policy_version: Some(7),
            turn_thought: vec![some("look"), some("found")],
            turn_tool: vec![some("search"), None],
            turn_arguments: vec![some("{\"query\": [\"x\"]}"), None],
            turn_observation: vec![some("seen"), None],
            turn_raw: vec![None, None],
            ..Trajectory::default()
        }
    }

    fn parts(row: &Trajectory, verdict: Option<Verdict>) -> Result<(f64, f64, f64), Withheld> {
        let (reward, _) = reward_row(row, verdict, &RewardParameters::default())?;
        assert_eq!((reward.trajectory_id.as_str(), reward.policy_version), ("t", Some(7)));
        assert_eq!((reward.advantage, reward.overlong_penalty, reward.group_id), (None, None, None));
        Ok((reward.format.unwrap(), reward.answer.unwrap(), reward.reward))
    }

    fn with(change: impl Fn(&mut Trajectory)) -> Trajectory {
        let mut row = row();
        change(&mut row);
        row
    }

    #[test]
    fn the_reward_is_a_tenth_for_the_format_and_nine_for_the_answer() {
        let loose = with(|row| row.turn_raw[1] = Some("Paris".to_string()));
        assert_eq!(parts(&row(), Some(Verdict::Pass)), Ok((1.0, 1.0, 1.0)));
        assert_eq!(parts(&row(), Some(Verdict::Fail)), Ok((1.0, 0.0, 0.1)));
        assert_eq!(parts(&loose, Some(Verdict::Pass)), Ok((0.0, 1.0, 0.9)));
        assert_eq!(parts(&loose, Some(Verdict::Fail)), Ok((0.0, 0.0, 0.0)));
    }

    #[test]
    fn a_failure_that_is_not_the_agents_gives_no_reward() {
        assert_eq!(parts(&row(), Some(Verdict::Error)), Err(Withheld::JudgeFailed));
        assert_eq!(parts(&row(), None), Err(Withheld::NotJudged));
        let failed = with(|row| row.termination = "error".to_string());
        for verdict in [None, Some(Verdict::Pass), Some(Verdict::Fail), Some(Verdict::Error)] {
            assert_eq!(parts(&failed, verdict), Err(Withheld::AttemptFailed));
        }
    }

    #[test]
    fn no_answer_is_a_reward_of_0_whatever_the_judge() {
        let blank = || Some(" \n".to_string());
        for (termination, answer) in [
            ("answer", None),
            ("answer", blank()),
            ("forced", None),
            ("calls", blank()),
            ("calls", Some("Paris".to_string())),
            ("tokens", Some("Paris".to_string())),
            ("time", Some("Paris".to_string())),
            ("malformed", Some("Paris".to_string())),
        ] {
            let row = with(|row| (row.termination, row.answer) = (termination.to_string(), answer.clone()));
            for verdict in [None, Some(Verdict::Fail), Some(Verdict::Error), Some(Verdict::Pass)] {
                assert_eq!(parts(&row, verdict), Ok((0.0, 0.0, 0.0)), "{termination} {verdict:?}");
            }
        }
    }

    #[test]
    fn a_forced_answer_counts_and_its_format_does_not() {
        let forced = with(|row| row.termination = "forced".to_string());
        assert_eq!(parts(&forced, Some(Verdict::Pass)), Ok((0.0, 1.0, 0.9)));
        assert_eq!(parts(&forced, Some(Verdict::Fail)), Ok((0.0, 0.0, 0.0)));
    }

    #[test]
    fn each_fault_of_the_format_costs_its_tenth() {
        let text = |text: &str| Some(text.to_string());
        for (row, fault) in [
            (with(|row| row.turn_tool[0] = text("calculate")), "turn 0 calls \"calculate\", which does not exist"),
            (with(|row| row.turn_thought[0] = text("<tool_response>")), "turn 0 makes up an observation"),
            (
                with(|row| row.turn_arguments[0] = text("{\"query\": [")),
                "turn 0: the arguments are no JSON object: EOF while parsing a list at line 1 column 11",
            ),
            (with(|row| row.turn_thought[0] = None), "turn 0: there is no thought"),
            (
                with(|row| row.turn_raw.truncate(1)),
                "turn_raw has 1 elements, turn_thought has 2: one per turn is needed",
            ),
        ] {
            let (_, parts) = reward_row(&row, Some(Verdict::Pass), &RewardParameters::default()).unwrap();
            assert_eq!((parts.format, parts.reward), (false, 0.9));
            assert_eq!(parts.fault.as_deref(), Some(fault));
        }
    }

    #[test]
    fn parameters_that_would_reward_nothing_or_anything_are_told() {
        type Change = fn(&mut RewardParameters);
        let cases: [(Change, &str); 6] = [
            (|p| p.format_weight = f64::NAN, "format_weight"),
            (|p| p.answer_weight = f64::INFINITY, "format_weight"),
            (|p| p.answer_weight = -0.1, "format_weight"),
            (|p| p.tools.clear(), "tools"),
            (|p| p.tools.push(String::new()), "tools"),
            (|p| p.observation_marks.push(String::new()), "observation_marks"),
        ];
        assert_eq!(RewardParameters::default().fault(), None);
        for (change, key) in cases {
            let mut parameters = RewardParameters::default();
            change(&mut parameters);
            assert!(parameters.fault().unwrap().starts_with(key), "{parameters:?}");
        }
    }

    #[test]
    fn weights_and_tools_are_parameters() {
        let parameters = RewardParameters {
            format_weight: 0.25,
            answer_weight: 0.75,
            tools: vec!["lookup".to_string()],
            ..RewardParameters::default()
        };
        let (reward, parts) = reward_row(&row(), Some(Verdict::Pass), &parameters).unwrap();
        assert_eq!((reward.format, reward.reward), (Some(0.0), 0.75));
        assert_eq!(parts.fault.as_deref(), Some("turn 0 calls \"search\", which does not exist"));
    }
}
