//! Arguments of `webdancer sample`, and the limits of every command that attempts questions.

use webdancer_synth::sample::SampleConfig;

#[derive(Debug, Default, clap::Args)]
pub(crate) struct SampleArgs {
    /// Who acts: endpoint:NAME of the settings, or scripted[:terse,MISTAKE=RATE,…] on an atlas [default: the role agent]
    #[arg(long, conflicts_with_all = ["run", "join"])]
    pub(crate) policy: Option<String>,
    /// Where the tools run: closed:PIN of pages, recorded:RUN or recorded:PIN of trajectories, live, or none for no tools [default: live]
    #[arg(long, conflicts_with_all = ["run", "join"])]
    pub(crate) web: Option<String>,
    /// The prompt: standard, compact, or a profile's file [default: standard]
    #[arg(long, value_name = "NAME|FILE", conflicts_with_all = ["run", "join"])]
    pub(crate) profile: Option<String>,
    /// Attempts at each question [default: 5]
    #[arg(long, value_name = "N", conflicts_with = "join", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempts: Option<u32>,
    /// Questions: the columns qa_id and question of this query, and restricted if it is there [default: all of qa that fit policy and web, but benchmarks]
    #[arg(long, value_name = "QUERY", conflicts_with_all = ["run", "join", "pin"])]
    pub(crate) sql: Option<String>,
    /// Questions: the rows of this pin
    #[arg(long, value_name = "PIN", conflicts_with_all = ["run", "join"])]
    pub(crate) pin: Option<String>,
    /// Seed of the attempts' seeds [default: 0]
    #[arg(long, conflicts_with_all = ["run", "join"])]
    pub(crate) seed: Option<u32>,
    /// Go on with this run: what it lacks is attempted
    #[arg(long, conflicts_with = "join")]
    pub(crate) run: Option<String>,
    /// Share the attempts with other machines, over Kafka
    #[arg(long, conflicts_with = "join")]
    pub(crate) share: bool,
    /// Work on the attempts that another machine shares
    #[arg(long, value_name = "RUN")]
    pub(crate) join: Option<String>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

/// How much of a run is done at a time and in all, wherever attempts are made.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct LimitArgs {
    /// Attempts under way at a time [default: sample.concurrency]
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<usize>,
    /// Stop after so many trajectories of this command; what its run made before does not count
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_trajectories: Option<u64>,
    /// Stop after so many tokens of this command; what its run used before does not count
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_tokens: Option<u64>,
    /// Stop after so many seconds
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_time: Option<u64>,
}

impl LimitArgs {
    /// The limits of the settings, but for those that were given.
    pub(crate) fn over(&self, settings: &SampleConfig) -> SampleConfig {
        SampleConfig {
            concurrency: self.concurrency.unwrap_or(settings.concurrency),
            trajectories_max: self.max_trajectories.or(settings.trajectories_max),
            tokens_max: self.max_tokens.or(settings.tokens_max),
            time_ms_max: self.max_time.map(|seconds| seconds.saturating_mul(1000)).or(settings.time_ms_max),
            ..settings.clone()
        }
    }
}
