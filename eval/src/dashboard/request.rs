//! What was asked for: the path's parts and the query, which is the state of a page.

use std::collections::HashMap;
use std::str::FromStr;

use url::form_urlencoded;

use super::fault::Fault;
use super::state::Dashboard;

/// Bytes of a query.
const QUERY_BYTES_MAX: usize = 64 << 10;
/// Parameters of a query.
const PARAMETERS_MAX: usize = 200;

/// A request for a page.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Where rows come from.
    pub app: Dashboard,
    /// The path as asked for, such as `/runs/r1`.
    pub address: String,
    /// The query.
    pub query: Query,
    /// The form that the answer has.
    pub form: Form,
    pub(super) parts: HashMap<String, String>,
}

impl Asked {
    /// A part of the path by its name in the route; empty if the route has no such part.
    pub fn part(&self, name: &str) -> &str {
        self.parts.get(name).map_or("", String::as_str)
    }

    /// Whether all rows of what `of` names are asked for, as a file. In JSON it has to be named: else the twin is meant.
    pub fn wants_rows(&self, of: &str) -> bool {
        let named = self.query.get("of");
        match self.form {
            Form::Csv | Form::Parquet => named.is_none_or(|named| named == of),
            Form::Json => named == Some(of),
            Form::Html | Form::Svg => false,
        }
    }

    /// A link to this page with one parameter changed, or left out.
    pub fn with(&self, name: &str, value: Option<&str>) -> String {
        format!("{}{}", self.address, self.query.with(name, value))
    }
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A page for people.
    Html,
    /// Its JSON twin.
    Json,
    /// One of its tables as CSV.
    Csv,
    /// One of its tables as Parquet.
    Parquet,
    /// One of its charts as a file.
    Svg,
}

impl FromStr for Form {
    type Err = Fault;

    fn from_str(name: &str) -> Result<Form, Fault> {
        Ok(match name {
            "html" => Form::Html,
            "json" => Form::Json,
            "csv" => Form::Csv,
            "parquet" => Form::Parquet,
            "svg" => Form::Svg,
            other => {
                return Err(Fault::Wrong(format!(
                    "there is no format {other:?}; there are html, json, csv, parquet and svg"
                )));
            }
        })
    }
}

/// The parameters of a query, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// The parameters of the query's text. Empty ones, which forms send, are as if they were not there.
    ///
    /// # Errors
    /// When there are more than a page has use for.
    pub fn parse(text: &str) -> Result<Query, Fault> {
        if text.len() > QUERY_BYTES_MAX {
            return Err(Fault::Wrong(format!("the query is longer than {QUERY_BYTES_MAX} bytes")));
        }
        let pairs = form_urlencoded::parse(text.as_bytes()).filter(|(_, value)| !value.is_empty());
        let pairs: Vec<(String, String)> =
            pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).take(PARAMETERS_MAX + 1).collect();
        match pairs.len() > PARAMETERS_MAX {
            true => Err(Fault::Wrong(format!("the query has more than {PARAMETERS_MAX} parameters"))),
            false => Ok(Query { pairs }),
        }
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every value of a parameter.
    pub fn all<'q, 'n>(&'q self, name: &'n str) -> impl Iterator<Item = &'q str> + use<'q, 'n> {
        self.pairs.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Every parameter with its value.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of a parameter as what it should be; None if it is not there.
    ///
    /// # Errors
    /// When it is something else: `wanted` says what it can be.
    pub fn parsed<T: FromStr>(&self, name: &str, wanted: &str) -> Result<Option<T>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let wrong = |_| Fault::Wrong(format!("{name}={}: give {wanted}", super::format::clipped(value, 40)));
        value.parse().map(Some).map_err(wrong)
    }

    /// The query with one parameter changed, or left out: `?a=1&b=2`, or nothing where none is left.
    pub fn with(&self, name: &str, value: Option<&str>) -> String {
        self.changed(&[(name, value)])
    }

    /// The query with parameters changed or left out.
    pub fn changed(&self, changes: &[(&str, Option<&str>)]) -> String {
        let kept = self.pairs().filter(|(name, _)| !changes.iter().any(|(changed, _)| changed == name));
        let new = changes.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        query_of(kept.chain(new))
    }
}

/// A query of these parameters, with its question mark; nothing of none.
pub fn query_of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs);
    let text = query.finish();
    if text.is_empty() { text } else { format!("?{text}") }
}

/// A part of a path from outside, such as an id: whatever it holds, it stays one part.
pub fn path_part(text: &str) -> String {
    // A space is %20 in a path, and a slash must not end the part: what form encoding leaves as it is, a path does, too.
    let encoded: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
    encoded.replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_changed_in_one_parameter_and_keeps_the_others() {
        let query = Query::parse("sort=-n&f.kind=a%26b&page=2&empty=").unwrap();
        assert_eq!(query.get("f.kind"), Some("a&b"));
        assert_eq!(query.get("empty"), None);
        assert_eq!(query.with("page", Some("3")), "?sort=-n&f.kind=a%26b&page=3");
        assert_eq!(query.changed(&[("page", None), ("sort", None), ("f.kind", None)]), "");
    }

    #[test]
    fn parameters_that_cannot_be_are_told_in_a_line() {
        let query = Query::parse("page=two").unwrap();
        let fault = query.parsed::<u32>("page", "a number from 1").unwrap_err();
        assert_eq!(fault, Fault::Wrong("page=two: give a number from 1".to_string()));
        assert!("xml".parse::<Form>().unwrap_err().to_string().starts_with("there is no format \"xml\""));
        assert!(Query::parse(&"a=1&".repeat(201)).is_err());
        assert!(Query::parse(&"a".repeat(70_000)).is_err());
    }

    #[test]
    fn an_id_is_one_part_of_a_path_whatever_it_holds() {
        assert_eq!(path_part("a/b ?#<é"), "a%2Fb%20%3F%23%3C%C3%A9");
    }
}
