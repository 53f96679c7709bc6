//! From a file to a configuration: the file laid over its preset, and what is wrong with it on one line.

use std::fmt::Display;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{PRESETS, SftConfig};
use crate::settings_error;

/// Bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is wrong with a configuration, on one line: file, place, key, what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// A mistake in a file.
    pub(super) fn in_file(file: &Path, message: impl Display) -> ConfigError {
        ConfigError(format!("{}: {message}", file.display()))
    }
}

impl SftConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or holds a mistake.
    pub fn read(file: &Path) -> Result<SftConfig, ConfigError> {
        SftConfig::parse(file, &text_of(file)?)
    }

    /// The configuration in `text`, the content of `file`.
    ///
    /// # Errors
    /// A key that is not known, a value of the wrong type or out of its range, a preset that does not exist.
    pub fn parse(file: &Path, text: &str) -> Result<SftConfig, ConfigError> {
        let alone: SftConfig = alone(file, text)?;
        let config = match &alone.preset {
            None => alone,
            Some(name) => {
                let base = preset_table(&PRESETS, name).map_err(|message| ConfigError::in_file(file, message))?;
                laid_over(file, base, text)?
            }
        };
        config.check().map_err(|message| ConfigError::in_file(file, message))?;
        Ok(config)
    }

    /// A preset as it is.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn preset(name: &str) -> Result<SftConfig, ConfigError> {
        let read = preset_table(&PRESETS, name)
            .and_then(|table| Value::Table(table).try_into::<SftConfig>().map_err(|error| error.message().to_string()));
        read.map_err(ConfigError)
    }
}

/// A file's text.
pub(super) fn text_of(file: &Path) -> Result<String, ConfigError> {
    let fault = |error: std::io::Error| ConfigError(format!("reading {}: {error}", file.display()));
    if std::fs::metadata(file).map_err(fault)?.len() > FILE_BYTES_MAX {
        return Err(ConfigError::in_file(file, format!("has more than {FILE_BYTES_MAX} bytes")));
    }
    std::fs::read_to_string(file).map_err(fault)
}

/// What `text` says by itself: the mistakes of a merged table have no place in the file.
pub(super) fn alone<C: DeserializeOwned>(file: &Path, text: &str) -> Result<C, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError(settings_error::line_of(file, text, &error)))
}

/// What `text` says, laid over `base`.
pub(super) fn laid_over<C: DeserializeOwned>(file: &Path, base: Table, text: &str) -> Result<C, ConfigError> {
    let own: Result<Table, _> = toml::from_str(text);
    let merged = own.and_then(|own| Value::Table(over(base, own)).try_into());
    merged.map_err(|error: toml::de::Error| ConfigError::in_file(file, error.message()))
}

/// The preset of this name among `presets`.
pub(super) fn preset_table(presets: &[(&str, &str)], name: &str) -> Result<Table, String> {
    let known = presets.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let found = presets.iter().find(|(preset, _)| *preset == name);
    let (_, text) = found.ok_or_else(|| format!("preset: must be one of {known}"))?;
    toml::from_str(text).map_err(|error| format!("preset {name}: {}", error.message()))
}

/// Keys that say the same thing in two ways.
const ALTERNATIVES: [(&str, &str); 2] = [("folder", "scratch"), ("warmup_share", "warmup_steps")];

/// `upper` laid over `lower`: tables key by key, anything else whole. Naming one of two alternatives leaves out the other.
pub(crate) fn over(mut lower: Table, upper: Table) -> Table {
    for (one, other) in ALTERNATIVES {
        for (named, left_out) in [(one, other), (other, one)] {
            if upper.contains_key(named) {
                lower.remove(left_out);
            }
        }
    }
    for (key, value) in upper {
        let value = match (lower.remove(&key), value) {
            (Some(Value::Table(lower)), Value::Table(upper)) => Value::Table(over(lower, upper)),
            (_, value) => value,
        };
        lower.insert(key, value);
    }
    lower
}
