//! A database with the functions of `realtime`, and values made up at random, for the tests of values and filters.

use std::fmt::Write as _;
use std::rc::Rc;

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::{TypeInfo, load};
use crate::control::database::migrations;
use crate::local_postgres::testing::server;

/// A session in a database of its own, set up as a walsender's.
pub async fn session() -> Client {
    let url = format!("{}/{}", server().url(), server().database().await);
    let (mut client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    migrations::run(&mut client).await.unwrap();
    client.batch_execute("set timezone = 'UTC'; set datestyle = 'ISO'; set bytea_output = hex").await.unwrap();
    client
}

/// Rows of a statement, as text in the output format of each column's type.
pub async fn rows(client: &Client, sql: &str) -> Vec<Vec<Option<String>>> {
    let answer = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{error:?} in {:.2000}", sql));
    let row = |message: SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
        _ => None,
    };
    answer.into_iter().filter_map(row).collect()
}

/// The description of a type by its name in SQL.
pub async fn type_named(client: &Client, name: &str) -> Rc<TypeInfo> {
    let found = rows(client, &format!("select {}::regtype::oid", quoted(name))).await;
    let oid = found[0][0].as_ref().unwrap().parse().unwrap();
    load(client, &[oid]).await.unwrap().remove(&oid).unwrap()
}

/// A literal of SQL.
pub fn quoted(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Numbers that look random and are the same in every run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Up to `length` characters of those that need care somewhere.
    pub fn text(&mut self, length: u64) -> String {
        const CHARACTERS: [char; 24] = [
            'a', 'b', 'A', '0', ' ', ',', '"', '\\', '{', '}', '(', ')', '\'', '%', '_', '\n', '\t', '\u{1}', '\u{7f}', 'é',
            '漢', '😀', '\u{2028}', '/',
        ];
        (0..self.below(length + 1)).map(|_| CHARACTERS[self.below(24) as usize]).collect()
    }

    /// A text that resembles one of `texts`, or none.
    pub fn near(&mut self, texts: &[&str]) -> String {
        let mut text: Vec<char> = texts[self.below(texts.len() as u64) as usize].chars().collect();
        for _ in 0..self.below(4) {
            let at = self.below(text.len() as u64 + 1) as usize;
            let with: Vec<char> = self.text(3).chars().collect();
            let end = (at + self.below(3) as usize).min(text.len());
            text.splice(at..end, with);
        }
        text.into_iter().collect()
    }

    pub fn decimal(&mut self) -> String {
        let mut text = if self.below(2) == 0 { "-".to_owned() } else { String::new() };
        for _ in 0..=self.below(25) {
            text.push(char::from(b'0' + self.below(10) as u8));
        }
        if self.below(2) == 0 {
            text.push('.');
            for _ in 0..=self.below(12) {
                text.push(char::from(b'0' + self.below(10) as u8));
            }
        }
        text
    }

    /// A document with duplicates, exponents and escapes.
    pub fn document(&mut self, depth: u64) -> String {
        let leaf = depth == 0 || self.below(3) == 0;
        let space = [" ", "", "\n"][self.below(3) as usize];
        match self.below(2) {
            _ if leaf => match self.below(6) {
                0 => "null".to_owned(),
                1 => "true".to_owned(),
                2 => format!("{}e{}", self.next() as i32, self.below(40) as i64 - 20),
                3 => format!("{}.{}E-{}", self.next() as i16, self.below(1000), self.below(4)),
                _ => serde_json::to_string(&self.text(6)).unwrap().replace("é", "\\u00e9").replace("😀", "\\ud83d\\uDE00"),
            },
            0 => {
                let mut text = "[".to_owned();
                for nth in 0..self.below(4) {
                    let comma = if nth > 0 { "," } else { "" };
                    write!(text, "{comma}{space}{}", self.document(depth - 1)).unwrap();
                }
                text + "]"
            }
            _ => {
                let mut text = "{".to_owned();
                for nth in 0..self.below(5) {
                    let comma = if nth > 0 { "," } else { "" };
                    let key = ["\"a\"", "\"b\"", "\"\\u0061\"", "\"é\"", "\"aa\"", "\"\"", "\"漢字\""][self.below(7) as usize];
                    write!(text, "{comma}{key}{space}:{space}{}", self.document(depth - 1)).unwrap();
                }
                text + "}"
            }
        }
    }
}
