//! `at('table', version or time)` and `pin('name')`: tables that are not named by a plain identifier.
//!
//! DataFusion's table functions cannot wait for a store. So both are taken out of the statement before it is planned:
//! each becomes an ordinary table with a name that no identifier can clash with (it holds `@` or `:`), and what it
//! stands for is opened beforehand, as for every other table. Without an alias, `at('qa', 5)` is called `qa` and
//! `pin('x')` is called `pin`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, Utc};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, TableAlias, TableFactor, TableFunctionArgs, UnaryOperator,
    Value, VisitMut as _, VisitorMut,
};
use webdancer_lake::lake::At;

use crate::error::{QueryError, Result};

/// What a rewritten table name stands for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reference {
    /// A table or view as it was.
    At {
        /// Its plain name.
        table: String,
        /// Which state.
        at: At,
    },
    /// A pin, by name or digest.
    Pin(String),
}

/// Takes `at(…)` and `pin(…)` out of a statement; returns what their new names stand for.
///
/// # Errors
/// When an argument is not of the form above.
pub(crate) fn rewrite(statement: &mut Statement) -> Result<BTreeMap<String, Reference>> {
    let mut rewriter = Rewriter::default();
    let inner = match statement {
        Statement::Statement(inner) => inner.as_mut(),
        Statement::Explain(explain) => return rewrite(&mut explain.statement),
        _ => return Ok(rewriter.references),
    };
    match inner.visit(&mut rewriter) {
        ControlFlow::Continue(()) => Ok(rewriter.references),
        ControlFlow::Break(error) => Err(error),
    }
}

/// A version (`5` or `v5`) or a time (RFC 3339, or a date with or without a time of day, UTC).
///
/// # Errors
/// [`QueryError::Sql`] when the text is neither.
pub fn parse_at(text: &str) -> Result<At> {
    let text = text.trim();
    let digits = text.strip_prefix('v').unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return digits.parse().map(At::Version).map_err(|_| QueryError::Sql(format!("version {text} is too large")));
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(At::Time(time.with_timezone(&Utc)));
    }
    let naive = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .or_else(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().and_then(|date| date.and_hms_opt(0, 0, 0)));
    naive.map(|time| At::Time(time.and_utc())).ok_or_else(|| {
        QueryError::Sql(format!(
            "{text:?} is neither a version (5) nor a time (2026-01-02T03:04:05Z, '2026-01-02 03:04:05' or 2026-01-02, UTC)"
        ))
    })
}

/// The name of a table as it was, such as `qa@5`: its key in a pin's manifest too.
pub(crate) fn name_at(table: &str, at: At) -> String {
    match at {
        At::Latest => table.to_string(),
        At::Version(version) => format!("{table}@{version}"),
        At::Time(time) => format!("{table}@{}", time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
    }
}

#[derive(Default)]
struct Rewriter {
    references: BTreeMap<String, Reference>,
}

impl VisitorMut for Rewriter {
    type Break = QueryError;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<QueryError> {
        let TableFactor::Table { name, args, alias, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let Some(given) = args.as_ref() else {
            return ControlFlow::Continue(());
        };
        let parsed = match name.to_string().to_ascii_lowercase().as_str() {
            "at" => at_arguments(given),
            "pin" => pin_argument(given),
            _ => return ControlFlow::Continue(()),
        };
        let (new_name, shown, reference) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => return ControlFlow::Break(error),
        };
        *args = None;
        *name = ObjectName::from(vec![Ident::with_quote('"', &new_name)]);
        if alias.is_none() {
            *alias =
                Some(TableAlias { explicit: true, name: Ident::with_quote('"', shown), columns: Vec::new(), at: None });
        }
        self.references.insert(new_name, reference);
        ControlFlow::Continue(())
    }
}

fn at_arguments(args: &TableFunctionArgs) -> Result<(String, String, Reference)> {
    let usage = || QueryError::Sql("write at('table', 5) or at('table', '2026-01-02T03:04:05Z')".to_string());
    let [table, when] = args.args.as_slice() else {
        return Err(usage());
    };
    let table = string(table).ok_or_else(usage)?.to_string();
    let at = match literal(when).ok_or_else(usage)? {
        Value::Number(number, _) => parse_at(number)?,
        Value::SingleQuotedString(text) => parse_at(text)?,
        _ => return Err(usage()),
    };
    Ok((name_at(&table, at), table.clone(), Reference::At { table, at }))
}

fn pin_argument(args: &TableFunctionArgs) -> Result<(String, String, Reference)> {
    match args.args.as_slice() {
        [name] => string(name),
        _ => None,
    }
    .map(|name| (format!("pin:{name}"), "pin".to_string(), Reference::Pin(name.to_string())))
    .ok_or_else(|| QueryError::Sql("write pin('name') or pin('digest')".to_string()))
}

fn string(argument: &FunctionArg) -> Option<&str> {
    match literal(argument)? {
        Value::SingleQuotedString(text) => Some(text),
        _ => None,
    }
}

fn literal(argument: &FunctionArg) -> Option<&Value> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) => Some(&value.value),
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::UnaryOp { op: UnaryOperator::Plus, expr })) => {
            match expr.as_ref() {
                Expr::Value(value) => Some(&value.value),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;

    fn rewritten(sql: &str) -> (String, BTreeMap<String, Reference>) {
        let mut statement = crate::statement::parse(sql, &Limits::default()).unwrap();
        let references = rewrite(&mut statement).unwrap();
        (statement.to_string(), references)
    }

    #[test]
    fn at_and_pin_become_tables() {
        let (sql, references) = rewritten("SELECT * FROM at('qa', 5) JOIN pin('train') AS p ON p.qa_id = qa.qa_id");
        assert_eq!(sql, r#"SELECT * FROM "qa@5" AS "qa" JOIN "pin:train" AS p ON p.qa_id = qa.qa_id"#);
        assert_eq!(references["qa@5"], Reference::At { table: "qa".to_string(), at: At::Version(5) });
        assert_eq!(references["pin:train"], Reference::Pin("train".to_string()));
    }

    #[test]
    fn subqueries_and_explain_are_reached() {
        let (sql, _) = rewritten("EXPLAIN SELECT (SELECT count(*) FROM at('qa', '2026-01-02')) AS n");
        assert!(sql.contains(r#"FROM "qa@2026-01-02T00:00:00Z" AS "qa""#), "{sql}");
    }

    #[test]
    fn versions_and_times_are_told_apart() {
        let at = |text: &str| parse_at(text).map(|at| name_at("t", at)).unwrap_or_else(|e| e.to_string());
        assert_eq!(at("7"), "t@7");
        assert_eq!(at("v7"), "t@7");
        assert_eq!(at("2026-01-02T03:04:05+01:00"), "t@2026-01-02T02:04:05Z");
        assert_eq!(at("2026-01-02 03:04:05.25"), "t@2026-01-02T03:04:05.250Z");
        assert!(at("yesterday").contains("neither a version (5) nor a time"));
        assert!(at("99999999999999999999").contains("too large"));
        assert!(at("").contains("neither"));
    }

    #[test]
    fn wrong_arguments_say_how_to_write_it() {
        for (sql, part) in [
            ("SELECT * FROM at('qa')", "write at('table', 5)"),
            ("SELECT * FROM at(qa, 5)", "write at('table', 5)"),
            ("SELECT * FROM at('qa', now())", "write at('table', 5)"),
            ("SELECT * FROM pin(x)", "write pin('name')"),
            ("SELECT * FROM pin()", "write pin('name')"),
        ] {
            let mut statement = crate::statement::parse(sql, &Limits::default()).unwrap();
            let message = rewrite(&mut statement).unwrap_err().to_string();
            assert!(message.contains(part), "{sql}: {message}");
        }
    }
}
