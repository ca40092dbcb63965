-- Role supabase_realtime_admin, schema realtime and who may enter it.
--
-- Roles are shared by all databases of a cluster while the migration lock is per database. So nothing is altered that is
-- already right, and whoever must alter something first locks the catalog of roles and looks again.
do $$
declare
  attempt integer;
  ready boolean;
begin
  for attempt in 1..2 loop
    ready := exists (
        select from pg_roles r
        where r.rolname = 'supabase_realtime_admin'
          and not (r.rolsuper or r.rolinherit or r.rolcreaterole or r.rolcreatedb or r.rolcanlogin or r.rolreplication
            or r.rolbypassrls)
          and exists (
            select from pg_db_role_setting s
            where s.setrole = r.oid and s.setdatabase = 0 and 'search_path=public, extensions, realtime' = any (s.setconfig))
          and 3 = (
            select count(distinct g.rolname) from pg_auth_members m join pg_roles g on g.oid = m.roleid
            where m.member = r.oid and g.rolname in ('anon', 'authenticated', 'service_role')));
    if ready and current_setting('server_version_num')::integer >= 150000 then
      ready := has_parameter_privilege('supabase_realtime_admin', 'log_min_messages', 'SET');
    end if;
    exit when ready;
    if attempt = 1 then
      lock table pg_catalog.pg_authid in share row exclusive mode;
    end if;
  end loop;
  if ready then
    return;
  end if;

  if not exists (select from pg_roles where rolname = 'supabase_realtime_admin') then
    create role supabase_realtime_admin;
  end if;
  alter role supabase_realtime_admin nosuperuser noinherit nocreaterole nocreatedb nologin noreplication nobypassrls;
  alter role supabase_realtime_admin set search_path = public, extensions, realtime;
  grant anon, authenticated, service_role to supabase_realtime_admin;
  -- Setting a parameter became a grantable right in version 15; the owner of list_changes needs it.
  if current_setting('server_version_num')::integer >= 150000 then
    execute 'grant set on parameter log_min_messages to supabase_realtime_admin';
  end if;
end $$;

create schema if not exists realtime authorization supabase_admin;

do $$
begin
  if not exists (
    select from pg_namespace where nspname = 'realtime' and nspowner = 'supabase_admin'::regrole
  ) then
    alter schema realtime owner to supabase_admin;
  end if;
end $$;

grant usage on schema realtime to anon, authenticated, service_role;
grant usage on schema realtime to postgres with grant option;
grant create, usage on schema realtime to supabase_realtime_admin with grant option;

alter default privileges for role supabase_admin in schema realtime grant all on tables to postgres, dashboard_user;
alter default privileges for role supabase_admin in schema realtime grant all on sequences to postgres, dashboard_user;
alter default privileges for role supabase_admin in schema realtime grant all on functions to postgres, dashboard_user;

-- Where the platform lets users write policies without owning the tables, postgres stays out of the owning role.
do $$
declare
  policy_grants text := coalesce(current_setting('supautils.policy_grants', true), '');
begin
  if position('realtime.messages' in policy_grants) > 0 and position('realtime.subscription' in policy_grants) > 0 then
    revoke supabase_realtime_admin from postgres;
    revoke create on schema realtime from postgres;
  end if;
end $$;
