//! verl: Parquet for SFT and for reinforcement learning, the reward as a Python file, configurations.
//!
//! SFT rows have `messages`; longer ones than `data.max_length` are an error, and its default is 1,024. RL rows have
//! `data_source`, `prompt`, `ability`, `reward_model` and `extra_info`, whose `index` is an int64; longer prompts than
//! `data.max_prompt_length` (512) are an error or filtered, and ours has about 1,000 tokens. The reward is by rule, in
//! [`REWARD`]: 0.1 for the format and 0.9 for the answer (paper, section 3.3). A judge that is a model knows more answers;
//! this one compares normal forms. Checked against version 0.9.1.

use chrono::NaiveDate;
use serde::Serialize;
use serde_json::Value;
use webdancer_schemas::rows::Qa;

use super::{LeftOut, Longest, quoted, token_limit};
use crate::conversation::{Message, Role};
use crate::profile::Profile;
use crate::tool::{ObservationLimits, Web as _};
use crate::web::Recorded;

/// The custom reward function: a Python file with `compute_score`, which returns `{score, acc}`.
pub const REWARD: &str = include_str!("reward.py");
/// What a row says that it comes from.
pub const DATA_SOURCE: &str = "webdancer";

/// A message, in the order of fields that verl's own data has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Said {
    /// What is said.
    pub content: String,
    /// Who says it.
    pub role: &'static str,
}

impl From<Message> for Said {
    fn from(message: Message) -> Said {
        Said { content: message.content, role: message.role.name() }
    }
}

/// A row for SFT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SftRow {
    /// The conversation.
    pub messages: Vec<Said>,
    /// Which trajectory it is.
    pub trajectory_id: String,
}

/// A row for reinforcement learning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RlRow {
    /// [`DATA_SOURCE`].
    pub data_source: &'static str,
    /// The conversation up to the question.
    pub prompt: Vec<Said>,
    /// What is trained.
    pub ability: &'static str,
    /// How it is rewarded.
    pub reward_model: RewardModel,
    /// What else is known.
    pub extra_info: ExtraInfo,
}

/// How a row is rewarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RewardModel {
    /// The gold answer.
    pub ground_truth: String,
    /// `rule`: by the reward function, without a model.
    pub style: &'static str,
}

/// What else is known of a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExtraInfo {
    /// All gold answers, where there are several.
    pub answers: Vec<String>,
    /// Number of the row, from 0.
    pub index: i64,
    /// The question's id.
    pub qa_id: String,
    /// `train`.
    pub split: &'static str,
}

/// Makes the rows of questions, asked by one profile on one day.
#[derive(Debug)]
pub struct Asking {
    system: String,
    user_prefix: String,
    next: i64,
}

impl Asking {
    /// By `profile`, which lists search and visit, with `date` as today.
    pub fn by(profile: &Profile, date: NaiveDate) -> Asking {
        let tools = Recorded::new("export", ObservationLimits::default()).specifications();
        Asking { system: profile.system_message(date), user_prefix: profile.user_prefix(&tools), next: 0 }
    }

    /// The row of the next question.
    ///
    /// # Errors
    /// Why it is left out.
    pub fn row(&mut self, qa: &Qa) -> Result<RlRow, LeftOut> {
        if qa.method == "benchmark" {
            return Err(LeftOut::Benchmark);
        }
        let index = self.next;
        self.next += 1;
        let prompt =
            [(Role::System, self.system.clone()), (Role::User, format!("{}{}", self.user_prefix, qa.question))];
        let answers = qa.attributes.as_ref().and_then(|attributes| attributes.0.get("answers")?.as_array());
        let answers = answers.into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect();
        Ok(RlRow {
            data_source: DATA_SOURCE,
            prompt: prompt.into_iter().map(|(role, content)| Message { role, content }.into()).collect(),
            ability: "web",
            reward_model: RewardModel { ground_truth: qa.answer.clone(), style: "rule" },
            extra_info: ExtraInfo { answers, index, qa_id: qa.qa_id.clone(), split: "train" },
        })
    }
}

/// A configuration of SFT to start from, over the dataset in `file`.
pub fn sft_config(file: &str, longest: Longest) -> String {
    let (max_length, file, bytes_longest) = (token_limit(longest, 32_768), quoted(file), longest.bytes);
    format!(
        "# Over verl's sft_trainer configuration; or each as data.…=… on its command line.
data:
  train_files: {file}
  messages_key: messages
  # What is longer ends the run. The longest row has {bytes_longest} bytes, and a byte-level tokenizer, as Qwen's is, makes
  # no more tokens of them; of English text it makes about a quarter.
  max_length: {max_length}
  truncation: error
"
    )
}

/// A configuration of reinforcement learning to start from, over the dataset in `file`.
pub fn rl_config(file: &str, longest: Longest) -> String {
    let (max_prompt_length, file, bytes_longest) = (token_limit(longest, 4_096), quoted(file), longest.bytes);
    format!(
        "# Over verl's ppo_trainer configuration; or each as data.…=… on its command line.
data:
  train_files: {file}
  # There must be one: verl's default is a file of GSM8K. Name questions of your own before validation is turned on.
  val_files: {file}
  prompt_key: prompt
  reward_fn_key: data_source
  # The default of 512 leaves no room: the longest prompt has {bytes_longest} bytes, and not more tokens.
  max_prompt_length: {max_prompt_length}
  # Reference (DAPO/verl), not the paper's: the observations count, too.
  max_response_length: 20480
  filter_overlong_prompts: true
  truncation: error
  # Reference (DAPO/verl), not the paper's. With fewer questions than these there is no step at all.
  train_batch_size: 512
# Versions before 0.9 have custom_reward_function at the top, without `reward`.
reward:
  custom_reward_function:
    path: reward.py
    name: compute_score
# Paper (DAPO): how much better than its group. verl's default, gae, is PPO with a critic.
algorithm:
  adv_estimator: grpo
actor_rollout_ref:
  # Reference (DAPO/verl), not the paper's.
  actor:
    ppo_mini_batch_size: 32
    clip_ratio_low: 0.2
    clip_ratio_high: 0.28
    clip_ratio_c: 10.0
    loss_agg_mode: token-mean
  # Paper: 16 rollouts of each question, all sampled at temperature 1.
  rollout:
    n: 16
    temperature: 1.0
    top_p: 1.0
trainer:
  # Ours: no questions are kept back.
  val_before_train: false
"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use webdancer_schemas::column::JsonText;

    use super::*;

    fn qa(method: &str) -> Qa {
        Qa {
            qa_id: "qa-1".to_string(),
            method: method.to_string(),
            question: "Which city?".to_string(),
            answer: "Lomé".to_string(),
            attributes: Some(JsonText(json!({"answers": ["Lomé", "Lome"]}))),
            ..Qa::default()
        }
    }

    #[test]
    fn a_question_is_a_prompt_with_its_gold_answers() {
        let mut asking = Asking::by(&Profile::standard(), "2026-01-02".parse().unwrap());
        assert_eq!(asking.row(&qa("benchmark")), Err(LeftOut::Benchmark));
        asking.row(&qa("import")).unwrap();
        let row = serde_json::to_value(asking.row(&qa("import")).unwrap()).unwrap();
        assert_eq!(row["data_source"], "webdancer");
        assert_eq!(row["reward_model"], json!({"ground_truth": "Lomé", "style": "rule"}));
        assert_eq!(
            row["extra_info"],
            json!({"answers": ["Lomé", "Lome"], "index": 1, "qa_id": "qa-1", "split": "train"})
        );
        let (system, user) = (&row["prompt"][0], &row["prompt"][1]);
        assert_eq!((&system["role"], &user["role"]), (&json!("system"), &json!("user")));
        assert!(system["content"].as_str().unwrap().ends_with("Current date: 2026-01-02"));
        let user = user["content"].as_str().unwrap();
        assert!(user.contains("\"name\":\"search\"") && user.contains("\"name\":\"visit\""), "{user}");
        assert!(user.ends_with("User: Which city?"));
    }

    #[test]
    fn limits_of_length_have_room() {
        assert!(sft_config("a.parquet", Longest::default()).contains("  max_length: 32768\n  truncation: error\n"));
        let config = rl_config("a.parquet", Longest { bytes: 5_000, messages: 2 });
        assert!(config.contains("  train_files: \"a.parquet\"\n") && config.contains("  max_prompt_length: 5120\n"));
        assert!(config.contains("reward:\n  custom_reward_function:\n    path: reward.py\n    name: compute_score\n"));
    }

    #[test]
    fn reinforcement_learning_is_by_groups_and_reads_no_file_but_the_pins() {
        let config = rl_config("a.parquet", Longest::default());
        assert!(config.contains("  val_files: \"a.parquet\"\n") && config.contains("  train_batch_size: 512\n"));
        assert!(config.contains("\nalgorithm:\n  adv_estimator: grpo\nactor_rollout_ref:\n"), "{config}");
        let actor = "  # Reference (DAPO/verl), not the paper's.\n  actor:\n    ppo_mini_batch_size: 32\n    \
                     clip_ratio_low: 0.2\n    clip_ratio_high: 0.28\n    clip_ratio_c: 10.0\n    loss_agg_mode: token-mean\n";
        assert!(config.contains(actor), "{config}");
        assert!(config.contains("  rollout:\n    n: 16\n    temperature: 1.0\n    top_p: 1.0\n"), "{config}");
        assert!(config.ends_with("\ntrainer:\n  # Ours: no questions are kept back.\n  val_before_train: false\n"));
    }
}
