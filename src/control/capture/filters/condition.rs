//! One filter, compiled for the type of its column.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::super::values::{TypeInfo, TypeKind, items, oid};
use super::family::{Family, Operand};
use super::pattern::Pattern;
use super::question::Question;
use crate::realtime::postgres_changes::{Filter, Op};

/// What a filter says about a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    True,
    False,
    /// SQL's null: no match, negated or not.
    Null,
    /// Only the database knows.
    AskSql,
}

impl Verdict {
    fn of(result: Option<bool>) -> Self {
        result.map_or(Self::AskSql, |holds| if holds { Self::True } else { Self::False })
    }

    /// Three-valued negation.
    fn negated_if(self, negate: bool) -> Self {
        match self {
            Self::True if negate => Self::False,
            Self::False if negate => Self::True,
            other => other,
        }
    }
}

/// A filter that can be tested many times.
#[derive(Debug, Clone)]
pub struct Compiled {
    plan: Plan,
    negate: bool,
    op: Op,
    literal: Box<str>,
    type_oid: u32,
    /// A null column makes the comparison null, whatever the literal.
    strict: bool,
}

#[derive(Debug, Clone)]
enum Plan {
    Sql,
    IsNull,
    IsBoolean(bool),
    Compare(Family, Op, Operand),
    Distinct(Family, Operand),
    Any { family: Family, operands: Box<[Operand]>, has_null: bool },
    Like(Family, Pattern),
}

/// Prepares a filter on a column of the given type. `deterministic` as in [`super::FilterColumn`].
pub fn compile(filter: &Filter, type_info: &TypeInfo, deterministic: bool) -> Compiled {
    let plan = plan(filter, type_info, deterministic).unwrap_or(Plan::Sql);
    let strict = match &type_info.kind {
        TypeKind::Base => type_info.oid < oid::FIRST_NORMAL,
        TypeKind::Array { .. } | TypeKind::Enum | TypeKind::Range => true,
        TypeKind::Domain { .. } | TypeKind::Composite { .. } | TypeKind::Other => false,
    };
    let literal = filter.value.as_str().into();
    Compiled { plan, negate: filter.negate, op: filter.op, literal, type_oid: type_info.oid, strict }
}

/// `None` when the database has to be asked.
fn plan(filter: &Filter, type_info: &TypeInfo, deterministic: bool) -> Option<Plan> {
    if filter.op == Op::Is {
        return is_plan(filter, type_info);
    }
    let family = Family::of(type_info, deterministic)?;
    Some(match filter.op {
        Op::Eq | Op::Neq => Plan::Compare(family, filter.op, family.literal(&filter.value)?),
        Op::Lt | Op::Lte | Op::Gt | Op::Gte if family.is_ordered() => {
            Plan::Compare(family, filter.op, family.literal(&filter.value)?)
        }
        Op::IsDistinct => Plan::Distinct(family, family.literal(&filter.value)?),
        Op::In => {
            let items = items(&filter.value).ok()?;
            let operands = items.iter().flatten().map(|item| family.literal(item)).collect::<Option<_>>()?;
            Plan::Any { family, operands, has_null: items.iter().any(Option::is_none) }
        }
        Op::Like => Plan::Like(family, family.pattern(&filter.value)?),
        _ => return None,
    })
}

fn is_plan(filter: &Filter, type_info: &TypeInfo) -> Option<Plan> {
    // A row of nulls is null as well.
    let is_row = |type_info: &TypeInfo| matches!(type_info.kind, TypeKind::Composite { .. } | TypeKind::Other);
    let scalar = match &type_info.kind {
        TypeKind::Domain { base } => !is_row(base) && !matches!(base.kind, TypeKind::Domain { .. }),
        _ => !is_row(type_info),
    };
    let is_boolean = type_info.oid == oid::BOOL;
    match filter.value.as_str() {
        "null" if scalar => Some(Plan::IsNull),
        "unknown" if is_boolean => Some(Plan::IsNull),
        "true" if is_boolean => Some(Plan::IsBoolean(true)),
        "false" if is_boolean => Some(Plan::IsBoolean(false)),
        _ => None,
    }
}

impl Compiled {
    /// True when the database is asked about every value that is not null.
    #[cfg(test)]
    pub fn needs_sql(&self) -> bool {
        matches!(self.plan, Plan::Sql)
    }

    /// Tests the value of a column; `None` is null.
    pub fn test(&self, value: Option<&str>) -> Verdict {
        let verdict = match value {
            Some(text) => self.test_text(text),
            None => self.test_null(),
        };
        verdict.negated_if(self.negate)
    }

    fn test_null(&self) -> Verdict {
        match &self.plan {
            Plan::IsNull => Verdict::True,
            Plan::IsBoolean(_) => Verdict::False,
            Plan::Distinct(..) => Verdict::True,
            // Nothing, not even null, is in an empty list.
            Plan::Any { operands, has_null: false, .. } if operands.is_empty() => Verdict::False,
            Plan::Compare(..) | Plan::Any { .. } | Plan::Like(..) => Verdict::Null,
            Plan::Sql => match self.op {
                Op::Is | Op::IsDistinct | Op::In => Verdict::AskSql,
                _ if self.strict => Verdict::Null,
                _ => Verdict::AskSql,
            },
        }
    }

    fn test_text(&self, text: &str) -> Verdict {
        Verdict::of(match &self.plan {
            Plan::Sql => None,
            Plan::IsNull => Some(false),
            Plan::IsBoolean(wanted) => match text {
                "t" => Some(*wanted),
                "f" => Some(!*wanted),
                _ => None,
            },
            Plan::Compare(family, op, operand) => family.compare(text, operand).map(|ordering| holds(*op, ordering)),
            Plan::Distinct(family, operand) => family.compare(text, operand).map(Ordering::is_ne),
            Plan::Like(family, pattern) => family.like(text, pattern),
            Plan::Any { family, operands, has_null } => match family.is_any(text, operands) {
                Some(false) if *has_null => return Verdict::Null,
                found => found,
            },
        })
    }

    /// The same test as a question for the database.
    pub fn question<'a>(&'a self, value: Option<&'a str>) -> Question<'a> {
        let mut question = Question {
            op: self.op,
            type_oid: self.type_oid,
            value: value.map(Cow::Borrowed),
            literal: Cow::Borrowed(&self.literal),
            negate: self.negate,
        };
        match self.type_oid {
            // The bare name of these types means a length of one; compare in full, with the type that has the same rules.
            oid::BIT => question.type_oid = oid::VARBIT,
            oid::BPCHAR => {
                question.type_oid = oid::TEXT;
                // Padding counts in the value of a match with a pattern only.
                let is_pattern = matches!(self.op, Op::Like | Op::Ilike | Op::Match | Op::Imatch);
                question.value = value.map(|text| Cow::Borrowed(if is_pattern { text } else { text.trim_end_matches(' ') }));
                if self.op != Op::In && self.op != Op::Is {
                    question.literal = Cow::Borrowed(self.literal.trim_end_matches(' '));
                }
            }
            // The original compares the digits, which is what its clients write in filters.
            oid::BYTEA => {
                question.value = value.map(|text| Cow::Borrowed(text.strip_prefix("\\x").unwrap_or(text)));
            }
            _ => {}
        }
        question
    }
}

fn holds(op: Op, ordering: Ordering) -> bool {
    match op {
        Op::Neq => ordering.is_ne(),
        Op::Lt => ordering.is_lt(),
        Op::Lte => ordering.is_le(),
        Op::Gt => ordering.is_gt(),
        Op::Gte => ordering.is_ge(),
        _ => ordering.is_eq(),
    }
}
