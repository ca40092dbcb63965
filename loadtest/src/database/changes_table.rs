//! The table whose changes are measured: made anew for a run, published, dropped at its end.
//!
//! Rows are numbered by their primary key. With row-level security a policy decides about every row and user, and
//! every row is shared, so all users see all of them. The table goes when its guard does; what a killed run left
//! behind is dropped by the next. The guard's connection also counts the transactions of the database.

use super::{Database, answer};
use crate::client::LoadError;
use tokio_postgres::SimpleQueryMessage;

/// Inserts the notes $1 under the numbers from $2 on; `n` is the number modulo $3. One statement, one transaction.
pub const ROWS_INSERT: &str = "insert into public.swarm_changes (id, note, n) \
    select $2::bigint + at - 1, note, (($2::bigint + at - 1) % $3::bigint)::int \
    from unnest($1::text[]) with ordinality as one (note, at)";
/// The owner is nobody: only `shared` makes a row visible.
const MAKE: &str = "
    drop table if exists public.swarm_changes;
    create table public.swarm_changes (
        id bigint primary key,
        owner uuid not null default 'ffffffff-ffff-4fff-bfff-ffffffffffff',
        note text not null,
        n int not null,
        shared boolean not null default true);
    grant select on public.swarm_changes to authenticated;
    do $$ begin
        if not (select puballtables from pg_publication where pubname = 'supabase_realtime') then
            alter publication supabase_realtime add table public.swarm_changes;
        end if;
    end $$;";
const SECURE: &str = "
    alter table public.swarm_changes enable row level security;
    create policy swarm_changes_select on public.swarm_changes for select to authenticated
        using (owner = auth.uid() or shared);";
const DROP: &str = "drop table if exists public.swarm_changes";
/// What the own connection has done so far must be in the statistics before they are read.
const COUNT_OWN: &str = "select pg_stat_force_next_flush()";
const COUNT_ALL: &str = "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()";
/// Transactions of [`ChangesTable::transactions`] that appear in the next count only: [`COUNT_ALL`] of this one and
/// [`COUNT_OWN`] of the next.
const OWN_BETWEEN_COUNTS: u64 = 2;

/// The table, until it is dropped.
pub struct ChangesTable {
    database: Database,
    standing: bool,
}

impl ChangesTable {
    pub(super) fn make(database: Database, secured: bool) -> Result<Self, LoadError> {
        let table = Self { database, standing: true };
        table.run("cannot make public.swarm_changes (--database needs a superuser)", MAKE)?;
        if secured {
            table.run("cannot secure public.swarm_changes", SECURE)?;
        }
        Ok(table)
    }

    fn run(&self, what: &str, statements: &str) -> Result<(), LoadError> {
        self.database.runtime.block_on(answer(what, self.database.client.batch_execute(statements)))
    }

    /// Transactions of the database so far, of all connections. Backends report theirs up to 10 s late.
    ///
    /// # Errors
    /// When the database does not answer, or is older than Postgres 15.
    fn transactions(&self) -> Result<u64, LoadError> {
        let what = "cannot count transactions (needs Postgres 15)";
        self.run(what, COUNT_OWN)?;
        let messages = self.database.runtime.block_on(answer(what, self.database.client.simple_query(COUNT_ALL)))?;
        let count = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
            _ => None,
        };
        messages.iter().find_map(count).ok_or_else(|| LoadError::Wrong(format!("{what}: no count came")))
    }

    /// Transactions of others in this database while `meanwhile` runs.
    ///
    /// # Errors
    /// What `meanwhile` fails with, or when transactions cannot be counted.
    pub fn transactions_during(&self, meanwhile: impl FnOnce() -> Result<(), LoadError>) -> Result<u64, LoadError> {
        let before = self.transactions()?;
        meanwhile()?;
        Ok(self.transactions()?.saturating_sub(before + OWN_BETWEEN_COUNTS))
    }

    /// Drops the table.
    ///
    /// # Errors
    /// When the database refuses it.
    pub fn remove(mut self) -> Result<(), LoadError> {
        self.standing = false;
        self.run("cannot drop public.swarm_changes", DROP)
    }
}

impl Drop for ChangesTable {
    /// For runs that fail: their own error matters more than this one.
    fn drop(&mut self) {
        if self.standing {
            self.run("cannot drop public.swarm_changes", DROP).ok();
        }
    }
}
