-- How values of Postgres Changes are read and compared with the filters of a subscription.

create or replace function realtime."cast"(val text, type_ regtype) returns jsonb
language plpgsql immutable as $$
declare
  result jsonb;
begin
  -- The decoder prints bytea without its prefix, so its text cannot be read back.
  if type_::text = 'bytea' then
    return to_jsonb(val);
  end if;
  execute format('select to_jsonb(%L::%s)', val, type_::text) into result;
  return result;
end $$;

create or replace function realtime.check_equality_op(op realtime.equality_op, type_ regtype, val_1 text, val_2 text,
  negate boolean) returns boolean
language plpgsql stable as $$
declare
  inverted boolean := coalesce(negate, false);
  symbol text;
  result boolean;
begin
  case op::text
    when 'isdistinct' then
      execute format('select %L::%s is %s distinct from %L::%s',
        val_1, type_::text, case when inverted then 'not' else '' end, val_2, type_::text) into result;
      return result;
    when 'is' then
      if (val_2 in ('null', 'true', 'false', 'unknown')) is not true then
        raise exception 'invalid value for is filter: must be null, true, false, or unknown';
      end if;
      execute format('select %L::%s is %s %s',
        val_1, type_::text, case when inverted then 'not' else '' end, val_2) into result;
      return result;
    when 'in' then
      execute format('select %L::%s = any (%L::%s[])', val_1, type_::text, val_2, type_::text) into result;
    else
      symbol := case op::text
        when 'eq' then '=' when 'neq' then '!=' when 'lt' then '<' when 'lte' then '<=' when 'gt' then '>' when 'gte' then '>='
        when 'like' then 'like' when 'ilike' then 'ilike' when 'match' then '~' when 'imatch' then '~*' end;
      if symbol is null then
        raise exception 'unsupported equality operator: %', op;
      end if;
      execute format('select %L::%s %s %L::%s', val_1, type_::text, symbol, val_2, type_::text) into result;
  end case;
  return result <> inverted;
end $$;

-- Kept for users who call it; knows the first operators only.
create or replace function realtime.check_equality_op(op realtime.equality_op, type_ regtype, val_1 text, val_2 text)
returns boolean
language plpgsql immutable as $$
begin
  if (op::text in ('eq', 'neq', 'lt', 'lte', 'gt', 'gte', 'in')) is not true then
    raise exception 'unsupported equality operator: %', op;
  end if;
  return realtime.check_equality_op(op, type_, val_1, val_2, false);
end $$;

create or replace function realtime.is_visible_through_filters(columns realtime.wal_column[],
  filters realtime.user_defined_filter[]) returns boolean
language sql stable as $$
  select coalesce(cardinality(filters), 0) = 0 or (
    select count(*) filter (where realtime.check_equality_op(
        f.op, coalesce(c.type_oid::regtype, c.type_name::regtype), c.value #>> '{}', f.value, f.negate)) = cardinality(filters)
    from unnest(filters) f join unnest(columns) c on c.name = f.column_name)
$$;

create or replace function realtime.to_regrole(role_name text) returns regrole
language sql immutable as $$
  select role_name::regrole
$$;

-- Refuses what could never be evaluated, in words meant for the client, and brings filters and columns into one order, so
-- that equal subscriptions are equal rows.
create or replace function realtime.subscription_check_filters() returns trigger
language plpgsql volatile as $$
declare
  readable text[] := coalesce((
    select array_agg(a.attname::text)
    from pg_attribute a
    where a.attrelid = new.entity and a.attnum > 0 and not a.attisdropped
      and has_column_privilege(new.claims ->> 'role', new.entity, a.attnum, 'SELECT')), '{}');
  filter realtime.user_defined_filter;
  column_type regtype;
  selected text;
begin
  foreach filter in array coalesce(new.filters, '{}') loop
    if (filter.column_name = any (readable)) is not true then
      raise exception 'invalid column for filter %', filter.column_name;
    end if;
    column_type := (select a.atttypid::regtype from pg_attribute a
                    where a.attrelid = new.entity and a.attname = filter.column_name and not a.attisdropped);
    if column_type is null then
      raise exception 'failed to lookup type for column %', filter.column_name;
    end if;

    case filter.op::text
      when 'in' then
        if jsonb_array_length(realtime."cast"(filter.value, (column_type::text || '[]')::regtype)) > 100 then
          raise exception 'too many values for `in` filter. Maximum 100';
        end if;
      when 'is' then
        if (filter.value in ('null', 'true', 'false', 'unknown')) is not true then
          raise exception 'invalid value for is filter: must be null, true, false, or unknown';
        end if;
        if filter.value <> 'null' and column_type <> 'boolean'::regtype then
          raise exception 'is % filter requires a boolean column, got %', filter.value, column_type::text;
        end if;
      when 'like', 'ilike' then
        if not exists (select from pg_operator o where o.oprname = '~~' and o.oprleft = column_type) then
          raise exception 'operator % requires a text-compatible column type, got %', filter.op, column_type::text;
        end if;
      when 'match', 'imatch' then
        if not exists (
          select from pg_operator o
          where o.oprname = case filter.op::text when 'match' then '~' else '~*' end
            and o.oprleft = column_type and o.oprright = column_type and o.oprresult = 'boolean'::regtype
        ) then
          raise exception 'operator % requires a text-compatible column type, got %', filter.op, column_type::text;
        end if;
        begin
          perform '' ~ filter.value;
        exception when others then
          raise exception 'invalid regular expression for % filter: %', filter.op, sqlerrm;
        end;
      else
        perform realtime."cast"(filter.value, column_type);
    end case;
  end loop;

  foreach selected in array coalesce(new.selected_columns, '{}') loop
    if (selected = any (readable)) is not true then
      raise exception 'invalid column for select %', selected;
    end if;
  end loop;

  new.filters := coalesce((
    select array_agg(row(f.column_name, f.op, f.value, f.negate)::realtime.user_defined_filter
      order by f.column_name, f.op, f.value, f.negate)
    from unnest(new.filters) f), '{}');
  -- Of an empty list nothing is aggregated, which makes it null.
  new.selected_columns := (select array_agg(s order by s) from unnest(new.selected_columns) s);
  return new;
end $$;
