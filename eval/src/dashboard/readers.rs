//! Who may see rows of gated benchmarks: readers of certain groups, by what a proxy that knows them says.
//!
//! The dashboard has no users of its own. A proxy before it that does, such as oauth2-proxy or Authelia, tells the groups of
//! whoever asks in a header. That is believed because the settings say so: the proxy must take the header away from what
//! comes from outside, and the server be reached through it alone.

use axum::http::{HeaderMap, HeaderName};

/// The groups whose readers may see rows of gated benchmarks, and the header that says who is in which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readers {
    header: HeaderName,
    groups: Vec<String>,
}

impl Readers {
    /// Readers who are in one of `groups` by the header of this name.
    ///
    /// # Errors
    /// It is no name of a header, or one of the groups is none that a header can tell: a reader of no group would be in one
    /// without a name.
    pub fn new(header: &str, groups: Vec<String>) -> Result<Readers, String> {
        let header = header.parse().map_err(|_| format!("{header:?} is no name of a header"))?;
        let is_name = |group: &str| !group.is_empty() && group.trim() == group && !group.contains(',');
        if let Some(wrong) = groups.iter().find(|group| !is_name(group)) {
            return Err(format!(
                "{wrong:?} is no name of a group: give one without commas, and without spaces around it"
            ));
        }
        Ok(Readers { header, groups })
    }

    /// Whether a request's headers say that its reader is in one of the groups: names between commas, compared as they are,
    /// in as many lines as there are.
    pub(super) fn include(&self, headers: &HeaderMap) -> bool {
        let lines =
            headers.get_all(&self.header).into_iter().filter_map(|line| std::str::from_utf8(line.as_bytes()).ok());
        lines.flat_map(|line| line.split(',')).any(|name| self.groups.iter().any(|group| group == name.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_in_a_group_by_its_whole_name_in_any_line() {
        let readers = Readers::new("X-Forwarded-Groups", vec!["evaluators".to_string(), "owners".to_string()]).unwrap();
        let include = |lines: &[(&'static str, &'static str)]| {
            let lines = lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            readers.include(&lines.fold(HeaderMap::new(), |mut headers, (name, value)| {
                headers.append(name, value);
                headers
            }))
        };
        assert!(include(&[("x-forwarded-groups", "staff, evaluators")]));
        assert!(include(&[("x-forwarded-groups", "staff"), ("x-forwarded-groups", "owners")]));
        for value in ["", "not-evaluators", "evaluators2", "Evaluators", "evaluators owners"] {
            assert!(!include(&[("x-forwarded-groups", value)]), "{value}");
        }
        assert!(!include(&[("x-groups", "evaluators")]) && !include(&[]));
        assert!(include(&[("x-forwarded-groups", "Prüfer, evaluators")]));
        assert_eq!(Readers::new("a b", Vec::new()), Err("\"a b\" is no name of a header".to_string()));
        for wrong in ["", " ", " evaluators", "a,b"] {
            assert!(Readers::new("x-groups", vec![wrong.to_string()]).unwrap_err().contains("is no name of a group"));
        }
    }
}
