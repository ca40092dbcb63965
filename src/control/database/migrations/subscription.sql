-- Table realtime.subscription: one row per subscription and matching table. Rows live as long as channels do, so a table
-- that is not exactly this one is dropped rather than altered.
do $$
declare
  existing regclass := to_regclass('realtime.subscription');
begin
  if existing is null then
    return;
  end if;
  if (
    select array_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod),
        case when a.attnotnull then 'not null' end, case a.attidentity when 'a' then 'identity' end,
        case a.attgenerated when 's' then 'stored' end, pg_get_expr(d.adbin, d.adrelid)) order by a.attnum)
    from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where a.attrelid = existing and a.attnum > 0 and not a.attisdropped
  ) = array[
    'id bigint not null identity',
    'subscription_id uuid not null',
    'entity regclass not null',
    'filters realtime.user_defined_filter[] not null ''{}''::realtime.user_defined_filter[]',
    'claims jsonb not null',
    'claims_role regrole not null stored realtime.to_regrole((claims ->> ''role''::text))',
    'created_at timestamp without time zone not null timezone(''utc''::text, now())',
    'action_filter text ''*''::text',
    'selected_columns text[]'
  ] and 2 = (
    select count(*) from pg_constraint c
    where c.conrelid = existing and (c.conname, pg_get_constraintdef(c.oid)) in (
      ('pk_subscription', 'PRIMARY KEY (id)'),
      ('subscription_action_filter_check',
       'CHECK ((action_filter = ANY (ARRAY[''*''::text, ''INSERT''::text, ''UPDATE''::text, ''DELETE''::text])))'))
  ) and 2 = (
    select count(*) from pg_index i
    where i.indrelid = existing and pg_get_indexdef(i.indexrelid) in (
      'CREATE INDEX ix_realtime_subscription_entity ON realtime.subscription USING btree (entity)',
      'CREATE UNIQUE INDEX subscription_subscription_id_entity_filters_action_filter_selec ON realtime.subscription '
      'USING btree (subscription_id, entity, filters, action_filter, COALESCE(selected_columns, ''{}''::text[]))')
  ) and exists (
    select from pg_trigger t
    where t.tgrelid = existing and pg_get_triggerdef(t.oid) =
      'CREATE TRIGGER tr_check_filters BEFORE INSERT OR UPDATE ON realtime.subscription '
      'FOR EACH ROW EXECUTE FUNCTION realtime.subscription_check_filters()'
  ) then
    return;
  end if;
  drop table realtime.subscription;
end $$;

do $$
begin
  if to_regclass('realtime.subscription') is null then
    create table realtime.subscription (
      id bigint generated always as identity,
      subscription_id uuid not null,
      entity regclass not null,
      filters realtime.user_defined_filter[] not null default '{}',
      claims jsonb not null,
      claims_role regrole not null generated always as (realtime.to_regrole(claims ->> 'role')) stored,
      created_at timestamp without time zone not null default timezone('utc', now()),
      action_filter text default '*',
      selected_columns text[],
      constraint pk_subscription primary key (id),
      constraint subscription_action_filter_check check (action_filter in ('*', 'INSERT', 'UPDATE', 'DELETE'))
    );
    create index ix_realtime_subscription_entity on realtime.subscription using btree (entity);
    create unique index subscription_subscription_id_entity_filters_action_filter_selec on realtime.subscription
      using btree (subscription_id, entity, filters, action_filter, coalesce(selected_columns, '{}'));
    create trigger tr_check_filters before insert or update on realtime.subscription
      for each row execute function realtime.subscription_check_filters();
  end if;
end $$;

alter table realtime.subscription disable row level security;
alter table realtime.subscription owner to supabase_realtime_admin;
