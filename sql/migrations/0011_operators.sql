-- Operators: channels that are delivered by HTTP POST.

create table operator (
  ns int not null,
  id uuid not null,
  channel int not null,
  url text not null,
  -- Encrypted under CREW_SECRET_KEY, as one text; null where there are none. Their names may be read (docs/adr/0018).
  headers bytea,
  header_names text[] not null default '{}',
  is_paused boolean not null,
  max_running int not null,
  timeout double precision not null,
  created_at timestamptz not null default now(),
  primary key (ns, id),
  constraint channel_has_one_operator unique (ns, channel),
  constraint operator_runs_something check (max_running > 0)
);

-- Which server delivers a channel: one at a time, so that an operator's limit holds over all of them.
create table delivery (
  ns int not null,
  channel int not null,
  server uuid not null,
  until timestamptz not null,
  primary key (ns, channel)
) with (fillfactor = 50);

-- What operators' signing secrets are made from, as lease ids are signed with a key of their own.
insert into secret (name, value)
values ('webhook', decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));
