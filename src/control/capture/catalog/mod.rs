//! What the database's catalog says about a publication: its tables, their columns, keys and types (database.md 8.3, 15.2).
//!
//! Changes carry the tables and columns as they were when written; what subscribers are told, and may see, depends on what they
//! are now, which is what a [`Catalog`] knows. Capture loads one at its start and whenever the fingerprint ([`version`]),
//! asked for now and then, is another one. A catalog is one snapshot; nothing in it changes. Rights are asked for separately
//! and more often ([`privileges`]), as they are not part of the fingerprint. Fails with what the pool says; a publication that
//! does not exist is no failure.

mod privileges;
mod sql;
#[cfg(test)]
mod tests;
mod types;

use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use futures_util::future::{join3, join5};
use hashbrown::HashMap;
use tokio_postgres::types::Oid;
use tokio_postgres::{Error, Row};

use super::super::database::failure::DatabaseFailure;
use super::super::database::pool::{Answer, DatabasePool};
pub use privileges::{Readable, privileges};
pub use types::{CatalogType, TypeKind};

/// Longest time for one question. A catalog of a thousand tables with twenty columns each takes half a second.
const CATALOG_DEADLINE: Duration = Duration::from_secs(10);

/// All statements see the same catalog. Compiling their plans takes ten times as long as running them.
const BEGIN: &str = "begin isolation level repeatable read, read only; set local jit = off";
const ROLLBACK: &str = "rollback";

/// The tables of one publication and the types of their columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// Fingerprint of everything else in here.
    pub version: Version,
    /// Which changes are published.
    pub actions: PublishedActions,
    /// By oid. Roots of partitioned tables or their leaves, whichever the publication names. Never those of `realtime`.
    pub tables: HashMap<Oid, Table>,
    /// By oid, complete: also types that other types consist of.
    pub types: HashMap<Oid, CatalogType>,
}

/// Changes when tables, columns, row security, keys, replica identities, types or actions of the publication do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(String);

/// Which changes a publication publishes. Truncations are of no interest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedActions {
    /// INSERT.
    pub insert: bool,
    /// UPDATE.
    pub update: bool,
    /// DELETE.
    pub delete: bool,
}

/// A published table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its `pg_class.oid`, which changes and subscriptions name it by.
    pub oid: Oid,
    /// Schema, unquoted.
    pub schema: String,
    /// Name, unquoted.
    pub name: String,
    /// Row-level security is enabled.
    pub row_security: bool,
    /// What the database tells of old rows.
    pub replica_identity: ReplicaIdentity,
    /// Attribute numbers of the primary key, in the order of its index. Empty when there is none.
    pub primary_key: Vec<i16>,
    /// Columns in attribute order, without dropped ones.
    pub columns: Vec<Column>,
}

/// What the database tells of old rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key.
    Default,
    /// Nothing.
    Nothing,
    /// All columns.
    Full,
    /// The columns of an index, by attribute number; empty when the index is gone.
    Index(Vec<i16>),
}

/// A column of a published table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Attribute number, from 1; gaps are dropped columns.
    pub number: i16,
    /// Name, unquoted.
    pub name: String,
    /// Type; a key of [`Catalog::types`].
    pub type_oid: Oid,
    /// Type modifier, −1 for none.
    pub type_modifier: i32,
    /// Where its values come from when nobody writes them.
    pub generated: Generated,
    /// Values are equal only if their bytes are; false for columns with a nondeterministic collation.
    pub deterministic: bool,
}

/// Whether a column is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generated {
    /// It is not.
    No,
    /// When written.
    Stored,
    /// When read (Postgres 18 and later).
    Virtual,
}

impl Table {
    /// The column with this attribute number.
    pub fn column(&self, number: i16) -> Option<&Column> {
        self.columns.binary_search_by_key(&number, |column| column.number).ok().map(|index| &self.columns[index])
    }

    /// Columns of the primary key, in its order.
    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.primary_key.iter().filter_map(|&number| self.column(number))
    }
}

impl Catalog {
    /// The type behind any number of domains.
    pub fn base_type(&self, oid: Oid) -> Option<&CatalogType> {
        let mut found = self.types.get(&oid)?;
        // A domain is made from types that exist, so there is an end.
        while let TypeKind::Domain { base } = found.kind {
            found = self.types.get(&base)?;
        }
        Some(found)
    }
}

/// Reads the catalog. `None` when there is no such publication. At most 5 s for a session and 10 s for the answer.
///
/// # Errors
/// As [`DatabasePool::run`].
pub async fn load(pool: &DatabasePool, publication: &str) -> Result<Option<Catalog>, DatabaseFailure> {
    pool.run(CATALOG_DEADLINE, async |client: &ClientWrapper| load_on(client, publication).await).await
}

async fn load_on(client: &ClientWrapper, publication: &str) -> Answer<Option<Catalog>> {
    let prepared =
        join3(client.prepare_cached(&sql::VERSION), client.prepare_cached(&sql::TABLES), client.prepare_cached(&sql::TYPES));
    let (version, tables, types) = match prepared.await {
        (Ok(version), Ok(tables), Ok(types)) => (version, tables, types),
        (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => return Answer::of(Err(error)),
    };
    // Polled in this order, so sent in this order.
    let (begun, versions, tables, types, rolled_back) = join5(
        client.batch_execute(BEGIN),
        client.query_opt(&version, &[&publication]),
        client.query(&tables, &[&publication]),
        client.query(&types, &[&publication]),
        client.batch_execute(ROLLBACK),
    )
    .await;
    let outcome = begun.and(versions).and_then(|version| {
        let (tables, types) = (tables?, types?);
        version.map(|version| assembled(&version, &tables, &types)).transpose()
    });
    ended(outcome, &rolled_back)
}

/// The session is good for others only if it left the transaction.
fn ended<T>(outcome: Result<T, Error>, rolled_back: &Result<(), Error>) -> Answer<T> {
    let answer = Answer::of(outcome);
    Answer { clean: answer.clean && rolled_back.is_ok(), ..answer }
}

fn assembled(version: &Row, tables: &[Row], types: &[Row]) -> Result<Catalog, Error> {
    let tables: Result<_, Error> = tables.iter().map(|row| table(row).map(|table| (table.oid, table))).collect();
    let types: Result<_, Error> = types.iter().map(|row| CatalogType::read(row).map(|kind| (kind.oid, kind))).collect();
    Ok(Catalog {
        version: Version(version.try_get(3)?),
        actions: PublishedActions { insert: version.try_get(0)?, update: version.try_get(1)?, delete: version.try_get(2)? },
        tables: tables?,
        types: types?,
    })
}

fn table(row: &Row) -> Result<Table, Error> {
    let replica_identity = match row.try_get::<_, &str>(4)? {
        "n" => ReplicaIdentity::Nothing,
        "f" => ReplicaIdentity::Full,
        "i" => ReplicaIdentity::Index(row.try_get(6)?),
        _ => ReplicaIdentity::Default,
    };
    let (numbers, names): (Vec<i16>, Vec<String>) = (row.try_get(7)?, row.try_get(8)?);
    let (types, modifiers): (Vec<Oid>, Vec<i32>) = (row.try_get(9)?, row.try_get(10)?);
    let (generated, deterministic): (Vec<&str>, Vec<bool>) = (row.try_get(11)?, row.try_get(12)?);
    let columns = numbers.into_iter().zip(names).zip(types).zip(modifiers).zip(generated).zip(deterministic);
    let columns = columns.map(|(((((number, name), type_oid), type_modifier), generated), deterministic)| {
        let generated = match generated {
            "s" => Generated::Stored,
            "v" => Generated::Virtual,
            _ => Generated::No,
        };
        Column { number, name, type_oid, type_modifier, generated, deterministic }
    });
    Ok(Table {
        oid: row.try_get(0)?,
        schema: row.try_get(1)?,
        name: row.try_get(2)?,
        row_security: row.try_get(3)?,
        replica_identity,
        primary_key: row.try_get(5)?,
        columns: columns.collect(),
    })
}

/// The fingerprint a catalog loaded now would have, without loading it. `None` when there is no such publication.
///
/// # Errors
/// As [`load`].
pub async fn version(pool: &DatabasePool, publication: &str) -> Result<Option<Version>, DatabaseFailure> {
    let work = async |client: &ClientWrapper| {
        let statement = match client.prepare_cached(&sql::VERSION).await {
            Ok(statement) => statement,
            Err(error) => return Answer::of(Err(error)),
        };
        let (begun, row, rolled_back) =
            join3(client.batch_execute(BEGIN), client.query_opt(&statement, &[&publication]), client.batch_execute(ROLLBACK))
                .await;
        let version = begun.and(row).and_then(|row| row.map(|row| row.try_get(3).map(Version)).transpose());
        ended(version, &rolled_back)
    };
    pool.run(CATALOG_DEADLINE, work).await
}
