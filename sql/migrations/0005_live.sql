-- What is told as it happens: the order of the event log, names of what is gone, and leases that are pushed.

-- The order of events (docs/adr/0011). What the snapshot of a tick sees and that of the tick before does not is the tick's, by
-- `seq`. Nobody is elected to write them: a tick is one more than the last that its statement sees, so of two at once one fails, and
-- a snapshot never lies behind that of the tick before. `mark` tells the ticks of a log that was lost and written anew apart.
create table tick (
  ns int not null,
  tick bigint not null,
  snapshot pg_snapshot not null,
  mark int not null default floor(random() * 2147483647),
  at timestamptz not null default now(),
  primary key (ns, tick)
);
insert into tick (ns, tick, snapshot) select ns, 1, pg_current_snapshot() from namespace;

-- Where the transaction numbers in events, ticks and folds come from. In another cluster they mean nothing (move_log).
alter table namespace add log_system bigint;
update namespace set log_system = (select system_identifier from pg_control_system());

-- Events name tasks (1) and groups (2) by number; of what is deleted the id is kept for as long as an event may name it.
create table gone (
  ns int not null,
  kind smallint not null,
  ref bigint not null,
  id uuid not null,
  at timestamptz not null default now(),
  primary key (ns, kind, ref)
);
create index gone_at on gone (ns, at);

-- A pushed lease is an offer until some call names it: then it lasts for `offer` seconds, and is a lease like any other. One that
-- lapses is a release.
alter table lease add offer real;
create index lease_offered on lease (ns, worker) where offer is not null;

-- The newest stream of each worker that had one: an older one ends.
create table stream (
  ns int not null,
  worker int not null,
  id uuid not null,
  primary key (ns, worker)
) with (fillfactor = 50);

alter table server add reads boolean not null default false;
