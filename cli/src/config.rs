//! `webdancer.toml`: every setting with its default. Flags beat environment beats file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use uuid::Uuid;
use webdancer_agent::chat::{self, BudgetConfig, EndpointConfig, Models, RolesConfig, SystemClock};
use webdancer_agent::judge::Style;
use webdancer_agent::react::ReactConfig;
use webdancer_agent::reward::RewardParameters;
use webdancer_agent::tool::service::ServiceConfig;
use webdancer_agent::web::WebConfig;
use webdancer_eval::dashboard::Readers;
use webdancer_eval::schedule::{Schedule, SchedulerConfig};
use webdancer_eval::scoring::ScoreConfig;
use webdancer_ingest::drain::DrainOptions;
use webdancer_ingest::embedded::EmbeddedOptions;
use webdancer_ingest::intake::IntakeOptions;
use webdancer_ingest::kafka::KafkaSettings;
use webdancer_ingest::kafka::tasks::TaskSettings;
use webdancer_lake::LakeOptions;
use webdancer_lake::location::S3Options;
use webdancer_query::Limits;
use webdancer_synth::crawlqa::CrawlqaConfig;
use webdancer_synth::e2hqa::E2hqaConfig;
use webdancer_synth::funnel::{CriticParameters, FunnelLimits, QualityParameters};
use webdancer_synth::sample::SampleConfig;
use webdancer_train::settings_error;

use crate::failure::Failure;

/// The file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) lake: LakeConfig,
    pub(crate) log: LogConfig,
    pub(crate) ingest: IngestConfig,
    pub(crate) sql: SqlConfig,
    pub(crate) endpoints: BTreeMap<String, EndpointConfig>,
    pub(crate) roles: RolesConfig,
    pub(crate) budget: BudgetConfig,
    pub(crate) funnel: FunnelConfig,
    pub(crate) reward: RewardParameters,
    pub(crate) web: WebConfig,
    pub(crate) agent: ReactConfig,
    pub(crate) synth: SynthConfig,
    pub(crate) sample: SampleConfig,
    pub(crate) tasks: TasksConfig,
    pub(crate) eval: ScoreConfig,
    pub(crate) serve: ServeConfig,
    pub(crate) openlineage: OpenLineageConfig,
    /// Definitions of benchmarks, or what changes in those that are known.
    pub(crate) benchmarks: BTreeMap<String, toml::Table>,
    /// Evaluations that repeat themselves.
    pub(crate) schedule: Vec<Schedule>,
    /// How they are run.
    pub(crate) scheduler: SchedulerConfig,
}

/// `[lake]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LakeConfig {
    /// Path, file:// or s3:// URL.
    pub(crate) uri: Option<String>,
    /// S3 endpoint; else AWS_ENDPOINT_URL.
    pub(crate) s3_endpoint: Option<String>,
    pub(crate) s3_region: Option<String>,
    /// Buckets as host names instead of path style.
    pub(crate) s3_virtual_hosted: bool,
    /// PEM file of further certificate authorities.
    pub(crate) s3_ca_file: Option<PathBuf>,
    pub(crate) target_file_bytes: u64,
    pub(crate) id_cache_bytes: usize,
    pub(crate) checkpoint_versions: u64,
    pub(crate) max_commit_attempts: u32,
    pub(crate) store_timeout_s: u64,
}

impl Default for LakeConfig {
    fn default() -> LakeConfig {
        let options = LakeOptions::default();
        LakeConfig {
            uri: None,
            s3_endpoint: None,
            s3_region: None,
            s3_virtual_hosted: false,
            s3_ca_file: None,
            target_file_bytes: options.target_file_bytes,
            id_cache_bytes: options.id_cache_bytes,
            checkpoint_versions: options.checkpoint_versions,
            max_commit_attempts: options.max_commit_attempts,
            store_timeout_s: options.store_timeout.as_secs(),
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogConfig {
    /// `embedded` or `kafka://host:port[,host:port…]`.
    pub(crate) uri: Option<String>,
    pub(crate) max_event_bytes: usize,
    pub(crate) max_dead_letter_bytes: usize,
    /// Where the embedded log of a lake on an object store lies.
    pub(crate) state_folder: Option<PathBuf>,
    pub(crate) segment_bytes: u64,
    /// How long another process may hold the embedded log's append lock.
    pub(crate) lock_timeout_ms: u64,
    pub(crate) topic_prefix: String,
    pub(crate) partitions: i32,
    pub(crate) replication: i32,
    pub(crate) group: String,
    pub(crate) session_timeout_ms: u32,
    pub(crate) rebalance_timeout_ms: u32,
    /// Passed on to librdkafka as they are: SASL, TLS and anything else.
    pub(crate) kafka: BTreeMap<String, String>,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        let options = EmbeddedOptions::default();
        LogConfig {
            uri: None,
            max_event_bytes: options.max_event_bytes,
            max_dead_letter_bytes: options.max_dead_letter_bytes,
            state_folder: None,
            segment_bytes: options.segment_bytes,
            lock_timeout_ms: options.lock_timeout.as_millis() as u64,
            topic_prefix: "webdancer.".to_string(),
            partitions: 4,
            replication: 1,
            group: "webdancer-ingest".to_string(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 30_000,
            kafka: BTreeMap::new(),
        }
    }
}

/// `[ingest]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct IngestConfig {
    pub(crate) commit_interval_ms: u64,
    pub(crate) commit_bytes: usize,
    pub(crate) max_buffer_bytes: usize,
    /// How long `--until-caught-up` goes on while nothing succeeds.
    pub(crate) patience_s: u64,
}

impl Default for IngestConfig {
    fn default() -> IngestConfig {
        let options = DrainOptions::default();
        IngestConfig {
            commit_interval_ms: options.commit_interval.as_millis() as u64,
            commit_bytes: options.commit_bytes,
            max_buffer_bytes: options.max_buffer_bytes,
            patience_s: 30,
        }
    }
}

/// `[synth]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SynthConfig {
    /// Role of the model that tries to answer what the synthesiser asks.
    pub(crate) reader: String,
    /// Words of a run that no question may share with a benchmark's.
    pub(crate) benchmark_run_words: usize,
    /// Pages, or questions, that are read into memory: bytes of their JSON.
    pub(crate) rows_bytes_max: u64,
    pub(crate) crawlqa: CrawlqaConfig,
    pub(crate) e2hqa: E2hqaConfig,
}

impl Default for SynthConfig {
    fn default() -> SynthConfig {
        SynthConfig {
            reader: "synthesiser".to_string(),
            benchmark_run_words: 13,
            rows_bytes_max: 4 << 30,
            crawlqa: CrawlqaConfig::default(),
            e2hqa: E2hqaConfig::default(),
        }
    }
}

/// `[tasks]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TasksConfig {
    pub(crate) partitions: i32,
    pub(crate) retention_hours: u32,
    pub(crate) max_task_bytes: usize,
    pub(crate) prefetch_tasks: usize,
    pub(crate) commit_interval_ms: u32,
}

impl Default for TasksConfig {
    fn default() -> TasksConfig {
        let settings = TaskSettings::new(KafkaSettings::new(""), "");
        TasksConfig {
            partitions: settings.partitions,
            retention_hours: settings.retention_hours,
            max_task_bytes: settings.max_task_bytes,
            prefetch_tasks: settings.prefetch_tasks,
            commit_interval_ms: settings.commit_interval_ms,
        }
    }
}

/// `[openlineage]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct OpenLineageConfig {
    /// Where run events are sent, such as Marquez's start page; nowhere without one.
    pub(crate) url: Option<String>,
    /// The path behind it.
    pub(crate) endpoint: String,
    /// Environment variable that holds the key, sent as a bearer's token.
    pub(crate) key_env: Option<String>,
    /// File that holds it instead.
    pub(crate) key_file: Option<PathBuf>,
    /// Namespace of jobs.
    pub(crate) namespace: String,
    pub(crate) requests: ServiceConfig,
}

/// `[serve]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServeConfig {
    /// The header in which a proxy before the server says in which groups a reader is; none is believed without it.
    pub(crate) groups_header: Option<String>,
    /// The groups whose readers see rows of gated benchmarks.
    pub(crate) restricted_groups: Vec<String>,
}

impl ServeConfig {
    /// Who sees rows of gated benchmarks beside those that everybody sees.
    ///
    /// # Errors
    /// One setting is there without the other, or the header has no name that a header may have.
    pub(crate) fn readers(&self) -> Result<Option<Readers>, Failure> {
        match (&self.groups_header, self.restricted_groups.as_slice()) {
            (None, []) => Ok(None),
            (None, _) => Err(Failure::usage(
                "serve.restricted_groups: nobody is known to be in a group; serve.groups_header names the header that the \
                 proxy sets",
            )),
            (Some(_), []) => Err(Failure::usage(
                "serve.groups_header: no group has a right by it; serve.restricted_groups names those that see gated rows",
            )),
            (Some(header), groups) => Readers::new(header, groups.to_vec())
                .map(Some)
                .map_err(|wrong| Failure::usage(format!("[serve] groups_header, restricted_groups: {wrong}"))),
        }
    }
}

impl Default for OpenLineageConfig {
    fn default() -> OpenLineageConfig {
        OpenLineageConfig {
            url: None,
            endpoint: "api/v1/lineage".to_string(),
            key_env: None,
            key_file: None,
            namespace: "webdancer".to_string(),
            requests: ServiceConfig::default(),
        }
    }
}

/// `[sql]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SqlConfig {
    pub(crate) memory_bytes: usize,
    pub(crate) spill_bytes: u64,
    pub(crate) timeout_s: u64,
    pub(crate) max_rows: u64,
    pub(crate) max_sql_bytes: usize,
    pub(crate) max_nesting: usize,
    pub(crate) max_chain: usize,
    pub(crate) max_relations: usize,
}

impl Default for SqlConfig {
    fn default() -> SqlConfig {
        let limits = Limits::default();
        SqlConfig {
            memory_bytes: limits.memory_bytes,
            spill_bytes: limits.spill_bytes,
            timeout_s: limits.timeout.as_secs(),
            max_rows: limits.max_rows,
            max_sql_bytes: limits.max_sql_bytes,
            max_nesting: limits.max_nesting,
            max_chain: limits.max_chain,
            max_relations: limits.max_relations,
        }
    }
}

/// `[funnel]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FunnelConfig {
    /// `exact`, `normalised`, `gaia`, or the role of a model.
    pub(crate) judge: String,
    /// How a judging model is asked.
    pub(crate) judge_style: Style,
    /// Role of the model that reviews quality.
    pub(crate) reviewer: Option<String>,
    pub(crate) concurrency: usize,
    pub(crate) errors_in_a_row_max: u32,
    pub(crate) quality: QualityParameters,
    pub(crate) critic: CriticParameters,
}

impl Default for FunnelConfig {
    fn default() -> FunnelConfig {
        let limits = FunnelLimits::default();
        FunnelConfig {
            judge: "normalised".to_string(),
            judge_style: Style::Extract,
            reviewer: None,
            concurrency: limits.concurrency,
            errors_in_a_row_max: limits.errors_in_a_row_max,
            quality: QualityParameters::default(),
            critic: CriticParameters::default(),
        }
    }
}

impl Config {
    /// Reads the file given, or `webdancer.toml` in the present folder if there is one.
    pub(crate) fn read(file: Option<&Path>) -> Result<Config, Failure> {
        let path = file.unwrap_or(Path::new("webdancer.toml"));
        match std::fs::read_to_string(path) {
            Ok(text) => Config::parse(path, &text).map_err(Failure::usage),
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => Ok(Config::default()),
            Err(error) => Err(Failure::usage(format!("reading {}: {error}", path.display()))),
        }
    }

    /// The settings in `text`, the content of `file`; or the line that says what is wrong.
    fn parse(file: &Path, text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| settings_error::line_of(file, text, &error))?;
        chat::validate(&config.endpoints, &config.roles, &config.budget)
            .map_err(|error| format!("{}: {error}", file.display()))?;
        match config.zero() {
            Some(key) => Err(format!("{}: {key}: must be at least 1", file.display())),
            None => Ok(config),
        }
    }

    /// A setting of zero with which nothing could be done.
    fn zero(&self) -> Option<&'static str> {
        let Config { lake, log, ingest, sql, .. } = self;
        let settings = [
            ("lake.target_file_bytes", lake.target_file_bytes),
            ("lake.checkpoint_versions", lake.checkpoint_versions),
            ("lake.max_commit_attempts", u64::from(lake.max_commit_attempts)),
            ("lake.store_timeout_s", lake.store_timeout_s),
            ("log.max_event_bytes", log.max_event_bytes as u64),
            ("log.segment_bytes", log.segment_bytes),
            ("ingest.commit_bytes", ingest.commit_bytes as u64),
            ("sql.memory_bytes", sql.memory_bytes as u64),
            ("sql.timeout_s", sql.timeout_s),
            ("sql.max_rows", sql.max_rows),
            ("sql.max_sql_bytes", sql.max_sql_bytes as u64),
            ("sql.max_nesting", sql.max_nesting as u64),
            ("sql.max_chain", sql.max_chain as u64),
            ("sql.max_relations", sql.max_relations as u64),
        ];
        settings.into_iter().find(|(_, value)| *value == 0).map(|(key, _)| key)
    }

    /// The chat models of a run, whose budget begins now.
    pub(crate) fn models(&self) -> Result<Models, Failure> {
        self.models_within(&BudgetConfig::default())
    }

    /// The chat models of a run that may spend only so much, whatever the settings allow.
    pub(crate) fn models_within(&self, most: &BudgetConfig) -> Result<Models, Failure> {
        let Config { endpoints, roles, budget, .. } = self.clone();
        let budget = BudgetConfig {
            tokens: budget.tokens.into_iter().chain(most.tokens).min(),
            cost: budget.cost.into_iter().chain(most.cost).reduce(f64::min),
            time_s: budget.time_s.into_iter().chain(most.time_s).min(),
        };
        // Workers that were turned away together must not come back together.
        let seed = Uuid::new_v4().as_u64_pair().0;
        Ok(Models::new(endpoints, roles, budget, Arc::new(SystemClock), seed)?)
    }

    pub(crate) fn lake_options(&self) -> LakeOptions {
        LakeOptions {
            s3: S3Options {
                endpoint: self.lake.s3_endpoint.clone(),
                region: self.lake.s3_region.clone(),
                virtual_hosted: self.lake.s3_virtual_hosted,
                ca_file: self.lake.s3_ca_file.clone(),
                ..S3Options::default()
            },
            target_file_bytes: self.lake.target_file_bytes,
            id_cache_bytes: self.lake.id_cache_bytes,
            checkpoint_versions: self.lake.checkpoint_versions,
            max_commit_attempts: self.lake.max_commit_attempts,
            store_timeout: Duration::from_secs(self.lake.store_timeout_s),
        }
    }

    pub(crate) fn embedded_options(&self) -> EmbeddedOptions {
        EmbeddedOptions {
            max_event_bytes: self.log.max_event_bytes,
            max_dead_letter_bytes: self.log.max_dead_letter_bytes,
            segment_bytes: self.log.segment_bytes,
            lock_timeout: Duration::from_millis(self.log.lock_timeout_ms),
            ..EmbeddedOptions::default()
        }
    }

    pub(crate) fn drain_options(&self, accept_new_topics: &[String]) -> DrainOptions {
        DrainOptions {
            commit_interval: Duration::from_millis(self.ingest.commit_interval_ms),
            commit_bytes: self.ingest.commit_bytes,
            max_buffer_bytes: self.ingest.max_buffer_bytes.max(2 * self.ingest.commit_bytes),
            max_event_bytes: self.log.max_event_bytes,
            accept_new_topics: accept_new_topics.to_vec(),
        }
    }

    pub(crate) fn intake_options(&self) -> IntakeOptions {
        IntakeOptions { max_event_bytes: self.log.max_event_bytes, ..IntakeOptions::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_by_place_and_key_and_without_the_value() {
        let endpoint = "[endpoints.e]\nurl = \"http://h/v1\"\nmodel = \"m\"\n";
        let cases = [
            (
                "[log.kafka]\n\"sasl.password\" = 4711\n",
                "w.toml:2:19: log.kafka.sasl.password: invalid type: integer, expected a string",
            ),
            ("[log.kafka]\n\n\"sasl.password\" = \"4711\n", "w.toml:3:"),
            (
                &format!("{endpoint}api_key = \"sk-4711\"\n"),
                "w.toml:4:1: endpoints.e.api_key: unknown field `api_key`, expected one of `url`",
            ),
            (
                &format!("{endpoint}concurrency = \"sk-4711\"\n"),
                "w.toml:4:15: endpoints.e.concurrency: invalid type: string, expected usize",
            ),
            (&format!("{endpoint}headers = {{ x = 4711 }}\n"), "w.toml:4:"),
            (
                &format!("{endpoint}token_ids = \"ids\"\n"),
                "w.toml:4:13: endpoints.e.token_ids: unknown variant `ids`, expected one of `none`",
            ),
            (&format!("{endpoint}concurrency = 0\n"), "w.toml: endpoints.e.concurrency: must be at least 1"),
            ("[sql]\nmax_nesting = 0\n", "w.toml: sql.max_nesting: must be at least 1"),
            ("[lake]\nmax_commit_attempts = 0\n", "w.toml: lake.max_commit_attempts: must be at least 1"),
            (
                &format!("{endpoint}[roles]\njudge = \"f\"\n"),
                "w.toml: roles.judge: there is no [endpoints.f]; endpoints: e",
            ),
        ];
        for (text, begin) in cases {
            let reason = Config::parse(Path::new("w.toml"), text).unwrap_err();
            assert!(reason.starts_with(begin), "{reason}");
            assert!(!reason.contains("4711"), "{reason}");
        }
    }

    #[test]
    fn the_documented_settings_are_the_defaults() {
        let document = include_str!("../../docs/configuration.md");
        let (_, rest) = document.split_once("```toml\n").unwrap();
        let (text, _) = rest.split_once("```").unwrap();
        let mut documented = Config::parse(Path::new("w.toml"), text).unwrap();
        let endpoint = documented.endpoints.remove("qwen").unwrap();
        let (url, model, api_key_env) = (endpoint.url.clone(), endpoint.model.clone(), endpoint.api_key_env.clone());
        assert_eq!(endpoint, EndpointConfig { url, model, api_key_env, ..EndpointConfig::default() });
        assert_eq!((documented.roles, documented.budget), (RolesConfig::default(), BudgetConfig::default()));
        assert_eq!((documented.agent, documented.web), (ReactConfig::default(), WebConfig::default()));
        assert_eq!(documented.sample, SampleConfig::default());
        assert_eq!(documented.eval, ScoreConfig::default());
        assert_eq!(documented.openlineage, OpenLineageConfig::default());
        assert_eq!((documented.schedule, documented.scheduler), (Vec::new(), SchedulerConfig::default()));
        assert_eq!(format!("{:?}", documented.lake), format!("{:?}", LakeConfig::default()));
        assert_eq!(format!("{:?}", documented.ingest), format!("{:?}", IngestConfig::default()));
        assert_eq!(format!("{:?}", documented.synth), format!("{:?}", SynthConfig::default()));
        assert_eq!(format!("{:?}", documented.tasks), format!("{:?}", TasksConfig::default()));
    }
    #[test]
    fn the_examples_of_the_documents_are_settings() {
        for document in [
            include_str!("../../docs/configuration.md"),
            include_str!("../../docs/data-construction.md"),
            include_str!("../../docs/benchmarks-formats.md"),
            include_str!("../../docs/schedules.md"),
        ] {
            let blocks: Vec<&str> =
                document.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
            assert!(!blocks.is_empty());
            for block in blocks {
                Config::parse(Path::new("example.toml"), block).unwrap();
            }
        }
    }
}
