-- Reading within 50 ms at ten million tasks: orders have indexes, and what would be a count of many rows is folded from events.

-- Ended tasks by their end, newest ones last: FINISHED_DESC.
create index done_by_end on done (ns, at, no);
create index failed_by_end on failed (ns, at, no);
-- Few are cancelled: they are told apart from the many that succeeded, who do not pay for it.
create index cancelled_by_number on done (ns, no) where outcome = 7;
create index cancelled_by_end on done (ns, at, no) where outcome = 7;
-- PRIORITY_DESC: most tasks have priority 0, and cost nothing here; among them the order is that of the numbers.
create index task_by_rank on task (ns, rank, no) where rank <> 0;
-- Progress goes by weight. Most tasks weigh 1, and are told by their absence.
create index task_of_other_weight on task (ns, no) include (weight) where weight <> 1;
-- READY by priority: what is moved aside is READY too.
create index parked_by_rank on parked (ns, rank, no);
create index group_by_name on task_group (ns, name collate "C", group_no);

-- How far each group is: a fold of the event log, as `tally`; a reader adds the tail (group_tail). One row a group.
-- `counts` by state, from BLOCKED at 1 to CANCELLED at 8; `settled_at` is the latest end.
create table group_tally (
  ns int not null,
  group_no bigint not null,
  total int not null,
  unsettled int not null,
  failing int not null,
  counts int[] not null,
  weight bigint not null,
  settled_weight bigint not null,
  settled_at timestamptz,
  finished_at timestamptz generated always as (case when total > 0 and unsettled = 0 then settled_at end) stored,
  primary key (ns, group_no)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
create index group_by_end on group_tally (ns, finished_at, group_no) where finished_at is not null;
create index group_finished on group_tally (ns, group_no) where finished_at is not null;
create index group_open on group_tally (ns, group_no) where finished_at is null;
create index group_failing on group_tally (ns, group_no) where failing > 0;
-- Servers of the last release fold `tally` alone, so this fold has a place of its own.
create table group_fold (
  ns int primary key,
  upto pg_snapshot not null
);

-- How fast each channel goes (0: all of them), by spans of 10 s: what is counted, and how many. what: 1 created 2 succeeded
-- 3 failed; from 100 on started, by how long they had waited (see fold_groups).
create table pace (
  ns int not null,
  channel int not null,
  at timestamptz not null,
  what smallint not null,
  n bigint not null,
  primary key (ns, channel, at, what)
) with (fillfactor = 70);

-- What events since the fold have changed in each group.
create view group_tail as
select
  i.ns,
  i.group_no,
  coalesce(sum(case when was is null then n when state is null then -n end), 0)::int as total,
  coalesce(sum(case
    when state not in (5, 7) and (was is null or was in (5, 7)) then n
    when was not in (5, 7) and (state is null or state in (5, 7)) then -n end), 0)::int as unsettled,
  coalesce(sum(case 6 when state then n when was then -n end), 0)::int as failing,
  array[
    coalesce(sum(case 0 when state then n when was then -n end), 0),
    coalesce(sum(case 1 when state then n when was then -n end), 0),
    coalesce(sum(case 2 when state then n when was then -n end), 0),
    coalesce(sum(case 3 when state then n when was then -n end), 0),
    coalesce(sum(case 4 when state then n when was then -n end), 0),
    coalesce(sum(case 5 when state then n when was then -n end), 0),
    coalesce(sum(case 6 when state then n when was then -n end), 0),
    coalesce(sum(case 7 when state then n when was then -n end), 0)]::int[] as counts,
  coalesce(sum(case when was is null then n + more when state is null then -n end), 0)::bigint as weight,
  coalesce(sum(case
    when state in (5, 7) and (was is null or was not in (5, 7)) then n + more
    when was in (5, 7) and (state is null or state not in (5, 7)) then -n - more end), 0)::bigint as settled_weight,
  max(i.at) filter (where state in (5, 7)) as settled_at
from (
  select e.ns, u.group_no, e.was, e.state, count(u.no) as n, max(e.at) as at,
    coalesce(sum((
      select t.weight - 1 from task t where t.ns = e.ns and t.no = u.no and t.weight <> 1))
      filter (where e.was is null or (e.was in (5, 7)) <> (e.state in (5, 7))), 0) as more
  from group_fold f
  join event e on e.ns = f.ns and e.xid >= pg_snapshot_xmin(f.upto) and not pg_visible_in_snapshot(e.xid, f.upto)
  cross join lateral unnest(e.nos, e.groups) as u(no, group_no)
  -- 18: a group is made. It has no tasks yet, and a row from then on.
  where e.kind = 18 or (e.state is distinct from e.was and cardinality(e.nos) > 0)
  group by e.ns, u.group_no, e.was, e.state) i
group by i.ns, i.group_no;

-- What there is already, as of one snapshot, which is where the fold begins.
with begun as (
  insert into group_fold (ns, upto) select ns, pg_current_snapshot() from namespace),
counted as materialized (
  select p.ns, p.group_no, p.state, count(*)::int as n, sum(p.weight)::bigint as weight,
    max(p.finished_at) filter (where p.state in (5, 7)) as at
  from task_place p group by p.ns, p.group_no, p.state)
insert into group_tally (ns, group_no, total, unsettled, failing, counts, weight, settled_weight, settled_at)
select
  g.ns,
  g.group_no,
  coalesce(sum(c.n), 0),
  coalesce(sum(c.n) filter (where c.state not in (5, 7)), 0),
  coalesce(sum(c.n) filter (where c.state = 6), 0),
  array[
    coalesce(sum(c.n) filter (where c.state = 0), 0), coalesce(sum(c.n) filter (where c.state = 1), 0),
    coalesce(sum(c.n) filter (where c.state = 2), 0), coalesce(sum(c.n) filter (where c.state = 3), 0),
    coalesce(sum(c.n) filter (where c.state = 4), 0), coalesce(sum(c.n) filter (where c.state = 5), 0),
    coalesce(sum(c.n) filter (where c.state = 6), 0), coalesce(sum(c.n) filter (where c.state = 7), 0)],
  coalesce(sum(c.weight), 0),
  coalesce(sum(c.weight) filter (where c.state in (5, 7)), 0),
  max(c.at)
from task_group g left join counted c on c.ns = g.ns and c.group_no = g.group_no
group by g.ns, g.group_no;

-- Tasks as people read them, but for what a lease says: task_now joins the leases of each running task by itself, which is slow
-- for many (read_tasks).
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

-- Last, for it locks out whoever writes: seconds from ready to started, of tasks that started.
alter table event add waits float4[];
alter table event alter waits set storage external;
