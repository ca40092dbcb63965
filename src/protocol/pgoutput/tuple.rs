//! Rows inside change messages.
//!
//! A [`Tuple`] keeps the bytes it was decoded from and walks them when its columns are asked
//! for. It is only built by a decoder that has walked it once to its end, which is what makes
//! the second walk infallible.

use super::cursor::Cursor;
use super::error::DecodeError;

/// One value of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column<'a> {
    /// SQL NULL.
    Null,
    /// An out-of-line value that the update did not touch and the log does not contain.
    Unchanged,
    /// The type's text form, in the encoding of the session.
    Text(&'a [u8]),
    /// The type's binary form; sent only when the option `binary` is on.
    Binary(&'a [u8]),
}

/// The published columns of one row, in the order of the relation's description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple<'a> {
    columns: u16,
    bytes: &'a [u8],
}

/// What the log knows about a row before it was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OldTuple<'a> {
    /// The columns of the replica identity; all others are [`Column::Null`].
    Key(Tuple<'a>),
    /// The whole row: replica identity FULL.
    Full(Tuple<'a>),
}

impl<'a> Tuple<'a> {
    pub(super) fn decode(cursor: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let columns = cursor.u16("the number of columns")?;
        let bytes = cursor.rest();
        for _ in 0..columns {
            column(cursor)?;
        }
        Ok(Tuple { columns, bytes: &bytes[..bytes.len() - cursor.rest().len()] })
    }

    /// How many columns the row has.
    pub fn len(&self) -> usize {
        usize::from(self.columns)
    }

    /// Whether the row has no columns.
    pub fn is_empty(&self) -> bool {
        self.columns == 0
    }

    /// The columns in order.
    pub fn columns(&self) -> Columns<'a> {
        Columns { left: self.columns, cursor: Cursor::new(self.bytes) }
    }
}

/// Walks the columns of a [`Tuple`].
#[derive(Debug, Clone)]
pub struct Columns<'a> {
    left: u16,
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Columns<'a> {
    type Item = Column<'a>;

    fn next(&mut self) -> Option<Column<'a>> {
        self.left = self.left.checked_sub(1)?;
        let column = column(&mut self.cursor);
        debug_assert!(column.is_ok(), "a tuple is checked before it is handed out");
        column.ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

impl ExactSizeIterator for Columns<'_> {}

#[inline]
fn column<'a>(cursor: &mut Cursor<'a>) -> Result<Column<'a>, DecodeError> {
    let start = *cursor;
    match cursor.u8("a column")? {
        b't' => cursor.counted("a text value").map(Column::Text),
        b'n' => Ok(Column::Null),
        b'u' => Ok(Column::Unchanged),
        b'b' => cursor.counted("a binary value").map(Column::Binary),
        _ => Err(start.error("a column of kind t, n, u or b")),
    }
}
