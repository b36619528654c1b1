-- The whole life of a task: keys, SUBTREE joins, what a parent's failure does, time-outs, pauses.
-- The ticket gains `key`: set where the task merges with others of its channel and key, null for all others (ALLOW too).

alter table task
  add key text,
  -- 0 MERGE 1 RETURN_EXISTING 2 REJECT 3 ALLOW
  add on_duplicate smallint not null default 0,
  add timeout float8,
  -- 0 BLOCK 1 CANCEL 2 RUN
  add on_parent_failure smallint not null default 0;
create index task_of_key on task (ns, key, no) where key is not null;
create index task_of_spawner on task (ns, spawned_by) where spawned_by is not null;

alter table ready add key text collate "C";
create index ready_of_key on ready (ns, channel, key) where key is not null;
alter table parked
  add key text collate "C",
  -- Moved aside for a pause of its own or of its group, not for the suspension of its workgroup.
  add paused boolean not null default false;
create index parked_of_key on parked (ns, channel, key) where key is not null;
create index parked_of_suspended on parked (ns, workgroup, rank, no) where not paused;
create index parked_of_group on parked (ns, group_no) where paused;
drop index parked_of_workgroup;
alter table scheduled add key text;
alter table failed add key text;
-- `open`: parents that have not succeeded, or under RUN have not ended. `policy` is the task's on_parent_failure.
alter table blocked
  add key text,
  add policy smallint not null default 0;

-- A task with a time-out stands in a part with others of the same `deadline`, which `until` never passes.
-- In a part with a `runner`, its twins stand while they end with it, which is for one transaction.
alter table lease
  add keys text[] not null default '{}',
  add deadline timestamptz,
  add runner bigint;
alter table lease alter keys set storage external;

-- Which task runs for a channel and key. Whoever makes such a task, or makes one ready, locks the row first (and makes it,
-- with no task, where there is none): so every twin is seen by the one that runs, and it by every twin.
create table runner (
  ns int not null,
  channel int not null,
  key text collate "C" not null,
  no bigint,
  primary key (ns, channel, key)
) with (fillfactor = 70);
create index runner_without_task on runner (ns) where no is null;

-- Tasks that ride with the runner of their key.
create table merged (
  ns int not null,
  no bigint not null,
  into_no bigint not null,
  channel int not null,
  rank int not null,
  workgroup int not null,
  group_no bigint not null,
  attempt int not null,
  remaining int not null,
  failures int not null,
  key text not null,
  ready_at timestamptz not null,
  primary key (ns, no)
);
create index merged_of_runner on merged (ns, into_no);

-- Tasks with a key, of any policy, by that key; those that have ended are removed some time later.
create table keyed (
  ns int not null,
  channel int not null,
  key text collate "C" not null,
  no bigint not null,
  primary key (ns, channel, key, no)
);

-- What people hold back: kind 1 a task, 2 a group, 3 a channel; `ref` its number.
create table pause (
  ns int not null,
  kind smallint not null,
  ref bigint not null,
  primary key (ns, kind, ref)
);

-- A subtree link waits for all that the parent goes on to spawn; an adopted one came through such a link.
alter table edge
  add subtree boolean not null default false,
  add adopted boolean not null default false;

-- Tasks of a subtree that its join does not wait for (other joins of the same subtree), though it does for what they spawn.
create table feeder (
  ns int not null,
  no bigint not null,
  join_no bigint not null,
  primary key (ns, no, join_no)
);

alter table done add merged_into bigint;

drop view task_now;
drop view task_place;

-- Every task with its place, which is its state (numbers in sql/README.md). In no place at all is in a lease: RUNNING.
create view task_place as
select
  t.*,
  case
    when d.no is not null then d.outcome
    when r.no is not null or p.no is not null then 2
    when b.no is not null then 0
    when s.no is not null then 1
    when f.no is not null then 6
    when m.no is not null then 4
    else 3
  end::smallint as state,
  coalesce(s.run_at, b.run_at) as run_at,
  coalesce(r.ready_at, p.ready_at, m.ready_at) as ready_at,
  coalesce(d.attempt, r.attempt, p.attempt, b.attempt, s.attempt, f.attempt, m.attempt) as attempt,
  coalesce(d.remaining, r.remaining, p.remaining, b.remaining, s.remaining, f.remaining, m.remaining) as remaining,
  coalesce(d.worker, f.worker) as worker,
  coalesce(d.started_at, f.started_at) as started_at,
  coalesce(d.at, f.at) as finished_at,
  coalesce(d.merged_into, m.into_no) as merged_into,
  d.output
from task t
left join done d on d.ns = t.ns and d.no = t.no
left join ready r on r.ns = t.ns and r.channel = t.channel and r.rank = t.rank and r.no = t.no
left join parked p on p.ns = t.ns and p.no = t.no
left join blocked b on b.ns = t.ns and b.no = t.no
left join scheduled s on s.ns = t.ns and s.no = t.no
left join failed f on f.ns = t.ns and f.no = t.no
left join merged m on m.ns = t.ns and m.no = t.no;

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
  t.key,
  t.state,
  -t.rank as priority,
  t.input,
  t.output,
  t.metadata,
  t.run_after,
  case when t.state in (0, 1, 2) then greatest(
    case when t.run_at > now() then t.run_at end,
    case when h.until > now() then h.until end) end as not_before,
  -- What holds it back, as bits: 1 paused itself, 2 its group, 4 its channel, 8 its workgroup suspended.
  case when t.state = 2 then
    case when exists (select from pause x where x.ns = t.ns and x.kind = 1 and x.ref = t.no) then 1 else 0 end
    + case when exists (select from pause x where x.ns = t.ns and x.kind = 2 and x.ref = t.group_no) then 2 else 0 end
    + case when exists (select from pause x where x.ns = t.ns and x.kind = 3 and x.ref = t.channel) then 4 else 0 end
    + case when h.until > now() then 8 else 0 end
  else 0 end as holds,
  coalesce(t.attempt, l.attempt, 0) as attempt,
  coalesce(t.remaining, l.remaining, 0) as remaining,
  t.max_attempts,
  t.retry_delay,
  t.backoff,
  t.max_delay,
  t.timeout,
  t.on_parent_failure,
  t.weight,
  t.is_seed,
  o.fraction as progress,
  o.message as progress_message,
  t.spawned_by,
  t.merged_into,
  k.name as worker_id,
  l.until as lease_expires_at,
  t.created_at,
  t.ready_at,
  coalesce(l.started_at, t.started_at, case when t.attempt > 0 then (
    select max(e.started_at) from error e where e.ns = t.ns and e.no = t.no) end) as started_at,
  t.finished_at
from task_place t
join task_group g on g.ns = t.ns and g.group_no = t.group_no
join channel c on c.ns = t.ns and c.channel = t.channel
left join workgroup w on w.ns = t.ns and w.workgroup = t.workgroup
left join hold h on h.ns = t.ns and h.workgroup = t.workgroup
left join progress o on o.ns = t.ns and o.no = t.no
left join lateral (
  select x.worker, x.until, x.started_at, u.attempt, u.remaining
  from lease x cross join lateral unnest(x.nos, x.attempts, x.remainings) as u(no, attempt, remaining)
  where t.state = 3 and x.ns = t.ns and x.nos @> array[t.no] and u.no = t.no
  limit 1) l on true
left join worker k on k.ns = t.ns and k.worker = coalesce(l.worker, t.worker);
