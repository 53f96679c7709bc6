//! Keys of services: they reach the wire and nothing else.
//!
//! A [`Secret`] has no `Display` and its `Debug` shows nothing. What a server or a library says goes through a
//! [`Scrubber`] before it gets into an error or a message, since servers repeat keys that they refuse.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Deserializer};
use url::{Url, form_urlencoded};

/// What stands where a secret was.
const REDACTED: &str = "***";
/// Shorter than this it is no secret, and replacing it would garble messages.
const SECRET_BYTES_MIN: usize = 4;
/// Bytes of a key file.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;
/// What a name in a query holds whose value is a key.
const KEY_NAMES: [&str; 7] = ["key", "token", "secret", "sig", "auth", "code", "pass"];

/// Text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text`.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The key in the environment variable `name`, without white space around it.
    ///
    /// # Errors
    /// What is wrong with the variable. The name is not repeated: people put keys where names belong.
    pub fn from_env(name: &str) -> Result<Secret, String> {
        let value = std::env::var(name).map_err(|_| "the environment variable that it names is not set".to_string())?;
        Secret::trimmed(&value).ok_or_else(|| "the environment variable that it names is empty".to_string())
    }

    /// The key in a file, without white space around it.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn from_file(path: &Path) -> Result<Secret, String> {
        let bytes = std::fs::metadata(path).map_err(|e| format!("{}: {e}", path.display()))?.len();
        if bytes > KEY_FILE_BYTES_MAX {
            return Err(format!("{}: {bytes} bytes are no key", path.display()));
        }
        let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Secret::trimmed(&text).ok_or_else(|| format!("{}: is empty", path.display()))
    }

    fn trimmed(text: &str) -> Option<Secret> {
        let text = text.trim();
        (!text.is_empty()).then(|| Secret::new(text))
    }

    /// The text, for the wire.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        // The library's own message would show the value.
        String::deserialize(deserializer).map(Secret).map_err(|_| serde::de::Error::custom("must be a string"))
    }
}

/// What a URL holds that is a secret: its user and password, and what stands in its query under a name that keys have; each in
/// every form that a server may repeat: as it is written, decoded with `+` as a space or as itself, and encoded again.
pub(crate) fn keys_in_url(url: &str) -> Vec<Secret> {
    let Ok(url) = Url::parse(url) else { return Vec::new() };
    let mut keys = Vec::new();
    let mut add = |written: &str, value: String| {
        let encoded: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
        let spaced = value.replace('+', " ");
        let forms = [lower_escapes(&encoded), lower_escapes(written), encoded, written.to_string(), spaced, value];
        keys.extend(forms.map(Secret::new));
    };
    let decoded =
        |text: &str| -> Vec<(String, String)> { form_urlencoded::parse(text.as_bytes()).into_owned().collect() };
    for written in [url.username(), url.password().unwrap_or_default()] {
        // No name stands before it, and nothing in it parts pairs.
        let whole = written.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
        decoded(&whole).into_iter().for_each(|(value, _)| add(written, value));
    }
    for pair in url.query().unwrap_or_default().split('&') {
        for (name, value) in decoded(pair).into_iter().chain(decoded(&pair.replace('+', "%2B"))) {
            let name = name.to_ascii_lowercase();
            if KEY_NAMES.iter().any(|part| name.contains(part)) {
                add(pair.split_once('=').map_or(pair, |(_, written)| written), value);
            }
        }
    }
    keys
}

/// Percent-encoded text with the digits of its escapes in lower case, as some servers write them.
fn lower_escapes(text: &str) -> String {
    let mut parts = text.split('%');
    let mut lower = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        lower.extend(["%", &digits.to_ascii_lowercase(), rest]);
    }
    lower
}

/// Takes secrets out of text.
#[derive(Clone, Default)]
pub(crate) struct Scrubber(Vec<String>);

impl Scrubber {
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Scrubber {
        let mut needles = Vec::new();
        for secret in secrets {
            if secret.0.len() < SECRET_BYTES_MIN {
                continue;
            }
            // A body shown as it came has it as JSON writes it.
            let json = serde_json::Value::from(secret.0.as_str()).to_string();
            needles.extend([secret.0.clone(), json.trim_matches('"').to_string()]);
        }
        // One secret may be part of another.
        needles.sort_by_key(|needle| std::cmp::Reverse(needle.len()));
        needles.dedup();
        Scrubber(needles)
    }

    /// `text` with every secret replaced.
    pub(crate) fn scrub(&self, text: &str) -> String {
        self.0.iter().fold(text.to_string(), |text, needle| text.replace(needle.as_str(), REDACTED))
    }
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scrubber({} forms)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::new("sk-live-123456");
        assert_eq!(format!("{secret:?} {:?}", Scrubber::new([&secret])), "*** Scrubber(1 forms)");
        let error = serde_json::from_str::<Secret>("123456").unwrap_err();
        assert_eq!(error.to_string(), "must be a string");
    }

    #[test]
    fn every_form_of_a_secret_is_taken_out() {
        let scrubber = Scrubber::new([&Secret::new("ab\"cd"), &Secret::new("ab\"cd-long"), &Secret::new("x")]);
        assert_eq!(
            scrubber.scrub(r#"x ab"cd ab"cd-long {"key":"ab\"cd"} {"key":"ab\"cd-long"}"#),
            r#"x *** *** {"key":"***"} {"key":"***"}"#
        );
    }

    #[test]
    fn keys_are_read_without_the_line_end_and_named_by_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, " sk-from-file \n").unwrap();
        assert_eq!(Secret::from_file(&file).unwrap().expose(), "sk-from-file");
        std::fs::write(&file, "\n").unwrap();
        assert!(Secret::from_file(&file).unwrap_err().ends_with("key: is empty"));
        assert!(Secret::from_file(&folder.path().join("none")).unwrap_err().contains("No such file"));
        assert_eq!(
            Secret::from_env("WEBDANCER_NO_SUCH_KEY").unwrap_err(),
            "the environment variable that it names is not set"
        );
    }
}
