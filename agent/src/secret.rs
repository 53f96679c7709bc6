//! Keys of services: they reach the wire and nothing else.

use std::fmt;
use std::path::Path;

/// Bytes of a key file.
const KEY_FILE_BYTES_MAX: u64 = 64 << 10;
/// What stands where a secret was.
const REDACTED: &str = "***";
/// Shorter than this it is no secret, and replacing it would garble messages.
const SECRET_BYTES_MIN: usize = 4;

/// Text that is never shown: it has no `Display`, and its `Debug` says nothing.
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
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// `text` without the secret: servers repeat keys that they refuse.
    pub(crate) fn scrub(&self, text: &str) -> String {
        if self.0.len() < SECRET_BYTES_MIN { text.to_string() } else { text.replace(&self.0, REDACTED) }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_and_is_taken_out_of_text() {
        let secret = Secret::new("key-123456");
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(secret.scrub("key key-123456 is refused"), "key *** is refused");
    }

    #[test]
    fn keys_are_read_without_the_line_end_and_named_by_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, " key-from-file \n").unwrap();
        assert_eq!(Secret::from_file(&file).unwrap().expose(), "key-from-file");
        std::fs::write(&file, "\n").unwrap();
        assert!(Secret::from_file(&file).unwrap_err().ends_with("key: is empty"));
        assert!(Secret::from_file(&folder.path().join("none")).unwrap_err().contains("No such file"));
        assert_eq!(
            Secret::from_env("WEBDANCER_NO_SUCH_KEY").unwrap_err(),
            "the environment variable that it names is not set"
        );
    }
}
