//! Filters of subscriptions against captured rows (database.md 6.6 and 6.7): here where the result is certainly what Postgres
//! would say, else as questions for `realtime.check_equality_op`.
//!
//! A subscription's filters are compiled once, when it is made or its table's columns change, and tested for every row.
//! Values are the text of the column in the output format of its type, as in [`super::values`]. Literals were accepted by the
//! database when the subscription was made.
//!
//! Invariants: three-valued logic as in SQL; only true matches; filters are joined by AND, so one that is not true here spares
//! the questions of all others. Text is UTF-8 on both sides. What is not certain is asked, never guessed.
//! Nothing here fails; [`ask`] fails question by question.
//!
//! | file | concept |
//! |---|---|
//! | `condition` | one filter, compiled |
//! | `family` | types whose comparison is known here |
//! | `decimal`, `moment` | numbers and times that can be compared |
//! | `pattern` | LIKE |
//! | `question` | what is asked of the database |

mod condition;
mod decimal;
mod family;
mod moment;
mod pattern;
mod question;
#[cfg(test)]
mod tests;

use std::rc::Rc;

pub use condition::{Compiled, Verdict, compile};
pub use question::{Question, ask};

use super::values::TypeInfo;
use crate::realtime::postgres_changes::Filter;

/// What a row has in a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell<'a> {
    /// Nothing known: no such column in the replica identity, or an unchanged value that was not sent. Matches no filter.
    Absent,
    Null,
    Text(&'a str),
}

/// The column a filter is about.
#[derive(Debug, Clone)]
pub struct FilterColumn {
    /// Where the caller finds it in a row.
    pub index: usize,
    pub type_info: Rc<TypeInfo>,
    /// The collation of the column's type calls equal only what is equal byte by byte; true unless the type is a domain with
    /// a collation of its own (`pg_collation.collisdeterministic`).
    pub deterministic: bool,
}

/// All filters of one subscription, joined by AND.
#[derive(Debug, Clone)]
pub struct Group {
    /// `None` stands for a filter on a column that does not exist, which nothing matches.
    conditions: Option<Box<[(usize, Compiled)]>>,
}

/// Compiles the filters of a subscription; `column` finds a column by its name.
pub fn compile_all(filters: &[Filter], column: impl Fn(&str) -> Option<FilterColumn>) -> Group {
    let condition = |filter: &Filter| {
        let column = column(&filter.column)?;
        Some((column.index, compile(filter, &column.type_info, column.deterministic)))
    };
    Group { conditions: filters.iter().map(condition).collect() }
}

impl Group {
    /// Tests a row. [`Verdict::AskSql`] is left when nothing rules the row out and [`Group::questions`] has some to ask.
    pub fn test<'a>(&self, cell: impl Fn(usize) -> Cell<'a>) -> Verdict {
        let Some(conditions) = &self.conditions else { return Verdict::False };
        let mut verdict = Verdict::True;
        for (index, condition) in conditions {
            let value = match cell(*index) {
                Cell::Absent => return Verdict::False,
                Cell::Null => None,
                Cell::Text(text) => Some(text),
            };
            match condition.test(value) {
                Verdict::True => {}
                Verdict::AskSql => verdict = Verdict::AskSql,
                Verdict::False | Verdict::Null => return Verdict::False,
            }
        }
        verdict
    }

    /// What is left to ask about a row. It matches when every answer is true.
    pub fn questions<'a>(&'a self, cell: impl Fn(usize) -> Cell<'a>) -> impl Iterator<Item = Question<'a>> {
        self.conditions.iter().flatten().filter_map(move |(index, condition)| {
            let value = match cell(*index) {
                Cell::Absent => return None,
                Cell::Null => None,
                Cell::Text(text) => Some(text),
            };
            (condition.test(value) == Verdict::AskSql).then(|| condition.question(value))
        })
    }
}
