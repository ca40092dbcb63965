//! The other direction, for tests: builds messages as a server would send them.
//!
//! Written from the same chapter of the documentation as the decoder but sharing no code
//! with it. Takes what [`Message`](super::Message) gives, with values owned.

/// A value of a row to be encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Unchanged,
    Text(Vec<u8>),
    Binary(Vec<u8>),
}

/// A column of a relation to be encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnOf {
    pub name: String,
    pub type_oid: u32,
    pub typmod: i32,
    pub is_key: bool,
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn new(kind: u8) -> Self {
        Writer(vec![kind])
    }

    fn put(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn string(self, text: &str) -> Self {
        self.put(text.as_bytes()).put(&[0])
    }

    fn tuple(mut self, values: &[Value]) -> Self {
        self = self.put(&u16::try_from(values.len()).unwrap().to_be_bytes());
        for value in values {
            self = match value {
                Value::Null => self.put(b"n"),
                Value::Unchanged => self.put(b"u"),
                Value::Text(bytes) => self.put(b"t").counted(bytes),
                Value::Binary(bytes) => self.put(b"b").counted(bytes),
            };
        }
        self
    }

    fn counted(self, bytes: &[u8]) -> Self {
        self.put(&u32::try_from(bytes.len()).unwrap().to_be_bytes()).put(bytes)
    }
}

pub(crate) fn begin(final_lsn: u64, commit_time_us: i64, xid: u32) -> Vec<u8> {
    Writer::new(b'B').put(&final_lsn.to_be_bytes()).put(&commit_time_us.to_be_bytes()).put(&xid.to_be_bytes()).0
}

pub(crate) fn commit(commit_lsn: u64, end_lsn: u64, commit_time_us: i64) -> Vec<u8> {
    let writer = Writer::new(b'C').put(&[0]).put(&commit_lsn.to_be_bytes());
    writer.put(&end_lsn.to_be_bytes()).put(&commit_time_us.to_be_bytes()).0
}

pub(crate) fn origin(commit_lsn: u64, name: &str) -> Vec<u8> {
    Writer::new(b'O').put(&commit_lsn.to_be_bytes()).string(name).0
}

pub(crate) fn relation(id: u32, namespace: &str, name: &str, identity: u8, columns: &[ColumnOf]) -> Vec<u8> {
    let mut writer = Writer::new(b'R').put(&id.to_be_bytes()).string(namespace).string(name).put(&[identity]);
    writer = writer.put(&u16::try_from(columns.len()).unwrap().to_be_bytes());
    for column in columns {
        writer = writer.put(&[u8::from(column.is_key)]).string(&column.name);
        writer = writer.put(&column.type_oid.to_be_bytes()).put(&column.typmod.to_be_bytes());
    }
    writer.0
}

pub(crate) fn type_name(id: u32, namespace: &str, name: &str) -> Vec<u8> {
    Writer::new(b'Y').put(&id.to_be_bytes()).string(namespace).string(name).0
}

pub(crate) fn insert(relation: u32, new: &[Value]) -> Vec<u8> {
    Writer::new(b'I').put(&relation.to_be_bytes()).put(b"N").tuple(new).0
}

/// `old`: the kind (K or O) and the row before.
pub(crate) fn update(relation: u32, old: Option<(u8, &[Value])>, new: &[Value]) -> Vec<u8> {
    let mut writer = Writer::new(b'U').put(&relation.to_be_bytes());
    if let Some((kind, old)) = old {
        writer = writer.put(&[kind]).tuple(old);
    }
    writer.put(b"N").tuple(new).0
}

pub(crate) fn delete(relation: u32, kind: u8, old: &[Value]) -> Vec<u8> {
    Writer::new(b'D').put(&relation.to_be_bytes()).put(&[kind]).tuple(old).0
}

pub(crate) fn truncate(options: u8, relations: &[u32]) -> Vec<u8> {
    let mut writer = Writer::new(b'T').put(&u32::try_from(relations.len()).unwrap().to_be_bytes()).put(&[options]);
    for relation in relations {
        writer = writer.put(&relation.to_be_bytes());
    }
    writer.0
}

pub(crate) fn logical_message(transactional: bool, lsn: u64, prefix: &str, content: &[u8]) -> Vec<u8> {
    Writer::new(b'M').put(&[u8::from(transactional)]).put(&lsn.to_be_bytes()).string(prefix).counted(content).0
}
