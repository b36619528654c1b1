-- How many tasks of a channel (1) or workgroup (2) may run at once, and start in so many seconds (docs/adr/0014).

-- The row of kind 0 is whose turn it is: claims of limited tasks lock it, one after the other.
create table cap (
  ns int not null,
  kind smallint not null,
  ref int not null,
  max_running int,
  starts int,
  seconds float8,
  primary key (ns, kind, ref)
);

-- Starts of workgroups that have a rate limit, for as long as its window.
create table start (
  ns int not null,
  workgroup int not null,
  at timestamptz not null,
  n int not null
);
create index start_at on start (ns, workgroup, at);

-- Ready tasks of a limited workgroup stand aside, but for a few of each channel, which claims choose from.
alter table ready add admitted boolean not null default false;
create index parked_lane on parked (ns, workgroup, channel, rank, no) where not paused;

-- Channels and workgroups in which nothing more may start now.
create view at_limit as
select p.ns, p.kind, p.ref
from cap p
where p.kind > 0 and (
  p.max_running <= (
    select count(*)
    from lease l cross join lateral unnest(l.channels, l.workgroups) as u(channel, workgroup)
    where l.ns = p.ns and case p.kind when 1 then u.channel else u.workgroup end = p.ref)
  or p.starts <= (
    select sum(x.n) from start x
    where x.ns = p.ns and x.workgroup = p.ref and x.at > clock_timestamp() - p.seconds * interval '1 s'));

drop view task_now;
drop view task_seen;

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
  -- What holds it back, as bits: 1 paused itself, 2 its group, 4 its channel, 8 its workgroup suspended,
  -- 16 its channel, 32 its workgroup at its limit.
  case when t.state = 2 then
    case when exists (select from pause x where x.ns = t.ns and x.kind = 1 and x.ref = t.no) then 1 else 0 end
    + case when exists (select from pause x where x.ns = t.ns and x.kind = 2 and x.ref = t.group_no) then 2 else 0 end
    + case when exists (select from pause x where x.ns = t.ns and x.kind = 3 and x.ref = t.channel) then 4 else 0 end
    + case when h.until > now() then 8 else 0 end
    + case when exists (select from at_limit x where x.ns = t.ns and x.kind = 1 and x.ref = t.channel) then 16 else 0 end
    + case when exists (select from at_limit x where x.ns = t.ns and x.kind = 2 and x.ref = t.workgroup) then 32 else 0 end
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

-- The same, but for what a lease says: task_now joins the leases of each running task by itself, which is slow for many.
create view task_seen as
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
  case when t.state = 2 then
    case when exists (select from pause x where x.ns = t.ns and x.kind = 1 and x.ref = t.no) then 1 else 0 end
    + case when exists (select from pause x where x.ns = t.ns and x.kind = 2 and x.ref = t.group_no) then 2 else 0 end
    + case when exists (select from pause x where x.ns = t.ns and x.kind = 3 and x.ref = t.channel) then 4 else 0 end
    + case when h.until > now() then 8 else 0 end
    + case when exists (select from at_limit x where x.ns = t.ns and x.kind = 1 and x.ref = t.channel) then 16 else 0 end
    + case when exists (select from at_limit x where x.ns = t.ns and x.kind = 2 and x.ref = t.workgroup) then 32 else 0 end
  else 0 end as holds,
  t.attempt,
  t.remaining,
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
  t.worker,
  t.created_at,
  t.ready_at,
  t.started_at,
  t.finished_at
from task_place t
join task_group g on g.ns = t.ns and g.group_no = t.group_no
join channel c on c.ns = t.ns and c.channel = t.channel
left join workgroup w on w.ns = t.ns and w.workgroup = t.workgroup
left join hold h on h.ns = t.ns and h.workgroup = t.workgroup
left join progress o on o.ns = t.ns and o.no = t.no;
