-- The table by whose number of rows every server decides whether a database is up to date. Nobody but its owner uses it.
create table if not exists realtime.schema_migrations (
  version bigint not null,
  inserted_at timestamp(0) without time zone,
  constraint schema_migrations_pkey primary key (version)
);
alter table realtime.schema_migrations owner to supabase_admin;
revoke all on realtime.schema_migrations
  from postgres, dashboard_user, anon, authenticated, service_role, supabase_realtime_admin;

-- The lock other servers take while they migrate.
lock table realtime.schema_migrations in share update exclusive mode;
