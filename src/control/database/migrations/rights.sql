-- Owners of types and functions, and who may use what.
do $$
declare
  kind text;
  routine oid;
begin
  foreach kind in array array['action', 'equality_op', 'user_defined_filter', 'wal_column', 'wal_rls'] loop
    execute format('alter type realtime.%I owner to supabase_realtime_admin', kind);
  end loop;

  for routine in
    select p.oid from pg_proc p
    where p.pronamespace = 'realtime'::regnamespace and p.proname in (
      'apply_rls', 'broadcast_changes', 'build_prepared_statement_sql', 'cast', 'check_equality_op',
      'is_visible_through_filters', 'list_changes', 'quote_wal2json', 'send', 'send_binary', 'subscription_check_filters',
      'to_regrole', 'topic', 'wal2json_escape_identifier')
  loop
    execute format('alter function %s owner to supabase_realtime_admin', routine::regprocedure);
    execute format('grant all on function %s to postgres, dashboard_user', routine::regprocedure);
  end loop;

  for routine in
    select p.oid from pg_proc p
    where p.pronamespace = 'realtime'::regnamespace and p.proname in (
      'apply_rls', 'build_prepared_statement_sql', 'cast', 'check_equality_op', 'is_visible_through_filters',
      'quote_wal2json', 'subscription_check_filters', 'to_regrole')
  loop
    execute format('grant execute on function %s to anon, authenticated, service_role', routine::regprocedure);
  end loop;
end $$;

revoke all on realtime.messages, realtime.subscription from anon, authenticated, service_role;
grant select, insert, update on realtime.messages to anon, authenticated, service_role;
grant select on realtime.subscription to anon, authenticated, service_role;
grant all on realtime.messages, realtime.subscription to postgres, dashboard_user;
grant usage on sequence realtime.subscription_id_seq to anon, authenticated, service_role;
grant all on sequence realtime.subscription_id_seq to postgres, dashboard_user;
