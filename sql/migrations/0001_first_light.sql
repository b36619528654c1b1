-- The storage core. A task stands in exactly one place at any moment, and the place is its state:
--   blocked · scheduled · ready (or parked, while its workgroup is suspended) · lease (running) · failed · done
-- There is no state column, no trigger, no function and no foreign key. `ns`, the namespace, stands first in every key.
-- `no`, drawn from a sequence, is a task's key inside: the server's order of creation. `id` is its name outside.
-- What travels from place to place is the *ticket*: channel, rank (= -priority), workgroup, group_no, attempt (started so
-- far), remaining (may yet start), failures (counted ones since creation or the last retry by a person: the back-off's n).

create sequence task_no;
create sequence group_no;
create sequence lease_no;
create sequence name_no;

create table namespace (
  ns int primary key,
  name text not null,
  -- The servers' heartbeat: a gap in it is time in which nobody could extend a lease (see prolong_leases).
  alive_at timestamptz not null default now(),
  constraint namespace_has_one_name unique (name)
);
insert into namespace (ns, name) values (1, 'default');

-- Signs lease ids. Kept here so that every server signs alike.
create table secret (
  name text primary key,
  value bytea not null
);
insert into secret (name, value)
values ('lease', decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));

create table channel (
  ns int not null,
  channel int not null default nextval('name_no'),
  name text collate "C" not null,
  primary key (ns, channel),
  constraint channel_has_one_name unique (ns, name)
);

create table workgroup (
  ns int not null,
  workgroup int not null default nextval('name_no'),
  name text collate "C" not null,
  primary key (ns, workgroup),
  constraint workgroup_has_one_name unique (ns, name)
);

create table worker (
  ns int not null,
  worker int not null default nextval('name_no'),
  name text collate "C" not null,
  channels text[] not null default '{}',
  transport text,
  last_seen_at timestamptz not null default now(),
  primary key (ns, worker),
  constraint worker_has_one_name unique (ns, name)
);

create table task_group (
  ns int not null,
  group_no bigint not null,
  id uuid not null,
  name text not null,
  metadata json,
  -- The highest task number that its creating call drew: what a repeat of that call answers.
  made_upto bigint not null,
  created_at timestamptz not null default now(),
  primary key (ns, group_no),
  constraint group_id_is_unique unique (ns, id)
);

-- Wide, written once; only a person's update touches it again.
create table task (
  ns int not null,
  no bigint not null,
  id uuid not null,
  group_no bigint not null,
  channel int not null,
  workgroup int not null default 0,
  rank int not null default 0,
  name text not null,
  input json,
  metadata json,
  run_after timestamptz,
  max_attempts int not null,
  retry_delay float8 not null,
  backoff float8 not null,
  max_delay float8 not null,
  weight int not null default 1,
  is_seed boolean not null default false,
  spawned_by bigint,
  created_at timestamptz not null default now(),
  primary key (ns, no),
  constraint task_id_is_unique unique (ns, id),
  constraint attempts_are_positive check (max_attempts > 0)
);
create index task_of_group on task (ns, group_no, no);

create table ready (
  ns int not null,
  channel int not null,
  rank int not null,
  workgroup int not null,
  no bigint not null,
  group_no bigint not null,
  attempt int not null,
  remaining int not null,
  failures int not null,
  ready_at timestamptz not null default now()
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000);
create unique index ready_by_rank on ready (ns, channel, rank, no);
-- How a suspension finds what it holds. Tasks without a workgroup do not pay for it.
create index ready_of_workgroup on ready (ns, workgroup, rank, no) where workgroup <> 0;

-- Ready tasks of a suspended workgroup, moved aside by a loop so that claims do not walk over them.
create table parked (
  ns int not null,
  workgroup int not null,
  rank int not null,
  no bigint not null,
  channel int not null,
  group_no bigint not null,
  attempt int not null,
  remaining int not null,
  failures int not null,
  ready_at timestamptz not null,
  primary key (ns, no)
);
create index parked_of_workgroup on parked (ns, workgroup, rank, no);

create table scheduled (
  ns int not null,
  run_at timestamptz not null,
  no bigint not null,
  channel int not null,
  rank int not null,
  workgroup int not null,
  group_no bigint not null,
  attempt int not null,
  remaining int not null,
  failures int not null,
  primary key (ns, no)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index scheduled_by_time on scheduled (ns, run_at);

create table blocked (
  ns int not null,
  no bigint not null,
  open int not null,
  run_at timestamptz,
  channel int not null,
  rank int not null,
  workgroup int not null,
  group_no bigint not null,
  attempt int not null,
  remaining int not null,
  failures int not null,
  primary key (ns, no),
  constraint blocked_waits_for_someone check (open > 0)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
        autovacuum_vacuum_cost_delay = 0);

-- What holds tasks back: one row a suspended workgroup. Empty most of the time.
create table hold (
  ns int not null,
  workgroup int not null,
  until timestamptz not null,
  reason text,
  primary key (ns, workgroup)
);

-- One row per claim; the arrays run in parallel. A lease id outside is (lease_no, no). Extending only some of a claim's
-- tasks moves those to another part of the same lease_no, so the ids that workers hold stay good.
-- `grown` is the last transaction that hung a child under one of these tasks (see lock_parents and complete_tasks).
create table lease (
  ns int not null,
  lease_no bigint not null,
  part bigint not null default 0,
  worker int not null,
  until timestamptz not null,
  started_at timestamptz not null default now(),
  grown xid8,
  nos bigint[] not null,
  groups bigint[] not null,
  channels int[] not null,
  workgroups int[] not null,
  attempts int[] not null,
  remainings int[] not null,
  failures int[] not null,
  primary key (ns, lease_no, part),
  constraint lease_holds_something check (cardinality(nos) > 0)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);
alter table lease
  alter nos set storage external,
  alter groups set storage external,
  alter channels set storage external,
  alter workgroups set storage external,
  alter attempts set storage external,
  alter remainings set storage external,
  alter failures set storage external;
create index lease_by_end on lease (ns, until);

-- What makes a claim safe to repeat; written only by a claim that got something, kept an hour after its lease has ended.
create table claim (
  ns int not null,
  claim_id uuid not null,
  lease_no bigint not null,
  asked text not null,
  ended_at timestamptz,
  constraint claim_is_taken_once primary key (ns, claim_id)
);

create table edge (
  ns int not null,
  parent bigint not null,
  child bigint not null,
  place int not null,
  primary key (ns, parent, child)
);
create index edge_of_child on edge (ns, child, place);

-- Append-only. Its key is the last line of defence: nothing ends twice. outcome: a task state (see sql/README.md).
create table done (
  ns int not null,
  no bigint not null,
  lease_no bigint,
  outcome smallint not null,
  attempt int not null,
  remaining int not null,
  worker int,
  started_at timestamptz,
  at timestamptz not null default now(),
  output json,
  constraint task_ends_once primary key (ns, no)
);

create table failed (
  ns int not null,
  no bigint not null,
  channel int not null,
  rank int not null,
  workgroup int not null,
  group_no bigint not null,
  attempt int not null,
  remaining int not null,
  worker int,
  started_at timestamptz,
  at timestamptz not null default now(),
  primary key (ns, no)
);

create table error (
  ns int not null,
  no bigint not null,
  seq bigint generated always as identity,
  attempt int not null,
  -- Null where the server wrote it: the lease ran out.
  lease_no bigint,
  worker int not null,
  started_at timestamptz,
  at timestamptz not null default now(),
  error json not null,
  primary key (ns, no, seq)
);

create table progress (
  ns int not null,
  no bigint not null,
  fraction float8,
  message text,
  primary key (ns, no)
);

-- The event log: one row per transaction, kind and transition, its arrays in parallel. Order inside one transaction and
-- between transactions that wait for each other is `seq`; what a reader has seen is told by `xid` and its snapshot.
create table event (
  ns int not null,
  xid xid8 not null default pg_current_xact_id(),
  seq bigint generated always as identity,
  at timestamptz not null default now(),
  kind smallint not null,
  was smallint,
  state smallint,
  worker int,
  until timestamptz,
  nos bigint[] not null default '{}',
  groups bigint[] not null default '{}',
  channels int[] not null default '{}',
  workgroups int[] not null default '{}',
  attempts int[] not null default '{}',
  progress float8[]
);
alter table event
  alter nos set storage external,
  alter groups set storage external,
  alter channels set storage external,
  alter workgroups set storage external,
  alter attempts set storage external;
create index event_by_xid on event (ns, xid);

-- Counts that people look at: a fold of the event log, to which a reader adds the tail not yet folded.
-- A channel and a workgroup never have the same number (name_no), so one column holds either.
create table tally (
  ns int not null,
  ref int not null,
  state smallint not null,
  n bigint not null,
  primary key (ns, ref, state)
) with (fillfactor = 50);
create table fold (
  ns int primary key,
  upto pg_snapshot not null
);
insert into fold (ns, upto) values (1, pg_current_snapshot());

-- Every task with its place, which is its state (numbers in sql/README.md). In no place at all is in a lease: RUNNING.
create view task_place as
select
  t.ns,
  t.no,
  t.group_no,
  t.channel,
  t.workgroup,
  t.weight,
  case
    when d.no is not null then d.outcome
    when r.no is not null or p.no is not null then 2
    when b.no is not null then 0
    when s.no is not null then 1
    when f.no is not null then 6
    else 3
  end::smallint as state,
  coalesce(s.run_at, b.run_at) as run_at,
  coalesce(r.ready_at, p.ready_at) as ready_at,
  coalesce(d.attempt, r.attempt, p.attempt, b.attempt, s.attempt, f.attempt) as attempt,
  coalesce(d.remaining, r.remaining, p.remaining, b.remaining, s.remaining, f.remaining) as remaining,
  coalesce(d.worker, f.worker) as worker,
  coalesce(d.started_at, f.started_at) as started_at,
  coalesce(d.at, f.at) as finished_at
from task t
left join done d on d.ns = t.ns and d.no = t.no
left join ready r on r.ns = t.ns and r.channel = t.channel and r.rank = t.rank and r.no = t.no
left join parked p on p.ns = t.ns and p.no = t.no
left join blocked b on b.ns = t.ns and b.no = t.no
left join scheduled s on s.ns = t.ns and s.no = t.no
left join failed f on f.ns = t.ns and f.no = t.no;

-- Every task as people read it.
create view task_now as
select
  t.ns,
  t.no,
  t.id,
  t.group_no,
  g.id as group_id,
  t.name,
  c.name as channel,
  w.name as workgroup,
  p.state,
  -t.rank as priority,
  t.input,
  d.output,
  t.metadata,
  t.run_after,
  case when p.state in (0, 1, 2) then greatest(
    case when p.run_at > now() then p.run_at end,
    case when h.until > now() then h.until end) end as not_before,
  p.state = 2 and coalesce(h.until > now(), false) as suspended,
  coalesce(p.attempt, l.attempt, 0) as attempt,
  coalesce(p.remaining, l.remaining, 0) as remaining,
  t.max_attempts,
  t.retry_delay,
  t.backoff,
  t.max_delay,
  t.weight,
  t.is_seed,
  o.fraction as progress,
  o.message as progress_message,
  t.spawned_by,
  k.name as worker_id,
  l.until as lease_expires_at,
  t.created_at,
  p.ready_at,
  coalesce(l.started_at, p.started_at, case when p.attempt > 0 then (
    select max(e.started_at) from error e where e.ns = t.ns and e.no = t.no) end) as started_at,
  p.finished_at
from task t
join task_place p on p.ns = t.ns and p.no = t.no
join task_group g on g.ns = t.ns and g.group_no = t.group_no
join channel c on c.ns = t.ns and c.channel = t.channel
left join workgroup w on w.ns = t.ns and w.workgroup = t.workgroup
left join hold h on h.ns = t.ns and h.workgroup = t.workgroup
left join done d on d.ns = t.ns and d.no = t.no
left join progress o on o.ns = t.ns and o.no = t.no
left join lateral (
  select x.worker, x.until, x.started_at, u.attempt, u.remaining
  from lease x cross join lateral unnest(x.nos, x.attempts, x.remainings) as u(no, attempt, remaining)
  where p.state = 3 and x.ns = t.ns and x.nos @> array[t.no] and u.no = t.no
  limit 1) l on true
left join worker k on k.ns = t.ns and k.worker = coalesce(l.worker, p.worker);
