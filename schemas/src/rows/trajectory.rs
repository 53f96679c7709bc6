//! Trajectories, the verdicts on them and their rewards.

use crate::column::JsonText;
use crate::row::row;

row! {
    /// One attempt of one policy at one question.
    ///
    /// The turns are parallel lists, one element per assistant turn: nested structs are not pruned by leaf when
    /// Parquet is read. `turn_observation` holds what came back to that turn's action; the final turn has none.
    Trajectory by trajectory_id {
        /// Id of the trajectory (gen_ai.conversation.id).
        trajectory_id: String,
        /// The question attempted.
        qa_id: String,
        /// Model that acted (gen_ai.request.model).
        policy_model: Option<String>,
        /// Digest of the checkpoint served, where known.
        policy_checkpoint_digest: Option<String>,
        /// Version of the policy within a training run: the update step.
        policy_version: Option<i64>,
        /// Sampling parameters as sent (gen_ai.request.temperature, gen_ai.request.top_p, …).
        sampling_parameters: Option<JsonText>,
        /// Seed of the attempt (gen_ai.request.seed).
        seed: Option<i64>,
        /// Attempt, from 0.
        attempt: i32,
        /// Digest of the tokenizer that the token ids belong to.
        tokenizer_digest: Option<String>,
        /// Name or digest of the prompt profile.
        prompt_profile: Option<String>,
        /// The system message, as sent (gen_ai.system_instructions).
        system_prompt: Option<String>,
        /// The first user message without the question: profile text that stands before it.
        user_prefix: Option<String>,
        /// The question as asked.
        question: Option<String>,
        /// The final answer, null if none was given.
        answer: Option<String>,
        /// Why it ended: `answer`, `forced`, `calls`, `tokens`, `time`, `malformed`, `error`
        /// (gen_ai.response.finish_reasons).
        termination: String,
        /// Assistant turns.
        n_turns: i32,
        /// Tool calls among them.
        n_tool_calls: i32,
        /// Tokens read by the policy, summed over turns (gen_ai.usage.input_tokens).
        input_tokens: Option<i64>,
        /// Tokens written by the policy, summed over turns (gen_ai.usage.output_tokens).
        output_tokens: Option<i64>,
        /// Of a gated benchmark: left out of exports and of reports for roles without the right.
        restricted: Option<bool>,
        /// Text between the think tags of each turn.
        #[serde(default)]
        turn_thought: Vec<Option<String>>,
        /// Tool called in each turn; null in the answering turn (gen_ai.tool.name).
        #[serde(default)]
        turn_tool: Vec<Option<String>>,
        /// Arguments of each call: the JSON text exactly as written (gen_ai.tool.call.arguments).
        #[serde(default)]
        turn_arguments: Vec<Option<String>>,
        /// Observation that each call got, without its tags (gen_ai.tool.call.result).
        #[serde(default)]
        turn_observation: Vec<Option<String>>,
        /// SHA-256 of each observation, hex.
        #[serde(default)]
        turn_observation_digest: Vec<Option<String>>,
        /// Text of a turn that its parts do not render back to byte for byte; null where they do.
        #[serde(default)]
        turn_raw: Vec<Option<String>>,
        /// Token ids of each turn's context, as sampled from.
        turn_context_token_ids: Option<Vec<Option<Vec<i32>>>>,
        /// Token ids of each turn's completion, as sampled.
        turn_completion_token_ids: Option<Vec<Option<Vec<i32>>>>,
        /// Log-probabilities of the completion's tokens under the sampler, natural logarithm.
        turn_log_probs: Option<Vec<Option<Vec<f32>>>>,
        /// Policy version that wrote each turn.
        turn_policy_version: Option<Vec<Option<i64>>>,
        /// Wall-clock milliseconds of each turn, model and tool together.
        turn_ms: Option<Vec<Option<i64>>>,
        /// How each call went: `done`, `invalid`, `miss`, `unreachable`, `outage`; `malformed` for a turn that was no
        /// thought and one action. Null where nothing was called.
        turn_outcome: Option<Vec<Option<String>>>,
        /// User message that asked for the answer before the last turn, where calls or context were spent.
        final_instruction: Option<String>,
        /// Tokens that the policy read in each turn: its whole context (gen_ai.usage.input_tokens).
        turn_input_tokens: Option<Vec<Option<i64>>>,
        /// Tokens that the policy wrote in each turn (gen_ai.usage.output_tokens).
        turn_output_tokens: Option<Vec<Option<i64>>>,
        /// Wall-clock milliseconds of each turn's tool call, a part of `turn_ms`; the rest is the model's. Null where
        /// nothing was called.
        turn_tool_ms: Option<Vec<Option<i64>>>,
        /// URLs of what each call was answered from: the pages that a visit could read, canonical, or the results that a
        /// search found, in their order. Null where there were none, or nothing says.
        turn_source_urls: Option<Vec<Option<Vec<String>>>>,
        /// SHA-256 of each of these, hex: of a page's whole text, as `pages.digest`, or of a result as it is shown.
        turn_source_digests: Option<Vec<Option<Vec<String>>>>,
    }
}

row! {
    /// A verdict on a trajectory (the funnel, paper section 2.2; evaluation).
    Judgment by trajectory_id {
        /// The trajectory judged.
        trajectory_id: String,
        /// `validity`, `correctness`, `quality`, `override`, or `equivalence`: whether an answer is the same as another's.
        stage: String,
        /// `pass`, `fail` or `error`; an error of the judge is never a fail.
        verdict: String,
        /// Score, where the judge gives one (gen_ai.evaluation.score.value).
        score: Option<f64>,
        /// Judge: model or rule set (gen_ai.evaluation.name).
        judge: Option<String>,
        /// What was judged, with thresholds.
        criteria: Option<JsonText>,
        /// The judge's reasons (gen_ai.evaluation.explanation).
        rationale: Option<String>,
        /// Version of rules and prompt; of several verdicts of a stage the highest is current.
        rule_version: i32,
    }
}

row! {
    /// The reward of a trajectory and its parts: R = 0.1·format + 0.9·answer (paper section 3.3).
    Reward by trajectory_id {
        /// The trajectory rewarded.
        trajectory_id: String,
        /// Rollouts of one prompt.
        group_id: Option<String>,
        /// Format obeyed: 0 or 1.
        format: Option<f64>,
        /// Answer correct: 0 or 1.
        answer: Option<f64>,
        /// Soft overlong punishment, 0 to −1.
        overlong_penalty: Option<f64>,
        /// The reward.
        reward: f64,
        /// (R − mean) / std within the group.
        advantage: Option<f64>,
        /// Policy version that wrote the trajectory.
        policy_version: Option<i64>,
        /// What it was computed by: weights, tools, the judgment of the answer, and why the format was not obeyed.
        criteria: Option<JsonText>,
    }
}
