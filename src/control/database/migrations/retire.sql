-- Functions of an older installation that "create or replace" cannot turn into today's: other parameters or names of
-- parameters, another result, more defaults. What is not in the inventory by name is left alone.
do $$
declare
  routine record;
begin
  for routine in
    with inventory(name, arguments, result, defaults) as (values
      ('apply_rls', 'wal jsonb, max_record_bytes integer', 'SETOF realtime.wal_rls', 1),
      ('broadcast_changes', 'topic_name text, event_name text, operation text, table_name text, table_schema text, new record, old record, level text', 'void', 1),
      ('build_prepared_statement_sql', 'prepared_statement_name text, entity regclass, columns realtime.wal_column[]', 'text', 0),
      ('cast', 'val text, type_ regtype', 'jsonb', 0),
      ('check_equality_op', 'op realtime.equality_op, type_ regtype, val_1 text, val_2 text', 'boolean', 0),
      ('check_equality_op', 'op realtime.equality_op, type_ regtype, val_1 text, val_2 text, negate boolean', 'boolean', 0),
      ('is_visible_through_filters', 'columns realtime.wal_column[], filters realtime.user_defined_filter[]', 'boolean', 0),
      ('list_changes', 'publication name, slot_name name, max_changes integer, max_record_bytes integer',
        'TABLE(wal jsonb, is_rls_enabled boolean, subscription_ids uuid[], errors text[], slot_changes_count bigint)', 0),
      ('quote_wal2json', 'entity regclass', 'text', 0),
      ('send', 'payload jsonb, event text, topic text, private boolean', 'void', 1),
      ('send_binary', 'payload bytea, event text, topic text, private boolean', 'void', 1),
      ('subscription_check_filters', '', 'trigger', 0),
      ('to_regrole', 'role_name text', 'regrole', 0),
      ('topic', '', 'text', 0),
      ('wal2json_escape_identifier', 'name text', 'text', 0)
    )
    select p.oid, p.proname
    from pg_proc p
    where p.pronamespace = 'realtime'::regnamespace
      and p.proname in (select i.name from inventory i)
      and not exists (
        select from inventory i
        where i.name = p.proname
          and p.prokind = 'f'
          and pg_get_function_identity_arguments(p.oid) = i.arguments
          and pg_get_function_result(p.oid) = i.result
          and p.pronargdefaults <= i.defaults)
  loop
    -- The table uses these two, in a generated column and in its trigger.
    if routine.proname in ('to_regrole', 'subscription_check_filters') then
      drop table if exists realtime.subscription;
    end if;
    execute format('drop routine %s', routine.oid::regprocedure);
  end loop;
end $$;
