//! What is not known here, asked of the database, many questions at a time.
//!
//! One statement answers a batch. When it fails, one question may be to blame: the batch is halved until the culprit stands
//! alone, so that the others get their answers. Called for values by the builder of records, and by the filters.
//! Fails question by question with the text of the database's error; a lost connection or the deadline fails all that are left.

use std::ops::Range;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

/// Questions in one statement: enough to make the round trip cheap, few enough for a retry of one half to be so as well.
const BATCH_QUESTIONS_MAX: usize = 1_000;

/// Text in one statement; a single question may exceed it.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Longest a call may take: as long as anyone waits for the change behind these questions.
const ASK_MS_MAX: u64 = 15_000;

const CASTS: &str = "select realtime.\"cast\"(q.value, q.type_oid::regtype)::text \
    from unnest($1::text[], $2::oid[]) with ordinality as q(value, type_oid, nth) order by q.nth";

/// The JSON of values for which [`super::write_json`] needs the database: type oid and text.
pub async fn ask(client: &Client, values: &[(u32, &str)]) -> Vec<Result<String, String>> {
    let answers = in_batches(
        values,
        |(_, text)| text.len(),
        async |batch| {
            let (oids, texts): (Vec<u32>, Vec<&str>) = batch.iter().copied().unzip();
            let rows = client.query_typed(CASTS, &[(&texts, Type::TEXT_ARRAY), (&oids, Type::OID_ARRAY)]).await?;
            rows.iter().map(|row| Ok(row.try_get::<_, Option<String>>(0)?.unwrap_or_else(|| "null".to_owned()))).collect()
        },
    );
    answers.await
}

/// Answers every question, in order, with as few calls of `run` as failures allow. Must not be used in a transaction, which
/// the first failure would abort.
pub async fn in_batches<Q, A>(
    questions: &[Q],
    bytes: impl Fn(&Q) -> usize,
    run: impl AsyncFn(&[Q]) -> Result<Vec<A>, Error>,
) -> Vec<Result<A, String>> {
    let deadline = Instant::now() + Duration::from_millis(ASK_MS_MAX);
    let mut answers = Vec::with_capacity(questions.len());
    let mut fatal: Option<String> = None;
    // The batches to do; the next one last.
    let mut batches = batches(questions, bytes);
    while let Some(batch) = batches.pop() {
        debug_assert_eq!(batch.start, answers.len(), "answers come in order");
        if let Some(reason) = &fatal {
            answers.extend(batch.map(|_| Err(reason.clone())));
            continue;
        }
        let error = match timeout_at(deadline, run(&questions[batch.clone()])).await {
            Ok(Ok(found)) if found.len() == batch.len() => {
                answers.extend(found.into_iter().map(Ok));
                continue;
            }
            Ok(Ok(_)) => "wrong number of answers".to_owned(),
            Ok(Err(error)) => match error.as_db_error() {
                Some(refusal) => refusal.message().to_owned(),
                None => fatal.insert(error.to_string()).clone(),
            },
            Err(_) => fatal.insert("timed out".to_owned()).clone(),
        };
        if fatal.is_none() && batch.len() > 1 {
            let middle = batch.start + batch.len() / 2;
            batches.extend([middle..batch.end, batch.start..middle]);
        } else {
            answers.extend(batch.map(|_| Err(error.clone())));
        }
    }
    answers
}

/// Cuts the questions into batches within the bounds, the first one last.
fn batches<Q>(questions: &[Q], bytes: impl Fn(&Q) -> usize) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let (mut start, mut batch_bytes) = (0, 0);
    for (at, question) in questions.iter().enumerate() {
        let question_bytes = bytes(question);
        if at > start && (at - start == BATCH_QUESTIONS_MAX || batch_bytes + question_bytes > BATCH_BYTES_MAX) {
            batches.push(start..at);
            (start, batch_bytes) = (at, 0);
        }
        batch_bytes += question_bytes;
    }
    if start < questions.len() {
        batches.push(start..questions.len());
    }
    batches.reverse();
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded() {
        assert_eq!(batches::<usize>(&[], |bytes| *bytes), vec![]);
        assert_eq!(batches(&[1; 2_500], |bytes| *bytes), vec![2_000..2_500, 1_000..2_000, 0..1_000]);
        assert_eq!(batches(&[BATCH_BYTES_MAX * 2, 1, BATCH_BYTES_MAX, 1], |bytes| *bytes), vec![3..4, 2..3, 1..2, 0..1]);
    }
}
