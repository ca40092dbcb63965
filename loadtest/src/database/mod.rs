//! The tenant's Postgres as the generator uses it: policies or a table for the run, and rows inserted by SQL.
//!
//! Scenarios with a database flatten [`DatabaseArgs`] into their arguments and call [`DatabaseArgs::open`], which makes
//! the policies of topics, or [`DatabaseArgs::make_table`]. A [`Database`] is one connection and the runtime that drives
//! it; an [`Inserter`] takes it to a thread of its own. Every statement has a deadline. Errors name what was being done and never repeat the URL.

mod changes_table;
mod inserter;

pub use changes_table::{ChangesTable, ROWS_INSERT};
pub use inserter::{Inserted, Inserter, Pace, Rows};

use crate::client::LoadError;
use crate::measure::PostgresProbe;
use clap::Args;
use std::future::{Future, poll_fn};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::{self, Runtime};
use tokio_postgres::error::Severity;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Socket};

/// Names of all topics begin with this; the policies allow nothing else.
pub const TOPIC_PREFIX: &str = "load:";
/// Role of the tokens, to which the policies apply.
pub const ROLE: &str = "authenticated";
/// Longest wait for one answer of the database; inserts of a batch take milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Whoever may join a topic `load:…` of this tenant. The prefix is [`TOPIC_PREFIX`].
const POLICIES: &str = "
    drop policy if exists swarm_select on realtime.messages;
    drop policy if exists swarm_insert on realtime.messages;
    create policy swarm_select on realtime.messages for select to authenticated using (realtime.topic() like 'load:%');
    create policy swarm_insert on realtime.messages for insert to authenticated with check (realtime.topic() like 'load:%');";

/// Which database, and which processes it is.
#[derive(Debug, Clone, Args)]
pub struct DatabaseArgs {
    /// The tenant's database as a superuser, e.g. postgres://postgres@127.0.0.1:5432/postgres; without TLS.
    #[arg(long, value_name = "URL")]
    pub database: String,
    /// Process id of the postmaster: adds the CPU time of all processes of this Postgres to the result.
    #[arg(long, value_name = "PID")]
    pub postgres_pid: Option<u32>,
}

impl DatabaseArgs {
    /// Connects and makes the policies.
    ///
    /// # Errors
    /// When the database cannot be reached, or the server has not prepared it yet.
    pub fn open(&self) -> Result<Database, LoadError> {
        let mut database = self.connect()?;
        database.prepare()?;
        Ok(database)
    }

    /// Connects and does nothing else.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub fn connect(&self) -> Result<Database, LoadError> {
        Database::connect(&self.database)
    }

    /// Makes the table whose changes are measured, `secured` with row-level security.
    ///
    /// # Errors
    /// When the database cannot be reached or refuses it.
    pub fn make_table(&self, secured: bool) -> Result<ChangesTable, LoadError> {
        ChangesTable::make(self.connect()?, secured)
    }

    /// The probe of the processes, if they are to be measured.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn probe(&self) -> Result<Option<PostgresProbe>, LoadError> {
        let watch =
            |pid: u32| PostgresProbe::new(pid).map_err(LoadError::io(format!("cannot watch process {pid} (--postgres-pid)")));
        self.postgres_pid.map(watch).transpose()
    }
}

/// One connection to the tenant's database, driven by a runtime of its own.
pub struct Database {
    runtime: Runtime,
    client: Client,
    warning: Warning,
}

/// The first warning of the connection: `realtime.send` raises one instead of failing.
type Warning = Arc<Mutex<Option<String>>>;

impl Database {
    fn connect(url: &str) -> Result<Self, LoadError> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(LoadError::io("cannot start a runtime for the database"))?;
        let what = "cannot connect to the database (--database)";
        let (client, connection) = runtime.block_on(answer(what, tokio_postgres::connect(url, NoTls)))?;
        let warning = Warning::default();
        runtime.spawn(drive(connection, Arc::clone(&warning)));
        Ok(Self { runtime, client, warning })
    }

    fn prepare(&mut self) -> Result<(), LoadError> {
        let question = "select to_regclass('realtime.messages') is not null";
        let what = "cannot look for realtime.messages";
        let row = self.runtime.block_on(answer(what, self.client.query_one(question, &[])))?;
        if !row.get::<_, bool>(0) {
            let why = "the database has no realtime.messages: make it the tenant's database first (--database)";
            return Err(LoadError::Argument(why.to_owned()));
        }
        let what = "cannot make the policies on realtime.messages (--database needs a superuser)";
        self.runtime.block_on(answer(what, self.client.batch_execute(POLICIES)))
    }
}

/// Waits for `asked`, at most [`ANSWER_TIMEOUT`].
async fn answer<T>(what: &str, asked: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, LoadError> {
    match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
        Ok(outcome) => outcome.map_err(LoadError::database(what)),
        Err(_) => Err(LoadError::Stalled(format!("{what}: no answer of the database for 30 s"))),
    }
}

/// Runs the connection until it ends and keeps its first warning. A failure shows in the statement that meets it.
async fn drive(mut connection: Connection<Socket, NoTlsStream>, warning: Warning) {
    while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
        if let AsyncMessage::Notice(notice) = message
            && notice.parsed_severity() == Some(Severity::Warning)
        {
            warning.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| notice.message().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policies_are_for_the_topics_and_the_role_of_the_run() {
        assert_eq!(POLICIES.matches(&format!("like '{TOPIC_PREFIX}%'")).count(), 2);
        assert_eq!(POLICIES.matches(&format!(" to {ROLE} ")).count(), 2);
    }

    #[test]
    fn a_database_that_is_not_there_is_named_without_its_password() {
        let arguments = DatabaseArgs { database: "postgres://u:hunter2@127.0.0.1:1/x".to_owned(), postgres_pid: None };
        let told = arguments.open().err().unwrap().to_string();
        assert!(told.contains("--database") && !told.contains("hunter2"), "{told}");
        assert!(arguments.probe().unwrap().is_none());
        assert!(DatabaseArgs { postgres_pid: Some(u32::MAX), ..arguments }.probe().is_err());
    }
}
