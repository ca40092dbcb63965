-- Makes an empty database look like one of a Supabase project, as far as a Realtime server and the policies of applications
-- can tell. Run by a superuser; may be run again. The server's own objects (schema realtime) come with its migrations.

-- Roles belong to the whole cluster. None gets a password: who may connect is up to whoever made the cluster.
do $roles$
declare
  wanted record;
begin
  for wanted in
    select * from (values
      ('postgres', 'login superuser createdb createrole replication bypassrls'),
      ('supabase_admin', 'login superuser createdb createrole replication bypassrls'),
      ('anon', 'nologin noinherit'),
      ('authenticated', 'nologin noinherit'),
      ('service_role', 'nologin noinherit bypassrls'),
      ('authenticator', 'login noinherit'),
      ('dashboard_user', 'nologin createdb createrole replication'),
      ('supabase_realtime_admin', 'nologin noinherit')
    ) as role (name, options)
  loop
    continue when exists (select from pg_catalog.pg_roles where rolname = wanted.name);
    execute format('create role %I %s', wanted.name, wanted.options);
  end loop;
end
$roles$;

grant anon, authenticated, service_role, supabase_admin to authenticator;
grant anon, authenticated, service_role to supabase_realtime_admin;

-- Timestamps are printed in the session's time zone.
do $zone$
begin
  execute format('alter database %I set timezone to %L', current_database(), 'UTC');
end
$zone$;

create schema if not exists extensions;
create schema if not exists auth authorization supabase_admin;
create schema if not exists realtime authorization supabase_admin;

-- Some installations come without them, and nothing here needs them.
do $extensions$
declare
  wanted text;
begin
  for wanted in
    select name from pg_catalog.pg_available_extensions where name in ('pgcrypto', 'uuid-ossp') and installed_version is null
  loop
    execute format('create extension %I with schema extensions', wanted);
  end loop;
end
$extensions$;

grant usage on schema public, extensions, auth to anon, authenticated, service_role;
grant all on schema public to postgres, supabase_admin;

-- Who is asking. Sessions that carry a token have its claims in `request.jwt.claims`; all others have none.
create or replace function auth.jwt() returns jsonb language sql stable as $body$
  select cast(nullif(current_setting('request.jwt.claims', true), '') as jsonb)
$body$;

create or replace function auth.uid() returns uuid language sql stable as $body$
  select cast(auth.jwt() ->> 'sub' as uuid)
$body$;

create or replace function auth.role() returns text language sql stable as $body$
  select auth.jwt() ->> 'role'
$body$;

grant execute on function auth.jwt(), auth.uid(), auth.role() to anon, authenticated, service_role;

-- What an administrator creates in `public` is within reach of the API's roles; row-level security decides about the rows.
do $defaults$
declare
  creator text;
  kind text;
begin
  foreach creator in array array['postgres', 'supabase_admin'] loop
    foreach kind in array array['tables', 'sequences', 'functions'] loop
      execute format(
        'alter default privileges for role %I in schema public grant all on %s to postgres, anon, authenticated, service_role',
        creator, kind
      );
    end loop;
  end loop;
end
$defaults$;

-- The tables clients may subscribe to: none at first.
do $publication$
begin
  if not exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
  end if;
end
$publication$;
