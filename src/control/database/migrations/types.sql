-- Types of Postgres Changes. A type that lacks values or attributes gets them; one of another shape is made anew together
-- with the functions that use it. Its users outside the schema make the statement fail: nothing of theirs is dropped.
--
-- New enum values cannot be used before the transaction commits; nothing in this installation does. Stored filters are
-- ephemeral, so the table that holds them goes whenever a type changes (this also spares its index, which orioledb cannot
-- keep across the change).
do $$
declare
  wanted record;
  have text[];
  have_kind "char";
  position_now integer;
  doomed text;
  routine oid;
begin
  for wanted in
    select * from (values
      (1, 'action', 'e', array['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'ERROR']),
      (2, 'equality_op', 'e', array['eq', 'neq', 'lt', 'lte', 'gt', 'gte', 'in', 'like', 'ilike', 'is', 'match', 'imatch',
        'isdistinct']),
      (3, 'user_defined_filter', 'c', array['column_name text', 'op realtime.equality_op', 'value text', 'negate boolean']),
      (4, 'wal_column', 'c', array['name text', 'type_name text', 'type_oid oid', 'value jsonb', 'is_pkey boolean',
        'is_selectable boolean']),
      (5, 'wal_rls', 'c', array['wal jsonb', 'is_rls_enabled boolean', 'subscription_ids uuid[]', 'errors text[]'])
    ) as t(nth, name, kind, items)
    order by nth
  loop
    have := null;
    have_kind := (select t.typtype from pg_type t where t.typnamespace = 'realtime'::regnamespace and t.typname = wanted.name);
    if have_kind = 'e' then
      select array_agg(e.enumlabel::text order by e.enumsortorder) into have
      from pg_enum e where e.enumtypid = format('realtime.%I', wanted.name)::regtype;
    elsif have_kind = 'c' then
      select array_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) order by a.attnum) into have
      from pg_type t join pg_attribute a on a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
      where t.oid = format('realtime.%I', wanted.name)::regtype;
    end if;
    continue when have_kind = wanted.kind and have = wanted.items;

    drop table if exists realtime.subscription;

    if have_kind = 'e' and wanted.kind = 'e'
      and have = (select array_agg(i.label order by i.nth)
                  from unnest(wanted.items) with ordinality i(label, nth) where i.label = any (have))
    then
      for position_now in 1..cardinality(wanted.items) loop
        if wanted.items[position_now] = any (have) then
          continue;
        elsif position_now = 1 then
          execute format('alter type realtime.%I add value %L before %L', wanted.name, wanted.items[1], have[1]);
        else
          execute format('alter type realtime.%I add value %L after %L',
            wanted.name, wanted.items[position_now], wanted.items[position_now - 1]);
        end if;
      end loop;
      continue;
    end if;

    if have_kind = 'c' and wanted.kind = 'c' and have = wanted.items[1:cardinality(have)] then
      for position_now in cardinality(have) + 1..cardinality(wanted.items) loop
        execute format('alter type realtime.%I add attribute %s', wanted.name, wanted.items[position_now]);
      end loop;
      continue;
    end if;

    if have_kind is not null then
      for doomed in
        select d from unnest(case wanted.name
          when 'equality_op' then array['user_defined_filter', 'equality_op'] else array[wanted.name] end) d
      loop
        continue when to_regtype(format('realtime.%I', doomed)) is null;
        for routine in
          select distinct p.oid
          from pg_type t
          join pg_depend d on d.refclassid = 'pg_type'::regclass and d.refobjid in (t.oid, t.typarray)
            and d.classid = 'pg_proc'::regclass
          join pg_proc p on p.oid = d.objid and p.pronamespace = 'realtime'::regnamespace
          where t.oid = format('realtime.%I', doomed)::regtype
        loop
          execute format('drop routine %s', routine::regprocedure);
        end loop;
        execute format('drop type realtime.%I', doomed);
      end loop;
    end if;

    if wanted.kind = 'e' then
      execute format('create type realtime.%I as enum (%s)', wanted.name,
        (select string_agg(quote_literal(i.label), ', ' order by i.nth)
         from unnest(wanted.items) with ordinality i(label, nth)));
    else
      execute format('create type realtime.%I as (%s)', wanted.name, array_to_string(wanted.items, ', '));
    end if;
  end loop;
end $$;
