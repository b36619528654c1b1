-- Servers that run on this database, each heard of once a second: one that is alone sends no hints.
create table server (
  ns int not null,
  id uuid not null,
  name text not null,
  version text not null,
  started_at timestamptz not null default now(),
  seen_at timestamptz not null default now(),
  primary key (ns, id)
) with (fillfactor = 50);
