//! Day partitions of `realtime.messages` (database.md 13).
//!
//! Created at the start of a tenant's database side and daily, dropped when they are old; without one for today neither
//! checks nor `realtime.send` work. Both operations may run at any time, again, and on several nodes at once. One partition
//! that fails does not stop the others. The UTC date is an argument.

use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, Duration, Month};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use super::failure::DatabaseFailure;

/// Days before today that get a partition: clocks and session time zones differ.
const DAYS_BEFORE: i64 = 1;

/// Days after today that get a partition, so that a few missed runs do no harm.
const DAYS_AFTER: i64 = 3;

/// Messages are kept 72 h at least; partitions dated before that many days ago are dropped.
const DAYS_KEPT: i64 = 3;

/// Every partition belongs to this role.
const OWNER: &str = "supabase_realtime_admin";

/// Start of a transaction. A statement that waits for the table's lock makes every insert wait behind it, so it does not
/// wait long.
const BEGIN: &str = "begin read write; set local lock_timeout = '2s'";

const NAME_FORMAT: &[BorrowedFormatItem<'_>] = format_description!("messages_[year]_[month]_[day]");
const DAY_FORMAT: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

/// The children of `realtime.messages`, and which of them have the right owner.
const SELECT_CHILDREN: &str = "select child.relname::text, pg_catalog.pg_get_userbyid(child.relowner) = $1 \
     from pg_catalog.pg_inherits \
     join pg_catalog.pg_class parent on parent.oid = inhparent join pg_catalog.pg_class child on child.oid = inhrelid \
     where parent.relname = 'messages' and parent.relnamespace = pg_catalog.to_regnamespace('realtime') \
     and child.relnamespace = parent.relnamespace";

/// A partition that could not be created or dropped (`PartitionCreationFailed`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionFailure {
    /// Its name, without the schema; empty when the existing ones could not be listed.
    pub partition: String,
    /// Why.
    pub failure: DatabaseFailure,
}

/// Creates the partitions from yesterday to in three days. Existing ones are left alone.
///
/// # Errors
/// One entry for every partition that is missing now.
pub async fn create(client: &Client, today: Date) -> Result<(), Vec<PartitionFailure>> {
    let children = children(client).await.map_err(|failure| vec![failure])?;
    let mut failures = Vec::new();
    for day in (-DAYS_BEFORE..=DAYS_AFTER).filter_map(|days| today.checked_add(Duration::days(days))) {
        let Some((name, statements)) = creation(day) else { continue };
        let complete = children.iter().any(|(child, owned)| *child == name && *owned);
        if complete {
            continue;
        }
        let mut outcome = transact(client, &statements).await;
        if outcome.as_ref().is_err_and(lost_race) {
            // Another node was faster. `if not exists` sees its partition now.
            outcome = transact(client, &statements).await;
        }
        if let Err(error) = outcome {
            failures.push(PartitionFailure { partition: name, failure: DatabaseFailure::from(&error) });
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}

/// What [`drop_old`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Partitions that are gone.
    pub partitions: Vec<String>,
    /// Partitions that are old and still there.
    pub failures: Vec<PartitionFailure>,
}

/// Drops the partitions dated before three days ago. Children with other names are not ours and stay.
pub async fn drop_old(client: &Client, today: Date) -> Dropped {
    let mut dropped = Dropped::default();
    let children = match children(client).await {
        Ok(children) => children,
        Err(failure) => return Dropped { failures: vec![failure], ..dropped },
    };
    let Some(oldest_kept) = today.checked_sub(Duration::days(DAYS_KEPT)) else { return dropped };
    for (name, _) in children {
        // A name that is a date needs no quoting.
        if day_of(&name).is_none_or(|day| day >= oldest_kept) {
            continue;
        }
        let statement = format!("drop table if exists realtime.{name}");
        let mut outcome = transact(client, &statement).await;
        if outcome.as_ref().is_err_and(lost_race) {
            outcome = transact(client, &statement).await;
        }
        match outcome {
            Ok(()) => dropped.partitions.push(name),
            Err(error) => {
                dropped.failures.push(PartitionFailure { partition: name, failure: DatabaseFailure::from(&error) });
            }
        }
    }
    dropped
}

/// Names of all children, and whether they have the right owner.
async fn children(client: &Client) -> Result<Vec<(String, bool)>, PartitionFailure> {
    let rows = client.query(SELECT_CHILDREN, &[&OWNER]).await;
    let children = rows.and_then(|rows| rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect());
    children.map_err(|error: Error| PartitionFailure { partition: String::new(), failure: DatabaseFailure::from(&error) })
}

/// Name and statements of the partition of a day; `None` for the last day there is.
fn creation(day: Date) -> Option<(String, String)> {
    let name = day.format(NAME_FORMAT).ok()?;
    let from = day.format(DAY_FORMAT).ok()?;
    let to = day.next_day()?.format(DAY_FORMAT).ok()?;
    let statements = format!(
        "create table if not exists realtime.{name} partition of realtime.messages for values from ('{from}') to ('{to}'); \
         alter table realtime.{name} owner to {OWNER}"
    );
    Some((name, statements))
}

/// The day in the name of one of our partitions; `None` for any other name.
fn day_of(name: &str) -> Option<Date> {
    let mut parts = name.strip_prefix("messages_")?.split('_');
    let mut digits = |length: usize| {
        let part = parts.next()?;
        (part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse::<u16>().ok()).flatten()
    };
    let (year, month, day) = (digits(4)?, u8::try_from(digits(2)?).ok()?, u8::try_from(digits(2)?).ok()?);
    if parts.next().is_some() {
        return None;
    }
    Date::from_calendar_date(i32::from(year), Month::try_from(month).ok()?, day).ok()
}

/// Runs statements in one transaction and leaves the session outside of any, if it still works.
async fn transact(client: &Client, statements: &str) -> Result<(), Error> {
    let outcome = client.batch_execute(&format!("{BEGIN}; {statements}; commit")).await;
    if outcome.is_err() {
        client.batch_execute("rollback").await?;
    }
    outcome
}

/// What statements of two sessions that create or drop the same table can run into. `INTERNAL_ERROR` is "tuple concurrently
/// updated" (or deleted), which has no code of its own.
fn lost_race(error: &Error) -> bool {
    matches!(
        error.code(),
        Some(
            &SqlState::DUPLICATE_TABLE
                | &SqlState::DUPLICATE_OBJECT
                | &SqlState::UNIQUE_VIOLATION
                | &SqlState::UNDEFINED_TABLE
                | &SqlState::T_R_DEADLOCK_DETECTED
                | &SqlState::INTERNAL_ERROR
        )
    )
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::super::authorization::testing::{fixture_client, settings, table_without_partitions};
    use super::super::pool::DatabasePool;
    use super::*;

    const TODAY: Date = date!(2024 - 02 - 28);

    async fn names(client: &Client) -> Vec<String> {
        let rows = client.query(
            "select inhrelid::regclass::text from pg_inherits join pg_class on oid = inhparent \
             where relname = 'messages' and relkind = 'p' order by 1",
            &[],
        );
        rows.await.unwrap().iter().map(|row| row.get(0)).collect()
    }

    fn days(days: &[&str]) -> Vec<String> {
        days.iter().map(|day| format!("realtime.messages_2024_{day}")).collect()
    }

    #[tokio::test]
    async fn five_days_are_created_once_and_owned_by_the_role() {
        let name = table_without_partitions().await;
        let client = fixture_client(&name).await;
        assert_eq!(create(&client, TODAY).await, Ok(()));
        assert_eq!(names(&client).await, days(&["02_27", "02_28", "02_29", "03_01", "03_02"]));
        client.batch_execute("alter table realtime.messages_2024_02_29 owner to postgres").await.unwrap();
        assert_eq!(create(&client, TODAY).await, Ok(()), "again");
        let foreign = "select count(*) from pg_class where relname like 'messages\\_2024%' and relkind = 'r' \
                       and relowner <> 'supabase_realtime_admin'::regrole";
        assert_eq!(client.query_one(foreign, &[]).await.unwrap().get::<_, i64>(0), 0, "the owner is put right");
        let bounds = "select pg_get_expr(relpartbound, oid) from pg_class where relname = 'messages_2024_02_29'";
        let bounds: String = client.query_one(bounds, &[]).await.unwrap().get(0);
        assert_eq!(bounds, "FOR VALUES FROM ('2024-02-29 00:00:00') TO ('2024-03-01 00:00:00')");
    }

    #[tokio::test]
    async fn two_nodes_may_create_and_drop_at_once() {
        let name = table_without_partitions().await;
        let (one, two) = (fixture_client(&name).await, fixture_client(&name).await);
        for week in 0..4 {
            let today = TODAY + Duration::weeks(week);
            assert_eq!(tokio::join!(create(&one, today), create(&two, today)), (Ok(()), Ok(())), "week {week}");
            let later = today + Duration::days(8);
            let (first, second) = tokio::join!(drop_old(&one, later), drop_old(&two, later));
            assert_eq!((first.failures, second.failures), (Vec::new(), Vec::new()), "week {week}");
            assert_eq!(names(&one).await, Vec::<String>::new());
        }
    }

    #[tokio::test]
    async fn a_partition_in_the_way_fails_alone() {
        let name = table_without_partitions().await;
        let client = fixture_client(&name).await;
        let overlapping = "create table realtime.mine partition of realtime.messages \
                           for values from ('2024-02-28 12:00') to ('2024-02-28 13:00')";
        client.batch_execute(overlapping).await.unwrap();
        let failures = create(&client, TODAY).await.unwrap_err();
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!(failures[0].partition, "messages_2024_02_28");
        assert!(matches!(&failures[0].failure, DatabaseFailure::RlsPolicy(text) if text.contains("overlap")), "{failures:?}");
        assert_eq!(names(&client).await.len(), 5, "the other four and the one in the way");
    }

    #[tokio::test]
    async fn only_old_partitions_with_our_names_are_dropped() {
        let name = table_without_partitions().await;
        let client = fixture_client(&name).await;
        create(&client, date!(2024 - 02 - 24)).await.unwrap(); // 23, 24, 25, 26, 27
        for (child, from, to) in [("mine", "2001-01-01", "2001-01-02"), ("messages_2001_13_01", "2001-01-02", "2001-01-03")] {
            let sql =
                format!("create table realtime.{child} partition of realtime.messages for values from ('{from}') to ('{to}')");
            client.batch_execute(&sql).await.unwrap();
        }
        let dropped = drop_old(&client, TODAY).await;
        assert_eq!(
            dropped,
            Dropped {
                partitions: vec!["messages_2024_02_23".to_owned(), "messages_2024_02_24".to_owned()],
                failures: Vec::new()
            }
        );
        assert_eq!(names(&client).await.len(), 5);
        assert_eq!(drop_old(&client, TODAY).await, Dropped::default());
    }

    #[test]
    fn only_names_that_are_dates_are_ours() {
        assert_eq!(day_of("messages_2024_02_29"), Some(date!(2024 - 02 - 29)));
        for name in [
            "messages_2023_02_29",
            "messages_2024_2_9",
            "messages_2024_02_29_x",
            "messages_2024_02",
            "x_2024_02_29",
            "messages_+024_02_01",
        ] {
            assert_eq!(day_of(name), None, "{name}");
        }
    }

    #[tokio::test]
    async fn the_read_only_sessions_of_the_pool_will_do() {
        let pool = DatabasePool::new(settings(&table_without_partitions().await));
        let lease = pool.lease().await.unwrap();
        assert_eq!(create(&lease, TODAY).await, Ok(()));
        lease.finish();
    }

    #[tokio::test]
    async fn without_the_table_every_partition_fails() {
        let client = fixture_client(&crate::local_postgres::testing::server().database().await).await;
        assert_eq!(create(&client, TODAY).await.unwrap_err().len(), 5);
        assert_eq!(drop_old(&client, TODAY).await, Dropped::default());
    }
}
