//! Descriptions of tables.
//!
//! Postgres describes a table before its first change on a connection, and again after its
//! definition has changed. [`RelationMessage`] is that message; [`Relations`] remembers the
//! latest description of every table, because change messages name tables by id only.
//!
//! The descriptions are valid for one connection: a new stream starts with an empty
//! [`Relations`]. Its size is bounded by the number of published tables.

use hashbrown::HashMap;

use super::cursor::Cursor;
use super::error::DecodeError;

/// What of an old row the log contains (`pg_class.relreplident`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaIdentity {
    /// The primary key, if there is one.
    Default,
    /// Nothing.
    Nothing,
    /// All columns.
    Full,
    /// The columns of a chosen unique index.
    Index,
}

/// The description of a table as it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationMessage<'a> {
    /// Object id of the table; of the leaf, for a partitioned table that is published as such.
    pub id: u32,
    /// Schema; empty stands for `pg_catalog`.
    pub namespace: &'a [u8],
    /// Name of the table.
    pub name: &'a [u8],
    /// What old rows contain.
    pub replica_identity: ReplicaIdentity,
    /// The published columns, in order.
    pub columns: RelationColumns<'a>,
}

/// The description of one column as it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    /// Name of the column.
    pub name: &'a [u8],
    /// Object id of its type.
    pub type_oid: u32,
    /// Modifier of the type; -1 when there is none.
    pub typmod: i32,
    /// Whether the column belongs to the replica identity; true for all under FULL.
    pub is_key: bool,
}

/// Walks the columns of a [`RelationMessage`], which has checked them.
#[derive(Debug, Clone, Copy)]
pub struct RelationColumns<'a> {
    left: u16,
    cursor: Cursor<'a>,
}

impl PartialEq for RelationColumns<'_> {
    fn eq(&self, other: &Self) -> bool {
        Iterator::eq(*self, *other)
    }
}

impl Eq for RelationColumns<'_> {}

impl<'a> Iterator for RelationColumns<'a> {
    type Item = RelationColumn<'a>;

    fn next(&mut self) -> Option<RelationColumn<'a>> {
        self.left = self.left.checked_sub(1)?;
        let column = column(&mut self.cursor);
        debug_assert!(column.is_ok(), "a description is checked before it is handed out");
        column.ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

impl ExactSizeIterator for RelationColumns<'_> {}

impl<'a> RelationMessage<'a> {
    pub(super) fn decode(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let id = cursor.u32("the id of a relation")?;
        let namespace = cursor.string("the namespace of a relation")?;
        let name = cursor.string("the name of a relation")?;
        let start = *cursor;
        let replica_identity = match cursor.u8("a replica identity")? {
            b'd' => ReplicaIdentity::Default,
            b'n' => ReplicaIdentity::Nothing,
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            _ => return Err(start.error("a replica identity d, n, f or i")),
        };
        let left = cursor.u16("the number of columns")?;
        let columns = RelationColumns { left, cursor: *cursor };
        for _ in 0..left {
            column(cursor)?;
        }
        Ok(RelationMessage { id, namespace, name, replica_identity, columns })
    }
}

fn column<'a>(cursor: &mut Cursor<'a>) -> Result<RelationColumn<'a>, DecodeError> {
    let flags = cursor.u8("the flags of a column")?;
    Ok(RelationColumn {
        name: cursor.string("the name of a column")?,
        type_oid: cursor.u32("the type of a column")?,
        typmod: cursor.i32("the type modifier of a column")?,
        is_key: flags & 1 != 0,
    })
}

/// The description of a table, owned. Bytes of names that are not UTF-8 are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Object id of the table.
    pub id: u32,
    /// Schema.
    pub namespace: String,
    /// Name of the table.
    pub name: String,
    /// What old rows contain.
    pub replica_identity: ReplicaIdentity,
    /// The published columns, in the order in which tuples carry them.
    pub columns: Vec<ColumnDescription>,
}

/// The description of one column, owned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDescription {
    /// Name of the column.
    pub name: String,
    /// Object id of its type.
    pub type_oid: u32,
    /// Modifier of the type; -1 when there is none.
    pub typmod: i32,
    /// Whether the column belongs to the replica identity.
    pub is_key: bool,
}

impl From<&RelationMessage<'_>> for Relation {
    fn from(message: &RelationMessage<'_>) -> Self {
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let namespace = if message.namespace.is_empty() { "pg_catalog".to_owned() } else { text(message.namespace) };
        let columns = message.columns.map(|column| ColumnDescription {
            name: text(column.name),
            type_oid: column.type_oid,
            typmod: column.typmod,
            is_key: column.is_key,
        });
        Relation {
            id: message.id,
            namespace,
            name: text(message.name),
            replica_identity: message.replica_identity,
            columns: columns.collect(),
        }
    }
}

impl Relation {
    /// Position of a column in the tuples of this relation.
    pub fn column_index(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// The tables described so far on one stream.
#[derive(Debug, Default)]
pub struct Relations {
    by_id: HashMap<u32, Relation>,
}

impl Relations {
    /// Remembers a description in place of an older one of the same table.
    pub fn describe(&mut self, message: &RelationMessage<'_>) -> &Relation {
        self.by_id.entry(message.id).insert(Relation::from(message)).into_mut()
    }

    /// The latest description of a table. None for an id that was never described, which
    /// no well-behaved server lets happen.
    pub fn get(&self, id: u32) -> Option<&Relation> {
        self.by_id.get(&id)
    }
}
