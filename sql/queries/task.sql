-- Reading tasks, and what people do to them.

-- name: read_tasks
-- Whole rows, by number or by id. Leases are looked through once, and only if one of the tasks runs. Lean, without what holds a task
-- back and its progress, which take half of the time, and not from the view, which works them out even when they are not asked for
-- (it looks at the clock). $1 ns $2 numbers $3 ids
with t as materialized (
  --full{
  select * from task_seen where ns = $1 and (no = any ($2::bigint[]) or id = any ($3::uuid[]))),
  --full}
  --lean{
  select
    p.no, p.id, p.group_no, g.id as group_id, p.name, c.name as channel, w.name as workgroup, p.key, p.state, -p.rank as priority,
    p.input, p.output, p.metadata, p.run_after, p.attempt, p.remaining, p.max_attempts, p.retry_delay, p.backoff, p.max_delay,
    p.timeout, p.on_parent_failure, p.weight, p.is_seed, p.spawned_by, p.merged_into, p.worker, p.created_at, p.ready_at,
    p.started_at, p.finished_at, null::timestamptz as not_before, 0 as holds, null::float8 as progress,
    null::text as progress_message
  from task_place p
  join task_group g on g.ns = $1 and g.group_no = p.group_no
  join channel c on c.ns = $1 and c.channel = p.channel
  left join workgroup w on w.ns = $1 and w.workgroup = p.workgroup
  where p.ns = $1 and (p.no = any ($2::bigint[]) or p.id = any ($3::uuid[]))),
  --lean}
l as materialized (
  select u.no, x.worker, x.until, x.started_at, u.attempt, u.remaining
  from lease x
  cross join lateral unnest(x.nos, x.attempts, x.remainings) as u(no, attempt, remaining)
  join (select no from t where state = 3) r on r.no = u.no
  where x.ns = $1 and exists (select from t where state = 3))
select
  t.no,
  t.id,
  t.group_no,
  t.group_id,
  t.name,
  t.channel,
  t.workgroup,
  t.key,
  t.state,
  t.priority,
  t.input,
  t.output,
  t.metadata,
  t.run_after,
  t.not_before,
  t.holds,
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
  t.progress,
  t.progress_message,
  t.spawned_by,
  t.merged_into,
  w.name as worker_id,
  l.until as lease_expires_at,
  t.created_at,
  t.ready_at,
  coalesce(l.started_at, t.started_at, case when t.attempt > 0 then (
    select e.started_at from error e where e.ns = $1 and e.no = t.no order by e.seq desc limit 1) end) as started_at,
  t.finished_at
from t
left join l on l.no = t.no
left join worker w on w.ns = $1 and w.worker = coalesce(l.worker, t.worker);

-- name: matching_tasks
-- All that match, for the verbs that take a filter. $1 ns; null is no narrowing: $2 states $3 channels $4 workgroups $5 group id
-- $6 worker $7 part of the name $8 created after $9 created before $10 key
select no
from task_now
where ns = $1
  and ($2::smallint[] is null or state = any ($2))
  and ($3::text[] is null or channel = any ($3))
  and ($4::text[] is null or workgroup = any ($4))
  and ($5::uuid is null or group_no = (select g.group_no from task_group g where g.ns = $1 and g.id = $5))
  and ($6::text is null or worker_id = $6)
  and ($7::text is null or strpos(lower(name), lower($7)) > 0)
  and ($8::timestamptz is null or created_at > $8)
  and ($9::timestamptz is null or created_at < $9)
  and ($10::text is null or key = $10)
order by no;

-- name: numbers_of_tasks
-- Of those that exist. $1 ns $2 ids
select no from task where ns = $1 and id = any ($2::uuid[]) order by no;

-- name: errors_of_tasks
-- What failed attempts reported, oldest first: the first and the newest 99 of each. $1 ns $2 numbers
select e.no, e.attempt, e.error, w.name as worker_id, e.started_at, e.at
from unnest($2::bigint[]) as n(no)
cross join lateral (
  select x.* from error x
  where x.ns = $1 and x.no = n.no and x.seq = any (
    array(select f.seq from error f where f.ns = $1 and f.no = n.no order by f.seq limit 1)
    || array(select f.seq from error f where f.ns = $1 and f.no = n.no order by f.seq desc limit 99))) e
left join worker w on w.ns = $1 and w.worker = e.worker
order by e.no, e.seq;

-- name: links_to_parents
-- In the order they were named, then the adopted ones. $1 ns $2 numbers of the children $3 at most so many of each
select l.child as no, l.parent as other
from unnest($2::bigint[]) as c(no)
cross join lateral (
  select e.child, e.parent, e.place from edge e where e.ns = $1 and e.child = c.no order by e.place, e.parent limit $3) l
order by l.child, l.place, l.parent;

-- name: links_to_children
-- Oldest first. $1 ns $2 numbers of the parents $3 at most so many of each
select l.parent as no, l.child as other
from unnest($2::bigint[]) as p(no)
cross join lateral (
  select e.parent, e.child from edge e where e.ns = $1 and e.parent = p.no order by e.child limit $3) l
order by l.parent, l.child;

-- name: count_links
-- $1 ns $2 numbers
select n.no,
  (select count(*)::int from edge e where e.ns = $1 and e.child = n.no) as parents,
  (select count(*)::int from edge e where e.ns = $1 and e.parent = n.no) as children,
  (select count(*)::int from plucked x where x.ns = $1 and x.no = n.no and x.place > 0) as results
from unnest($2::bigint[]) as n(no);

-- name: parent_results
-- What the parents of leased tasks produced, in the order they were named; of a copy, what was kept (pluck.sql). $1 ns $2 numbers of
-- the children $3 at most so many of each
select no, task_id, name, channel, state, input, output
from (
  select l.child as no, l.place, l.parent, t.id as task_id, t.name, c.name as channel, p.state, t.input, d.output
  from unnest($2::bigint[]) as k(no)
  cross join lateral (
    select e.child, e.parent, e.place from edge e where e.ns = $1 and e.child = k.no order by e.place, e.parent limit $3) l
  join task t on t.ns = $1 and t.no = l.parent
  join task_place p on p.ns = $1 and p.no = l.parent
  join channel c on c.ns = $1 and c.channel = t.channel
  left join done d on d.ns = $1 and d.no = l.parent
  union all
  select no, place, 0, id, name, channel, state, input, output from plucked
  where ns = $1 and no = any ($2) and place between 1 and $3) r
order by no, place, parent;

-- name: links_among
-- Links whose child is one of these. $1 ns $2 numbers
select e.parent, e.child, p.id as parent_id, c.id as child_id, e.subtree, e.adopted
from edge e
join task p on p.ns = $1 and p.no = e.parent
join task c on c.ns = $1 and c.no = e.child
where e.ns = $1 and e.child = any ($2::bigint[]) and e.parent = any ($2::bigint[])
order by e.child, e.place, e.parent;

