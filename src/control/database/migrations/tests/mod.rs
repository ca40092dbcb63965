//! Tests against a real Postgres: the installed catalog, convergence from older layouts, and what the functions do.

mod broadcast;
mod changes;
mod converge;
mod filters;
mod inventory;
mod running;

use std::future::poll_fn;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};

use crate::local_postgres::testing::server;

/// A session with what the server warned it of.
struct Session {
    client: Client,
    notices: UnboundedReceiver<String>,
}

/// Opens a session on a database of the test server.
async fn connect(database: &str) -> Session {
    let (client, mut connection) = tokio_postgres::connect(&format!("{}/{database}", server().url()), NoTls).await.unwrap();
    let (sender, notices) = unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notice(notice) = message {
                let _ = sender.send(format!("{}: {}", notice.severity(), notice.message()));
            }
        }
    });
    Session { client, notices }
}

/// A session on a database of its own that nothing was installed in.
async fn empty() -> Session {
    connect(&server().database().await).await
}

/// A session on a database of its own, migrated.
async fn migrated() -> Session {
    let mut session = empty().await;
    super::run(&mut session.client).await.unwrap();
    session.client.batch_execute("set timezone = 'UTC'").await.unwrap();
    session
}

impl Session {
    async fn execute(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Rows as text, columns separated by `|`; null is the word `null`.
    async fn lines(&self, sql: &str) -> Vec<String> {
        let answer = self.client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let line = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).unwrap_or("null")).collect::<Vec<_>>().join("|"))
            }
            _ => None,
        };
        answer.iter().filter_map(line).collect()
    }

    /// The one value of the one row.
    async fn value(&self, sql: &str) -> String {
        let lines = self.lines(sql).await;
        assert_eq!(lines.len(), 1, "{sql}");
        lines.into_iter().next().unwrap()
    }

    /// SQLSTATE and message of the failure of a statement.
    async fn refusal(&self, sql: &str) -> (String, String) {
        let error = self.client.batch_execute(sql).await.expect_err(sql);
        let refusal = error.as_db_error().unwrap();
        (refusal.code().code().to_owned(), refusal.message().to_owned())
    }

    /// Warnings since the last call.
    fn warnings(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.notices.try_recv().ok()).collect()
    }

    /// Partition for today, as the server would create it.
    async fn partition_of_today(&self) {
        self.execute(
            "do $$ begin execute format('create table realtime.%I partition of realtime.messages for values from (%L) to (%L)',
             'messages_' || to_char(current_date, 'YYYY_MM_DD'), current_date, current_date + 1); end $$",
        )
        .await;
    }
}
