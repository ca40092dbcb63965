//! Questions for `realtime.check_equality_op` (database.md 6.6).

use std::borrow::Cow;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::super::values::in_batches;
use crate::realtime::postgres_changes::Op;

/// One comparison to be made by the database. Equal questions have equal answers within one batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question<'a> {
    pub op: Op,
    pub type_oid: u32,
    /// The column's value; `None` is null.
    pub value: Option<Cow<'a, str>>,
    /// The value of the filter; an array literal for [`Op::In`].
    pub literal: Cow<'a, str>,
    pub negate: bool,
}

const COMPARISONS: &str = "select realtime.check_equality_op(\
        q.op::realtime.equality_op, q.type_oid::regtype, q.value, q.literal, q.negate) \
    from unnest($1::text[], $2::oid[], $3::text[], $4::text[], $5::boolean[]) \
        with ordinality as q(op, type_oid, value, literal, negate, nth) order by q.nth";

/// Asks the questions, many in one statement; `None` is SQL's null. One that fails gets the error's text and does not
/// spoil the others. Takes 15 seconds at most. Not for use in a transaction.
pub async fn ask(client: &Client, questions: &[Question<'_>]) -> Vec<Result<Option<bool>, String>> {
    let bytes = |question: &Question<'_>| question.value.as_ref().map_or(0, |value| value.len()) + question.literal.len();
    let answers = in_batches(questions, bytes, async |batch| {
        let ops: Vec<&str> = batch.iter().map(|question| question.op.as_str()).collect();
        let oids: Vec<u32> = batch.iter().map(|question| question.type_oid).collect();
        let values: Vec<Option<&str>> = batch.iter().map(|question| question.value.as_deref()).collect();
        let literals: Vec<&str> = batch.iter().map(|question| &*question.literal).collect();
        let negations: Vec<bool> = batch.iter().map(|question| question.negate).collect();
        let rows = client
            .query_typed(
                COMPARISONS,
                &[
                    (&ops, Type::TEXT_ARRAY),
                    (&oids, Type::OID_ARRAY),
                    (&values, Type::TEXT_ARRAY),
                    (&literals, Type::TEXT_ARRAY),
                    (&negations, Type::BOOL_ARRAY),
                ],
            )
            .await?;
        rows.iter().map(|row| row.try_get(0)).collect()
    });
    answers.await
}
