//! Which columns a role may read (database.md 8.3 step 1).
//!
//! USAGE on the schema has no say in this. Revoking a right leaves no trace in the change stream, so callers keep answers for
//! seconds only.

use deadpool_postgres::ClientWrapper;
use tokio_postgres::Error;
use tokio_postgres::types::Oid;

use super::super::super::database::failure::DatabaseFailure;
use super::super::super::database::pool::{Answer, DatabasePool};
use super::{CATALOG_DEADLINE, sql};

/// What a role may read of a relation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readable {
    /// Attribute numbers, ascending. Empty also when the relation does not exist any more.
    Columns(Box<[i16]>),
    /// The database has no such role.
    UnknownRole,
}

impl Readable {
    /// Whether the column may be read.
    pub fn contains(&self, number: i16) -> bool {
        matches!(self, Self::Columns(numbers) if numbers.binary_search(&number).is_ok())
    }
}

/// Answers for every pair of role and relation, in order, with one statement.
///
/// # Errors
/// As [`DatabasePool::run`].
pub async fn privileges(pool: &DatabasePool, pairs: &[(&str, Oid)]) -> Result<Vec<Readable>, DatabaseFailure> {
    if pairs.is_empty() {
        return Ok(Vec::new());
    }
    // No role has such a name, and the database does not take the character.
    let (roles, relations): (Vec<&str>, Vec<Oid>) =
        pairs.iter().map(|&(role, relation)| (if role.contains('\0') { "" } else { role }, relation)).unzip();
    let ask = async |client: &ClientWrapper| -> Result<Vec<Readable>, Error> {
        let statement = client.prepare_cached(sql::PRIVILEGES).await?;
        let rows = client.query(&statement, &[&roles, &relations]).await?;
        let read = |known: bool, columns: Vec<i16>| if known { Readable::Columns(columns.into()) } else { Readable::UnknownRole };
        rows.iter().map(|row| Ok(read(row.try_get(0)?, row.try_get(1)?))).collect()
    };
    pool.run(CATALOG_DEADLINE, async |client: &ClientWrapper| Answer::of(ask(client).await)).await
}
