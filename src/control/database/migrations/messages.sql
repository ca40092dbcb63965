-- Table realtime.messages: partitioned by day, written by realtime.send and by servers, guarded by the user's policies.
--
-- A table of today's partitioning and column types gets what it lacks. Any other is made anew: rows, policies and rights
-- move over, and only for the days of those rows partitions are created. Rows without a topic cannot be kept.

-- Publications of older servers. The one in use is created again by the replication connection.
do $$
declare
  leftover name;
begin
  for leftover in
    select pubname from pg_publication
    where pubname like 'realtime\_messages%' or pubname like 'supabase\_realtime\_messages%'
  loop
    execute format('drop publication %I', leftover);
  end loop;
end $$;

do $$
declare
  existing regclass := to_regclass('realtime.messages');
  have jsonb;
  rebuild boolean := false;
  rows_kept boolean := false;
  afterwards text[] := '{}';
  identifier text;
  command text;
  day date;
begin
  if existing is not null then
    select jsonb_object_agg(a.attname, format_type(a.atttypid, a.atttypmod)) into have
    from pg_attribute a where a.attrelid = existing and a.attnum > 0 and not a.attisdropped;

    rebuild := coalesce(pg_get_partkeydef(existing), '') <> 'RANGE (inserted_at)'
      or not have ?& array['topic', 'extension', 'inserted_at']
      or exists (
        select from jsonb_each_text('{"topic": "text", "extension": "text", "payload": "jsonb", "event": "text",
          "private": "boolean", "updated_at": "timestamp without time zone", "inserted_at": "timestamp without time zone",
          "id": "uuid", "binary_payload": "bytea"}') wanted
        where have ->> wanted.key <> wanted.value);
  end if;

  if rebuild then
    select array_agg(format('create policy %I on realtime.messages as %s for %s to %s%s%s',
        p.polname,
        case when p.polpermissive then 'permissive' else 'restrictive' end,
        case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all' end,
        (select string_agg(case when r.oid = 0 then 'public' else quote_ident(pg_get_userbyid(r.oid)) end, ', ')
         from unnest(p.polroles) r(oid)),
        ' using (' || pg_get_expr(p.polqual, p.polrelid) || ')',
        ' with check (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')') order by p.polname)
      into afterwards
    from pg_policy p where p.polrelid = existing;

    afterwards := coalesce(afterwards, '{}') || coalesce((
      select array_agg(format('grant %s on realtime.messages to %s%s', lower(g.privilege_type),
        case when g.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end,
        case when g.is_grantable then ' with grant option' else '' end))
      from pg_class c, aclexplode(c.relacl) g where c.oid = existing and g.grantee <> c.relowner), '{}');

    rows_kept := have ? 'topic';
    if rows_kept then
      identifier := case
        when have ->> 'id' = 'uuid' then 'm.id'
        when have ? 'uuid' then
          $sql$case when m.uuid::text ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' then m.uuid::text::uuid end$sql$
        else 'null::uuid' end;
      execute format($sql$
        create temporary table realtime_messages_kept on commit drop as
        select m.topic::text as topic, coalesce(%s, 'broadcast') as extension, %s as payload, %s as event, %s as private,
          coalesce(%s, now()::timestamp) as updated_at, coalesce(%s, now()::timestamp) as inserted_at,
          coalesce(%s, gen_random_uuid()) as id, %s as binary_payload
        from realtime.messages m where m.topic is not null$sql$,
        case when have ? 'extension' then 'm.extension::text' else 'null::text' end,
        case when have ? 'payload' then 'm.payload::jsonb' else 'null::jsonb' end,
        case when have ? 'event' then 'm.event::text' else 'null::text' end,
        case when have ? 'private' then 'm.private::boolean' else 'false' end,
        case when have ? 'updated_at' then 'm.updated_at::timestamp' else 'null::timestamp' end,
        case when have ? 'inserted_at' then 'm.inserted_at::timestamp' else 'null::timestamp' end,
        identifier,
        case when have ? 'binary_payload' then 'm.binary_payload::bytea' else 'null::bytea' end);
    end if;
    drop table realtime.messages;
  end if;

  create table if not exists realtime.messages (
    topic text not null,
    extension text not null,
    payload jsonb,
    event text,
    private boolean default false,
    updated_at timestamp without time zone not null default now(),
    inserted_at timestamp without time zone not null default now(),
    id uuid not null default gen_random_uuid(),
    binary_payload bytea,
    constraint messages_pkey primary key (id, inserted_at)
  ) partition by range (inserted_at);

  if rows_kept then
    for day in
      select distinct k.inserted_at::date from pg_temp.realtime_messages_kept k where isfinite(k.inserted_at)
    loop
      execute format('create table realtime.%I partition of realtime.messages for values from (%L) to (%L)',
        'messages_' || to_char(day, 'YYYY_MM_DD'), day, day + 1);
    end loop;
    insert into realtime.messages (topic, extension, payload, event, private, updated_at, inserted_at, id, binary_payload)
    select k.topic, k.extension, k.payload, k.event, k.private, k.updated_at, k.inserted_at, k.id,
      case when k.payload is null then k.binary_payload end
    from pg_temp.realtime_messages_kept k where isfinite(k.inserted_at)
    on conflict do nothing;
  end if;

  foreach command in array afterwards loop
    execute command;
  end loop;
end $$;

alter table realtime.messages
  add column if not exists payload jsonb,
  add column if not exists event text,
  add column if not exists private boolean default false,
  add column if not exists updated_at timestamp without time zone default now(),
  add column if not exists id uuid default gen_random_uuid(),
  add column if not exists binary_payload bytea;

do $$
declare
  loose name;
  key record;
  leaf regclass;
begin
  -- Rows that break a rule about to be set.
  for loose in
    select a.attname from pg_attribute a
    where a.attrelid = 'realtime.messages'::regclass and not a.attnotnull and a.attname in ('updated_at', 'id', 'extension')
  loop
    execute format('update realtime.messages set %I = %s where %I is null', loose,
      case loose when 'id' then 'gen_random_uuid()' when 'extension' then '''broadcast''' else 'inserted_at' end, loose);
  end loop;
  if exists (select from pg_attribute a
             where a.attrelid = 'realtime.messages'::regclass and a.attname = 'topic' and not a.attnotnull) then
    delete from realtime.messages where topic is null;
  end if;

  alter table realtime.messages
    alter column topic set not null, alter column topic drop default,
    alter column extension set not null, alter column extension drop default,
    alter column payload drop not null, alter column payload drop default,
    alter column event drop not null, alter column event drop default,
    alter column private drop not null, alter column private set default false,
    alter column updated_at set not null, alter column updated_at set default now(),
    alter column inserted_at set not null, alter column inserted_at set default now(),
    alter column id set not null, alter column id set default gen_random_uuid(),
    alter column binary_payload drop not null, alter column binary_payload drop default,
    enable row level security,
    no force row level security;

  for key in
    select c.conname, pg_get_constraintdef(c.oid) as definition
    from pg_constraint c where c.conrelid = 'realtime.messages'::regclass and c.contype = 'p'
  loop
    if key.definition <> 'PRIMARY KEY (id, inserted_at)' then
      execute format('alter table realtime.messages drop constraint %I', key.conname);
    elsif key.conname <> 'messages_pkey' then
      execute format('alter table realtime.messages rename constraint %I to messages_pkey', key.conname);
    end if;
  end loop;
  if not exists (select from pg_constraint where conrelid = 'realtime.messages'::regclass and contype = 'p') then
    alter table realtime.messages add constraint messages_pkey primary key (id, inserted_at);
  end if;

  if not exists (
    select from pg_constraint where conrelid = 'realtime.messages'::regclass and conname = 'messages_payload_exclusive'
  ) then
    alter table realtime.messages
      add constraint messages_payload_exclusive check (payload is null or binary_payload is null) not valid;
  end if;

  if coalesce(pg_get_indexdef(to_regclass('realtime.messages_inserted_at_topic_index')), '') <>
    'CREATE INDEX messages_inserted_at_topic_index ON ONLY realtime.messages USING btree (inserted_at DESC, topic) '
    'WHERE ((extension = ''broadcast''::text) AND (private IS TRUE))'
  then
    drop index if exists realtime.messages_inserted_at_topic_index;
    create index messages_inserted_at_topic_index on realtime.messages using btree (inserted_at desc, topic)
      where extension = 'broadcast' and private is true;
  end if;

  alter table realtime.messages owner to supabase_realtime_admin;
  for leaf in select i.inhrelid::regclass from pg_inherits i where i.inhparent = 'realtime.messages'::regclass loop
    execute format('alter table %s owner to supabase_realtime_admin', leaf);
  end loop;
end $$;
