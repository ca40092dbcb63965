-- The table of the demo: a chat whose rows everyone may read and append to. May be run again; rows stay.

create table if not exists public.chat_messages (
  id bigint generated always as identity primary key,
  room text not null default 'lobby' check (length(room) between 1 and 100),
  author text not null check (length(author) between 1 and 100),
  body text not null check (length(body) between 1 and 4000),
  inserted_at timestamptz not null default now()
);

create index if not exists chat_messages_room_inserted_at on public.chat_messages (room, inserted_at desc);

alter table public.chat_messages enable row level security;

drop policy if exists "everyone reads" on public.chat_messages;
create policy "everyone reads" on public.chat_messages for select to anon, authenticated using (true);

drop policy if exists "everyone writes" on public.chat_messages;
create policy "everyone writes" on public.chat_messages for insert to anon, authenticated with check (true);

do $publish$
begin
  if not exists (
    select from pg_catalog.pg_publication_tables
    where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = 'chat_messages'
  ) then
    alter publication supabase_realtime add table public.chat_messages;
  end if;
end
$publish$;
