-- Reading changes of tables from a replication slot in SQL, and deciding who may see which part of them.

create or replace function realtime.wal2json_escape_identifier(name text) returns text
language sql immutable strict as $$
  select regexp_replace(name, '([\\,.\s])', '\\\1', 'g')
$$;

create or replace function realtime.quote_wal2json(entity regclass) returns text
language sql immutable strict as $$
  select realtime.wal2json_escape_identifier(n.nspname::text) || '.' || realtime.wal2json_escape_identifier(c.relname::text)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.oid = entity
$$;

create or replace function realtime.build_prepared_statement_sql(prepared_statement_name text, entity regclass,
  columns realtime.wal_column[]) returns text
language sql volatile as $$
  select format('prepare %I as select exists (select 1 from %s where %s)', prepared_statement_name, entity,
    string_agg(format('%I = %L', c.name, c.value #>> '{}'), ' and ' order by c.nth))
  from unnest(columns) with ordinality c(name, type_name, type_oid, value, is_pkey, is_selectable, nth)
  where c.is_pkey
$$;

-- One change in, one row per role and selection of columns out. Visibility is that of the row as it is now.
create or replace function realtime.apply_rls(wal jsonb, max_record_bytes integer default (1024 * 1024))
returns setof realtime.wal_rls
language plpgsql volatile as $$
#variable_conflict use_variable
declare
  probe constant text := 'realtime_apply_rls_probe';
  relation regclass := format('%I.%I', wal ->> 'schema', wal ->> 'table')::regclass;
  kind realtime.action := case wal ->> 'action'
    when 'I' then 'INSERT' when 'U' then 'UPDATE' when 'D' then 'DELETE' else 'ERROR' end;
  is_rls boolean := (select c.relrowsecurity from pg_class c where c.oid = relation);
  too_big boolean := octet_length(wal::text) > max_record_bytes;
  bare jsonb := jsonb_build_object('schema', wal -> 'schema', 'table', wal -> 'table', 'type', kind);
  commit_timestamp text := to_char((wal ->> 'timestamp')::timestamptz at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');
  key_names text[] := coalesce((select array_agg(k ->> 'name') from jsonb_array_elements(wal -> 'pk') k), '{}');
  all_columns realtime.wal_column[];
  all_old_columns realtime.wal_column[];
  new_columns realtime.wal_column[];
  old_columns realtime.wal_column[];
  readable text[];
  reader regrole;
  refusal text;
  candidates bigint[];
  candidate_claims jsonb[];
  kept bigint[];
  visible boolean;
  role_before text := current_setting('role');
  claims_before text := coalesce(current_setting('request.jwt.claims', true), '');
  selection record;
  output jsonb;
begin
  select array_agg(row(c ->> 'name', c ->> 'type', t.oid,
      realtime."cast"(c ->> 'value', t.oid::regtype), (c ->> 'name') = any (key_names), null)::realtime.wal_column order by nth)
    into all_columns
  from jsonb_array_elements(wal -> 'columns') with ordinality e(c, nth),
    lateral (select coalesce((c ->> 'typeoid')::oid, (c ->> 'type')::regtype::oid) as oid) t;
  select array_agg(row(c ->> 'name', c ->> 'type', t.oid,
      realtime."cast"(c ->> 'value', t.oid::regtype), (c ->> 'name') = any (key_names), null)::realtime.wal_column order by nth)
    into all_old_columns
  from jsonb_array_elements(wal -> 'identity') with ordinality e(c, nth),
    lateral (select coalesce((c ->> 'typeoid')::oid, (c ->> 'type')::regtype::oid) as oid) t;

  for reader in
    select s.claims_role from realtime.subscription s
    where s.entity = relation and s.action_filter in ('*', kind::text)
    group by s.claims_role order by pg_get_userbyid(s.claims_role)
  loop
    readable := coalesce((
      select array_agg(a.attname::text) from pg_attribute a
      where a.attrelid = relation and a.attnum > 0 and not a.attisdropped
        and has_column_privilege(reader::oid, relation, a.attnum, 'SELECT')), '{}');
    new_columns := (
      select array_agg(row(c.name, c.type_name, c.type_oid, c.value, c.is_pkey, c.name = any (readable))::realtime.wal_column
        order by c.nth)
      from unnest(all_columns) with ordinality c(name, type_name, type_oid, value, is_pkey, is_selectable, nth));
    old_columns := (
      select array_agg(row(c.name, c.type_name, c.type_oid, c.value, c.is_pkey, c.name = any (readable))::realtime.wal_column
        order by c.nth)
      from unnest(all_old_columns) with ordinality c(name, type_name, type_oid, value, is_pkey, is_selectable, nth));

    refusal := case
      when kind = 'DELETE' then null
      when not exists (select from unnest(new_columns) c where c.is_pkey) then 'Error 400: Bad Request, no primary key'
      when exists (select from unnest(new_columns) c where c.is_pkey and not c.is_selectable) then 'Error 401: Unauthorized'
    end;
    if refusal is not null then
      return query
        select bare, is_rls, array_agg(s.subscription_id order by s.id), array[refusal]
        from realtime.subscription s
        where s.entity = relation and s.action_filter in ('*', kind::text) and s.claims_role = reader
        group by s.selected_columns
        order by array_to_string(s.selected_columns, ',') nulls first;
      continue;
    end if;

    select array_agg(s.id order by s.id), array_agg(s.claims order by s.id) into candidates, candidate_claims
    from realtime.subscription s
    where s.entity = relation and s.action_filter in ('*', kind::text) and s.claims_role = reader
      and (realtime.is_visible_through_filters(new_columns, s.filters)
        or (kind = 'DELETE' and realtime.is_visible_through_filters(old_columns, s.filters)));
    kept := coalesce(candidates, '{}');

    if is_rls and kind <> 'DELETE' and cardinality(kept) > 0 then
      kept := '{}';
      -- Left behind by a probe that raised.
      if exists (select from pg_prepared_statements p where p.name = probe) then
        execute format('deallocate %I', probe);
      end if;
      execute realtime.build_prepared_statement_sql(probe, relation, new_columns);
      -- Nothing of this schema is touched while the role is the subscriber's.
      for i in 1..cardinality(candidates) loop
        perform set_config('role', pg_get_userbyid(reader), true), set_config('request.jwt.claims', candidate_claims[i]::text, true);
        execute format('execute %I', probe) into visible;
        if visible then
          kept := kept || candidates[i];
        end if;
      end loop;
      perform set_config('role', role_before, true), set_config('request.jwt.claims', claims_before, true);
      execute format('deallocate %I', probe);
    end if;

    for selection in
      select s.selected_columns as names,
        coalesce(array_agg(s.subscription_id order by s.id) filter (where s.id = any (kept)), '{}') as ids
      from realtime.subscription s
      where s.entity = relation and s.action_filter in ('*', kind::text) and s.claims_role = reader
      group by s.selected_columns
      order by array_to_string(s.selected_columns, ',') nulls first
    loop
      output := bare || jsonb_build_object(
        'commit_timestamp', commit_timestamp,
        'columns', (
          select jsonb_agg(jsonb_build_object('name', a.attname, 'type', t.typname) order by a.attnum)
          from pg_attribute a join pg_type t on t.oid = a.atttypid
          where a.attrelid = relation and a.attnum > 0 and not a.attisdropped and a.attname = any (readable)
            and (selection.names is null or a.attname = any (selection.names) or a.attname = any (key_names))));
      if kind in ('INSERT', 'UPDATE') then
        -- What the new row does not carry because it was stored aside and not changed, the old one may.
        output := output || jsonb_build_object('record', (
          select coalesce(jsonb_object_agg(c.name, c.value), '{}')
          from (
            select n.* from unnest(new_columns) n
            union all
            select o.* from unnest(old_columns) o where not exists (select from unnest(new_columns) n where n.name = o.name)
          ) c
          where c.is_selectable and (selection.names is null or c.name = any (selection.names) or c.is_pkey)
            and (not too_big or octet_length(c.value::text) <= 64)));
      end if;
      if kind in ('UPDATE', 'DELETE') then
        output := output || jsonb_build_object('old_record', (
          select coalesce(jsonb_object_agg(c.name, c.value), '{}')
          from unnest(old_columns) c
          where c.is_selectable and (selection.names is null or c.name = any (selection.names) or c.is_pkey)
            and (not too_big or octet_length(c.value::text) <= 64)
            and (kind <> 'DELETE' or not is_rls or c.is_pkey)));
      end if;
      return next row(output, is_rls, selection.ids,
        case when too_big then array['Error 413: Payload Too Large'] else '{}'::text[] end)::realtime.wal_rls;
    end loop;
  end loop;
end $$;

-- One read of the slot. Without anything for anybody it still returns one row, with the number of changes read.
create or replace function realtime.list_changes(publication name, slot_name name, max_changes integer,
  max_record_bytes integer)
returns table (wal jsonb, is_rls_enabled boolean, subscription_ids uuid[], errors text[], slot_changes_count bigint)
language sql volatile
set log_min_messages to 'fatal'
as $$
  with published as materialized (
    select
      concat_ws(',', case when p.pubinsert then 'insert' end, case when p.pubupdate then 'update' end,
        case when p.pubdelete then 'delete' end) as actions,
      coalesce((
        select string_agg(realtime.quote_wal2json(format('%I.%I', t.schemaname, t.tablename)::regclass), ',')
        from pg_publication_tables t where t.pubname = list_changes.publication), '') as add_tables
    from pg_publication p where p.pubname = list_changes.publication
  ), changes as materialized (
    select c.data::jsonb as change, c.nth
    from published p,
      lateral pg_logical_slot_get_changes(list_changes.slot_name, null, list_changes.max_changes,
        'include-pk', 'true', 'include-transaction', 'false', 'include-timestamp', 'true', 'include-type-oids', 'true',
        'format-version', '2', 'actions', p.actions, 'add-tables', p.add_tables) with ordinality c(lsn, xid, data, nth)
    where p.add_tables <> ''
  ), allowed as materialized (
    select r.*, c.nth
    from changes c, lateral realtime.apply_rls(c.change, list_changes.max_record_bytes)
      with ordinality r(wal, is_rls_enabled, subscription_ids, errors, part)
    where r.subscription_ids[1] is not null
  )
  select o.wal, o.is_rls_enabled, o.subscription_ids, o.errors, (select count(*) from changes)
  from (
    select a.wal, a.is_rls_enabled, a.subscription_ids, a.errors, a.nth, a.part from allowed a
    union all
    select null, null, null, null, 0, 0 where not exists (select from allowed)
  ) o
  order by o.nth, o.part
$$;
