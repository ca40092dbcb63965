-- Private topics of the demo: everyone may read and write those that begin with `room:`. Needs the server's migrations, which make
-- realtime.messages and realtime.topic(); without them it does nothing. May be run again.

do $policies$
begin
  if to_regclass('realtime.messages') is null then
    return;
  end if;
  execute 'drop policy if exists "rooms are open to read" on realtime.messages';
  execute $read$
    create policy "rooms are open to read" on realtime.messages for select to anon, authenticated
      using (realtime.topic() like 'room:%')
  $read$;
  execute 'drop policy if exists "rooms are open to write" on realtime.messages';
  execute $write$
    create policy "rooms are open to write" on realtime.messages for insert to anon, authenticated
      with check (realtime.topic() like 'room:%')
  $write$;
end
$policies$;
