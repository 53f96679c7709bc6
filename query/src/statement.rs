//! From text to one statement that only reads, or a clear line that says why not.
//!
//! Three walls stand between a caller and a change of anything: the words a statement begins with, a walk over the
//! parsed statement (what is nested in EXPLAIN, WITH or SELECT … INTO), and the planner's own check of the plan.
//! Size and depth are limited on tokens, before anything recursive looks at the text; strings and comments count as
//! the one token they are.

use std::ops::ControlFlow;

use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{
    Expr, ObjectName, Query, Select, Statement as SqlStatement, TableFactor, Visit as _, Visitor,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::dialect::LakeDialect;
use crate::error::{QueryError, Result};
use crate::limits::Limits;

/// Table functions that a statement may call. `at` and `pin` are ours, see [`crate::reference`].
pub(crate) const TABLE_FUNCTIONS: &[&str] = &["at", "pin", "unnest", "generate_series", "range"];

/// Parses exactly one statement and checks that it only reads.
///
/// # Errors
/// [`QueryError::Limit`] for too large or too deep, [`QueryError::Refused`] for anything but reading,
/// [`QueryError::Sql`] for what is no SQL.
pub(crate) fn parse(sql: &str, limits: &Limits) -> Result<Statement> {
    if sql.len() > limits.max_sql_bytes {
        return Err(QueryError::limit(
            format!("the statement has more than {} bytes", limits.max_sql_bytes),
            "write it shorter, or raise sql.max_sql_bytes",
        ));
    }
    let tokens = Tokenizer::new(&LakeDialect, sql)
        .tokenize_with_location()
        .map_err(|error| QueryError::Sql(format!("SQL syntax: {error}")))?;
    check_shape(&tokens, limits)?;
    if let Some(words) = changing_words(&tokens) {
        return Err(refuse(&words));
    }
    let mut statements = DFParserBuilder::new(tokens)
        .with_dialect(&LakeDialect)
        .with_recursion_limit(limits.max_nesting.saturating_mul(4).max(50))
        .build()?
        .parse_statements()?;
    let statement = match statements.len() {
        1 => statements.pop_front(),
        0 => None,
        count => {
            return Err(QueryError::Refused(format!("{count} statements at once; give exactly one")));
        }
    };
    let statement = statement.ok_or_else(|| QueryError::Sql("there is no statement to run".to_string()))?;
    check_reading(&statement, limits)?;
    Ok(statement)
}

/// Whether the statement is a query, not EXPLAIN, SHOW or DESCRIBE.
pub(crate) fn is_query(statement: &Statement) -> bool {
    matches!(statement, Statement::Statement(inner) if matches!(inner.as_ref(), SqlStatement::Query(_)))
}

fn check_shape(tokens: &[TokenWithSpan], limits: &Limits) -> Result<()> {
    let mut shape = Shape::default();
    for token in tokens.iter().map(|token| &token.token) {
        shape.see(token);
        if shape.levels.len() > limits.max_nesting {
            return Err(QueryError::limit(
                format!("the statement is nested more than {} deep", limits.max_nesting),
                "write it flatter, with WITH clauses for example, or raise sql.max_nesting",
            ));
        }
        if shape.deepest() > limits.max_chain {
            return Err(QueryError::limit(
                format!("the statement chains more than {} operators", limits.max_chain),
                "use an IN list, a join with VALUES or WITH clauses, or raise sql.max_chain",
            ));
        }
    }
    Ok(())
}

/// How deep the trees of a statement will be, as far as tokens tell.
///
/// `a AND b AND c …` is a tree as deep as it is long. A pair of parentheses in such a chain adds the depth of what is
/// inside; commas and the words that begin a clause begin a new chain.
#[derive(Default)]
struct Shape {
    /// Open parentheses and CASEs, and what encloses them all.
    levels: Vec<Level>,
    outermost: Level,
    /// Set operations nest to the left however they are written.
    set_operations: usize,
}

#[derive(Default, Clone, Copy)]
struct Level {
    operators: usize,
    deepest_inside: usize,
}

impl Level {
    fn depth(self) -> usize {
        self.operators + self.deepest_inside
    }
}

impl Shape {
    fn deepest(&self) -> usize {
        self.levels.last().unwrap_or(&self.outermost).depth().max(self.set_operations)
    }

    fn top(&mut self) -> &mut Level {
        self.levels.last_mut().unwrap_or(&mut self.outermost)
    }

    fn see(&mut self, token: &Token) {
        match token {
            Token::LParen | Token::LBrace => self.open(),
            Token::LBracket => {
                self.top().operators += 1;
                self.open();
            }
            Token::RParen | Token::RBracket | Token::RBrace => self.close(),
            Token::Comma | Token::SemiColon => *self.top() = Level::default(),
            Token::Word(word) => match word.keyword {
                Keyword::CASE => self.open(),
                Keyword::END => self.close(),
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT => self.set_operations += 1,
                Keyword::SELECT
                | Keyword::FROM
                | Keyword::WHERE
                | Keyword::GROUP
                | Keyword::HAVING
                | Keyword::ORDER
                | Keyword::ON
                | Keyword::WHEN
                | Keyword::THEN
                | Keyword::ELSE => *self.top() = Level::default(),
                keyword if CHAINING.contains(&keyword) => self.top().operators += 1,
                _ => {}
            },
            token if is_operator(token) => self.top().operators += 1,
            _ => {}
        }
    }

    fn open(&mut self) {
        self.levels.push(Level::default());
    }

    fn close(&mut self) {
        if let Some(closed) = self.levels.pop() {
            let top = self.top();
            top.deepest_inside = top.deepest_inside.max(closed.depth());
        }
    }
}

const CHAINING: &[Keyword] = &[
    Keyword::AND,
    Keyword::OR,
    Keyword::NOT,
    Keyword::IN,
    Keyword::IS,
    Keyword::AT,
    Keyword::LIKE,
    Keyword::ILIKE,
    Keyword::BETWEEN,
    Keyword::JOIN,
];

/// Whatever is neither a value nor punctuation.
fn is_operator(token: &Token) -> bool {
    !matches!(
        token,
        Token::EOF
            | Token::Whitespace(_)
            | Token::Word(_)
            | Token::Number(..)
            | Token::Char(_)
            | Token::Period
            | Token::Colon
            | Token::Placeholder(_)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::TripleSingleQuotedString(_)
            | Token::TripleDoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::DoubleQuotedByteStringLiteral(_)
            | Token::SingleQuotedRawStringLiteral(_)
            | Token::DoubleQuotedRawStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
    )
}

/// Words that begin a statement which does more than read, and that the parser may not even know.
const CHANGING: &str = "\
    ABORT ALTER ANALYZE ASSERT ATTACH BEGIN CACHE CALL CLOSE CLUSTER COMMENT COMMIT COPY CREATE DEALLOCATE \
    DECLARE DELETE DENY DETACH DISCARD DO DROP END EXEC EXECUTE EXPORT FETCH FLUSH GRANT IMPORT INSERT INSTALL \
    KILL LISTEN LOAD LOCK MERGE MSCK NOTIFY OPEN OPTIMIZE PRAGMA PREPARE PUT REFRESH REINDEX RELEASE REMOVE RENAME REPLACE \
    RESET REVOKE ROLLBACK SAVEPOINT SET START TRUNCATE UNCACHE UNLISTEN UNLOAD UNLOCK UNSET UPDATE UPSERT USE \
    VACUUM";

/// The words a changing statement begins with, such as `CREATE EXTERNAL TABLE`.
fn changing_words(tokens: &[TokenWithSpan]) -> Option<String> {
    let mut words =
        tokens.iter().map(|token| &token.token).filter(|token| !matches!(token, Token::Whitespace(_))).map_while(
            |token| match token {
                Token::Word(word) if word.quote_style.is_none() => Some(word),
                _ => None,
            },
        );
    let first = words.next()?.value.to_ascii_uppercase();
    if !CHANGING.split(' ').any(|word| word == first) {
        return None;
    }
    let rest = words.take(2).take_while(|word| word.keyword != Keyword::NoKeyword);
    Some(rest.fold(first, |all, word| format!("{all} {}", word.value.to_ascii_uppercase())))
}

fn refuse(what: &str) -> QueryError {
    let first = what.split(' ').next().unwrap_or_default();
    let instead = if what.contains("EXTERNAL") || ["ATTACH", "LOAD", "INSTALL", "IMPORT"].contains(&first) {
        "external locations are not read; what is not in the lake comes in with `webdancer append` or `import`"
    } else {
        match first {
            "SET" | "RESET" | "UNSET" | "USE" | "PRAGMA" => "settings are flags and configuration, not SQL",
            "COPY" | "EXPORT" | "UNLOAD" => {
                "to write a result to a file, redirect the output of `webdancer sql --format`"
            }
            "OPTIMIZE" | "VACUUM" | "ANALYZE" => "tables are kept in shape by `webdancer maintain`",
            "PREPARE" | "EXECUTE" | "EXEC" | "DEALLOCATE" => "give the statement itself",
            _ => "tables change by events alone: `webdancer append`",
        }
    };
    QueryError::Refused(format!(
        "{what}: SQL only reads here (SELECT, WITH, VALUES, EXPLAIN, SHOW, DESCRIBE); {instead}"
    ))
}

fn check_reading(statement: &Statement, limits: &Limits) -> Result<()> {
    let inner = match statement {
        Statement::Statement(inner) => inner.as_ref(),
        Statement::Explain(explain) => return check_reading(&explain.statement, limits),
        Statement::CreateExternalTable(_) => return Err(refuse("CREATE EXTERNAL TABLE")),
        Statement::CopyTo(_) => return Err(refuse("COPY")),
        Statement::Reset(_) => return Err(refuse("RESET")),
    };
    let mut wall = ReadOnly { relations: 0, limits };
    match inner.visit(&mut wall) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct ReadOnly<'a> {
    relations: usize,
    limits: &'a Limits,
}

impl Visitor for ReadOnly<'_> {
    type Break = QueryError;

    fn pre_visit_statement(&mut self, statement: &SqlStatement) -> ControlFlow<QueryError> {
        match statement {
            SqlStatement::Query(_)
            | SqlStatement::Explain { .. }
            | SqlStatement::ExplainTable { .. }
            | SqlStatement::ShowTables { .. }
            | SqlStatement::ShowColumns { .. }
            | SqlStatement::ShowFunctions { .. }
            | SqlStatement::ShowVariable { .. }
            | SqlStatement::ShowCreate { .. } => ControlFlow::Continue(()),
            other => ControlFlow::Break(refuse(&leading_words(&other.to_string()))),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<QueryError> {
        if query.locks.is_empty() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(refuse("LOCK (FOR UPDATE, FOR SHARE)"))
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<QueryError> {
        if select.into.is_some() {
            return ControlFlow::Break(refuse("SELECT INTO"));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<QueryError> {
        self.relations += 1;
        if self.relations > self.limits.max_relations {
            return ControlFlow::Break(QueryError::limit(
                format!("the statement names more than {} tables", self.limits.max_relations),
                "split it, or raise sql.max_relations",
            ));
        }
        for ident in relation.0.iter().filter_map(|part| part.as_ident()) {
            if ident.quote_style == Some('\'') || ident.value.contains(['/', '\\']) {
                return ControlFlow::Break(QueryError::Refused(format!(
                    "reading {:?}: SQL reads the lake's own tables and pins, no external locations",
                    ident.value
                )));
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<QueryError> {
        let function = match factor {
            TableFactor::Table { name, args: Some(_), .. } | TableFactor::Function { name, .. } => name.to_string(),
            TableFactor::TableFunction { expr: Expr::Function(function), .. } => function.name.to_string(),
            TableFactor::TableFunction { expr, .. } => expr.to_string(),
            _ => return ControlFlow::Continue(()),
        };
        if TABLE_FUNCTIONS.contains(&function.to_ascii_lowercase().as_str()) {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(QueryError::Refused(format!(
            "table function {function}: only {} are known, and no external locations are read",
            TABLE_FUNCTIONS.join(", ")
        )))
    }
}

/// The first words in capitals: enough to name a statement.
fn leading_words(text: &str) -> String {
    let words: Vec<&str> =
        text.split_whitespace().take(3).take_while(|word| word.bytes().all(|b| b.is_ascii_uppercase())).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sql: &str) -> String {
        parse(sql, &Limits::default()).map(|s| format!("accepted {s}")).unwrap_or_else(|e| e.to_string())
    }

    #[test]
    fn what_only_reads_is_accepted() {
        for sql in [
            "SELECT 1",
            "select * from qa; ",
            "-- comment\nWITH a AS (SELECT 1 AS x) SELECT * FROM a",
            "VALUES (1), (2)",
            "(SELECT 1) UNION ALL (SELECT 2)",
            "EXPLAIN SELECT 1",
            "EXPLAIN ANALYZE SELECT 1",
            "SHOW TABLES",
            "SHOW COLUMNS FROM qa",
            "SHOW ALL",
            "DESCRIBE qa",
            "SELECT 'INSERT INTO x; DROP TABLE y' AS words /* ; DELETE */",
            "SELECT * FROM at('qa', 3)",
            "SELECT replace(answer, 'a', 'b') FROM qa",
        ] {
            assert!(message(sql).starts_with("accepted"), "{sql}: {}", message(sql));
        }
    }

    #[test]
    fn strings_and_comments_do_not_count_as_nesting() {
        let deep = "(".repeat(100_000);
        assert!(message(&format!("SELECT '{deep}' -- {deep}\n /* {deep} */")).contains("more than 262144"));
        let limits = Limits { max_sql_bytes: 1 << 20, ..Limits::default() };
        assert!(parse(&format!("SELECT '{deep}' -- {deep}\n /* {deep} */"), &limits).is_ok());
    }

    #[test]
    fn depth_and_length_are_limited_before_parsing() {
        let limits = Limits { max_sql_bytes: 1 << 20, ..Limits::default() };
        let error = |sql: String| parse(&sql, &limits).map(|_| ()).unwrap_err().to_string();
        let deep = format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000));
        assert!(error(deep).contains("nested more than 64 deep"));
        assert!(error(format!("SELECT {}1{}", "[".repeat(65), "]".repeat(65))).contains("nested more than 64"));
        let chain = "chains more than 256 operators";
        for part in [" + 1", " UNION SELECT 1", " || 'a'", "::text", "[1]", " AND (1 = 1)", " IS NULL", " -> 'a'"] {
            let message = error(format!("SELECT 1{}", part.repeat(5_000)));
            assert!(message.contains(chain), "{part}: {message}");
        }
        assert!(error(format!("SELECT {}1", "NOT ".repeat(4_000))).contains(chain));
        let nested = (0..60).fold("1".to_string(), |inner, _| format!("({inner} + 1 + 1 + 1 + 1 + 1)"));
        assert!(error(format!("SELECT {nested}")).contains(chain));
        let cases = format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(1_000), " END".repeat(1_000));
        assert!(error(cases).contains("nested more than 64 deep"));
        assert!(error(format!("SELECT * FROM qa{}", ", qa".repeat(300))).contains("more than 128 tables"));
        assert!(parse(&format!("SELECT {}1{}", "(".repeat(60), ")".repeat(60)), &limits).is_ok());
        let list = (0..20_000).map(|i| i.to_string()).collect::<Vec<_>>().join(",");
        assert!(parse(&format!("SELECT 1 IN ({list})"), &limits).is_ok());
        let columns = (0..2_000).map(|i| format!("a + {i} AS c{i}")).collect::<Vec<_>>().join(", ");
        assert!(parse(&format!("SELECT {columns} FROM qa"), &limits).is_ok());
        let cases = (0..2_000).map(|i| format!("WHEN a = {i} THEN b + {i} ")).collect::<String>();
        assert!(parse(&format!("SELECT CASE {cases} END FROM qa"), &limits).is_ok());
    }

    #[test]
    fn one_statement_at_a_time() {
        assert!(message("SELECT 1; SELECT 2").contains("2 statements at once; give exactly one"));
        assert!(message(" ; ;").contains("no statement"));
        assert!(message("").contains("no statement"));
        assert!(message("SELECT 1; DROP TABLE qa").contains("refused"));
    }

    #[test]
    fn json_operators_bind_tighter_than_equality() {
        let statement = parse("SELECT extra->>'a' = 'b', x->'a'->>'b', 1 + 2 -> 'k'", &Limits::default()).unwrap();
        let Statement::Statement(inner) = statement else { panic!("a query") };
        let shown = format!("{inner:?}");
        // The outermost operator of the first column is the comparison.
        let first = shown.find("BinaryOp").unwrap();
        assert!(shown[first..].find("op: Eq").unwrap() > shown[first..].find("op: LongArrow").unwrap(), "{shown}");
    }
}
