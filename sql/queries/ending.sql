-- What people do to many tasks at once, and what follows when a task ends otherwise than by its completion.
-- Rows are locked in the order of lease.sql.

-- name: descendants
-- These tasks and all below them, along links that someone named. $1 ns $2 numbers
with recursive d as (
  select unnest($2::bigint[]) as no
  union
  select e.child from d join edge e on e.ns = $1 and e.parent = d.no and not e.adopted)
select no from d order by no;

-- name: unsettled_of_group
-- $1 ns $2 group number
select t.no from task t
where t.ns = $1 and t.group_no = $2::bigint and not exists (select from done d where d.ns = $1 and d.no = t.no)
order by t.no;

-- name: failed_of_group
-- $1 ns $2 group number
select f.no from task t join failed f on f.ns = $1 and f.no = t.no
where t.ns = $1 and t.group_no = $2::bigint order by f.no;

-- name: cancel_tasks
-- Ends tasks that are not settled, wherever they stand. `moved` were found nowhere: they have just changed their place, run
-- again for them. Who ran for a key is in `runners`: free its twins next. $1 ns $2 numbers
with t as materialized (
  select t.no, t.channel, t.rank from task t
  where t.ns = $1 and t.no = any ($2::bigint[]) and not exists (select from done d where d.ns = $1 and d.no = t.no)),
-- Leases first, as completions lock them: every other place reads `held` before it deletes.
held as materialized (
  select l.* from lease l
  where l.ns = $1 and (l.lease_no, l.part) in (
    select x.lease_no, x.part from lease x cross join lateral unnest(x.nos) as u(no) join t using (no) where x.ns = $1)
  order by l.lease_no, l.part for update),
free as materialized (select t.* from t where (select count(*) from held) >= 0),
item as materialized (
  select f.lease_no, f.part, f.worker, f.started_at, u.*, t.no is not null as taken
  from held f
  cross join lateral unnest(f.nos, f.groups, f.channels, f.workgroups, f.attempts, f.remainings, f.failures, f.keys)
    as u(no, group_no, channel, workgroup, attempt, remaining, failures, key)
  left join t on t.no = u.no),
rest as materialized (
  select lease_no, part, array_agg(no) as nos, array_agg(group_no) as groups, array_agg(channel) as channels,
    array_agg(workgroup) as workgroups, array_agg(attempt) as attempts, array_agg(remaining) as remainings,
    array_agg(failures) as failures, array_agg(key) as keys
  from item where not taken group by lease_no, part),
emptied as (
  delete from lease l using held f
  where l.ns = $1 and l.lease_no = f.lease_no and l.part = f.part
    and not exists (select from rest r where r.lease_no = f.lease_no and r.part = f.part)),
trimmed as (
  update lease l
  set nos = r.nos, groups = r.groups, channels = r.channels, workgroups = r.workgroups, attempts = r.attempts,
    remainings = r.remainings, failures = r.failures, keys = r.keys
  from rest r
  where l.ns = $1 and l.lease_no = r.lease_no and l.part = r.part and cardinality(l.nos) > cardinality(r.nos)),
from_ready as (
  delete from ready x using free t where x.ns = $1 and x.channel = t.channel and x.rank = t.rank and x.no = t.no
  returning x.no, x.group_no, x.channel, x.workgroup, x.attempt, x.remaining),
from_parked as (
  delete from parked x using free t where x.ns = $1 and x.no = t.no
  returning x.no, x.group_no, x.channel, x.workgroup, x.attempt, x.remaining),
from_merged as (
  delete from merged x using free t where x.ns = $1 and x.no = t.no
  returning x.no, x.group_no, x.channel, x.workgroup, x.attempt, x.remaining),
from_scheduled as (
  delete from scheduled x using free t where x.ns = $1 and x.no = t.no
  returning x.no, x.group_no, x.channel, x.workgroup, x.attempt, x.remaining),
from_blocked as (
  delete from blocked x using free t where x.ns = $1 and x.no = t.no
  returning x.no, x.group_no, x.channel, x.workgroup, x.attempt, x.remaining),
from_failed as (
  delete from failed x using free t where x.ns = $1 and x.no = t.no
  returning x.no, x.group_no, x.channel, x.workgroup, x.attempt, x.remaining, x.worker, x.started_at),
hit as materialized (
  select *, 2 as was, null::int as worker, null::timestamptz as started_at from from_ready
  union all select *, 2, null, null from from_parked
  union all select *, 4, null, null from from_merged
  union all select *, 1, null, null from from_scheduled
  union all select *, 0, null, null from from_blocked
  union all select no, group_no, channel, workgroup, attempt, remaining, 6, worker, started_at from from_failed
  union all select no, group_no, channel, workgroup, attempt, remaining, 3, worker, started_at from item where taken),
ended as (
  insert into done (ns, no, outcome, attempt, remaining, worker, started_at)
  select $1, no, 7, attempt, remaining, worker, started_at from hit),
told as (
  insert into event (ns, kind, was, state, worker, nos, groups, channels, workgroups, attempts)
  select $1, 9, was, 7, worker, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup),
    array_agg(attempt)
  from hit group by was, worker)
select
  (select array_agg(no order by no) from hit) as cancelled,
  -- What follows from a failure has followed already.
  (select array_agg(no) from hit where was <> 6) as ended,
  (select array_agg(no) from item where taken and key is not null) as runners,
  (select array_agg(no) from t where no not in (select no from hit)) as moved;

-- name: doomed
-- Blocked tasks that are cancelled with these (CANCEL, and so on down), locked. Hanging a task below one waits for us, or we
-- for it: run again until nothing is added. $1 ns $2 numbers
with recursive d as (
  select b.no from edge e join blocked b on b.ns = $1 and b.no = e.child
  where e.ns = $1 and e.parent = any ($2::bigint[]) and b.policy = 1
  union
  select b.no from d join edge e on e.ns = $1 and e.parent = d.no join blocked b on b.ns = $1 and b.no = e.child
  where b.policy = 1)
select b.no from blocked b where b.ns = $1 and b.no = any (array(select no from d)) order by b.no for update;

-- name: settle_children
-- What waits for tasks that have ended goes on: all that waits through a SUBTREE link for one that succeeded and spawned; what
-- runs however its parents end (RUN). $1 ns $2 joins, once for each that succeeded $3 numbers of those that failed or were
-- cancelled, and of the doomed $4 the doomed, which are cancelled here
with delta as materialized (
  select child, count(*)::int as n
  from (
    select unnest($2::bigint[]) as child
    union all
    select e.child from edge e join blocked b on b.ns = $1 and b.no = e.child
    where e.ns = $1 and e.parent = any ($3::bigint[]) and b.policy = 2) x
  group by child),
locked as materialized (
  select b.* from blocked b where b.ns = $1 and b.no = any (array(select child from delta) || $4::bigint[])
  order by b.no for update),
cancelled as (
  delete from blocked b using locked l where b.ns = $1 and b.no = l.no and l.no = any ($4::bigint[])
  returning l.no, l.group_no, l.channel, l.workgroup, l.attempt, l.remaining),
ended as (
  insert into done (ns, no, outcome, attempt, remaining) select $1, no, 7, attempt, remaining from cancelled),
due as materialized (
  select l.*, l.open - d.n as left_open, l.run_at as due_at from locked l join delta d on d.child = l.no
  where l.no <> all ($4::bigint[])),
fewer as (update blocked b set open = d.left_open from due d where b.ns = $1 and b.no = d.no and d.left_open > 0),
freed as (delete from blocked b using due d where b.ns = $1 and b.no = d.no and d.left_open <= 0),
later as (
  insert into scheduled (ns, run_at, no, channel, rank, workgroup, group_no, attempt, remaining, failures, key)
  select $1, due_at, no, channel, rank, workgroup, group_no, attempt, remaining, failures, key from due
  where left_open <= 0 and due_at > now()),
soon as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key)
  select $1, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key from due
  where left_open <= 0 and (due_at is null or due_at <= now())),
told as (
  insert into event (ns, kind, was, state, nos, groups, channels, workgroups, attempts)
  select $1, 9, 0, 7, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(attempt)
  from cancelled having count(*) > 0
  union all
  select $1, case when later then 2 else 3 end, 0, case when later then 1 else 2 end, array_agg(no),
    array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(attempt)
  from (select *, coalesce(due_at > now(), false) as later from due where left_open <= 0) x group by later)
select
  array_agg(channel) filter (where is_ready) as channels,
  array_agg(rank) filter (where is_ready) as ranks,
  array_agg(no) filter (where is_ready) as nos,
  array_agg(no) filter (where is_ready and key is not null) as merging,
  extract(epoch from min(due_at) filter (where not is_ready) - now())::float8 as due_in
from (select *, coalesce(due_at <= now(), true) as is_ready from due where left_open <= 0) x;

-- name: retry_tasks
-- Failed tasks, and only those, become ready at once; blocked children that run however their parents end wait for them
-- again. $1 ns $2 numbers $3 attempts
with found as materialized (
  select f.no from failed f where f.ns = $1 and f.no = any ($2::bigint[]) order by f.no for update),
gone as (
  delete from failed f using found x where f.ns = $1 and f.no = x.no
  returning f.no, f.channel, f.rank, f.workgroup, f.group_no, f.attempt, f.key),
back as (
  insert into ready (ns, channel, rank, workgroup, no, group_no, attempt, remaining, failures, key)
  select $1, channel, rank, workgroup, no, group_no, attempt, $3::int, 0, key from gone),
again as materialized (
  select e.child, count(*)::int as n from gone g join edge e on e.ns = $1 and e.parent = g.no group by e.child),
locked as materialized (
  select b.no, b.open from blocked b
  where b.ns = $1 and b.no = any (array(select child from again)) and b.policy = 2 order by b.no for update),
more as (
  update blocked b set open = l.open + a.n from locked l join again a on a.child = l.no where b.ns = $1 and b.no = l.no),
told as (
  insert into event (ns, kind, was, state, nos, groups, channels, workgroups, attempts)
  select $1, 3, 6, 2, array_agg(no), array_agg(group_no), array_agg(channel), array_agg(workgroup), array_agg(attempt)
  from gone having count(*) > 0)
select no, channel, rank, key is not null as merges from gone order by no;
